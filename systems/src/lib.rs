//! neurarch's verbs: what happens to populations of models, one plain function a deed.

pub mod array;
mod cohort;
pub mod init;
mod launch;
pub mod mode;
pub mod optim;
pub mod plans;
mod run;
pub mod sets;
pub mod step;
pub mod trace;
mod watch;
