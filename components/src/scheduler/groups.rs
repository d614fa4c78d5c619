//! [`GroupSchedulers`]: a scheduler for each parameter group.

use super::{LRScheduler, SchedulerError};

/// Schedulers for the parameter groups of an optimizer: one that all groups get a copy of, or an array or `Vec` with one for
/// each group, as torch's `LambdaLR(optimizer, [f, g])` and `OneCycleLR(optimizer, max_lr=[0.1, 0.01])` have.
pub trait GroupSchedulers {
    /// Copies the scheduler of each of `groups` groups.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::Groups`] if there are more or fewer.
    fn of_groups(&self, groups: usize) -> Result<Vec<Box<dyn LRScheduler>>, SchedulerError>;
}

impl<S: LRScheduler> GroupSchedulers for S {
    fn of_groups(&self, groups: usize) -> Result<Vec<Box<dyn LRScheduler>>, SchedulerError> {
        Ok((0..groups).map(|_| self.clone_box()).collect())
    }
}

impl<S: LRScheduler, const N: usize> GroupSchedulers for [S; N] {
    fn of_groups(&self, groups: usize) -> Result<Vec<Box<dyn LRScheduler>>, SchedulerError> {
        one_each(self, groups)
    }
}

impl<S: LRScheduler> GroupSchedulers for Vec<S> {
    fn of_groups(&self, groups: usize) -> Result<Vec<Box<dyn LRScheduler>>, SchedulerError> {
        one_each(self, groups)
    }
}

fn one_each<S: LRScheduler>(
    schedulers: &[S],
    groups: usize,
) -> Result<Vec<Box<dyn LRScheduler>>, SchedulerError> {
    match schedulers.len() == groups {
        true => Ok(schedulers.iter().map(LRScheduler::clone_box).collect()),
        false => Err(SchedulerError::Groups { expected: groups, found: schedulers.len() }),
    }
}
