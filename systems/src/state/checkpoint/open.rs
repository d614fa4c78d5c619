//! [`Checkpoint`]: a file of populations that is open.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bevy_ecs::prelude::*;
use neurarch_components::saved::SavedError;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::memory::AlignedBytes;
use rayon::prelude::*;

use super::check;
use super::error::CheckpointError;
use super::format::{BLOCK_BYTES, HEADER_BYTES, Header, checksum};
use super::index::{Entries, GroupEntry, Index, ModuleEntry, Section};
use super::map::Map;

/// What makes a type known to a world.
pub(super) type Register = fn(&mut World) -> Result<(), SavedError>;

/// Populations in a file, whose index was checked. Their numbers are read where they are needed, and each MiB of them is
/// checked once, before anybody sees it.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_components::population::Population;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// use neurarch_systems::state::checkpoint::{self, Checkpoint};
///
/// # let mut world = World::new();
/// # let path = std::env::temp_dir().join(format!("neurarch-{}.checkpoint", std::process::id()));
/// let layers = spawn_population(&mut world, &Linear::new(4, 2), 3, 3, 7, Dtype::F32)?;
/// checkpoint::save(&mut world, &[layers], &path)?;
///
/// let checkpoint = Checkpoint::open(&path)?;
/// let names: Vec<_> = checkpoint.tensors().into_iter().map(|tensor| tensor.name).collect();
/// assert_eq!(names, ["weight", "bias"]);
/// let mut other = World::new();
/// let restored = checkpoint.restore(&mut other)?;
/// assert_eq!(other.get::<Population>(restored.populations[0]).unwrap().len(), 3);
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Checkpoint {
    path: PathBuf,
    bytes: Bytes,
    index: Index,
    /// Where the sections end.
    end: u64,
    /// Which MiB of the sections were found to be as they were written.
    checked: Box<[AtomicBool]>,
    /// What makes the host's types known where they run.
    pub(super) registers: Vec<Register>,
}

enum Bytes {
    Mapped(Map),
    Read { bytes: AlignedBytes, length: usize },
}

impl Bytes {
    fn all(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map.bytes(),
            Bytes::Read { bytes, length } => &bytes.bytes()[..*length],
        }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let populations = self.populations();
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("populations", &populations)
            .finish()
    }
}

/// A parameter or buffer that a checkpoint has of the models of one structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its dotted name.
    pub name: String,
    /// The number of its population in the checkpoint.
    pub population: usize,
    /// How many models have it.
    pub models: usize,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape in one model.
    pub shape: Vec<usize>,
}

impl Checkpoint {
    /// Opens a checkpoint by mapping the file: what is never looked at is never read.
    ///
    /// While it is open, nobody may write to the file or make it shorter: a process that does ends this one or changes numbers
    /// after they were checked. A file that is saved anew under the same name is another one, so that is no harm.
    /// [`read`](Checkpoint::read) is safe from all of that.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]: the file cannot be read, is no checkpoint, or its header or index was changed. Its sections are
    /// checked when they are needed, or by [`verify`](Checkpoint::verify).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        let map = Map::of(path).map_err(|error| CheckpointError::io(path, error))?;
        Checkpoint::new(path, Bytes::Mapped(map))
    }

    /// Opens a checkpoint by reading all of the file.
    ///
    /// # Errors
    ///
    /// As [`open`](Checkpoint::open).
    pub fn read(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        let failed = |error| CheckpointError::io(path, error);
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len() as usize;
        let mut bytes = AlignedBytes::new(length);
        file.read_exact(&mut bytes.bytes_mut()[..length]).map_err(failed)?;
        Checkpoint::new(path, Bytes::Read { bytes, length })
    }

    /// Opens a checkpoint by a copy of the bytes of a file, which came from anywhere; `path` is for errors.
    ///
    /// # Errors
    ///
    /// As [`open`](Checkpoint::open).
    pub fn from_bytes(all: &[u8], path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let (length, mut bytes) = (all.len(), AlignedBytes::new(all.len()));
        bytes.bytes_mut()[..length].copy_from_slice(all);
        Checkpoint::new(path.as_ref(), Bytes::Read { bytes, length })
    }

    fn new(path: &Path, bytes: Bytes) -> Result<Self, CheckpointError> {
        let all = bytes.all();
        let header = Header::from_bytes(all, all.len() as u64)?;
        let archived = &all[header.index_at as usize..];
        if checksum(archived) != header.index_sum {
            return Err(CheckpointError::IndexSum);
        }
        let index = Index::from_bytes(archived)?;
        check::check(&index, header.index_at)?;
        let checked = index.sums.iter().map(|_| AtomicBool::new(false)).collect();
        Ok(Checkpoint {
            path: path.to_owned(),
            bytes,
            index,
            end: header.index_at,
            checked,
            registers: Vec::new(),
        })
    }

    /// Returns the file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Counts the populations.
    pub fn populations(&self) -> usize {
        self.index.populations.len()
    }

    /// Counts the models of a population, by its number; `None` if there is no such population.
    pub fn models(&self, population: usize) -> Option<usize> {
        Some(self.index.populations.get(population)?.models as usize)
    }

    /// Lists the parameters and buffers of each structure that a state dict has, and those that populations share.
    pub fn tensors(&self) -> Vec<TensorInfo> {
        let mut tensors = Vec::new();
        for (number, population) in self.index.populations.iter().enumerate() {
            let mut list = |path: &str, columns: Entries, models: u64| {
                let columns = columns.of(&self.index.columns).iter();
                tensors.extend(columns.filter_map(|column| {
                    let ty = column.ty().filter(|_| column.persistent)?;
                    let name = column.name.as_str();
                    Some(TensorInfo {
                        name: if path.is_empty() {
                            name.to_owned()
                        } else {
                            format!("{path}.{name}")
                        },
                        population: number,
                        models: models as usize,
                        dtype: ty.dtype,
                        shape: ty.shape.to_vec(),
                    })
                }));
            };
            list("", population.columns, population.models);
            for group in self.groups(number) {
                let modules = group.modules.of(&self.index.modules);
                for (module, path) in modules.iter().zip(paths(modules)) {
                    list(&path, module.columns, group.members);
                }
            }
        }
        tensors
    }

    /// Checks all numbers that were not checked yet.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Sum`] for a MiB that was changed.
    pub fn verify(&self) -> Result<(), CheckpointError> {
        self.check_blocks(0..self.checked.len())
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// Returns the bytes of a section, after they were checked.
    pub(super) fn section(&self, section: Section) -> Result<&[u8], CheckpointError> {
        if section.bytes == 0 {
            return Ok(&[]);
        }
        let start = section.at as usize - HEADER_BYTES;
        let end = start + section.bytes as usize;
        self.check_blocks(start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES))?;
        Ok(self.unchecked(section))
    }

    /// Returns the bytes of a section, of which the caller has checked what it looks at.
    pub(super) fn unchecked(&self, section: Section) -> &[u8] {
        match section.bytes {
            // It may say that it is anywhere.
            0 => &[],
            bytes => &self.bytes.all()[section.at as usize..][..bytes as usize],
        }
    }

    /// Returns the numbers of a section, after they were checked.
    pub(super) fn numbers<T: bytemuck::AnyBitPattern>(
        &self,
        section: Section,
    ) -> Result<Vec<T>, CheckpointError> {
        let bytes = self.section(section)?.chunks_exact(size_of::<T>());
        Ok(bytes.map(bytemuck::pod_read_unaligned).collect())
    }

    /// Checks blocks that were not checked yet, in parallel.
    fn check_blocks(&self, blocks: std::ops::Range<usize>) -> Result<(), CheckpointError> {
        let blocks = blocks.start..blocks.end.min(self.checked.len());
        let is_new = |&block: &usize| !self.checked[block].load(Ordering::Relaxed);
        let mut new = blocks.clone().filter(is_new);
        match (new.next(), new.next()) {
            (None, _) => Ok(()),
            (Some(block), None) => self.check_block(block),
            _ => {
                let new: Vec<_> = blocks.filter(is_new).collect();
                new.into_par_iter().try_for_each(|block| self.check_block(block))
            }
        }
    }

    fn check_block(&self, block: usize) -> Result<(), CheckpointError> {
        let start = HEADER_BYTES + block * BLOCK_BYTES;
        let end = (start + BLOCK_BYTES).min(self.end as usize);
        if checksum(&self.bytes.all()[start..end]) != self.index.sums[block] {
            return Err(CheckpointError::Sum { start: start as u64, end: end as u64 });
        }
        self.checked[block].store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the groups of a population with their numbers in the index.
    pub(super) fn groups(&self, population: usize) -> &[GroupEntry] {
        self.index.populations[population].groups.of(&self.index.groups)
    }
}

/// Lists the dotted paths of the modules of a structure.
pub(super) fn paths(modules: &[ModuleEntry]) -> Vec<String> {
    let mut paths: Vec<String> = Vec::with_capacity(modules.len());
    for module in modules {
        let above = module.parent.map(|parent| paths[parent as usize].as_str()).unwrap_or_default();
        let path = match (module.parent, above.is_empty()) {
            (None, _) => String::new(),
            (_, true) => module.name.clone(),
            _ => format!("{above}.{}", module.name),
        };
        paths.push(path);
    }
    paths
}
