//! neurarch's nouns: layer components, parameter columns, blueprints, optimizers.

pub mod blueprint;
pub mod call;
pub mod column;
pub mod hook;
pub mod layers;
pub mod losses;
pub mod mode;
pub mod module;
pub mod optimizer;
pub mod parametrizations;
pub mod population;
pub mod registry;
pub mod tie;
pub mod tree;
