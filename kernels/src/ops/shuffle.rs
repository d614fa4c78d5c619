//! Numbers moved between channels and pixels: `pixel_shuffle`, `pixel_unshuffle`, `channel_shuffle`.
//!
//! Source: the functions of these names in `torch.nn.functional`.

use crate::ir::shape::Shape;
use crate::ir::trace::Var;

impl Var {
    /// Makes `[.., C · r², H, W]` to `[.., C, H · r, W · r]`, `r` being `upscale_factor`.
    ///
    /// Source: `torch.nn.functional.pixel_shuffle`.
    #[must_use]
    pub fn pixel_shuffle(&self, upscale_factor: usize) -> Var {
        if self.id().is_none() {
            return self.clone();
        }
        let (shape, r) = (self.shape(), upscale_factor);
        let [leading @ .., c, h, w] = &**shape else {
            return self.trace().fail(format!(
                "pixel_shuffle expects input to have at least 3 dimensions, but got input with {} \
                 dimension(s)",
                shape.rank()
            ));
        };
        if r == 0 {
            return self.trace().fail("pixel_shuffle expects a positive upscale_factor, but got 0");
        }
        let square = r.saturating_mul(r);
        if !c.is_multiple_of(square) {
            return self.trace().fail(format!(
                "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of \
                 upscale_factor, but input.size(-3)={c} is not divisible by {square}"
            ));
        }
        self.regroup(
            leading,
            [c / square, r, r, *h, *w],
            [0, 3, 1, 4, 2],
            [c / square, h.saturating_mul(r), w.saturating_mul(r)],
        )
    }

    /// Makes `[.., C, H · r, W · r]` to `[.., C · r², H, W]`, `r` being `downscale_factor`.
    ///
    /// Source: `torch.nn.functional.pixel_unshuffle`.
    #[must_use]
    pub fn pixel_unshuffle(&self, downscale_factor: usize) -> Var {
        if self.id().is_none() {
            return self.clone();
        }
        let (shape, r) = (self.shape(), downscale_factor);
        let [leading @ .., c, h, w] = &**shape else {
            return self.trace().fail(format!(
                "pixel_unshuffle expects input to have at least 3 dimensions, but got input with {} \
                 dimension(s)",
                shape.rank()
            ));
        };
        if r == 0 {
            return self
                .trace()
                .fail("pixel_unshuffle expects a positive downscale_factor, but got 0");
        }
        for (name, axis, size) in [("height", -2, *h), ("width", -1, *w)] {
            if !size.is_multiple_of(r) {
                return self.trace().fail(format!(
                    "pixel_unshuffle expects {name} to be divisible by downscale_factor, but \
                     input.size({axis})={size} is not divisible by {r}"
                ));
            }
        }
        let (h, w) = (h / r, w / r);
        self.regroup(
            leading,
            [*c, h, r, w, r],
            [0, 2, 4, 1, 3],
            [c.saturating_mul(r).saturating_mul(r), h, w],
        )
    }

    /// Divides the channels, axis 1, into `groups` and takes one of each in turn.
    ///
    /// Source: `torch.nn.functional.channel_shuffle`.
    #[must_use]
    pub fn channel_shuffle(&self, groups: usize) -> Var {
        if self.id().is_none() {
            return self.clone();
        }
        let shape = self.shape();
        let [batch, channels, rest @ ..] = &**shape else {
            return self.few_axes();
        };
        if rest.is_empty() {
            return self.few_axes();
        }
        if groups == 0 {
            return self.trace().fail(
                "Number of groups to divide channels in must be positive. Value of groups:0",
            );
        }
        if !channels.is_multiple_of(groups) {
            return self.trace().fail(format!(
                "Number of channels must be divisible by groups. Got {channels} channels and {groups} \
                 groups."
            ));
        }
        let numel = rest.iter().product();
        let divided = self.reshape([*batch, groups, channels / groups, numel]);
        divided.transpose(1, 2).reshape(shape.clone())
    }

    fn few_axes(&self) -> Var {
        self.trace().fail(format!(
            "channel_shuffle expects input with > 2 dims, but got input with sizes {}",
            self.shape()
        ))
    }

    /// Divides the last three axes into five, reorders those and joins them again.
    fn regroup(
        &self,
        leading: &[usize],
        divided: [usize; 5],
        order: [isize; 5],
        joined: [usize; 3],
    ) -> Var {
        let n = leading.iter().product();
        let five: Shape = [n].into_iter().chain(divided).collect();
        let order: Vec<_> = [0].into_iter().chain(order.map(|axis| axis + 1)).collect();
        let shape: Shape = leading.iter().copied().chain(joined).collect();
        self.reshape(five).permute(&order).reshape(shape)
    }
}
