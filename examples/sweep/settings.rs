//! What the command line says.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Parser;
use clap::error::ErrorKind;

/// Trains a population of digit classifiers, each with a learning rate of its own, and writes what
/// came of it.
#[derive(Debug, Parser)]
#[command(name = "sweep", allow_negative_numbers = true)]
pub struct Settings {
    /// How many classifiers to train
    #[arg(long, default_value = "1000", value_parser = at_least_one)]
    pub models: usize,
    /// How often each of them sees every image
    #[arg(long, default_value = "20", value_parser = at_least_one)]
    pub epochs: usize,
    /// Width of the hidden layer
    #[arg(long, default_value = "32", value_parser = at_least_one)]
    pub hidden: usize,
    /// Images a step; the last step of an epoch takes those that are left
    #[arg(long, default_value = "32", value_parser = at_least_one)]
    pub batch: usize,
    /// Learning rate of the first classifier; the others follow in equal ratios
    #[arg(long, default_value = "1e-4", value_parser = rate)]
    pub lr_min: f64,
    /// Learning rate of the last classifier
    #[arg(long, default_value = "1e-1", value_parser = rate)]
    pub lr_max: f64,
    /// Least probability of dropout after the hidden layer [default with --dropout-max: 0]
    #[arg(long, value_parser = probability)]
    #[arg(requires = "dropout_max")]
    pub dropout_min: Option<f64>,
    /// Greatest probability of dropout; without it the classifiers have no dropout
    #[arg(long, value_parser = probability)]
    pub dropout_max: Option<f64>,
    /// Decides first weights, shuffles and dropout
    #[arg(long, default_value = "0")]
    pub seed: u64,
    /// Threads to train on [default: one for each core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Images, one a line: 64 pixels of 0 to 16, then the digit. May be compressed with gzip
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv.gz"))]
    #[arg(hide_default_value = true)]
    pub data: PathBuf,
    /// Folder for results.csv, sweep.svg, population.safetensors and best.safetensors
    #[arg(long, default_value = "target/sweep")]
    pub out: PathBuf,
    /// Folder for logs of the training: for TensorBoard, log.jsonl and log.csv
    #[arg(long)]
    pub log: Option<PathBuf>,
}

/// Why there are no settings to run with.
pub enum Refusal {
    /// Somebody asked for this text.
    Help(String),
    /// An argument makes no sense; one line says which and why.
    Mistake(String),
}

impl Settings {
    /// Reads the command line.
    pub fn from_command_line() -> Result<Self, Refusal> {
        let settings = Settings::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp => Refusal::Help(error.to_string()),
            _ => Refusal::Mistake(one_line(&error.to_string())),
        })?;
        let Settings { lr_min, lr_max, .. } = settings;
        if lr_min > lr_max {
            let message = format!("--lr-min {lr_min} is greater than --lr-max {lr_max}");
            return Err(Refusal::Mistake(message));
        }
        match settings.dropout() {
            Some((min, max)) if min > max => {
                let message = format!("--dropout-min {min} is greater than --dropout-max {max}");
                Err(Refusal::Mistake(message))
            }
            _ => Ok(settings),
        }
    }

    /// Gives the learning rate of a model: log-spaced from `lr_min` to `lr_max`.
    pub fn learning_rate(&self, model: usize) -> f64 {
        let last = self.models - 1;
        match model {
            0 => self.lr_min,
            // Not by powers of `lr_max / lr_min`, which may be infinite.
            _ if model < last => {
                let (low, high) = (self.lr_min.ln(), self.lr_max.ln());
                (low + (high - low) * (model as f64 / last as f64)).exp()
            }
            _ => self.lr_max,
        }
    }

    /// Gives the least and the greatest probability of dropout, if dropout is swept.
    pub fn dropout(&self) -> Option<(f64, f64)> {
        self.dropout_max.map(|max| (self.dropout_min.unwrap_or(0.0), max))
    }

    /// Gives the dropout probability of a model, if dropout is swept.
    ///
    /// Learning rates rise with the index, so probabilities must not: multiples of the golden ratio,
    /// modulo 1, cover the plane of both evenly.
    pub fn dropout_of(&self, model: usize) -> Option<f64> {
        const GOLDEN_RATIO: f64 = 1.618_033_988_749_895;
        let place = (model as f64 * GOLDEN_RATIO).fract();
        self.dropout().map(|(min, max)| min + (max - min) * place)
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(number) => Ok(number.get()),
        Err(_) => Err("expected a whole number of at least 1".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "expected a number greater than 0".to_owned())
}

fn probability(text: &str) -> Result<f64, String> {
    let p = text.parse().ok().filter(|p| (0.0..=1.0).contains(p));
    p.ok_or_else(|| "expected a probability between 0 and 1".to_owned())
}

/// Keeps the cause of what clap has to say: its first line, and the names that follow indented.
fn one_line(message: &str) -> String {
    let cause = message.split("\n\n").next().unwrap_or(message);
    let words: Vec<_> = cause.trim_start_matches("error: ").split_whitespace().collect();
    words.join(" ")
}
