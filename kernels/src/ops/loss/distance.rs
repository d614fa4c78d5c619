//! Distances and likenesses of vectors, and the losses of them: `vector_norm`, `pairwise_distance`,
//! `cosine_similarity`, `pdist`, `cosine_embedding_loss`, `margin_ranking_loss`, `triplet_margin_loss`.

use crate::ir::trace::{Function, Var};
use crate::ops::elementwise::pointwise::broadcast;
use crate::ops::reduction::reduce::Reduction;

/// What [`Var::cosine_embedding_loss`] adds to squared lengths.
const COSINE_EPS: f64 = 1e-12;

impl Var {
    /// Returns `(Σ |x|ᵖ)^(1/p)` along `dim`: for `p` infinite the largest or least `|x|`, for 0 how many are not
    /// 0. The gradient of a vector of length 0 is 0.
    ///
    /// Source: `torch.linalg.vector_norm`.
    #[must_use]
    pub fn vector_norm(&self, p: f64, dim: isize, keepdim: bool) -> Var {
        self.trace().function(Function::new("linalg_vector_norm"), &[Some(self)], |cast| {
            cast(self).plain_vector_norm(p, dim, keepdim)
        })
    }

    fn plain_vector_norm(&self, p: f64, dim: isize, keepdim: bool) -> Var {
        let (zero, one) = (self.number(0.0), self.number(1.0));
        let sum = |x: &Var| x.sum(&[dim], keepdim);
        if p == f64::INFINITY {
            return self.abs().amax(&[dim], keepdim);
        }
        if p == f64::NEG_INFINITY {
            return -(-self.abs()).amax(&[dim], keepdim);
        }
        if p == 1.0 {
            return sum(&self.abs());
        }
        if p == 0.0 {
            return sum(&self.eq(&zero).where_(&(self * 0.0), &one));
        }
        let powers = if p == 2.0 {
            self.square()
        } else {
            let is_zero = self.eq(&zero);
            let power = is_zero.where_(&one, &self.abs()).pow(p);
            let of_zero = self.number(if p > 0.0 { 0.0 } else { f64::INFINITY });
            is_zero.where_(&of_zero, &power)
        };
        let total = sum(&powers);
        let is_zero = total.eq(&zero);
        let safe = is_zero.where_(&one, &total);
        let root = if p == 2.0 { safe.sqrt() } else { safe.pow(1.0 / p) };
        is_zero.where_(&zero, &root)
    }

    /// Gives the norm of `self - other + eps` along the last axis; `eps` is `[]`.
    ///
    /// # Shape
    ///
    /// Both broadcast to `[.., size]`; the result is `[..]`, or `[.., 1]` if `keepdim`.
    ///
    /// Source: `torch.nn.functional.pairwise_distance`.
    #[must_use]
    pub fn pairwise_distance(&self, other: &Var, p: f64, eps: &Var, keepdim: bool) -> Var {
        (self - other + eps).vector_norm(p, -1, keepdim)
    }

    /// Gives the norm of order `p` of the difference of every two rows: of the first and each after it, of the second
    /// and each after it, and so on.
    ///
    /// # Shape
    ///
    /// `self` is `[n, size]`, the result `[n · (n - 1) / 2]`.
    ///
    /// Source: `torch.nn.functional.pdist`. Where several numbers are the greatest, for `p` infinite, they share the
    /// gradient that each has as a whole in torch.
    #[must_use]
    pub fn pdist(&self, p: f64) -> Var {
        let function = Function::new("pdist");
        self.trace().function(function, &[Some(self)], |cast| cast(self).plain_pdist(p))
    }

    fn plain_pdist(&self, p: f64) -> Var {
        let [n, size] = self.shape()[..] else {
            let rank = self.shape().rank();
            return self.trace().fail(format!("pdist only supports 2D tensors, got: {rank}D"));
        };
        if p.is_nan() || p < 0.0 {
            return self.trace().fail("pdist only supports non-negative p values");
        }
        let apart = self.reshape([n, 1, size]) - self.reshape([1, n, size]);
        if apart.id().is_none() {
            return apart;
        }
        let all = apart.vector_norm(p, -1, false).reshape([n * n]);
        let pairs: Vec<_> =
            (0..n).flat_map(|row| (row + 1..n).map(move |other| row * n + other)).collect();
        all.select_rows(&pairs)
    }

    /// Gives the product of the two, each divided by its length along `dim`, or by `eps` if it is shorter;
    /// `eps` is `[]`.
    ///
    /// # Shape
    ///
    /// Both broadcast; the result lacks the axis `dim`.
    ///
    /// Source: `torch.nn.functional.cosine_similarity`, whose gradient takes no notice of `eps`.
    #[must_use]
    pub fn cosine_similarity(&self, other: &Var, dim: isize, eps: &Var) -> Var {
        self.trace().function(
            Function::new("cosine_similarity"),
            &[Some(self), Some(other), Some(eps)],
            |cast| cast(self).plain_cosine_similarity(&cast(other), dim, &cast(eps)),
        )
    }

    fn plain_cosine_similarity(&self, other: &Var, dim: isize, eps: &Var) -> Var {
        let shape = match broadcast(self.shape(), other.shape()) {
            Ok(shape) => shape,
            Err(error) => return self.trace().fail(error.0),
        };
        let (a, b) = (self.expand(shape.clone()), other.expand(shape));
        let unit = |x: &Var| {
            let length = x.vector_norm(2.0, dim, true);
            x / length.with_data(&length.clamp_min(eps))
        };
        (unit(&a) * unit(&b)).sum(&[dim], false)
    }

    /// Returns `1 - cos` where the target is 1 and `max(0, cos - margin)` where it is -1, of the cosine of the
    /// angle between the two vectors, reduced; `margin` is `[]`.
    ///
    /// # Shape
    ///
    /// `self` and `other` are `[items, size]` and `target` is `[items]`, or `[size]` and `[]`. The loss is
    /// `[]`, or as `target` if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.cosine_embedding_loss`.
    #[must_use]
    pub fn cosine_embedding_loss(
        &self,
        other: &Var,
        target: &Var,
        margin: &Var,
        reduction: Reduction,
    ) -> Var {
        self.trace().function(
            Function::new("cosine_embedding_loss"),
            &[Some(self), Some(other), Some(target), Some(margin)],
            |cast| {
                cast(self).plain_cosine_embedding_loss(
                    &cast(other),
                    &cast(target),
                    &cast(margin),
                    reduction,
                )
            },
        )
    }

    fn plain_cosine_embedding_loss(
        &self,
        other: &Var,
        target: &Var,
        margin: &Var,
        reduction: Reduction,
    ) -> Var {
        if [self, other, target].iter().any(|x| x.id().is_none()) {
            return self.trace().poison();
        }
        let rank = target.shape().rank();
        if rank > 1 {
            return self
                .trace()
                .fail("0D or 1D target tensor expected, multi-target not supported");
        }
        if self.shape().rank() != rank + 1 || other.shape().rank() != rank + 1 {
            return self.trace().fail(format!(
                "{rank}D target tensor expects {}D input tensors, but found inputs with sizes {} and {}.",
                rank + 1,
                self.shape(),
                other.shape()
            ));
        }
        let over = [rank as isize];
        let squared = |x: &Var| x.square().sum(&over, false) + COSINE_EPS;
        let product = (self * other).sum(&over, false);
        let cosine = product / (squared(self) * squared(other)).sqrt();
        let (zero, one) = (cosine.number(0.0), cosine.number(1.0));
        let alike = target.eq(&one).where_(&(1.0 - &cosine), &zero);
        let apart = target.eq(&-&one).where_(&(&cosine - margin).clamp_min(&zero), &zero);
        reduction.apply(alike + apart)
    }

    /// Returns `max(0, margin - target · (self - other))`, reduced: a target of 1 wants `self` to be larger, one
    /// of -1 `other`; `margin` is `[]`.
    ///
    /// # Shape
    ///
    /// All broadcast and have as many axes; the loss is `[]`, or of that shape if `reduction` is
    /// [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.margin_ranking_loss`.
    #[must_use]
    pub fn margin_ranking_loss(
        &self,
        other: &Var,
        target: &Var,
        margin: &Var,
        reduction: Reduction,
    ) -> Var {
        self.trace().function(
            Function::new("margin_ranking_loss"),
            &[Some(self), Some(other), Some(target), Some(margin)],
            |cast| {
                cast(self).plain_margin_ranking_loss(
                    &cast(other),
                    &cast(target),
                    &cast(margin),
                    reduction,
                )
            },
        )
    }

    fn plain_margin_ranking_loss(
        &self,
        other: &Var,
        target: &Var,
        margin: &Var,
        reduction: Reduction,
    ) -> Var {
        let rank = self.shape().rank();
        if [other, target].iter().any(|x| x.shape().rank() != rank) {
            return self.trace().fail(format!(
                "margin_ranking_loss : All input tensors should have same dimension but got sizes: input1: \
                 {}, input2: {}, target: {} ",
                self.shape(),
                other.shape(),
                target.shape()
            ));
        }
        let zero = self.number(0.0);
        reduction.apply((-target * (self - other) + margin).clamp_min(&zero))
    }

    /// Returns `max(0, margin + d(self, positive) - d(self, negative))`, `d` being the `p`-norm of the difference plus
    /// `eps`, reduced. If `swap`, the negative is compared with the nearer of `self` and `positive`; `margin` and
    /// `eps` are `[]`.
    ///
    /// # Shape
    ///
    /// All are `[batch, size]` or `[size]`; the loss is `[]`, or `[batch]` if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.triplet_margin_loss`.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "torch's function has as many")]
    pub fn triplet_margin_loss(
        &self,
        positive: &Var,
        negative: &Var,
        margin: &Var,
        p: f64,
        eps: &Var,
        swap: bool,
        reduction: Reduction,
    ) -> Var {
        let inputs = [Some(self), Some(positive), Some(negative)];
        self.trace().function(Function::new("triplet_margin_loss"), &inputs, |cast| {
            let (margin, eps) = (cast(margin), cast(eps));
            let distance = |a: &Var, b: &Var| a.pairwise_distance(b, p, &eps, false);
            let [positive, negative] = [positive, negative].map(cast);
            cast(self).triplet_margin_with_distance_loss(
                &positive, &negative, distance, &margin, swap, reduction,
            )
        })
    }

    /// Returns `max(0, margin + d(anchor, positive) - d(anchor, negative))` with this value as the anchor, reduced.
    /// If `swap`, the negative is compared with the nearer of anchor and positive. `margin` is `[]`.
    ///
    /// # Shape
    ///
    /// All have as many axes; the loss is `[]`, or as the distances if `reduction` is [`Reduction::None`].
    ///
    /// Source: `torch.nn.functional.triplet_margin_with_distance_loss`.
    #[must_use]
    pub fn triplet_margin_with_distance_loss(
        &self,
        positive: &Var,
        negative: &Var,
        distance: impl Fn(&Var, &Var) -> Var,
        margin: &Var,
        swap: bool,
        reduction: Reduction,
    ) -> Var {
        let [a, p, n] = [self, positive, negative].map(|x| x.shape().rank());
        if a != p || p != n {
            return self.trace().fail(format!(
                "The anchor, positive, and negative tensors are expected to have the same number of \
                 dimensions, but got: anchor {a}D, positive {p}D, and negative {n}D inputs"
            ));
        }
        let near = distance(self, positive);
        let mut far = distance(self, negative);
        if swap {
            far = far.minimum(&distance(positive, negative));
        }
        let zero = near.number(0.0);
        reduction.apply((margin + near - far).clamp_min(&zero))
    }
}
