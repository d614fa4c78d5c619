//! Losses that are logarithms of likelihoods: `nll_loss`, `cross_entropy_of_probabilities`, `kl_div`,
//! `poisson_nll_loss`, `gaussian_nll_loss`.

use core::f64::consts::PI;

use crate::arithmetic::elementary;
use crate::ir::shape::Shape;
use crate::ir::trace::{Function, Var};
use crate::ops::reduction::reduce::Reduction;

impl Var {
    /// Returns `[classes]` the shape that broadcasts along axis `axis` of a value with `rank` axes.
    pub(crate) fn along(&self, axis: usize, rank: usize) -> Var {
        let sizes = self.shape().iter().copied().chain(vec![1; rank.saturating_sub(axis + 1)]);
        self.reshape(sizes.collect::<Shape>())
    }

    /// Says what is wrong with targets or class weights for these numbers, in torch's words.
    fn class_mismatch(&self, target: Option<&Shape>, weight: Option<&Var>) -> Option<String> {
        let (rank, axis) = (self.shape().rank(), usize::from(self.shape().rank() > 1));
        if rank == 0 {
            return Some("Expected 1 or more dimensions (got 0)".into());
        }
        let classes = self.shape()[axis];
        let others = (0..rank).filter(|&other| other != axis);
        let expected: Shape = others.map(|other| self.shape()[other]).collect();
        if let Some(target) = target.filter(|target| **target != expected) {
            return Some(match (expected.first(), target.first()) {
                (Some(input), Some(target)) if input != target => format!(
                    "Expected input batch_size ({input}) to match target batch_size ({target})."
                ),
                _ => format!("Expected target size {expected}, got {target}"),
            });
        }
        let wrong = weight.filter(|weight| **weight.shape() != [classes]);
        wrong.map(|weight| {
            format!(
                "weight tensor should be defined either for all {classes} classes or no classes but got \
                 weight tensor of shape: {}",
                weight.shape()
            )
        })
    }

    /// Gives minus the number at the target class, times the class's weight. The mean is that of all items,
    /// weighted; items whose target is `ignore_index` count for nothing, and a target that is no class makes
    /// the loss NaN.
    ///
    /// # Shape
    ///
    /// `self` is `[items, classes]` or `[items, classes, ..]`, logarithms of probabilities, or `[classes]` for
    /// one item; `target` is `[items]`, `[items, ..]` or `[]`, of i64; `weight` is `[classes]`. The loss is
    /// `[]`, or as `target` if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.nll_loss`, which raises for a target that is no class.
    #[must_use]
    pub fn nll_loss(
        &self,
        target: &Var,
        weight: Option<&Var>,
        ignore_index: i64,
        reduction: Reduction,
    ) -> Var {
        self.trace().function(
            Function::of_same("nll_loss"),
            &[Some(self), Some(target), weight],
            |cast| {
                cast(self).plain_nll_loss(
                    &cast(target),
                    weight.map(cast).as_ref(),
                    ignore_index,
                    reduction,
                )
            },
        )
    }

    fn plain_nll_loss(
        &self,
        target: &Var,
        weight: Option<&Var>,
        ignore_index: i64,
        reduction: Reduction,
    ) -> Var {
        if self.id().is_none() || target.id().is_none() {
            return self.trace().poison();
        }
        if let Some(wrong) = self.class_mismatch(Some(target.shape()), weight) {
            return self.trace().fail(wrong);
        }
        let (rank, axis) = (self.shape().rank(), usize::from(self.shape().rank() > 1));
        let hot = target.one_hot(axis, self.shape()[axis], Some(ignore_index), self.dtype());
        let over = [axis as isize];
        let picked = hot.where_(self, &self.number(0.0)).sum(&over, false);
        let weights = match weight {
            Some(weight) => (&hot * weight.along(axis, rank)).sum(&over, false),
            None => hot.sum(&over, false),
        };
        let losses = -(picked * &weights);
        match reduction {
            Reduction::Mean => losses.sum(&[], false) / weights.sum(&[], false),
            _ => reduction.apply(losses),
        }
    }

    /// Gives the cross entropy of these logits with probabilities of the classes:
    /// `-Σ_c w_c · ((1 - ε) · target_c + ε / C) · log softmax(x)_c`, reduced over items; `label_smoothing`, `ε`,
    /// is `[]`.
    ///
    /// # Shape
    ///
    /// `self` and `target` are `[items, classes, ..]` or `[classes]`, `weight` is `[classes]`. The loss is
    /// `[]`, or without the axis of classes if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.cross_entropy` with probabilities.
    #[must_use]
    pub fn cross_entropy_of_probabilities(
        &self,
        target: &Var,
        weight: Option<&Var>,
        label_smoothing: &Var,
        reduction: Reduction,
    ) -> Var {
        self.trace().function(
            Function::new("cross_entropy_loss"),
            &[Some(self), Some(target), weight, Some(label_smoothing)],
            |cast| {
                cast(self).plain_cross_entropy_of_probabilities(
                    &cast(target),
                    weight.map(cast).as_ref(),
                    &cast(label_smoothing),
                    reduction,
                )
            },
        )
    }

    fn plain_cross_entropy_of_probabilities(
        &self,
        target: &Var,
        weight: Option<&Var>,
        label_smoothing: &Var,
        reduction: Reduction,
    ) -> Var {
        if self.id().is_none() || target.id().is_none() {
            return self.trace().poison();
        }
        if self.shape() != target.shape() {
            return self.trace().fail(format!(
                "Expected floating point type for target with class probabilities to have shape {}, got {}",
                self.shape(),
                target.shape()
            ));
        }
        if let Some(wrong) = self.class_mismatch(None, weight) {
            return self.trace().fail(format!("cross_entropy: {wrong}"));
        }
        let (rank, axis) = (self.shape().rank(), usize::from(self.shape().rank() > 1));
        let classes = self.shape()[axis] as f64;
        let target = target * (1.0 - label_smoothing) + label_smoothing / classes;
        let mut parts = self.log_softmax(axis as isize) * target;
        if let Some(weight) = weight {
            parts = parts * weight.along(axis, rank);
        }
        let losses = -parts.sum(&[axis as isize], false);
        reduction.apply(losses)
    }

    /// Returns `target · (ln target - x)`, or, if `log_target`, `exp(target) · (target - x)`, not reduced. Where
    /// the target is 0 the loss is 0.
    ///
    /// # Shape
    ///
    /// Both broadcast, and so is the loss.
    ///
    /// Source: `torch.nn.functional.kl_div` with `reduction='none'`.
    #[must_use]
    pub fn kl_div(&self, target: &Var, log_target: bool) -> Var {
        self.trace().function(Function::new("kl_div"), &[Some(self), Some(target)], |cast| {
            cast(self).plain_kl_div(&cast(target), log_target)
        })
    }

    fn plain_kl_div(&self, target: &Var, log_target: bool) -> Var {
        match log_target {
            true => target.exp() * (target - self),
            false => target.xlogy(target) - target * self,
        }
    }

    /// Returns `exp(x) - target · x`, or, unless `log_input`, `x - target · ln(x + eps)`, reduced. If `full`,
    /// Stirling's approximation of `ln target!` is added where the target is above 1; `eps` is `[]`.
    ///
    /// # Shape
    ///
    /// Both broadcast; the loss is `[]`, or of that shape if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.poisson_nll_loss`.
    #[must_use]
    pub fn poisson_nll_loss(
        &self,
        target: &Var,
        log_input: bool,
        full: bool,
        eps: &Var,
        reduction: Reduction,
    ) -> Var {
        self.trace().function(
            Function::new("poisson_nll_loss"),
            &[Some(self), Some(target), Some(eps)],
            |cast| {
                cast(self).plain_poisson_nll_loss(
                    &cast(target),
                    log_input,
                    full,
                    &cast(eps),
                    reduction,
                )
            },
        )
    }

    fn plain_poisson_nll_loss(
        &self,
        target: &Var,
        log_input: bool,
        full: bool,
        eps: &Var,
        reduction: Reduction,
    ) -> Var {
        let loss = match log_input {
            true => self.exp() - target * self,
            false => self - target * (self + eps).log(),
        };
        if !full {
            return reduction.apply(loss);
        }
        let (zero, one) = (target.number(0.0), target.number(1.0));
        let is_large = one.lt(target);
        // What is not chosen must have a slope too.
        let safe = is_large.where_(target, &one);
        let stirling = &safe * safe.log() - &safe + (&safe * (2.0 * PI)).log() * 0.5;
        reduction.apply(loss + is_large.where_(&stirling, &zero))
    }

    /// Returns `½ (ln var + (x - target)² / var)`, reduced, with variances of at least `eps`, which is `[]`; the
    /// gradient of a variance below it is that at `eps`. If `full`, `½ ln 2π` is added.
    ///
    /// # Shape
    ///
    /// `self` and `target` broadcast; `var` is as `self`, or lacks its last axis, or has size 1 along one
    /// axis. The loss is `[]`, or of the shape of all if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.gaussian_nll_loss`, which refuses negative variances.
    #[must_use]
    pub fn gaussian_nll_loss(
        &self,
        target: &Var,
        var: &Var,
        full: bool,
        eps: &Var,
        reduction: Reduction,
    ) -> Var {
        if self.id().is_none() || var.id().is_none() {
            return self.trace().poison();
        }
        let (x, of_var) = (self.shape(), var.shape());
        let var = if of_var == x {
            var.clone()
        } else if x.rank() > 0 && **of_var == x[..x.rank() - 1] {
            var.reshape(of_var.iter().copied().chain([1]).collect::<Shape>())
        } else {
            let differ = x.iter().zip(of_var.iter()).filter(|(x, var)| x != var);
            if x.rank() != of_var.rank() || differ.map(|(_, var)| var).sum::<usize>() != 1 {
                return self.trace().fail("var is of incorrect size");
            }
            var.clone()
        };
        let var = var.with_data(&var.clamp_min(eps));
        let mut loss = (var.log() + (self - target).square() / &var) * 0.5;
        if full {
            loss = loss + 0.5 * elementary::ln(2.0 * PI);
        }
        reduction.apply(loss)
    }
}
