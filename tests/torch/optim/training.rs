//! Training: what the steps do, one by one and in one.

use ndarray::{Array2, Array3, array, s};
use neurarch::prelude::*;

use crate::bits::bits;

fn xor() -> (Array2<f32>, Array2<f32>) {
    (array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], array![[0.0], [1.0], [1.0], [0.0]])
}

fn brain() -> Sequential {
    Sequential::new().push(Linear::new(2, 8)).push(Tanh).push(Linear::new(8, 1))
}

fn world_of(models: usize) -> (World, Entity) {
    let mut world = World::new();
    let population = world.spawn_population(&brain(), models, Seed(3)).unwrap().id();
    (world, population)
}

#[test]
fn every_model_learns_xor() {
    let (mut world, population) = world_of(20);
    world.population_mut(population).unwrap().insert(Adam { lr: 0.03, ..Adam::default() }).unwrap();
    let (x, y) = xor();
    let mut losses = ndarray::Array1::zeros(20);
    for _ in 0..600 {
        let (x, y) = (Input::shared(x.view()), Input::shared(y.view()));
        losses = world
            .population_mut(population)
            .unwrap()
            .train_step(x, y, &MSELoss::default())
            .unwrap();
    }
    assert!(losses.iter().all(|&loss| loss < 0.05), "{losses}");
}

#[test]
fn one_step_is_forward_loss_backward_and_step() {
    let optimizers: [fn(&mut World, Entity); 4] = [
        |world, population| {
            world.population_mut(population).unwrap().insert(SGD::default()).unwrap();
        },
        |world, population| {
            let momentum = SGD { momentum: 0.9, nesterov: true, lr: 0.1, ..SGD::default() };
            world
                .population_mut(population)
                .unwrap()
                .insert(SGD { weight_decay: 0.01, ..momentum })
                .unwrap();
        },
        |world, population| {
            world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
        },
        |world, population| {
            world.population_mut(population).unwrap().insert(AdamW::default()).unwrap();
        },
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
            let losses =
                fused.population_mut(a).unwrap().train_step(x.clone(), y.clone(), &loss).unwrap();
            parted.population_mut(b).unwrap().forward(x).unwrap();
            let same = parted.population_mut(b).unwrap().loss::<f32, f32>(y, &loss).unwrap();
            parted.population_mut(b).unwrap().zero_grad().unwrap();
            parted.population_mut(b).unwrap().backward().unwrap();
            parted.population_mut(b).unwrap().step().unwrap();
            assert_eq!(losses.into_dyn(), same);
            assert_eq!(bits(&mut fused, a), bits(&mut parted, b));
        }
    }
}

#[test]
fn gradients_add_up_until_they_are_zeroed() {
    let (mut world, population) = world_of(3);
    let root = world.population(population).unwrap().models()[1];
    let (x, y) = xor();
    let pass = |world: &mut World| {
        world.population_mut(population).unwrap().forward(Input::shared(x.view())).unwrap();
        let y = Input::shared(y.view());
        world.population_mut(population).unwrap().loss::<f32, f32>(y, &MSELoss::default()).unwrap();
        world.population_mut(population).unwrap().backward().unwrap();
        world.module_mut(root).unwrap().gradient::<f32>("0.weight").unwrap().unwrap()
    };
    assert_eq!(world.module_mut(root).unwrap().gradient::<f32>("0.weight").unwrap(), None);
    let once = pass(&mut world);
    let twice = pass(&mut world);
    assert_eq!(twice, &once + &once);
    world.population_mut(population).unwrap().zero_grad().unwrap();
    assert_eq!(world.module_mut(root).unwrap().gradient::<f32>("0.weight").unwrap(), None);
    assert_eq!(pass(&mut world), once);
}

#[test]
fn frozen_parameters_stay_and_the_others_learn() {
    let (mut world, population) = world_of(4);
    world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
    let models = world.population(population).unwrap().models().to_vec();
    let first = world.module_mut(models[2]).unwrap().at("0").unwrap().id();
    world.module_mut(first).unwrap().requires_grad_(false).unwrap();
    let weights = |world: &mut World, name: &str| -> Vec<_> {
        models
            .iter()
            .map(|&root| world.module_mut(root).unwrap().parameter::<f32>(name).unwrap())
            .collect()
    };
    let before = (weights(&mut world, "0.weight"), weights(&mut world, "2.weight"));
    let (x, y) = xor();
    let (x, y) = (Input::shared(x.view()), Input::shared(y.view()));
    world.population_mut(population).unwrap().train_step(x, y, &MSELoss::default()).unwrap();
    let after = (weights(&mut world, "0.weight"), weights(&mut world, "2.weight"));
    for model in 0..4 {
        assert_eq!(before.0[model] == after.0[model], model == 2);
        assert_ne!(before.1[model], after.1[model]);
    }
}

#[test]
fn the_nearest_optimizer_wins() {
    let (mut world, population) = world_of(2);
    world.population_mut(population).unwrap().insert(SGD { lr: 0.5, ..SGD::default() }).unwrap();
    world
        .population_mut(population)
        .unwrap()
        .at("2")
        .insert_with(|_| SGD { lr: 0.0, ..SGD::default() })
        .unwrap();
    let root = world.population(population).unwrap().models()[0];
    let weights = |world: &mut World| {
        ["0.weight", "2.weight"]
            .map(|name| world.module_mut(root).unwrap().parameter::<f32>(name).unwrap())
    };
    let before = weights(&mut world);
    let (x, y) = xor();
    let (x, y) = (Input::shared(x.view()), Input::shared(y.view()));
    world.population_mut(population).unwrap().train_step(x, y, &MSELoss::default()).unwrap();
    let after = weights(&mut world);
    assert_ne!(before[0], after[0]);
    assert_eq!(before[1], after[1]);
}

#[test]
fn inactive_models_are_not_touched() {
    let (mut world, population) = world_of(6);
    world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
    let models = world.population(population).unwrap().models().to_vec();
    world.module_mut(models[1]).unwrap().set_active(false).unwrap();
    world.module_mut(models[4]).unwrap().set_active(false).unwrap();
    let before = bits(&mut world, population);
    let (x, y) = xor();
    let (x, y) = (Input::shared(x.view()), Input::shared(y.view()));
    let losses =
        world.population_mut(population).unwrap().train_step(x, y, &MSELoss::default()).unwrap();
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
    many.population_mut(a).unwrap().insert(Adam::default()).unwrap();
    one.population_mut(b).unwrap().insert(Adam::default()).unwrap();
    let data =
        DataSet::shared(inputs.view(), targets.view()).order(order.view()).batch(batch).epochs(2);
    let losses = many.population_mut(a).unwrap().train_steps(data, &MSELoss::default()).unwrap();
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
        let step_losses =
            one.population_mut(b).unwrap().train_step(&x, &y, &MSELoss::default()).unwrap();
        assert_eq!(losses.slice(s![.., step]), step_losses, "step {step}");
    }
    assert_eq!(bits(&mut many, a), bits(&mut one, b));
}

#[test]
fn evaluation_mode_makes_dropout_the_identity() {
    let mut world = World::new();
    let brain = Sequential::new().push(Dropout { p: 0.5 });
    let population = world.spawn_population(&brain, 2, Seed(1)).unwrap().id();
    let x = Array3::<f32>::ones((2, 8, 32));
    let dropped = world.population_mut(population).unwrap().forward(&x).unwrap();
    assert!(dropped.iter().any(|&y| y == 0.0) && dropped.iter().any(|&y| y == 2.0));
    assert_ne!(
        world.population_mut(population).unwrap().forward(&x).unwrap(),
        dropped,
        "each pass draws anew"
    );
    world.population_mut(population).unwrap().eval().unwrap();
    assert_eq!(
        world.population_mut(population).unwrap().forward(&x).unwrap(),
        x.clone().into_dyn()
    );
    world.population_mut(population).unwrap().train().unwrap();
    assert_ne!(world.population_mut(population).unwrap().forward(&x).unwrap(), x.into_dyn());
}

#[test]
fn rates_may_change_between_steps() {
    let (mut changed, a) = world_of(3);
    let (mut replaced, b) = world_of(3);
    let (x, y) = xor();
    let train = |world: &mut World, population| {
        let (x, y) = (Input::shared(x.view()), Input::shared(y.view()));
        world.population_mut(population).unwrap().train_step(x, y, &MSELoss::default()).unwrap();
    };
    for (world, population) in [(&mut changed, a), (&mut replaced, b)] {
        world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
        train(world, population);
    }
    let models = changed.population(a).unwrap().models().to_vec();
    for (index, &root) in models.iter().enumerate() {
        changed.get_mut::<Adam>(root).unwrap().lr = 0.01 * index as f64;
    }
    let rate = |index: usize| Adam { lr: 0.01 * index as f64, ..Adam::default() };
    replaced.population_mut(b).unwrap().insert_with(rate).unwrap();
    for (world, population) in [(&mut changed, a), (&mut replaced, b)] {
        train(world, population);
    }
    assert_eq!(bits(&mut changed, a), bits(&mut replaced, b));
    // Another structure of the optimizer, in one model alone.
    changed.entity_mut(models[1]).insert(Adam { maximize: true, ..rate(1) });
    let before = bits(&mut changed, a);
    train(&mut changed, a);
    train(&mut replaced, b);
    let (after, expected) = (bits(&mut changed, a), bits(&mut replaced, b));
    assert_eq!((&after[0], &after[2]), (&expected[0], &expected[2]));
    assert!(after[1] != expected[1] && after[1] != before[1]);
}

#[test]
fn models_come_go_and_are_tagged_while_they_learn() {
    #[derive(Component)]
    struct Tag;
    let alone = |number: u64| {
        let mut world = World::new();
        let settings = PopulationSettings { seed: 3, first_number: number, ..Default::default() };
        let population = world.spawn_population_with(&brain(), settings).unwrap().id();
        world
            .population_mut(population)
            .unwrap()
            .insert(Adam { lr: 0.01, ..Adam::default() })
            .unwrap();
        (world, population)
    };
    let (x, y) = xor();
    let train = |world: &mut World, population| {
        let (x, y) = (Input::shared(x.view()), Input::shared(y.view()));
        world.population_mut(population).unwrap().train_step(x, y, &MSELoss::default()).unwrap();
    };
    let (mut world, population) = world_of(6);
    world.population_mut(population).unwrap().insert(Adam { lr: 0.01, ..Adam::default() }).unwrap();
    train(&mut world, population);
    let models = world.population(population).unwrap().models().to_vec();
    let first = world.module_mut(models[4]).unwrap().at("0").unwrap().id();
    world.entity_mut(first).insert(Tag);
    world.entity_mut(models[2]).insert(Tag);
    train(&mut world, population);
    world.despawn(models[1]);
    train(&mut world, population);
    world.population_mut(population).unwrap().spawn_models(2).unwrap();
    let spawned = world.population(population).unwrap().models().to_vec();
    for &root in &spawned[5..] {
        world.entity_mut(root).insert(Adam { lr: 0.01, ..Adam::default() });
    }
    world.entity_mut(first).remove::<Tag>();
    train(&mut world, population);
    // (index, number, steps): despawning moved the last model into the gap.
    let expected = [(0, 0, 4), (1, 5, 4), (2, 2, 4), (3, 3, 4), (4, 4, 4), (5, 6, 1), (6, 7, 1)];
    let all = bits(&mut world, population);
    for (index, number, steps) in expected {
        let (mut world, population) = alone(number);
        (0..steps).for_each(|_| train(&mut world, population));
        assert_eq!(bits(&mut world, population)[0], all[index], "index {index}");
    }
}

#[test]
fn a_pass_over_other_models_cannot_be_gone_back_from() {
    let (mut world, population) = world_of(3);
    let (x, y) = xor();
    world.population_mut(population).unwrap().forward(Input::shared(x.view())).unwrap();
    let y = Input::shared(y.view());
    world.population_mut(population).unwrap().loss::<f32, f32>(y, &MSELoss::default()).unwrap();
    world.population_mut(population).unwrap().spawn_models(1).unwrap();
    let error = world.population_mut(population).unwrap().backward().unwrap_err();
    assert_eq!(
        error.to_string(),
        "model 3 was spawned since the last forward pass: call forward again"
    );
}

#[test]
fn a_change_of_structure_keeps_what_it_can() {
    let (mut world, population) = world_of(3);
    world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
    let models = world.population(population).unwrap().models().to_vec();
    let last = world.module_mut(models[1]).unwrap().at("2").unwrap().id();
    let before = world.module_mut(models[1]).unwrap().parameter::<f32>("0.weight").unwrap();
    world.entity_mut(last).insert(Linear::new(8, 1).without_bias());
    assert_eq!(
        world.module_mut(models[1]).unwrap().parameter_names().unwrap(),
        ["0.weight", "0.bias", "2.weight"]
    );
    let (x, y) = xor();
    let (x, y) = (Input::shared(x.view()), Input::shared(y.view()));
    let outputs = world.population_mut(population).unwrap().forward(x.clone()).unwrap();
    assert_eq!(outputs.shape(), [3, 4, 1]);
    assert_eq!(world.module_mut(models[1]).unwrap().parameter::<f32>("0.weight").unwrap(), before);
    world.population_mut(population).unwrap().train_step(x, y, &MSELoss::default()).unwrap();
    assert_ne!(world.module_mut(models[1]).unwrap().parameter::<f32>("0.weight").unwrap(), before);
    // New parameters get first numbers.
    let first = world.module_mut(models[1]).unwrap().at("0").unwrap().id();
    world.entity_mut(first).insert(Linear::new(3, 8));
    let weight = world.module_mut(models[1]).unwrap().parameter::<f32>("0.weight").unwrap();
    assert_eq!(weight.shape(), [8, 3]);
    assert!(weight.iter().all(|&x| x != 0.0 && x.abs() < 0.58));
}

#[test]
fn losses_may_change_their_scalar_slots_and_weights() {
    let mut world = World::new();
    let population = world.spawn_population(&Linear::new(3, 4), 2, Seed(1)).unwrap().id();
    let x = Array3::from_shape_fn((2, 5, 3), |(m, i, j)| (m + i * j) as f32 / 5.0);
    let targets = Array2::from_shape_fn((2, 5), |(m, i)| ((m + i) % 4) as i64);
    let logits = world.population_mut(population).unwrap().forward(&x).unwrap();
    for (label_smoothing, weight) in
        [(0.0, None), (0.2, None), (0.2, Some([0.5, 1.0, 2.0, 3.0])), (0.0, Some([1.0; 4]))]
    {
        let weight: Option<Vec<f64>> = weight.map(Vec::from);
        let loss = CrossEntropyLoss { label_smoothing, weight, ..Default::default() };
        let losses =
            world.population_mut(population).unwrap().loss::<f32, i64>(&targets, &loss).unwrap();
        for model in 0..2 {
            let (mut sum, mut weights) = (0.0, 0.0);
            for item in 0..5 {
                let row = logits.slice(s![model, item, ..]).mapv(f64::from);
                let norm = row.mapv(f64::exp).sum().ln();
                let of = |class: usize| loss.weight.as_ref().map_or(1.0, |weight| weight[class]);
                let target = targets[[model, item]] as usize;
                let smooth: f64 = (0..4).map(|class| of(class) * (norm - row[class])).sum();
                sum += (1.0 - label_smoothing) * of(target) * (norm - row[target])
                    + label_smoothing / 4.0 * smooth;
                weights += of(target);
            }
            // Single precision against double.
            assert!((f64::from(losses[[model]]) - sum / weights).abs() < 1e-5);
        }
    }
}

#[test]
fn double_precision_and_views_of_any_layout_work() {
    let mut world = World::new();
    let settings = PopulationSettings { models: 3, dtype: Dtype::F64, ..Default::default() };
    let population = world.spawn_population_with(&brain(), settings).unwrap().id();
    let x = Array3::from_shape_fn((4, 3, 2), |(i, m, j)| (i + m * j) as f64 / 3.0);
    let view = x.view().permuted_axes([1, 0, 2]); // [models, batch, features]
    let dense = view.as_standard_layout().into_owned();
    let y = world.population_mut(population).unwrap().forward(&dense).unwrap();
    assert_eq!(world.population_mut(population).unwrap().forward(view).unwrap(), y);
    let mut into = Array3::<f64>::zeros((4, 3, 1));
    let transposed = into.view_mut().permuted_axes([1, 0, 2]);
    world.population_mut(population).unwrap().forward_into(&dense, transposed).unwrap();
    assert_eq!(into.permuted_axes([1, 0, 2]).into_dyn(), y);
}
