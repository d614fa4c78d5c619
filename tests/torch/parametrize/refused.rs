//! What parametrizations refuse, in torch's words.

use neurarch::prelude::*;
use neurarch::systems::edit::parametrize;
use neurarch::systems::edit::parametrize::ParametrizeError;

use super::parametrizations::{MODELS, network};
use crate::known::Known;

#[test]
fn errors_are_in_torchs_words_and_change_nothing() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    let before = world.brains(brains).stacked_state_dict().unwrap();
    let layer = (brains, "0");
    let options = RegisterOptions::default();
    let mut errors = vec![
        world.target_mut(layer).weight_norm("kernel", None).unwrap_err(),
        world.target_mut(layer).weight_norm("weight", Some(2)).unwrap_err(),
        parametrize::spectral_norm(&mut world, layer, "weight", 0, 1e-12, 0).unwrap_err(),
        parametrize::spectral_norm(&mut world, layer, "weight", 1, 1e-12, 2).unwrap_err(),
        world.target_mut(layer).orthogonal("bias", None).unwrap_err(),
        parametrize::orthogonal(
            &mut world,
            layer,
            "weight",
            Some(OrthogonalMap::Householder),
            true,
        )
        .and_then(|()| world.target_mut(layer).remove_parametrizations("weight", true))
        .and_then(|()| {
            world.target_mut(layer).register_parametrization("bias", Linear::new(5, 4), options)
        })
        .unwrap_err(),
        world.brains(brains).at("7").weight_norm("weight", None).unwrap_err(),
        world.part(brains).weight_norm("weight", None).unwrap_err(),
        world.target_mut(layer).remove_parametrizations("weight", true).unwrap_err(),
    ];
    let said: Vec<_> = errors.drain(..).map(|error| error.to_string()).collect();
    let expected = [
        "Module 'Linear' does not have a parameter, a buffer, or a parametrized element with name 'kernel'",
        "_WeightNorm: Dimension out of range (expected to be in range of [-2, 1], but got 2)",
        "Expected n_power_iterations to be positive, but got n_power_iterations=0",
        "Dimension out of range (expected to be in range of [-2, 1] but got 2)",
        "Expected a matrix or batch of matrices. Got a tensor of 1 dimensions.",
        "Registering a parametrization may not change the shape of the tensor, unless `unsafe` flag is enabled.\n\
         unparametrized shape: [5]\nparametrized shape: [4]",
        "`Sequential` has no module '7'",
    ];
    assert_eq!(&said[..7], expected);
    assert!(matches!(
        world.target_mut(layer).remove_parametrizations("weight", true),
        Err(ParametrizeError::NotParametrized { .. })
    ));
    let sorted = |world: &mut World| {
        let mut all = world.brains(brains).stacked_state_dict().unwrap().tensors;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.into_iter().map(|tensor| tensor.name).collect::<Vec<_>>()
    };
    let mut names: Vec<_> = before.into_iter().map(|tensor| tensor.name).collect();
    names.sort();
    assert_eq!(sorted(&mut world), names);

    world.target_mut(layer).weight_norm("weight", None).unwrap();
    let error = world.target_mut(layer).remove_parametrizations("weight", false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in \
         terms of a sequence of tensors."
    );
    assert_eq!(world.part(root).parameter_names().unwrap().len(), 5);
}

#[test]
fn models_come_to_a_parametrized_population_that_shares_another_parameter() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
    world.brains(brains).share_parameter("0.weight").unwrap();
    world.brains(brains).at("2").spectral_norm("weight").unwrap();
    let root = world.brains(brains).spawn_models(1).unwrap()[0];
    let own = world.part(root).parameter::<f32>("0.weight").unwrap();
    let first = world.population(brains).unwrap().models()[0];
    assert_eq!(world.part(first).parameter::<f32>("0.weight").unwrap(), own);
    let layer = world.part(root).at("2").unwrap().id();
    assert!(world.part(layer).tensor::<f32>("weight").unwrap().iter().any(|&x| x != 0.0));
}
