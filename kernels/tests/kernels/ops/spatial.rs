//! Pools, padding, folding and upsampling against plain loops, the slope of their own forward, and themselves in
//! other layouts.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::norm::local_response_norm::ResponseNorm;
use neurarch_kernels::ops::spatial::fold::Blocks;
use neurarch_kernels::ops::spatial::interpolate::{InterpolateMode, Interpolation};
use neurarch_kernels::ops::spatial::pad::PadMode;
use neurarch_kernels::ops::spatial::pick::Places;
use neurarch_kernels::ops::spatial::pool::Pooling;
use neurarch_kernels::ops::spatial::resample::{Along, Taps};
use neurarch_kernels::testing::{
    Array, cases, check_gradient, check_gradient_of, check_layouts, evaluate,
};
use proptest::prelude::*;

/// Different numbers between -2 and 2, in no order.
fn numbers(shape: &[usize]) -> Array {
    let count = shape.iter().product::<usize>().max(1);
    Array::from_fn(Dtype::F64, shape, |i| {
        ((i * 7919 + 3) % 1009) as f64 / 252.25 - 2.0 + i as f64 / count as f64 / 500.0
    })
}

/// Checks that bits follow from shapes alone and that gradients are slopes.
fn check(build: impl Fn(&[Var]) -> Var, shape: &[usize]) -> Array {
    check_gradient(&build, &[numbers(shape)], 1e-6);
    check_layouts(build, &[numbers(shape)])
}

fn pooling(kernel: &[usize], stride: &[usize], padding: &[usize], dilation: usize) -> Pooling {
    Pooling {
        kernel_size: kernel.into(),
        stride: stride.into(),
        padding: padding.into(),
        dilation: vec![dilation; kernel.len()],
        ceil_mode: false,
    }
}

/// A way to pool one axis.
#[derive(Clone, Debug)]
struct OneAxis {
    size: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    ceil_mode: bool,
}

fn one_axis() -> impl Strategy<Value = OneAxis> {
    let settings =
        (1..12_usize, 1..5_usize, 1..5_usize, 0..3_usize, 1..3_usize, proptest::bool::ANY);
    settings.prop_map(|(size, kernel, stride, padding, dilation, ceil_mode)| {
        let span = dilation * (kernel - 1) + 1;
        let padding = padding.min(span / 2);
        OneAxis { size: size.max(span), kernel, stride, padding, dilation, ceil_mode }
    })
}

impl OneAxis {
    fn pooling(&self) -> Pooling {
        let mut of = pooling(&[self.kernel], &[self.stride], &[self.padding], self.dilation);
        of.ceil_mode = self.ceil_mode;
        of
    }

    /// Lists, for each window, the places of the input that it covers; and how wide it is within the padding.
    fn windows(&self) -> Vec<(Vec<usize>, usize)> {
        let (size, padding) = (self.size as isize, self.padding as isize);
        let span = (self.dilation * (self.kernel - 1)) as isize;
        let mut windows = Vec::new();
        let mut start = -padding;
        let mut has_room = true;
        loop {
            let end = start + span + 1;
            // One window may hang over the edge, if the one before it left room and it starts early enough.
            if end > size + padding && !(self.ceil_mode && has_room && start < size) {
                return windows;
            }
            has_room = end < size + padding;
            let all = (0..self.kernel).map(|k| start + (k * self.dilation) as isize);
            let padded = all.clone().filter(|at| *at < size + padding).count();
            let inside = all.filter_map(|at| usize::try_from(at).ok());
            windows.push((inside.filter(|at| *at < self.size).collect(), padded));
            start += self.stride as isize;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(64)))]

    #[test]
    fn pools_are_those_of_plain_loops(axis in one_axis()) {
        let x = numbers(&[2, axis.size]);
        let windows = axis.windows();
        let [y, places] = [0, 1].map(|i| {
            evaluate(|v| v[0].max_pool(&axis.pooling())[i].clone(), std::slice::from_ref(&x), &[])
        });
        prop_assert_eq!(&*y.ty.shape, &[2, windows.len()]);
        for channel in 0..2 {
            let of = |at: &usize| x.elements[channel * axis.size + at];
            for (i, (window, _)) in windows.iter().enumerate() {
                let best = window.iter().copied().max_by(|a, b| of(a).total_cmp(&of(b)));
                let found = channel * windows.len() + i;
                if let Some(best) = best {
                    prop_assert_eq!(y.elements[found], of(&best));
                    prop_assert_eq!(places.elements[found], best as f64);
                }
            }
        }
        let axis = OneAxis { dilation: 1, padding: axis.padding.min(axis.kernel / 2), ..axis };
        for include in [false, true] {
            let y = evaluate(|v| v[0].avg_pool(&axis.pooling(), include, None), std::slice::from_ref(&x), &[]);
            let windows = axis.windows();
            for (found, (window, padded)) in (0..2 * windows.len()).zip(windows.iter().cycle()) {
                let channel = found / windows.len();
                let sum: f64 = window.iter().map(|at| x.elements[channel * axis.size + at]).sum();
                let count = if include { *padded } else { window.len().max(1) };
                prop_assert!((y.elements[found] - sum / count as f64).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn unfolding_lists_what_each_block_sees(
        (h, w) in (3..7_usize, 3..7_usize),
        kernel in (1..3_usize, 1..3_usize),
        dilation in (1..3_usize, 1..3_usize),
        padding in (0..2_usize, 0..2_usize),
        stride in (1..3_usize, 1..3_usize),
    ) {
        let pair = |(a, b)| [a, b];
        let blocks = Blocks {
            kernel_size: pair(kernel),
            dilation: pair(dilation),
            padding: pair(padding),
            stride: pair(stride),
        };
        let x = numbers(&[2, h, w]);
        let y = evaluate(|v| v[0].unfold(&blocks), std::slice::from_ref(&x), &[]);
        let count = |i: usize| {
            let span = blocks.dilation[i] * (blocks.kernel_size[i] - 1) + 1;
            ([h, w][i] + 2 * blocks.padding[i] - span) / blocks.stride[i] + 1
        };
        let mut expected = Vec::new();
        for c in 0..2 {
            for (ky, kx) in (0..kernel.0).flat_map(|ky| (0..kernel.1).map(move |kx| (ky, kx))) {
                for (by, bx) in (0..count(0)).flat_map(|by| (0..count(1)).map(move |bx| (by, bx))) {
                    let at = |i: usize, b: usize, k: usize| {
                        let place = b * blocks.stride[i] + k * blocks.dilation[i];
                        place.checked_sub(blocks.padding[i]).filter(|&at| at < [h, w][i])
                    };
                    let place = at(0, by, ky).zip(at(1, bx, kx));
                    expected.push(place.map_or(0.0, |(y, x_)| x.elements[(c * h + y) * w + x_]));
                }
            }
        }
        prop_assert_eq!(y.elements, expected);
    }
}

#[test]
fn max_pools_follow_shapes_alone_and_their_gradients_are_slopes() {
    let of = pooling(&[2, 3], &[1, 2], &[1, 0], 1);
    check(|v| v[0].max_pool(&of)[0].clone(), &[2, 2, 4, 5]);
    check(|v| v[0].max_pool(&pooling(&[2; 3], &[2; 3], &[0; 3], 1))[0].clone(), &[2, 4, 2, 3]);
    check(|v| v[0].adaptive_max_pool(&[Some(3), None])[0].clone(), &[1, 2, 4, 3]);
    check(|v| (v[0].square() + 0.1).lp_pool(3.0, &pooling(&[2], &[1], &[0], 1)), &[1, 1, 4]);
}

#[test]
fn averages_follow_shapes_alone_and_their_gradients_are_slopes() {
    let of = pooling(&[2, 3], &[1, 2], &[1, 0], 1);
    check(|v| v[0].avg_pool(&of, false, None), &[2, 2, 4, 5]);
    check(|v| v[0].avg_pool(&of, true, Some(-5)), &[2, 4, 5]);
    check(|v| v[0].adaptive_avg_pool(&[Some(3), None, Some(2)]), &[1, 2, 4, 3, 5]);
}

#[test]
fn padding_follows_shapes_alone_and_its_gradient_is_the_slope() {
    for mode in [PadMode::Reflect, PadMode::Replicate, PadMode::Circular] {
        check(|v| v[0].pad(&[(1, 2), (-1, 2)], mode), &[2, 2, 3, 4]);
    }
    let value = Array::new(Dtype::F64, [], [0.5]);
    let build = |v: &[Var]| v[0].constant_pad(&[(2, -1), (0, 1)], &v[1]);
    let inputs = [numbers(&[2, 3, 4]), value];
    check_gradient(build, &inputs, 1e-6);
    check_layouts(build, &inputs);
}

#[test]
fn other_sizes_follow_shapes_alone_and_their_gradients_are_slopes() {
    use InterpolateMode::*;
    let modes = [(Nearest, 2), (NearestExact, 3), (Linear, 1), (Bilinear, 2), (Bicubic, 2)];
    for (mode, axes) in modes.into_iter().chain([(Trilinear, 3), (Area, 2)]) {
        for factor in [0.6, 1.7] {
            let scale_factor = Some(vec![factor]);
            let how = Interpolation { mode, scale_factor, ..Interpolation::default() };
            let shape: Vec<_> = [2, 1, 3, 4, 2].into_iter().take(axes + 2).collect();
            check(|v| v[0].interpolate(&how), &shape);
        }
    }
}

#[test]
fn blocks_and_shuffles_follow_shapes_alone_and_their_gradients_are_slopes() {
    let blocks = Blocks { kernel_size: [2, 2], dilation: [1, 2], padding: [1, 0], stride: [1, 1] };
    check(|v| v[0].unfold(&blocks), &[2, 1, 3, 4]);
    check(|v| v[0].fold([3, 4], &blocks), &[1, 8, 8]);
    check(|v| v[0].pixel_shuffle(2), &[2, 4, 1, 3]);
    check(|v| v[0].pixel_unshuffle(2), &[2, 1, 2, 4]);
    check(|v| v[0].channel_shuffle(2), &[2, 4, 3]);
}

#[test]
fn response_norms_are_differentiated() {
    let with = |v: &[Var], f: &dyn Fn(&Var, &ResponseNorm) -> Var| {
        let of = |c| v[0].trace().constant(c, Dtype::F64, []);
        f(&v[0], &ResponseNorm { alpha: of(0.3), beta: of(0.7), k: of(1.5) })
    };
    check(|v| with(v, &|x, norm| x.local_response_norm(4, norm)), &[2, 5, 3]);
    // Whose gradient is torch's, no slope.
    check_layouts(|v| with(v, &|x, norm| x.cross_map_lrn(3, norm)), &[numbers(&[1, 3, 2, 1])]);
}

#[test]
fn numbers_go_to_their_places_and_come_back() {
    let places = Array::new(Dtype::I64, [1, 2, 3], [3.0, 0.0, 3.0, 1.0, 2.0, 0.0]);
    let x = numbers(&[1, 2, 3]);
    for how in [Places::Added, Places::Assigned] {
        let build = move |v: &[Var]| v[0].place(&v[1], &[2, 2], how).square();
        // What lies flat has the wrong number of axes.
        let x = Array { ty: Type::new(Dtype::F64, [1, 2, 1, 3]), ..x.clone() };
        let places = Array { ty: Type::new(Dtype::I64, [1, 2, 1, 3]), ..places.clone() };
        check_layouts(build, &[x.clone(), places.clone()]);
        if how == Places::Added {
            check_gradient_of(build, &[x, places], &[0], 1e-6);
        }
    }
    let build = |v: &[Var]| v[0].pick(&v[1], 1).square();
    check_gradient_of(build, &[x.clone(), places.clone()], &[0], 1e-6);
    let lost = Array::new(Dtype::I64, [1, 2, 3], [4.0, 0.0, 1.0, -1.0, 9.0, 0.0]);
    let y =
        evaluate(|v| v[0].place(&v[1], &[4], Places::Assigned), &[x.clone(), lost.clone()], &[]);
    assert!(y.elements.iter().all(|y| y.is_nan()));
    let y = evaluate(|v| v[0].pick(&v[1], 1), &[x.clone(), lost], &[]);
    assert_eq!(y.elements, [0.0, x.elements[0], x.elements[1], 0.0, 0.0, x.elements[3]]);
}

#[test]
fn windows_at_random_places_are_differentiated() {
    let samples = Array::new(Dtype::F64, [1, 2, 2], [0.1, 0.9, 0.5, 0.3]);
    let build = |v: &[Var]| v[0].fractional_max_pool(&[2, 2], &[2, 3], Some(&v[1]))[0].clone();
    check_gradient_of(build, &[numbers(&[1, 2, 5, 6]), samples], &[0], 1e-6);
}

#[test]
fn taps_that_do_not_fit_are_an_error() {
    let fails = |build: &dyn Fn(&Var) -> Var| {
        let trace = Trace::new();
        let x = trace.input(Type::new(Dtype::F32, [2, 3, 4]));
        let y = build(&x);
        trace.finish(&[y]).expect_err("the input does not fit").message
    };
    let taps = |size, from| Along::new(2, Taps::copies(size, [Some(from)]));
    let text = "resample: taps of 5 numbers do not fit axis 2 of [2, 3, 4]";
    assert_eq!(fails(&|x| x.resample([taps(5, 0)])), text);
    assert!(fails(&|x| x.resample([taps(4, 4)])).contains("do not fit"));
    assert!(fails(&|x| x.resample([taps(4, 0), taps(4, 0)])).contains("multiple times"));
    assert_eq!(
        fails(&|x| x.max_pool(&pooling(&[5], &[1], &[0], 1))[0].clone()),
        "Given input size: (3x4). Calculated output size: (3x0). Output size is too small"
    );
    assert_eq!(
        fails(&|x| x.pad(&[(4, 0)], PadMode::Reflect)),
        "Argument #4: Padding size should be less than the corresponding input dimension, but got: padding \
         (4, 0) at dimension 2 of input [2, 3, 4]"
    );
}
