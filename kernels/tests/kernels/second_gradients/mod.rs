//! The gradient of each gradient: right against differences of the first one and against torch, or an error
//! that names op and module. Nothing is silently taken for 0.

mod cases;

use neurarch_kernels::cpu::kernel::Cpu;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::op::{Ask, GradientAt, Op, OpError};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::activation::gelu::Approximate;
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::ops::spatial::grid_sample::{GridMode, GridOptions};
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{Array, check_gradient, check_gradient_of, evaluate};
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use cases::{One, all, floats, number, unlike_differences, whole};

/// Which inputs of a case are differentiated: those of cross entropy but its weights.
fn differentiated(name: &str, inputs: &[Array]) -> Vec<usize> {
    let count = if name.starts_with("cross_entropy") { 1 } else { inputs.len() };
    (0..count).filter(|&input| inputs[input].ty.dtype == Dtype::F64).collect()
}

/// Gives a number that depends on each gradient of `build`, and on each input by itself, as some gradients
/// don't.
fn of_gradients(build: &dyn Fn(&[Var]) -> Var, v: &[Var], wrt: &[usize]) -> Var {
    let trace = v[0].trace();
    let y = build(v);
    // Not a constant, so that the gradient depends on it too.
    let dy = trace.constant(0.7, Dtype::F64, y.shape().clone()) + &y * 0.1;
    let of: Vec<_> = wrt.iter().map(|&input| v[input].clone()).collect();
    let gradients = backward(trace, &[(y, dy)], &of);
    let parts = of.iter().zip(gradients).map(|(x, gradient)| {
        let gradient = gradient.expect("each of these inputs has a gradient");
        (gradient * (x * 0.5 + 1.0) + x.square() * 0.1).sum(&[], false)
    });
    parts.reduce(|sum, part| sum + part).expect("there is an input")
}

#[test]
fn second_gradients_are_the_slopes_of_the_first() {
    for (name, build, inputs) in all() {
        let wrt = differentiated(name, &inputs);
        // Differences of double precision across a step of 1e-3, of functions whose fifth derivatives are of
        // the order of 1e3.
        let check = || {
            check_gradient_of(|v| of_gradients(&*build, v, &wrt), &inputs, &wrt, 1e-6);
        };
        assert!(catch_unwind(AssertUnwindSafe(check)).is_ok(), "{name}");
    }
}

/// Ops that no training pass differentiates twice, or not at all: they have no rule, or nothing to
/// differentiate.
const WITHOUT: &[&str] = &[
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "argmax",
    "asgd",
    "centers",
    "ctc_loss",
    "ctc_loss_gradient",
    "embedding_bag",
    "embedding_bag_gradient",
    "embedding_bag_per_sample_weights_gradient",
    "embedding_renorm",
    "geqrf",
    "increment",
    "label_counts",
    "muon",
    "nadam",
    "noise",
    "one_hot",
    "radam",
    "rand",
    "rmsprop",
    "rprop",
    "sgd",
    "sparse_adam",
    // Parts of second gradients.
    "grid_sample_along",
    "grid_sample_grid_gradient_along",
    "grid_sample_input_gradient_along",
    "householder_product_second_gradient",
    // Parts of kernels and what passes make of other ops, after differentiation.
    "contiguous",
    "cross_entropy_with_gradient",
    "kept",
    "masked",
    "round_to",
];

#[test]
fn every_op_is_differentiated_twice_or_is_known_to_have_no_rule() {
    let mut seen = BTreeSet::new();
    for (name, build, inputs) in all().into_iter().chain(unlike_differences()) {
        let trace = Trace::new();
        let v: Vec<_> = inputs.iter().map(|input| trace.input(input.ty.clone())).collect();
        let wrt = differentiated(name, &inputs);
        let y = of_gradients(&*build, &v, &wrt);
        let one = trace.constant(1.0, Dtype::F64, []);
        let _ = backward(&trace, &[(y, one)], &v[..1]);
        let program = trace.finish(&[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        seen.extend(program.nodes.iter().map(|node| node.op.name().to_owned()));
    }
    let unseen: Vec<_> = names_of_ops()
        .into_iter()
        .filter(|name| !seen.contains(name) && !WITHOUT.contains(&name.as_str()))
        .collect();
    assert!(unseen.is_empty(), "never differentiated twice: {unseen:?}");
}

/// Reads the names of all ops from their sources: the literals in their functions `name`, and those that
/// macros take.
fn names_of_ops() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the ops' folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let source = fs::read_to_string(entry.path()).expect("a source file");
            for part in source.split("fn name(&self) -> &'static str {").skip(1) {
                let body = part.split("\n    }\n").next().unwrap_or_default();
                names.extend(body.split('"').skip(1).step_by(2).map(str::to_owned));
            }
        }
    }
    names
}

#[test]
fn second_gradients_of_activations_are_those_of_torch() {
    // torch.autograd.grad twice, at [-1.5, 0.3, 2.0], in double precision (torch 2.15).
    let of: [(One, [f64; 3]); 12] = [
        (|x| x.elu(&number(x, 1.5)), [0.334695240222645, 0.0, 0.0]),
        (|x| x.celu(&number(x, 1.5)), [0.245252960780962, 0.0, 0.0]),
        (Var::selu, [0.392284987480124, 0.0, 0.0]),
        (Var::logsigmoid, [-0.149146452070333, -0.244458311690746, -0.104993585403507]),
        (
            |x| x.softplus(&number(x, 2.0), &number(x, 3.0)),
            [0.0903533194618243, 0.457568480913315, 0.0],
        ),
        (Var::mish, [0.154614753561543, 0.563394659002067, -0.057724667408294]),
        (Var::silu, [0.156197584963537, 0.477997768194819, 0.050062168694707]),
        (
            |x| x.gelu(Approximate::None),
            [-0.032379398916473, 0.728450727529601, -0.107981933026376],
        ),
        (
            |x| x.gelu(Approximate::Tanh),
            [-0.0305181964842249, 0.728148448433912, -0.107875079951078],
        ),
        (Var::hardswish, [0.333333333333333; 3]),
        (Var::softsign, [0.128, -0.910332271279017, -0.0740740740740741]),
        (Var::tanhshrink, [-0.327132597287548, 0.533181878201454, 0.136218687427113]),
    ];
    let x = Array::new(Dtype::F64, [3], [-1.5, 0.3, 2.0]);
    for (op, expected) in of {
        let second = evaluate(|v| twice(&op, &v[0], None), std::slice::from_ref(&x), &[]);
        assert_near(&second.elements, &expected);
    }
}

/// The gradient of `⟨v, gradient of build(x)⟩`, where `v` is 1 if there is none.
fn twice(build: &dyn Fn(&Var) -> Var, x: &Var, v: Option<&Var>) -> Var {
    let trace = x.trace();
    let one = |like: &Var| trace.constant(1.0, like.dtype(), like.shape().clone());
    let y = build(x);
    let dy = one(&y);
    let first =
        backward(trace, &[(y, dy)], std::slice::from_ref(x)).remove(0).expect("it depends on x");
    let v = v.cloned().unwrap_or_else(|| one(&first));
    backward(trace, &[(first, v)], std::slice::from_ref(x)).remove(0).expect("it depends on x")
}

fn assert_near(found: &[f64], expected: &[f64]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }
}

#[test]
fn second_gradients_of_losses_and_norms_are_those_of_torch() {
    // The gradient of ⟨v, gradient⟩ with respect to x, by torch.autograd.grad twice (torch 2.15).
    let x = Array::new(Dtype::F64, [2, 3], [0.5, -1.0, 2.0, 1.5, 0.2, -0.7]);
    let v = Array::new(Dtype::F64, [2, 3], [1.0, -2.0, 0.5, 0.3, 0.8, -1.2]);
    let targets = whole(&[2], &[2, 0]);
    let weight = Array::new(Dtype::F64, [3], [0.5, 2.0, 1.0]);
    let cross_entropy = |v: &[Var]| {
        let smoothing = number(&v[0], 0.1);
        let loss = |x: &Var| x.cross_entropy(&v[2], Some(&v[3]), &smoothing, -100, Reduction::Mean);
        twice(&loss, &v[0], Some(&v[1]))
    };
    let inputs = [x.clone(), v.clone(), targets, weight];
    let expected = [
        0.060608231598709435,
        -0.06600537456079798,
        0.005397142962088547,
        0.005910397524249743,
        0.038823904266078485,
        -0.04473430179032821,
    ];
    assert_near(&evaluate(cross_entropy, &inputs, &[]).elements, &expected);
    let layer_norm = |v: &[Var]| {
        let of = |x: &Var| {
            let y = x.normalize(&[1], &number(x, 1e-5)).y;
            (y * &v[1]).square().sum(&[], false)
        };
        twice(&of, &v[0], Some(&v[1]))
    };
    let expected = [
        -3.2499285193271517,
        3.083339258413595,
        0.16658926091355575,
        -0.5753166316153211,
        -0.4643490457460153,
        1.0396656773613364,
    ];
    assert_near(&evaluate(layer_norm, &inputs[..2], &[]).elements, &expected);
    let softmax = |v: &[Var]| {
        let of = |x: &Var| (x.softmax(1) * &v[1]).square().sum(&[], false);
        twice(&of, &v[0], Some(&v[1]))
    };
    let expected = [
        0.027111325776582238,
        -0.024029315951295878,
        -0.0030820098252863385,
        0.0006152363870224415,
        0.034909762466451735,
        -0.03552499885347417,
    ];
    assert_near(&evaluate(softmax, &inputs[..2], &[]).elements, &expected);
}

/// The gradient of a table is not the slope where a row is padding or divided by how often it is named; that
/// of what it was made of is.
#[test]
fn the_gradient_of_a_tables_gradient_leaves_out_and_divides_the_same_rows() {
    let inputs = [floats(&[3, 2], 19), whole(&[4], &[2, 0, 2, 1]), floats(&[4, 2], 24)];
    for (padding, scales) in [(None, false), (Some(2), false), (Some(1), true), (None, true)] {
        let of_dy = |v: &[Var]| {
            let y = v[1].embedding(&v[0], padding, scales);
            backward(v[0].trace(), &[(y, v[2].clone())], &v[..1]).remove(0).unwrap().square()
        };
        check_gradient_of(of_dy, &inputs, &[2], 1e-8);
    }
}

/// An op whose author wrote no gradient.
#[derive(Debug)]
struct Doubled;

impl Op for Doubled {
    fn name(&self) -> &'static str {
        "doubled"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        Ok(inputs.to_vec())
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|_, _| unreachable!("only recorded here"));
    }
}

/// Gives the error of differentiating `build` within a module.
fn error_of(build: impl Fn(&Var) -> Var) -> String {
    let trace = Trace::new();
    let x = trace.input(Type::new(Dtype::F64, [2, 2]));
    let y = trace.call("body.0", "Layer", &x, |x| build(&x));
    let dy = trace.constant(1.0, Dtype::F64, y.shape().clone());
    let _ = backward(&trace, &[(y, dy)], &[x]);
    trace.finish(&[]).expect_err("there is no rule").to_string()
}

#[test]
fn an_op_without_a_gradient_is_an_error_that_names_op_and_module() {
    let of = |op: &str, input: usize| {
        format!(
            "body.0 (Layer): derivative for {op} with respect to its input {input} is not implemented"
        )
    };
    assert_eq!(error_of(|x| x.trace().apply(Doubled, &[x])), of("doubled", 0));
    assert_eq!(error_of(|x| x.geqrf()[0].clone()), of("geqrf", 0));
    // Torch takes numbers for these settings, which have no gradients.
    let setting = |x: &Var| x.sum(&[], false);
    assert_eq!(error_of(|x| x.detach().elu(&setting(x))), of("elu", 1));
    assert_eq!(error_of(|x| x.detach().leaky_relu(&setting(x))), of("leaky_relu", 1));
    assert_eq!(error_of(|x| x.detach().normalize(&[1], &setting(x)).y), of("normalize", 1));
}

#[test]
fn third_gradients_of_reflections_and_of_samples_are_errors_that_name_the_op() {
    let third = |x: &Array, build: &dyn Fn(&Var) -> Var| {
        let trace = Trace::new();
        let x = trace.input(x.ty.clone());
        let mut y = build(&x);
        for _ in 0..3 {
            let dy = trace.constant(1.0, Dtype::F64, y.shape().clone());
            let found = backward(&trace, &[(y, dy)], std::slice::from_ref(&x)).remove(0);
            let Some(found) = found else { break };
            y = found;
        }
        trace.finish(&[]).expect_err("there is no rule").to_string()
    };
    let reflections =
        |x: &Var| x.slice(0, 0..3).householder_product(&x.slice(0, 3..4).reshape([2]));
    let error = third(&floats(&[4, 2], 1), &reflections);
    assert!(error.contains("derivative for householder_product_second_gradient"), "{error}");
    let bicubic = GridOptions { mode: GridMode::Bicubic, ..GridOptions::default() };
    let samples = |x: &Var| x.grid_sample(x, bicubic);
    let error = third(&floats(&[1, 2, 2, 2], 1), &samples);
    assert!(error.contains("derivative for grid_sample"), "{error}");
}

#[test]
fn a_gradient_of_zero_is_zeros_as_in_torch() {
    let x = Array::new(Dtype::F64, [3], [-1.5, 0.3, 2.2]);
    for op in [Var::sign, Var::trunc] as [fn(&Var) -> Var; 2] {
        check_gradient(|v| op(&v[0]), std::slice::from_ref(&x), 0.0);
        check_gradient(|v| (op(&v[0]) * 2.0).exp(), std::slice::from_ref(&x), 0.0);
    }
    // The slope of a slope that does not change.
    let second = evaluate(|v| twice(&|x| x.relu(), &v[0], None), std::slice::from_ref(&x), &[]);
    assert_eq!(second.elements, [0.0; 3]);
}

#[test]
fn a_user_states_a_gradient_of_zero() {
    /// As [`Doubled`], but says that nothing comes back.
    #[derive(Debug)]
    struct Stopped;

    impl Op for Stopped {
        fn name(&self) -> &'static str {
            "stopped"
        }

        fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
            Ok(inputs.to_vec())
        }

        fn kernels(&self, ask: &mut Ask<'_>) {
            ask.give::<Cpu>(|_, _| unreachable!("only recorded here"));
        }

        fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
            vec![at.zero(0)]
        }
    }

    let trace = Trace::new();
    let x = trace.input(Type::new(Dtype::F64, [2]));
    let y = trace.apply(Stopped, &[&x]);
    let dy = trace.constant(1.0, Dtype::F64, [2]);
    let dx = backward(&trace, &[(y, dy)], &[x]).remove(0);
    assert_eq!(dx.expect("zeros").shape().numel(), 2);
    assert!(trace.error().is_none());
}
