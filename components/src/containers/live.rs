//! [`LiveModule`]: a module that lives already, in the place of a description.

use bevy_ecs::prelude::*;

use crate::module::Module;

/// Stands for a live module that is part of no model: one that was popped from a container.
///
/// Given to an operation on a live container, the module itself moves there, with its numbers, gradients,
/// optimizer state and hooks. It is no module by itself: a model described with it cannot be called.
///
/// Source: in torch a module that was popped can be appended again.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveModule(pub Entity);

impl Module for LiveModule {}
