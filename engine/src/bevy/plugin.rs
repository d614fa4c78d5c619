//! [`NeurarchPlugin`]: neurarch in a Bevy app.

use bevy_app::prelude::*;
use bevy_ecs::intern::Interned;
use bevy_ecs::prelude::*;
use bevy_ecs::schedule::ScheduleLabel;
use bevy_tasks::ComputeTaskPool;
use bevy_time::TimePlugin;

use super::budget::{TileWorkers, TrainingBudget, TrainingSpent, begin_frame, is_any_spent};
use super::messages::{
    ModelDespawned, ModelSpawned, PopulationStepped, StepFailed, TrainingDiverged,
};
use super::participation::Learn;
use super::sets::{StepSystems, any, get_systems, learn, learning_schedule, order_step};
use crate::components::warnings::Warnings;
use crate::systems::execute::step::run_on_rayon;

/// Puts neurarch into a Bevy app: populations with [`Think`](super::Think) run, and those with [`Learn`](super::Learn) learn,
/// in the sets of [`StepSystems`].
///
/// `Observe`, `Forward`, `Act`, `Loss` and `Learn` are sets of the schedule that it is put in, `FixedUpdate` by default.
/// `Learn` has one exclusive system, which runs the schedule [`Learning`](super::Learning) with `Backward`, `Step` and
/// `Schedule`. It runs if some population learns, so `StepSystems::Learn.run_if(…)` pauses all learning.
///
/// # Example
///
/// ```
/// use bevy_app::prelude::*;
/// use bevy_time::TimePlugin;
/// use ndarray::Array2;
/// use neurarch::bevy_ecs::prelude::*;
/// use neurarch::plugin::{Actions, NeurarchPlugin, Observations, Think};
/// use neurarch::prelude::*;
///
/// let mut app = App::new();
/// app.add_plugins((TimePlugin, NeurarchPlugin::default()));
/// let brains = app.world_mut().spawn_population(&Linear::new(3, 2), 100, Seed(1))?.id();
/// let seen = Observations(Array2::<f32>::ones((100, 3)).into_dyn());
/// app.world_mut().entity_mut(brains).insert((Think, seen));
/// app.world_mut().run_schedule(FixedUpdate);
/// assert_eq!(app.world().get::<Actions>(brains).unwrap().0.shape(), [100, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct NeurarchPlugin {
    schedule: Interned<dyn ScheduleLabel>,
    budget: TrainingBudget,
    has_systems: bool,
}

impl Default for NeurarchPlugin {
    /// In `FixedUpdate`, with all systems and no limit to training.
    fn default() -> Self {
        let budget = TrainingBudget::Unlimited;
        NeurarchPlugin { schedule: FixedUpdate.intern(), budget, has_systems: true }
    }
}

impl NeurarchPlugin {
    /// Puts the systems into another schedule than `FixedUpdate`.
    #[must_use]
    pub fn in_schedule(self, schedule: impl ScheduleLabel) -> Self {
        NeurarchPlugin { schedule: schedule.intern(), ..self }
    }

    /// Trains so much a frame at first: the resource [`TrainingBudget`], unless the app has one.
    #[must_use]
    pub fn with_budget(self, budget: TrainingBudget) -> Self {
        NeurarchPlugin { budget, ..self }
    }

    /// Says whether systems and sets are put into the schedule: without, the host does so, by [`get_systems`] and
    /// [`order_step`].
    #[must_use]
    pub fn with_default_system_setup(self, has_systems: bool) -> Self {
        NeurarchPlugin { has_systems, ..self }
    }
}

impl Plugin for NeurarchPlugin {
    fn build(&self, app: &mut App) {
        app.add_message::<PopulationStepped>()
            .add_message::<StepFailed>()
            .add_message::<TrainingDiverged>()
            .add_message::<ModelSpawned>()
            .add_message::<ModelDespawned>()
            .init_resource::<TileWorkers>()
            .init_resource::<TrainingSpent>()
            .add_systems(First, begin_frame.run_if(is_any_spent))
            .add_schedule(learning_schedule(self.has_systems));
        if !app.world().contains_resource::<TrainingBudget>() {
            app.insert_resource(self.budget);
        }
        #[cfg(feature = "reflect")]
        super::reflect::register(app);
        if self.has_systems {
            app.init_schedule(self.schedule).edit_schedule(self.schedule, |schedule| {
                order_step(schedule);
            });
            app.add_systems(self.schedule, get_systems(StepSystems::Observe))
                .add_systems(self.schedule, get_systems(StepSystems::Forward))
                .add_systems(self.schedule, learn.in_set(StepSystems::Learn).run_if(any::<Learn>));
        }
    }

    fn finish(&self, app: &mut App) {
        if self.schedule == FixedUpdate.intern() && !app.is_plugin_added::<TimePlugin>() {
            let message = "NeurarchPlugin is in FixedUpdate, which never runs without bevy_time's TimePlugin: add it, \
                or choose another schedule by in_schedule(Update)";
            Warnings::of(app.world()).warn("NeurarchPlugin", message);
        }
    }
}

impl TileWorkers {
    /// Runs tiles on bevy's compute pool.
    pub fn compute_pool() -> Self {
        let threads = || {
            let pool = ComputeTaskPool::try_get();
            pool.map_or_else(rayon::current_num_threads, |pool| pool.thread_num().max(1))
        };
        TileWorkers { run: run_on_compute_pool, threads, spare: 0 }
    }
}

/// Runs workers on bevy's compute pool, or on the caller's rayon pool if there is none yet.
///
/// A tile of large models still splits its products on rayon.
pub fn run_on_compute_pool(workers: usize, work: &(dyn Fn(usize) + Sync)) {
    let Some(pool) = ComputeTaskPool::try_get() else { return run_on_rayon(workers, work) };
    pool.scope(|scope| (0..workers).for_each(|worker| scope.spawn(async move { work(worker) })));
}
