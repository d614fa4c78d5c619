//! Parametrizations: parameters computed from others, as in torch, alone and in populations, planned and eager,
//! in training, on disk and in copies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array2, Array3, ArrayD, array};
use neurarch::bevy_ecs::entity::EntityCloner;
use neurarch::components::module::NoInverse;
use neurarch::prelude::*;
use neurarch::systems::edit::parametrize;
use neurarch::systems::edit::parametrize::ParametrizeError;

const MODELS: usize = 4;

fn network() -> Sequential {
    Sequential::new().push(Linear::new(3, 5)).push(Tanh).push(Linear::new(5, 2))
}

fn inputs() -> Array3<f32> {
    Array3::from_shape_fn((MODELS, 5, 3), |(m, i, f)| ((m * 5 + i * 3 + f) % 7) as f32 / 3.0 - 1.0)
}

fn keys(world: &mut World, root: Entity) -> Vec<String> {
    world.state_dict(root).unwrap().into_iter().map(|tensor| tensor.name).collect()
}

fn close(a: &ArrayD<f32>, b: &ArrayD<f32>, tolerance: f32) -> bool {
    a.shape() == b.shape() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

/// Parametrizes the first layer of every model in one of torch's ways.
fn constrain(world: &mut World, brains: Entity, way: usize) {
    let target = (brains, "0");
    match way {
        0 => world.weight_norm(target, "weight", Some(0)).unwrap(),
        1 => world.spectral_norm(target, "weight").unwrap(),
        2 => world.orthogonal(target, "weight", None).unwrap(),
        3 => world.orthogonal(target, "weight", Some(OrthogonalMap::Cayley)).unwrap(),
        _ => world.orthogonal(target, "weight", Some(OrthogonalMap::MatrixExp)).unwrap(),
    }
}

const WAYS: core::ops::Range<usize> = 0..5;

#[test]
fn names_are_those_of_torch() {
    let expected: [&[&str]; 3] = [
        &["parametrizations.weight.original0", "parametrizations.weight.original1"],
        &[
            "parametrizations.weight.original",
            "parametrizations.weight.0._u",
            "parametrizations.weight.0._v",
        ],
        &["parametrizations.weight.original", "parametrizations.weight.0.base"],
    ];
    for (way, own) in expected.iter().enumerate() {
        let mut world = World::new();
        let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
        constrain(&mut world, brains, way);
        let root = world.models(brains).unwrap()[1];
        let mut all = vec!["0.bias".to_owned()];
        all.extend(own.iter().map(|name| format!("0.{name}")));
        all.extend(["2.weight".to_owned(), "2.bias".to_owned()]);
        assert_eq!(keys(&mut world, root), all);
        let layer = world.module(root, "0").unwrap();
        assert!(world.is_parametrized(layer, None) && world.is_parametrized(layer, Some("weight")));
        assert!(!world.is_parametrized(layer, Some("bias")));
        world.remove_parametrizations((brains, "0"), "weight", true).unwrap();
        assert_eq!(keys(&mut world, root), ["0.bias", "0.weight", "2.weight", "2.bias"]);
        assert!(!world.is_parametrized(layer, None));
    }
}

#[test]
fn weight_norm_keeps_the_numbers() {
    for dim in [None, Some(-1), Some(0), Some(1)] {
        let mut world = World::new();
        let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
        let before = world.forward(brains, &inputs()).unwrap();
        world.weight_norm((brains, "0"), "weight", dim).unwrap();
        assert!(close(&world.forward(brains, &inputs()).unwrap(), &before, 1e-5));
        let lengths = world.stack::<f32>(brains, "0.parametrizations.weight.original0").unwrap();
        let shape: &[usize] = match dim {
            Some(0) => &[MODELS, 5, 1],
            Some(1) => &[MODELS, 1, 3],
            _ => &[MODELS],
        };
        assert_eq!(lengths.shape(), shape);
        world.remove_parametrizations((brains, "0"), "weight", true).unwrap();
        assert!(close(&world.forward(brains, &inputs()).unwrap(), &before, 1e-5));
    }
}

#[test]
fn spectral_norm_makes_the_largest_singular_value_one() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
    constrain(&mut world, brains, 1);
    let u = "0.parametrizations.weight.0._u";
    let before = world.stack::<f32>(brains, u).unwrap();
    for _ in 0..60 {
        world.forward(brains, &inputs()).unwrap();
    }
    assert_ne!(world.stack::<f32>(brains, u).unwrap(), before, "iterated while training");
    world.eval(brains).unwrap();
    let after = world.stack::<f32>(brains, u).unwrap();
    world.forward(brains, &inputs()).unwrap();
    assert_eq!(world.stack::<f32>(brains, u).unwrap(), after, "not in evaluation");
    for root in world.models(brains).unwrap().to_vec() {
        let layer = world.module(root, "0").unwrap();
        let w = world.tensor::<f32>(layer, "weight").unwrap();
        let w: Array2<f32> = w.into_dimensionality().unwrap();
        // The power method on WᵀW, from scratch.
        let gram = w.t().dot(&w);
        let mut v = array![1.0_f32, 0.5, -0.25];
        for _ in 0..200 {
            v = gram.dot(&v);
            v /= v.dot(&v).sqrt();
        }
        let largest = v.dot(&gram.dot(&v)).sqrt();
        assert!((largest - 1.0).abs() < 1e-3, "{largest}");
    }
}

#[test]
fn orthogonal_weights_stay_orthogonal_while_they_learn() {
    for way in 2..5 {
        let mut world = World::new();
        let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
        world.insert(brains, Adam { lr: 0.05, ..Adam::default() }).unwrap();
        constrain(&mut world, brains, way);
        let targets = Array2::<i64>::from_shape_fn((MODELS, 5), |(m, i)| ((m + i) % 2) as i64);
        let loss = CrossEntropyLoss::default();
        let first = world.train_step(brains, &inputs(), &targets, &loss).unwrap();
        let mut last = first.clone();
        for _ in 0..20 {
            last = world.train_step(brains, &inputs(), &targets, &loss).unwrap();
        }
        assert!(last.iter().zip(&first).all(|(last, first)| last < first));
        let root = world.models(brains).unwrap()[2];
        let layer = world.module(root, "0").unwrap();
        let q = world.tensor::<f32>(layer, "weight").unwrap();
        let q: Array2<f32> = q.into_dimensionality().unwrap();
        let gram = q.t().dot(&q).into_dyn();
        assert!(close(&gram, &Array2::<f32>::eye(3).into_dyn(), 1e-5), "{gram}");
    }
}

#[test]
fn without_trivialization_reflections_make_the_orthogonal_matrix_that_was_there() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(3, 5), 2, Seed(1)).unwrap();
    init::orthogonal_(&mut world, layers, "weight", 1.0).unwrap();
    let root = world.models(layers).unwrap()[1];
    let before = world.parameter::<f32>(root, "weight").unwrap();
    let map = Some(OrthogonalMap::Householder);
    parametrize::orthogonal(&mut world, (layers, ""), "weight", map, false).unwrap();
    assert_eq!(keys(&mut world, root), ["bias", "parametrizations.weight.original"]);
    assert!(close(&world.tensor::<f32>(root, "weight").unwrap(), &before, 1e-5));
}

#[test]
fn a_model_does_not_feel_its_neighbors() {
    for way in WAYS {
        let run = |tile: Option<usize>, models: usize, first_number: u64| {
            let mut world = World::new();
            world.force_tile(tile);
            let settings = PopulationSettings {
                models,
                seed: 3,
                first_number,
                ..PopulationSettings::default()
            };
            let brains = world.spawn_population_with(&network(), settings).unwrap();
            world.insert(brains, Adam::default()).unwrap();
            constrain(&mut world, brains, way);
            let part = inputs().slice_move(ndarray::s![(MODELS - models).., .., ..]);
            let targets = Array2::<i64>::ones((models, 5));
            for _ in 0..3 {
                world.train_step(brains, &part, &targets, &CrossEntropyLoss::default()).unwrap();
            }
            let last = world.models(brains).unwrap()[models - 1];
            let numbers = world.state_dict(last).unwrap();
            numbers.iter().map(|tensor| tensor.to_array::<f32>().unwrap()).collect::<Vec<_>>()
        };
        let together = run(None, MODELS, 0);
        assert_eq!(run(Some(1), MODELS, 0), together);
        assert_eq!(run(None, 1, MODELS as u64 - 1), together);
    }
}

#[test]
fn hooked_models_give_the_same_bits() {
    for way in WAYS {
        let mut world = World::new();
        let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
        constrain(&mut world, brains, way);
        world.eval(brains).unwrap();
        let planned = world.forward(brains, &inputs()).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        let path = "0.parametrizations.weight.0";
        world
            .register_forward_hook((brains, path), move |_, _, _| {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            })
            .unwrap();
        assert_eq!(world.forward(brains, &inputs()).unwrap(), planned);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn copies_and_spawned_models_are_parametrized_on_their_own() {
    for way in WAYS {
        let mut world = World::new();
        let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
        constrain(&mut world, brains, way);
        world.eval(brains).unwrap();
        let original = world.models(brains).unwrap()[1];
        let copy = world.spawn_empty().id();
        EntityCloner::build_opt_out(&mut world).linked_cloning(true).clone_entity(original, copy);
        assert_eq!(world.state_dict(copy).unwrap(), world.state_dict(original).unwrap());
        let spawned = world.spawn_models(brains, 1).unwrap()[0];
        assert_eq!(keys(&mut world, spawned), keys(&mut world, original));
        let weights = [original, copy, spawned].map(|root| {
            let layer = world.module(root, "0").unwrap();
            world.tensor::<f32>(layer, "weight").unwrap()
        });
        assert_eq!(weights[0], weights[1]);
        assert!(weights[2].iter().all(|x| x.is_finite()));
        assert!(weights[2].iter().any(|&x| x != 0.0));
        let gram = |w: &ArrayD<f32>| -> ArrayD<f32> {
            let w: Array2<f32> = w.clone().into_dimensionality().unwrap();
            w.t().dot(&w).into_dyn()
        };
        if way >= 2 {
            assert!(close(&gram(&weights[2]), &Array2::<f32>::eye(3).into_dyn(), 1e-5));
            assert!(!close(&weights[2], &weights[0], 1e-2));
        }
        // One model without its parametrization: a blueprint of its own.
        let layer = world.module(copy, "0").unwrap();
        world.remove_parametrizations(layer, "weight", true).unwrap();
        assert_eq!(world.parameter::<f32>(copy, "0.weight").unwrap(), weights[0]);
        assert!(keys(&mut world, original).contains(&"2.bias".to_owned()));
        assert_ne!(keys(&mut world, copy), keys(&mut world, original));
        let again = world.spawn_empty().id();
        EntityCloner::build_opt_out(&mut world).linked_cloning(true).clone_entity(copy, again);
        assert_eq!(keys(&mut world, again), keys(&mut world, copy));
    }
}

#[test]
fn a_spawned_model_has_the_order_of_names_that_the_others_came_to_have() {
    let mut world = World::new();
    let brains = world.spawn_population(&Linear::new(3, 2), 1, Seed(0)).unwrap();
    let first = world.models(brains).unwrap()[0];
    world.weight_norm(first, "weight", Some(0)).unwrap();
    world.remove_parametrizations(first, "weight", true).unwrap();
    world.register_parameter(first, "extra", Value::parameter(array![1.0_f32].view())).unwrap();
    let spawned = world.spawn_models(brains, 1).unwrap()[0];
    assert_eq!(keys(&mut world, first), ["bias", "weight", "extra"]);
    assert_eq!(keys(&mut world, spawned), keys(&mut world, first));
}

/// A matrix that is the same as its transposed.
#[derive(Component, Clone, Debug, PartialEq)]
struct Symmetric;

impl Module for Symmetric {
    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.tril(0) + x.tril(-1).t()
    }
}

/// Multiplies by a parameter of its own; goes back by dividing.
#[derive(Component, Clone, Debug, PartialEq)]
struct Scaled;

impl Module for Scaled {
    fn declare(&self, declare: &mut Declare) {
        declare.parameter("factor", []);
    }

    fn reset(&self, _: &str) -> Init {
        Init::Constant(2.0)
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        x * call.parameter("factor")
    }

    fn right_inverse(&self, call: &Call<'_>, x: Var) -> Result<Tree, NoInverse> {
        Ok((x / call.parameter("factor")).into())
    }
}

#[test]
fn parametrizations_of_ones_own_are_stacked() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(3, 3), 2, Seed(1)).unwrap();
    let root = world.models(layers).unwrap()[0];
    let before = world.parameter::<f32>(root, "weight").unwrap();
    let options = RegisterOptions::default();
    world.register_parametrization((layers, ""), "weight", Scaled, options).unwrap();
    assert_eq!(world.tensor::<f32>(root, "weight").unwrap(), before);
    let original = "parametrizations.weight.original";
    assert_eq!(world.parameter::<f32>(root, original).unwrap(), &before / 2.0);
    // The second one takes what the first one gives: its own inverse is not asked for.
    world.register_parametrization((layers, ""), "weight", Symmetric, options).unwrap();
    assert_eq!(keys(&mut world, root), ["bias", original, "parametrizations.weight.0.factor"]);
    let weight = world.tensor::<f32>(root, "weight").unwrap();
    assert_eq!(weight, weight.t());
    assert_eq!(weight[[2, 0]], before[[2, 0]]);

    let error = world.assign(root, "weight", before.view()).unwrap_err();
    assert_eq!(error.to_string(), "parametrization Symmetric does not implement right_inverse.");
    assert_eq!(world.parameter::<f32>(root, original).unwrap(), &before / 2.0);

    world.remove_parametrizations((layers, ""), "weight", false).unwrap();
    assert_eq!(world.parameter::<f32>(root, "weight").unwrap(), &before / 2.0);
    assert_eq!(keys(&mut world, root), ["bias", "weight"]);
}

#[test]
fn an_assigned_tensor_becomes_its_originals() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(2, 2), 2, Seed(1)).unwrap();
    let root = world.models(layers).unwrap()[1];
    world.weight_norm(root, "weight", Some(0)).unwrap();
    let w = array![[3.0_f32, 4.0], [0.0, -2.0]];
    world.assign(root, "weight", w.view()).unwrap();
    let lengths = world.parameter::<f32>(root, "parametrizations.weight.original0").unwrap();
    assert!(close(&lengths, &array![[5.0_f32], [2.0]].into_dyn(), 1e-6));
    assert!(close(&world.tensor::<f32>(root, "weight").unwrap(), &w.into_dyn(), 1e-6));
    let wrong = Array2::<f32>::ones((3, 2));
    assert!(world.assign(root, "weight", wrong.view()).is_err());
    assert!(world.assign(root, "bias", wrong.view()).is_err());
}

#[test]
fn what_a_parameter_has_goes_with_it() {
    let targets = Array2::<i64>::ones((MODELS, 5));
    let run = |parametrized: bool| {
        let mut world = World::new();
        let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
        world.insert(brains, Adam::default()).unwrap();
        let loss = CrossEntropyLoss::default();
        for step in 0..4 {
            if parametrized && step == 2 {
                let options = RegisterOptions::default();
                world.register_parametrization((brains, "0"), "weight", Same, options).unwrap();
            }
            if parametrized && step == 3 {
                world.remove_parametrizations((brains, "0"), "weight", true).unwrap();
            }
            world.train_step(brains, &inputs(), &targets, &loss).unwrap();
        }
        world.stack::<f32>(brains, "0.weight").unwrap()
    };
    assert_eq!(run(true), run(false), "Adam's moments and counts are those of the parameter");

    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
    let root = world.models(brains).unwrap()[0];
    let layer = world.module(root, "0").unwrap();
    world.requires_grad_(layer, false).unwrap();
    world.weight_norm((brains, "0"), "weight", None).unwrap();
    world.forward(brains, &inputs()).unwrap();
    world.backward_from(brains, &Array3::<f32>::ones((MODELS, 5, 2))).unwrap();
    let original = "0.parametrizations.weight.original0";
    assert!(world.gradient::<f32>(root, original).unwrap().is_none());
    let other = world.models(brains).unwrap()[1];
    assert!(world.gradient::<f32>(other, original).unwrap().is_some());
}

/// Gives the original as it is.
#[derive(Component, Clone, Debug, PartialEq)]
struct Same;

impl Module for Same {
    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x
    }
}

/// A layer that reads its weight twice.
#[derive(Component, Clone, Debug, PartialEq)]
struct Twice;

impl Module for Twice {
    fn declare(&self, declare: &mut Declare) {
        declare.parameter("weight", [3, 3]);
    }

    fn reset(&self, _: &str) -> Init {
        Init::Uniform { low: -1.0, high: 1.0 }
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let x = x.linear(&call.parameter("weight"), None);
        x.linear(&call.parameter("weight"), None)
    }
}

#[test]
fn cached_tensors_are_computed_once_in_a_pass() {
    let u = "parametrizations.weight.0._u";
    let run = |passes: usize, cached: bool| {
        let mut world = World::new();
        let layers = world.spawn_population(&Twice, MODELS, Seed(1)).unwrap();
        world.spectral_norm((layers, ""), "weight").unwrap();
        for _ in 0..passes {
            match cached {
                true => world.cached(layers, |world| world.forward(layers, &inputs())).unwrap(),
                false => world.forward(layers, &inputs()),
            }
            .unwrap();
        }
        world.stack::<f32>(layers, u).unwrap()
    };
    assert_eq!(run(2, true), run(1, false), "each reading does a round of the power method");
    assert_ne!(run(1, true), run(1, false));
}

#[test]
fn the_older_weight_norm_has_its_parameters_in_the_module() {
    use parametrize::weight_norm::{remove_weight_norm, weight_norm};
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
    let root = world.models(brains).unwrap()[1];
    world.insert(brains, SGD { lr: 0.1, ..SGD::default() }).unwrap();
    let before = world.forward(brains, &inputs()).unwrap();
    let layer = (brains, "0");
    weight_norm(&mut world, layer, "weight", Some(0)).unwrap();
    let split = ["0.bias", "0.weight_g", "0.weight_v", "2.weight", "2.bias"];
    assert_eq!(keys(&mut world, root), split);
    assert!(close(&world.forward(brains, &inputs()).unwrap(), &before, 1e-5));
    let targets = Array2::<i64>::ones((MODELS, 5));
    let lengths = world.parameter::<f32>(root, "0.weight_g").unwrap();
    assert_eq!(lengths.shape(), [5, 1]);
    world.train_step(brains, &inputs(), &targets, &CrossEntropyLoss::default()).unwrap();
    assert_ne!(world.parameter::<f32>(root, "0.weight_g").unwrap(), lengths);

    let spawned = world.spawn_models(brains, 1).unwrap()[0];
    assert_eq!(keys(&mut world, spawned), split);
    let v = world.parameter::<f32>(spawned, "0.weight_v").unwrap();
    let module = world.module(spawned, "0").unwrap();
    assert!(close(&world.tensor::<f32>(module, "weight").unwrap(), &v, 1e-6));

    let error = weight_norm(&mut world, layer, "weight", None).unwrap_err().to_string();
    assert_eq!(error, "Cannot register two weight_norm hooks on the same parameter weight");
    let weight = world.tensor::<f32>(module, "weight").unwrap();
    remove_weight_norm(&mut world, layer, "weight").unwrap();
    assert_eq!(world.parameter::<f32>(spawned, "0.weight").unwrap(), weight);
    assert_eq!(keys(&mut world, root), ["0.bias", "0.weight", "2.weight", "2.bias"]);
    let error = remove_weight_norm(&mut world, layer, "weight").unwrap_err().to_string();
    assert_eq!(error, "weight_norm of 'weight' not found in Linear");
}

#[test]
fn names_of_types_say_so() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
    world.weight_norm((brains, "0"), "weight", None).unwrap();
    let root = world.models(brains).unwrap()[0];
    let layer = world.module(root, "0").unwrap();
    let error = world.remove_parametrizations(layer, "bias", true).unwrap_err();
    let message = "Module ParametrizedLinear does not have a parametrization on bias";
    assert_eq!(error.to_string(), message);
}

#[test]
fn errors_are_in_torchs_words_and_change_nothing() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
    let root = world.models(brains).unwrap()[0];
    let before = world.stacked_state_dict(brains).unwrap();
    let layer = (brains, "0");
    let options = RegisterOptions::default();
    let mut errors = vec![
        world.weight_norm(layer, "kernel", None).unwrap_err(),
        world.weight_norm(layer, "weight", Some(2)).unwrap_err(),
        parametrize::spectral_norm(&mut world, layer, "weight", 0, 1e-12, 0).unwrap_err(),
        parametrize::spectral_norm(&mut world, layer, "weight", 1, 1e-12, 2).unwrap_err(),
        world.orthogonal(layer, "bias", None).unwrap_err(),
        parametrize::orthogonal(
            &mut world,
            layer,
            "weight",
            Some(OrthogonalMap::Householder),
            true,
        )
        .and_then(|()| world.remove_parametrizations(layer, "weight", true))
        .and_then(|()| world.register_parametrization(layer, "bias", Linear::new(5, 4), options))
        .unwrap_err(),
        world.weight_norm((brains, "7"), "weight", None).unwrap_err(),
        world.weight_norm(brains, "weight", None).unwrap_err(),
        world.remove_parametrizations(layer, "weight", true).unwrap_err(),
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
        world.remove_parametrizations(layer, "weight", true),
        Err(ParametrizeError::NotParametrized { .. })
    ));
    let sorted = |world: &mut World| {
        let mut all = world.stacked_state_dict(brains).unwrap().tensors;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all.into_iter().map(|tensor| tensor.name).collect::<Vec<_>>()
    };
    let mut names: Vec<_> = before.into_iter().map(|tensor| tensor.name).collect();
    names.sort();
    assert_eq!(sorted(&mut world), names);

    world.weight_norm(layer, "weight", None).unwrap();
    let error = world.remove_parametrizations(layer, "weight", false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is parametrized in \
         terms of a sequence of tensors."
    );
    assert_eq!(world.parameter_names(root).unwrap().len(), 5);
}

#[test]
fn models_come_to_a_parametrized_population_that_shares_another_parameter() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap();
    world.share_parameter(brains, "0.weight").unwrap();
    world.spectral_norm((brains, "2"), "weight").unwrap();
    let root = world.spawn_models(brains, 1).unwrap()[0];
    let own = world.parameter::<f32>(root, "0.weight").unwrap();
    let first = world.models(brains).unwrap()[0];
    assert_eq!(world.parameter::<f32>(first, "0.weight").unwrap(), own);
    let layer = world.module(root, "2").unwrap();
    assert!(world.tensor::<f32>(layer, "weight").unwrap().iter().any(|&x| x != 0.0));
}
