//! What learns, when, and what is left alone.

use neurarch::bevy_ecs::schedule::Schedule;
use neurarch::plugin::{
    Learning, PopulationStepped, StepFailed, TrainingDiverged, add_neurarch, get_systems,
    order_step,
};

use super::*;

#[test]
fn the_plugin_takes_the_steps_that_train_step_takes() {
    let mut app = app(NeurarchPlugin::default());
    let (mine, other) = (learners(app.world_mut(), 37, 3), learners(app.world_mut(), 5, 4));
    app.add_systems(FixedUpdate, give.in_set(StepSystems::Loss));
    for _ in 0..4 {
        app.update();
    }
    let mut alone = World::new();
    for (population, models, seed) in [(mine, 37, 3), (other, 5, 4)] {
        let by_hand = learners(&mut alone, models, seed);
        let mut losses = Vec::new();
        for step in 0..4 {
            let (x, y) = batch(models, step);
            let mut brains = alone.population_mut(by_hand).unwrap();
            losses = brains.train_step(&x, &y, &CrossEntropyLoss::default()).unwrap().to_vec();
        }
        let progress = app.world().get::<Progress>(population).unwrap();
        assert_eq!((progress.steps, progress.waiting, &progress.losses), (4, 0, &losses));
        assert_eq!(weights(app.world_mut(), population), weights(&mut alone, by_hand));
    }
}

#[test]
fn populations_that_the_host_steps_are_left_alone() {
    let mut app = app(NeurarchPlugin::default());
    let world = app.world_mut();
    let mine = learners(world, 3, 1);
    world.entity_mut(mine).remove::<Learn>();
    let (x, y) = batch(3, 0);
    let mut brains = world.population_mut(mine).unwrap();
    brains.forward(&x).unwrap();
    brains.loss::<f32, _>(&y, &CrossEntropyLoss::default()).unwrap();
    let before = weights(world, mine);
    let other = learners(world, 3, 2);
    app.add_systems(FixedUpdate, give.in_set(StepSystems::Loss));
    app.update();
    assert_eq!(app.world().get::<Progress>(other).unwrap().steps, 1);
    assert_eq!(weights(app.world_mut(), mine), before);
    // Its loss is still there to go back from.
    app.world_mut().population_mut(mine).unwrap().backward().unwrap();
}

#[test]
fn gradients_of_several_minibatches_add_up_as_by_hand() {
    let mut app = app(NeurarchPlugin::default());
    let mine = learners(app.world_mut(), 4, 9);
    app.world_mut().entity_mut(mine).insert(Learn::new(CrossEntropyLoss::default()).every(3));
    let (x, y) = batch(4, 5);
    let put = move |mut minibatches: Query<&mut Minibatch>| {
        minibatches.iter_mut().for_each(|mut of| of.put(x.clone(), y.clone()));
    };
    app.add_systems(FixedUpdate, put.in_set(StepSystems::Loss));
    let before = weights(app.world_mut(), mine);
    app.update();
    app.update();
    assert_eq!(weights(app.world_mut(), mine), before);
    app.update();
    let mut alone = World::new();
    let by_hand = learners(&mut alone, 4, 9);
    let (x, y) = batch(4, 5);
    let mut brains = alone.population_mut(by_hand).unwrap();
    for _ in 0..3 {
        brains.forward(&x).unwrap();
        brains.loss::<f32, _>(&y, &CrossEntropyLoss::default()).unwrap();
        brains.backward().unwrap();
    }
    brains.step().unwrap();
    assert_eq!(weights(app.world_mut(), mine), weights(&mut alone, by_hand));
    assert_eq!(app.world().get::<Progress>(mine).unwrap().steps, 1);
}

#[test]
fn losses_of_the_host_are_gone_back_from() {
    #[derive(Resource)]
    struct Mine(Entity);
    fn lose(world: &mut World) {
        let mine = world.resource::<Mine>().0;
        let (x, y) = batch(4, 2);
        let mut brains = world.population_mut(mine).unwrap();
        brains.forward(&x).unwrap();
        brains.loss::<f32, _>(&y, &CrossEntropyLoss::default()).unwrap();
    }
    let mut app = app(NeurarchPlugin::default());
    let mine = learners(app.world_mut(), 4, 9);
    app.world_mut().entity_mut(mine).insert(Learn::by_hand());
    app.insert_resource(Mine(mine)).add_systems(FixedUpdate, lose.in_set(StepSystems::Loss));
    app.update();
    let mut alone = World::new();
    let by_hand = learners(&mut alone, 4, 9);
    let (x, y) = batch(4, 2);
    let loss = CrossEntropyLoss::default();
    alone.population_mut(by_hand).unwrap().train_step(&x, &y, &loss).unwrap();
    assert_eq!(weights(app.world_mut(), mine), weights(&mut alone, by_hand));
}

#[test]
fn hooked_and_shared_models_learn_as_a_whole() {
    let mut app = app(NeurarchPlugin::default());
    let (hooked, plain) = (learners(app.world_mut(), 20, 5), learners(app.world_mut(), 20, 6));
    let hook = |world: &mut World, population: Entity| {
        let model = world.population(population).unwrap().models()[7];
        let mut module = world.module_mut(model).unwrap();
        module.register_forward_hook(|_, _, _| ()).unwrap();
    };
    hook(app.world_mut(), hooked);
    app.add_systems(FixedUpdate, give.in_set(StepSystems::Loss));
    app.update();
    let mut alone = World::new();
    let loss = CrossEntropyLoss::default();
    let (x, y) = batch(20, 0);
    for (population, seed) in [(hooked, 5), (plain, 6)] {
        let by_hand = learners(&mut alone, 20, seed);
        alone.population_mut(by_hand).unwrap().train_step(&x, &y, &loss).unwrap();
        assert_eq!(weights(app.world_mut(), population), weights(&mut alone, by_hand));
        assert_eq!(app.world().get::<Progress>(population).unwrap().steps, 1);
    }
}

#[test]
fn a_population_that_fails_leaves_the_others_alone() {
    let mut app = app(NeurarchPlugin::default());
    let (good, bad) = (learners(app.world_mut(), 3, 1), learners(app.world_mut(), 3, 2));
    let before = weights(app.world_mut(), bad);
    let wide = Array3::<f32>::zeros((3, 6, 5));
    app.world_mut().get_mut::<Minibatch>(bad).unwrap().put(wide, Array2::<i64>::zeros((3, 6)));
    let (x, y) = batch(3, 0);
    app.world_mut().get_mut::<Minibatch>(good).unwrap().put(x, y);
    app.update();
    assert_eq!(app.world().get::<Progress>(good).unwrap().steps, 1);
    assert_eq!(app.world().get::<Progress>(bad).unwrap().steps, 0);
    assert_eq!(weights(app.world_mut(), bad), before);
    let failures: Vec<_> = app.world_mut().resource_mut::<Messages<StepFailed>>().drain().collect();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].population, bad);
    assert!(failures[0].error.to_string().contains("(6x5 and 4x8)"), "{}", failures[0].error);
    // Another number of models is told before anything runs.
    let (x, y) = batch(4, 0);
    app.world_mut().get_mut::<Minibatch>(bad).unwrap().put(x, y);
    app.update();
    let failures: Vec<_> = app.world_mut().resource_mut::<Messages<StepFailed>>().drain().collect();
    assert_eq!(failures[0].error.to_string(), "x: expected numbers for 3 models, got 4");
    // It goes on with a right one.
    let (x, y) = batch(3, 0);
    app.world_mut().get_mut::<Minibatch>(bad).unwrap().put(x, y);
    app.update();
    assert_eq!(app.world().get::<Progress>(bad).unwrap().steps, 1);
}

#[test]
fn one_member_diverges_and_is_reset_alone() {
    fn reset(world: &mut World) {
        let mut diverged = world.resource_mut::<Messages<TrainingDiverged>>();
        for TrainingDiverged { model, .. } in diverged.drain().collect::<Vec<_>>() {
            world.module_mut(model).unwrap().reset_parameters().unwrap();
        }
    }
    let mut app = app(NeurarchPlugin::default());
    let mine = learners(app.world_mut(), 20, 1);
    let victim = app.world().population(mine).unwrap().models()[13];
    let mut module = app.world_mut().module_mut(victim).unwrap();
    let broken = ndarray::Array1::<f32>::from_elem(2, f32::NAN);
    module.set_parameter("2.bias", broken.view()).unwrap();
    app.add_systems(FixedUpdate, give.in_set(StepSystems::Loss));
    app.update();
    let told: Vec<_> = app
        .world()
        .resource::<Messages<TrainingDiverged>>()
        .iter_current_update_messages()
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].population, told[0].model), (mine, victim));
    assert!(told[0].loss.is_nan());
    app.add_systems(FixedUpdate, reset.in_set(StepSystems::Observe));
    app.update();
    let losses = &app.world().get::<Progress>(mine).unwrap().losses;
    assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    let stepped = app.world().resource::<Messages<PopulationStepped>>();
    assert!(stepped.iter_current_update_messages().all(|told| told.population == mine));
}

#[test]
fn systems_may_be_placed_by_the_host() {
    let mut app = app(NeurarchPlugin::default().with_default_system_setup(false));
    let mine = learners(app.world_mut(), 3, 1);
    app.edit_schedule(Update, order_step);
    app.add_systems(Update, give.in_set(StepSystems::Loss));
    app.add_systems(Update, get_systems(StepSystems::Learn));
    app.update();
    app.update();
    assert_eq!(app.world().get::<Progress>(mine).unwrap().steps, 2);
}

#[test]
fn the_systems_are_in_the_schedule_that_was_named_and_in_their_order() {
    #[derive(Resource, Default)]
    struct Ran(Vec<&'static str>);
    let tell = |name: &'static str| move |mut ran: ResMut<Ran>| ran.0.push(name);
    let mut app = app(NeurarchPlugin::default().in_schedule(Update));
    learners(app.world_mut(), 3, 1);
    app.init_resource::<Ran>();
    app.add_systems(Update, tell("loss").in_set(StepSystems::Loss));
    app.add_systems(Update, tell("act").in_set(StepSystems::Act));
    app.add_systems(Update, tell("learned").after(StepSystems::Learn));
    app.add_systems(Update, tell("observe").in_set(StepSystems::Observe));
    app.add_systems(Update, tell("forward").in_set(StepSystems::Forward));
    app.add_systems(Learning, tell("schedule").after(StepSystems::Schedule));
    app.add_systems(Learning, tell("backward").before(StepSystems::Backward));
    app.update();
    let order = ["observe", "forward", "act", "loss", "backward", "schedule", "learned"];
    assert_eq!(app.world().resource::<Ran>().0, order);
}

#[test]
fn a_plain_schedule_has_a_budget_for_each_run() {
    let mut world = World::new();
    world.insert_resource(neurarch::plugin::TrainingBudget::tiles(1));
    let mine = learners(&mut world, 32, 1);
    let mut schedule = Schedule::default();
    add_neurarch(&mut schedule);
    schedule.add_systems(give.in_set(StepSystems::Loss));
    schedule.run(&mut world);
    assert_eq!(world.get::<Progress>(mine).unwrap().waiting, 16);
    schedule.run(&mut world);
    assert_eq!(world.get::<Progress>(mine).unwrap().steps, 1);
}
