//! Which recording a value belongs to: looked at wherever one enters another.
//!
//! A [`Var`] holds its recording's handle and number. Handles are compared by address, which stays taken as long as a
//! value holds it; the number changes when the recording ends, for then its values are gone.

use std::rc::Rc;

use super::{Recorder, Trace, TraceError, Var};
use crate::ir::dtype::Dtype;
use crate::ir::program::{Origin, ValueId};
use crate::ir::shape::Type;

/// What a recording says to a value of another one.
const FOREIGN: &str = "expected a value of this forward pass, got one of another: a value is gone when the pass that \
                       recorded it has ended";

/// What a recording says to a value that stands for nothing, where no error came before it.
const NOTHING: &str = "expected a value, got one that stands for nothing";

impl Trace {
    /// Returns `var` back if this recording made it. Keeps an error otherwise, and gives a value that stands for nothing.
    #[must_use]
    pub fn own(&self, var: Var) -> Var {
        if var.id.is_some() && self.owns(&var) {
            return var;
        }
        let mut recorder = self.0.borrow_mut();
        recorder.id_of(self, &var);
        recorder.nothing(self)
    }

    /// Gives a handle of a value that is recorded already. An id that no value has is an error.
    pub fn var(&self, id: ValueId) -> Var {
        let recorder = self.0.borrow();
        if let Some(value) = recorder.program.values.get(id) {
            return recorder.var(self, id, value.ty.clone());
        }
        let n = recorder.program.values.len();
        drop(recorder);
        self.fail(format!("expected the index of one of {n} values, got {id}"))
    }

    /// Gives a value that stands for nothing: what comes after an error.
    pub fn poison(&self) -> Var {
        self.0.borrow().nothing(self)
    }

    /// Says whether a value belongs to this recording, which has not ended since.
    pub(crate) fn owns(&self, var: &Var) -> bool {
        self.0.borrow().owns(self, var)
    }

    /// Says where a value of this recording comes from.
    pub(super) fn origin(&self, var: &Var) -> Option<Origin> {
        let recorder = self.0.borrow();
        let id = var.id.filter(|_| recorder.owns(self, var))?;
        recorder.program.values.get(id).map(|value| value.origin)
    }

    /// Keeps `error`, unless there is one already.
    pub(super) fn keep(&self, error: TraceError) {
        self.0.borrow_mut().error.get_or_insert(error);
    }
}

impl Recorder {
    fn owns(&self, trace: &Trace, var: &Var) -> bool {
        Rc::ptr_eq(&trace.0, &var.trace.0) && self.number == var.recording
    }

    /// Gives the index of a value of this recording. Keeps an error if it is one of another.
    pub(super) fn id_of(&mut self, trace: &Trace, var: &Var) -> Option<ValueId> {
        let is_other = !Rc::ptr_eq(&trace.0, &var.trace.0);
        match var.id {
            // What came before there has no other way to be told.
            None if is_other => {
                let error = var.trace.error().map(|error| error.message);
                self.fail(error.unwrap_or_else(|| FOREIGN.into()));
            }
            _ if !self.owns(trace, var) => self.fail(FOREIGN.into()),
            None => self.fail(NOTHING.into()),
            id => return id,
        }
        None
    }

    /// Makes a handle of value `id`.
    pub(super) fn var(&self, trace: &Trace, id: ValueId, ty: Type) -> Var {
        Var { trace: trace.clone(), id: Some(id), recording: self.number, ty }
    }

    /// Makes a value that stands for nothing.
    pub(super) fn nothing(&self, trace: &Trace) -> Var {
        let ty = Type::new(Dtype::F32, []);
        Var { trace: trace.clone(), id: None, recording: self.number, ty }
    }

    /// Ends the recording: what it recorded is taken out, and its values are gone.
    pub(super) fn end(&mut self) -> Recorder {
        let number = self.number.wrapping_add(1);
        std::mem::replace(self, Recorder { number, ..Recorder::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::eager::Eager;
    use crate::ir::program::{Role, Slot};

    fn input(trace: &Trace) -> Var {
        trace.input_of::<f32>([2], &[1.0, 2.0])
    }

    fn eager() -> Trace {
        Trace::eager(Eager::new(1, Vec::new()))
    }

    #[test]
    fn a_value_of_another_recording_is_refused_wherever_it_enters() {
        let slot = |trace: &Trace| {
            let ty = Type::new(Dtype::F32, [2]);
            trace.slot(Slot { name: "w".into(), role: Role::Buffer, position: 0, index: 0, ty })
        };
        type Enter = fn(&Trace, &Var, &Var);
        let ways: [Enter; 7] = [
            |_, own, other| drop(own + other),
            |_, own, other| drop(other.trace().own(other + own)),
            |trace, _, other| drop(trace.apply(crate::ir::boundary::Enter, &[other])),
            |trace, own, other| trace.store(other, own),
            |trace, _, other| drop(trace.leave(other.into())),
            |trace, _, other| drop(trace.stored(other)),
            |trace, _, other| drop(trace.own(other.clone())),
        ];
        for (way, enter) in ways.iter().enumerate() {
            let (trace, there) = (eager(), eager());
            let (own, other, held) = (input(&trace), input(&there), slot(&there));
            enter(&trace, &own, if way == 3 { &held } else { &other });
            let error = trace.error().or_else(|| there.error());
            assert_eq!(error.map(|error| error.message).as_deref(), Some(FOREIGN), "way {way}");
        }
        let (trace, other) = (eager(), input(&eager()));
        assert_eq!(trace.finish(&[other]).unwrap_err().message, FOREIGN);
    }

    #[test]
    fn a_value_is_gone_when_its_recording_ends() {
        for is_paused in [false, true] {
            let end = |trace: &Trace| match is_paused {
                false => trace.finish(&[]).map(drop),
                true => trace.pause().map(drop),
            };
            let trace = eager();
            let (x, w) = (input(&trace), trace.rand(Dtype::F32, [2]));
            end(&trace).unwrap();
            assert!(x.node().is_none() && w.node().is_none() && x.read::<f32>().is_err());
            let y = trace.input(Type::new(Dtype::F32, [2]));
            assert!((&y + &x).id().is_none() && (&x + &y).id().is_none());
            assert_eq!(trace.error().unwrap().message, FOREIGN);
        }
    }

    #[test]
    fn an_index_that_no_value_has_is_an_error() {
        let trace = eager();
        let x = input(&trace);
        assert_eq!(trace.var(0).id(), x.id());
        assert!(trace.var(999_999).id().is_none());
        assert_eq!(
            trace.error().unwrap().message,
            "expected the index of one of 1 values, got 999999"
        );
    }

    #[test]
    fn nothing_is_no_output() {
        let trace = Trace::new();
        assert_eq!(trace.finish(&[trace.poison()]).unwrap_err().message, NOTHING);
    }
}
