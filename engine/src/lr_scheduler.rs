//! `torch.optim.lr_scheduler`: learning rates that change from step to step.

#[doc(inline)]
pub use crate::components::scheduler::{
    Anneal, ChainedScheduler, ConstantLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, CyclicLR,
    CyclicMode, ExponentialLR, GroupSchedulers, LRScheduler, LambdaLR, LinearLR, Metric, Mode,
    MultiStepLR, MultiplicativeLR, OneCycleLR, ParamGroup, PolynomialLR, Progress,
    ReduceLROnPlateau, SWALR, Scheduler, SchedulerError, SequentialLR, StepLR, ThresholdMode,
};
#[doc(inline)]
pub use crate::systems::optim::lr_scheduler::ScheduleError;
