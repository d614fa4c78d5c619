//! Models with equal hooks run together: their hooks are called model by model, and nobody notices.

use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3, ArrayD};
use neurarch::bevy_ecs::prelude::*;
use neurarch::hooks::At;
use neurarch::prelude::*;

use super::{MODELS, inputs, network, population, targets, weights};

/// What hooks were told: the model, which hook, and the first number that it saw.
type Log = Arc<Mutex<Vec<(usize, &'static str, f32)>>>;

fn first(at: &At<'_>, x: &Var) -> f32 {
    at.array::<f32>(x).unwrap().iter().next().copied().unwrap_or(f32::NAN)
}

/// How a run is hooked.
#[derive(Clone, Copy)]
struct How {
    /// Whether hooks exchange what they see for equal values, so that their passes are eager.
    always: bool,
    /// Whether a step is made in one call.
    in_one: bool,
    /// Which hook of models 1 and 3 changes what it sees in its third call; none if there is no such hook.
    which: usize,
    /// Whether hooks draw random numbers, in every second model.
    draws: bool,
}

/// What a model's hook was told: the model, the hook's kind and a number.
type Told = (usize, &'static str, f32);

/// Trains models that have a hook of each kind each. Gives what they were told, their weights and statistics.
fn trained(how: How) -> (Vec<Told>, Vec<ArrayD<f32>>) {
    let mut world = World::new();
    // What a hook draws in the middle of a pass would shift what dropout draws after it.
    let last = Dropout { p: if how.draws { 0.0 } else { 0.5 } };
    let network = network().push(BatchNorm1d::new(2)).push(last);
    let brains = world.spawn_population(&network, MODELS, Seed(3)).unwrap().id();
    world.population_mut(brains).unwrap().insert(Adam { lr: 0.1, ..Adam::default() }).unwrap();
    let log = Log::default();
    for (model, root) in world.population(brains).unwrap().models().to_vec().into_iter().enumerate()
    {
        let hook = |number: usize, what: &'static str| {
            let (log, mut calls) = (log.clone(), 0);
            move |at: &At<'_>, x: &Var| -> Option<Var> {
                calls += 1;
                log.lock().unwrap().push((model, what, first(at, x)));
                if how.draws && model % 2 == 0 {
                    drop(at.trace.rand(Dtype::F32, [2]));
                }
                if calls == 3 && number == how.which && [1, 3].contains(&model) {
                    return Some(x * 2.0);
                }
                let n = x.shape().numel();
                how.always.then(|| x.reshape([1, n]).reshape(x.shape().clone()))
            }
        };
        let (module, below) = (
            world.module_mut(root).unwrap().at("1").unwrap().id(),
            world.module_mut(root).unwrap().at("0").unwrap().id(),
        );
        let mut pre = hook(0, "pre");
        world
            .module_mut(module)
            .unwrap()
            .register_forward_pre_hook(move |at, arguments| {
                Ok(pre(at, arguments.leaves()[0]).map(|x| Arguments::each([x])))
            })
            .unwrap();
        let mut forward = hook(1, "forward");
        world
            .module_mut(module)
            .unwrap()
            .register_forward_hook(move |at, _, y| {
                Ok(forward(at, y.and_then(Tree::leaf).unwrap()).map(Tree::from))
            })
            .unwrap();
        let mut backward = hook(2, "backward");
        world
            .module_mut(module)
            .unwrap()
            .register_full_backward_hook(move |at, inputs, _| {
                Ok(backward(at, inputs[0].as_ref().unwrap()).map(|dx| vec![Some(dx)]))
            })
            .unwrap();
        let mut gradient = hook(3, "gradient");
        world
            .module_mut(below)
            .unwrap()
            .register_parameter_hook("bias", move |at, _, g| Ok(gradient(at, g)))
            .unwrap();
    }
    let loss = CrossEntropyLoss::default();
    for _ in 0..5 {
        if how.in_one {
            world.population_mut(brains).unwrap().train_step(&inputs(), &targets(), &loss).unwrap();
            continue;
        }
        world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
        world.population_mut(brains).unwrap().loss::<f32, i64>(&targets(), &loss).unwrap();
        world.population_mut(brains).unwrap().backward().unwrap();
        world.population_mut(brains).unwrap().step().unwrap();
        world.population_mut(brains).unwrap().zero_grad().unwrap();
    }
    let mut all = weights(&mut world, brains);
    all.extend(
        ["3.running_mean", "3.running_var"]
            .map(|name| world.population_mut(brains).unwrap().stack(name).unwrap()),
    );
    let log = log.lock().unwrap().clone();
    (log, all)
}

#[test]
fn models_that_share_a_pass_compute_what_they_compute_apart() {
    for draws in [false, true] {
        for which in 0..5 {
            let how = |always, in_one| How { always, in_one, which, draws };
            let together = trained(how(false, true));
            assert_eq!(together.0.len(), 5 * 4 * MODELS);
            assert_eq!(together, trained(how(true, true)));
            let calls = trained(how(false, false));
            assert_eq!(calls.1, together.1);
            assert_eq!(calls, trained(how(true, false)));
        }
    }
}

#[test]
fn hooks_are_called_in_the_order_of_models_whatever_hooks_these_have() {
    let (mut world, brains) = population();
    world.population_mut(brains).unwrap().insert(SGD::default()).unwrap();
    let log: Arc<Mutex<Vec<(usize, &str)>>> = Arc::default();
    let paths = [&["0", "2"][..], &["1"], &["0", "2"], &["1"], &["2", "0"]];
    for ((model, root), paths) in
        world.population(brains).unwrap().models().to_vec().into_iter().enumerate().zip(paths)
    {
        for &path in paths {
            let (log, module) =
                (log.clone(), world.module_mut(root).unwrap().at(path).unwrap().id());
            let look = move |_: &At<'_>, _: &Arguments, _: Option<&Tree>| {
                log.lock().unwrap().push((model, path));
            };
            world.module_mut(module).unwrap().register_forward_hook(look).unwrap();
        }
    }
    let of = [(0, "0"), (0, "2"), (1, "1"), (2, "0"), (2, "2"), (3, "1"), (4, "0"), (4, "2")];
    world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    assert_eq!(std::mem::take(&mut *log.lock().unwrap()), of);
    world
        .population_mut(brains)
        .unwrap()
        .train_step(&inputs(), &targets(), &CrossEntropyLoss::default())
        .unwrap();
    assert_eq!(std::mem::take(&mut *log.lock().unwrap()), of);
}

#[test]
fn a_hook_that_returns_nothing_only_looks() {
    let run = |is_hooked: bool| {
        let (mut world, brains) = population();
        world.population_mut(brains).unwrap().insert(Adam::default()).unwrap();
        let log: Arc<Mutex<Vec<&str>>> = Arc::default();
        let note = |what: &'static str| {
            let log = log.clone();
            move || log.lock().unwrap().push(what)
        };
        for root in world.population(brains).unwrap().models().to_vec() {
            if !is_hooked {
                continue;
            }
            let module = world.module_mut(root).unwrap().at("2").unwrap().id();
            let [a, b, c, d, e, f] =
                ["pre", "forward", "back pre", "back", "gradient", "sum"].map(note);
            world.module_mut(module).unwrap().register_forward_pre_hook(move |_, _| a()).unwrap();
            world.module_mut(module).unwrap().register_forward_hook(move |_, _, _| b()).unwrap();
            world
                .module_mut(module)
                .unwrap()
                .register_full_backward_pre_hook(move |_, _| c())
                .unwrap();
            world
                .module_mut(module)
                .unwrap()
                .register_full_backward_hook(move |_, _, _| d())
                .unwrap();
            world
                .module_mut(module)
                .unwrap()
                .register_parameter_hook("bias", move |_, _, _| e())
                .unwrap();
            world
                .module_mut(module)
                .unwrap()
                .register_post_accumulate_grad_hook("bias", move |_, _, _| f())
                .unwrap();
        }
        let loss = CrossEntropyLoss::default();
        let mut results = Vec::new();
        for _ in 0..2 {
            results.push(world.population_mut(brains).unwrap().forward(&inputs()).unwrap());
            world.population_mut(brains).unwrap().loss::<f32, i64>(&targets(), &loss).unwrap();
            world.population_mut(brains).unwrap().backward().unwrap();
            world.population_mut(brains).unwrap().step().unwrap();
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
        let log = log.lock().unwrap().clone();
        (results, log)
    };
    let (results, told) = run(true);
    assert_eq!(results, run(false).0);
    assert_eq!(told.len(), 4 * 6 * MODELS);
    assert_eq!(told[..4], ["pre", "forward", "pre", "forward"]);
    let of_step = ["pre", "forward", "back pre", "gradient", "back", "sum"];
    let last = &told[told.len() - 6..];
    assert!(of_step.iter().all(|what| last.contains(what)), "{last:?}");
}

#[test]
fn a_hook_that_only_looks_and_panics_is_an_error_that_names_it() {
    let (mut world, brains) = population();
    world.population_mut(brains).unwrap().insert(SGD::default()).unwrap();
    for (model, root) in world.population(brains).unwrap().models().to_vec().into_iter().enumerate()
    {
        world
            .module_mut(root)
            .unwrap()
            .register_forward_hook(move |_, _, _| assert_ne!(model, 2, "no"))
            .unwrap();
    }
    let loss = CrossEntropyLoss::default();
    let words = "Sequential: forward hook 0: panicked";
    let error = world
        .population_mut(brains)
        .unwrap()
        .train_step(&inputs(), &targets(), &loss)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with(words), "{error}");
    let error = world.population_mut(brains).unwrap().forward(&inputs()).unwrap_err().to_string();
    assert!(error.starts_with(words), "{error}");
}

#[test]
fn a_hook_that_fails_leaves_all_models_that_run_with_it_as_they_were() {
    let run = |fails: bool| {
        let (mut world, brains) = population();
        world.population_mut(brains).unwrap().insert(Adam { lr: 0.1, ..Adam::default() }).unwrap();
        let (fail, calls) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(0)));
        for (model, root) in
            world.population(brains).unwrap().models().to_vec().into_iter().enumerate()
        {
            let (fail, calls) = (fail.clone(), calls.clone());
            world
                .module_mut(root)
                .unwrap()
                .register_forward_hook(move |_, _, _| {
                    *calls.lock().unwrap() += 1;
                    match *fail.lock().unwrap() && model == 3 {
                        true => Err("no".into()),
                        false => Ok(None),
                    }
                })
                .unwrap();
        }
        let loss = CrossEntropyLoss::default();
        for step in 0..3 {
            if fails && step == 1 {
                *fail.lock().unwrap() = true;
                let before = *calls.lock().unwrap();
                world
                    .population_mut(brains)
                    .unwrap()
                    .train_step(&inputs(), &targets(), &loss)
                    .unwrap_err();
                assert_eq!(*calls.lock().unwrap() - before, 4, "the fourth model's fails");
                *fail.lock().unwrap() = false;
            }
            world.population_mut(brains).unwrap().train_step(&inputs(), &targets(), &loss).unwrap();
        }
        weights(&mut world, brains)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn models_that_ran_together_go_back_apart() {
    let run = |way: usize| {
        let (mut world, brains) = population();
        let roots = world.population(brains).unwrap().models().to_vec();
        let log: Arc<Mutex<Vec<usize>>> = Arc::default();
        for (model, &root) in roots.iter().enumerate() {
            let (log, module) =
                (log.clone(), world.module_mut(root).unwrap().at("1").unwrap().id());
            world
                .module_mut(module)
                .unwrap()
                .register_full_backward_hook(move |_, _, _| {
                    log.lock().unwrap().push(model);
                    Ok(None)
                })
                .unwrap();
        }
        world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
        // A hook that comes in between makes one model's hooks others; two do so twice; and one alike those of others.
        for &model in [&[][..], &[1], &[1, 3], &[3, 1, 0]][way] {
            let module = world.module_mut(roots[model]).unwrap().at("0").unwrap().id();
            world
                .module_mut(module)
                .unwrap()
                .register_parameter_hook("bias", |_, _, _| Ok(None))
                .unwrap();
            world
                .population_mut(brains)
                .unwrap()
                .loss::<f32, i64>(&targets(), &CrossEntropyLoss::default())
                .unwrap();
        }
        world
            .population_mut(brains)
            .unwrap()
            .backward_from(&Array3::<f32>::ones((MODELS, 6, 2)))
            .unwrap();
        assert_eq!(*log.lock().unwrap(), [0, 1, 2, 3, 4]);
        let gradient = |&root: &Entity| {
            world.module_mut(root).unwrap().gradient::<f32>("0.weight").unwrap().unwrap()
        };
        let gradients: Vec<_> = roots.iter().map(gradient).collect();
        log.lock().unwrap().clear();
        world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
        world
            .population_mut(brains)
            .unwrap()
            .backward_from(&Array3::<f32>::ones((MODELS, 6, 2)))
            .unwrap();
        assert_eq!(*log.lock().unwrap(), [0, 1, 2, 3, 4]);
        gradients
    };
    let expected = run(0);
    assert!((1..4).all(|way| run(way) == expected));
}

#[test]
fn models_with_hooks_may_come_and_go_between_a_pass_and_its_way_back() {
    let (mut world, brains) = population();
    let roots = world.population(brains).unwrap().models().to_vec();
    let log: Arc<Mutex<Vec<usize>>> = Arc::default();
    for (model, &root) in roots.iter().enumerate() {
        let log = log.clone();
        world
            .module_mut(root)
            .unwrap()
            .register_full_backward_hook(move |_, _, _| log.lock().unwrap().push(model))
            .unwrap();
    }
    let y = world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    world.despawn(roots[1]);
    let left = world.population(brains).unwrap().models().len();
    world
        .population_mut(brains)
        .unwrap()
        .backward_from(&Array3::<f32>::ones((left, 6, 2)))
        .unwrap();
    let mut told = std::mem::take(&mut *log.lock().unwrap());
    told.sort_unstable();
    assert_eq!(told, [0, 2, 3, 4]);
    let (mut other, alone) = population();
    assert_eq!(other.population_mut(alone).unwrap().forward(&inputs()).unwrap(), y);
    other
        .population_mut(alone)
        .unwrap()
        .backward_from(&Array3::<f32>::ones((MODELS, 6, 2)))
        .unwrap();
    let twins = other.population(alone).unwrap().models().to_vec();
    for model in [0, 2, 3, 4] {
        let of = |world: &mut World, root| {
            world.module_mut(root).unwrap().gradient::<f32>("2.weight").unwrap().unwrap()
        };
        assert_eq!(of(&mut world, roots[model]), of(&mut other, twins[model]));
    }
}

#[test]
fn a_value_that_a_hook_keeps_is_gone_when_the_next_model_has_its_turn() {
    let (mut world, brains) = population();
    let roots = world.population(brains).unwrap().models().to_vec();
    let kept: Arc<Mutex<Vec<bool>>> = Arc::default();
    std::thread_local! {
        static VALUE: std::cell::RefCell<Option<Var>> = const { std::cell::RefCell::new(None) };
    }
    for &root in &roots {
        let kept = kept.clone();
        world
            .module_mut(root)
            .unwrap()
            .register_forward_hook(move |_, _, y| {
                let before = VALUE.with_borrow_mut(|value| {
                    value.replace(y.and_then(Tree::leaf).cloned().unwrap())
                });
                let is_there = before.is_some_and(|value| value.read::<f32>().is_ok());
                kept.lock().unwrap().push(is_there);
            })
            .unwrap();
    }
    world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    assert_eq!(*kept.lock().unwrap(), [false; MODELS]);
    VALUE.with_borrow_mut(Option::take);
}

#[test]
fn hooks_of_some_models_are_removed_and_the_others_are_called() {
    let (mut world, brains) = population();
    world.population_mut(brains).unwrap().insert(SGD::default()).unwrap();
    let log: Arc<Mutex<Vec<usize>>> = Arc::default();
    let mut handles = Vec::new();
    for (model, root) in world.population(brains).unwrap().models().to_vec().into_iter().enumerate()
    {
        let log = log.clone();
        let hook = world
            .module_mut(root)
            .unwrap()
            .register_forward_hook(move |_, _, _| log.lock().unwrap().push(model));
        handles.push(hook.unwrap());
    }
    let x = Array3::<f32>::ones((MODELS, 1, 3));
    let y = Array2::<i64>::zeros((MODELS, 1));
    let told = |world: &mut World| {
        world
            .population_mut(brains)
            .unwrap()
            .train_step(&x, &y, &CrossEntropyLoss::default())
            .unwrap();
        std::mem::take(&mut *log.lock().unwrap())
    };
    assert_eq!(told(&mut world), [0, 1, 2, 3, 4]);
    assert!(handles[1].remove() && handles[4].remove());
    assert_eq!(told(&mut world), [0, 2, 3]);
    let root = world.population(brains).unwrap().models()[2];
    world.entity_mut(root).remove::<neurarch::components::hook::Hooks>();
    assert_eq!(told(&mut world), [0, 3]);
    let roots = world.population(brains).unwrap().models().to_vec();
    let other =
        world.module_mut(roots[0]).unwrap().register_forward_hook(|_, _, _| Ok(None)).unwrap();
    assert_eq!(told(&mut world), [0, 3]);
    other.remove();
    handles.iter().for_each(|handle| {
        handle.remove();
    });
    assert!(told(&mut world).is_empty());
}

#[test]
fn only_models_whose_hooks_draw_go_on_in_their_random_numbers() {
    let (mut world, brains) = population();
    world.population_mut(brains).unwrap().insert(SGD::default()).unwrap();
    let drawn: Arc<Mutex<Vec<Vec<f32>>>> = Arc::default();
    let roots = world.population(brains).unwrap().models().to_vec();
    for (model, &root) in roots.iter().enumerate() {
        let drawn = drawn.clone();
        world
            .module_mut(root)
            .unwrap()
            .register_forward_hook(move |at, _, _| {
                if model % 2 == 0 {
                    let numbers = at.trace.rand(Dtype::F32, [2]).read().unwrap();
                    drawn.lock().unwrap().push(numbers);
                }
            })
            .unwrap();
    }
    for _ in 0..2 {
        world
            .population_mut(brains)
            .unwrap()
            .train_step(&inputs(), &targets(), &CrossEntropyLoss::default())
            .unwrap();
    }
    let draws =
        |root: &Entity| world.get::<neurarch::components::module::mode::Draws>(*root).unwrap().0;
    assert_eq!(roots.iter().map(draws).collect::<Vec<_>>(), [2, 0, 2, 0, 2]);
    let drawn = drawn.lock().unwrap();
    assert_eq!(drawn.len(), 6);
    for (number, numbers) in drawn.iter().enumerate() {
        assert!(drawn[..number].iter().all(|before| before != numbers));
    }
}
