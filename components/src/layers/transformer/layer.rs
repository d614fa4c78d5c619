//! [`TransformerEncoderLayer`] and [`TransformerDecoderLayer`]: attention and two linear layers, each with a
//! shortcut and a norm.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::ops::activation::gelu::Approximate;
use serde::{Deserialize, Serialize};

use crate::containers::IntoModule;
use crate::layers::attention::canonical_mask;
use crate::layers::{Dropout, LayerNorm, Linear, MultiheadAttention};
use crate::module::signature::Refused;
use crate::module::{Call, Declare, DynModule, Module, NoModule};
use crate::{Scalars, scalars};

/// What stands between the two linear layers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Activation {
    /// `torch.nn.functional.relu`: `"relu"`.
    #[default]
    ReLU,
    /// `torch.nn.functional.gelu`: `"gelu"`.
    GELU,
    /// A module, which becomes the child `activation`.
    Module(#[serde(skip, default = "Activation::stand_in")] Box<dyn DynModule>),
}

impl Activation {
    /// Takes a module: torch's `activation=nn.SiLU()`.
    pub fn module(module: impl IntoModule) -> Self {
        Activation::Module(module.into_module())
    }

    /// Stands for a module that is a child, which a live layer calls by name.
    fn stand_in() -> Box<dyn DynModule> {
        Box::new(NoModule)
    }

    /// Leaves the module to the children.
    fn without_module(&self) -> Self {
        match self {
            Activation::Module(_) => Activation::Module(Activation::stand_in()),
            other => other.clone(),
        }
    }

    fn apply(&self, call: &Call<'_>, x: &Var) -> Var {
        match self {
            Activation::ReLU => x.relu(),
            Activation::GELU => x.gelu(Approximate::None),
            Activation::Module(_) => call.child("activation", x),
        }
    }
}

/// Two modules are equal if they may share a blueprint.
impl PartialEq for Activation {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Activation::Module(one), Activation::Module(other)) => one.is_like(&**other),
            _ => core::mem::discriminant(self) == core::mem::discriminant(other),
        }
    }
}

/// Stands for a number that children have as a scalar slot of theirs.
fn zero(_: &f64) -> f64 {
    0.0
}

/// Makes a kind of layer: its settings, and what both kinds have in common.
macro_rules! layer {
    ($(#[$doc:meta])* $name:ident, $attentions:expr, $attributes:expr) => {
        $(#[$doc])*
        #[derive(Component, Clone, Debug, PartialEq, Scalars, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $name {
            /// Size of the last axis.
            pub d_model: usize,
            /// Into how many heads attention divides it.
            pub nhead: usize,
            /// Size between the two linear layers; 2048 at first.
            pub dim_feedforward: usize,
            /// Probability of dropout, which is a scalar slot of each child that has it; 0.1 at first.
            #[structural(zero)]
            pub dropout: f64,
            /// What stands between the two linear layers.
            #[structural(Activation::without_module)]
            pub activation: Activation,
            /// What the norms add to variances, a scalar slot of each; 1e-5 at first.
            #[structural(zero)]
            pub layer_norm_eps: f64,
            /// Whether the batch is the first axis, not the second.
            pub batch_first: bool,
            /// Whether the norms come before attention and the linear layers, not after their shortcuts.
            pub norm_first: bool,
            /// Whether linear layers, attention and norms have biases.
            pub bias: bool,
        }

        impl $name {
            /// Makes a layer with torch's defaults.
            pub fn new(d_model: usize, nhead: usize) -> Self {
                $name {
                    d_model,
                    nhead,
                    dim_feedforward: 2048,
                    dropout: 0.1,
                    activation: Activation::ReLU,
                    layer_norm_eps: 1e-5,
                    batch_first: false,
                    norm_first: false,
                    bias: true,
                }
            }
        }

        #[scalars]
        impl Module for $name {
            fn declare(&self, declare: &mut Declare) {
                let attentions: &[&str] = $attentions;
                for &attention in attentions {
                    declare.child(attention, MultiheadAttention {
                        dropout: self.dropout,
                        bias: self.bias,
                        batch_first: self.batch_first,
                        ..MultiheadAttention::new(self.d_model, self.nhead)
                    });
                }
                let linear = |in_features, out_features| {
                    Linear { in_features, out_features, bias: self.bias }
                };
                let norm = LayerNorm {
                    eps: self.layer_norm_eps,
                    bias: self.bias,
                    ..LayerNorm::new([self.d_model])
                };
                let dropout = Dropout { p: self.dropout };
                declare.child("linear1", linear(self.d_model, self.dim_feedforward));
                declare.child("dropout", dropout);
                declare.child("linear2", linear(self.dim_feedforward, self.d_model));
                // One for each attention, and one for the linear layers.
                for number in 1..=attentions.len() + 1 {
                    declare.child(format!("norm{number}"), norm.clone());
                }
                for number in 1..=attentions.len() + 1 {
                    declare.child(format!("dropout{number}"), dropout);
                }
                if let Activation::Module(module) = &self.activation {
                    declare.children.push(("activation".to_owned(), module.clone()));
                }
            }

            fn spawned(&self) -> Self {
                $name { activation: self.activation.without_module(), ..self.clone() }
            }

            fn attributes(&self) -> &'static [&'static str] {
                $attributes
            }

            fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
                let y = self.run(call, arguments);
                y.unwrap_or_else(|Refused| call.trace.poison()).into()
            }
        }

        impl $name {
            /// Adds to `x` what a block makes of it; `number` is that of the block's norm and dropout.
            fn shortcut(
                &self,
                call: &Call<'_>,
                x: &Var,
                number: usize,
                block: impl FnOnce(&Var) -> Var,
            ) -> Var {
                let norm = |x: &Var| call.child(&format!("norm{number}"), x);
                let block = |x: &Var| call.child(&format!("dropout{number}"), &block(x));
                match self.norm_first {
                    true => x + block(&norm(x)),
                    false => norm(&(x + block(x))),
                }
            }

            /// The two linear layers.
            fn feed_forward(&self, call: &Call<'_>, x: &Var) -> Var {
                let inner = self.activation.apply(call, &call.child("linear1", x));
                call.child("linear2", &call.child("dropout", &inner))
            }
        }
    };
}

layer!(
    /// Lets each place of a sequence attend to the others, then passes each through two linear layers.
    ///
    /// With the default, `y = norm1(x + attention(x))`, `norm2(y + linear2(activation(linear1(y))))`; with
    /// `norm_first`, `y = x + attention(norm1(x))`, `y + linear2(activation(linear1(norm2(y))))`. Dropout follows
    /// attention, the activation and the second linear layer.
    ///
    /// | value                  | shape                                                                |
    /// |------------------------|----------------------------------------------------------------------|
    /// | `src`, result          | `[S, batch, d_model]` or, with `batch_first`, `[batch, S, d_model]`; `[S, d_model]` |
    /// | `src_mask`             | `[S, S]` or `[batch · nhead, S, S]`                                  |
    /// | `src_key_padding_mask` | `[batch, S]` or `[S]`                                                |
    ///
    /// The masks and `is_causal`, keywords all, mean what they mean for [`MultiheadAttention`].
    ///
    /// Source: `torch.nn.TransformerEncoderLayer`, without its fast path for inference.
    TransformerEncoderLayer,
    &["self_attn"],
    &["norm_first", "activation_relu_or_gelu"]
);

layer!(
    /// Lets each place of a sequence attend to the others, then to a second sequence, and passes each through two
    /// linear layers.
    ///
    /// As [`TransformerEncoderLayer`], with attention to `memory` and its norm in the middle.
    ///
    /// | value                     | shape                                                             |
    /// |---------------------------|-------------------------------------------------------------------|
    /// | `tgt`, result             | `[T, batch, d_model]` or, with `batch_first`, `[batch, T, d_model]`; `[T, d_model]` |
    /// | `memory`                  | the same with `S`                                                 |
    /// | `tgt_mask`                | `[T, T]` or `[batch · nhead, T, T]`                               |
    /// | `memory_mask`             | `[T, S]` or `[batch · nhead, T, S]`                               |
    /// | `tgt_key_padding_mask`    | `[batch, T]` or `[T]`                                             |
    /// | `memory_key_padding_mask` | `[batch, S]` or `[S]`                                             |
    ///
    /// The masks, `tgt_is_causal` and `memory_is_causal`, keywords all, mean what they mean for
    /// [`MultiheadAttention`].
    ///
    /// Source: `torch.nn.TransformerDecoderLayer`.
    TransformerDecoderLayer,
    &["self_attn", "multihead_attn"],
    &["norm_first"]
);

/// Calls an attention of a layer, which gives no weights.
fn attend(
    call: &Call<'_>,
    attention: &str,
    [query, memory]: [&Var; 2],
    [mask, padding]: [&Option<Var>; 2],
    is_causal: bool,
) -> Var {
    let optional = |mask: &Option<Var>| mask.as_ref().map_or(Tree::None, Tree::from);
    let arguments = Arguments::each([query, memory, memory].map(Var::clone))
        .with("attn_mask", optional(mask))
        .with("key_padding_mask", optional(padding))
        .with("need_weights", false)
        .with("is_causal", is_causal);
    match call.child_with(attention, arguments).into_items().into_iter().next() {
        Some(Tree::Leaf(y)) => y,
        other => {
            let found = other.unwrap_or_default().type_name();
            call.trace
                .fail(format!("'{attention}': expected a Tensor as the first result, got {found}"))
        }
    }
}

impl TransformerEncoderLayer {
    fn run(&self, call: &Call<'_>, arguments: Arguments) -> Result<Var, Refused> {
        let names = ["src", "src_mask", "src_key_padding_mask", "is_causal"];
        let [src, mask, padding, is_causal] = call.bind(arguments, names, 1)?;
        let src = call.value(names[0], src)?;
        let is_causal = call.flag(names[3], is_causal, false)?;
        let canonical = |name, mask| canonical_mask(call, mask, name, src.dtype());
        let (padding, mask) = (canonical(names[2], padding)?, canonical(names[1], mask)?);
        let x = self.shortcut(call, &src, 1, |x| {
            attend(call, "self_attn", [x, x], [&mask, &padding], is_causal)
        });
        Ok(self.shortcut(call, &x, 2, |x| self.feed_forward(call, x)))
    }
}

/// What the `forward` of [`TransformerDecoderLayer`] takes.
const DECODER_NAMES: [&str; 8] = [
    "tgt",
    "memory",
    "tgt_mask",
    "memory_mask",
    "tgt_key_padding_mask",
    "memory_key_padding_mask",
    "tgt_is_causal",
    "memory_is_causal",
];

impl TransformerDecoderLayer {
    fn run(&self, call: &Call<'_>, arguments: Arguments) -> Result<Var, Refused> {
        let names = DECODER_NAMES;
        let [
            tgt,
            memory,
            tgt_mask,
            memory_mask,
            tgt_padding,
            memory_padding,
            causal,
            memory_causal,
        ] = call.bind(arguments, names, 2)?;
        let (tgt, memory) = (call.value(names[0], tgt)?, call.value(names[1], memory)?);
        let tgt_mask = call.optional_value(names[2], tgt_mask)?;
        let memory_mask = call.optional_value(names[3], memory_mask)?;
        let tgt_padding = call.optional_value(names[4], tgt_padding)?;
        let memory_padding = call.optional_value(names[5], memory_padding)?;
        let causal = call.flag(names[6], causal, false)?;
        let memory_causal = call.flag(names[7], memory_causal, false)?;
        let x = self.shortcut(call, &tgt, 1, |x| {
            attend(call, "self_attn", [x, x], [&tgt_mask, &tgt_padding], causal)
        });
        let x = self.shortcut(call, &x, 2, |x| {
            let masks = [&memory_mask, &memory_padding];
            attend(call, "multihead_attn", [x, &memory], masks, memory_causal)
        });
        Ok(self.shortcut(call, &x, 3, |x| self.feed_forward(call, x)))
    }
}
