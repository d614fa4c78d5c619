//! Types of `neurarch::plugin` in an app's type registry, for inspectors and remote control.

use bevy_app::App;
use bevy_ecs::reflect::AppTypeRegistry;

use super::budget::{TrainingBudget, TrainingSpent};
use super::participation::{Think, ThinkEvery};
use crate::components::reflected;

/// Registers what hosts set and read, optimizers and layers among it.
pub(super) fn register(app: &mut App) {
    let types = app.world_mut().get_resource_or_init::<AppTypeRegistry>().clone();
    reflected::register(&mut types.write());
    app.register_type::<TrainingBudget>()
        .register_type::<TrainingSpent>()
        .register_type::<Think>()
        .register_type::<ThinkEvery>();
}
