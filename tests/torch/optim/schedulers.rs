//! Schedulers: each model has its own, a failing one changes nothing, subtrees are scheduled by themselves.

use ndarray::Array3;
use neurarch::bevy_ecs::prelude::*;
use neurarch::bevy_ecs::schedule::Schedule;
use neurarch::components::scheduler::{Anneal, Metric};
use neurarch::plugin::{Learn, add_neurarch};
use neurarch::prelude::*;
use neurarch::systems::optim::lr_scheduler::ScheduleError;

use crate::golden;

fn brains(models: usize) -> (World, Entity) {
    let mut world = World::new();
    let brain = Sequential::new().push(Linear::new(2, 3)).push(Linear::new(3, 1));
    let population = world.spawn_population(&brain, models, Seed(1)).unwrap().id();
    world
        .population_mut(population)
        .unwrap()
        .insert_with(|model| sgd(0.1 * (1 + model) as f64))
        .unwrap();
    (world, population)
}

fn sgd(lr: f64) -> SGD {
    SGD { lr, ..SGD::default() }
}

fn rates(world: &World, population: Entity) -> Vec<f64> {
    let models = world.population(population).unwrap().models();
    models.iter().map(|&model| world.get::<SGD>(model).unwrap().lr).collect()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
    assert!(found.iter().zip(expected).all(close), "{found:?} {expected:?}");
    assert_eq!(found.len(), expected.len());
}

#[test]
fn each_model_follows_its_own_schedule() {
    let (mut world, population) = brains(3);
    let gamma = |model: usize| 1.0 / (1 + model) as f64;
    world
        .population_mut(population)
        .unwrap()
        .schedule_with(|model| ExponentialLR { gamma: gamma(model) })
        .unwrap();
    world.population_mut(population).unwrap().step_schedulers().unwrap();
    assert_close(&rates(&world, population), &[0.1, 0.1, 0.1]);
    let second = world.population(population).unwrap().models()[1];
    world.module_mut(second).unwrap().step_schedulers().unwrap();
    assert_close(&rates(&world, population), &[0.1, 0.05, 0.1]);
}

#[test]
fn a_metric_of_each_model_decides_about_it_alone() {
    let (mut world, population) = brains(2);
    let plateau = ReduceLROnPlateau { patience: 0, factor: 0.5, ..ReduceLROnPlateau::default() };
    world.population_mut(population).unwrap().schedule(plateau).unwrap();
    world.population_mut(population).unwrap().step_schedulers_with_metrics(&[1.0, 1.0]).unwrap();
    world.population_mut(population).unwrap().step_schedulers_with_metrics(&[2.0, 0.5]).unwrap();
    assert_close(&rates(&world, population), &[0.05, 0.2]);
    let error = world
        .population_mut(population)
        .unwrap()
        .step_schedulers_with_metrics(&[1.0])
        .unwrap_err()
        .to_string();
    assert_eq!(error, "expected a metric for each of 2 models, got 1");
    let error =
        world.population_mut(population).unwrap().step_schedulers().unwrap_err().to_string();
    assert!(error.contains("missing 1 required positional argument: 'metrics'"), "{error}");
    assert_close(&rates(&world, population), &[0.05, 0.2]);
}

#[test]
fn an_optimizer_of_a_subtree_is_scheduled_with_it() {
    let (mut world, population) = brains(1);
    let root = world.population(population).unwrap().models()[0];
    let last = world.module_mut(root).unwrap().at("1").unwrap().id();
    world.entity_mut(last).insert(sgd(1.0));
    world.module_mut(last).unwrap().schedule(StepLR { step_size: 1, gamma: 0.1 }).unwrap();
    world.population_mut(population).unwrap().step_schedulers().unwrap();
    assert_close(&rates(&world, population), &[0.1]);
    assert_close(&[world.get::<SGD>(last).unwrap().lr], &[0.1]);
    world
        .population_mut(population)
        .unwrap()
        .schedule(StepLR { step_size: 1, gamma: 0.5 })
        .unwrap();
    world.population_mut(population).unwrap().step_schedulers().unwrap();
    assert_close(&[world.get::<SGD>(last).unwrap().lr], &[0.05]);
    assert_close(&rates(&world, population), &[0.05]);
}

#[test]
fn what_torch_refuses_is_refused_and_changes_nothing() {
    let (mut world, population) = brains(2);
    let before = rates(&world, population);
    let refused = |result: Result<(), ScheduleError>, says: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    let constant = ConstantLR { factor: 1.5, ..ConstantLR::default() };
    refused(
        world.population_mut(population).unwrap().schedule(constant),
        "expected to be between 0 and 1",
    );
    refused(
        world.population_mut(population).unwrap().schedule(StepLR { step_size: 0, gamma: 0.1 }),
        "step_size",
    );
    let plateau = SequentialLR::new([]).push(ReduceLROnPlateau::default());
    refused(
        world.population_mut(population).unwrap().schedule(plateau),
        "does not support `ReduceLROnPlateau`",
    );
    let few = SequentialLR::new([3]).push(ExponentialLR { gamma: 0.5 });
    refused(
        world.population_mut(population).unwrap().schedule(few),
        "number of milestones to be equal to 1",
    );
    refused(world.population_mut(population).unwrap().step_schedulers(), "has no scheduler");
    assert_close(&rates(&world, population), &before);

    // The second part ends, after the first one has gone on.
    let chain = ChainedScheduler::new()
        .push(ExponentialLR { gamma: 0.5 })
        .push(OneCycleLR { cycle_momentum: None, ..OneCycleLR::new(1.0, 2) });
    world.population_mut(population).unwrap().schedule(chain).unwrap();
    for _ in 0..2 {
        world.population_mut(population).unwrap().step_schedulers().unwrap();
    }
    let before = rates(&world, population);
    refused(world.population_mut(population).unwrap().step_schedulers(), "Tried to step 3 times");
    assert_close(&rates(&world, population), &before);

    let bare = world.spawn_population(&Linear::new(1, 1), 1, Seed(0)).unwrap().id();
    refused(
        world.population_mut(bare).unwrap().schedule(ExponentialLR { gamma: 0.5 }),
        "has no optimizer",
    );
}

#[test]
fn weight_averaging_has_torchs_rates() {
    let text = include_str!("../../golden/optim.txt");
    let cos = SWALR { anneal_epochs: 4, ..SWALR::new(0.05) };
    let linear = SWALR { anneal_epochs: 3, anneal_strategy: Anneal::Linear, ..cos };
    let at_once = SWALR { anneal_epochs: 0, ..cos };
    for (name, scheduler) in [("cos", cos), ("linear", linear), ("at_once", at_once)] {
        let (mut world, population) = brains(1);
        world.population_mut(population).unwrap().insert(sgd(0.4)).unwrap();
        world.population_mut(population).unwrap().schedule(scheduler).unwrap();
        let mut found = rates(&world, population);
        for _ in 0..6 {
            world.population_mut(population).unwrap().step_schedulers().unwrap();
            found.extend(rates(&world, population));
        }
        golden::compare(text, &format!("swalr_{name}"), found, (1e-12, 1e-12));
    }
}

/// The population that learns in each run, if it does.
#[derive(Resource)]
struct Learns(Entity, bool);

fn learn(world: &mut World) -> Result<(), BevyError> {
    let &Learns(population, learns) = world.resource::<Learns>();
    if learns {
        let x = Array3::<f32>::ones((3, 2, 2));
        world.population_mut(population)?.forward(&x)?;
        world
            .population_mut(population)?
            .loss::<f32, f32>(&Array3::zeros((3, 2, 1)), &MSELoss::default())?;
    }
    Ok(())
}

#[test]
fn one_system_steps_every_scheduler_after_the_optimizers() {
    let (mut world, population) = brains(3);
    world.population_mut(population).unwrap().insert(sgd(1.0)).unwrap();
    let models = world.population(population).unwrap().models().to_vec();
    let gamma = |model: usize| [0.5, 0.25, 0.125][model];
    world
        .population_mut(population)
        .unwrap()
        .schedule_with(|model| ExponentialLR { gamma: gamma(model) })
        .unwrap();
    let plateau = ReduceLROnPlateau { patience: 0, factor: 0.5, ..ReduceLROnPlateau::default() };
    world.module_mut(models[1]).unwrap().schedule(plateau).unwrap();
    world.module_mut(models[2]).unwrap().set_active(false).unwrap();
    world.insert_resource(Learns(population, true));
    world.entity_mut(population).insert(Learn::by_hand());
    let mut schedule = Schedule::default();
    add_neurarch(&mut schedule);
    schedule.add_systems(learn.in_set(StepSystems::Loss));
    // The inactive model is passed over, and the plateau waits for a metric.
    schedule.run(&mut world);
    assert_close(&rates(&world, population), &[0.5, 1.0, 1.0]);
    for metric in [1.0, 2.0] {
        world.entity_mut(models[1]).insert(Metric(metric));
        schedule.run(&mut world);
    }
    assert_close(&rates(&world, population), &[0.125, 0.5, 1.0]);
    assert!(world.get::<Metric>(models[1]).is_none());
    // Nothing learns, so no rate changes.
    world.insert_resource(Learns(population, false));
    schedule.run(&mut world);
    assert_close(&rates(&world, population), &[0.125, 0.5, 1.0]);
}
