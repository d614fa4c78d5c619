//! [`LossArrays`]: the arrays of a loss, such as its weights, as plans read them.

use ndarray::ArrayViewD;
use neurarch_components::losses::DynLoss;
use neurarch_kernels::ir::dtype::{Dtype, bf16, f16};
use neurarch_kernels::memory::AlignedBytes;

use crate::storage::launch::Read;

/// The arrays of the loss that was used last, in the dtype of the models.
#[derive(Default)]
pub(crate) struct LossArrays {
    loss: Option<Box<dyn DynLoss>>,
    dtype: Option<Dtype>,
    arrays: Vec<AlignedBytes>,
}

impl LossArrays {
    /// Converts the arrays of `loss`, unless they are those that are here.
    pub(crate) fn refresh(&mut self, loss: &dyn DynLoss, dtype: Dtype) {
        let is_known = self.loss.as_ref().is_some_and(|known| known.equals(loss));
        if is_known && self.dtype == Some(dtype) {
            return;
        }
        let convert = |(_, array): (_, ArrayViewD<'_, f64>)| {
            let mut bytes = AlignedBytes::new(array.len() * dtype.size_bytes());
            let elements = bytes.bytes_mut().chunks_exact_mut(dtype.size_bytes());
            for (element, &number) in elements.zip(&array) {
                match dtype {
                    Dtype::F64 => element.copy_from_slice(&number.to_ne_bytes()),
                    Dtype::F16 => {
                        element.copy_from_slice(&f16::from_f32(number as f32).to_ne_bytes());
                    }
                    Dtype::BF16 => {
                        element.copy_from_slice(&bf16::from_f32(number as f32).to_ne_bytes());
                    }
                    _ => element.copy_from_slice(&(number as f32).to_ne_bytes()),
                }
            }
            bytes
        };
        self.arrays = loss.arrays().into_iter().map(convert).collect();
        (self.loss, self.dtype) = (Some(loss.clone_box()), Some(dtype));
    }

    /// Lists the numbers of the arrays.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.arrays.iter().map(AlignedBytes::bytes)
    }

    /// Lists the arrays as all models read them.
    pub(crate) fn reads(&self) -> impl Iterator<Item = Read<'_>> {
        self.arrays.iter().map(|array| Read::new(array.bytes(), 0))
    }
}
