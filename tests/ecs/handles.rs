//! Handles: a world and the entity of a population or a module, as bevy's `EntityWorldMut` is.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ndarray::{Array2, Array3, Axis};
use neurarch::prelude::*;
use neurarch::systems::structure::access::AccessError;
use neurarch::systems::structure::mode;
use neurarch::systems::structure::sign::SignError;

fn brain() -> Sequential {
    Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 2))
}

#[test]
fn a_handle_of_what_is_no_population_or_not_there_is_an_error() {
    let mut world = World::new();
    let stranger = world.spawn_empty().id();
    let none = SignError::NotAPopulation(stranger);
    assert_eq!(world.population(stranger).unwrap_err(), none);
    assert_eq!(world.population_mut(stranger).unwrap_err(), none);
    world.despawn(stranger);
    assert_eq!(world.module(stranger).unwrap_err(), AccessError::NotAModule(stranger));
    assert_eq!(world.module_mut(stranger).unwrap_err(), AccessError::NotAModule(stranger));
}

#[test]
fn after_a_despawn_all_methods_give_errors() {
    let mut world = World::new();
    let mut brains = world.spawn_population(&brain(), 3, Seed(1)).unwrap();
    let id = brains.id();
    brains.world_mut().despawn(id);
    let x = Array3::<f32>::ones((3, 2, 3));
    assert!(brains.forward(&x).is_err());
    assert!(brains.at("0").forward(&x).is_err());
    assert!(brains.train_step(&x, &x, &MSELoss::default()).is_err());
    assert!(brains.eval().is_err());
    assert!(brains.models().is_err() && brains.model(0).is_err() && brains.as_ref().is_err());
    assert!(brains.insert(SGD::default()).is_err());
    assert!(brains.register_forward_hook(|_, _, _| Ok(None)).is_err());
    assert!(brains.stacked_state_dict().is_err());
    let mut world = World::new();
    let mut brains = world.spawn_population(&brain(), 3, Seed(1)).unwrap();
    let mut head = brains.model(1).unwrap().at("2").unwrap();
    let id = head.id();
    head.world_mut().despawn(id);
    assert!(head.parameter::<f32>("weight").is_err() && head.as_ref().is_err());
    assert!(head.forward(&Array2::<f32>::ones((2, 4))).is_err());
}

#[test]
fn what_toggles_gives_the_handle_back() {
    let mut world = World::new();
    let brain = brain().push(Dropout { p: 0.5 });
    let mut brains = world.spawn_population(&brain, 3, Seed(1)).unwrap();
    let x = Array3::<f32>::ones((3, 2, 3));
    let y = brains.eval().unwrap().forward(&x).unwrap();
    assert_eq!(brains.requires_grad_(false).unwrap().forward(&x).unwrap(), y);
    assert!(brains.train_step(&x, &y, &MSELoss::default()).is_err(), "no optimizer");
    let mut first = brains.model(0).unwrap();
    let of_one = first.train().unwrap().forward(&Array2::<f32>::ones((2, 3))).unwrap();
    assert_ne!(of_one, y.index_axis(Axis(0), 0));
}

#[test]
fn modes_are_as_before_after_a_panic() {
    let mut world = World::new();
    let mut brains = world.spawn_population(&brain(), 3, Seed(1)).unwrap();
    let x = Array3::<f32>::ones((3, 2, 3));
    let panics = catch_unwind(AssertUnwindSafe(|| {
        brains.no_grad(|brains| {
            brains.forward(&x).unwrap();
            brains.autocast(Dtype::BF16, |_| panic!("a user's own"));
        });
    }));
    assert!(panics.is_err());
    assert!(mode::is_grad_enabled(brains.world()) && !mode::is_autocast_enabled(brains.world()));
    let y = brains.no_grad(|brains| brains.forward(&x)).unwrap();
    assert!(brains.backward_from(&y).is_err(), "nothing was kept");
    let y = brains.forward(&x).unwrap();
    brains.backward_from(&y).unwrap();
}

#[test]
fn one_position_is_that_module_in_every_model() {
    let mut world = World::new();
    let mut brains = world.spawn_population(&brain(), 3, Seed(1)).unwrap();
    brains.insert(SGD::default()).unwrap();
    brains.at("0").insert_with(|model| SGD { lr: model as f64, ..SGD::default() }).unwrap();
    for model in 0..3 {
        let layer = brains.model(model).unwrap().at("0").unwrap();
        assert_eq!(layer.as_ref().unwrap().get::<SGD>().map(|sgd| sgd.lr), Some(model as f64));
        let root = brains.model(model).unwrap();
        assert_eq!(root.as_ref().unwrap().get::<SGD>(), Some(&SGD::default()));
    }
    assert!(brains.at("7").insert(SGD::default()).is_err());
    let error = brains.model(3).unwrap_err();
    assert_eq!(error.to_string(), "index 3 is out of range of 3 models");
}

#[test]
fn handles_read_without_a_change() {
    let mut world = World::new();
    let id = world.spawn_population(&brain(), 3, Seed(1)).unwrap().id();
    let stacked = world.population_mut(id).unwrap().stack::<f32>("0.weight").unwrap();
    let brains = world.population(id).unwrap();
    assert_eq!((brains.len(), brains.is_empty(), brains.dtype()), (3, false, Dtype::F32));
    let second = brains.model(1).unwrap();
    assert_eq!(second.parameter::<f32>("0.weight").unwrap(), stacked.index_axis(Axis(0), 1));
    assert_eq!(second.named_parameters().unwrap().len(), 4);
    assert_eq!(second.state_dict().unwrap().len(), 4);
    // What was edited and is not settled is an error, never what was there before.
    let layer = world.module_mut(world.population(id).unwrap().models()[1]).unwrap().at("0");
    let layer = layer.unwrap().id();
    world.entity_mut(layer).insert(Linear::new(3, 5));
    let read = world.module(layer).unwrap().parameter::<f32>("weight").map(|weight| weight.len());
    assert!(matches!(read, Err(AccessError::Unsettled { .. })), "{read:?}");
    world.population_mut(id).unwrap().settle().unwrap();
    assert_eq!(world.module(layer).unwrap().parameter::<f32>("weight").unwrap().len(), 15);
}
