//! Hooks of what a population shares.

use std::sync::{Arc, Mutex};

use neurarch::components::hook::{Callback, HookOptions};
use neurarch::hooks::Target;
use neurarch::prelude::*;
use neurarch::systems::execute::hooks;

use super::{WEIGHT, backward, everything, inputs, loss, net, shared};

#[test]
fn a_gradient_hook_sees_the_sum_once_and_may_change_it() {
    let (mut world, population) = shared(6);
    let (mut other, copy) = shared(6);
    backward(&mut other, copy);
    let root = other.population(copy).unwrap().models()[0];
    let sum = other.module_mut(root).unwrap().gradient::<f32>(WEIGHT).unwrap().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let roots = world.population(population).unwrap().models().to_vec();
    let module = world.module_mut(roots[2]).unwrap().at("0").unwrap().id();
    let told = seen.clone();
    let double = Callback::Gradient(
        "weight".to_owned(),
        Box::new(move |_, _, gradient| {
            told.lock().unwrap().push(gradient.read::<f32>()?);
            Ok(Some(gradient + gradient))
        }),
    );
    hooks::register(&mut world, module, double, HookOptions::default()).unwrap();
    let told = seen.clone();
    let look = Callback::PostAccumulateGrad(
        "weight".to_owned(),
        Box::new(move |_, _, gradient| {
            told.lock().unwrap().push(gradient.read::<f32>()?);
            Ok(())
        }),
    );
    hooks::register(&mut world, (population, "0"), look, HookOptions::default()).unwrap();
    backward(&mut world, population);
    let twice: Vec<_> = sum.iter().map(|x| x + x).collect();
    assert_eq!(*seen.lock().unwrap(), [sum.iter().copied().collect::<Vec<_>>(), twice.clone()]);
    let own = world.module_mut(roots[5]).unwrap().gradient::<f32>(WEIGHT).unwrap().unwrap();
    assert_eq!(own.iter().copied().collect::<Vec<_>>(), twice);
}

#[test]
fn a_hook_of_what_is_shared_that_fails_leaves_everything_as_it_was() {
    let net = || net().push(Dropout { p: 0.4 });
    for watches_all in [false, true] {
        let mut world = World::new();
        let population = world.spawn_population(&net(), 7, Seed(3)).unwrap().id();
        for name in [WEIGHT, "0.bias"] {
            world.population_mut(population).unwrap().share_parameter(name).unwrap();
        }
        world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
        let (x, classes) = inputs(7);
        world.population_mut(population).unwrap().train_step(&x, &classes, &loss()).unwrap();
        backward(&mut world, population);
        let root = world.population(population).unwrap().models()[2];
        let target = match watches_all {
            true => Target::from((population, "0")),
            false => Target::from(world.module_mut(root).unwrap().at("0").unwrap().id()),
        };
        // The weight's gradient comes first, the bias's hook fails.
        let fails = Callback::Gradient("bias".to_owned(), Box::new(|_, _, _| Err("no".into())));
        let handle =
            hooks::register(&mut world, target.clone(), fails, HookOptions::default()).unwrap();
        let before = everything(&mut world, population);
        let error = world
            .population_mut(population)
            .unwrap()
            .train_step(&x, &classes, &loss())
            .unwrap_err();
        assert!(error.to_string().ends_with("gradient hook 0: no"), "{error}");
        assert!(everything(&mut world, population) == before, "a training step");
        let go_back = |world: &mut World| {
            world.population_mut(population).unwrap().forward(&x).unwrap();
            world.population_mut(population).unwrap().loss::<f32, i64>(&classes, &loss()).unwrap();
        };
        go_back(&mut world);
        // The forward pass has drawn numbers.
        let before = everything(&mut world, population);
        world.population_mut(population).unwrap().backward().unwrap_err();
        assert!(everything(&mut world, population) == before, "gradients");
        handle.remove();
        let fails =
            Callback::PostAccumulateGrad("bias".to_owned(), Box::new(|_, _, _| Err("no".into())));
        let handle = hooks::register(&mut world, target, fails, HookOptions::default()).unwrap();
        go_back(&mut world);
        let before = everything(&mut world, population);
        world.population_mut(population).unwrap().backward().unwrap_err();
        assert!(everything(&mut world, population) == before, "gradients after they were added");
        // And on it goes.
        handle.remove();
        go_back(&mut world);
        world.population_mut(population).unwrap().backward().unwrap();
        assert!(everything(&mut world, population) != before);
        world.population_mut(population).unwrap().train_step(&x, &classes, &loss()).unwrap();
    }
}
