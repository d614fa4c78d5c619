//! Activations.

pub mod celu;
pub mod compositions;
pub mod elu;
pub mod gelu;
pub mod hardshrink;
pub mod hardsigmoid;
pub mod hardswish;
pub mod hardtanh;
pub mod leaky_relu;
pub mod log_sigmoid;
pub mod mish;
pub mod prelu;
pub mod relu;
pub mod sigmoid;
pub mod silu;
pub mod softplus;
pub mod softshrink;
pub mod tanh;
pub mod threshold;
