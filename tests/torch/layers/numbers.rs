//! Layers against numbers that torch gave, in populations, and lazily.

use ndarray::{Array3, ArrayD, Axis, IxDyn};
use neurarch::components::layers::{Padding, PaddingMode};
use neurarch::kernels::ops::spatial::pad::PadMode;
use neurarch::prelude::*;
use neurarch::systems::execute::step::input_gradients;

/// Lines of a layer, a kind of number and the numbers.
const GOLDEN: &str = include_str!("../../golden/layers.txt");

fn numbers(shape: &[usize], f: impl Fn(f64) -> f64) -> ArrayD<f64> {
    let count = shape.iter().product::<usize>();
    ArrayD::from_shape_vec(IxDyn(shape), (0..count).map(|i| f(i as f64)).collect()).unwrap()
}

/// Compares with the line of `name` that begins with `what`.
fn compare(name: &str, what: &str, got: &[f64]) {
    let start = format!("{name} {what} ");
    let line = GOLDEN.lines().find_map(|line| line.strip_prefix(&start)).unwrap();
    let expected: Vec<f64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
    assert_eq!(got.len(), expected.len(), "{start}");
    for (got, expected) in got.iter().zip(&expected) {
        // Sums run in another order.
        let close = (got - expected).abs() <= 1e-10 + 1e-9 * expected.abs();
        assert!(close, "{start}: {got}, not {expected}");
    }
}

fn flat(array: &ArrayD<f64>) -> Vec<f64> {
    array.iter().copied().collect()
}

/// Checks a layer in a population of two, of which the second is compared.
fn check(name: &str, layer: &impl Module, shape: &[usize], is_eval: bool) {
    let mut world = World::new();
    let settings =
        PopulationSettings { models: 2, dtype: Dtype::F64, ..PopulationSettings::default() };
    let population = world.spawn_population_with(layer, settings).unwrap().id();
    let root = world.population(population).unwrap().models()[1];
    let parameters = world.module_mut(root).unwrap().parameter_names().unwrap();
    for (k, parameter) in parameters.iter().enumerate() {
        let shape =
            world.module_mut(root).unwrap().parameter::<f64>(parameter).unwrap().shape().to_vec();
        let value = numbers(&shape, |i| (0.9 * i + k as f64 + 1.0).sin() / 2.0);
        world.module_mut(root).unwrap().set_parameter(parameter, value.view()).unwrap();
    }
    if is_eval {
        world.population_mut(population).unwrap().eval().unwrap();
    }
    let x = numbers(shape, |i| (0.7 * i).sin());
    let y = world
        .population_mut(population)
        .unwrap()
        .forward(Input::shared(x.view()).requires_grad())
        .unwrap();
    let y = y.index_axis(Axis(0), 1).to_owned();
    compare(name, "output", &flat(&y));
    let dy = numbers(y.shape(), |i| (1.3 * i).cos());
    world.population_mut(population).unwrap().backward_from(Input::shared(dy.view())).unwrap();
    let dx = input_gradients::<f64>(&world, population).unwrap().swap_remove(0).unwrap();
    compare(name, "grad_input", &flat(&dx.index_axis(Axis(0), 1).to_owned()));
    for parameter in parameters {
        let gradient =
            world.module_mut(root).unwrap().gradient::<f64>(&parameter).unwrap().unwrap();
        compare(name, &format!("grad/{parameter}"), &flat(&gradient));
    }
    for buffer in ["running_mean", "running_var"] {
        if GOLDEN.contains(&format!("{name} buffer/{buffer} ")) {
            let value = world.module_mut(root).unwrap().parameter::<f64>(buffer).unwrap();
            compare(name, &format!("buffer/{buffer}"), &flat(&value));
        }
    }
    if GOLDEN.contains(&format!("{name} buffer/num_batches_tracked ")) {
        let count =
            world.module_mut(root).unwrap().parameter::<i64>("num_batches_tracked").unwrap();
        compare(name, "buffer/num_batches_tracked", &[count.sum() as f64]);
    }
}

#[test]
fn norms_give_torchs_numbers() {
    check("batch_norm_1d", &BatchNorm1d::new(3), &[4, 3], false);
    let average = BatchNorm2d { momentum: None, ..BatchNorm2d::new(2) };
    check("batch_norm_2d_average", &average, &[3, 2, 2, 3], false);
    let wide = BatchNorm3d { eps: 0.1, ..BatchNorm3d::new(2) };
    check("batch_norm_3d_eval", &wide, &[2, 2, 1, 2, 2], true);
    let tracking =
        InstanceNorm1d { affine: true, track_running_stats: true, ..InstanceNorm1d::new(2) };
    check("instance_norm_1d", &tracking, &[3, 2, 4], false);
    check("layer_norm", &LayerNorm::new([2, 3]), &[2, 2, 3], false);
    check("group_norm", &GroupNorm::new(2, 4), &[2, 4, 3], false);
    check("rms_norm", &RMSNorm::new([4]), &[3, 4], false);
}

#[test]
fn convolutions_give_torchs_numbers() {
    let same = Conv1d {
        padding: Padding::Same,
        padding_mode: PaddingMode::Own(PadMode::Reflect),
        ..Conv1d::new(2, 3, 2)
    };
    check("conv_1d_same_reflect", &same, &[2, 2, 5], false);
    let grouped = Conv2d { groups: 2, ..Conv2d::new(4, 2, [2, 3]) };
    check("conv_2d", &grouped.with_stride(2).with_padding([1, 2]), &[2, 4, 4, 5], false);
    check("conv_3d", &Conv3d::new(1, 2, 2).without_bias(), &[1, 1, 2, 3, 3], false);
    let transposed = ConvTranspose2d {
        padding: [1; 2],
        output_padding: [1; 2],
        ..ConvTranspose2d::new(2, 3, 3).with_stride(2)
    };
    check("conv_transpose_2d", &transposed, &[1, 2, 2, 3], false);
}

#[test]
fn activations_give_torchs_numbers() {
    check("prelu", &PReLU { num_parameters: 2, init: 0.25 }, &[3, 2, 2], false);
    check("celu", &CELU { alpha: 2.0 }, &[7], false);
    check("mish", &Mish, &[7], false);
    check("glu", &GLU::default(), &[2, 4], false);
}

fn network() -> Sequential {
    Sequential::new()
        .push(Unflatten::new(1, [1, -1]))
        .push(LazyConv1d::new(3, 2))
        .push(LazyBatchNorm1d::default())
        .push(Hardswish)
        .push(Flatten::default())
        .push(LazyLinear::new(2))
}

fn batch() -> Array3<f32> {
    Array3::from_shape_fn((3, 4, 6), |(m, i, j)| ((m * 7 + i * 5 + j * 3) % 11) as f32 / 5.0 - 1.0)
}

#[test]
fn running_statistics_are_each_models_own_and_the_same_alone() {
    let x = batch();
    let mut world = World::new();
    let all = world.spawn_population(&network(), 3, Seed(1)).unwrap().id();
    world.population_mut(all).unwrap().insert(SGD::default()).unwrap();
    let (targets, loss) = (ndarray::Array2::<i64>::zeros((3, 4)), CrossEntropyLoss::default());
    for _ in 0..3 {
        world.population_mut(all).unwrap().train_step(&x, &targets, &loss).unwrap();
    }
    let means = world.population_mut(all).unwrap().stack::<f32>("2.running_mean").unwrap();
    assert_eq!(
        world.population_mut(all).unwrap().stack::<i64>("2.num_batches_tracked").unwrap().sum(),
        9
    );
    for model in 0..3 {
        let settings =
            PopulationSettings { seed: 1, first_number: model as u64, ..Default::default() };
        let mut world = World::new();
        let alone = world.spawn_population_with(&network(), settings).unwrap().id();
        world.population_mut(alone).unwrap().insert(SGD::default()).unwrap();
        let (x, targets) =
            (x.slice(ndarray::s![model..=model, .., ..]), targets.slice(ndarray::s![..1, ..]));
        for _ in 0..3 {
            world.population_mut(alone).unwrap().train_step(x, targets, &loss).unwrap();
        }
        let mean = world.population_mut(alone).unwrap().stack::<f32>("2.running_mean").unwrap();
        assert_eq!(mean.index_axis(Axis(0), 0), means.index_axis(Axis(0), model));
    }
}

#[test]
fn embeddings_begin_with_a_padding_row_of_zeros_and_choose_rows() {
    let mut world = World::new();
    let layer = Embedding { padding_idx: Some(-1), ..Embedding::new(3, 2) };
    let population = world.spawn_population(&layer, 2, Seed(1)).unwrap().id();
    let weight = world.population_mut(population).unwrap().stack::<f32>("weight").unwrap();
    assert!(weight.slice(ndarray::s![.., 2, ..]).iter().all(|&x| x == 0.0));
    assert!(weight.slice(ndarray::s![.., ..2, ..]).iter().all(|&x| x != 0.0));
    let x = ndarray::array![1_i64, 2, 0];
    let arguments = Arguments::each([AnyInput::from(Input::shared(x.view()))]);
    let y = world.population_mut(population).unwrap().forward_with::<f32>(arguments).unwrap();
    let y = y.leaves()[0].clone();
    assert_eq!(y.slice(ndarray::s![1, 0, ..]), weight.slice(ndarray::s![1, 1, ..]));
    assert_eq!(repr(&layer), "Embedding(3, 2, padding_idx=2)");
}

#[test]
fn layers_are_printed_as_torch_does() {
    let same = Conv1d { padding: Padding::Same, groups: 2, ..Conv1d::new(2, 4, 3) };
    let printed = [
        (
            repr(&BatchNorm2d { affine: false, momentum: None, ..BatchNorm2d::new(3) }),
            "BatchNorm2d(3, eps=1e-05, momentum=None, affine=False, bias=False, track_running_stats=True)",
        ),
        (
            repr(&LayerNorm::new([3])),
            "LayerNorm((3,), eps=1e-05, elementwise_affine=True, bias=True)",
        ),
        (repr(&RMSNorm::new([3])), "RMSNorm((3,), eps=None, elementwise_affine=True)"),
        (repr(&same), "Conv1d(2, 4, kernel_size=(3,), stride=(1,), padding=same, groups=2)"),
        (repr(&LazyConv2d::new(3, 3)), "LazyConv2d(0, 3, kernel_size=(3, 3), stride=(1, 1))"),
        (repr(&Unflatten::new(1, [2, 3])), "Unflatten(dim=1, unflattened_size=(2, 3))"),
        (repr(&Softshrink::default()), "Softshrink(0.5)"),
    ];
    for (printed, expected) in printed {
        assert_eq!(printed, expected);
    }
}

/// Gives each model of a population of two other running statistics, and goes to evaluation mode.
fn with_statistics(layer: Sequential) -> (World, Entity) {
    let mut world = World::new();
    let settings =
        PopulationSettings { models: 2, dtype: Dtype::F64, ..PopulationSettings::default() };
    let population = world.spawn_population_with(&layer, settings).unwrap().id();
    for (name, most) in [("1.running_mean", 1.0), ("1.running_var", 2.0), ("1.weight", 3.0)] {
        let shape =
            world.population_mut(population).unwrap().stack::<f64>(name).unwrap().shape().to_vec();
        let value = numbers(&shape, |i| most + (0.9 * i + most).sin());
        world.population_mut(population).unwrap().unstack(name, value.view()).unwrap();
    }
    (world, population)
}

#[test]
fn a_norm_that_is_fused_changes_no_result() {
    use neurarch::systems::edit::fuse::{fuse_conv_bn_eval, fuse_linear_bn_eval};
    let conv = Sequential::new().push(Conv2d::new(2, 3, 2).without_bias());
    let transposed = Sequential::new().push(ConvTranspose2d::new(2, 3, 2));
    let linear = Sequential::new().push(Linear::new(4, 3).without_bias());
    let cases = [
        (conv.push(BatchNorm2d { eps: 0.1, ..BatchNorm2d::new(3) }), vec![2, 2, 3, 4], Some(false)),
        (transposed.push(BatchNorm2d::new(3)), vec![2, 2, 3, 4], Some(true)),
        (linear.push(BatchNorm1d::new(3)), vec![5, 4], None),
    ];
    for (layers, shape, transpose) in cases {
        let (mut world, population) = with_statistics(layers);
        let fuse = |world: &mut World| match transpose {
            Some(transpose) => fuse_conv_bn_eval(world, population, "0", "1", transpose),
            None => fuse_linear_bn_eval(world, population, "0", "1"),
        };
        let error = fuse(&mut world).unwrap_err().to_string();
        assert_eq!(error, "Fusion only for eval!");
        world.population_mut(population).unwrap().eval().unwrap();
        let x = numbers(&shape, |i| (0.7 * i).sin());
        let before =
            world.population_mut(population).unwrap().forward(Input::shared(x.view())).unwrap();
        fuse(&mut world).unwrap();
        let after =
            world.population_mut(population).unwrap().forward(Input::shared(x.view())).unwrap();
        assert!((&after - &before).iter().all(|x| x.abs() < 1e-12), "{before} and {after}");
        let root = world.population(population).unwrap().models()[0];
        assert_eq!(
            world.module_mut(root).unwrap().parameter_names().unwrap(),
            ["0.weight", "0.bias"]
        );
    }
}
