//! `bilinear`: a product of two vectors for each output.

use crate::ir::shape::Shape;
use crate::ir::trace::{Function, Var};

impl Var {
    /// Returns `y_o = xᵀ · weight_o · other + bias_o`.
    ///
    /// # Shape
    ///
    /// `self` is `[.., in1]`, `other` `[.., in2]`, `weight` `[out, in1, in2]`, `bias` `[out]`; the result is
    /// `[.., out]`.
    ///
    /// Source: `torch.nn.functional.bilinear`.
    #[must_use]
    pub fn bilinear(&self, other: &Var, weight: &Var, bias: Option<&Var>) -> Var {
        self.trace().function(
            Function::of_same("bilinear"),
            &[Some(self), Some(other), Some(weight), bias],
            |cast| cast(self).plain_bilinear(&cast(other), &cast(weight), bias.map(cast).as_ref()),
        )
    }

    fn plain_bilinear(&self, other: &Var, weight: &Var, bias: Option<&Var>) -> Var {
        if [self, other, weight].iter().any(|x| x.id().is_none()) {
            return self.trace().poison();
        }
        let (x, y, w) = (self.shape(), other.shape(), weight.shape());
        if x.rank() != y.rank() {
            return self.trace().fail(format!(
                "bilinear(): input dimensions do not match: got {} and {}",
                x.rank(),
                y.rank()
            ));
        }
        let (Some((in1, batch)), Some((in2, of_other))) = (x.split_last(), y.split_last()) else {
            return self.trace().fail("bilinear(): expected inputs with at least one dimension");
        };
        if let Some(axis) = (0..batch.len()).find(|&axis| batch[axis] != of_other[axis]) {
            return self.trace().fail(format!(
                "bilinear(): input batch dimensions do not match at dim {axis}: got {} and {}",
                batch[axis], of_other[axis]
            ));
        }
        let [out, of1, of2] = **w else {
            return self.trace().fail(format!("bilinear(): weight must be 3-dimensional, got {w}"));
        };
        for (number, size, of) in [(1, *in1, of1), (2, *in2, of2)] {
            if size != of {
                return self.trace().fail(format!(
                    "bilinear(): input{number} size does not match weight size: got {size} but expected {of}"
                ));
            }
        }
        let weight = weight.permute(&[0, 2, 1]).reshape([out * of2, of1]);
        let shaped = |sizes: &[usize]| -> Shape { batch.iter().chain(sizes).copied().collect() };
        let first = self.linear(&weight, None).reshape(shaped(&[out, of2]));
        let product = (first * other.reshape(shaped(&[1, of2]))).sum(&[-1], false);
        match bias {
            Some(bias) => product + bias,
            None => product,
        }
    }
}
