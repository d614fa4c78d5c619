//! [`think`]: brains read a component of their bodies and write another one.

use core::any::type_name;
use core::marker::PhantomData;

use bevy_ecs::change_detection::Tick;
use bevy_ecs::component::Mutable;
use bevy_ecs::error::{BevyError, Severity};
use bevy_ecs::prelude::*;
use bevy_ecs::query::QueryState;
use bevy_ecs::world::WorldId;
use bytemuck::Pod;
use ndarray::{ArrayD, ArrayView2, ArrayViewMut2, IxDyn};

use crate::bevy::brains::body_list::Bodies;
use crate::bevy::brains::commands::module_name;
use crate::bevy::budget::TileWorkers;
use crate::bevy::participation::ThinkEvery;
use crate::bevy::training::of_one;
use crate::bevy::turns::Turns;
use crate::components::module::mode::Mode;
use crate::components::population::Population;
use crate::systems::execute::step::{SomeCall, StepError, forward_into, forward_some};
use crate::systems::structure::mode::no_grad;
use crate::systems::structure::sign::SignError;

/// Why brains cannot think. No body's output is written then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ThinkError {
    /// The entity is no population, or a model of it is none.
    #[error(transparent)]
    Population(#[from] SignError),
    /// A component is no row of numbers.
    #[error("expected a component of f32 numbers, got `{component}` of {bytes} bytes")]
    Bytes {
        /// Its type.
        component: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// The models do not take what they are given, or give something else.
    #[error(
        "`{brain}` cannot think from `{input}` ({features} numbers) to `{output}` ({numbers} numbers): \
         {source}"
    )]
    Step {
        /// The type of the root of the first model.
        brain: &'static str,
        /// The type of the bodies' input.
        input: &'static str,
        /// How many numbers it has.
        features: usize,
        /// The type of the bodies' output.
        output: &'static str,
        /// How many numbers it has.
        numbers: usize,
        /// What is wrong.
        source: Box<StepError>,
    },
    /// A recurrent model has to give two values.
    #[error("expected `{brain}` to give an output and a state, got {given} values")]
    Results {
        /// The type of the root of the first model.
        brain: &'static str,
        /// How many values it gives.
        given: usize,
    },
}

/// Makes a system in which the brains of a population think: each reads `In` of its body and writes `Out` there. A body
/// that has no `Out` yet gets one.
///
/// `In` and `Out` are structs of `f32`, vectors of glam among them: `#[derive(Component, Clone, Copy, Pod, Zeroable)]` with
/// `#[repr(C)]`. A model gets the numbers of `In` in their order, `[features]`, and gives as many as `Out` has.
///
/// A model without a body, or whose body has no `In`, does not think: it is made inactive until it has one, so training
/// passes it over as well. Bodies may lie in any tables, and move. Nothing is kept for `backward`. With
/// [`ThinkEvery`] on the population's entity, each thinks every so many ticks, as many of them in each tick.
///
/// # Errors
///
/// The system gives [`ThinkError`] with [`Severity::Warning`].
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::*;
/// use bytemuck::{Pod, Zeroable};
/// use neurarch::plugin::{BrainCommands, think};
/// use neurarch::prelude::*;
///
/// #[derive(Component, Clone, Copy, Pod, Zeroable)]
/// #[repr(C)]
/// struct Sight {
///     food: [f32; 2],
///     wall: [f32; 2],
/// }
///
/// #[derive(Component, Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
/// #[repr(C)]
/// struct Steer([f32; 2]);
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2));
/// let brains = world.spawn_population(&brain, 1, Seed(7))?.id();
/// for i in 0..10 {
///     let sight = Sight { food: [i as f32, 1.0], wall: [0.0, 3.0] };
///     world.commands().spawn((sight, Steer([0.0; 2]))).with_brain(brains);
/// }
/// world.flush();
/// let mut schedule = Schedule::default();
/// schedule.add_systems(think::<Sight, Steer>(brains));
/// schedule.run(&mut world);
/// assert!(world.query::<&Steer>().iter(&world).all(|steer| *steer != Steer([0.0; 2])));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn think<In, Out>(
    brains: Entity,
) -> impl FnMut(&mut World) -> Result<(), BevyError> + Send + Sync + 'static
where
    In: Component + Pod,
    Out: Component<Mutability = Mutable> + Pod,
{
    let mut thought = Thought::<In, Out>::new(brains);
    move |world: &mut World| {
        let made = thought.gather(world).and_then(|any| match any {
            true => thought.forward(world).map(|()| thought.scatter(world)),
            false => Ok(()),
        });
        made.map_err(|error| BevyError::new(Severity::Warning, error))
    }
}

/// What a population thinks from and to, from one tick to the next: a steady tick allocates nothing.
pub(crate) struct Thought<In: Component, Out: Component<Mutability = Mutable>> {
    brains: Entity,
    queries: Option<(WorldId, Queries<In, Out>)>,
    /// The body of each model as of the last look.
    bodies: Vec<Entity>,
    /// Whether each model has something to think from, now and at the last look.
    sees: Vec<bool>,
    saw: Vec<bool>,
    /// Whether each model thinks: it is active, too.
    thinks: Vec<bool>,
    /// Whether each model's output is of this tick.
    is_due: Vec<bool>,
    /// At which tick which model thinks, where a population has [`ThinkEvery`].
    turns: Turns,
    staggered: ArrayD<f32>,
    /// When modes were last looked at.
    looked: Option<Tick>,
    inputs: Vec<f32>,
    pub(crate) outputs: Vec<f32>,
    of: PhantomData<fn(In) -> Out>,
}

struct Queries<In: Component, Out: Component<Mutability = Mutable>> {
    inputs: QueryState<&'static In>,
    outputs: QueryState<&'static mut Out>,
    modes: QueryState<(&'static Mode, Has<Idle>)>,
    changed: QueryState<(), Changed<Mode>>,
}

/// A model that [`think`] made inactive, since there is nothing that it could think from.
#[derive(Component)]
#[component(storage = "SparseSet")]
struct Idle;

impl<In, Out> Thought<In, Out>
where
    In: Component + Pod,
    Out: Component<Mutability = Mutable> + Pod,
{
    pub(crate) const FEATURES: usize = size_of::<In>() / size_of::<f32>();
    pub(crate) const NUMBERS: usize = size_of::<Out>() / size_of::<f32>();

    pub(crate) fn new(brains: Entity) -> Self {
        Thought {
            brains,
            queries: None,
            bodies: Vec::new(),
            sees: Vec::new(),
            saw: Vec::new(),
            thinks: Vec::new(),
            is_due: Vec::new(),
            turns: Turns::default(),
            staggered: ArrayD::default(IxDyn(&[0])),
            looked: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            of: PhantomData,
        }
    }

    /// Copies the inputs of all models, in the order of their indices; says whether any model thinks.
    pub(crate) fn gather(&mut self, world: &mut World) -> Result<bool, ThinkError> {
        check::<In>()?;
        check::<Out>()?;
        let is_changed = Bodies::follow(world, self.brains)?;
        let id = world.id();
        if self.queries.as_ref().is_none_or(|(known, _)| *known != id) {
            let queries = Queries {
                inputs: world.query(),
                outputs: world.query(),
                modes: world.query(),
                changed: world.query_filtered(),
            };
            (self.queries, self.looked) = (Some((id, queries)), None);
        }
        let Some((_, queries)) = &mut self.queries else { return Ok(false) };
        if let Some(bodies) = world.get::<Bodies>(self.brains) {
            self.bodies.clone_from(bodies.of());
        }
        queries.inputs.update_archetypes(world);
        let models = self.bodies.len();
        self.inputs.resize(models * Self::FEATURES, 0.0);
        self.outputs.resize(models * Self::NUMBERS, 0.0);
        std::mem::swap(&mut self.sees, &mut self.saw);
        self.sees.clear();
        let rows = self.inputs.chunks_exact_mut(Self::FEATURES);
        for (&body, row) in self.bodies.iter().zip(rows) {
            let input = queries.inputs.get_manual(world, body);
            match input {
                Ok(input) => {
                    bytemuck::cast_slice_mut(row).copy_from_slice(bytemuck::bytes_of(input));
                }
                Err(_) => row.fill(0.0),
            }
            self.sees.push(input.is_ok());
        }
        self.toggle(world, is_changed);
        self.is_due.clone_from(&self.thinks);
        Ok(self.thinks.contains(&true))
    }

    /// Makes models inactive that have nothing to think from, and active again when they have. Does nothing if they are as
    /// they were, which a mark a model tells.
    fn toggle(&mut self, world: &mut World, is_changed: bool) {
        let Some((_, queries)) = &mut self.queries else { return };
        queries.changed.update_archetypes(world);
        let now = world.read_change_tick();
        let is_written = |looked| !queries.changed.is_empty(world, looked, now);
        if !is_changed && self.sees == self.saw && !self.looked.is_none_or(is_written) {
            return;
        }
        queries.modes.update_archetypes(world);
        let Some(found) = world.get::<Population>(self.brains) else { return };
        let mut changes = Vec::new();
        self.thinks.clear();
        for (&sees, &root) in self.sees.iter().zip(found.models()) {
            let (is_inactive, is_idle) = match queries.modes.get_manual(world, root) {
                Ok((mode, is_idle)) => (mode.inactive, is_idle),
                Err(_) => (true, false),
            };
            if sees && is_idle || !sees && !is_inactive {
                changes.push((root, sees));
            }
            self.thinks.push(sees && (!is_inactive || is_idle));
        }
        for (root, sees) in changes {
            let Ok(mut root) = world.get_entity_mut(root) else { continue };
            if let Some(mut mode) = root.get_mut::<Mode>() {
                mode.inactive = !sees;
            }
            match sees {
                true => drop(root.remove::<Idle>()),
                false => drop(root.insert(Idle)),
            }
        }
        self.looked = Some(world.increment_change_tick());
    }

    fn forward(&mut self, world: &mut World) -> Result<(), ThinkError> {
        let every = world.get::<ThinkEvery>(self.brains).map_or(1, |every| every.0.max(1));
        if every > 1 && self.forward_some(world, every)? {
            return Ok(());
        }
        let models = self.bodies.len();
        let x = ArrayView2::from_shape((models, Self::FEATURES), &self.inputs);
        let y = ArrayViewMut2::from_shape((models, Self::NUMBERS), &mut self.outputs);
        let (Ok(x), Ok(y)) = (x, y) else { return Ok(()) };
        let made = no_grad(world, |world| forward_into(world, self.brains, x, y));
        made.map_err(|source| self.error(world, source))
    }

    /// Runs the models whose turn it is; says whether their outputs are what bodies take.
    fn forward_some(&mut self, world: &mut World, every: u32) -> Result<bool, ThinkError> {
        let Some(found) = world.get::<Population>(self.brains) else { return Ok(false) };
        self.turns.follow(found, every);
        let now = (self.turns.tick % u64::from(every)) as u32;
        self.turns.tick += 1;
        let thinks = self.thinks.iter().zip(&self.turns.turns);
        self.is_due.clear();
        self.is_due.extend(thinks.map(|(&thinks, &turn)| thinks && turn == now));
        let models = self.bodies.len();
        let x = ArrayView2::from_shape((models, Self::FEATURES), &self.inputs);
        let Ok(x) = x else { return Ok(false) };
        let workers = world.get_resource::<TileWorkers>().copied().unwrap_or_default().unlimited();
        let (population, x, y) = (self.brains, x.into(), &mut self.staggered);
        let call = SomeCall { population, x, is_due: &self.is_due, y };
        let made = forward_some(world, &mut [call], &workers);
        made.map_err(|error| self.error(world, of_one(error)))?;
        if self.staggered.shape() != [models, Self::NUMBERS] {
            return Ok(false);
        }
        self.outputs.iter_mut().zip(&self.staggered).for_each(|(own, &y)| *own = y);
        Ok(true)
    }

    /// Copies the outputs of the models that think to their bodies.
    pub(crate) fn scatter(&mut self, world: &mut World) {
        let Some((_, queries)) = &mut self.queries else { return };
        let rows = self.outputs.chunks_exact(Self::NUMBERS);
        let mut missing = Vec::new();
        for ((&body, &is_due), row) in self.bodies.iter().zip(&self.is_due).zip(rows) {
            if !is_due {
                continue;
            }
            let output = bytemuck::pod_read_unaligned(bytemuck::cast_slice(row));
            match queries.outputs.get_mut(world, body) {
                Ok(mut own) => *own = output,
                Err(_) => missing.push((body, output)),
            }
        }
        for (body, output) in missing {
            if let Ok(mut body) = world.get_entity_mut(body) {
                body.insert::<Out>(output);
            }
        }
    }

    /// Says what cannot be thought.
    pub(crate) fn error(&self, world: &World, source: StepError) -> ThinkError {
        let (input, output) = (type_name::<In>(), type_name::<Out>());
        let (features, numbers) = (Self::FEATURES, Self::NUMBERS);
        let source = Box::new(source);
        ThinkError::Step { brain: self.brain(world), input, features, output, numbers, source }
    }

    /// Returns the type of the root of the first model.
    pub(crate) fn brain(&self, world: &World) -> &'static str {
        let first = world.get::<Population>(self.brains).and_then(|of| of.models().first());
        module_name(world, first.copied()).unwrap_or("Population")
    }

    /// Returns the inputs, `[models, features]`.
    pub(crate) fn inputs(&self) -> &[f32] {
        &self.inputs
    }

    /// Returns whether each model thinks, by index.
    pub(crate) fn thinks(&self) -> &[bool] {
        &self.thinks
    }
}

/// Checks that a component is a row of numbers.
pub(crate) fn check<C: Pod>() -> Result<(), ThinkError> {
    let bytes = size_of::<C>();
    match bytes > 0 && bytes.is_multiple_of(size_of::<f32>()) {
        true => Ok(()),
        false => Err(ThinkError::Bytes { component: type_name::<C>(), bytes }),
    }
}
