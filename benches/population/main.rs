//! Populations of small networks: how long a training step, a forward pass or spawning takes.
//!
//! ```text
//! cargo bench --bench population
//! cargo bench --bench population -- --case tiny small --job train --json
//! ```
//!
//! `benches/README.md` says what is measured and how to compare it with PyTorch and JAX.

#![expect(clippy::print_stdout, reason = "a program talks to its user")]
#![expect(unreachable_pub, reason = "`pub` says what a file of a program offers to the others")]

mod cases;
mod log;
mod measure;
mod ragged;

use std::time::Duration;

use clap::{Parser, ValueEnum};

use cases::{MEDIUM, SMALL, TINY};
use measure::{Output, Rule};

/// Measures populations on this machine.
#[derive(Parser)]
struct Settings {
    /// Which populations, or which other measurements
    #[arg(long, value_enum, num_args = 1.., default_values = ["tiny", "small", "medium"])]
    case: Vec<Case>,
    /// What tiny, small and medium do
    #[arg(long, value_enum, num_args = 1.., default_values = ["train", "infer"])]
    job: Vec<Job>,
    /// Seconds to measure for, after three steps that do not count
    #[arg(long, default_value = "6")]
    seconds: f64,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Case {
    /// 10,000 networks 4-16-16-2, batch 32
    Tiny,
    /// 1,000 networks 16-64-64-8, batch 64
    Small,
    /// 100 networks 64-256-256-10, batch 64
    Medium,
    /// Time to spawn 10,000 tiny models
    Spawn,
    /// Time of a forward pass of one tiny model at batch 1
    Single,
    /// Time for 10,000 tiny and 1,000 small models to be overwritten, perturbed, mixed and cloned
    Evolve,
    /// Times of training steps and a forward pass of 10,000 tiny models with hooks on one of them or on each, and without
    Hooks,
    /// Times to clip all gradients and to average all weights of 10,000 tiny models, and of a step with scalers
    Clip,
    /// Memory of tiny and small models beyond their numbers
    Memory,
    /// Times of training steps of 10,000 tiny models of many structures, and of one
    Ragged,
    /// Times of forward passes of 10,000 tiny models at rest, and after some died and others were born
    Churn,
    /// Times of training steps of 1,000 and 10,000 tiny models call by call, and in one call
    Calls,
    /// Times of 50 training steps of 10,000 tiny models with 20 numbers of each logged after them, and without
    Log,
    /// Times of small and medium in bf16 and f16, and in f32
    Halves,
}

#[derive(Clone, Copy, ValueEnum)]
enum Job {
    /// A step of Adam on a minibatch of each model's own
    Train,
    /// A forward pass at batch 1
    Infer,
    /// Sixteen steps of Adam on minibatches of a data set, in one visit of each model
    Visit,
}

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let settings = Settings::parse();
    let rule = Rule { time: Duration::try_from_secs_f64(settings.seconds)?, ..Rule::default() };
    let show = |measurement| settings.output.show(&measurement);
    settings.output.pool()?.install(|| {
        for case in &settings.case {
            let population = match case {
                Case::Tiny => TINY,
                Case::Small => SMALL,
                Case::Medium => MEDIUM,
                Case::Spawn => {
                    show(TINY.spawn(rule)?);
                    continue;
                }
                Case::Single => {
                    show(TINY.single(rule)?);
                    continue;
                }
                Case::Evolve => {
                    for population in [TINY, SMALL] {
                        show(population.overwrite(rule)?);
                        show(population.vary(rule)?);
                        show(population.clone(rule)?);
                    }
                    continue;
                }
                Case::Hooks => {
                    TINY.hooked(rule, show)?;
                    show(TINY.hooked_each("each", rule)?);
                    show(TINY.hooked_each("each-looks", rule)?);
                    continue;
                }
                Case::Clip => {
                    show(TINY.clip(rule)?);
                    show(TINY.scaled(rule)?);
                    continue;
                }
                Case::Ragged => {
                    ragged::ragged(rule, show)?;
                    continue;
                }
                Case::Churn => {
                    let (after, then) = TINY.churn(rule)?;
                    show(after);
                    show(then);
                    continue;
                }
                Case::Calls => {
                    ragged::calls(rule, show)?;
                    continue;
                }
                Case::Log => {
                    show(log::log(rule)?);
                    continue;
                }
                Case::Halves => {
                    ragged::halves(rule, show)?;
                    continue;
                }
                Case::Memory => {
                    show(TINY.memory()?);
                    show(SMALL.memory()?);
                    continue;
                }
            };
            for job in &settings.job {
                show(match job {
                    Job::Train => population.train(rule)?,
                    Job::Infer => population.infer(rule)?,
                    Job::Visit => population.visit(rule)?,
                });
            }
        }
        Ok(())
    })
}
