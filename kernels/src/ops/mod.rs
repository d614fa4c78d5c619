//! The ops, one a file: shape rule, kernel, gradient rule, tests. This file is only their list.
//!
//! Each op adds a method to [`Var`](crate::program::trace::Var) under torch's name. An op of your own
//! implements [`Op`](crate::op::Op) in the same way, in your crate.

pub mod boundary;
