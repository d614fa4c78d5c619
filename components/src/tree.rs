//! A model's entities: the root with [`Model`], below it one entity a module with its [`ModuleName`].
//!
//! The tree itself is bevy's: `ChildOf` and `Children`, whose order is torch's order of registration.

use std::borrow::Cow;
use std::sync::Arc;

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::ir::shape::Type;

use crate::column::ColumnKey;
use crate::column::keeper::Keeper;
use crate::column::shared::SharedRow;
use crate::module::blueprint::{Blueprint, BlueprintId, Parameter};
use crate::module::mode::{Draws, HasGradient, Mode};
use crate::module::registry::{Change, ModuleTypes};
use crate::population::Population;

/// The root of a model: which population it belongs to, and where.
///
/// Kept by neurarch. Removing it, or despawning the root, takes the model out of its population; cloning
/// the root gives a new model of the same population, with a number of its own.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(on_insert = join, on_discard = leave)]
#[require(Mode, HasGradient, Draws)]
pub struct Model {
    /// The population's entity.
    pub population: Entity,
    /// The model's number, which never changes: it seeds the random numbers.
    pub number: u64,
    /// The model's place in [`Population::models`]: the model axis of every array.
    pub index: u32,
    /// Its structure, as it was when it was last signed.
    pub blueprint: BlueprintId,
}

/// The index of a model that is being put together or is only there to reserve memory.
pub const NOT_A_MEMBER: u32 = u32::MAX;

/// A module's name in its parent: `0`, `fc1`.
///
/// Source: the keys of torch's `named_children()`.
#[derive(Component, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[component(immutable, summary_tick, on_insert = name)]
pub struct ModuleName(pub Box<str>);

/// What the columns of a module's entity hold, as of when it was last signed: moves and is cloned with
/// them.
///
/// Kept by neurarch.
#[derive(Component, Clone, Debug)]
pub struct Columned(Arc<Contents>);

impl Columned {
    /// Says that the columns of an entity hold this.
    pub fn new(contents: Arc<Contents>, _: Keeper) -> Self {
        Columned(contents)
    }

    /// Gives what they hold.
    pub fn contents(&self) -> &Arc<Contents> {
        &self.0
    }

    /// Says that they hold something else from now on.
    pub fn set(&mut self, contents: Arc<Contents>, _: Keeper) {
        self.0 = contents;
    }
}

/// See [`Columned`]; shared by the entities of a group's position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The number that the position's archetype is marked with.
    pub number: u32,
    /// The module's place in its model.
    pub position: usize,
    /// The number of its first parameter in the order of `named_parameters()`.
    pub first_parameter: usize,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// Its buffers.
    pub buffers: Vec<Parameter>,
    /// Companions: a role, and the place of the parameter whose companion it is (0 for
    /// [`Role::Steps`]).
    pub companions: Vec<(Role, usize)>,
}

impl Contents {
    /// Lists the columns: a role, a place in the module, and the type of a row. What is tied, shared or
    /// uninitialized has none.
    pub fn columns(&self) -> impl Iterator<Item = (Role, usize, Cow<'_, Type>)> {
        fn of(
            role: Role,
            among: &[Parameter],
        ) -> impl Iterator<Item = (Role, usize, Cow<'_, Type>)> {
            let own = among.iter().enumerate().filter(|(_, parameter)| parameter.has_column());
            own.map(move |(index, parameter)| (role, index, Cow::Borrowed(&parameter.ty)))
        }
        let companions = self.companions.iter().filter_map(|&(role, index)| {
            let ty = match role {
                Role::Steps => Cow::Owned(Type::new(Dtype::F32, [self.parameters.len()])),
                _ => Cow::Borrowed(&self.parameters.get(index)?.ty),
            };
            Some((role, index, ty))
        });
        of(Role::Parameter, &self.parameters)
            .chain(of(Role::Buffer, &self.buffers))
            .chain(companions)
    }

    /// Lists the keys of the columns.
    pub fn keys(&self) -> impl Iterator<Item = ColumnKey> {
        self.columns().map(|(role, index, ty)| ColumnKey::new(role, index, &ty))
    }

    /// Says where the numbers of a parameter or buffer, or of a parameter's companion, lie if the
    /// population's models share them.
    pub fn shared(&self, role: Role, index: usize) -> Option<SharedRow> {
        let among = match role {
            Role::Steps => return None,
            Role::Buffer => &self.buffers,
            _ => &self.parameters,
        };
        among.get(index)?.shared
    }

    /// Says whether the columns hold the same, wherever they lie.
    pub fn holds_the_same(&self, other: &Contents) -> bool {
        self.parameters == other.parameters
            && self.buffers == other.buffers
            && self.companions == other.companions
    }

    /// Adds companions, sorted, that are not there yet; says whether there were any.
    pub fn add_companions(&mut self, companions: impl IntoIterator<Item = (Role, usize)>) -> bool {
        let before = self.companions.len();
        self.companions.extend(companions);
        self.companions.sort_unstable();
        self.companions.dedup();
        self.companions.len() > before
    }

    /// Adds companions of these roles for all parameters.
    pub fn add_roles(&mut self, roles: &[Role]) {
        let parameters = self.parameters.len();
        self.add_companions(roles.iter().flat_map(|&role| {
            let last = if role == Role::Steps { parameters.min(1) } else { parameters };
            (0..last).map(move |index| (role, index))
        }));
        self.companions
            .retain(|&(role, index)| role == Role::Steps || self.parameters[index].has_column());
    }
}

/// A module that gets another name is another structure.
fn name(mut world: DeferredWorld<'_>, context: HookContext) {
    if let Some(mut types) = world.get_resource_mut::<ModuleTypes>() {
        types.tell(Change { entity: context.entity, inserted: None });
    }
}

/// Takes a clone in: the model that it was copied from has its place already.
fn join(mut world: DeferredWorld<'_>, context: HookContext) {
    let entity = context.entity;
    let Some(&model) = world.get::<Model>(entity) else {
        return;
    };
    if model.index == NOT_A_MEMBER {
        return;
    }
    let Some(mut population) = world.get_mut::<Population>(model.population) else {
        return;
    };
    if population.models().get(model.index as usize) == Some(&entity) {
        return;
    }
    let (index, number) = population.take_in(entity);
    population.await_signing(entity);
    if let Some(mut model) = world.get_mut::<Model>(entity) {
        *model = Model { index, number, blueprint: Blueprint::UNSIGNED, ..*model };
    }
}

/// Takes the model out of its population; the last model moves into the gap.
fn leave(mut world: DeferredWorld<'_>, context: HookContext) {
    let entity = context.entity;
    let Some(&model) = world.get::<Model>(entity) else {
        return;
    };
    let Some(mut population) = world.get_mut::<Population>(model.population) else {
        return;
    };
    if population.models().get(model.index as usize) != Some(&entity) {
        return;
    }
    if let Some(moved) = population.take_out(model.index)
        && let Some(mut moved) = world.get_mut::<Model>(moved)
    {
        moved.index = model.index;
    }
}
