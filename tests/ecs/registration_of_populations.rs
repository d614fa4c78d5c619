//! Registration in all models of a population at once: as in each of them, planned together, or nothing at all.

use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3, array};
use neurarch::components::module::Init;
use neurarch::components::module::registered::{Attributes, Registered};
use neurarch::prelude::*;

const MODELS: usize = 5;

fn brains() -> (World, Entity) {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 2));
    let population = world.spawn_population(&net, MODELS, Seed(1)).unwrap();
    world.insert(population, Adam::default()).unwrap();
    (world, population)
}

fn train(world: &mut World, population: Entity) {
    let x = Array3::from_shape_fn((MODELS, 6, 3), |(m, i, j)| ((m + i * 2 + j) % 5) as f32 - 2.0);
    let targets = Array2::from_shape_fn((MODELS, 6), |(m, i)| ((m + i) % 2) as i64);
    world.train_step(population, &x, &targets, &CrossEntropyLoss::default()).unwrap();
}

/// Everything that the models have.
fn everything(world: &mut World, population: Entity) -> Vec<Tensor> {
    let mut all = Vec::new();
    for root in world.models(population).unwrap().to_vec() {
        all.extend(world.state_dict(root).unwrap());
        all.extend(world.training_state(root).unwrap());
    }
    all
}

/// Edits all models at once, and the same models one by one; both come to the same.
fn alike(edit: impl Fn(&mut World, Target)) {
    let (mut world, together) = brains();
    let (mut other, apart) = brains();
    train(&mut world, together);
    train(&mut other, apart);
    edit(&mut world, (together, "2").into());
    for root in other.models(apart).unwrap().to_vec() {
        let module = other.module(root, "2").unwrap();
        edit(&mut other, module.into());
    }
    let (a, b) = (everything(&mut world, together), everything(&mut other, apart));
    assert!(a == b, "{:?}", a.iter().zip(&b).find(|(a, b)| a != b));
}

#[test]
fn an_edit_of_all_models_is_that_of_each() {
    let numbers = || Value::parameter(array![0.5_f32, -1.0].view());
    alike(|world, at| world.register_parameter(at, "scale", numbers()).unwrap());
    alike(|world, at| {
        let drawn = Value::drawn_parameter([7], Init::Uniform { low: -1.0, high: 1.0 });
        world.register_parameter(at, "drawn", drawn).unwrap();
    });
    alike(|world, at| world.register_parameter(at, "nothing", Value::None).unwrap());
    alike(|world, at| {
        world.register_buffer(at, "mask", Value::tensor(array![1_i64, 0].view()), false).unwrap();
    });
    // In the place of what is there, whose gradient and state go.
    alike(|world, at| world.setattr(at, "bias", numbers()).unwrap());
    alike(|world, at| world.setattr(at, "bias", Value::None).unwrap());
    alike(|world, at| world.setattr(at, "extra", Value::module(Linear::new(2, 2))).unwrap());
    alike(|world, at| world.setattr(at, "word", Value::Other("str")).unwrap());
    alike(|world, at| {
        world.setattr(at.clone(), "extra", Value::module(Tanh)).unwrap();
        world.setattr(at.clone(), "extra", numbers()).unwrap();
        world.setattr(at.clone(), "extra2", Value::buffer(array![3.0_f32].view(), true)).unwrap();
        world.setattr(at.clone(), "extra2", Value::tensor(array![4.0_f32].view())).unwrap();
        world.setattr(at.clone(), "extra2", Value::module(ReLU)).unwrap();
        world.setattr(at.clone(), "extra2", Value::None).unwrap();
        world.setattr(at, "bias", numbers()).unwrap();
    });
    alike(|world, at| world.delattr(at, "bias").unwrap());
    alike(|world, at| {
        world.setattr(at.clone(), "extra", Value::module(Tanh)).unwrap();
        world.delattr(at.clone(), "extra").unwrap();
        world.setattr(at.clone(), "word", Value::Other("str")).unwrap();
        world.delattr(at, "word").unwrap();
    });
}

#[test]
fn the_population_stays_one_blueprint_and_learns_on() {
    let (mut world, population) = brains();
    train(&mut world, population);
    let drawn = Value::drawn_parameter([2], Init::Ones);
    world.setattr((population, "2"), "bias", drawn).unwrap();
    train(&mut world, population);
    let stacked = world.stacked_state_dict(population).unwrap();
    assert_eq!(stacked.get("2.bias").unwrap().shape(), [MODELS, 2]);
    assert_eq!(world.query::<&Registered>().iter(&world).count(), MODELS);
}

#[test]
fn hooks_are_asked_once_for_each_structure() {
    let (mut world, population) = brains();
    let first = world.models(population).unwrap()[0];
    world.register_parameter(first, "own", Value::None).unwrap();
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    let handle = world
        .register_module_parameter_registration_hook(move |_, _| {
            *count.lock().unwrap() += 1;
            Ok(Some(Value::parameter(array![9.0_f32].view())))
        })
        .unwrap();
    let value = Value::parameter(array![1.0_f32, 2.0].view());
    world.register_parameter((population, "0"), "scale", value).unwrap();
    assert_eq!(*asked.lock().unwrap(), 2);
    handle.remove();
    let last = world.models(population).unwrap()[MODELS - 1];
    assert_eq!(world.parameter::<f32>(last, "0.scale").unwrap(), array![9.0].into_dyn());
}

#[test]
fn what_one_model_refuses_is_done_in_none() {
    let (mut world, population) = brains();
    train(&mut world, population);
    let root = world.models(population).unwrap()[3];
    let module = world.module(root, "2").unwrap();
    world.setattr(module, "word", Value::Other("str")).unwrap();
    let before = everything(&mut world, population);
    let refused = |world: &mut World, words: &str, result: Result<(), _>| {
        let error: neurarch::systems::edit::registration::RegistrationError = result.unwrap_err();
        assert_eq!(error.to_string(), words);
        assert!(everything(world, population) == before);
    };
    let one = || Value::parameter(array![1.0_f32].view());
    let all = || (population, "2");
    // The name is in use in one model alone.
    let result = world.register_parameter(all(), "word", one());
    refused(&mut world, "attribute 'word' already exists", result);
    let result = world.register_buffer(all(), "word", Value::None, true);
    refused(&mut world, "attribute 'word' already exists", result);
    let result = world.delattr(all(), "word");
    refused(&mut world, "'Linear' object has no attribute 'word'", result);
    let result = world.setattr(all(), "weight", Value::Other("str"));
    let words = "cannot assign 'str' as parameter 'weight' (torch.nn.Parameter or None expected)";
    refused(&mut world, words, result);
    let result = world.setattr((population, "5"), "scale", one());
    refused(&mut world, "Sequential has no attribute `5`", result);
    let result = world.setattr(Target::All, "scale", one());
    refused(&mut world, "expected a module, or a population and a path, got all modules", result);
    assert_eq!(world.get::<Attributes>(module).unwrap().0.len(), 1);
    assert_eq!(world.query::<&Attributes>().iter(&world).count(), 1);
}

#[test]
fn what_is_registered_after_parametrizations_were_removed_comes_after_what_they_were_of() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(3, 5), 2, Seed(1)).unwrap();
    let root = world.models(layers).unwrap()[0];
    let one = || Value::parameter(ndarray::arr1(&[1.0_f32]).view());
    let again = |world: &mut World, name| {
        world.weight_norm(root, name, Some(0)).unwrap();
        world.remove_parametrizations(root, name, true).unwrap();
    };
    // A new model has its names in the order of the first.
    let expect = |world: &mut World, expected: &[&str]| {
        let spawned = world.spawn_models(layers, 1).unwrap()[0];
        for root in [root, spawned] {
            assert_eq!(world.parameter_names(root).unwrap(), expected);
        }
    };
    world.register_parameter(root, "scale", one()).unwrap();
    again(&mut world, "weight");
    expect(&mut world, &["bias", "scale", "weight"]);
    world.register_parameter(root, "shift", one()).unwrap();
    expect(&mut world, &["bias", "scale", "weight", "shift"]);
    again(&mut world, "bias");
    expect(&mut world, &["scale", "weight", "shift", "bias"]);
    world.setattr(root, "bias", Value::None).unwrap();
    again(&mut world, "weight");
    expect(&mut world, &["scale", "shift", "weight"]);
    world.delattr(root, "scale").unwrap();
    expect(&mut world, &["shift", "weight"]);
}
