//! The statistics of a batch from those of its shards: the rule of `SyncBatchNorm`.
//!
//! ```text
//! n = Σ nᵢ        mean = Σ nᵢ · meanᵢ / n        var = Σ nᵢ · (varᵢ + (meanᵢ - mean)²) / n
//! ```
//!
//! Written with other ops, which bring its gradients. Source: `torch.batch_norm_gather_stats_with_counts`, which
//! adds one shard after the other.

use crate::ir::trace::Var;

/// What [`Var::batch_norm_gather_stats_with_counts`] gives.
#[derive(Clone, Debug)]
pub struct GatheredStats {
    /// The mean of the batch, `[channels]`.
    pub mean: Var,
    /// `1 / √(var + eps)`, `[channels]`.
    pub invstd: Var,
    /// The variance, not corrected for bias, `[channels]`.
    pub var: Var,
    /// `var · n / (n - 1)`, which moves running statistics, `[channels]`.
    pub unbiased_var: Var,
}

impl Var {
    /// Joins the statistics of the shards of a batch: their means, `self`, their `invstd = 1 / √(var + eps)` and how
    /// many numbers each channel of each shard has. An empty shard counts for nothing, whatever its statistics.
    ///
    /// # Shape
    ///
    /// `self` and `invstd` are `[shards, channels]`, `counts` is `[shards]`, `eps` is `[]`.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_kernels::ir::dtype::Dtype;
    /// # use neurarch_kernels::ir::trace::Trace;
    /// # use neurarch_kernels::ir::shape::Type;
    /// let trace = Trace::new();
    /// let [mean, invstd] = [(); 2].map(|()| trace.input(Type::new(Dtype::F32, [4, 3])));
    /// let counts = trace.input(Type::new(Dtype::F32, [4]));
    /// let eps = trace.constant(1e-5, Dtype::F32, []);
    /// let all = mean.batch_norm_gather_stats_with_counts(&invstd, &counts, &eps);
    /// assert_eq!(all.mean.shape()[..], [3]);
    /// ```
    ///
    /// Source: `torch.batch_norm_gather_stats_with_counts`, which also moves the running statistics and leaves
    /// gradients to `SyncBatchNorm`.
    #[must_use]
    pub fn batch_norm_gather_stats_with_counts(
        &self,
        invstd: &Var,
        counts: &Var,
        eps: &Var,
    ) -> GatheredStats {
        let poison = || self.trace().poison();
        let stats = self.shape().clone();
        if stats.rank() != 2 || *invstd.shape() != stats || counts.shape()[..] != stats[..1] {
            let (invstd, counts) = (invstd.shape(), counts.shape());
            self.trace().fail(format!(
                "batch_norm_gather_stats_with_counts: expected [shards, channels] twice and [shards], got \
                 {stats}, {invstd} and {counts}"
            ));
            return GatheredStats {
                mean: poison(),
                invstd: poison(),
                var: poison(),
                unbiased_var: poison(),
            };
        }
        let counts = counts.to(self.dtype()).reshape([stats[0], 1]);
        // 0 · NaN would be NaN.
        let is_empty = counts.lt(&counts.number(1.0));
        let filled = |x: &Var, by: f64| is_empty.where_(&x.number(by), x);
        let means = filled(self, 0.0);
        let vars = filled(invstd, 1.0).square().reciprocal() - eps;
        let n = counts.sum(&[0], false);
        let mean = (&means * &counts).sum(&[0], false) / &n;
        let apart = (&means - mean.reshape([1, stats[1]])).square();
        let sum = ((vars + apart) * &counts).sum(&[0], false);
        let var = &sum / &n;
        let invstd = (&var + eps).sqrt().reciprocal();
        GatheredStats { mean, invstd, var, unbiased_var: sum / (n - 1.0) }
    }
}
