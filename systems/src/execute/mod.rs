//! Cohorts run plans: forward, loss, backward and step, planned, observed or op by op.

pub(crate) mod cohort;
pub(crate) mod decide;
pub(crate) mod eager;
pub mod hooks;
pub(crate) mod keys;
pub mod lazy;
pub(crate) mod loss_arrays;
pub(crate) mod prepare;
pub mod profile;
pub(crate) mod ready;
pub(crate) mod record;
pub(crate) mod route;
pub(crate) mod run;
pub mod shared;
pub mod step;
pub(crate) mod tape;
pub(crate) mod undo;
pub(crate) mod updates;
