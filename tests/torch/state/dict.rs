//! Traversal and state: torch's names, orders and texts; hooks that do not slow a model; whole populations.

use std::sync::{Arc, Mutex};

use ndarray::{Array1, Array2, Array3, Axis, array};
use neurarch::bevy_ecs::prelude::*;
use neurarch::components::module::mode::{Bits, Mode};
use neurarch::hooks::Target;
use neurarch::nn::Value;
use neurarch::prelude::*;

/// A network with a parameter, two buffers and a module under two names.
#[derive(Component, Clone, Debug, PartialEq)]
#[component(immutable)]
struct Net;

impl Module for Net {
    fn declare(&self, declare: &mut Declare) {
        declare.parameter("scale", [2]).no_parameter("shift");
        declare.buffer("mean", [3], true).buffer("cache", [3], false);
        declare.child("body", Sequential::new().push(Linear::new(2, 3)).push(Tanh));
        declare.child("head", Linear::new(3, 2)).share("again", "body");
    }

    fn version(&self) -> u32 {
        2
    }
}

const MODELS: usize = 3;

fn net() -> (World, Entity, Entity) {
    let mut world = World::new();
    let nets = world.spawn_population(&Net, MODELS, Seed(5)).unwrap().id();
    let root = world.population(nets).unwrap().models()[0];
    (world, nets, root)
}

const KEYS: [&str; 8] = [
    "scale",
    "mean",
    "body.0.weight",
    "body.0.bias",
    "head.weight",
    "head.bias",
    "again.0.weight",
    "again.0.bias",
];

fn names(named: Vec<neurarch::systems::structure::traverse::NamedTensor>) -> Vec<String> {
    named.into_iter().map(|of| of.name).collect()
}

#[test]
fn everything_is_listed_in_torchs_order() {
    let (mut world, _, root) = net();
    let own = |modules: Vec<(String, Entity)>| -> Vec<String> {
        modules.into_iter().map(|(name, _)| name).collect()
    };
    let modules = own(world.module_mut(root).unwrap().named_modules().unwrap());
    assert_eq!(modules, ["", "body", "body.0", "body.1", "head"]);
    let all = Listing { remove_duplicate: false, prefix: "net", ..Listing::default() };
    let modules = own(world.module_mut(root).unwrap().named_modules_with(all).unwrap());
    let twice = ["net", "net.body", "net.body.0", "net.body.1", "net.head"];
    assert_eq!(modules[..5], twice);
    assert_eq!(modules[5..], ["net.again", "net.again.0", "net.again.1"]);
    assert_eq!(own(world.module_mut(root).unwrap().named_children().unwrap()), ["body", "head"]);

    let parameters = names(world.module_mut(root).unwrap().named_parameters().unwrap());
    assert_eq!(parameters, ["scale", "body.0.weight", "body.0.bias", "head.weight", "head.bias"]);
    let parameters = names(world.module_mut(root).unwrap().named_parameters_with(all).unwrap());
    assert_eq!(parameters[5..], ["net.again.0.weight", "net.again.0.bias"]);
    let shallow = Listing { recurse: false, ..Listing::default() };
    assert_eq!(
        names(world.module_mut(root).unwrap().named_parameters_with(shallow).unwrap()),
        ["scale"]
    );
    assert_eq!(names(world.module_mut(root).unwrap().named_buffers().unwrap()), ["mean", "cache"]);
    let body = world.module_mut(root).unwrap().get_submodule("again").unwrap();
    assert_eq!(
        names(world.module_mut(body).unwrap().named_parameters().unwrap()),
        ["0.weight", "0.bias"]
    );

    let mut visited = Vec::new();
    world
        .module_mut(root)
        .unwrap()
        .apply(|world, module| {
            visited.push(world.module_mut(module).unwrap().class_name().unwrap())
        })
        .unwrap();
    // torch's apply visits a module under each name that it has in different parents, here in one.
    assert_eq!(visited, ["Linear", "Tanh", "Sequential", "Linear", "Net"]);
    let nobody = world.spawn_empty().id();
    let error = world.module_mut(nobody).unwrap().named_parameters().unwrap_err();
    assert!(error.to_string().ends_with("is no module of a model"), "{error}");
}

#[test]
fn a_state_dict_has_torchs_keys_versions_and_prefix() {
    let (mut world, _, root) = net();
    let state = world.module_mut(root).unwrap().state_dict().unwrap();
    assert_eq!(state.keys().collect::<Vec<_>>(), KEYS);
    let paths: Vec<_> = state.metadata.iter().map(|(path, _)| path.as_str()).collect();
    let modules = ["", "body", "body.0", "body.1", "head", "again", "again.0", "again.1"];
    assert_eq!(paths, modules);
    assert_eq!((state.version(""), state.version("head")), (Some(2), Some(1)));
    let head = world.module_mut(root).unwrap().get_submodule("head").unwrap();
    let state = world.module_mut(head).unwrap().state_dict_with("net.head.").unwrap();
    assert_eq!(state.keys().collect::<Vec<_>>(), ["net.head.weight", "net.head.bias"]);
    assert_eq!(state.version("net.head"), Some(1));
}

#[test]
fn loading_tells_what_does_not_match_and_loads_what_fits() {
    let (mut world, _, root) = net();
    let mut state = world.module_mut(root).unwrap().state_dict().unwrap();
    for tensor in &mut state.tensors {
        *tensor = Tensor::new(
            tensor.name.clone(),
            ndarray::ArrayD::<f32>::ones(ndarray::IxDyn(tensor.shape())).view(),
        );
    }
    state.remove("head.weight");
    state.insert(Tensor::new("mean", array![[1.0_f32, 2.0]].view()));
    state.insert(Tensor::new("extra", array![1.0_f32].view()));
    state.insert(Tensor::new("cache", array![1.0_f32, 1.0, 1.0].view()));
    state.insert(Tensor::new("body.7.weight", array![1.0_f32].view()));
    let error = world.module_mut(root).unwrap().load_state_dict(&state).unwrap_err();
    let text = "Error(s) in loading state_dict for Net:\n\t\
        Missing key(s) in state_dict: \"head.weight\". \n\t\
        Unexpected key(s) in state_dict: \"extra\", \"cache\", \"body.7.weight\". \n\t\
        size mismatch for mean: copying a param with shape torch.Size([1, 2]) from checkpoint, \
        the shape in current model is torch.Size([3]).";
    assert_eq!(error.to_string(), text);
    // As in torch, what fits is there all the same.
    assert_eq!(
        world.module_mut(root).unwrap().parameter::<f32>("scale").unwrap(),
        Array1::<f32>::ones(2).into_dyn()
    );
    let partly = LoadOptions { strict: false, ..LoadOptions::default() };
    let error = world
        .module_mut(root)
        .unwrap()
        .load_state_dict_with(&state, partly)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("Error(s) in loading state_dict for Net:\n\tsize mismatch for mean"));
    state.remove("mean");
    let keys = world.module_mut(root).unwrap().load_state_dict_with(&state, partly).unwrap();
    assert_eq!(keys.missing_keys, ["mean", "head.weight"]);
    assert_eq!(keys.unexpected_keys, ["extra", "cache", "body.7.weight"]);
}

#[test]
fn a_norms_state_of_unknown_or_older_version_may_lack_how_many_batches_it_has_seen() {
    let mut world = World::new();
    let tracking =
        InstanceNorm1d { affine: true, track_running_stats: true, ..InstanceNorm1d::new(2) };
    let norms = Sequential::new().push(BatchNorm1d::new(2)).push(tracking);
    let all = world.spawn_population(&norms, 1, Seed(1)).unwrap().id();
    let root = world.population(all).unwrap().models()[0];
    let mut state = world.module_mut(root).unwrap().state_dict().unwrap();
    assert_eq!(
        (state.version(""), state.version("0"), state.version("1")),
        (Some(1), Some(2), Some(2))
    );
    let keys = ["0.num_batches_tracked", "1.num_batches_tracked"];
    keys.iter().for_each(|key| _ = state.remove(key));
    let any = LoadOptions { strict: false, ..LoadOptions::default() };
    let missing = |world: &mut World, state: &StateDict| {
        world.module_mut(root).unwrap().load_state_dict_with(state, any).unwrap().missing_keys
    };
    assert_eq!(missing(&mut world, &state), keys);
    state.metadata = vec![(String::new(), 1.into()), ("0".into(), 1.into())];
    assert!(missing(&mut world, &state).is_empty(), "the version of 1 is unknown");
    state.metadata.clear();
    state.remove("0.bias");
    assert_eq!(missing(&mut world, &state), ["0.bias"]);
}

#[test]
fn numbers_of_another_type_are_converted_or_assigned() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(2, 1), 2, Seed(5)).unwrap().id();
    let roots = world.population(layers).unwrap().models().to_vec();
    world.population_mut(layers).unwrap().forward(&Array3::<f32>::ones((2, 1, 2))).unwrap();
    world.population_mut(layers).unwrap().backward_from(&Array3::<f32>::ones((2, 1, 1))).unwrap();
    let weight = Tensor::new("weight", array![[1.5_f64, 2.0]].view());
    let state = StateDict::from_iter([weight, Tensor::new("bias", array![3_i64].view())]);
    assert!(world.module_mut(roots[0]).unwrap().load_state_dict(&state).unwrap().is_empty());
    assert_eq!(
        world.module_mut(roots[0]).unwrap().parameter::<f32>("weight").unwrap(),
        array![[1.5, 2.0]].into_dyn()
    );
    assert_eq!(
        world.module_mut(roots[0]).unwrap().parameter::<f32>("bias").unwrap(),
        array![3.0].into_dyn()
    );
    assert!(world.module_mut(roots[0]).unwrap().gradient::<f32>("weight").unwrap().is_some());

    let assign = LoadOptions { assign: true, strict: false };
    let error =
        world.module_mut(roots[0]).unwrap().load_state_dict_with(&state, assign).unwrap_err();
    assert!(
        error.to_string().contains("expected a parameter of a floating-point type, got i64"),
        "{error}"
    );
    assert_eq!(
        world.module_mut(roots[0]).unwrap().parameter::<f64>("weight").unwrap(),
        array![[1.5, 2.0]].into_dyn()
    );
    assert!(world.module_mut(roots[1]).unwrap().parameter::<f32>("weight").is_ok());
    // What is assigned has no gradient.
    let bias = StateDict::from_iter([Tensor::new("bias", array![4.0_f32].view())]);
    world.module_mut(roots[1]).unwrap().load_state_dict_with(&bias, assign).unwrap();
    assert_eq!(world.module_mut(roots[1]).unwrap().gradient::<f32>("bias").unwrap(), None);
    assert_eq!(
        world.module_mut(roots[1]).unwrap().parameter::<f32>("bias").unwrap(),
        array![4.0].into_dyn()
    );
    // Assigned to all at once, they are alike again.
    let mut all = world.module_mut(roots[0]).unwrap().state_dict().unwrap();
    all.insert(Tensor::new("bias", array![1.0_f64].view()));
    world.population_mut(layers).unwrap().load_state_dict_with(&all, assign).unwrap();
    assert_eq!(
        world.population_mut(layers).unwrap().stack::<f64>("bias").unwrap(),
        array![[1.0], [1.0]].into_dyn()
    );
}

#[test]
fn what_is_assigned_is_as_frozen_as_what_was_there() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(2, 1), 2, Seed(5)).unwrap().id();
    let roots: [_; 2] = world.population(layers).unwrap().models().try_into().unwrap();
    world.module_mut(roots[0]).unwrap().set_requires_grad("weight", false).unwrap();
    let weight = Tensor::new("weight", array![[1.5_f64, 2.0]].view());
    let bias = Tensor::new("bias", array![0.5_f64].view());
    let assign = LoadOptions { assign: true, strict: true };
    let state = StateDict::from_iter([weight, bias]);
    world.population_mut(layers).unwrap().load_state_dict_with(&state, assign).unwrap();
    let frozen = roots.map(|root| world.get::<Mode>(root).unwrap().frozen.clone());
    assert_eq!(frozen, [[0].into_iter().collect(), Bits::default()]);
}

#[test]
fn one_state_goes_into_all_models_and_slices_into_each() {
    let (mut world, nets, root) = net();
    let roots = world.population(nets).unwrap().models().to_vec();
    let state = world.module_mut(root).unwrap().state_dict().unwrap();
    assert_ne!(world.module_mut(roots[2]).unwrap().state_dict().unwrap(), state);
    // A model of another structure takes what it can.
    let head = world.module_mut(roots[1]).unwrap().get_submodule("head").unwrap();
    world
        .module_mut(head)
        .unwrap()
        .register_buffer("own", Value::tensor(array![1.0_f32].view()), true)
        .unwrap();
    let error =
        world.population_mut(nets).unwrap().load_state_dict(&state).unwrap_err().to_string();
    assert!(error.contains("Missing key(s) in state_dict: \"head.own\""), "{error}");
    assert_eq!(world.module_mut(roots[2]).unwrap().state_dict().unwrap(), state);
    assert_eq!(
        world.module_mut(roots[1]).unwrap().parameter::<f32>("body.0.weight").unwrap(),
        world.module_mut(root).unwrap().parameter::<f32>("body.0.weight").unwrap()
    );
    assert!(world.population_mut(nets).unwrap().stacked_state_dict().is_err());
    world.module_mut(head).unwrap().delattr("own").unwrap();

    let mut stacked = world.population_mut(nets).unwrap().stacked_state_dict().unwrap();
    let scales = Array2::from_shape_fn((MODELS, 2), |(model, i)| (model * 2 + i) as f32);
    stacked.insert(Tensor::new("scale", scales.view()));
    let strict = LoadOptions::default();
    assert!(
        world
            .population_mut(nets)
            .unwrap()
            .load_stacked_state_dict(&stacked, strict)
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        world.population_mut(nets).unwrap().stack::<f32>("scale").unwrap(),
        scales.into_dyn()
    );
    let error = world
        .population_mut(nets)
        .unwrap()
        .load_stacked_state_dict(&state, strict)
        .unwrap_err()
        .to_string();
    assert!(error.contains("the shape in current model is torch.Size([3, 2])"), "{error}");
    let nobody = world.spawn_empty().id();
    assert!(world.module_mut(nobody).unwrap().load_state_dict(&state).is_err());
}

#[test]
fn state_hooks_are_called_in_torchs_order_and_no_model_runs_eagerly_for_them() {
    let mut world = World::new();
    let net = Sequential::new()
        .push(Linear::new(2, 2))
        .push(Sequential::new().push(Linear::new(2, 3).without_bias()));
    let nets = world.spawn_population(&net, 2, Seed(5)).unwrap().id();
    let root = world.population(nets).unwrap().models()[0];
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    for path in ["", "0", "1", "1.0"] {
        let module = world.module_mut(root).unwrap().get_submodule(path).unwrap();
        let seen = log.clone();
        let pre = move |at: &neurarch::components::hook::StateAt<'_>| {
            seen.lock().unwrap().push(format!("pre {}", at.prefix));
            Ok(())
        };
        world.module_mut(module).unwrap().register_state_dict_pre_hook(pre).unwrap();
        let seen = log.clone();
        world
            .module_mut(module)
            .unwrap()
            .register_state_dict_post_hook(move |at, state| {
                seen.lock().unwrap().push(format!("post {} {}", at.prefix, state.len()));
                Ok(())
            })
            .unwrap();
        let seen = log.clone();
        world
            .module_mut(module)
            .unwrap()
            .register_load_state_dict_pre_hook(move |at, state, loading| {
                assert!(loading.strict);
                seen.lock().unwrap().push(format!("load {} {}", at.prefix, state.len()));
                Ok(())
            })
            .unwrap();
        let seen = log.clone();
        world
            .module_mut(module)
            .unwrap()
            .register_load_state_dict_post_hook(move |at, keys| {
                let missing = keys.missing_keys.len();
                seen.lock().unwrap().push(format!("loaded {} {missing}", at.path));
                keys.missing_keys.clear();
                Ok(())
            })
            .unwrap();
    }
    let mut state = world.module_mut(root).unwrap().state_dict().unwrap();
    let saved = [
        "pre ",
        "pre 0.",
        "post 0. 2",
        "pre 1.",
        "pre 1.0.",
        "post 1.0. 3",
        "post 1. 3",
        "post  3",
    ];
    assert_eq!(*std::mem::take(&mut *log.lock().unwrap()), saved);
    state.remove("0.bias");
    // The hook forgives the missing key.
    assert!(world.module_mut(root).unwrap().load_state_dict(&state).unwrap().is_empty());
    let loaded = [
        "load  2",
        "load 0. 1",
        "loaded 0 1",
        "load 1. 1",
        "load 1.0. 1",
        "loaded 1.0 0",
        "loaded 1 0",
        "loaded  0",
    ];
    assert_eq!(*std::mem::take(&mut *log.lock().unwrap()), loaded);
    assert!(!world.get::<neurarch::components::module::mode::Mode>(root).unwrap().hooked);
    // A neighbor has none of these hooks.
    let other = world.population(nets).unwrap().models()[1];
    assert!(world.module_mut(other).unwrap().load_state_dict(&state).is_err());
    assert!(log.lock().unwrap().is_empty());
}

#[test]
fn hooks_rename_delete_and_fail() {
    let (mut world, nets, root) = net();
    let head = world.module_mut(root).unwrap().get_submodule("head").unwrap();
    let drops = world
        .module_mut(head)
        .unwrap()
        .register_state_dict_post_hook(|at, state| {
            state.remove(&format!("{}bias", at.prefix));
            Ok(())
        })
        .unwrap();
    let state = world.module_mut(root).unwrap().state_dict().unwrap();
    assert!(state.get("head.bias").is_none() && state.get("body.0.bias").is_some());
    drops.remove();
    world
        .population_mut(nets)
        .unwrap()
        .at("head")
        .register_load_state_dict_pre_hook(|at, state, _| {
            state.rename(&format!("{}b", at.prefix), format!("{}bias", at.prefix));
            Ok(())
        })
        .unwrap();
    let mut state = world.module_mut(root).unwrap().state_dict().unwrap();
    state.rename("head.bias", "head.b");
    state.insert(Tensor::new("head.b", array![8.0_f32, 9.0].view()));
    // Once for all models of the population.
    assert!(world.population_mut(nets).unwrap().load_state_dict(&state).unwrap().is_empty());
    let biases = world.population_mut(nets).unwrap().stack::<f32>("head.bias").unwrap();
    assert!(biases.axis_iter(Axis(0)).all(|bias| bias == array![8.0, 9.0].into_dyn()));
    world
        .module_mut(head)
        .unwrap()
        .register_state_dict_pre_hook(|_| Err("not now".into()))
        .unwrap();
    let error = world.module_mut(root).unwrap().state_dict().unwrap_err();
    assert_eq!(error.to_string(), "head: state_dict pre-hook 0: not now");
    world
        .target_mut(Target::All)
        .register_load_state_dict_post_hook(|_, _| panic!("at the disco"))
        .unwrap();
    let error = world.module_mut(root).unwrap().load_state_dict(&state).unwrap_err();
    let told = "body.0: load_state_dict post-hook 0: panicked: at the disco";
    assert_eq!(error.to_string(), told);
}

#[test]
fn parameters_are_a_vector_and_a_population_is_a_matrix() {
    let (mut world, nets, root) = net();
    let vector = world.module_mut(root).unwrap().parameters_to_vector::<f32>().unwrap();
    assert_eq!(vector.len(), 2 + 6 + 3 + 6 + 2);
    let weight = world.module_mut(root).unwrap().parameter::<f32>("body.0.weight").unwrap();
    assert_eq!(
        vector.slice(ndarray::s![2..8]).to_vec(),
        weight.iter().copied().collect::<Vec<_>>()
    );
    let other = world.population(nets).unwrap().models()[1];
    world.module_mut(other).unwrap().vector_to_parameters(vector.view()).unwrap();
    assert_eq!(world.module_mut(other).unwrap().parameters_to_vector::<f32>().unwrap(), vector);
    let short = vector.slice(ndarray::s![..18]);
    let error = world.module_mut(other).unwrap().vector_to_parameters(short).unwrap_err();
    assert_eq!(error.to_string(), "expected a vector of shape [19], got [18]");
    let error = world.module_mut(other).unwrap().parameters_to_vector::<f64>().unwrap_err();
    assert_eq!(error.to_string(), "'scale': expected elements of f32, got f64");

    let mut matrix = world.population_mut(nets).unwrap().parameters_to_vectors::<f32>().unwrap();
    assert_eq!(matrix.dim(), (MODELS, 19));
    assert_eq!(matrix.row(0), vector);
    matrix *= 2.0;
    world.population_mut(nets).unwrap().vectors_to_parameters(matrix.view()).unwrap();
    assert_eq!(
        world.module_mut(root).unwrap().parameters_to_vector::<f32>().unwrap(),
        &vector * 2.0
    );
    assert!(
        world
            .population_mut(nets)
            .unwrap()
            .vectors_to_parameters(matrix.slice(ndarray::s![..2, ..]))
            .is_err()
    );
    let head = world.module_mut(root).unwrap().get_submodule("head").unwrap();
    assert_eq!(world.module_mut(head).unwrap().parameters_to_vector::<f32>().unwrap().len(), 8);
}

#[test]
fn plain_bevy_queries_and_systems_see_modules_and_their_numbers() {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(2, 3)).push(Tanh).push(Linear::new(3, 1));
    let nets = world.spawn_population(&net, 10, Seed(5)).unwrap().id();
    let mut layers = world.query::<(Entity, &Linear)>();
    assert_eq!(layers.iter(&world).filter(|(_, linear)| linear.out_features == 3).count(), 10);

    fn largest(layers: Query<(Entity, &Linear)>, parameters: Parameters<'_>) -> Vec<f32> {
        let largest = |(entity, linear): (Entity, &Linear)| {
            let weight = parameters.parameter::<f32>(entity, "weight").unwrap();
            assert_eq!(weight.shape(), [linear.out_features, linear.in_features]);
            assert!(parameters.parameter::<f64>(entity, "weight").is_err());
            assert!(parameters.parameter::<f32>(entity, "nothing").is_err());
            weight.fold(0.0_f32, |all, x| all.max(x.abs()))
        };
        layers.iter().map(largest).collect()
    }
    let largest = world.run_system_cached(largest).unwrap();
    assert_eq!(largest.len(), 20);
    let all = world.population_mut(nets).unwrap().parameters_to_vectors::<f32>().unwrap();
    assert!(largest.iter().all(|x| *x > 0.0 && all.iter().any(|y| y.abs() == *x)));
}

#[test]
fn a_state_dict_goes_to_a_file_and_back() {
    let (mut world, nets, root) = net();
    let state = world.module_mut(root).unwrap().state_dict().unwrap();
    let path =
        std::env::temp_dir().join(format!("neurarch-{}-state.safetensors", std::process::id()));
    neurarch::state::safetensors::save(&path, &state).unwrap();
    let read = neurarch::state::safetensors::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(world.population_mut(nets).unwrap().load_state_dict(&read).unwrap().is_empty());
    let other = world.population(nets).unwrap().models()[2];
    assert_eq!(world.module_mut(other).unwrap().state_dict().unwrap(), state);
}
