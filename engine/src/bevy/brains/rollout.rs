//! [`Rollout`]: what brains saw, did and got in their last ticks.

use bevy_ecs::prelude::*;

use crate::bevy::brains::bodies::Brain;
use crate::bevy::turns::places_before;
use crate::components::population::Population;
use crate::components::population::tree::Model;

/// What a body got for what it did in this tick: a component of it.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq)]
pub struct Reward {
    /// The reward.
    pub reward: f32,
    /// Whether nothing that comes later follows from it: the episode ends. Source: gymnasium's `terminated`.
    pub terminated: bool,
}

impl From<f32> for Reward {
    fn from(reward: f32) -> Self {
        Reward { reward, terminated: false }
    }
}

/// A tick of a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Experience<In, A> {
    /// What it saw.
    pub observation: In,
    /// What it did.
    pub action: A,
    /// What it got.
    pub reward: Reward,
}

/// The last ticks of each model of a population: a ring as columns, `[models, steps]`, and a component of the population's
/// entity. [`record`] writes it.
///
/// A model that is born in another one's place has none. A steady tick allocates nothing.
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::*;
/// use neurarch::plugin::{BrainCommands, Discrete, Reward, Rollout, record};
/// use neurarch::prelude::*;
///
/// #[derive(Component, Clone, Copy, Debug, PartialEq)]
/// struct Sight(f32);
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(1, 2), 1, Seed(1))?.id();
/// world.entity_mut(brains).insert(Rollout::<Sight, Discrete<2>>::new(8));
/// let body = world.spawn((Sight(0.5), Discrete::<2>(1), Reward::from(3.0))).id();
/// let first = world.population(brains)?.models()[0];
/// world.commands().entity(body).clone_brain(first);
/// world.flush();
/// let mut schedule = Schedule::default();
/// schedule.add_systems(record::<Sight, Discrete<2>>);
/// (0..10).for_each(|_| schedule.run(&mut world));
/// let rollout = world.get::<Rollout<Sight, Discrete<2>>>(brains).unwrap();
/// assert_eq!((rollout.count(0), rollout.count(1)), (0, 8)); // The first model has no body.
/// assert_eq!(rollout.steps_of(1).last().unwrap().observation, Sight(0.5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Component, Clone, Debug, Default, PartialEq)]
pub struct Rollout<In: Send + Sync + 'static, A: Send + Sync + 'static> {
    steps: usize,
    /// `[models, steps]`.
    observations: Vec<In>,
    actions: Vec<A>,
    rewards: Vec<Reward>,
    /// `[models]`: how many ticks were pushed since the ring was empty.
    pushed: Vec<u64>,
    /// Whose they are, and as of which version and next number of the population.
    models: Vec<Entity>,
    of: Option<(u64, u64)>,
    /// `[models]`: who learns from a copy of its ticks now.
    pub(super) learning: Vec<bool>,
}

impl<In, A> Rollout<In, A>
where
    In: Copy + Send + Sync + 'static,
    A: Copy + Send + Sync + 'static,
{
    /// Makes a ring of so many ticks a model; 0 is 1.
    pub fn new(steps: usize) -> Self {
        Rollout {
            steps: steps.max(1),
            observations: Vec::new(),
            actions: Vec::new(),
            rewards: Vec::new(),
            pushed: Vec::new(),
            models: Vec::new(),
            of: None,
            learning: Vec::new(),
        }
    }

    /// Returns for how many ticks of a model there is room.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Counts the ticks of a model, by its index, that are kept.
    pub fn count(&self, model: usize) -> usize {
        self.pushed.get(model).map_or(0, |&pushed| pushed.min(self.steps as u64) as usize)
    }

    /// Lists the ticks of a model, by its index, from the oldest to the newest.
    pub fn steps_of(&self, model: usize) -> impl Iterator<Item = Experience<In, A>> {
        let pushed = self.pushed.get(model).copied().unwrap_or(0);
        let first = pushed - self.count(model) as u64;
        (first..pushed).map(move |tick| {
            let at = self.place(model, tick);
            let (observation, action) = (self.observations[at], self.actions[at]);
            Experience { observation, action, reward: self.rewards[at] }
        })
    }

    /// Forgets the ticks of a model, by its index.
    pub fn clear(&mut self, model: usize) {
        if let Some(pushed) = self.pushed.get_mut(model) {
            *pushed = 0;
        }
    }

    fn place(&self, model: usize, tick: u64) -> usize {
        model * self.steps + (tick % self.steps as u64) as usize
    }

    /// Adds a tick of a model, by its index; the oldest makes room.
    fn push(&mut self, model: usize, of: Experience<In, A>) {
        let Some(&pushed) = self.pushed.get(model) else { return };
        let all = self.models.len() * self.steps;
        if self.observations.len() < all {
            // What fills the places of those who did not push yet is never read.
            self.observations.resize(all, of.observation);
            self.actions.resize(all, of.action);
            self.rewards.resize(all, of.reward);
        }
        let at = self.place(model, pushed);
        self.observations[at] = of.observation;
        self.actions[at] = of.action;
        self.rewards[at] = of.reward;
        self.pushed[model] = pushed + 1;
    }

    /// Follows models that came, went or have other indices.
    fn follow(&mut self, population: &Population) {
        let now = Some((population.version(), population.next_number()));
        if self.of == now {
            return;
        }
        let before = places_before(&self.models, self.of.map(|(_, number)| number), population);
        self.of = now;
        let others = before.iter().copied().enumerate().filter(|(at, place)| *place != Some(*at));
        let others: Vec<_> = others
            .map(|(at, place)| {
                let ticks: Vec<_> =
                    place.into_iter().flat_map(|place| self.steps_of(place)).collect();
                (at, ticks, place.is_some_and(|place| self.learning[place]))
            })
            .collect();
        let all = before.len() * self.steps;
        self.observations.truncate(all);
        self.actions.truncate(all);
        self.rewards.truncate(all);
        self.pushed.resize(before.len(), 0);
        self.learning.resize(before.len(), false);
        self.models.clear();
        self.models.extend_from_slice(population.models());
        for (at, ticks, learns) in others {
            self.clear(at);
            self.learning[at] = learns;
            ticks.into_iter().for_each(|tick| self.push(at, tick));
        }
    }
}

/// Writes down the tick of every body with a [`Brain`], an `In`, an `A` and a [`Reward`], in the [`Rollout`] of the brain's
/// population, if it has one: a system for [`StepSystems::Loss`](crate::plugin::StepSystems::Loss).
pub fn record<In: Component + Copy, A: Component + Copy>(
    bodies: Query<(&Brain, &In, &A, &Reward)>,
    models: Query<&Model>,
    mut rollouts: Query<(&Population, &mut Rollout<In, A>)>,
) {
    for (population, mut rollout) in &mut rollouts {
        rollout.bypass_change_detection().follow(population);
    }
    for (brain, &observation, &action, &reward) in &bodies {
        let Ok(model) = models.get(brain.id()) else { continue };
        if let Ok((_, mut rollout)) = rollouts.get_mut(model.population) {
            rollout.push(model.index as usize, Experience { observation, action, reward });
        }
    }
}
