//! [`Updates`]: what the updates of models that run eagerly read.

use neurarch_kernels::ir::program::{Scalar, Slot};

/// What the updates of a cohort read beside parameters and gradients: states of optimizers, and scalars.
pub(crate) struct Updates {
    pub(crate) slots: Vec<Slot>,
    pub(crate) scalars: Vec<Scalar>,
}
