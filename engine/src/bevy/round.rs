//! [`Round`]: the minibatch that a population learns from, while some of its models have yet to.

use bevy_ecs::entity::MapEntities;
use bevy_ecs::prelude::*;

use super::turns::{are_same, places_before};
use crate::components::population::Population;
use crate::systems::compile::array::AnyInput;
use crate::systems::execute::step::StepError;

/// What a population learns from now.
#[derive(Component, Clone, Debug, Default)]
pub struct Round {
    #[entities]
    pub(super) running: Option<Running>,
    /// How many losses came since the last step, where several make one.
    pub(super) losses: u32,
}

/// A minibatch that was begun.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// Rounds that began earlier have a lower number.
    pub(super) order: u64,
    pub(super) x: AnyInput<'static>,
    pub(super) targets: AnyInput<'static>,
    /// The models as they were last, and as of which version and next number of the population.
    pub(super) models: Vec<Entity>,
    pub(super) version: u64,
    pub(super) next_number: u64,
    /// Which of them have yet to learn.
    pub(super) waiting: Vec<bool>,
}

impl MapEntities for Running {
    fn map_entities<M: EntityMapper>(&mut self, mapper: &mut M) {
        self.models.map_entities(mapper);
    }
}

impl Running {
    /// Begins with all models of a population.
    ///
    /// # Errors
    ///
    /// If an array is for another number of models.
    pub(super) fn new(
        population: &Population,
        x: AnyInput<'static>,
        targets: AnyInput<'static>,
    ) -> Result<Self, StepError> {
        let expected = population.len();
        for (array, numbers) in [("x", &x), ("targets", &targets)] {
            if let Some(given) = numbers.models().filter(|&given| given != expected) {
                return Err(StepError::Models { array, expected, given });
            }
        }
        let (models, waiting) = (population.models().to_vec(), vec![true; expected]);
        let (version, next_number) = (population.version(), population.next_number());
        Ok(Running { order: 0, x, targets, models, version, next_number, waiting })
    }

    /// Follows models that came, went or have other indices: who came has nothing to learn from in this round.
    pub(super) fn follow(&mut self, population: &Population) {
        if self.version == population.version() {
            return;
        }
        let before = places_before(&self.models, Some(self.next_number), population);
        (self.version, self.next_number) = (population.version(), population.next_number());
        if are_same(&before, self.models.len()) {
            return;
        }
        self.waiting =
            before.iter().map(|place| place.is_some_and(|at| self.waiting[at])).collect();
        self.x = self.x.select(&before);
        self.targets = self.targets.select(&before);
        self.models = population.models().to_vec();
    }
}
