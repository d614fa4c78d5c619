//! `matmul`: products of matrices, of batches of matrices, and of vectors with either.
//!
//! Every element is the sum over `k` in the order of `cpu/gemm.rs`, whatever the layouts. The transposed
//! operands of a gradient are read where they lie.
//!
//! Source: `torch.matmul`.

use crate::cpu::gemm::{BiasAxis, Finish, Product, Strides};
use crate::cpu::kernel::Cpu;
use crate::cpu::product::{Way, batched_kernel};
use crate::device::code::Cuda;
use crate::ir::op::{Ask, GradientAt, Mixing, Op, OpError};
use crate::ir::shape::{Operand, Shape, Type};
use crate::ir::trace::Var;
use crate::ops::linalg::on_device;

/// `A · B` over the last two axes, the others broadcast.
#[derive(Clone, Copy, Debug)]
struct MatMul {
    /// Whether `A` is the transposed of the first input.
    turn_a: bool,
    /// Whether `B` is the transposed of the second input.
    turn_b: bool,
}

impl Var {
    /// Multiplies matrices.
    ///
    /// # Shape
    ///
    /// | `self`       | `other`      | result       |
    /// |--------------|--------------|--------------|
    /// | `[k]`        | `[k]`        | `[]`         |
    /// | `[k]`        | `[.., k, n]` | `[.., n]`    |
    /// | `[.., m, k]` | `[k]`        | `[.., m]`    |
    /// | `[.., m, k]` | `[.., k, n]` | `[.., m, n]` |
    ///
    /// Leading axes broadcast.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_kernels::ir::dtype::Dtype;
    /// # use neurarch_kernels::ir::trace::Trace;
    /// # use neurarch_kernels::ir::shape::Type;
    /// let trace = Trace::new();
    /// let a = trace.input(Type::new(Dtype::F32, [5, 1, 2, 3]));
    /// let b = trace.input(Type::new(Dtype::F32, [7, 3, 4]));
    /// assert_eq!(a.matmul(&b).ty().to_string(), "f32[5, 7, 2, 4]");
    /// ```
    ///
    /// Source: `torch.matmul`.
    #[must_use]
    pub fn matmul(&self, other: &Var) -> Var {
        let (a, b) = (self.shape(), other.shape());
        let fail = |message: String| self.trace().fail(message);
        match (a.rank(), b.rank()) {
            (0, _) | (_, 0) => fail(format!(
                "both arguments to matmul need to be at least 1D, but they are {}D and {}D",
                a.rank(),
                b.rank()
            )),
            (1, 1) if a != b => fail(format!(
                "inconsistent tensor size, expected tensor {a} and src {b} to have the same number \
                 of elements, but got {} and {} elements respectively",
                a[0], b[0]
            )),
            (2, 1) if a[1] != b[0] => fail(format!(
                "size mismatch, got input ({}), mat ({}x{}), vec ({})",
                a[0], a[0], a[1], b[0]
            )),
            (1, _) => {
                let row = self.reshape([1, a[0]]).matmul(other);
                row.without_axis(row.shape().rank().saturating_sub(2))
            }
            (_, 1) => {
                let column = self.matmul(&other.reshape([b[0], 1]));
                column.without_axis(column.shape().rank().saturating_sub(1))
            }
            // The rows of all matrices make one: fewer, larger products, above all in the gradient of `b`.
            (rank @ 3.., 2) => {
                let rows = a[..rank - 1].iter().product();
                let product = self.reshape([rows, a[rank - 1]]).matmul(other);
                match product.id() {
                    Some(_) => product.reshape(with_last(a, b[1])),
                    None => product,
                }
            }
            _ => product(self, false, other, false),
        }
    }

    /// Drops an axis of size 1; a value that stands for an error stays.
    fn without_axis(&self, axis: usize) -> Var {
        if self.id().is_none() {
            return self.clone();
        }
        let mut sizes = self.shape().to_vec();
        sizes.remove(axis);
        self.reshape(sizes)
    }
}

fn with_last(shape: &Shape, last: usize) -> Shape {
    shape[..shape.rank() - 1].iter().copied().chain([last]).collect()
}

/// Records `A · B`, either transposed first if so said.
fn product(a: &Var, turn_a: bool, b: &Var, turn_b: bool) -> Var {
    a.trace().apply(MatMul { turn_a, turn_b }, &[a, b])
}

/// Gives the sizes of the matrices of a shape of two or more axes, transposed if `turn`.
fn matrix(shape: &Shape, turn: bool) -> (usize, usize) {
    let (rows, columns) = (shape[shape.rank() - 2], shape[shape.rank() - 1]);
    if turn { (columns, rows) } else { (rows, columns) }
}

/// Gives the axes before the last two.
fn leading(shape: &Shape) -> Shape {
    Shape::from(&shape[..shape.rank() - 2])
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn attributes(&self) -> String {
        let turned = [(self.turn_a, "transpose_a"), (self.turn_b, "transpose_b")];
        let names: Vec<_> =
            turned.iter().filter(|(turn, _)| *turn).map(|(_, name)| *name).collect();
        names.join(" ")
    }

    fn mixing(&self) -> Mixing {
        Mixing::Same
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [a, b] = inputs else {
            return Err(OpError(format!("matmul: expected 2 inputs, got {}", inputs.len())));
        };
        if a.dtype != b.dtype {
            return Err(OpError(format!(
                "expected m1 and m2 to have the same dtype, but got: {} != {}",
                a.dtype, b.dtype
            )));
        }
        crate::ops::elementwise::pointwise::computes("matmul", a)?;
        if a.shape.rank() < 2 || b.shape.rank() < 2 {
            return Err(OpError(format!(
                "matmul: expected matrices, got {} and {}",
                a.shape, b.shape
            )));
        }
        let (m, k) = matrix(&a.shape, self.turn_a);
        let (rows, n) = matrix(&b.shape, self.turn_b);
        let batch =
            crate::ops::elementwise::pointwise::broadcast(&leading(&a.shape), &leading(&b.shape))?;
        if k != rows {
            return Err(OpError(match batch.numel() {
                _ if batch.rank() == 0 => {
                    format!("mat1 and mat2 shapes cannot be multiplied ({m}x{k} and {rows}x{n})")
                }
                count => format!(
                    "Expected size for first two dimensions of batch2 tensor to be: [{count}, {k}] \
                     but got: [{count}, {rows}]."
                ),
            }));
        }
        let shape = batch.iter().copied().chain([m, n]).collect::<Shape>();
        Ok(vec![Type { dtype: a.dtype, shape }])
    }

    fn takes_layout(&self, _: usize, operand: &Operand) -> bool {
        let Strides { row, column } = strides(operand, false);
        row == 1 || column == 1
    }

    fn cost(&self, inputs: &[Type], outputs: &[Type]) -> usize {
        2 * outputs[0].shape.numel() * matrix(&inputs[0].shape, self.turn_a).1
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let product = self.product(inputs, outputs);
            let offsets = offsets([&inputs[0], &inputs[1], &outputs[0]]);
            batched_kernel(outputs[0].ty.dtype, product, Way::of(&product), offsets)
        })
        .give::<Cuda>(|inputs, outputs| {
            let code = on_device::product(
                outputs[0].ty.dtype,
                &self.product(inputs, outputs),
                false,
                inputs.len(),
            );
            let batch = batch([&inputs[0], &inputs[1], &outputs[0]]);
            Box::new(on_device::batched(code, &batch))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let MatMul { turn_a, turn_b } = *self;
        let (a, b) = (&at.inputs[0], &at.inputs[1]);
        let Some(dy) = &at.gradients[0] else {
            return vec![None; 2];
        };
        let da = || match turn_a {
            false => product(dy, false, b, !turn_b),
            true => product(b, turn_b, dy, true),
        };
        let db = || match turn_b {
            false => product(a, !turn_a, dy, false),
            true => product(dy, true, a, turn_a),
        };
        vec![
            at.needs[0].then(|| da().sum_to(a.shape())),
            at.needs[1].then(|| db().sum_to(b.shape())),
        ]
    }
}

impl MatMul {
    /// Returns the product of the first matrices of these operands.
    fn product(self, inputs: &[Operand], outputs: &[Operand]) -> Product {
        let (a, b, c) = (&inputs[0], &inputs[1], &outputs[0]);
        let (m, k) = matrix(&a.ty.shape, self.turn_a);
        let (_, n) = matrix(&b.ty.shape, self.turn_b);
        Product {
            m,
            n,
            k,
            a: strides(a, self.turn_a),
            b: strides(b, self.turn_b),
            c: strides(c, false),
            bias: BiasAxis::Columns,
            finish: Finish::Sum,
        }
    }
}

/// Gives the strides of an operand's matrices; an axis of one element counts as contiguous.
pub(super) fn strides(operand: &Operand, turn: bool) -> Strides {
    let (shape, layout) = (&operand.ty.shape, &operand.layout);
    let last = shape.rank() - 1;
    let stride = |axis: usize| if shape[axis] == 1 { 1 } else { layout[axis] };
    let strides = Strides { row: stride(last - 1), column: stride(last) };
    if turn { strides.transposed() } else { strides }
}

/// Lists for each product where its matrices start: those of `A`, `B` and `C`, whose leading axes the
/// others broadcast to.
fn offsets(operands: [&Operand; 3]) -> Vec<[usize; 3]> {
    let mut offsets = vec![[0; 3]];
    for (size, strides) in batch(operands) {
        offsets = offsets
            .iter()
            .flat_map(|start| {
                (0..size).map(move |i| core::array::from_fn(|k| start[k] + i * strides[k]))
            })
            .collect();
    }
    offsets
}

/// Lists the leading axes: their sizes, and the strides of `A`, `B` and `C`.
fn batch(operands: [&Operand; 3]) -> Vec<(usize, [usize; 3])> {
    let batch = leading(&operands[2].ty.shape);
    let axes = batch.iter().enumerate().map(|(axis, &size)| {
        let strides = operands.map(|Operand { ty, layout }| {
            let own = (axis + ty.shape.rank()).checked_sub(batch.rank() + 2);
            own.filter(|&own| ty.shape[own] != 1).map_or(0, |own| layout[own])
        });
        (size, strides)
    });
    axes.collect()
}
