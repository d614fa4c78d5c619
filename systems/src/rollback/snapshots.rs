//! [`Snapshots`]: the last ticks of a population.

use core::any::TypeId;
use std::collections::VecDeque;

use bevy_ecs::change_detection::Tick;
use bevy_ecs::entity::EntityHashMap;
use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::BlueprintId;
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::tie::{SharedModule, Ties};
use neurarch_components::population::tree::{Model, ModuleName};
use neurarch_components::population::versions::Versions;
use neurarch_components::saved::{CopiedType, CopiedTypes};
use neurarch_kernels::ir::dtype::Dtype;

use super::error::RollbackError;
use super::marks::MOST_SNAPSHOTS;
use super::own::Own;
use super::store::{Since, Store};
use crate::errors::SignError;
use crate::storage::write_detector::is_long_ago;

/// The last ticks of a population that were saved: a component of its entity.
#[derive(Component, Default)]
pub struct Snapshots {
    pub(super) depth: usize,
    /// The oldest first.
    pub(super) records: VecDeque<Record>,
    pub(super) stores: Vec<Store>,
    pub(super) own: Own,
    /// The seats of the models as of `version`, by root and by index.
    pub(super) known: EntityHashMap<SeatId>,
    pub(super) models: Vec<SeatId>,
    /// The stores whose structures models have, with the groups.
    pub(super) current: Vec<(usize, usize)>,
    pub(super) version: Option<u64>,
    /// When the models were last looked at.
    pub(super) looked: Option<Tick>,
    pub(super) types: Vec<CopiedType>,
    /// How many types there were.
    n_types: usize,
    /// Models that were made anew.
    pub(super) revived: Vec<Revived>,
    /// A record whose memory is used again.
    pub(super) spare: Option<Record>,
}

impl core::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Snapshots")
            .field("depth", &self.depth)
            .field("ticks", &self.ticks().collect::<Vec<_>>())
            .finish()
    }
}

/// Where snapshots have a model: the store of its structure, and its seat there.
pub(super) type SeatId = (u32, u32);

/// A tick that was saved.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) tick: u64,
    /// Its number among the snapshots.
    pub(super) snapshot: usize,
    /// By index.
    pub(super) models: Vec<SeatId>,
    pub(super) next_number: u64,
    pub(super) seed: u64,
    pub(super) dtype: Dtype,
}

/// A model that was made anew: components that were copied before name the entity that it had then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Revived {
    /// Up to this tick.
    pub(super) tick: u64,
    pub(super) before: Entity,
    pub(super) now: Entity,
}

/// Keeps the last `depth` ticks of a population that are [saved](super::save), in place of any that are kept. From now on
/// each row that is written is marked, which takes some 0.1 ns a row.
///
/// # Errors
///
/// [`RollbackError::Depth`], and if there is no such population.
pub fn keep_snapshots(
    world: &mut World,
    population: Entity,
    depth: usize,
) -> Result<(), RollbackError> {
    if !(1..=MOST_SNAPSHOTS).contains(&depth) {
        return Err(RollbackError::Depth { given: depth });
    }
    let mut found = world.get_mut::<Versions>(population);
    let versions = found.as_mut().ok_or(SignError::NotAPopulation(population))?;
    versions.mark_rows(true);
    world.entity_mut(population).insert(Snapshots { depth, ..Snapshots::default() });
    Ok(())
}

/// Forgets all ticks of a population, and keeps none from now on.
///
/// # Errors
///
/// If there is no such population.
pub fn forget_snapshots(world: &mut World, population: Entity) -> Result<(), RollbackError> {
    let mut found = world.get_mut::<Versions>(population);
    let versions = found.as_mut().ok_or(SignError::NotAPopulation(population))?;
    versions.mark_rows(false);
    world.entity_mut(population).remove::<Snapshots>();
    Ok(())
}

impl Snapshots {
    /// Lists the ticks that are kept, in order.
    pub fn ticks(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.records.iter().map(|record| record.tick)
    }

    /// Returns how many ticks are kept at most.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Takes those of a population out, to work on.
    pub(super) fn take(world: &mut World, population: Entity) -> Result<Self, RollbackError> {
        let mut found = world.get_mut::<Snapshots>(population);
        let found = found.as_mut().filter(|found| found.depth > 0);
        Ok(std::mem::take(&mut **found.ok_or(RollbackError::NotKept(population))?))
    }

    /// See [`take`](Snapshots::take).
    pub(super) fn put_back(self, world: &mut World, population: Entity) {
        if let Some(mut found) = world.get_mut::<Snapshots>(population) {
            *found = self;
        }
    }

    /// Says since when something counts as changed.
    pub(super) fn since(&self, world: &World) -> Since {
        let now = world.read_change_tick();
        Some((self.looked.filter(|&looked| !is_long_ago(looked, now))?, now))
    }

    /// Lists the types that are copied.
    pub(super) fn follow_types(&mut self, world: &mut World) {
        if self.n_types == CopiedTypes::count(world) && self.n_types > 0 {
            return;
        }
        // What structure is made of is no value: it is another structure if it changes.
        let structural =
            [TypeId::of::<ModuleName>(), TypeId::of::<Ties>(), TypeId::of::<SharedModule>()];
        self.types = CopiedTypes::list(world);
        self.types.retain(|ty| !structural.contains(&ty.type_id));
        self.n_types = CopiedTypes::count(world);
    }

    /// Finds the store of a structure.
    pub(super) fn store_of(&self, generation: u64) -> Option<usize> {
        self.stores.iter().position(|store| store.generation == generation)
    }

    /// Gives each model a seat, and follows those that have another index.
    pub(super) fn follow(&mut self, world: &World, population: Entity) {
        let Some(found) = world.get::<Population>(population) else { return };
        if self.version == Some(found.version()) {
            return;
        }
        self.version = Some(found.version());
        let known = std::mem::take(&mut self.known);
        self.known.reserve(found.len());
        self.models.clear();
        self.models.resize(found.len(), (0, 0));
        self.current.clear();
        let groups = found.groups().iter().enumerate();
        for (number, group) in groups.filter(|(_, group)| !group.members.is_empty()) {
            let Some(generation) = generation_of(world, group.blueprint) else { continue };
            let store = self.store_of(generation).unwrap_or_else(|| {
                self.stores.push(Store::new(generation));
                self.stores.len() - 1
            });
            self.current.push((store, number));
            for (&index, &root) in group.members.iter().zip(&group.modules[0]) {
                let number = world.get::<Model>(root).map_or(0, |model| model.number);
                let of = &mut self.stores[store];
                // An entity that got another number is another model.
                let seat = known.get(&root).copied().filter(|&(known, seat)| {
                    known as usize == store && of.seats[seat as usize].number == number
                });
                let seat = seat.unwrap_or_else(|| (store as u32, of.seat(root, number)));
                self.models[index as usize] = seat;
                self.known.insert(root, seat);
            }
            let models = &self.models;
            let seats = group.members.iter().map(|&index| models[index as usize].1);
            self.stores[store].sit(group, found.len(), seats);
        }
    }

    /// Frees the seats of a record's models that are in none of some others.
    pub(super) fn retire(&mut self, record: &Record, others: &[&[SeatId]]) {
        if others.iter().any(|other| *other == record.models) {
            return;
        }
        let seats = |store: &Store| vec![false; store.seats.len()];
        let mut is_used: Vec<_> = self.stores.iter().map(seats).collect();
        for &(store, seat) in others.iter().flat_map(|other| other.iter()) {
            is_used[store as usize][seat as usize] = true;
        }
        for &(store, seat) in &record.models {
            let of = &mut self.stores[store as usize];
            let is_free = &mut of.seats[seat as usize].is_free;
            if !is_used[store as usize][seat as usize] && !*is_free {
                *is_free = true;
                of.free.push(seat);
            }
        }
    }

    /// Forgets what stores and the population's entity were at a snapshot.
    pub(super) fn forget(&mut self, snapshot: usize) {
        self.stores.iter_mut().for_each(|store| store.forget(snapshot));
        self.own.forget(snapshot);
    }
}

/// Returns a structure's number, which no other ever has.
pub(super) fn generation_of(world: &World, blueprint: BlueprintId) -> Option<u64> {
    world.get_resource::<Blueprints>()?.generation(blueprint)
}
