//! [`Runner`]: calls the hooks of a pass, in torch's order.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use bevy_ecs::prelude::*;
use neurarch_components::hook::{At, Callback, Gradients, Hook, HookError, HookKind, Hooks, Look};
use neurarch_components::module::blueprint::{Blueprint, Position};
use neurarch_components::module::call::{Call, Watcher};
use neurarch_components::module::registered::tensor_typename;
use neurarch_components::population::group::Group;
use neurarch_components::warnings::Warnings;
use neurarch_kernels::ir::program::Program;
use neurarch_kernels::ir::trace::{Trace, Var, panic_message};
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::passes::differentiate::{Crossing, WatchGradients};

use super::answer::{Again, Answer, List, Told};
use super::{Kinds, OuterHooks};
use crate::compile::non_full::warn_non_full;
use crate::errors::StepError;

/// The hooks that gradients will meet at the module calls of a pass, by the scope of the call: those that
/// there were when it began, as in torch.
#[derive(Clone, Default)]
pub(crate) struct CallHooks(HashMap<usize, OfCall>);

impl CallHooks {
    /// Returns whether gradients will meet none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Clone)]
struct OfCall {
    position: usize,
    before: List,
    after: List,
}

/// torch's warning where gradients arrive at a call none of whose inputs needs one.
const NO_INPUT: &str = "Full backward hook is firing when gradients are computed with respect to module outputs since no \
    inputs require gradients. See \
    https://docs.pytorch.org/docs/main/generated/torch.nn.Module.html#torch.nn.Module.register_full_backward_hook for \
    more details.";

/// Calls the hooks of a pass of one model, or of a cohort.
pub(crate) struct Runner {
    shared: OuterHooks,
    /// For each position, the module's own hooks, if the pass is of one model with hooks.
    own: Vec<Option<(Entity, Hooks)>>,
    blueprint: Arc<Blueprint>,
    models: usize,
    failure: RefCell<Option<StepError>>,
    calls: RefCell<CallHooks>,
    /// For each module call, the gradients of its outputs.
    arrived: HashMap<usize, Gradients>,
    trace: Option<Trace>,
    /// Whether the pass is a training step.
    is_step: bool,
    /// Whether the pass is computed already, so that no answer can change it.
    is_observed: bool,
    /// Whether it cannot be made again: what fails then is an error at once.
    is_final: bool,
    /// What hooks did so far in an observed pass; what they did in one that is made again.
    again: RefCell<Again>,
    warnings: Warnings,
    /// Whether there may be backward hooks that are not full: few have any, and each look takes a lock.
    has_non_full: bool,
}

impl Runner {
    /// Prepares for a pass of the member at `place` with hooks of its own, or of a whole cohort.
    pub(crate) fn new(
        world: &World,
        blueprint: &Arc<Blueprint>,
        shared: Option<OuterHooks>,
        group: &Group,
        hooked: Option<usize>,
        models: usize,
    ) -> Self {
        let own = |position: usize| {
            let module = group.modules[position][hooked?];
            world.get::<Hooks>(module).map(|hooks| (module, hooks.share()))
        };
        let shared = shared.unwrap_or_default();
        let own: Vec<_> = (0..blueprint.positions.len()).map(own).collect();
        let of_population = shared.population.0.iter().map(|(_, hooks)| hooks);
        let of_model = own.iter().flatten().map(|(_, hooks)| hooks);
        let mut all = std::iter::once(&shared.global).chain(of_population).chain(of_model);
        let has_non_full = all.any(|hooks| hooks.have(&[HookKind::NonFullBackward]));
        Runner {
            has_non_full,
            shared,
            own,
            blueprint: blueprint.clone(),
            models,
            failure: RefCell::new(None),
            calls: RefCell::default(),
            arrived: HashMap::new(),
            trace: None,
            is_step: false,
            is_observed: false,
            is_final: false,
            again: RefCell::default(),
            warnings: Warnings::of(world),
        }
    }

    /// Says that the pass is computed already: what hooks answer is kept, from the first that changes something
    /// on none is called. If the pass `is_final`, its hooks only look, and one that fails is an error at once.
    pub(super) fn observing(mut self, is_final: bool) -> Self {
        (self.is_observed, self.is_final) = (true, is_final);
        self
    }

    /// Goes on to another model of the cohort, whose own hooks are at the positions of these kinds.
    pub(super) fn turn_to(&mut self, world: &World, group: &Group, place: usize, kinds: &[Kinds]) {
        self.has_non_full |= kinds.iter().any(|kinds| kinds.any(&[HookKind::NonFullBackward]));
        for (position, (own, kinds)) in self.own.iter_mut().zip(kinds).enumerate() {
            let module = group.modules[position][place];
            let hooks = if kinds.is_empty() { None } else { world.get::<Hooks>(module) };
            *own = hooks.map(|hooks| (module, hooks.share()));
        }
    }

    /// Says that hooks were called already in an observed pass: those calls are not made again.
    pub(crate) fn after(mut self, again: Again) -> Self {
        self.again = RefCell::new(again);
        self
    }

    /// Returns whether a hook changed something in an observed pass, or failed.
    pub(super) fn is_over(&self) -> bool {
        self.again.borrow().has_answer() || self.failure.borrow().is_some()
    }

    /// Takes what hooks did in an observed pass, and whom gradients will meet.
    pub(super) fn end_turn(&mut self) -> (Again, CallHooks) {
        self.arrived.clear();
        (self.again.take(), self.calls.take())
    }

    /// Says that the pass is a training step.
    pub(crate) fn in_step(mut self) -> Self {
        self.is_step = true;
        self
    }

    /// Goes on with the gradients of what was recorded on `trace`.
    pub(crate) fn go_back(&mut self, trace: &Trace) {
        self.trace = Some(trace.clone());
    }

    /// Takes the hooks that gradients will meet, for a pass back by another runner.
    pub(crate) fn take_calls(&self) -> CallHooks {
        self.calls.take()
    }

    /// Returns the hooks that gradients will meet.
    pub(crate) fn set_calls(&mut self, calls: CallHooks) {
        self.calls = RefCell::new(calls);
    }

    /// Returns the error of the first hook that failed.
    pub(crate) fn take_failure(&self) -> Option<StepError> {
        self.failure.borrow_mut().take()
    }

    /// Lists the hooks of a kind at a position: those of all modules, of the population, of the module.
    fn hooks(&self, position: usize, kind: HookKind) -> List {
        if self.is_observed {
            let list = self.hooks_now(position, kind);
            self.again.borrow_mut().push_list(position, kind, &list);
            return list;
        }
        let known = self.again.borrow_mut().take_list(position, kind);
        known.unwrap_or_else(|| self.hooks_now(position, kind))
    }

    fn hooks_now(&self, position: usize, kind: HookKind) -> List {
        let path = &self.blueprint.positions[position].path;
        let mut list = List::new();
        let mut add = |hooks: &Hooks, entity: Option<Entity>| {
            hooks.for_each(kind, |hook| list.push((hook.clone(), entity)));
        };
        add(&self.shared.global, None);
        self.shared.population.at(path).into_iter().for_each(|hooks| add(hooks, None));
        self.own[position].iter().for_each(|(entity, hooks)| add(hooks, Some(*entity)));
        list
    }

    /// Calls a hook; an error of its own, or a panic, becomes one that names the module and the hook.
    fn call(
        &self,
        trace: &Trace,
        position: usize,
        number: usize,
        (hook, entity): &(Hook, Option<Entity>),
        told: &Told<'_>,
    ) -> Result<Answer, ()> {
        if self.is_observed && self.is_over() {
            return Err(());
        }
        let known = match self.is_observed {
            true => None,
            false => self.again.borrow_mut().answer(trace, told),
        };
        let Position { path, module, .. } = &self.blueprint.positions[position];
        let module = module.type_name();
        let at = At { trace, path, module, entity: *entity, models: self.models };
        let run = AssertUnwindSafe(|| {
            let mut callback = hook.callback.lock().unwrap_or_else(PoisonError::into_inner);
            answer(&mut callback, &at, told)
        });
        let run = || {
            let result = trace.closed(|| catch_unwind(run));
            result.unwrap_or_else(|panic| Err(panic_message(&*panic).into()))
        };
        let answer = known.unwrap_or_else(|| run().unwrap_or_else(Answer::Failed));
        let answer = answer.map(&mut |var| trace.own(var));
        if self.is_observed {
            let wrong = trace.error().map(|error| Answer::Wrong(error.message));
            let answer =
                if let Answer::Failed(_) = answer { answer } else { wrong.unwrap_or(answer) };
            let failure = match &answer {
                Answer::Failed(error) => Some(self.failure_of(position, hook.kind, number, error)),
                Answer::Wrong(_) => trace.error().map(StepError::from),
                _ => None,
            };
            if let Some(failure) = failure.filter(|_| self.is_final) {
                *self.failure.borrow_mut() = Some(failure);
                return Err(());
            }
            return Ok(self.again.borrow_mut().keep(told, answer));
        }
        let result = match answer {
            Answer::Failed(error) => Err(error),
            Answer::Wrong(message) => {
                trace.fail(message);
                Ok(Answer::Nothing)
            }
            answer => Ok(answer),
        };
        result.map_err(|error| {
            if hook.always_call && trace.error().is_some() {
                self.warn_silenced(module, hook, &error);
            }
            let failure = self.failure_of(position, hook.kind, number, &error);
            if self.failure.borrow().is_none() && trace.error().is_none() {
                *self.failure.borrow_mut() = Some(failure);
            }
            trace.fail(error.to_string());
        })
    }

    /// Warns of an error that another one came before.
    fn warn_silenced(&self, module: &str, hook: &Hook, error: &HookError) {
        let is_this = |of: &Hook| Arc::ptr_eq(&of.callback, &hook.callback);
        let is_global = self.shared.global.list(hook.kind).iter().any(is_this);
        let whose = if is_global { "global module" } else { "module" };
        let message = format!(
            "{whose} forward hook with ``always_call=True`` raised an exception that was silenced as another error was \
             raised in forward: {error}"
        );
        self.warnings.warn(module, &message);
    }

    /// Returns the warnings of the recording.
    pub(crate) fn warn_all(&self, program: &Program) {
        self.warnings.warn_all(&program.warnings);
    }

    /// Names the module and the hook that failed.
    fn failure_of(
        &self,
        position: usize,
        kind: HookKind,
        number: usize,
        error: &HookError,
    ) -> StepError {
        let Position { path, module, .. } = &self.blueprint.positions[position];
        let path = if path.is_empty() { module.type_name().to_owned() } else { path.clone() };
        StepError::Hook { path, kind, number, message: error.to_string() }
    }

    /// Checks what a hook put in the place of gradients.
    fn accept(&self, trace: &Trace, kind: HookKind, gradients: &mut [Option<Var>], new: Gradients) {
        if new.len() != gradients.len() {
            let (given, expected) = (new.len(), gradients.len());
            let (hook, of) = match kind {
                HookKind::BackwardPre => ("Backward pre hook", "grad_output"),
                _ => ("Backward hook", "grad_input"),
            };
            trace.fail(format!(
                "{hook} returned an invalid number of {of}, got {given}, but expected {expected}"
            ));
            return;
        }
        for (old, new) in gradients.iter_mut().zip(new) {
            if let (Some(old), Some(new)) = (old.as_ref(), new.as_ref()) {
                check_replaced(trace, old, new);
            }
            *old = new;
        }
    }

    /// Calls the full backward hooks of a call.
    fn backward(
        &self,
        trace: &Trace,
        Crossing { scope, needs }: Crossing<'_>,
        of: &OfCall,
        inputs: &mut [Option<Var>],
    ) {
        let outputs = self.arrived.get(&scope).cloned().unwrap_or_default();
        for (number, hook) in of.after.iter().enumerate() {
            if trace.error().is_some() {
                return;
            }
            let told = Told::Backward(inputs, &outputs);
            if let Ok(Answer::Gradients(new)) = self.call(trace, of.position, number, hook, &told) {
                if !needs.contains(&true) && hook.0.kind == HookKind::NonFullBackward {
                    continue;
                }
                if !needs.contains(&true) && new.iter().any(Option::is_some) {
                    trace.fail(
                        "Backward hook for Modules where no input requires gradient should always return None or \
                         None for all gradients.",
                    );
                    return;
                }
                self.accept(trace, HookKind::Backward, inputs, new);
            }
        }
    }

    /// Returns whether a hook is told of gradients of parameters at a position.
    pub(crate) fn watches_gradients(&self, position: usize) -> bool {
        let kinds = [HookKind::Gradient, HookKind::PostAccumulateGrad];
        kinds.into_iter().any(|kind| !self.hooks(position, kind).is_empty())
    }

    /// Tells of the whole `.grad` of a parameter.
    pub(crate) fn accumulated(&self, trace: &Trace, position: usize, name: &str, grad: &Var) {
        let hooks = self.hooks(position, HookKind::PostAccumulateGrad);
        for (number, hook) in hooks.iter().enumerate() {
            let told = Told::PostAccumulateGrad(name, grad);
            if self.call(trace, position, number, hook, &told).is_err() {
                return;
            }
        }
    }

    /// Shows the gradient of a parameter, and gives what is in its place afterwards.
    pub(crate) fn gradient(&self, trace: &Trace, position: usize, name: &str, grad: &mut Var) {
        for (number, hook) in self.hooks(position, HookKind::Gradient).iter().enumerate() {
            let told = Told::Gradient(name, grad);
            match self.call(trace, position, number, hook, &told) {
                Ok(Answer::Gradient(new)) => {
                    let mut one = [Some(grad.clone())];
                    self.accept(trace, HookKind::Gradient, &mut one, vec![Some(new)]);
                    if let [Some(new)] = one {
                        *grad = new;
                    }
                }
                Ok(_) => {}
                Err(()) => return,
            }
        }
    }
}

/// Checks that what takes the place of a gradient is of its type; torch's words.
fn check_replaced(trace: &Trace, old: &Var, new: &Var) {
    if old.dtype() != new.dtype() {
        let [was, got] = [old, new].map(|var| tensor_typename(var.dtype()));
        trace.fail(format!("hook has changed the type of value (was {was} got {got})"));
    } else if old.shape() != new.shape() {
        let (expected, given) = (old.shape(), new.shape());
        trace.fail(format!("hook has changed the size of value: {expected}, got {given}"));
    }
}

/// Calls the function of a hook, if it is of the kind.
fn answer(callback: &mut Callback, at: &At<'_>, told: &Told<'_>) -> Result<Answer, HookError> {
    Ok(match (callback, told) {
        (Callback::ForwardPre(hook), Told::ForwardPre(arguments)) => {
            hook(at, arguments)?.map_or(Answer::Nothing, Answer::Arguments)
        }
        (Callback::Forward(hook), Told::Forward(arguments, result)) => {
            hook(at, arguments, *result)?.map_or(Answer::Nothing, Answer::Result)
        }
        (Callback::BackwardPre(hook), Told::BackwardPre(outputs)) => {
            hook(at, outputs)?.map_or(Answer::Nothing, Answer::Gradients)
        }
        (
            Callback::Backward(hook) | Callback::NonFullBackward(hook),
            Told::Backward(inputs, outputs),
        ) => hook(at, inputs, outputs)?.map_or(Answer::Nothing, Answer::Gradients),
        (Callback::Gradient(name, hook), Told::Gradient(of, gradient)) if name == of => {
            hook(at, of, gradient)?.map_or(Answer::Nothing, Answer::Gradient)
        }
        (Callback::PostAccumulateGrad(name, hook), Told::PostAccumulateGrad(of, gradient))
            if name == of =>
        {
            hook(at, of, gradient)?;
            Answer::Nothing
        }
        (Callback::Look(hook), told) => {
            look(hook, at, told);
            Answer::Nothing
        }
        _ => Answer::Nothing,
    })
}

/// Calls the function of a hook that only looks, if it is of the kind.
fn look(hook: &mut Look, at: &At<'_>, told: &Told<'_>) {
    match (hook, told) {
        (Look::ForwardPre(hook), Told::ForwardPre(arguments)) => hook(at, arguments),
        (Look::Forward(hook), Told::Forward(arguments, result)) => hook(at, arguments, *result),
        (Look::BackwardPre(hook), Told::BackwardPre(outputs)) => hook(at, outputs),
        (Look::Backward(hook), Told::Backward(inputs, outputs)) => hook(at, inputs, outputs),
        (Look::Gradient(name, hook), Told::Gradient(of, gradient))
        | (Look::PostAccumulateGrad(name, hook), Told::PostAccumulateGrad(of, gradient))
            if name == of =>
        {
            hook(at, of, gradient);
        }
        _ => {}
    }
}

impl Runner {
    /// Keeps the hooks that gradients will meet at a call.
    fn meet(&self, position: usize, scope: usize) {
        let before = self.hooks(position, HookKind::BackwardPre);
        let mut after = self.hooks(position, HookKind::Backward);
        if self.has_non_full {
            after.extend(self.hooks(position, HookKind::NonFullBackward));
        }
        if !before.is_empty() || !after.is_empty() {
            let of_call = OfCall { position, before, after };
            self.calls.borrow_mut().0.insert(scope, of_call);
        }
    }

    /// Calls the hooks before a call that is made already.
    pub(super) fn observe_before(
        &self,
        trace: &Trace,
        position: usize,
        scope: usize,
        arguments: &Arguments,
    ) {
        self.meet(position, scope);
        let told = Told::ForwardPre(arguments);
        self.observe(trace, position, HookKind::ForwardPre, &told);
    }

    /// Calls the hooks after a call that is made already.
    pub(super) fn observe_after(
        &self,
        trace: &Trace,
        position: usize,
        arguments: &Arguments,
        result: &Tree,
    ) {
        let told = Told::Forward(arguments, Some(result));
        self.observe(trace, position, HookKind::Forward, &told);
    }

    fn observe(&self, trace: &Trace, position: usize, kind: HookKind, told: &Told<'_>) {
        let hooks = self.hooks(position, kind);
        let mut hooks = hooks.iter().enumerate();
        let _ = hooks.try_for_each(|(number, hook)| {
            self.call(trace, position, number, hook, told).map(drop)
        });
    }

    /// Calls the hooks before a call, and gives the arguments that go on.
    pub(super) fn before_call(
        &self,
        trace: &Trace,
        position: usize,
        scope: usize,
        mut arguments: Arguments,
    ) -> Arguments {
        self.meet(position, scope);
        let hooks = self.hooks(position, HookKind::ForwardPre);
        for (number, hook) in hooks.iter().enumerate() {
            let told = Told::ForwardPre(&arguments);
            match self.call(trace, position, number, hook, &told) {
                Ok(Answer::Arguments(new)) => arguments = new,
                Ok(_) => {}
                Err(()) => break,
            }
        }
        arguments
    }

    /// Calls the hooks after a call, and gives the result that the caller gets.
    pub(super) fn after_call(
        &self,
        trace: &Trace,
        position: usize,
        arguments: &Arguments,
        mut result: Option<Tree>,
    ) -> Option<Tree> {
        let hooks = self.hooks(position, HookKind::Forward);
        let mut failed = result.is_none();
        for (number, hook) in hooks.iter().enumerate() {
            if failed && !hook.0.always_call {
                continue;
            }
            let told = Told::Forward(arguments, result.as_ref());
            match self.call(trace, position, number, hook, &told) {
                Ok(Answer::Result(new)) => result = Some(new),
                Ok(_) => {}
                Err(()) => failed = true,
            }
        }
        result.filter(|_| !failed)
    }
}

impl Watcher for Runner {
    fn before(&self, call: &Call<'_>, arguments: Arguments) -> Arguments {
        // The scope of the call was opened just now.
        let scope = call.trace.program().scopes.len() - 1;
        self.before_call(call.trace, call.position, scope, arguments)
    }

    fn after(&self, call: &Call<'_>, arguments: &Arguments, result: Option<Tree>) -> Option<Tree> {
        let is_non_full = || !self.hooks_now(call.position, HookKind::NonFullBackward).is_empty();
        if self.has_non_full && is_non_full() {
            warn_non_full(call.trace, arguments, result.as_ref());
        }
        self.after_call(call.trace, call.position, arguments, result)
    }

    fn may_leave_out(&self) -> bool {
        !self.is_step
    }
}

impl WatchGradients for Runner {
    fn leave(&mut self, call: Crossing<'_>, gradients: &mut [Option<Var>]) {
        let Some(trace) = self.trace.clone() else { return };
        // It is away while hooks run, which may not touch it.
        let Some(of) = self.calls.borrow_mut().0.remove(&call.scope) else { return };
        for (number, hook) in of.before.iter().enumerate() {
            if trace.error().is_some() {
                return;
            }
            let told = Told::BackwardPre(gradients);
            if let Ok(Answer::Gradients(new)) = self.call(&trace, of.position, number, hook, &told)
            {
                self.accept(&trace, HookKind::BackwardPre, gradients, new);
            }
        }
        self.arrived.insert(call.scope, gradients.to_vec());
        if !call.needs.contains(&true) {
            if of.after.iter().any(|(hook, _)| hook.kind == HookKind::Backward) {
                let module = &self.blueprint.positions[of.position].module;
                self.warnings.warn(module.type_name(), NO_INPUT);
            }
            let mut none = vec![None; call.needs.len()];
            self.backward(&trace, call, &of, &mut none);
        }
        self.calls.borrow_mut().0.insert(call.scope, of);
    }

    fn enter(&mut self, call: Crossing<'_>, gradients: &mut [Option<Var>]) {
        let Some(trace) = self.trace.clone() else { return };
        let of = self.calls.borrow_mut().0.remove(&call.scope);
        if let Some(of) = of {
            self.backward(&trace, call, &of, gradients);
        }
    }
}
