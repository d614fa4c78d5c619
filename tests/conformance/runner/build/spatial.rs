//! Layers over images and the like that neurarch has: pools, padding, upsampling, folding, dropout of channels.

use neurarch::prelude::*;
use serde_json::Value;

use crate::runner::arguments::{Arguments, number};
use crate::runner::build::layers::{Make, made};
use crate::runner::case::{Checked, Stop};

/// Reads one value for all axes, or one for each.
fn per_axis<T: Copy, const N: usize>(
    value: &Value,
    read: impl Fn(&Value) -> Option<T>,
) -> Checked<PerAxis<T, N>> {
    let wrong = || Stop::Needs(format!("needs {N} numbers, not {value}"));
    match value.as_array() {
        None => read(value).map(PerAxis::All).ok_or_else(wrong),
        Some(items) => {
            let items: Option<Vec<T>> = items.iter().map(read).collect();
            let items = items.and_then(|items| <[T; N]>::try_from(items).ok());
            items.map(PerAxis::Each).ok_or_else(wrong)
        }
    }
}

fn size(value: &Value) -> Option<usize> {
    value.as_u64().map(|size| size as usize)
}

/// Reads a size that has to be there.
fn sizes<const N: usize>(
    args: &mut Arguments<'_>,
    name: &'static str,
) -> Checked<PerAxis<usize, N>> {
    let value = args.get(name).cloned().unwrap_or_default();
    per_axis(&value, size)
}

/// Reads a size, or gives its default if it is absent or `None`.
fn sizes_or<const N: usize>(
    args: &mut Arguments<'_>,
    name: &'static str,
    default: PerAxis<usize, N>,
) -> Checked<PerAxis<usize, N>> {
    args.given(name).map_or(Ok(default), |value| per_axis(value, size))
}

/// Reads the sizes of an adaptive pool.
fn adaptive<const N: usize>(args: &mut Arguments<'_>) -> Checked<PerAxis<Option<usize>, N>> {
    let value = args.get("output_size").cloned().unwrap_or_default();
    per_axis(&value, |value| if value.is_null() { Some(None) } else { size(value).map(Some) })
}

/// Reads how much is padded on each side.
fn sides<const M: usize>(args: &mut Arguments<'_>) -> Checked<Sides<M>> {
    let value = args.get("padding").cloned().unwrap_or_default();
    let read = |value: &Value| value.as_i64().map(|size| size as isize);
    Ok(Sides(per_axis::<_, M>(&value, read)?.each()))
}

/// Reads one value for all axes, or one for each, however many there are.
fn for_axes<T>(
    args: &mut Arguments<'_>,
    name: &'static str,
    read: impl Fn(&Value) -> Option<T>,
) -> Checked<Option<ForAxes<T>>> {
    let Some(value) = args.given(name) else { return Ok(None) };
    let read = match value.as_array() {
        None => read(value).map(ForAxes::All),
        Some(items) => items.iter().map(read).collect::<Option<_>>().map(ForAxes::Each),
    };
    read.map(Some).ok_or_else(|| Stop::Needs(format!("needs {name}={value}")))
}

macro_rules! max_pool {
    ($layer:ident) => {
        (stringify!($layer), |args| {
            let kernel_size = sizes(args, "kernel_size")?;
            made($layer {
                kernel_size,
                stride: sizes_or(args, "stride", kernel_size)?,
                padding: sizes_or(args, "padding", PerAxis::All(0))?,
                dilation: sizes_or(args, "dilation", PerAxis::All(1))?,
                return_indices: args.flag("return_indices", false)?,
                ceil_mode: args.flag("ceil_mode", false)?,
            })
        })
    };
}

macro_rules! avg_pool {
    ($layer:ident $(, $divisor:ident)?) => {
        (stringify!($layer), |args| {
            let kernel_size = sizes(args, "kernel_size")?;
            made($layer {
                kernel_size,
                stride: sizes_or(args, "stride", kernel_size)?,
                padding: sizes_or(args, "padding", PerAxis::All(0))?,
                ceil_mode: args.flag("ceil_mode", false)?,
                count_include_pad: args.flag("count_include_pad", true)?,
                $($divisor: args
                    .given(stringify!($divisor))
                    .and_then(Value::as_i64)
                    .map(|divisor| divisor as isize),)?
            })
        })
    };
}

macro_rules! lp_pool {
    ($layer:ident) => {
        (stringify!($layer), |args| {
            let stride = args.given("stride").map(|value| per_axis(value, size)).transpose()?;
            made($layer {
                norm_type: args.number("norm_type", 2.0)?,
                kernel_size: sizes(args, "kernel_size")?,
                stride,
                ceil_mode: args.flag("ceil_mode", false)?,
            })
        })
    };
}

macro_rules! max_unpool {
    ($layer:ident) => {
        (stringify!($layer), |args| {
            let kernel_size = sizes(args, "kernel_size")?;
            made($layer {
                kernel_size,
                stride: sizes_or(args, "stride", kernel_size)?,
                padding: sizes_or(args, "padding", PerAxis::All(0))?,
            })
        })
    };
}

macro_rules! adaptive_avg_pool {
    ($layer:ident) => {
        (stringify!($layer), |args| made($layer { output_size: adaptive(args)? }))
    };
}

macro_rules! adaptive_max_pool {
    ($layer:ident) => {
        (stringify!($layer), |args| {
            let output_size = adaptive(args)?;
            made($layer { output_size, return_indices: args.flag("return_indices", false)? })
        })
    };
}

macro_rules! pad {
    ($layer:ident $(, $value:ident)?) => {
        (stringify!($layer), |args| {
            let padding = sides(args)?;
            made($layer { padding $(, $value: args.number(stringify!($value), 0.0)?)? })
        })
    };
}

macro_rules! dropout {
    ($layer:ident) => {
        (stringify!($layer), |args| made($layer { p: args.number("p", 0.5)? }))
    };
}

macro_rules! response_norm {
    ($layer:ident) => {
        (stringify!($layer), |args| {
            made($layer {
                size: args.size("size")?,
                alpha: args.number("alpha", 1e-4)?,
                beta: args.number("beta", 0.75)?,
                k: args.number("k", 1.0)?,
            })
        })
    };
}

macro_rules! fractional_max_pool {
    ($layer:ident) => {
        (stringify!($layer), |args| {
            let output_size = match (args.given("output_size"), args.given("output_ratio")) {
                (Some(sizes), _) => OutputSize::Size(per_axis(sizes, size)?),
                (None, ratio) => {
                    OutputSize::Ratio(per_axis(ratio.unwrap_or(&Value::Null), number)?)
                }
            };
            made($layer {
                kernel_size: sizes(args, "kernel_size")?,
                output_size,
                return_indices: args.flag("return_indices", false)?,
            })
        })
    };
}

macro_rules! upsampling {
    ($layer:ident) => {
        (stringify!($layer), |args| {
            let size = args.given("size").map(|value| per_axis(value, size)).transpose()?;
            let factor = args.given("scale_factor");
            let scale_factor = factor.map(|value| per_axis(value, number)).transpose()?;
            made($layer { size, scale_factor })
        })
    };
}

/// Every layer, a line each.
pub const SPATIAL: &[(&str, Make)] = &[
    max_pool!(MaxPool1d),
    max_pool!(MaxPool2d),
    max_pool!(MaxPool3d),
    max_unpool!(MaxUnpool1d),
    max_unpool!(MaxUnpool2d),
    max_unpool!(MaxUnpool3d),
    avg_pool!(AvgPool1d),
    avg_pool!(AvgPool2d, divisor_override),
    avg_pool!(AvgPool3d, divisor_override),
    lp_pool!(LPPool1d),
    lp_pool!(LPPool2d),
    lp_pool!(LPPool3d),
    adaptive_avg_pool!(AdaptiveAvgPool1d),
    adaptive_avg_pool!(AdaptiveAvgPool2d),
    adaptive_avg_pool!(AdaptiveAvgPool3d),
    adaptive_max_pool!(AdaptiveMaxPool1d),
    adaptive_max_pool!(AdaptiveMaxPool2d),
    adaptive_max_pool!(AdaptiveMaxPool3d),
    fractional_max_pool!(FractionalMaxPool2d),
    fractional_max_pool!(FractionalMaxPool3d),
    pad!(ConstantPad1d, value),
    pad!(ConstantPad2d, value),
    pad!(ConstantPad3d, value),
    pad!(ZeroPad1d),
    pad!(ZeroPad2d),
    pad!(ZeroPad3d),
    pad!(ReflectionPad1d),
    pad!(ReflectionPad2d),
    pad!(ReflectionPad3d),
    pad!(ReplicationPad1d),
    pad!(ReplicationPad2d),
    pad!(ReplicationPad3d),
    pad!(CircularPad1d),
    pad!(CircularPad2d),
    pad!(CircularPad3d),
    dropout!(Dropout1d),
    dropout!(Dropout2d),
    dropout!(Dropout3d),
    dropout!(AlphaDropout),
    dropout!(FeatureAlphaDropout),
    response_norm!(LocalResponseNorm),
    response_norm!(CrossMapLRN2d),
    upsampling!(UpsamplingNearest2d),
    upsampling!(UpsamplingBilinear2d),
    ("RReLU", |args| {
        let lower = args.number("lower", 1.0 / 8.0)?;
        made(RReLU { lower, upper: args.number("upper", 1.0 / 3.0)? })
    }),
    ("PixelShuffle", |args| made(PixelShuffle::new(args.size("upscale_factor")?))),
    ("PixelUnshuffle", |args| made(PixelUnshuffle::new(args.size("downscale_factor")?))),
    ("ChannelShuffle", |args| made(ChannelShuffle::new(args.size("groups")?))),
    ("Unfold", |args| {
        made(Unfold {
            kernel_size: sizes(args, "kernel_size")?,
            dilation: sizes_or(args, "dilation", PerAxis::All(1))?,
            padding: sizes_or(args, "padding", PerAxis::All(0))?,
            stride: sizes_or(args, "stride", PerAxis::All(1))?,
        })
    }),
    ("Fold", |args| {
        made(Fold {
            output_size: sizes(args, "output_size")?,
            kernel_size: sizes(args, "kernel_size")?,
            dilation: sizes_or(args, "dilation", PerAxis::All(1))?,
            padding: sizes_or(args, "padding", PerAxis::All(0))?,
            stride: sizes_or(args, "stride", PerAxis::All(1))?,
        })
    }),
    ("Upsample", |args| {
        let flag = |value: Option<&Value>| value.and_then(Value::as_bool);
        made(Upsample {
            size: for_axes(args, "size", size)?,
            scale_factor: for_axes(args, "scale_factor", number)?,
            mode: mode(args)?,
            align_corners: flag(args.given("align_corners")),
            recompute_scale_factor: flag(args.given("recompute_scale_factor")),
        })
    }),
];

fn mode(args: &mut Arguments<'_>) -> Checked<InterpolateMode> {
    use InterpolateMode::*;
    let name = args.word("mode", "nearest")?;
    let all = [Nearest, NearestExact, Linear, Bilinear, Bicubic, Trilinear, Area];
    let known = all.into_iter().find(|mode| mode.name() == name);
    known.ok_or_else(|| Stop::Needs(format!("needs Upsample with mode={name}")))
}
