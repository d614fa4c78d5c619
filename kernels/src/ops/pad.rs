//! Padding with the value's own numbers: `pad` by reflection, replication or around the circle.
//!
//! Source: `torch.nn.functional.pad` with `mode` `'reflect'`, `'replicate'` and `'circular'`.

use core::marker::PhantomData;

use super::elementwise::computes;
use super::number::Number;
use crate::cpu::tile::Tile;
use crate::dtype::Dtype;
use crate::op::{GradientAt, Kernel, Op, OpError};
use crate::program::trace::Var;
use crate::shape::{Operand, Shape, Type};

/// Which numbers are put around a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PadMode {
    /// Those beside the edge, mirrored at it: `'reflect'`.
    Reflect,
    /// The one at the edge: `'replicate'`.
    Replicate,
    /// Those at the opposite edge: `'circular'`.
    Circular,
}

impl PadMode {
    /// Gives torch's name.
    pub fn name(self) -> &'static str {
        match self {
            PadMode::Reflect => "reflect",
            PadMode::Replicate => "replicate",
            PadMode::Circular => "circular",
        }
    }

    /// Gives where the number at `i` of a padded axis comes from.
    fn source(self, i: usize, low: usize, size: usize) -> usize {
        let at = i as isize - low as isize;
        let last = size as isize - 1;
        let from = match self {
            PadMode::Replicate => at.clamp(0, last),
            PadMode::Circular => at.rem_euclid(size as isize),
            PadMode::Reflect if at < 0 => -at,
            PadMode::Reflect if at > last => 2 * last - at,
            PadMode::Reflect => at,
        };
        from as usize
    }
}

/// Pads each axis; the gradient adds what came from one number.
#[derive(Clone, Debug)]
struct Pad {
    mode: PadMode,
    /// How much before and behind each axis.
    padding: Vec<(usize, usize)>,
    /// The shape without padding.
    shape: Shape,
    is_gradient: bool,
}

impl Pad {
    fn padded(&self) -> Shape {
        let sizes = self.shape.iter().zip(&self.padding);
        sizes.map(|(size, (low, high))| size.saturating_add(*low).saturating_add(*high)).collect()
    }
}

impl Op for Pad {
    fn name(&self) -> &'static str {
        if self.is_gradient { "pad_gradient" } else { "pad" }
    }

    fn attributes(&self) -> String {
        format!("mode={} pad={:?}", self.mode.name(), self.padding)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x] = inputs else {
            return Err(OpError(format!("pad: expected 1 input, got {}", inputs.len())));
        };
        computes(self.name(), x)?;
        let (mut from, mut to) = (self.shape.clone(), self.padded());
        if self.is_gradient {
            core::mem::swap(&mut from, &mut to);
        }
        if x.shape != from || self.padding.len() != from.rank() {
            return Err(OpError(format!("pad: expected {from}, got {}", x.shape)));
        }
        Ok(vec![Type { dtype: x.dtype, shape: to }])
    }

    fn kernel(&self, inputs: &[Operand], _: &[Operand]) -> Box<dyn Kernel> {
        let (padded, strides) = (self.padded(), self.shape.row_major());
        let mut sources = vec![0];
        for axis in 0..padded.rank() {
            let (low, size) = (self.padding[axis].0, self.shape[axis]);
            let places = (0..padded[axis]).map(|i| self.mode.source(i, low, size) * strides[axis]);
            let places: Vec<_> = places.collect();
            sources = sources.iter().flat_map(|at| places.iter().map(move |i| at + i)).collect();
        }
        match inputs[0].ty.dtype {
            Dtype::F64 => Box::new(PadKernel::<f64>::new(sources, self.is_gradient)),
            _ => Box::new(PadKernel::<f32>::new(sources, self.is_gradient)),
        }
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let op = Pad { is_gradient: !self.is_gradient, ..self.clone() };
        vec![at.gradients[0].as_ref().map(|dy| dy.trace().apply(op, &[dy]))]
    }
}

struct PadKernel<T> {
    /// For each number of the padded value, the offset of its source.
    sources: Vec<usize>,
    is_gradient: bool,
    element: PhantomData<T>,
}

impl<T> PadKernel<T> {
    fn new(sources: Vec<usize>, is_gradient: bool) -> Self {
        PadKernel { sources, is_gradient, element: PhantomData }
    }
}

impl<T: Number> Kernel for PadKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let (from, to) = (inputs.get::<T>(0), outputs.take::<T>());
            if self.is_gradient {
                to.fill(T::default());
                for (&source, &dy) in self.sources.iter().zip(from) {
                    to[source] = to[source] + dy;
                }
            } else {
                for (&source, y) in self.sources.iter().zip(to) {
                    *y = from[source];
                }
            }
        }
    }
}

impl Var {
    /// Pads the last axes with the value's own numbers: for each of them, how much before and behind.
    ///
    /// Source: `torch.nn.functional.pad`, whose list begins with the last axis.
    #[must_use]
    pub fn pad(&self, padding: &[(usize, usize)], mode: PadMode) -> Var {
        if self.id().is_none() || padding.iter().all(|&pad| pad == (0, 0)) {
            return self.clone();
        }
        let shape = self.shape();
        let Some(first) = shape.rank().checked_sub(padding.len()) else {
            return self
                .trace()
                .fail(format!("pad: too many axes to pad for an input of size {shape}"));
        };
        for (axis, &(low, high)) in (first..).zip(padding) {
            let (size, most) = (shape[axis], low.max(high));
            match mode {
                PadMode::Reflect if most >= size => {
                    return self.trace().fail(format!(
                        "Argument #4: Padding size should be less than the corresponding input \
                         dimension, but got: padding ({low}, {high}) at dimension {axis} of input {shape}"
                    ));
                }
                PadMode::Circular if most > size => {
                    return self
                        .trace()
                        .fail("Padding value causes wrapping around more than once.");
                }
                _ if size == 0 && most > 0 => {
                    return self.trace().fail(format!("pad: cannot pad an empty axis of {shape}"));
                }
                _ => {}
            }
        }
        let padding = vec![(0, 0); first].into_iter().chain(padding.iter().copied()).collect();
        let op = Pad { mode, padding, shape: shape.clone(), is_gradient: false };
        self.trace().apply(op, &[self])
    }
}
