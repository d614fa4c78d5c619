//! Ops over values of several floating-point types: what they promote to, what halves are computed in, and what
//! autocast makes of them.
//!
//! Everything is decided here, while recording, and leaves `to` ops in the program: kernels see single or double
//! precision. So `forward` finds the types that it will run in, eager and planned passes record the same, and
//! gradients follow from those of `to`.

use std::sync::Arc;

use super::{Trace, Var};
use crate::ir::autocast::Autocast;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Mixing, Op};
use crate::ir::program::{Function, Origin, Role, Scope};

/// What a function gives: one value, or several.
pub trait Results {
    /// Replaces each value.
    #[must_use]
    fn map(self, change: &mut dyn FnMut(Var) -> Var) -> Self;
}

impl Results for Var {
    fn map(self, change: &mut dyn FnMut(Var) -> Var) -> Self {
        change(self)
    }
}

impl Results for Vec<Var> {
    fn map(self, change: &mut dyn FnMut(Var) -> Var) -> Self {
        self.into_iter().map(change).collect()
    }
}

impl<const N: usize> Results for [Var; N] {
    fn map(self, change: &mut dyn FnMut(Var) -> Var) -> Self {
        self.map(change)
    }
}

/// What becomes of the inputs of an op, and of its results.
#[derive(Clone, Copy, Default)]
struct Casts {
    /// What autocast casts inputs to, those of double precision aside.
    autocast: Option<Dtype>,
    /// What all inputs are computed in.
    compute: Option<Dtype>,
    /// What floating-point results are rounded to.
    result: Option<Dtype>,
}

impl Trace {
    /// Says whether what is recorded now runs under autocast.
    pub fn is_autocast(&self) -> bool {
        self.0.borrow().autocast.is_some()
    }

    /// Records what `run` records with autocast, or without it if there is none: the inputs of each op, and of each
    /// [`function`](Trace::function), are cast as torch's lists say. A parameter is cast once.
    ///
    /// # Example
    ///
    /// ```
    /// use neurarch_kernels::ir::autocast::Autocast;
    /// use neurarch_kernels::ir::device::Device;
    /// use neurarch_kernels::ir::dtype::Dtype;
    /// use neurarch_kernels::ops::reduction::reduce::Reduction;
    /// use neurarch_kernels::ir::trace::Trace;
    /// use neurarch_kernels::ir::shape::Type;
    ///
    /// let trace = Trace::new();
    /// let [x, weight, target] = [[4, 3], [2, 3], [4, 2]].map(|shape| trace.input(Type::new(Dtype::F32, shape)));
    /// let (y, loss) = trace.autocast(Autocast::new(Device::Cpu, Dtype::BF16), || {
    ///     let y = x.linear(&weight, None).relu();
    ///     (y.clone(), y.mse_loss(&target, Reduction::Mean))
    /// });
    /// assert_eq!((y.dtype(), loss.dtype()), (Dtype::BF16, Dtype::F32));
    /// ```
    ///
    /// Source: `torch.autocast`.
    pub fn autocast<R>(&self, autocast: Option<Autocast>, run: impl FnOnce() -> R) -> R {
        let before = std::mem::replace(&mut self.0.borrow_mut().autocast, autocast);
        let result = run();
        self.0.borrow_mut().autocast = before;
        result
    }

    /// Records one of torch's functions that is made of several ops. `run` is given what casts each input; what it
    /// records runs without autocast, and where an input is of half precision in single precision.
    ///
    /// `inputs` are all values that the function is called with, but for numbers.
    pub fn function<R: Results>(
        &self,
        function: Function,
        inputs: &[Option<&Var>],
        run: impl FnOnce(&dyn Fn(&Var) -> Var) -> R,
    ) -> R {
        let given: Vec<&Var> = inputs.iter().copied().flatten().collect();
        if !self.is_mixed(function.mixing, &given) && self.0.borrow().eager.is_some() {
            // Nobody will look for the function in this record.
            return run(&Var::clone);
        }
        self.open_function(function);
        let casts = match self.casts(function.name, function.mixing, &given) {
            Ok(casts) => casts,
            Err(message) => {
                self.fail(message);
                Casts::default()
            }
        };
        let result = self.autocast(None, || run(&|input| self.cast(input, casts)));
        let result = match casts.result {
            Some(dtype) => result.map(&mut |var| rounded(var, dtype)),
            None => result,
        };
        self.0.borrow_mut().open.pop();
        result
    }

    /// Records an op over values that [`is_mixed`](Trace::is_mixed) says have to be looked at.
    pub(super) fn apply_mixed(
        &self,
        op: Arc<dyn Op>,
        inputs: &[&Var],
        n_outputs: usize,
    ) -> Vec<Var> {
        let casts = match self.casts(op.name(), op.mixing(), inputs) {
            Ok(casts) => casts,
            // The op says itself what it expected.
            Err(_) if op.mixing() == Mixing::Same => return self.record(op, inputs, n_outputs),
            Err(message) => {
                self.fail(message);
                return vec![self.poison(); n_outputs];
            }
        };
        let cast: Vec<_> = inputs.iter().map(|input| self.cast(input, casts)).collect();
        let outputs = self.record(op, &cast.iter().collect::<Vec<_>>(), n_outputs);
        match casts.result {
            Some(dtype) => outputs.map(&mut |var| rounded(var, dtype)),
            None => outputs,
        }
    }

    /// Says whether an op over these values, which takes them so, has to be looked at.
    pub(super) fn is_mixed(&self, mixing: Mixing, inputs: &[&Var]) -> bool {
        if mixing == Mixing::Untouched {
            return false;
        }
        let has = |is: fn(Dtype) -> bool| inputs.iter().any(|input| is(input.dtype()));
        let has_both = || has(|dtype| dtype == Dtype::F32) && has(|dtype| dtype == Dtype::F64);
        has(Dtype::is_half) || mixing == Mixing::Arithmetic && has_both() || self.is_autocast()
    }

    /// Decides what a function's inputs are cast to.
    fn casts(&self, name: &str, mixing: Mixing, inputs: &[&Var]) -> Result<Casts, String> {
        let is_value = |input: &&&Var| input.dtype().is_float() && !self.is_number(input);
        let values: Vec<&Var> = inputs.iter().filter(is_value).copied().collect();
        let autocast = self.0.borrow().autocast;
        let eligible = values.iter().map(|x| x.dtype()).filter(|dtype| *dtype != Dtype::F64);
        let target = match autocast {
            Some(autocast) => autocast.target(name, eligible)?,
            None => None,
        };
        let of = |x: &Var| target.filter(|_| x.dtype() != Dtype::F64).unwrap_or(x.dtype());
        let dtypes: Vec<Dtype> = values.iter().map(|x| of(x)).collect();
        let mut casts = Casts { autocast: target, ..Casts::default() };
        let Some(&first) = dtypes.first() else { return Ok(casts) };
        let is_even = dtypes.iter().all(|dtype| *dtype == first);
        let is_taken = matches!(mixing, Mixing::Promoted | Mixing::First);
        if (is_even || is_taken) && !dtypes.iter().any(|dtype| dtype.is_half()) {
            return Ok(casts);
        }
        let result = match mixing {
            Mixing::First => first,
            Mixing::Untouched => return Ok(casts),
            Mixing::Same => match dtypes.iter().find(|dtype| **dtype != first) {
                Some(other) => {
                    return Err(format!("expected scalar type {first} but found {other}"));
                }
                None => first,
            },
            Mixing::Promoted | Mixing::Arithmetic => {
                // A single number has no say where there are arrays.
                let is_array = |x: &Var| x.shape().rank() > 0;
                let has_arrays = values.iter().any(|x| is_array(x));
                let all = values.iter().zip(&dtypes).filter(|(x, _)| is_array(x) || !has_arrays);
                let all = all.map(|(_, dtype)| *dtype);
                all.reduce(Dtype::promoted).unwrap_or(first)
            }
        };
        casts.compute = Some(match result {
            Dtype::F64 => Dtype::F64,
            _ => Dtype::F32,
        });
        casts.result = Some(result).filter(|dtype| casts.compute != Some(*dtype));
        Ok(casts)
    }

    fn cast(&self, input: &Var, casts: Casts) -> Var {
        if !input.dtype().is_float() {
            return input.clone();
        }
        let is_eligible = input.dtype() != Dtype::F64 && !self.is_number(input);
        let input = match casts.autocast.filter(|_| is_eligible) {
            Some(dtype) => self.cast_once(input, dtype),
            None => input.clone(),
        };
        match casts.compute {
            // Rates of optimizers are doubles whatever the parameters are.
            Some(Dtype::F32) if input.dtype() == Dtype::F64 && self.is_number(&input) => input,
            Some(dtype) => input.to(dtype),
            None => input,
        }
    }

    /// Casts a value for autocast: a parameter that was cast before is the same value.
    fn cast_once(&self, input: &Var, dtype: Dtype) -> Var {
        let is_parameter = || match self.origin(input) {
            Some(Origin::Slot(slot)) => self.program().slots[slot].role == Role::Parameter,
            _ => false,
        };
        let Some(id) = input.id.filter(|_| input.dtype() != dtype) else { return input.clone() };
        if !is_parameter() {
            return input.to(dtype);
        }
        let known = self.0.borrow().casts.get(&(id, dtype)).copied();
        if let Some(known) = known {
            return self.var(known);
        }
        let cast = input.to(dtype);
        if let Some(made) = cast.id {
            self.0.borrow_mut().casts.insert((id, dtype), made);
        }
        cast
    }

    /// Says whether a value is a number of Python's, which has no say in what values promote to.
    fn is_number(&self, var: &Var) -> bool {
        let is_number =
            || matches!(self.origin(var), Some(Origin::Scalar(_) | Origin::Constant(_)));
        var.shape().rank() == 0 && is_number()
    }

    /// Opens a scope that is the open call's, but for the function. What a function calls is its own.
    fn open_function(&self, function: Function) {
        let mut recorder = self.0.borrow_mut();
        recorder.open_outside();
        let outer = recorder.open.last().copied().unwrap_or(0);
        if recorder.program.scopes[outer].function.is_some() {
            recorder.open.push(outer);
            return;
        }
        let scope = Scope { function: Some(function), ..recorder.program.scopes[outer].clone() };
        recorder.program.scopes.push(scope);
        let scope = recorder.program.scopes.len() - 1;
        recorder.open.push(scope);
    }
}

fn rounded(var: Var, dtype: Dtype) -> Var {
    if var.dtype().is_float() { var.to(dtype) } else { var }
}
