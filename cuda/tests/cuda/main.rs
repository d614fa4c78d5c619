//! The runtime over the driver whose devices are the interpreter of PTX: through cudarc, without a GPU.
#![cfg(target_os = "linux")]

mod child;
mod driver;
mod steps;
mod tables;

#[path = "../../examples/gpu/scene.rs"]
mod scene;
