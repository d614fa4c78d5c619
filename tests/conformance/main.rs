//! The cases recorded from PyTorch pass, and every layer is the same alone and in a population of three.
//!
//! Here belong recorded cases, a group a test, and what runs them: `runner/`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "`pub` says what a file of a program offers to the others")]

mod population;
mod runner;

use std::collections::BTreeMap;
use std::io::{Write, stderr};
use std::path::Path;

use runner::case::{Group, Stop, groups_in};
use runner::run;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance");

/// The groups that have a test below.
const TESTED: [&str; 6] = ["modules", "init", "optim", "hooks", "state", "amp"];

fn read(group: &str) -> Group {
    Group::read(Path::new(FOLDER), group).unwrap_or_else(|error| panic!("{error}"))
}

/// Prints a line. Not by `eprintln!`, whose lines are kept back where a test passes.
fn tell(line: &str) {
    let mut stderr = stderr();
    writeln!(stderr, "{line}").unwrap();
}

/// Runs every case of a group, or one of the `of` parts that it is cut into. Tells how many were skipped, and why.
fn check(group: &str, part: usize, of: usize) {
    let group = read(group);
    let (mut failed, mut skipped) = (Vec::new(), BTreeMap::<_, usize>::new());
    for case in group.cases().skip(part).step_by(of) {
        match run(&case) {
            Ok(()) => {}
            Err(Stop::Differs(what)) => failed.push(format!("{}: {what}", case.id)),
            Err(Stop::Needs(what)) => *skipped.entry(what).or_default() += 1,
        }
    }
    for (why, count) in skipped {
        tell(&format!("{}: {count} skipped: {why}", group.name));
    }
    assert!(failed.is_empty(), "{} failed:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn modules_give_torchs_numbers_first_part() {
    check("modules", 0, 3);
}

#[test]
fn modules_give_torchs_numbers_second_part() {
    check("modules", 1, 3);
}

#[test]
fn modules_give_torchs_numbers_third_part() {
    check("modules", 2, 3);
}

#[test]
fn initializers_give_torchs_numbers() {
    check("init", 0, 1);
}

#[test]
fn optimizers_give_torchs_numbers() {
    check("optim", 0, 1);
}

#[test]
fn hooks_are_called_as_in_torch() {
    check("hooks", 0, 1);
}

#[test]
fn states_are_torchs() {
    check("state", 0, 1);
}

#[test]
fn scalers_and_autocast_are_torchs() {
    check("amp", 0, 1);
}

#[test]
fn every_group_has_a_test() {
    assert_eq!(groups_in(Path::new(FOLDER)).unwrap(), TESTED);
}
