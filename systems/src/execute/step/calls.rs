//! [`module_calls`]: the module calls of a forward pass, with the shapes of what goes in and comes out.
//!
//! A pass is recorded without numbers, or computed op by op by one model if the time of each call is asked for. No hook is
//! called, and nothing is written: neither running statistics nor random states change.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::call::{Call, Watcher};
use neurarch_components::module::mode::{Bits, Mode};
use neurarch_kernels::ir::dtype::{Dtype, bf16, f16};
use neurarch_kernels::ir::eager::ReadError;
use neurarch_kernels::ir::error::OpError;
use neurarch_kernels::ir::shape::{Shape, Type};
use neurarch_kernels::ir::trace::{Trace, TraceError};
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::memory::check_room;

use crate::compile::entrance::Entrance;
use crate::compile::trace::{Inputs, Scheme, nest};
use crate::errors::StepError;
use crate::execute::run::with_run;
use crate::execute::step::check::check_dtype;
use crate::execute::{eager, lazy};
use crate::structure::mode::autocast_mode;
use crate::structure::population::population;
use crate::structure::target::{Aim, Target};

/// An array that is described and not there: what it would be called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputSize {
    /// Its sizes, without the axis of models.
    pub size: Shape,
    /// Its element type; `None` for that of the models.
    pub dtype: Option<Dtype>,
}

/// One call of a module in a forward pass.
#[derive(Clone, Debug)]
pub struct ModuleCall {
    /// The module's place in the blueprint.
    pub position: usize,
    /// The types of what it is called with.
    pub inputs: Arguments<Type>,
    /// The types of what it gives.
    pub result: Tree<Type>,
    /// How long it took, the calls that it makes included.
    pub time: Option<Duration>,
}

/// The module calls of models that have one structure and the same frozen parameters.
#[derive(Clone, Debug)]
pub struct ModuleCalls {
    /// The structure. Lazy modules that the pass reaches are what they will become.
    pub blueprint: Arc<Blueprint>,
    /// The place of the module that is called.
    pub position: usize,
    /// The parameters without `requires_grad`, by their number.
    pub frozen: Bits,
    /// How many models these are.
    pub models: usize,
    /// The types of the arrays that it is called with.
    pub inputs: Vec<Type>,
    /// The calls, in the order in which they begin.
    pub calls: Vec<ModuleCall>,
}

/// Lists the module calls of a forward pass in evaluation mode, for each structure that the target's models have. The pass is
/// recorded without numbers. If `timed`, the first model of each structure computes it op by op, on numbers that are 0.5 or 0,
/// twice: the second pass counts. A `forward` that reads numbers is computed that way, too.
///
/// A lazy module has no numbers yet: a pass that reaches one has no times.
///
/// # Errors
///
/// If there is no such module, it cannot take arrays of these sizes, or the model that computes is inactive. Nothing is changed
/// then, nor if all goes well.
pub fn module_calls(
    world: &mut World,
    target: Target,
    arguments: &Arguments<InputSize>,
    timed: bool,
) -> Result<Vec<ModuleCalls>, StepError> {
    let mut all = Vec::new();
    for aim in target.aims(world)? {
        for (frozen, places) in alike(world, &aim) {
            all.push(of_structure(world, &aim, (frozen, &places), arguments, timed)?);
        }
    }
    Ok(all)
}

/// Puts the models together that have the same frozen parameters, by their places.
fn alike(world: &World, aim: &Aim) -> Vec<(Bits, Vec<usize>)> {
    let mut all: Vec<(Bits, Vec<usize>)> = Vec::new();
    for &place in &aim.places {
        let root = aim.group(world).modules[0][place];
        let frozen = world.get::<Mode>(root).map(|mode| mode.frozen.clone()).unwrap_or_default();
        match all.iter_mut().find(|(known, _)| *known == frozen) {
            Some((_, places)) => places.push(place),
            None => all.push((frozen, vec![place])),
        }
    }
    all
}

fn of_structure(
    world: &mut World,
    aim: &Aim,
    (frozen, places): (Bits, &[usize]),
    arguments: &Arguments<InputSize>,
    timed: bool,
) -> Result<ModuleCalls, StepError> {
    let blueprint = aim.blueprint(world);
    let own = population(world, aim.population)?.dtype();
    let dtype = blueprint.dtype_below(aim.position, own);
    let mut types = Vec::new();
    let structure = arguments.clone().map(&mut |of: InputSize| {
        types.push(Type { dtype: of.dtype.unwrap_or(dtype), shape: of.size });
        types.len() - 1
    });
    types.iter().try_for_each(|ty| check_dtype("x", dtype, ty.dtype))?;
    let inputs = Inputs { types, structure: Some(&structure) };
    let all = blueprint.positions.len();
    let entry = Entrance::of(&blueprint.positions[aim.position].path, None);
    let is_lazy = blueprint.positions.iter().any(|at| at.module.is_lazy());
    let mut scheme = Scheme {
        blueprint,
        mode: Mode { evaluating: Bits::below(all), frozen, ..Mode::default() },
        has_gradient: Bits::new(),
        optimizers: vec![None; all],
        autocast: autocast_mode(world),
        entry,
    };
    if is_lazy {
        scheme.blueprint = lazy::completed(&scheme, &inputs, own)?;
    }
    let calls = match record(&scheme, &inputs) {
        Ok(calls) if !timed || is_lazy => calls,
        Err(error) if !error.needs_values => return Err(error.into()),
        _ => compute(world, aim, places[0], &scheme, &inputs)?,
    };
    let (position, models) = (aim.position, places.len());
    let Scheme { blueprint, mode: Mode { frozen, .. }, .. } = scheme;
    Ok(ModuleCalls { blueprint, position, frozen, models, inputs: inputs.types, calls })
}

/// Records a pass without numbers.
fn record(scheme: &Scheme, inputs: &Inputs<'_>) -> Result<Vec<ModuleCall>, TraceError> {
    let (trace, listener) = (Trace::new(), Listener::default());
    scheme.call(&trace, inputs.record(&trace), Some(&listener));
    match trace.error() {
        Some(error) => Err(error),
        None => Ok(listener.calls.into_inner()),
    }
}

/// Computes a pass by one model, by its place in its group, op by op.
fn compute(
    world: &mut World,
    aim: &Aim,
    place: usize,
    scheme: &Scheme,
    inputs: &Inputs<'_>,
) -> Result<Vec<ModuleCall>, StepError> {
    with_run(world, aim.population, |world, run| {
        let mut of_group = run.cohorts.list.iter().filter(|cohort| cohort.at.group == aim.group);
        let found = of_group.find_map(|cohort| {
            let member = cohort.places.iter().position(|&of| of as usize == place)?;
            Some(cohort.alone(member))
        });
        let mut cohort = found.ok_or(StepError::Inactive)?;
        cohort.scheme = scheme.clone();
        let rows = inputs.types.iter().map(numbers).collect::<Result<Vec<_>, _>>()?;
        let mut calls = Vec::new();
        for _ in 0..2 {
            let trace = eager::open(world, &mut cohort, None, &scheme.slots(), None)?;
            let vars = inputs.types.iter().zip(&rows);
            let vars =
                vars.map(|(ty, row)| trace.input_of_rows(ty.clone(), [row.as_slice()].into_iter()));
            let listener = Listener { is_timed: true, ..Listener::default() };
            scheme.call(&trace, nest(vars.collect(), inputs.structure), Some(&listener));
            if let Some(error) = trace.error() {
                return Err(error.into());
            }
            calls = listener.calls.into_inner();
        }
        Ok(calls)
    })
}

/// Makes the bytes of an array of 0.5, or of 0 if it is not of floating numbers.
fn numbers(ty: &Type) -> Result<Vec<u8>, ReadError> {
    check_room(ty.checked_size_bytes()?).map_err(|full| OpError(full.to_string()))?;
    let numel = ty.shape.numel();
    Ok(match ty.dtype {
        Dtype::F32 => bytemuck::pod_collect_to_vec(&vec![0.5_f32; numel]),
        Dtype::F64 => bytemuck::pod_collect_to_vec(&vec![0.5_f64; numel]),
        Dtype::F16 => bytemuck::pod_collect_to_vec(&vec![f16::from_f32(0.5); numel]),
        Dtype::BF16 => bytemuck::pod_collect_to_vec(&vec![bf16::from_f32(0.5); numel]),
        Dtype::I64 | Dtype::Bool => vec![0; ty.size_bytes()],
    })
}

/// Lists the calls that it is told of.
#[derive(Default)]
struct Listener {
    calls: RefCell<Vec<ModuleCall>>,
    /// The calls that have not ended: their places in the list, and when they began.
    open: RefCell<Vec<(usize, Instant)>>,
    is_timed: bool,
}

impl Watcher for Listener {
    fn before(&self, call: &Call<'_>, arguments: Arguments) -> Arguments {
        let inputs = arguments.clone().map(&mut |var| var.ty().clone());
        let mut calls = self.calls.borrow_mut();
        let (position, result, time) = (call.position, Tree::None, None);
        calls.push(ModuleCall { position, inputs, result, time });
        self.open.borrow_mut().push((calls.len() - 1, Instant::now()));
        arguments
    }

    fn after(&self, _: &Call<'_>, _: &Arguments, result: Option<Tree>) -> Option<Tree> {
        if let Some((place, began)) = self.open.borrow_mut().pop() {
            let call = &mut self.calls.borrow_mut()[place];
            call.time = self.is_timed.then(|| began.elapsed());
            let given = result.clone().unwrap_or_default();
            call.result = given.map(&mut |var| var.ty().clone());
        }
        result
    }
}
