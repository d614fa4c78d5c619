//! Where parametrizations act: modules of one position, and what is computed there from their numbers.

use core::any::Any;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::column::row;
use neurarch_components::module::DynModule;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::call::Call;
use neurarch_components::module::mode::Mode;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::parametrizations::ParametrizationList;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::tree::{Columned, Model, ModuleName};
use neurarch_kernels::ir::eager::Eager;
use neurarch_kernels::ir::program::{Role, ScalarOf, Slot};
use neurarch_kernels::ir::rng_key::RngKey;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};

use crate::draw::op::Fill;
use crate::draw::{Draw, key_of};
use crate::errors::{BindError, ParametrizeError, SignError};
use crate::execute::hooks::Target;
use crate::structure::columns::{own_row, own_row_mut};
use crate::structure::root::root_of;
use crate::structure::sign;

/// A model has fewer than 2 to the power of this many modules.
const MARKERS: usize = 24;

/// Modules that stand at one position of one blueprint, in models of one population.
pub(crate) struct Site {
    pub(crate) population: Entity,
    pub(crate) blueprint: Arc<Blueprint>,
    pub(crate) position: usize,
    pub(crate) members: Vec<Member>,
}

/// One of the modules of a [`Site`].
pub(crate) struct Member {
    pub(crate) module: Entity,
    pub(crate) root: Entity,
    /// The entities of all modules of its model, by position.
    modules: Vec<Entity>,
    key: RngKey,
    scalars: Vec<Option<Box<dyn DynModule>>>,
}

impl Member {
    /// Returns the entity of the module at a position of its model.
    pub(crate) fn entity(&self, position: usize) -> Entity {
        self.modules[position]
    }
}

/// The rows of some members, side by side.
pub(crate) struct Rows {
    pub(crate) ty: Type,
    pub(crate) bytes: Vec<u8>,
}

impl Rows {
    pub(crate) fn row(&self, member: usize) -> &[u8] {
        let size = self.ty.size_bytes();
        &self.bytes[member * size..][..size]
    }

    fn all(&self, members: usize) -> impl Iterator<Item = &[u8]> {
        (0..members).map(|member| self.row(member))
    }

    /// Records the rows as an input.
    pub(crate) fn record(&self, trace: &Trace, members: usize) -> Var {
        trace.input_of_rows(self.ty.clone(), self.all(members))
    }
}

/// Finds the modules that a target names; a population's entity stands for the roots of its models.
pub(crate) fn modules(
    world: &mut World,
    target: impl Into<Target>,
) -> Result<Vec<Entity>, ParametrizeError> {
    let (population, path) = match target.into() {
        Target::Module(of) if world.get::<Population>(of).is_some() => (of, String::new()),
        Target::Module(module) => return Ok(vec![module]),
        Target::Population(population, path) => (population, path),
        Target::All => return Err(ParametrizeError::AllModules),
    };
    sign::refresh(world, population)?;
    let found = world.get::<Population>(population).ok_or(SignError::NotAPopulation(population))?;
    let mut modules = Vec::with_capacity(found.len());
    for group in found.groups() {
        let blueprint = world.resource::<Blueprints>().get(group.blueprint);
        let Some(blueprint) = blueprint.filter(|_| !group.members.is_empty()) else { continue };
        let position = blueprint.below(0, &path).map_err(|_| ParametrizeError::NoSuchModule {
            module: blueprint.class_name(0).into_owned(),
            path: path.clone(),
        })?;
        modules.extend(&group.modules[position]);
    }
    Ok(modules)
}

/// Puts modules together that stand at one position.
pub(crate) fn sites(world: &mut World, modules: &[Entity]) -> Result<Vec<Site>, ParametrizeError> {
    let mut sites: Vec<Site> = Vec::new();
    let mut refreshed = Vec::new();
    for &module in modules {
        let found = root_of(world, module).filter(|_| world.get::<Columned>(module).is_some());
        let (root, population) = found.ok_or(ParametrizeError::NotAModule(module))?;
        if !refreshed.contains(&population) {
            sign::refresh(world, population)?;
            refreshed.push(population);
        }
        let missing = || ParametrizeError::NotAModule(module);
        let position = world.get::<Columned>(module).ok_or_else(missing)?.contents().position;
        let model = *world.get::<Model>(root).ok_or_else(missing)?;
        let of = world.get::<Population>(population).ok_or_else(missing)?;
        let group = of.groups().iter().find(|group| group.blueprint == model.blueprint);
        let group = group.ok_or_else(missing)?;
        let place = group.members.binary_search(&model.index).map_err(|_| missing())?;
        if group.modules.get(position).and_then(|modules| modules.get(place)) != Some(&module) {
            return Err(missing());
        }
        let blueprint = world.resource::<Blueprints>().get(model.blueprint).ok_or_else(missing)?;
        let all: Vec<_> = group.modules.iter().map(|modules| modules[place]).collect();
        let types = world.resource::<ModuleTypes>();
        let scalars = blueprint.subtree(position).map(|position| {
            let entity = world.get_entity(all[position]).ok()?;
            types.module(entity).map(DynModule::clone_box)
        });
        let member = Member {
            module,
            root,
            scalars: scalars.collect(),
            modules: all,
            key: RngKey { seed: of.seed, number: model.number, step: 0 },
        };
        let known = sites.iter_mut().find(|site| {
            site.population == population
                && site.position == position
                && Arc::ptr_eq(&site.blueprint, blueprint)
        });
        match known {
            Some(site) => site.members.push(member),
            None => sites.push(Site {
                population,
                blueprint: blueprint.clone(),
                position,
                members: vec![member],
            }),
        }
    }
    Ok(sites)
}

impl Site {
    /// Says which random numbers the members draw; without it, those of their first numbers.
    pub(crate) fn draw(&mut self, world: &World, draw: Draw) {
        for member in &mut self.members {
            member.key = key_of(world, member.root, member.key.seed, draw);
        }
    }

    /// Names the module's type.
    pub(crate) fn class_name(&self) -> String {
        self.blueprint.class_name(self.position).into_owned()
    }

    /// Finds a parameter or buffer of the module that has a column of its own.
    pub(crate) fn slot(&self, name: &str) -> Option<Slot> {
        let parameter = || self.blueprint.parameter(self.position, name);
        parameter().or_else(|| self.blueprint.buffer(self.position, name))
    }

    /// Finds another name of a parameter or buffer of the module at a position: what it is tied to, or what is tied
    /// to it.
    pub(crate) fn other_name(&self, position: usize, slot: &Slot) -> Option<String> {
        let place = (slot.position, slot.index);
        if slot.position != position {
            return Some(slot.name.clone());
        }
        let mut others = self.blueprint.positions.iter().enumerate();
        let tied = others.find_map(|(at, of)| {
            let tied = of.parameters.iter().find(|parameter| parameter.tied == Some(place))?;
            Some(self.blueprint.path_below(at, &tied.name))
        });
        tied.filter(|_| slot.role != Role::Buffer)
    }

    /// Returns the list of originals at a position.
    pub(crate) fn originals(&self, list: usize) -> Option<&ParametrizationList> {
        let module = &*self.blueprint.positions[list].module;
        (module as &dyn Any).downcast_ref()
    }

    /// Lists the parameters and buffers of the module at a position that have a shape.
    pub(crate) fn slots_of(&self, position: usize) -> Vec<Slot> {
        let at = &self.blueprint.positions[position];
        let parameters =
            at.parameters.iter().map(|of| self.blueprint.parameter(position, &of.name));
        let buffers = at.buffers.iter().map(|of| self.blueprint.buffer(position, &of.name));
        let all = parameters.chain(buffers).flatten();
        all.filter(|slot| !self.blueprint.is_uninitialized(slot)).collect()
    }

    /// Copies the rows of a slot of this site's blueprint.
    pub(crate) fn rows(&self, world: &World, slot: &Slot) -> Result<Rows, ParametrizeError> {
        let mut bytes = Vec::with_capacity(self.members.len() * slot.ty.size_bytes());
        let shared = self.blueprint.shared(slot);
        for member in &self.members {
            let row = match shared {
                Some(shared) => row(world, shared.owner, shared.key(slot.role, &slot.ty)),
                None => own_row(world, member.modules[slot.position], (slot.role, slot.index)),
            };
            let missing = || BindError::NoColumn { slot: slot.name.clone(), role: slot.role };
            let row = row.ok_or_else(missing).map_err(SignError::from)?;
            bytes.extend(&row[..slot.ty.size_bytes()]);
        }
        Ok(Rows { ty: slot.ty.clone(), bytes })
    }

    /// Starts a recording that computes for all members.
    pub(crate) fn trace(&self) -> Trace {
        let keys = self.members.iter().map(|member| member.key).collect();
        let mut eager = Eager::new(self.members.len(), keys);
        let of_member = |member: &Member| {
            member.scalars.iter().map(|module| module.as_ref().map(|m| m.clone_box())).collect()
        };
        let modules: Vec<Vec<_>> = self.members.iter().map(of_member).collect();
        let first = self.position;
        eager.set_scalar_source(Box::new(move |scalar| {
            let place = scalar.position.checked_sub(first)?;
            let number = |of: &Vec<Option<Box<dyn DynModule>>>| match scalar.of {
                ScalarOf::Module => of.get(place)?.as_ref()?.scalar(scalar.name),
                _ => None,
            };
            modules.iter().map(number).collect()
        }));
        Trace::eager(eager)
    }

    /// Computes what `record` records in a call of the module at `position`, from the numbers that the modules
    /// have now.
    pub(crate) fn evaluate<R>(
        &self,
        world: &World,
        position: usize,
        record: impl FnOnce(&Call<'_>) -> Result<R, ParametrizeError>,
    ) -> Result<(R, Trace), ParametrizeError> {
        let trace = self.trace();
        for slot in self.slots() {
            let rows = self.rows(world, &slot)?;
            let key = (slot.role, slot.position, slot.index);
            trace.set_slot(key, rows.all(self.members.len()));
        }
        let mode = self.members.first().and_then(|member| world.get::<Mode>(member.root));
        let positions = 0..self.blueprint.positions.len();
        let is_training = |at| mode.is_none_or(|mode| !mode.evaluating.contains(at));
        let training: Vec<_> = positions.map(is_training).collect();
        let call = Call {
            trace: &trace,
            blueprint: &self.blueprint,
            position,
            training: &training,
            watcher: None,
            cache: None,
            checkpoints: None,
        };
        let made = record(&call)?;
        match trace.error() {
            Some(error) => Err(error.into()),
            None => Ok((made, trace)),
        }
    }

    /// Lists the parameters and buffers of the module and all below it; those of others where they are tied.
    fn slots(&self) -> Vec<Slot> {
        self.blueprint.subtree(self.position).flat_map(|at| self.slots_of(at)).collect()
    }

    /// Writes what was stored while computing.
    pub(crate) fn commit(&self, world: &mut World, trace: &Trace) {
        for (slot, rows) in stores(trace) {
            for (number, member) in self.members.iter().enumerate() {
                let module = member.modules[slot.position];
                if let Some(row) = own_row_mut(world, module, (slot.role, slot.index)) {
                    row[..rows.ty.size_bytes()].copy_from_slice(rows.row(number));
                }
            }
        }
    }
}

/// Copies a computed value.
pub(crate) fn read(trace: &Trace, value: &Var) -> Result<Rows, ParametrizeError> {
    let computed = value.id().and_then(|id| {
        let eager = trace.values()?;
        let (ty, bytes) = eager.read_bytes(id).ok()?;
        Some(Rows { ty: ty.clone(), bytes })
    });
    computed.ok_or_else(|| match trace.error() {
        Some(error) => error.into(),
        None => ParametrizeError::Invalid("a parametrization gave a value of another trace".into()),
    })
}

/// Copies what was stored so far.
pub(crate) fn stores(trace: &Trace) -> Vec<(Slot, Rows)> {
    let stores: Vec<_> = {
        let program = trace.program();
        let stores = program.stores.iter();
        stores.map(|&(slot, value)| (program.slots[slot].clone(), value)).collect()
    };
    let rows = stores.into_iter().filter_map(|(slot, value)| {
        let eager = trace.values()?;
        let (ty, bytes) = eager.read_bytes(value).ok()?;
        Some((slot, Rows { ty: ty.clone(), bytes }))
    });
    rows.collect()
}

/// Returns a parametrization that is part of no model the first numbers that its modules ask for, as rows of a
/// trace.
pub(crate) fn reset(site: &Site, blueprint: &Blueprint, trace: &Trace) -> Vec<(Slot, Rows)> {
    let mut reset = Vec::new();
    for (position, at) in blueprint.positions.iter().enumerate() {
        let parameters = at.parameters.iter().filter(|of| of.tied.is_none());
        let parameters = parameters.map(|of| (of, blueprint.parameter(position, &of.name)));
        let buffers = at.buffers.iter().map(|of| (of, blueprint.buffer(position, &of.name)));
        for (of, slot) in parameters.chain(buffers) {
            let Some(slot) = slot else { continue };
            let drawn = site.trace();
            // A place that no module of the model has: nothing draws twice with one counter.
            let place =
                Slot { position: (site.position + 1) << MARKERS | position, ..slot.clone() };
            let fill = drawn.apply(Fill::new(&place, at.module.reset(&of.name)), &[]);
            let Ok(rows) = read(&drawn, &fill) else { continue };
            let key = (slot.role, slot.position, slot.index);
            trace.set_slot(key, rows.all(site.members.len()));
            reset.push((slot, rows));
        }
    }
    reset
}

/// Writes the row of a parameter or buffer of a module's entity, by its own name.
pub(crate) fn write(world: &mut World, module: Entity, name: &str, bytes: &[u8]) {
    let Some(contents) = world.get::<Columned>(module).map(|columned| columned.contents().clone())
    else {
        return;
    };
    let roles = [(Role::Parameter, &contents.parameters), (Role::Buffer, &contents.buffers)];
    for (role, among) in roles {
        let Some(index) = among.iter().position(|of| of.name == name) else { continue };
        if let Some(row) = own_row_mut(world, module, (role, index)) {
            row[..bytes.len()].copy_from_slice(bytes);
        }
    }
}

/// Finds the child of that name.
pub(crate) fn child(world: &World, parent: Entity, name: &str) -> Option<Entity> {
    let mut children = world.get::<Children>(parent)?.iter();
    children.find(|&child| world.get::<ModuleName>(child).is_some_and(|own| &*own.0 == name))
}

/// Finds the entity at a dotted path.
pub(crate) fn descend(world: &World, module: Entity, path: &str) -> Option<Entity> {
    let mut names = path.split('.').filter(|name| !name.is_empty());
    names.try_fold(module, |module, name| child(world, module, name))
}
