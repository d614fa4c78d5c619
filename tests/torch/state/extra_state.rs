//! What a module keeps beside parameters and buffers goes through state dicts and files, model by model. The
//! names and texts are those of torch 2.15 for the same module.

use ndarray::{Array3, arr0, array};
use neurarch::components::module::ExtraStateError;
use neurarch::prelude::*;
use neurarch::state::safetensors;

/// `y = scale · x`, which knows how often it was shown to somebody.
#[derive(Component, Clone, Debug, PartialEq)]
struct Shown {
    times: i64,
}

impl Module for Shown {
    fn declare(&self, declare: &mut Declare) {
        declare.parameter("scale", [2]);
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        x * call.parameter("scale")
    }

    fn structural(&self) -> Self {
        Shown { times: 0 }
    }

    fn get_extra_state(&self) -> Option<Tensor> {
        Some(Tensor::new("", arr0(self.times).view()))
    }

    fn set_extra_state(&mut self, state: &Tensor) -> Result<(), ExtraStateError> {
        let times = state.to_array::<i64>().filter(|times| times.ndim() == 0);
        self.times = times.ok_or(ExtraStateError("expected one i64".into()))?[[]];
        Ok(())
    }
}

/// Three models, shown 1, 2 and 3 times.
fn spawn() -> (World, Entity) {
    let mut world = World::new();
    let net = Sequential::new().push(Shown { times: 0 }).push(Linear::new(2, 2));
    let nets = world.spawn_population(&net, 3, Seed(1)).unwrap().id();
    for (times, root) in (1..).zip(world.population(nets).unwrap().models().to_vec()) {
        let module = world.module_mut(root).unwrap().get_submodule("0").unwrap();
        world.entity_mut(module).insert(Shown { times });
    }
    (world, nets)
}

fn times(world: &mut World, population: Entity) -> Vec<i64> {
    let roots = world.population(population).unwrap().models().to_vec();
    let of = |root| {
        let module = world.module_mut(root).unwrap().get_submodule("0").unwrap();
        world.get::<Shown>(module).unwrap().times
    };
    roots.into_iter().map(of).collect()
}

#[test]
fn it_is_saved_behind_the_modules_own_and_loaded_again() {
    let (mut world, nets) = spawn();
    let roots = world.population(nets).unwrap().models().to_vec();
    let state = world.module_mut(roots[1]).unwrap().state_dict().unwrap();
    let keys: Vec<_> = state.keys().collect();
    assert_eq!(keys, ["0.scale", "0._extra_state", "1.weight", "1.bias"]);
    assert_eq!(state.get("0._extra_state").unwrap().to_array(), Some(arr0(2_i64).into_dyn()));

    let keys = world.module_mut(roots[2]).unwrap().load_state_dict(&state).unwrap();
    assert!(keys.is_empty());
    assert_eq!(times(&mut world, nets), [1, 2, 2]);
    world.population_mut(nets).unwrap().load_state_dict(&state).unwrap();
    assert_eq!(times(&mut world, nets), [2, 2, 2]);
    // Models whose extra states differ are one structure.
    assert!(world.population_mut(nets).unwrap().stacked_state_dict().is_ok());
    world.population_mut(nets).unwrap().forward(&Array3::<f32>::ones((3, 4, 2))).unwrap();
}

#[test]
fn each_model_of_a_stack_has_its_own() {
    let (mut world, nets) = spawn();
    let stacked = world.population_mut(nets).unwrap().stacked_state_dict().unwrap();
    let extra = stacked.get("0._extra_state").unwrap();
    assert_eq!(extra.to_array(), Some(array![1_i64, 2, 3].into_dyn()));
    let (mut other, others) = spawn();
    let mut turned = stacked.clone();
    turned.insert(Tensor::new("0._extra_state", array![7_i64, 8, 9].view()));
    other
        .population_mut(others)
        .unwrap()
        .load_stacked_state_dict(&turned, LoadOptions::default())
        .unwrap();
    assert_eq!(times(&mut other, others), [7, 8, 9]);
    turned.insert(Tensor::new("0._extra_state", array![7_i64, 8].view()));
    let error = other
        .population_mut(others)
        .unwrap()
        .load_stacked_state_dict(&turned, LoadOptions::default());
    let text = "expected extra states of 3 models, got shape torch.Size([2])";
    assert!(error.unwrap_err().to_string().contains(text));
}

#[test]
fn keys_that_are_missing_or_not_expected_are_told_as_in_torch() {
    let (mut world, nets) = spawn();
    let root = world.population(nets).unwrap().models()[0];
    let state = world.module_mut(root).unwrap().state_dict().unwrap();
    let partly = LoadOptions { strict: false, ..LoadOptions::default() };
    let mut less = state.clone();
    less.remove("0._extra_state");
    let text = "Error(s) in loading state_dict for Sequential:\n\t\
                Missing key(s) in state_dict: \"0._extra_state\". ";
    assert_eq!(
        world.module_mut(root).unwrap().load_state_dict(&less).unwrap_err().to_string(),
        text
    );
    let keys = world.module_mut(root).unwrap().load_state_dict_with(&less, partly).unwrap();
    let text = "_IncompatibleKeys(missing_keys=['0._extra_state'], unexpected_keys=[])";
    assert_eq!(keys.to_string(), text);
    assert_eq!(times(&mut world, nets), [1, 2, 3]);

    let mut more = state;
    for name in ["1._extra_state", "_extra_state", "0.x"] {
        more.insert(Tensor::new(name, arr0(1_i64).view()));
    }
    let text = "Error(s) in loading state_dict for Sequential:\n\tUnexpected key(s) in \
                state_dict: \"_extra_state\", \"0.x\", \"1._extra_state\". ";
    assert_eq!(
        world.module_mut(root).unwrap().load_state_dict(&more).unwrap_err().to_string(),
        text
    );
    let keys = world.module_mut(root).unwrap().load_state_dict_with(&more, partly).unwrap();
    assert_eq!(keys.unexpected_keys, ["_extra_state", "0.x", "1._extra_state"]);
}

#[test]
fn a_state_that_a_module_does_not_take_is_an_error_that_names_it() {
    let (mut world, nets) = spawn();
    let root = world.population(nets).unwrap().models()[0];
    let mut state = world.module_mut(root).unwrap().state_dict().unwrap();
    state.insert(Tensor::new("0._extra_state", array![1.5_f32].view()));
    let error = world.module_mut(root).unwrap().load_state_dict(&state).unwrap_err();
    assert_eq!(error.to_string(), "0._extra_state: expected one i64");
    assert_eq!(times(&mut world, nets), [1, 2, 3]);
}

#[test]
fn it_crosses_in_a_safetensors_file() {
    let (mut world, nets) = spawn();
    let root = world.population(nets).unwrap().models()[2];
    let name = format!("neurarch-{}-extra.safetensors", std::process::id());
    let path = std::env::temp_dir().join(name);
    safetensors::save(&path, &world.module_mut(root).unwrap().state_dict().unwrap()).unwrap();
    let read = safetensors::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let first = world.population(nets).unwrap().models()[0];
    world.module_mut(first).unwrap().load_state_dict(&read).unwrap();
    assert_eq!(times(&mut world, nets), [3, 2, 3]);
}
