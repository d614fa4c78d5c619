//! Hosts do what hosts do, with systems that run on many threads, while their brains think and learn.

use bevy_ecs::schedule::MultiThreadedExecutor;
use neurarch::plugin::{
    Actions, Learning, Model, Observations, Population, StepFailed, Think, TrainingBudget,
};

use super::*;

#[derive(Resource)]
struct Brains([Entity; 2]);

#[derive(Resource, Default)]
struct Frame(u64);

#[derive(Component)]
struct Tag;

#[derive(Component)]
struct Body;

fn count(mut frame: ResMut<Frame>) {
    frame.0 += 1;
}

fn spawn_and_despawn(
    frame: Res<Frame>,
    brains: Res<Brains>,
    populations: Query<&Population>,
    mut commands: Commands,
) {
    for (number, &population) in brains.0.iter().enumerate() {
        let models = populations.get(population).unwrap().models();
        let at = (frame.0 as usize * 7 + number * 3) % models.len();
        match frame.0 % 3 {
            0 if models.len() > 20 => commands.entity(models[at]).despawn(),
            1 => {
                commands.entity(models[at]).clone_and_spawn_with_opt_out(|cloner| {
                    cloner.linked_cloning(true);
                });
            }
            _ => {}
        }
    }
}

fn tag(
    frame: Res<Frame>,
    models: Query<(Entity, Has<Tag>), With<Model>>,
    layers: Query<(Entity, Has<Tag>), With<Linear>>,
    mut commands: Commands,
) {
    let all = models.iter().chain(&layers).enumerate();
    for (_, (entity, is_tagged)) in all.filter(|(at, _)| (*at as u64 + frame.0).is_multiple_of(5)) {
        match is_tagged {
            true => commands.entity(entity).try_remove::<Tag>(),
            false => commands.entity(entity).try_insert(Tag),
        };
    }
}

fn reparent(
    frame: Res<Frame>,
    models: Query<Entity, With<Model>>,
    bodies: Query<Entity, With<Body>>,
    mut commands: Commands,
) {
    let bodies: Vec<_> = bodies.iter().collect();
    for (at, model) in
        models.iter().enumerate().filter(|(at, _)| (*at as u64 + frame.0).is_multiple_of(9))
    {
        match bodies.get((at + frame.0 as usize) % (bodies.len() + 1)) {
            Some(&body) => commands.entity(model).try_insert(ChildOf(body)),
            None => commands.entity(model).try_remove::<ChildOf>(),
        };
    }
}

fn see(mut populations: Query<(&Population, &mut Observations)>) {
    for (population, mut observations) in &mut populations {
        let see = |(model, at)| (model + 2 * at) as f32 / 30.0;
        observations.0 = Array2::from_shape_fn((population.len(), 4), see).into_dyn();
    }
}

fn act(populations: Query<(&Population, &Actions)>) {
    for (population, actions) in &populations {
        assert_eq!(actions.0.shape(), [population.len(), 2]);
        assert!(actions.0.iter().all(|action| action.is_finite()));
    }
}

#[test]
fn brains_think_and_learn_while_the_host_goes_about_its_work() {
    let mut app = app(NeurarchPlugin::default().with_budget(TrainingBudget::tiles(2)));
    app.edit_schedule(FixedUpdate, |schedule| {
        schedule.set_executor(MultiThreadedExecutor::new());
    });
    let brains = [1, 2].map(|seed| learners(app.world_mut(), 40, seed));
    for population in brains {
        app.world_mut().entity_mut(population).insert(Think);
    }
    app.world_mut().spawn_batch((0..10).map(|_| Body));
    app.insert_resource(Brains(brains)).init_resource::<Frame>();
    let host = (count, (spawn_and_despawn, tag, reparent)).chain();
    app.add_systems(FixedUpdate, host.before(StepSystems::Observe));
    app.add_systems(FixedUpdate, see.in_set(StepSystems::Observe));
    app.add_systems(FixedUpdate, act.in_set(StepSystems::Act));
    app.add_systems(FixedUpdate, give.in_set(StepSystems::Loss));
    for _ in 0..150 {
        app.update();
        let failures = app.world().resource::<Messages<StepFailed>>();
        assert!(failures.is_empty(), "{:?}", failures.iter_current_update_messages().next());
    }
    for population in brains {
        let progress = app.world().get::<Progress>(population).unwrap();
        assert!(progress.steps > 10, "{}", progress.steps);
        let models = app.world().population(population).unwrap().len();
        assert_eq!(progress.losses.len(), models);
    }
}

#[test]
fn learning_pauses_and_goes_on() {
    #[derive(Resource)]
    struct Paused(bool);
    let mut app = app(NeurarchPlugin::default());
    let brains = learners(app.world_mut(), 5, 1);
    app.insert_resource(Paused(true));
    app.configure_sets(FixedUpdate, StepSystems::Learn.run_if(|paused: Res<Paused>| !paused.0));
    app.add_systems(FixedUpdate, give.in_set(StepSystems::Loss));
    let before = weights(app.world_mut(), brains);
    app.update();
    app.update();
    assert_eq!(weights(app.world_mut(), brains), before);
    app.insert_resource(Paused(false));
    app.update();
    assert_eq!(app.world().get::<Progress>(brains).unwrap().steps, 1);
    // A host may even take the schedule away.
    app.world_mut().resource_mut::<neurarch::bevy_ecs::schedule::Schedules>().remove(Learning);
    app.update();
    assert_eq!(app.world().get::<Progress>(brains).unwrap().steps, 1);
}

#[test]
#[should_panic(expected = "indeterminate execution order")]
fn learning_systems_whose_order_is_open_are_an_error() {
    let mut app = app(NeurarchPlugin::default());
    learners(app.world_mut(), 5, 1);
    app.add_systems(Learning, (|_: &mut World| {}).in_set(StepSystems::Step));
    app.update();
}

#[test]
fn rates_change_after_each_step() {
    let mut app = app(NeurarchPlugin::default().with_budget(TrainingBudget::tiles(1)));
    let brains = learners(app.world_mut(), 20, 1);
    let mut handle = app.world_mut().population_mut(brains).unwrap();
    handle.insert(SGD { lr: 1.0, ..SGD::default() }).unwrap();
    handle.schedule(ExponentialLR { gamma: 0.5 }).unwrap();
    app.add_systems(FixedUpdate, give.in_set(StepSystems::Loss));
    let model = app.world().population(brains).unwrap().models()[3];
    let rates: Vec<_> = (0..4)
        .map(|_| {
            app.update();
            app.world().get::<SGD>(model).unwrap().lr
        })
        .collect();
    // Two frames make a step.
    assert_eq!(rates, [1.0, 0.5, 0.5, 0.25]);
}
