//! [`StepSystems`]: the order of a step, for hosts that run neurarch in a schedule of theirs.

use bevy_ecs::prelude::*;
use bevy_ecs::schedule::Schedule;

/// The parts of a step, in the order in which [`order_step`] has them run.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepSystems {
    /// The host writes what the models see.
    Observe,
    /// Models run.
    Forward,
    /// Losses are computed.
    Loss,
    /// Gradients are computed.
    Backward,
    /// Parameters are updated.
    Step,
    /// Learning rates change.
    Schedule,
}

/// Puts the parts of a step in their order in `schedule`.
pub fn order_step(schedule: &mut Schedule) {
    schedule.configure_sets(
        (
            StepSystems::Observe,
            StepSystems::Forward,
            StepSystems::Loss,
            StepSystems::Backward,
            StepSystems::Step,
            StepSystems::Schedule,
        )
            .chain(),
    );
}
