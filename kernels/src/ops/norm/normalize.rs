//! `normalize`: mean 0 and variance 1 over some axes, or mean square 1: what all of torch's norms are
//! made of.
//!
//! Mean and variance are taken in two passes, over the numbers in the order of their axes, whatever their
//! layout. Source: `torch.nn.functional.batch_norm`, `instance_norm`, `layer_norm`, `group_norm`, `rms_norm`.

use core::marker::PhantomData;
use core::ops::Range;

use crate::arithmetic::Arithmetic;
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::scratch::with_scratch;
use crate::cpu::share::{Divisible, share_out};
use crate::cpu::simd::{Float, Lanes, Simd, Vectorized, dispatch};
use crate::cpu::sum::{Term, sum_by_vectors};
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Layout, Operand, Shape, Type, no_such_axis};
use crate::ir::trace::Var;
use crate::ops::elementwise::number::Number;
use crate::ops::elementwise::pointwise::{
    Formula, WORTH_SPLITTING, computes, layout_like, pointwise, same_dtype,
};
use crate::ops::reduction::lines::{carve, scratch_bytes};

/// `y = (x - mean) / √(var + eps)` over `axes`; inputs `x` and `eps`, outputs `y`, `var` and `mean`. If not
/// `centered`, the mean is taken for 0 and is no output.
#[derive(Clone, Debug)]
struct Normalize {
    /// Ascending.
    axes: Vec<usize>,
    centered: bool,
}

/// The gradient of [`Normalize`] from `dy`, `y`, `var` and `eps`:
/// `(dy - mean(dy) - y · mean(dy · y)) / √(var + eps)`.
#[derive(Clone, Debug)]
struct NormalizeGradient(Normalize);

/// What [`Var::normalize`] gives.
#[derive(Clone, Debug)]
pub struct Normalized {
    /// The normalized numbers.
    pub y: Var,
    /// Their mean, in the shape of the axes that are left.
    pub mean: Var,
    /// Their mean square distance from it, not corrected for bias.
    pub var: Var,
}

impl Normalize {
    /// Gives the shape of the axes that are left.
    fn kept(&self, shape: &Shape) -> Shape {
        let left = (0..shape.rank()).filter(|axis| !self.axes.contains(axis));
        left.map(|axis| shape[axis]).collect()
    }

    /// Counts the numbers that are normalized together.
    fn count(&self, shape: &Shape) -> f64 {
        self.axes.iter().map(|&axis| shape[axis]).product::<usize>() as f64
    }

    /// Gives a statistic the axes that it does not have, with size 1.
    fn spread(&self, statistic: &Var, shape: &Shape) -> Var {
        let size = |axis| if self.axes.contains(&axis) { 1 } else { shape[axis] };
        statistic.reshape((0..shape.rank()).map(size).collect::<Shape>())
    }

    fn check(&self, name: &str, x: &Type) -> Result<(), OpError> {
        computes(name, x)?;
        match self.axes.iter().find(|&&axis| axis >= x.shape.rank()) {
            Some(&axis) => Err(no_such_axis(axis as isize, &x.shape)),
            None => Ok(()),
        }
    }
}

/// Checks that `eps` is one number of the right type.
fn check_eps(name: &str, x: &Type, eps: &Type) -> Result<(), OpError> {
    same_dtype(name, x, eps)?;
    match eps.shape.rank() {
        0 => Ok(()),
        _ => Err(OpError(format!("{name}: expected an eps of shape [], got {}", eps.shape))),
    }
}

impl Op for Normalize {
    fn name(&self) -> &'static str {
        if self.centered { "normalize" } else { "rms_normalize" }
    }

    fn attributes(&self) -> String {
        format!("dim={:?}", self.axes)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x, eps] = inputs else {
            let given = inputs.len();
            return Err(OpError(format!("{}: expected 2 inputs, got {given}", self.name())));
        };
        self.check(self.name(), x)?;
        check_eps(self.name(), x, eps)?;
        let statistic = Type { dtype: x.dtype, shape: self.kept(&x.shape) };
        let mut outputs = vec![x.clone(), statistic.clone()];
        outputs.extend(self.centered.then_some(statistic));
        Ok(outputs)
    }

    fn takes_any_layout(&self, input: usize) -> bool {
        input == 0
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        let like = layout_like(inputs, &outputs[0].shape);
        let statistics = outputs[1..].iter().map(|ty| ty.shape.row_major());
        [like].into_iter().chain(statistics).collect()
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        8 * inputs[0].shape.numel()
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| kernel(self, false, &inputs[..1], &outputs[0]));
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (y, var, eps) = (&at.outputs[0], &at.outputs[1], &at.inputs[1]);
        let n = self.count(y.shape());
        let of_y = at.gradients[0]
            .as_ref()
            .map(|dy| dy.trace().apply(NormalizeGradient(self.clone()), &[dy, y, var, eps]));
        // The variance is the mean square of `y · √(var + eps)`.
        let of_var = at.gradients[1]
            .as_ref()
            .map(|dvar| y * self.spread(&(dvar * (var + eps).sqrt() * (2.0 / n)), y.shape()));
        let dmean = at.gradients.get(2).and_then(Option::as_ref);
        let of_mean =
            dmean.map(|dmean| self.spread(&(dmean / n), y.shape()).expand(y.shape().clone()));
        let all = [of_y, of_var, of_mean].into_iter().flatten();
        vec![all.reduce(|sum, part| sum + part), None]
    }
}

impl Op for NormalizeGradient {
    fn name(&self) -> &'static str {
        if self.0.centered { "normalize_gradient" } else { "rms_normalize_gradient" }
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [dy, y, var, eps] = inputs else {
            let given = inputs.len();
            return Err(OpError(format!("{}: expected 4 inputs, got {given}", self.name())));
        };
        self.0.check(self.name(), y)?;
        check_eps(self.name(), y, eps)?;
        if dy != y || var.shape != self.0.kept(&y.shape) {
            return Err(OpError(format!("{}: {dy}, {y} and {var} do not fit", self.name())));
        }
        Ok(vec![y.clone()])
    }

    fn takes_any_layout(&self, input: usize) -> bool {
        input < 2
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![layout_like(&inputs[1..2], &outputs[0].shape)]
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        8 * inputs[0].shape.numel()
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| kernel(&self.0, true, &inputs[..2], &outputs[0]));
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let [dy, y, var, eps] = at.inputs else { return vec![None; 4] };
        let Some(g) = &at.gradients[0] else { return vec![None; 4] };
        let Normalize { axes, .. } = &self.0;
        let axes: Vec<_> = axes.iter().map(|&axis| axis as isize).collect();
        // No axes at all would mean all of them.
        let sum = |x: Var, keep| if axes.is_empty() { x } else { x.sum(&axes, keep) };
        let mean = |x: Var| sum(x, true) / self.0.count(y.shape());
        let of_y = || {
            let rstd = self.0.spread(&(var + eps).sqrt().reciprocal(), y.shape());
            -(g * mean(dy * y) + dy * mean(g * y)) * rstd
        };
        let of_var = || sum(g * &at.outputs[0], false) * -0.5 / (var + eps);
        vec![
            at.needs[0].then(|| g.trace().apply(self.clone(), &[g, y, var, eps])),
            at.needs[1].then(of_y),
            at.needs[2].then(of_var),
            None,
        ]
    }
}

/// `x · scale + shift`.
#[derive(Clone, Copy, Debug)]
struct Affine;

impl Formula<3, 1> for Affine {
    fn name(&self) -> &'static str {
        "affine"
    }

    #[inline(always)]
    fn apply<A: Arithmetic>(self, [x, scale, shift]: [A; 3]) -> [A; 1] {
        [x.mul_add(scale, shift)]
    }

    fn gradient(self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let dy = at.gradients[0].as_ref();
        vec![
            dy.filter(|_| at.needs[0]).map(|dy| dy * &at.inputs[1]),
            dy.filter(|_| at.needs[1]).map(|dy| dy * &at.inputs[0]),
            dy.cloned(),
        ]
    }
}

impl Var {
    /// Subtracts the mean over `axes` and divides by `√(var + eps)`, where `var` is the variance over them,
    /// not corrected for bias; `eps` is `[]` and gets no gradient.
    #[must_use]
    pub fn normalize(&self, axes: &[isize], eps: &Var) -> Normalized {
        let Some(axes) = self.axes_of(axes) else {
            let poison = self.trace().poison();
            return Normalized { y: poison.clone(), mean: poison.clone(), var: poison };
        };
        let op = Normalize { axes, centered: true };
        let [y, var, mean] = self.trace().apply_n(op, &[self, eps]);
        Normalized { y, mean, var }
    }

    /// Divides by `√(mean square + eps)`, the mean taken over `axes`; `eps` is `[]` and gets no gradient.
    #[must_use]
    pub fn rms_normalize(&self, axes: &[isize], eps: &Var) -> Var {
        let Some(axes) = self.axes_of(axes) else { return self.trace().poison() };
        let [y, _] = self.trace().apply_n(Normalize { axes, centered: false }, &[self, eps]);
        y
    }

    /// Returns `x · scale + shift`, either of which may be missing, all broadcast.
    ///
    /// Source: `torch.addcmul`.
    #[must_use]
    pub fn scale_shift(&self, scale: Option<&Var>, shift: Option<&Var>) -> Var {
        match (scale, shift) {
            (None, None) => self.clone(),
            (Some(scale), None) => self * scale,
            (None, Some(shift)) => self + shift,
            (Some(scale), Some(shift)) => pointwise(Affine, [self, scale, shift]),
        }
    }

    /// Resolves axes and sorts them; after an error gives `None`.
    fn axes_of(&self, axes: &[isize]) -> Option<Vec<usize>> {
        self.id()?;
        let mut found = Vec::new();
        for &axis in axes {
            match self.shape().axis(axis) {
                Some(axis) => found.push(axis),
                None => {
                    self.trace().fail(no_such_axis(axis, self.shape()).0);
                    return None;
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Some(found)
    }
}

fn kernel(
    op: &Normalize,
    is_gradient: bool,
    inputs: &[Operand],
    output: &Operand,
) -> Box<dyn Kernel> {
    fn of<T: Number>(
        op: &Normalize,
        is_gradient: bool,
        inputs: &[Operand],
        output: &Operand,
    ) -> Box<dyn Kernel> {
        let groups = |operand: &Operand| Groups::new(operand, &op.axes);
        let shape = &output.ty.shape;
        let long = |axis: &usize| shape[*axis] != 1;
        let kept = (0..shape.rank()).filter(long).find(|axis| !op.axes.contains(axis));
        let slowest = output.layout.order(shape).into_iter().find(long);
        let parts = slowest.filter(|_| slowest == kept).map_or(1, |axis| shape[axis]);
        Box::new(NormalizeKernel::<T> {
            inputs: inputs.iter().map(groups).collect(),
            output: groups(output),
            centered: op.centered,
            is_gradient,
            parts: parts.max(1),
            element: PhantomData,
        })
    }
    match output.ty.dtype {
        Dtype::F64 => of::<f64>(op, is_gradient, inputs, output),
        _ => of::<f32>(op, is_gradient, inputs, output),
    }
}

/// Where the numbers of an operand lie that are normalized together.
#[derive(Debug)]
struct Groups {
    /// Offset of each group's first number, groups counted row-major.
    starts: Vec<usize>,
    /// Where the runs of a group begin, from its start on.
    runs: Vec<usize>,
    /// Numbers of a run.
    run: usize,
    /// Elements from one number of a run to the next.
    step: usize,
}

impl Groups {
    fn new(operand: &Operand, axes: &[usize]) -> Self {
        let (shape, layout) = (&operand.ty.shape, &operand.layout);
        let offsets = |axes: &[usize]| {
            let mut offsets = vec![0];
            for &axis in axes {
                let (size, stride) = (shape[axis], layout[axis]);
                offsets = offsets
                    .iter()
                    .flat_map(|start| (0..size).map(move |i| start + i * stride))
                    .collect();
            }
            offsets
        };
        let kept: Vec<_> = (0..shape.rank()).filter(|axis| !axes.contains(axis)).collect();
        let mut outer: Vec<_> = axes.iter().copied().filter(|&axis| shape[axis] != 1).collect();
        let (mut run, mut step) = (1, 1);
        if axes.iter().any(|&axis| shape[axis] == 0) {
            // A group of no numbers, of whatever sizes the other axes are.
            outer.clear();
            run = 0;
        }
        if let Some(last) = outer.pop() {
            (run, step) = (shape[last], layout[last]);
            while let Some(&axis) = outer.last().filter(|&&axis| layout[axis] == run * step) {
                run *= shape[axis];
                outer.pop();
            }
        }
        Groups { starts: offsets(&kept), runs: offsets(&outer), run, step }
    }

    /// Counts the numbers of a group.
    fn len(&self) -> usize {
        self.runs.len() * self.run
    }

    /// Gives the numbers of a group in order: where they are, or in `scratch`.
    #[inline(always)]
    fn read<'a, T: Number>(&self, x: &'a [T], group: usize, scratch: &'a mut [T]) -> &'a [T] {
        let start = self.starts[group];
        if self.runs.len() == 1 && self.step == 1 {
            return &x[start..start + self.run];
        }
        for (&offset, to) in self.runs.iter().zip(scratch.chunks_exact_mut(self.run)) {
            let from = &x[start + offset..];
            if self.step == 1 {
                to.copy_from_slice(&from[..self.run]);
            } else {
                to.iter_mut().zip(from.iter().step_by(self.step)).for_each(|(to, x)| *to = *x);
            }
        }
        &scratch[..self.len()]
    }

    /// Puts the numbers of a group where they belong in `y`, which begins with element `base`.
    #[inline(always)]
    fn write<T: Number>(&self, y: &mut [T], base: usize, group: usize, numbers: &[T]) {
        let start = self.starts[group] - base;
        for (&offset, from) in self.runs.iter().zip(numbers.chunks_exact(self.run)) {
            let to = &mut y[start + offset..];
            if self.step == 1 {
                to[..self.run].copy_from_slice(from);
            } else {
                to.iter_mut().step_by(self.step).zip(from).for_each(|(to, y)| *to = *y);
            }
        }
    }
}

struct NormalizeKernel<T> {
    /// Groups of `x`, or of `dy` and `y`.
    inputs: Vec<Groups>,
    output: Groups,
    centered: bool,
    is_gradient: bool,
    /// Along the output's slowest axis, if that is the first of those that are left: its size. So many parts of
    /// the output lie one behind the other and hold whole groups.
    parts: usize,
    element: PhantomData<T>,
}

impl<T: Number> Kernel for NormalizeKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let (numel, n_groups) =
            (self.output.len() * self.output.starts.len(), self.output.starts.len());
        let is_split = tile.split() && self.parts > 1 && numel >= WORTH_SPLITTING;
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let y = outputs.take::<T>();
            if self.output.len() == 0 {
                continue;
            }
            let (first, second): (&[T], &[T]) = (inputs.get(0), inputs.get(1));
            let part = match self.is_gradient {
                true => Share {
                    kernel: self,
                    groups: 0..n_groups,
                    x: first,
                    of: Some((second, inputs.get(2))),
                    eps: inputs.get(3)[0],
                    y,
                    vars: &mut [],
                    means: &mut [],
                },
                false => Share {
                    kernel: self,
                    groups: 0..n_groups,
                    x: first,
                    of: None,
                    eps: second[0],
                    y,
                    vars: outputs.take(),
                    means: if self.centered { outputs.take() } else { &mut [] },
                },
            };
            match is_split {
                true => share_out(part),
                false => dispatch(OnScratch { part, scratch }),
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<T>(&[self.output.len(); 3])
    }

    fn table_bytes(&self) -> usize {
        let of = |groups: &Groups| groups.starts.len() + groups.runs.len();
        self.inputs.iter().chain([&self.output]).map(of).sum::<usize>() * size_of::<usize>()
    }
}

/// Some groups of one model.
struct Share<'a, T> {
    kernel: &'a NormalizeKernel<T>,
    groups: Range<usize>,
    /// `x`, or `dy`.
    x: &'a [T],
    /// For the gradient, the normalized numbers and their variances.
    of: Option<(&'a [T], &'a [T])>,
    eps: T,
    /// Of the outputs, these groups alone; what is not computed is empty.
    y: &'a mut [T],
    vars: &'a mut [T],
    means: &'a mut [T],
}

impl<T: Number> Divisible for Share<'_, T> {
    fn halves(self) -> Result<[Self; 2], Self> {
        let in_part = self.kernel.output.starts.len() / self.kernel.parts;
        let parts = self.groups.len() / in_part;
        if self.y.len() < WORTH_SPLITTING || parts < 2 {
            return Err(self);
        }
        let Share { kernel, groups, x, of, eps, y, vars, means } = self;
        let first = parts / 2 * in_part;
        let at = groups.start + first;
        let (y, y_rest) = y.split_at_mut(y.len() / parts * (parts / 2));
        let (vars, vars_rest) = vars.split_at_mut(first.min(vars.len()));
        let (means, means_rest) = means.split_at_mut(first.min(means.len()));
        let part = |groups, y, vars, means| Share { kernel, groups, x, of, eps, y, vars, means };
        Ok([
            part(groups.start..at, y, vars, means),
            part(at..groups.end, y_rest, vars_rest, means_rest),
        ])
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

impl<T: Number> Vectorized for OnScratch<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let OnScratch { part: Share { kernel, groups, x, of, eps, y, vars, means }, scratch } =
            self;
        let NormalizeKernel { inputs: from, output: to, centered, parts, .. } = kernel;
        let n = T::from_f64(to.len() as f64);
        let [first, second, result] = carve::<T, 3>(scratch, [to.len(); 3]);
        // Whole parts lie one behind the other.
        let base = if *parts > 1 { groups.start * to.len() } else { 0 };
        for (place, group) in groups.enumerate() {
            let x = from[0].read(x, group, first);
            if let Some((normalized, vars)) = of {
                let normalized = from[1].read(normalized, group, second);
                let rstd = reciprocal_root(vars[group] + eps);
                gradient::<T, S>(x, normalized, rstd, *centered, n, result);
            } else {
                let mut mean = T::default();
                if let Some(to) = means.get_mut(place) {
                    mean = sum_by_vectors::<T, S>(x, x, Itself) / n;
                    *to = mean;
                }
                let var = sum_by_vectors::<T, S>(x, x, Deviation(mean)) / n;
                vars[place] = var;
                let rstd = reciprocal_root(var + eps);
                result.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - mean) * rstd);
            }
            to.write(y, base, group, result);
        }
    }
}

/// A number itself.
#[derive(Clone, Copy)]
struct Itself;

impl<T: Float> Term<T> for Itself {
    #[inline(always)]
    fn of<S: Simd>(self, x: T::Lanes<S>, _: T::Lanes<S>) -> T::Lanes<S> {
        x
    }
}

/// The square of how far a number is from another.
#[derive(Clone, Copy)]
struct Deviation<T>(T);

impl<T: Float> Term<T> for Deviation<T> {
    #[inline(always)]
    fn of<S: Simd>(self, x: T::Lanes<S>, _: T::Lanes<S>) -> T::Lanes<S> {
        let off = x.sub(T::Lanes::<S>::splat(self.0));
        off.mul(off)
    }
}

/// The product of two numbers.
#[derive(Clone, Copy)]
struct Products;

impl<T: Float> Term<T> for Products {
    #[inline(always)]
    fn of<S: Simd>(self, x: T::Lanes<S>, y: T::Lanes<S>) -> T::Lanes<S> {
        x.mul(y)
    }
}

#[inline(always)]
fn reciprocal_root<T: Number>(x: T) -> T {
    T::from_f64(1.0) / x.sqrt()
}

#[inline(always)]
fn gradient<T: Number, S: Simd>(dy: &[T], y: &[T], rstd: T, centered: bool, n: T, dx: &mut [T]) {
    let along = sum_by_vectors::<T, S>(dy, y, Products) / n;
    let mean = if centered { sum_by_vectors::<T, S>(dy, dy, Itself) / n } else { T::default() };
    for ((dx, &dy), &y) in dx.iter_mut().zip(dy).zip(y) {
        *dx = (dy - mean - y * along) * rstd;
    }
}
