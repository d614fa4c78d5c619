//! Predators and prey: what they see, how they move, and what they get for it.

use bevy_app::prelude::*;
use glam::Vec2;
use neurarch::bevy_ecs::prelude::*;
use neurarch::plugin::{
    ActionStream, ActionStreams, Discrete, Learn, NeurarchPlugin, Outlives, Reinforce, Reward,
    Rollout, StepSystems, TrainingBudget, categorical, nearest, record, reinforce, think,
};
use neurarch::prelude::*;

const TICK: f32 = 1.0 / 64.0;
/// Predators are faster, prey turns faster.
const MAX_SPEED: [f32; 2] = [0.45, 0.5];
const FORCE: [f32; 2] = [2.5, 2.5];
/// How near a predator has to come, and how far everybody sees.
const CATCH: f32 = 0.01;
const RANGE: f32 = 0.12;
/// What a predator gets for a catch.
const PRIZE: f32 = 2.0;
/// Cells as wide as everybody sees.
const CELLS: usize = 16;
/// How many ticks a brain learns from at once.
const WINDOW: usize = 16;

/// Which of the two species a body is of.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Species {
    Predator,
    Prey,
}

impl Species {
    pub(crate) const ALL: [Species; 2] = [Species::Predator, Species::Prey];
}

/// Where a body is, in `[-1, 1)²`: who leaves on one side comes in on the other.
#[derive(Component, Clone, Copy)]
pub(crate) struct Position(pub(crate) Vec2);

/// How far it gets in a second.
#[derive(Component, Clone, Copy, Default)]
pub(crate) struct Velocity(pub(crate) Vec2);

/// What it sees.
#[derive(Component, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Sight {
    /// From itself to the two nearest of the other species, in units of how far it sees.
    others: [Vec2; 2],
    /// Whether they are there.
    mask: Vec2,
    velocity: Vec2,
    /// How the nearest moves, beside its own velocity.
    drift: Vec2,
}

/// Who of the other species was nearest when it looked, and in which direction.
#[derive(Component, Clone, Copy, Default)]
pub(crate) struct Nearest(Option<(Entity, Vec2)>);

/// How much its brain would like each of its actions: nothing, or a push to one of four sides.
#[derive(Component, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Logits([f32; 5]);

/// What it does.
pub(crate) type Push = Discrete<5>;

/// The brains of a species: those that learn, and others as they were at first.
#[derive(Clone, Copy)]
pub(crate) struct Brains {
    pub(crate) trained: Entity,
    pub(crate) untrained: Entity,
}

/// What happens.
#[derive(Resource)]
pub(crate) struct Hunt {
    pub(crate) brains: [Brains; 2],
    pub(crate) tick: u64,
    pub(crate) catches: u64,
    /// What each species got in all.
    pub(crate) rewards: [f64; 2],
    pub(crate) learns: bool,
    seed: u64,
}

/// So many predators and prey in an app.
pub(crate) struct HuntPlugin {
    pub(crate) bodies: [usize; 2],
    pub(crate) seed: u64,
    pub(crate) budget: TrainingBudget,
}

impl Plugin for HuntPlugin {
    fn build(&self, app: &mut App) {
        app.add_plugins(NeurarchPlugin::default().with_budget(self.budget));
        let brain = Sequential::new().push(Linear::new(10, 16)).push(Tanh).push(Linear::new(16, 5));
        let brains = [0, 1].map(|species| {
            let [trained, untrained] = [0, 1].map(|_| {
                let seed = Seed(self.seed + species as u64);
                let brains = app.world_mut().spawn_population(&brain, self.bodies[species], seed);
                brains.expect("there is memory for small brains").id()
            });
            Brains { trained, untrained }
        });
        for (species, of) in Species::ALL.into_iter().zip(brains) {
            let mut trained = app.world_mut().population_mut(of.trained).expect("just spawned");
            trained.insert(Adam { lr: 0.01, ..Adam::default() }).expect("just spawned");
            let learn = Learn::new(CrossEntropyLoss::default());
            let rollout = Rollout::<Sight, Push>::new(WINDOW);
            let reinforce = Reinforce { gamma: 0.8, ..Reinforce::default() };
            let mut world = app.world_mut().entity_mut(of.trained);
            world.insert((learn, rollout, reinforce));
            for number in 0..self.bodies[species as usize] {
                let mut random = stream(self.seed, number as u64, species as u64);
                let place = Position(anywhere(&mut random));
                let own =
                    (Sight::default(), Nearest::default(), Logits::default(), Push::default());
                app.world_mut().spawn((
                    species,
                    place,
                    Velocity::default(),
                    own,
                    Reward::default(),
                ));
            }
            for brains in [of.trained, of.untrained] {
                let think = think::<Sight, Logits>(brains);
                app.add_systems(FixedUpdate, think.in_set(StepSystems::Forward));
            }
        }
        let hunt =
            Hunt { brains, tick: 0, catches: 0, rewards: [0.0; 2], learns: true, seed: self.seed };
        app.insert_resource(hunt);
        let learns = |hunt: Res<Hunt>| hunt.learns;
        app.configure_sets(FixedUpdate, StepSystems::Loss.run_if(learns));
        app.add_systems(
            FixedUpdate,
            (
                see.in_set(StepSystems::Observe),
                (act, hunt_down).chain().in_set(StepSystems::Act),
                (record::<Sight, Push>, reinforce::<Sight, Push>).chain().in_set(StepSystems::Loss),
            ),
        );
        give_brains(app.world_mut(), [true, true]);
    }
}

/// Gives all bodies trained or untrained brains, by species, and new places.
pub(crate) fn give_brains(world: &mut World, are_trained: [bool; 2]) {
    let seed = world.resource::<Hunt>().seed;
    let mut bodies = world.query::<(Entity, &Species)>();
    let mut bodies: Vec<_> = bodies.iter(world).map(|(body, &species)| (body, species)).collect();
    bodies.sort_unstable_by_key(|(body, _)| *body);
    for species in Species::ALL {
        let of = world.resource::<Hunt>().brains[species as usize];
        let brains = if are_trained[species as usize] { of.trained } else { of.untrained };
        let models = world.population(brains).expect("nobody despawns it").models().to_vec();
        let own = bodies.iter().filter(|(_, other)| *other == species);
        for (number, (&(body, _), model)) in own.zip(models).enumerate() {
            let place = anywhere(&mut stream(seed, number as u64, 7 + species as u64));
            world.entity_mut(body).insert((Position(place), Velocity::default()));
            world.entity_mut(model).insert((neurarch::plugin::BrainOf(body), Outlives));
        }
    }
}

fn stream(seed: u64, number: u64, tick: u64) -> ActionStream {
    ActionStream::new(seed ^ 0x4855_4e54, number, tick)
}

fn anywhere(random: &mut ActionStream) -> Vec2 {
    Vec2::new(random.uniform(), random.uniform()) * 2.0 - 1.0
}

/// Bodies by where they are.
#[derive(Default)]
struct Grid(Vec<Vec<(Entity, Vec2)>>);

impl Grid {
    fn along(x: f32) -> usize {
        (((x + 1.0) * 0.5 * CELLS as f32) as usize) % CELLS
    }

    fn fill(&mut self, bodies: impl Iterator<Item = (Entity, Vec2)>) {
        self.0.resize_with(CELLS * CELLS, Vec::new);
        self.0.iter_mut().for_each(Vec::clear);
        for (body, place) in bodies {
            self.0[Self::along(place.y) * CELLS + Self::along(place.x)].push((body, place));
        }
    }

    /// Lists who is near a place: how far, who, and in which direction.
    fn near(&self, place: Vec2) -> impl Iterator<Item = (f32, (Entity, Vec2))> {
        let around = |x: f32| (CELLS - 1..=CELLS + 1).map(move |by| (Self::along(x) + by) % CELLS);
        let cells = around(place.y).flat_map(move |y| around(place.x).map(move |x| (x, y)));
        let all = cells.flat_map(|(x, y)| &self.0[y * CELLS + x]);
        let all = all.map(move |&(body, other)| (body, wrapped(other - place)));
        let all = all.map(|(body, offset)| (offset.length(), (body, offset)));
        all.filter(|(distance, _)| *distance <= RANGE)
    }
}

/// The same place, or the shortest way, on the torus.
fn wrapped(offset: Vec2) -> Vec2 {
    let wrap = |x: f32| (x + 1.0).rem_euclid(2.0) - 1.0;
    Vec2::new(wrap(offset.x), wrap(offset.y))
}

type Bodies<'w, 's> = Query<'w, 's, (Entity, &'static Species, &'static Position)>;

fn see(
    bodies: Bodies,
    velocities: Query<&Velocity>,
    mut sights: Query<(Entity, &Species, &Position, &mut Sight, &mut Nearest)>,
    mut grids: Local<[Grid; 2]>,
) {
    for species in Species::ALL {
        let own = bodies.iter().filter(|(_, of, _)| **of == species);
        grids[species as usize].fill(own.map(|(body, _, place)| (body, place.0)));
    }
    let velocity = |body| velocities.get(body).map_or(Vec2::ZERO, |velocity| velocity.0);
    for (body, &species, place, mut sight, mut known) in &mut sights {
        let others = grids[1 - species as usize].near(place.0);
        let others = others.map(|(far, (other, offset))| (far, Some((other, offset))));
        let (others, mask) = nearest::<2, Option<(Entity, Vec2)>>(others);
        known.0 = others[0];
        let own = velocity(body);
        *sight = Sight {
            others: others.map(|other| other.map_or(Vec2::ZERO, |(_, offset)| offset / RANGE)),
            mask: mask.into(),
            velocity: own,
            drift: known.0.map_or(Vec2::ZERO, |(other, _)| velocity(other) - own),
        };
    }
}

/// Draws actions, and moves.
fn act(
    hunt: Res<Hunt>,
    streams: ActionStreams,
    mut bodies: Query<(Entity, &Species, &Logits, &mut Push, &mut Position, &mut Velocity)>,
) {
    for (body, &species, logits, mut push, mut place, mut velocity) in &mut bodies {
        let Some(mut random) = streams.of(body, hunt.tick) else { continue };
        push.0 = categorical(&mut random, &logits.0, None).unwrap_or(0) as u32;
        let side = [Vec2::ZERO, Vec2::X, Vec2::NEG_X, Vec2::Y, Vec2::NEG_Y][push.0 as usize];
        let speed = velocity.0 * 0.98 + side * FORCE[species as usize] * TICK;
        velocity.0 = speed.clamp_length_max(MAX_SPEED[species as usize]);
        place.0 = wrapped(place.0 + velocity.0 * TICK);
    }
}

/// A predator gets what it moved towards the prey that it saw, and more if it caught it; prey what it moved away from the
/// predator that it saw, and less if it was caught. It begins anew elsewhere then.
fn hunt_down(
    mut hunt: ResMut<Hunt>,
    mut places: Query<(&mut Position, &mut Velocity)>,
    mut bodies: Query<(Entity, &Species, &Nearest, &mut Reward)>,
) {
    hunt.tick += 1;
    let mut caught = Vec::new();
    for (body, &species, nearest, mut reward) in &mut bodies {
        *reward = Reward::default();
        let Some((other, offset)) = nearest.0 else { continue };
        let Ok([(own, velocity), (other, _)]) = places.get_many([body, other]) else { continue };
        let nearer = velocity.0.dot(offset.normalize_or_zero());
        reward.terminated = wrapped(own.0 - other.0).length() <= CATCH;
        reward.reward = nearer + if reward.terminated { PRIZE } else { 0.0 };
        if species == Species::Prey {
            reward.reward = -reward.reward;
            if reward.terminated {
                caught.push(body);
            }
        }
        hunt.rewards[species as usize] += f64::from(reward.reward);
    }
    hunt.catches += caught.len() as u64;
    for (number, body) in caught.into_iter().enumerate() {
        if let Ok((mut place, mut velocity)) = places.get_mut(body) {
            place.0 = anywhere(&mut stream(hunt.seed, number as u64, hunt.tick));
            velocity.0 = Vec2::ZERO;
        }
    }
}
