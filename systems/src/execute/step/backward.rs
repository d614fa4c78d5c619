//! Going back from what models gave: [`loss`], [`backward`].

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, IxDyn};
use neurarch_components::losses::{DynLoss, Loss};
use neurarch_kernels::gradients;
use neurarch_kernels::ir::dtype::Element;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::ir::shape::Type;

use super::check::{check_array, check_dtype, check_result, check_targets, result_shape, shaped};
use super::gradients::write_gradient_bits;
use super::watched::{self, What};
use super::{eager_loss, modified};
use crate::compile::array::{AnyInput, Erased, Input, TypeRef};
use crate::compile::plans::{Kind, Request};
use crate::compile::results::Results;
use crate::errors::StepError;
use crate::execute::cohort::{Cohort, Cohorts};
use crate::execute::record::Record;
use crate::execute::route::Route;
use crate::execute::run::{Run, with_run};
use crate::execute::shared::{EagerGradients, Pass, Sums, Undo, run_summed};
use crate::execute::tape::{Start, Tape};
use crate::execute::{eager, run, shared};
use crate::storage::launch::{Read, Write};
use crate::structure::columns;

/// Computes the loss of the last forward pass against `targets`, and what [`backward`] starts from.
///
/// # Shape
///
/// `targets` is `[models, ..]` or shared, as the loss wants it; the result is `[models]`, or
/// `[models, ..]` if the loss does not reduce.
///
/// # Errors
///
/// If there was no forward pass, a model was spawned or edited since, or the targets do not fit its result.
pub fn loss<'a, T: Element, Y: Element>(
    world: &mut World,
    population: Entity,
    targets: impl Into<Input<'a, Y>>,
    loss: &impl Loss,
) -> Result<ArrayD<T>, StepError> {
    loss_with(world, population, &targets.into().into(), loss)
}

/// [`loss`] of targets and a loss whose types are known at run time only.
///
/// # Shape
///
/// As [`loss`].
///
/// # Errors
///
/// As [`loss`].
pub fn loss_with<T: Element>(
    world: &mut World,
    population: Entity,
    targets: &AnyInput<'_>,
    loss: &dyn DynLoss,
) -> Result<ArrayD<T>, StepError> {
    with_run(world, population, |world, run| {
        let targets = targets.erase();
        run.follow(world, population)?;
        check_array(run.models, "targets", targets)?;
        let n_models = run.models.count;
        let Run { cohorts, buffers, tape, chosen, loss: arrays, .. } = &mut *run;
        let results = tape.results.as_ref().ok_or(StepError::NoForward("loss"))?;
        let given = results.types.len();
        let y = results.only().ok_or(StepError::Results { expected: 1, given })?;
        choose_losses(world, cohorts, chosen, y, (loss, targets.ty()))?;
        check_targets(loss.targets(y), targets, targets.shape.iter().product())?;
        arrays.refresh(loss, y.dtype);
        if chosen.contains(&Route::Alone) {
            let y = y.clone();
            return eager_loss::loss(run, (loss, &y), targets);
        }

        let (y_bytes, y_dtype) = (y.size_bytes(), y.dtype);
        let first = cohorts.list.first().zip(chosen.first());
        let outputs = first.and_then(|(cohort, route)| route.ready(&cohort.ready));
        let outputs = outputs.map(|ready| &ready.planned.outputs);
        let outputs = outputs.ok_or(StepError::Inactive)?;
        let (ty, has_gradient) = (outputs[0].clone(), outputs.len() > 1);
        check_dtype("result", y_dtype, T::DTYPE)?;
        let shape = result_shape("result", n_models, &ty, T::DTYPE)?;
        let mut losses = bytemuck::zeroed_vec::<T>(shape.iter().product());
        tape.gradient.reserve(y_bytes * n_models);
        let gradient = &mut tape.gradient.bytes_mut()[..y_bytes * n_models];
        let concerned: usize = cohorts.list.iter().map(|cohort| cohort.at.members.len()).sum();
        if !has_gradient || concerned < n_models {
            gradient.fill(0);
        }
        let mut outputs = [Write::new(&mut losses, ty.size_bytes()), Write::new(gradient, y_bytes)];
        let mut inputs = vec![
            Read::new(&tape.outputs.bytes()[..y_bytes * n_models], y_bytes),
            Read::new(targets.bytes, targets.stride()),
        ];
        inputs.extend(arrays.reads());
        let mut queue = buffers.queue();
        for (Cohort { at, ready, .. }, route) in cohorts.list.iter_mut().zip(&*chosen) {
            queue.push(at, route.planned(ready).map(|ready| ready.job(&inputs)));
        }
        queue.launch(world, &mut outputs, buffers)?;
        tape.given.clear();
        tape.start = match ty.shape.rank() {
            0 => Start::Loss,
            _ => Start::LossArray,
        };
        Ok(shaped(IxDyn(&shape), losses))
    })
}

/// Finds the plans of a loss of results of type `y`, one a cohort.
pub(super) fn choose_losses(
    world: &mut World,
    cohorts: &mut Cohorts,
    chosen: &mut Vec<Route>,
    y: &Type,
    (loss, target): (&dyn DynLoss, TypeRef<'_>),
) -> Result<(), StepError> {
    let request = Request {
        kind: Kind::Loss,
        inputs: &[y.into()],
        structure: None,
        given: &[],
        target: Some(target),
        loss: Some(loss),
        watched: &[],
    };
    chosen.clear();
    for cohort in &mut cohorts.list {
        chosen.push(match cohort.prepare(world, cohort.at.population, &request) {
            Err(error) if error.needs_values() => Route::Alone,
            planned => Route::Planned(planned?),
        });
    }
    Ok(())
}

/// Returns whether [`backward`] has something to start from.
pub fn has_loss(world: &World, population: Entity) -> bool {
    run::has_loss(world, population)
}

/// Adds the gradients of the last [`loss`] to those of the parameters.
///
/// What the forward pass kept is gone after it.
///
/// # Errors
///
/// If there was no forward pass that kept gradients or no loss after it, if the loss is not one number for each model,
/// or if since the forward pass a model was spawned or edited, a mode that a module asks for changed, or somebody wrote to a parameter that is
/// read once more. Models that were despawned are left out.
///
/// Source: `torch.Tensor.backward`.
pub fn backward(world: &mut World, population: Entity) -> Result<(), StepError> {
    backward_by(world, population, None)
}

/// [`backward`] of the last [`loss`] times `scale`, the same for all models: for a batch in parts, whose gradients add up
/// until [`zero_grad`](super::zero_grad).
///
/// # Errors
///
/// As [`backward`].
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_components::losses::MSELoss;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::execute::step::{backward_scaled, forward, loss};
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let brains = spawn_population(&mut world, &Linear::new(3, 2), 10, 10, 0, Dtype::F32)?;
/// let (x, y) = (ndarray::Array3::<f32>::ones((10, 8, 3)), ndarray::Array3::<f32>::ones((10, 8, 2)));
/// for part in [0..4, 4..8] {
///     let at = ndarray::s![.., part, ..];
///     forward(&mut world, brains, x.slice(&at))?;
///     loss::<f32, _>(&mut world, brains, y.slice(&at), &MSELoss::default())?;
///     backward_scaled(&mut world, brains, 0.5)?; // as of the mean over all 8 items
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `(loss * scale).backward()`.
pub fn backward_scaled(world: &mut World, population: Entity, scale: f64) -> Result<(), StepError> {
    backward_by(world, population, Some(scale))
}

fn backward_by(world: &mut World, population: Entity, scale: Option<f64>) -> Result<(), StepError> {
    with_run(world, population, |world, run| match run.tape.start {
        Start::Nothing if run.tape.results.is_none() => Err(StepError::NoForward("backward")),
        Start::Nothing => Err(StepError::NoLoss),
        Start::LossArray => Err(StepError::NotScalar),
        Start::Loss => run_backward(world, run, population, None, scale),
    })
}

/// [`backward`] from given gradients of the last forward pass's results, in place of a loss.
///
/// # Shape
///
/// `gradient` is as the result of [`forward`](super::forward()), or shared.
///
/// # Errors
///
/// As [`backward`], and if `gradient` has another shape.
///
/// Source: `torch.Tensor.backward(gradient)`.
pub fn backward_from<'a, T: Element>(
    world: &mut World,
    population: Entity,
    gradient: impl Into<Input<'a, T>>,
) -> Result<(), StepError> {
    let gradient = gradient.into();
    with_run(world, population, |world, run| {
        run_backward(world, run, population, Some(&[Some(gradient.erase())]), None)
    })
}

/// [`backward_from`] for models that give several values: a gradient for each floating one in order, `None`
/// where there is none. Parameters that only such values depend on get no gradient; hooks see `None`, too.
///
/// # Errors
///
/// As [`backward_from`], and if there are more or fewer gradients than floating values.
///
/// Source: `torch.autograd.backward`.
pub fn backward_with(
    world: &mut World,
    population: Entity,
    gradients: &[Option<AnyInput<'_>>],
) -> Result<(), StepError> {
    with_run(world, population, |world, run| {
        let gradients: Vec<_> =
            gradients.iter().map(|gradient| gradient.as_ref().map(AnyInput::erase)).collect();
        run_backward(world, run, population, Some(&gradients), None)
    })
}

/// Checks given gradients of the results.
fn check_gradients(
    Run { tape, models, .. }: &Run,
    gradients: &[Option<Erased<'_>>],
) -> Result<(), StepError> {
    let results = tape.results.as_ref().ok_or(StepError::NoForward("backward"))?;
    let expected = results.floats().count();
    if gradients.len() != expected {
        return Err(StepError::Results { expected, given: gradients.len() });
    }
    for (gradient, (y, _)) in gradients.iter().zip(results.floats()) {
        let Some(gradient) = gradient else { continue };
        check_array(*models, "gradient", *gradient)?;
        let given: Vec<_> = [models.count].iter().chain(gradient.shape).copied().collect();
        check_result("gradient", models.count, y, &given, gradient.dtype)?;
    }
    Ok(())
}

/// Puts given gradients of the results, which fit, where the backward passes start from; a loss is forgotten.
fn start_from(tape: &mut Tape, n_models: usize, gradients: &[Option<Erased<'_>>]) {
    let Tape { results, gradient: buffer, start, .. } = tape;
    let Some(results) = results else { return };
    *start = Start::Nothing;
    buffer.reserve(results.row_bytes * n_models);
    let rows = buffer.bytes_mut().chunks_exact_mut(results.row_bytes.max(1));
    for (model, row) in rows.take(n_models).enumerate() {
        row.fill(0);
        for (gradient, (y, offset)) in gradients.iter().zip(results.floats()) {
            let Some(gradient) = gradient else { continue };
            let to = &mut row[offset..][..y.size_bytes()];
            to.copy_from_slice(&gradient.bytes[model * gradient.stride()..][..to.len()]);
        }
    }
}

/// Multiplies the gradient of the loss by a number.
fn scale_start(tape: &mut Tape, n_models: usize, scale: f64) {
    if let Some(y) = tape.results.as_ref().and_then(Results::only) {
        let rows = &mut tape.gradient.bytes_mut()[..y.size_bytes() * n_models];
        gradients::scale(y.dtype, rows, scale);
    }
}

/// Finds the plans that go back, where those passes go back by plans, and adds the columns that gradients need.
fn choose_plans(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    given: &[bool],
) -> Result<(), StepError> {
    loop {
        let Run { cohorts, tape, chosen, recorded, shared, .. } = &mut *run;
        let (types, structure) = tape.inputs().ok_or(StepError::NoForward("backward"))?;
        if cohorts.list.is_empty() {
            return Err(StepError::Inactive);
        }
        if !tape.has_modes() {
            return Err(StepError::Changed);
        }
        let inputs: Vec<_> = types.iter().map(TypeRef::from).collect();
        let request = Request {
            kind: Kind::Backward,
            inputs: &inputs,
            structure,
            given,
            target: None,
            loss: None,
            watched: &[],
        };
        chosen.clear();
        for (place, cohort) in cohorts.list.iter_mut().enumerate() {
            cohort.scheme.autocast = tape.autocast;
            cohort.scheme.entry.clone_from(&tape.entry);
            let route = match recorded.get(place).and_then(Option::as_ref) {
                Some(Record::Observed(passed)) => {
                    passed.prepare_back(world, cohort, shared.as_ref(), request)?
                }
                Some(Record::Eager(_)) => Route::Eager,
                None if cohort.keeps_tape => {
                    Route::Planned(cohort.prepare(world, population, &request)?)
                }
                None => Route::Nowhere,
            };
            chosen.push(route);
        }
        modified::check(world, run, population)?;
        let added = add_gradient_columns(world, run, population)?;
        if !added && !run.add_columns(world, population, |number| number)? {
            run.part_eager(1);
            return Ok(());
        }
        run.follow(world, population)?;
    }
}

/// Runs the backward passes, from the gradients of a loss, times `scale` if there is one, or from given ones.
fn run_backward(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    gradients: Option<&[Option<Erased<'_>>]>,
    scale: Option<f64>,
) -> Result<(), StepError> {
    run.follow(world, population)?;
    let mut given = Vec::new();
    if let Some(gradients) = gradients {
        check_gradients(run, gradients)?;
        if gradients.iter().any(Option::is_none) {
            given.extend(gradients.iter().map(Option::is_some));
        }
    }
    choose_plans(world, run, population, &given)?;
    let n_models = run.models.count;
    if let Some(gradients) = gradients {
        start_from(&mut run.tape, n_models, gradients);
    }
    if let Some(scale) = scale {
        scale_start(&mut run.tape, n_models, scale);
    }
    run.tape.given = given;
    let watched = watched::make(world, run, &What::Backward(n_models));
    // There is no second way back through what they left.
    let mut watched = watched.inspect_err(|_| run.tape.forget())?;
    if let Some(sums) = Sums::of(world, population) {
        let of_eager =
            watched.iter_mut().filter_map(|back| Some((back.place, back.take_shared()?)));
        let of_eager: Vec<_> = of_eager.collect();
        let undo = Undo::of(world, run, population, |run, cohort| run.chosen[cohort])?;
        let sums = run_summed_plans(world, run, population, &of_eager, sums)?;
        if let Err(failure) = shared::accumulate(world, run, population, sums) {
            undo.map_or(Ok(()), |undo| undo.restore(world, run))?;
            return Err(failure);
        }
    } else {
        run_plans(world, run, n_models)?;
    }
    mark_gradients(run);
    let types = run.tape.inputs().map(|(types, _)| types.to_vec()).unwrap_or_default();
    let mut dx: Vec<Option<(Type, Vec<u8>)>> = vec![None; types.len()];
    for back in watched {
        let cohort = &mut run.cohorts.list[back.place];
        let Some(mut recorded) = back.into_recorded() else { continue };
        eager::commit(world, cohort, &mut recorded)?;
        for (number, found) in recorded.take_input_gradients().into_iter().enumerate() {
            let Some(of_members) = found else { continue };
            let row = types[number].size_bytes();
            let all =
                dx[number].get_or_insert_with(|| (types[number].clone(), vec![0; row * n_models]));
            for (member, index) in cohort.at.members.indices().enumerate() {
                all.1[index * row..][..row].copy_from_slice(&of_members[member * row..][..row]);
            }
        }
        recorded.leave_memory(cohort);
    }
    write_gradient_bits(world, run, population)?;
    run.tape.forget();
    run.tape.dx = dx;
    Ok(())
}

/// Runs the chosen plans of those that are not watched.
fn run_plans(world: &mut World, run: &mut Run, n_models: usize) -> Result<(), StepError> {
    let Run { cohorts, buffers, tape, chosen, .. } = run;
    let plan = |(place, cohort): (usize, &Cohort)| {
        let ready = chosen[place].planned(&cohort.ready);
        ready.map(|ready| tape.reads(&ready.planned, n_models))
    };
    let inputs: Vec<_> = cohorts.list.iter().enumerate().map(plan).collect();
    let mut queue = buffers.queue();
    let all = cohorts.list.iter_mut().zip(&*chosen).zip(&inputs);
    for ((Cohort { at, ready, .. }, route), inputs) in all {
        if let Some((ready, inputs)) = route.planned(ready).zip(inputs.as_ref()) {
            queue.push(at, [ready.job(inputs)]);
        }
    }
    queue.launch(world, &mut [], buffers)?;
    Ok(())
}

/// Runs the chosen plans, and sums the gradients of shared parameters.
fn run_summed_plans(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    eager: &[(usize, EagerGradients)],
    mut sums: Sums,
) -> Result<Vec<(usize, Vec<u8>)>, StepError> {
    let Run { cohorts, buffers, tape, chosen, chunks, models, .. } = run;
    chunks.refresh(world, population, cohorts, sums.row_bytes());
    let pass = Pass {
        chosen: &|cohort| chosen[cohort],
        inputs: &|planned| tape.reads(planned, models.count),
        eager,
    };
    run_summed(world, cohorts, chunks, buffers, &mut sums, &pass, None)?;
    Ok(sums.finish())
}

/// Says which parameters have a gradient after the chosen plans.
fn mark_gradients(run: &mut Run) {
    for (cohort, route) in run.cohorts.list.iter_mut().zip(&run.chosen) {
        let Some(ready) = route.plan().and_then(|place| cohort.ready.get(place)) else { continue };
        let program = &ready.planned.plan.program;
        let stored = program.stores.iter().map(|&(slot, _)| &program.slots[slot]);
        let gradients = stored.filter(|slot| slot.role == Role::Gradient);
        for slot in gradients {
            let number = cohort.scheme.blueprint.number(slot.position, slot.index);
            cohort.scheme.has_gradient.set(number, true);
        }
    }
}

/// Adds the columns for gradients of cohorts that were watched; says whether any was missing.
fn add_gradient_columns(
    world: &mut World,
    run: &mut Run,
    population: Entity,
) -> Result<bool, StepError> {
    let eager = run.cohorts.list.iter().zip(&run.recorded);
    let eager = eager.filter_map(|(cohort, recorded)| recorded.as_ref().map(|_| cohort));
    let missing: Vec<_> =
        eager.map(|cohort| (cohort.at.group, eager::gradient_slots(cohort))).collect();
    let mut added = false;
    for (group, slots) in missing {
        added |= columns::add_columns(world, population, group, &slots);
    }
    if added {
        run.refresh(world, population)?;
    }
    Ok(added)
}
