//! Functions on traced values against numbers that torch gave, and the random ones by what they promise.

use ndarray::{Array2, ArrayD, Axis, IxDyn, array};
use neurarch::kernels::ops::attention::multi_head::{InProjection, MultiHeadAttentionOptions};
use neurarch::kernels::ops::attention::scaled_dot_product::causal_mask;
use neurarch::kernels::ops::loss::linear_cross_entropy::LinearCrossEntropy;
use neurarch::kernels::ops::recurrent::sequence::invert_permutation;
use neurarch::kernels::ops::spatial::grid_sample::{GridMode, GridOptions, GridPadding};
use neurarch::prelude::*;
use neurarch::systems::edit::fuse::{NormWeights, fuse_conv_bn_weights, fuse_linear_bn_weights};
use neurarch::systems::execute::step::input_gradients;

use crate::golden;

/// Written by `tests/golden/functional.py`.
const GOLDEN: &str = include_str!("../../golden/functional.txt");

/// Calls a function by the name of its case.
#[derive(Component, Clone, Debug, PartialEq)]
#[component(immutable)]
struct Function(String);

impl Module for Function {
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let values: Vec<_> = arguments.leaves().into_iter().cloned().collect();
        let name = self.0.as_str();
        if name.starts_with("grid_sample") {
            return values[0].grid_sample(&values[1], grid_options(name)).into();
        }
        if let Some(p) = name.strip_prefix("pdist_") {
            return values[0].pdist(p.parse().unwrap()).into();
        }
        if let Some(name) = name.strip_prefix("mha_") {
            return attention(name, call, &values).into();
        }
        of(name, call, &values).into()
    }
}

/// Queries, keys, values and the rest as `multi_head_attention` of `tests/golden/functional.py` gives them.
fn attention(name: &str, call: &Call<'_>, v: &[Var]) -> Var {
    let usual = |weight, out| MultiHeadAttentionOptions::new(4, 2, weight, out);
    let (y, weights) = match name {
        "packed" => {
            let causal = causal_mask(call.trace, Dtype::F64, 3, 5);
            let options = MultiHeadAttentionOptions {
                in_proj_bias: Some(&v[3]),
                bias_k: Some(&v[4]),
                bias_v: Some(&v[5]),
                add_zero_attn: true,
                out_proj_bias: Some(&v[7]),
                key_padding_mask: Some(&v[8]),
                attn_mask: Some(&causal),
                ..usual(InProjection::Packed(&v[2]), &v[6])
            };
            v[0].multi_head_attention_forward(&v[1], &v[1], options)
        }
        "separate" => {
            let options = MultiHeadAttentionOptions {
                in_proj_bias: Some(&v[6]),
                attn_mask: Some(&v[8]),
                average_attn_weights: false,
                ..usual(InProjection::Separate([&v[3], &v[4], &v[5]]), &v[7])
            };
            v[0].multi_head_attention_forward(&v[1], &v[2], options)
        }
        "causal" => {
            let causal = causal_mask(call.trace, Dtype::F64, 3, 3);
            let options = MultiHeadAttentionOptions {
                need_weights: false,
                attn_mask: Some(&causal),
                is_causal: true,
                ..usual(InProjection::Packed(&v[1]), &v[2])
            };
            v[0].multi_head_attention_forward(&v[0], &v[0], options)
        }
        "static" => {
            let options = MultiHeadAttentionOptions {
                add_zero_attn: true,
                need_weights: false,
                static_k: Some(&v[2]),
                static_v: Some(&v[3]),
                ..usual(InProjection::Packed(&v[1]), &v[4])
            };
            v[0].multi_head_attention_forward(&v[0], &v[0], options)
        }
        "rows" => {
            let options = MultiHeadAttentionOptions {
                bias_k: Some(&v[3]),
                bias_v: Some(&v[4]),
                add_zero_attn: true,
                average_attn_weights: false,
                ..usual(InProjection::Packed(&v[2]), &v[5])
            };
            v[0].multi_head_attention_forward(&v[1], &v[1], options)
        }
        _ => {
            let options = MultiHeadAttentionOptions {
                add_zero_attn: true,
                static_k: Some(&v[2]),
                average_attn_weights: false,
                ..usual(InProjection::Packed(&v[1]), &v[3])
            };
            v[0].multi_head_attention_forward(&v[0], &v[0], options)
        }
    };
    match weights {
        Some(weights) => joined([y, weights]),
        None => y,
    }
}

fn grid_options(name: &str) -> GridOptions {
    let mode = match name {
        name if name.contains("bilinear") => GridMode::Bilinear,
        name if name.contains("bicubic") => GridMode::Bicubic,
        _ => GridMode::Nearest,
    };
    let padding_mode = match name {
        name if name.contains("border") => GridPadding::Border,
        name if name.contains("reflection") => GridPadding::Reflection,
        _ => GridPadding::Zeros,
    };
    GridOptions { mode, padding_mode, align_corners: name.contains("_1_") }
}

fn joined(of: [Var; 2]) -> Var {
    Var::cat(&of.each_ref().map(|of| of.flatten(0, -1)).each_ref(), 0)
}

fn of(name: &str, call: &Call<'_>, v: &[Var]) -> Var {
    let number = |x| call.trace.constant(x, Dtype::F64, []);
    let plain = LinearCrossEntropy::default();
    match name {
        "affine_grid_0_2d" => v[0].affine_grid(&[2, 1, 3, 4], false),
        "affine_grid_1_2d" => v[0].affine_grid(&[2, 1, 3, 4], true),
        "affine_grid_0_3d" => v[0].affine_grid(&[1, 1, 2, 3, 2], false),
        "affine_grid_1_3d" => v[0].affine_grid(&[1, 1, 2, 3, 2], true),
        "affine_grid_one" => v[0].affine_grid(&[1, 1, 1, 3], true),
        "grouped_mm_batches" => v[0].grouped_mm(&v[1], None),
        "grouped_mm_rows" | "grouped_mm_columns" | "grouped_mm_inner" => {
            v[0].grouped_mm(&v[1], Some(&v[2]))
        }
        "conv_tbc" => v[0].conv_tbc(&v[1], &v[2], 1),
        "linear_cross_entropy" | "linear_cross_entropy_one" | "linear_cross_entropy_parts" => {
            v[0].linear_cross_entropy(&v[1], &v[2], plain)
        }
        "linear_cross_entropy_options" => v[0].linear_cross_entropy(
            &v[1],
            &v[3],
            LinearCrossEntropy {
                linear_bias: Some(&v[2]),
                weight: Some(&v[4].detach()),
                reduction: Reduction::Sum,
                ignore_index: Some(0),
                label_smoothing: Some(&number(0.1)),
            },
        ),
        "linear_cross_entropy_deep" => v[0].linear_cross_entropy(
            &v[1],
            &v[3],
            LinearCrossEntropy {
                linear_bias: Some(&v[2]),
                reduction: Reduction::None,
                ..LinearCrossEntropy::default()
            },
        ),
        "fuse_conv_bn_weights_transposed" => {
            let bn = NormWeights {
                running_mean: &v[1],
                running_var: &v[2],
                eps: &number(0.1),
                weight: None,
                bias: None,
            };
            joined(fuse_conv_bn_weights(&v[0], None, &bn, true))
        }
        "fuse_conv_bn_weights" | "fuse_linear_bn_weights" => {
            let bn = NormWeights {
                running_mean: &v[2],
                running_var: &v[3],
                eps: &number(0.1),
                weight: Some(&v[4]),
                bias: Some(&v[5]),
            };
            joined(match name {
                "fuse_linear_bn_weights" => fuse_linear_bn_weights(&v[0], Some(&v[1]), &bn),
                _ => fuse_conv_bn_weights(&v[0], Some(&v[1]), &bn, false),
            })
        }
        "unpad_sequence" => {
            Var::cat(&v[0].unpad_sequence(&[2, 3, 1], true).iter().collect::<Vec<_>>(), 0)
        }
        other => call.trace.fail(format!("no case {other}")),
    }
}

fn numbers(shape: &[usize], f: impl Fn(f64) -> f64) -> ArrayD<f64> {
    let count = shape.iter().product::<usize>();
    ArrayD::from_shape_vec(IxDyn(shape), (0..count).map(|i| f(i as f64)).collect()).unwrap()
}

/// Input `k` of that shape.
fn input(shape: &[usize], k: usize) -> ArrayD<f64> {
    numbers(shape, |i| (0.7 * i + k as f64).sin())
}

fn inputs(shapes: &[&[usize]]) -> Vec<ArrayD<f64>> {
    shapes.iter().enumerate().map(|(k, shape)| input(shape, k)).collect()
}

/// By how much results may differ: torch's `grouped_mm` is of singles.
fn tolerance(name: &str) -> (f64, f64) {
    if name.starts_with("grouped_mm") { (2e-6, 1e-6) } else { (1e-10, 1e-9) }
}

/// Runs a case in a population of two, and compares the second; `others` are not differentiated.
fn check(name: &str, inputs: &[ArrayD<f64>], others: &[AnyArray]) {
    let mut world = World::new();
    let settings =
        PopulationSettings { models: 2, dtype: Dtype::F64, ..PopulationSettings::default() };
    let population =
        world.spawn_population_with(&Function(name.to_owned()), settings).unwrap().id();
    let own = inputs.iter().map(|x| AnyInput::from(Input::shared(x.view()).requires_grad()));
    let others = others.iter().map(|other| match other {
        AnyArray::I64(other) => AnyInput::from(Input::shared(other.view())),
        AnyArray::F64(other) => AnyInput::from(Input::shared(other.view())),
        other => panic!("{other:?}"),
    });
    let found = world
        .population_mut(population)
        .unwrap()
        .forward_with::<f64>(Arguments::each(own.chain(others)))
        .unwrap();
    let y = found.leaves()[0].index_axis(Axis(0), 1).to_owned();
    golden::compare(GOLDEN, &format!("{name} output"), y.iter().copied(), tolerance(name));
    if !GOLDEN.contains(&format!("\n{name} grad/0 ")) {
        return;
    }
    let dy = numbers(y.shape(), |i| (1.3 * i).cos());
    world.population_mut(population).unwrap().backward_from(Input::shared(dy.view())).unwrap();
    let gradients = input_gradients::<f64>(&world, population).unwrap();
    for (k, gradient) in gradients.into_iter().take(inputs.len()).enumerate() {
        let gradient = gradient.unwrap().index_axis_move(Axis(0), 1);
        golden::compare(GOLDEN, &format!("{name} grad/{k}"), gradient, tolerance(name));
    }
}

#[test]
fn images_and_volumes_are_sampled_as_torch_does() {
    let grid = |shape: &[usize]| input(shape, 1).mapv(|x| 1.6 * x);
    for mode in ["bilinear", "nearest", "bicubic"] {
        for padding in ["zeros", "border", "reflection"] {
            for align in [0, 1] {
                let name = format!("grid_sample_{mode}_{padding}_{align}");
                let plane = [input(&[2, 2, 3, 4], 0), grid(&[2, 3, 2, 2])];
                check(&format!("{name}_2d"), &plane, &[]);
                if mode != "bicubic" {
                    let volume = [input(&[1, 2, 2, 3, 4], 0), grid(&[1, 2, 3, 2, 3])];
                    check(&format!("{name}_3d"), &volume, &[]);
                }
            }
        }
    }
}

#[test]
fn grids_are_mapped_as_torch_does() {
    for align in [0, 1] {
        check(&format!("affine_grid_{align}_2d"), &inputs(&[&[2, 2, 3]]), &[]);
        check(&format!("affine_grid_{align}_3d"), &inputs(&[&[1, 3, 4]]), &[]);
    }
    check("affine_grid_one", &inputs(&[&[1, 2, 3]]), &[]);
}

#[test]
fn rows_are_as_far_apart_as_in_torch() {
    for p in ["0.0", "0.5", "1.0", "2.0", "3.0", "inf"] {
        check(&format!("pdist_{p}"), &inputs(&[&[4, 3]]), &[]);
    }
}

#[test]
fn sequences_are_convolved_and_unpadded_as_torch_does() {
    check("conv_tbc", &inputs(&[&[5, 2, 3], &[2, 3, 4], &[4]]), &[]);
    check("unpad_sequence", &inputs(&[&[3, 3, 2]]), &[]);
    assert_eq!(invert_permutation(&[3, 0, 2, 1]), Some(vec![1, 3, 2, 0]));
    assert_eq!(invert_permutation(&[0, 2]), None);
}

#[test]
fn linear_cross_entropies_are_torchs() {
    let classes = AnyArray::I64(array![1_i64, 0, 4, 2].into_dyn());
    let weights = AnyArray::F64(array![1.0, 2.0, 0.5, 1.5, 1.0].into_dyn());
    let all = inputs(&[&[4, 3], &[5, 3], &[5]]);
    check("linear_cross_entropy", &all[..2], std::slice::from_ref(&classes));
    check("linear_cross_entropy_options", &all, &[classes, weights]);
    let deep = AnyArray::I64(array![[0_i64, 1], [4, 2], [3, 3], [2, 0]].into_dyn());
    check("linear_cross_entropy_deep", &inputs(&[&[4, 3], &[5, 2, 3], &[5, 2]]), &[deep]);
    let mut parts = input(&[4, 5], 3).mapv(f64::exp);
    for mut row in parts.axis_iter_mut(Axis(0)) {
        let sum = row.sum();
        row.mapv_inplace(|x| x / sum);
    }
    check("linear_cross_entropy_parts", &all[..2], &[AnyArray::F64(parts)]);
    let one = AnyArray::I64(ndarray::arr0(3_i64).into_dyn());
    check("linear_cross_entropy_one", &inputs(&[&[3], &[5, 3]]), &[one]);
}

#[test]
fn attention_mixes_what_torch_mixes() {
    let sequences: &[&[usize]] = &[&[3, 2, 4], &[5, 2, 4]];
    let weights: &[&[usize]] = &[&[12, 4], &[12], &[1, 1, 4], &[1, 1, 4], &[4, 4], &[4], &[2, 5]];
    check("mha_packed", &inputs(&[sequences, weights].concat()), &[]);
    let sequences: &[&[usize]] = &[&[3, 2, 4], &[5, 2, 3], &[5, 2, 2]];
    let weights: &[&[usize]] = &[&[4, 4], &[4, 3], &[4, 2], &[12], &[4, 4], &[4, 3, 5]];
    check("mha_separate", &inputs(&[sequences, weights].concat()), &[]);
    check("mha_causal", &inputs(&[&[3, 2, 4], &[12, 4], &[4, 4]]), &[]);
    let fixed: &[&[usize]] = &[&[3, 2, 4], &[12, 4], &[4, 5, 2], &[4, 5, 2], &[5, 4]];
    check("mha_static", &inputs(fixed), &[]);
    check("mha_static_k", &inputs(&[&[3, 4], &[12, 4], &[2, 3, 2], &[4, 4]]), &[]);
    let rows: &[&[usize]] = &[&[3, 2, 4], &[5, 2, 4], &[12, 4], &[2, 1, 4], &[2, 1, 4], &[4, 4]];
    check("mha_rows", &inputs(rows), &[]);
}

#[test]
fn groups_of_matrices_are_multiplied_as_torch_does() {
    let offs = |ends: &[i64]| {
        [AnyArray::I64(ArrayD::from_shape_vec(IxDyn(&[ends.len()]), ends.into()).unwrap())]
    };
    check("grouped_mm_rows", &inputs(&[&[6, 4], &[3, 4, 4]]), &offs(&[2, 2, 6]));
    check("grouped_mm_columns", &inputs(&[&[2, 3, 4], &[4, 8]]), &offs(&[3, 8]));
    check("grouped_mm_inner", &inputs(&[&[3, 8], &[8, 4]]), &offs(&[3, 3, 8]));
    check("grouped_mm_batches", &inputs(&[&[2, 3, 4], &[2, 4, 4]]), &[]);
}

/// Each model's groups are its own, and change from call to call.
#[test]
fn every_model_has_groups_of_its_own() {
    let mut world = World::new();
    let settings =
        PopulationSettings { models: 2, dtype: Dtype::F64, ..PopulationSettings::default() };
    let function = Function("grouped_mm_rows".to_owned());
    let population = world.spawn_population_with(&function, settings).unwrap().id();
    let (rows, experts) =
        (array![[1.0], [2.0], [3.0]].into_dyn(), array![[[1.0]], [[10.0]]].into_dyn());
    for (ends, expected) in [
        (array![[1_i64, 3], [2, 3]], [1.0, 20.0, 30.0, 1.0, 2.0, 30.0]),
        (array![[0_i64, 2], [3, 3]], [10.0, 20.0, 0.0, 1.0, 2.0, 3.0]),
    ] {
        let ends = ends.into_dyn();
        let matrices = [&rows, &experts].map(|x| AnyInput::from(Input::shared(x.view())));
        let given = matrices.into_iter().chain([AnyInput::from(Input::from(&ends))]);
        let y = world
            .population_mut(population)
            .unwrap()
            .forward_with::<f64>(Arguments::each(given))
            .unwrap();
        assert_eq!(y.leaves()[0].iter().copied().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn weights_are_fused_as_torch_does() {
    let with_var = |shapes: &[&[usize]], place: usize| {
        let mut all = inputs(shapes);
        all[place].mapv_inplace(|x| x + 1.5);
        all
    };
    let conv: &[&[usize]] = &[&[3, 2, 2], &[3], &[3], &[3], &[3], &[3]];
    check("fuse_conv_bn_weights", &with_var(conv, 3), &[]);
    let turned: &[&[usize]] = &[&[3, 2, 2], &[2], &[2]];
    check("fuse_conv_bn_weights_transposed", &with_var(turned, 2), &[]);
    let linear: &[&[usize]] = &[&[3, 4], &[3], &[3], &[3], &[3], &[3]];
    check("fuse_linear_bn_weights", &with_var(linear, 3), &[]);
}

#[test]
fn what_does_not_fit_is_refused_in_torchs_words() {
    let error = |name: &str, shapes: &[&[usize]]| {
        let mut world = World::new();
        let settings = PopulationSettings { dtype: Dtype::F64, ..PopulationSettings::default() };
        let population =
            world.spawn_population_with(&Function(name.to_owned()), settings).unwrap().id();
        let all = inputs(shapes);
        let all = all.iter().map(|x| AnyInput::from(Input::shared(x.view())));
        world
            .population_mut(population)
            .unwrap()
            .forward_with::<f64>(Arguments::each(all))
            .unwrap_err()
            .to_string()
    };
    let said = [
        error("grid_sample_bicubic", &[&[1, 1, 2, 2, 2], &[1, 1, 1, 1, 3]]),
        error("grid_sample", &[&[1, 1, 2, 2], &[1, 1, 1, 3]]),
        error("grid_sample", &[&[2, 1, 2, 2], &[1, 1, 1, 2]]),
        error("grid_sample", &[&[1, 1, 0, 2], &[1, 1, 1, 2]]),
        error("pdist_2", &[&[1, 2, 3]]),
        error("pdist_-1", &[&[2, 3]]),
        error("affine_grid_0_2d", &[&[2, 2, 4]]),
        error("conv_tbc", &[&[2, 3], &[2, 3, 4], &[4]]),
        error("linear_cross_entropy", &[&[4, 3], &[5, 2], &[4]]),
    ];
    let words = [
        "grid_sampler(): bicubic interpolation only supports 4D input",
        "grid_sampler(): expected grid to have size 2 in last dimension, but got grid with sizes [1, 1, 1, 3]",
        "grid_sampler(): expected grid and input to have same batch size, but got input with sizes [2, 1, 2, 2] and \
         grid with sizes [1, 1, 1, 2]",
        "grid_sampler(): expected input to have non-empty spatial dimensions, but input has sizes [1, 1, 0, 2] with \
         dimension 2 being empty",
        "pdist only supports 2D tensors, got: 3D",
        "pdist only supports non-negative p values",
        "Expected a batch of 2D affine matrices of shape Nx2x3 for size [2, 1, 3, 4]. Got torch.Size([2, 2, 4]).",
        "Input must have 3 dims: time, batch, in_channel",
        "expected equal input and linear_weight last dimensions (in_features), got 3 and 2, respectively",
    ];
    for (said, words) in said.iter().zip(words) {
        assert_eq!(said.strip_prefix("Function: "), Some(words));
    }
}

/// Draws by its name.
#[derive(Component, Clone, Debug, PartialEq)]
#[component(immutable)]
struct Draws(&'static str);

impl Module for Draws {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let number = |of| call.trace.constant(of, x.dtype(), []);
        let p = &number(0.25);
        match self.0 {
            "soft" => x.gumbel_softmax(&number(0.5), false, -1),
            "hard" => x.gumbel_softmax(&number(0.5), true, 1),
            "dropout1d" => x.dropout1d(p),
            "dropout2d" => x.dropout2d(p),
            "dropout3d" => x.dropout3d(p),
            "alpha_dropout" => x.alpha_dropout(p),
            "feature_alpha_dropout" => x.feature_alpha_dropout(p),
            _ => x.rrelu(&number(0.1), &number(0.3), true),
        }
    }
}

fn drawn(name: &'static str, x: &ArrayD<f32>) -> (ArrayD<f32>, ArrayD<f32>) {
    let mut world = World::new();
    let population = world.spawn_population(&Draws(name), 1, Seed(4)).unwrap().id();
    let y = world
        .population_mut(population)
        .unwrap()
        .forward(Input::shared(x.view()).requires_grad())
        .unwrap();
    let dy = ArrayD::<f32>::from_shape_fn(x.shape(), |i| (i[0] + i[1]) as f32 % 3.0);
    world.population_mut(population).unwrap().backward_from(Input::shared(dy.view())).unwrap();
    let dx = world.population(population).unwrap().input_gradient::<f32>().unwrap().unwrap();
    (y.index_axis_move(Axis(0), 0), dx.index_axis_move(Axis(0), 0))
}

#[test]
fn gumbel_softmax_draws_classes_by_their_logits_and_hard_ones_have_the_soft_gradient() {
    let logits = [0.5_f32, 0.2, 0.3].map(f32::ln);
    let x = Array2::from_shape_fn((4000, 3), |(_, class)| logits[class]).into_dyn();
    let (soft, of_soft) = drawn("soft", &x);
    assert!(soft.axis_iter(Axis(0)).all(|row| (row.sum() - 1.0).abs() < 1e-5));
    let (hard, of_hard) = drawn("hard", &x);
    let close =
        |a: &ArrayD<f32>, b: &ArrayD<f32>| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(close(&of_soft, &of_hard), "the same numbers were drawn");
    for (row, soft) in hard.axis_iter(Axis(0)).zip(soft.axis_iter(Axis(0))) {
        let greatest = soft.iter().copied().fold(0.0, f32::max);
        for (&one, &of) in row.iter().zip(soft) {
            assert!((one - f32::from(u8::from(of == greatest))).abs() < 1e-6);
        }
    }
    // Frequencies within four standard deviations.
    for (class, part) in [0.5_f32, 0.2, 0.3].into_iter().enumerate() {
        let found = hard.index_axis(Axis(1), class).sum() / 4000.0;
        assert!(
            (found - part).abs() < 4.0 * (part * (1.0 - part) / 4000.0).sqrt(),
            "{found} {part}"
        );
    }
}

#[test]
fn whole_channels_are_dropped() {
    let x = ArrayD::from_elem(vec![40, 25, 2, 2], 1.0_f32);
    let (y, dx) = drawn("dropout2d", &x);
    let mut dropped = 0;
    for (channel, of) in y.lanes(Axis(3)).into_iter().zip(dx.lanes(Axis(3))) {
        let kept = channel[0] != 0.0;
        dropped += usize::from(!kept);
        assert!(channel.iter().all(|&y| y == if kept { 1.0 / 0.75 } else { 0.0 }));
        assert!(kept || of.iter().all(|&dx| dx == 0.0));
    }
    let part = dropped as f32 / 2000.0;
    assert!((part - 0.25).abs() < 0.06, "{part}");
    // The other forms count other axes.
    let (y, _) = drawn("dropout1d", &x.clone().into_shape_with_order(vec![40, 25, 4]).unwrap());
    assert!(y.lanes(Axis(2)).into_iter().all(|lane| lane.iter().all(|&of| of == lane[0])));
    let (y, _) = drawn("dropout3d", &x);
    assert!(y.axis_iter(Axis(0)).all(|item| item.iter().all(|&of| of == item[[0, 0, 0]])));
    for name in ["alpha_dropout", "feature_alpha_dropout"] {
        let x = ArrayD::from_shape_fn(vec![400, 25, 2], |i| {
            // Mean 0 and variance 1.
            if (i[0] + i[1]) % 2 == 0 { 1.0_f32 } else { -1.0 }
        });
        let (y, _) = drawn(name, &x);
        let mean = y.mean().unwrap();
        assert!(mean.abs() < 0.1, "{name}: {mean}");
        let variance = y.mapv(|y| (y - mean).powi(2)).mean().unwrap();
        assert!((variance - 1.0).abs() < 0.1, "{name}: {variance}");
    }
    let (y, _) = drawn("rrelu", &ArrayD::from_elem(vec![50, 50], -1.0_f32));
    assert!(y.iter().all(|&y| (-0.3..=-0.1).contains(&y)));
    assert!((y.mean().unwrap() + 0.2).abs() < 0.01);
}
