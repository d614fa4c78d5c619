//! [`save`]: what a population is at a tick.

use bevy_ecs::prelude::*;
use neurarch_components::population::Population;

use super::error::RollbackError;
use super::marks::Turn;
use super::snapshots::{Record, SeatId, Snapshots};
use super::store::{Of, Since};
use crate::errors::SignError;
use crate::structure::sign;

/// Saves what a population is at a tick, so that [`restore`](super::restore) can go back to it: rows of parameters, buffers,
/// gradients and optimizer state, all components that a checkpoint saves or that are
/// [registered](neurarch_components::saved::CopiedTypes) to be copied, random states, numbers, indices and seed. What was not
/// changed since the last tick is not copied again. The oldest tick is forgotten if there are too many.
///
/// A tick that was saved last, or gone back to, can be saved again.
///
/// # Errors
///
/// [`RollbackError`]; the ticks that were saved are kept then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::evolve::{self, Noise};
/// # use neurarch_systems::structure::access;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// use neurarch_systems::rollback;
///
/// # let mut world = World::new();
/// let layers = spawn_population(&mut world, &Linear::new(3, 2), 10, 10, 7, Dtype::F32)?;
/// rollback::keep_snapshots(&mut world, layers, 8)?;
/// let mut run = |world: &mut World, tick| {
///     rollback::save(world, layers, tick).unwrap();
///     evolve::perturb(world, layers, |_| Noise::normal(0.1), |_| true).unwrap();
///     access::stack::<f32>(world, layers, "weight", None).unwrap()
/// };
/// let first: Vec<_> = (0..5).map(|tick| run(&mut world, tick)).collect();
/// rollback::restore(&mut world, layers, 2)?;
/// let again: Vec<_> = (2..5).map(|tick| run(&mut world, tick)).collect();
/// assert_eq!(first[2..], again[..]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `SaveWorldSystems` of `bevy_ggrs`.
pub fn save(world: &mut World, population: Entity, tick: u64) -> Result<(), RollbackError> {
    sign::refresh(world, population)?;
    let mut snapshots = Snapshots::take(world, population)?;
    let saved = snapshots.save(world, population, tick);
    snapshots.put_back(world, population);
    saved
}

impl Snapshots {
    fn save(
        &mut self,
        world: &mut World,
        population: Entity,
        tick: u64,
    ) -> Result<(), RollbackError> {
        let newest = self.records.back().map(|record| (record.tick, record.snapshot));
        if let Some((newest, _)) = newest.filter(|&(newest, _)| tick < newest) {
            return Err(RollbackError::Order { tick, newest });
        }
        self.follow_types(world);
        self.follow(world, population);
        let (since, last) = (self.since(world), newest.map(|(_, snapshot)| snapshot));
        if let Err(error) = self.look(world, population, since, last) {
            // What moved until then is not noticed a second time: all is looked at anew.
            self.looked = None;
            return Err(error);
        }

        // From here on only a host that meddles makes it fail; what is saved of this tick is forgotten then.
        let is_again = newest.is_some_and(|(newest, _)| newest == tick) || self.depth == 1;
        let mut gone = None;
        let to = match last {
            Some(last) if is_again => {
                gone = self.records.pop_back();
                last
            }
            Some(last) => {
                if self.records.len() == self.depth {
                    gone = self.records.pop_front();
                }
                gone.iter().for_each(|gone| self.forget(gone.snapshot));
                (last + 1) % self.depth
            }
            None => 0,
        };
        let before = self.records.back().map(|record| record.snapshot);
        if let Err(error) = self.copy(world, population, Turn { to, before }) {
            // Nothing is known of what lies there now.
            (self.looked, self.version) = (None, None);
            self.records.clear();
            (0..self.depth).for_each(|snapshot| self.forget(snapshot));
            return Err(error);
        }
        let record = self.record(world, population, (tick, to))?;
        if let Some(gone) = gone {
            let records = std::mem::take(&mut self.records);
            let neighbor = if is_again { records.back() } else { records.front() };
            let neighbor = neighbor.map_or(&[][..], |record| &record.models);
            self.retire(&gone, &[neighbor, &record.models]);
            self.records = records;
            self.spare = Some(gone);
        }
        self.records.push_back(record);
        let oldest = self.records.front().map_or(0, |record| record.tick);
        self.revived.retain(|revived| revived.tick >= oldest);
        self.looked = Some(world.increment_change_tick());
        Ok(())
    }

    /// Finds out what changed since the last snapshot.
    pub(super) fn look(
        &mut self,
        world: &World,
        population: Entity,
        since: Since,
        last: Option<usize>,
    ) -> Result<(), RollbackError> {
        let depth = self.depth;
        for &(store, group) in &self.current {
            let of = Of { population, group, types: &self.types, depth };
            self.stores[store].look(world, of, since, last)?;
        }
        self.own.look(world, population, (&self.types, depth), (since, last));
        Ok(())
    }

    /// Copies what changed.
    fn copy(
        &mut self,
        world: &mut World,
        population: Entity,
        turn: Turn,
    ) -> Result<(), RollbackError> {
        for (store, of) in self.stores.iter_mut().enumerate() {
            if self.current.iter().all(|at| at.0 != store) {
                of.forget(turn.to);
            }
        }
        for &(store, group) in &self.current {
            let of = Of { population, group, types: &self.types, depth: self.depth };
            self.stores[store].save(world, of, turn)?;
        }
        self.own.save(world, population, turn, self.depth);
        Ok(())
    }

    /// Writes down which models there are.
    fn record(
        &mut self,
        world: &World,
        population: Entity,
        (tick, snapshot): (u64, usize),
    ) -> Result<Record, RollbackError> {
        let found = world.get::<Population>(population);
        let found = found.ok_or(SignError::NotAPopulation(population))?;
        let mut models: Vec<SeatId> =
            self.spare.take().map(|record| record.models).unwrap_or_default();
        models.clone_from(&self.models);
        let (next_number, seed, dtype) = (found.next_number(), found.seed, found.dtype());
        Ok(Record { tick, snapshot, models, next_number, seed, dtype })
    }
}
