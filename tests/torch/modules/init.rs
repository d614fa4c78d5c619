//! Initialization of one module, one model or a whole population; modes of one module and one parameter.

use ndarray::{Array3, ArrayD, Axis};
use neurarch::hooks::Target;
use neurarch::prelude::*;
use neurarch::systems::init::{FanMode, Nonlinearity};
use neurarch::systems::structure::mode;

const MODELS: usize = 3;

fn population() -> (World, Entity, Vec<Entity>) {
    let mut world = World::new();
    let block = Sequential::new().push(Linear::new(4, 4)).push(Dropout::default());
    let brain = Sequential::new().push(Linear::new(2, 4)).push(block).push(Linear::new(4, 1));
    let brains = world.spawn_population(&brain, MODELS, Seed(1)).unwrap().id();
    let roots = world.population(brains).unwrap().models().to_vec();
    (world, brains, roots)
}

const NAMES: [&str; 6] = ["0.weight", "0.bias", "1.0.weight", "1.0.bias", "2.weight", "2.bias"];

fn read(world: &mut World, brains: Entity) -> [ArrayD<f32>; 6] {
    NAMES.map(|name| world.population_mut(brains).unwrap().stack::<f32>(name).unwrap())
}

/// Says which parameters of which models `run` changes.
fn changed(
    world: &mut World,
    brains: Entity,
    run: impl FnOnce(&mut World),
) -> Vec<(usize, &'static str)> {
    let before = read(world, brains);
    run(world);
    let after = read(world, brains);
    let places = (0..MODELS).flat_map(|model| (0..6).map(move |name| (model, name)));
    let is_other = |&(model, name): &(usize, usize)| {
        before[name].index_axis(Axis(0), model) != after[name].index_axis(Axis(0), model)
    };
    places.filter(is_other).map(|(model, name)| (model, NAMES[name])).collect()
}

#[test]
fn a_module_a_model_or_all_models_are_initialized() {
    let (mut world, brains, roots) = population();
    let block = world.module_mut(roots[1]).unwrap().at("1").unwrap().id();
    let world = &mut world;
    let all = |names: &[&'static str], models: std::ops::Range<usize>| -> Vec<_> {
        models.flat_map(|model| names.iter().map(move |name| (model, *name))).collect()
    };
    let normal = |target: Target, name: &'static str| {
        move |world: &mut World| init::normal_(world, target, name, 0.0, 1.0).unwrap()
    };
    assert_eq!(changed(world, brains, normal(brains.into(), "0.bias")), all(&["0.bias"], 0..3));
    let in_path = normal((brains, "1").into(), "0.weight");
    assert_eq!(changed(world, brains, in_path), all(&["1.0.weight"], 0..3));
    assert_eq!(changed(world, brains, normal(roots[2].into(), "2.bias")), all(&["2.bias"], 2..3));
    assert_eq!(changed(world, brains, normal(block.into(), "0.bias")), all(&["1.0.bias"], 1..2));

    let reset = |target: Target| {
        move |world: &mut World| world.target_mut(target).reset_parameters().unwrap()
    };
    assert_eq!(changed(world, brains, reset(brains.into())), all(&NAMES, 0..3));
    assert_eq!(changed(world, brains, reset(roots[0].into())), all(&NAMES, 0..1));
    assert_eq!(changed(world, brains, reset(block.into())), all(&NAMES[2..4], 1..2));
    assert_eq!(changed(world, brains, reset((brains, "2").into())), all(&NAMES[4..], 0..3));

    let error = init::ones_(world, (brains, "7.x"), "weight").unwrap_err().to_string();
    assert_eq!(error, "'7.x': Sequential has no attribute `7`");
    let error = world.target_mut(Target::All).reset_parameters().unwrap_err().to_string();
    assert_eq!(error, "expected a module, or a population and a path, got all modules");
}

#[test]
fn numbers_are_drawn_anew_unless_a_seed_is_given_and_alike_alone_and_among_many() {
    let (mut world, brains, roots) = population();
    let first = read(&mut world, brains);
    world.population_mut(brains).unwrap().reset_parameters().unwrap();
    let second = read(&mut world, brains);
    world.population_mut(brains).unwrap().reset_parameters().unwrap();
    let third = read(&mut world, brains);
    assert!(first != second && second != third && first != third);

    // The population's own seed draws what its models were spawned with.
    init::seeded(&mut world, 1, |world| world.population_mut(brains)?.reset_parameters()).unwrap();
    assert_eq!(read(&mut world, brains), first);
    // One model after the other draws what all draw at once.
    init::seeded(&mut world, 9, |world| world.population_mut(brains)?.reset_parameters()).unwrap();
    let all = read(&mut world, brains);
    for &root in &roots {
        init::seeded(&mut world, 9, |world| world.module_mut(root)?.reset_parameters()).unwrap();
    }
    assert_eq!(read(&mut world, brains), all);
    // What is drawn by a seed leaves later numbers as they are.
    let next = |is_seeded: bool| {
        let (mut world, brains, _) = population();
        if is_seeded {
            init::seeded(&mut world, 9, |world| world.population_mut(brains)?.reset_parameters())
                .unwrap();
        }
        world.population_mut(brains).unwrap().reset_parameters().unwrap();
        read(&mut world, brains)
    };
    assert_eq!(next(true), next(false));
}

#[test]
fn parametrized_tensors_are_reset_with_their_module() {
    let mut world = World::new();
    let model = Sequential::new().push(Linear::new(3, 3)).push(Linear::new(3, 3));
    let models = world.spawn_population(&model, 2, Seed(1)).unwrap().id();
    for path in ["0", "1"] {
        world.population_mut(models).unwrap().at(path).weight_norm("weight", Some(0)).unwrap();
    }
    let name = |layer| format!("{layer}.parametrizations.weight.original1");
    let read = |world: &mut World| {
        [0, 1]
            .map(|layer| world.population_mut(models).unwrap().stack::<f32>(&name(layer)).unwrap())
    };
    let before = read(&mut world);
    world.population_mut(models).unwrap().at("1").reset_parameters().unwrap();
    let after = read(&mut world);
    assert_eq!(before[0], after[0]);
    assert_ne!(before[1], after[1]);
    world.population_mut(models).unwrap().at("1").reset_parameters().unwrap();
    assert_ne!(read(&mut world)[1], after[1]);
}

/// The design's third mode, which torch has not: `std = gain / √((fan_in + fan_out) / 2)`.
#[test]
fn kaiming_takes_the_mean_of_both_fans() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(300, 100), 1, Seed(1)).unwrap().id();
    let (mode, after) = (FanMode::FanAvg, Nonlinearity::ReLU);
    // By name it is refused, in torch's words.
    let error = "fan_avg".parse::<FanMode>().unwrap_err().to_string();
    assert_eq!(error, "Mode fan_avg not supported, please use one of ['fan_in', 'fan_out']");
    init::kaiming_uniform_(&mut world, layers, "weight", mode, after).unwrap();
    let weight = world.population_mut(layers).unwrap().stack::<f32>("weight").unwrap();
    let bound = (3.0_f32 * 2.0 / 200.0).sqrt();
    let most = weight.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    assert!(most <= bound && most > 0.999 * bound, "{most}");
    init::kaiming_normal_(&mut world, layers, "weight", mode, after).unwrap();
    let weight = world.population_mut(layers).unwrap().stack::<f32>("weight").unwrap();
    let std = (weight.iter().map(|x| x * x).sum::<f32>() / 30_000.0).sqrt();
    assert!((std - 0.1).abs() < 0.002, "{std}");
}

#[test]
fn the_mode_of_one_module_is_read_and_set_alone() {
    let (mut world, brains, roots) = population();
    let block = world.module_mut(roots[1]).unwrap().at("1").unwrap().id();
    let dropout = world.module_mut(roots[1]).unwrap().at("1.1").unwrap().id();
    let modes = |world: &mut World| {
        [roots[1], block, dropout].map(|module| mode::is_training(world, module).unwrap())
    };
    assert_eq!(modes(&mut world), [true; 3]);
    mode::set_training(&mut world, block, false).unwrap();
    assert_eq!(modes(&mut world), [true, false, true]);
    mode::set_training(&mut world, (brains, "1.1"), false).unwrap();
    mode::set_training(&mut world, (brains, "1"), true).unwrap();
    assert_eq!(modes(&mut world), [true, true, false]);
    world.module_mut(block).unwrap().eval().unwrap();
    assert_eq!(modes(&mut world), [true, false, false]);
    world.population_mut(brains).unwrap().train().unwrap();
    assert_eq!(modes(&mut world), [true; 3]);
    let stranger = world.spawn_empty().id();
    assert!(mode::is_training(&mut world, stranger).is_err());
    assert!(mode::set_training(&mut world, stranger, true).is_err());
}

#[test]
fn whether_a_parameter_needs_a_gradient_is_read_and_set_below_any_module() {
    let (mut world, brains, roots) = population();
    let block = world.module_mut(roots[1]).unwrap().at("1").unwrap().id();
    mode::set_requires_grad(&mut world, block, "0.weight", false).unwrap();
    mode::set_requires_grad(&mut world, (brains, "2"), "bias", false).unwrap();
    let needs: Vec<_> = [(0, "1.0.weight"), (1, "1.0.weight"), (0, "2.bias"), (2, "2.bias")]
        .into_iter()
        .map(|(model, name)| mode::requires_grad(&mut world, roots[model], name).unwrap())
        .collect();
    assert_eq!(needs, [true, false, false, false]);
    assert!(!mode::requires_grad(&mut world, block, "0.weight").unwrap());
    world.population_mut(brains).unwrap().forward(&Array3::<f32>::ones((MODELS, 4, 2))).unwrap();
    world
        .population_mut(brains)
        .unwrap()
        .backward_from(&Array3::<f32>::ones((MODELS, 4, 1)))
        .unwrap();
    assert!(world.module_mut(roots[1]).unwrap().gradient::<f32>("1.0.weight").unwrap().is_none());
    assert!(world.module_mut(roots[0]).unwrap().gradient::<f32>("1.0.weight").unwrap().is_some());
    let error = mode::set_requires_grad(&mut world, (brains, "2"), "baias", true).unwrap_err();
    assert_eq!(error.to_string(), "Linear has no parameter or buffer 'baias'");
}
