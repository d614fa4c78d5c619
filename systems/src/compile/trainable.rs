//! [`Parameter`]: a parameter as a program meets it.

use neurarch_kernels::ir::program::Slot;

/// A parameter as a program meets it.
pub(crate) struct Parameter {
    /// Its number in the order of `named_parameters()`.
    pub(crate) number: usize,
    pub(crate) slot: Slot,
}
