//! Brains in a game: `cargo bench --features app --bench game -- --json`.
//!
//! Thinking from components to components beside a forward pass on bare arrays, the same pass while brains die and are
//! born, births and deaths by themselves, an app without models. What is compared runs in turns, and medians count.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark panics, and prints what it measured"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bevy_app::prelude::*;
use bevy_time::{TimePlugin, TimeUpdateStrategy};
use bytemuck::{Pod, Zeroable};
use clap::Parser;
use ndarray::Array2;
use neurarch::bevy_ecs::prelude::*;
use neurarch::bevy_ecs::system::{IntoSystem, System};
use neurarch::functions::step::forward_into;
use neurarch::plugin::{Birth, Brain, BrainOf, Brains, NeurarchPlugin, Parking, bear, park, think};
use neurarch::prelude::*;

#[derive(Parser)]
struct Options {
    /// Prints lines of JSON.
    #[arg(long)]
    json: bool,
    /// How many brains there are, in the cases of 10,000.
    #[arg(long, default_value_t = 10_000)]
    brains: usize,
    /// How often each side runs.
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Component, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Sight([f32; 6]);

#[derive(Component, Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Steer([f32; 2]);

#[derive(Component)]
struct Tag<const N: usize>;

fn main() {
    let options = Options::parse();
    for brains in [options.brains, 10 * options.brains] {
        let rounds = options.rounds * options.brains / brains;
        let [own, bare] = thinking(brains, rounds.max(20));
        line(&options, "think", brains, own, Some(("forward on bare arrays", bare)));
    }
    let [with, without, birth, death] = turnover(options.brains, options.rounds);
    line(&options, "think, 1 % turnover", options.brains, with, Some(("think", without)));
    line(&options, "one birth from a parked row", options.brains, birth, None);
    line(&options, "one death", options.brains, death, None);
    let [own, none] = empty_app(options.rounds * 50);
    line(&options, "a frame without models", 0, own, Some(("a frame without the plugin", none)));
}

/// A world of bodies in eight tables, and their brains, whose order is another one.
fn world(count: usize) -> (World, Entity) {
    let mut world = World::new();
    let net = Sequential::new()
        .push(Linear::new(6, 16))
        .push(Tanh)
        .push(Linear::new(16, 16))
        .push(Tanh)
        .push(Linear::new(16, 2));
    let brains = world.spawn_population(&net, count, Seed(7)).unwrap().id();
    let models = world.population(brains).unwrap().models().to_vec();
    for number in 0..count {
        let mut body = world.spawn((Sight([number as f32 / count as f32; 6]), Steer::default()));
        if number & 1 == 1 {
            body.insert(Tag::<0>);
        }
        if number & 2 == 2 {
            body.insert(Tag::<1>);
        }
        if number & 4 == 4 {
            body.insert(Tag::<2>);
        }
        let body = body.id();
        world.entity_mut(models[(number * 7 + 3) % count]).insert(BrainOf(body));
    }
    (world, brains)
}

/// Thinking, and a forward pass on bare arrays.
fn thinking(count: usize, rounds: usize) -> [Duration; 2] {
    let (mut world, brains) = world(count);
    let mut system = think::<Sight, Steer>(brains);
    let x = Array2::<f32>::from_elem((count, 6), 0.5);
    let mut y = Array2::<f32>::zeros((count, 2));
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        all[0].push(time(|| system(&mut world).unwrap()));
        all[1].push(time(|| {
            world
                .no_grad(|world| forward_into(world, brains, black_box(x.view()), y.view_mut()))
                .unwrap();
        }));
    }
    all.map(median)
}

/// Thinking after one in a hundred died and was born, thinking in a world where nobody dies; a birth and a death by
/// themselves.
fn turnover(count: usize, rounds: usize) -> [Duration; 4] {
    let ((mut world, brains), (mut calm, others)) = (world(count), world(count));
    world.entity_mut(brains).insert(Parking::default());
    let mut system = think::<Sight, Steer>(brains);
    let mut still = think::<Sight, Steer>(others);
    let share = count / 100;
    let mut tick = 0;
    let dies =
        move |mut commands: Commands, bodies: Query<(Entity, &Brain)>, mut brains: Brains| {
            let mut all: Vec<Entity> = bodies.iter().map(|(body, _)| body).collect();
            all.sort_unstable();
            let parent = all[(tick * 13 + 7) % all.len()];
            for number in 0..share {
                let body = all[(tick * 31 + number * 97) % all.len()];
                if body != parent {
                    brains.kill(body);
                    let new = commands.spawn((Sight([0.1; 6]), Steer::default())).id();
                    commands.entity(body).despawn();
                    brains.clone_brain(new, parent);
                }
            }
            tick += 1;
        };
    let mut dies = IntoSystem::into_system(dies);
    dies.initialize(&mut world);
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        dies.run((), &mut world).unwrap();
        all[0].push(time(|| system(&mut world).unwrap()));
        all[1].push(time(|| still(&mut calm).unwrap()));
    }
    let mut alone = [Vec::new(), Vec::new()];
    let models = world.population(brains).unwrap().models().to_vec();
    for round in 0..rounds {
        let dead: Vec<_> =
            (0..share).map(|number| models[(round * 31 + number * 97) % models.len()]).collect();
        let parent = models.iter().copied().find(|model| !dead.contains(model)).unwrap();
        let births = vec![Birth::CloneOf(parent); share];
        alone[1].push(time(|| park(&mut world, &dead)) / share as u32);
        let born = time(|| drop(black_box(bear(&mut world, brains, &births).unwrap())));
        alone[0].push(born / share as u32);
    }
    let [with, without] = all.map(median);
    let [birth, death] = alone.map(median);
    [with, without, birth, death]
}

/// Frames of an app with the plugin and without.
fn empty_app(rounds: usize) -> [Duration; 2] {
    let mut apps = [true, false].map(|has_plugin| {
        let mut app = App::new();
        app.add_plugins(TimePlugin);
        app.insert_resource(TimeUpdateStrategy::ManualDuration(Duration::from_nanos(15_625_000)));
        if has_plugin {
            app.add_plugins(NeurarchPlugin::default());
        }
        app.finish();
        app.cleanup();
        app
    });
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        for (app, all) in apps.iter_mut().zip(&mut all) {
            all.push(time(|| app.update()));
        }
    }
    all.map(median)
}

fn time(deed: impl FnOnce()) -> Duration {
    let start = Instant::now();
    deed();
    start.elapsed()
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

fn line(
    options: &Options,
    name: &str,
    brains: usize,
    own: Duration,
    other: Option<(&str, Duration)>,
) {
    let us = own.as_secs_f64() * 1e6;
    let (beside, other) = other.map_or(("", f64::NAN), |(name, of)| (name, of.as_secs_f64() * 1e6));
    if options.json {
        let other = if other.is_nan() { None } else { Some(other) };
        let line = serde_json::json!({
            "case": name, "brains": brains, "us": us, "beside": beside, "beside_us": other,
            "ratio": other.map(|other| us / other), "more_us": other.map(|other| us - other),
        });
        println!("{line}");
    } else if other.is_nan() {
        println!("{name:<28} {brains:>7} brains  {us:>9.2} µs");
    } else {
        let ratio = us / other;
        println!(
            "{name:<28} {brains:>7} brains  {us:>9.2} µs, {ratio:.2} times {beside} ({other:.2} µs)"
        );
    }
}
