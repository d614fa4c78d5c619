//! Eager passes: models that are hooked, or read numbers, run op by op, as their `forward` records it.
//!
//! A pass copies the rows that it reads into buffers of its own, and writes to columns only when all went
//! well: a hook that fails leaves everything as it was. The bits are those of a planned pass.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::losses::{DynLoss, LossCall};
use neurarch_components::module::DynModule;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_kernels::ir::eager::{Eager, ReadError};
use neurarch_kernels::ir::program::{Program, Role, ScalarOf, Slot, ValueId};
use neurarch_kernels::ir::rng_key::RngKey;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::passes::differentiate::{Crossing, WatchGradients, backward_watched};

use crate::compile::array::Erased;
use crate::compile::plans::check_stores;
use crate::compile::results::Results;
use crate::compile::trace;
use crate::compile::trace::gradient_of;
use crate::compile::trainable::Parameter;
use crate::errors::{NOT_SCALAR, StepError};
use crate::execute::cohort::Cohort;
use crate::execute::hooks::{Again, CallHooks, OuterHooks, Runner};
use crate::execute::loss_arrays::LossArrays;
use crate::execute::ready::read_scalar;
use crate::execute::shared::EagerGradients;
use crate::execute::step::check;
use crate::execute::updates::Updates;
use crate::storage::gather::gathered;
use crate::storage::recording::Recording;
use crate::structure::population::population;

/// A pass that was computed: its record is the tape. What it stores is written by [`commit`].
pub(crate) struct Recorded {
    program: Program,
    eager: Eager,
    /// What the models were called with, and whether its gradient is asked for.
    inputs: Vec<(ValueId, bool)>,
    results: Vec<ValueId>,
    /// The gradients of the inputs, row after row, where a backward pass found them.
    input_gradients: Vec<Option<Vec<u8>>>,
    /// The parameters that get a gradient.
    numbers: Vec<usize>,
    /// The gradients of parameters that are shared.
    shared: EagerGradients,
    /// The hooks that gradients will meet.
    calls: CallHooks,
    /// Whether what it drew was not counted yet.
    is_new: bool,
}

/// Rows of bytes, one for each member of a cohort.
pub(crate) struct Given<'a> {
    pub(crate) ty: Type,
    pub(crate) rows: Vec<&'a [u8]>,
    pub(crate) needs_gradient: bool,
}

impl Given<'_> {
    pub(crate) fn record(&self, trace: &Trace) -> Var {
        trace.input_of_rows(self.ty.clone(), self.rows.iter().copied())
    }
}

/// The results of a pass, the rows of all members side by side.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) results: Results,
    pub(crate) bytes: Vec<u8>,
}

impl Made {
    /// Keeps the rows of some of so many members, by their places.
    pub(crate) fn select(&mut self, members: &[usize], of: usize) {
        self.bytes = gathered(&self.bytes, self.bytes.len() / of.max(1), members);
    }
}

/// Runs the members of a cohort forward; nothing is written yet.
pub(crate) fn forward(
    world: &mut World,
    cohort: &mut Cohort,
    (shared, again): (Option<OuterHooks>, Again),
    given: &[Given<'_>],
    structure: Option<&Arguments<usize>>,
) -> Result<(Made, Recorded), StepError> {
    let slots = cohort.scheme.slots();
    let (trace, runner) = begin(world, cohort, (shared, again), &slots, None)?;
    let inputs: Vec<_> = given.iter().map(|given| given.record(&trace)).collect();
    let arguments = trace::nest(inputs.clone(), structure);
    let (vars, results) = trace::flatten(cohort.scheme.call(&trace, arguments, Some(&runner)));
    let (program, eager) = end(world, &trace, &runner)?;
    check_stores(&cohort.scheme, &program)?;
    let made = read_results(&eager, &vars, results)?;
    let needs = inputs.iter().zip(given).filter_map(|(x, of)| Some((x.id()?, of.needs_gradient)));
    let recorded = Recorded {
        program,
        eager,
        inputs: needs.collect(),
        results: vars.iter().filter_map(Var::id).collect(),
        input_gradients: Vec::new(),
        numbers: Vec::new(),
        shared: Vec::new(),
        calls: runner.take_calls(),
        is_new: true,
    };
    Ok((made, recorded))
}

impl Recorded {
    /// Leaves its memory to the next pass of the cohort.
    pub(crate) fn leave_memory(self, cohort: &mut Cohort) {
        cohort.spare = Some(Box::new((self.program, self.eager)));
    }

    /// Keeps some of the members, by their places, in that order.
    pub(crate) fn select(mut self, members: &[usize]) -> Self {
        self.eager.select(members);
        self
    }

    /// Takes what it stored for written, and what it drew for counted.
    pub(crate) fn kept(mut self) -> Self {
        self.program.stores.clear();
        self.is_new = false;
        self
    }

    /// Takes the gradients of what the models were called with, where they were asked for and the results
    /// depend on them: the rows of all members side by side.
    pub(crate) fn take_input_gradients(&mut self) -> Vec<Option<Vec<u8>>> {
        std::mem::take(&mut self.input_gradients)
    }

    /// Takes the gradients of parameters that are shared.
    pub(crate) fn take_shared(&mut self) -> EagerGradients {
        std::mem::take(&mut self.shared)
    }
}

/// Reads the rows of results, each result at its place in a row.
fn read_results(eager: &Eager, vars: &[Var], results: Results) -> Result<Made, StepError> {
    let mut bytes = vec![0; results.row_bytes * eager.models()];
    for (var, &offset) in vars.iter().zip(&results.offsets) {
        let (ty, all) = eager.read_bytes(var.id().ok_or(ReadError::Poisoned)?)?;
        let size = ty.size_bytes();
        for model in 0..eager.models() {
            bytes[model * results.row_bytes + offset..][..size]
                .copy_from_slice(&all[model * size..][..size]);
        }
    }
    Ok(Made { results, bytes })
}

/// Goes back from gradients of the result of a forward pass, and adds to the gradients of parameters, which
/// have columns; nothing is written yet.
pub(crate) fn backward(
    world: &mut World,
    cohort: &mut Cohort,
    (shared, again): (Option<OuterHooks>, Again),
    recorded: Recorded,
    gradients_of_results: &[Option<Given<'_>>],
) -> Result<Recorded, StepError> {
    let (trainable, shared_trainable) =
        (cohort.scheme.trainable(), cohort.scheme.shared_trainable());
    let gradients = gradient_slots(cohort);
    let mut runner = runner(world, cohort, shared)?.after(again);
    let Recorded { program, mut eager, inputs, results, calls, .. } = recorded;
    eager.take_time(world.contains_resource::<Recording>());
    let trace = Trace::resume_eager(program, eager);
    load(world, cohort, &gradients, &trace)?;
    runner.set_calls(calls);
    runner.go_back(&trace);
    let mut wrt = trace::of_parameters(&trace, &trainable, &shared_trainable);
    let asked = inputs.iter().filter(|(_, needed)| *needed);
    wrt.extend(asked.map(|&(x, _)| trace.var(x)));
    let floats = results.iter().map(|&y| trace.var(y)).filter(|y| y.dtype().is_float());
    let floats: Vec<_> = floats.collect();
    let given = floats.into_iter().zip(gradients_of_results);
    let pairs = given.filter_map(|(y, dy)| Some((y, dy.as_ref()?.record(&trace))));
    let pairs: Vec<_> = pairs.collect();
    let mut watch = HookWatcher { runner: &mut runner, trace: &trace, trainable: &trainable };
    let mut found = backward_watched(&trace, &pairs, &wrt, &mut watch);
    let mut of_inputs = found.split_off(trainable.len() + shared_trainable.len()).into_iter();
    let of_shared = found.split_off(trainable.len());
    let has_gradient = &cohort.scheme.has_gradient;
    let mut numbers = Vec::new();
    for (parameter, gradient) in trainable.iter().zip(found) {
        let Some(gradient) = gradient else { continue };
        let slot = trace.slot(gradient_of(&parameter.slot));
        let sum = match has_gradient.contains(parameter.number) {
            true => &slot + &gradient,
            false => gradient,
        };
        let Parameter { slot: of, .. } = parameter;
        runner.accumulated(&trace, of.position, of.own_name(), &sum);
        trace.store(&slot, &sum);
        numbers.push(parameter.number);
    }
    let (program, eager) = end(world, &trace, &runner)?;
    let shared = read_shared(&eager, &shared_trainable, of_shared)?;
    let mut input_gradients = Vec::new();
    for &(_, needed) in &inputs {
        let found = if needed { of_inputs.next().flatten() } else { None };
        let found = found.and_then(|gradient| gradient.id());
        let bytes = found.map(|id| eager.read_bytes(id).map(|(_, bytes)| bytes));
        input_gradients.push(bytes.transpose()?);
    }
    let calls = CallHooks::default();
    Ok(Recorded {
        program,
        eager,
        inputs,
        results,
        input_gradients,
        numbers,
        shared,
        calls,
        is_new: false,
    })
}

/// Reads the gradients of parameters that are shared, where there are any.
fn read_shared(
    eager: &Eager,
    shared: &[(usize, Parameter)],
    gradients: Vec<Option<Var>>,
) -> Result<EagerGradients, StepError> {
    let found = shared.iter().zip(gradients);
    let found = found.filter_map(|((place, _), gradient)| Some((*place, gradient?.id()?)));
    found.map(|(place, id)| Ok((place, eager.read_bytes(id)?.1))).collect()
}

/// Computes one training step: forward, loss, backward and updates on one record; nothing is written yet.
pub(crate) fn train_step(
    world: &mut World,
    cohort: &mut Cohort,
    (shared, again): (Option<OuterHooks>, Again),
    (loss, arrays): (&dyn DynLoss, &LossArrays),
    (x, structure): (&[Given<'_>], Option<&Arguments<usize>>),
    target: &Given<'_>,
) -> Result<(Made, Recorded), StepError> {
    let mut slots = cohort.scheme.slots();
    slots.extend(updates(cohort)?.slots.iter().cloned());
    let (trace, runner) = begin(world, cohort, (shared, again), &slots, Some(loss))?;
    let mut runner = runner.in_step();
    let x = trace::nest(x.iter().map(|x| x.record(&trace)).collect(), structure);
    let result = cohort.scheme.call(&trace, x, Some(&runner));
    if let (None, Tree::Leaf(y)) = (trace.error(), &result) {
        check_targets(loss, y, target, cohort)?;
    }
    let autocast = cohort.scheme.autocast;
    let loss = trace.autocast(autocast, || record_loss(&trace, loss, arrays, result, target));
    if loss.shape().rank() > 0 {
        trace.fail(NOT_SCALAR);
    }
    let (trainable, shared_trainable) =
        (cohort.scheme.trainable(), cohort.scheme.shared_trainable());
    let mut of_shared = Vec::new();
    if trace.error().is_none() {
        runner.go_back(&trace);
        let wrt = trace::of_parameters(&trace, &trainable, &shared_trainable);
        let one = trace.constant(1.0, loss.dtype(), []);
        let mut watch = HookWatcher { runner: &mut runner, trace: &trace, trainable: &trainable };
        let mut found = backward_watched(&trace, &[(loss.clone(), one)], &wrt, &mut watch);
        of_shared = found.split_off(trainable.len());
        for (Parameter { slot, .. }, gradient) in trainable.iter().zip(&found) {
            if let Some(gradient) = gradient {
                runner.accumulated(&trace, slot.position, slot.own_name(), gradient);
            }
        }
        cohort.scheme.updates(&trace, trainable.iter().map(|p| &p.slot).zip(found));
    }
    let (program, eager) = end(world, &trace, &runner)?;
    check_stores(&cohort.scheme, &program)?;
    let shared = read_shared(&eager, &shared_trainable, of_shared)?;
    let (vars, results) = trace::flatten(loss.into());
    let made = read_results(&eager, &vars, results)?;
    let recorded = Recorded {
        program,
        eager,
        inputs: Vec::new(),
        results: Vec::new(),
        input_gradients: Vec::new(),
        numbers: Vec::new(),
        shared,
        calls: CallHooks::default(),
        is_new: true,
    };
    Ok((made, recorded))
}

/// Checks that the targets of every member are classes, if the loss asks for classes.
fn check_targets(
    loss: &dyn DynLoss,
    y: &Var,
    target: &Given<'_>,
    cohort: &Cohort,
) -> Result<(), StepError> {
    let (dtype, shape) = (target.ty.dtype, &target.ty.shape);
    for (index, bytes) in cohort.at.members.indices().zip(&target.rows) {
        let given = Erased { dtype, shape, models: Some(1), bytes, needs_gradient: false };
        check::check_targets(loss.targets(y.ty()), given, shape.numel()).map_err(|error| {
            match error {
                StepError::Target { target, item, last, .. } => {
                    StepError::Target { target, model: index, item, last }
                }
                other => other,
            }
        })?;
    }
    Ok(())
}

/// Records a loss; all models read the same arrays.
pub(crate) fn record_loss(
    trace: &Trace,
    loss: &dyn DynLoss,
    arrays: &LossArrays,
    result: Tree,
    target: &Given<'_>,
) -> Var {
    let models = target.rows.len();
    let target = target.record(trace);
    let dtype = trace::dtype_of(&result);
    let arrays = loss.arrays().into_iter().zip(arrays.bytes()).map(|((name, array), bytes)| {
        let ty = Type::new(dtype, array.shape());
        let row = &bytes[..ty.size_bytes()];
        (name, trace.input_of_rows(ty, std::iter::repeat_n(row, models)))
    });
    let arrays: Vec<_> = arrays.collect();
    let call = LossCall::new(trace, &arrays);
    let loss = trace.contain("the loss", || loss.forward_with(&call, result, &target));
    loss.unwrap_or_else(|| trace.poison())
}

/// Lists the gradients of a cohort's parameters that a backward pass may write.
pub(crate) fn gradient_slots(cohort: &Cohort) -> Vec<Slot> {
    cohort.scheme.trainable().iter().map(|p| gradient_of(&p.slot)).collect()
}

/// Lists what the updates of a cohort read; they are recorded once, to see it.
pub(crate) fn updates(cohort: &mut Cohort) -> Result<Arc<Updates>, StepError> {
    if let Some(known) = &cohort.updates {
        return Ok(known.clone());
    }
    let trace = Trace::new();
    let trainable = cohort.scheme.trainable();
    let gradient = |slot: &Slot| Some(trace.slot(gradient_of(slot)));
    cohort.scheme.updates(&trace, trainable.iter().map(|p| (&p.slot, gradient(&p.slot))));
    let program = trace.finish(&[])?;
    let is_state = |slot: &Slot| matches!(slot.role, Role::State(_) | Role::Steps);
    let slots = program.slots.into_iter().filter(is_state).collect();
    let updates = Arc::new(Updates { slots, scalars: program.scalars });
    Ok(cohort.updates.insert(updates).clone())
}

/// Passes what becomes of gradients on to the hooks of modules and of parameters.
struct HookWatcher<'a> {
    runner: &'a mut Runner,
    trace: &'a Trace,
    trainable: &'a [Parameter],
}

impl WatchGradients for HookWatcher<'_> {
    fn leave(&mut self, call: Crossing<'_>, gradients: &mut [Option<Var>]) {
        self.runner.leave(call, gradients);
    }

    fn enter(&mut self, call: Crossing<'_>, gradients: &mut [Option<Var>]) {
        self.runner.enter(call, gradients);
    }

    fn known(&mut self, index: usize, gradient: &mut Var) {
        // What comes after the parameters is what the population shares, whose sum hooks see, and the input.
        let Some(Parameter { slot, .. }) = self.trainable.get(index) else { return };
        self.runner.gradient(self.trace, slot.position, slot.own_name(), gradient);
    }
}

/// Starts an eager record of the members of a cohort, the rows of `slots` loaded, and what calls their hooks.
fn begin(
    world: &mut World,
    cohort: &mut Cohort,
    (shared, again): (Option<OuterHooks>, Again),
    slots: &[Slot],
    loss: Option<&dyn DynLoss>,
) -> Result<(Trace, Runner), StepError> {
    let trace = open(world, cohort, again.keys(), slots, loss)?;
    let runner = runner(world, cohort, shared)?;
    Ok((trace, runner.after(again)))
}

/// Starts an eager record of the members of a cohort, the rows of `slots` loaded. They draw by `keys` if there are any, else
/// by their own random states.
pub(super) fn open(
    world: &mut World,
    cohort: &mut Cohort,
    keys: Option<&[RngKey]>,
    slots: &[Slot],
    loss: Option<&dyn DynLoss>,
) -> Result<Trace, StepError> {
    cohort.refresh_keys(world)?;
    let models = cohort.at.members.len();
    let (program, eager) = cohort.spare.take().map(|spare| *spare).unwrap_or_default();
    let keys = keys.unwrap_or_else(|| cohort.keys.get());
    let mut eager = eager.again(models, keys);
    if loss.is_some() {
        let of_updates = updates(cohort)?;
        let group = &population(world, cohort.at.population)?.groups()[cohort.at.group];
        for scalar in &of_updates.scalars {
            let numbers = read_scalar(world, &cohort.scheme, group, &cohort.places, scalar, loss)?;
            eager = eager.with_scalar(scalar.clone(), numbers);
        }
    }
    let group = &population(world, cohort.at.population)?.groups()[cohort.at.group];
    let types = world.get_resource::<ModuleTypes>();
    let module = |entity: Entity| -> Option<Box<dyn DynModule>> {
        Some(types?.module(world.get_entity(entity).ok()?)?.clone_box())
    };
    let of_position = |modules: &Vec<Entity>| -> Vec<_> {
        cohort.places.iter().map(|&place| module(modules[place as usize])).collect()
    };
    let modules: Vec<Vec<_>> = group.modules.iter().map(of_position).collect();
    let loss = loss.map(DynLoss::clone_box);
    eager.set_scalar_source(Box::new(move |scalar| {
        let number = |module: &Option<Box<dyn DynModule>>| match scalar.of {
            ScalarOf::Loss => loss.as_ref()?.scalar(scalar.name),
            ScalarOf::Module => module.as_ref()?.scalar(scalar.name),
            ScalarOf::Optimizer { .. } => None,
        };
        modules.get(scalar.position)?.iter().map(number).collect()
    }));
    eager.take_time(world.contains_resource::<Recording>());
    let trace = Trace::eager_in(program, eager);
    load(world, cohort, slots, &trace)?;
    Ok(trace)
}

fn runner(world: &World, cohort: &Cohort, shared: Option<OuterHooks>) -> Result<Runner, StepError> {
    let group = &population(world, cohort.at.population)?.groups()[cohort.at.group];
    let models = cohort.at.members.len();
    Ok(Runner::new(world, &cohort.scheme.blueprint, shared, group, cohort.hooked(), models))
}

/// Copies the members' rows of `slots`.
fn load(
    world: &mut World,
    cohort: &mut Cohort,
    slots: &[Slot],
    trace: &Trace,
) -> Result<(), StepError> {
    let at = &mut cohort.at;
    let written = vec![false; slots.len()];
    let bound = at.binder.bind(world, at.population, at.group, &at.members, slots, &written)?;
    for (number, slot) in slots.iter().enumerate() {
        let rows = (0..at.members.len()).map(|m| bound.row(number, m, slot.ty.size_bytes()));
        trace.set_slot((slot.role, slot.position, slot.index), rows);
    }
    Ok(())
}

/// Ends a record. A profile gets the times of its ops.
fn end(world: &mut World, trace: &Trace, runner: &Runner) -> Result<(Program, Eager), StepError> {
    let paused = trace.pause();
    match runner.take_failure() {
        Some(failure) => Err(failure),
        None => {
            let (program, mut eager) = paused?;
            runner.warn_all(&program);
            if let Some(mut recording) = world.get_resource_mut::<Recording>() {
                recording.note_nodes(&program, eager.models(), &eager.times());
            }
            Ok((program, eager))
        }
    }
}

/// Writes what a pass stored to the members' rows, and counts what it drew.
pub(crate) fn commit(
    world: &mut World,
    cohort: &mut Cohort,
    recorded: &mut Recorded,
) -> Result<(), StepError> {
    let stores = std::mem::take(&mut recorded.program.stores);
    let slots: Vec<_> =
        stores.iter().map(|&(slot, _)| recorded.program.slots[slot].clone()).collect();
    let rows = stores.iter().map(|&(_, value)| recorded.eager.read_bytes(value).map(|(_, b)| b));
    let rows = rows.collect::<Result<Vec<_>, _>>()?;
    let at = &mut cohort.at;
    let written = vec![true; slots.len()];
    let mut bound =
        at.binder.bind(world, at.population, at.group, &at.members, &slots, &written)?;
    for (number, (slot, bytes)) in slots.iter().zip(&rows).enumerate() {
        let row = slot.ty.size_bytes();
        for member in 0..at.members.len() {
            bound.row_mut(number, member, row).copy_from_slice(&bytes[member * row..][..row]);
        }
    }
    for number in recorded.numbers.drain(..) {
        cohort.scheme.has_gradient.set(number, true);
    }
    if recorded.is_new && recorded.program.nodes.iter().any(|node| node.op.is_random()) {
        cohort.advance_keys(world, 1);
    }
    recorded.is_new = false;
    Ok(())
}
