//! neurarch's arithmetic: what a forward pass becomes, how it is transformed, and how it runs.
//!
//! * [`program`]: [`Program`](crate::ir::program::Program), a flat list of ops, recorded by
//!   [`Trace`](crate::ir::trace::Trace).
//! * [`ops`]: one op, one file: shape rule, kernel, gradient rule, tests.
//! * [`passes`]: functions from programs to programs, and to plans.
//! * [`arithmetic`]: what formulas are written over, with elementary functions of our own.
//! * [`elementary`]: functions of single numbers that are the same bits everywhere.
//! * [`cpu`]: the executor that runs plans by tiles of models.
//! * [`text`]: elementwise kernels, printed in C.
//!
//! This crate knows no ECS: it takes views (address, stride, rows) and programs, and gives numbers.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "other bits on other machines"))]

pub mod arithmetic;
pub mod autocast;
pub mod cpu;
pub mod dtype;
pub mod elementary;
pub mod gradients;
pub mod lbfgs;
pub mod op;
pub mod ops;
pub mod passes;
pub mod program;
pub mod shape;
pub mod testing;
pub mod text;
