//! What an inspector does: it finds components of a model by the type registry, and edits them.

use bevy_ecs::reflect::{AppTypeRegistry, ReflectComponent};
use bevy_reflect::{GetPath, PartialReflect, Typed};
use neurarch::plugin::{Rollback, Think, TrainingBudget};

use super::*;

/// Sets a field of a component by its names.
fn edit<T: Typed + PartialReflect>(app: &mut App, entity: Entity, ty: &str, path: &str, value: T) {
    let types = app.world().resource::<AppTypeRegistry>().clone();
    let types = types.read();
    let found = types.get_with_short_type_path(ty).expect("the type is registered");
    let component = found.data::<ReflectComponent>().expect("it is a component");
    let mut entity = app.world_mut().entity_mut(entity);
    let mut value_of = component.reflect_mut(&mut entity).expect("the entity has it");
    value_of.reflect_path_mut(path).unwrap().apply(&value);
}

#[test]
fn hyperparameters_are_edited_by_name_and_count_in_the_next_step() {
    let mut app = app(NeurarchPlugin::default());
    let world = app.world_mut();
    let brain = Sequential::new()
        .push(Linear::new(4, 8))
        .push(LeakyReLU::default())
        .push(Linear::new(8, 2));
    let mut spawn = || {
        let mut brains = world.spawn_population(&brain, 3, Seed(5)).unwrap();
        brains.insert(Adam::default()).unwrap();
        brains.id()
    };
    let [edited, by_hand] = [spawn(), spawn()];
    let root = app.world().population(edited).unwrap().models()[1];
    let layer = app.world_mut().module_mut(root).unwrap().at("1").unwrap().id();
    edit(&mut app, root, "Adam", ".lr", 0.5);
    edit(&mut app, root, "Adam", ".betas.0", 0.25);
    edit(&mut app, layer, "LeakyReLU", ".negative_slope", 0.75);
    let root = app.world().population(by_hand).unwrap().models()[1];
    let world = app.world_mut();
    let layer = world.module_mut(root).unwrap().at("1").unwrap().id();
    *world.get_mut::<Adam>(root).unwrap() =
        Adam { lr: 0.5, betas: (0.25, 0.999), ..Adam::default() };
    world.get_mut::<LeakyReLU>(layer).unwrap().negative_slope = 0.75;
    for population in [edited, by_hand] {
        let (x, y) = batch(3, 0);
        let mut brains = world.population_mut(population).unwrap();
        brains.train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
    }
    assert_eq!(weights(world, edited), weights(world, by_hand));
}

#[test]
fn what_a_host_sets_is_in_the_type_registry() {
    let mut app = App::new();
    app.add_plugins((NeurarchPlugin::default(), neurarch::plugin::RollbackPlugin));
    let types = app.world().resource::<AppTypeRegistry>().read();
    for name in ["SGD", "AdamW", "Muon", "Dropout", "Softplus", "ThinkEvery"] {
        let found = types.get_with_short_type_path(name).unwrap_or_else(|| panic!("{name}"));
        assert!(found.data::<ReflectComponent>().is_some(), "{name}");
    }
    assert!(types.contains(std::any::TypeId::of::<TrainingBudget>()));
    assert!(types.contains(std::any::TypeId::of::<Rollback>()));
    assert!(types.contains(std::any::TypeId::of::<Think>()));
}
