//! Results and gradients of every function are the same bits in every instruction set.
//!
//! The set is chosen once a process, so the test runs itself in processes of other sets, which say what they found.

use std::io::Write;
use std::process::Command;

use neurarch_kernels::cpu::simd::InstructionSet;
use neurarch_kernels::ir::program::Program;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::testing::{cases, planned};

use super::fitting;
use super::functions::{FUNCTIONS, Function};
use super::random::Random;
use super::record::{numbers, record};

/// Longer than two vectors of any set, and odd.
const LONG: usize = 37;

/// What a function is given, where that can be recorded and gives a few numbers.
struct Case {
    types: Vec<Type>,
    random: Random,
    gradients: usize,
}

impl Case {
    fn draw(function: &Function, seed: u64) -> Option<Case> {
        let mut random = Random(seed, LONG);
        let types = fitting::types(function, &mut random);
        // Some functions have a gradient for the first input only, or none.
        let found = [types.len(), 1, 0].into_iter().find(|&gradients| {
            let trace = Trace::new();
            let v: Vec<_> = types.iter().map(|ty| trace.input(ty.clone())).collect();
            let outputs = record(function, &v, &random, gradients);
            trace.finish(&outputs).is_ok_and(|program| gives_a_few(&program))
        });
        found.map(|gradients| Case { types, random, gradients })
    }

    /// Computes results and gradients for two models.
    fn compute(&self, function: &Function) -> impl Iterator<Item = f64> {
        let model = |model: usize| -> Vec<_> {
            let types = self.types.iter().enumerate();
            types.map(|(i, ty)| numbers(ty, model * 31 + i)).collect()
        };
        let build = |v: &[Var]| record(function, v, &self.random, self.gradients);
        let arrays = planned(build, &[model(1), model(2)]);
        arrays.into_iter().flatten().flat_map(|array| array.elements)
    }
}

fn gives_a_few(program: &Program) -> bool {
    let span = |ty: &Type| ty.shape.iter().map(|&size| size.max(1) as f64).product::<f64>();
    program.values.iter().all(|value| span(&value.ty) <= 20_000.0)
        && program.outputs.iter().any(|&id| program.ty(id).shape.numel() > 0)
}

/// Mixes all bits of results and gradients of some cases into one number; NaN is one of all kinds.
///
/// # Panics
///
/// If no drawn case can be computed.
fn bits(function: &Function) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    let mut mixed = start;
    let drawn = (0..4000).filter_map(|seed| Case::draw(function, seed));
    for case in drawn.take(cases(15) as usize) {
        for x in case.compute(function) {
            let bits = if x.is_nan() { 1 } else { x.to_bits() };
            mixed = (mixed ^ bits).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
        }
    }
    assert_ne!(mixed, start, "no drawn case of {} fits: see `fitting`", function.0);
    mixed
}

fn line(function: &Function) -> String {
    format!("bits {} {:016x}", function.0, bits(function))
}

#[test]
fn every_function_has_the_same_bits_in_every_instruction_set() {
    let own: Vec<_> = FUNCTIONS.iter().map(line).collect();
    for set in InstructionSet::available() {
        if set == InstructionSet::current() {
            continue;
        }
        let output = Command::new(std::env::current_exe().expect("a test has a program"))
            .args(["any_input::bits::bits_of_this_process", "--exact", "--ignored", "--nocapture"])
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
    writeln!(out).expect("the name of the test stands in the first line");
    for function in FUNCTIONS {
        writeln!(out, "{}", line(function)).expect("somebody listens");
    }
}
