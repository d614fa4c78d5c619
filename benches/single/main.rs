//! One model of each kind, larger than those of populations: how long a training step and a forward pass take.
//!
//! ```text
//! cargo bench --bench single
//! cargo bench --bench single -- --case cnn lstm --json
//! cargo bench --bench single -- --case cnn --profile
//! ```
//!
//! `benches/README.md` says what is measured and how to compare it with PyTorch.

#![expect(clippy::print_stdout, reason = "a program talks to its user")]
#![expect(unreachable_pub, reason = "`pub` says what a file of a program offers to the others")]

mod cases;
#[path = "../population/measure.rs"]
#[expect(dead_code, reason = "populations measure more than single models")]
mod measure;

use std::time::Duration;

use clap::{Parser, ValueEnum};

use measure::{Output, Rule};

/// Measures single models on this machine.
#[derive(Parser)]
struct Settings {
    /// Which models
    #[arg(long, value_enum, num_args = 1.., default_values = ["mlp", "cnn", "transformer", "lstm", "tiny", "cnns", "grus"])]
    case: Vec<Case>,
    /// Print instead how long each step of the plans takes, in all tiles together
    #[arg(long)]
    profile: bool,
    /// Seconds to measure for, after three steps that do not count
    #[arg(long, default_value = "5")]
    seconds: f64,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Case {
    /// 784-1024-1024-10, batch 128
    Mlp,
    /// Two convolutions with BatchNorm and pooling on 28×28, batch 64
    Cnn,
    /// Two encoder layers, 256 wide, on 128 places, batch 8
    Transformer,
    /// LSTM 64→128 over 64 steps, batch 32
    Lstm,
    /// 4-16-16-2, batch 32
    Tiny,
    /// 64 small convolutional networks on 12×12, batch 32
    Cnns,
    /// 256 GRU with 16 hidden numbers over 16 steps, batch 32
    Grus,
}

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let settings = Settings::parse();
    let time = Duration::try_from_secs_f64(settings.seconds)?;
    let rule = Rule { time, least: 7, most: 2_000, ..Rule::default() };
    let show = |measurement| settings.output.show(&measurement);
    settings.output.pool()?.install(|| {
        for case in &settings.case {
            let model = match case {
                Case::Mlp => cases::mlp(),
                Case::Cnn => cases::cnn(),
                Case::Transformer => cases::transformer(),
                Case::Lstm => cases::lstm(),
                Case::Tiny => cases::tiny(),
                Case::Cnns => cases::cnns(),
                Case::Grus => cases::grus(),
            };
            match settings.profile {
                true => println!("{}", model.profile()?),
                false => show(model.measure(rule)?),
            }
        }
        Ok(())
    })
}
