//! Results and gradients of every function are the same bits in every instruction set.
//!
//! The set is chosen once a process, so the test runs itself in processes of other sets, which say what they found.

use std::io::Write;
use std::process::Command;

use neurarch_kernels::cpu::simd::InstructionSet;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::program::trace::{Trace, Var};
use neurarch_kernels::shape::Type;
use neurarch_kernels::testing::{Array, cases, planned};

use super::functions::{FUNCTIONS, Function};
use super::random::Random;

/// Longer than two vectors of any set, and odd.
const LONG: usize = 37;

/// Numbers that products and sums round.
fn numbers(ty: &Type, seed: usize) -> Array {
    let mut state = seed as u32;
    Array::from_fn(ty.dtype, ty.shape.clone(), |i| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match ty.dtype.is_float() {
            true => f64::from(state >> 8) / 8_388_608.0 - 0.9,
            false => (i * 7 % 3) as f64,
        }
    })
}

/// Records a function of values of some types; gives what is there, with the gradients if they are wanted.
fn record(function: &Function, v: &[Var], random: &Random, gradients: bool) -> Vec<Var> {
    let is_there = |v: &&Var| v.id().is_some() && v.dtype().is_float();
    let mut results = (function.2)(v, &mut random.clone());
    let Some(trace) = v.first().map(|v| v.trace().clone()).filter(|_| gradients) else {
        return results;
    };
    let seed = |y: &Var| (y.clone(), trace.constant(0.7, y.dtype(), y.shape().clone()));
    let seeds: Vec<_> = results.iter().filter(is_there).map(seed).collect();
    let wrt: Vec<_> = v.iter().filter(is_there).cloned().collect();
    results.extend(backward(&trace, &seeds, &wrt).into_iter().flatten());
    results
}

/// Says whether a function can be recorded, and what it computes is small.
fn is_computed(function: &Function, types: &[Type], random: &Random, gradients: bool) -> bool {
    let trace = Trace::new();
    let v: Vec<_> = types.iter().map(|ty| trace.input(ty.clone())).collect();
    let outputs = record(function, &v, random, gradients);
    let Ok(program) = trace.finish(&outputs) else { return false };
    let span = |ty: &Type| ty.shape.iter().map(|&size| size.max(1) as f64).product::<f64>();
    program.values.iter().all(|value| span(&value.ty) <= 20_000.0)
}

/// Mixes all bits of results and gradients of some cases into one number; NaN is one of all kinds.
fn bits(function: &Function) -> u64 {
    let mut mixed = 0xcbf2_9ce4_8422_2325_u64;
    for case in 0..u64::from(cases(400)) {
        let mut random = Random(case, LONG);
        let types = random.types(function.1);
        let found =
            [true, false].into_iter().find(|&it| is_computed(function, &types, &random, it));
        let Some(gradients) = found else { continue };
        let model = |model: usize| -> Vec<_> {
            types.iter().enumerate().map(|(i, ty)| numbers(ty, model * 31 + i)).collect()
        };
        let build = |v: &[Var]| record(function, v, &random, gradients);
        let found = planned(build, &[model(1), model(2)]);
        for x in found.iter().flatten().flat_map(|array| &array.elements) {
            let bits = if x.is_nan() { 1 } else { x.to_bits() };
            mixed = (mixed ^ bits).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
        }
    }
    mixed
}

fn lines() -> Vec<String> {
    FUNCTIONS
        .iter()
        .map(|function| format!("bits {} {:016x}", function.0, bits(function)))
        .collect()
}

#[test]
fn every_function_has_the_same_bits_in_every_instruction_set() {
    let own = lines();
    for set in InstructionSet::available() {
        if set == InstructionSet::current() {
            continue;
        }
        let output = Command::new(std::env::current_exe().expect("a test has a program"))
            .args(["bits::bits_of_this_process", "--exact", "--ignored", "--nocapture"])
            .env("NEURARCH_SIMD", format!("{set:?}").to_lowercase())
            .output()
            .expect("a program can be started again");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found: Vec<_> = text.lines().filter(|line| line.starts_with("bits ")).collect();
        assert_eq!(found.len(), own.len(), "{set:?} says something of every function");
        let pairs = own.iter().zip(found).filter(|(own, found)| own != found);
        let other: Vec<_> = pairs.map(|(own, found)| format!("{own}, {found}")).collect();
        assert!(other.is_empty(), "{:?} and {set:?}: {other:#?}", InstructionSet::current());
    }
}

#[test]
#[ignore = "the test above runs it for each instruction set"]
fn bits_of_this_process() {
    let mut out = std::io::stdout();
    // The name of the test stands in the first line.
    writeln!(out, "\n{}", lines().join("\n")).expect("somebody listens");
}
