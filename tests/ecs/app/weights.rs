//! Weights that Bevy's asset server loads, and loads anew.

use std::path::{Path, PathBuf};
use std::time::Instant;

use bevy_asset::{AssetPlugin, AssetServer, Handle};
use neurarch::asset::{
    UseWeights, Weights, WeightsFailed, WeightsOptions, WeightsPlugin, WeightsPut,
};
use neurarch::state::{checkpoint, safetensors};

use super::*;

/// A folder of assets that is there for one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("neurarch-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn app(folder: &Folder) -> App {
    let file_path = folder.0.to_str().unwrap().to_owned();
    let assets = AssetPlugin { file_path, ..AssetPlugin::default() };
    let mut app = App::new();
    app.add_plugins((TaskPoolPlugin::default(), assets, WeightsPlugin));
    app.finish();
    app.cleanup();
    app
}

/// Runs the app until there is a message.
fn wait<M: Message>(app: &mut App) -> M {
    let began = Instant::now();
    loop {
        app.update();
        if let Some(told) = app.world_mut().resource_mut::<Messages<M>>().drain().next() {
            return told;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was told");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Writes brains of a seed as a file, and gives their weights.
fn written(path: &Path, models: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut world = World::new();
    let brains = world.spawn_population(&brain(), models, Seed(seed)).unwrap().id();
    if path.extension().is_some_and(|ending| ending == "checkpoint") {
        checkpoint::save(&mut world, &[brains], path).unwrap();
    } else {
        let mut brains = world.population_mut(brains).unwrap();
        let state = match models {
            1 => brains.model(0).unwrap().state_dict().unwrap(),
            _ => brains.stacked_state_dict().unwrap(),
        };
        safetensors::save(path, &state).unwrap();
    }
    weights(&mut world, brains)
}

fn use_weights(app: &mut App, entity: Entity, file: &str, options: WeightsOptions) {
    let weights: Handle<Weights> = app.world().resource::<AssetServer>().load(file.to_owned());
    app.world_mut().entity_mut(entity).insert(UseWeights { weights, options });
}

#[test]
fn weights_are_put_into_models_when_they_are_loaded_and_when_they_change() {
    let folder = Folder::new("weights");
    let stacked = WeightsOptions { stacked: true, ..WeightsOptions::default() };
    for (file, options) in
        [("all.checkpoint", WeightsOptions::default()), ("all.safetensors", stacked)]
    {
        let path = folder.0.join(file);
        let mut app = app(&folder);
        let brains = app.world_mut().spawn_population(&brain(), 5, Seed(1)).unwrap().id();
        for seed in [7, 8] {
            let expected = written(&path, 5, seed);
            if seed == 7 {
                use_weights(&mut app, brains, file, options);
            } else {
                // What a watcher of files does.
                app.world().resource::<AssetServer>().reload(file.to_owned());
            }
            assert_eq!(wait::<WeightsPut>(&mut app).entity, brains, "{file}");
            assert_eq!(weights(app.world_mut(), brains), expected, "{file}");
        }
        // A handle that came later finds them loaded.
        let other = app.world_mut().spawn_population(&brain(), 5, Seed(2)).unwrap().id();
        use_weights(&mut app, other, file, options);
        assert_eq!(wait::<WeightsPut>(&mut app).entity, other);
        assert_eq!(weights(app.world_mut(), other), weights(app.world_mut(), brains));
    }
}

#[test]
fn one_model_takes_the_weights_of_one() {
    let folder = Folder::new("one");
    let mut app = app(&folder);
    let brains = app.world_mut().spawn_population(&brain(), 3, Seed(1)).unwrap().id();
    let before = weights(app.world_mut(), brains);
    let root = app.world().population(brains).unwrap().models()[1];
    let of_one = written(&folder.0.join("one.safetensors"), 1, 7);
    let of_three = written(&folder.0.join("three.checkpoint"), 3, 9);
    let row = |of: &[Vec<f32>], rows: usize, row: usize| -> Vec<Vec<f32>> {
        let part = |all: &Vec<f32>| all.chunks(all.len() / rows).nth(row).unwrap().to_vec();
        of.iter().map(part).collect()
    };
    for (file, model, expected) in
        [("one.safetensors", 0, row(&of_one, 1, 0)), ("three.checkpoint", 2, row(&of_three, 3, 2))]
    {
        let options = WeightsOptions { model, ..WeightsOptions::default() };
        use_weights(&mut app, root, file, options);
        wait::<WeightsPut>(&mut app);
        let now = weights(app.world_mut(), brains);
        assert_eq!(row(&now, 3, 1), expected, "{file}");
        assert_eq!((row(&now, 3, 0), row(&now, 3, 2)), (row(&before, 3, 0), row(&before, 3, 2)));
    }
    // And all models the weights of one.
    use_weights(&mut app, brains, "one.safetensors", WeightsOptions::default());
    wait::<WeightsPut>(&mut app);
    let now = weights(app.world_mut(), brains);
    assert!((0..3).all(|model| row(&now, 3, model) == row(&of_one, 1, 0)));
}

#[test]
fn weights_that_do_not_fit_are_told_and_change_nothing() {
    let folder = Folder::new("misfit");
    let mut app = app(&folder);
    let brains = app.world_mut().spawn_population(&brain(), 4, Seed(1)).unwrap().id();
    let before = weights(app.world_mut(), brains);
    written(&folder.0.join("three.checkpoint"), 3, 9);
    use_weights(&mut app, brains, "three.checkpoint", WeightsOptions::default());
    let told = wait::<WeightsFailed>(&mut app);
    assert_eq!(told.error.to_string(), "expected a population of 3 models, got 4");
    let layer = app.world().population(brains).unwrap().models()[0];
    let layer = app.world_mut().module_mut(layer).unwrap().at("0").unwrap().id();
    use_weights(&mut app, layer, "three.checkpoint", WeightsOptions::default());
    let told = wait::<WeightsFailed>(&mut app);
    assert_eq!(
        told.error.to_string(),
        format!("a checkpoint is for a population or a model: {layer} is the root of none")
    );
    let other = written(&folder.0.join("other.safetensors"), 1, 7);
    drop(other);
    use_weights(&mut app, layer, "other.safetensors", WeightsOptions::default());
    let told = wait::<WeightsFailed>(&mut app).error.to_string();
    assert!(told.starts_with("Error(s) in loading state_dict for Linear:"), "{told}");
    assert_eq!(weights(app.world_mut(), brains), before);
    // A file that is none is an error of the asset server.
    std::fs::write(folder.0.join("none.safetensors"), b"{").unwrap();
    let handle: Handle<Weights> = app.world().resource::<AssetServer>().load("none.safetensors");
    let began = Instant::now();
    let failed = loop {
        app.update();
        let state = app.world().resource::<AssetServer>().load_state(&handle);
        if let bevy_asset::LoadState::Failed(error) = state {
            break error.to_string();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nothing was told");
    };
    assert!(failed.contains("none.safetensors"), "{failed}");
}
