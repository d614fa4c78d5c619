//! neurarch's arithmetic: what a forward pass becomes, how it is transformed, and how it runs.
//!
//! Each folder uses those above it in this list alone:
//!
//! * [`memory`]: aligned memory, and whether there is room.
//! * [`arithmetic`]: what formulas are written over, with elementary functions of our own.
//! * [`ir`]: [`Program`](ir::program::Program), a flat list of [ops](ir::op::Op), recorded by
//!   [`Trace`](ir::trace::Trace). It names no back end.
//! * [`text`]: elementwise kernels, printed in C.
//! * [`passes`]: functions from programs to programs.
//! * [`cpu`]: kernels of the CPU, and what they are made of: vectors, tiles, products, sums.
//! * [`device`]: device code, printed, and what it is made of.
//! * [`ops`]: one op, one file: shape rule, kernel, gradient rule, tests.
//! * [`plan`]: a program made ready to run.
//! * [`execute`]: plans run by tiles of models.
//! * [`gradients`], [`lbfgs`]: arithmetic on whole gradients and weights, outside of programs.
//!
//! This crate knows no ECS: it takes views (address, stride, rows) and programs, and gives numbers.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "other bits on other machines"))]

pub mod arithmetic;
pub mod cpu;
pub mod device;
pub mod execute;
pub mod gradients;
pub mod ir;
pub mod lbfgs;
pub mod memory;
pub mod ops;
pub mod passes;
pub mod plan;
pub mod testing;
pub mod text;
