//! Parametrizations that go over from one module to another, and the older way to remove a spectral norm.

use ndarray::Array2;
use neurarch::prelude::*;
use neurarch::systems::edit::parametrize::remove_spectral_norm;
use neurarch::systems::state::parametrizations::{
    transfer_parametrizations_and_params, type_before_parametrizations,
};

fn layers(models: usize) -> (World, Entity) {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(3, 4)).push(Linear::new(3, 4)).push(Tanh);
    let population = world.spawn_population(&net, models, Seed(2)).unwrap().id();
    (world, population)
}

/// The two linear layers and the third module of a model.
fn parts(world: &mut World, population: Entity, model: usize) -> [Entity; 3] {
    let root = world.population(population).unwrap().models()[model];
    ["0", "1", "2"].map(|path| world.module_mut(root).unwrap().at(path).unwrap().id())
}

fn state(world: &mut World, module: Entity) -> Vec<Tensor> {
    world.module_mut(module).unwrap().state_dict().unwrap().into_iter().collect()
}

#[test]
fn a_layer_gets_the_parametrizations_of_another_with_their_numbers() {
    let (mut world, population) = layers(2);
    let [from, to, tanh] = parts(&mut world, population, 1);
    world.module_mut(from).unwrap().weight_norm("weight", Some(0)).unwrap();
    world
        .module_mut(from)
        .unwrap()
        .register_parametrization("bias", Tanh, RegisterOptions::default())
        .unwrap();
    let neighbor = parts(&mut world, population, 0)[1];
    let before = state(&mut world, neighbor);
    transfer_parametrizations_and_params(&mut world, from, to, Some("weight")).unwrap();
    assert_eq!(
        world.module_mut(from).unwrap().tensor::<f32>("weight").unwrap(),
        world.module_mut(to).unwrap().tensor::<f32>("weight").unwrap()
    );
    let names = |world: &mut World, module| -> Vec<String> {
        state(world, module).into_iter().map(|of| of.name).collect()
    };
    let normed = ["parametrizations.weight.original0", "parametrizations.weight.original1"];
    assert_eq!(names(&mut world, to), [&["bias"][..], &normed].concat());
    assert_eq!(state(&mut world, neighbor), before, "a neighbor");
    // What is there already cannot come again.
    let error = transfer_parametrizations_and_params(&mut world, from, to, None).unwrap_err();
    assert_eq!(error.to_string(), "'weight' is parametrized in ParametrizedLinear already");
    transfer_parametrizations_and_params(&mut world, from, to, Some("bias")).unwrap();
    assert_eq!(state(&mut world, from), state(&mut world, to));
    // All of it to a module that has no such tensors.
    transfer_parametrizations_and_params(&mut world, from, tanh, None).unwrap();
    assert_eq!(
        world.module_mut(from).unwrap().tensor::<f32>("weight").unwrap(),
        world.module_mut(tanh).unwrap().tensor::<f32>("weight").unwrap()
    );
    assert_eq!(type_before_parametrizations(&world, tanh), Some("Tanh"));
    assert_eq!(type_before_parametrizations(&world, from), Some("Linear"));
    assert_eq!(type_before_parametrizations(&world, population), None);
    // Each goes its own way from there.
    let other = Array2::<f32>::ones((4, 3));
    world.module_mut(to).unwrap().assign("weight", other.view()).unwrap();
    assert_ne!(
        world.module_mut(from).unwrap().tensor::<f32>("weight").unwrap(),
        world.module_mut(to).unwrap().tensor::<f32>("weight").unwrap()
    );
}

#[test]
fn what_cannot_go_over_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(3, 4)).push(Linear::new(5, 2));
    let population = world.spawn_population(&net, 1, Seed(2)).unwrap().id();
    let root = world.population(population).unwrap().models()[0];
    let [from, to] = ["0", "1"].map(|path| world.module_mut(root).unwrap().at(path).unwrap().id());
    let before = state(&mut world, root);
    // Nothing is parametrized.
    transfer_parametrizations_and_params(&mut world, from, to, None).unwrap();
    assert_eq!(state(&mut world, root), before);
    world.module_mut(from).unwrap().weight_norm("weight", Some(0)).unwrap();
    let before = state(&mut world, root);
    let mut refused = |name, words: &str| {
        let error = transfer_parametrizations_and_params(&mut world, from, to, name).unwrap_err();
        assert_eq!(error.to_string(), words);
        assert_eq!(state(&mut world, root), before);
    };
    refused(None, "'weight': expected f32[4, 3] as in the other module, got f32[2, 5]");
    refused(Some("bias"), "Module ParametrizedLinear does not have a parametrization on bias");
}

#[test]
fn a_spectral_norm_is_removed_with_the_numbers_that_it_gives() {
    let (mut world, population) = layers(2);
    world.population_mut(population).unwrap().at("0").spectral_norm("weight").unwrap();
    world.population_mut(population).unwrap().eval().unwrap();
    let [layer, ..] = parts(&mut world, population, 1);
    let before = world.module_mut(layer).unwrap().tensor::<f32>("weight").unwrap();
    remove_spectral_norm(&mut world, (population, "0"), "weight").unwrap();
    assert_eq!(world.module_mut(layer).unwrap().tensor::<f32>("weight").unwrap(), before);
    let root = world.population(population).unwrap().models()[1];
    assert_eq!(world.module_mut(root).unwrap().parameter::<f32>("0.weight").unwrap(), before);
    let error = remove_spectral_norm(&mut world, (population, "0"), "weight").unwrap_err();
    assert_eq!(error.to_string(), "spectral_norm of 'weight' not found in Linear");
    world.population_mut(population).unwrap().at("0").weight_norm("weight", Some(0)).unwrap();
    let error = remove_spectral_norm(&mut world, (population, "0"), "weight").unwrap_err();
    assert!(error.to_string().starts_with("spectral_norm of 'weight' not found in "));
}
