//! Trees that are no models are told of by name, and leave everything as it was.

use neurarch::bevy_ecs::prelude::*;
use neurarch::components::layers::{Linear, ReLU, Sequential, Tanh};
use neurarch::components::population::Population;
use neurarch::components::population::tree::{Model, ModuleName};
use neurarch::kernels::ir::dtype::Dtype;
use neurarch::systems::structure::sign::SignError;
use neurarch::systems::structure::spawn::SpawnError;
use neurarch::systems::structure::{access, sign, spawn};

fn lab() -> (World, Entity, Entity) {
    let mut world = World::new();
    let brain = Sequential::new().push(Linear::new(2, 3)).push(Tanh);
    let population = spawn::spawn_population(&mut world, &brain, 2, 2, 1, Dtype::F32);
    let population = population.expect("its names are fine");
    let root = world.get::<Population>(population).expect("it was just spawned").models()[1];
    (world, population, root)
}

#[test]
fn a_name_that_is_taken_is_refused_until_it_is_free() {
    let (mut world, population, root) = lab();
    let child = world.spawn((Linear::new(3, 1), ModuleName("0".into()), ChildOf(root))).id();
    let error = sign::refresh(&mut world, population).unwrap_err();
    assert_eq!(error.to_string(), "model 1, Sequential: attribute '0' already exists");
    assert_eq!(sign::refresh(&mut world, population).unwrap_err(), error);
    world.entity_mut(child).insert(ModuleName("2".into()));
    sign::refresh(&mut world, population).unwrap();
    let weight = access::read::<f32>(&mut world, root, "2.weight", None).unwrap();
    assert_eq!(weight.shape(), [1, 3]);
}

#[test]
fn a_child_without_a_name_is_named_by_its_place() {
    let (mut world, _, root) = lab();
    world.spawn((Linear::new(3, 1), ChildOf(root)));
    let names = access::parameter_names(&mut world, root).unwrap();
    assert_eq!(names, ["0.weight", "0.bias", "2.weight", "2.bias"]);
}

#[test]
fn a_root_without_a_module_is_refused() {
    let (mut world, population, root) = lab();
    world.entity_mut(root).remove::<Sequential>();
    assert_eq!(sign::refresh(&mut world, population), Err(SignError::NoModule { index: 1 }));
}

#[test]
fn another_layer_takes_the_place_of_the_one_before() {
    let (mut world, _, root) = lab();
    let second = access::module(&mut world, root, "1").unwrap();
    world.entity_mut(second).insert(ReLU);
    access::parameter_names(&mut world, root).unwrap();
    assert!(!world.entity(second).contains::<Tanh>());
}

#[test]
fn entities_that_are_no_modules_do_not_matter() {
    let (mut world, population, root) = lab();
    world.spawn(ChildOf(root));
    sign::refresh(&mut world, population).unwrap();
    let found = world.get::<Population>(population).unwrap();
    assert_eq!(found.groups().len(), 1);
    assert_eq!(found.groups()[0].modules.len(), 3);
}

#[test]
fn a_model_below_another_stays_a_model_of_its_own() {
    let (mut world, population, root) = lab();
    let other = world.get::<Population>(population).unwrap().models()[0];
    world.entity_mut(other).insert(ChildOf(root));
    sign::refresh(&mut world, population).unwrap();
    let found = world.get::<Population>(population).unwrap();
    assert_eq!((found.groups().len(), found.len()), (1, 2));
}

#[test]
fn a_module_that_moves_to_another_model_keeps_its_numbers() {
    let (mut world, population, root) = lab();
    let other = world.get::<Population>(population).unwrap().models()[0];
    let weight = ndarray::Array2::<f32>::ones((3, 2)).into_dyn();
    access::write(&mut world, root, "0.weight", weight.view()).unwrap();
    let module = access::module(&mut world, root, "0").unwrap();
    world.entity_mut(module).insert((ModuleName("guest".into()), ChildOf(other)));
    assert_eq!(access::read::<f32>(&mut world, other, "guest.weight", None).unwrap(), weight);
    assert_eq!(access::parameter_names(&mut world, root).unwrap(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_spawned_leaves_nothing() {
    let mut world = World::new();
    let twice = Sequential::new().push_named("a.b", Tanh);
    let error = spawn::spawn_population(&mut world, &twice, 2, 2, 1, Dtype::F32).unwrap_err();
    assert!(matches!(error, SpawnError::Name { .. }));
    let error = spawn::spawn_population(&mut world, &Tanh, 2, 2, 1, Dtype::I64).unwrap_err();
    assert_eq!(error, SpawnError::Dtype(Dtype::I64));
    let mut models = world.query::<&Model>();
    assert_eq!(models.iter(&world).count(), 0);
}

#[test]
fn a_layer_that_is_in_use_before_it_is_a_module_is_watched_all_the_same() {
    let mut world = World::new();
    world.spawn(Linear::new(1, 1));
    let brain = Sequential::new().push(Linear::new(2, 3));
    let population = spawn::spawn_population(&mut world, &brain, 1, 1, 1, Dtype::F32).unwrap();
    let root = world.get::<Population>(population).unwrap().models()[0];
    let module = access::module(&mut world, root, "0").unwrap();
    world.entity_mut(module).insert(Linear::new(5, 3));
    let weight = access::read::<f32>(&mut world, root, "0.weight", None).unwrap();
    assert_eq!(weight.shape(), [3, 5]);
}
