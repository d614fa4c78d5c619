//! [`SchedulerForm`]: what is written of a [`Scheduler`] in files.

use core::any::Any;

use serde::{Deserialize, Serialize};

use super::{LRScheduler, ParamGroup, Progress, Scheduled, Scheduler, SchedulerError, Timed};
use crate::optimizer::SGD;
use crate::wire::{Bytes, short_name};

/// A [`Scheduler`] as it is written.
#[derive(Serialize, Deserialize)]
pub(crate) struct SchedulerForm {
    /// One for each parameter group.
    groups: Vec<GroupForm>,
}

/// The schedule of one parameter group.
#[derive(Serialize, Deserialize)]
struct GroupForm {
    initial_lr: Option<f64>,
    timed: TimedForm,
}

/// A rule, how far it has come, and the schedulers that it is made of.
#[derive(Serialize, Deserialize)]
struct TimedForm {
    last_epoch: f64,
    /// The name of its type in files.
    rule: String,
    /// `None` of a rule that has functions.
    settings: Option<Bytes>,
    parts: Vec<TimedForm>,
}

/// Stands for a rule that has functions until [`Scheduler::take_functions`] puts it back.
#[derive(Clone, Debug)]
struct LeftOut {
    rule: String,
}

impl LRScheduler for LeftOut {
    fn lr(&mut self, _: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        Ok(group.lr())
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(self.clone())
    }
}

/// Writes the settings of a rule that has no functions: the name of its type, and the bytes.
pub(crate) type WriteRule<'a, E> = &'a dyn Fn(&dyn LRScheduler) -> Result<(String, Bytes), E>;

/// Reads a rule of that name.
pub(crate) type ReadRule<'a, E> = &'a dyn Fn(&str, &[u8]) -> Result<Box<dyn LRScheduler>, E>;

impl Scheduler {
    /// Returns what is written; `write` writes the settings of a rule.
    pub(crate) fn form<E>(&self, write: WriteRule<'_, E>) -> Result<SchedulerForm, E> {
        let groups = self.groups.iter().map(|Scheduled { initial_lr, timed }| {
            let timed = TimedForm::new(&mut timed.clone(), write)?;
            Ok(GroupForm { initial_lr: *initial_lr, timed })
        });
        Ok(SchedulerForm { groups: groups.collect::<Result<_, E>>()? })
    }

    /// Makes what was written; `read` reads rules. Those that have functions wait for
    /// [`take_functions`](Scheduler::take_functions).
    pub(crate) fn of<E: From<SchedulerError>>(
        form: SchedulerForm,
        read: ReadRule<'_, E>,
    ) -> Result<Self, E> {
        let groups = form.groups.into_iter().map(|GroupForm { initial_lr, timed }| {
            Ok(Scheduled { initial_lr, timed: timed.read(read)? })
        });
        let groups = groups.collect::<Result<Vec<_>, E>>()?;
        match groups.is_empty() {
            true => Err(SchedulerError::Groups { expected: 1, found: 0 }.into()),
            false => Ok(Scheduler { groups }),
        }
    }

    /// Puts rules that have functions back, as another scheduler has them at the same places.
    ///
    /// # Errors
    ///
    /// The name of a rule's type, if the other one has none of it there.
    pub(crate) fn take_functions(&mut self, from: Option<&Scheduler>) -> Result<(), String> {
        let mut from = from.map(|from| from.groups.clone()).unwrap_or_default();
        let mut others = from.iter_mut().map(|group| &mut group.timed);
        self.groups.iter_mut().try_for_each(|group| group.timed.take_functions(others.next()))
    }
}

impl TimedForm {
    /// Parts are only there to be changed.
    fn new<E>(timed: &mut Timed, write: WriteRule<'_, E>) -> Result<Self, E> {
        let (rule, settings) = match timed.rule.has_functions() {
            true => (short_name(timed.rule.rust_name()), None),
            false => write(&*timed.rule).map(|(rule, settings)| (rule, Some(settings)))?,
        };
        let parts = timed.rule.parts().iter_mut();
        let parts = parts.map(|part| TimedForm::new(part, write)).collect::<Result<_, E>>()?;
        Ok(TimedForm { last_epoch: timed.progress.last_epoch, rule, settings, parts })
    }

    fn read<E: From<SchedulerError>>(self, read: ReadRule<'_, E>) -> Result<Timed, E> {
        let TimedForm { last_epoch, rule, settings, parts } = self;
        let mut rule: Box<dyn LRScheduler> = match settings {
            Some(Bytes(settings)) => read(&rule, &settings)?,
            None => Box::new(LeftOut { rule }),
        };
        let parts = parts.into_iter().map(|part| part.read(read)).collect::<Result<_, E>>()?;
        rule.set_parts(parts)?;
        if rule.parts().is_empty() {
            // A copy that begins checks its settings.
            Scheduler::attach(&rule.clone_box(), &mut SGD::default())?;
        }
        Ok(Timed { progress: Progress { last_epoch, is_initial: false }, rule })
    }
}

impl Timed {
    fn take_functions(&mut self, from: Option<&mut Timed>) -> Result<(), String> {
        let mut from = from.map(|from| &mut from.rule);
        if let Some(LeftOut { rule }) = (&*self.rule as &dyn Any).downcast_ref() {
            let is_it = |from: &&mut Box<dyn LRScheduler>| {
                from.has_functions() && short_name(from.rust_name()) == *rule
            };
            self.rule = from.filter(is_it).ok_or_else(|| rule.clone())?.clone_box();
            return Ok(());
        }
        let mut others = from.as_mut().map_or(&mut [][..], |from| from.parts()).iter_mut();
        let mut parts = self.rule.parts().iter_mut();
        parts.try_for_each(|part| part.take_functions(others.next()))
    }
}
