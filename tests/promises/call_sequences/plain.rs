//! Two linear layers in plain loops and double precision: what the calls of a step must give for one model.

use std::collections::BTreeMap;

/// Sizes of the input, between the layers, and of the result.
pub(super) const SIZES: [usize; 3] = [3, 4, 3];

/// What the names of the length and the direction of a normed weight begin with.
const NORMED: &str = "parametrizations.weight.original";

/// Numbers by the names of parameters.
pub(super) type Numbers = BTreeMap<String, Vec<f64>>;

/// A forward pass and what it was made of.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub(super) parameters: Numbers,
    pub(super) x: Vec<f64>,
    hidden: Vec<f64>,
    pub(super) y: Vec<f64>,
}

/// Rows of length one, each with the length that it had.
type Units = Vec<(f64, Vec<f64>)>;

/// Computes the weight of a layer, and its rows of length one if it is normed, each with its length.
fn weight(parameters: &Numbers, layer: usize) -> (Vec<f64>, Option<Units>) {
    if let Some(weight) = parameters.get(&format!("{layer}.weight")) {
        return (weight.clone(), None);
    }
    let [g, v] = [0, 1].map(|part| &parameters[&format!("{layer}.{NORMED}{part}")]);
    let unit = |row: &[f64]| {
        let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        (length, row.iter().map(|x| x / length).collect::<Vec<_>>())
    };
    let units: Vec<_> = v.chunks(SIZES[layer]).map(unit).collect();
    let rows = units.iter().zip(g).flat_map(|((_, row), g)| row.iter().map(move |x| x * g));
    (rows.collect(), Some(units))
}

fn linear(parameters: &Numbers, layer: usize, x: &[f64]) -> Vec<f64> {
    let (weight, _) = weight(parameters, layer);
    let bias = &parameters[&format!("{layer}.bias")];
    let row = |x: &[f64]| -> Vec<f64> {
        let dot = |row: &[f64]| row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
        weight.chunks(x.len()).zip(bias).map(|(row, bias)| dot(row) + bias).collect()
    };
    x.chunks(SIZES[layer]).flat_map(row).collect()
}

/// Adds the gradients of a layer's parameters to `all`; gives that of its input.
fn linear_back(
    parameters: &Numbers,
    layer: usize,
    x: &[f64],
    dy: &[f64],
    all: &mut Numbers,
) -> Vec<f64> {
    let (rows, columns) = (SIZES[layer + 1], SIZES[layer]);
    let (weight, units) = weight(parameters, layer);
    let (mut d_weight, mut d_bias) = (vec![0.0; rows * columns], vec![0.0; rows]);
    let mut dx = vec![0.0; x.len()];
    for (item, (x, dy)) in x.chunks(columns).zip(dy.chunks(rows)).enumerate() {
        for (row, dy) in dy.iter().enumerate() {
            d_bias[row] += dy;
            for (column, x) in x.iter().enumerate() {
                d_weight[row * columns + column] += dy * x;
                dx[item * columns + column] += dy * weight[row * columns + column];
            }
        }
    }
    let mut add = |name: &str, numbers: Vec<f64>| {
        let sum = all.entry(format!("{layer}.{name}")).or_insert_with(|| vec![0.0; numbers.len()]);
        sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
    };
    add("bias", d_bias);
    let Some(units) = units else {
        add("weight", d_weight);
        return dx;
    };
    let g = &parameters[&format!("{layer}.{NORMED}0")];
    let (mut d_g, mut d_v) = (Vec::new(), Vec::new());
    for ((d_row, (length, unit)), g) in d_weight.chunks(columns).zip(&units).zip(g) {
        let along: f64 = d_row.iter().zip(unit).map(|(a, b)| a * b).sum();
        d_g.push(along);
        d_v.extend(d_row.iter().zip(unit).map(|(d, unit)| g / length * (d - unit * along)));
    }
    add(&format!("{NORMED}0"), d_g);
    add(&format!("{NORMED}1"), d_v);
    dx
}

impl Pass {
    /// Runs a model.
    pub(super) fn new(parameters: &Numbers, x: Vec<f64>) -> Self {
        let hidden = linear(parameters, 0, &x);
        let y = linear(parameters, 1, &hidden);
        Pass { parameters: parameters.clone(), x, hidden, y }
    }

    /// Computes the mean cross entropy and its gradient.
    pub(super) fn loss(&self, targets: &[usize]) -> (f64, Vec<f64>) {
        let items = targets.len() as f64;
        let (mut loss, mut dy) = (0.0, Vec::new());
        for (y, &target) in self.y.chunks(SIZES[2]).zip(targets) {
            let largest = y.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = y.iter().map(|y| (y - largest).exp()).sum();
            loss += (sum.ln() + largest - y[target]) / items;
            let softmax = y.iter().map(|y| (y - largest).exp() / sum).enumerate();
            dy.extend(softmax.map(|(class, p)| (p - f64::from(u8::from(class == target))) / items));
        }
        (loss, dy)
    }

    /// Adds the gradients of the parameters.
    pub(super) fn backward(&self, dy: &[f64], all: &mut Numbers) {
        let d_hidden = linear_back(&self.parameters, 1, &self.hidden, dy, all);
        linear_back(&self.parameters, 0, &self.x, &d_hidden, all);
    }
}

/// Says whether numbers of single precision are these.
pub(super) fn is_near(found: &[f32], expected: &[f64]) -> bool {
    let scale = expected.iter().fold(1.0, |max: f64, x| max.max(x.abs()));
    let is_near =
        |(found, expected): (&f32, &f64)| (f64::from(*found) - expected).abs() < 1e-4 * scale;
    found.len() == expected.len() && found.iter().zip(expected).all(is_near)
}
