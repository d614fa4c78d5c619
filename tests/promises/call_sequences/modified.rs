//! Parameters that are written to between a forward pass and the way back from it.

use ndarray::{Array2, Array3, ArrayD, IxDyn};
use neurarch::components::column::{ColumnKey, Columns};
use neurarch::kernels::ir::program::Role;
use neurarch::kernels::ir::shape::Type;
use neurarch::prelude::*;
use neurarch::systems::execute::step::StepError;

fn spawn(world: &mut World, models: usize) -> Entity {
    let model = Sequential::new().push(Linear::new(4, 8)).push(Tanh).push(Linear::new(8, 3));
    let population = world.spawn_population(&model, models, Seed(1)).unwrap();
    world.insert(population, SGD { lr: 1.0, ..SGD::default() }).unwrap();
    population
}

fn x(models: usize) -> Array3<f32> {
    Array3::from_shape_fn((models, 5, 4), |(m, i, j)| {
        ((m * 7 + i * 3 + j * 5) % 11) as f32 / 11.0 - 0.4
    })
}

fn y(models: usize) -> Array2<i64> {
    Array2::from_shape_fn((models, 5), |(m, i)| ((m + i) % 3) as i64)
}

type Deed = fn(&mut World, Entity, &[Entity]);

/// Makes a deed between loss and backward; gives the answer and the gradients of the first weight.
fn between(deed: Deed) -> (Result<(), StepError>, Vec<Option<ArrayD<f32>>>) {
    let mut world = World::new();
    let p = spawn(&mut world, 3);
    let roots = world.models(p).unwrap().to_vec();
    world.forward(p, &x(3)).unwrap();
    world.loss::<f32, _>(p, &y(3), &CrossEntropyLoss::default()).unwrap();
    deed(&mut world, p, &roots);
    let answer = world.backward(p);
    let gradients = roots.iter().map(|&root| world.gradient(root, "0.weight").unwrap()).collect();
    (answer, gradients)
}

#[test]
fn a_weight_that_is_read_once_more_must_not_be_written_to() {
    let deeds: [(Deed, usize); 11] = [
        (|w, p, _| drop(w.train_step(p, &x(3), &y(3), &CrossEntropyLoss::default()).unwrap()), 0),
        (
            |w, _, r| {
                w.set_parameter(r[2], "2.weight", Array2::<f32>::ones((3, 8)).view()).unwrap()
            },
            2,
        ),
        (|w, p, _| w.perturb(p, Noise::normal(0.1)).unwrap(), 0),
        (|w, p, _| w.overwrite(p, &[0, 0, 2]).unwrap(), 0),
        (|w, p, _| w.crossover(p, &[(1, 0), (2, 1), (0, 2)]).unwrap(), 0),
        (|w, p, _| init::ones_(w, p, "2.weight").unwrap(), 0),
        (
            |w, _, r| {
                let state = w.state_dict(r[0]).unwrap();
                w.load_state_dict(r[1], &state).unwrap();
            },
            1,
        ),
        (
            |w, _, r| {
                let vector = w.parameters_to_vector::<f32>(r[1]).unwrap() * 2.0;
                w.vector_to_parameters(r[1], vector.view()).unwrap();
            },
            1,
        ),
        (
            |w, p, _| {
                let all = ArrayD::<f32>::ones(IxDyn(&[3, 3, 8]));
                w.unstack(p, "2.weight", all.view()).unwrap();
            },
            0,
        ),
        (
            // A mark on a column is lost where its rows move to another table.
            |w, p, r| {
                #[derive(Component)]
                struct Tag;
                w.train_step(p, &x(3), &y(3), &CrossEntropyLoss::default()).unwrap();
                for &root in r {
                    let module = w.module(root, "2").unwrap();
                    w.entity_mut(module).insert(Tag);
                }
            },
            0,
        ),
        (
            // By bevy's own call.
            |w, _, r| {
                let module = w.module(r[1], "2").unwrap();
                let key = ColumnKey::new(Role::Parameter, 0, &Type::new(Dtype::F32, [3, 8]));
                let id = Columns::find(w, key).unwrap();
                w.get_mut_by_id(module, id).unwrap().into_inner();
            },
            1,
        ),
    ];
    for (number, (deed, expected)) in deeds.into_iter().enumerate() {
        let (answer, gradients) = between(deed);
        let Err(StepError::Modified { name, model, .. }) = &answer else {
            panic!("{number}: {answer:?}")
        };
        assert_eq!((name.as_str(), *model), ("2.weight", expected), "{number}");
        assert!(gradients.iter().all(Option::is_none), "{number}: nothing is changed");
        let words = answer.unwrap_err().to_string();
        let torch = "2.weight: one of the variables needed for gradient computation has been modified by an \
                     inplace operation: f32[3, 8] of model";
        assert!(words.starts_with(torch), "{words}");
    }
}

#[test]
fn what_is_not_read_once_more_may_be_written_to() {
    let (answer, expected) = between(|_, _, _| {});
    assert_eq!(answer, Ok(()));
    let deeds: [Deed; 6] = [
        |w, _, r| w.set_parameter(r[1], "2.bias", ndarray::Array1::<f32>::ones(3).view()).unwrap(),
        // The gradient of the first layer's input is not asked for.
        |w, p, _| init::ones_(w, p, "0.weight").unwrap(),
        |w, p, _| w.zero_grad(p).unwrap(),
        |w, p, _| {
            let other = spawn(w, 3);
            w.train_step(other, &x(3), &y(3), &CrossEntropyLoss::default()).unwrap();
            assert_ne!(p, other);
        },
        |w, _, r| {
            #[derive(Component)]
            struct Tag;
            for &root in r {
                let module = w.module(root, "2").unwrap();
                w.entity_mut(module).insert(Tag);
            }
        },
        |w, p, _| {
            let clones = w.clone_models(p, &[0, 1]).unwrap();
            clones.into_iter().for_each(|root| assert!(w.despawn(root)));
        },
    ];
    for (number, deed) in deeds.into_iter().enumerate() {
        let (answer, found) = between(deed);
        assert_eq!(answer, Ok(()), "{number}");
        assert_eq!(found, expected, "{number}");
    }
}

#[test]
fn a_model_that_was_asleep_may_be_written_to() {
    let mut world = World::new();
    let p = spawn(&mut world, 3);
    let root = world.models(p).unwrap()[1];
    world.set_active(root, false).unwrap();
    world.forward(p, &x(3)).unwrap();
    world.loss::<f32, _>(p, &y(3), &CrossEntropyLoss::default()).unwrap();
    world.set_parameter(root, "2.weight", Array2::<f32>::ones((3, 8)).view()).unwrap();
    world.backward(p).unwrap();
}

#[test]
fn running_statistics_that_the_pass_itself_wrote_are_no_change() {
    let model =
        Sequential::new().push(Linear::new(4, 8)).push(BatchNorm1d::new(8)).push(Linear::new(8, 3));
    for evaluates in [false, true] {
        let mut world = World::new();
        let p = world.spawn_population(&model, 3, Seed(1)).unwrap();
        if evaluates {
            world.eval(p).unwrap();
        }
        for _ in 0..3 {
            world.forward(p, &x(3)).unwrap();
            world.loss::<f32, _>(p, &y(3), &CrossEntropyLoss::default()).unwrap();
            world.backward(p).unwrap();
        }
    }
}

#[test]
fn a_shared_weight_must_not_be_written_to_either() {
    let mut world = World::new();
    let p = spawn(&mut world, 3);
    world.share_parameter(p, "2.weight").unwrap();
    for is_written in [false, true] {
        world.forward(p, &x(3)).unwrap();
        world.loss::<f32, _>(p, &y(3), &CrossEntropyLoss::default()).unwrap();
        if is_written {
            world.train_step(p, &x(3), &y(3), &CrossEntropyLoss::default()).unwrap();
        }
        let answer = world.backward(p);
        match is_written {
            false => assert_eq!(answer, Ok(())),
            true => assert!(matches!(answer, Err(StepError::Modified { .. })), "{answer:?}"),
        }
    }
}

#[test]
fn an_observed_pass_is_watched_as_well() {
    let mut world = World::new();
    let p = spawn(&mut world, 3);
    world.register_full_backward_hook((p, "2"), |_, _, _| Ok(None)).unwrap();
    for is_written in [false, true, false] {
        world.forward(p, &x(3)).unwrap();
        world.loss::<f32, _>(p, &y(3), &CrossEntropyLoss::default()).unwrap();
        if is_written {
            world.train_step(p, &x(3), &y(3), &CrossEntropyLoss::default()).unwrap();
        }
        let answer = world.backward(p);
        assert_eq!(answer.is_err(), is_written, "{answer:?}");
    }
}

#[test]
fn a_second_step_is_watched_as_well() {
    // Not for the columns of gradients: they are there.
    let hooked: [&[&str]; 4] = [&[], &["0"], &["2"], &["0", "2"]];
    let deeds: [Deed; 3] = [
        |w, _, r| {
            let state = w.state_dict(r[0]).unwrap();
            w.load_state_dict(r[2], &state).unwrap();
        },
        |w, _, r| w.set_parameter(r[2], "2.weight", Array2::<f32>::ones((3, 8)).view()).unwrap(),
        |w, _, r| {
            let module = w.module(r[2], "2").unwrap();
            let key = ColumnKey::new(Role::Parameter, 0, &Type::new(Dtype::F32, [3, 8]));
            let id = Columns::find(w, key).unwrap();
            w.get_mut_by_id(module, id).unwrap().into_inner();
        },
    ];
    for (number, deed) in deeds.into_iter().enumerate() {
        for paths in hooked {
            let mut world = World::new();
            let p = spawn(&mut world, 3);
            let roots = world.models(p).unwrap().to_vec();
            for path in paths {
                let module = world.module(roots[2], path).unwrap();
                world.register_forward_hook(module, |_, _, _| Ok(None)).unwrap();
            }
            for is_written in [false, true, false, true] {
                world.forward(p, &x(3)).unwrap();
                world.loss::<f32, _>(p, &y(3), &CrossEntropyLoss::default()).unwrap();
                if is_written {
                    deed(&mut world, p, &roots);
                }
                match world.backward(p) {
                    Ok(()) => assert!(!is_written, "{number} {paths:?}"),
                    Err(StepError::Modified { model, .. }) => {
                        assert_eq!((is_written, model), (true, 2), "{number} {paths:?}");
                    }
                    Err(error) => panic!("{number} {paths:?}: {error}"),
                }
            }
        }
    }
}
