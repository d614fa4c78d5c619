//! How a convolution walks, and which of its sides is computed.

use crate::ir::program::Function;

/// How a convolution walks: one number for each spatial axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// Elements of the input from one element of the output to the next.
    pub stride: Vec<usize>,
    /// Zeros that are thought before and behind the input.
    pub padding: Vec<(usize, usize)>,
    /// Elements of the input from one element of the kernel to the next.
    pub dilation: Vec<usize>,
    /// Into how many groups channels are divided; each sees its own alone.
    pub groups: usize,
}

impl Convolution {
    /// Gives the function that convolves along so many axes.
    pub(super) fn function(&self, is_transposed: bool) -> Function {
        Function::of_same(match (is_transposed, self.stride.len()) {
            (false, 1) => "conv1d",
            (false, 2) => "conv2d",
            (false, _) => "conv3d",
            (true, 1) => "conv_transpose1d",
            (true, 2) => "conv_transpose2d",
            (true, _) => "conv_transpose3d",
        })
    }
}

/// Which of the three sides is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// `y` from `x` and the weight, and perhaps a bias.
    Output,
    /// `x` from `y` and the weight.
    Input,
    /// The weight from `x` and `y`.
    Weight,
}
