//! Parameters that are written to between a forward pass and the way back from it.

use ndarray::{Array2, Array3, ArrayD, IxDyn};
use neurarch::components::column::{ColumnKey, Columns};
use neurarch::kernels::ir::program::Role;
use neurarch::kernels::ir::shape::Type;
use neurarch::prelude::*;
use neurarch::systems::execute::step::StepError;

fn spawn(world: &mut World, models: usize) -> Entity {
    let model = Sequential::new().push(Linear::new(4, 8)).push(Tanh).push(Linear::new(8, 3));
    let population = world.spawn_population(&model, models, Seed(1)).unwrap().id();
    world.population_mut(population).unwrap().insert(SGD { lr: 1.0, ..SGD::default() }).unwrap();
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
    let roots = world.population(p).unwrap().models().to_vec();
    world.population_mut(p).unwrap().forward(&x(3)).unwrap();
    world.population_mut(p).unwrap().loss::<f32, _>(&y(3), &CrossEntropyLoss::default()).unwrap();
    deed(&mut world, p, &roots);
    let answer = world.population_mut(p).unwrap().backward();
    let gradients = roots
        .iter()
        .map(|&root| world.module_mut(root).unwrap().gradient("0.weight").unwrap())
        .collect();
    (answer, gradients)
}

#[test]
fn a_weight_that_is_read_once_more_must_not_be_written_to() {
    let deeds: [(Deed, usize); 11] = [
        (
            |w, p, _| {
                drop(
                    w.population_mut(p)
                        .unwrap()
                        .train_step(&x(3), &y(3), &CrossEntropyLoss::default())
                        .unwrap(),
                )
            },
            0,
        ),
        (
            |w, _, r| {
                w.module_mut(r[2])
                    .unwrap()
                    .set_parameter("2.weight", Array2::<f32>::ones((3, 8)).view())
                    .unwrap()
            },
            2,
        ),
        (|w, p, _| w.population_mut(p).unwrap().perturb(Noise::normal(0.1)).unwrap(), 0),
        (|w, p, _| w.population_mut(p).unwrap().overwrite(&[0, 0, 2]).unwrap(), 0),
        (|w, p, _| w.population_mut(p).unwrap().crossover(&[(1, 0), (2, 1), (0, 2)]).unwrap(), 0),
        (|w, p, _| init::ones_(w, p, "2.weight").unwrap(), 0),
        (
            |w, _, r| {
                let state = w.module_mut(r[0]).unwrap().state_dict().unwrap();
                w.module_mut(r[1]).unwrap().load_state_dict(&state).unwrap();
            },
            1,
        ),
        (
            |w, _, r| {
                let vector =
                    w.module_mut(r[1]).unwrap().parameters_to_vector::<f32>().unwrap() * 2.0;
                w.module_mut(r[1]).unwrap().vector_to_parameters(vector.view()).unwrap();
            },
            1,
        ),
        (
            |w, p, _| {
                let all = ArrayD::<f32>::ones(IxDyn(&[3, 3, 8]));
                w.population_mut(p).unwrap().unstack("2.weight", all.view()).unwrap();
            },
            0,
        ),
        (
            // A mark on a column is lost where its rows move to another table.
            |w, p, r| {
                #[derive(Component)]
                struct Tag;
                w.population_mut(p)
                    .unwrap()
                    .train_step(&x(3), &y(3), &CrossEntropyLoss::default())
                    .unwrap();
                for &root in r {
                    let module = w.module_mut(root).unwrap().at("2").unwrap().id();
                    w.entity_mut(module).insert(Tag);
                }
            },
            0,
        ),
        (
            // By bevy's own call.
            |w, _, r| {
                let module = w.module_mut(r[1]).unwrap().at("2").unwrap().id();
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
        |w, _, r| {
            w.module_mut(r[1])
                .unwrap()
                .set_parameter("2.bias", ndarray::Array1::<f32>::ones(3).view())
                .unwrap()
        },
        // The gradient of the first layer's input is not asked for.
        |w, p, _| init::ones_(w, p, "0.weight").unwrap(),
        |w, p, _| w.population_mut(p).unwrap().zero_grad().unwrap(),
        |w, p, _| {
            let other = spawn(w, 3);
            w.population_mut(other)
                .unwrap()
                .train_step(&x(3), &y(3), &CrossEntropyLoss::default())
                .unwrap();
            assert_ne!(p, other);
        },
        |w, _, r| {
            #[derive(Component)]
            struct Tag;
            for &root in r {
                let module = w.module_mut(root).unwrap().at("2").unwrap().id();
                w.entity_mut(module).insert(Tag);
            }
        },
        |w, p, _| {
            let clones = w.population_mut(p).unwrap().clone_models(&[0, 1]).unwrap();
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
    let root = world.population(p).unwrap().models()[1];
    world.module_mut(root).unwrap().set_active(false).unwrap();
    world.population_mut(p).unwrap().forward(&x(3)).unwrap();
    world.population_mut(p).unwrap().loss::<f32, _>(&y(3), &CrossEntropyLoss::default()).unwrap();
    world
        .module_mut(root)
        .unwrap()
        .set_parameter("2.weight", Array2::<f32>::ones((3, 8)).view())
        .unwrap();
    world.population_mut(p).unwrap().backward().unwrap();
}

#[test]
fn running_statistics_that_the_pass_itself_wrote_are_no_change() {
    let model =
        Sequential::new().push(Linear::new(4, 8)).push(BatchNorm1d::new(8)).push(Linear::new(8, 3));
    for evaluates in [false, true] {
        let mut world = World::new();
        let p = world.spawn_population(&model, 3, Seed(1)).unwrap().id();
        if evaluates {
            world.population_mut(p).unwrap().eval().unwrap();
        }
        for _ in 0..3 {
            world.population_mut(p).unwrap().forward(&x(3)).unwrap();
            world
                .population_mut(p)
                .unwrap()
                .loss::<f32, _>(&y(3), &CrossEntropyLoss::default())
                .unwrap();
            world.population_mut(p).unwrap().backward().unwrap();
        }
    }
}

#[test]
fn a_shared_weight_must_not_be_written_to_either() {
    let mut world = World::new();
    let p = spawn(&mut world, 3);
    world.population_mut(p).unwrap().share_parameter("2.weight").unwrap();
    for is_written in [false, true] {
        world.population_mut(p).unwrap().forward(&x(3)).unwrap();
        world
            .population_mut(p)
            .unwrap()
            .loss::<f32, _>(&y(3), &CrossEntropyLoss::default())
            .unwrap();
        if is_written {
            world
                .population_mut(p)
                .unwrap()
                .train_step(&x(3), &y(3), &CrossEntropyLoss::default())
                .unwrap();
        }
        let answer = world.population_mut(p).unwrap().backward();
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
    world
        .population_mut(p)
        .unwrap()
        .at("2")
        .register_full_backward_hook(|_, _, _| Ok(None))
        .unwrap();
    for is_written in [false, true, false] {
        world.population_mut(p).unwrap().forward(&x(3)).unwrap();
        world
            .population_mut(p)
            .unwrap()
            .loss::<f32, _>(&y(3), &CrossEntropyLoss::default())
            .unwrap();
        if is_written {
            world
                .population_mut(p)
                .unwrap()
                .train_step(&x(3), &y(3), &CrossEntropyLoss::default())
                .unwrap();
        }
        let answer = world.population_mut(p).unwrap().backward();
        assert_eq!(answer.is_err(), is_written, "{answer:?}");
    }
}

#[test]
fn a_second_step_is_watched_as_well() {
    // Not for the columns of gradients: they are there.
    let hooked: [&[&str]; 4] = [&[], &["0"], &["2"], &["0", "2"]];
    let deeds: [Deed; 3] = [
        |w, _, r| {
            let state = w.module_mut(r[0]).unwrap().state_dict().unwrap();
            w.module_mut(r[2]).unwrap().load_state_dict(&state).unwrap();
        },
        |w, _, r| {
            w.module_mut(r[2])
                .unwrap()
                .set_parameter("2.weight", Array2::<f32>::ones((3, 8)).view())
                .unwrap()
        },
        |w, _, r| {
            let module = w.module_mut(r[2]).unwrap().at("2").unwrap().id();
            let key = ColumnKey::new(Role::Parameter, 0, &Type::new(Dtype::F32, [3, 8]));
            let id = Columns::find(w, key).unwrap();
            w.get_mut_by_id(module, id).unwrap().into_inner();
        },
    ];
    for (number, deed) in deeds.into_iter().enumerate() {
        for paths in hooked {
            let mut world = World::new();
            let p = spawn(&mut world, 3);
            let roots = world.population(p).unwrap().models().to_vec();
            for path in paths {
                let module = world.module_mut(roots[2]).unwrap().at(path).unwrap().id();
                world
                    .module_mut(module)
                    .unwrap()
                    .register_forward_hook(|_, _, _| Ok(None))
                    .unwrap();
            }
            for is_written in [false, true, false, true] {
                world.population_mut(p).unwrap().forward(&x(3)).unwrap();
                world
                    .population_mut(p)
                    .unwrap()
                    .loss::<f32, _>(&y(3), &CrossEntropyLoss::default())
                    .unwrap();
                if is_written {
                    deed(&mut world, p, &roots);
                }
                match world.population_mut(p).unwrap().backward() {
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
