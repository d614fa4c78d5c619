//! The device code of elementwise ops: their formula, printed, and a loop over the output's elements as they lie.

use super::pointwise::{Formula, Walk};
use crate::device::code::{Definition, DeviceCode, element};
use crate::device::{formula, offset};
use crate::ir::dtype::Dtype;
use crate::ir::shape::Operand;

/// Returns the code that applies `formula` to each element.
pub(super) fn code<F: Formula<IN, OUT>, const IN: usize, const OUT: usize>(
    formula: F,
    inputs: &[Operand],
    outputs: &[Operand],
) -> DeviceCode {
    let walk = Walk::<IN>::new(inputs, &outputs[0]);
    let (definitions, names) = functions(formula, outputs[0].ty.dtype == Dtype::F64);
    let number = element(&outputs[0]);
    let x: Vec<_> = (0..IN)
        .map(|input| {
            let mut axes: Vec<_> = walk.outer.iter().map(|(size, by)| (*size, by[input])).collect();
            axes.push((walk.inner, walk.steps[input]));
            format!("const {number} x{input} = {{{input}}}[{}];", offset::of("i", &axes))
        })
        .collect();
    let arguments: Vec<_> = (0..IN).map(|input| format!("x{input}")).collect();
    let arguments = arguments.join(", ");
    let y: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(output, name)| format!("{{{}}}[i] = {name}({arguments});", IN + output))
        .collect();
    let call = format!(
        "for (int i = t; i < {}; i += T) {{ {} {} }}",
        walk.numel,
        x.join(" "),
        y.join(" ")
    );
    DeviceCode { definitions, call, scratch_bytes: 0, width: walk.numel }
}

/// Prints the functions that compute the outputs.
fn functions<F: Formula<IN, OUT>, const IN: usize, const OUT: usize>(
    formula: F,
    is_double: bool,
) -> (Vec<Definition>, Vec<String>) {
    let name = formula.name();
    match is_double {
        true => formula::functions::<true>(name, IN, |x| {
            formula.apply(core::array::from_fn(|i| x[i])).to_vec()
        }),
        false => formula::functions::<false>(name, IN, |x| {
            formula.apply(core::array::from_fn(|i| x[i])).to_vec()
        }),
    }
}
