//! `torch.optim.lr_scheduler`: learning rates that change from step to step.

pub use crate::components::scheduler::{
    Anneal, ChainedScheduler, ConstantLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, CyclicLR,
    CyclicMode, ExponentialLR, GroupSchedulers, LRScheduler, LambdaLR, LinearLR, MultiStepLR,
    MultiplicativeLR, OneCycleLR, PolynomialLR, ReduceLROnPlateau, SWALR, SequentialLR, StepLR,
};
pub use crate::systems::optim::lr_scheduler::ScheduleError;
