//! [`step`]: optimizers update the parameters that have a gradient.

use bevy_ecs::prelude::*;

use crate::compile::plans::{Kind, Request};
use crate::errors::StepError;
use crate::execute::cohort::Cohort;
use crate::execute::route::Route;
use crate::execute::run::{Run, with_run};
use crate::execute::shared;

/// Updates the parameters that have a gradient, each by the optimizer nearest to it.
///
/// # Errors
///
/// [`StepError::NoOptimizer`] if a model has none.
///
/// Source: `torch.optim.Optimizer.step`.
pub fn step(world: &mut World, population: Entity) -> Result<(), StepError> {
    with_run(world, population, |world, run| {
        run.begin_step(world, population)?;
        let of_shared = shared::step(world, run, population)?;
        run_rule(world, run, population, Kind::Step)?;
        of_shared.write(world)
    })
}

/// Runs a program that has neither inputs nor outputs.
pub(super) fn run_rule(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    kind: Kind,
) -> Result<(), StepError> {
    let request = Request {
        kind,
        inputs: &[],
        structure: None,
        given: &[],
        target: None,
        loss: None,
        watched: &[],
    };
    loop {
        run.chosen.clear();
        for cohort in &mut run.cohorts.list {
            run.chosen.push(Route::Planned(cohort.prepare(world, population, &request)?));
        }
        if !run.add_columns(world, population, |number| number)? {
            break;
        }
    }
    let Run { cohorts, buffers, chosen, .. } = run;
    let mut queue = buffers.queue();
    for (Cohort { at, ready, .. }, route) in cohorts.list.iter_mut().zip(&*chosen) {
        queue.push(at, route.planned(ready).map(|ready| ready.job(&[])));
    }
    queue.launch(world, &mut [], buffers)?;
    Ok(())
}
