//! Passes: functions from [`Program`](crate::ir::program::Program) to `Program`, and [`plan`], which makes
//! a program ready to run. Each can be tested alone; the verifier runs after each in tests.
//!
//! [`autocast`](mod@autocast), [`differentiate`] and [`split`] are asked for; [`clean`] and [`fuse`] run before every plan.

mod arena;
pub mod autocast;
pub mod clean;
pub mod differentiate;
pub mod fuse;
pub mod halves;
pub mod plan;
mod schedule;
pub mod split;
mod times;
