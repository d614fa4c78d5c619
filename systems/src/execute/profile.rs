//! [`record`]: how long each op of some calls takes.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use bevy_ecs::prelude::*;

use crate::storage::recording::Recording;
pub use crate::storage::recording::{OpEvent, Recorded};

/// Does some work, and notes how long each op of each plan takes on each tile of models, whatever populations it is of.
/// The bits are the same. Without a recording no clock is read. Tiles that run within a budget are in it.
///
/// Passes that run op by op, since hooks change what they see or a `forward` reads numbers, are in it as they are computed:
/// each op on all models of the pass. Mapped models, which are in no world, are not.
/// Within a recording another one may begin; what that one notes, the outer one does not.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::execute::profile::record;
/// # use neurarch_systems::execute::step::forward;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let brains = spawn_population(&mut world, &Linear::new(3, 2), 10, 10, 0, Dtype::F32)?;
/// let x = ndarray::Array2::<f32>::ones((10, 3));
/// let (y, recorded) = record(&mut world, |world| forward(world, brains, &x));
/// assert_eq!(y?.shape(), [10, 2]);
/// assert_eq!(recorded.ops[0].module, "Linear");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.profiler.profile`.
pub fn record<R>(world: &mut World, work: impl FnOnce(&mut World) -> R) -> (R, Recorded) {
    let outer = world.remove_resource::<Recording>();
    world.insert_resource(Recording::begin());
    let made = catch_unwind(AssertUnwindSafe(|| work(world)));
    let recorded = world.remove_resource::<Recording>().map(Recording::end);
    if let Some(outer) = outer {
        world.insert_resource(outer);
    }
    (made.unwrap_or_else(|panic| resume_unwind(panic)), recorded.unwrap_or_default())
}
