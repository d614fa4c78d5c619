//! Migration: the numbers of modules go to another element type or device, or through a function: torch's `_apply`.

mod apply;
mod convert;
mod error;
mod in_place;
mod shared;
mod to;
mod wanted;

pub use apply::apply;
pub use error::MigrateError;
pub use to::{To, to, to_type};
