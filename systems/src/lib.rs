//! neurarch's verbs: sign, trace, bind, step, initialize and save, as plain functions on `&mut World`.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "other bits on other machines"))]

pub mod amp;
pub mod compile;
mod draw;
pub mod edit;
pub mod errors;
pub mod evolve;
pub mod execute;
pub mod init;
pub mod migrate;
pub mod optim;
pub mod rollback;
pub mod state;
pub mod storage;
pub mod structure;
pub mod system_params;
