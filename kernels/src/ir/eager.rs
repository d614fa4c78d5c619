//! Eager execution: each op is computed as it is recorded, for one model or a cohort.
//!
//! It is the reference that plans are tested against, bit for bit, and it is where values can be looked
//! at while `forward` still runs. The kernels are the same; nothing is fused, moved or reused. Whoever makes an
//! [`Eager`] says what back end has them, as a `Compute`.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::ir::dtype::{Dtype, Element};
use crate::ir::error::OpError;
use crate::ir::op::Op;
use crate::ir::program::{Origin, Program, Role, Scalar, ValueId};
use crate::ir::rng_key::RngKey;
use crate::ir::shape::{Operand, Type};
use crate::memory::{AlignedBytes, MemoryError, check_room, padded};

/// Ops with so many operands or fewer list them on the stack.
pub(crate) const FEW: usize = 6;

/// How a back end computes one op at a time.
pub(crate) trait Compute: Send + Sync {
    /// Computes an op for models with these random states, and gives outputs of these types.
    ///
    /// # Errors
    ///
    /// If there is no room, or the op says of its operands what cannot be.
    fn compute(
        &self,
        op: &dyn Op,
        inputs: &[&Value],
        types: &[Type],
        draws: Draws<'_>,
        memory: &mut Memory,
    ) -> Result<SmallVec<[Value; FEW]>, OpError>;

    /// Copies a value so that it lies row-major.
    ///
    /// # Errors
    ///
    /// If there is no room.
    fn row_major(
        &self,
        value: &Value,
        models: usize,
        memory: &mut Memory,
    ) -> Result<Value, OpError>;
}

/// The models that an op is computed for, and what it draws by.
#[derive(Clone, Copy)]
pub(crate) struct Draws<'a> {
    pub(crate) models: usize,
    /// The models' random states: one each, or none at all.
    pub(crate) keys: &'a [RngKey],
    /// Tells the draws of a recording apart.
    pub(crate) draw: u32,
}

/// The values of a program, computed for some models as it is recorded.
pub struct Eager {
    back_end: &'static dyn Compute,
    models: usize,
    keys: Vec<RngKey>,
    inputs: HashMap<usize, Result<Given, OpError>>,
    slots: HashMap<(Role, usize, usize), Result<Given, OpError>>,
    scalars: HashMap<Scalar, Vec<f64>>,
    scalar_source: Option<Box<ScalarSource>>,
    values: Vec<Option<Value>>,
    /// Why [`run`](Eager::run) computed no more.
    failed: Option<OpError>,
    memory: Memory,
    /// When each node was computed, while somebody profiles.
    times: Option<Vec<ComputedAt>>,
}

/// When a node was computed.
#[derive(Clone, Copy, Debug)]
pub struct ComputedAt {
    /// The node's number in the program.
    pub node: usize,
    /// When it began.
    pub start: Instant,
    /// How long it took.
    pub duration: Duration,
}

/// What was given for an input or a slot: one row a model.
struct Given {
    rows: AlignedBytes,
    /// Bytes of a row, without padding.
    row_bytes: usize,
    /// The type of its elements, if they were given as elements.
    dtype: Option<Dtype>,
}

/// Gives the numbers of a scalar, one a model, when a recording asks for it first.
pub type ScalarSource = dyn Fn(&Scalar) -> Option<Vec<f64>> + Send + Sync;

/// A computed value: one row a model.
pub(crate) struct Value {
    pub(crate) operand: Operand,
    pub(crate) rows: AlignedBytes,
}

/// Memory of values that are gone, for new ones: a steady step of a small model would else spend its time in
/// the allocator.
#[derive(Default)]
pub(crate) struct Memory {
    /// By size in bytes.
    free: BTreeMap<usize, Vec<AlignedBytes>>,
    pub(crate) scratch: AlignedBytes,
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

    /// Takes a row of so many bytes for each model.
    pub(crate) fn rows(&mut self, bytes: usize, models: usize) -> Result<AlignedBytes, OpError> {
        room(bytes, models).map(|all| self.take(all))
    }

    /// Copies rows of one length, one a model, each to a cache line of its own.
    fn aligned<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a [u8]>,
        models: usize,
    ) -> Result<Given, OpError> {
        let mut rows = rows.peekable();
        let row_bytes = rows.peek().map_or(0, |row| row.len());
        let stride = padded(row_bytes.max(1));
        let mut all = self.rows(row_bytes, models)?;
        let mut n_rows = 0;
        for row in rows {
            if row.len() != row_bytes {
                let given = row.len();
                return Err(OpError(format!("expected rows of {row_bytes} bytes, got {given}")));
            }
            if n_rows < models {
                all.bytes_mut()[n_rows * stride..][..row_bytes].copy_from_slice(row);
            }
            n_rows += 1;
        }
        match n_rows == models {
            true => Ok(Given { rows: all, row_bytes, dtype: None }),
            false => Err(OpError(format!("expected rows of {models} models, got {n_rows}"))),
        }
    }

    /// Copies the elements of model 0, then those of model 1, ….
    fn of_elements<T: Element>(&mut self, elements: &[T], models: usize) -> Result<Given, OpError> {
        let row = elements.len() / models.max(1);
        if row.checked_mul(models) != Some(elements.len()) {
            let given = elements.len();
            return Err(OpError(format!("expected numbers of {models} models, got {given}")));
        }
        let bytes: &[u8] = bytemuck::cast_slice(elements);
        let row = row * size_of::<T>();
        let given = self.aligned((0..models).map(|model| &bytes[model * row..][..row]), models)?;
        Ok(Given { dtype: Some(T::DTYPE), ..given })
    }
}

/// Why a value cannot be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The program has no such value, or it is not computed yet.
    #[error("%{0} is not computed")]
    NotComputed(ValueId),
    /// The program could not be run, or there is no room for the numbers.
    #[error(transparent)]
    Failed(#[from] OpError),
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
    /// Prepares for models that `back_end` computes.
    pub(crate) fn on(back_end: &'static dyn Compute, models: usize, keys: Vec<RngKey>) -> Self {
        Eager {
            back_end,
            models,
            keys,
            inputs: HashMap::new(),
            slots: HashMap::new(),
            scalars: HashMap::new(),
            scalar_source: None,
            values: Vec::new(),
            failed: None,
            memory: Memory::default(),
            times: None,
        }
    }

    /// Takes the time of each node from now on, or of none any more. Without it no clock is read.
    pub fn take_time(&mut self, takes: bool) {
        self.times = takes.then(Vec::new);
    }

    /// Gives the times that were taken since they were last given.
    pub fn times(&mut self) -> Vec<ComputedAt> {
        self.times.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Prepares for another recording in the memory of this one, of which nothing else is left.
    #[must_use]
    pub fn again(mut self, models: usize, keys: &[RngKey]) -> Self {
        // What this recording had no use for, the next one has none for either.
        self.memory.free.clear();
        let values = self.values.drain(..).flatten().map(|value| value.rows);
        let given = self.inputs.drain().map(|(_, given)| given);
        let given = given.chain(self.slots.drain().map(|(_, given)| given));
        values
            .chain(given.flatten().map(|given| given.rows))
            .for_each(|rows| self.memory.put(rows));
        self.scalars.clear();
        self.scalar_source = None;
        self.keys.clear();
        self.keys.extend_from_slice(keys);
        self.models = models;
        self.failed = None;
        self.times = None;
        self
    }

    /// Gives all values, which are inputs, other numbers, and the models other random states; says whether the rows
    /// fit.
    pub(super) fn refill<'a>(
        &mut self,
        keys: &[RngKey],
        mut rows: impl Iterator<Item = &'a [u8]>,
    ) -> bool {
        self.keys.clear();
        self.keys.extend_from_slice(keys);
        for value in &mut self.values {
            let Some(Value { operand, rows: all }) = value else { return false };
            let (bytes, stride) = (operand.ty.size_bytes(), stride(&operand.ty));
            for to in all.bytes_mut().chunks_exact_mut(stride).take(self.models) {
                match rows.next() {
                    Some(row) if row.len() == bytes => to[..bytes].copy_from_slice(row),
                    _ => return false,
                }
            }
        }
        rows.next().is_none()
    }

    /// Forgets what was computed.
    pub(super) fn forget(&mut self) {
        self.values.clear();
        self.failed = None;
    }

    /// Checks that what was computed are the values of a program.
    pub(super) fn check_values(&self, program: &Program) -> Result<(), OpError> {
        let mut types = program.values.iter().zip(&self.values);
        let is_computed = |value: &Option<Value>, ty: &Type| {
            value.as_ref().is_some_and(|value| value.operand.ty == *ty)
        };
        let n = program.values.len();
        let mut ids = program.nodes.iter().flat_map(|node| node.inputs.iter().chain(&node.outputs));
        let are_its = self.values.len() == n && types.all(|(of, value)| is_computed(value, &of.ty));
        match are_its && ids.all(|&id| id < n) {
            true => Ok(()),
            false => Err(OpError("expected the values that were computed with the program".into())),
        }
    }

    /// Gives input `input`: the elements of model 0, row-major, then those of model 1, ….
    #[must_use]
    pub fn with_input<T: Element>(mut self, input: usize, elements: &[T]) -> Self {
        let given = self.memory.of_elements(elements, self.models);
        self.inputs.insert(input, given);
        self
    }

    /// Gives the rows of the slot of that role, position and index, as [`with_input`](Eager::with_input).
    #[must_use]
    pub fn with_slot<T: Element>(mut self, slot: (Role, usize, usize), elements: &[T]) -> Self {
        let given = self.memory.of_elements(elements, self.models);
        self.slots.insert(slot, given);
        self
    }

    /// Gives a scalar: one number a model.
    #[must_use]
    pub fn with_scalar(mut self, scalar: Scalar, numbers: Vec<f64>) -> Self {
        self.scalars.insert(scalar, numbers);
        self
    }

    /// Gives one more input to a recording that goes on: a row of bytes for each model. Rows that do not fit are an error
    /// when the input is recorded.
    pub fn set_input<'a>(&mut self, input: usize, rows: impl Iterator<Item = &'a [u8]>) {
        let given = self.memory.aligned(rows, self.models);
        self.inputs.insert(input, given);
    }

    /// Gives the rows of the slot of that role, position and index: a row of bytes for each model. Rows that do not fit
    /// are an error when the slot is recorded.
    pub fn set_slot<'a>(
        &mut self,
        slot: (Role, usize, usize),
        rows: impl Iterator<Item = &'a [u8]>,
    ) {
        let given = self.memory.aligned(rows, self.models);
        self.slots.insert(slot, given);
    }

    /// Says who knows the scalars that were not given one by one.
    pub fn set_scalar_source(&mut self, source: Box<ScalarSource>) {
        self.scalar_source = Some(source);
    }

    /// Keeps some of the models, in that order; numbers of models that there are not count for nothing.
    pub fn select(&mut self, models: &[usize]) {
        let kept: Vec<_> = models.iter().copied().filter(|&model| model < self.models).collect();
        let gather = |rows: &mut AlignedBytes, stride: usize| {
            let mut all = AlignedBytes::new(stride * kept.len());
            for (to, &model) in kept.iter().enumerate() {
                let row = &rows.bytes()[model * stride..][..stride];
                all.bytes_mut()[to * stride..][..stride].copy_from_slice(row);
            }
            *rows = all;
        };
        for value in self.values.iter_mut().flatten() {
            gather(&mut value.rows, stride(&value.operand.ty));
        }
        for given in self.inputs.values_mut().chain(self.slots.values_mut()).flatten() {
            gather(&mut given.rows, padded(given.row_bytes.max(1)));
        }
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

    /// Runs a program that is recorded already; afterwards [`read`](Eager::read) gives its values. If the program breaks
    /// the grammar, or what was given does not fit it, that says why there are none.
    #[must_use]
    pub fn run(mut self, program: &Program) -> Self {
        self.forget();
        self.failed = self.try_run(program).err();
        self
    }

    fn try_run(&mut self, program: &Program) -> Result<(), OpError> {
        program.verify().map_err(|error| OpError(error.to_string()))?;
        for id in 0..program.values.len() {
            if !matches!(program.values[id].origin, Origin::Node { .. }) {
                self.source(program, id)?;
            }
        }
        (0..program.nodes.len()).try_for_each(|node| self.compute(program, node))
    }

    /// Gives the elements of a value, row-major: those of model 0, then those of model 1, ….
    ///
    /// # Errors
    ///
    /// [`ReadError`] if there is no such value, it is of another dtype, or the program could not be run.
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
    /// [`ReadError`] if there is no such value, or the program could not be run.
    pub fn read_bytes(&self, id: ValueId) -> Result<(&Type, Vec<u8>), ReadError> {
        let value = self.values.get(id).and_then(Option::as_ref);
        let failed = || self.failed.clone().map_or(ReadError::NotComputed(id), ReadError::Failed);
        let value = value.ok_or_else(failed)?;
        let ty = &value.operand.ty;
        let dense;
        let rows = if value.operand.is_row_major() {
            &value.rows
        } else {
            dense = self.back_end.row_major(value, self.models, &mut Memory::default())?;
            &dense.rows
        };
        let stride = stride(ty);
        let row = |model: usize| &rows.bytes()[model * stride..][..ty.size_bytes()];
        let mut bytes = Vec::with_capacity(self.models * ty.size_bytes());
        (0..self.models).for_each(|model| bytes.extend_from_slice(row(model)));
        Ok((ty, bytes))
    }

    /// Makes value `id`, which no node makes, of what was given for it. A slot or scalar that was not given is zero.
    ///
    /// # Errors
    ///
    /// If what was given is not a row of its type for each model, or there is no room.
    pub(crate) fn source(&mut self, program: &Program, id: ValueId) -> Result<(), OpError> {
        let (ty, origin) = (program.ty(id), program.values[id].origin);
        let given = match origin {
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
                numbers.map(|numbers| self.numbers(numbers, ty.dtype))
            }
            Origin::Constant(number) => {
                room(ty.size_bytes(), self.models)?;
                let numbers = vec![number; ty.shape.numel() * self.models];
                Some(self.numbers(numbers, ty.dtype))
            }
            Origin::Node { .. } => None,
        };
        let failed = |message: String| {
            let of = match origin {
                Origin::Slot(slot) => program.slots[slot].name.clone(),
                Origin::Scalar(scalar) => program.scalars[scalar].name.into(),
                Origin::Input(input) => format!("input {input}"),
                _ => String::new(),
            };
            OpError(format!("{of}: {message}"))
        };
        let rows = match given {
            None => {
                let mut rows = self.memory.rows(ty.size_bytes(), self.models)?;
                rows.bytes_mut().fill(0);
                rows
            }
            Some(Ok(given)) if given.fits(ty) => given.rows,
            Some(Ok(given)) => {
                let Given { row_bytes, dtype, .. } = given;
                let of = dtype.map_or(String::new(), |dtype| format!(" of {dtype}"));
                return Err(failed(format!("expected rows of {ty}, got {row_bytes} bytes{of}")));
            }
            Some(Err(error)) => return Err(failed(error.0)),
        };
        self.set(id, Value { operand: Operand::row_major(ty.clone()), rows });
        Ok(())
    }

    /// Gives rows of numbers, those of model 0 first, as elements of a type.
    fn numbers(&mut self, numbers: Vec<f64>, dtype: Dtype) -> Result<Given, OpError> {
        let (memory, models) = (&mut self.memory, self.models);
        let all = numbers.iter().copied();
        match dtype {
            Dtype::F64 => memory.of_elements(&numbers, models),
            Dtype::I64 => memory.of_elements(&all.map(|n| n as i64).collect::<Vec<_>>(), models),
            Dtype::Bool => {
                memory.of_elements(&all.map(|n| u8::from(n != 0.0)).collect::<Vec<_>>(), models)
            }
            _ => memory.of_elements(&all.map(|n| n as f32).collect::<Vec<_>>(), models),
        }
    }

    /// Computes a node.
    ///
    /// # Errors
    ///
    /// If there is no room, or the op says of its operands what cannot be.
    pub(crate) fn compute(&mut self, program: &Program, node: usize) -> Result<(), OpError> {
        let start = self.times.is_some().then(Instant::now);
        self.compute_node(program, node)?;
        if let Some((times, start)) = self.times.as_mut().zip(start) {
            times.push(ComputedAt { node, start, duration: start.elapsed() });
        }
        Ok(())
    }

    fn compute_node(&mut self, program: &Program, node: usize) -> Result<(), OpError> {
        let (node, back_end) = (&program.nodes[node], self.back_end);
        let value = |id: ValueId| {
            self.values[id].as_ref().expect("inputs are computed before the node that reads them")
        };
        let mut memory = std::mem::take(&mut self.memory);
        let mut copies: SmallVec<[Option<Value>; FEW]> = SmallVec::new();
        for (number, &id) in node.inputs.iter().enumerate() {
            let fits = node.op.takes_layout(number, &value(id).operand);
            copies.push(match fits {
                true => None,
                false => Some(back_end.row_major(value(id), self.models, &mut memory)?),
            });
        }
        let inputs: SmallVec<[&Value; FEW]> = node
            .inputs
            .iter()
            .zip(&copies)
            .map(|(&id, copy)| copy.as_ref().unwrap_or_else(|| value(id)))
            .collect();
        let types: SmallVec<[Type; FEW]> =
            node.outputs.iter().map(|&id| program.ty(id).clone()).collect();
        let draws = Draws { models: self.models, keys: &self.keys, draw: node.draw };
        let outputs = back_end.compute(&*node.op, &inputs, &types, draws, &mut memory)?;
        drop(inputs);
        copies.into_iter().flatten().for_each(|value| memory.put(value.rows));
        self.memory = memory;
        for (&id, value) in node.outputs.iter().zip(outputs) {
            self.set(id, value);
        }
        Ok(())
    }

    fn set(&mut self, id: ValueId, value: Value) {
        if self.values.len() <= id {
            self.values.resize_with(id + 1, || None);
        }
        self.values[id] = Some(value);
    }
}

impl Given {
    /// Says whether these are rows of a type.
    fn fits(&self, ty: &Type) -> bool {
        self.row_bytes == ty.size_bytes() && self.dtype.is_none_or(|dtype| dtype == ty.dtype)
    }
}

/// Checks that there is room for a row of so many bytes for each model, and gives the bytes of all.
fn room(bytes: usize, models: usize) -> Result<usize, OpError> {
    let all = padded(bytes.max(1)).checked_mul(models);
    let all = all.filter(|all| *all <= isize::MAX as usize);
    let room = all.ok_or(MemoryError { bytes: usize::MAX }).and_then(|all| {
        check_room(all)?;
        Ok(all)
    });
    room.map_err(|error| OpError(error.to_string()))
}

/// Bytes from one model's row to the next.
pub(crate) fn stride(ty: &Type) -> usize {
    padded(ty.size_bytes().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::program::Slot;
    use crate::ir::trace::Trace;

    const BIG: usize = 1 << 22;

    fn f32(n: usize) -> Type {
        Type::new(Dtype::F32, [n])
    }

    /// Records an input and its tanh, and runs that.
    fn error_of(eager: Eager, n: usize) -> String {
        let trace = Trace::new();
        let y = trace.input(f32(n)).tanh();
        let program = trace.finish(&[y]).unwrap();
        eager.run(&program).read::<f32>(1).unwrap_err().to_string()
    }

    #[test]
    fn what_is_given_has_the_length_that_it_is_recorded_with() {
        let one = || Eager::new(1, Vec::new());
        let found = error_of(one().with_input(0, &[1_f32]), BIG);
        assert_eq!(found, "input 0: expected rows of f32[4194304], got 4 bytes of f32");
        let found = error_of(one().with_input(0, &[1_i64; 2]), 4);
        assert_eq!(found, "input 0: expected rows of f32[4], got 16 bytes of i64");
        let found = error_of(Eager::new(3, Vec::new()).with_input(0, &[1_f32; 4]), 4);
        assert_eq!(found, "input 0: expected numbers of 3 models, got 4");
        let found = error_of(Eager::new(0, Vec::new()).with_input(0, &[1_f32; 4]), 4);
        assert_eq!(found, "input 0: expected numbers of 0 models, got 4");
    }

    #[test]
    fn more_models_than_fit_any_memory_are_an_error() {
        let found = error_of(Eager::new(1 << 58, Vec::new()), 4);
        assert!(found.starts_with("can't allocate memory"), "{found}");
        let trace = Trace::eager(Eager::new(usize::MAX, Vec::new()));
        let y = trace.constant(1.0, Dtype::F32, [3]).exp();
        assert!(y.read::<f32>().is_err() && trace.error().is_some());
        let y = trace.input_of::<f32>([1 << 40], &[]);
        assert!(y.read::<f32>().is_err());
    }

    #[test]
    fn rows_of_a_recording_have_one_length_and_are_as_many_as_models() {
        let rows: [(&[&[u8]], &str); 4] = [
            (&[&[0; 4], &[0; 4]], "expected rows of f32[4194304], got 4 bytes"),
            (&[&[0; 4], &[0; 8]], "expected rows of 4 bytes, got 8"),
            (&[&[0; 4]], "expected rows of 2 models, got 1"),
            (&[&[0; 4], &[0; 4], &[0; 4]], "expected rows of 2 models, got 3"),
        ];
        for (rows, expected) in rows {
            let trace = Trace::eager(Eager::new(2, Vec::new()));
            let x = trace.input_of_rows(f32(BIG), rows.iter().copied());
            assert!(x.tanh().read::<f32>().is_err());
            assert_eq!(trace.error().unwrap().message, format!("input 0: {expected}"));
            let trace = Trace::eager(Eager::new(2, Vec::new()));
            let slot =
                Slot { name: "w".into(), role: Role::Buffer, position: 0, index: 0, ty: f32(BIG) };
            trace.set_slot((Role::Buffer, 0, 0), rows.iter().copied());
            assert!(trace.slot(slot).read::<f32>().is_err());
            assert_eq!(trace.error().unwrap().message, format!("w: {expected}"));
        }
    }

    #[test]
    fn a_slot_has_one_type() {
        let trace = Trace::eager(Eager::new(1, Vec::new()));
        let of = |ty| {
            trace.slot(Slot { name: "w".into(), role: Role::State(0), position: 0, index: 0, ty })
        };
        let small = of(f32(4));
        assert_eq!(of(f32(4)).id(), small.id());
        assert!((of(f32(BIG)) + 1.0).read::<f32>().is_err());
        assert_eq!(
            trace.error().unwrap().message,
            "w: expected f32[4], as before, got f32[4194304]"
        );
    }

    #[test]
    fn scalars_are_as_many_as_models() {
        let of = crate::ir::program::ScalarOf::Optimizer { group: 0 };
        let scalar = Scalar { name: "lr", of, position: 0 };
        let short = Eager::new(2, Vec::new()).with_scalar(scalar.clone(), vec![1.0]);
        let mut told = Eager::new(2, Vec::new());
        told.set_scalar_source(Box::new(|_| Some(vec![1.0; 3])));
        for (eager, given) in [(short, 1), (told, 3)] {
            let trace = Trace::eager(eager);
            assert!(trace.scalar(scalar.clone(), Dtype::F64).read::<f64>().is_err());
            let error = trace.error().unwrap().message;
            assert_eq!(error, format!("lr: expected numbers of 2 models, got {given}"));
        }
    }

    #[test]
    fn a_recording_goes_on_with_its_own_values_alone() {
        let paused = |n: usize| {
            let trace = Trace::eager(Eager::new(1, Vec::new()));
            let _ = trace.input_of::<f32>([n], &vec![1.0; n]).exp();
            trace.pause().unwrap()
        };
        let ((small, of_small), (large, _)) = (paused(2), paused(BIG));
        let trace = Trace::resume_eager(large, of_small);
        assert!(trace.var(1).exp().read::<f32>().is_err());
        let expected = "expected the values that were computed with the program";
        assert_eq!(trace.error().unwrap().message, expected);
        let (_, of_small) = paused(2);
        let trace = Trace::resume_eager(small, of_small);
        assert!(trace.var(1).exp().read::<f32>().is_ok());
    }

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
