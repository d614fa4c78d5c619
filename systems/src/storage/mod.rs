//! Where the numbers of models lie: members, bindings, rows, and jobs that run over them.

pub mod bind;
pub(crate) mod binders;
pub(crate) mod blocks;
pub(crate) mod copy;
pub(crate) mod equal;
pub(crate) mod gather;
pub(crate) mod launch;
pub(crate) mod members;
pub(crate) mod order;
pub(crate) mod pages;
pub(crate) mod recording;
pub(crate) mod visit;
pub(crate) mod widen;
pub(crate) mod write_detector;
