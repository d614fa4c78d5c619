//! How an op is computed, asked for by back end: a typed request, so that [`Op`] names no back end and a new one
//! changes no op that does without it.

use core::any::Any;

use super::Op;
use crate::ir::error::OpError;
use crate::ir::shape::Operand;

/// A way to compute ops: a processor, a device, a language that kernels are printed in.
///
/// Whoever implements it needs nothing from this crate: ops [give](Ask::give) kernels to it by its type.
pub trait Backend: 'static {
    /// Its name, for messages: `cpu`.
    const NAME: &'static str;

    /// What an op gives to it.
    type Kernel: ?Sized + 'static;
}

/// A request for the kernel of one op on one back end, for operands of known types and layouts.
///
/// # Example
///
/// A back end that only counts operations.
///
/// ```
/// use neurarch_kernels::cpu::kernel::Cpu;
/// use neurarch_kernels::ir::dtype::Dtype;
/// use neurarch_kernels::ir::op::{Ask, Backend, Op, OpError, ask};
/// use neurarch_kernels::ir::shape::{Operand, Type};
///
/// struct Counter;
///
/// impl Backend for Counter {
///     const NAME: &'static str = "counter";
///     type Kernel = dyn Fn() -> usize;
/// }
///
/// #[derive(Debug)]
/// struct Negate;
///
/// impl Op for Negate {
///     fn name(&self) -> &'static str {
///         "negate"
///     }
///
///     fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
///         Ok(inputs.to_vec())
///     }
///
///     fn kernels(&self, ask: &mut Ask<'_>) {
///         ask.give::<Counter>(|inputs, _| {
///             let numel = inputs[0].ty.shape.numel();
///             Box::new(move || numel)
///         });
///     }
/// }
///
/// let x = [Operand::row_major(Type::new(Dtype::F32, [2, 3]))];
/// let count = ask::kernel::<Counter>(&Negate, &x, &x)?;
/// assert_eq!(count(), 6);
///
/// let error = ask::kernel::<Cpu>(&Negate, &x, &x).err().map(|error| error.to_string());
/// assert_eq!(error.as_deref(), Some("negate: not implemented on cpu"));
/// # Ok::<(), OpError>(())
/// ```
pub struct Ask<'a> {
    inputs: &'a [Operand],
    outputs: &'a [Operand],
    /// An [`Answer`] of the back end that asks.
    answer: &'a mut dyn Any,
}

/// What an op gave to back end `B`. A type of its own for each back end, even where two have kernels of one type.
struct Answer<B: Backend>(Option<Box<B::Kernel>>);

impl Ask<'_> {
    /// Gives the kernel for back end `B`, which `make` makes of inputs and outputs if it is `B` that asks. Where an op
    /// gives several to one back end, the first counts.
    pub fn give<B: Backend>(
        &mut self,
        make: impl FnOnce(&[Operand], &[Operand]) -> Box<B::Kernel>,
    ) -> &mut Self {
        if let Some(Answer(kernel @ None)) = self.answer.downcast_mut::<Answer<B>>() {
            *kernel = Some(make(self.inputs, self.outputs));
        }
        self
    }

    /// Gives the kernel for back end `B` that `change` makes of the one that another op gives for the same operands, if
    /// it gives one.
    pub fn give_changed<B: Backend>(
        &mut self,
        op: &dyn Op,
        change: impl FnOnce(Box<B::Kernel>) -> Box<B::Kernel>,
    ) -> &mut Self {
        if let Some(Answer(answer @ None)) = self.answer.downcast_mut::<Answer<B>>() {
            *answer = kernel::<B>(op, self.inputs, self.outputs).ok().map(change);
        }
        self
    }
}

/// Asks `op` for its kernel on back end `B`, for operands of these types and layouts.
///
/// # Errors
///
/// If the op gives none.
pub fn kernel<B: Backend>(
    op: &dyn Op,
    inputs: &[Operand],
    outputs: &[Operand],
) -> Result<Box<B::Kernel>, OpError> {
    let mut answer = Answer::<B>(None);
    op.kernels(&mut Ask { inputs, outputs, answer: &mut answer });
    answer.0.ok_or_else(|| OpError(format!("{}: not implemented on {}", op.name(), B::NAME)))
}
