//! Hooks: called in torch's order, their values differentiated, their errors harmless, their neighbors unaware.

use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3, ArrayD};
use neurarch::bevy_ecs::prelude::*;
use neurarch::hooks::{At, Target};
use neurarch::prelude::*;

mod gradients;
mod made_again;
mod non_full;
mod together;

const MODELS: usize = 5;

fn network() -> Sequential {
    Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 2))
}

fn population() -> (World, Entity) {
    let mut world = World::new();
    let population = world.spawn_population(&network(), MODELS, Seed(3)).unwrap().id();
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
        .map(|name| world.population_mut(population).unwrap().stack::<f32>(name).unwrap())
        .to_vec()
}

#[test]
fn hooks_that_only_look_change_no_bit() {
    let run = |hook: bool| {
        let (mut world, brains) = population();
        world.population_mut(brains).unwrap().insert(Adam { lr: 0.01, ..Adam::default() }).unwrap();
        if hook {
            let root = world.population(brains).unwrap().models()[1];
            let module = world.module_mut(root).unwrap().at("2").unwrap().id();
            world.module_mut(module).unwrap().register_forward_hook(|_, _, _| Ok(None)).unwrap();
            world
                .module_mut(module)
                .unwrap()
                .register_full_backward_hook(|_, _, _| Ok(None))
                .unwrap();
        }
        let loss = CrossEntropyLoss::default();
        let mut results = Vec::new();
        for _ in 0..2 {
            results.push(world.population_mut(brains).unwrap().forward(&inputs()).unwrap());
            results.push(
                world.population_mut(brains).unwrap().loss::<f32, i64>(&targets(), &loss).unwrap(),
            );
            world.population_mut(brains).unwrap().backward().unwrap();
            world.population_mut(brains).unwrap().step().unwrap();
            world.population_mut(brains).unwrap().zero_grad().unwrap();
            results.push(
                world
                    .population_mut(brains)
                    .unwrap()
                    .train_step(&inputs(), &targets(), &loss)
                    .unwrap()
                    .into_dyn(),
            );
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
                .population_mut(brains)
                .unwrap()
                .at("1")
                .register_forward_hook(move |_, _, y| {
                    Ok(y.and_then(Tree::leaf).map(|y| (y * f64::from(factor)).into()))
                })
                .unwrap();
        } else {
            let scaled =
                world.population_mut(brains).unwrap().stack::<f32>("2.weight").unwrap() * factor;
            world.population_mut(brains).unwrap().unstack("2.weight", scaled.view()).unwrap();
        }
        world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
        world
            .population_mut(brains)
            .unwrap()
            .backward_from(&Array3::<f32>::ones((MODELS, 6, 2)))
            .unwrap();
        let root = world.population(brains).unwrap().models()[2];
        world.module_mut(root).unwrap().gradient::<f32>("0.weight").unwrap().unwrap()
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
    let root = world.population(brains).unwrap().models()[3];
    let module = world.module_mut(root).unwrap().at("0").unwrap().id();
    let mut handles = Vec::new();
    for target in [Target::from(module), Target::from((brains, "0"))] {
        let seen = seen.clone();
        handles.push(world.target_mut(target).register_forward_hook(move |at, _, y| {
            let y = at.array::<f32>(y.and_then(Tree::leaf).expect("forward gave a value"))?;
            seen.lock().unwrap().push(y.shape().to_vec());
            Ok(None)
        }));
    }
    world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    let shapes = std::mem::take(&mut *seen.lock().unwrap());
    // The hooked model is a cohort of its own, so the population's hook is called for it, too.
    assert_eq!(shapes, [vec![4, 6, 4], vec![1, 6, 4], vec![6, 4]]);
    handles.into_iter().for_each(|handle| assert!(handle.unwrap().remove()));
    world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn a_model_whose_hooks_are_gone_is_with_the_others_when_the_next_pass_begins() {
    let (mut world, brains) = population();
    let third = world.population(brains).unwrap().models()[2];
    let module = world.module_mut(third).unwrap().at("1").unwrap().id();
    let looks =
        world.module_mut(module).unwrap().register_forward_hook(|_, _, _| Ok(None)).unwrap();
    world.population_mut(brains).unwrap().insert(Adam::default()).unwrap();
    world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    assert!(looks.remove());
    let calls: Arc<Mutex<Vec<usize>>> = Arc::default();
    let told = calls.clone();
    let hook = move |at: &At<'_>, _: &[Option<Var>], _: &[Option<Var>]| {
        told.lock().unwrap().push(at.models);
        Ok(None)
    };
    world.population_mut(brains).unwrap().at("1").register_full_backward_hook(hook).unwrap();
    world
        .population_mut(brains)
        .unwrap()
        .train_step(&inputs(), &targets(), &CrossEntropyLoss::default())
        .unwrap();
    assert_eq!(*calls.lock().unwrap(), [MODELS]);
}

#[test]
fn a_step_that_fails_leaves_what_was_recorded_to_be_gone_back_from() {
    let gradients = |is_tried: bool| {
        let (mut world, brains) = population();
        world.population_mut(brains).unwrap().insert(Adam::default()).unwrap();
        let third = world.population(brains).unwrap().models()[2];
        let module = world.module_mut(third).unwrap().at("1").unwrap().id();
        let double = |_: &At<'_>, _: &Arguments, y: Option<&Tree>| {
            Ok(y.and_then(Tree::leaf).map(|y| Tree::from(y * 2.0)))
        };
        let handle = world.module_mut(module).unwrap().register_forward_hook(double).unwrap();
        world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
        assert!(handle.remove());
        if is_tried {
            let targets = Array2::<i64>::zeros((MODELS, 7));
            let loss = CrossEntropyLoss::default();
            world
                .population_mut(brains)
                .unwrap()
                .train_step(&inputs(), &targets, &loss)
                .unwrap_err();
        }
        world
            .population_mut(brains)
            .unwrap()
            .loss::<f32, _>(&targets(), &CrossEntropyLoss::default())
            .unwrap();
        world.population_mut(brains).unwrap().backward().unwrap();
        let models = world.population(brains).unwrap().models().to_vec();
        let of = |root: Entity| {
            world.module_mut(root).unwrap().gradient::<f32>("0.weight").unwrap().unwrap()
        };
        models.into_iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(gradients(true), gradients(false));
}

#[test]
fn a_hook_of_a_parameter_that_comes_between_the_passes_is_told() {
    let (mut world, brains) = population();
    let root = world.population(brains).unwrap().models()[1];
    let module = world.module_mut(root).unwrap().at("0").unwrap().id();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let look = |what: &'static str| {
        let seen = seen.clone();
        move |_: &At<'_>, name: &str, _: &Var| seen.lock().unwrap().push(format!("{what} {name}"))
    };
    let of_bias = look("gradient of");
    world
        .module_mut(module)
        .unwrap()
        .register_parameter_hook("bias", move |at, name, g| {
            of_bias(at, name, g);
            Ok(None)
        })
        .unwrap();
    world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    let of_weight = look("sum of");
    world
        .module_mut(module)
        .unwrap()
        .register_post_accumulate_grad_hook("weight", move |at, name, g| {
            of_weight(at, name, g);
            Ok(())
        })
        .unwrap();
    world
        .population_mut(brains)
        .unwrap()
        .backward_from(&Array3::<f32>::ones((MODELS, 6, 2)))
        .unwrap();
    assert_eq!(*seen.lock().unwrap(), ["gradient of bias", "sum of weight"]);
}

#[test]
fn a_hook_computes_with_what_it_is_given() {
    let (mut world, brains) = population();
    world.population_mut(brains).unwrap().insert(Adam::default()).unwrap();
    let root = world.population(brains).unwrap().models()[1];
    let reads = world.module_mut(root).unwrap().register_forward_hook(|at, _, _| {
        at.trace.module_scalar("p", 0, Dtype::F32);
        Ok(None)
    });
    let loss = CrossEntropyLoss::default();
    let expected = "Sequential: a hook can only compute with what it is given";
    for _ in 0..2 {
        let error = world
            .population_mut(brains)
            .unwrap()
            .train_step(&inputs(), &targets(), &loss)
            .unwrap_err();
        assert_eq!(error.to_string(), expected);
        let error = world.population_mut(brains).unwrap().forward(&inputs()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    reads.unwrap().remove();
    world.population_mut(brains).unwrap().train_step(&inputs(), &targets(), &loss).unwrap();
}

#[test]
fn hooks_of_parameters_see_gradients_and_replace_them() {
    let (mut world, brains) = population();
    let root = world.population(brains).unwrap().models()[1];
    let module = world.module_mut(root).unwrap().at("2").unwrap().id();
    let seen: Arc<Mutex<Vec<ArrayD<f32>>>> = Arc::default();
    world
        .module_mut(module)
        .unwrap()
        .register_parameter_hook("bias", |_, _, g| Ok(Some(g * 0.5)))
        .unwrap();
    let log = seen.clone();
    world
        .module_mut(module)
        .unwrap()
        .register_post_accumulate_grad_hook("bias", move |at, _, g| {
            log.lock().unwrap().push(at.array(g)?);
            Ok(())
        })
        .unwrap();
    for _ in 0..2 {
        world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
        world
            .population_mut(brains)
            .unwrap()
            .backward_from(&Array3::<f32>::ones((MODELS, 6, 2)))
            .unwrap();
    }
    let half = ndarray::arr1(&[3.0_f32, 3.0]).into_dyn();
    assert_eq!(*seen.lock().unwrap(), [half.clone(), &half * 2.0]);
    assert_eq!(world.module_mut(root).unwrap().gradient("2.bias").unwrap(), Some(&half * 2.0));
}

#[test]
fn an_input_that_requires_grad_has_a_gradient_after_backward() {
    let (mut world, brains) = population();
    let x = inputs();
    let dy = Array3::<f32>::ones((MODELS, 6, 2));
    let planned = world.population_mut(brains).unwrap().forward(&x).unwrap();
    world.population_mut(brains).unwrap().backward_from(&dy).unwrap();
    assert_eq!(world.population(brains).unwrap().input_gradient::<f32>().unwrap(), None);
    let of_weights = world
        .module_mut(world.population(brains).unwrap().models()[4])
        .unwrap()
        .gradient::<f32>("0.weight")
        .unwrap();
    world.population_mut(brains).unwrap().zero_grad().unwrap();

    let eager =
        world.population_mut(brains).unwrap().forward(Input::from(&x).requires_grad()).unwrap();
    assert_eq!(world.population(brains).unwrap().input_gradient::<f32>().unwrap(), None);
    world.population_mut(brains).unwrap().backward_from(&dy).unwrap();
    let dx = world.population(brains).unwrap().input_gradient::<f32>().unwrap().unwrap();
    assert_eq!((planned, dx.shape()), (eager, x.shape()));
    let root = world.population(brains).unwrap().models()[4];
    assert_eq!(world.module_mut(root).unwrap().gradient::<f32>("0.weight").unwrap(), of_weights);

    // A small step along one number of one model's input changes the sum of its results by the gradient.
    let mut sum = |by: f32| {
        let mut x = inputs();
        x[[4, 2, 1]] += by;
        world
            .population_mut(brains)
            .unwrap()
            .forward(&x)
            .unwrap()
            .index_axis(ndarray::Axis(0), 4)
            .sum()
    };
    let slope = (sum(0.01) - sum(-0.01)) / 0.02;
    assert!((slope - dx[[4, 2, 1]]).abs() < 1e-3, "{slope} against {}", dx[[4, 2, 1]]);
    assert!(matches!(world.population(brains).unwrap().input_gradient::<f64>(), Ok(None)));
}

#[test]
fn gradients_meet_the_hooks_that_there_were_when_the_module_was_called() {
    let mut world = World::new();
    let brains = world.spawn_population(&network(), 1, Seed(3)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    let module = world.module_mut(root).unwrap().at("1").unwrap().id();
    let seen: Arc<Mutex<Vec<&str>>> = Arc::default();
    let log = |what| {
        let seen = seen.clone();
        move || seen.lock().unwrap().push(what)
    };
    let x = Array3::<f32>::ones((1, 2, 3));
    let dy = Array3::<f32>::ones((1, 2, 2));
    for target in [Target::from(module), Target::All] {
        let before = log("before");
        let first = world.target_mut(target.clone()).register_full_backward_hook(move |_, _, _| {
            before();
            Ok(None)
        });
        world.population_mut(brains).unwrap().forward(&x).unwrap();
        let first = first.unwrap();
        assert!(first.remove());
        let after = log("after");
        let second = world.target_mut(target).register_full_backward_pre_hook(move |_, _| {
            after();
            Ok(None)
        });
        world.population_mut(brains).unwrap().backward_from(&dy).unwrap();
        assert!(!first.remove());
        assert!(second.unwrap().remove());
    }
    // A hook of all modules is called for the root and each of its three children.
    assert_eq!(*seen.lock().unwrap(), ["before"; 5]);
}

#[test]
fn a_hook_that_removes_itself_is_called_once_and_backward_goes_on() {
    let (mut world, brains) = population();
    let root = world.population(brains).unwrap().models()[2];
    let module = world.module_mut(root).unwrap().at("1").unwrap().id();
    for target in [Target::from(module), Target::All] {
        let handle: Arc<Mutex<Option<RemovableHandle>>> = Arc::default();
        let (calls, own) = (Arc::new(Mutex::new(0)), handle.clone());
        let counted = calls.clone();
        let registered = world.target_mut(target).register_forward_pre_hook(move |_, _| {
            *counted.lock().unwrap() += 1;
            assert!(own.lock().unwrap().take().unwrap().remove());
            Ok(None)
        });
        *handle.lock().unwrap() = Some(registered.unwrap());
        world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
        world
            .population_mut(brains)
            .unwrap()
            .backward_from(&Array3::<f32>::ones((MODELS, 6, 2)))
            .unwrap();
        world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
        assert_eq!(*calls.lock().unwrap(), 1);
    }
}

#[derive(Component)]
struct Tag;

#[test]
fn a_watched_model_is_found_wherever_its_rows_move() {
    let run = |hook: bool| {
        let mut world = World::new();
        let brains = world.spawn_population(&network(), 20, Seed(3)).unwrap().id();
        world.population_mut(brains).unwrap().insert(Adam { lr: 0.01, ..Adam::default() }).unwrap();
        let roots = world.population(brains).unwrap().models().to_vec();
        let module = world.module_mut(roots[7]).unwrap().at("2").unwrap().id();
        if hook {
            world.module_mut(module).unwrap().register_forward_hook(|_, _, _| Ok(None)).unwrap();
        }
        let step = |world: &mut World, models: usize| {
            let x = Array3::<f32>::from_shape_fn((models, 6, 3), |(m, i, f)| (m + i * f) as f32);
            let targets = Array2::<i64>::zeros((models, 6));
            world
                .population_mut(brains)
                .unwrap()
                .train_step(&x, &targets, &CrossEntropyLoss::default())
                .unwrap()
                .to_vec()
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
