//! Training: what the steps do, one by one and in one.

use ndarray::{Array2, Array3, array, s};
use neurarch::prelude::*;

fn xor() -> (Array2<f32>, Array2<f32>) {
    (array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], array![[0.0], [1.0], [1.0], [0.0]])
}

fn brain() -> Sequential {
    Sequential::new().push(Linear::new(2, 8)).push(Tanh).push(Linear::new(8, 1))
}

fn world_of(models: usize) -> (World, Entity) {
    let mut world = World::new();
    let population = world.spawn_population(&brain(), models, Seed(3)).unwrap();
    (world, population)
}

/// All parameters of all models, as bits.
fn bits(world: &mut World, population: Entity) -> Vec<Vec<u32>> {
    let models = world.models(population).unwrap().to_vec();
    let bits = |root| {
        let names = world.parameter_names(root).unwrap();
        let numbers = names.iter().flat_map(|name| world.parameter::<f32>(root, name).unwrap());
        numbers.map(f32::to_bits).collect()
    };
    models.into_iter().map(bits).collect()
}

#[test]
fn every_model_learns_xor() {
    let (mut world, population) = world_of(20);
    world.insert(population, Adam { lr: 0.03, ..Adam::default() }).unwrap();
    let (x, y) = xor();
    let mut losses = ndarray::Array1::zeros(20);
    for _ in 0..600 {
        let (x, y) = (Input::shared(x.view()), Input::shared(y.view()));
        losses = world.train_step(population, x, y, &MSELoss::default()).unwrap();
    }
    assert!(losses.iter().all(|&loss| loss < 0.05), "{losses}");
}

#[test]
fn one_step_is_forward_loss_backward_and_step() {
    let optimizers: [fn(&mut World, Entity); 4] = [
        |world, population| world.insert(population, SGD::default()).unwrap(),
        |world, population| {
            let momentum = SGD { momentum: 0.9, nesterov: true, lr: 0.1, ..SGD::default() };
            world.insert(population, SGD { weight_decay: 0.01, ..momentum }).unwrap();
        },
        |world, population| world.insert(population, Adam::default()).unwrap(),
        |world, population| world.insert(population, AdamW::default()).unwrap(),
    ];
    let (x, y) = xor();
    for insert in optimizers {
        let (mut fused, a) = world_of(5);
        let (mut parted, b) = world_of(5);
        insert(&mut fused, a);
        insert(&mut parted, b);
        for _ in 0..4 {
            let (x, y) = (Input::shared(x.view()), Input::shared(y.view()));
            let loss = MSELoss::default();
            let losses = fused.train_step(a, x.clone(), y.clone(), &loss).unwrap();
            parted.forward(b, x).unwrap();
            let same = parted.loss::<f32, f32>(b, y, &loss).unwrap();
            parted.zero_grad(b).unwrap();
            parted.backward(b).unwrap();
            parted.step(b).unwrap();
            assert_eq!(losses.into_dyn(), same);
            assert_eq!(bits(&mut fused, a), bits(&mut parted, b));
        }
    }
}

#[test]
fn gradients_add_up_until_they_are_zeroed() {
    let (mut world, population) = world_of(3);
    let root = world.models(population).unwrap()[1];
    let (x, y) = xor();
    let pass = |world: &mut World| {
        world.forward(population, Input::shared(x.view())).unwrap();
        let y = Input::shared(y.view());
        world.loss::<f32, f32>(population, y, &MSELoss::default()).unwrap();
        world.backward(population).unwrap();
        world.gradient::<f32>(root, "0.weight").unwrap().unwrap()
    };
    assert_eq!(world.gradient::<f32>(root, "0.weight").unwrap(), None);
    let once = pass(&mut world);
    let twice = pass(&mut world);
    assert_eq!(twice, &once + &once);
    world.zero_grad(population).unwrap();
    assert_eq!(world.gradient::<f32>(root, "0.weight").unwrap(), None);
    assert_eq!(pass(&mut world), once);
}

#[test]
fn frozen_parameters_stay_and_the_others_learn() {
    let (mut world, population) = world_of(4);
    world.insert(population, Adam::default()).unwrap();
    let models = world.models(population).unwrap().to_vec();
    let first = world.module(models[2], "0").unwrap();
    world.requires_grad_(first, false).unwrap();
    let weights = |world: &mut World, name: &str| -> Vec<_> {
        models.iter().map(|&root| world.parameter::<f32>(root, name).unwrap()).collect()
    };
    let before = (weights(&mut world, "0.weight"), weights(&mut world, "2.weight"));
    let (x, y) = xor();
    let (x, y) = (Input::shared(x.view()), Input::shared(y.view()));
    world.train_step(population, x, y, &MSELoss::default()).unwrap();
    let after = (weights(&mut world, "0.weight"), weights(&mut world, "2.weight"));
    for model in 0..4 {
        assert_eq!(before.0[model] == after.0[model], model == 2);
        assert_ne!(before.1[model], after.1[model]);
    }
}

#[test]
fn the_nearest_optimizer_wins() {
    let (mut world, population) = world_of(2);
    world.insert(population, SGD { lr: 0.5, ..SGD::default() }).unwrap();
    world.insert_at_with(population, "2", |_| SGD { lr: 0.0, ..SGD::default() }).unwrap();
    let root = world.models(population).unwrap()[0];
    let weights = |world: &mut World| {
        ["0.weight", "2.weight"].map(|name| world.parameter::<f32>(root, name).unwrap())
    };
    let before = weights(&mut world);
    let (x, y) = xor();
    let (x, y) = (Input::shared(x.view()), Input::shared(y.view()));
    world.train_step(population, x, y, &MSELoss::default()).unwrap();
    let after = weights(&mut world);
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1], after[1]);
}

#[test]
fn inactive_models_are_not_touched() {
    let (mut world, population) = world_of(6);
    world.insert(population, Adam::default()).unwrap();
    let models = world.models(population).unwrap().to_vec();
    world.set_active(models[1], false).unwrap();
    world.set_active(models[4], false).unwrap();
    let before = bits(&mut world, population);
    let (x, y) = xor();
    let (x, y) = (Input::shared(x.view()), Input::shared(y.view()));
    let losses = world.train_step(population, x, y, &MSELoss::default()).unwrap();
    let after = bits(&mut world, population);
    for model in 0..6 {
        let is_inactive = [1, 4].contains(&model);
        assert_eq!(before[model] == after[model], is_inactive, "model {model}");
        assert_eq!(losses[model] == 0.0, is_inactive, "model {model}");
    }
}

#[test]
fn several_steps_a_visit_are_those_steps() {
    let (items, models, batch) = (10, 3, 4);
    let inputs = Array2::from_shape_fn((items, 2), |(i, j)| (i * 3 + j) as f32 / 10.0 - 1.0);
    let targets = Array2::from_shape_fn((items, 1), |(i, _)| (i % 3) as f32);
    let order =
        Array2::from_shape_fn((models, 2 * items), |(model, i)| ((i * 7 + model) % items) as u32);
    let (mut many, a) = world_of(models);
    let (mut one, b) = world_of(models);
    many.insert(a, Adam::default()).unwrap();
    one.insert(b, Adam::default()).unwrap();
    let data =
        DataSet::shared(inputs.view(), targets.view()).order(order.view()).batch(batch).epochs(2);
    let losses = many.train_steps(a, data, &MSELoss::default()).unwrap();
    assert_eq!(losses.dim(), (models, 6));
    for (step, [from, to]) in
        [[0, 4], [4, 8], [8, 10], [10, 14], [14, 18], [18, 20]].into_iter().enumerate()
    {
        let picked = |data: &Array2<f32>| {
            let width = data.ncols();
            Array3::from_shape_fn((models, to - from, width), |(model, item, j)| {
                data[[order[[model, from + item]] as usize, j]]
            })
        };
        let (x, y) = (picked(&inputs), picked(&targets));
        let step_losses = one.train_step(b, &x, &y, &MSELoss::default()).unwrap();
        assert_eq!(losses.slice(s![.., step]), step_losses, "step {step}");
    }
    assert_eq!(bits(&mut many, a), bits(&mut one, b));
}

#[test]
fn evaluation_mode_makes_dropout_the_identity() {
    let mut world = World::new();
    let brain = Sequential::new().push(Dropout { p: 0.5 });
    let population = world.spawn_population(&brain, 2, Seed(1)).unwrap();
    let x = Array3::<f32>::ones((2, 8, 32));
    let dropped = world.forward(population, &x).unwrap();
    assert!(dropped.iter().any(|&y| y == 0.0) && dropped.iter().any(|&y| y == 2.0));
    assert_ne!(world.forward(population, &x).unwrap(), dropped, "each pass draws anew");
    world.eval(population).unwrap();
    assert_eq!(world.forward(population, &x).unwrap(), x.clone().into_dyn());
    world.train(population).unwrap();
    assert_ne!(world.forward(population, &x).unwrap(), x.into_dyn());
}
