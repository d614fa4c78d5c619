//! The state of a [`Scheduler`], on its way out and back in.

use super::{Scheduler, SchedulerError, Timed};

impl Scheduler {
    /// Lists how far the schedule has come, by torch's names: `base_lr`, `last_epoch`, what the rule has seen, and the
    /// same of the schedulers that it is made of behind `_schedulers.0.` and so on. Those of parameter group 1 and on are
    /// behind `param_groups.1.` and so on. Settings are not listed.
    ///
    /// Source: `scheduler.state_dict()`, of what changes.
    pub fn state_dict(&self) -> Vec<(String, f64)> {
        let mut state = Vec::new();
        for (number, group) in self.groups.iter().enumerate() {
            let start = start(number);
            state.extend(group.initial_lr.map(|lr| (format!("{start}base_lr"), lr)));
            list(&mut group.timed.clone(), &start, &mut state);
        }
        state
    }

    /// Goes on where a schedule with the same settings was. The optimizer's rates are its own state.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::State`] if the state is of another scheduler. Nothing is changed then.
    ///
    /// Source: `scheduler.load_state_dict`.
    pub fn load_state_dict(&mut self, state: &[(String, f64)]) -> Result<(), SchedulerError> {
        let names = |of: &[(String, f64)]| {
            let mut names: Vec<_> = of.iter().map(|(name, _)| name.clone()).collect();
            names.sort();
            names
        };
        let (expected, found) = (names(&self.state_dict()), names(state));
        if expected != found {
            return Err(SchedulerError::State { expected, found });
        }
        let number =
            |name: &str| state.iter().find(|(of, _)| of == name).map(|(_, number)| *number);
        for (place, group) in self.groups.iter_mut().enumerate() {
            let start = start(place);
            give(&mut group.timed, &start, &number);
            group.initial_lr = number(&format!("{start}base_lr"));
        }
        Ok(())
    }
}

/// Returns what the names of a parameter group's state begin with.
fn start(group: usize) -> String {
    match group {
        0 => String::new(),
        _ => format!("param_groups.{group}."),
    }
}

/// Lists the state of a rule and its parts, their names behind `start`. Parts are only there to be changed.
fn list(timed: &mut Timed, start: &str, state: &mut Vec<(String, f64)>) {
    state.push((format!("{start}last_epoch"), timed.progress.last_epoch));
    let of_rule = timed.rule.state().into_iter();
    state.extend(of_rule.map(|(name, number)| (format!("{start}{name}"), number)));
    for (place, part) in timed.rule.parts().iter_mut().enumerate() {
        list(part, &format!("{start}_schedulers.{place}."), state);
    }
}

fn give(timed: &mut Timed, start: &str, number: &impl Fn(&str) -> Option<f64>) {
    if let Some(last_epoch) = number(&format!("{start}last_epoch")) {
        timed.progress.last_epoch = last_epoch;
    }
    for (name, _) in timed.rule.state() {
        if let Some(number) = number(&format!("{start}{name}")) {
            timed.rule.set_state(name, number);
        }
    }
    for (place, part) in timed.rule.parts().iter_mut().enumerate() {
        give(part, &format!("{start}_schedulers.{place}."), number);
    }
}
