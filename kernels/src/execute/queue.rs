//! The queue of a run: all tiles of all cohorts that run together, on the caller's rayon pool.
//!
//! The models of a queue stand in one line, each as long as its work takes. Each thread begins with a part of that
//! line, the same one in each run, and takes pieces of it; then it helps with the others' parts. So a queue of a
//! thousand small cohorts is shared out like one large cohort.
#![expect(unsafe_code, reason = "a visit reads and writes the rows that its binding names")]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::executor::{Stage, visit};
use super::profile::{Clock, Event, NoClock, Recorder};
use crate::cpu::tile::Rows;

/// What the models of one cohort do: some stages, one after another on each tile.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    stages: &'a [Stage<'a>],
    models: usize,
    tile: usize,
    /// Of one model, as the line counts it.
    cost: u64,
    /// Where its models stand in the line.
    start: u64,
    end: u64,
}

/// Which models come first.
///
/// The second cache of a core still holds the models that it visited last. A run that goes the other way than the
/// one before finds them there. The bits are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// From the first model on.
    #[default]
    Up,
    /// From the last model back.
    Down,
}

impl Direction {
    /// Gives the other one.
    #[must_use]
    pub fn turned(self) -> Direction {
        match self {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        }
    }

    /// Visits the parts of a list in this direction.
    fn each<T>(self, all: impl DoubleEndedIterator<Item = T>, visit: impl FnMut(T)) {
        match self {
            Direction::Up => all.for_each(visit),
            Direction::Down => all.rev().for_each(visit),
        }
    }
}

/// Below this much work ([`Op::cost`](crate::ir::op::Op::cost), a few dozen microseconds of it) waking threads costs more
/// than it gains.
const WORTH_A_THREAD: u64 = 2_000_000;

/// A model takes no more of the line than this, so that the line of as many models as there can be has an end.
const MOST_COST: usize = 1 << 28;

/// More threads than this share the parts that they begin with.
const MAX_HOMES: usize = 64;

impl<'a> Work<'a> {
    /// Puts stages together that run on the same models.
    ///
    /// # Panics
    ///
    /// If the stages' bindings have different numbers of models, or fewer operands than their plans.
    pub fn new(stages: &'a [Stage<'a>]) -> Self {
        let models = stages.first().map_or(0, |stage| stage.binding.models);
        assert!(u32::try_from(models).is_ok(), "a world has fewer than 2³² models");
        for Stage { plan, binding, .. } in stages {
            assert_eq!(binding.models, models, "stages run on the same models");
            assert_eq!(binding.slots.len(), plan.program.slots.len(), "slots");
            assert_eq!(binding.inputs.len(), plan.program.inputs.len(), "inputs");
            assert_eq!(binding.outputs.len(), plan.program.outputs.len(), "outputs");
            assert_eq!(binding.scalars.len(), plan.program.scalars.len() * models, "scalars");
        }
        let tile = stages.iter().map(|stage| stage.plan.tile()).min().unwrap_or(1);
        let costs = stages.iter().map(|stage| stage.plan.cost.saturating_mul(stage.steps));
        let cost = costs.fold(0, usize::saturating_add).clamp(1, MOST_COST) as u64;
        Work { stages, models, tile, cost, start: 0, end: 0 }
    }

    /// How much of the line all models take.
    fn length(&self) -> u64 {
        self.models as u64 * self.cost
    }

    /// Gives the models that stand in a part of the line.
    fn models_in(&self, part: &Range<u64>) -> Range<usize> {
        let first = |at: u64| (at.clamp(self.start, self.end) - self.start).div_ceil(self.cost);
        first(part.start) as usize..first(part.end) as usize
    }

    /// Visits some models, tile after tile.
    ///
    /// # Safety
    ///
    /// As [`run`], for these models.
    unsafe fn visit<C: Clock<'a>>(&self, models: Range<usize>, direction: Direction, clock: &C) {
        if models.len() == 1 {
            // One row has no gaps: nothing to look for, which of a tiny model takes as long as a layer.
            // SAFETY: as the caller promises.
            return unsafe { visit(self.stages, models, false, clock) };
        }
        let cuts = Cuts::of(self.stages, &models);
        // SAFETY: as the caller promises.
        let visit_even = |models| unsafe { visit(self.stages, models, false, clock) };
        direction.each(tiles(models, self.tile), |models| match &cuts {
            Cuts::Few(cuts) if cuts.iter().all(|&cut| cut <= models.start || models.end <= cut) => {
                visit_even(models);
            }
            _ => at_gaps(self.stages, models, visit_even),
        });
    }
}

/// Runs all steps of all stages for every model of every cohort: stage after stage within a tile, tiles in parallel on
/// the current rayon pool. Fewer models than threads that are most of the work run one after another, and large ops
/// split inside. `direction` decides nothing but the speed: see [`Direction`].
///
/// In a steady state this allocates nothing.
///
/// # Safety
///
/// For each stage, model `m` and step, each address in the binding is that of as many elements as the
/// plan's program says, aligned for their type and initialized, and item numbers are below
/// [`Gather::items`](super::executor::Gather::items). While this runs, nobody else reads or writes the rows of outputs
/// and of slots that are stored to, and nobody writes the others; rows that are written belong to one model of one
/// cohort each and overlap nothing else.
pub unsafe fn run(queue: &mut [Work<'_>], direction: Direction) {
    // SAFETY: as the caller promises.
    unsafe { run_by(queue, direction, &NoClock) };
}

/// [`run`], to the same bits, with the time that each step took on each tile; in no order.
///
/// # Safety
///
/// As [`run`].
pub unsafe fn run_profiled<'a>(queue: &mut [Work<'a>], direction: Direction) -> Vec<Event<'a>> {
    let recorder = Recorder::default();
    // SAFETY: as the caller promises.
    unsafe { run_by(queue, direction, &recorder) };
    recorder.into_events()
}

/// [`run`] by a clock.
///
/// # Safety
///
/// As [`run`].
unsafe fn run_by<'a, C: Clock<'a>>(queue: &mut [Work<'a>], direction: Direction, clock: &C) {
    let threads = rayon::current_num_threads();
    let all = queue.iter().map(Work::length).fold(0, u64::saturating_add);
    if threads == 1 || all < WORTH_A_THREAD {
        // SAFETY: as the caller promises.
        let visit = |work: &Work<'a>| unsafe { work.visit(0..work.models, direction, clock) };
        return direction.each(queue.iter(), visit);
    }
    let mut end = 0_u64;
    for work in &mut *queue {
        work.start = end;
        let is_large = work.cost.saturating_mul(threads as u64) > all;
        if is_large && work.models < threads && work.length() >= WORTH_A_THREAD {
            for models in tiles(0..work.models, 1) {
                // SAFETY: as the caller promises.
                unsafe { visit(work.stages, models, true, clock) };
            }
        } else {
            end = end.saturating_add(work.length());
        }
        work.end = end;
    }
    let queue = &*queue;
    let homes = threads.min(MAX_HOMES) as u64;
    let taken = [const { AtomicU64::new(0) }; MAX_HOMES];
    let tile = queue.iter().map(|work| work.cost * work.tile as u64).max().unwrap_or(1);
    let least = (end / (16 * threads as u64)).clamp(1, tile);
    let help = |thread: usize| {
        for home in (0..homes).map(|further| (thread as u64 + further) % homes) {
            let of_home = cut(end, home, homes)..cut(end, home + 1, homes);
            while let Some(part) = take(&taken[home as usize], &of_home, least, direction) {
                // SAFETY: as the caller promises; the parts are apart, so each model is visited once.
                unsafe { visit_part(queue, &part, direction, clock) };
            }
        }
    };
    (0..threads).into_par_iter().with_max_len(1).for_each(|thread| {
        help(rayon::current_thread_index().unwrap_or(thread));
    });
}

/// Gives the place where part `number` of the line begins.
fn cut(end: u64, number: u64, parts: u64) -> u64 {
    (u128::from(end) * u128::from(number) / u128::from(parts)) as u64
}

/// Takes some of a part that nobody took yet: much that lies together while there is much left, little in the end, so
/// that all threads end together however late they began.
fn take(
    taken: &AtomicU64,
    part: &Range<u64>,
    least: u64,
    direction: Direction,
) -> Option<Range<u64>> {
    let length = part.end - part.start;
    let some = |before: u64| {
        let left = length - before;
        left.div_ceil(4).max(least).min(left)
    };
    let before = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
        (before < length).then(|| before + some(before))
    });
    let before = before.ok()?;
    let after = before + some(before);
    Some(match direction {
        Direction::Up => part.start + before..part.start + after,
        Direction::Down => part.end - after..part.end - before,
    })
}

/// Visits the models that stand in a part of the line.
///
/// # Safety
///
/// As [`run`], for these models.
unsafe fn visit_part<'a, C: Clock<'a>>(
    queue: &[Work<'a>],
    part: &Range<u64>,
    direction: Direction,
    clock: &C,
) {
    let first = queue.partition_point(|work| work.end <= part.start);
    let count = queue[first..].partition_point(|work| work.start < part.end);
    direction.each(queue[first..first + count].iter(), |work| {
        // SAFETY: as the caller promises.
        unsafe { work.visit(work.models_in(part), direction, clock) };
    });
}

/// Cuts models into tiles.
fn tiles(
    models: Range<usize>,
    tile: usize,
) -> impl DoubleEndedIterator<Item = Range<usize>> + ExactSizeIterator {
    (0..models.len().div_ceil(tile)).map(move |number| {
        let start = models.start + number * tile;
        start..models.end.min(start + tile)
    })
}

/// Lists the rows of all operands that lie outside of the arena.
fn rows<'a>(stages: &'a [Stage<'_>]) -> impl Iterator<Item = &'a Rows<'a>> {
    stages.iter().flat_map(|Stage { binding, .. }| {
        let inputs = binding.inputs.iter().map(|source| &source.rows);
        let outputs = binding.outputs.iter().map(|sink| &sink.rows);
        binding.slots.iter().chain(inputs).chain(outputs)
    })
}

/// Where the rows of operands have gaps.
enum Cuts {
    /// Just before these models; before the first where there are fewer.
    Few([usize; Cuts::FEW]),
    /// At more places.
    Many,
}

impl Cuts {
    /// So many are found once; else each tile is looked at.
    const FEW: usize = 4;

    fn of(stages: &[Stage<'_>], models: &Range<usize>) -> Cuts {
        let mut cuts = [models.start; Cuts::FEW];
        let (mut start, mut number) = (models.start, 0);
        while let Some(even) = rows(stages).map(|rows| rows.until_gap(&(start..models.end))).min()
            && start + even < models.end
        {
            start += even;
            match cuts.get_mut(number) {
                Some(cut) => *cut = start,
                None => return Cuts::Many,
            }
            number += 1;
        }
        Cuts::Few(cuts)
    }
}

/// Cuts a tile where its rows have gaps, if they are few: kernels are faster where all rows lie evenly, and one model
/// that runs apart is no reason to be slow with its neighbors.
fn at_gaps(stages: &[Stage<'_>], mut models: Range<usize>, visit: impl Fn(Range<usize>)) {
    let gaps = rows(stages).map(|rows| rows.gaps(&models)).max().unwrap_or(0);
    if (1..=models.len() / WORTH_A_CUT).contains(&gaps) {
        while let Some(even) = rows(stages).map(|rows| rows.until_gap(&models)).min()
            && even < models.len()
        {
            visit(models.start..models.start + even);
            models.start += even;
        }
    }
    visit(models);
}

/// Below this many models for each gap, cuts cost more than they gain.
const WORTH_A_CUT: usize = 16;
