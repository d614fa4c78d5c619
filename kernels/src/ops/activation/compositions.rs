//! Activations that are written with other ops: `glu`, `selu`, `softmin`, `softsign`, `tanhshrink`;
//! and `unflatten`.

use crate::ir::shape::{Shape, no_such_axis};
use crate::ir::trace::{Function, Var};

/// The `α` of SELU, for which outputs keep mean 0 and variance 1 through layers.
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;

/// The factor of SELU.
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

impl Var {
    /// Gives the first half of `dim` times the sigmoid of the second.
    ///
    /// Source: `torch.nn.functional.glu`.
    #[must_use]
    pub fn glu(&self, dim: isize) -> Var {
        self.trace().function(Function::new("glu"), &[Some(self)], |cast| cast(self).plain_glu(dim))
    }

    fn plain_glu(&self, dim: isize) -> Var {
        let Some(axis) = self.shape().axis(dim) else {
            return self.trace().fail(no_such_axis(dim, self.shape()).0);
        };
        let size = self.shape()[axis];
        if !size.is_multiple_of(2) {
            return self.trace().fail(format!(
                "Halving dimension must be even, but dimension {axis} is size {size}"
            ));
        }
        let gate = self.slice(dim, size / 2..size).sigmoid();
        self.slice(dim, 0..size / 2) * gate
    }

    /// Returns `scale · x` where `x > 0`, `scale · alpha · (eˣ - 1)` elsewhere, with fixed numbers.
    ///
    /// Source: `torch.nn.functional.selu`.
    #[must_use]
    pub fn selu(&self) -> Var {
        self.trace().function(Function::new("selu"), &[Some(self)], |cast| cast(self).plain_selu())
    }

    fn plain_selu(&self) -> Var {
        self.elu(&self.number(SELU_ALPHA)) * SELU_SCALE
    }

    /// Returns `e⁻ˣ / Σ e⁻ˣ` along `dim`.
    ///
    /// Source: `torch.nn.functional.softmin`.
    #[must_use]
    pub fn softmin(&self, dim: isize) -> Var {
        (-self).softmax(dim)
    }

    /// Returns `x / (1 + |x|)`.
    ///
    /// Source: `torch.nn.functional.softsign`.
    #[must_use]
    pub fn softsign(&self) -> Var {
        self / (self.abs() + 1.0)
    }

    /// Returns `x - tanh x`.
    ///
    /// Source: `torch.nn.functional.tanhshrink`.
    #[must_use]
    pub fn tanhshrink(&self) -> Var {
        self - self.tanh()
    }

    /// Divides the axis `dim` into axes of these sizes, one of which may be -1.
    ///
    /// Source: `torch.unflatten`.
    #[must_use]
    pub fn unflatten(&self, dim: isize, sizes: &[isize]) -> Var {
        let Some(axis) = self.shape().axis(dim) else {
            return self.trace().fail(no_such_axis(dim, self.shape()).0);
        };
        let size = self.shape()[axis];
        let known = sizes.iter().filter_map(|&size| usize::try_from(size).ok());
        let known = known.collect::<Shape>().numel();
        let open = sizes.iter().filter(|&&size| size < 0).count();
        let fits = match open {
            0 => known == size,
            1 => known > 0 && size.is_multiple_of(known),
            _ => return self.trace().fail("only one dimension can be inferred"),
        };
        if !fits || sizes.is_empty() {
            return self.trace().fail(format!(
                "unflatten: Provided sizes {sizes:?} don't multiply up to the size of dim {axis} ({size}) \
                 in the input tensor"
            ));
        }
        let new = sizes.iter().map(|&part| usize::try_from(part).unwrap_or(size / known.max(1)));
        let shape = self.shape();
        let all = shape[..axis].iter().copied().chain(new).chain(shape[axis + 1..].iter().copied());
        self.reshape(all.collect::<Shape>())
    }
}
