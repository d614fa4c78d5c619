//! [`train_tiles`]: populations with [`Learn`] are trained, as far as a frame's budget goes.
//!
//! A minibatch that was begun is a *round*: it ends when every model has learned from it, in this tick or a later one.
//! Rounds are served in the order in which they began, so what was left over comes first, and no model begins
//! another step while a model with an older minibatch waits.

use bevy_ecs::prelude::*;

use super::budget::Spending;
use super::messages::fail;
use super::participation::{Learn, Minibatch};
use super::progress::{Progress, record, tell_step};
use super::round::{Round, Running};
use super::steps::resting;
use crate::components::losses::DynLoss;
use crate::components::population::Population;
use crate::kernels::ir::dtype::{Dtype, Element, bf16, f16};
use crate::systems::execute::step::{
    SomeStep, StepError, TILE, TrainStep, Trained, Used, train_some, train_step_all,
};

/// The number of the next round.
#[derive(Resource, Default)]
struct NextRound(u64);

/// A round that is out of the world while it is worked on.
struct Work {
    population: Entity,
    dtype: Dtype,
    loss: Box<dyn DynLoss>,
    round: Running,
}

/// Trains populations with [`Learn`] and a loss of its own, all tiles of all of them in one parallel launch:
/// [`train_some`]. First come those that were left over, then those with a new [`Minibatch`].
///
/// A population that cannot learn drops its minibatch and leaves the others alone: [`StepFailed`](super::StepFailed).
pub fn train_tiles(world: &mut World) {
    world.init_resource::<NextRound>();
    let mut spending = Spending::begin(world);
    follow(world);
    let left_over = running(world);
    train(world, left_over, &mut spending);
    begin_rounds(world);
    let new = running(world);
    train(world, new, &mut spending);
    spending.end(world);
}

/// Has the minibatches that wait follow the models; drops those that do not fit.
fn follow(world: &mut World) {
    let mut failed = Vec::new();
    let mut all = world.query::<(Entity, &Population, &mut Minibatch)>();
    for (entity, population, mut minibatch) in all.iter_mut(world) {
        if let Err(error) = minibatch.bypass_change_detection().follow(population) {
            failed.push((entity, error));
        }
    }
    failed.iter().for_each(|(population, error)| fail(world, *population, error));
}

/// Begins a round of each population that has a minibatch and no round.
fn begin_rounds(world: &mut World) {
    let mut next = world.resource::<NextRound>().0;
    let mut all = world.query::<(Entity, &Learn, &mut Minibatch, &mut Round)>();
    let is_idle =
        |(_, learn, minibatch, round): &(_, &Learn, Mut<'_, Minibatch>, Mut<'_, Round>)| {
            let is_ready = learn.loss.is_some() && learn.every <= 1 && round.running.is_none();
            is_ready && minibatch.waiting.is_some()
        };
    let mut idle: Vec<_> = all.iter_mut(world).filter(is_idle).collect();
    idle.sort_unstable_by_key(|(entity, ..)| *entity);
    for (_, _, mut minibatch, mut round) in idle {
        if let Some(running) = minibatch.waiting.take() {
            round.running = Some(Running { order: next, ..running });
            next += 1;
        }
    }
    world.resource_mut::<NextRound>().0 = next;
}

/// Takes the rounds that run, in the order in which they began.
fn running(world: &mut World) -> Vec<Work> {
    let mut all = world.query::<(Entity, &Learn, &Population, &mut Round, &mut Progress)>();
    let mut works = Vec::new();
    for (entity, learn, population, mut round, mut progress) in all.iter_mut(world) {
        progress.follow(population);
        let Some(loss) = &learn.loss else { continue };
        if let Some(mut running) = round.running.take() {
            running.follow(population);
            let (dtype, loss) = (population.dtype(), loss.clone_box());
            works.push(Work { population: entity, dtype, loss, round: running });
        }
    }
    works.sort_unstable_by_key(|work| work.round.order);
    works
}

/// Trains rounds in their order as far as the budget goes, and puts those that did not end back.
fn train(world: &mut World, works: Vec<Work>, spending: &mut Spending) {
    let mut waiting = works.into_iter().peekable();
    while let Some(first) = waiting.next() {
        let mut together = vec![first];
        while let Some(next) = waiting.next_if(|work| work.dtype == together[0].dtype) {
            together.push(next);
        }
        match together[0].dtype {
            Dtype::F64 => train_together(world, together, spending, |loss: f64| loss as f32),
            Dtype::F16 => train_together(world, together, spending, f16::to_f32),
            Dtype::BF16 => train_together(world, together, spending, bf16::to_f32),
            Dtype::F32 | Dtype::I64 | Dtype::Bool => {
                train_together(world, together, spending, |loss: f32| loss);
            }
        }
    }
}

/// Trains rounds whose losses are of one type.
fn train_together<L: Element>(
    world: &mut World,
    mut works: Vec<Work>,
    spending: &mut Spending,
    to_f32: fn(L) -> f32,
) {
    while !works.is_empty() && spending.left().is_left() {
        let before: Vec<_> = works.iter().map(|work| work.round.waiting.clone()).collect();
        let lengths = before.iter().map(Vec::len);
        let mut losses: Vec<Vec<L>> = lengths.map(bytemuck::zeroed_vec).collect();
        let mut steps: Vec<_> = works
            .iter_mut()
            .zip(&mut losses)
            .map(|(work, losses)| {
                let Running { x, targets, waiting, .. } = &mut work.round;
                let step = TrainStep::new(work.population, x.view(), targets.view(), &*work.loss);
                SomeStep { step, waiting, losses }
            })
            .collect();
        let made = train_some(world, &mut steps, &spending.left());
        drop(steps);
        let trained = match made {
            Ok(trained) => trained,
            Err(StepError::Call { number, error }) => {
                let failed = works.remove(number);
                fail(world, failed.population, &error);
                continue;
            }
            Err(error) => {
                works.drain(..).for_each(|work| fail(world, work.population, &error));
                break;
            }
        };
        spending.add(trained.used);
        let mut whole = None;
        for (at, work) in works.iter_mut().enumerate() {
            if trained.whole == Some(at) && spending.left().is_left() {
                whole = Some(train_whole(world, work, &mut losses[at], spending));
            }
            let learned = before[at].iter().zip(&work.round.waiting).zip(&losses[at]).enumerate();
            let learned = learned.filter(|(_, ((waited, waits), _))| **waited && !**waits);
            let losses = learned.map(|(index, (_, &loss))| (index, to_f32(loss)));
            record(world, work.population, losses);
        }
        match (trained, whole) {
            (Trained { whole: Some(at), .. }, Some(Err(error))) => {
                let failed = works.remove(at);
                fail(world, failed.population, &error);
            }
            (Trained { whole: Some(_), .. }, Some(Ok(()))) => {}
            // All is trained, or nothing is left of the budget.
            _ => break,
        }
        works.retain(|work| !end(world, work));
    }
    for work in works {
        if !end(world, &work)
            && let Some(mut round) = world.get_mut::<Round>(work.population)
        {
            round.running = Some(work.round);
        }
    }
}

/// Ends a round in which nobody waits; says whether it did.
fn end(world: &mut World, work: &Work) -> bool {
    let waiting = work.round.waiting.iter().filter(|waits| **waits).count();
    if let Some(mut progress) = world.get_mut::<Progress>(work.population) {
        progress.waiting = waiting;
    }
    if waiting == 0 {
        tell_step(world, work.population);
    }
    waiting == 0
}

/// Trains a population whose models cannot be trained tile by tile. Those that have learned already sit it out.
fn train_whole<L: Element>(
    world: &mut World,
    work: &mut Work,
    losses: &mut Vec<L>,
    spending: &mut Spending,
) -> Result<(), StepError> {
    let Running { x, targets, models, waiting, .. } = &mut work.round;
    let n_tiles = waiting.iter().filter(|waits| **waits).count().div_ceil(TILE);
    let step = TrainStep::new(work.population, x.view(), targets.view(), &*work.loss);
    let made = resting(world, models, waiting, |world| {
        train_step_all::<L>(world, &[step]).map_err(of_one)
    });
    spending.add(Used { tiles: n_tiles, late: 0 });
    *losses = made?.remove(0).to_vec();
    waiting.fill(false);
    Ok(())
}

/// Returns the error of the one call that there was.
pub(super) fn of_one(error: StepError) -> StepError {
    match error {
        StepError::Call { error, .. } => *error,
        error => error,
    }
}
