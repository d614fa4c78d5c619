//! The device code of softmax and its gradient.

use crate::device::code::{Definition, DeviceCode, element};
use crate::device::{formula, offset};
use crate::ir::shape::Operand;

/// Returns the code for these operands; `form` is what the file of the op calls it.
pub(super) fn code(
    (axis, form): (usize, &str),
    is_gradient: bool,
    inputs: &[Operand],
    output: &Operand,
) -> DeviceCode {
    let shape = &output.ty.shape;
    let (number, len) = (element(output), shape[axis]);
    let lines = shape.numel() / len.max(1);
    let place = |operand: &Operand| {
        let others = (0..shape.rank()).filter(|&other| other != axis);
        let axes: Vec<_> = others.map(|axis| (shape[axis], operand.layout[axis])).collect();
        format!("{} + i * {}", offset::of("line", &axes), operand.layout[axis])
    };
    let reads = inputs
        .iter()
        .enumerate()
        .map(|(input, x)| format!("[&](int line, int i) {{ return {{{input}}}[{}]; }}", place(x)));
    let write = format!(
        "[&](int line, int i, {number} y) {{ {{{}}}[{}] = y; }}",
        inputs.len(),
        place(output)
    );
    let operands = reads.chain([write]).collect::<Vec<_>>().join(", ");
    let name = if is_gradient { "softmax_gradient" } else { "softmax" };
    let call = format!("{name}<T, {number}, {lines}, {len}, {form}>(t, {operands});");
    let mut definitions = formula::exp_and_ln();
    definitions.push(Definition::file("softmax", include_str!("../softmax.cu")));
    DeviceCode { definitions, call, scratch_bytes: 0, width: lines }
}
