//! neurarch's nouns: layer components, parameter columns, blueprints, optimizers.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "other bits on other machines"))]

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
pub mod scheduler;
pub mod state;
pub mod warnings;
