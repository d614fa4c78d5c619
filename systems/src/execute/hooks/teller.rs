//! [`Teller`]: tells the hooks of a pass that is computed already, one model after another.

use bevy_ecs::prelude::*;
use neurarch_kernels::cpu::tile::Key;
use neurarch_kernels::ir::eager::Eager;
use neurarch_kernels::ir::program::Program;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::passes::differentiate::{Crossing, WatchGradients};

use super::{Again, CallHooks, Runner, Shared};
use crate::compile::plans::Planned;
use crate::compile::script::Event;
use crate::errors::StepError;
use crate::execute::cohort::Cohort;
use crate::structure::population::population;

/// Tells the hooks of a cohort what a plan computed. Where models have hooks of their own each has a turn, else all have
/// one together.
pub(super) struct Teller {
    runner: Runner,
    recording: Option<Recording>,
    /// Memory of a recording that ended.
    spare: (Program, Eager),
    /// Models of a turn.
    models: usize,
}

/// What hooks are given in a turn: a recording of what they see alone. It is used again for the next turn, unless
/// a hook recorded more or holds a value.
struct Recording {
    trace: Trace,
    /// What each event tells, in order.
    told: Vec<Values>,
    /// Handles of the recording that are ours.
    handles: usize,
}

/// The values of an event.
enum Values {
    Call(Arguments, Option<Tree>),
    Gradients(Vec<Option<Var>>),
    One(Var),
}

/// What came of a turn.
pub(super) struct Turn {
    /// What the hooks did.
    pub(super) again: Again,
    /// Those that gradients will meet.
    pub(super) calls: CallHooks,
    /// Whether they drew random numbers.
    pub(super) drew: bool,
}

impl Teller {
    /// Prepares for a cohort. A pass that `is_final` cannot be made again.
    ///
    /// # Errors
    ///
    /// If its population is gone.
    pub(super) fn new(
        world: &World,
        cohort: &mut Cohort,
        shared: Option<Shared>,
        is_final: bool,
    ) -> Result<Self, StepError> {
        let group = &population(world, cohort.at.population)?.groups()[cohort.at.group];
        let models = if cohort.has_own_hooks() { 1 } else { cohort.at.members.len() };
        let runner = Runner::new(world, &cohort.scheme.blueprint, shared, group, None, models);
        let spare = cohort.spare.take().map(|spare| *spare).unwrap_or_default();
        Ok(Teller { runner: runner.observing(is_final), recording: None, spare, models })
    }

    /// Calls the hooks in order, up to the first answer that changes something or is an error. `seen` are what they see,
    /// a row for each member of the cohort; `calls` those that gradients meet.
    ///
    /// # Errors
    ///
    /// If the population is gone, or a hook fails in a pass that cannot be made again.
    pub(super) fn tell(
        &mut self,
        world: &World,
        cohort: &Cohort,
        turn: usize,
        calls: CallHooks,
        (planned, seen): (&Planned, &[u8]),
    ) -> Result<Turn, StepError> {
        let group = &population(world, cohort.at.population)?.groups()[cohort.at.group];
        if let Some(own) = &cohort.own {
            self.runner.turn_to(world, group, cohort.places[turn] as usize, &own.kinds);
        }
        let keys = &cohort.keys.get()[turn * self.models..][..self.models];
        self.record(turn, keys, (planned, seen));
        self.runner.set_calls(calls);
        let Recording { trace, told, .. } = self.recording.as_mut().expect("it was just made");
        for (event, values) in planned.events.iter().zip(told) {
            tell_of(event, values, cohort, trace, &mut self.runner);
            if self.runner.is_over() {
                break;
            }
        }
        let drew = trace.program().nodes.iter().any(|node| node.op.is_random());
        let (again, calls) = self.runner.end_turn();
        if let Some(failure) = self.runner.take_failure() {
            return Err(failure);
        }
        if again.has_answer() {
            // The answer is of this recording, and ends with it.
            self.recording = None;
        }
        Ok(Turn { again, calls, drew })
    }

    /// Puts what the members of a turn show on a recording.
    fn record(&mut self, turn: usize, keys: &[Key], (planned, seen): (&Planned, &[u8])) {
        let (models, stride) = (self.models, planned.seen_bytes);
        let rows = |bytes: usize, offset: usize| {
            (turn * models..(turn + 1) * models)
                .map(move |member| &seen[member * stride + offset..][..bytes])
        };
        let all = planned.seen().flat_map(|(ty, offset)| rows(ty.size_bytes(), offset));
        if let Some(Recording { trace, handles, .. }) = &self.recording
            && trace.refill(*handles, keys, all)
        {
            return;
        }
        self.end_recording();
        let (program, eager) = std::mem::take(&mut self.spare);
        let trace = Trace::eager_in(program, eager.again(models, keys));
        let vars = planned
            .seen()
            .map(|(ty, offset)| trace.input_of_rows(ty.clone(), rows(ty.size_bytes(), offset)));
        let vars: Vec<_> = vars.collect();
        let told: Vec<_> = planned.events.iter().map(|event| Values::of(event, &vars)).collect();
        drop(vars);
        self.runner.go_back(&trace);
        let handles = trace.handles();
        self.recording = Some(Recording { trace, told, handles });
    }

    /// Ends the recording, so that values that hooks kept are gone.
    fn end_recording(&mut self) {
        if let Some(Recording { trace, .. }) = self.recording.take()
            && let Ok(spare) = trace.pause()
        {
            self.spare = spare;
        }
    }

    /// Leaves the memory to the next pass of the cohort.
    pub(super) fn end(mut self, cohort: &mut Cohort) {
        self.end_recording();
        cohort.spare = Some(Box::new(self.spare));
    }
}

impl Values {
    fn of(event: &Event, vars: &[Var]) -> Values {
        let var = &mut |place: usize| vars[place].clone();
        match event {
            Event::Before { arguments, .. } => Values::Call(arguments.clone().map(var), None),
            Event::After { arguments, result, .. } => {
                Values::Call(arguments.clone().map(var), Some(result.clone().map(var)))
            }
            Event::Leave { gradients, .. } | Event::Enter { gradients, .. } => {
                Values::Gradients(gradients.iter().map(|of| of.map(&mut *var)).collect())
            }
            Event::Gradient { gradient: of, .. } | Event::Accumulated { grad: of, .. } => {
                Values::One(var(*of))
            }
        }
    }
}

/// Tells the hooks of one event. None of them can change the values.
fn tell_of(
    event: &Event,
    values: &mut Values,
    cohort: &Cohort,
    trace: &Trace,
    runner: &mut Runner,
) {
    match (event, values) {
        (Event::Before { position, scope, .. }, Values::Call(arguments, _)) => {
            within(cohort, trace, *position, || {
                runner.observe_before(trace, *position, *scope, arguments);
            });
        }
        (Event::After { position, .. }, Values::Call(arguments, Some(result))) => {
            within(cohort, trace, *position, || {
                runner.observe_after(trace, *position, arguments, result);
            });
        }
        (Event::Leave { scope, needs, .. }, Values::Gradients(gradients)) => {
            runner.leave(Crossing { scope: *scope, needs }, gradients);
        }
        (Event::Enter { scope, needs, .. }, Values::Gradients(gradients)) => {
            runner.enter(Crossing { scope: *scope, needs }, gradients);
        }
        (Event::Gradient { position, name, .. }, Values::One(gradient)) => {
            runner.gradient(trace, *position, name, gradient);
        }
        (Event::Accumulated { position, name, .. }, Values::One(grad)) => {
            runner.accumulated(trace, *position, name, grad);
        }
        _ => unreachable!("values are made of the event"),
    }
}

/// Lets hooks of a forward pass record within the call that they are told of, as autocast has it there.
fn within(cohort: &Cohort, trace: &Trace, position: usize, run: impl FnOnce()) {
    let at = &cohort.scheme.blueprint.positions[position];
    trace.autocast(cohort.scheme.autocast, || trace.scope(&at.path, at.module.type_name(), run));
}
