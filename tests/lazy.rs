//! Lazy modules: shapes come from the first call or from a state dict, for a whole population at once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ndarray::{Array2, Array3};
use neurarch::bevy_ecs::prelude::*;
use neurarch::prelude::*;
use neurarch::systems::lazy::{has_uninitialized_params, uninitialized_params};

const MODELS: usize = 3;

fn network() -> Sequential {
    Sequential::new().push(LazyLinear::new(4)).push(Tanh).push(LazyLinear::new(2).without_bias())
}

fn spawned() -> (World, Entity, Entity) {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
    let root = world.models(brains).unwrap()[0];
    (world, brains, root)
}

#[test]
fn before_the_first_call_shapes_are_unknown_and_asking_is_torchs_error() {
    let (mut world, _, root) = spawned();
    assert!(has_uninitialized_params(&mut world, root).unwrap());
    let names = ["0.weight", "0.bias", "2.weight"];
    assert_eq!(uninitialized_params(&mut world, root).unwrap(), names);
    assert_eq!(world.parameter_names(root).unwrap(), names);
    let state = world.state_dict(root).unwrap();
    assert!(state.iter().all(|tensor| tensor.is_uninitialized()));
    let error = world.parameter::<f32>(root, "0.weight").unwrap_err().to_string();
    assert!(error.contains("Can't access the shape of an uninitialized parameter"), "{error}");
    let path = std::env::temp_dir().join(format!("neurarch-lazy-{}", std::process::id()));
    let error = neurarch::state::safetensors::save(&path, &state).unwrap_err().to_string();
    assert!(error.contains("uninitialized parameter") && !path.exists(), "{error}");
}

#[test]
fn the_first_call_initializes_all_models_with_their_own_numbers() {
    let (mut world, brains, root) = spawned();
    let x = Array3::<f32>::ones((MODELS, 5, 3));
    let y = world.forward(brains, &x).unwrap();
    assert_eq!(y.shape(), [MODELS, 5, 2]);
    assert!(!has_uninitialized_params(&mut world, root).unwrap());
    let module = world.module(root, "0").unwrap();
    assert_eq!(world.get::<Linear>(module), Some(&Linear::new(3, 4)));
    assert!(world.get::<LazyLinear>(module).is_none());

    // The numbers are those of a population that was never lazy.
    let plain = Sequential::new().push(Linear::new(3, 4)).push(Tanh);
    let plain = plain.push(Linear::new(4, 2).without_bias());
    let mut other = World::new();
    let others = other.spawn_population(&plain, MODELS, Seed(1)).unwrap();
    assert_eq!(other.forward(others, &x).unwrap(), y);
}

#[test]
fn training_initializes_too_and_shapes_that_do_not_fit_change_nothing() {
    let (mut world, brains, root) = spawned();
    world.insert(brains, Adam::default()).unwrap();
    let error = world.forward(brains, &ndarray::Array1::<f32>::ones(MODELS)).unwrap_err();
    assert!(error.to_string().contains("at least one axis"), "{error}");
    assert!(has_uninitialized_params(&mut world, root).unwrap());
    let targets = Array2::<i64>::zeros((MODELS, 5));
    let x = Array3::<f32>::ones((MODELS, 5, 6));
    world.train_step(brains, &x, &targets, &CrossEntropyLoss::default()).unwrap();
    assert_eq!(world.stack::<f32>(brains, "0.weight").unwrap().shape(), [MODELS, 4, 6]);
}
