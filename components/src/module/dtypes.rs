//! [`Dtypes`]: the element types that a module's parameters and buffers were converted to.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;
use serde::{Deserialize, Serialize};

use crate::module::Declare;
use crate::module::blueprint::{Parameter, Position};
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
    /// Returns what a module's entity has beside its layer component for its tensors to have the types that a position asks
    /// for, in a population of type `dtype`; `None` if the module's type declares just those. `floating` is the type that
    /// floating ones were converted to, if they were.
    pub fn of(at: &Position, dtype: Dtype, floating: Option<Dtype>) -> Option<Self> {
        let mut declared = Declare::default();
        at.module.declare(&mut declared);
        let plain = |of: &Parameter| {
            let mut all = declared.parameters.iter().chain(&declared.buffers);
            match all.find(|known| known.name == of.name && !known.is_none) {
                Some(known) => known.dtype.unwrap_or(dtype),
                None if of.ty.dtype.is_float() => dtype,
                None => of.ty.dtype,
            }
        };
        let all = || at.parameters.iter().chain(&at.buffers);
        if all().all(|of| of.ty.dtype == plain(of)) {
            return None;
        }
        let named = all().filter(|of| {
            let plain = plain(of);
            of.ty.dtype != floating.filter(|_| plain.is_float()).unwrap_or(plain)
        });
        let named = named.map(|of| (of.name.clone(), of.ty.dtype)).collect();
        Some(Dtypes { floating, named })
    }

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
