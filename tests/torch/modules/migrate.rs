//! `to` and `_apply`: numbers, gradients, optimizer state, ties and hooks go to another element type with their modules.

use std::sync::Mutex;

use ndarray::{Array2, Array3, ArrayD};
use neurarch::Device;
use neurarch::bevy_ecs::entity::EntityCloner;
use neurarch::bevy_ecs::prelude::*;
use neurarch::nn::{Value, bf16};
use neurarch::prelude::*;
use neurarch::state::checkpoint::{self, Checkpoint};

const MODELS: usize = 6;

fn net() -> Sequential {
    Sequential::new()
        .push(Linear::new(3, 17))
        .push(BatchNorm1d::new(17))
        .push(ReLU)
        .push(Linear::new(17, 2))
}

fn inputs() -> (Array3<f32>, Array3<f32>) {
    let x = |(m, i, f): (usize, usize, usize)| ((m * 5 + i * 3 + f) % 7) as f32 / 3.0 - 1.0;
    (Array3::from_shape_fn((MODELS, 5, 3), x), Array3::from_shape_fn((MODELS, 5, 2), x))
}

/// Gives a world with trained brains that keep gradients.
fn trained() -> (World, Entity) {
    let mut world = World::new();
    let (x, y) = inputs();
    let mut brains = world.spawn_population(&net(), MODELS, Seed(5)).unwrap();
    brains
        .insert_with(|model| AdamW { lr: 1e-2 * (model + 1) as f64, ..AdamW::default() })
        .unwrap();
    brains.train_step(&x, &y, &MSELoss::default()).unwrap();
    brains.forward(&x).unwrap();
    brains.loss::<f32, f32>(&y, &MSELoss::default()).unwrap();
    brains.backward().unwrap();
    let id = brains.id();
    (world, id)
}

/// All that a model has: parameters, buffers, gradients and the state of its optimizer, as text.
fn all(world: &mut World, population: Entity, model: usize) -> String {
    let root = world.population(population).unwrap().models()[model];
    let mut model = world.module_mut(root).unwrap();
    let state = model.state_dict().unwrap();
    let state: Vec<_> =
        state.iter().map(|of| (of.name.clone(), of.dtype(), of.to_native())).collect();
    let gradients: Vec<_> = model.parameter_names().unwrap();
    let gradients: Vec<_> =
        gradients.iter().map(|name| model.gradient::<f32>(name).map(|of| of.map(bits))).collect();
    let optimizer: Vec<_> = ["0.weight", "3.bias"]
        .map(|name| model.as_ref().unwrap().optimizer_state(name).unwrap())
        .into_iter()
        .flatten()
        .map(|of| (of.name.clone(), of.dtype(), of.to_native()))
        .collect();
    format!("{state:?} {gradients:?} {optimizer:?}")
}

fn bits(x: ArrayD<f32>) -> Vec<u32> {
    x.into_iter().map(f32::to_bits).collect()
}

fn everyone(world: &mut World, population: Entity) -> Vec<String> {
    (0..MODELS).map(|model| all(world, population, model)).collect()
}

#[test]
fn there_and_back_changes_nothing_and_training_goes_on() {
    let (x, y) = inputs();
    let ends = [false, true].map(|goes| {
        let (mut world, id) = trained();
        let before = everyone(&mut world, id);
        if goes {
            world.population_mut(id).unwrap().double().unwrap().float().unwrap();
            assert_eq!(everyone(&mut world, id), before);
        }
        let losses = world.population_mut(id).unwrap().train_step(&x, &y, &MSELoss::default());
        (losses.unwrap(), everyone(&mut world, id))
    });
    assert!(ends[0] == ends[1]);
}

#[test]
fn some_models_go_alone_and_come_back() {
    let (mut world, id) = trained();
    let before = everyone(&mut world, id);
    world.population_mut(id).unwrap().model(1).unwrap().double().unwrap();
    world.population_mut(id).unwrap().model(4).unwrap().bfloat16().unwrap();
    world.population_mut(id).unwrap().at("3").double().unwrap();
    let root = world.population(id).unwrap().models()[1];
    let mut model = world.module_mut(root).unwrap();
    assert_eq!(model.parameter::<f64>("0.weight").unwrap().shape(), [17, 3]);
    assert_eq!(model.gradient::<f64>("0.weight").unwrap().unwrap().shape(), [17, 3]);
    let states = model.as_ref().unwrap().optimizer_state("0.weight").unwrap();
    let dtypes: Vec<_> = states.iter().map(|of| (&*of.name, of.dtype())).collect();
    assert_eq!(dtypes, [("step", Dtype::F32), ("exp_avg", Dtype::F64), ("exp_avg_sq", Dtype::F64)]);

    let (x, _) = inputs();
    let error = world.population_mut(id).unwrap().forward(&x).unwrap_err().to_string();
    assert!(error.contains("f32") && error.contains("f64"), "{error}");
    let x = Array2::<f64>::ones((4, 3));
    let one = world.module_mut(root).unwrap().eval().unwrap().forward(&x).unwrap();
    assert_eq!(one.shape(), [4, 2]);

    world.module_mut(root).unwrap().train().unwrap();
    world.population_mut(id).unwrap().float().unwrap();
    let after = everyone(&mut world, id);
    for model in [0, 1, 2, 3, 5] {
        assert_eq!(after[model], before[model], "{model}");
    }
    assert_ne!(after[4], before[4]);
}

/// Checked by `torch.nn.Linear(3, 2)` with these numbers, `.bfloat16()(torch.tensor([[1., 2., 3.]], dtype=torch.bfloat16))`,
/// which gives `[[2.7656, -2.5000]]` of `torch.bfloat16`.
#[test]
fn a_converted_layer_computes_what_torch_computes() {
    let mut world = World::new();
    let mut layers = world.spawn_population(&Linear::new(3, 2), 2, Seed(1)).unwrap();
    for model in 0..2 {
        let mut layer = layers.model(model).unwrap();
        let weight = ndarray::array![[0.301_f32, 0.502, 0.403], [-0.111, -1.007, -0.101]];
        layer.set_parameter("weight", weight.view()).unwrap();
        layer.set_parameter("bias", ndarray::array![0.25_f32, -0.07].view()).unwrap();
    }
    let x = Array2::from_shape_fn((2, 3), |(_, i)| bf16::from_f32(i as f32 + 1.0));
    let y = layers.bfloat16().unwrap().forward(&x).unwrap();
    assert_eq!(y.row(0).to_vec(), [2.765625, -2.5].map(bf16::from_f32));
    assert_eq!(y.row(0), y.row(1));
}

trait Row {
    fn row(&self, model: usize) -> ndarray::ArrayView1<'_, bf16>;
}

impl Row for ArrayD<bf16> {
    fn row(&self, model: usize) -> ndarray::ArrayView1<'_, bf16> {
        self.index_axis(ndarray::Axis(0), model).into_dimensionality().unwrap()
    }
}

#[test]
fn a_whole_population_stays_where_it_is() {
    let (mut world, id) = trained();
    let entities = |world: &World| -> Vec<_> {
        let models = world.population(id).unwrap().models().to_vec();
        models.iter().map(|&root| world.entity(root).archetype().id()).collect()
    };
    let before = entities(&world);
    for dtype in [Dtype::BF16, Dtype::F32, Dtype::F16, Dtype::F32] {
        world.population_mut(id).unwrap().to(dtype).unwrap();
        assert_eq!(world.population(id).unwrap().dtype(), dtype);
        assert_eq!(entities(&world), before);
    }
    // Signing finds nothing to do, also when it looks at each model.
    let models = world.population(id).unwrap().models().to_vec();
    for root in models {
        let layer = *world.get::<Linear>(first_child(&world, root)).unwrap();
        let child = first_child(&world, root);
        world.entity_mut(child).insert(layer);
    }
    world.population_mut(id).unwrap().settle().unwrap();
    assert_eq!(entities(&world), before);
}

fn first_child(world: &World, root: Entity) -> Entity {
    world.get::<Children>(root).unwrap()[0]
}

#[test]
fn whole_numbers_stay_unless_all_types_change() {
    let mut world = World::new();
    let mut norms = world.spawn_population(&BatchNorm1d::new(2), 3, Seed(1)).unwrap();
    let dtypes = |norms: &mut PopulationMut<'_>| {
        let state = norms.model(0).unwrap().state_dict().unwrap();
        state.iter().map(Tensor::dtype).collect::<Vec<_>>()
    };
    norms.half().unwrap();
    assert_eq!(dtypes(&mut norms), [[Dtype::F16; 4].as_slice(), &[Dtype::I64]].concat());
    norms.type_(Dtype::F64).unwrap();
    assert_eq!(dtypes(&mut norms), [Dtype::F64; 5]);
    let error = norms.type_(Dtype::I64).unwrap_err().to_string();
    assert_eq!(
        error,
        "weight: data set to a tensor that requires gradients must be floating point or complex dtype"
    );
    norms.requires_grad_(false).unwrap();
    norms.type_(Dtype::I64).unwrap();
    assert_eq!(dtypes(&mut norms), [Dtype::I64; 5]);
    assert_eq!(norms.model(2).unwrap().parameter::<i64>("weight").unwrap().sum(), 2);
}

#[test]
fn what_cannot_be_is_refused_in_torchs_words() {
    let mut world = World::new();
    let mut layers = world.spawn_population(&Linear::new(1, 1), 2, Seed(1)).unwrap();
    assert_eq!(
        layers.to(Dtype::I64).unwrap_err().to_string(),
        "nn.Module.to only accepts floating point or complex dtypes, but got desired dtype=torch.int64"
    );
    assert_eq!(
        layers.to((Device::Cuda(1), Dtype::F64)).unwrap_err().to_string(),
        "cuda:1 is not there: Torch not compiled with CUDA enabled"
    );
    assert!(layers.at("nobody").to(Dtype::F64).is_err());
    assert_eq!(layers.as_ref().unwrap().dtype(), Dtype::F32);
    layers.cpu().unwrap();
    let like = Tensor::new("", ndarray::array![1.0_f64].view());
    layers.to_like(&like).unwrap();
    assert_eq!(layers.as_ref().unwrap().dtype(), Dtype::F64);
}

#[test]
fn a_tied_weight_is_converted_everywhere() {
    #[derive(Component, Clone, Debug, PartialEq)]
    #[component(immutable)]
    struct Tied;

    impl Module for Tied {
        fn declare(&self, declare: &mut Declare) {
            declare.child("encoder", Linear::new(3, 3)).child("decoder", Linear::new(3, 3));
            declare.tie("decoder.weight", "encoder.weight");
        }

        fn forward(&self, call: &Call<'_>, x: Var) -> Var {
            call.child("decoder", &call.child("encoder", &x))
        }
    }

    for model in [None, Some(1)] {
        let mut world = World::new();
        let mut nets = world.spawn_population(&Tied, 3, Seed(2)).unwrap();
        let before = nets.model(1).unwrap().parameter::<f32>("encoder.weight").unwrap();
        if let Some(model) = model {
            nets.model(model).unwrap().at("decoder").unwrap().double().unwrap();
        } else {
            nets.at("decoder").double().unwrap();
        }
        let mut net = nets.model(1).unwrap();
        assert_eq!(net.parameter::<f64>("encoder.weight").unwrap(), before.mapv(f64::from));
        assert!(net.parameter::<f32>("encoder.bias").is_ok());
        net.set_parameter("decoder.weight", Array2::<f64>::ones((3, 3)).view()).unwrap();
        assert_eq!(net.parameter::<f64>("encoder.weight").unwrap().sum(), 9.0);
        nets.float().unwrap();
        assert_eq!(nets.model(1).unwrap().parameter::<f32>("encoder.weight").unwrap().sum(), 9.0);
    }
}

#[test]
fn what_models_share_is_converted_in_all_of_them_or_not() {
    let (x, y) = inputs();
    let mut world = World::new();
    let mut brains = world.spawn_population(&net(), MODELS, Seed(5)).unwrap();
    brains.share_parameter("3.weight").unwrap();
    brains.insert(AdamW::default()).unwrap();
    brains.train_step(&x, &y, &MSELoss::default()).unwrap();
    let before = brains.model(2).unwrap().parameter::<f32>("3.weight").unwrap();
    let error = brains.model(2).unwrap().double().map(|_| ()).unwrap_err().to_string();
    assert_eq!(
        error,
        "'3.weight' is shared by all models of its population: convert it in all of them"
    );
    assert!(brains.model(2).unwrap().parameter::<f32>("0.weight").is_ok());
    brains.model(2).unwrap().at("0").unwrap().double().unwrap().float().unwrap();
    let other = |goes: bool, brains: &mut PopulationMut<'_>| {
        if goes {
            brains.at("3").double().unwrap().float().unwrap();
            brains.double().unwrap();
            let now = brains.model(2).unwrap().parameter::<f64>("3.weight").unwrap();
            assert_eq!(now, before.mapv(f64::from));
            brains.float().unwrap();
        }
        brains.train_step(&x, &y, &MSELoss::default()).unwrap()
    };
    let gone = other(true, &mut brains);
    let mut world = World::new();
    let mut brains = world.spawn_population(&net(), MODELS, Seed(5)).unwrap();
    brains.share_parameter("3.weight").unwrap();
    brains.insert(AdamW::default()).unwrap();
    brains.train_step(&x, &y, &MSELoss::default()).unwrap();
    assert_eq!(other(false, &mut brains), gone);
}

#[test]
fn parametrized_lazy_and_registered_tensors_are_converted() {
    for whole in [true, false] {
        let mut world = World::new();
        let net = Sequential::new().push(Linear::new(3, 4)).push(LazyLinear::new(2));
        let mut nets = world.spawn_population(&net, 2, Seed(3)).unwrap();
        nets.at("0").weight_norm("weight", Some(0)).unwrap();
        nets.at("1")
            .register_buffer("kept", Value::tensor(ndarray::array![0.5_f32].view()), true)
            .unwrap();
        if whole {
            nets.double().unwrap();
        } else {
            for model in 0..2 {
                nets.model(model).unwrap().double().unwrap();
            }
        }
        let y = nets.forward(&Array3::<f64>::ones((2, 5, 3))).unwrap();
        assert_eq!(y.shape(), [2, 5, 2]);
        let state = nets.model(0).unwrap().state_dict().unwrap();
        let dtypes: Vec<_> = state.iter().map(|of| (of.name.clone(), of.dtype())).collect();
        assert!(dtypes.iter().all(|(_, dtype)| *dtype == Dtype::F64), "{dtypes:?}");
        assert_eq!(dtypes.len(), 6, "{dtypes:?}");
    }
}

#[test]
fn a_converted_model_is_copied_saved_and_spawned_as_it_is() {
    let mut world = World::new();
    let mut brains = world.spawn_population(&net(), 3, Seed(5)).unwrap();
    brains.model(1).unwrap().at("3").unwrap().double().unwrap();
    let (id, root) = (brains.id(), brains.models().unwrap()[1]);
    let mut cloner = EntityCloner::build_opt_out(&mut world);
    cloner.linked_cloning(true);
    let clone = cloner.finish().spawn_clone(&mut world, root);
    let of = |world: &mut World, root: Entity| {
        world.module_mut(root).unwrap().parameter::<f64>("3.weight").unwrap()
    };
    let weight = of(&mut world, root);
    assert_eq!(of(&mut world, clone), weight);

    let path = std::env::temp_dir().join(format!("neurarch-migrate-{}.ckpt", std::process::id()));
    checkpoint::save(&mut world, &[id], &path).unwrap();
    let mut other = World::new();
    let restored = Checkpoint::open(&path).unwrap().restore(&mut other).unwrap();
    std::fs::remove_file(&path).unwrap();
    let models = other.population(restored.populations[0]).unwrap().models().to_vec();
    assert_eq!(of(&mut other, models[1]), weight);
    assert_eq!(of(&mut other, models[3]), weight);
    assert!(other.module_mut(models[0]).unwrap().parameter::<f32>("3.weight").is_ok());

    let mut brains = world.population_mut(id).unwrap();
    brains.bfloat16().unwrap();
    let new = brains.spawn_models(2).unwrap();
    let mut module = world.module_mut(new[1]).unwrap();
    assert!(module.parameter::<bf16>("0.weight").is_ok());
    let mut empty = world.spawn_population(&net(), 0, Seed(5)).unwrap();
    empty.bfloat16().unwrap();
    let new = empty.spawn_models(1).unwrap()[0];
    assert!(world.module_mut(new).unwrap().parameter::<bf16>("0.weight").is_ok());
}

#[test]
fn a_module_type_may_keep_a_tensor_in_another_type() {
    /// Keeps its gain in single precision.
    #[derive(Component, Clone, Debug, PartialEq)]
    #[component(immutable)]
    struct Gain;

    impl Module for Gain {
        fn declare(&self, declare: &mut Declare) {
            declare.parameter("gain", [2]).parameter("shift", [2]);
        }

        fn reset(&self, name: &str) -> Init {
            if name == "gain" { Init::Ones } else { Init::Zeros }
        }

        fn converted_dtype(&self, name: &str, dtype: Dtype) -> Dtype {
            if name == "gain" { Dtype::F32 } else { dtype }
        }

        fn forward(&self, call: &Call<'_>, x: Var) -> Var {
            x * call.parameter("gain").to(Dtype::BF16) + call.parameter("shift")
        }
    }

    let mut world = World::new();
    let mut gains = world.spawn_population(&Gain, 3, Seed(1)).unwrap();
    gains.bfloat16().unwrap();
    let mut gain = gains.model(2).unwrap();
    assert!(gain.parameter::<f32>("gain").is_ok() && gain.parameter::<bf16>("shift").is_ok());
    let x = Array2::from_elem((3, 2), bf16::from_f32(3.0));
    assert_eq!(gains.forward(&x).unwrap(), x.into_dyn());
}

/// torch calls the function in this order, checked by `net._apply(lambda t: (print(t.shape), t)[1])`.
#[test]
fn apply_calls_the_function_in_torchs_order_and_gradients_follow_their_parameters() {
    let (mut world, id) = trained();
    let names = Mutex::new(Vec::new());
    let mut brains = world.population_mut(id).unwrap();
    let before = brains.model(0).unwrap().parameter::<f32>("3.weight").unwrap();
    let gradient = brains.model(0).unwrap().gradient::<f32>("3.weight").unwrap().unwrap();
    let mut one = brains.model(0).unwrap();
    one._apply(|tensor| {
        names.lock().unwrap().push(tensor.name.clone());
        let doubled = tensor.to_array::<f32>().map(|x| x.mapv(|x| 2.0 * x));
        doubled.map_or(tensor.clone(), |x| Tensor::new("", x.view()))
    })
    .unwrap();
    let both = |name: &str| [name.to_owned(), name.to_owned()];
    let buffers = ["1.running_mean", "1.running_var", "1.num_batches_tracked"].map(str::to_owned);
    let parameters = ["0.weight", "0.bias", "1.weight", "1.bias"].into_iter().flat_map(both);
    let last = ["3.weight", "3.bias"].into_iter().flat_map(both);
    let expected: Vec<_> = parameters.chain(buffers).chain(last).collect();
    assert_eq!(names.into_inner().unwrap(), expected);
    assert_eq!(one.parameter::<f32>("3.weight").unwrap(), before.mapv(|x| 2.0 * x));
    assert_eq!(one.gradient::<f32>("3.weight").unwrap().unwrap(), gradient.mapv(|x| 2.0 * x));

    let before = everyone(&mut world, id);
    let mut brains = world.population_mut(id).unwrap();
    let error = brains._apply(|tensor| match &*tensor.name {
        "1.bias" => Tensor::new("", ndarray::array![0.0_f32].view()),
        _ => tensor.cast(Dtype::F64),
    });
    assert_eq!(
        error.map(|_| ()).unwrap_err().to_string(),
        "'1.bias': expected a tensor of shape [17] from the function, got [1]"
    );
    assert_eq!(everyone(&mut world, id), before);
    let mut brains = world.population_mut(id).unwrap();
    brains._apply(|tensor| tensor.cast(Dtype::F64)).unwrap();
    assert!(brains.model(3).unwrap().parameter::<f64>("1.bias").is_ok());
    brains.float().unwrap();
    let state = brains.model(0).unwrap().state_dict().unwrap();
    assert_eq!(state.get("1.num_batches_tracked").unwrap().dtype(), Dtype::F32);
}

#[test]
fn hooks_and_what_is_frozen_stay() {
    let (mut world, id) = trained();
    let mut brains = world.population_mut(id).unwrap();
    let calls = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = calls.clone();
    brains
        .at("0")
        .register_forward_hook(move |_, _, _| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        })
        .unwrap();
    brains.at("0").set_requires_grad("weight", false).unwrap();
    brains.double().unwrap();
    let x = Array3::<f64>::ones((MODELS, 5, 3));
    brains.forward(&x).unwrap();
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert!(!brains.model(1).unwrap().requires_grad("0.weight").unwrap());
    assert!(brains.model(1).unwrap().requires_grad("0.bias").unwrap());
}
