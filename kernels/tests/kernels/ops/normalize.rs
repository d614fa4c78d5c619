//! Norms against plain loops, the slope of their own forward, and themselves in other layouts.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::testing::{Array, cases, check_gradient_of, check_layouts};
use proptest::prelude::*;

/// Numbers between -1 and 3, the same for the same `seed`.
fn numbers(dtype: Dtype, shape: &[usize], seed: u64) -> Array {
    let mut state = seed;
    Array::from_fn(dtype, shape, |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 22) - 1.0
    })
}

fn eps(x: &Var) -> Var {
    x.trace().constant(0.1, x.dtype(), [])
}

/// For each element of a row-major shape, the number of its group: its place along the axes not in `axes`.
fn groups(shape: &[usize], axes: &[isize]) -> Vec<usize> {
    let mut groups = vec![0];
    for (axis, &size) in shape.iter().enumerate() {
        let is_kept = !axes.contains(&(axis as isize));
        groups = groups
            .iter()
            .flat_map(|group| {
                (0..size).map(move |i| if is_kept { group * size + i } else { *group })
            })
            .collect();
    }
    groups
}

fn expected(x: &Array, axes: &[isize], centered: bool) -> Vec<f64> {
    let of = groups(&x.ty.shape, axes);
    let count = of.iter().max().map_or(0, |most| most + 1);
    let (mut mean, mut var) = (vec![0.0; count], vec![0.0; count]);
    let n = (x.elements.len() / count) as f64;
    if centered {
        of.iter().zip(&x.elements).for_each(|(&group, x)| mean[group] += x / n);
    }
    of.iter().zip(&x.elements).for_each(|(&g, x)| var[g] += (x - mean[g]) * (x - mean[g]) / n);
    of.iter().zip(&x.elements).map(|(&g, x)| (x - mean[g]) / (var[g] + 0.1).sqrt()).collect()
}

fn normalize(x: &Var, axes: &[isize], centered: bool) -> Var {
    if centered { x.normalize(axes, &eps(x)).y } else { x.rms_normalize(axes, &eps(x)) }
}

const AXES: &[&[isize]] = &[&[0, 2], &[1, 2], &[2], &[0], &[0, 1, 2]];

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn norms_are_the_plain_loop_in_every_layout(
        shape in (1..=6_usize, 1..=5_usize, 1..=19_usize), seed: u64, axes in 0..5_usize, centered: bool,
    ) {
        let (shape, axes) = ([shape.0, shape.1, shape.2], AXES[axes]);
        for dtype in [Dtype::F32, Dtype::F64] {
            let x = numbers(dtype, &shape, seed);
            let y = check_layouts(|v| normalize(&v[0], axes, centered), std::slice::from_ref(&x));
            let tolerance = if dtype == Dtype::F64 { 1e-12 } else { 1e-5 };
            for (y, expected) in y.elements.iter().zip(expected(&x, axes, centered)) {
                prop_assert!((y - expected).abs() <= tolerance, "{y}, not {expected}");
            }
        }
    }

    #[test]
    fn the_gradient_is_the_slope(
        shape in (1..=3_usize, 1..=3_usize, 1..=4_usize), seed: u64, axes in 0..5_usize, centered: bool,
    ) {
        let x = numbers(Dtype::F64, &[shape.0, shape.1, shape.2], seed);
        let (w, b) = (numbers(Dtype::F64, &[shape.2], seed + 1), numbers(Dtype::F64, &[shape.2], seed + 2));
        let build = |v: &[Var]| {
            normalize(&v[0], AXES[axes], centered).scale_shift(Some(&v[1]), Some(&v[2]))
        };
        check_gradient_of(build, &[x, w, b], &[0, 1, 2], 1e-6);
    }
}

#[test]
fn counts_become_numbers_and_are_counted_up() {
    let count = Array::new(Dtype::I64, [2], [3.0, -1.0]);
    let up = check_layouts(|v| v[0].increment(), std::slice::from_ref(&count));
    assert_eq!(up.elements, [4.0, 0.0]);
    let real = check_layouts(|v| v[0].to(Dtype::F32) * 0.5, &[up]);
    assert_eq!((real.ty.dtype, real.elements), (Dtype::F32, vec![2.0, 0.0]));
    let cut = check_layouts(|v| v[0].to(Dtype::I64), &[Array::new(Dtype::F64, [2], [2.7, -2.7])]);
    assert_eq!(cut.elements, [2.0, -2.0]);
}
