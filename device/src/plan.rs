//! [`Placement`]: where a program's numbers lie on a device, and how many threads compute a model.
//!
//! The choice follows from the program and the [limits](DeviceLimits) alone, never from the number of models.

use std::fmt;

use neurarch_kernels::ir::program::Program;
use neurarch_kernels::plan::on_device::{DevicePlan, Location};

use crate::limits::DeviceLimits;

/// Shared memory is given out in parts of so many bytes: what one wide load reads.
const ALIGNMENT: usize = 16;

/// How a program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// One kernel runs the whole program, several steps a launch. What several ops read lies in shared memory.
    Fused(Shared),
    /// A kernel for each op. All operands lie in global memory.
    Batched,
}

/// What one model has in shared memory, as byte offsets behind its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// For each slot, where its copy lies, if it has one. Other slots are read and written in global memory.
    pub slots: Vec<Option<usize>>,
    /// For each input, likewise.
    pub inputs: Vec<Option<usize>>,
    /// Where the scratch memory is.
    pub scratch: usize,
    /// Bytes of one model.
    pub bytes: usize,
}

/// Where numbers lie, and who computes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// One kernel or many.
    pub way: Way,
    /// Threads of a model.
    pub threads: usize,
    /// Models of a block.
    pub models: usize,
    /// Why, in a sentence.
    pub reason: String,
}

/// A thread computes up to so many numbers of the largest value.
const NUMBERS_OF_A_THREAD: usize = 16;

/// Threads of a warp.
const WARP: usize = 32;

/// Models of a block whose models have a warp each: blocks of one warp would leave places for warps empty.
const MODELS_OF_A_BLOCK: usize = 4;

impl Placement {
    /// Places a program.
    pub fn new(program: &Program, plan: &DevicePlan, limits: &DeviceLimits) -> Placement {
        let width = plan.steps.iter().map(|step| step.code.width).max().unwrap_or(1);
        let most = limits.threads.max(WARP);
        let threads = width.div_ceil(NUMBERS_OF_A_THREAD).next_power_of_two().clamp(WARP, most);
        let shared = shared(program, plan);
        let room = limits.opt_in_shared_bytes;
        let bytes = shared.bytes;
        if bytes > room {
            let reason =
                format!("a model needs {bytes} bytes of shared memory, a block has {room}");
            return Placement { way: Way::Batched, threads, models: 1, reason };
        }
        let of_block = if threads == WARP { MODELS_OF_A_BLOCK } else { 1 };
        let models = of_block.min(room / bytes.max(1)).max(1);
        let reason = format!(
            "a model needs {bytes} bytes of shared memory, a block has {room}; the widest op has {width} numbers"
        );
        Placement { way: Way::Fused(shared), threads, models, reason }
    }

    /// Places a program for a kernel an op, whatever fits.
    pub fn batched(&self) -> Placement {
        let reason = "asked for".to_owned();
        Placement { way: Way::Batched, models: 1, reason, ..self.clone() }
    }

    /// Returns the bytes of dynamic shared memory that a block needs.
    pub fn shared_bytes(&self, plan: &DevicePlan) -> usize {
        match &self.way {
            Way::Fused(shared) => shared.bytes * self.models,
            Way::Batched => plan.scratch_bytes.next_multiple_of(ALIGNMENT),
        }
    }
}

/// Lists what goes to shared memory: the arena, slots that several ops read, inputs of floating-point numbers.
fn shared(program: &Program, plan: &DevicePlan) -> Shared {
    let mut at = plan.arena_bytes.next_multiple_of(ALIGNMENT);
    let mut take = |bytes: usize| {
        let start = at;
        at += bytes.next_multiple_of(ALIGNMENT);
        start
    };
    let places = || plan.steps.iter().flat_map(|step| &step.operands).map(|view| view.place);
    let uses = |slot| places().filter(|&place| place == Location::Slot(slot)).count();
    let slots = program.slots.iter().enumerate();
    let slots =
        slots.map(|(id, slot)| (uses(id) > 1).then(|| take(slot.ty.size_bytes()))).collect();
    let inputs = program.inputs.iter();
    let inputs = inputs.map(|ty| ty.dtype.is_float().then(|| take(ty.size_bytes()))).collect();
    let scratch = take(plan.scratch_bytes);
    Shared { slots, inputs, scratch, bytes: at }
}

/// The choice and its reason, a line each.
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Placement { way, threads, models, reason } = self;
        match way {
            Way::Fused(shared) => {
                writeln!(f, "fused: {threads} threads a model, {models} models a block")?;
                writeln!(f, "{} bytes of shared memory a model", shared.bytes)?;
            }
            Way::Batched => writeln!(f, "batched: a kernel an op, {threads} threads a model")?,
        }
        writeln!(f, "because {reason}")
    }
}
