//! What torch's modules, losses, optimizers, hooks and state dicts do, done here: by torch's numbers, orders and words, for
//! one model and for populations.
//!
//! Here belongs whatever torch has. What bevy has is in `tests/ecs/`, what holds whatever is called in `tests/promises/`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../bits/mod.rs"]
mod bits;
mod golden;
#[path = "../known/mod.rs"]
mod known;

mod containers {
    mod described;
    mod live;
    mod live_operations;
    mod none;
    mod operations;
}
mod hooks;
mod layers {
    mod attention;
    mod functional;
    mod losses;
    mod numbers;
    mod recurrent;
    mod spatial;
    mod sync_batchnorm;
}
mod modules {
    mod calls;
    mod checkpointing;
    mod copies;
    mod custom;
    mod derive;
    mod eager;
    mod factory;
    mod gradients;
    mod init;
    mod item;
    mod lazy;
    mod memory;
    mod migrate;
    mod modes;
    mod parameters;
    mod registration;
    mod ties;
    mod warnings;
}
mod names;
mod optim {
    mod accumulation;
    mod amp;
    mod clipping;
    mod groups;
    mod optimizers;
    mod schedulers;
    mod training;
}
mod parametrize {
    mod fuse;
    mod fused;
    mod parametrizations;
    mod refused;
    mod transfer;
}
mod report;
mod state {
    mod dict;
    mod extra_state;
    mod lbfgs;
    #[cfg(not(feature = "pytorch"))]
    mod no_pytorch;
    mod overridden;
    #[cfg(feature = "pytorch")]
    mod pytorch;
    #[cfg(feature = "pytorch")]
    mod pytorch_mutations;
    mod saved;
    mod training_state;
}
