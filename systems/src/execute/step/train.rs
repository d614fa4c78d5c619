//! [`train_step`]: forward, loss, backward and update in one pass over each tile of models.

use bevy_ecs::prelude::*;
use ndarray::{Array1, Array2};
use neurarch_components::losses::{DynLoss, Loss};
use neurarch_kernels::ir::dtype::{Dtype, Element};
use neurarch_kernels::ir::tree::Arguments;
use neurarch_kernels::memory::{MemoryError, check_room};

use super::check::{check_array, check_targets, models, shaped};
use super::watched::{self, Minibatch, What};
use super::watched_step::{check_loss, reads_at, step_eagerly};
use crate::compile::array::{AnyInput, DataSet, Erased, Input, TypeRef};
use crate::compile::plans::{Kind, Request};
use crate::compile::results::Results;
use crate::errors::StepError;
use crate::execute::cohort::{Cohort, Cohorts};
use crate::execute::decide::decide;
use crate::execute::eager::Made;
use crate::execute::hooks::Again;
use crate::execute::loss_arrays::LossArrays;
use crate::execute::route::Route;
use crate::execute::run::{Run, with_run};
use crate::execute::shared::{Losses, Pass, Sums, Undo, run_summed};
use crate::execute::step::stretch::{Stretch, epochs, stacked};
use crate::execute::{eager, lazy, shared};
use crate::storage::launch::{Job, Order, Output, Queue, Read, Write};
use crate::structure::columns;

/// Makes one training step: forward, loss, backward and update, bit for bit as the four calls would.
///
/// No gradient leaves the cache: those that parameters have stay as they are.
///
/// # Shape
///
/// `x` and `targets` are `[models, batch, ..]` or shared; the result is `[models]`, each model's loss.
///
/// # Errors
///
/// If the arrays do not fit the population or the loss, or a model has no optimizer. Losses are of the models' type:
/// f32 where models are called with whole numbers; of others, [`train_step_with`] gives the losses.
pub fn train_step<'a, 'b, X: Element, Y: Element>(
    world: &mut World,
    population: Entity,
    x: impl Into<Input<'a, X>>,
    targets: impl Into<Input<'b, Y>>,
    loss: &impl Loss,
) -> Result<Array1<X::Float>, StepError> {
    let n_models = models(world, population)?;
    let mut losses = bytemuck::zeroed_vec(n_models);
    train_step_into(world, population, x, targets, loss, &mut losses)?;
    Ok(losses.into())
}

/// [`train_step`] with an array of losses that is there already: a steady call allocates nothing.
///
/// # Shape
///
/// As [`train_step`]; `losses` is `[models]`.
///
/// # Errors
///
/// As [`train_step`], and if `losses` has another length.
pub fn train_step_into<'a, 'b, X: Element, Y: Element>(
    world: &mut World,
    population: Entity,
    x: impl Into<Input<'a, X>>,
    targets: impl Into<Input<'b, Y>>,
    loss: &impl Loss,
    losses: &mut [X::Float],
) -> Result<(), StepError> {
    let (x, targets) = (x.into(), targets.into());
    with_run(world, population, |world, run| {
        let (x, targets) = (x.erase(), targets.erase());
        check_array(run.models, "x", x)?;
        check_array(run.models, "targets", targets)?;
        let types = [x.ty()];
        let part = Stretch::once(&types, x, targets);
        train(world, run, population, &[part], targets, loss, losses)
    })
}

/// [`train_step`] of models that take several values, or keyword arguments, or give several values: the loss
/// is of whatever they give, see [`Loss::forward_with`].
///
/// # Shape
///
/// Each array, and `targets`, is `[models, ..]`, or shared; the result is `[models]`, each model's loss.
///
/// # Errors
///
/// As [`train_step`].
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_components::losses::{Loss, LossCall};
/// # use neurarch_components::module::{Call, Forward, Module};
/// # use neurarch_components::optimizer::SGD;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_kernels::ir::trace::Var;
/// # use neurarch_kernels::ir::tree::{Arguments, Tree};
/// # use neurarch_systems::compile::array::AnyInput;
/// # use neurarch_systems::optim::insert::insert_with;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::execute::step::train_step_with;
/// /// Maps two values, each by a layer of its own.
/// #[derive(Module, Component, Clone)]
/// struct Pair {
///     left: Linear,
///     right: Linear,
/// }
///
/// impl Forward for Pair {
///     fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
///         let Some([a, b]) = call.values(arguments) else { return call.trace.poison().into() };
///         (self.left(call, a), self.right(call, b)).into()
///     }
/// }
///
/// /// How far the two results are from each other, and the first from its target.
/// #[derive(Clone, Debug, PartialEq)]
/// struct Agreement;
///
/// impl Loss for Agreement {
///     fn forward_with(&self, call: &LossCall<'_>, result: Tree, target: &Var) -> Var {
///         let [a, b] = result.leaves()[..] else { return call.trace.fail("expected two values") };
///         (a - b).square().mean(&[], false) + (a - target).square().mean(&[], false)
///     }
/// }
///
/// let mut world = World::new();
/// let pair = Pair { left: Linear::new(3, 2), right: Linear::new(4, 2) };
/// let pairs = spawn_population(&mut world, &pair, 10, 10, 0, Dtype::F32)?;
/// insert_with(&mut world, pairs, |_| SGD { lr: 0.1, ..SGD::default() })?;
/// let (a, b) = (ndarray::Array3::<f32>::ones((10, 5, 3)), ndarray::Array3::<f32>::ones((10, 5, 4)));
/// let target = ndarray::Array3::<f32>::ones((10, 5, 2));
/// let mut step = || {
///     let arguments = Arguments::each([AnyInput::from(&a), AnyInput::from(&b)]);
///     train_step_with::<f32, f32>(&mut world, pairs, arguments, &target, &Agreement)
/// };
/// let (first, second) = (step()?, step()?);
/// assert!(second.iter().zip(&first).all(|(second, first)| second < first));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn train_step_with<'a, L: Element, Y: Element>(
    world: &mut World,
    population: Entity,
    arguments: Arguments<AnyInput<'_>>,
    targets: impl Into<Input<'a, Y>>,
    loss: &impl Loss,
) -> Result<Array1<L>, StepError> {
    let targets = targets.into();
    let (inputs, structure) = AnyInput::numbered(arguments);
    let arrays: Vec<_> = inputs.iter().map(AnyInput::erase).collect();
    with_run(world, population, |world, run| {
        let targets = targets.erase();
        for x in &arrays {
            check_array(run.models, "x", *x)?;
        }
        check_array(run.models, "targets", targets)?;
        let types: Vec<_> = arrays.iter().map(Erased::ty).collect();
        let reads: Vec<_> = arrays.iter().map(|x| Read::new(x.bytes, x.stride())).collect();
        let part = Stretch {
            types: &types,
            structure: Some(&structure),
            target: targets.ty(),
            first: None,
            more: &reads,
            targets: Read::new(targets.bytes, targets.stride()),
            steps: 1,
        };
        let mut losses = bytemuck::zeroed_vec::<L>(run.models.count);
        train(world, run, population, &[part], targets, loss, &mut losses)?;
        Ok(losses.into())
    })
}

/// Makes a training step on each minibatch of a data set, all steps of a tile of models before the next
/// tile, so that weights stay in the cache from step to step.
///
/// # Shape
///
/// The result is `[models, steps]`.
///
/// # Errors
///
/// As [`train_step`], and if item numbers or sizes of minibatches do not fit the data.
pub fn train_steps<X: Element, Y: Element>(
    world: &mut World,
    population: Entity,
    data: &DataSet<'_, X, Y>,
    loss: &impl Loss,
) -> Result<Array2<X::Float>, StepError> {
    train_steps_with(world, population, data, loss)
}

/// [`train_steps`] of models whose type does not follow from that of their inputs: of those of double precision that
/// are called with whole numbers. `L` is the type of the losses.
///
/// # Errors
///
/// As [`train_steps`], and if the models are not of type `L`.
pub fn train_steps_with<L: Element, X: Element, Y: Element>(
    world: &mut World,
    population: Entity,
    data: &DataSet<'_, X, Y>,
    loss: &impl Loss,
) -> Result<Array2<L>, StepError> {
    with_run(world, population, |world, run| {
        let n_models = run.models.count;
        let (x, targets) = (data.inputs.erase(), data.targets.erase());
        check_array(run.models, "inputs", x)?;
        check_array(run.models, "targets", targets)?;
        let sizes = data.sizes(n_models)?;
        let no_room = |error: MemoryError| StepError::DataSet(error.to_string());
        let bytes = n_models.saturating_mul(sizes.steps).saturating_mul(size_of::<L>());
        check_room(bytes.saturating_add(sizes.items.saturating_mul(size_of::<u32>())))
            .map_err(no_room)?;
        let shapes: [Vec<usize>; 4];
        let types: [TypeRef<'_>; 2];
        let parts = if x.models.is_some() {
            let one = TypeRef { dtype: x.dtype, shape: &x.shape[1..] };
            types = [one; 2];
            vec![stacked(&types[..1], x, targets, sizes.steps)]
        } else {
            let [full, last] = [sizes.batch, sizes.items % sizes.batch];
            let of = |array: Erased<'_>, items| [&[items], &array.shape[1..]].concat();
            shapes = [of(x, full), of(targets, full), of(x, last), of(targets, last)];
            let items = x.shape[0];
            let (reads, places) = match &data.order {
                Some(order) => {
                    // A data set keeps it row-major.
                    let order = order.as_slice().unwrap_or_default();
                    let order = Order::new(order, items)
                        .map_err(|given| StepError::Item { items, given })?;
                    let row = data.epochs * sizes.items * size_of::<u32>();
                    let reads =
                        [x.bytes, targets.bytes].map(|bytes| Read::picked(order, row, bytes));
                    (reads, ([size_of::<u32>(); 2], sizes.items))
                }
                // Minibatches lie one behind the other: they are read where they are.
                None => {
                    let item_bytes = [x, targets].map(|array| array.bytes.len() / items.max(1));
                    ([x, targets].map(|array| Read::new(array.bytes, 0)), (item_bytes, 0))
                }
            };
            types = [0, 2].map(|at| TypeRef { dtype: x.dtype, shape: &shapes[at] });
            let parts = [0, 1].map(|size| Stretch {
                types: &types[size..=size],
                structure: None,
                target: TypeRef { dtype: targets.dtype, shape: &shapes[2 * size + 1] },
                first: Some(reads[0]),
                more: &[],
                targets: reads[1],
                steps: 0,
            });
            epochs(parts, data.epochs, &sizes, places)
        };
        let mut losses = bytemuck::zeroed_vec::<L>(n_models * sizes.steps);
        train(world, run, population, &parts, targets, loss, &mut losses)?;
        Ok(shaped((n_models, sizes.steps), losses))
    })
}

/// Runs the steps of all parts for all cohorts.
fn train<T: Element>(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    parts: &[Stretch<'_>],
    targets: Erased<'_>,
    loss: &dyn DynLoss,
    losses: &mut [T],
) -> Result<(), StepError> {
    let steps: usize = parts.iter().map(|part| part.steps).sum();
    let expected = run.models.count * steps;
    if losses.len() != expected {
        return Err(StepError::Models { array: "losses", expected, given: losses.len() });
    }
    prepare(world, run, population, parts, targets, loss, T::DTYPE)?;
    if train_by_turns(world, run, population, parts, loss, (losses, steps))? {
        return Ok(());
    }
    let losses = Write::new(losses, steps * size_of::<T>());
    run_plans(world, run, parts, (losses, size_of::<T>()))
}

/// Finds the plans of a step whose losses are of type `dtype`, and adds the columns that they need.
pub(super) fn prepare(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    parts: &[Stretch<'_>],
    targets: Erased<'_>,
    loss: &dyn DynLoss,
    dtype: Dtype,
) -> Result<(), StepError> {
    let own = run.models.dtype;
    check_loss("losses", own, dtype)?;
    run.loss.refresh(loss, own);
    run.begin_pass(world, population)?;
    loop {
        choose_plans(world, run, population, parts, targets, loss)?;
        // Columns that come regroup the models: plans are chosen anew before anything else.
        let of = |number: usize| number / parts.len().max(1);
        if !add_state_columns(world, run, population)? && !run.add_columns(world, population, of)? {
            return Ok(());
        }
    }
}

/// Trains those that cannot be trained tile by tile: models that share something, and those that are watched. Says
/// whether nobody is left.
pub(super) fn train_by_turns<T: Element>(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    parts: &[Stretch<'_>],
    loss: &dyn DynLoss,
    losses: (&mut [T], usize),
) -> Result<bool, StepError> {
    if Sums::of(world, population).is_some() {
        train_shared(world, run, population, parts, loss, losses)?;
        return Ok(true);
    }
    train_watched(world, run, parts, loss, losses)?;
    Ok(false)
}

/// Runs the plans of those that are not watched, all parts on a tile of models before the next tile.
fn run_plans(
    world: &mut World,
    run: &mut Run,
    parts: &[Stretch<'_>],
    (losses, step_bytes): (Write<'_>, usize),
) -> Result<(), StepError> {
    refresh_keys(world, run, parts)?;
    let Run { cohorts, buffers, chosen, loss, .. } = &mut *run;
    let (mut inputs, mut outputs) = buffers.take();
    list_arrays(parts, loss, step_bytes, (&mut inputs, &mut outputs));
    let mut queue = buffers.queue();
    push(&mut queue, (cohorts, chosen), parts, (&inputs, &outputs), 0);
    let launched = queue.launch(world, &mut [losses], buffers);
    buffers.put(inputs, outputs);
    launched?;
    advance_keys(world, run, parts);
    Ok(())
}

/// Reads the random states of those that draw numbers.
pub(super) fn refresh_keys(
    world: &mut World,
    run: &mut Run,
    parts: &[Stretch<'_>],
) -> Result<(), StepError> {
    let Run { cohorts, chosen, .. } = run;
    for (cohort, chosen) in cohorts.list.iter_mut().zip(chosen.chunks(parts.len().max(1))) {
        if cohort.draws(chosen) {
            cohort.refresh_keys(world)?;
        }
    }
    Ok(())
}

/// Counts what was drawn.
pub(super) fn advance_keys(world: &mut World, run: &mut Run, parts: &[Stretch<'_>]) {
    let steps = parts.iter().map(|part| part.steps).sum();
    let Run { cohorts, chosen, .. } = run;
    for (cohort, chosen) in cohorts.list.iter_mut().zip(chosen.chunks(parts.len().max(1))) {
        if cohort.draws(chosen) {
            cohort.advance_keys(world, steps);
        }
    }
}

/// Lists the arrays that plans read, part after part, and where their losses go.
pub(super) fn list_arrays<'a>(
    parts: &[Stretch<'a>],
    loss: &'a LossArrays,
    step_bytes: usize,
    (inputs, outputs): (&mut Vec<Read<'a>>, &mut Vec<Output>),
) {
    let mut steps = 0;
    for part in parts {
        inputs.extend(part.reads());
        inputs.extend(loss.reads());
        outputs.push(Output { array: 0, offset: steps * step_bytes, step_bytes });
        steps += part.steps;
    }
}

/// Puts the plans of those that are not watched into a queue; their losses go to array `first_array`.
pub(super) fn push<'a>(
    queue: &mut Queue<'a>,
    (cohorts, chosen): (&'a mut Cohorts, &[Route]),
    parts: &[Stretch<'_>],
    (inputs, outputs): (&'a [Read<'a>], &'a [Output]),
    first_array: usize,
) {
    for (cohort, chosen) in cohorts.list.iter_mut().zip(chosen.chunks(parts.len().max(1))) {
        push_one(queue, cohort, chosen, parts, (inputs, outputs), first_array);
    }
}

/// [`push`] of one cohort.
pub(super) fn push_one<'a>(
    queue: &mut Queue<'a>,
    cohort: &'a mut Cohort,
    chosen: &[Route],
    parts: &[Stretch<'_>],
    (inputs, outputs): (&'a [Read<'a>], &'a [Output]),
    first_array: usize,
) {
    let n_inputs = inputs.len() / parts.len().max(1);
    let Cohort { at, ready, keys, is_watched: false, .. } = cohort else { return };
    let (ready, keys) = (&*ready, &*keys);
    let mut first_step = 0;
    let jobs = parts.iter().zip(chosen).enumerate().filter_map(|(number, (part, route))| {
        first_step += part.steps;
        let ready = route.planned(ready)?;
        Some(Job {
            steps: part.steps,
            first_step: first_step - part.steps,
            outputs: &outputs[number..=number],
            first_array,
            keys: ready.keys(keys),
            ..ready.job(&inputs[number * n_inputs..][..n_inputs])
        })
    });
    queue.push(at, jobs);
}

/// Adds the columns of the optimizers of cohorts that run eagerly, or will if a hook changes something; says whether
/// any was missing.
fn add_state_columns(
    world: &mut World,
    run: &mut Run,
    population: Entity,
) -> Result<bool, StepError> {
    let mut added = false;
    for cohort in run.cohorts.list.iter_mut().filter(|cohort| cohort.is_watched) {
        let updates = eager::updates(cohort)?;
        added |= columns::add_columns(world, population, cohort.at.group, &updates.slots);
    }
    if added {
        run.refresh(world, population)?;
    }
    Ok(added)
}

/// Trains the cohorts that are watched, step after step: the step that fails, and what follows, are not
/// made.
fn train_watched<T: Element>(
    world: &mut World,
    run: &mut Run,
    parts: &[Stretch<'_>],
    loss: &dyn DynLoss,
    (losses, steps): (&mut [T], usize),
) -> Result<(), StepError> {
    if !run.cohorts.list.iter().any(|cohort| cohort.is_watched) {
        return Ok(());
    }
    let all = parts.iter().enumerate();
    let all = all.flat_map(|(number, part)| (0..part.steps).map(move |step| (number, part, step)));
    for (made, (number, part, step)) in all.enumerate() {
        let what = What::Step(Minibatch { part, number, n_parts: parts.len(), step, loss });
        let watched = watched::make(world, run, &what)?;
        for ran in &watched {
            let cohort = &run.cohorts.list[ran.place];
            write_losses(cohort, &ran.made, (&mut *losses, steps), made);
        }
        watched::keep_steps(world, run, watched)?;
    }
    Ok(())
}

/// Puts the losses of a cohort's members where those of a step go.
fn write_losses<T: Element>(
    cohort: &Cohort,
    of_members: &Made,
    (losses, steps): (&mut [T], usize),
    made: usize,
) {
    let numbers: Vec<T> = bytemuck::pod_collect_to_vec(&of_members.bytes);
    for (index, number) in cohort.at.members.indices().zip(numbers) {
        losses[index * steps + made] = number;
    }
}

/// Trains models that share parameters: one step of all models, then one update of what they share, and so on.
fn train_shared<T: Element>(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    parts: &[Stretch<'_>],
    loss: &dyn DynLoss,
    (losses, steps): (&mut [T], usize),
) -> Result<(), StepError> {
    let all = parts.iter().enumerate();
    let all = all.flat_map(|(number, part)| (0..part.steps).map(move |step| (number, part, step)));
    for (made, (number, part, step)) in all.enumerate() {
        let Some(mut sums) = Sums::of(world, population) else { break };
        let mut eager = Vec::new();
        let Run { cohorts, shared, loss: arrays, .. } = &mut *run;
        for (place, cohort) in cohorts.list.iter_mut().enumerate().filter(|(_, of)| of.is_watched) {
            let hooks = (shared.clone(), Again::default());
            let (of_members, recorded) =
                step_eagerly(world, cohort, hooks, (loss, arrays), (part, step))?;
            write_losses(cohort, &of_members, (&mut *losses, steps), made);
            eager.push((place, recorded));
        }
        // Nothing is written before all hooks were called.
        let of_eager = eager.iter_mut().map(|(place, recorded)| (*place, recorded.take_shared()));
        let of_eager: Vec<_> = of_eager.collect();
        for cohort in cohorts.list.iter_mut().filter(|cohort| !cohort.is_watched) {
            cohort.refresh_keys(world)?;
        }
        let of_part = |run: &Run, cohort: usize| run.chosen[cohort * parts.len() + number];
        let undo = Undo::of(world, run, population, of_part)?;
        let Run { cohorts, buffers, chosen, chunks, loss: arrays, .. } = &mut *run;
        chunks.refresh(world, population, cohorts, sums.row_bytes());
        let pass = Pass {
            chosen: &|cohort| chosen[cohort * parts.len() + number],
            inputs: &|_| reads_at(part, step).chain(arrays.reads()).collect(),
            eager: &of_eager,
        };
        let own = Losses {
            bytes: bytemuck::cast_slice_mut(&mut *losses),
            stride: steps * size_of::<T>(),
            offset: made * size_of::<T>(),
        };
        run_summed(world, cohorts, chunks, buffers, &mut sums, &pass, Some(own))?;
        for (cohort, chosen) in cohorts.list.iter_mut().zip(chosen.chunks(parts.len())) {
            let ready = chosen[number].planned(&cohort.ready);
            if ready.is_some_and(|ready| ready.planned.is_random) {
                cohort.advance_keys(world, 1);
            }
        }
        if let Err(failure) = shared::update(world, run, population, sums.finish()) {
            undo.map_or(Ok(()), |undo| undo.restore(world, run))?;
            return Err(failure);
        }
        for (place, mut recorded) in eager {
            let cohort = &mut run.cohorts.list[place];
            eager::commit(world, cohort, &mut recorded)?;
            recorded.leave_memory(cohort);
        }
    }
    Ok(())
}

/// Finds the plans, part after part for each cohort, and checks the targets against them.
fn choose_plans(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    parts: &[Stretch<'_>],
    targets: Erased<'_>,
    loss: &dyn DynLoss,
) -> Result<(), StepError> {
    let mut checked = None;
    if run.has_lazy()
        && let Some(part) = parts.first()
    {
        lazy::initialize(world, run, population, &part.inputs())?;
    }
    run.begin_step(world, population)?;
    run.chosen.clear();
    let needs_record = Sums::of(world, population).is_some();
    for cohort in &mut run.cohorts.list {
        for part in parts {
            let request = Request {
                kind: Kind::TrainStep,
                inputs: part.types,
                structure: part.structure,
                given: &[],
                target: Some(part.target),
                loss: Some(loss),
                watched: &[],
            };
            let route = decide(world, cohort, run.shared.as_ref(), request, needs_record)?;
            run.chosen.push(route);
            let Some(ready) = route.ready(&cohort.ready) else { continue };
            check_loss("loss", run.models.dtype, ready.planned.outputs[0].dtype)?;
            let results = ready.planned.results.as_ref();
            if let Some(y) = results.and_then(Results::only) {
                let classes = loss.targets(y);
                if checked != Some(classes) {
                    check_targets(classes, targets, targets.shape.iter().product())?;
                    checked = Some(classes);
                }
            }
        }
    }
    run.part_eager(parts.len());
    Ok(())
}
