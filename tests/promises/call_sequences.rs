//! A population may change between the calls of a step: right numbers or a typed error.

mod between;
mod interrupted;
mod modified;
mod plain;
mod types;
mod walk;

use std::collections::HashSet;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use walk::{ALL, Deed, Walk};

/// Makes calls one after the other; says what is wrong with one of them, or the state that they lead to.
fn run(deeds: &[Deed]) -> Result<String, String> {
    let walked = catch_unwind(AssertUnwindSafe(|| {
        let mut walk = Walk::new();
        deeds.iter().try_for_each(|&deed| walk.call(deed))?;
        Ok::<_, String>(walk.state())
    }));
    walked.unwrap_or_else(|_| Err("a panic".into())).map_err(|wrong| format!("{deeds:?}: {wrong}"))
}

/// Spells a number in calls.
fn spelled(mut number: usize, length: u32) -> Vec<Deed> {
    let mut digit = || {
        let deed = ALL[number % ALL.len()];
        number /= ALL.len();
        deed
    };
    (0..length).map(|_| digit()).collect()
}

/// Calls `walk` with each number below `n_all`, on all threads.
fn for_each(n_all: usize, walk: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let walk = || {
        while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&n| n < n_all) {
            walk(number);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(walk)).collect();
        all.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Walks all sequences of a length, each after those deeds.
fn walk_all(before: &[Deed], length: u32) {
    for_each(ALL.len().pow(length), |number| {
        run(&[before, &spelled(number, length)].concat()).unwrap();
    });
}

/// Walks all sequences of up to that many calls; of those that lead to one state by one last call, the first alone goes
/// on.
fn walk_states(length: usize) {
    let mut known = HashSet::new();
    let mut frontier: Vec<Vec<Deed>> = vec![Vec::new()];
    for length in 1..=length {
        let reached = Mutex::new(Vec::new());
        for_each(frontier.len() * ALL.len(), |number| {
            let (before, deed) = (&frontier[number / ALL.len()], ALL[number % ALL.len()]);
            let deeds = [before, &[deed][..]].concat();
            let state = run(&deeds).unwrap();
            reached.lock().unwrap().push((number, state, deeds));
        });
        let mut reached = reached.into_inner().unwrap();
        reached.sort_by_key(|(number, ..)| *number);
        let walked = reached.len();
        let is_new = |(_, state, deeds): &(usize, String, Vec<Deed>)| {
            known.insert((state.clone(), format!("{:?}", deeds.last())))
        };
        frontier = reached.into_iter().filter(is_new).map(|(.., deeds)| deeds).collect();
        let new = frontier.len();
        let mut told = std::io::stderr();
        writeln!(told, "{length} calls: {walked} sequences, {new} new states").unwrap();
    }
}

#[test]
fn all_short_sequences_of_calls_give_right_numbers_or_typed_errors() {
    walk_all(&[], 1);
    walk_all(&[Deed::Forward(2)], 2);
    walk_all(&[Deed::Forward(2), Deed::Loss], 2);
    // The first numbers of a model that came and went are no write to the others.
    walk_all(&[Deed::Forward(2), Deed::Spawn, Deed::DespawnLast], 1);
}

/// `NEURARCH_STATES`: after how many calls to stop.
#[test]
fn all_states_that_calls_lead_to_give_right_numbers_or_typed_errors() {
    let given = std::env::var("NEURARCH_STATES").ok().and_then(|length| length.parse().ok());
    walk_states(given.unwrap_or(2));
}

#[test]
fn long_sequences_of_calls_give_right_numbers_or_typed_errors() {
    if let Some(length) =
        std::env::var("NEURARCH_CALLS").ok().and_then(|length| length.parse().ok())
    {
        (1..=length).for_each(|length| walk_all(&[], length));
        return;
    }
    let (begun, mut state) = (Instant::now(), 1_u64);
    while begun.elapsed() < Duration::from_secs(6) {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = (state >> 20) as usize;
        run(&spelled(number, 6)).unwrap();
        run(&[&[Deed::Forward(3), Deed::Loss][..], &spelled(number / 7, 6)].concat()).unwrap();
    }
}
