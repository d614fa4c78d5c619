//! Layers that neurarch has: names of `torch.nn`, and how each is made from its arguments.

use neurarch::components::layers::{Padding, PaddingMode};
use neurarch::components::module::DynModule;
use neurarch::kernels::ops::spatial::pad::PadMode;
use neurarch::prelude::*;

use crate::runner::arguments::Arguments;
use crate::runner::build::losses::LOSSES;
use crate::runner::build::recurrent::RECURRENT;
use crate::runner::build::spatial::SPATIAL;
use crate::runner::case::{Checked, Stop};

pub type Make = fn(&mut Arguments<'_>) -> Checked<Box<dyn DynModule>>;

/// Makes a convolution of its arguments.
macro_rules! conv {
    ($layer:ident, $args:ident, $in_channels:expr) => {
        kernel!($layer, $args, $in_channels, padding: padding($args)?, padding_mode: padding_mode($args)?)
    };
}

/// Makes a transposed convolution of its arguments.
macro_rules! conv_transpose {
    ($layer:ident, $args:ident, $in_channels:expr) => {
        kernel!(
            $layer, $args, $in_channels,
            padding: padded_by_zeros($args)?,
            output_padding: sizes($args, "output_padding", Some(0))?
        )
    };
}

/// Reads the arguments that all convolutions have, and those of one kind.
macro_rules! kernel {
    ($layer:ident, $args:ident, $in_channels:expr, $($field:ident: $value:expr),+) => {
        $layer {
            in_channels: $in_channels,
            out_channels: $args.size("out_channels")?,
            kernel_size: sizes($args, "kernel_size", None)?,
            stride: sizes($args, "stride", Some(1))?,
            dilation: sizes($args, "dilation", Some(1))?,
            groups: $args.axis("groups", Some(1))?.unsigned_abs(),
            bias: $args.flag("bias", true)?,
            $($field: $value),+
        }
    };
}

/// Makes a batch or instance norm of what all of them have.
macro_rules! norm {
    ($layer:ident, $of:expr) => {{
        let of = $of;
        $layer {
            num_features: of.num_features,
            eps: of.eps,
            momentum: of.momentum,
            affine: of.affine,
            bias: of.bias,
            track_running_stats: of.track_running_stats,
        }
    }};
}

/// The layers of this file, a line each; those of [`spatial`](crate::runner::build::spatial) come after them.
const LAYERS: &[(&str, Make)] = &[
    ("Dropout", |args| made(Dropout { p: args.number("p", 0.5)? })),
    ("ELU", |args| made(ELU { alpha: args.number("alpha", 1.0)? })),
    ("Flatten", |args| {
        let start_dim = args.axis("start_dim", Some(1))?;
        made(Flatten { start_dim, end_dim: args.axis("end_dim", Some(-1))? })
    }),
    ("GELU", |args| made(GELU { approximate: approximate(args)? })),
    ("Identity", |_| made(Identity)),
    ("LazyLinear", |args| {
        let (in_features, out_features) = (None, args.size("out_features")?);
        made(LazyLinear { in_features, out_features, bias: args.flag("bias", true)? })
    }),
    ("LeakyReLU", |args| made(LeakyReLU { negative_slope: args.number("negative_slope", 0.01)? })),
    ("Linear", |args| {
        let (in_features, out_features) = (args.size("in_features")?, args.size("out_features")?);
        made(Linear { in_features, out_features, bias: args.flag("bias", true)? })
    }),
    ("LogSoftmax", |args| made(LogSoftmax { dim: dim(args)? })),
    ("ReLU", |_| made(ReLU)),
    ("SiLU", |_| made(SiLU)),
    ("Sigmoid", |_| made(Sigmoid)),
    ("Softmax", |args| made(Softmax { dim: dim(args)? })),
    ("Softplus", |args| {
        let beta = args.number("beta", 1.0)?;
        made(Softplus { beta, threshold: args.number("threshold", 20.0)? })
    }),
    ("Tanh", |_| made(Tanh)),
    ("BatchNorm1d", |args| made(norm!(BatchNorm1d, norm(args, true, false)?))),
    ("LazyBatchNorm1d", |args| {
        made(LazyBatchNorm1d { becomes: norm!(BatchNorm1d, norm(args, true, true)?) })
    }),
    ("InstanceNorm1d", |args| made(norm!(InstanceNorm1d, norm(args, false, false)?))),
    ("LazyInstanceNorm1d", |args| {
        made(LazyInstanceNorm1d { becomes: norm!(InstanceNorm1d, norm(args, true, true)?) })
    }),
    ("Conv1d", |args| made(conv!(Conv1d, args, args.size("in_channels")?))),
    ("LazyConv1d", |args| made(LazyConv1d { becomes: conv!(Conv1d, args, 0) })),
    ("ConvTranspose1d", |args| {
        made(conv_transpose!(ConvTranspose1d, args, args.size("in_channels")?))
    }),
    ("LazyConvTranspose1d", |args| {
        made(LazyConvTranspose1d { becomes: conv_transpose!(ConvTranspose1d, args, 0) })
    }),
    ("BatchNorm2d", |args| made(norm!(BatchNorm2d, norm(args, true, false)?))),
    ("LazyBatchNorm2d", |args| {
        made(LazyBatchNorm2d { becomes: norm!(BatchNorm2d, norm(args, true, true)?) })
    }),
    ("InstanceNorm2d", |args| made(norm!(InstanceNorm2d, norm(args, false, false)?))),
    ("LazyInstanceNorm2d", |args| {
        made(LazyInstanceNorm2d { becomes: norm!(InstanceNorm2d, norm(args, true, true)?) })
    }),
    ("Conv2d", |args| made(conv!(Conv2d, args, args.size("in_channels")?))),
    ("LazyConv2d", |args| made(LazyConv2d { becomes: conv!(Conv2d, args, 0) })),
    ("ConvTranspose2d", |args| {
        made(conv_transpose!(ConvTranspose2d, args, args.size("in_channels")?))
    }),
    ("LazyConvTranspose2d", |args| {
        made(LazyConvTranspose2d { becomes: conv_transpose!(ConvTranspose2d, args, 0) })
    }),
    ("BatchNorm3d", |args| made(norm!(BatchNorm3d, norm(args, true, false)?))),
    ("LazyBatchNorm3d", |args| {
        made(LazyBatchNorm3d { becomes: norm!(BatchNorm3d, norm(args, true, true)?) })
    }),
    ("InstanceNorm3d", |args| made(norm!(InstanceNorm3d, norm(args, false, false)?))),
    ("LazyInstanceNorm3d", |args| {
        made(LazyInstanceNorm3d { becomes: norm!(InstanceNorm3d, norm(args, true, true)?) })
    }),
    ("Conv3d", |args| made(conv!(Conv3d, args, args.size("in_channels")?))),
    ("LazyConv3d", |args| made(LazyConv3d { becomes: conv!(Conv3d, args, 0) })),
    ("ConvTranspose3d", |args| {
        made(conv_transpose!(ConvTranspose3d, args, args.size("in_channels")?))
    }),
    ("LazyConvTranspose3d", |args| {
        made(LazyConvTranspose3d { becomes: conv_transpose!(ConvTranspose3d, args, 0) })
    }),
    ("ReLU6", |_| made(ReLU6)),
    ("Hardswish", |_| made(Hardswish)),
    ("Hardsigmoid", |_| made(Hardsigmoid)),
    ("LogSigmoid", |_| made(LogSigmoid)),
    ("SELU", |_| made(SELU)),
    ("Mish", |_| made(Mish)),
    ("Softsign", |_| made(Softsign)),
    ("Tanhshrink", |_| made(Tanhshrink)),
    ("Softmax2d", |_| made(Softmax2d)),
    ("CELU", |args| made(CELU { alpha: args.number("alpha", 1.0)? })),
    ("Softshrink", |args| made(Softshrink { lambd: args.number("lambd", 0.5)? })),
    ("Hardshrink", |args| made(Hardshrink { lambd: args.number("lambd", 0.5)? })),
    ("Hardtanh", |args| {
        let min_val = args.number("min_val", -1.0)?;
        made(Hardtanh { min_val, max_val: args.number("max_val", 1.0)? })
    }),
    ("Threshold", |args| {
        let threshold = args.number("threshold", 0.0)?;
        made(Threshold { threshold, value: args.number("value", 0.0)? })
    }),
    ("PReLU", |args| {
        let num_parameters = args.axis("num_parameters", Some(1))?.unsigned_abs();
        made(PReLU { num_parameters, init: args.number("init", 0.25)? })
    }),
    ("GLU", |args| made(GLU { dim: args.axis("dim", Some(-1))? })),
    ("Softmin", |args| made(Softmin { dim: dim(args)? })),
    ("Unflatten", |args| {
        let dim = args.axis("dim", None)?;
        let sizes = args.get("unflattened_size").and_then(|value| value.as_array());
        let sizes = sizes.into_iter().flatten().filter_map(|size| size.as_i64());
        made(Unflatten::new(dim, sizes.map(|size| size as isize).collect::<Vec<_>>()))
    }),
    ("LayerNorm", |args| {
        let normalized_shape = listed(args, "normalized_shape")?;
        let (eps, elementwise_affine) =
            (args.number("eps", 1e-5)?, args.flag("elementwise_affine", true)?);
        made(LayerNorm {
            normalized_shape,
            eps,
            elementwise_affine,
            bias: args.flag("bias", true)?,
        })
    }),
    ("RMSNorm", |args| {
        let normalized_shape = listed(args, "normalized_shape")?;
        let eps = args.get("eps").and_then(|value| value.as_f64());
        let elementwise_affine = args.flag("elementwise_affine", true)?;
        made(RMSNorm { normalized_shape, eps, elementwise_affine })
    }),
    ("GroupNorm", |args| {
        made(GroupNorm {
            num_groups: args.size("num_groups")?,
            num_channels: args.size("num_channels")?,
            eps: args.number("eps", 1e-5)?,
            affine: args.flag("affine", true)?,
            bias: args.flag("bias", true)?,
        })
    }),
];

/// Wraps a layer.
pub fn made(module: impl Module) -> Checked<Box<dyn DynModule>> {
    Ok(Box::new(module))
}

/// Makes a layer.
pub fn make(args: &mut Arguments<'_>) -> Checked<Box<dyn DynModule>> {
    let mut known = LAYERS.iter().chain(SPATIAL).chain(RECURRENT).chain(LOSSES);
    let known = known.find(|(name, _)| *name == args.class);
    let (_, make) = known.ok_or_else(|| Stop::Needs(format!("needs {}", args.class)))?;
    args.pass_over(&["inplace", "sparse"]);
    let layer = make(args)?;
    args.end()?;
    Ok(layer)
}

fn approximate(args: &mut Arguments<'_>) -> Checked<Approximate> {
    match args.word("approximate", "none")?.as_str() {
        "none" => Ok(Approximate::None),
        "tanh" => Ok(Approximate::Tanh),
        other => Err(Stop::Needs(format!("needs GELU with approximate={other}"))),
    }
}

/// Reads one size, or a list of them.
pub fn listed(args: &mut Arguments<'_>, name: &'static str) -> Checked<Vec<usize>> {
    let value = args.get(name).cloned().unwrap_or_default();
    let sizes = match value.as_array() {
        Some(sizes) => sizes.iter().map(|size| size.as_u64()).collect::<Option<Vec<_>>>(),
        None => value.as_u64().map(|size| vec![size]),
    };
    let sizes = sizes.ok_or_else(|| Stop::Needs(format!("needs {name}={value}")))?;
    Ok(sizes.into_iter().map(|size| size as usize).collect())
}

/// Reads a size for each axis, or one for all of them.
fn sizes<const N: usize>(
    args: &mut Arguments<'_>,
    name: &'static str,
    default: Option<usize>,
) -> Checked<[usize; N]> {
    if let (None, Some(default)) = (args.get(name), default) {
        return Ok([default; N]);
    }
    match *listed(args, name)? {
        [size] => Ok([size; N]),
        ref sizes => sizes
            .try_into()
            .map_err(|_| Stop::Needs(format!("needs {name} of {} sizes", sizes.len()))),
    }
}

fn padding<const N: usize>(args: &mut Arguments<'_>) -> Checked<Padding<N>> {
    match args.get("padding").and_then(|value| value.as_str()) {
        Some("same") => Ok(Padding::Same),
        Some("valid") => Ok(Padding::Valid),
        _ => Ok(Padding::Explicit(sizes(args, "padding", Some(0))?)),
    }
}

/// Reads the padding of a transposed convolution, for which torch has no other mode.
fn padded_by_zeros<const N: usize>(args: &mut Arguments<'_>) -> Checked<[usize; N]> {
    match padding_mode(args)? {
        PaddingMode::Zeros => sizes(args, "padding", Some(0)),
        other => Err(Stop::Needs(format!("needs {} with padding_mode={other:?}", args.class))),
    }
}

/// Reads the axis of a softmax; torch's implicit one is deprecated and not offered.
fn dim(args: &mut Arguments<'_>) -> Checked<isize> {
    match args.given("dim") {
        Some(_) => args.axis("dim", None),
        None => Err(Stop::Needs(format!("needs {} without dim", args.class))),
    }
}

fn padding_mode(args: &mut Arguments<'_>) -> Checked<PaddingMode> {
    match args.word("padding_mode", "zeros")?.as_str() {
        "zeros" => Ok(PaddingMode::Zeros),
        "reflect" => Ok(PaddingMode::Own(PadMode::Reflect)),
        "replicate" => Ok(PaddingMode::Own(PadMode::Replicate)),
        "circular" => Ok(PaddingMode::Own(PadMode::Circular)),
        other => Err(Stop::Needs(format!("needs padding_mode={other}"))),
    }
}

/// Reads the arguments of a batch or instance norm.
fn norm(args: &mut Arguments<'_>, batch: bool, lazy: bool) -> Checked<BatchNorm1d> {
    Ok(BatchNorm1d {
        num_features: if lazy { 0 } else { args.size("num_features")? },
        eps: args.number("eps", 1e-5)?,
        momentum: match args.get("momentum") {
            Some(value) => value.as_f64(),
            None => Some(0.1),
        },
        affine: args.flag("affine", batch)?,
        bias: args.flag("bias", true)?,
        track_running_stats: args.flag("track_running_stats", batch)?,
    })
}
