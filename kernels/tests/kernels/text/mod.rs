//! What is printed in C has the bits of the CPU's kernels: each formula, its gradients, and chains of them, in both
//! precisions, on numbers of all kinds.

mod compiled;
mod functions;
mod numbers;

use std::collections::BTreeSet;

use compiled::{Case, run};
use functions::{ALL, Function};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Program;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{Array, cases, planned, same_bits};
use neurarch_kernels::text::c;
use numbers::{count, numbers};
use proptest::prelude::*;

/// Records values of others.
type Build<'a> = Box<dyn Fn(&[Var]) -> Vec<Var> + 'a>;

/// Records a function, its gradients, and the gradients of the first of these.
fn with_gradients(function: &Function, x: &[Var]) -> Vec<Var> {
    let y = (function.compute)(x);
    let mut results = vec![y.clone()];
    // torch rounds a setting of this gradient to single precision: not an elementwise op.
    if function.name == "celu" && y.dtype() == Dtype::F64 {
        return results;
    }
    let of = x[..function.learns].to_vec();
    for _ in 0..2 {
        let y = results.last().cloned().into_iter().filter(|_| function.learns > 0);
        let seeds: Vec<_> =
            y.map(|y| (y.clone(), y.trace().constant(1.0, y.dtype(), y.shape().clone()))).collect();
        let gradients = backward(x[0].trace(), &seeds, &of);
        results.extend(gradients.into_iter().flatten().rev());
    }
    results
}

fn record(build: impl Fn(&[Var]) -> Vec<Var>, types: &[Type]) -> Program {
    let trace = Trace::new();
    let x: Vec<_> = types.iter().map(|ty| trace.input(ty.clone())).collect();
    trace.finish(&build(&x)).unwrap_or_else(|error| panic!("{error}"))
}

/// Compares what is printed with what the CPU computes.
fn check(name: &str, inputs: &[Array], found: &[Vec<f64>], expected: &[Array]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (output, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (i, (&c, &cpu)) in found.iter().zip(&expected.elements).enumerate() {
            let x: Vec<_> =
                inputs.iter().map(|input| input.elements[i % input.elements.len()]).collect();
            assert!(
                same_bits(&[c], &[cpu]),
                "{name}, output {output} of {x:?}: {c:e} in C, {cpu:e} on the CPU"
            );
        }
    }
}

/// Prints, compiles and runs programs of one type, and compares all outputs.
fn compare(dtype: Dtype, built: &[(String, Vec<Array>, Build<'_>)]) {
    let programs: Vec<_> = built
        .iter()
        .map(|(name, inputs, build)| {
            let types: Vec<_> = inputs.iter().map(|input| input.ty.clone()).collect();
            let program = record(build, &types);
            let source = c::function(&program, name).unwrap_or_else(|e| panic!("{name}: {e}"));
            let outputs = program.outputs.iter().map(|&id| program.ty(id).shape.numel()).collect();
            let inputs: Vec<_> = inputs.iter().map(|input| input.elements.clone()).collect();
            Case { name: name.clone(), source, inputs, outputs }
        })
        .collect();
    for (found, (name, inputs, build)) in run(dtype, &programs).iter().zip(built) {
        let expected = planned(build, std::slice::from_ref(inputs)).swap_remove(0);
        check(name, inputs, found, &expected);
    }
}

#[test]
fn formulas_and_their_gradients_have_the_cpus_bits_in_c() {
    for dtype in [Dtype::F32, Dtype::F64] {
        let built: Vec<_> = ALL
            .iter()
            .enumerate()
            .map(|(place, function)| {
                let build: Build<'_> = Box::new(|x| with_gradients(function, x));
                let inputs = (0..function.inputs)
                    .map(|input| Array::new(dtype, [count()], numbers(dtype, input)))
                    .collect();
                (format!("{}_{place}", function.name), inputs, build)
            })
            .collect();
        compare(dtype, &built);
    }
}

/// The formulas of the ops, by name. A new one is listed here when a function above leads to it.
const FORMULAS: [&str; 62] = [
    "abs",
    "add",
    "affine",
    "binary_cross_entropy",
    "celu",
    "celu_gradient",
    "clamp_min",
    "cos",
    "div",
    "divisor_gradient",
    "elu",
    "elu_gradient",
    "eq",
    "exp",
    "extreme_gradient",
    "gelu",
    "gelu_gradient",
    "hardshrink",
    "hardsigmoid",
    "hardsigmoid_gradient",
    "hardswish",
    "hardswish_gradient",
    "hardtanh",
    "hardtanh_gradient",
    "leaky_relu",
    "leaky_relu_gradient",
    "log",
    "log1p",
    "logsigmoid",
    "logsigmoid_gradient",
    "lt",
    "maximum",
    "minimum",
    "mish",
    "mish_gradient",
    "mul",
    "neg",
    "pow",
    "reciprocal",
    "relu",
    "relu_gradient",
    "shrink_gradient",
    "sigmoid",
    "sigmoid_gradient",
    "sign",
    "silu",
    "silu_gradient",
    "sin",
    "softplus",
    "softplus_gradient",
    "softshrink",
    "sqrt",
    "square",
    "squared_error",
    "squared_error_gradient",
    "sub",
    "tanh",
    "tanh_gradient",
    "threshold",
    "trunc",
    "where",
    "xlogy",
];

#[test]
fn all_formulas_are_among_what_is_printed() {
    let ty = Type::new(Dtype::F32, [4]);
    let mut names = BTreeSet::new();
    for function in ALL {
        let types = vec![ty.clone(); function.inputs];
        let program = record(|x| with_gradients(function, x), &types);
        names.extend(program.nodes.iter().map(|node| node.op.name()));
    }
    let missing: Vec<_> = FORMULAS.iter().filter(|name| !names.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(3), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chains_have_the_cpus_bits_in_c(
        chains in prop::collection::vec(prop::collection::vec((0..ALL.len(), 0..8_usize), 1..9), 8),
    ) {
        for dtype in [Dtype::F32, Dtype::F64] {
            let shapes = [vec![7, 1, 9], vec![5, 1], vec![]];
            let inputs = shapes.each_ref().map(|shape| {
                let all = numbers(dtype, shape.len());
                Array::from_fn(dtype, shape.clone(), |i| all[i * 37 % all.len()])
            });
            let of = |chain: &[(usize, usize)]| -> Build<'_> {
                let chain = chain.to_vec();
                Box::new(move |x| {
                    // All inputs first, so that the result has the shape of all.
                    let mut values = vec![&x[0] + &x[1] * &x[2], x[0].clone(), x[1].clone()];
                    // What wants one shape is left out.
                    let one_shape = |of: &Function| ["mse_loss", "bce"].contains(&of.name);
                    for &(function, from) in chain.iter().filter(|of| !one_shape(&ALL[of.0])) {
                        let n = values.len();
                        let last = [n - 1, (n - 1).min(from), 0];
                        let x: Vec<_> = last.map(|value| values[value].clone()).into();
                        values.push((ALL[function].compute)(&x[..ALL[function].inputs]));
                    }
                    values.iter().map(|value| values[0].maximum(value)).collect()
                })
            };
            let built: Vec<_> = chains
                .iter()
                .enumerate()
                .map(|(place, chain)| (format!("chain_{place}"), inputs.to_vec(), of(chain)))
                .collect();
            compare(dtype, &built);
        }
    }
}

#[test]
fn what_is_not_elementwise_is_an_error() {
    let error = |types: &[Type], build: &dyn Fn(&[Var]) -> Vec<Var>| {
        c::function(&record(build, types), "f").expect_err("it cannot be printed").to_string()
    };
    let ty = |shape: &[usize]| Type::new(Dtype::F32, shape);
    let linear = error(&[ty(&[2, 3]), ty(&[4, 3])], &|x| vec![x[0].linear(&x[1], None).relu()]);
    assert_eq!(linear, "linear: not implemented on text");
    let shapes = error(&[ty(&[2]), ty(&[3])], &|x| vec![x[0].relu(), x[1].relu()]);
    assert_eq!(shapes, "expected outputs of one shape");
    let double = Type::new(Dtype::F64, [2]);
    let types = error(&[ty(&[2]), double], &|x| vec![x[0].relu(), x[1].relu()]);
    assert_eq!(types, "expected values of one type, f32 or f64");
    let inputs = error(&[ty(&[2]), ty(&[3])], &|x| {
        let _ = x[1].relu();
        vec![x[0].relu()]
    });
    assert_eq!(inputs, "expected [3] to broadcast to [2]");
}

#[test]
fn a_printed_function_reads_as_it_was_written() {
    let program = record(
        |x| vec![(&x[0] * 1.5 + &x[1]).relu()],
        &[Type::new(Dtype::F32, [4, 3]), Type::new(Dtype::F32, [3])],
    );
    let text = c::function(&program, "f").expect("it is elementwise");
    assert_eq!(
        text,
        "void f(const float *const x[], float *const y[]) {
    for (size_t i = 0; i < 12; i++) {
        const float v0 = x[0][i];
        const float v1 = x[1][i / 1 % 3 * 1];
        const float v2 = 0x0.0000000000000p0f;
        const float v3 = 0x1.8000000000000p0f;
        const float v4 = v0 * v3;
        const float v5 = v4 + v1;
        const float v6 = v2 > v5 ? v2 : v5;
        y[0][i] = v6;
    }
}
"
    );
}
