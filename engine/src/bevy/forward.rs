//! [`run_forward`]: populations with [`Think`](super::Think) run.

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, Axis, IxDyn};

use super::budget::TileWorkers;
use super::messages::fail;
use super::participation::{Actions, Observations, Think, ThinkEvery};
use super::turns::Turns;
use crate::components::population::Population;
use crate::systems::execute::step::{SomeCall, StepError, forward_some};

/// A population that runs in this tick.
struct Due {
    population: Entity,
    x: ArrayD<f32>,
    y: ArrayD<f32>,
    is_due: Vec<bool>,
}

/// Runs the models of all populations with [`Think`](super::Think) whose turn it is, in one parallel launch:
/// [`forward_some`]. One that cannot run leaves the others alone, and is told of by
/// [`StepFailed`](super::StepFailed).
pub fn run_forward(world: &mut World) {
    let mut due = collect(world);
    let workers = world.get_resource::<TileWorkers>().copied().unwrap_or_default().unlimited();
    let mut running: Vec<usize> = (0..due.len()).collect();
    while !running.is_empty() {
        let calls = due.iter_mut().enumerate().filter(|(at, _)| running.contains(at));
        let mut calls: Vec<_> = calls
            .map(|(_, Due { population, x, y, is_due })| {
                let (population, x) = (*population, (&*x).into());
                SomeCall { population, x, is_due, y }
            })
            .collect();
        let made = forward_some(world, &mut calls, &workers);
        drop(calls);
        let Err(error) = made else { break };
        match error {
            StepError::Call { number, error } => {
                let failed = running.remove(number);
                fail(world, due[failed].population, &error);
            }
            error => {
                running.iter().for_each(|&at| fail(world, due[at].population, &error));
                running.clear();
            }
        }
    }
    for Due { population, x, y, .. } in due {
        if let Some(mut observations) = world.get_mut::<Observations>(population) {
            observations.bypass_change_detection().0 = x;
        }
        if let Some(mut actions) = world.get_mut::<Actions>(population) {
            actions.0 = y;
        }
    }
}

/// Takes the numbers of the populations that run.
fn collect(world: &mut World) -> Vec<Due> {
    let mut all = world.query_filtered::<(
        Entity,
        &Population,
        &mut Observations,
        &mut Actions,
        &mut Turns,
        Option<&ThinkEvery>,
    ), With<Think>>();
    let mut due = Vec::new();
    for (entity, population, mut observations, mut actions, mut turns, every) in all.iter_mut(world)
    {
        let every = every.map_or(1, |every| every.0.max(1));
        if let Some(before) = turns.follow(population, every) {
            rearrange(&mut actions.0, &before);
        }
        if observations.0.is_empty() || population.is_empty() {
            continue;
        }
        let now = (turns.tick % u64::from(every)) as u32;
        turns.tick += 1;
        let is_due = turns.turns.iter().map(|&turn| turn == now).collect();
        let x = std::mem::take(&mut observations.bypass_change_detection().0);
        due.push(Due { population: entity, x, y: std::mem::take(&mut actions.0), is_due });
    }
    due
}

/// Puts rows where their models are now; zeros for those that came.
fn rearrange(array: &mut ArrayD<f32>, before: &[Option<usize>]) {
    let Some(known) = array.shape().first().copied().filter(|known| *known > 0) else { return };
    let mut shape = array.shape().to_vec();
    shape[0] = before.len();
    let mut moved = ArrayD::zeros(IxDyn(&shape));
    for (mut row, place) in moved.outer_iter_mut().zip(before) {
        if let Some(place) = place.filter(|&place| place < known) {
            row.assign(&array.index_axis(Axis(0), place));
        }
    }
    *array = moved;
}
