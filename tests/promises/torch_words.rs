//! What torch refuses is refused in its words, and nothing is lost in silence.

use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3, ArrayD, array};
use neurarch::components::hook::{Callback, HookOptions, Hooks};
use neurarch::components::module::NoInverse;
use neurarch::components::optimizer::{Optimizer, Update};
use neurarch::hooks::{At, Target};
use neurarch::kernels::ops::update::adagrad::AdagradSettings;
use neurarch::kernels::ops::update::rule::UpdateInputs;
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::edit::lookup::Attribute;

use crate::known::Known;

/// Doubles; its inverse halves.
#[derive(Component, Clone, Debug, PartialEq)]
struct Double;

impl Module for Double {
    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x * 2.0
    }

    fn right_inverse(&self, _: &Call<'_>, tensor: Var) -> Result<Tree, NoInverse> {
        Ok((tensor * 0.5).into())
    }
}

/// Takes the lower triangle for both; has no inverse.
#[derive(Component, Clone, Debug, PartialEq)]
struct Symmetric;

impl Module for Symmetric {
    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        {
            let lower = x.tril(0);
            lower.clone() + x.tril(-1).permute(&[1, 0])
        }
    }
}

fn parametrized(ways: &[&str], name: &str) -> (World, Entity, Vec<Entity>) {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(2, 2), 3, Seed(1)).unwrap().id();
    for way in ways {
        let (at, options) = ((layers, ""), RegisterOptions::default());
        match *way {
            "double" => {
                world.target_mut(at).register_parametrization(name, Double, options).unwrap()
            }
            _ => world.target_mut(at).register_parametrization(name, Symmetric, options).unwrap(),
        }
    }
    let roots = world.population(layers).unwrap().models().to_vec();
    (world, layers, roots)
}

fn ones() -> Array2<f32> {
    Array2::ones((2, 2))
}

/// Everything that the models have, bit for bit.
fn state(world: &mut World, population: Entity) -> Vec<Tensor> {
    world.brains(population).stacked_state_dict().unwrap().into_iter().collect()
}

#[test]
fn a_parametrized_name_is_a_property() {
    for ways in [&["double"][..], &["symmetric"], &["double", "double"], &["double", "symmetric"]] {
        let (mut world, layers, roots) = parametrized(ways, "weight");
        let before = state(&mut world, layers);
        let targets = [Target::from(roots[1]), Target::from((layers, ""))];
        for target in targets {
            let exists = "attribute 'weight' already exists";
            let parameter = || Value::parameter(ones().view());
            let errors = [
                world.target_mut(target.clone()).register_parameter("weight", parameter()),
                world.target_mut(target.clone()).register_parameter("weight", Value::None),
                world.target_mut(target.clone()).register_buffer(
                    "weight",
                    Value::tensor(ones().view()),
                    true,
                ),
                world.target_mut(target.clone()).setattr("weight", parameter()),
                world
                    .target_mut(target.clone())
                    .setattr("weight", Value::buffer(ones().view(), true)),
                world.target_mut(target.clone()).setattr("weight", Value::module(Tanh)),
            ];
            for error in errors.map(Result::unwrap_err) {
                assert_eq!((error.to_string().as_str(), error.exception()), (exists, "KeyError"));
            }
            let error = world.target_mut(target).delattr("weight").unwrap_err();
            assert_eq!(error.to_string(), "property of 'ParametrizedLinear' object has no deleter");
            assert_eq!(error.exception(), "AttributeError");
        }
        let error =
            world.part(roots[0]).register_module("weight", Value::module(Tanh)).unwrap_err();
        assert_eq!(error.to_string(), "attribute 'weight' already exists");
        let error = world.brains(layers).container().add_module("weight", Tanh).unwrap_err();
        assert_eq!(error.to_string(), "attribute 'weight' already exists");
        assert_eq!(state(&mut world, layers), before);

        let error = world.part(roots[0]).delattr("wegiht").unwrap_err();
        let words = "'ParametrizedLinear' object has no attribute 'wegiht'";
        assert_eq!(error.to_string(), words);
        let error = world.part(roots[0]).get_parameter("weight").unwrap_err();
        assert_eq!(error.to_string(), "`weight` is not an nn.Parameter");
        let error = world.part(roots[0]).get_buffer("weight").unwrap_err();
        assert_eq!(error.to_string(), "`weight` is not a buffer");
        let error = world.part(roots[0]).get_submodule("weight").unwrap_err();
        assert_eq!(error.to_string(), "`weight` is not an nn.Module");
        assert!(matches!(world.part(roots[0]).getattr("bias"), Ok(Attribute::Parameter(Some(_)))));
    }
}

#[test]
fn a_parametrized_name_is_read_as_it_is_computed_and_assigned_through_the_inverse() {
    let (mut world, layers, roots) = parametrized(&["double", "double"], "weight");
    let read = |world: &mut World, root: Entity| match world.part(root).getattr("weight").unwrap() {
        Attribute::Computed(tensor) => tensor.to_array::<f32>().unwrap(),
        other => panic!("{other:?}"),
    };
    let original = "parametrizations.weight.original";
    for &root in &roots {
        let original = world.part(root).parameter::<f32>(original).unwrap();
        assert_eq!(read(&mut world, root), original * 4.0);
    }
    let new = array![[4.0_f32, 8.0], [12.0, 16.0]];
    world.part(roots[1]).setattr("weight", Value::tensor(new.view())).unwrap();
    assert_eq!(read(&mut world, roots[1]), new.clone().into_dyn());
    assert_ne!(read(&mut world, roots[0]), new.clone().into_dyn());
    world.brains(layers).setattr("weight", Value::tensor(new.view())).unwrap();
    let stacked = world.brains(layers).stack::<f32>(original).unwrap();
    assert!(stacked.outer_iter().all(|of| of == (&new * 0.25).into_dyn()));

    // What is no tensor of this type is refused, and nothing is changed.
    let before = state(&mut world, layers);
    let double = world.brains(layers).setattr("weight", Value::tensor(new.mapv(f64::from).view()));
    let words =
        "The tensor returned by `right_inverse` has dtype f64 while `original` has dtype f32";
    assert_eq!(double.unwrap_err().to_string(), words);
    let wide =
        world.part(roots[0]).setattr("weight", Value::tensor(Array2::<f32>::ones((3, 3)).view()));
    assert!(wide.unwrap_err().to_string().contains("returned by `right_inverse` has type"));
    let none = world.part(roots[0]).setattr("weight", Value::None).unwrap_err();
    let words = "cannot assign 'NoneType' as parametrized tensor 'weight' (torch.Tensor expected)";
    assert_eq!(none.to_string(), words);
    assert_eq!(state(&mut world, layers), before);

    // One of several parametrizations has no inverse.
    let (mut world, layers, roots) = parametrized(&["double", "symmetric"], "weight");
    let before = state(&mut world, layers);
    for value in [Value::tensor(ones().view()), Value::None, Value::Other("str".into())] {
        for target in [Target::from(roots[2]), Target::from((layers, ""))] {
            let error = world.target_mut(target).setattr("weight", value.clone()).unwrap_err();
            let words = "parametrization Symmetric does not implement right_inverse.";
            assert_eq!((error.to_string().as_str(), error.exception()), (words, "RuntimeError"));
        }
    }
    assert_eq!(state(&mut world, layers), before);
}

#[test]
fn a_parametrized_buffer_and_a_weight_of_the_older_weight_norm_are_properties_too() {
    let mut world = World::new();
    let norms = world.spawn_population(&BatchNorm1d::new(2), 2, Seed(1)).unwrap().id();
    let root = world.population(norms).unwrap().models()[0];
    let (at, name) = ((norms, ""), "running_mean");
    world
        .target_mut(at)
        .register_parametrization(name, Double, RegisterOptions::default())
        .unwrap();
    let value = array![2.0_f32, 6.0];
    let error =
        world.target_mut(at).register_buffer(name, Value::tensor(value.view()), true).unwrap_err();
    assert_eq!(error.to_string(), "attribute 'running_mean' already exists");
    let error = world.target_mut(at).delattr(name).unwrap_err();
    assert_eq!(error.to_string(), "property of 'ParametrizedBatchNorm1d' object has no deleter");
    world.target_mut(at).setattr(name, Value::tensor(value.view())).unwrap();
    let original =
        world.brains(norms).stack::<f32>("parametrizations.running_mean.original").unwrap();
    assert_eq!(original, array![[1.0, 3.0], [1.0, 3.0]].into_dyn());
    assert!(matches!(world.part(root).getattr(name), Ok(Attribute::Computed(_))));

    let layers = world.spawn_population(&Linear::new(2, 2), 2, Seed(1)).unwrap().id();
    let weights = world.brains(layers).stack::<f32>("weight").unwrap();
    neurarch::systems::edit::parametrize::weight_norm::weight_norm(
        &mut world,
        (layers, ""),
        "weight",
        Some(0),
    )
    .unwrap();
    let before = state(&mut world, layers);
    let root = world.population(layers).unwrap().models()[0];
    let Attribute::Computed(tensor) = world.part(root).getattr("weight").unwrap() else { panic!() };
    let weight: ArrayD<f32> = tensor.to_array().unwrap();
    assert!((weight - weights.outer_iter().next().unwrap()).iter().all(|d| d.abs() < 1e-6));
    for value in [Value::parameter(ones().view()), Value::tensor(ones().view()), Value::None] {
        let error = world.brains(layers).setattr("weight", value).unwrap_err();
        assert_eq!(error.to_string(), "attribute 'weight' already exists");
    }
    assert!(world.part(root).delattr("weight").is_err());
    assert_eq!(state(&mut world, layers), before);
}

/// An optimizer of a user's own: Adagrad's rule, which has one state.
#[derive(Component, Clone, Debug, PartialEq)]
struct Own {
    lr: f64,
    states: &'static [&'static str],
}

impl Optimizer for Own {
    fn states(&self) -> &'static [&'static str] {
        self.states
    }

    fn update(&self, at: &Update<'_>) -> Var {
        at.by(|inputs| {
            let one = &inputs.states[..inputs.states.len().min(1)];
            let inputs = UpdateInputs { states: one, ..*inputs };
            at.parameter.adagrad(&inputs, AdagradSettings { maximize: false })
        })
    }

    fn structural(&self) -> Self {
        Own { lr: 0.0, ..self.clone() }
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        match name {
            "lr" => Some(self.lr),
            "lr_decay" | "weight_decay" | "initial_accumulator_value" => Some(0.0),
            "eps" => Some(1e-10),
            _ => None,
        }
    }

    fn scalar_mut(&mut self, name: &str) -> Option<&mut f64> {
        (name == "lr").then_some(&mut self.lr)
    }
}

fn train(world: &mut World, population: Entity) -> Result<Vec<f32>, StepError> {
    let n = world.population(population)?.models().len();
    let (x, y) = (Array3::<f32>::ones((n, 4, 2)), Array2::<i64>::zeros((n, 4)));
    let losses =
        world.population_mut(population)?.train_step(&x, &y, &CrossEntropyLoss::default())?;
    Ok(losses.to_vec())
}

#[test]
fn an_optimizer_of_ones_own_is_made_known_before_or_after_it_is_inserted() {
    let spawn = || {
        let mut world = World::new();
        let layers = world.spawn_population(&Linear::new(2, 2), 3, Seed(1)).unwrap().id();
        (world, layers)
    };
    let (mut world, layers) = spawn();
    let own = Own { lr: 0.1, states: &["sum"] };
    world.brains(layers).insert(own.clone()).unwrap();
    let error = train(&mut world, layers).unwrap_err().to_string();
    assert!(error.contains("made known by Optimizers::register"), "{error}");
    Optimizers::register::<Own>(&mut world);
    let (_, _) = (train(&mut world, layers).unwrap(), train(&mut world, layers).unwrap());

    let (mut other, torchs) = spawn();
    other.brains(torchs).insert(Adagrad { lr: 0.1, ..Adagrad::default() }).unwrap();
    let (_, _) = (train(&mut other, torchs).unwrap(), train(&mut other, torchs).unwrap());
    assert_eq!(state(&mut world, layers), state(&mut other, torchs));
    let names = |world: &mut World, population| {
        let tensors = world.brains(population).training_state().unwrap();
        let states = tensors.into_iter().filter(|of| of.name.starts_with("optimizer.state."));
        states.map(|tensor| tensor.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut world, layers), names(&mut other, torchs));
}

#[test]
fn an_optimizer_with_other_states_than_it_declares_is_an_error() {
    let cases: [(&[&str], &str); 4] = [
        (&["a", "b"], "expected an update of 2 states, as the optimizer declares, got 1"),
        (&[], "adagrad"),
        (&["a", "a"], "expected a name of its own for each state of an optimizer, got 'a' twice"),
        (
            &["a", "step"],
            "expected a name of its own for each state of an optimizer, got 'step' twice",
        ),
    ];
    for (states, words) in cases {
        let mut world = World::new();
        Optimizers::register::<Own>(&mut world);
        let layers = world.spawn_population(&Linear::new(2, 2), 3, Seed(1)).unwrap().id();
        let states: &'static [&'static str] = Box::leak(states.to_vec().into_boxed_slice());
        world.brains(layers).insert(Own { lr: 0.1, states }).unwrap();
        let before = state(&mut world, layers);
        let error = train(&mut world, layers).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(state(&mut world, layers), before);
    }
}

fn nothing() -> Callback {
    Callback::ForwardPre(Box::new(|_, _| Ok(None)))
}

fn of_parameter(name: &str) -> [Callback; 2] {
    [
        Callback::Gradient(name.into(), Box::new(|_, _, _| Ok(None))),
        Callback::PostAccumulateGrad(name.into(), Box::new(|_, _, _| Ok(()))),
    ]
}

#[test]
fn a_hook_that_nobody_would_call_is_refused() {
    let mut world = World::new();
    let net = Sequential::new()
        .push(Linear::new(2, 2).without_bias())
        .push(BatchNorm1d::new(2))
        .push(Linear::new(2, 2))
        .push(LazyLinear::new(2));
    let nets = world.spawn_population(&net, 3, Seed(1)).unwrap().id();
    world
        .brains(nets)
        .at("2")
        .register_parametrization("weight", Double, RegisterOptions::default())
        .unwrap();
    let root = world.population(nets).unwrap().models()[1];
    let mut refused = |target: Target, callback: Callback, words: &str| {
        let options = HookOptions::default();
        let error =
            world.target_mut(target).register_hook_with(callback, options).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let at = |path: &str| Target::from((nets, path));
    refused(at("4"), nothing(), "'4': Sequential has no attribute `4`");
    refused(at("0.a.b"), nothing(), "'0.a.b': Linear has no attribute `a`");
    refused(Target::from((root, "")), nothing(), "is not a population");
    refused(Target::from(nets), nothing(), "is no module of a model");
    for callback in of_parameter("wegiht") {
        refused(at("0"), callback, "0: 'Linear' object has no attribute 'wegiht'");
    }
    for callback in of_parameter("weight") {
        refused(at(""), callback, "Sequential: 'Sequential' object has no attribute 'weight'");
    }
    for callback in of_parameter("bias") {
        refused(at("0"), callback, "0.bias: 'NoneType' object has no attribute 'register_hook'");
    }
    for callback in of_parameter("weight") {
        refused(at("2"), callback, "2: `weight` is not an nn.Parameter");
    }
    let words = "cannot register a hook on a tensor that doesn't require gradient";
    for callback in of_parameter("running_mean") {
        refused(at("1"), callback, words);
    }
    let registration = Callback::ParameterRegistration(Box::new(|_, _| Ok(None)));
    refused(at("0"), registration, "is called for all modules: expected Target::All");

    // What is frozen, or of unknown shape, may be neither later.
    let module = world.part(root).at("0").unwrap().id();
    world.part(module).requires_grad_(false).unwrap();
    for path in ["0", "3"] {
        for callback in of_parameter("weight") {
            world
                .brains(nets)
                .at(path)
                .register_hook_with(callback, HookOptions::default())
                .unwrap();
        }
    }
}

/// Two layers with one weight, and the second called twice.
#[derive(Component, Clone, Debug, PartialEq)]
struct Tied;

impl Module for Tied {
    fn declare(&self, declare: &mut Declare) {
        declare.child("a", Linear::new(2, 2)).child("b", Linear::new(2, 2));
        declare.tie("b.weight", "a.weight");
        declare.share("again", "b");
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let x = call.child("b", &call.child("a", &x));
        call.child("again", &x)
    }
}

#[test]
fn a_hook_under_a_second_name_is_called() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut world = World::new();
    let nets = world.spawn_population(&Tied, 2, Seed(1)).unwrap().id();
    world.brains(nets).insert(SGD::default()).unwrap();
    let root = world.population(nets).unwrap().models()[0];
    let look = |what: &'static str| {
        let seen = seen.clone();
        Callback::Gradient(
            "weight".into(),
            Box::new(move |at: &At<'_>, name: &str, _: &Var| {
                seen.lock().unwrap().push(format!("{what} {}.{name}", at.path));
                Ok(None)
            }),
        )
    };
    let call = |what: &'static str| {
        let seen = seen.clone();
        Callback::ForwardPre(Box::new(move |at: &At<'_>, _: &Arguments| {
            seen.lock().unwrap().push(format!("{what} {}", at.path));
            Ok(None)
        }))
    };
    let options = HookOptions::default();
    world.brains(nets).at("b").register_hook_with(look("all"), options).unwrap();
    let b = world.part(root).at("b").unwrap().id();
    world.part(b).register_hook_with(look("one"), options).unwrap();
    world.brains(nets).at("again").register_hook_with(call("all"), options).unwrap();
    train(&mut world, nets).unwrap();
    let mut calls = std::mem::take(&mut *seen.lock().unwrap());
    calls.sort();
    // The model with a hook of its own is a cohort of its own; the module is called twice.
    let expected =
        ["all a.weight", "all a.weight", "all b", "all b", "all b", "all b", "one a.weight"];
    assert_eq!(calls, expected);
}

#[test]
fn hooks_that_were_inserted_as_a_component_are_called() {
    let seen: Arc<Mutex<usize>> = Arc::default();
    let hooks = || {
        let seen = seen.clone();
        let mut hooks = Hooks::default();
        let look = Callback::ForwardPre(Box::new(move |_: &At<'_>, _: &Arguments| {
            *seen.lock().unwrap() += 1;
            Ok(None)
        }));
        let handle = hooks.register(look, HookOptions::default());
        (hooks, handle)
    };
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(2, 2)).push(Tanh);
    let nets = world.spawn_population(&net, 3, Seed(1)).unwrap().id();
    let x = Array3::<f32>::ones((3, 4, 2));
    world.brains(nets).forward(&x).unwrap();
    let root = world.population(nets).unwrap().models()[1];
    let tanh = world.part(root).at("1").unwrap().id();
    let (own, handle) = hooks();
    world.entity_mut(tanh).insert(own);
    world.brains(nets).forward(&x).unwrap();
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), 1);
    assert!(handle.remove());
    world.brains(nets).forward(&x).unwrap();
    assert_eq!(*seen.lock().unwrap(), 0);
    // Before the module is part of the model.
    let (own, _handle) = hooks();
    let relu = world.spawn((ReLU, own)).id();
    world.entity_mut(root).add_child(relu);
    let results = world.brains(nets).forward(&x).unwrap();
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), 1);
    // A clone has the hooks as well.
    world.brains(nets).clone_models(&[1]).unwrap();
    let four = world.brains(nets).forward(&Array3::<f32>::ones((4, 4, 2))).unwrap();
    assert_eq!(*seen.lock().unwrap(), 2);
    let rows = |of: &ArrayD<f32>, model: usize| of.index_axis(ndarray::Axis(0), model).to_owned();
    assert_eq!(rows(&four, 3), rows(&results, 1));
}

#[test]
fn a_load_says_what_would_go_on_otherwise() {
    let spawn = |seed: u64, p: f64, adam: Adam, t0: usize| {
        let mut world = World::new();
        let net = Sequential::new().push(Linear::new(3, 2)).push(Dropout { p });
        let of = world.spawn_population(&net, 2, Seed(seed)).unwrap().id();
        world.brains(of).insert(adam).unwrap();
        world.brains(of).schedule(CosineAnnealingWarmRestarts::new(t0, 2, 1e-4)).unwrap();
        (world, of)
    };
    let adam = Adam::default();
    let (mut world, of) = spawn(1, 0.5, adam, 3);
    let (x, y) = (Array3::<f32>::ones((2, 4, 3)), Array2::<i64>::zeros((2, 4)));
    world.brains(of).train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
    let roots = world.population(of).unwrap().models().to_vec();
    let saved = world.brains(of).training_state().unwrap();
    let one = world.part(roots[1]).training_state().unwrap();
    let refused = |(mut world, of): (World, Entity),
                   tensors: &[Tensor],
                   model: Option<usize>,
                   words: &str| {
        let entity = model.map_or(of, |model| world.population(of).unwrap().models()[model]);
        let before = world.brains(of).training_state().unwrap();
        let error = world.part(entity).load_training_state(tensors).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(world.brains(of).training_state().unwrap(), before);
    };
    let words =
        "module '1': the training state was saved with other settings than Dropout { p: 0.25 }";
    refused(spawn(1, 0.25, adam, 3), &saved, None, words);
    refused(spawn(1, 0.25, adam, 3), &one, Some(1), words);
    let words = "optimizer.param_groups.0: the training state was saved with other settings than Adam { lr: 0.001";
    refused(spawn(1, 0.5, Adam { maximize: true, ..adam }, 3), &saved, None, words);
    let words = "lr_scheduler.0: the training state was saved with other settings than Scheduler";
    refused(spawn(1, 0.5, adam, 4), &saved, None, words);
    let words = "the training state is of seed 1, but the population has seed 2";
    refused(spawn(2, 0.5, adam, 3), &one, Some(1), words);
    let words =
        "the training state is of model number 1, which another model of the population has";
    refused(spawn(1, 0.5, adam, 3), &one, Some(0), words);
    let strange = |name: &str| {
        let mut tensors = saved.clone();
        tensors.push(Tensor::new(name, ndarray::array![1.0, 1.0].view()));
        tensors
    };
    for name in ["grad_scaler.scale", "population.n_averaged", "gradient.0.weight", "what"] {
        refused(spawn(1, 0.5, adam, 3), &strange(name), None, &format!("has {name}, for which"));
    }
    let (mut world, of) = spawn(1, 0.5, adam, 3);
    world.brains(of).insert(GradScaler::default()).unwrap();
    refused((world, of), &saved, None, "the training state has no grad_scaler.init_scale");
    let (mut world, of) = spawn(2, 0.5, adam, 3);
    world.brains(of).load_training_state(&saved).unwrap();
    let now = world.brains(of).training_state().unwrap();
    assert_eq!(now, saved);
    let first = world.population(of).unwrap().models()[1];
    world.part(first).load_training_state(&one).unwrap();
}
