//! Blueprints come and go without leaving component ids, archetypes or memory behind.

use std::env;
use std::process::Command;

use neurarch::bevy_ecs::prelude::*;
use neurarch::components::layers::{Linear, Sequential, Tanh};
use neurarch::components::population::Population;
use neurarch::components::population::blueprints::Blueprints;
use neurarch::components::population::tree::Model;
use neurarch::kernels::ir::dtype::Dtype;
use neurarch::systems::structure::{access, sign, spawn};

fn brain(a: usize, b: usize) -> Sequential {
    Sequential::new().push(Linear::new(a, b)).push(Tanh).push(Linear::new(b, 3))
}

/// Bytes of memory in use, on Linux.
fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}

/// Says whether this process runs that test alone, so that its memory is the test's; if not, runs it in one that does.
fn is_alone(test: &str) -> bool {
    if env::var_os("NEURARCH_TEST_ALONE").is_some() {
        return true;
    }
    let mut alone = Command::new(env::current_exe().unwrap());
    alone.args([&format!("blueprints::{test}"), "--exact"]).env("NEURARCH_TEST_ALONE", "1");
    let output = alone.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    false
}

#[test]
fn ten_thousand_blueprints_leave_nothing_behind() {
    if !is_alone("ten_thousand_blueprints_leave_nothing_behind") {
        return;
    }
    let mut world = World::new();
    let mut used = None;
    for i in 0..10_000 {
        let brain = brain(1 + i % 100, 1 + i / 100);
        let population = spawn::spawn_population(&mut world, &brain, 2, 2, 1, Dtype::F32).unwrap();
        sign::refresh(&mut world, population).unwrap();
        world.despawn(population);
        assert!(world.resource::<Blueprints>().is_empty());
        if i == 5_000 {
            used = resident_bytes();
        }
    }
    assert!(world.components().len() < 500, "{} component ids", world.components().len());
    assert!(world.archetypes().len() < 3_000, "{} archetypes", world.archetypes().len());
    if let (Some(before), Some(after)) = (used, resident_bytes()) {
        assert!(after < before + (32 << 20), "grew from {before} to {after} bytes");
    }
}

#[test]
fn a_model_that_evolves_leaves_nothing_behind() {
    if !is_alone("a_model_that_evolves_leaves_nothing_behind") {
        return;
    }
    let mut world = World::new();
    let population =
        spawn::spawn_population(&mut world, &brain(4, 8), 3, 3, 1, Dtype::F32).unwrap();
    let root = world.get::<Population>(population).unwrap().models()[1];
    let mut used = None;
    for i in 0..10_000 {
        let first = access::module(&mut world, root, "0").unwrap();
        world.entity_mut(first).insert(Linear::new(1 + i % 97, 1 + i / 97));
        sign::refresh(&mut world, population).unwrap();
        assert!(world.resource::<Blueprints>().len() <= 2);
        if i == 5_000 {
            used = resident_bytes();
        }
    }
    assert!(world.components().len() < 500, "{} component ids", world.components().len());
    assert!(world.archetypes().len() < 3_000, "{} archetypes", world.archetypes().len());
    if let (Some(before), Some(after)) = (used, resident_bytes()) {
        assert!(after < before + (32 << 20), "grew from {before} to {after} bytes");
    }
}

#[test]
fn many_blueprints_at_once_take_few_component_ids() {
    let mut world = World::new();
    for i in 0..1_000 {
        let brain = brain(1 + i % 100, 1 + i / 100);
        spawn::spawn_population(&mut world, &brain, 1, 1, 1, Dtype::F32).unwrap();
    }
    assert_eq!(world.resource::<Blueprints>().len(), 1_000);
    assert!(world.components().len() < 500, "{} component ids", world.components().len());
}

#[test]
fn a_population_goes_with_its_models_and_its_blueprint() {
    let mut world = World::new();
    let population =
        spawn::spawn_population(&mut world, &brain(4, 8), 3, 9, 1, Dtype::F32).unwrap();
    world.despawn(population);
    let mut models = world.query::<&Model>();
    assert_eq!(models.iter(&world).count(), 0);
    assert!(world.resource::<Blueprints>().is_empty());
}
