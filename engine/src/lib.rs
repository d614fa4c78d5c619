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
//!
//! # Where to look
//!
//! [`NeurarchWorld::spawn_population`] returns a [`PopulationMut`], whose methods train and call all of its models.
//! [`PopulationMut::at`] is one module of all models, [`PopulationMut::model`] one model. What else there is, by torch's names:
//!
//! | module | what is in it |
//! |---|---|
//! | [`prelude`] | what most programs import |
//! | [`nn`] | layers and containers, and what modules of your own are written with |
//! | [`losses`] | losses |
//! | [`optim`], [`lr_scheduler`] | optimizers, parameter groups and schedulers: components |
//! | [`init`] | first numbers of parameters |
//! | [`hooks`] | functions that are called in the middle of a pass |
//! | [`state`] | state dicts, safetensors, what training has come to |
//! | [`amp`] | autocast and gradient scalers |
//! | [`utils`] | clipping, parametrizations, fusing, parameters as vectors |
//! | [`evolve`] | selection, crossover, noise |
//! | [`report`] | looking at models: summaries, health of gradients, pictures, memory; at a run: profiles, logs for TensorBoard, as JSON lines and CSV |
//! | [`plugin`] | a step as systems of a bevy schedule; what systems query, read and write |
//! | [`functions`] | what methods call: plain functions of a world |
//!
//! `docs/torch.md` in the repository puts torch's calls and these side by side. An op or a kernel of your own is written with
//! the crate `neurarch_kernels`, which knows no entities.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "other bits on other machines"))]

pub mod amp;
#[cfg(feature = "asset")]
pub mod asset;
mod bevy;
pub mod evolve;
pub mod functions;
mod handles;
pub mod hooks;
pub mod losses;
pub mod lr_scheduler;
pub mod nn;
pub mod optim;
pub mod plugin;
pub mod prelude;
pub mod report;
pub mod utils;

pub use bevy_ecs;
pub use handles::{
    LiveContainer, Migrate, ModuleMut, ModuleRef, NeurarchWorld, PopulationMut, PopulationRef,
    PopulationSettings, PositionMut, Seed, TargetMut,
};
#[doc(inline)]
pub use kernels::ir::device::Device;
#[doc(inline)]
pub use neurarch_systems::{init, state};
#[doc(inline)]
pub use systems::compile::array::{AnyArray, AnyInput, DataSet, Input};
#[doc(inline)]
pub use systems::compile::plans::Plans;
#[doc(inline)]
pub use systems::execute::step::{StepError, TrainStep};
#[doc(inline)]
pub use systems::migrate::{MigrateError, To};
#[doc(inline)]
pub use systems::structure::sign::SignError;
#[doc(inline)]
pub use systems::structure::spawn::SpawnError;

#[doc(hidden)]
pub use neurarch_components as components;
#[doc(hidden)]
pub use neurarch_kernels as kernels;
#[doc(hidden)]
pub use neurarch_systems as systems;

/// The example of a Bevy app runs as a doctest.
#[cfg(all(doctest, feature = "app"))]
#[doc = include_str!("../../docs/bevy.md")]
struct InABevyApp;

/// The example in the README runs as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
