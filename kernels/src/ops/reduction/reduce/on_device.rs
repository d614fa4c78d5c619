//! The device code of reductions.

use super::settings::{Kind, Reduce};
use crate::device::code::{Definition, DeviceCode, element};
use crate::device::offset;
use crate::ir::shape::Operand;

/// Returns the code of a reduction of `x` to `y`.
pub(super) fn code(op: &Reduce, x: &Operand, y: &Operand) -> DeviceCode {
    let number = element(x);
    let axis_of = |axis: usize| (x.ty.shape[axis], x.layout[axis]);
    let left: Vec<_> = (0..x.ty.shape.rank()).filter(|axis| !op.dropped.contains(axis)).collect();
    let lines: Vec<_> = y
        .layout
        .order(&y.ty.shape)
        .into_iter()
        .map(|axis| left[axis])
        .map(|axis| if op.axes.contains(&axis) { (1, 0) } else { axis_of(axis) })
        .collect();
    let terms: Vec<_> = op.axes.iter().map(|&axis| axis_of(axis)).collect();
    let len: usize = terms.iter().map(|(size, _)| size).product();
    let (fold, finish) = match op.kind {
        Kind::Sum => ("Add", "x".to_owned()),
        Kind::Mean => ("Add", format!("div_rn(x, {number}({len}))")),
        Kind::Amax => ("Larger", "x".to_owned()),
    };
    let outputs = y.ty.shape.numel();
    let (line, term) = (offset::of("o", &lines), offset::of("i", &terms));
    let call = format!(
        "reduce<T, {number}, {outputs}, {len}, {fold}>(t, {{0}}, {{1}}, [](int o) {{ return {line}; }}, \
         [](int i) {{ return {term}; }}, []({number} x) {{ return {finish}; }});"
    );
    let definitions = vec![Definition::file("reduce", include_str!("../reduce.cu"))];
    DeviceCode { definitions, call, scratch_bytes: 0, width: outputs }
}
