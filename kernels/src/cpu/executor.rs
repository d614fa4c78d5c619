//! Runs plans: tiles of models through whole programs, tiles in parallel on the caller's rayon pool.
//!
//! A worker takes a tile of models, runs every step of every stage on it while its numbers are in the
//! cache, then takes the next. See [`run`].
#![expect(unsafe_code, reason = "rows are given by address")]

use std::cell::RefCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::cpu::memory::{AlignedBytes, padded};
use crate::cpu::tile::{Key, Rows, Tile, View};
use crate::passes::plan::{Place, Plan};

/// Where a plan's operands lie, for one cohort of models. Row `m` of everything belongs to model `m`.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// How many models there are.
    pub models: usize,
    /// For each slot of the program, its rows. Slots that are stored to are written.
    pub slots: &'a [Rows<'a>],
    /// For each input of the program, where it is read.
    pub inputs: &'a [Source<'a>],
    /// For each output of the program, where it is written.
    pub outputs: &'a [Sink<'a>],
    /// The scalars: the value of scalar `s` for model `m` at `s · models + m`.
    pub scalars: &'a [f64],
    /// The random state of each model at the first step; a step adds 1 to `step`. May be empty if
    /// the program draws no random numbers.
    pub keys: &'a [Key],
}

/// Where an input is read.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The input's elements (row-major), or the item numbers if `gather` is set.
    pub rows: Rows<'a>,
    /// Bytes from one step's elements, or item numbers, to the next step's.
    pub step_bytes: usize,
    /// If set, axis 0 of the input is picked from a data set.
    pub gather: Option<Gather>,
}

/// A data set from which each model picks its minibatch: `rows` of the [`Source`] hold `u32` item
/// numbers, one for each index of axis 0.
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    /// Address of item 0.
    pub data: *const u8,
    /// How many items there are; a larger item number is a bug of the caller.
    pub items: usize,
    /// Bytes of one item.
    pub item_bytes: usize,
}

// SAFETY: an address; whoever calls `run` answers for what it points to.
unsafe impl Send for Gather {}
// SAFETY: as above.
unsafe impl Sync for Gather {}

/// Where an output is written, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Sink<'a> {
    /// The output's elements at the first step.
    pub rows: Rows<'a>,
    /// Bytes from one step's elements to the next step's.
    pub step_bytes: usize,
}

/// Some steps of one plan: a part of what happens to a tile in one visit.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// What is run.
    pub plan: &'a Plan,
    /// On what.
    pub binding: Binding<'a>,
    /// How often.
    pub steps: usize,
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
}

/// Below this much work ([`Op::cost`](crate::op::Op::cost), a few dozen microseconds of it) waking threads costs more
/// than it gains.
const WORTH_A_THREAD: usize = 2_000_000;

/// Runs all steps of all stages for every model: stage after stage within a tile, tiles in parallel on the
/// current rayon pool. Fewer models than threads run one after another, and large ops split inside.
/// `direction` decides nothing but the speed: see [`Direction`].
///
/// In a steady state this allocates nothing.
///
/// # Panics
///
/// If the stages' bindings have different numbers of models, or fewer operands than their plans.
///
/// # Safety
///
/// For each stage, model `m` and step, each address in the binding is that of as many elements as the
/// plan's program says, aligned for their type and initialized, and item numbers are below
/// [`Gather::items`]. While this runs, nobody else reads or writes the rows of outputs and of slots that are
/// stored to, and nobody writes the others; rows that are written belong to one model each and overlap
/// nothing else.
pub unsafe fn run(stages: &[Stage<'_>], direction: Direction) {
    let Some(first) = stages.first() else { return };
    let models = first.binding.models;
    for Stage { plan, binding, .. } in stages {
        assert_eq!(binding.models, models, "stages run on the same models");
        assert_eq!(binding.slots.len(), plan.program.slots.len(), "slots");
        assert_eq!(binding.inputs.len(), plan.program.inputs.len(), "inputs");
        assert_eq!(binding.outputs.len(), plan.program.outputs.len(), "outputs");
        assert_eq!(binding.scalars.len(), plan.program.scalars.len() * models, "scalars");
    }
    let tile = stages.iter().map(|stage| stage.plan.tile()).min().unwrap_or(1);
    let costs = stages.iter().map(|stage| stage.plan.cost.saturating_mul(stage.steps));
    let cost = costs.fold(0, usize::saturating_add);
    let threads = rayon::current_num_threads();
    let cuts = Cuts::of(stages, models);
    // SAFETY: as the caller promises; below, each model is visited once.
    let visit_even = |models| unsafe { visit(stages, models, false) };
    let visit_tile = |models: Range<usize>| match &cuts {
        Cuts::Few(cuts) if cuts.iter().all(|&cut| cut <= models.start || models.end <= cut) => {
            visit_even(models);
        }
        _ => at_gaps(stages, models, visit_even),
    };
    if threads == 1 || models.saturating_mul(cost) < WORTH_A_THREAD {
        run_range(0..models, tile, direction, visit_tile);
    } else if models < threads {
        // SAFETY: as the caller promises.
        run_range(0..models, 1, direction, |models| unsafe { visit(stages, models, true) });
    } else {
        let homes = threads.min(MAX_HOMES);
        let taken = [const { AtomicUsize::new(0) }; MAX_HOMES];
        let least = (models / (16 * threads)).clamp(1, tile);
        (0..threads).into_par_iter().with_max_len(1).for_each(|thread| {
            let thread = rayon::current_thread_index().unwrap_or(thread);
            for home in (0..homes).map(|further| (thread + further) % homes) {
                let of_home = home * models / homes..(home + 1) * models / homes;
                while let Some(models) = take(&taken[home], &of_home, least, direction) {
                    run_range(models, tile, direction, visit_tile);
                }
            }
        });
    }
}

/// More threads than this share the parts that they begin with.
const MAX_HOMES: usize = 64;

/// Takes some of a part's models that nobody took yet: many that lie one behind the other while there are many
/// left, few in the end, so that all threads end together however late they began.
///
/// A thread begins with a part of its own, the same one in each run, and then helps with the others'.
fn take(
    taken: &AtomicUsize,
    part: &Range<usize>,
    least: usize,
    direction: Direction,
) -> Option<Range<usize>> {
    let some = |before: usize| {
        let left = part.len() - before;
        left.div_ceil(4).max(least).min(left)
    };
    let before = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
        (before < part.len()).then(|| before + some(before))
    });
    let before = before.ok()?;
    let after = before + some(before);
    Some(match direction {
        Direction::Up => part.start + before..part.start + after,
        Direction::Down => part.end - after..part.end - before,
    })
}

fn run_range(
    models: Range<usize>,
    tile: usize,
    direction: Direction,
    mut visit: impl FnMut(Range<usize>),
) {
    let tiles = models.len().div_ceil(tile);
    for number in 0..tiles {
        let number = if direction == Direction::Up { number } else { tiles - 1 - number };
        let start = models.start + number * tile;
        visit(start..models.end.min(start + tile));
    }
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
    /// Just before these models; before model 0 where there are fewer.
    Few([usize; Cuts::FEW]),
    /// At more places.
    Many,
}

impl Cuts {
    /// So many are found once a run; else each tile is looked at.
    const FEW: usize = 4;

    fn of(stages: &[Stage<'_>], models: usize) -> Cuts {
        let mut cuts = [0; Cuts::FEW];
        let (mut start, mut number) = (0, 0);
        while let Some(even) = rows(stages).map(|rows| rows.until_gap(&(start..models))).min()
            && start + even < models
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

/// Memory that a worker keeps from tile to tile.
#[derive(Default)]
struct Workspace {
    arena: AlignedBytes,
    gathered: AlignedBytes,
    scratch: AlignedBytes,
    keys: Vec<Key>,
    views: Vec<View<'static>>,
}

thread_local! {
    /// One for each visit that is under way on this thread: a kernel that waits for the pool may have
    /// another tile run meanwhile.
    static WORKSPACES: RefCell<Vec<Workspace>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with so many bytes of scratch memory of this thread's own (zeroed at first, then as it was left).
pub(crate) fn with_scratch(bytes: usize, f: impl FnOnce(&mut [u8])) {
    let mut workspace = WORKSPACES.with_borrow_mut(Vec::pop).unwrap_or_default();
    workspace.scratch.reserve(bytes);
    f(workspace.scratch.bytes_mut());
    WORKSPACES.with_borrow_mut(|free| free.push(workspace));
}

/// Runs all stages on some models.
///
/// # Safety
///
/// As [`run`], for these models.
unsafe fn visit(stages: &[Stage<'_>], models: Range<usize>, split: bool) {
    let mut workspace = WORKSPACES.with_borrow_mut(Vec::pop).unwrap_or_default();
    for stage in stages {
        for step in 0..stage.steps {
            // SAFETY: as the caller promises.
            unsafe { workspace.run_step(stage, step, models.clone(), split) };
        }
    }
    WORKSPACES.with_borrow_mut(|free| free.push(workspace));
}

impl Workspace {
    /// Runs a plan once on some models.
    ///
    /// # Safety
    ///
    /// As [`run`], for these models and this step.
    unsafe fn run_step(
        &mut self,
        stage: &Stage<'_>,
        step: usize,
        models: Range<usize>,
        split: bool,
    ) {
        let Stage { plan, binding, .. } = stage;
        self.arena.reserve(plan.arena_bytes * models.len());
        self.scratch.reserve(plan.scratch_bytes);
        if let Some(keys) = binding.keys.get(models.clone()) {
            self.keys.clear();
            let advanced = keys.iter().map(|key| Key { step: key.step + step as u64, ..*key });
            self.keys.extend(advanced);
        }
        // SAFETY: as the caller promises.
        unsafe { self.gather(stage, step, &models) };
        let mut views = core::mem::take(&mut self.views);
        views.clear();
        let mut views = recycle(views);
        let mut gathered = 0;
        for view in &plan.views {
            let rows = match view.place {
                Place::Arena(offset) => self.arena_rows(plan, offset),
                Place::Slot(slot) => binding.slots[slot].part(&models),
                Place::Constant(offset) => Rows::Strided {
                    base: plan.constants.as_ptr().wrapping_add(offset).cast_mut(),
                    stride: 0,
                },
                Place::Scalar(scalar) => Rows::Strided {
                    base: scalar_address(binding, scalar, models.start).cast_mut().cast(),
                    stride: size_of::<f64>(),
                },
                Place::Scalar32(scalar, offset) => {
                    let rows = self.arena_rows(plan, offset);
                    let from = scalar * binding.models + models.start;
                    for (m, &number) in binding.scalars[from..][..models.len()].iter().enumerate() {
                        // SAFETY: the arena has room for this scalar of every model of the tile.
                        unsafe { rows.at(m).cast::<f32>().write(number as f32) };
                    }
                    rows
                }
                Place::Output(output) => {
                    let sink = &binding.outputs[output];
                    sink.rows.part(&models).offset(step * sink.step_bytes)
                }
                Place::Input(input) => {
                    let source = &binding.inputs[input];
                    match source.gather {
                        None => source.rows.part(&models).offset(step * source.step_bytes),
                        Some(_) => Rows::NONE,
                    }
                }
                Place::Elsewhere => {
                    views.push(View::ELSEWHERE);
                    continue;
                }
            };
            views.push(View { rows, numel: view.numel, element_bytes: view.dtype.size_bytes() });
        }
        for (input, source) in binding.inputs.iter().enumerate() {
            if source.gather.is_some() {
                let stride = padded(plan.program.inputs[input].size_bytes());
                let base = self.gathered.as_mut_ptr().wrapping_add(gathered);
                let of_input = plan.views.iter().zip(&mut views);
                of_input
                    .filter(|(view, _)| view.place == Place::Input(input))
                    .for_each(|(_, view)| view.rows = Rows::Strided { base, stride });
                gathered += stride * models.len();
            }
        }
        for (number, step) in plan.steps.iter().enumerate() {
            let start = plan.times.start();
            let scratch = self.scratch.bytes_mut();
            // SAFETY: arena places of values that live at the same time do not overlap, each model has an
            // arena of its own, and the caller answers for all other rows.
            let mut tile = unsafe {
                Tile::new(models.len(), &views, &step.inputs, &step.outputs, scratch)
                    .with_keys(&self.keys, step.draw)
                    .with_split(split)
            };
            step.kernel.run(&mut tile);
            plan.times.stop(number, start);
        }
        self.views = recycle(views);
    }

    fn arena_rows(&mut self, plan: &Plan, offset: usize) -> Rows<'static> {
        let base = self.arena.as_mut_ptr().wrapping_add(offset);
        Rows::Strided { base, stride: plan.arena_bytes }
    }

    /// Copies the items that the models picked next to each other.
    ///
    /// # Safety
    ///
    /// As [`run`], for these models and this step.
    unsafe fn gather(&mut self, stage: &Stage<'_>, step: usize, models: &Range<usize>) {
        let Stage { plan, binding, .. } = stage;
        let picked = || {
            binding
                .inputs
                .iter()
                .zip(&plan.program.inputs)
                .filter_map(|(source, ty)| source.gather.map(|gather| (source, gather, ty)))
        };
        let bytes = picked().map(|(_, _, ty)| padded(ty.size_bytes()) * models.len()).sum();
        self.gathered.reserve(bytes);
        let mut to = self.gathered.as_mut_ptr();
        for (source, gather, ty) in picked() {
            let rows = source.rows.offset(step * source.step_bytes);
            let items = ty.shape.first().copied().unwrap_or(1);
            for model in models.clone() {
                let numbers = rows.at(model).cast::<u32>();
                for item in 0..items {
                    // SAFETY: the caller promises `items` item numbers below `gather.items`, and the
                    // gathered bytes have room for all items of all models of the tile.
                    unsafe {
                        let number = numbers.add(item).read() as usize;
                        debug_assert!(number < gather.items, "item {number} of {}", gather.items);
                        let from = gather.data.add(number * gather.item_bytes);
                        let to = to.add(item * gather.item_bytes);
                        core::ptr::copy_nonoverlapping(from, to, gather.item_bytes);
                    }
                }
                to = to.wrapping_add(padded(ty.size_bytes()));
            }
        }
    }
}

fn scalar_address(binding: &Binding<'_>, scalar: usize, model: usize) -> *const f64 {
    binding.scalars[scalar * binding.models + model..].as_ptr()
}

/// Gives an empty vector of views with the memory of another, so that a steady step allocates nothing.
fn recycle<'a>(mut views: Vec<View<'_>>) -> Vec<View<'a>> {
    views.clear();
    views.into_iter().map(|_| unreachable!("the vector was just emptied")).collect()
}
