//! Parametrizations: parameters computed from others, as in torch, alone and in populations, planned and eager,
//! in training, on disk and in copies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array2, Array3, ArrayD, array};
use neurarch::bevy_ecs::entity::EntityCloner;
use neurarch::components::module::NoInverse;
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::compile::plans::Plans;
use neurarch::systems::edit::parametrize;

use crate::known::Known;

pub(super) const MODELS: usize = 4;

pub(super) fn network() -> Sequential {
    Sequential::new().push(Linear::new(3, 5)).push(Tanh).push(Linear::new(5, 2))
}

fn inputs() -> Array3<f32> {
    Array3::from_shape_fn((MODELS, 5, 3), |(m, i, f)| ((m * 5 + i * 3 + f) % 7) as f32 / 3.0 - 1.0)
}

fn keys(world: &mut World, root: Entity) -> Vec<String> {
    world.part(root).state_dict().unwrap().into_iter().map(|tensor| tensor.name).collect()
}

fn close(a: &ArrayD<f32>, b: &ArrayD<f32>, tolerance: f32) -> bool {
    a.shape() == b.shape() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

/// Parametrizes the first layer of every model in one of torch's ways.
fn constrain(world: &mut World, brains: Entity, way: usize) {
    let target = (brains, "0");
    match way {
        0 => world.target_mut(target).weight_norm("weight", Some(0)).unwrap(),
        1 => world.target_mut(target).spectral_norm("weight").unwrap(),
        2 => world.target_mut(target).orthogonal("weight", None).unwrap(),
        3 => world.target_mut(target).orthogonal("weight", Some(OrthogonalMap::Cayley)).unwrap(),
        _ => world.target_mut(target).orthogonal("weight", Some(OrthogonalMap::MatrixExp)).unwrap(),
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
        let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
        constrain(&mut world, brains, way);
        let root = world.population(brains).unwrap().models()[1];
        let mut all = vec!["0.bias".to_owned()];
        all.extend(own.iter().map(|name| format!("0.{name}")));
        all.extend(["2.weight".to_owned(), "2.bias".to_owned()]);
        assert_eq!(keys(&mut world, root), all);
        let layer = world.part(root).at("0").unwrap().id();
        assert!(
            world.module(layer).unwrap().is_parametrized(None)
                && world.module(layer).unwrap().is_parametrized(Some("weight"))
        );
        assert!(!world.module(layer).unwrap().is_parametrized(Some("bias")));
        world.brains(brains).at("0").remove_parametrizations("weight", true).unwrap();
        assert_eq!(keys(&mut world, root), ["0.bias", "0.weight", "2.weight", "2.bias"]);
        assert!(!world.module(layer).unwrap().is_parametrized(None));
    }
}

#[test]
fn weight_norm_keeps_the_numbers() {
    for dim in [None, Some(-1), Some(0), Some(1)] {
        let mut world = World::new();
        let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
        let before = world.brains(brains).forward(&inputs()).unwrap();
        world.brains(brains).at("0").weight_norm("weight", dim).unwrap();
        assert!(close(&world.brains(brains).forward(&inputs()).unwrap(), &before, 1e-5));
        let lengths =
            world.brains(brains).stack::<f32>("0.parametrizations.weight.original0").unwrap();
        let shape: &[usize] = match dim {
            Some(0) => &[MODELS, 5, 1],
            Some(1) => &[MODELS, 1, 3],
            _ => &[MODELS],
        };
        assert_eq!(lengths.shape(), shape);
        world.brains(brains).at("0").remove_parametrizations("weight", true).unwrap();
        assert!(close(&world.brains(brains).forward(&inputs()).unwrap(), &before, 1e-5));
    }
}

#[test]
fn spectral_norm_makes_the_largest_singular_value_one() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
    constrain(&mut world, brains, 1);
    let u = "0.parametrizations.weight.0._u";
    let before = world.brains(brains).stack::<f32>(u).unwrap();
    for _ in 0..60 {
        world.brains(brains).forward(&inputs()).unwrap();
    }
    assert_ne!(world.brains(brains).stack::<f32>(u).unwrap(), before, "iterated while training");
    world.brains(brains).eval().unwrap();
    let after = world.brains(brains).stack::<f32>(u).unwrap();
    world.brains(brains).forward(&inputs()).unwrap();
    assert_eq!(world.brains(brains).stack::<f32>(u).unwrap(), after, "not in evaluation");
    for root in world.population(brains).unwrap().models().to_vec() {
        let layer = world.part(root).at("0").unwrap().id();
        let w = world.part(layer).tensor::<f32>("weight").unwrap();
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
        let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
        world.brains(brains).insert(Adam { lr: 0.05, ..Adam::default() }).unwrap();
        constrain(&mut world, brains, way);
        let targets = Array2::<i64>::from_shape_fn((MODELS, 5), |(m, i)| ((m + i) % 2) as i64);
        let loss = CrossEntropyLoss::default();
        let first = world.brains(brains).train_step(&inputs(), &targets, &loss).unwrap();
        let mut last = first.clone();
        for _ in 0..20 {
            last = world.brains(brains).train_step(&inputs(), &targets, &loss).unwrap();
        }
        assert!(last.iter().zip(&first).all(|(last, first)| last < first));
        let root = world.population(brains).unwrap().models()[2];
        let layer = world.part(root).at("0").unwrap().id();
        let q = world.part(layer).tensor::<f32>("weight").unwrap();
        let q: Array2<f32> = q.into_dimensionality().unwrap();
        let gram = q.t().dot(&q).into_dyn();
        assert!(close(&gram, &Array2::<f32>::eye(3).into_dyn(), 1e-5), "{gram}");
    }
}

#[test]
fn without_trivialization_reflections_make_the_orthogonal_matrix_that_was_there() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(3, 5), 2, Seed(1)).unwrap().id();
    init::orthogonal_(&mut world, layers, "weight", 1.0).unwrap();
    let root = world.population(layers).unwrap().models()[1];
    let before = world.part(root).parameter::<f32>("weight").unwrap();
    let map = Some(OrthogonalMap::Householder);
    parametrize::orthogonal(&mut world, (layers, ""), "weight", map, false).unwrap();
    assert_eq!(keys(&mut world, root), ["bias", "parametrizations.weight.original"]);
    assert!(close(&world.part(root).tensor::<f32>("weight").unwrap(), &before, 1e-5));
}

#[test]
fn a_model_does_not_feel_its_neighbors() {
    for way in WAYS {
        let run = |tile: Option<usize>, models: usize, first_number: u64| {
            let mut world = World::new();
            world.get_resource_or_init::<Plans>().options.tile = tile;
            let settings = PopulationSettings {
                models,
                seed: 3,
                first_number,
                ..PopulationSettings::default()
            };
            let brains = world.spawn_population_with(&network(), settings).unwrap().id();
            world.brains(brains).insert(Adam::default()).unwrap();
            constrain(&mut world, brains, way);
            let part = inputs().slice_move(ndarray::s![(MODELS - models).., .., ..]);
            let targets = Array2::<i64>::ones((models, 5));
            for _ in 0..3 {
                world
                    .brains(brains)
                    .train_step(&part, &targets, &CrossEntropyLoss::default())
                    .unwrap();
            }
            let last = world.population(brains).unwrap().models()[models - 1];
            let numbers = world.part(last).state_dict().unwrap();
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
        let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
        constrain(&mut world, brains, way);
        world.brains(brains).eval().unwrap();
        let planned = world.brains(brains).forward(&inputs()).unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let count = calls.clone();
        let path = "0.parametrizations.weight.0";
        world
            .brains(brains)
            .at(path)
            .register_forward_hook(move |_, _, _| {
                count.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            })
            .unwrap();
        assert_eq!(world.brains(brains).forward(&inputs()).unwrap(), planned);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn copies_and_spawned_models_are_parametrized_on_their_own() {
    for way in WAYS {
        let mut world = World::new();
        let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
        constrain(&mut world, brains, way);
        world.brains(brains).eval().unwrap();
        let original = world.population(brains).unwrap().models()[1];
        let copy = world.spawn_empty().id();
        EntityCloner::build_opt_out(&mut world).linked_cloning(true).clone_entity(original, copy);
        assert_eq!(
            world.part(copy).state_dict().unwrap(),
            world.part(original).state_dict().unwrap()
        );
        let spawned = world.brains(brains).spawn_models(1).unwrap()[0];
        assert_eq!(keys(&mut world, spawned), keys(&mut world, original));
        let weights = [original, copy, spawned].map(|root| {
            let layer = world.part(root).at("0").unwrap().id();
            world.part(layer).tensor::<f32>("weight").unwrap()
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
        let layer = world.part(copy).at("0").unwrap().id();
        world.part(layer).remove_parametrizations("weight", true).unwrap();
        assert_eq!(world.part(copy).parameter::<f32>("0.weight").unwrap(), weights[0]);
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
    let brains = world.spawn_population(&Linear::new(3, 2), 1, Seed(0)).unwrap().id();
    let first = world.population(brains).unwrap().models()[0];
    world.part(first).weight_norm("weight", Some(0)).unwrap();
    world.part(first).remove_parametrizations("weight", true).unwrap();
    world
        .part(first)
        .register_parameter("extra", Value::parameter(array![1.0_f32].view()))
        .unwrap();
    let spawned = world.brains(brains).spawn_models(1).unwrap()[0];
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
    let layers = world.spawn_population(&Linear::new(3, 3), 2, Seed(1)).unwrap().id();
    let root = world.population(layers).unwrap().models()[0];
    let before = world.part(root).parameter::<f32>("weight").unwrap();
    let options = RegisterOptions::default();
    world.brains(layers).register_parametrization("weight", Scaled, options).unwrap();
    assert_eq!(world.part(root).tensor::<f32>("weight").unwrap(), before);
    let original = "parametrizations.weight.original";
    assert_eq!(world.part(root).parameter::<f32>(original).unwrap(), &before / 2.0);
    // The second one takes what the first one gives: its own inverse is not asked for.
    world.brains(layers).register_parametrization("weight", Symmetric, options).unwrap();
    assert_eq!(keys(&mut world, root), ["bias", original, "parametrizations.weight.0.factor"]);
    let weight = world.part(root).tensor::<f32>("weight").unwrap();
    assert_eq!(weight, weight.t());
    assert_eq!(weight[[2, 0]], before[[2, 0]]);

    let error = world.part(root).assign("weight", before.view()).unwrap_err();
    assert_eq!(error.to_string(), "parametrization Symmetric does not implement right_inverse.");
    assert_eq!(world.part(root).parameter::<f32>(original).unwrap(), &before / 2.0);

    world.brains(layers).remove_parametrizations("weight", false).unwrap();
    assert_eq!(world.part(root).parameter::<f32>("weight").unwrap(), &before / 2.0);
    assert_eq!(keys(&mut world, root), ["bias", "weight"]);
}

#[test]
fn an_assigned_tensor_becomes_its_originals() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(2, 2), 2, Seed(1)).unwrap().id();
    let root = world.population(layers).unwrap().models()[1];
    world.part(root).weight_norm("weight", Some(0)).unwrap();
    let w = array![[3.0_f32, 4.0], [0.0, -2.0]];
    world.part(root).assign("weight", w.view()).unwrap();
    let lengths = world.part(root).parameter::<f32>("parametrizations.weight.original0").unwrap();
    assert!(close(&lengths, &array![[5.0_f32], [2.0]].into_dyn(), 1e-6));
    assert!(close(&world.part(root).tensor::<f32>("weight").unwrap(), &w.into_dyn(), 1e-6));
    let wrong = Array2::<f32>::ones((3, 2));
    assert!(world.part(root).assign("weight", wrong.view()).is_err());
    assert!(world.part(root).assign("bias", wrong.view()).is_err());
}

#[test]
fn what_a_parameter_has_goes_with_it() {
    let targets = Array2::<i64>::ones((MODELS, 5));
    let run = |parametrized: bool| {
        let mut world = World::new();
        let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
        world.brains(brains).insert(Adam::default()).unwrap();
        let loss = CrossEntropyLoss::default();
        for step in 0..4 {
            if parametrized && step == 2 {
                let options = RegisterOptions::default();
                world
                    .brains(brains)
                    .at("0")
                    .register_parametrization("weight", Same, options)
                    .unwrap();
            }
            if parametrized && step == 3 {
                world.brains(brains).at("0").remove_parametrizations("weight", true).unwrap();
            }
            world.brains(brains).train_step(&inputs(), &targets, &loss).unwrap();
        }
        world.brains(brains).stack::<f32>("0.weight").unwrap()
    };
    assert_eq!(run(true), run(false), "Adam's moments and counts are those of the parameter");

    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    let layer = world.part(root).at("0").unwrap().id();
    world.part(layer).requires_grad_(false).unwrap();
    world.brains(brains).at("0").weight_norm("weight", None).unwrap();
    world.brains(brains).forward(&inputs()).unwrap();
    world.brains(brains).backward_from(&Array3::<f32>::ones((MODELS, 5, 2))).unwrap();
    let original = "0.parametrizations.weight.original0";
    assert!(world.part(root).gradient::<f32>(original).unwrap().is_none());
    let other = world.population(brains).unwrap().models()[1];
    assert!(world.part(other).gradient::<f32>(original).unwrap().is_some());
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
        let layers = world.spawn_population(&Twice, MODELS, Seed(1)).unwrap().id();
        world.brains(layers).spectral_norm("weight").unwrap();
        for _ in 0..passes {
            match cached {
                true => world
                    .brains(layers)
                    .cached(|world| world.population_mut(layers)?.forward(&inputs()))
                    .unwrap(),
                false => world.brains(layers).forward(&inputs()),
            }
            .unwrap();
        }
        world.brains(layers).stack::<f32>(u).unwrap()
    };
    assert_eq!(run(2, true), run(1, false), "each reading does a round of the power method");
    assert_ne!(run(1, true), run(1, false));
}

#[test]
fn the_older_weight_norm_has_its_parameters_in_the_module() {
    use parametrize::weight_norm::{remove_weight_norm, weight_norm};
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
    let root = world.population(brains).unwrap().models()[1];
    world.brains(brains).insert(SGD { lr: 0.1, ..SGD::default() }).unwrap();
    let before = world.brains(brains).forward(&inputs()).unwrap();
    let layer = (brains, "0");
    weight_norm(&mut world, layer, "weight", Some(0)).unwrap();
    let split = ["0.bias", "0.weight_g", "0.weight_v", "2.weight", "2.bias"];
    assert_eq!(keys(&mut world, root), split);
    assert!(close(&world.brains(brains).forward(&inputs()).unwrap(), &before, 1e-5));
    let targets = Array2::<i64>::ones((MODELS, 5));
    let lengths = world.part(root).parameter::<f32>("0.weight_g").unwrap();
    assert_eq!(lengths.shape(), [5, 1]);
    world.brains(brains).train_step(&inputs(), &targets, &CrossEntropyLoss::default()).unwrap();
    assert_ne!(world.part(root).parameter::<f32>("0.weight_g").unwrap(), lengths);

    let spawned = world.brains(brains).spawn_models(1).unwrap()[0];
    assert_eq!(keys(&mut world, spawned), split);
    let v = world.part(spawned).parameter::<f32>("0.weight_v").unwrap();
    let module = world.part(spawned).at("0").unwrap().id();
    assert!(close(&world.part(module).tensor::<f32>("weight").unwrap(), &v, 1e-6));

    let error = weight_norm(&mut world, layer, "weight", None).unwrap_err().to_string();
    assert_eq!(error, "Cannot register two weight_norm hooks on the same parameter weight");
    let weight = world.part(module).tensor::<f32>("weight").unwrap();
    remove_weight_norm(&mut world, layer, "weight").unwrap();
    assert_eq!(world.part(spawned).parameter::<f32>("0.weight").unwrap(), weight);
    assert_eq!(keys(&mut world, root), ["0.bias", "0.weight", "2.weight", "2.bias"]);
    let error = remove_weight_norm(&mut world, layer, "weight").unwrap_err().to_string();
    assert_eq!(error, "weight_norm of 'weight' not found in Linear");
}

#[test]
fn names_of_types_say_so() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
    world.brains(brains).at("0").weight_norm("weight", None).unwrap();
    let root = world.population(brains).unwrap().models()[0];
    let layer = world.part(root).at("0").unwrap().id();
    let error = world.part(layer).remove_parametrizations("bias", true).unwrap_err();
    let message = "Module ParametrizedLinear does not have a parametrization on bias";
    assert_eq!(error.to_string(), message);
}
