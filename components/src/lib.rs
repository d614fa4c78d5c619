//! neurarch's nouns: layer components, parameter columns, blueprints, optimizers.

pub mod blueprint;
pub mod column;
pub mod module;
pub mod population;
pub mod registry;
pub mod tree;
