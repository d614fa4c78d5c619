//! Convolutions against plain loops, the slope of their own forward, and themselves in other layouts.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::Trace;
use neurarch_kernels::ops::spatial::convolution::Convolution;
use neurarch_kernels::testing::{Array, cases, check_gradient, check_layouts};
use proptest::prelude::*;

/// Numbers between -1 and 1, the same for the same `seed`.
fn numbers(dtype: Dtype, shape: &[usize], seed: u64) -> Array {
    let mut state = seed;
    Array::from_fn(dtype, shape, |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

/// Counts through all indices of a shape, row-major.
fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![Vec::new()], |all, &size| {
        let longer = |index: &Vec<usize>| {
            let index = index.clone();
            (0..size).map(move |i| index.iter().copied().chain([i]).collect::<Vec<_>>())
        };
        all.iter().flat_map(longer).collect()
    })
}

fn at(shape: &[usize], index: &[usize]) -> usize {
    index.iter().zip(shape).fold(0, |offset, (i, size)| offset * size + i)
}

/// Where element `k` of the kernel looks from position `y`.
fn seen(settings: &Convolution, x: &[usize], y: &[usize], k: &[usize]) -> Option<Vec<usize>> {
    (0..x.len())
        .map(|i| {
            let at = y[i] * settings.stride[i] + k[i] * settings.dilation[i];
            at.checked_sub(settings.padding[i].0).filter(|&at| at < x[i])
        })
        .collect()
}

/// Adds `x · w` to `y` where the three meet, and gives the sums of one of them: 0 is `y`, 1 is `x`.
fn plain(settings: &Convolution, x: &mut Array, w: &Array, y: &mut Array, of_x: bool) {
    let (xs, ws, ys) = (x.ty.shape.to_vec(), w.ty.shape.to_vec(), y.ty.shape.to_vec());
    let out = ys[1] / settings.groups;
    for iy in indices(&ys) {
        for iw in indices(&ws[1..]) {
            let Some(place) = seen(settings, &xs[2..], &iy[2..], &iw[1..]) else { continue };
            let channel = iy[1] / out * ws[1] + iw[0];
            let ix: Vec<_> = [iy[0], channel].into_iter().chain(place).collect();
            let weight: Vec<_> = [iy[1]].into_iter().chain(iw).collect();
            let (x_at, w_at, y_at) = (at(&xs, &ix), at(&ws, &weight), at(&ys, &iy));
            if of_x {
                x.elements[x_at] += y.elements[y_at] * w.elements[w_at];
            } else {
                y.elements[y_at] += x.elements[x_at] * w.elements[w_at];
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    settings: Convolution,
    x: Vec<usize>,
    weight: Vec<usize>,
}

fn cases_of(most: usize) -> impl Strategy<Value = Case> {
    let axis = move || (1..=most, 1..=3_usize, 1..=3_usize, 0..=2_usize, 0..=2_usize, 1..=2_usize);
    let axes = proptest::collection::vec(axis(), 1..=3);
    (axes, 1..=3_usize, 1..=2_usize, 1..=2_usize, 1..=3_usize).prop_map(
        |(axes, items, groups, channels, out)| {
            let mut case = Case {
                settings: Convolution {
                    stride: axes.iter().map(|axis| axis.2).collect(),
                    padding: axes.iter().map(|axis| (axis.3, axis.4)).collect(),
                    dilation: axes.iter().map(|axis| axis.5).collect(),
                    groups,
                },
                x: vec![items, groups * channels],
                weight: vec![groups * out, channels],
            };
            for (size, kernel, _, _, _, dilation) in axes {
                // As large as the kernel, so that there is an output.
                case.x.push(size.max(dilation * (kernel - 1) + 1));
                case.weight.push(kernel);
            }
            case
        },
    )
}

fn close(found: &Array, expected: &Array) {
    assert_eq!(found.ty, expected.ty);
    let tolerance = if found.ty.dtype == Dtype::F64 { 1e-12 } else { 1e-4 };
    for (found, expected) in found.elements.iter().zip(&expected.elements) {
        assert!((found - expected).abs() <= tolerance, "{found}, not {expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(48), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_convolution_is_the_plain_loop_in_every_layout(case in cases_of(9), seed: u64) {
        for dtype in [Dtype::F32, Dtype::F64] {
            let (mut x, w) = (numbers(dtype, &case.x, seed), numbers(dtype, &case.weight, seed + 1));
            let bias = numbers(dtype, &case.weight[..1], seed + 2);
            let inputs = [x.clone(), w.clone(), bias.clone()];
            let y = check_layouts(|v| v[0].convolution(&v[1], Some(&v[2]), &case.settings), &inputs);
            let plane: usize = y.ty.shape[2..].iter().product();
            let out = case.weight[0];
            let mut expected =
                Array::from_fn(dtype, y.ty.shape.clone(), |i| bias.elements[i / plane % out]);
            plain(&case.settings, &mut x, &w, &mut expected, false);
            close(&y, &expected);
        }
    }

    #[test]
    fn a_transposed_convolution_is_the_plain_loop_in_every_layout(case in cases_of(5), seed: u64) {
        for dtype in [Dtype::F32, Dtype::F64] {
            let shape: Vec<_> =
                [case.x[0], case.weight[0]].into_iter().chain(case.x[2..].iter().copied()).collect();
            let mut settings = case.settings.clone();
            let spans: Vec<_> = (0..settings.stride.len()).map(|i| {
                (shape[i + 2] - 1) * settings.stride[i]
                    + settings.dilation[i] * (case.weight[i + 2] - 1)
            }).collect();
            for (padding, span) in settings.padding.iter_mut().zip(&spans) {
                *padding = (padding.0.min(span / 2), padding.1.min(span / 2));
            }
            let more: Vec<_> = settings.stride.iter().map(|&stride| stride - 1).collect();
            let (mut y, w) = (numbers(dtype, &shape, seed), numbers(dtype, &case.weight, seed + 1));
            let inputs = [y.clone(), w.clone()];
            let x = check_layouts(|v| v[0].conv_transpose(&v[1], None, &settings, &more), &inputs);
            let mut expected = Array::from_fn(dtype, x.ty.shape.clone(), |_| 0.0);
            plain(&settings, &mut expected, &w, &mut y, true);
            close(&x, &expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(8), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gradients_are_the_slopes_of_forward(case in cases_of(3), seed: u64) {
        let x = numbers(Dtype::F64, &case.x, seed);
        let w = numbers(Dtype::F64, &case.weight, seed + 1);
        let bias = numbers(Dtype::F64, &case.weight[..1], seed + 2);
        let convolve = |v: &[neurarch_kernels::ir::trace::Var]| {
            v[0].convolution(&v[1], Some(&v[2]), &case.settings)
        };
        check_gradient(convolve, &[x, w, bias], 1e-8);
        let shape: Vec<_> =
            [case.x[0], case.weight[0]].into_iter().chain(case.x[2..].iter().copied()).collect();
        let mut settings = case.settings.clone();
        settings.padding.iter_mut().for_each(|padding| *padding = (0, 0));
        let more: Vec<_> = settings.stride.iter().map(|&stride| stride - 1).collect();
        let (y, w) = (numbers(Dtype::F64, &shape, seed), numbers(Dtype::F64, &case.weight, seed + 1));
        check_gradient(|v| v[0].conv_transpose(&v[1], None, &settings, &more), &[y, w], 1e-8);
    }
}

/// Long rows are divided into several blocks, and many channels into smaller ones.
#[test]
fn blocks_join_without_a_seam() {
    let one = |rank: usize| Convolution {
        stride: vec![1; rank],
        padding: vec![(1, 1); rank],
        dilation: vec![1; rank],
        groups: 1,
    };
    for (x, weight, settings) in
        [(vec![2, 1, 2500], vec![2, 1, 3], one(1)), (vec![3, 80, 9, 7], vec![5, 80, 3, 3], one(2))]
    {
        let (mut x, w) = (numbers(Dtype::F64, &x, 1), numbers(Dtype::F64, &weight, 2));
        let inputs = [x.clone(), w.clone()];
        let y = check_layouts(|v| v[0].convolution(&v[1], None, &settings), &inputs);
        let mut expected = Array::from_fn(Dtype::F64, y.ty.shape.clone(), |_| 0.0);
        plain(&settings, &mut x, &w, &mut expected, false);
        close(&y, &expected);
    }
}

#[test]
fn what_does_not_fit_is_torchs_error() {
    let settings = Convolution {
        stride: vec![1; 2],
        padding: vec![(0, 0); 2],
        dilation: vec![1; 2],
        groups: 1,
    };
    let error = |x: &[usize], w: &[usize]| {
        let trace = Trace::new();
        let [x, w] = [x, w].map(|shape| trace.input(Type::new(Dtype::F32, shape)));
        let _ = x.convolution(&w, None, &settings);
        trace.error().map(|error| error.message).unwrap_or_default()
    };
    assert_eq!(
        error(&[1, 4, 8, 8], &[6, 3, 3, 3]),
        "Given groups=1, weight of size [6, 3, 3, 3], expected input[1, 4, 8, 8] to have 3 channels, but \
         got 4 channels instead"
    );
    assert_eq!(
        error(&[1, 3, 2, 2], &[6, 3, 3, 3]),
        "Calculated padded input size per channel: (2 x 2). Kernel size: (3 x 3). Kernel size can't be \
         greater than actual input size"
    );
    assert_eq!(
        error(&[1, 1, 3, 2, 2], &[6, 3, 3, 3]),
        "Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size: [1, 1, 3, 2, 2]"
    );
}
