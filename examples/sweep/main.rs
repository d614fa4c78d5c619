//! A hyperparameter sweep: a thousand classifiers of handwritten digits, each with a learning rate, first
//! weights and shuffles of its own, trained side by side.
//!
//! ```text
//! cargo run --release --example sweep
//! cargo run --release --example sweep -- --dropout-max 0.8 --hidden 64 --out target/dropout
//! ```
//!
//! It writes `results.csv`, `sweep.svg`, `population.safetensors` and `best.safetensors`; the last is a
//! `state_dict` of `nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))`. With `--log target/log` it logs the losses
//! as well, for `tensorboard --logdir target/log`.
//!
//! The other files of this folder read the command line and the data, and tell the results; all that
//! concerns neurarch is here.

#![expect(clippy::print_stderr, reason = "a program talks to its user")]
#![expect(unreachable_pub, reason = "`pub` says what a file of a program offers to the others")]

mod data;
mod log;
mod output;
mod plot;
mod results;
mod settings;
mod shuffle;

use std::error::Error;
use std::io::{Write, stdout};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ndarray::{Array1, Array2, Axis, s};
use neurarch::prelude::*;
use neurarch::report::log::Progress;
use neurarch::state::safetensors;

use data::{CLASSES, Digits, PIXELS};
use log::Log;
use results::{Outcome, Results, grouped};
use settings::{Refusal, Settings};

/// Every failure ends in one line on stderr, so its type does not matter here.
type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Set by Ctrl-C, read between visits of the population.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let settings = match Settings::from_command_line() {
        Ok(settings) => settings,
        Err(Refusal::Help(text)) => {
            // Whoever closed the pipe has seen enough.
            let _ = write!(stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Err(Refusal::Mistake(message)) => return refuse(&message),
    };
    match run(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if INTERRUPTED.load(Ordering::Relaxed) => {
            let but = if settings.log.is_some() { "nothing but the log" } else { "nothing" };
            eprintln!("interrupted: {but} was written");
            ExitCode::from(130)
        }
        Err(error) => refuse(&error.to_string()),
    }
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(2)
}

fn run(settings: &Settings) -> Fallible<()> {
    let digits = Digits::read(&settings.data)?;
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?;
    output::check(&settings.out)?;
    let threads = settings.threads.unwrap_or(0); // To rayon, 0 means one for each core.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build()?;
    pool.install(|| sweep(settings, &digits))
}

/// Trains the population, tells how it went and saves what came of it.
fn sweep(settings: &Settings, digits: &Digits) -> Fallible<()> {
    check_memory(settings, digits)?;
    let mut log = Log::new(settings)?;
    let mut world = World::new();
    let mut classifiers = spawn(&mut world, settings)?;

    let start = Instant::now();
    let train_losses = train(&mut classifiers, settings, digits, &mut log)?;
    let seconds = start.elapsed().as_secs_f64();

    let results = validate(&mut classifiers, settings, digits, &train_losses)?;
    log.validation(&results)?;
    let best = results.ranked()[0].model;
    let path = |name| settings.out.join(name);
    let mut csv = Vec::new();
    results.write_csv(&mut csv)?;
    let [csv_name, svg_name, population_name, best_name] = output::NAMES;
    output::commit([
        output::write(path(csv_name), &csv)?,
        output::write(path(svg_name), plot::draw(&results, settings).as_bytes())?,
        safetensors::write(path(population_name), &classifiers.stacked_state_dict()?)?,
        safetensors::write(path(best_name), &classifiers.model(best)?.state_dict()?)?,
    ])?;

    let steps = settings.models * settings.epochs * digits.n_train().div_ceil(settings.batch);
    let mut out = stdout().lock();
    // Whoever closed the pipe has seen enough: the files are written.
    let _ = writeln!(
        out,
        "{} models, {} training steps in {seconds:.2} s: {} a second\n\n{results}",
        grouped(settings.models as u64),
        grouped(steps as u64),
        grouped((steps as f64 / seconds) as u64),
    );
    for name in output::NAMES {
        let _ = writeln!(out, "{}", path(name).display());
    }
    Ok(())
}

/// Finds out whether the system would give as much memory as the sweep is going to need.
fn check_memory(settings: &Settings, digits: &Digits) -> Fallible<()> {
    let parameters = settings.hidden.saturating_mul(PIXELS + 1 + CLASSES).saturating_add(CLASSES);
    // Each with two moments of Adam, and the order of the images.
    let numbers = parameters.saturating_mul(3).saturating_add(digits.n_train());
    let bytes = numbers.saturating_mul(size_of::<f32>()).saturating_mul(settings.models);
    if Vec::<u8>::new().try_reserve_exact(bytes).is_err() {
        let (models, hidden) = (settings.models, settings.hidden);
        let gib = bytes as f64 / f64::from(1 << 30);
        let message =
            format!("not enough memory for --models {models} --hidden {hidden}: {gib:.0} GiB");
        return Err(message.into());
    }
    Ok(())
}

/// Spawns one blueprint's worth of classifiers and gives each its own hyperparameters.
fn spawn<'w>(world: &'w mut World, settings: &Settings) -> Fallible<PopulationMut<'w>> {
    let hidden = settings.hidden;
    let classifier = Sequential::new().push(Linear::new(PIXELS, hidden)).push(ReLU);
    let classifier = match settings.dropout() {
        Some(_) => classifier.push(Dropout::default()),
        None => classifier,
    };
    let classifier = classifier.push(Linear::new(hidden, CLASSES));
    let (models, seed) = (settings.models, settings.seed);
    let population = PopulationSettings { models, seed, ..PopulationSettings::default() };
    let mut classifiers = world.spawn_population_with(&classifier, population)?;

    classifiers
        .insert_with(|model| Adam { lr: settings.learning_rate(model), ..Adam::default() })?;
    if settings.dropout().is_some() {
        // A scalar slot: models that differ in `p` still share the blueprint.
        classifiers
            .at("2")
            .insert_with(|model| Dropout { p: settings.dropout_of(model).unwrap_or_default() })?;
    }
    Ok(classifiers)
}

/// Trains all models, each on its own shuffles; gives the mean loss of each over the last epoch.
fn train(
    classifiers: &mut PopulationMut<'_>,
    settings: &Settings,
    digits: &Digits,
    log: &mut Log,
) -> Fallible<Array1<f64>> {
    let &Settings { models, epochs, batch, seed, .. } = settings;
    let (images, labels) = digits.train();
    let n_images = digits.n_train();
    let batch = batch.min(n_images);
    let mut progress = Progress::new(models, epochs.saturating_mul(n_images.div_ceil(batch)));
    let mut orders = Array2::zeros((models, n_images));
    let mut totals = Array1::zeros(models);
    let mut visit = Visit::default();
    for epoch in 0..epochs {
        shuffle::shuffle(&mut orders, seed, epoch);
        totals.fill(0.0);
        let mut from = 0;
        while from < n_images {
            // Several steps a visit, so that weights stay in cache from one to the next.
            let to = n_images.min(from + visit.steps * batch);
            let start = Instant::now();
            let data =
                DataSet::shared(images, labels).order(orders.slice(s![.., from..to])).batch(batch);
            let losses = classifiers.train_steps(data, &CrossEntropyLoss::default())?;
            for (step, losses) in losses.columns().into_iter().enumerate() {
                let n = batch.min(to - from - step * batch);
                totals.scaled_add(n as f64, &losses.mapv(f64::from));
            }
            log.train(losses.view())?;
            progress.advance(losses.ncols(), losses.column(losses.ncols() - 1));
            if INTERRUPTED.load(Ordering::Relaxed) {
                progress.clear();
                return Err("interrupted".into());
            }
            visit.took(losses.ncols(), start.elapsed());
            from = to;
        }
    }
    progress.clear();
    Ok(totals / n_images as f64)
}

/// How many steps to take between two movements of the progress bar.
struct Visit {
    steps: usize,
}

impl Default for Visit {
    fn default() -> Self {
        Visit { steps: 8 }
    }
}

impl Visit {
    /// Aims at a third of a second, by how long the last visit took.
    fn took(&mut self, steps: usize, time: Duration) {
        let per_step = time.as_secs_f64() / steps as f64;
        self.steps = (0.3 / per_step).clamp(1.0, 4096.0) as usize;
    }
}

/// Shows all models the images they never trained on.
fn validate(
    classifiers: &mut PopulationMut<'_>,
    settings: &Settings,
    digits: &Digits,
    train_losses: &Array1<f64>,
) -> Fallible<Results> {
    /// Logits to hold at a time, 64 MiB of them: ten thousand models and all images would make 144.
    const LOGITS: usize = 1 << 24;

    let models = settings.models;
    let (mut losses, mut right) = (vec![0.0; models], vec![0_usize; models]);
    let (images, labels) = digits.validation();
    let at_a_time = (LOGITS / (models * CLASSES)).max(1);
    classifiers.eval()?;
    for (images, labels) in
        images.axis_chunks_iter(Axis(0), at_a_time).zip(labels.axis_chunks_iter(Axis(0), at_a_time))
    {
        // [models, images, CLASSES]
        let logits =
            classifiers.no_grad(|classifiers| classifiers.forward(Input::shared(images)))?;
        for (model, logits) in logits.outer_iter().enumerate() {
            for (logits, &label) in logits.outer_iter().zip(labels) {
                let (loss, class) = judge(logits.iter().copied(), label as usize);
                losses[model] += loss;
                right[model] += usize::from(class == label as usize);
            }
        }
    }
    let n = labels.len() as f64;
    let outcome = |model| Outcome {
        model,
        learning_rate: settings.learning_rate(model),
        dropout: settings.dropout_of(model),
        train_loss: train_losses[model],
        validation_loss: losses[model] / n,
        accuracy: right[model] as f64 / n,
    };
    let outcomes = (0..models).map(outcome).collect();
    Ok(Results { outcomes, seed: settings.seed })
}

/// Gives the cross entropy of one image and the class that its logits favor, the first of equal ones.
fn judge(logits: impl Iterator<Item = f32> + Clone, label: usize) -> (f64, usize) {
    let logits = logits.map(f64::from);
    let greatest = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.clone().map(|logit| (logit - greatest).exp()).sum();
    let of_label = logits.clone().nth(label).unwrap_or(f64::NAN);
    let class = logits.clone().position(|logit| logit == greatest).unwrap_or_default();
    (greatest + sum.ln() - of_label, class)
}
