//! The order of sums that `docs/design.md` promises, against a loop written from those words alone.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::spatial::convolution::Convolution;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{Array, check_layouts, evaluate, planned, same_bits};

use super::numbers;

/// A chain of fused multiply-adds takes in so many products.
const CHAIN: usize = 256;

/// So many products make a group.
const GROUP: usize = 65_536;

/// Arithmetic of one type, on numbers that are held in double precision.
#[derive(Clone, Copy)]
struct Arithmetic(Dtype);

impl Arithmetic {
    fn mul_add(self, a: f64, b: f64, c: f64) -> f64 {
        match self.0 {
            Dtype::F64 => a.mul_add(b, c),
            _ => f64::from((a as f32).mul_add(b as f32, c as f32)),
        }
    }

    fn add(self, a: f64, b: f64) -> f64 {
        match self.0 {
            Dtype::F64 => a + b,
            _ => f64::from(a as f32 + b as f32),
        }
    }

    /// The promised sum of `factors(0), factors(1), …`.
    fn sum(self, k: usize, factors: impl Fn(usize) -> (f64, f64)) -> f64 {
        let in_order = |sums: Vec<f64>| sums.into_iter().reduce(|a, b| self.add(a, b));
        let chain = |start: usize, end: usize| {
            (start..end).fold(0.0, |sum, k| {
                let (a, b) = factors(k);
                self.mul_add(a, b, sum)
            })
        };
        let group = |start: usize| {
            let end = k.min(start + GROUP);
            let starts = (start..end).step_by(CHAIN);
            in_order(starts.map(|start| chain(start, end.min(start + CHAIN))).collect())
        };
        in_order((0..k).step_by(GROUP).filter_map(group).collect()).unwrap_or(0.0)
    }
}

/// Elements of a matrix that are looked at: the corners, and some between.
fn some(rows: usize, columns: usize) -> impl Iterator<Item = (usize, usize)> {
    let all = rows * columns;
    let ends = [0, columns - 1, all - columns, all - 1];
    let others = (0..all.min(300)).map(move |i| i * 7_919 % all);
    ends.into_iter().chain(others).map(move |at| (at / columns, at % columns))
}

/// Checks a product's elements, given the factors of each.
fn check(
    y: &Array,
    [rows, columns, k]: [usize; 3],
    factors: impl Fn(usize, usize, usize) -> (f64, f64),
    finish: impl Fn(usize, usize, f64) -> f64,
) {
    let of = Arithmetic(y.ty.dtype);
    for (row, column) in some(rows, columns) {
        let sum = of.sum(k, |k| factors(row, column, k));
        let (found, expected) = (y.elements[row * columns + column], finish(row, column, sum));
        let at = format!("[{row}, {column}] of {rows}×{k} · {k}×{columns}");
        assert!(same_bits(&[found], &[expected]), "{at}: {found}, not {expected}");
    }
}

fn check_matmul(dtype: Dtype, [m, n, k]: [usize; 3]) {
    let (a, b) = (numbers(dtype, &[m, k], 3), numbers(dtype, &[k, n], 5));
    let y = check_layouts(|v| v[0].matmul(&v[1]), &[a.clone(), b.clone()]);
    let factors = |i, j, p| (a.elements[i * k + p], b.elements[p * n + j]);
    check(&y, [m, n, k], factors, |_, _, sum| sum);
}

#[test]
fn small_products_add_in_the_promised_order() {
    for dtype in [Dtype::F32, Dtype::F64] {
        for k in [1, 255, 256, 257, 511, 512, 513, 1_100] {
            for (m, n) in [(1, 1), (9, 5), (6, 16), (7, 33), (13, 17), (1, 40), (40, 1)] {
                check_matmul(dtype, [m, n, k]);
            }
        }
    }
}

#[test]
fn large_products_add_in_the_promised_order() {
    for sizes in [[301, 257, 229], [129, 140, 1_025], [17, 1_000, 1_024], [2_100, 33, 257]] {
        check_matmul(Dtype::F32, sizes);
    }
    check_matmul(Dtype::F64, [131, 257, 513]);
}

/// Several groups, in products that are packed and in those that are not.
#[test]
fn long_products_add_in_the_promised_order() {
    for [m, n] in [[3, 5], [16, 4], [1, 1], [18, 21]] {
        check_matmul(Dtype::F32, [m, n, 2 * GROUP + 300]);
    }
    check_matmul(Dtype::F64, [9, 7, GROUP + 1]);
}

/// Sums that underflow to -0, which 0 + -0 would turn into 0.
#[test]
fn a_negative_zero_stays() {
    for k in [2, 257, 600] {
        let a = Array::from_fn(Dtype::F32, [9, k], |_| 1e-30);
        let b = Array::from_fn(Dtype::F32, [k, 9], |_| -1e-30);
        let y = evaluate(|v| v[0].matmul(&v[1]), &[a, b], &[]);
        assert!(same_bits(&y.elements, &[-0.0; 81]), "{k}");
    }
}

#[test]
fn a_layer_adds_its_bias_to_the_whole_sum() {
    let relu = |x: f64| if x > 0.0 { x } else { 0.0 };
    for (rows, inputs, outputs) in [(9, 700, 5), (140, 1_030, 130), (8, GROUP + 300, 3)] {
        let x = numbers(Dtype::F32, &[rows, inputs], 1);
        let weight = numbers(Dtype::F32, &[outputs, inputs], 2);
        let bias = numbers(Dtype::F32, &[outputs], 3);
        let all = [x.clone(), weight.clone(), bias.clone()];
        let layer = |v: &[Var]| vec![v[0].linear(&v[1], Some(&v[2])).relu()];
        let y = planned(layer, &[all.to_vec()]).remove(0).remove(0);
        let factors = |i, j, p| (x.elements[i * inputs + p], weight.elements[j * inputs + p]);
        check(&y, [rows, outputs, inputs], factors, |_, j, sum| {
            relu(Arithmetic(Dtype::F32).add(sum, bias.elements[j]))
        });
    }
}

/// A weight's gradient on one thread and on several: rows of `C` are shared out, never a sum.
#[test]
fn threads_change_no_order() {
    for (rows, inputs, outputs) in [(GROUP + 700, 24, 20), (1_000, 90, 300), (600, 33, 7)] {
        let x = numbers(Dtype::F32, &[rows, inputs], 1);
        let weight = numbers(Dtype::F32, &[outputs, inputs], 2);
        let dy = numbers(Dtype::F32, &[rows, outputs], 3);
        let gradient = |v: &[Var]| {
            let y = v[0].linear(&v[1], None);
            let dw = backward(y.trace(), &[(y.clone(), v[2].clone())], &v[1..2]);
            vec![y, dw[0].clone().expect("y depends on it")]
        };
        let all = vec![vec![x.clone(), weight.clone(), dy.clone()]];
        for threads in [1, 2, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| planned(gradient, &all)).remove(0);
            let factors = |i, j, p| (x.elements[i * inputs + p], weight.elements[j * inputs + p]);
            check(&found[0], [rows, outputs, inputs], factors, |_, _, sum| sum);
            let factors = |i, j, p| (dy.elements[p * outputs + i], x.elements[p * inputs + j]);
            check(&found[1], [outputs, inputs, rows], factors, |_, _, sum| sum);
        }
    }
}

/// Checks a convolution in two dimensions, with zeros around so that its output is as large as its input, and its weight's
/// gradient: by a copy of an item's channels, or by matrices if that would be too large.
fn check_convolution([items, channels, out, height, width]: [usize; 5], kernel: usize) {
    let x = numbers(Dtype::F32, &[items, channels, height, width], 1);
    let weight = numbers(Dtype::F32, &[out, channels, kernel, kernel], 2);
    let dy = numbers(Dtype::F32, &[items, out, height, width], 3);
    let settings = Convolution {
        stride: vec![1; 2],
        padding: vec![(kernel / 2, kernel / 2); 2],
        dilation: vec![1; 2],
        groups: 1,
    };
    let build = |v: &[Var]| {
        let y = v[0].convolution(&v[1], None, &settings);
        let dw = backward(y.trace(), &[(y.clone(), v[2].clone())], &v[1..2]);
        vec![y, dw[0].clone().expect("y depends on it")]
    };
    let found = planned(build, &[vec![x.clone(), weight.clone(), dy.clone()]]).remove(0);
    let (taps, plane) = (kernel * kernel, height * width);
    let seen = channels * taps;
    // What a position of an item sees through an element of the kernel in a channel.
    let sees = |position: usize, place: usize| {
        let (item, at) = (position / plane, position % plane);
        let (channel, element) = (place / taps, place % taps);
        let row =
            (at / width + element / kernel).checked_sub(kernel / 2).filter(|&row| row < height);
        let column = (at % width + element % kernel)
            .checked_sub(kernel / 2)
            .filter(|&column| column < width);
        let start = (item * channels + channel) * plane;
        row.zip(column).map_or(0.0, |(row, column)| x.elements[start + row * width + column])
    };
    let of_y = |position: usize, channel: usize| {
        (position / plane * out + channel) * plane + position % plane
    };
    // The output, as a matrix of positions and channels.
    let y = Array::from_fn(Dtype::F32, [items * plane, out], |at| {
        found[0].elements[of_y(at / out, at % out)]
    });
    let factors = |i, j, p| (weight.elements[j * seen + p], sees(i, p));
    check(&y, [items * plane, out, seen], factors, |_, _, sum| sum);
    let factors = |i, j, p| (sees(p, j), dy.elements[of_y(p, i)]);
    check(&found[1], [out, seen, items * plane], factors, |_, _, sum| sum);
}

#[test]
fn convolutions_add_in_the_promised_order() {
    // Of few positions and of many, chains that end within a line and with an item.
    for sizes in [[3, 40, 7, 11, 12], [20, 3, 17, 4, 5], [1, 1, 1, 3, 3], [5, 30, 9, 16, 16]] {
        check_convolution(sizes, 3);
    }
    check_convolution([1, 257, 3, 32, 33], 1);
    // Several groups of positions; by matrices, of all channels together and of a few at a time.
    for sizes in [[70, 1, 2, 32, 32], [1, 1, 2, 520, 520], [1, 40, 3, 90, 90]] {
        check_convolution(sizes, 3);
    }
}
