//! Models as brains of bodies: who has which, how they think, are born and die.

mod bodies;
mod commands;
mod normalization;
mod parked;
mod recurrent;
mod reinforce;
mod sampling;
mod think;

use bytemuck::{Pod, Zeroable};
use neurarch::prelude::*;

/// What a body sees.
#[derive(Component, Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Sight {
    food: [f32; 3],
    wall: [f32; 3],
}

/// What it does.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Steer([f32; 2]);

fn net() -> Sequential {
    Sequential::new().push(Linear::new(6, 5)).push(Tanh).push(Linear::new(5, 2))
}

/// A world with a population of that many models.
fn world(models: usize) -> (World, Entity) {
    let mut world = World::new();
    let brains = world.spawn_population(&net(), models, Seed(3)).unwrap().id();
    (world, brains)
}

fn models(world: &World, brains: Entity) -> Vec<Entity> {
    world.population(brains).unwrap().models().to_vec()
}

fn sight(i: usize) -> Sight {
    let number = |at: usize| ((i * 7 + at * 3) % 11) as f32 / 11.0 - 0.4;
    Sight { food: std::array::from_fn(number), wall: std::array::from_fn(|at| number(at + 3)) }
}

fn bias(world: &mut World, model: Entity) -> Vec<u32> {
    let mut model = world.module_mut(model).unwrap();
    let bias = model.parameter::<f32>("0.weight").unwrap();
    bias.iter().map(|x| x.to_bits()).collect()
}
