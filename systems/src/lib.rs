//! neurarch's verbs: sign, trace, bind, step, initialize and save, as plain functions on `&mut World`.

pub mod access;
pub mod array;
pub mod bind;
pub mod init;
mod launch;
pub mod sign;
pub mod spawn;
pub mod trace;
