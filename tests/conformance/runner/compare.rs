//! Comparing what came with what PyTorch gave.

use ndarray::{ArrayD, Dimension};
use neurarch::kernels::ir::dtype::Element;
use neurarch::state::safetensors::Tensor;
use serde_json::Value;

use crate::runner::case::{Checked, Stop};
use crate::runner::tensors::numbers;

/// How far a number may be from the expected one: `|got - want| <= atol + rtol * |want|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    pub rtol: f64,
    pub atol: f64,
}

impl Tolerance {
    /// Numbers in JSON, unless something else is said.
    pub const JSON: Tolerance = Tolerance { rtol: 1e-6, atol: 0.0 };
    /// Sums of the tensors that hooks see.
    pub const SUM: Tolerance = Tolerance { rtol: 1e-6, atol: 1e-8 };

    /// Reads a tolerance; what is absent is the format's for the dtype.
    pub fn of(json: &Value, dtype: &str) -> Self {
        let (rtol, atol) = if dtype == "f64" { (1e-9, 1e-10) } else { (1e-4, 1e-5) };
        let number =
            |name: &str, default| json.get(name).and_then(Value::as_f64).unwrap_or(default);
        Tolerance { rtol: number("rtol", rtol), atol: number("atol", atol) }
    }

    /// Says whether a number is as expected. NaN is NaN, and an infinity itself.
    pub fn allows(self, got: f64, want: f64) -> bool {
        got == want
            || (got.is_nan() && want.is_nan())
            || (want.is_finite() && (got - want).abs() <= self.atol + self.rtol * want.abs())
    }
}

/// Compares an array with a tensor of the case; integers have to be equal.
pub fn array<T: Element>(
    what: &str,
    got: &ArrayD<T>,
    want: &Tensor,
    tolerance: Tolerance,
) -> Checked {
    if T::DTYPE != want.dtype() {
        let (expected, found) = (want.dtype(), T::DTYPE);
        return Err(Stop::Differs(format!("{what}: expected dtype {expected}, got {found}")));
    }
    tensor(what, &Tensor::new("", got.view()), want, tolerance)
}

/// Compares two tensors; integers and flags have to be equal.
pub fn tensor(what: &str, got: &Tensor, want: &Tensor, tolerance: Tolerance) -> Checked {
    let differs = |text: String| Err(Stop::Differs(format!("{what}: {text}")));
    if got.shape() != want.shape() {
        return differs(format!("expected shape {:?}, got {:?}", want.shape(), got.shape()));
    }
    if got.dtype() != want.dtype() {
        return differs(format!("expected dtype {}, got {}", want.dtype(), got.dtype()));
    }
    let exact = Tolerance { rtol: 0.0, atol: 0.0 };
    let tolerance = if want.dtype().is_float() { tolerance } else { exact };
    let (got, want) = (numbers(got)?, numbers(want)?);
    for ((place, &want), &got) in want.indexed_iter().zip(&got) {
        if !tolerance.allows(got, want) {
            return differs(format!("at {:?}: expected {want}, got {got}", place.slice()));
        }
    }
    Ok(())
}

/// Compares values that have to be equal.
pub fn equal<T: PartialEq + std::fmt::Debug + ?Sized>(what: &str, got: &T, want: &T) -> Checked {
    match got == want {
        true => Ok(()),
        false => Err(Stop::Differs(format!("{what}: expected {want:?}, got {got:?}"))),
    }
}

/// Compares JSON values, numbers within tolerance.
pub fn json(what: &str, got: &Value, want: &Value) -> Checked {
    match is_like(got, want, Tolerance::JSON) {
        true => Ok(()),
        false => Err(Stop::Differs(format!("{what}: expected {want}, got {got}"))),
    }
}

fn is_like(got: &Value, want: &Value, tolerance: Tolerance) -> bool {
    match (got, want) {
        (Value::Number(got), Value::Number(want)) => match (got.as_f64(), want.as_f64()) {
            (Some(got), Some(want)) => tolerance.allows(got, want),
            _ => false,
        },
        (Value::Array(got), Value::Array(want)) => {
            got.len() == want.len()
                && got.iter().zip(want).all(|(got, want)| is_like(got, want, tolerance))
        }
        (Value::Object(got), Value::Object(want)) => {
            got.len() == want.len()
                && want.iter().all(|(name, want)| {
                    let tolerance = if name == "sum" { Tolerance::SUM } else { tolerance };
                    got.get(name).is_some_and(|got| is_like(got, want, tolerance))
                })
        }
        _ => got == want,
    }
}

/// Compares a log with the expected one, event after event.
pub fn events(got: &[Value], want: &[Value]) -> Checked {
    for (number, want) in want.iter().enumerate() {
        let nothing = Value::from("nothing");
        json(&format!("event {number}"), got.get(number).unwrap_or(&nothing), want)?;
    }
    match got.get(want.len()) {
        Some(more) => {
            Err(Stop::Differs(format!("event {}: expected nothing, got {more}", want.len())))
        }
        None => Ok(()),
    }
}
