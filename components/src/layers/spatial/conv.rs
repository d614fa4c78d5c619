//! Convolutions: [`Conv1d`], [`Conv2d`], [`Conv3d`]; and what transposed ones share with them.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::shape::{Shape, signed};
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::spatial::convolution::Convolution;
use neurarch_kernels::ops::spatial::pad::PadMode;
use serde::{Deserialize, Serialize};

use crate::module::repr::tuple;
use crate::module::{Call, Declare, Init, Module};

/// One number for each spatial axis, or one for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sizes<const N: usize>(pub [usize; N]);

impl<const N: usize> From<usize> for Sizes<N> {
    fn from(size: usize) -> Self {
        Sizes([size; N])
    }
}

impl<const N: usize> From<[usize; N]> for Sizes<N> {
    fn from(sizes: [usize; N]) -> Self {
        Sizes(sizes)
    }
}

/// How much is put before and behind the input of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Padding<const N: usize> {
    /// So much on both sides of each axis.
    Explicit(#[serde(with = "crate::wire")] [usize; N]),
    /// Nothing: `'valid'`.
    Valid,
    /// So much that the output has the size of the input: `'same'`.
    Same,
}

impl<const N: usize> From<usize> for Padding<N> {
    fn from(size: usize) -> Self {
        Padding::Explicit([size; N])
    }
}

impl<const N: usize> From<[usize; N]> for Padding<N> {
    fn from(sizes: [usize; N]) -> Self {
        Padding::Explicit(sizes)
    }
}

/// What a convolution's input is padded with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PaddingMode {
    /// Zeros.
    #[default]
    Zeros,
    /// The input's own numbers.
    Own(#[serde(with = "crate::wire")] PadMode),
}

impl PaddingMode {
    /// Returns torch's name.
    pub fn name(self) -> &'static str {
        match self {
            PaddingMode::Zeros => "zeros",
            PaddingMode::Own(mode) => mode.name(),
        }
    }
}

/// The settings that all convolutions have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings<const N: usize> {
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    pub(super) kernel_size: [usize; N],
    pub(super) stride: [usize; N],
    pub(super) padding: Padding<N>,
    pub(super) output_padding: [usize; N],
    pub(super) dilation: [usize; N],
    pub(super) groups: usize,
    pub(super) bias: bool,
    pub(super) padding_mode: PaddingMode,
    pub(super) transposed: bool,
}

impl<const N: usize> Settings<N> {
    /// Returns the sizes of the weight.
    pub(super) fn weight(&self) -> Vec<usize> {
        let groups = self.groups.max(1);
        let (first, second) = match self.transposed {
            true => (self.in_channels, self.out_channels / groups),
            false => (self.out_channels, self.in_channels / groups),
        };
        [first, second].into_iter().chain(self.kernel_size).collect()
    }

    pub(super) fn declare(&self, declare: &mut Declare) {
        declare.kaiming_parameter("weight", self.weight());
        declare.optional_parameter("bias", self.bias.then_some([self.out_channels]));
    }

    pub(super) fn reset(&self) -> Init {
        let fan_in = self.weight()[1..].iter().product::<usize>();
        if fan_in == 0 {
            return Init::Zeros;
        }
        let high = 1.0 / (fan_in as f64).sqrt();
        Init::Uniform { low: -high, high }
    }

    /// Says in torch's words what is wrong with the settings.
    fn check(&self) -> Result<(), &'static str> {
        match self.groups {
            0 => Err("groups must be a positive integer"),
            groups if !self.in_channels.is_multiple_of(groups) => {
                Err("in_channels must be divisible by groups")
            }
            groups if !self.out_channels.is_multiple_of(groups) => {
                Err("out_channels must be divisible by groups")
            }
            _ if self.padding == Padding::Same && self.stride != [1; N] => {
                Err("padding='same' is not supported for strided convolutions")
            }
            _ if self.stride.contains(&0) => Err("non-positive stride is not supported"),
            _ if self.dilation.contains(&0) => Err("dilation should be greater than zero"),
            _ => Ok(()),
        }
    }

    /// Returns the padding before and behind each axis.
    fn paddings(&self) -> Vec<(usize, usize)> {
        (0..N)
            .map(|axis| match self.padding {
                Padding::Explicit(sizes) => (sizes[axis], sizes[axis]),
                Padding::Valid => (0, 0),
                Padding::Same => {
                    let beyond = self.kernel_size[axis].saturating_sub(1);
                    let all = self.dilation[axis].saturating_mul(beyond);
                    (all / 2, all - all / 2)
                }
            })
            .collect()
    }

    /// `output_size` is what a transposed convolution was asked for.
    pub(super) fn forward(&self, call: &Call<'_>, x: &Var, output_size: Option<&[usize]>) -> Var {
        if let Err(wrong) = self.check() {
            return call.trace.fail(wrong);
        }
        if let Some(sizes) = output_size.filter(|_| x.id().is_some()) {
            return match self.output_padding(x.shape(), sizes) {
                Ok(output_padding) => Settings { output_padding, ..*self }.forward(call, x, None),
                Err(message) => call.trace.fail(message),
            };
        }
        if x.shape().rank() == N + 1 {
            let batched = [1].into_iter().chain(x.shape().iter().copied()).collect::<Shape>();
            let y = self.batched(call, &x.reshape(batched));
            let item = y.shape().iter().skip(1).copied().collect::<Shape>();
            return if y.id().is_some() { y.reshape(item) } else { y };
        }
        self.batched(call, x)
    }

    /// Returns what has to be added behind for the sizes asked for, those of the spatial axes or of all.
    ///
    /// Source: `_output_padding` of `torch.nn.modules.conv._ConvTransposeNd`.
    fn output_padding(&self, shape: &Shape, sizes: &[usize]) -> Result<[usize; N], String> {
        let rank = shape.rank();
        let first = if rank == N + 2 { 2 } else { 1 };
        let asked = if sizes.len() == first + N { &sizes[first..] } else { sizes };
        if asked.len() != N || rank < first + N {
            return Err(format!(
                "ConvTranspose{N}D: for {rank}D input, output_size must have {N} or {} elements (got {})",
                first + N,
                sizes.len()
            ));
        }
        let Settings { kernel_size, stride, dilation, .. } = self;
        let least: Vec<isize> = (0..N)
            .map(|i| {
                let (padding, _) = self.paddings()[i];
                let grown = (signed(shape[first + i]) - 1).saturating_mul(signed(stride[i]));
                let span = signed(dilation[i]).saturating_mul(signed(kernel_size[i]) - 1);
                grown
                    .saturating_sub(signed(padding).saturating_mul(2))
                    .saturating_add(span)
                    .saturating_add(1)
            })
            .collect();
        let most: Vec<_> = (0..N).map(|i| least[i].saturating_add(signed(stride[i]) - 1)).collect();
        let mut padding = [0; N];
        for i in 0..N {
            if !(least[i]..=most[i]).contains(&signed(asked[i])) {
                let spatial = &shape[first..];
                return Err(format!(
                    "requested an output size of {asked:?}, but valid sizes range from {least:?} to \
                     {most:?} (for an input of torch.Size({spatial:?}))"
                ));
            }
            padding[i] = (signed(asked[i]) - least[i]).unsigned_abs();
        }
        Ok(padding)
    }

    fn batched(&self, call: &Call<'_>, x: &Var) -> Var {
        let weight = call.parameter("weight");
        let bias = call.optional_parameter("bias");
        let mut settings = Convolution {
            stride: self.stride.to_vec(),
            padding: self.paddings(),
            dilation: self.dilation.to_vec(),
            groups: self.groups,
        };
        if self.transposed {
            return x.conv_transpose(&weight, bias.as_ref(), &settings, &self.output_padding);
        }
        match self.padding_mode {
            PaddingMode::Own(mode) if x.shape().rank() == N + 2 => {
                let padding = core::mem::replace(&mut settings.padding, vec![(0, 0); N]);
                let padding: Vec<_> =
                    padding.iter().map(|&(low, high)| (low as isize, high as isize)).collect();
                x.pad(&padding, mode).convolution(&weight, bias.as_ref(), &settings)
            }
            _ => x.convolution(&weight, bias.as_ref(), &settings),
        }
    }

    pub(super) fn extra_repr(&self) -> String {
        let Settings { in_channels, out_channels, groups, .. } = self;
        let (kernel, stride) = (tuple(&self.kernel_size), tuple(&self.stride));
        let mut text =
            format!("{in_channels}, {out_channels}, kernel_size={kernel}, stride={stride}");
        match self.padding {
            Padding::Explicit(sizes) if sizes == [0; N] => {}
            Padding::Explicit(sizes) => text += &format!(", padding={}", tuple(&sizes)),
            Padding::Valid => text += ", padding=valid",
            Padding::Same => text += ", padding=same",
        }
        if self.dilation != [1; N] {
            text += &format!(", dilation={}", tuple(&self.dilation));
        }
        if self.output_padding != [0; N] {
            text += &format!(", output_padding={}", tuple(&self.output_padding));
        }
        if *groups != 1 {
            text += &format!(", groups={groups}");
        }
        if !self.bias {
            text += ", bias=False";
        }
        if self.padding_mode != PaddingMode::Zeros {
            text += &format!(", padding_mode={}", self.padding_mode.name());
        }
        text
    }
}

/// The parts of a layer's declaration that all convolutions share.
macro_rules! module {
    ($layer:ident, $($forward:item)+) => {
        impl Module for $layer {
            fn uses_training(&self) -> bool {
                false
            }

            fn declare(&self, declare: &mut Declare) {
                self.settings().declare(declare);
            }

            fn reset(&self, _: &str) -> Init {
                self.settings().reset()
            }

            $($forward)+

            fn extra_repr(&self) -> String {
                self.settings().extra_repr()
            }
        }
    };
}

pub(super) use module;

macro_rules! conv {
    ($layer:ident, $n:literal, $axes:literal, $kernel:literal) => {
        /// Convolves: each output channel is the sum of the input channels of its group, each weighted with a
        /// kernel that moves along the spatial axes.
        ///
        /// | value    | shape                                  | at first                          |
        /// |----------|----------------------------------------|-----------------------------------|
        #[doc = concat!("| `x` | `[batch, in_channels, ", $axes, "]`, or without the batch | |")]
        #[doc = concat!("| `y` | `[batch, out_channels, ", $axes, "]`, or without the batch | |")]
        #[doc = concat!("| `weight` | `[out_channels, in_channels / groups, ", $kernel, "]` | `U(-k, k)`, `k = 1/√(numbers of an output channel's kernel)` |")]
        /// | `bias`   | `[out_channels]`                       | as `weight`; absent if `!bias`    |
        ///
        /// Settings that do not fit each other, which torch refuses when a layer is made, are an error of the
        /// first call.
        #[doc = ""]
        #[doc = concat!("Source: `torch.nn.", stringify!($layer), "`.")]
        #[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $layer {
            /// Channels of `x`.
            pub in_channels: usize,
            /// Channels of `y`.
            pub out_channels: usize,
            /// Size of the kernel.
            pub kernel_size: [usize; $n],
            /// How far the kernel moves from one output to the next; 1 at first.
            pub stride: [usize; $n],
            /// What is added to the input before and behind; 0 at first.
            pub padding: Padding<$n>,
            /// How far apart the kernel's elements are; 1 at first.
            pub dilation: [usize; $n],
            /// Into how many groups the channels are divided; 1 at first.
            pub groups: usize,
            /// Whether there is a `bias`.
            pub bias: bool,
            /// What the input is padded with; zeros at first.
            pub padding_mode: PaddingMode,
        }

        impl $layer {
            /// Makes a layer with torch's defaults. The size of the kernel is one number for all axes, or one
            /// for each.
            pub fn new(
                in_channels: usize,
                out_channels: usize,
                kernel_size: impl Into<Sizes<$n>>,
            ) -> Self {
                $layer {
                    in_channels,
                    out_channels,
                    kernel_size: kernel_size.into().0,
                    stride: [1; $n],
                    padding: Padding::Explicit([0; $n]),
                    dilation: [1; $n],
                    groups: 1,
                    bias: true,
                    padding_mode: PaddingMode::Zeros,
                }
            }

            /// Moves the kernel so far from one output to the next.
            #[must_use]
            pub fn with_stride(self, stride: impl Into<Sizes<$n>>) -> Self {
                $layer { stride: stride.into().0, ..self }
            }

            /// Pads the input.
            #[must_use]
            pub fn with_padding(self, padding: impl Into<Padding<$n>>) -> Self {
                $layer { padding: padding.into(), ..self }
            }

            /// Leaves the bias out: torch's `bias=False`.
            #[must_use]
            pub fn without_bias(self) -> Self {
                $layer { bias: false, ..self }
            }

            pub(super) fn settings(&self) -> Settings<$n> {
                Settings {
                    in_channels: self.in_channels,
                    out_channels: self.out_channels,
                    kernel_size: self.kernel_size,
                    stride: self.stride,
                    padding: self.padding,
                    output_padding: [0; $n],
                    dilation: self.dilation,
                    groups: self.groups,
                    bias: self.bias,
                    padding_mode: self.padding_mode,
                    transposed: false,
                }
            }
        }

        module! {
            $layer,
            fn forward(&self, call: &Call<'_>, x: Var) -> Var {
                self.settings().forward(call, &x, None)
            }
        }
    };
}

conv!(Conv1d, 1, "length", "kernel_size");
conv!(Conv2d, 2, "height, width", "kernel_size[0], kernel_size[1]");
conv!(Conv3d, 3, "depth, height, width", "kernel_size[0], kernel_size[1], kernel_size[2]");
