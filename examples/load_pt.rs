//! A checkpoint of `torch.save` into a population: weights and optimizer state, as PyTorch wrote them.
//!
//! ```text
//! cargo run --release --features pytorch --example load_pt
//! ```
//!
//! The file is one of those that `tests/peers/pytorch_files.py` writes: `torch.save({"model": …, "optimizer": …, …}, path)`.
//! Beside it is what PyTorch computes from an input.

#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::error::Error;

use neurarch::prelude::*;
use neurarch::state::pytorch::PytorchFile;
use neurarch::state::{FileOptions, KeyMap, safetensors};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pytorch/2.15");
const MODELS: usize = 3;
/// Sums run in another order than PyTorch's.
const TOLERANCE: f32 = 1e-5;

/// `nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))`.
fn network() -> Sequential {
    let layers = Sequential::new().push(Linear::new(3, 4)).push(BatchNorm1d::new(4));
    layers.push(Tanh).push(Linear::new(4, 2))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut world = World::new();
    let mut nets = world.spawn_population(&network(), MODELS, Seed(7))?;
    nets.insert(Adam::default())?;

    // Into every model of the population; the first bytes say what kind of file it is.
    let path = format!("{FOLDER}/checkpoint.pt");
    let keys = nets.load_file(&path)?;
    println!("{path}: {keys}");

    let torch = safetensors::read(format!("{FOLDER}/checkpoint.safetensors"))?;
    let array = |name: &str| {
        let found = torch.get(name).and_then(|tensor| tensor.to_array::<f32>());
        found.ok_or_else(|| format!("no '{name}' of f32"))
    };
    let y = nets.eval()?.forward(Input::shared(array("x")?.view()))?;
    let expected = array("y")?;
    for y in y.outer_iter() {
        let error = y.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("a forward pass differs from PyTorch's by {error:.1e}");
        assert!(y.shape() == expected.shape() && error < TOLERANCE);
    }

    // What the optimizer has come to, into one of them.
    let file = PytorchFile::open(&path)?;
    println!("keys: {}", file.keys().join(", "));
    let mut net = nets.model(1)?;
    let own = net.optimizer_state_dict()?;
    net.load_optimizer_state_dict(&file.optimizer_state_dict("optimizer", &own)?)?;
    let state = net.optimizer_state("0.weight")?;
    let shown: Vec<_> = state.iter().map(|of| format!("{} {:?}", of.name, of.shape())).collect();
    println!("state of 0.weight: {}", shown.join(", "));
    assert_eq!(state[0].to_array::<f32>(), Some(ndarray::arr0(2.0).into_dyn()));

    // A file of DistributedDataParallel has other names.
    let keys = KeyMap::new().strip_prefix("module.");
    let key = Some("state_dict".to_owned());
    let options = FileOptions { key, keys, ..FileOptions::default() };
    assert!(nets.load_file_with(format!("{FOLDER}/ddp.pt"), &options)?.is_empty());

    // Nothing of a file runs: what would is refused by its name, and changes nothing.
    let before = nets.stacked_state_dict()?;
    let Err(error) = nets.load_file(format!("{FOLDER}/command.pt")) else {
        panic!("the file would run a command")
    };
    println!("{error}");
    assert!(error.to_string().contains("posix.system") && nets.stacked_state_dict()? == before);
    Ok(())
}
