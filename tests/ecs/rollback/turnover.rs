//! Models that went come back, those that came go, and nothing else is touched.

use neurarch::plugin::{Birth, Parked, Parking, bear, park};

use super::*;

#[test]
fn models_come_back_with_numbers_and_places() {
    let mut world = World::new();
    let population = brains(&mut world, 10, 3);
    learn(&mut world, population, 0);
    world.population_mut(population).unwrap().keep_snapshots(4).unwrap();
    save(&mut world, population, 7);
    let before = state(&mut world, population);
    let roots = world.population(population).unwrap().models().to_vec();
    world.despawn(roots[2]);
    world.despawn(roots[9]);
    learn(&mut world, population, 1);
    let born = world.population_mut(population).unwrap().clone_models(&[0, 1, 2]).unwrap();
    learn(&mut world, population, 2);
    save(&mut world, population, 8);
    let later = state(&mut world, population);

    let mut brains = world.population_mut(population).unwrap();
    let restored = brains.restore_snapshot(7).unwrap();
    let gone: Vec<_> = restored.revived.iter().map(|&(before, _)| before).collect();
    assert_eq!(gone, [roots[2], roots[9]]);
    assert_eq!(restored.despawned, born);
    assert_eq!(state(&mut world, population), before);
    let now = world.population(population).unwrap().models().to_vec();
    let same = (0..10).filter(|&index| now[index] == roots[index]).count();
    assert_eq!((now.len(), same), (10, 8), "the others keep their entities");
    assert!(born.iter().all(|&root| world.get_entity(root).is_err()));
    assert_eq!(world.get::<Snapshots>(population).unwrap().ticks().collect::<Vec<_>>(), [7]);

    // The same again.
    let now = world.population(population).unwrap().models().to_vec();
    world.despawn(now[2]);
    world.despawn(now[9]);
    learn(&mut world, population, 1);
    world.population_mut(population).unwrap().clone_models(&[0, 1, 2]).unwrap();
    learn(&mut world, population, 2);
    assert_eq!(state(&mut world, population), later);
    // What was made anew comes back once more.
    world.population_mut(population).unwrap().restore_snapshot(7).unwrap();
    assert_eq!(state(&mut world, population), before);
}

#[test]
fn components_and_columns_that_came_later_go() {
    let mut world = World::new();
    let population = world.spawn_population(&Linear::new(3, 2), 5, Seed(1)).unwrap().id();
    world.population_mut(population).unwrap().keep_snapshots(3).unwrap();
    save(&mut world, population, 0);
    let before = checksum(&mut world, population);
    let mut brains = world.population_mut(population).unwrap();
    brains.insert(SGD { momentum: 0.9, ..SGD::default() }).unwrap();
    brains.schedule(ExponentialLR { gamma: 0.5 }).unwrap();
    let step = |world: &mut World| {
        let (x, y) = (Array3::<f32>::ones((5, 4, 3)), Array2::<i64>::zeros((5, 4)));
        let mut brains = world.population_mut(population).unwrap();
        brains.train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
        brains.step_schedulers().unwrap();
    };
    step(&mut world);
    save(&mut world, population, 1);
    step(&mut world);
    let root = world.population(population).unwrap().models()[4];
    let rate = |world: &World| world.get::<SGD>(root).map(|sgd| sgd.lr);
    let later =
        (world.population_mut(population).unwrap().stack::<f32>("weight").unwrap(), rate(&world));

    world.population_mut(population).unwrap().restore_snapshot(1).unwrap();
    assert_eq!(rate(&world), Some(0.5e-3));
    step(&mut world);
    let again =
        (world.population_mut(population).unwrap().stack::<f32>("weight").unwrap(), rate(&world));
    assert_eq!(again, later);
    world.population_mut(population).unwrap().restore_snapshot(0).unwrap();
    assert_eq!(rate(&world), None);
    assert_eq!(world.population(population).unwrap().models().len(), 5);
    // Columns of momentum are there still, and hold zeros.
    let mut brains = world.population_mut(population).unwrap();
    brains.insert(SGD { momentum: 0.9, ..SGD::default() }).unwrap();
    brains.schedule(ExponentialLR { gamma: 0.5 }).unwrap();
    step(&mut world);
    step(&mut world);
    let again =
        (world.population_mut(population).unwrap().stack::<f32>("weight").unwrap(), rate(&world));
    assert_eq!(again, later);
    assert_ne!(checksum(&mut world, population), before);
}

#[test]
fn rows_that_a_tag_moved_are_found() {
    #[derive(Component)]
    struct Tag;
    let mut world = World::new();
    let population = brains(&mut world, 12, 8);
    learn(&mut world, population, 0);
    world.population_mut(population).unwrap().keep_snapshots(4).unwrap();
    let roots = world.population(population).unwrap().models().to_vec();
    let layer = |world: &mut World, index: usize| {
        world.module_mut(roots[index]).unwrap().at("0").unwrap().id()
    };
    let mut states = Vec::new();
    for tick in 0..4 {
        save(&mut world, population, tick);
        states.push(state(&mut world, population));
        for index in [tick as usize, 7 - tick as usize] {
            let layer = layer(&mut world, index);
            world.entity_mut(layer).insert(Tag);
        }
        if tick % 2 == 0 {
            world.population_mut(population).unwrap().perturb(Noise::normal(0.1)).unwrap();
        }
    }
    for (tick, state_then) in states.iter().enumerate().rev() {
        let layer = layer(&mut world, 5);
        world.entity_mut(layer).remove::<Tag>();
        world.population_mut(population).unwrap().restore_snapshot(tick as u64).unwrap();
        assert_eq!(state(&mut world, population), *state_then, "tick {tick}");
    }
}

#[test]
fn what_models_share_goes_back() {
    let mut world = World::new();
    let brain = Sequential::new().push(Linear::new(4, 3)).push(Tanh).push(Linear::new(3, 2));
    let mut brains = world.spawn_population(&brain, 6, Seed(4)).unwrap();
    brains.share_parameter("0.weight").unwrap();
    brains.insert(Adam::default()).unwrap();
    let population = brains.id();
    learn(&mut world, population, 0);
    world.population_mut(population).unwrap().keep_snapshots(3).unwrap();
    save(&mut world, population, 0);
    let before = checksum(&mut world, population);
    learn(&mut world, population, 1);
    save(&mut world, population, 1);
    let later = checksum(&mut world, population);
    assert_ne!(before, later);
    learn(&mut world, population, 2);
    for (tick, sum) in [(1, later), (0, before)] {
        world.population_mut(population).unwrap().restore_snapshot(tick).unwrap();
        assert_eq!(checksum(&mut world, population), sum);
    }
    learn(&mut world, population, 1);
    assert_eq!(checksum(&mut world, population), later);
}

#[test]
fn who_was_parked_and_whose_rows_were_taken_over_is_there_again() {
    let mut world = World::new();
    let population = brains(&mut world, 10, 3);
    world.entity_mut(population).insert(Parking::default());
    learn(&mut world, population, 0);
    world.population_mut(population).unwrap().keep_snapshots(6).unwrap();
    let roots = world.population(population).unwrap().models().to_vec();
    park(&mut world, &[roots[5]]);
    save(&mut world, population, 7);
    let before = state(&mut world, population);
    let on = |world: &mut World| {
        park(world, &[roots[2], roots[9]]);
        let births =
            [Birth::CloneOf(roots[0]), Birth::Fresh, Birth::MutantOf(roots[1], Noise::normal(0.1))];
        let born = bear(world, population, &births).unwrap();
        learn(world, population, 1);
        save(world, population, 8);
        park(world, &[roots[0]]);
        learn(world, population, 2);
        (born, state(world, population))
    };
    let first = on(&mut world);
    for _ in 0..2 {
        let restored = world.population_mut(population).unwrap().restore_snapshot(7).unwrap();
        assert!(restored.revived.is_empty() && restored.despawned.is_empty());
        assert_eq!(state(&mut world, population), before);
        assert!(world.get::<Parked>(roots[5]).is_some() && world.get::<Parked>(roots[2]).is_none());
        assert_eq!(world.population(population).unwrap().models(), roots);
        assert_eq!(on(&mut world), first, "the same are born again");
    }
    world.population_mut(population).unwrap().restore_snapshot(8).unwrap();
    assert!(world.get::<Parked>(roots[0]).is_none());
}
