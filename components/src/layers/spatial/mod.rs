//! Layers over signals, images and volumes.

pub(crate) mod adaptive;
pub(crate) mod conv;
pub(crate) mod conv_transpose;
pub(crate) mod fold;
pub(crate) mod padding;
pub(crate) mod per_axis;
pub(crate) mod pooling;
pub(crate) mod shuffle;
pub(crate) mod unpool;
pub(crate) mod upsample;
