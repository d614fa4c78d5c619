//! What runs, from what, and when.

use ndarray::ArrayD;
use neurarch::plugin::{Actions, Model, Observations, StepFailed, Think, ThinkEvery};

use super::*;

fn seen(models: usize) -> ArrayD<f32> {
    Array2::from_shape_fn((models, 4), |(model, at)| (model * 5 + at) as f32 / 50.0).into_dyn()
}

fn thinkers(app: &mut App, models: usize, seed: u64) -> Entity {
    let world = app.world_mut();
    let brains = world.spawn_population(&brain(), models, Seed(seed)).unwrap().id();
    world.entity_mut(brains).insert((Think, Observations(seen(models))));
    brains
}

fn actions(app: &App, brains: Entity) -> ArrayD<f32> {
    app.world().get::<Actions>(brains).unwrap().0.clone()
}

#[test]
fn all_populations_run_from_what_they_see() {
    let mut app = app(NeurarchPlugin::default());
    let all = [(40, 1), (7, 2)].map(|(models, seed)| (thinkers(&mut app, models, seed), models));
    let other = app.world_mut().spawn_population(&brain(), 3, Seed(3)).unwrap().id();
    app.update();
    for (brains, models) in all {
        let expected = app.world_mut().population_mut(brains).unwrap().forward(&seen(models));
        assert_eq!(actions(&app, brains), expected.unwrap());
    }
    assert!(app.world().get::<Actions>(other).is_none());
}

#[test]
fn each_model_thinks_every_few_ticks_and_as_many_in_each() {
    let mut app = app(NeurarchPlugin::default());
    let brains = thinkers(&mut app, 42, 1);
    app.world_mut().entity_mut(brains).insert(ThinkEvery(4));
    let expected = app.world_mut().population_mut(brains).unwrap().forward(&seen(42)).unwrap();
    let blank = |app: &mut App| {
        let mut actions = app.world_mut().get_mut::<Actions>(brains).unwrap();
        actions.0.fill(9.0);
    };
    let ran = |app: &App| -> Vec<usize> {
        let actions = actions(app, brains);
        let rows = actions.outer_iter().zip(expected.outer_iter()).enumerate();
        let ran = rows.filter(|(_, (row, expected))| row == expected);
        ran.map(|(model, _)| model).collect()
    };
    app.update();
    let mut turns = vec![ran(&app)];
    for _ in 1..4 {
        blank(&mut app);
        app.update();
        turns.push(ran(&app));
    }
    assert!(turns.iter().all(|turn| (10..=11).contains(&turn.len())), "{turns:?}");
    let mut all: Vec<_> = turns.concat();
    all.sort_unstable();
    assert_eq!(all, (0..42).collect::<Vec<_>>());
    blank(&mut app);
    app.update();
    assert_eq!(ran(&app), turns[0], "and again");
}

#[test]
fn models_keep_their_turn_and_their_actions_while_others_come_and_go() {
    let mut app = app(NeurarchPlugin::default());
    let brains = thinkers(&mut app, 12, 1);
    app.world_mut().entity_mut(brains).insert(ThinkEvery(3));
    (0..3).for_each(|_| app.update());
    let models = app.world().population(brains).unwrap().models().to_vec();
    let before = actions(&app, brains);
    // The last one moves into the gap.
    app.world_mut().despawn(models[2]);
    app.world_mut().get_mut::<Observations>(brains).unwrap().0 = ArrayD::zeros(vec![11, 4]);
    app.update();
    let after = actions(&app, brains);
    // The first turn had the first four, of which three are left; all others have what they had.
    let kept = |model: usize| {
        let index = app.world().get::<Model>(models[model]).unwrap().index as usize;
        (0..2).all(|at| after[[index, at]] == before[[model, at]])
    };
    let changed: Vec<_> = (0..12).filter(|&model| model != 2 && !kept(model)).collect();
    assert_eq!(changed, [0, 1, 3]);
}

#[test]
fn hooked_models_think_in_their_turn_too() {
    let mut app = app(NeurarchPlugin::default());
    let brains = thinkers(&mut app, 8, 1);
    app.world_mut().entity_mut(brains).insert(ThinkEvery(2));
    let expected = app.world_mut().population_mut(brains).unwrap().forward(&seen(8)).unwrap();
    let first = app.world().population(brains).unwrap().models()[0];
    let mut module = app.world_mut().module_mut(first).unwrap();
    module.register_forward_hook(|_, _, _| ()).unwrap();
    app.update();
    app.update();
    assert_eq!(actions(&app, brains), expected);
}

#[test]
fn a_population_that_sees_something_else_leaves_the_others_alone() {
    let mut app = app(NeurarchPlugin::default());
    let (good, bad) = (thinkers(&mut app, 3, 1), thinkers(&mut app, 3, 2));
    app.world_mut().get_mut::<Observations>(bad).unwrap().0 = seen(5);
    let blind = thinkers(&mut app, 3, 3);
    app.world_mut().get_mut::<Observations>(blind).unwrap().0 = ArrayD::default(vec![0]);
    app.update();
    assert_eq!(actions(&app, good).shape(), [3, 2]);
    assert!(actions(&app, bad).is_empty() && actions(&app, blind).is_empty());
    let told: Vec<_> = app.world_mut().resource_mut::<Messages<StepFailed>>().drain().collect();
    assert_eq!((told.len(), told[0].population), (1, bad));
    assert_eq!(told[0].error.to_string(), "x: expected numbers for 3 models, got 5");
    assert_eq!(app.world().get::<Observations>(bad).unwrap().0, seen(5), "what it saw stays");
}
