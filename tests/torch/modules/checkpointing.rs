//! Activation checkpointing: the bits are the same, nothing happens twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array, ArrayD, Dimension, IxDyn};
use neurarch::Plans;
use neurarch::components::containers::Slice;
use neurarch::components::module::mode::{Bits, Mode};
use neurarch::hooks::At;
use neurarch::prelude::*;
use neurarch::utils::checkpoint::SpanError;
use neurarch::utils::memory_profiler;

use crate::known::Known;

const MODELS: usize = 3;
const BATCH: usize = 4;

/// Numbers of all sizes, the same in every call.
fn numbers(shape: &[usize]) -> ArrayD<f32> {
    let mut state = 3_u32;
    ArrayD::from_shape_fn(IxDyn(shape), |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn words<D: Dimension>(numbers: &Array<f32, D>) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// All numbers of all models: parameters, running statistics.
fn state(world: &mut World, population: Entity) -> Vec<String> {
    let roots = world.population(population).unwrap().models().to_vec();
    let of = |root| {
        let state = world.module_mut(root).unwrap().state_dict().unwrap();
        state.iter().map(|tensor| format!("{tensor:?}")).collect::<String>()
    };
    roots.into_iter().map(of).collect()
}

/// What a population comes to: losses, gradients, results in evaluation mode and all numbers at the end.
#[derive(Debug, PartialEq)]
struct Life {
    losses: Vec<Vec<u32>>,
    gradients: Vec<Vec<u32>>,
    results: Vec<u32>,
    state: Vec<String>,
}

/// Lets models train by `train_step`, and call by call.
fn live(
    model: &impl Module,
    (x, y): (&[usize], &[usize]),
    mark: impl Fn(&mut PopulationMut<'_>),
) -> Life {
    let mut world = World::new();
    let population = world.spawn_population(model, MODELS, Seed(5)).unwrap().id();
    let mut models = world.population_mut(population).unwrap();
    models.insert(Adam { lr: 0.01, ..Adam::default() }).unwrap();
    mark(&mut models);
    let x = numbers(&[&[MODELS, BATCH], x].concat());
    let y = numbers(&[&[MODELS, BATCH], y].concat());
    let mut losses = Vec::new();
    for _ in 0..3 {
        losses.push(words(&models.train_step(&x, &y, &MSELoss::default()).unwrap()));
    }
    let mut gradients = Vec::new();
    for _ in 0..2 {
        losses.push(words(&world.brains(population).forward(&x).unwrap()));
        let loss = world.brains(population).loss::<f32, f32>(&y, &MSELoss::default());
        losses.push(words(&loss.unwrap()));
        world.brains(population).backward().unwrap();
        for root in world.population(population).unwrap().models().to_vec() {
            for name in world.part(root).parameter_names().unwrap() {
                let gradient = world.part(root).gradient::<f32>(&name).unwrap();
                gradients.push(words(&gradient.unwrap()));
            }
        }
        world.brains(population).step().unwrap();
    }
    let mut models = world.brains(population);
    let results = models.eval().unwrap().no_grad(|models| models.forward(&x)).unwrap();
    Life { losses, gradients, results: words(&results), state: state(&mut world, population) }
}

/// Compares a life with checkpoints with one without.
fn check(model: &impl Module, sizes: (&[usize], &[usize]), mark: impl Fn(&mut PopulationMut<'_>)) {
    let (plain, marked) = (live(model, sizes, |_| ()), live(model, sizes, mark));
    assert_eq!(plain, marked);
}

fn deep(layers: usize, width: usize) -> Sequential {
    let mut net = Sequential::new();
    for _ in 0..layers {
        net = net.push(Linear::new(width, width)).push(Tanh);
    }
    net
}

#[test]
fn a_deep_network_has_the_same_bits() {
    let net = deep(7, 5);
    check(&net, (&[5], &[5]), |models| models.checkpoint_sequential(4).unwrap());
    check(&net, (&[5], &[5]), |models| models.checkpoint_span(2..9).unwrap());
    check(&net, (&[5], &[5]), |models| models.enable_activation_checkpointing().unwrap());
    check(&net, (&[5], &[5]), |models| {
        models.enable_activation_checkpointing().unwrap();
        models.checkpoint_sequential(3).unwrap();
        for layer in ["0", "3", "4", "13"] {
            models.at(layer).enable_activation_checkpointing().unwrap();
        }
    });
}

#[test]
fn a_convolutional_network_has_the_same_bits_and_statistics() {
    let block = |from, to| {
        let block = Sequential::new().push(Conv2d::new(from, to, 3).with_padding(1));
        block.push(BatchNorm2d::new(to)).push(ReLU)
    };
    let net = Sequential::new().push(block(2, 3)).push(block(3, 4)).push(MaxPool2d::new(2));
    let net = net.push(Flatten::default()).push(Linear::new(16, 2));
    check(&net, (&[2, 4, 4], &[2]), |models| {
        models.at("0").enable_activation_checkpointing().unwrap();
        models.at("1").enable_activation_checkpointing().unwrap();
    });
    check(&net, (&[2, 4, 4], &[2]), |models| models.checkpoint_span(..4).unwrap());
}

#[test]
fn dropout_draws_the_same_numbers() {
    let mut net = Sequential::new();
    for p in [0.3, 0.5, 0.1] {
        net = net.push(Linear::new(6, 6)).push(GELU::default()).push(Dropout { p });
    }
    check(&net, (&[6], &[6]), |models| models.checkpoint_sequential(3).unwrap());
    check(&net, (&[6], &[6]), |models| models.enable_activation_checkpointing().unwrap());
}

/// Gives what a recurrent network makes of a sequence.
#[derive(Component, Clone, Debug, PartialEq)]
struct Sequence;

impl Module for Sequence {
    fn declare(&self, declare: &mut Declare) {
        declare.child("lstm", LSTM::new(3, 4));
        declare.child("out", Linear::new(4, 2));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let Tree::Tuple(results) = call.child_with("lstm", Arguments::one(x.into())) else {
            return call.trace.poison();
        };
        let Some(Tree::Leaf(y)) = results.into_iter().next() else { return call.trace.poison() };
        call.child("out", &y.tanh())
    }
}

#[test]
fn a_recurrent_network_has_the_same_bits() {
    check(&Sequence, (&[5, 3], &[5, 2]), |models| {
        models.at("lstm").enable_activation_checkpointing().unwrap();
    });
    check(&Sequence, (&[5, 3], &[5, 2]), |models| {
        models.enable_activation_checkpointing().unwrap();
    });
}

#[test]
fn a_transformer_layer_has_the_same_bits() {
    let layer = || TransformerEncoderLayer::new(8, 2);
    let net = Sequential::new().push(layer()).push(layer());
    check(&net, (&[3, 8], &[3, 8]), |models| {
        for at in ["0", "1", "1.self_attn", "1.norm1"] {
            models.at(at).enable_activation_checkpointing().unwrap();
        }
    });
}

/// Computes a part of its `forward` again, in evaluation mode, too.
#[derive(Component, Clone, Debug, PartialEq)]
struct Own {
    again: bool,
}

impl Module for Own {
    fn declare(&self, declare: &mut Declare) {
        declare.child("up", Linear::new(4, 16));
        declare.child("down", Linear::new(16, 4));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let inner = || call.child("down", &call.child("up", &x).tanh());
        &x + &if self.again { call.checkpoint(inner) } else { inner() }
    }
}

#[test]
fn a_forward_may_have_spans_of_its_own() {
    let of = |again| Sequential::from_iter([Own { again }, Own { again }, Own { again }]);
    let sizes: (&[usize], &[usize]) = (&[4], &[4]);
    assert_eq!(live(&of(true), sizes, |_| ()), live(&of(false), sizes, |_| ()));
    assert!(arena(&of(true), 4, |_| ()) < arena(&of(false), 4, |_| ()));
}

/// Returns the bytes of the arena in which a model trains.
fn arena(model: &impl Module, width: usize, mark: impl Fn(&mut PopulationMut<'_>)) -> usize {
    let mut world = World::new();
    let mut models = world.spawn_population(model, 1, Seed(5)).unwrap();
    models.insert(SGD::default()).unwrap();
    mark(&mut models);
    let x = numbers(&[1, 64, width]);
    models.train_step(&x, &x, &MSELoss::default()).unwrap();
    let plans = world.resource::<Plans>();
    plans.plans().map(|plan| plan.arena_bytes()).max().unwrap()
}

#[test]
fn activations_of_deep_networks_take_a_part_of_the_memory() {
    for (layers, segments, part) in [(24, 6, 2), (48, 8, 3)] {
        let net = deep(layers, 8);
        let plain = arena(&net, 8, |_| ());
        let less = arena(&net, 8, |models| models.checkpoint_sequential(segments).unwrap());
        assert!(less * part <= plain, "{layers} layers: {less} of {plain} bytes");
        let in_eval = arena(&net, 8, |models| {
            models.checkpoint_sequential(segments).unwrap();
            models.eval().unwrap();
        });
        assert_eq!(in_eval, plain, "in training mode alone");
    }
}

#[test]
fn a_tape_keeps_what_goes_into_spans() {
    let kept = |mark: &dyn Fn(&mut PopulationMut<'_>)| {
        let mut world = World::new();
        let mut models = world.spawn_population(&deep(24, 8), MODELS, Seed(5)).unwrap();
        mark(&mut models);
        let id = models.id();
        let x = numbers(&[MODELS, 64, 8]);
        let call = |world: &mut World| world.population_mut(id).unwrap().forward(&x).map(drop);
        let (done, profile) = memory_profiler(&mut world, call);
        done.unwrap();
        profile.memory_increase()
    };
    let plain = kept(&|_| ());
    let less = kept(&|models| models.checkpoint_sequential(6).unwrap());
    assert!(less * 2 <= plain, "{less} of {plain} bytes");
}

#[test]
fn hooks_are_called_once() {
    let counted = |mark: &dyn Fn(&mut PopulationMut<'_>), changes: bool| {
        let mut world = World::new();
        let net = Sequential::new().push(Linear::new(3, 4)).push(BatchNorm1d::new(4)).push(Tanh);
        let id = world.spawn_population(&net, MODELS, Seed(5)).unwrap().id();
        let mut models = world.population_mut(id).unwrap();
        models.insert(SGD { lr: 0.1, ..SGD::default() }).unwrap();
        mark(&mut models);
        let counts: Arc<[AtomicUsize; 3]> = Arc::default();
        let count = |number: usize| {
            let counts = counts.clone();
            move || {
                counts[number].fetch_add(1, Ordering::Relaxed);
            }
        };
        let (forward, gradient) = (count(0), count(1));
        let mut layer = models.at("0");
        layer
            .register_forward_hook(move |_: &At<'_>, _: &Arguments, y: Option<&Tree>| {
                forward();
                Ok(y.filter(|_| changes).map(|y| y.clone().map(&mut |y| y * 2.0)))
            })
            .unwrap();
        layer.register_full_backward_pre_hook(move |_: &At<'_>, _| gradient()).unwrap();
        let (x, y) = (numbers(&[MODELS, BATCH, 3]), numbers(&[MODELS, BATCH, 4]));
        let mut losses = Vec::new();
        for _ in 0..2 {
            losses.push(words(&models.train_step(&x, &y, &MSELoss::default()).unwrap()));
        }
        models.forward(&x).unwrap();
        losses.push(words(&models.loss::<f32, f32>(&y, &MSELoss::default()).unwrap()));
        models.backward().unwrap();
        models.step().unwrap();
        let counts: Vec<_> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        (counts, losses, state(&mut world, id))
    };
    for changes in [false, true] {
        let plain = counted(&|_| (), changes);
        assert_eq!(plain.0, [3, 3, 0], "once a pass");
        let whole = |models: &mut PopulationMut<'_>| {
            models.enable_activation_checkpointing().unwrap();
            models.at("0").enable_activation_checkpointing().unwrap();
        };
        assert_eq!(counted(&whole, changes), plain);
    }
}

#[test]
fn models_of_a_population_may_differ() {
    let all = |marked: &[usize]| {
        let mut world = World::new();
        let net = Sequential::new().push(deep(4, 5)).push(Dropout { p: 0.3 });
        let mut models = world.spawn_population(&net, 5, Seed(5)).unwrap();
        models.insert(Adam::default()).unwrap();
        for &model in marked {
            let mut body = models.model(model).unwrap().at("0").unwrap();
            body.checkpoint_sequential(2).unwrap();
            assert!(!body.is_activation_checkpointing().unwrap());
            body.enable_activation_checkpointing().unwrap();
            assert!(body.is_activation_checkpointing().unwrap());
        }
        let id = models.id();
        let (x, y) = (numbers(&[5, BATCH, 5]), numbers(&[5, BATCH, 5]));
        let mut losses = Vec::new();
        for _ in 0..2 {
            losses.push(words(&models.train_step(&x, &y, &MSELoss::default()).unwrap()));
            models.forward(&x).unwrap();
            models.loss::<f32, f32>(&y, &MSELoss::default()).unwrap();
            models.backward().unwrap();
            models.step().unwrap();
        }
        (losses, state(&mut world, id))
    };
    let plain = all(&[]);
    for marked in [&[0, 1, 2, 3, 4][..], &[1, 3], &[4]] {
        assert_eq!(all(marked), plain, "{marked:?}");
    }
}

#[test]
fn what_is_marked_follows_edits_and_goes_with_disable() {
    let mut world = World::new();
    let mut models = world.spawn_population(&deep(4, 5), MODELS, Seed(5)).unwrap();
    models.checkpoint_span(2..6).unwrap();
    models.at("3").enable_activation_checkpointing().unwrap();
    models.container().insert(0, Tanh).unwrap();
    assert!(!models.model(0).unwrap().is_activation_checkpointing().unwrap());
    let marked = |models: &mut PopulationMut<'_>| {
        let root = models.models().unwrap()[0];
        let mode = models.world().get::<Mode>(root).unwrap().clone();
        let of = |bits: &Bits| (0..12).filter(|&at| bits.contains(at)).collect::<Vec<_>>();
        mode.checkpoints.map(|marked| [&marked.modules, &marked.begins, &marked.continues].map(of))
    };
    // Position 0 is the root.
    let spans = Some([vec![5], vec![4], vec![5, 6, 7]]);
    assert_eq!(marked(&mut models), spans);
    models.at("5").disable_activation_checkpointing().unwrap();
    assert_eq!(marked(&mut models), spans, "nothing is marked there");
    models.checkpoint_span(4..5).unwrap();
    assert_eq!(marked(&mut models), Some([vec![5], vec![4, 5, 6], vec![7]]));
    models.checkpoint_sequential(1).unwrap();
    assert_eq!(marked(&mut models), Some([vec![5], vec![], vec![]]));
    models.disable_activation_checkpointing().unwrap();
    assert_eq!(marked(&mut models), None);
}

#[test]
fn spans_that_cannot_be_are_errors() {
    let mut world = World::new();
    let net = Sequential::from_named([("a", deep(2, 3))]).unwrap();
    let mut models = world.spawn_population(&net, 2, Seed(5)).unwrap();
    let mut body = models.at("a");
    let words = |error: Result<(), SpanError>| error.unwrap_err().to_string();
    assert_eq!(words(body.checkpoint_sequential(0)), "'a': expected 1 to 4 segments, got 0");
    assert_eq!(words(body.checkpoint_sequential(5)), "'a': expected 1 to 4 segments, got 5");
    let step = Slice::from(..).step_by(2);
    assert_eq!(
        words(body.checkpoint_span(step)),
        "'a': expected modules one behind the other, got a step of 2"
    );
    let nowhere = Slice::from(..).step_by(0);
    assert_eq!(words(body.checkpoint_span(nowhere)), "'a': slice step cannot be zero");
    assert_eq!(
        words(models.at("a.0").checkpoint_span(..)),
        "'a.0': expected a Sequential, got Linear"
    );
    assert_eq!(words(models.at("b").checkpoint_span(..)), "'b': Sequential has no attribute `b`");
    let root = models.models().unwrap()[0];
    assert_eq!(world.get::<Mode>(root).unwrap().checkpoints, None);
}

#[test]
fn marks_that_change_between_forward_and_backward_are_an_error() {
    let mut world = World::new();
    let mut models = world.spawn_population(&deep(3, 4), 2, Seed(5)).unwrap();
    let x = numbers(&[2, BATCH, 4]);
    models.forward(&x).unwrap();
    models.loss::<f32, f32>(&x, &MSELoss::default()).unwrap();
    models.checkpoint_sequential(2).unwrap();
    assert_eq!(
        models.backward().unwrap_err().to_string(),
        "expected the models and modes of the last forward pass: they changed since"
    );
    models.forward(&x).unwrap();
    models.loss::<f32, f32>(&x, &MSELoss::default()).unwrap();
    models.backward().unwrap();
}

#[test]
fn a_parameter_written_to_in_between_is_an_error() {
    let mut world = World::new();
    let mut models = world.spawn_population(&deep(3, 4), 2, Seed(5)).unwrap();
    models.enable_activation_checkpointing().unwrap();
    let x = numbers(&[2, BATCH, 4]);
    models.forward(&x).unwrap();
    models.loss::<f32, f32>(&x, &MSELoss::default()).unwrap();
    // The gradients alone would not read the bias.
    models.model(1).unwrap().set_parameter("0.bias", numbers(&[4]).view()).unwrap();
    let error = models.backward().unwrap_err().to_string();
    assert!(error.contains("0.bias"), "{error}");
}

#[test]
fn autocast_has_the_same_bits() {
    let run = |marks: bool| {
        let mut world = World::new();
        let mut models = world.spawn_population(&deep(5, 8), 2, Seed(5)).unwrap();
        models.insert(Adam::default()).unwrap();
        if marks {
            models.checkpoint_sequential(3).unwrap();
        }
        let (id, x) = (models.id(), numbers(&[2, BATCH, 8]));
        for _ in 0..2 {
            models
                .autocast(Dtype::BF16, |models| {
                    models.train_step(&x, &x, &MSELoss::default()).map(drop)
                })
                .unwrap();
        }
        state(&mut world, id)
    };
    assert_eq!(run(true), run(false));
}
