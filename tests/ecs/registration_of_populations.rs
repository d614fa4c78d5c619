//! Registration in all models of a population at once: as in each of them, planned together, or nothing at all.

use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3, array};
use neurarch::components::module::Init;
use neurarch::components::module::registered::{Attributes, Registered};
use neurarch::hooks::{self, Target};
use neurarch::nn::Value;
use neurarch::prelude::*;

const MODELS: usize = 5;

fn brains() -> (World, Entity) {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 2));
    let population = world.spawn_population(&net, MODELS, Seed(1)).unwrap().id();
    world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
    (world, population)
}

fn train(world: &mut World, population: Entity) {
    let x = Array3::from_shape_fn((MODELS, 6, 3), |(m, i, j)| ((m + i * 2 + j) % 5) as f32 - 2.0);
    let targets = Array2::from_shape_fn((MODELS, 6), |(m, i)| ((m + i) % 2) as i64);
    world
        .population_mut(population)
        .unwrap()
        .train_step(&x, &targets, &CrossEntropyLoss::default())
        .unwrap();
}

/// Everything that the models have.
fn everything(world: &mut World, population: Entity) -> Vec<Tensor> {
    let mut all = Vec::new();
    for root in world.population(population).unwrap().models().to_vec() {
        all.extend(world.module_mut(root).unwrap().state_dict().unwrap());
        all.extend(world.module_mut(root).unwrap().training_state().unwrap());
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
    for root in other.population(apart).unwrap().models().to_vec() {
        let module = other.module_mut(root).unwrap().at("2").unwrap().id();
        edit(&mut other, module.into());
    }
    let (a, b) = (everything(&mut world, together), everything(&mut other, apart));
    assert!(a == b, "{:?}", a.iter().zip(&b).find(|(a, b)| a != b));
}

#[test]
fn an_edit_of_all_models_is_that_of_each() {
    let numbers = || Value::parameter(array![0.5_f32, -1.0].view());
    alike(|world, at| world.target_mut(at).register_parameter("scale", numbers()).unwrap());
    alike(|world, at| {
        let drawn = Value::drawn_parameter([7], Init::Uniform { low: -1.0, high: 1.0 });
        world.target_mut(at).register_parameter("drawn", drawn).unwrap();
    });
    alike(|world, at| world.target_mut(at).register_parameter("nothing", Value::None).unwrap());
    alike(|world, at| {
        world
            .target_mut(at)
            .register_buffer("mask", Value::tensor(array![1_i64, 0].view()), false)
            .unwrap();
    });
    // In the place of what is there, whose gradient and state go.
    alike(|world, at| world.target_mut(at).setattr("bias", numbers()).unwrap());
    alike(|world, at| world.target_mut(at).setattr("bias", Value::None).unwrap());
    alike(|world, at| {
        world.target_mut(at).setattr("extra", Value::module(Linear::new(2, 2))).unwrap()
    });
    alike(|world, at| world.target_mut(at).setattr("word", Value::Other("str".into())).unwrap());
    alike(|world, at| {
        world.target_mut(at.clone()).setattr("extra", Value::module(Tanh)).unwrap();
        world.target_mut(at.clone()).setattr("extra", numbers()).unwrap();
        world
            .target_mut(at.clone())
            .setattr("extra2", Value::buffer(array![3.0_f32].view(), true))
            .unwrap();
        world
            .target_mut(at.clone())
            .setattr("extra2", Value::tensor(array![4.0_f32].view()))
            .unwrap();
        world.target_mut(at.clone()).setattr("extra2", Value::module(ReLU)).unwrap();
        world.target_mut(at.clone()).setattr("extra2", Value::None).unwrap();
        world.target_mut(at).setattr("bias", numbers()).unwrap();
    });
    alike(|world, at| world.target_mut(at).delattr("bias").unwrap());
    alike(|world, at| {
        world.target_mut(at.clone()).setattr("extra", Value::module(Tanh)).unwrap();
        world.target_mut(at.clone()).delattr("extra").unwrap();
        world.target_mut(at.clone()).setattr("word", Value::Other("str".into())).unwrap();
        world.target_mut(at).delattr("word").unwrap();
    });
}

#[test]
fn the_population_stays_one_blueprint_and_learns_on() {
    let (mut world, population) = brains();
    train(&mut world, population);
    let drawn = Value::drawn_parameter([2], Init::Ones);
    world.population_mut(population).unwrap().at("2").setattr("bias", drawn).unwrap();
    train(&mut world, population);
    let stacked = world.population_mut(population).unwrap().stacked_state_dict().unwrap();
    assert_eq!(stacked.get("2.bias").unwrap().shape(), [MODELS, 2]);
    assert_eq!(world.query::<&Registered>().iter(&world).count(), MODELS);
}

#[test]
fn hooks_are_asked_once_for_each_structure() {
    let (mut world, population) = brains();
    let first = world.population(population).unwrap().models()[0];
    world.module_mut(first).unwrap().register_parameter("own", Value::None).unwrap();
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    let handle = hooks::register_module_parameter_registration_hook(&mut world, move |_, _| {
        *count.lock().unwrap() += 1;
        Ok(Some(Value::parameter(array![9.0_f32].view())))
    })
    .unwrap();
    let value = Value::parameter(array![1.0_f32, 2.0].view());
    world.population_mut(population).unwrap().at("0").register_parameter("scale", value).unwrap();
    assert_eq!(*asked.lock().unwrap(), 2);
    handle.remove();
    let last = world.population(population).unwrap().models()[MODELS - 1];
    assert_eq!(
        world.module_mut(last).unwrap().parameter::<f32>("0.scale").unwrap(),
        array![9.0].into_dyn()
    );
}

#[test]
fn what_one_model_refuses_is_done_in_none() {
    let (mut world, population) = brains();
    train(&mut world, population);
    let root = world.population(population).unwrap().models()[3];
    let module = world.module_mut(root).unwrap().at("2").unwrap().id();
    world.module_mut(module).unwrap().setattr("word", Value::Other("str".into())).unwrap();
    let before = everything(&mut world, population);
    let refused = |world: &mut World, words: &str, result: Result<(), _>| {
        let error: neurarch::systems::edit::registration::RegistrationError = result.unwrap_err();
        assert_eq!(error.to_string(), words);
        assert!(everything(world, population) == before);
    };
    let one = || Value::parameter(array![1.0_f32].view());
    let all = || (population, "2");
    // The name is in use in one model alone.
    let result = world.target_mut(all()).register_parameter("word", one());
    refused(&mut world, "attribute 'word' already exists", result);
    let result = world.target_mut(all()).register_buffer("word", Value::None, true);
    refused(&mut world, "attribute 'word' already exists", result);
    let result = world.target_mut(all()).delattr("word");
    refused(&mut world, "'Linear' object has no attribute 'word'", result);
    let result = world.target_mut(all()).setattr("weight", Value::Other("str".into()));
    let words = "cannot assign 'str' as parameter 'weight' (torch.nn.Parameter or None expected)";
    refused(&mut world, words, result);
    let result = world.population_mut(population).unwrap().at("5").setattr("scale", one());
    refused(&mut world, "Sequential has no attribute `5`", result);
    let result = world.target_mut(Target::All).setattr("scale", one());
    refused(&mut world, "expected a module, or a population and a path, got all modules", result);
    assert_eq!(world.get::<Attributes>(module).unwrap().0.len(), 1);
    assert_eq!(world.query::<&Attributes>().iter(&world).count(), 1);
}

#[test]
fn what_is_registered_after_parametrizations_were_removed_comes_after_what_they_were_of() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(3, 5), 2, Seed(1)).unwrap().id();
    let root = world.population(layers).unwrap().models()[0];
    let one = || Value::parameter(ndarray::arr1(&[1.0_f32]).view());
    let again = |world: &mut World, name| {
        world.module_mut(root).unwrap().weight_norm(name, Some(0)).unwrap();
        world.module_mut(root).unwrap().remove_parametrizations(name, true).unwrap();
    };
    // A new model has its names in the order of the first.
    let expect = |world: &mut World, expected: &[&str]| {
        let spawned = world.population_mut(layers).unwrap().spawn_models(1).unwrap()[0];
        for root in [root, spawned] {
            assert_eq!(world.module_mut(root).unwrap().parameter_names().unwrap(), expected);
        }
    };
    world.module_mut(root).unwrap().register_parameter("scale", one()).unwrap();
    again(&mut world, "weight");
    expect(&mut world, &["bias", "scale", "weight"]);
    world.module_mut(root).unwrap().register_parameter("shift", one()).unwrap();
    expect(&mut world, &["bias", "scale", "weight", "shift"]);
    again(&mut world, "bias");
    expect(&mut world, &["scale", "weight", "shift", "bias"]);
    world.module_mut(root).unwrap().setattr("bias", Value::None).unwrap();
    again(&mut world, "weight");
    expect(&mut world, &["scale", "shift", "weight"]);
    world.module_mut(root).unwrap().delattr("scale").unwrap();
    expect(&mut world, &["shift", "weight"]);
}
