//! What hooks are told and what they answer; and what they answered in a pass that is made again.

use bevy_ecs::prelude::*;
use std::collections::VecDeque;

use neurarch_components::hook::{Gradients, Hook, HookError, HookKind};
use neurarch_kernels::ir::rng_key::RngKey;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ir::tree::{Arguments, Tree};
use smallvec::SmallVec;

/// Hooks, each with the module that it is of alone.
pub(super) type List = SmallVec<[(Hook, Option<Entity>); 2]>;

/// What a hook is given beside [`At`](neurarch_components::hook::At).
pub(super) enum Told<'a> {
    ForwardPre(&'a Arguments),
    Forward(&'a Arguments, Option<&'a Tree>),
    BackwardPre(&'a [Option<Var>]),
    Backward(&'a [Option<Var>], &'a [Option<Var>]),
    Gradient(&'a str, &'a Var),
    PostAccumulateGrad(&'a str, &'a Var),
}

/// What a hook gave.
#[derive(Debug)]
pub(super) enum Answer {
    Nothing,
    Arguments(Arguments),
    Result(Tree),
    Gradients(Gradients),
    Gradient(Var),
    /// It gave an error, or panicked.
    Failed(HookError),
    /// It computed something that cannot be.
    Wrong(String),
}

impl Told<'_> {
    /// Lists the values, in order.
    fn vars(&self) -> Vec<Var> {
        match self {
            Told::ForwardPre(arguments) => arguments.leaves().into_iter().cloned().collect(),
            Told::Forward(arguments, result) => {
                let of_result = result.iter().flat_map(|tree| tree.leaves());
                arguments.leaves().into_iter().chain(of_result).cloned().collect()
            }
            Told::BackwardPre(gradients) => gradients.iter().flatten().cloned().collect(),
            Told::Backward(inputs, outputs) => {
                inputs.iter().chain(*outputs).flatten().cloned().collect()
            }
            Told::Gradient(_, gradient) | Told::PostAccumulateGrad(_, gradient) => {
                vec![(*gradient).clone()]
            }
        }
    }
}

impl Answer {
    /// Returns whether it is an error, or other than what the hook was told.
    fn changes(&self, told: &Told<'_>) -> bool {
        let id = &mut |var: Var| var.id();
        match (self, told) {
            (Answer::Nothing, _) => false,
            (Answer::Arguments(new), Told::ForwardPre(old)) => {
                new.clone().map(id) != (*old).clone().map(id)
            }
            (Answer::Result(new), Told::Forward(_, Some(old))) => {
                new.clone().map(id) != (*old).clone().map(id)
            }
            (Answer::Gradients(new), Told::BackwardPre(old) | Told::Backward(old, _)) => {
                let ids = |of: &[Option<Var>]| {
                    of.iter().map(|var| var.as_ref().map(Var::id)).collect::<Vec<_>>()
                };
                ids(new) != ids(old)
            }
            (Answer::Gradient(new), Told::Gradient(_, old)) => new.id() != old.id(),
            _ => true,
        }
    }

    /// Replaces each value, in order.
    pub(super) fn map(self, f: &mut impl FnMut(Var) -> Var) -> Answer {
        match self {
            Answer::Nothing | Answer::Failed(_) | Answer::Wrong(_) => self,
            Answer::Arguments(arguments) => Answer::Arguments(arguments.map(f)),
            Answer::Result(tree) => Answer::Result(tree.map(f)),
            Answer::Gradients(gradients) => {
                Answer::Gradients(gradients.into_iter().map(|of| of.map(&mut *f)).collect())
            }
            Answer::Gradient(gradient) => Answer::Gradient(f(gradient)),
        }
    }
}

/// What the hooks of a pass did that was computed before they were called.
#[derive(Clone, Default)]
pub(crate) struct Past {
    /// The random states, if they are others by now.
    pub(crate) keys: Option<Vec<RngKey>>,
    /// The hooks that there were, in the order in which they were looked up: some are gone by now, perhaps.
    lists: VecDeque<(usize, HookKind, List)>,
    /// How many calls changed nothing.
    calls: usize,
}

/// What hooks did in a pass that is made again, op by op, up to the first answer that changes something: they are not
/// called once more. Nothing, if it is made for the first time.
#[derive(Default)]
pub(crate) struct Again {
    past: Past,
    /// What the next call was told, and its answer.
    answer: Option<(Vec<Var>, Answer)>,
}

impl From<Past> for Again {
    fn from(past: Past) -> Self {
        Again { past, answer: None }
    }
}

impl Again {
    /// Returns what hooks did, where no answer changes anything.
    pub(super) fn into_past(self) -> Past {
        self.past
    }

    /// Returns the random states, if they are others by now.
    pub(crate) fn keys(&self) -> Option<&[RngKey]> {
        self.past.keys.as_deref()
    }

    /// Returns whether an answer changes something.
    pub(super) fn has_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// Keeps which hooks there are.
    pub(super) fn push_list(&mut self, position: usize, kind: HookKind, list: &List) {
        if !list.is_empty() {
            self.past.lists.push_back((position, kind, list.clone()));
        }
    }

    /// Keeps an answer, if it changes something; gives what is left of it.
    pub(super) fn keep(&mut self, told: &Told<'_>, answer: Answer) -> Answer {
        match answer.changes(told) {
            true => self.answer = Some((told.vars(), answer)),
            false => self.past.calls += 1,
        }
        Answer::Nothing
    }

    /// Takes which hooks there were when they were looked up there, the next time.
    pub(super) fn take_list(&mut self, position: usize, kind: HookKind) -> Option<List> {
        let is_next = |(at, of, _): &(usize, HookKind, List)| (*at, *of) == (position, kind);
        let place = self.past.lists.iter().position(is_next)?;
        self.past.lists.remove(place).map(|(_, _, list)| list)
    }

    /// Takes the answer to the next call, if it was made before, as it is on `trace`.
    pub(super) fn answer(&mut self, trace: &Trace, told: &Told<'_>) -> Option<Answer> {
        if self.past.calls > 0 {
            self.past.calls -= 1;
            return Some(Answer::Nothing);
        }
        let (there, answer) = self.answer.take()?;
        let known: Vec<_> = there.into_iter().zip(told.vars()).collect();
        let mut wanted = Vec::new();
        let answer = answer.map(&mut |var| {
            wanted.push(var.clone());
            var
        });
        let mut made = trace.repeat(&known, &wanted).into_iter();
        Some(answer.map(&mut |var| made.next().unwrap_or(var)))
    }
}
