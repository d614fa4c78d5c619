//! Convolutions over any number of spatial axes up to three: `convolution`, and its gradients of the input and
//! of the weight.
//!
//! The three are one trilinear form seen from its three sides, so each one's gradients are the other two. A
//! transposed convolution is the gradient of the input.
//!
//! Source: `torch.nn.functional.conv1d` to `conv3d`, `conv_transpose1d` to `conv_transpose3d`.

mod axes;
mod direct;
mod kernel;

use core::fmt::Debug;

use axes::planes;
use kernel::{ConvolutionKernel, Geometry};

use crate::cpu::kernel::Cpu;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Layout, Operand, Shape, Type, check_ints};
use crate::ir::trace::{Function, Var};
use crate::ops::elementwise::pointwise::{computes, same_dtype};

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
    fn function(&self, is_transposed: bool) -> Function {
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
enum Side {
    /// `y` from `x` and the weight, and perhaps a bias.
    Output,
    /// `x` from `y` and the weight.
    Input,
    /// The weight from `x` and `y`.
    Weight,
}

/// `Σ x[n, c, y·stride + k·dilation - padding] · weight[o, c, k] · y[n, o, y]`, differentiated by one of the
/// three factors.
#[derive(Clone, Debug)]
struct Convolve {
    settings: Convolution,
    side: Side,
    /// The shape of the result.
    shape: Shape,
}

impl Convolve {
    /// Sorts the types of two inputs and the output into those of `x`, weight and `y`.
    fn sorted<'a, T>(&self, inputs: &'a [T], output: &'a T) -> [&'a T; 3] {
        match self.side {
            Side::Output => [&inputs[0], &inputs[1], output],
            Side::Input => [output, &inputs[1], &inputs[0]],
            Side::Weight => [&inputs[0], output, &inputs[1]],
        }
    }

    /// Records the op of another side.
    fn other(&self, side: Side, shape: &Shape, inputs: [&Var; 2]) -> Var {
        let op = Convolve { settings: self.settings.clone(), side, shape: shape.clone() };
        inputs[0].trace().apply(op, &inputs)
    }
}

impl Op for Convolve {
    fn name(&self) -> &'static str {
        match self.side {
            Side::Output => "convolution",
            Side::Input => "convolution_input",
            Side::Weight => "convolution_weight",
        }
    }

    fn attributes(&self) -> String {
        let Convolution { stride, padding, dilation, groups } = &self.settings;
        let shape = &self.shape;
        format!(
            "stride={stride:?} padding={padding:?} dilation={dilation:?} groups={groups} to={shape}"
        )
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let most = if self.side == Side::Output { 3 } else { 2 };
        if !(2..=most).contains(&inputs.len()) {
            return Err(OpError(format!("{}: got {} inputs", self.name(), inputs.len())));
        }
        computes(self.name(), &inputs[0])?;
        for other in &inputs[1..] {
            same_dtype(self.name(), &inputs[0], other)?;
        }
        let output = Type { dtype: inputs[0].dtype, shape: self.shape.clone() };
        let [x, weight, y] = self.sorted(inputs, &output).map(|ty| &ty.shape);
        let wrong = || OpError(format!("{}: {x}, {weight} and {y} do not fit", self.name()));
        let Convolution { stride, padding, dilation, groups } = &self.settings;
        let rank = x.rank();
        let axes = [weight.rank(), y.rank()].iter().all(|&other| other == rank);
        let settings = [stride.len(), padding.len(), dilation.len()].map(|len| len + 2 == rank);
        if !axes || settings != [true; 3] || !(3..=5).contains(&rank) || *groups == 0 {
            return Err(wrong());
        }
        let channels = x[1] == weight[1] * groups && y[1] == weight[0] && y[1] % groups == 0;
        let bias = inputs.get(2).is_none_or(|bias| *bias.shape == [y[1]]);
        let walks = stride.iter().chain(dilation).all(|&step| step > 0);
        if !channels || x[0] != y[0] || !bias || !walks {
            return Err(wrong());
        }
        Ok(vec![output])
    }

    fn takes_layout(&self, input: usize, operand: &Operand) -> bool {
        let is_planes = match self.side {
            Side::Output => input == 0,
            Side::Input => input == 0,
            Side::Weight => true,
        };
        operand.is_row_major() || is_planes && planes(operand).is_some()
    }

    fn layouts(&self, _: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        let shape = &outputs[0].shape;
        if self.side == Side::Weight {
            return vec![shape.row_major()];
        }
        // Channels first: the positions of all items lie one behind the other, as columns of one matrix.
        let order: Vec<_> = [1, 0].into_iter().chain(2..shape.rank()).collect();
        vec![shape.ordered(&order)]
    }

    fn cost(&self, inputs: &[Type], outputs: &[Type]) -> usize {
        let [_, weight, y] = self.sorted(inputs, &outputs[0]);
        2 * y.shape.numel() * weight.shape.numel() / weight.shape[0].max(1)
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            inputs.iter().chain(outputs).for_each(Operand::assert_addressable);
            let factors = self.sorted(inputs, &outputs[0]);
            let (x, geometry) = (factors[0], Geometry::new(&self.settings, self.side, factors));
            let has_bias = inputs.len() == 3;
            match x.ty.dtype {
                Dtype::F64 => {
                    Box::new(ConvolutionKernel::<f64>::new(geometry, self.side, has_bias))
                }
                _ => Box::new(ConvolutionKernel::<f32>::new(geometry, self.side, has_bias)),
            }
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let Some(g) = &at.gradients[0] else { return vec![None; at.inputs.len()] };
        let (a, b) = (&at.inputs[0], &at.inputs[1]);
        let of = |input: usize, side, inputs| {
            at.needs[input].then(|| self.other(side, at.inputs[input].shape(), inputs))
        };
        let mut gradients = match self.side {
            Side::Output => vec![of(0, Side::Input, [g, b]), of(1, Side::Weight, [a, g])],
            Side::Input => vec![of(0, Side::Output, [g, b]), of(1, Side::Weight, [g, a])],
            Side::Weight => vec![of(0, Side::Input, [b, g]), of(1, Side::Output, [a, g])],
        };
        if let Some(&needed) = at.needs.get(2) {
            let axes: Vec<_> = (0..g.shape().rank() as isize).filter(|&axis| axis != 1).collect();
            gradients.push(needed.then(|| g.sum(&axes, false)));
        }
        gradients
    }
}

impl Var {
    /// Convolves: `y[n, o, p] = bias[o] + Σ x[n, c, p·stride + k·dilation - padding] · weight[o, c, k]`.
    ///
    /// # Shape
    ///
    /// `self` is `[batch, channels, ..]`, `weight` `[out, channels / groups, ..]`, `bias` `[out]`; the result is
    /// `[batch, out, ..]`. There are one to three spatial axes.
    ///
    /// Source: `torch.nn.functional.conv1d`, `conv2d` and `conv3d`.
    #[must_use]
    pub fn convolution(&self, weight: &Var, bias: Option<&Var>, settings: &Convolution) -> Var {
        self.trace().function(settings.function(false), &[Some(self), Some(weight), bias], |cast| {
            cast(self).plain_convolution(&cast(weight), bias.map(cast).as_ref(), settings)
        })
    }

    fn plain_convolution(&self, weight: &Var, bias: Option<&Var>, settings: &Convolution) -> Var {
        if self.id().is_none() || weight.id().is_none() {
            return self.trace().poison();
        }
        let (x, w) = (self.shape(), weight.shape());
        let shape =
            check_channels(x, w, w.get(1).map(|c| c.saturating_mul(settings.groups)), settings)
                .and_then(|()| {
                    if !w[0].is_multiple_of(settings.groups) {
                        return Err(not_divisible(w, settings.groups));
                    }
                    output_shape(x, w, settings)
                });
        match shape {
            Ok(shape) => {
                let op = Convolve { settings: settings.clone(), side: Side::Output, shape };
                let inputs: Vec<_> = [self, weight].into_iter().chain(bias).collect();
                self.trace().apply(op, &inputs)
            }
            Err(message) => self.trace().fail(message),
        }
    }

    /// Convolves transposed: what is the gradient of a [`convolution`](Var::convolution)'s input, as a layer of
    /// its own. `output_padding` is added to the size of each axis.
    ///
    /// # Shape
    ///
    /// `self` is `[batch, channels, ..]`, `weight` `[channels, out / groups, ..]`, `bias` `[out]`; the result is
    /// `[batch, out, ..]`.
    ///
    /// Source: `torch.nn.functional.conv_transpose1d`, `conv_transpose2d` and `conv_transpose3d`.
    #[must_use]
    pub fn conv_transpose(
        &self,
        weight: &Var,
        bias: Option<&Var>,
        settings: &Convolution,
        output_padding: &[usize],
    ) -> Var {
        self.trace().function(settings.function(true), &[Some(self), Some(weight), bias], |cast| {
            cast(self).plain_conv_transpose(
                &cast(weight),
                bias.map(cast).as_ref(),
                settings,
                output_padding,
            )
        })
    }

    fn plain_conv_transpose(
        &self,
        weight: &Var,
        bias: Option<&Var>,
        settings: &Convolution,
        output_padding: &[usize],
    ) -> Var {
        if self.id().is_none() || weight.id().is_none() {
            return self.trace().poison();
        }
        let (x, w) = (self.shape(), weight.shape());
        let shape = check_channels(x, w, w.first().copied(), settings).and_then(|()| {
            if !x[1].is_multiple_of(settings.groups) {
                return Err(not_divisible(w, settings.groups));
            }
            transposed_shape(x, w, settings, output_padding)
        });
        let shape = match shape {
            Ok(shape) => shape,
            Err(message) => return self.trace().fail(message),
        };
        let ones = shape.rank() - 2;
        let op = Convolve { settings: settings.clone(), side: Side::Input, shape };
        let y = self.trace().apply(op, &[self, weight]);
        match bias.filter(|bias| bias.id().is_some() && y.id().is_some()) {
            Some(bias) => {
                let sizes = bias.shape().iter().copied().chain(vec![1; ones]);
                let bias = bias.reshape(sizes.collect::<Shape>());
                y + bias
            }
            None => y,
        }
    }
}

fn not_divisible(weight: &Shape, groups: usize) -> String {
    format!(
        "Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, but got \
         weight of size {weight} instead"
    )
}

/// Checks in torch's words that an input fits a weight for `channels` channels.
fn check_channels(
    x: &Shape,
    weight: &Shape,
    channels: Option<usize>,
    settings: &Convolution,
) -> Result<(), String> {
    let rank = settings.stride.len();
    if x.rank() != rank + 2 {
        return Err(format!(
            "Expected {}D (unbatched) or {}D (batched) input to conv{rank}d, but got input of size: {x}",
            rank + 1,
            rank + 2
        ));
    }
    if weight.rank() != rank + 2 {
        return Err(format!("expected a {}-D weight, got {weight}", rank + 2));
    }
    let Convolution { stride, padding, dilation, .. } = settings;
    one_each("padding", rank, padding)?;
    one_each("dilation", rank, dilation)?;
    check_ints(
        stride.iter().chain(dilation).chain(padding.iter().flat_map(|(low, high)| [low, high])),
    )?;
    check_positive(&weight[2..], settings)?;
    match channels {
        Some(channels) if channels == x[1] => Ok(()),
        channels => Err(format!(
            "Given groups={}, weight of size {weight}, expected input{x} to have {} channels, but got \
             {} channels instead",
            settings.groups,
            channels.unwrap_or(0),
            x[1]
        )),
    }
}

/// Checks in torch's words that a convolution's kernel has elements, and that it goes from one to the next.
fn check_positive(kernel: &[usize], settings: &Convolution) -> Result<(), String> {
    if settings.stride.contains(&0) {
        return Err("non-positive stride is not supported".to_owned());
    }
    if settings.dilation.contains(&0) {
        let dilation = &settings.dilation;
        return Err(format!("dilation should be greater than zero, but got {dilation:?}"));
    }
    let sizes = match *kernel {
        _ if !kernel.contains(&0) => return Ok(()),
        [width] => format!(" kernel_height: 1 kernel_width: {width}"),
        [height, width] => format!(" kernel_height: {height} kernel_width: {width}"),
        _ => {
            let sizes: Vec<_> = kernel.iter().map(ToString::to_string).collect();
            format!(": {} (TxHxW)", sizes.join(" x "))
        }
    };
    Err(format!("kernel size should be greater than zero, but got{sizes}"))
}

/// Checks in torch's words that a setting has a value for each spatial axis.
fn one_each<T: Debug>(setting: &str, axes: usize, values: &[T]) -> Result<(), String> {
    if values.len() == axes {
        return Ok(());
    }
    Err(format!(
        "expected {setting} to be a single integer value or a list of {axes} values to match the convolution \
         dimensions, but got {setting}={values:?}"
    ))
}

/// Gives the shape of a convolution's output.
fn output_shape(x: &Shape, weight: &Shape, settings: &Convolution) -> Result<Shape, String> {
    let Convolution { stride, padding, dilation, .. } = settings;
    let axes = 0..stride.len();
    let spans: Vec<_> = axes
        .clone()
        .map(|i| dilation[i].saturating_mul(weight[i + 2] - 1).saturating_add(1))
        .collect();
    let padded: Vec<_> = axes
        .clone()
        .map(|i| x[i + 2].saturating_add(padding[i].0).saturating_add(padding[i].1))
        .collect();
    if spans.iter().zip(&padded).any(|(span, size)| span > size) {
        let list =
            |sizes: &[usize]| sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
        return Err(format!(
            "Calculated padded input size per channel: ({}). Kernel size: ({}). Kernel size can't be \
             greater than actual input size",
            list(&padded),
            list(&spans)
        ));
    }
    let sizes = axes.map(|i| (padded[i] - spans[i]) / stride[i] + 1);
    Ok([x[0], weight[0]].into_iter().chain(sizes).collect())
}

/// Gives the shape of a transposed convolution's output.
fn transposed_shape(
    x: &Shape,
    weight: &Shape,
    settings: &Convolution,
    output_padding: &[usize],
) -> Result<Shape, String> {
    let Convolution { stride, padding, dilation, groups } = settings;
    one_each("output_padding", stride.len(), output_padding)?;
    let mut shape = vec![x[0], weight[1].saturating_mul(*groups)];
    for i in 0..stride.len() {
        let more = output_padding[i];
        if more >= stride[i].max(dilation[i]) {
            return Err(format!(
                "output padding must be smaller than either stride or dilation, but got \
                 output_padding: {output_padding:?} stride: {stride:?} dilation: {dilation:?}"
            ));
        }
        let between = (x[i + 2].max(1) - 1).saturating_mul(stride[i]);
        let grown = dilation[i].saturating_mul(weight[i + 2] - 1);
        let grown = grown.saturating_add(between).saturating_add(more).saturating_add(1);
        match grown.checked_sub(padding[i].0.saturating_add(padding[i].1)) {
            Some(size) if size > 0 => shape.push(size),
            _ => {
                let input: Shape = x[2..].iter().copied().collect();
                return Err(format!(
                    "Given input size per channel: {input}. Calculated output size per channel is too \
                     small"
                ));
            }
        }
    }
    Ok(shape.into())
}
