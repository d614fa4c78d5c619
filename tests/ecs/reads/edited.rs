//! What was edited and is not settled yet is an error that says so; other models are read all the same.

use neurarch::bevy_ecs::prelude::*;
use neurarch::bevy_ecs::relationship::RelationshipTarget;
use neurarch::components::column::Columns;
use neurarch::components::population::tie::Ties;
use neurarch::components::population::tree::{Columned, ModuleName};
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::structure::access::AccessError;

use super::{read, same, spawn, train};

/// Edits the second model by bevy's own calls.
type Edit = fn(&mut World, Entity);

fn below(world: &World, module: Entity, place: usize) -> Entity {
    world.get::<Children>(module).unwrap()[place]
}

const EDITS: [(&str, &str, Edit); 11] = [
    ("another size", "2", |world, root| {
        let head = below(world, root, 2);
        world.entity_mut(head).insert(Linear::new(3, 4));
    }),
    ("another type", "0.1", |world, root| {
        let norm = below(world, below(world, root, 0), 1);
        world.entity_mut(norm).insert(Tanh);
    }),
    ("no type", "2", |world, root| {
        let head = below(world, root, 2);
        world.entity_mut(head).remove::<Linear>();
    }),
    ("another name", "0.scale", |world, root| {
        let norm = below(world, below(world, root, 0), 1);
        world.entity_mut(norm).insert(ModuleName("scale".into()));
    }),
    ("another order", "0", |world, root| {
        let body = below(world, root, 0);
        world.get_mut::<Children>(body).unwrap().collection_mut_risky().swap(0, 1);
    }),
    ("one more", "3", |world, root| {
        world.spawn((Tanh, ModuleName("3".into()), ChildOf(root)));
    }),
    ("one below a leaf", "2.0", |world, root| {
        let head = below(world, root, 2);
        world.spawn((Tanh, ChildOf(head)));
    }),
    ("one less", "Sequential", |world, root| {
        let head = below(world, root, 2);
        world.despawn(head);
    }),
    ("one elsewhere", "Sequential", |world, root| {
        let head = below(world, root, 2);
        let other = world.spawn_empty().id();
        world.entity_mut(head).insert(ChildOf(other));
    }),
    ("no tie", "1", |world, root| {
        let tied = below(world, root, 1);
        world.entity_mut(tied).remove::<Ties>();
    }),
    ("no contents", "2", |world, root| {
        let head = below(world, root, 2);
        world.entity_mut(head).remove::<Columned>();
    }),
];

#[test]
fn an_edited_model_is_an_error_until_it_is_settled_and_its_neighbors_are_not() {
    for (what, path, edit) in EDITS {
        let (mut world, nets, roots) = spawn();
        train(&mut world, nets);
        let before = world.population_mut(nets).unwrap().stack::<f32>("0.0.weight").unwrap();
        edit(&mut world, roots[1]);
        let unsettled = AccessError::Unsettled { index: 1, path: path.to_owned() };
        let body = below(&world, roots[1], 0);
        for module in [roots[1], body] {
            let parameters = Parameters::from(&world);
            let name = if module == body { "0.weight" } else { "0.0.weight" };
            assert_eq!(read(&world, module, name), Err(unsettled.clone()), "{what}");
            assert_eq!(parameters.gradient::<f32>(module, name), Err(unsettled.clone()));
            assert_eq!(parameters.optimizer_state(module, name), Err(unsettled.clone()));
            assert_eq!(parameters.named_modules(module), Err(unsettled.clone()));
            assert_eq!(parameters.named_buffers(module), Err(unsettled.clone()));
            let error = parameters.state_dict(module).unwrap_err().to_string();
            assert_eq!(error, unsettled.to_string());
            let expected = format!(
                "model 1, {path}: was edited and is not settled yet: call `World::settle` before systems read it"
            );
            assert_eq!(error, expected);
        }
        for other in [0, 2, 3] {
            let read = read(&world, roots[other], "0.0.weight").unwrap();
            assert!(read.iter().eq(before.outer_iter().nth(other).unwrap().iter()), "{what}");
        }
        // Whoever has the world alone reads as in torch.
        match world.population_mut(nets).unwrap().settle() {
            Ok(()) => same(&mut world, roots[1]),
            Err(error) => {
                assert_eq!(what, "no contents", "{error}");
                assert!(read(&world, roots[1], "0.0.weight").is_err());
            }
        }
        read(&world, roots[0], "0.0.weight").unwrap();
    }
}

#[test]
fn what_changes_no_structure_is_no_edit() {
    #[derive(Component)]
    struct Sprite;
    let deeds: [fn(&mut World, Entity); 5] = [
        |world, root| {
            world.spawn((Sprite, ChildOf(root)));
        },
        |world, root| {
            let head = below(world, root, 2);
            world.entity_mut(head).insert(Linear::new(3, 2));
        },
        |world, root| {
            world.module_mut(root).unwrap().register_forward_hook(|_, _, _| Ok(None)).unwrap();
        },
        |world, root| {
            let body = below(world, root, 0);
            for _ in 0..2 {
                world.get_mut::<Children>(body).unwrap().collection_mut_risky().swap(0, 1);
            }
        },
        |world, root| {
            let head = below(world, root, 2);
            world.entity_mut(head).insert(Linear::new(3, 4));
            world.entity_mut(head).insert(Linear::new(3, 2));
        },
    ];
    for deed in deeds {
        let (mut world, nets, roots) = spawn();
        train(&mut world, nets);
        let numbers = read(&world, roots[1], "2.weight").unwrap();
        deed(&mut world, roots[1]);
        assert_eq!(read(&world, roots[1], "2.weight").unwrap(), numbers);
        world.despawn(roots[3]);
        assert_eq!(read(&world, roots[1], "2.weight").unwrap(), numbers);
        world.population_mut(nets).unwrap().settle().unwrap();
        same(&mut world, roots[1]);
    }
}

#[test]
fn an_exclusive_read_after_an_edit_has_what_the_edit_made() {
    let (mut world, _, roots) = spawn();
    let head = world.module_mut(roots[1]).unwrap().at("2").unwrap().id();
    world.entity_mut(head).insert(Linear::new(3, 4).without_bias());
    assert_eq!(world.module_mut(head).unwrap().parameter::<f32>("weight").unwrap().shape(), [4, 3]);
    assert_eq!(Parameters::from(&world).parameter::<f32>(head, "weight").unwrap().shape(), [4, 3]);
    let scale = Value::drawn_parameter([2], Init::Ones);
    world.module_mut(head).unwrap().register_parameter("scale", scale).unwrap();
    assert_eq!(read(&world, head, "scale").unwrap(), [1.0, 1.0]);
}

#[test]
fn models_that_come_and_go_do_not_hide_the_others() {
    let (mut world, nets, roots) = spawn();
    train(&mut world, nets);
    // Models of two structures.
    let head = world.module_mut(roots[1]).unwrap().at("2").unwrap().id();
    world.entity_mut(head).insert(Linear::new(3, 4).without_bias());
    world.population_mut(nets).unwrap().settle().unwrap();
    let numbers = world.module_mut(roots[3]).unwrap().parameter::<f32>("0.0.weight").unwrap();
    let edited = world.module_mut(roots[1]).unwrap().parameter::<f32>("0.0.weight").unwrap();
    world.despawn(roots[0]);
    let parameters = Parameters::from(&world);
    assert_eq!(parameters.parameter::<f32>(roots[3], "1.weight").unwrap(), numbers);
    assert_eq!(parameters.parameter::<f32>(roots[1], "0.0.weight").unwrap(), edited);
    assert_eq!(read(&world, roots[0], "0.0.weight"), Err(AccessError::NotAModule(roots[0])));
    // A clone by bevy's own call waits to be signed.
    let copy = world.entity_mut(roots[3]).clone_and_spawn();
    let error = read(&world, copy, "0.0.weight").unwrap_err();
    assert_eq!(error, AccessError::Unsettled { index: 3, path: "Sequential".to_owned() });
    assert_eq!(Parameters::from(&world).parameter::<f32>(roots[3], "1.weight").unwrap(), numbers);
    world.population_mut(nets).unwrap().settle().unwrap();
    for root in [roots[1], roots[2], roots[3]] {
        same(&mut world, root);
    }
    let spawned = world.population_mut(nets).unwrap().spawn_models(2).unwrap();
    read(&world, spawned[1], "0.0.weight").unwrap();
}

#[test]
fn without_what_neurarch_keeps_reading_is_an_error() {
    let (mut world, nets, roots) = spawn();
    train(&mut world, nets);
    let columns = world.remove_resource::<Columns>().unwrap();
    let error = read(&world, roots[0], "2.bias").unwrap_err().to_string();
    assert!(error.contains("the resource Columns"), "{error}");
    world.insert_resource(columns);
    read(&world, roots[0], "2.bias").unwrap();
    let ids: Vec<_> = Columns::all(&world).to_vec();
    world.entity_mut(nets).remove_by_ids(&ids);
    let error = read(&world, roots[0], "2.bias").unwrap_err().to_string();
    assert!(error.contains("2.bias: its parameter was removed"), "{error}");
    let head = below(&world, roots[2], 2);
    world.entity_mut(head).remove_by_ids(&ids);
    assert!(read(&world, head, "weight").is_err());
}
