//! Optimizers: a population learns as its models alone, fused or not, bit for bit; and what torch says of wrong
//! numbers.

use ndarray::{Array2, Array3, ArrayD, Axis, IxDyn, array};
use neurarch::functions::insert::insert_with;
use neurarch::hooks::Target;
use neurarch::nn::Value;
use neurarch::optim::{Optimizer, OptimizerComponent};
use neurarch::prelude::*;
use neurarch::systems::optim::clip::ClipOptions;

use crate::bits::bits;
use crate::golden;
use crate::known::Known;

/// Written by `tests/golden/optim.py`.
const GOLDEN: &str = include_str!("../../golden/optim.txt");

const RATES: [f64; 3] = [0.01, 0.03, 0.002];
const STEPS: usize = 4;

fn net() -> Sequential {
    Sequential::new().push(Linear::new(5, 7)).push(Tanh).push(Linear::new(7, 3))
}

fn data(step: usize) -> (Array3<f32>, Array3<f32>) {
    let number = |seed: usize| ((seed * 37 + step * 11) % 23) as f32 / 11.5 - 1.0;
    let x = Array3::from_shape_fn((3, 6, 5), |(m, i, j)| number(m * 41 + i * 7 + j));
    let y = Array3::from_shape_fn((3, 6, 3), |(m, i, j)| number(m * 13 + i * 5 + j * 3));
    (x, y)
}

/// How steps are made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// By `train_step`.
    Fused,
    /// By forward, loss, backward and step.
    InFourCalls,
    /// By `train_step` of models that are watched, so that they run eagerly.
    Eagerly,
}

/// Trains a population in some way; `model` takes one of the three alone.
fn trained<O: OptimizerComponent>(
    optimizer: &impl Fn(f64) -> O,
    model: Option<usize>,
    way: Way,
) -> Vec<Vec<u32>> {
    let mut world = World::new();
    let all = world.spawn_population(&net(), 3, Seed(3)).unwrap().id();
    let numbers: Array2<f32> = world.brains(all).parameters_to_vectors().unwrap();
    let population = match model {
        None => all,
        Some(model) => {
            let one = world.spawn_population(&net(), 1, Seed(9)).unwrap().id();
            let own = numbers.slice(ndarray::s![model..=model, ..]);
            world.brains(one).vectors_to_parameters(own).unwrap();
            one
        }
    };
    let first = model.unwrap_or(0);
    world.brains(population).insert_with(|index| optimizer(RATES[first + index])).unwrap();
    if way == Way::Eagerly {
        world.target_mut(Target::All).register_forward_hook(|_, _, _| Ok(None)).unwrap();
    }
    for step in 0..STEPS {
        let (mut x, mut y) = data(step);
        if let Some(model) = model {
            x = x.select(Axis(0), &[model]);
            y = y.select(Axis(0), &[model]);
        }
        if way != Way::InFourCalls {
            world.brains(population).train_step(&x, &y, &MSELoss::default()).unwrap();
        } else {
            world.brains(population).zero_grad().unwrap();
            world.brains(population).forward(&x).unwrap();
            world.brains(population).loss::<f32, f32>(&y, &MSELoss::default()).unwrap();
            world.brains(population).backward().unwrap();
            world.brains(population).step().unwrap();
        }
    }
    bits(&mut world, population)
}

fn learns_alike<O: OptimizerComponent>(optimizer: impl Fn(f64) -> O) {
    let name = std::any::type_name::<O>();
    let all = trained(&optimizer, None, Way::Fused);
    for way in [Way::InFourCalls, Way::Eagerly] {
        assert_eq!(all, trained(&optimizer, None, way), "{name}: {way:?}");
    }
    for (model, row) in all.iter().enumerate() {
        assert_eq!(
            *row,
            trained(&optimizer, Some(model), Way::Fused)[0],
            "{name}: model {model} alone"
        );
    }
    assert_ne!(all[0], all[1]);
}

#[test]
fn models_learn_alike_in_a_population_and_alone_fused_or_not() {
    learns_alike(|lr| SGD { lr, momentum: 0.9, nesterov: true, ..SGD::default() });
    learns_alike(|lr| Adam { lr, amsgrad: true, weight_decay: 0.1, ..Adam::default() });
    learns_alike(|lr| Adam { lr, decoupled_weight_decay: true, ..Adam::default() });
    learns_alike(|lr| AdamW { lr, ..AdamW::default() });
    learns_alike(|lr| NAdam { lr, ..NAdam::default() });
    learns_alike(|lr| RAdam { lr, betas: (0.9, 0.7), ..RAdam::default() });
    learns_alike(|lr| Adamax { lr, ..Adamax::default() });
    learns_alike(|lr| Adagrad { lr, initial_accumulator_value: 0.1, ..Adagrad::default() });
    learns_alike(|lr| Adadelta { lr, ..Adadelta::default() });
    learns_alike(|lr| RMSprop { lr, momentum: 0.5, centered: true, ..RMSprop::default() });
    learns_alike(|lr| ASGD { lr, t0: 1.0, ..ASGD::default() });
    learns_alike(|lr| Rprop { lr, ..Rprop::default() });
    learns_alike(|lr| Adafactor { lr, ..Adafactor::default() });
    learns_alike(|lr| SparseAdam { lr, ..SparseAdam::default() });
    learns_alike(|lr| {
        let adam = ParamGroups::new(Adam { lr, weight_decay: 0.1, ..Adam::default() });
        adam.group(|p| p.shape.rank() == 1, |of_biases| of_biases.amsgrad = true)
    });
}

fn numbers(shape: &[usize], f: impl Fn(f64) -> f64) -> ArrayD<f64> {
    let count = shape.iter().product::<usize>();
    ArrayD::from_shape_vec(IxDyn(shape), (0..count).map(|i| f(i as f64)).collect()).unwrap()
}

#[test]
fn muon_steps_as_torch_within_the_bfloat16_that_it_computes_in() {
    let plain = Muon { lr: 0.05, ..Muon::default() };
    let tall =
        Muon { nesterov: false, adjust_lr_fn: AdjustLr::MatchRmsAdamW, ns_steps: 3, ..plain };
    let spectral = Muon {
        adjust_lr_fn: AdjustLr::SpectralUnclamped,
        momentum: 0.4,
        weight_decay: 0.0,
        ..plain
    };
    let cases =
        [("muon", [3, 5], plain), ("muon_tall", [6, 4], tall), ("muon_spectral", [2, 4], spectral)];
    for (name, shape, optimizer) in cases {
        let mut world = World::new();
        let layer = Linear::new(shape[1], shape[0]).without_bias();
        let population = world.spawn_population(&layer, 2, Seed(1)).unwrap().id();
        world.brains(population).insert(optimizer).unwrap();
        let root = world.population(population).unwrap().models()[1];
        let first = numbers(&shape, |i| (0.9 * i + 1.0).sin() / 2.0).mapv(|x| x as f32);
        world.part(root).set_parameter("weight", first.view()).unwrap();
        for k in 0..3 {
            let gradient = numbers(&shape, |i| (1.3 * i + f64::from(k)).cos()).mapv(|x| x as f32);
            world.part(root).set_gradient("weight", Some(gradient.view())).unwrap();
            world.brains(population).step().unwrap();
            let weight = world.part(root).parameter::<f32>("weight").unwrap().mapv(f64::from);
            // Numbers of a step of 0.05 · √(A / B) are rounded to 8 bits, several times.
            golden::compare(GOLDEN, &format!("{name} {k}"), weight, (2e-4, 0.0));
        }
    }
}

#[test]
fn muon_refuses_what_is_no_matrix() {
    let mut world = World::new();
    let population = world.spawn_population(&net(), 3, Seed(3)).unwrap().id();
    world.brains(population).insert(Muon::default()).unwrap();
    let (x, y) = data(0);
    let error =
        world.brains(population).train_step(&x, &y, &MSELoss::default()).unwrap_err().to_string();
    let words =
        "Muon only supports 2D parameters whereas we found a parameter with size: torch.Size([7])";
    assert!(error.contains(words), "{error}");
}

#[test]
fn sparse_adam_updates_the_rows_that_were_looked_up_as_torch_does() {
    let mut world = World::new();
    let table = Embedding { padding_idx: Some(0), ..Embedding::new(6, 3) };
    let settings =
        PopulationSettings { models: 2, dtype: Dtype::F64, ..PopulationSettings::default() };
    let population = world.spawn_population_with(&table, settings).unwrap().id();
    let optimizer = SparseAdam { lr: 0.05, betas: (0.8, 0.9), ..SparseAdam::default() };
    world.brains(population).insert(optimizer).unwrap();
    let root = world.population(population).unwrap().models()[1];
    let first = numbers(&[6, 3], |i| (0.9 * i + 1.0).sin() / 2.0);
    world.part(root).set_parameter("weight", first.view()).unwrap();
    for (k, rows) in [vec![1_i64, 2, 2, 0], vec![4, 1], vec![5, 5, 4]].into_iter().enumerate() {
        world.brains(population).zero_grad().unwrap();
        let rows = ndarray::Array1::from(rows);
        let arguments = Arguments::each([AnyInput::from(Input::shared(rows.view()))]);
        world.brains(population).forward_with::<f64>(arguments).unwrap();
        let dy = numbers(&[rows.len(), 3], |i| (1.3 * i + k as f64).cos());
        world.brains(population).backward_from(Input::shared(dy.view())).unwrap();
        world.brains(population).step().unwrap();
        let weight = world.part(root).parameter::<f64>("weight").unwrap();
        golden::compare(GOLDEN, &format!("sparse_adam {k}"), weight, (1e-12, 1e-10));
    }
    let state = world.part(root).optimizer_state_dict().unwrap();
    for tensor in &state.state[&0] {
        if tensor.name != "step" {
            let numbers = tensor.to_array::<f64>().unwrap();
            golden::compare(
                GOLDEN,
                &format!("sparse_adam {}", tensor.name),
                numbers,
                (1e-12, 1e-10),
            );
        }
    }
}

#[test]
fn a_step_by_numbers_that_torch_refuses_fails_in_its_words_and_changes_nothing() {
    fn refused(optimizer: impl Optimizer) -> String {
        let mut world = World::new();
        let population = world.spawn_population(&net(), 3, Seed(3)).unwrap().id();
        world.brains(population).insert(optimizer).unwrap();
        let before = bits(&mut world, population);
        let (x, y) = data(0);
        let error = world.brains(population).train_step(&x, &y, &MSELoss::default()).unwrap_err();
        assert_eq!(bits(&mut world, population), before);
        error.to_string()
    }
    let said = [
        refused(SGD { lr: -1.0, ..SGD::default() }),
        refused(SGD { nesterov: true, ..SGD::default() }),
        refused(Adam { betas: (0.9, 1.0), ..Adam::default() }),
        refused(Adadelta { rho: 1.5, ..Adadelta::default() }),
        refused(Rprop { etas: (1.5, 1.2), ..Rprop::default() }),
        refused(Adafactor { d: 0.5, ..Adafactor::default() }),
        refused(SparseAdam { lr: 0.0, ..SparseAdam::default() }),
    ];
    let words = [
        "model 0: Invalid learning rate: -1.0",
        "model 0: Nesterov momentum requires a momentum and zero dampening",
        "model 0: Invalid beta parameter at index 1: 1.0",
        "model 0: Invalid rho value: 1.5",
        "model 0: Invalid eta values: 1.5, 1.2",
        "model 0: Clipping threshold d should be >= 1 but is: 0.5",
        "model 0: Invalid learning rate: 0.0",
    ];
    assert_eq!(said, words);
}

#[test]
fn each_model_is_clipped_by_its_own_norm() {
    let mut world = World::new();
    let layer = Linear { bias: false, ..Linear::new(2, 1) };
    let population = world.spawn_population(&layer, 2, Seed(1)).unwrap().id();
    let models = world.population(population).unwrap().models().to_vec();
    let gradients = [array![[3.0_f32, 4.0]], array![[0.0, 0.5]]];
    for (&model, gradient) in models.iter().zip(&gradients) {
        world.part(model).set_gradient("weight", Some(gradient.view())).unwrap();
    }
    assert_eq!(world.brains(population).clip_grad_norm_(1.0).unwrap(), [5.0, 0.5]);
    let after = |world: &mut World, model: usize| {
        world.part(models[model]).gradient::<f32>("weight").unwrap().unwrap()
    };
    assert!((after(&mut world, 0)[[0, 1]] - 0.8).abs() < 1e-6);
    assert_eq!(after(&mut world, 1), gradients[1].clone().into_dyn());

    world
        .part(models[1])
        .set_gradient("weight", Some(array![[f32::INFINITY, 1.0]].view()))
        .unwrap();
    let options = ClipOptions { error_if_nonfinite: true, ..ClipOptions::default() };
    let before = after(&mut world, 0);
    let error = world.brains(population).clip_grad_norm_with(0.1, options).unwrap_err();
    assert!(error.to_string().starts_with("The total norm of order 2.0 for gradients"));
    assert_eq!(after(&mut world, 0), before);
}

#[test]
fn gradients_are_scaled_by_norms_that_are_given() {
    let mut world = World::new();
    let population = world.spawn_population(&Linear::new(2, 1), 2, Seed(1)).unwrap().id();
    let models = world.population(population).unwrap().models().to_vec();
    for &model in &models {
        let gradient = array![[3.0_f32, 4.0]];
        world.part(model).set_gradient("weight", Some(gradient.view())).unwrap();
    }
    let error =
        world.brains(population).clip_grads_with_norm_(1.0, &[2.0]).unwrap_err().to_string();
    assert_eq!(error, "expected a norm for each of 2 models, got 1");
    world.brains(population).clip_grads_with_norm_(1.0, &[2.0, 0.5]).unwrap();
    let first = world.part(models[0]).gradient::<f32>("weight").unwrap().unwrap();
    assert!((first[[0, 0]] - 1.5).abs() < 1e-5, "{first}");
    let second = world.part(models[1]).gradient::<f32>("weight").unwrap().unwrap();
    assert_eq!(second, array![[3.0, 4.0]].into_dyn());
}

#[test]
fn running_statistics_are_averaged_over_batches_as_in_torch_and_all_else_stays() {
    let mut world = World::new();
    let norm = BatchNorm1d { momentum: Some(0.3), ..BatchNorm1d::new(2) };
    let settings =
        PopulationSettings { models: 2, dtype: Dtype::F64, ..PopulationSettings::default() };
    let net = Sequential::new().push(norm);
    let population = world.spawn_population_with(&net, settings).unwrap().id();
    world.brains(population).eval().unwrap();
    let (first, second) =
        (numbers(&[4, 2], |i| (0.7 * i).sin()), numbers(&[3, 2], |i| (1.7 * i + 1.0).sin()));
    let weights = world.brains(population).stack::<f64>("0.weight").unwrap();
    world.brains(population).update_bn([&first, &second].map(|x| Input::shared(x.view()))).unwrap();
    let of = |world: &mut World, name: &str| {
        world.brains(population).stack::<f64>(name).unwrap().index_axis_move(Axis(0), 1)
    };
    golden::compare(GOLDEN, "update_bn mean", of(&mut world, "0.running_mean"), (1e-12, 1e-12));
    golden::compare(GOLDEN, "update_bn var", of(&mut world, "0.running_var"), (1e-12, 1e-12));
    assert_eq!(world.brains(population).stack::<f64>("0.weight").unwrap(), weights);
    // Still in evaluation mode, with its own momentum.
    let before = of(&mut world, "0.running_mean");
    world.brains(population).forward(Input::shared(first.view())).unwrap();
    assert_eq!(of(&mut world, "0.running_mean"), before);
    let root = world.population(population).unwrap().models()[1];
    let layer = world.part(root).at("0").unwrap().id();
    assert_eq!(world.get::<BatchNorm1d>(layer), Some(&norm));
    // A batch that does not fit.
    let wrong = numbers(&[4, 3], |i| i);
    assert!(world.brains(population).update_bn([Input::shared(wrong.view())]).is_err());
    assert_eq!(world.get::<BatchNorm1d>(layer), Some(&norm));
}

#[test]
fn l_bfgs_of_a_population_is_that_of_each_model() {
    fn fitted(models: std::ops::Range<usize>) -> Vec<Vec<u32>> {
        let mut world = World::new();
        let all = world.spawn_population(&net(), 3, Seed(3)).unwrap().id();
        let numbers: Array2<f32> = world.brains(all).parameters_to_vectors().unwrap();
        let own = world.spawn_population(&net(), models.len(), Seed(9)).unwrap().id();
        let numbers = numbers.slice(ndarray::s![models.clone(), ..]);
        world.brains(own).vectors_to_parameters(numbers).unwrap();
        let line_search_fn = Some(LineSearch::StrongWolfe);
        world
            .brains(own)
            .insert(LBFGS { max_iter: 4, line_search_fn, ..LBFGS::default() })
            .unwrap();
        let (x, y) = data(0);
        let [x, y] = [x, y].map(|of| of.slice(ndarray::s![models.clone(), .., ..]).to_owned());
        let mut losses = Vec::new();
        for _ in 0..2 {
            let step = world.brains(own).step_with_closure(|world| {
                world.population_mut(own)?.zero_grad()?;
                world.population_mut(own)?.forward(&x)?;
                let losses =
                    world.population_mut(own)?.loss::<f32, f32>(&y, &MSELoss::default())?;
                world.population_mut(own)?.backward()?;
                Ok(losses.iter().map(|&loss| f64::from(loss)).collect())
            });
            losses.push(step.unwrap());
        }
        assert!(losses[1].iter().zip(&losses[0]).all(|(after, before)| after < before));
        bits(&mut world, own)
    }
    let all = fitted(0..3);
    for (model, row) in all.iter().enumerate() {
        assert_eq!(*row, fitted(model..model + 1)[0], "model {model}");
    }
}

#[test]
fn averages_follow_torchs_rules() {
    let mut world = World::new();
    let layer = Linear { bias: false, ..Linear::new(1, 1) };
    let population = world.spawn_population(&layer, 1, Seed(1)).unwrap().id();
    let means = world.spawn_population(&layer, 1, Seed(2)).unwrap().id();
    let fading = world.spawn_population(&layer, 1, Seed(2)).unwrap().id();
    world.entity_mut(means).insert(AveragedModel::new(AverageFn::Swa));
    world.entity_mut(fading).insert(AveragedModel::new(AverageFn::Ema { decay: 0.75 }));
    let model = world.population(population).unwrap().models()[0];
    for number in [1.0_f32, 2.0, 6.0] {
        world.part(model).set_parameter("weight", array![[number]].view()).unwrap();
        world.brains(means).update_parameters(population).unwrap();
        world.brains(fading).update_parameters(population).unwrap();
    }
    let of = |world: &mut World, population: Entity| {
        world.brains(population).stack::<f32>("weight").unwrap().iter().copied().collect::<Vec<_>>()
    };
    assert_eq!(of(&mut world, means), [3.0]);
    assert_eq!(of(&mut world, fading), [(0.75 * 1.0 + 0.25 * 2.0) * 0.75 + 0.25 * 6.0]);
}

#[test]
fn an_optimizer_of_another_type_begins_without_state() {
    let begun = |worn: bool| {
        let mut world = World::new();
        let population = world.spawn_population(&net(), 3, Seed(3)).unwrap().id();
        let numbers: Array2<f32> = world.brains(population).parameters_to_vectors().unwrap();
        let step = |world: &mut World, number| {
            let (x, y) = data(number);
            world.brains(population).train_step(&x, &y, &MSELoss::default()).unwrap();
        };
        if worn {
            world
                .brains(population)
                .insert_with(|_| AdamW { lr: 0.1, ..AdamW::default() })
                .unwrap();
            (0..2).for_each(|number| step(&mut world, number));
            world.brains(population).vectors_to_parameters(numbers.view()).unwrap();
        }
        world.brains(population).insert_with(|_| RMSprop::default()).unwrap();
        step(&mut world, 2);
        // One of the same type goes on.
        world
            .brains(population)
            .insert_with(|_| RMSprop { lr: 0.02, ..RMSprop::default() })
            .unwrap();
        step(&mut world, 3);
        bits(&mut world, population)
    };
    assert_eq!(begun(true), begun(false));
}

#[test]
fn a_loaded_state_goes_on_where_it_was_saved() {
    let mut world = World::new();
    let population = world.spawn_population(&net(), 3, Seed(3)).unwrap().id();
    world
        .brains(population)
        .insert_with(|model| NAdam { lr: RATES[model], ..NAdam::default() })
        .unwrap();
    let root = world.population(population).unwrap().models()[1];
    let go_on = |world: &mut World, step: usize| {
        let (x, y) = data(step);
        world.brains(population).train_step(&x, &y, &MSELoss::default()).unwrap();
    };
    go_on(&mut world, 0);
    let saved = world.part(root).optimizer_state_dict().unwrap();
    let weights = world.part(root).state_dict().unwrap();
    go_on(&mut world, 1);
    let after = bits(&mut world, population)[1].clone();
    go_on(&mut world, 2);
    world.part(root).load_optimizer_state_dict(&saved).unwrap();
    world.part(root).load_state_dict(&weights).unwrap();
    go_on(&mut world, 1);
    assert_eq!(bits(&mut world, population)[1], after);
}

/// A model that moved into a group of models that had not learned yet lost its optimizer's state.
#[test]
fn a_model_that_joins_others_keeps_what_its_optimizer_knows() {
    let run = |are_others_like_it: bool| {
        let network = Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 2));
        let mut world = World::new();
        let brains = world.spawn_population(&network, 3, Seed(1)).unwrap().id();
        world.brains(brains).insert(SGD { lr: 0.1, momentum: 0.9, ..SGD::default() }).unwrap();
        let [other, like_it, learner] = *world.population(brains).unwrap().models() else {
            unreachable!()
        };
        let x = ndarray::Array3::<f32>::ones((3, 5, 3));
        let y = ndarray::Array2::<i64>::zeros((3, 5));
        if are_others_like_it {
            world.part(other).setattr("1", Value::module(Sigmoid)).unwrap();
            world.part(like_it).setattr("1", Value::module(ReLU)).unwrap();
            world.brains(brains).forward(&x).unwrap();
        }
        world.part(other).set_active(false).unwrap();
        world.part(like_it).set_active(false).unwrap();
        for step in 0..3 {
            if step == 1 {
                // Both join at the next step: first the other one, which has no momentum yet.
                world.part(other).set_active(true).unwrap();
                for root in [other, learner] {
                    let module = world.part(root).at("1").unwrap().id();
                    world.entity_mut(module).insert(ReLU);
                }
            }
            world.brains(brains).train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
        }
        [other, learner].map(|root| world.part(root).state_dict().unwrap())
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn components_are_inserted_at_any_target_or_nowhere() {
    let mut world = World::new();
    let population = world.spawn_population(&net(), 2, Seed(3)).unwrap().id();
    let [first, second] = *world.population(population).unwrap().models() else { unreachable!() };
    insert_with(&mut world, second, |index| SGD { lr: index as f64, ..SGD::default() }).unwrap();
    assert_eq!((world.get::<SGD>(first), world.get::<SGD>(second).unwrap().lr), (None, 1.0));

    let error = world.brains(population).at("0.gone").insert(SGD::default()).unwrap_err();
    let words = "'0.gone': Linear has no attribute `gone`";
    assert_eq!((error.to_string().as_str(), world.get::<SGD>(first)), (words, None));
}
