//! Recording: [`Trace`] and [`Var`], with which a module's `forward` is written.
//!
//! A trace either only records, or also computes each op as it is recorded ([`super::eager`]). An op
//! that cannot take its inputs gives a [`Var`] all the same, so that `forward` is written in plain
//! expressions: the trace keeps the first error, ignores what follows from it, and gives it back at
//! the end.

use std::cell::{Ref, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use super::eager::{Eager, ReadError};
use crate::ir::autocast::Autocast;
use crate::ir::dtype::{Dtype, Element};
use crate::ir::error::OpError;
use crate::ir::op::Op;
use crate::ir::program::{
    Ids, Node, Origin, Program, Role, Scalar, ScalarOf, Scope, Slot, SlotId, ValueId,
};
use crate::ir::shape::{Shape, Type};
use crate::memory::check_room;

mod call;
mod contain;
mod identity;
mod item;
mod mixed;
mod refill;
mod repeat;
mod warn;

pub use crate::ir::error::panic_message;
pub use mixed::Results;

pub use crate::ir::program::Function;

/// An error while tracing, with the module that it happened in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", at(.path, .module))]
#[non_exhaustive]
pub struct TraceError {
    /// Dotted path of the module; empty for the root.
    pub path: String,
    /// Name of the module's type.
    pub module: &'static str,
    /// What was expected and what came.
    pub message: String,
    /// Whether a number was read that the recording does not have: one that computes the ops of one model would
    /// ([`Trace::item`]).
    pub needs_values: bool,
}

impl TraceError {
    /// An error of no module.
    fn of(error: &impl ToString) -> Self {
        let message = error.to_string();
        TraceError { path: String::new(), module: "", message, needs_values: false }
    }
}

fn at(path: &str, module: &str) -> String {
    match (path, module) {
        ("", "") => String::new(),
        ("", module) => format!("{module}: "),
        (path, module) => format!("{path} ({module}): "),
    }
}

/// What a closed recording says to slots and scalars.
const CLOSED: &str = "a hook can only compute with what it is given";

/// Records ops into a [`Program`]. Cloning gives another handle of the same recording.
#[derive(Clone, Default)]
pub struct Trace(Rc<RefCell<Recorder>>);

#[derive(Default)]
struct Recorder {
    /// Its scope 0 is the outside: what is recorded while no module call is open.
    program: Program,
    /// Indices in `program.scopes` of the module calls that are open.
    open: Vec<usize>,
    /// How often the module at each path was called.
    calls: HashMap<Arc<str>, usize>,
    /// The values that read slots.
    slots: HashMap<(Role, usize, usize), ValueId>,
    /// What was last stored to slots.
    stored: HashMap<SlotId, ValueId>,
    /// The places of scalars.
    scalars: HashMap<Scalar, usize>,
    /// The values that are scalars or constants.
    numbers: HashMap<(Number, Type), ValueId>,
    error: Option<TraceError>,
    eager: Option<Eager>,
    autocast: Option<Autocast>,
    /// Parameters that autocast has cast.
    casts: HashMap<(ValueId, Dtype), ValueId>,
    /// Whether slots and scalars are refused.
    is_closed: bool,
    /// How many recordings of this handle ended before: values of those are gone.
    number: u32,
}

/// A value that all elements have: a scalar by its place, a constant by its bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Number {
    Scalar(usize),
    Constant(u64),
}

impl Number {
    fn of(origin: Origin) -> Option<Number> {
        match origin {
            Origin::Scalar(scalar) => Some(Number::Scalar(scalar)),
            Origin::Constant(number) => Some(Number::Constant(number.to_bits())),
            Origin::Input(_) | Origin::Slot(_) | Origin::Node { .. } => None,
        }
    }
}

/// A value being traced. Operators and methods on it record ops.
#[derive(Clone)]
pub struct Var {
    trace: Trace,
    /// `None` after an error.
    id: Option<ValueId>,
    /// Which of the handle's recordings it belongs to.
    recording: u32,
    ty: Type,
}

impl Trace {
    /// Starts an empty recording.
    pub fn new() -> Self {
        Trace::default()
    }

    /// Goes on recording at the end of `program`. One that breaks the grammar is an error of the recording.
    pub fn resume(program: Program) -> Self {
        let broken = program.verify().err();
        let trace = Trace::resume_checked(program);
        broken.into_iter().for_each(|error| trace.keep(TraceError::of(&error)));
        trace
    }

    /// [`resume`](Trace::resume), of a program whose origins are there.
    fn resume_checked(program: Program) -> Self {
        let mut recorder = Recorder::default();
        for (id, value) in program.values.iter().enumerate() {
            if let Origin::Slot(slot) = value.origin {
                let slot = program.slots.get(slot);
                slot.map(|slot| *recorder.slots.entry(key(slot)).or_insert(id));
            } else if let Some(number) = Number::of(value.origin) {
                recorder.numbers.entry((number, value.ty.clone())).or_insert(id);
            }
        }
        for (place, scalar) in program.scalars.iter().enumerate() {
            recorder.scalars.entry(scalar.clone()).or_insert(place);
        }
        recorder.stored.extend(program.stores.iter().copied());
        Trace(Rc::new(RefCell::new(Recorder { program, ..recorder })))
    }

    /// Starts a recording that computes each op as it is recorded.
    pub fn eager(eager: Eager) -> Self {
        Trace::eager_in(Program::default(), eager)
    }

    /// [`eager`](Trace::eager), in the memory of a program that is needed no more.
    pub fn eager_in(mut program: Program, mut eager: Eager) -> Self {
        program.clear();
        eager.forget();
        let recorder = Recorder { program, eager: Some(eager), ..Recorder::default() };
        Trace(Rc::new(RefCell::new(recorder)))
    }

    /// Goes on recording and computing where [`pause`](Trace::pause) left off. It is an error of the recording if the
    /// values are not the program's.
    pub fn resume_eager(program: Program, eager: Eager) -> Self {
        let trace = Trace::resume_checked(program);
        let checked = eager.check_values(&trace.program());
        trace.0.borrow_mut().eager = Some(eager);
        checked.err().into_iter().for_each(|error| trace.keep(TraceError::of(&error)));
        trace
    }

    /// Takes the recording and the computed values out, to go on later, perhaps on another thread.
    ///
    /// # Errors
    ///
    /// The first error that was recorded.
    pub fn pause(&self) -> Result<(Program, Eager), TraceError> {
        let mut recorder = self.0.borrow_mut();
        match recorder.error.take() {
            Some(error) => Err(error),
            None => {
                let Recorder { program, eager, .. } = recorder.end();
                Ok((program, eager.unwrap_or_default()))
            }
        }
    }

    /// Ends the recording with `outputs` as the program's outputs.
    ///
    /// # Errors
    ///
    /// The first error that was recorded.
    pub fn finish(&self, outputs: &[Var]) -> Result<Program, TraceError> {
        let mut recorder = self.0.borrow_mut();
        let ids = outputs.iter().map_while(|var| recorder.id_of(self, var)).collect();
        match recorder.error.take() {
            Some(error) => Err(error),
            None => Ok(Program { outputs: ids, ..recorder.end().program }),
        }
    }

    /// Gives the first error so far.
    pub fn error(&self) -> Option<TraceError> {
        self.0.borrow().error.clone()
    }

    /// Looks at the program recorded so far.
    pub fn program(&self) -> Ref<'_, Program> {
        Ref::map(self.0.borrow(), |recorder| &recorder.program)
    }

    /// Looks at the values computed so far, if this trace is eager.
    pub fn values(&self) -> Option<Ref<'_, Eager>> {
        Ref::filter_map(self.0.borrow(), |recorder| recorder.eager.as_ref()).ok()
    }

    /// Records the next input of the program.
    pub fn input(&self, ty: Type) -> Var {
        if let Err(error) = ty.checked_size_bytes() {
            return self.fail(error.0);
        }
        let mut recorder = self.0.borrow_mut();
        recorder.program.inputs.push(ty.clone());
        let origin = Origin::Input(recorder.program.inputs.len() - 1);
        recorder.source(self, ty, origin)
    }

    /// Records the next input of the program, and gives its numbers to an eager trace: those of model 0,
    /// row-major, then those of model 1, ….
    pub fn input_of<T: Element>(&self, shape: impl Into<Shape>, elements: &[T]) -> Var {
        let ty = Type::new(T::DTYPE, shape);
        let row = ty.size_bytes();
        let bytes: &[u8] = bytemuck::cast_slice(elements);
        let models = self.values().map_or(0, |eager| eager.models());
        if Some(bytes.len()) != row.checked_mul(models) {
            let expected = ty.shape.numel().saturating_mul(models);
            return self.fail(format!("expected {expected} numbers, got {}", elements.len()));
        }
        self.input_of_rows(ty, (0..models).map(|model| &bytes[model * row..][..row]))
    }

    /// [`input_of`](Trace::input_of) rows of bytes, one for each model.
    pub fn input_of_rows<'a>(&self, ty: Type, rows: impl Iterator<Item = &'a [u8]>) -> Var {
        let input = self.program().inputs.len();
        if let Some(eager) = &mut self.0.borrow_mut().eager {
            // Said with the path of the module when the input is recorded, if they do not fit.
            eager.set_input(input, rows);
        }
        self.input(ty)
    }

    /// Gives the rows of a slot to an eager trace, one for each model, before the slot is recorded.
    pub fn set_slot<'a>(&self, slot: (Role, usize, usize), rows: impl Iterator<Item = &'a [u8]>) {
        if let Some(eager) = &mut self.0.borrow_mut().eager {
            eager.set_slot(slot, rows);
        }
    }

    /// Records the row of a slot; a slot that was recorded before is the same value.
    pub fn slot(&self, slot: Slot) -> Var {
        let mut recorder = self.0.borrow_mut();
        let (key, ty) = (key(&slot), slot.ty.clone());
        if let Some(&value) = recorder.slots.get(&key) {
            let known = recorder.program.ty(value);
            return match *known == ty {
                true => recorder.var(self, value, ty),
                false => {
                    let message = format!("{}: expected {known}, as before, got {ty}", slot.name);
                    recorder.refuse(self, message)
                }
            };
        }
        if recorder.is_closed {
            return recorder.refuse(self, CLOSED.into());
        }
        if let Err(error) = has_room(&ty) {
            return recorder.refuse(self, error.0);
        }
        recorder.program.slots.push(slot);
        let id = recorder.program.slots.len() - 1;
        let var = recorder.source(self, ty, Origin::Slot(id));
        recorder.slots.extend(var.id.map(|id| (key, id)));
        var
    }

    /// Records a number of each model's own, with shape `[]`. Among halves it is of single precision: it is not
    /// rounded.
    pub fn scalar(&self, scalar: Scalar, dtype: Dtype) -> Var {
        let mut recorder = self.0.borrow_mut();
        if recorder.is_closed {
            return recorder.refuse(self, CLOSED.into());
        }
        let ty = Type::new(number_dtype(dtype), []);
        let Recorder { scalars, program, .. } = &mut *recorder;
        let index = *scalars.entry(scalar).or_insert_with_key(|scalar| {
            program.scalars.push(scalar.clone());
            program.scalars.len() - 1
        });
        recorder.number(self, ty, Origin::Scalar(index))
    }

    /// Records a field of the module whose call is open, with shape `[]`; `position` is its place in
    /// the blueprint.
    pub fn module_scalar(&self, name: &'static str, position: usize, dtype: Dtype) -> Var {
        self.scalar(Scalar { name, of: ScalarOf::Module, position }, dtype)
    }

    /// Records a number that is the same for all models, in every element of `shape`. One of shape `[]` is as a
    /// [`scalar`](Trace::scalar) among halves.
    pub fn constant(&self, value: f64, dtype: Dtype, shape: impl Into<Shape>) -> Var {
        let ty = Type::new(number_dtype(dtype), shape);
        if let Err(error) = has_room(&ty) {
            return self.fail(error.0);
        }
        let number = self.0.borrow_mut().number(self, ty, Origin::Constant(value));
        if number.shape().rank() > 0 { number.to(dtype) } else { number }
    }

    /// Applies an op that has one output.
    pub fn apply(&self, op: impl Op, inputs: &[&Var]) -> Var {
        self.apply_all(Arc::new(op), inputs, 1).swap_remove(0)
    }

    /// Applies an op that has `N` outputs.
    pub fn apply_n<const N: usize>(&self, op: impl Op, inputs: &[&Var]) -> [Var; N] {
        let outputs = self.apply_all(Arc::new(op), inputs, N);
        outputs.try_into().unwrap_or_else(|_| unreachable!("apply_all gives as many as asked for"))
    }

    /// Applies an op that has `n_outputs` outputs.
    pub fn apply_all(&self, op: Arc<dyn Op>, inputs: &[&Var], n_outputs: usize) -> Vec<Var> {
        match self.is_mixed(op.mixing(), inputs) {
            true => self.apply_mixed(op, inputs, n_outputs),
            false => self.record(op, inputs, n_outputs),
        }
    }

    /// Records an op over values as they are.
    fn record(&self, op: Arc<dyn Op>, inputs: &[&Var], n_outputs: usize) -> Vec<Var> {
        let mut recorder = self.0.borrow_mut();
        let ids: Ids = inputs.iter().map_while(|var| recorder.id_of(self, var)).collect();
        if recorder.error.is_some() {
            return vec![recorder.nothing(self); n_outputs];
        }
        let types: SmallVec<[Type; 4]> = inputs.iter().map(|var| var.ty.clone()).collect();
        let outputs = op.outputs(&types).and_then(|outputs| match outputs.len() {
            n if n == n_outputs => outputs.iter().try_for_each(has_room).map(|()| outputs),
            n => Err(OpError(format!("{}: expected {n_outputs} outputs, got {n}", op.name()))),
        });
        let made = outputs.and_then(|outputs| Ok((recorder.push(op, ids, &outputs)?, outputs)));
        match made {
            Ok((ids, outputs)) => {
                ids.into_iter().zip(outputs).map(|(id, ty)| recorder.var(self, id, ty)).collect()
            }
            Err(error) => {
                recorder.fail(error.0);
                vec![recorder.nothing(self); n_outputs]
            }
        }
    }

    /// Records what `f` records under scope `scope`: a gradient belongs to the call that it is of.
    pub(crate) fn within<R>(&self, scope: usize, f: impl FnOnce() -> R) -> R {
        self.0.borrow_mut().open.push(scope);
        let result = f();
        self.0.borrow_mut().open.pop();
        result
    }

    /// Records an error at the open module call and gives a value that stands for nothing.
    pub fn fail(&self, message: impl Into<String>) -> Var {
        self.0.borrow_mut().fail(message.into());
        self.poison()
    }

    /// Records that a slot's row becomes `value` when the program has run; what was stored last counts. In a
    /// slot's place may stand what was last stored to it. A value of another precision is converted if one of the
    /// two is a half.
    pub fn store(&self, slot: &Var, value: &Var) {
        let [of, from] = [slot, value].map(Var::dtype);
        let is_other = of != from && of.is_float() && from.is_float();
        let value = match is_other && (of.is_half() || from.is_half()) {
            true => &value.to(of),
            false => value,
        };
        let mut recorder = self.0.borrow_mut();
        let (Some(slot), Some(value)) = (recorder.id_of(self, slot), recorder.id_of(self, value))
        else {
            return;
        };
        let known = |&&(_, stored): &&(SlotId, ValueId)| stored == slot;
        let slot = match recorder.program.values[slot].origin {
            Origin::Slot(slot) => Some(slot),
            _ => recorder.program.stores.iter().find(known).map(|&(slot, _)| slot),
        };
        match slot {
            Some(slot) => match recorder.program.check_store(slot, value) {
                Ok(()) => {
                    if recorder.stored.insert(slot, value).is_some() {
                        recorder.program.stores.retain(|&(known, _)| known != slot);
                    }
                    recorder.program.stores.push((slot, value));
                }
                Err(error) => recorder.fail(error.to_string()),
            },
            None => recorder
                .fail("only a parameter, a buffer or optimizer state can be stored to".into()),
        }
    }

    /// Gives what was last [stored](Trace::store) to a slot, or its row: what a module that is called twice
    /// finds in a buffer that it updates.
    pub fn stored(&self, slot: &Var) -> Var {
        let slot = self.own(slot.clone());
        let Some(Origin::Slot(of)) = self.origin(&slot) else { return slot };
        let value = self.0.borrow().stored.get(&of).copied();
        value.map_or(slot, |id| self.var(id))
    }
}

/// What tells slots apart.
fn key(slot: &Slot) -> (Role, usize, usize) {
    (slot.role, slot.position, slot.index)
}

/// Gives what numbers among values of this type are kept in.
fn number_dtype(dtype: Dtype) -> Dtype {
    if dtype.is_half() { Dtype::F32 } else { dtype }
}

/// Checks that a value fits the machine's memory, alone.
pub(crate) fn has_room(ty: &Type) -> Result<(), OpError> {
    let bytes = ty.checked_size_bytes()?;
    check_room(bytes).map_err(|error| OpError(format!("{ty}: {error}")))
}

impl Recorder {
    /// Records a value that no node makes.
    fn source(&mut self, trace: &Trace, ty: Type, origin: Origin) -> Var {
        let id = self.program.push_value(ty.clone(), origin);
        let made = self.eager.as_mut().map_or(Ok(()), |eager| eager.source(&self.program, id));
        match made {
            Ok(()) => self.var(trace, id, ty),
            Err(error) => self.refuse(trace, error.0),
        }
    }

    /// Records a scalar or a constant; one that was recorded before is the same value.
    fn number(&mut self, trace: &Trace, ty: Type, origin: Origin) -> Var {
        let key = Number::of(origin).map(|number| (number, ty.clone()));
        if let Some(&id) = key.as_ref().and_then(|key| self.numbers.get(key)) {
            return self.var(trace, id, ty);
        }
        let var = self.source(trace, ty, origin);
        self.numbers.extend(key.zip(var.id));
        var
    }

    fn open_outside(&mut self) {
        if self.program.scopes.is_empty() {
            self.program.scopes.push(Scope::default());
        }
    }

    fn push(&mut self, op: Arc<dyn Op>, inputs: Ids, outputs: &[Type]) -> Result<Ids, OpError> {
        self.open_outside();
        let scope = self.open.last().copied().unwrap_or(0);
        let outputs = self.program.push(op, inputs, outputs.iter().cloned(), scope);
        if let Some(eager) = &mut self.eager {
            eager.compute(&self.program, self.program.nodes.len() - 1)?;
        }
        Ok(outputs)
    }

    /// Keeps an error, and gives a value that stands for nothing.
    fn refuse(&mut self, trace: &Trace, message: String) -> Var {
        self.fail(message);
        self.nothing(trace)
    }

    fn fail(&mut self, message: String) {
        if self.error.is_none() {
            let open = self.open.last().and_then(|&scope| self.program.scopes.get(scope));
            let scope = open.cloned().unwrap_or_default();
            let (path, module) = (scope.path.to_string(), scope.module);
            self.error = Some(TraceError { path, module, message, needs_values: false });
        }
    }
}

impl Var {
    /// Gives the element type and shape.
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// Gives the element type.
    pub fn dtype(&self) -> Dtype {
        self.ty.dtype
    }

    /// Gives the shape for one model.
    pub fn shape(&self) -> &Shape {
        &self.ty.shape
    }

    /// Gives the recording that this value belongs to.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Gives the index in [`Program::values`] of the program that its recording became; `None` if an error came
    /// before it.
    pub fn id(&self) -> Option<ValueId> {
        self.id
    }

    /// Copies the numbers of this value, if its trace computes: those of model 0, row-major, then those of
    /// model 1, ….
    ///
    /// # Errors
    ///
    /// [`ReadError`] if nothing is computed, an error came before, or the elements are not `T`.
    pub fn read<T: Element>(&self) -> Result<Vec<T>, ReadError> {
        let id = self.id.ok_or(ReadError::Poisoned)?;
        let values = self.trace.values().filter(|_| self.trace.owns(self));
        values.ok_or(ReadError::NotComputed(id))?.read(id)
    }

    /// Gives the node that made this value, if one did.
    pub fn node(&self) -> Option<Node> {
        let Origin::Node { node, .. } = self.trace.origin(self)? else { return None };
        self.trace.program().nodes.get(node).cloned()
    }
}

impl std::fmt::Debug for Var {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.id {
            Some(id) => write!(f, "%{id}: {}", self.ty),
            None => f.write_str("%?"),
        }
    }
}
