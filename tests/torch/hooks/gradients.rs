//! Hooks of gradients: a training step calls all of them, and what they give is checked in torch's words.

use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3, ArrayD};
use neurarch::hooks::{At, Target};
use neurarch::prelude::*;

/// Everything that the models have, bit for bit.
fn state(world: &mut World, population: Entity) -> Vec<Tensor> {
    world.population_mut(population).unwrap().stacked_state_dict().unwrap().into_iter().collect()
}

fn train(world: &mut World, population: Entity) -> Result<(), StepError> {
    let (x, y) = (Array3::<f32>::ones((3, 4, 2)), Array2::<i64>::zeros((3, 4)));
    world.population_mut(population)?.train_step(&x, &y, &CrossEntropyLoss::default()).map(drop)
}

#[test]
fn a_training_step_tells_hooks_of_the_gradient_that_it_accumulated() {
    type Seen = Arc<Mutex<Vec<(String, ArrayD<f32>)>>>;
    let hook = |world: &mut World, target: Target, seen: &Seen| {
        for name in ["weight", "bias"] {
            let seen = seen.clone();
            let look = move |at: &At<'_>, name: &str, g: &Var| {
                seen.lock().unwrap().push((name.to_owned(), at.array::<f32>(g)?));
                Ok(())
            };
            world
                .target_mut(target.clone())
                .register_post_accumulate_grad_hook(name, look)
                .unwrap();
        }
    };
    let spawn = || {
        let mut world = World::new();
        let layers = world.spawn_population(&Linear::new(2, 2), 3, Seed(1)).unwrap().id();
        world.population_mut(layers).unwrap().insert(Adam::default()).unwrap();
        (world, layers)
    };
    let x = Array3::from_shape_fn((3, 4, 2), |(m, i, j)| (m * 5 + i * 3 + j) as f32 / 7.0);
    let y = Array2::<i64>::from_shape_fn((3, 4), |(m, i)| ((m + i) % 2) as i64);
    let loss = CrossEntropyLoss::default();
    for of_one in [true, false] {
        // One hook scales the gradient, so that the step is made op by op.
        for changes in [false, true] {
            let run = |in_parts: bool| {
                let (mut world, layers) = spawn();
                let root = world.population(layers).unwrap().models()[1];
                let target = if of_one { root.into() } else { (layers, "").into() };
                let seen = Seen::default();
                hook(&mut world, target, &seen);
                if changes {
                    let double = |_: &At<'_>, _: &str, g: &Var| Ok(Some(g * 2.0));
                    world
                        .population_mut(layers)
                        .unwrap()
                        .register_parameter_hook("bias", double)
                        .unwrap();
                }
                for _ in 0..2 {
                    if in_parts {
                        world.population_mut(layers).unwrap().zero_grad().unwrap();
                        world.population_mut(layers).unwrap().forward(&x).unwrap();
                        world.population_mut(layers).unwrap().loss::<f32, i64>(&y, &loss).unwrap();
                        world.population_mut(layers).unwrap().backward().unwrap();
                        world.population_mut(layers).unwrap().step().unwrap();
                    } else {
                        world.population_mut(layers).unwrap().train_step(&x, &y, &loss).unwrap();
                    }
                }
                let seen = std::mem::take(&mut *seen.lock().unwrap());
                (seen, state(&mut world, layers))
            };
            let (fused, parts) = (run(false), run(true));
            assert_eq!(fused.0.len(), 4);
            assert_eq!(fused, parts);
        }
    }
    // One that fails leaves everything as it was.
    let (mut world, layers) = spawn();
    let before = state(&mut world, layers);
    world
        .population_mut(layers)
        .unwrap()
        .register_post_accumulate_grad_hook("weight", |_, _, _| Err("no".into()))
        .unwrap();
    let error =
        world.population_mut(layers).unwrap().train_step(&x, &y, &loss).unwrap_err().to_string();
    assert_eq!(error, "Linear: post-accumulate-grad hook 0: no");
    assert_eq!(state(&mut world, layers), before);
}

#[test]
fn what_a_hook_gives_in_the_place_of_gradients_is_checked_in_torchs_words() {
    let net = || Sequential::new().push(Linear::new(2, 2)).push(Tanh).push(Linear::new(2, 2));
    let run = |register: &dyn Fn(&mut World, Entity)| {
        let mut world = World::new();
        let nets = world.spawn_population(&net(), 3, Seed(1)).unwrap().id();
        world.population_mut(nets).unwrap().insert(SGD::default()).unwrap();
        register(&mut world, nets);
        let before = state(&mut world, nets);
        let error = train(&mut world, nets).unwrap_err().to_string();
        assert_eq!(state(&mut world, nets), before);
        world.population_mut(nets).unwrap().forward(&Array3::<f32>::ones((3, 4, 2))).unwrap();
        world
            .population_mut(nets)
            .unwrap()
            .loss::<f32, i64>(&Array2::zeros((3, 4)), &CrossEntropyLoss::default())
            .unwrap();
        let backward = world.population_mut(nets).unwrap().backward().unwrap_err().to_string();
        assert_eq!(error, backward);
        error
    };
    for (count, words) in [(0, "got 0, but expected 1"), (2, "got 2, but expected 1")] {
        let error = run(&|world, nets| {
            let hook = move |_: &At<'_>, of: &[Option<Var>]| Ok(Some(vec![of[0].clone(); count]));
            world
                .population_mut(nets)
                .unwrap()
                .at("1")
                .register_full_backward_pre_hook(hook)
                .unwrap();
        });
        let expected =
            format!("Backward pre hook returned an invalid number of grad_output, {words}");
        assert!(error.contains(&expected), "{error}");
        let error = run(&|world, nets| {
            let hook = move |_: &At<'_>, of: &[Option<Var>], _: &[Option<Var>]| {
                Ok(Some(vec![of[0].clone(); count]))
            };
            world.population_mut(nets).unwrap().at("1").register_full_backward_hook(hook).unwrap();
        });
        let expected = format!("Backward hook returned an invalid number of grad_input, {words}");
        assert!(error.contains(&expected), "{error}");
    }
    // The first layer's input needs no gradient.
    let error = run(&|world, nets| {
        let hook =
            |_: &At<'_>, _: &[Option<Var>], of: &[Option<Var>]| Ok(Some(vec![of[0].clone()]));
        world.population_mut(nets).unwrap().at("0").register_full_backward_hook(hook).unwrap();
    });
    let expected = "Backward hook for Modules where no input requires gradient should always return None or None for \
                    all gradients.";
    assert!(error.contains(expected), "{error}");
    let size = run(&|world, nets| {
        let hook = |_: &At<'_>, _: &str, g: &Var| Ok(Some(g.sum(&[0], false)));
        world
            .population_mut(nets)
            .unwrap()
            .at("0")
            .register_parameter_hook("weight", hook)
            .unwrap();
    });
    assert!(size.contains("hook has changed the size of value"), "{size}");
    let ty = run(&|world, nets| {
        let hook = |_: &At<'_>, _: &str, g: &Var| Ok(Some(g.to(Dtype::F64)));
        world
            .population_mut(nets)
            .unwrap()
            .at("0")
            .register_parameter_hook("weight", hook)
            .unwrap();
    });
    let words = "hook has changed the type of value (was torch.FloatTensor got torch.DoubleTensor)";
    assert!(ty.contains(words), "{ty}");
}
