//! `torch.nn`: layers and containers, and what modules of a user's own are written with.

pub use crate::components::containers::LiveModule;
pub use crate::components::containers::Slice;
pub use crate::components::layers::*;
pub use crate::components::module::registered::{IntoValue, Value};
pub use crate::components::module::repr::repr;
pub use crate::components::module::{
    Call, Declare, DynModule, ExtraStateError, Forward, Init, Module, NoInverse,
};
pub use crate::components::parametrizations::OrthogonalMap;
pub use crate::components::{Scalars, scalars};
pub use crate::kernels::ir::dtype::Dtype;
pub use crate::kernels::ir::packed::PackedSequence;
pub use crate::kernels::ir::shape::Shape;
pub use crate::kernels::ir::trace::{Trace, Var};
pub use crate::kernels::ir::tree::{Arguments, Tree};
pub use crate::kernels::ops::activation::gelu::Approximate;
pub use crate::kernels::ops::attention::multi_head::{InProjection, MultiHeadAttentionOptions};
pub use crate::kernels::ops::attention::scaled_dot_product::AttentionOptions;
pub use crate::kernels::ops::recurrent::sequence::PaddingSide;
pub use crate::kernels::ops::spatial::grid_sample::{GridMode, GridOptions, GridPadding};
pub use crate::systems::edit::containers::{EditError, Item, Key, Popped};
pub use crate::systems::edit::lookup::{Attribute, LookupError};
pub use crate::systems::edit::registration::RegistrationError;
pub use crate::systems::structure::access::AccessError;
pub use crate::systems::structure::traverse::{Listing, NamedTensor};
