//! Several populations in one call: the tiles of all of them run in one queue.

use bevy_ecs::prelude::*;
use ndarray::{Array1, ArrayD, IxDyn};
use neurarch_components::losses::DynLoss;
use neurarch_kernels::ir::dtype::Element;

use super::check::{check_array, result_shape, shaped};
use super::forward;
use super::train;
use super::watched::{self, Ran, What};
use crate::compile::array::{AnyInput, Called};
use crate::errors::StepError;
use crate::execute::run::{Run, with_runs};
use crate::execute::step::stretch::Stretch;
use crate::storage::launch::{Read, Write};

/// A training step of one population among several: see [`train_step_all`].
#[derive(Debug)]
pub struct TrainStep<'a> {
    pub(super) population: Entity,
    pub(super) x: AnyInput<'a>,
    pub(super) targets: AnyInput<'a>,
    pub(super) loss: &'a dyn DynLoss,
}

impl<'a> TrainStep<'a> {
    /// A step of `population`, whose arrays and loss are as for [`train_step`](super::train_step).
    pub fn new(
        population: Entity,
        x: impl Into<AnyInput<'a>>,
        targets: impl Into<AnyInput<'a>>,
        loss: &'a dyn DynLoss,
    ) -> Self {
        TrainStep { population, x: x.into(), targets: targets.into(), loss }
    }
}

/// Makes a training step of several populations, bit for bit as [`train_step`](super::train_step) of each: the tiles of
/// all of them run in parallel, where one small population alone does not occupy all threads.
///
/// Models that are watched by hooks, read numbers or share parameters are trained first, population after population.
///
/// # Shape
///
/// The arrays of each step as for [`train_step`](super::train_step); the results are one `[models]` for each step.
///
/// # Errors
///
/// If a population is listed twice, or as [`train_step`](super::train_step) of one of them. Nothing is trained then,
/// unless it was a hook, or what shares parameters, that failed: the populations before it are trained as far as they
/// are watched or share something.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use ndarray::{Array1, Array2, Array3};
/// # use neurarch_components::layers::Linear;
/// # use neurarch_components::losses::CrossEntropyLoss;
/// # use neurarch_components::optimizer::SGD;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::execute::step::{TrainStep, train_step_all};
/// # use neurarch_systems::optim::insert::insert_with;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// let mut world = World::new();
/// let wolves = spawn_population(&mut world, &Linear::new(4, 2), 3, 3, 1, Dtype::F32)?;
/// let sheep = spawn_population(&mut world, &Linear::new(2, 2), 5, 5, 2, Dtype::F32)?;
/// for population in [wolves, sheep] {
///     insert_with(&mut world, population, |_| SGD { lr: 0.1, ..SGD::default() })?;
/// }
/// let (seen, heard) = (Array3::<f32>::ones((3, 8, 4)), Array3::<f32>::ones((5, 8, 2)));
/// let (hunted, fled) = (Array2::<i64>::ones((3, 8)), Array2::<i64>::zeros((5, 8)));
/// let loss = CrossEntropyLoss::default();
/// let steps = [
///     TrainStep::new(wolves, &seen, &hunted, &loss),
///     TrainStep::new(sheep, &heard, &fled, &loss),
/// ];
/// let losses: Vec<Array1<f32>> = train_step_all(&mut world, &steps)?;
/// assert_eq!((losses[0].len(), losses[1].len()), (3, 5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn train_step_all<L: Element>(
    world: &mut World,
    steps: &[TrainStep<'_>],
) -> Result<Vec<Array1<L>>, StepError> {
    let populations: Vec<_> = steps.iter().map(|step| step.population).collect();
    let arrays: Vec<_> = steps.iter().map(|step| [step.x.erase(), step.targets.erase()]).collect();
    let types: Vec<_> = arrays.iter().map(|[x, _]| [x.ty()]).collect();
    let parts: Vec<_> = arrays
        .iter()
        .zip(&types)
        .map(|([x, targets], types)| [Stretch::once(types, *x, *targets)])
        .collect();
    with_runs(world, &populations, |world, runs| {
        let mut losses = Vec::with_capacity(steps.len());
        for (number, (step, run)) in steps.iter().zip(&mut *runs).enumerate() {
            let (population, [x, targets]) = (step.population, arrays[number]);
            let made = check_array(run.models, "x", x)
                .and_then(|()| check_array(run.models, "targets", targets))
                .and_then(|()| {
                    let part = &parts[number];
                    train::prepare(world, run, population, part, targets, step.loss, L::DTYPE)
                });
            made.map_err(|error| error.of_call(number))?;
            losses.push(bytemuck::zeroed_vec::<L>(run.models.count));
        }
        let mut is_left = vec![false; steps.len()];
        for (number, (step, run)) in steps.iter().zip(&mut *runs).enumerate() {
            let (part, losses) = (&parts[number], (&mut losses[number][..], 1));
            let made = train::train_by_turns(world, run, step.population, part, step.loss, losses);
            is_left[number] = !made.map_err(|error| error.of_call(number))?;
            if is_left[number] {
                train::refresh_keys(world, run, part)?;
            }
        }
        train_left::<L>(world, runs, &parts, &is_left, &mut losses)?;
        for (number, run) in runs.iter_mut().enumerate().filter(|(number, _)| is_left[*number]) {
            train::advance_keys(world, run, &parts[number]);
        }
        Ok(losses.into_iter().map(Array1::from).collect())
    })
}

/// Runs the plans of all populations in one queue.
fn train_left<L: Element>(
    world: &mut World,
    runs: &mut [Box<Run>],
    parts: &[[Stretch<'_>; 1]],
    is_left: &[bool],
    losses: &mut [Vec<L>],
) -> Result<(), StepError> {
    let Some(first) = runs.first_mut() else { return Ok(()) };
    let mut buffers = std::mem::take(&mut first.buffers);
    let split: Vec<_> = runs
        .iter_mut()
        .map(|run| {
            let Run { cohorts, chosen, loss, .. } = &mut **run;
            (cohorts, &*chosen, &*loss)
        })
        .collect();
    let mut lists = Vec::with_capacity(parts.len());
    for ((.., loss), part) in split.iter().zip(parts) {
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        train::list_arrays(part, loss, size_of::<L>(), (&mut inputs, &mut outputs));
        lists.push((inputs, outputs));
    }
    let mut queue = buffers.queue();
    for (number, (cohorts, chosen, _)) in split.into_iter().enumerate() {
        if is_left[number] {
            let (inputs, outputs) = &lists[number];
            train::push(&mut queue, (cohorts, chosen), &parts[number], (inputs, outputs), number);
        }
    }
    let mut arrays: Vec<_> =
        losses.iter_mut().map(|losses| Write::new(losses, size_of::<L>())).collect();
    let launched = queue.launch(world, &mut arrays, &mut buffers);
    drop(lists);
    runs[0].buffers = buffers;
    Ok(launched?)
}

/// Runs several populations, each on an array of its own, bit for bit as [`forward`](super::forward()) does: the tiles of
/// all of them run in parallel. `loss` and `backward` of each go on from there.
///
/// # Shape
///
/// Each array as for [`forward`](super::forward()), and so are the results, one for each call.
///
/// # Errors
///
/// If a population is listed twice, or as [`forward`](super::forward()) of one of them; a result that is not of `T` is
/// one as well. What hooks changed is undone then.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use ndarray::{Array3, ArrayD};
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::execute::step::forward_all;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// let mut world = World::new();
/// let wolves = spawn_population(&mut world, &Linear::new(4, 2), 3, 3, 1, Dtype::F32)?;
/// let sheep = spawn_population(&mut world, &Linear::new(2, 1), 5, 5, 2, Dtype::F32)?;
/// let (seen, heard) = (Array3::<f32>::ones((3, 1, 4)), Array3::<f32>::ones((5, 1, 2)));
/// let y: Vec<ArrayD<f32>> =
///     forward_all(&mut world, &[(wolves, (&seen).into()), (sheep, (&heard).into())])?;
/// assert_eq!((y[0].shape(), y[1].shape()), (&[3, 1, 2][..], &[5, 1, 1][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn forward_all<T: Element>(
    world: &mut World,
    calls: &[(Entity, AnyInput<'_>)],
) -> Result<Vec<ArrayD<T>>, StepError> {
    let populations: Vec<_> = calls.iter().map(|&(population, _)| population).collect();
    let arrays: Vec<_> = calls.iter().map(|(_, x)| [x.erase()]).collect();
    let called: Vec<_> =
        arrays.iter().map(|arrays| Called { arrays, structure: None, entry: None }).collect();
    with_runs(world, &populations, |world, runs| {
        for (number, run) in runs.iter_mut().enumerate() {
            let made = forward::prepare(world, run, populations[number], &called[number]);
            made.map_err(|error| error.of_call(number))?;
        }
        let mut watched: Vec<Vec<Ran>> = Vec::with_capacity(calls.len());
        let made = calls.iter().enumerate().try_for_each(|(number, _)| {
            let made = watched::make(world, &mut runs[number], &What::Forward(&called[number]));
            watched.push(made.map_err(|error| error.of_call(number))?);
            Ok(())
        });
        let made = made.and_then(|()| run_all(world, runs, &populations, &called, &watched));
        match made {
            Ok(results) => {
                for (number, watched) in watched.into_iter().enumerate() {
                    watched::keep(world, &mut runs[number], &called[number], watched)?;
                    runs[number].tape.close(world, populations[number]);
                }
                Ok(results)
            }
            Err(failure) => {
                for (run, watched) in runs.iter_mut().zip(watched) {
                    watched::undo(world, run, watched)?;
                }
                Err(failure)
            }
        }
    })
}

/// Runs the plans of all populations in one queue, and remembers their passes.
fn run_all<T: Element>(
    world: &mut World,
    runs: &mut [Box<Run>],
    populations: &[Entity],
    called: &[Called<'_>],
    watched: &[Vec<Ran>],
) -> Result<Vec<ArrayD<T>>, StepError> {
    let mut all: Vec<(Vec<usize>, Vec<T>)> = Vec::with_capacity(runs.len());
    for (number, (run, watched)) in runs.iter_mut().zip(watched).enumerate() {
        let shape = shape::<T>(run, watched).map_err(|error| error.of_call(number))?;
        all.push((shape, Vec::new()));
    }
    all.iter_mut().for_each(|(shape, y)| *y = bytemuck::zeroed_vec(shape.iter().product()));
    for (run, watched) in runs.iter_mut().zip(watched) {
        forward::begin(world, run, watched)?;
    }
    let Some(first) = runs.first_mut() else { return Ok(Vec::new()) };
    let mut buffers = std::mem::take(&mut first.buffers);
    let reads: Vec<Vec<_>> = called
        .iter()
        .map(|called| called.arrays.iter().map(|x| Read::new(x.bytes, x.stride())).collect())
        .collect();
    let mut queue = buffers.queue();
    let mut arrays = Vec::with_capacity(2 * runs.len());
    for (number, (run, (shape, y))) in runs.iter_mut().zip(&mut all).enumerate() {
        let Run { cohorts, chosen, tape, .. } = &mut **run;
        let row_bytes = size_of_val(&y[..]) / shape[0].max(1);
        arrays.push(Write::new(y, row_bytes));
        arrays.push(Write::new(tape.saved.bytes_mut(), tape.stride));
        forward::push(&mut queue, (cohorts, chosen), &reads[number], 2 * number);
    }
    let launched = queue.launch(world, &mut arrays, &mut buffers);
    drop(arrays);
    runs[0].buffers = buffers;
    launched?;
    for (number, (_, y)) in all.iter_mut().enumerate() {
        let y = bytemuck::cast_slice_mut(y);
        let population = populations[number];
        forward::end(world, &mut runs[number], population, &called[number], &watched[number], y)?;
    }
    Ok(all.into_iter().map(|(shape, y)| shaped(IxDyn(&shape), y)).collect())
}

/// Returns the shape of what the models of a population give.
fn shape<T: Element>(run: &Run, watched: &[Ran]) -> Result<Vec<usize>, StepError> {
    forward::check_results(run, watched)?;
    let y = forward::only_result(run, watched)?.ok_or(StepError::Inactive)?;
    result_shape("result", run.models.count, y, T::DTYPE)
}
