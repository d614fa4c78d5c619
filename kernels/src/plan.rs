//! [`Plan`]: a program made ready to run: layouts chosen, kernels made, every value given its place.
//!
//! Values live in an arena, a part of which is used again as soon as nobody reads it any more; each model
//! of a tile has an arena of its own, side by side. An update rule works in the row of the column itself.

pub(crate) mod arena;
pub mod halves;
pub mod in_use;
pub mod on_device;
pub(crate) mod schedule;
mod step_info;
mod tile_size;

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use smallvec::SmallVec;

use crate::cpu::kernel::{self, Kernel};
use crate::ir::dtype::Dtype;
use crate::ir::op::claims::Claims;
use crate::ir::op::{Op, OpError, claims};
use crate::ir::program::{Node, Origin, Program, SlotId, ValueId, VerifyError};
use crate::ir::shape::Operand;
use crate::memory::{AlignedBytes, check_room, padded};
use crate::ops::shape::contiguous::Contiguous;
use crate::passes::{clean, fuse};
use crate::plan::arena::Arena;
use crate::plan::in_use::InUse;
pub use crate::plan::step_info::StepInfo;
use crate::plan::tile_size::tile_size;

/// What a plan may be told; the default is right except in tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlanOptions {
    /// How many models a tile has; `None` asks the caches.
    pub tile: Option<usize>,
    /// Runs the program as it is, without fusing or reordering anything.
    pub keep_nodes: bool,
}

/// A program that is ready to run. See [`crate::execute::executor`].
pub struct Plan {
    /// The program after all passes.
    pub program: Program,
    /// What the steps read and write, in the order of their indices.
    pub(crate) views: Vec<PlacedView>,
    /// What happens, in order.
    pub(crate) steps: Vec<Step>,
    /// Numbers known while tracing.
    pub(crate) constants: AlignedBytes,
    /// Bytes of arena that one model needs.
    pub(crate) arena_bytes: usize,
    /// Bytes of scratch memory that the neediest kernel needs.
    pub(crate) scratch_bytes: usize,
    /// How many models a tile has.
    pub(crate) tile: usize,
    /// Estimated work for one model, in floating-point operations.
    pub(crate) cost: usize,
    in_use: Vec<InUse>,
}

/// An operand and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlacedView {
    /// Where it lies.
    pub place: Location,
    /// How many elements it has.
    pub numel: usize,
    /// Their type.
    pub dtype: Dtype,
}

/// Where an operand lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// That many bytes behind the start of the model's arena.
    Arena(usize),
    /// In the row of a slot.
    Slot(SlotId),
    /// In the input of that number.
    Input(usize),
    /// In the output of that number.
    Output(usize),
    /// That many bytes behind the start of the constants, for all models.
    Constant(usize),
    /// The scalar of that number, in double precision.
    Scalar(usize),
    /// The scalar of that number in single precision, converted into the arena before the first step.
    Scalar32(usize, usize),
    /// In an output of the same step, which changes it: nobody reads it as an input.
    Elsewhere,
}

/// One kernel run.
pub(crate) struct Step<K = Box<dyn Kernel>> {
    pub(crate) kernel: K,
    /// Indices of views.
    pub(crate) inputs: Vec<u32>,
    /// Indices of views.
    pub(crate) outputs: Vec<u32>,
    pub(crate) draw: u32,
    made_of: MadeOf,
}

/// What a step is in the program.
#[derive(Clone, Copy)]
enum MadeOf {
    /// A node.
    Node(usize),
    /// A row-major copy of a value.
    Copy(ValueId),
}

impl Plan {
    /// Plans `program`.
    ///
    /// # Errors
    ///
    /// If the program breaks the grammar, or a model's values need more memory than there is.
    pub fn new(program: Program, options: &PlanOptions) -> Result<Plan, VerifyError> {
        program.verify()?;
        let program = if options.keep_nodes {
            program
        } else {
            schedule::update_early(joined(clean::drop_boundaries(program)))
        };
        program.verify()?;
        let mut planner = Planner::new(&program, kernel::prepare)?;
        planner.run()?;
        let arena_bytes = planner.arena.checked_size()?;
        let Planner { views, steps, constants, scratch_bytes, in_use, .. } = planner;
        let mut bytes = AlignedBytes::new(constants.len());
        bytes.bytes_mut()[..constants.len()].copy_from_slice(&constants);
        // The arenas of a tile's models are counted together.
        let most = isize::MAX as usize / arena_bytes.max(1);
        let tile = options.tile.unwrap_or_else(|| tile_size(&program, arena_bytes)).clamp(1, most);
        let cost = cost(&program);
        let constants = bytes;
        Ok(Plan {
            views,
            steps,
            constants,
            arena_bytes,
            scratch_bytes,
            tile,
            cost,
            in_use,
            program,
        })
    }

    /// Gives the bytes of memory that the values of one model need while it runs, beside inputs, slots and outputs.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Says for each node of the [program](Plan::program) what lies in memory once it has run.
    pub fn in_use(&self) -> &[InUse] {
        &self.in_use
    }

    /// Gives the number of models that go through the program together.
    pub fn tile(&self) -> usize {
        self.tile
    }

    /// Estimates the memory that the plan itself takes, in bytes.
    pub fn size_bytes(&self) -> usize {
        let of_step = |step: &Step| {
            let views = size_of_val(step.inputs.as_slice()) + size_of_val(step.outputs.as_slice());
            let kernel = size_of_val(&*step.kernel) + step.kernel.table_bytes();
            size_of::<Step>() + kernel + views + LISTS_BYTES
        };
        let steps: usize = self.steps.iter().map(of_step).sum();
        let views = size_of_val(self.views.as_slice());
        let in_use = size_of_val(self.in_use.as_slice());
        let constants = self.constants.len();
        size_of::<Plan>() + self.program.size_bytes() + steps + views + in_use + constants
    }
}

/// Joins ops. Activations and losses are joined with what stands before them where no conversion of halves is between
/// them, and activations once more where none is left.
fn joined(program: Program) -> Program {
    let has_halves = program.values.iter().any(|value| value.ty.dtype.is_half());
    let program = fuse::fuse(program);
    if has_halves { fuse::fuse_activations(halves::fuse_halves(program)) } else { program }
}

/// What sizes and strides in a kernel and its op take that do not lie in these themselves, at a guess.
const LISTS_BYTES: usize = 256;

fn cost(program: &Program) -> usize {
    let types = |ids: &[ValueId]| ids.iter().map(|&id| program.ty(id).clone()).collect::<Vec<_>>();
    let costs =
        program.nodes.iter().map(|node| node.op.cost(&types(&node.inputs), &types(&node.outputs)));
    costs.fold(0, usize::saturating_add)
}

/// Makes the kernel of an op, and says how many bytes of scratch memory it needs.
type Prepare<K> = fn(&dyn Op, &[Operand], &[Operand]) -> Result<(K, usize), OpError>;

/// Gives each node its kernel and each value its place, in the order in which the nodes run.
struct Planner<'a, K> {
    program: &'a Program,
    prepare: Prepare<K>,
    /// For each value, where it lies and how; `None` until it is made.
    placed: Vec<Option<(Location, Operand)>>,
    /// For each value, the last node that reads it (the number of nodes if an output or a store does).
    last_reader: Vec<usize>,
    /// The values in the order of their last readers, the last one to be freed first.
    to_free: Vec<ValueId>,
    /// For each node, how its op uses the memory of its operands.
    claims: Vec<Claims>,
    /// For each value that a row-major copy was made of, the copy.
    copies: Vec<Option<Location>>,
    /// What lies in the arena, itself or as a row-major copy: the offset, the last reader, the value.
    in_arena: BTreeSet<(usize, usize, ValueId)>,
    /// For each value, the outputs that it is.
    outputs: Vec<SmallVec<[usize; 1]>>,
    /// For each value, the slots whose row it becomes, itself or what update rules make of it in place.
    becomes: Vec<SmallVec<[SlotId; 1]>>,
    views: Vec<PlacedView>,
    /// The place of each view in `views`.
    view_ids: HashMap<PlacedView, u32>,
    steps: Vec<Step<K>>,
    constants: Vec<u8>,
    arena: Arena,
    scratch_bytes: usize,
    in_use: Vec<InUse>,
}

impl<'a, K> Planner<'a, K> {
    fn new(program: &'a Program, prepare: Prepare<K>) -> Result<Self, OpError> {
        let n_values = program.values.len();
        let last_reader = last_readers(program);
        let mut to_free: Vec<_> = (0..n_values).collect();
        to_free.sort_by_key(|&id| std::cmp::Reverse((last_reader[id], id)));
        let mut outputs = vec![SmallVec::new(); n_values];
        program.outputs.iter().enumerate().for_each(|(output, &id)| outputs[id].push(output));
        let types =
            |ids: &[ValueId]| -> Vec<_> { ids.iter().map(|&id| program.ty(id).clone()).collect() };
        let claims =
            |node: &Node| Claims::of(&*node.op, &types(&node.inputs), &types(&node.outputs));
        let claims = program.nodes.iter().map(claims).collect::<Result<Vec<_>, _>>()?;
        let mut planner = Planner {
            program,
            prepare,
            becomes: becomes(program, &claims),
            claims,
            placed: vec![None; n_values],
            last_reader,
            to_free,
            copies: vec![None; n_values],
            in_arena: BTreeSet::new(),
            outputs,
            views: Vec::new(),
            view_ids: HashMap::new(),
            steps: Vec::new(),
            constants: Vec::new(),
            arena: Arena::default(),
            scratch_bytes: 0,
            in_use: Vec::with_capacity(program.nodes.len()),
        };
        for (id, value) in program.values.iter().enumerate() {
            let place = match value.origin {
                Origin::Node { .. } => continue,
                Origin::Input(input) => Location::Input(input),
                Origin::Slot(slot) => Location::Slot(slot),
                Origin::Scalar(scalar) if value.ty.dtype == Dtype::F64 => Location::Scalar(scalar),
                Origin::Scalar(scalar) => {
                    Location::Scalar32(scalar, planner.arena.take(value.ty.size_bytes()))
                }
                Origin::Constant(number) => planner.constant(number, id)?,
            };
            planner.put(id, place, Operand::row_major(value.ty.clone()));
        }
        Ok(planner)
    }

    /// Gives all nodes their kernels, all values their places.
    fn run(&mut self) -> Result<(), OpError> {
        for index in 0..self.program.nodes.len() {
            self.add_node(index)?;
            self.free_after(index);
            self.note_use(index);
        }
        self.finish()
    }

    fn constant(&mut self, number: f64, id: ValueId) -> Result<Location, OpError> {
        let ty = self.program.ty(id);
        let start = self.constants.len();
        let room = check_room(start.saturating_add(ty.size_bytes()));
        room.map_err(|error| OpError(format!("{ty}: {error}")))?;
        for _ in 0..ty.shape.numel() {
            match ty.dtype {
                Dtype::F64 => self.constants.extend(number.to_ne_bytes()),
                Dtype::I64 => self.constants.extend((number as i64).to_ne_bytes()),
                Dtype::Bool => self.constants.push(u8::from(number != 0.0)),
                _ => self.constants.extend((number as f32).to_ne_bytes()),
            }
        }
        self.constants.resize(padded(self.constants.len()), 0);
        Ok(Location::Constant(start))
    }

    fn at(&self, id: ValueId) -> &(Location, Operand) {
        self.placed[id].as_ref().expect("a verified program makes values before it reads them")
    }

    /// Remembers where a value lies, and how.
    fn put(&mut self, id: ValueId, place: Location, operand: Operand) {
        self.placed[id] = Some((place, operand));
        self.lies_at(id, place);
    }

    fn lies_at(&mut self, id: ValueId, place: Location) {
        if let Location::Arena(offset) = place {
            self.in_arena.insert((offset, self.last_reader[id], id));
        }
    }

    fn add_node(&mut self, index: usize) -> Result<(), OpError> {
        let program = self.program;
        let node = &program.nodes[index];
        let op = &node.op;
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for (number, &id) in node.inputs.iter().enumerate() {
            let (place, operand) = self.at(id).clone();
            if op.takes_layout(number, &operand) {
                inputs.push((place, operand));
            } else {
                inputs.push((self.row_major(id)?, Operand::row_major(operand.ty)));
            }
        }
        let input_operands: Vec<_> = inputs.iter().map(|(_, operand)| operand.clone()).collect();
        let types: Vec<_> = node.outputs.iter().map(|&id| program.ty(id).clone()).collect();
        let outputs = claims::outputs(&**op, &input_operands, &types)?;
        let claims = self.claims[index].clone();
        if claims.copies_as_is && self.may_share(inputs[0].0) && !self.is_wanted(node.outputs[0]) {
            self.put(node.outputs[0], inputs[0].0, outputs[0].clone());
            return Ok(());
        }
        for (number, &id) in node.outputs.iter().enumerate() {
            let place = match claims.input_of(number) {
                Some(input) => {
                    let here = inputs[input].0;
                    let is_alone = inputs.iter().filter(|(place, _)| *place == here).count() == 1;
                    self.in_place(index, node.inputs[input], id, is_alone)?
                }
                None => self.place_of(id, &outputs[number]),
            };
            self.put(id, place, outputs[number].clone());
        }
        for &(input, _) in &claims.in_place {
            inputs[input].0 = Location::Elsewhere;
        }
        let output_operands: Vec<_> = node.outputs.iter().map(|&id| self.at(id).clone()).collect();
        self.step(&**op, &inputs, &output_operands, node.draw, MadeOf::Node(index))
    }

    /// Says whether what lies in a place stays as it is, or is known to be read by others before it changes.
    fn may_share(&self, place: Location) -> bool {
        matches!(place, Location::Arena(_) | Location::Input(_) | Location::Constant(_))
    }

    /// Says whether a value is an output.
    fn is_wanted(&self, id: ValueId) -> bool {
        !self.outputs[id].is_empty()
    }

    /// Says whether a value lies at `offset`, itself or as a row-major copy, that node `node` or a later one reads;
    /// `but` does not count.
    fn is_read_from(&self, offset: usize, node: usize, but: Option<ValueId>) -> bool {
        let readers = (offset, node, 0)..(offset + 1, 0, 0);
        self.in_arena.range(readers).rev().any(|&(_, _, id)| Some(id) != but)
    }

    /// Decides where a value is made: where it is wanted, if it lies row-major and only one output wants
    /// it, and in the arena otherwise.
    fn place_of(&mut self, id: ValueId, operand: &Operand) -> Location {
        match self.outputs[id].as_slice() {
            &[output] if operand.is_row_major() => Location::Output(output),
            _ => Location::Arena(self.arena.take(operand.ty.size_bytes())),
        }
    }

    /// Decides where the output `id` of an update rule is: in the row itself if this chain of updates ends
    /// in a store to that row and nobody reads the old numbers later, in a copy otherwise. The node itself reads them by
    /// other inputs unless `is_alone`.
    fn in_place(
        &mut self,
        node: usize,
        old: ValueId,
        id: ValueId,
        is_alone: bool,
    ) -> Result<Location, OpError> {
        let (place, operand) = self.at(old).clone();
        let unread = self.last_reader[old] <= node;
        let may_change = match place {
            Location::Slot(slot) => self.becomes[id].contains(&slot),
            Location::Arena(offset) => !self.is_read_from(offset, node, Some(old)),
            _ => false,
        };
        if is_alone && unread && may_change && operand.is_row_major() {
            return Ok(place);
        }
        let copy = Location::Arena(self.arena.take(operand.ty.size_bytes()));
        self.copy(old, copy)?;
        Ok(copy)
    }

    /// Gives the place of a row-major copy of a value, made once.
    fn row_major(&mut self, id: ValueId) -> Result<Location, OpError> {
        if let Some(copy) = self.copies[id] {
            return Ok(copy);
        }
        let copy = Location::Arena(self.arena.take(self.program.ty(id).size_bytes()));
        self.copy(id, copy)?;
        self.copies[id] = Some(copy);
        self.lies_at(id, copy);
        Ok(copy)
    }

    fn copy(&mut self, id: ValueId, to: Location) -> Result<(), OpError> {
        let from = self.at(id).clone();
        let to = (to, Operand::row_major(from.1.ty.clone()));
        self.step(&Contiguous, &[from], &[to], 0, MadeOf::Copy(id))
    }

    fn step(
        &mut self,
        op: &dyn Op,
        inputs: &[(Location, Operand)],
        outputs: &[(Location, Operand)],
        draw: u32,
        made_of: MadeOf,
    ) -> Result<(), OpError> {
        let operands =
            |of: &[(Location, Operand)]| of.iter().map(|(_, o)| o.clone()).collect::<Vec<_>>();
        let (kernel, scratch_bytes) = (self.prepare)(op, &operands(inputs), &operands(outputs))?;
        self.scratch_bytes = self.scratch_bytes.max(scratch_bytes);
        let inputs = inputs.iter().map(|of| self.view(of)).collect();
        let outputs = outputs.iter().map(|of| self.view(of)).collect();
        self.steps.push(Step { kernel, inputs, outputs, draw, made_of });
        Ok(())
    }

    fn view(&mut self, (place, operand): &(Location, Operand)) -> u32 {
        let view =
            PlacedView { place: *place, numel: operand.ty.shape.numel(), dtype: operand.ty.dtype };
        *self.view_ids.entry(view).or_insert_with(|| {
            self.views.push(view);
            self.views.len() as u32 - 1
        })
    }

    /// Gives back the arena of values that nobody reads after node `index`.
    fn free_after(&mut self, index: usize) {
        let mut given = Vec::new();
        while let Some(&id) = self.to_free.last()
            && self.last_reader[id] == index
        {
            self.to_free.pop();
            let own = self.placed[id].as_ref().map(|(place, _)| *place);
            let bytes = self.program.ty(id).size_bytes();
            for place in [self.copies[id], own].into_iter().flatten() {
                let Location::Arena(offset) = place else { continue };
                if !self.is_read_from(offset, index + 1, None) {
                    given.push((offset, bytes));
                }
            }
        }
        given.sort_unstable();
        given.dedup();
        for (offset, bytes) in given {
            self.arena.give(offset, bytes);
        }
    }

    /// Notes what lies in memory after node `index`.
    fn note_use(&mut self, index: usize) {
        let program = self.program;
        let made = program.nodes[index].outputs.iter();
        let is_output = |id: &&ValueId| matches!(self.at(**id).0, Location::Output(_));
        let made = made.filter(is_output).map(|&id| program.ty(id).size_bytes());
        let before = self.in_use.last().map_or(0, |before| before.outputs);
        let outputs = made.fold(before, usize::saturating_add);
        self.in_use.push(InUse { arena: self.arena.in_use(), outputs });
    }

    /// Copies outputs and stores that are not made in their place.
    fn finish(&mut self) -> Result<(), OpError> {
        for (output, &id) in self.program.outputs.iter().enumerate() {
            if self.at(id).0 != Location::Output(output) {
                self.copy(id, Location::Output(output))?;
            }
        }
        for &(slot, id) in &self.program.stores {
            if self.at(id).0 != Location::Slot(slot) {
                self.copy(id, Location::Slot(slot))?;
            }
        }
        Ok(())
    }
}

/// For each value, the last node that reads it: itself if none does, and the number of nodes if an
/// output or a store does.
fn last_readers(program: &Program) -> Vec<usize> {
    let made_at = |origin: Origin| match origin {
        Origin::Node { node, .. } => node,
        _ => 0,
    };
    let mut last: Vec<_> = program.values.iter().map(|value| made_at(value.origin)).collect();
    for (index, node) in program.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|&id| last[id] = last[id].max(index));
    }
    let ends = program.outputs.iter().chain(program.stores.iter().map(|(_, value)| value));
    ends.for_each(|&id| last[id] = program.nodes.len());
    last
}

/// For each value, the slots whose row it becomes: itself, or what the first update rule that works in its place makes
/// of it.
fn becomes(program: &Program, claims: &[Claims]) -> Vec<SmallVec<[SlotId; 1]>> {
    let mut becomes = vec![SmallVec::new(); program.values.len()];
    program.stores.iter().for_each(|&(slot, id)| becomes[id].push(slot));
    let pairs = program.nodes.iter().zip(claims).flat_map(|(node, claims)| {
        let pairs = claims.in_place.iter();
        pairs.map(|&(input, output)| (node.inputs[input], node.outputs[output]))
    });
    let pairs: Vec<_> = pairs.collect();
    let mut first = HashMap::new();
    for &(old, new) in &pairs {
        first.entry(old).or_insert(new);
    }
    for &(old, new) in pairs.iter().rev().filter(|(old, new)| first[old] == *new) {
        let slots = becomes[new].clone();
        becomes[old].extend(slots);
    }
    becomes
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Arena(offset) => write!(f, "arena+{offset}"),
            Location::Slot(slot) => write!(f, "slot {slot}"),
            Location::Input(input) => write!(f, "input {input}"),
            Location::Output(output) => write!(f, "output {output}"),
            Location::Constant(offset) => write!(f, "constant+{offset}"),
            Location::Scalar(scalar) | Location::Scalar32(scalar, _) => {
                write!(f, "scalar {scalar}")
            }
            Location::Elsewhere => write!(f, "in place"),
        }
    }
}

/// The steps, one a line, and the size of the arena.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{}", self.text(step))?;
        }
        writeln!(f, "arena of {} bytes a model", self.arena_bytes)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
