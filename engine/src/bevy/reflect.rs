//! Types of `neurarch::plugin` in an app's type registry, for inspectors and remote control.

use bevy_app::App;

use super::budget::{TrainingBudget, TrainingSpent};
use super::participation::{Think, ThinkEvery};

/// Registers what hosts set and read.
pub(super) fn register(app: &mut App) {
    app.register_type::<TrainingBudget>()
        .register_type::<TrainingSpent>()
        .register_type::<Think>()
        .register_type::<ThinkEvery>();
}
