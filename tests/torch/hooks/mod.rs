//! Hooks: called in torch's order, their values differentiated, their errors harmless, their neighbors unaware.

use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3, ArrayD};
use neurarch::bevy_ecs::prelude::*;
use neurarch::prelude::*;

mod gradients;
mod made_again;
mod together;

const MODELS: usize = 5;

fn network() -> Sequential {
    Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 2))
}

fn population() -> (World, Entity) {
    let mut world = World::new();
    let population = world.spawn_population(&network(), MODELS, Seed(3)).unwrap();
    (world, population)
}

fn inputs() -> Array3<f32> {
    Array3::from_shape_fn((MODELS, 6, 3), |(m, i, f)| ((m * 5 + i * 3 + f) % 7) as f32 / 3.0 - 1.0)
}

fn targets() -> Array2<i64> {
    Array2::from_shape_fn((MODELS, 6), |(m, i)| ((m + i) % 2) as i64)
}

fn weights(world: &mut World, population: Entity) -> Vec<ArrayD<f32>> {
    ["0.weight", "0.bias", "2.weight", "2.bias"]
        .map(|name| world.stack::<f32>(population, name).unwrap())
        .to_vec()
}

#[test]
fn hooks_that_only_look_change_no_bit() {
    let run = |hook: bool| {
        let (mut world, brains) = population();
        world.insert(brains, Adam { lr: 0.01, ..Adam::default() }).unwrap();
        if hook {
            let root = world.models(brains).unwrap()[1];
            let module = world.module(root, "2").unwrap();
            world.register_forward_hook(module, |_, _, _| Ok(None)).unwrap();
            world.register_full_backward_hook(module, |_, _, _| Ok(None)).unwrap();
        }
        let loss = CrossEntropyLoss::default();
        let mut results = Vec::new();
        for _ in 0..2 {
            results.push(world.forward(brains, &inputs()).unwrap());
            results.push(world.loss::<f32, i64>(brains, &targets(), &loss).unwrap());
            world.backward(brains).unwrap();
            world.step(brains).unwrap();
            world.zero_grad(brains).unwrap();
            results
                .push(world.train_step(brains, &inputs(), &targets(), &loss).unwrap().into_dyn());
        }
        results.extend(weights(&mut world, brains));
        results
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn what_a_hook_returns_is_differentiated() {
    let gradient = |factor: f32, hook: bool| {
        let (mut world, brains) = population();
        if hook {
            world
                .register_forward_hook((brains, "1"), move |_, _, y| {
                    Ok(y.and_then(Tree::leaf).map(|y| (y * f64::from(factor)).into()))
                })
                .unwrap();
        } else {
            let scaled = world.stack::<f32>(brains, "2.weight").unwrap() * factor;
            world.unstack(brains, "2.weight", scaled.view()).unwrap();
        }
        world.forward(brains, &inputs()).unwrap();
        world.backward_from(brains, &Array3::<f32>::ones((MODELS, 6, 2))).unwrap();
        let root = world.models(brains).unwrap()[2];
        world.gradient::<f32>(root, "0.weight").unwrap().unwrap()
    };
    let (hooked, scaled) = (gradient(2.0, true), gradient(2.0, false));
    // Products by 2 are exact.
    assert_eq!(hooked, scaled);
    assert_ne!(hooked, gradient(1.0, false));
}

#[test]
fn a_hook_of_one_model_sees_that_model_alone_and_one_of_all_sees_all_at_once() {
    let (mut world, brains) = population();
    let seen: Arc<Mutex<Vec<Vec<usize>>>> = Arc::default();
    let root = world.models(brains).unwrap()[3];
    let module = world.module(root, "0").unwrap();
    let mut handles = Vec::new();
    for target in [Target::from(module), Target::from((brains, "0"))] {
        let seen = seen.clone();
        handles.push(world.register_forward_hook(target, move |at, _, y| {
            let y = at.array::<f32>(y.and_then(Tree::leaf).expect("forward gave a value"))?;
            seen.lock().unwrap().push(y.shape().to_vec());
            Ok(None)
        }));
    }
    world.forward(brains, &inputs()).unwrap();
    let shapes = std::mem::take(&mut *seen.lock().unwrap());
    // The hooked model is a cohort of its own, so the population's hook is called for it, too.
    assert_eq!(shapes, [vec![4, 6, 4], vec![1, 6, 4], vec![6, 4]]);
    handles.into_iter().for_each(|handle| assert!(handle.unwrap().remove()));
    world.forward(brains, &inputs()).unwrap();
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn a_model_whose_hooks_are_gone_is_with_the_others_when_the_next_pass_begins() {
    let (mut world, brains) = population();
    let third = world.models(brains).unwrap()[2];
    let module = world.module(third, "1").unwrap();
    let looks = world.register_forward_hook(module, |_, _, _| Ok(None)).unwrap();
    world.insert(brains, Adam::default()).unwrap();
    world.forward(brains, &inputs()).unwrap();
    assert!(looks.remove());
    let calls: Arc<Mutex<Vec<usize>>> = Arc::default();
    let told = calls.clone();
    let hook = move |at: &At<'_>, _: &[Option<Var>], _: &[Option<Var>]| {
        told.lock().unwrap().push(at.models);
        Ok(None)
    };
    world.register_full_backward_hook((brains, "1"), hook).unwrap();
    world.train_step(brains, &inputs(), &targets(), &CrossEntropyLoss::default()).unwrap();
    assert_eq!(*calls.lock().unwrap(), [MODELS]);
}

#[test]
fn a_step_that_fails_leaves_what_was_recorded_to_be_gone_back_from() {
    let gradients = |is_tried: bool| {
        let (mut world, brains) = population();
        world.insert(brains, Adam::default()).unwrap();
        let third = world.models(brains).unwrap()[2];
        let module = world.module(third, "1").unwrap();
        let double = |_: &At<'_>, _: &Arguments, y: Option<&Tree>| {
            Ok(y.and_then(Tree::leaf).map(|y| Tree::from(y * 2.0)))
        };
        let handle = world.register_forward_hook(module, double).unwrap();
        world.forward(brains, &inputs()).unwrap();
        assert!(handle.remove());
        if is_tried {
            let targets = Array2::<i64>::zeros((MODELS, 7));
            let loss = CrossEntropyLoss::default();
            world.train_step(brains, &inputs(), &targets, &loss).unwrap_err();
        }
        world.loss::<f32, _>(brains, &targets(), &CrossEntropyLoss::default()).unwrap();
        world.backward(brains).unwrap();
        let models = world.models(brains).unwrap().to_vec();
        let of = |root: Entity| world.gradient::<f32>(root, "0.weight").unwrap().unwrap();
        models.into_iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(gradients(true), gradients(false));
}

#[test]
fn a_hook_of_a_parameter_that_comes_between_the_passes_is_told() {
    let (mut world, brains) = population();
    let root = world.models(brains).unwrap()[1];
    let module = world.module(root, "0").unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let look = |what: &'static str| {
        let seen = seen.clone();
        move |_: &At<'_>, name: &str, _: &Var| seen.lock().unwrap().push(format!("{what} {name}"))
    };
    let of_bias = look("gradient of");
    world
        .register_parameter_hook(module, "bias", move |at, name, g| {
            of_bias(at, name, g);
            Ok(None)
        })
        .unwrap();
    world.forward(brains, &inputs()).unwrap();
    let of_weight = look("sum of");
    world
        .register_post_accumulate_grad_hook(module, "weight", move |at, name, g| {
            of_weight(at, name, g);
            Ok(())
        })
        .unwrap();
    world.backward_from(brains, &Array3::<f32>::ones((MODELS, 6, 2))).unwrap();
    assert_eq!(*seen.lock().unwrap(), ["gradient of bias", "sum of weight"]);
}

#[test]
fn a_hook_computes_with_what_it_is_given() {
    let (mut world, brains) = population();
    world.insert(brains, Adam::default()).unwrap();
    let root = world.models(brains).unwrap()[1];
    let reads = world.register_forward_hook(root, |at, _, _| {
        at.trace.module_scalar("p", 0, Dtype::F32);
        Ok(None)
    });
    let loss = CrossEntropyLoss::default();
    let expected = "Sequential: a hook can only compute with what it is given";
    for _ in 0..2 {
        let error = world.train_step(brains, &inputs(), &targets(), &loss).unwrap_err();
        assert_eq!(error.to_string(), expected);
        let error = world.forward(brains, &inputs()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    reads.unwrap().remove();
    world.train_step(brains, &inputs(), &targets(), &loss).unwrap();
}

#[test]
fn hooks_of_parameters_see_gradients_and_replace_them() {
    let (mut world, brains) = population();
    let root = world.models(brains).unwrap()[1];
    let module = world.module(root, "2").unwrap();
    let seen: Arc<Mutex<Vec<ArrayD<f32>>>> = Arc::default();
    world.register_parameter_hook(module, "bias", |_, _, g| Ok(Some(g * 0.5))).unwrap();
    let log = seen.clone();
    world
        .register_post_accumulate_grad_hook(module, "bias", move |at, _, g| {
            log.lock().unwrap().push(at.array(g)?);
            Ok(())
        })
        .unwrap();
    for _ in 0..2 {
        world.forward(brains, &inputs()).unwrap();
        world.backward_from(brains, &Array3::<f32>::ones((MODELS, 6, 2))).unwrap();
    }
    let half = ndarray::arr1(&[3.0_f32, 3.0]).into_dyn();
    assert_eq!(*seen.lock().unwrap(), [half.clone(), &half * 2.0]);
    assert_eq!(world.gradient(root, "2.bias").unwrap(), Some(&half * 2.0));
}

#[test]
fn an_input_that_requires_grad_has_a_gradient_after_backward() {
    let (mut world, brains) = population();
    let x = inputs();
    let dy = Array3::<f32>::ones((MODELS, 6, 2));
    let planned = world.forward(brains, &x).unwrap();
    world.backward_from(brains, &dy).unwrap();
    assert_eq!(world.input_gradient::<f32>(brains).unwrap(), None);
    let of_weights = world.gradient::<f32>(world.models(brains).unwrap()[4], "0.weight").unwrap();
    world.zero_grad(brains).unwrap();

    let eager = world.forward(brains, Input::from(&x).requires_grad()).unwrap();
    assert_eq!(world.input_gradient::<f32>(brains).unwrap(), None);
    world.backward_from(brains, &dy).unwrap();
    let dx = world.input_gradient::<f32>(brains).unwrap().unwrap();
    assert_eq!((planned, dx.shape()), (eager, x.shape()));
    let root = world.models(brains).unwrap()[4];
    assert_eq!(world.gradient::<f32>(root, "0.weight").unwrap(), of_weights);

    // A small step along one number of one model's input changes the sum of its results by the gradient.
    let mut sum = |by: f32| {
        let mut x = inputs();
        x[[4, 2, 1]] += by;
        world.forward(brains, &x).unwrap().index_axis(ndarray::Axis(0), 4).sum()
    };
    let slope = (sum(0.01) - sum(-0.01)) / 0.02;
    assert!((slope - dx[[4, 2, 1]]).abs() < 1e-3, "{slope} against {}", dx[[4, 2, 1]]);
    assert!(matches!(world.input_gradient::<f64>(brains), Ok(None)));
}

#[test]
fn gradients_meet_the_hooks_that_there_were_when_the_module_was_called() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), 1, Seed(3)).unwrap();
    let root = world.models(brains).unwrap()[0];
    let module = world.module(root, "1").unwrap();
    let seen: Arc<Mutex<Vec<&str>>> = Arc::default();
    let log = |what| {
        let seen = seen.clone();
        move || seen.lock().unwrap().push(what)
    };
    let x = Array3::<f32>::ones((1, 2, 3));
    let dy = Array3::<f32>::ones((1, 2, 2));
    for target in [Target::from(module), Target::All] {
        let before = log("before");
        let first = world.register_full_backward_hook(target.clone(), move |_, _, _| {
            before();
            Ok(None)
        });
        world.forward(brains, &x).unwrap();
        let first = first.unwrap();
        assert!(first.remove());
        let after = log("after");
        let second = world.register_full_backward_pre_hook(target, move |_, _| {
            after();
            Ok(None)
        });
        world.backward_from(brains, &dy).unwrap();
        assert!(!first.remove());
        assert!(second.unwrap().remove());
    }
    // A hook of all modules is called for the root and each of its three children.
    assert_eq!(*seen.lock().unwrap(), ["before"; 5]);
}

#[test]
fn a_hook_that_removes_itself_is_called_once_and_backward_goes_on() {
    let (mut world, brains) = population();
    let root = world.models(brains).unwrap()[2];
    let module = world.module(root, "1").unwrap();
    for target in [Target::from(module), Target::All] {
        let handle: Arc<Mutex<Option<RemovableHandle>>> = Arc::default();
        let (calls, own) = (Arc::new(Mutex::new(0)), handle.clone());
        let counted = calls.clone();
        let registered = world.register_forward_pre_hook(target, move |_, _| {
            *counted.lock().unwrap() += 1;
            assert!(own.lock().unwrap().take().unwrap().remove());
            Ok(None)
        });
        *handle.lock().unwrap() = Some(registered.unwrap());
        world.forward(brains, &inputs()).unwrap();
        world.backward_from(brains, &Array3::<f32>::ones((MODELS, 6, 2))).unwrap();
        world.forward(brains, &inputs()).unwrap();
        assert_eq!(*calls.lock().unwrap(), 1);
    }
}

#[derive(Component)]
struct Tag;

#[test]
fn a_watched_model_is_found_wherever_its_rows_move() {
    let run = |hook: bool| {
        let mut world = World::new();
        let brains = world.spawn_population(&network(), 20, Seed(3)).unwrap();
        world.insert(brains, Adam { lr: 0.01, ..Adam::default() }).unwrap();
        let roots = world.models(brains).unwrap().to_vec();
        let module = world.module(roots[7], "2").unwrap();
        if hook {
            world.register_forward_hook(module, |_, _, _| Ok(None)).unwrap();
        }
        let step = |world: &mut World, models: usize| {
            let x = Array3::<f32>::from_shape_fn((models, 6, 3), |(m, i, f)| (m + i * f) as f32);
            let targets = Array2::<i64>::zeros((models, 6));
            world.train_step(brains, &x, &targets, &CrossEntropyLoss::default()).unwrap().to_vec()
        };
        let mut losses = step(&mut world, 20);
        world.entity_mut(module).insert(Tag);
        losses.extend(step(&mut world, 20));
        world.entity_mut(roots[3]).insert(Tag);
        losses.extend(step(&mut world, 20));
        world.despawn(roots[5]);
        losses.extend(step(&mut world, 19));
        world.entity_mut(module).remove::<Tag>();
        losses.extend(step(&mut world, 19));
        (losses, weights(&mut world, brains))
    };
    assert_eq!(run(false), run(true));
}
