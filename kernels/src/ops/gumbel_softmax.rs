//! `gumbel_softmax`: classes drawn by their logits, so that there is a gradient. Written with other ops.
//!
//! Source: `torch.nn.functional.gumbel_softmax`, after Jang, Gu and Poole (2017); the random numbers are others.

use crate::ir::trace::Var;
use crate::ops::reduction::reduce::no_such_axis;

impl Var {
    /// Draws from the Gumbel-softmax distribution of these logits along `dim`: `softmax((logits + g) / tau)`, where
    /// each `g` is `-ln(-ln u)` of a number `u` drawn evenly from 0 to 1. `tau` is `[]`. If `hard`, gives 1 at the
    /// greatest and 0 elsewhere, with the gradient of the softmax.
    ///
    /// # Shape
    ///
    /// The result is as `self`.
    ///
    /// Source: `torch.nn.functional.gumbel_softmax`.
    #[must_use]
    pub fn gumbel_softmax(&self, tau: &Var, hard: bool, dim: isize) -> Var {
        let Some(axis) = self.shape().axis(dim) else {
            return self.trace().fail(no_such_axis(dim, self.shape()).0);
        };
        // The least `u` is 0: its class is not drawn. 1 does not come.
        let even = self.trace().rand(self.dtype(), self.shape().clone());
        let gumbels = -(-even.log()).log();
        let soft = ((self + gumbels) / tau).softmax(dim);
        if !hard || soft.id().is_none() {
            return soft;
        }
        let classes = self.shape()[axis];
        let chosen = soft.argmax(dim).one_hot(axis, classes, None, self.dtype());
        chosen - soft.detach() + soft
    }
}
