//! Files of `torch.save` that somebody changed: errors or state dicts, no panic, no model half loaded, and no more memory than
//! the file explains.

use std::fs;
use std::path::Path;
use std::process::Command;

use neurarch::prelude::*;
use neurarch::state::load_file::LoadFileError;
use neurarch::state::pytorch::{PytorchFile, read_model};
use neurarch::systems::optim::state_dict::OptimizerStateDict;

const MUTATIONS: u64 = 20_000;

/// What the process may take beside what it has: some 5,000 times the largest file, so that threads and allocators may do
/// as they like, and a length that a file claims may not.
const MAX_KIB: u64 = 128 * 1024;

/// The generator `SplitMix64`.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Changes a few bytes: flipped bits, a length that is too large, a piece from elsewhere, an end that is missing.
fn mutate(file: &[u8], draws: &mut Draws) -> Vec<u8> {
    let mut file = file.to_vec();
    for _ in 0..1 + draws.below(3) {
        let at = draws.below(file.len());
        match draws.below(6) {
            0 | 1 => file[at] ^= 1 << draws.below(8),
            2 => file[at] = draws.next() as u8,
            3 => {
                let claims =
                    [u64::MAX, u64::from(u32::MAX), i32::MAX as u64, 1 << 40, 1 << 31, 0xffff];
                let claim = claims[draws.below(claims.len())].to_le_bytes();
                let end = file.len().min(at + [1, 2, 4, 8][draws.below(4)]);
                file[at..end].copy_from_slice(&claim[..end - at]);
            }
            4 => {
                let bytes = 1 + draws.below(24).min(file.len() - 1);
                let (from, to) =
                    (draws.below(file.len() - bytes + 1), draws.below(file.len() - bytes + 1));
                file.copy_within(from..from + bytes, to);
            }
            _ => file.truncate(at.max(1)),
        }
    }
    file
}

/// Takes the checksums of an archive away, as `torch.save` may do without: else hardly a change gets past them.
fn without_checksums(mut file: Vec<u8>) -> Vec<u8> {
    for (magic, offset) in [(b"PK\x01\x02", 16), (b"PK\x03\x04", 14)] {
        let places: Vec<_> =
            file.windows(4).enumerate().filter(|(_, of)| of == magic).map(|(at, _)| at).collect();
        places.into_iter().for_each(|at| file[at + offset..at + offset + 4].fill(0));
    }
    file
}

fn files() -> Vec<Vec<u8>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pytorch"));
    let mut files = Vec::new();
    for version in ["1.13", "2.15"] {
        for name in ["small", "views", "dtypes"] {
            for kind in ["", "_legacy"] {
                files
                    .push(fs::read(folder.join(version).join(format!("{name}{kind}.pt"))).unwrap());
            }
        }
        files.push(fs::read(folder.join(version).join("nested_model.pt")).unwrap());
    }
    let zips: Vec<_> = files.iter().filter(|file| file.starts_with(b"PK")).cloned().collect();
    files.extend(zips.into_iter().map(without_checksums));
    files
}

/// Counts how mutated files ended.
#[derive(Debug, Default)]
struct Ends {
    /// The file was refused.
    refused: u64,
    /// It was read and has other names or sizes than the model.
    other: u64,
    loaded: u64,
}

/// Loads a file, and reads what else it may have; `now` is what the model has, before and after.
fn read_all(
    path: &Path,
    nets: &mut PopulationMut<'_>,
    like: &OptimizerStateDict,
    now: &mut StateDict,
    ends: &mut Ends,
) {
    let result = nets.load_file(path);
    let loaded = nets.model(0).unwrap().state_dict().unwrap();
    match result {
        Ok(_) => {
            let read = PytorchFile::open(path).unwrap();
            let _ = read.optimizer_state_dict("optimizer", like);
            let read = read.state_dict(None).unwrap();
            let is_there = |tensor: &Tensor| {
                let read = read.get(&tensor.name).unwrap();
                read.cast(tensor.dtype()).little_endian() == tensor.little_endian()
            };
            assert!(loaded.iter().all(is_there));
            *now = loaded;
            ends.loaded += 1;
        }
        Err(error) => {
            assert_eq!(loaded, *now);
            if error.to_string().contains("read_model") {
                let _ = read_model(path);
            }
            match error {
                LoadFileError::Load(_) => ends.other += 1,
                _ => ends.refused += 1,
            }
        }
    }
}

/// Reads a line of what Linux says of this process, in KiB.
fn memory(what: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// In a process of its own, whose memory no other test takes.
#[test]
fn no_mutation_panics_loads_a_part_or_takes_memory() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "state::pytorch_mutations::mutations_of_this_process",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
#[ignore = "the test above runs it"]
fn mutations_of_this_process() {
    let path = std::env::temp_dir().join(format!("neurarch-{}-mutated.pt", std::process::id()));
    let mut world = World::new();
    let mut nets = world.spawn_population(&Linear::new(2, 1), 1, Seed(0)).unwrap();
    nets.insert(Adam::default()).unwrap();
    let like = nets.model(0).unwrap().optimizer_state_dict().unwrap();
    let mut now = nets.model(0).unwrap().state_dict().unwrap();
    let files = files();
    let mut ends = Ends::default();
    for file in &files {
        fs::write(&path, file).unwrap();
        read_all(&path, &mut nets, &like, &mut now, &mut ends);
    }
    assert!(ends.loaded > 0);
    let before = ["VmPeak", "VmHWM"].map(memory);
    let mut ends = Ends::default();
    for number in 0..MUTATIONS {
        let mut draws = Draws(number);
        let file = &files[draws.below(files.len())];
        // Some file systems write a file that is replaced to the disk at once.
        fs::remove_file(&path).unwrap();
        fs::write(&path, mutate(file, &mut draws)).unwrap();
        read_all(&path, &mut nets, &like, &mut now, &mut ends);
    }
    fs::remove_file(&path).unwrap();
    for (before, after) in before.into_iter().zip(["VmPeak", "VmHWM"].map(memory)) {
        let (Some(before), Some(after)) = (before, after) else { continue };
        assert!(after <= before + MAX_KIB, "{} KiB more", after - before);
    }
    // The mutations are neither all the same nor all too coarse.
    assert!(ends.refused > MUTATIONS / 4 && ends.loaded > MUTATIONS / 50, "{ends:?}");
}
