//! `linear`: `y = x · weightᵀ + bias`, with its two gradients. Leading axes of `x` count as rows.
//!
//! Three ways to compute it, chosen by the sizes alone (`Way`): a few rows are dot products with the
//! rows of the weight, small products the register tiles of `cpu/gemm.rs`, large ones the same on packed
//! factors. Vectors run along the batch or along the features of the output (`preferred_layout`).
//!
//! Source: `torch.nn.functional.linear`.

use std::sync::Arc;

use crate::arithmetic::activation::ActivationKind;
use crate::cpu::gemm::{BiasAxis, Finish, Product};
use crate::cpu::half_dot::half_dot_kernel;
use crate::cpu::kernel::Cpu;
use crate::cpu::product::{Matrix, Way, product_kernel};
use crate::cpu::simd::MAX_LANES;
use crate::device::code::Cuda;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Around, Ask, GradientAt, InHalves, Mixing, OfHalf, Op, OpError, Reads};
use crate::ir::shape::{Layout, Operand, Shape, Type};
use crate::ir::trace::Var;
use crate::ops::activation::relu::ReluGradient;
use crate::ops::elementwise::pointwise::Pointwise;
use crate::ops::linalg::on_device;

/// Below this many rows a product is made of dot products: the vectors of a batch would be mostly empty.
const MIN_ROWS: usize = 8;

/// So many rows make a large product, if there are as many features.
const MANY_ROWS: usize = 512;

/// `y = activation(x · weightᵀ + bias)`; inputs `x`, `weight` and perhaps `bias`.
#[derive(Debug, Default)]
struct Linear {
    activation: Option<ActivationKind>,
    /// The half that weight and bias lie in, and that results are rounded to before an activation. Of few rows only.
    half: Option<Dtype>,
}

/// `dx = dy · weight`; inputs `dy`, `weight`. With `relu_gradient`, 0 where the third input, the output of
/// the ReLU before the layer, is 0.
#[derive(Debug, Default)]
struct LinearInputGradient {
    relu_gradient: bool,
}

/// `dweight = dyᵀ · x`; inputs `dy`, `x`.
#[derive(Debug)]
struct LinearWeightGradient;

/// Records the gradient of a weight, `dyᵀ · x`, where `y = x · weightᵀ`.
pub(crate) fn weight_gradient(dy: &Var, x: &Var) -> Var {
    dy.trace().apply(LinearWeightGradient, &[dy, x])
}

impl Var {
    /// Maps the last axis affinely: `x · weightᵀ + bias`.
    ///
    /// # Shape
    ///
    /// `self` is `[.., in]`, `weight` `[out, in]`, `bias` `[out]`; the result is `[.., out]`.
    ///
    /// Source: `torch.nn.functional.linear`.
    pub fn linear(&self, weight: &Var, bias: Option<&Var>) -> Var {
        let inputs: Vec<_> = [self, weight].into_iter().chain(bias).collect();
        self.trace().apply(Linear::default(), &inputs)
    }
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn attributes(&self) -> String {
        let half = self.half.map(|half| format!("half={half}"));
        let activation = self.activation.map(ActivationKind::printed);
        half.into_iter().chain(activation).collect::<Vec<_>>().join(" ")
    }

    fn mixing(&self) -> Mixing {
        Mixing::Same
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x, weight, bias @ ..] = inputs else {
            return Err(OpError("linear takes an input, a weight and perhaps a bias".into()));
        };
        match self.half {
            None => same_float("linear", inputs)?,
            Some(half) => with_weights_in(half, inputs)?,
        }
        let &[out_features, in_features] = &*weight.shape else {
            return Err(OpError(format!("linear: expected a 2-D weight, got {}", weight.shape)));
        };
        let rows = rows(&x.shape);
        if x.shape.last() != Some(&in_features) {
            let columns = x.shape.last().copied().unwrap_or(0);
            return Err(OpError(format!(
                "mat1 and mat2 shapes cannot be multiplied ({rows}x{columns} and {in_features}x{out_features})"
            )));
        }
        if let Some(bias) = bias.first()
            && *bias.shape != [out_features]
        {
            return Err(OpError(format!(
                "linear: expected a bias of shape [{out_features}], got {}",
                bias.shape
            )));
        }
        Ok(vec![Type::new(x.dtype, with_last(&x.shape, out_features))])
    }

    fn takes_layout(&self, input: usize, operand: &Operand) -> bool {
        let is_matrix =
            input == 0 && rows(&operand.ty.shape) >= MIN_ROWS && Matrix::of(operand).is_some();
        is_matrix || operand.is_row_major()
    }

    fn layouts(&self, _: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![preferred_layout(&outputs[0])]
    }

    fn cost(&self, inputs: &[Type], outputs: &[Type]) -> usize {
        2 * outputs[0].shape.numel() * inputs[1].shape.last().unwrap_or(&1)
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let product = self.product(inputs, outputs);
            if let Some(half) = self.half {
                return half_dot_kernel(half, &product, inputs.len() > 2);
            }
            let way = if product.m < MIN_ROWS { Way::Dot } else { Way::of(&product) };
            product_kernel(inputs[0].ty.dtype, product, way, inputs.len() > 2)
        });
        if self.half.is_none() {
            ask.give::<Cuda>(|inputs, outputs| {
                let product = self.product(inputs, outputs);
                let is_dot = product.m < MIN_ROWS;
                Box::new(on_device::product(inputs[0].ty.dtype, &product, is_dot, inputs.len()))
            });
        }
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        debug_assert!(
            self.activation.is_none(),
            "gradients are recorded before activations are fused"
        );
        let Some(dy) = &at.gradients[0] else {
            return vec![None; at.inputs.len()];
        };
        let trace = dy.trace();
        let (x, weight) = (&at.inputs[0], &at.inputs[1]);
        let when = |needed: bool, f: &dyn Fn() -> Var| needed.then(f);
        let mut gradients = vec![
            when(at.needs[0], &|| trace.apply(LinearInputGradient::default(), &[dy, weight])),
            when(at.needs[1], &|| trace.apply(LinearWeightGradient, &[dy, x])),
        ];
        if let Some(&needed) = at.needs.get(2) {
            gradients.push(when(needed, &|| sum_rows(dy)));
        }
        gradients
    }

    fn fuse_activation(&self, next: &dyn Op) -> Option<Arc<dyn Op>> {
        let activation = Some(ActivationKind::of(next)?);
        let half = self.half;
        self.activation.is_none().then(|| Arc::new(Linear { activation, half }) as Arc<dyn Op>)
    }

    fn in_halves(&self, around: &Around<'_>) -> Option<InHalves> {
        let &[Some(half)] = around.outputs else { return None };
        // More rows read each weight so often that it had better be widened once.
        let is_plain = self.activation.is_none() && self.half.is_none();
        let is_small = is_plain && rows(&around.types[0].shape) < MIN_ROWS;
        let widened = Some(OfHalf { dtype: half, is_widened: true });
        let fits = is_small && around.inputs[1..].iter().all(|input| *input == widened);
        let inputs =
            (0..around.inputs.len()).map(|i| if i == 0 { Reads::AsIs } else { Reads::Half });
        fits.then(|| InHalves {
            op: Arc::new(Linear { activation: None, half: Some(half) }),
            inputs: inputs.collect(),
            narrows: false,
        })
    }
}

impl Op for LinearInputGradient {
    fn name(&self) -> &'static str {
        "linear_input_gradient"
    }

    fn attributes(&self) -> String {
        if self.relu_gradient { "relu_gradient".to_owned() } else { String::new() }
    }

    fn mixing(&self) -> Mixing {
        Mixing::Same
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [dy, weight, ..] = inputs else {
            return Err(OpError("linear_input_gradient takes a gradient and a weight".into()));
        };
        Ok(vec![Type::new(dy.dtype, with_last(&dy.shape, weight.shape[1]))])
    }

    fn takes_layout(&self, input: usize, operand: &Operand) -> bool {
        match input {
            0 => Matrix::of(operand).is_some(),
            1 => operand.is_row_major(),
            _ => operand.layout == preferred_layout(&operand.ty),
        }
    }

    fn layouts(&self, _: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![preferred_layout(&outputs[0])]
    }

    fn cost(&self, inputs: &[Type], outputs: &[Type]) -> usize {
        2 * outputs[0].shape.numel() * inputs[1].shape[0]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let product = self.product(inputs, outputs);
            product_kernel(inputs[0].ty.dtype, product, Way::of(&product), false)
        })
        .give::<Cuda>(|inputs, outputs| {
            let product = self.product(inputs, outputs);
            Box::new(on_device::product(inputs[0].ty.dtype, &product, false, inputs.len()))
        });
    }

    fn fuse_activation(&self, next: &dyn Op) -> Option<Arc<dyn Op>> {
        let ReluGradient = Pointwise::<ReluGradient, 2, 1>::of(next)?;
        (!self.relu_gradient)
            .then(|| Arc::new(LinearInputGradient { relu_gradient: true }) as Arc<dyn Op>)
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let Some(g) = &at.gradients[0] else {
            return vec![None; 2];
        };
        let (dy, weight) = (&at.inputs[0], &at.inputs[1]);
        vec![
            at.needs[0].then(|| g.linear(weight, None)),
            at.needs[1].then(|| g.trace().apply(LinearWeightGradient, &[dy, g])),
        ]
    }
}

impl Op for LinearWeightGradient {
    fn name(&self) -> &'static str {
        "linear_weight_gradient"
    }

    fn mixing(&self) -> Mixing {
        Mixing::Same
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [dy, x] = inputs else {
            return Err(OpError("linear_weight_gradient takes a gradient and an input".into()));
        };
        let (Some(&out_features), Some(&in_features)) = (dy.shape.last(), x.shape.last()) else {
            return Err(OpError("linear_weight_gradient: expected at least one axis".into()));
        };
        Ok(vec![Type::new(dy.dtype, [out_features, in_features])])
    }

    fn takes_layout(&self, _: usize, operand: &Operand) -> bool {
        Matrix::of(operand).is_some()
    }

    fn cost(&self, inputs: &[Type], outputs: &[Type]) -> usize {
        2 * outputs[0].shape.numel() * rows(&inputs[0].shape)
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let product = self.product(inputs, outputs);
            product_kernel(inputs[0].ty.dtype, product, Way::of(&product), false)
        })
        .give::<Cuda>(|inputs, outputs| {
            let product = self.product(inputs, outputs);
            Box::new(on_device::product(inputs[0].ty.dtype, &product, false, inputs.len()))
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let Some(g) = &at.gradients[0] else {
            return vec![None; 2];
        };
        let (dy, x) = (&at.inputs[0], &at.inputs[1]);
        vec![
            at.needs[0].then(|| x.linear(g, None)),
            at.needs[1].then(|| g.trace().apply(LinearInputGradient::default(), &[dy, g])),
        ]
    }
}

impl Linear {
    /// Returns the product of these operands.
    fn product(&self, inputs: &[Operand], outputs: &[Operand]) -> Product {
        let (x, weight, y) =
            (Matrix::expect(&inputs[0]), Matrix::expect(&inputs[1]), Matrix::expect(&outputs[0]));
        Product {
            m: y.rows,
            n: y.columns,
            k: x.columns,
            a: x.strides,
            b: weight.strides.transposed(),
            c: y.strides,
            bias: BiasAxis::Columns,
            finish: self.activation.map_or(Finish::Sum, Finish::Activation),
        }
    }
}

impl LinearInputGradient {
    /// Returns the product of these operands.
    fn product(&self, inputs: &[Operand], outputs: &[Operand]) -> Product {
        let (dy, weight, dx) =
            (Matrix::expect(&inputs[0]), Matrix::expect(&inputs[1]), Matrix::expect(&outputs[0]));
        Product {
            m: dx.rows,
            n: dx.columns,
            k: dy.columns,
            a: dy.strides,
            b: weight.strides,
            c: dx.strides,
            bias: BiasAxis::Columns,
            finish: if self.relu_gradient { Finish::ReluGradient } else { Finish::Sum },
        }
    }
}

impl LinearWeightGradient {
    /// Returns the product of these operands.
    fn product(&self, inputs: &[Operand], outputs: &[Operand]) -> Product {
        let (dy, x, dw) =
            (Matrix::expect(&inputs[0]), Matrix::expect(&inputs[1]), Matrix::expect(&outputs[0]));
        Product {
            m: dw.rows,
            n: dw.columns,
            k: dy.rows,
            a: dy.strides.transposed(),
            b: x.strides,
            c: dw.strides,
            bias: BiasAxis::Columns,
            finish: Finish::Sum,
        }
    }
}

/// Adds the rows of a gradient up: the gradient of a bias.
fn sum_rows(dy: &Var) -> Var {
    let leading: Vec<_> = (0..dy.shape().rank() as isize - 1).collect();
    if leading.is_empty() { dy.clone() } else { dy.sum(&leading, false) }
}

fn rows(shape: &Shape) -> usize {
    shape.iter().rev().skip(1).product()
}

fn with_last(shape: &Shape, last: usize) -> Shape {
    let leading = shape.len().saturating_sub(1);
    shape[..leading].iter().copied().chain([last]).collect()
}

/// Vectors run along the contiguous axis of a result.
///
/// Along the batch a layer's forward pass packs nothing, but the gradient of the next weight its input;
/// along the features the forward pass packs the weight, the gradients nothing. So features lie together
/// if they fill vectors and the weight is the smaller of the two. Where there are as many features as rows, and many
/// of both, large products are faster with them together: of 1024 by a tenth in a training step, a quarter in a
/// forward pass of the next layer.
fn preferred_layout(ty: &Type) -> Layout {
    let (rows, features) = (rows(&ty.shape), ty.shape.last().copied().unwrap_or(0));
    let are_fewer = features < rows || features == rows && rows >= MANY_ROWS;
    let features_fill_vectors = features.is_multiple_of(MAX_LANES) && are_fewer;
    if rows < MIN_ROWS || features_fill_vectors {
        ty.shape.row_major()
    } else {
        ty.shape.features_first()
    }
}

/// Checks the types of a layer whose weight and bias lie in a half.
fn with_weights_in(half: Dtype, inputs: &[Type]) -> Result<(), OpError> {
    let is_right = |ty: &Type, expected: Dtype| ty.dtype == expected;
    if is_right(&inputs[0], Dtype::F32) && inputs[1..].iter().all(|ty| is_right(ty, half)) {
        return Ok(());
    }
    Err(OpError(format!("linear: expected an input of f32, a weight and a bias of {half}")))
}

fn same_float(op: &str, inputs: &[Type]) -> Result<(), OpError> {
    let dtype = inputs[0].dtype;
    if let Some(other) = inputs.iter().find(|ty| ty.dtype != dtype) {
        return Err(OpError(format!(
            "mat1 and mat2 must have the same dtype, but got {dtype} and {}",
            other.dtype
        )));
    }
    match dtype {
        Dtype::F32 | Dtype::F64 => Ok(()),
        _ => Err(OpError(format!("{op}: expected f32 or f64, got {dtype}"))),
    }
}
