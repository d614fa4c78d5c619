//! [`forward`]: runs models, and keeps what `backward` will need.

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, ArrayViewMut, Dimension, IxDyn};
use neurarch_kernels::dtype::Element;
use neurarch_kernels::shape::Type;

use super::StepError;
use super::check::{check_array, check_result, models, shaped};
use crate::array::{Erased, Input};
use crate::cohort::Cohort;
use crate::eager::{self, Given, Made};
use crate::launch::{Job, Read, Write, launch};
use crate::lazy;
use crate::plans::{Kind, Request};
use crate::run::{EAGER, Run, with_run};

/// Runs the models on `x`.
///
/// Where a model has a module in training mode and a parameter with `requires_grad`, what
/// [`backward`](super::backward()) will need is kept until the next forward pass; in evaluation mode
/// nothing is.
///
/// # Shape
///
/// `x` is `[models, ..]`, or [shared](Input::shared) without that axis; the result is `[models, ..]`.
///
/// # Errors
///
/// If `x` does not fit the population or its modules.
///
/// Source: `torch.vmap` of `torch.func.functional_call` over a stacked population.
pub fn forward<'a, T: Element>(
    world: &mut World,
    population: Entity,
    x: impl Into<Input<'a, T>>,
) -> Result<ArrayD<T>, StepError> {
    let x = x.into();
    with_run(world, population, |world, run| {
        let eager = prepare(world, run, population, &x)?;
        let y = result_type(run, &eager).ok_or(StepError::Inactive)?;
        let n_models = models(world, population)?;
        let shape: Vec<_> = [n_models].iter().chain(y.shape.iter()).copied().collect();
        check_result("result", n_models, y, &shape, T::DTYPE)?;
        let mut y = bytemuck::zeroed_vec::<T>(shape.iter().product());
        run_plans(world, run, population, x.erase(), eager, &mut y)?;
        Ok(shaped(IxDyn(&shape), y))
    })
}

/// [`forward`] into an array that is there already: a steady call allocates nothing.
///
/// # Shape
///
/// `x` is `[models, ..]` or shared; `y` is `[models, ..]`.
///
/// # Errors
///
/// As [`forward`], and if `y` has another shape than the result.
pub fn forward_into<'a, T: Element, D: Dimension>(
    world: &mut World,
    population: Entity,
    x: impl Into<Input<'a, T>>,
    mut y: ArrayViewMut<'_, T, D>,
) -> Result<(), StepError> {
    let x = x.into();
    with_run(world, population, |world, run| {
        let eager = prepare(world, run, population, &x)?;
        let Some(expected) = result_type(run, &eager) else { return Ok(()) };
        let n_models = models(world, population)?;
        check_result("y", n_models, expected, y.shape(), T::DTYPE)?;
        if let Some(y) = y.as_slice_mut() {
            return run_plans(world, run, population, x.erase(), eager, y);
        }
        let mut dense: Vec<T> = y.iter().copied().collect();
        run_plans(world, run, population, x.erase(), eager, &mut dense)?;
        y.iter_mut().zip(dense).for_each(|(y, number)| *y = number);
        Ok(())
    })
}

/// Gives the type of the result for one model; `None` if no model is active.
fn result_type<'a>(run: &'a Run, eager: &'a [(usize, Made)]) -> Option<&'a Type> {
    run.first_output().or_else(|| eager.first().map(|(_, made)| &made.ty))
}

/// Runs the cohorts that are watched, each named by its place, and finds the plans of the others.
fn prepare<T: Element>(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    x: &Input<'_, T>,
) -> Result<Vec<(usize, Made)>, StepError> {
    let needs_gradient = x.needs_gradient();
    if needs_gradient && !T::DTYPE.is_float() {
        return Err(StepError::NotFloat);
    }
    if needs_gradient {
        run.cohorts.list.iter_mut().for_each(|cohort| cohort.is_eager = true);
    }
    let x = x.erase();
    choose_plans(world, run, population, x)?;
    run.tape.forget();
    run.recorded.clear();
    let mut all = Vec::new();
    for (place, cohort) in run.cohorts.list.iter_mut().enumerate() {
        if !cohort.is_eager {
            continue;
        }
        let given = given(x, cohort);
        let (made, recorded) =
            eager::forward(world, cohort, run.shared.clone(), &given, needs_gradient)?;
        run.recorded.resize_with(place + 1, || None);
        run.recorded[place] = Some(recorded);
        all.push((place, made));
    }
    if let Some(first) = result_type(run, &all)
        && let Some((_, other)) = all.iter().find(|(_, made)| made.ty != *first)
    {
        let (expected, given) = (first.shape.clone(), other.ty.shape.clone());
        return Err(StepError::Shape { array: "result", expected, given });
    }
    Ok(all)
}

/// Gives the rows of an array for the members of a cohort.
pub(super) fn given<'a>(array: Erased<'a>, cohort: &Cohort) -> Given<'a> {
    let ty = array.ty().to_type();
    let (stride, row) = (array.stride(), ty.size_bytes());
    let rows = cohort.at.members.indices().map(|index| &array.bytes[index * stride..][..row]);
    Given { rows: rows.collect(), ty }
}

/// Finds the plan of each cohort.
fn choose_plans(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    x: Erased<'_>,
) -> Result<(), StepError> {
    check_array(world, population, "x", x)?;
    if run.has_lazy() {
        lazy::initialize(world, run, population, &x.ty().to_type())?;
    }
    run.chosen.clear();
    for cohort in &mut run.cohorts.list {
        let kind = if cohort.keeps_tape { Kind::Tape } else { Kind::Forward };
        let request = Request { kind, x: Some(x.ty()), target: None, loss: None };
        run.chosen.push(match cohort.is_eager {
            true => EAGER,
            false => cohort.prepare(world, population, &request)?,
        });
    }
    run.check_first_outputs()
}

/// Runs the plans and remembers the pass.
fn run_plans<T: Element>(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    x: Erased<'_>,
    eager: Vec<(usize, Made)>,
    y: &mut [T],
) -> Result<(), StepError> {
    let n_models = models(world, population)?;
    let row_bytes = size_of_val(y) / n_models.max(1);
    let is_known = result_type(run, &eager) == run.tape.y.as_ref();
    if !is_known {
        run.tape.y = result_type(run, &eager).cloned();
    }
    let Run { cohorts, buffers, tape, chosen, recorded, .. } = run;
    let planned = |(cohort, &chosen): (&Cohort, &usize)| {
        cohort.ready.get(chosen).map_or(0, |ready| ready.planned.tape_bytes)
    };
    tape.stride = cohorts.list.iter().zip(&*chosen).map(planned).max().unwrap_or(0);
    tape.saved.reserve(tape.stride * n_models);
    let read = Read::new(x.bytes, x.stride());
    let mut arrays = [Write::new(y, row_bytes), Write::new(tape.saved.bytes_mut(), tape.stride)];
    for (cohort, &chosen) in cohorts.list.iter_mut().zip(&*chosen) {
        let Some(ready) = cohort.ready.get(chosen) else { continue };
        let planned = ready.planned.clone();
        if planned.is_random {
            cohort.refresh_keys(world)?;
        }
        let job = Job {
            plan: &planned.plan,
            steps: 1,
            inputs: &[read],
            outputs: &planned.places,
            scalars: &cohort.ready[chosen].scalars,
            keys: if planned.is_random { cohort.keys.get() } else { &[] },
            written: &planned.written,
        };
        launch(world, &mut cohort.at, std::iter::once(job), &mut arrays, buffers)?;
        if planned.is_random {
            cohort.advance_keys(world, 1);
        }
    }
    let y: &mut [u8] = bytemuck::cast_slice_mut(y);
    for (place, made) in eager {
        let rows = made.bytes.chunks_exact(row_bytes.max(1));
        let cohort = &mut cohorts.list[place];
        for (index, row) in cohort.at.members.indices().zip(rows) {
            y[index * row_bytes..][..row_bytes].copy_from_slice(row);
        }
        if let Some(Some(recorded)) = recorded.get_mut(place) {
            eager::commit(world, cohort, recorded)?;
        }
    }
    tape.remember(x, y, cohorts);
    Ok(())
}
