//! Ops over signals, images and volumes: convolution, pooling, padding, other sizes.

pub mod affine_grid;
pub mod conv_tbc;
pub mod convolution;
pub mod fold;
pub mod grid_sample;
pub mod interpolate;
pub mod max_pool;
pub mod pad;
pub mod pick;
pub(crate) mod planes;
pub mod pool;
pub mod resample;
pub mod shuffle;
