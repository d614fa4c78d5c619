//! Where a file of `torch.save` has its pickle: an entry of a zip archive, or the start of a legacy file.

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::Path;

use zip::read::ZipReadOptions;
use zip::{CompressionMethod, ZipArchive};

use super::error::Fault;
use super::unpickle::{Objects, unpickle};
use super::value::Pickle;
use crate::state::file_kind::FileKind;

/// Reads the pickle of a file, and how long the file is.
pub(super) fn read_pickle(path: &Path, objects: Objects) -> Result<(Pickle, u64), Fault> {
    let mut file = BufReader::new(File::open(path)?);
    let file_bytes = file.get_ref().metadata()?.len();
    let pickle = match (FileKind::read(&mut file)?, objects) {
        (FileKind::TorchZip, _) => {
            let pickle = zip_entry(file)?;
            unpickle(&mut Cursor::new(pickle), objects)?
        }
        (FileKind::TorchLegacy, Objects::WeightsOnly) => {
            // A magic number, the version of the protocol, and what machine wrote the file: the reader checks them.
            for _ in 0..3 {
                unpickle(&mut file, objects)?;
            }
            unpickle(&mut file, objects)?
        }
        (FileKind::TorchLegacy, Objects::Modules) => {
            let found = "a legacy file, of which a whole model is not read".to_owned();
            return Err(Fault::Format { found });
        }
        (FileKind::Other, _) => {
            return Err(Fault::Format { found: "something else".to_owned() });
        }
    };
    Ok((pickle, file_bytes))
}

/// Reads the one pickle of an archive whose entries are as long as they say.
fn zip_entry(file: BufReader<File>) -> Result<Vec<u8>, Fault> {
    let refused = |found: &str| Fault::Format { found: format!("an archive {found}") };
    let reader = |error: zip::result::ZipError| Fault::Reader(error.into());
    let mut archive = ZipArchive::new(file).map_err(reader)?;
    if archive.has_duplicate_names() {
        return Err(refused("with two entries of one name"));
    }
    let mut pickle = None;
    for place in 0..archive.len() {
        let entry = archive.by_index_raw(place).map_err(reader)?;
        // `torch.save` compresses nothing. What is compressed may be longer than the file explains.
        let is_stored = entry.compression() == CompressionMethod::Stored
            && entry.compressed_size() == entry.size()
            && !entry.encrypted();
        if !is_stored {
            return Err(refused("with an entry that is compressed or encrypted"));
        }
        let name = entry.name().map_err(reader)?;
        let is_pickle =
            name.strip_suffix(PICKLE).is_some_and(|root| root.is_empty() || root.ends_with('/'));
        if is_pickle && pickle.replace((place, entry.crc32(), entry.size())).is_some() {
            return Err(refused("with two pickles"));
        }
    }
    let Some((place, checksum, bytes)) = pickle else { return Err(refused("without data.pkl")) };
    // Without checksums torch writes 0.
    let options = ZipReadOptions::new().ignore_crc32(checksum == 0);
    let entry = archive.by_index_with_options(place, options).map_err(reader)?;
    let mut pickle = Vec::new();
    entry.take(bytes).read_to_end(&mut pickle)?;
    Ok(pickle)
}

/// What the pickle's entry is called, in the folder that all entries are in.
const PICKLE: &str = "data.pkl";

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// What is wrong with an archive of such entries.
    fn wrong(name: &str, entries: &[(&str, CompressionMethod)]) -> String {
        let path = std::env::temp_dir().join(format!("neurarch-{}-{name}.pt", std::process::id()));
        let mut archive = ZipWriter::new(File::create(&path).unwrap());
        for (name, method) in entries {
            let options = SimpleFileOptions::default().compression_method(*method);
            archive.start_file(*name, options).unwrap();
            archive.write_all(b"\x80\x02}.").unwrap();
        }
        archive.finish().unwrap();
        let found = read_pickle(&path, Objects::WeightsOnly);
        std::fs::remove_file(&path).unwrap();
        found
            .map_or_else(|fault| fault.to_string(), |(pickle, _)| format!("{} bytes", pickle.bytes))
    }

    #[test]
    fn an_archive_that_torch_does_not_write_is_refused() {
        let (stored, deflated) = (CompressionMethod::Stored, CompressionMethod::Deflated);
        assert_eq!(wrong("plain", &[("a/data.pkl", stored), ("a/version", stored)]), "4 bytes");
        let found = wrong("deflated", &[("a/data.pkl", stored), ("a/data/0", deflated)]);
        assert!(
            found.ends_with("an archive with an entry that is compressed or encrypted"),
            "{found}"
        );
        let found = wrong("two", &[("a/data.pkl", stored), ("b/data.pkl", stored)]);
        assert!(found.ends_with("an archive with two pickles"), "{found}");
        let found = wrong("none", &[("a/mydata.pkl", stored)]);
        assert!(found.ends_with("an archive without data.pkl"), "{found}");
    }
}
