//! Two species learn against each other while the game runs: predators to catch, prey to escape, each brain from what it
//! did itself, by policy gradients, within a budget a frame.
//!
//! ```text
//! cargo run --release --features app --example predators
//! ```
//!
//! In the end trained ones meet untrained ones of both species, and a picture shows how often prey was caught.

#![expect(clippy::print_stdout, reason = "a program talks to its user")]

mod picture;
mod simulation;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bevy_app::prelude::*;
use bevy_time::{TimePlugin, TimeUpdateStrategy};
use clap::Parser;
use neurarch::plugin::{Progress, TrainingBudget, TrainingSpent};

use simulation::{Hunt, HuntPlugin, give_brains};

#[derive(Parser)]
struct Options {
    /// How many predators there are.
    #[arg(long, default_value_t = 100)]
    predators: usize,
    /// How much prey there is.
    #[arg(long, default_value_t = 1_000)]
    prey: usize,
    /// How many ticks they learn, 64 a second.
    #[arg(long, default_value_t = 12_000)]
    ticks: usize,
    /// How many milliseconds of a frame they may learn.
    #[arg(long, default_value_t = 4.0)]
    budget: f64,
    /// What all random numbers follow from.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The folder of the picture.
    #[arg(long, default_value = "target/predators")]
    out: PathBuf,
}

/// How many ticks are counted as one.
const COUNTED: usize = 200;
/// How many ticks a match lasts, after as many in which it settles.
const MATCH: usize = 400;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let (seed, bodies) = (options.seed, [options.predators, options.prey]);
    let budget = TrainingBudget::time(Duration::from_secs_f64(options.budget / 1e3));
    let mut app = App::new();
    app.add_plugins((TimePlugin, HuntPlugin { bodies, seed, budget }));
    // A tick a frame, however long it takes.
    app.insert_resource(TimeUpdateStrategy::ManualDuration(Duration::from_nanos(15_625_000)));
    app.finish();
    app.cleanup();
    app.update(); // No time has passed in the first frame.

    let start = Instant::now();
    let mut curve = Vec::new();
    println!("  tick  catches of {COUNTED} ticks  reward of a predator  of prey  ms a tick");
    for block in 1..=options.ticks / COUNTED {
        let hunt = app.world().resource::<Hunt>();
        let (caught, rewards) = (hunt.catches, hunt.rewards);
        (0..COUNTED).for_each(|_| app.update());
        let hunt = app.world().resource::<Hunt>();
        let caught = hunt.catches - caught;
        curve.push(caught as f32 / COUNTED as f32);
        if block % 5 == 0 || block == 1 {
            let reward =
                |of: usize| (hunt.rewards[of] - rewards[of]) / (COUNTED * bodies[of].max(1)) as f64;
            let pace = start.elapsed().as_secs_f64() * 1e3 / (block * COUNTED) as f64;
            let (tick, own, other) = (block * COUNTED, reward(0), reward(1));
            println!("{tick:>6}  {caught:>20}  {own:>20.3}  {other:>7.3}  {pace:>9.2}");
        }
    }
    for (name, of) in ["predator", "prey"].iter().zip(app.world().resource::<Hunt>().brains) {
        let progress = app.world().get::<Progress>(of.trained).ok_or("it learns")?;
        println!("brains of {name} were trained in {} rounds", progress.steps);
    }
    let late = app.world().resource::<TrainingSpent>().late;
    println!("{late} tiles began after the deadline of their frame");
    assert_eq!(late, 0);

    app.world_mut().resource_mut::<Hunt>().learns = false;
    let names = ["untrained", "trained"];
    let mut caught = [[0; 2]; 2];
    println!("catches in {MATCH} ticks of");
    for (predators, row) in caught.iter_mut().enumerate() {
        for (prey, caught) in row.iter_mut().enumerate() {
            give_brains(app.world_mut(), [predators == 1, prey == 1]);
            (0..MATCH).for_each(|_| app.update());
            let before = app.world().resource::<Hunt>().catches;
            (0..MATCH).for_each(|_| app.update());
            *caught = app.world().resource::<Hunt>().catches - before;
            println!("{:>10} predators, {:>9} prey: {caught:>6}", names[predators], names[prey]);
        }
    }
    std::fs::create_dir_all(&options.out)?;
    let path = options.out.join("predators.svg");
    std::fs::write(&path, picture::draw(&curve, COUNTED, caught)?)?;
    println!("{}", path.display());
    if options.ticks >= 8_000 {
        let [[neither, _], [predators, both]] = caught;
        assert!(predators > neither * 5 / 4, "predators learn: {caught:?}");
        assert!(both < predators, "prey learns: {caught:?}");
    }
    Ok(())
}
