//! A `forward` that reads numbers of its values runs op by op, each model by itself, without being asked to.
//!
//! Its bits are those of a planned model that computes the same without looking.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3, ArrayD, array};
use neurarch::components::losses::LossCall;
use neurarch::hooks::At;
use neurarch::kernels::ir::dtype::Element;
use neurarch::prelude::*;

use crate::bits::bits;

const MODELS: usize = 6;

/// What a [`Gate`] does between its layers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Between {
    /// Looks at the sum of what the first layer gives: `tanh` where it is positive, else `relu` twice.
    Asks,
    /// `tanh`, without looking.
    Tanh,
    /// `relu` twice, without looking.
    ReLU,
}

/// Two layers, and something between them.
#[derive(Component, Clone, Debug, PartialEq)]
struct Gate(Between);

impl Module for Gate {
    fn declare(&self, declare: &mut Declare) {
        declare.child("first", Linear::new(3, 4)).child("last", Linear::new(4, 2));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let x = call.child("first", &x);
        let is_tanh = match self.0 {
            Between::Asks => {
                let Some(sum) = call.trace.item(&x.sum(&[], false)) else {
                    return call.trace.poison();
                };
                sum > 0.0
            }
            between => between == Between::Tanh,
        };
        let x = if is_tanh { x.tanh() } else { x.relu() * 2.0 };
        call.child("last", &x)
    }
}

/// A deeper network with all that changes in a pass; if it looks, it does nothing with what it sees.
#[derive(Component, Clone, Debug, PartialEq)]
struct Deep {
    looks: bool,
}

impl Module for Deep {
    fn declare(&self, declare: &mut Declare) {
        let layers = Sequential::new().push(Linear::new(3, 6)).push(BatchNorm1d::new(6));
        let layers = layers.push(ReLU).push(Dropout { p: 0.3 });
        declare.child("layers", layers).child("last", Linear::new(6, 2));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let y = call.child("layers", &x);
        if self.looks && call.trace.item(&y.mean(&[], false)).is_none_or(f64::is_nan) {
            return call.trace.poison();
        }
        call.child("last", &y)
    }
}

fn numbers<T: Element>(shape: [usize; 3], of: impl Fn(f32) -> T) -> Array3<T> {
    Array3::from_shape_fn(shape, |(m, i, j)| of(((m * 7 + i * 3 + j * 5) % 11) as f32 / 11.0 - 0.4))
}

fn x() -> Array3<f32> {
    numbers([MODELS, 4, 3], |x| x)
}

fn y() -> Array3<f32> {
    numbers([MODELS, 4, 2], |x| 2.0 * x)
}

fn spawn(module: &impl Module, models: usize) -> (World, Entity) {
    let mut world = World::new();
    let population = world.spawn_population(module, models, Seed(4)).unwrap().id();
    world.population_mut(population).unwrap().insert(Adam { lr: 0.05, ..Adam::default() }).unwrap();
    (world, population)
}

/// The bits of all gradients of each model.
fn gradients(world: &mut World, population: Entity) -> Vec<Vec<ArrayD<f32>>> {
    let models = world.population(population).unwrap().models().to_vec();
    let of = |root| {
        let names = world.module_mut(root).unwrap().parameter_names().unwrap();
        names
            .iter()
            .map(|name| world.module_mut(root).unwrap().gradient::<f32>(name).unwrap().unwrap())
            .collect()
    };
    models.into_iter().map(of).collect()
}

/// Says for each model which way it goes.
fn ways(world: &mut World, gates: Entity, x: &Array3<f32>) -> Vec<bool> {
    let seen = Arc::<Mutex<Vec<f32>>>::default();
    let told = seen.clone();
    let sums = move |at: &At<'_>, _: &Arguments, y: Option<&Tree>| {
        let of = at.array::<f32>(y.unwrap().leaf().unwrap()).unwrap();
        told.lock().unwrap().extend(of.outer_iter().map(|y| y.sum()));
    };
    let handle =
        world.population_mut(gates).unwrap().at("first").register_forward_hook(sums).unwrap();
    world.no_grad(|world| world.population_mut(gates)?.forward(x)).unwrap();
    handle.remove();
    let sums = seen.lock().unwrap();
    sums.iter().map(|&sum| sum > 0.0).collect()
}

#[test]
fn each_model_goes_its_own_way_forward_and_back() {
    let (x, y) = (x(), y());
    let (mut world, gates) = spawn(&Gate(Between::Asks), MODELS);
    let planned = [Between::Tanh, Between::ReLU].map(|between| {
        let (mut world, gates) = spawn(&Gate(between), MODELS);
        let ways = ways(&mut world, gates, &x);
        let made = world.population_mut(gates).unwrap().forward(&x).unwrap();
        let losses =
            world.population_mut(gates).unwrap().loss::<f32, f32>(&y, &MSELoss::default()).unwrap();
        world.population_mut(gates).unwrap().backward().unwrap();
        let gradients = gradients(&mut world, gates);
        world.population_mut(gates).unwrap().step().unwrap();
        (ways, made, losses, gradients, bits(&mut world, gates))
    });
    let way = planned[0].0.clone();
    assert!(way.contains(&true) && way.contains(&false), "{way:?}");
    let same = |i: usize| if way[i] { &planned[0] } else { &planned[1] };

    let silent = world.no_grad(|world| world.population_mut(gates)?.forward(&x)).unwrap();
    let made = world.population_mut(gates).unwrap().forward(&x).unwrap();
    assert_eq!(silent, made);
    let losses =
        world.population_mut(gates).unwrap().loss::<f32, f32>(&y, &MSELoss::default()).unwrap();
    world.population_mut(gates).unwrap().backward().unwrap();
    let of_all = gradients(&mut world, gates);
    world.population_mut(gates).unwrap().step().unwrap();
    let after = bits(&mut world, gates);
    for i in 0..MODELS {
        let (_, there, of_there, gradients, weights) = same(i);
        assert_eq!(made.index_axis(ndarray::Axis(0), i), there.index_axis(ndarray::Axis(0), i));
        assert_eq!(losses[[i]].to_bits(), of_there[[i]].to_bits());
        assert_eq!((&of_all[i], &after[i]), (&gradients[i], &weights[i]), "model {i}");
    }

    let (mut fused, gates) = spawn(&Gate(Between::Asks), MODELS);
    assert_eq!(
        fused
            .population_mut(gates)
            .unwrap()
            .train_step(&x, &y, &MSELoss::default())
            .unwrap()
            .into_dyn(),
        losses
    );
    assert_eq!(bits(&mut fused, gates), after);
}

#[test]
fn gradients_are_the_slope() {
    let mut world = World::new();
    let settings = PopulationSettings {
        models: MODELS,
        seed: 4,
        dtype: Dtype::F64,
        ..PopulationSettings::default()
    };
    let gates = world.spawn_population_with(&Gate(Between::Asks), settings).unwrap().id();
    let roots = world.population(gates).unwrap().models().to_vec();
    let (x, y) = (x().mapv(f64::from), y().mapv(f64::from));
    let loss = |world: &mut World| {
        world.population_mut(gates).unwrap().forward(&x).unwrap();
        world.population_mut(gates).unwrap().loss::<f64, f64>(&y, &MSELoss::default()).unwrap()
    };
    loss(&mut world);
    world.population_mut(gates).unwrap().backward().unwrap();
    for name in ["first.weight", "first.bias", "last.weight"] {
        let weights = roots
            .iter()
            .map(|&root| world.module_mut(root).unwrap().parameter::<f64>(name).unwrap());
        let weights: Vec<_> = weights.collect();
        for at in 0..weights[0].len() {
            let h = 1e-6;
            let at_distance = [h, -h].map(|h| {
                for (&root, weight) in roots.iter().zip(&weights) {
                    let mut moved = weight.clone();
                    *moved.iter_mut().nth(at).unwrap() += h;
                    world.module_mut(root).unwrap().set_parameter(name, moved.view()).unwrap();
                }
                loss(&mut world)
            });
            for (i, &root) in roots.iter().enumerate() {
                let gradient =
                    world.module_mut(root).unwrap().gradient::<f64>(name).unwrap().unwrap();
                let given = *gradient.iter().nth(at).unwrap();
                let slope = (at_distance[0][[i]] - at_distance[1][[i]]) / (2.0 * h);
                assert!((slope - given).abs() < 1e-7, "{name} of {i}: {given} against {slope}");
                world.module_mut(root).unwrap().set_parameter(name, weights[i].view()).unwrap();
            }
        }
    }
}

/// What a network is after some steps of each kind: parameters, statistics, what it gives while it draws, losses.
fn lived(looks: bool, edit: fn(&mut World, Entity)) -> impl PartialEq + std::fmt::Debug {
    let (mut world, nets) = spawn(&Deep { looks }, MODELS);
    edit(&mut world, nets);
    let loss = MSELoss::default();
    let mut losses = Vec::new();
    let step = |world: &mut World, losses: &mut Vec<u32>| {
        let count = world.population(nets).unwrap().models().len();
        let cut = |all: Array3<f32>| all.slice(ndarray::s![..count, .., ..]).to_owned();
        let (x, y) = (cut(x()), cut(y()));
        losses.extend(
            world
                .population_mut(nets)
                .unwrap()
                .train_step(&x, &y, &loss)
                .unwrap()
                .map(|l| l.to_bits()),
        );
        world.population_mut(nets).unwrap().forward(&x).unwrap();
        losses.extend(
            world
                .population_mut(nets)
                .unwrap()
                .loss::<f32, f32>(&y, &loss)
                .unwrap()
                .map(|l| l.to_bits()),
        );
        world.population_mut(nets).unwrap().backward().unwrap();
        world.population_mut(nets).unwrap().step().unwrap();
        world.population_mut(nets).unwrap().zero_grad().unwrap();
    };
    step(&mut world, &mut losses);
    step(&mut world, &mut losses);
    let gone = world.population(nets).unwrap().models()[1];
    world.despawn(gone);
    step(&mut world, &mut losses);
    let born = world.population_mut(nets).unwrap().spawn_models(1).unwrap()[0];
    world.entity_mut(born).insert(Adam { lr: 0.05, ..Adam::default() });
    step(&mut world, &mut losses);
    let data = numbers([1, 10, 3], |x| x).remove_axis(ndarray::Axis(0));
    let targets = numbers([1, 10, 2], |x| x).remove_axis(ndarray::Axis(0));
    let data = DataSet::shared(data.view(), targets.view()).batch(4);
    losses.extend(
        world.population_mut(nets).unwrap().train_steps(data, &loss).unwrap().map(|l| l.to_bits()),
    );
    let drawn = world.population_mut(nets).unwrap().forward(&x()).unwrap();
    world.population_mut(nets).unwrap().eval().unwrap();
    let settled = world.population_mut(nets).unwrap().forward(&x()).unwrap();
    let roots = world.population(nets).unwrap().models().to_vec();
    let statistics = roots.into_iter().map(|root| {
        let state = world.module_mut(root).unwrap().state_dict().unwrap();
        state.iter().map(|tensor| format!("{tensor:?}")).collect::<Vec<_>>()
    });
    let statistics: Vec<_> = statistics.collect();
    (bits(&mut world, nets), statistics, drawn, settled, losses)
}

#[test]
fn looking_changes_no_bit() {
    assert_eq!(lived(true, |_, _| {}), lived(false, |_, _| {}));
}

#[test]
fn looking_changes_no_bit_beside_hooks() {
    let hook_of_one: fn(&mut World, Entity) = |world, nets| {
        let root = world.population(nets).unwrap().models()[2];
        world
            .module_mut(root)
            .unwrap()
            .register_forward_hook(|_: &At<'_>, _: &Arguments, _: Option<&Tree>| {})
            .unwrap();
    };
    let hook_of_all: fn(&mut World, Entity) = |world, nets| {
        let look = |_: &At<'_>, _: &Arguments, _: Option<&Tree>| {};
        world.population_mut(nets).unwrap().at("layers").register_forward_hook(look).unwrap();
    };
    let changing: fn(&mut World, Entity) = |world, nets| {
        let double = |_: &At<'_>, _: &Arguments, y: Option<&Tree>| {
            Ok(y.map(|tree| tree.clone().map(&mut |y| y * 2.0)))
        };
        world.population_mut(nets).unwrap().at("layers").register_forward_hook(double).unwrap();
    };
    assert_eq!(lived(true, hook_of_one), lived(false, hook_of_one));
    assert_eq!(lived(true, hook_of_all), lived(false, hook_of_all));
    assert_eq!(lived(true, changing), lived(false, changing));
}

#[test]
fn looking_changes_no_bit_of_what_is_shared() {
    let share: fn(&mut World, Entity) = |world, nets| {
        world.population_mut(nets).unwrap().share_parameter("last.weight").unwrap();
        world.population_mut(nets).unwrap().eval().unwrap();
    };
    assert_eq!(lived(true, share), lived(false, share));
}

#[test]
fn inputs_have_the_same_gradients() {
    let of = |looks| {
        let (mut world, nets) = spawn(&Deep { looks }, MODELS);
        world.population_mut(nets).unwrap().forward(Input::from(&x()).requires_grad()).unwrap();
        world.population_mut(nets).unwrap().backward_from(&y()).unwrap();
        (
            world.population(nets).unwrap().input_gradient::<f32>().unwrap().unwrap(),
            gradients(&mut world, nets),
        )
    };
    assert_eq!(of(true), of(false));
}

/// How often [`Counted`] was recorded without numbers.
static RECORDED: AtomicUsize = AtomicUsize::new(0);

/// Looks, and counts how often it is recorded.
#[derive(Component, Clone, Debug, PartialEq)]
struct Counted;

impl Module for Counted {
    fn declare(&self, declare: &mut Declare) {
        declare.child("fc", Linear::new(3, 2));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        if call.trace.values().is_none() {
            RECORDED.fetch_add(1, Ordering::Relaxed);
        }
        // In evaluation mode nobody looks.
        let y = call.child("fc", &x);
        if call.training() && call.trace.item(&y.sum(&[], false)).is_none() {
            return call.trace.poison();
        }
        y
    }
}

#[test]
fn what_reads_is_found_out_once() {
    let (mut world, nets) = spawn(&Counted, MODELS);
    let loss = MSELoss::default();
    let recorded = || RECORDED.swap(0, Ordering::Relaxed);
    world.population_mut(nets).unwrap().train_step(&x(), &y(), &loss).unwrap();
    assert!(recorded() > 0);
    for _ in 0..3 {
        world.population_mut(nets).unwrap().train_step(&x(), &y(), &loss).unwrap();
    }
    let more = world.spawn_population(&Counted, 2, Seed(1)).unwrap().id();
    world.population_mut(more).unwrap().insert(Adam::default()).unwrap();
    let (two_x, two_y) = (numbers([2, 4, 3], |x| x), numbers([2, 4, 2], |x| x));
    world.population_mut(more).unwrap().train_step(&two_x, &two_y, &loss).unwrap();
    assert_eq!(recorded(), 0, "later steps, and populations of the same structure, know it");
    world.population_mut(nets).unwrap().eval().unwrap();
    world.population_mut(nets).unwrap().train_step(&x(), &y(), &loss).unwrap();
    assert!(recorded() > 0, "in another mode it may be another program");
    world.population_mut(nets).unwrap().train_step(&x(), &y(), &loss).unwrap();
    assert_eq!(recorded(), 0);
}

/// Reads as a number what is none.
#[derive(Component, Clone, Debug, PartialEq)]
struct Wrong;

impl Module for Wrong {
    fn declare(&self, declare: &mut Declare) {
        declare.child("fc", Linear::new(3, 2));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let y = call.child("fc", &x);
        match call.trace.item(&y) {
            Some(number) => y * number,
            None => call.trace.poison(),
        }
    }
}

#[test]
fn what_is_no_number_is_an_error_in_the_words_of_torch() {
    let (mut world, nets) = spawn(&Sequential::new().push(Wrong), MODELS);
    let before = bits(&mut world, nets);
    let expected = "0 (Wrong): a Tensor with 8 elements cannot be converted to Scalar";
    assert_eq!(
        world.population_mut(nets).unwrap().forward(&x()).unwrap_err().to_string(),
        expected
    );
    let error = world
        .population_mut(nets)
        .unwrap()
        .train_step(&x(), &y(), &MSELoss::default())
        .unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert_eq!(bits(&mut world, nets), before);
    // One number it is for an input of one row and a layer of one feature.
    let (mut world, nets) = spawn(&Linear::new(3, 2), 1);
    let item = |at: &At<'_>, _: &Arguments, y: Option<&Tree>| {
        let sum = y.and_then(Tree::leaf).map(|y| y.sum(&[], false));
        assert!(sum.and_then(|sum| at.trace.item(&sum)).is_some());
    };
    let root = world.population(nets).unwrap().models()[0];
    world.module_mut(root).unwrap().register_forward_hook(item).unwrap();
    world.population_mut(nets).unwrap().forward(&array![[[1.0_f32, 2.0, 3.0]]]).unwrap();
}

#[test]
fn a_hook_of_several_models_reads_arrays() {
    let (mut world, nets) = spawn(&Linear::new(3, 2), MODELS);
    let before = bits(&mut world, nets);
    let item = |at: &At<'_>, _: &Arguments, y: Option<&Tree>| {
        let sum = y.and_then(Tree::leaf).map(|y| y.sum(&[], false));
        Ok(sum.filter(|sum| at.trace.item(sum).is_none()).map(Tree::Leaf))
    };
    world.population_mut(nets).unwrap().register_forward_hook(item).unwrap();
    let expected = "expected to read the numbers of one model, found those of 6 in one recording";
    for input in [Input::from(&x()), Input::from(&x()).requires_grad()] {
        let error = world.population_mut(nets).unwrap().forward(input).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
    let error = world
        .population_mut(nets)
        .unwrap()
        .train_step(&x(), &y(), &MSELoss::default())
        .unwrap_err()
        .to_string();
    assert!(error.ends_with(expected), "{error}");
    assert_eq!(bits(&mut world, nets), before);
}

/// A loss that looks at what it is given: that of half a target where the mean square is large.
#[derive(Clone, Debug, PartialEq)]
struct Curious;

impl Loss for Curious {
    fn forward_with(&self, call: &LossCall<'_>, result: Tree, target: &Var) -> Var {
        let [y] = result.leaves()[..] else { return call.trace.fail("expected one value") };
        let mean = (y - target).square().mean(&[], false);
        match call.trace.item(&mean) {
            Some(large) if large > 0.3 => (y - target * 0.5).square().mean(&[], false),
            _ => mean,
        }
    }
}

#[test]
fn a_loss_may_read_too() {
    let net = Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 2));
    let (mut fused, a) = spawn(&net, MODELS);
    let (mut parted, b) = spawn(&net, MODELS);
    for _ in 0..3 {
        let losses = fused.population_mut(a).unwrap().train_step(&x(), &y(), &Curious).unwrap();
        parted.population_mut(b).unwrap().forward(&x()).unwrap();
        let same = parted.population_mut(b).unwrap().loss::<f32, f32>(&y(), &Curious).unwrap();
        parted.population_mut(b).unwrap().zero_grad().unwrap();
        parted.population_mut(b).unwrap().backward().unwrap();
        parted.population_mut(b).unwrap().step().unwrap();
        assert_eq!(losses.into_dyn(), same);
        assert_eq!(bits(&mut fused, a), bits(&mut parted, b));
    }
}

/// Reads rows of numbers: as many steps as the first row says.
#[derive(Component, Clone, Debug, PartialEq)]
struct Ponders;

impl Module for Ponders {
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([mut x, steps]) = call.values(arguments) else {
            return call.trace.poison().into();
        };
        let Some(steps) = call.trace.tolist::<i64>(&steps) else {
            return call.trace.poison().into();
        };
        for _ in 0..steps.iter().sum() {
            x = x * 2.0;
        }
        x.into()
    }
}

#[test]
fn whole_numbers_decide_how_often() {
    let (mut world, nets) = spawn(&Ponders, 2);
    let (x, steps) = (Array2::<f32>::ones((2, 1)), array![[0_i64, 1], [2, 3]]);
    let arguments = Arguments::each([AnyInput::from(&x), AnyInput::from(&steps)]);
    let y = world.population_mut(nets).unwrap().forward_with::<f32>(arguments).unwrap();
    assert_eq!(y.leaf().unwrap(), &array![[2.0], [32.0]].into_dyn());
}

#[test]
fn looking_changes_no_bit_under_autocast() {
    let of = |looks| {
        let (mut world, nets) = spawn(&Deep { looks }, MODELS);
        let step = |world: &mut World| {
            world.population_mut(nets)?.train_step(&x(), &y(), &MSELoss::default())
        };
        let losses = [(); 2].map(|()| world.autocast(Dtype::BF16, step).unwrap());
        (losses, bits(&mut world, nets))
    };
    assert_eq!(of(true), of(false));
}

/// A layer that is lazy at first, before or behind a number that is read.
#[derive(Component, Clone, Debug, PartialEq)]
struct Late {
    is_behind: bool,
}

impl Module for Late {
    fn declare(&self, declare: &mut Declare) {
        declare.child("fc", LazyLinear::new(2));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let x = if self.is_behind { x } else { call.child("fc", &x) };
        if call.trace.item(&x.sum(&[], false)).is_none() {
            return call.trace.poison();
        }
        if self.is_behind { call.child("fc", &x) } else { x }
    }
}

#[test]
fn a_lazy_module_becomes_what_it_is_before_a_number_is_read() {
    let (mut world, nets) = spawn(&Late { is_behind: false }, MODELS);
    assert_eq!(world.population_mut(nets).unwrap().forward(&x()).unwrap().shape(), [MODELS, 4, 2]);
    let (mut world, nets) = spawn(&Late { is_behind: true }, MODELS);
    let error = world.population_mut(nets).unwrap().forward(&x()).unwrap_err().to_string();
    assert!(error.contains("uninitialized parameter"), "{error}");
}
