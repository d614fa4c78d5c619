//! Losses of yes-or-no questions: `binary_cross_entropy`, `binary_cross_entropy_with_logits`,
//! `soft_margin_loss`, `multilabel_soft_margin_loss`, `hinge_embedding_loss`.

use crate::arithmetic::Arithmetic;
use crate::ir::op::GradientAt;
use crate::ir::trace::{Function, Var};
use crate::ops::elementwise::pointwise::{Formula, pointwise};
use crate::ops::reduction::reduce::Reduction;

/// `-(t · ln x + (1 - t) · ln(1 - x))`, no logarithm below -100.
#[derive(Clone, Copy, Debug)]
struct BinaryCrossEntropy;

/// What a logarithm in [`BinaryCrossEntropy`] is at least.
const LEAST_LOG: f64 = -100.0;

/// What the divisor `x (1 - x)` of its gradient is at least.
const LEAST_DIVISOR: f64 = 1e-12;

impl Formula<2, 1> for BinaryCrossEntropy {
    fn name(&self) -> &'static str {
        "binary_cross_entropy"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, target]: [A; 2]) -> [A; 1] {
        let c = A::splat;
        let bounded = |log: A| A::select(log.lt(c(LEAST_LOG)), c(LEAST_LOG), log);
        let yes = bounded(x.ln());
        let no = bounded(c(0.0).sub(x).ln_1p());
        [target.sub(c(1.0)).mul(no).sub(target.mul(yes))]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, target) = (&at.inputs[0], &at.inputs[1]);
        let Some(dy) = &at.gradients[0] else {
            return vec![None; 2];
        };
        let of_x = || {
            let divisor = ((1.0 - x) * x).clamp_min(&x.number(LEAST_DIVISOR));
            dy * ((x - target) / divisor)
        };
        let of_target = || dy * ((-x).log1p() - x.log());
        vec![at.needs[0].then(of_x), at.needs[1].then(of_target)]
    }
}

/// Multiplies losses by a weight that broadcasts to them, and reduces them.
fn weighted(losses: Var, weight: Option<&Var>, reduction: Reduction) -> Var {
    reduction.apply(match weight {
        Some(weight) => losses * weight,
        None => losses,
    })
}

impl Var {
    /// Returns `-(t · ln x + (1 - t) · ln(1 - x))` of these probabilities against the targets `t`, with
    /// logarithms of at least -100, times `weight`, reduced.
    ///
    /// # Shape
    ///
    /// Both have one shape, `weight` one that broadcasts to it; the loss is `[]`, or of that shape if
    /// `reduction` is [`Reduction::None`]. A probability outside of 0 to 1 gives NaN.
    ///
    /// Source: `torch.nn.functional.binary_cross_entropy`.
    #[must_use]
    pub fn binary_cross_entropy(
        &self,
        target: &Var,
        weight: Option<&Var>,
        reduction: Reduction,
    ) -> Var {
        self.trace().function(
            Function::of_same("binary_cross_entropy"),
            &[Some(self), Some(target), weight],
            |cast| {
                cast(self).plain_binary_cross_entropy(
                    &cast(target),
                    weight.map(cast).as_ref(),
                    reduction,
                )
            },
        )
    }

    fn plain_binary_cross_entropy(
        &self,
        target: &Var,
        weight: Option<&Var>,
        reduction: Reduction,
    ) -> Var {
        if self.shape() != target.shape() {
            return self.trace().fail(format!(
                "Using a target size (torch.Size({})) that is different to the input size \
                 (torch.Size({})) is deprecated. Please ensure they have the same size.",
                target.shape(),
                self.shape()
            ));
        }
        weighted(pointwise(BinaryCrossEntropy, [self, target]), weight, reduction)
    }

    /// Gives the binary cross entropy of the sigmoid of these numbers, computed so that nothing overflows;
    /// `pos_weight` multiplies the part of positive targets, `weight` the whole; reduced.
    ///
    /// # Shape
    ///
    /// Both have one shape, the weights shapes that broadcast to it; the loss is `[]`, or of that shape if
    /// `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.binary_cross_entropy_with_logits`.
    #[must_use]
    pub fn binary_cross_entropy_with_logits(
        &self,
        target: &Var,
        weight: Option<&Var>,
        pos_weight: Option<&Var>,
        reduction: Reduction,
    ) -> Var {
        self.trace().function(
            Function::new("binary_cross_entropy_with_logits"),
            &[Some(self), Some(target), weight, pos_weight],
            |cast| {
                cast(self).plain_binary_cross_entropy_with_logits(
                    &cast(target),
                    weight.map(cast).as_ref(),
                    pos_weight.map(cast).as_ref(),
                    reduction,
                )
            },
        )
    }

    fn plain_binary_cross_entropy_with_logits(
        &self,
        target: &Var,
        weight: Option<&Var>,
        pos_weight: Option<&Var>,
        reduction: Reduction,
    ) -> Var {
        if self.shape() != target.shape() {
            return self.trace().fail(format!(
                "Target size (torch.Size({})) must be the same as input size (torch.Size({}))",
                target.shape(),
                self.shape()
            ));
        }
        let log = match pos_weight {
            Some(pos_weight) => ((pos_weight - 1.0) * target + 1.0) * self.logsigmoid(),
            None => self.logsigmoid(),
        };
        weighted((1.0 - target) * self - log, weight, reduction)
    }

    /// Returns `ln(1 + exp(-target · x))`, reduced; targets are 1 or -1.
    ///
    /// # Shape
    ///
    /// Both broadcast; the loss is `[]`, or of that shape if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.soft_margin_loss`.
    #[must_use]
    pub fn soft_margin_loss(&self, target: &Var, reduction: Reduction) -> Var {
        self.trace().function(
            Function::new("soft_margin_loss"),
            &[Some(self), Some(target)],
            |cast| cast(self).plain_soft_margin_loss(&cast(target), reduction),
        )
    }

    fn plain_soft_margin_loss(&self, target: &Var, reduction: Reduction) -> Var {
        reduction.apply((-self * target).exp().log1p())
    }

    /// Gives the mean over the last axis, that of classes, of the binary cross entropy with logits times
    /// `weight`, reduced over the rest.
    ///
    /// # Shape
    ///
    /// `self` and `target` are `[.., classes]`, `weight` broadcasts to that; the loss is `[]`, or `[..]` if
    /// `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.multilabel_soft_margin_loss`.
    #[must_use]
    pub fn multilabel_soft_margin_loss(
        &self,
        target: &Var,
        weight: Option<&Var>,
        reduction: Reduction,
    ) -> Var {
        let loss = -(target * self.logsigmoid() + (1.0 - target) * (-self).logsigmoid());
        let loss = match weight {
            Some(weight) => loss * weight,
            None => loss,
        };
        reduction.apply(loss.mean(&[-1], false))
    }

    /// Returns `x` where the target is 1, `max(0, margin - x)` where it is -1, and their sum elsewhere,
    /// reduced; `margin` is `[]`.
    ///
    /// # Shape
    ///
    /// Both broadcast; the loss is `[]`, or of that shape if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.hinge_embedding_loss`.
    #[must_use]
    pub fn hinge_embedding_loss(&self, target: &Var, margin: &Var, reduction: Reduction) -> Var {
        self.trace().function(
            Function::new("hinge_embedding_loss"),
            &[Some(self), Some(target), Some(margin)],
            |cast| cast(self).plain_hinge_embedding_loss(&cast(target), &cast(margin), reduction),
        )
    }

    fn plain_hinge_embedding_loss(&self, target: &Var, margin: &Var, reduction: Reduction) -> Var {
        let (zero, one) = (self.number(0.0), self.number(1.0));
        let hinge = target.eq(&one).where_(&zero, &(margin - self).clamp_min(&zero));
        let close = target.eq(&-&one).where_(&zero, self);
        reduction.apply(hinge + close)
    }
}
