//! Recurrent layers: how they are made, and the sequences of several lengths that they take and give.

use neurarch::prelude::*;
use serde_json::Value as Json;

use crate::runner::arguments::Arguments;
use crate::runner::build::layers::{Make, made};
use crate::runner::case::{Case, Checked, Fields, Stop};

/// Makes a cell of two sizes and a bias.
macro_rules! cell {
    ($cell:ident, $args:ident $(, $field:ident: $value:expr)?) => {
        made($cell {
            input_size: $args.size("input_size")?,
            hidden_size: $args.size("hidden_size")?,
            bias: $args.flag("bias", true)?,
            $($field: $value)?
        })
    };
}

/// Makes a stack of layers.
macro_rules! stack {
    ($layer:ident, $args:ident $(, $field:ident: $value:expr)?) => {
        made($layer {
            input_size: $args.size("input_size")?,
            hidden_size: $args.size("hidden_size")?,
            num_layers: $args.axis("num_layers", Some(1))?.unsigned_abs(),
            bias: $args.flag("bias", true)?,
            batch_first: $args.flag("batch_first", false)?,
            dropout: $args.number("dropout", 0.0)?,
            bidirectional: $args.flag("bidirectional", false)?,
            $($field: $value)?
        })
    };
}

/// The layers of this file, a line each.
pub const RECURRENT: &[(&str, Make)] = &[
    ("GRU", |args| stack!(GRU, args)),
    ("GRUCell", |args| cell!(GRUCell, args)),
    ("LSTM", |args| stack!(LSTM, args, proj_size: args.axis("proj_size", Some(0))?.unsigned_abs())),
    ("LSTMCell", |args| cell!(LSTMCell, args)),
    ("RNN", |args| stack!(RNN, args, nonlinearity: nonlinearity(args)?)),
    ("RNNCell", |args| cell!(RNNCell, args, nonlinearity: nonlinearity(args)?)),
];

fn nonlinearity(args: &mut Arguments<'_>) -> Checked<Nonlinearity> {
    match args.word("nonlinearity", "tanh")?.as_str() {
        "tanh" => Ok(Nonlinearity::Tanh),
        "relu" => Ok(Nonlinearity::ReLU),
        other => Err(Stop::Needs(format!("needs nonlinearity={other}"))),
    }
}

/// Reads the lengths of sequences.
pub fn lengths(json: &Json) -> Checked<Vec<usize>> {
    let lengths = json.list("lengths")?.iter();
    let lengths = lengths.map(|length| length.as_u64().map(|length| length as usize));
    lengths.collect::<Option<_>>().ok_or_else(|| Stop::Needs(format!("needs lengths as in {json}")))
}

/// Says whether the case's module has `batch_first`.
pub fn batch_first(case: &Case<'_>) -> bool {
    case.json.get("args").is_some_and(|args| args.flag("batch_first"))
}
