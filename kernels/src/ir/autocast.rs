//! Autocast: which functions run in which precision. [`Trace::autocast`](crate::ir::trace::Trace::autocast)
//! applies it while a `forward` records, [`passes::autocast`](mod@crate::passes::autocast) to a program that is there.

mod lists;

use core::fmt;

use crate::ir::device::Device;
use crate::ir::dtype::Dtype;
use lists::{
    CPU_FP32, CPU_LOWER_PRECISION, CPU_WIDEST, CUDA_ERROR, CUDA_FP32, CUDA_LOWER_PRECISION,
    CUDA_WIDEST,
};

/// In which precision a function runs under autocast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Its inputs are cast to the precision of autocast.
    LowerPrecision,
    /// Its inputs are cast to single precision.
    Fp32,
    /// Its inputs are cast to the widest of their types.
    Widest,
    /// It refuses to run.
    Error,
}

/// As the recorded tables name it: `lower_precision`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Policy::LowerPrecision => "lower_precision",
            Policy::Fp32 => "fp32",
            Policy::Widest => "widest",
            Policy::Error => "error",
        })
    }
}

/// What autocast does: whose lists it follows, and to which precision it lowers.
///
/// Values of double precision are left alone, as torch leaves them.
///
/// # Example
///
/// ```
/// use neurarch_kernels::ir::autocast::{Autocast, Policy};
/// use neurarch_kernels::ir::device::Device;
/// use neurarch_kernels::ir::dtype::Dtype;
///
/// let autocast = Autocast::new(Device::Cpu, Dtype::BF16).expect("bf16 is a lower precision");
/// assert_eq!(autocast.policy("linear"), Some(Policy::LowerPrecision));
/// assert_eq!(autocast.policy("mse_loss"), Some(Policy::Fp32));
/// assert_eq!(autocast.policy("relu"), None);
/// ```
///
/// Source: `torch.autocast`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Autocast {
    device: Device,
    dtype: Dtype,
}

impl Autocast {
    /// Chooses lists and precision; `None` if `dtype` is not one of the two halves.
    ///
    /// Source: `torch.autocast`, which warns then, and does nothing.
    pub fn new(device: Device, dtype: Dtype) -> Option<Self> {
        dtype.is_half().then_some(Autocast { device, dtype })
    }

    /// Gives the kind of device whose lists are followed.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Gives the lower precision.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Gives the list that torch's function `name` is in; `None` if it runs in the types of its inputs.
    pub fn policy(&self, name: &str) -> Option<Policy> {
        let lists: [(&[&str], Policy); 4] = match self.device {
            Device::Cpu => [
                (CPU_LOWER_PRECISION, Policy::LowerPrecision),
                (CPU_FP32, Policy::Fp32),
                (CPU_WIDEST, Policy::Widest),
                (&[], Policy::Error),
            ],
            Device::Cuda(_) => [
                (CUDA_LOWER_PRECISION, Policy::LowerPrecision),
                (CUDA_FP32, Policy::Fp32),
                (CUDA_WIDEST, Policy::Widest),
                (CUDA_ERROR, Policy::Error),
            ],
        };
        let found = lists.into_iter().find(|(list, _)| list.binary_search(&name).is_ok());
        found.map(|(_, policy)| policy)
    }

    /// Gives the type that inputs of these types are cast to, those of double precision aside; `None` if they stay.
    ///
    /// # Errors
    ///
    /// In torch's words, if the function refuses to run, or to find the widest of its types.
    pub(crate) fn target(
        &self,
        name: &str,
        dtypes: impl Iterator<Item = Dtype>,
    ) -> Result<Option<Dtype>, String> {
        Ok(match self.policy(name) {
            None => None,
            Some(Policy::LowerPrecision) => Some(self.dtype),
            Some(Policy::Fp32) => Some(Dtype::F32),
            Some(Policy::Widest) => Some(self.widest(dtypes)?),
            Some(Policy::Error) => return Err(UNSAFE.to_owned()),
        })
    }

    /// Goes from the lower precision up: only it and single precision are known here.
    fn widest(&self, mut dtypes: impl Iterator<Item = Dtype>) -> Result<Dtype, String> {
        dtypes.try_fold(self.dtype, |widest, dtype| match dtype {
            _ if widest == Dtype::F32 => Ok(widest),
            Dtype::F32 => Ok(dtype),
            _ if dtype == self.dtype => Ok(widest),
            _ => Err("Unexpected floating ScalarType in at::autocast::prioritize".to_owned()),
        })
    }
}

/// What torch says of the one function that is in the list of those that refuse.
const UNSAFE: &str = "torch.nn.functional.binary_cross_entropy and torch.nn.BCELoss are unsafe to autocast.\n\
    Many models use a sigmoid layer right before the binary cross entropy layer.\n\
    In this case, combine the two layers using torch.nn.functional.binary_cross_entropy_with_logits\n\
    or torch.nn.BCEWithLogitsLoss.  binary_cross_entropy_with_logits and BCEWithLogits are\n\
    safe to autocast.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_apart() {
        for lists in [
            &[CPU_LOWER_PRECISION, CPU_FP32, CPU_WIDEST][..],
            &[CUDA_LOWER_PRECISION, CUDA_FP32, CUDA_WIDEST, CUDA_ERROR],
        ] {
            let mut all = Vec::new();
            for list in lists {
                assert!(list.is_sorted());
                all.extend_from_slice(list);
            }
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), count, "a function is in one list");
        }
    }

    #[test]
    fn the_widest_is_found_from_the_lower_precision_up() {
        let of = |dtypes: &[Dtype]| {
            let autocast = Autocast::new(Device::Cpu, Dtype::BF16).expect("a half");
            autocast.target("cat", dtypes.iter().copied()).ok().flatten()
        };
        assert_eq!(of(&[Dtype::BF16, Dtype::BF16]), Some(Dtype::BF16));
        assert_eq!(of(&[Dtype::BF16, Dtype::F32, Dtype::F16]), Some(Dtype::F32));
        assert_eq!(of(&[Dtype::F16, Dtype::F32]), None, "refused before the f32 is seen");
    }

    #[test]
    fn only_halves_are_lower_precisions() {
        assert_eq!(Autocast::new(Device::Cpu, Dtype::F32), None);
        assert!(Autocast::new(Device::Cuda(0), Dtype::F16).is_some());
    }
}
