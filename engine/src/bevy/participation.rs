//! [`Think`] and [`Learn`]: which populations take part in a host's schedules, and with which numbers.

use bevy_ecs::prelude::*;
#[cfg(feature = "reflect")]
use bevy_ecs::reflect::ReflectComponent;
#[cfg(feature = "reflect")]
use bevy_reflect::prelude::ReflectDefault;
use ndarray::ArrayD;

use super::progress::Progress;
use super::round::{Round, Running};
use super::turns::Turns;
use crate::components::losses::{DynLoss, Loss};
use crate::components::population::Population;
use crate::systems::compile::array::AnyInput;
use crate::systems::execute::step::StepError;

/// Has a population's models run in [`StepSystems::Forward`](super::StepSystems::Forward): from its [`Observations`] to its
/// [`Actions`]. Populations without it are left alone.
///
/// Nothing is kept for `backward`. Observations are of single precision, and so are the models.
///
/// # Example
///
/// ```
/// use ndarray::Array2;
/// use neurarch::bevy_ecs::prelude::*;
/// use neurarch::bevy_ecs::schedule::Schedule;
/// use neurarch::plugin::{Actions, Observations, Think, add_neurarch};
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(3, 2), 100, Seed(1))?.id();
/// world.entity_mut(brains).insert(Think);
///
/// fn see(mut observations: Query<&mut Observations>) {
///     for mut observations in &mut observations {
///         observations.0 = Array2::<f32>::ones((100, 3)).into_dyn();
///     }
/// }
///
/// let mut schedule = Schedule::default();
/// add_neurarch(&mut schedule);
/// schedule.add_systems(see.in_set(StepSystems::Observe));
/// schedule.run(&mut world);
/// assert_eq!(world.get::<Actions>(brains).unwrap().0.shape(), [100, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "reflect", derive(bevy_reflect::Reflect), reflect(Component, Default))]
#[require(Observations, Actions, Turns)]
pub struct Think;

/// Has each model of a population with [`Think`] run every so many ticks only: as many of them in each tick, as far as
/// they can be divided. The others keep their rows of [`Actions`]. 0 is 1.
///
/// A model has the same turn for as long as it lives; one that comes gets the turn that the fewest have. Where models of
/// the population have hooks, all of them run, and those whose turn it is are told apart afterwards.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "reflect", derive(bevy_reflect::Reflect), reflect(Component, Default))]
pub struct ThinkEvery(pub u32);

impl Default for ThinkEvery {
    /// Every tick.
    fn default() -> Self {
        ThinkEvery(1)
    }
}

/// What the models of a population see, `[models, ..]`: the host writes it, in
/// [`StepSystems::Observe`](super::StepSystems::Observe). No model runs while it is empty.
#[derive(Component, Clone, Debug, Default, PartialEq)]
pub struct Observations(pub ArrayD<f32>);

/// What the models of a population gave last, `[models, ..]`; zeros of a model that did not run yet.
#[derive(Component, Clone, Debug, Default, PartialEq)]
pub struct Actions(pub ArrayD<f32>);

/// Has a population's models learn in [`StepSystems::Learn`](super::StepSystems::Learn). Populations without it are left
/// alone, whatever losses they have.
///
/// With a loss of its own ([`new`](Learn::new)), each [`Minibatch`] that the host puts is a step. Without one
/// ([`by_hand`](Learn::by_hand)), the host calls [`forward`](crate::PopulationMut::forward) and
/// [`loss`](crate::PopulationMut::loss) itself, before or in [`StepSystems::Loss`](super::StepSystems::Loss), and `backward` and
/// `step` follow.
#[derive(Component, Debug)]
#[require(Minibatch, Progress, Round)]
pub struct Learn {
    pub(super) loss: Option<Box<dyn DynLoss>>,
    /// How many minibatches, or losses, make a step: their gradients are added. 1 starts each from no gradients, and
    /// so does 0.
    ///
    /// With more than 1, all models of the population go through the four calls of a step one after another, which counts
    /// as its number of tiles, in one piece.
    pub every: u32,
}

impl Learn {
    /// Learns by this loss.
    pub fn new(loss: impl Loss) -> Self {
        Learn { loss: Some(Box::new(loss)), every: 1 }
    }

    /// Learns from losses that the host computes.
    pub fn by_hand() -> Self {
        Learn { loss: None, every: 1 }
    }

    /// Adds the gradients of so many minibatches, or losses, before each step.
    #[must_use]
    pub fn every(self, every: u32) -> Self {
        Learn { every, ..self }
    }
}

impl Clone for Learn {
    fn clone(&self) -> Self {
        Learn { loss: self.loss.as_ref().map(|loss| loss.clone_box()), every: self.every }
    }
}

/// What the models of a population learn from next: the host puts it, before or in
/// [`StepSystems::Loss`](super::StepSystems::Loss).
///
/// It is taken when all models have learned from the one before, which may be ticks later if there is a
/// [`TrainingBudget`](super::TrainingBudget). One that was not taken is replaced by the next. So a host that asks
/// [`is_wanted`](Minibatch::is_wanted) before it draws has its models learn from the same numbers whatever the budget.
#[derive(Component, Clone, Debug, Default)]
pub struct Minibatch {
    /// As it was put.
    fresh: Option<Fresh>,
    /// As it was in the tick in which it was put, with the models that there were.
    #[entities]
    pub(super) waiting: Option<Running>,
}

/// Inputs, targets, and who learns from them, by index, if not all do.
type Fresh = (AnyInput<'static>, AnyInput<'static>, Option<Vec<bool>>);

impl Minibatch {
    /// Gives inputs and targets, each `[models, batch, ..]`, or [shared](crate::Input::shared) without the first axis, by
    /// the models as they are in this tick. Models that come later have nothing to learn from in it.
    pub fn put(&mut self, x: impl Into<AnyInput<'static>>, targets: impl Into<AnyInput<'static>>) {
        self.fresh = Some((x.into(), targets.into(), None));
        self.waiting = None;
    }

    /// Gives inputs and targets as [`put`](Self::put) does, to the models that `learns` says by their indices. The rows of
    /// the others are not read, and whom it does not speak of does not learn.
    ///
    /// With [`Learn::every`] above 1 the others rest while it is learned.
    pub fn put_some(
        &mut self,
        x: impl Into<AnyInput<'static>>,
        targets: impl Into<AnyInput<'static>>,
        learns: Vec<bool>,
    ) {
        self.fresh = Some((x.into(), targets.into(), Some(learns)));
        self.waiting = None;
    }

    /// Returns whether there is none that waits to be taken.
    pub fn is_wanted(&self) -> bool {
        self.fresh.is_none() && self.waiting.is_none()
    }

    /// Takes what waits, for the models that there are now.
    ///
    /// # Errors
    ///
    /// If it was put for another number of models.
    pub(super) fn take(&mut self, population: &Population) -> Result<Option<Running>, StepError> {
        self.follow(population)?;
        Ok(self.waiting.take())
    }

    /// Follows the models of the population, those of this tick if it was put in it.
    ///
    /// # Errors
    ///
    /// If it was put for another number of models.
    pub(super) fn follow(&mut self, population: &Population) -> Result<(), StepError> {
        if let Some((x, targets, learns)) = self.fresh.take() {
            let mut running = Running::new(population, x, targets)?;
            if let Some(mut learns) = learns {
                learns.resize(population.len(), false);
                running.waiting = learns;
            }
            self.waiting = Some(running);
        }
        if let Some(waiting) = &mut self.waiting {
            waiting.follow(population);
        }
        Ok(())
    }
}
