//! Sharing: a parameter of a whole population has one row, and learns from all models.

mod hooked;
mod models;

use ndarray::{Array2, Array3, ArrayD, Axis, IxDyn, s};
use neurarch::components::hook::{Callback, HookOptions};
use neurarch::components::population::tree::Model;
use neurarch::kernels::cpu::sum::BLOCK;
use neurarch::kernels::plan::PlanOptions;
use neurarch::prelude::*;
use neurarch::systems::compile::plans::Plans;
use neurarch::systems::execute::hooks;
use neurarch::systems::structure::mode;
use proptest::prelude::*;

use crate::bits::bits;

const WEIGHT: &str = "0.weight";

fn net() -> Sequential {
    Sequential::new().push(Linear::new(3, 5)).push(Tanh).push(Linear::new(5, 2))
}

fn inputs(models: usize) -> (Array3<f32>, Array2<i64>) {
    let x = Array3::from_shape_fn((models, 4, 3), |(m, i, f)| {
        ((m * 7 + i * 3 + f * 5) % 11) as f32 / 5.0 - 1.0
    });
    let classes = Array2::from_shape_fn((models, 4), |(m, i)| ((m + i) % 2) as i64);
    (x, classes)
}

/// Models that share the first weight.
fn shared(models: usize) -> (World, Entity) {
    let mut world = World::new();
    let population = world.spawn_population(&net(), models, Seed(3)).unwrap().id();
    world.population_mut(population).unwrap().share_parameter(WEIGHT).unwrap();
    (world, population)
}

/// The same models, each with a copy of it.
fn copies(models: usize) -> (World, Entity) {
    let (mut world, population) = shared(models);
    world.population_mut(population).unwrap().unshare_parameter(WEIGHT).unwrap();
    (world, population)
}

fn loss() -> CrossEntropyLoss {
    CrossEntropyLoss::default()
}

fn backward(world: &mut World, population: Entity) {
    let (x, classes) = inputs(world.population(population).unwrap().models().len());
    world.population_mut(population).unwrap().forward(&x).unwrap();
    world.population_mut(population).unwrap().loss::<f32, i64>(&classes, &loss()).unwrap();
    world.population_mut(population).unwrap().backward().unwrap();
}

/// Sums gradients in the order that the documentation says.
fn sum_of(gradients: &[ArrayD<f32>]) -> ArrayD<f32> {
    fn pairwise(blocks: &[ArrayD<f32>]) -> ArrayD<f32> {
        if let [one] = blocks {
            return one.clone();
        }
        let (earlier, later) = blocks.split_at(blocks.len().next_power_of_two() / 2);
        pairwise(earlier) + pairwise(later)
    }
    let block = |of: &[ArrayD<f32>]| {
        let mut p = vec![ArrayD::zeros(of[0].raw_dim()); 16];
        of.iter().enumerate().for_each(|(i, gradient)| p[i % 16] += gradient);
        for half in [8, 4, 2, 1] {
            for j in 0..half {
                let later = p[j + half].clone();
                p[j] += &later;
            }
        }
        p.swap_remove(0)
    };
    pairwise(&gradients.chunks(BLOCK).map(block).collect::<Vec<_>>())
}

#[test]
fn models_that_share_compute_as_models_with_copies() {
    let ((mut world, a), (mut other, b)) = (shared(7), copies(7));
    let (x, _) = inputs(7);
    assert_eq!(
        world.population_mut(a).unwrap().forward(&x).unwrap(),
        other.population_mut(b).unwrap().forward(&x).unwrap()
    );
    assert_eq!(bits(&mut world, a), bits(&mut other, b));
}

#[test]
fn a_gradient_is_the_sum_of_the_models_gradients() {
    for models in [1, 2, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
        let ((mut world, a), (mut other, b)) = (shared(models), copies(models));
        backward(&mut world, a);
        backward(&mut other, b);
        let roots = other.population(b).unwrap().models().to_vec();
        let of = |root| other.module_mut(root).unwrap().gradient::<f32>(WEIGHT).unwrap().unwrap();
        let gradients: Vec<_> = roots.into_iter().map(of).collect();
        let roots = world.population(a).unwrap().models().to_vec();
        for root in roots {
            assert_eq!(
                world.module_mut(root).unwrap().gradient::<f32>(WEIGHT).unwrap().unwrap(),
                sum_of(&gradients)
            );
        }
        // What is not shared has a gradient in each model.
        let root = world.population(a).unwrap().models()[models - 1];
        let own = other.population(b).unwrap().models()[models - 1];
        assert_eq!(
            world.module_mut(root).unwrap().gradient::<f32>("2.weight").unwrap(),
            other.module_mut(own).unwrap().gradient::<f32>("2.weight").unwrap()
        );
    }
}

#[test]
fn the_order_of_a_sum_is_that_of_the_models_numbers() {
    let models = 2 * BLOCK + 9;
    let ((mut world, a), (mut other, b)) = (shared(models), copies(models));
    for (world, population) in [(&mut world, a), (&mut other, b)] {
        // The last models move into the gaps.
        let roots = world.population(population).unwrap().models().to_vec();
        for index in [0, 3, BLOCK + 2] {
            world.despawn(roots[index]);
        }
        world.entity_mut(roots[7]).insert(Tag);
    }
    backward(&mut world, a);
    backward(&mut other, b);
    let number = |root: &Entity| other.get::<Model>(*root).unwrap().number;
    let mut roots = other.population(b).unwrap().models().to_vec();
    assert!(!roots.is_sorted_by_key(number));
    roots.sort_by_key(number);
    let of = |root| other.module_mut(root).unwrap().gradient::<f32>(WEIGHT).unwrap().unwrap();
    let gradients: Vec<_> = roots.into_iter().map(of).collect();
    let root = world.population(a).unwrap().models()[0];
    assert_eq!(
        world.module_mut(root).unwrap().gradient::<f32>(WEIGHT).unwrap().unwrap(),
        sum_of(&gradients)
    );
}

#[test]
fn inputs_have_gradients_beside_what_is_shared() {
    let ((mut world, a), (mut other, b)) = (shared(5), copies(5));
    let (x, classes) = inputs(5);
    let mut gradients = Vec::new();
    for (world, population) in [(&mut world, a), (&mut other, b)] {
        world.population_mut(population).unwrap().forward(Input::from(&x).requires_grad()).unwrap();
        world.population_mut(population).unwrap().loss::<f32, i64>(&classes, &loss()).unwrap();
        world.population_mut(population).unwrap().backward().unwrap();
        gradients
            .push(world.population(population).unwrap().input_gradient::<f32>().unwrap().unwrap());
    }
    assert_eq!(gradients[0], gradients[1]);
    let root = world.population(a).unwrap().models()[0];
    assert!(world.module_mut(root).unwrap().gradient::<f32>(WEIGHT).unwrap().is_some());
}

#[test]
fn gradients_add_up_until_they_are_zeroed() {
    let (mut world, population) = shared(5);
    let root = world.population(population).unwrap().models()[3];
    assert_eq!(world.module_mut(root).unwrap().gradient::<f32>(WEIGHT).unwrap(), None);
    backward(&mut world, population);
    let once = world.module_mut(root).unwrap().gradient::<f32>(WEIGHT).unwrap().unwrap();
    backward(&mut world, population);
    assert_eq!(
        world.module_mut(root).unwrap().gradient::<f32>(WEIGHT).unwrap().unwrap(),
        &once + &once
    );
    world.population_mut(population).unwrap().zero_grad().unwrap();
    assert_eq!(world.module_mut(root).unwrap().gradient::<f32>(WEIGHT).unwrap(), None);
    backward(&mut world, population);
    assert_eq!(world.module_mut(root).unwrap().gradient::<f32>(WEIGHT).unwrap().unwrap(), once);
}

#[test]
fn one_step_is_forward_loss_backward_and_step() {
    let optimizers: [fn(&mut World, Entity); 3] = [
        |world, population| {
            let momentum = SGD { momentum: 0.9, nesterov: true, lr: 0.1, ..SGD::default() };
            world.population_mut(population).unwrap().insert(momentum).unwrap();
        },
        |world, population| {
            world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
        },
        |world, population| {
            world.entity_mut(population).insert(AdamW::default());
        },
    ];
    for insert in optimizers {
        let ((mut fused, a), (mut parted, b)) = (shared(BLOCK + 3), shared(BLOCK + 3));
        insert(&mut fused, a);
        insert(&mut parted, b);
        let (x, classes) = inputs(BLOCK + 3);
        for _ in 0..4 {
            fused.population_mut(a).unwrap().train_step(&x, &classes, &loss()).unwrap();
            parted.population_mut(b).unwrap().zero_grad().unwrap();
            backward(&mut parted, b);
            parted.population_mut(b).unwrap().step().unwrap();
            assert_eq!(bits(&mut fused, a), bits(&mut parted, b));
        }
        let weights = fused.population_mut(a).unwrap().stack::<f32>(WEIGHT).unwrap();
        assert!(weights.outer_iter().all(|own| own == weights.index_axis(Axis(0), 0)));
    }
}

/// Trains a few steps and gives all bits: the plans by tiles of `tile` models, gradients of `chunk` models at a
/// time, on `threads` threads; `change` is done after the first step.
fn trained(
    models: usize,
    (tile, chunk, threads): (Option<usize>, Option<usize>, usize),
    change: &(dyn Fn(&mut World, Entity) + Sync),
) -> Vec<Vec<u32>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let (mut world, population) = shared(models);
        let mut plans = Plans::default();
        (plans.options, plans.chunk) = (PlanOptions { tile, ..PlanOptions::default() }, chunk);
        world.insert_resource(plans);
        world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
        for step in 0..3 {
            let (x, classes) = inputs(world.population(population).unwrap().models().len());
            world.population_mut(population).unwrap().train_step(&x, &classes, &loss()).unwrap();
            if step == 0 {
                change(&mut world, population);
            }
        }
        backward(&mut world, population);
        let root = world.population(population).unwrap().models()[0];
        let gradient = world.module_mut(root).unwrap().gradient::<f32>(WEIGHT).unwrap().unwrap();
        let mut all = bits(&mut world, population);
        all.push(gradient.iter().map(|x| x.to_bits()).collect());
        all
    })
}

#[derive(Component)]
struct Tag;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn bits_follow_from_the_models_alone(
        models in 1..50_usize,
        tile in 1..9_usize,
        chunk in 1..20_usize,
        picks in proptest::collection::vec(any::<prop::sample::Index>(), 6),
    ) {
        let change = |world: &mut World, population: Entity| {
            let all = world.population(population).unwrap().models().to_vec();
            let pick = |number: usize| *picks[number].get(&all);
            world.entity_mut(pick(0)).insert(Tag);
            let module = world.module_mut(pick(1)).unwrap().at("2").unwrap().id();
            world.entity_mut(module).insert(Tag);
            mode::set_active(world, pick(2), false).unwrap();
            mode::eval(world, pick(3)).unwrap();
            hook(world, pick(4));
            if all.len() > 2 {
                world.despawn(pick(5));
            }
            world.population_mut(population).unwrap().spawn_models(2).unwrap();
            world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
        };
        let plain = trained(models, (None, None, 1), &change);
        prop_assert_eq!(&plain, &trained(models, (Some(tile), None, 2), &change));
        prop_assert_eq!(&plain, &trained(models, (Some(tile), Some(chunk), 1), &change));
        prop_assert_eq!(&plain, &trained(models, (None, Some(chunk), 2), &change));
    }
}

/// Gives a model a hook that does nothing, so that it runs eagerly.
fn hook(world: &mut World, root: Entity) {
    let nothing = Callback::Forward(Box::new(|_, _, _| Ok(None)));
    hooks::register(world, root, nothing, HookOptions::default()).unwrap();
}

#[test]
fn watched_models_train_to_the_same_bits() {
    let plain = trained(20, (None, None, 1), &|_, _| {});
    let watched = trained(20, (None, None, 1), &|world, population| {
        let roots = world.population(population).unwrap().models().to_vec();
        [3, 4, 17].iter().for_each(|&index| hook(world, roots[index]));
    });
    assert_eq!(plain, watched);
    let all = trained(20, (None, None, 1), &|world, population| {
        let nothing = Callback::Forward(Box::new(|_, _, _| Ok(None)));
        hooks::register(world, (population, ""), nothing, HookOptions::default()).unwrap();
    });
    assert_eq!(plain, all);
}

#[test]
fn many_steps_at_once_are_steps_one_by_one() {
    let models = BLOCK + 4;
    let ((mut world, a), (mut other, b)) = (shared(models), shared(models));
    world.population_mut(a).unwrap().insert(Adam::default()).unwrap();
    other.population_mut(b).unwrap().insert(Adam::default()).unwrap();
    let x = Array2::from_shape_fn((10, 3), |(i, f)| ((i * 3 + f * 5) % 7) as f32 / 3.0 - 1.0);
    let classes = ndarray::Array1::from_shape_fn(10, |i| (i % 2) as i64);
    let data = DataSet::shared(x.view(), classes.view()).batch(4);
    let losses = world.population_mut(a).unwrap().train_steps(data, &loss()).unwrap();
    for (step, items) in [0..4, 4..8, 8..10].into_iter().enumerate() {
        let x = x.slice(s![items.clone(), ..]);
        let classes = classes.slice(s![items]);
        let own = other
            .population_mut(b)
            .unwrap()
            .train_step(Input::shared(x), Input::shared(classes), &loss())
            .unwrap();
        assert_eq!(losses.column(step), own);
    }
    assert_eq!(bits(&mut world, a), bits(&mut other, b));
}

/// Everything that the models of a population have: parameters, gradients, optimizers' state, counts of draws.
fn everything(world: &mut World, population: Entity) -> Vec<Tensor> {
    let mut all = Vec::new();
    for root in world.population(population).unwrap().models().to_vec() {
        all.extend(world.module_mut(root).unwrap().state_dict().unwrap());
        for name in world.module_mut(root).unwrap().parameter_names().unwrap() {
            let gradient = world.module_mut(root).unwrap().gradient::<f32>(&name).unwrap();
            all.extend(gradient.map(|gradient| Tensor::new(name, gradient.view())));
        }
        all.extend(world.module_mut(root).unwrap().training_state().unwrap());
    }
    all
}

#[test]
fn an_optimizer_that_does_not_take_what_is_shared_updates_nothing() {
    let mut world = World::new();
    let population = world.spawn_population(&net(), 3, Seed(3)).unwrap().id();
    world.population_mut(population).unwrap().share_parameter("0.bias").unwrap();
    world.population_mut(population).unwrap().insert(SGD::default()).unwrap();
    world.entity_mut(population).insert(Muon::default());
    let before = everything(&mut world, population);
    let (x, classes) = inputs(3);
    let error = world
        .population_mut(population)
        .unwrap()
        .train_step(&x, &classes, &loss())
        .unwrap_err()
        .to_string();
    assert!(error.contains("Muon only supports 2D parameters"), "{error}");
    assert!(everything(&mut world, population) == before);
    backward(&mut world, population);
    let before = everything(&mut world, population);
    world.population_mut(population).unwrap().step().unwrap_err();
    assert!(everything(&mut world, population) == before);
}

#[test]
fn models_that_are_frozen_or_inactive_contribute_nothing() {
    let ((mut world, a), (mut other, b)) = (shared(5), copies(5));
    let roots = world.population(a).unwrap().models().to_vec();
    mode::set_active(&mut world, roots[1], false).unwrap();
    mode::set_requires_grad(&mut world, roots[3], WEIGHT, false).unwrap();
    backward(&mut world, a);
    backward(&mut other, b);
    let copies = other.population(b).unwrap().models().to_vec();
    let of = |index: usize| {
        other.module_mut(copies[index]).unwrap().gradient::<f32>(WEIGHT).unwrap().unwrap()
    };
    let gradients: Vec<_> = [0, 2, 4].map(of).to_vec();
    assert_eq!(
        world.module_mut(roots[0]).unwrap().gradient::<f32>(WEIGHT).unwrap().unwrap(),
        sum_of(&gradients)
    );
    world.population_mut(a).unwrap().requires_grad_(false).unwrap();
    world.population_mut(a).unwrap().zero_grad().unwrap();
    world.population_mut(a).unwrap().insert(SGD::default()).unwrap();
    let before = bits(&mut world, a);
    let (x, classes) = inputs(5);
    world.population_mut(a).unwrap().train_step(&x, &classes, &loss()).unwrap();
    assert_eq!(bits(&mut world, a), before);
}

/// Lines of torch's record.
const GOLDEN: &str = include_str!("../../golden/shared.txt");

#[test]
fn an_ensemble_learns_as_in_torch() {
    let models = 20;
    let compare = |step: usize, what: &str, got: &[f64]| {
        let start = format!("{step} {what} ");
        let line = GOLDEN.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
        let expected: Vec<f64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
        assert_eq!(got.len(), expected.len(), "{start}");
        for (got, expected) in got.iter().zip(expected) {
            // Sums run in another order.
            assert!((got - expected).abs() <= 1e-11, "{start}: {got}, not {expected}");
        }
    };
    let of = |shape: &[usize], f: &dyn Fn(f64) -> f64| {
        let numel = shape.iter().product::<usize>();
        ArrayD::from_shape_vec(IxDyn(shape), (0..numel).map(|i| f(i as f64)).collect()).unwrap()
    };
    let mut worlds = [false, true].map(|is_fused| {
        let mut world = World::new();
        let settings = PopulationSettings { models, dtype: Dtype::F64, ..Default::default() };
        let population = world.spawn_population_with(&net(), settings).unwrap().id();
        for (m, root) in
            world.population(population).unwrap().models().to_vec().into_iter().enumerate()
        {
            for (k, name) in [WEIGHT, "0.bias", "2.weight", "2.bias"].into_iter().enumerate() {
                let shape = world
                    .module_mut(root)
                    .unwrap()
                    .parameter::<f64>(name)
                    .unwrap()
                    .shape()
                    .to_vec();
                let first = (k + m + 1) as f64;
                let numbers = of(&shape, &|i| (0.9 * i + first).sin() / 2.0);
                world.module_mut(root).unwrap().set_parameter(name, numbers.view()).unwrap();
            }
        }
        world.population_mut(population).unwrap().share_parameter(WEIGHT).unwrap();
        world
            .population_mut(population)
            .unwrap()
            .insert(Adam { lr: 0.05, ..Adam::default() })
            .unwrap();
        (world, population, is_fused)
    });
    let x = of(&[models, 4, 3], &|i| (0.7 * i).sin());
    let target = of(&[models, 4, 2], &|i| (1.3 * i).cos());
    for (world, population, is_fused) in &mut worlds {
        for step in 0..5 {
            let losses = if *is_fused {
                world
                    .population_mut(*population)
                    .unwrap()
                    .train_step(&x, &target, &MSELoss::default())
                    .unwrap()
                    .into_dyn()
            } else {
                world.module_mut(*population).unwrap().zero_grad().unwrap();
                world.population_mut(*population).unwrap().forward(&x).unwrap();
                let losses = world
                    .population_mut(*population)
                    .unwrap()
                    .loss(&target, &MSELoss::default())
                    .unwrap();
                world.population_mut(*population).unwrap().backward().unwrap();
                let root = world.population(*population).unwrap().models()[7];
                let gradient =
                    world.module_mut(root).unwrap().gradient::<f64>(WEIGHT).unwrap().unwrap();
                compare(step, "gradient", gradient.as_slice().unwrap());
                world.population_mut(*population).unwrap().step().unwrap();
                losses
            };
            compare(step, "losses", losses.as_slice().unwrap());
        }
        let weight = world.population_mut(*population).unwrap().stack::<f64>(WEIGHT).unwrap();
        compare(5, WEIGHT, weight.index_axis(Axis(0), 11).to_owned().as_slice().unwrap());
        for name in ["0.bias", "2.weight", "2.bias"] {
            compare(
                5,
                name,
                world
                    .population_mut(*population)
                    .unwrap()
                    .stack::<f64>(name)
                    .unwrap()
                    .as_slice()
                    .unwrap(),
            );
        }
    }
}

#[test]
fn a_gradient_is_the_slope_of_the_summed_loss() {
    let models = 18;
    let mut world = World::new();
    let settings = PopulationSettings { models, dtype: Dtype::F64, ..Default::default() };
    let population = world.spawn_population_with(&net(), settings).unwrap().id();
    world.population_mut(population).unwrap().share_parameter(WEIGHT).unwrap();
    let (x, classes) = inputs(models);
    let x = x.mapv(f64::from);
    let total = |world: &mut World| -> f64 {
        world.population_mut(population).unwrap().forward(&x).unwrap();
        world.population_mut(population).unwrap().loss::<f64, i64>(&classes, &loss()).unwrap().sum()
    };
    total(&mut world);
    world.population_mut(population).unwrap().backward().unwrap();
    let root = world.population(population).unwrap().models()[0];
    let gradient = world.module_mut(root).unwrap().gradient::<f64>(WEIGHT).unwrap().unwrap();
    let weight = world.module_mut(root).unwrap().parameter::<f64>(WEIGHT).unwrap();
    for index in ndarray::indices(weight.raw_dim()) {
        let mut at = |by: f64| {
            let mut moved = weight.clone();
            moved[&index] += by;
            world.module_mut(root).unwrap().set_parameter(WEIGHT, moved.view()).unwrap();
            total(&mut world)
        };
        let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((slope - gradient[&index]).abs() < 1e-7, "{index:?}: {slope}, {gradient}");
    }
}
