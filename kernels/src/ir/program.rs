//! [`Program`]: what a forward pass becomes. A flat list of ops in static single assignment form.
//!
//! A program speaks of one model; the population is the executor's affair. Its values come from slots
//! (parameters, buffers and optimizer state: rows of columns), from scalars (numbers of each model's own
//! components, such as a learning rate), from inputs and from nodes. Everything else about it is a
//! function from `Program` to `Program` in [`crate::passes`].

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::ir::op::{Mixing, Op};
use crate::ir::shape::Type;

pub use crate::ir::verify::VerifyError;

/// Index of a value in [`Program::values`].
pub type ValueId = usize;

/// The values that a node reads or makes.
pub type Ids = SmallVec<[ValueId; 4]>;

/// Index of a slot in [`Program::slots`].
pub type SlotId = usize;

/// A forward pass, perhaps with a loss, a backward pass and updates, for one model.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// All values, those of a node after its inputs.
    pub values: Vec<Value>,
    /// The ops in the order in which they run.
    pub nodes: Vec<Node>,
    /// Types of the inputs, in the order of the call.
    pub inputs: Vec<Type>,
    /// Rows of columns that the program reads or writes.
    pub slots: Vec<Slot>,
    /// Numbers of each model that decide neither shapes nor ops.
    pub scalars: Vec<Scalar>,
    /// The module calls that nodes belong to.
    pub scopes: Vec<Scope>,
    /// What the program gives back.
    pub outputs: Vec<ValueId>,
    /// Values that replace the rows of slots when the program has run.
    pub stores: Vec<(SlotId, ValueId)>,
    /// What the recording warned of.
    pub warnings: Vec<Warning>,
    /// Parts of the forward pass that are to be computed again on the way back: see
    /// [`checkpoint`](crate::passes::checkpoint). Passes that renumber nodes drop them.
    pub spans: Vec<Span>,
}

/// A part of a forward pass that is computed again on the way back, so that what it makes need not be kept until then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Its nodes. Spans nest: two have no node in common, or one lies within the other.
    pub nodes: Range<usize>,
    /// The backward passes through it.
    pub ways: Vec<Way>,
}

/// The part of a backward pass that goes through a [`Span`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The first node of the whole backward pass.
    pub pass: usize,
    /// The nodes that go through the span.
    pub nodes: Range<usize>,
}

/// What a recording warns of: see [`Trace::warn`](crate::ir::trace::Trace::warn).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The type of the module that was called; empty outside of modules.
    pub module: &'static str,
    /// The text.
    pub message: String,
}

/// One value: its type and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Element type and shape for one model.
    pub ty: Type,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Origin {
    /// The input of that number.
    Input(usize),
    /// The row of a slot, as it was before the program ran.
    Slot(SlotId),
    /// The scalar of that number.
    Scalar(usize),
    /// A number known while tracing, in every element.
    Constant(f64),
    /// An output of a node.
    Node {
        /// Index in [`Program::nodes`].
        node: usize,
        /// Which of its outputs.
        output: usize,
    },
}

/// One op applied to values.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is computed.
    pub op: Arc<dyn Op>,
    /// From what.
    pub inputs: Ids,
    /// The values that this makes.
    pub outputs: Ids,
    /// The module call that recorded it: index in [`Program::scopes`].
    pub scope: usize,
    /// Tells the draws of random ops apart; passes keep it.
    pub draw: u32,
}

/// What a slot's column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A `torch.nn.Parameter`.
    Parameter,
    /// A buffer.
    Buffer,
    /// A parameter's `.grad`.
    Gradient,
    /// Optimizer state of that number, such as `exp_avg`, beside its parameter.
    State(u8),
    /// How often an optimizer has updated each parameter of a module: f32 counts, side by side.
    Steps,
}

/// A row of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// torch's dotted name, as in a `state_dict`: `0.weight`.
    pub name: String,
    /// What the column is for.
    pub role: Role,
    /// The module's place in its blueprint.
    pub position: usize,
    /// The parameter's or buffer's place in its module.
    pub index: usize,
    /// Element type and shape of the row; its layout is row-major.
    pub ty: Type,
}

impl Slot {
    /// Gives the last part of the name: `weight`.
    pub fn own_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }
}

/// A number that each model has of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scalar {
    /// The field it is read from: `p`, `lr`.
    pub name: &'static str,
    /// Which component holds it.
    pub of: ScalarOf,
    /// The module's place in its blueprint.
    pub position: usize,
}

/// Which component a scalar is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScalarOf {
    /// The layer component at the scalar's position.
    Module,
    /// A group of parameters of the optimizer at the scalar's position.
    Optimizer {
        /// The group's number.
        group: usize,
    },
    /// The loss.
    Loss,
}

/// One call of one module.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Scope {
    /// The module's dotted path, empty for the root; all calls of a module share it.
    pub path: Arc<str>,
    /// Its type's name.
    pub module: &'static str,
    /// How often this module had been called before in this forward pass.
    pub call: usize,
    /// The function of torch, of those that are made of several ops, that the module called.
    pub function: Option<Function>,
}

/// One of torch's functions that is recorded as several ops: autocast and halves meet it as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// torch's name.
    pub name: &'static str,
    /// How it takes values of several types.
    pub mixing: Mixing,
}

impl Function {
    /// A function whose result has the type that those of its inputs promote to.
    pub const fn new(name: &'static str) -> Self {
        Function { name, mixing: Mixing::Arithmetic }
    }

    /// A function all of whose inputs must have one type.
    pub const fn of_same(name: &'static str) -> Self {
        Function { name, mixing: Mixing::Same }
    }

    /// A function whose result has the type of its first input.
    pub const fn of_first(name: &'static str) -> Self {
        Function { name, mixing: Mixing::First }
    }
}

impl Program {
    /// Gives the type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        &self.values[value].ty
    }

    /// Appends a node whose outputs have types `outputs`; gives their ids.
    pub fn push(
        &mut self,
        op: Arc<dyn Op>,
        inputs: Ids,
        outputs: impl IntoIterator<Item = Type>,
        scope: usize,
    ) -> Ids {
        let node = self.nodes.len();
        let first = self.values.len();
        self.values.extend(
            outputs
                .into_iter()
                .enumerate()
                .map(|(output, ty)| Value { ty, origin: Origin::Node { node, output } }),
        );
        let outputs: Ids = (first..self.values.len()).collect();
        let draw = self.nodes.last().map_or(0, |last| last.draw + u32::from(last.op.is_random()));
        self.nodes.push(Node { op, inputs, outputs: outputs.clone(), scope, draw });
        outputs
    }

    /// Appends a value that no node makes.
    pub fn push_value(&mut self, ty: Type, origin: Origin) -> ValueId {
        self.values.push(Value { ty, origin });
        self.values.len() - 1
    }

    /// Estimates the memory that the program takes, in bytes.
    pub fn size_bytes(&self) -> usize {
        let more = |ids: &Ids| if ids.spilled() { size_of_val(ids.as_slice()) } else { 0 };
        let of_node = |node: &Node| {
            size_of_val(&*node.op) + size_of::<Node>() + more(&node.inputs) + more(&node.outputs)
        };
        let of_slot = |slot: &Slot| size_of::<Slot>() + slot.name.len();
        let of_scope =
            |scope: &Scope| size_of::<Scope>() + if scope.call == 0 { scope.path.len() } else { 0 };
        self.nodes.iter().map(of_node).sum::<usize>()
            + self.slots.iter().map(of_slot).sum::<usize>()
            + self.scopes.iter().map(of_scope).sum::<usize>()
            + size_of_val(self.values.as_slice())
            + size_of_val(self.inputs.as_slice())
            + size_of_val(self.scalars.as_slice())
            + size_of_val(self.outputs.as_slice())
            + size_of_val(self.stores.as_slice())
            + size_of_val(self.spans.as_slice())
    }

    /// Empties the program, but keeps its memory.
    pub fn clear(&mut self) {
        let Program {
            values,
            nodes,
            inputs,
            slots,
            scalars,
            scopes,
            outputs,
            stores,
            warnings,
            spans,
        } = self;
        values.clear();
        nodes.clear();
        inputs.clear();
        slots.clear();
        scalars.clear();
        scopes.clear();
        outputs.clear();
        stores.clear();
        warnings.clear();
        spans.clear();
    }
}
