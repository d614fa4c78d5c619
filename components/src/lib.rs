//! neurarch's nouns: layer components, parameter columns, blueprints, optimizers.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "other bits on other machines"))]

pub mod amp;
pub mod attributes;
pub mod blueprint;
pub mod blueprints;
pub mod builtin;
pub mod call;
pub mod column;
pub mod containers;
pub mod contents;
mod downcast;
mod dynamic;
pub mod group;
pub mod hook;
pub mod keeper;
pub mod layers;
mod limits;
pub mod losses;
pub mod mode;
pub mod module;
pub mod names;
mod numbers;
pub mod optimizer;
pub mod parametrizations;
mod parametrized;
mod path;
pub mod population;
pub mod registered;
pub mod registry;
pub mod repr;
pub mod scheduler;
pub mod shared;
pub mod signature;
pub mod state;
pub mod tie;
pub mod tree;
pub mod versions;
