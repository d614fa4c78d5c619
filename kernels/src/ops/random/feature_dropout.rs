//! Dropout of whole channels, and dropout that keeps mean and variance: `dropout1d`, `dropout2d`, `dropout3d`,
//! `alpha_dropout`, `feature_alpha_dropout`. Written with [`dropout`](Var::dropout) of ones.
//!
//! Source: the functions of `torch.nn.functional` while training; the random numbers are others.

use crate::ir::shape::Shape;
use crate::ir::trace::Var;

const FEW: &str = "Feature dropout requires at least 2 dimensions in the input";

/// Minus the least value of SELU.
const ALPHA: f64 = 1.758_099_340_847_376_6;

/// torch's warning of an input of three axes.
const UNBATCHED: &str = "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout behavior \
    is desired - input is interpreted as shape (N, C, L), where C is the channel dim. This behavior will change in a \
    future release to interpret the input as one without a batch dimension, i.e. shape (C, H, W). To maintain the 1D \
    channel-wise dropout behavior, please switch to using dropout1d instead.";

/// Writes torch's warning of an input with another number of axes than the spatial ones ask for.
fn unusual(spatial: &str, expected: &str, rank: usize) -> String {
    format!(
        "dropout{spatial}d: Received a {rank}-D input to dropout{spatial}d, which is deprecated and will result in an \
         error in a future release. To retain the behavior and silence this warning, please use dropout instead. Note \
         that dropout{spatial}d exists to provide channel-wise dropout on inputs with {spatial} spatial dimensions, a \
         channel dimension, and an optional batch dimension (i.e. {expected} inputs)."
    )
}

impl Var {
    /// Sets whole channels of `[batch, channels, length]` or `[channels, length]` to 0 with probability `p`, `[]`, and
    /// divides the others by `1 - p`.
    ///
    /// Source: `torch.nn.functional.dropout1d` while training.
    #[must_use]
    pub fn dropout1d(&self, p: &Var) -> Var {
        match self.shape().rank() {
            rank @ 2..=3 => self.drop_channels(rank - 1, p),
            rank => self.trace().fail(format!(
                "dropout1d: Expected 2D or 3D input, but received a {rank}D input. Note that dropout1d exists to \
                 provide channel-wise dropout on inputs with 1 spatial dimension, a channel dimension, and an \
                 optional batch dimension (i.e. 2D or 3D inputs)."
            )),
        }
    }

    /// Sets whole channels of `[batch, channels, ..]` to 0 with probability `p`, `[]`, and divides the others by
    /// `1 - p`. `[channels, height, width]` is taken for a batch, as in torch.
    ///
    /// Source: `torch.nn.functional.dropout2d` while training.
    #[must_use]
    pub fn dropout2d(&self, p: &Var) -> Var {
        let rank = self.shape().rank();
        match rank {
            3 => self.trace().warn(UNBATCHED),
            4 => {}
            _ => self.trace().warn(unusual("2", "3D or 4D", rank)),
        }
        match rank {
            0 | 1 => self.trace().fail(FEW),
            _ => self.drop_channels(2, p),
        }
    }

    /// Sets whole channels of `[batch, channels, depth, height, width]` or `[channels, depth, height, width]` to 0 with
    /// probability `p`, `[]`, and divides the others by `1 - p`.
    ///
    /// Source: `torch.nn.functional.dropout3d` while training.
    #[must_use]
    pub fn dropout3d(&self, p: &Var) -> Var {
        let rank = self.shape().rank();
        if !(4..=5).contains(&rank) {
            self.trace().warn(unusual("3", "4D or 5D", rank));
        }
        match rank {
            0 => self.trace().fail(FEW),
            5 => self.drop_channels(2, p),
            _ => self.drop_channels(1, p),
        }
    }

    /// Sets each element to the least value of [`selu`](Var::selu) with probability `p`, `[]`, then scales and shifts
    /// all, so that mean 0 and variance 1 stay.
    ///
    /// Source: `torch.nn.functional.alpha_dropout` while training.
    #[must_use]
    pub fn alpha_dropout(&self, p: &Var) -> Var {
        self.drop_to_alpha(self.shape().clone(), p)
    }

    /// Does to whole channels of `[batch, channels, ..]` what [`alpha_dropout`](Var::alpha_dropout) does to numbers.
    ///
    /// Source: `torch.nn.functional.feature_alpha_dropout` while training.
    #[must_use]
    pub fn feature_alpha_dropout(&self, p: &Var) -> Var {
        match self.shape().rank() {
            0 | 1 => self.trace().fail(FEW),
            _ => self.drop_to_alpha(self.leading(2), p),
        }
    }

    /// Gives the first `axes` sizes, and ones for the others.
    fn leading(&self, axes: usize) -> Shape {
        let size = |(axis, &size)| if axis < axes { size } else { 1 };
        self.shape().iter().enumerate().map(size).collect()
    }

    /// Drops ones of a shape.
    fn kept(&self, shape: Shape, p: &Var) -> Var {
        self.trace().constant(1.0, self.dtype(), shape).dropout(p)
    }

    /// Drops channels, which the first `axes` axes count.
    fn drop_channels(&self, axes: usize, p: &Var) -> Var {
        self * self.kept(self.leading(axes), p)
    }

    /// Returns `a · x + b` where a number is kept, `b - a · ALPHA` where it is dropped; `a` and `b` keep mean and
    /// variance.
    fn drop_to_alpha(&self, shape: Shape, p: &Var) -> Var {
        let scale = ((1.0 - p) / (p * (ALPHA * ALPHA) + 1.0)).sqrt();
        // What is kept is scaled by `a = scale / (1 - p)`.
        let kept = self.kept(shape, p) * &scale;
        &kept * self + (kept - scale) * ALPHA
    }
}
