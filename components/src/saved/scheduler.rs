//! The component [`Scheduler`], whose rules are of types of their own.

use bevy_ecs::prelude::*;

use super::cbor::{decode, encode};
use super::error::SavedError;
use super::types::{SavedTypes, SavedValue, Value, add};
use crate::scheduler::{Scheduler, SchedulerForm};

/// Makes schedulers known.
pub(super) fn register(world: &mut World) -> Result<(), SavedError> {
    add::<Scheduler>(world, "Scheduler", write, read)
}

fn write(
    types: &SavedTypes,
    entity: EntityRef<'_>,
    _: &mut dyn EntityMapper,
    bytes: &mut Vec<u8>,
) -> Result<bool, SavedError> {
    let Some(scheduler) = entity.get::<Scheduler>() else { return Ok(false) };
    let form = scheduler.form(&|rule| types.rules.write(rule))?;
    encode(&form, bytes)?;
    Ok(true)
}

fn read(types: &SavedTypes, bytes: &[u8]) -> Result<Box<dyn SavedValue>, SavedError> {
    let form: SchedulerForm = decode(bytes)?;
    let scheduler = Scheduler::of(form, &|name, settings| types.rules.read(name, settings))?;
    let adopt = |scheduler: &mut Scheduler, there: Option<&Scheduler>| {
        scheduler.take_functions(there).map_err(|rule| SavedError::Functions { rule })
    };
    Ok(Box::new(Value::adopting(scheduler, adopt)))
}
