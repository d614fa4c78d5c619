//! Models as brains of bodies: who has which, how they are born and die, think from components to components, and learn from
//! what comes of it.

pub(crate) mod bodies;
pub(crate) mod body_list;
pub(crate) mod commands;
pub(crate) mod neighbors;
pub(crate) mod recurrent;
pub(crate) mod reinforce;
pub(crate) mod rollout;
pub(crate) mod sample;
pub(crate) mod think;
