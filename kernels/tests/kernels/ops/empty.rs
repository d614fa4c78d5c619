//! Axes of no elements: every op takes them where torch does and gives what torch gives, forward and backward,
//! op by op and planned, and says in an error where it does not.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::{Shape, Type};
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::ops::spatial::convolution::Convolution;
use neurarch_kernels::ops::spatial::pad::PadMode;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{Array, cases, evaluate, planned, same_bits};
use proptest::prelude::*;

/// Records what is tested.
type Build<'a> = dyn Fn(&[Var]) -> Var + 'a;

const DTYPES: [Dtype; 2] = [Dtype::F32, Dtype::F64];

fn numbers(dtype: Dtype, shape: &[usize]) -> Array {
    Array::from_fn(dtype, shape, |i| ((i * 7 + 3) % 11) as f64 / 4.0 - 1.0)
}

fn number(like: &Var, value: f64) -> Var {
    like.trace().constant(value, like.dtype(), [])
}

/// Runs `build` op by op and planned, forward and backward; gives its result.
fn run(build: &dyn Fn(&[Var]) -> Var, inputs: &[Array]) -> Array {
    let y = evaluate(build, inputs, &[]);
    let with_gradients = |v: &[Var]| {
        let y = build(v);
        let dy = y.trace().constant(1.0, y.dtype(), y.shape().clone());
        let wrt: Vec<_> = v.iter().filter(|x| x.dtype().is_float()).cloned().collect();
        let gradients = backward(y.trace(), &[(y.clone(), dy)], &wrt);
        let gradients = wrt.iter().zip(gradients).map(|(x, gradient)| {
            let gradient = gradient.expect("each of these inputs has a gradient");
            assert_eq!(gradient.ty(), x.ty(), "a gradient has the type of what it belongs to");
            gradient
        });
        [y.clone()].into_iter().chain(gradients.collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let count = with_gradients_count(inputs);
    let each: Vec<_> =
        (0..count).map(|k| evaluate(|v| with_gradients(v)[k].clone(), inputs, &[])).collect();
    // One model, whose work may be split over threads, and several.
    for models in [1, 3] {
        let found = planned(with_gradients, &vec![inputs.to_vec(); models]);
        for (found, expected) in found.iter().flat_map(|outputs| outputs.iter().zip(&each)) {
            assert_eq!(found.ty, expected.ty);
            assert!(same_bits(&found.elements, &expected.elements), "{found:?}, not {expected:?}");
        }
    }
    y
}

fn with_gradients_count(inputs: &[Array]) -> usize {
    1 + inputs.iter().filter(|input| input.ty.dtype.is_float()).count()
}

fn same(found: &Array, shape: &[usize], expected: impl Fn(&[usize]) -> f64) {
    assert_eq!(&*found.ty.shape, shape);
    let mut index = vec![0; shape.len()];
    for &element in &found.elements {
        let expected = expected(&index);
        let is_near = (element - expected).abs() < 1e-5 || element.is_nan() && expected.is_nan();
        assert!(is_near, "{index:?}: {element}, not {expected}");
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

fn at(array: &Array, index: &[usize]) -> f64 {
    let place = index.iter().zip(array.ty.shape.iter()).fold(0, |at, (i, n)| at * n + i);
    array.elements[place]
}

/// The error of recording `build` on inputs of these shapes.
fn error(build: impl Fn(&[Var]) -> Var, shapes: &[&[usize]]) -> String {
    let trace = Trace::new();
    let v: Vec<_> = shapes.iter().map(|&shape| trace.input(Type::new(Dtype::F32, shape))).collect();
    let y = build(&v);
    trace.finish(&[y]).expect_err("torch refuses this").to_string()
}

/// A size that is often 0.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0_usize), Just(1), 2..4_usize, Just(9)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(24)))]

    #[test]
    fn products_of_nothing_are_sums_of_no_terms(b in size(), m in size(), k in size(), n in size()) {
        for dtype in DTYPES {
            let (x, w) = (numbers(dtype, &[b, m, k]), numbers(dtype, &[n, k]));
            let bias = numbers(dtype, &[n]);
            let sum = |i: &[usize], w: &dyn Fn(usize) -> f64| {
                (0..k).map(|l| at(&x, &[i[0], i[1], l]) * w(l)).sum::<f64>()
            };
            let y = run(&|v| v[0].linear(&v[1], Some(&v[2])), &[x.clone(), w.clone(), bias.clone()]);
            same(&y, &[b, m, n], |i| {
                sum(i, &|l| at(&w, &[i[2], l])) + at(&bias, &[i[2]])
            });
            let right = numbers(dtype, &[b, k, n]);
            let y = run(&|v| v[0].matmul(&v[1]), &[x.clone(), right.clone()]);
            same(&y, &[b, m, n], |i| {
                sum(i, &|l| at(&right, &[i[0], l, i[2]]))
            });
            let right = numbers(dtype, &[k, n]);
            let y = run(&|v| v[0].matmul(&v[1]), &[x.clone(), right.clone()]);
            same(&y, &[b, m, n], |i| sum(i, &|l| at(&right, &[l, i[2]])));
            let y = run(&|v| v[0].matmul(&v[1]), &[numbers(dtype, &[k]), right.clone()]);
            prop_assert_eq!(&*y.ty.shape, &[n]);
            let y = run(&|v| v[0].matmul(&v[1]), &[x.clone(), numbers(dtype, &[k])]);
            prop_assert_eq!(&*y.ty.shape, &[b, m]);
        }
    }

    #[test]
    fn reductions_of_nothing_are_torchs(a in size(), b in size(), c in size(), keepdim: bool) {
        for dtype in DTYPES {
            let x = &[numbers(dtype, &[a, b, c])];
            let sum = |i: usize, j: usize| (0..b).map(|k| at(&x[0], &[i, k, j])).sum::<f64>();
            let y = run(&|v| v[0].sum(&[1], false), x);
            same(&y, &[a, c], |i| sum(i[0], i[1]));
            let y = run(&|v| v[0].mean(&[1], false), x);
            same(&y, &[a, c], |i| sum(i[0], i[1]) / b as f64);
            let all = run(&|v| v[0].sum(&[], keepdim), x);
            prop_assert!((all.elements[0] - x[0].elements.iter().sum::<f64>()).abs() < 1e-4);
            let mean = run(&|v| v[0].mean(&[], keepdim), x);
            prop_assert_eq!(mean.elements[0].is_nan(), a * b * c == 0);
            let amax = |v: &[Var]| v[0].amax(&[1], keepdim);
            if b == 0 {
                let message = error(amax, &[&[a, b, c]]);
                prop_assert_eq!(message, "amax(): Expected reduction dim 1 to have non-zero size.");
            } else {
                run(&amax, x);
            }
        }
    }

    #[test]
    fn lines_and_groups_of_nothing_stay_nothing(a in size(), b in size(), c in size(), axis in 0..3_isize) {
        for dtype in DTYPES {
            let x = &[numbers(dtype, &[a, b, c])];
            let like: [&Build<'_>; 5] = [
                &|v| v[0].softmax(axis),
                &|v| v[0].log_softmax(axis),
                &|v| v[0].normalize(&[axis], &number(&v[0], 1e-5)).y,
                &|v| v[0].normalize(&[0, 2], &number(&v[0], 1e-5)).y,
                &|v| v[0].rms_normalize(&[1, 2], &number(&v[0], 1e-5)),
            ];
            // Each model draws numbers of its own.
            let y = evaluate(|v| v[0].dropout(&number(&v[0], 0.5)), x, &[]);
            prop_assert_eq!(&y.ty, &x[0].ty);
            for build in like {
                let y = run(build, x);
                prop_assert_eq!(&y.ty, &x[0].ty);
            }
            let of = run(&|v| v[0].normalize(&[axis], &number(&v[0], 1e-5)).var, x);
            prop_assert_eq!(of.ty.shape.numel() * x[0].ty.shape[axis as usize], a * b * c);
        }
    }

    #[test]
    fn shapes_of_nothing_change_as_others_do(a in size(), b in size(), c in size(), d in size()) {
        for dtype in DTYPES {
            let (x, y) = (numbers(dtype, &[a, b, c]), numbers(dtype, &[a, d, c]));
            let joined = run(&|v| Var::cat(&[&v[0], &v[1]], 1), &[x.clone(), y.clone()]);
            same(&joined, &[a, b + d, c], |i| match i[1] < b {
                true => at(&x, i),
                false => at(&y, &[i[0], i[1] - b, i[2]]),
            });
            let one = std::slice::from_ref(&x);
            let none = run(&|v| v[0].slice(1, b / 2..b / 2), one);
            prop_assert_eq!(&*none.ty.shape, &[a, 0, c]);
            let last = run(&|v| v[0].slice(1, b / 2..b), one);
            same(&last, &[a, b - b / 2, c], |i| at(&x, &[i[0], i[1] + b / 2, i[2]]));
            let turned = run(&|v| v[0].permute(&[2, 0, 1]), one);
            same(&turned, &[c, a, b], |i| at(&x, &[i[1], i[2], i[0]]));
            run(&|v| v[0].reshape([a * b * c]), one);
            run(&|v| v[0].flatten(0, 1), one);
            run(&|v| v[0].tril(0), one);
            run(&|v| v[0].sum_to(&Shape::from([1, c])), one);
            run(&|v| v[0].to(Dtype::F64).to(Dtype::F32), one);
            let wide = run(&|v| v[0].reshape([1, a, b * c]).expand([d, a, b * c]), one);
            prop_assert_eq!(&*wide.ty.shape, &[d, a, b * c]);
            let row = numbers(dtype, &[c]);
            let sum = run(&|v| &v[0] + &v[1], &[x.clone(), row.clone()]);
            same(&sum, &[a, b, c], |i| at(&x, i) + at(&row, &[i[2]]));
            run(&|v| v[0].gelu(neurarch_kernels::ops::activation::gelu::Approximate::None), one);
            if b > 2 {
                run(&|v| v[0].pad(&[(0, 0), (1, 2), (0, 0)], PadMode::Circular), one);
            }
        }
    }

    #[test]
    fn losses_of_nothing_are_torchs(items in size(), classes in 1..4_usize, smooth: bool) {
        for dtype in DTYPES {
            for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
                let targets = Array::from_fn(Dtype::I64, [items], |i| (i % classes) as f64);
                let x = numbers(dtype, &[items, classes]);
                let cross_entropy = |v: &[Var]| {
                    let smoothing = number(&v[0], if smooth { 0.1 } else { 0.0 });
                    v[0].cross_entropy(&v[1], None, &smoothing, -100, reduction)
                };
                let inputs = [x.clone(), targets];
                let mse = |v: &[Var]| v[0].mse_loss(&v[1], reduction);
                for loss in [run(&cross_entropy, &inputs), run(&mse, &[x.clone(), x.clone()])] {
                    match reduction {
                        Reduction::None => prop_assert_eq!(loss.ty.shape[0], items),
                        Reduction::Mean => prop_assert_eq!(loss.elements[0].is_nan(), items == 0),
                        Reduction::Sum => prop_assert!(items > 0 || loss.elements[0] == 0.0),
                    }
                }
            }
        }
    }

    #[test]
    fn rows_of_empty_tables_are_empty(indices in size(), rows in 1..3_usize, columns in size()) {
        for dtype in DTYPES {
            let index = Array::from_fn(Dtype::I64, [indices], |i| (i % rows) as f64);
            let y = run(
                &|v| v[1].embedding(&v[0], None, true),
                &[numbers(dtype, &[rows, columns]), index],
            );
            prop_assert_eq!(&*y.ty.shape, &[indices, columns]);
            let none = Array::new(Dtype::I64, [0], []);
            let y = run(&|v| v[1].embedding(&v[0], None, false), &[numbers(dtype, &[0, columns]), none]);
            prop_assert_eq!(&*y.ty.shape, &[0, columns]);
        }
    }

    #[test]
    fn convolutions_of_nothing_are_their_bias(items in size(), channels in size(), out in 1..3_usize, n in 2..5_usize) {
        let settings =
            Convolution { stride: vec![1], padding: vec![(0, 0)], dilation: vec![1], groups: 1 };
        for dtype in DTYPES {
            let (x, w) = (numbers(dtype, &[items, channels, n]), numbers(dtype, &[out, channels, 2]));
            let bias = numbers(dtype, &[out]);
            let y = run(
                &|v| v[0].convolution(&v[1], Some(&v[2]), &settings),
                &[x.clone(), w.clone(), bias.clone()],
            );
            same(&y, &[items, out, n - 1], |i| {
                let seen = |c: usize, k: usize| at(&x, &[i[0], c, i[2] + k]) * at(&w, &[i[1], c, k]);
                let sum = (0..channels).map(|c| seen(c, 0) + seen(c, 1)).sum::<f64>();
                sum + at(&bias, &[i[1]])
            });
            let w = numbers(dtype, &[channels, out, 2]);
            let y = run(&|v| v[0].conv_transpose(&v[1], None, &settings, &[0]), &[x, w]);
            prop_assert_eq!(&*y.ty.shape, &[items, out, n + 1]);
        }
    }
}

#[test]
fn issue_2_a_matmul_of_no_columns_is_empty() {
    for dtype in DTYPES {
        let inputs = [numbers(dtype, &[2, 0, 3]), numbers(dtype, &[2, 3, 0])];
        assert_eq!(&*run(&|v| v[0].matmul(&v[1]), &inputs).ty.shape, &[2, 0, 0]);
    }
}

#[test]
fn matrices_of_nothing_have_functions_too() {
    for dtype in DTYPES {
        let square = numbers(dtype, &[2, 0, 0]);
        run(&|v| v[0].matrix_exp(), std::slice::from_ref(&square));
        run(&|v| v[0].solve(&v[1]), &[numbers(dtype, &[0, 0]), numbers(dtype, &[0, 2])]);
        run(&|v| v[0].prelu(&v[1]), &[numbers(dtype, &[2, 0]), numbers(dtype, &[1])]);
        let tall = numbers(dtype, &[0, 2]);
        assert_eq!(evaluate(|v| v[0].geqrf()[0].clone(), &[tall], &[]).elements, []);
    }
}
