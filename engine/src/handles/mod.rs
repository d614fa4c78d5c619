//! Handles: a population, a module of one model, or the modules at a path of all models, with a world. Their methods are
//! one-line callers of the functions in [`systems`](crate::systems).
//!
//! [`PopulationMut`], [`ModuleMut`] and [`PositionMut`] change what they are of, as bevy's `EntityWorldMut` does;
//! [`PopulationRef`] and [`ModuleRef`] read, as `EntityRef` does.

mod amp;
mod both;
mod containers;
mod evolve;
mod hooks;
mod migrate;
mod module;
mod module_ref;
mod optim;
mod parametrize;
mod population;
mod population_ref;
mod position;
mod report;
mod rollback;
mod state;
mod target;
mod train;
mod world;

pub use containers::LiveContainer;
pub use migrate::Migrate;
pub use module::ModuleMut;
pub use module_ref::ModuleRef;
pub use population::PopulationMut;
pub use population_ref::PopulationRef;
pub use position::PositionMut;
pub use target::TargetMut;
pub use world::{NeurarchWorld, PopulationSettings, Seed};
