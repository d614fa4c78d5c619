//! Lazy modules: shapes come from the first call or from a state dict, for a whole population at once.

use ndarray::{Array2, Array3};
use neurarch::bevy_ecs::prelude::*;
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::edit::parametrize::weight_norm::weight_norm;
use neurarch::systems::execute::lazy::{has_uninitialized_params, uninitialized_params};

const MODELS: usize = 3;

fn network() -> Sequential {
    Sequential::new().push(LazyLinear::new(4)).push(Tanh).push(LazyLinear::new(2).without_bias())
}

fn spawned() -> (World, Entity, Entity) {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), MODELS, Seed(1)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    (world, brains, root)
}

#[test]
fn before_the_first_call_shapes_are_unknown_and_asking_is_torchs_error() {
    let (mut world, _, root) = spawned();
    assert!(has_uninitialized_params(&mut world, root).unwrap());
    let names = ["0.weight", "0.bias", "2.weight"];
    assert_eq!(uninitialized_params(&mut world, root).unwrap(), names);
    assert_eq!(world.module_mut(root).unwrap().parameter_names().unwrap(), names);
    let state = world.module_mut(root).unwrap().state_dict().unwrap();
    assert!(state.iter().all(|tensor| tensor.is_uninitialized()));
    let error =
        world.module_mut(root).unwrap().parameter::<f32>("0.weight").unwrap_err().to_string();
    assert!(error.contains("Can't access the shape of an uninitialized parameter"), "{error}");
    let path = std::env::temp_dir().join(format!("neurarch-lazy-{}", std::process::id()));
    let error = neurarch::state::safetensors::save(&path, &state).unwrap_err().to_string();
    assert!(error.contains("uninitialized parameter") && !path.exists(), "{error}");
}

#[test]
fn the_first_call_initializes_all_models_with_their_own_numbers() {
    let (mut world, brains, root) = spawned();
    let x = Array3::<f32>::ones((MODELS, 5, 3));
    let y = world.population_mut(brains).unwrap().forward(&x).unwrap();
    assert_eq!(y.shape(), [MODELS, 5, 2]);
    assert!(!has_uninitialized_params(&mut world, root).unwrap());
    let module = world.module_mut(root).unwrap().at("0").unwrap().id();
    assert_eq!(world.get::<Linear>(module), Some(&Linear::new(3, 4)));
    assert!(world.get::<LazyLinear>(module).is_none());

    // The numbers are those of a population that was never lazy.
    let plain = Sequential::new().push(Linear::new(3, 4)).push(Tanh);
    let plain = plain.push(Linear::new(4, 2).without_bias());
    let mut other = World::new();
    let others = other.spawn_population(&plain, MODELS, Seed(1)).unwrap().id();
    assert_eq!(other.population_mut(others).unwrap().forward(&x).unwrap(), y);
}

#[test]
fn training_initializes_too_and_shapes_that_do_not_fit_change_nothing() {
    let (mut world, brains, root) = spawned();
    world.population_mut(brains).unwrap().insert(Adam::default()).unwrap();
    let error = world
        .population_mut(brains)
        .unwrap()
        .forward(&ndarray::Array1::<f32>::ones(MODELS))
        .unwrap_err();
    assert!(error.to_string().contains("at least one axis"), "{error}");
    assert!(has_uninitialized_params(&mut world, root).unwrap());
    let targets = Array2::<i64>::zeros((MODELS, 5));
    let x = Array3::<f32>::ones((MODELS, 5, 6));
    world
        .population_mut(brains)
        .unwrap()
        .train_step(&x, &targets, &CrossEntropyLoss::default())
        .unwrap();
    assert_eq!(
        world.population_mut(brains).unwrap().stack::<f32>("0.weight").unwrap().shape(),
        [MODELS, 4, 6]
    );
}

/// What is done with a lazy population, and the words of the error; none if torch does it, too.
type Deed = (&'static str, &'static str, fn(&mut World, Entity, Entity) -> Result<(), String>);

/// Makes a list of deeds of expressions of world, population and root.
macro_rules! deeds {
    ($world:ident, $all:ident, $root:ident; $($words:literal => $deed:expr),* $(,)?) => {
        vec![$((stringify!($deed), $words, |$world: &mut World, $all: Entity, $root: Entity| {
            let _ = ($all, $root);
            $deed.map(drop).map_err(|error| error.to_string())
        })),*]
    };
}

const INIT: &str = "'0.weight': Attempted to use an uninitialized parameter in init. This error happens when you are using a \
                    `LazyModule`";
const NUMBERS: &str = "Can't access the shape of an uninitialized parameter or buffer";

fn initializers() -> Vec<Deed> {
    const W: &str = "0.weight";
    deeds![world, all, root;
        "INIT" => init::uniform_(world, all, W, 0.0, 1.0),
        "INIT" => init::normal_(world, all, W, 0.0, 1.0),
        "INIT" => init::trunc_normal_(world, all, W, (0.0, 1.0), (-2.0, 2.0)),
        "INIT" => init::constant_(world, all, W, 1.0),
        "INIT" => init::ones_(world, all, W),
        "INIT" => init::zeros_(world, all, W),
        "INIT" => init::eye_(world, all, W),
        "INIT" => init::dirac_(world, all, W, 1),
        "INIT" => init::xavier_uniform_(world, all, W, 1.0),
        "INIT" => init::xavier_normal_(world, all, W, 1.0),
        "INIT" => init::kaiming_uniform_(world, all, W, init::FanMode::FanIn, init::Nonlinearity::ReLU),
        "INIT" => init::kaiming_normal_(world, all, W, init::FanMode::FanIn, init::Nonlinearity::ReLU),
        "INIT" => init::orthogonal_(world, all, W, 1.0),
        "INIT" => init::sparse_(world, all, W, 0.1, 0.01),
        "INIT" => init::fill_with(world, all, W, |_| Ok(Init::Ones)),
    ]
}

fn others() -> Vec<Deed> {
    deeds![world, all, root;
        "in perturb. This error happens" => world.population_mut(all).map_err(|error| error.to_string())?.perturb(Noise::normal(0.1)),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.perturb_with(|_| Noise::normal(0.1), |name| name == "1.weight"),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.perturb_with(|_| Noise::normal(0.1), |_| false),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.overwrite(&[1, 0, 1]),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.crossover(&[(0, 1), (1, 2), (2, 0)]),
        "" => init::reset_parameters(world, root),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.clip_grad_norm_(1.0),
        "" => world.module_mut(root).map_err(|error| error.to_string())?.clip_grad_norm_(1.0),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.clip_grad_value_(1.0),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.get_total_norm(2.0),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.zero_grad(),
        "" => world.module_mut(root).map_err(|error| error.to_string())?.zero_grad(),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.requires_grad_(true),
        "" => world.module_mut(root).map_err(|error| error.to_string())?.optimizer_state_dict(),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.training_state(),
        "" => world.module_mut(root).map_err(|error| error.to_string())?.training_state(),
        "" => world.module_mut(root).map_err(|error| error.to_string())?.state_dict(),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.stacked_state_dict(),
        "" => world.module_mut(root).map_err(|error| error.to_string())?.named_parameters(),
        "" => world.module_mut(root).map_err(|error| error.to_string())?.repr(),
        "NUMBERS" => world.module_mut(root).map_err(|error| error.to_string())?.parameter::<f32>("0.weight"),
        "NUMBERS" => world.module_mut(root).map_err(|error| error.to_string())?.gradient::<f32>("0.weight"),
        "NUMBERS" => world.population_mut(all).map_err(|error| error.to_string())?.stack::<f32>("0.weight"),
        "NUMBERS" => world.module_mut(root).map_err(|error| error.to_string())?.set_parameter("0.weight", ndarray::arr0(1.0_f32).view()),
        "NUMBERS" => world.population_mut(all).map_err(|error| error.to_string())?.unstack("0.weight", ndarray::arr1(&[1.0_f32; 3]).view()),
        "NUMBERS" => world.module_mut(root).map_err(|error| error.to_string())?.set_gradient("0.weight", Some(ndarray::arr0(1.0_f32).view())),
        "NUMBERS" => world.module_mut(root).map_err(|error| error.to_string())?.tie("2.bias", "0.bias"),
        "NUMBERS" => world.population_mut(all).map_err(|error| error.to_string())?.share_parameter("0.weight"),
        "NUMBERS" => world.population_mut(all).map_err(|error| error.to_string())?.unshare_parameter("0.weight"),
        "NUMBERS" => world.population_mut(all).map_err(|error| error.to_string())?.at("0").weight_norm("weight", Some(0)),
        "NUMBERS" => world.population_mut(all).map_err(|error| error.to_string())?.at("0").spectral_norm("weight"),
        "NUMBERS" => world.population_mut(all).map_err(|error| error.to_string())?.at("0").orthogonal("weight", None),
        "NUMBERS" => world.population_mut(all).map_err(|error| error.to_string())?.at("0").register_parametrization("weight", Tanh, RegisterOptions::default()),
        "NUMBERS" => weight_norm(world, (all, "0"), "weight", Some(0)),
        "uninitialized" => world.module_mut(root).map_err(|error| error.to_string())?.parameters_to_vector::<f32>(),
        "uninitialized" => world.population_mut(all).map_err(|error| error.to_string())?.parameters_to_vectors::<f32>(),
        "uninitialized" => world.module_mut(root).map_err(|error| error.to_string())?.vector_to_parameters(ndarray::Array1::<f32>::ones(3).view()),
        "" => {
            let state = world.population_mut(all).unwrap().stacked_state_dict().unwrap();
            world.population_mut(all).map_err(|error| error.to_string())?.load_stacked_state_dict(&state, LoadOptions::default())
        },
        "" => world.population_mut(all).map_err(|error| error.to_string())?.update_parameters(all),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.step(),
        "expected a forward pass" => world.population_mut(all).map_err(|error| error.to_string())?.backward_from(&Array3::<f32>::ones((MODELS, 5, 2))),
        "" => world.population_mut(all).map_err(|error| error.to_string())?.clone_models(&[0]).map(|clones| clones.into_iter().for_each(|of| assert!(world.despawn(of)))),
    ]
}

#[test]
fn whatever_takes_numbers_of_a_lazy_parameter_is_torchs_error_and_changes_nothing() {
    let spawn = || {
        let mut world = World::new();
        let net = Sequential::new().push(LazyLinear::new(4)).push(LayerNorm::new([4]));
        let net = net.push(LazyLinear::new(4)).push(LazyBatchNorm1d::default());
        let all = world.spawn_population(&net, MODELS, Seed(1)).unwrap().id();
        world.population_mut(all).unwrap().insert(Adam::default()).unwrap();
        world.entity_mut(all).insert(AveragedModel::new(AverageFn::Swa));
        let root = world.population(all).unwrap().models()[0];
        (world, all, root)
    };
    let x = Array3::<f32>::from_shape_fn((MODELS, 5, 3), |(m, i, j)| (m + 2 * i + j) as f32);
    let forward = |world: &mut World, all| world.population_mut(all).unwrap().forward(&x).unwrap();
    let (mut world, all, _) = spawn();
    let expected = forward(&mut world, all);
    let initializers = initializers();
    let n = initializers.len();
    for (place, (deed, words, run)) in initializers.into_iter().chain(others()).enumerate() {
        let words = match words {
            "INIT" => INIT,
            "NUMBERS" => NUMBERS,
            words => words,
        };
        let (mut world, all, root) = spawn();
        let result = run(&mut world, all, root);
        match (words, result) {
            ("", result) => assert_eq!(result, Ok(()), "{deed}"),
            (words, Err(error)) => assert!(error.contains(words), "{deed}: {error}"),
            (_, Ok(())) => panic!("{deed} is done"),
        }
        assert_eq!(uninitialized_params(&mut world, root).unwrap().len(), 8, "{deed}");
        let is_done = place >= n && words.is_empty();
        let result = forward(&mut world, all);
        assert!(is_done || result == expected, "{deed}");
    }
}

#[test]
fn a_lazy_module_that_was_edited_is_initialized_as_well() {
    let edits: [fn(&mut World, Entity); 5] = [
        |world, layer| {
            let scale = Value::parameter(ndarray::arr1(&[0.5_f32]).view());
            world.module_mut(layer).unwrap().register_parameter("scale", scale).unwrap();
        },
        |world, layer| {
            let mask = Value::tensor(ndarray::arr1(&[0.5_f32]).view());
            world.module_mut(layer).unwrap().register_buffer("mask", mask, false).unwrap();
        },
        |world, layer| world.module_mut(layer).unwrap().setattr("bias", Value::None).unwrap(),
        |world, layer| {
            let bias = Value::parameter(ndarray::Array1::<f32>::ones(4).view());
            world.module_mut(layer).unwrap().setattr("bias", bias).unwrap();
        },
        |world, layer| {
            let weight = Tensor::new("weight", Array2::<f32>::ones((4, 3)).view());
            let partly = LoadOptions { strict: false, ..LoadOptions::default() };
            let keys = world
                .module_mut(layer)
                .unwrap()
                .load_state_dict_with(&StateDict::from_iter([weight]), partly);
            assert_eq!(keys.unwrap().missing_keys, ["bias"]);
        },
    ];
    let x = Array3::<f32>::ones((MODELS, 5, 3));
    for (number, edit) in edits.into_iter().enumerate() {
        let (mut world, brains, root) = spawned();
        world.population_mut(brains).unwrap().insert(Adam::default()).unwrap();
        let layer = world.module_mut(root).unwrap().at("0").unwrap().id();
        edit(&mut world, layer);
        let targets = Array2::<i64>::zeros((MODELS, 5));
        world
            .population_mut(brains)
            .unwrap()
            .train_step(&x, &targets, &CrossEntropyLoss::default())
            .unwrap();
        assert!(!has_uninitialized_params(&mut world, root).unwrap(), "{number}");
        let weight = world.module_mut(root).unwrap().parameter::<f32>("0.weight").unwrap();
        assert_eq!(weight.shape(), [4, 3]);
        assert!(weight.iter().all(|&number| number != 0.0), "{number}: {weight}");
        if number != 2 {
            assert_eq!(
                world.module_mut(root).unwrap().parameter::<f32>("0.bias").unwrap().shape(),
                [4]
            );
        }
    }
}

#[test]
fn what_is_frozen_before_it_has_a_shape_stays_frozen() {
    let x = Array3::<f32>::ones((MODELS, 5, 3));
    let targets = Array2::<i64>::zeros((MODELS, 5));
    for is_loaded in [false, true] {
        let (mut world, brains, root) = spawned();
        world.population_mut(brains).unwrap().insert(Adam { lr: 0.1, ..Adam::default() }).unwrap();
        world.module_mut(root).unwrap().set_requires_grad("0.weight", false).unwrap();
        if is_loaded {
            let layer = world.module_mut(root).unwrap().at("0").unwrap().id();
            let weight = Tensor::new("weight", Array2::<f32>::ones((4, 3)).view());
            let bias = Tensor::new("bias", ndarray::Array1::<f32>::ones(4).view());
            world
                .module_mut(layer)
                .unwrap()
                .load_state_dict(&StateDict::from_iter([weight, bias]))
                .unwrap();
        }
        world.population_mut(brains).unwrap().forward(&x).unwrap();
        let other = world.population(brains).unwrap().models()[1];
        let frozen =
            [(root, "0.weight", true), (root, "0.bias", false), (other, "0.weight", false)];
        for (root, name, is_frozen) in frozen {
            let before = world.module_mut(root).unwrap().parameter::<f32>(name).unwrap();
            world
                .population_mut(brains)
                .unwrap()
                .train_step(&x, &targets, &CrossEntropyLoss::default())
                .unwrap();
            let after = world.module_mut(root).unwrap().parameter::<f32>(name).unwrap();
            assert_eq!(before == after, is_frozen, "{name}");
        }
    }
}
