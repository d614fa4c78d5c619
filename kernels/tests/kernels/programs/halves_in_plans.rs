//! Plans of programs in halves: conversions are gone where they can be, and the bits are those of one op after another.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::ops::update::adam::{AdamRates, AdamSettings};
use neurarch_kernels::ops::update::sgd::{SgdMomentum, SgdRates, SgdSettings};
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::plan::{Plan, PlanOptions};
use neurarch_kernels::testing::{Array, cases, evaluate, planned, same_bits};
use proptest::prelude::*;

const HALVES: [Dtype; 2] = [Dtype::F16, Dtype::BF16];

/// A network of two layers in a half.
#[derive(Clone, Copy, Debug)]
struct Net {
    dtype: Dtype,
    batch: usize,
    widths: [usize; 3],
    activation: u8,
    rule: u8,
    /// A multiple of all numbers: small ones become zeros of either sign where they are rounded.
    scale: f64,
}

impl Net {
    /// Gives what each model's program is called with: inputs, targets, then for each parameter itself and two states;
    /// and counts of steps.
    fn inputs(&self, model: usize) -> Vec<Array> {
        let Net { dtype, batch, widths: [a, b, c], scale, .. } = *self;
        let of = |shape: &[usize], pitch: f64| {
            Array::from_fn(dtype, shape, |i| scale * (pitch * (i + 11 * model) as f64 + 0.2).sin())
        };
        let mut all = vec![of(&[batch, a], 0.7), of(&[batch, c], 0.9)];
        for (place, shape) in [&[b, a][..], &[b], &[c, b], &[c]].into_iter().enumerate() {
            let pitch = 1.1 + 0.3 * place as f64;
            all.extend([of(shape, pitch), of(shape, pitch / 3.0)]);
            let mut square = of(shape, pitch / 7.0);
            square.elements.iter_mut().for_each(|x| *x = x.abs());
            all.push(square);
        }
        all.push(Array::new(Dtype::F32, [2], [3.0, 0.0]));
        all
    }

    fn activated(&self, x: &Var) -> Var {
        match self.activation % 4 {
            0 => x.relu(),
            1 => x.tanh(),
            2 => x.silu(),
            _ => x.clone(),
        }
    }

    /// Records the forward pass: what each layer gives.
    fn forward(&self, v: &[Var]) -> [Var; 2] {
        let hidden = self.activated(&v[0].linear(&v[2], Some(&v[5])));
        let y = self.activated(&hidden.linear(&v[8], Some(&v[11])));
        [hidden, y]
    }

    /// Records a training step: the loss, and all parameters and states after the update.
    fn step(&self, v: &[Var]) -> Vec<Var> {
        let trace = v[0].trace();
        let [_, y] = self.forward(v);
        let loss = y.mse_loss(&v[1], Reduction::Mean);
        let one = trace.constant(1.0, loss.dtype(), []);
        let parameters = [2, 5, 8, 11].map(|place| v[place].clone());
        let found = backward(trace, &[(loss.clone(), one)], &parameters);
        let mut outputs = vec![loss];
        let steps = &v[14];
        let rates = [1e-2, 0.9, 0.999, 1e-8, 1e-2];
        let [lr, beta1, beta2, eps, weight_decay] =
            &rates.map(|rate| trace.constant(rate, Dtype::F64, []));
        for (place, gradient) in [2, 5, 8, 11].into_iter().zip(found) {
            let gradient = gradient.expect("the loss depends on every parameter");
            let [p, m, s] = &v[place..place + 3] else { unreachable!() };
            match self.rule % 4 {
                0 => {
                    let rates = AdamRates { lr, beta1, beta2, eps, weight_decay };
                    let settings =
                        AdamSettings { index: usize::from(place > 5), ..Default::default() };
                    let new = p.adam(&gradient, (m, s), steps, &rates, settings);
                    outputs.extend([new.parameter, new.exp_avg, new.exp_avg_sq, new.steps]);
                }
                1 => {
                    let rates = AdamRates { lr, beta1, beta2, eps, weight_decay };
                    let (new, greatest) =
                        p.amsgrad(&gradient, (m, s, s), steps, &rates, AdamSettings::default());
                    outputs.extend([new.parameter, new.exp_avg, new.exp_avg_sq, greatest]);
                }
                2 => {
                    let (rates, momentum) = (SgdRates { lr, weight_decay }, beta1);
                    let momentum = SgdMomentum { buffer: m, momentum, dampening: weight_decay };
                    let new =
                        p.sgd(&gradient, steps, &rates, Some(&momentum), SgdSettings::default());
                    outputs.extend([new.parameter, new.steps]);
                    outputs.extend(new.buffer);
                }
                _ => {
                    let rates = SgdRates { lr, weight_decay };
                    let new = p.sgd(&gradient, steps, &rates, None, SgdSettings::default());
                    outputs.extend([new.parameter, new.steps, gradient]);
                }
            }
        }
        // Parameters and states are stored in what they were.
        let dtype = self.dtype;
        let stored =
            |y: Var| if y.shape().rank() > 0 && y.shape()[..] != [2] { y.to(dtype) } else { y };
        outputs.into_iter().map(stored).collect()
    }

    /// Compares plans for some models with one op after another.
    fn check(&self, build: impl Fn(&[Var]) -> Vec<Var>) {
        let models: Vec<_> = (0..3).map(|model| self.inputs(model)).collect();
        let all = planned(&build, &models);
        // Each output of one of the models.
        let places = (0..models.len()).cycle().take(all[0].len());
        for (number, model) in places.enumerate() {
            let one = evaluate(|v| build(v)[number].clone(), &models[model], &[]);
            let output = &all[model][number];
            assert_eq!(one.ty, output.ty);
            assert!(same_bits(&one.elements, &output.elements), "{self:?}: output {number}");
        }
    }
}

fn nets() -> impl Strategy<Value = Net> {
    let dtype = prop::sample::select(&HALVES[..]);
    let scale = prop::sample::select(&[1.0, 1.0, 1e-3, 1e-18, 300.0][..]);
    let width = || prop_oneof![1..40_usize, prop::sample::select(&[16, 32, 64, 300][..])];
    let widths = [width(), width(), width()];
    (dtype, 1..40_usize, widths, any::<[u8; 2]>(), scale).prop_map(
        |(dtype, batch, widths, [activation, rule], scale)| {
            let batch = if rule >= 128 { batch % 8 + 1 } else { batch };
            Net { dtype, batch, widths, activation, rule, scale }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn forward_passes_have_the_bits_of_one_op_after_another(net in nets()) {
        net.check(|v| net.forward(v)[1..].to_vec());
        // What a hook would see, too.
        net.check(|v| net.forward(v).to_vec());
    }

    #[test]
    fn training_steps_have_the_bits_of_one_op_after_another(net in nets()) {
        net.check(|v| net.step(v));
    }
}

/// Records a program and plans it; gives the names of its steps.
fn steps(net: &Net, build: impl Fn(&[Var]) -> Vec<Var>) -> Vec<String> {
    let trace = Trace::new();
    let vars: Vec<_> = net.inputs(0).into_iter().map(|array| trace.input(array.ty)).collect();
    let program = trace.finish(&build(&vars)).expect("shapes that fit");
    let plan = Plan::new(program, &PlanOptions::default()).expect("a program");
    plan.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn few_rows_are_multiplied_by_weights_in_halves() {
    for dtype in HALVES {
        let net = Net { dtype, batch: 1, widths: [16, 64, 8], activation: 0, rule: 0, scale: 1.0 };
        let steps = steps(&net, |v| net.forward(v)[1..].to_vec());
        let of = |name: &str| steps.iter().filter(|step| step.contains(name)).count();
        // The input is widened, the result rounded, and nothing else.
        assert_eq!((of(" = to "), of(" = linear half="), steps.len()), (2, 2, 5), "{steps:#?}");
    }
}

#[test]
fn updates_change_halves_where_they_lie() {
    for (dtype, rule) in HALVES.into_iter().flat_map(|dtype| [0, 2, 3].map(|rule| (dtype, rule))) {
        let net = Net { dtype, batch: 16, widths: [16, 64, 8], activation: 0, rule, scale: 1.0 };
        let steps = steps(&net, |v| net.step(v));
        let updates =
            steps.iter().filter(|step| step.contains(" = adam ") || step.contains(" = sgd "));
        assert_eq!(updates.filter(|step| step.contains(&format!("half={dtype}"))).count(), 4);
        // Weights and biases are widened for products of many rows, and so are inputs and targets.
        let widened = steps.iter().filter(|step| step.contains(" = to dtype=f32 ")).count();
        assert!(widened <= 6, "{steps:#?}");
    }
}
