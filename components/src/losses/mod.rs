//! Losses: what a model's outputs are compared with its targets by, named as torch names them.

use core::any::Any;
use core::fmt::Debug;

use neurarch_kernels::dtype::Dtype;
use neurarch_kernels::program::trace::{Trace, Var};
use neurarch_kernels::program::tree::Tree;
use neurarch_kernels::program::{Scalar, ScalarOf};
use neurarch_kernels::shape::Type;

mod cross_entropy;
mod mse;

pub use cross_entropy::CrossEntropyLoss;
pub use mse::MSELoss;
pub use neurarch_kernels::ops::reduce::Reduction;

/// A function of a model's outputs and targets that training makes small.
///
/// It is recorded behind the model's forward pass and runs with it. Implement it for a loss of your own.
///
/// Source: the losses of `torch.nn`.
pub trait Loss: Clone + Debug + PartialEq + Send + Sync + 'static {
    /// Writes down the loss of outputs `x` against `target`.
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        let _ = (x, target);
        call.trace.fail("the loss of one Tensor is not implemented")
    }

    /// Writes down the loss of whatever models give: for those that give several values, in place of
    /// [`forward`](Loss::forward), which is called by default. `train_step` and `train_step_with` call it.
    fn forward_with(&self, call: &LossCall<'_>, result: Tree, target: &Var) -> Var {
        match result {
            Tree::Leaf(x) => self.forward(call, &x, target),
            other => call.trace.fail(format!("expected one Tensor, got {}", other.type_name())),
        }
    }

    /// Says which targets are valid for outputs of that type.
    fn targets(&self, x: &Type) -> Targets {
        let _ = x;
        Targets::Any
    }

    /// Gives a copy in which every scalar slot has a fixed value: what decides the program.
    fn structural(&self) -> Self {
        self.clone()
    }

    /// Reads a scalar slot; `None` if there is none of that name.
    fn scalar(&self, name: &str) -> Option<f64> {
        let _ = name;
        None
    }

    /// Lists the arrays that the loss reads beside the targets, each with shape `[len]` and the same
    /// for all models.
    fn arrays(&self) -> &[Vec<f64>] {
        &[]
    }
}

/// Which targets a [`Loss`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Whatever the loss's ops take.
    Any,
    /// Class indices: i64, each from 0 to `classes - 1` or equal to `ignore_index`.
    Classes {
        /// How many classes there are.
        classes: usize,
        /// The target that counts for nothing.
        ignore_index: i64,
    },
}

/// What [`Loss::forward`] records into.
#[derive(Clone, Copy)]
pub struct LossCall<'a> {
    /// The recording.
    pub trace: &'a Trace,
    /// [`Loss::arrays`], recorded as inputs in the dtype of the outputs.
    pub arrays: &'a [Var],
}

impl LossCall<'_> {
    /// Gives a number of the loss that is no part of the program's structure, with shape `[]`: see
    /// [`Loss::scalar`].
    pub fn scalar(&self, name: &'static str, dtype: Dtype) -> Var {
        self.trace.scalar(Scalar { name, of: ScalarOf::Loss, position: 0 }, dtype)
    }
}

/// [`Loss`] behind a pointer; every loss is one.
pub trait DynLoss: Any + Debug + Send + Sync {
    /// See [`Loss::forward_with`].
    fn forward_with(&self, call: &LossCall<'_>, result: Tree, target: &Var) -> Var;
    /// See [`Loss::targets`].
    fn targets(&self, x: &Type) -> Targets;
    /// See [`Loss::scalar`].
    fn scalar(&self, name: &str) -> Option<f64>;
    /// See [`Loss::arrays`].
    fn arrays(&self) -> &[Vec<f64>];
    /// Says whether the two are equal, scalar slots and arrays included.
    fn equals(&self, other: &dyn DynLoss) -> bool;
    /// Says whether the two record the same program: one type, equal structural fields.
    fn is_like(&self, other: &dyn DynLoss) -> bool;
    /// Copies.
    fn clone_box(&self) -> Box<dyn DynLoss>;
}

impl<L: Loss> DynLoss for L {
    fn forward_with(&self, call: &LossCall<'_>, result: Tree, target: &Var) -> Var {
        Loss::forward_with(self, call, result, target)
    }

    fn targets(&self, x: &Type) -> Targets {
        Loss::targets(self, x)
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        Loss::scalar(self, name)
    }

    fn arrays(&self) -> &[Vec<f64>] {
        Loss::arrays(self)
    }

    fn equals(&self, other: &dyn DynLoss) -> bool {
        (other as &dyn Any).downcast_ref::<L>() == Some(self)
    }

    fn is_like(&self, other: &dyn DynLoss) -> bool {
        let other = (other as &dyn Any).downcast_ref::<L>();
        other.is_some_and(|other| self.structural() == other.structural())
    }

    fn clone_box(&self) -> Box<dyn DynLoss> {
        Box::new(self.clone())
    }
}
