//! The ops, one a file: shape rule, kernel, gradient rule, tests. This file is only their list.
//!
//! Each op adds a method to [`Var`](crate::program::trace::Var) under torch's name. An op of your own
//! implements [`Op`](crate::op::Op) in the same way, in your crate.

pub mod activation;
pub mod adam;
pub mod binary;
pub mod boundary;
pub mod cast;
pub mod cat;
pub mod compositions;
pub mod contiguous;
pub mod convolution;
pub(crate) mod copy;
pub mod cross_entropy;
pub mod dropout;
pub mod elementwise;
pub mod elu;
pub mod embedding;
pub mod expand;
pub mod gelu;
pub mod hardshrink;
pub mod hardsigmoid;
pub mod hardswish;
pub mod hardtanh;
pub mod leaky_relu;
pub mod linear;
pub(crate) mod lines;
pub mod log_sigmoid;
pub mod matmul;
pub mod mish;
pub mod mse_loss;
pub mod noise;
pub mod normalize;
mod number;
pub mod pad;
pub mod permute;
pub mod prelu;
pub mod reduce;
pub mod relu;
pub mod reshape;
pub mod sgd;
pub mod sigmoid;
pub mod silu;
pub mod slice;
pub mod softmax;
pub mod softplus;
pub mod softshrink;
pub mod tanh;
pub mod threshold;
pub mod unary;
mod update;
