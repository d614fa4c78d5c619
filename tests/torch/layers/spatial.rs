//! Layers over images and the like: in populations, at random, with several results, and printed.

use ndarray::{Array2, Array5, ArrayD, Axis, IxDyn};
use neurarch::prelude::*;

fn network() -> Sequential {
    Sequential::new()
        .push(ReflectionPad2d::new([1, 0, 1, 1]))
        .push(Conv2d::new(1, 4, 3))
        .push(LocalResponseNorm::new(3))
        .push(RReLU::default())
        .push(MaxPool2d::new(2).with_padding(1))
        .push(Dropout2d { p: 0.3 })
        .push(Upsample { mode: InterpolateMode::Bicubic, ..Upsample::scale_factor(1.5) })
        .push(FractionalMaxPool2d::new(2, 4))
        .push(AvgPool2d::new([2, 1]).with_stride(1))
        .push(AlphaDropout { p: 0.1 })
        .push(AdaptiveMaxPool2d::new([Some(2), None]))
        .push(Flatten::default())
        .push(Linear::new(32, 2))
}

#[test]
fn models_are_the_same_alone_and_among_others() {
    let images = Array5::from_shape_fn((3, 4, 1, 8, 9), |(m, n, _, i, j)| {
        ((m * 7 + n * 5 + i * 3 + j * j) % 13) as f32 / 6.0 - 1.0
    });
    let targets = Array2::<i64>::from_shape_fn((3, 4), |(m, n)| ((m + n) % 2) as i64);
    let loss = CrossEntropyLoss::default();
    let train = |first: usize, models: usize| {
        let mut world = World::new();
        let settings = PopulationSettings {
            models,
            seed: 1,
            first_number: first as u64,
            ..PopulationSettings::default()
        };
        let population = world.spawn_population_with(&network(), settings).unwrap().id();
        world
            .population_mut(population)
            .unwrap()
            .insert(SGD { lr: 0.1, ..SGD::default() })
            .unwrap();
        let of = ndarray::s![first..first + models, .., .., .., ..];
        let targets = targets.slice(ndarray::s![first..first + models, ..]);
        for _ in 0..3 {
            world
                .population_mut(population)
                .unwrap()
                .train_step(images.slice(of), targets, &loss)
                .unwrap();
        }
        ["1.weight", "12.weight"]
            .map(|name| world.population_mut(population).unwrap().stack::<f32>(name).unwrap())
    };
    let together = train(0, 3);
    for model in 0..3 {
        for (alone, together) in train(model, 1).iter().zip(&together) {
            assert_eq!(alone.index_axis(Axis(0), 0), together.index_axis(Axis(0), model));
        }
    }
}

/// Runs one model of a layer on one input.
fn run(layer: &impl Module, x: &ArrayD<f64>) -> ArrayD<f64> {
    let mut world = World::new();
    let settings = PopulationSettings { dtype: Dtype::F64, ..PopulationSettings::default() };
    let population = world.spawn_population_with(layer, settings).unwrap().id();
    let y = world.population_mut(population).unwrap().forward(Input::shared(x.view())).unwrap();
    y.index_axis_move(Axis(0), 0)
}

fn error_of(layer: &impl Module, shape: &[usize]) -> String {
    let mut world = World::new();
    let population = world.spawn_population(layer, 1, Seed(0)).unwrap().id();
    let x = ArrayD::<f32>::zeros(IxDyn(shape));
    world
        .population_mut(population)
        .unwrap()
        .forward(Input::shared(x.view()))
        .unwrap_err()
        .to_string()
}

fn numbers(shape: &[usize]) -> ArrayD<f64> {
    let count = shape.iter().product::<usize>();
    let number = |i: usize| (0.7 * i as f64).sin() + 2.0;
    ArrayD::from_shape_vec(IxDyn(shape), (0..count).map(number).collect()).unwrap()
}

#[test]
fn channels_are_dropped_whole() {
    fn fates(y: &ArrayD<f64>, x: &ArrayD<f64>, axes: usize, kept: f64) {
        let channel = y.shape()[axes..].iter().product::<usize>();
        let ratios: Vec<f64> = y.iter().zip(x).map(|(y, x)| y / x).collect();
        let dropped = ratios.chunks(channel).filter(|of| of.iter().all(|r| *r == 0.0)).count();
        let whole = ratios.chunks(channel).filter(|of| of.iter().all(|r| (r - kept).abs() < 1e-12));
        assert_eq!(whole.count() + dropped, ratios.len() / channel);
        assert!(dropped > 0 && dropped < ratios.len() / channel);
    }
    let kept = 1.0 / 0.6;
    let x = numbers(&[8, 6, 5]);
    fates(&run(&Dropout1d { p: 0.4 }, &x), &x, 2, kept);
    fates(&run(&Dropout2d { p: 0.4 }, &x), &x, 2, kept);
    let x = numbers(&[20, 2, 5]);
    fates(&run(&Dropout3d { p: 0.4 }, &x), &x, 1, kept);
}

#[test]
fn alpha_dropout_keeps_mean_and_variance() {
    let x = numbers(&[20_000]);
    // Mean 0, variance 1: the sine's is a half.
    let x = (x - 2.0) * 2.0_f64.sqrt();
    let y = run(&AlphaDropout { p: 0.3 }, &x);
    // About three standard errors.
    assert!(y.mean().unwrap().abs() < 0.03 && (y.std(0.0) - 1.0).abs() < 0.02);
    let mut values: Vec<_> = y.iter().zip(&x).filter(|(y, x)| (*y - *x).abs() > 1e-9).collect();
    values.sort_by(|a, b| a.0.total_cmp(b.0));
    let least = *values[0].0;
    let share = y.iter().filter(|y| **y == least).count() as f64 / y.len() as f64;
    assert!((share - 0.3).abs() < 0.02, "{share}");
    let x = numbers(&[40, 3, 2]);
    let y = run(&FeatureAlphaDropout { p: 0.5 }, &x);
    let pairs = y.iter().collect::<Vec<_>>();
    let dropped = pairs.chunks(2).filter(|of| of[0] == of[1]).count();
    assert!((30..90).contains(&dropped), "{dropped}");
}

#[test]
fn random_slopes_lie_between_their_bounds() {
    let x = numbers(&[2_000]).mapv(|x| -x);
    let y = run(&RReLU { lower: 0.2, upper: 0.4 }, &x);
    let slopes = (y / &x).into_iter().collect::<Vec<f64>>();
    assert!(slopes.iter().all(|slope| (0.2..0.4).contains(slope)));
    let mean = slopes.iter().sum::<f64>() / slopes.len() as f64;
    assert!((mean - 0.3).abs() < 0.006, "{mean}");
}

#[test]
fn what_a_pool_took_apart_is_put_together() {
    let mut world = World::new();
    let pool = MaxPool1d { return_indices: true, ..MaxPool1d::new(2) };
    let pool = world.spawn_population(&pool, 2, Seed(0)).unwrap().id();
    let unpool = world.spawn_population(&MaxUnpool1d::new(2), 2, Seed(0)).unwrap().id();
    let x = ndarray::array![[[1.0_f32, 2.0, 4.0, 3.0, 5.0]], [[2.0, 1.0, 0.0, 7.0, 0.0]]];
    let both = world
        .population_mut(pool)
        .unwrap()
        .forward_any(Arguments::each([AnyInput::from(&x)]))
        .unwrap();
    let [AnyArray::F32(y), AnyArray::I64(indices)] = both.leaves()[..] else {
        panic!("{both:?}");
    };
    assert_eq!(y.as_slice().unwrap(), [2.0, 4.0, 2.0, 7.0]);
    assert_eq!(indices.as_slice().unwrap(), [1, 2, 0, 3]);
    let arguments = |size: &[f64]| {
        let sizes = Tree::Tuple(size.iter().map(|&size| Tree::Number(size)).collect());
        Arguments::each([AnyInput::from(y), AnyInput::from(indices)]).with("output_size", sizes)
    };
    let back =
        world.population_mut(unpool).unwrap().forward_with::<f32>(arguments(&[5.0])).unwrap();
    let expected = [0.0, 2.0, 4.0, 0.0, 0.0, 2.0, 0.0, 0.0, 7.0, 0.0];
    assert_eq!(back.leaves()[0].as_slice().unwrap(), expected);
    let error = world
        .population_mut(unpool)
        .unwrap()
        .forward_with::<f32>(arguments(&[6.0]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("invalid output_size \"[6]\" (dim 0 must be between 2 and 6)"),
        "{error}"
    );
    let error = world
        .population_mut(unpool)
        .unwrap()
        .forward_with::<f32>(arguments(&[1.5]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("expected sizes as output_size"), "{error}");
}

#[test]
fn transposed_convolutions_give_the_size_asked_for() {
    let mut world = World::new();
    let layer = ConvTranspose1d { padding: [1], ..ConvTranspose1d::new(1, 1, 2).with_stride(3) };
    let population = world.spawn_population(&layer, 1, Seed(0)).unwrap().id();
    let x = ndarray::Array3::<f32>::ones((1, 1, 3)).insert_axis(Axis(0));
    let mut forward = |size: f64| {
        let sizes = Tree::Tuple(vec![Tree::Number(size)]);
        let arguments = Arguments::each([AnyInput::from(&x)]).with("output_size", sizes);
        world.population_mut(population)?.forward_with::<f32>(arguments)
    };
    assert_eq!(forward(8.0).unwrap().leaves()[0].shape(), [1, 1, 1, 8]);
    let error = forward(5.0).unwrap_err().to_string();
    let expected = "requested an output size of [5], but valid sizes range from [6] to [8] (for an input of \
                    torch.Size([3]))";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn what_does_not_fit_is_an_error_in_torchs_words() {
    let errors = [
        (
            error_of(&MaxPool2d::new(2).with_padding(2), &[1, 1, 3, 3]),
            "pad should be at most half of effective kernel size, but got pad=2, kernel_size=2 and \
             dilation=1",
        ),
        (
            error_of(&AvgPool2d::new(5), &[1, 1, 3, 3]),
            "Given input size: (1x3x3). Calculated output size: (1x0x0). Output size is too small",
        ),
        (
            error_of(&AdaptiveAvgPool3d::new(2), &[4, 4, 4]),
            "adaptive_avg_pool3d(): Expected 4D or 5D tensor, but got [4, 4, 4]",
        ),
        (
            error_of(&CircularPad1d::new(5), &[1, 1, 4]),
            "Padding value causes wrapping around more than once.",
        ),
        (error_of(&CircularPad2d::new(1), &[4, 4]), "expected 3D or 4D input (got 2D input)"),
        (
            error_of(&ConstantPad1d::new(-3, 0.0), &[1, 1, 4]),
            "narrow(): length must be non-negative.",
        ),
        (
            error_of(&Upsample::default(), &[1, 4, 4]),
            "either size or scale_factor should be defined",
        ),
        (
            error_of(&UpsamplingBilinear2d::size(2), &[1, 4, 4]),
            "Got 3D input, but bilinear mode needs 4D input",
        ),
        (
            error_of(&PixelUnshuffle::new(2), &[1, 3, 4]),
            "pixel_unshuffle expects height to be divisible by downscale_factor, but input.size(-2)=3 is \
             not divisible by 2",
        ),
        (
            error_of(&Fold::new(4, 2), &[1, 7, 9]),
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got \
             input.size(1)=7 and kernel_size=(2, 2).",
        ),
        (
            error_of(&FractionalMaxPool2d::new(2, 4), &[1, 4, 4]),
            "fractional_max_pool2d(): pool height 2 too large relative to input height 4",
        ),
    ];
    for (found, expected) in errors {
        assert!(found.ends_with(expected), "{found}, not {expected}");
    }
}

#[test]
fn layers_are_printed_as_torch_does() {
    let pool = MaxPool2d { dilation: 2.into(), ceil_mode: true, ..MaxPool2d::new([2, 3]) };
    let pool = pool.with_stride([2, 1]).with_padding(1);
    let printed = [
        (
            repr(&pool),
            "MaxPool2d(kernel_size=(2, 3), stride=(2, 1), padding=1, dilation=2, ceil_mode=True)",
        ),
        (repr(&AvgPool1d::new(3)), "AvgPool1d(kernel_size=(3,), stride=(3,), padding=(0,))"),
        (repr(&AvgPool2d::new([3, 2])), "AvgPool2d(kernel_size=(3, 2), stride=(3, 2), padding=0)"),
        (
            repr(&MaxUnpool2d::new(2)),
            "MaxUnpool2d(kernel_size=(2, 2), stride=(2, 2), padding=(0, 0))",
        ),
        (
            repr(&AdaptiveMaxPool2d::new([None, Some(3)])),
            "AdaptiveMaxPool2d(output_size=(None, 3))",
        ),
        (repr(&FractionalMaxPool2d::with_ratio(2, 0.5)), "FractionalMaxPool2d()"),
        (repr(&ConstantPad1d::new(1, 0.0)), "ConstantPad1d(padding=(1, 1), value=0.0)"),
        (repr(&ZeroPad2d::new(1)), "ZeroPad2d((1, 1, 1, 1))"),
        (repr(&ReflectionPad1d::new([-1, 1])), "ReflectionPad1d((-1, 1))"),
        (
            repr(&Fold::new([4, 4], 2)),
            "Fold(output_size=(4, 4), kernel_size=2, dilation=1, padding=0, stride=1)",
        ),
        (repr(&PixelShuffle::new(2)), "PixelShuffle(upscale_factor=2)"),
        (
            repr(&Upsample::scale_factor([2.0, 3.5])),
            "Upsample(scale_factor=(2.0, 3.5), mode='nearest')",
        ),
        (repr(&UpsamplingNearest2d::size(2)), "UpsamplingNearest2d(size=2, mode='nearest')"),
        (repr(&LocalResponseNorm::new(2)), "LocalResponseNorm(2, alpha=0.0001, beta=0.75, k=1.0)"),
        (repr(&CrossMapLRN2d::new(3)), "CrossMapLRN2d(3, alpha=0.0001, beta=0.75, k=1)"),
        (repr(&RReLU::default()), "RReLU(lower=0.125, upper=0.3333333333333333)"),
    ];
    for (printed, expected) in printed {
        assert_eq!(printed, expected);
    }
}
