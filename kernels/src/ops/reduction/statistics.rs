//! Reductions that are written with other ops: `prod`, `cumsum`, `norm`, `var`, `logsumexp`; and `rsqrt`, `cdist`.

use crate::ir::shape::{Shape, no_such_axis};
use crate::ir::trace::{Function, Var};

impl Var {
    /// Returns `1 / √x`.
    ///
    /// Source: `torch.rsqrt`.
    #[must_use]
    pub fn rsqrt(&self) -> Var {
        let function = Function::new("rsqrt");
        self.trace().function(function, &[Some(self)], |cast| cast(self).sqrt().reciprocal())
    }

    /// Multiplies along axis `dim`, or all numbers if there is none.
    ///
    /// Source: `torch.prod`.
    #[must_use]
    pub fn prod(&self, dim: Option<isize>, keepdim: bool) -> Var {
        self.trace().function(Function::new("prod"), &[Some(self)], |cast| {
            let x = cast(self);
            let Some(dim) = dim else {
                let y = x.reshape([x.shape().numel()]).multiplied(0);
                return y.reshape(Shape::scalar());
            };
            let Some(axis) = x.shape().axis(dim) else {
                return x.trace().fail(no_such_axis(dim, x.shape()).0);
            };
            let y = x.multiplied(axis);
            let mut sizes = y.shape().to_vec();
            match keepdim || y.id().is_none() {
                true => y,
                false => {
                    sizes.remove(axis);
                    y.reshape(sizes)
                }
            }
        })
    }

    /// Multiplies the halves of an axis until one number is left.
    fn multiplied(&self, axis: usize) -> Var {
        let along = axis as isize;
        let mut x = self.clone();
        while x.id().is_some() && x.shape()[axis] != 1 {
            let size = x.shape()[axis];
            let half = size / 2;
            if size == 0 {
                let mut sizes = x.shape().to_vec();
                sizes[axis] = 1;
                return x.number(1.0).expand(sizes);
            }
            let product = x.slice(along, 0..half) * x.slice(along, half..2 * half);
            x = match size % 2 {
                0 => product,
                _ => Var::cat(&[&product, &x.slice(along, size - 1..size)], along),
            };
        }
        x
    }

    /// Adds up along axis `dim`: each number becomes the sum of all up to it.
    ///
    /// Source: `torch.cumsum`.
    #[must_use]
    pub fn cumsum(&self, dim: isize) -> Var {
        self.trace().function(Function::new("cumsum"), &[Some(self)], |cast| {
            let mut x = cast(self);
            let Some(axis) = x.shape().axis(dim) else {
                return x.trace().fail(no_such_axis(dim, x.shape()).0);
            };
            let size = x.shape()[axis];
            let mut reach = 1;
            while reach < size {
                let head = x.slice(dim, 0..reach);
                let tail = x.slice(dim, reach..size) + x.slice(dim, 0..size - reach);
                x = Var::cat(&[&head, &tail], dim);
                reach *= 2;
            }
            x
        })
    }

    /// Gives the norm of order `p` of all numbers.
    ///
    /// Source: `torch.norm` with a number as `p`.
    #[must_use]
    pub fn norm(&self, p: f64) -> Var {
        self.trace().function(Function::new("norm"), &[Some(self)], |cast| {
            let x = cast(self);
            x.reshape([x.shape().numel()]).vector_norm(p, 0, false)
        })
    }

    /// Gives the variance along `axes`, all of them if none are given: the mean square of what is left without the
    /// mean, of `correction` numbers fewer than there are.
    ///
    /// Source: `torch.var`.
    #[must_use]
    pub fn var(&self, axes: &[isize], correction: f64, keepdim: bool) -> Var {
        self.trace().function(Function::new("var"), &[Some(self)], |cast| {
            let x = cast(self);
            let rest = &x - x.mean(axes, true);
            let sum = rest.square().sum(axes, keepdim);
            let count = x.shape().numel() as f64 / (sum.shape().numel() as f64).max(1.0);
            sum / (count - correction).max(0.0)
        })
    }

    /// Returns `ln Σ eˣ` along `axes`, all of them if none are given.
    ///
    /// Source: `torch.logsumexp`.
    #[must_use]
    pub fn logsumexp(&self, axes: &[isize], keepdim: bool) -> Var {
        self.trace().function(Function::new("logsumexp"), &[Some(self)], |cast| {
            let x = cast(self);
            let largest = x.amax(axes, true).detach();
            // An infinite number stands for itself.
            let zero = largest.number(0.0);
            let is_finite = (&largest * 0.0).eq(&zero);
            let shift = is_finite.where_(&largest, &zero);
            let sum = (&x - &shift).exp().sum(axes, true).log() + shift;
            match keepdim {
                true => sum,
                false => {
                    let kept = x.sum(axes, false);
                    if kept.id().is_some() { sum.reshape(kept.shape().clone()) } else { kept }
                }
            }
        })
    }

    /// Gives the distance of order `p` of each row of one value to each of the other.
    ///
    /// # Shape
    ///
    /// `self` is `[.., n, size]`, `other` `[.., m, size]`; the result is `[.., n, m]`.
    ///
    /// Source: `torch.cdist`.
    #[must_use]
    pub fn cdist(&self, other: &Var, p: f64) -> Var {
        let inputs = [Some(self), Some(other)];
        self.trace().function(Function::of_same("cdist"), &inputs, |cast| {
            let (a, b) = (cast(self), cast(other));
            let (rank, size) = (a.shape().rank(), a.shape().last());
            if rank < 2 || b.shape().rank() < 2 || size != b.shape().last() {
                return a.trace().fail(format!(
                    "cdist: X1 and X2 must be matrices with the same number of columns. X1: {} X2: {}",
                    a.shape(),
                    b.shape()
                ));
            }
            let spread = |x: &Var, at: usize| {
                let mut sizes = x.shape().to_vec();
                sizes.insert(sizes.len() - at, 1);
                x.reshape(sizes)
            };
            (spread(&a, 1) - spread(&b, 2)).vector_norm(p, -1, false)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::dtype::Dtype;
    use crate::testing::{Array, check_gradient, evaluate};

    fn of(shape: &[usize], pitch: f64) -> Array {
        Array::from_fn(Dtype::F64, shape, |i| (pitch * i as f64 + 0.3).sin() + 1.5)
    }

    #[test]
    fn gradients_are_the_slopes_of_forward() {
        let x = [of(&[3, 5], 0.7)];
        check_gradient(|v| v[0].prod(Some(1), true), &x, 1e-6);
        check_gradient(|v| v[0].prod(None, false), &x, 1e-5);
        check_gradient(|v| v[0].cumsum(1), &x, 1e-6);
        check_gradient(|v| v[0].norm(2.0), &x, 1e-6);
        check_gradient(|v| v[0].var(&[1], 1.0, false), &x, 1e-6);
        check_gradient(|v| v[0].logsumexp(&[0], false), &x, 1e-6);
        check_gradient(|v| v[0].rsqrt(), &x, 1e-6);
        check_gradient(|v| v[0].cdist(&v[1], 2.0), &[of(&[3, 2], 0.7), of(&[4, 2], 1.9)], 1e-6);
    }

    #[test]
    fn sums_and_products_of_small_numbers() {
        let x = Array::new(Dtype::F32, [5], [1.0, 2.0, 3.0, 4.0, 5.0]);
        let of =
            |f: fn(&Var) -> Var| evaluate(|v| f(&v[0]), std::slice::from_ref(&x), &[]).elements;
        assert_eq!(of(|x| x.prod(None, false)), [120.0]);
        assert_eq!(of(|x| x.cumsum(0)), [1.0, 3.0, 6.0, 10.0, 15.0]);
        assert_eq!(of(|x| x.var(&[], 1.0, false)), [2.5]);
    }
}
