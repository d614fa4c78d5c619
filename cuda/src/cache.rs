//! [`Cache`]: compiled sources as files, by text, options, architecture and version of the compiler.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use crate::error::CudaError;
use crate::nvrtc::{Image, Nvrtc, OPTIONS, Version};

/// First bytes of a file, with the number of its form.
const MAGIC: &[u8; 8] = b"NEURACU1";

/// Bytes of a hash.
const HASH: usize = 32;

/// A folder of compiled sources. A host can ship it, and needs no compiler then.
///
/// A file has the magic, the key's hash, the lengths of CUBIN and PTX, both, and a hash of all that. A file that does not
/// have its own hash counts as missing.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// Numbers the files that are being written, so that threads do not write to one.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

impl Cache {
    /// Returns the cache in a folder, which is created when something is written.
    pub fn new(folder: impl Into<PathBuf>) -> Cache {
        Cache { folder: folder.into() }
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns a compiled source: from its file, or from the compiler, which writes the file.
    ///
    /// Without a compiler, a file of any version of it is taken, the newest first. If the file cannot be written, a
    /// warning says so, and the result is returned.
    ///
    /// # Errors
    ///
    /// [`CudaError::NoNvrtc`] without file and compiler, [`CudaError::Compile`] if it does not compile.
    pub fn get_or_compile(
        &self,
        kernel: &str,
        text: &str,
        architecture: u32,
    ) -> Result<Image, CudaError> {
        let key = key(text, architecture);
        let nvrtc = Nvrtc::find();
        let found = match nvrtc {
            Ok(nvrtc) => self.read(&self.path(&key, nvrtc.version()), &key),
            Err(_) => {
                self.versions(&key).iter().rev().find_map(|&v| self.read(&self.path(&key, v), &key))
            }
        };
        if let Some(image) = found {
            return Ok(image);
        }
        let nvrtc =
            nvrtc.map_err(|reason| CudaError::NoNvrtc { kernel: kernel.to_owned(), reason })?;
        let image = nvrtc.compile(kernel, text, architecture)?;
        if let Err(error) = self.write(&self.path(&key, nvrtc.version()), &key, &image) {
            tracing::warn!("kernel `{kernel}` was compiled, but not kept: {error}");
        }
        Ok(image)
    }

    fn path(&self, key: &[u8; HASH], version: Version) -> PathBuf {
        self.folder.join(format!("{}-{}.{}.kernel", hex(key), version.major, version.minor))
    }

    /// Lists the versions of the compiler that made files for a key, in order.
    fn versions(&self, key: &[u8; HASH]) -> Vec<Version> {
        let prefix = format!("{}-", hex(key));
        let version = |name: &str| {
            let (major, minor) =
                name.strip_prefix(&prefix)?.strip_suffix(".kernel")?.split_once('.')?;
            Some(Version { major: major.parse().ok()?, minor: minor.parse().ok()? })
        };
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut versions: Vec<_> =
            entries.filter_map(|entry| version(entry.file_name().to_str()?)).collect();
        versions.sort_unstable();
        versions
    }

    fn read(&self, path: &Path, key: &[u8; HASH]) -> Option<Image> {
        let bytes = fs::read(path).ok()?;
        let image = decode(&bytes, key);
        if image.is_none() {
            tracing::warn!("cache file {} is damaged, and is not used", path.display());
        }
        image
    }

    /// Writes a file beside its place and renames it, so that nobody reads half of one.
    fn write(&self, path: &Path, key: &[u8; HASH], image: &Image) -> Result<(), CudaError> {
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let beside = path.with_extension(format!("{}-{number}.part", std::process::id()));
        let write = || {
            fs::create_dir_all(&self.folder)?;
            let mut file = fs::File::create(&beside)?;
            file.write_all(&encode(key, image))?;
            file.sync_all()?;
            fs::rename(&beside, path)
        };
        write().map_err(|source| {
            // It may not be there; there is nothing to say then.
            let _ = fs::remove_file(&beside);
            CudaError::Cache { path: path.to_owned(), source }
        })
    }
}

/// Hashes what a compiled source depends on, but for the compiler's version.
fn key(text: &str, architecture: u32) -> [u8; HASH] {
    let mut hash = Sha256::new();
    for part in [text, OPTIONS[0], OPTIONS[1], &architecture.to_string()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encode(key: &[u8; HASH], image: &Image) -> Vec<u8> {
    let lengths = [image.cubin.len() as u64, image.ptx.len() as u64].map(u64::to_le_bytes);
    let mut bytes = MAGIC.to_vec();
    for part in [key, &lengths[0][..], &lengths[1], &image.cubin, image.ptx.as_bytes()] {
        bytes.extend_from_slice(part);
    }
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

fn decode(bytes: &[u8], key: &[u8; HASH]) -> Option<Image> {
    let (content, hash) = bytes.split_last_chunk::<HASH>()?;
    if Sha256::digest(content)[..] != hash[..] {
        return None;
    }
    let rest = content.strip_prefix(MAGIC)?.strip_prefix(key)?;
    let (cubin_len, rest) = rest.split_first_chunk::<8>()?;
    let (ptx_len, rest) = rest.split_first_chunk::<8>()?;
    let len = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).ok();
    let (cubin, ptx) = rest.split_at_checked(len(cubin_len)?)?;
    if ptx.len() != len(ptx_len)? {
        return None;
    }
    Some(Image { cubin: cubin.to_vec(), ptx: String::from_utf8(ptx.to_vec()).ok()? })
}
