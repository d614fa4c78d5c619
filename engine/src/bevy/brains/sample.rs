//! Sampling of actions from counter-based streams: what a model draws in a tick follows from its population's seed, its
//! number and the tick, whatever its neighbors do.

use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use rand::Rng;

use crate::bevy::brains::bodies::Brain;
use crate::components::population::Population;
use crate::components::population::tree::Model;
use crate::kernels::arithmetic::elementary::{cos, exp, ln};
use crate::kernels::cpu::random::Stream;
use crate::kernels::ir::rng_key::RngKey;

/// The draw that actions are sampled by: none of an op, of noise or of first numbers.
const ACTION: u32 = 4 << 28;

/// Makes the random numbers of models: a system parameter.
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::*;
/// use neurarch::plugin::{ActionStreams, Brain, BrainCommands, categorical};
/// use neurarch::prelude::*;
///
/// #[derive(Component, Clone, Copy)]
/// struct Logits([f32; 3]);
///
/// fn act(bodies: Query<(Entity, &Logits)>, streams: ActionStreams) {
///     for (body, logits) in &bodies {
///         let mut random = streams.of(body, 17).unwrap(); // In tick 17.
///         let action = categorical(&mut random, &logits.0, Some(&[true, false, true]));
///         assert!(matches!(action, Some(0 | 2)));
///     }
/// }
///
/// let mut world = World::new();
/// let brains = world.spawn_population(&Linear::new(4, 3), 1, Seed(1))?.id();
/// world.commands().spawn(Logits([0.1, 9.0, -0.3])).with_brain(brains);
/// world.flush();
/// let mut schedule = Schedule::default();
/// schedule.add_systems(act);
/// schedule.run(&mut world);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(SystemParam)]
pub struct ActionStreams<'w, 's> {
    brains: Query<'w, 's, &'static Brain>,
    models: Query<'w, 's, &'static Model>,
    populations: Query<'w, 's, &'static Population>,
}

impl ActionStreams<'_, '_> {
    /// Starts the random numbers of a tick of a model, or of the brain of a body; `None` if it is neither. Called twice for
    /// a tick it gives the same numbers.
    pub fn of(&self, entity: Entity, tick: u64) -> Option<ActionStream> {
        let brain = self.brains.get(entity).map_or(entity, Brain::id);
        let model = self.models.get(brain).ok()?;
        let seed = self.populations.get(model.population).ok()?.seed;
        Some(ActionStream::new(seed, model.number, tick))
    }
}

/// The random numbers of a model in a tick: a generator of crate `rand`, too.
#[derive(Clone, Debug)]
pub struct ActionStream(Stream);

impl ActionStream {
    /// Starts the random numbers of the model of that number in a population of that seed.
    pub fn new(seed: u64, number: u64, tick: u64) -> Self {
        ActionStream(Stream::new(RngKey { seed, number, step: tick }, ACTION))
    }

    /// Draws evenly from `[0, 1)`.
    pub fn uniform(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 / 16_777_216.0
    }

    /// Draws evenly from `(0, 1)`.
    fn open_unit(&mut self) -> f64 {
        (f64::from(self.0.next_u32()) + 0.5) / 4_294_967_296.0
    }

    /// Draws from the normal distribution with mean 0 and standard deviation 1.
    ///
    /// Source: Box and Muller, "A Note on the Generation of Random Normal Deviates", 1958.
    fn standard_normal(&mut self) -> f64 {
        let (radius, turn) = (self.open_unit(), self.open_unit());
        (-2.0 * ln(radius)).sqrt() * cos(core::f64::consts::TAU * turn)
    }
}

/// Draws a class by its logit, among those that `mask` allows; `None` if it allows none, or no logit is a number.
///
/// Logits of -∞ and NaN are never drawn, nor those beyond the end of the mask.
///
/// Source: `torch.distributions.Categorical(logits=logits).sample()`; masks as `sb3_contrib`'s `MaskableCategorical`
/// has them.
pub fn categorical(
    random: &mut ActionStream,
    logits: &[f32],
    mask: Option<&[bool]>,
) -> Option<usize> {
    let weights = weights(logits, mask);
    let total: f64 = weights.iter().sum();
    // As many numbers are drawn whatever comes of it.
    let mut left = random.open_unit() * total;
    let is_drawn = |&(_, &weight): &(usize, &f64)| {
        left -= weight;
        weight > 0.0 && left < 0.0
    };
    let last = weights.iter().rposition(|&weight| weight > 0.0);
    let drawn = weights.iter().enumerate().find(is_drawn).map(|(class, _)| class);
    // Rounding may leave something over.
    drawn.or(last)
}

/// Returns the logarithm of the probability with which [`categorical`] draws a class: -∞ for one that it never draws.
///
/// Source: `torch.distributions.Categorical(logits=logits).log_prob(class)`.
pub fn categorical_log_prob(logits: &[f32], mask: Option<&[bool]>, class: usize) -> f32 {
    let weights = weights(logits, mask);
    let total: f64 = weights.iter().sum();
    match weights.get(class) {
        Some(&weight) if weight > 0.0 => ln(weight / total) as f32,
        _ => f32::NEG_INFINITY,
    }
}

/// Returns numbers that are to each other as the classes' probabilities.
fn weights(logits: &[f32], mask: Option<&[bool]>) -> Vec<f64> {
    let allowed = |class: usize| mask.is_none_or(|mask| mask.get(class) == Some(&true));
    let given = |(class, &logit): (usize, &f32)| {
        if allowed(class) && !logit.is_nan() { f64::from(logit) } else { f64::NEG_INFINITY }
    };
    let given: Vec<f64> = logits.iter().enumerate().map(given).collect();
    let greatest = given.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // All are -∞, or one is ∞ and certain.
    let weight = |logit: f64| match logit - greatest {
        difference if difference.is_nan() => f64::from(u8::from(logit == f64::INFINITY)),
        difference => exp(difference),
    };
    given.into_iter().map(weight).collect()
}

/// Draws numbers from normal distributions: `mean[i] + exp(log_std[i]) · z`, each with a `z` of its own.
///
/// Source: `torch.distributions.Normal(mean, log_std.exp()).sample()`.
pub fn gaussian<const N: usize>(
    random: &mut ActionStream,
    mean: [f32; N],
    log_std: [f32; N],
) -> [f32; N] {
    std::array::from_fn(|i| {
        let z = random.standard_normal();
        (f64::from(mean[i]) + exp(f64::from(log_std[i])) * z) as f32
    })
}

/// Returns the logarithm of the density with which [`gaussian`] draws an action: the sum over its numbers.
///
/// Source: `torch.distributions.Normal(mean, log_std.exp()).log_prob(action).sum()`.
pub fn gaussian_log_prob<const N: usize>(
    mean: [f32; N],
    log_std: [f32; N],
    action: [f32; N],
) -> f32 {
    let of = |i: usize| {
        let log_std = f64::from(log_std[i]);
        let z = (f64::from(action[i]) - f64::from(mean[i])) / exp(log_std);
        -0.5 * z * z - log_std - 0.5 * ln(core::f64::consts::TAU)
    };
    (0..N).map(of).sum::<f64>() as f32
}
