//! Parameters as [safetensors](https://huggingface.co/docs/safetensors), in torch's names and layouts.
//!
//! A file of one model is what `safetensors.torch.load_file` turns into a `state_dict` that
//! `load_state_dict` takes as it is; a file of a population has the same names, each tensor with the
//! models as its first axis, as `torch.func.stack_module_state` makes them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use neurarch_components::module::blueprint::UNINITIALIZED;
pub use neurarch_components::state::Tensor;
use neurarch_components::state::{LocalMetadata, StateDict};
use neurarch_kernels::ir::dtype::Dtype;
use safetensors::SafeTensorError;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Value, json};

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
    /// Two tensors have one name.
    #[error("{}: expected names that differ, got '{name}' twice", .path.display())]
    Duplicate {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// The versions in the file's header are not what neurarch writes there.
    #[error("{}: {METADATA}: expected an object of versions by module path, got {found}", .path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is there instead.
        found: String,
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

/// What a file is written from: tensors, and what is said of the modules that they are of.
///
/// A `&StateDict` is both; a slice of tensors says nothing of modules.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// The tensors.
    pub tensors: &'a [Tensor],
    /// What is said of each module, by its path.
    pub metadata: &'a [(String, LocalMetadata)],
}

impl<'a> From<&'a StateDict> for Contents<'a> {
    fn from(state: &'a StateDict) -> Self {
        Contents { tensors: &state.tensors, metadata: &state.metadata }
    }
}

impl<'a> From<&'a [Tensor]> for Contents<'a> {
    fn from(tensors: &'a [Tensor]) -> Self {
        Contents { tensors, metadata: &[] }
    }
}

impl<'a> From<&'a Vec<Tensor>> for Contents<'a> {
    fn from(tensors: &'a Vec<Tensor>) -> Self {
        Contents::from(tensors.as_slice())
    }
}

impl<'a, const N: usize> From<&'a [Tensor; N]> for Contents<'a> {
    fn from(tensors: &'a [Tensor; N]) -> Self {
        Contents::from(tensors.as_slice())
    }
}

/// Writes tensors to a temporary file beside `path`, one after the other; [`NewFile::commit`] gives it its name.
///
/// What a state dict says of modules stands in the header's `__metadata__`, as JSON under `_metadata`.
///
/// # Errors
///
/// [`SafetensorsError::Io`] if the folder or disk refuses, [`SafetensorsError::Duplicate`] if two tensors have one name,
/// [`SafetensorsError::Format`] if the names fill more than the format's 100 MB. Nothing is left behind then.
pub fn write<'a>(
    path: impl Into<PathBuf>,
    contents: impl Into<Contents<'a>>,
) -> Result<NewFile, SafetensorsError> {
    let path = path.into();
    let Contents { tensors, metadata } = contents.into();
    if let Some(tensor) = tensors.iter().find(|tensor| tensor.is_uninitialized()) {
        return Err(SafetensorsError::Uninitialized { path, name: tensor.name.clone() });
    }
    let mut ordered: Vec<&Tensor> = tensors.iter().collect();
    ordered.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = ordered.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(SafetensorsError::Duplicate { path, name: pair[0].name.clone() });
    }
    // The format's order: those with the largest elements first, so that all are aligned.
    ordered.sort_by_key(|tensor| std::cmp::Reverse(dtype_of(tensor.dtype())));
    let header = header(&ordered, metadata)
        .map_err(|source| SafetensorsError::Format { path: path.clone(), source })?;
    let io = |source| SafetensorsError::Io { path: path.clone(), source };
    let mut file = NewFile::create(&path).map_err(io)?;
    let mut write = || {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        ordered.iter().try_for_each(|tensor| file.write_all(tensor.little_endian()))?;
        file.sync()
    };
    write().map_err(io)?;
    Ok(file)
}

/// What the header's `__metadata__` calls what is said of modules: torch's name of it.
const METADATA: &str = "_metadata";

/// Most bytes of a header that the format's readers take.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Bytes that say how long the header is.
const LENGTH_BYTES: u64 = 8;

/// Writes down names, types and places of tensors that follow each other in that order.
fn header(
    ordered: &[&Tensor],
    metadata: &[(String, LocalMetadata)],
) -> Result<Vec<u8>, SafeTensorError> {
    // What `safetensors.torch.save_file` writes; some readers refuse a file without it.
    let format = ("format", "pt".to_owned());
    let said = (!metadata.is_empty()).then(|| {
        let of: BTreeMap<_, _> =
            metadata.iter().map(|(path, local)| (path, to_json(local))).collect();
        serde_json::to_string(&of).map(|said| (METADATA, said))
    });
    // The crate's own map has another order in each process.
    let own: BTreeMap<_, _> = [format].into_iter().chain(said.transpose()?).collect();
    let mut from = 0;
    let infos = ordered.iter().map(|tensor| {
        let to = from + tensor.little_endian().len();
        let info = TensorInfo {
            dtype: dtype_of(tensor.dtype()),
            shape: tensor.shape().to_vec(),
            data_offsets: (std::mem::replace(&mut from, to), to),
        };
        (tensor.name.clone(), info)
    });
    let tensors = serde_json::to_string(&Metadata::new(None, infos.collect())?)?;
    let own = serde_json::to_string(&own)?;
    let comma = if ordered.is_empty() { "" } else { "," };
    let mut header = format!("{{\"__metadata__\":{own}{comma}{}", &tensors[1..]).into_bytes();
    header.resize(header.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    match header.len() as u64 {
        ..=MAX_HEADER_BYTES => Ok(header),
        _ => Err(SafeTensorError::HeaderTooLarge),
    }
}

/// What of a module's metadata is not its version.
const ENTRIES: &str = "entries";

fn to_json(local: &LocalMetadata) -> Value {
    let version = local.version.map(|version| ("version".to_owned(), json!(version)));
    let entries = (!local.entries.is_empty()).then(|| (ENTRIES.to_owned(), json!(local.entries)));
    // In one order, whether or not maps of JSON keep theirs.
    Value::Object(entries.into_iter().chain(version).collect())
}

/// Reads what [`to_json`] wrote for all modules, by path; `None` if it is something else.
fn from_json(text: &str) -> Option<Vec<(String, LocalMetadata)>> {
    let Value::Object(of_all) = serde_json::from_str(text).ok()? else { return None };
    let read = |(path, of): (String, Value)| {
        let mut local = LocalMetadata::default();
        for (name, value) in of.as_object()? {
            match name.as_str() {
                "version" => local.version = Some(value.as_u64()?.try_into().ok()?),
                ENTRIES => {
                    let entries = value.as_object()?.iter();
                    let entries = entries
                        .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
                    local.entries = entries.collect::<Option<_>>()?;
                }
                _ => return None,
            }
        }
        Some((path, local))
    };
    let mut read = of_all.into_iter().map(read).collect::<Option<Vec<_>>>()?;
    read.sort_by(|(a, _), (b, _)| a.cmp(b));
    Some(read)
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
/// assert_eq!(read(folder.join("model.safetensors"))?[..], tensors);
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `safetensors.torch.save_file`.
pub fn save<'a>(
    path: impl Into<PathBuf>,
    contents: impl Into<Contents<'a>>,
) -> Result<(), SafetensorsError> {
    let file = write(path, contents)?;
    let path = file.path().to_owned();
    file.commit().map_err(|source| SafetensorsError::Io { path, source })
}

/// Reads all tensors of a file, in order of their names, and what it says of modules.
///
/// Each tensor is read from the file into its own memory. The format has no checksums: a file whose numbers were changed
/// is read like any other.
///
/// # Errors
///
/// [`SafetensorsError::Io`] if the file cannot be read, [`SafetensorsError::Format`] if it is damaged or
/// of another kind, [`SafetensorsError::Dtype`] if neurarch has no such element type, [`SafetensorsError::Metadata`] if
/// `_metadata` is there and something else than [`write()`] writes.
///
/// Source: `safetensors.torch.load_file`.
pub fn read(path: impl AsRef<Path>) -> Result<StateDict, SafetensorsError> {
    let path = path.as_ref();
    let io = |source| SafetensorsError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let file_bytes = file.metadata().map_err(io)?.len();
    read_from(&mut file, file_bytes, path)
}

/// [`read`], of the bytes of a file, which came from anywhere; `path` is for errors.
///
/// # Errors
///
/// As [`read`].
pub fn from_bytes(mut bytes: &[u8], path: impl AsRef<Path>) -> Result<StateDict, SafetensorsError> {
    let file_bytes = bytes.len() as u64;
    read_from(&mut bytes, file_bytes, path.as_ref())
}

fn read_from(
    file: &mut impl Read,
    file_bytes: u64,
    path: &Path,
) -> Result<StateDict, SafetensorsError> {
    let io = |source| SafetensorsError::Io { path: path.to_owned(), source };
    let format = |source| SafetensorsError::Format { path: path.to_owned(), source };
    let mut length = [0; LENGTH_BYTES as usize];
    let after = file_bytes.checked_sub(LENGTH_BYTES);
    let after = after.ok_or(SafeTensorError::HeaderTooSmall).map_err(format)?;
    file.read_exact(&mut length).map_err(io)?;
    let header_bytes = header_bytes(length, after).map_err(format)?;
    let header = read_bytes(file, header_bytes as usize).map_err(io)?;
    let header = read_header(&header, after - header_bytes).map_err(format)?;
    let names = header.offset_keys().into_iter();
    let known = names.filter_map(|name| Some((header.info(&name)?, name))).map(|(info, name)| {
        let dtype = dtype_from(info.dtype).ok_or_else(|| SafetensorsError::Dtype {
            path: path.to_owned(),
            name: name.clone(),
            found: format!("{:?}", info.dtype),
        })?;
        Ok((name, dtype, info))
    });
    let places = known.collect::<Result<Vec<_>, _>>()?;
    let text = header.metadata().as_ref().and_then(|own| own.get(METADATA));
    let metadata = text.map(|text| {
        let found = || text.chars().take(SHOWN).collect();
        let wrong = || SafetensorsError::Metadata { path: path.to_owned(), found: found() };
        from_json(text).ok_or_else(wrong)
    });
    let metadata = metadata.transpose()?.unwrap_or_default();
    let read = |(name, dtype, info): (String, Dtype, &TensorInfo)| {
        let (from, to) = info.data_offsets;
        let bytes = read_bytes(file, to - from).map_err(io)?;
        Ok(Tensor::from_little_endian(name, dtype, info.shape.clone(), bytes))
    };
    let mut tensors = places.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(StateDict { tensors, metadata })
}

/// Letters of what is not expected that an error shows.
const SHOWN: usize = 60;

/// Reads how long the header is, of so many bytes after its length.
fn header_bytes(length: [u8; LENGTH_BYTES as usize], after: u64) -> Result<u64, SafeTensorError> {
    match u64::from_le_bytes(length) {
        length if length > MAX_HEADER_BYTES => Err(SafeTensorError::HeaderTooLarge),
        length if length > after => Err(SafeTensorError::InvalidHeaderLength),
        length => Ok(length),
    }
}

/// Reads names, types and places of tensors that fill so many bytes exactly.
fn read_header(header: &[u8], data_bytes: u64) -> Result<Metadata, SafeTensorError> {
    let header = std::str::from_utf8(header).map_err(SafeTensorError::InvalidHeader)?;
    let header: Metadata =
        serde_json::from_str(header).map_err(SafeTensorError::InvalidHeaderDeserialization)?;
    match header.data_len() as u64 == data_bytes {
        true => Ok(header),
        false => Err(SafeTensorError::MetadataIncompleteBuffer),
    }
}

/// Reads so many bytes into memory that tensors share.
fn read_bytes(file: &mut impl Read, bytes: usize) -> io::Result<Arc<[u8]>> {
    let mut read: Arc<[u8]> = std::iter::repeat_n(0, bytes).collect();
    file.read_exact(Arc::get_mut(&mut read).expect("nobody else has it yet"))?;
    Ok(read)
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
    use std::fs;

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
        assert_eq!(read[..], tensors);
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
    fn versions_come_back_and_are_one_text_in_the_header() {
        let mut state = StateDict::from_iter([Tensor::new("n", ndarray::arr1(&[1.0_f32]).view())]);
        let entries = [("note".to_owned(), "as \"said\"".to_owned())].into();
        state.metadata = vec![
            (String::new(), LocalMetadata::default()),
            ("0".into(), LocalMetadata { version: Some(2), entries }),
        ];
        let path = path("versions");
        save(&path, &state).unwrap();
        let (read, bytes) = (read(&path), fs::read(&path).unwrap());
        fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap(), state);
        let expected = r#""_metadata":"{\"\":{},\"0\":{\"entries\":"#;
        assert!(String::from_utf8_lossy(&bytes).contains(expected));
    }

    #[test]
    fn names_that_collide_and_foreign_metadata_are_errors() {
        let path = path("collide");
        let tensor = Tensor::new("n", ndarray::arr1(&[1.0_f32]).view());
        let error = save(&path, &[tensor.clone(), tensor]).unwrap_err();
        assert!(error.to_string().ends_with("expected names that differ, got 'n' twice"));
        assert!(!path.exists());

        let header = br#"{"__metadata__":{"_metadata":"[1]"}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header].concat();
        fs::write(&path, bytes).unwrap();
        let error = read(&path).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert!(error.to_string().contains("by module path, got [1]"), "{error}");
    }

    #[test]
    fn a_header_that_claims_more_than_the_file_has_is_an_error() {
        let path = path("claims");
        let claim = |header: &str, length: u64| {
            fs::write(&path, [&length.to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
            let error = read(&path).unwrap_err();
            fs::remove_file(&path).unwrap();
            error.to_string()
        };
        assert!(claim("{}", 1 << 40).ends_with("header too large"));
        assert!(claim("{}", 3).ends_with("invalid header length"));
        let header =
            r#"{"n":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}"#;
        assert!(claim(header, header.len() as u64).ends_with("file not fully covered"));
    }

    #[test]
    fn a_missing_folder_is_an_error_and_leaves_nothing() {
        let path = path("missing").join("model.safetensors");
        let error = save(&path, &[]).unwrap_err();
        assert!(matches!(error, SafetensorsError::Io { .. }));
    }
}
