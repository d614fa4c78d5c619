//! Arithmetic on whole gradients and weights: norms, what clips them, averages.
//!
//! A gradient is a row of a column: numbers of a type that is known at run time, as bytes aligned for it. Sums
//! are in double precision, in an order that follows from their length alone.

use core::cell::Cell;

use crate::arithmetic::elementary;
use crate::cpu::simd::{Simd, Vectorized, dispatch};
use crate::cpu::sum::{Running, sum_of};
use crate::ir::dtype::{Dtype, bf16, f16};

/// Gives the norm of order `p`: `(Σ |x|ᵖ)^(1/p)`, the greatest `|x|` of order ∞, the least of -∞, the count of
/// numbers that are not 0 of order 0.
///
/// # Panics
///
/// If the row is no whole number of elements, or is not aligned for them.
///
/// Source: `torch.linalg.vector_norm`.
pub fn vector_norm(dtype: Dtype, row: &[u8], p: f64) -> f64 {
    dispatch(VectorNorm { dtype, row, p })
}

/// Compiled for each instruction set; none changes a bit.
struct VectorNorm<'a> {
    dtype: Dtype,
    row: &'a [u8],
    p: f64,
}

impl Vectorized for VectorNorm<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self) -> f64 {
        let VectorNorm { dtype, row, p } = self;
        match dtype {
            Dtype::F64 => norm_of(bytemuck::cast_slice(row), |x: f64| x, p),
            Dtype::F16 => norm_of(bytemuck::cast_slice(row), f16::to_f64, p),
            Dtype::BF16 => norm_of(bytemuck::cast_slice(row), bf16::to_f64, p),
            _ => norm_of(bytemuck::cast_slice(row), |x: f32| x.into(), p),
        }
    }
}

#[inline(always)]
fn norm_of<T: Copy>(row: &[T], number: impl Fn(T) -> f64, p: f64) -> f64 {
    match p {
        _ if row.is_empty() => 0.0,
        1.0 => sum_of(row, |x| number(x).abs()),
        2.0 => sum_of(row, |x| number(x) * number(x)).sqrt(),
        f64::INFINITY | f64::NEG_INFINITY | 0.0 => norm(row.iter().map(|&x| number(x)), p),
        _ => {
            let power = |x| elementary::pow(number(x).abs(), p);
            elementary::pow(sum_of(row, power), 1.0 / p)
        }
    }
}

/// Changes every number: those of double precision by `double`, all others in single precision.
fn each(
    dtype: Dtype,
    row: &mut [u8],
    mut single: impl FnMut(f32) -> f32,
    mut double: impl FnMut(f64) -> f64,
) {
    fn all<T: bytemuck::Pod>(row: &mut [u8], mut change: impl FnMut(T) -> T) {
        bytemuck::cast_slice_mut::<_, T>(row).iter_mut().for_each(|x| *x = change(*x));
    }
    match dtype {
        Dtype::F64 => all::<f64>(row, &mut double),
        Dtype::F16 => all(row, |x: f16| f16::from_f32(single(x.to_f32()))),
        Dtype::BF16 => all(row, |x: bf16| bf16::from_f32(single(x.to_f32()))),
        _ => all::<f32>(row, &mut single),
    }
}

/// Gives the norm of order `p` of what has these norms in its parts.
///
/// Source: `torch.nn.utils.get_total_norm`, which takes the norm of norms.
pub fn total_norm(norms: impl Iterator<Item = f64>, p: f64) -> f64 {
    norm(norms, p)
}

fn norm(numbers: impl Iterator<Item = f64>, p: f64) -> f64 {
    let mut sizes = numbers.map(f64::abs).peekable();
    if sizes.peek().is_none() {
        return 0.0;
    }
    if p == f64::INFINITY {
        return sizes.fold(0.0, |most, x| if x > most || x.is_nan() { x } else { most });
    }
    if p == f64::NEG_INFINITY {
        let least = |least: f64, x: f64| if x < least || x.is_nan() { x } else { least };
        return sizes.fold(f64::INFINITY, least);
    }
    let mut sum = Running::new();
    match p {
        0.0 => sizes.filter(|&x| x != 0.0).count() as f64,
        1.0 => {
            sizes.for_each(|x| sum.add(x));
            sum.finish()
        }
        2.0 => {
            sizes.for_each(|x| sum.add(x * x));
            sum.finish().sqrt()
        }
        _ => {
            sizes.for_each(|x| sum.add(elementary::pow(x, p)));
            elementary::pow(sum.finish(), 1.0 / p)
        }
    }
}

/// Multiplies every number by `factor`, rounded to their type.
///
/// # Panics
///
/// As [`vector_norm`].
pub fn scale(dtype: Dtype, row: &mut [u8], factor: f64) {
    let single = factor as f32;
    each(dtype, row, |x| x * single, |x| x * factor);
}

/// Multiplies every number by `inverse`, and says whether one was not finite before.
///
/// # Panics
///
/// As [`vector_norm`].
///
/// Source: `torch._amp_foreach_non_finite_check_and_unscale_`.
pub fn unscale(dtype: Dtype, row: &mut [u8], inverse: f32) -> bool {
    let found = Cell::new(false);
    let single = |x: f32| {
        found.set(found.get() | !x.is_finite());
        x * inverse
    };
    let double = |x: f64| {
        found.set(found.get() | !x.is_finite());
        x * f64::from(inverse)
    };
    each(dtype, row, single, double);
    found.get()
}

/// Brings every number into `-limit` to `limit`; NaN stays.
///
/// # Panics
///
/// As [`vector_norm`].
///
/// Source: `torch.clamp`.
pub fn clamp(dtype: Dtype, row: &mut [u8], limit: f64) {
    fn bounded<T: PartialOrd>(x: T, least: T, most: T) -> T {
        if x < least {
            least
        } else if x > most {
            most
        } else {
            x
        }
    }
    let single = limit as f32;
    each(dtype, row, |x| bounded(x, -single, single), |x| bounded(x, -limit, limit));
}

/// Moves every number of `average` on to that of `row`: `average ← average + (row - average) · weight`, integers
/// rounded towards zero; it becomes the row where `weight` is 1.
///
/// # Panics
///
/// As [`vector_norm`], and if one has more numbers than the other.
///
/// Source: `torch.lerp`.
pub fn average(dtype: Dtype, average: &mut [u8], row: &[u8], weight: f64) {
    match dtype {
        _ if weight == 1.0 => average.copy_from_slice(row),
        Dtype::Bool => average.copy_from_slice(row),
        _ => dispatch(Average { dtype, average, row, weight }),
    }
}

/// Compiled for each instruction set; none changes a bit.
struct Average<'a> {
    dtype: Dtype,
    average: &'a mut [u8],
    row: &'a [u8],
    weight: f64,
}

impl Vectorized for Average<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Average { dtype, average, row, weight } = self;
        let lerp = |old: f64, new: f64| old + (new - old) * weight;
        match dtype {
            Dtype::F64 => join::<f64>(average, row, lerp),
            Dtype::I64 => join::<i64>(average, row, |old, new| lerp(old as f64, new as f64) as i64),
            Dtype::F16 => join::<f16>(average, row, |old, new| {
                f16::from_f32(lerp(old.into(), new.into()) as f32)
            }),
            Dtype::BF16 => join::<bf16>(average, row, |old, new| {
                bf16::from_f32(lerp(old.into(), new.into()) as f32)
            }),
            _ => join::<f32>(average, row, |old, new| lerp(old.into(), new.into()) as f32),
        }
    }
}

#[inline(always)]
fn join<T: bytemuck::Pod>(average: &mut [u8], row: &[u8], lerp: impl Fn(T, T) -> T) {
    let row = bytemuck::cast_slice::<_, T>(row);
    let average = bytemuck::cast_slice_mut::<_, T>(average);
    assert_eq!(average.len(), row.len(), "as many numbers");
    average.iter_mut().zip(row).for_each(|(average, &new)| *average = lerp(*average, new));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_of_every_order_are_torchs() {
        let row: Vec<u8> = bytemuck::pod_collect_to_vec(&[3.0_f64, 0.0, -4.0]);
        let of = |p| vector_norm(Dtype::F64, &row, p);
        assert_eq!([of(2.0), of(1.0), of(f64::INFINITY), of(0.0)], [5.0, 7.0, 4.0, 2.0]);
        assert_eq!(of(f64::NEG_INFINITY), 0.0);
        assert!((of(3.0) - 91.0_f64.cbrt()).abs() < 1e-12);
    }

    #[test]
    fn sums_of_any_length_are_near_those_in_order() {
        for len in 0..40 {
            let numbers: Vec<f32> = (0..len).map(|i| (0.7 * i as f32).sin()).collect();
            let row: &[u8] = bytemuck::cast_slice(&numbers);
            for p in [1.0, 2.0] {
                let plain = norm(numbers.iter().map(|&x| x.into()), p);
                assert!((vector_norm(Dtype::F32, row, p) - plain).abs() < 1e-13, "{len} {p}");
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let mut row: Vec<u8> = bytemuck::pod_collect_to_vec(&[f32::NAN, 2.0, -7.0]);
        clamp(Dtype::F32, &mut row, 1.5);
        let numbers: Vec<f32> = bytemuck::pod_collect_to_vec(&row);
        assert!(numbers[0].is_nan());
        assert_eq!(numbers[1..], [1.5, -1.5]);
        assert!(vector_norm(Dtype::F32, &row, f64::INFINITY).is_nan());
    }
}
