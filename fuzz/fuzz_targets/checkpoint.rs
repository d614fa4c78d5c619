//! Forged checkpoints: a valid one is edited, and the checksums of its header and index are made right again, as
//! `docs/checkpoint.md` says. It is refused, or restored and run, without a panic.
#![no_main]

use std::sync::OnceLock;

use crc_fast::{CrcAlgorithm, checksum};
use libfuzzer_sys::fuzz_target;
use neurarch::prelude::*;
use neurarch::state::checkpoint;
use neurarch::state::checkpoint::Checkpoint;

fn path(of: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("neurarch-fuzz-{of}-{}", std::process::id()))
}

/// Saves a small population.
fn valid() -> Vec<u8> {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(3, 4)).push(BatchNorm1d::new(4)).push(Tanh);
    let mut brains = world.spawn_population(&net, 3, Seed(7)).expect("a population");
    brains.insert_with(|i| Adam { lr: 0.1 * i as f64, ..Adam::default() }).expect("optimizers");
    let brains = brains.id();
    checkpoint::save(&mut world, &[brains], path("valid")).expect("a file");
    std::fs::read(path("valid")).expect("the file")
}

/// Makes the checksums of the index and of the header right.
fn sum(bytes: &mut [u8]) {
    let index_at = u64::from_le_bytes(bytes[16..24].try_into().expect("eight bytes"));
    if let Some(index) = bytes.get(index_at as usize..) {
        let sum = checksum(CrcAlgorithm::Crc64Nvme, index);
        bytes[32..40].copy_from_slice(&sum.to_le_bytes());
    }
    bytes[40..48].fill(0);
    let sum = checksum(CrcAlgorithm::Crc64Nvme, &bytes[..4096]);
    bytes[40..48].copy_from_slice(&sum.to_le_bytes());
}

// Each four bytes are an edit: three say where, counted from the end of the file, where the index is, and one is written.
fuzz_target!(|edits: &[u8]| {
    static VALID: OnceLock<Vec<u8>> = OnceLock::new();
    let mut bytes = VALID.get_or_init(valid).clone();
    for edit in edits.chunks_exact(4) {
        let back = u32::from_le_bytes([edit[0], edit[1], edit[2], 0]) as usize % bytes.len();
        let at = bytes.len() - 1 - back;
        bytes[at] = edit[3];
    }
    sum(&mut bytes);
    std::fs::write(path("forged"), &bytes).expect("a file");
    let Ok(checkpoint) = Checkpoint::read(path("forged")) else { return };
    let _ = checkpoint.tensors();
    let x = ndarray::Array2::<f32>::ones((2, 3));
    let _ = checkpoint.forward(Input::shared(x.view()));
    let _ = checkpoint.restore(&mut World::new());
});
