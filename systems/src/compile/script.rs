//! [`Script`]: what the hooks of a pass will be told, written down while its program is recorded.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use neurarch_components::hook::HookKind;
use neurarch_components::module::call::{Call, Watcher};
use neurarch_kernels::ir::program::{Slot, ValueId};
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::passes::differentiate::{
    Crossing, WatchGradients, backward, backward_watched,
};

use crate::compile::non_full::warn_non_full;
use crate::compile::trainable::Parameter;

/// Kinds of hooks of passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(crate) fn insert(&mut self, kind: HookKind) {
        self.0 |= 1 << kind as u8;
    }

    /// Returns whether there are none.
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds those of `other`.
    pub(crate) fn extend(&mut self, other: Kinds) {
        self.0 |= other.0;
    }

    fn contains(self, kind: HookKind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    /// Returns whether `other` has one of these kinds that this has not.
    pub(crate) fn lacks(self, other: Kinds, kinds: &[HookKind]) -> bool {
        kinds.iter().any(|&kind| other.contains(kind) && !self.contains(kind))
    }

    /// Returns whether there is one of these kinds.
    pub(crate) fn any(self, kinds: &[HookKind]) -> bool {
        kinds.iter().any(|&kind| self.contains(kind))
    }
}

/// The kinds of hooks that see the gradients of a call's inputs.
const AFTER: [HookKind; 2] = [HookKind::Backward, HookKind::NonFullBackward];

/// What hooks are told of, in the order of the pass. Values are named by their places among those that are seen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A module is called.
    Before { position: usize, scope: usize, arguments: Arguments<usize> },
    /// It gave a result.
    After { position: usize, arguments: Arguments<usize>, result: Tree<usize> },
    /// Gradients arrive at its outputs.
    Leave { scope: usize, needs: Vec<bool>, gradients: Vec<Option<usize>> },
    /// They arrive at its inputs.
    Enter { scope: usize, needs: Vec<bool>, gradients: Vec<Option<usize>> },
    /// The gradient of a parameter is known.
    Gradient { position: usize, name: String, gradient: usize },
    /// It was added to what the parameter has.
    Accumulated { position: usize, name: String, grad: usize },
}

/// What hooks are told of in one program.
#[derive(Debug, Default)]
pub(crate) struct Act {
    /// In order.
    pub(crate) events: Vec<Event>,
    /// The values that they see.
    pub(crate) seen: Vec<ValueId>,
}

/// Writes down what the hooks of a pass will be told, for the modules that have any.
pub(crate) struct Script<'a> {
    /// The kinds of hooks at each position.
    watched: &'a [Kinds],
    trainable: &'a [Parameter],
    events: RefCell<Vec<Event>>,
    seen: RefCell<Vec<ValueId>>,
    /// The place of each among these.
    places: RefCell<HashMap<ValueId, usize>>,
    /// The kinds of hooks that gradients will meet, by the scope of the call.
    calls: RefCell<HashMap<usize, Kinds>>,
    /// Whether a module asked whether it may look at numbers to leave something out.
    depends_on_numbers: Cell<bool>,
}

impl<'a> Script<'a> {
    /// Starts one for modules with these hooks, and these parameters in the order in which their gradients are asked
    /// for.
    pub(crate) fn new(watched: &'a [Kinds], trainable: &'a [Parameter]) -> Self {
        let (events, seen, places, calls, depends_on_numbers) = Default::default();
        Script { watched, trainable, events, seen, places, calls, depends_on_numbers }
    }

    /// Returns what happened since the last act.
    pub(crate) fn end_act(&self) -> Act {
        self.places.take();
        Act { events: self.events.take(), seen: self.seen.take() }
    }

    /// Returns whether what hooks would be told depends on the numbers that a pass meets.
    pub(crate) fn depends_on_numbers(&self) -> bool {
        !self.watched.is_empty() && self.depends_on_numbers.get()
    }

    /// Records the backward pass from values, and what hooks of gradients will be told.
    pub(crate) fn backward(
        &mut self,
        trace: &Trace,
        of: &[(Var, Var)],
        wrt: &[Var],
    ) -> Vec<Option<Var>> {
        match self.watched.is_empty() {
            true => backward(trace, of, wrt),
            false => backward_watched(trace, of, wrt, self),
        }
    }

    /// Writes down what the gradient of a parameter has become.
    pub(crate) fn accumulated(&self, parameter: &Slot, grad: &Var) {
        let position = parameter.position;
        if self.at(position).contains(HookKind::PostAccumulateGrad) {
            let (name, grad) = (parameter.own_name().to_owned(), self.see(grad));
            self.events.borrow_mut().push(Event::Accumulated { position, name, grad });
        }
    }

    fn at(&self, position: usize) -> Kinds {
        self.watched.get(position).copied().unwrap_or_default()
    }

    fn see(&self, var: &Var) -> usize {
        let mut seen = self.seen.borrow_mut();
        // A value after an error stands for nothing, and the program is not made.
        let id = var.id().unwrap_or(ValueId::MAX);
        *self.places.borrow_mut().entry(id).or_insert_with(|| {
            seen.push(id);
            seen.len() - 1
        })
    }

    fn see_all(&self, gradients: &[Option<Var>]) -> Vec<Option<usize>> {
        gradients.iter().map(|of| of.as_ref().map(|var| self.see(var))).collect()
    }
}

impl Watcher for Script<'_> {
    fn before(&self, call: &Call<'_>, arguments: Arguments) -> Arguments {
        let kinds = self.at(call.position);
        let of_gradients = kinds.contains(HookKind::BackwardPre) || kinds.any(&AFTER);
        let of_arguments = kinds.contains(HookKind::ForwardPre);
        if of_gradients || of_arguments {
            // The scope of the call was opened just now.
            let scope = call.trace.program().scopes.len() - 1;
            self.calls.borrow_mut().insert(scope, kinds);
            let seen = match of_arguments {
                true => arguments.clone().map(&mut |var| self.see(&var)),
                false => Arguments { positional: Vec::new(), keyword: Vec::new() },
            };
            let position = call.position;
            self.events.borrow_mut().push(Event::Before { position, scope, arguments: seen });
        }
        arguments
    }

    fn after(&self, call: &Call<'_>, arguments: &Arguments, result: Option<Tree>) -> Option<Tree> {
        let position = call.position;
        if self.at(position).contains(HookKind::NonFullBackward) {
            warn_non_full(call.trace, arguments, result.as_ref());
        }
        if self.at(position).contains(HookKind::Forward)
            && let Some(result) = &result
        {
            let arguments = arguments.clone().map(&mut |var| self.see(&var));
            let result = result.clone().map(&mut |var| self.see(&var));
            self.events.borrow_mut().push(Event::After { position, arguments, result });
        }
        result
    }

    fn may_leave_out(&self) -> bool {
        self.depends_on_numbers.set(true);
        true
    }
}

impl WatchGradients for Script<'_> {
    fn leave(&mut self, Crossing { scope, needs }: Crossing<'_>, gradients: &mut [Option<Var>]) {
        if self.calls.borrow().contains_key(&scope) {
            let (needs, gradients) = (needs.to_vec(), self.see_all(gradients));
            self.events.borrow_mut().push(Event::Leave { scope, needs, gradients });
        }
    }

    fn enter(&mut self, Crossing { scope, needs }: Crossing<'_>, gradients: &mut [Option<Var>]) {
        let kinds = self.calls.borrow().get(&scope).copied();
        if kinds.is_some_and(|kinds| kinds.any(&AFTER)) {
            let (needs, gradients) = (needs.to_vec(), self.see_all(gradients));
            self.events.borrow_mut().push(Event::Enter { scope, needs, gradients });
        }
    }

    fn known(&mut self, index: usize, gradient: &mut Var) {
        let Some(parameter) = self.trainable.get(index) else { return };
        let position = parameter.slot.position;
        if self.at(position).contains(HookKind::Gradient) {
            let (name, gradient) = (parameter.slot.own_name().to_owned(), self.see(gradient));
            self.events.borrow_mut().push(Event::Gradient { position, name, gradient });
        }
    }
}
