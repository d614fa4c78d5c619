//! A clone is a model of its own: it starts with the numbers of the original, under a number of its own.

use neurarch::bevy_ecs::entity::EntityCloner;
use neurarch::bevy_ecs::prelude::*;
use neurarch::components::layers::{Linear, Sequential, Tanh};
use neurarch::components::population::Population;
use neurarch::components::population::blueprints::Blueprints;
use neurarch::components::population::tree::Model;
use neurarch::kernels::ir::dtype::Dtype;
use neurarch::systems::structure::{access, sign, spawn};

fn clone(world: &mut World, root: Entity) -> Entity {
    let copy = world.spawn_empty().id();
    EntityCloner::build_opt_out(world).linked_cloning(true).clone_entity(root, copy);
    copy
}

#[test]
fn a_clone_has_the_numbers_of_its_original_and_a_number_of_its_own() {
    let mut world = World::new();
    let brain = Sequential::new().push(Linear::new(2, 3)).push(Tanh).push(Linear::new(3, 1));
    let population = spawn::spawn_population(&mut world, &brain, 3, 3, 1, Dtype::F32).unwrap();
    let original = world.get::<Population>(population).unwrap().models()[1];
    let weight = ndarray::array![[1.0_f32, 2.0], [3.0, 4.0], [5.0, 6.0]].into_dyn();
    access::write(&mut world, original, "0.weight", weight.view()).unwrap();

    let copy = clone(&mut world, original);
    sign::refresh(&mut world, population).unwrap();
    let model = *world.get::<Model>(copy).unwrap();
    assert_eq!((model.index, model.number), (3, 3));
    assert_eq!(world.get::<Population>(population).unwrap().models().len(), 4);
    assert_eq!(world.get::<Population>(population).unwrap().groups().len(), 1);
    assert_eq!(world.resource::<Blueprints>().len(), 1);
    assert_eq!(access::read::<f32>(&mut world, copy, "0.weight", None).unwrap(), weight);

    let other = &weight + 1.0;
    access::write(&mut world, copy, "0.weight", other.view()).unwrap();
    assert_eq!(access::read::<f32>(&mut world, original, "0.weight", None).unwrap(), weight);
    assert_eq!(access::read::<f32>(&mut world, copy, "0.weight", None).unwrap(), other);
}

#[test]
fn a_clone_that_is_changed_at_once_keeps_what_did_not_change() {
    let mut world = World::new();
    let brain = Sequential::new().push(Linear::new(4, 16)).push(Linear::new(16, 2));
    let population = spawn::spawn_population(&mut world, &brain, 1, 1, 1, Dtype::F32).unwrap();
    let original = world.get::<Population>(population).unwrap().models()[0];
    let bias = ndarray::array![7.0_f32, 8.0].into_dyn();
    let weight = ndarray::Array2::<f32>::ones((16, 4)).into_dyn();
    access::write(&mut world, original, "0.weight", weight.view()).unwrap();
    access::write(&mut world, original, "1.bias", bias.view()).unwrap();

    let copy = clone(&mut world, original);
    // As many numbers as before, in another shape.
    let first = world.get::<Children>(copy).unwrap()[0];
    world.entity_mut(first).insert(Linear::new(16, 4));
    sign::refresh(&mut world, population).unwrap();
    assert_eq!(access::read::<f32>(&mut world, copy, "1.bias", None).unwrap(), bias);
    let read = access::read::<f32>(&mut world, copy, "0.weight", None).unwrap();
    assert_eq!(read.shape(), [4, 16]);
    assert!(read.iter().all(|&number| number != 1.0 && number != 0.0), "drawn anew");
    assert_eq!(access::read::<f32>(&mut world, original, "0.weight", None).unwrap(), weight);
}

#[test]
fn a_clone_that_goes_at_once_leaves_the_others_as_they_were() {
    let mut world = World::new();
    let brain = Sequential::new().push(Linear::new(2, 3));
    let population = spawn::spawn_population(&mut world, &brain, 2, 2, 1, Dtype::F32).unwrap();
    let models = world.get::<Population>(population).unwrap().models().to_vec();
    let copy = clone(&mut world, models[0]);
    world.despawn(copy);
    sign::refresh(&mut world, population).unwrap();
    let found = world.get::<Population>(population).unwrap();
    assert_eq!(found.models(), models);
    assert_eq!(found.groups()[0].members, [0, 1]);
}
