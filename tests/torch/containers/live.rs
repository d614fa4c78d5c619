//! Containers of live models: numbers, gradients, optimizer state, modes and hooks move with their modules,
//! neighbors do not notice, and what fails changes nothing.

use ndarray::{Array2, Array3, ArrayD, Axis, array};
use neurarch::components::module::DynModule;
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::edit::containers::EditError;
use neurarch::systems::execute::hooks::Target;

fn inputs(models: usize) -> Array3<f32> {
    Array3::from_shape_fn((models, 5, 3), |(m, i, f)| ((m * 5 + i * 3 + f) % 7) as f32 / 3.0 - 1.0)
}

/// A layer of some kind.
fn layer(kind: usize) -> Box<dyn DynModule> {
    match kind % 4 {
        0 => Tanh.into_module(),
        1 => ReLU.into_module(),
        2 => Sequential::new().push(Linear::new(3, 4)).push(Linear::new(4, 3)).into_module(),
        _ => Linear::new(3, 3).into_module(),
    }
}

/// After each of many edits a model computes what one computes that was made anew and given its state; its
/// neighbors compute what they did at first.
#[test]
fn an_edited_model_computes_what_one_made_anew_does() {
    let mut described = Sequential::from_iter([3, 0, 3].map(layer));
    let mut world = World::new();
    let brains = world.spawn_population(&described, 4, Seed(3)).unwrap().id();
    let root = world.population(brains).unwrap().models()[2];
    let first = world.population_mut(brains).unwrap().forward(&inputs(4)).unwrap();
    let mut random = 7_usize;
    let mut draw = |below: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    for step in 0..60 {
        let (len, kind) = (described.len(), draw(4));
        let index = if len == 0 { 0 } else { draw(len) as isize };
        let mut module = world.module_mut(root).unwrap();
        let mut live = module.container();
        match draw(6) {
            0 | 1 => {
                described.insert(index, layer(kind)).unwrap();
                live = live.insert(index, layer(kind)).unwrap();
            }
            2 => {
                described.append(layer(kind));
                live = live.append(layer(kind)).unwrap();
            }
            3 if len > 0 => {
                described.set(index - len as isize, layer(kind)).unwrap();
                live = live.set(index - len as isize, layer(kind)).unwrap();
            }
            4 if len > 2 => {
                described.remove(index).unwrap();
                live = live.remove(index).unwrap();
            }
            _ if len > 4 => {
                described.remove_slice(Slice::from(index..).step_by(2)).unwrap();
                live = live.remove(Slice::from(index..).step_by(2)).unwrap();
            }
            _ => {}
        }
        assert_eq!(live.len().unwrap(), described.len());
        assert_eq!(
            world.module_mut(root).unwrap().repr().unwrap(),
            described.to_string(),
            "step {step}"
        );

        let state = world.module_mut(root).unwrap().state_dict().unwrap();
        let anew = world.spawn_population(&described, 1, Seed(99)).unwrap().id();
        world.population_mut(anew).unwrap().load_state_dict(&state).unwrap();
        let x = inputs(4).index_axis(Axis(0), 2).to_owned().insert_axis(Axis(0));
        let y = world.population_mut(brains).unwrap().forward(&inputs(4)).unwrap();
        let expected = world.population_mut(anew).unwrap().forward(&x).unwrap();
        assert_eq!(y.index_axis(Axis(0), 2), expected.index_axis(Axis(0), 0), "step {step}");
        for model in [0, 1, 3] {
            let [y, first] = [&y, &first].map(|y| y.index_axis(Axis(0), model));
            assert_eq!(y, first, "step {step}: model {model}");
        }
        world.despawn(anew);
    }
}

fn two_layers() -> Sequential {
    Sequential::new().push(Linear::new(3, 3)).push(Tanh).push(Linear::new(3, 3))
}

fn train(world: &mut World, population: Entity) -> ndarray::Array1<f32> {
    let models = world.population(population).unwrap().models().len();
    let targets = Array3::from_shape_fn((models, 5, 3), |(m, i, f)| ((m + i * f) % 3) as f32);
    world
        .population_mut(population)
        .unwrap()
        .train_step(&inputs(models), &targets, &MSELoss::default())
        .unwrap()
}

/// Steps of Adam go on as if nothing had happened: moments and counts of steps moved with the layers.
#[test]
fn optimizer_state_and_gradients_move_with_their_modules() {
    for edits_all in [false, true] {
        let mut world = World::new();
        let edited = world.spawn_population(&two_layers(), 3, Seed(3)).unwrap().id();
        let other = world.spawn_population(&two_layers(), 3, Seed(3)).unwrap().id();
        for population in [edited, other] {
            world
                .population_mut(population)
                .unwrap()
                .insert(Adam { lr: 0.02, ..Adam::default() })
                .unwrap();
            (0..3).for_each(|_| drop(train(&mut world, population)));
            world.population_mut(population).unwrap().forward(&inputs(3)).unwrap();
            world
                .population_mut(population)
                .unwrap()
                .backward_from(&Array3::<f32>::ones((3, 5, 3)))
                .unwrap();
        }
        let root = world.population(edited).unwrap().models()[1];
        let like = world.population(other).unwrap().models()[1];
        let target = if edits_all { (edited, "").into() } else { Target::from(root) };
        world.target_mut(target.clone()).container().insert(0, Identity).unwrap();
        let gradient = world.module_mut(like).unwrap().gradient::<f32>("2.weight").unwrap();
        assert!(gradient.is_some());
        assert_eq!(world.module_mut(root).unwrap().gradient::<f32>("3.weight").unwrap(), gradient);
        for _ in 0..3 {
            assert_eq!(train(&mut world, edited), train(&mut world, other));
        }
        let weight = world.module_mut(like).unwrap().parameter::<f32>("2.weight").unwrap();
        assert_eq!(world.module_mut(root).unwrap().parameter::<f32>("3.weight").unwrap(), weight);

        // What is new learns, too.
        world.target_mut(target).container().append(Linear::new(3, 3)).unwrap();
        let before = world.module_mut(root).unwrap().parameter::<f32>("4.weight").unwrap();
        train(&mut world, edited);
        assert_ne!(world.module_mut(root).unwrap().parameter::<f32>("4.weight").unwrap(), before);
    }
}

#[test]
fn modes_and_frozen_parameters_move_with_their_modules() {
    let mut world = World::new();
    let brains = world.spawn_population(&two_layers(), 2, Seed(3)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    world.population_mut(brains).unwrap().insert(SGD { lr: 0.1, ..SGD::default() }).unwrap();
    world.module_mut(root).unwrap().set_requires_grad("2.weight", false).unwrap();
    world.module_mut(root).unwrap().container().insert(1, Linear::new(3, 3)).unwrap();
    let names = ["0.weight", "1.weight", "3.weight"];
    let read = |world: &mut World| {
        names.map(|name| world.module_mut(root).unwrap().parameter::<f32>(name).unwrap())
    };
    let before = read(&mut world);
    train(&mut world, brains);
    let after = read(&mut world);
    assert_eq!([0, 1, 2].map(|layer| before[layer] == after[layer]), [false, false, true]);
}

#[test]
fn hooks_follow_their_modules() {
    use std::sync::{Arc, Mutex};
    let mut world = World::new();
    let brains = world.spawn_population(&two_layers(), 2, Seed(3)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let last = world.module_mut(root).unwrap().get_submodule("2").unwrap();
    for (target, who) in [(Target::from(last), "own"), ((brains, "0").into(), "all")] {
        let log = seen.clone();
        let hook = world.target_mut(target).register_forward_hook(move |at, _, _| {
            log.lock().unwrap().push(format!("{who} {}", at.path));
            Ok(None)
        });
        hook.unwrap();
    }
    let calls = |world: &mut World| {
        seen.lock().unwrap().clear();
        world.population_mut(brains).unwrap().forward(&inputs(2)).unwrap();
        let mut calls = seen.lock().unwrap().clone();
        calls.sort();
        calls.dedup();
        calls
    };
    assert_eq!(calls(&mut world), ["all 0", "own 2"]);
    world.population_mut(brains).unwrap().container().insert(0, Identity).unwrap();
    assert_eq!(calls(&mut world), ["all 1", "own 3"]);
    // One model alone: the population's hook stays with the name.
    world.module_mut(root).unwrap().container().remove(0).unwrap();
    assert_eq!(calls(&mut world), ["all 1", "own 2"]);
    world.module_mut(root).unwrap().container().prepend(Identity).unwrap();
    world.population_mut(brains).unwrap().container().remove(1).unwrap();
    assert_eq!(calls(&mut world), ["own 2"]);
    // A module that is taken out and put back brings its hooks.
    let popped = world.module_mut(root).unwrap().container().pop(-1).unwrap();
    assert!(calls(&mut world).is_empty());
    world.module_mut(root).unwrap().container().append(LiveModule(popped.modules[0])).unwrap();
    assert_eq!(calls(&mut world), ["own 2"]);
}

#[test]
fn what_is_popped_can_live_elsewhere() {
    let mut world = World::new();
    let brains = world.spawn_population(&two_layers(), 2, Seed(3)).unwrap().id();
    let (one, other) = (
        world.population(brains).unwrap().models()[0],
        world.population(brains).unwrap().models()[1],
    );
    let weight = world.module_mut(one).unwrap().parameter::<f32>("2.weight").unwrap();
    let layer = world.module_mut(one).unwrap().container().pop(-1).unwrap().modules[0];
    let error =
        world.population_mut(brains).unwrap().container().append(LiveModule(layer)).unwrap_err();
    assert_eq!(error, EditError::OnePlace(layer));
    world.module_mut(other).unwrap().container().insert(0, LiveModule(layer)).unwrap();
    assert_eq!(world.module_mut(other).unwrap().parameter::<f32>("0.weight").unwrap(), weight);
    let error = world.module_mut(one).unwrap().container().append(LiveModule(layer)).unwrap_err();
    assert_eq!(error, EditError::NotApart(layer));
    let doubles = PopulationSettings { dtype: Dtype::F64, ..PopulationSettings::default() };
    let doubles = world.spawn_population_with(&two_layers(), doubles).unwrap().id();
    let double = world.population(doubles).unwrap().models()[0];
    let layer = world.module_mut(other).unwrap().container().pop(0).unwrap().modules[0];
    let error =
        world.module_mut(double).unwrap().container().append(LiveModule(layer)).unwrap_err();
    assert_eq!(error.to_string(), "'weight': expected elements of f64, got f32");
    assert_eq!(world.module_mut(double).unwrap().container().len().unwrap(), 3);
}

#[test]
fn repeated_modules_are_shared_as_in_torch() {
    let mut world = World::new();
    let brains = world.spawn_population(&two_layers(), 2, Seed(3)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    world.module_mut(root).unwrap().container().repeat(2).unwrap();
    // torch: `net *= 2; len(list(net.parameters())), len(net.state_dict())`.
    assert_eq!(world.module_mut(root).unwrap().named_parameters().unwrap().len(), 4);
    assert_eq!(world.module_mut(root).unwrap().state_dict().unwrap().len(), 8);
    let first = world.module_mut(root).unwrap().container().get(0).unwrap();
    assert_eq!(world.module_mut(root).unwrap().container().get(3).unwrap(), first);
    let weight = world.module_mut(root).unwrap().parameter::<f32>("0.weight").unwrap();
    // The module lives on under its other name.
    world.module_mut(root).unwrap().container().remove(0).unwrap();
    assert_eq!(world.module_mut(root).unwrap().container().get(2).unwrap(), first);
    assert_eq!(world.module_mut(root).unwrap().parameter::<f32>("2.weight").unwrap(), weight);
    assert_eq!(world.module_mut(root).unwrap().named_parameters().unwrap().len(), 4);
    world.population_mut(brains).unwrap().forward(&inputs(2)).unwrap();
}

#[test]
fn what_is_used_elsewhere_cannot_go_and_nothing_changes_then() {
    let mut world = World::new();
    let brains = world.spawn_population(&two_layers(), 2, Seed(3)).unwrap().id();
    let roots = world.population(brains).unwrap().models().to_vec();
    world.module_mut(roots[1]).unwrap().tie("2.weight", "0.weight").unwrap();
    let before = world.population_mut(brains).unwrap().forward(&inputs(2)).unwrap();
    let error = world.module_mut(roots[1]).unwrap().container().pop(0).unwrap_err();
    assert_eq!(error.to_string(), "'0' is in use as '2.weight'");
    // Not in all models, hence in none.
    let error = world.population_mut(brains).unwrap().container().remove(0).unwrap_err();
    assert_eq!(error.to_string(), "'0' is in use as '2.weight'");
    assert_eq!(world.module_mut(roots[0]).unwrap().container().len().unwrap(), 3);
    world.population_mut(brains).unwrap().container().insert(1, Identity).unwrap();
    assert_eq!(world.population_mut(brains).unwrap().forward(&inputs(2)).unwrap(), before);
    assert_eq!(world.module_mut(roots[1]).unwrap().named_parameters().unwrap().len(), 3);
    world.population_mut(brains).unwrap().container().remove(Slice::from(..)).unwrap();
    assert_eq!(world.module_mut(roots[1]).unwrap().container().len().unwrap(), 0);
}

#[test]
fn models_of_several_structures_are_edited_together() {
    let mut world = World::new();
    let brains = world.spawn_population(&two_layers(), 3, Seed(3)).unwrap().id();
    let roots = world.population(brains).unwrap().models().to_vec();
    world.module_mut(roots[1]).unwrap().container().append(ReLU).unwrap();
    let popped = world.population_mut(brains).unwrap().container().pop(-1).unwrap();
    // By the models' indices.
    let classes = popped.modules.iter().map(|&module| world.get::<Linear>(module).is_some());
    assert_eq!(classes.collect::<Vec<_>>(), [true, false, true]);
    let lengths =
        roots.iter().map(|&root| world.module_mut(root).unwrap().container().len().unwrap());
    assert_eq!(lengths.collect::<Vec<_>>(), [2, 3, 2]);
    let error = world.population_mut(brains).unwrap().container().remove(2).unwrap_err();
    assert_eq!(error.to_string(), "index 2 is out of range");
    let lengths =
        roots.iter().map(|&root| world.module_mut(root).unwrap().container().len().unwrap());
    assert_eq!(lengths.collect::<Vec<_>>(), [2, 3, 2]);
    let error =
        world.population_mut(brains).unwrap().at("no").container().clear().map(drop).unwrap_err();
    assert_eq!(error.to_string(), "Sequential has no attribute `no`");
    let error = world.population_mut(brains).unwrap().at("0").container().len().unwrap_err();
    assert_eq!(error, EditError::ManyModels(brains));
}

#[test]
fn operations_that_a_module_lacks_are_told_as_in_torch() {
    let mut world = World::new();
    let heads = ModuleDict::from_named([("left", Linear::new(3, 1))]).unwrap();
    let net = BareModule::new().child("heads", heads).child("fc", Linear::new(3, 3));
    let nets = world.spawn_population(&net, 2, Seed(3)).unwrap().id();
    let root = world.population(nets).unwrap().models()[0];
    let (heads, fc) = (
        world.module_mut(root).unwrap().get_submodule("heads").unwrap(),
        world.module_mut(root).unwrap().get_submodule("fc").unwrap(),
    );
    let told = |result: Result<(), EditError>| result.unwrap_err().to_string();
    let text = "'ModuleDict' object has no attribute 'append'";
    assert_eq!(told(world.module_mut(heads).unwrap().container().append(Tanh).map(drop)), text);
    let text = "'Linear' object has no attribute '__len__'";
    assert_eq!(told(world.module_mut(fc).unwrap().container().len().map(drop)), text);
    let text = "torch.FloatTensor is not a Module subclass";
    let numbers = array![1.0_f32];
    assert_eq!(
        told(
            world
                .module_mut(heads)
                .unwrap()
                .container()
                .set("x", Value::tensor(numbers.view()))
                .map(drop)
        ),
        text
    );
    assert!(world.module_mut(heads).unwrap().container().contains("left").unwrap());
    let text = "KeyError: 'right'";
    assert_eq!(told(world.module_mut(heads).unwrap().container().get("right").map(drop)), text);
    // Any module takes children, in all models at once.
    world.population_mut(nets).unwrap().container().add_module("gate", Sigmoid).unwrap();
    world
        .population_mut(nets)
        .unwrap()
        .at("heads")
        .container()
        .update([("right", Linear::new(3, 2))])
        .unwrap();
    let other = world.population(nets).unwrap().models()[1];
    let names =
        world.module_mut(other).unwrap().named_modules().unwrap().into_iter().map(|(name, _)| name);
    let expected = ["", "heads", "heads.left", "heads.right", "fc", "gate"];
    assert_eq!(names.collect::<Vec<_>>(), expected);
    let text = "attribute 'forward' already exists";
    assert_eq!(
        told(world.population_mut(nets).unwrap().container().add_module("forward", Tanh).map(drop)),
        text
    );
    world
        .module_mut(root)
        .unwrap()
        .register_buffer("seen", Value::tensor(numbers.view()), true)
        .unwrap();
    let text = "attribute 'seen' already exists";
    assert_eq!(
        told(world.module_mut(root).unwrap().container().add_module("seen", Tanh).map(drop)),
        text
    );
}

#[test]
fn parameters_of_live_containers_are_given_numbers() {
    let mut world = World::new();
    let gains = ParameterDict::from_named([("a", Parameter::ones([2]))]).unwrap();
    let nets =
        world.spawn_population(&BareModule::new().child("gains", gains), 2, Seed(3)).unwrap().id();
    let root = world.population(nets).unwrap().models()[1];
    let numbers = array![3.0_f32, 4.0];
    world
        .population_mut(nets)
        .unwrap()
        .at("gains")
        .container()
        .set("a", Value::parameter(numbers.view()))
        .unwrap();
    let read =
        |world: &mut World| world.module_mut(root).unwrap().parameter::<f32>("gains.a").unwrap();
    assert_eq!(read(&mut world), numbers.clone().into_dyn());
    world
        .population_mut(nets)
        .unwrap()
        .at("gains")
        .container()
        .set("a", Parameter::ones([2]))
        .unwrap();
    assert_eq!(read(&mut world), ArrayD::<f32>::ones(vec![2]));
    let gains = world.module_mut(root).unwrap().get_submodule("gains").unwrap();
    world
        .module_mut(gains)
        .unwrap()
        .register_parameter("b", Value::parameter(numbers.view()))
        .unwrap();
    let popped = world.module_mut(gains).unwrap().container().pop("b").unwrap();
    assert_eq!(popped.parameters[0].to_array::<f32>(), Some(numbers.clone().into_dyn()));
    assert_eq!(world.module_mut(gains).unwrap().container().keys().unwrap(), ["a"]);
    let counts = Array2::<i64>::zeros((1, 1));
    let error = world
        .module_mut(gains)
        .unwrap()
        .container()
        .set("n", Value::parameter(counts.view()))
        .map(drop);
    let text =
        "parameter 'n': Only Tensors of floating point and complex dtype can require gradients";
    assert_eq!(error.unwrap_err().to_string(), text);
}
