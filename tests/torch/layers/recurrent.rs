//! Recurrent layers: the same alone and among others, gradients by finite differences, sequences of several lengths,
//! and what is refused.

use ndarray::{ArrayD, Axis, IxDyn};
use neurarch::components::module::DynModule;
use neurarch::prelude::*;
use neurarch::systems::execute::step::input_gradients;

fn numbers(shape: &[usize], f: impl Fn(f64) -> f64) -> ArrayD<f64> {
    let count = shape.iter().product::<usize>();
    ArrayD::from_shape_vec(IxDyn(shape), (0..count).map(|i| f(i as f64)).collect()).unwrap()
}

/// A call of a layer: the shapes of its inputs, and how they are nested.
struct Case {
    layer: Box<dyn DynModule>,
    shapes: Vec<Vec<usize>>,
    arguments: Arguments<usize>,
}

fn case(layer: impl Module, shapes: &[&[usize]], arguments: Vec<Tree<usize>>) -> Case {
    let shapes = shapes.iter().map(|shape| shape.to_vec()).collect();
    let arguments = Arguments { positional: arguments, keyword: Vec::new() };
    Case { layer: Box::new(layer), shapes, arguments }
}

/// Every kind of layer, each with other options.
fn cases() -> Vec<Case> {
    let leaf = Tree::Leaf;
    let pair = |h, c| Tree::Tuple(vec![leaf(h), leaf(c)]);
    let packed = |lengths: &[usize], batch_first| {
        let packed = PackedSequence::new(0, lengths);
        Tree::from(PackedSequence { batch_first, enforce_sorted: false, ..packed })
    };
    let relu = Nonlinearity::ReLU;
    vec![
        case(RNNCell::new(3, 4), &[&[2, 3]], vec![leaf(0)]),
        case(
            RNNCell { nonlinearity: relu, ..RNNCell::new(3, 4) },
            &[&[3], &[4]],
            vec![leaf(0), leaf(1)],
        ),
        case(LSTMCell::new(3, 2), &[&[2, 3], &[2, 2], &[2, 2]], vec![leaf(0), pair(1, 2)]),
        case(
            GRUCell { bias: false, ..GRUCell::new(3, 2) },
            &[&[2, 3], &[2, 2]],
            vec![leaf(0), leaf(1)],
        ),
        case(
            RNN { num_layers: 2, bidirectional: true, ..RNN::new(2, 3) },
            &[&[3, 2, 2]],
            vec![leaf(0)],
        ),
        case(
            RNN { nonlinearity: relu, batch_first: true, bidirectional: true, ..RNN::new(2, 3) },
            &[&[3, 4, 2], &[2, 3, 3]],
            vec![packed(&[2, 4, 1], true), leaf(1)],
        ),
        case(LSTM { num_layers: 2, ..LSTM::new(2, 3) }, &[&[3, 2]], vec![leaf(0)]),
        case(
            LSTM { num_layers: 2, proj_size: 2, bidirectional: true, ..LSTM::new(2, 3) },
            &[&[4, 3, 2], &[4, 3, 2], &[4, 3, 3]],
            vec![packed(&[2, 3, 1], false), pair(1, 2)],
        ),
        case(
            GRU { num_layers: 2, bias: false, ..GRU::new(2, 3) },
            &[&[3, 2, 2], &[2, 2, 3]],
            vec![leaf(0), leaf(1)],
        ),
        case(
            GRU { bidirectional: true, ..GRU::new(2, 3) },
            &[&[3, 2, 2]],
            vec![packed(&[1, 3], false)],
        ),
    ]
}

/// What a pass gives: results, gradients of inputs and of parameters, each `[models, ..]`.
struct Pass {
    results: Vec<ArrayD<f64>>,
    gradients: Vec<ArrayD<f64>>,
}

/// Calls models `first..first + models` of a population and goes back from the sum of `cos(1.3 i) · y[i]`.
fn pass(case: &Case, first: usize, models: usize) -> Pass {
    let (mut world, population) = spawn(case, first, models);
    let inputs = inputs(case);
    let call = |world: &mut World, requires_grad: bool| {
        let arguments = case.arguments.clone().map(&mut |i: usize| {
            let input = Input::shared(inputs[i].view());
            AnyInput::from(if requires_grad { input.requires_grad() } else { input })
        });
        let results =
            world.population_mut(population).unwrap().forward_with::<f64>(arguments).unwrap();
        results.leaves().into_iter().cloned().collect::<Vec<_>>()
    };
    let planned = call(&mut world, false);
    let results = call(&mut world, true);
    assert_eq!(bits(&planned), bits(&results), "planned and eager: {:?}", case.layer);
    let given: Vec<_> = results.iter().map(|y| weights(&y.shape()[1..])).collect();
    let given: Vec<_> =
        given.iter().map(|dy| Some(AnyInput::from(Input::shared(dy.view())))).collect();
    world.population_mut(population).unwrap().backward_with(&given).unwrap();
    let of_inputs = input_gradients::<f64>(&world, population).unwrap();
    let mut gradients: Vec<_> = of_inputs.into_iter().map(Option::unwrap).collect();
    let root = world.population(population).unwrap().models()[0];
    for name in world.module_mut(root).unwrap().parameter_names().unwrap() {
        let roots = world.population(population).unwrap().models().to_vec();
        let each = roots
            .iter()
            .map(|&root| world.module_mut(root).unwrap().gradient::<f64>(&name).unwrap().unwrap());
        let each: Vec<_> = each.collect();
        let each: Vec<_> = each.iter().map(|gradient| gradient.view()).collect();
        gradients.push(ndarray::stack(Axis(0), &each).unwrap());
    }
    Pass { results, gradients }
}

fn weights(shape: &[usize]) -> ArrayD<f64> {
    numbers(shape, |i| (1.3 * i).cos())
}

fn inputs(case: &Case) -> Vec<ArrayD<f64>> {
    let shapes = case.shapes.iter().enumerate();
    shapes.map(|(k, shape)| numbers(shape, |i| (0.7 * i + k as f64).sin())).collect()
}

/// A layer behind a pointer.
#[derive(Component, Clone, Debug)]
struct Any(Box<dyn DynModule>);

impl PartialEq for Any {
    fn eq(&self, other: &Self) -> bool {
        self.0.equals(&*other.0)
    }
}

impl Module for Any {
    fn declare(&self, declare: &mut Declare) {
        self.0.declare(declare);
    }

    fn reset(&self, parameter: &str) -> neurarch::components::module::Init {
        self.0.reset(parameter)
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        self.0.forward_with(call, arguments)
    }
}

fn spawn(case: &Case, first: usize, models: usize) -> (World, Entity) {
    let mut world = World::new();
    let settings = PopulationSettings {
        models,
        seed: 3,
        first_number: first as u64,
        dtype: Dtype::F64,
        ..PopulationSettings::default()
    };
    let population = world.spawn_population_with(&Any(case.layer.clone()), settings).unwrap().id();
    (world, population)
}

fn bits(arrays: &[ArrayD<f64>]) -> Vec<Vec<u64>> {
    arrays.iter().map(|array| array.iter().map(|x| x.to_bits()).collect()).collect()
}

#[test]
fn three_models_are_the_same_apart() {
    for case in cases() {
        let all = pass(&case, 0, 3);
        for model in 0..3 {
            let alone = pass(&case, model, 1);
            let of = |arrays: &[ArrayD<f64>]| {
                let own = arrays.iter().map(|x| x.index_axis(Axis(0), model).to_owned());
                bits(&own.collect::<Vec<_>>())
            };
            assert_eq!(of(&all.results), bits(&alone.results), "{:?}", case.layer);
            assert_eq!(of(&all.gradients), bits(&alone.gradients), "{:?}", case.layer);
        }
        let results = &all.results[0];
        assert_ne!(results.index_axis(Axis(0), 0), results.index_axis(Axis(0), 1));
    }
}

/// The sum that [`pass`] goes back from.
fn loss(world: &mut World, population: Entity, case: &Case, inputs: &[ArrayD<f64>]) -> f64 {
    let arguments =
        case.arguments.clone().map(&mut |i: usize| AnyInput::from(Input::shared(inputs[i].view())));
    let results = world.population_mut(population).unwrap().forward_with::<f64>(arguments).unwrap();
    let sum = |y: &&ArrayD<f64>| (&y.index_axis(Axis(0), 0) * &weights(&y.shape()[1..])).sum();
    results.leaves().iter().map(sum).sum()
}

#[test]
fn gradients_are_slopes() {
    const STEP: f64 = 1e-5;
    for case in cases() {
        let found = pass(&case, 0, 1).gradients;
        let (mut world, population) = spawn(&case, 0, 1);
        let root = world.population(population).unwrap().models()[0];
        let names = world.module_mut(root).unwrap().parameter_names().unwrap();
        let of_parameters: Vec<_> = names
            .iter()
            .map(|name| world.module_mut(root).unwrap().parameter::<f64>(name).unwrap())
            .collect();
        let mut all = inputs(&case);
        let n_inputs = all.len();
        all.extend(of_parameters);
        for value in 0..all.len() {
            for element in 0..all[value].len() {
                let at = |world: &mut World, step: f64| {
                    let mut moved = all.clone();
                    moved[value].as_slice_mut().unwrap()[element] += step;
                    if value >= n_inputs {
                        let name = &names[value - n_inputs];
                        world
                            .module_mut(root)
                            .unwrap()
                            .set_parameter(name, moved[value].view())
                            .unwrap();
                    }
                    loss(world, population, &case, &moved[..n_inputs])
                };
                let slope = (at(&mut world, STEP) - at(&mut world, -STEP)) / (2.0 * STEP);
                let _ = at(&mut world, 0.0);
                let gradient = found[value].iter().nth(element).unwrap();
                // A central difference errs by its step squared and by rounding over its step.
                let close = (gradient - slope).abs() < 1e-8 * (1.0 + slope.abs());
                let layer = &case.layer;
                assert!(close, "{layer:?}: value {value}, {element}: {gradient}, not {slope}");
            }
        }
    }
}

#[test]
fn what_is_beyond_the_end_of_a_sequence_is_not_looked_at() {
    let mut world = World::new();
    let layer = LSTM { num_layers: 2, bidirectional: true, ..LSTM::new(2, 3) };
    let population = world.spawn_population(&layer, 2, Seed(1)).unwrap().id();
    let mut x = numbers(&[4, 3, 2], |i| (0.7 * i).sin()).mapv(|x| x as f32);
    let run = |world: &mut World, x: &ArrayD<f32>| {
        let packed = PackedSequence::new(AnyInput::from(Input::shared(x.view())), [4, 2, 1]);
        world
            .population_mut(population)
            .unwrap()
            .forward_with::<f32>(Arguments::one(packed.into()))
            .unwrap()
    };
    let expected = run(&mut world, &x);
    x.slice_mut(ndarray::s![2.., 1, ..]).fill(f32::NAN);
    x.slice_mut(ndarray::s![1.., 2, ..]).fill(f32::INFINITY);
    assert_eq!(run(&mut world, &x), expected);
    let Tree::Tuple(items) = expected else { panic!("not a tuple") };
    let Tree::Packed(output) = &items[0] else { panic!("not packed") };
    assert_eq!((&*output.lengths, output.data.shape()), (&[4, 2, 1][..], &[2, 4, 3, 6][..]));
    assert!(output.data.slice(ndarray::s![.., 1.., 2, ..]).iter().all(|&y| y == 0.0));
    // A sequence is the same alone.
    let alone = x.slice(ndarray::s![..2, 1, ..]).to_owned();
    let arguments = Arguments::each([AnyInput::from(Input::shared(alone.view()))]);
    let alone = world.population_mut(population).unwrap().forward_with::<f32>(arguments).unwrap();
    let difference = alone.leaves()[0] - &output.data.slice(ndarray::s![.., ..2, 1, ..]);
    assert!(difference.iter().all(|x| x.abs() < 1e-6), "{difference}");
}

/// Classifies sequences by the last output.
#[derive(Component, Clone, Debug, PartialEq)]
struct Reader {
    dropout: f64,
}

impl Module for Reader {
    fn declare(&self, declare: &mut Declare) {
        declare.child("rnn", GRU { num_layers: 2, dropout: self.dropout, ..GRU::new(3, 8) });
        declare.child("head", Linear::new(8, 2));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let Tree::Tuple(mut items) = call.child_with("rnn", x.transpose(0, 1)) else {
            return call.trace.poison();
        };
        match items.swap_remove(1) {
            Tree::Leaf(h) => call.child("head", &h.slice(0, 1..2).flatten(0, 1)),
            _ => call.trace.poison(),
        }
    }
}

#[test]
fn a_population_of_readers_learns_which_end_is_greater() {
    let mut world = World::new();
    let population = world.spawn_population(&Reader { dropout: 0.1 }, 4, Seed(1)).unwrap().id();
    world.population_mut(population).unwrap().insert(Adam { lr: 0.02, ..Adam::default() }).unwrap();
    let x = numbers(&[16, 5, 3], |i| (7.7 * i * i).sin()).mapv(|x| x as f32);
    let label = |i: usize| i64::from(x[[i, 0, 0]] > x[[i, 4, 0]]);
    let targets: Vec<_> = (0..16).map(label).collect();
    let targets = ndarray::aview1(&targets);
    let loss = CrossEntropyLoss::default();
    let mut step = || {
        let losses = world.population_mut(population).unwrap().train_step(
            Input::shared(x.view()),
            Input::shared(targets),
            &loss,
        );
        losses.unwrap().iter().sum::<f32>() / 4.0
    };
    let first = step();
    let last = (0..60).map(|_| step()).last().unwrap();
    assert!(last < first / 4.0, "from {first} to {last}");
}

#[test]
fn dropout_is_between_layers_and_only_while_training() {
    let mut world = World::new();
    let certain = LSTM { num_layers: 2, dropout: 1.0, bias: false, ..LSTM::new(3, 4) };
    let population = world.spawn_population(&certain, 1, Seed(1)).unwrap().id();
    let x = numbers(&[3, 2, 3], |i| (0.7 * i).sin()).mapv(|x| x as f32);
    let run = |world: &mut World| {
        let arguments = Arguments::each([AnyInput::from(Input::shared(x.view()))]);
        world.population_mut(population).unwrap().forward_with::<f32>(arguments).unwrap()
    };
    // Without biases, a second layer that gets only zeros gives only zeros.
    assert!(run(&mut world).leaves()[0].iter().all(|&y| y == 0.0));
    world.population_mut(population).unwrap().eval().unwrap();
    assert!(run(&mut world).leaves()[0].iter().all(|&y| y != 0.0));
}

fn refused(layer: impl Module, shapes: &[&[usize]], tree: Vec<Tree<usize>>) -> String {
    let case = case(layer, shapes, tree);
    let mut world = World::new();
    let population = world.spawn_population(&Any(case.layer.clone()), 1, Seed(1)).unwrap().id();
    let arrays: Vec<_> =
        case.shapes.iter().map(|shape| ArrayD::<f32>::zeros(shape.clone())).collect();
    let arguments =
        case.arguments.map(&mut |i: usize| AnyInput::from(Input::shared(arrays[i].view())));
    let error = world
        .population_mut(population)
        .unwrap()
        .forward_with::<f32>(arguments)
        .unwrap_err()
        .to_string();
    error.split_once(": ").map_or(error.clone(), |(_, message)| message.to_owned())
}

/// Messages of torch 2.15, but for the module's name before them.
#[test]
fn what_does_not_fit_is_refused_in_torchs_words() {
    let (leaf, x) = (Tree::Leaf, || vec![Tree::Leaf(0)]);
    let two = || vec![leaf(0), leaf(1)];
    let pair = || vec![leaf(0), Tree::Tuple(vec![leaf(1), leaf(2)])];
    let refused_rnn = |shapes: &[&[usize]], tree| refused(RNN::new(3, 4), shapes, tree);
    let refused_lstm = |shapes: &[&[usize]], tree| refused(LSTM::new(3, 4), shapes, tree);
    let refused_cell = |shapes: &[&[usize]], tree| refused(GRUCell::new(3, 4), shapes, tree);
    let packed = |lengths: &[usize]| vec![Tree::Packed(PackedSequence::new(0, lengths))];
    let cases = [
        (refused_rnn(&[&[3]], x()), "RNN: Expected input to be 2D or 3D, got 1D tensor instead"),
        (refused_lstm(&[&[3]], x()), "LSTM: Expected input to be 2D or 3D, got 1D instead"),
        (
            refused_rnn(&[&[5, 2, 5]], x()),
            "input.size(-1) must be equal to input_size. Expected 3, got 5",
        ),
        (
            refused_rnn(&[&[5, 3], &[1, 1, 4]], two()),
            "For unbatched 2-D input, hx should also be 2-D but got 3-D tensor",
        ),
        (
            refused_lstm(&[&[5, 2, 3], &[1, 2, 4], &[2, 4]], pair()),
            "For batched 3-D input, hx and cx should also be 3-D but got (3-D, 2-D) tensors",
        ),
        (refused_rnn(&[&[5, 3], &[1, 5]], two()), "Expected hidden size (1, 1, 4), got [1, 1, 5]"),
        (
            refused_lstm(&[&[5, 2, 3], &[1, 2, 4], &[1, 3, 4]], pair()),
            "Expected hidden[1] size (1, 2, 4), got [1, 3, 4]",
        ),
        (refused_rnn(&[&[0, 2, 3]], x()), "Expected sequence length to be larger than 0 in RNN"),
        (refused_rnn(&[&[5, 2, 1, 3]], packed(&[5, 3])), "input must have 2 dimensions, got 3"),
        (
            refused_rnn(&[&[5, 2, 3]], packed(&[5])),
            "Expected `len(lengths)` to be equal to batch_size, but got 1 (batch_size=2)",
        ),
        (refused_rnn(&[], vec![]), ".forward() missing 1 required positional argument: 'input'"),
        (
            refused_rnn(&[&[5, 3]], vec![leaf(0), Tree::None, Tree::None]),
            ".forward() takes from 2 to 3 positional arguments but 4 were given",
        ),
        (
            refused(LSTM { proj_size: 4, ..LSTM::new(3, 4) }, &[&[5, 3]], x()),
            "proj_size has to be smaller than hidden_size",
        ),
        (refused(RNN::new(0, 4), &[&[5, 3]], x()), "input_size must be greater than zero"),
        (
            refused_cell(&[&[1, 2, 3]], x()),
            "GRUCell: Expected input to be 1D or 2D, got 3D instead",
        ),
        (refused_cell(&[&[2, 5]], x()), "input has inconsistent input_size: got 5 expected 3"),
        (
            refused_cell(&[&[2, 3], &[3, 4]], two()),
            "Input batch size 2 doesn't match hidden0 batch size 3",
        ),
        (
            refused_cell(&[&[2, 3], &[2, 5]], two()),
            "hidden0 has inconsistent hidden_size: got 5, expected 4",
        ),
        (
            refused_cell(&[&[3], &[1, 4]], two()),
            "Expected 2D hidden0 (batch x hidden_size), but got 3D tensor",
        ),
        (
            refused(LSTMCell::new(3, 4), &[&[2, 3], &[2, 4], &[1, 2, 4]], pair()),
            "LSTMCell: Expected hx[1] to be 1D or 2D, got 3D instead",
        ),
    ];
    for (given, expected) in cases {
        assert!(given.ends_with(expected), "{given}, not {expected}");
    }
}

#[test]
fn layers_are_printed_as_torch_does() {
    let relu = Nonlinearity::ReLU;
    let rnn = RNN { num_layers: 2, nonlinearity: relu, bias: false, ..RNN::new(3, 4) };
    let printed = [
        (
            repr(&RNN { batch_first: true, dropout: 0.5, bidirectional: true, ..rnn }),
            "RNN(3, 4, num_layers=2, bias=False, batch_first=True, dropout=0.5, bidirectional=True)",
        ),
        (repr(&LSTM { proj_size: 2, ..LSTM::new(3, 4) }), "LSTM(3, 4, proj_size=2)"),
        (
            repr(&RNNCell { nonlinearity: relu, bias: false, ..RNNCell::new(3, 4) }),
            "RNNCell(3, 4, bias=False, nonlinearity=relu)",
        ),
        (repr(&GRUCell::new(3, 4)), "GRUCell(3, 4)"),
    ];
    for (printed, expected) in printed {
        assert_eq!(printed, expected);
    }
}
