//! neurarch's nouns: layer components, parameter columns, blueprints, optimizers.

pub mod blueprint;
pub mod module;
