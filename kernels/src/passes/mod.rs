//! Passes: functions from [`Program`](crate::ir::program::Program) to `Program`. Each can be tested alone; the verifier
//! runs after each in tests.
//!
//! [`autocast`](mod@autocast), [`differentiate`], [`checkpoint`](mod@checkpoint) and [`split`] are asked for; [`clean`] and
//! [`fuse`] run before every [plan](crate::plan).

pub mod autocast;
pub mod checkpoint;
pub mod clean;
pub mod differentiate;
pub mod fuse;
pub mod split;
