//! [`convert_sync_batchnorm`]: batch norms become [`SyncBatchNorm`]s.

use bevy_ecs::prelude::*;
use neurarch_components::layers::SyncBatchNorm;
use neurarch_components::module::DynModule;
use neurarch_components::module::registry::ModuleTypes;

use crate::errors::AccessError;
use crate::structure::root;
use crate::structure::sign;
use crate::structure::traverse::modules_of;

/// Makes every batch norm of a population's models, or of a module of one model and all below it, a
/// [`SyncBatchNorm`] with the same settings, parameters, buffers and mode. Lazy ones stay as they are.
///
/// # Errors
///
/// If `entity` is neither.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::{layers::*, population::Population};
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::edit::sync_batchnorm::convert_sync_batchnorm;
/// # let mut world = World::new();
/// let net = Sequential::new().push(Linear::new(20, 100)).push(BatchNorm1d::new(100));
/// let nets = spawn_population(&mut world, &net, 3, 3, 7, Dtype::F32)?;
/// convert_sync_batchnorm(&mut world, nets)?;
/// assert_eq!(world.query::<&SyncBatchNorm>().iter(&world).count(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.SyncBatchNorm.convert_sync_batchnorm`, which gives another module where the module itself is a
/// batch norm.
pub fn convert_sync_batchnorm(world: &mut World, entity: Entity) -> Result<(), AccessError> {
    let mut population = None;
    for (_, module) in modules_of(world, entity)? {
        let types = world.get_resource::<ModuleTypes>().zip(world.get_entity(module).ok());
        let norm = types.and_then(|(types, module)| SyncBatchNorm::of(types.module(module)?));
        let Some(norm) = norm else { continue };
        population = root::root_of(world, module).map(|(_, population)| population);
        if let Ok(mut module) = world.get_entity_mut(module) {
            norm.insert_into(&mut module);
        }
    }
    if let Some(population) = population {
        sign::refresh(world, population)?;
    }
    Ok(())
}
