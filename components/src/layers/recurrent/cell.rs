//! What a recurrent layer does in one time step, and the cells that do just that: `RNNCell`, `LSTMCell`, `GRUCell`.

use core::ops::Range;

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use crate::module::{Call, Declare, Init, Module};

/// The function that an RNN's new state goes through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nonlinearity {
    /// `tanh`.
    #[default]
    Tanh,
    /// `relu`.
    ReLU,
}

/// How the new state follows from the input and the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An Elman network.
    Rnn(Nonlinearity),
    /// Long short-term memory.
    Lstm,
    /// A gated recurrent unit.
    Gru,
}

/// What is handed from one time step to the next.
#[derive(Clone)]
pub(super) struct State {
    /// The hidden state, `[batch, hidden_size]`; with a projection `[batch, proj_size]`.
    pub(super) h: Var,
    /// The cell state of an LSTM, `[batch, hidden_size]`.
    pub(super) c: Option<Var>,
}

impl State {
    /// Applies a function to both parts.
    pub(super) fn map(&self, f: impl Fn(&Var) -> Var) -> State {
        State { h: f(&self.h), c: self.c.as_ref().map(f) }
    }

    /// Returns some of the batch.
    pub(super) fn slice(&self, batch: Range<usize>) -> State {
        self.map(|part| part.slice(0, batch.clone()))
    }

    /// Joins states along an axis; there is at least one.
    pub(super) fn cat(states: &[State], axis: isize) -> State {
        let h: Vec<_> = states.iter().map(|state| &state.h).collect();
        let c: Vec<_> = states.iter().filter_map(|state| state.c.as_ref()).collect();
        State { h: Var::cat(&h, axis), c: (!c.is_empty()).then(|| Var::cat(&c, axis)) }
    }
}

/// The parameters of one direction of one layer.
pub(super) struct Weights {
    pub(super) ih: Var,
    pub(super) hh: Var,
    pub(super) bias_ih: Option<Var>,
    pub(super) bias_hh: Option<Var>,
    /// The projection of an LSTM.
    pub(super) hr: Option<Var>,
}

impl Weights {
    /// Joins both biases of an LSTM, which adds them up anyway: then they have one gradient, too.
    pub(super) fn with_one_bias(self, kind: Kind) -> Weights {
        match (kind, &self.bias_ih, &self.bias_hh) {
            (Kind::Lstm, Some(of_x), Some(of_h)) => {
                Weights { bias_ih: Some(of_x + of_h), bias_hh: None, ..self }
            }
            _ => self,
        }
    }

    /// Returns what all time steps get from their inputs, `[.., gates · hidden_size]`.
    pub(super) fn of_inputs(&self, x: &Var) -> Var {
        x.linear(&self.ih, self.bias_ih.as_ref())
    }
}

impl Kind {
    /// Counts the blocks of `hidden_size` rows in a weight.
    pub(super) fn gates(self) -> usize {
        match self {
            Kind::Rnn(_) => 1,
            Kind::Lstm => 4,
            Kind::Gru => 3,
        }
    }

    /// Returns whether [`walk`](Kind::walk) can be used: where torch rounds within a step, to halves, it cannot.
    pub(super) fn walks(self, x: &Var, weights: &Weights) -> bool {
        let is_one = matches!(self, Kind::Lstm | Kind::Gru) && weights.hr.is_none();
        is_one && !x.dtype().is_half() && !x.trace().is_autocast()
    }

    /// Walks through time steps of one size in one op, from the last if `reverse`: gives the states after all of them,
    /// in the order of time, and the last one. `x` is what the steps get [from their inputs](Weights::of_inputs).
    pub(super) fn walk(
        self,
        x: &Var,
        first: &State,
        weights: &Weights,
        steps: usize,
        reverse: bool,
    ) -> (Var, State) {
        let bias = weights.bias_hh.as_ref();
        let (walked, c) = match &first.c {
            Some(c) => {
                let walked = x.lstm(&weights.hh, bias, [&first.h, c], steps, reverse);
                (walked.clone(), Some(walked.memory))
            }
            None => (x.gru(&weights.hh, bias, &first.h, steps, reverse), None),
        };
        let batch = first.h.shape().first().copied().unwrap_or(0);
        let at = if reverse { 0 } else { steps.saturating_sub(1) * batch };
        let last = |x: &Var| x.slice(0, at..at + batch);
        (walked.h.clone(), State { h: last(&walked.h), c: c.as_ref().map(last) })
    }

    /// Returns the state after a time step; `x` is what the step gets [from its input](Weights::of_inputs).
    pub(super) fn step(self, x: &Var, state: &State, weights: &Weights) -> State {
        let h = state.h.linear(&weights.hh, weights.bias_hh.as_ref());
        match (self, &state.c) {
            (Kind::Lstm, Some(c)) => {
                let [i, f, g, o] = (x + &h).chunk(-1);
                let c = f.sigmoid() * c + i.sigmoid() * g.tanh();
                let h = o.sigmoid() * c.tanh();
                let h = weights.hr.as_ref().map_or_else(|| h.clone(), |hr| h.linear(hr, None));
                State { h, c: Some(c) }
            }
            (Kind::Gru, _) => {
                let ([xr, xz, xn], [hr, hz, hn]) = (x.chunk(-1), h.chunk(-1));
                let (r, z) = ((xr + hr).sigmoid(), (xz + hz).sigmoid());
                let n = (xn + r * hn).tanh();
                State { h: z * (&state.h - &n) + n, c: None }
            }
            (Kind::Rnn(Nonlinearity::ReLU), _) => State { h: (x + &h).relu(), c: None },
            _ => State { h: (x + &h).tanh(), c: None },
        }
    }
}

/// Returns the first numbers of every parameter of a recurrent layer.
///
/// Source: `reset_parameters` of `torch.nn.RNNBase`.
pub(super) fn reset(hidden_size: usize) -> Init {
    let high = if hidden_size > 0 { 1.0 / (hidden_size as f64).sqrt() } else { 0.0 };
    Init::Uniform { low: -high, high }
}

/// Takes the hidden states that a layer is called with; `Err` after an error, which is recorded.
///
/// `not_two` is torch's message for an LSTM that gets another number of values than two.
pub(super) fn given_state(
    trace: &Trace,
    kind: Kind,
    hx: Tree,
    not_two: &str,
) -> Result<Option<State>, ()> {
    let refuse = |message: String| {
        trace.fail(message);
        Err(())
    };
    match (kind, hx) {
        (_, Tree::None) => Ok(None),
        (Kind::Lstm, Tree::Tuple(items)) => match <[Tree; 2]>::try_from(items) {
            Ok([Tree::Leaf(h), Tree::Leaf(c)]) => Ok(Some(State { h, c: Some(c) })),
            Ok(other) => {
                let wrong = other.iter().find(|part| part.leaf().is_none());
                let given = wrong.map_or("Tensor", Tree::type_name);
                refuse(format!("'{given}' object has no attribute 'dim'"))
            }
            Err(_) => refuse(not_two.to_owned()),
        },
        (Kind::Lstm, other) => {
            let given = other.type_name();
            refuse(format!("argument 'hx' (position 2) must be tuple of Tensors, not {given}"))
        }
        (_, Tree::Leaf(h)) => Ok(Some(State { h, c: None })),
        (_, other) => refuse(format!("'{}' object has no attribute 'dim'", other.type_name())),
    }
}

/// What the cells have in common: torch's `RNNCellBase`.
struct Cell {
    name: &'static str,
    kind: Kind,
    input_size: usize,
    hidden_size: usize,
    bias: bool,
}

impl Cell {
    fn declare(&self, declare: &mut Declare) {
        let rows = self.kind.gates().saturating_mul(self.hidden_size);
        declare.parameter("weight_ih", [rows, self.input_size]);
        declare.parameter("weight_hh", [rows, self.hidden_size]);
        for name in ["bias_ih", "bias_hh"] {
            match self.bias {
                true => declare.parameter(name, [rows]),
                false => declare.no_parameter(name),
            };
        }
    }

    /// Returns the next state; `None` after an error.
    fn forward(&self, call: &Call<'_>, arguments: Arguments) -> Option<State> {
        let [input, hx] = call.bind_or_none(arguments, ["input", "hx"], 1)?;
        let Tree::Leaf(x) = input else {
            let given = input.type_name();
            call.trace.fail(format!("'{given}' object has no attribute 'dim'"));
            return None;
        };
        let not_two = "lstm_cell expects two hidden states";
        let given = given_state(call.trace, self.kind, hx, not_two).ok()?;
        if let Err(message) = self.check(&x, given.as_ref()) {
            call.trace.fail(message);
        }
        if call.trace.error().is_some() {
            return None;
        }
        let is_batched = x.shape().rank() == 2;
        let batched = |part: &Var| match is_batched {
            true => part.clone(),
            false => part.reshape([1, part.shape().numel()]),
        };
        let x = batched(&x);
        let batch = x.shape()[0];
        let zeros = || call.trace.constant(0.0, x.dtype(), [batch, self.hidden_size]);
        let state = match given {
            Some(state) => state.map(batched),
            None => State { h: zeros(), c: (self.kind == Kind::Lstm).then(zeros) },
        };
        let weights = Weights {
            ih: call.parameter("weight_ih"),
            hh: call.parameter("weight_hh"),
            bias_ih: call.optional_parameter("bias_ih"),
            bias_hh: call.optional_parameter("bias_hh"),
            hr: None,
        };
        let next = self.kind.step(&weights.of_inputs(&x), &state, &weights);
        Some(if is_batched { next } else { next.map(|part| part.reshape([self.hidden_size])) })
    }

    /// Checks the shapes of what the cell is called with.
    fn check(&self, x: &Var, state: Option<&State>) -> Result<(), String> {
        let Cell { name, input_size, hidden_size, .. } = self;
        let rank = x.shape().rank();
        if !matches!(rank, 1 | 2) {
            return Err(format!("{name}: Expected input to be 1D or 2D, got {rank}D instead"));
        }
        let parts = || state.into_iter().flat_map(|state| [Some(&state.h), state.c.as_ref()]);
        let parts = || parts().flatten().map(Var::shape).enumerate();
        for (i, part) in parts() {
            let (what, rank) = match self.kind {
                Kind::Lstm => (format!("hx[{i}]"), part.rank()),
                _ => ("hidden".to_owned(), part.rank()),
            };
            if !matches!(rank, 1 | 2) {
                return Err(format!("{name}: Expected {what} to be 1D or 2D, got {rank}D instead"));
            }
        }
        let (batch, given) = match **x.shape() {
            [batch, size] => (batch, size),
            _ => (1, x.shape().numel()),
        };
        if given != *input_size {
            return Err(format!(
                "input has inconsistent input_size: got {given} expected {input_size}"
            ));
        }
        for (i, part) in parts() {
            let (rows, size) = match (&**part, rank) {
                (&[rows, size], 2) => (rows, size),
                (&[size], 1) => (1, size),
                _ => {
                    // torch has put an axis before a state that came with an input without a batch.
                    let rank = part.rank() + usize::from(rank == 1);
                    return Err(format!(
                        "Expected 2D hidden{i} (batch x hidden_size), but got {rank}D tensor"
                    ));
                }
            };
            if rows != batch {
                return Err(format!(
                    "Input batch size {batch} doesn't match hidden{i} batch size {rows}"
                ));
            }
            if size != *hidden_size {
                return Err(format!(
                    "hidden{i} has inconsistent hidden_size: got {size}, expected {hidden_size}"
                ));
            }
        }
        Ok(())
    }

    fn extra_repr(&self) -> String {
        let bias = if self.bias { "" } else { ", bias=False" };
        format!("{}, {}{bias}", self.input_size, self.hidden_size)
    }
}

/// The parts of a cell's declaration that all cells share.
macro_rules! shared {
    () => {
        fn declare(&self, declare: &mut Declare) {
            self.cell().declare(declare);
        }

        fn reset(&self, _: &str) -> Init {
            reset(self.hidden_size)
        }

        fn attributes(&self) -> &'static [&'static str] {
            &["input_size", "hidden_size", "bias", "nonlinearity", "reset_parameters"]
        }
    };
}

/// A step of an Elman network: `h' = tanh(W_ih · x + b_ih + W_hh · h + b_hh)`, or with `relu`.
///
/// | value                  | shape                                        | at first                         |
/// |------------------------|----------------------------------------------|----------------------------------|
/// | `x`                    | `[batch, input_size]`, or without the batch  |                                  |
/// | `h`, `h'`              | `[batch, hidden_size]`, or without the batch | zeros if not given               |
/// | `weight_ih`            | `[hidden_size, input_size]`                  | `U(-k, k)`, `k = 1/√hidden_size` |
/// | `weight_hh`            | `[hidden_size, hidden_size]`                 | as `weight_ih`                   |
/// | `bias_ih`, `bias_hh`   | `[hidden_size]`                              | as `weight_ih`; absent if `!bias` |
///
/// It is called with `x` and perhaps `h` (`input`, `hx`), and gives `h'`.
///
/// Source: `torch.nn.RNNCell`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct RNNCell {
    /// Size of the last axis of `x`.
    pub input_size: usize,
    /// Size of the last axis of the state.
    pub hidden_size: usize,
    /// Whether there are biases.
    pub bias: bool,
    /// What the new state goes through.
    pub nonlinearity: Nonlinearity,
}

impl RNNCell {
    /// Makes a cell with torch's defaults.
    pub fn new(input_size: usize, hidden_size: usize) -> Self {
        RNNCell { input_size, hidden_size, bias: true, nonlinearity: Nonlinearity::Tanh }
    }

    fn cell(&self) -> Cell {
        let RNNCell { input_size, hidden_size, bias, nonlinearity } = *self;
        Cell { name: "RNNCell", kind: Kind::Rnn(nonlinearity), input_size, hidden_size, bias }
    }
}

impl Module for RNNCell {
    fn uses_training(&self) -> bool {
        false
    }

    shared!();

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let next = self.cell().forward(call, arguments);
        next.map_or_else(|| call.trace.poison(), |next| next.h).into()
    }

    fn extra_repr(&self) -> String {
        let nonlinearity = match self.nonlinearity {
            Nonlinearity::Tanh => "",
            Nonlinearity::ReLU => ", nonlinearity=relu",
        };
        self.cell().extra_repr() + nonlinearity
    }
}

/// A step of long short-term memory: of `gates = W_ih · x + b_ih + W_hh · h + b_hh`, four blocks `i, f, g, o`,
/// `c' = σ(f) · c + σ(i) · tanh(g)` and `h' = σ(o) · tanh(c')`.
///
/// | value                        | shape                                        | at first                          |
/// |------------------------------|----------------------------------------------|-----------------------------------|
/// | `x`                          | `[batch, input_size]`, or without the batch  |                                   |
/// | `h`, `c`, `h'`, `c'`         | `[batch, hidden_size]`, or without the batch | zeros if not given                |
/// | `weight_ih`                  | `[4 · hidden_size, input_size]`              | `U(-k, k)`, `k = 1/√hidden_size`  |
/// | `weight_hh`                  | `[4 · hidden_size, hidden_size]`             | as `weight_ih`                    |
/// | `bias_ih`, `bias_hh`         | `[4 · hidden_size]`                          | as `weight_ih`; absent if `!bias` |
///
/// It is called with `x` and perhaps a tuple `(h, c)` (`input`, `hx`), and gives `(h', c')`.
///
/// Source: `torch.nn.LSTMCell`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct LSTMCell {
    /// Size of the last axis of `x`.
    pub input_size: usize,
    /// Size of the last axis of the states.
    pub hidden_size: usize,
    /// Whether there are biases.
    pub bias: bool,
}

/// A step of a gated recurrent unit: of `W_ih · x + b_ih` and `W_hh · h + b_hh`, three blocks each, marked `x` and
/// `h`, `r = σ(rₓ + rₕ)`, `z = σ(zₓ + zₕ)`, `n = tanh(nₓ + r · nₕ)` and `h' = (1 - z) · n + z · h`.
///
/// | value                  | shape                                        | at first                          |
/// |------------------------|----------------------------------------------|-----------------------------------|
/// | `x`                    | `[batch, input_size]`, or without the batch  |                                   |
/// | `h`, `h'`              | `[batch, hidden_size]`, or without the batch | zeros if not given                |
/// | `weight_ih`            | `[3 · hidden_size, input_size]`              | `U(-k, k)`, `k = 1/√hidden_size`  |
/// | `weight_hh`            | `[3 · hidden_size, hidden_size]`             | as `weight_ih`                    |
/// | `bias_ih`, `bias_hh`   | `[3 · hidden_size]`                          | as `weight_ih`; absent if `!bias` |
///
/// It is called with `x` and perhaps `h` (`input`, `hx`), and gives `h'`.
///
/// Source: `torch.nn.GRUCell`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct GRUCell {
    /// Size of the last axis of `x`.
    pub input_size: usize,
    /// Size of the last axis of the state.
    pub hidden_size: usize,
    /// Whether there are biases.
    pub bias: bool,
}

/// Makes a cell whose only settings are sizes and a bias.
macro_rules! gated {
    ($cell:ident, $kind:ident, $result:expr) => {
        impl $cell {
            /// Makes a cell with torch's defaults.
            pub fn new(input_size: usize, hidden_size: usize) -> Self {
                $cell { input_size, hidden_size, bias: true }
            }

            fn cell(&self) -> Cell {
                let $cell { input_size, hidden_size, bias } = *self;
                Cell { name: stringify!($cell), kind: Kind::$kind, input_size, hidden_size, bias }
            }
        }

        impl Module for $cell {
            fn uses_training(&self) -> bool {
                false
            }

            shared!();

            fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
                let next = self.cell().forward(call, arguments);
                next.map_or_else(|| call.trace.poison().into(), $result)
            }

            fn extra_repr(&self) -> String {
                self.cell().extra_repr()
            }
        }
    };
}

gated!(LSTMCell, Lstm, |next: State| {
    let parts = [Some(next.h), next.c].into_iter().flatten();
    parts.collect::<Vec<_>>().into()
});
gated!(GRUCell, Gru, |next: State| next.h.into());
