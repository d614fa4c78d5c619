//! Blocks of models: a launch that stops when an allowance is used up.
//!
//! Workers take blocks in their order, one after another, until none is left, so many were begun as are allowed, or
//! the deadline has passed. A block that was begun is finished.
#![expect(unsafe_code, reason = "a block reads and writes the rows that its stage's binding names")]

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use neurarch_kernels::cpu::tile::Rows;
use neurarch_kernels::execute::executor::{Binding, Sink, Source, Stage};
use neurarch_kernels::execute::profile::Event;
use neurarch_kernels::execute::queue;
use neurarch_kernels::execute::queue::{Direction, Work};
use neurarch_kernels::ir::trace::panic_message;
use rayon::prelude::*;

use crate::errors::BindError;
use crate::storage::recording::Recording;

/// Has so many workers call a function, each with its number, and returns when all have.
pub type RunWorkers = fn(usize, &(dyn Fn(usize) + Sync));

/// Runs workers on the caller's rayon pool.
pub fn run_on_rayon(workers: usize, work: &(dyn Fn(usize) + Sync)) {
    (0..workers).into_par_iter().with_max_len(1).for_each(work);
}

/// How much a launch may do, and who does it.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// How many tiles may begin.
    pub tiles: usize,
    /// When no tile may begin any more.
    pub deadline: Option<Instant>,
    /// How many workers there are, at least 1.
    pub workers: usize,
    /// Who the workers are.
    pub run: RunWorkers,
}

impl Allowance {
    /// Allows everything, on all threads of the caller's rayon pool.
    pub fn unlimited() -> Self {
        let workers = rayon::current_num_threads();
        Allowance { tiles: usize::MAX, deadline: None, workers, run: run_on_rayon }
    }

    /// Returns whether another tile may begin now.
    pub fn is_left(&self) -> bool {
        self.tiles > 0 && self.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// How many tiles ran.
    pub tiles: usize,
    /// How many of them began at the deadline or after it: none.
    pub late: usize,
}

impl Used {
    /// Adds what another launch did.
    pub fn add(&mut self, other: Used) {
        self.tiles += other.tiles;
        self.late += other.late;
    }
}

/// Some members of a task, by their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Which task of the queue.
    pub(crate) task: usize,
    /// Which members.
    pub(crate) members: Range<usize>,
}

/// Blocks to run, in their order, and which of them ran.
pub(crate) struct Blocks<'a> {
    blocks: &'a [Block],
    allowance: &'a Allowance,
    ran: Vec<AtomicBool>,
    late: AtomicUsize,
}

impl<'a> Blocks<'a> {
    /// Takes blocks in the order in which they are to begin.
    ///
    /// # Panics
    ///
    /// If blocks of one task overlap.
    pub(crate) fn new(blocks: &'a [Block], allowance: &'a Allowance) -> Self {
        let is_behind = |(a, b): (&Block, &Block)| {
            a.task < b.task || a.task == b.task && a.members.end <= b.members.start
        };
        assert!(blocks.iter().zip(blocks.iter().skip(1)).all(is_behind), "blocks are apart");
        let ran = blocks.iter().map(|_| AtomicBool::new(false)).collect();
        Blocks { blocks, allowance, ran, late: AtomicUsize::new(0) }
    }

    /// Lists the blocks that ran.
    pub(crate) fn ran(&self) -> impl Iterator<Item = &'a Block> {
        let ran = self.ran.iter().map(|ran| ran.load(Ordering::Relaxed));
        self.blocks.iter().zip(ran).filter_map(|(block, ran)| ran.then_some(block))
    }

    /// Says what was done.
    pub(crate) fn used(&self) -> Used {
        Used { tiles: self.ran().count(), late: self.late.load(Ordering::Relaxed) }
    }

    /// Runs the blocks, each by its task's stage; a recording notes how long their ops take, if there is one.
    ///
    /// # Errors
    ///
    /// [`BindError::Kernel`] if the kernel of an op panics. Blocks that ran before are done.
    ///
    /// # Safety
    ///
    /// As [`queue::run`], for these stages.
    pub(super) unsafe fn run(
        &self,
        stages: &[Stage<'_>],
        recording: Option<&mut Recording>,
    ) -> Result<(), BindError> {
        let Allowance { tiles, deadline, workers, run } = *self.allowance;
        let blocks = &self.blocks[..self.blocks.len().min(tiles)];
        let fits = |block: &Block| block.members.end <= stages[block.task].binding.models;
        assert!(blocks.iter().all(fits), "blocks are of members");
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let events = recording.is_some().then(Mutex::default);
        let work = |_: usize| {
            while let Some((number, block)) = take(&next, blocks) {
                let begin = deadline.map(|deadline| (Instant::now(), deadline));
                if begin.is_some_and(|(now, deadline)| now >= deadline) {
                    return;
                }
                // SAFETY: as the caller promises; blocks of one task are apart (`Blocks::new`), and each is taken once.
                let visit = || unsafe {
                    visit(&stages[block.task], block.members.clone(), events.as_ref());
                };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(visit)) {
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    *failure = Some(BindError::Kernel { message: panic_message(&*panic) });
                    return;
                }
                if begin.is_some_and(|(began, deadline)| began >= deadline) {
                    self.late.fetch_add(1, Ordering::Relaxed);
                }
                self.ran[number].store(true, Ordering::Relaxed);
            }
        };
        match workers.min(blocks.len()) {
            0 => {}
            1 => work(0),
            workers => run(workers, &work),
        }
        if let (Some(recording), Some(events)) = (recording, events) {
            recording.note(events.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Takes the next block.
fn take<'a>(next: &AtomicUsize, blocks: &'a [Block]) -> Option<(usize, &'a Block)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    blocks.get(number).map(|block| (number, block))
}

/// Runs a stage on some of its models, and notes how long their ops take, if that is asked for.
///
/// # Safety
///
/// As [`queue::run`], for these models.
unsafe fn visit<'a>(
    stage: &Stage<'a>,
    models: Range<usize>,
    events: Option<&Mutex<Vec<Event<'a>>>>,
) {
    let Binding { models: all, slots, inputs, outputs, scalars, keys } = stage.binding;
    let slots: Vec<Rows<'_>> = slots.iter().map(|rows| rows.part(&models)).collect();
    let part = inputs.iter().map(|of| Source { rows: of.rows.part(&models), ..*of });
    let inputs: Vec<_> = part.collect();
    let part = outputs.iter().map(|of| Sink { rows: of.rows.part(&models), ..*of });
    let outputs: Vec<_> = part.collect();
    let of_scalars = scalars.chunks_exact(all.max(1));
    let scalars: Vec<f64> = of_scalars.flat_map(|of| of[models.clone()].iter().copied()).collect();
    let keys = keys.get(models.clone()).unwrap_or(&[]);
    let binding = Binding {
        models: models.len(),
        slots: &slots,
        inputs: &inputs,
        outputs: &outputs,
        scalars: &scalars,
        keys,
    };
    let stages = [Stage { binding, ..*stage }];
    let mut queue = [Work::new(&stages)];
    let Some(events) = events else {
        // SAFETY: as the caller promises: the rows are those of these models.
        return unsafe { queue::run(&mut queue, Direction::default()) };
    };
    // SAFETY: as above.
    let noted = unsafe { queue::run_profiled(&mut queue, Direction::default()) };
    let noted = noted.into_iter().map(|Event { step, models, thread, start, duration, .. }| {
        Event { plan: stage.plan, step, models, thread, start, duration }
    });
    events.lock().unwrap_or_else(PoisonError::into_inner).extend(noted);
}
