//! Parked models: births take them over, and nothing moves.

use ndarray::{Array2, Array3};
use neurarch::bevy_ecs::prelude::*;
use neurarch::bevy_ecs::schedule::Schedule;
use neurarch::components::module::mode::{Draws, Mode};
use neurarch::components::population::tree::Model;
use neurarch::evolve::EvolveError;
use neurarch::functions::step;
use neurarch::plugin::{
    Birth, Learn, Minibatch, Parked, Parking, Progress, TrainingBudget, add_neurarch, bear, park,
    stock,
};
use neurarch::prelude::*;
use neurarch::systems::structure::mode::set_active;

use super::{bias, models, net, world};

fn x(models: usize) -> Array2<f32> {
    Array2::from_shape_fn((models, 6), |(m, i)| ((m * 5 + i * 3) % 7) as f32 / 7.0)
}

/// Which models compute something.
fn running(world: &mut World, brains: Entity) -> Vec<bool> {
    let n = models(world, brains).len();
    let y = world.population_mut(brains).unwrap().forward(&x(n)).unwrap();
    y.outer_iter().map(|y| y.iter().any(|&y| y != 0.0)).collect()
}

#[test]
fn a_birth_takes_over_the_rows_of_the_last_that_died() {
    let (mut world, brains) = world(4);
    world.entity_mut(brains).insert(Parking::default());
    let all = models(&world, brains);
    let location = |world: &World, root: Entity| world.entities().get_spawned(root).unwrap();
    let before: Vec<_> = all.iter().map(|&root| location(&world, root).table_row).collect();
    park(&mut world, &[all[0], all[2], all[0]]);
    assert_eq!(running(&mut world, brains), [false, true, false, true]);
    let born = bear(&mut world, brains, &[Birth::Fresh]).unwrap();
    assert_eq!(born, [all[2]]);
    assert_eq!(running(&mut world, brains), [false, true, true, true]);
    assert_eq!(world.get::<Model>(all[2]).unwrap().number, 4);
    // The bits of the fifth model of such a population.
    let (mut other, others) = super::world(5);
    let fifth = models(&other, others)[4];
    assert_eq!(bias(&mut world, all[2]), bias(&mut other, fifth));
    // One is left, the next is spawned.
    let born = bear(&mut world, brains, &[Birth::Fresh, Birth::CloneOf(all[1])]).unwrap();
    assert_eq!(born[0], all[0]);
    let now = models(&world, brains);
    assert_eq!(now.len(), 5);
    assert_eq!(born[1], now[4]);
    assert_eq!(bias(&mut world, born[1]), bias(&mut world, all[1]));
    let after: Vec<_> = all.iter().map(|&root| location(&world, root).table_row).collect();
    assert_eq!(after, before);
    assert_eq!(running(&mut world, brains), [true; 5]);
}

/// Adam's state of a model's parameter, and how often it drew.
fn learned(world: &mut World, root: Entity) -> (Vec<Tensor>, u64) {
    let mut model = world.module_mut(root).unwrap();
    (model.optimizer_state("1.weight").unwrap(), world.get::<Draws>(root).unwrap().0)
}

#[test]
fn a_fresh_birth_forgets_and_a_clone_has_what_its_parent_learned() {
    let net = Sequential::new().push(Dropout { p: 0.3 }).push(Linear::new(6, 2));
    let spawn = |models| {
        let mut world = World::new();
        let brains = world.spawn_population(&net, models, Seed(5)).unwrap().id();
        let adam = |index: usize| Adam { lr: 0.1 / (1 + index) as f64, ..Adam::default() };
        world.population_mut(brains).unwrap().insert_with(adam).unwrap();
        (world, brains)
    };
    let train = |world: &mut World, brains: Entity| {
        let n = models(world, brains).len();
        let x = Array3::from_shape_fn((n, 4, 6), |(_, b, i)| ((b * 5 + i) % 7) as f32 / 7.0);
        let y = Array2::<i64>::from_shape_fn((n, 4), |(_, b)| (b % 2) as i64);
        let mut brains = world.population_mut(brains).unwrap();
        brains.train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
    };
    let (mut world, brains) = spawn(3);
    world.entity_mut(brains).insert(Parking::default());
    (0..3).for_each(|_| train(&mut world, brains));
    let all = models(&world, brains);
    park(&mut world, &all[..1]);
    let kept = learned(&mut world, all[0]);
    train(&mut world, brains);
    assert_eq!(learned(&mut world, all[0]), kept, "nothing of a parked one changes");

    // The same numbers as a model of that number that was there from the start, on its first step.
    assert_eq!(bear(&mut world, brains, &[Birth::Fresh]).unwrap(), [all[0]]);
    assert_eq!(learned(&mut world, all[0]), (Vec::new(), 0));
    let (mut other, others) = spawn(4);
    let fourth = models(&other, others)[3];
    let lr = *world.get::<Adam>(all[0]).unwrap();
    assert_eq!(lr.lr, 0.1, "the optimizer of a fresh one stays");
    other.entity_mut(fourth).insert(lr);
    train(&mut world, brains);
    train(&mut other, others);
    assert_eq!(learned(&mut world, all[0]), learned(&mut other, fourth));
    let weight = |world: &mut World, root: Entity| {
        world.module_mut(root).unwrap().parameter::<f32>("1.weight").unwrap().to_owned()
    };
    assert_eq!(weight(&mut world, all[0]), weight(&mut other, fourth));

    park(&mut world, &[all[1]]);
    assert_eq!(bear(&mut world, brains, &[Birth::CloneOf(all[2])]).unwrap(), [all[1]]);
    assert_eq!(learned(&mut world, all[1]), learned(&mut world, all[2]));
    assert_eq!(weight(&mut world, all[1]), weight(&mut world, all[2]));
    assert_eq!(world.get::<Adam>(all[1]).unwrap().lr, 0.1 / 3.0);
    train(&mut world, brains);
    assert_ne!(weight(&mut world, all[1]), weight(&mut world, all[2]), "random numbers of its own");
}

#[test]
fn parents_that_are_taken_over_themselves_are_read_first() {
    let (mut world, brains) = world(4);
    world.entity_mut(brains).insert(Parking::default());
    let all = models(&world, brains);
    let numbers: Vec<_> = all.iter().map(|&root| bias(&mut world, root)).collect();
    park(&mut world, &[all[0], all[1]]);
    let births = [Birth::CloneOf(all[0]), Birth::CloneOf(all[1])];
    let born = bear(&mut world, brains, &births).unwrap();
    assert_eq!(born, [all[1], all[0]], "the last that died first");
    assert_eq!(bias(&mut world, all[1]), numbers[0]);
    assert_eq!(bias(&mut world, all[0]), numbers[1]);
    assert!(world.get::<Parked>(all[0]).is_none() && !world.get::<Mode>(all[0]).unwrap().inactive);
}

#[test]
fn a_stock_of_parked_models_is_spawned_ahead() {
    let (mut world, brains) = world(2);
    stock(&mut world, brains, 3).unwrap();
    assert_eq!(running(&mut world, brains), [true, true, false, false, false]);
    let before = models(&world, brains);
    let born = bear(&mut world, brains, &[Birth::Fresh; 3]).unwrap();
    assert_eq!(models(&world, brains), before);
    assert_eq!(running(&mut world, brains), [true; 5]);
    let mut sorted = born;
    sorted.sort_unstable();
    let mut spawned = before[2..].to_vec();
    spawned.sort_unstable();
    assert_eq!(sorted, spawned);
}

#[test]
fn a_parent_of_another_population_is_an_error_and_changes_nothing() {
    let (mut world, brains) = world(2);
    let others = world.spawn_population(&net(), 1, Seed(1)).unwrap().id();
    world.entity_mut(brains).insert(Parking::default());
    let (all, entity) = (models(&world, brains), models(&world, others)[0]);
    park(&mut world, &all[..1]);
    let error = bear(&mut world, brains, &[Birth::Fresh, Birth::CloneOf(entity)]).unwrap_err();
    assert_eq!(error, EvolveError::NotAModel { entity, population: brains });
    assert!(world.get::<Parked>(all[0]).is_some());
    let error = bear(&mut world, all[0], &[Birth::Fresh]).unwrap_err().to_string();
    assert!(error.contains("population"), "{error}");
}

/// Whatever is parked, born, active and not, a population that follows has the bits of one that is grouped anew.
#[test]
fn followed_cohorts_compute_the_bits_of_new_ones() {
    let net =
        Sequential::new().push(Linear::new(6, 7)).push(PReLU::default()).push(Linear::new(7, 2));
    let spawn = || {
        let mut world = World::new();
        let brains = world.spawn_population(&net, 40, Seed(5)).unwrap().id();
        let mut population = world.population_mut(brains).unwrap();
        population
            .insert_with(|index| SGD { lr: 0.01 * (1 + index) as f64, ..SGD::default() })
            .unwrap();
        world.entity_mut(brains).insert(Parking::default());
        (world, brains)
    };
    let ((mut world, brains), (mut other, others)) = (spawn(), spawn());
    let mut random = 12345_u32;
    let mut below = |n: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % n
    };
    for tick in 0..60 {
        let all = models(&world, brains);
        let deaths: Vec<usize> = (0..below(4)).map(|_| below(all.len())).collect();
        let births = below(4);
        let parent = below(all.len());
        let toggled = (below(all.len()), below(2) == 0);
        let lr = (below(all.len()), below(100) as f64 / 1000.0);
        let despawned = (tick % 13 == 12).then(|| below(all.len()));
        for (world, brains) in [(&mut world, brains), (&mut other, others)] {
            let all = models(world, brains);
            park(world, &deaths.iter().map(|&index| all[index]).collect::<Vec<_>>());
            let births: Vec<_> = (0..births)
                .map(|i| if i % 2 == 0 { Birth::Fresh } else { Birth::CloneOf(all[parent]) })
                .collect();
            bear(world, brains, &births).unwrap();
            if world.get::<Parked>(all[toggled.0]).is_none() {
                set_active(world, all[toggled.0], toggled.1).unwrap();
            }
            world.get_mut::<SGD>(all[lr.0]).unwrap().lr = lr.1;
            if let Some(index) = despawned {
                world.despawn(all[index]);
            }
        }
        let n = models(&world, brains).len();
        let x = Array3::from_shape_fn((n, 3, 6), |(m, b, i)| ((m * 5 + b + i) % 7) as f32 / 7.0);
        let y = Array2::<i64>::from_shape_fn((n, 3), |(m, b)| ((m + b) % 2) as i64);
        let loss = CrossEntropyLoss::default();
        let step = |world: &mut World, brains: Entity| {
            let made = step::train_step(world, brains, &x, &y, &loss).unwrap();
            let y = world.population_mut(brains).unwrap().forward(&x).unwrap();
            (made, y)
        };
        let made = step(&mut world, brains);
        // In the other world a pass is made in two cohorts meanwhile, so that all are grouped anew.
        let is_active = |root: &Entity| !other.get::<Mode>(*root).unwrap().inactive;
        let apart = models(&other, others).into_iter().find(is_active).unwrap();
        other.get_mut::<Mode>(apart).unwrap().cached = true;
        other.population_mut(others).unwrap().forward(&x).unwrap();
        other.get_mut::<Mode>(apart).unwrap().cached = false;
        assert_eq!(made, step(&mut other, others), "tick {tick}");
    }
}

/// A round of learning that lasts several ticks, and a birth in the row of one that has yet to learn.
#[test]
fn who_is_born_in_a_row_that_waits_to_learn_does_not_learn_in_its_stead() {
    let (mut world, brains) = world(40);
    world.population_mut(brains).unwrap().insert(SGD { lr: 1.0, ..SGD::default() }).unwrap();
    let learn = (Parking::default(), Learn::new(CrossEntropyLoss::default()));
    world.entity_mut(brains).insert(learn);
    world.insert_resource(TrainingBudget::tiles(1));
    let mut schedule = Schedule::default();
    add_neurarch(&mut schedule);
    let x = Array3::from_elem((40, 2, 6), 0.5_f32);
    world.get_mut::<Minibatch>(brains).unwrap().put(x, Array2::<i64>::zeros((40, 2)));
    schedule.run(&mut world);
    let all = models(&world, brains);
    assert_eq!(world.get::<Progress>(brains).unwrap().waiting, 24);
    park(&mut world, &[all[39]]);
    assert_eq!(bear(&mut world, brains, &[Birth::Fresh]).unwrap(), [all[39]]);
    let before = [38, 39].map(|index| bias(&mut world, all[index]));
    (0..3).for_each(|_| schedule.run(&mut world));
    let after = [38, 39].map(|index| bias(&mut world, all[index]));
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1]);
    let progress = world.get::<Progress>(brains).unwrap();
    assert_eq!((progress.steps, progress.waiting), (1, 0));
    assert!(progress.losses[38].is_finite() && progress.losses[39].is_nan());
}
