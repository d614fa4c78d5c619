//! What a module type does itself when it is saved and loaded: other names by version, shards, more metadata; and saving
//! into a state dict that is there.

use ndarray::{ArrayD, Axis, array, concatenate};
use neurarch::components::state::{Loading, LocalMetadata};
use neurarch::prelude::*;

/// Saves its weight as two shards; called it `kernel` in its first version.
#[derive(Component, Clone, Debug, PartialEq)]
struct Sharded {
    panics: bool,
}

impl Module for Sharded {
    fn declare(&self, declare: &mut Declare) {
        declare.parameter("weight", [4, 2]);
        declare.parameter("bias", [4]);
    }

    fn reset(&self, _: &str) -> Init {
        Init::Normal { mean: 0.0, std: 1.0 }
    }

    fn version(&self) -> u32 {
        2
    }

    fn save_to_state_dict(
        &self,
        saved: &mut StateDict,
        prefix: &str,
        metadata: &mut LocalMetadata,
    ) {
        assert!(!self.panics, "out of paper");
        metadata.entries.insert("shards".into(), "2".into());
        let name = format!("{prefix}weight");
        let weight = saved.remove(&name).unwrap().to_array::<f32>().unwrap();
        let axis = Axis(weight.ndim() - 2);
        let (first, second) = weight.view().split_at(axis, 2);
        saved.insert(Tensor::new(format!("{name}.0"), first));
        saved.insert(Tensor::new(format!("{name}.1"), second));
    }

    fn load_from_state_dict(
        &self,
        state: &mut StateDict,
        prefix: &str,
        metadata: &LocalMetadata,
        loading: &mut Loading<'_>,
    ) {
        if metadata.version == Some(1) {
            state.rename(&format!("{prefix}kernel"), format!("{prefix}weight"));
            return;
        }
        if metadata.entries.get("shards").is_some_and(|shards| shards != "2") {
            loading.error_msgs.push(format!("{prefix}weight: expected two shards"));
        }
        let name = format!("{prefix}weight");
        let shards = [0, 1].map(|shard| state.remove(&format!("{name}.{shard}")));
        if let [Some(first), Some(second)] = shards {
            let shards: [ArrayD<f32>; 2] = [first, second].map(|of| of.to_array().unwrap());
            let axis = Axis(shards[0].ndim() - 2);
            let weight = concatenate(axis, &[shards[0].view(), shards[1].view()]).unwrap();
            state.insert(Tensor::new(name, weight.view()));
        }
    }
}

fn population() -> (World, Entity, Vec<Entity>) {
    let mut world = World::new();
    let model = Sequential::new().push(Linear::new(2, 2)).push(Sharded { panics: false });
    let models = world.spawn_population(&model, 3, Seed(1)).unwrap().id();
    let roots = world.population(models).unwrap().models().to_vec();
    (world, models, roots)
}

#[test]
fn a_type_splits_and_joins_shards_of_one_model_and_of_all() {
    let (mut world, models, roots) = population();
    let state = world.module_mut(roots[1]).unwrap().state_dict().unwrap();
    let keys = ["0.weight", "0.bias", "1.bias", "1.weight.0", "1.weight.1"];
    assert_eq!(state.keys().collect::<Vec<_>>(), keys);
    assert_eq!(state.get("1.weight.0").unwrap().shape(), [2, 2]);
    let local = state.local_metadata("1").unwrap();
    assert_eq!((local.version, local.entries["shards"].as_str()), (Some(2), "2"));
    world.module_mut(roots[0]).unwrap().load_state_dict(&state).unwrap();
    let weights = [0, 1]
        .map(|model| world.module_mut(roots[model]).unwrap().parameter::<f32>("1.weight").unwrap());
    assert_eq!(weights[0], weights[1]);

    let before = world.population_mut(models).unwrap().stack::<f32>("1.weight").unwrap();
    let stacked = world.population_mut(models).unwrap().stacked_state_dict().unwrap();
    assert_eq!(stacked.get("1.weight.1").unwrap().shape(), [3, 2, 2]);
    world.population_mut(models).unwrap().reset_parameters().unwrap();
    world
        .population_mut(models)
        .unwrap()
        .load_stacked_state_dict(&stacked, LoadOptions::default())
        .unwrap();
    assert_eq!(world.population_mut(models).unwrap().stack::<f32>("1.weight").unwrap(), before);

    let mut wrong = state.clone();
    let local = &mut wrong.metadata.iter_mut().find(|(path, _)| path == "1").unwrap().1;
    local.entries.insert("shards".into(), "3".into());
    let error =
        world.module_mut(roots[2]).unwrap().load_state_dict(&wrong).unwrap_err().to_string();
    assert!(error.ends_with("\n\t1.weight: expected two shards"), "{error}");
}

#[test]
fn keys_of_an_older_version_are_renamed() {
    let (mut world, _, roots) = population();
    let kernel = array![[1.0_f32, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]];
    let mut state = world.module_mut(roots[0]).unwrap().state_dict().unwrap();
    ["1.weight.0", "1.weight.1"].iter().for_each(|name| _ = state.remove(name));
    state.insert(Tensor::new("1.kernel", kernel.view()));
    let error =
        world.module_mut(roots[0]).unwrap().load_state_dict(&state).unwrap_err().to_string();
    assert!(error.contains("Missing key(s) in state_dict: \"1.weight\""), "{error}");
    state.metadata = vec![("1".into(), 1.into())];
    world.module_mut(roots[0]).unwrap().load_state_dict(&state).unwrap();
    assert_eq!(
        world.module_mut(roots[0]).unwrap().parameter::<f32>("1.weight").unwrap(),
        kernel.into_dyn()
    );
}

/// torch: `net.state_dict(destination=state, prefix="b.")`.
#[test]
fn a_state_dict_that_is_there_gets_tensors_and_keeps_its_own() {
    let (mut world, _, roots) = population();
    let mut state = StateDict::from_iter([
        Tensor::new("a", array![1.0_f32].view()),
        Tensor::new("b.0.weight", array![2.0_f32].view()),
    ]);
    world.module_mut(roots[0]).unwrap().state_dict_into(&mut state, "b.").unwrap();
    let keys = ["a", "b.0.weight", "b.0.bias", "b.1.bias", "b.1.weight.0", "b.1.weight.1"];
    assert_eq!(state.keys().collect::<Vec<_>>(), keys);
    assert_eq!(state.get("b.0.weight").unwrap().shape(), [2, 2]);
    assert_eq!(state.version("b.1"), Some(2));
    let before = state.clone();
    world.module_mut(roots[0]).unwrap().state_dict_into(&mut state, "b.").unwrap();
    assert_eq!(state, before);
}

#[test]
fn a_type_that_panics_is_an_error_and_changes_nothing() {
    let mut world = World::new();
    let model = Sequential::new().push(Sharded { panics: true });
    let models = world.spawn_population(&model, 1, Seed(1)).unwrap().id();
    let root = world.population(models).unwrap().models()[0];
    let mut state = StateDict::new();
    let error =
        world.module_mut(root).unwrap().state_dict_into(&mut state, "").unwrap_err().to_string();
    assert_eq!(error, "0: save_to_state_dict panicked: out of paper");
    assert_eq!(state, StateDict::new());
}
