//! neurarch's nouns: layer components, parameter columns, blueprints, optimizers.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "other bits on other machines"))]

extern crate self as neurarch_components;

pub mod amp;
pub mod builtin;
pub mod column;
pub mod containers;
pub mod hook;
pub mod layers;
pub mod losses;
pub mod module;
pub mod optimizer;
pub mod parametrizations;
pub mod population;
#[cfg(feature = "reflect")]
mod reflect;
#[cfg(feature = "reflect")]
pub mod reflected;
pub mod saved;
pub mod scalars;
pub mod scheduler;
pub mod state;
pub mod warnings;
pub mod wire;

/// What is asked of batch norms to fuse them, and to average their statistics.
#[doc(hidden)]
pub use layers::norm::batchnorm;

/// What derives name in a crate that has this one by way of `neurarch` alone.
#[doc(hidden)]
pub use neurarch_kernels as kernels;

/// Implements the trait [`Scalars`](scalars::Scalars) for a struct by its fields with `#[scalar]`: the example is there.
///
/// * `#[scalar]`: the field is a slot of its own name. It is an `f64`, or an `Option<f64>` that is or is not there.
/// * `#[scalar("beta1", "beta2")]`: the field, a tuple, has slots of these names.
/// * `#[scalar(read = probability)]`: slots are read through a function from `f64` to `f64`.
/// * `#[structural(ones)]`: in a structural copy, the field is what the function makes of a reference to it. By default
///   slots are 0 there, and other fields are as they are.
///
/// An `impl` of `Module`, `Loss` or `Optimizer` with [`#[scalars]`](macro@scalars) before it has these slots.
pub use neurarch_derive::Scalars;

/// Adds `structural` and `scalar` to an `impl` of `Module` or `Loss`, and `scalar_mut` and `scalar_names` as well to one of
/// `Optimizer`, by what [`#[derive(Scalars)]`](derive@Scalars) says of the type. What is written there by hand stays.
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::Component;
/// use neurarch_components::losses::{Loss, LossCall};
/// use neurarch_components::{Scalars, scalars};
/// use neurarch_kernels::ir::trace::Var;
///
/// /// The mean square, plus `offset`.
/// #[derive(Component, Clone, Debug, PartialEq, Scalars)]
/// struct Offset {
///     #[scalar]
///     offset: f64,
/// }
///
/// #[scalars]
/// impl Loss for Offset {
///     fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
///         (x - target).square().mean(&[], false) + call.scalar("offset", x.dtype())
///     }
/// }
///
/// assert_eq!(Loss::scalar(&Offset { offset: 0.5 }, "offset"), Some(0.5));
/// ```
pub use neurarch_derive::scalars;
