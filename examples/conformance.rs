//! Runs cases that were recorded from PyTorch, and tells where neurarch differs.
//!
//! ```text
//! cargo run --release --example conformance -- tests/conformance
//! cargo run --release --example conformance -- tests/conformance --group hooks --group state
//! ```
//!
//! A group is two files of the folder, `GROUP.json` and `GROUP.safetensors`; `tests/conformance/README.md` says what
//! they hold. One line is printed for each case that failed or was skipped, and `N passed, N failed, N skipped` at
//! the end. A case is skipped if it needs what neurarch does not have; its line says what. The exit code is 1 if a
//! case failed, 2 if the files cannot be used.
//!
//! `tests/conformance/runner/` reads cases, builds their models and runs their groups; `cargo test` does so with the cases of
//! `tests/conformance/`.

#![expect(clippy::print_stderr, reason = "a program talks to its user")]
#![expect(unreachable_pub, reason = "`pub` says what a file of a program offers to the others")]

#[path = "../tests/conformance/runner/mod.rs"]
mod runner;

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use runner::case::{Case, Group, Stop, Unusable, groups_in};
use runner::run;

/// Runs cases that were recorded from PyTorch, and tells where neurarch differs.
#[derive(Debug, Parser)]
#[command(name = "conformance")]
struct Settings {
    /// Folder with GROUP.json and GROUP.safetensors for each group
    dir: PathBuf,
    /// A group to run, and others [default: all that the folder has]
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,
}

/// What became of the cases.
#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

fn main() -> ExitCode {
    let settings = match Settings::try_parse() {
        Ok(settings) => settings,
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            // Whoever closed the pipe has seen enough.
            let _ = write!(stdout(), "{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            return refuse(line.trim_start_matches("error: "));
        }
    };
    let groups = match read(settings) {
        Ok(groups) => groups,
        Err(unusable) => return refuse(&unusable.to_string()),
    };
    // A panic is a failed case, which says so on its line.
    std::panic::set_hook(Box::new(|_| {}));
    let mut counts = Counts::default();
    for group in &groups {
        for case in group.cases() {
            tell(&case, &mut counts);
        }
    }
    let Counts { passed, failed, skipped } = counts;
    let _ = writeln!(stdout(), "{passed} passed, {failed} failed, {skipped} skipped");
    ExitCode::from(u8::from(failed > 0))
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(2)
}

/// Reads the groups before any runs, so that unusable files are known at once.
fn read(settings: Settings) -> Result<Vec<Group>, Unusable> {
    let Settings { dir, groups } = settings;
    let mut names = groups;
    if names.is_empty() {
        names = groups_in(&dir)?;
    }
    let mut groups: Vec<Group> = Vec::new();
    for name in names {
        if groups.iter().all(|known| known.name != name) {
            groups.push(Group::read(&dir, &name)?);
        }
    }
    Ok(groups)
}

/// Runs a case, counts it, and prints its line unless it passed.
fn tell(case: &Case<'_>, counts: &mut Counts) {
    let (word, why) = match run(case) {
        Ok(()) => {
            counts.passed += 1;
            return;
        }
        Err(Stop::Differs(what)) => {
            counts.failed += 1;
            ("failed", what)
        }
        Err(Stop::Needs(what)) => {
            counts.skipped += 1;
            ("skipped", what)
        }
    };
    let _ = writeln!(stdout(), "{word} {}: {}", case.id, why.replace('\n', "\\n"));
}
