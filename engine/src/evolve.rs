//! Evolution: how models of a population take over from each other, mix, change at random and multiply. The methods are
//! [`PopulationMut`](crate::PopulationMut)'s.

#[doc(inline)]
pub use crate::systems::evolve::{EvolveError, Noise};
