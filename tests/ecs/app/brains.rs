//! Brains of bodies in an app whose systems do what games do.

use bytemuck::{Pod, Zeroable};
use neurarch::bevy_ecs::schedule::MultiThreadedExecutor;
use neurarch::plugin::{
    Brain, BrainCommands, BrainOf, Brains, Parking, StepSystems, ThinkEvery, stock, think,
};

use super::*;

#[derive(Component, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Sight([f32; 4]);

#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Steer([f32; 2]);

#[derive(Component)]
struct Tag<const N: usize>;

/// Births and deaths a tick: 64 times that is ten thousand a second.
const TURNOVER: usize = 157;

#[derive(Resource, Default)]
struct Tick(usize);

fn sight(i: usize) -> Sight {
    Sight(std::array::from_fn(|at| ((i * 7 + at * 5) % 13) as f32 / 6.0 - 1.0))
}

/// Some die, as many are born: of commands, of `Brains`, new ones and clones.
fn turn_over(
    mut commands: Commands,
    mut brains: Brains,
    mut tick: ResMut<Tick>,
    bodies: Query<(Entity, &Brain)>,
    populations: Query<Entity, With<Population>>,
) {
    tick.0 += 1;
    let mut all: Vec<_> = bodies.iter().map(|(body, brain)| (body, brain.id())).collect();
    all.sort_unstable();
    let Some(population) = populations.iter().next() else { return };
    for i in 0..TURNOVER {
        let (body, brain) = all[(tick.0 * 31 + i * 3) % all.len()];
        let parent = all[(tick.0 * 17 + i * 3 + 1) % all.len()].0;
        match i % 3 {
            0 => commands.entity(body).try_despawn(),
            1 => commands.entity(brain).try_despawn(),
            _ => brains.kill(body),
        }
        let new = commands.spawn((sight(tick.0 + i), Steer::default())).id();
        match i % 4 {
            0 => drop(commands.entity(new).with_brain(population)),
            1 => drop(commands.entity(new).clone_brain(parent)),
            2 => brains.spawn(new, population),
            _ => brains.mutate_brain(new, parent, Noise::normal(0.1)),
        }
    }
}

/// Tags bodies and modules, takes sights away and gives them back, puts bodies below others.
fn tamper(
    mut commands: Commands,
    tick: Res<Tick>,
    bodies: Query<(Entity, &Brain)>,
    layers: Query<Entity, With<Linear>>,
) {
    let mut all: Vec<_> = bodies.iter().map(|(body, brain)| (body, brain.id())).collect();
    all.sort_unstable();
    for (i, &(body, brain)) in all.iter().enumerate() {
        match (i + tick.0) % 11 {
            0 => drop(commands.entity(body).insert(Tag::<0>)),
            1 => drop(commands.entity(body).remove::<Tag<0>>()),
            2 => drop(commands.entity(brain).try_insert(Tag::<1>)),
            3 => drop(commands.entity(body).remove::<Sight>()),
            4 => drop(commands.entity(body).insert(sight(i))),
            5 => {
                // A flagship: bevy despawns the children with their parent.
                let flagship = all[(i * 7 + 1) % all.len()].0;
                if flagship != body {
                    commands.entity(body).insert(ChildOf(flagship)).remove::<ChildOf>();
                }
            }
            6 => {
                let other = all[(i * 5 + 2) % all.len()].0;
                commands.entity(brain).try_insert(BrainOf(other));
            }
            _ => {}
        }
    }
    for layer in layers.iter().take(5) {
        commands.entity(layer).try_insert(Tag::<2>);
    }
}

/// What each body has is what its own model gives for what it sees.
fn check(app: &mut App, population: Entity) -> usize {
    let world = app.world_mut();
    let models = world.population(population).unwrap().models().to_vec();
    let mut x = Array2::zeros((models.len(), 4));
    let mut bodies = vec![None; models.len()];
    for (index, &root) in models.iter().enumerate() {
        let body = world.get::<BrainOf>(root).map(|of| of.0);
        if let Some(&Sight(seen)) = body.and_then(|body| world.get::<Sight>(body)) {
            x.row_mut(index).iter_mut().zip(seen).for_each(|(x, seen)| *x = seen);
            bodies[index] = body;
        }
    }
    let mut brains = world.population_mut(population).unwrap();
    let y = brains.world_mut().no_grad(|world| world.population_mut(population)?.forward(&x));
    let y = y.unwrap();
    let mut seen = 0;
    for (index, body) in bodies.into_iter().enumerate() {
        let Some(body) = body else { continue };
        let expected = Steer([y[[index, 0]], y[[index, 1]]]);
        assert_eq!(app.world().get::<Steer>(body), Some(&expected), "model {index}");
        seen += 1;
    }
    seen
}

#[test]
fn ten_thousand_brains_a_second_come_and_go_in_an_app() {
    for parks in [true, false] {
        let mut app = app(NeurarchPlugin::default());
        app.edit_schedule(FixedUpdate, |schedule| {
            schedule.set_executor(MultiThreadedExecutor::new());
        });
        let world = app.world_mut();
        let brains = world.spawn_population(&brain(), 300, Seed(3)).unwrap().id();
        if parks {
            world.entity_mut(brains).insert(Parking::default());
            stock(world, brains, 100).unwrap();
        }
        let models = world.population(brains).unwrap().models().to_vec();
        for (i, &model) in models.iter().take(300).enumerate() {
            let body = world.spawn((sight(i), Steer::default())).id();
            world.entity_mut(model).insert(BrainOf(body));
        }
        world.init_resource::<Tick>();
        app.add_systems(FixedUpdate, think::<Sight, Steer>(brains).in_set(StepSystems::Forward));
        app.add_systems(FixedUpdate, (turn_over, tamper).chain().in_set(StepSystems::Observe));
        for tick in 0..40 {
            match tick {
                // Paused, and on.
                10 => app.world_mut().resource_mut::<bevy_time::Time<bevy_time::Virtual>>().pause(),
                13 => {
                    app.world_mut().resource_mut::<bevy_time::Time<bevy_time::Virtual>>().unpause()
                }
                // The schedule is changed while the app runs.
                20 => drop(app.add_systems(FixedUpdate, (|| {}).in_set(StepSystems::Act))),
                _ => {}
            }
            app.update();
            assert!(check(&mut app, brains) > 50, "tick {tick}");
        }
        assert_eq!(app.world().resource::<Tick>().0, 37);
        app.world_mut().entity_mut(brains).insert(ThinkEvery(2));
        (0..2).for_each(|_| app.update());
    }
}
