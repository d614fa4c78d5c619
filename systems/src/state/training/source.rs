//! [`Source`]: the tensors of a training state, as they are read.

use std::cell::RefCell;
use std::collections::BTreeSet;

use neurarch_components::state::Tensor;
use neurarch_kernels::ir::dtype::{Dtype, Element};

use super::error::TrainingStateError;

/// The tensors of a training state, and which of them were read.
pub(super) struct Source<'a> {
    pub(super) tensors: &'a [Tensor],
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Source<'a> {
    pub(super) fn new(tensors: &'a [Tensor]) -> Self {
        Source { tensors, read: RefCell::default() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.iter().any(|tensor| tensor.name == name)
    }

    pub(super) fn tensor(&self, name: &str) -> Result<&'a Tensor, TrainingStateError> {
        self.read.borrow_mut().insert(name.to_owned());
        let found = self.tensors.iter().find(|tensor| tensor.name == name);
        found.ok_or_else(|| TrainingStateError::Missing(name.to_owned()))
    }

    /// Reads one number of any type.
    pub(super) fn number(&self, name: &str) -> Result<f64, TrainingStateError> {
        let number = self.tensor(name)?.cast(Dtype::F64).to_array::<f64>();
        let number = number.and_then(|array| array.first().copied());
        number.ok_or_else(|| TrainingStateError::Missing(name.to_owned()))
    }

    /// Reads the elements of a tensor of that type and shape, as this machine writes them.
    pub(super) fn bytes(
        &self,
        name: &str,
        expected: Dtype,
        shape: &[usize],
    ) -> Result<Vec<u8>, TrainingStateError> {
        let tensor = self.tensor(name)?;
        if tensor.dtype() != expected || tensor.shape() != shape {
            let (name, shape) = (name.to_owned(), shape.to_vec());
            let (given, given_shape) = (tensor.dtype(), tensor.shape().to_vec());
            return Err(TrainingStateError::Type { name, expected, shape, given, given_shape });
        }
        Ok(tensor.to_native())
    }

    /// [`bytes`](Source::bytes) as numbers.
    pub(super) fn array<T: Element>(
        &self,
        name: &str,
        shape: &[usize],
    ) -> Result<Vec<T>, TrainingStateError> {
        Ok(bytemuck::pod_collect_to_vec(&self.bytes(name, T::DTYPE, shape)?))
    }

    /// Refuses tensors that nobody read, of these and of `others`.
    pub(super) fn check_all_read(&self, others: &[Tensor]) -> Result<(), TrainingStateError> {
        let read = self.read.borrow();
        let mut unread = self.tensors.iter().filter(|tensor| !read.contains(&tensor.name));
        match unread.next().or(others.first()) {
            Some(tensor) => Err(TrainingStateError::Unexpected(tensor.name.clone())),
            None => Ok(()),
        }
    }
}
