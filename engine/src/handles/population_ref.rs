//! [`PopulationRef`]: a population that is read.

use bevy_ecs::prelude::*;
use ndarray::{Array1, ArrayD};

use crate::components::population::Population;
use crate::handles::ModuleRef;
use crate::kernels::ir::dtype::{Dtype, Element};
use crate::systems::amp::{self, ScalerError};
use crate::systems::execute::step::{self, StepError};
use crate::systems::structure::access::AccessError;
use crate::systems::structure::sign::SignError;

/// A population that is read: [`NeurarchWorld::population`](crate::NeurarchWorld::population) makes one.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(4, 2), 10, Seed(7))?.id();
/// let brains = world.population(brains)?;
/// assert_eq!(brains.len(), 10);
/// let weight = brains.model(3)?.parameter::<f32>("weight")?; // a view of the numbers where they lie
/// assert_eq!(weight.shape(), [2, 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PopulationRef<'w> {
    pub(super) world: &'w World,
    pub(super) id: Entity,
    found: &'w Population,
}

impl<'w> PopulationRef<'w> {
    pub(crate) fn new(world: &'w World, id: Entity) -> Result<Self, SignError> {
        let found = world.get::<Population>(id).ok_or(SignError::NotAPopulation(id))?;
        Ok(PopulationRef { world, id, found })
    }

    /// Returns the population's entity.
    pub fn id(&self) -> Entity {
        self.id
    }

    /// Returns the roots of its models, in the order of their indices.
    pub fn models(&self) -> &'w [Entity] {
        self.found.models()
    }

    /// Returns how many models there are.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Returns the element type of its parameters.
    pub fn dtype(&self) -> Dtype {
        self.found.dtype()
    }

    /// Returns a model by its index.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn model(&self, index: usize) -> Result<ModuleRef<'w>, AccessError> {
        let root = self.models().get(index).copied();
        let none = AccessError::NoModel { index, models: self.len() };
        ModuleRef::new(self.world, root.ok_or(none)?)
    }

    /// Returns the gradient of what the last forward pass was called with, if it was asked for: [`step::input_gradient`].
    ///
    /// # Errors
    ///
    /// As [`step::input_gradient`].
    pub fn input_gradient<T: Element>(&self) -> Result<Option<ArrayD<T>>, StepError> {
        step::input_gradient(self.world, self.id)
    }

    /// Returns the scale of each model: [`amp::get_scale`].
    ///
    /// # Errors
    ///
    /// If a model has no scaler.
    pub fn get_scale(&self) -> Result<Array1<f64>, ScalerError> {
        amp::get_scale(self.world, self.id)
    }
}
