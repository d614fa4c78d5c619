//! Whatever a host does to entities, components and resources by bevy's own calls: the next call works or says what is
//! missing; nothing panics, hangs, or gives another model's numbers.

use std::error::Error;

use ndarray::{Array2, Array3};
use neurarch::bevy_ecs::component::ComponentId;
use neurarch::bevy_ecs::prelude::*;
use neurarch::bevy_ecs::relationship::RelationshipTarget;
use neurarch::components::column::Columns;
use neurarch::components::containers::MAX_DEPTH;
use neurarch::components::module::DynModule;
use neurarch::components::module::registry::ModuleTypes;
use neurarch::components::population::Population;
use neurarch::components::population::blueprints::Blueprints;
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::compile::plans::Plans;
use neurarch::systems::structure::sign::SignError;
use neurarch::systems::structure::spawn::SpawnError;

use crate::known::Known;

fn mlp() -> Sequential {
    Sequential::new().push(Linear::new(4, 8)).push(Tanh).push(Linear::new(8, 3))
}

/// A population that learned.
fn spawn(world: &mut World, models: usize) -> Entity {
    let population = world.spawn_population(&mlp(), models, Seed(1)).unwrap().id();
    world.brains(population).insert(Adam { lr: 0.1, ..Adam::default() }).unwrap();
    train(world, population).unwrap();
    population
}

fn data(models: usize) -> (Array3<f32>, Array2<i64>) {
    let x = Array3::from_shape_fn((models, 2, 4), |(m, i, j)| {
        ((m * 7 + i * 3 + j * 5) % 11) as f32 / 11.0 - 0.4
    });
    (x, Array2::from_shape_fn((models, 2), |(m, i)| ((m + i) % 3) as i64))
}

fn train(world: &mut World, population: Entity) -> Result<Vec<f32>, String> {
    let (x, y) =
        data(world.population(population).map(|brains| brains.models()).map_or(0, <[Entity]>::len));
    let losses = world.population_mut(population).map_err(|error| error.to_string())?.train_step(
        &x,
        &y,
        &CrossEntropyLoss::default(),
    );
    losses.map(|losses| losses.to_vec()).map_err(|error| error.to_string())
}

/// Calls most of what there is; gives what each call said.
fn call_all(
    world: &mut World,
    population: Entity,
    root: Entity,
) -> Vec<(&'static str, Result<(), String>)> {
    let models =
        world.population(population).map(|brains| brains.models()).map_or(0, <[Entity]>::len);
    let (x, y) = data(models);
    let loss = CrossEntropyLoss::default();
    let all = vec![0; models];
    let pairs = vec![(0, 0); models];
    let mut said = Vec::new();
    macro_rules! call {
        ($world:ident; $($name:literal: $call:expr),* $(,)?) => {
            $(
                let call = |$world: &mut World| -> Result<(), Box<dyn Error>> {
                    $call.map(drop).map_err(Box::from)
                };
                said.push(($name, call(world).map_err(|error| error.to_string())));
            )*
        };
    }
    call! { world;
        "forward": world.population_mut(population)?.forward(&x),
        "loss": world.population_mut(population)?.loss::<f32, i64>(&y, &loss),
        "backward": world.population_mut(population)?.backward(),
        "step": world.population_mut(population)?.step(),
        "train_step": world.population_mut(population)?.train_step(&x, &y, &loss),
        "zero_grad": world.population_mut(population)?.zero_grad(),
        "state_dict": world.module_mut(root)?.state_dict(),
        "stacked_state_dict": world.population_mut(population)?.stacked_state_dict(),
        "training_state": world.population_mut(population)?.training_state(),
        "parameters_to_vectors": world.population_mut(population)?.parameters_to_vectors::<f32>(),
        "clip_grad_norm_": world.population_mut(population)?.clip_grad_norm_(1.0),
        "perturb": world.population_mut(population)?.perturb(Noise::normal(0.1)),
        "overwrite": world.population_mut(population)?.overwrite(&all),
        "crossover": world.population_mut(population)?.crossover(&pairs),
        "ones_": neurarch::systems::init::ones_(world, population, "0.weight"),
        "stack": world.population_mut(population)?.stack::<f32>("0.weight"),
        "parameter": world.module_mut(root)?.parameter::<f32>("0.weight"),
        "gradient": world.module_mut(root)?.gradient::<f32>("0.weight"),
        "named_modules": world.module_mut(root)?.named_modules(),
        "share_parameter": world.population_mut(population)?.share_parameter("0.bias"),
        "train_step again": world.population_mut(population)?.train_step(&x, &y, &loss),
        "unshare_parameter": world.population_mut(population)?.unshare_parameter("0.bias"),
        "weight_norm": world.population_mut(population)?.at("0").weight_norm("weight", Some(0)),
        "append": world.module_mut(root)?.container().append(Tanh),
        "clone_models": world.population_mut(population)?.clone_models(&[0]),
        "spawn_models": world.population_mut(population)?.spawn_models(1),
        "insert": world.population_mut(population)?.insert(SGD::default()),
    }
    said
}

#[test]
fn columns_of_another_world_are_not_used() {
    #[derive(Component)]
    struct Own<const N: usize>(#[expect(dead_code, reason = "it is there to be dropped")] Box<u64>);
    fn register<const N: usize>(world: &mut World) {
        world.register_component::<Own<N>>();
    }
    let mut a = World::new();
    let of_a = spawn(&mut a, 2);
    let expected = train(&mut a, of_a).unwrap();
    let columns = a.remove_resource::<Columns>().unwrap();
    let mut b = World::new();
    // Components with destructors get the ids that markers and columns have in the other world.
    let registers: [fn(&mut World); 12] = [
        register::<0>,
        register::<1>,
        register::<2>,
        register::<3>,
        register::<4>,
        register::<5>,
        register::<6>,
        register::<7>,
        register::<8>,
        register::<9>,
        register::<10>,
        register::<11>,
    ];
    registers.iter().for_each(|register| register(&mut b));
    b.insert_resource(columns);
    let of_b = spawn(&mut b, 2);
    assert_eq!(train(&mut b, of_b).unwrap(), expected);
    assert_eq!(b.query::<&Own<3>>().iter(&b).count(), 0);
    drop(b);
}

#[test]
fn a_population_that_was_moved_is_none() {
    let (mut world, mut other) = (World::new(), World::new());
    let [one, two] = [2, 3].map(|models| spawn(&mut world, models));
    let stranger = spawn(&mut other, 3);
    let not_a_population = |world: &mut World, entity: Entity| {
        let said = match world.population_mut(entity) {
            Ok(mut brains) => brains.forward(&data(3).0).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert_eq!(said, SignError::NotAPopulation(entity).to_string());
    };
    let moved = world.entity_mut(two).take::<Population>().unwrap();
    let moved = world.spawn(moved).id();
    let from_other = other.entity_mut(stranger).take::<Population>().unwrap();
    let from_other = world.spawn(from_other).id();
    for entity in [two, moved, from_other] {
        not_a_population(&mut world, entity);
        assert!(call_all(&mut world, entity, entity).iter().any(|(_, said)| said.is_err()));
        world.despawn(entity);
    }
    // Exchanged in place, so that no hook sees it.
    let three = spawn(&mut world, 3);
    let mut query = world.query::<&mut Population>();
    let [mut a, mut b] = query.get_many_mut(&mut world, [one, three]).unwrap();
    std::mem::swap(&mut *a, &mut *b);
    for entity in [one, three] {
        not_a_population(&mut world, entity);
        world.despawn(entity);
    }
    spawn(&mut world, 2);
}

#[test]
fn without_its_resources_a_population_says_what_is_missing() {
    fn without<R: Resource>(is_needed: bool) {
        let mut world = World::new();
        let population = spawn(&mut world, 3);
        let root = world.population(population).unwrap().models()[0];
        world.remove_resource::<R>();
        let name = std::any::type_name::<R>().rsplit("::").next().unwrap();
        for (call, said) in call_all(&mut world, population, root) {
            match said {
                Ok(()) if is_needed => panic!("{call} works without {name}"),
                Err(error)
                    if ["forward", "train_step", "state_dict", "spawn_models"].contains(&call) =>
                {
                    assert!(error.contains(name), "{call}: {error}");
                }
                _ => {}
            }
        }
        // What comes after does not take the place of what was lost.
        let next = spawn(&mut world, 2);
        for (call, said) in call_all(&mut world, population, root) {
            assert!(!is_needed || name == "ModuleTypes" || said.is_err(), "{call}");
        }
        train(&mut world, next).unwrap();
        world.despawn(population);
        world.despawn(next);
    }
    without::<Blueprints>(true);
    without::<Columns>(true);
    without::<ModuleTypes>(true);
    without::<Plans>(false);
}

#[test]
fn without_any_of_its_components_a_module_says_what_is_missing_or_works() {
    for path in ["0", "1", ""] {
        for number in 0.. {
            let mut world = World::new();
            let population = spawn(&mut world, 2);
            let root = world.population(population).unwrap().models()[0];
            let module = world.part(root).at(path).unwrap().id();
            let ids = world.entity(module).archetype().components().to_vec();
            let Some(&id) = ids.get(number) else { break };
            let is_column = is_column(&world, id);
            world.entity_mut(module).remove_by_id(id);
            let said = call_all(&mut world, population, root);
            if is_column {
                let error = said[0].1.clone().expect_err("a column is missing");
                let path = if path.is_empty() { "Sequential" } else { path };
                assert!(error.starts_with(&format!("model 0, {path}: its ")), "{error}");
                assert!(error.ends_with("was removed"), "{error}");
                assert!(said.iter().all(|(_, said)| said.is_err()), "{said:?}");
                // Without that model the others go on.
                world.despawn(root);
                train(&mut world, population).unwrap();
            }
            world.despawn(population);
        }
    }
}

#[test]
fn without_any_of_its_components_a_population_says_what_is_missing_or_works() {
    let (mut found, mut missing) = (0, 0);
    for number in 0.. {
        let mut world = World::new();
        let population = spawn(&mut world, 2);
        world.brains(population).share_parameter("2.bias").unwrap();
        train(&mut world, population).unwrap();
        let root = world.population(population).unwrap().models()[0];
        let Some(&id) = world.entity(population).archetype().components().get(number) else {
            break;
        };
        let is_column = is_column(&world, id);
        world.entity_mut(population).remove_by_id(id);
        let said = call_all(&mut world, population, root);
        let errors = said.iter().filter_map(|(_, said)| said.clone().err());
        found += usize::from(is_column && errors.clone().count() == said.len());
        if is_column {
            let is_told = |error: String| error.ends_with("2.bias: its parameter was removed");
            missing += usize::from(errors.into_iter().any(is_told));
        }
        world.despawn(population);
    }
    assert_eq!((found, missing), (1, 1), "the shared row is one column");
}

/// Says whether a component is a column of numbers, which come after the markers.
fn is_column(world: &World, id: ComponentId) -> bool {
    const MARKERS: usize = 24;
    Columns::all(world)[MARKERS..].contains(&id)
}

#[test]
fn a_world_that_was_cleared_says_so_or_takes_new_models() {
    for clear in [World::clear_entities, World::clear_all] {
        let mut world = World::new();
        let population = spawn(&mut world, 3);
        clear(&mut world);
        let said = call_all(&mut world, population, population);
        assert!(said.iter().all(|(_, said)| said.is_err()), "{said:?}");
        // bevy takes no resource again that it had before.
        let error = world.spawn_population(&mlp(), 2, Seed(1)).unwrap_err();
        assert_eq!(error, SpawnError::Cleared);
    }
    let mut world = World::new();
    world.clear_all();
    spawn(&mut world, 2);
    world.clear_resources();
    let next = spawn(&mut world, 2);
    train(&mut world, next).unwrap();
}

#[test]
fn a_module_is_part_of_one_model_whatever_the_lists_of_children_say() {
    let mut world = World::new();
    let population = spawn(&mut world, 2);
    let before = world.brains(population).stack::<f32>("0.weight").unwrap();
    let [a, b] = *world.population(population).unwrap().models() else { panic!("two models") };
    let module = world.part(a).at("0").unwrap().id();
    for parent in [a, b] {
        let mut children = world.get_mut::<Children>(parent).unwrap();
        children.collection_mut_risky().insert(0, module);
    }
    assert_eq!(world.brains(population).stack::<f32>("0.weight").unwrap(), before);
    assert_eq!(world.part(b).named_modules().unwrap().len(), 4);
    train(&mut world, population).unwrap();
}

#[test]
fn modules_that_go_elsewhere_belong_where_they_are() {
    let mut world = World::new();
    let (p, q) = (spawn(&mut world, 3), spawn(&mut world, 2));
    let (a, b) =
        (world.population(p).unwrap().models()[0], world.population(q).unwrap().models()[0]);
    let module = world.part(a).at("0").unwrap().id();
    world.entity_mut(module).insert(ChildOf(b));
    assert!(train(&mut world, q).unwrap_err().contains("attribute '0' already exists"));
    assert!(train(&mut world, p).is_err(), "a model without its first layer");
    world.entity_mut(module).insert(ChildOf(a));
    assert!(train(&mut world, q).is_ok());
    // It is the last child now.
    assert_eq!(world.part(a).state_dict().unwrap().keys().next(), Some("2.weight"));

    let roots = world.population(q).unwrap().models().to_vec();
    world.entity_mut(roots[0]).insert(ChildOf(roots[1]));
    train(&mut world, q).unwrap();
    world.despawn(roots[1]);
    assert_eq!(world.population(q).unwrap().models().len(), 0);

    let p = spawn(&mut world, 2);
    let root = world.population(p).unwrap().models()[0];
    let child = world.part(root).at("0").unwrap().id();
    world.entity_mut(root).insert(ChildOf(child));
    for (call, said) in call_all(&mut world, p, root) {
        assert!(call == "insert" || said.is_err(), "{call}");
    }
    world.despawn(p);

    // A module below a cycle that it is no part of.
    let p = spawn(&mut world, 2);
    let module = world.part(world.population(p).unwrap().models()[0]).at("0").unwrap().id();
    let [one, two] = [(); 2].map(|()| world.spawn_empty().id());
    world.entity_mut(one).insert(ChildOf(two));
    world.entity_mut(two).insert(ChildOf(one));
    world.entity_mut(module).insert(ChildOf(one));
    world.entity_mut(module).insert(Linear::new(4, 9));
    assert!(train(&mut world, p).is_err());
    assert!(world.part(module).state_dict().is_err());
}

#[test]
fn modules_nested_too_deep_are_refused_and_a_model_of_the_greatest_depth_works() {
    let nest = |levels: usize| {
        let inner: Box<dyn DynModule> = Box::new(Linear::new(4, 4));
        (1..levels).fold(inner, |module, _| Box::new(Sequential::new().push(module)))
    };
    let mut world = World::new();
    let x = Array2::<f32>::ones((1, 4));
    let deepest = nest(MAX_DEPTH);
    let settings = PopulationSettings::default();
    let population = world.spawn_population_with(&*deepest, settings).unwrap().id();
    world.brains(population).insert(SGD::default()).unwrap();
    let y = world.brains(population).forward(&x).unwrap();
    world.brains(population).backward_from(&y).unwrap();
    world.brains(population).step().unwrap();
    let root = world.population(population).unwrap().models()[0];
    let state = world.part(root).state_dict().unwrap();
    world.part(root).load_state_dict(&state).unwrap();
    assert!(world.part(root).repr().unwrap().contains("Linear"));
    world.brains(population).forward(Input::from(&x).requires_grad()).unwrap();

    let (name, _) = world.part(root).named_modules().unwrap().pop().unwrap();
    let innermost = world.part(root).at(&name).unwrap().id();
    let error =
        world.part(innermost).add_module("more", Value::module(Tanh)).map(drop).unwrap_err();
    assert!(error.to_string().contains("levels deep"), "{error}");
    assert_eq!(world.part(root).state_dict().unwrap(), state);
    world.entity_mut(innermost).with_child(Tanh);
    let error = world.brains(population).forward(&x).unwrap_err();
    assert!(error.to_string().contains("levels deep"), "{error}");
    world.despawn(population);

    for levels in [MAX_DEPTH + 1, 4_000] {
        let error = world.spawn_population_with(&*nest(levels), settings).unwrap_err();
        assert!(matches!(error, SpawnError::Limit { .. }), "{error}");
    }
    // By an edit of the innermost container.
    let mut outer = Sequential::new().push(Sequential::new());
    let inner = outer.get_mut(0).unwrap().downcast_mut::<Sequential>().unwrap();
    *inner = Sequential::new().push(nest(MAX_DEPTH));
    assert!(world.spawn_population(&outer, 1, Seed(0)).map(|brains| brains.id()).is_err());
}

#[test]
fn sizes_beyond_all_memory_are_errors() {
    let mut world = World::new();
    let huge = [1 << 33, 1 << 40, 1 << 62, usize::MAX];
    for size in huge {
        let layer = TransformerEncoderLayer::new(4, 2);
        let modules: [Box<dyn DynModule>; 8] = [
            Box::new(LSTM { num_layers: size, ..LSTM::new(4, 4) }),
            Box::new(GRU { num_layers: size, bidirectional: true, ..GRU::new(4, 4) }),
            Box::new(RNN::new(size, size)),
            Box::new(TransformerEncoder::new(layer, size)),
            Box::new(Embedding::new(size, size)),
            Box::new(MultiheadAttention::new(size, 1)),
            Box::new(Conv2d::new(size, size, 3)),
            Box::new(GroupNorm::new(1, size)),
        ];
        for module in modules {
            let error = world
                .spawn_population_with(&*module, PopulationSettings::default())
                .map(|brains| brains.id());
            let error = error.map(drop).unwrap_err();
            let is_typed = matches!(error, SpawnError::Limit { .. } | SpawnError::Room(_));
            assert!(is_typed, "{}: {error}", module.type_name());
        }
        let settings = [
            PopulationSettings { models: size, ..PopulationSettings::default() },
            PopulationSettings { capacity: size, ..PopulationSettings::default() },
        ];
        for settings in settings {
            assert!(
                world.spawn_population_with(&Tanh, settings).map(|brains| brains.id()).is_err()
            );
        }
    }
    let most = u32::MAX as usize - 1;
    let settings = PopulationSettings { models: most, ..PopulationSettings::default() };
    assert!(world.spawn_population_with(&mlp(), settings).map(|brains| brains.id()).is_err());
    let population = spawn(&mut world, 2);
    assert!(world.brains(population).spawn_models(most).is_err());
    assert!(Sequential::new().push(Tanh).repeat(1 << 40).is_err());
    train(&mut world, population).unwrap();
}

#[test]
fn an_observer_that_despawns_what_is_being_spawned_leaves_fewer_modules() {
    let mut world = World::new();
    world.add_observer(|add: On<Add<Linear>>, mut commands: Commands| {
        commands.entity(add.entity).try_despawn();
    });
    let settings = PopulationSettings { models: 3, capacity: 5, ..PopulationSettings::default() };
    let linear = world.spawn_population_with(&Linear::new(4, 3), settings).unwrap().id();
    assert!(world.population(linear).unwrap().models().is_empty());
    assert!(
        world.brains(linear).spawn_models(2).is_ok_and(|_| world
            .population(linear)
            .unwrap()
            .models()
            .is_empty())
    );
    let population = world.spawn_population_with(&mlp(), settings).unwrap().id();
    assert_eq!(world.population(population).unwrap().models().len(), 3);
    let root = world.population(population).unwrap().models()[0];
    assert_eq!(world.part(root).named_modules().unwrap().len(), 2);
    world.brains(population).forward(&data(3).0).unwrap();
    for entity in [linear, population] {
        world.despawn(entity);
    }
}
