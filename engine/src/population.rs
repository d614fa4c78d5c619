//! [`NeurarchWorld`]: populations on bevy's [`World`], by one-line callers of the functions in
//! [`systems`](crate::systems).

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, ArrayView, Dimension};

use crate::components::module::{DynModule, Init, Module};
use crate::components::population::Population;
use crate::kernels::ir::dtype::{Dtype, Element};
use crate::kernels::ir::shape::Shape;
use crate::systems::execute::hooks::Target;
use crate::systems::init::{self, InitError, NoFans};
use crate::systems::optim::insert;
use crate::systems::optim::insert::InsertError;
use crate::systems::structure::access::AccessError;
use crate::systems::structure::sign::SignError;
use crate::systems::structure::spawn::SpawnError;
use crate::systems::structure::{access, shared, sign, spawn, tie};

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

/// Populations of models in a [`World`]. A population is known by its entity.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2));
/// let brains = world.spawn_population(&brain, 100, Seed(7))?; // 100 entity trees, one blueprint
/// world.insert_with(brains, |model| Adam { lr: 1e-3 * (1 + model) as f64, ..Adam::default() })?;
///
/// // A model is an entity, and so is each of its modules.
/// let first = world.models(brains)?[0];
/// assert_eq!(world.get::<Adam>(first).unwrap().lr, 1e-3);
/// let head = world.module(first, "2")?;
/// assert_eq!(world.get::<Linear>(head), Some(&Linear::new(16, 2)));
///
/// // The numbers of one model, and of all.
/// assert_eq!(world.parameter::<f32>(first, "2.weight")?.shape(), [2, 16]);
/// assert_eq!(world.stack::<f32>(brains, "2.weight")?.shape(), [100, 2, 16]);
///
/// world.despawn(first); // bevy's own: the last model moves into the gap.
/// assert_eq!(world.models(brains)?.len(), 99);
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
    ) -> Result<Entity, SpawnError>;

    /// Spawns a population as `settings` say.
    ///
    /// # Errors
    ///
    /// As [`spawn_population`](NeurarchWorld::spawn_population), and if parameters cannot have the dtype.
    fn spawn_population_with(
        &mut self,
        module: &dyn DynModule,
        settings: PopulationSettings,
    ) -> Result<Entity, SpawnError>;

    /// Spawns `count` more models like the first of a population; gives their roots.
    ///
    /// # Errors
    ///
    /// If the entity is no population, or an empty one.
    fn spawn_models(&mut self, population: Entity, count: usize)
    -> Result<Vec<Entity>, SpawnError>;

    /// Gives the roots of a population's models, in the order of their indices.
    ///
    /// # Errors
    ///
    /// If the entity is no population.
    fn models(&self, population: Entity) -> Result<&[Entity], SignError>;

    /// Settles a population: models that were edited get the parameters that their trees have now. Whatever takes
    /// `&mut World` does it by itself; systems that read with [`Parameters`] need it after edits: [`sign::refresh`].
    ///
    /// # Errors
    ///
    /// If the entity is no population, or a model's tree is no model any more. The other models are settled.
    ///
    /// [`Parameters`]: crate::systems::system_params::parameters::Parameters
    fn settle(&mut self, population: Entity) -> Result<(), SignError>;

    /// Gives every model of a population a component, on its root.
    ///
    /// # Errors
    ///
    /// If the entity is no population.
    fn insert<C: Component + Clone>(
        &mut self,
        population: Entity,
        component: C,
    ) -> Result<(), InsertError>;

    /// Gives every model of a population a component of its own, by its index.
    ///
    /// # Errors
    ///
    /// If the entity is no population.
    fn insert_with<C: Component>(
        &mut self,
        population: Entity,
        component: impl Fn(usize) -> C,
    ) -> Result<(), InsertError>;

    /// Gives the module at a dotted path of every model a component of its own, by the model's index.
    ///
    /// # Errors
    ///
    /// If the entity is no population or a model has no such module.
    fn insert_at_with<C: Component>(
        &mut self,
        population: Entity,
        path: &str,
        component: impl Fn(usize) -> C,
    ) -> Result<(), InsertError>;

    /// Gives the entity of the module at a dotted path of a model.
    ///
    /// # Errors
    ///
    /// If `root` is no model or has no such module.
    fn module(&mut self, root: Entity, path: &str) -> Result<Entity, AccessError>;

    /// Makes a parameter of a model the same as another, both by dotted names: [`tie::tie`].
    ///
    /// # Errors
    ///
    /// If there are no such parameters, or their types differ.
    fn tie(&mut self, root: Entity, tied: &str, owner: &str) -> Result<(), AccessError>;

    /// Gives a module of a model a second name in another of its modules: [`tie::share`].
    ///
    /// # Errors
    ///
    /// If they are not of one model, or the name cannot be.
    fn share(&mut self, parent: Entity, name: &str, owner: Entity) -> Result<Entity, SignError>;

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
    /// let ensemble = world.spawn_population(&net, 10, Seed(1))?;
    /// world.share_parameter(ensemble, "0.weight")?;
    /// world.insert(ensemble, Adam::default())?;
    /// let (x, classes) = (Array3::<f32>::ones((10, 4, 5)), Array2::<i64>::zeros((10, 4)));
    /// world.train_step(ensemble, &x, &classes, &CrossEntropyLoss::default())?;
    /// let weights = world.stack::<f32>(ensemble, "0.weight")?;
    /// assert_eq!(weights.index_axis(Axis(0), 0), weights.index_axis(Axis(0), 9));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn share_parameter(&mut self, population: Entity, name: &str) -> Result<(), AccessError>;

    /// Gives each model its own copy of what the population shares: [`shared::unshare`].
    ///
    /// # Errors
    ///
    /// If a model has nothing of that name, or it is not shared.
    fn unshare_parameter(&mut self, population: Entity, name: &str) -> Result<(), AccessError>;

    /// Lists the dotted names of a model's parameters.
    ///
    /// # Errors
    ///
    /// If `root` is no model.
    fn parameter_names(&mut self, root: Entity) -> Result<Vec<String>, AccessError>;

    /// Copies a parameter or buffer by its dotted name from a module on, such as a model's root: [`access::read`].
    ///
    /// It settles what was edited first, and so takes `&mut World`. A system, or whoever has `&World`, reads with
    /// [`Parameters`](crate::systems::system_params::parameters::Parameters), whose methods have the same names.
    ///
    /// # Errors
    ///
    /// If there is none of that name and element type.
    fn parameter<T: Element>(
        &mut self,
        module: Entity,
        name: &str,
    ) -> Result<ArrayD<T>, AccessError>;

    /// Overwrites a parameter or buffer by its dotted name from a module on, such as a model's root:
    /// [`access::write`]. A system writes with
    /// [`ParameterCommands`](crate::systems::system_params::commands::ParameterCommands).
    ///
    /// # Errors
    ///
    /// If there is none of that name, element type and shape.
    fn set_parameter<T: Element, D: Dimension>(
        &mut self,
        module: Entity,
        name: &str,
        numbers: ArrayView<'_, T, D>,
    ) -> Result<(), AccessError>;

    /// Copies the gradient of a parameter by its dotted name from a module on; `None` if it has none:
    /// [`access::gradient`].
    ///
    /// # Errors
    ///
    /// If there is no parameter of that name and element type.
    fn gradient<T: Element>(
        &mut self,
        module: Entity,
        name: &str,
    ) -> Result<Option<ArrayD<T>>, AccessError>;

    /// Copies a parameter or buffer of all models: `[models, ..]`.
    ///
    /// # Errors
    ///
    /// If the models do not all have it alike.
    fn stack<T: Element>(
        &mut self,
        population: Entity,
        name: &str,
    ) -> Result<ArrayD<T>, AccessError>;

    /// Overwrites a parameter or buffer of all models with `[models, ..]`.
    ///
    /// # Errors
    ///
    /// If the models do not all have it alike, or the shape is another.
    fn unstack<T: Element, D: Dimension>(
        &mut self,
        population: Entity,
        name: &str,
        numbers: ArrayView<'_, T, D>,
    ) -> Result<(), AccessError>;

    /// Gives a parameter new numbers, from a distribution that follows from its shape:
    /// `|shape| init::xavier_uniform(shape, 1.0)`.
    ///
    /// # Errors
    ///
    /// If there is no such parameter, or its shape has no fans.
    fn fill_with(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        init: impl Fn(&Shape) -> Result<Init, NoFans>,
    ) -> Result<(), InitError>;

    /// Gives a module and all below it the first numbers that their modules ask for, drawn anew:
    /// [`init::reset_parameters`].
    ///
    /// # Errors
    ///
    /// If there is no such module.
    fn reset_parameters(&mut self, target: impl Into<Target>) -> Result<(), AccessError>;
}

impl NeurarchWorld for World {
    fn spawn_population(
        &mut self,
        module: &impl Module,
        models: usize,
        Seed(seed): Seed,
    ) -> Result<Entity, SpawnError> {
        let settings = PopulationSettings { models, seed, ..PopulationSettings::default() };
        self.spawn_population_with(module, settings)
    }

    fn spawn_population_with(
        &mut self,
        module: &dyn DynModule,
        settings: PopulationSettings,
    ) -> Result<Entity, SpawnError> {
        let PopulationSettings { models, capacity, seed, dtype, first_number } = settings;
        let population = spawn::spawn_population(self, module, models, capacity, seed, dtype)?;
        init::number_from(self, population, first_number)?;
        let models = self.models(population)?.to_vec();
        init::initialize(self, population, &models)?;
        Ok(population)
    }

    fn spawn_models(
        &mut self,
        population: Entity,
        count: usize,
    ) -> Result<Vec<Entity>, SpawnError> {
        let models = spawn::spawn_models(self, population, count)?;
        init::initialize(self, population, &models)?;
        Ok(models)
    }

    fn models(&self, population: Entity) -> Result<&[Entity], SignError> {
        let found = self.get::<Population>(population);
        found.map(Population::models).ok_or(SignError::NotAPopulation(population))
    }

    fn settle(&mut self, population: Entity) -> Result<(), SignError> {
        sign::refresh(self, population)
    }

    fn insert<C: Component + Clone>(
        &mut self,
        population: Entity,
        component: C,
    ) -> Result<(), InsertError> {
        insert::insert_with(self, population, "", |_| component.clone())
    }

    fn insert_with<C: Component>(
        &mut self,
        population: Entity,
        component: impl Fn(usize) -> C,
    ) -> Result<(), InsertError> {
        insert::insert_with(self, population, "", component)
    }

    fn insert_at_with<C: Component>(
        &mut self,
        population: Entity,
        path: &str,
        component: impl Fn(usize) -> C,
    ) -> Result<(), InsertError> {
        insert::insert_with(self, population, path, component)
    }

    fn module(&mut self, root: Entity, path: &str) -> Result<Entity, AccessError> {
        access::module(self, root, path)
    }

    fn tie(&mut self, root: Entity, tied: &str, owner: &str) -> Result<(), AccessError> {
        tie::tie(self, root, tied, owner)
    }

    fn share(&mut self, parent: Entity, name: &str, owner: Entity) -> Result<Entity, SignError> {
        tie::share(self, parent, name, owner)
    }

    fn share_parameter(&mut self, population: Entity, name: &str) -> Result<(), AccessError> {
        shared::share(self, population, name)
    }

    fn unshare_parameter(&mut self, population: Entity, name: &str) -> Result<(), AccessError> {
        shared::unshare(self, population, name)
    }

    fn parameter_names(&mut self, root: Entity) -> Result<Vec<String>, AccessError> {
        access::parameter_names(self, root)
    }

    fn parameter<T: Element>(
        &mut self,
        module: Entity,
        name: &str,
    ) -> Result<ArrayD<T>, AccessError> {
        access::read(self, module, name, None)
    }

    fn set_parameter<T: Element, D: Dimension>(
        &mut self,
        module: Entity,
        name: &str,
        numbers: ArrayView<'_, T, D>,
    ) -> Result<(), AccessError> {
        access::write(self, module, name, numbers.into_dyn())
    }

    fn gradient<T: Element>(
        &mut self,
        module: Entity,
        name: &str,
    ) -> Result<Option<ArrayD<T>>, AccessError> {
        access::gradient(self, module, name)
    }

    fn stack<T: Element>(
        &mut self,
        population: Entity,
        name: &str,
    ) -> Result<ArrayD<T>, AccessError> {
        access::stack(self, population, name, None)
    }

    fn unstack<T: Element, D: Dimension>(
        &mut self,
        population: Entity,
        name: &str,
        numbers: ArrayView<'_, T, D>,
    ) -> Result<(), AccessError> {
        access::unstack(self, population, name, numbers.into_dyn())
    }

    fn fill_with(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        init: impl Fn(&Shape) -> Result<Init, NoFans>,
    ) -> Result<(), InitError> {
        init::fill_with(self, target, name, init)
    }

    fn reset_parameters(&mut self, target: impl Into<Target>) -> Result<(), AccessError> {
        init::reset_parameters(self, target)
    }
}
