//! Runs plans on a tile of models: every step of every stage while the tile's numbers are in the cache.
//!
//! Which tile comes when, and on which thread, is up to the [queue](super::queue).
#![expect(unsafe_code, reason = "rows are given by address")]

use std::cell::RefCell;
use std::ops::Range;

use crate::cpu::tile::{Rows, Tile, View};
use crate::execute::profile::Clock;
use crate::ir::rng_key::RngKey;
use crate::memory::{AlignedBytes, padded};
use crate::plan::{Location, Plan};

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
    /// The random state of each model at the first step of the call; a step adds 1 to `step`. May be empty if
    /// the program draws no random numbers.
    pub keys: &'a [RngKey],
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
    /// How many steps of the same call come before it: the random states of its first step are that much further on.
    pub first_step: usize,
    /// How often.
    pub steps: usize,
}

/// Memory that a worker keeps from tile to tile.
#[derive(Default)]
struct Workspace {
    arena: AlignedBytes,
    gathered: AlignedBytes,
    scratch: AlignedBytes,
    keys: Vec<RngKey>,
    views: Vec<View<'static>>,
}

thread_local! {
    /// One for each visit that is under way on this thread: a kernel that waits for the pool may have
    /// another tile run meanwhile.
    static WORKSPACES: RefCell<Vec<Workspace>> = const { RefCell::new(Vec::new()) };
}

/// Runs all stages on some models.
///
/// # Safety
///
/// As [`run`](super::queue::run), for these models.
pub(super) unsafe fn visit<'a, C: Clock<'a>>(
    stages: &[Stage<'a>],
    models: Range<usize>,
    split: bool,
    clock: &C,
) {
    let mut workspace = WORKSPACES.with_borrow_mut(Vec::pop).unwrap_or_default();
    let mut notes = C::Notes::default();
    for stage in stages {
        for step in 0..stage.steps {
            // SAFETY: as the caller promises.
            unsafe {
                workspace.run_step(stage, step, models.clone(), split, (clock, &mut notes));
            }
        }
    }
    clock.keep(notes);
    WORKSPACES.with_borrow_mut(|free| free.push(workspace));
}

impl Workspace {
    /// Runs a plan once on some models.
    ///
    /// # Safety
    ///
    /// As [`run`](super::queue::run), for these models and this step.
    unsafe fn run_step<'a, C: Clock<'a>>(
        &mut self,
        stage: &Stage<'a>,
        step: usize,
        models: Range<usize>,
        split: bool,
        (clock, notes): (&C, &mut C::Notes),
    ) {
        let &Stage { plan, ref binding, .. } = stage;
        self.arena.reserve(plan.arena_bytes * models.len());
        self.scratch.reserve(plan.scratch_bytes);
        if let Some(keys) = binding.keys.get(models.clone()) {
            self.keys.clear();
            let before = (stage.first_step + step) as u64;
            let advanced = keys.iter().map(|key| RngKey { step: key.step + before, ..*key });
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
                Location::Arena(offset) => self.arena_rows(plan, offset),
                Location::Slot(slot) => binding.slots[slot].part(&models),
                Location::Constant(offset) => Rows::Strided {
                    base: plan.constants.as_ptr().wrapping_add(offset).cast_mut(),
                    stride: 0,
                },
                Location::Scalar(scalar) => Rows::Strided {
                    base: scalar_address(binding, scalar, models.start).cast_mut().cast(),
                    stride: size_of::<f64>(),
                },
                Location::Scalar32(scalar, offset) => {
                    let rows = self.arena_rows(plan, offset);
                    let from = scalar * binding.models + models.start;
                    for (m, &number) in binding.scalars[from..][..models.len()].iter().enumerate() {
                        // SAFETY: the arena has room for this scalar of every model of the tile.
                        unsafe { rows.at(m).cast::<f32>().write(number as f32) };
                    }
                    rows
                }
                Location::Output(output) => {
                    let sink = &binding.outputs[output];
                    sink.rows.part(&models).offset(step * sink.step_bytes)
                }
                Location::Input(input) => {
                    let source = &binding.inputs[input];
                    match source.gather {
                        None => source.rows.part(&models).offset(step * source.step_bytes),
                        Some(_) => Rows::NONE,
                    }
                }
                Location::Elsewhere => {
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
                    .filter(|(view, _)| view.place == Location::Input(input))
                    .for_each(|(_, view)| view.rows = Rows::Strided { base, stride });
                gathered += stride * models.len();
            }
        }
        for (number, step) in plan.steps.iter().enumerate() {
            let start = clock.start();
            let scratch = self.scratch.bytes_mut();
            // SAFETY: arena places of values that live at the same time do not overlap, each model has an
            // arena of its own, and the caller answers for all other rows.
            let mut tile = unsafe {
                Tile::new(models.len(), &views, &step.inputs, &step.outputs, scratch)
                    .with_keys(&self.keys, step.draw)
                    .with_split(split)
            };
            step.kernel.run(&mut tile);
            clock.stop(notes, start, (plan, number, models.len()));
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
    /// As [`run`](super::queue::run), for these models and this step.
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
                // SAFETY: the caller promises `items` item numbers below `gather.items`, and the gathered bytes have
                // room for all items of all models of the tile.
                unsafe {
                    match gather.item_bytes {
                        4 => pick::<4>(gather, numbers, items, to),
                        8 => pick::<8>(gather, numbers, items, to),
                        16 => pick::<16>(gather, numbers, items, to),
                        32 => pick::<32>(gather, numbers, items, to),
                        64 => pick::<64>(gather, numbers, items, to),
                        _ => pick::<0>(gather, numbers, items, to),
                    }
                }
                to = to.wrapping_add(padded(ty.size_bytes()));
            }
        }
    }
}

/// Copies the items of these numbers, each of `BYTES` bytes (any, if 0), next to each other. A call of `memcpy` for each
/// of a tiny model's items takes longer than the items.
///
/// # Safety
///
/// There are `n` item numbers, all of them below [`Gather::items`], and room for as many items at `to`.
unsafe fn pick<const BYTES: usize>(gather: Gather, numbers: *const u32, n: usize, to: *mut u8) {
    let item_bytes = if BYTES > 0 { BYTES } else { gather.item_bytes };
    for item in 0..n {
        // SAFETY: as the caller promises.
        unsafe {
            let number = numbers.add(item).read() as usize;
            debug_assert!(number < gather.items, "item {number} of {}", gather.items);
            let from = gather.data.add(number * item_bytes);
            core::ptr::copy_nonoverlapping(from, to.add(item * item_bytes), item_bytes);
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
