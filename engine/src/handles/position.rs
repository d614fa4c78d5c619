//! [`PositionMut`]: the module at a path of all models of a population.

use core::ops::{Deref, DerefMut};

use bevy_ecs::prelude::*;

use crate::handles::TargetMut;
use crate::systems::execute::hooks::Target;
use crate::systems::optim::insert;
use crate::systems::structure::access::AccessError;

/// The module at a path of all models of a population: `brains.at("0")`.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2));
/// let mut brains = world.spawn_population(&brain, 100, Seed(7))?;
///
/// // The first layer of every model learns at a rate of its own.
/// brains.insert(SGD::default())?;
/// brains.at("0").insert_with(|model| SGD { lr: 1e-3 * (1 + model) as f64, ..SGD::default() })?;
/// let hidden = brains.at("0").forward(&ndarray::Array2::<f32>::ones((100, 4)))?;
/// assert_eq!(hidden.shape(), [100, 16]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A marker lets systems find a layer, and its parameters, in all models:
///
/// ```
/// use neurarch::bevy_ecs::prelude::*;
/// use neurarch::bevy_ecs::schedule::Schedule;
/// use neurarch::prelude::*;
///
/// #[derive(Component, Clone)]
/// struct Retina;
///
/// fn weigh(layers: Query<Entity, With<Retina>>, parameters: Parameters) -> Result {
///     for layer in &layers {
///         assert_eq!(parameters.parameter::<f32>(layer, "weight")?.shape(), [16, 4]);
///     }
///     assert_eq!(layers.iter().len(), 100);
///     Ok(())
/// }
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2));
/// world.spawn_population(&brain, 100, Seed(7))?.at("0").insert(Retina)?;
/// let mut schedule = Schedule::default();
/// schedule.add_systems(weigh);
/// schedule.run(&mut world);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PositionMut<'w> {
    pub(super) handle: TargetMut<'w>,
}

impl<'w> Deref for PositionMut<'w> {
    type Target = TargetMut<'w>;

    fn deref(&self) -> &TargetMut<'w> {
        &self.handle
    }
}

impl DerefMut for PositionMut<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.handle
    }
}

impl<'w> PositionMut<'w> {
    pub(crate) fn new(world: &'w mut World, id: Entity, path: &str) -> Self {
        let target = Target::Population(id, path.to_owned());
        PositionMut { handle: TargetMut { world, target } }
    }

    /// Inserts a component into the module of every model.
    ///
    /// # Errors
    ///
    /// If a model has no such module.
    pub fn insert<C: Component + Clone>(&mut self, component: C) -> Result<&mut Self, AccessError> {
        self.insert_with(|_| component.clone())
    }

    /// Inserts a component of its own into the module of every model, by the model's index.
    ///
    /// # Errors
    ///
    /// If a model has no such module.
    pub fn insert_with<C: Component>(
        &mut self,
        component: impl Fn(usize) -> C,
    ) -> Result<&mut Self, AccessError> {
        insert::insert_with(self.handle.world, self.handle.target.clone(), component)?;
        Ok(self)
    }
}
