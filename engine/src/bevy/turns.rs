//! [`Turns`]: at which tick which model of a population runs.

use bevy_ecs::entity::EntityHashMap;
use bevy_ecs::prelude::*;

use crate::components::population::Population;

/// When which model of a population runs.
#[derive(Component, Clone, Debug, Default)]
pub(super) struct Turns {
    pub(super) tick: u64,
    /// The population's version, and of how many turns there are.
    of: Option<(u64, u32)>,
    #[entities]
    models: Vec<Entity>,
    /// `[models]`: the tick's remainder at which each runs.
    pub(super) turns: Vec<u32>,
}

impl Turns {
    /// Follows the population. If its models are others, or in another order, returns at which place each was before.
    pub(super) fn follow(
        &mut self,
        population: &Population,
        every: u32,
    ) -> Option<Vec<Option<usize>>> {
        let now = Some((population.version(), every));
        if self.of == now {
            return None;
        }
        let keeps = self.of.is_some_and(|(_, known)| known == every);
        self.of = now;
        let before = places_before(&self.models, population.models());
        let turn = |place: &Option<usize>| place.filter(|_| keeps).map(|place| self.turns[place]);
        let known: Vec<Option<u32>> = before.iter().map(turn).collect();
        let mut counts = vec![0_usize; every as usize];
        known.iter().flatten().for_each(|&turn| counts[turn as usize] += 1);
        // Those that come fill up the turns that have fewest, neighbors by neighbors.
        let (n, turns) = (population.len(), every as usize);
        let share = |turn: usize| n / turns + usize::from(turn < n % turns);
        let mut turn = 0;
        let mut next = || {
            while counts[turn] >= share(turn) {
                turn += 1;
            }
            counts[turn] += 1;
            turn as u32
        };
        self.turns = known.into_iter().map(|known| known.unwrap_or_else(&mut next)).collect();
        let is_other = self.models != population.models();
        self.models = population.models().to_vec();
        is_other.then_some(before)
    }
}

/// Finds at which place each model was before.
pub(super) fn places_before(before: &[Entity], now: &[Entity]) -> Vec<Option<usize>> {
    let places: EntityHashMap<usize> = before.iter().copied().zip(0..).collect();
    now.iter().map(|model| places.get(model).copied()).collect()
}
