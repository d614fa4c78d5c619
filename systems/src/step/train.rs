//! [`train_step`]: forward, loss, backward and update in one pass over each tile of models.

use bevy_ecs::prelude::*;
use ndarray::{Array1, Array2};
use neurarch_components::losses::{DynLoss, Loss};
use neurarch_kernels::cpu::tile::Key;
use neurarch_kernels::dtype::Element;

use super::StepError;
use super::check::{check_array, check_dtype, check_targets, models, shaped};
use crate::access;
use crate::array::{DataSet, Erased, Input, Sizes};
use crate::cohort::{self, Cohort};
use crate::eager::{self, Given, Made, Recorded};
use crate::hooks::Shared;
use crate::launch::{Job, Order, Output, Read, Write, launch};
use crate::lazy;
use crate::plans::{Kind, Request, Results, TypeRef};
use crate::run::{EAGER, LossArrays, Run, with_run};
use crate::shared::{self, Losses, Pass, Sums, run_summed};
use crate::trace::Inputs;

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
/// If the arrays do not fit the population or the loss, or a model has no optimizer.
pub fn train_step<'a, 'b, X: Element, Y: Element>(
    world: &mut World,
    population: Entity,
    x: impl Into<Input<'a, X>>,
    targets: impl Into<Input<'b, Y>>,
    loss: &impl Loss,
) -> Result<Array1<X>, StepError> {
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
    losses: &mut [X],
) -> Result<(), StepError> {
    let (x, targets) = (x.into(), targets.into());
    with_run(world, population, |world, run| {
        let (x, targets) = (x.erase(), targets.erase());
        check_array(world, population, "x", x)?;
        check_array(world, population, "targets", targets)?;
        let part = Part {
            x: x.ty(),
            target: targets.ty(),
            inputs: [Read::new(x.bytes, x.stride()), Read::new(targets.bytes, targets.stride())],
            steps: 1,
        };
        train(world, run, population, &[part], targets, loss, losses)
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
) -> Result<Array2<X>, StepError> {
    with_run(world, population, |world, run| {
        let n_models = models(world, population)?;
        let (x, targets) = (data.inputs.erase(), data.targets.erase());
        check_array(world, population, "inputs", x)?;
        check_array(world, population, "targets", targets)?;
        let sizes = data.sizes(n_models)?;
        let numbers: Vec<u32>;
        let shapes: [Vec<usize>; 4];
        let parts = if x.models.is_some() {
            vec![stacked(x, targets, sizes.steps)]
        } else {
            let [full, last] = [sizes.batch, sizes.items % sizes.batch];
            let of = |array: Erased<'_>, items| [&[items], &array.shape[1..]].concat();
            shapes = [of(x, full), of(targets, full), of(x, last), of(targets, last)];
            let order = match &data.order {
                // A data set keeps it row-major.
                Some(order) => order.as_slice().unwrap_or_default(),
                None => {
                    numbers = (0..sizes.items as u32).collect();
                    &numbers
                }
            };
            let row = if data.order.is_some() { data.epochs * sizes.items } else { 0 };
            let items = x.shape[0];
            let order =
                Order::new(order, items).map_err(|given| StepError::Item { items, given })?;
            let read = |bytes| Read::picked(order, row * size_of::<u32>(), bytes);
            let parts = [&shapes[..2], &shapes[2..]].map(|shapes| Part {
                x: TypeRef { dtype: x.dtype, shape: &shapes[0] },
                target: TypeRef { dtype: targets.dtype, shape: &shapes[1] },
                inputs: [read(x.bytes), read(targets.bytes)],
                steps: 0,
            });
            picked(parts, data.epochs, &sizes)
        };
        let mut losses = bytemuck::zeroed_vec::<X>(n_models * sizes.steps);
        train(world, run, population, &parts, targets, loss, &mut losses)?;
        Ok(shaped((n_models, sizes.steps), losses))
    })
}

/// Some steps on minibatches of one size.
#[derive(Clone, Copy)]
struct Part<'a> {
    x: TypeRef<'a>,
    target: TypeRef<'a>,
    /// Where `x` and the target are read.
    inputs: [Read<'a>; 2],
    steps: usize,
}

/// Cuts `[models, steps, batch, ..]` into steps.
fn stacked<'a>(x: Erased<'a>, targets: Erased<'a>, steps: usize) -> Part<'a> {
    let read = |array: Erased<'a>| {
        let row = array.stride();
        Read::new(array.bytes, row).at(0, row / steps.max(1))
    };
    Part {
        x: TypeRef { dtype: x.dtype, shape: &x.shape[1..] },
        target: TypeRef { dtype: targets.dtype, shape: &targets.shape[1..] },
        inputs: [read(x), read(targets)],
        steps,
    }
}

/// Cuts each epoch into full minibatches and a smaller one.
fn picked<'a>([full, last]: [Part<'a>; 2], epochs: usize, sizes: &Sizes) -> Vec<Part<'a>> {
    let bytes = |items: usize| items * size_of::<u32>();
    let mut parts = Vec::new();
    for epoch in 0..epochs {
        let start = epoch * sizes.items;
        let steps = sizes.items / sizes.batch;
        if steps > 0 {
            let inputs = full.inputs.map(|read| read.at(bytes(start), bytes(sizes.batch)));
            parts.push(Part { inputs, steps, ..full });
        }
        if !sizes.items.is_multiple_of(sizes.batch) {
            let inputs = last.inputs.map(|read| read.at(bytes(start + steps * sizes.batch), 0));
            parts.push(Part { inputs, steps: 1, ..last });
        }
    }
    parts
}

/// Runs the steps of all parts for all cohorts.
fn train<T: Element>(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    parts: &[Part<'_>],
    targets: Erased<'_>,
    loss: &dyn DynLoss,
    losses: &mut [T],
) -> Result<(), StepError> {
    let state = cohort::population(world, population)?;
    let (n_models, dtype) = (state.len(), state.dtype);
    check_dtype("losses", dtype, T::DTYPE)?;
    let steps: usize = parts.iter().map(|part| part.steps).sum();
    if losses.len() != n_models * steps {
        let (expected, given) = (n_models * steps, losses.len());
        return Err(StepError::Models { array: "losses", expected, given });
    }
    run.loss.refresh(loss, dtype);
    run.forget_hooks_that_are_gone(world, population)?;
    loop {
        choose_plans(world, run, population, parts, targets, loss)?;
        let added = add_state_columns(world, run, population)?;
        if !run.add_columns(world, population, |number| number / parts.len().max(1))? && !added {
            break;
        }
    }
    if Sums::of(world, population).is_some() {
        return train_shared(world, run, population, parts, loss, (losses, steps));
    }
    train_eagerly(world, run, parts, loss, (losses, steps))?;
    let mut arrays = [Write::new(losses, steps * size_of::<T>())];
    let Run { cohorts, buffers, chosen, loss: loss_arrays, .. } = run;
    for (cohort, chosen) in cohorts.list.iter_mut().zip(chosen.chunks(parts.len().max(1))) {
        if cohort.is_eager {
            continue;
        }
        let is_random = chosen.iter().any(|&place| cohort.ready[place].planned.is_random);
        if is_random {
            cohort.refresh_keys(world)?;
        }
        let (mut inputs, mut outputs) = buffers.take();
        let mut later_keys = Vec::new();
        let mut first_step = 0;
        for part in parts {
            inputs.extend(part.inputs);
            inputs.extend(loss_arrays.reads());
            let offset = first_step * size_of::<T>();
            outputs.push(Output { array: 0, offset, step_bytes: size_of::<T>() });
            if first_step > 0 && is_random {
                let advanced = |key: &Key| Key { step: key.step + first_step as u64, ..*key };
                later_keys.extend(cohort.keys.get().iter().map(advanced));
            }
            first_step += part.steps;
        }
        let n_inputs = inputs.len() / parts.len().max(1);
        let members = cohort.at.members.len();
        let jobs = (0..parts.len()).map(|index| {
            let ready = &cohort.ready[chosen[index]];
            Job {
                plan: &ready.planned.plan,
                steps: parts[index].steps,
                inputs: &inputs[index * n_inputs..][..n_inputs],
                outputs: &outputs[index..][..1],
                scalars: &ready.scalars,
                written: &ready.planned.written,
                keys: match (is_random, index) {
                    (false, _) => &[],
                    (true, 0) => cohort.keys.get(),
                    (true, _) => &later_keys[(index - 1) * members..][..members],
                },
            }
        });
        let launched = launch(world, &mut cohort.at, jobs, &mut arrays, buffers);
        buffers.put(inputs, outputs);
        launched?;
        if is_random {
            cohort.advance_keys(world, steps);
        }
    }
    Ok(())
}

/// Adds the columns of the optimizers of cohorts that run eagerly; says whether any was missing.
fn add_state_columns(
    world: &mut World,
    run: &mut Run,
    population: Entity,
) -> Result<bool, StepError> {
    let mut added = false;
    for cohort in run.cohorts.list.iter_mut().filter(|cohort| cohort.is_eager) {
        let updates = eager::updates(cohort)?;
        added |= access::add_columns(world, population, cohort.at.group, &updates.slots);
    }
    if added {
        run.refresh(world, population)?;
    }
    Ok(added)
}

/// Trains the cohorts that are watched, step after step: the step that fails, and what follows, are not
/// made.
fn train_eagerly<T: Element>(
    world: &mut World,
    run: &mut Run,
    parts: &[Part<'_>],
    loss: &dyn DynLoss,
    (losses, steps): (&mut [T], usize),
) -> Result<(), StepError> {
    let Run { cohorts, shared, loss: arrays, .. } = run;
    for cohort in cohorts.list.iter_mut().filter(|cohort| cohort.is_eager) {
        let mut made = 0;
        for part in parts {
            for step in 0..part.steps {
                let shared = shared.clone();
                let (of_members, mut recorded) =
                    step_eagerly(world, cohort, shared, (loss, arrays), (part, step))?;
                eager::commit(world, cohort, &mut recorded)?;
                write_losses(cohort, &of_members, (&mut *losses, steps), made);
                made += 1;
            }
        }
    }
    Ok(())
}

/// Makes one step of a cohort that is watched; nothing is written yet.
fn step_eagerly(
    world: &mut World,
    cohort: &mut Cohort,
    shared: Option<Shared>,
    loss: (&dyn DynLoss, &LossArrays),
    (part, step): (&Part<'_>, usize),
) -> Result<(Made, Recorded), StepError> {
    let types = [part.x.to_type(), part.target.to_type()];
    let batch = |input: usize| {
        let row = |index| part.inputs[input].copy(index, step, &types[input]);
        cohort.at.members.indices().map(row).collect::<Vec<_>>()
    };
    let (x, target) = (batch(0), batch(1));
    let x = Given {
        ty: types[0].clone(),
        rows: x.iter().map(Vec::as_slice).collect(),
        needs_gradient: false,
    };
    let target = Given {
        ty: types[1].clone(),
        rows: target.iter().map(Vec::as_slice).collect(),
        needs_gradient: false,
    };
    eager::train_step(world, cohort, shared, loss, &x, &target)
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
    parts: &[Part<'_>],
    loss: &dyn DynLoss,
    (losses, steps): (&mut [T], usize),
) -> Result<(), StepError> {
    let all = parts.iter().enumerate();
    let all = all.flat_map(|(number, part)| (0..part.steps).map(move |step| (number, part, step)));
    for (made, (number, part, step)) in all.enumerate() {
        let Some(mut sums) = Sums::of(world, population) else { break };
        let mut eager = Vec::new();
        let Run { cohorts, shared, loss: arrays, .. } = &mut *run;
        for (place, cohort) in cohorts.list.iter_mut().enumerate().filter(|(_, of)| of.is_eager) {
            let shared = shared.clone();
            let (of_members, recorded) =
                step_eagerly(world, cohort, shared, (loss, arrays), (part, step))?;
            write_losses(cohort, &of_members, (&mut *losses, steps), made);
            eager.push((place, recorded));
        }
        // Nothing is written before all hooks were called.
        let of_eager = eager.iter_mut().map(|(place, recorded)| (*place, recorded.take_shared()));
        let of_eager: Vec<_> = of_eager.collect();
        for (place, recorded) in &mut eager {
            eager::commit(world, &mut cohorts.list[*place], recorded)?;
        }
        for cohort in cohorts.list.iter_mut().filter(|cohort| !cohort.is_eager) {
            cohort.refresh_keys(world)?;
        }
        let Run { cohorts, buffers, chosen, chunks, loss: arrays, .. } = &mut *run;
        chunks.refresh(world, population, cohorts, sums.row_bytes());
        let pass = Pass {
            chosen: &|cohort| chosen[cohort * parts.len() + number],
            inputs: &|_| {
                let at = |read: Read<'_>| read.offset + step * read.step_bytes;
                let own = part.inputs.into_iter().map(|read| read.at(at(read), 0));
                own.chain(arrays.reads()).collect()
            },
            eager: &of_eager,
        };
        let own = Losses {
            bytes: bytemuck::cast_slice_mut(&mut *losses),
            stride: steps * size_of::<T>(),
            offset: made * size_of::<T>(),
        };
        run_summed(world, cohorts, chunks, buffers, &mut sums, &pass, Some(own))?;
        for (cohort, chosen) in cohorts.list.iter_mut().zip(chosen.chunks(parts.len())) {
            let ready = cohort.ready.get(chosen[number]);
            if ready.is_some_and(|ready| ready.planned.is_random) {
                cohort.advance_keys(world, 1);
            }
        }
        shared::update(world, run, population, sums.finish())?;
    }
    Ok(())
}

/// Finds the plans, part after part for each cohort, and checks the targets against them.
fn choose_plans(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    parts: &[Part<'_>],
    targets: Erased<'_>,
    loss: &dyn DynLoss,
) -> Result<(), StepError> {
    let mut checked = None;
    if run.has_lazy()
        && let Some(part) = parts.first()
    {
        let inputs = Inputs { types: vec![part.x.to_type()], structure: None };
        lazy::initialize(world, run, population, &inputs)?;
    }
    run.check_optimizers(world, population)?;
    run.chosen.clear();
    for cohort in &mut run.cohorts.list {
        for part in parts {
            if cohort.is_eager {
                run.chosen.push(EAGER);
                continue;
            }
            let request = Request {
                kind: Kind::TrainStep,
                inputs: &[part.x],
                structure: None,
                target: Some(part.target),
                loss: Some(loss),
            };
            let place = cohort.prepare(world, population, &request)?;
            run.chosen.push(place);
            let results = cohort.ready[place].planned.results.as_ref();
            if let Some(y) = results.and_then(Results::only) {
                let classes = loss.targets(y);
                if checked != Some(classes) {
                    check_targets(classes, targets, targets.shape.iter().product())?;
                    checked = Some(classes);
                }
            }
        }
    }
    Ok(())
}
