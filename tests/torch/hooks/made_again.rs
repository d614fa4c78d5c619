//! Hooks that change something after they only looked, and hooks that fail: passes that were observed are made again.

use std::sync::{Arc, Mutex};

use ndarray::{Array3, ArrayD};
use neurarch::bevy_ecs::prelude::*;
use neurarch::components::hook::Callback;
use neurarch::hooks::At;
use neurarch::prelude::*;

use super::{MODELS, inputs, network, population, targets, weights};

#[test]
fn a_hook_that_fails_or_panics_names_module_and_hook_and_changes_nothing() {
    let (mut world, brains) = population();
    world.population_mut(brains).unwrap().insert(Adam::default()).unwrap();
    let before = weights(&mut world, brains);
    let root = world.population(brains).unwrap().models()[0];
    let module = world.module_mut(root).unwrap().at("1").unwrap().id();
    let failing = world
        .module_mut(module)
        .unwrap()
        .register_forward_pre_hook(|_, _| Err("no".into()))
        .unwrap();
    let loss = CrossEntropyLoss::default();
    let error =
        world.population_mut(brains).unwrap().train_step(&inputs(), &targets(), &loss).unwrap_err();
    assert_eq!(error.to_string(), "1: forward pre-hook 0: no");
    failing.remove();
    let panics = world
        .module_mut(module)
        .unwrap()
        .register_full_backward_hook(|_, _, _| panic!("at the disco"))
        .unwrap()
        .guard();
    let error =
        world.population_mut(brains).unwrap().train_step(&inputs(), &targets(), &loss).unwrap_err();
    assert_eq!(error.to_string(), "1: full backward hook 0: panicked: at the disco");
    drop(panics);
    assert_eq!(weights(&mut world, brains), before);
    let wrong = world
        .module_mut(module)
        .unwrap()
        .register_full_backward_pre_hook(|_, _| Ok(Some(Vec::new())))
        .unwrap();
    world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    let gradient = Array3::<f32>::ones((MODELS, 6, 2));
    let error = world.population_mut(brains).unwrap().backward_from(&gradient).unwrap_err();
    assert!(error.to_string().contains("invalid number"), "{error}");
    wrong.remove();
    world.population_mut(brains).unwrap().train_step(&inputs(), &targets(), &loss).unwrap();
    assert_ne!(weights(&mut world, brains), before);
}

/// Trains a model with a hook of each kind, of which one changes what it sees in its third call. Where `always`, they
/// exchange it for an equal value in all other calls, so that the passes are eager. A step is made in one call, or in
/// one for each pass. Gives weights and running statistics, and how often each hook was called.
fn changed_in_the_third_step(
    which: usize,
    always: bool,
    in_one: bool,
) -> (Vec<ArrayD<f32>>, [usize; 4]) {
    let mut world = World::new();
    let network = network().push(BatchNorm1d::new(2)).push(Dropout { p: 0.5 });
    let brains = world.spawn_population(&network, MODELS, Seed(3)).unwrap().id();
    world.population_mut(brains).unwrap().insert(SGD { lr: 0.1, ..SGD::default() }).unwrap();
    let root = world.population(brains).unwrap().models()[1];
    let calls: Arc<Mutex<[usize; 4]>> = Arc::default();
    let change = |number: usize| {
        let calls = calls.clone();
        move |at: &At<'_>, x: &Var| {
            let mut calls = calls.lock().unwrap();
            calls[number] += 1;
            let own = at.constant(&ArrayD::from_elem(x.shape().to_vec(), 0.25_f32));
            assert_eq!((x + &own).read::<f32>().unwrap().len(), x.shape().numel());
            if calls[number] == 3 && number == which {
                return Some(&(x * 2.0) + &own);
            }
            let other = x.reshape([1, x.shape().numel()]).reshape(x.shape().clone());
            always.then_some(other)
        }
    };
    let module = world.module_mut(root).unwrap().at("1").unwrap().id();
    let below = world.module_mut(root).unwrap().at("0").unwrap().id();
    let [pre, forward, backward, gradient] = [0, 1, 2, 3].map(change);
    world
        .module_mut(module)
        .unwrap()
        .register_forward_pre_hook(move |at, arguments| {
            Ok(pre(at, arguments.leaves()[0]).map(|x| Arguments::each([x])))
        })
        .unwrap();
    world
        .module_mut(module)
        .unwrap()
        .register_forward_hook(move |at, _, y| {
            Ok(forward(at, y.and_then(Tree::leaf).unwrap()).map(Tree::from))
        })
        .unwrap();
    world
        .module_mut(module)
        .unwrap()
        .register_full_backward_hook(move |at, inputs, _| {
            Ok(backward(at, inputs[0].as_ref().unwrap()).map(|dx| vec![Some(dx)]))
        })
        .unwrap();
    world
        .module_mut(below)
        .unwrap()
        .register_parameter_hook("bias", move |at, _, g| Ok(gradient(at, g)))
        .unwrap();
    let loss = CrossEntropyLoss::default();
    for _ in 0..5 {
        if in_one {
            world.population_mut(brains).unwrap().train_step(&inputs(), &targets(), &loss).unwrap();
            continue;
        }
        world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
        world.population_mut(brains).unwrap().loss::<f32, i64>(&targets(), &loss).unwrap();
        world.population_mut(brains).unwrap().backward().unwrap();
        world.population_mut(brains).unwrap().step().unwrap();
        world.population_mut(brains).unwrap().zero_grad().unwrap();
    }
    let calls = *calls.lock().unwrap();
    let mut all = weights(&mut world, brains);
    all.extend(
        ["3.running_mean", "3.running_var"]
            .map(|name| world.population_mut(brains).unwrap().stack(name).unwrap()),
    );
    (all, calls)
}

#[test]
fn a_hook_that_changes_something_later_has_its_answer_taken_and_is_called_once() {
    let runs = [0, 1, 2, 3].map(|which| {
        let observed = changed_in_the_third_step(which, false, true);
        assert_eq!(observed.1, [5; 4]);
        for (always, in_one) in [(true, true), (false, false), (true, false)] {
            assert_eq!(observed, changed_in_the_third_step(which, always, in_one));
        }
        observed.0
    });
    assert!((1..4).all(|which| runs[which] != runs[0]), "each changed something else");
}

#[test]
fn a_hook_that_fails_on_the_way_back_leaves_the_gradients_of_all_models_as_they_were() {
    let gradients = |world: &mut World, brains: Entity| {
        let roots = world.population(brains).unwrap().models().to_vec();
        let of =
            |root: Entity| world.module_mut(root).unwrap().gradient::<f32>("0.weight").unwrap();
        roots.into_iter().map(of).collect::<Vec<_>>()
    };
    let (mut world, brains) = population();
    let roots = world.population(brains).unwrap().models().to_vec();
    world.module_mut(roots[1]).unwrap().register_full_backward_hook(|_, _, _| Ok(None)).unwrap();
    let gradient = Array3::<f32>::ones((MODELS, 6, 2));
    world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    world.population_mut(brains).unwrap().backward_from(&gradient).unwrap();
    let before = gradients(&mut world, brains);
    assert!(before.iter().all(Option::is_some));
    let fails = world
        .module_mut(roots[3])
        .unwrap()
        .register_full_backward_hook(|_, _, _| Err("no".into()))
        .unwrap();
    world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    let error = world.population_mut(brains).unwrap().backward_from(&gradient).unwrap_err();
    assert_eq!(error.to_string(), "Sequential: full backward hook 0: no");
    assert_eq!(gradients(&mut world, brains), before);
    // What the forward pass kept is gone.
    let error = world.population_mut(brains).unwrap().backward_from(&gradient).unwrap_err();
    assert!(matches!(error, StepError::NoForward(_)), "{error}");
    fails.remove();
    world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    world.population_mut(brains).unwrap().backward_from(&gradient).unwrap();
    let twice = before.into_iter().map(|of| of.map(|of| of * 2.0));
    assert_eq!(gradients(&mut world, brains), twice.collect::<Vec<_>>());
}

#[test]
fn a_hook_that_is_always_called_is_called_where_another_fails() {
    let (mut world, brains) = population();
    world.population_mut(brains).unwrap().insert(SGD { lr: 0.1, ..SGD::default() }).unwrap();
    let root = world.population(brains).unwrap().models()[1];
    let seen: Arc<Mutex<Vec<bool>>> = Arc::default();
    let noted = seen.clone();
    let always = HookOptions { always_call: true, ..HookOptions::default() };
    let hook = move |_: &At<'_>, _: &Arguments, result: Option<&Tree>| {
        noted.lock().unwrap().push(result.is_some());
        Ok(None)
    };
    world
        .module_mut(root)
        .unwrap()
        .register_hook_with(Callback::Forward(Box::new(hook)), always)
        .unwrap();
    let child = world.module_mut(root).unwrap().at("1").unwrap().id();
    let calls: Arc<Mutex<usize>> = Arc::default();
    let counted = calls.clone();
    let failing = world.module_mut(child).unwrap().register_forward_pre_hook(move |_, _| {
        *counted.lock().unwrap() += 1;
        Err("no".into())
    });
    let loss = CrossEntropyLoss::default();
    for pass in 0..3 {
        world.set_grad_enabled(pass != 1);
        let error = match pass {
            2 => world
                .population_mut(brains)
                .unwrap()
                .train_step(&inputs(), &targets(), &loss)
                .unwrap_err(),
            _ => world.population_mut(brains).unwrap().forward(&inputs()).unwrap_err(),
        };
        assert_eq!(error.to_string(), "1: forward pre-hook 0: no");
    }
    assert_eq!(
        (std::mem::take(&mut *seen.lock().unwrap()), *calls.lock().unwrap()),
        (vec![false; 3], 3)
    );
    failing.unwrap().remove();
    world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    assert_eq!(*seen.lock().unwrap(), [true]);
}

#[test]
fn a_hook_that_changes_something_and_removes_itself_has_changed_it() {
    let run = |removes_itself: bool| {
        let (mut world, brains) = population();
        world.population_mut(brains).unwrap().insert(SGD { lr: 0.1, ..SGD::default() }).unwrap();
        let root = world.population(brains).unwrap().models()[1];
        let own: Arc<Mutex<Vec<RemovableHandle>>> = Arc::default();
        for factor in [None, Some(2.0), None] {
            let handles = own.clone();
            let hook = world.module_mut(root).unwrap().register_forward_hook(move |_, _, y| {
                if removes_itself {
                    handles.lock().unwrap().remove(0).remove();
                }
                Ok(factor.and_then(|factor| Some((y?.leaf()? * factor).into())))
            });
            own.lock().unwrap().push(hook.unwrap());
        }
        let own = own.lock().unwrap().clone();
        let loss = CrossEntropyLoss::default();
        world.population_mut(brains).unwrap().train_step(&inputs(), &targets(), &loss).unwrap();
        for hook in own {
            hook.remove();
        }
        world.population_mut(brains).unwrap().train_step(&inputs(), &targets(), &loss).unwrap();
        weights(&mut world, brains)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_hook_that_fails_leaves_running_statistics_and_draws_as_they_were() {
    let network = Sequential::new().push(Linear::new(3, 4)).push(BatchNorm1d::new(4));
    let network = network.push(Dropout { p: 0.5 }).push(Linear::new(4, 2));
    let run = |fails: bool| {
        let mut world = World::new();
        let brains = world.spawn_population(&network, MODELS, Seed(3)).unwrap().id();
        world.population_mut(brains).unwrap().insert(Adam::default()).unwrap();
        let root = world.population(brains).unwrap().models()[1];
        let loss = CrossEntropyLoss::default();
        for step in 0..3 {
            if fails && step == 1 {
                let last = world.module_mut(root).unwrap().at("0").unwrap().id();
                let hook = world
                    .module_mut(last)
                    .unwrap()
                    .register_full_backward_hook(|_, _, _| Err("no".into()));
                world
                    .population_mut(brains)
                    .unwrap()
                    .train_step(&inputs(), &targets(), &loss)
                    .unwrap_err();
                hook.unwrap().remove();
            }
            world.population_mut(brains).unwrap().train_step(&inputs(), &targets(), &loss).unwrap();
        }
        let names = ["1.running_mean", "1.running_var", "0.weight", "3.bias"];
        names.map(|name| world.population_mut(brains).unwrap().stack::<f32>(name).unwrap())
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn a_hook_that_fails_in_a_forward_pass_leaves_all_models_as_they_were() {
    let network = Sequential::new().push(Linear::new(3, 4)).push(BatchNorm1d::new(4));
    let network = network.push(Dropout { p: 0.5 });
    let run = |fails: bool, keeps_gradients: bool| {
        let mut world = World::new();
        let brains = world.spawn_population(&network, MODELS, Seed(3)).unwrap().id();
        world.set_grad_enabled(keeps_gradients);
        let roots = world.population(brains).unwrap().models().to_vec();
        world.module_mut(roots[1]).unwrap().register_forward_hook(|_, _, _| Ok(None)).unwrap();
        if fails {
            let hook = world
                .module_mut(roots[3])
                .unwrap()
                .register_forward_hook(|_, _, _| Err("no".into()));
            world.population_mut(brains).unwrap().forward(&inputs()).unwrap_err();
            hook.unwrap().remove();
        }
        let y = world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
        let names = ["1.running_mean", "1.running_var"];
        (y, names.map(|name| world.population_mut(brains).unwrap().stack::<f32>(name).unwrap()))
    };
    for keeps_gradients in [false, true] {
        assert_eq!(run(true, keeps_gradients), run(false, keeps_gradients));
    }
}
