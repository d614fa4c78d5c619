//! [`Unfold`] lists blocks of images as columns, [`Fold`] adds them up again.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::spatial::fold::Blocks;
use serde::{Deserialize, Serialize};

use super::per_axis::PerAxis;
use crate::module::{Call, Module};

/// Lists blocks of an image as columns.
///
/// | value | shape                                                                              |
/// |-------|------------------------------------------------------------------------------------|
/// | `x`   | `[batch, channels, height, width]`, or without the batch                           |
/// | `y`   | `[batch, channels · kernel_size[0] · kernel_size[1], blocks]`, or without the batch |
///
/// Source: `torch.nn.Unfold`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Unfold {
    /// Numbers of a block.
    pub kernel_size: PerAxis<usize, 2>,
    /// From one number of a block to the next; 1 at first.
    pub dilation: PerAxis<usize, 2>,
    /// Zeros that are thought before and behind the image; 0 at first.
    pub padding: PerAxis<usize, 2>,
    /// From one block to the next; 1 at first.
    pub stride: PerAxis<usize, 2>,
}

impl Unfold {
    /// Makes a layer with torch's defaults. The size is one number for both axes, or one for each.
    pub fn new(kernel_size: impl Into<PerAxis<usize, 2>>) -> Self {
        Unfold {
            kernel_size: kernel_size.into(),
            dilation: PerAxis::All(1),
            padding: PerAxis::All(0),
            stride: PerAxis::All(1),
        }
    }

    fn blocks(&self) -> Blocks {
        Blocks {
            kernel_size: self.kernel_size.each(),
            dilation: self.dilation.each(),
            padding: self.padding.each(),
            stride: self.stride.each(),
        }
    }
}

impl Module for Unfold {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.unfold(&self.blocks())
    }

    fn extra_repr(&self) -> String {
        format!(
            "kernel_size={}, dilation={}, padding={}, stride={}",
            self.kernel_size.sizes(),
            self.dilation.sizes(),
            self.padding.sizes(),
            self.stride.sizes()
        )
    }
}

/// Adds up blocks that are listed as columns to an image: what [`Unfold`] listed, where blocks do not overlap.
///
/// | value | shape                                                                              |
/// |-------|------------------------------------------------------------------------------------|
/// | `x`   | `[batch, channels · kernel_size[0] · kernel_size[1], blocks]`, or without the batch |
/// | `y`   | `[batch, channels, output_size[0], output_size[1]]`, or without the batch          |
///
/// Source: `torch.nn.Fold`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Fold {
    /// Height and width of the image.
    pub output_size: PerAxis<usize, 2>,
    /// Numbers of a block.
    pub kernel_size: PerAxis<usize, 2>,
    /// From one number of a block to the next; 1 at first.
    pub dilation: PerAxis<usize, 2>,
    /// Zeros that are thought before and behind the image; 0 at first.
    pub padding: PerAxis<usize, 2>,
    /// From one block to the next; 1 at first.
    pub stride: PerAxis<usize, 2>,
}

impl Fold {
    /// Makes a layer with torch's defaults. A size is one number for both axes, or one for each.
    pub fn new(
        output_size: impl Into<PerAxis<usize, 2>>,
        kernel_size: impl Into<PerAxis<usize, 2>>,
    ) -> Self {
        let Unfold { kernel_size, dilation, padding, stride } = Unfold::new(kernel_size);
        Fold { output_size: output_size.into(), kernel_size, dilation, padding, stride }
    }

    fn unfold(&self) -> Unfold {
        let Fold { kernel_size, dilation, padding, stride, .. } = *self;
        Unfold { kernel_size, dilation, padding, stride }
    }
}

impl Module for Fold {
    fn uses_training(&self) -> bool {
        false
    }

    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.fold(self.output_size.each(), &self.unfold().blocks())
    }

    fn extra_repr(&self) -> String {
        format!("output_size={}, {}", self.output_size.sizes(), self.unfold().extra_repr())
    }
}
