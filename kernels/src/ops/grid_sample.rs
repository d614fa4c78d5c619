//! `grid_sample`: the numbers of an image or a volume at any coordinates, from -1 to 1 within it.
//!
//! What lies between pixels is a sum over a few of them, a product of weights along each axis. Coordinates and weights
//! are computed in double precision. A second gradient takes, in place of each weight, how it changes when the coordinates
//! move in some direction. Source: `torch.nn.functional.grid_sample`, which has a third gradient, too.

use core::marker::PhantomData;

use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::sum::sum_of_terms;
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Shape, Type};
use crate::ir::trace::Var;
use crate::ops::elementwise::number::Number;
use crate::ops::elementwise::pointwise::{computes, same_dtype};
use crate::ops::reduction::lines::{carve, scratch_bytes};

/// How [`Var::grid_sample`] finds numbers between pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GridMode {
    /// On the line between neighbors, in each axis.
    #[default]
    Bilinear,
    /// The nearest one; the even one of two.
    Nearest,
    /// By cubic polynomials through four, of images only.
    Bicubic,
}

/// What [`Var::grid_sample`] finds beyond the borders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GridPadding {
    /// Zeros.
    #[default]
    Zeros,
    /// The pixels at the border.
    Border,
    /// The image mirrored, again and again.
    Reflection,
}

/// The options of [`Var::grid_sample`], with torch's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GridOptions {
    /// How numbers between pixels are found.
    pub mode: GridMode,
    /// What lies beyond the borders.
    pub padding_mode: GridPadding,
    /// Whether -1 and 1 are the centers of the first and the last pixel, and not their outer borders.
    pub align_corners: bool,
}

/// The constant of the cubic polynomials.
const A: f64 = -0.75;

/// A pixel along one axis that counts, if it is there: its weight, how that changes with the coordinate, and how
/// this does.
#[derive(Clone, Copy, Debug, Default)]
struct Tap {
    index: Option<usize>,
    weight: f64,
    slope: f64,
    bend: f64,
}

/// The pixels along one axis.
#[derive(Clone, Copy, Debug, Default)]
struct Taps {
    all: [Tap; 4],
    count: usize,
}

impl GridOptions {
    /// Gives the place of a coordinate in pixels, and how it changes with it.
    fn unnormalized(self, coordinate: f64, size: f64) -> (f64, f64) {
        match self.align_corners {
            true => ((coordinate + 1.0) / 2.0 * (size - 1.0), (size - 1.0) / 2.0),
            false => (((coordinate + 1.0) * size - 1.0) / 2.0, size / 2.0),
        }
    }

    /// Brings a place within the borders, and says how the result changes with it.
    fn padded(self, place: f64, size: f64) -> (f64, f64) {
        match self.padding_mode {
            GridPadding::Zeros => (place, 1.0),
            GridPadding::Border => clipped(place, size),
            GridPadding::Reflection => {
                let (place, slope) = match self.align_corners {
                    true => reflected(place, 0.0, size - 1.0),
                    false => reflected(place, -0.5, size - 0.5),
                };
                let (place, of_clipping) = clipped(place, size);
                (place, slope * of_clipping)
            }
        }
    }

    /// Lists the pixels that a coordinate reads along an axis of that size.
    fn taps(self, coordinate: f64, size: usize) -> Taps {
        let n = size as f64;
        let (place, scale) = self.unnormalized(coordinate, n);
        let index = |place: f64| (place >= 0.0 && place < n).then_some(place as usize);
        let mut taps = Taps::default();
        if self.mode == GridMode::Bicubic {
            let first = place.floor();
            let t = place - first;
            let cubics = [near_and_far(t + 1.0, false), near_and_far(t, true)];
            let mirrored = [near_and_far(1.0 - t, true), near_and_far(2.0 - t, false)];
            let [[a, b], [c, d]] = [cubics, mirrored];
            let of = [a, b, (c.0, -c.1, c.2), (d.0, -d.1, d.2)];
            for (offset, (weight, slope, bend)) in of.into_iter().enumerate() {
                let (place, _) = self.padded(first + offset as f64 - 1.0, n);
                let (slope, bend) = (slope * scale, bend * scale * scale);
                taps.all[offset] = Tap { index: index(place), weight, slope, bend };
            }
            taps.count = 4;
            return taps;
        }
        let (place, of_padding) = self.padded(place, n);
        let slope = scale * of_padding;
        if self.mode == GridMode::Nearest {
            let nearest = place.round_ties_even();
            taps.all[0] = Tap { index: index(nearest), weight: 1.0, ..Tap::default() };
            taps.count = 1;
            return taps;
        }
        let first = place.floor();
        let t = place - first;
        let tap = |place, weight, slope| Tap { index: index(place), weight, slope, bend: 0.0 };
        taps.all[0] = tap(first, 1.0 - t, -slope);
        taps.all[1] = tap(first + 1.0, t, slope);
        taps.count = 2;
        taps
    }
}

fn clipped(place: f64, size: f64) -> (f64, f64) {
    match place {
        place if place <= 0.0 || place.is_nan() => (0.0, 0.0),
        place if place >= size - 1.0 => (size - 1.0, 0.0),
        place => (place, 1.0),
    }
}

fn reflected(place: f64, low: f64, high: f64) -> (f64, f64) {
    let span = high - low;
    if span == 0.0 {
        return (0.0, 0.0);
    }
    let sign = if place < low { -1.0 } else { 1.0 };
    let distance = (place - low).abs();
    let extra = distance % span;
    match (distance / span).floor() % 2.0 {
        0.0 => (extra + low, sign),
        _ => (span - extra + low, -sign),
    }
}

/// Gives the weight of a pixel at a distance, less than 1 or from 1 to 2, how it changes with it, and how this does.
fn near_and_far(x: f64, is_near: bool) -> (f64, f64, f64) {
    match is_near {
        true => {
            let weight = ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
            let slope = (3.0 * (A + 2.0) * x - 2.0 * (A + 3.0)) * x;
            (weight, slope, 6.0 * (A + 2.0) * x - 2.0 * (A + 3.0))
        }
        false => {
            let weight = ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
            (weight, (3.0 * A * x - 10.0 * A) * x + 8.0 * A, 6.0 * A * x - 10.0 * A)
        }
    }
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The numbers, of an image and a grid.
    Numbers,
    /// The gradient of the image, of an image, a grid and the gradient of the numbers.
    OfImage,
    /// The gradient of the grid, of the same.
    OfGrid,
}

#[derive(Clone, Copy, Debug)]
struct GridSample {
    options: GridOptions,
    part: Part,
    /// Whether a last input, shaped as the grid, gives each point a direction, and what is computed is how that of
    /// `part` changes when the points move there.
    along: bool,
}

impl GridSample {
    fn check(&self, inputs: &[Type]) -> Result<Shape, String> {
        let [x, grid, ..] = inputs else {
            return Err(format!("expected an input and a grid, got {} inputs", inputs.len()));
        };
        let (x, grid) = (&x.shape, &grid.shape);
        let rank = x.rank();
        if !(4..=5).contains(&rank) || grid.rank() != rank {
            return Err(format!(
                "expected 4D or 5D input and grid with same number of dimensions, but got input with sizes {x} and \
                 grid with sizes {grid}"
            ));
        }
        if x[0] != grid[0] {
            return Err(format!(
                "expected grid and input to have same batch size, but got input with sizes {x} and grid with sizes \
                 {grid}"
            ));
        }
        if grid[rank - 1] != rank - 2 {
            let axes = rank - 2;
            return Err(format!(
                "expected grid to have size {axes} in last dimension, but got grid with sizes {grid}"
            ));
        }
        if let Some(axis) = (2..rank).find(|&axis| x[axis] == 0) {
            return Err(format!(
                "expected input to have non-empty spatial dimensions, but input has sizes {x} with dimension {axis} \
                 being empty"
            ));
        }
        if rank == 5 && self.options.mode == GridMode::Bicubic {
            return Err("bicubic interpolation only supports 4D input".to_owned());
        }
        Ok(x[..2].iter().chain(&grid[1..rank - 1]).copied().collect())
    }
}

impl Op for GridSample {
    fn name(&self) -> &'static str {
        match (self.part, self.along) {
            (Part::Numbers, false) => "grid_sample",
            (Part::OfImage, false) => "grid_sample_input_gradient",
            (Part::OfGrid, false) => "grid_sample_grid_gradient",
            (Part::Numbers, true) => "grid_sample_along",
            (Part::OfImage, true) => "grid_sample_input_gradient_along",
            (Part::OfGrid, true) => "grid_sample_grid_gradient_along",
        }
    }

    fn attributes(&self) -> String {
        let GridOptions { mode, padding_mode, align_corners } = self.options;
        format!("{mode:?} {padding_mode:?} align_corners={align_corners}")
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let shape =
            self.check(inputs).map_err(|what| OpError(format!("grid_sampler(): {what}")))?;
        let [x, grid, rest @ ..] = inputs else { return Ok(Vec::new()) };
        computes("grid_sampler", x)?;
        same_dtype("grid_sampler", x, grid)?;
        let made = Type { dtype: x.dtype, shape };
        let rest = match rest {
            [rest @ .., direction] if self.along && direction == grid => rest,
            _ if self.along => {
                return Err(OpError(format!("{}: the direction does not fit", self.name())));
            }
            rest => rest,
        };
        match (self.part, rest) {
            (Part::Numbers, []) => Ok(vec![made]),
            (Part::OfImage, [dy]) if *dy == made => Ok(vec![x.clone()]),
            (Part::OfGrid, [dy]) if *dy == made => Ok(vec![grid.clone()]),
            _ => Err(OpError(format!("{}: the gradient does not fit", self.name()))),
        }
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        let taps = if self.options.mode == GridMode::Bicubic { 16 } else { 4 };
        2 * taps * (inputs[0].shape[1] + 8) * inputs[1].shape.numel()
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let (x, grid) = (&inputs[0].ty.shape, &inputs[1].ty.shape);
            let axes = x.rank() - 2;
            let sizes = Sizes {
                batch: x[0],
                channels: x[1],
                spatial: x[2..].to_vec(),
                points: grid[1..=axes].iter().product(),
            };
            match inputs[0].ty.dtype {
                Dtype::F64 => Box::new(Sampler::<f64> { of: *self, sizes, element: PhantomData }),
                _ => Box::new(Sampler::<f32> { of: *self, sizes, element: PhantomData }),
            }
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let none = || vec![None; at.inputs.len()];
        let Some(given) = at.gradients[0].as_ref().filter(|_| !self.along) else { return none() };
        let of = |part, inputs: &[&Var]| given.trace().apply(GridSample { part, ..*self }, inputs);
        let along = |part, inputs: &[&Var]| {
            given.trace().apply(GridSample { part, along: true, ..*self }, inputs)
        };
        match (self.part, at.inputs) {
            (Part::Numbers, [x, grid]) => {
                let of = |part| of(part, &[x, grid, given]);
                vec![at.needs[0].then(|| of(Part::OfImage)), at.needs[1].then(|| of(Part::OfGrid))]
            }
            // Sampling is linear in the image: it counts no more.
            (Part::OfImage, [_, grid, dy]) => vec![
                at.zero(0),
                at.needs[1].then(|| of(Part::OfGrid, &[given, grid, dy])),
                at.needs[2].then(|| of(Part::Numbers, &[given, grid])),
            ],
            (Part::OfGrid, [x, grid, dy]) => vec![
                at.needs[0].then(|| along(Part::OfImage, &[x, grid, dy, given])),
                at.needs[1].then(|| along(Part::OfGrid, &[x, grid, dy, given])),
                at.needs[2].then(|| along(Part::Numbers, &[x, grid, given])),
            ],
            _ => none(),
        }
    }
}

struct Sizes {
    batch: usize,
    channels: usize,
    /// Depth if there is one, height, width.
    spatial: Vec<usize>,
    /// Points of the grid of one item.
    points: usize,
}

struct Sampler<T> {
    of: GridSample,
    sizes: Sizes,
    element: PhantomData<T>,
}

impl<T: Number> Sampler<T> {
    /// Visits the pixels that count at a point of the grid: the pixel's place, its weight, and how that changes with
    /// each coordinate, the last axis first, as in the grid. In place of both it gives how they change in a direction,
    /// if there is one.
    fn visit(&self, point: &[T], along: &[T], mut visit: impl FnMut(usize, f64, [f64; 3])) {
        let spatial = &self.sizes.spatial;
        let axes = spatial.len();
        let mut taps = [Taps::default(); 3];
        for (axis, taps) in taps[..axes].iter_mut().enumerate() {
            *taps = self.of.options.taps(point[axes - 1 - axis].into(), spatial[axis]);
        }
        let total: usize = taps[..axes].iter().map(|taps| taps.count).product();
        'all: for number in 0..total {
            let (mut rest, mut place, mut weight) = (number, 0, 1.0);
            let mut slopes = [1.0; 3];
            // How each slope changes with each coordinate.
            let mut bends = [[1.0; 3]; 3];
            for (axis, taps) in taps[..axes].iter().enumerate() {
                let tap = taps.all[rest % taps.count];
                rest /= taps.count;
                let Some(index) = tap.index else { continue 'all };
                let own = axes - 1 - axis;
                for (a, bends) in bends.iter_mut().enumerate().take(along.len()) {
                    for (b, bend) in bends.iter_mut().enumerate() {
                        *bend *= match (a == own, b == own) {
                            (true, true) => tap.bend,
                            (false, false) => tap.weight,
                            _ => tap.slope,
                        };
                    }
                }
                place = place * spatial[axis] + index;
                weight *= tap.weight;
                for (other, slope) in slopes.iter_mut().enumerate() {
                    *slope *= if other == own { tap.slope } else { tap.weight };
                }
            }
            if !along.is_empty() {
                let with = |of: [f64; 3]| -> f64 {
                    along.iter().zip(of).map(|(&along, of)| of * along.into()).sum()
                };
                (weight, slopes) = (with(slopes), bends.map(with));
            }
            visit(place, weight, slopes);
        }
    }
}

impl<T: Number> Kernel for Sampler<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let Sizes { batch, channels, ref spatial, points } = self.sizes;
        let (axes, pixels) = (spatial.len(), spatial.iter().product::<usize>());
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let [sums] = carve::<f64, 1>(scratch, [channels]);
            let (x, grid) = (inputs.get::<T>(0), inputs.get::<T>(1));
            let dy = if self.of.part == Part::Numbers { &[][..] } else { inputs.get::<T>(2) };
            let direction = match (self.of.along, self.of.part) {
                (false, _) => &[][..],
                (true, Part::Numbers) => inputs.get::<T>(2),
                (true, _) => inputs.get::<T>(3),
            };
            let made = outputs.take::<T>();
            made.fill(T::default());
            for item in 0..batch {
                let image = item * channels * pixels;
                let numbers = item * channels * points;
                for at in 0..points {
                    let start = (item * points + at) * axes;
                    let point = &grid[start..start + axes];
                    let along =
                        if self.of.along { &direction[start..start + axes] } else { direction };
                    match self.of.part {
                        Part::Numbers => {
                            sums.fill(0.0);
                            self.visit(point, along, |place, weight, _| {
                                for (channel, sum) in sums.iter_mut().enumerate() {
                                    let x: f64 = x[image + channel * pixels + place].into();
                                    *sum += weight * x;
                                }
                            });
                            for (channel, &sum) in sums.iter().enumerate() {
                                made[numbers + channel * points + at] = T::from_f64(sum);
                            }
                        }
                        Part::OfImage => self.visit(point, along, |place, weight, _| {
                            for channel in 0..channels {
                                let dy: f64 = dy[numbers + channel * points + at].into();
                                let dx = &mut made[image + channel * pixels + place];
                                *dx = *dx + T::from_f64(weight * dy);
                            }
                        }),
                        Part::OfGrid => {
                            let mut sums = [0.0; 3];
                            self.visit(point, along, |place, _, slopes| {
                                let of = |channel: usize| -> f64 {
                                    let dy: f64 = dy[numbers + channel * points + at].into();
                                    let x: f64 = x[image + channel * pixels + place].into();
                                    dy * x
                                };
                                let total = sum_of_terms(channels, of);
                                sums.iter_mut()
                                    .zip(slopes)
                                    .for_each(|(sum, of)| *sum += total * of);
                            });
                            for (made, sum) in made[start..start + axes].iter_mut().zip(sums) {
                                *made = T::from_f64(sum);
                            }
                        }
                    }
                }
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<f64>(&[self.sizes.channels])
    }
}

impl Var {
    /// Gives the numbers of images or volumes at the coordinates of a grid, from -1 to 1 within them.
    ///
    /// # Shape
    ///
    /// `self` is `[batch, channels, height, width]` and `grid` `[batch, out_height, out_width, 2]`, with the
    /// coordinates x, then y; the result is `[batch, channels, out_height, out_width]`. With a depth before the height
    /// there are three coordinates: x, y, z.
    ///
    /// Source: `torch.nn.functional.grid_sample`.
    #[must_use]
    pub fn grid_sample(&self, grid: &Var, options: GridOptions) -> Var {
        self.trace().apply(GridSample { options, part: Part::Numbers, along: false }, &[self, grid])
    }
}
