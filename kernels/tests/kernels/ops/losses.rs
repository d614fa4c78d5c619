//! Softmax, losses and dropout against plain loops, the slope of their own forward, and themselves in
//! other layouts.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::op::Op;
use neurarch_kernels::ir::rng_key::RngKey;
use neurarch_kernels::ir::shape::{Shape, Type};
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::loss::cross_entropy::check_targets;
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{
    Array, cases, check_gradient, check_gradient_of, check_layouts, evaluate, layouts_of, run_op,
    run_op_keyed, same_bits,
};
use proptest::prelude::*;

fn numbers(dtype: Dtype, shape: &[usize], seed: u64) -> Array {
    let mut state = seed;
    Array::from_fn(dtype, shape, |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        8.0 * (state >> 40) as f64 / f64::from(1 << 24) - 4.0
    })
}

/// Targets for logits `[items, classes]`; about one in seven is `ignored`.
fn targets(items: usize, classes: usize, seed: u64, ignored: i64) -> Array {
    Array::from_fn(Dtype::I64, [items], |i| {
        let n = seed.wrapping_add(i as u64 * 0x9e37_79b9).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33;
        if n.is_multiple_of(7) { ignored as f64 } else { (n % classes as u64) as f64 }
    })
}

#[derive(Clone, Copy, Debug)]
struct Setting {
    reduction: Reduction,
    smoothing: f64,
    weighted: bool,
}

fn setting() -> impl Strategy<Value = Setting> {
    let reductions =
        prop_oneof![Just(Reduction::None), Just(Reduction::Mean), Just(Reduction::Sum)];
    (reductions, prop_oneof![Just(0.0), 0.01..0.9_f64], any::<bool>())
        .prop_map(|(reduction, smoothing, weighted)| Setting { reduction, smoothing, weighted })
}

const IGNORE: i64 = -100;

fn loss(v: &[Var], setting: Setting) -> Var {
    let smoothing = v[0].trace().constant(setting.smoothing, v[0].dtype(), []);
    let weight = setting.weighted.then(|| &v[2]);
    v[0].cross_entropy(&v[1], weight, &smoothing, IGNORE, setting.reduction)
}

/// The definition, in double precision.
fn exact(inputs: &[Array], setting: Setting) -> Vec<f64> {
    let classes = *inputs[0].ty.shape.last().expect("an axis of classes");
    let weight = |c: usize| {
        if setting.weighted { inputs[2].elements[c] } else { 1.0 }
    };
    let (mut losses, mut total) = (Vec::new(), 0.0);
    for (x, &target) in inputs[0].elements.chunks(classes).zip(&inputs[1].elements) {
        if target as i64 == IGNORE {
            losses.push(0.0);
            continue;
        }
        let log_sum = x.iter().map(|x| x.exp()).sum::<f64>().ln();
        let log_p = |c: usize| x[c] - log_sum;
        let t = target as usize;
        let smooth: f64 = (0..classes).map(|c| weight(c) * log_p(c)).sum();
        let share = setting.smoothing / classes as f64;
        losses.push(-(1.0 - setting.smoothing) * weight(t) * log_p(t) - share * smooth);
        total += weight(t);
    }
    match setting.reduction {
        Reduction::None => losses,
        Reduction::Sum => vec![losses.iter().sum()],
        Reduction::Mean => vec![losses.iter().sum::<f64>() / total],
    }
}

fn close(found: &Array, expected: &[f64], tolerance: f64) {
    assert_eq!(found.elements.len(), expected.len());
    for (&found, &expected) in found.elements.iter().zip(expected) {
        let error = (found - expected).abs() / expected.abs().max(1.0);
        let both_nan = found.is_nan() && expected.is_nan();
        assert!(error <= tolerance || both_nan, "{found}, not {expected}");
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: cases(32), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn softmax_follows_its_definition_in_every_layout(
        shape in prop::collection::vec(1..=20_usize, 1..=3), axis in 0..3_usize, seed: u64,
    ) {
        let axis = axis % shape.len();
        for dtype in [Dtype::F32, Dtype::F64] {
            let x = numbers(dtype, &shape, seed);
            let inner: usize = shape[axis + 1..].iter().product();
            let mut expected = vec![0.0; x.elements.len()];
            for start in 0..x.elements.len() {
                if (start / inner).is_multiple_of(shape[axis]) {
                    let line = (0..shape[axis]).map(|i| start + i * inner);
                    let sum: f64 = line.clone().map(|i| x.elements[i].exp()).sum();
                    line.for_each(|i| expected[i] = x.elements[i].exp() / sum);
                }
            }
            let tolerance = if dtype == Dtype::F64 { 1e-14 } else { 1e-6 };
            let one = std::slice::from_ref(&x);
            let y = check_layouts(|v| v[0].softmax(axis as isize), one);
            close(&y, &expected, tolerance);
            let y = check_layouts(|v| v[0].log_softmax(axis as isize), one);
            let logs: Vec<_> = expected.iter().map(|p| p.ln()).collect();
            close(&y, &logs, tolerance);
        }
    }

    #[test]
    fn gradients_of_softmax_are_its_slopes(
        shape in prop::collection::vec(1..=4_usize, 1..=3), axis in 0..3_usize, seed: u64,
    ) {
        let axis = (axis % shape.len()) as isize;
        let x = numbers(Dtype::F64, &shape, seed);
        check_gradient(|v| v[0].softmax(axis), std::slice::from_ref(&x), 1e-8);
        check_gradient(|v| v[0].log_softmax(axis), std::slice::from_ref(&x), 1e-8);
        let gradient = |v: &[Var]| {
            let one = v[1].clone();
            let y = v[0].softmax(axis);
            backward(v[0].trace(), &[(y, one)], &v[..1])[0].clone().unwrap()
        };
        check_layouts(gradient, &[x.clone(), numbers(Dtype::F64, &shape, !seed)]);
    }

    #[test]
    fn cross_entropy_follows_its_definition_in_every_layout(
        items in 1..=70_usize, classes in 1..=12_usize, setting in setting(), seed: u64,
    ) {
        for dtype in [Dtype::F32, Dtype::F64] {
            let weight = Array::from_fn(dtype, [classes], |c| 0.5 + c as f64 / 4.0);
            let mut inputs =
                vec![numbers(dtype, &[items, classes], seed), targets(items, classes, seed, IGNORE)];
            inputs.extend(setting.weighted.then_some(weight));
            let y = check_layouts(|v| loss(v, setting), &inputs);
            close(&y, &exact(&inputs, setting), if dtype == Dtype::F64 { 1e-12 } else { 3e-6 });
        }
    }

    #[test]
    fn the_gradient_of_cross_entropy_is_its_slope(
        items in 1..=5_usize, classes in 1..=5_usize, setting in setting(), seed: u64,
    ) {
        let weight = Array::from_fn(Dtype::F64, [classes], |c| 0.5 + c as f64 / 4.0);
        let targets = targets(items, classes, seed, IGNORE);
        prop_assume!(targets.elements.iter().any(|&target| target >= 0.0));
        let mut inputs = vec![numbers(Dtype::F64, &[items, classes], seed), targets];
        inputs.extend(setting.weighted.then_some(weight));
        // The weights get no gradient, as in torch.
        check_gradient_of(|v| loss(v, setting), &inputs, &[0], 1e-8);
    }

    #[test]
    fn loss_and_gradient_have_the_same_bits_fused_or_not(
        items in 1..=40_usize, classes in 1..=12_usize, setting in setting(), seed: u64,
    ) {
        for dtype in [Dtype::F32, Dtype::F64] {
            let weight = Array::from_fn(dtype, [classes], |c| 0.5 + c as f64 / 4.0);
            let smoothing = Array::new(dtype, [], [setting.smoothing]);
            let mut inputs = vec![
                numbers(dtype, &[items, classes], seed),
                targets(items, classes, seed, IGNORE),
                smoothing,
            ];
            inputs.extend(setting.weighted.then_some(weight));
            let (loss, gradient) = recorded(&inputs, setting);
            let fused = loss.fuse_gradient().expect("a loss fuses with its gradient").both;
            let shape = match setting.reduction {
                Reduction::None => Shape::from([items]),
                _ => Shape::scalar(),
            };
            let dloss = Array::from_fn(dtype, shape, |i| 1.0 + i as f64 / 8.0);
            let with_dloss: Vec<_> = inputs.iter().cloned().chain([dloss]).collect();
            for layout in layouts_of(&inputs[0].ty.shape) {
                let layouts = [Some(layout)];
                let alone = run_op(&*loss, &inputs, &layouts);
                let its_gradient = run_op(&*gradient, &with_dloss, &layouts);
                let both = run_op(&*fused, &with_dloss, &layouts);
                prop_assert!(same_bits(&alone[0].elements, &both[0].elements));
                prop_assert!(same_bits(&its_gradient[0].elements, &both[1].elements));
            }
        }
    }

    #[test]
    fn mse_follows_its_definition_and_its_slope(
        shape in prop::collection::vec(1..=6_usize, 1..=3), seed: u64,
    ) {
        let inputs = [numbers(Dtype::F64, &shape, seed), numbers(Dtype::F64, &shape, !seed)];
        let squares: Vec<f64> = inputs[0]
            .elements
            .iter()
            .zip(&inputs[1].elements)
            .map(|(x, t)| (x - t).powi(2))
            .collect();
        let sum: f64 = squares.iter().sum();
        for (reduction, expected) in [
            (Reduction::None, squares.clone()),
            (Reduction::Sum, vec![sum]),
            (Reduction::Mean, vec![sum / squares.len() as f64]),
        ] {
            let y = check_layouts(|v| v[0].mse_loss(&v[1], reduction), &inputs);
            close(&y, &expected, 1e-12);
            check_gradient(|v| v[0].mse_loss(&v[1], reduction), &inputs, 1e-8);
        }
    }

    #[test]
    fn dropout_keeps_the_same_elements_in_every_layout(
        shape in prop::collection::vec(1..=20_usize, 1..=3), p in 0.0..1.0_f64, seed: u64,
    ) {
        let key = RngKey { seed, number: 3, step: 4 };
        let op = dropout(&shape, Dtype::F32);
        let x = numbers(Dtype::F32, &shape, seed);
        let inputs = [x.clone(), Array::new(Dtype::F32, [], [p])];
        let expected = run_op_keyed(&*op, &inputs, &[], key, 1);
        for layout in layouts_of(&x.ty.shape) {
            let found = run_op_keyed(&*op, &inputs, &[Some(layout)], key, 1);
            prop_assert!(same_bits(&found[0].elements, &expected[0].elements));
            prop_assert!(same_bits(&found[1].elements, &expected[1].elements));
        }
        let factor = f64::from((1.0 / (1.0 - f64::from(p as f32))) as f32);
        for ((&y, &mask), &x) in expected[0].elements.iter().zip(&expected[1].elements).zip(&x.elements) {
            prop_assert!(mask == 0.0 || mask == factor);
            prop_assert_eq!(y, f64::from(x as f32 * mask as f32));
        }
    }
}

fn recorded(
    inputs: &[Array],
    setting: Setting,
) -> (std::sync::Arc<dyn Op>, std::sync::Arc<dyn Op>) {
    let trace = Trace::new();
    let v: Vec<_> = inputs.iter().map(|input| trace.input(input.ty.clone())).collect();
    let weight = setting.weighted.then(|| &v[3]);
    let y = v[0].cross_entropy(&v[1], weight, &v[2], IGNORE, setting.reduction);
    let dy = trace.constant(1.0, y.dtype(), y.shape().clone());
    let dx = backward(&trace, &[(y.clone(), dy)], &v[..1])[0].clone().expect("a gradient");
    [y, dx].map(|of| of.node().expect("an op makes it").op).into()
}

fn dropout(shape: &[usize], dtype: Dtype) -> std::sync::Arc<dyn Op> {
    let trace = Trace::new();
    let x = trace.input(Type::new(dtype, shape));
    let p = trace.constant(0.5, dtype, []);
    x.dropout(&p).node().expect("an op makes it").op
}

#[test]
fn dropout_keeps_all_at_0_none_at_1_and_the_right_share_between() {
    let n = 100_000;
    let op = dropout(&[n], Dtype::F32);
    let kept = |p: f64| {
        let inputs = [Array::from_fn(Dtype::F32, [n], |_| 1.0), Array::new(Dtype::F32, [], [p])];
        let y = run_op_keyed(&*op, &inputs, &[], RngKey { seed: 1, number: 2, step: 3 }, 0)
            .swap_remove(0);
        y.elements.iter().filter(|&&y| y != 0.0).count()
    };
    assert_eq!(kept(0.0), n);
    assert_eq!(kept(1.0), 0);
    // Five standard deviations of 100,000 draws.
    for p in [0.1, 0.5, 0.9] {
        let expected = n as f64 * (1.0 - p);
        let deviation = (n as f64 * p * (1.0 - p)).sqrt();
        assert!((kept(p) as f64 - expected).abs() < 5.0 * deviation, "{p}");
    }
}

#[test]
fn dropouts_gradient_is_its_slope() {
    let x = numbers(Dtype::F64, &[3, 5], 9);
    let p = Array::new(Dtype::F64, [], [0.4]);
    check_gradient_of(|v| v[0].dropout(&v[1]), &[x, p], &[0], 1e-8);
}

#[test]
fn one_item_needs_no_batch() {
    let setting = Setting { reduction: Reduction::Mean, smoothing: 0.0, weighted: false };
    let x = numbers(Dtype::F64, &[5], 3);
    let target = Array::new(Dtype::I64, [], [2.0]);
    let y = evaluate(|v| loss(v, setting), &[x.clone(), target.clone()], &[]);
    assert_eq!(*y.ty.shape, []);
    close(&y, &exact(&[x.clone(), target.clone()], setting), 1e-12);
    check_gradient(|v| loss(v, setting), &[x, target], 1e-8);
}

#[test]
fn further_axes_count_as_items() {
    for reduction in [Reduction::None, Reduction::Mean] {
        let setting = Setting { reduction, smoothing: 0.1, weighted: false };
        let x = numbers(Dtype::F64, &[2, 4, 3], 3);
        let target = Array::new(Dtype::I64, [2, 3], [0.0, 1.0, 2.0, 3.0, IGNORE as f64, 1.0]);
        let y = check_layouts(|v| loss(v, setting), &[x.clone(), target.clone()]);
        let flat =
            evaluate(|v| v[0].transpose(1, 2).reshape([6, 4]), std::slice::from_ref(&x), &[]);
        close(&y, &exact(&[flat, target.clone()], setting), 1e-12);
        check_gradient(|v| loss(v, setting), &[x, target], 1e-8);
    }
}

#[test]
fn a_target_that_is_no_class_gives_nan_and_touches_nothing_else() {
    let setting = Setting { reduction: Reduction::None, smoothing: 0.0, weighted: false };
    let x = numbers(Dtype::F32, &[3, 4], 3);
    for wrong in [4.0, -1.0, 1e12, -1e12] {
        let target = Array::new(Dtype::I64, [3], [1.0, wrong, 2.0]);
        let y = evaluate(|v| loss(v, setting), &[x.clone(), target], &[]);
        assert!(y.elements[1].is_nan());
        assert!(y.elements[0].is_finite() && y.elements[2].is_finite());
    }
    assert_eq!(check_targets(&[0, 9, -100], 10, -100), Ok(()));
    let error = check_targets(&[3, 10], 10, -100).unwrap_err();
    assert_eq!((error.index, error.to_string().as_str()), (1, "Target 10 is out of bounds."));
}

#[test]
fn the_mean_of_ignored_items_is_nan() {
    let setting = Setting { reduction: Reduction::Mean, smoothing: 0.0, weighted: false };
    let x = numbers(Dtype::F32, &[2, 4], 3);
    let target = Array::new(Dtype::I64, [2], [IGNORE as f64; 2]);
    assert!(evaluate(|v| loss(v, setting), &[x, target], &[]).elements[0].is_nan());
}

#[test]
fn large_logits_do_not_overflow() {
    let x = Array::new(Dtype::F32, [1, 3], [1000.0, 0.0, -1000.0]);
    let y = evaluate(|v| v[0].softmax(1), std::slice::from_ref(&x), &[]);
    assert_eq!(y.elements, [1.0, 0.0, 0.0]);
    let setting = Setting { reduction: Reduction::Mean, smoothing: 0.0, weighted: false };
    let target = Array::new(Dtype::I64, [1], [2.0]);
    assert_eq!(evaluate(|v| loss(v, setting), &[x, target], &[]).elements, [2000.0]);
}
