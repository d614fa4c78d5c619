//! [`SummaryWriter`]: event files for TensorBoard.

use std::fs;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::process;

use crc_fast::{CrcAlgorithm, checksum};
use prost::Message;

use super::file::LogFile;
use super::messages::{
    DT_STRING, Dim, Event, HistogramProto, Kind, PluginData, Summary, SummaryMetadata,
    SummaryValue, TensorProto, TensorShape, What,
};
use crate::report::histogram::Histogram;
use crate::report::log::{Entry, LogError, Logger, Value};

/// Writes scalars, histograms and texts for TensorBoard: a file of its own in a folder, to which records are only appended.
///
/// A scalar is kept in single precision, as torch's is. The numbers of all models are a scalar for each quantile, such as
/// `loss/q50`. `tensorboard --logdir` shows folders below a folder as runs.
///
/// Source: `torch.utils.tensorboard.SummaryWriter`.
#[derive(Debug)]
pub struct SummaryWriter {
    file: LogFile,
}

impl SummaryWriter {
    /// Creates a file in a folder, which is made if need be.
    ///
    /// # Errors
    ///
    /// [`LogError::Write`] if it cannot be made.
    pub fn new(log_dir: impl AsRef<Path>) -> Result<Self, LogError> {
        let log_dir = log_dir.as_ref();
        fs::create_dir_all(log_dir)
            .map_err(|source| LogError::Write { path: log_dir.to_owned(), source })?;
        let first = Entry::now("", 0, Value::Text(""));
        let (seconds, process) = (first.wall_time as u64, process::id());
        let mut number = 0;
        let file = loop {
            let name = format!("events.out.tfevents.{seconds:010}.neurarch.{process}.{number}");
            let options = OpenOptions::new().append(true).create_new(true).clone();
            match LogFile::open(&log_dir.join(name), &options) {
                Err(LogError::Write { source, .. })
                    if source.kind() == io::ErrorKind::AlreadyExists =>
                {
                    number += 1;
                }
                opened => break opened?,
            }
        };
        let mut writer = SummaryWriter { file };
        writer.write(&first, What::FileVersion("brain.Event:2".to_owned()))?;
        writer.flush()?;
        Ok(writer)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    fn write(&mut self, entry: &Entry<'_>, what: What) -> Result<(), LogError> {
        let step = i64::try_from(entry.step).unwrap_or(i64::MAX);
        let event = Event { wall_time: entry.wall_time, step, what: Some(what) };
        self.file.append(&record(&event.encode_to_vec()))
    }
}

impl Logger for SummaryWriter {
    fn log(&mut self, entry: &Entry<'_>) -> Result<(), LogError> {
        let tag = entry.tag;
        let scalar = |tag: String, number: f64| SummaryValue {
            tag,
            metadata: None,
            kind: Some(Kind::Scalar(number as f32)),
        };
        let value = match entry.value {
            Value::Scalar(number) => vec![scalar(tag.to_owned(), number)],
            Value::Models(all) => all
                .scalars()
                .map(|(name, number)| scalar(format!("{tag}/{name}"), number))
                .collect(),
            Value::Histogram(histogram) => vec![SummaryValue {
                tag: tag.to_owned(),
                metadata: None,
                kind: Some(Kind::Histogram(histogram.into())),
            }],
            Value::Text(text) => vec![text_value(tag, text)],
        };
        self.write(entry, What::Summary(Summary { value }))
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.file.flush()
    }
}

/// Makes a text one that TensorBoard's plugin finds.
fn text_value(tag: &str, text: &str) -> SummaryValue {
    let plugin_data = Some(PluginData { plugin_name: "text".to_owned() });
    SummaryValue {
        tag: format!("{tag}/text_summary"),
        metadata: Some(SummaryMetadata { plugin_data }),
        kind: Some(Kind::Tensor(TensorProto {
            dtype: DT_STRING,
            tensor_shape: Some(TensorShape { dim: vec![Dim { size: 1 }] }),
            string_val: vec![text.as_bytes().to_vec()],
        })),
    }
}

impl From<&Histogram> for HistogramProto {
    fn from(of: &Histogram) -> Self {
        HistogramProto {
            min: of.min,
            max: of.max,
            num: of.num as f64,
            sum: of.sum,
            sum_squares: of.sum_squares,
            bucket_limit: of.edges.iter().skip(1).copied().collect(),
            bucket: of.counts.iter().map(|&count| count as f64).collect(),
        }
    }
}

/// Frames a record: its length and the length's checksum, its bytes and theirs.
///
/// Source: `tensorflow/core/lib/io/record_writer.h`.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let [of_length, of_bytes] = [&length, bytes].map(|bytes| masked(bytes).to_le_bytes());
    [&length[..], &of_length, bytes, &of_bytes].concat()
}

/// Returns the CRC-32C of some bytes, changed so that a checksum of what contains it is worth something.
fn masked(bytes: &[u8]) -> u32 {
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32;
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}
