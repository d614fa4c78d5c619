//! Products: layers, matrices, convolutions.

use neurarch_kernels::testing::Array;

use super::elementwise::{normal, sigmoid};
use super::interpreter::{Call, Compute, coordinates, place};

pub(crate) const TABLE: &[(&str, Compute)] = &[
    ("linear", |call| {
        let (x, w) = (&call.x[0].elements, &call.x[1]);
        let [out, inner] = w.ty.shape[..] else { panic!("a matrix") };
        let activation = |y: f64| match call.attributes {
            "" => y,
            "relu" => y.max(0.0),
            "tanh" => y.tanh(),
            "sigmoid" => sigmoid(y),
            "silu" => y * sigmoid(y),
            "gelu" => y * normal(false, y),
            "gelu approximate=tanh" => y * normal(true, y),
            other => panic!("linear {other}"),
        };
        let of = |at: usize| {
            let (row, o) = (at / out, at % out);
            let sum: f64 = (0..inner).map(|k| x[row * inner + k] * w.elements[o * inner + k]).sum();
            activation(sum + call.x.get(2).map_or(0.0, |bias| bias.elements[o]))
        };
        vec![(0..call.outputs[0].shape.numel()).map(of).collect()]
    }),
    ("linear_input_gradient", |call| {
        let (dy, w) = (&call.x[0].elements, &call.x[1]);
        let [out, inner] = w.ty.shape[..] else { panic!("a matrix") };
        let of = |at: usize| {
            let (row, i) = (at / inner, at % inner);
            match call.has("relu_gradient") && call.x[2].elements[at] == 0.0 {
                true => 0.0,
                false => (0..out).map(|o| dy[row * out + o] * w.elements[o * inner + i]).sum(),
            }
        };
        vec![(0..call.outputs[0].shape.numel()).map(of).collect()]
    }),
    ("linear_weight_gradient", |call| {
        let (dy, x) = (&call.x[0].elements, &call.x[1].elements);
        let [out, inner] = call.outputs[0].shape[..] else { panic!("a matrix") };
        let rows = dy.len().checked_div(out).unwrap_or(0);
        let of = |at: usize| {
            let (o, i) = (at / inner, at % inner);
            (0..rows).map(|row| dy[row * out + o] * x[row * inner + i]).sum()
        };
        vec![(0..out * inner).map(of).collect()]
    }),
    ("matmul", |call| {
        let [a, b] = call.x else { panic!("two inputs") };
        let (turn_a, turn_b) = (call.has("transpose_a"), call.has("transpose_b"));
        let inner = a.ty.shape[a.ty.shape.rank() - if turn_a { 2 } else { 1 }];
        let of = |at: Vec<usize>| {
            let (batch, [m, n]) = at.split_at(at.len() - 2) else { panic!("matrices") };
            let element = |x: &Array, turn: bool, row: usize, column: usize| {
                let shape = &x.ty.shape;
                let leading = shape.rank() - 2;
                let own = batch[batch.len() - leading..].iter().zip(shape.iter());
                let own = own.map(|(&i, &size)| if size == 1 { 0 } else { i });
                let last = if turn { [column, row] } else { [row, column] };
                x.elements[place(shape, &own.chain(last).collect::<Vec<_>>())]
            };
            (0..inner).map(|k| element(a, turn_a, *m, k) * element(b, turn_b, k, *n)).sum()
        };
        vec![coordinates(&call.outputs[0].shape).into_iter().map(of).collect()]
    }),
    ("convolution", |call| convolve(call, [Some(0), Some(1), None])),
    ("convolution_input", |call| convolve(call, [None, Some(1), Some(0)])),
    ("convolution_weight", |call| convolve(call, [Some(0), None, Some(1)])),
];

/// `Σ x[n, c, y·stride + k·dilation - padding] · weight[o, c, k] · y[n, o, y]`, differentiated by the factor that is
/// no input: adds each term to the element that it is a multiple of.
fn convolve(call: &Call<'_>, inputs: [Option<usize>; 3]) -> Vec<Vec<f64>> {
    let (stride, padding) = (call.list("stride="), call.list("padding="));
    let (dilation, groups) = (call.list("dilation="), call.number("groups=") as usize);
    let shape = |factor: usize| match inputs[factor] {
        Some(input) => call.x[input].ty.shape.to_vec(),
        None => call.outputs[0].shape.to_vec(),
    };
    let [x, weight, y] = [0, 1, 2].map(shape);
    let mut sums = vec![0.0; call.outputs[0].shape.numel()];
    let channels_of_group = y[1] / groups;
    let kernels = coordinates(&weight[2..]);
    for at in coordinates(&y) {
        for c in 0..weight[1] {
            for k in &kernels {
                let along = |axis: usize| {
                    let place = at[2 + axis] * stride[axis] + k[axis] * dilation[axis];
                    place.checked_sub(padding[2 * axis]).filter(|&place| place < x[2 + axis])
                };
                let Some(places) = (0..k.len()).map(along).collect::<Option<Vec<_>>>() else {
                    continue;
                };
                let channel = at[1] / channels_of_group * weight[1] + c;
                let of_x = [vec![at[0], channel], places].concat();
                let of_weight = [vec![at[1], c], k.clone()].concat();
                let places = [place(&x, &of_x), place(&weight, &of_weight), place(&y, &at)];
                let mut term = 1.0;
                for (input, &place) in inputs.iter().zip(&places) {
                    term *= input.map_or(1.0, |input| call.x[input].elements[place]);
                }
                let result = inputs.iter().position(Option::is_none).expect("one is the result");
                sums[places[result]] += term;
            }
        }
    }
    if let Some(bias) = call.x.get(2) {
        for (at, sum) in coordinates(&y).iter().zip(&mut sums) {
            *sum += bias.elements[at[1]];
        }
    }
    vec![sums]
}
