//! Fusing: one model or all of them compute what they did, neighbors do not change by a bit, and what cannot be fused
//! stays as it was.

use ndarray::{Array2, Array3, ArrayD, Axis};
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::edit::fuse::{
    FuseError, fuse_conv_bn_eval, fuse_linear_bn_eval, fuse_linear_relu, unfuse_linear_relu,
};

const MODELS: usize = 4;

fn inputs() -> Array3<f32> {
    Array3::from_shape_fn((MODELS, 6, 3), |(m, i, f)| ((m * 5 + i * 3 + f) % 7) as f32 / 3.0 - 1.0)
}

fn bits(array: ArrayD<f32>) -> Vec<u32> {
    array.iter().map(|number| number.to_bits()).collect()
}

/// Names and bits of all of a model's tensors.
fn state(world: &mut World, root: Entity) -> Vec<(String, Vec<u8>)> {
    let state = world.module_mut(root).unwrap().state_dict().unwrap();
    state.iter().map(|tensor| (tensor.name.clone(), tensor.to_native())).collect()
}

fn with_relu() -> (World, Entity) {
    let inner = Sequential::new().push(Linear::new(3, 5)).push(ReLU);
    let network = Sequential::new().push(inner).push(Linear::new(5, 2));
    let mut world = World::new();
    let brains = world.spawn_population(&network, MODELS, Seed(1)).unwrap().id();
    world
        .population_mut(brains)
        .unwrap()
        .insert(SGD { lr: 0.1, momentum: 0.9, ..SGD::default() })
        .unwrap();
    (world, brains)
}

/// A population with a norm that has seen some batches.
fn with_norm() -> (World, Entity) {
    let network = Sequential::new().push(Linear::new(3, 5)).push(BatchNorm1d::new(5)).push(Tanh);
    let mut world = World::new();
    let brains = world.spawn_population(&network, MODELS, Seed(1)).unwrap().id();
    for _ in 0..20 {
        world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    }
    (world, brains)
}

fn train(world: &mut World, brains: Entity) -> Vec<u32> {
    let targets = Array2::<i64>::from_shape_fn((MODELS, 6), |(m, i)| ((m + i) % 2) as i64);
    let loss = CrossEntropyLoss::default();
    bits(
        world
            .population_mut(brains)
            .unwrap()
            .train_step(&inputs(), &targets, &loss)
            .unwrap()
            .into_dyn(),
    )
}

#[test]
fn a_linear_and_its_relu_learn_the_same_fused_to_the_bit() {
    let run = |fuse: bool| {
        let (mut world, brains) = with_relu();
        let mut losses = train(&mut world, brains);
        if fuse {
            let before = bits(world.population_mut(brains).unwrap().forward(&inputs()).unwrap());
            fuse_linear_relu(&mut world, (brains, "0"), "0", "1").unwrap();
            assert_eq!(
                bits(world.population_mut(brains).unwrap().forward(&inputs()).unwrap()),
                before
            );
            let root = world.population(brains).unwrap().models()[1];
            let fused = world.module_mut(root).unwrap().at("0.0").unwrap().id();
            assert_eq!(world.module_mut(fused).unwrap().class_name().unwrap(), "FusedLinearReLU");
        }
        // The optimizer goes on where it was.
        losses.extend(train(&mut world, brains));
        if fuse {
            unfuse_linear_relu(&mut world, brains, "0.0", "0.1").unwrap();
        }
        losses.extend(train(&mut world, brains));
        let root = world.population(brains).unwrap().models()[1];
        (losses, state(&mut world, root), world.module_mut(root).unwrap().repr().unwrap())
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn one_model_is_fused_and_its_neighbors_stay_to_the_bit() {
    for norm in [true, false] {
        let (mut world, brains) = if norm { with_norm() } else { with_relu() };
        let roots = world.population(brains).unwrap().models().to_vec();
        world.population_mut(brains).unwrap().eval().unwrap();
        let before = world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
        let states: Vec<_> = roots.iter().map(|&root| state(&mut world, root)).collect();
        match norm {
            true => fuse_linear_bn_eval(&mut world, roots[2], "0", "1").unwrap(),
            false => fuse_linear_relu(&mut world, roots[2], "0.0", "0.1").unwrap(),
        }
        let after = world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
        for (model, &root) in roots.iter().enumerate() {
            let [before, after] =
                [&before, &after].map(|y| y.index_axis(Axis(0), model).to_owned());
            if model != 2 || !norm {
                assert_eq!(bits(after), bits(before));
                let mut state = state(&mut world, root);
                for (name, _) in &mut state {
                    *name = name.replace("linear.", "");
                }
                assert_eq!(state, states[model]);
            } else {
                assert!((after - before).iter().all(|difference| difference.abs() < 1e-5));
                assert_eq!(
                    world.module_mut(root).unwrap().parameter_names().unwrap(),
                    ["0.weight", "0.bias"]
                );
            }
        }
        if norm {
            // A module of a model is a target, too, and models of two structures are one population.
            world.module_mut(roots[1]).unwrap().train().unwrap();
            let error = fuse_linear_bn_eval(&mut world, brains, "0", "1").unwrap_err();
            assert!(matches!(error, FuseError::Training | FuseError::Module { .. }), "{error}");
            assert_eq!(state(&mut world, roots[0]), states[0]);
        }
    }
}

#[test]
fn a_layer_that_was_edited_gets_its_bias() {
    let (mut world, brains) = with_norm();
    let root = world.population(brains).unwrap().models()[0];
    let layer = world.module_mut(root).unwrap().at("0").unwrap().id();
    let norm = world.module_mut(root).unwrap().at("1").unwrap().id();
    world.module_mut(layer).unwrap().setattr("bias", Value::None).unwrap();
    world
        .module_mut(norm)
        .unwrap()
        .register_parameter("extra", Value::drawn_parameter([2], Init::Ones))
        .unwrap();
    world.population_mut(brains).unwrap().eval().unwrap();
    let before = world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    fuse_linear_bn_eval(&mut world, root, "0", "1").unwrap();
    let after = world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    assert!((after - before).iter().all(|difference| difference.abs() < 1e-5));
    assert_eq!(world.module_mut(root).unwrap().parameter_names().unwrap(), ["0.weight", "0.bias"]);
}

#[test]
fn a_convolution_without_a_bias_gets_one() {
    let convolution = Conv1d::new(3, 5, 2).without_bias();
    let network = Sequential::new().push(convolution).push(BatchNorm1d::new(5));
    let mut world = World::new();
    let brains = world.spawn_population(&network, MODELS, Seed(1)).unwrap().id();
    let inputs = inputs().insert_axis(Axis(1)).permuted_axes([0, 1, 3, 2]).to_owned();
    world.population_mut(brains).unwrap().forward(&inputs).unwrap();
    world.population_mut(brains).unwrap().eval().unwrap();
    let before = world.population_mut(brains).unwrap().forward(&inputs).unwrap();
    fuse_conv_bn_eval(&mut world, brains, "0", "1", false).unwrap();
    let after = world.population_mut(brains).unwrap().forward(&inputs).unwrap();
    assert!((after - before).iter().all(|difference| difference.abs() < 1e-5));
    let root = world.population(brains).unwrap().models()[0];
    assert_eq!(world.module_mut(root).unwrap().parameter_names().unwrap(), ["0.weight", "0.bias"]);
}

#[test]
fn what_cannot_be_fused_stays_as_it_was() {
    let (mut world, brains) = with_relu();
    let root = world.population(brains).unwrap().models()[0];
    let before = state(&mut world, root);
    world.population_mut(brains).unwrap().eval().unwrap();
    let errors = [
        fuse_linear_relu(&mut world, brains, "0.1", "0.0").unwrap_err().to_string(),
        fuse_linear_relu(&mut world, brains, "0.0", "1").unwrap_err().to_string(),
        fuse_linear_relu(&mut world, brains, "0.0", "9").unwrap_err().to_string(),
        unfuse_linear_relu(&mut world, root, "0.0", "0.1").unwrap_err().to_string(),
        fuse_linear_bn_eval(&mut world, root, "1", "0.1").unwrap_err().to_string(),
        fuse_conv_bn_eval(&mut world, root, "1", "0.1", false).unwrap_err().to_string(),
    ];
    let expected = [
        "'0.1': expected a Linear",
        "'1': expected a ReLU",
        "Sequential has no parameter or buffer '9'",
        "'0.0': expected a FusedLinearReLU",
        "'0.1': expected a batch norm",
        "'1': expected a layer that can be fused",
    ];
    assert_eq!(errors, expected);
    let stranger = world.spawn_empty().id();
    assert!(fuse_linear_relu(&mut world, stranger, "0", "1").is_err());

    // What has another name would change there, too.
    let inner = world.module_mut(root).unwrap().at("0").unwrap().id();
    let linear = world.module_mut(root).unwrap().at("0.0").unwrap().id();
    world.module_mut(root).unwrap().share("again", linear).unwrap();
    let error = fuse_linear_relu(&mut world, inner, "0", "1").unwrap_err().to_string();
    assert_eq!(error, "'0' has another name in the model, 'again'");
    assert_eq!(state(&mut world, root)[..4], before[..4]);

    let norm = Sequential::new().push(Linear::new(3, 5)).push(BatchNorm1d::new(4));
    let wrong = world.spawn_population(&norm, 1, Seed(1)).unwrap().id();
    world.population_mut(wrong).unwrap().eval().unwrap();
    let error = fuse_linear_bn_eval(&mut world, wrong, "0", "1").unwrap_err().to_string();
    assert!(error.contains("got linear.out_features=5 and bn.num_features=4"), "{error}");
    let plain = BatchNorm1d { track_running_stats: false, ..BatchNorm1d::new(5) };
    let without = Sequential::new().push(Linear::new(3, 5)).push(plain);
    let without = world.spawn_population(&without, 1, Seed(1)).unwrap().id();
    world.population_mut(without).unwrap().eval().unwrap();
    let error = fuse_linear_bn_eval(&mut world, without, "0", "1").unwrap_err();
    assert_eq!(error, FuseError::NoRunningStats);
}
