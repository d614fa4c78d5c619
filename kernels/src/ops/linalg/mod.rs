//! Products of matrices, and linear algebra.

pub(crate) mod activation;
pub mod bilinear;
pub mod einsum;
pub mod geqrf;
pub mod grouped_mm;
pub mod householder_product;
pub mod linear;
pub mod matmul;
pub(crate) mod matrices;
pub mod matrix_exp;
mod on_device;
pub mod products;
pub mod solve;
pub mod tril;
