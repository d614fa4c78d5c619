//! Losses that want the right classes ahead of all others by a margin: `multi_margin_loss`,
//! `multilabel_margin_loss`.

use crate::ir::shape::Shape;
use crate::ir::trace::{Function, Var};
use crate::ops::reduction::reduce::Reduction;

impl Var {
    /// Returns `Σ max(0, margin - x_t + x_c)ᵖ / classes` over all classes `c` but the target `t`, times the
    /// target's weight, reduced; `margin` is `[]`. A target that is no class makes the loss NaN.
    ///
    /// # Shape
    ///
    /// `self` is `[items, classes]` and `target` `[items]`, or `[classes]` and `[]` or `[1]`; targets are of
    /// i64, `weight` is `[classes]`. The loss is `[]`, or as `target` if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.multi_margin_loss`, which raises for a target that is no class.
    #[must_use]
    pub fn multi_margin_loss(
        &self,
        target: &Var,
        p: u32,
        margin: &Var,
        weight: Option<&Var>,
        reduction: Reduction,
    ) -> Var {
        self.trace().function(
            Function::of_same("multi_margin_loss"),
            &[Some(self), Some(target), Some(margin), weight],
            |cast| {
                cast(self).plain_multi_margin_loss(
                    &cast(target),
                    p,
                    &cast(margin),
                    weight.map(cast).as_ref(),
                    reduction,
                )
            },
        )
    }

    fn plain_multi_margin_loss(
        &self,
        target: &Var,
        p: u32,
        margin: &Var,
        weight: Option<&Var>,
        reduction: Reduction,
    ) -> Var {
        if self.id().is_none() || target.id().is_none() {
            return self.trace().poison();
        }
        let fail = |message: String| self.trace().fail(message);
        if p != 1 && p != 2 {
            return fail("only p == 1 and p == 2 supported".into());
        }
        let shape = self.shape();
        if shape.rank() == 0 || shape.rank() > 2 || shape[shape.rank() - 1] == 0 {
            return fail(format!(
                "Expected non-empty vector or matrix with optional 0-dim batch size, but got: {shape}"
            ));
        }
        let classes = shape[shape.rank() - 1];
        let items: Shape = shape[..shape.rank() - 1].iter().copied().collect();
        let is_single = items.rank() == 0 && **target.shape() == [1];
        if *target.shape() != items && !is_single {
            return fail(format!(
                "inconsistent target size, expected {items} but got {}",
                target.shape()
            ));
        }
        if let Some(weight) = weight.filter(|weight| **weight.shape() != [classes]) {
            let given = weight.shape();
            return fail(format!("inconsistent weight size, expected {classes} but got {given}"));
        }
        let target = target.reshape(items.clone());
        let hot = target.one_hot(items.rank(), classes, None, self.dtype());
        let zero = self.number(0.0);
        let right = hot.where_(self, &zero).sum(&[-1], true);
        let mut lead = (self - right + margin).relu();
        if p == 2 {
            lead = lead.square();
        }
        let mut losses = hot.where_(&zero, &lead).sum(&[-1], false) / classes as f64;
        // Ones, and NaN for what is no class.
        let weights = match weight {
            Some(weight) => (hot * weight).sum(&[-1], false),
            None => hot.sum(&[-1], false),
        };
        losses = losses * weights;
        reduction.apply(losses)
    }

    /// Returns `Σ max(0, 1 - x_t + x_c) / classes` over all targets `t` and all classes `c` that are none,
    /// reduced. A target that is no class makes the loss NaN.
    ///
    /// # Shape
    ///
    /// `self` and `target` are `[items, classes]` or `[classes]`; targets are of i64: each item's classes up to
    /// the first number below 0. The loss is `[]`, or `[items]` if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.multilabel_margin_loss`, which raises for a target that is no class.
    #[must_use]
    pub fn multilabel_margin_loss(&self, target: &Var, reduction: Reduction) -> Var {
        self.trace().function(
            Function::of_same("multilabel_margin_loss"),
            &[Some(self), Some(target)],
            |cast| cast(self).plain_multilabel_margin_loss(&cast(target), reduction),
        )
    }

    fn plain_multilabel_margin_loss(&self, target: &Var, reduction: Reduction) -> Var {
        if self.id().is_none() || target.id().is_none() {
            return self.trace().poison();
        }
        let (shape, rank) = (self.shape(), self.shape().rank());
        if rank > 2 {
            return self.trace().fail(format!(
                "Expected non-empty vector or matrix with optional 0-dim batch size, but got: {shape}"
            ));
        }
        if target.shape() != shape {
            return self.trace().fail(format!(
                "inconsistent target size: {} for input of size: {shape}",
                target.shape()
            ));
        }
        if rank == 0 {
            let one = |x: &Var| x.reshape([1]);
            return one(self).multilabel_margin_loss(&one(target), reduction);
        }
        let classes = shape[rank - 1];
        let counts = target.label_counts(self.dtype());
        let others = counts.eq(&counts.number(0.0));
        let with = |sizes: [usize; 2]| -> Shape {
            shape[..rank - 1].iter().copied().chain(sizes).collect()
        };
        let (line, column) = (with([1, classes]), with([classes, 1]));
        // One row for each class as the target, one column for each as the other.
        let lead = (self.reshape(line.clone()) - self.reshape(column.clone()) + 1.0).relu();
        let is_other = others.reshape(line);
        let lead = is_other.where_(&lead, &lead.number(0.0)).sum(&[-1], false);
        let losses = counts.where_(&(&counts * lead), &counts.number(0.0)).sum(&[-1], false);
        reduction.apply(losses / classes as f64)
    }
}
