//! Blueprint, input types, modes, loss and optimizers → [`Program`]s.
//!
//! Plain functions: who calls them caches what they give (`cohort`).

use std::collections::HashMap;
use std::sync::Arc;

use ndarray::ArrayViewD;
use neurarch_components::losses::{DynLoss, LossCall};
use neurarch_components::module::blueprint::{Blueprint, Parameter as Declared};
use neurarch_components::module::call::{Cache, Call, Watcher};
use neurarch_components::module::mode::{Bits, Mode};
use neurarch_components::optimizer::{DynParamGroups, Update};
use neurarch_kernels::ir::autocast::Autocast;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Origin, Program, Role, Slot};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, TraceError, Var};
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::passes::checkpoint::{WayBack, checkpoint};
use neurarch_kernels::passes::clean::drop_dead_code;
use neurarch_kernels::passes::differentiate;
use neurarch_kernels::passes::split::{Cut, Split, split_at};

use crate::compile::entrance::Entrance;
use crate::compile::results::Results;
use crate::compile::script::{Act, Kinds, Script};
use crate::compile::trainable::Parameter;
use crate::execute::step::NOT_SCALAR;
use crate::structure::optimizers::group_of;

/// The optimizer of a position: the nearest, at it or above.
#[derive(Clone, Debug)]
pub(crate) struct NearestOptimizer {
    /// The position whose entity has the component.
    pub(crate) owner: usize,
    /// Its structural fields.
    pub(crate) optimizer: Arc<dyn DynParamGroups>,
}

impl PartialEq for NearestOptimizer {
    fn eq(&self, other: &Self) -> bool {
        self.owner == other.owner && self.optimizer.is_like(&*other.optimizer)
    }
}

/// What the models of a cohort have in common: all that decides their programs beside the arrays.
#[derive(Clone, Debug)]
pub(crate) struct Scheme {
    /// Their structure.
    pub(crate) blueprint: Arc<Blueprint>,
    /// Their modes.
    pub(crate) mode: Mode,
    /// Which of their parameters have a gradient.
    pub(crate) has_gradient: Bits,
    /// For each position, its optimizer.
    pub(crate) optimizers: Vec<Option<NearestOptimizer>>,
    /// What autocast does in their forward passes and losses.
    pub(crate) autocast: Option<Autocast>,
    /// Where they are entered; `None` at the root.
    pub(crate) entry: Option<Arc<Entrance>>,
}

/// What a model is called with.
pub(crate) struct Inputs<'a> {
    /// The types of the values.
    pub(crate) types: Vec<Type>,
    /// How they are nested: at each leaf the place in `types`; `None` if they are one value.
    pub(crate) structure: Option<&'a Arguments<usize>>,
}

impl Inputs<'_> {
    pub(crate) fn record(&self, trace: &Trace) -> Arguments {
        let vars: Vec<_> = self.types.iter().map(|ty| trace.input(ty.clone())).collect();
        nest(vars, self.structure)
    }
}

/// Puts values into the structure of arguments.
pub(crate) fn nest(vars: Vec<Var>, structure: Option<&Arguments<usize>>) -> Arguments {
    match structure {
        Some(structure) => structure.clone().map(&mut |place| vars[place].clone()),
        None => Arguments {
            positional: vars.into_iter().map(Tree::Leaf).collect(),
            keyword: Vec::new(),
        },
    }
}

/// Lists the values of a result, and describes them.
pub(crate) fn flatten(result: Tree) -> (Vec<Var>, Results) {
    let mut vars = Vec::new();
    let tree = result.map(&mut |var| {
        vars.push(var);
        vars.len() - 1
    });
    let types = vars.iter().map(|var| var.ty().clone()).collect();
    (vars, Results::new(types, tree))
}

impl Scheme {
    /// Lists the parameters in the order of `named_parameters()`: tied ones once, under their owner.
    fn parameters(&self) -> Vec<Parameter> {
        let positions = self.blueprint.positions.iter().enumerate();
        let all = positions.flat_map(|(position, at)| {
            at.parameters.iter().map(move |parameter| (position, parameter))
        });
        let own = all.enumerate().filter(|(_, (_, parameter))| parameter.has_column());
        let found = own.filter_map(|(number, (position, parameter))| {
            let slot = self.blueprint.parameter(position, &parameter.name)?;
            Some(Parameter { number, slot })
        });
        found.collect()
    }

    /// Lists those that need a gradient.
    pub(crate) fn trainable(&self) -> Vec<Parameter> {
        let mut parameters = self.parameters();
        parameters.retain(|p| !self.mode.frozen.contains(p.number) && p.slot.ty.dtype.is_float());
        parameters
    }

    /// Lists the parameters that the population's models share, each with its place among what they share.
    pub(crate) fn shared(&self) -> Vec<(usize, Parameter)> {
        let mut shared = Vec::new();
        for (position, at) in self.blueprint.positions.iter().enumerate() {
            for (index, of) in at.parameters.iter().enumerate().filter(|(_, of)| of.tied.is_none())
            {
                let number = self.blueprint.number(position, index);
                let slot = self.blueprint.parameter(position, &of.name);
                let found = of.shared.zip(slot);
                shared.extend(found.map(|(row, slot)| (row.index, Parameter { number, slot })));
            }
        }
        shared
    }

    /// Lists those of them that need a gradient here.
    pub(crate) fn shared_trainable(&self) -> Vec<(usize, Parameter)> {
        let mut shared = self.shared();
        shared.retain(|(_, p)| !self.mode.frozen.contains(p.number) && p.slot.ty.dtype.is_float());
        shared
    }

    /// Returns whether some parameter needs a gradient.
    pub(crate) fn has_trainable(&self) -> bool {
        !self.trainable().is_empty() || !self.shared_trainable().is_empty()
    }

    /// Lists the gradients that there are.
    pub(crate) fn gradients(&self) -> Vec<Slot> {
        let mut parameters = self.parameters();
        parameters.retain(|parameter| self.has_gradient.contains(parameter.number));
        parameters.iter().map(|parameter| gradient_of(&parameter.slot)).collect()
    }

    /// Returns whether some parameter has an optimizer.
    pub(crate) fn has_optimizer(&self) -> bool {
        self.optimizers.iter().any(Option::is_some)
    }

    /// Records a call of the model, or of the module where it is entered, watched if somebody watches. What autocast lowered comes out in single
    /// precision: arrays cross the border of a population in the type of its models.
    pub(crate) fn call(
        &self,
        trace: &Trace,
        arguments: Arguments,
        watcher: Option<&dyn Watcher>,
    ) -> Tree {
        let training: Vec<_> = (0..self.blueprint.positions.len())
            .map(|position| !self.mode.evaluating.contains(position))
            .collect();
        let blueprint = &self.blueprint;
        let made = Cache::default();
        let cache = self.mode.cached.then_some(&made);
        let checkpoints = self.mode.checkpoints.as_deref();
        let (position, training) = (0, training.as_slice());
        let call = Call { trace, blueprint, position, training, watcher, cache, checkpoints };
        let run = |arguments: Arguments| match &self.entry {
            Some(entry) => entry.call(&call, arguments),
            None => call.run(arguments),
        };
        let Some(autocast) = self.autocast else { return run(arguments) };
        let is_half = |var: &Var| var.dtype().is_half();
        let mut asks_for_halves = false;
        let arguments = arguments.map(&mut |var| {
            asks_for_halves |= is_half(&var);
            var
        });
        let result = trace.autocast(Some(autocast), || run(arguments));
        result.map(&mut |var| match is_half(&var) && !asks_for_halves {
            true => var.to(Dtype::F32),
            false => var,
        })
    }

    /// Lists the parameters and buffers.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let positions = self.blueprint.positions.iter().enumerate();
        let slots = positions.flat_map(|(position, at)| {
            let is_there = |of: &&Declared| of.has_column() || of.shared.is_some();
            let parameters = at.parameters.iter().filter(is_there);
            let parameters = parameters.map(move |of| self.blueprint.parameter(position, &of.name));
            let buffers = at.buffers.iter().filter(is_there);
            parameters.chain(buffers.map(move |of| self.blueprint.buffer(position, &of.name)))
        });
        slots.flatten().collect()
    }

    /// Records the update of one parameter, if it has an optimizer.
    fn update(&self, trace: &Trace, slot: &Slot, gradient: &Var, steps: &mut [Option<Var>]) {
        let Some(NearestOptimizer { owner, optimizer }) = &self.optimizers[slot.position] else {
            return;
        };
        let who = format_args!("{}: the optimizer", slot.name);
        let path = &self.blueprint.positions[*owner].path;
        let Slot { name, ty, .. } = slot;
        let group = trace.contain(who, || group_of(&**optimizer, path, name, &ty.shape));
        let Some((group, rule)) = group.and_then(|at| Some((at, optimizer.group(at)?))) else {
            return;
        };
        let states = (0..rule.states().len())
            .map(|state| trace.slot(Slot { role: Role::State(state as u8), ..slot.clone() }))
            .collect::<Vec<_>>();
        let before =
            steps[slot.position].take().unwrap_or_else(|| trace.slot(self.steps(slot.position)));
        let update = Update {
            trace,
            owner: *owner,
            group,
            index: slot.index,
            // What the forward pass has made of it, where it writes to its own parameters.
            parameter: &trace.stored(&trace.slot(slot.clone())),
            gradient,
            states: &states,
            steps: &before,
        };
        steps[slot.position] = trace.contain(who, || rule.update(&update));
    }

    /// Records the updates of parameters that have a gradient and an optimizer.
    pub(crate) fn updates<'s>(
        &self,
        trace: &Trace,
        gradients: impl Iterator<Item = (&'s Slot, Option<Var>)>,
    ) {
        let mut steps = self.no_steps();
        for (slot, gradient) in gradients {
            if let Some(gradient) = gradient {
                self.update(trace, slot, &gradient, &mut steps);
            }
        }
        self.store_steps(trace, steps);
    }

    /// Records that the counts of steps become what the updates made of them.
    fn store_steps(&self, trace: &Trace, steps: Vec<Option<Var>>) {
        for (position, steps) in steps.into_iter().enumerate() {
            if let Some(steps) = steps {
                trace.store(&trace.slot(self.steps(position)), &steps);
            }
        }
    }

    pub(crate) fn steps(&self, position: usize) -> Slot {
        let at = &self.blueprint.positions[position];
        let name = if at.path.is_empty() { "step".into() } else { format!("{}.step", at.path) };
        let ty = Type::new(Dtype::F32, [at.parameters.len()]);
        Slot { name, role: Role::Steps, position, index: 0, ty }
    }

    fn no_steps(&self) -> Vec<Option<Var>> {
        vec![None; self.blueprint.positions.len()]
    }
}

/// Returns, for each position, the optimizer that is nearest to it, of those that positions have of their own.
pub(crate) fn nearest(
    blueprint: &Blueprint,
    owned: &[(usize, Option<Arc<dyn DynParamGroups>>)],
) -> Vec<Option<NearestOptimizer>> {
    let mut groups: Vec<Option<NearestOptimizer>> = Vec::with_capacity(blueprint.positions.len());
    for (position, at) in blueprint.positions.iter().enumerate() {
        let own = owned.iter().find(|(owner, _)| *owner == position);
        let own = own.and_then(|(_, optimizer)| optimizer.clone());
        let above = at.parent.and_then(|parent| groups[parent].clone());
        groups.push(own.map(|optimizer| NearestOptimizer { owner: position, optimizer }).or(above));
    }
    groups
}

/// Returns the slot of a parameter's gradient.
pub(crate) fn gradient_of(parameter: &Slot) -> Slot {
    Slot { role: Role::Gradient, ..parameter.clone() }
}

/// Records a forward pass: from what the model is called with to its results, and what hooks see.
pub(crate) fn forward(
    of: &Scheme,
    inputs: &Inputs<'_>,
    watched: &[Kinds],
) -> Result<(Program, Results, Act), TraceError> {
    let trace = Trace::new();
    let script = Script::new(watched, &[]);
    let (vars, results) = flatten(of.call(&trace, inputs.record(&trace), Some(&script)));
    check_script(&trace, &script);
    let mut program = trace.finish(&vars)?;
    let act = script.end_act();
    program.outputs.extend(&act.seen);
    Ok((program, results, act))
}

/// Makes it an error if what hooks would be told depends on the numbers that a pass meets.
fn check_script(trace: &Trace, script: &Script<'_>) {
    if script.depends_on_numbers() {
        trace.fail("which modules are called depends on numbers");
    }
}

/// The places, among what a population shares, of the parameters whose gradients a program gives as its last
/// outputs: they are summed over the models.
pub(crate) type SharedOutputs = Vec<usize>;

/// Records a forward pass that writes a tape, and the backward pass that reads it: inputs are what the model
/// is called with, then the gradients of its floating results; the gradients are added to those that
/// parameters have already, those of parameters that are shared are the backward pass's outputs.
///
/// `given` says for each floating result whether its gradient is given; if it is empty, all are. Parameters that only
/// other results depend on get no gradient, and hooks see nothing.
pub(crate) fn forward_and_backward(
    of: &Scheme,
    inputs: &Inputs<'_>,
    given: &[bool],
    watched: &[Kinds],
) -> Result<BackAndForth, TraceError> {
    let trace = Trace::new();
    let trainable = of.trainable();
    let mut script = Script::new(watched, &trainable);
    let (vars, results) = flatten(of.call(&trace, inputs.record(&trace), Some(&script)));
    check_script(&trace, &script);
    let forth = script.end_act();
    let floats = vars.iter().filter(|var| var.dtype().is_float());
    let pairs: Vec<_> = floats.map(|y| (y.clone(), trace.input(y.ty().clone()))).collect();
    for (slot, sum) in record_gradients(of, &trace, &pairs, &mut script) {
        trace.store(&slot, &sum);
    }
    let back = script.end_act();
    // The tape is written before anybody knows which gradients will be given, so it is that of all.
    let mut some = Vec::new();
    if given.contains(&false) {
        let pairs = pairs.into_iter().zip(given).filter(|(_, given)| **given);
        let pairs: Vec<_> = pairs.map(|(pair, _)| pair).collect();
        some = record_gradients(of, &trace, &pairs, &mut Script::new(&[], &trainable));
    }
    let mut program = trace.finish(&vars)?;
    program.outputs.extend(forth.seen.iter().chain(&back.seen));
    if given.contains(&false) && some.is_empty() {
        let is_gradient = |slot: usize| program.slots[slot].role == Role::Gradient;
        let kept = program.stores.iter().copied().filter(|&(slot, _)| !is_gradient(slot));
        program.stores = kept.collect();
    }
    for (slot, sum) in &some {
        let slot = slot.id().map(|id| program.values[id].origin);
        if let (Some(Origin::Slot(slot)), Some(sum)) = (slot, sum.id()) {
            program.stores.push((slot, sum));
        }
    }
    let n_backward_outputs = back.seen.len();
    let cut = Cut { n_forward_inputs: inputs.types.len(), n_backward_outputs, n_some: some.len() };
    let mut split = split_at(checkpoint(program, WayBack::Later), cut);
    let shared = give_stores(&mut split.backward, &of.shared_trainable());
    Ok(BackAndForth { split, results, shared, forth, back })
}

/// A forward pass and its backward pass, as programs.
pub(crate) struct BackAndForth {
    pub(crate) split: Split,
    /// What the model gives.
    pub(crate) results: Results,
    /// The places of the shared parameters whose gradients are the backward program's last outputs.
    pub(crate) shared: SharedOutputs,
    /// What hooks will be told of in the forward pass: what they see are outputs behind the results.
    pub(crate) forth: Act,
    /// What they will be told of in the backward pass: what they see are the first outputs.
    pub(crate) back: Act,
}

/// Records the gradients of parameters from those of results: pairs of a slot and what it becomes. They are
/// added to what parameters have; those of parameters that are shared are not.
fn record_gradients(
    of: &Scheme,
    trace: &Trace,
    pairs: &[(Var, Var)],
    script: &mut Script<'_>,
) -> Vec<(Var, Var)> {
    let (trainable, shared) = (of.trainable(), of.shared_trainable());
    let wrt = of_parameters(trace, &trainable, &shared);
    let mut gradients = script.backward(trace, pairs, &wrt);
    let of_shared = gradients.split_off(trainable.len());
    let mut sums = Vec::new();
    for (parameter, gradient) in trainable.iter().zip(gradients) {
        let Some(gradient) = gradient else { continue };
        let slot = trace.slot(gradient_of(&parameter.slot));
        let sum = match of.has_gradient.contains(parameter.number) {
            true => &slot + &gradient,
            false => gradient,
        };
        script.accumulated(&parameter.slot, &sum);
        sums.push((slot, sum));
    }
    for ((_, parameter), gradient) in shared.iter().zip(of_shared) {
        let slot = trace.slot(gradient_of(&parameter.slot));
        sums.extend(gradient.map(|gradient| (slot, gradient)));
    }
    sums
}

/// Lists parameters as values: those of the model, then those that are shared.
pub(crate) fn of_parameters(
    trace: &Trace,
    own: &[Parameter],
    shared: &[(usize, Parameter)],
) -> Vec<Var> {
    let all = own.iter().chain(shared.iter().map(|(_, parameter)| parameter));
    all.map(|parameter| trace.slot(parameter.slot.clone())).collect()
}

/// Makes outputs of what a program stores to the gradients of parameters that are shared; gives their places
/// in the order of the outputs.
fn give_stores(program: &mut Program, shared: &[(usize, Parameter)]) -> SharedOutputs {
    let shared: HashMap<_, _> =
        shared.iter().map(|(place, of)| ((of.slot.position, of.slot.index), *place)).collect();
    let mut places = Vec::new();
    let stores = std::mem::take(&mut program.stores);
    for (slot, value) in stores {
        let Slot { role, position, index, .. } = program.slots[slot];
        let of = shared.get(&(position, index)).filter(|_| role == Role::Gradient);
        match of {
            Some(&place) => {
                program.outputs.push(value);
                places.push(place);
            }
            None => program.stores.push((slot, value)),
        }
    }
    *program = drop_dead_code(std::mem::take(program));
    places
}

/// Records a loss: inputs `y`, the target and the loss's arrays; outputs the loss, and the gradient of
/// `y` if the loss is one number.
pub(crate) fn loss(
    of: &dyn DynLoss,
    autocast: Option<Autocast>,
    y: Type,
    target: Type,
) -> Result<Program, TraceError> {
    let trace = Trace::new();
    let y = trace.input(y);
    let result = y.clone().into();
    let loss = trace.autocast(autocast, || call_loss(&trace, of, result, target));
    let mut outputs = vec![loss.clone()];
    if loss.shape().rank() == 0 && trace.error().is_none() {
        let one = trace.constant(1.0, loss.dtype(), []);
        let gradient = differentiate::backward(&trace, &[(loss, one)], std::slice::from_ref(&y));
        outputs.extend(gradient.into_iter().flatten());
    }
    trace.finish(&outputs)
}

fn call_loss(trace: &Trace, of: &dyn DynLoss, result: Tree, target: Type) -> Var {
    let target = trace.input(target);
    let dtype = dtype_of(&result);
    let array = |(name, array): (&'static str, ArrayViewD<'_, f64>)| {
        (name, trace.input(Type::new(dtype, array.shape())))
    };
    let arrays: Vec<_> = of.arrays().into_iter().map(array).collect();
    let call = LossCall::new(trace, &arrays);
    let loss = trace.contain("the loss", || of.forward_with(&call, result, &target));
    loss.unwrap_or_else(|| trace.poison())
}

/// Returns the dtype of a loss's arrays: that of the first floating value of a result.
pub(crate) fn dtype_of(result: &Tree) -> Dtype {
    let mut dtypes = result.leaves().into_iter().map(Var::dtype);
    dtypes.find(|dtype| dtype.is_float()).unwrap_or(Dtype::F32)
}

/// A training step as a program.
pub(crate) struct TrainStep {
    pub(crate) program: Program,
    /// What the model gives.
    pub(crate) results: Results,
    /// The places of the shared parameters whose gradients are outputs.
    pub(crate) shared: SharedOutputs,
    /// What hooks will be told of: what they see are the last outputs.
    pub(crate) act: Act,
}

/// Records forward pass, loss, backward pass and updates in one: inputs are what the model is called with, the
/// target and the loss's arrays; outputs the loss and the gradients of parameters that are shared, then what hooks
/// see.
pub(crate) fn train_step(
    of: &Scheme,
    loss: &dyn DynLoss,
    inputs: &Inputs<'_>,
    target: Type,
    watched: &[Kinds],
) -> Result<TrainStep, TraceError> {
    let trace = Trace::new();
    let (trainable, shared) = (of.trainable(), of.shared_trainable());
    let mut script = Script::new(watched, &trainable);
    let result = of.call(&trace, inputs.record(&trace), Some(&script));
    let (_, results) = flatten(result.clone());
    let loss = trace.autocast(of.autocast, || call_loss(&trace, loss, result, target));
    if loss.shape().rank() > 0 {
        trace.fail(NOT_SCALAR);
    }
    if let Some(error) = trace.error() {
        return Err(error);
    }
    let wrt = of_parameters(&trace, &trainable, &shared);
    let one = trace.constant(1.0, loss.dtype(), []);
    let mut gradients = script.backward(&trace, &[(loss.clone(), one)], &wrt);
    let of_shared = gradients.split_off(trainable.len());
    for (parameter, gradient) in trainable.iter().zip(&gradients) {
        gradient.iter().for_each(|gradient| script.accumulated(&parameter.slot, gradient));
    }
    of.updates(&trace, trainable.iter().map(|p| &p.slot).zip(gradients));
    let (mut outputs, mut places) = (vec![loss], Vec::new());
    for ((place, _), gradient) in shared.iter().zip(of_shared) {
        let Some(gradient) = gradient else { continue };
        outputs.push(gradient);
        places.push(*place);
    }
    let mut program = trace.finish(&outputs)?;
    let act = script.end_act();
    program.outputs.extend(&act.seen);
    let program = checkpoint(program, WayBack::AtOnce);
    Ok(TrainStep { program, results, shared: places, act })
}

/// Records the updates of all parameters that have a gradient, from their gradient columns.
pub(crate) fn step(of: &Scheme) -> Result<Program, TraceError> {
    let trace = Trace::new();
    let parameters = of.parameters();
    let with_gradient = parameters.iter().filter(|p| of.has_gradient.contains(p.number));
    let gradient = |slot: &Slot| Some(trace.slot(gradient_of(slot)));
    of.updates(&trace, with_gradient.map(|p| (&p.slot, gradient(&p.slot))));
    trace.finish(&[])
}

/// Records that the gradients that there are become zero.
pub(crate) fn zero_gradients(of: &Scheme) -> Result<Program, TraceError> {
    let trace = Trace::new();
    for slot in of.gradients() {
        let gradient = trace.slot(slot);
        let zeros = trace.constant(0.0, gradient.dtype(), gradient.shape().clone());
        trace.store(&gradient, &zeros);
    }
    trace.finish(&[])
}
