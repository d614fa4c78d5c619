//! `torch.nn.utils`: clipping, parametrizations, parameters as vectors, fusing. Most are methods of handles, too.

pub use crate::systems::edit::parametrize::{ParametrizeError, RegisterOptions};
pub use crate::systems::edit::{fuse, parametrize, sync_batchnorm};
pub use crate::systems::optim::clip::{ClipError, ClipOptions};
pub use crate::systems::structure::vector::{
    VectorError, parameters_to_vector, parameters_to_vectors, vector_to_parameters,
    vectors_to_parameters,
};
