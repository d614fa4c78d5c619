//! Halves: conversions of every pattern, what types promote to, and autocast as a pass.

use neurarch_kernels::ir::autocast::Autocast;
use neurarch_kernels::ir::device::Device;
use neurarch_kernels::ir::dtype::{Dtype, bf16, f16};
use neurarch_kernels::ir::program::{Program, Role, Slot};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::activation::gelu::Approximate;
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::passes::autocast::autocast;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{Array, evaluate, planned, same_bits};
use proptest::prelude::*;

const HALVES: [Dtype; 2] = [Dtype::F16, Dtype::BF16];

/// The number of a pattern, by the formulas of IEEE 754.
fn number(pattern: u16, dtype: Dtype) -> f64 {
    let (mantissa_bits, bias) = if dtype == Dtype::F16 { (10, 15) } else { (7, 127) };
    let sign = if pattern >> 15 == 1 { -1.0 } else { 1.0 };
    let mantissa = f64::from(pattern & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
    let exponent = i32::from((pattern & 0x7fff) >> mantissa_bits);
    let special = (1 << (15 - mantissa_bits)) - 1;
    match exponent {
        0 => sign * mantissa * 2.0_f64.powi(1 - bias),
        exponent if exponent == special && mantissa == 0.0 => sign * f64::INFINITY,
        exponent if exponent == special => f64::NAN,
        exponent => sign * (1.0 + mantissa) * 2.0_f64.powi(exponent - bias),
    }
}

/// Converts numbers by the op.
fn to(from: Dtype, numbers: Vec<f64>, dtype: Dtype) -> Vec<f64> {
    let x = Array::new(from, [numbers.len()], numbers);
    evaluate(|v| v[0].to(dtype), &[x], &[]).elements
}

#[test]
fn every_pattern_is_the_number_of_ieee_754_and_comes_back() {
    for dtype in HALVES {
        let numbers: Vec<_> = (0..=u16::MAX).map(|pattern| number(pattern, dtype)).collect();
        let patterns = 0..=u16::MAX;
        let of_crate = patterns.map(|pattern| match dtype {
            Dtype::F16 => f16::from_bits(pattern).to_f64(),
            _ => bf16::from_bits(pattern).to_f64(),
        });
        assert!(same_bits(&of_crate.collect::<Vec<_>>(), &numbers), "{dtype}");
        for other in [Dtype::F32, Dtype::F64] {
            let there = to(dtype, numbers.clone(), other);
            assert!(same_bits(&there, &numbers), "{dtype} to {other}");
            assert!(same_bits(&to(other, there, dtype), &numbers), "{other} to {dtype}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(neurarch_kernels::testing::cases(2000)))]
    /// The middle between two neighbors goes to the one whose last bit is 0; a double is a single first, as in torch.
    #[test]
    fn numbers_are_rounded_to_the_nearest_half(bits in any::<u32>(), pattern in any::<u16>(), up in -2..3_i32) {
        for dtype in HALVES {
            let x = f32::from_bits(bits);
            let [y] = to(Dtype::F32, vec![x.into()], dtype)[..] else { unreachable!() };
            let candidates = [pattern, pattern & 0x7fff];
            if x.is_nan() {
                prop_assert!(y.is_nan());
            } else if y.is_finite() {
                for &other in &candidates {
                    let other = number(other, dtype);
                    let distance = |half: f64| (half - f64::from(x)).abs();
                    prop_assert!(!other.is_finite() || distance(y) <= distance(other));
                }
            }
            // The middle, and its neighbors among singles.
            let (low, high) = (number(pattern & 0x7ffe, dtype), number((pattern & 0x7ffe) + 1, dtype));
            let middle = ((low + high) / 2.0) as f32;
            if high.is_finite() && middle.is_normal() {
                let x = f32::from_bits(middle.to_bits().wrapping_add_signed(up));
                let want = if up > 0 { high } else { low };
                prop_assert_eq!(to(Dtype::F32, vec![x.into()], dtype), vec![want]);
            }
        }
    }
}

#[test]
fn doubles_and_whole_numbers_go_by_way_of_singles() {
    // Recorded from torch 2.15.
    let just_above = 1.0 + 2.0_f64.powi(-11) + 2.0_f64.powi(-40);
    assert_eq!(to(Dtype::F64, vec![just_above], Dtype::F16), [1.0]);
    let just_above = 1.0 + 2.0_f64.powi(-8) + 2.0_f64.powi(-40);
    assert_eq!(to(Dtype::F64, vec![just_above], Dtype::BF16), [1.0]);
    assert_eq!(to(Dtype::I64, vec![257.0, 259.0], Dtype::BF16), [256.0, 260.0]);
    assert_eq!(to(Dtype::I64, vec![16_777_217.0], Dtype::F16), [f64::INFINITY]);
}

/// Gives the type of what `f` makes of values of these types, or the error.
fn typed(dtypes: &[Dtype], shape: &[usize], f: impl Fn(&[Var]) -> Var) -> Result<Dtype, String> {
    let trace = Trace::new();
    let inputs: Vec<_> = dtypes.iter().map(|&dtype| trace.input(Type::new(dtype, shape))).collect();
    let y = f(&inputs);
    let program = trace.finish(std::slice::from_ref(&y)).map_err(|error| error.to_string())?;
    program.verify().map_err(|error| error.to_string())?;
    Ok(y.dtype())
}

#[test]
fn types_promote_as_torchs_do() {
    use Dtype::{BF16, F16, F32, F64};
    let add = |v: &[Var]| &v[0] + &v[1];
    for (a, b, sum) in [(BF16, BF16, BF16), (BF16, F32, F32), (F16, BF16, F32), (F64, F16, F64)] {
        assert_eq!(typed(&[a, b], &[2], add), Ok(sum));
        assert_eq!(typed(&[b, a], &[2], add), Ok(sum));
    }
    assert_eq!(typed(&[F32, F64], &[2], add), Ok(F64));
    assert_eq!(typed(&[F64, F32], &[2], |v| Var::cat(&[&v[0], &v[1]], 0)), Ok(F64));
    assert_eq!(typed(&[F32, F64], &[2], |v| &v[0] * v[1].sum(&[], false)), Ok(F32));
    // A number of Python's has no say, nor a single number beside an array.
    assert_eq!(typed(&[BF16], &[2], |v| &v[0] * 0.3), Ok(BF16));
    assert_eq!(typed(&[BF16, F32], &[2], |v| &v[0] * v[1].sum(&[], false)), Ok(BF16));
    let matmul = |v: &[Var]| v[0].matmul(&v[1]);
    let error = typed(&[BF16, F32], &[2, 2], matmul).unwrap_err();
    assert_eq!(error, "expected m1 and m2 to have the same dtype, but got: bf16 != f32");
    let linear = |v: &[Var]| v[0].linear(&v[1], None);
    let error = typed(&[F16, F32], &[2, 2], linear).unwrap_err();
    assert_eq!(error, "mat1 and mat2 must have the same dtype, but got f16 and f32");
    let prelu = |v: &[Var]| v[0].prelu(&v[1]);
    assert_eq!(typed(&[F16, F16], &[1], prelu), Ok(F16));
    let error = typed(&[F16, F32], &[1], prelu).unwrap_err();
    assert_eq!(error, "expected scalar type f16 but found f32");
}

#[test]
fn a_function_rounds_once() {
    let x = Array::from_fn(Dtype::BF16, [40], |i| (0.7 * i as f64).sin() * 3.0);
    let single = Array::new(Dtype::F32, [40], x.elements.clone());
    for f in [
        |x: &Var| x.celu(&x.trace().constant(0.7, x.dtype(), [])),
        |x: &Var| x.gelu(Approximate::Tanh),
        |x: &Var| x.softmax(0),
        |x: &Var| x.logsumexp(&[0], false),
        |x: &Var| x.norm(2.0),
    ] {
        let half = evaluate(|v| f(&v[0]), std::slice::from_ref(&x), &[]);
        let exact = evaluate(|v| f(&v[0]), std::slice::from_ref(&single), &[]);
        let rounded = to(Dtype::F32, exact.elements, Dtype::BF16);
        assert_eq!((half.ty.dtype, half.elements), (Dtype::BF16, rounded));
    }
}

/// A layer, its loss, and the gradients of both parameters, with or without autocast.
fn learning(v: &[Var], how: Option<Autocast>) -> Vec<Var> {
    let [x, weight, bias, target] = v else { unreachable!() };
    let trace = x.trace();
    let loss = trace.autocast(how, || {
        let y = x.linear(weight, Some(bias)).relu();
        let y = &y + y.softmax(-1);
        y.mse_loss(target, Reduction::Mean)
    });
    let one = trace.constant(1.0, loss.dtype(), []);
    let found = backward(trace, &[(loss.clone(), one)], &[weight.clone(), bias.clone()]);
    std::iter::once(loss).chain(found.into_iter().flatten()).collect()
}

#[test]
fn plans_and_the_ops_one_by_one_give_the_same_bits() {
    let models: Vec<Vec<Array>> = (0..3)
        .map(|m| {
            let of = |dtype, shape: &[usize], pitch: f64| {
                Array::from_fn(dtype, shape, |i| (pitch * (i + 7 * m) as f64 + 0.2).sin())
            };
            let [f, h] = [Dtype::F32, Dtype::F16];
            vec![of(f, &[9, 5], 0.7), of(f, &[4, 5], 1.1), of(f, &[4], 0.3), of(h, &[9, 4], 0.9)]
        })
        .collect();
    for dtype in HALVES {
        let how = Autocast::new(Device::Cpu, dtype);
        let all = planned(|v| learning(v, how), &models);
        for (model, inputs) in all.iter().zip(&models) {
            for (number, output) in model.iter().enumerate() {
                let one = evaluate(|v| learning(v, how)[number].clone(), inputs, &[]);
                assert_eq!(one.ty.dtype, Dtype::F32, "losses and gradients of parameters");
                assert!(same_bits(&one.elements, &output.elements), "{dtype}: output {number}");
            }
        }
    }
}

#[test]
fn moving_ops_move_halves_as_they_are() {
    let x = Array::from_fn(Dtype::F16, [2, 3, 4], |i| i as f64 / 3.0);
    let moved =
        |v: &[Var]| v[0].permute(&[2, 0, 1]).slice(0, 1..3).reshape([4, 3]).expand([2, 4, 3]);
    let y = evaluate(moved, std::slice::from_ref(&x), &[]);
    let single = Array::new(Dtype::F32, [2, 3, 4], x.elements);
    assert_eq!(y.elements, evaluate(moved, &[single], &[]).elements);
    let trace = Trace::new();
    let y = moved(&[trace.input(Type::new(Dtype::F16, [2, 3, 4]))]);
    let program = trace.finish(&[y]).expect("shapes that fit");
    assert!(program.nodes.iter().all(|node| node.op.name() != "to"), "{program}");
}

fn parameter(index: usize, shape: &[usize]) -> Slot {
    let name = ["weight", "bias"][index].to_owned();
    Slot { name, role: Role::Parameter, position: 0, index, ty: Type::new(Dtype::F32, shape) }
}

/// Records a module's `forward` and a loss.
fn recorded(how: Option<Autocast>) -> Program {
    let trace = Trace::new();
    let x = trace.input(Type::new(Dtype::F32, [8, 4]));
    let target = trace.input(Type::new(Dtype::F32, [8, 4]));
    let outputs = trace.autocast(how, || {
        let weight = trace.slot(parameter(0, &[4, 4]));
        let bias = trace.slot(parameter(1, &[4]));
        let layer = |x: &Var| x.linear(&weight, Some(&bias)).relu();
        let y = trace.call("fc", "Linear", &x, |x| layer(&layer(&x)));
        let loss = y.mse_loss(&target, Reduction::Mean);
        [y, loss]
    });
    trace.finish(&outputs).expect("shapes that fit")
}

#[test]
fn the_pass_makes_of_a_program_what_is_recorded_with_autocast() {
    let how = Autocast::new(Device::Cpu, Dtype::BF16).expect("a half");
    let program = recorded(None);
    let cast = autocast(&program, how).expect("torch runs it, too");
    cast.verify().expect("the grammar holds");
    assert_eq!(cast.to_string(), recorded(Some(how)).to_string());
    let casts = |of: &Program| of.nodes.iter().filter(|node| node.op.name() == "to").count();
    assert_eq!((casts(&program), cast.ty(cast.outputs[1]).dtype), (0, Dtype::F32));
    insta::assert_snapshot!(cast, @"
    %0 = input 0 : f32[8, 4]
    %1 = input 1 : f32[8, 4]
    %2 = parameter weight : f32[4, 4]
    %3 = parameter bias : f32[4]
    %4 = enter %0 : f32[8, 4]  # fc: Linear
    %5 = to dtype=bf16 %4 : bf16[8, 4]  # fc: Linear
    %6 = to dtype=f32 %5 : f32[8, 4]  # fc: Linear
    %7 = to dtype=bf16 %2 : bf16[4, 4]  # fc: Linear
    %8 = to dtype=f32 %7 : f32[4, 4]  # fc: Linear
    %9 = to dtype=bf16 %3 : bf16[4]  # fc: Linear
    %10 = to dtype=f32 %9 : f32[4]  # fc: Linear
    %11 = linear %6 %8 %10 : f32[8, 4]  # fc: Linear
    %12 = to dtype=bf16 %11 : bf16[8, 4]  # fc: Linear
    %13 = to dtype=f32 %12 : f32[8, 4]  # fc: Linear
    %14 = relu %13 : f32[8, 4]  # fc: Linear
    %15 = to dtype=bf16 %14 : bf16[8, 4]  # fc: Linear
    %16 = to dtype=f32 %15 : f32[8, 4]  # fc: Linear
    %17 = to dtype=f32 %7 : f32[4, 4]  # fc: Linear
    %18 = to dtype=f32 %9 : f32[4]  # fc: Linear
    %19 = linear %16 %17 %18 : f32[8, 4]  # fc: Linear
    %20 = to dtype=bf16 %19 : bf16[8, 4]  # fc: Linear
    %21 = to dtype=f32 %20 : f32[8, 4]  # fc: Linear
    %22 = relu %21 : f32[8, 4]  # fc: Linear
    %23 = to dtype=bf16 %22 : bf16[8, 4]  # fc: Linear
    %24 = leave %23 : bf16[8, 4]  # fc: Linear
    %25 = to dtype=f32 %24 : f32[8, 4]
    %26 = squared_error %25 %1 : f32[8, 4]
    %27 = mean dim=[0, 1] %26 : f32[]
    return %24 %27
    ");
}

#[test]
fn a_parameter_is_cast_once() {
    let how = Autocast::new(Device::Cpu, Dtype::BF16);
    let program = recorded(how);
    let weight = program.values.iter().position(|value| value.ty.to_string() == "f32[4, 4]");
    let readers =
        program.nodes.iter().filter(|node| node.inputs.contains(&weight.expect("a slot")));
    assert_eq!(readers.map(|node| node.op.name()).collect::<Vec<_>>(), ["to"]);
}
