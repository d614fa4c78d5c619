//! Passes: functions from [`Program`](crate::program::Program) to `Program`, and [`plan`], which makes
//! a program ready to run. Each can be tested alone; the verifier runs after each in tests.

pub mod dead_code;
pub mod differentiate;
pub mod fuse;
pub mod plan;
