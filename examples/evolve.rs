//! Neuroevolution: a population of small networks learns to balance a pole, without a gradient.
//!
//! ```text
//! cargo run --release --example evolve
//! ```
//!
//! In each generation every network plays some episodes; the episodes of all networks run side by side, one
//! forward pass for each instant. Then the best eighth stays and the others become perturbed copies of
//! it: two calls, each one pass over the columns.

#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::error::Error;
use std::time::Instant;

use ndarray::{Array3, ArrayView3};
use neurarch::prelude::*;

const MODELS: usize = 512;
/// How many models become parents.
const PARENTS: usize = MODELS / 8;
const GENERATIONS: usize = 12;
/// How many episodes each model plays in a generation.
const EPISODES: usize = 4;
/// How many the best model plays in the end.
const TEST_EPISODES: usize = 100;
/// The standard deviation of what is added to each weight at first, and what is left of it from one
/// generation to the next.
const NOISE: f64 = 0.4;
const DECAY: f64 = 0.8;
const SEED: u64 = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let mut world = World::new();
    let brain = Sequential::new().push(Linear::new(4, 8)).push(Tanh).push(Linear::new(8, 2));
    world.set_grad_enabled(false);
    let mut brains = world.spawn_population(&brain, MODELS, Seed(SEED))?;
    brains.eval()?;
    let mut random = Random(SEED);

    println!("generation   best  median  (mean steps of {EPISODES} episodes, 500 at most)");
    let mut ranking: Vec<usize> = (0..MODELS).collect();
    let mut first = 0.0;
    for generation in 0..GENERATIONS {
        let fitness = play(&mut brains, EPISODES, &mut random)?;
        ranking.sort_by(|&a, &b| fitness[b].total_cmp(&fitness[a]));
        let [best, median] = [0, MODELS / 2].map(|rank| fitness[ranking[rank]]);
        println!("{generation:>10}  {best:>5.0}  {median:>6.0}");
        if generation == 0 {
            first = median;
        }
        if generation + 1 == GENERATIONS {
            assert!(best >= 500.0, "the best model balances for 500 steps, not {best}");
            assert!(median > 2.0 * first, "the median rises from {first}, not to {median}");
            break;
        }
        let mut parents = vec![0; MODELS];
        for (rank, &model) in ranking.iter().enumerate() {
            parents[model] = ranking[rank % PARENTS];
        }
        brains.overwrite(&parents)?;
        let std = NOISE * DECAY.powi(generation as i32);
        let noise = |model| Noise::normal(if parents[model] == model { 0.0 } else { std });
        brains.perturb_with(noise, |_| true)?;
    }

    // The best one, alone, in episodes that it has not seen.
    let models = brains.models()?.to_vec();
    for &model in &ranking[1..] {
        brains.world_mut().despawn(models[model]);
    }
    let score = play(&mut brains, TEST_EPISODES, &mut random)?[0];
    println!("the best model balances for {score:.0} steps in {TEST_EPISODES} other episodes");
    println!(
        "{:.1} s for {GENERATIONS} generations of {MODELS} models",
        start.elapsed().as_secs_f64()
    );
    assert!(score >= 475.0, "CartPole-v1 counts as solved from 475 steps on, got {score}");
    Ok(())
}

/// Plays episodes with every model; gives how many steps each held out, on average.
fn play(
    brains: &mut PopulationMut<'_>,
    episodes: usize,
    random: &mut Random,
) -> Result<Vec<f32>, Box<dyn Error>> {
    let models = brains.models()?.len();
    // All models start from the same states.
    let starts: Vec<CartPole> = (0..episodes).map(|_| CartPole::new(random)).collect();
    let mut poles: Vec<CartPole> = (0..models).flat_map(|_| starts.clone()).collect();
    let mut observations = Array3::<f32>::zeros((models, episodes, 4));
    let mut scores = Array3::<f32>::zeros((models, episodes, 2));
    while poles.iter().any(|pole| !pole.is_over()) {
        for (pole, mut seen) in poles.iter().zip(observations.rows_mut()) {
            seen.assign(&ndarray::aview1(&pole.state));
        }
        brains.forward_into(&observations, scores.view_mut())?;
        act(&mut poles, scores.view());
    }
    let mean = |poles: &[CartPole]| {
        poles.iter().map(|pole| pole.steps as f32).sum::<f32>() / episodes as f32
    };
    Ok(poles.chunks(episodes).map(mean).collect())
}

/// Pushes each cart to the side with the higher score, `[models, episodes, 2]`.
fn act(poles: &mut [CartPole], scores: ArrayView3<'_, f32>) {
    for (pole, scores) in poles.iter_mut().zip(scores.rows()) {
        if !pole.is_over() {
            pole.step(scores[1] > scores[0]);
        }
    }
}

/// A cart with a pole on it, to be balanced by pushing the cart left or right.
///
/// Source: `CartPole-v1` of gymnasium, its equations of motion and constants.
#[derive(Clone, Debug)]
struct CartPole {
    /// Position, velocity, angle and angular velocity, in m, m/s, rad and rad/s.
    state: [f32; 4],
    steps: usize,
}

impl CartPole {
    const GRAVITY: f32 = 9.8;
    const CART_MASS: f32 = 1.0;
    const POLE_MASS: f32 = 0.1;
    /// Half of the pole's length.
    const LENGTH: f32 = 0.5;
    const FORCE: f32 = 10.0;
    /// Seconds a step.
    const TIME: f32 = 0.02;
    const MAX_POSITION: f32 = 2.4;
    /// 12 degrees.
    const MAX_ANGLE: f32 = 12.0 * std::f32::consts::PI / 180.0;
    const MAX_STEPS: usize = 500;

    /// Starts an episode near the upright position.
    fn new(random: &mut Random) -> CartPole {
        CartPole { state: std::array::from_fn(|_| random.uniform() * 0.1 - 0.05), steps: 0 }
    }

    fn is_over(&self) -> bool {
        let [position, _, angle, _] = self.state;
        position.abs() > Self::MAX_POSITION
            || angle.abs() > Self::MAX_ANGLE
            || self.steps >= Self::MAX_STEPS
    }

    fn step(&mut self, is_right: bool) {
        let [position, velocity, angle, spin] = self.state;
        let force = if is_right { Self::FORCE } else { -Self::FORCE };
        let (sin, cos) = angle.sin_cos();
        let mass = Self::CART_MASS + Self::POLE_MASS;
        let moment = Self::POLE_MASS * Self::LENGTH;
        let push = (force + moment * spin * spin * sin) / mass;
        let inertia = Self::LENGTH * (4.0 / 3.0 - Self::POLE_MASS * cos * cos / mass);
        let spin_rate = (Self::GRAVITY * sin - cos * push) / inertia;
        let acceleration = push - moment * spin_rate * cos / mass;
        self.state = [
            position + Self::TIME * velocity,
            velocity + Self::TIME * acceleration,
            angle + Self::TIME * spin,
            spin + Self::TIME * spin_rate,
        ];
        self.steps += 1;
    }
}

/// Random numbers for the episodes: `SplitMix64`.
struct Random(u64);

impl Random {
    /// Draws a number in `[0, 1)`.
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f32 / (1_u32 << 24) as f32
    }
}
