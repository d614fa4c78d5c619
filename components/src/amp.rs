//! [`GradScaler`]: what keeps the gradients of halves from vanishing, for each model its own.

use bevy_ecs::prelude::*;
use serde::{Deserialize, Serialize};

/// Scales the loss of its model, so that gradients in f16 do not become 0, and the gradients back before the step;
/// a step with gradients that are not finite is not made. A component of a model's root.
///
/// The first five fields are torch's arguments, the others what it keeps; nothing of them is ever reset but by
/// [`GradScaler::default`].
///
/// # Example
///
/// ```
/// # use neurarch_components::amp::GradScaler;
/// let mut scaler = GradScaler { growth_interval: 2, ..GradScaler::default() };
/// scaler.start();
/// scaler.advance(true);
/// assert_eq!(scaler.get_scale(), 32768.0);
/// scaler.advance(false);
/// scaler.advance(false);
/// assert_eq!(scaler.get_scale(), 65536.0);
/// ```
///
/// Source: `torch.amp.GradScaler`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GradScaler {
    /// The scale at first.
    pub init_scale: f64,
    /// By what the scale is multiplied after [`growth_interval`](GradScaler::growth_interval) steps in a row.
    pub growth_factor: f64,
    /// By what it is multiplied when a gradient was not finite.
    pub backoff_factor: f64,
    /// How many steps in a row are made before the scale grows.
    pub growth_interval: u32,
    /// Whether anything is scaled at all.
    pub enabled: bool,
    /// The scale, from the first use on.
    pub scale: Option<f32>,
    /// How many steps were made in a row since the scale changed.
    pub growth_tracker: u32,
    /// How far the step has come.
    pub stage: ScalerStage,
    /// Whether a gradient was found that is not finite, once they were looked at.
    pub found_inf: Option<bool>,
}

/// How far a step with a [`GradScaler`] has come.
///
/// Source: `torch.amp.grad_scaler.OptState`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScalerStage {
    /// Gradients are scaled.
    #[default]
    Ready,
    /// They are scaled back.
    Unscaled,
    /// The step is made, or passed over.
    Stepped,
}

impl Default for GradScaler {
    fn default() -> Self {
        GradScaler {
            init_scale: 65536.0,
            growth_factor: 2.0,
            backoff_factor: 0.5,
            growth_interval: 2000,
            enabled: true,
            scale: None,
            growth_tracker: 0,
            stage: ScalerStage::Ready,
            found_inf: None,
        }
    }
}

impl GradScaler {
    /// Returns the scale: 1 if nothing is scaled.
    ///
    /// Source: `torch.amp.GradScaler.get_scale`.
    pub fn get_scale(&self) -> f64 {
        match (self.enabled, self.scale) {
            (false, _) => 1.0,
            (true, Some(scale)) => scale.into(),
            (true, None) => self.init_scale,
        }
    }

    /// Returns the scale in single precision, from now on kept.
    pub fn start(&mut self) -> f32 {
        *self.scale.get_or_insert(self.init_scale as f32)
    }

    /// Moves the scale on after a step: back if a gradient was not finite, forward after enough steps in a row,
    /// unless it would be infinite. In single precision.
    ///
    /// Source: `torch._amp_update_scale_`.
    pub fn advance(&mut self, found_inf: bool) {
        let scale = self.start();
        if found_inf {
            self.scale = Some((f64::from(scale) * self.backoff_factor) as f32);
            self.growth_tracker = 0;
            return;
        }
        self.growth_tracker += 1;
        if self.growth_tracker == self.growth_interval {
            let grown = (f64::from(scale) * self.growth_factor) as f32;
            self.scale = Some(if grown.is_finite() { grown } else { scale });
            self.growth_tracker = 0;
        }
    }
}

/// What of a [`GradScaler`] is worth keeping.
///
/// Source: what `torch.amp.GradScaler.state_dict` gives, under its names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScalerState {
    /// The scale.
    pub scale: f64,
    /// [`GradScaler::growth_factor`].
    pub growth_factor: f64,
    /// [`GradScaler::backoff_factor`].
    pub backoff_factor: f64,
    /// [`GradScaler::growth_interval`].
    pub growth_interval: u32,
    /// [`GradScaler::growth_tracker`]: torch's `_growth_tracker`.
    pub growth_tracker: u32,
}
