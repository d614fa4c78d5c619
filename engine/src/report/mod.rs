//! What can be told of models: values that print themselves.

pub(crate) mod memory;
