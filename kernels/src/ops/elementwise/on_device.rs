//! The device code of elementwise ops: their formula, printed, and a loop over the output's elements as they lie.

use super::walk::Walk;
use crate::device::code::{Definition, DeviceCode, element};
use crate::device::offset;
use crate::ir::shape::Operand;

/// Returns the code that applies functions, one for each output, to each element; they are given with their names.
pub(super) fn code<const IN: usize>(
    (definitions, names): (Vec<Definition>, Vec<String>),
    inputs: &[Operand],
    outputs: &[Operand],
) -> DeviceCode {
    let walk = Walk::<IN>::new(inputs, &outputs[0]);
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
