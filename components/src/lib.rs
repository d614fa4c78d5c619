//! neurarch's nouns: layer components, parameter columns, blueprints, optimizers.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "other bits on other machines"))]

extern crate self as neurarch_components;

pub mod amp;
pub mod builtin;
pub mod column;
pub mod containers;
pub mod hook;
pub mod layers;
pub mod losses;
pub mod module;
pub mod optimizer;
pub mod parametrizations;
pub mod population;
pub mod scalars;
pub mod scheduler;
pub mod state;
pub mod warnings;
