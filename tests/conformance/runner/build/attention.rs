//! Attention and transformers, and how each is made from its arguments, which may be modules.

use neurarch::components::module::DynModule;
use neurarch::prelude::*;
use serde_json::Value;

use crate::runner::arguments::Arguments;
use crate::runner::build::model::build;
use crate::runner::case::{Case, Checked, Stop};

type Made = Checked<Box<dyn DynModule>>;
type Make = fn(&mut Arguments<'_>, &Case<'_>) -> Made;

/// Makes a layer of either kind of its arguments.
macro_rules! layer {
    ($layer:ident, $args:ident, $case:ident) => {
        $layer {
            d_model: $args.size("d_model")?,
            nhead: $args.size("nhead")?,
            dim_feedforward: $args.axis("dim_feedforward", Some(2048))?.unsigned_abs(),
            dropout: $args.number("dropout", 0.1)?,
            activation: activation($args, $case)?,
            layer_norm_eps: $args.number("layer_norm_eps", 1e-5)?,
            batch_first: $args.flag("batch_first", false)?,
            norm_first: $args.flag("norm_first", false)?,
            bias: $args.flag("bias", true)?,
        }
    };
}

/// Makes a stack of either kind of its arguments.
macro_rules! stack {
    ($stack:ident, $layer:literal, $args:ident, $case:ident) => {{
        let layer = module($args, $layer, $case)?.unwrap_or_else(|| Box::new(Identity));
        let stack = $stack::new(layer, $args.size("num_layers")?);
        match module($args, "norm", $case)? {
            Some(norm) => stack.with_norm(norm),
            None => stack,
        }
    }};
}

/// Every one, an entry each.
const LAYERS: &[(&str, Make)] = &[
    ("MultiheadAttention", |args, _| {
        made(MultiheadAttention {
            embed_dim: args.size("embed_dim")?,
            num_heads: args.size("num_heads")?,
            dropout: args.number("dropout", 0.0)?,
            bias: args.flag("bias", true)?,
            add_bias_kv: args.flag("add_bias_kv", false)?,
            add_zero_attn: args.flag("add_zero_attn", false)?,
            kdim: args.get("kdim").and_then(Value::as_u64).map(|dim| dim as usize),
            vdim: args.get("vdim").and_then(Value::as_u64).map(|dim| dim as usize),
            batch_first: args.flag("batch_first", false)?,
        })
    }),
    ("TransformerEncoderLayer", |args, case| made(layer!(TransformerEncoderLayer, args, case))),
    ("TransformerDecoderLayer", |args, case| made(layer!(TransformerDecoderLayer, args, case))),
    ("TransformerEncoder", |args, case| {
        args.pass_over(&["enable_nested_tensor", "mask_check"]);
        made(stack!(TransformerEncoder, "encoder_layer", args, case))
    }),
    ("TransformerDecoder", |args, case| {
        made(stack!(TransformerDecoder, "decoder_layer", args, case))
    }),
    ("Transformer", |args, case| {
        made(Transformer {
            d_model: args.axis("d_model", Some(512))?.unsigned_abs(),
            nhead: args.axis("nhead", Some(8))?.unsigned_abs(),
            num_encoder_layers: args.axis("num_encoder_layers", Some(6))?.unsigned_abs(),
            num_decoder_layers: args.axis("num_decoder_layers", Some(6))?.unsigned_abs(),
            dim_feedforward: args.axis("dim_feedforward", Some(2048))?.unsigned_abs(),
            dropout: args.number("dropout", 0.1)?,
            activation: activation(args, case)?,
            custom_encoder: module(args, "custom_encoder", case)?,
            custom_decoder: module(args, "custom_decoder", case)?,
            layer_norm_eps: args.number("layer_norm_eps", 1e-5)?,
            batch_first: args.flag("batch_first", false)?,
            norm_first: args.flag("norm_first", false)?,
            bias: args.flag("bias", true)?,
        })
    }),
];

/// Says whether a class is made here.
pub fn knows(class: &str) -> bool {
    LAYERS.iter().any(|(name, _)| *name == class)
}

/// Makes a layer.
pub fn make(args: &mut Arguments<'_>, case: &Case<'_>) -> Made {
    let known = LAYERS.iter().find(|(name, _)| *name == args.class);
    let (_, make) = known.ok_or_else(|| Stop::Needs(format!("needs {}", args.class)))?;
    make(args, case)
}

fn made(module: impl Module) -> Made {
    Ok(Box::new(module))
}

/// Builds the module that an argument is, if there is one.
fn module(
    args: &mut Arguments<'_>,
    name: &'static str,
    case: &Case<'_>,
) -> Checked<Option<Box<dyn DynModule>>> {
    match args.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.get("$module") {
            Some(spec) => build(spec, case).map(Some),
            None => Err(Stop::Needs(format!("needs {} with {name}={value}", args.class))),
        },
    }
}

fn activation(args: &mut Arguments<'_>, case: &Case<'_>) -> Checked<Activation> {
    match args.get("activation").and_then(Value::as_str) {
        Some("relu") => Ok(Activation::ReLU),
        Some("gelu") => Ok(Activation::GELU),
        Some(other) => Err(Stop::Needs(format!("needs the activation {other}"))),
        None => {
            let given = module(args, "activation", case)?;
            Ok(given.map_or(Activation::ReLU, Activation::module))
        }
    }
}
