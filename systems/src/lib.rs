//! neurarch's verbs: sign, trace, bind, step, initialize and save, as plain functions on `&mut World`.

pub mod access;
pub mod array;
pub mod bind;
mod cohort;
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
pub mod mode;
pub mod optim;
mod pages;
pub mod plans;
mod ready;
mod refit;
mod run;
pub mod sets;
pub mod sign;
pub mod spawn;
pub mod state;
pub mod step;
pub mod tie;
mod trace;
mod watch;

#[cfg(test)]
mod storage_tests;
