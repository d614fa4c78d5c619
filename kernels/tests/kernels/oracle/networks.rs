//! Whole steps: random networks in both precisions, with loss, gradients and an update, against the oracle.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::activation::gelu::Approximate;
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::ops::spatial::convolution::Convolution;
use neurarch_kernels::ops::update::adadelta::AdadeltaSettings;
use neurarch_kernels::ops::update::adagrad::AdagradSettings;
use neurarch_kernels::ops::update::adam::{AdamRates, AdamSettings};
use neurarch_kernels::ops::update::adamax::AdamaxSettings;
use neurarch_kernels::ops::update::rmsprop::RMSpropSettings;
use neurarch_kernels::ops::update::rprop::RpropSettings;
use neurarch_kernels::ops::update::rule::UpdateInputs;
use neurarch_kernels::ops::update::sgd::{SgdMomentum, SgdRates, SgdSettings};
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{Array, cases, planned};
use proptest::prelude::*;

use super::difference;
use super::interpreter::interpret;

/// What follows a layer, smooth but where it says so.
const STEPS: [fn(&Var) -> Var; 14] = [
    |x| x.tanh(),
    |x| x.sigmoid(),
    |x| x.relu(),
    |x| x.silu(),
    |x| x.gelu(Approximate::None),
    |x| x.gelu(Approximate::Tanh),
    |x| x.mish(),
    |x| {
        x.softplus(
            &x.trace().constant(1.5, x.dtype(), []),
            &x.trace().constant(20.0, x.dtype(), []),
        )
    },
    |x| x.softmax(-1),
    |x| x.log_softmax(-1),
    |x| x.normalize(&[-1], &x.trace().constant(1e-2, x.dtype(), [])).y,
    |x| x.rms_normalize(&[-1], &x.trace().constant(1e-2, x.dtype(), [])),
    |x| (x.square() + 1.0).sqrt().log(),
    |x| x.sin() * x.cos(),
];

/// Numbers in (-1, 1) that follow from a seed.
fn numbers(ty: Type, seed: usize) -> Array {
    Array::from_fn(ty.dtype, ty.shape, |i| {
        let x = (i as u64 + 1000 * seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((x ^ (x >> 31)).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 40) as f64 / 8_388_608.0 - 1.0
    })
}

/// Compares a step's results with the oracle's: `1e-9` of the largest number in doubles, `tolerance` in singles.
fn check(
    build: impl Fn(&[Var]) -> Vec<Var>,
    inputs: &[Array],
    tolerance: f64,
) -> Result<(), TestCaseError> {
    let trace = Trace::new();
    let v: Vec<_> = inputs.iter().map(|x| trace.input(x.ty.clone())).collect();
    let program = trace.finish(&build(&v)).map_err(|e| TestCaseError::fail(e.to_string()))?;
    let expected = interpret(&program, inputs, &[], &[]);
    let expected = expected.map_err(|e| TestCaseError::fail(e.to_string()))?;
    let found = planned(build, &[inputs.to_vec()]).swap_remove(0);
    let what = difference(&found, &expected, tolerance);
    prop_assert!(what.is_none(), "{}\n{program}", what.unwrap_or_default());
    Ok(())
}

const PRECISIONS: [(Dtype, f64); 2] = [(Dtype::F64, 1e-9), (Dtype::F32, 2e-4)];

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn networks_and_their_gradients_agree_with_the_oracle(
        batch in 1..20_usize,
        sizes in prop::collection::vec(1..20_usize, 2..5),
        steps in prop::collection::vec(0..STEPS.len(), 4),
        smoothing in 0..2_usize,
        reduction in prop::sample::select(vec![Reduction::None, Reduction::Mean, Reduction::Sum]),
    ) {
        for (dtype, tolerance) in PRECISIONS {
            let ty = |shape: &[usize]| Type::new(dtype, shape);
            let mut inputs = vec![numbers(ty(&[batch, sizes[0]]), 0)];
            for (layer, pair) in sizes.windows(2).enumerate() {
                inputs.push(numbers(ty(&[pair[1], pair[0]]), 2 * layer + 1));
                inputs.push(numbers(ty(&[pair[1]]), 2 * layer + 2));
            }
            let classes = sizes[sizes.len() - 1];
            inputs.push(Array::from_fn(Dtype::I64, [batch], |i| (i * 7 % classes) as f64));
            let build = |v: &[Var]| {
                let n = v.len();
                let mut x = v[0].clone();
                for (layer, parameters) in v[1..n - 1].chunks(2).enumerate() {
                    x = STEPS[steps[layer]](&x.linear(&parameters[0], Some(&parameters[1])));
                }
                let of_smoothing = x.trace().constant(0.1 * smoothing as f64, dtype, []);
                let loss = x.cross_entropy(&v[n - 1], None, &of_smoothing, 3, reduction);
                let one = loss.trace().constant(1.0, dtype, loss.shape().clone());
                let gradients = backward(loss.trace(), &[(loss.clone(), one)], &v[..n - 1]);
                [loss].into_iter().chain(gradients.into_iter().flatten()).collect()
            };
            // A mean over nothing is NaN, as in torch, and its gradient is open.
            let ignored = (0..batch).filter(|i| i * 7 % classes == 3).count();
            if ignored < batch {
                check(build, &inputs, tolerance)?;
            }
        }
    }

    #[test]
    fn convolutions_and_their_gradients_agree_with_the_oracle(
        axes in 1..4_usize,
        batch in 1..4_usize,
        groups in 1..3_usize,
        (per_group, out) in (1..4_usize, 1..4_usize),
        size in 3..8_usize,
        kernel in 1..4_usize,
        (stride, padding, dilation) in (1..3_usize, 0..3_usize, 1..3_usize),
        step in 0..8_usize,
    ) {
        let span = dilation * (kernel - 1) + 1;
        prop_assume!(size + 2 * padding >= span);
        for (dtype, tolerance) in PRECISIONS {
            let settings = Convolution {
                stride: vec![stride; axes],
                padding: vec![(padding, padding); axes],
                dilation: vec![dilation; axes],
                groups,
            };
            let of = |first: [usize; 2], size: usize| {
                Type::new(dtype, [first.to_vec(), vec![size; axes]].concat())
            };
            let inputs = [
                numbers(of([batch, per_group * groups], size), 1),
                numbers(of([out * groups, per_group], kernel), 2),
                numbers(Type::new(dtype, [out * groups]), 3),
            ];
            let build = |v: &[Var]| {
                let y = STEPS[step](&v[0].convolution(&v[1], Some(&v[2]), &settings));
                let loss = y.square().mean(&[], false);
                let one = loss.trace().constant(1.0, dtype, []);
                let gradients = backward(loss.trace(), &[(loss.clone(), one)], v);
                [loss, y].into_iter().chain(gradients.into_iter().flatten()).collect()
            };
            check(build, &inputs, tolerance)?;
        }
    }

    #[test]
    fn updates_agree_with_the_oracle(
        n in 1..40_usize,
        step in 0..5_usize,
        rule in 0..RULES.len(),
        (maximize, flag) in (any::<bool>(), any::<bool>()),
    ) {
        for (dtype, tolerance) in PRECISIONS {
            let ty = Type::new(dtype, [n]);
            let states = (0..3).map(|i| {
                let state = numbers(ty.clone(), i + 5);
                Array { elements: state.elements.iter().map(|x| x.abs()).collect(), ..state }
            });
            let mut inputs = vec![numbers(ty.clone(), 1), numbers(ty.clone(), 2)];
            inputs.extend(states);
            inputs.push(Array::new(Dtype::F32, [2], [7.0, step as f64]));
            inputs.extend((0..6).map(|i| Array::new(Dtype::F64, [], [RATES[rule][i]])));
            check(|v| RULES[rule](v, maximize, flag), &inputs, tolerance)?;
        }
    }
}

#[test]
fn recurrent_layers_agree_with_the_oracle() {
    for ((dtype, tolerance), reverse) in PRECISIONS.into_iter().zip([true, false]) {
        let ty = |shape: &[usize]| Type::new(dtype, shape);
        let (steps, batch, hidden) = (4, 3, 19);
        let inputs = [
            numbers(ty(&[steps * batch, 4 * hidden]), 1),
            numbers(ty(&[4 * hidden, hidden]), 2),
            numbers(ty(&[4 * hidden]), 3),
            numbers(ty(&[batch, hidden]), 4),
            numbers(ty(&[batch, hidden]), 5),
        ];
        let learned = |loss: Var, v: &[Var]| -> Vec<Var> {
            let one = loss.trace().constant(1.0, dtype, []);
            let gradients = backward(loss.trace(), &[(loss.clone(), one)], v);
            [loss].into_iter().chain(gradients.into_iter().flatten()).collect()
        };
        let lstm = |v: &[Var]| {
            let h = v[0].lstm(&v[1], Some(&v[2]), [&v[3], &v[4]], steps, reverse).h;
            learned(h.square().mean(&[], false), v)
        };
        let gru = |v: &[Var]| {
            let three = |x: &Var, axis: isize| x.slice(axis, 0..3 * hidden);
            let (x, weight, bias) = (three(&v[0], 1), three(&v[1], 0), three(&v[2], 0));
            let h = x.gru(&weight, Some(&bias), &v[3], steps, reverse).h;
            learned(h.square().mean(&[], false), &v[..4])
        };
        check(lstm, &inputs, tolerance).unwrap_or_else(|error| panic!("{error}"));
        check(gru, &inputs, tolerance).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn second_gradients_agree_with_the_oracle() {
    for (dtype, tolerance) in PRECISIONS {
        let inputs = [
            numbers(Type::new(dtype, [5, 19]), 1),
            Array::from_fn(Dtype::I64, [7], |i| (i * 3 % 5) as f64),
        ];
        let build = |v: &[Var]| {
            let trace = v[0].trace();
            let logits = trace.call("0", "Embedding", &v[1], |index| {
                index.embedding(&v[0], Some(2), true).tanh()
            });
            let smoothing = trace.constant(0.1, dtype, []);
            let loss = logits.cross_entropy(&v[1], None, &smoothing, 4, Reduction::Sum);
            let one = || trace.constant(1.0, dtype, []);
            let gradient = backward(trace, &[(loss.clone(), one())], &v[..1]);
            let gradient = gradient[0].clone().expect("the loss depends on the table");
            let square = gradient.square().sum(&[], false);
            let second = backward(trace, &[(square, one())], &v[..1]);
            vec![loss, gradient, second[0].clone().expect("so does the gradient")]
        };
        check(build, &inputs, tolerance).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// A rule from a parameter, its gradient, three states, counts and six rates.
type Rule = fn(&[Var], bool, bool) -> Vec<Var>;

/// The rates of each of [`RULES`], in its order.
const RATES: [[f64; 6]; 9] = [
    [0.1, 0.01, 0.0, 0.0, 0.0, 0.0],
    [0.1, 0.01, 0.9, 0.1, 0.0, 0.0],
    [0.1, 0.9, 0.99, 1e-3, 0.01, 0.0],
    [0.1, 0.9, 0.99, 1e-3, 0.01, 0.0],
    [0.1, 0.01, 0.02, 0.3, 1e-3, 0.0],
    [0.5, 0.9, 1e-2, 0.01, 0.0, 0.0],
    [0.1, 0.9, 0.99, 1e-3, 0.01, 0.0],
    [0.1, 0.9, 1e-2, 0.01, 0.8, 0.0],
    [0.1, 0.5, 1.2, 1e-3, 0.5, 0.0],
];

const RULES: [Rule; 9] = [
    |v, maximize, nesterov| {
        let rates = SgdRates { lr: &v[6], weight_decay: &v[7] };
        let settings = SgdSettings { index: 1, nesterov, maximize };
        let made = v[0].sgd(&v[1], &v[5], &rates, None, settings);
        vec![made.parameter, made.steps]
    },
    |v, maximize, nesterov| {
        let rates = SgdRates { lr: &v[6], weight_decay: &v[7] };
        let momentum = SgdMomentum { buffer: &v[2], momentum: &v[8], dampening: &v[9] };
        let settings = SgdSettings { index: 1, nesterov, maximize };
        let made = v[0].sgd(&v[1], &v[5], &rates, Some(&momentum), settings);
        vec![made.parameter, made.buffer.expect("there is momentum"), made.steps]
    },
    |v, maximize, decoupled| {
        let [lr, beta1, beta2, eps, weight_decay] = [6, 7, 8, 9, 10].map(|i| &v[i]);
        let rates = AdamRates { lr, beta1, beta2, eps, weight_decay };
        let settings = AdamSettings { index: 1, decoupled, maximize };
        let made = v[0].adam(&v[1], (&v[2], &v[3]), &v[5], &rates, settings);
        vec![made.parameter, made.exp_avg, made.exp_avg_sq, made.steps]
    },
    |v, maximize, decoupled| {
        let [lr, beta1, beta2, eps, weight_decay] = [6, 7, 8, 9, 10].map(|i| &v[i]);
        let rates = AdamRates { lr, beta1, beta2, eps, weight_decay };
        let settings = AdamSettings { index: 1, decoupled, maximize };
        let (made, greatest) = v[0].amsgrad(&v[1], (&v[2], &v[3], &v[4]), &v[5], &rates, settings);
        vec![made.parameter, made.exp_avg, made.exp_avg_sq, greatest, made.steps]
    },
    |v, maximize, _| {
        let names = ["lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"];
        with(v, 1, &names, |p, at| p.adagrad(at, AdagradSettings { maximize }))
    },
    |v, maximize, _| {
        let names = ["lr", "rho", "eps", "weight_decay"];
        with(v, 2, &names, |p, at| p.adadelta(at, AdadeltaSettings { maximize }))
    },
    |v, maximize, _| {
        let names = ["lr", "beta1", "beta2", "eps", "weight_decay"];
        with(v, 2, &names, |p, at| p.adamax(at, AdamaxSettings { maximize }))
    },
    |v, maximize, centered| {
        let names = ["lr", "alpha", "eps", "weight_decay", "momentum"];
        let settings = RMSpropSettings { has_momentum: !centered, centered, maximize };
        with(v, 2, &names, |p, at| p.rmsprop(at, settings))
    },
    |v, maximize, _| {
        let names = ["lr", "etaminus", "etaplus", "step_size_min", "step_size_max"];
        with(v, 2, &names, |p, at| p.rprop(at, RpropSettings { maximize }))
    },
];

/// Records a rule with so many states, whose rates have these names.
fn with(
    v: &[Var],
    states: usize,
    names: &[&str],
    rule: impl Fn(&Var, &UpdateInputs<'_>) -> neurarch_kernels::ops::update::rule::Updated,
) -> Vec<Var> {
    let rate = |name: &'static str| {
        let place = names.iter().position(|known| *known == name).expect("a rate of the rule");
        v[6 + place].clone()
    };
    let at = UpdateInputs {
        gradient: &v[1],
        states: &v[2..2 + states],
        steps: &v[5],
        index: 1,
        rate: &rate,
    };
    let made = rule(&v[0], &at);
    [made.parameter].into_iter().chain(made.states).chain([made.steps]).collect()
}
