//! Batches in parts: torch's loop of micro-batches by its numbers, and the whole batch within rounding.

use ndarray::{Array1, Array2, Array3, ArrayD, Axis, IxDyn, s};
use neurarch::losses::{Loss, Reduction};
use neurarch::optim::NamedParameter;
use neurarch::prelude::*;

use crate::bits::bits;
use crate::golden;
use crate::known::Known;

/// Written by `tests/golden/accumulation.py`.
const GOLDEN: &str = include_str!("../../golden/accumulation.txt");

fn numbers(shape: &[usize], f: impl Fn(f64) -> f64) -> ArrayD<f64> {
    let count = shape.iter().product::<usize>();
    ArrayD::from_shape_vec(IxDyn(shape), (0..count).map(|i| f(i as f64)).collect()).unwrap()
}

fn net() -> Sequential {
    Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 3))
}

fn with_norm() -> Sequential {
    let net = Sequential::new().push(Linear::new(3, 4)).push(BatchNorm1d::new(4)).push(Tanh);
    net.push(Linear::new(4, 3))
}

fn is_bias(p: &NamedParameter<'_>) -> bool {
    p.shape.rank() == 1
}

/// Two models of the golden file, the second in the cohort of those that run op by op if `hooked`.
fn golden_world(net: &Sequential, hooked: bool) -> (World, Entity) {
    let mut world = World::new();
    let settings =
        PopulationSettings { models: 2, dtype: Dtype::F64, ..PopulationSettings::default() };
    let population = world.spawn_population_with(net, settings).unwrap().id();
    let adam = AdamW { lr: 0.05, weight_decay: 0.1, ..AdamW::default() };
    let groups = ParamGroups::new(adam).group(is_bias, |group| group.weight_decay = 0.0);
    world.brains(population).insert(groups).unwrap();
    for root in world.population(population).unwrap().models().to_vec() {
        for (k, name) in world.part(root).parameter_names().unwrap().iter().enumerate() {
            let shape = world.part(root).parameter::<f64>(name).unwrap().shape().to_vec();
            let value = numbers(&shape, |i| (0.9 * i + k as f64 + 1.0).sin() / 2.0);
            world.part(root).set_parameter(name, value.view()).unwrap();
        }
    }
    if hooked {
        let last = world.population(population).unwrap().models()[1];
        let mut last = world.part(last);
        last.register_forward_hook(|_, _, y| Ok(y.and_then(Tree::leaf).map(|y| (y * 1.0).into())))
            .unwrap();
    }
    (world, population)
}

/// Makes the steps of a case of `accumulation.py`, and compares both models.
fn as_torch<Y: neurarch::nn::Element>(
    name: &str,
    net: &Sequential,
    (items, parts): (usize, usize),
    targets: &ArrayD<Y>,
    loss: &impl Loss,
) {
    for hooked in [false, true] {
        let (mut world, population) = golden_world(net, hooked);
        let x = numbers(&[items, 3], |i| (0.7 * i).sin());
        for step in 0..2 {
            let (x, y) = (Input::shared(x.view()), Input::shared(targets.view()));
            let losses: Array1<f64> =
                world.brains(population).train_step_accumulated(x, y, loss, parts).unwrap();
            for &of_model in &losses {
                golden::compare(GOLDEN, &format!("{name} {step} loss"), [of_model], (1e-12, 1e-12));
            }
        }
        // The gradient of a bias before a norm is rounding, which Adam makes larger.
        let atol = if name == "batch_norm" { 1e-9 } else { 1e-12 };
        for root in world.population(population).unwrap().models().to_vec() {
            let mut model = world.part(root);
            let gradient = model.gradient::<f64>("0.weight").unwrap().unwrap();
            golden::compare(GOLDEN, &format!("{name} gradient"), gradient, (atol, 1e-9));
            for tensor in model.state_dict().unwrap().iter() {
                let got: Vec<f64> = match tensor.to_array::<f64>() {
                    Some(of) => of.into_iter().collect(),
                    None => {
                        tensor.to_array::<i64>().unwrap().mapv(|of| of as f64).into_iter().collect()
                    }
                };
                golden::compare(GOLDEN, &format!("{name} {}", tensor.name), got, (atol, 1e-9));
            }
        }
    }
}

#[test]
fn micro_batches_are_those_of_torch() {
    let far = |items: usize| numbers(&[items, 3], |i| (1.3 * i).cos());
    let mean = MSELoss::default();
    as_torch("mean", &net(), (8, 4), &far(8), &mean);
    as_torch("uneven", &net(), (10, 4), &far(10), &mean);
    as_torch("sum", &net(), (8, 4), &far(8), &MSELoss { reduction: Reduction::Sum });
    as_torch("batch_norm", &with_norm(), (8, 2), &far(8), &mean);
    let classes = |ignored: bool| {
        let class = |i: usize| if ignored && i.is_multiple_of(4) { 0 } else { (2 * i % 3) as i64 };
        Array1::from_shape_fn(8, class).into_dyn()
    };
    let loss = CrossEntropyLoss::default();
    as_torch("cross_entropy", &net(), (8, 2), &classes(false), &loss);
    let loss = CrossEntropyLoss { ignore_index: 0, ..CrossEntropyLoss::default() };
    as_torch("ignored", &net(), (8, 2), &classes(true), &loss);
}

const MODELS: usize = 5;
const ITEMS: usize = 12;

fn data() -> (Array3<f32>, Array2<i64>) {
    let x = Array3::from_shape_fn((MODELS, ITEMS, 3), |(m, i, k)| {
        ((m * 7 + i * 3 + k * 5) % 11) as f32 / 5.0 - 1.0
    });
    (x, Array2::from_shape_fn((MODELS, ITEMS), |(m, i)| ((m + i) % 3) as i64))
}

fn spawn(net: &Sequential) -> (World, Entity) {
    let mut world = World::new();
    let population = world.spawn_population(net, MODELS, Seed(5)).unwrap().id();
    world.brains(population).insert(Adam { lr: 0.01, ..Adam::default() }).unwrap();
    (world, population)
}

fn dropped() -> Sequential {
    net().push(Dropout { p: 0.4 })
}

/// Sets models apart: one that is edited, one with other bits of training, one that is inactive.
fn set_apart(world: &mut World, population: Entity) {
    let models = world.population(population).unwrap().models().to_vec();
    world.part(models[1]).eval().unwrap();
    let first = world.part(models[2]).at("0").unwrap().id();
    world.part(first).requires_grad_(false).unwrap();
}

#[test]
fn one_call_is_the_loop_and_threads_change_no_bit() {
    let (x, y) = data();
    let loss = CrossEntropyLoss::default();
    let mut found = Vec::new();
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (mut world, a) = spawn(&dropped());
            set_apart(&mut world, a);
            let (mut other, b) = spawn(&dropped());
            set_apart(&mut other, b);
            for _ in 0..3 {
                world.brains(a).train_step_accumulated(&x, &y, &loss, 4).unwrap();
                other.brains(b).zero_grad().unwrap();
                for start in (0..ITEMS).step_by(3) {
                    let mut brains = other.brains(b);
                    brains.forward(x.slice(s![.., start..start + 3, ..])).unwrap();
                    brains.loss::<f32, _>(y.slice(s![.., start..start + 3]), &loss).unwrap();
                    brains.backward_scaled(0.25).unwrap();
                }
                other.brains(b).step().unwrap();
            }
            found.push(bits(&mut world, a));
            assert_eq!(found.last(), Some(&bits(&mut other, b)));
        });
    }
    assert_eq!(found[0], found[1]);
}

#[test]
fn parts_are_the_whole_batch_within_rounding() {
    let (x, y) = data();
    let loss = CrossEntropyLoss::default();
    for parts in [1, 2, 5, 12, 100] {
        let (mut world, a) = spawn(&net());
        let (mut whole, b) = spawn(&net());
        set_apart(&mut world, a);
        set_apart(&mut whole, b);
        for step in 0..4 {
            let of_parts = world.brains(a).train_step_accumulated(&x, &y, &loss, parts).unwrap();
            let of_whole = whole.brains(b).train_step(&x, &y, &loss).unwrap();
            for (part, whole) in of_parts.iter().zip(&of_whole) {
                assert!((part - whole).abs() < 1e-5, "{parts} parts, step {step}");
            }
        }
        let pairs = bits(&mut world, a).concat().into_iter().zip(bits(&mut whole, b).concat());
        for (part, whole) in pairs {
            let [part, whole] = [part, whole].map(f32::from_bits);
            // Adam divides gradients by their size: rounding of small ones is seen.
            assert!((part - whole).abs() < 1e-4, "{parts} parts: {part} and {whole}");
        }
    }
}

#[test]
fn scaled_losses_accumulate_as_in_torchs_example() {
    let (x, y) = data();
    let loss = CrossEntropyLoss::default();
    let scaler = GradScaler { init_scale: 1024.0, ..GradScaler::default() };
    let (mut world, a) = spawn(&net());
    world.brains(a).insert(scaler).unwrap();
    let (mut other, b) = spawn(&net());
    other.brains(b).insert(scaler).unwrap();
    let (mut plain, c) = spawn(&net());
    let mut wild = x.clone();
    wild.index_axis_mut(Axis(0), 3)[[7, 0]] = f32::INFINITY;
    for x in [&x, &wild, &x] {
        let is_wild = x[[3, 7, 0]].is_infinite();
        world.brains(a).train_step_scaled_accumulated(x, &y, &loss, 4).unwrap();
        let mut brains = other.brains(b);
        brains.zero_grad().unwrap();
        for start in (0..ITEMS).step_by(3) {
            brains.forward(x.slice(s![.., start..start + 3, ..])).unwrap();
            brains.loss::<f32, _>(y.slice(s![.., start..start + 3]), &loss).unwrap();
            brains.scale_loss().unwrap();
            brains.backward_scaled(0.25).unwrap();
        }
        let made = brains.step_scaled().unwrap();
        assert_eq!(made, [true, true, true, !is_wild, true], "one model overflows, in one part");
        brains.update_scale(None).unwrap();
        plain.brains(c).train_step_accumulated(x, &y, &loss, 4).unwrap();
    }
    let (of_call, of_loop, unscaled) =
        (bits(&mut world, a), bits(&mut other, b), bits(&mut plain, c));
    assert_eq!(of_call, of_loop);
    assert_eq!(of_call[0], unscaled[0], "1024 is a power of two");
    let scales = world.population(a).unwrap().get_scale().unwrap();
    assert_eq!(scales.to_vec(), [1024.0, 1024.0, 1024.0, 512.0, 1024.0]);
}

#[test]
fn what_a_population_shares_learns_from_all_parts() {
    let (x, y) = data();
    let loss = CrossEntropyLoss::default();
    let shared = |parts: usize| {
        let (mut world, population) = spawn(&net());
        for name in ["0.weight", "0.bias"] {
            world.brains(population).share_parameter(name).unwrap();
        }
        for _ in 0..3 {
            world.brains(population).train_step_accumulated(&x, &y, &loss, parts).unwrap();
        }
        bits(&mut world, population)
    };
    let (once, parts) = (shared(1), shared(4));
    for (a, b) in once.concat().into_iter().zip(parts.concat()) {
        assert!((f32::from_bits(a) - f32::from_bits(b)).abs() < 1e-4);
    }
}

#[test]
fn refusals_change_nothing() {
    let (x, y) = data();
    let loss = CrossEntropyLoss::default();
    let (mut world, population) = spawn(&with_norm());
    let before = bits(&mut world, population);
    let mut refused = |x: &Array3<f32>, y: &Array2<i64>, parts| {
        let refused = world.brains(population).train_step_accumulated(x, y, &loss, parts);
        refused.unwrap_err().to_string()
    };
    assert_eq!(refused(&x, &y, 0), "micro-batches: expected at least 1, got 0");
    let few = y.slice(s![.., ..7]).to_owned();
    assert_eq!(
        refused(&x, &few, 2),
        "micro-batches: expected as many targets as items (12), got 7"
    );
    let wide = Array3::<f32>::ones((MODELS, ITEMS, 4));
    assert!(refused(&wide, &y, 2).starts_with("0 (Linear): mat1 and mat2 shapes"));
    let mut outside = y.clone();
    outside[[3, 10]] = 3;
    assert_eq!(
        refused(&x, &outside, 2),
        "Target 3 is out of bounds (model 3, item 10: expected 0 to 2)"
    );
    // The last part has one item, of which BatchNorm makes nothing.
    let (x, y) = (x.slice(s![.., ..3, ..]).to_owned(), y.slice(s![.., ..3]).to_owned());
    let message = refused(&x, &y, 2);
    assert!(message.contains("Expected more than 1 value per channel when training"), "{message}");
    assert_eq!(bits(&mut world, population), before);
    let root = world.population(population).unwrap().models()[0];
    assert_eq!(world.part(root).gradient::<f32>("0.weight").unwrap(), None);
    let state = world.part(root).state_dict().unwrap();
    let mean = state.iter().find(|tensor| tensor.name == "1.running_mean").unwrap();
    assert!(mean.to_array::<f32>().unwrap().iter().all(|&mean| mean == 0.0));
}
