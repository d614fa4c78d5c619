//! What an op is: a shape rule, a gradient and a kernel for each back end, behind one trait that anybody can implement.
//!
//! This file and what a program is made of name no back end: an op is [asked](Ask) for a kernel by the back end's type.
//!
//! The ops of neurarch live in [`crate::ops`], one a file, and use nothing but this interface.

use core::any::Any;
use core::cell::RefCell;
use core::fmt::Debug;
use std::sync::Arc;

use crate::ir::dtype::Dtype;
use crate::ir::shape::{Layout, Operand, Type};
use crate::ir::trace::Var;

pub mod ask;
pub(crate) mod claims;

pub use ask::{Ask, Backend};

pub use crate::ir::error::OpError;

/// An operation on values: what a [`Program`](crate::ir::program::Program) is made of.
///
/// An op must be deterministic and must not look at its neighbors: what it computes for a model
/// follows from that model's inputs alone, and the order of each sum from the operands' shapes alone
/// (never from layouts, from the number of models or from threads).
///
/// # Example
///
/// An op of your own. It works planned and eagerly, and is differentiated like any other; a longer one, with
/// settings, errors and two dtypes, is in `kernels/tests/kernels/user_op`.
///
/// ```
/// use neurarch_kernels::cpu::kernel::Cpu;
/// use neurarch_kernels::cpu::tile::Tile;
/// use neurarch_kernels::ir::dtype::Dtype;
/// use neurarch_kernels::ir::op::{Ask, GradientAt, Op, OpError};
/// use neurarch_kernels::ir::trace::Var;
/// use neurarch_kernels::ir::shape::Type;
/// use neurarch_kernels::testing::{Array, evaluate};
///
/// /// `x³`, for singles.
/// #[derive(Debug)]
/// struct Cube;
///
/// impl Op for Cube {
///     fn name(&self) -> &'static str {
///         "cube"
///     }
///
///     fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
///         match inputs {
///             [x] if x.dtype == Dtype::F32 => Ok(vec![x.clone()]),
///             _ => Err(OpError("cube: expected one input of f32".into())),
///         }
///     }
///
///     fn kernels(&self, ask: &mut Ask<'_>) {
///         ask.give::<Cpu>(|_, _| {
///             Box::new(|tile: &mut Tile<'_>| {
///                 for model in 0..tile.models() {
///                     let (inputs, mut outputs, _) = tile.model(model).split();
///                     for (y, x) in outputs.take::<f32>().iter_mut().zip(inputs.get::<f32>(0)) {
///                         *y = x * x * x;
///                     }
///                 }
///             })
///         });
///     }
///
///     fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
///         vec![at.gradients[0].as_ref().map(|dy| dy * at.inputs[0].square() * 3.0)]
///     }
/// }
///
/// let x = Array::new(Dtype::F32, [3], [1.0, -2.0, 3.0]);
/// let y = evaluate(|v| v[0].trace().apply(Cube, &[&v[0]]), &[x], &[]);
/// assert_eq!(y.elements, [1.0, -8.0, 27.0]);
/// ```
pub trait Op: Any + Debug + Send + Sync {
    /// Gives the name under which the op is printed: torch's, in lower case.
    fn name(&self) -> &'static str;

    /// Gives the settings that are not inputs, as printed after the name: `dim=1`. Two ops of one name
    /// and equal attributes must compute the same.
    fn attributes(&self) -> String {
        String::new()
    }

    /// Says how inputs of half precision, and of several floating-point types, are taken. The shape rule and the
    /// kernel see halves only if this is [`Mixing::Untouched`].
    fn mixing(&self) -> Mixing {
        Mixing::Promoted
    }

    /// Gives the types of the outputs: the shape rule.
    ///
    /// # Errors
    ///
    /// If the inputs do not fit, in torch's words, naming the shapes.
    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError>;

    /// Says whether the kernel reads input `input` in any dense layout. Where it does not, the plan
    /// copies that input into the row-major one first.
    fn takes_any_layout(&self, input: usize) -> bool {
        let _ = input;
        false
    }

    /// Says whether the kernel reads input `input` as it lies in `operand`.
    fn takes_layout(&self, input: usize, operand: &Operand) -> bool {
        operand.is_row_major() || self.takes_any_layout(input)
    }

    /// Chooses the layouts of the outputs, one each and without gaps, given the inputs (row-major where
    /// [`takes_layout`](Op::takes_layout) is false) and the outputs' types.
    fn layouts(&self, inputs: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        let _ = inputs;
        outputs.iter().map(|ty| ty.shape.row_major()).collect()
    }

    /// Lists pairs (input, output) that share their memory: the kernel finds the input's elements in
    /// the output and changes them there, and cannot get the input itself. Both have one type and lie row-major; none is
    /// in two pairs. An update rule does that with parameters and moments.
    fn in_place(&self) -> &[(usize, usize)] {
        &[]
    }

    /// Says whether the kernel copies its one input to its one output as it lies, byte for byte: a plan then leaves
    /// it out where it can, and lets both have one place.
    fn copies_as_is(&self) -> bool {
        false
    }

    /// Says whether the op draws random numbers, by the key of its model: two of them are never merged.
    fn is_random(&self) -> bool {
        false
    }

    /// Says whether the op marks the edge of a module call. Such an op passes its inputs through, one output each; no
    /// kernel is asked for, and it is dropped from a plan.
    fn boundary(&self) -> Option<Boundary> {
        None
    }

    /// Estimates the work for one model, in the time that a floating-point operation of a matrix product takes: decides
    /// whether threads are worth waking, nothing else. To read or write an element takes as long as some of these.
    fn cost(&self, inputs: &[Type], outputs: &[Type]) -> usize {
        let numel = |ty: &Type| ty.shape.numel();
        inputs.iter().chain(outputs).map(numel).fold(0, usize::saturating_add).saturating_mul(8)
    }

    /// Gives the kernel for the back end that asks, for operands of known types and layouts: everything that can be
    /// decided before the numbers are there is decided here. The default gives none: the op is not implemented on any
    /// back end then.
    ///
    /// # Panics
    ///
    /// An op of this crate panics if the operands are not those of its shape rule, have gaps, or are too large; and its
    /// kernel if it meets others than it was made for.
    fn kernels(&self, ask: &mut Ask<'_>) {
        let _ = ask;
    }

    /// Says whether the outputs are constants for gradients, whatever the inputs are.
    fn is_constant(&self) -> bool {
        false
    }

    /// Records the gradients of the inputs, given those of the outputs.
    ///
    /// An input that does not need one may be skipped. A gradient that is 0 everywhere is stated by
    /// [`GradientAt::zero`]. `None` for an input that needs one says that there is no rule: differentiation then
    /// fails, naming op and module. The default says that for all inputs.
    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        vec![None; at.inputs.len()]
    }

    /// Gives the op that computes this one followed by elementwise activation `next`, if there is
    /// one: how the fusion pass asks, knowing no op by name.
    fn fuse_activation(&self, next: &dyn Op) -> Option<Arc<dyn Op>> {
        let _ = next;
        None
    }

    /// Gives the gradient that can be computed together with this op, if there is one, and the op that computes both.
    fn fuse_gradient(&self) -> Option<WithGradient> {
        None
    }

    /// Gives the element type that the op converts its one input to, if it does nothing else.
    fn converts_to(&self) -> Option<Dtype> {
        None
    }

    /// Says whether the results are numbers of a half wherever all inputs are, so that rounding them to it changes
    /// nothing.
    fn keeps_halves(&self) -> bool {
        false
    }

    /// Gives the op that computes the same bits from halves as they lie, or to halves, if there is one: conversions
    /// beside it are dropped then.
    fn in_halves(&self, around: &Around<'_>) -> Option<InHalves> {
        let _ = around;
        None
    }
}

/// What lies beside an op whose inputs or outputs are converted from halves and to them.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The types of the inputs.
    pub types: &'a [Type],
    /// For each input, the half whose numbers all of its numbers are, if they are.
    pub inputs: &'a [Option<OfHalf>],
    /// For each output, the half that whoever reads it rounds it to, if all do.
    pub outputs: &'a [Option<Dtype>],
}

/// A value in single precision whose numbers are all numbers of a half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfHalf {
    /// The half.
    pub dtype: Dtype,
    /// Whether it was widened from one, and did not become so by rounding.
    pub is_widened: bool,
}

/// An op that [computes in halves](Op::in_halves).
#[derive(Clone, Debug)]
pub struct InHalves {
    /// The op.
    pub op: Arc<dyn Op>,
    /// How it reads each input.
    pub inputs: Vec<Reads>,
    /// Whether its outputs are the halves that [`Around::outputs`] names. If not, outputs stay singles, but are rounded
    /// to those halves.
    pub narrows: bool,
}

/// How an op that computes in halves reads an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// In the type in which it is.
    AsIs,
    /// The half that it was widened from.
    Half,
    /// As it was before it was rounded, or as it is: the op rounds it.
    Rounds,
}

/// An op's gradient, and how to compute both at once from the same inputs, in the same formulas.
#[derive(Clone, Debug)]
pub struct WithGradient {
    /// The gradient. Its inputs begin with those of the op.
    pub gradient: Arc<dyn Op>,
    /// What computes both: its inputs are those of the gradient, its outputs the op's, then the gradient's.
    pub both: Arc<dyn Op>,
}

/// How an op, or a [function](crate::ir::trace::Trace::function) of several, takes halves.
///
/// Where an input is of half precision, all of them are converted to single precision (to double if one is of
/// that), and the floating-point results are rounded to one type: what torch's kernels for the CPU do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mixing {
    /// The result has the type that those of the inputs promote to.
    #[default]
    Promoted,
    /// As [`Promoted`](Mixing::Promoted), and single and double precision may stand side by side as well: all inputs
    /// are converted to double then.
    Arithmetic,
    /// All inputs must have the same type.
    Same,
    /// The result has the type of the first input, as that of a layer norm has.
    First,
    /// Elements are moved as they are, of whatever type.
    Untouched,
}

/// The edge of a module call that a boundary op marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// The value enters the module's `forward`.
    Enter,
    /// The value leaves it.
    Leave,
}

/// Where a gradient rule stands: the values of a node, and the gradients that have arrived.
pub struct GradientAt<'a> {
    /// The node's inputs.
    pub inputs: &'a [Var],
    /// The node's outputs.
    pub outputs: &'a [Var],
    /// The gradient of the loss with respect to each output; `None` where nothing depends on it.
    pub gradients: &'a [Option<Var>],
    /// Which inputs need a gradient.
    pub needs: &'a [bool],
    /// For each input, whether its gradient was stated to be 0.
    zeros: RefCell<Vec<bool>>,
}

impl<'a> GradientAt<'a> {
    /// Puts the place of a node together.
    pub(crate) fn new(
        inputs: &'a [Var],
        outputs: &'a [Var],
        gradients: &'a [Option<Var>],
        needs: &'a [bool],
    ) -> Self {
        GradientAt { inputs, outputs, gradients, needs, zeros: RefCell::default() }
    }

    /// States that the gradient of input `input` is 0 everywhere, and gives `None` in its place: nothing is
    /// recorded for it.
    pub fn zero(&self, input: usize) -> Option<Var> {
        let mut zeros = self.zeros.borrow_mut();
        zeros.resize(self.inputs.len(), false);
        zeros.get_mut(input).into_iter().for_each(|is_zero| *is_zero = true);
        None
    }

    /// Says whether the gradient of input `input` was stated to be 0.
    pub(crate) fn is_zero(&self, input: usize) -> bool {
        self.zeros.borrow().get(input).copied().unwrap_or(false)
    }
}
