//! Logs: what TensorBoard, JSON lines and CSV get, and what is an error.

use std::fs;
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};
use neurarch::report::histogram::Histogram;
use neurarch::report::log::{
    CsvWriter, Distribution, Entry, JsonLinesWriter, LogError, Logger, Progress, Quantiles,
    SummaryWriter, Value,
};
use proptest::prelude::*;
use prost::{Message, Oneof};
use serde_json::json;

/// An empty folder of that test's own.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("log").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// `Event` of `event.proto`, the parts of it written anew: what the library writes is not what reads it here.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Of>,
}

#[derive(Clone, PartialEq, Message)]
struct Of {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "Kind", tags = "2, 5, 8")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Kind {
    #[prost(float, tag = "2")]
    Scalar(f32),
    #[prost(message, tag = "5")]
    Histogram(Histo),
    #[prost(message, tag = "8")]
    Tensor(Strings),
}

#[derive(Clone, PartialEq, Message)]
struct Histo {
    #[prost(double, tag = "1")]
    min: f64,
    #[prost(double, tag = "2")]
    max: f64,
    #[prost(double, tag = "3")]
    num: f64,
    #[prost(double, repeated, tag = "6")]
    bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    bucket: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
struct Strings {
    #[prost(bytes = "vec", repeated, tag = "8")]
    string_val: Vec<Vec<u8>>,
}

/// Reads the records of an event file, and compares their checksums.
fn records(path: &Path) -> Vec<Event> {
    let masked = |bytes: &[u8]| {
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32;
        crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
    };
    let bytes = fs::read(path).unwrap();
    let (mut rest, mut events) = (bytes.as_slice(), Vec::new());
    while !rest.is_empty() {
        let (length, after) = rest.split_at(8);
        let (of_length, after) = after.split_at(4);
        assert_eq!(of_length, masked(length));
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let (record, after) = after.split_at(length);
        let (of_record, after) = after.split_at(4);
        assert_eq!(of_record, masked(record));
        events.push(Event::decode(record).unwrap());
        rest = after;
    }
    events
}

#[test]
fn a_checksum_is_crc_32c() {
    // RFC 3720, B.4.
    let check = |bytes: &[u8]| checksum(CrcAlgorithm::Crc32Iscsi, bytes);
    assert_eq!((check(&[0; 32]), check(b"123456789")), (0x8a91_36aa, 0xe306_9283));
}

#[test]
fn tensorboard_gets_scalars_models_histograms_and_texts() {
    let folder = folder("tensorboard");
    let mut writer = SummaryWriter::new(&folder).unwrap();
    let mut quantiles = Quantiles::default().levels([0.5]).unwrap();
    writer.add_scalar("loss", 0.5, 3).unwrap();
    writer.add_scalar("loss", f64::NAN, 4).unwrap();
    writer.add_models("of_all", &quantiles.of(&[3.0_f32, 1.0, f32::NAN]), 4).unwrap();
    writer.add_histogram("weights", &Histogram::widening("", &[0.0, -2.0, 1e30]), 5).unwrap();
    writer.add_text("settings", "lr = *0.1*", 6).unwrap();
    writer.flush().unwrap();
    let events = records(writer.path());
    assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
    let values = |event: &Event| event.summary.clone().unwrap().value;
    let scalars = |event: &Event| -> Vec<(String, f32)> {
        let scalar = |of: Of| match of.kind {
            Some(Kind::Scalar(number)) => (of.tag, number),
            other => panic!("{other:?}"),
        };
        values(event).into_iter().map(scalar).collect()
    };
    assert_eq!((events[1].step, scalars(&events[1])), (3, vec![("loss".into(), 0.5)]));
    assert!(scalars(&events[2])[0].1.is_nan());
    let of_all = [("q50", 2.0), ("top1", 1.0), ("top1_model", 1.0), ("nan", 1.0)];
    assert_eq!(scalars(&events[3]), of_all.map(|(name, of)| (format!("of_all/{name}"), of)));
    let Some(Kind::Histogram(found)) = values(&events[4])[0].kind.clone() else { panic!() };
    assert_eq!((found.min, found.max, found.num), (-2.0, 1e30, 3.0));
    assert_eq!(found.bucket.iter().sum::<f64>(), 3.0);
    assert_eq!(found.bucket_limit.last(), Some(&f64::MAX));
    let Some(Kind::Tensor(found)) = values(&events[5])[0].kind.clone() else { panic!() };
    assert_eq!(found.string_val, [b"lr = *0.1*"]);
    assert_eq!(values(&events[5])[0].tag, "settings/text_summary");
    assert!(events.windows(2).all(|pair| pair[0].wall_time <= pair[1].wall_time));

    // Another writer appends to no file that is there.
    let other = SummaryWriter::new(&folder).unwrap();
    assert_ne!(other.path(), writer.path());
    assert_eq!(records(writer.path()).len(), 6);
}

#[test]
fn a_line_of_json_keeps_every_number() {
    let path = folder("json").join("log.jsonl");
    for from in [0, 10] {
        let mut writer = JsonLinesWriter::open(&path).unwrap();
        let models = Quantiles::default().of(&[2.0, f64::NAN, 1.0]);
        let histogram = Histogram::widening("", &[0.5_f32]);
        let mut log = |tag, value| {
            let entry = Entry { tag, step: from + 7, wall_time: 1.5, value };
            writer.log(&entry).unwrap();
        };
        log("a \"b\"", Value::Scalar(0.1));
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MAX] {
            log("x", Value::Scalar(number));
        }
        log("all", Value::Models(&models));
        log("h", Value::Histogram(&histogram));
        log("t", Value::Text("two\nlines"));
    }
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 18, "a writer appends to what is there");
    assert_eq!(lines[0], json!({"step": 7, "wall_time": 1.5, "tag": "a \"b\"", "value": 0.1}));
    let values: Vec<_> = lines[1..6].iter().map(|line| line["value"].clone()).collect();
    assert_eq!(
        values,
        [json!("NaN"), json!("Infinity"), json!("-Infinity"), json!(-0.0), json!(f64::MAX)]
    );
    let quantiles = json!({"q0": 1.0, "q25": 1.25, "q50": 1.5, "q75": 1.75, "q100": 2.0});
    assert_eq!(lines[6]["quantiles"], quantiles);
    assert_eq!(lines[6]["top"], json!([{"model": 2, "value": 1.0}]));
    assert_eq!((&lines[6]["count"], &lines[6]["nan"]), (&json!(3), &json!(1)));
    assert_eq!(lines[7]["histogram"]["buckets"], json!([1.0]));
    assert_eq!(lines[8]["text"], "two\nlines");
    assert_eq!(lines[9]["step"], 17);
}

/// Reads a table without its times.
fn table(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let without = |line: &str| {
        let cells: Vec<_> = line.split(',').collect();
        [&cells[..1], &cells[2..]].concat().join(",")
    };
    text.lines().map(without).collect()
}

#[test]
fn a_table_has_the_columns_of_its_first_step() {
    let path = folder("csv").join("log.csv");
    let mut writer = CsvWriter::create(&path).unwrap();
    writer.add_scalar("loss", 0.5, 0).unwrap();
    writer.add_text("note", "a, \"b\"", 0).unwrap();
    writer.add_scalar("loss", f64::NAN, 1).unwrap();
    writer.add_histogram("left out", &Histogram::default(), 1).unwrap();
    let late = writer.add_scalar("lr", 0.1, 1).unwrap_err();
    assert_eq!(
        late.to_string(),
        format!(
            "{}: expected one of the columns of the header (loss, note), got lr: name all columns by \
             CsvWriter::with_columns",
            path.display()
        )
    );
    writer.add_scalar("loss", 0.25, 1).unwrap();
    writer.add_scalar("loss", f64::INFINITY, 3).unwrap();
    writer.flush().unwrap();
    let expected = ["step,loss,note", "0,0.5,\"a, \"\"b\"\"\"", "1,NaN,", "1,0.25,", "3,inf,"];
    assert_eq!(table(&path), expected);
}

#[test]
fn a_table_may_be_told_its_columns() {
    let path = folder("columns").join("log.csv");
    let mut quantiles = Quantiles::default().levels([0.5, 0.025]).unwrap().top(2);
    let columns = [quantiles.columns("loss"), vec!["lr".into()]].concat();
    let mut writer = CsvWriter::with_columns(&path, columns).unwrap();
    writer.add_scalar("lr", 0.1, 0).unwrap();
    writer.add_models("loss", &quantiles.of(&[7.0]), 5).unwrap();
    drop(writer);
    let header =
        "step,loss/q2.5,loss/q50,loss/top1,loss/top1_model,loss/top2,loss/top2_model,loss/nan,lr";
    assert_eq!(table(&path), [header, "0,,,,,,,,0.1", "5,7,7,7,0,,,0,"]);
}

#[test]
fn who_fails_keeps_nobody_from_logging() {
    let folder = folder("several");
    let path = folder.join("log.jsonl");
    let mut log: Vec<Box<dyn Logger>> = vec![
        Box::new(CsvWriter::with_columns(folder.join("log.csv"), ["loss"]).unwrap()),
        Box::new(JsonLinesWriter::open(&path).unwrap()),
    ];
    assert!(matches!(log.add_scalar("other", 1.0, 0), Err(LogError::NoColumn { .. })));
    log.add_scalar("loss", 2.0, 0).unwrap();
    log.flush().unwrap();
    assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 2);
}

#[test]
fn errors_of_files_are_values() {
    let folder = folder("errors");
    let file = folder.join("file");
    fs::write(&file, "in the way").unwrap();
    let below = file.join("below");
    let refused = SummaryWriter::new(&below).unwrap_err().to_string();
    assert!(refused.starts_with(&format!("cannot write {}: ", below.display())), "{refused}");
    assert!(JsonLinesWriter::open(&below).is_err() && CsvWriter::create(&below).is_err());
    assert_eq!(fs::read_to_string(file).unwrap(), "in the way");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error_when_it_is_met() {
    let mut writer = JsonLinesWriter::open("/dev/full").unwrap();
    writer.add_scalar("loss", 1.0, 0).unwrap();
    for _ in 0..2 {
        let full = writer.flush().unwrap_err().to_string();
        assert!(full.starts_with("cannot write /dev/full: No space left on device"), "{full}");
    }
}

#[test]
fn quantiles_are_those_of_torch() {
    // import torch; x = torch.tensor([3., 1., float('nan'), 2., 8.], dtype=torch.float64)
    // x.nanquantile(torch.tensor([0., .1, .25, .5, .9, 1.], dtype=torch.float64))
    // x.nan_to_num(9).topk(2, largest=False)
    let numbers = [3.0, 1.0, f64::NAN, 2.0, 8.0];
    let levels = [1.0, 0.0, 0.1, 0.25, 0.5, 0.9];
    let mut quantiles = Quantiles::default().levels(levels).unwrap().top(2);
    let found = quantiles.of(&numbers);
    let of = |level| found.quantiles.iter().find(|of| of.0 == level).unwrap().1;
    assert_eq!(levels.map(of), [8.0, 1.0, 1.3, 1.75, 2.5, 6.500000000000001]);
    assert_eq!(found.top, [(1, 1.0), (3, 2.0)]);
    let found = quantiles.clone().largest(true).of(&[f32::NAN, 1.0, 1.0, f32::INFINITY]);
    assert_eq!(found.top, [(3, f64::INFINITY), (1, 1.0)], "of equals the first");
    let none = quantiles.of(&[f64::NAN; 2]);
    assert!(none.quantiles.iter().all(|(_, of)| of.is_nan()) && none.top.is_empty());
    assert_eq!(quantiles.of::<f64>(&[]).count, 0);
    let refused = Quantiles::default().levels([0.5, 1.5]).unwrap_err();
    assert_eq!(refused.to_string(), "quantile() q values must be in the range [0, 1], got 1.5");
}

proptest! {
    #[test]
    fn selecting_is_sorting(
        numbers in prop::collection::vec(prop_oneof![-9.0..9.0_f64, Just(f64::NAN), Just(0.5)], 1..300),
        levels in prop::collection::vec(0.0..=1.0_f64, 0..9),
        top in 0..9_usize,
    ) {
        let Distribution { quantiles, top: best, nan, .. } =
            Quantiles::default().levels(levels).unwrap().top(top).of(&numbers);
        let mut sorted: Vec<_> = numbers.iter().copied().filter(|of| !of.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        prop_assert_eq!(nan, numbers.len() - sorted.len());
        for (level, found) in quantiles.into_iter().filter(|_| !sorted.is_empty()) {
            let rank = level * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[rank as usize], sorted[rank.ceil() as usize]);
            let expected = low + (high - low) * rank.fract();
            prop_assert!((found - expected).abs() < 1e-12, "{} and {}", found, expected);
        }
        let mut models: Vec<_> = numbers.iter().copied().enumerate().filter(|of| !of.1.is_nan()).collect();
        models.sort_by(|a, b| a.1.total_cmp(&b.1));
        models.truncate(top);
        prop_assert_eq!(best, models);
    }
}

#[test]
fn a_histogram_counts_every_number_once() {
    let numbers: Vec<f64> = (0..1_000).map(|i| f64::from(i - 500) / 100.0).collect();
    let found = Histogram::widening("", &numbers);
    assert_eq!((found.min, found.max, found.num), (-5.0, 4.99, 1000));
    for (edges, &count) in found.edges.windows(2).zip(&found.counts) {
        let (lower, upper) = (edges[0], edges[1]);
        let inside = numbers.iter().filter(|&&of| lower <= of && of < upper).count();
        assert_eq!(inside as u64, count, "from {lower} to {upper}");
    }
    assert_eq!(found.counts.iter().sum::<u64>(), 1000);
}

#[test]
fn a_line_that_is_switched_off_counts_on() {
    let mut progress = Progress::hidden(10, 5);
    progress.advance(2, &[0.5_f32; 10]);
    progress.advance(1, &[f32::NAN; 10]);
    assert_eq!(progress.model_steps(), 30);
    assert_eq!(progress.message(), "loss best NaN, median NaN, 10 NaN");
    progress.clear();
}
