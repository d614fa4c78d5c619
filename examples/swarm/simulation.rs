//! Bodies that steer to moving goals: what they see, how they move, who dies and who is born.

use bevy_app::prelude::*;
use glam::Vec2;
use neurarch::bevy_ecs::prelude::*;
use neurarch::plugin::{ActionStream, Brain, Brains, NeurarchPlugin, Parking, StepSystems, think};
use neurarch::prelude::*;

/// How many goals there are; body `i` follows goal `i % GOALS`.
pub(crate) const GOALS: usize = 5;
/// The length of a tick, in seconds.
const TICK: f32 = 1.0 / 64.0;
const MAX_SPEED: f32 = 1.2;
/// So near a body has reached its goal.
const ARRIVED: f32 = 0.1;
const MAX_FORCE: f32 = 6.0;
/// A flock is who is in the same cell of a grid of so many by so many.
const CELLS: usize = 24;
/// So many ticks a body lives before it is judged.
const YOUTH: u32 = 96;
/// One in so many dies in each tick.
const DEATHS: usize = 100;
/// One in so many of those that are judged may be a parent.
const PARENTS: usize = 20;
const NOISE: f64 = 0.1;

/// Where a body is, in `[-1, 1]²`.
#[derive(Component, Clone, Copy)]
pub(crate) struct Position(pub(crate) Vec2);

/// How far it gets in a second.
#[derive(Component, Clone, Copy, Default)]
pub(crate) struct Velocity(pub(crate) Vec2);

/// Which goal it follows.
#[derive(Component, Clone, Copy)]
pub(crate) struct Follows(pub(crate) usize);

/// What it sees.
#[derive(Component, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Sight {
    /// From itself to its goal.
    goal: Vec2,
    velocity: Vec2,
    /// From itself to the middle of its flock.
    flock: Vec2,
    /// How its flock moves, beside its own velocity.
    drift: Vec2,
}

/// What it does: a force.
#[derive(Component, Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Steer(pub(crate) Vec2);

/// How well it does.
#[derive(Component, Clone, Copy, Default)]
pub(crate) struct Score {
    /// How far it is from its goal.
    pub(crate) distance: f32,
    /// How fast it comes nearer, as a mean that forgets; as fast as can be, while it is there.
    fitness: f32,
    /// In ticks.
    age: u32,
}

/// Where the goals are.
#[derive(Resource, Default)]
pub(crate) struct Goals(pub(crate) [Vec2; GOALS]);

/// The population of the brains, and what happened so far.
#[derive(Resource)]
pub(crate) struct Swarm {
    pub(crate) brains: Entity,
    pub(crate) tick: u64,
    pub(crate) births: u64,
    pub(crate) deaths: u64,
    /// No one dies while it is not set.
    pub(crate) is_culled: bool,
    seed: u64,
}

/// A swarm of so many bodies, each with a brain of its own.
pub(crate) struct SwarmPlugin {
    pub(crate) bodies: usize,
    pub(crate) seed: u64,
}

impl Plugin for SwarmPlugin {
    fn build(&self, app: &mut App) {
        app.add_plugins(NeurarchPlugin::default());
        let brain = Sequential::new()
            .push(Linear::new(8, 16))
            .push(Tanh)
            .push(Linear::new(16, 16))
            .push(Tanh)
            .push(Linear::new(16, 2))
            .push(Tanh);
        let world = app.world_mut();
        let brains = world
            .spawn_population(&brain, self.bodies, Seed(self.seed))
            .expect("there is memory for small brains");
        let (brains, models) = (brains.id(), brains.models().expect("it was spawned").to_vec());
        world.entity_mut(brains).insert(Parking::default());
        let seed = self.seed;
        for (number, model) in models.into_iter().enumerate() {
            let body = world.spawn(newborn(&mut stream(seed, number as u64), number % GOALS)).id();
            world.entity_mut(model).insert(neurarch::plugin::BrainOf(body));
        }
        app.insert_resource(Goals::default());
        app.insert_resource(Swarm { brains, tick: 0, births: 0, deaths: 0, is_culled: true, seed });
        app.add_systems(
            FixedUpdate,
            (
                (move_goals, see).chain().in_set(StepSystems::Observe),
                think::<Sight, Steer>(brains).in_set(StepSystems::Forward),
                (steer, cull).chain().in_set(StepSystems::Act),
            ),
        );
    }
}

/// The random numbers of a body's first place, or of a tick.
fn stream(seed: u64, number: u64) -> ActionStream {
    ActionStream::new(seed ^ 0x5357_4152, number, 0)
}

/// A body that was just born, at a place of its own.
fn newborn(random: &mut ActionStream, goal: usize) -> impl Bundle {
    let place = Vec2::new(random.uniform(), random.uniform()) * 2.0 - 1.0;
    (
        Position(place),
        Velocity::default(),
        Follows(goal),
        Sight::default(),
        Steer::default(),
        Score::default(),
    )
}

/// Each goal goes round in a circle of its own.
fn move_goals(mut goals: ResMut<Goals>, mut swarm: ResMut<Swarm>) {
    let time = swarm.tick as f32 * TICK;
    for (number, goal) in goals.0.iter_mut().enumerate() {
        let turn = number as f32 / GOALS as f32 * core::f32::consts::TAU;
        let speed = if number % 2 == 0 { 0.35 } else { -0.25 };
        let center = Vec2::from_angle(turn) * 0.45;
        *goal = center + Vec2::from_angle(turn + time * speed) * 0.35;
    }
    swarm.tick += 1;
}

/// The cell of a place.
fn cell(place: Vec2) -> usize {
    let along = |x: f32| (((x + 1.0) * 0.5 * CELLS as f32) as usize).min(CELLS - 1);
    along(place.y) * CELLS + along(place.x)
}

fn see(
    goals: Res<Goals>,
    mut bodies: Query<(&Position, &Velocity, &Follows, &mut Sight)>,
    mut flocks: Local<Vec<(Vec2, Vec2, f32)>>,
) {
    flocks.clear();
    flocks.resize(CELLS * CELLS, (Vec2::ZERO, Vec2::ZERO, 0.0));
    for (place, velocity, ..) in &bodies {
        let flock = &mut flocks[cell(place.0)];
        *flock = (flock.0 + place.0, flock.1 + velocity.0, flock.2 + 1.0);
    }
    for (place, velocity, follows, mut sight) in &mut bodies {
        let (places, velocities, count) = flocks[cell(place.0)];
        *sight = Sight {
            goal: goals.0[follows.0] - place.0,
            velocity: velocity.0,
            flock: (places / count - place.0) * CELLS as f32,
            drift: velocities / count - velocity.0,
        };
    }
}

fn steer(
    goals: Res<Goals>,
    mut bodies: Query<(&Steer, &Follows, &mut Position, &mut Velocity, &mut Score)>,
) {
    for (steer, follows, mut place, mut velocity, mut score) in &mut bodies {
        velocity.0 = (velocity.0 + steer.0 * MAX_FORCE * TICK).clamp_length_max(MAX_SPEED);
        let next = place.0 + velocity.0 * TICK;
        place.0 = next.clamp(Vec2::NEG_ONE, Vec2::ONE);
        if place.0 != next {
            velocity.0 = Vec2::ZERO;
        }
        let offset = goals.0[follows.0] - place.0;
        score.distance = offset.length();
        let is_there = score.distance < ARRIVED;
        let speed = if is_there { MAX_SPEED } else { velocity.0.dot(offset / score.distance) };
        score.fitness += (speed - score.fitness) * 0.02;
        score.age += 1;
    }
}

/// The worst die, and others are born in their stead: each with the brain of one of the best, and noise.
fn cull(
    mut commands: Commands,
    mut brains: Brains,
    mut swarm: ResMut<Swarm>,
    bodies: Query<(Entity, &Score, &Follows), With<Brain>>,
    mut ranking: Local<Vec<(f32, Entity, usize)>>,
) {
    if !swarm.is_culled {
        return;
    }
    ranking.clear();
    let judged = bodies.iter().filter(|(_, score, _)| score.age >= YOUTH);
    ranking.extend(judged.map(|(body, score, follows)| (-score.fitness, body, follows.0)));
    let deaths = ranking.len() / DEATHS;
    let parents = ranking.len() / PARENTS;
    if deaths == 0 || parents == 0 {
        return;
    }
    // The order of a query is that of tables: names settle who is first of equals.
    ranking.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut random = stream(swarm.seed, u64::MAX - swarm.tick);
    for rank in ranking.len() - deaths..ranking.len() {
        let (_, worst, goal) = ranking[rank];
        let best = ranking[(random.uniform() * parents as f32) as usize].1;
        commands.entity(worst).despawn();
        let body = commands.spawn(newborn(&mut random, goal)).id();
        brains.mutate_brain(body, best, Noise::normal(NOISE));
    }
    swarm.deaths += deaths as u64;
    swarm.births += deaths as u64;
}
