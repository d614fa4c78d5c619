//! What `RNN`, `LSTM` and `GRU` have in common: layers of cells that walk through sequences, in one direction or two.
//!
//! Each time step is recorded with its own ops, but what a layer gets from its inputs is one product for all of them.
//! The items go by time steps ([`Steps`]), so that sequences of one length and of several take the same way: as
//! sequences end, the batch gets smaller.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::packed::PackedSequence;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use neurarch_kernels::ops::recurrent::sequence::Steps;

use crate::layers::recurrent::cell::{Kind, State, Weights, given_state};
use crate::module::repr::{float, tuple};
use crate::module::{Call, Declare};

/// The attributes of the layers, beside their parameters.
pub(super) const ATTRIBUTES: &[&str] = &[
    "mode",
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
    "proj_size",
    "nonlinearity",
    "all_weights",
    "check_input",
    "check_hidden_size",
    "check_forward_args",
    "flatten_parameters",
    "get_expected_hidden_size",
    "permute_hidden",
    "reset_parameters",
];

/// The settings of all of them: torch's `RNNBase`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stack {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) input_size: usize,
    pub(super) hidden_size: usize,
    pub(super) num_layers: usize,
    pub(super) bias: bool,
    pub(super) batch_first: bool,
    pub(super) dropout: f64,
    pub(super) bidirectional: bool,
    pub(super) proj_size: usize,
}

/// Sequences on their way through the layers, and the form that they came in.
struct Entered {
    steps: Steps,
    form: Form,
}

/// How sequences came, and how they are given back.
#[derive(Clone, Copy)]
enum Form {
    /// `[T, N, ..]`, or `[N, T, ..]` if `batch_first`.
    Batch,
    /// `[T, ..]`.
    One,
    /// With their lengths.
    Packed { batch_first: bool },
}

/// What is wrong, in torch's words.
type Refused = String;

impl Stack {
    fn directions(&self) -> usize {
        if self.bidirectional { 2 } else { 1 }
    }

    /// Size of the hidden state, and of one direction's output.
    fn output_size(&self) -> usize {
        if self.proj_size > 0 { self.proj_size } else { self.hidden_size }
    }

    /// Names a parameter.
    fn parameter_name(&self, what: &str, layer: usize, direction: usize) -> String {
        let suffix = if direction == 1 { "_reverse" } else { "" };
        format!("{what}_l{layer}{suffix}")
    }

    pub(super) fn declare(&self, declare: &mut Declare) {
        let rows = self.kind.gates().saturating_mul(self.hidden_size);
        let output = self.output_size();
        let between = output.saturating_mul(self.directions());
        let of_cell = 2 + 2 * usize::from(self.bias) + usize::from(self.proj_size > 0);
        if !declare.takes(self.num_layers.saturating_mul(self.directions() * of_cell)) {
            return;
        }
        if self.dropout > 0.0 && self.num_layers == 1 {
            declare.warn(format!(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects num_layers \
                 greater than 1, but got dropout={} and num_layers=1",
                float(self.dropout)
            ));
        }
        for layer in 0..self.num_layers {
            let input = if layer == 0 { self.input_size } else { between };
            for direction in 0..self.directions() {
                let name = |what| self.parameter_name(what, layer, direction);
                declare.parameter(name("weight_ih"), [rows, input]);
                declare.parameter(name("weight_hh"), [rows, output]);
                if self.bias {
                    declare.parameter(name("bias_ih"), [rows]);
                    declare.parameter(name("bias_hh"), [rows]);
                }
                if self.proj_size > 0 {
                    declare.parameter(name("weight_hr"), [self.proj_size, self.hidden_size]);
                }
            }
        }
    }

    fn weights(&self, call: &Call<'_>, layer: usize, direction: usize) -> Weights {
        let of = |what| call.parameter(&self.parameter_name(what, layer, direction));
        Weights {
            ih: of("weight_ih"),
            hh: of("weight_hh"),
            bias_ih: self.bias.then(|| of("bias_ih")),
            bias_hh: self.bias.then(|| of("bias_hh")),
            hr: (self.proj_size > 0).then(|| of("weight_hr")),
        }
    }

    /// Writes down what the layers compute: the last layer's outputs, and the last state of each layer.
    pub(super) fn forward(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        self.run(call, arguments).unwrap_or_else(|| call.trace.poison().into())
    }

    /// [`forward`](Stack::forward); `None` after an error.
    fn run(&self, call: &Call<'_>, arguments: Arguments) -> Option<Tree> {
        let refuse = |message: Refused| drop(call.trace.fail(message));
        self.check_settings().map_err(refuse).ok()?;
        let [input, hx] = call.bind_or_none(arguments, ["input", "hx"], 1)?;
        let given =
            given_state(call.trace, self.kind, hx, "lstm expects two hidden states").ok()?;
        let weight = call.parameter(&self.parameter_name("weight_ih", 0, 0));
        if call.trace.error().is_some() {
            return None;
        }
        let Entered { steps, form } = match input {
            Tree::Leaf(x) => self.enter(&x, given.as_ref()).map_err(refuse).ok()?,
            Tree::Packed(packed) => {
                let form = Form::Packed { batch_first: packed.batch_first };
                Entered { steps: packed.steps()?, form }
            }
            other => {
                refuse(format!("'{}' object has no attribute 'dim'", other.type_name()));
                return None;
            }
        };
        let n = steps.n_sequences();
        let given = given.map(|state| match form {
            Form::One => state.map(|part| {
                let &[layers, size] = &**part.shape() else { return part.clone() };
                part.reshape([layers, 1, size])
            }),
            _ => state,
        });
        self.check(&steps, form, weight.dtype(), given.as_ref()).map_err(refuse).ok()?;
        let zeros = |size| call.trace.constant(0.0, weight.dtype(), [n, size]);
        let first = |number: usize| match &given {
            Some(state) => state
                .slice(number..number + 1)
                .map(|part| part.reshape(&part.shape()[1..]).select_rows(&steps.sorted_indices)),
            None => State {
                h: zeros(self.output_size()),
                c: (self.kind == Kind::Lstm).then(|| zeros(self.hidden_size)),
            },
        };
        let (data, last) = self.layers(call, &steps, first);
        let unsorted = steps.unsorted_indices();
        let last: Vec<_> = last
            .iter()
            .map(|state| {
                state.map(|part| {
                    let sizes = [1].into_iter().chain(part.shape().iter().copied());
                    part.select_rows(&unsorted).reshape(sizes.collect::<Vec<_>>())
                })
            })
            .collect();
        let last = State::cat(&last, 0);
        let last = match form {
            Form::One => last.map(|part| part.flatten(0, 1)),
            _ => last,
        };
        let output = self.leave(Steps { data, ..steps }, form);
        let states: Tree = match last.c {
            Some(c) => (last.h, c).into(),
            None => last.h.into(),
        };
        Some((output, states).into())
    }

    /// Walks through all layers; gives the outputs of the last one and the last state of each direction of each.
    fn layers(
        &self,
        call: &Call<'_>,
        steps: &Steps,
        first: impl Fn(usize) -> State,
    ) -> (Var, Vec<State>) {
        let (mut data, mut last) = (steps.data.clone(), Vec::new());
        for layer in 0..self.num_layers {
            if layer > 0 && self.dropout > 0.0 && call.training() {
                data = data.dropout(&call.scalar("dropout", data.dtype()));
            }
            let mut outputs = Vec::new();
            for direction in 0..self.directions() {
                let weights = self.weights(call, layer, direction);
                let walks = steps.is_even() && self.kind.walks(&data, &weights);
                let weights = if walks { weights.with_one_bias(self.kind) } else { weights };
                let inputs = weights.of_inputs(&data);
                let first = first(last.len());
                let apart = || inputs.split(0, &steps.batch_sizes);
                let (output, state) = match direction {
                    _ if walks => self.kind.walk(
                        &inputs,
                        &first,
                        &weights,
                        steps.batch_sizes.len(),
                        direction == 1,
                    ),
                    0 => self.forwards(&apart(), &steps.batch_sizes, first, &weights),
                    _ => self.backwards(&apart(), &steps.batch_sizes, &first, &weights),
                };
                outputs.push(output);
                last.push(state);
            }
            data = match &*outputs {
                [one] => one.clone(),
                _ => Var::cat(&outputs.iter().collect::<Vec<_>>(), -1),
            };
        }
        (data, last)
    }

    /// Walks from the first time step to the last: a sequence that ends leaves the batch.
    fn forwards(
        &self,
        inputs: &[Var],
        batch_sizes: &[usize],
        mut state: State,
        weights: &Weights,
    ) -> (Var, State) {
        let mut size = batch_sizes.first().copied().unwrap_or(0);
        let (mut outputs, mut ended) = (Vec::new(), Vec::new());
        for (x, &now) in inputs.iter().zip(batch_sizes) {
            if now < size {
                ended.push(state.slice(now..size));
                state = state.slice(0..now);
                size = now;
            }
            state = self.kind.step(x, &state, weights);
            outputs.push(state.h.clone());
        }
        ended.push(state);
        ended.reverse();
        let last = if let [one] = &*ended { one.clone() } else { State::cat(&ended, 0) };
        (Var::cat(&outputs.iter().collect::<Vec<_>>(), 0), last)
    }

    /// Walks from the last time step to the first: each sequence begins with its own end.
    fn backwards(
        &self,
        inputs: &[Var],
        batch_sizes: &[usize],
        first: &State,
        weights: &Weights,
    ) -> (Var, State) {
        let mut size = batch_sizes.last().copied().unwrap_or(0);
        let is_whole = batch_sizes.first() == Some(&size);
        let mut state = if is_whole { first.clone() } else { first.slice(0..size) };
        let mut outputs = Vec::new();
        for (x, &now) in inputs.iter().zip(batch_sizes).rev() {
            if now > size {
                state = State::cat(&[state, first.slice(size..now)], 0);
                size = now;
            }
            state = self.kind.step(x, &state, weights);
            outputs.push(state.h.clone());
        }
        (Var::cat(&outputs.iter().rev().collect::<Vec<_>>(), 0), state)
    }

    /// Takes sequences of one length apart by time steps.
    fn enter(&self, x: &Var, given: Option<&State>) -> Result<Entered, Refused> {
        let name = self.name;
        let rank = x.shape().rank();
        let (by_time, form) = match rank {
            2 => (x.clone(), Form::One),
            3 if self.batch_first => (x.transpose(0, 1), Form::Batch),
            3 => (x.clone(), Form::Batch),
            _ => {
                let tensor = if matches!(self.kind, Kind::Rnn(_)) { " tensor" } else { "" };
                return Err(format!(
                    "{name}: Expected input to be 2D or 3D, got {rank}D{tensor} instead"
                ));
            }
        };
        if let Some(state) = given {
            check_ranks(rank, state)?;
        }
        let (steps, n) = match **by_time.shape() {
            [steps, n, _] => (steps, n),
            [steps, _] => (steps, 1),
            _ => unreachable!("the rank is 2 or 3"),
        };
        let data = if rank == 3 { by_time.flatten(0, 1) } else { by_time };
        let sorted_indices = (0..n).collect();
        Ok(Entered { steps: Steps { data, batch_sizes: vec![n; steps], sorted_indices }, form })
    }

    /// Puts time steps together in the form that sequences came in.
    fn leave(&self, steps: Steps, form: Form) -> Tree {
        let size = steps.data.shape().last().copied().unwrap_or(0);
        match form {
            Form::Packed { batch_first } => {
                let packed: PackedSequence = steps.packed(batch_first);
                packed.into()
            }
            Form::One => steps.data.into(),
            Form::Batch => {
                let shape = [steps.batch_sizes.len(), steps.n_sequences(), size];
                let by_time = steps.data.reshape(shape);
                if self.batch_first { by_time.transpose(0, 1) } else { by_time }.into()
            }
        }
    }

    /// Checks types and sizes of what the layers are called with.
    fn check(
        &self,
        steps: &Steps,
        form: Form,
        dtype: Dtype,
        state: Option<&State>,
    ) -> Result<(), Refused> {
        let input = steps.data.ty();
        if input.dtype != dtype {
            let (input, dtype) = (input.dtype.torch_name(), dtype.torch_name());
            return Err(format!(
                "RNN input dtype ({input}) does not match weight dtype ({dtype}). Convert input: \
                 input.to({dtype}), or convert model: model.to({input})"
            ));
        }
        let rank = input.shape.rank();
        if rank != 2 {
            return Err(format!("input must have 2 dimensions, got {rank}"));
        }
        let (expected, size) = (self.input_size, input.shape[1]);
        if size != expected {
            return Err(format!(
                "input.size(-1) must be equal to input_size. Expected {expected}, got {size}"
            ));
        }
        let expected = |size| [self.num_layers * self.directions(), steps.n_sequences(), size];
        let parts = state.map(|state| [Some(&state.h), state.c.as_ref()]);
        let sizes = [self.output_size(), self.hidden_size];
        for (i, (part, size)) in parts.into_iter().flatten().zip(sizes).enumerate() {
            let Some(part) = part.filter(|part| **part.shape() != expected(size)) else { continue };
            let what = match self.kind {
                Kind::Lstm => format!("hidden[{i}]"),
                _ => "hidden".to_owned(),
            };
            let (expected, given) = (tuple(&expected(size)), part.shape());
            return Err(format!("Expected {what} size {expected}, got {given}"));
        }
        if steps.batch_sizes.is_empty() && !matches!(form, Form::Packed { .. }) {
            return Err("Expected sequence length to be larger than 0 in RNN".into());
        }
        Ok(())
    }

    /// Checks what torch checks when the layer is made.
    fn check_settings(&self) -> Result<(), Refused> {
        let wrong = match self {
            Stack { input_size: 0, .. } => "input_size must be greater than zero",
            Stack { hidden_size: 0, .. } => "hidden_size must be greater than zero",
            Stack { num_layers: 0, .. } => "num_layers must be greater than zero",
            Stack { proj_size, hidden_size, .. } if proj_size >= hidden_size => {
                "proj_size has to be smaller than hidden_size"
            }
            _ => return Ok(()),
        };
        Err(wrong.to_owned())
    }

    pub(super) fn extra_repr(&self) -> String {
        let mut text = format!("{}, {}", self.input_size, self.hidden_size);
        if self.proj_size != 0 {
            text += &format!(", proj_size={}", self.proj_size);
        }
        if self.num_layers != 1 {
            text += &format!(", num_layers={}", self.num_layers);
        }
        if !self.bias {
            text += ", bias=False";
        }
        if self.batch_first {
            text += ", batch_first=True";
        }
        if self.dropout != 0.0 {
            text += &format!(", dropout={}", float(self.dropout));
        }
        if self.bidirectional {
            text += ", bidirectional=True";
        }
        text
    }
}

/// Checks that states have a batch where the input, of rank 2 or 3, has one.
fn check_ranks(input: usize, state: &State) -> Result<(), Refused> {
    let h = state.h.shape().rank();
    let batched = if input == 3 { "batched" } else { "unbatched" };
    match &state.c {
        Some(c) if [h, c.shape().rank()] != [input; 2] => {
            let c = c.shape().rank();
            Err(format!(
                "For {batched} {input}-D input, hx and cx should also be {input}-D but got ({h}-D, {c}-D) tensors"
            ))
        }
        None if h != input => Err(format!(
            "For {batched} {input}-D input, hx should also be {input}-D but got {h}-D tensor"
        )),
        _ => Ok(()),
    }
}
