//! What an op says of itself, looked at before anybody builds on it: an op may be anybody's, and may be wrong.
//!
//! Each claim is asked for once and checked there; an op that changes its mind is held to what it said first.

use std::panic::{AssertUnwindSafe, catch_unwind};

use smallvec::SmallVec;

use super::Op;
use crate::ir::error::{OpError, panic_message};
use crate::ir::shape::{Operand, Type};

/// Operands of one op: most have few.
pub(crate) type Operands = SmallVec<[Operand; 6]>;

/// How an op uses its operands' memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    /// Pairs of inputs and outputs that share their memory.
    pub(crate) in_place: SmallVec<[(usize, usize); 6]>,
    /// Whether the one output is the one input, byte for byte.
    pub(crate) copies_as_is: bool,
}

impl Claims {
    /// Gives the input that output `output` is made in.
    pub(crate) fn input_of(&self, output: usize) -> Option<usize> {
        self.in_place.iter().find(|(_, of)| *of == output).map(|&(input, _)| input)
    }

    /// Asks an op how it uses the memory of operands of these types.
    ///
    /// # Errors
    ///
    /// If an input or output of a pair is missing or in another pair too, or its types differ; if what copies has
    /// other than one input and one output of one size; if what marks the edge of a call gives other types than it takes.
    pub(crate) fn of(op: &dyn Op, inputs: &[Type], outputs: &[Type]) -> Result<Claims, OpError> {
        let in_place = SmallVec::from_slice(op.in_place());
        let claims = Claims { in_place, copies_as_is: op.copies_as_is() };
        let error = |message: String| Err(OpError(format!("{}: {message}", op.name())));
        for (number, &(input, output)) in claims.in_place.iter().enumerate() {
            let (Some(from), Some(to)) = (inputs.get(input), outputs.get(output)) else {
                return error(format!("no input {input} or output {output} to share memory"));
            };
            if from != to {
                return error(format!("{from} and {to} cannot share memory"));
            }
            let mut others = claims.in_place[..number].iter();
            if others.any(|&(one, other)| one == input || other == output) {
                return error(format!("input {input} or output {output} shares memory twice"));
            }
        }
        let is_copy = |from: &Type, to: &Type| {
            from.dtype == to.dtype && from.shape.numel() == to.shape.numel()
        };
        if claims.copies_as_is && !matches!((inputs, outputs), ([x], [y]) if is_copy(x, y)) {
            return error("expected one input and one output of its size to copy".into());
        }
        if op.boundary().is_some() && inputs != outputs {
            return error("expected to pass the inputs of a call on as they are".into());
        }
        Ok(claims)
    }
}

/// Asks an op how its outputs lie.
///
/// # Errors
///
/// If it does not say so of each, or one has gaps or overlaps itself.
pub(crate) fn outputs(
    op: &dyn Op,
    inputs: &[Operand],
    types: &[Type],
) -> Result<Operands, OpError> {
    let layouts = op.layouts(inputs, types);
    let error = |message: String| OpError(format!("{}: {message}", op.name()));
    if layouts.len() != types.len() {
        let (expected, given) = (types.len(), layouts.len());
        return Err(error(format!("expected the layouts of {expected} outputs, got {given}")));
    }
    let made = types.iter().zip(layouts).map(|(ty, layout)| match layout.is_dense(&ty.shape) {
        true => Ok(Operand { ty: ty.clone(), layout }),
        false => Err(error(format!("expected {ty} without gaps, got strides {:?}", &*layout))),
    });
    made.collect()
}

/// Runs what an op does; a panic becomes an error that names the op.
pub(crate) fn contained<R>(op: &dyn Op, run: impl FnOnce() -> R) -> Result<R, OpError> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|panic| OpError(format!("{} {}", op.name(), panic_message(&*panic))))
}
