//! Numbers taken from places of their channel, and put there: `pick` and `place`. Each is the other's gradient.
//!
//! Source: the backward passes of torch's max pools, and `torch.nn.functional.max_unpool2d`.

use core::marker::PhantomData;

use rayon::prelude::*;

use super::planes::Planes;
use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Layout, Operand, Shape, Type};
use crate::ir::trace::Var;
use crate::ops::elementwise::number::Number;
use crate::ops::elementwise::pointwise::{WORTH_SPLITTING, computes};

/// What becomes of numbers that share a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Places {
    /// They are added up in their order.
    Added,
    /// The last one stays. A place that is not there makes its whole channel NaN.
    Assigned,
}

/// Inputs numbers and their places.
#[derive(Clone, Debug)]
struct Place {
    /// Sizes of the spatial axes of the result.
    spatial: Vec<usize>,
    how: Places,
}

/// Inputs numbers and places.
#[derive(Clone, Debug)]
struct Pick {
    /// How many axes are spatial.
    spatial: usize,
}

/// Checks the types of numbers and places, which have `spatial` spatial axes; gives how many axes come before.
fn check(op: &str, inputs: &[Type], spatial: usize) -> Result<usize, OpError> {
    let [x, places] = inputs else {
        return Err(OpError(format!("{op}: expected 2 inputs, got {}", inputs.len())));
    };
    computes(op, x)?;
    if places.dtype != Dtype::I64 {
        return Err(OpError(format!(
            "elements in indices should be type int64 but got: {}",
            places.dtype
        )));
    }
    let first = x.shape.rank().checked_sub(spatial);
    let first = first.filter(|&first| {
        places.shape.rank() == x.shape.rank() && { places.shape[..first] == x.shape[..first] }
    });
    first.ok_or_else(|| {
        OpError(format!("{op}: places of {} do not fit numbers of {}", places.shape, x.shape))
    })
}

impl Op for Place {
    fn name(&self) -> &'static str {
        "place"
    }

    fn attributes(&self) -> String {
        format!("size={:?} {:?}", self.spatial, self.how)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let first = check("place", inputs, self.spatial.len())?;
        let [x, places] = [&inputs[0], &inputs[1]];
        if x.shape != places.shape {
            return Err(OpError(format!(
                "Expected shape of indices to be same as that of the input tensor ({}) but got indices \
                 tensor with shape: {}",
                x.shape, places.shape
            )));
        }
        let shape: Shape = x.shape[..first].iter().chain(&self.spatial).copied().collect();
        Ok(vec![Type { dtype: x.dtype, shape }])
    }

    fn takes_layout(&self, _: usize, operand: &Operand) -> bool {
        Planes::new(operand, self.spatial.len()).is_some()
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![outputs[0].shape.ordered(&Planes::order(&inputs[0], self.spatial.len()))]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let channels = Channels::new(inputs, outputs, self.spatial.len());
            let how = self.how;
            match inputs[0].ty.dtype {
                Dtype::F64 => Box::new(PlaceKernel::<f64> { channels, how, element: PhantomData }),
                _ => Box::new(PlaceKernel::<f32> { channels, how, element: PhantomData }),
            }
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let op = Pick { spatial: self.spatial.len() };
        let dy = at.gradients[0].as_ref();
        vec![dy.map(|dy| dy.trace().apply(op, &[dy, &at.inputs[1]])), None]
    }
}

impl Op for Pick {
    fn name(&self) -> &'static str {
        "pick"
    }

    fn attributes(&self) -> String {
        format!("axes={}", self.spatial)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        check("pick", inputs, self.spatial)?;
        Ok(vec![Type { dtype: inputs[0].dtype, shape: inputs[1].shape.clone() }])
    }

    fn takes_layout(&self, _: usize, operand: &Operand) -> bool {
        Planes::new(operand, self.spatial).is_some()
    }

    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        vec![outputs[0].shape.ordered(&Planes::order(&inputs[0], self.spatial))]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            let channels = Channels::new(inputs, outputs, self.spatial);
            match inputs[0].ty.dtype {
                Dtype::F64 => Box::new(PickKernel::<f64> { channels, element: PhantomData }),
                _ => Box::new(PickKernel::<f32> { channels, element: PhantomData }),
            }
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let shape = at.inputs[0].shape();
        let spatial = &shape[shape.rank() - self.spatial..];
        let dy = at.gradients[0].as_ref();
        vec![dy.map(|dy| dy.place(&at.inputs[1], spatial, Places::Added)), None]
    }
}

/// The channels of numbers, places and results.
struct Channels {
    x: Planes,
    places: Planes,
    /// The channels' numbers in the order in which they lie in the result.
    order: Vec<usize>,
    /// Numbers of a channel of each.
    numels: [usize; 3],
}

impl Channels {
    fn new(inputs: &[Operand], outputs: &[Operand], spatial: usize) -> Self {
        let numel = |of: &Operand| {
            let shape = &of.ty.shape;
            shape[shape.rank() - spatial..].iter().product()
        };
        Channels {
            x: Planes::row_major_or(&inputs[0], spatial),
            places: Planes::row_major_or(&inputs[1], spatial),
            order: Planes::row_major_or(&outputs[0], spatial).in_place(),
            numels: [numel(&inputs[0]), numel(&inputs[1]), numel(&outputs[0])],
        }
    }

    /// Visits the channels.
    #[inline(always)]
    fn each<T: Number>(&self, tile: &mut Tile<'_>, f: impl Fn(&[T], &[i64], &mut [T]) + Sync) {
        let [of_x, of_places, of_y] = self.numels;
        let is_split = tile.split();
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let (x, places, y) = (inputs.get::<T>(0), inputs.get::<i64>(1), outputs.take::<T>());
            let channels = |first: usize, y: &mut [T]| {
                let results = y.chunks_exact_mut(of_y.max(1));
                for (&number, y) in self.order[first..].iter().zip(results) {
                    let x = self.x.channel(x, number, of_x);
                    f(x, self.places.channel(places, number, of_places), y);
                }
            };
            if !is_split || y.len() < WORTH_SPLITTING {
                channels(0, y);
                continue;
            }
            let at_a_time = (WORTH_SPLITTING / 4 / of_y).max(1);
            let parts = y.par_chunks_mut(at_a_time * of_y).enumerate();
            parts.for_each(|(i, y)| channels(i * at_a_time, y));
        }
    }
}

/// Gives the element at a place, if it is there.
fn at<T>(channel: &mut [T], place: i64) -> Option<&mut T> {
    usize::try_from(place).ok().and_then(|place| channel.get_mut(place))
}

struct PlaceKernel<T> {
    channels: Channels,
    how: Places,
    element: PhantomData<T>,
}

impl<T: Number> Kernel for PlaceKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        self.channels.each(tile, |x: &[T], places, y| {
            y.fill(T::default());
            let mut is_lost = false;
            for (&x, &place) in x.iter().zip(places) {
                match at(y, place) {
                    Some(y) if self.how == Places::Added => *y = *y + x,
                    Some(y) => *y = x,
                    None => is_lost = true,
                }
            }
            if is_lost && self.how == Places::Assigned {
                y.fill(T::from_f64(f64::NAN));
            }
        });
    }
}

struct PickKernel<T> {
    channels: Channels,
    element: PhantomData<T>,
}

impl<T: Number> Kernel for PickKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        self.channels.each(tile, |x: &[T], places, y| {
            for (y, &place) in y.iter_mut().zip(places) {
                let x = usize::try_from(place).ok().and_then(|place| x.get(place));
                *y = x.copied().unwrap_or_default();
            }
        });
    }
}

impl Var {
    /// Puts each number at its place in its channel; elsewhere is 0.
    ///
    /// # Shape
    ///
    /// `self` and `places`, in i64, are `[.., axes]` with as many spatial axes as `spatial` has sizes; the result
    /// is `[.., spatial]`, whose places are counted row-major.
    ///
    /// Source: `torch.nn.functional.max_unpool2d` for [`Places::Assigned`].
    #[must_use]
    pub fn place(&self, places: &Var, spatial: &[usize], how: Places) -> Var {
        self.trace().apply(Place { spatial: spatial.to_vec(), how }, &[self, places])
    }

    /// Gives the numbers at some places of their channel, 0 for a place that is not there.
    ///
    /// # Shape
    ///
    /// `self` and `places`, in i64, are alike in all but the last `spatial` axes; the result is as `places`.
    ///
    /// Source: the gradient of `torch.nn.functional.max_unpool2d`.
    #[must_use]
    pub fn pick(&self, places: &Var, spatial: usize) -> Var {
        self.trace().apply(Pick { spatial }, &[self, places])
    }
}
