//! Elementwise ops, reductions and shape ops against plain loops, the slope of their own forward, and
//! themselves in other layouts.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::{Shape, Type};
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::activation::gelu::Approximate;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{Array, cases, check_gradient, check_layouts, evaluate, ulps};
use proptest::prelude::*;

/// An op of one input, and the same in double precision.
type Unary = (&'static str, fn(&Var) -> Var, fn(f64) -> f64);

fn scalar(x: &Var, value: f64) -> Var {
    x.trace().constant(value, x.dtype(), [])
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `Φ`, by the complement of the error function's series: summed until nothing is added any more.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

fn gelu_tanh(x: f64) -> f64 {
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
    0.5 * x * (1.0 + u.tanh())
}

const ANYWHERE: &[Unary] = &[
    ("neg", |x| -x, |x| -x),
    ("exp", Var::exp, f64::exp),
    ("abs", Var::abs, f64::abs),
    ("square", Var::square, |x| x * x),
    ("sin", Var::sin, f64::sin),
    ("cos", Var::cos, f64::cos),
    ("pow", |x| x.pow(3.0), |x| x.powi(3)),
    ("relu", Var::relu, |x| x.max(0.0)),
    ("relu6", Var::relu6, |x| x.clamp(0.0, 6.0)),
    ("tanh", Var::tanh, f64::tanh),
    ("sigmoid", Var::sigmoid, sigmoid),
    ("silu", Var::silu, |x| x * sigmoid(x)),
    (
        "gelu",
        |x| x.gelu(Approximate::None),
        |x| 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
    ),
    ("gelu tanh", |x| x.gelu(Approximate::Tanh), gelu_tanh),
    ("leaky_relu", |x| x.leaky_relu(&scalar(x, 0.1)), |x| if x > 0.0 { x } else { 0.1 * x }),
    ("elu", |x| x.elu(&scalar(x, 1.5)), |x| if x > 0.0 { x } else { 1.5 * x.exp_m1() }),
    (
        "softplus",
        |x| x.softplus(&scalar(x, 2.0), &scalar(x, 6.0)),
        |x| {
            if 2.0 * x > 6.0 { x } else { (2.0 * x).exp().ln_1p() / 2.0 }
        },
    ),
    ("arithmetic", |x| (2.0 - x) / (x * x + 1.0) - 0.5, |x| (2.0 - x) / (x * x + 1.0) - 0.5),
];

const POSITIVE: &[Unary] = &[
    ("log", Var::log, f64::ln),
    ("sqrt", Var::sqrt, f64::sqrt),
    ("reciprocal", Var::reciprocal, f64::recip),
    ("pow", |x| x.pow(1.5), |x| x.powf(1.5)),
];

/// Numbers in `low..high`, the same for the same `seed`.
fn numbers(dtype: Dtype, shape: &[usize], seed: u64, low: f64, high: f64) -> Array {
    let mut state = seed;
    Array::from_fn(dtype, shape, |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        low + (high - low) * (state >> 40) as f64 / f64::from(1 << 24)
    })
}

fn check_unary((name, op, exact): Unary, x: &Array) {
    let y = check_layouts(|inputs| op(&inputs[0]), std::slice::from_ref(x));
    assert_eq!(y.ty, x.ty);
    for (&x, &found) in x.elements.iter().zip(&y.elements) {
        let expected = exact(x);
        // A few roundings; relative to 1 where terms of that size cancel.
        let tolerance = if y.ty.dtype == Dtype::F64 { 1e-13 } else { 1e-6 };
        let error = (found - expected).abs() / expected.abs().max(1.0);
        assert!(error <= tolerance, "{name}({x}) = {found}, not {expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unary_ops_compute_their_function_in_every_layout(
        shape in prop_oneof![
            (1..=70_usize).prop_map(|n| vec![n]),
            (1..=20_usize, 1..=20_usize).prop_map(|(a, b)| vec![a, b]),
            (1..=5_usize, 1..=5_usize, 1..=9_usize).prop_map(|(a, b, c)| vec![a, b, c]),
        ],
        seed: u64,
    ) {
        for dtype in [Dtype::F32, Dtype::F64] {
            for &op in ANYWHERE {
                check_unary(op, &numbers(dtype, &shape, seed, -4.0, 4.0));
            }
            for &op in POSITIVE {
                check_unary(op, &numbers(dtype, &shape, seed, 0.1, 4.0));
            }
        }
    }

    #[test]
    fn gradients_of_unary_ops_are_their_slopes(n in 1..12_usize, seed: u64) {
        let away_from_kinks = |mut x: Array| {
            for x in &mut x.elements {
                for kink in [0.0, 3.0] {
                    if (*x - kink).abs() < 0.01 {
                        *x += 0.02;
                    }
                }
            }
            x
        };
        for (low, ops) in [(-4.0, ANYWHERE), (0.5, POSITIVE)] {
            for &(_, op, _) in ops {
                let x = away_from_kinks(numbers(Dtype::F64, &[n], seed, low, 4.0));
                check_gradient(|inputs| op(&inputs[0]), &[x], 1e-8);
            }
        }
    }

    #[test]
    fn binary_ops_broadcast_in_every_layout(
        (a, b) in broadcast_pair(),
        seed: u64,
    ) {
        let y_shape = Shape::from(a.clone()).broadcast(&Shape::from(b.clone())).unwrap();
        type Binary = (fn(&Var, &Var) -> Var, fn(f64, f64) -> f64);
        let ops: [Binary; 6] = [
            (|a, b| a + b, |a, b| a + b),
            (|a, b| a - b, |a, b| a - b),
            (|a, b| a * b, |a, b| a * b),
            (|a, b| a / b, |a, b| a / b),
            (Var::maximum, f64::max),
            (Var::minimum, f64::min),
        ];
        for dtype in [Dtype::F32, Dtype::F64] {
            let x = numbers(dtype, &a, seed, -4.0, 4.0);
            let y = numbers(dtype, &b, seed ^ 1, 0.5, 4.0);
            for (op, exact) in ops {
                let found = check_layouts(|v| op(&v[0], &v[1]), &[x.clone(), y.clone()]);
                prop_assert_eq!(&found.ty, &Type::new(dtype, y_shape.clone()));
                for (i, &z) in found.elements.iter().enumerate() {
                    let expected = exact(at(&x, &y_shape, i), at(&y, &y_shape, i));
                    match dtype {
                        Dtype::F64 => prop_assert_eq!(z, expected),
                        _ => prop_assert_eq!(z as f32, expected as f32),
                    }
                }
            }
        }
    }

    #[test]
    fn gradients_of_broadcast_operands_are_summed(
        (a, b) in broadcast_pair().prop_filter("small", |(a, b)| {
            a.iter().product::<usize>() * b.iter().product::<usize>() < 400
        }),
        seed: u64,
    ) {
        let x = numbers(Dtype::F64, &a, seed, -4.0, 4.0);
        let y = numbers(Dtype::F64, &b, seed ^ 1, 0.5, 4.0);
        for op in [
            |a: &Var, b: &Var| a + b,
            |a: &Var, b: &Var| a - b,
            |a: &Var, b: &Var| a * b,
            |a: &Var, b: &Var| a / b,
        ] {
            check_gradient(|v| op(&v[0], &v[1]), &[x.clone(), y.clone()], 1e-7);
        }
    }

    #[test]
    fn reductions_have_one_order_in_every_layout(
        shape in prop::collection::vec(1..=24_usize, 1..=3),
        chosen in prop::collection::vec(any::<bool>(), 3),
        keepdim: bool,
        seed: u64,
    ) {
        let axes: Vec<usize> = (0..shape.len()).filter(|&axis| chosen[axis]).collect();
        let dims: Vec<isize> = axes.iter().map(|&axis| axis as isize).collect();
        let reduced = if axes.is_empty() { (0..shape.len()).collect() } else { axes };
        for dtype in [Dtype::F32, Dtype::F64] {
            let x = numbers(dtype, &shape, seed, -4.0, 4.0);
            let lines = lines(&x, &reduced);
            let n = lines[0].len();
            let y = check_layouts(|v| v[0].sum(&dims, keepdim), std::slice::from_ref(&x));
            let exact: Vec<f64> = lines.iter().map(|line| partial_sums(line, dtype)).collect();
            prop_assert_eq!(&y.elements, &exact);
            let y = check_layouts(|v| v[0].mean(&dims, keepdim), std::slice::from_ref(&x));
            for (y, sum) in y.elements.iter().zip(&exact) {
                prop_assert!((y - sum / n as f64).abs() < 1e-6);
            }
            let y = check_layouts(|v| v[0].amax(&dims, keepdim), std::slice::from_ref(&x));
            for (&y, line) in y.elements.iter().zip(&lines) {
                prop_assert_eq!(y, line.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            }
        }
    }

    #[test]
    fn gradients_of_reductions_are_their_slopes(
        shape in prop::collection::vec(1..=4_usize, 1..=3),
        axis in 0..3_usize,
        keepdim: bool,
        seed: u64,
    ) {
        let dims = [(axis % shape.len()) as isize];
        let x = numbers(Dtype::F64, &shape, seed, -4.0, 4.0);
        check_gradient(|v| v[0].sum(&dims, keepdim), std::slice::from_ref(&x), 1e-8);
        check_gradient(|v| v[0].mean(&dims, keepdim), std::slice::from_ref(&x), 1e-8);
        check_gradient(|v| v[0].mean(&[], keepdim), std::slice::from_ref(&x), 1e-8);
        // Far enough apart that a difference does not change which one is the largest.
        let apart = Array::from_fn(Dtype::F64, shape, |i| ((i * 7) % 13) as f64 + i as f64 / 100.0);
        check_gradient(|v| v[0].amax(&dims, keepdim), &[apart], 1e-8);
    }

    #[test]
    fn shape_ops_move_elements_where_torch_does(
        shape in prop::collection::vec(1..=19_usize, 1..=3),
        a in 0..3_usize,
        b in 0..3_usize,
        seed: u64,
    ) {
        let (a, b) = (a % shape.len(), b % shape.len());
        for dtype in [Dtype::F32, Dtype::F64, Dtype::I64, Dtype::Bool] {
            let x = numbers(dtype, &shape, seed, -100.0, 100.0);
            let one = std::slice::from_ref(&x);
            let y = check_layouts(|v| v[0].transpose(a as isize, b as isize), one);
            let mut swapped = shape.clone();
            swapped.swap(a, b);
            prop_assert_eq!(&*y.ty.shape, swapped.as_slice());
            for (i, &y_i) in y.elements.iter().enumerate() {
                let mut index = index_of(&swapped, i);
                index.swap(a, b);
                prop_assert_eq!(y_i, x.elements[offset_of(&shape, &index)]);
            }
            let y = check_layouts(|v| v[0].flatten(0, -1), one);
            prop_assert_eq!(&y.elements, &x.elements);
            let with_one: Vec<_> = shape.iter().copied().chain([1]).collect();
            let y = check_layouts(|v| v[0].reshape(with_one.clone()), one);
            prop_assert_eq!(&y.elements, &x.elements);
            let (start, end) = (shape[a] / 3, shape[a]);
            let y = check_layouts(|v| v[0].slice(a as isize, start..end), one);
            for (i, &y_i) in y.elements.iter().enumerate() {
                let mut index = index_of(&y.ty.shape, i);
                index[a] += start;
                prop_assert_eq!(y_i, x.elements[offset_of(&shape, &index)]);
            }
            let y = check_layouts(
                |v| {
                    let parts = [v[0].slice(a as isize, 0..start), v[0].slice(a as isize, start..end)];
                    Var::cat(&[&parts[0], &parts[1], &v[0]], a as isize)
                },
                one,
            );
            let y = check_layouts(|v| v[0].slice(a as isize, shape[a]..2 * shape[a]), &[y]);
            prop_assert_eq!(&y.elements, &x.elements);
            let larger: Vec<_> = [3].into_iter().chain(shape.iter().copied()).collect();
            let y = check_layouts(|v| v[0].expand(larger.clone()), one);
            prop_assert_eq!(y.elements, x.elements.repeat(3));
        }
    }

    #[test]
    fn gradients_of_shape_ops_are_their_slopes(
        shape in prop::collection::vec(1..=4_usize, 2..=3), seed: u64,
    ) {
        let x = numbers(Dtype::F64, &shape, seed, -4.0, 4.0);
        let one = std::slice::from_ref(&x);
        check_gradient(|v| v[0].transpose(0, -1).square(), one, 1e-8);
        check_gradient(|v| v[0].flatten(0, 1).square(), one, 1e-8);
        let half = shape[1] / 2;
        check_gradient(|v| v[0].slice(1, half..shape[1]).square(), one, 1e-8);
        check_gradient(|v| Var::cat(&[&v[0], &v[0].exp()], 1).square(), one, 1e-7);
        let larger: Vec<_> = [2].into_iter().chain(shape.iter().copied()).collect();
        check_gradient(|v| v[0].expand(larger.clone()).square(), one, 1e-8);
        check_gradient(|v| v[0].sum_to(&Shape::from([1])).square(), one, 1e-7);
    }
}

/// Two shapes that broadcast against each other.
fn broadcast_pair() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    let axes = prop::collection::vec((1..=18_usize, 0..3_u8), 1..=3);
    (axes, 0..3_usize).prop_map(|(axes, dropped)| {
        let a = axes.iter().map(|&(n, which)| if which == 1 { 1 } else { n }).collect();
        let b = axes.iter().map(|&(n, which)| if which == 2 { 1 } else { n });
        (a, b.skip(dropped).collect())
    })
}

fn index_of(shape: &[usize], mut i: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        index[axis] = i % shape[axis];
        i /= shape[axis];
    }
    index
}

fn offset_of(shape: &[usize], index: &[usize]) -> usize {
    shape.iter().zip(index).fold(0, |offset, (n, i)| offset * n + i)
}

/// Reads the element of `x`, broadcast to `shape`, that element `i` of the result belongs to.
fn at(x: &Array, shape: &Shape, i: usize) -> f64 {
    let own = &x.ty.shape;
    let index = index_of(shape, i);
    let index: Vec<_> = index[shape.rank() - own.rank()..]
        .iter()
        .zip(own.iter())
        .map(|(&i, &n)| if n == 1 { 0 } else { i })
        .collect();
    x.elements[offset_of(own, &index)]
}

/// Collects for each output of a reduction its numbers, in row-major order.
fn lines(x: &Array, reduced: &[usize]) -> Vec<Vec<f64>> {
    let shape = &x.ty.shape;
    let kept: Vec<usize> = (0..shape.rank())
        .map(|axis| if reduced.contains(&axis) { 1 } else { shape[axis] })
        .collect();
    let mut lines = vec![Vec::new(); kept.iter().product()];
    for (i, &x) in x.elements.iter().enumerate() {
        let mut index = index_of(shape, i);
        reduced.iter().for_each(|&axis| index[axis] = 0);
        lines[offset_of(&kept, &index)].push(x);
    }
    lines
}

/// The definition of a sum: blocks of 256 numbers, added pairwise; of each block 16 partial sums, joined by halves.
fn partial_sums(line: &[f64], dtype: Dtype) -> f64 {
    let add = |a: f64, b: f64| match dtype {
        Dtype::F64 => a + b,
        _ => f64::from(a as f32 + b as f32),
    };
    let blocks = line.len().div_ceil(256);
    if blocks > 1 {
        let (first, others) = line.split_at(256 * (blocks.next_power_of_two() / 2));
        return add(partial_sums(first, dtype), partial_sums(others, dtype));
    }
    let mut partials = [0.0; 16];
    for (i, &x) in line.iter().enumerate() {
        partials[i % 16] = add(partials[i % 16], x);
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            partials[i] = add(partials[i], partials[i + half]);
        }
    }
    partials[0]
}

#[test]
fn the_larger_of_two_gets_the_gradient_and_equals_share_it() {
    let x = Array::new(Dtype::F64, [2, 2], [1.0, -2.0, 3.0, 0.5]);
    let y = Array::new(Dtype::F64, [2], [2.0, 0.0]);
    check_gradient(|v| v[0].maximum(&v[1]), &[x.clone(), y.clone()], 1e-8);
    check_gradient(|v| v[0].minimum(&v[1]), &[x.clone(), y], 1e-8);
    let shared = |op: fn(&Var, &Var) -> Var| {
        let gradient = |v: &[Var]| {
            let z = op(&v[0], &v[1]);
            let one = v[0].trace().constant(1.0, Dtype::F64, [2, 2]);
            backward(v[0].trace(), &[(z, one)], &v[..1])[0].clone().unwrap()
        };
        evaluate(gradient, &[x.clone(), x.clone()], &[]).elements
    };
    assert_eq!(shared(Var::maximum), [0.5; 4]);
    assert_eq!(shared(Var::minimum), [0.5; 4]);
}

#[test]
fn relu_has_no_slope_at_zero_and_keeps_nan() {
    let x = Array::new(Dtype::F32, [4], [-1.0, 0.0, f64::NAN, 2.0]);
    let y = evaluate(|v| v[0].relu(), std::slice::from_ref(&x), &[]);
    assert_eq!(y.elements[..2], [0.0, 0.0]);
    assert!(y.elements[2].is_nan());
    assert_eq!(y.elements[3], 2.0);
    let y = evaluate(|v| v[0].relu().relu6(), &[x], &[]);
    assert!(y.elements[2].is_nan());
}

#[test]
fn the_larger_of_nan_and_anything_is_nan() {
    let x = Array::new(Dtype::F32, [3], [f64::NAN, 1.0, 1.0]);
    let y = Array::new(Dtype::F32, [3], [1.0, f64::NAN, 2.0]);
    for op in [Var::maximum as fn(&Var, &Var) -> Var, Var::minimum] {
        let z = evaluate(|v| op(&v[0], &v[1]), &[x.clone(), y.clone()], &[]);
        assert!(z.elements[0].is_nan() && z.elements[1].is_nan() && !z.elements[2].is_nan());
    }
    let most = evaluate(|v| v[0].amax(&[], false), &[x], &[]);
    assert!(most.elements[0].is_nan());
}

#[test]
fn errors_use_the_words_of_torch() {
    let error = |build: fn(&Var, &Var) -> Var, a: &[usize], b: &[usize]| {
        let trace = Trace::new();
        let a = trace.input(Type::new(Dtype::F32, a));
        let b = trace.input(Type::new(Dtype::F32, b));
        let _ = build(&a, &b);
        trace.error().unwrap().message
    };
    assert_eq!(
        error(|a, b| a + b, &[2, 3], &[2, 4]),
        "The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1"
    );
    assert_eq!(
        error(|a, _| a.sum(&[2], false), &[2, 3], &[1]),
        "Dimension out of range (expected to be in range of [-2, 1], but got 2)"
    );
    assert_eq!(
        error(|a, _| a.sum(&[0, -2], false), &[2, 3], &[1]),
        "dim 0 appears multiple times in the list of dims"
    );
    assert_eq!(
        error(|a, _| a.reshape([4]), &[2, 3], &[1]),
        "shape '[4]' is invalid for input of size 6"
    );
    assert_eq!(
        error(|a, b| Var::cat(&[a, b], 0), &[2, 3], &[2, 4]),
        "Sizes of tensors must match except in dimension 0. Expected size 3 but got size 4 for \
         tensor number 1 in the list."
    );
}

#[test]
fn a_distance_in_roundings_counts_the_numbers_between() {
    assert_eq!(ulps(1.0, 1.0 + f32::EPSILON), 1);
    assert_eq!(ulps(0.0, -0.0), 0);
    assert_eq!(ulps(f32::from_bits(1), -f32::from_bits(1)), 2);
}

#[test]
fn gradients_of_piecewise_linear_functions_can_be_differentiated() {
    let ops: [fn(&Var) -> Var; 5] =
        [Var::relu, Var::relu6, |x| x.leaky_relu(&scalar(x, 0.1)), Var::tanh, Var::sigmoid];
    let x = Array::new(Dtype::F64, [4], [-1.5, 0.5, 3.0, 7.0]);
    let dy = Array::new(Dtype::F64, [4], [1.0, -2.0, 0.5, 3.0]);
    for op in ops {
        let gradient = |v: &[Var]| {
            let y = op(&v[0]);
            let dx = backward(v[0].trace(), &[(y, v[1].clone())], &v[..1]);
            // A term of its own, as some of these slopes do not depend on x at all.
            dx[0].clone().unwrap() * &v[0]
        };
        check_gradient(gradient, &[x.clone(), dy.clone()], 1e-8);
    }
}
