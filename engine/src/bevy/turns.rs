//! [`Turns`]: at which tick which model of a population runs.

use bevy_ecs::entity::{EntityHashMap, EntityHashSet};
use bevy_ecs::prelude::*;

use crate::components::population::Population;

/// When which model of a population runs.
#[derive(Component, Clone, Debug, Default)]
pub(super) struct Turns {
    pub(super) tick: u64,
    /// The population's version and next number, and how many turns there are.
    of: Option<(u64, u64, u32)>,
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
        let now = Some((population.version(), population.next_number(), every));
        if self.of == now {
            return None;
        }
        let keeps = self.of.is_some_and(|(.., known)| known == every);
        let next_number = self.of.map(|(_, next_number, _)| next_number);
        self.of = now;
        let before = places_before(&self.models, next_number, population);
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
        let is_same = are_same(&before, self.models.len());
        self.models = population.models().to_vec();
        (!is_same).then_some(before)
    }
}

/// Finds at which place each model was before: `models` are those when the population's next number was `next_number`. One
/// whose rows a birth took over is another model, and was nowhere.
pub(super) fn places_before(
    models: &[Entity],
    next_number: Option<u64>,
    population: &Population,
) -> Vec<Option<usize>> {
    let taken = next_number.and_then(|number| population.taken_over(number));
    let taken: EntityHashSet = taken.into_iter().flatten().collect();
    let now = population.models();
    if models == now {
        let places = now.iter().enumerate();
        return places.map(|(at, model)| (!taken.contains(model)).then_some(at)).collect();
    }
    let places: EntityHashMap<usize> = models.iter().copied().zip(0..).collect();
    let place = |model: &Entity| places.get(model).copied().filter(|_| !taken.contains(model));
    now.iter().map(place).collect()
}

/// Returns whether each model is where it was.
pub(super) fn are_same(before: &[Option<usize>], count: usize) -> bool {
    before.len() == count && before.iter().enumerate().all(|(at, place)| *place == Some(at))
}
