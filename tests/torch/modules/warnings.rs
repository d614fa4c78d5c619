//! torch's warnings, by events of the crate `tracing`: once per place, and none where torch has none.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3};
use neurarch::hooks::{At, Target};
use neurarch::lr_scheduler::GroupSchedulers;
use neurarch::prelude::*;
use neurarch::systems::init::{FanMode, Nonlinearity};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::known::Known;

/// Keeps what it is told: places and messages.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<(String, String)>>>);

/// The fields of one event.
#[derive(Default)]
struct Fields {
    place: String,
    message: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        assert_eq!(field.name(), "place");
        value.clone_into(&mut self.place);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        assert_eq!(field.name(), "message");
        self.message = format!("{value:?}");
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "neurarch"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        assert_eq!(*event.metadata().level(), Level::WARN);
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().unwrap().push((fields.place, fields.message));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Lists the warnings that `run` gives.
fn warnings(run: impl FnOnce()) -> Vec<(String, String)> {
    let listener = Listener::default();
    tracing::subscriber::with_default(listener.clone(), run);
    std::mem::take(&mut *listener.0.lock().unwrap())
}

fn messages(run: impl FnOnce()) -> Vec<String> {
    warnings(run).into_iter().map(|(_, message)| message).collect()
}

const EMPTY: &str = "Initializing zero-element tensors is a no-op";

#[test]
fn first_numbers_of_nothing_are_warned_of_once_per_line() {
    let mut world = World::new();
    let found = warnings(|| {
        let layers = world.spawn_population(&Linear::new(0, 3), 2, Seed(1)).unwrap().id();
        world.spawn_population(&Linear::new(0, 2), 2, Seed(1)).unwrap().id();
        for _ in 0..3 {
            let (mode, after) = (FanMode::FanIn, Nonlinearity::ReLU);
            init::kaiming_uniform_(&mut world, layers, "weight", mode, after).unwrap();
        }
        init::kaiming_normal_(&mut world, layers, "weight", FanMode::FanOut, Nonlinearity::ReLU)
            .unwrap();
        init::xavier_uniform_(&mut world, layers, "weight", 1.0).unwrap();
        init::uniform_(&mut world, layers, "weight", 0.0, 1.0).unwrap();
    });
    assert!(found.iter().all(|(_, message)| message == EMPTY), "{found:?}");
    let places: Vec<_> = found.into_iter().map(|(place, _)| place).collect();
    assert_eq!(places[0], "Linear");
    assert_eq!(places.len(), 3, "{places:?}");
    assert!(places[1..].iter().all(|place| place.starts_with(file!())));
    // What waits for its shape is not initialized yet.
    let lazy = Sequential::new().push(LazyConv2d::new(2, 3)).push(LazyLinear::new(3));
    assert_eq!(
        messages(|| drop(world.spawn_population(&lazy, 1, Seed(1)).map(|brains| brains.id()))),
        [""; 0]
    );
    // Another world has warned of nothing yet.
    let spawn = || drop(World::new().spawn_population(&Conv2d::new(0, 3, 2), 1, Seed(1)));
    assert_eq!(messages(spawn), [EMPTY]);
}

#[test]
fn bounds_far_from_the_mean_are_warned_of() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(4, 3), 2, Seed(1)).unwrap().id();
    let found = messages(|| {
        let truncated = init::trunc_normal_;
        truncated(&mut world, layers, "weight", (0.0, 1.0), (-2.0, 2.0)).unwrap();
        truncated(&mut world, layers, "weight", (5.0, 1.0), (-2.0, 2.0)).unwrap();
        truncated(&mut world, layers, "wieght", (5.0, 1.0), (-2.0, 2.0)).unwrap_err();
    });
    let expected = "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. The distribution of values may be \
                    incorrect.";
    assert_eq!(found, [expected]);
}

#[test]
fn what_a_module_warns_of_while_it_is_called_is_told_once_however_it_runs() {
    let mut world = World::new();
    let model = Sequential::new().push(Dropout2d { p: 0.5 }).push(InstanceNorm1d::new(4));
    let models = world.spawn_population(&model, 3, Seed(1)).unwrap().id();
    let x = Array3::<f32>::ones((3, 5, 2));
    let found = warnings(|| {
        let x = x.insert_axis(ndarray::Axis(1));
        for watched in [false, true] {
            // A hook that changes something makes the pass op by op.
            if watched {
                let double = |_: &At<'_>, _: &Arguments, y: Option<&Tree>| {
                    Ok(y.and_then(Tree::leaf).map(|y| Tree::from(y * 2.0)))
                };
                world
                    .population_mut(models)
                    .unwrap()
                    .at("0")
                    .register_forward_hook(double)
                    .unwrap();
            }
            world.population_mut(models).unwrap().forward(&x).unwrap();
            world.population_mut(models).unwrap().forward(&x).unwrap();
        }
    });
    let starts = [
        (
            "Dropout2d",
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D",
        ),
        (
            "InstanceNorm1d",
            "input's size at dim=1 does not match num_features. You can silence this",
        ),
    ];
    assert_eq!(found.len(), starts.len(), "{found:?}");
    for ((place, text), (module, start)) in found.into_iter().zip(starts) {
        assert!(place == module && text.starts_with(start), "{place}: {text}");
    }
}

#[test]
fn constructors_and_losses_warn() {
    let mut world = World::new();
    let found = messages(|| {
        let lstm = LSTM { dropout: 0.25, ..LSTM::new(2, 3) };
        world.spawn_population(&lstm, 1, Seed(1)).unwrap().id();
        let layers = world.spawn_population(&Linear::new(2, 3), 1, Seed(1)).unwrap().id();
        world.population_mut(layers).unwrap().insert(SGD::default()).unwrap();
        let (x, y) = (Array3::<f32>::ones((1, 4, 2)), Array3::<f32>::ones((1, 4, 3)));
        for _ in 0..2 {
            world
                .population_mut(layers)
                .unwrap()
                .train_step(&x, &y, &KLDivLoss::default())
                .unwrap();
        }
    });
    assert_eq!(found.len(), 2, "{found:?}");
    let dropout = "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects num_layers \
                   greater than 1, but got dropout=0.25 and num_layers=1";
    assert_eq!(found[0], dropout);
    assert!(
        found[1].starts_with("reduction: 'mean' divides the total loss by both the batch size")
    );
}

#[test]
fn an_error_of_a_hook_that_another_came_before_is_warned_of() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(2, 3), 2, Seed(1)).unwrap().id();
    let always = HookOptions { always_call: true, ..HookOptions::default() };
    for (target, says) in
        [(Target::All, "of all"), (Target::from(layers_root(&world, layers)), "own")]
    {
        let fails = neurarch::components::hook::Callback::forward(
            move |_, _, _| -> Result<Option<Tree>, _> { Err(says.into()) },
        );
        world.target_mut(target).register_hook_with(fails, always).unwrap();
    }
    let found = warnings(|| {
        world.population_mut(layers).unwrap().forward(&Array2::<f32>::ones((2, 9))).unwrap_err();
    });
    let expected = [
        "global module forward hook with ``always_call=True`` raised an exception that was silenced as another error \
         was raised in forward: of all",
        "module forward hook with ``always_call=True`` raised an exception that was silenced as another error was \
         raised in forward: own",
    ];
    assert_eq!(found, expected.map(|text| ("Linear".to_owned(), text.to_owned())));
}

fn layers_root(world: &World, layers: Entity) -> Entity {
    world.population(layers).unwrap().models()[0]
}

#[test]
fn full_backward_hooks_without_an_input_that_needs_gradients_are_warned_of() {
    let mut world = World::new();
    let layers = world.spawn_population(&Linear::new(2, 3), 2, Seed(1)).unwrap().id();
    let x = Array2::<f32>::ones((2, 2));
    let back = |world: &mut World, input: Input<'_, f32>| {
        world.population_mut(layers).unwrap().forward(input).unwrap();
        world.population_mut(layers).unwrap().backward_from(&Array2::<f32>::ones((2, 3))).unwrap();
    };
    // A pre-hook alone is no reason.
    world.population_mut(layers).unwrap().register_full_backward_pre_hook(|_, _| {}).unwrap();
    assert_eq!(messages(|| back(&mut world, (&x).into())), [""; 0]);
    world.population_mut(layers).unwrap().register_full_backward_hook(|_, _, _| {}).unwrap();
    assert_eq!(messages(|| back(&mut world, Input::from(&x).requires_grad())), [""; 0]);
    let found = messages(|| (0..2).for_each(|_| back(&mut world, (&x).into())));
    let expected = "Full backward hook is firing when gradients are computed with respect to module outputs since no \
                    inputs require gradients. See https://docs.pytorch.org/docs/main/generated/torch.nn.Module.html\
                    #torch.nn.Module.register_full_backward_hook for more details.";
    assert_eq!(found, [expected]);
}

#[test]
fn backward_hooks_that_are_not_full_warn_where_they_miss_gradients() {
    let mut world = World::new();
    let network = Sequential::new().push(Tanh).push(Linear::new(2, 3));
    let layers = world.spawn_population(&network, 2, Seed(1)).unwrap().id();
    let mut found = |path: &str| {
        world
            .population_mut(layers)
            .unwrap()
            .at(path)
            .register_backward_hook(|_, _, _| {})
            .unwrap();
        warnings(|| {
            world.population_mut(layers).unwrap().forward(&Array2::<f32>::ones((2, 2))).unwrap();
        })
    };
    // One op is one node of autograd, and so its inputs are those of the module.
    assert_eq!(found("0"), []);
    let expected = "Using a non-full backward hook when the forward contains multiple autograd Nodes is deprecated and will \
                    be removed in future versions. This hook will be missing some grad_input. Please use \
                    register_full_backward_hook to get the documented behavior.";
    assert_eq!(found("1"), [("Linear".to_owned(), expected.to_owned())]);
}

const ORDER: &str = "Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch 1.1.0 and \
     later, you should call them in the opposite order: `optimizer.step()` before `lr_scheduler.step()`.  \
     Failure to do this will result in PyTorch skipping the first value of the learning rate schedule. See \
     more details at https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate";

const EPOCH: &str = "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated \
     where possible. Please use `scheduler.step()` to step the scheduler. During the deprecation, if epoch is \
     different from None, the closed form is used instead of the new chainable form, where available. Please \
     open an issue if you are unable to replicate your use case: \
     https://github.com/pytorch/pytorch/issues/new/choose.";

/// A population that learns, with a scheduler.
fn scheduled(scheduler: impl GroupSchedulers + Clone) -> (World, Entity) {
    let mut world = World::new();
    let mut layers = world.spawn_population(&Linear::new(2, 2), 2, Seed(1)).unwrap();
    layers.insert(SGD::default()).unwrap().schedule(scheduler).unwrap();
    let id = layers.id();
    (world, id)
}

fn train(world: &mut World, population: Entity) {
    let (x, y) = (Array3::<f32>::ones((2, 3, 2)), Array3::<f32>::zeros((2, 3, 2)));
    world.brains(population).train_step(&x, &y, &MSELoss::default()).unwrap();
}

#[test]
fn schedulers_that_step_before_the_optimizer_are_warned_of() {
    let decay = ExponentialLR { gamma: 0.5 };
    let (mut world, layers) = scheduled(decay);
    let found = warnings(|| {
        for _ in 0..2 {
            world.brains(layers).step_schedulers().unwrap();
        }
    });
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0.contains("warnings.rs"), "{found:?}");
    assert_eq!(found[0].1, ORDER);

    // In torch's order, and where torch does not ask.
    let (mut world, layers) = scheduled(decay);
    let restarts = CosineAnnealingWarmRestarts::new(2, 1, 0.0);
    let found = messages(|| {
        train(&mut world, layers);
        world.brains(layers).step_schedulers().unwrap();
        for early in [scheduled(restarts), scheduled([restarts])] {
            let (mut world, layers) = early;
            world.brains(layers).step_schedulers().unwrap();
        }
        let (mut world, layers) = scheduled(ReduceLROnPlateau::default());
        world.brains(layers).step_schedulers_with_metrics(&[1.0; 2]).unwrap();
    });
    assert_eq!(found, [""; 0]);

    // Steps before a first schedule do not count, those before another one do.
    let found = messages(|| {
        let mut world = World::new();
        let layers = world.spawn_population(&Linear::new(2, 2), 2, Seed(1)).unwrap().id();
        world.brains(layers).insert(SGD::default()).unwrap();
        train(&mut world, layers);
        world.brains(layers).schedule(decay).unwrap();
        world.brains(layers).step_schedulers().unwrap();
        train(&mut world, layers);
        world.brains(layers).schedule(decay).unwrap();
        world.brains(layers).step_schedulers().unwrap();
    });
    assert_eq!(found, [ORDER]);
}

#[test]
fn a_step_to_an_epoch_is_deprecated() {
    let (mut world, layers) = scheduled(ExponentialLR { gamma: 0.5 });
    train(&mut world, layers);
    let found = messages(|| {
        for epoch in [3.0, 4.0] {
            world.brains(layers).step_schedulers_to(epoch).unwrap();
        }
        let (mut world, layers) = scheduled(CosineAnnealingWarmRestarts::new(2, 1, 0.0));
        world.brains(layers).step_schedulers_to(0.5).unwrap();
    });
    assert_eq!(found, [EPOCH]);
}
