//! What came of each model, and how it is told: a table and a CSV file.

use std::cmp::Ordering;
use std::fmt;
use std::io::{self, Write};

/// One model: what it was given and how well it did.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its index in the population.
    pub model: usize,
    pub learning_rate: f64,
    /// Probability of dropout after the hidden layer, if there is dropout.
    pub dropout: Option<f64>,
    /// Mean cross entropy over the images of the last epoch, as they were trained on.
    pub train_loss: f64,
    /// Mean cross entropy over the images it never trained on.
    pub validation_loss: f64,
    /// Share of those images that it names rightly.
    pub accuracy: f64,
}

/// All models of a sweep, in order of their indices.
#[derive(Debug)]
pub struct Results {
    pub outcomes: Vec<Outcome>,
    /// The seed that all models' random numbers start from, each at its own number.
    pub seed: u64,
}

impl Results {
    /// Gives the models from best to worst: by accuracy, then by loss, then by index.
    pub fn ranked(&self) -> Vec<&Outcome> {
        let mut ranked: Vec<_> = self.outcomes.iter().collect();
        ranked.sort_by(|a, b| {
            b.accuracy
                .total_cmp(&a.accuracy)
                .then(nan_last(a.validation_loss, b.validation_loss))
                .then(a.model.cmp(&b.model))
        });
        ranked
    }

    /// Writes one line a model, under a line of names.
    pub fn write_csv(&self, file: &mut impl Write) -> io::Result<()> {
        let names =
            "model,seed,learning_rate,dropout,train_loss,validation_loss,validation_accuracy";
        writeln!(file, "{names}")?;
        for o in &self.outcomes {
            let dropout = o.dropout.map_or(String::new(), |p| p.to_string());
            writeln!(
                file,
                "{},{},{:e},{dropout},{},{},{}",
                o.model, self.seed, o.learning_rate, o.train_loss, o.validation_loss, o.accuracy,
            )?;
        }
        Ok(())
    }
}

/// The best five and the median, as a table.
impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranked = self.ranked();
        let swept = ranked.iter().any(|outcome| outcome.dropout.is_some());
        let dropout = |text: String| {
            if swept { format!("  {text:>7}") } else { String::new() }
        };
        writeln!(
            f,
            "{:>8}  {:>6}  {:>13}{}  {:>10}  {:>15}  {:>8}",
            "place",
            "model",
            "learning rate",
            dropout("dropout".to_owned()),
            "train loss",
            "validation loss",
            "accuracy",
        )?;
        let median = (ranked.len() - 1) / 2;
        let mut places: Vec<_> = (0..ranked.len().min(5)).collect();
        places.push(median);
        for (row, &place) in places.iter().enumerate() {
            let o = ranked[place];
            let is_median = row + 1 == places.len();
            let name = if is_median { "median".to_owned() } else { (place + 1).to_string() };
            let p = dropout(o.dropout.map_or(String::new(), |p| format!("{p:.3}")));
            writeln!(
                f,
                "{name:>8}  {:>6}  {:>13.2e}{p}  {:>10.4}  {:>15.4}  {:>6.2} %",
                o.model,
                o.learning_rate,
                o.train_loss,
                o.validation_loss,
                100.0 * o.accuracy,
            )?;
        }
        Ok(())
    }
}

/// Gives the middle of some numbers; those that are not a number count as the greatest.
pub fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<_> = numbers.into_iter().collect();
    if numbers.is_empty() {
        return f64::NAN;
    }
    let middle = (numbers.len() - 1) / 2;
    *numbers.select_nth_unstable_by(middle, |a, b| nan_last(*a, *b)).1
}

/// Orders numbers from least to greatest; a diverged loss comes after every other.
pub fn nan_last(a: f64, b: f64) -> Ordering {
    a.is_nan().cmp(&b.is_nan()).then(a.total_cmp(&b))
}

/// Writes a count with a comma at every thousand: `1,797`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
