//! Noise: normal numbers are added to a parameter in place, to all of its elements or to some.
//!
//! Elements come in groups of 32. The words of group `g` of the draw make 32 normal numbers by Box and
//! Muller's method: word `i < 16` the radius and word `16 + i` the angle of numbers `i` and `16 + i`. An
//! element changes if the upper 24 bits of its word in another draw are below `rate · 2²⁴`. So the noise
//! depends on the model, its step and the parameter, on nothing else; and since it is computed without fused
//! multiplications, it is the same for every instruction set.

use core::marker::PhantomData;

use crate::cpu::kernel::{Cpu, Kernel};
use crate::cpu::random::{Draw, GROUP, MUTATION, NOISE};
use crate::cpu::simd::{Float, Simd, Vectorized, dispatch};
use crate::cpu::tile::Tile;
use crate::ir::dtype::Dtype;
use crate::ir::op::{Ask, Op, OpError};
use crate::ir::shape::Type;
use crate::ir::trace::Var;
use crate::ops::elementwise::pointwise::computes;

/// Inputs are a parameter, a standard deviation and a rate; the output is the parameter.
#[derive(Clone, Copy, Debug)]
struct Noise {
    /// The number of the parameter in its model.
    parameter: u32,
}

impl Op for Noise {
    fn name(&self) -> &'static str {
        "noise"
    }

    fn attributes(&self) -> String {
        format!("parameter={}", self.parameter)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let [x, settings @ ..] = inputs else {
            return Err(OpError("noise: expected 3 inputs, got 0".to_owned()));
        };
        if settings.len() != 2 {
            return Err(OpError(format!("noise: expected 3 inputs, got {}", inputs.len())));
        }
        computes("noise", x)?;
        let number = Type::new(Dtype::F64, []);
        if let Some(other) = settings.iter().find(|&ty| *ty != number) {
            return Err(OpError(format!("noise: expected settings of {number}, got {other}")));
        }
        Ok(vec![x.clone()])
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }

    fn is_random(&self) -> bool {
        true
    }

    fn cost(&self, inputs: &[Type], _: &[Type]) -> usize {
        // About as long as 100 additions, most of it for the random words.
        inputs[0].shape.numel() * 100
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|_, outputs| {
            let parameter = self.parameter;
            match outputs[0].ty.dtype {
                Dtype::F64 => Box::new(NoiseKernel::<f64> { parameter, element: PhantomData }),
                _ => Box::new(NoiseKernel::<f32> { parameter, element: PhantomData }),
            }
        });
    }
}

impl Var {
    /// Adds normal numbers of standard deviation `std` to each element with probability `rate`; both are f64
    /// of shape `[]`. It gets no gradient.
    ///
    /// `parameter`, below 2²⁸, is the number of the parameter in its model: others get other noise. Where `std`
    /// or `rate` is 0 nothing changes by a bit.
    ///
    /// Source: the mutation of evolution strategies, `p.add_(torch.randn_like(p) * std)`.
    #[must_use]
    pub fn noise(&self, std: &Var, rate: &Var, parameter: u32) -> Var {
        self.trace().apply(Noise { parameter }, &[self, std, rate])
    }
}

struct NoiseKernel<T> {
    parameter: u32,
    element: PhantomData<T>,
}

impl<T: Noisy> Kernel for NoiseKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        dispatch(OverTile::<T> { parameter: self.parameter, tile, element: PhantomData });
    }
}

struct OverTile<'t, 'a, T> {
    parameter: u32,
    tile: &'t mut Tile<'a>,
    element: PhantomData<T>,
}

impl<T: Noisy> Vectorized for OverTile<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        for model in 0..self.tile.models() {
            let model = self.tile.model(model);
            let (key, _) = model.key();
            let (inputs, mut outputs, _) = model.split();
            let (std, rate) = (inputs.get::<f64>(1)[0], inputs.get::<f64>(2)[0]);
            if std == 0.0 || rate == 0.0 {
                continue;
            }
            let noise = Draw::new(key, NOISE | self.parameter);
            let chosen = (rate < 1.0).then(|| Draw::new(key, MUTATION | self.parameter));
            add(outputs.take::<T>(), T::from_f64(std), rate, noise, chosen);
        }
    }
}

/// A type that noise is added to.
trait Noisy: Float {
    /// `self + std · noise`.
    fn plus(self, std: Self, noise: f32) -> Self;
}

impl Noisy for f32 {
    #[inline(always)]
    fn plus(self, std: f32, noise: f32) -> f32 {
        self + std * noise
    }
}

impl Noisy for f64 {
    #[inline(always)]
    fn plus(self, std: f64, noise: f32) -> f64 {
        self + std * f64::from(noise)
    }
}

#[inline(always)]
fn add<T: Noisy>(elements: &mut [T], std: T, rate: f64, noise: Draw, chosen: Option<Draw>) {
    // A number of 24 bits is below this one with probability `rate`, to within 2⁻²⁴.
    let below = (rate * f64::from(1_u32 << 24)).ceil() as u32;
    for (group, part) in elements.chunks_mut(GROUP).enumerate() {
        let normal = normal(noise.words(group as u32));
        match chosen {
            None => {
                for (x, n) in part.iter_mut().zip(normal) {
                    *x = x.plus(std, n);
                }
            }
            Some(chosen) => {
                let words = chosen.words(group as u32);
                for ((x, n), word) in part.iter_mut().zip(normal).zip(words) {
                    let changed = x.plus(std, n);
                    *x = if word >> 8 < below { changed } else { *x };
                }
            }
        }
    }
}

/// Half of a group: what one radius and one angle make two numbers of.
const HALF: usize = GROUP / 2;

/// Makes normal numbers of evenly distributed words.
#[inline(always)]
fn normal(words: [u32; GROUP]) -> [f32; GROUP] {
    let mut numbers = [0.0; GROUP];
    // The compiler makes vectors of this loop, in whatever instruction set it is inlined into.
    for i in 0..HALF {
        // In (0, 1], where the logarithm is finite.
        let u = (words[i] as f32 + 0.5) * (1.0 / 4_294_967_296.0);
        let radius = (-2.0 * ln(u)).sqrt();
        // The angle in units of π, in [-1, 1].
        let t = words[HALF + i] as i32 as f32 * (1.0 / 2_147_483_648.0);
        numbers[i] = radius * sin_pi_near_0(0.5 - t.abs());
        numbers[HALF + i] = radius * sin_pi(t);
    }
    numbers
}

/// `sin πt` for `|t| ≤ 1`.
#[inline(always)]
fn sin_pi(t: f32) -> f32 {
    // The sine is the same as far beyond the quarter turn as before it.
    let quarter = 0.5_f32.copysign(t);
    sin_pi_near_0(quarter - (t - quarter).abs().copysign(t))
}

/// `sin πs` for `|s| ≤ ½`: the Taylor series, whose next term is below 6e-8.
#[inline(always)]
fn sin_pi_near_0(s: f32) -> f32 {
    use core::f32::consts::PI;
    let x = s * PI;
    let z = x * x;
    let series = -2.505_210_8e-8 * z + 2.755_731_9e-6;
    let series = series * z - 1.984_127e-4;
    let series = series * z + 8.333_333e-3;
    let series = series * z - 0.166_666_67;
    x + x * z * series
}

/// `ln u` for normal positive `u`, within a few roundings.
///
/// Source: the polynomial of `logf` in Moshier's Cephes library.
#[inline(always)]
fn ln(u: f32) -> f32 {
    // Splits u into 2ⁿ · m with m in [√½, √2).
    const ROOT_OF_HALF: i32 = 0x3f35_04f3;
    let bits = u.to_bits() as i32;
    let n = (bits - ROOT_OF_HALF) >> 23;
    let m = f32::from_bits((bits - (n << 23)) as u32);
    let (f, n) = (m - 1.0, n as f32);
    let z = f * f;
    let p = 7.037_683_6e-2 * f - 1.151_461e-1;
    let p = p * f + 1.167_699_9e-1;
    let p = p * f - 1.242_014_1e-1;
    let p = p * f + 1.424_932_3e-1;
    let p = p * f - 1.666_805_8e-1;
    let p = p * f + 2.000_071_5e-1;
    let p = p * f - 2.499_999_4e-1;
    let p = p * f + 3.333_333e-1;
    // ln 2 in two parts: the product with the first is exact.
    let low = f * z * p - 2.121_944_4e-4 * n - 0.5 * z;
    f + low + 355.0 / 512.0 * n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tile::Key;

    fn noise(numel: usize) -> Vec<f64> {
        let mut x = vec![0.0_f64; numel];
        add(&mut x, 1.0, 1.0, Draw::new(Key::default(), NOISE), None);
        x
    }

    #[test]
    fn functions_are_those_of_the_standard_library_within_a_few_roundings() {
        for i in 0..=100_000 {
            let u = (i as f32 + 0.5) / 100_000.5;
            let exact = f64::from(u).ln();
            assert!((f64::from(ln(u)) - exact).abs() <= 3e-7 * exact.abs() + 1e-9, "ln {u}");
            let t = i as f32 / 50_000.0 - 1.0;
            let angle = f64::from(t) * core::f64::consts::PI;
            assert!((f64::from(sin_pi(t)) - angle.sin()).abs() < 4e-7, "sin {t}π");
            assert!((f64::from(sin_pi_near_0(0.5 - t.abs())) - angle.cos()).abs() < 4e-7);
        }
        assert!(
            (f64::from(ln(f32::MIN_POSITIVE)) - f64::from(f32::MIN_POSITIVE).ln()).abs() < 1e-5
        );
    }

    // 2²⁰ draws: bounds are 4 to 5 standard errors wide.
    #[test]
    fn numbers_are_normal() {
        let x = noise(1 << 20);
        let n = x.len() as f64;
        let moment = |power| x.iter().map(|x| x.powi(power)).sum::<f64>() / n;
        assert!(moment(1).abs() < 0.005, "{}", moment(1));
        assert!((moment(2) - 1.0).abs() < 0.007, "{}", moment(2));
        assert!(moment(3).abs() < 0.02, "{}", moment(3));
        assert!((moment(4) - 3.0).abs() < 0.05, "{}", moment(4));
        let beyond = |bound| x.iter().filter(|x| x.abs() > bound).count() as f64 / n;
        for (bound, expected) in
            [(0.5, 0.617_075), (1.0, 0.317_311), (2.0, 0.045_5), (3.0, 0.002_7)]
        {
            let error = (expected * (1.0 - expected) / n).sqrt();
            assert!((beyond(bound) - expected).abs() < 5.0 * error, "{bound}: {}", beyond(bound));
        }
        assert!(x.iter().all(|x| x.abs() < 6.8));
        // Radius and angle are shared by numbers 16 apart, which must not be seen.
        let pairs = x.chunks(GROUP).flat_map(|part| part[..HALF].iter().zip(&part[HALF..]));
        let covariance = pairs.clone().map(|(a, b)| a * b).sum::<f64>() / (n / 2.0);
        let of_squares = pairs.map(|(a, b)| (a * a - 1.0) * (b * b - 1.0)).sum::<f64>() / (n / 2.0);
        assert!(covariance.abs() < 0.007 && of_squares.abs() < 0.015, "{covariance} {of_squares}");
    }

    #[test]
    fn a_rate_changes_that_share_of_the_elements() {
        let mut x = vec![1.0_f32; 100_000];
        let key = Key { seed: 3, ..Key::default() };
        add(&mut x, 0.5, 0.1, Draw::new(key, NOISE), Some(Draw::new(key, MUTATION)));
        let changed = x.iter().filter(|&&x| x != 1.0).count();
        // 10,000, with a standard deviation of 95.
        assert!((9_600..10_400).contains(&changed), "{changed}");
    }

    #[test]
    fn short_parameters_have_the_first_numbers_of_long_ones() {
        let long = noise(70);
        for numel in [1, 15, 16, 17, 31, 32, 33, 69] {
            assert_eq!(noise(numel), long[..numel]);
        }
    }
}
