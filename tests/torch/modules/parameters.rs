//! Parameters that need no gradient from the start, of integers too, and empty ones.

use ndarray::{Array3, ArrayD, array};
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::structure::access::text;
use neurarch::systems::structure::mode;

/// A layer with a fixed scale, and a count of integers among its parameters.
#[derive(Component, Clone, Debug, PartialEq)]
struct Scaled;

impl Module for Scaled {
    fn declare(&self, declare: &mut Declare) {
        declare.parameter("scale", [3]).frozen("scale");
        declare.parameter_of("count", [2], Dtype::I64).frozen("count");
        declare.parameter("weight", [3]);
        declare.parameter("nothing", [0]);
    }

    fn reset(&self, name: &str) -> Init {
        match name {
            "count" => Init::Numbers([3.0, -4.0].into()),
            _ => Init::Constant(0.5),
        }
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        x * call.parameter("scale") * call.parameter("weight")
    }
}

const NAMES: [&str; 4] = ["0.scale", "0.count", "0.weight", "0.nothing"];

fn needs(world: &mut World, root: Entity) -> [bool; 4] {
    NAMES.map(|name| mode::requires_grad(world, root, name).unwrap())
}

fn population() -> (World, Entity, Vec<Entity>) {
    let mut world = World::new();
    let model = Sequential::new().push(Scaled).push(Tanh);
    let models = world.spawn_population(&model, 3, Seed(1)).unwrap().id();
    let roots = world.population(models).unwrap().models().to_vec();
    (world, models, roots)
}

#[test]
fn what_is_declared_without_requires_grad_is_not_trained_until_it_is_asked_for() {
    let (mut world, models, roots) = population();
    assert_eq!(needs(&mut world, roots[0]), [false, false, true, true]);
    world.population_mut(models).unwrap().insert(Adam { lr: 0.1, ..Adam::default() }).unwrap();
    let (x, y) = (Array3::<f32>::ones((3, 4, 3)), Array3::<f32>::zeros((3, 4, 3)));
    for _ in 0..2 {
        world.population_mut(models).unwrap().train_step(&x, &y, &MSELoss::default()).unwrap();
    }
    let scale = world.population_mut(models).unwrap().stack::<f32>("0.scale").unwrap();
    assert_eq!(scale, ArrayD::from_elem(vec![3, 3], 0.5));
    assert!(
        world
            .population_mut(models)
            .unwrap()
            .stack::<f32>("0.weight")
            .unwrap()
            .iter()
            .all(|&w| w < 0.5)
    );
    assert_eq!(
        world.module_mut(roots[2]).unwrap().parameter::<i64>("0.count").unwrap(),
        array![3, -4].into_dyn()
    );
    assert_eq!(world.module_mut(roots[2]).unwrap().parameter::<f32>("0.nothing").unwrap().len(), 0);

    mode::set_requires_grad(&mut world, models, "0.scale", true).unwrap();
    world.population_mut(models).unwrap().train_step(&x, &y, &MSELoss::default()).unwrap();
    assert!(
        world
            .population_mut(models)
            .unwrap()
            .stack::<f32>("0.scale")
            .unwrap()
            .iter()
            .all(|&w| w < 0.5)
    );
    // New models, and what comes into live ones, start as declared.
    let born = world.population_mut(models).unwrap().spawn_models(1).unwrap()[0];
    assert_eq!(needs(&mut world, born), [false, false, true, true]);
    let clone = world.population_mut(models).unwrap().clone_models(&[0]).unwrap()[0];
    assert_eq!(needs(&mut world, clone), [true, false, true, true]);
    world.module_mut(roots[1]).unwrap().add_module("more", Value::module(Scaled)).unwrap();
    assert_eq!(needs(&mut world, roots[1]), [true, false, true, true]);
    assert!(!mode::requires_grad(&mut world, roots[1], "more.scale").unwrap());
    assert!(mode::requires_grad(&mut world, roots[1], "more.weight").unwrap());
}

/// The messages of torch 2.15.
#[test]
fn integers_take_no_gradient() {
    let (mut world, models, roots) = population();
    let words = "only Tensors of floating point dtype can require gradients";
    let error = mode::set_requires_grad(&mut world, models, "0.count", true).unwrap_err();
    assert_eq!(error.to_string(), format!("'0.count': {words}"));
    mode::set_requires_grad(&mut world, models, "0.count", false).unwrap();
    mode::requires_grad_(&mut world, models, false).unwrap();
    let error = mode::requires_grad_(&mut world, models, true).unwrap_err().to_string();
    assert_eq!(error, format!("'0.count': {words}"));
    assert_eq!(needs(&mut world, roots[0]), [false; 4]);

    let words = "Only Tensors of floating point and complex dtype can require gradients";
    let list = ParameterList::from([Parameter::zeros([2]).with_dtype(Dtype::I64)]);
    let error = world.spawn_population(&list, 1, Seed(1)).unwrap_err().to_string();
    assert_eq!(error, format!("ParameterList.0: {words}"));
    let value = || Value::parameter(array![1_i64, 2].view());
    let error = world
        .module_mut(roots[0])
        .unwrap()
        .register_parameter("n", value())
        .unwrap_err()
        .to_string();
    assert_eq!(error, format!("parameter 'n': {words}"));
    world.module_mut(roots[0]).unwrap().register_parameter("n", value().frozen()).unwrap();
    assert_eq!(
        world.module_mut(roots[0]).unwrap().parameter::<i64>("n").unwrap(),
        array![1, 2].into_dyn()
    );
    assert!(!mode::requires_grad(&mut world, roots[0], "n").unwrap());
    assert!(world.module_mut(roots[0]).unwrap().state_dict().unwrap().keys().any(|key| key == "n"));
}

#[test]
fn parameters_of_containers_say_whether_they_need_gradients() {
    let mut world = World::new();
    let whole = Parameter::full([2], 7.0).with_dtype(Dtype::I64).frozen();
    let list =
        ParameterList::from([whole.clone(), Parameter::ones([2]).frozen(), Parameter::empty()]);
    let lists = world.spawn_population(&list, 2, Seed(1)).unwrap().id();
    let root = world.population(lists).unwrap().models()[0];
    let needs = |world: &mut World, name: &str| mode::requires_grad(world, root, name).unwrap();
    assert_eq!(["0", "1", "2"].map(|name| needs(&mut world, name)), [false, false, true]);
    assert_eq!(
        world.module_mut(root).unwrap().parameter::<i64>("0").unwrap(),
        array![7, 7].into_dyn()
    );
    assert_eq!(world.module_mut(root).unwrap().parameter::<f32>("2").unwrap().shape(), [0]);
    world
        .module_mut(root)
        .unwrap()
        .container()
        .append(whole)
        .unwrap()
        .append(Parameter::ones([1]).frozen())
        .unwrap();
    assert_eq!(["0", "3", "4"].map(|name| needs(&mut world, name)), [false; 3]);
    let error = world
        .module_mut(root)
        .unwrap()
        .container()
        .append(Value::tensor(array![1_i64].view()))
        .err()
        .unwrap();
    assert!(error.to_string().contains("can require gradients"), "{error}");
    assert_eq!(
        repr(&ParameterList::from([Parameter::empty()])),
        "ParameterList(  (0): Parameter containing: [torch.float32 of size 0])"
    );
}

/// `repr(parameter)` of torch 2.15.
#[test]
fn a_parameter_of_a_live_model_is_printed_as_in_torch() {
    let (mut world, _, roots) = population();
    let printed = |world: &mut World, name| text(world, roots[1], name).unwrap();
    assert_eq!(
        printed(&mut world, "0.scale"),
        "Parameter containing:\ntensor([0.5000, 0.5000, 0.5000])"
    );
    assert_eq!(printed(&mut world, "0.count"), "Parameter containing:\ntensor([ 3, -4])");
    let weight = "Parameter containing:\ntensor([0.5000, 0.5000, 0.5000], requires_grad=True)";
    assert_eq!(printed(&mut world, "0.weight"), weight);
    let nothing = "Parameter containing:\ntensor([], requires_grad=True)";
    assert_eq!(printed(&mut world, "0.nothing"), nothing);
    assert!(text(&mut world, roots[1], "0.wieght").is_err());
}
