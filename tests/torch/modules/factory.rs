//! The arguments `dtype` and `device` of layers: recorded on every parameter, kept when lazy ones get their shapes, in clones and
//! in files.

use ndarray::{Array3, ArrayD};
use neurarch::Device;
use neurarch::bevy_ecs::entity::EntityCloner;
use neurarch::bevy_ecs::prelude::*;
use neurarch::nn::{DynModule, Factory, Value, bf16};
use neurarch::prelude::*;
use neurarch::state::checkpoint::{self, Checkpoint};

fn spawn(world: &mut World, module: &dyn DynModule) -> Entity {
    let settings = PopulationSettings { models: 2, seed: 3, ..PopulationSettings::default() };
    world.spawn_population_with(module, settings).unwrap().id()
}

/// Names and types of all that a state dict has, as torch prints them.
fn types(world: &mut World, population: Entity) -> Vec<String> {
    let mut brains = world.population_mut(population).unwrap();
    let state = brains.model(1).unwrap().state_dict().unwrap();
    state.iter().map(|of| format!("{} {}", of.name, of.dtype().torch_name())).collect()
}

/// Each layer of a network with `dtype=torch.float64` in torch 2.15:
/// `[f"{k} {v.dtype}" for k, v in nn.BatchNorm1d(2, dtype=torch.float64).state_dict().items()]`.
#[test]
fn every_layer_has_the_type_that_its_constructor_was_given() {
    let mut world = World::new();
    let wide = |names: &[&str]| -> Vec<String> {
        names.iter().map(|name| format!("{name} torch.float64")).collect()
    };
    let id = spawn(&mut world, &BatchNorm1d::new(2).with_dtype(Dtype::F64));
    let mut expected = wide(&["weight", "bias", "running_mean", "running_var"]);
    expected.push("num_batches_tracked torch.int64".to_owned());
    assert_eq!(types(&mut world, id), expected);

    let plain = ["weight", "bias"];
    let cases: [(Factory, &[&str]); 10] = [
        (Linear::new(2, 3).with_dtype(Dtype::F64), &plain),
        (Linear::new(2, 3).without_bias().with_dtype(Dtype::F64), &["weight"]),
        (Bilinear::new(2, 2, 2).with_dtype(Dtype::F64), &plain),
        (Conv2d::new(1, 2, 3).with_dtype(Dtype::F64), &plain),
        (ConvTranspose1d::new(1, 2, 3).with_dtype(Dtype::F64), &plain),
        (Embedding::new(3, 2).with_dtype(Dtype::F64), &["weight"]),
        (LayerNorm::new([2]).with_dtype(Dtype::F64), &plain),
        (PReLU::default().with_dtype(Dtype::F64), &["weight"]),
        (
            GRU::new(2, 3).with_dtype(Dtype::F64),
            &["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"],
        ),
        (
            MultiheadAttention::new(2, 1).with_dtype(Dtype::F64),
            &["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"],
        ),
    ];
    for (layer, names) in cases {
        let id = spawn(&mut world, &layer);
        assert_eq!(types(&mut world, id), wide(names), "{layer:?}");
    }

    let id = spawn(&mut world, &TransformerEncoderLayer::new(2, 1).with_dtype(Dtype::F64));
    assert!(types(&mut world, id).iter().all(|line| line.ends_with("torch.float64")));
    // A container passes the type on; what says its own keeps it.
    let net = Sequential::new()
        .push(Linear::new(2, 2))
        .push(Linear::new(2, 1).without_bias().with_dtype(Dtype::BF16))
        .with_dtype(Dtype::F64);
    let id = spawn(&mut world, &net);
    let expected = ["0.weight torch.float64", "0.bias torch.float64", "1.weight torch.bfloat16"];
    assert_eq!(types(&mut world, id), expected);
    // torch prints neither `dtype` nor `device`.
    let layer = Linear::new(2, 3).with_dtype(Dtype::F64).with_device(Device::Cpu);
    assert_eq!(repr(&layer), "Linear(in_features=2, out_features=3, bias=True)");
}

#[test]
fn a_layer_of_its_own_type_has_the_numbers_and_results_of_a_whole_model_of_that_type() {
    let net = || Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 2));
    let typed = Sequential::new()
        .push(Linear::new(3, 4).with_dtype(Dtype::F64))
        .push(Tanh)
        .push(Linear::new(4, 2).with_dtype(Dtype::F64));
    let x = Array3::from_shape_fn((2, 5, 3), |(m, i, f)| (m + 2 * i + 3 * f) as f64 / 7.0 - 1.0);
    let y = Array3::<f64>::ones((2, 5, 2));
    let run = |module: &dyn DynModule, dtype: Dtype| -> (ArrayD<f64>, ArrayD<f64>) {
        let mut world = World::new();
        let settings = PopulationSettings { models: 2, seed: 3, dtype, ..Default::default() };
        let mut brains = world.spawn_population_with(module, settings).unwrap();
        brains.insert(Adam::default()).unwrap();
        for _ in 0..3 {
            brains.train_step(&x, &y, &MSELoss::default()).unwrap();
        }
        (brains.forward(&x).unwrap(), brains.stack::<f64>("2.weight").unwrap())
    };
    assert_eq!(run(&typed, Dtype::F32), run(&net(), Dtype::F64));
    assert_eq!(run(&net().with_dtype(Dtype::F64), Dtype::F32), run(&net(), Dtype::F64));
}

#[test]
fn each_parameter_says_its_type_and_device() {
    let mut world = World::new();
    let net =
        Sequential::new().push(Linear::new(2, 3)).push(Linear::new(3, 1).with_dtype(Dtype::F64));
    let id = spawn(&mut world, &net);
    let mut brains = world.population_mut(id).unwrap();
    let mut model = brains.model(0).unwrap();
    let all = model.named_parameters().unwrap();
    let types: Vec<_> = all.iter().map(|of| (of.name.as_str(), of.dtype())).collect();
    let expected = [
        ("0.weight", Dtype::F32),
        ("0.bias", Dtype::F32),
        ("1.weight", Dtype::F64),
        ("1.bias", Dtype::F64),
    ];
    assert_eq!(types, expected);
    assert!(all.iter().all(|of| of.device() == Device::Cpu));
    assert_eq!(model.get_parameter("1.weight").unwrap().shape(), [1, 3]);
}

/// torch 2.15: `RuntimeError: mat1 and mat2 must have the same dtype, but got Float and Double`; types are printed here as
/// everywhere.
#[test]
fn models_of_mixed_types_fail_where_torch_does_and_run_where_a_module_converts() {
    let mut world = World::new();
    let net =
        Sequential::new().push(Linear::new(2, 3)).push(Linear::new(3, 1).with_dtype(Dtype::F64));
    let id = spawn(&mut world, &net);
    let mut brains = world.population_mut(id).unwrap();
    let error = brains.forward(&Array3::<f32>::ones((2, 1, 2))).map(|_: ArrayD<f32>| ());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("mat1 and mat2 must have the same dtype, but got f32 and f64"),
        "{error}"
    );

    /// Goes on in another type.
    #[derive(Component, Clone, Debug, PartialEq)]
    struct To(Dtype);
    impl Module for To {
        fn forward(&self, _: &Call<'_>, x: Var) -> Var {
            x.to(self.0)
        }
    }
    let net = Sequential::new()
        .push(Linear::new(2, 3))
        .push(To(Dtype::F64))
        .push(Linear::new(3, 1).with_dtype(Dtype::F64))
        .push(To(Dtype::F32));
    let id = spawn(&mut world, &net);
    let mut brains = world.population_mut(id).unwrap();
    brains.insert(SGD { lr: 0.1, ..SGD::default() }).unwrap();
    let (x, y) = (Array3::<f32>::ones((2, 4, 2)), Array3::<f32>::ones((2, 4, 1)));
    let first = brains.train_step(&x, &y, &MSELoss::default()).unwrap();
    let last = (0..50).map(|_| brains.train_step(&x, &y, &MSELoss::default()).unwrap()).last();
    assert!(last.unwrap().iter().zip(&first).all(|(last, first)| last < first));
}

/// torch 2.15: `m = nn.LazyLinear(3, dtype=torch.float64); m(torch.ones(1, 2, dtype=torch.float64)); m.weight.dtype`.
#[test]
fn lazy_modules_keep_their_type_when_they_get_their_shape() {
    let mut world = World::new();
    let net = Sequential::new()
        .push(LazyLinear::new(3).with_dtype(Dtype::F64))
        .push(LazyBatchNorm1d::default().with_dtype(Dtype::F64));
    let id = spawn(&mut world, &net);
    let mut brains = world.population_mut(id).unwrap();
    let _: ArrayD<f64> = brains.forward(&Array3::<f64>::ones((2, 4, 2))).unwrap();
    let module = brains.model(0).unwrap().at("0").unwrap().id();
    let expected = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"];
    let mut expected: Vec<_> =
        expected.into_iter().map(|name| format!("{name} torch.float64")).collect();
    expected.push("1.num_batches_tracked torch.int64".to_owned());
    assert_eq!(types(&mut world, id), expected);
    assert_eq!(world.get::<Linear>(module), Some(&Linear::new(2, 3)));
}

#[test]
fn later_models_clones_checkpoints_and_live_edits_keep_the_types() {
    let mut world = World::new();
    let net =
        Sequential::new().push(Linear::new(2, 3).with_dtype(Dtype::F64)).push(Linear::new(3, 1));
    let settings = PopulationSettings { models: 0, seed: 3, ..PopulationSettings::default() };
    let mut brains = world.spawn_population_with(&net, settings).unwrap();
    let roots = brains.spawn_models(2).unwrap();
    let id = brains.id();
    let is_typed = |world: &mut World, root: Entity| {
        let mut model = world.module_mut(root).unwrap();
        model.parameter::<f64>("0.weight").is_ok() && model.parameter::<f32>("1.weight").is_ok()
    };
    assert!(is_typed(&mut world, roots[1]));
    let mut cloner = EntityCloner::build_opt_out(&mut world);
    cloner.linked_cloning(true);
    let clone = cloner.finish().spawn_clone(&mut world, roots[0]);
    assert!(is_typed(&mut world, clone));

    let path = std::env::temp_dir().join(format!("neurarch-factory-{}.ckpt", std::process::id()));
    checkpoint::save(&mut world, &[id], &path).unwrap();
    let mut other = World::new();
    let restored = Checkpoint::open(&path).unwrap().restore(&mut other).unwrap();
    std::fs::remove_file(&path).unwrap();
    for root in other.population(restored.populations[0]).unwrap().models().to_vec() {
        assert!(is_typed(&mut other, root));
    }

    let mut model = world.module_mut(roots[0]).unwrap();
    model.container().append(Linear::new(1, 2).with_dtype(Dtype::BF16)).unwrap();
    let mut model = world.module_mut(roots[0]).unwrap();
    assert!(model.parameter::<bf16>("2.weight").is_ok());
    let mut brains = world.population_mut(id).unwrap();
    brains.to(Dtype::F64).unwrap();
    let mut model = world.module_mut(roots[0]).unwrap();
    assert!(model.parameter::<f64>("2.weight").is_ok());
    assert!(model.parameter::<f64>("1.weight").is_ok());
}

/// torch 2.15 says `Only Tensors of floating point and complex dtype can require gradients`, and of a device without a driver
/// why there is none.
#[test]
fn types_of_whole_numbers_and_devices_that_are_not_there_are_errors_and_nothing_is_spawned() {
    let mut world = World::new();
    let net = |layer: Factory| Sequential::new().push(Linear::new(2, 2)).push(layer);
    let before = world.entities().len();
    let cuda =
        world.spawn_population(&net(Linear::new(2, 1).with_device(Device::Cuda(0))), 2, Seed(1));
    assert_eq!(
        cuda.map(|_| ()).unwrap_err().to_string(),
        "1: cuda:0 is not there: Torch not compiled with CUDA enabled"
    );
    let whole = world.spawn_population(&net(Linear::new(2, 1).with_dtype(Dtype::I64)), 2, Seed(1));
    assert_eq!(
        whole.map(|_| ()).unwrap_err().to_string(),
        "1.weight: Only Tensors of floating point and complex dtype can require gradients"
    );
    assert_eq!(world.entities().len(), before);
    // Devices of outer modules are asked for, too, and a type beside a device stays.
    let outer = net(Linear::new(2, 1).with_dtype(Dtype::F64)).with_device(Device::Cuda(1));
    let error = world.spawn_population(&outer, 1, Seed(1)).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with("Sequential: cuda:1 is not there"), "{error}");
    let id = spawn(&mut world, &Linear::new(2, 1).with_device(Device::Cpu).with_dtype(Dtype::F64));
    assert_eq!(types(&mut world, id)[0], "weight torch.float64");

    let root = world.population(id).unwrap().models()[0];
    let mut model = world.module_mut(root).unwrap();
    let error = model
        .register_module("head", Value::module(Linear::new(2, 1).with_device(Device::Cuda(0))));
    assert!(error.map(|_| ()).unwrap_err().to_string().contains("cuda:0 is not there"));
}
