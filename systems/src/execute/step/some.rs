//! Some models of several populations in one call: [`train_some`] as far as an allowance goes, [`forward_some`].

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, IxDyn};
use neurarch_kernels::ir::dtype::Element;

use super::check::{check_array, result_shape};
use super::forward;
use super::stretch::Stretch;
use super::together::TrainStep;
use super::train;
use crate::compile::array::{AnyInput, Called};
use crate::errors::StepError;
use crate::execute::cohort::Cohort;
use crate::execute::route::Route;
use crate::execute::run::{Run, with_runs};
use crate::execute::shared::Sums;
pub use crate::storage::blocks::{Allowance, RunWorkers, Used, run_on_rayon};
use crate::storage::blocks::{Block, Blocks};
use crate::storage::launch::{Read, Write};
use crate::structure::mode::no_grad;

/// How many models are trained as one tile of an [`Allowance`], whatever the machine: those of one structure whose
/// indices are neighbors. Models of several structures, and those beside a gap, are in smaller tiles.
pub const TILE: usize = 16;

/// How many models of a forward pass a worker takes at a time.
const FORWARD_TILE: usize = 256;

/// A training step of some models of a population: see [`train_some`].
#[derive(Debug)]
pub struct SomeStep<'a, L: Element> {
    /// The step, as if all models made it.
    pub step: TrainStep<'a>,
    /// Which models are to make it, by index. The marks of those that made it are removed, and those of inactive models.
    pub waiting: &'a mut [bool],
    /// `[models]`: the losses of those that made it are written.
    pub losses: &'a mut [L],
}

/// What [`train_some`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trained {
    /// The tiles.
    pub used: Used,
    /// The first step whose models cannot be trained tile by tile: they have hooks, read numbers or share parameters.
    /// Neither it nor those behind it were looked at further.
    pub whole: Option<usize>,
}

/// Makes a training step of some models of several populations, bit for bit as [`train_step`](super::train_step) of all,
/// as far as the allowance goes. Tiles of [`TILE`] models begin in the order of the steps, then of the models.
///
/// # Errors
///
/// If a population is listed twice, or as [`train_step`](super::train_step) of one of them: nothing is trained then. If the
/// kernel of an op panics, tiles that ran before are trained, and their marks removed.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use ndarray::{Array2, Array3};
/// # use neurarch_components::layers::Linear;
/// # use neurarch_components::losses::CrossEntropyLoss;
/// # use neurarch_components::optimizer::SGD;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::execute::step::{Allowance, SomeStep, TrainStep, train_some};
/// # use neurarch_systems::optim::insert::insert_with;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// let mut world = World::new();
/// let brains = spawn_population(&mut world, &Linear::new(4, 2), 40, 40, 1, Dtype::F32)?;
/// insert_with(&mut world, brains, |_| SGD { lr: 0.1, ..SGD::default() })?;
/// let (x, y) = (Array3::<f32>::ones((40, 8, 4)), Array2::<i64>::ones((40, 8)));
/// let loss = CrossEntropyLoss::default();
/// let (mut waiting, mut losses) = ([true; 40], [0.0_f32; 40]);
/// let step = TrainStep::new(brains, &x, &y, &loss);
/// let mut steps = [SomeStep { step, waiting: &mut waiting, losses: &mut losses }];
/// let two_tiles = Allowance { tiles: 2, ..Allowance::unlimited() };
/// assert_eq!(train_some(&mut world, &mut steps, &two_tiles)?.used.tiles, 2);
/// drop(steps);
/// assert_eq!(waiting.iter().filter(|waits| **waits).count(), 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn train_some<L: Element>(
    world: &mut World,
    steps: &mut [SomeStep<'_, L>],
    allowance: &Allowance,
) -> Result<Trained, StepError> {
    let populations: Vec<_> = steps.iter().map(|some| some.step.population).collect();
    let (mut given, mut marks, mut losses) = (Vec::new(), Vec::new(), Vec::new());
    for SomeStep { step, waiting, losses: of_step } in steps {
        given.push(&*step);
        marks.push(&mut **waiting);
        losses.push(&mut **of_step);
    }
    with_runs(world, &populations, |world, runs| {
        let arrays: Vec<_> =
            given.iter().map(|step| [step.x.erase(), step.targets.erase()]).collect();
        let types: Vec<_> = arrays.iter().map(|[x, _]| [x.ty()]).collect();
        let of_types = arrays.iter().zip(&types);
        let parts: Vec<_> =
            of_types.map(|([x, targets], types)| [Stretch::once(types, *x, *targets)]).collect();
        let mut whole = None;
        for (number, (step, run)) in given.iter().zip(&mut *runs).enumerate() {
            let (TrainStep { population, loss, .. }, [x, targets]) = (step, arrays[number]);
            let count = run.models.count;
            let made = check_len("waiting", count, marks[number].len())
                .and_then(|()| check_len("losses", count, losses[number].len()))
                .and_then(|()| check_array(run.models, "x", x))
                .and_then(|()| check_array(run.models, "targets", targets))
                .and_then(|()| {
                    let part = &parts[number];
                    train::prepare(world, run, *population, part, targets, *loss, L::DTYPE)
                });
            made.map_err(|error| error.of_call(number))?;
            let is_watched = run.cohorts.list.iter().any(|cohort| cohort.is_watched);
            if is_watched || Sums::of(world, *population).is_some() {
                whole = Some(number);
                break;
            }
            train::refresh_keys(world, run, &parts[number])?;
        }
        let n_divisible = whole.unwrap_or(given.len());
        let write = |losses| Write::new(losses, size_of::<L>());
        let mut losses: Vec<_> = losses.into_iter().take(n_divisible).map(write).collect();
        let runs = &mut runs[..n_divisible];
        let used = train_blocks::<L>(world, runs, &parts, (&mut marks, &mut losses), allowance)?;
        Ok(Trained { used, whole })
    })
}

/// Runs the plans of those that wait, as far as allowed.
fn train_blocks<L: Element>(
    world: &mut World,
    runs: &mut [Box<Run>],
    parts: &[[Stretch<'_>; 1]],
    (marks, losses): (&mut [&mut [bool]], &mut [Write<'_>]),
    allowance: &Allowance,
) -> Result<Used, StepError> {
    let mut tasks = Tasks::default();
    for (number, (run, waiting)) in runs.iter().zip(&mut *marks).enumerate() {
        forget_inactive(run, waiting);
        tasks.list(number, run, waiting, TILE);
    }
    let blocks = Blocks::new(&tasks.blocks, allowance);
    let Some(first) = runs.first_mut().filter(|_| !tasks.blocks.is_empty()) else {
        return Ok(Used::default());
    };
    let mut buffers = std::mem::take(&mut first.buffers);
    let mut lists = Vec::with_capacity(parts.len());
    let mut split = Vec::with_capacity(parts.len());
    for (run, part) in runs.iter_mut().zip(parts) {
        let Run { cohorts, chosen, loss, .. } = &mut **run;
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        train::list_arrays(part, loss, size_of::<L>(), (&mut inputs, &mut outputs));
        lists.push((inputs, outputs));
        split.push((&mut cohorts.list, &*chosen));
    }
    let mut queue = buffers.queue();
    for (number, (cohorts, chosen)) in split.into_iter().enumerate() {
        let (inputs, outputs) = &lists[number];
        for (place, (cohort, route)) in cohorts.iter_mut().zip(chosen).enumerate() {
            if tasks.has(number, place) {
                let (route, part) = (std::slice::from_ref(route), &parts[number]);
                train::push_one(&mut queue, cohort, route, part, (inputs, outputs), number);
            }
        }
    }
    let launched = queue.launch_blocks(world, losses, &mut buffers, &blocks);
    drop(lists);
    runs[0].buffers = buffers;
    for (number, place, members) in tasks.ran(&blocks) {
        let Run { cohorts, chosen, .. } = &mut *runs[number];
        let (cohort, waiting) = (&mut cohorts.list[place], &mut *marks[number]);
        let indices = cohort.at.members.indices().skip(members.start).take(members.len());
        indices.for_each(|index| waiting[index] = false);
        if cohort.draws(&chosen[place..=place]) {
            let members: Vec<_> = members.map(|member| member as u32).collect();
            cohort.advance_keys_of(world, &members);
        }
    }
    launched?;
    Ok(blocks.used())
}

/// A forward pass of some models of a population: see [`forward_some`].
#[derive(Debug)]
pub struct SomeCall<'a, T: Element> {
    /// The population's entity.
    pub population: Entity,
    /// What the models are called with, as if all were.
    pub x: AnyInput<'a>,
    /// Which models are to run, by index.
    pub is_due: &'a [bool],
    /// `[models, ..]`: the rows of those that ran are written. Of another shape, it is made anew, of zeros.
    pub y: &'a mut ArrayD<T>,
}

/// Runs some models of several populations, bit for bit as [`forward`](super::forward()) of all, in one parallel launch; nothing
/// is kept for `backward`. Where a model of a population is hooked or reads numbers, all of it run.
///
/// # Errors
///
/// If a population is listed twice, or as [`forward`](super::forward()) of one of them.
pub fn forward_some<T: Element>(
    world: &mut World,
    calls: &mut [SomeCall<'_, T>],
    allowance: &Allowance,
) -> Result<(), StepError> {
    no_grad(world, |world| forward_all_due(world, calls, allowance))
}

/// [`forward_some`], where gradients are off.
fn forward_all_due<T: Element>(
    world: &mut World,
    calls: &mut [SomeCall<'_, T>],
    allowance: &Allowance,
) -> Result<(), StepError> {
    let populations: Vec<_> = calls.iter().map(|call| call.population).collect();
    let whole = with_runs(world, &populations, |world, runs| {
        let mut whole = vec![false; calls.len()];
        for (number, (call, run)) in calls.iter_mut().zip(&mut *runs).enumerate() {
            let called = Called { arrays: &[call.x.erase()], structure: None, entry: None };
            let made = check_len("is_due", run.models.count, call.is_due.len())
                .and_then(|()| forward::prepare(world, run, call.population, &called))
                .and_then(|()| forward::only_result(run, &[]).map(Option::<&_>::cloned));
            let ty = made.map_err(|error| error.of_call(number))?;
            whole[number] = run.cohorts.list.iter().any(|cohort| cohort.is_watched);
            let Some(ty) = ty.filter(|_| !whole[number]) else { continue };
            let shape = result_shape("result", run.models.count, &ty, T::DTYPE)
                .map_err(|error| error.of_call(number))?;
            if call.y.shape() != shape || !call.y.is_standard_layout() {
                *call.y = ArrayD::from_elem(IxDyn(&shape), bytemuck::Zeroable::zeroed());
            }
            for (cohort, route) in run.cohorts.list.iter_mut().zip(run.chosen.chunks(1)) {
                if cohort.draws(route) {
                    cohort.refresh_keys(world)?;
                }
            }
        }
        forward_blocks(world, runs, calls, &whole, allowance)?;
        Ok(whole)
    })?;
    for (number, call) in calls.iter_mut().enumerate().filter(|(number, _)| whole[*number]) {
        let all = forward::forward_erased(world, call.population, None, call.x.erase())
            .map_err(|error| error.of_call(number))?;
        if call.y.shape() != all.shape() {
            *call.y = all;
            continue;
        }
        let rows = call.y.outer_iter_mut().zip(all.outer_iter()).zip(call.is_due);
        rows.filter(|(_, due)| **due).for_each(|((mut y, row), _)| y.assign(&row));
    }
    Ok(())
}

/// Runs the plans of those that are due.
fn forward_blocks<T: Element>(
    world: &mut World,
    runs: &mut [Box<Run>],
    calls: &mut [SomeCall<'_, T>],
    whole: &[bool],
    allowance: &Allowance,
) -> Result<(), StepError> {
    let mut tasks = Tasks::default();
    for (number, (run, call)) in runs.iter().zip(&*calls).enumerate() {
        if !whole[number] {
            tasks.list(number, run, call.is_due, FORWARD_TILE);
        }
    }
    let blocks = Blocks::new(&tasks.blocks, allowance);
    let Some(first) = runs.first_mut().filter(|_| !tasks.blocks.is_empty()) else {
        return Ok(());
    };
    let mut buffers = std::mem::take(&mut first.buffers);
    let (mut reads, mut arrays) = (Vec::new(), Vec::with_capacity(2 * calls.len()));
    for SomeCall { x, y, .. } in &mut *calls {
        let x = x.erase();
        reads.push([Read::new(x.bytes, x.stride())]);
        let row_bytes = size_of::<T>() * y.len() / y.shape().first().copied().unwrap_or(1).max(1);
        arrays.push(y.as_slice_mut().map_or(Write::nothing(), |y| Write::new(y, row_bytes)));
        // Nothing is kept for `backward`.
        arrays.push(Write::nothing());
    }
    let mut queue = buffers.queue();
    for (number, (run, reads)) in runs.iter_mut().zip(&reads).enumerate() {
        let Run { cohorts, chosen, .. } = &mut **run;
        for (place, (cohort, route)) in cohorts.list.iter_mut().zip(&*chosen).enumerate() {
            if tasks.has(number, place) {
                forward::push_one(&mut queue, cohort, *route, reads, 2 * number);
            }
        }
    }
    let launched = queue.launch_blocks(world, &mut arrays, &mut buffers, &blocks);
    drop(arrays);
    runs[0].buffers = buffers;
    for (number, place, members) in tasks.ran(&blocks) {
        let Run { cohorts, chosen, .. } = &mut *runs[number];
        let cohort = &mut cohorts.list[place];
        if cohort.draws(&chosen[place..=place]) {
            let members: Vec<_> = members.map(|member| member as u32).collect();
            cohort.advance_keys_of(world, &members);
        }
    }
    Ok(launched?)
}

/// The cohorts that have something to do, and their blocks.
#[derive(Default)]
struct Tasks {
    /// For each task, which call it is of, and which cohort.
    of: Vec<(usize, usize)>,
    blocks: Vec<Block>,
}

impl Tasks {
    /// Lists the marked members of a population's planned cohorts, at most `most` a block.
    fn list(&mut self, number: usize, run: &Run, marks: &[bool], most: usize) {
        for (place, (cohort, route)) in run.cohorts.list.iter().zip(&run.chosen).enumerate() {
            if cohort.is_watched || !matches!(route, Route::Planned(_)) {
                continue;
            }
            let (task, before) = (self.of.len(), self.blocks.len());
            for (member, index) in cohort.at.members.indices().enumerate() {
                if !marks[index] {
                    continue;
                }
                match self.blocks[before..].last_mut() {
                    Some(Block { members, .. })
                        if members.end == member && members.len() < most =>
                    {
                        members.end += 1;
                    }
                    _ => self.blocks.push(Block { task, members: member..member + 1 }),
                }
            }
            if self.blocks.len() > before {
                self.of.push((number, place));
            }
        }
    }

    /// Returns whether a cohort of a call has something to do.
    fn has(&self, number: usize, place: usize) -> bool {
        self.of.binary_search(&(number, place)).is_ok()
    }

    /// Lists what ran: the call, the cohort, and its members by their places.
    fn ran(&self, blocks: &Blocks<'_>) -> Vec<(usize, usize, std::ops::Range<usize>)> {
        let of =
            |Block { task, members }: &Block| (self.of[*task].0, self.of[*task].1, members.clone());
        blocks.ran().map(of).collect()
    }
}

/// Takes the marks off models that are in no cohort.
fn forget_inactive(run: &Run, waiting: &mut [bool]) {
    let all: usize = run.cohorts.list.iter().map(|cohort: &Cohort| cohort.at.members.len()).sum();
    if all == waiting.len() {
        return;
    }
    let mut is_active = vec![false; waiting.len()];
    for index in run.cohorts.list.iter().flat_map(|cohort| cohort.at.members.indices()) {
        is_active[index] = true;
    }
    waiting.iter_mut().zip(is_active).for_each(|(waits, is_active)| *waits &= is_active);
}

fn check_len(array: &'static str, expected: usize, given: usize) -> Result<(), StepError> {
    if expected == given { Ok(()) } else { Err(StepError::Models { array, expected, given }) }
}
