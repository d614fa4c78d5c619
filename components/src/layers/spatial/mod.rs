//! Layers over signals, images and volumes.

pub mod adaptive;
pub mod conv;
pub mod conv_transpose;
pub mod fold;
pub mod padding;
pub mod per_axis;
pub mod pooling;
pub mod shuffle;
pub mod unpool;
pub mod upsample;
