//! No function of traced values panics, whatever shapes, types and settings it is given: it records something or keeps
//! an error. What it records has the same bits in every instruction set.

mod bits;
pub(crate) mod fitting;
pub(crate) mod functions;
pub(crate) mod random;
pub(crate) mod record;

use std::panic::{AssertUnwindSafe, catch_unwind};

use functions::{FUNCTIONS, Function};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::spatial::convolution::Convolution;
use neurarch_kernels::ops::spatial::interpolate::Interpolation;
use neurarch_kernels::ops::spatial::pad::PadMode;
use neurarch_kernels::ops::spatial::pool::Pooling;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{Array, cases, evaluate};
use random::Random;

/// Records a function of values of some types, and its gradients; then computes what came of it, if it is small.
fn run(function: &Function, types: &[Type], random: &Random) {
    let call = |v: &[Var]| (function.2)(v, &mut random.clone());
    let trace = Trace::new();
    let v: Vec<_> = types.iter().map(|ty| trace.input(ty.clone())).collect();
    let is_there = |v: &&Var| v.id().is_some() && v.dtype().is_float();
    let seed = |y: &Var| (y.clone(), trace.constant(1.0, y.dtype(), y.shape().clone()));
    let results = call(&v);
    let seeds: Vec<_> = results.iter().filter(is_there).map(seed).collect();
    backward(&trace, &seeds, &v.iter().filter(is_there).cloned().collect::<Vec<_>>());
    let Ok(program) = trace.finish(&[]) else { return };
    let span = |ty: &Type| ty.shape.iter().map(|&size| size.max(1) as f64).product::<f64>();
    if program.values.iter().any(|value| span(&value.ty) > 4096.0) {
        return;
    }
    let numbers =
        |ty: &Type| Array::from_fn(ty.dtype, ty.shape.clone(), |i| (i * 7 % 5) as f64 - 1.0);
    let inputs: Vec<_> = types.iter().map(numbers).collect();
    for result in 0..results.len() {
        evaluate(|v| call(v).swap_remove(result), &inputs, &[]);
    }
}

/// Calls a function with values that stand for nothing: what comes after an error.
fn run_on_nothing(function: &Function, random: &Random) {
    let nothing = vec![Trace::new().poison(); function.1];
    (function.2)(&nothing, &mut random.clone());
}

#[test]
fn no_function_panics() {
    for function in FUNCTIONS {
        for case in 0..u64::from(cases(150)) {
            let mut random = Random(case, 5);
            let types = random.types(function.1);
            let run = AssertUnwindSafe(|| {
                run(function, &types, &random);
                run_on_nothing(function, &random);
            });
            assert!(catch_unwind(run).is_ok(), "{} panics in case {case}: {types:?}", function.0);
        }
    }
}

#[test]
fn lists_of_no_values_are_torchs_errors() {
    let error = |made: Var| {
        let trace = Trace::new();
        trace.finish(&[made]).expect_err("there is nothing to join").to_string()
    };
    assert_eq!(error(Var::cat(&[], 0)), "torch.cat(): expected a non-empty list of Tensors");
    assert_eq!(error(Var::stack(&[], 0)), "stack expects a non-empty TensorList");
    // What follows from it says the same.
    assert_eq!(
        error(Var::cat(&[], isize::MIN).relu() + 1.0),
        "torch.cat(): expected a non-empty list of Tensors"
    );
}

#[test]
fn kernels_and_steps_of_no_size_are_torchs_errors() {
    let error = |sizes: &[usize], kernel: usize, stride: usize, dilation: usize, turned: bool| {
        let trace = Trace::new();
        let n = sizes.len();
        let ty = |first: [usize; 2], rest: &[usize]| Type::new(Dtype::F32, [&first, rest].concat());
        let x = trace.input(ty([1, 2], sizes));
        let weight = trace.input(ty([2, 2], &vec![kernel; n]));
        let settings = Convolution {
            stride: vec![stride; n],
            padding: vec![(0, 0); n],
            dilation: vec![dilation; n],
            groups: 1,
        };
        let y = match turned {
            true => x.conv_transpose(&weight, None, &settings, &vec![0; n]),
            false => x.convolution(&weight, None, &settings),
        };
        trace.finish(&[y]).expect_err("it goes nowhere").to_string()
    };
    let none = "kernel size should be greater than zero, but got";
    for turned in [false, true] {
        assert_eq!(
            error(&[4], 0, 1, 1, turned),
            format!("{none} kernel_height: 1 kernel_width: 0")
        );
        let two = error(&[4, 4], 0, 1, 1, turned);
        assert_eq!(two, format!("{none} kernel_height: 0 kernel_width: 0"));
        assert_eq!(error(&[4, 4, 4], 0, 1, 1, turned), format!("{none}: 0 x 0 x 0 (TxHxW)"));
        assert_eq!(error(&[4], 1, 0, 1, turned), "non-positive stride is not supported");
        let still = error(&[4, 4], 1, 1, 0, turned);
        assert_eq!(still, "dilation should be greater than zero, but got [0, 0]");
    }
}

#[test]
fn settings_beyond_any_size_are_errors() {
    let error = |shape: &[usize], f: &dyn Fn(&Var) -> Var| {
        let trace = Trace::new();
        let y = f(&trace.input(Type::new(Dtype::F32, shape)));
        trace.finish(&[y]).expect_err("no machine has the memory").to_string()
    };
    let huge = 1 << 40;
    let image = [1, 2, 4, 4];
    let pools = Pooling {
        kernel_size: vec![2, huge],
        stride: vec![2, 2],
        padding: vec![0, 0],
        dilation: vec![1, 1],
        ceil_mode: false,
    };
    let message = "value cannot be converted to type int without overflow";
    assert_eq!(error(&image, &|x| x.max_pool(&pools)[0].clone()), message);
    assert_eq!(error(&image, &|x| x.avg_pool(&pools, true, None)), message);
    let adaptive = error(&image, &|x| x.adaptive_avg_pool(&[Some(huge), Some(1)]));
    assert_eq!(
        adaptive,
        "f32[1, 2, 1099511627776, 1]: can't allocate memory: you tried to allocate 8796093022208 bytes"
    );
    let how = Interpolation { size: Some(vec![huge, huge]), ..Interpolation::default() };
    assert_eq!(
        error(&image, &|x| x.interpolate(&how)),
        "Storage size calculation overflowed with sizes=[1, 2, 1099511627776, 1099511627776]"
    );
    // Nothing in a batch of none takes memory, but lists of its axes would.
    let circle = error(&[0, 2, 4], &|x| x.pad(&[(0, huge as isize)], PadMode::Replicate));
    assert!(circle.contains("can't allocate memory"), "{circle}");
    assert_eq!(
        error(&[4], &|x| x.split(0, &[1 << 63, 1 << 63, 4]).swap_remove(0)),
        "split_with_sizes expects split_sizes to sum exactly to 4 (input tensor's size at dimension 0), but got \
         split_sizes=[9223372036854775808, 9223372036854775808, 4]"
    );
}
