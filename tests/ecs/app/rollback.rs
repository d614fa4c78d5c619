//! Rollback of a whole app's tick: what the plugin keeps goes back as well.

use neurarch::plugin::{
    Actions, Checksum, LoadSystems, LoadWorld, ModelRevived, Observations, Rollback,
    RollbackFailed, RollbackPlugin, RollbackTick, SaveWorld, Think, ThinkEvery, TrainingBudget,
};

use super::*;

/// What decides how a tick of the app goes on.
fn state(app: &mut App, population: Entity) -> (Vec<Vec<f32>>, Vec<f32>, u64, usize, Vec<u32>) {
    let weights = weights(app.world_mut(), population);
    let actions = app.world().get::<Actions>(population).unwrap().0.iter().copied().collect();
    let progress = app.world().get::<Progress>(population).unwrap();
    let losses = progress.losses.iter().map(|loss| loss.to_bits()).collect();
    (weights, actions, progress.steps, progress.waiting, losses)
}

/// An app that goes back, whose every update is one fixed tick.
fn app(plugin: NeurarchPlugin) -> App {
    let mut app = App::new();
    app.add_plugins((TimePlugin, plugin, RollbackPlugin))
        .insert_resource(TimeUpdateStrategy::ManualDuration(TICK));
    app.finish();
    app.cleanup();
    app.update();
    app
}

fn set_tick(app: &mut App, tick: u64) {
    app.world_mut().insert_resource(RollbackTick(tick));
}

#[test]
fn an_app_that_goes_back_a_tick_runs_it_again_bit_for_bit() {
    let plugin = NeurarchPlugin::default().with_budget(TrainingBudget::tiles(1));
    let mut app = app(plugin);
    let brains = learners(app.world_mut(), 37, 3);
    let seen = Array2::from_shape_fn((37, 4), |(model, at)| (model * 4 + at) as f32 / 100.0);
    app.world_mut().entity_mut(brains).insert((
        Think,
        ThinkEvery(3),
        Observations(seen.into_dyn()),
        Rollback(4),
        Checksum::default(),
    ));
    app.add_systems(FixedUpdate, give.in_set(StepSystems::Loss));
    let mut states = Vec::new();
    for tick in 0..40 {
        set_tick(&mut app, tick);
        app.world_mut().run_schedule(SaveWorld);
        let before = state(&mut app, brains);
        let sum = *app.world().get::<Checksum>(brains).unwrap();
        app.update();
        app.update();
        let first = state(&mut app, brains);
        set_tick(&mut app, tick);
        app.world_mut().run_schedule(LoadWorld);
        assert_eq!(state(&mut app, brains), before, "back at tick {tick}");
        app.world_mut().run_schedule(SaveWorld);
        assert_eq!(*app.world().get::<Checksum>(brains).unwrap(), sum);
        app.update();
        app.update();
        assert_eq!(state(&mut app, brains), first, "tick {tick} again");
        states.push(first);
    }
    states.dedup();
    assert!(states.len() > 30, "something happens in each tick");
    let failed = app.world_mut().resource_mut::<Messages<RollbackFailed>>().drain().count();
    assert_eq!(failed, 0);
}

#[test]
fn the_host_is_told_which_models_were_made_anew() {
    /// A body that knows its brain.
    #[derive(Component)]
    struct Body(Entity);
    fn follow(mut revived: MessageReader<ModelRevived>, mut bodies: Query<&mut Body>) {
        for told in revived.read() {
            bodies
                .iter_mut()
                .filter(|body| body.0 == told.before)
                .for_each(|mut body| body.0 = told.model);
        }
    }
    let mut app = app(NeurarchPlugin::default());
    app.add_systems(LoadWorld, follow.in_set(LoadSystems::Mapping));
    let brains = learners(app.world_mut(), 5, 3);
    app.world_mut().entity_mut(brains).insert(Rollback(2));
    let roots = app.world().population(brains).unwrap().models().to_vec();
    let bodies: Vec<_> = roots.iter().map(|&root| app.world_mut().spawn(Body(root)).id()).collect();
    set_tick(&mut app, 9);
    app.world_mut().run_schedule(SaveWorld);
    app.world_mut().despawn(roots[1]);
    app.world_mut().run_schedule(LoadWorld);
    let now = app.world().population(brains).unwrap().models().to_vec();
    assert_ne!(now[1], roots[1]);
    let knows: Vec<_> =
        bodies.iter().map(|&body| app.world().get::<Body>(body).unwrap().0).collect();
    assert_eq!(knows, now);
    // A tick that is not there is told, and changes nothing.
    set_tick(&mut app, 8);
    app.world_mut().run_schedule(LoadWorld);
    let failed: Vec<_> =
        app.world_mut().resource_mut::<Messages<RollbackFailed>>().drain().collect();
    assert_eq!((failed.len(), failed[0].tick), (1, 8));
    assert_eq!(app.world().population(brains).unwrap().models(), now);
}
