//! Autocast and gradient scalers: torch's numbers, the same bits planned and eagerly, alone and among others.

use ndarray::{Array2, Array3, ArrayD, Axis, IxDyn};
use neurarch::hooks::Target;
use neurarch::kernels::ir::dtype::{bf16, f16};
use neurarch::prelude::*;
use neurarch::systems::amp::ScalerError;
use neurarch::systems::structure::mode;

use crate::known::Known;

/// Lines of a precision, a step, what the numbers are, and the numbers.
const GOLDEN: &str = include_str!("../../golden/amp.txt");

const MODELS: usize = 3;
const BATCH: usize = 6;
const STEPS: usize = 6;

fn numbers(shape: &[usize], f: impl Fn(f64) -> f64) -> ArrayD<f32> {
    let count = shape.iter().product::<usize>();
    let numbers = (0..count).map(|i| f(i as f64) as f32).collect();
    ArrayD::from_shape_vec(IxDyn(shape), numbers).unwrap()
}

fn network() -> Sequential {
    Sequential::new()
        .push(Linear::new(4, 8))
        .push(Tanh)
        .push(LayerNorm::new([8]))
        .push(Linear::new(8, 3))
}

/// A population of the golden file's models with these indices.
fn spawn(world: &mut World, indices: &[usize]) -> Entity {
    let settings = PopulationSettings { models: indices.len(), ..PopulationSettings::default() };
    let population = world.spawn_population_with(&network(), settings).unwrap().id();
    world.brains(population).insert(Adam { lr: 0.01, ..Adam::default() }).unwrap();
    for (place, &m) in indices.iter().enumerate() {
        let root = world.population(population).unwrap().models()[place];
        for (k, name) in world.part(root).parameter_names().unwrap().iter().enumerate() {
            let shape = world.part(root).parameter::<f32>(name).unwrap().shape().to_vec();
            let value = numbers(&shape, |i| (0.9 * i + (k + m) as f64 + 1.0).sin() / 2.0);
            world.part(root).set_parameter(name, value.view()).unwrap();
        }
    }
    population
}

fn inputs(indices: &[usize]) -> Array3<f32> {
    let one = |m: &usize| numbers(&[BATCH, 4], |i| (0.7 * i + *m as f64).sin());
    let rows: Vec<_> = indices.iter().map(one).collect();
    let rows: Vec<_> = rows.iter().map(|row| row.view()).collect();
    ndarray::stack(Axis(0), &rows).unwrap().into_dimensionality().unwrap()
}

fn target() -> Array2<f32> {
    numbers(&[BATCH, 3], |i| (1.3 * i).cos()).into_dimensionality().unwrap()
}

/// Reads the line that begins with `start`.
fn golden(start: &str) -> Vec<f64> {
    let line = GOLDEN.lines().find_map(|line| line.strip_prefix(start)).unwrap();
    line.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

fn compare(start: &str, got: &[f64], tolerance: f64) {
    let expected = golden(start);
    assert_eq!(got.len(), expected.len(), "{start}");
    for (got, expected) in got.iter().zip(&expected) {
        let close = (got - expected).abs() <= tolerance || (got.is_nan() && expected.is_nan());
        assert!(close, "{start}: {got}, not {expected}");
    }
}

/// All parameters of a model, in order.
fn parameters(world: &mut World, root: Entity) -> Vec<f32> {
    world.part(root).parameters_to_vector::<f32>().unwrap().to_vec()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn training_in_bf16_is_torchs_within_a_few_roundings() {
    let mut world = World::new();
    let all: Vec<_> = (0..MODELS).collect();
    let population = spawn(&mut world, &all);
    world.brains(population).insert(SGD { lr: 0.1, momentum: 0.9, ..SGD::default() }).unwrap();
    let (x, y) = (inputs(&all), target());
    let root = world.population(population).unwrap().models()[2];
    for step in 0..STEPS {
        let losses = world.autocast(Dtype::BF16, |world| {
            let y = Input::shared(y.view());
            world.brains(population).train_step(&x, y, &MSELoss::default()).unwrap()
        });
        let losses: Vec<_> = losses.iter().map(|&loss: &f32| f64::from(loss)).collect();
        // A half has 8 bits: results that lie near the middle of two become one or the other.
        compare(&format!("bf16 {step} losses "), &losses, 2e-3);
        let parameters: Vec<_> = parameters(&mut world, root).into_iter().map(f64::from).collect();
        compare(&format!("bf16 {step} parameters "), &parameters, 1e-3);
    }
    assert_eq!(world.part(root).parameter::<f32>("0.weight").unwrap().len(), 32);
}

#[test]
fn training_in_f16_with_scalers_is_torchs() {
    let mut world = World::new();
    let all: Vec<_> = (0..MODELS).collect();
    let population = spawn(&mut world, &all);
    let scaler = GradScaler { init_scale: 1024.0, growth_interval: 2, ..GradScaler::default() };
    world.brains(population).insert(scaler).unwrap();
    world.brains(population).insert(SGD { lr: 0.1, momentum: 0.9, ..SGD::default() }).unwrap();
    let y = target();
    let root = world.population(population).unwrap().models()[2];
    for step in 0..STEPS {
        let mut x = inputs(&all);
        if step == 2 {
            x[[1, 0, 0]] = 1e6;
        }
        let losses = world.autocast(Dtype::F16, |world| {
            let y = Input::shared(y.view());
            world.brains(population).train_step_scaled(&x, y, &MSELoss::default()).unwrap()
        });
        let losses: Vec<_> = losses.iter().map(|&loss: &f32| f64::from(loss)).collect();
        compare(&format!("f16 {step} losses "), &losses, 2e-4);
        compare(
            &format!("f16 {step} scales "),
            &world.population(population).unwrap().get_scale().unwrap().to_vec(),
            0.0,
        );
        let parameters: Vec<_> = parameters(&mut world, root).into_iter().map(f64::from).collect();
        compare(&format!("f16 {step} parameters "), &parameters, 2e-4);
    }
}

/// What is left of a model after scaled steps: its parameters, the state of its optimizer and its scale.
fn state(world: &mut World, root: Entity) -> (Vec<u32>, Vec<Tensor>, GradScaler) {
    let state = world.part(root).optimizer_state_dict().unwrap().state;
    let state = state.into_values().flatten().collect();
    (bits(&parameters(world, root)), state, *world.get::<GradScaler>(root).unwrap())
}

/// Makes scaled steps of the models with these indices; model 1 meets a number too large for f16 in step 1.
fn overflowing(indices: &[usize], steps: usize) -> (World, Entity) {
    let mut world = World::new();
    let population = spawn(&mut world, indices);
    world.brains(population).insert(GradScaler::default()).unwrap();
    for step in 0..steps {
        let mut x = inputs(indices);
        if let Some(place) = indices.iter().position(|&m| m == 1).filter(|_| step == 1) {
            x[[place, 0, 0]] = 1e6;
        }
        world.autocast(Dtype::F16, |world| {
            let y = target();
            let y = Input::shared(y.view());
            world
                .brains(population)
                .train_step_scaled::<f32, f32>(&x, y, &MSELoss::default())
                .unwrap();
        });
    }
    (world, population)
}

#[test]
fn an_overflow_passes_over_the_step_of_its_model_alone() {
    let (mut world, population) = overflowing(&[0, 1, 2], 4);
    let roots = world.population(population).unwrap().models().to_vec();
    for (m, &root_among) in roots.iter().enumerate() {
        let (mut alone, population) = overflowing(&[m], 4);
        let root = alone.population(population).unwrap().models()[0];
        assert_eq!(state(&mut world, root_among), state(&mut alone, root), "model {m}");
    }
    // The step that is passed over changes the scale, and nothing else.
    let (mut before, population) = overflowing(&[0, 1, 2], 1);
    let (mut after, of_after) = overflowing(&[0, 1, 2], 2);
    let root = before.population(population).unwrap().models()[1];
    let old = state(&mut before, root);
    let root = after.population(of_after).unwrap().models()[1];
    let new = state(&mut after, root);
    assert_eq!((&old.0, &old.1), (&new.0, &new.1));
    assert_eq!((old.2.get_scale(), new.2.get_scale()), (65536.0, 32768.0));
    let steps = |world: &mut World, root| {
        world.part(root).optimizer_state_dict().unwrap().state[&0][0].clone()
    };
    let root = after.population(of_after).unwrap().models().to_vec();
    assert_ne!(steps(&mut after, root[0]), steps(&mut after, root[1]));
}

#[test]
fn separate_calls_and_the_one_call_give_the_same_bits() {
    let run = |separate: bool| {
        let mut world = World::new();
        let all = [0, 1, 2];
        let population = spawn(&mut world, &all);
        world
            .brains(population)
            .insert(GradScaler { init_scale: 3000.0, ..GradScaler::default() })
            .unwrap();
        let (x, y) = (inputs(&all), target());
        let loss = MSELoss::default();
        for _ in 0..3 {
            let y = || Input::shared(y.view());
            if !separate {
                world.autocast(Dtype::BF16, |world| {
                    world.brains(population).train_step_scaled::<f32, f32>(&x, y(), &loss).unwrap();
                });
                continue;
            }
            world.brains(population).zero_grad().unwrap();
            world.autocast(Dtype::BF16, |world| {
                world.brains(population).forward(&x).unwrap();
                world.brains(population).loss::<f32, f32>(y(), &loss).unwrap();
            });
            // As torch recommends, going back is outside of autocast.
            world.brains(population).scale_loss().unwrap();
            world.brains(population).backward().unwrap();
            world.brains(population).unscale_().unwrap();
            assert_eq!(world.brains(population).step_scaled().unwrap(), [true; MODELS]);
            world.brains(population).update_scale(None).unwrap();
        }
        let root = world.population(population).unwrap().models()[1];
        state(&mut world, root)
    };
    assert_eq!(run(true), run(false));
}

/// Layers that meet every list of autocast.
fn image_network() -> Sequential {
    Sequential::new()
        .push(Conv2d::new(2, 4, 3).with_padding(1))
        .push(BatchNorm2d::new(4))
        .push(ReLU)
        .push(MaxPool2d::new(2))
        .push(ReflectionPad2d::new([1, 1, 1, 1]))
        .push(PReLU::default())
        .push(AdaptiveAvgPool2d::new([Some(2), Some(2)]))
        .push(Flatten::default())
        .push(Linear::new(16, 3))
        .push(GELU::default())
        .push(Softmax { dim: -1 })
}

#[test]
fn planned_and_eager_passes_give_the_same_bits() {
    for dtype in [Dtype::BF16, Dtype::F16] {
        let run = |watched: bool| {
            let mut world = World::new();
            let settings =
                PopulationSettings { models: MODELS, seed: 5, ..PopulationSettings::default() };
            let population = world.spawn_population_with(&image_network(), settings).unwrap().id();
            world.brains(population).insert(SGD { lr: 0.1, ..SGD::default() }).unwrap();
            if watched {
                world
                    .target_mut(Target::Population(population, String::new()))
                    .register_forward_hook(|_, _, _| Ok(None))
                    .unwrap();
            }
            let x = numbers(&[MODELS, BATCH, 2, 4, 4], |i| (0.7 * i).sin());
            let y = numbers(&[BATCH, 3], |i| (1.3 * i).cos());
            let mut losses = Vec::new();
            for _ in 0..3 {
                let of_models = world.autocast(dtype, |world| {
                    let y = Input::shared(y.view());
                    world
                        .brains(population)
                        .train_step::<f32, f32>(&x, y, &HuberLoss::default())
                        .unwrap()
                });
                losses.extend(of_models);
            }
            let roots = world.population(population).unwrap().models().to_vec();
            let all: Vec<_> = roots.iter().flat_map(|&root| parameters(&mut world, root)).collect();
            let means = roots
                .iter()
                .flat_map(|&root| world.part(root).parameter::<f32>("1.running_mean").unwrap());
            let means: Vec<_> = means.collect();
            (bits(&losses), bits(&all), bits(&means))
        };
        assert_eq!(run(false), run(true), "{dtype}");
    }
}

#[test]
fn autocast_lasts_as_long_as_it_is_asked_for() {
    let mut world = World::new();
    let population = spawn(&mut world, &[0, 1, 2]);
    let x = inputs(&[0, 1, 2]);
    let run = |world: &mut World| world.brains(population).forward(&x).unwrap();
    let exact = run(&mut world);
    assert!(!world.is_autocast_enabled());
    let (lower, nested) = world.autocast(Dtype::BF16, |world| {
        assert!(world.is_autocast_enabled());
        let nested = world.autocast(Dtype::F32, |world| {
            assert!(!world.is_autocast_enabled());
            run(world)
        });
        assert!(world.is_autocast_enabled());
        (run(world), nested)
    });
    assert_eq!(nested, exact);
    assert_eq!(run(&mut world), exact);
    assert!(lower != exact);
    let halves = world.autocast(Dtype::F16, run);
    assert!(halves != exact && halves != lower);
    // Outputs of the last layer are halves.
    assert!(lower.iter().all(|y: &f32| y.to_bits() & 0xffff == 0));
}

#[test]
fn parameters_and_gradients_stay_of_single_precision() {
    let mut world = World::new();
    let population = spawn(&mut world, &[0]);
    let x = inputs(&[0]);
    world.autocast(Dtype::BF16, |world| world.population_mut(population)?.forward(&x)).unwrap();
    world.brains(population).backward_from(&ArrayD::<f32>::ones(vec![1, BATCH, 3])).unwrap();
    let root = world.population(population).unwrap().models()[0];
    let gradient = world.part(root).gradient::<f32>("0.weight").unwrap().unwrap();
    assert!(gradient.iter().all(|g| g.is_finite() && *g != 0.0));
    assert!(world.part(root).parameter::<f32>("3.bias").is_ok());
}

#[test]
fn recurrent_and_attention_layers_run_with_autocast() {
    let mut world = World::new();
    let x = numbers(&[2, 5, 3, 4], |i| (0.7 * i).sin());
    let layers = TransformerEncoderLayer { dropout: 0.0, ..TransformerEncoderLayer::new(4, 2) };
    let encoder = world.spawn_population(&layers, 2, Seed(3)).unwrap().id();
    let exact = world.brains(encoder).forward(&x).unwrap();
    let lower =
        world.autocast(Dtype::BF16, |world| world.population_mut(encoder)?.forward(&x)).unwrap();
    let distance = (&exact - &lower).iter().fold(0.0_f32, |most, d| most.max(d.abs()));
    assert!(distance > 0.0 && distance < 0.1, "{distance}");
    for hidden in [4, 6] {
        let lstm = world.spawn_population(&LSTM::new(4, hidden), 2, Seed(3)).unwrap().id();
        let call = |world: &mut World| {
            let arguments = Arguments::each([AnyInput::from(&x)]);
            world.brains(lstm).forward_with::<f32>(arguments).unwrap().leaves()[0].clone()
        };
        let exact = call(&mut world);
        let lower = world.autocast(Dtype::BF16, call);
        let distance = (&exact - &lower).iter().fold(0.0_f32, |most, d| most.max(d.abs()));
        assert!(distance > 0.0 && distance < 0.05, "{distance}");
    }
}

#[test]
fn scalers_say_what_is_missing() {
    let mut world = World::new();
    let population = spawn(&mut world, &[0, 1]);
    let x = inputs(&[0, 1]);
    let error = world.brains(population).scale_loss().unwrap_err();
    assert!(matches!(error, ScalerError::NoScaler { model: 0 }), "{error}");
    world
        .brains(population)
        .insert(GradScaler { growth_factor: 1.0, ..GradScaler::default() })
        .unwrap();
    assert_eq!(
        world.brains(population).unscale_().unwrap_err().to_string(),
        "The growth factor must be > 1.0."
    );
    world.brains(population).insert(GradScaler::default()).unwrap();
    assert!(matches!(
        world.brains(population).scale_loss(),
        Err(ScalerError::Step(StepError::NoLoss))
    ));
    world.brains(population).forward(&x).unwrap();
    let y = target();
    world
        .brains(population)
        .loss::<f32, f32>(Input::shared(y.view()), &MSELoss::default())
        .unwrap();
    world.brains(population).scale_loss().unwrap();
    let error = world.brains(population).step_scaled().unwrap_err();
    assert_eq!(error.to_string(), "No inf checks were recorded for this optimizer.");
    world.brains(population).backward().unwrap();
    world.brains(population).unscale_().unwrap();
    // Clipping is between the two.
    world.brains(population).clip_grad_norm_(0.1).unwrap();
    assert!(world.brains(population).get_total_norm(2.0).unwrap().iter().all(|norm| *norm <= 0.11));
    world.brains(population).step_scaled().unwrap();
    assert!(matches!(world.brains(population).step_scaled(), Err(ScalerError::AlreadyStepped)));
    world.brains(population).update_scale(Some(8.0)).unwrap();
    assert_eq!(world.population(population).unwrap().get_scale().unwrap().to_vec(), [8.0, 8.0]);
    let root = world.population(population).unwrap().models()[0];
    let state = world.module(root).unwrap().scaler_state_dict().unwrap();
    let mut off = GradScaler { enabled: false, ..GradScaler::default() };
    world.brains(population).insert(off).unwrap();
    assert_eq!(world.module(root).unwrap().scaler_state_dict().unwrap(), None);
    off.enabled = true;
    world.brains(population).insert(off).unwrap();
    assert!(matches!(world.part(root).load_scaler_state_dict(None), Err(ScalerError::EmptyState)));
    world.part(root).load_scaler_state_dict(state.as_ref()).unwrap();
    assert_eq!(world.population(population).unwrap().get_scale().unwrap().to_vec(), [8.0, 65536.0]);
}

#[test]
fn a_function_may_refuse_to_run_with_autocast() {
    use neurarch::kernels::ir::autocast::Autocast;
    use neurarch::kernels::ir::device::Device;
    let mut world = World::new();
    let population = world.spawn_population(&Sigmoid, 1, Seed(0)).unwrap().id();
    mode::set_autocast_mode(&mut world, Autocast::new(Device::Cuda(0), Dtype::F16));
    let (x, y) = (Array3::<f32>::zeros((1, 2, 2)), Array3::<f32>::zeros((1, 2, 2)));
    world.brains(population).forward(&x).unwrap();
    let error = world.brains(population).loss::<f32, f32>(&y, &BCELoss::default()).unwrap_err();
    assert!(error.to_string().contains("are unsafe to autocast"), "{error}");
}

/// Trains a population whose parameters are halves; gives the losses of each step.
fn train_halves<T: Half>(dtype: Dtype, watched: bool) -> (Vec<f64>, Vec<f64>) {
    let mut world = World::new();
    let settings =
        PopulationSettings { models: MODELS, seed: 5, dtype, ..PopulationSettings::default() };
    let population = world.spawn_population_with(&image_network(), settings).unwrap().id();
    world.brains(population).insert(SGD { lr: 0.1, momentum: 0.9, ..SGD::default() }).unwrap();
    if watched {
        let target = Target::Population(population, String::new());
        world.target_mut(target).register_forward_hook(|_, _, _| Ok(None)).unwrap();
    }
    let x = numbers(&[MODELS, BATCH, 2, 4, 4], |i| (0.7 * i).sin()).mapv(T::of);
    let y = numbers(&[BATCH, 3], |i| (1.3 * i).cos()).mapv(T::of);
    let mut losses = Vec::new();
    for _ in 0..5 {
        let y = Input::shared(y.view());
        let of_models =
            world.brains(population).train_step::<T, T>(&x, y, &MSELoss::default()).unwrap();
        losses.extend(of_models.iter().map(|&loss| loss.into()));
    }
    let root = world.population(population).unwrap().models()[1];
    let names = world.part(root).parameter_names().unwrap();
    let all = names.iter().flat_map(|name| world.part(root).parameter::<T>(name).unwrap());
    let all = all.map(Into::into).collect();
    let dict = world.part(root).state_dict().unwrap();
    assert_eq!(dict.get("0.weight").unwrap().dtype(), dtype);
    world.part(root).load_state_dict(&dict).unwrap();
    (losses, all)
}

/// A half of either kind.
trait Half: neurarch::kernels::ir::dtype::Element<Float = Self> + Into<f64> {
    fn of(number: f32) -> Self;
}

impl Half for f16 {
    fn of(number: f32) -> Self {
        f16::from_f32(number)
    }
}

impl Half for bf16 {
    fn of(number: f32) -> Self {
        bf16::from_f32(number)
    }
}

impl Half for f32 {
    fn of(number: f32) -> Self {
        number
    }
}

#[test]
fn whole_models_of_halves_learn_and_are_the_same_eagerly() {
    let (singles, _) = train_halves::<f32>(Dtype::F32, false);
    for (dtype, halves, eager) in [
        (Dtype::F16, train_halves::<f16>(Dtype::F16, false), train_halves::<f16>(Dtype::F16, true)),
        (
            Dtype::BF16,
            train_halves::<bf16>(Dtype::BF16, false),
            train_halves::<bf16>(Dtype::BF16, true),
        ),
    ] {
        assert_eq!(halves, eager, "{dtype}");
        for (half, single) in halves.0.iter().zip(&singles) {
            assert!((half - single).abs() < 0.02, "{dtype}: {half}, not {single}");
        }
        assert!(halves.0[4 * MODELS] < halves.0[0]);
    }
}

/// Makes two steps of a population of halves.
fn train_two_steps(world: &mut World, population: Entity) {
    let x = inputs(&[0, 1, 2]).mapv(bf16::from_f32);
    let y = target().mapv(bf16::from_f32);
    let before = world.brains(population).parameters_to_vectors::<bf16>().unwrap();
    for _ in 0..2 {
        let y = Input::shared(y.view());
        let losses = world.brains(population).train_step::<bf16, bf16>(&x, y, &MSELoss::default());
        assert!(losses.unwrap().iter().all(|loss| loss.is_finite()));
    }
    let after = world.brains(population).parameters_to_vectors::<bf16>().unwrap();
    assert!(before != after && after.iter().all(|number| number.is_finite()));
}

fn check_optimizer(optimizer: impl Component + Clone) -> (World, Entity) {
    let mut world = World::new();
    let dtype = Dtype::BF16;
    let settings =
        PopulationSettings { models: MODELS, dtype, seed: 5, ..PopulationSettings::default() };
    let population = world.spawn_population_with(&network(), settings).unwrap().id();
    world.brains(population).insert(optimizer).unwrap();
    train_two_steps(&mut world, population);
    (world, population)
}

#[test]
fn optimizers_evolution_and_sharing_take_halves() {
    check_optimizer(AdamW { lr: 0.05, ..AdamW::default() });
    check_optimizer(RMSprop { lr: 0.05, ..RMSprop::default() });
    check_optimizer(Adafactor { lr: 0.05, ..Adafactor::default() });
    check_optimizer(Rprop::default());
    let (mut world, population) = check_optimizer(Adam { lr: 0.05, ..Adam::default() });
    world.brains(population).share_parameter("0.weight").unwrap();
    train_two_steps(&mut world, population);
    let before = world.brains(population).parameters_to_vectors::<bf16>().unwrap();
    world.brains(population).perturb(Noise::normal(0.1)).unwrap();
    let after = world.brains(population).parameters_to_vectors::<bf16>().unwrap();
    assert!(before != after && after.iter().all(|number| number.is_finite()));
}
