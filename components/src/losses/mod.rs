//! Losses: what a model's outputs are compared with its targets by, named as torch names them.
//!
//! Each is a module too: called with outputs and targets in a `forward`, as in torch. Those of two inputs are a
//! [`Loss`], which training takes; those of more are modules only.

use core::any::Any;
use core::fmt::Debug;

use bevy_ecs::prelude::*;
use ndarray::ArrayViewD;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Scalar, ScalarOf};
use neurarch_kernels::ir::shape::{Shape, Type};
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ir::tree::{Arguments, Tree};

use crate::module::registry::Modules;
use crate::module::{Call, Declare, Init, Module};

mod adaptive;
mod binary;
mod cross_entropy;
mod ctc;
mod likelihood;
mod linear_cross_entropy;
mod margin;
mod mse;
mod regression;
mod triplet;

pub use adaptive::AdaptiveLogSoftmaxWithLoss;
pub use binary::{
    BCELoss, BCEWithLogitsLoss, HingeEmbeddingLoss, MultiLabelSoftMarginLoss, SoftMarginLoss,
};
pub use cross_entropy::CrossEntropyLoss;
pub use ctc::CTCLoss;
pub use likelihood::{
    GaussianNLLLoss, KLDivLoss, KLDivReduction, NLLLoss, NLLLoss2d, PoissonNLLLoss,
};
pub use linear_cross_entropy::LinearCrossEntropyLoss;
pub use margin::{CosineEmbeddingLoss, MarginRankingLoss, MultiLabelMarginLoss, MultiMarginLoss};
pub use mse::MSELoss;
pub use neurarch_kernels::ops::reduction::reduce::Reduction;
pub use regression::{HuberLoss, L1Loss, SmoothL1Loss};
pub use triplet::{TripletMarginLoss, TripletMarginWithDistanceLoss};

/// A function of a model's outputs and targets that training makes small.
///
/// It is recorded behind the model's forward pass and runs with it. Implement it for a loss of your own. A
/// loss that is a component is a [`Module`] as well, of the values `input` and `target`: its scalar slots are
/// those of the module, its arrays are buffers. [`#[scalars]`](macro@crate::scalars) writes `structural` and `scalar` by
/// the fields that have `#[scalar]`.
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

    /// Says what the loss of a batch is of those of its items: their mean if nothing else is said. Where gradients of parts of
    /// a batch are accumulated, a part of a mean counts by its share of the items, a part of a sum counts whole.
    fn reduction(&self) -> Reduction {
        Reduction::Mean
    }

    /// Returns a copy in which every scalar slot has a fixed value and every array fixed numbers: what decides
    /// the program.
    fn structural(&self) -> Self {
        self.clone()
    }

    /// Reads a scalar slot; `None` if there is none of that name.
    fn scalar(&self, name: &str) -> Option<f64> {
        let _ = name;
        None
    }

    /// Names the arrays that the loss may read beside the targets, the same for all models: torch's names of
    /// buffers.
    fn array_names(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the array of that name; `None` if it is not there.
    fn array(&self, name: &str) -> Option<ArrayViewD<'_, f64>> {
        let _ = name;
        None
    }
}

/// Which targets a [`Loss`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Whatever the loss's ops take.
    Any,
    /// Class indices: i64, each from 0 to `classes - 1` or equal to `ignore_index`. Floats are no indices and
    /// pass.
    Classes {
        /// How many classes there are.
        classes: usize,
        /// The target that counts for nothing.
        ignore_index: i64,
    },
}

impl Targets {
    /// Says that targets are indices of the classes that outputs of this type have.
    fn classes(x: &Type, ignore_index: i64) -> Self {
        let axis = usize::from(x.shape.rank() > 1);
        Targets::Classes { classes: x.shape.get(axis).copied().unwrap_or(0), ignore_index }
    }
}

/// What [`Loss::forward`] records into.
#[derive(Clone, Copy)]
pub struct LossCall<'a> {
    /// The recording.
    pub trace: &'a Trace,
    place: Place<'a>,
}

/// Where a loss gets its numbers.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// From the value that training was called with; its arrays by name.
    Training(&'a [(&'static str, Var)]),
    /// From the module's component and its buffers.
    Module(&'a Call<'a>),
}

impl<'a> LossCall<'a> {
    /// Creates one for a loss that training was called with; `arrays` are [`DynLoss::arrays`], recorded as
    /// inputs in the dtype of the outputs.
    pub fn new(trace: &'a Trace, arrays: &'a [(&'static str, Var)]) -> Self {
        LossCall { trace, place: Place::Training(arrays) }
    }

    /// Returns a number of the loss that is no part of the program's structure, with shape `[]`: see
    /// [`Loss::scalar`].
    pub fn scalar(&self, name: &'static str, dtype: Dtype) -> Var {
        match self.place {
            Place::Training(_) => {
                self.trace.scalar(Scalar { name, of: ScalarOf::Loss, position: 0 }, dtype)
            }
            Place::Module(call) => call.scalar(name, dtype),
        }
    }

    /// Returns an array of the loss, if it has one of that name: see [`Loss::array`].
    pub fn array(&self, name: &str) -> Option<Var> {
        match self.place {
            Place::Training(arrays) => {
                arrays.iter().find(|(known, _)| *known == name).map(|(_, array)| array.clone())
            }
            Place::Module(call) => call.optional_buffer(name),
        }
    }
}

/// Returns targets in the dtype of the outputs: whole numbers are converted, as torch promotes them.
fn in_dtype_of(x: &Var, target: &Var) -> Var {
    if target.dtype().is_float() { target.clone() } else { target.to(x.dtype()) }
}

impl<L: Loss + Component> Module for L {
    fn declare(&self, declare: &mut Declare) {
        for name in self.array_names() {
            match self.array(name) {
                Some(array) => declare.buffer(*name, Shape::from(array.shape()), true),
                None => declare.no_buffer(*name),
            };
        }
    }

    fn reset(&self, name: &str) -> Init {
        let numbers = self.array(name).map(|array| array.iter().copied().collect());
        numbers.map_or(Init::Zeros, Init::Numbers)
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([x, target]) = call.named_values(arguments, ["input", "target"]) else {
            return call.trace.poison().into();
        };
        let call = LossCall { trace: call.trace, place: Place::Module(call) };
        Loss::forward(self, &call, &x, &target).into()
    }

    fn structural(&self) -> Self {
        Loss::structural(self)
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        Loss::scalar(self, name)
    }
}

/// Lists the losses of this crate, which are modules all.
pub(crate) fn list(modules: &mut impl Modules) {
    modules.add::<AdaptiveLogSoftmaxWithLoss>();
    modules.add::<BCELoss>();
    modules.add::<BCEWithLogitsLoss>();
    modules.add::<CTCLoss>();
    modules.add::<CosineEmbeddingLoss>();
    modules.add::<CrossEntropyLoss>();
    modules.add::<GaussianNLLLoss>();
    modules.add::<HingeEmbeddingLoss>();
    modules.add::<HuberLoss>();
    modules.add::<KLDivLoss>();
    modules.add::<L1Loss>();
    modules.add::<LinearCrossEntropyLoss>();
    modules.add::<MSELoss>();
    modules.add::<MarginRankingLoss>();
    modules.add::<MultiLabelMarginLoss>();
    modules.add::<MultiLabelSoftMarginLoss>();
    modules.add::<MultiMarginLoss>();
    modules.add::<NLLLoss>();
    modules.add::<NLLLoss2d>();
    modules.add::<PoissonNLLLoss>();
    modules.add::<SmoothL1Loss>();
    modules.add::<SoftMarginLoss>();
    modules.add::<TripletMarginLoss>();
    modules.add::<TripletMarginWithDistanceLoss>();
}

/// [`Loss`] behind a pointer; every loss is one.
pub trait DynLoss: Any + Debug + Send + Sync {
    /// See [`Loss::forward_with`].
    fn forward_with(&self, call: &LossCall<'_>, result: Tree, target: &Var) -> Var;
    /// See [`Loss::targets`].
    fn targets(&self, x: &Type) -> Targets;
    /// See [`Loss::reduction`].
    fn reduction(&self) -> Reduction;
    /// See [`Loss::scalar`].
    fn scalar(&self, name: &str) -> Option<f64>;
    /// Lists the arrays that are there, with their names: see [`Loss::array`].
    fn arrays(&self) -> Vec<(&'static str, ArrayViewD<'_, f64>)>;
    /// Returns whether the two are equal, scalar slots and arrays included.
    fn equals(&self, other: &dyn DynLoss) -> bool;
    /// Returns whether the two record the same program: one type, equal structural fields.
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

    fn reduction(&self) -> Reduction {
        Loss::reduction(self)
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        Loss::scalar(self, name)
    }

    fn arrays(&self) -> Vec<(&'static str, ArrayViewD<'_, f64>)> {
        let arrays = self.array_names().iter().map(|name| Some((*name, self.array(name)?)));
        arrays.flatten().collect()
    }

    fn equals(&self, other: &dyn DynLoss) -> bool {
        (other as &dyn Any).downcast_ref::<L>() == Some(self)
    }

    fn is_like(&self, other: &dyn DynLoss) -> bool {
        let other = (other as &dyn Any).downcast_ref::<L>();
        other.is_some_and(|other| Loss::structural(self) == Loss::structural(other))
    }

    fn clone_box(&self) -> Box<dyn DynLoss> {
        Box::new(self.clone())
    }
}
