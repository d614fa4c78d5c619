//! [`call()`]: calls any module, of all models of a population or of one model.

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, IxDyn};
use neurarch_components::containers::Slice;
use neurarch_kernels::ir::dtype::Element;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::memory::AlignedBytes;

use super::check::{check_dtype, shaped};
use super::forward::{forward_at, forward_with_at, push};
use super::watched::{self, What};
use crate::compile::array::{AnyInput, Called, Erased, Input};
use crate::compile::entrance::Entrance;
use crate::compile::plans::{Kind, Request};
use crate::compile::results::Results;
use crate::compile::trace::Inputs;
use crate::errors::StepError;
use crate::execute::decide::decide;
use crate::execute::hooks::Target;
use crate::execute::lazy;
use crate::execute::run::{Run, with_run};
use crate::storage::launch::{Listed, Read, Write};
use crate::structure::spot::{Spot, find, locate};

/// Calls a module: that at a path in all models of a population, as [`forward`](super::forward()) calls their roots, or
/// that of one model by its entity. Hooks of the module and of what it calls are called, those above it are not.
///
/// A call of all models is kept for [`loss`](super::loss) and [`backward`](super::backward()) or
/// [`backward_from`](super::backward_from). A call of one model keeps nothing, as in
/// [`no_grad`](crate::structure::mode::no_grad), and leaves what the population's last pass kept.
///
/// # Shape
///
/// In all models, `x` is `[models, ..]` or shared, and so is the result; in one, neither has the axis of models.
///
/// # Errors
///
/// As [`forward`](super::forward()), and if there is no such module, in torch's words.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::{Linear, Sequential, Tanh};
/// # use neurarch_components::population::Population;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::edit::lookup::get_submodule;
/// # use neurarch_systems::execute::step::{call, forward};
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 2));
/// let brains = spawn_population(&mut world, &brain, 10, 10, 0, Dtype::F32)?;
/// let x = ndarray::Array2::<f32>::ones((10, 3));
/// let hidden = call(&mut world, (brains, "0"), &x)?;
/// assert_eq!(hidden.shape(), [10, 4]);
///
/// let root = world.get::<Population>(brains).unwrap().models()[7];
/// let layer = get_submodule(&mut world, root, "0")?;
/// let of_one = call(&mut world, layer, &ndarray::Array1::<f32>::ones(3))?;
/// assert_eq!(of_one, hidden.index_axis(ndarray::Axis(0), 7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `module(x)`.
pub fn call<'a, X: Element>(
    world: &mut World,
    module: impl Into<Target>,
    x: impl Into<Input<'a, X>>,
) -> Result<ArrayD<X::Float>, StepError> {
    call_part(world, module.into(), None, &x.into())
}

/// [`call()`] of some children of a `Sequential`, one after the other: the modules are its own, it is not called itself.
///
/// # Errors
///
/// As [`call()`], and if the module is no `Sequential`.
///
/// Source: `sequential[1:](x)`.
pub fn call_slice<'a, X: Element>(
    world: &mut World,
    container: impl Into<Target>,
    slice: impl Into<Slice>,
    x: impl Into<Input<'a, X>>,
) -> Result<ArrayD<X::Float>, StepError> {
    call_part(world, container.into(), Some(slice.into()), &x.into())
}

fn call_part<X: Element>(
    world: &mut World,
    module: Target,
    slice: Option<Slice>,
    x: &Input<'_, X>,
) -> Result<ArrayD<X::Float>, StepError> {
    let module = match module {
        Target::All => return Err(StepError::AllModules),
        Target::Population(population, path) => {
            return forward_at(world, population, Entrance::of(&path, slice).as_ref(), x);
        }
        Target::Module(module) => module,
    };
    let (bytes, results) =
        call_one(world, module, slice, (&[x.erase_of_one()], None), |results| {
            let given = results.types.len();
            let ty = results.only().ok_or(StepError::Results { expected: 1, given })?;
            check_dtype("result", ty.dtype, X::Float::DTYPE)
        })?;
    Ok(results.of_one(0, &bytes))
}

/// [`call()`] of a module that takes several values, or keyword arguments, or gives several values.
///
/// # Shape
///
/// As [`call()`]; the result has the structure of what the module's `forward` gives.
///
/// # Errors
///
/// As [`call()`], and if a value of the result is not of `T`.
///
/// Source: `torch.nn.Module.__call__`.
pub fn call_with<T: Element>(
    world: &mut World,
    module: impl Into<Target>,
    arguments: Arguments<AnyInput<'_>>,
) -> Result<Tree<ArrayD<T>>, StepError> {
    let module = match module.into() {
        Target::All => return Err(StepError::AllModules),
        Target::Population(population, path) => {
            return forward_with_at(
                world,
                population,
                Entrance::of(&path, None).as_ref(),
                arguments,
            );
        }
        Target::Module(module) => module,
    };
    let (inputs, structure) = AnyInput::numbered(arguments);
    let arrays: Vec<_> = inputs.iter().map(AnyInput::erase_of_one).collect();
    let called = (arrays.as_slice(), Some(&structure));
    let (bytes, results) = call_one(world, module, None, called, |results| {
        results.types.iter().try_for_each(|ty| check_dtype("result", ty.dtype, T::DTYPE))
    })?;
    Ok(results.tree.clone().map(&mut |place| results.of_one(place, &bytes)))
}

/// Calls a module of one model, apart from the others and from what its population keeps; gives its results, a row of
/// bytes. `check` says whether these are of the type that the caller takes.
fn call_one(
    world: &mut World,
    module: Entity,
    slice: Option<Slice>,
    (arrays, structure): (&[Erased<'_>], Option<&Arguments<usize>>),
    check: impl FnOnce(&Results) -> Result<(), StepError>,
) -> Result<(Vec<u8>, Results), StepError> {
    let of = locate(world, module)?.population;
    with_run(world, of, |world, run| {
        let spot = find(world, module)?;
        let blueprint = spot.blueprint(world);
        let dtype = blueprint.dtype_below(spot.position, run.models.dtype);
        arrays.iter().try_for_each(|x| check_dtype("x", dtype, x.dtype))?;
        let path = &blueprint.positions[spot.position].path;
        let entry = Entrance::of(path, slice);
        let called = Called { arrays, structure, entry: entry.as_ref() };
        let mut alone = alone(run, &spot, &called)?;
        if alone.has_lazy() {
            let types = arrays.iter().map(|x| x.ty().to_type()).collect();
            lazy::initialize(world, &mut alone, of, &Inputs { types, structure })?;
            run.refresh(world, of)?;
            alone = self::alone(run, &find(world, module)?, &called)?;
        }
        pass(world, alone, &called, check)
    })
}

/// Makes a run of one model, which keeps nothing for `backward`.
fn alone(run: &Run, spot: &Spot, called: &Called<'_>) -> Result<Run, StepError> {
    let place = |of: &[u32]| of.binary_search(&(spot.member as u32)).ok();
    let mut of_group = run.cohorts.list.iter().filter(|cohort| cohort.at.group == spot.group);
    let found = of_group.find_map(|cohort| Some((cohort, place(&cohort.places)?)));
    let (cohort, member) = found.ok_or(StepError::Inactive)?;
    let mut one = cohort.alone(member);
    one.keeps_tape = false;
    let mut alone = run.apart(one);
    alone.enter(called.entry);
    Ok(alone)
}

/// Makes the pass of a run of one model.
fn pass(
    world: &mut World,
    mut run: Run,
    called: &Called<'_>,
    check: impl FnOnce(&Results) -> Result<(), StepError>,
) -> Result<(Vec<u8>, Results), StepError> {
    let inputs: Vec<_> = called.arrays.iter().map(Erased::ty).collect();
    let request = Request {
        kind: Kind::Forward,
        inputs: &inputs,
        structure: called.structure,
        given: &[],
        target: None,
        loss: None,
        watched: &[],
    };
    let route = decide(world, &mut run.cohorts.list[0], run.shared.as_ref(), request, false)?;
    run.chosen.push(route);
    run.part_eager(1);
    let Some(ready) = route.planned(&run.cohorts.list[0].ready) else {
        let watched = watched::make(world, &mut run, &What::Forward(called))?;
        let made = watched.first().map(|ran| (ran.made.bytes.clone(), ran.made.results.clone()));
        let (bytes, results) = made.unwrap_or_default();
        if let Err(failure) = check(&results) {
            watched::undo(world, &mut run, watched)?;
            return Err(failure);
        }
        watched::keep(world, &mut run, called, watched)?;
        return Ok((bytes, results));
    };
    let results = ready.planned.results.clone().unwrap_or_default();
    let is_random = ready.planned.is_random;
    check(&results)?;
    if is_random {
        run.cohorts.list[0].refresh_keys(world)?;
    }
    let Run { cohorts, buffers, chosen, .. } = &mut run;
    let mut bytes = AlignedBytes::new(results.row_bytes);
    let rows = Listed::new(0..1);
    let mut arrays = [Write::listed(bytes.bytes_mut(), results.row_bytes, &rows), Write::nothing()];
    let inputs: Vec<_> = called.arrays.iter().map(|x| Read::new(x.bytes, 0)).collect();
    let mut queue = buffers.queue();
    push(&mut queue, (cohorts, chosen), &inputs, 0);
    queue.launch(world, &mut arrays, buffers)?;
    if is_random {
        cohorts.list[0].advance_keys(world, 1);
    }
    Ok((bytes.bytes()[..results.row_bytes].to_vec(), results))
}

impl Results {
    /// Copies one of the values, whose elements are `T`, of one model.
    fn of_one<T: Element>(&self, place: usize, row: &[u8]) -> ArrayD<T> {
        let (ty, start) = (&self.types[place], self.offsets[place]);
        let numbers = bytemuck::pod_collect_to_vec(&row[start..][..ty.size_bytes()]);
        shaped(IxDyn(&ty.shape), numbers)
    }
}
