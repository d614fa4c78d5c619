//! [`NoModule`]: torch's `None` in the place of a child.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use crate::module::{Call, Module};

/// torch's `None` in the place of a child: it has a name, is printed and counted, and cannot be called. Lists of modules
/// leave it out, and a state dict has nothing of it.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// let network = Sequential::new().push(Tanh).push(NoModule);
/// assert_eq!(network.to_string(), "Sequential(\n  (0): Tanh()\n  (1): None\n)");
/// assert_eq!(network.len(), 2);
/// ```
///
/// Source: `add_module(name, None)`.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable)]
pub struct NoModule;

impl Module for NoModule {
    fn type_name(&self) -> &'static str {
        "NoneType"
    }

    fn uses_training(&self) -> bool {
        false
    }

    fn forward_with(&self, call: &Call<'_>, _: Arguments) -> Tree {
        call.trace.fail("'NoneType' object is not callable").into()
    }
}
