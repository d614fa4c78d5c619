//! Other sizes for signals, images and volumes: `interpolate`, in every mode.
//!
//! Source: `torch.nn.functional.interpolate`, without `antialias`.

use super::resample::{Along, Taps};
use crate::ir::dtype::Dtype;
use crate::ir::shape::Shape;
use crate::ir::trace::{Function, Var};

/// How numbers between those of the input are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InterpolateMode {
    /// The one before: `'nearest'`.
    #[default]
    Nearest,
    /// The nearest one: `'nearest-exact'`.
    NearestExact,
    /// On the line between two, in one axis: `'linear'`.
    Linear,
    /// The same in two axes: `'bilinear'`.
    Bilinear,
    /// By cubic polynomials through four, in two axes: `'bicubic'`.
    Bicubic,
    /// As linear, in three axes: `'trilinear'`.
    Trilinear,
    /// Averages of what a number covers: `'area'`.
    Area,
}

impl InterpolateMode {
    /// Gives torch's name.
    pub fn name(self) -> &'static str {
        match self {
            InterpolateMode::Nearest => "nearest",
            InterpolateMode::NearestExact => "nearest-exact",
            InterpolateMode::Linear => "linear",
            InterpolateMode::Bilinear => "bilinear",
            InterpolateMode::Bicubic => "bicubic",
            InterpolateMode::Trilinear => "trilinear",
            InterpolateMode::Area => "area",
        }
    }

    /// Gives the function that resizes so many axes.
    fn function(self, axes: usize) -> Function {
        Function::new(match (self, axes) {
            (InterpolateMode::Nearest, 1) => "upsample_nearest1d",
            (InterpolateMode::Nearest, 2) => "upsample_nearest2d",
            (InterpolateMode::Nearest, _) => "upsample_nearest3d",
            (InterpolateMode::NearestExact, 1) => "_upsample_nearest_exact1d",
            (InterpolateMode::NearestExact, 2) => "_upsample_nearest_exact2d",
            (InterpolateMode::NearestExact, _) => "_upsample_nearest_exact3d",
            (InterpolateMode::Linear, _) => "upsample_linear1d",
            (InterpolateMode::Bilinear, _) => "upsample_bilinear2d",
            (InterpolateMode::Bicubic, _) => "upsample_bicubic2d",
            (InterpolateMode::Trilinear, _) => "upsample_trilinear3d",
            (InterpolateMode::Area, 1) => "adaptive_avg_pool1d",
            (InterpolateMode::Area, 2) => "adaptive_avg_pool2d",
            (InterpolateMode::Area, _) => "adaptive_avg_pool3d",
        })
    }

    /// Gives how many axes the mode is for, if it is not for any number.
    fn axes(self) -> Option<usize> {
        match self {
            InterpolateMode::Linear => Some(1),
            InterpolateMode::Bilinear | InterpolateMode::Bicubic => Some(2),
            InterpolateMode::Trilinear => Some(3),
            _ => None,
        }
    }
}

/// What is asked for: sizes or factors, one of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interpolation {
    /// The sizes of the spatial axes: one for all, or one for each.
    pub size: Option<Vec<usize>>,
    /// By what the sizes are multiplied: one for all, or one for each.
    pub scale_factor: Option<Vec<f64>>,
    /// How numbers are found.
    pub mode: InterpolateMode,
    /// Whether the first and last numbers of input and result lie on each other; `None` stands for not.
    pub align_corners: Option<bool>,
    /// Whether the factors are found anew from the sizes; `None` stands for not.
    pub recompute_scale_factor: Option<bool>,
}

/// The map of one axis.
#[derive(Clone, Copy)]
struct Axis {
    inputs: usize,
    outputs: usize,
    align_corners: bool,
    /// The factor that the user gave, if it counts.
    factor: Option<f64>,
}

impl Interpolation {
    /// Says in torch's words what does not fit, or gives the sizes of the result and the factors that count.
    fn sizes(&self, shape: &Shape) -> Result<(Vec<usize>, Option<Vec<f64>>), String> {
        let (rank, mode) = (shape.rank(), self.mode.name());
        if self.align_corners.is_some() && self.mode.axes().is_none() {
            return Err(
                "align_corners option can only be set with the interpolating modes: linear | \
                        bilinear | bicubic | trilinear"
                    .to_owned(),
            );
        }
        let spatial: Vec<usize> = shape.iter().skip(2).copied().collect();
        let axes = spatial.len();
        let recompute = self.recompute_scale_factor == Some(true);
        let (sizes, factors) = match (&self.size, &self.scale_factor) {
            (Some(_), Some(_)) => {
                return Err("only one of size or scale_factor should be defined".to_owned());
            }
            (None, None) => {
                return Err("either size or scale_factor should be defined".to_owned());
            }
            (Some(_), None) if recompute => {
                return Err(
                    "recompute_scale_factor is not meaningful with an explicit size.".to_owned()
                );
            }
            (Some(size), None) => {
                let sizes = each(size, axes).ok_or_else(|| {
                    format!(
                        "Input and output must have the same number of spatial dimensions, but got input \
                         with spatial dimensions of {spatial:?} and output size of {size:?}. Please provide \
                         input tensor in (N, C, d1, d2, ...,dK) format and output size in (o1, o2, ...,oK) \
                         format."
                    )
                })?;
                (sizes, None)
            }
            (None, Some(factors)) => {
                let factors = each(factors, axes).ok_or_else(|| {
                    format!(
                        "Input and scale_factor must have the same number of spatial dimensions, but got \
                         input with spatial dimensions of {spatial:?} and scale_factor of shape \
                         {factors:?}. Please provide input tensor in (N, C, d1, d2, ...,dK) format and \
                         scale_factor in (s1, s2, ...,sK) format."
                    )
                })?;
                let grown = spatial.iter().zip(&factors);
                // Too small and negative numbers become 0.
                let sizes = grown.map(|(&size, factor)| (size as f64 * factor) as usize).collect();
                (sizes, (!recompute).then_some(factors))
            }
        };
        let wrong = || {
            Err(format!(
                "Input Error: Only 3D, 4D and 5D input Tensors supported (got {rank}D) for the modes: \
                 nearest | linear | bilinear | bicubic | trilinear | lanczos | area | nearest-exact (got \
                 {mode})"
            ))
        };
        match self.mode.axes() {
            _ if !(3..=5).contains(&rank) => return wrong(),
            Some(needed) if needed != axes && self.mode == InterpolateMode::Bicubic => {
                return wrong();
            }
            Some(needed) if needed != axes => {
                return Err(format!(
                    "Got {rank}D input, but {mode} mode needs {}D input",
                    needed + 2
                ));
            }
            _ => {}
        }
        if shape[1] == 0 {
            return Err(format!(
                "Non-empty {rank}D data tensor expected but got a tensor with sizes {shape}"
            ));
        }
        if spatial.contains(&0) || sizes.contains(&0) {
            let listed = |sizes: &[usize]| {
                let names = ["D", "H", "W"];
                let names = names[3 - axes..].iter().zip(sizes);
                names.map(|(name, size)| format!("{name}: {size}")).collect::<Vec<_>>().join(", ")
            };
            return Err(format!(
                "Input and output sizes should be greater than 0, but got input ({}) and output ({})",
                listed(&spatial),
                listed(&sizes)
            ));
        }
        Ok((sizes, factors))
    }
}

/// Gives a number for each axis; `None` if there are not as many.
fn each<T: Copy>(numbers: &[T], axes: usize) -> Option<Vec<T>> {
    match *numbers {
        [one] => Some(vec![one; axes]),
        _ => (numbers.len() == axes).then(|| numbers.to_vec()),
    }
}

impl Axis {
    /// Gives how far apart results lie in the input.
    fn step(self) -> f64 {
        let Axis { inputs, outputs, align_corners, factor } = self;
        match factor.filter(|&factor| factor > 0.0) {
            _ if align_corners && outputs > 1 => (inputs - 1) as f64 / (outputs - 1) as f64,
            _ if align_corners => 0.0,
            Some(factor) => 1.0 / factor,
            None => inputs as f64 / outputs as f64,
        }
    }

    /// Gives where result `i` lies in the input.
    fn place(self, i: usize) -> f64 {
        match self.align_corners {
            true => self.step() * i as f64,
            false => self.step() * (i as f64 + 0.5) - 0.5,
        }
    }

    /// Gives the taps of the nearest numbers.
    ///
    /// torch has two rules. One is for small images and for all gradients, in single precision, with a short
    /// cut where the size stays or doubles; the other for everything else, in the precision of the numbers.
    fn nearest(self, axis: usize, exact: bool, dtype: Dtype, is_small_image: bool) -> Along {
        let Axis { inputs, outputs, .. } = self;
        let short = |i: usize| match exact {
            false if outputs == inputs => i,
            false if outputs == 2 * inputs => i / 2,
            false => (self.step() as f32 * i as f32) as usize,
            true => (self.step() as f32 * (i as f32 + 0.5)) as usize,
        };
        let general = |i: usize| {
            let at = match (dtype, exact) {
                (Dtype::F64, false) => self.step() * i as f64,
                (Dtype::F64, true) => (self.step() * (i as f64 + 0.5) - 0.5).max(0.0) + 0.5,
                (_, false) => f64::from(self.step() as f32 * i as f32),
                (_, true) => {
                    let at = self.step() as f32 * (i as f32 + 0.5) - 0.5;
                    f64::from(at.max(0.0)) + 0.5
                }
            };
            at as f32 as usize
        };
        let copies = |source: &dyn Fn(usize) -> usize| {
            Taps::copies(inputs, (0..outputs).map(|i| Some(source(i).min(inputs - 1))))
        };
        let taps = if is_small_image { copies(&short) } else { copies(&general) };
        Along { axis, taps, adjoint: copies(&short).transposed() }
    }

    fn linear(self, axis: usize) -> Along {
        let Axis { inputs, outputs, .. } = self;
        let row = |i: usize| {
            if inputs == outputs {
                return vec![(i, 1.0)];
            }
            let at = self.place(i).max(0.0);
            let low = (at as usize).min(inputs - 1);
            let part = (at - low as f64).clamp(0.0, 1.0);
            vec![(low, 1.0 - part), ((low + 1).min(inputs - 1), part)]
        };
        Along::new(axis, Taps::new(inputs, (0..outputs).map(row)))
    }

    /// Where no axis changes its size, torch's gradient is a copy, whatever the factors.
    fn cubic(self, axis: usize, is_copied_back: bool) -> Along {
        let Axis { inputs, outputs, .. } = self;
        let row = |i: usize| {
            let at = self.place(i);
            let low = at.floor();
            let t = (at - low).clamp(0.0, 1.0);
            let weights =
                [cubic_far(t + 1.0), cubic_near(t), cubic_near(1.0 - t), cubic_far(2.0 - t)];
            let clamped =
                move |k: usize| (low as isize - 1 + k as isize).clamp(0, inputs as isize - 1);
            weights.into_iter().enumerate().map(move |(k, weight)| (clamped(k) as usize, weight))
        };
        let of = Along::new(axis, Taps::new(inputs, (0..outputs).map(row)));
        match is_copied_back {
            true => Along { adjoint: Taps::copies(inputs, (0..inputs).map(Some)), ..of },
            false => of,
        }
    }
}

/// Height and width of an image that torch takes for small, together at most.
const SMALL_IMAGE: usize = 128;

/// How far the cubic polynomials bend, as in torch.
const BEND: f64 = -0.75;

/// The weight of a number less than 1 away.
fn cubic_near(x: f64) -> f64 {
    ((BEND + 2.0) * x - (BEND + 3.0)) * x * x + 1.0
}

/// The weight of a number between 1 and 2 away.
fn cubic_far(x: f64) -> f64 {
    ((BEND * x - 5.0 * BEND) * x + 8.0 * BEND) * x - 4.0 * BEND
}

impl Var {
    /// Gives the value another size along its spatial axes.
    ///
    /// # Shape
    ///
    /// `self` is `[batch, channels, ..]` with one to three spatial axes; the result has the sizes asked for, or the
    /// old ones times the factors, rounded down.
    ///
    /// Source: `torch.nn.functional.interpolate`.
    #[must_use]
    pub fn interpolate(&self, how: &Interpolation) -> Var {
        self.trace().function(
            how.mode.function(self.shape().rank().saturating_sub(2)),
            &[Some(self)],
            |cast| cast(self).plain_interpolate(how),
        )
    }

    fn plain_interpolate(&self, how: &Interpolation) -> Var {
        if self.id().is_none() {
            return self.clone();
        }
        let (sizes, factors) = match how.sizes(self.shape()) {
            Ok(sizes) => sizes,
            Err(message) => return self.trace().fail(message),
        };
        if how.mode == InterpolateMode::Area {
            return self.adaptive_avg_pool(&sizes.into_iter().map(Some).collect::<Vec<_>>());
        }
        if let Err(message) = self.has_room_for(2, &sizes) {
            return self.trace().fail(message);
        }
        let align_corners = how.align_corners.unwrap_or(false);
        let is_small_image = sizes.len() == 2 && sizes.iter().sum::<usize>() <= SMALL_IMAGE;
        let stays = sizes == self.shape()[2..];
        let along = sizes.iter().enumerate().map(|(i, &outputs)| {
            let (axis, inputs) = (i + 2, self.shape()[i + 2]);
            let factor = factors.as_ref().map(|factors| factors[i]);
            let of = Axis { inputs, outputs, align_corners, factor };
            match how.mode {
                InterpolateMode::Nearest => of.nearest(axis, false, self.dtype(), is_small_image),
                InterpolateMode::NearestExact => {
                    of.nearest(axis, true, self.dtype(), is_small_image)
                }
                InterpolateMode::Bicubic => of.cubic(axis, stays),
                _ => of.linear(axis),
            }
        });
        self.resample(along)
    }
}
