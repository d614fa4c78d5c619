//! Padding: `pad` by reflection, replication or around the circle, and by a number. Negative padding cuts off.
//!
//! Source: `torch.nn.functional.pad`.

use super::resample::{Along, Taps};
use crate::ir::trace::{Function, Var};

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

    /// Says in torch's words why an axis cannot be padded so.
    fn check(
        self,
        axis: usize,
        shape: &[usize],
        (low, high): (isize, isize),
    ) -> Result<(), String> {
        let size = shape[axis] as isize;
        let (most, padded) = (low.max(high), size.saturating_add(low).saturating_add(high));
        match self {
            PadMode::Reflect if most >= size => Err(format!(
                "Argument #4: Padding size should be less than the corresponding input dimension, but \
                 got: padding ({low}, {high}) at dimension {axis} of input {shape:?}"
            )),
            PadMode::Circular if padded < 0 => {
                Err("Negative padding value is resulting in an empty dimension".to_owned())
            }
            PadMode::Circular if most > size + low.min(0) + high.min(0) => {
                Err("Padding value causes wrapping around more than once.".to_owned())
            }
            PadMode::Reflect | PadMode::Replicate if padded < 1 => Err(format!(
                "input (size {size} at dimension {axis}) is too small. Calculated output size: {padded}"
            )),
            PadMode::Replicate if size == 0 => Err(format!(
                "Expected a tensor with possibly 0 batch size and other non-zero dimensions for input, \
                 but got: {shape:?}"
            )),
            _ => Ok(()),
        }
    }

    /// Gives the function that pads so many axes.
    fn function(self, axes: usize) -> Function {
        Function::new(match (self, axes) {
            (PadMode::Reflect, 1) => "reflection_pad1d",
            (PadMode::Reflect, 2) => "reflection_pad2d",
            (PadMode::Reflect, _) => "reflection_pad3d",
            (PadMode::Replicate, 1) => "replication_pad1d",
            (PadMode::Replicate, 2) => "replication_pad2d",
            (PadMode::Replicate, _) => "replication_pad3d",
            (PadMode::Circular, _) => "_pad_circular",
        })
    }

    /// Gives where each number of a padded axis comes from.
    fn taps(self, size: usize, (low, high): (isize, isize)) -> Taps {
        let last = size as isize - 1;
        // The circle is of what is left: numbers that are cut off do not come back on the other side.
        let (from, left) = (-low.min(0), size as isize + low.min(0) + high.min(0));
        let source = |at: isize| match self {
            PadMode::Replicate => at.clamp(0, last),
            PadMode::Circular => from + (at - from).rem_euclid(left.max(1)),
            PadMode::Reflect if at < 0 => -at,
            PadMode::Reflect if at > last => 2 * last - at,
            PadMode::Reflect => at,
        };
        Taps::copies(size, (-low..size as isize + high).map(|at| usize::try_from(source(at)).ok()))
    }
}

impl Var {
    /// Pads the last axes with the value's own numbers: for each of them, how much before and behind. A
    /// negative number cuts off.
    ///
    /// Source: `torch.nn.functional.pad`, whose list begins with the last axis.
    #[must_use]
    pub fn pad(&self, padding: &[(isize, isize)], mode: PadMode) -> Var {
        self.trace().function(mode.function(padding.len()), &[Some(self)], |cast| {
            cast(self).plain_pad(padding, mode)
        })
    }

    fn plain_pad(&self, padding: &[(isize, isize)], mode: PadMode) -> Var {
        if self.id().is_none() || padding.iter().all(|&pad| pad == (0, 0)) {
            return self.clone();
        }
        let shape = self.shape();
        let Some(first) = shape.rank().checked_sub(padding.len()) else {
            return self
                .trace()
                .fail(format!("pad: too many axes to pad for an input of size {shape}"));
        };
        for (axis, &of) in (first..).zip(padding) {
            if let Err(message) = mode.check(axis, shape, of) {
                return self.trace().fail(message);
            }
        }
        let padded = |(&size, &(low, high)): (&usize, &(isize, isize))| {
            size.saturating_add_signed(low).saturating_add_signed(high)
        };
        let sizes: Vec<_> = shape[first..].iter().zip(padding).map(padded).collect();
        if let Err(message) = self.has_room_for(first, &sizes) {
            return self.trace().fail(message);
        }
        let axes = (first..).zip(padding);
        self.resample(axes.map(|(axis, &of)| Along::new(axis, mode.taps(shape[axis], of))))
    }

    /// Pads the last axes with `value`, which is `[]`: for each of them, how much before and behind. A negative
    /// number cuts off.
    ///
    /// Source: `torch.nn.functional.pad` with `mode='constant'`, whose list begins with the last axis.
    #[must_use]
    pub fn constant_pad(&self, padding: &[(isize, isize)], value: &Var) -> Var {
        self.trace().function(
            Function::new("constant_pad_nd"),
            &[Some(self), Some(value)],
            |cast| cast(self).plain_constant_pad(padding, &cast(value)),
        )
    }

    fn plain_constant_pad(&self, padding: &[(isize, isize)], value: &Var) -> Var {
        if self.id().is_none() || value.id().is_none() {
            return self.trace().poison();
        }
        let Some(first) = self.shape().rank().checked_sub(padding.len()) else {
            return self.trace().fail(format!(
                "Padding length should be less than or equal to two times the input dimension but got \
                 padding length {} and input of dimension {}",
                2 * padding.len(),
                self.shape().rank()
            ));
        };
        let cut_off = |(axis, &(low, high)): (usize, &(isize, isize))| {
            (self.shape()[axis] as isize).saturating_add(low.min(0)).saturating_add(high.min(0)) < 0
        };
        if (first..).zip(padding).any(cut_off) {
            return self.trace().fail("narrow(): length must be non-negative.");
        }
        (first..).zip(padding).fold(self.clone(), |x, (axis, &of)| x.pad_axis(axis, of, value))
    }

    fn pad_axis(&self, axis: usize, (low, high): (isize, isize), value: &Var) -> Var {
        if self.id().is_none() {
            return self.clone();
        }
        let size = self.shape()[axis];
        let (from, to) = (low.min(0).unsigned_abs(), size - high.min(0).unsigned_abs());
        let along = axis as isize;
        let x = if (from, to) == (0, size) { self.clone() } else { self.slice(along, from..to) };
        let edge = |n: isize| {
            let mut sizes = self.shape().to_vec();
            sizes[axis] = n.max(0).unsigned_abs();
            (n > 0).then(|| value.expand(sizes))
        };
        let (before, behind) = (edge(low), edge(high));
        let parts: Vec<_> = before.iter().chain([&x]).chain(&behind).collect();
        if parts.len() == 1 { x } else { Var::cat(&parts, along) }
    }
}
