//! neurarch's verbs: sign, trace, bind, step, initialize and save, as plain functions on `&mut World`.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "other bits on other machines"))]

pub mod access;
pub mod amp;
pub mod array;
pub mod bind;
mod cohort;
pub mod commands;
pub mod containers;
mod copy;
mod eager;
pub mod evolve;
pub mod fuse;
pub mod hooks;
pub mod init;
pub mod insert;
mod keys;
mod launch;
pub mod lazy;
mod live;
pub mod lookup;
pub mod mode;
pub mod optim;
mod pages;
pub mod parameters;
pub mod parametrize;
mod places;
pub mod plans;
mod ready;
mod refit;
pub mod registration;
pub mod room;
mod run;
pub mod sets;
mod settled;
pub mod shared;
pub mod sign;
pub mod spawn;
pub mod state;
pub mod step;
pub mod sync_batchnorm;
mod tape;
pub mod tie;
mod trace;
pub mod traverse;
mod undo;
mod visit;
mod watch;

#[cfg(test)]
mod storage_tests;
