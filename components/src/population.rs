//! [`Population`]: the models that are trained and asked together, in the order of their indices.

use bevy_ecs::prelude::*;
use neurarch_kernels::dtype::Dtype;

use crate::blueprint::BlueprintId;

/// Models that are spawned, trained and asked together: a component of an entity of its own, which is the
/// population's handle.
#[derive(Component, Debug)]
#[component(on_remove = crate::population::forget)]
pub struct Population {
    /// Seeds all random numbers of its models.
    pub seed: u64,
    /// Element type of its models' floating-point parameters.
    pub dtype: Dtype,
    models: Vec<Entity>,
    next_number: u64,
    groups: Vec<Group>,
    /// Roots that came without having been signed: clones.
    unsigned: Vec<Entity>,
    /// Whether a model left or joined in a way that the groups have yet to follow.
    stale: bool,
    version: u64,
}

/// The models of a population that have one blueprint, and the entities of their modules.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their blueprint.
    pub blueprint: BlueprintId,
    /// For each position, the number that its archetype is marked with.
    pub markers: Vec<u32>,
    /// The models' indices, ascending.
    pub members: Vec<u32>,
    /// For each position, the module's entity of each member.
    pub modules: Vec<Vec<Entity>>,
}

impl Population {
    /// Makes an empty population.
    pub fn new(seed: u64, dtype: Dtype) -> Self {
        Population {
            seed,
            dtype,
            models: Vec::new(),
            next_number: 0,
            groups: Vec::new(),
            unsigned: Vec::new(),
            stale: false,
            version: 0,
        }
    }

    /// Counts the changes of the models and groups: who caches something about them asks whether it is
    /// still the same.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Gives the roots of the models, by index.
    pub fn models(&self) -> &[Entity] {
        &self.models
    }

    /// Counts the models.
    pub fn len(&self) -> usize {
        self.models.len()
    }

    /// Says whether there are no models.
    pub fn is_empty(&self) -> bool {
        self.models.is_empty()
    }

    /// Gives the groups: right after `sign::refresh`.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Says whether [`groups`](Population::groups) follows the models, and no model waits to be signed.
    pub fn is_settled(&self) -> bool {
        !self.stale && self.unsigned.is_empty()
    }

    /// Gives the groups, to be changed together with the models' `Model::blueprint`.
    pub fn groups_mut(&mut self) -> &mut Vec<Group> {
        self.version += 1;
        &mut self.groups
    }

    /// Gives the roots that came without having been signed, and forgets them.
    pub fn take_unsigned(&mut self) -> Vec<Entity> {
        std::mem::take(&mut self.unsigned)
    }

    /// Says that the groups follow the models.
    pub fn settle(&mut self) {
        self.stale = false;
    }

    /// Gives its next model that number, and counts on from there.
    pub fn number_from(&mut self, number: u64) {
        self.next_number = number;
    }

    /// Reserves memory for more models.
    pub fn reserve(&mut self, additional: usize) {
        self.models.reserve(additional);
    }

    /// Gives the next index and number to a root that has been signed.
    pub fn enroll(&mut self, root: Entity) -> (u32, u64) {
        let index = u32::try_from(self.models.len()).expect("fewer than 2³² entities");
        let number = self.next_number;
        self.next_number += 1;
        self.version += 1;
        self.models.push(root);
        (index, number)
    }

    /// Gives the next index and number to a root that has yet to be signed.
    pub(crate) fn take_in(&mut self, root: Entity) -> (u32, u64) {
        self.unsigned.push(root);
        self.enroll(root)
    }

    /// Takes the model at `index` out; gives the one that moved into the gap.
    pub(crate) fn take_out(&mut self, index: u32) -> Option<Entity> {
        self.version += 1;
        let at = index as usize;
        let root = self.models.swap_remove(at);
        self.unsigned.retain(|&unsigned| unsigned != root);
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

/// Despawns the models with their population.
pub(crate) fn forget(
    mut world: bevy_ecs::world::DeferredWorld<'_>,
    context: bevy_ecs::lifecycle::HookContext,
) {
    let Some(mut population) = world.get_mut::<Population>(context.entity) else {
        return;
    };
    let models = std::mem::take(&mut population.models);
    let mut commands = world.commands();
    models.into_iter().for_each(|root| commands.entity(root).try_despawn());
}
