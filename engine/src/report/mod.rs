//! What can be told of models: values that print themselves.

pub mod memory;
