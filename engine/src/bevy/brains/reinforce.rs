//! [`reinforce`]: brains learn from what they did, by policy gradients.

use bevy_ecs::error::{BevyError, Severity};
use bevy_ecs::prelude::*;
use bytemuck::Pod;
use ndarray::Array3;

use crate::bevy::brains::rollout::{Experience, Rollout};
use crate::bevy::brains::think::check;
use crate::bevy::participation::Minibatch;
use crate::bevy::round::Round;
use crate::components::losses::{Loss, LossCall};
use crate::components::population::Population;
use crate::kernels::arithmetic::elementary::exp;
use crate::kernels::ir::trace::Var;

/// What a body did, in a form that its brain can learn from.
pub trait Action: Component + Copy {
    /// How many numbers a target has.
    const NUMBERS: usize;

    /// Writes the target whose loss has the gradient of `-advantage · log π(self)`.
    fn write_target(&self, advantage: f32, target: &mut [f32]);
}

/// One of `CLASSES` actions, as [`categorical`](crate::plugin::categorical) draws it from a model's outputs.
///
/// Learn by [`CrossEntropyLoss`](crate::losses::CrossEntropyLoss): the target is the advantage at the class, 0 elsewhere.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discrete<const CLASSES: usize>(pub u32);

impl<const CLASSES: usize> Action for Discrete<CLASSES> {
    const NUMBERS: usize = CLASSES;

    fn write_target(&self, advantage: f32, target: &mut [f32]) {
        target.fill(0.0);
        if let Some(class) = target.get_mut(self.0 as usize) {
            *class = advantage;
        }
    }
}

/// `N` numbers, as [`gaussian`](crate::plugin::gaussian) draws them around a model's outputs.
///
/// Learn by [`GaussianPolicyLoss`].
#[derive(Component, Clone, Copy, Debug, PartialEq)]
pub struct Continuous<const N: usize>(pub [f32; N]);

impl<const N: usize> Default for Continuous<N> {
    fn default() -> Self {
        Continuous([0.0; N])
    }
}

impl<const N: usize> Action for Continuous<N> {
    const NUMBERS: usize = N + 1;

    fn write_target(&self, advantage: f32, target: &mut [f32]) {
        if let Some((last, action)) = target.split_last_mut() {
            action.iter_mut().zip(self.0).for_each(|(to, number)| *to = number);
            *last = advantage;
        }
    }
}

/// The loss of actions that were drawn from normal distributions around a model's outputs, the same deviation for all
/// numbers.
///
/// # Shape
///
/// Outputs are `[batch, N]`, the means; targets `[batch, N + 1]`: the actions, and last the advantage. The loss is `[]`: the
/// mean of `-advantage · log π(action)`, without what does not depend on the outputs.
///
/// Source: Williams, "Simple Statistical Gradient-Following Algorithms", 1992; in torch
/// `-(Normal(mean, log_std.exp()).log_prob(action).sum(-1) * advantage).mean()`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GaussianPolicyLoss {
    /// The logarithm of the standard deviation.
    pub log_std: f64,
}

impl Loss for GaussianPolicyLoss {
    fn forward(&self, call: &LossCall<'_>, x: &Var, target: &Var) -> Var {
        let &[batch, numbers] = &**x.shape() else {
            return call
                .trace
                .fail(format!("expected means of shape [batch, N], got {}", x.shape()));
        };
        if **target.shape() != [batch, numbers + 1] {
            let (expected, given) = ([batch, numbers + 1], target.shape());
            return call.trace.fail(format!("expected targets of shape {expected:?}, got {given}"));
        }
        let target = target.to(x.dtype());
        let (action, advantage) =
            (target.slice(1, 0..numbers), target.slice(1, numbers..numbers + 1));
        let z = (x - &action) * exp(-self.log_std);
        let nll = (&z * &z).sum(&[1], true) * 0.5;
        (nll * advantage).mean(&[0, 1], false)
    }
}

/// Has the brains of a population learn by REINFORCE: a component of its entity, beside a
/// [`Rollout`](crate::plugin::Rollout) and a [`Learn`](crate::plugin::Learn) with the loss of its [`Action`]. The system is
/// [`reinforce`].
#[derive(Component, Clone, Copy, Debug, PartialEq)]
pub struct Reinforce {
    /// How much a reward a tick later counts: the discount `γ`.
    pub gamma: f64,
    /// Whether each model's returns are brought to mean 0 and standard deviation 1, as pytorch/examples does it.
    pub normalize: bool,
}

impl Default for Reinforce {
    fn default() -> Self {
        Reinforce { gamma: 0.99, normalize: true }
    }
}

/// Gives populations with [`Reinforce`] the ticks that their brains are to learn from next: a system for
/// [`StepSystems::Loss`](crate::plugin::StepSystems::Loss), after [`record`](crate::plugin::record).
///
/// Once no minibatch is being learned, and some brain's ring is full, the brains with full rings get their
/// [`Minibatch`]: the learning systems train them, as far as the [`TrainingBudget`](crate::plugin::TrainingBudget) of the
/// frame goes. The ring of a brain is emptied when it has learned, so it always learns from what it did with the parameters
/// that it still has. The others leave their parameters as they are.
///
/// # Errors
///
/// [`ThinkError::Bytes`](crate::plugin::ThinkError::Bytes) with [`Severity::Warning`].
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::*;
/// use bytemuck::{Pod, Zeroable};
/// use neurarch::plugin::{
///     ActionStreams, Brain, BrainCommands, Discrete, Learn, Reinforce, Reward, Rollout, StepSystems, add_neurarch,
///     categorical, record, reinforce, think,
/// };
/// use neurarch::prelude::*;
///
/// #[derive(Component, Clone, Copy, Pod, Zeroable)]
/// #[repr(C)]
/// struct Sight(f32);
///
/// /// How much a brain would like to go left or right.
/// #[derive(Component, Clone, Copy, Default, Pod, Zeroable)]
/// #[repr(C)]
/// struct Logits([f32; 2]);
///
/// /// Right is always right.
/// fn act(mut tick: Local<u64>, streams: ActionStreams, mut bodies: Query<(Entity, &Logits, &mut Discrete<2>, &mut Reward)>) {
///     for (body, logits, mut action, mut reward) in &mut bodies {
///         let Some(mut random) = streams.of(body, *tick) else { continue };
///         action.0 = categorical(&mut random, &logits.0, None).unwrap_or(0) as u32;
///         *reward = Reward::from(action.0 as f32);
///     }
///     *tick += 1;
/// }
///
/// let mut world = World::new();
/// let mut brains = world.spawn_population(&Linear::new(1, 2), 20, Seed(1))?;
/// brains.insert(Adam { lr: 0.1, ..Adam::default() })?;
/// let (brains, models) = (brains.id(), brains.models()?.to_vec());
/// let rollout = Rollout::<Sight, Discrete<2>>::new(16);
/// world.entity_mut(brains).insert((Learn::new(CrossEntropyLoss::default()), rollout, Reinforce::default()));
/// for model in models {
///     let body = world.spawn((Sight(1.0), Logits::default(), Discrete::<2>(0), Reward::default())).id();
///     world.entity_mut(model).insert(neurarch::plugin::BrainOf(body));
/// }
///
/// let mut schedule = Schedule::default();
/// add_neurarch(&mut schedule);
/// schedule.add_systems((
///     think::<Sight, Logits>(brains).in_set(StepSystems::Forward),
///     act.in_set(StepSystems::Act),
///     (record::<Sight, Discrete<2>>, reinforce::<Sight, Discrete<2>>).chain().in_set(StepSystems::Loss),
/// ));
/// (0..320).for_each(|_| schedule.run(&mut world));
/// let right = world.query::<&Discrete<2>>().iter(&world).filter(|action| action.0 == 1).count();
/// assert!(right >= 18, "{right} of 20");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", 1992; its
/// form `reinforcement_learning/reinforce.py` of pytorch/examples, with the mean of a model's ticks in place of their sum.
pub fn reinforce<In: Component + Pod, A: Action>(
    mut populations: Learners<'_, '_, In, A>,
) -> Result<(), BevyError> {
    check::<In>().map_err(|error| BevyError::new(Severity::Warning, error))?;
    for (population, options, mut rollout, mut minibatch, mut round) in &mut populations {
        let rollout = rollout.bypass_change_detection();
        forget_learned(population, rollout, &minibatch, round.bypass_change_detection());
        let is_full = |model: usize| rollout.count(model) == rollout.steps();
        let learns: Vec<bool> = (0..population.len()).map(is_full).collect();
        let is_idle = minibatch.is_wanted() && round.running.is_none();
        if is_idle && learns.contains(&true) {
            let (x, targets) = batch(rollout, *options, &learns);
            minibatch.put_some(x, targets, learns.clone());
            rollout.learning = learns;
        }
    }
    Ok(())
}

/// Populations that learn by [`reinforce`].
type Learners<'w, 's, In, A> = Query<
    'w,
    's,
    (
        &'static Population,
        &'static Reinforce,
        &'static mut Rollout<In, A>,
        &'static mut Minibatch,
        &'static mut Round,
    ),
>;

/// Empties the rings of brains that have learned from what they had, or will not.
fn forget_learned<In: Pod + Send + Sync, A: Action>(
    population: &Population,
    rollout: &mut Rollout<In, A>,
    minibatch: &Minibatch,
    round: &mut Round,
) {
    if !minibatch.is_wanted() || !rollout.learning.contains(&true) {
        return;
    }
    let waiting = round.running.as_mut().map(|running| {
        running.follow(population);
        running.waiting.as_slice()
    });
    for model in 0..rollout.learning.len() {
        let waits = waiting.and_then(|waiting| waiting.get(model)).copied().unwrap_or(false);
        if rollout.learning[model] && !waits {
            rollout.learning[model] = false;
            rollout.clear(model);
        }
    }
}

/// Makes inputs, `[models, steps, features]`, and targets, `[models, steps, numbers]`, of the models that learn; zeros of the
/// others.
fn batch<In: Pod + Send + Sync, A: Action>(
    rollout: &Rollout<In, A>,
    options: Reinforce,
    learns: &[bool],
) -> (Array3<f32>, Array3<f32>) {
    let (models, steps, features) = (learns.len(), rollout.steps(), size_of::<In>() / 4);
    let mut x = Array3::zeros((models, steps, features));
    let mut targets = Array3::zeros((models, steps, A::NUMBERS));
    let mut ticks: Vec<Experience<In, A>> = Vec::with_capacity(steps);
    let mut advantages = Vec::with_capacity(steps);
    let rows = x.outer_iter_mut().zip(targets.outer_iter_mut()).enumerate();
    for (model, (mut x, mut targets)) in rows.filter(|(model, _)| learns[*model]) {
        ticks.clear();
        ticks.extend(rollout.steps_of(model));
        options.write_advantages(&ticks, &mut advantages);
        let rows = x.outer_iter_mut().zip(targets.outer_iter_mut());
        for ((tick, &advantage), (mut x, mut target)) in ticks.iter().zip(&advantages).zip(rows) {
            let numbers: &[f32] = bytemuck::cast_slice(bytemuck::bytes_of(&tick.observation));
            x.iter_mut().zip(numbers).for_each(|(to, &number)| *to = number);
            if let Some(target) = target.as_slice_mut() {
                tick.action.write_target(advantage, target);
            }
        }
    }
    (x, targets)
}

impl Reinforce {
    /// Writes what each tick was better by than the mean: its return, and those of the others.
    fn write_advantages<In, A>(self, ticks: &[Experience<In, A>], advantages: &mut Vec<f32>) {
        let mut later = 0.0;
        let returns = ticks.iter().rev().map(|tick| {
            let follows = if tick.reward.terminated { 0.0 } else { later };
            later = f64::from(tick.reward.reward) + self.gamma * follows;
            later
        });
        let mut returns: Vec<f64> = returns.collect();
        returns.reverse();
        advantages.clear();
        if !self.normalize {
            advantages.extend(returns.iter().map(|&all| all as f32));
            return;
        }
        let count = returns.len() as f64;
        let mean = returns.iter().sum::<f64>() / count;
        let squares: f64 = returns.iter().map(|all| (all - mean) * (all - mean)).sum();
        let std = (squares / (count - 1.0).max(1.0)).sqrt() + f64::from(f32::EPSILON);
        advantages.extend(returns.iter().map(|all| ((all - mean) / std) as f32));
    }
}
