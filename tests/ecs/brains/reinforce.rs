//! Brains learn from what they did: judged by torch, under a budget, with births in between.

use bytemuck::{Pod, Zeroable};
use ndarray::{Array3, array};
use neurarch::bevy_ecs::prelude::*;
use neurarch::bevy_ecs::schedule::Schedule;
use neurarch::plugin::{
    BrainCommands, BrainOf, Continuous, Discrete, GaussianPolicyLoss, Learn, Minibatch, Parking,
    Progress, Reinforce, Reward, Rollout, StepSystems, TrainingBudget, add_neurarch, record,
    reinforce,
};
use neurarch::prelude::*;

use super::models;

#[derive(Component, Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Seen([f32; 2]);

fn seen(tick: usize, model: usize) -> Seen {
    Seen([tick as f32 * 0.5 - 1.0, model as f32 - 0.25 * tick as f32])
}

fn reward(tick: usize, model: usize) -> Reward {
    Reward { reward: ((tick * 3 + model * 5) % 4) as f32 - 1.0, terminated: tick == 1 }
}

/// A world in which `count` brains with known weights have bodies, which do what `act` says.
fn world<A: neurarch::plugin::Action>(
    count: usize,
    outputs: usize,
    learn: Learn,
    options: Reinforce,
) -> (World, Entity, Vec<Entity>, Schedule) {
    let mut world = World::new();
    let mut brains = world.spawn_population(&Linear::new(2, outputs), count, Seed(1)).unwrap();
    let weight = |(_, o, i): (usize, usize, usize)| 0.1 * o as f32 - 0.2 * i as f32;
    let weight = Array3::from_shape_fn((count, outputs, 2), weight).into_dyn();
    brains.unstack("weight", weight.view()).unwrap();
    let bias = ndarray::Array2::<f32>::zeros((count, outputs)).into_dyn();
    brains.unstack("bias", bias.view()).unwrap();
    brains.insert(SGD { lr: 1.0, ..SGD::default() }).unwrap();
    let brains = brains.id();
    world.entity_mut(brains).insert((learn, options, Rollout::<Seen, A>::new(4)));
    let bodies: Vec<_> = (0..count).map(|_| world.spawn_empty().id()).collect();
    for (root, &body) in models(&world, brains).into_iter().zip(&bodies) {
        world.entity_mut(root).insert(BrainOf(body));
    }
    let mut schedule = Schedule::default();
    add_neurarch(&mut schedule);
    schedule
        .add_systems((record::<Seen, A>, reinforce::<Seen, A>).chain().in_set(StepSystems::Loss));
    (world, brains, bodies, schedule)
}

fn tick<A: neurarch::plugin::Action>(
    world: &mut World,
    bodies: &[Entity],
    schedule: &mut Schedule,
    tick: usize,
    act: impl Fn(usize, usize) -> A,
) {
    for (model, &body) in bodies.iter().enumerate() {
        let own = (seen(tick, model), act(tick, model), reward(tick, model));
        world.entity_mut(body).insert(own);
    }
    schedule.run(world);
}

fn close(found: impl IntoIterator<Item = f32>, expected: &[f32]) {
    let found: Vec<_> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len());
    let is_close = |(a, b): (&f32, &f32)| (a - b).abs() <= 2e-6;
    assert!(found.iter().zip(expected).all(is_close), "{found:?} {expected:?}");
}

/// ```text
/// import torch                                                    # torch 2.15.0
/// w = torch.tensor([[0.0, -0.2], [0.1, -0.1], [0.2, 0.0]], requires_grad=True)   # model 1
/// x = torch.tensor([[t * 0.5 - 1.0, 1 - 0.25 * t] for t in range(4)])
/// a = torch.tensor([(t + 1) % 3 for t in range(4)]); r = [(t * 3 + 5) % 4 - 1.0 for t in range(4)]
/// R, returns = 0, []
/// for t in reversed(range(4)):
///     R = r[t] + 0.9 * (0 if t == 1 else R); returns.insert(0, R)
/// returns = torch.tensor(returns); returns = (returns - returns.mean()) / (returns.std() + 1.1920929e-07)
/// log_prob = torch.distributions.Categorical(logits=x @ w.T).log_prob(a)
/// (-log_prob * returns).mean().backward(); print(w - w.grad)
/// ```
#[test]
fn a_step_of_discrete_actions_is_that_of_torch() {
    let options = Reinforce { gamma: 0.9, ..Reinforce::default() };
    let learn = Learn::new(CrossEntropyLoss::default());
    let (mut world, brains, bodies, mut schedule) = world::<Discrete<3>>(2, 3, learn, options);
    let act = |tick, model| Discrete::<3>(((tick + model) % 3) as u32);
    for now in 0..4 {
        assert_eq!(world.get::<Progress>(brains).unwrap().steps, 0);
        tick(&mut world, &bodies, &mut schedule, now, act);
    }
    assert_eq!(world.get::<Progress>(brains).unwrap().steps, 1);
    let weights = world.population_mut(brains).unwrap().stack::<f32>("weight").unwrap();
    let second = weights.outer_iter().nth(1).unwrap();
    close(second.iter().copied(), &DISCRETE);
}

/// As above, with `mean = x @ w[:2].T`, `a[t] = [0.1 * t, 0.3]`, no normalization, and
/// `log_prob = torch.distributions.Normal(mean, math.exp(-0.5)).log_prob(a).sum(-1)`.
#[test]
fn a_step_of_continuous_actions_is_that_of_torch() {
    let options = Reinforce { gamma: 0.9, normalize: false };
    let learn = Learn::new(GaussianPolicyLoss { log_std: -0.5 });
    let (mut world, brains, bodies, mut schedule) = world::<Continuous<2>>(2, 2, learn, options);
    let act = |tick: usize, _| Continuous([0.1 * tick as f32, 0.3]);
    (0..4).for_each(|now| tick(&mut world, &bodies, &mut schedule, now, act));
    let weights = world.population_mut(brains).unwrap().stack::<f32>("weight").unwrap();
    let second = weights.outer_iter().nth(1).unwrap();
    close(second.iter().copied(), &CONTINUOUS);
}

const DISCRETE: [f32; 6] =
    [-0.106_680_91, 0.018_556_565, 0.215_159_68, -0.218_472_6, 0.191_521_24, -0.100_083_97];
const CONTINUOUS: [f32; 4] = [0.326_193_8, -0.094_666_556, 0.643_656_4, -0.230_817_23];

/// A brain learns once from each of its windows, from what it did with the parameters that it had, whatever the budget.
#[test]
fn under_a_budget_each_brain_learns_from_its_own_window() {
    let learn = || Learn::new(CrossEntropyLoss::default());
    let act = |tick, model| Discrete::<3>(((tick + model) % 3) as u32);
    let mut first_steps = Vec::new();
    for budget in [TrainingBudget::Unlimited, TrainingBudget::tiles(1)] {
        let (mut world, brains, bodies, mut schedule) =
            world::<Discrete<3>>(40, 3, learn(), Reinforce::default());
        world.insert_resource(budget);
        let mut now = 0;
        while world.get::<Progress>(brains).unwrap().steps == 0 {
            tick(&mut world, &bodies, &mut schedule, now, act);
            now += 1;
        }
        assert_eq!(now, if budget == TrainingBudget::Unlimited { 4 } else { 6 });
        first_steps.push(world.population_mut(brains).unwrap().stack::<f32>("weight").unwrap());
        // The rings of those that have learned are empty by the next tick, but for what came since.
        tick(&mut world, &bodies, &mut schedule, now, act);
        let rollout = world.get::<Rollout<Seen, Discrete<3>>>(brains).unwrap();
        assert!((0..40).all(|model| rollout.count(model) < 4), "nobody is full");
    }
    assert_eq!(first_steps[0], first_steps[1]);
}

#[test]
fn who_is_born_later_has_nothing_to_learn_from_yet() {
    let learn = Learn::new(CrossEntropyLoss::default());
    let (mut world, brains, mut bodies, mut schedule) =
        world::<Discrete<3>>(3, 3, learn, Reinforce::default());
    world.entity_mut(brains).insert(Parking::default());
    let act = |tick, model| Discrete::<3>(((tick + model) % 3) as u32);
    (0..2).for_each(|now| tick(&mut world, &bodies, &mut schedule, now, act));
    world.despawn(bodies[1]);
    bodies[1] = world.spawn_empty().id();
    world.commands().entity(bodies[1]).clone_brain(bodies[0]);
    bodies.push(world.spawn_empty().id());
    world.commands().entity(bodies[3]).clone_brain(bodies[0]);
    world.flush();
    let before = world.population_mut(brains).unwrap().stack::<f32>("weight").unwrap();
    (2..4).for_each(|now| tick(&mut world, &bodies, &mut schedule, now, act));
    let after = world.population_mut(brains).unwrap().stack::<f32>("weight").unwrap();
    let changed: Vec<bool> =
        before.outer_iter().zip(after.outer_iter()).map(|(a, b)| a != b).collect();
    assert_eq!(changed, [true, false, true, false]);
    let rollout = world.get::<Rollout<Seen, Discrete<3>>>(brains).unwrap();
    let counts: Vec<_> = (0..4).map(|model| rollout.count(model)).collect();
    assert_eq!(counts, [4, 2, 4, 2], "emptied in the next tick");
    assert_eq!(rollout.steps_of(1).next().unwrap().observation, seen(2, 1));
    (4..6).for_each(|now| tick(&mut world, &bodies, &mut schedule, now, act));
    let last = world.population_mut(brains).unwrap().stack::<f32>("weight").unwrap();
    let changed: Vec<bool> =
        after.outer_iter().zip(last.outer_iter()).map(|(a, b)| a != b).collect();
    assert_eq!(changed, [false, true, false, true]);
}

#[test]
fn models_without_a_minibatch_of_their_own_keep_their_parameters_and_their_optimizers() {
    for every in [1, 2] {
        let mut world = World::new();
        let mut brains = world.spawn_population(&Linear::new(2, 2), 3, Seed(1)).unwrap();
        brains.insert(Adam { lr: 0.1, weight_decay: 0.1, ..Adam::default() }).unwrap();
        let brains = brains.id();
        world.entity_mut(brains).insert(Learn::new(CrossEntropyLoss::default()).every(every));
        let mut schedule = Schedule::default();
        add_neurarch(&mut schedule);
        let before = world.population_mut(brains).unwrap().stack::<f32>("weight").unwrap();
        for _ in 0..every {
            let x = array![[[1.0_f32, 0.5]], [[1.0, 0.5]], [[1.0, 0.5]]];
            let targets = array![[0_i64], [0], [0]];
            let mut minibatch = world.get_mut::<Minibatch>(brains).unwrap();
            minibatch.put_some(x, targets, vec![true, false]);
            schedule.run(&mut world);
        }
        let after = world.population_mut(brains).unwrap().stack::<f32>("weight").unwrap();
        let changed: Vec<bool> =
            before.outer_iter().zip(after.outer_iter()).map(|(a, b)| a != b).collect();
        assert_eq!(changed, [true, false, false]);
    }
}
