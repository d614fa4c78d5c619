//! [`Dtypes`]: the element types that a module's parameters and buffers were converted to.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;
use serde::{Deserialize, Serialize};

use crate::module::blueprint::Position;
use crate::module::registry::tell_change;

/// The element types that a module's parameters and buffers were converted to, in place of those that its type declares.
///
/// Kept by `to`; removing it converts them back. What is registered in a module has its own types, and this says nothing about
/// it.
#[derive(Component, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(storage = "SparseSet", immutable, on_insert = tell_change, on_remove = tell_change)]
pub struct Dtypes {
    /// The type of all that are floating and not named; `None` means the types that are declared.
    #[serde(with = "crate::wire")]
    pub floating: Option<Dtype>,
    /// The types of others, by name.
    #[serde(with = "crate::wire")]
    pub named: Vec<(String, Dtype)>,
}

impl Dtypes {
    /// Returns whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.floating.is_none() && self.named.is_empty()
    }

    /// Converts the parameters and buffers of a position.
    pub fn apply(&self, position: &mut Position) {
        for of in position.parameters.iter_mut().chain(&mut position.buffers) {
            self.convert(&of.name, &mut of.ty);
        }
    }

    /// Converts the parameter or buffer of a name.
    pub fn convert(&self, name: &str, ty: &mut Type) {
        let named = self.named.iter().find(|(known, _)| known == name).map(|&(_, dtype)| dtype);
        let floating = self.floating.filter(|_| ty.dtype.is_float());
        ty.dtype = named.or(floating).unwrap_or(ty.dtype);
    }
}
