//! Files of `torch.save`, as PyTorch 1.13 and 2.15 wrote them, against the numbers that PyTorch has in them.

use std::path::PathBuf;

use neurarch::prelude::*;
use neurarch::state::pytorch::{PytorchFile, read_model};
use neurarch::state::{FileOptions, KeyMap, safetensors};

const VERSIONS: [&str; 2] = ["1.13", "2.15"];

fn golden(version: &str, name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/pytorch");
    PathBuf::from(folder).join(version).join(name)
}

/// What PyTorch has in a file, by name; of a checkpoint what is below `part`.
fn expected(version: &str, name: &str, part: &str) -> StateDict {
    let all = safetensors::read(golden(version, &format!("{name}.safetensors"))).unwrap();
    let own = all.into_iter().filter_map(|mut tensor| {
        tensor.name = tensor.name.strip_prefix(part)?.to_owned();
        Some(tensor)
    });
    own.collect()
}

/// Each version's zip and legacy file of one name.
fn files(name: &str) -> impl Iterator<Item = (&'static str, PathBuf)> {
    let name = name.to_owned();
    let kinds = ["", "_legacy"].map(|kind| format!("{name}{kind}.pt"));
    VERSIONS
        .into_iter()
        .flat_map(move |version| kinds.clone().map(|file| (version, golden(version, &file))))
}

#[track_caller]
fn assert_same(read: &StateDict, expected: &StateDict) {
    assert_eq!(read.len(), expected.len());
    for tensor in expected {
        assert_eq!(read.get(&tensor.name), Some(tensor), "{}", tensor.name);
    }
}

/// `network()` of `tests/peers/pytorch_files.py`.
fn network() -> Sequential {
    let layers = Sequential::new().push(Linear::new(3, 4)).push(BatchNorm1d::new(4));
    layers.push(Tanh).push(Linear::new(4, 2))
}

fn close(a: &ndarray::ArrayD<f32>, b: &ndarray::ArrayD<f32>) -> bool {
    a.shape() == b.shape() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 2e-6)
}

#[test]
fn tensors_of_all_types_and_layouts_have_torchs_numbers() {
    for name in ["state_dict", "dtypes", "views"] {
        for (version, path) in files(name) {
            let read = PytorchFile::open(path).unwrap().state_dict(None).unwrap();
            assert_same(&read, &expected(version, name, ""));
        }
    }
}

#[test]
fn names_are_in_the_order_of_the_file_and_equal_views_are_read_once() {
    for (_, path) in files("views") {
        let read = PytorchFile::open(path).unwrap().state_dict(None).unwrap();
        let order = ["zeta", "alpha", "slice", "row", "last", "tied", "spread", "parameter"];
        assert_eq!(read.keys().collect::<Vec<_>>(), order);
        let address = |name: &str| read.get(name).unwrap().little_endian().as_ptr();
        assert_eq!(address("zeta"), address("tied"));
    }
}

#[test]
fn versions_of_modules_come_along() {
    let known = [("", 1), ("0", 1), ("1", 2), ("2", 1), ("3", 1)];
    for (_, path) in files("state_dict") {
        let read = PytorchFile::open(path).unwrap().state_dict(None).unwrap();
        let versions: Vec<_> =
            read.metadata.iter().map(|(path, of)| (path.as_str(), of.version.unwrap())).collect();
        assert_eq!(versions, known);
    }
}

#[test]
fn a_checkpoint_has_its_parts_by_their_keys() {
    for (version, path) in files("checkpoint") {
        let file = PytorchFile::open(path).unwrap();
        let keys = [
            "model",
            "ema",
            "optimizer",
            "sgd",
            "amsgrad",
            "lr_scheduler",
            "epoch",
            "best",
            "name",
            "large",
            "size",
            "device",
            "dtype",
            "rng",
        ];
        assert_eq!(file.keys(), keys);
        let model = file.state_dict("model").unwrap();
        assert_same(&model, &expected(version, "checkpoint", "model."));
        // One dictionary under two keys, and the one that has a usual key.
        assert_eq!(file.state_dict("ema").unwrap(), model);
        assert_eq!(file.state_dict(None).unwrap(), model);

        let error = file.state_dict("weights").unwrap_err().to_string();
        assert!(
            error.contains("no key 'weights', expected one of ['model', 'ema', 'optimizer',"),
            "{error}"
        );
        let error = file.state_dict("lr_scheduler").unwrap_err().to_string();
        assert!(
            error.ends_with("'milestones': expected a tensor, got a collections.Counter"),
            "{error}"
        );
        let error = file.state_dict("epoch").unwrap_err().to_string();
        assert!(error.ends_with("'epoch': expected a dict, got an int"), "{error}");
    }
}

#[test]
fn a_model_goes_on_as_torch_does_with_its_optimizer() {
    for (version, path) in files("checkpoint") {
        let mut world = World::new();
        let mut nets = world.spawn_population(&network(), 2, Seed(0)).unwrap();
        nets.insert(Adam::default()).unwrap();
        assert!(nets.load_file(&path).unwrap().is_empty());
        let all = expected(version, "checkpoint", "");
        let array = |name: &str| all.get(name).unwrap().to_array::<f32>().unwrap();
        nets.eval().unwrap();
        let y = nets.forward(Input::shared(array("x").view())).unwrap();
        assert!(close(&y.index_axis(ndarray::Axis(0), 1).to_owned(), &array("y")));

        let file = PytorchFile::open(&path).unwrap();
        nets.train().unwrap();
        for model in 0..2 {
            let mut net = nets.model(model).unwrap();
            let own = net.optimizer_state_dict().unwrap();
            let state = file.optimizer_state_dict("optimizer", &own).unwrap();
            net.load_optimizer_state_dict(&state).unwrap();
            let loaded = net.optimizer_state_dict().unwrap();
            for (index, states) in loaded.state {
                for tensor in states {
                    let torch = all.get(&format!("optimizer.{index}.{}", tensor.name)).unwrap();
                    assert_eq!(tensor.little_endian(), torch.little_endian());
                }
            }
            for name in net.parameter_names().unwrap() {
                let gradient = array(&format!("gradient.{name}"));
                net.set_gradient(&name, Some(gradient.view())).unwrap();
            }
        }
        let adam = *nets.model(1).unwrap().as_ref().unwrap().get::<Adam>().unwrap();
        let known =
            Adam { lr: 0.01, betas: (0.8, 0.95), eps: 1e-6, weight_decay: 0.1, ..Adam::default() };
        assert_eq!(adam, known);
        nets.step().unwrap();
        let mut net = nets.model(1).unwrap();
        for name in net.parameter_names().unwrap() {
            let after = net.parameter::<f32>(&name).unwrap().to_owned().into_dyn();
            assert!(close(&after, &array(&format!("after.{name}"))), "{version} {name}");
        }
    }
}

#[test]
fn parameter_groups_are_optimizers_on_modules() {
    for (version, path) in files("checkpoint") {
        let mut world = World::new();
        let mut nets = world.spawn_population(&network(), 1, Seed(0)).unwrap();
        for place in ["0", "3"] {
            nets.at(place).insert_with(|_| SGD { momentum: 0.5, ..SGD::default() }).unwrap();
        }
        let file = PytorchFile::open(&path).unwrap();
        let own = nets.model(0).unwrap().optimizer_state_dict().unwrap();
        let state = file.optimizer_state_dict("sgd", &own).unwrap();
        nets.model(0).unwrap().load_optimizer_state_dict(&state).unwrap();
        let rates = ["0", "3"].map(|place| {
            let layer = nets.model(0).unwrap().at(place).unwrap().id();
            let sgd = nets.world().get::<SGD>(layer).unwrap();
            (sgd.lr, sgd.momentum)
        });
        assert_eq!(rates, [(0.1, 0.9), (0.05, 0.9)]);
        let all = expected(version, "checkpoint", "");
        for (index, states) in nets.model(0).unwrap().optimizer_state_dict().unwrap().state {
            let torch = all.get(&format!("sgd.{index}.momentum_buffer")).unwrap();
            let own = states.iter().find(|state| state.name == "momentum_buffer").unwrap();
            assert_eq!(own.little_endian(), torch.little_endian());
        }

        let error = file.optimizer_state_dict("optimizer", &own).unwrap_err().to_string();
        assert!(
            error.ends_with("loaded state dict has a different number of parameter groups"),
            "{error}"
        );
    }
}

#[test]
fn a_state_that_the_optimizer_does_not_keep_is_an_error() {
    for (_, path) in files("checkpoint") {
        let mut world = World::new();
        let mut nets = world.spawn_population(&network(), 1, Seed(0)).unwrap();
        nets.insert(Adam::default()).unwrap();
        let own = nets.model(0).unwrap().optimizer_state_dict().unwrap();
        let file = PytorchFile::open(&path).unwrap();
        let error = file.optimizer_state_dict("amsgrad", &own).unwrap_err().to_string();
        let expected = "parameter 0: the optimizer keeps no 'max_exp_avg_sq', expected one of \
            ['exp_avg', 'exp_avg_sq', 'step']";
        assert!(error.ends_with(expected), "{error}");
        nets.insert(Adam { amsgrad: true, ..Adam::default() }).unwrap();
        let own = nets.model(0).unwrap().optimizer_state_dict().unwrap();
        let state = file.optimizer_state_dict("amsgrad", &own).unwrap();
        nets.model(0).unwrap().load_optimizer_state_dict(&state).unwrap();
    }
}

#[test]
fn a_key_map_takes_the_prefix_of_parallel_training_off() {
    for (version, path) in files("ddp") {
        let mut world = World::new();
        let mut nets = world.spawn_population(&network(), 2, Seed(0)).unwrap();
        let error = nets.load_file(&path).unwrap_err().to_string();
        assert!(error.contains("Missing key(s) in state_dict: \"0.weight\""), "{error}");
        assert!(error.contains("Unexpected key(s) in state_dict: \"module.0.weight\""), "{error}");
        let keys = KeyMap::new().strip_prefix("module.");
        let key = Some("state_dict".to_owned());
        let options = FileOptions { key, keys: keys.clone(), ..FileOptions::default() };
        assert!(nets.load_file_with(&path, &options).unwrap().is_empty());
        let state = nets.model(1).unwrap().state_dict().unwrap();
        assert_same(&state, &expected(version, "state_dict", ""));

        let read = PytorchFile::open(&path).unwrap().state_dict("state_dict").unwrap();
        assert_eq!(keys.apply(&read).unwrap().version("1"), Some(2));
        let clash = keys.rename("3", "0");
        let error =
            nets.load_file_with(&path, &FileOptions { keys: clash, ..options }).unwrap_err();
        assert!(error.to_string().contains("got '0.weight' for both"), "{error}");
        assert_eq!(nets.model(1).unwrap().state_dict().unwrap(), state);
    }
}

#[test]
fn whole_models_give_their_state_dict_alone() {
    for version in VERSIONS {
        let read = read_model(golden(version, "model.pt")).unwrap();
        let flat = PytorchFile::open(golden(version, "state_dict.pt")).unwrap();
        assert_eq!(read.tensors, flat.state_dict(None).unwrap().tensors);

        let read = read_model(golden(version, "nested_model.pt")).unwrap();
        assert_same(&read, &expected(version, "nested_model", ""));
        let order =
            ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias", "body.1.running_mean"];
        assert_eq!(read.keys().take(5).collect::<Vec<_>>(), order);
        assert_eq!(read.keys().last(), Some("again.bias"));

        let error = PytorchFile::open(golden(version, "model.pt")).unwrap_err().to_string();
        let expected = "Unsupported global: GLOBAL torch.nn.modules.container.Sequential was not an allowed global by \
            default (a whole pickled model is read by `read_model`)";
        assert!(error.ends_with(expected), "{error}");
        let error = read_model(golden(version, "state_dict_legacy.pt")).unwrap_err().to_string();
        assert!(
            error.ends_with("got a legacy file, of which a whole model is not read"),
            "{error}"
        );
        let error = read_model(golden(version, "state_dict.pt")).unwrap_err().to_string();
        assert!(error.ends_with("'': expected a module, got a dict"), "{error}");
    }
}

#[test]
fn what_is_not_safe_or_not_clear_is_refused_by_name() {
    let refused = [
        ("command", "Unsupported global: GLOBAL posix.system was not an allowed global by default"),
        ("keys", "expected names that differ, got '1' twice"),
        ("dots", "expected names that differ, got 'a.b' twice"),
        ("sparse", "torch._utils._rebuild_sparse_tensor"),
        ("tensor", "'': expected a dict, got a tensor"),
    ];
    for (name, expected) in refused {
        for (_, path) in files(name) {
            let error = PytorchFile::open(&path).unwrap_err().to_string();
            assert!(
                error.starts_with(path.to_str().unwrap()) && error.contains(expected),
                "{error}"
            );
        }
    }
    let unread = [
        ("integers", "'count' has element type I32, expected F32, F64, F16, BF16, I64 or Bool"),
        ("claims", "got 6000000000"),
    ];
    for (name, expected) in unread {
        for (_, path) in files(name) {
            let error = PytorchFile::open(&path).unwrap().state_dict(None).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
    for version in VERSIONS {
        let error = read_model(golden(version, "command_model.pt")).unwrap_err().to_string();
        assert!(error.contains("GLOBAL posix.system"), "{error}");
    }
}

#[test]
fn a_file_is_known_by_its_first_bytes_and_a_refused_one_changes_nothing() {
    let mut world = World::new();
    let mut nets = world.spawn_population(&network(), 1, Seed(0)).unwrap();
    let before = nets.model(0).unwrap().state_dict().unwrap();
    let key = |key: &str| FileOptions { key: Some(key.to_owned()), ..FileOptions::default() };
    let missing = nets.load_file(golden("2.15", "none.pt")).unwrap_err();
    assert!(missing.to_string().contains("none.pt"), "{missing}");
    let path = golden("2.15", "state_dict.safetensors");
    let error = nets.load_file_with(&path, &key("model")).unwrap_err().to_string();
    assert!(error.ends_with("expected no key for a safetensors file, got 'model'"), "{error}");
    let error =
        nets.load_file_with(golden("2.15", "ddp.pt"), &key("model")).unwrap_err().to_string();
    assert!(error.ends_with("no key 'model', expected one of ['state_dict', 'epoch']"), "{error}");
    let error = nets.load_file(golden("2.15", "command.pt")).unwrap_err().to_string();
    assert!(error.contains("posix.system"), "{error}");
    assert_eq!(nets.model(0).unwrap().state_dict().unwrap(), before);

    // A safetensors file under torch's extension.
    let renamed = std::env::temp_dir().join(format!("neurarch-{}-named.pt", std::process::id()));
    std::fs::copy(&path, &renamed).unwrap();
    let keys = nets.load_file(&renamed);
    std::fs::remove_file(&renamed).unwrap();
    assert!(keys.unwrap().is_empty());
    let loaded = nets.model(0).unwrap().state_dict().unwrap();
    assert_same(&loaded, &expected("2.15", "state_dict", ""));
}

#[test]
fn a_file_that_does_not_fit_as_a_whole_loads_nothing() {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(3, 4)).push(BatchNorm1d::new(4));
    let mut nets =
        world.spawn_population(&net.push(Tanh).push(Linear::new(4, 7)), 2, Seed(0)).unwrap();
    // Two structures: one of them would fit.
    let last = nets.model(1).unwrap().at("3").unwrap().id();
    let before = nets.model(0).unwrap().state_dict().unwrap();
    let path = golden("2.15", "state_dict.pt");
    let error = nets.load_file(&path).unwrap_err().to_string();
    assert!(
        error.contains("size mismatch for 3.weight: copying a param with shape torch.Size([2, 4])"),
        "{error}"
    );
    assert_eq!(nets.model(0).unwrap().state_dict().unwrap(), before);

    nets.world_mut().entity_mut(last).insert(Linear::new(4, 2));
    let before: Vec<_> = (0..2).map(|at| nets.model(at).unwrap().state_dict().unwrap()).collect();
    assert!(nets.load_file(&path).is_err());
    let after: Vec<_> = (0..2).map(|at| nets.model(at).unwrap().state_dict().unwrap()).collect();
    assert_eq!(after, before);
    assert!(nets.model(1).unwrap().load_file(&path).unwrap().is_empty());
    // torch loads what fits.
    let state = PytorchFile::open(&path).unwrap().state_dict(None).unwrap();
    assert!(nets.load_state_dict(&state).is_err());
    let loaded = nets.model(0).unwrap().state_dict().unwrap();
    assert_eq!(loaded.get("0.weight"), state.get("0.weight"));
}
