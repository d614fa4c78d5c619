//! Layers: components that say what a module computes, named as torch names them, one file a family.

pub mod activation;
pub mod dropout;
pub mod flatten;
pub mod linear;
pub mod sequential;

pub use activation::{
    Approximate, ELU, GELU, Identity, LeakyReLU, LogSoftmax, ReLU, SiLU, Sigmoid, Softmax,
    Softplus, Tanh,
};
pub use dropout::Dropout;
pub use flatten::Flatten;
pub use linear::Linear;
pub use sequential::Sequential;
