//! [`NeurarchWorld`]: handles on bevy's [`World`].

use bevy_ecs::prelude::*;
use ndarray::{Array1, ArrayD};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::components::module::{DynModule, Module};
use crate::components::saved::{SavedError, SavedTypes};
use crate::components::scheduler::LRScheduler;
use crate::handles::{ModuleMut, ModuleRef, PopulationMut, PopulationRef, TargetMut};
use crate::kernels::ir::dtype::{Dtype, Element};
use crate::systems::compile::array::AnyInput;
use crate::systems::execute::hooks::Target;
use crate::systems::execute::step::{self, StepError, TrainStep};
use crate::systems::init;
use crate::systems::structure::access::AccessError;
use crate::systems::structure::sign::SignError;
use crate::systems::structure::spawn::SpawnError;
use crate::systems::structure::{mode, spawn};

/// What all random numbers of a population follow from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seed(pub u64);

/// How a population is spawned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PopulationSettings {
    /// How many models there are at first.
    pub models: usize,
    /// How many there is room for: spawning within it moves nothing. At least `models` is taken.
    pub capacity: usize,
    /// What all random numbers follow from.
    pub seed: u64,
    /// The element type of the parameters.
    pub dtype: Dtype,
    /// The number of the first model: models of one seed and number have the same random numbers in any
    /// population.
    pub first_number: u64,
}

impl Default for PopulationSettings {
    fn default() -> Self {
        PopulationSettings { models: 1, capacity: 0, seed: 0, dtype: Dtype::F32, first_number: 0 }
    }
}

/// What a [`World`] has more once neurarch is there: populations and their modules by handles.
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
/// let id = brains.id();
///
/// // A model is an entity, and so is each of its modules.
/// let first = world.population(id)?.models()[0];
/// assert_eq!(world.get::<Adam>(first).unwrap().lr, 1e-3);
/// let head = world.module_mut(first)?.at("2")?.id();
/// assert_eq!(world.get::<Linear>(head), Some(&Linear::new(16, 2)));
///
/// world.despawn(first); // bevy's own: the last model moves into the gap.
/// assert_eq!(world.population(id)?.len(), 99);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait NeurarchWorld {
    /// Spawns `models` models of `module`, with the first numbers that its modules ask for.
    ///
    /// # Errors
    ///
    /// If the module cannot be spawned, such as for a child's name with a dot.
    fn spawn_population(
        &mut self,
        module: &impl Module,
        models: usize,
        seed: Seed,
    ) -> Result<PopulationMut<'_>, SpawnError>;

    /// Spawns a population as `settings` say.
    ///
    /// # Errors
    ///
    /// As [`spawn_population`](NeurarchWorld::spawn_population), and if parameters cannot have the dtype.
    fn spawn_population_with(
        &mut self,
        module: &dyn DynModule,
        settings: PopulationSettings,
    ) -> Result<PopulationMut<'_>, SpawnError>;

    /// Returns a population, to be read.
    ///
    /// # Errors
    ///
    /// If the entity is no population.
    fn population(&self, population: Entity) -> Result<PopulationRef<'_>, SignError>;

    /// Returns a population, to be changed.
    ///
    /// # Errors
    ///
    /// If the entity is no population.
    fn population_mut(&mut self, population: Entity) -> Result<PopulationMut<'_>, SignError>;

    /// Returns a module of a model, to be read.
    ///
    /// # Errors
    ///
    /// If the entity is not there. One that is no module gives errors when something is done with it.
    fn module(&self, module: Entity) -> Result<ModuleRef<'_>, AccessError>;

    /// Returns a module of a model, to be changed.
    ///
    /// # Errors
    ///
    /// If the entity is not there. One that is no module gives errors when something is done with it.
    fn module_mut(&mut self, module: Entity) -> Result<ModuleMut<'_>, AccessError>;

    /// Returns whatever a hook can be registered at: a module's entity, `(population, path)`, or [`Target::All`].
    fn target_mut(&mut self, target: impl Into<Target>) -> TargetMut<'_>;

    /// Makes a training step of each of several populations at once: [`step::train_step_all`].
    ///
    /// # Errors
    ///
    /// As [`step::train_step_all`].
    fn train_step_all<L: Element>(
        &mut self,
        steps: &[TrainStep<'_>],
    ) -> Result<Vec<Array1<L>>, StepError>;

    /// Makes a forward pass of each of several populations at once: [`step::forward_all`].
    ///
    /// # Errors
    ///
    /// As [`step::forward_all`].
    fn forward_all<T: Element>(
        &mut self,
        calls: &[(Entity, AnyInput<'_>)],
    ) -> Result<Vec<ArrayD<T>>, StepError>;

    /// Calls `run`, in which forward passes keep nothing for `backward`: [`mode::no_grad`].
    fn no_grad<R>(&mut self, run: impl FnOnce(&mut World) -> R) -> R;

    /// Sets whether forward passes keep what `backward` needs: [`mode::set_grad_enabled`].
    fn set_grad_enabled(&mut self, is_enabled: bool);

    /// Calls `run`, in which forward passes and losses compute what torch's lists say in `dtype`: [`mode::autocast`].
    fn autocast<R>(&mut self, dtype: Dtype, run: impl FnOnce(&mut World) -> R) -> R;

    /// Returns whether there is autocast now: [`mode::is_autocast_enabled`].
    fn is_autocast_enabled(&self) -> bool;

    /// Lets checkpoints save modules of a type of your own: [`SavedTypes::register_module`].
    ///
    /// # Errors
    ///
    /// [`SavedError::NameTaken`] if another type has the name.
    fn register_module_type<M>(&mut self) -> Result<(), SavedError>
    where
        M: Module + Serialize + DeserializeOwned;

    /// Lets checkpoints save a component of your own on entities of models and populations: [`SavedTypes::register`].
    ///
    /// # Errors
    ///
    /// [`SavedError::NameTaken`] if another type has the name.
    fn register_saved<T>(&mut self) -> Result<(), SavedError>
    where
        T: Component + Clone + Serialize + DeserializeOwned;

    /// Lets checkpoints save schedulers of a type of your own: [`SavedTypes::register_scheduler`].
    ///
    /// # Errors
    ///
    /// [`SavedError::NameTaken`] if another type has the name.
    fn register_scheduler<R>(&mut self) -> Result<(), SavedError>
    where
        R: LRScheduler + Serialize + DeserializeOwned;
}

impl NeurarchWorld for World {
    fn spawn_population(
        &mut self,
        module: &impl Module,
        models: usize,
        Seed(seed): Seed,
    ) -> Result<PopulationMut<'_>, SpawnError> {
        let settings = PopulationSettings { models, seed, ..PopulationSettings::default() };
        self.spawn_population_with(module, settings)
    }

    fn spawn_population_with(
        &mut self,
        module: &dyn DynModule,
        settings: PopulationSettings,
    ) -> Result<PopulationMut<'_>, SpawnError> {
        let PopulationSettings { models, capacity, seed, dtype, first_number } = settings;
        let population = spawn::spawn_population(self, module, models, capacity, seed, dtype)?;
        init::number_from(self, population, first_number)?;
        let models = self.population(population)?.models().to_vec();
        init::initialize(self, population, &models)?;
        Ok(self.population_mut(population)?)
    }

    fn population(&self, population: Entity) -> Result<PopulationRef<'_>, SignError> {
        PopulationRef::new(self, population)
    }

    fn population_mut(&mut self, population: Entity) -> Result<PopulationMut<'_>, SignError> {
        PopulationMut::new(self, population)
    }

    fn module(&self, module: Entity) -> Result<ModuleRef<'_>, AccessError> {
        ModuleRef::new(self, module)
    }

    fn module_mut(&mut self, module: Entity) -> Result<ModuleMut<'_>, AccessError> {
        ModuleMut::new(self, module)
    }

    fn target_mut(&mut self, target: impl Into<Target>) -> TargetMut<'_> {
        TargetMut { world: self, target: target.into() }
    }

    fn train_step_all<L: Element>(
        &mut self,
        steps: &[TrainStep<'_>],
    ) -> Result<Vec<Array1<L>>, StepError> {
        step::train_step_all(self, steps)
    }

    fn forward_all<T: Element>(
        &mut self,
        calls: &[(Entity, AnyInput<'_>)],
    ) -> Result<Vec<ArrayD<T>>, StepError> {
        step::forward_all(self, calls)
    }

    fn no_grad<R>(&mut self, run: impl FnOnce(&mut World) -> R) -> R {
        mode::no_grad(self, run)
    }

    fn set_grad_enabled(&mut self, is_enabled: bool) {
        mode::set_grad_enabled(self, is_enabled);
    }

    fn autocast<R>(&mut self, dtype: Dtype, run: impl FnOnce(&mut World) -> R) -> R {
        mode::autocast(self, dtype, run)
    }

    fn is_autocast_enabled(&self) -> bool {
        mode::is_autocast_enabled(self)
    }

    fn register_module_type<M>(&mut self) -> Result<(), SavedError>
    where
        M: Module + Serialize + DeserializeOwned,
    {
        SavedTypes::register_module::<M>(self)
    }

    fn register_saved<T>(&mut self) -> Result<(), SavedError>
    where
        T: Component + Clone + Serialize + DeserializeOwned,
    {
        SavedTypes::register::<T>(self)
    }

    fn register_scheduler<R>(&mut self) -> Result<(), SavedError>
    where
        R: LRScheduler + Serialize + DeserializeOwned,
    {
        SavedTypes::register_scheduler::<R>(self)
    }
}
