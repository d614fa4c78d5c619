//! What distribution a parameter can have.

use neurarch_components::module::Init;
use neurarch_kernels::ir::program::Slot;

use crate::errors::InitError;

/// Refuses a distribution that a parameter cannot have.
pub(crate) fn check(name: &str, slot: &Slot, init: &Init) -> Result<(), InitError> {
    let (shape, dtype) = (&slot.ty.shape, slot.ty.dtype);
    let name = || name.to_owned();
    let dimensions =
        |supported| InitError::Dimensions { name: name(), supported, shape: shape.clone() };
    let is_ordered = |low: f64, high: f64| low <= high;
    if init.is_random() && !dtype.is_float() {
        return Err(InitError::Dtype { name: name(), dtype });
    }
    match *init {
        Init::Eye | Init::Sparse { .. } | Init::NormalRows { .. } if shape.len() != 2 => {
            return Err(dimensions("2"));
        }
        Init::Orthogonal { .. } if shape.len() < 2 => return Err(dimensions("2 or more")),
        Init::Dirac { .. } if !(3..=5).contains(&shape.len()) => {
            return Err(dimensions("3, 4, or 5"));
        }
        Init::Dirac { groups } if groups == 0 || shape[0] % groups != 0 => {
            return Err(InitError::Groups { name: name(), shape: shape.clone(), groups });
        }
        Init::Sparse { sparsity, .. } if !(0.0..=1.0).contains(&sparsity) => {
            return Err(InitError::Sparsity { name: name(), sparsity });
        }
        Init::Uniform { low, high } if !is_ordered(low, high) || !(high - low).is_finite() => {
            return Err(InitError::Range { name: name(), low, high });
        }
        Init::TruncatedNormal { low, high, .. } if !is_ordered(low, high) => {
            return Err(InitError::Range { name: name(), low, high });
        }
        _ => {}
    }
    match *init {
        Init::Normal { std, .. } | Init::TruncatedNormal { std, .. } | Init::Sparse { std, .. }
            if !is_ordered(0.0, std) =>
        {
            Err(InitError::Std { name: name(), std })
        }
        _ => Ok(()),
    }
}
