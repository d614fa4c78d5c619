//! Ten thousand brains learn to steer bodies to moving goals: in the loop, the worst die, and the best have offspring.
//!
//! ```text
//! cargo run --release --features app --example swarm
//! ```
//!
//! No window: a line of progress every now and then, and a picture of trajectories before and after in the end. The same
//! swarm in a window is in `examples/swarm_window`.

#![expect(clippy::print_stdout, reason = "a program talks to its user")]

mod picture;
mod simulation;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bevy_app::prelude::*;
use bevy_time::{TimePlugin, TimeUpdateStrategy};
use clap::Parser;
use neurarch::bevy_ecs::prelude::*;
use neurarch::prelude::*;

use picture::Trajectories;
use simulation::{Score, Swarm, SwarmPlugin};

#[derive(Parser)]
struct Options {
    /// How many bodies there are.
    #[arg(long, default_value_t = 10_000)]
    bodies: usize,
    /// How many ticks they live, 64 a second.
    #[arg(long, default_value_t = 3_000)]
    ticks: usize,
    /// What all random numbers follow from.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The folder of the picture.
    #[arg(long, default_value = "target/swarm")]
    out: PathBuf,
}

/// How many ticks trajectories are drawn of, and of how many bodies.
const DRAWN: usize = 100;
const BODIES_DRAWN: usize = 60;

fn main() -> Result<(), Box<dyn Error>> {
    let Options { bodies, ticks, seed, out } = Options::parse();
    let mut app = App::new();
    app.add_plugins((TimePlugin, SwarmPlugin { bodies, seed }));
    // A tick a frame, however long it takes.
    app.insert_resource(TimeUpdateStrategy::ManualDuration(Duration::from_nanos(15_625_000)));
    app.finish();
    app.cleanup();
    app.update(); // No time has passed in the first frame.

    let start = Instant::now();
    let (mut before, mut after) = (Trajectories::default(), Trajectories::default());
    println!("  tick  median distance    births    deaths  ms a tick");
    let mut first = f32::NAN;
    let mut last = f32::NAN;
    for tick in 0..ticks {
        app.update();
        if tick < DRAWN {
            before.follow(app.world_mut(), BODIES_DRAWN);
        } else if tick >= ticks.saturating_sub(DRAWN) {
            after.follow(app.world_mut(), BODIES_DRAWN);
        }
        if tick + 1 == DRAWN || (tick + 1) % 500 == 0 || tick + 1 == ticks {
            last = median_distance(app.world_mut());
            if first.is_nan() {
                first = last;
            }
            let swarm = app.world().resource::<Swarm>();
            let pace = start.elapsed().as_secs_f64() * 1e3 / (tick + 1) as f64;
            let (births, deaths) = (swarm.births, swarm.deaths);
            println!("{:>6}  {last:>15.3}  {births:>8}  {deaths:>8}  {pace:>9.2}", tick + 1);
        }
    }

    let swarm = app.world().resource::<Swarm>();
    let (brains, born) = (swarm.brains, swarm.births);
    let models = app.world().population(brains)?.models().len();
    println!("{models} brains in {} of memory, {born} of them born in the loop", bodies);
    assert_eq!(models, bodies, "births take over the rows of the dead");
    std::fs::create_dir_all(&out)?;
    let path = out.join("swarm.svg");
    std::fs::write(&path, picture::draw(&before, &after)?)?;
    println!("{}", path.display());
    if ticks >= 2_000 {
        assert!(last < first * 0.5, "the median distance falls from {first}, not to {last}");
    }
    Ok(())
}

/// The median of the bodies' distances from their goals.
fn median_distance(world: &mut World) -> f32 {
    let mut all: Vec<f32> =
        world.query::<&Score>().iter(world).map(|score| score.distance).collect();
    let middle = all.len() / 2;
    if all.is_empty() { f32::NAN } else { *all.select_nth_unstable_by(middle, f32::total_cmp).1 }
}
