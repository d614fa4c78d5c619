//! Numbers divided by how large their neighbors in other channels are: `local_response_norm`,
//! `cross_map_lrn`.
//!
//! Source: `torch.nn.functional.local_response_norm`, and the function of `torch.nn.CrossMapLRN2d`.

use crate::ir::trace::Var;
use crate::ops::spatial::resample::{Along, Taps};

/// The numbers of a local response norm, each of shape `[]`.
#[derive(Clone, Debug)]
pub struct ResponseNorm {
    /// How much the neighbors count.
    pub alpha: Var,
    /// The exponent.
    pub beta: Var,
    /// What is added.
    pub k: Var,
}

impl ResponseNorm {
    /// Returns `(k + alpha · x)^beta` for positive numbers.
    fn power(&self, x: &Var, beta: &Var) -> Var {
        ((x * &self.alpha + &self.k).log() * beta).exp()
    }
}

impl Var {
    /// Returns `x / (k + alpha · mean(x²))^beta`, the mean being over `size` channels around each, with zeros for
    /// those that are not there.
    ///
    /// # Shape
    ///
    /// `self` is `[batch, channels, ..]`, of at least three axes.
    ///
    /// Source: `torch.nn.functional.local_response_norm`.
    #[must_use]
    pub fn local_response_norm(&self, size: usize, norm: &ResponseNorm) -> Var {
        if self.id().is_none() {
            return self.clone();
        }
        let rank = self.shape().rank();
        if rank < 3 {
            return self.trace().fail(format!(
                "Expected 3D or higher dimensionality                          input (got {rank} dimensions)"
            ));
        }
        if size == 0 {
            return self
                .trace()
                .fail("kernel size should be greater than zero, but got kH: 0 kW: 1");
        }
        let channels = self.shape()[1];
        let rows = (0..channels).map(|channel| {
            let window = channel.saturating_sub(size / 2)
                ..channels.min(channel.saturating_add(size.div_ceil(2)));
            window.map(|from| (from, 1.0 / size as f64))
        });
        let mean = self.square().resample([Along::new(1, Taps::new(channels, rows))]);
        self / norm.power(&mean, &norm.beta)
    }

    /// Returns `x · (k + alpha / size · Σ x²)^-beta`, the sum being over channels around each.
    ///
    /// # Shape
    ///
    /// `self` is `[batch, channels, height, width]`.
    ///
    /// Source: `torch.nn.CrossMapLRN2d`, to the letter: the first channel stays in every sum, and the
    /// gradient's sums are over other channels than those of the value, so that it is not quite the slope.
    #[must_use]
    pub fn cross_map_lrn(&self, size: usize, norm: &ResponseNorm) -> Var {
        if self.id().is_none() {
            return self.clone();
        }
        let rank = self.shape().rank();
        if rank != 4 {
            return self
                .trace()
                .fail(format!("CrossMapLRN2d: Expected input to be 4D, got {rank}D instead."));
        }
        let (channels, size) = (self.shape()[1], size.max(1));
        // How many channels a sum begins with: its own and those behind it.
        let ahead = size.div_ceil(2);
        let weight = 1.0 / size as f64;
        let rows = (0..channels).map(|channel| {
            let last = channels.min(channel.saturating_add(ahead));
            let first = (channel + 1).saturating_sub(ahead).max(1).min(last);
            // Channel 0 is added to the first sum and never taken away.
            [0].into_iter().chain(first..last).map(move |from| (from, weight))
        });
        let gradient_rows = (0..channels).map(|channel| {
            let first = channel.saturating_sub(ahead);
            let last = channels.min(channel.saturating_add(size).saturating_sub(ahead));
            (first..last).map(move |from| (from, weight))
        });
        let along = Along {
            axis: 1,
            taps: Taps::new(channels, rows),
            adjoint: Taps::new(channels, gradient_rows),
        };
        let sum = self.square().resample([along]);
        self * norm.power(&sum, &-&norm.beta)
    }
}
