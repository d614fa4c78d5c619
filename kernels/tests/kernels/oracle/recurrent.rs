//! Recurrent layers, step after step. Rows are those of the batch of the first step, then of the second.

use super::elementwise::sigmoid;
use super::interpreter::{Call, Compute};

pub(crate) const TABLE: &[(&str, Compute)] = &[
    ("lstm", lstm),
    ("gru", gru),
    ("lstm_gradient", lstm_gradient),
    ("gru_gradient", gru_gradient),
];

/// How the rows of the steps follow each other.
struct Walk {
    batch: usize,
    hidden: usize,
    /// The steps in their order.
    steps: Vec<usize>,
}

impl Walk {
    fn new(call: &Call<'_>, rows: usize, hidden: usize) -> Walk {
        let count = call.number("steps=") as usize;
        let mut steps: Vec<_> = (0..count).collect();
        if call.has("reverse") {
            steps.reverse();
        }
        Walk { batch: rows / count, hidden, steps }
    }

    /// Lists rows with those of the step before, which the first step has none of.
    fn rows(&self) -> Vec<(usize, Option<usize>, usize)> {
        let befores = [None].into_iter().chain(self.steps.iter().map(|&step| Some(step)));
        let pairs = self.steps.iter().zip(befores);
        pairs
            .flat_map(|(&step, before)| {
                (0..self.batch).map(move |item| {
                    let row = |step: usize| step * self.batch + item;
                    (row(step), before.map(row), item)
                })
            })
            .collect()
    }

    /// A row of states; of the first ones before all steps.
    fn state<'a>(
        &self,
        states: &'a [f64],
        first: &'a [f64],
        row: Option<usize>,
        item: usize,
    ) -> &'a [f64] {
        match row {
            Some(row) => &states[row * self.hidden..][..self.hidden],
            None => &first[item * self.hidden..][..self.hidden],
        }
    }
}

/// `weight · h + bias`, for rows of the weight.
fn times(weight: &[f64], h: &[f64], bias: Option<&[f64]>) -> Vec<f64> {
    let row = |(i, row): (usize, &[f64])| {
        row.iter().zip(h).map(|(w, h)| w * h).sum::<f64>() + bias.map_or(0.0, |bias| bias[i])
    };
    weight.chunks(h.len()).enumerate().map(row).collect()
}

fn lstm(call: &Call<'_>) -> Vec<Vec<f64>> {
    let hidden = call.x[1].ty.shape[1];
    let rows = call.x[0].ty.shape[0];
    let walk = Walk::new(call, rows, hidden);
    let bias = call.x.get(4).map(|bias| &bias.elements[..]);
    let (mut h, mut c) = (vec![0.0; rows * hidden], vec![0.0; rows * hidden]);
    let mut gates = vec![0.0; rows * 4 * hidden];
    for (row, before, item) in walk.rows() {
        let old = walk.state(&h, &call.x[2].elements, before, item).to_vec();
        let cell = walk.state(&c, &call.x[3].elements, before, item).to_vec();
        let own = times(&call.x[1].elements, &old, bias);
        for j in 0..hidden {
            let sum = |gate: usize| {
                let at = gate * hidden + j;
                call.x[0].elements[row * 4 * hidden + at] + own[at]
            };
            let [i, f, g, o] = [sigmoid(sum(0)), sigmoid(sum(1)), sum(2).tanh(), sigmoid(sum(3))];
            let new = f * cell[j] + i * g;
            (c[row * hidden + j], h[row * hidden + j]) = (new, o * new.tanh());
            for (gate, value) in [i, f, g, o].into_iter().enumerate() {
                gates[row * 4 * hidden + gate * hidden + j] = value;
            }
        }
    }
    vec![h, c, gates]
}

fn gru(call: &Call<'_>) -> Vec<Vec<f64>> {
    let hidden = call.x[1].ty.shape[1];
    let rows = call.x[0].ty.shape[0];
    let walk = Walk::new(call, rows, hidden);
    let bias = call.x.get(3).map(|bias| &bias.elements[..]);
    let (mut h, mut memory) = (vec![0.0; rows * hidden], vec![0.0; rows * hidden]);
    let mut gates = vec![0.0; rows * 3 * hidden];
    for (row, before, item) in walk.rows() {
        let old = walk.state(&h, &call.x[2].elements, before, item).to_vec();
        let own = times(&call.x[1].elements, &old, bias);
        for j in 0..hidden {
            let x = |gate: usize| call.x[0].elements[(row * 3 + gate) * hidden + j];
            let of_state = |gate: usize| own[gate * hidden + j];
            let r = sigmoid(x(0) + of_state(0));
            let z = sigmoid(x(1) + of_state(1));
            let n = (x(2) + r * of_state(2)).tanh();
            h[row * hidden + j] = (1.0 - z) * n + z * old[j];
            memory[row * hidden + j] = of_state(2);
            for (gate, value) in [r, z, n].into_iter().enumerate() {
                gates[(row * 3 + gate) * hidden + j] = value;
            }
        }
    }
    vec![h, memory, gates]
}

/// `dgates · weight`.
fn back(weight: &[f64], dgates: &[f64], hidden: usize) -> Vec<f64> {
    let column =
        |j: usize| dgates.iter().enumerate().map(|(i, d)| d * weight[i * hidden + j]).sum();
    (0..hidden).map(column).collect()
}

fn lstm_gradient(call: &Call<'_>) -> Vec<Vec<f64>> {
    let [dh, gates, weight, cells, first, dc] = call.x else { panic!("six inputs") };
    let (rows, hidden) = (dh.ty.shape[0], dh.ty.shape[1]);
    let walk = Walk::new(call, rows, hidden);
    let mut dx = vec![0.0; rows * 4 * hidden];
    let (mut later_h, mut later_c) =
        (vec![0.0; walk.batch * hidden], vec![0.0; walk.batch * hidden]);
    for (row, before, item) in walk.rows().into_iter().rev() {
        let old = walk.state(&cells.elements, &first.elements, before, item);
        for j in 0..hidden {
            let gate = |gate: usize| gates.elements[(row * 4 + gate) * hidden + j];
            let [i, f, g, o] = [0, 1, 2, 3].map(gate);
            let t = cells.elements[row * hidden + j].tanh();
            let later = item * hidden + j;
            let dh = dh.elements[row * hidden + j] + later_h[later];
            let dc = dc.elements[row * hidden + j] + later_c[later] + dh * o * (1.0 - t * t);
            later_c[later] = dc * f;
            let of = [
                dc * g * i * (1.0 - i),
                dc * old[j] * f * (1.0 - f),
                dc * i * (1.0 - g * g),
                dh * t * o * (1.0 - o),
            ];
            for (gate, of) in of.into_iter().enumerate() {
                dx[(row * 4 + gate) * hidden + j] = of;
            }
        }
        let dgates = &dx[row * 4 * hidden..][..4 * hidden];
        let of_state = back(&weight.elements, dgates, hidden);
        later_h[item * hidden..][..hidden].copy_from_slice(&of_state);
    }
    vec![dx, later_h, later_c]
}

fn gru_gradient(call: &Call<'_>) -> Vec<Vec<f64>> {
    let [dh, gates, weight, states, first, memory] = call.x else { panic!("six inputs") };
    let (rows, hidden) = (dh.ty.shape[0], dh.ty.shape[1]);
    let walk = Walk::new(call, rows, hidden);
    let mut dx = vec![0.0; rows * 3 * hidden];
    let mut of_states = dx.clone();
    let mut later = vec![0.0; walk.batch * hidden];
    for (row, before, item) in walk.rows().into_iter().rev() {
        let old = walk.state(&states.elements, &first.elements, before, item);
        let mut kept = vec![0.0; hidden];
        for j in 0..hidden {
            let gate = |gate: usize| gates.elements[(row * 3 + gate) * hidden + j];
            let [r, z, n] = [0, 1, 2].map(gate);
            let dh = dh.elements[row * hidden + j] + later[item * hidden + j];
            kept[j] = dh * z;
            let of_n = dh * (1.0 - z) * (1.0 - n * n);
            let of_r = of_n * memory.elements[row * hidden + j] * r * (1.0 - r);
            let of_z = dh * (old[j] - n) * z * (1.0 - z);
            for (gate, [x, state]) in
                [[of_r, of_r], [of_z, of_z], [of_n, of_n * r]].into_iter().enumerate()
            {
                dx[(row * 3 + gate) * hidden + j] = x;
                of_states[(row * 3 + gate) * hidden + j] = state;
            }
        }
        let of_state = back(&weight.elements, &of_states[row * 3 * hidden..][..3 * hidden], hidden);
        for j in 0..hidden {
            later[item * hidden + j] = kept[j] + of_state[j];
        }
    }
    vec![dx, later, of_states]
}
