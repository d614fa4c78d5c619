//! Snapshots of the last ticks.

use bevy_ecs::prelude::*;

use crate::bevy::copy_types;
use crate::handles::PopulationMut;
use crate::systems::rollback::{self, Restored, RollbackError, Snapshots};

/// How a population goes back to a tick before, bit for bit: for lockstep and rollback netcode, or to undo what was learned.
///
/// ```
/// use neurarch::evolve::Noise;
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let mut brains = world.spawn_population(&Linear::new(4, 2), 100, Seed(7))?;
/// brains.keep_snapshots(8)?;
/// brains.save_snapshot(41)?;
/// let before = brains.checksum()?;
/// brains.perturb(Noise::normal(0.1))?;
/// let dead = brains.models()?[3];
/// brains.world_mut().despawn(dead);
///
/// let restored = brains.restore_snapshot(41)?;
/// assert_eq!(restored.revived[0].0, dead);
/// assert_eq!(brains.checksum()?, before);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl PopulationMut<'_> {
    /// Keeps the last `depth` ticks that are saved, in place of any that are kept: [`rollback::keep_snapshots`].
    ///
    /// # Errors
    ///
    /// If the population was despawned, or for a depth that is not from 1 to 128.
    pub fn keep_snapshots(&mut self, depth: usize) -> Result<(), RollbackError> {
        copy_types(self.handle.world);
        rollback::keep_snapshots(self.handle.world, self.id, depth)
    }

    /// Forgets all ticks, and keeps none from now on: [`rollback::forget_snapshots`].
    ///
    /// # Errors
    ///
    /// If the population was despawned.
    pub fn forget_snapshots(&mut self) -> Result<(), RollbackError> {
        rollback::forget_snapshots(self.handle.world, self.id)
    }

    /// Saves what the population is at a tick: [`rollback::save`].
    ///
    /// # Errors
    ///
    /// If it keeps no snapshots, or a later tick was saved.
    pub fn save_snapshot(&mut self, tick: u64) -> Result<(), RollbackError> {
        rollback::save(self.handle.world, self.id, tick)
    }

    /// Makes the population what it was at a tick: [`rollback::restore`].
    ///
    /// # Errors
    ///
    /// If the tick is not kept, or a model was edited since, or is gone with all of its structure. Nothing is changed then.
    pub fn restore_snapshot(&mut self, tick: u64) -> Result<Restored, RollbackError> {
        rollback::restore(self.handle.world, self.id, tick)
    }

    /// Lists the ticks that are kept, in order.
    pub fn saved_ticks(&self) -> Vec<u64> {
        let world: &World = self.handle.world;
        world.get::<Snapshots>(self.id).map_or(Vec::new(), |found| found.ticks().collect())
    }

    /// Computes a checksum of all rows, numbers and random states: [`rollback::checksum`].
    ///
    /// # Errors
    ///
    /// If the population was despawned.
    pub fn checksum(&mut self) -> Result<u64, RollbackError> {
        rollback::checksum(self.handle.world, self.id)
    }
}
