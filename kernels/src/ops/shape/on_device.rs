//! The device code of ops that copy elements from one layout to another.

use crate::device::code::DeviceCode;
use crate::device::offset;
use crate::ir::shape::Operand;
use crate::ops::elementwise::walk::Walk;

/// What is copied: an operand's number in the call, its shape and layout, and the offset in elements where it begins.
pub(super) type Part<'a> = (usize, &'a Operand, usize);

/// Returns the loop that copies `from`, broadcast to the shape of `to`.
pub(super) fn copy((source, from, start): Part<'_>, (target, to, first): Part<'_>) -> String {
    let shape = &to.ty.shape;
    let dense = Operand { ty: to.ty.clone(), layout: shape.ordered(&to.layout.order(shape)) };
    let walk = Walk::<2>::new(&[from.clone(), to.clone()], &dense);
    let of = |operand: usize| {
        let mut axes: Vec<_> = walk.outer.iter().map(|(size, by)| (*size, by[operand])).collect();
        axes.push((walk.inner, walk.steps[operand]));
        offset::of("i", &axes)
    };
    format!(
        "for (int i = t; i < {}; i += T) {{{target}}}[{first} + {}] = {{{source}}}[{start} + {}];",
        walk.numel,
        of(1),
        of(0)
    )
}

/// Returns the code of these loops, which write different elements.
pub(super) fn code(loops: &[String], width: usize) -> DeviceCode {
    DeviceCode { definitions: Vec::new(), call: loops.join(" "), scratch_bytes: 0, width }
}

/// Returns the code that copies the one input to the one output.
pub(super) fn copy_all(from: &Operand, start: usize, to: &Operand) -> DeviceCode {
    code(&[copy((0, from, start), (1, to, 0))], to.ty.shape.numel())
}
