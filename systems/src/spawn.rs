//! Spawning: a description becomes entity trees, one a model, with their rows in columns.

use bevy_ecs::component::ComponentId;
use bevy_ecs::prelude::*;
use neurarch_components::blueprint::{Blueprint, BlueprintId, Blueprints};
use neurarch_components::column::{ColumnKey, Columns, Zeros, insert_zeroed};
use neurarch_components::module::{Declare, DynModule};
use neurarch_components::population::{Group, Population};
use neurarch_components::registry::ModuleTypes;
use neurarch_components::tree::{Model, ModuleName, NOT_A_MEMBER};
use neurarch_kernels::dtype::Dtype;
use neurarch_kernels::program::Role;

use crate::sign::SignError;

/// Why models cannot be spawned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A child's name is empty, contains a dot, or is taken; torch's words.
    #[error("{path}: {message}")]
    Name {
        /// Dotted path of the parent.
        path: String,
        /// What is wrong with the name.
        message: String,
    },
    /// Parameters can have elements of `f32` and `f64` only, for now.
    #[error("expected parameters of f32 or f64, got {0}")]
    Dtype(Dtype),
    /// The entity is no population.
    #[error("{0} is not a population")]
    NotAPopulation(Entity),
    /// There is no model to copy the structure from.
    #[error("population {0} has no model left whose structure new ones could have")]
    Empty(Entity),
    /// The population has a model whose tree is no model.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A population has fewer than 2³² models.
    #[error("expected fewer than {max} models, got {given}", max = NOT_A_MEMBER)]
    TooMany {
        /// How many were asked for.
        given: usize,
    },
}

/// Spawns a population of `models` models of `module`, their parameters zero; gives its entity.
///
/// Columns have room for `capacity` models: spawning within it moves nothing.
///
/// # Errors
///
/// [`SpawnError`]; nothing is spawned then.
pub fn spawn_population(
    world: &mut World,
    module: &dyn DynModule,
    models: usize,
    capacity: usize,
    seed: u64,
    dtype: Dtype,
) -> Result<Entity, SpawnError> {
    if !matches!(dtype, Dtype::F32 | Dtype::F64) {
        return Err(SpawnError::Dtype(dtype));
    }
    check_count(models.max(capacity))?;
    check_names(module, "")?;
    let blueprint = Blueprint::of(module, dtype);
    register_types(world, module);
    world.init_resource::<Blueprints>();
    let mut blueprints = world.resource_mut::<Blueprints>();
    let markers = blueprints.take_markers(blueprint.positions.len());
    let modules = vec![Vec::with_capacity(capacity.max(models)); blueprint.positions.len()];
    let id = blueprints.hold(blueprint);
    let mut population = Population::new(seed, dtype);
    population.reserve(capacity.max(models));
    population.groups_mut().push(Group { blueprint: id, markers, members: Vec::new(), modules });
    let population = world.spawn(population).id();
    let mut spawner = Spawner::new(world, population, 0, Some(module));
    let roots: Vec<_> = (0..models).map(|_| spawner.spawn(world)).collect();
    let spare: Vec<_> = (models..capacity).map(|_| spawner.spawn(world)).collect();
    spare.iter().rev().for_each(|trees| drop(world.despawn(trees.root())));
    spawner.enroll(world, &roots);
    Ok(population)
}

/// Spawns `count` more models of the structure of the population's first model, their parameters zero and
/// the settings of their modules those of that model; gives their roots.
///
/// # Errors
///
/// [`SpawnError`]; nothing is spawned then.
pub fn spawn_models(
    world: &mut World,
    population: Entity,
    count: usize,
) -> Result<Vec<Entity>, SpawnError> {
    let found =
        world.get::<Population>(population).ok_or(SpawnError::NotAPopulation(population))?;
    check_count(found.len() + count)?;
    let Some(&first) = found.models().first() else {
        return Err(SpawnError::Empty(population));
    };
    let blueprint = world.get::<Model>(first).map(|model| model.blueprint);
    let found =
        world.get::<Population>(population).ok_or(SpawnError::NotAPopulation(population))?;
    let group = found.groups().iter().position(|group| Some(group.blueprint) == blueprint);
    let group = group.ok_or(SpawnError::Empty(population))?;
    let mut spawner = Spawner::new(world, population, group, None);
    let trees: Vec<_> = (0..count).map(|_| spawner.spawn(world)).collect();
    spawner.enroll(world, &trees);
    Ok(trees.iter().map(Tree::root).collect())
}

fn check_count(given: usize) -> Result<(), SpawnError> {
    if given < NOT_A_MEMBER as usize { Ok(()) } else { Err(SpawnError::TooMany { given }) }
}

/// Checks the children's names as torch's `add_module` does.
fn check_names(module: &dyn DynModule, path: &str) -> Result<(), SpawnError> {
    let mut declared = Declare::default();
    module.declare(&mut declared);
    let mut taken: Vec<&str> = Vec::new();
    let parameters = declared.parameters.iter().chain(&declared.buffers);
    let names = parameters.map(|declared| &declared.name);
    for name in names.chain(declared.children.iter().map(|(name, _)| name)) {
        let message = match name.as_str() {
            "" => "module name can't be empty string \"\"".to_owned(),
            name if name.contains('.') => format!("module name can't contain \".\", got: {name}"),
            name if taken.contains(&name) => format!("attribute '{name}' already exists"),
            _ => {
                taken.push(name);
                continue;
            }
        };
        let path = if path.is_empty() { module.type_name() } else { path };
        return Err(SpawnError::Name { path: path.to_owned(), message });
    }
    declared.children.iter().try_for_each(|(name, child)| {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        check_names(&**child, &path)
    })
}

fn register_types(world: &mut World, module: &dyn DynModule) {
    module.register(world);
    let mut declared = Declare::default();
    module.declare(&mut declared);
    declared.children.iter().for_each(|(_, child)| register_types(world, &**child));
}

/// The columns that a position's entities have from the beginning.
pub(crate) fn columns_of(
    world: &mut World,
    blueprint: &Blueprint,
    position: usize,
) -> Vec<(ComponentId, ColumnKey)> {
    let at = &blueprint.positions[position];
    let of = |role, among: &[neurarch_components::blueprint::Parameter]| {
        let bytes = |ty: &neurarch_kernels::shape::Type| {
            neurarch_components::column::row_bytes(ty.size_bytes())
        };
        let keys = among.iter().enumerate();
        keys.map(|(index, parameter)| ColumnKey { role, index, row_bytes: bytes(&parameter.ty) })
            .collect::<Vec<_>>()
    };
    let keys = [of(Role::Parameter, &at.parameters), of(Role::Buffer, &at.buffers)].concat();
    keys.into_iter().map(|key| (Columns::id(world, key), key)).collect()
}

/// The entities of one model, by position.
struct Tree(Vec<Entity>);

impl Tree {
    fn root(&self) -> Entity {
        self.0[0]
    }
}

/// Spawns models of one group, one like the other.
struct Spawner {
    population: Entity,
    group: usize,
    blueprint: BlueprintId,
    positions: Vec<Prepared>,
    zeros: Zeros,
    /// How many changes were on the list before the first model.
    changed_before: usize,
}

/// All that the entities of a position have in common.
struct Prepared {
    parent: Option<usize>,
    name: ModuleName,
    module: Box<dyn DynModule>,
    columns: Vec<(ComponentId, ColumnKey)>,
    markers: Vec<ComponentId>,
}

impl Spawner {
    /// Prepares for a group; the modules' settings are those of `module`, or of the group's first member.
    fn new(
        world: &mut World,
        population: Entity,
        group: usize,
        module: Option<&dyn DynModule>,
    ) -> Spawner {
        let groups =
            world.get::<Population>(population).map(Population::groups).unwrap_or_default();
        let Group { blueprint: id, markers, modules, .. } = &groups[group];
        let (id, markers) = (*id, markers.clone());
        let first: Vec<_> = modules.iter().map(|of| of.first().copied()).collect();
        let blueprint =
            world.resource::<Blueprints>().get(id).expect("a group holds its blueprint").clone();
        let mut given = Vec::new();
        if let Some(module) = module {
            list_modules(module, &mut given);
        }
        let mut positions = Vec::with_capacity(markers.len());
        for (position, at) in blueprint.positions.iter().enumerate() {
            let live = first[position].and_then(|entity| {
                let entity = world.get_entity(entity).ok()?;
                Some(world.resource::<ModuleTypes>().module(entity)?.clone_box())
            });
            let module = given.get(position).cloned().or(live).unwrap_or_else(|| at.module.clone());
            positions.push(Prepared {
                parent: at.parent,
                name: ModuleName(at.name.as_str().into()),
                module,
                columns: columns_of(world, &blueprint, position),
                markers: Columns::markers(world, markers[position]),
            });
        }
        let changed_before =
            world.get_resource::<ModuleTypes>().map_or(0, |types| types.changed.len());
        Spawner {
            population,
            group,
            blueprint: id,
            positions,
            zeros: Zeros::default(),
            changed_before,
        }
    }

    /// Spawns one model that is in no population yet.
    fn spawn(&mut self, world: &mut World) -> Tree {
        let mut entities = Vec::with_capacity(self.positions.len());
        for at in &self.positions {
            let mut entity = match at.parent {
                None => world.spawn(Model {
                    population: self.population,
                    number: u64::MAX,
                    index: NOT_A_MEMBER,
                    blueprint: self.blueprint,
                }),
                Some(parent) => world.spawn((at.name.clone(), ChildOf(entities[parent]))),
            };
            at.module.insert(&mut entity);
            insert_zeroed(&mut entity, &at.columns, &at.markers, &mut self.zeros);
            entities.push(entity.id());
        }
        Tree(entities)
    }

    /// Makes spawned models members of the population.
    fn enroll(&self, world: &mut World, trees: &[Tree]) {
        for tree in trees {
            let Some(mut population) = world.get_mut::<Population>(self.population) else {
                return;
            };
            let (index, number) = population.enroll(tree.root());
            let group = &mut population.groups_mut()[self.group];
            group.members.push(index);
            for (modules, &entity) in group.modules.iter_mut().zip(&tree.0) {
                modules.push(entity);
            }
            if let Some(mut model) = world.get_mut::<Model>(tree.root()) {
                (model.index, model.number) = (index, number);
            }
        }
        // These modules are signed by construction; what changed before them stays on the list.
        if let Some(mut types) = world.get_resource_mut::<ModuleTypes>() {
            types.changed.truncate(self.changed_before);
        }
    }
}

/// Lists a module and its descendants in the order of positions.
fn list_modules(module: &dyn DynModule, list: &mut Vec<Box<dyn DynModule>>) {
    list.push(module.clone_box());
    let mut declared = Declare::default();
    module.declare(&mut declared);
    declared.children.iter().for_each(|(_, child)| list_modules(&**child, list));
}
