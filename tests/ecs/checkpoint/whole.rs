//! What comes out of a checkpoint goes on as what went in.

use std::collections::HashMap;

use neurarch::components::population::tree::{Model, ModuleName};
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::state::checkpoint;
use neurarch::state::checkpoint::{Checkpoint, CheckpointError};
use serde::{Deserialize, Serialize};

use super::{Scratch, net, tensors, train};
use crate::known::Known;

#[test]
fn a_population_goes_on_bit_for_bit() {
    let scratch = Scratch::new("goes_on");
    let mut world = World::new();
    let brains = world.spawn_population(&net(), 7, Seed(3)).unwrap().id();
    world
        .brains(brains)
        .insert_with(|i| Adam { lr: 1e-2 * (1 + i) as f64, ..Adam::default() })
        .unwrap();
    world.brains(brains).schedule(StepLR { step_size: 2, gamma: 0.5 }).unwrap();
    world.brains(brains).at("3").insert_with(|i| Dropout { p: 0.1 * i as f64 }).unwrap();
    train(&mut world, brains, 0..3);
    let (mut other, restored) = scratch.pass_on(&mut world, &[brains]);
    let [copy] = restored.populations[..] else { panic!("one population") };
    assert_eq!(tensors(&mut other, copy), tensors(&mut world, brains));
    assert_eq!(train(&mut other, copy, 3..6), train(&mut world, brains, 3..6));
    for (world, of) in [(&mut world, brains), (&mut other, copy)] {
        world.brains(of).step_schedulers().unwrap();
        world.brains(of).clone_models(&[2, 5]).unwrap();
        world.brains(of).perturb(Noise::normal(0.1)).unwrap();
    }
    assert_eq!(train(&mut other, copy, 6..8), train(&mut world, brains, 6..8));
    assert_eq!(tensors(&mut other, copy), tensors(&mut world, brains));
}

#[test]
fn models_of_several_structures_keep_their_places_after_births_and_deaths() {
    let scratch = Scratch::new("structures");
    let mut world = World::new();
    let brains = world.spawn_population(&net(), 9, Seed(5)).unwrap().id();
    world.brains(brains).insert(SGD { lr: 0.05, momentum: 0.9, ..SGD::default() }).unwrap();
    train(&mut world, brains, 0..2);
    let roots = world.population(brains).unwrap().models().to_vec();
    for &root in &roots[1..4] {
        world.part(root).setattr("2", Value::module(ReLU)).unwrap();
    }
    world
        .part(roots[6])
        .setattr("extra", Value::parameter(ndarray::arr1(&[1.5_f32]).view()))
        .unwrap();
    world.part(roots[2]).eval().unwrap();
    world.despawn(roots[0]);
    world.despawn(roots[5]);
    world.brains(brains).clone_models(&[1, 3]).unwrap();
    train(&mut world, brains, 2..4);
    let numbers = |world: &World, of: Entity| -> Vec<(u64, u32)> {
        let roots = world.population(of).unwrap().models().to_vec();
        let model = |root| world.get::<Model>(root).map(|model| (model.number, model.index));
        roots.into_iter().map(|root| model(root).unwrap()).collect()
    };
    let (mut other, restored) = scratch.pass_on(&mut world, &[brains]);
    let copy = restored.populations[0];
    assert_eq!(numbers(&other, copy), numbers(&world, brains));
    assert_eq!(tensors(&mut other, copy), tensors(&mut world, brains));
    let before = world.population(brains).unwrap().models().to_vec();
    let after = other.population(copy).unwrap().models().to_vec();
    assert!(before.iter().zip(&after).all(|(old, new)| restored.entities[old] == *new));
    assert_eq!(train(&mut other, copy, 4..7), train(&mut world, brains, 4..7));
    assert_eq!(tensors(&mut other, copy), tensors(&mut world, brains));
}

/// What a host keeps beside its models.
#[derive(Component, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Bond {
    health: f32,
    #[entities]
    friend: Entity,
}

#[derive(Component, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tribe(String);

#[test]
fn components_of_the_host_come_along_with_their_entities_mapped() {
    let scratch = Scratch::new("host");
    let mut world = World::new();
    let [first, second] =
        [1, 2].map(|seed| world.spawn_population(&net(), 3, Seed(seed)).unwrap().id());
    let roots = [first, second].map(|of| world.population(of).unwrap().models().to_vec());
    let layer = world.part(roots[0][1]).at("4").unwrap().id();
    let stranger = world.spawn_empty().id();
    // One in another population, that comes later; one of the same model; one that is in no file.
    world.entity_mut(roots[0][0]).insert(Bond { health: 0.5, friend: roots[1][2] });
    world.entity_mut(roots[0][1]).insert(Bond { health: f32::INFINITY, friend: layer });
    world.entity_mut(roots[1][0]).insert(Bond { health: 1.5, friend: stranger });
    world.entity_mut(second).insert(Tribe("north".into()));
    world.register_saved::<Bond>().unwrap();
    world.register_saved::<Tribe>().unwrap();
    checkpoint::save_all(&mut world, &scratch).unwrap();

    let checkpoint = Checkpoint::open(&scratch).unwrap();
    let mut other = World::new();
    let error = checkpoint.restore(&mut other).unwrap_err();
    assert!(matches!(error, CheckpointError::Component(_)), "{error}");
    assert!(error.to_string().contains("`Bond` is not registered"), "{error}");
    other.register_saved::<Bond>().unwrap();
    other.register_saved::<Tribe>().unwrap();
    let restored = checkpoint.restore(&mut other).unwrap();
    let new: HashMap<_, _> = restored.entities.iter().map(|(old, new)| (*old, *new)).collect();
    let bond = |root: Entity| other.get::<Bond>(new[&root]).cloned();
    assert_eq!(bond(roots[0][0]), Some(Bond { health: 0.5, friend: new[&roots[1][2]] }));
    assert_eq!(bond(roots[0][1]), Some(Bond { health: f32::INFINITY, friend: new[&layer] }));
    assert_eq!(bond(roots[0][2]), None);
    assert_eq!(bond(roots[1][0]), Some(Bond { health: 1.5, friend: Entity::PLACEHOLDER }));
    assert_eq!(other.get::<Tribe>(restored.populations[1]), Some(&Tribe("north".into())));
    assert_eq!(restored.entities.len(), 2 + 2 * 3 * 6);
}

#[test]
fn ties_sharing_parametrizations_and_what_is_registered_come_along() {
    let scratch = Scratch::new("ties");
    let mut world = World::new();
    let net = Sequential::new()
        .push(Linear::new(4, 4))
        .push(Linear::new(4, 4))
        .push(LazyLinear::new(3))
        .push(Linear::new(3, 2));
    let brains = world.spawn_population(&net, 5, Seed(8)).unwrap().id();
    world.brains(brains).insert(Adam::default()).unwrap();
    for root in world.population(brains).unwrap().models().to_vec() {
        world.part(root).tie("1.weight", "0.weight").unwrap();
    }
    world.brains(brains).share_parameter("3.bias").unwrap();
    world.entity_mut(brains).insert(SGD { lr: 0.1, momentum: 0.5, ..SGD::default() });
    world.brains(brains).at("3").spectral_norm("weight").unwrap();
    world.brains(brains).at("0").weight_norm("bias", None).unwrap();
    let seen = Value::tensor(ndarray::arr1(&[0.5_f32]).view());
    world.brains(brains).at("1").register_buffer("seen", seen, false).unwrap();

    // The lazy module as it is, and as what it became.
    let (mut lazy, restored) = scratch.pass_on(&mut world, &[brains]);
    let first = restored.populations[0];
    assert_eq!(train(&mut lazy, first, 0..3), train(&mut world, brains, 0..3));
    let (mut other, restored) = scratch.pass_on(&mut world, &[brains]);
    let copy = restored.populations[0];
    assert_eq!(tensors(&mut other, copy), tensors(&mut world, brains));
    assert_eq!(train(&mut other, copy, 3..6), train(&mut world, brains, 3..6));
    assert_eq!(tensors(&mut other, copy), tensors(&mut world, brains));
    let state = |world: &mut World, of| world.brains(of).training_state().unwrap();
    assert_eq!(state(&mut other, copy), state(&mut world, brains));
    // A file of what was restored has the same tensors.
    let listed = Checkpoint::read(&scratch).unwrap().tensors();
    checkpoint::save(&mut other, &[copy], &scratch).unwrap();
    assert_eq!(Checkpoint::read(&scratch).unwrap().tensors(), listed);
    assert!(listed.iter().any(|tensor| tensor.name == "3.bias" && tensor.models == 5));
    assert!(listed.iter().all(|tensor| tensor.name != "1.weight" && tensor.name != "1.seen"));
}

#[test]
fn a_module_of_an_unknown_type_is_an_error_that_names_it() {
    let scratch = Scratch::new("unknown");
    let mut world = World::new();
    #[derive(Component, Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Doubled;
    impl Module for Doubled {
        fn forward(&self, _: &neurarch::nn::Call<'_>, x: neurarch::nn::Var) -> neurarch::nn::Var {
            &x + &x
        }
    }
    let net = Sequential::new().push(Linear::new(4, 2)).push(Doubled);
    let brains = world.spawn_population(&net, 2, Seed(8)).unwrap().id();
    let error = checkpoint::save(&mut world, &[brains], &scratch).unwrap_err();
    assert!(error.to_string().contains("1: the type"), "{error}");
    assert!(error.to_string().contains("register_module_type::<Doubled>()"), "{error}");
    assert!(!scratch.as_ref().exists(), "nothing is left lying");
    world.register_module_type::<Doubled>().unwrap();
    checkpoint::save(&mut world, &[brains], &scratch).unwrap();
    let mut other = World::new();
    assert!(Checkpoint::open(&scratch).unwrap().restore(&mut other).is_err());
    assert_eq!(other.query::<&Model>().iter(&other).count(), 0);
    other.register_module_type::<Doubled>().unwrap();
    let restored = Checkpoint::open(&scratch).unwrap().restore(&mut other).unwrap();
    let copy = restored.populations[0];
    let x = ndarray::Array3::<f32>::ones((2, 1, 4));
    assert_eq!(other.brains(copy).forward(&x).unwrap(), world.brains(brains).forward(&x).unwrap());
}

#[test]
fn parts_of_a_population_are_put_together_and_divided_otherwise() {
    let mut world = World::new();
    let brains = world.spawn_population(&net(), 9, Seed(4)).unwrap().id();
    world
        .brains(brains)
        .insert_with(|i| Adam { lr: 1e-2 * (1 + i) as f64, ..Adam::default() })
        .unwrap();
    let roots = world.population(brains).unwrap().models().to_vec();
    world.part(roots[2]).setattr("2", Value::module(ReLU)).unwrap();
    world.part(roots[7]).setattr("2", Value::module(ReLU)).unwrap();
    train(&mut world, brains, 0..2);
    let scratches = [0, 1, 2].map(|shard| Scratch::new(&format!("shard{shard}")));
    for (models, scratch) in [0..4, 4..5, 5..9].into_iter().zip(&scratches) {
        checkpoint::save_models(&mut world, brains, models, scratch).unwrap();
    }
    // Whoever lists the files need not know their order.
    let shards = [2, 0, 1].map(|shard: usize| Checkpoint::open(&scratches[shard]).unwrap());
    let expected = tensors(&mut world, brains);
    let mut other = World::new();
    let whole = checkpoint::restore_shards(&mut other, &shards, ..).unwrap().populations[0];
    assert_eq!(tensors(&mut other, whole), expected);
    let halves = [(0..5), (5..9)].map(|models| {
        let restored = checkpoint::restore_shards(&mut other, &shards, models).unwrap();
        restored.populations[0]
    });
    let divided = halves.map(|of| tensors(&mut other, of)).concat();
    assert_eq!(divided, expected);
    assert_eq!(train(&mut other, whole, 2..4), train(&mut world, brains, 2..4));

    let twice = [shards[0].path(), shards[0].path()].map(|path| Checkpoint::open(path).unwrap());
    let before = other.entities().len();
    let error = checkpoint::restore_shards(&mut other, &twice, ..).unwrap_err();
    assert!(error.to_string().contains("is no part of the population"), "{error}");
    assert!(checkpoint::restore_shards(&mut other, &[], ..).is_err());
    assert_eq!(other.entities().len(), before);
}

#[test]
fn some_models_are_restored_in_the_order_in_which_they_are_listed() {
    let scratch = Scratch::new("some");
    let mut world = World::new();
    let brains = world.spawn_population(&net(), 6, Seed(4)).unwrap().id();
    world
        .brains(brains)
        .insert_with(|i| Adam { lr: 1e-2 * (1 + i) as f64, ..Adam::default() })
        .unwrap();
    let roots = world.population(brains).unwrap().models().to_vec();
    world.part(roots[1]).setattr("2", Value::module(ReLU)).unwrap();
    train(&mut world, brains, 0..2);
    checkpoint::save(&mut world, &[brains], &scratch).unwrap();
    let expected = tensors(&mut world, brains);
    let checkpoint = Checkpoint::open(&scratch).unwrap();
    let mut other = World::new();
    let some = [5, 1, 2];
    let copy = checkpoint.restore_models(&mut other, 0, &some).unwrap().populations[0];
    assert_eq!(tensors(&mut other, copy), some.map(|model| expected[model].clone()));
    let error = |models: &[usize]| {
        checkpoint.restore_models(&mut World::new(), 0, models).unwrap_err().to_string()
    };
    assert!(error(&[1, 6]).contains("expected a model below 6, got 6"));
    assert!(error(&[1, 1]).contains("model 1 is listed twice"));
    assert!(checkpoint.restore_models(&mut other, 1, &[0]).is_err());
}

#[test]
fn a_population_becomes_again_what_it_was_in_the_entities_that_it_has() {
    let scratch = Scratch::new("over");
    let mut world = World::new();
    let brains = world.spawn_population(&net(), 5, Seed(4)).unwrap().id();
    world
        .brains(brains)
        .insert_with(|i| Adam { lr: 1e-2 * (1 + i) as f64, ..Adam::default() })
        .unwrap();
    train(&mut world, brains, 0..2);
    let roots = world.population(brains).unwrap().models().to_vec();
    world.part(roots[1]).eval().unwrap();
    checkpoint::save(&mut world, &[brains], &scratch).unwrap();
    let before = tensors(&mut world, brains);
    let went_on = train(&mut world, brains, 2..5);
    let expected = tensors(&mut world, brains);

    // Another optimizer, other settings and modes, and gradients that wait.
    world.brains(brains).train().unwrap();
    world.brains(brains).insert(SGD { lr: 0.1, momentum: 0.9, ..SGD::default() }).unwrap();
    world.brains(brains).at("3").insert(Dropout { p: 0.9 }).unwrap();
    world.brains(brains).schedule(StepLR { step_size: 1, gamma: 0.1 }).unwrap();
    train(&mut world, brains, 5..7);
    let (x, y) = super::batch(5, 0);
    world.brains(brains).forward(&x).unwrap();
    world.brains(brains).loss::<f32, i64>(&y, &CrossEntropyLoss::default()).unwrap();
    world.brains(brains).backward().unwrap();
    let checkpoint = Checkpoint::open(&scratch).unwrap();
    checkpoint.restore_over(&mut world, 0, brains).unwrap();
    assert_eq!(world.population(brains).unwrap().models(), roots);
    assert_eq!(tensors(&mut world, brains), before);
    assert_eq!(train(&mut world, brains, 2..5), went_on);
    assert_eq!(tensors(&mut world, brains), expected);

    // Some of them, to other places: all but their numbers.
    checkpoint.restore_models_over(&mut world, 0, brains, &[(1, 4), (3, 0)]).unwrap();
    let without_numbers = |tensors: &[Tensor]| -> Vec<Tensor> {
        tensors.iter().filter(|tensor| tensor.name != "number").cloned().collect()
    };
    let after = tensors(&mut world, brains);
    assert_eq!(without_numbers(&after[4]), without_numbers(&before[1]));
    assert_eq!(without_numbers(&after[0]), without_numbers(&before[3]));
    assert_eq!(after[1..4], expected[1..4]);

    // What does not fit changes nothing.
    let mut refused = |models: &[(usize, usize)], words: &str| {
        let error = checkpoint.restore_models_over(&mut world, 0, brains, models).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(tensors(&mut world, brains), after);
    };
    refused(&[(0, 5)], "expected a model below 5, got 5");
    refused(&[(5, 0)], "expected a model below 5, got 5");
    refused(&[(0, 1), (2, 1)], "model 1 is listed twice");
    world.part(roots[2]).setattr("2", Value::module(Linear::new(6, 6))).unwrap();
    let error = checkpoint.restore_over(&mut world, 0, brains).unwrap_err();
    assert!(error.to_string().contains("2: the module has 2 tensors, the file 0"), "{error}");
    world.despawn(roots[2]);
    let error = checkpoint.restore_over(&mut world, 0, brains).unwrap_err();
    assert!(error.to_string().contains("expected a population of 5 models, got 4"), "{error}");
}

#[test]
fn parameter_groups_take_their_predicates_from_the_models_that_they_are_restored_over() {
    let scratch = Scratch::new("groups");
    let mut world = World::new();
    let brains = world.spawn_population(&net(), 3, Seed(4)).unwrap().id();
    let groups = ParamGroups::new(AdamW { lr: 1e-2, ..AdamW::default() });
    let groups = groups.group(|of| of.name.ends_with("bias"), |group| group.weight_decay = 0.0);
    world.brains(brains).insert(groups.clone()).unwrap();
    world.brains(brains).schedule(StepLR { step_size: 1, gamma: 0.9 }).unwrap();
    let go_on = |world: &mut World, of: Entity, steps| {
        let losses = train(world, of, steps);
        world.brains(of).step_schedulers().unwrap();
        losses
    };
    go_on(&mut world, brains, 0..2);
    checkpoint::save(&mut world, &[brains], &scratch).unwrap();
    let expected = go_on(&mut world, brains, 2..5);
    let checkpoint = Checkpoint::open(&scratch).unwrap();
    let mut other = World::new();
    let error = checkpoint.restore(&mut other).unwrap_err();
    assert!(error.to_string().contains("`ParamGroups<AdamW>` has functions"), "{error}");
    let names = other.query::<&ModuleName>().iter(&other).count();
    assert_eq!(names, 0, "no module is left behind");
    let again = other.spawn_population(&net(), 3, Seed(99)).unwrap().id();
    let before = tensors(&mut other, again);
    assert!(checkpoint.restore_over(&mut other, 0, again).is_err());
    assert_eq!(tensors(&mut other, again), before);
    other.brains(again).insert(groups).unwrap();
    checkpoint.restore_over(&mut other, 0, again).unwrap();
    assert_eq!(go_on(&mut other, again, 2..5), expected);
    assert_eq!(tensors(&mut other, again), tensors(&mut world, brains));
}

#[test]
fn what_is_computed_again_on_the_way_back_is_saved() {
    let scratch = Scratch::new("activation_checkpointing");
    let mut world = World::new();
    let brains = world.spawn_population(&net(), 3, Seed(3)).unwrap().id();
    world.brains(brains).insert(SGD::default()).unwrap();
    world.brains(brains).checkpoint_span(1..3).unwrap();
    world.brains(brains).at("0").enable_activation_checkpointing().unwrap();
    let (mut other, restored) = scratch.pass_on(&mut world, &[brains]);
    let [copy] = restored.populations[..] else { panic!("one population") };
    let marks = |world: &World, of: Entity| {
        let root = world.population(of).unwrap().models()[0];
        world.get::<neurarch::components::module::mode::Mode>(root).unwrap().checkpoints.clone()
    };
    assert!(marks(&world, brains).is_some());
    assert_eq!(marks(&other, copy), marks(&world, brains));
    assert_eq!(train(&mut other, copy, 0..2), train(&mut world, brains, 0..2));
}
