//! Pooling: `max_pool`, `avg_pool`, `lp_pool`, adaptive pools, `fractional_max_pool` and `max_unpool`, over one
//! to three spatial axes, with or without a batch.
//!
//! Source: `torch.nn.functional.max_pool1d` to `max_pool3d` and their kin.

use super::max_pool::Window;
use super::pick::Places;
use super::resample::{Along, Taps};
use crate::ir::shape::{Shape, check_ints, signed};
use crate::ir::trace::{Function, Var};

/// How windows move: one number for each spatial axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pooling {
    /// Numbers of a window.
    pub kernel_size: Vec<usize>,
    /// From one window to the next.
    pub stride: Vec<usize>,
    /// How much is thought before and behind the input.
    pub padding: Vec<usize>,
    /// From one number of a window to the next; 1 for averages.
    pub dilation: Vec<usize>,
    /// Whether a window may begin so late that it hangs over the edge.
    pub ceil_mode: bool,
}

/// One of torch's families of pools: a function for each number of axes.
#[derive(Clone, Copy, Debug)]
enum Pool {
    Max,
    Average,
    AdaptiveAverage,
    AdaptiveMax,
    FractionalMax,
    MaxUnpool,
}

/// Gives the function that pools so many axes.
fn function(pool: Pool, axes: usize) -> Function {
    let names = match pool {
        Pool::Max => ["max_pool1d", "max_pool2d", "max_pool3d"],
        Pool::Average => ["avg_pool1d", "avg_pool2d", "avg_pool3d"],
        Pool::AdaptiveAverage => {
            ["adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"]
        }
        Pool::AdaptiveMax => ["adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"],
        Pool::FractionalMax => ["", "fractional_max_pool2d", "fractional_max_pool3d"],
        Pool::MaxUnpool => ["max_unpool1d", "max_unpool2d", "max_unpool3d"],
    };
    Function::new(names[axes.clamp(1, names.len()) - 1])
}

/// Prints sizes as torch does in a size: `1x3x3`.
fn times(sizes: impl IntoIterator<Item = usize>) -> String {
    sizes.into_iter().map(|size| size.to_string()).collect::<Vec<_>>().join("x")
}

/// Checks that there are `spatial` axes behind the channels, and channels; gives the first spatial axis.
fn first_axis(op: &str, shape: &Shape, spatial: usize) -> Result<usize, String> {
    let rank = shape.rank();
    let few = || match spatial {
        1 => format!(
            "{op}1d: Expected 2D or 3D (batch mode) tensor with optional 0 dim batch size for input, but \
             got:{shape}"
        ),
        2 => format!(
            "{op}2d: Expected 3D or 4D (batch mode) tensor with optional 0 dim batch size for input, but \
             got:{shape}"
        ),
        _ => format!(
            "{op}3d: non-empty 4D or 5D (batch mode) tensor expected for input, but got:{shape}"
        ),
    };
    if !(spatial + 1..=spatial + 2).contains(&rank) || shape[rank - spatial - 1..].contains(&0) {
        return Err(few());
    }
    Ok(rank - spatial)
}

impl Pooling {
    /// Says in torch's words what is wrong with the settings, and gives the sizes that come out.
    fn outputs(&self, op: &str, x: &Var) -> Result<Vec<usize>, String> {
        let (shape, spatial) = (x.shape(), self.kernel_size.len());
        let Pooling { kernel_size, stride, padding, dilation, ceil_mode } = self;
        if [stride.len(), padding.len(), dilation.len()] != [spatial; 3] {
            return Err(format!("{op}: expected {spatial} numbers for every setting"));
        }
        let listed = |sizes: &[usize], name: &str| {
            let axes = ["T", "H", "W"];
            let names = axes[3 - spatial.clamp(1, 3)..].iter().zip(sizes);
            names.map(|(axis, size)| format!("{name}{axis}: {size}")).collect::<Vec<_>>().join(" ")
        };
        if kernel_size.contains(&0) {
            let sizes = listed(kernel_size, "k");
            return Err(format!("kernel size should be greater than zero, but got {sizes}"));
        }
        if stride.contains(&0) {
            return Err("stride should not be zero".to_owned());
        }
        if dilation.contains(&0) {
            let sizes = listed(dilation, "dilation");
            return Err(format!("dilation should be greater than zero, but got {sizes}"));
        }
        check_ints([kernel_size, stride, padding, dilation].into_iter().flatten())?;
        let first = first_axis(op, shape, spatial)?;
        let mut sizes = Vec::with_capacity(spatial);
        for axis in 0..spatial {
            let (kernel, pad, dilation) = (kernel_size[axis], padding[axis], dilation[axis]);
            let span = dilation.saturating_mul(kernel - 1).saturating_add(1);
            if pad > span / 2 {
                return Err(format!(
                    "pad should be at most half of effective kernel size, but got pad={pad}, \
                     kernel_size={kernel} and dilation={dilation}"
                ));
            }
            let (size, step) = (shape[first + axis], stride[axis]);
            let padded = size.saturating_add(2 * pad);
            let room = padded.checked_sub(span);
            let more = if *ceil_mode { step - 1 } else { 0 };
            // The last window starts within the input or the padding before it.
            let late = |n: usize| usize::from(*ceil_mode && (n - 1) * step >= size + pad);
            let n = match room {
                Some(room) => (room + more) / step + 1,
                // Where rounding up makes a window of too little.
                None => usize::from(span - padded <= more),
            };
            sizes.push(if n > 0 { n - late(n) } else { 0 });
        }
        if sizes.contains(&0) {
            let channels = shape[first - 1];
            return Err(format!(
                "Given input size: ({channels}x{}). Calculated output size: ({channels}x{}). Output size is \
                 too small",
                times(shape[first..].iter().copied()),
                times(sizes)
            ));
        }
        x.has_room_for(first, &sizes)?;
        Ok(sizes)
    }

    /// Gives the windows of one axis.
    fn windows(&self, axis: usize, size: usize, outputs: usize) -> Vec<Window> {
        let (pad, step) = (self.padding[axis], self.dilation[axis]);
        let span = step * (self.kernel_size[axis] - 1) + 1;
        let window = |i: usize| {
            let start = i * self.stride[axis];
            // The first number of the window that is not before the input.
            let from = if start < pad { (step - (pad - start) % step) % step } else { start - pad };
            Window { start: from, end: (start + span).saturating_sub(pad).min(size), step }
        };
        (0..outputs).map(window).collect()
    }

    /// Gives the taps of averages along one axis: each window divided by how much it covers.
    fn averages(&self, axis: usize, size: usize, outputs: usize, divide: Divide) -> Taps {
        let pad = self.padding[axis];
        let windows = self.windows(axis, size, outputs).into_iter().enumerate();
        Taps::new(
            size,
            windows.map(|(i, window)| {
                let start = i * self.stride[axis];
                let padded = (start + self.kernel_size[axis]).min(size + 2 * pad) - start;
                let count = match divide {
                    Divide::Not => 1,
                    Divide::ByAll => padded,
                    Divide::ByInput => window.end.saturating_sub(window.start),
                };
                let weight = 1.0 / count.max(1) as f64;
                (window.start..window.end).map(move |from| (from, weight))
            }),
        )
    }
}

/// What averages are divided by.
#[derive(Clone, Copy)]
enum Divide {
    Not,
    ByAll,
    ByInput,
}

/// Gives the part of an axis that output `i` of an adaptive pool covers.
fn adaptive(i: usize, size: usize, outputs: usize) -> Window {
    Window { start: i * size / outputs, end: ((i + 1) * size).div_ceil(outputs), step: 1 }
}

/// Checks the input of an adaptive pool; gives the first spatial axis and the sizes that come out.
fn adaptive_sizes(
    op: &str,
    x: &Var,
    output_size: &[Option<usize>],
) -> Result<(usize, Vec<usize>), String> {
    let (shape, spatial) = (x.shape(), output_size.len());
    let rank = shape.rank();
    if !(1..=3).contains(&spatial) || !(spatial + 1..=spatial + 2).contains(&rank) {
        let (few, many) = (spatial + 1, spatial + 2);
        return Err(format!(
            "{op}{spatial}d(): Expected {few}D or {many}D tensor, but got {shape}"
        ));
    }
    let first = rank - spatial;
    if let Some(axis) = (first..rank).find(|&axis| shape[axis] == 0) {
        return Err(format!(
            "{op}{spatial}d(): Expected input to have non-zero size for non-batch dimensions, but input has \
             sizes {shape} with dimension {axis} being empty"
        ));
    }
    let sizes = output_size.iter().zip(&shape[first..]).map(|(size, &own)| size.unwrap_or(own));
    let sizes: Vec<_> = sizes.collect();
    x.has_room_for(first, &sizes)?;
    Ok((first, sizes))
}

impl Var {
    /// Gives the greatest number of each window, and its place in the channel, as i64.
    ///
    /// # Shape
    ///
    /// `self` is `[batch, channels, ..]` or `[channels, ..]` with one to three spatial axes.
    ///
    /// Source: `torch.nn.functional.max_pool1d`, `max_pool2d` and `max_pool3d`, with `return_indices=True`.
    #[must_use]
    pub fn max_pool(&self, pooling: &Pooling) -> [Var; 2] {
        self.trace().function(
            function(Pool::Max, pooling.kernel_size.len()),
            &[Some(self)],
            |cast| cast(self).plain_max_pool(pooling),
        )
    }

    fn plain_max_pool(&self, pooling: &Pooling) -> [Var; 2] {
        if self.id().is_none() {
            return [self.clone(), self.clone()];
        }
        let sizes = match pooling.outputs("max_pool", self) {
            Ok(sizes) => sizes,
            Err(message) => return [self.trace().fail(message), self.trace().poison()],
        };
        let first = self.shape().rank() - sizes.len();
        let windows = sizes.iter().enumerate();
        let windows = windows.map(|(i, &n)| pooling.windows(i, self.shape()[first + i], n));
        self.max_windows(windows.collect())
    }

    /// Gives the average of each window. Padding counts as zeros if `count_include_pad`, else not at all;
    /// `divisor_override` divides the sum instead.
    ///
    /// # Shape
    ///
    /// As [`max_pool`](Var::max_pool).
    ///
    /// Source: `torch.nn.functional.avg_pool1d`, `avg_pool2d` and `avg_pool3d`.
    #[must_use]
    pub fn avg_pool(
        &self,
        pooling: &Pooling,
        count_include_pad: bool,
        divisor_override: Option<isize>,
    ) -> Var {
        self.trace().function(
            function(Pool::Average, pooling.kernel_size.len()),
            &[Some(self)],
            |cast| cast(self).plain_avg_pool(pooling, count_include_pad, divisor_override),
        )
    }

    fn plain_avg_pool(
        &self,
        pooling: &Pooling,
        count_include_pad: bool,
        divisor_override: Option<isize>,
    ) -> Var {
        if self.id().is_none() {
            return self.clone();
        }
        if divisor_override == Some(0) {
            return self.trace().fail("divisor must be not zero");
        }
        let sizes = match pooling.outputs("avg_pool", self) {
            Ok(sizes) => sizes,
            Err(message) => return self.trace().fail(message),
        };
        let kernel = &pooling.kernel_size;
        let axes = self.shape().iter().skip(self.shape().rank() - kernel.len());
        if kernel.len() == 3 && axes.clone().zip(kernel).any(|(size, kernel)| size < kernel) {
            let sizes: Vec<_> = axes.collect();
            return self.trace().fail(format!(
                "input image (T: {} H: {} W: {}) smaller than kernel size (kT: {} kH: {} kW: {})",
                sizes[0], sizes[1], sizes[2], kernel[0], kernel[1], kernel[2]
            ));
        }
        let divide = match (divisor_override, count_include_pad) {
            (Some(_), _) => Divide::Not,
            (None, true) => Divide::ByAll,
            (None, false) => Divide::ByInput,
        };
        let first = self.shape().rank() - sizes.len();
        let along = sizes.iter().enumerate().map(|(i, &n)| {
            let taps = pooling.averages(i, self.shape()[first + i], n, divide);
            let divisor = divisor_override.filter(|_| i == 0).unwrap_or(1);
            Along::new(first + i, taps.scaled(1.0 / divisor as f64))
        });
        self.resample(along)
    }

    /// Gives the root `(Σ xᵖ)^(1/p)` of each window, for `p = norm_type`; of the absolute values the greatest
    /// for infinity, the least for minus infinity.
    ///
    /// # Shape
    ///
    /// As [`max_pool`](Var::max_pool).
    ///
    /// Source: `torch.nn.functional.lp_pool1d`, `lp_pool2d` and `lp_pool3d`: a window that hangs over the edge
    /// counts as if it were whole.
    #[must_use]
    pub fn lp_pool(&self, norm_type: f64, pooling: &Pooling) -> Var {
        if norm_type == 0.0 {
            return self
                .trace()
                .fail(format!("norm_type must be a non-zero value, but got {norm_type}"));
        }
        if norm_type.is_infinite() {
            let sign = norm_type.signum();
            let [y, _] = (self.abs() * sign).max_pool(pooling);
            return y * sign;
        }
        let mean = self.pow(norm_type).avg_pool(pooling, true, None);
        let all: f64 = pooling.kernel_size.iter().map(|&size| size as f64).product();
        (mean.sign() * mean.abs().relu() * all).pow(1.0 / norm_type)
    }

    /// Averages as many windows as `output_size` says; `None` keeps the size of that axis.
    ///
    /// # Shape
    ///
    /// As [`max_pool`](Var::max_pool); `output_size` has a number for each spatial axis.
    ///
    /// Source: `torch.nn.functional.adaptive_avg_pool1d`, `adaptive_avg_pool2d` and `adaptive_avg_pool3d`.
    #[must_use]
    pub fn adaptive_avg_pool(&self, output_size: &[Option<usize>]) -> Var {
        self.trace().function(
            function(Pool::AdaptiveAverage, output_size.len()),
            &[Some(self)],
            |cast| cast(self).plain_adaptive_avg_pool(output_size),
        )
    }

    fn plain_adaptive_avg_pool(&self, output_size: &[Option<usize>]) -> Var {
        if self.id().is_none() {
            return self.clone();
        }
        let (first, sizes) = match adaptive_sizes("adaptive_avg_pool", self, output_size) {
            Ok(sizes) => sizes,
            Err(message) => return self.trace().fail(message),
        };
        let along = sizes.iter().enumerate().map(|(i, &n)| {
            let size = self.shape()[first + i];
            let rows = (0..n).map(|at| {
                let Window { start, end, .. } = adaptive(at, size, n);
                (start..end).map(move |from| (from, 1.0 / (end - start) as f64))
            });
            Along::new(first + i, Taps::new(size, rows))
        });
        self.resample(along)
    }

    /// Gives the greatest numbers of as many windows as `output_size` says, and their places; `None` keeps the
    /// size of that axis.
    ///
    /// # Shape
    ///
    /// As [`adaptive_avg_pool`](Var::adaptive_avg_pool).
    ///
    /// Source: `torch.nn.functional.adaptive_max_pool1d` to `adaptive_max_pool3d`, with `return_indices=True`.
    #[must_use]
    pub fn adaptive_max_pool(&self, output_size: &[Option<usize>]) -> [Var; 2] {
        self.trace().function(
            function(Pool::AdaptiveMax, output_size.len()),
            &[Some(self)],
            |cast| cast(self).plain_adaptive_max_pool(output_size),
        )
    }

    fn plain_adaptive_max_pool(&self, output_size: &[Option<usize>]) -> [Var; 2] {
        if self.id().is_none() {
            return [self.clone(), self.clone()];
        }
        let (first, sizes) = match adaptive_sizes("adaptive_max_pool", self, output_size) {
            Ok(sizes) => sizes,
            Err(message) => return [self.trace().fail(message), self.trace().poison()],
        };
        let windows = sizes.iter().enumerate().map(|(i, &n)| {
            let size = self.shape()[first + i];
            (0..n).map(|at| adaptive(at, size, n)).collect()
        });
        self.max_windows(windows.collect())
    }

    /// Gives the greatest numbers of windows of size `kernel_size` at random places, and where they lie.
    /// `samples` chooses the places; without it they are drawn.
    ///
    /// # Shape
    ///
    /// `self` is `[batch, channels, ..]` or `[channels, ..]` with two or three spatial axes, `samples`
    /// `[batch, channels, axes]`; numbers in `[0, 1)`.
    ///
    /// Source: `torch.nn.functional.fractional_max_pool2d` and `fractional_max_pool3d`, with
    /// `return_indices=True`.
    #[must_use]
    pub fn fractional_max_pool(
        &self,
        kernel_size: &[usize],
        output_size: &[usize],
        samples: Option<&Var>,
    ) -> [Var; 2] {
        self.trace().function(
            function(Pool::FractionalMax, kernel_size.len()),
            &[Some(self)],
            |cast| {
                cast(self).plain_fractional_max_pool(
                    kernel_size,
                    output_size,
                    samples.map(cast).as_ref(),
                )
            },
        )
    }

    fn plain_fractional_max_pool(
        &self,
        kernel_size: &[usize],
        output_size: &[usize],
        samples: Option<&Var>,
    ) -> [Var; 2] {
        if self.id().is_none() {
            return [self.clone(), self.clone()];
        }
        let (shape, spatial) = (self.shape(), kernel_size.len());
        let fail = |message: String| [self.trace().fail(message), self.trace().poison()];
        let op = format!("fractional_max_pool{spatial}d()");
        let rank = shape.rank();
        if !(spatial + 1..=spatial + 2).contains(&rank) || output_size.len() != spatial {
            let (few, many) = (spatial + 1, spatial + 2);
            return fail(format!("{op}: Expected {few}D or {many}D tensor, but got: {shape}"));
        }
        let first = rank - spatial;
        if let Some(axis) = (first - 1..rank).find(|&axis| shape[axis] == 0) {
            return fail(format!(
                "{op}: Expected input to have non-zero size for non-batch dimensions, but got{shape} with \
                 dimension {axis} being empty."
            ));
        }
        if kernel_size.contains(&0) {
            let sizes = times(kernel_size.iter().copied());
            return fail(format!("{op}: kernel size should be greater than zero, but got {sizes}"));
        }
        for i in 0..spatial {
            let (size, kernel) = (shape[first + i], kernel_size[i]);
            if output_size[i].saturating_add(kernel) > size + 1 {
                let axis = ["time", "height", "width"][3 - spatial.min(3) + i];
                return fail(format!(
                    "{op}: pool {axis} {kernel} too large relative to input {axis} {size}"
                ));
            }
        }
        let batched = if first == 1 { self.unsqueeze_batch() } else { self.clone() };
        let drawn = batched.shape()[..2].iter().copied().chain([spatial]).collect::<Shape>();
        let samples = samples.cloned().unwrap_or_else(|| self.trace().rand(self.dtype(), drawn));
        let (kernel, sizes) = (kernel_size.to_vec(), output_size.to_vec());
        let both = batched.max_drawn_windows(kernel, sizes, &samples);
        if first == 1 { both.map(|of| of.squeeze_batch()) } else { both }
    }

    /// Puts each number back at the place where a max pool found it, zeros elsewhere.
    ///
    /// # Shape
    ///
    /// `self` and `indices`, in i64, are `[batch, channels, ..]` or `[channels, ..]`; `output_size` is the size of
    /// the spatial axes, or of all; without it, what such a pool's least input is.
    ///
    /// Source: `torch.nn.functional.max_unpool1d`, `max_unpool2d` and `max_unpool3d`. An index that names no
    /// place, for which torch raises an error, makes its channel NaN.
    #[must_use]
    pub fn max_unpool(
        &self,
        indices: &Var,
        pooling: &Pooling,
        output_size: Option<&[usize]>,
    ) -> Var {
        self.trace().function(
            function(Pool::MaxUnpool, pooling.kernel_size.len()),
            &[Some(self)],
            |cast| cast(self).plain_max_unpool(&cast(indices), pooling, output_size),
        )
    }

    fn plain_max_unpool(
        &self,
        indices: &Var,
        pooling: &Pooling,
        output_size: Option<&[usize]>,
    ) -> Var {
        if self.id().is_none() || indices.id().is_none() {
            return self.trace().poison();
        }
        let spatial = pooling.kernel_size.len();
        let (shape, rank) = (self.shape(), self.shape().rank());
        let Some(first) = rank.checked_sub(spatial).filter(|first| (1..=2).contains(first)) else {
            let (few, many, of) = (spatial + 1, spatial + 2, spatial);
            return self.trace().fail(format!(
                "Input to max_unpooling{of}d should be a {few}d or {many}d Tensor, but got a tensor with \
                 {rank} dimensions."
            ));
        };
        if [pooling.stride.len(), pooling.padding.len()] != [spatial; 2] {
            return self
                .trace()
                .fail(format!("max_unpool: expected {spatial} numbers for every setting"));
        }
        if pooling.stride.contains(&0) {
            let stride = &pooling.stride;
            return self
                .trace()
                .fail(format!("strides should be greater than zero, but got stride: {stride:?}"));
        }
        let usual: Vec<isize> = (0..spatial)
            .map(|i| {
                let [stride, kernel, pad] =
                    [pooling.stride[i], pooling.kernel_size[i], pooling.padding[i]].map(signed);
                let steps = signed(shape[first + i]) - 1;
                let ends = steps.saturating_mul(stride).saturating_add(kernel);
                ends.saturating_sub(pad.saturating_mul(2))
            })
            .collect();
        let sizes = match unpooled(&usual, pooling, output_size) {
            Ok(sizes) => sizes,
            Err(message) => return self.trace().fail(message),
        };
        self.place(indices, &sizes, Places::Assigned)
    }

    /// Puts an axis of size 1 in front.
    pub(in crate::ops) fn unsqueeze_batch(&self) -> Var {
        self.reshape([1].into_iter().chain(self.shape().iter().copied()).collect::<Shape>())
    }

    /// Drops the first axis, of size 1.
    pub(in crate::ops) fn squeeze_batch(&self) -> Var {
        match self.id() {
            Some(_) => self.reshape(self.shape().iter().skip(1).copied().collect::<Shape>()),
            None => self.clone(),
        }
    }
}

/// Gives the sizes of what is unpooled, or says in torch's words what is wrong with those asked for.
fn unpooled(
    usual: &[isize],
    pooling: &Pooling,
    output_size: Option<&[usize]>,
) -> Result<Vec<usize>, String> {
    let spatial = usual.len();
    let asked = match output_size {
        None => usual.to_vec(),
        Some(sizes) => {
            let sizes = if sizes.len() == spatial + 2 { &sizes[2..] } else { sizes };
            if sizes.len() != spatial {
                return Err(format!(
                    "output_size should be a sequence containing {spatial} or {} elements, but it has a \
                     length of '{}'",
                    spatial + 2,
                    sizes.len()
                ));
            }
            for (axis, (&size, &usual)) in sizes.iter().zip(usual).enumerate() {
                let stride = signed(pooling.stride[axis]);
                let (least, most) = (usual.saturating_sub(stride), usual.saturating_add(stride));
                if !(least < signed(size) && signed(size) < most) {
                    return Err(format!(
                        "invalid output_size \"{sizes:?}\" (dim {axis} must be between {least} and {most})"
                    ));
                }
            }
            sizes.iter().map(|&size| signed(size)).collect()
        }
    };
    let sizes = asked.iter().enumerate().map(|(axis, &size)| {
        usize::try_from(size).map_err(|_| {
            format!(
                "max_unpooling: output_size must contain non-negative spatial dimensions, but got \
                 output_size[{axis}]={size}"
            )
        })
    });
    sizes.collect()
}
