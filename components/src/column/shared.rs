//! Shared tensors: one parameter or buffer of all models of a population, with one row of memory.
//!
//! The row is a column of the population's own entity, so it outlives every model; its gradient and the
//! optimizer's state are columns beside it. A module that has it says so by a [`Tie`](crate::population::tie::Tie) to that
//! entity, which spawning and cloning carry on.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::ir::shape::Type;
use serde::{Deserialize, Serialize};

use crate::column::ColumnKey;

/// Where the numbers of a shared parameter or buffer lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SharedRow {
    /// The population's entity.
    pub owner: Entity,
    /// The place in its [`SharedTensors`].
    pub index: usize,
}

impl SharedRow {
    /// Returns the key of the column, on [`owner`](SharedRow::owner), of values of type `ty`: of the numbers
    /// themselves or of a companion.
    pub fn key(self, role: Role, ty: &Type) -> ColumnKey {
        ColumnKey::shared(role, self.index, ty)
    }
}

/// A parameter or buffer that models of a population share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedTensor {
    /// The dotted name that it was shared under.
    pub name: String,
    /// [`Role::Parameter`] or [`Role::Buffer`].
    #[serde(with = "crate::wire")]
    pub role: Role,
    /// Element type and shape.
    #[serde(with = "crate::wire")]
    pub ty: Type,
    /// Whether it has a gradient: torch's `grad is not None`.
    pub has_gradient: bool,
}

/// What the models of a population share: a component of the population's entity.
///
/// A place keeps its number for as long as its tensor is shared; one that is free again is given out anew.
#[derive(Component, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedTensors(Vec<Option<SharedTensor>>);

impl SharedTensors {
    /// Finds the place of the tensor that was shared under a dotted name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|of| of.as_ref().is_some_and(|of| of.name == name))
    }

    /// Returns the tensor at a place.
    pub fn get(&self, index: usize) -> Option<&SharedTensor> {
        self.0.get(index)?.as_ref()
    }

    /// Returns the tensor at a place, to be changed.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut SharedTensor> {
        self.0.get_mut(index)?.as_mut()
    }

    /// Adds a tensor; gives its place.
    pub fn add(&mut self, tensor: SharedTensor) -> usize {
        match self.0.iter().position(Option::is_none) {
            Some(free) => {
                self.0[free] = Some(tensor);
                free
            }
            None => {
                self.0.push(Some(tensor));
                self.0.len() - 1
            }
        }
    }

    /// Takes the tensor at a place out.
    pub fn take(&mut self, index: usize) -> Option<SharedTensor> {
        self.0.get_mut(index)?.take()
    }

    /// Lists the tensors with their places.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &SharedTensor)> {
        self.0.iter().enumerate().filter_map(|(index, of)| Some((index, of.as_ref()?)))
    }

    /// Returns whether nothing is shared.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}
