//! Records the functions with their gradients, and numbers for them.

use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::Array;

use super::functions::Function;
use super::random::Random;

/// Numbers that products and sums round, some labels among them. A single one is positive: it may be a margin.
pub(crate) fn numbers(ty: &Type, seed: usize) -> Array {
    let mut state = seed as u32;
    Array::from_fn(ty.dtype, ty.shape.clone(), |i| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let number = f64::from(state >> 8) / 8_388_608.0 - 0.9;
        match i % 8 {
            _ if !ty.dtype.is_float() => (i * 7 % 3) as f64,
            _ if ty.shape.rank() == 0 => number.abs(),
            3 => number.signum(),
            _ => number,
        }
    })
}

/// Records a function of values of some types; gives what is there, with the gradients of the first so many values.
pub(crate) fn record(
    function: &Function,
    v: &[Var],
    random: &Random,
    gradients: usize,
) -> Vec<Var> {
    let is_there = |v: &&Var| v.id().is_some() && v.dtype().is_float();
    let mut results = (function.2)(v, &mut random.clone());
    let trace = v[0].trace();
    if gradients == 0 {
        return results;
    }
    let seed = |y: &Var| (y.clone(), trace.constant(0.7, y.dtype(), y.shape().clone()));
    let seeds: Vec<_> = results.iter().filter(is_there).map(seed).collect();
    let wrt: Vec<_> = v[..gradients].iter().filter(is_there).cloned().collect();
    results.extend(backward(trace, &seeds, &wrt).into_iter().flatten());
    results
}
