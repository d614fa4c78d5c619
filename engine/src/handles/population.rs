//! [`PopulationMut`]: a population that can be changed.

use core::ops::{Deref, DerefMut};

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, ArrayView, Dimension};

use crate::components::optimizer::OptimizerComponent;
use crate::handles::{ModuleMut, PopulationRef, PositionMut, TargetMut};
use crate::kernels::ir::dtype::{Dtype, Element};
use crate::systems::execute::hooks::Target;
use crate::systems::init;
use crate::systems::optim::insert;
use crate::systems::structure::access::AccessError;
use crate::systems::structure::sign::SignError;
use crate::systems::structure::spawn::SpawnError;
use crate::systems::structure::{access, mode, shared, sign, spawn};

/// A population that can be changed: all of its models at once. [`NeurarchWorld::spawn_population`] returns one, as bevy's
/// `spawn` returns an `EntityWorldMut`; [`NeurarchWorld::population_mut`] makes one of a population's entity.
///
/// Once the population is despawned, its methods give errors.
///
/// [`NeurarchWorld::spawn_population`]: crate::NeurarchWorld::spawn_population
/// [`NeurarchWorld::population_mut`]: crate::NeurarchWorld::population_mut
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2));
/// let mut brains = world.spawn_population(&brain, 100, Seed(7))?; // 100 entity trees, one blueprint
/// brains.insert_with(|model| Adam { lr: 1e-3 * (1 + model) as f64, ..Adam::default() })?;
///
/// // The numbers of one model, and of all.
/// assert_eq!(brains.model(0)?.parameter::<f32>("2.weight")?.shape(), [2, 16]);
/// assert_eq!(brains.stack::<f32>("2.weight")?.shape(), [100, 2, 16]);
///
/// // One position in all models, and one module of one model.
/// let hidden = brains.at("0").forward(&ndarray::Array2::<f32>::ones((100, 4)))?;
/// assert_eq!(hidden.shape(), [100, 16]);
/// let head = brains.model(7)?.at("2")?;
/// assert_eq!(head.as_ref()?.get::<Linear>(), Some(&Linear::new(16, 2)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PopulationMut<'w> {
    pub(super) handle: TargetMut<'w>,
    pub(super) id: Entity,
}

impl<'w> Deref for PopulationMut<'w> {
    type Target = TargetMut<'w>;

    fn deref(&self) -> &TargetMut<'w> {
        &self.handle
    }
}

impl DerefMut for PopulationMut<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.handle
    }
}

impl<'w> PopulationMut<'w> {
    pub(crate) fn new(world: &'w mut World, id: Entity) -> Result<Self, SignError> {
        PopulationRef::new(world, id)?;
        Ok(Self::of(world, id))
    }

    fn of(world: &'w mut World, id: Entity) -> Self {
        let target = Target::Population(id, String::new());
        PopulationMut { handle: TargetMut { world, target }, id }
    }

    /// Returns the population's entity, to keep.
    pub fn id(&self) -> Entity {
        self.id
    }

    /// Returns what can be read of it.
    ///
    /// # Errors
    ///
    /// If the population was despawned.
    pub fn as_ref(&self) -> Result<PopulationRef<'_>, SignError> {
        PopulationRef::new(self.handle.world, self.id)
    }

    /// Returns the roots of its models, in the order of their indices.
    ///
    /// # Errors
    ///
    /// If the population was despawned.
    pub fn models(&self) -> Result<&[Entity], SignError> {
        Ok(self.as_ref()?.models())
    }

    /// Returns a model by its index.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn model(&mut self, index: usize) -> Result<ModuleMut<'_>, AccessError> {
        let root = self.as_ref()?.model(index)?.id();
        ModuleMut::new(self.handle.world, root)
    }

    /// Returns the module at a dotted path of all models, to do something with all of them.
    pub fn at(&mut self, path: &str) -> PositionMut<'_> {
        PositionMut::new(self.handle.world, self.id, path)
    }

    /// Calls `run` with the population, in which forward passes keep nothing for `backward`: [`mode::no_grad`].
    pub fn no_grad<R>(&mut self, run: impl FnOnce(&mut PopulationMut<'_>) -> R) -> R {
        let id = self.id;
        mode::no_grad(self.handle.world, |world| run(&mut PopulationMut::of(world, id)))
    }

    /// Calls `run` with the population, in which forward passes and losses compute what torch's lists say in `dtype`:
    /// [`mode::autocast`].
    pub fn autocast<R>(
        &mut self,
        dtype: Dtype,
        run: impl FnOnce(&mut PopulationMut<'_>) -> R,
    ) -> R {
        let id = self.id;
        mode::autocast(self.handle.world, dtype, |world| run(&mut PopulationMut::of(world, id)))
    }

    /// Inserts a component into the root of every model.
    ///
    /// # Errors
    ///
    /// If the population was despawned.
    pub fn insert<C: Component + Clone>(&mut self, component: C) -> Result<&mut Self, AccessError> {
        self.insert_with(|_| component.clone())
    }

    /// Inserts a component of its own into the root of every model, by the model's index.
    ///
    /// # Errors
    ///
    /// If the population was despawned.
    pub fn insert_with<C: Component>(
        &mut self,
        component: impl Fn(usize) -> C,
    ) -> Result<&mut Self, AccessError> {
        insert::insert_with(self.handle.world, self.id, component)?;
        Ok(self)
    }

    /// Spawns `count` more models like the first of a population; gives their roots.
    ///
    /// # Errors
    ///
    /// If the population was despawned, or is empty.
    pub fn spawn_models(&mut self, count: usize) -> Result<Vec<Entity>, SpawnError> {
        let models = spawn::spawn_models(self.handle.world, self.id, count)?;
        init::initialize(self.handle.world, self.id, &models)?;
        Ok(models)
    }

    /// Settles a population: models that were edited get the parameters that their trees have now. Whatever takes
    /// `&mut World` does it by itself; systems that read with [`Parameters`] need it after edits: [`sign::refresh`].
    ///
    /// # Errors
    ///
    /// If the population was despawned, or a model's tree is no model any more. The other models are settled.
    ///
    /// [`Parameters`]: crate::systems::system_params::parameters::Parameters
    pub fn settle(&mut self) -> Result<(), SignError> {
        sign::refresh(self.handle.world, self.id)
    }

    /// Makes a parameter or buffer, by its dotted name, one for all models of a population: [`shared::share`].
    ///
    /// # Errors
    ///
    /// If a model has nothing of that name, or the models do not have it alike.
    ///
    /// # Example
    ///
    /// ```
    /// # use bevy_ecs::prelude::*;
    /// # use ndarray::prelude::*;
    /// # use neurarch::prelude::*;
    /// # let mut world = World::new();
    /// // An ensemble with one projection in common.
    /// let net = Sequential::new().push(Linear::new(5, 8)).push(ReLU).push(Linear::new(8, 2));
    /// let mut ensemble = world.spawn_population(&net, 10, Seed(1))?;
    /// ensemble.share_parameter("0.weight")?;
    /// ensemble.insert(Adam::default())?;
    /// let (x, classes) = (Array3::<f32>::ones((10, 4, 5)), Array2::<i64>::zeros((10, 4)));
    /// ensemble.train_step(&x, &classes, &CrossEntropyLoss::default())?;
    /// let weights = ensemble.stack::<f32>("0.weight")?;
    /// assert_eq!(weights.index_axis(Axis(0), 0), weights.index_axis(Axis(0), 9));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn share_parameter(&mut self, name: &str) -> Result<(), AccessError> {
        shared::share(self.handle.world, self.id, name)
    }

    /// Updates what the population shares by an optimizer of its own, whatever optimizers the models have:
    /// a component of the population's entity.
    ///
    /// # Errors
    ///
    /// If the population was despawned.
    ///
    /// Source: `torch.optim.SGD([shared_weight])` beside the optimizers of the models.
    pub fn insert_shared_optimizer(
        &mut self,
        optimizer: impl OptimizerComponent,
    ) -> Result<&mut Self, SignError> {
        self.as_ref()?;
        self.handle.world.entity_mut(self.id).insert(optimizer);
        Ok(self)
    }

    /// Gives each model its own copy of what the population shares: [`shared::unshare`].
    ///
    /// # Errors
    ///
    /// If a model has nothing of that name, or it is not shared.
    pub fn unshare_parameter(&mut self, name: &str) -> Result<(), AccessError> {
        shared::unshare(self.handle.world, self.id, name)
    }

    /// Copies a parameter or buffer of all models: `[models, ..]`.
    ///
    /// # Errors
    ///
    /// If the models do not all have it alike.
    pub fn stack<T: Element>(&mut self, name: &str) -> Result<ArrayD<T>, AccessError> {
        access::stack(self.handle.world, self.id, name, None)
    }

    /// Overwrites a parameter or buffer of all models with `[models, ..]`.
    ///
    /// # Errors
    ///
    /// If the models do not all have it alike, or the shape is another.
    pub fn unstack<T: Element, D: Dimension>(
        &mut self,
        name: &str,
        numbers: ArrayView<'_, T, D>,
    ) -> Result<(), AccessError> {
        access::unstack(self.handle.world, self.id, name, numbers.into_dyn())
    }
}
