//! The main job, `examples/sweep`, as its user meets it: what it writes, and what it says when it cannot.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::{env, fs};

use ndarray::{Array2, ArrayD, ArrayView1, Axis, Ix1, Ix2};
use neurarch::state::safetensors;

const FILES: [&str; 4] = ["best.safetensors", "population.safetensors", "results.csv", "sweep.svg"];
const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv.gz");

/// Builds the example once, in the profile of this test, and gives its path.
fn example() -> &'static Path {
    static EXAMPLE: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let test = env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap(); // target/debug/deps/sweep-0123
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", "sweep", "--target-dir"]);
        build.arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
        profile.join("examples").join("sweep").with_extension(env::consts::EXE_EXTENSION)
    })
}

/// An empty folder of that test's own.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sweep").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn run(out: &Path, arguments: &[&str]) -> Output {
    Command::new(example()).arg("--out").arg(out).args(arguments).output().unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Reads results.csv: the columns' names, and a row of cells for each model.
fn results(folder: &Path) -> Vec<HashMap<String, String>> {
    let text = fs::read_to_string(folder.join("results.csv")).unwrap();
    let mut lines = text.lines();
    let header: Vec<_> = lines.next().unwrap().split(',').collect();
    let row = |line: &str| {
        let cells: Vec<_> = line.split(',').map(str::to_owned).collect();
        assert_eq!(cells.len(), header.len());
        header.iter().map(|&name| name.to_owned()).zip(cells).collect()
    };
    lines.map(row).collect()
}

fn number(row: &HashMap<String, String>, column: &str) -> f64 {
    row[column].parse().unwrap()
}

fn tensors(path: &Path) -> HashMap<String, ArrayD<f32>> {
    let tensors = safetensors::read(path).unwrap();
    tensors.iter().map(|t| (t.name.clone(), t.to_array().unwrap())).collect()
}

/// The images that no model trained on: pixels from 0 to 1, `[images, 64]`, and labels.
fn validation() -> (Array2<f32>, Vec<usize>) {
    use std::io::Read;
    let mut text = String::new();
    let file = fs::File::open(DIGITS).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let rows: Vec<Vec<f32>> = text
        .lines()
        .skip(1437)
        .map(|line| line.split(',').map(|cell| cell.parse().unwrap()).collect())
        .collect();
    let images = Array2::from_shape_fn((rows.len(), 64), |(i, pixel)| rows[i][pixel] / 16.0);
    (images, rows.iter().map(|row| row[64] as usize).collect())
}

/// Counts images that a 64-hidden-10 classifier of those weights names rightly, by plain loops.
fn accuracy(first: [ArrayD<f32>; 2], second: [ArrayD<f32>; 2]) -> f64 {
    let (images, labels) = validation();
    let linear = |[weight, bias]: [ArrayD<f32>; 2], x: Array2<f32>| {
        let weight = weight.into_dimensionality::<Ix2>().unwrap();
        x.dot(&weight.t()) + bias.into_dimensionality::<Ix1>().unwrap()
    };
    let hidden = linear(first, images).mapv(|x| x.max(0.0));
    let logits = linear(second, hidden);
    let argmax = |row: ArrayView1<'_, f32>| {
        let best = |best, i| if row[i] > row[best] { i } else { best };
        (1..row.len()).fold(0, best)
    };
    let right = logits.outer_iter().zip(&labels).filter(|(row, label)| argmax(*row) == **label);
    right.count() as f64 / labels.len() as f64
}

#[test]
fn the_files_agree_with_each_other() {
    let out = folder("files");
    let output = run(&out, &["--models", "12", "--epochs", "2", "--lr-min", "1e-3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(names(&out), FILES);

    let results = results(&out);
    assert_eq!(results.len(), 12);
    let rates: Vec<_> = results.iter().map(|row| number(row, "learning_rate")).collect();
    assert!((rates[0] - 1e-3).abs() < 1e-12 && (rates[11] - 1e-1).abs() < 1e-9);
    assert!(
        rates.windows(2).all(|pair| (pair[1] / pair[0] - 100_f64.powf(1.0 / 11.0)).abs() < 1e-9)
    );

    // The weights on disk, through another implementation, give the accuracies of the table.
    let population = tensors(&out.join("population.safetensors"));
    assert_eq!(population["0.weight"].shape(), [12, 32, 64]);
    assert_eq!(population["0.bias"].shape(), [12, 32]);
    assert_eq!(population["2.weight"].shape(), [12, 10, 32]);
    assert_eq!(population["2.bias"].shape(), [12, 10]);
    assert_eq!(population.len(), 4);
    for (model, row) in results.iter().enumerate() {
        let of = |name: &str| population[name].index_axis(Axis(0), model).to_owned();
        let accuracy = accuracy([of("0.weight"), of("0.bias")], [of("2.weight"), of("2.bias")]);
        let told = number(row, "validation_accuracy");
        // One image may be a tie within rounding.
        assert!((accuracy - told).abs() < 1.5 / 360.0, "model {model}: {accuracy} against {told}");
        assert!(
            number(row, "train_loss").is_finite() && number(row, "validation_loss").is_finite()
        );
    }

    let best = tensors(&out.join("best.safetensors"));
    let accuracies: Vec<_> = results.iter().map(|row| number(row, "validation_accuracy")).collect();
    let greatest = accuracies.iter().fold(0.0, |a, &b| f64::max(a, b));
    assert!(greatest > 0.5, "two epochs teach the best model more than guessing: {greatest}");
    let is_best = |model: &usize| {
        best.iter()
            .all(|(name, tensor)| population[name].index_axis(Axis(0), *model) == tensor.view())
    };
    let model = (0..12).find(is_best).unwrap();
    assert_eq!(accuracies[model].to_bits(), greatest.to_bits());

    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("median") && table.contains("best.safetensors"), "{table}");
    let svg = fs::read_to_string(out.join("sweep.svg")).unwrap();
    assert!(svg.contains("learning rate") && svg.contains("validation accuracy"));
    assert_eq!(svg.matches("<circle").count(), 12 + 2, "a dot each, one in the legend, one ring");
}

#[test]
fn one_thread_and_two_give_the_same_bytes() {
    let [one, two] = ["1", "2"].map(|threads| {
        let out = folder(&format!("threads_{threads}"));
        let arguments = ["--models", "9", "--epochs", "2", "--dropout-max", "0.5"];
        let output = run(&out, &[&arguments[..], &["--threads", threads]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        FILES.map(|name| fs::read(out.join(name)).unwrap())
    });
    assert!(one == two);
}

#[test]
fn a_model_does_not_change_with_the_size_of_its_population() {
    // With one learning rate, model i is the same model in both.
    let [few, many] = ["3", "20"].map(|models| {
        let out = folder(&format!("models_{models}"));
        let rates = ["--epochs", "1", "--lr-min", "1e-2", "--lr-max", "1e-2"];
        assert!(run(&out, &[&rates[..], &["--models", models]].concat()).status.success());
        tensors(&out.join("population.safetensors"))
    });
    for (name, tensor) in &few {
        assert_eq!(*tensor, many[name].slice_axis(Axis(0), (0..3).into()), "{name}");
    }
}

#[test]
fn dropout_is_swept_within_one_population() {
    let out = folder("dropout");
    let arguments = "--models 6 --epochs 1 --hidden 8 --dropout-min 0.1 --dropout-max 0.9";
    let output = run(&out, &arguments.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut dropout: Vec<_> = results(&out).iter().map(|row| number(row, "dropout")).collect();
    assert!(dropout.iter().all(|p| (0.1..=0.9).contains(p)), "{dropout:?}");
    dropout.sort_by(f64::total_cmp);
    dropout.dedup();
    assert_eq!(dropout.len(), 6, "each model has its own");
    let population = tensors(&out.join("population.safetensors"));
    assert_eq!(population["3.weight"].shape(), [6, 10, 8]);
}

#[test]
fn a_log_changes_no_result_and_has_every_fiftieth_step() {
    let [plain, logged] = ["unlogged", "logged"].map(|test| {
        let out = folder(test);
        let logs = out.join("logs");
        let log = if test == "logged" { vec!["--log", logs.to_str().unwrap()] } else { Vec::new() };
        let arguments = [&["--models", "7", "--epochs", "3"][..], &log].concat();
        let output = run(&out, &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        FILES.map(|name| fs::read(out.join(name)).unwrap())
    });
    assert!(plain == logged);
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sweep/logged/logs");
    let [events, csv, json] = <[String; 3]>::try_from(names(&logs)).unwrap();
    assert!(events.starts_with("events.out.tfevents."));
    let table = fs::read_to_string(logs.join(csv)).unwrap();
    let steps: Vec<_> = table.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(steps, ["step", "0", "50", "100", "135"], "45 steps an epoch");
    let lines = fs::read_to_string(logs.join(json)).unwrap();
    let train = |line: &&str| line.contains(r#""tag":"train/loss","count":7,"nan":0"#);
    assert_eq!(lines.lines().filter(train).count(), 3);
    assert_eq!(lines.lines().filter(|line| line.contains("validation/")).count(), 3);
}

/// Runs what must fail: exit code 2, one line that says why, no file.
fn refuses(test: &str, arguments: &[&str], cause: &str) {
    let out = folder(test);
    let output = run(&out, arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{arguments:?}: {message}");
    assert!(message.contains(cause), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty());
    assert_eq!(names(&out), [""; 0], "{arguments:?}");
}

#[test]
fn senseless_settings_are_refused_in_one_line() {
    for (arguments, cause) in [
        ("--models 0", "'--models <MODELS>': expected a whole number of at least 1"),
        ("--models many", "--models"),
        ("--models 99999999999", "99999999999"),
        ("--epochs 0", "--epochs"),
        ("--epochs -1", "--epochs"),
        ("--hidden 0", "--hidden"),
        ("--batch 0", "--batch"),
        ("--threads 0", "--threads"),
        ("--lr-min 0", "expected a number greater than 0"),
        ("--lr-min nan", "--lr-min"),
        ("--lr-max inf", "--lr-max"),
        ("--lr-min 0.2 --lr-max 0.1", "--lr-min 0.2 is greater than --lr-max 0.1"),
        ("--dropout-max 1.5", "expected a probability between 0 and 1"),
        ("--dropout-min -0.5 --dropout-max 0.5", "--dropout-min"),
        ("--dropout-min 0.5", "--dropout-max"),
        ("--dropout-min 0.5 --dropout-max 0.1", "--dropout-min 0.5 is greater"),
        ("--modles 3", "--modles"),
        ("--models", "--models"),
    ] {
        refuses("settings", &arguments.split(' ').collect::<Vec<_>>(), cause);
    }
}

#[test]
fn unusable_data_is_refused_by_file_line_and_column() {
    let data = folder("data");
    let line = |label: &str| format!("{}{label}\n", "0,".repeat(64));
    let good = line("3");
    for (name, text, cause) in [
        ("empty.csv", String::new(), "empty.csv: the file is empty"),
        ("one.csv", good.clone(), "one.csv: expected at least 2 images"),
        (
            "short.csv",
            format!("{good}1,2,3\n{good}"),
            "short.csv: line 2: expected 65 columns, got 3",
        ),
        (
            "letters.csv",
            format!("{good}{good}0,five{}", &good[3..]),
            "letters.csv: line 3, column 2: expected a pixel from 0 to 16, got \"five\"",
        ),
        ("bright.csv", format!("17{}{good}", &good[1..]), "bright.csv: line 1, column 1:"),
        ("nan.csv", format!("nan{}{good}", &good[1..]), "nan.csv: line 1, column 1:"),
        (
            "label.csv",
            format!("{good}{}", line("10")),
            "label.csv: line 2, column 65: expected a digit from 0 to 9, got \"10\"",
        ),
    ] {
        let path = data.join(name);
        fs::write(&path, text).unwrap();
        refuses("bad_data", &["--data", path.to_str().unwrap()], cause);
    }
    let cut = data.join("cut.csv.gz");
    fs::write(&cut, &fs::read(DIGITS).unwrap()[..3_000]).unwrap();
    refuses("bad_data", &["--data", cut.to_str().unwrap()], "cut.csv.gz: ");
    let missing = data.join("missing.csv");
    refuses("bad_data", &["--data", missing.to_str().unwrap()], "missing.csv: ");
    refuses("bad_data", &["--data", data.to_str().unwrap()], "data: ");
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_before_training() {
    let parent = folder("unwritable");
    let file = parent.join("file");
    fs::write(&file, "in the way").unwrap();
    // So many epochs that the test would not end if it began to train.
    for out in [file.clone(), file.join("below")] {
        let output = run(&out, &["--epochs", "1000000"]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.starts_with("error: cannot write ") && message.contains("unwritable"));
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let log = file.to_str().unwrap();
    refuses("unwritable_log", &["--epochs", "1000000", "--log", log], "cannot write ");
    assert_eq!(names(&parent), ["file"]);
    assert_eq!(fs::read_to_string(file).unwrap(), "in the way");
}

#[test]
#[cfg(unix)]
fn ctrl_c_leaves_nothing_behind() {
    use std::process::Stdio;
    use std::thread::sleep;
    use std::time::Duration;

    let out = folder("interrupted").join("out");
    let mut child = Command::new(example())
        .args(["--models", "4", "--epochs", "1000000", "--out"])
        .arg(&out)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The folder is made once the program listens for signals.
    while !out.exists() {
        assert_eq!(child.try_wait().unwrap(), None);
        sleep(Duration::from_millis(10));
    }
    sleep(Duration::from_millis(200));
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "interrupted: nothing was written\n");
    assert_eq!(names(&out), [""; 0]);
}

#[test]
fn help_is_no_failure() {
    let out = folder("help");
    let output = run(&out, &["--help"]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    let flags = "--models --epochs --hidden --batch --lr-min --lr-max --dropout-min --dropout-max \
                 --seed --threads --data --out --log";
    for flag in flags.split_whitespace() {
        assert!(help.contains(flag), "{flag}");
    }
}
