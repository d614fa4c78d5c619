//! Runs plans: forward, loss, backward, update, and all of them in one.
//!
//! Each deed is one function on the World. Arrays have the models of the population on their first axis,
//! in the order of its indices. An inactive model is not visited: its rows of the results are left
//! alone (zero, where the call makes the array).

mod accumulate;
mod backward;
mod call;
pub mod calls;
pub(crate) mod check;
mod eager_loss;
mod forward;
mod gradients;
pub mod memory;
mod modified;
mod some;
mod stretch;
mod together;
mod train;
mod update;
mod watched;
mod watched_step;

pub(crate) use crate::errors::NOT_SCALAR;
pub use crate::errors::StepError;
pub(crate) use accumulate::MicroBatches;
pub use accumulate::train_step_accumulated;
pub use backward::{
    backward, backward_from, backward_scaled, backward_with, has_loss, loss, loss_with,
};
pub use call::{call, call_slice, call_with};
pub use forward::{forward, forward_any, forward_into, forward_with};
pub use gradients::{input_gradient, input_gradients, set_gradient, zero_grad};
pub use some::{
    Allowance, RunWorkers, SomeCall, SomeStep, TILE, Trained, Used, forward_some, run_on_rayon,
    train_some,
};
pub use together::{TrainStep, forward_all, train_step_all};
pub use train::{train_step, train_step_into, train_step_with, train_steps, train_steps_with};
pub use update::step;
