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
//! let brains = world.spawn_population(&brain, 1_000, Seed(7))?; // 1,000 entity trees, 1 blueprint
//! world.insert_with(brains, |index| Adam { lr: 1e-3 * (1 + index) as f64, ..Adam::default() })?;
//!
//! let observations = Array3::<f32>::ones((1_000, 32, 4));
//! let targets = Array2::<i64>::ones((1_000, 32));
//! let loss = CrossEntropyLoss::default();
//! let first = world.train_step(brains, &observations, &targets, &loss)?; // [1,000] losses
//! let second = world.train_step(brains, &observations, &targets, &loss)?;
//! assert!(second[0] < first[0]);
//!
//! world.eval(brains)?;
//! let logits = world.no_grad(|world| world.forward(brains, &observations))?;
//! assert_eq!(logits.shape(), [1_000, 32, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "other bits on other machines"))]

mod amp;
mod containers;
pub mod evolve;
mod hooks;
mod module;
mod optim;
mod parametrize;
pub mod plugin;
pub mod population;
pub mod prelude;
mod schedule;
mod train;

pub use amp::AmpWorld;
pub use bevy_ecs;
pub use containers::{ContainerWorld, LiveContainer};
pub use evolve::EvolveWorld;
pub use hooks::HookWorld;
pub use module::ModuleWorld;
pub use neurarch_components as components;
pub use neurarch_kernels as kernels;
pub use neurarch_systems as systems;
pub use neurarch_systems::{init, state};
pub use optim::OptimWorld;
pub use parametrize::ParametrizeWorld;
pub use population::{NeurarchWorld, PopulationSettings, Seed};
pub use schedule::ScheduleWorld;
pub use train::TrainWorld;

/// The example in the README runs as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
