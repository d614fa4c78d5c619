//! `softmax`, `safe_softmax` and `log_softmax` along an axis.
//!
//! Each line has a lane of its own, whatever its layout; its sums have the [order of sums](crate::cpu::sum).
#![expect(unsafe_code, reason = "vectors are read and written through pointers into operands")]

mod on_device;

use core::marker::PhantomData;
use core::ops::Range;

use super::lines::{Lines, carve, scratch_bytes};
use crate::arithmetic::Arithmetic;
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::scratch::with_scratch;
use crate::cpu::share::{Divisible, share_out};
use crate::cpu::simd::vector::Vector;
use crate::cpu::simd::{Float, Lanes, Simd, Vectorized, dispatch};
use crate::cpu::sum::Running;
use crate::cpu::tile::Tile;
use crate::device::code::Cuda;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Layout, Operand, Type, no_such_axis};
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{WORTH_SPLITTING, computes, layout_like};

/// What is computed of a line; `m` is its largest `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `e^(x - m) / Σ e^(x - m)`.
    Plain,
    /// The same, but 0 everywhere in a line of nothing but -∞.
    Safe,
    /// `(x - m) - ln Σ e^(x - m)`.
    Log,
}

/// The softmax along an axis, or its logarithm.
#[derive(Clone, Copy, Debug)]
struct Softmax {
    axis: usize,
    form: Form,
}

/// The gradient of [`Softmax`] from that of its output and the output: `y · (dy - Σ dy · y)`, or
/// `dy - eʸ · Σ dy`.
#[derive(Clone, Copy, Debug)]
struct SoftmaxGradient(Softmax);

impl Softmax {
    fn types(self, name: &str, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let Some(x) = inputs.first() else {
            return Err(OpError(format!("{name}: expected an input")));
        };
        computes(name, x)?;
        if self.axis >= x.shape.rank() {
            return Err(no_such_axis(self.axis as isize, &x.shape));
        }
        Ok(vec![x.clone()])
    }
}

impl Softmax {
    /// Gives the axis, and what the device code calls the form.
    fn on_device(self) -> (usize, &'static str) {
        let form = match self.form {
            Form::Plain => "PLAIN",
            Form::Safe => "SAFE",
            Form::Log => "LOG",
        };
        (self.axis, form)
    }
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        match self.form {
            Form::Plain => "softmax",
            Form::Safe => "safe_softmax",
            Form::Log => "log_softmax",
        }
    }

    fn attributes(&self) -> String {
        format!("dim={}", self.axis)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        self.types(self.name(), inputs)
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![layout_like(inputs, &outputs[0].shape)]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| kernel(*self, false, inputs, outputs)).give::<Cuda>(
            |inputs, outputs| {
                Box::new(on_device::code(self.on_device(), false, inputs, &outputs[0]))
            },
        );
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let gradient = SoftmaxGradient(*self);
        vec![at.gradients[0].as_ref().map(|dy| dy.trace().apply(gradient, &[dy, &at.outputs[0]]))]
    }
}

impl Op for SoftmaxGradient {
    fn name(&self) -> &'static str {
        match self.0.form {
            Form::Log => "log_softmax_gradient",
            Form::Plain | Form::Safe => "softmax_gradient",
        }
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [dy, y] = inputs else {
            return Err(OpError(format!("{}: expected 2 inputs", self.name())));
        };
        if dy != y {
            let (expected, name) = (y, self.name());
            return Err(OpError(format!("{name}: expected a gradient of {expected}, got {dy}")));
        }
        self.0.types(self.name(), inputs)
    }

    fn takes_any_layout(&self, _: usize) -> bool {
        true
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![layout_like(&inputs[1..], &outputs[0].shape)]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| kernel(self.0, true, inputs, outputs)).give::<Cuda>(
            |inputs, outputs| {
                Box::new(on_device::code(self.0.on_device(), true, inputs, &outputs[0]))
            },
        );
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let Softmax { axis, form } = self.0;
        let (dy, y) = (&at.inputs[0], &at.inputs[1]);
        let Some(g) = &at.gradients[0] else { return vec![None; 2] };
        let sum = |x: &Var| x.sum(&[axis as isize], true);
        let (of_dy, of_y): (&dyn Fn() -> Var, &dyn Fn() -> Var) = match form == Form::Log {
            true => (&|| g - sum(&(g * y.exp())), &|| -(g * y.exp() * sum(dy))),
            false => (&|| g.trace().apply(*self, &[g, y]), &|| {
                g * (dy - sum(&(dy * y))) - dy * sum(&(g * y))
            }),
        };
        vec![at.needs[0].then(of_dy), at.needs[1].then(of_y)]
    }
}

impl Var {
    /// Returns `eˣ / Σ eˣ` along `dim`.
    ///
    /// Source: `torch.softmax`.
    #[must_use]
    pub fn softmax(&self, dim: isize) -> Var {
        self.softmax_of(dim, Form::Plain)
    }

    /// Returns `eˣ / Σ eˣ` along `dim`, and 0 everywhere in a line of nothing but -∞: what is wholly masked.
    ///
    /// Source: `torch._safe_softmax`.
    #[must_use]
    pub fn safe_softmax(&self, dim: isize) -> Var {
        self.softmax_of(dim, Form::Safe)
    }

    /// Returns `ln(eˣ / Σ eˣ)` along `dim`.
    ///
    /// Source: `torch.log_softmax`.
    #[must_use]
    pub fn log_softmax(&self, dim: isize) -> Var {
        self.softmax_of(dim, Form::Log)
    }

    fn softmax_of(&self, dim: isize, form: Form) -> Var {
        match self.shape().axis(dim) {
            _ if self.id().is_none() => self.trace().poison(),
            Some(axis) => self.trace().apply(Softmax { axis, form }, &[self]),
            // torch counts [] as if it had one axis.
            None if self.shape().rank() == 0 && matches!(dim, -1 | 0) => {
                self.reshape([1]).softmax_of(0, form).reshape([])
            }
            None => self.trace().fail(no_such_axis(dim, self.shape()).0),
        }
    }
}

fn kernel(
    softmax: Softmax,
    is_gradient: bool,
    inputs: &[Operand],
    outputs: &[Operand],
) -> Box<dyn Kernel> {
    fn of<T: Float>(
        Softmax { axis, form }: Softmax,
        is_gradient: bool,
        inputs: &[Operand],
        output: &Operand,
    ) -> Box<dyn Kernel> {
        let shape = &output.ty.shape;
        assert!(
            inputs.iter().all(|x| x.ty.shape == *shape),
            "lines of one shape are read and written"
        );
        let order = output.layout.order(shape);
        let lines = |operand| Lines::new(operand, axis, &order);
        let slowest = order.iter().find(|&&slowest| output.ty.shape[slowest] != 1);
        let slowest = slowest.filter(|&&slowest| slowest != axis);
        Box::new(SoftmaxKernel::<T> {
            parts: slowest.map_or(1, |&slowest| output.ty.shape[slowest].max(1)),
            inputs: inputs.iter().map(lines).collect(),
            output: lines(output),
            form,
            is_gradient,
            element: PhantomData,
        })
    }
    match outputs[0].ty.dtype {
        Dtype::F64 => of::<f64>(softmax, is_gradient, inputs, &outputs[0]),
        _ => of::<f32>(softmax, is_gradient, inputs, &outputs[0]),
    }
}

struct SoftmaxKernel<T> {
    /// Lines of `x`, or of `dy` and `y`.
    inputs: Vec<Lines>,
    output: Lines,
    form: Form,
    is_gradient: bool,
    /// Along the output's slowest axis, if that is another than the lines': its size. So many parts of the
    /// output lie one behind the other and hold whole lines.
    parts: usize,
    element: PhantomData<T>,
}

impl<T: Float> Kernel for SoftmaxKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let is_split = tile.split() && self.parts > 1 && self.numel() >= WORTH_SPLITTING;
        let models = tile.models();
        let (inputs, mut outputs, scratch) = tile.operands();
        let (a, b) = (inputs.get::<T>(0), self.is_gradient.then(|| inputs.get::<T>(1)));
        let mut y = outputs.take::<T>();
        let given = [a.numel(), b.map_or(0, |b| b.numel())];
        self.inputs.iter().zip(given).for_each(|(lines, numel)| lines.assert_all_in(numel));
        self.output.assert_all_in(y.numel());
        for model in 0..models {
            let (a, b) = (a.at(model), b.map_or(&[][..], |b| b.at(model)));
            let part = Share { kernel: self, parts: 0..self.parts, a, b, y: y.at(model) };
            match is_split {
                true => share_out(part),
                false => dispatch(OnScratch { part, scratch: &mut *scratch }),
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<T>(&[self.output.scratch_len(); 3])
    }

    fn table_bytes(&self) -> usize {
        self.inputs.iter().chain([&self.output]).map(Lines::table_bytes).sum()
    }
}

impl<T: Float> SoftmaxKernel<T> {
    fn numel(&self) -> usize {
        self.output.count() * self.output.len
    }
}

/// Some parts of one model's output: all lines from the first of them to the last.
struct Share<'a, T> {
    kernel: &'a SoftmaxKernel<T>,
    parts: Range<usize>,
    a: &'a [T],
    b: &'a [T],
    /// Of the output, these parts alone.
    y: &'a mut [T],
}

impl<T: Float> Divisible for Share<'_, T> {
    fn halves(self) -> Result<[Self; 2], Self> {
        if self.y.len() < WORTH_SPLITTING || self.parts.len() < 2 {
            return Err(self);
        }
        let Share { kernel, parts, a, b, y } = self;
        let at = parts.start + parts.len() / 2;
        let (upper, lower) = y.split_at_mut(y.len() / parts.len() * (at - parts.start));
        let of = |parts, y| Share { kernel, parts, a, b, y };
        Ok([of(parts.start..at, upper), of(at..parts.end, lower)])
    }

    fn compute(self) {
        with_scratch(self.kernel.scratch_bytes(), |scratch| {
            dispatch(OnScratch { part: self, scratch });
        });
    }
}

/// A part that one thread computes.
struct OnScratch<'a, 's, T> {
    part: Share<'a, T>,
    scratch: &'s mut [u8],
}

impl<T: Float> Vectorized for OnScratch<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let OnScratch { part: Share { kernel, parts, a, b, y }, scratch } = self;
        let SoftmaxKernel { inputs: lines, output, form, is_gradient, .. } = kernel;
        let lanes = T::Lanes::<S>::N;
        if output.len == 0 || parts.is_empty() {
            return;
        }
        let [first, second, result] = carve(scratch, [output.scratch_len(); 3]);
        let in_part = output.count() / kernel.parts;
        let base = parts.start * in_part * output.len;
        let (mut line, end) = (parts.start * in_part, parts.end * in_part);
        while line < end {
            let n = lanes.min(end - line);
            let block = (line, n, lanes);
            let a = Block::<T, S>::new(lines[0].read::<T, S>(a, block, first), n);
            let to = output.write(y, base, block, result);
            if *is_gradient {
                let b = Block::<T, S>::new(lines[1].read::<T, S>(b, block, second), n);
                // SAFETY: `read` and `write` give where `n` lines of `len` elements lie.
                unsafe { gradient::<T, S>(a, b, to, output.len, *form == Form::Log) };
            } else {
                // SAFETY: as above.
                unsafe { forward::<T, S>(a, to, output.len, *form) };
            }
            output.finish::<T, S>(y, base, block, result);
            line += n;
        }
    }
}

/// A vector's lines, to be read.
#[derive(Clone, Copy)]
struct Block<T, S> {
    from: *const T,
    stride: usize,
    n: usize,
    set: PhantomData<S>,
}

impl<T: Float, S: Simd> Block<T, S> {
    #[inline(always)]
    fn new((from, stride): (*const T, usize), n: usize) -> Self {
        Block { from, stride, n, set: PhantomData }
    }

    /// Reads element `i` of each line.
    ///
    /// # Safety
    ///
    /// The lines have such an element.
    #[inline(always)]
    unsafe fn at(&self, i: usize) -> T::Lanes<S> {
        let from = self.from.wrapping_add(i * self.stride);
        // SAFETY: the caller promises that `n` numbers can be read there.
        unsafe {
            match self.n == T::Lanes::<S>::N {
                true => T::Lanes::<S>::load(from),
                false => T::Lanes::<S>::load_first(from, self.n),
            }
        }
    }
}

/// # Safety
///
/// `x` and `to` are places of lines of `len` elements, `len > 0`.
#[inline(always)]
unsafe fn forward<T: Float, S: Simd>(
    x: Block<T, S>,
    (to, stride): (*mut T, usize),
    len: usize,
    form: Form,
) {
    let c = |c: f64| T::Lanes::<S>::splat(T::from_f64(c));
    let y = Block::<T, S>::new((to, stride), x.n);
    // SAFETY: the caller's promise, for all `i < len`.
    unsafe {
        let mut most = x.at(0);
        for i in 1..len {
            most = most.max(x.at(i));
        }
        if form == Form::Safe {
            most = T::Lanes::<S>::select(most.eq(c(f64::NEG_INFINITY)), c(0.0), most);
        }
        let mut sum = Running::<Vector<T, S>>::new();
        for i in 0..len {
            let shifted = x.at(i).sub(most);
            let e = Vector::<T, S>(shifted).exp().0;
            sum.add(Vector(e));
            let kept = if form == Form::Log { shifted } else { e };
            kept.store_first(to.wrapping_add(i * stride), x.n);
        }
        let Vector(mut sum) = sum.finish();
        if form == Form::Safe {
            // Every e is 0 then, and nothing else gives such a sum: the largest e is 1.
            sum = T::Lanes::<S>::select(sum.eq(c(0.0)), c(1.0), sum);
        }
        let part = if form == Form::Log { Vector::<T, S>(sum).ln().0 } else { c(1.0).div(sum) };
        for i in 0..len {
            let kept = y.at(i);
            let y = if form == Form::Log { kept.sub(part) } else { kept.mul(part) };
            y.store_first(to.wrapping_add(i * stride), x.n);
        }
    }
}

/// # Safety
///
/// `dy`, `y` and `to` are places of lines of `len` elements.
#[inline(always)]
unsafe fn gradient<T: Float, S: Simd>(
    dy: Block<T, S>,
    y: Block<T, S>,
    (to, stride): (*mut T, usize),
    len: usize,
    log: bool,
) {
    // SAFETY: the caller's promise, for all `i < len`.
    unsafe {
        let mut sum = Running::<Vector<T, S>>::new();
        for i in 0..len {
            if log {
                sum.add(Vector(dy.at(i)));
            } else {
                sum.add_product(dy.at(i), y.at(i));
            }
        }
        let Vector(sum) = sum.finish();
        for i in 0..len {
            let dx = if log {
                dy.at(i).sub(Vector::<T, S>(y.at(i)).exp().0.mul(sum))
            } else {
                y.at(i).mul(dy.at(i).sub(sum))
            };
            dx.store_first(to.wrapping_add(i * stride), dy.n);
        }
    }
}
