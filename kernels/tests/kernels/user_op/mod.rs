//! An op defined outside the crate, by its shape rule, kernel and gradient, is like those inside: it runs
//! eagerly and planned, alone and in a population, and is differentiated. One that lies gets an error.

mod lies;

use neurarch_kernels::cpu::kernel::Cpu;
use neurarch_kernels::cpu::simd::Float;
use neurarch_kernels::cpu::tile::Tile;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::eager::Eager;
use neurarch_kernels::ir::op::{Ask, GradientAt, Op, OpError};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::plan::{Plan, PlanOptions};
use neurarch_kernels::testing::{Array, cases, check_gradient, evaluate, planned, same_bits};
use proptest::prelude::*;

/// Huber's loss of each element: `e² / 2` where `|e| ≤ delta`, `delta · (|e| - delta / 2)` elsewhere, with
/// `e = x - target`.
///
/// Source: `torch.nn.functional.huber_loss` with `reduction='none'`.
#[derive(Debug, Clone, Copy)]
struct Huber {
    delta: f64,
}

impl Op for Huber {
    fn name(&self) -> &'static str {
        "huber"
    }

    fn attributes(&self) -> String {
        format!("delta={}", self.delta)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        match inputs {
            [x, target] if x == target && x.dtype.is_float() => Ok(vec![x.clone()]),
            [x, target] => {
                Err(OpError(format!("huber: expected two of one type, got {x} and {target}")))
            }
            _ => Err(OpError(format!("huber: expected 2 inputs, got {}", inputs.len()))),
        }
    }

    /// Inputs come row-major, because [`Op::takes_layout`] does not say otherwise.
    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|inputs, _| {
            let delta = self.delta;
            match inputs[0].ty.dtype {
                Dtype::F64 => Box::new(move |tile: &mut Tile<'_>| compute::<f64>(tile, delta)),
                _ => Box::new(move |tile: &mut Tile<'_>| compute::<f32>(tile, delta)),
            }
        });
    }

    /// `dy · clamp(e, -delta, delta)`, in ops that have gradients themselves.
    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        let (x, target) = (&at.inputs[0], &at.inputs[1]);
        let bound = |bound| x.trace().constant(bound, x.dtype(), []);
        let dx = at.gradients[0]
            .as_ref()
            .map(|dy| dy * (x - target).hardtanh(&bound(-self.delta), &bound(self.delta)));
        let dtarget = dx.as_ref().filter(|_| at.needs[1]).map(|dx| -dx);
        vec![dx, dtarget]
    }
}

/// Computes the losses of every model in a tile.
fn compute<T: Float>(tile: &mut Tile<'_>, delta: f64) {
    for model in 0..tile.models() {
        let (inputs, mut outputs, _) = tile.model(model).split();
        let (x, target) = (inputs.get::<T>(0), inputs.get::<T>(1));
        for ((y, &x), &target) in outputs.take::<T>().iter_mut().zip(x).zip(target) {
            let e = (x.into() - target.into()).abs();
            *y = T::from_f64(if e <= delta { e * e / 2.0 } else { delta * (e - delta / 2.0) });
        }
    }
}

fn huber(x: &Var, target: &Var) -> Var {
    x.trace().apply(Huber { delta: 0.5 }, &[x, target])
}

/// The loss behind a layer whose output lies features first, and the gradient of the weight.
fn loss_and_gradient(v: &[Var]) -> Vec<Var> {
    let [x, weight, target] = v else { unreachable!("three inputs") };
    let loss = huber(&x.linear(weight, None), target).mean(&[], false);
    let one = x.trace().constant(1.0, Dtype::F32, []);
    let gradients = backward(x.trace(), &[(loss.clone(), one)], std::slice::from_ref(weight));
    vec![loss, gradients[0].clone().expect("the loss depends on the weight")]
}

fn inputs(rows: usize, seed: usize) -> Vec<Array> {
    let numbers = |shape: [usize; 2], seed: usize| {
        Array::from_fn(Dtype::F32, shape, |i| (1.7 * (i + 5 * seed) as f64).sin())
    };
    vec![numbers([rows, 3], seed), numbers([2, 3], seed + 1), numbers([rows, 2], seed + 2)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_gives_the_same_bits_planned_in_a_population_and_eagerly_alone(
        models in 1..6_usize, rows in 1..20_usize,
    ) {
        let models: Vec<_> = (0..models).map(|model| inputs(rows, model)).collect();
        for (inputs, planned) in models.iter().zip(planned(loss_and_gradient, &models)) {
            let eager = Trace::eager(inputs.iter().enumerate().fold(
                Eager::new(1, Vec::new()),
                |eager, (i, x)| {
                    let elements: Vec<_> = x.elements.iter().map(|&x| x as f32).collect();
                    eager.with_input(i, &elements)
                },
            ));
            let v: Vec<_> = inputs.iter().map(|x| eager.input(x.ty.clone())).collect();
            for (var, planned) in loss_and_gradient(&v).iter().zip(&planned) {
                let id = var.id().expect("no error");
                let found = eager.values().expect("eager").read::<f32>(id).expect("computed");
                let found: Vec<_> = found.into_iter().map(f64::from).collect();
                prop_assert!(same_bits(&found, &planned.elements));
            }
        }
    }
}

#[test]
fn it_computes_its_formula() {
    let x = Array::new(Dtype::F32, [3], [0.0, 0.25, -2.0]);
    let target = Array::new(Dtype::F32, [3], [0.0, 0.0, 0.0]);
    let y = evaluate(|v| huber(&v[0], &v[1]), &[x, target], &[]);
    assert_eq!(y.elements, [0.0, 0.03125, 0.875]);
}

#[test]
fn its_gradient_is_its_slope_twice() {
    // Away from the kinks.
    let x = Array::new(Dtype::F64, [4], [0.1, -0.3, 2.0, -1.0]);
    let target = Array::new(Dtype::F64, [4], [0.0, 0.1, 0.5, 0.0]);
    let all = [x, target];
    check_gradient(|v| huber(&v[0], &v[1]), &all, 1e-9);
    let gradient = |v: &[Var]| {
        let square = huber(&v[0], &v[1]).square();
        let one = v[0].trace().constant(1.0, Dtype::F64, [4]);
        backward(v[0].trace(), &[(square, one)], &v[..1])[0].clone().expect("it depends on x")
    };
    check_gradient(gradient, &all, 1e-9);
}

#[test]
fn its_errors_name_the_module() {
    let trace = Trace::new();
    let x = trace.input(Type::new(Dtype::F32, [3]));
    let target = trace.input(Type::new(Dtype::F32, [4]));
    let _ = trace.call("head.loss", "Huber", &x, |x| huber(&x, &target));
    let error = trace.error().expect("the shapes differ").to_string();
    assert_eq!(error, "head.loss (Huber): huber: expected two of one type, got f32[3] and f32[4]");
}

/// An op that nobody computes.
#[derive(Debug)]
struct Unwritten;

impl Op for Unwritten {
    fn name(&self) -> &'static str {
        "unwritten"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        Ok(inputs.to_vec())
    }
}

#[test]
fn an_op_without_a_kernel_is_an_error_that_names_the_back_end() {
    let expected = "unwritten: not implemented on cpu";
    let trace = Trace::new();
    let x = trace.input(Type::new(Dtype::F32, [3]));
    let program = trace.finish(&[trace.apply(Unwritten, &[&x])]).expect("it has types");
    let error = Plan::new(program, &PlanOptions::default()).expect_err("nobody computes it");
    assert!(error.to_string().contains(expected), "{error}");

    let trace = Trace::eager(Eager::new(1, Vec::new()).with_input(0, &[1.0_f32, 2.0, 3.0]));
    let x = trace.input(Type::new(Dtype::F32, [3]));
    let _ = trace.apply(Unwritten, &[&x]);
    let error = trace.error().expect("nobody computes it").to_string();
    assert!(error.contains(expected), "{error}");
}
