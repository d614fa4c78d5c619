//! [`Keys`]: the random states of a cohort's members.

use bevy_ecs::prelude::*;
use neurarch_components::module::mode::Draws;
use neurarch_components::population::Population;
use neurarch_components::population::tree::Model;
use neurarch_kernels::ir::rng_key::RngKey;

use crate::errors::StepError;
use crate::storage::bind::Located;
use crate::storage::write_detector::WriteDetector;
use crate::structure::population::population;

/// From this many members on it is worth asking whether somebody wrote to their states.
const WORTH_WATCHING: usize = 64;

/// The random states of a cohort's members, as they are in their components.
#[derive(Default)]
pub(crate) struct Keys {
    keys: Vec<RngKey>,
    watch: WriteDetector,
}

impl Keys {
    /// Returns the states, by member: after [`refresh`](Keys::refresh).
    pub(crate) fn get(&self) -> &[RngKey] {
        &self.keys
    }

    /// Reads the states again if somebody wrote to them.
    pub(crate) fn refresh(
        &mut self,
        world: &mut World,
        at: &Located,
        places: &[u32],
    ) -> Result<(), StepError> {
        let draws = world.register_component::<Draws>();
        let found = population(world, at.population)?;
        let group = &found.groups()[at.group];
        // Few are read anew sooner than a list of all members is compared.
        if places.len() >= WORTH_WATCHING && !self.watch.is_stale(world, group) {
            return Ok(());
        }
        self.keys.clear();
        self.keys.extend(places.iter().map(|&place| {
            let root = group.modules[0][place as usize];
            RngKey {
                seed: found.seed,
                number: world.get::<Model>(root).map_or(0, |model| model.number),
                step: world.get::<Draws>(root).map_or(0, |draws| draws.0),
            }
        }));
        if places.len() >= WORTH_WATCHING {
            self.watch = WriteDetector::of(world, group, [(0, draws)]);
            self.watch.look(world);
        }
        Ok(())
    }

    /// Counts `steps` programs that drew numbers, here and in the components.
    pub(crate) fn advance(
        &mut self,
        world: &mut World,
        at: &Located,
        places: &[u32],
        steps: usize,
    ) {
        for (key, &place) in self.keys.iter_mut().zip(places) {
            advance(world, at, key, place, steps as u64);
        }
        self.watch.look_again(world);
    }

    /// [`advance`](Keys::advance) by one, of some members.
    pub(crate) fn advance_of(
        &mut self,
        world: &mut World,
        at: &Located,
        places: &[u32],
        members: &[u32],
    ) {
        for member in members.iter().map(|&member| member as usize) {
            let Some(key) = self.keys.get_mut(member) else { continue };
            advance(world, at, key, places[member], 1);
        }
        self.watch.look_again(world);
    }

    /// Keeps those of some members, by their places.
    pub(crate) fn select(&mut self, members: &[usize]) {
        self.keys = members.iter().filter_map(|&member| self.keys.get(member).copied()).collect();
        self.watch = WriteDetector::default();
    }
}

/// Counts `steps` programs of one model, at a place of its group, that drew numbers.
fn advance(world: &mut World, at: &Located, key: &mut RngKey, place: u32, steps: u64) {
    key.step += steps;
    let found = world.get::<Population>(at.population);
    let root = found.map(|found| found.groups()[at.group].modules[0][place as usize]);
    if let Some(mut draws) = root.and_then(|root| world.get_mut::<Draws>(root)) {
        draws.0 = key.step;
    }
}
