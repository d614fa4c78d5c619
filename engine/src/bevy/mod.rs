//! Models in a simulation: brains of bodies, which think from components to components, are born and die.

pub(crate) mod bodies;
pub(crate) mod commands;
pub(crate) mod neighbors;
pub(crate) mod park;
pub(crate) mod recurrent;
pub(crate) mod sample;
pub(crate) mod think;
