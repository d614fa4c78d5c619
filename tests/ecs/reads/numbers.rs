//! What systems read is what there is.

use std::sync::Mutex;

use ndarray::ArrayD;
use neurarch::bevy_ecs::prelude::*;
use neurarch::bevy_ecs::schedule::Schedule;
use neurarch::bevy_ecs::system::{IntoSystem, System};
use neurarch::prelude::*;
use neurarch::systems::structure::access::AccessError;

use super::{read, same, spawn, train};

#[derive(Component)]
struct Marked;

#[derive(Resource)]
struct Nets(Entity);

#[derive(Component)]
struct Health(f32);

/// What a system saw of the first model.
struct Look {
    tied_weight: ArrayD<f32>,
    shared_bias: ArrayD<f32>,
    running_mean: ArrayD<f32>,
    gradient: ArrayD<f32>,
    state: Vec<Tensor>,
}

#[derive(Resource, Default)]
struct Seen(Mutex<Option<Look>>);

fn look(nets: Res<Nets>, worlds: &World, parameters: Parameters, seen: Res<Seen>) -> Result {
    let root = worlds.population(nets.0)?.models()[0];
    let gradient = parameters.gradient::<f32>(root, "1.weight")?.ok_or("no gradient")?;
    *seen.0.lock().unwrap() = Some(Look {
        tied_weight: parameters.parameter::<f32>(root, "1.weight")?.to_owned(),
        shared_bias: parameters.parameter::<f32>(root, "2.bias")?.to_owned(),
        running_mean: parameters.parameter::<f32>(root, "0.1.running_mean")?.to_owned(),
        gradient: gradient.to_owned(),
        state: parameters.optimizer_state(root, "1.weight")?,
    });
    Ok(())
}

fn sum(layers: Query<(Entity, &Linear)>, parameters: Parameters) -> Result {
    for (entity, layer) in &layers {
        let weight = parameters.parameter::<f32>(entity, "weight")?;
        assert_eq!(weight.shape(), [layer.out_features, layer.in_features]);
    }
    Ok(())
}

fn heal(mut all: Query<&mut Health>) {
    all.iter_mut().for_each(|mut health| health.0 += 1.0);
}

fn learn(world: &mut World) {
    let nets = world.resource::<Nets>().0;
    train(world, nets);
}

#[test]
fn a_system_reads_beside_others_what_training_wrote() {
    let (mut world, nets, roots) = spawn();
    world.insert_resource(Nets(nets));
    world.insert_resource(Seen::default());
    let hero = world.spawn(Health(0.0)).id();
    let mut schedule = Schedule::default();
    schedule.add_systems((learn, (look, sum, heal)).chain());
    for turn in 0..3 {
        // A tag moves one row to another table in each turn.
        world.entity_mut(roots[turn]).insert(Marked);
        let module = world.module_mut(roots[0]).unwrap().at("0.0").unwrap().id();
        match turn {
            0 => drop(world.entity_mut(module).insert(Marked)),
            _ => drop(world.entity_mut(module).remove::<Marked>()),
        }
        schedule.run(&mut world);
        let seen = world.resource::<Seen>().0.lock().unwrap().take().unwrap();
        let root = roots[0];
        assert_eq!(
            seen.tied_weight,
            world.module_mut(root).unwrap().parameter::<f32>("0.0.weight").unwrap()
        );
        assert_eq!(
            seen.shared_bias,
            world.module_mut(roots[3]).unwrap().parameter::<f32>("2.bias").unwrap()
        );
        assert_eq!(
            seen.running_mean,
            world.module_mut(root).unwrap().parameter::<f32>("0.1.running_mean").unwrap()
        );
        assert_eq!(
            Some(seen.gradient),
            world.module_mut(root).unwrap().gradient::<f32>("0.0.weight").unwrap()
        );
        let names: Vec<_> = seen.state.iter().map(|state| state.name.as_str()).collect();
        assert_eq!(names, ["step", "exp_avg", "exp_avg_sq"]);
        let steps = seen.state[0].to_array::<f32>().unwrap();
        assert_eq!(steps.first(), Some(&(1.0 + turn as f32)));
        assert_eq!(
            seen.state,
            world.module_mut(root).unwrap().optimizer_state("0.0.weight").unwrap()
        );
        roots.iter().for_each(|&root| same(&mut world, root));
    }
    assert_eq!(world.get::<Health>(hero).unwrap().0, 3.0);
}

#[test]
fn readers_share_the_world_and_read_at_once() {
    let (mut world, nets, roots) = spawn();
    train(&mut world, nets);
    let [mut one, mut other] = [sum, sum].map(IntoSystem::<(), (), _>::into_system);
    let (one, other) = (one.initialize(&mut world), other.initialize(&mut world));
    assert!(one.is_compatible(&other));
    let expected = world.population_mut(nets).unwrap().stack::<f32>("1.weight").unwrap();
    let parameters = Parameters::from(&world);
    std::thread::scope(|scope| {
        for (&root, expected) in roots.iter().zip(expected.outer_iter()) {
            scope.spawn(move || {
                for _ in 0..50 {
                    let read = parameters.parameter::<f32>(root, "1.weight").unwrap();
                    assert_eq!(read, expected);
                }
            });
        }
    });
}

#[test]
fn a_shared_parameter_has_one_gradient_and_one_state() {
    let (mut world, nets, roots) = spawn();
    let parameters = Parameters::from(&world);
    assert_eq!(parameters.gradient::<f32>(roots[0], "2.bias").unwrap(), None);
    assert_eq!(parameters.optimizer_state(roots[0], "2.bias").unwrap(), []);
    train(&mut world, nets);
    let parameters = Parameters::from(&world);
    let of = |root| parameters.optimizer_state(root, "2.bias").unwrap();
    let names: Vec<_> = of(roots[0]).iter().map(|state| state.name.clone()).collect();
    assert_eq!(names, ["step", "exp_avg", "exp_avg_sq"]);
    assert_eq!(of(roots[0]), of(roots[3]));
    let gradient = parameters.gradient::<f32>(roots[0], "2.bias").unwrap().unwrap();
    let average = of(roots[0])[1].to_array::<f32>().unwrap();
    for (average, gradient) in average.iter().zip(&gradient) {
        assert!((average - 0.1 * gradient).abs() < 1e-7, "{average} of {gradient}");
    }
    // The population's own optimizer comes before those of the models.
    world.population_mut(nets).unwrap().insert(SGD { momentum: 0.5, ..SGD::default() }).unwrap();
    world.entity_mut(nets).insert(Adagrad::default());
    let own = Parameters::from(&world).optimizer_state(roots[1], "2.bias").unwrap();
    assert!(own.iter().any(|state| state.name == "sum"), "{own:?}");
}

#[test]
fn modules_are_read_by_their_own_entities_and_by_paths() {
    let (mut world, nets, roots) = spawn();
    train(&mut world, nets);
    let body = world.module_mut(roots[1]).unwrap().at("0").unwrap().id();
    let norm = world.module_mut(roots[1]).unwrap().at("0.1").unwrap().id();
    let mean = world.module_mut(roots[1]).unwrap().parameter::<f32>("0.1.running_mean").unwrap();
    assert_eq!(world.module_mut(norm).unwrap().parameter::<f32>("running_mean").unwrap(), mean);
    let parameters = Parameters::from(&world);
    assert_eq!(parameters.parameter::<f32>(norm, "running_mean").unwrap(), mean);
    assert_eq!(parameters.parameter::<f32>(body, "1.running_mean").unwrap(), mean);
    let count = parameters.parameter::<i64>(norm, "num_batches_tracked").unwrap();
    assert_eq!(count.first(), Some(&1));
    // A tied weight is the owner's, also by the entity of the module that it is tied in.
    let tied = world.module_mut(roots[1]).unwrap().at("1").unwrap().id();
    let weight = world.module_mut(roots[1]).unwrap().parameter::<f32>("0.0.weight").unwrap();
    assert_eq!(Parameters::from(&world).parameter::<f32>(tied, "weight").unwrap(), weight);
    // And so is one below a second name.
    let alias = world.module_mut(roots[1]).unwrap().share("again", body).unwrap();
    assert_eq!(Parameters::from(&world).parameter::<f32>(alias, "1.running_mean").unwrap(), mean);
    assert_eq!(
        Parameters::from(&world).parameter::<f32>(roots[1], "again.1.running_mean").unwrap(),
        mean
    );
}

#[test]
fn what_is_not_there_is_an_error_in_words() {
    let (mut world, nets, roots) = spawn();
    let lazy = world.spawn_population(&LazyLinear::new(2), 1, Seed(1)).unwrap().id();
    let lazy = world.population(lazy).unwrap().models()[0];
    let plain = world.spawn(Health(1.0)).id();
    let below = world.spawn((Health(1.0), ChildOf(roots[2]))).id();
    world.population_mut(nets).unwrap().settle().unwrap();
    let gone = world.module_mut(roots[3]).unwrap().at("2").unwrap().id();
    world.despawn(roots[3]);
    let parameters = Parameters::from(&world);
    for entity in [plain, below, nets, gone, roots[3]] {
        let error = AccessError::NotAModule(entity);
        assert_eq!(read(&world, entity, "weight"), Err(error.clone()));
        assert_eq!(parameters.gradient::<f32>(entity, "weight"), Err(error.clone()));
        assert_eq!(parameters.optimizer_state(entity, "weight"), Err(error.clone()));
        assert_eq!(parameters.named_parameters(entity), Err(error.clone()));
        assert_eq!(parameters.state_dict(entity).unwrap_err().to_string(), error.to_string());
    }
    let say = |name| read(&world, roots[0], name).unwrap_err().to_string();
    assert_eq!(say("2.scale"), "Sequential has no parameter or buffer '2.scale'");
    assert_eq!(say("7.weight"), "Sequential has no parameter or buffer '7.weight'");
    let error = parameters.parameter::<f64>(roots[0], "2.weight").unwrap_err().to_string();
    assert_eq!(error, "'2.weight': expected elements of f32, got f64");
    let error = parameters.optimizer_state(roots[0], "0.1.running_mean").unwrap_err().to_string();
    assert_eq!(error, "Sequential has no parameter or buffer '0.1.running_mean'");
    let error = read(&world, lazy, "weight").unwrap_err().to_string();
    assert!(error.contains("Can't access the shape of an uninitialized parameter"), "{error}");
    assert!(parameters.state_dict(lazy).unwrap()[0].is_uninitialized());
}
