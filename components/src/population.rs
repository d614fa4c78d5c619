//! [`Population`]: the models that are trained and asked together, in the order of their indices.

pub mod blueprints;
pub mod contents;
pub mod group;
pub mod parking;
pub mod tie;
pub mod tree;
pub mod versions;

use bevy_ecs::component::ComponentId;
use bevy_ecs::entity::EntityHashMap;
use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::{DeferredWorld, WorldId};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;

use crate::column::Columns;
use crate::column::keeper::Keeper;
use crate::population::blueprints::Blueprints;
use crate::population::group::Group;
use crate::population::versions::Versions;

/// Models that are spawned, trained and asked together: a component of an entity of its own, which is the
/// population's handle. Its models go with it.
///
/// It belongs to the entity that it was first inserted on: moved to another, or to another world, it is none.
#[derive(Component, Debug)]
#[component(on_insert = settle_in, on_remove = forget)]
#[require(Versions)]
pub struct Population {
    /// Seeds all random numbers of its models.
    pub seed: u64,
    dtype: Dtype,
    capacity: usize,
    /// The entity that it was first inserted on.
    home: Option<(WorldId, Entity)>,
    /// Which [`Columns`] there were then: its rows are in those.
    columns: Option<ComponentId>,
    models: Vec<Entity>,
    next_number: u64,
    groups: Vec<Group>,
    /// Companions that parameters of this population have: those of models that are signed from now on,
    /// too.
    companions: Vec<Role>,
    /// Roots that have yet to be signed: clones, and those whose trees are no models.
    unsigned: Vec<Entity>,
    /// Whether models left or moved in a way that the groups have yet to follow.
    stale: bool,
    version: u64,
    turnover: Turnover<u32>,
    /// Roots whose rows a birth took over; moments are counts of models.
    taken_over: Turnover<Entity>,
}

/// What changed one by one: as of which moment each, in order. Complete since a moment.
#[derive(Debug)]
struct Turnover<T> {
    changes: Vec<(u64, T)>,
    since: u64,
}

impl<T: Copy> Turnover<T> {
    /// A longer list is no shorter way than to look at everybody.
    const MOST: usize = 1 << 16;

    fn new() -> Self {
        Turnover { changes: Vec::new(), since: 0 }
    }

    fn add(&mut self, moment: u64, change: T) {
        if self.changes.len() == Self::MOST {
            self.restart(moment - 1);
        }
        self.changes.push((moment, change));
    }

    /// Forgets what was before a moment.
    fn restart(&mut self, moment: u64) {
        self.changes.clear();
        self.since = moment;
    }

    /// Forgets what came after a moment, which is the present again.
    fn go_back(&mut self, moment: u64) {
        let kept = self.changes.partition_point(|&(of, _)| of <= moment);
        self.changes.truncate(kept);
    }

    /// Lists what changed since a moment; `None` if it is not known.
    fn since(&self, moment: u64) -> Option<impl Iterator<Item = T> + '_> {
        let later = self.changes.partition_point(|&(of, _)| of <= moment);
        (moment >= self.since).then(|| self.changes[later..].iter().map(|&(_, change)| change))
    }
}

impl Population {
    /// Creates an empty population.
    pub fn new(seed: u64, dtype: Dtype, capacity: usize) -> Self {
        Population {
            seed,
            dtype,
            capacity,
            home: None,
            columns: None,
            models: Vec::with_capacity(capacity),
            next_number: 0,
            groups: Vec::new(),
            companions: Vec::new(),
            unsigned: Vec::new(),
            stale: false,
            version: 0,
            turnover: Turnover::new(),
            taken_over: Turnover::new(),
        }
    }

    /// Returns the element type of its models' floating-point parameters.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Says that its models' floating-point parameters are of that type from now on.
    pub fn set_dtype(&mut self, dtype: Dtype, _: Keeper) {
        self.dtype = dtype;
        self.version += 1;
    }

    /// Returns the number of models that fit before a column moves.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns whether it belongs to this entity of this world.
    pub fn is_of(&self, world: WorldId, entity: Entity) -> bool {
        self.home == Some((world, entity))
    }

    /// Returns whether its rows are in these columns, not in some that came in their place.
    pub fn is_in(&self, columns: &Columns) -> bool {
        self.columns == Some(columns.identity())
    }

    /// Returns the roots of the models, by index.
    pub fn models(&self) -> &[Entity] {
        &self.models
    }

    /// Counts the models.
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Returns whether there are no models.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// Returns the groups: right after `sign::refresh`.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Returns a number that grows whenever a model comes, goes, changes its index or its group.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns whether [`groups`](Population::groups) follows the models, and no model waits to be signed.
    pub fn is_settled(&self) -> bool {
        !self.stale && self.unsigned.is_empty()
    }

    /// Returns the groups, to be changed together with the models' `Model::blueprint`.
    pub fn groups_mut(&mut self, _: Keeper) -> &mut Vec<Group> {
        self.version += 1;
        self.turnover.restart(self.version);
        &mut self.groups
    }

    /// Makes the model of the last index a member of a group: the entities of its modules, by position.
    ///
    /// # Panics
    ///
    /// If there is no such group.
    pub fn add_member(&mut self, group: usize, index: u32, modules: &[Entity], _: Keeper) {
        let group = &mut self.groups[group];
        group.members.push(index);
        group.modules.iter_mut().zip(modules).for_each(|(of, &module)| of.push(module));
    }

    /// Lists the indices that got or lost a model since a version: some twice, some of no model any more. `None` if more
    /// than that changed, or it is not known.
    pub fn turnover(&self, since: u64) -> Option<impl Iterator<Item = u32> + '_> {
        self.turnover.since(since)
    }

    /// Lists the roots whose rows another model took over since [`next_number`](Population::next_number) was that. `None` if it
    /// is not known any more.
    pub fn taken_over(&self, next_number: u64) -> Option<impl Iterator<Item = Entity> + '_> {
        self.taken_over.since(next_number)
    }

    /// Puts the models in another order. Their [`index`](tree::Model::index) has to follow.
    ///
    /// # Panics
    ///
    /// If `order` are not the models.
    pub fn arrange(&mut self, order: Vec<Entity>, _: Keeper) {
        let places: EntityHashMap<u32> = order.iter().copied().zip(0..).collect();
        let is_one = |root| places.contains_key(root);
        assert!(places.len() == self.models.len() && self.models.iter().all(is_one), "the models");
        for group in &mut self.groups {
            group.members = group.modules[0].iter().map(|root| places[root]).collect();
            group.edit(&[], Vec::new());
        }
        self.models = order;
        self.version += 1;
        self.turnover.restart(self.version);
    }

    /// Returns the companions that parameters have.
    pub fn companions(&self) -> &[Role] {
        &self.companions
    }

    /// Says that parameters have companions of this role from now on.
    pub fn add_companion(&mut self, role: Role, _: Keeper) {
        if !self.companions.contains(&role) {
            self.companions.push(role);
            self.companions.sort_unstable();
        }
    }

    /// Says that parameters have no companions of these roles from now on.
    pub fn remove_companions(&mut self, roles: &[Role], _: Keeper) {
        self.companions.retain(|role| !roles.contains(role));
    }

    /// Says that a root has yet to be signed.
    pub fn defer(&mut self, root: Entity, _: Keeper) {
        self.await_signing(root);
    }

    /// [`defer`](Population::defer), for a clone.
    pub(crate) fn await_signing(&mut self, root: Entity) {
        self.unsigned.push(root);
    }

    /// Lists the roots that have yet to be signed: clones, and those whose trees are no models.
    pub fn unsigned(&self) -> &[Entity] {
        &self.unsigned
    }

    /// Returns the roots that have yet to be signed, and forgets them.
    pub fn take_unsigned(&mut self, _: Keeper) -> Vec<Entity> {
        std::mem::take(&mut self.unsigned)
    }

    /// Says that the groups follow the models.
    pub fn settle(&mut self, _: Keeper) {
        self.stale = false;
    }

    /// Returns whether models left or moved in a way that the groups have yet to follow.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Returns the number of its next model.
    pub fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Gives its next model that number, and counts on from there, after the last number from 0.
    pub fn number_from(&mut self, number: u64, _: Keeper) {
        self.next_number = number;
        self.taken_over.go_back(number);
        self.version += 1;
    }

    /// Assigns the next number to the model at an index, which another one takes over. Its
    /// [`number`](tree::Model::number) has to follow.
    pub fn renumber(&mut self, index: u32, _: Keeper) -> u64 {
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        self.version += 1;
        self.turnover.add(self.version, index);
        if let Some(&root) = self.models.get(index as usize) {
            self.taken_over.add(self.next_number, root);
        }
        number
    }

    /// Assigns the next index and number to a root that has been signed.
    ///
    /// The world has fewer than 2³² entities, so indices do not run out.
    pub fn enroll(&mut self, root: Entity, _: Keeper) -> (u32, u64) {
        self.take_in(root)
    }

    /// [`enroll`](Population::enroll), for a clone.
    pub(crate) fn take_in(&mut self, root: Entity) -> (u32, u64) {
        let index = self.models.len() as u32;
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        self.version += 1;
        self.turnover.add(self.version, index);
        self.models.push(root);
        (index, number)
    }

    /// Takes the model at `index` out; gives the one that moved into the gap.
    pub(crate) fn take_out(&mut self, index: u32) -> Option<Entity> {
        let at = index as usize;
        let root = self.models.swap_remove(at);
        self.version += 1;
        self.turnover.add(self.version, index);
        if !self.unsigned.is_empty() {
            self.unsigned.retain(|&unsigned| unsigned != root);
        }
        match self.groups.as_mut_slice() {
            // One group has its members in the order of the indices: the same move keeps it so.
            [group] if !self.stale && group.members.len() == self.models.len() + 1 => {
                group.members.pop();
                group.modules.iter_mut().for_each(|modules| {
                    modules.swap_remove(at);
                });
            }
            _ => self.stale = true,
        }
        self.models.get(at).copied()
    }
}

/// Says where a population belongs.
fn settle_in(mut world: DeferredWorld<'_>, context: HookContext) {
    let home = (world.id(), context.entity);
    let columns = Columns::of(&world).map(Columns::identity);
    if let Some(mut population) = world.get_mut::<Population>(context.entity)
        && population.home.is_none()
    {
        (population.home, population.columns) = (Some(home), columns);
    }
}

/// Despawns the models with their population, and lets go of their blueprints.
fn forget(mut world: DeferredWorld<'_>, context: HookContext) {
    let id = world.id();
    let Some(mut population) = world.get_mut::<Population>(context.entity) else { return };
    if !population.is_of(id, context.entity) {
        return;
    }
    let models = std::mem::take(&mut population.models);
    let groups = std::mem::take(&mut population.groups);
    let mut commands = world.commands();
    models.into_iter().rev().for_each(|root| commands.entity(root).try_despawn());
    if let Some(mut blueprints) = world.get_resource_mut::<Blueprints>() {
        groups.iter().for_each(|group| blueprints.let_go(group));
    }
}
