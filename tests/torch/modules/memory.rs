//! What models take in memory: figures that plans, tapes and columns know, in the lines of PyTorch's recipes.

use ndarray::{Array2, Array3, ArrayView2};
use neurarch::prelude::*;
use neurarch::utils::{detailed_memory_analysis, memory_profiler};

const MODELS: usize = 4;
const BATCH: usize = 512;

fn spawn(world: &mut World) -> PopulationMut<'_> {
    let net = Sequential::new().push(Linear::new(64, 256)).push(Tanh).push(Linear::new(256, 32));
    world.spawn_population(&net, MODELS, Seed(0)).unwrap()
}

/// Bytes of the parameters: rows are padded to 64 bytes and these need none.
const COLUMNS: usize = MODELS * 4 * (64 * 256 + 256 + 256 * 32 + 32);

fn profiled_step(world: &mut World) -> Result<(), StepError> {
    let mut populations = world.query::<(Entity, &neurarch::components::population::Population)>();
    let id = populations.iter(world).map(|(id, _)| id).next().unwrap();
    let mut models = world.population_mut(id).unwrap();
    let (x, y) =
        (Array3::<f32>::ones((MODELS, BATCH, 64)), Array3::<f32>::ones((MODELS, BATCH, 32)));
    models.train_step(&x, &y, &MSELoss::default()).map(drop)
}

#[test]
fn a_function_is_profiled() {
    let mut world = World::new();
    spawn(&mut world).insert(SGD { momentum: 0.9, ..SGD::default() }).unwrap();
    // A companion for each parameter.
    let (done, profile) = memory_profiler(&mut world, profiled_step);
    done.unwrap();
    assert_eq!(profile.name, "profiled_step");
    assert!(profile.initial_memory >= COLUMNS && profile.initial_memory <= profile.final_memory);
    // One model's activations at least, and all of them at most.
    let activations = 4 * BATCH * (256 + 32);
    let arenas = profile.peak_memory - profile.final_memory;
    assert!(arenas >= activations && arenas <= 3 * MODELS * activations, "{arenas}");
    let (_, again) = memory_profiler(&mut world, |_| ());
    assert_eq!(again.memory_increase(), 0);
    assert_eq!(again.peak_memory, again.final_memory, "nothing ran");
    let held = format!("{:.2} MB", again.final_memory as f64 / 1024.0 / 1024.0);
    assert_eq!(
        again.to_string(),
        format!(
            "Function a_function_is_profiled:\n  Initial memory: {held}\n  Final memory: {held}\n  Peak memory: {held}\n  \
             Memory increase: 0.00 MB"
        )
    );
}

#[test]
fn a_forward_pass_is_analyzed_module_by_module() {
    let mut world = World::new();
    let mut models = spawn(&mut world);
    let x = Array3::<f32>::ones((MODELS, BATCH, 64));
    let analysis = detailed_memory_analysis(&mut models, &x).unwrap();
    let names: Vec<_> = analysis.0.modules.iter().map(|module| module.name.as_str()).collect();
    assert_eq!(names, ["0", "1", "2"]);
    let sizes: Vec<_> = analysis.0.modules.iter().map(|module| module.output_size).collect();
    let size = |features: usize| 4 * MODELS * BATCH * features;
    assert_eq!(sizes, [size(256), size(256), size(32)]);
    let mut current = COLUMNS as i64;
    for module in &analysis.0.modules {
        current += module.memory_delta;
        assert_eq!(module.current_memory as i64, current);
        assert!(module.current_memory <= analysis.0.peak);
    }
    // The tape keeps what goes into the layers.
    assert!(analysis.0.peak >= COLUMNS + size(64) + size(256) + size(32));
    let text = analysis.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "=== Memory Analysis Results ===");
    assert_eq!(lines.len(), 5);
    let last = "2                              | Memory Δ: ";
    assert!(
        lines[3].starts_with(last) && lines[3].ends_with(" MB | Output Size:     0.25 MB"),
        "{text}"
    );
    assert!(lines[4].starts_with("Peak Memory Usage: ") && lines[4].ends_with(" MB"));

    let kept = models.no_grad(|models| detailed_memory_analysis(models, &x)).unwrap();
    assert!(kept.0.peak < analysis.0.peak, "without a tape");
    let of_one =
        detailed_memory_analysis(&mut models.model(1).unwrap(), &Array2::<f32>::ones((BATCH, 64)));
    assert!(of_one.unwrap().0.peak < kept.0.peak);
    let layer =
        detailed_memory_analysis(&mut models.at("2"), &Array3::<f32>::ones((MODELS, BATCH, 256)));
    assert_eq!(layer.unwrap().0.modules[0].output_size, size(32));
    let wrong =
        detailed_memory_analysis(&mut models, &Array3::<f32>::ones((MODELS + 1, BATCH, 64)));
    assert_eq!(wrong.unwrap_err().to_string(), "x: expected numbers for 4 models, got 5");
}

#[test]
fn a_batch_that_does_not_fit_is_an_error_and_nothing_changes() {
    let mut world = World::new();
    let net =
        Sequential::new().push(Linear::new(1, 1 << 12)).push(Tanh).push(Linear::new(1 << 12, 1));
    let mut models = world.spawn_population(&net, 1, Seed(0)).unwrap();
    models.insert(SGD::default()).unwrap();
    let few = Array2::<f32>::ones((8, 1));
    let before = models.no_grad(|models| models.forward(Input::shared(few.view()))).unwrap();
    // 256 GiB of activations.
    let large = Array2::<f32>::ones((1 << 24, 1));
    let large: ArrayView2<'_, f32> = large.view();
    for error in [
        models.forward(Input::shared(large)).unwrap_err(),
        models
            .train_step(Input::shared(large), Input::shared(large), &MSELoss::default())
            .unwrap_err(),
        detailed_memory_analysis(&mut models, Input::shared(large)).unwrap_err(),
    ] {
        let words = error.to_string();
        assert!(words.contains("can't allocate memory: "), "{words}");
    }
    let after = models.no_grad(|models| models.forward(Input::shared(few.view()))).unwrap();
    assert_eq!(after, before);
}
