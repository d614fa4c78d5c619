//! [`Passed`]: a planned forward pass with hooks, kept for `backward`.

use bevy_ecs::prelude::*;
use neurarch_components::hook::HookKind;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::tree::Arguments;

use super::observe::{Done, prepare_for, watched_now};
use super::{CallHooks, OuterHooks};
use crate::compile::plans::Request;
use crate::compile::script::Kinds;
use crate::errors::StepError;
use crate::execute::cohort::Cohort;
use crate::execute::eager;
use crate::execute::eager::{Given, Recorded};
use crate::execute::route::Route;
use crate::storage::gather::gathered;

/// An observed forward pass kept for `backward`: as a plan, whose tape the population has, or, where a hook changes a
/// gradient, as an eager record made of it.
pub(crate) struct Passed {
    done: Done,
    /// The hooks that were watched.
    watched: Vec<Kinds>,
    /// What the members were called with: each array's rows.
    inputs: Vec<Vec<u8>>,
    members: usize,
}

impl Passed {
    /// Keeps what going back takes.
    pub(crate) fn new(done: Done, watched: Vec<Kinds>, given: &[Given<'_>]) -> Self {
        let inputs = given.iter().map(|given| given.rows.concat()).collect();
        let members = given.first().map_or(0, |given| given.rows.len());
        Passed { done, watched, inputs, members }
    }

    /// Copies what is of some of the members, by their places, in that order.
    pub(crate) fn part(&self, members: &[usize]) -> Self {
        let gather = |rows: &Vec<u8>| gathered(rows, rows.len() / self.members.max(1), members);
        let inputs = self.inputs.iter().map(gather).collect();
        let done = self.done.part(members);
        Passed { done, watched: self.watched.clone(), inputs, members: members.len() }
    }

    /// Returns whether the members were told in turns of their own, so that each of them can go back alone.
    pub(crate) fn is_each(&self) -> bool {
        self.done.is_each()
    }

    /// Finds the plan that goes back and gives what hooks see, if the pass has not to be made again, eagerly.
    pub(crate) fn prepare_back(
        &self,
        world: &mut World,
        cohort: &mut Cohort,
        shared: Option<&OuterHooks>,
        request: Request<'_>,
    ) -> Result<Route, StepError> {
        // Hooks of modules are those that there were, hooks of parameters those that there are.
        let of_parameters = [HookKind::Gradient, HookKind::PostAccumulateGrad];
        let now = watched_now(world, cohort, shared)?;
        let mut both = self.watched.iter().zip(now);
        // Where some results have no gradient, a plan goes the way from all.
        if !request.given.is_empty() || both.any(|(then, now)| then.lacks(now, &of_parameters)) {
            return Ok(Route::Eager);
        }
        prepare_for(world, cohort, self.watched.clone(), request)
    }

    /// Takes the hooks that gradients will meet.
    pub(crate) fn take_calls(&mut self) -> Vec<CallHooks> {
        self.done.take_calls()
    }

    /// Makes the pass again, op by op, of what it read; nobody is called, and nothing is written.
    ///
    /// # Errors
    ///
    /// If the members have lost what it read.
    pub(crate) fn again(
        self,
        world: &mut World,
        cohort: &mut Cohort,
        shared: Option<OuterHooks>,
        (types, structure): (&[Type], Option<&Arguments<usize>>),
    ) -> Result<Recorded, StepError> {
        let Passed { mut done, inputs, .. } = self;
        let models = cohort.at.members.len();
        let given = types.iter().zip(&inputs).map(|(ty, bytes)| {
            let row = |model| &bytes[model * ty.size_bytes()..][..ty.size_bytes()];
            Given { ty: ty.clone(), rows: (0..models).map(row).collect(), needs_gradient: false }
        });
        let given: Vec<_> = given.collect();
        let past = done.take_past();
        done.exchange(world, &mut cohort.at)?;
        let made = eager::forward(world, cohort, (shared, past.into()), &given, structure);
        done.exchange(world, &mut cohort.at)?;
        made.map(|(_, recorded)| recorded.kept())
    }
}
