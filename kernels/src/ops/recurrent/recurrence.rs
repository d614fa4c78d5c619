//! `lstm` and `gru`: all time steps of a recurrent layer in one op, once its inputs are multiplied by their weight.
//!
//! Sequences are `[T · N, ..]`: the batch of the first time step, then that of the second. Each row of the batch
//! goes through time by itself, so the batch may be shared out over threads.
//!
//! Source: `torch.nn.LSTM`, `torch.nn.GRU`.

mod cell;
mod kernel;

pub use cell::Cell;
use kernel::{BackKernel, Sizes, StepsKernel};

use crate::cpu::kernel::Cpu;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, GradientAt, Op, OpError};
use crate::ir::shape::{Operand, Shape, Type};
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::{computes, same_dtype};
use crate::ops::linalg::linear;
use crate::passes::differentiate::backward;

/// What a walk through time gives.
#[derive(Clone, Debug)]
pub struct Walked {
    /// The hidden states, `[T · N, H]`.
    pub h: Var,
    /// Of an LSTM the cell states, of a GRU what the new number gets from the old state; `[T · N, H]`.
    pub memory: Var,
}

/// Walks through time. Inputs are what all steps get from their inputs, `[T · N, gates · H]`, the weight of the
/// state, `[gates · H, H]`, the first state, `[N, H]`, of an LSTM the first cell state, and perhaps a bias. Outputs
/// are the states, the [memory](Walked::memory) and the gates behind their functions, `[T · N, gates · H]`.
#[derive(Clone, Copy, Debug)]
struct Recurrence {
    cell: Cell,
    steps: usize,
    /// Whether the last time step comes first.
    reverse: bool,
}

/// Walks back. Inputs are the gradient of the states, the gates, the weight, then of an LSTM the cell states, the first
/// of them and the gradient of the cell states, and of a GRU the states, the first of them and the memory. Outputs
/// are the gradient of what the steps get from their inputs, of the first state, and of an LSTM that of the first
/// cell state, of a GRU that of what the steps get from the old state.
#[derive(Clone, Copy, Debug)]
struct RecurrenceGradient(Recurrence);

impl Recurrence {
    /// Counts the inputs without a bias.
    fn inputs(self) -> usize {
        match self.cell {
            Cell::Lstm => 4,
            Cell::Gru => 3,
        }
    }

    fn sizes(self, rows: usize, hidden: usize) -> Sizes {
        let Recurrence { cell, steps, reverse } = self;
        Sizes { cell, steps, batch: rows / steps.max(1), hidden, reverse }
    }

    /// Gives the shapes of a sequence of gates and of states, and that of one state.
    fn shapes(self, rows: usize, hidden: usize) -> [Shape; 3] {
        let gates = self.cell.gates() * hidden;
        [[rows, gates], [rows, hidden], [rows / self.steps.max(1), hidden]].map(Shape::from)
    }

    fn attributes(self) -> String {
        let reverse = if self.reverse { " reverse" } else { "" };
        format!("steps={}{reverse}", self.steps)
    }

    /// Checks shapes and types.
    fn check(name: &str, inputs: &[Type], expected: &[&Shape]) -> Result<(), OpError> {
        let wrong = |given: &Type| OpError(format!("{name}: did not expect an input of {given}"));
        for (number, input) in inputs.iter().enumerate() {
            same_dtype(name, &inputs[0], input)?;
            if expected.get(number).is_none_or(|shape| **shape != input.shape) {
                return Err(wrong(input));
            }
        }
        match inputs.len() == expected.len() {
            true => Ok(()),
            false => Err(OpError(format!("{name}: got {} inputs", inputs.len()))),
        }
    }

    /// Gives rows and features of the states from the gates and the weight.
    fn rows(self, name: &str, gates: &Type, weight: &Type) -> Result<(usize, usize), OpError> {
        computes(name, gates)?;
        match (&*gates.shape, &*weight.shape) {
            (&[rows, _], &[_, hidden]) if self.steps > 0 && rows % self.steps == 0 => {
                Ok((rows, hidden))
            }
            _ => Err(OpError(format!("{name}: {gates} and {weight} do not fit"))),
        }
    }

    /// Writes the walk down with other ops: states, memory, gates.
    fn written(self, inputs: &[Var]) -> Vec<Var> {
        let Recurrence { cell, steps, reverse } = self;
        let (x, weight, bias) = (&inputs[0], &inputs[1], inputs.get(self.inputs()));
        let (mut h, mut c) = (inputs[2].clone(), inputs.get(3).cloned());
        let batch = h.shape()[0];
        let mut all = x.split(0, &vec![batch; steps]);
        if reverse {
            all.reverse();
        }
        let mut parts: [Vec<Var>; 3] = Default::default();
        for x in all {
            let of_state = h.linear(weight, bias);
            let (memory, gates);
            match (cell, &c) {
                (Cell::Lstm, Some(old)) => {
                    let [i, f, g, o] = (x + of_state).chunk(-1);
                    let [i, f, g, o] = [i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()];
                    memory = &f * old + &i * &g;
                    h = &o * memory.tanh();
                    gates = Var::cat(&[&i, &f, &g, &o], -1);
                    c = Some(memory.clone());
                }
                _ => {
                    let ([xr, xz, xn], [hr, hz, hn]) = (x.chunk(-1), of_state.chunk(-1));
                    let (r, z) = ((xr + hr).sigmoid(), (xz + hz).sigmoid());
                    let n = (xn + &r * &hn).tanh();
                    h = &z * (&h - &n) + &n;
                    gates = Var::cat(&[&r, &z, &n], -1);
                    memory = hn;
                }
            }
            let results = [h.clone(), memory, gates];
            parts.iter_mut().zip(results).for_each(|(parts, result)| parts.push(result));
        }
        let join = |mut parts: Vec<Var>| {
            if reverse {
                parts.reverse();
            }
            Var::cat(&parts.iter().collect::<Vec<_>>(), 0)
        };
        parts.map(join).to_vec()
    }

    /// Records the backward pass with other ops.
    fn written_back(self, inputs: &[Var]) -> Vec<Var> {
        let Recurrence { cell, steps, reverse } = self;
        let [dh, gates, weight, states, first, extra] = inputs else { return Vec::new() };
        let batch = first.shape()[0];
        let apart = |x: &Var| {
            let mut parts = x.split(0, &vec![batch; steps]);
            if reverse {
                parts.reverse();
            }
            parts
        };
        let [dh, gates, states, extra] = [dh, gates, states, extra].map(apart);
        let (mut of_state, mut of_cell): (Option<Var>, Option<Var>) = (None, None);
        let (mut of_x, mut of_h) = (Vec::new(), Vec::new());
        let later = |now: &Var, later: &Option<Var>| match later {
            Some(later) => now + later,
            None => now.clone(),
        };
        for t in (0..steps).rev() {
            let old = if t == 0 { first } else { &states[t - 1] };
            let dh = later(&dh[t], &of_state);
            if cell == Cell::Lstm {
                let [i, f, g, o] = gates[t].chunk(-1);
                let tanh = states[t].tanh();
                let dc = later(&extra[t], &of_cell) + &dh * &o * (1.0 - tanh.square());
                let parts = [
                    &dc * &g * &i * (1.0 - &i),
                    &dc * old * &f * (1.0 - &f),
                    &dc * &i * (1.0 - g.square()),
                    &dh * &tanh * &o * (1.0 - &o),
                ];
                let gates = Var::cat(&parts.each_ref(), -1);
                of_state = Some(gates.matmul(weight));
                of_cell = Some(&dc * &f);
                of_x.push(gates);
            } else {
                let [r, z, n] = gates[t].chunk(-1);
                let dn = &dh * (1.0 - &z) * (1.0 - n.square());
                let dr = &dn * &extra[t] * &r * (1.0 - &r);
                let dz = &dh * (old - &n) * &z * (1.0 - &z);
                let own = Var::cat(&[&dr, &dz, &(&dn * &r)], -1);
                of_state = Some(&dh * &z + own.matmul(weight));
                of_x.push(Var::cat(&[&dr, &dz, &dn], -1));
                of_h.push(own);
            }
        }
        let join = |mut parts: Vec<Var>| {
            if !reverse {
                parts.reverse();
            }
            Var::cat(&parts.iter().collect::<Vec<_>>(), 0)
        };
        let last = of_cell.unwrap_or_else(|| join(of_h));
        vec![join(of_x), of_state.unwrap_or_else(|| first.clone()), last]
    }
}

/// Differentiates what `write` records of the inputs, for gradients that no kernel is there for.
fn gradient_of_written(
    at: &GradientAt<'_>,
    write: impl Fn(&[Var]) -> Vec<Var>,
) -> Vec<Option<Var>> {
    // What the inputs depend on is not this op's business.
    let inputs: Vec<_> = at.inputs.iter().map(Var::detach).collect();
    let results = write(&inputs).into_iter().zip(at.gradients);
    let pairs: Vec<_> = results.filter_map(|(y, dy)| Some((y, dy.clone()?))).collect();
    let gradients = backward(inputs[0].trace(), &pairs, &inputs).into_iter().zip(&inputs);
    let zeros = |x: &Var| x.trace().constant(0.0, x.dtype(), x.shape().clone());
    gradients.map(|(gradient, x)| Some(gradient.unwrap_or_else(|| zeros(x)))).collect()
}

impl Op for Recurrence {
    fn name(&self) -> &'static str {
        self.cell.name()
    }

    fn attributes(&self) -> String {
        Recurrence::attributes(*self)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let name = self.cell.name();
        let [x, weight, ..] = inputs else {
            return Err(OpError(format!("{name}: got {} inputs", inputs.len())));
        };
        let (rows, hidden) = self.rows(name, x, weight)?;
        let [gates, states, state] = self.shapes(rows, hidden);
        let of_weight = Shape::from([self.cell.gates() * hidden, hidden]);
        let bias = Shape::from([self.cell.gates() * hidden]);
        let mut expected = vec![&gates, &of_weight, &state];
        expected.extend((self.cell == Cell::Lstm).then_some(&state));
        expected.extend((inputs.len() > self.inputs()).then_some(&bias));
        Recurrence::check(name, inputs, &expected)?;
        let of = |shape: &Shape| Type { dtype: x.dtype, shape: shape.clone() };
        Ok(vec![of(&states), of(&states), of(&gates)])
    }

    fn cost(&self, inputs: &[Type], outputs: &[Type]) -> usize {
        2 * inputs[0].shape.numel() * outputs[0].shape[1]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            inputs.iter().chain(outputs).for_each(Operand::assert_addressable);
            let sizes = self.sizes(inputs[0].ty.shape[0], inputs[1].ty.shape[1]);
            let bias = (inputs.len() > self.inputs()).then_some(self.inputs());
            match inputs[0].ty.dtype {
                Dtype::F64 => Box::new(StepsKernel::<f64>::new(sizes, bias)),
                _ => Box::new(StepsKernel::<f32>::new(sizes, bias)),
            }
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let [dh, dmemory, dgates] = at.gradients else { return vec![None; at.inputs.len()] };
        let is_lstm = self.cell == Cell::Lstm;
        if dgates.is_some() || !is_lstm && dmemory.is_some() {
            return gradient_of_written(at, |inputs| self.written(inputs));
        }
        let (weight, first) = (&at.inputs[1], &at.inputs[2]);
        let [h, memory, gates] = at.outputs else { return vec![None; at.inputs.len()] };
        let zeros = || h.trace().constant(0.0, h.dtype(), h.shape().clone());
        let dh = dh.clone().unwrap_or_else(zeros);
        let op = RecurrenceGradient(*self);
        let [of_x, of_first, third] = match is_lstm {
            true => {
                let dc = dmemory.clone().unwrap_or_else(zeros);
                let inputs = [&dh, gates, weight, memory, &at.inputs[3], &dc];
                h.trace().apply_n(op, &inputs)
            }
            false => h.trace().apply_n(op, &[&dh, gates, weight, h, first, memory]),
        };
        let of_state = if is_lstm { &of_x } else { &third };
        let of_weight = at.needs[1].then(|| {
            let (rows, batch) = (h.shape()[0], first.shape()[0]);
            let before = match self.reverse {
                false => Var::cat(&[first, &h.slice(0, 0..rows - batch)], 0),
                true => Var::cat(&[&h.slice(0, batch..rows), first], 0),
            };
            linear::weight_gradient(of_state, &before)
        });
        let mut gradients = vec![Some(of_x.clone()), of_weight, Some(of_first)];
        gradients.extend(is_lstm.then(|| Some(third.clone())));
        if at.inputs.len() > self.inputs() {
            gradients.push(at.needs[self.inputs()].then(|| of_state.sum(&[0], false)));
        }
        gradients
    }
}

impl Op for RecurrenceGradient {
    fn name(&self) -> &'static str {
        match self.0.cell {
            Cell::Lstm => "lstm_gradient",
            Cell::Gru => "gru_gradient",
        }
    }

    fn attributes(&self) -> String {
        self.0.attributes()
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [_, gates, weight, ..] = inputs else {
            return Err(OpError(format!("{}: got {} inputs", self.name(), inputs.len())));
        };
        let (rows, hidden) = self.0.rows(self.name(), gates, weight)?;
        let [gates, states, state] = self.0.shapes(rows, hidden);
        let expected = [&states, &gates, &weight.shape, &states, &state, &states];
        Recurrence::check(self.name(), inputs, &expected)?;
        let third = if self.0.cell == Cell::Lstm { &state } else { &gates };
        let of = |shape: &Shape| Type { dtype: inputs[0].dtype, shape: shape.clone() };
        Ok(vec![of(&gates), of(&state), of(third)])
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        2 * inputs[1].shape.numel() * inputs[2].shape[1]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, outputs| {
            inputs.iter().chain(outputs).for_each(Operand::assert_addressable);
            let sizes = self.0.sizes(inputs[1].ty.shape[0], inputs[2].ty.shape[1]);
            match inputs[0].ty.dtype {
                Dtype::F64 => Box::new(BackKernel::<f64>::new(sizes)),
                _ => Box::new(BackKernel::<f32>::new(sizes)),
            }
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        gradient_of_written(at, |inputs| self.0.written_back(inputs))
    }
}

impl Var {
    /// Walks through the time steps of an LSTM: of `gates = x + weight · h + bias`, four blocks `i, f, g, o`,
    /// `c' = σ(f) · c + σ(i) · tanh(g)` and `h' = σ(o) · tanh(c')`.
    ///
    /// # Shape
    ///
    /// `self`, what each step gets from its input, is `[T · N, 4 · H]`, `weight` `[4 · H, H]`, `bias` `[4 · H]`, the
    /// first states `h` and `c` `[N, H]`. With `reverse`, the last step comes first.
    ///
    /// Source: `torch.nn.LSTM`.
    #[must_use]
    pub fn lstm(
        &self,
        weight: &Var,
        bias: Option<&Var>,
        [h, c]: [&Var; 2],
        steps: usize,
        reverse: bool,
    ) -> Walked {
        let op = Recurrence { cell: Cell::Lstm, steps, reverse };
        self.walk(op, &[self, weight, h, c], bias)
    }

    /// Walks through the time steps of a GRU: of `x` and `weight · h + bias`, three blocks each, marked `x` and `h`,
    /// `r = σ(rₓ + rₕ)`, `z = σ(zₓ + zₕ)`, `n = tanh(nₓ + r · nₕ)` and `h' = (1 - z) · n + z · h`.
    ///
    /// # Shape
    ///
    /// As those of [`lstm`](Var::lstm), with three blocks.
    ///
    /// Source: `torch.nn.GRU`.
    #[must_use]
    pub fn gru(
        &self,
        weight: &Var,
        bias: Option<&Var>,
        h: &Var,
        steps: usize,
        reverse: bool,
    ) -> Walked {
        let op = Recurrence { cell: Cell::Gru, steps, reverse };
        self.walk(op, &[self, weight, h], bias)
    }

    fn walk(&self, op: Recurrence, inputs: &[&Var], bias: Option<&Var>) -> Walked {
        let inputs: Vec<_> = inputs.iter().copied().chain(bias).collect();
        let [h, memory, _] = self.trace().apply_n(op, &inputs);
        Walked { h, memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, check_gradient, evaluate};

    fn of(shape: &[usize], pitch: f64) -> Array {
        Array::from_fn(Dtype::F64, shape, |i| (pitch * i as f64 + 0.5).sin())
    }

    /// Inputs of a walk of `steps` steps, with a bias last.
    fn inputs(cell: Cell, steps: usize, batch: usize, hidden: usize) -> Vec<Array> {
        let features = cell.gates() * hidden;
        let mut inputs = vec![of(&[steps * batch, features], 0.7), of(&[features, hidden], 1.1)];
        inputs.push(of(&[batch, hidden], 1.7));
        inputs.extend((cell == Cell::Lstm).then(|| of(&[batch, hidden], 2.3)));
        inputs.push(of(&[features], 0.3));
        inputs
    }

    fn recurrences() -> impl Iterator<Item = Recurrence> {
        let both = [Cell::Lstm, Cell::Gru].into_iter();
        both.flat_map(|cell| [false, true].map(|reverse| Recurrence { cell, steps: 3, reverse }))
    }

    #[test]
    fn a_walk_is_what_other_ops_give_step_by_step() {
        for op in recurrences() {
            for hidden in [1, 5, 33] {
                let inputs = inputs(op.cell, 3, 2, hidden);
                for output in 0..3 {
                    let apply = |v: &[Var]| {
                        let v: Vec<_> = v.iter().collect();
                        v[0].trace().apply_n::<3>(op, &v)[output].clone()
                    };
                    let found = evaluate(apply, &inputs, &[]);
                    let expected = evaluate(|v| op.written(v).swap_remove(output), &inputs, &[]);
                    for (found, expected) in found.elements.iter().zip(&expected.elements) {
                        assert!(
                            (found - expected).abs() < 1e-13,
                            "{op:?}: {found}, not {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn gradients_are_the_slopes_of_forward() {
        for op in recurrences() {
            let both = |v: &[Var]| {
                let v: Vec<_> = v.iter().collect();
                let [h, memory, gates] = v[0].trace().apply_n(op, &v);
                match op.cell {
                    Cell::Lstm => [h.clone() + memory, h + gates.slice(1, 0..2)],
                    Cell::Gru => [h.clone(), memory + gates.slice(1, 0..2)],
                }
            };
            // Those that the kernel computes, and those that it does not.
            for way in 0..2 {
                check_gradient(|v| both(v)[way].clone(), &inputs(op.cell, 3, 2, 2), 1e-6);
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let error = |shapes: [&[usize]; 3]| {
            let trace = crate::ir::trace::Trace::new();
            let [x, weight, h] = shapes.map(|shape| trace.input(Type::new(Dtype::F32, shape)));
            let _ = x.gru(&weight, None, &h, 2, false);
            trace.error().map(|error| error.message).unwrap_or_default()
        };
        assert_eq!(error([&[4, 6], &[6, 2], &[2, 2]]), "");
        assert!(error([&[5, 6], &[6, 2], &[2, 2]]).contains("do not fit"));
        assert!(error([&[4, 6], &[6, 2], &[1, 2]]).contains("did not expect an input of"));
    }
}
