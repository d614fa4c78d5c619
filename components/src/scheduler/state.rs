//! The state of a [`Scheduler`], on its way out and back in.

use super::{Scheduler, SchedulerError, Timed};

impl Scheduler {
    /// Lists how far the schedule has come, by torch's names: `base_lr`, `last_epoch`, what the rule has seen, and the
    /// same of the schedulers that it is made of behind `_schedulers.0.` and so on. Settings are not listed.
    ///
    /// Source: `scheduler.state_dict()`, of what changes.
    pub fn state_dict(&self) -> Vec<(String, f64)> {
        let mut state = Vec::new();
        state.extend(self.initial_lr.map(|lr| ("base_lr".to_owned(), lr)));
        list(&mut self.timed.clone(), "", &mut state);
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
        give(&mut self.timed, "", &number);
        self.initial_lr = number("base_lr");
        Ok(())
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
