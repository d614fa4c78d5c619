//! Which gradients there are, and when: in evaluation mode as in training mode, from some results, with gradients
//! off; training steps of models with several inputs.

use ndarray::{Array2, Array3, ArrayD, Axis};
use neurarch::bevy_ecs::prelude::*;
use neurarch::components::losses::LossCall;
use neurarch::prelude::*;

const MODELS: usize = 3;

fn network() -> Sequential {
    let network = Sequential::new().push(Linear::new(3, 4)).push(BatchNorm1d::new(4)).push(Tanh);
    network.push(Dropout { p: 0.5 }).push(Linear::new(4, 2))
}

fn population() -> (World, Entity) {
    let mut world = World::new();
    let settings =
        PopulationSettings { models: MODELS, dtype: Dtype::F64, ..PopulationSettings::default() };
    let population = world.spawn_population_with(&network(), settings).unwrap().id();
    // Running statistics that are not those of any batch.
    for (name, least) in [("1.running_mean", 0.2), ("1.running_var", 0.7)] {
        let values = Array2::from_shape_fn((MODELS, 4), |(m, i)| least + 0.1 * (m + 2 * i) as f64);
        world.population_mut(population).unwrap().unstack(name, values.view()).unwrap();
    }
    (world, population)
}

fn inputs(features: usize) -> Array3<f64> {
    let number = |(m, i, f)| ((m * 5 + i * 3 + f * 2) % 7) as f64 / 3.0 - 1.0;
    Array3::from_shape_fn((MODELS, 5, features), number)
}

fn targets() -> Array2<i64> {
    Array2::from_shape_fn((MODELS, 5), |(m, i)| ((m + i) % 2) as i64)
}

#[test]
fn in_evaluation_mode_gradients_are_those_of_running_statistics_without_dropout() {
    let (mut world, brains) = population();
    world.population_mut(brains).unwrap().eval().unwrap();
    let loss = CrossEntropyLoss::default();
    let root = world.population(brains).unwrap().models()[1];
    let losses = |world: &mut World| -> f64 {
        world.population_mut(brains).unwrap().forward(&inputs(3)).unwrap();
        world.population_mut(brains).unwrap().loss::<f64, i64>(&targets(), &loss).unwrap()[[1]]
    };
    losses(&mut world);
    let before = world.population_mut(brains).unwrap().stack::<f64>("1.running_mean").unwrap();
    world.population_mut(brains).unwrap().backward().unwrap();
    assert_eq!(
        world.population_mut(brains).unwrap().stack::<f64>("1.running_mean").unwrap(),
        before
    );
    for name in world.module_mut(root).unwrap().parameter_names().unwrap() {
        let gradient = world.module_mut(root).unwrap().gradient::<f64>(&name).unwrap().unwrap();
        let value = world.module_mut(root).unwrap().parameter::<f64>(&name).unwrap();
        for (place, &gradient) in gradient.iter().enumerate() {
            let mut slope = 0.0;
            for (by, sign) in [(1e-5, 1.0), (-1e-5, -1.0)] {
                let mut moved = value.clone();
                moved.as_slice_mut().unwrap()[place] += by;
                world.module_mut(root).unwrap().set_parameter(&name, moved.view()).unwrap();
                slope += sign * losses(&mut world) / 2e-5;
            }
            assert!((slope - gradient).abs() < 1e-8, "{name} {place}: {slope}, {gradient}");
        }
        world.module_mut(root).unwrap().set_parameter(&name, value.view()).unwrap();
    }
}

#[test]
fn without_gradients_a_forward_pass_gives_the_same_and_keeps_nothing() {
    let (mut world, brains) = population();
    world.population_mut(brains).unwrap().eval().unwrap();
    let y = world.population_mut(brains).unwrap().forward(&inputs(3)).unwrap();
    for hook in [false, true] {
        let root = world.population(brains).unwrap().models()[0];
        let handle =
            world.module_mut(root).unwrap().register_forward_hook(|_, _, _| Ok(None)).unwrap();
        if !hook {
            assert!(handle.remove());
        }
        let x = inputs(3);
        let asked = Input::from(&x).requires_grad();
        assert_eq!(world.no_grad(|world| world.population_mut(brains)?.forward(asked)).unwrap(), y);
        assert!(world.population_mut(brains).unwrap().backward_from(&y).is_err());
        world.set_grad_enabled(false);
        world.no_grad(|world| world.population_mut(brains)?.forward(&x)).unwrap();
        assert!(
            world.population_mut(brains).unwrap().backward_from(&y).is_err(),
            "what was off stays off"
        );
        world.set_grad_enabled(true);
        world.population_mut(brains).unwrap().forward(&x).unwrap();
        world.population_mut(brains).unwrap().backward_from(&y).unwrap();
    }
}

/// An encoder of two values; a head for each of two results.
#[derive(Component, Clone, Debug, PartialEq)]
struct Heads;

impl Module for Heads {
    fn declare(&self, declare: &mut Declare) {
        declare.child("left", Linear::new(3, 4)).child("right", Linear::new(2, 4));
        declare.child("first", Linear::new(4, 2)).child("second", Linear::new(4, 2));
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([left, right]) = call.values(arguments) else {
            return call.trace.poison().into();
        };
        let both = (call.child("left", &left) + call.child("right", &right)).tanh();
        (call.child("first", &both), call.child("second", &both)).into()
    }
}

/// The mean square of the first result's distance from the target, and of the second result.
#[derive(Clone, Debug, PartialEq)]
struct Both;

impl Loss for Both {
    fn forward_with(&self, call: &LossCall<'_>, result: Tree, target: &Var) -> Var {
        let [first, second] = result.leaves()[..] else {
            return call.trace.fail("expected two values");
        };
        (first - target).square().mean(&[], false) + second.square().mean(&[], false)
    }
}

fn heads() -> (World, Entity) {
    let mut world = World::new();
    let settings =
        PopulationSettings { models: MODELS, dtype: Dtype::F64, ..PopulationSettings::default() };
    let population = world.spawn_population_with(&Heads, settings).unwrap().id();
    (world, population)
}

#[test]
fn parameters_that_no_given_gradient_reaches_get_none() {
    let (left, right, dy) = (inputs(3), inputs(2), inputs(2));
    for is_watched in [false, true] {
        let (mut world, heads) = heads();
        if is_watched {
            world
                .population_mut(heads)
                .unwrap()
                .register_full_backward_hook(|_, _, outputs| {
                    let is_given: Vec<_> = outputs.iter().map(Option::is_some).collect();
                    if is_given == [false, true] { Ok(None) } else { Err("which are there".into()) }
                })
                .unwrap();
        }
        let arguments = Arguments::each([AnyInput::from(&left), AnyInput::from(&right)]);
        world.population_mut(heads).unwrap().forward_with::<f64>(arguments).unwrap();
        world
            .population_mut(heads)
            .unwrap()
            .backward_with(&[None, Some(AnyInput::from(&dy))])
            .unwrap();
        let root = world.population(heads).unwrap().models()[2];
        let has = |name: &String| {
            world.module_mut(root).unwrap().gradient::<f64>(name).unwrap().is_some()
        };
        let names = ["left.weight", "right.bias", "first.weight", "first.bias", "second.weight"];
        let has: Vec<_> = names.map(String::from).iter().map(has).collect();
        assert_eq!(has, [true, true, false, false, true]);
    }
}

#[test]
fn a_step_of_several_inputs_is_forward_loss_backward_and_step() {
    let (left, right, target) = (inputs(3), inputs(2), inputs(2));
    let weights = |world: &mut World, heads: Entity| -> Vec<ArrayD<f64>> {
        let names = ["left.weight", "right.weight", "first.bias", "second.weight"];
        names.map(|name| world.population_mut(heads).unwrap().stack::<f64>(name).unwrap()).to_vec()
    };
    let arguments = || Arguments::each([AnyInput::from(&left), AnyInput::from(&right)]);
    let (mut whole, a) = heads();
    let (mut parts, b) = heads();
    for (world, heads) in [(&mut whole, a), (&mut parts, b)] {
        world.population_mut(heads).unwrap().insert(SGD { lr: 0.1, ..SGD::default() }).unwrap();
    }
    let losses = whole
        .population_mut(a)
        .unwrap()
        .train_step_with::<f64, f64>(arguments(), &target, &Both)
        .unwrap();
    let result = parts.population_mut(b).unwrap().forward_with::<f64>(arguments()).unwrap();
    let [first, second] = result.leaves()[..] else { panic!("{result:?}") };
    let apart = first - &target.view().into_dyn();
    let squares = |y: &ArrayD<f64>| y.mapv(|y| y * y).index_axis(Axis(0), 1).mean().unwrap();
    assert!((losses[1] - squares(&apart) - squares(second)).abs() < 1e-12);
    let (apart, second) = (apart * 0.2, second * 0.2);
    parts
        .population_mut(b)
        .unwrap()
        .backward_with(&[Some((&apart).into()), Some((&second).into())])
        .unwrap();
    parts.population_mut(b).unwrap().step().unwrap();
    for (whole, parts) in weights(&mut whole, a).iter().zip(&weights(&mut parts, b)) {
        assert!((whole - parts).iter().all(|x| x.abs() < 1e-12));
    }
    let few = Arguments::each([AnyInput::from(&left)]);
    let error = whole
        .population_mut(a)
        .unwrap()
        .train_step_with::<f64, f64>(few, &target, &Both)
        .unwrap_err();
    assert!(error.to_string().contains("takes 3 positional arguments but 2 were given"), "{error}");
    let error = whole.population_mut(a).unwrap().train_step_with::<f64, f64>(
        arguments(),
        &target,
        &MSELoss::default(),
    );
    assert!(error.unwrap_err().to_string().contains("expected one Tensor, got tuple"));
}
