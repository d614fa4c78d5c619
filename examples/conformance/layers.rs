//! Layers that neurarch has: names of `torch.nn`, and how each is made from its arguments.

use neurarch::components::module::DynModule;
use neurarch::prelude::*;

use crate::arguments::Arguments;
use crate::case::{Checked, Stop};

type Make = fn(&mut Arguments<'_>) -> Checked<Box<dyn DynModule>>;

/// Every layer, a line each.
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
    ("LogSoftmax", |args| made(LogSoftmax { dim: args.axis("dim", None)? })),
    ("ReLU", |_| made(ReLU)),
    ("SiLU", |_| made(SiLU)),
    ("Sigmoid", |_| made(Sigmoid)),
    ("Softmax", |args| made(Softmax { dim: args.axis("dim", None)? })),
    ("Softplus", |args| {
        let beta = args.number("beta", 1.0)?;
        made(Softplus { beta, threshold: args.number("threshold", 20.0)? })
    }),
    ("Tanh", |_| made(Tanh)),
];

fn made(module: impl Module) -> Checked<Box<dyn DynModule>> {
    Ok(Box::new(module))
}

/// Makes a layer.
pub fn make(args: &mut Arguments<'_>) -> Checked<Box<dyn DynModule>> {
    let known = LAYERS.iter().find(|(name, _)| *name == args.class);
    let (_, make) = known.ok_or_else(|| Stop::Needs(format!("needs {}", args.class)))?;
    args.pass_over(&["inplace"]);
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
