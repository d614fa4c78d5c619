//! Losses of numbers against numbers: `l1_loss`, `huber_loss`, `smooth_l1_loss`.

use crate::ir::trace::{Function, Var};
use crate::ops::reduction::reduce::Reduction;

impl Var {
    /// Records an error in this loss's name if the sizes differ: broadcasting here is nearly always a
    /// mistake, against which torch warns.
    pub(crate) fn same_size(&self, loss: &str, target: &Var) -> bool {
        let known = self.id().is_some() && target.id().is_some();
        if known && self.shape() != target.shape() {
            self.trace().fail(format!(
                "{loss}: the target's size {} is different to the input's size {}",
                target.shape(),
                self.shape()
            ));
        }
        known && self.shape() == target.shape()
    }

    /// Returns `|x - target|`, reduced. At equal numbers the gradient is 0.
    ///
    /// # Shape
    ///
    /// Both have one shape; the loss is `[]`, or of that shape if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.l1_loss`, without broadcasting.
    #[must_use]
    pub fn l1_loss(&self, target: &Var, reduction: Reduction) -> Var {
        self.trace().function(Function::new("l1_loss"), &[Some(self), Some(target)], |cast| {
            cast(self).plain_l1_loss(&cast(target), reduction)
        })
    }

    fn plain_l1_loss(&self, target: &Var, reduction: Reduction) -> Var {
        if !self.same_size("l1_loss", target) {
            return self.trace().poison();
        }
        reduction.apply((self - target).abs())
    }

    /// Returns `½ (x - target)²` where the distance is below `delta`, `delta · (|x - target| - ½ delta)`
    /// elsewhere, reduced; `delta` is `[]`.
    ///
    /// # Shape
    ///
    /// As for [`l1_loss`](Var::l1_loss).
    ///
    /// Source: `torch.nn.functional.huber_loss`, without broadcasting. A `delta` that is not positive is not
    /// refused.
    #[must_use]
    pub fn huber_loss(&self, target: &Var, delta: &Var, reduction: Reduction) -> Var {
        self.trace().function(
            Function::new("huber_loss"),
            &[Some(self), Some(target), Some(delta)],
            |cast| cast(self).plain_huber_loss(&cast(target), &cast(delta), reduction),
        )
    }

    fn plain_huber_loss(&self, target: &Var, delta: &Var, reduction: Reduction) -> Var {
        if !self.same_size("huber_loss", target) {
            return self.trace().poison();
        }
        let error = self - target;
        let distance = error.abs();
        let linear = (&distance - delta * 0.5) * delta;
        reduction.apply(distance.lt(delta).where_(&(error.square() * 0.5), &linear))
    }

    /// Returns `½ (x - target)² / beta` where the distance is below `beta`, `|x - target| - ½ beta`
    /// elsewhere, reduced; `beta` is `[]`.
    ///
    /// # Shape
    ///
    /// As for [`l1_loss`](Var::l1_loss).
    ///
    /// Source: `torch.nn.functional.smooth_l1_loss`, without broadcasting. A negative `beta` is not refused.
    #[must_use]
    pub fn smooth_l1_loss(&self, target: &Var, beta: &Var, reduction: Reduction) -> Var {
        self.trace().function(
            Function::new("smooth_l1_loss"),
            &[Some(self), Some(target), Some(beta)],
            |cast| cast(self).plain_smooth_l1_loss(&cast(target), &cast(beta), reduction),
        )
    }

    fn plain_smooth_l1_loss(&self, target: &Var, beta: &Var, reduction: Reduction) -> Var {
        if !self.same_size("smooth_l1_loss", target) {
            return self.trace().poison();
        }
        let error = self - target;
        let distance = error.abs();
        // Where `beta` is 0 no distance is below it; the quotient must not be NaN all the same.
        let divisor = beta.eq(&beta.number(0.0)).where_(&beta.number(1.0), beta);
        let square = error.square() * 0.5 / divisor;
        reduction.apply(distance.lt(beta).where_(&square, &(&distance - beta * 0.5)))
    }
}
