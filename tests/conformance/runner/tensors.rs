//! Tensors of a group, by their keys.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::ArrayD;
use neurarch::kernels::ir::dtype::{Dtype, Element};
use neurarch::state::safetensors::{SafetensorsError, Tensor, read};

use crate::runner::case::{Checked, Stop};

/// All tensors of a group.
pub struct Tensors(BTreeMap<String, Tensor>);

impl Tensors {
    /// Reads a file; a group without tensors may have none.
    pub fn read(path: &Path) -> Result<Self, SafetensorsError> {
        if !path.exists() {
            return Ok(Tensors(BTreeMap::new()));
        }
        let tensors = read(path)?.into_iter();
        Ok(Tensors(tensors.map(|tensor| (tensor.name.clone(), tensor)).collect()))
    }

    /// Gives a tensor.
    pub fn get(&self, key: &str) -> Option<&Tensor> {
        self.0.get(key)
    }

    /// Lists those whose keys begin so, each with the rest of its key.
    pub fn below(&self, start: &str) -> Vec<(&str, &Tensor)> {
        let from = self.0.range(start.to_owned()..);
        let below = from.map_while(|(key, tensor)| Some((key.strip_prefix(start)?, tensor)));
        below.collect()
    }
}

/// Copies a tensor whose elements are `T`.
pub fn array<T: Element>(tensor: &Tensor) -> Checked<ArrayD<T>> {
    tensor.to_array().ok_or_else(|| {
        let (name, expected, found) = (&tensor.name, T::DTYPE, tensor.dtype());
        Stop::Differs(format!("{name}: expected elements of {expected}, found {found}"))
    })
}

/// Copies a tensor of any element type, as the nearest f64.
pub fn numbers(tensor: &Tensor) -> Checked<ArrayD<f64>> {
    Ok(match tensor.dtype() {
        Dtype::F64 => array::<f64>(tensor)?,
        Dtype::F32 => array::<f32>(tensor)?.mapv(f64::from),
        Dtype::I64 => array::<i64>(tensor)?.mapv(|number| number as f64),
        Dtype::Bool => array::<u8>(tensor)?.mapv(f64::from),
        other => return Err(Stop::Needs(format!("needs tensors of {other}"))),
    })
}
