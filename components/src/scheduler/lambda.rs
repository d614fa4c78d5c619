//! Schedulers by a function of the user's.

use core::fmt;
use std::sync::Arc;

use super::{LRScheduler, ParamGroup, Progress, SchedulerError};

/// A factor for each step.
type Factor = Arc<dyn Fn(usize) -> f64 + Send + Sync>;

/// Multiplies the first rate by a function of the number of steps done.
///
/// Source: `torch.optim.lr_scheduler.LambdaLR`.
#[derive(Clone)]
pub struct LambdaLR(Factor);

/// Multiplies the rate by a function of the number of steps done.
///
/// Source: `torch.optim.lr_scheduler.MultiplicativeLR`.
#[derive(Clone)]
pub struct MultiplicativeLR(Factor);

impl LambdaLR {
    /// Takes the function.
    pub fn new(lr_lambda: impl Fn(usize) -> f64 + Send + Sync + 'static) -> Self {
        LambdaLR(Arc::new(lr_lambda))
    }
}

impl MultiplicativeLR {
    /// Takes the function; it is not asked about step 0.
    pub fn new(lr_lambda: impl Fn(usize) -> f64 + Send + Sync + 'static) -> Self {
        MultiplicativeLR(Arc::new(lr_lambda))
    }
}

impl LRScheduler for LambdaLR {
    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        Ok(group.initial_lr() * (self.0)(at.last_epoch as usize))
    }

    fn has_functions(&self) -> bool {
        true
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(self.clone())
    }
}

impl LRScheduler for MultiplicativeLR {
    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        Ok(if at.is_initial { group.lr() } else { group.lr() * (self.0)(at.last_epoch as usize) })
    }

    fn has_functions(&self) -> bool {
        true
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(self.clone())
    }
}

impl fmt::Debug for LambdaLR {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LambdaLR")
    }
}

impl fmt::Debug for MultiplicativeLR {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MultiplicativeLR")
    }
}
