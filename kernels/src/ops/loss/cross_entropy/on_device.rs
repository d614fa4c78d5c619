//! The device code of cross entropy: loss, gradient, or both.

use super::settings::{Settings, class_axis};
use crate::device::code::{Definition, DeviceCode, element};
use crate::device::{formula, offset};
use crate::ir::shape::Operand;
use crate::ops::reduction::reduce::Reduction;

/// Returns the code for these inputs; the outputs are the loss, if it `has_loss`, then the gradient, if it has one.
pub(super) fn code(
    settings: Settings,
    inputs: &[Operand],
    gradient: Option<&Operand>,
    has_loss: bool,
) -> DeviceCode {
    let (x, n) = (&inputs[0], inputs.len());
    let (number, axis) = (element(x), class_axis(&x.ty.shape));
    let classes = x.ty.shape[axis];
    let items = x.ty.shape.numel() / classes;
    let place = |operand: &Operand| {
        let others = (0..operand.ty.shape.rank()).filter(|&other| other != axis);
        let axes: Vec<_> =
            others.map(|axis| (operand.ty.shape[axis], operand.layout[axis])).collect();
        format!("{} + c * {}", offset::of("item", &axes), operand.layout[axis])
    };
    let reduction = match settings.reduction {
        Reduction::None => "NONE",
        Reduction::Mean => "MEAN",
        Reduction::Sum => "SUM",
    };
    let weights = if settings.has_weight { "{3}" } else { "nullptr" };
    let loss = if has_loss { format!("{{{n}}}") } else { "nullptr".to_owned() };
    let read = format!("[&](int item, int c) {{ return {{0}}[{}]; }}", place(x));
    let (dloss, write) = match gradient {
        Some(gradient) => (
            format!("[&](int item) {{ return {{{}}}[item]; }}", n - 1),
            format!(
                "[&](int item, int c, {number} dx) {{ {{{}}}[{}] = dx; }}",
                n + usize::from(has_loss),
                place(gradient)
            ),
        ),
        None => ("0".to_owned(), "0".to_owned()),
    };
    let (has_weight, has_gradient, ignored) =
        (settings.has_weight, gradient.is_some(), settings.ignore_index);
    let call = format!(
        "cross_entropy<T, {number}, {items}, {classes}, {reduction}, {has_weight}, {has_loss}, {has_gradient}>(t, \
         {read}, {{1}}, {{2}}[0], {weights}, {ignored}ll, ({number} *){{s}}, {loss}, {dloss}, {write});"
    );
    let mut definitions = formula::exp_and_ln();
    definitions.push(Definition::file("cross_entropy", include_str!("../cross_entropy.cu")));
    let scratch_bytes = if has_loss { items * x.ty.dtype.size_bytes() } else { 0 };
    DeviceCode { definitions, call, scratch_bytes, width: items }
}
