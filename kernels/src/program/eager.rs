//! Eager execution: each op is computed as it is recorded, for one model or a cohort.
//!
//! It is the reference that plans are tested against, bit for bit, and it is where values can be looked
//! at while `forward` still runs. The kernels are the same; nothing is fused, moved or reused.
#![expect(unsafe_code, reason = "tiles are put together from buffers owned here")]

use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;

use super::{Origin, Program, Role, Scalar, ValueId};
use crate::cpu::memory::{AlignedBytes, padded};
use crate::cpu::tile::{Key, Rows, Tile, View};
use crate::dtype::{Dtype, Element};
use crate::op::Op;
use crate::ops::contiguous::Contiguous;
use crate::shape::{Operand, Type};

/// Ops with so many operands or fewer make their views on the stack.
const FEW: usize = 6;

/// The values of a program, computed for some models as it is recorded.
#[derive(Default)]
pub struct Eager {
    models: usize,
    keys: Vec<Key>,
    inputs: HashMap<usize, AlignedBytes>,
    slots: HashMap<(Role, usize, usize), AlignedBytes>,
    scalars: HashMap<Scalar, Vec<f64>>,
    scalar_source: Option<Box<ScalarSource>>,
    values: Vec<Option<Value>>,
    memory: Memory,
}

/// Gives the numbers of a scalar, one a model, when a recording asks for it first.
pub type ScalarSource = dyn Fn(&Scalar) -> Option<Vec<f64>> + Send + Sync;

/// A computed value: one row a model.
struct Value {
    operand: Operand,
    rows: AlignedBytes,
}

/// Memory of values that are gone, for new ones: a steady step of a small model would else spend its time in
/// the allocator.
#[derive(Default)]
struct Memory {
    /// By size in bytes.
    free: BTreeMap<usize, Vec<AlignedBytes>>,
    scratch: AlignedBytes,
}

impl Memory {
    /// Gives at least that many bytes, which hold any numbers.
    fn take(&mut self, bytes: usize) -> AlignedBytes {
        let free = self.free.get_mut(&padded(bytes)).and_then(Vec::pop);
        free.unwrap_or_else(|| AlignedBytes::new(bytes))
    }

    fn put(&mut self, rows: AlignedBytes) {
        self.free.entry(rows.len()).or_default().push(rows);
    }

    /// Copies rows of one length, each to a cache line of its own.
    fn aligned<'a>(&mut self, rows: impl Iterator<Item = &'a [u8]>, models: usize) -> AlignedBytes {
        let mut all = AlignedBytes::default();
        for (model, row) in rows.enumerate() {
            let stride = padded(row.len().max(1));
            if model == 0 {
                all = self.take(stride * models);
            }
            all.bytes_mut()[model * stride..][..row.len()].copy_from_slice(row);
        }
        all
    }
}

/// Why a value cannot be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The program has no such value, or it is not computed yet.
    #[error("%{0} is not computed")]
    NotComputed(ValueId),
    /// The value stands for nothing, since an error came before it.
    #[error("there is no value, because of an earlier error")]
    Poisoned,
    /// The value has elements of another type.
    #[error("expected elements of {expected}, found {found}")]
    Dtype {
        /// The type that was asked for.
        expected: Dtype,
        /// The type that the value has.
        found: Dtype,
    },
}

impl Eager {
    /// Prepares for `models` models, with a random state each (or none at all if no op draws).
    pub fn new(models: usize, keys: Vec<Key>) -> Self {
        Eager { models, keys, ..Eager::default() }
    }

    /// Prepares for another recording in the memory of this one, of which nothing else is left.
    #[must_use]
    pub fn again(mut self, models: usize, keys: &[Key]) -> Self {
        // What this recording had no use for, the next one has none for either.
        self.memory.free.clear();
        let values = self.values.drain(..).flatten().map(|value| value.rows);
        let given = self.inputs.drain().map(|(_, rows)| rows);
        let given = given.chain(self.slots.drain().map(|(_, rows)| rows));
        values.chain(given).for_each(|rows| self.memory.put(rows));
        self.scalars.clear();
        self.scalar_source = None;
        self.keys.clear();
        self.keys.extend_from_slice(keys);
        self.models = models;
        self
    }

    /// Gives input `input`: the elements of model 0, row-major, then those of model 1, ….
    #[must_use]
    pub fn with_input<T: Element>(mut self, input: usize, elements: &[T]) -> Self {
        self.inputs.insert(input, rows_of(elements, self.models));
        self
    }

    /// Gives the rows of the slot of that role, position and index, as [`with_input`](Eager::with_input).
    #[must_use]
    pub fn with_slot<T: Element>(mut self, slot: (Role, usize, usize), elements: &[T]) -> Self {
        self.slots.insert(slot, rows_of(elements, self.models));
        self
    }

    /// Gives a scalar: one number a model.
    #[must_use]
    pub fn with_scalar(mut self, scalar: Scalar, numbers: Vec<f64>) -> Self {
        self.scalars.insert(scalar, numbers);
        self
    }

    /// Gives one more input to a recording that goes on: a row of bytes for each model.
    pub fn set_input<'a>(&mut self, input: usize, rows: impl Iterator<Item = &'a [u8]>) {
        let rows = self.memory.aligned(rows, self.models);
        self.inputs.insert(input, rows);
    }

    /// Gives the rows of the slot of that role, position and index: a row of bytes for each model.
    pub fn set_slot<'a>(
        &mut self,
        slot: (Role, usize, usize),
        rows: impl Iterator<Item = &'a [u8]>,
    ) {
        let rows = self.memory.aligned(rows, self.models);
        self.slots.insert(slot, rows);
    }

    /// Says who knows the scalars that were not given one by one.
    pub fn set_scalar_source(&mut self, source: Box<ScalarSource>) {
        self.scalar_source = Some(source);
    }

    /// Keeps some of the models, in that order; numbers of models that there are not count for nothing.
    pub fn select(&mut self, models: &[usize]) {
        let kept: Vec<_> = models.iter().copied().filter(|&model| model < self.models).collect();
        let gather = |rows: &AlignedBytes| {
            let stride = rows.len() / self.models.max(1);
            let mut all = AlignedBytes::new(stride * kept.len());
            for (to, &model) in kept.iter().enumerate() {
                let row = &rows.bytes()[model * stride..][..stride];
                all.bytes_mut()[to * stride..][..stride].copy_from_slice(row);
            }
            all
        };
        let values = self.values.iter_mut().flatten().map(|value| &mut value.rows);
        let given = self.inputs.values_mut().chain(self.slots.values_mut());
        values.chain(given).for_each(|rows| *rows = gather(rows));
        let numbers =
            |all: &[f64]| kept.iter().filter_map(|&model| all.get(model).copied()).collect();
        self.scalars.values_mut().for_each(|all| *all = numbers(all));
        self.keys = kept.iter().filter_map(|&model| self.keys.get(model).copied()).collect();
        self.models = kept.len();
        if let Some(source) = self.scalar_source.take() {
            self.scalar_source = Some(Box::new(move |scalar| {
                let all = source(scalar)?;
                Some(kept.iter().filter_map(|&model| all.get(model).copied()).collect())
            }));
        }
    }

    /// Counts the models.
    pub fn models(&self) -> usize {
        self.models
    }

    /// Runs a program that is recorded already; afterwards [`read`](Eager::read) gives its values.
    #[must_use]
    pub fn run(mut self, program: &Program) -> Self {
        for id in 0..program.values.len() {
            if !matches!(program.values[id].origin, Origin::Node { .. }) {
                self.source(program, id);
            }
        }
        (0..program.nodes.len()).for_each(|node| self.compute(program, node));
        self
    }

    /// Gives the elements of a value, row-major: those of model 0, then those of model 1, ….
    ///
    /// # Errors
    ///
    /// [`ReadError`] if there is no such value or it is of another dtype.
    pub fn read<T: Element>(&self, id: ValueId) -> Result<Vec<T>, ReadError> {
        let (ty, bytes) = self.read_bytes(id)?;
        if ty.dtype != T::DTYPE {
            return Err(ReadError::Dtype { expected: T::DTYPE, found: ty.dtype });
        }
        Ok(bytemuck::pod_collect_to_vec::<u8, T>(&bytes))
    }

    /// Gives the type of a value and its elements as bytes, in the order of [`read`](Eager::read).
    ///
    /// # Errors
    ///
    /// [`ReadError::NotComputed`] if there is no such value.
    pub fn read_bytes(&self, id: ValueId) -> Result<(&Type, Vec<u8>), ReadError> {
        let value = self.values.get(id).and_then(Option::as_ref);
        let value = value.ok_or(ReadError::NotComputed(id))?;
        let ty = &value.operand.ty;
        let dense;
        let rows = if value.operand.is_row_major() {
            &value.rows
        } else {
            dense = self.row_major(value, &mut Memory::default());
            &dense.rows
        };
        let stride = stride(ty);
        let row = |model: usize| &rows.bytes()[model * stride..][..ty.size_bytes()];
        let mut bytes = Vec::with_capacity(self.models * ty.size_bytes());
        (0..self.models).for_each(|model| bytes.extend_from_slice(row(model)));
        Ok((ty, bytes))
    }

    /// Makes value `id`, which no node makes, of what was given for it. A slot or scalar that was not given is zero.
    pub(crate) fn source(&mut self, program: &Program, id: ValueId) {
        let ty = program.ty(id);
        let rows = match program.values[id].origin {
            Origin::Input(input) => self.inputs.remove(&input),
            Origin::Slot(slot) => {
                let slot = &program.slots[slot];
                self.slots.remove(&(slot.role, slot.position, slot.index))
            }
            Origin::Scalar(scalar) => {
                let scalar = &program.scalars[scalar];
                let source = self.scalar_source.as_ref();
                let numbers = self.scalars.get(scalar).cloned();
                let numbers = numbers.or_else(|| source.and_then(|source| source(scalar)));
                numbers.map(|numbers| numbers_of(numbers.into_iter(), ty.dtype, self.models))
            }
            Origin::Constant(number) => {
                let numbers = std::iter::repeat_n(number, ty.shape.numel() * self.models);
                Some(numbers_of(numbers, ty.dtype, self.models))
            }
            Origin::Node { .. } => None,
        };
        let rows = rows.unwrap_or_else(|| AlignedBytes::new(stride(ty) * self.models));
        self.set(id, Value { operand: Operand::row_major(ty.clone()), rows });
    }

    /// Computes a node.
    pub(crate) fn compute(&mut self, program: &Program, node: usize) {
        let node = &program.nodes[node];
        let value = |id: ValueId| {
            self.values[id].as_ref().expect("inputs are computed before the node that reads them")
        };
        let mut memory = std::mem::take(&mut self.memory);
        let copies: SmallVec<[Option<Value>; FEW]> = node
            .inputs
            .iter()
            .enumerate()
            .map(|(number, &id)| {
                let fits = node.op.takes_layout(number, &value(id).operand);
                (!fits).then(|| self.row_major(value(id), &mut memory))
            })
            .collect();
        let inputs: SmallVec<[&Value; FEW]> = node
            .inputs
            .iter()
            .zip(&copies)
            .map(|(&id, copy)| copy.as_ref().unwrap_or_else(|| value(id)))
            .collect();
        let types: SmallVec<[Type; FEW]> =
            node.outputs.iter().map(|&id| program.ty(id).clone()).collect();
        let outputs = self.apply(&*node.op, &inputs, &types, node.draw, &mut memory);
        drop(inputs);
        copies.into_iter().flatten().for_each(|value| memory.put(value.rows));
        self.memory = memory;
        for (&id, value) in node.outputs.iter().zip(outputs) {
            self.set(id, value);
        }
    }

    fn apply(
        &self,
        op: &dyn Op,
        inputs: &[&Value],
        types: &[Type],
        draw: u32,
        memory: &mut Memory,
    ) -> SmallVec<[Value; FEW]> {
        type Operands = SmallVec<[Operand; FEW]>;
        let operands: Operands = inputs.iter().map(|value| value.operand.clone()).collect();
        let layouts = op.layouts(&operands, types);
        let made = types.iter().cloned().zip(layouts).map(|(ty, layout)| Operand { ty, layout });
        let made: Operands = made.collect();
        let kernel = op.kernel(&operands, &made);
        memory.scratch.reserve(kernel.scratch_bytes());
        let mut outputs: SmallVec<[Value; FEW]> = made
            .into_iter()
            .map(|operand| Value { rows: memory.take(stride(&operand.ty) * self.models), operand })
            .collect();
        let mut views: SmallVec<[View<'_>; 2 * FEW]> =
            inputs.iter().map(|value| view(value)).collect();
        for &(input, output) in op.in_place() {
            let from = inputs[input].rows.bytes();
            outputs[output].rows.bytes_mut()[..from.len()].copy_from_slice(from);
            views[input] = view(&outputs[output]);
        }
        views.extend(outputs.iter_mut().map(|value| {
            let base = value.rows.as_mut_ptr();
            View { rows: Rows::Strided { base, stride: stride(&value.operand.ty) }, ..view(value) }
        }));
        let ids: SmallVec<[u32; 2 * FEW]> = (0..views.len() as u32).collect();
        let (of_inputs, of_outputs) = ids.split_at(inputs.len());
        // SAFETY: every view is of a buffer with a row for each model; outputs are buffers of their own,
        // shared with inputs only as `in_place` says.
        let mut tile = unsafe {
            Tile::new(self.models, &views, of_inputs, of_outputs, memory.scratch.bytes_mut())
                .with_keys(&self.keys, draw)
        };
        kernel.run(&mut tile);
        outputs
    }

    fn row_major(&self, value: &Value, memory: &mut Memory) -> Value {
        let ty = std::slice::from_ref(&value.operand.ty);
        self.apply(&Contiguous, &[value], ty, 0, memory).swap_remove(0)
    }

    fn set(&mut self, id: ValueId, value: Value) {
        if self.values.len() <= id {
            self.values.resize_with(id + 1, || None);
        }
        self.values[id] = Some(value);
    }
}

/// Bytes from one model's row to the next.
fn stride(ty: &Type) -> usize {
    padded(ty.size_bytes().max(1))
}

fn view(value: &Value) -> View<'static> {
    let ty = &value.operand.ty;
    let base = value.rows.as_ptr().cast_mut();
    View {
        rows: Rows::Strided { base, stride: stride(ty) },
        numel: ty.shape.numel(),
        element_bytes: ty.dtype.size_bytes(),
    }
}

fn rows_of<T: Element>(elements: &[T], models: usize) -> AlignedBytes {
    let bytes: &[u8] = bytemuck::cast_slice(elements);
    let row = bytes.len() / models.max(1);
    Memory::default().aligned((0..models).map(|model| &bytes[model * row..][..row]), models)
}

fn numbers_of(numbers: impl Iterator<Item = f64>, dtype: Dtype, models: usize) -> AlignedBytes {
    match dtype {
        Dtype::F64 => rows_of(&numbers.collect::<Vec<f64>>(), models),
        Dtype::I64 => rows_of(&numbers.map(|n| n as i64).collect::<Vec<_>>(), models),
        Dtype::Bool => rows_of(&numbers.map(|n| u8::from(n != 0.0)).collect::<Vec<_>>(), models),
        _ => rows_of(&numbers.map(|n| n as f32).collect::<Vec<_>>(), models),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::trace::Trace;

    #[test]
    fn models_that_are_selected_go_on_with_their_own_numbers() {
        let trace = Trace::eager(Eager::new(3, Vec::new()));
        let x = trace.input_of([2], &[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let y = &x * &x;
        let (program, mut eager) = trace.pause().unwrap();
        eager.select(&[2, 0, 7]);
        assert_eq!(eager.models(), 2);
        let trace = Trace::resume_eager(program, eager);
        let z = trace.var(y.id().unwrap()) * 2.0;
        assert_eq!(z.read::<f32>(), Ok(vec![50.0, 72.0, 2.0, 8.0]));
    }
}
