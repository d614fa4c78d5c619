//! Models that come, go and change between the calls of a step.

use ndarray::{Array2, Array3, ArrayD, Axis};
use neurarch::hooks::At;
use neurarch::prelude::*;
use neurarch::systems::execute::step::StepError;

fn inputs(models: usize) -> Array3<f32> {
    Array3::from_shape_fn((models, 5, 4), |(m, i, j)| {
        ((m * 7 + i * 3 + j * 5) % 11) as f32 / 11.0 - 0.4
    })
}

fn targets(models: usize) -> Array2<i64> {
    Array2::from_shape_fn((models, 5), |(m, i)| ((m * 2 + i) % 3) as i64)
}

fn spawn(world: &mut World, models: usize) -> Entity {
    let model = Sequential::new().push(Linear::new(4, 8)).push(Tanh).push(Linear::new(8, 3));
    // Asks in which mode it is.
    let model = model.push(Dropout { p: 0.0 });
    world.spawn_population(&model, models, Seed(1)).unwrap().id()
}

fn loss(
    world: &mut World,
    population: Entity,
    targets: &Array2<i64>,
) -> Result<ArrayD<f32>, StepError> {
    world.population_mut(population)?.loss(targets, &CrossEntropyLoss::default())
}

/// How the forward passes are made.
#[derive(Clone, Copy, Debug)]
enum Way {
    Planned,
    InputGradient,
    Observed,
    Changed,
    /// A model with hooks of its own runs apart.
    OneHooked,
}

const WAYS: [Way; 5] =
    [Way::Planned, Way::InputGradient, Way::Observed, Way::Changed, Way::OneHooked];

/// Runs `models` models forward that way.
fn forward(world: &mut World, population: Entity, way: Way) {
    let root = world.population(population).unwrap().models()[1];
    match way {
        Way::Planned | Way::InputGradient => {}
        Way::Observed => {
            world
                .population_mut(population)
                .unwrap()
                .at("0")
                .register_forward_hook(|_, _, _| Ok(None))
                .unwrap();
            world
                .population_mut(population)
                .unwrap()
                .at("0")
                .register_full_backward_hook(|_, _, _| Ok(None))
                .unwrap();
        }
        Way::Changed => {
            let double = |_: &At<'_>, gradients: &[Option<Var>], _: &[Option<Var>]| {
                Ok(Some(gradients.iter().map(|of| of.as_ref().map(|of| of * 2.0)).collect()))
            };
            world
                .population_mut(population)
                .unwrap()
                .at("2")
                .register_full_backward_hook(double)
                .unwrap();
        }
        Way::OneHooked => {
            world.module_mut(root).unwrap().register_forward_hook(|_, _, _| Ok(None)).unwrap();
        }
    }
    let x = inputs(world.population(population).unwrap().models().len());
    let input = Input::from(&x);
    let is_asked = matches!(way, Way::InputGradient);
    world
        .population_mut(population)
        .unwrap()
        .forward(if is_asked { input.requires_grad() } else { input })
        .unwrap();
}

/// What is left of a backward pass: gradients by root, and those of the inputs.
fn gradients(world: &mut World, population: Entity) -> Vec<(Entity, Vec<u32>, Option<Vec<u32>>)> {
    let roots = world.population(population).unwrap().models().to_vec();
    let of_inputs = world.population(population).unwrap().input_gradient::<f32>().unwrap();
    let of = |(index, root): (usize, Entity)| {
        let mut all = Vec::new();
        for name in ["0.weight", "0.bias", "2.weight", "2.bias"] {
            let gradient = world.module_mut(root).unwrap().gradient::<f32>(name).unwrap().unwrap();
            all.extend(gradient.iter().map(|x| x.to_bits()));
        }
        let of_inputs = of_inputs.as_ref().map(|of| of.index_axis(Axis(0), index));
        (root, all, of_inputs.map(|of| of.iter().map(|x| x.to_bits()).collect()))
    };
    roots.into_iter().enumerate().map(of).collect()
}

#[test]
fn models_that_are_left_after_a_despawn_get_their_own_losses_and_gradients() {
    for way in WAYS {
        for gone in [vec![0], vec![1], vec![4], vec![0, 3], vec![2, 1, 0]] {
            let mut whole = World::new();
            let p = spawn(&mut whole, 5);
            forward(&mut whole, p, way);
            let all_losses = loss(&mut whole, p, &targets(5)).unwrap();
            whole.population_mut(p).unwrap().backward().unwrap();
            let expected = gradients(&mut whole, p);

            for after_loss in [false, true] {
                let mut world = World::new();
                let p = spawn(&mut world, 5);
                let roots = world.population(p).unwrap().models().to_vec();
                forward(&mut world, p, way);
                if after_loss {
                    loss(&mut world, p, &targets(5)).unwrap();
                }
                gone.iter().for_each(|&model| assert!(world.despawn(roots[model])));
                let left = world.population(p).unwrap().models().to_vec();
                let old: Vec<_> = left
                    .iter()
                    .map(|root| roots.iter().position(|of| of == root).unwrap())
                    .collect();
                if !after_loss {
                    let losses = loss(&mut world, p, &targets(5).select(Axis(0), &old)).unwrap();
                    assert_eq!(losses, all_losses.select(Axis(0), &old), "{way:?} {gone:?}");
                }
                world.population_mut(p).unwrap().backward().unwrap();
                let found = gradients(&mut world, p);
                for (found, &old) in found.iter().zip(&old) {
                    assert_eq!(
                        found.1, expected[old].1,
                        "{way:?} {gone:?}: gradient of model {old}"
                    );
                    assert_eq!(
                        found.2, expected[old].2,
                        "{way:?} {gone:?}: of the input of model {old}"
                    );
                }
            }
        }
    }
}

#[test]
fn gradients_of_inputs_follow_the_models_after_the_backward_pass() {
    let mut world = World::new();
    let p = spawn(&mut world, 3);
    let root = world.population(p).unwrap().models()[0];
    forward(&mut world, p, Way::InputGradient);
    loss(&mut world, p, &targets(3)).unwrap();
    world.population_mut(p).unwrap().backward().unwrap();
    let all = world.population(p).unwrap().input_gradient::<f32>().unwrap().unwrap();
    world.despawn(root);
    let left = world.population(p).unwrap().input_gradient::<f32>().unwrap().unwrap();
    assert_eq!(left, all.select(Axis(0), &[2, 1]));
    world.population_mut(p).unwrap().clone_models(&[0]).unwrap();
    assert_eq!(
        world.population(p).unwrap().input_gradient::<f32>(),
        Err(StepError::Spawned { model: 2 })
    );
}

#[test]
fn a_model_that_did_not_run_is_named() {
    type Change = fn(&mut World, Entity);
    let spawned = StepError::Spawned { model: 2 };
    let edited = |model| StepError::Edited { model };
    let cases: [(Change, StepError); 6] = [
        (
            |world, p| drop(world.population_mut(p).unwrap().clone_models(&[0]).unwrap()),
            spawned.clone(),
        ),
        (|world, p| drop(world.population_mut(p).unwrap().spawn_models(1).unwrap()), spawned),
        (
            |world, p| {
                // As many as before.
                let root = world.population(p).unwrap().models()[0];
                world.despawn(root);
                world.population_mut(p).unwrap().clone_models(&[0]).unwrap();
            },
            StepError::Spawned { model: 1 },
        ),
        (
            |world, p| {
                let root = world.population(p).unwrap().models()[1];
                world.module_mut(root).unwrap().container().append(Tanh).unwrap();
            },
            edited(1),
        ),
        (
            |world, p| {
                world.population_mut(p).unwrap().at("2").weight_norm("weight", Some(0)).unwrap()
            },
            edited(0),
        ),
        (
            |world, p| {
                // Another module of the same structure.
                let root = world.population(p).unwrap().models()[1];
                world.module_mut(root).unwrap().container().set(0, Linear::new(4, 8)).unwrap();
            },
            edited(1),
        ),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        for way in WAYS {
            let mut world = World::new();
            let p = spawn(&mut world, 2);
            world.population_mut(p).unwrap().insert(GradScaler::default()).unwrap();
            forward(&mut world, p, way);
            loss(&mut world, p, &targets(2)).unwrap();
            change(&mut world, p);
            let n = world.population(p).unwrap().models().len();
            assert_eq!(loss(&mut world, p, &targets(n)), Err(expected.clone()), "{number} {way:?}");
            assert_eq!(
                world.population_mut(p).unwrap().backward(),
                Err(expected.clone()),
                "{number} {way:?}"
            );
            let gradient = Array3::<f32>::ones((n, 5, 3));
            assert_eq!(
                world.population_mut(p).unwrap().backward_from(&gradient),
                Err(expected.clone()),
                "{number} {way:?}"
            );
            let scaled = world.population_mut(p).unwrap().scale_loss().unwrap_err().to_string();
            let is_named = scaled == expected.to_string() || scaled.contains("has no GradScaler");
            assert!(is_named, "{number} {way:?}: {scaled}");
            forward(&mut world, p, Way::Planned);
            loss(&mut world, p, &targets(n)).unwrap();
            world.population_mut(p).unwrap().backward().unwrap();
        }
    }
}

#[test]
fn a_model_that_was_asleep_is_named_and_spawned_ones_may_go_again() {
    let mut world = World::new();
    let p = spawn(&mut world, 3);
    let root = world.population(p).unwrap().models()[1];
    world.module_mut(root).unwrap().set_active(false).unwrap();
    forward(&mut world, p, Way::Planned);
    world.module_mut(root).unwrap().set_active(true).unwrap();
    assert_eq!(loss(&mut world, p, &targets(3)), Err(StepError::Activated { model: 1 }));
    world.module_mut(root).unwrap().set_active(false).unwrap();
    let expected = loss(&mut world, p, &targets(3)).unwrap();
    let clones = world.population_mut(p).unwrap().clone_models(&[0, 2]).unwrap();
    assert_eq!(world.population_mut(p).unwrap().backward(), Err(StepError::Spawned { model: 3 }));
    clones.into_iter().for_each(|root| assert!(world.despawn(root)));
    assert_eq!(loss(&mut world, p, &targets(3)).unwrap(), expected);
    world.population_mut(p).unwrap().backward().unwrap();
}

#[test]
fn a_forward_pass_that_fails_leaves_the_one_before_it() {
    for way in WAYS {
        let mut worlds = [World::new(), World::new()];
        let [expected, found] = worlds.each_mut().map(|world| {
            let p = spawn(world, 2);
            forward(world, p, way);
            (world, p)
        });
        let (world, p) = found;
        assert!(world.population_mut(p).unwrap().forward(&Array3::<f32>::ones((2, 5, 3))).is_err());
        assert!(world.population_mut(p).unwrap().forward(&Array3::<f32>::ones((3, 5, 4))).is_err());
        let hook = world
            .population_mut(p)
            .unwrap()
            .at("2")
            .register_forward_hook(|_, _, _| Err("no".into()))
            .unwrap();
        assert!(world.population_mut(p).unwrap().forward(&Array3::<f32>::ones((2, 7, 4))).is_err());
        hook.remove();
        let results = [expected, (world, p)].map(|(world, p)| {
            let losses = loss(world, p, &targets(2)).unwrap();
            world.population_mut(p).unwrap().backward().unwrap();
            (losses, gradients(world, p).into_iter().map(|of| (of.1, of.2)).collect::<Vec<_>>())
        });
        assert_eq!(results[0], results[1], "{way:?}");
    }
}

#[test]
fn a_mode_that_no_module_asks_for_changes_nothing() {
    let found = [false, true].map(|toggles| {
        let mut world = World::new();
        let model = Sequential::new().push(Linear::new(4, 8)).push(Tanh).push(Linear::new(8, 3));
        let p = world.spawn_population(&model, 3, Seed(1)).unwrap().id();
        forward(&mut world, p, Way::Planned);
        loss(&mut world, p, &targets(3)).unwrap();
        if toggles {
            let root = world.population(p).unwrap().models()[1];
            world.module_mut(root).unwrap().eval().unwrap();
        }
        world.population_mut(p).unwrap().backward().unwrap();
        gradients(&mut world, p).into_iter().map(|of| (of.1, of.2)).collect::<Vec<_>>()
    });
    assert_eq!(found[0], found[1]);
}

#[test]
fn a_backward_pass_that_fails_leaves_the_loss() {
    let mut world = World::new();
    let p = spawn(&mut world, 2);
    forward(&mut world, p, Way::Planned);
    loss(&mut world, p, &targets(2)).unwrap();
    world.population_mut(p).unwrap().eval().unwrap();
    assert_eq!(
        world.population_mut(p).unwrap().backward_from(&Array3::<f32>::ones((2, 5, 3))),
        Err(StepError::Changed)
    );
    world.population_mut(p).unwrap().train().unwrap();
    world.population_mut(p).unwrap().backward().unwrap();
    let found = gradients(&mut world, p);
    let mut world = World::new();
    let p = spawn(&mut world, 2);
    forward(&mut world, p, Way::Planned);
    loss(&mut world, p, &targets(2)).unwrap();
    world.population_mut(p).unwrap().backward().unwrap();
    assert_eq!(found, gradients(&mut world, p));
}
