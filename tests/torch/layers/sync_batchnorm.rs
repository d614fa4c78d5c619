//! `SyncBatchNorm`: in one process a batch norm, and the rule that joins the statistics of shards, against torch.

use ndarray::{Array1, Array3, ArrayD, Axis};
use neurarch::prelude::*;
use neurarch::systems::edit::fuse::fuse_linear_bn_eval;
use neurarch::systems::edit::sync_batchnorm::convert_sync_batchnorm;

use crate::golden;

/// Written by `tests/golden/optim.py`.
const GOLDEN: &str = include_str!("../../golden/optim.txt");

fn batch() -> Array3<f32> {
    Array3::from_shape_fn((2, 5, 3), |(m, i, j)| ((m * 7 + i * 5 + j * 3) % 11) as f32 / 5.0)
}

fn net() -> Sequential {
    let norm = BatchNorm1d { momentum: None, bias: false, ..BatchNorm1d::new(4) };
    Sequential::new().push(Linear::new(3, 4)).push(norm).push(Linear::new(4, 2))
}

fn trained(convert: bool, steps: [usize; 2]) -> (World, Entity) {
    let mut world = World::new();
    let population = world.spawn_population(&net(), 2, Seed(3)).unwrap().id();
    world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
    let targets = ndarray::Array2::<i64>::ones((2, 5));
    for (part, steps) in steps.into_iter().enumerate() {
        for _ in 0..steps {
            let loss = CrossEntropyLoss::default();
            world
                .population_mut(population)
                .unwrap()
                .train_step(&batch(), &targets, &loss)
                .unwrap();
        }
        if convert && part == 0 {
            convert_sync_batchnorm(&mut world, population).unwrap();
        }
    }
    (world, population)
}

#[test]
fn a_converted_model_goes_on_as_it_would_have() {
    let (mut world, a) = trained(false, [2, 3]);
    let (mut other, b) = trained(true, [2, 3]);
    let state = world.population_mut(a).unwrap().stacked_state_dict().unwrap();
    let converted = other.population_mut(b).unwrap().stacked_state_dict().unwrap();
    assert_eq!(state.iter().collect::<Vec<_>>(), converted.iter().collect::<Vec<_>>());
    let root = other.population(b).unwrap().models()[0];
    let printed = other.module_mut(root).unwrap().repr().unwrap();
    let line = "(1): SyncBatchNorm(4, eps=1e-05, momentum=None, affine=True, bias=False, track_running_stats=True)";
    assert!(printed.contains(line), "{printed}");
    // It can be fused as other batch norms.
    other.population_mut(b).unwrap().eval().unwrap();
    let before = other.population_mut(b).unwrap().forward(&batch()).unwrap();
    fuse_linear_bn_eval(&mut other, b, "0", "1").unwrap();
    let after = other.population_mut(b).unwrap().forward(&batch()).unwrap();
    assert!((&after - &before).iter().all(|x: &f32| x.abs() < 1e-5));
}

#[test]
fn one_model_is_converted_alone() {
    let mut world = World::new();
    let population = world.spawn_population(&net(), 2, Seed(3)).unwrap().id();
    let [first, second] = [
        world.population(population).unwrap().models()[0],
        world.population(population).unwrap().models()[1],
    ];
    convert_sync_batchnorm(&mut world, first).unwrap();
    let class = |world: &mut World, root| {
        let norm = world.module_mut(root).unwrap().at("1").unwrap().id();
        world.module_mut(norm).unwrap().class_name().unwrap()
    };
    assert_eq!(class(&mut world, first), "SyncBatchNorm");
    assert_eq!(class(&mut world, second), "BatchNorm1d");
    assert_eq!(
        world.population_mut(population).unwrap().forward(&batch()).unwrap().shape(),
        [2, 5, 2]
    );
}

#[test]
fn wrong_inputs_are_refused_in_torchs_words() {
    let mut world = World::new();
    let population = world.spawn_population(&SyncBatchNorm::new(3), 1, Seed(0)).unwrap().id();
    let x = ndarray::Array2::<f32>::zeros((1, 3));
    let error = world.population_mut(population).unwrap().forward(&x).unwrap_err().to_string();
    assert_eq!(error, "SyncBatchNorm: expected at least 2D input (got 1D input)");
    let x = Array3::<f32>::zeros((1, 2, 0));
    let error = world.population_mut(population).unwrap().forward(&x).unwrap_err().to_string();
    assert_eq!(error, "SyncBatchNorm: SyncBatchNorm number of input channels should be non-zero");
}

/// Joins the statistics of three shards of its input, and of an empty one.
#[derive(Component, Clone, Copy, Debug, PartialEq)]
#[component(immutable)]
struct Shards;

impl Module for Shards {
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let Some([x, counts]) = call.values(arguments) else { return call.trace.poison().into() };
        let eps = call.trace.constant(1e-3, Dtype::F64, []);
        let stats = [0..4, 4..6, 6..9].map(|rows| {
            let of = x.slice(0, rows).normalize(&[0], &eps);
            (of.mean, (of.var + &eps).sqrt().reciprocal())
        });
        let nothing = call.trace.constant(f64::NAN, Dtype::F64, [2]);
        let join = |of: [&Var; 4]| Var::cat(&of, 0).reshape([4, 2]);
        let [a, b, c] = &stats;
        let means = join([&a.0, &b.0, &nothing, &c.0]);
        let invstds = join([&a.1, &b.1, &nothing, &c.1]);
        let all = means.batch_norm_gather_stats_with_counts(&invstds, &counts, &eps);
        (Var::cat(&[&all.mean, &all.invstd], 0), all.unbiased_var).into()
    }
}

#[test]
fn joined_statistics_are_those_of_the_batch_as_torch_has_them() {
    let mut world = World::new();
    let settings =
        PopulationSettings { models: 2, dtype: Dtype::F64, ..PopulationSettings::default() };
    let population = world.spawn_population_with(&Shards, settings).unwrap().id();
    let x = ArrayD::from_shape_fn(vec![9, 2], |i| {
        let place = (i[0] * 2 + i[1]) as f64;
        (0.7 * place).sin() + place / 5.0
    });
    let counts = Array1::from(vec![4.0, 2.0, 0.0, 3.0]);
    let inputs = [Input::shared(x.view()).requires_grad(), Input::shared(counts.view())];
    let found = world
        .population_mut(population)
        .unwrap()
        .forward_with::<f64>(Arguments::each(inputs.map(AnyInput::from)))
        .unwrap();
    let second = |x: &ArrayD<f64>| x.index_axis(Axis(0), 1).iter().copied().collect::<Vec<_>>();
    let joined = second(found.leaves()[0]);
    golden::compare(GOLDEN, "gathered mean", joined[..2].to_vec(), (1e-12, 1e-12));
    golden::compare(GOLDEN, "gathered invstd", joined[2..].to_vec(), (1e-12, 1e-12));
    golden::compare(GOLDEN, "gathered unbiased_var", second(found.leaves()[1]), (1e-12, 1e-12));
    let dy = Array1::from_shape_fn(4, |i| (1.3 * i as f64).cos());
    let gradients = [Some(AnyInput::from(Input::shared(dy.view()))), None];
    world.population_mut(population).unwrap().backward_with(&gradients).unwrap();
    let dx = neurarch::systems::execute::step::input_gradients::<f64>(&world, population).unwrap();
    let dx = second(dx[0].as_ref().unwrap());
    golden::compare(GOLDEN, "gathered gradient", dx, (1e-12, 1e-10));
}
