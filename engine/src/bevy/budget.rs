//! [`TrainingBudget`]: how much may be trained in a frame, and by whom.

use std::time::{Duration, Instant};

use bevy_ecs::prelude::*;
#[cfg(feature = "reflect")]
use bevy_ecs::reflect::ReflectResource;
#[cfg(feature = "reflect")]
use bevy_reflect::prelude::ReflectDefault;

use crate::systems::execute::step::{Allowance, RunWorkers, Used, run_on_rayon};

/// How much populations with [`Learn`](super::Learn) may be trained in a frame, all of its fixed ticks together. What is
/// left over comes first next time.
///
/// With a budget in tiles a run repeats bit for bit. What a model learns in so many steps does not depend on the budget.
///
/// # Example
///
/// ```
/// # use std::time::Duration;
/// # use neurarch::bevy_ecs::prelude::*;
/// # use neurarch::plugin::TrainingBudget;
/// # let mut world = World::new();
/// world.insert_resource(TrainingBudget::time(Duration::from_millis(4)));
/// assert_eq!(TrainingBudget::default(), TrainingBudget::Unlimited);
/// ```
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "reflect", derive(bevy_reflect::Reflect), reflect(Resource, Default))]
pub enum TrainingBudget {
    /// Every model makes the step that it has a minibatch for.
    #[default]
    Unlimited,
    /// No tile begins once the learning systems ran so long in a frame.
    Time(Duration),
    /// So many tiles of up to [`TILE`](crate::plugin::TILE) models a frame.
    Tiles(usize),
}

impl TrainingBudget {
    /// Makes a budget of time a frame.
    pub fn time(time: Duration) -> Self {
        TrainingBudget::Time(time)
    }

    /// Makes a budget of tiles a frame.
    pub fn tiles(tiles: usize) -> Self {
        TrainingBudget::Tiles(tiles)
    }
}

/// What was spent of the [`TrainingBudget`].
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "reflect", derive(bevy_reflect::Reflect), reflect(Resource, Default))]
pub struct TrainingSpent {
    /// How many tiles were trained in this frame.
    pub tiles: usize,
    /// How long that took in this frame.
    pub time: Duration,
    /// How many tiles ever began after the deadline of their frame: none.
    pub late: usize,
}

impl TrainingSpent {
    fn is_any(&self) -> bool {
        self.tiles > 0 || !self.time.is_zero()
    }
}

/// Who trains tiles and runs models.
#[derive(Resource, Clone, Copy, Debug)]
pub struct TileWorkers {
    /// Has so many workers call a function: [`run_on_rayon`] by default.
    pub run: RunWorkers,
    /// Counts the threads that there are for it.
    pub threads: fn() -> usize,
    /// How many of these threads are left to others, such as a renderer.
    pub spare: usize,
}

impl Default for TileWorkers {
    fn default() -> Self {
        TileWorkers { run: run_on_rayon, threads: rayon::current_num_threads, spare: 0 }
    }
}

impl TileWorkers {
    /// Allows everything.
    pub(super) fn unlimited(self) -> Allowance {
        let workers = (self.threads)().saturating_sub(self.spare).max(1);
        Allowance { tiles: usize::MAX, deadline: None, workers, run: self.run }
    }
}

/// Work within a frame's budget.
pub(super) struct Spending {
    began: Instant,
    before: TrainingSpent,
    used: Used,
    allowance: Allowance,
}

impl Spending {
    /// Begins to spend what is left of the frame's budget.
    pub(super) fn begin(world: &World) -> Self {
        let began = Instant::now();
        let workers = world.get_resource::<TileWorkers>().copied().unwrap_or_default();
        let before = world.get_resource::<TrainingSpent>().copied().unwrap_or_default();
        let mut allowance = workers.unlimited();
        match world.get_resource::<TrainingBudget>().copied().unwrap_or_default() {
            TrainingBudget::Unlimited => {}
            TrainingBudget::Time(time) => {
                allowance.deadline = began.checked_add(time.saturating_sub(before.time));
            }
            TrainingBudget::Tiles(tiles) => {
                allowance.tiles = tiles.saturating_sub(before.tiles);
            }
        }
        Spending { began, before, used: Used::default(), allowance }
    }

    /// Says what may still be done.
    pub(super) fn left(&self) -> Allowance {
        let tiles = self.allowance.tiles.saturating_sub(self.used.tiles);
        Allowance { tiles, ..self.allowance }
    }

    /// Counts what was done.
    pub(super) fn add(&mut self, used: Used) {
        self.used.add(used);
    }

    /// Writes down what was spent.
    pub(super) fn end(self, world: &mut World) {
        world.insert_resource(TrainingSpent {
            tiles: self.before.tiles + self.used.tiles,
            time: self.before.time + self.began.elapsed(),
            late: self.before.late + self.used.late,
        });
    }
}

/// Begins a frame: the whole budget is there again. The [plugin](crate::plugin) has it in bevy's `First`,
/// [`add_neurarch`](super::add_neurarch) before all else.
pub fn begin_frame(spent: Option<ResMut<TrainingSpent>>) {
    if let Some(mut spent) = spent.filter(|spent| spent.is_any()) {
        *spent = TrainingSpent { late: spent.late, ..TrainingSpent::default() };
    }
}

/// Says whether something was spent: a condition of [`begin_frame`], which is cheaper than the system is in an executor of
/// several threads.
pub(super) fn is_any_spent(spent: Option<Res<TrainingSpent>>) -> bool {
    spent.is_some_and(|spent| spent.is_any())
}
