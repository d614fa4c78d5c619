//! [`BrainCommands`] and [`Brains`]: brains are born and die from any system, at the next sync point.

use bevy_ecs::error::{BevyError, Severity};
use bevy_ecs::prelude::*;
use bevy_ecs::system::{Deferred, EntityCommands, SystemBuffer, SystemMeta, SystemParam};
use bevy_ecs::world::DeferredWorld;

use crate::bevy::brains::bodies::{Brain, BrainOf, retire};
use crate::components::module::registry::ModuleTypes;
use crate::components::population::Population;
use crate::components::population::parking::Parking;
use crate::components::population::tree::Model;
use crate::systems::evolve::park::{Birth, bear};
use crate::systems::evolve::{EvolveError, Noise};

/// Why a brain cannot be born. Bodies are left without a brain then. Commands report it with [`Severity::Warning`], so a
/// game goes on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BrainError {
    /// What is to be cloned is neither a model nor a body with a [`Brain`].
    #[error("clone_brain: expected a model or an entity with a `Brain`, got {parent}")]
    NotABrain {
        /// What was given.
        parent: Entity,
    },
    /// The population bears no such model.
    #[error("no `{module}` of population {population} can be born as a `Brain`: {source}")]
    Birth {
        /// The population.
        population: Entity,
        /// The type of the root of its first model; `Population` if it has none.
        module: &'static str,
        /// What is wrong.
        source: EvolveError,
    },
}

impl BrainError {
    fn birth(world: &World, population: Entity, source: EvolveError) -> Self {
        let first = world.get::<Population>(population).and_then(|of| of.models().first());
        let module = module_name(world, first.copied()).unwrap_or("Population");
        BrainError::Birth { population, module, source }
    }
}

/// Returns the type of a module.
pub(crate) fn module_name(world: &World, module: Option<Entity>) -> Option<&'static str> {
    let types = world.get_resource::<ModuleTypes>()?;
    Some(types.module(world.get_entity(module?).ok()?)?.type_name())
}

/// Gives bodies brains by [`Commands`], one at a time. [`Brains`] is faster for many.
///
/// A body that is gone when the commands are applied gets none, silently. One that has a brain already loses it: see
/// [`BrainOf`].
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::*;
/// use neurarch::plugin::{Brain, BrainCommands};
/// use neurarch::prelude::*;
///
/// #[derive(Resource)]
/// struct Species(Entity);
///
/// fn settle_island(mut commands: Commands, species: Res<Species>) {
///     commands.spawn_empty().with_brain(species.0);
/// }
///
/// fn multiply(mut commands: Commands, bodies: Query<Entity, With<Brain>>) {
///     for body in &bodies {
///         commands.spawn_empty().clone_brain(body);
///     }
/// }
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(3, 2), 1, Seed(1))?.id();
/// world.insert_resource(Species(brains));
/// let mut schedule = Schedule::default();
/// schedule.add_systems((settle_island, multiply).chain());
/// schedule.run(&mut world);
/// assert_eq!(world.query::<&Brain>().iter(&world).count(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait BrainCommands {
    /// Gives the entity a new brain of a population, with the first numbers that its modules ask for.
    fn with_brain(&mut self, population: Entity) -> &mut Self;

    /// Gives the entity a clone of a brain: of a model, or of the brain of a body.
    fn clone_brain(&mut self, parent: Entity) -> &mut Self;
}

impl BrainCommands for EntityCommands<'_> {
    fn with_brain(&mut self, population: Entity) -> &mut Self {
        let born = Born { body: self.id(), of: Origin::Population(population) };
        self.commands().queue(move |world: &mut World| give_birth(world, vec![born]));
        self
    }

    fn clone_brain(&mut self, parent: Entity) -> &mut Self {
        let born = Born { body: self.id(), of: Origin::Parent(parent, None) };
        self.commands().queue(move |world: &mut World| give_birth(world, vec![born]));
        self
    }
}

/// A body that is to have a brain.
#[derive(Clone, Copy, Debug)]
struct Born {
    body: Entity,
    of: Origin,
}

/// Where a brain comes from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Population(Entity),
    /// A model, or a body, and the noise that its child has.
    Parent(Entity, Option<Noise>),
}

/// Gives birth to and kills many brains in one call at the next sync point: a system parameter.
///
/// The brains that are killed die first, if their population [parks](crate::plugin::Parking) its dead: so those that are born
/// take over their rows. A clone has what its parent had, be it killed in the same call. In a population that does not park
/// they die last.
///
/// Bodies that are gone then get no brain, silently. Errors go where those of [`Commands`] go, with
/// [`Severity::Warning`]; all others are born and killed.
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::*;
/// use neurarch::plugin::{Brain, Brains, Parking};
/// use neurarch::prelude::*;
///
/// #[derive(Component)]
/// struct Energy(f32);
///
/// fn starve_and_breed(bodies: Query<(Entity, &Energy), With<Brain>>, mut brains: Brains) {
///     let best = bodies.iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0)).unwrap().0;
///     for (body, energy) in &bodies {
///         if energy.0 <= 0.0 {
///             brains.kill(body);
///             brains.clone_brain(body, best);
///         }
///     }
/// }
///
/// let mut world = World::new();
/// let species = world.spawn_population(&Linear::new(3, 2), 1, Seed(1))?.id();
/// world.entity_mut(species).insert(Parking::default());
/// let mut schedule = Schedule::default();
/// schedule.add_systems((
///     move |mut commands: Commands, mut brains: Brains| {
///         (0..3).for_each(|i| brains.spawn(commands.spawn(Energy(i as f32)).id(), species));
///     },
///     starve_and_breed,
/// ).chain());
/// schedule.run(&mut world);
/// assert_eq!(world.query::<&Brain>().iter(&world).count(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(SystemParam)]
pub struct Brains<'s> {
    queue: Deferred<'s, Turnover>,
}

impl Brains<'_> {
    /// Gives a body a new brain of a population, with the first numbers that its modules ask for.
    pub fn spawn(&mut self, body: Entity, population: Entity) {
        self.queue.born.push(Born { body, of: Origin::Population(population) });
    }

    /// Gives a body a clone of a brain: of a model, or of the brain of a body.
    pub fn clone_brain(&mut self, body: Entity, parent: Entity) {
        self.queue.born.push(Born { body, of: Origin::Parent(parent, None) });
    }

    /// Gives a body a clone of a brain with noise on its parameters: as [`clone_brain`](Self::clone_brain) does.
    pub fn mutate_brain(&mut self, body: Entity, parent: Entity, noise: Noise) {
        self.queue.born.push(Born { body, of: Origin::Parent(parent, Some(noise)) });
    }

    /// Kills a brain: a model, or the brain of a body, which stays. One that [outlives](crate::plugin::Outlives) dies, too.
    pub fn kill(&mut self, brain: Entity) {
        self.queue.killed.push(brain);
    }
}

/// Who is born and who dies at the next sync point.
#[derive(Default)]
struct Turnover {
    born: Vec<Born>,
    killed: Vec<Entity>,
}

impl SystemBuffer for Turnover {
    fn apply(&mut self, meta: &SystemMeta, world: &mut World) {
        self.queue(meta, world.into());
        world.flush();
    }

    fn queue(&mut self, _: &SystemMeta, mut world: DeferredWorld<'_>) {
        if self.born.is_empty() && self.killed.is_empty() {
            return;
        }
        let Turnover { born, killed } = std::mem::take(self);
        world.commands().queue(move |world: &mut World| turn_over(world, born, killed));
    }
}

/// Kills and gives birth.
fn turn_over(world: &mut World, born: Vec<Born>, killed: Vec<Entity>) -> Result<(), BevyError> {
    let brains = killed.into_iter().filter_map(|killed| brain_of(world, killed));
    let parks = |brain: &Entity| {
        let model = world.get::<Model>(*brain);
        model.is_some_and(|model| world.get::<Parking>(model.population).is_some())
    };
    // A body may get another brain before the one that it has dies: that one is meant.
    let (parked, others): (Vec<_>, Vec<_>) = brains.partition(parks);
    // Parents are looked up while all have their bodies.
    let found = born.into_iter().map(|born| match born.of {
        Origin::Parent(parent, noise) => match brain_of(world, parent) {
            Some(brain) => Born { of: Origin::Parent(brain, noise), ..born },
            None => born,
        },
        Origin::Population(_) => born,
    });
    let born = found.collect();
    retire(world, &parked);
    let made = give_birth(world, born);
    retire(world, &others);
    made
}

/// Returns a model, or the brain of a body.
fn brain_of(world: &World, entity: Entity) -> Option<Entity> {
    let entity = world.get_entity(entity).ok()?;
    let brain = entity.get::<Brain>().map(Brain::id);
    if entity.contains::<Model>() { Some(entity.id()) } else { brain }
}

/// Gives bodies their brains, those of each population in one call; gives the first error.
fn give_birth(world: &mut World, born: Vec<Born>) -> Result<(), BevyError> {
    let mut of: Vec<(Entity, Vec<Entity>, Vec<Birth>)> = Vec::new();
    let mut failed = None;
    for Born { body, of: origin } in born {
        if world.get_entity(body).is_err() {
            continue;
        }
        let (population, birth) = match origin {
            Origin::Population(population) => (population, Birth::Fresh),
            Origin::Parent(parent, noise) => {
                let brain = brain_of(world, parent);
                let model = brain.and_then(|brain| Some((brain, world.get::<Model>(brain)?)));
                match model {
                    Some((brain, model)) => {
                        let clone = Birth::CloneOf(brain);
                        let birth = noise.map_or(clone, |noise| Birth::MutantOf(brain, noise));
                        (model.population, birth)
                    }
                    None => {
                        failed = failed.or(Some(BrainError::NotABrain { parent }));
                        continue;
                    }
                }
            }
        };
        let place = of.iter().position(|(known, ..)| *known == population);
        let place = place.unwrap_or_else(|| {
            of.push((population, Vec::new(), Vec::new()));
            of.len() - 1
        });
        of[place].1.push(body);
        of[place].2.push(birth);
    }
    for (population, bodies, births) in of {
        match bear(world, population, &births) {
            Ok(brains) => {
                for (body, brain) in bodies.into_iter().zip(brains) {
                    if let Ok(mut brain) = world.get_entity_mut(brain) {
                        brain.insert(BrainOf(body));
                    }
                }
            }
            Err(source) => {
                failed = failed.or(Some(BrainError::birth(world, population, source)));
            }
        }
    }
    match failed {
        Some(error) => Err(BevyError::new(Severity::Warning, error)),
        None => Ok(()),
    }
}
