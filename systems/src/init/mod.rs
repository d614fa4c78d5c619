//! The first numbers of parameters: `torch.nn.init` for whole populations.
//!
//! Every number follows from the population's seed, the model's number, the module's position and the
//! parameter's place in it, and from nothing else: a model spawned alone has the bits that it has among
//! ten thousand.

pub mod gain;
pub mod sample;

pub use gain::{FanMode, Nonlinearity, calculate_fan_in_and_fan_out, calculate_gain};
