//! [`forward`]: runs models, and keeps what `backward` will need.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, ArrayViewMut, Dimension, IxDyn};
use neurarch_kernels::ir::dtype::{Dtype, Element};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::memory::AlignedBytes;

use super::check::{check_array, check_result, result_shape, shaped, with_models};
use super::watched::{self, Ran, What};
use crate::compile::array::{AnyArray, AnyInput, Called, Erased, Input};
use crate::compile::entrance::Entrance;
use crate::compile::plans::{Kind, Request};
use crate::compile::results::Results;
use crate::compile::trace::Inputs;
use crate::errors::StepError;
use crate::execute::cohort::{Cohort, Cohorts};
use crate::execute::decide::decide;
use crate::execute::lazy;
use crate::execute::route::Route;
use crate::execute::run::{Run, with_run};
use crate::execute::shared::Sums;
use crate::storage::launch::{Job, Queue, Read, Write};

/// Runs the models on `x`.
///
/// Where a model has a parameter with `requires_grad`, what [`backward`](super::backward()) will need is kept
/// until the next forward pass, in evaluation mode as well; [`no_grad`](crate::structure::mode::no_grad) keeps nothing and is
/// faster.
///
/// # Shape
///
/// `x` is `[models, ..]`, or [shared](Input::shared) without that axis; the result is `[models, ..]`.
///
/// # Errors
///
/// If `x` does not fit the population or its modules, or the result is of another type: it is taken for that of `x`
/// if this is floating, and for f32 if `x` is of whole numbers. [`forward_with`] and [`forward_any`] give others.
///
/// # Example
///
/// Models that look at their own numbers:
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::module::{Call, Module};
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_kernels::ir::trace::Var;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::execute::step::forward;
/// /// Halves its input until the sum is below 1.
/// #[derive(Component, Clone, Debug, PartialEq)]
/// struct Shrink;
///
/// impl Module for Shrink {
///     fn forward(&self, call: &Call<'_>, mut x: Var) -> Var {
///         loop {
///             match call.trace.item(&x.sum(&[], false)) {
///                 Some(sum) if sum >= 1.0 => x = x * 0.5,
///                 Some(_) => return x,
///                 None => return call.trace.poison(), // No numbers yet.
///             }
///         }
///     }
/// }
///
/// let mut world = World::new();
/// let population = spawn_population(&mut world, &Shrink, 3, 3, 0, Dtype::F32)?;
/// let y = forward(&mut world, population, &ndarray::array![[0.5_f32], [1.0], [6.0]])?;
/// assert_eq!(y, ndarray::array![[0.5_f32], [0.5], [0.75]].into_dyn());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.vmap` of `torch.func.functional_call` over a stacked population.
pub fn forward<'a, X: Element>(
    world: &mut World,
    population: Entity,
    x: impl Into<Input<'a, X>>,
) -> Result<ArrayD<X::Float>, StepError> {
    forward_at(world, population, None, &x.into())
}

/// [`forward`] from where the models are entered.
pub(super) fn forward_at<X: Element>(
    world: &mut World,
    population: Entity,
    entry: Option<&Arc<Entrance>>,
    x: &Input<'_, X>,
) -> Result<ArrayD<X::Float>, StepError> {
    forward_erased(world, population, entry, x.erase())
}

/// [`forward_at`] with an array whose element type is not known.
pub(super) fn forward_erased<T: Element>(
    world: &mut World,
    population: Entity,
    entry: Option<&Arc<Entrance>>,
    x: Erased<'_>,
) -> Result<ArrayD<T>, StepError> {
    let called = Called { arrays: &[x], structure: None, entry };
    pass(world, population, &called, |world, run, watched| {
        let y = only_result(run, watched)?.ok_or(StepError::Inactive)?;
        let shape = result_shape("result", run.models.count, y, T::DTYPE)?;
        let mut y = bytemuck::zeroed_vec::<T>(shape.iter().product());
        run_plans(world, run, population, &called, watched, &mut y)?;
        Ok(shaped(IxDyn(&shape), y))
    })
}

/// [`forward`] of models that take several values, or keyword arguments, or give several values.
///
/// # Shape
///
/// Each array is `[models, ..]`, or shared; the result has the structure of what the root's `forward` gives, an
/// array `[models, ..]` at each leaf.
///
/// # Errors
///
/// As [`forward`], and if a value of the result is not of `T`.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::module::{Call, Module};
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_kernels::ir::tree::{Arguments, Tree};
/// # use neurarch_systems::compile::array::AnyInput;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::execute::step::forward_with;
/// /// Gives sum and difference of two values.
/// #[derive(Component, Clone, Debug, PartialEq)]
/// struct Butterfly;
///
/// impl Module for Butterfly {
///     fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
///         match call.values(arguments) {
///             Some([a, b]) => (&a + &b, &a - &b).into(),
///             None => call.trace.poison().into(),
///         }
///     }
/// }
///
/// let mut world = World::new();
/// let population = spawn_population(&mut world, &Butterfly, 10, 10, 0, Dtype::F32)?;
/// let (a, b) = (ndarray::Array2::<f32>::ones((10, 3)), ndarray::Array2::<f32>::ones((10, 3)));
/// let arguments = Arguments::each([AnyInput::from(&a), AnyInput::from(&b)]);
/// let result = forward_with::<f32>(&mut world, population, arguments)?;
/// let [sum, difference] = result.leaves()[..] else { unreachable!() };
/// assert_eq!((sum[[4, 2]], difference[[4, 2]]), (2.0, 0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.Module.__call__`.
pub fn forward_with<T: Element>(
    world: &mut World,
    population: Entity,
    arguments: Arguments<AnyInput<'_>>,
) -> Result<Tree<ArrayD<T>>, StepError> {
    forward_with_at(world, population, None, arguments)
}

/// [`forward_with`] from where the models are entered.
pub(super) fn forward_with_at<T: Element>(
    world: &mut World,
    population: Entity,
    entry: Option<&Arc<Entrance>>,
    arguments: Arguments<AnyInput<'_>>,
) -> Result<Tree<ArrayD<T>>, StepError> {
    let (rows, results) = forward_rows(world, population, entry, arguments, Some(T::DTYPE))?;
    Ok(results.tree.clone().map(&mut |place| results.array(place, &rows)))
}

/// [`forward_with`] of models whose results are of several element types: numbers and whole numbers, as the
/// indices of a max pool are.
///
/// # Shape
///
/// As [`forward_with`].
///
/// # Errors
///
/// As [`forward`].
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::MaxPool1d;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_kernels::ir::tree::{Arguments, Tree};
/// # use neurarch_systems::compile::array::{AnyArray, Input};
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::execute::step::forward_any;
/// let pool = MaxPool1d { return_indices: true, ..MaxPool1d::new(2) };
/// let mut world = World::new();
/// let population = spawn_population(&mut world, &pool, 1, 1, 0, Dtype::F32)?;
/// let x = ndarray::array![[[1.0_f32, 3.0, 2.0, 0.0]]];
/// let arguments = Arguments::each([Input::shared(x.view()).into()]);
/// let result = forward_any(&mut world, population, arguments)?;
/// let [AnyArray::F32(y), AnyArray::I64(indices)] = result.leaves()[..] else { unreachable!() };
/// assert_eq!((y[[0, 0, 0, 0]], y[[0, 0, 0, 1]]), (3.0, 2.0));
/// assert_eq!((indices[[0, 0, 0, 0]], indices[[0, 0, 0, 1]]), (1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.Module.__call__`.
pub fn forward_any(
    world: &mut World,
    population: Entity,
    arguments: Arguments<AnyInput<'_>>,
) -> Result<Tree<AnyArray>, StepError> {
    let (rows, results) = forward_rows(world, population, None, arguments, None)?;
    Ok(results.tree.clone().map(&mut |place| match results.types[place].dtype {
        Dtype::F64 => AnyArray::F64(results.array(place, &rows)),
        Dtype::I64 => AnyArray::I64(results.array(place, &rows)),
        Dtype::Bool => AnyArray::Bool(results.array(place, &rows)),
        Dtype::F16 => AnyArray::F16(results.array(place, &rows)),
        Dtype::BF16 => AnyArray::BF16(results.array(place, &rows)),
        Dtype::F32 => AnyArray::F32(results.array(place, &rows)),
    }))
}

/// The results of all models, row after row.
struct ResultRows {
    bytes: AlignedBytes,
    models: usize,
}

/// Runs the models; all of what they give has to be of `dtype`, if there is one.
fn forward_rows(
    world: &mut World,
    population: Entity,
    entry: Option<&Arc<Entrance>>,
    arguments: Arguments<AnyInput<'_>>,
    dtype: Option<Dtype>,
) -> Result<(ResultRows, Results), StepError> {
    let (inputs, structure) = AnyInput::numbered(arguments);
    let arrays: Vec<_> = inputs.iter().map(AnyInput::erase).collect();
    let called = Called { arrays: &arrays, structure: Some(&structure), entry };
    pass(world, population, &called, |world, run, watched| {
        let results = results(run, watched).cloned().ok_or(StepError::Inactive)?;
        let models = run.models.count;
        for ty in &results.types {
            result_shape("result", models, ty, dtype.unwrap_or(ty.dtype))?;
        }
        let size = models * results.row_bytes;
        let mut bytes = AlignedBytes::new(size);
        run_plans(world, run, population, &called, watched, &mut bytes.bytes_mut()[..size])?;
        Ok((ResultRows { bytes, models }, results))
    })
}

impl Results {
    /// Copies one of the values, whose elements are `T`, of all models.
    fn array<T: Element>(&self, place: usize, rows: &ResultRows) -> ArrayD<T> {
        let (ty, start) = (&self.types[place], self.offsets[place]);
        let mut numbers = Vec::with_capacity(rows.models * ty.shape.numel());
        for model in 0..rows.models {
            let row = &rows.bytes.bytes()[model * self.row_bytes + start..][..ty.size_bytes()];
            numbers.extend_from_slice(bytemuck::cast_slice(row));
        }
        shaped(IxDyn(&with_models(rows.models, ty)), numbers)
    }
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
pub fn forward_into<'a, X: Element, D: Dimension>(
    world: &mut World,
    population: Entity,
    x: impl Into<Input<'a, X>>,
    mut y: ArrayViewMut<'_, X::Float, D>,
) -> Result<(), StepError> {
    let x = x.into();
    let called = Called { arrays: &[x.erase()], structure: None, entry: None };
    pass(world, population, &called, |world, run, watched| {
        let Some(expected) = only_result(run, watched)? else { return Ok(()) };
        check_result("y", run.models.count, expected, y.shape(), X::Float::DTYPE)?;
        if let Some(y) = y.as_slice_mut() {
            return run_plans(world, run, population, &called, watched, y);
        }
        let mut dense: Vec<X::Float> = y.iter().copied().collect();
        run_plans(world, run, population, &called, watched, &mut dense)?;
        y.iter_mut().zip(dense).for_each(|(y, number)| *y = number);
        Ok(())
    })
}

/// Returns what the models give; `None` if no model is active.
fn results<'a>(run: &'a Run, watched: &'a [Ran]) -> Option<&'a Results> {
    run.planned_results().or_else(|| watched.first().map(|ran| &ran.made.results))
}

/// Returns the type of the one value that the models give; `None` if no model is active.
pub(super) fn only_result<'a>(
    run: &'a Run,
    watched: &'a [Ran],
) -> Result<Option<&'a Type>, StepError> {
    let Some(results) = results(run, watched) else { return Ok(None) };
    let given = results.types.len();
    results.only().map(Some).ok_or(StepError::Results { expected: 1, given })
}

/// Runs the cohorts that are watched; `work` runs the others. If that fails, the watched are as they were before.
fn pass<R>(
    world: &mut World,
    population: Entity,
    called: &Called<'_>,
    work: impl FnOnce(&mut World, &mut Run, &[Ran]) -> Result<R, StepError>,
) -> Result<R, StepError> {
    with_run(world, population, |world, run| {
        prepare(world, run, population, called)?;
        let watched = watched::make(world, run, &What::Forward(called))?;
        let made = check_results(run, &watched).and_then(|()| work(world, run, &watched));
        match made {
            Ok(result) => {
                watched::keep(world, run, called, watched)?;
                run.tape.close(world, population);
                Ok(result)
            }
            Err(failure) => {
                watched::undo(world, run, watched)?;
                Err(failure)
            }
        }
    })
}

/// Checks that the results of the watched fit beside those of the others.
pub(super) fn check_results(run: &Run, watched: &[Ran]) -> Result<(), StepError> {
    let Some(first) = results(run, watched) else { return Ok(()) };
    watched.iter().try_for_each(|ran| first.check(&ran.made.results))
}

/// Finds the plans of all cohorts.
pub(super) fn prepare(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    called: &Called<'_>,
) -> Result<(), StepError> {
    run.begin_pass(world, population)?;
    let asked = |x: &&Erased<'_>| x.needs_gradient;
    if called.arrays.iter().filter(asked).any(|x| !x.dtype.is_float()) {
        return Err(StepError::NotFloat);
    }
    run.enter(called.entry);
    for x in called.arrays {
        check_array(run.models, "x", *x)?;
    }
    if run.has_lazy() {
        let types = called.arrays.iter().map(|x| x.ty().to_type()).collect();
        let inputs = Inputs { types, structure: called.structure };
        lazy::initialize(world, run, population, &inputs)?;
    }
    if run.keeps_gradients && called.arrays.iter().any(|x| x.needs_gradient) {
        run.cohorts.list.iter_mut().for_each(|cohort| cohort.is_watched = true);
    }
    choose_plans(world, run, population, called)?;
    let Run { cohorts, chosen, tape, models, .. } = run;
    let tape_bytes = |(cohort, route): (&Cohort, &Route)| {
        route.ready(&cohort.ready).map_or(0, |ready| ready.planned.tape_bytes)
    };
    tape.next_stride = cohorts.list.iter().zip(&*chosen).map(tape_bytes).max().unwrap_or(0);
    let row_bytes = |(cohort, route): (&Cohort, &Route)| {
        route.ready(&cohort.ready).map_or(0, |ready| ready.planned.row_bytes())
    };
    let row_bytes = cohorts.list.iter().zip(&*chosen).map(row_bytes).max().unwrap_or(0);
    tape.check_room(models.count, row_bytes)?;
    if cohorts.list.iter().any(|cohort| cohort.is_watched) {
        tape.next.reserve(tape.next_stride * models.count);
    }
    Ok(())
}

/// Finds the plan of each cohort.
fn choose_plans(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    called: &Called<'_>,
) -> Result<(), StepError> {
    run.chosen.clear();
    run.enter(called.entry);
    let one;
    let several: Vec<_>;
    let inputs = match called.arrays {
        [x] => {
            one = [x.ty()];
            one.as_slice()
        }
        arrays => {
            several = arrays.iter().map(Erased::ty).collect();
            several.as_slice()
        }
    };
    let keeps_gradients = run.keeps_gradients;
    let asks = called.arrays.iter().any(|x| x.needs_gradient);
    let needs_record = keeps_gradients && (asks || Sums::of(world, population).is_some());
    for cohort in &mut run.cohorts.list {
        let kind = if keeps_gradients && cohort.keeps_tape { Kind::Tape } else { Kind::Forward };
        let structure = called.structure;
        let (given, target, loss, watched) = (&[], None, None, &[]);
        let request = Request { kind, inputs, structure, given, target, loss, watched };
        run.chosen.push(decide(world, cohort, run.shared.as_ref(), request, needs_record)?);
    }
    run.part_eager(1);
    run.check_results()
}

/// Runs the plans and remembers the pass.
fn run_plans<T: Element>(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    called: &Called<'_>,
    watched: &[Ran],
    y: &mut [T],
) -> Result<(), StepError> {
    begin(world, run, watched)?;
    let row_bytes = size_of_val(y) / run.models.count.max(1);
    let Run { cohorts, buffers, tape, chosen, .. } = &mut *run;
    let (mut inputs, outputs) = buffers.take();
    inputs.extend(called.arrays.iter().map(|x| Read::new(x.bytes, x.stride())));
    let mut arrays =
        [Write::new(&mut *y, row_bytes), Write::new(tape.saved.bytes_mut(), tape.stride)];
    let mut queue = buffers.queue();
    push(&mut queue, (cohorts, chosen), &inputs, 0);
    queue.launch(world, &mut arrays, buffers)?;
    buffers.put(inputs, outputs);
    end(world, run, population, called, watched, bytemuck::cast_slice_mut(y))
}

/// Makes the tape and the random states ready.
pub(super) fn begin(world: &mut World, run: &mut Run, watched: &[Ran]) -> Result<(), StepError> {
    run.tape.begin(run.models.count, !watched.is_empty());
    let is_known = results(run, watched) == run.tape.results.as_ref();
    if !is_known {
        run.tape.results = results(run, watched).cloned();
    }
    let Run { cohorts, chosen, .. } = run;
    for (cohort, chosen) in cohorts.list.iter_mut().zip(chosen.chunks(1)) {
        if cohort.draws(chosen) {
            cohort.refresh_keys(world)?;
        }
    }
    Ok(())
}

/// Puts the plans of those that are not watched into a queue; results go to array `first_array`, what is saved to the
/// one behind it.
pub(super) fn push<'a>(
    queue: &mut Queue<'a>,
    (cohorts, chosen): (&'a mut Cohorts, &[Route]),
    inputs: &'a [Read<'a>],
    first_array: usize,
) {
    for (cohort, route) in cohorts.list.iter_mut().zip(chosen) {
        push_one(queue, cohort, *route, inputs, first_array);
    }
}

/// [`push`] of one cohort.
pub(super) fn push_one<'a>(
    queue: &mut Queue<'a>,
    Cohort { at, ready, keys, .. }: &'a mut Cohort,
    route: Route,
    inputs: &'a [Read<'a>],
    first_array: usize,
) {
    if let Some(ready) = route.planned(ready) {
        queue.push(at, [Job { keys: ready.keys(keys), first_array, ..ready.job(inputs) }]);
    }
}

/// Counts what was drawn, puts the results of the watched beside those of the others, and remembers the pass.
pub(super) fn end(
    world: &mut World,
    run: &mut Run,
    population: Entity,
    called: &Called<'_>,
    watched: &[Ran],
    y: &mut [u8],
) -> Result<(), StepError> {
    let Run { cohorts, tape, chosen, models, keeps_gradients, .. } = run;
    let row_bytes = y.len() / models.count.max(1);
    for (cohort, chosen) in cohorts.list.iter_mut().zip(chosen.chunks(1)) {
        if cohort.draws(chosen) {
            cohort.advance_keys(world, 1);
        }
    }
    for Ran { place, made, .. } in watched {
        let rows = made.bytes.chunks_exact(row_bytes.max(1));
        for (index, row) in cohorts.list[*place].at.members.indices().zip(rows) {
            y[index * row_bytes..][..row_bytes].copy_from_slice(row);
        }
    }
    tape.remember(world, called, y, (population, cohorts), *keeps_gradients)
}
