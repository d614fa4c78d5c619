//! Parameters as [safetensors](https://huggingface.co/docs/safetensors), in torch's names and layouts.
//!
//! A file of one model is what `safetensors.torch.load_file` turns into a `state_dict` that
//! `load_state_dict` takes as it is; a file of a population has the same names, each tensor with the
//! models as its first axis, as `torch.func.stack_module_state` makes them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use neurarch_components::module::blueprint::UNINITIALIZED;
pub use neurarch_components::state::Tensor;
use neurarch_kernels::ir::dtype::Dtype;
use safetensors::tensor::TensorView;
use safetensors::{SafeTensorError, SafeTensors};

use super::file::NewFile;

/// A file of tensors could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// The system refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no safetensors file, or the tensors make none.
    #[error("{}: {source}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SafeTensorError,
    },
    /// A tensor has no shape yet; torch's words.
    #[error("{}: {name}: {UNINITIALIZED}", .path.display())]
    Uninitialized {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// The file has an element type that neurarch does not know.
    #[error("{}: {name} has element type {found}, expected F32, F64, F16, BF16, I64 or BOOL", .path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Its element type as the file spells it.
        found: String,
    },
}

/// Writes tensors to a temporary file beside `path`; [`NewFile::commit`] gives it its name.
///
/// # Errors
///
/// [`SafetensorsError::Io`] if the folder or disk refuses, [`SafetensorsError::Format`] if the names
/// fill more than the format's 100 MB. Nothing is left behind then.
pub fn write<'a>(
    path: impl Into<PathBuf>,
    tensors: impl IntoIterator<Item = &'a Tensor>,
) -> Result<NewFile, SafetensorsError> {
    let path = path.into();
    let tensors: Vec<_> = tensors.into_iter().collect();
    if let Some(tensor) = tensors.iter().find(|tensor| tensor.is_uninitialized()) {
        return Err(SafetensorsError::Uninitialized { path, name: tensor.name.clone() });
    }
    let views = tensors
        .into_iter()
        .map(|t| {
            Ok((
                &t.name,
                TensorView::new(dtype_of(t.dtype()), t.shape().to_vec(), t.little_endian())?,
            ))
        })
        .collect::<Result<Vec<_>, _>>();
    // What `safetensors.torch.save_file` writes; some readers refuse a file without it.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let bytes = views
        .and_then(|views| safetensors::serialize(views, Some(metadata)))
        .map_err(|source| SafetensorsError::Format { path: path.clone(), source })?;
    let io = |source| SafetensorsError::Io { path: path.clone(), source };
    let mut file = NewFile::create(&path).map_err(io)?;
    file.write_all(&bytes).map_err(io)?;
    file.sync().map_err(io)?;
    Ok(file)
}

/// Writes tensors to a file, whole or not at all.
///
/// # Errors
///
/// As [`write()`]; a file that was there is then as it was.
///
/// # Example
///
/// ```
/// # use neurarch_systems::state::safetensors::{Tensor, read, save};
/// # let folder = std::env::temp_dir().join(format!("neurarch-st-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let weight = ndarray::array![[0.5_f32, -1.0, 2.0]].into_dyn();
/// let tensors = [Tensor::new("0.weight", weight.view())];
/// save(folder.join("model.safetensors"), &tensors)?;
/// assert_eq!(read(folder.join("model.safetensors"))?, tensors);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `safetensors.torch.save_file`.
pub fn save<'a>(
    path: impl Into<PathBuf>,
    tensors: impl IntoIterator<Item = &'a Tensor>,
) -> Result<(), SafetensorsError> {
    let file = write(path, tensors)?;
    let path = file.path().to_owned();
    file.commit().map_err(|source| SafetensorsError::Io { path, source })
}

/// Reads all tensors of a file, in order of their names.
///
/// # Errors
///
/// [`SafetensorsError::Io`] if the file cannot be read, [`SafetensorsError::Format`] if it is damaged or
/// of another kind, [`SafetensorsError::Dtype`] if neurarch has no such element type.
///
/// Source: `safetensors.torch.load_file`.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Tensor>, SafetensorsError> {
    let path = path.as_ref();
    let bytes =
        fs::read(path).map_err(|source| SafetensorsError::Io { path: path.to_owned(), source })?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|source| SafetensorsError::Format { path: path.to_owned(), source })?;
    let mut tensors = file
        .iter()
        .map(|(name, view)| {
            let dtype = dtype_from(view.dtype()).ok_or_else(|| SafetensorsError::Dtype {
                path: path.to_owned(),
                name: name.to_owned(),
                found: format!("{:?}", view.dtype()),
            })?;
            let (shape, bytes) = (view.shape().to_vec(), view.data().to_vec());
            Ok(Tensor::from_little_endian(name.to_owned(), dtype, shape, bytes))
        })
        .collect::<Result<Vec<_>, _>>()?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

/// Both directions in one list.
const DTYPES: [(Dtype, safetensors::Dtype); 6] = [
    (Dtype::F32, safetensors::Dtype::F32),
    (Dtype::F64, safetensors::Dtype::F64),
    (Dtype::F16, safetensors::Dtype::F16),
    (Dtype::BF16, safetensors::Dtype::BF16),
    (Dtype::I64, safetensors::Dtype::I64),
    (Dtype::Bool, safetensors::Dtype::BOOL),
];

fn dtype_of(dtype: Dtype) -> safetensors::Dtype {
    let known = DTYPES.iter().find(|(ours, _)| *ours == dtype);
    known.expect("DTYPES lists every dtype").1
}

fn dtype_from(dtype: safetensors::Dtype) -> Option<Dtype> {
    DTYPES.iter().find(|(_, theirs)| *theirs == dtype).map(|(ours, _)| *ours)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, IxDyn};

    use super::*;

    fn path(test: &str) -> PathBuf {
        std::env::temp_dir().join(format!("neurarch-{}-{test}.safetensors", std::process::id()))
    }

    #[test]
    fn what_is_saved_is_read_back_in_every_dtype_and_shape() {
        let f32s =
            Array::from_shape_fn(IxDyn(&[3, 2, 5]), |i| (i[0] * 10 + i[1] * 5 + i[2]) as f32);
        let tensors = [
            Tensor::new("0.bias", Array::from_elem(IxDyn(&[]), -1.5_f64).view()),
            Tensor::new("0.mask", Array::from_elem(IxDyn(&[1]), 1_u8).view()),
            Tensor::new("0.steps", Array::from_elem(IxDyn(&[0, 4]), 1_i64).view()),
            Tensor::new("0.weight", f32s.view()),
        ];
        let path = path("round_trip");
        save(&path, &tensors).unwrap();
        let read = read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(read, tensors);
        assert_eq!(read[3].to_array::<f32>().unwrap(), f32s);
        assert_eq!(read[3].to_array::<f64>(), None);
    }

    #[test]
    fn a_view_in_another_order_is_written_row_major() {
        let transposed = ndarray::array![[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]].reversed_axes();
        let tensor = Tensor::new("t", transposed.view().into_dyn());
        assert_eq!(tensor.shape(), [3, 2]);
        let expected = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
        assert_eq!(tensor.little_endian(), bytemuck::cast_slice::<f32, u8>(&expected));
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let path = path("damaged");
        fs::write(&path, b"not safetensors at all").unwrap();
        let error = read(&path).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert!(matches!(error, SafetensorsError::Format { .. }));
        assert!(error.to_string().contains("damaged.safetensors"));
    }

    #[test]
    fn a_missing_folder_is_an_error_and_leaves_nothing() {
        let path = path("missing").join("model.safetensors");
        let error = save(&path, &[]).unwrap_err();
        assert!(matches!(error, SafetensorsError::Io { .. }));
    }
}
