//! [`Blueprints`]: all blueprints in use, and who holds them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::program::Role;

use crate::column::keeper::Keeper;
use crate::column::numbers::PositionNumbers;
use crate::module::blueprint::{Blueprint, BlueprintId};
use crate::population::contents::Contents;
use crate::population::group::Group;

/// All blueprints in use, each held by the groups of models that have it.
#[derive(Resource, Debug, Default)]
pub struct Blueprints {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    by_hash: HashMap<u64, Vec<u32>>,
    numbers: PositionNumbers,
}

/// Counts blueprints ever made, whatever becomes of the resource: tells a blueprint from another of the same id.
static GENERATION: AtomicU64 = AtomicU64::new(1);

#[derive(Debug)]
struct Entry {
    blueprint: Arc<Blueprint>,
    hash: u64,
    generation: u64,
    groups: usize,
}

impl Blueprints {
    /// Finds the id of a blueprint that is in use.
    pub fn find(&self, blueprint: &Blueprint) -> Option<BlueprintId> {
        self.find_hashed(blueprint, blueprint.shape_hash())
    }

    fn find_hashed(&self, blueprint: &Blueprint, hash: u64) -> Option<BlueprintId> {
        let alike = self.by_hash.get(&hash)?.iter().rev().map(|&id| BlueprintId(id));
        alike.into_iter().find(|&id| self.get(id).is_some_and(|known| known.is_like(blueprint)))
    }

    /// Returns the id of a blueprint, and holds it once more; equal structures share one.
    fn hold(&mut self, blueprint: Blueprint) -> BlueprintId {
        let hash = blueprint.shape_hash();
        if let Some(id) = self.find_hashed(&blueprint, hash) {
            if let Some(entry) = &mut self.entries[id.0 as usize] {
                entry.groups += 1;
            }
            return id;
        }
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { blueprint: Arc::new(blueprint), hash, generation, groups: 1 };
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        self.entries[id as usize] = Some(entry);
        self.by_hash.entry(hash).or_default().push(id);
        BlueprintId(id)
    }

    /// Lets go of a blueprint; it is gone when nobody holds it.
    fn release(&mut self, id: BlueprintId) {
        let Some(slot) = self.entries.get_mut(id.0 as usize) else {
            return;
        };
        if let Some(entry) = slot {
            entry.groups -= 1;
            if entry.groups == 0 {
                let hash = entry.hash;
                *slot = None;
                self.free.push(id.0);
                if let Some(alike) = self.by_hash.get_mut(&hash) {
                    alike.retain(|&other| other != id.0);
                    if alike.is_empty() {
                        self.by_hash.remove(&hash);
                    }
                }
            }
        }
    }

    /// Returns a blueprint.
    pub fn get(&self, id: BlueprintId) -> Option<&Arc<Blueprint>> {
        self.entries.get(id.0 as usize)?.as_ref().map(|entry| &entry.blueprint)
    }

    /// Returns a number that no other blueprint ever has.
    pub fn generation(&self, id: BlueprintId) -> Option<u64> {
        self.entries.get(id.0 as usize)?.as_ref().map(|entry| entry.generation)
    }

    /// Opens a group for models of a blueprint: holds it, and gives each position a number of its own
    /// and companions of these roles. `None` if numbers have run out.
    pub fn open_group(
        &mut self,
        blueprint: Blueprint,
        companions: &[Role],
        _: Keeper,
    ) -> Option<Group> {
        let mut first_parameter = 0;
        let contents = blueprint.positions.iter().enumerate().map(|(position, at)| {
            let (parameters, buffers) = (at.parameters.clone(), at.buffers.clone());
            let contents = Contents::new((position, first_parameter), parameters, buffers);
            first_parameter += at.parameters.len();
            contents
        });
        let mut contents: Vec<_> = contents.collect();
        let looks = blueprint.positions.iter().zip(&contents).map(|(at, of)| of.look(at));
        let numbers = self.numbers.take(&looks.collect::<Vec<_>>())?;
        for (of, number) in contents.iter_mut().zip(numbers) {
            of.number = number;
            of.add_roles(companions);
        }
        let id = self.hold(blueprint);
        let structure = self.get(id)?.clone();
        Some(Group::new(id, structure, contents.into_iter().map(Arc::new).collect()))
    }

    /// Gives a group another blueprint, whose positions are the same but for the types of their tensors, and what its columns
    /// hold then.
    pub fn retype_group(
        &mut self,
        group: &mut Group,
        blueprint: Blueprint,
        contents: Vec<Arc<Contents>>,
        _: Keeper,
    ) {
        let id = self.hold(blueprint);
        if let Some(structure) = self.get(id).cloned() {
            self.release(group.blueprint);
            (group.blueprint, group.structure, group.contents) = (id, structure, contents);
        }
    }

    /// Lets go of a group's blueprint, and takes its positions' numbers back.
    pub fn release_group(&mut self, group: &Group, _: Keeper) {
        self.let_go(group);
    }

    pub(crate) fn let_go(&mut self, group: &Group) {
        if self.holds(group) {
            for (at, contents) in group.structure.positions.iter().zip(&group.contents).rev() {
                self.numbers.give_back(contents.look(at), contents.number);
            }
            self.release(group.blueprint);
        }
    }

    /// Returns whether the group's blueprint is the one of that id here: not if this was put in the place of the
    /// resource that the group was opened in.
    pub fn holds(&self, group: &Group) -> bool {
        self.get(group.blueprint).is_some_and(|known| Arc::ptr_eq(known, &group.structure))
    }

    /// Counts the blueprints in use.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Returns whether no blueprint is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
