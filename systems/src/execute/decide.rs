//! [`decide`]: which way a cohort goes through a pass that calls its models.

use bevy_ecs::prelude::*;

use crate::compile::plans::Request;
use crate::errors::StepError;
use crate::execute::cohort::Cohort;
use crate::execute::hooks::{OuterHooks, observe};
use crate::execute::route::Route;

/// Decides how a cohort makes a pass, and finds the plan if there is one. `needs_record` says that those who are watched
/// have to be recorded with numbers: the pass asks for what no plan gives.
///
/// A `forward` that reads numbers is recorded model by model, whether somebody watches or not.
///
/// # Errors
///
/// If a module or the loss cannot take what it is called with.
pub(crate) fn decide(
    world: &mut World,
    cohort: &mut Cohort,
    shared: Option<&OuterHooks>,
    request: Request<'_>,
    needs_record: bool,
) -> Result<Route, StepError> {
    if cohort.is_watched && !needs_record {
        return observe::prepare(world, cohort, shared, request);
    }
    if cohort.is_watched && cohort.turns() == cohort.places.len() {
        return Ok(Route::Eager);
    }
    match cohort.prepare(world, cohort.at.population, &request) {
        Err(error) if error.needs_values() => Ok(Route::Alone),
        _ if cohort.is_watched => Ok(Route::Eager),
        planned => planned.map(Route::Planned),
    }
}
