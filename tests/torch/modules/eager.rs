//! Eager against planned: the same bits, whatever the modules, in f32 and f64.
//!
//! A model that is watched runs eagerly where gradients are kept, or a hook changes what it sees; else it is observed.
//! Hooks that only look are registered on every module of every model, on the whole population, and not at all but
//! that inputs ask for their gradients; all must agree to the last bit, and hooks must see the same.

use std::sync::{Arc, Mutex};

use ndarray::{ArrayD, IxDyn};
use neurarch::bevy_ecs::prelude::*;
use neurarch::components::losses::LossCall;
use neurarch::components::module::DynModule;
use neurarch::hooks::{At, Target};
use neurarch::kernels::ir::dtype::Element;
use neurarch::prelude::*;
use neurarch::systems::execute::step::input_gradients;

use crate::known::Known;

const MODELS: usize = 3;

/// A floating element type.
trait Real: Element {
    fn of(number: f64) -> Self;

    fn bits(self) -> u64;
}

impl Real for f32 {
    fn of(number: f64) -> Self {
        number as f32
    }

    fn bits(self) -> u64 {
        self.to_bits().into()
    }
}

impl Real for f64 {
    fn of(number: f64) -> Self {
        number
    }

    fn bits(self) -> u64 {
        self.to_bits()
    }
}

/// What a module is called with, for one model.
#[derive(Clone, Copy)]
enum Given {
    /// Numbers of that shape.
    Floats(&'static [usize]),
    /// Numbers of rows, below the last.
    Indices(&'static [usize], i64),
}

use Given::{Floats, Indices};

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Watch {
    Nobody,
    EachModel,
    /// As [`Watch::EachModel`], and each result is exchanged for another of the same bits.
    Exchanged,
    /// As [`Watch::EachModel`], and the gradients of each result are exchanged likewise.
    GradientsExchanged,
    Population,
    /// Nobody, but the inputs' gradients are asked for.
    Inputs,
    /// As both.
    InputsOfEachModel,
}

impl Watch {
    fn asks_for_inputs(self) -> bool {
        matches!(self, Watch::Inputs | Watch::InputsOfEachModel)
    }
}

/// The mean square of everything that a model gives.
#[derive(Clone, Debug, PartialEq)]
struct Energy;

impl Loss for Energy {
    fn forward_with(&self, call: &LossCall<'_>, result: Tree, target: &Var) -> Var {
        let energies = result.leaves().into_iter().map(|y| y.square().mean(&[], false));
        let sum = energies.reduce(|sum, energy| sum + energy);
        sum.map_or_else(|| call.trace.poison(), |sum| sum * target.mean(&[], false))
    }
}

fn numbers<T: Real>(shape: &[usize], f: impl Fn(f64) -> f64) -> ArrayD<T> {
    let shape: Vec<_> = [MODELS].iter().chain(shape).copied().collect();
    let count = shape.iter().product::<usize>();
    ArrayD::from_shape_vec(IxDyn(&shape), (0..count).map(|i| T::of(f(i as f64))).collect()).unwrap()
}

/// What hooks saw: which, where, and the bytes of the values.
type Seen = Arc<Mutex<Vec<(&'static str, String, Vec<Vec<u8>>)>>>;

/// Registers hooks; gives what they will see.
fn watch(world: &mut World, population: Entity, by: Watch) -> Seen {
    let seen = Seen::default();
    match by {
        Watch::Nobody | Watch::Inputs => {}
        Watch::Population => look(world, Target::from((population, "")), &seen),
        Watch::EachModel
        | Watch::Exchanged
        | Watch::GradientsExchanged
        | Watch::InputsOfEachModel => {
            for root in world.population(population).unwrap().models().to_vec() {
                for module in world.part(root).modules().unwrap() {
                    look(world, Target::from(module), &seen);
                }
                for name in world.part(root).parameter_names().unwrap() {
                    let (path, own) = name.rsplit_once('.').unwrap_or(("", &name));
                    let module = world.part(root).at(path).unwrap().id();
                    let [of_gradient, of_sum] = [(); 2].map(|()| seen.clone());
                    let look = move |at: &At<'_>, _: &str, gradient: &Var| {
                        note(&of_gradient, "gradient", at, vec![gradient]);
                        Ok(None)
                    };
                    world.part(module).register_parameter_hook(own, look).unwrap();
                    let look = move |at: &At<'_>, _: &str, sum: &Var| {
                        note(&of_sum, "sum", at, vec![sum]);
                        Ok(())
                    };
                    world.part(module).register_post_accumulate_grad_hook(own, look).unwrap();
                }
                if by == Watch::Exchanged {
                    let exchange = |_: &At<'_>, _: &Arguments, result: Option<&Tree>| {
                        Ok(result.map(|tree| tree.clone().map(&mut |y| again(&y))))
                    };
                    world.part(root).register_forward_hook(exchange).unwrap();
                }
                if by == Watch::GradientsExchanged {
                    let exchange = |_: &At<'_>, gradients: &[Option<Var>]| {
                        Ok(Some(gradients.iter().map(|of| of.as_ref().map(again)).collect()))
                    };
                    world.part(root).register_full_backward_pre_hook(exchange).unwrap();
                }
            }
        }
    }
    seen
}

/// Makes another value of the same numbers.
fn again(y: &Var) -> Var {
    let more: Vec<_> = [1].iter().chain(y.shape().iter()).copied().collect();
    y.reshape(more).reshape(y.shape().clone())
}

/// Registers hooks that look, of each kind that modules have.
fn look(world: &mut World, target: Target, seen: &Seen) {
    let [before, after, leave, enter] = [(); 4].map(|()| seen.clone());
    world
        .target_mut(target.clone())
        .register_forward_pre_hook(move |at, arguments| {
            note(&before, "forward pre", at, arguments.leaves());
            Ok(None)
        })
        .unwrap();
    world
        .target_mut(target.clone())
        .register_forward_hook(move |at, arguments, result| {
            let of_result = result.into_iter().flat_map(Tree::leaves);
            note(&after, "forward", at, arguments.leaves().into_iter().chain(of_result).collect());
            Ok(None)
        })
        .unwrap();
    world
        .target_mut(target.clone())
        .register_full_backward_pre_hook(move |at, gradients| {
            note(&leave, "backward pre", at, gradients.iter().flatten().collect());
            Ok(None)
        })
        .unwrap();
    world
        .target_mut(target)
        .register_full_backward_hook(move |at, inputs, outputs| {
            note(&enter, "backward", at, inputs.iter().chain(outputs).flatten().collect());
            Ok(None)
        })
        .unwrap();
}

fn note(seen: &Seen, what: &'static str, at: &At<'_>, vars: Vec<&Var>) {
    let values = at.trace.values().unwrap();
    let bytes = vars.into_iter().map(|var| values.read_bytes(var.id().unwrap()).unwrap().1);
    seen.lock().unwrap().push((what, at.path.to_owned(), bytes.collect()));
}

fn bits<T: Real>(array: &ArrayD<T>) -> Vec<u64> {
    array.iter().map(|number| number.bits()).collect()
}

/// Lines of a name and numbers; `None` for a gradient that is not there.
type Log = Vec<(String, Option<Vec<u64>>)>;

/// Spawns a population of a module with numbers of that type.
type Spawn<'a> = &'a dyn Fn(&mut World, Dtype) -> Entity;

/// Runs a module forward, back and through training steps, in both modes; gives all that it made, the gradients of
/// its inputs, and what hooks saw.
fn run<T: Real>(spawn: Spawn<'_>, given: &[Given], by: Watch) -> (Log, Log, Seen) {
    let mut world = World::new();
    let population = spawn(&mut world, T::DTYPE);
    let seen = watch(&mut world, population, by);
    world.brains(population).insert(Adam { lr: 0.01, ..Adam::default() }).unwrap();
    let arrays = given.iter().map(|given| match *given {
        Floats(shape) => (numbers::<T>(shape, |i| (0.7 * i + 0.2).sin()), None),
        Indices(shape, end) => {
            let indices = numbers::<f64>(shape, |i| i).mapv(|i| i as i64 * 5 % end);
            (numbers::<T>(&[], |i| i), Some(indices))
        }
    });
    let arrays: Vec<_> = arrays.collect();
    let arguments = || {
        let inputs = arrays.iter().map(|(floats, indices)| match indices {
            Some(indices) => AnyInput::from(indices),
            None if by.asks_for_inputs() => AnyInput::from(Input::from(floats).requires_grad()),
            None => AnyInput::from(floats),
        });
        Arguments::each(inputs)
    };
    let (mut log, mut of_inputs) = (Log::new(), Log::new());
    for mode in ["training", "evaluation"] {
        match mode {
            "training" => world.brains(population).train().unwrap(),
            _ => world.brains(population).eval().unwrap(),
        };
        // From all results, then from each alone.
        for only in [None, Some(0), Some(1)] {
            let result = world.brains(population).forward_with::<T>(arguments()).unwrap();
            let results = result.leaves();
            let line = |(place, y): (usize, &&ArrayD<T>)| {
                (format!("{mode}: result {place}"), Some(bits(y)))
            };
            log.extend(results.iter().enumerate().map(line));
            let gradients =
                results.iter().map(|y| numbers::<T>(&y.shape()[1..], |i| (1.3 * i).cos()));
            let gradients: Vec<_> = gradients.collect();
            let chosen = gradients.iter().enumerate().map(|(place, gradient)| {
                only.is_none_or(|only| only == place).then(|| AnyInput::from(gradient))
            });
            world.brains(population).backward_with(&chosen.collect::<Vec<_>>()).unwrap();
            for root in world.population(population).unwrap().models().to_vec() {
                for name in world.part(root).parameter_names().unwrap() {
                    let gradient = world.part(root).gradient::<T>(&name).unwrap();
                    log.push((format!("{mode}: gradient of {name}"), gradient.map(|g| bits(&g))));
                }
            }
            for (place, dx) in input_gradients::<T>(&world, population).unwrap().iter().enumerate()
            {
                let dx = dx.as_ref().map(bits);
                of_inputs.push((format!("{mode}: gradient of input {place}"), dx));
            }
        }
        world.brains(population).step().unwrap();
        world.brains(population).zero_grad().unwrap();
        let target = numbers::<T>(&[1], |_| 0.5);
        for _ in 0..2 {
            let losses = world
                .brains(population)
                .train_step_with::<T, T>(arguments(), &target, &Energy)
                .unwrap();
            log.push((format!("{mode}: losses"), Some(bits(&losses.into_dyn()))));
        }
        world.set_grad_enabled(false);
        let result = world.brains(population).forward_with::<T>(arguments()).unwrap();
        log.extend(result.leaves().iter().map(|y| (format!("{mode}: without"), Some(bits(y)))));
        world.set_grad_enabled(true);
        for root in world.population(population).unwrap().models().to_vec() {
            for tensor in world.part(root).state_dict().unwrap() {
                let bytes = tensor.little_endian().iter().map(|&byte| byte.into());
                log.push((format!("{mode}: {}", tensor.name), Some(bytes.collect())));
            }
        }
    }
    (log, of_inputs, seen)
}

/// Compares what is planned with what runs eagerly.
fn compare_numbers<T: Real>(name: &str, spawn: Spawn<'_>, given: &[Given]) {
    let (planned, _, _) = run::<T>(spawn, given, Watch::Nobody);
    assert!(planned.len() > 4, "{name} was run");
    let ways = [Watch::EachModel, Watch::Exchanged, Watch::GradientsExchanged, Watch::Population];
    let [observed, exchanged, gradients_exchanged, _] = ways.map(|by| {
        let (watched, _, seen) = run::<T>(spawn, given, by);
        assert_eq!(watched.len(), planned.len(), "{name}, {by:?}");
        for (watched, planned) in watched.iter().zip(&planned) {
            assert_eq!(watched, planned, "{name} of {}, {by:?}", T::DTYPE);
        }
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        assert!(seen.len() > 4, "{name}, {by:?}: hooks were called");
        seen
    });
    for exchanged in [exchanged, gradients_exchanged] {
        assert_eq!(observed.len(), exchanged.len(), "{name}: hooks were called as often");
        for (observed, exchanged) in observed.iter().zip(&exchanged) {
            assert_eq!(observed, exchanged, "{name} of {}: hooks see the same", T::DTYPE);
        }
    }
    let [(_, together, _), (eager, alone, _)] =
        [Watch::Inputs, Watch::InputsOfEachModel].map(|by| run::<T>(spawn, given, by));
    assert_eq!(eager, planned, "{name} of {}", T::DTYPE);
    assert_eq!(together, alone, "{name} of {}", T::DTYPE);
    let is_float = given.iter().any(|given| matches!(given, Floats(_)));
    assert_eq!(together.iter().any(|(_, dx)| dx.is_some()), is_float, "{name}");
}

/// Compares in both element types; `edit` changes the population at first.
fn compare(module: &impl Module, given: &[Given], edit: impl Fn(&mut World, Entity)) {
    let spawn = |world: &mut World, dtype| {
        let settings =
            PopulationSettings { models: MODELS, dtype, ..PopulationSettings::default() };
        let population = world.spawn_population_with(module, settings).unwrap().id();
        edit(world, population);
        population
    };
    let name = repr(module);
    compare_numbers::<f32>(&name, &spawn, given);
    compare_numbers::<f64>(&name, &spawn, given);
}

fn same(module: &impl Module, given: &[Given]) {
    compare(module, given, |_, _| {});
}

/// A layer behind one that has parameters.
fn behind_linear(layer: impl Module) -> Sequential {
    Sequential::new().push(Linear::new(6, 6)).push(layer)
}

#[test]
fn layers_with_weights() {
    same(&Linear::new(5, 3), &[Floats(&[4, 5])]);
    same(&Linear::new(5, 3).without_bias(), &[Floats(&[2, 3, 5])]);
    same(&Embedding { padding_idx: Some(1), ..Embedding::new(7, 3) }, &[Indices(&[4, 2], 7)]);
    same(&PReLU { num_parameters: 2, init: 0.25 }, &[Floats(&[3, 2, 4])]);
    same(&LazyLinear::new(3), &[Floats(&[4, 5])]);
}

#[test]
fn convolutions() {
    let padded = Conv1d { padding: Padding::Same, ..Conv1d::new(2, 3, 3) };
    same(&padded, &[Floats(&[2, 2, 7])]);
    let grouped = Conv2d { groups: 2, ..Conv2d::new(4, 2, [2, 3]) };
    same(&grouped.with_stride(2).with_padding([1, 2]), &[Floats(&[2, 4, 5, 4])]);
    same(&Conv3d::new(1, 2, 2).without_bias(), &[Floats(&[1, 1, 3, 3, 2])]);
    same(&ConvTranspose1d::new(2, 3, 3), &[Floats(&[2, 2, 5])]);
    same(&ConvTranspose2d::new(2, 2, 2).with_stride(2), &[Floats(&[2, 2, 3, 3])]);
    same(&ConvTranspose3d::new(1, 2, 2), &[Floats(&[1, 1, 2, 3, 2])]);
    same(&LazyConv2d::new(2, 2), &[Floats(&[2, 3, 4, 4])]);
}

#[test]
fn norms() {
    same(&BatchNorm1d::new(3), &[Floats(&[5, 3])]);
    same(&BatchNorm2d { momentum: None, ..BatchNorm2d::new(2) }, &[Floats(&[3, 2, 2, 3])]);
    same(&BatchNorm3d::new(2), &[Floats(&[2, 2, 2, 1, 3])]);
    let tracking =
        InstanceNorm1d { affine: true, track_running_stats: true, ..InstanceNorm1d::new(2) };
    same(&tracking, &[Floats(&[3, 2, 5])]);
    same(&InstanceNorm2d { affine: true, ..InstanceNorm2d::new(2) }, &[Floats(&[2, 2, 3, 3])]);
    same(&LayerNorm::new([2, 3]), &[Floats(&[4, 2, 3])]);
    same(&GroupNorm::new(2, 4), &[Floats(&[2, 4, 3])]);
    same(&RMSNorm::new([5]), &[Floats(&[3, 5])]);
    same(&LazyBatchNorm1d::default(), &[Floats(&[5, 3])]);
}

#[test]
fn activations() {
    fn all(layer: impl Module) {
        same(&behind_linear(layer), &[Floats(&[4, 6])]);
    }
    all(ReLU);
    all(ReLU6);
    all(ELU::default());
    all(CELU::default());
    all(SELU);
    all(GELU::default());
    all(GELU { approximate: Approximate::Tanh });
    all(GLU::default());
    all(Hardshrink::default());
    all(Hardsigmoid);
    all(Hardswish);
    all(Hardtanh::default());
    all(LeakyReLU::default());
    all(LogSigmoid);
    all(Mish);
    all(Sigmoid);
    all(SiLU);
    all(Softplus::default());
    all(Softshrink::default());
    all(Softsign);
    all(Tanh);
    all(Tanhshrink);
    all(Threshold { threshold: 0.1, value: 2.0 });
    all(Softmax { dim: -1 });
    all(LogSoftmax { dim: -1 });
    all(Softmin { dim: -1 });
    all(Identity);
    all(Flatten::default());
    all(Unflatten::new(1, [2, 3]));
    all(Dropout { p: 0.4 });
    let images = Sequential::new().push(Linear::new(3, 3)).push(Softmax2d);
    same(&images, &[Floats(&[2, 4, 2, 3])]);
}

#[test]
fn containers_and_shared_modules() {
    let deep = Sequential::new().push(behind_linear(Tanh)).push(Dropout { p: 0.3 });
    same(&deep.push(BatchNorm1d::new(6)).push(Linear::new(6, 2)), &[Floats(&[4, 6])]);
    same(&Twice, &[Floats(&[4, 3])]);
    same(&Scaled, &[Floats(&[4, 3])]);
    same(&Named, &[Floats(&[4, 3])]);
    same(&LinearCrossEntropyLoss::new(3, 5), &[Floats(&[4, 3]), Indices(&[4], 5)]);
}

#[test]
fn lazy_modules() {
    fn line(layer: impl Module) {
        same(&Sequential::new().push(layer), &[Floats(&[2, 3, 5])]);
    }
    fn square(layer: impl Module) {
        same(&Sequential::new().push(layer), &[Floats(&[2, 3, 4, 4])]);
    }
    fn cube(layer: impl Module) {
        same(&Sequential::new().push(layer), &[Floats(&[2, 2, 2, 3, 3])]);
    }
    line(LazyConv1d::new(2, 2));
    cube(LazyConv3d::new(2, 2));
    line(LazyConvTranspose1d::new(2, 2));
    square(LazyConvTranspose2d::new(2, 2));
    cube(LazyConvTranspose3d::new(2, 2));
    square(LazyBatchNorm2d::default());
    cube(LazyBatchNorm3d::default());
    line(LazyInstanceNorm1d { becomes: tracking() });
    square(LazyInstanceNorm2d::default());
    cube(LazyInstanceNorm3d::default());
}

/// An instance norm that has something to keep.
fn tracking() -> InstanceNorm1d {
    InstanceNorm1d { affine: true, track_running_stats: true, ..InstanceNorm1d::new(0) }
}

/// Modules and parameters by name, and of a module that has no forward of its own.
#[derive(Component, Clone, Debug, PartialEq)]
struct Named;

impl Module for Named {
    fn declare(&self, declare: &mut Declare) {
        let choices: [(&str, Box<dyn DynModule>); 2] =
            [("fc", Box::new(Linear::new(3, 3))), ("norm", Box::new(BatchNorm1d::new(3)))];
        declare.child("choices", ModuleDict::from_named(choices).unwrap());
        let scales = [("left", Parameter::ones([3])), ("right", Parameter::ones([3]))];
        declare.child("scales", ParameterDict::from_named(scales).unwrap());
        let bare = BareModule::new().parameter("shift", [3], Init::Ones);
        declare.child("bare", bare.child("fc", Linear::new(3, 2)));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let x = call.child("choices.norm", &call.child("choices.fc", &x));
        let x = x * call.parameter("scales.left") - call.parameter("scales.right");
        call.child("bare.fc", &(x + call.parameter("bare.shift")).tanh())
    }
}

/// Calls a child twice, and another whose weight is tied to it.
#[derive(Component, Clone, Debug, PartialEq)]
struct Twice;

impl Module for Twice {
    fn declare(&self, declare: &mut Declare) {
        declare.child("fc", Linear::new(3, 3)).child("norm", BatchNorm1d::new(3));
        declare.child("tied", Linear::new(3, 3)).tie("tied.weight", "fc.weight");
        declare.share("again", "norm");
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        ["fc", "norm", "fc", "again", "tied"].iter().fold(x, |x, name| call.child(name, &x))
    }
}

/// Parameters and a buffer of its own, in lists.
#[derive(Component, Clone, Debug, PartialEq)]
struct Scaled;

impl Module for Scaled {
    fn declare(&self, declare: &mut Declare) {
        declare.parameter("scale", [3]);
        let layers = [Linear::new(3, 3), Linear::new(3, 3)];
        declare.child("layers", ModuleList::from_iter(layers));
        declare.child("scales", ParameterList::from([Parameter::ones([3])]));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let x = call.children_of("layers").into_iter().fold(x, |x, layer| call.child(&layer, &x));
        x * call.parameter("scale") + call.parameter("scales.0")
    }
}

/// Two inputs, two results, each of which one parameter alone leads to.
#[derive(Component, Clone, Debug, PartialEq)]
struct Heads;

impl Module for Heads {
    fn declare(&self, declare: &mut Declare) {
        declare.child("left", Linear::new(3, 4)).child("right", Linear::new(2, 4));
        declare.child("first", Linear::new(4, 2)).child("second", Linear::new(4, 3));
        declare.child("drop", Dropout { p: 0.5 });
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([left, right]) = call.values(arguments) else {
            return call.trace.poison().into();
        };
        let both = (call.child("left", &left) + call.child("right", &right)).tanh();
        let both = call.child("drop", &both);
        (call.child("first", &both), call.child("second", &both).sigmoid()).into()
    }
}

#[test]
fn several_inputs_and_results() {
    same(&Heads, &[Floats(&[5, 3]), Floats(&[5, 2])]);
}

#[test]
fn parametrizations() {
    let module = behind_linear(Tanh);
    let given = [Floats(&[4, 6])];
    compare(&module, &given, |world, population| {
        world.brains(population).at("0").weight_norm("weight", Some(0)).unwrap();
    });
    compare(&module, &given, |world, population| {
        world.brains(population).at("0").spectral_norm("weight").unwrap();
    });
    for map in [OrthogonalMap::Cayley, OrthogonalMap::MatrixExp, OrthogonalMap::Householder] {
        compare(&module, &given, |world, population| {
            world.brains(population).at("0").orthogonal("weight", Some(map)).unwrap();
        });
    }
}

#[test]
fn frozen_parameters() {
    compare(&behind_linear(Linear::new(6, 2)), &[Floats(&[4, 6])], |world, population| {
        for root in world.population(population).unwrap().models().to_vec() {
            world.part(root).set_requires_grad("0.weight", false).unwrap();
        }
    });
}
