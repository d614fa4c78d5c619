//! The ops, in families, one a file: shape rule, kernel, gradient rule, tests.
//!
//! Each op adds a method to [`Var`](crate::ir::trace::Var) under torch's name. An op of your own
//! implements [`Op`](crate::ir::op::Op) in the same way, in your crate.

pub mod activation;
pub mod attention;
pub mod elementwise;
pub mod index;
pub mod linalg;
pub mod loss;
pub mod norm;
pub mod random;
pub mod recurrent;
pub mod reduction;
pub(crate) mod rounded;
pub mod shape;
pub mod spatial;
pub mod update;
