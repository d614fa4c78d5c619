//! The numbers of tensors, read by `pytorch_reader` once their size is known.

use std::collections::HashMap;

use neurarch_components::state::Tensor;
use neurarch_kernels::ir::dtype::Dtype;
use pytorch_reader::{DType, PytorchReader};

use super::error::Fault;
use super::value::View;

/// A tensor that is to be read.
pub(super) struct Wanted<'a> {
    /// What it is to be called.
    pub name: String,
    /// Under which keys the file has it, with dots.
    pub path: String,
    pub view: &'a View,
}

/// How often the bytes of a file may be in tensors that overlap, or repeat one number by a stride of 0.
const OVERLAPS: u64 = 4;

/// Reads tensors, those that have the same elements of one storage once.
pub(super) fn read(
    reader: &PytorchReader,
    wanted: Vec<Wanted<'_>>,
    file_bytes: u64,
) -> Result<Vec<Tensor>, Fault> {
    let mut places: HashMap<&View, usize> = HashMap::new();
    let mut distinct = Vec::new();
    let mut bytes = 0_u64;
    for Wanted { name, path, view } in &wanted {
        let found = reader.get(path).filter(|found| found.shape() == view.shape);
        let missing = || Fault::Type {
            name: name.clone(),
            expected: "a tensor as the pickle describes it",
            found: "none".to_owned(),
        };
        let found = found.ok_or_else(missing)?;
        let unknown = || Fault::Dtype { name: name.clone(), found: format!("{:?}", found.dtype()) };
        let dtype = dtype_from(found.dtype()).ok_or_else(unknown)?;
        places.entry(view).or_insert_with(|| {
            bytes = bytes.saturating_add(found.byte_len() as u64);
            distinct.push((found, dtype));
            distinct.len() - 1
        });
    }
    let most = file_bytes.saturating_mul(OVERLAPS);
    if bytes > most {
        return Err(Fault::TooLarge { bytes, most });
    }
    let read = distinct.into_iter().map(|(found, dtype)| {
        let numbers = found.read()?;
        if numbers.len() != found.byte_len() {
            let (expected, found) = (found.byte_len(), numbers.len());
            return Err(Fault::Io(std::io::Error::other(format!(
                "expected {expected} bytes, got {found}"
            ))));
        }
        Ok(Tensor::from_native(String::new(), dtype, found.shape().to_vec(), numbers))
    });
    let read = read.collect::<Result<Vec<_>, _>>()?;
    let named = wanted.into_iter().map(|of| {
        let mut tensor = read[places[of.view]].clone();
        tensor.name = of.name;
        tensor
    });
    Ok(named.collect())
}

fn dtype_from(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::Bool => Dtype::Bool,
        _ => return None,
    })
}
