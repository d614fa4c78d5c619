//! [`JsonLinesWriter`]: a JSON object a line.

use std::fs::OpenOptions;
use std::path::Path;

use serde::{Serialize, Serializer};

use super::file::LogFile;
use super::quantiles::quantile_name;
use crate::report::histogram::Histogram;
use crate::report::log::{Entry, LogError, Logger, Value};

/// Writes a JSON object a line.
///
/// | key | value |
/// |---|---|
/// | `step`, `wall_time`, `tag` | those of the entry |
/// | `value` | a scalar |
/// | `count`, `nan`, `quantiles`, `top` | those of all models: `{"q50": 0.3}` and `[{"model": 7, "value": 0.1}]` |
/// | `histogram` | `min`, `max`, `num`, `sum`, `sum_squares`, `bucket_limits`, `buckets` |
/// | `text` | a text |
///
/// JSON has no number for what is not finite: it is one of the strings `"NaN"`, `"Infinity"` and `"-Infinity"`, as in
/// the JSON of protocol buffers. Other numbers are written with as many digits as tell them from all others.
///
/// Source: <https://jsonlines.org>.
#[derive(Debug)]
pub struct JsonLinesWriter {
    file: LogFile,
}

impl JsonLinesWriter {
    /// Opens a file to append lines to; it is made if need be.
    ///
    /// # Errors
    ///
    /// [`LogError::Write`] if it cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LogError> {
        let options = OpenOptions::new().append(true).create(true).clone();
        Ok(JsonLinesWriter { file: LogFile::open(path.as_ref(), &options)? })
    }
}

impl Logger for JsonLinesWriter {
    fn log(&mut self, entry: &Entry<'_>) -> Result<(), LogError> {
        let Entry { tag, step, wall_time, value } = *entry;
        let value = match value {
            Value::Scalar(value) => Of::Scalar { value: Number(value) },
            Value::Models(all) => Of::Models {
                count: all.count,
                nan: all.nan,
                quantiles: Named(all.quantiles.clone()),
                top: all
                    .top
                    .iter()
                    .map(|&(model, value)| Top { model, value: Number(value) })
                    .collect(),
            },
            Value::Histogram(histogram) => Of::Histogram { histogram: histogram.into() },
            Value::Text(text) => Of::Text { text },
        };
        let line = serde_json::to_vec(&Line { step, wall_time: Number(wall_time), tag, value });
        let mut line = line.map_err(|error| LogError::Write {
            path: self.file.path.clone(),
            source: error.into(),
        })?;
        line.push(b'\n');
        self.file.append(&line)
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.file.flush()
    }
}

#[derive(Serialize)]
struct Line<'a> {
    step: u64,
    wall_time: Number,
    tag: &'a str,
    #[serde(flatten)]
    value: Of<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Of<'a> {
    Scalar { value: Number },
    Models { count: usize, nan: usize, quantiles: Named, top: Vec<Top> },
    Histogram { histogram: Numbers },
    Text { text: &'a str },
}

#[derive(Serialize)]
struct Top {
    model: usize,
    value: Number,
}

#[derive(Serialize)]
struct Numbers {
    min: Number,
    max: Number,
    num: Number,
    sum: Number,
    sum_squares: Number,
    bucket_limits: Vec<Number>,
    buckets: Vec<Number>,
}

impl From<&Histogram> for Numbers {
    fn from(of: &Histogram) -> Self {
        Numbers {
            min: Number(of.min),
            max: Number(of.max),
            num: Number(of.num as f64),
            sum: Number(of.sum),
            sum_squares: Number(of.sum_squares),
            bucket_limits: of.edges.iter().skip(1).copied().map(Number).collect(),
            buckets: of.counts.iter().map(|&count| Number(count as f64)).collect(),
        }
    }
}

/// Levels and quantiles, as an object.
struct Named(Vec<(f64, f64)>);

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let number = |&(level, number): &(f64, f64)| (quantile_name(level), Number(number));
        to.collect_map(self.0.iter().map(number))
    }
}

/// A number that may be none to JSON.
struct Number(f64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            number if number.is_nan() => to.serialize_str("NaN"),
            f64::INFINITY => to.serialize_str("Infinity"),
            f64::NEG_INFINITY => to.serialize_str("-Infinity"),
            number => to.serialize_f64(number),
        }
    }
}
