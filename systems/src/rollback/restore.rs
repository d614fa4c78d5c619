//! [`restore`]: a population goes back to a tick.

use bevy_ecs::entity::{EntityHashMap, EntityHashSet};
use bevy_ecs::prelude::*;
use neurarch_components::population::Population;
use neurarch_components::population::tree::Model;

use super::error::RollbackError;
use super::snapshots::{Record, Revived, SeatId, Snapshots, generation_of};
use super::store::Of;
use crate::errors::SignError;
use crate::evolve::clone_models;
use crate::storage::bind::KEEPER;
use crate::structure::{columns, sign};

/// Which models came and went when a population went back to a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Models that were despawned since the tick: their roots at the tick, and now. They are made anew as clones of others of
    /// their structure, whose hooks and components of types that are not saved they have.
    pub revived: Vec<(Entity, Entity)>,
    /// Models that were spawned since the tick: what were their roots.
    pub despawned: Vec<Entity>,
}

/// Gives a population bit for bit what it was at a tick that was [saved](super::save): what `save` lists. The tick is the last
/// one that is kept then, and what follows is computed as it was the first time.
///
/// Not covered are hooks, resources, what a forward pass keeps for `backward`, and the host's components and entities but
/// for those that are registered. Models that were despawned since are made anew, in entities of their own:
/// [`Restored::revived`].
///
/// # Errors
///
/// [`RollbackError`]: the tick is not kept, a model has another structure by now, or is gone with all others of its
/// structure. Nothing is changed then. Only observers of the host's that spawn or despawn models meanwhile
/// ([`RollbackError::Interfered`]) leave a population in between.
///
/// Source: `LoadWorldSystems` of `bevy_ggrs`.
pub fn restore(
    world: &mut World,
    population: Entity,
    tick: u64,
) -> Result<Restored, RollbackError> {
    sign::refresh(world, population)?;
    let mut snapshots = Snapshots::take(world, population)?;
    let restored = snapshots.restore(world, population, tick);
    snapshots.put_back(world, population);
    restored
}

/// A model that is gone, and one of its structure that it can be a clone of: an index.
struct Lost {
    seat: SeatId,
    donor: usize,
}

impl Snapshots {
    fn restore(
        &mut self,
        world: &mut World,
        population: Entity,
        tick: u64,
    ) -> Result<Restored, RollbackError> {
        let place = self.records.iter().position(|record| record.tick == tick);
        let saved = || self.ticks().collect();
        let place = place.ok_or_else(|| RollbackError::NotSaved { tick, saved: saved() })?;
        let record = self.records[place].clone();
        let lost = self.lost(world, population, &record)?;
        // What else changed must be known before clones and moves change ticks and rows.
        self.follow_types(world);
        let mut restored = Restored::default();
        self.revive(world, population, &record, &lost, &mut restored)?;
        self.arrange(world, population, &record, &mut restored)?;
        self.write(world, population, &record)?;
        for gone in self.records.drain(place + 1..).collect::<Vec<_>>() {
            self.forget(gone.snapshot);
            self.retire(&gone, &[&record.models]);
        }
        sign::refresh(world, population)?;
        self.looked = Some(world.increment_change_tick());
        Ok(restored)
    }

    /// Finds the models that are gone; changes nothing.
    fn lost(
        &self,
        world: &World,
        population: Entity,
        record: &Record,
    ) -> Result<Vec<Lost>, RollbackError> {
        let tick = record.tick;
        let found = world.get::<Population>(population);
        let found = found.ok_or(SignError::NotAPopulation(population))?;
        if found.dtype() != record.dtype {
            return Err(RollbackError::Dtype { tick });
        }
        let mut structures = vec![None; self.stores.len()];
        let mut of = EntityHashMap::default();
        for group in found.groups() {
            let generation = generation_of(world, group.blueprint);
            let store = generation.and_then(|generation| self.store_of(generation));
            if let Some((store, &donor)) = store.zip(group.members.first()) {
                structures[store] = Some(donor as usize);
            }
            of.extend(group.modules[0].iter().map(|&root| (root, store)));
        }
        let mut lost = Vec::new();
        for &seat in &record.models {
            let model = self.stores[seat.0 as usize].seats[seat.1 as usize];
            match of.get(&model.root) {
                Some(store) if *store == Some(seat.0 as usize) => {}
                Some(_) => return Err(RollbackError::Structure { number: model.number, tick }),
                None => {
                    let gone = || RollbackError::Gone { number: model.number, tick };
                    let donor = structures[seat.0 as usize].ok_or_else(gone)?;
                    lost.push(Lost { seat, donor });
                }
            }
        }
        Ok(lost)
    }

    /// Makes models anew that are gone.
    fn revive(
        &mut self,
        world: &mut World,
        population: Entity,
        record: &Record,
        lost: &[Lost],
        restored: &mut Restored,
    ) -> Result<(), RollbackError> {
        if lost.is_empty() {
            return Ok(());
        }
        let donors: Vec<_> = lost.iter().map(|lost| lost.donor).collect();
        let clones = clone_models(world, population, &donors)?;
        if clones.len() != lost.len() {
            return Err(RollbackError::Interfered { tick: record.tick });
        }
        let newest = self.records.back().map_or(record.tick, |newest| newest.tick);
        for (&Lost { seat: (store, seat), .. }, &now) in lost.iter().zip(&clones) {
            let seat = &mut self.stores[store as usize].seats[seat as usize];
            let before = std::mem::replace(&mut seat.root, now);
            seat.is_fresh = true;
            for revived in self.revived.iter_mut().filter(|revived| revived.now == before) {
                revived.now = now;
            }
            self.revived.push(Revived { tick: newest, before, now });
            restored.revived.push((before, now));
        }
        Ok(())
    }

    /// Has the population have the models of a record alone, in their order and with their numbers.
    fn arrange(
        &mut self,
        world: &mut World,
        population: Entity,
        record: &Record,
        restored: &mut Restored,
    ) -> Result<(), RollbackError> {
        let seat_of = |&(store, seat): &SeatId| self.stores[store as usize].seats[seat as usize];
        let roots: Vec<Entity> = record.models.iter().map(|seat| seat_of(seat).root).collect();
        let models = |world: &World| {
            world.get::<Population>(population).map_or(Vec::new(), |found| found.models().to_vec())
        };
        let now = models(world);
        if now != roots {
            let stay: EntityHashSet = roots.iter().copied().collect();
            for root in now.into_iter().filter(|root| !stay.contains(root)) {
                world.despawn(root);
                restored.despawned.push(root);
            }
        }
        sign::refresh(world, population)?;
        let now = models(world);
        if now != roots {
            let are: EntityHashSet = now.iter().copied().collect();
            if are.len() != roots.len() || !roots.iter().all(|root| are.contains(root)) {
                return Err(RollbackError::Interfered { tick: record.tick });
            }
            if let Some(mut found) = world.get_mut::<Population>(population) {
                found.arrange(roots.clone(), KEEPER);
            }
        }
        let known = std::mem::take(&mut self.known);
        for (index, (seat, &root)) in record.models.iter().zip(&roots).enumerate() {
            self.known.insert(root, *seat);
            if known.get(&root) != Some(seat) {
                // Another model lay in its rows at the last snapshot.
                self.stores[seat.0 as usize].seats[seat.1 as usize].is_fresh = true;
            }
            let number = self.stores[seat.0 as usize].seats[seat.1 as usize].number;
            let Some(mut model) = world.get_mut::<Model>(root) else { continue };
            if (model.index, model.number) != (index as u32, number) {
                (model.index, model.number) = (index as u32, number);
            }
        }
        if let Some(mut found) = world.get_mut::<Population>(population)
            && (found.seed, found.next_number()) != (record.seed, record.next_number)
        {
            found.seed = record.seed;
            found.number_from(record.next_number, KEEPER);
        }
        // The seats by place follow the order.
        self.version = None;
        self.follow(world, population);
        Ok(())
    }

    /// Gives the models the rows and components that they had.
    fn write(
        &mut self,
        world: &mut World,
        population: Entity,
        record: &Record,
    ) -> Result<(), RollbackError> {
        let then = record.snapshot;
        let last = self.records.back().map(|newest| newest.snapshot);
        for &(store, group) in &self.current {
            let slots = self.stores[store].slots_at(then);
            columns::add_columns(world, population, group, &slots);
        }
        let since = self.since(world);
        self.look(world, population, since, last)?;
        let mut entities: EntityHashMap<Entity> =
            self.revived.iter().map(|revived| (revived.before, revived.now)).collect();
        for &(store, group) in &self.current {
            let of = Of { population, group, types: &self.types, depth: self.depth };
            self.stores[store].restore(world, of, (then, last), &mut entities)?;
        }
        // What was put into models may have changed it.
        self.own.look(world, population, (&self.types, self.depth), (since, last));
        self.own.restore(world, population, (then, last), &mut entities);
        Ok(())
    }
}
