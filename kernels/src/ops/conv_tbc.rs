//! `conv_tbc`: a convolution along the first axis, written with [`convolution`](Var::convolution).
//!
//! Source: `torch.nn.functional.conv_tbc`.

use super::convolution::Convolution;
use crate::ir::trace::{Function, Var};

impl Var {
    /// Convolves sequences along their first axis, with `pad` zeros before and after.
    ///
    /// # Shape
    ///
    /// `self` is `[time, batch, in]`, `weight` `[width, in, out]`, `bias` `[out]`; the result is
    /// `[time + 2 · pad - width + 1, batch, out]`.
    ///
    /// Source: `torch.nn.functional.conv_tbc`.
    #[must_use]
    pub fn conv_tbc(&self, weight: &Var, bias: &Var, pad: usize) -> Var {
        let inputs = [Some(self), Some(weight), Some(bias)];
        self.trace().function(Function::of_same("conv_tbc"), &inputs, |cast| {
            cast(self).plain_conv_tbc(&cast(weight), &cast(bias), pad)
        })
    }

    fn plain_conv_tbc(&self, weight: &Var, bias: &Var, pad: usize) -> Var {
        for (what, of) in [("Input", self), ("Weight", weight)] {
            if of.shape().rank() != 3 {
                return self
                    .trace()
                    .fail(format!("{what} must have 3 dims: time, batch, in_channel"));
            }
        }
        let settings = Convolution {
            stride: vec![1],
            padding: vec![(pad, pad)],
            dilation: vec![1],
            groups: 1,
        };
        let y = self.permute(&[1, 2, 0]).convolution(
            &weight.permute(&[2, 1, 0]),
            Some(bias),
            &settings,
        );
        if y.id().is_some() { y.permute(&[2, 0, 1]) } else { y }
    }
}
