//! Models are changed while they live: registration, containers, parametrizations, fusing.

pub mod containers;
pub mod deepcopy;
pub mod fuse;
pub mod lookup;
pub mod parametrize;
pub mod registration;
pub mod sync_batchnorm;
