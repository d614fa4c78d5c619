//! What a structure is asked for becomes a plan.

pub mod array;
pub(crate) mod entrance;
pub(crate) mod non_full;
pub mod plans;
pub(crate) mod results;
pub(crate) mod script;
pub(crate) mod trace;
pub(crate) mod trainable;
