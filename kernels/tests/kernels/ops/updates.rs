//! Update rules against torch's formulas, written as plain loops in double precision.

use std::sync::Arc;

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::op::Op;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::Trace;
use neurarch_kernels::ops::update::adam::{AdamRates, AdamSettings};
use neurarch_kernels::ops::update::sgd::{SgdMomentum, SgdRates, SgdSettings};
use neurarch_kernels::testing::{Array, cases, run_op};
use proptest::prelude::*;

const INDEX: usize = 1;

fn number(x: f64) -> Array {
    Array::new(Dtype::F64, [], [x])
}

fn numbers(dtype: Dtype, n: usize, seed: u64) -> Array {
    let mut state = seed;
    Array::from_fn(dtype, [n], |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        4.0 * (state >> 40) as f64 / f64::from(1 << 24) - 2.0
    })
}

fn close(found: &[f64], expected: &[f64], dtype: Dtype) {
    let tolerance = if dtype == Dtype::F64 { 1e-12 } else { 2e-6 };
    assert_eq!(found.len(), expected.len());
    for (&found, &expected) in found.iter().zip(expected) {
        let error = (found - expected).abs() / expected.abs().max(1.0);
        assert!(error <= tolerance, "{found}, not {expected}");
    }
}

fn adam_op(n: usize, dtype: Dtype, settings: AdamSettings) -> Arc<dyn Op> {
    let trace = Trace::new();
    let var = |ty| trace.input(ty);
    let [p, g, m, v] = [0; 4].map(|_| var(Type::new(dtype, [n])));
    let steps = var(Type::new(Dtype::F32, [3]));
    let [lr, beta1, beta2, eps, weight_decay] = [0; 5].map(|_| var(Type::new(Dtype::F64, [])));
    let rates =
        AdamRates { lr: &lr, beta1: &beta1, beta2: &beta2, eps: &eps, weight_decay: &weight_decay };
    p.adam(&g, (&m, &v), &steps, &rates, settings).parameter.node().expect("an op makes it").op
}

/// One step of `torch.optim.Adam` or `AdamW`, as `_single_tensor_adam` writes it.
fn adam_exact(
    [p, m, v]: [&mut Vec<f64>; 3],
    g: &[f64],
    step: f64,
    [lr, beta1, beta2, eps, weight_decay]: [f64; 5],
    settings: AdamSettings,
) {
    for i in 0..p.len() {
        let mut g = if settings.maximize { -g[i] } else { g[i] };
        if settings.decoupled {
            p[i] *= 1.0 - lr * weight_decay;
        } else {
            g += weight_decay * p[i];
        }
        m[i] += (g - m[i]) * (1.0 - beta1);
        v[i] = v[i] * beta2 + (1.0 - beta2) * g * g;
        let (correction1, correction2) = (1.0 - beta1.powf(step), 1.0 - beta2.powf(step));
        p[i] -= lr / correction1 * m[i] / (v[i].sqrt() / correction2.sqrt() + eps);
    }
}

/// One step of `torch.optim.SGD`, as `_single_tensor_sgd` writes it.
fn sgd_exact(
    p: &mut [f64],
    mut buffer: Option<&mut Vec<f64>>,
    g: &[f64],
    step: f64,
    [lr, weight_decay, momentum, dampening]: [f64; 4],
    settings: SgdSettings,
) {
    for i in 0..p.len() {
        let mut g = if settings.maximize { -g[i] } else { g[i] };
        g += weight_decay * p[i];
        if let Some(buffer) = &mut buffer {
            buffer[i] = if step == 1.0 { g } else { momentum * buffer[i] + (1.0 - dampening) * g };
            g = if settings.nesterov { g + momentum * buffer[i] } else { buffer[i] };
        }
        p[i] -= lr * g;
    }
}

proptest! {
    #![proptest_config(
        ProptestConfig { cases: cases(48), failure_persistence: None, ..ProptestConfig::default() }
    )]

    #[test]
    fn adam_follows_torchs_formula_and_writes_nothing_else(
        n in 1..=70_usize, seed: u64, decoupled: bool, maximize: bool,
        weight_decay in prop_oneof![Just(0.0), 0.0..0.1_f64],
    ) {
        let settings = AdamSettings { index: INDEX, decoupled, maximize };
        let rates = [0.01, 0.9, 0.999, 1e-8, weight_decay];
        for dtype in [Dtype::F32, Dtype::F64] {
            let op = adam_op(n, dtype, settings);
            let mut p = numbers(dtype, n, seed);
            let mut m = Array::from_fn(dtype, [n], |_| 0.0);
            let mut v = m.clone();
            let mut steps = Array::new(Dtype::F32, [3], [7.0, 0.0, 9.0]);
            let [mut p1, mut m1, mut v1] = [&p, &m, &v].map(|array| array.elements.clone());
            for step in 1..=4 {
                let g = numbers(dtype, n, seed ^ step);
                let mut inputs = vec![p, g.clone(), m, v, steps];
                inputs.extend(rates.map(number));
                let outputs = run_op(&*op, &inputs, &[]);
                let [new_p, new_m, new_v, new_steps] = outputs.try_into().unwrap();
                (p, m, v, steps) = (new_p, new_m, new_v, new_steps);
                adam_exact(
                    [&mut p1, &mut m1, &mut v1], &g.elements, step as f64, rates, settings,
                );
                close(&p.elements, &p1, dtype);
                close(&m.elements, &m1, dtype);
                close(&v.elements, &v1, dtype);
                prop_assert_eq!(&steps.elements, &[7.0, step as f64, 9.0]);
            }
        }
    }

    #[test]
    fn sgd_follows_torchs_formula_and_writes_nothing_else(
        n in 1..=70_usize, seed: u64, has_momentum: bool, nesterov: bool, maximize: bool,
        weight_decay in prop_oneof![Just(0.0), 0.0..0.1_f64], dampening in 0.0..0.5_f64,
    ) {
        let settings = SgdSettings { index: INDEX, nesterov, maximize };
        let rates = [0.05, weight_decay, 0.9, dampening];
        for dtype in [Dtype::F32, Dtype::F64] {
            let op = sgd_op(n, dtype, has_momentum, settings);
            let mut p = numbers(dtype, n, seed);
            let mut buffer = Array::from_fn(dtype, [n], |_| 5.0);
            let mut steps = Array::new(Dtype::F32, [3], [7.0, 0.0, 9.0]);
            let [mut p1, mut b1] = [&p, &buffer].map(|array| array.elements.clone());
            for step in 1..=4 {
                let g = numbers(dtype, n, seed ^ step);
                let mut inputs = vec![p, g.clone()];
                inputs.extend(has_momentum.then_some(buffer.clone()));
                inputs.push(steps);
                inputs.extend(rates[..if has_momentum { 4 } else { 2 }].iter().map(|&x| number(x)));
                let mut outputs = run_op(&*op, &inputs, &[]);
                steps = outputs.pop().unwrap();
                p = outputs.remove(0);
                buffer = outputs.pop().unwrap_or(buffer);
                sgd_exact(
                    &mut p1, has_momentum.then_some(&mut b1), &g.elements, step as f64, rates, settings,
                );
                close(&p.elements, &p1, dtype);
                close(&buffer.elements, &b1, dtype);
                prop_assert_eq!(&steps.elements, &[7.0, step as f64, 9.0]);
            }
        }
    }
}

fn sgd_op(n: usize, dtype: Dtype, has_momentum: bool, settings: SgdSettings) -> Arc<dyn Op> {
    let trace = Trace::new();
    let [p, g, buffer] = [0; 3].map(|_| trace.input(Type::new(dtype, [n])));
    let steps = trace.input(Type::new(Dtype::F32, [3]));
    let [lr, weight_decay, momentum, dampening] =
        [0; 4].map(|_| trace.input(Type::new(Dtype::F64, [])));
    let rates = SgdRates { lr: &lr, weight_decay: &weight_decay };
    let momentum = SgdMomentum { buffer: &buffer, momentum: &momentum, dampening: &dampening };
    let momentum = has_momentum.then_some(&momentum);
    p.sgd(&g, &steps, &rates, momentum, settings).parameter.node().expect("an op makes it").op
}

#[test]
fn a_state_of_another_shape_is_an_error() {
    let trace = Trace::new();
    let p = trace.input(Type::new(Dtype::F32, [3]));
    let m = trace.input(Type::new(Dtype::F32, [4]));
    let steps = trace.input(Type::new(Dtype::F32, [1]));
    let rate = trace.input(Type::new(Dtype::F64, []));
    let rates =
        AdamRates { lr: &rate, beta1: &rate, beta2: &rate, eps: &rate, weight_decay: &rate };
    p.adam(&p, (&m, &p), &steps, &rates, AdamSettings::default());
    assert_eq!(
        trace.error().unwrap().message,
        "adam: expected a gradient and states of the parameter's type f32[3], got f32[4]"
    );
}
