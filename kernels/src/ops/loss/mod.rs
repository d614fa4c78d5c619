//! Losses, and distances that losses are made of.

pub mod binary_loss;
pub mod cross_entropy;
pub mod ctc_loss;
pub mod distance;
pub mod likelihood_loss;
pub mod linear_cross_entropy;
pub mod margin_loss;
pub mod mse_loss;
pub mod regression_loss;
