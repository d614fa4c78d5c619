//! `torch.optim`: optimizers, and what optimizers of a user's own are written with.

pub use crate::components::optimizer::{
    ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, AdjustLr, AverageFn, AveragedModel,
    LBFGS, LineSearch, Muon, NAdam, NamedParameter, Optimizer, OptimizerComponent, OptimizerError,
    ParamGroups, RAdam, RMSprop, Rprop, SGD, SparseAdam, Update,
};
pub use crate::systems::optim::insert::InsertError;
pub use crate::systems::optim::lbfgs::LbfgsError;
pub use crate::systems::optim::state_dict::{OptimizerStateDict, OptimizerStateError};
pub use crate::systems::optim::swa_utils::AverageError;
pub use crate::systems::optim::update_bn::UpdateBnError;
pub use crate::systems::structure::optimizers::Optimizers;
