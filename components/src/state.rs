//! [`StateDict`]: parameters and buffers by torch's names, on their way out of models and back in.

mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use ndarray::{ArrayD, ArrayView, Dimension, IxDyn};
use neurarch_kernels::ir::dtype::{Dtype, Element, bf16, f16};
use serde::{Deserialize, Serialize};

use crate::wire::{self, Bytes};

/// A named array, apart from any model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "TensorForm", into = "TensorForm")]
pub struct Tensor {
    /// torch's dotted name: `0.weight`.
    pub name: String,
    dtype: Dtype,
    /// Of a population's tensors the first axis counts models.
    shape: Vec<usize>,
    /// As many elements as the shape says, row-major and little-endian; shared by clones.
    bytes: Arc<[u8]>,
    /// Whether the shape is not known yet.
    uninitialized: bool,
}

/// What is written of a [`Tensor`].
#[derive(Serialize, Deserialize)]
struct TensorForm {
    name: String,
    #[serde(with = "wire")]
    dtype: Dtype,
    /// `None` if it is not known yet.
    shape: Option<Vec<usize>>,
    bytes: Bytes,
}

impl From<Tensor> for TensorForm {
    fn from(tensor: Tensor) -> Self {
        let Tensor { name, dtype, shape, bytes, uninitialized } = tensor;
        let shape = (!uninitialized).then_some(shape);
        TensorForm { name, dtype, shape, bytes: Bytes(bytes) }
    }
}

impl TryFrom<TensorForm> for Tensor {
    type Error = String;

    fn try_from(form: TensorForm) -> Result<Self, String> {
        let TensorForm { name, dtype, shape, bytes: Bytes(bytes) } = form;
        let uninitialized = shape.is_none();
        let shape = shape.unwrap_or_default();
        let size = shape.iter().try_fold(dtype.size_bytes(), |n, &size| n.checked_mul(size));
        let expected = if uninitialized { Some(0) } else { size };
        if expected != Some(bytes.len()) {
            let given = bytes.len();
            return Err(format!("{name}: {given} bytes are no tensor of shape {shape:?}"));
        }
        Ok(Tensor { name, dtype, shape, bytes, uninitialized })
    }
}

impl Tensor {
    /// Copies an array.
    pub fn new<T: Element, D: Dimension>(
        name: impl Into<String>,
        array: ArrayView<'_, T, D>,
    ) -> Self {
        let shape = array.shape().to_vec();
        let rows = array.as_standard_layout();
        let elements = rows.as_slice().unwrap_or_default();
        let bytes = bytemuck::cast_slice(elements).to_vec();
        Tensor::from_native(name.into(), T::DTYPE, shape, bytes)
    }

    /// Takes elements as this machine writes them.
    ///
    /// # Panics
    ///
    /// If there are not as many bytes as shape and type say.
    pub fn from_native(name: String, dtype: Dtype, shape: Vec<usize>, mut bytes: Vec<u8>) -> Self {
        swap_on_big_endian(&mut bytes, dtype);
        Tensor::from_little_endian(name, dtype, shape, bytes)
    }

    /// Takes elements as files have them.
    ///
    /// # Panics
    ///
    /// If there are not as many bytes as shape and type say.
    pub fn from_little_endian(
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: impl Into<Arc<[u8]>>,
    ) -> Self {
        let bytes = bytes.into();
        let expected = shape.iter().try_fold(dtype.size_bytes(), |n, &size| n.checked_mul(size));
        assert_eq!(Some(bytes.len()), expected, "as many bytes as the shape says");
        Tensor { name, dtype, shape, bytes, uninitialized: false }
    }

    /// Makes the entry of a parameter or buffer whose shape is not known yet.
    pub fn uninitialized(name: impl Into<String>, dtype: Dtype) -> Self {
        let (name, shape, bytes) = (name.into(), Vec::new(), Vec::new().into());
        Tensor { name, dtype, shape, bytes, uninitialized: true }
    }

    /// Returns the element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Returns the shape; of a population's tensors the first axis counts models.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns whether the shape is not known yet.
    pub fn is_uninitialized(&self) -> bool {
        self.uninitialized
    }

    /// Views the elements as files have them.
    pub fn little_endian(&self) -> &[u8] {
        &self.bytes
    }

    /// Copies the elements out as this machine writes them.
    pub fn to_native(&self) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        swap_on_big_endian(&mut bytes, self.dtype);
        bytes
    }

    /// Copies the elements out; `None` if they are not of type `T`.
    pub fn to_array<T: Element>(&self) -> Option<ArrayD<T>> {
        if self.dtype != T::DTYPE || self.uninitialized {
            return None;
        }
        let bytes = self.to_native();
        let elements = bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned);
        ArrayD::from_shape_vec(IxDyn(&self.shape), elements.collect()).ok()
    }

    /// Returns the same numbers as elements of another type, rounded to the nearest, or to an integer towards
    /// zero.
    ///
    /// Source: `torch.Tensor.to(dtype)`.
    #[must_use]
    pub fn cast(&self, dtype: Dtype) -> Tensor {
        if dtype == self.dtype || self.uninitialized {
            return Tensor { dtype, ..self.clone() };
        }
        let size_bytes = self.dtype.size_bytes();
        let mut bytes = Vec::with_capacity(self.bytes.len() / size_bytes * dtype.size_bytes());
        for element in self.bytes.chunks_exact(size_bytes) {
            write_number(read_number(element, self.dtype), dtype, &mut bytes);
        }
        let (name, shape) = (self.name.clone(), self.shape.clone());
        Tensor::from_little_endian(name, dtype, shape, bytes)
    }
}

/// Files are little-endian on every machine.
fn swap_on_big_endian(bytes: &mut [u8], dtype: Dtype) {
    if cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(dtype.size_bytes()).for_each(<[u8]>::reverse);
    }
}

/// Reads a little-endian element. An integer beyond 2⁵³ is rounded.
fn read_number(bytes: &[u8], dtype: Dtype) -> f64 {
    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        std::array::from_fn(|i| bytes[i])
    }
    match dtype {
        Dtype::F32 => f32::from_le_bytes(array(bytes)).into(),
        Dtype::F64 => f64::from_le_bytes(array(bytes)),
        Dtype::F16 => f16::from_le_bytes(array(bytes)).to_f64(),
        Dtype::BF16 => bf16::from_le_bytes(array(bytes)).to_f64(),
        Dtype::I64 => i64::from_le_bytes(array(bytes)) as f64,
        Dtype::Bool => f64::from(bytes[0] != 0),
    }
}

fn write_number(number: f64, dtype: Dtype, to: &mut Vec<u8>) {
    match dtype {
        Dtype::F32 => to.extend((number as f32).to_le_bytes()),
        Dtype::F64 => to.extend(number.to_le_bytes()),
        Dtype::F16 => to.extend(f16::from_f32(number as f32).to_le_bytes()),
        Dtype::BF16 => to.extend(bf16::from_f32(number as f32).to_le_bytes()),
        Dtype::I64 => to.extend((number as i64).to_le_bytes()),
        Dtype::Bool => to.push(u8::from(number != 0.0)),
    }
}

/// An ordered list of named tensors, with the version of each module that it came from.
///
/// It is a slice of [`Tensor`]s, in torch's order, and has a dictionary's methods besides.
///
/// # Example
///
/// ```
/// # use neurarch_components::state::*;
/// let weight = Tensor::new("old.weight", ndarray::array![[1.0_f32, 2.0]].view());
/// let mut state = StateDict::from_iter([weight]);
/// assert!(state.rename("old.weight", "0.weight"));
/// assert_eq!(state.keys().collect::<Vec<_>>(), ["0.weight"]);
/// assert_eq!(state.get("0.weight").unwrap().shape(), [1, 2]);
/// ```
///
/// Source: what `torch.nn.Module.state_dict` gives, its `_metadata` included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StateDict {
    /// The tensors, no two of one name.
    pub tensors: Vec<Tensor>,
    /// What is said of each module, by its path.
    pub metadata: Vec<(String, LocalMetadata)>,
}

/// What a state dict says of a module beside its tensors.
///
/// Source: the `local_metadata` of `torch.nn.Module._load_from_state_dict`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalMetadata {
    /// The version of its type, if it is known: [`Module::version`](crate::module::Module::version).
    pub version: Option<u32>,
    /// What the type, or a hook, says beside that, by name.
    pub entries: BTreeMap<String, String>,
}

/// Has a version and nothing else.
impl From<u32> for LocalMetadata {
    fn from(version: u32) -> Self {
        LocalMetadata { version: Some(version), entries: BTreeMap::new() }
    }
}

/// What who loads a module sees beside the state dict, and may add to.
#[derive(Debug)]
pub struct Loading<'a> {
    /// Always true, as in torch.
    pub strict: bool,
    /// What the modules so far have and the state dict lacks.
    pub missing_keys: &'a mut Vec<String>,
    /// What the state dict has and the modules so far lack.
    pub unexpected_keys: &'a mut Vec<String>,
    /// What is wrong beside that; if there is anything, loading fails in the end.
    pub error_msgs: &'a mut Vec<String>,
}

impl StateDict {
    /// Creates an empty one.
    pub fn new() -> Self {
        StateDict::default()
    }

    /// Lists the names in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|tensor| tensor.name.as_str())
    }

    /// Returns the tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Puts a tensor in the place of the one of its name, or at the end; gives the one that was there.
    pub fn insert(&mut self, tensor: Tensor) -> Option<Tensor> {
        match self.tensors.iter_mut().find(|known| known.name == tensor.name) {
            Some(known) => Some(std::mem::replace(known, tensor)),
            None => {
                self.tensors.push(tensor);
                None
            }
        }
    }

    /// Takes the tensor of that name out.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        let at = self.tensors.iter().position(|tensor| tensor.name == name)?;
        Some(self.tensors.remove(at))
    }

    /// Gives a tensor another name, by which it is the last; returns whether it was there.
    ///
    /// Source: `state[new] = state.pop(old)`.
    pub fn rename(&mut self, old: &str, new: impl Into<String>) -> bool {
        let Some(mut tensor) = self.remove(old) else { return false };
        tensor.name = new.into();
        self.insert(tensor);
        true
    }

    /// Returns the version of the module at a path, if it is known.
    pub fn version(&self, path: &str) -> Option<u32> {
        self.local_metadata(path)?.version
    }

    /// Returns what is said of the module at a path, if anything is.
    pub fn local_metadata(&self, path: &str) -> Option<&LocalMetadata> {
        self.metadata.iter().find(|(known, _)| known == path).map(|(_, local)| local)
    }
}

impl Deref for StateDict {
    type Target = [Tensor];

    fn deref(&self) -> &[Tensor] {
        &self.tensors
    }
}

impl FromIterator<Tensor> for StateDict {
    fn from_iter<I: IntoIterator<Item = Tensor>>(tensors: I) -> Self {
        StateDict { tensors: tensors.into_iter().collect(), metadata: Vec::new() }
    }
}

impl From<Vec<Tensor>> for StateDict {
    fn from(tensors: Vec<Tensor>) -> Self {
        StateDict { tensors, metadata: Vec::new() }
    }
}

impl IntoIterator for StateDict {
    type Item = Tensor;
    type IntoIter = std::vec::IntoIter<Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}

impl<'a> IntoIterator for &'a StateDict {
    type Item = &'a Tensor;
    type IntoIter = std::slice::Iter<'a, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.iter()
    }
}

/// What a model and a state dict do not have in common.
///
/// Source: what `torch.nn.Module.load_state_dict` gives, its printed form included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncompatibleKeys {
    /// What the model has and the state dict lacks.
    pub missing_keys: Vec<String>,
    /// What the state dict has and the model lacks.
    pub unexpected_keys: Vec<String>,
}

impl IncompatibleKeys {
    /// Returns whether all keys matched.
    pub fn is_empty(&self) -> bool {
        self.missing_keys.is_empty() && self.unexpected_keys.is_empty()
    }
}

impl fmt::Display for IncompatibleKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("<All keys matched successfully>");
        }
        let list = |keys: &[String]| {
            keys.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ")
        };
        let (missing, unexpected) = (list(&self.missing_keys), list(&self.unexpected_keys));
        write!(f, "_IncompatibleKeys(missing_keys=[{missing}], unexpected_keys=[{unexpected}])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_cast_as_torch_does() {
        let numbers = ndarray::array![0.0_f64, -1.75, 2.5, 1e-7, 65519.0, 65520.0, f64::NAN];
        let tensor = Tensor::new("t", numbers.view());
        let back = |dtype| tensor.cast(dtype).cast(Dtype::F64).to_array::<f64>().unwrap();
        // Checked by `torch.tensor(numbers, dtype=torch.float64).to(torch.float16).double()`.
        let halves = [0.0, -1.75, 2.5, 1.1920928955078125e-07, 65504.0, f64::INFINITY];
        assert_eq!(back(Dtype::F16).as_slice().unwrap()[..6], halves);
        assert!(back(Dtype::F16)[6].is_nan() && back(Dtype::BF16)[6].is_nan());
        assert_eq!(back(Dtype::BF16)[4], 65536.0);
        assert_eq!(back(Dtype::I64).as_slice().unwrap()[..4], [0.0, -1.0, 2.0, 0.0]);
        assert_eq!(back(Dtype::Bool).as_slice().unwrap()[..4], [0.0, 1.0, 1.0, 1.0]);
        let integers = Tensor::new("n", ndarray::array![1_i64 << 60].view());
        assert_eq!(integers.cast(Dtype::I64), integers);
    }

    #[test]
    fn incompatible_keys_print_as_in_torch() {
        let mut keys = IncompatibleKeys::default();
        assert_eq!(keys.to_string(), "<All keys matched successfully>");
        keys.unexpected_keys.push("extra".into());
        let printed = "_IncompatibleKeys(missing_keys=[], unexpected_keys=['extra'])";
        assert_eq!(keys.to_string(), printed);
    }
}
