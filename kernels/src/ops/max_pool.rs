//! The greatest number of each window, and where it lies: `max_pool`.
//!
//! Of equal numbers the first counts, of several NaN the last, as in torch. The place is counted row-major in
//! the spatial axes of one channel.
//!
//! Source: `torch.nn.functional.max_pool2d`, `adaptive_max_pool2d`, `fractional_max_pool2d` and their kin.

use core::marker::PhantomData;

use rayon::prelude::*;

use super::pick::Places;
use super::planes::Planes;
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::simd::{Simd, Vectorized, dispatch};
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Layout, Operand, Shape, Type};
use crate::ir::trace::Var;
use crate::ops::elementwise::number::Number;
use crate::ops::elementwise::pointwise::{WORTH_SPLITTING, computes, same_dtype};

/// The numbers along one axis that one number of the output looks at: `start`, `start + step`, … below `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// The first.
    pub start: usize,
    /// Behind the last.
    pub end: usize,
    /// From one to the next.
    pub step: usize,
}

/// Where the windows lie.
#[derive(Clone, Debug)]
enum Windows {
    /// For each spatial axis, the windows of its outputs.
    Fixed(Vec<Vec<Window>>),
    /// Drawn for each channel: sizes of windows and outputs, one for each axis. The second input is
    /// `[batch, channels, axes]`, numbers in `[0, 1)`.
    Drawn { kernel: Vec<usize>, outputs: Vec<usize> },
}

/// The input is `[batch, channels, ..]`, outputs are the numbers and their places.
#[derive(Clone, Debug)]
struct MaxPool {
    windows: Windows,
}

impl MaxPool {
    fn sizes(&self) -> Vec<usize> {
        match &self.windows {
            Windows::Fixed(windows) => windows.iter().map(Vec::len).collect(),
            Windows::Drawn { outputs, .. } => outputs.clone(),
        }
    }

    /// Says whether the windows are within the input.
    fn fits(&self, spatial: &[usize]) -> bool {
        match &self.windows {
            Windows::Fixed(windows) => windows.iter().zip(spatial).all(|(windows, &size)| {
                windows
                    .iter()
                    .all(|window| window.start <= size && window.end <= size && window.step > 0)
            }),
            Windows::Drawn { kernel, outputs } => {
                kernel.len() == outputs.len()
                    && kernel.iter().zip(spatial).all(|(&kernel, &size)| kernel <= size)
            }
        }
    }
}

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool"
    }

    fn attributes(&self) -> String {
        match &self.windows {
            Windows::Fixed(axes) => {
                let window = |of: &Window| format!("{}..{}:{}", of.start, of.end, of.step);
                let axis = |of: &Vec<Window>| of.iter().map(window).collect::<Vec<_>>().join(" ");
                axes.iter().map(|of| format!("[{}]", axis(of))).collect::<Vec<_>>().join(" ")
            }
            Windows::Drawn { kernel, outputs } => {
                format!("drawn kernel_size={kernel:?} output_size={outputs:?}")
            }
        }
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x, samples @ ..] = inputs else {
            return Err(OpError("max_pool: expected an input, got 0".to_owned()));
        };
        computes("max_pool", x)?;
        let sizes = self.sizes();
        let rank = x.shape.rank();
        let wrong = || OpError(format!("max_pool: the windows do not fit an input of {}", x.shape));
        let first = rank.checked_sub(sizes.len()).ok_or_else(wrong)?;
        if !(1..=3).contains(&sizes.len()) || !self.fits(&x.shape[first..]) {
            return Err(wrong());
        }
        match (&self.windows, samples) {
            (Windows::Fixed(_), []) => {}
            (Windows::Drawn { .. }, [samples]) => {
                same_dtype("max_pool", x, samples)?;
                let drawn = x.shape[..first].iter().copied().chain([sizes.len()]);
                if drawn.collect::<Shape>() != samples.shape {
                    let shape = &samples.shape;
                    return Err(OpError(format!(
                        "max_pool: samples of {shape} do not fit an input of {}",
                        x.shape
                    )));
                }
            }
            _ => return Err(OpError(format!("max_pool: got {} inputs", inputs.len()))),
        }
        let shape: Shape = x.shape[..first].iter().copied().chain(sizes).collect();
        Ok(vec![Type { dtype: x.dtype, shape: shape.clone() }, Type { dtype: Dtype::I64, shape }])
    }

    fn takes_layout(&self, input: usize, operand: &Operand) -> bool {
        operand.is_row_major() || input == 0 && Planes::new(operand, self.sizes().len()).is_some()
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        let order = Planes::order(&inputs[0], self.sizes().len());
        outputs.iter().map(|ty| ty.shape.ordered(&order)).collect()
    }

    fn cost(&self, inputs: &[Type], outputs: &[Type]) -> usize {
        // Comparing takes about three times as long as adding.
        3 * (inputs[0].shape.numel() + outputs[0].shape.numel())
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| match inputs[0].ty.dtype {
            Dtype::F64 => Box::new(MaxPoolKernel::<f64>::new(self, &inputs[0], outputs)),
            _ => Box::new(MaxPoolKernel::<f32>::new(self, &inputs[0], outputs)),
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, places) = (&at.inputs[0], &at.outputs[1]);
        let spatial = &x.shape()[x.shape().rank() - self.sizes().len()..];
        let add = |dy: &Var| dy.place(places, spatial, Places::Added);
        let mut gradients = vec![None; at.inputs.len()];
        gradients[0] = at.gradients[0].as_ref().map(add);
        gradients
    }
}

struct MaxPoolKernel<T> {
    windows: Windows,
    x: Planes,
    /// The channels' numbers in the order in which they lie in the output.
    order: Vec<usize>,
    /// Sizes of the spatial axes, ones in front.
    sizes: [usize; 3],
    outputs: [usize; 3],
    element: PhantomData<T>,
}

/// The window of an axis that is not there.
const ALL: Window = Window { start: 0, end: 1, step: 1 };

/// Puts ones in front, so that there are three axes.
fn three(sizes: &[usize]) -> [usize; 3] {
    let mut three = [1; 3];
    three[3 - sizes.len()..].copy_from_slice(sizes);
    three
}

impl<T: Number> MaxPoolKernel<T> {
    fn new(op: &MaxPool, x: &Operand, outputs: &[Operand]) -> Self {
        let sizes = op.sizes();
        let first = x.ty.shape.rank() - sizes.len();
        let windows = match &op.windows {
            Windows::Fixed(windows) => {
                let missing = vec![vec![ALL]; 3 - windows.len()];
                Windows::Fixed(missing.into_iter().chain(windows.iter().cloned()).collect())
            }
            drawn @ Windows::Drawn { .. } => drawn.clone(),
        };
        MaxPoolKernel {
            windows,
            x: Planes::row_major_or(x, sizes.len()),
            order: Planes::row_major_or(&outputs[0], sizes.len()).in_place(),
            sizes: three(&x.ty.shape[first..]),
            outputs: three(&sizes),
            element: PhantomData,
        }
    }

    /// Finds the greatest numbers of a channel.
    #[inline(always)]
    fn channel(&self, [d, h, w]: [&[Window]; 3], x: &[T], y: &mut [T], places: &mut [i64]) {
        let [_, height, width] = self.sizes;
        let mut at = 0;
        for d in d {
            for h in h {
                for w in w {
                    let mut best = T::from_f64(f64::NEG_INFINITY);
                    let mut place = (d.start * height + h.start) * width + w.start;
                    for i in (d.start..d.end).step_by(d.step) {
                        for j in (h.start..h.end).step_by(h.step) {
                            let row = (i * height + j) * width;
                            for k in (w.start..w.end).step_by(w.step) {
                                let number = x[row + k];
                                // Nobody can predict which is the greatest, so nothing branches on it.
                                #[expect(clippy::eq_op, reason = "only NaN is not itself")]
                                let is_next = (number > best) | (number != number);
                                best = if is_next { number } else { best };
                                place = if is_next { row + k } else { place };
                            }
                        }
                    }
                    (y[at], places[at]) = (best, place as i64);
                    at += 1;
                }
            }
        }
    }

    /// Draws the windows of axis `axis`.
    ///
    /// Source: `fractional_max_pool_generate_intervals` of torch.
    fn draw(&self, axis: usize, kernel: usize, outputs: usize, sample: T) -> Vec<Window> {
        let room = self.sizes[axis].saturating_sub(kernel);
        let alpha = T::from_f64(room as f64) / T::from_f64(outputs.saturating_sub(1).max(1) as f64);
        let place = |i: usize| ((T::from_f64(i as f64) + sample) * alpha).into() as usize;
        let starts = (0..outputs).map(|i| match i + 1 == outputs {
            true => room,
            false => (place(i) - place(0)).min(room),
        });
        starts.map(|start| Window { start, end: start + kernel, step: 1 }).collect()
    }
}

impl<T: Number> Kernel for MaxPoolKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let is_split = tile.split();
        let to = self.outputs.iter().product::<usize>().max(1);
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let (x, y, places) = (inputs.get::<T>(0), outputs.take::<T>(), outputs.take::<i64>());
            let samples = match &self.windows {
                Windows::Fixed(_) => &[],
                Windows::Drawn { .. } => inputs.get::<T>(1),
            };
            let channels = |first, y, places| {
                dispatch(Channels { kernel: self, first, x, samples, y, places });
            };
            if !is_split || x.len() < WORTH_SPLITTING {
                channels(0, y, places);
                continue;
            }
            let at_a_time = (WORTH_SPLITTING / 4 / to).max(1);
            let parts = y.par_chunks_mut(at_a_time * to).zip(places.par_chunks_mut(at_a_time * to));
            parts.enumerate().for_each(|(i, (y, places))| channels(i * at_a_time, y, places));
        }
    }
}

/// Some channels of a model that lie one behind the other in the output, from number `first` on.
struct Channels<'a, T> {
    kernel: &'a MaxPoolKernel<T>,
    first: usize,
    x: &'a [T],
    samples: &'a [T],
    y: &'a mut [T],
    places: &'a mut [i64],
}

impl<T: Number> Vectorized for Channels<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Channels { kernel, first, x, samples, y, places } = self;
        let (from, to) =
            (kernel.sizes.iter().product::<usize>(), kernel.outputs.iter().product::<usize>());
        let results = y.chunks_exact_mut(to.max(1)).zip(places.chunks_exact_mut(to.max(1)));
        for (&number, (y, places)) in kernel.order[first..].iter().zip(results) {
            let x = kernel.x.channel(x, number, from);
            match &kernel.windows {
                Windows::Fixed(windows) => {
                    kernel.channel([&windows[0], &windows[1], &windows[2]], x, y, places);
                }
                Windows::Drawn { kernel: sizes, outputs } => {
                    let axes = sizes.len();
                    let samples = &samples[number * axes..][..axes];
                    let mut drawn = [vec![ALL], vec![ALL], vec![ALL]];
                    for axis in 0..axes {
                        // In two axes torch takes the samples in reverse.
                        let sample = samples[if axes == 2 { 1 - axis } else { axis }];
                        let place = 3 - axes + axis;
                        drawn[place] = kernel.draw(place, sizes[axis], outputs[axis], sample);
                    }
                    kernel.channel([&drawn[0], &drawn[1], &drawn[2]], x, y, places);
                }
            }
        }
    }
}

impl Var {
    /// Gives the greatest number of each window, and its place in the channel, as i64.
    ///
    /// # Shape
    ///
    /// `self` is `[.., axes]`, with one to three spatial axes, for each of which there are windows; the results
    /// have as many numbers along it as there are windows.
    ///
    /// Source: the common part of torch's max pools.
    #[must_use]
    pub fn max_windows(&self, windows: Vec<Vec<Window>>) -> [Var; 2] {
        self.trace().apply_n(MaxPool { windows: Windows::Fixed(windows) }, &[self])
    }

    /// As [`max_windows`](Var::max_windows), with windows of size `kernel` at places that `samples` choose:
    /// numbers in `[0, 1)` of shape `[.., axes]`, for each channel one an axis, in torch's order.
    ///
    /// Source: `torch.nn.functional.fractional_max_pool2d_with_indices` with `_random_samples`.
    #[must_use]
    pub fn max_drawn_windows(
        &self,
        kernel: Vec<usize>,
        outputs: Vec<usize>,
        samples: &Var,
    ) -> [Var; 2] {
        let op = MaxPool { windows: Windows::Drawn { kernel, outputs } };
        self.trace().apply_n(op, &[self, samples])
    }
}
