//! `einsum`: products of several values, summed over the axes that the result does not name.

use crate::ir::shape::Shape;
use crate::ir::trace::{Trace, Var};
use crate::ops::reduction::reduce::no_such_axis;

/// A value whose axes have letters.
struct Labelled {
    var: Var,
    axes: Vec<char>,
}

impl Trace {
    /// Multiplies values whose axes have letters, and adds up along those that the result does not name:
    /// `"ij,jk->ik"` is a product of matrices.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_kernels::ir::dtype::Dtype;
    /// # use neurarch_kernels::testing::{Array, evaluate};
    /// let x = Array::new(Dtype::F32, [2, 2], [1.0, 2.0, 3.0, 4.0]);
    /// let trace = |v: &[neurarch_kernels::ir::trace::Var]| v[0].trace().einsum("ij,kj->ik", &[&v[0], &v[0]]);
    /// assert_eq!(evaluate(trace, &[x], &[]).elements, [5.0, 11.0, 11.0, 25.0]);
    /// ```
    ///
    /// Source: `torch.einsum`, without ellipses and without letters that a value has twice.
    #[must_use]
    pub fn einsum(&self, equation: &str, operands: &[&Var]) -> Var {
        if operands.iter().any(|x| x.id().is_none()) {
            return self.poison();
        }
        match parse(equation, operands) {
            Ok((labelled, result)) => contract(self, labelled, &result),
            Err(message) => self.fail(message),
        }
    }
}

/// Reads the letters of each operand and of the result.
fn parse(equation: &str, operands: &[&Var]) -> Result<(Vec<Labelled>, Vec<char>), String> {
    let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<_>>();
    let (of_operands, result) = match equation.split_once("->") {
        Some((operands, result)) => (operands, Some(letters(result))),
        None => (equation, None),
    };
    let subscripts: Vec<_> = of_operands.split(',').map(letters).collect();
    if subscripts.len() != operands.len() {
        return Err(format!(
            "einsum(): {} operands were provided than specified in the equation",
            if operands.len() > subscripts.len() { "more" } else { "fewer" }
        ));
    }
    let mut all = Vec::new();
    for (number, (axes, &var)) in subscripts.iter().zip(operands).enumerate() {
        let is_twice = axes.iter().enumerate().any(|(i, c)| axes[..i].contains(c));
        if is_twice || axes.iter().any(|c| !c.is_ascii_alphabetic()) {
            return Err(format!(
                "einsum(): expected letters in operand {number}, each once, got {equation}"
            ));
        }
        if axes.len() != var.shape().rank() {
            return Err(format!(
                "einsum(): the number of subscripts in the equation ({}) does not match the number of \
                 dimensions ({}) for operand {number} and no ellipsis was given",
                axes.len(),
                var.shape().rank()
            ));
        }
        all.push(Labelled { var: var.clone(), axes: axes.clone() });
    }
    let count = |c: char| subscripts.iter().filter(|axes| axes.contains(&c)).count();
    let mut once: Vec<char> = subscripts.concat().into_iter().filter(|&c| count(c) == 1).collect();
    once.sort_unstable();
    let result = result.unwrap_or(once);
    if let Some(c) = result.iter().find(|&&c| count(c) == 0) {
        return Err(format!(
            "einsum(): output subscript {c} does not appear in the equation for any input operand"
        ));
    }
    Ok((all, result))
}

fn contract(trace: &Trace, operands: Vec<Labelled>, result: &[char]) -> Var {
    let mut rest = operands.into_iter();
    let Some(mut left) = rest.next() else {
        return trace.fail("einsum(): must provide at least one operand");
    };
    while let Some(right) = rest.next() {
        let later: Vec<char> = rest.as_slice().iter().flat_map(|of| of.axes.clone()).collect();
        let is_kept = |c: &char| result.contains(c) || later.contains(c);
        left = multiply(left, right, &is_kept);
    }
    let left = left.summed(&|c| result.contains(c));
    left.ordered(result)
}

impl Labelled {
    /// Adds up along the axes that are not kept.
    fn summed(self, is_kept: &dyn Fn(&char) -> bool) -> Labelled {
        let gone: Vec<isize> =
            (0..self.axes.len()).filter(|&i| !is_kept(&self.axes[i])).map(|i| i as isize).collect();
        if gone.is_empty() {
            return self;
        }
        let axes = self.axes.into_iter().filter(|c| is_kept(c)).collect();
        Labelled { var: self.var.sum(&gone, false), axes }
    }

    /// Gives the value with its axes in that order.
    fn ordered(&self, axes: &[char]) -> Var {
        let place = |c: &char| self.axes.iter().position(|own| own == c);
        match axes.iter().map(place).collect::<Option<Vec<_>>>() {
            Some(order) => {
                let order: Vec<_> = order.into_iter().map(|axis| axis as isize).collect();
                self.var.permute(&order)
            }
            None => self.var.trace().fail(no_such_axis(0, self.var.shape()).0),
        }
    }

    /// Gives the sizes of axes.
    fn sizes(&self, axes: &[char]) -> Vec<usize> {
        let place = |c: &char| self.axes.iter().position(|own| own == c);
        axes.iter().filter_map(place).map(|axis| self.var.shape()[axis]).collect()
    }
}

/// Multiplies two values, and adds up along what both have and nobody needs any more.
fn multiply(left: Labelled, right: Labelled, is_kept: &dyn Fn(&char) -> bool) -> Labelled {
    let left = left.summed(&|c| is_kept(c) || right.axes.contains(c));
    let right = right.summed(&|c| is_kept(c) || left.axes.contains(c));
    let (both, of_left): (Vec<char>, Vec<char>) =
        left.axes.iter().partition(|c| right.axes.contains(c));
    let of_right: Vec<char> =
        right.axes.iter().filter(|c| !left.axes.contains(c)).copied().collect();
    let (batch, inner): (Vec<char>, Vec<char>) = both.into_iter().partition(is_kept);
    let product = |sizes: &[usize]| sizes.iter().product::<usize>();
    let (b, i) = (left.sizes(&batch), left.sizes(&inner));
    if right.sizes(&batch) != b || right.sizes(&inner) != i {
        let var = left.var;
        return Labelled {
            var: var.trace().fail(format!(
                "einsum(): operands do not broadcast with remapped shapes {} and {}",
                var.shape(),
                right.var.shape()
            )),
            axes: left.axes,
        };
    }
    let (l, r) = (left.sizes(&of_left), right.sizes(&of_right));
    let x = left.ordered(&[&batch[..], &of_left, &inner].concat());
    let y = right.ordered(&[&batch[..], &inner, &of_right].concat());
    let x = x.reshape([product(&b), product(&l), product(&i)]);
    let y = y.reshape([product(&b), product(&i), product(&r)]);
    let z = if inner.is_empty() { &x * &y } else { x.bmm(&y) };
    let shape: Shape = [b, l, r].concat().into_iter().collect();
    Labelled { var: z.reshape(shape), axes: [batch, of_left, of_right].concat() }
}

#[cfg(test)]
mod tests {
    use crate::ir::dtype::Dtype;
    use crate::testing::{Array, check_gradient, evaluate};

    fn of(shape: &[usize], pitch: f64) -> Array {
        Array::from_fn(Dtype::F64, shape, |i| (pitch * i as f64 + 0.3).sin())
    }

    #[test]
    fn letters_that_meet_are_summed() {
        let (a, b) = (of(&[2, 3, 4], 0.7), of(&[4, 2, 5], 1.1));
        let y = evaluate(
            |v| v[0].trace().einsum("bij,jbk->kb", &[&v[0], &v[1]]),
            &[a.clone(), b.clone()],
            &[],
        );
        assert_eq!(&*y.ty.shape, &[5, 2]);
        for (at, &y) in y.elements.iter().enumerate() {
            let (k, batch) = (at / 2, at % 2);
            let terms = (0..3).flat_map(|i| (0..4).map(move |j| (i, j)));
            let sum: f64 = terms
                .map(|(i, j)| {
                    a.elements[batch * 12 + i * 4 + j] * b.elements[j * 10 + batch * 5 + k]
                })
                .sum();
            assert!((y - sum).abs() < 1e-12);
        }
        check_gradient(|v| v[0].trace().einsum("bij,jbk->kb", &[&v[0], &v[1]]), &[a, b], 1e-6);
        let outer = |v: &[crate::ir::trace::Var]| v[0].trace().einsum("i,j", &[&v[0], &v[1]]);
        check_gradient(outer, &[of(&[2], 0.7), of(&[3], 1.1)], 1e-6);
    }
}
