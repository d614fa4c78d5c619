//! Panics of what users wrote, and calls that the host makes in the middle of others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array2, Array3};
use neurarch::bevy_ecs::prelude::*;
use neurarch::components::hook::Callback;
use neurarch::hooks::At;
use neurarch::prelude::*;

/// Panics in `forward` if it is told to.
#[derive(Component, Clone, Debug, PartialEq)]
struct Fragile {
    breaks: bool,
}

impl Module for Fragile {
    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        assert!(!self.breaks, "no such gate");
        x
    }
}

fn x(models: usize) -> Array3<f32> {
    Array3::ones((models, 5, 4))
}

fn y(models: usize) -> Array2<i64> {
    Array2::ones((models, 5))
}

fn spawn(world: &mut World, breaks: bool) -> Entity {
    let model = Sequential::new().push(Linear::new(4, 3)).push(Fragile { breaks });
    let population = world.spawn_population(&model, 2, Seed(1)).unwrap().id();
    world.population_mut(population).unwrap().insert(SGD::default()).unwrap();
    population
}

#[test]
fn a_forward_that_panics_is_an_error_that_names_its_module() {
    let mut world = World::new();
    let p = spawn(&mut world, true);
    let said = "1 (Fragile): forward panicked: no such gate";
    let before = world.population_mut(p).unwrap().stacked_state_dict().unwrap();
    for is_hooked in [false, true] {
        let called = Arc::new(AtomicUsize::new(0));
        if is_hooked {
            let count = called.clone();
            let always = move |_: &At<'_>, _: &Arguments, y: Option<&Tree>| {
                assert!(y.is_none());
                count.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            };
            let options = HookOptions { always_call: true, ..HookOptions::default() };
            world
                .population_mut(p)
                .unwrap()
                .at("1")
                .register_hook_with(Callback::Forward(Box::new(always)), options)
                .unwrap();
        }
        assert_eq!(world.population_mut(p).unwrap().forward(&x(2)).unwrap_err().to_string(), said);
        let step =
            world.population_mut(p).unwrap().train_step(&x(2), &y(2), &CrossEntropyLoss::default());
        assert_eq!(step.unwrap_err().to_string(), said);
        assert_eq!(called.load(Ordering::Relaxed), if is_hooked { 2 } else { 0 });
    }
    assert_eq!(world.population_mut(p).unwrap().stacked_state_dict().unwrap(), before);
}

/// Panics.
#[derive(Clone, Debug, PartialEq)]
struct Broken;

impl Loss for Broken {
    fn forward_with(&self, _: &LossCall<'_>, _: Tree, _: &Var) -> Var {
        panic!("no loss")
    }
}

#[test]
fn a_loss_that_panics_is_an_error_and_the_forward_pass_is_still_there() {
    let mut world = World::new();
    let p = spawn(&mut world, false);
    let expected = world.population_mut(p).unwrap().forward(&x(2)).unwrap();
    let said = "the loss panicked: no loss";
    assert_eq!(
        world.population_mut(p).unwrap().loss::<f32, _>(&y(2), &Broken).unwrap_err().to_string(),
        said
    );
    assert_eq!(
        world.population_mut(p).unwrap().train_step(&x(2), &y(2), &Broken).unwrap_err().to_string(),
        said
    );
    world.population_mut(p).unwrap().loss::<f32, _>(&y(2), &CrossEntropyLoss::default()).unwrap();
    world.population_mut(p).unwrap().backward().unwrap();
    assert_eq!(world.population_mut(p).unwrap().forward(&x(2)).unwrap(), expected);
}

#[test]
fn modes_are_as_before_after_a_panic() {
    let mut world = World::new();
    let p = spawn(&mut world, false);
    let panics = |world: &mut World, run: fn(&mut World)| {
        assert!(catch_unwind(AssertUnwindSafe(|| run(world))).is_err());
    };
    panics(&mut world, |world| world.no_grad(|_| panic!("in no_grad")));
    panics(&mut world, |world| world.autocast(Dtype::BF16, |_| panic!("in autocast")));
    assert!(!world.is_autocast_enabled());
    world.population_mut(p).unwrap().forward(&x(2)).unwrap();
    world.population_mut(p).unwrap().loss::<f32, _>(&y(2), &CrossEntropyLoss::default()).unwrap();
    world.population_mut(p).unwrap().backward().unwrap();
}

#[test]
fn a_closure_that_panics_changes_nothing() {
    let mut world = World::new();
    let p = spawn(&mut world, false);
    let roots = world.population(p).unwrap().models().to_vec();
    let by_model = |model: usize| match model {
        0 => Adam::default(),
        _ => panic!("no rate"),
    };
    let insert = || world.population_mut(p).unwrap().insert_with(by_model).map(drop);
    assert!(catch_unwind(AssertUnwindSafe(insert)).is_err());
    assert!(roots.iter().all(|&root| world.get::<Adam>(root).is_none()));
    assert!(roots.iter().all(|&root| world.get::<SGD>(root).is_some()));
    let before = world.population_mut(p).unwrap().stacked_state_dict().unwrap();
    let fill = || world.population_mut(p).unwrap().fill_with("0.weight", |_| panic!("no fans"));
    assert!(catch_unwind(AssertUnwindSafe(fill)).is_err());
    assert_eq!(world.population_mut(p).unwrap().stacked_state_dict().unwrap(), before);
    world
        .population_mut(p)
        .unwrap()
        .train_step(&x(2), &y(2), &CrossEntropyLoss::default())
        .unwrap();
}

#[test]
fn losses_of_no_targets_are_nan_also_where_a_hook_changes_something() {
    for is_hooked in [false, true] {
        let mut world = World::new();
        let p = spawn(&mut world, false);
        if is_hooked {
            let twice = |_: &At<'_>, _: &Arguments, y: Option<&Tree>| {
                Ok(y.and_then(|y| y.leaf()).map(|y| Tree::Leaf(y * 2.0)))
            };
            world.population_mut(p).unwrap().register_forward_hook(twice).unwrap();
        }
        let (x, y) = (Array3::<f32>::zeros((2, 0, 4)), Array2::<i64>::zeros((2, 0)));
        let losses = world
            .population_mut(p)
            .unwrap()
            .train_step(&x, &y, &CrossEntropyLoss::default())
            .unwrap();
        assert!(losses.iter().all(|loss| loss.is_nan()), "{losses}");
        world.population_mut(p).unwrap().forward(&x).unwrap();
        let losses = world
            .population_mut(p)
            .unwrap()
            .loss::<f32, _>(&y, &CrossEntropyLoss::default())
            .unwrap();
        assert!(losses.iter().all(|loss| loss.is_nan()), "{losses}");
        world.population_mut(p).unwrap().backward().unwrap();
    }
}

#[derive(Resource, Default)]
struct Watched(Option<Entity>);

#[test]
fn an_observer_may_run_the_models_while_others_are_made() {
    let mut world = World::new();
    world.init_resource::<Watched>();
    world.add_observer(|_: On<Add<Linear>>, mut commands: Commands<'_, '_>| {
        commands.queue(|world: &mut World| {
            let Some(p) = world.resource::<Watched>().0 else { return };
            let n = world.population(p).map(|brains| brains.models()).map_or(0, <[_]>::len);
            // What runs is up to how far the call has come.
            let _ = world.population_mut(p).unwrap().forward(&x(n));
            let _ = world.population_mut(p).unwrap().train_step(
                &x(n),
                &y(n),
                &CrossEntropyLoss::default(),
            );
        });
    });
    let p = spawn(&mut world, false);
    world.population_mut(p).unwrap().forward(&x(2)).unwrap();
    world.resource_mut::<Watched>().0 = Some(p);
    assert_eq!(world.population_mut(p).unwrap().spawn_models(3).unwrap().len(), 3);
    assert_eq!(world.population_mut(p).unwrap().clone_models(&[0, 1]).unwrap().len(), 2);
    let root = world.population(p).unwrap().models()[0];
    world.module_mut(root).unwrap().container().append(Linear::new(3, 3)).unwrap();
    world.module_mut(root).unwrap().container().set(0, Linear::new(4, 3)).unwrap();
    world.resource_mut::<Watched>().0 = None;
    world.population_mut(p).unwrap().insert(SGD::default()).unwrap();
    let n = world.population(p).unwrap().models().len();
    assert_eq!(world.population_mut(p).unwrap().forward(&x(n)).unwrap().shape(), [n, 5, 3]);
    world
        .population_mut(p)
        .unwrap()
        .train_step(&x(n), &y(n), &CrossEntropyLoss::default())
        .unwrap();
}

#[test]
fn an_observer_may_despawn_the_models_that_are_being_made() {
    let mut world = World::new();
    // Whoever despawns a parent while its child is made has bevy's own command fail, which panics by default.
    world.add_observer(|add: On<Add<Linear>>, mut commands: Commands<'_, '_>| {
        let module = add.entity;
        commands.queue(move |world: &mut World| {
            world.despawn(module);
        });
    });
    let model = Sequential::new().push(Linear::new(4, 8)).push(Tanh).push(Linear::new(8, 3));
    for _ in 0..2 {
        if let Ok(p) = world.spawn_population(&model, 3, Seed(1)).map(|brains| brains.id()) {
            let n = world.population(p).unwrap().models().len();
            let _ = world.population_mut(p).unwrap().forward(&x(n));
            let _ = world.population_mut(p).unwrap().spawn_models(2);
        }
        let _ = world.spawn_population(&Linear::new(4, 3), 3, Seed(1)).map(|brains| brains.id());
    }
}
