//! What most programs need: `use neurarch::prelude::*`. Layers, losses, optimizers and schedulers are all here; of the rest,
//! what collides with no name of bevy's prelude and no word of a game.

pub use bevy_ecs::prelude::{Component, Entity, World};

pub use crate::bevy::StepSystems;
pub use crate::components::amp::GradScaler;
pub use crate::components::hook::{HookOptions, RemovableHandle};
pub use crate::components::layers::*;
pub use crate::components::module::factory::FactoryArguments;
pub use crate::components::module::repr::repr;
pub use crate::components::module::{Call, Declare, Forward, Init, Module};
pub use crate::components::parametrizations::OrthogonalMap;
pub use crate::components::{Scalars, scalars};
pub use crate::handles::{
    Migrate, ModuleMut, ModuleRef, NeurarchWorld, PopulationMut, PopulationRef, PopulationSettings,
    PositionMut, Seed, TargetMut,
};
pub use crate::init;
pub use crate::kernels::ir::dtype::Dtype;
pub use crate::kernels::ir::packed::PackedSequence;
pub use crate::kernels::ir::trace::Var;
pub use crate::kernels::ir::tree::{Arguments, Tree};
pub use crate::kernels::ops::activation::gelu::Approximate;
pub use crate::kernels::ops::attention::multi_head::{InProjection, MultiHeadAttentionOptions};
pub use crate::kernels::ops::attention::scaled_dot_product::AttentionOptions;
pub use crate::kernels::ops::recurrent::sequence::PaddingSide;
pub use crate::kernels::ops::spatial::grid_sample::{GridMode, GridOptions, GridPadding};
pub use crate::losses::*;
pub use crate::lr_scheduler::{
    Anneal, ChainedScheduler, ConstantLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, CyclicLR,
    CyclicMode, ExponentialLR, LambdaLR, LinearLR, MultiStepLR, MultiplicativeLR, OneCycleLR,
    PolynomialLR, ReduceLROnPlateau, SWALR, SequentialLR, StepLR,
};
pub use crate::optim::{
    ASGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, AdjustLr, AverageFn, AveragedModel,
    LBFGS, LineSearch, Muon, NAdam, Optimizers, ParamGroups, RAdam, RMSprop, Rprop, SGD,
    SparseAdam,
};
pub use crate::systems::compile::array::{AnyArray, AnyInput, DataSet, Input};
pub use crate::systems::edit::parametrize::RegisterOptions;
pub use crate::systems::evolve::{EvolveError, Noise};
pub use crate::systems::execute::step::{StepError, TrainStep};
pub use crate::systems::optim::clip::ClipOptions;
pub use crate::systems::state::load::LoadOptions;
pub use crate::systems::state::{IncompatibleKeys, StateDict, Tensor};
pub use crate::systems::structure::traverse::Listing;
pub use crate::systems::system_params::commands::ParameterCommands;
pub use crate::systems::system_params::parameters::Parameters;
