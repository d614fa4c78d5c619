//! What cannot be gone back to is an error, and nothing is changed.

use super::*;

fn restore(world: &mut World, population: Entity, tick: u64) -> Result<(), RollbackError> {
    world.population_mut(population).unwrap().restore_snapshot(tick).map(drop)
}

#[test]
fn ticks_that_are_not_kept_are_named() {
    let mut world = World::new();
    let population = brains(&mut world, 3, 1);
    let error = restore(&mut world, population, 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("population {population} keeps no snapshots: call keep_snapshots first")
    );
    let mut brains = world.population_mut(population).unwrap();
    let error = brains.keep_snapshots(0).unwrap_err();
    assert_eq!(error.to_string(), "expected from 1 to 128 snapshots, got 0");
    assert_eq!(brains.keep_snapshots(129), Err(RollbackError::Depth { given: 129 }));
    brains.keep_snapshots(2).unwrap();
    let error = brains.restore_snapshot(5).unwrap_err();
    assert_eq!(error.to_string(), "tick 5 is not kept: no tick is");
    for tick in [3, 4, 6] {
        brains.save_snapshot(tick).unwrap();
    }
    assert_eq!(brains.saved_ticks(), [4, 6]);
    let error = brains.restore_snapshot(3).unwrap_err();
    assert_eq!(error.to_string(), "tick 3 is not kept: ticks 4 to 6 are");
    let error = brains.save_snapshot(5).unwrap_err();
    assert_eq!(error.to_string(), "expected a tick from 6 on, which was saved last, got 5");
    brains.forget_snapshots().unwrap();
    assert_eq!(brains.restore_snapshot(6), Err(RollbackError::NotKept(population)));
}

#[test]
fn a_tick_is_saved_again_in_its_place() {
    let mut world = World::new();
    for depth in [1, 2, 3] {
        let population = brains(&mut world, 4, 1);
        world.population_mut(population).unwrap().keep_snapshots(depth).unwrap();
        save(&mut world, population, 0);
        let mut states = vec![state(&mut world, population)];
        for round in 0..4 {
            learn(&mut world, population, round);
            save(&mut world, population, 1);
            states.push(state(&mut world, population));
        }
        learn(&mut world, population, 9);
        restore(&mut world, population, 1).unwrap();
        assert_eq!(state(&mut world, population), states[4]);
        let first = restore(&mut world, population, 0);
        assert_eq!(first.is_ok(), depth > 1);
        if depth > 1 {
            assert_eq!(state(&mut world, population), states[0]);
        }
    }
}

#[test]
fn an_edited_model_is_no_model_of_then() {
    let mut world = World::new();
    let population = brains(&mut world, 3, 1);
    world.population_mut(population).unwrap().keep_snapshots(2).unwrap();
    save(&mut world, population, 0);
    let root = world.population(population).unwrap().models()[1];
    let last = world.module_mut(root).unwrap().at("4").unwrap().id();
    world.entity_mut(last).insert(Linear::new(8, 3));
    world.population_mut(population).unwrap().settle().unwrap();
    let before = checksum(&mut world, population);
    let error = restore(&mut world, population, 0).unwrap_err();
    assert_eq!(error.to_string(), "model 1 has another structure than at tick 0");
    assert_eq!(checksum(&mut world, population), before);
    // Once it is as it was, it can go back: its numbers are those of then.
    world.entity_mut(last).insert(Linear::new(8, 2));
    restore(&mut world, population, 0).unwrap();
}

#[test]
fn models_that_are_gone_with_their_structure_are_named() {
    let mut world = World::new();
    let population = brains(&mut world, 2, 1);
    world.population_mut(population).unwrap().keep_snapshots(2).unwrap();
    save(&mut world, population, 4);
    let roots = world.population(population).unwrap().models().to_vec();
    assert!(roots.iter().all(|&root| world.despawn(root)));
    let error = restore(&mut world, population, 4).unwrap_err();
    assert_eq!(error.to_string(), "model 0 of tick 4 is gone, with all models of its structure");
    assert!(world.get::<Population>(population).unwrap().is_empty());
}

#[test]
fn a_converted_population_does_not_go_back() {
    let mut world = World::new();
    let population = brains(&mut world, 2, 1);
    world.population_mut(population).unwrap().keep_snapshots(2).unwrap();
    save(&mut world, population, 4);
    world.population_mut(population).unwrap().double().unwrap();
    let error = restore(&mut world, population, 4).unwrap_err();
    assert_eq!(error, RollbackError::Dtype { tick: 4 });
}
