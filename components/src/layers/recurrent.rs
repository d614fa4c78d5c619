//! Recurrent layers: [`RNN`], [`LSTM`], [`GRU`].
//!
//! All of them are called with sequences (`input`) and perhaps first states (`hx`), and give the outputs of the last
//! layer and the last state of every layer. Sequences are `[T, N, input_size]`, `[N, T, input_size]` if `batch_first`,
//! `[T, input_size]` for a single one, or of several lengths:
//! [`PackedSequence`](neurarch_kernels::ir::packed::PackedSequence). How many time steps there are is known
//! while tracing; another number is another program.

pub(crate) mod cell;
pub(crate) mod stack;

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use crate::layers::recurrent::cell::{Kind, Nonlinearity, reset};
use crate::layers::recurrent::stack::{ATTRIBUTES, Stack};
use crate::module::{Call, Declare, Init, Module};
use crate::{Scalars, scalars};

/// Returns one probability for all above 0: whether there is a dropout decides which ops run, its probability does not.
fn some_dropout(p: &f64) -> f64 {
    if *p > 0.0 { 0.5 } else { 0.0 }
}

/// Declares a recurrent layer; `$own` is the setting that only it has.
macro_rules! recurrent {
    (
        $(#[$doc:meta])*
        $layer:ident { $($(#[$own_doc:meta])* $own:ident: $type:ty = $first:expr)? }
    ) => {
        $(#[$doc])*
        #[derive(Component, Clone, Copy, Debug, PartialEq, Scalars, Serialize, Deserialize)]
        #[component(summary_tick)]
        pub struct $layer {
            /// Size of the last axis of `x`.
            pub input_size: usize,
            /// Size of the state.
            pub hidden_size: usize,
            /// How many layers there are, each on the outputs of the one before; 1 at first.
            pub num_layers: usize,
            $($(#[$own_doc])* pub $own: $type,)?
            /// Whether there are biases.
            pub bias: bool,
            /// Whether a batch is `[N, T, ..]`; states are not concerned. No at first.
            pub batch_first: bool,
            /// Probability that an output of a layer but the last becomes 0 in training mode; 0 at first. A scalar
            /// slot where it is not 0.
            #[scalar(read = super::dropout::probability)]
            #[structural(some_dropout)]
            pub dropout: f64,
            /// Whether each layer walks through the sequences from both ends; no at first.
            pub bidirectional: bool,
        }

        impl $layer {
            /// Makes a layer with torch's defaults.
            pub fn new(input_size: usize, hidden_size: usize) -> Self {
                $layer {
                    input_size,
                    hidden_size,
                    num_layers: 1,
                    $($own: $first,)?
                    bias: true,
                    batch_first: false,
                    dropout: 0.0,
                    bidirectional: false,
                }
            }

            fn stack(&self) -> Stack {
                let (kind, proj_size) = self.kind();
                Stack {
                    name: stringify!($layer),
                    kind,
                    input_size: self.input_size,
                    hidden_size: self.hidden_size,
                    num_layers: self.num_layers,
                    bias: self.bias,
                    batch_first: self.batch_first,
                    dropout: self.dropout,
                    bidirectional: self.bidirectional,
                    proj_size,
                }
            }
        }

        #[scalars]
        impl Module for $layer {
            fn declare(&self, declare: &mut Declare) {
                self.stack().declare(declare);
            }

            fn reset(&self, _: &str) -> Init {
                reset(self.hidden_size)
            }

            fn attributes(&self) -> &'static [&'static str] {
                ATTRIBUTES
            }

            fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
                self.stack().forward(call, arguments)
            }

            fn extra_repr(&self) -> String {
                self.stack().extra_repr()
            }
        }
    };
}

recurrent! {
    /// An Elman network: `h' = tanh(W_ih · x + b_ih + W_hh · h + b_hh)` at each time step, or with `relu`.
    ///
    /// | value                  | shape                                             | at first                         |
    /// |------------------------|---------------------------------------------------|----------------------------------|
    /// | `input`                | `[T, N, input_size]`; `[N, T, input_size]` if `batch_first`, `[T, input_size]` for one sequence, or a [`PackedSequence`](neurarch_kernels::ir::packed::PackedSequence) |                                  |
    /// | `hx`, the last states  | `[num_layers · directions, N, hidden_size]`       | zeros if not given               |
    /// | output                 | `[T, N, directions · hidden_size]`                |                                  |
    /// | `weight_ih_l0`         | `[hidden_size, input_size]`; in later layers `[.., directions · hidden_size]` | `U(-k, k)`, `k = 1/√hidden_size` |
    /// | `weight_hh_l0`         | `[hidden_size, hidden_size]`                      | as `weight_ih_l0`                |
    /// | `bias_ih_l0`, `bias_hh_l0` | `[hidden_size]`                               | as `weight_ih_l0`; absent if `!bias` |
    ///
    /// The second layer's parameters end in `_l1`, those of the other direction in `_l0_reverse`.
    ///
    /// Source: `torch.nn.RNN`. Settings that torch refuses when a layer is made are an error of the first call; a
    /// `dropout` outside of 0 to 1 is clamped.
    RNN {
        /// What the new state goes through.
        nonlinearity: Nonlinearity = Nonlinearity::Tanh
    }
}

recurrent! {
    /// Long short-term memory. At each time step `W_ih · x + b_ih + W_hh · h + b_hh` has four blocks `i, f, g, o`, and
    /// `c' = σ(f) · c + σ(i) · tanh(g)`, `h' = σ(o) · tanh(c')`, or `W_hr` times that.
    ///
    /// | value                  | shape                                             | at first                         |
    /// |------------------------|---------------------------------------------------|----------------------------------|
    /// | `input`                | as in [`RNN`]                                     |                                  |
    /// | `hx`, the last states  | `h`: `[num_layers · directions, N, output_size]`; `c`: the same with `hidden_size` | zeros if not given |
    /// | output                 | `[T, N, directions · output_size]`                |                                  |
    /// | `weight_ih_l0`         | `[4 · hidden_size, input_size]`; in later layers `[.., directions · output_size]` | `U(-k, k)`, `k = 1/√hidden_size` |
    /// | `weight_hh_l0`         | `[4 · hidden_size, output_size]`                  | as `weight_ih_l0`                |
    /// | `bias_ih_l0`, `bias_hh_l0` | `[4 · hidden_size]`                           | as `weight_ih_l0`; absent if `!bias` |
    /// | `weight_hr_l0`         | `[proj_size, hidden_size]`                        | as `weight_ih_l0`; absent without a projection |
    ///
    /// `output_size` is `proj_size`, or `hidden_size` without a projection. The second layer's parameters end in `_l1`,
    /// those of the other direction in `_l0_reverse`. `hx` and the last states are tuples `(h, c)`.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_components::layers::LSTM;
    /// # use neurarch_components::module::repr::repr;
    /// let layer = LSTM { num_layers: 2, proj_size: 8, ..LSTM::new(16, 32) };
    /// assert_eq!(repr(&layer), "LSTM(16, 32, proj_size=8, num_layers=2)");
    /// ```
    ///
    /// Source: `torch.nn.LSTM`. Settings that torch refuses when a layer is made are an error of the first call; a
    /// `dropout` outside of 0 to 1 is clamped.
    LSTM {
        /// Size that the hidden state is projected to; 0, as at first, for no projection.
        proj_size: usize = 0
    }
}

recurrent! {
    /// A gated recurrent unit. At each time step `W_ih · x + b_ih` and `W_hh · h + b_hh` have three blocks each, marked
    /// `x` and `h`: `r = σ(rₓ + rₕ)`, `z = σ(zₓ + zₕ)`, `n = tanh(nₓ + r · nₕ)`, `h' = (1 - z) · n + z · h`.
    ///
    /// | value                  | shape                                             | at first                         |
    /// |------------------------|---------------------------------------------------|----------------------------------|
    /// | `input`                | as in [`RNN`]                                     |                                  |
    /// | `hx`, the last states  | `[num_layers · directions, N, hidden_size]`       | zeros if not given               |
    /// | output                 | `[T, N, directions · hidden_size]`                |                                  |
    /// | `weight_ih_l0`         | `[3 · hidden_size, input_size]`; in later layers `[.., directions · hidden_size]` | `U(-k, k)`, `k = 1/√hidden_size` |
    /// | `weight_hh_l0`         | `[3 · hidden_size, hidden_size]`                  | as `weight_ih_l0`                |
    /// | `bias_ih_l0`, `bias_hh_l0` | `[3 · hidden_size]`                           | as `weight_ih_l0`; absent if `!bias` |
    ///
    /// The second layer's parameters end in `_l1`, those of the other direction in `_l0_reverse`.
    ///
    /// Source: `torch.nn.GRU`. Settings that torch refuses when a layer is made are an error of the first call; a
    /// `dropout` outside of 0 to 1 is clamped.
    GRU {}
}

impl RNN {
    /// Returns what a time step computes, and the size of the projection.
    fn kind(&self) -> (Kind, usize) {
        (Kind::Rnn(self.nonlinearity), 0)
    }
}

impl LSTM {
    /// Returns what a time step computes, and the size of the projection.
    fn kind(&self) -> (Kind, usize) {
        (Kind::Lstm, self.proj_size)
    }
}

impl GRU {
    /// Returns what a time step computes, and the size of the projection.
    fn kind(&self) -> (Kind, usize) {
        (Kind::Gru, 0)
    }
}
