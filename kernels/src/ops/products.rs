//! Products of matrices and vectors of a fixed rank: `mm`, `bmm`, `mv`, `dot`, and those that are added to something.

use crate::ir::trace::{Function, Trace, Var};
use crate::ops::reduction::reduce::no_such_axis;

impl Var {
    /// Multiplies two matrices, `[n, k]` and `[k, m]`.
    ///
    /// Source: `torch.mm`.
    #[must_use]
    pub fn mm(&self, other: &Var) -> Var {
        self.product("mm", other, [2, 2])
    }

    /// Multiplies two batches of matrices, `[batch, n, k]` and `[batch, k, m]`.
    ///
    /// Source: `torch.bmm`.
    #[must_use]
    pub fn bmm(&self, other: &Var) -> Var {
        if self.id().is_some() && self.shape().first() != other.shape().first() {
            return self.trace().fail(format!(
                "batch1 and batch2 must have same number of batches, got {} and {}",
                self.shape().first().unwrap_or(&0),
                other.shape().first().unwrap_or(&0)
            ));
        }
        self.product("bmm", other, [3, 3])
    }

    /// Multiplies a matrix `[n, k]` by a vector `[k]`.
    ///
    /// Source: `torch.mv`.
    #[must_use]
    pub fn mv(&self, other: &Var) -> Var {
        self.product("mv", other, [2, 1])
    }

    /// Multiplies two vectors of one length: the result is `[]`.
    ///
    /// Source: `torch.dot`.
    #[must_use]
    pub fn dot(&self, other: &Var) -> Var {
        self.product("dot", other, [1, 1])
    }

    /// Adds the product of two matrices to this value, broadcast.
    ///
    /// Source: `torch.addmm`, `beta` and `alpha` 1.
    #[must_use]
    pub fn addmm(&self, a: &Var, b: &Var) -> Var {
        self.add_product("addmm", a, b, |a, b| a.mm(b))
    }

    /// Adds the products of two batches of matrices to this value, broadcast.
    ///
    /// Source: `torch.baddbmm`, `beta` and `alpha` 1.
    #[must_use]
    pub fn baddbmm(&self, a: &Var, b: &Var) -> Var {
        self.add_product("baddbmm", a, b, |a, b| a.bmm(b))
    }

    /// Adds the sum of the products of two batches of matrices to this value, broadcast.
    ///
    /// Source: `torch.addbmm`, `beta` and `alpha` 1.
    #[must_use]
    pub fn addbmm(&self, a: &Var, b: &Var) -> Var {
        self.add_product("addbmm", a, b, |a, b| a.bmm(b).sum(&[0], false))
    }

    fn product(&self, name: &'static str, other: &Var, ranks: [usize; 2]) -> Var {
        let inputs = [Some(self), Some(other)];
        self.trace().function(Function::of_same(name), &inputs, |cast| {
            let given = [self, other].map(|x| x.shape().rank());
            let is_known = self.id().is_some() && other.id().is_some();
            match given == ranks || !is_known {
                true => cast(self).matmul(&cast(other)),
                false => self.trace().fail(format!(
                    "{name}: expected {}D and {}D tensors, but got {}D and {}D",
                    ranks[0], ranks[1], given[0], given[1]
                )),
            }
        })
    }

    fn add_product(
        &self,
        name: &'static str,
        a: &Var,
        b: &Var,
        product: impl Fn(&Var, &Var) -> Var,
    ) -> Var {
        let inputs = [Some(self), Some(a), Some(b)];
        self.trace().function(Function::of_same(name), &inputs, |cast| {
            cast(self) + product(&cast(a), &cast(b))
        })
    }

    /// Puts values of one shape side by side along a new axis `dim`.
    ///
    /// # Panics
    ///
    /// If there are no values, as [`cat`](Var::cat).
    ///
    /// Source: `torch.stack`.
    #[must_use]
    pub fn stack(parts: &[&Var], dim: isize) -> Var {
        let Some(&first) = parts.first() else {
            return Trace::new().fail("stack expects a non-empty TensorList");
        };
        first.trace().function(
            Function::new("stack"),
            &parts.iter().copied().map(Some).collect::<Vec<_>>(),
            |cast| {
                let shape = first.shape();
                if let Some(other) = parts.iter().find(|part| part.shape() != shape) {
                    let other = other.shape();
                    return first.trace().fail(format!(
                        "stack expects each tensor to be equal size, but got {shape} and {other}"
                    ));
                }
                let end = if dim < 0 { dim.saturating_add_unsigned(shape.rank() + 1) } else { dim };
                let Some(axis) = usize::try_from(end).ok().filter(|axis| *axis <= shape.rank())
                else {
                    return first.trace().fail(no_such_axis(dim, shape).0);
                };
                let mut sizes = shape.to_vec();
                sizes.insert(axis, 1);
                let parts: Vec<_> =
                    parts.iter().map(|part| cast(part).reshape(sizes.clone())).collect();
                Var::cat(&parts.iter().collect::<Vec<_>>(), axis as isize)
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::dtype::Dtype;
    use crate::testing::{Array, check_gradient, evaluate};

    fn of(shape: &[usize], pitch: f64) -> Array {
        Array::from_fn(Dtype::F64, shape, |i| (pitch * i as f64 + 0.3).sin())
    }

    #[test]
    fn gradients_are_the_slopes_of_forward() {
        let matrices = [of(&[2, 4], 0.3), of(&[2, 3], 0.7), of(&[3, 4], 1.1)];
        check_gradient(|v| v[0].addmm(&v[1], &v[2]), &matrices, 1e-6);
        let batches = [of(&[2, 4], 0.3), of(&[2, 2, 3], 0.7), of(&[2, 3, 4], 1.1)];
        check_gradient(|v| v[0].addbmm(&v[1], &v[2]), &batches, 1e-6);
        check_gradient(|v| v[0].mv(&v[1]), &[of(&[2, 3], 0.7), of(&[3], 1.3)], 1e-6);
        check_gradient(|v| Var::stack(&[&v[0], &v[1]], -1), &[of(&[2], 0.7), of(&[2], 1.3)], 1e-6);
    }

    #[test]
    fn products_are_those_of_small_numbers() {
        let x = |shape: &[usize], numbers: &[f64]| Array::new(Dtype::F32, shape, numbers);
        let (a, b) = (x(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), x(&[2], &[5.0, 6.0]));
        assert_eq!(evaluate(|v| v[0].mv(&v[1]), &[a, b.clone()], &[]).elements, [17.0, 39.0]);
        assert_eq!(evaluate(|v| v[0].dot(&v[0]), &[b], &[]).elements, [61.0]);
    }
}
