//! neurarch: torch.nn's module system as an entity component system.
//!
//! Thousands of small networks that live, learn and die in a bevy [`World`](bevy_ecs::world::World):
//! spawning a second model *is* batching.
//!
//! ```
//! use ndarray::{Array2, Array3};
//! use neurarch::prelude::*;
//!
//! let mut world = World::new();
//! let brain = Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2));
//! let mut brains = world.spawn_population(&brain, 1_000, Seed(7))?; // 1,000 entity trees, 1 blueprint
//! brains.insert_with(|index| Adam { lr: 1e-3 * (1 + index) as f64, ..Adam::default() })?;
//!
//! let observations = Array3::<f32>::ones((1_000, 32, 4));
//! let targets = Array2::<i64>::ones((1_000, 32));
//! let loss = CrossEntropyLoss::default();
//! let first = brains.train_step(&observations, &targets, &loss)?; // [1,000] losses
//! let second = brains.train_step(&observations, &targets, &loss)?;
//! assert!(second[0] < first[0]);
//!
//! let logits = brains.eval()?.no_grad(|brains| brains.forward(&observations))?;
//! assert_eq!(logits.shape(), [1_000, 32, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "other bits on other machines"))]

pub mod amp;
pub mod evolve;
pub mod handles;
pub mod hooks;
pub mod losses;
pub mod lr_scheduler;
pub mod nn;
pub mod optim;
pub mod plugin;
pub mod prelude;
pub mod utils;

pub use bevy_ecs;
pub use handles::{
    LiveContainer, ModuleMut, ModuleRef, NeurarchWorld, PopulationMut, PopulationRef,
    PopulationSettings, PositionMut, Seed, TargetMut,
};
pub use neurarch_components as components;
pub use neurarch_kernels as kernels;
pub use neurarch_systems as systems;
pub use neurarch_systems::{init, state};

/// The example in the README runs as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
