//! [`Upsample`], [`UpsamplingNearest2d`], [`UpsamplingBilinear2d`]: other sizes for signals, images and volumes.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
pub use neurarch_kernels::ops::spatial::interpolate::InterpolateMode;
use neurarch_kernels::ops::spatial::interpolate::Interpolation;
use serde::{Deserialize, Serialize};

use super::per_axis::PerAxis;
use crate::module::repr::{float, tuple};
use crate::module::{Call, Module};

/// One number for all axes, however many there are, or one for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ForAxes<T> {
    /// One for all.
    All(T),
    /// One for each, in the order of the axes.
    Each(Vec<T>),
}

impl<T: Copy> ForAxes<T> {
    fn list(&self) -> Vec<T> {
        match self {
            ForAxes::All(number) => vec![*number],
            ForAxes::Each(numbers) => numbers.clone(),
        }
    }

    fn repr(&self, print: impl Fn(&T) -> String) -> String {
        match self {
            ForAxes::All(number) => print(number),
            ForAxes::Each(numbers) => tuple(&numbers.iter().map(print).collect::<Vec<_>>()),
        }
    }
}

impl<T> From<T> for ForAxes<T> {
    fn from(number: T) -> Self {
        ForAxes::All(number)
    }
}

impl<T, const N: usize> From<[T; N]> for ForAxes<T> {
    fn from(numbers: [T; N]) -> Self {
        ForAxes::Each(numbers.into())
    }
}

impl<T: Copy, const N: usize> From<PerAxis<T, N>> for ForAxes<T> {
    fn from(numbers: PerAxis<T, N>) -> Self {
        match numbers {
            PerAxis::All(number) => ForAxes::All(number),
            PerAxis::Each(numbers) => numbers.into(),
        }
    }
}

/// Gives its input another size along the spatial axes: `size`, or the old one times `scale_factor`.
///
/// | value | shape                                                        |
/// |-------|--------------------------------------------------------------|
/// | `x`   | `[batch, channels, ..]` with one to three spatial axes       |
/// | `y`   | `[batch, channels, ..]`, sizes rounded down                  |
///
/// Source: `torch.nn.Upsample`.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// # use neurarch_components::module::repr::repr;
/// let twice = Upsample { mode: InterpolateMode::Bilinear, ..Upsample::scale_factor(2.0) };
/// assert_eq!(repr(&twice), "Upsample(scale_factor=2.0, mode='bilinear')");
/// ```
#[derive(Component, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Upsample {
    /// The sizes of the spatial axes.
    pub size: Option<ForAxes<usize>>,
    /// By what they are multiplied; either this or `size`.
    pub scale_factor: Option<ForAxes<f64>>,
    /// How numbers between those of the input are found.
    #[serde(with = "crate::wire")]
    pub mode: InterpolateMode,
    /// Whether the first and last numbers of input and result lie on each other; `None` stands for not.
    pub align_corners: Option<bool>,
    /// Whether the factors are found anew from the sizes; `None` stands for not.
    pub recompute_scale_factor: Option<bool>,
}

impl Upsample {
    /// Makes a layer whose results have this size.
    pub fn size(size: impl Into<ForAxes<usize>>) -> Self {
        Upsample { size: Some(size.into()), ..Upsample::default() }
    }

    /// Makes a layer that multiplies sizes.
    pub fn scale_factor(factor: impl Into<ForAxes<f64>>) -> Self {
        Upsample { scale_factor: Some(factor.into()), ..Upsample::default() }
    }
}

impl Module for Upsample {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.interpolate(&Interpolation {
            size: self.size.as_ref().map(ForAxes::list),
            scale_factor: self.scale_factor.as_ref().map(ForAxes::list),
            mode: self.mode,
            align_corners: self.align_corners,
            recompute_scale_factor: self.recompute_scale_factor,
        })
    }

    fn extra_repr(&self) -> String {
        let how = match (&self.scale_factor, &self.size) {
            (Some(factor), _) => format!("scale_factor={}", factor.repr(|&factor| float(factor))),
            (None, Some(size)) => format!("size={}", size.repr(usize::to_string)),
            (None, None) => "size=None".to_owned(),
        };
        format!("{how}, mode='{}'", self.mode.name())
    }
}

macro_rules! upsampling {
    ($layer:ident, $what:literal, $mode:ident, $align_corners:expr) => {
        #[doc = concat!("Gives images another size; numbers between are ", $what, ".")]
        ///
        /// `x` is `[batch, channels, height, width]`, and so is the result.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer {
            /// Height and width.
            pub size: Option<PerAxis<usize, 2>>,
            /// By what they are multiplied; either this or `size`.
            pub scale_factor: Option<PerAxis<f64, 2>>,
        }

        impl $layer {
            /// Makes a layer whose results have this size.
            pub fn size(size: impl Into<PerAxis<usize, 2>>) -> Self {
                $layer { size: Some(size.into()), scale_factor: None }
            }

            /// Makes a layer that multiplies sizes.
            pub fn scale_factor(factor: impl Into<PerAxis<f64, 2>>) -> Self {
                $layer { size: None, scale_factor: Some(factor.into()) }
            }

            fn upsample(&self) -> Upsample {
                Upsample {
                    size: self.size.map(Into::into),
                    scale_factor: self.scale_factor.map(Into::into),
                    mode: InterpolateMode::$mode,
                    align_corners: $align_corners,
                    recompute_scale_factor: None,
                }
            }
        }

        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn forward(&self, call: &Call<'_>, x: Var) -> Var {
                self.upsample().forward(call, x)
            }

            fn extra_repr(&self) -> String {
                self.upsample().extra_repr()
            }
        }
    };
}

upsampling!(UpsamplingNearest2d, "the nearest before", Nearest, None);
upsampling!(
    UpsamplingBilinear2d,
    "on the lines between four, corners on corners",
    Bilinear,
    Some(true)
);
