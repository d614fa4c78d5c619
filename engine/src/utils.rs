//! `torch.nn.utils`: clipping, parametrizations, parameters as vectors, fusing, activation checkpointing; how
//! much memory models take. Most are methods of handles, too.

#[doc(inline)]
pub use crate::components::parametrizations;
#[doc(inline)]
pub use crate::report::memory::{
    MemoryAnalysis, MemoryProfile, detailed_memory_analysis, memory_profiler,
};
#[doc(inline)]
pub use crate::systems::edit::deepcopy::deepcopy;
#[doc(inline)]
pub use crate::systems::edit::parametrize::{ParametrizeError, RegisterOptions};
#[doc(inline)]
pub use crate::systems::edit::{fuse, parametrize, sync_batchnorm};
#[doc(inline)]
pub use crate::systems::execute::step::memory::{CallMemory, ModuleMemory};
#[doc(inline)]
pub use crate::systems::optim::clip::{ClipError, ClipOptions};
#[doc(inline)]
pub use crate::systems::structure::mode::checkpoints as checkpoint;
#[doc(inline)]
pub use crate::systems::structure::vector::{
    VectorError, parameters_to_vector, parameters_to_vectors, vector_to_parameters,
    vectors_to_parameters,
};
