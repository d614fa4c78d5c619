//! `rrelu`: leaky ReLU with random slopes, written with other ops.
//!
//! Source: `torch.nn.functional.rrelu`; the random numbers are others.

use crate::ir::trace::Var;

impl Var {
    /// Returns `x` where `x > 0`, `a · x` elsewhere: while training, each number has a slope `a` of its own, drawn evenly
    /// between `lower` and `upper`, which are `[]`; otherwise `a` is their mean.
    ///
    /// Source: `torch.nn.functional.rrelu`.
    #[must_use]
    pub fn rrelu(&self, lower: &Var, upper: &Var, training: bool) -> Var {
        if !training {
            return self.leaky_relu(&((lower + upper) * 0.5));
        }
        let part = self.trace().rand(self.dtype(), self.shape().clone());
        let slope = (upper - lower) * part + lower;
        self.leaky_relu(&slope)
    }
}
