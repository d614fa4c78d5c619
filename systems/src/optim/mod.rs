//! Tools around optimizers: schedules, clipping, averages, their state dicts; and who is given one.

pub mod clip;
pub(crate) mod gradients;
pub mod insert;
pub mod lbfgs;
pub mod lr_scheduler;
pub mod state_dict;
pub mod swa_utils;
pub mod update_bn;
