//! [`TransformerEncoder`], [`TransformerDecoder`]: stacks of layers; and [`Transformer`], one of each.

pub(crate) mod layer;

use bevy_ecs::prelude::*;
use ndarray::Array2;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use super::attention::{canonical_mask, xavier_uniform};
use super::{Activation, LayerNorm, ModuleList, TransformerDecoderLayer, TransformerEncoderLayer};
use crate::containers::{IntoModule, MAX_ENTRIES, Refusal, too_many};
use crate::module::signature::Refused;
use crate::module::{Call, Declare, DynModule, Init, Module};

/// Makes a stack of layers: its children, and what both stacks have in common.
macro_rules! stack {
    ($(#[$doc:meta])* $name:ident, $attributes:expr) => {
        $(#[$doc])*
        #[derive(Component, Clone, Debug, Default, Serialize, Deserialize)]
        #[component(immutable)]
        pub struct $name {
            #[serde(skip)]
            layers: ModuleList,
            #[serde(skip)]
            norm: Option<Box<dyn DynModule>>,
        }

        impl $name {
            /// Stacks copies of a layer.
            pub fn new(layer: impl IntoModule, num_layers: usize) -> Self {
                let layer = layer.into_module();
                let layers = match num_layers <= MAX_ENTRIES {
                    true => (0..num_layers).map(|_| layer.clone()).collect(),
                    false => ModuleList::from([Refusal(too_many(num_layers))]),
                };
                $name { layers, norm: None }
            }

            /// Puts a norm behind the last layer: torch's `norm=norm`.
            #[must_use]
            pub fn with_norm(self, norm: impl IntoModule) -> Self {
                $name { norm: Some(norm.into_module()), ..self }
            }
        }

        /// A spawned one lists no children, since they are entities.
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.layers == other.layers
                    && match (&self.norm, &other.norm) {
                        (None, None) => true,
                        (Some(one), Some(other)) => one.is_like(&**other),
                        _ => false,
                    }
            }
        }

        impl Module for $name {
            fn declare(&self, declare: &mut Declare) {
                declare.child("layers", self.layers.clone());
                if let Some(norm) = &self.norm {
                    declare.children.push(("norm".to_owned(), norm.clone()));
                }
            }

            fn attributes(&self) -> &'static [&'static str] {
                $attributes
            }

            fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
                let y = Self::run(call, arguments);
                y.unwrap_or_else(|Refused| call.trace.poison()).into()
            }

            /// The blueprint's positions name the children.
            fn structural(&self) -> Self {
                $name::default()
            }

            fn spawned(&self) -> Self {
                $name::default()
            }
        }
    };
}

stack!(
    /// Passes a sequence through layers in order, and through a norm if there is one.
    ///
    /// `src` is `[S, batch, d_model]`, or as the layers take it, and so is the result. Keywords: `mask` and
    /// `src_key_padding_mask`, as [`TransformerEncoderLayer`] takes them, and `is_causal`.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_components::layers::*;
    /// let layer = TransformerEncoderLayer { batch_first: true, ..TransformerEncoderLayer::new(16, 4) };
    /// let encoder = TransformerEncoder::new(layer, 2).with_norm(LayerNorm::new([16]));
    /// # assert!(neurarch_components::module::repr::repr(&encoder).contains("(0-1): 2 x TransformerEncoderLayer("));
    /// ```
    ///
    /// Source: `torch.nn.TransformerEncoder`, without nested tensors, which change nothing but what stands at
    /// padded places in inference. Each layer draws first numbers of its own, where torch copies those of one.
    TransformerEncoder,
    &["num_layers", "enable_nested_tensor", "use_nested_tensor", "mask_check"]
);

stack!(
    /// Passes a sequence, and with it what an encoder made of another, through layers in order, and through a norm
    /// if there is one.
    ///
    /// `tgt` is `[T, batch, d_model]`, or as the layers take it, and so is the result; `memory` is the same with
    /// `S`. Keywords: those of [`TransformerDecoderLayer`].
    ///
    /// Source: `torch.nn.TransformerDecoder`. Each layer draws first numbers of its own, where torch copies those of
    /// one.
    TransformerDecoder,
    &["num_layers"]
);

/// Passes a value through the layers of a stack, each called with the same other arguments, and through its norm.
fn pass(call: &Call<'_>, x: Var, others: &Arguments) -> Result<Var, Refused> {
    let layers = call.children_of("layers");
    if layers.is_empty() {
        return Err(call.fail("index 0 is out of range"));
    }
    let y = layers.iter().fold(x, |x, layer| {
        let mut arguments = others.clone();
        arguments.positional.insert(0, x.into());
        match call.child_with(layer, arguments) {
            Tree::Leaf(y) => y,
            other => {
                let found = other.type_name();
                call.trace
                    .fail(format!("'{layer}': expected one Tensor as the result, got {found}"))
            }
        }
    });
    match call.children().any(|child| child == "norm") {
        true => Ok(call.child("norm", &y)),
        false => Ok(y),
    }
}

/// Returns an argument that may be absent.
fn optional(argument: Option<Var>) -> Tree {
    argument.map_or(Tree::None, Tree::Leaf)
}

impl TransformerEncoder {
    fn run(call: &Call<'_>, arguments: Arguments) -> Result<Var, Refused> {
        let names = ["src", "mask", "src_key_padding_mask", "is_causal"];
        let [src, mask, padding, is_causal] = call.bind(arguments, names, 1)?;
        let src = call.value(names[0], src)?;
        let canonical = |name, mask| canonical_mask(call, mask, name, src.dtype());
        let (padding, mask) = (canonical(names[2], padding)?, canonical(names[1], mask)?);
        let others = Arguments { positional: Vec::new(), keyword: Vec::new() }
            .with("src_mask", optional(mask))
            // Whether a mask is causal makes no difference, so torch's look at its numbers is left out.
            .with("is_causal", call.flag(names[3], is_causal, false)?)
            .with("src_key_padding_mask", optional(padding));
        pass(call, src, &others)
    }
}

impl TransformerDecoder {
    fn run(call: &Call<'_>, arguments: Arguments) -> Result<Var, Refused> {
        let names = [
            "tgt",
            "memory",
            "tgt_mask",
            "memory_mask",
            "tgt_key_padding_mask",
            "memory_key_padding_mask",
            "tgt_is_causal",
            "memory_is_causal",
        ];
        let [tgt, memory, masks @ .., causal, memory_causal] = call.bind(arguments, names, 2)?;
        let tgt = call.value(names[0], tgt)?;
        let mut others = Arguments::from(call.value(names[1], memory)?);
        for (name, mask) in names[2..6].iter().zip(masks) {
            others = others.with(*name, optional(call.optional_value(name, mask)?));
        }
        let others = others
            .with(names[6], call.flag(names[6], causal, false)?)
            .with(names[7], call.flag(names[7], memory_causal, false)?);
        pass(call, tgt, &others)
    }
}

/// Encodes one sequence and decodes another with it: a [`TransformerEncoder`] and a [`TransformerDecoder`], each
/// with a norm.
///
/// | value                                            | shape                                              |
/// |--------------------------------------------------|----------------------------------------------------|
/// | `src`                                            | `[S, batch, d_model]` or, with `batch_first`, `[batch, S, d_model]`; `[S, d_model]` |
/// | `tgt`, result                                    | the same with `T`                                  |
/// | `src_mask`, `tgt_mask`                           | `[S, S]`, `[T, T]`, or `[batch · nhead, ..]` of these |
/// | `memory_mask`                                    | `[T, S]` or `[batch · nhead, T, S]`                |
/// | `src_key_padding_mask`, `memory_key_padding_mask`| `[batch, S]` or `[S]`                              |
/// | `tgt_key_padding_mask`                           | `[batch, T]` or `[T]`                              |
///
/// The masks, `src_is_causal`, `tgt_is_causal` and `memory_is_causal`, keywords all, mean what they mean for
/// [`MultiheadAttention`](super::MultiheadAttention). All matrices are Xavier uniform at first.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// let transformer = Transformer { num_encoder_layers: 2, ..Transformer::new(16, 4) };
/// let mask = Transformer::generate_square_subsequent_mask::<f32>(3);
/// assert_eq!(mask.row(1).to_vec(), [0.0, 0.0, f32::NEG_INFINITY]);
/// # assert_eq!(transformer.num_decoder_layers, 6);
/// ```
///
/// Source: `torch.nn.Transformer`.
#[derive(Component, Clone, Debug, Serialize, Deserialize)]
#[component(immutable)]
pub struct Transformer {
    /// Size of the last axis; 512 in torch's default.
    pub d_model: usize,
    /// Into how many heads attention divides it; 8 in torch's default.
    pub nhead: usize,
    /// How many layers the encoder has; 6 at first.
    pub num_encoder_layers: usize,
    /// How many layers the decoder has; 6 at first.
    pub num_decoder_layers: usize,
    /// Size between the two linear layers of each layer; 2048 at first.
    pub dim_feedforward: usize,
    /// Probability of dropout; 0.1 at first.
    pub dropout: f64,
    /// What stands between the two linear layers of each layer.
    pub activation: Activation,
    /// What stands in the encoder's place. It is called with `src`, and with `mask`, `src_key_padding_mask` and
    /// `is_causal` as keywords.
    #[serde(skip)]
    pub custom_encoder: Option<Box<dyn DynModule>>,
    /// What stands in the decoder's place. It is called with `tgt` and what the encoder gave, and with the masks
    /// of [`TransformerDecoder`] as keywords.
    #[serde(skip)]
    pub custom_decoder: Option<Box<dyn DynModule>>,
    /// What the norms add to variances; 1e-5 at first.
    pub layer_norm_eps: f64,
    /// Whether the batch is the first axis, not the second.
    pub batch_first: bool,
    /// Whether the norms of each layer come first.
    pub norm_first: bool,
    /// Whether linear layers, attention and norms have biases.
    pub bias: bool,
}

impl Transformer {
    /// Makes a transformer with torch's defaults, which are also those of [`Default`] with its sizes.
    pub fn new(d_model: usize, nhead: usize) -> Self {
        Transformer {
            d_model,
            nhead,
            num_encoder_layers: 6,
            num_decoder_layers: 6,
            dim_feedforward: 2048,
            dropout: 0.1,
            activation: Activation::ReLU,
            custom_encoder: None,
            custom_decoder: None,
            layer_norm_eps: 1e-5,
            batch_first: false,
            norm_first: false,
            bias: true,
        }
    }

    /// Returns a mask with which no place sees those after it: -∞ above the diagonal, 0 elsewhere, `[sz, sz]`.
    ///
    /// Source: `torch.nn.Transformer.generate_square_subsequent_mask`. In a `forward` of your own there is
    /// `causal_mask`, of traced values.
    pub fn generate_square_subsequent_mask<T: From<f32>>(sz: usize) -> Array2<T> {
        Array2::from_shape_fn((sz, sz), |(row, column)| {
            T::from(if column > row { f32::NEG_INFINITY } else { 0.0 })
        })
    }
}

impl Default for Transformer {
    fn default() -> Self {
        Transformer::new(512, 8)
    }
}

/// Two modules in the place of a part are equal if they may share a blueprint.
impl PartialEq for Transformer {
    fn eq(&self, other: &Self) -> bool {
        let alike = |one: &Option<Box<dyn DynModule>>, other: &Option<Box<dyn DynModule>>| match (
            one, other,
        ) {
            (None, None) => true,
            (Some(one), Some(other)) => one.is_like(&**other),
            _ => false,
        };
        let sizes = |of: &Self| {
            let layers = (of.num_encoder_layers, of.num_decoder_layers);
            (of.d_model, of.nhead, layers, of.dim_feedforward)
        };
        let rates = |of: &Self| (of.dropout, of.layer_norm_eps);
        let flags = |of: &Self| (of.batch_first, of.norm_first, of.bias);
        sizes(self) == sizes(other)
            && rates(self) == rates(other)
            && flags(self) == flags(other)
            && self.activation == other.activation
            && alike(&self.custom_encoder, &other.custom_encoder)
            && alike(&self.custom_decoder, &other.custom_decoder)
    }
}

/// Makes a layer of either kind with the settings of a [`Transformer`].
macro_rules! layer_of {
    ($layer:ident, $of:ident) => {
        $layer {
            dim_feedforward: $of.dim_feedforward,
            dropout: $of.dropout,
            activation: $of.activation.clone(),
            layer_norm_eps: $of.layer_norm_eps,
            batch_first: $of.batch_first,
            norm_first: $of.norm_first,
            bias: $of.bias,
            ..$layer::new($of.d_model, $of.nhead)
        }
    };
}

impl Module for Transformer {
    fn declare(&self, declare: &mut Declare) {
        let norm = LayerNorm {
            eps: self.layer_norm_eps,
            bias: self.bias,
            ..LayerNorm::new([self.d_model])
        };
        let encoder = self.custom_encoder.clone().unwrap_or_else(|| {
            let layer = layer_of!(TransformerEncoderLayer, self);
            let layers = TransformerEncoder::new(layer, self.num_encoder_layers);
            layers.with_norm(norm.clone()).into_module()
        });
        let decoder = self.custom_decoder.clone().unwrap_or_else(|| {
            let layer = layer_of!(TransformerDecoderLayer, self);
            let layers = TransformerDecoder::new(layer, self.num_decoder_layers);
            layers.with_norm(norm.clone()).into_module()
        });
        declare.children.push(("encoder".to_owned(), encoder));
        declare.children.push(("decoder".to_owned(), decoder));
    }

    fn attributes(&self) -> &'static [&'static str] {
        &["d_model", "nhead", "batch_first", "generate_square_subsequent_mask"]
    }

    fn reset_below(&self, _: &str, shape: &Shape) -> Option<Init> {
        (shape.rank() > 1).then(|| xavier_uniform(shape))
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        self.run(call, arguments).unwrap_or_else(|Refused| call.trace.poison().into())
    }

    /// The parts are children, which have their settings themselves.
    fn structural(&self) -> Self {
        let Transformer { d_model, nhead, batch_first, .. } = *self;
        Transformer { dropout: 0.0, batch_first, ..Transformer::new(d_model, nhead) }
    }

    fn spawned(&self) -> Self {
        Transformer { custom_encoder: None, custom_decoder: None, ..self.clone() }
    }
}

impl Transformer {
    fn run(&self, call: &Call<'_>, arguments: Arguments) -> Result<Tree, Refused> {
        let names = [
            "src",
            "tgt",
            "src_mask",
            "tgt_mask",
            "memory_mask",
            "src_key_padding_mask",
            "tgt_key_padding_mask",
            "memory_key_padding_mask",
            "src_is_causal",
            "tgt_is_causal",
            "memory_is_causal",
        ];
        let [
            src,
            tgt,
            src_mask,
            tgt_mask,
            memory_mask,
            paddings @ ..,
            src_causal,
            tgt_causal,
            memory_causal,
        ] = call.bind(arguments, names, 2)?;
        let (src, tgt) = (call.value(names[0], src)?, call.value(names[1], tgt)?);
        let batch = |x: &Var| x.shape().get(usize::from(!self.batch_first)).copied();
        if src.shape().rank() == 3 && batch(&src) != batch(&tgt) {
            return Err(call.fail("the batch number of src and tgt must be equal"));
        }
        let features = |x: &Var| x.shape().last().copied();
        if features(&src) != Some(self.d_model) || features(&tgt) != Some(self.d_model) {
            return Err(call.fail("the feature number of src and tgt must be equal to d_model"));
        }
        let [src_padding, tgt_padding, memory_padding] = paddings.map(Option::unwrap_or_default);
        let memory = Arguments::from(src)
            .with("mask", src_mask.unwrap_or_default())
            .with("src_key_padding_mask", src_padding)
            .with("is_causal", src_causal.unwrap_or_default());
        let memory = call.child_with("encoder", memory);
        let decoded = Arguments { positional: vec![tgt.into(), memory], keyword: Vec::new() }
            .with("tgt_mask", tgt_mask.unwrap_or_default())
            .with("memory_mask", memory_mask.unwrap_or_default())
            .with("tgt_key_padding_mask", tgt_padding)
            .with("memory_key_padding_mask", memory_padding)
            .with("tgt_is_causal", tgt_causal.unwrap_or_default())
            .with("memory_is_causal", memory_causal.unwrap_or(Tree::Flag(false)));
        Ok(call.child_with("decoder", decoded))
    }
}
