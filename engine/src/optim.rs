//! `torch.optim`: optimizers, and what optimizers of a user's own are written with.

#[doc(inline)]
pub use crate::components::optimizer::{
    ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, AdjustLr, AverageFn, AveragedModel,
    DynOptimizer, DynParamGroups, Form, LBFGS, LineSearch, Muon, NAdam, NamedParameter, Optimizer,
    OptimizerComponent, OptimizerError, ParamGroups, RAdam, RMSprop, Rprop, SGD, SparseAdam,
    StateEntry, Update,
};
#[doc(inline)]
pub use crate::kernels::ops::update::rule::{UpdateInputs, Updated};
#[doc(inline)]
pub use crate::systems::optim::lbfgs::LbfgsError;
#[doc(inline)]
pub use crate::systems::optim::state_dict::{OptimizerStateDict, OptimizerStateError, ParamGroup};
#[doc(inline)]
pub use crate::systems::optim::swa_utils::AverageError;
#[doc(inline)]
pub use crate::systems::optim::update_bn::UpdateBnError;
#[doc(inline)]
pub use crate::systems::structure::optimizers::Optimizers;
