//! Interchange with PyTorch: one model and a whole population cross in both directions as safetensors, by torch's names.
//!
//! ```text
//! cargo run --release --example interchange -- target/interchange
//! python examples/interchange.py check target/interchange
//! ```
//!
//! What PyTorch wrote is in `data/torch.safetensors`, by `python examples/interchange.py write examples/data/torch.safetensors`:
//! weights of one model and of five, an input, and what PyTorch computes from it.

#![expect(clippy::print_stdout, reason = "a program talks to its user")]

use std::error::Error;
use std::path::Path;

use ndarray::{Array2, ArrayD, Axis, s};
use neurarch::prelude::*;
use neurarch::state::safetensors;

const THEIRS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/torch.safetensors");
const MODELS: usize = 5;
const STEPS: usize = 50;
/// Sums run in another order than PyTorch's.
const TOLERANCE: f32 = 1e-5;

/// `nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3))`.
fn network() -> Sequential {
    let layers = Sequential::new().push(Linear::new(8, 16)).push(LayerNorm::new([16]));
    layers.push(Tanh).push(Linear::new(16, 3))
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).unwrap_or("target/interchange".into());
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    let mut world = World::new();
    let mut population = world.spawn_population(&network(), MODELS, Seed(7))?;

    read_theirs(&mut population)?;
    write_ours(&mut population, folder)?;
    println!("python examples/interchange.py check {}", folder.display());
    Ok(())
}

/// Loads what PyTorch wrote, and computes what PyTorch computed.
fn read_theirs(population: &mut PopulationMut<'_>) -> Result<(), Box<dyn Error>> {
    let file = safetensors::read(THEIRS)?;
    let part = |prefix: &str| -> StateDict {
        let own = file.iter().filter_map(|tensor| {
            let mut own = tensor.clone();
            own.name = tensor.name.strip_prefix(prefix)?.to_owned();
            Some(own)
        });
        own.collect()
    };
    let array = |name: &str| {
        let tensor = file.get(name).ok_or_else(|| format!("{THEIRS} has no '{name}'"))?;
        tensor.to_array::<f32>().ok_or_else(|| format!("'{name}' is not of f32"))
    };
    let x = array("input")?;

    // A state dict of one model, into the second of ours: its neighbors stay as they are.
    let keys = population.model(1)?.load_state_dict(&part("model."))?;
    let y = population.forward(Input::shared(x.view()))?.index_axis(Axis(0), 1).to_owned();
    let error = difference(&y, &array("model_output")?);
    let n_keys = part("model.").len();
    println!("PyTorch's model:      {n_keys} keys match, results differ by {error:.1e}");
    assert!(keys.is_empty() && error < TOLERANCE);

    // What `torch.func.stack_module_state` gives, into all.
    population.load_stacked_state_dict(&part("population."), LoadOptions::default())?;
    let y = population.forward(Input::shared(x.view()))?;
    let error = difference(&y, &array("population_output")?);
    println!("PyTorch's population: {MODELS} models, results differ by {error:.1e}");
    assert!(error < TOLERANCE);

    // A file that does not fit is refused, in torch's words.
    let mut wrong = part("model.");
    wrong.rename("0.bias", "0.offset");
    let Err(error) = population.model(1)?.load_state_dict(&wrong) else {
        panic!("a key is missing")
    };
    println!("{error}");
    assert!(error.to_string().contains("Missing key(s) in state_dict: \"0.bias\""));
    Ok(())
}

/// Trains the models a little, and writes them for PyTorch: one, all, and what they compute.
fn write_ours(population: &mut PopulationMut<'_>, folder: &Path) -> Result<(), Box<dyn Error>> {
    let x = Array2::from_shape_fn((32, 8), |(i, f)| ((i * 31 + f * 17) % 23) as f32 / 11.0 - 1.0);
    let target = x.slice(s![.., ..3]).mapv(f32::sin);
    let rate = |model: usize| 0.002 * (1 + model) as f64;
    population.insert_with(|model| Adam { lr: rate(model), ..Adam::default() })?;
    let mut step = || {
        let (x, target) = (Input::shared(x.view()), Input::shared(target.view()));
        population.train_step(x, target, &MSELoss::default())
    };
    let first = step()?;
    let mut last = first.clone();
    for _ in 0..STEPS {
        last = step()?;
    }
    let y = population.forward(Input::shared(x.view()))?;
    println!("losses after {STEPS} steps: {first:.3} became {last:.3}");
    assert!(last.iter().zip(&first).all(|(last, first)| last < first));

    let model = population.model(2)?.state_dict()?;
    let all = population.stacked_state_dict()?;
    let results = [Tensor::new("input", x.view()), Tensor::new("output", y.view())];
    for (name, tensors) in
        [("model", &model[..]), ("population", &all[..]), ("results", &results[..])]
    {
        let path = folder.join(name).with_extension("safetensors");
        safetensors::save(&path, tensors)?;
        let read = safetensors::read(&path)?;
        let same = tensors.iter().all(|tensor| read.get(&tensor.name) == Some(tensor));
        assert!(same && read.len() == tensors.len(), "what is read is what was written");
        let shapes: Vec<_> =
            tensors.iter().map(|of| format!("{} {:?}", of.name, of.shape())).collect();
        println!("{}: {}", path.display(), shapes.join(", "));
    }
    Ok(())
}

/// The greatest difference of two arrays, infinite if their shapes differ.
fn difference(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    let pairs = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    if a.shape() == b.shape() { pairs.fold(0.0, f32::max) } else { f32::INFINITY }
}
