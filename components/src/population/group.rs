//! [`Group`]: the models of a population that have one structure.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::program::Slot;

use crate::column::ColumnKey;
use crate::column::shared::SharedRow;
use crate::module::blueprint::{Blueprint, BlueprintId};
use crate::population::contents::Contents;

/// The models of a population that have one blueprint, and the entities of their modules.
#[derive(Clone, Debug)]
pub struct Group {
    /// Their blueprint.
    pub blueprint: BlueprintId,
    /// What that is: tells it from another that got the same id after [`Blueprints`] was lost.
    pub(crate) structure: Arc<Blueprint>,
    /// For each position, what the columns of its entities hold.
    pub contents: Vec<Arc<Contents>>,
    /// The models' indices, ascending.
    pub members: Vec<u32>,
    /// For each position, the module's entity of each member.
    pub modules: Vec<Vec<Entity>>,
    /// The rows that its parameters and buffers share with other models.
    shared: Vec<SharedRow>,
}

impl Group {
    /// Makes a group without members.
    pub fn new(
        blueprint: BlueprintId,
        structure: Arc<Blueprint>,
        contents: Vec<Arc<Contents>>,
    ) -> Self {
        let modules = vec![Vec::new(); contents.len()];
        let all = contents.iter().flat_map(|of| of.parameters.iter().chain(&of.buffers));
        let mut shared: Vec<_> = all.filter_map(|of| of.shared).collect();
        shared.sort_unstable_by_key(|row| (row.owner, row.index));
        shared.dedup();
        Group { blueprint, structure, contents, members: Vec::new(), modules, shared }
    }

    /// Returns its blueprint.
    pub fn structure(&self) -> &Arc<Blueprint> {
        &self.structure
    }

    /// Lists the rows that its parameters and buffers share with other models.
    pub fn shared(&self) -> &[SharedRow] {
        &self.shared
    }

    /// Makes room in the lists for that many members.
    pub fn reserve(&mut self, members: usize) {
        self.members.reserve(members.saturating_sub(self.members.len()));
        for modules in &mut self.modules {
            modules.reserve(members.saturating_sub(modules.len()));
        }
    }

    /// Takes members (places in [`members`](Group::members), ascending) out, and others in: an index and
    /// the entities of its modules.
    pub fn edit(&mut self, out: &[usize], joined: Vec<(u32, Vec<Entity>)>) {
        let mut leaving = out.iter().peekable();
        let stays: Vec<bool> =
            (0..self.members.len()).map(|member| leaving.next_if_eq(&&member).is_none()).collect();
        let keep = |list: &mut Vec<Entity>| {
            let mut stays = stays.iter();
            list.retain(|_| stays.next() == Some(&true));
        };
        self.modules.iter_mut().for_each(keep);
        let mut stays = stays.iter();
        self.members.retain(|_| stays.next() == Some(&true));
        for (index, modules) in joined {
            self.members.push(index);
            self.modules.iter_mut().zip(modules).for_each(|(of, module)| of.push(module));
        }
        self.sort();
    }

    /// Returns the entity and the column that hold a member's numbers of a slot: those of its module, or of the
    /// population where it is shared.
    ///
    /// # Panics
    ///
    /// If there is no such position or member.
    pub fn home(&self, slot: &Slot, member: usize) -> (Entity, ColumnKey) {
        match self.contents[slot.position].shared(slot.role, slot.index) {
            Some(shared) => (shared.owner, shared.key(slot.role, &slot.ty)),
            None => (self.modules[slot.position][member], self.key(slot)),
        }
    }

    /// Returns the key of a slot's column in the members' own modules.
    ///
    /// # Panics
    ///
    /// If there is no such position.
    pub fn key(&self, slot: &Slot) -> ColumnKey {
        self.contents[slot.position].key(slot.role, slot.index)
    }

    fn sort(&mut self) {
        if self.members.is_sorted() {
            return;
        }
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        order.sort_unstable_by_key(|&member| self.members[member]);
        self.members = order.iter().map(|&member| self.members[member]).collect();
        for modules in &mut self.modules {
            *modules = order.iter().map(|&member| modules[member]).collect();
        }
    }
}
