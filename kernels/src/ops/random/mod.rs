//! Ops that draw random numbers.

pub mod dropout;
pub mod feature_dropout;
pub mod gumbel_softmax;
pub mod noise;
pub mod rrelu;
pub mod uniform;
