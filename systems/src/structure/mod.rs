//! What models are made of: live trees become blueprints, modules and parameters are found by name.

pub mod access;
pub mod columns;
pub(crate) mod live;
pub(crate) mod membership;
pub mod mode;
pub mod optimizers;
pub(crate) mod population;
pub(crate) mod refit;
pub(crate) mod root;
pub mod shared;
pub mod sign;
pub mod spawn;
pub(crate) mod spot;
#[cfg(test)]
pub(crate) mod storage_tests;
pub mod target;
pub mod tie;
pub(crate) mod ties;
pub mod traverse;
pub mod vector;
