//! Systems write by commands: the same as the exclusive call, when they are applied.

use std::sync::{Arc, Mutex};

use ndarray::{Array1, Array2, Array3};
use neurarch::bevy_ecs::error::{BevyError, ErrorContext, FallbackErrorHandler};
use neurarch::bevy_ecs::prelude::*;
use neurarch::bevy_ecs::schedule::Schedule;
use neurarch::prelude::*;
use neurarch::systems::system_params::commands;

use super::{MODELS, read, same, spawn, train, x, y};

#[derive(Component)]
struct Marked;

#[derive(Resource)]
struct Nets(Entity, Vec<Entity>);

/// Writes what it reads, doubled: a parameter of a module by its own entity, a tied one and a shared one.
fn double(nets: Res<Nets>, parameters: Parameters, mut commands: Commands) -> Result {
    let root = nets.1[1];
    for name in ["0.1.running_mean", "1.weight", "2.bias"] {
        commands.set_parameter(root, name, &parameters.parameter::<f32>(root, name)? * 2.0);
    }
    Ok(())
}

#[test]
fn what_commands_write_is_there_after_the_sync_point_for_all_who_have_it() {
    let (mut world, nets, roots) = spawn();
    train(&mut world, nets);
    let mean = world.module_mut(roots[1]).unwrap().parameter::<f32>("0.1.running_mean").unwrap();
    let weight = world.module_mut(roots[1]).unwrap().parameter::<f32>("0.0.weight").unwrap();
    let other = world.module_mut(roots[2]).unwrap().parameter::<f32>("0.0.weight").unwrap();
    let bias = world.module_mut(roots[3]).unwrap().parameter::<f32>("2.bias").unwrap();
    fn check(nets: Res<Nets>, parameters: Parameters, mut commands: Commands) -> Result {
        let bias = parameters.parameter::<f32>(nets.1[0], "2.bias")?;
        commands.insert_resource(Bias(bias.iter().copied().collect()));
        Ok(())
    }
    #[derive(Resource)]
    struct Bias(Vec<f32>);
    world.insert_resource(Nets(nets, roots.clone()));
    // The rows of one module lie in another table than its neighbors'.
    let moved = world.module_mut(roots[1]).unwrap().at("0.0").unwrap().id();
    world.entity_mut(moved).insert(Marked);
    let mut schedule = Schedule::default();
    schedule.add_systems((double, check).chain());
    schedule.run(&mut world);
    assert_eq!(world.resource::<Bias>().0, (&bias * 2.0).iter().copied().collect::<Vec<_>>());
    assert_eq!(
        world.module_mut(roots[1]).unwrap().parameter::<f32>("0.1.running_mean").unwrap(),
        mean * 2.0
    );
    assert_eq!(
        world.module_mut(roots[1]).unwrap().parameter::<f32>("0.0.weight").unwrap(),
        weight * 2.0
    );
    assert_eq!(world.module_mut(roots[2]).unwrap().parameter::<f32>("0.0.weight").unwrap(), other);
    assert_eq!(world.module_mut(roots[2]).unwrap().parameter::<f32>("2.bias").unwrap(), bias * 2.0);
    roots.iter().for_each(|&root| same(&mut world, root));
}

/// What `backward` says after a deed behind the loss, and the loss of the next step.
fn between(deed: impl Fn(&mut World, Entity, Entity)) -> (Result<(), String>, Vec<f32>) {
    let (mut world, nets, roots) = spawn();
    train(&mut world, nets);
    world.population_mut(nets).unwrap().forward(&x(MODELS)).unwrap();
    let loss = CrossEntropyLoss::default();
    world.population_mut(nets).unwrap().loss::<f32, _>(&y(MODELS), &loss).unwrap();
    deed(&mut world, nets, roots[2]);
    let said = world.population_mut(nets).unwrap().backward().map_err(|error| error.to_string());
    let losses =
        world.population_mut(nets).unwrap().train_step(&x(MODELS), &y(MODELS), &loss).unwrap();
    (said, losses.to_vec())
}

#[test]
fn a_step_notices_what_commands_wrote_as_it_notices_the_exclusive_call() {
    let ones = || Array2::<f32>::ones((2, 3));
    let all = || Array3::<f32>::ones((MODELS, 2, 3));
    let (said, untouched) = between(|_, _, _| {});
    assert_eq!(said, Ok(()));
    let exclusive = between(|world, _, root| {
        world.module_mut(root).unwrap().set_parameter("2.weight", ones().view()).unwrap();
    });
    let (said, losses) = &exclusive;
    assert!(said.as_ref().unwrap_err().contains("modified by an inplace operation"), "{said:?}");
    assert_ne!(losses[2], untouched[2]);
    let deferred = between(|world, _, root| {
        world.commands().set_parameter(root, "2.weight", ones());
        world.flush();
    });
    assert_eq!(deferred, exclusive);
    let exclusive = between(|world, nets, _| {
        world.population_mut(nets).unwrap().unstack("2.weight", all().view()).unwrap();
    });
    assert!(exclusive.0.is_err());
    let deferred = between(|world, nets, _| {
        world.commands().unstack(nets, "2.weight", all());
        world.flush();
    });
    assert_eq!(deferred, exclusive);
}

#[test]
fn a_gradient_that_commands_wrote_is_what_the_step_takes() {
    let [exclusive, deferred] = [false, true].map(|is_deferred| {
        let (mut world, nets, roots) = spawn();
        train(&mut world, nets);
        let ones = Array2::<f32>::ones((2, 3));
        match is_deferred {
            true => {
                let mut commands = world.commands();
                commands.set_gradient(roots[1], "2.weight", Some(ones));
                commands.set_gradient::<f32, ndarray::Ix2>(roots[2], "2.weight", None);
                world.flush();
            }
            false => {
                world
                    .module_mut(roots[1])
                    .unwrap()
                    .set_gradient("2.weight", Some(ones.view()))
                    .unwrap();
                let none = None::<ndarray::ArrayView2<f32>>;
                world.module_mut(roots[2]).unwrap().set_gradient("2.weight", none).unwrap();
            }
        }
        let parameters = Parameters::from(&world);
        assert_eq!(parameters.gradient::<f32>(roots[2], "2.weight").unwrap(), None);
        let gradient = parameters.gradient::<f32>(roots[1], "2.weight").unwrap().unwrap();
        assert!(gradient.iter().all(|&x| x == 1.0));
        world.population_mut(nets).unwrap().step().unwrap();
        world.population_mut(nets).unwrap().stack::<f32>("2.weight").unwrap()
    });
    assert_eq!(deferred, exclusive);
}

static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn keep(error: BevyError, context: ErrorContext) {
    let kind = if matches!(context, ErrorContext::Command { .. }) { "command" } else { "other" };
    let error = error.to_string();
    SAID.lock().unwrap().push(format!("{kind}: {}", error.lines().next().unwrap_or_default()));
}

#[test]
fn what_cannot_be_written_goes_to_bevys_error_handler_and_the_rest_is_written() {
    let (mut world, nets, roots) = spawn();
    let lazy = world.spawn_population(&LazyLinear::new(2), 1, Seed(1)).unwrap().id();
    let lazy = world.population(lazy).unwrap().models()[0];
    let plain = world.spawn_empty().id();
    world.insert_resource(FallbackErrorHandler(keep));
    world.insert_resource(Nets(nets, vec![roots[0], roots[1], lazy, plain]));
    let before = world.module_mut(roots[0]).unwrap().state_dict().unwrap();
    let gone = roots[3];
    fn write(nets: Res<Nets>, mut commands: Commands) {
        let [root, _, lazy, plain] = nets.1[..] else { return };
        commands.set_parameter(root, "2.weight", Array1::<f32>::zeros(3));
        commands.set_parameter(root, "2.weight", Array2::<f64>::zeros((2, 3)));
        commands.set_parameter(root, "2.scale", Array1::<f32>::zeros(3));
        commands.set_parameter(lazy, "weight", Array2::<f32>::zeros((2, 3)));
        commands.set_parameter(plain, "weight", Array2::<f32>::zeros((2, 3)));
        commands.unstack(nets.0, "2.weight", Array2::<f32>::zeros((2, 3)));
        commands.set_gradient(root, "0.1.running_mean", Some(Array1::<f32>::zeros(3)));
        commands.set_parameter(nets.1[1], "2.weight", Array2::<f32>::ones((2, 3)));
    }
    let mut schedule = Schedule::default();
    schedule.add_systems(write);
    schedule.run(&mut world);
    let mismatch = "size mismatch for 2.weight: copying a param with shape";
    let said = std::mem::take(&mut *SAID.lock().unwrap());
    assert_eq!(said.len(), 7, "{said:?}");
    assert_eq!(said[0], format!("command: {mismatch} [3], the shape in current model is [2, 3]"));
    assert_eq!(said[1], "command: '2.weight': expected elements of f32, got f64");
    assert_eq!(said[2], "command: Sequential has no parameter or buffer '2.scale'");
    assert!(
        said[3].contains("Can't access the shape of an uninitialized parameter"),
        "{}",
        said[3]
    );
    assert_eq!(said[4], format!("command: {plain} is no module of a model"));
    assert_eq!(
        said[5],
        format!("command: {mismatch} [2, 3], the shape in current model is [4, 2, 3]")
    );
    assert_eq!(said[6], "command: Sequential has no parameter or buffer '0.1.running_mean'");
    assert_eq!(world.module_mut(roots[0]).unwrap().state_dict().unwrap(), before);
    assert_eq!(read(&world, roots[1], "2.weight").unwrap(), [1.0; 6]);
    // A handler of one's own for one command; the model goes before the command is applied.
    let said = Arc::new(Mutex::new(Vec::new()));
    let to = said.clone();
    let mut queue = world.commands();
    queue.entity(gone).despawn();
    let write = commands::set_parameter(gone, "2.weight", Array2::<f32>::ones((2, 3)));
    queue.queue_handled(write, move |error, _| to.lock().unwrap().push(error.to_string()));
    world.flush();
    let said = said.lock().unwrap();
    assert!(said[0].starts_with(&format!("{gone} is no module of a model")), "{said:?}");
}

#[test]
fn a_command_behind_an_edit_writes_to_what_the_edit_made() {
    let (mut world, _, roots) = spawn();
    let head = world.module_mut(roots[1]).unwrap().at("2").unwrap().id();
    let mut commands = world.commands();
    commands.entity(head).insert(Linear::new(3, 4).without_bias());
    commands.set_parameter(head, "weight", Array2::<f32>::ones((4, 3)));
    world.flush();
    assert_eq!(read(&world, roots[1], "2.weight").unwrap(), [1.0; 12]);
}
