//! `torch.nn`: layers and containers, and what modules of a user's own are written with.

#[doc(inline)]
pub use crate::components::containers::LiveModule;
#[doc(inline)]
pub use crate::components::containers::Slice;
#[doc(inline)]
pub use crate::components::layers::*;
#[doc(inline)]
pub use crate::components::module::factory::{Factory, FactoryArguments};
#[doc(inline)]
pub use crate::components::module::registered::{Attributes, IntoValue, Registered, Value};
#[doc(inline)]
pub use crate::components::module::repr::repr;
#[doc(inline)]
pub use crate::components::module::{
    Call, Declare, DynModule, ExtraStateError, Forward, Init, Module, NoInverse,
};
#[doc(inline)]
pub use crate::components::parametrizations::OrthogonalMap;
#[doc(inline)]
pub use crate::components::{Scalars, scalars};
#[doc(inline)]
pub use crate::kernels::ir::dtype::{Dtype, Element, bf16, f16};
#[doc(inline)]
pub use crate::kernels::ir::packed::PackedSequence;
#[doc(inline)]
pub use crate::kernels::ir::shape::Shape;
#[doc(inline)]
pub use crate::kernels::ir::trace::{Trace, Var};
#[doc(inline)]
pub use crate::kernels::ir::tree::{Arguments, Tree};
#[doc(inline)]
pub use crate::kernels::ops::activation::gelu::Approximate;
#[doc(inline)]
pub use crate::kernels::ops::attention::multi_head::{InProjection, MultiHeadAttentionOptions};
#[doc(inline)]
pub use crate::kernels::ops::attention::scaled_dot_product::{AttentionOptions, causal_mask};
#[doc(inline)]
pub use crate::kernels::ops::recurrent::sequence::PaddingSide;
#[doc(inline)]
pub use crate::kernels::ops::spatial::grid_sample::{GridMode, GridOptions, GridPadding};
#[doc(inline)]
pub use crate::kernels::ops::spatial::interpolate::Interpolation;
#[doc(inline)]
pub use crate::kernels::ops::spatial::pad::PadMode;
#[doc(inline)]
pub use crate::kernels::ops::spatial::pool::Pooling;
#[doc(inline)]
pub use crate::systems::edit::containers::{EditError, Item, Key, Popped};
#[doc(inline)]
pub use crate::systems::edit::lookup::{Attribute, LookupError};
#[doc(inline)]
pub use crate::systems::edit::registration::RegistrationError;
#[doc(inline)]
pub use crate::systems::structure::access::{AccessError, text};
#[doc(inline)]
pub use crate::systems::structure::traverse::{Listing, NamedTensor};
