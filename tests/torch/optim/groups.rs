//! Parameter groups: by predicate, each with hyperparameters and a schedule of its own, as in torch.

use ndarray::{Array2, Array3, ArrayD, IxDyn};
use neurarch::bevy_ecs::prelude::*;
use neurarch::lr_scheduler::{LRScheduler, ScheduleError};
use neurarch::nn::Value;
use neurarch::optim::{NamedParameter, Optimizer};
use neurarch::prelude::*;
use neurarch::systems::compile::plans::Plans;

use crate::bits::bits;
use crate::golden;
use crate::known::Known;

/// Written by `tests/golden/optim.py`.
const GOLDEN: &str = include_str!("../../golden/optim.txt");

fn net() -> Sequential {
    Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 2))
}

fn is_bias(p: &NamedParameter<'_>) -> bool {
    p.shape.rank() == 1
}

/// AdamW that lets biases be.
fn adam(lr: f64) -> ParamGroups<AdamW> {
    let adam = AdamW { lr, weight_decay: 0.1, ..AdamW::default() };
    ParamGroups::new(adam).group(|p| p.name.ends_with("bias"), |group| group.weight_decay = 0.0)
}

fn spawn(world: &mut World, models: usize) -> Entity {
    world.spawn_population(&net(), models, Seed(3)).unwrap().id()
}

fn train(world: &mut World, population: Entity, steps: usize) {
    let models = world.population(population).unwrap().models().len();
    let (x, y) = (Array3::<f32>::ones((models, 5, 3)), Array2::<i64>::zeros((models, 5)));
    for _ in 0..steps {
        world.brains(population).train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
    }
}

fn numbers(shape: &[usize], f: impl Fn(f64) -> f64) -> ArrayD<f64> {
    let count = shape.iter().product::<usize>();
    ArrayD::from_shape_vec(IxDyn(shape), (0..count).map(|i| f(i as f64)).collect()).unwrap()
}

/// Makes the steps of a case of `optim.py`; `before` is called before each.
fn steps_as_torch<O: Optimizer>(
    name: &str,
    groups: ParamGroups<O>,
    schedule: impl Fn(&mut PopulationMut<'_>) -> Result<(), ScheduleError>,
    mut before: impl FnMut(usize, &mut ParamGroups<O>),
) {
    let mut world = World::new();
    let settings =
        PopulationSettings { models: 2, dtype: Dtype::F64, ..PopulationSettings::default() };
    let population = world.spawn_population_with(&net(), settings).unwrap().id();
    let root = world.population(population).unwrap().models()[1];
    let parameters = ["0.weight", "0.bias", "2.weight", "2.bias"];
    let shapes: [&[usize]; 4] = [&[4, 3], &[4], &[2, 4], &[2]];
    for (name, shape) in parameters.into_iter().zip(shapes) {
        let first = numbers(shape, |i| (0.9 * i + 1.0).sin() / 2.0);
        world.part(root).set_parameter(name, first.view()).unwrap();
    }
    world.brains(population).insert(groups).unwrap();
    schedule(&mut world.brains(population)).unwrap();
    for k in 0..5 {
        before(k, &mut world.get_mut(root).unwrap());
        for (name, shape) in parameters.into_iter().zip(shapes) {
            let gradient = numbers(shape, |i| (1.3 * i + k as f64).cos());
            world.part(root).set_gradient(name, Some(gradient.view())).unwrap();
        }
        world.brains(population).step().unwrap();
        world.brains(population).step_schedulers().unwrap();
        let mut got = Vec::new();
        for name in parameters {
            got.extend(world.part(root).parameter::<f64>(name).unwrap());
        }
        let groups = world.get::<ParamGroups<O>>(root).unwrap();
        got.extend(groups.iter().map(|group| group.scalar("lr").unwrap()));
        golden::compare(GOLDEN, &format!("groups_{name} {k}"), got, (1e-14, 1e-13));
    }
    let state = world.part(root).optimizer_state_dict().unwrap();
    for (number, group) in state.param_groups.iter().enumerate() {
        let params = group.params.iter().map(|&index| index as f64);
        golden::compare(GOLDEN, &format!("groups_{name} params {number}"), params, (0.0, 0.0));
    }
}

#[test]
fn groups_step_as_in_torch() {
    let adam = AdamW { lr: 0.05, weight_decay: 0.1, ..AdamW::default() };
    let of_biases = |group: &mut AdamW| (group.lr, group.weight_decay) = (0.02, 0.0);
    let lambdas =
        [LambdaLR::new(|k| 1.0 / (1 + k) as f64), LambdaLR::new(|k| 0.5_f64.powi(k as i32))];
    steps_as_torch(
        "adamw_lambda",
        ParamGroups::new(adam).group(is_bias, of_biases),
        |brains| brains.schedule(lambdas.clone()),
        |_, _| {},
    );

    let of_biases = |group: &mut AdamW| (group.betas, group.weight_decay) = ((0.8, 0.9), 0.0);
    let cycles = [0.05, 0.01].map(|max_lr| OneCycleLR::new(max_lr, 8));
    steps_as_torch(
        "adamw_cycle",
        ParamGroups::new(adam).group(|p| p.name.ends_with("bias"), of_biases),
        |brains| brains.schedule(cycles),
        |_, _| {},
    );

    let sgd = SGD { lr: 0.1, momentum: 0.9, weight_decay: 0.1, ..SGD::default() };
    let halved = StepLR { step_size: 2, gamma: 0.5 };
    let of_biases = |group: &mut SGD| (group.momentum, group.weight_decay) = (0.0, 0.0);
    steps_as_torch(
        "sgd_step",
        ParamGroups::new(sgd).group(is_bias, of_biases),
        |brains| brains.schedule(halved),
        |_, _| {},
    );
    steps_as_torch(
        "sgd_added",
        ParamGroups::new(sgd),
        |brains| brains.schedule(halved),
        |k, groups| {
            if k == 2 {
                groups.add_param_group(is_bias, SGD { lr: 0.03, momentum: 0.5, ..sgd });
            }
        },
    );
}

#[test]
fn the_first_predicate_that_holds_decides() {
    let mut world = World::new();
    let population = spawn(&mut world, 1);
    let groups = ParamGroups::new(SGD { lr: 1.0, ..SGD::default() })
        .group(|p| p.name == "2.bias", |group| group.lr = 2.0)
        .group(is_bias, |group| group.lr = 3.0)
        .group(|_| false, |group| group.lr = 4.0);
    world.brains(population).insert(groups).unwrap();
    let root = world.population(population).unwrap().models()[0];
    let state = world.part(root).optimizer_state_dict().unwrap();
    let names: Vec<_> = state.param_groups.iter().map(|group| group.param_names.clone()).collect();
    assert_eq!(names, [&["0.weight", "2.weight"][..], &["2.bias"], &["0.bias"], &[]]);
    let before: Array2<f32> = world.brains(population).parameters_to_vectors().unwrap();
    for (name, shape) in [("0.weight", &[4, 3][..]), ("0.bias", &[4]), ("2.bias", &[2])] {
        let ones = ArrayD::<f32>::ones(shape);
        world.part(root).set_gradient(name, Some(ones.view())).unwrap();
    }
    world.brains(population).step().unwrap();
    let after: Array2<f32> = world.brains(population).parameters_to_vectors().unwrap();
    let steps: Vec<_> = (before - after).iter().map(|step| step.round()).collect();
    let want = [&[1.0; 12][..], &[3.0; 4], &[0.0; 8], &[2.0; 2]].concat();
    assert_eq!(steps, want);
}

#[test]
fn names_begin_below_the_module_that_has_the_optimizer() {
    let mut world = World::new();
    let population = spawn(&mut world, 1);
    world.brains(population).insert(SGD::default()).unwrap();
    let groups = ParamGroups::new(SGD::default()).group(|p| p.name == "bias", |_| {});
    world.brains(population).at("2").insert(groups).unwrap();
    let root = world.population(population).unwrap().models()[0];
    let state = world.part(root).optimizer_state_dict().unwrap();
    let groups: Vec<_> =
        state.param_groups.iter().map(|group| (group.number, &group.params[..])).collect();
    assert_eq!(groups, [(0, &[0, 1][..]), (0, &[2]), (1, &[3])]);
    assert_eq!(state.param_groups[2].param_names, ["2.bias"]);
}

#[test]
fn models_with_equal_predicates_run_together() {
    let plans = |groups: &dyn Fn(usize) -> ParamGroups<AdamW>| {
        let mut world = World::new();
        let population = spawn(&mut world, 4);
        world.brains(population).insert_with(groups).unwrap();
        train(&mut world, population, 1);
        world.resource::<Plans>().plans().count()
    };
    // A closure that captures nothing is made anew for each model.
    assert_eq!(plans(&|model| adam(0.01 * (1 + model) as f64)), 1);
    let rank = 1;
    let capturing =
        ParamGroups::new(AdamW::default()).group(move |p| p.shape.rank() == rank, |_| {});
    assert_eq!(plans(&|_| capturing.clone()), 1);
}

#[test]
fn a_layer_that_comes_later_is_in_the_groups() {
    let mut world = World::new();
    let population = spawn(&mut world, 2);
    world.brains(population).insert(adam(0.01)).unwrap();
    train(&mut world, population, 2);
    let root = world.population(population).unwrap().models()[0];
    world.part(root).setattr("1", Value::module(Linear::new(4, 4))).unwrap();
    train(&mut world, population, 1);
    let state = world.part(root).optimizer_state_dict().unwrap();
    assert_eq!(state.param_groups[1].param_names, ["0.bias", "1.bias", "2.bias"]);
}

#[test]
fn a_loaded_state_goes_on_in_all_groups() {
    let mut world = World::new();
    let population = spawn(&mut world, 3);
    world.brains(population).insert_with(|model| adam(0.01 * (1 + model) as f64)).unwrap();
    let rules = || [0.5, 0.25].map(|gamma| ExponentialLR { gamma });
    world.brains(population).schedule(rules()).unwrap();
    train(&mut world, population, 2);
    world.brains(population).step_schedulers().unwrap();
    let root = world.population(population).unwrap().models()[1];
    let of_model = world.part(root).optimizer_state_dict().unwrap();
    let (weights, training) = {
        let mut brains = world.brains(population);
        (brains.stacked_state_dict().unwrap(), brains.training_state().unwrap())
    };
    let go_on = |world: &mut World| {
        world.brains(population).step_schedulers().unwrap();
        train(world, population, 2);
        bits(world, population)
    };
    let after = go_on(&mut world);

    world.part(root).load_optimizer_state_dict(&of_model).unwrap();
    let loaded = world.get::<ParamGroups<AdamW>>(root).unwrap();
    let rates: Vec<_> = loaded.iter().map(|group| (group.lr, group.weight_decay)).collect();
    assert_eq!(rates, [(0.02 * 0.5, 0.1), (0.02 * 0.25, 0.0)]);

    let load = |world: &mut World| {
        let mut brains = world.brains(population);
        brains.load_stacked_state_dict(&weights, LoadOptions::default()).unwrap();
        brains.load_training_state(&training)
    };
    load(&mut world).unwrap();
    assert_eq!(go_on(&mut world), after);
}

#[test]
fn a_training_state_of_other_groups_is_refused() {
    let layer = || Linear::new(3, 3).without_bias();
    let square = Sequential::new().push(layer()).push(layer());
    let mut world = World::new();
    let population = world.spawn_population(&square, 1, Seed(3)).unwrap().id();
    let of = |predicate: fn(&NamedParameter<'_>) -> bool| {
        ParamGroups::new(AdamW::default()).group(predicate, |_| {})
    };
    world.brains(population).insert(of(|p| p.name == "0.weight")).unwrap();
    train(&mut world, population, 1);
    let saved = world.brains(population).training_state().unwrap();
    let mut refused = |groups| {
        world.brains(population).insert(groups).unwrap();
        world.brains(population).load_training_state(&saved).unwrap_err().to_string()
    };
    let error = refused(of(|p| p.name == "1.weight"));
    assert!(
        error.starts_with("optimizer.param_groups.1.params: the training state was"),
        "{error}"
    );
    refused(ParamGroups::new(AdamW::default()));
}

#[test]
fn hyperparameters_are_taken_over_from_parents() {
    let mut world = World::new();
    let population = spawn(&mut world, 3);
    world.brains(population).insert_with(|model| adam(0.01 * (1 + model) as f64)).unwrap();
    train(&mut world, population, 1);
    world.brains(population).overwrite_hyperparameters(&[2, 1, 1]).unwrap();
    world.brains(population).overwrite(&[2, 1, 1]).unwrap();
    for mut groups in world.query::<&mut ParamGroups<AdamW>>().iter_mut(&mut world) {
        groups[1].lr *= 10.0;
    }
    train(&mut world, population, 1);
    let models = world.population(population).unwrap().models();
    let rates = |&model: &Entity| {
        let groups = world.get::<ParamGroups<AdamW>>(model).unwrap();
        (groups[0].lr, groups[1].lr)
    };
    let rates: Vec<_> = models.iter().map(rates).collect();
    assert_eq!(rates, [(0.03, 0.3), (0.02, 0.2), (0.02, 0.2)]);
}

#[test]
fn a_clone_has_the_groups_of_its_parent() {
    let mut world = World::new();
    let population = spawn(&mut world, 2);
    world.brains(population).insert_with(|model| adam(0.01 * (1 + model) as f64)).unwrap();
    train(&mut world, population, 1);
    let root = world.population(population).unwrap().models()[1];
    let clone = world.brains(population).clone_models(&[1]).unwrap()[0];
    train(&mut world, population, 1);
    let groups = |model| world.get::<ParamGroups<AdamW>>(model).unwrap();
    assert_eq!(groups(clone), groups(root));
}

#[test]
fn what_a_population_shares_is_in_the_groups_of_its_optimizer() {
    let run = |of_all: bool| {
        let mut world = World::new();
        let population = spawn(&mut world, 2);
        let mut brains = world.brains(population);
        ["0.weight", "0.bias"].iter().for_each(|name| brains.share_parameter(name).unwrap());
        brains.insert(adam(0.01)).unwrap();
        if of_all {
            brains.insert_shared_optimizer(adam(0.01)).unwrap();
        }
        train(&mut world, population, 3);
        bits(&mut world, population)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn the_state_of_what_is_shared_goes_on_in_groups() {
    let mut world = World::new();
    let population = spawn(&mut world, 2);
    let mut brains = world.brains(population);
    brains.share_parameter("0.bias").unwrap();
    brains.insert(adam(0.01)).unwrap().insert_shared_optimizer(adam(0.02)).unwrap();
    train(&mut world, population, 1);
    let saved = world.brains(population).training_state().unwrap();
    world.brains(population).insert_shared_optimizer(adam(0.5)).unwrap();
    world.brains(population).load_training_state(&saved).unwrap();
    assert_eq!(world.get::<ParamGroups<AdamW>>(population), Some(&adam(0.02)));
}

#[test]
fn schedulers_are_for_all_groups_or_for_each() {
    let mut world = World::new();
    let population = spawn(&mut world, 2);
    world.brains(population).insert(adam(0.1)).unwrap();
    let rates = |world: &World| {
        let models = world.population(population).unwrap().models();
        let groups = |&model: &Entity| world.get::<ParamGroups<AdamW>>(model).unwrap().clone();
        models.iter().map(groups).collect::<Vec<_>>()
    };
    let before = rates(&world);
    let of = |gamma| ExponentialLR { gamma };
    let error = world.brains(population).schedule(vec![of(0.5)]).unwrap_err();
    let words = "model 0: Expected 2 schedulers, one for each parameter group, but got 1";
    assert_eq!(error.to_string(), words);
    assert_eq!(rates(&world), before);

    // What one group refuses, no group gets.
    let cycles = || [3, 1].map(|steps| OneCycleLR::new(0.05, steps));
    world.brains(population).schedule(cycles()).unwrap();
    world.brains(population).step_schedulers().unwrap();
    let begun = rates(&world);
    let error = world.brains(population).step_schedulers().unwrap_err().to_string();
    assert_eq!(error, "model 0: Tried to step 2 times. The specified number of total steps is 1");
    assert_eq!(rates(&world), begun);

    let boxed: [Box<dyn LRScheduler>; 2] =
        [Box::new(of(0.5)), Box::new(StepLR { step_size: 2, gamma: 0.1 })];
    world.brains(population).insert(adam(0.1)).unwrap();
    world.brains(population).schedule(boxed).unwrap();
    world.brains(population).step_schedulers().unwrap();
    world.brains(population).step_schedulers().unwrap();
    for groups in rates(&world) {
        assert_eq!((groups[0].lr, groups[1].lr), (0.1 * 0.5 * 0.5, 0.1 * 0.1));
    }
}

#[test]
fn a_predicate_that_panics_is_an_error_that_names_the_parameter() {
    let mut world = World::new();
    let population = spawn(&mut world, 1);
    let groups =
        ParamGroups::new(SGD::default()).group(|p| p.name.len() / 0_usize.pow(2) > 1, |_| {});
    world.brains(population).insert(groups).unwrap();
    let before = bits(&mut world, population);
    let (x, y) = (Array3::<f32>::ones((1, 5, 3)), Array2::<i64>::zeros((1, 5)));
    let error = world.brains(population).train_step(&x, &y, &CrossEntropyLoss::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("0.weight: the optimizer"), "{error}");
    assert_eq!(bits(&mut world, population), before);
}
