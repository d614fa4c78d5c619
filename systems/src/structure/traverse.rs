//! Traversal: the modules, parameters and buffers of a live model, by name, in torch's order.
//!
//! Each function takes the entity of a module, the root or any other, and lists what is there and below.

use std::collections::HashSet;

use std::borrow::Cow;

use bevy_ecs::prelude::*;
use neurarch_components::module::NoModule;
use neurarch_components::module::blueprint::{Blueprint, Parameter};
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::module::repr::with_children;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::tree::Model;
use neurarch_kernels::ir::device::Device;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::ir::shape::Type;

use crate::errors::{AccessError, LookupError, SignError};
use crate::structure::root::root_of;
use crate::structure::sign;
use crate::structure::spot::{Spot, locate};

/// How names are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listing<'a> {
    /// What all names start with, a dot between.
    pub prefix: &'a str,
    /// Whether modules below are listed, too.
    pub recurse: bool,
    /// Whether what has several names is listed under the first alone.
    pub remove_duplicate: bool,
}

/// torch's: no prefix, all below, nothing twice.
impl Default for Listing<'_> {
    fn default() -> Self {
        Listing { prefix: "", recurse: true, remove_duplicate: true }
    }
}

/// A parameter or buffer of a live model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTensor {
    /// The dotted name that it is listed under.
    pub name: String,
    /// The entity whose column has its numbers: of the owner's module, if it is tied. What the population
    /// shares has them on the population's entity; this is the model's module all the same.
    pub module: Entity,
    /// Its name in that module.
    pub own_name: String,
    /// Its element type and shape.
    pub ty: Type,
    /// Whether a `state_dict` has it.
    pub persistent: bool,
}

impl NamedTensor {
    /// Returns the element type: `parameter.dtype`.
    pub fn dtype(&self) -> Dtype {
        self.ty.dtype
    }

    /// Returns the sizes of the axes: `parameter.shape`.
    pub fn shape(&self) -> &[usize] {
        &self.ty.shape
    }

    /// Returns where the numbers lie: `parameter.device`.
    pub fn device(&self) -> Device {
        Device::Cpu
    }
}

/// Signs a population, and finds the modules at a dotted path: the first of each group, and how many there are.
pub(crate) fn spots(
    world: &mut World,
    population: Entity,
    path: &str,
) -> Result<Vec<(Spot, usize)>, LookupError> {
    sign::refresh(world, population).map_err(AccessError::from)?;
    let found = world.get::<Population>(population);
    let found = found.ok_or(AccessError::Sign(SignError::NotAPopulation(population)))?;
    let mut spots = Vec::new();
    for (number, group) in found.groups().iter().enumerate() {
        let blueprint = world.resource::<Blueprints>().get(group.blueprint);
        let Some(blueprint) = blueprint.filter(|_| !group.members.is_empty()) else { continue };
        let position = blueprint.below(0, path).map_err(|(at, name)| LookupError::NoAttribute {
            class: blueprint.class_name(at).into_owned(),
            name: name.to_owned(),
        })?;
        let position = resolved(blueprint, position);
        spots.push((Spot { population, group: number, member: 0, position }, group.members.len()));
    }
    Ok(spots)
}

/// Returns the position that a position is: the owner's, if it is a second name.
pub(crate) fn resolved(blueprint: &Blueprint, position: usize) -> usize {
    blueprint.positions[position].alias.unwrap_or(position)
}

/// Lists the children of a position by name, second names resolved, but for those that are torch's `None`.
pub(crate) fn children_of(
    blueprint: &Blueprint,
    position: usize,
) -> impl Iterator<Item = (&str, usize)> {
    let is_there = |child: usize| !blueprint.positions[child].module.is::<NoModule>();
    entries_of(blueprint, position).filter(move |&(_, child)| is_there(child))
}

/// Lists the children of a position by name, those that are torch's `None` included.
fn entries_of(blueprint: &Blueprint, position: usize) -> impl Iterator<Item = (&str, usize)> {
    let children = blueprint.positions[position].children.iter();
    children.map(|&child| (blueprint.positions[child].name.as_str(), resolved(blueprint, child)))
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Lists a position and all below it, by the names that they are reached under.
pub(crate) fn named_positions(
    blueprint: &Blueprint,
    position: usize,
    listing: Listing<'_>,
) -> Vec<(String, usize)> {
    fn visit(
        blueprint: &Blueprint,
        position: usize,
        path: String,
        seen: &mut HashSet<usize>,
        removes: bool,
        list: &mut Vec<(String, usize)>,
    ) {
        if !seen.insert(position) && removes {
            return;
        }
        list.push((path.clone(), position));
        for (name, child) in children_of(blueprint, position) {
            visit(blueprint, child, join(&path, name), seen, removes, list);
        }
    }
    let mut list = Vec::new();
    let position = resolved(blueprint, position);
    let path = listing.prefix.to_owned();
    if listing.recurse {
        let removes = listing.remove_duplicate;
        visit(blueprint, position, path, &mut HashSet::new(), removes, &mut list);
    } else {
        list.push((path, position));
    }
    list
}

/// Lists the children of a module by name; what has several names once.
///
/// # Errors
///
/// If `module` is no module of a model.
///
/// Source: `torch.nn.Module.named_children`, `children`.
pub fn named_children(
    world: &mut World,
    module: Entity,
) -> Result<Vec<(String, Entity)>, AccessError> {
    let at = locate(world, module)?;
    let (blueprint, group) = (at.blueprint(world), at.group(world));
    let mut seen = HashSet::new();
    let children = children_of(&blueprint, at.position).filter(|(_, child)| seen.insert(*child));
    Ok(children.map(|(name, child)| (name.to_owned(), group.modules[child][at.member])).collect())
}

/// Lists a module and all below it by name, each before its children; [`Listing::recurse`] is not asked.
///
/// # Errors
///
/// If `module` is no module of a model.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::{layers::*, population::Population};
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::structure::traverse::*;
/// # let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 3)).push(Tanh);
/// let brains = spawn_population(&mut world, &brain, 5, 5, 7, Dtype::F32)?;
/// let root = world.get::<Population>(brains).unwrap().models()[0];
/// let modules = named_modules(&mut world, root, Listing::default())?;
/// let names: Vec<_> = modules.iter().map(|(name, _)| name.as_str()).collect();
/// assert_eq!(names, ["", "0", "1"]);
/// assert!(world.get::<Tanh>(modules[2].1).is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.Module.named_modules`, `modules`.
pub fn named_modules(
    world: &mut World,
    module: Entity,
    listing: Listing<'_>,
) -> Result<Vec<(String, Entity)>, AccessError> {
    let at = locate(world, module)?;
    Ok(named_modules_at(world, &at, listing))
}

/// [`named_modules`] of one whose model is settled.
pub(crate) fn named_modules_at(
    world: &World,
    at: &Spot,
    listing: Listing<'_>,
) -> Vec<(String, Entity)> {
    let (blueprint, group) = (at.blueprint(world), at.group(world));
    let listing = Listing { recurse: true, ..listing };
    let all = named_positions(&blueprint, at.position, listing).into_iter();
    all.map(|(name, position)| (name, group.modules[position][at.member])).collect()
}

/// Lists the parameters of a module and of all below it by name.
///
/// # Errors
///
/// If `module` is no module of a model.
///
/// Source: `torch.nn.Module.named_parameters`, `parameters`.
pub fn named_parameters(
    world: &mut World,
    module: Entity,
    listing: Listing<'_>,
) -> Result<Vec<NamedTensor>, AccessError> {
    let at = locate(world, module)?;
    Ok(named_tensors(world, &at, listing, Role::Parameter))
}

/// Lists the buffers of a module and of all below it by name, persistent or not.
///
/// # Errors
///
/// If `module` is no module of a model.
///
/// Source: `torch.nn.Module.named_buffers`, `buffers`.
pub fn named_buffers(
    world: &mut World,
    module: Entity,
    listing: Listing<'_>,
) -> Result<Vec<NamedTensor>, AccessError> {
    let at = locate(world, module)?;
    Ok(named_tensors(world, &at, listing, Role::Buffer))
}

/// Lists the parameters or buffers of a module whose model is settled, and of all below it.
pub(crate) fn named_tensors(
    world: &World,
    at: &Spot,
    listing: Listing<'_>,
    role: Role,
) -> Vec<NamedTensor> {
    let (blueprint, group) = (at.blueprint(world), at.group(world));
    let found = named_slots(&blueprint, at.position, listing, role).into_iter();
    let named = found.map(|(name, (position, index))| {
        let owner = &blueprint.positions[position];
        let Parameter { name: own, ty, persistent, .. } = match role {
            Role::Buffer => &owner.buffers[index],
            _ => &owner.parameters[index],
        };
        let module = group.modules[position][at.member];
        let (own_name, ty, persistent) = (own.clone(), ty.clone(), *persistent);
        NamedTensor { name, module, own_name, ty, persistent }
    });
    named.collect()
}

/// Lists parameters or buffers by name, each with the position and the place there of its owner.
pub(crate) fn named_slots(
    blueprint: &Blueprint,
    position: usize,
    listing: Listing<'_>,
    role: Role,
) -> Vec<(String, (usize, usize))> {
    let mut seen = HashSet::new();
    let mut list = Vec::new();
    for (path, position) in named_positions(blueprint, position, listing) {
        let at = &blueprint.positions[position];
        let own = if role == Role::Buffer { &at.buffers } else { &at.parameters };
        for (index, of) in own.iter().enumerate() {
            let owner = of.tied.unwrap_or((position, index));
            if seen.insert(owner) || !listing.remove_duplicate {
                list.push((join(&path, &of.name), owner));
            }
        }
    }
    list
}

/// Calls `deed` with each module below `module`, children first, then with `module` itself.
///
/// # Errors
///
/// If `module` is no module of a model.
///
/// Source: `torch.nn.Module.apply`. Modules are listed before the first call: one that comes later is not
/// visited, one that goes is still named.
pub fn apply(
    world: &mut World,
    module: Entity,
    mut deed: impl FnMut(&mut World, Entity),
) -> Result<(), AccessError> {
    fn visit(blueprint: &Blueprint, position: usize, order: &mut Vec<usize>) {
        let mut seen = HashSet::new();
        for (_, child) in children_of(blueprint, position) {
            if seen.insert(child) {
                visit(blueprint, child, order);
            }
        }
        order.push(position);
    }
    let at = locate(world, module)?;
    let mut order = Vec::new();
    visit(&at.blueprint(world), at.position, &mut order);
    let group = at.group(world);
    let order: Vec<_> = order.into_iter().map(|at_| group.modules[at_][at.member]).collect();
    order.into_iter().for_each(|module| deed(world, module));
    Ok(())
}

/// Prints a live module and all below it as torch does, what has several names under each of them.
///
/// # Errors
///
/// If `module` is no module of a model.
///
/// Source: `torch.nn.Module.__repr__`.
pub fn repr(world: &mut World, module: Entity) -> Result<String, AccessError> {
    fn print(world: &World, at: &Spot, blueprint: &Blueprint, position: usize) -> String {
        let children: Vec<_> = entries_of(blueprint, position)
            .map(|(name, child)| (name, print(world, at, blueprint, child)))
            .collect();
        // A blueprint does not have the numbers that each model has of its own.
        let entity = at.group(world).modules[position][at.member];
        let types = world.get_resource::<ModuleTypes>();
        let entity = world.get_entity(entity).ok();
        let own = types.zip(entity).and_then(|(types, entity)| types.module(entity));
        with_children(own.unwrap_or(&*blueprint.positions[position].module), &children)
    }
    let at = locate(world, module)?;
    Ok(print(world, &at, &at.blueprint(world), at.position))
}

/// Returns the name of a module's type, as torch spells it: `Linear`, or `ParametrizedLinear` if a tensor of it is
/// computed.
///
/// # Errors
///
/// If `module` is no module of a model.
///
/// Source: `type(module).__name__`.
pub fn class_name(world: &mut World, module: Entity) -> Result<Cow<'static, str>, AccessError> {
    let at = locate(world, module)?;
    Ok(at.blueprint(world).class_name(at.position))
}

/// Lists the modules of a population's models, or one module and those below it, with the models' indices.
pub(crate) fn modules_of(
    world: &mut World,
    entity: Entity,
) -> Result<Vec<(usize, Entity)>, AccessError> {
    if world.get::<Population>(entity).is_some() {
        sign::refresh(world, entity)?;
    }
    let Some(population) = world.get::<Population>(entity) else {
        let below = named_modules(world, entity, Listing::default())?;
        let root = root_of(world, entity).map(|(root, _)| root);
        let model = root.and_then(|root| world.get::<Model>(root));
        let index = model.map_or(0, |model| model.index as usize);
        return Ok(below.into_iter().map(|(_, module)| (index, module)).collect());
    };
    let mut modules = Vec::new();
    for group in population.groups() {
        for (place, &model) in group.members.iter().enumerate() {
            let at_place = group.modules.iter().filter_map(|modules| modules.get(place));
            modules.extend(at_place.map(|&module| (model as usize, module)));
        }
    }
    Ok(modules)
}
