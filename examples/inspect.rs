//! Looking at models: what they are made of, whether their gradients are healthy, how these flow, how weights are distributed,
//! and how a population learns.
//!
//! ```text
//! cargo run --release --features plot --example inspect -- --out target/inspect
//! ```
//!
//! Forty networks learn handwritten digits, each with a learning rate of its own. Tables are printed; pictures (SVG) and values
//! (JSON) are written into a folder, by default a temporary one.

#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use ndarray::{Array2, Axis, Slice as Part};
use neurarch::prelude::*;
use neurarch::report::curves::Curves;
use neurarch::report::health::PopulationHealth;
use neurarch::report::histogram::{Histogram, Numbers};
use neurarch::report::plot::{plot_curves, plot_grad_flow, plot_histograms};
use neurarch::report::summary::{Column, SummaryOptions};

#[path = "sweep/data.rs"]
mod data;
use data::{CLASSES, Digits, PIXELS};

const MODELS: usize = 40;
const STEPS: usize = 60;
const BATCH: usize = 32;
/// The model whose data is bad in the last step.
const BAD: usize = 7;

#[derive(Parser)]
#[command(about = "Looks at models: summaries, health of gradients, pictures")]
struct Arguments {
    /// Where pictures and values go.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let temporary =
        || std::env::temp_dir().join(format!("neurarch-inspect-{}", std::process::id()));
    let out = Arguments::parse().out.unwrap_or_else(temporary);
    fs::create_dir_all(&out)?;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv.gz");
    let digits = Digits::read(Path::new(path))?;

    let mut world = World::new();
    let network = Sequential::new().push(Linear::new(PIXELS, 32)).push(Tanh);
    let network = network.push(Linear::new(32, 32)).push(Tanh).push(Linear::new(32, CLASSES));
    let mut brains = world.spawn_population(&network, MODELS, Seed(7))?;
    brains.insert_with(|index| SGD { lr: 1.08_f64.powi(index as i32) * 0.01, ..SGD::default() })?;

    summaries(&mut brains, &out)?;
    let curves = learn(&mut brains, &digits)?;
    assert!(curves.median[STEPS - 1] < curves.median[0], "they learn");
    fs::write(out.join("losses.svg"), plot_curves(&curves, "loss"))?;
    fs::write(out.join("losses.json"), serde_json::to_string_pretty(&curves)?)?;
    health(&mut brains, &digits, &out)?;
    histograms(&brains, &out)?;
    println!("\npictures and values are in {}", out.display());
    Ok(())
}

/// Prints what a model, its last layer and the population are made of.
fn summaries(brains: &mut PopulationMut<'_>, out: &Path) -> Result<(), Box<dyn Error>> {
    println!("{}\n", brains.model(0)?); // As torch prints a module.
    let options = SummaryOptions::new([BATCH, PIXELS]).timed(true);
    let columns = [Column::OutputSize, Column::NumParams, Column::MultAdds, Column::Time];
    let summary = brains.model(0)?.summary(options.columns(columns))?;
    println!("{summary}\n");
    let sizes = [(PIXELS, 32), (32, 32), (32, CLASSES)];
    let params: usize = sizes.iter().map(|(inputs, outputs)| inputs * outputs + outputs).sum();
    assert_eq!(summary.total_params, params as u64);
    assert_eq!(summary.total_mult_adds, (BATCH * params) as u64);
    assert!(summary.rows.iter().all(|row| row.time.is_some()));
    fs::write(out.join("summary.json"), serde_json::to_string_pretty(&summary)?)?;

    let all = brains.summary(SummaryOptions::new([BATCH, PIXELS]))?;
    println!("{all}\n");
    assert_eq!(all.total_params, (MODELS * params) as u64);
    let head = brains.at("4").summary(SummaryOptions::new([BATCH, 32]))?;
    assert_eq!(head.total_params, (MODELS * (32 * CLASSES + CLASSES)) as u64);
    Ok(())
}

/// Trains all models on the same batches; gives the quartiles of their losses.
fn learn(brains: &mut PopulationMut<'_>, digits: &Digits) -> Result<Curves, Box<dyn Error>> {
    let (images, labels) = digits.train();
    let mut losses = Array2::<f32>::zeros((MODELS, STEPS));
    for (step, mut column) in losses.axis_iter_mut(Axis(1)).enumerate() {
        let batch = Part::from(step % 40 * BATCH..(step % 40 + 1) * BATCH);
        let x = Input::shared(images.slice_axis(Axis(0), batch));
        let y = Input::shared(labels.slice_axis(Axis(0), batch));
        column.assign(&brains.train_step(x, y, &CrossEntropyLoss::default())?);
    }
    Ok(Curves::of(losses.view()))
}

/// Looks at gradients: of all models, one of which sees bad data.
fn health(
    brains: &mut PopulationMut<'_>,
    digits: &Digits,
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    let (images, labels) = digits.validation();
    let images = images.slice_axis(Axis(0), Part::from(0..BATCH)).insert_axis(Axis(0));
    let mut images = ndarray::concatenate(Axis(0), &[images; MODELS])?;
    images[[BAD, 0, 0]] = f32::NAN;
    brains.forward(&images)?;
    let labels = Input::shared(labels.slice_axis(Axis(0), Part::from(0..BATCH)));
    brains.loss::<f32, i64>(labels, &CrossEntropyLoss::default())?;
    brains.backward()?;

    let health: PopulationHealth = brains.as_ref()?.check_gradient_health()?;
    println!("{health}\n");
    let worst = &health.models[0];
    assert_eq!((worst.index, health.unhealthy().count()), (BAD, 1));
    assert!(worst.health.messages().iter().any(|of| of == "NaN gradient found in 0.weight"));
    let norms = health.column(|of| of.total_norm);
    assert!(norms.iter().enumerate().all(|(index, norm)| norm.is_nan() == (index == BAD)));
    fs::write(out.join("health.json"), serde_json::to_string_pretty(&health)?)?;

    let one = brains.as_ref()?.model(0)?.check_gradient_health()?;
    println!("{one}");
    assert!(one.is_healthy() && one.parameters.len() == 6);
    let svg = plot_grad_flow(&one);
    assert!(svg.contains("Gradient flow") && svg.contains("4.weight") && !svg.contains("4.bias"));
    fs::write(out.join("gradient_flow.svg"), svg)?;
    Ok(())
}

/// Draws how weights and gradients of one model and of all are distributed.
fn histograms(brains: &PopulationMut<'_>, out: &Path) -> Result<(), Box<dyn Error>> {
    const BINS: usize = 40;
    let brains = brains.as_ref()?;
    let total = |of: &[Histogram]| -> u64 { of.iter().flat_map(|of| &of.counts).sum() };
    let of_one = brains.model(0)?.histograms(Numbers::Weights, BINS)?;
    let of_all = brains.histograms(Numbers::Weights, BINS)?;
    assert_eq!(total(&of_all), MODELS as u64 * total(&of_one));
    let gradients = brains.histograms(Numbers::Gradients, BINS)?;
    assert!(gradients[0].not_finite > 0, "those of the model that saw bad data");
    for (name, of) in [("weights_of_one", &of_one), ("weights", &of_all), ("gradients", &gradients)]
    {
        fs::write(out.join(format!("{name}.svg")), plot_histograms(of))?;
        fs::write(out.join(format!("{name}.json")), serde_json::to_string_pretty(of)?)?;
    }
    Ok(())
}
