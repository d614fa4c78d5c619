//! Elementary functions of single numbers, the same bits on every machine.
//!
//! The standard library's (`f64::exp`, `f64::powf`, …) are the system's: they differ between systems, processors and
//! releases. Whatever decides the bits of a model calls these instead, which are crate `libm`'s, or those of
//! [`arithmetic`](crate::arithmetic). `clippy.toml` forbids the others. Roots, fused products and rounding
//! are exact everywhere, so the standard library's will do; and they are all that `libm`'s feature `arch`, which another
//! crate may turn on, replaces by instructions.

/// `eˣ`, within 1 ulp.
#[inline]
pub fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// `ln x`, within 1 ulp.
#[inline]
pub fn ln(x: f64) -> f64 {
    libm::log(x)
}

/// `xʸ`, within 1 ulp; exact where `x`, `y` and the power are whole numbers.
#[inline]
pub fn pow(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}

/// The powers of one base, with the bits of [`pow`]: what follows from the base alone is computed once.
///
/// A training step of Adam asks for the next power of the same two bases, and of one tiny model it took a fiftieth of
/// the step. The formulas are those of `pow` in crate `libm`, in their order, for the numbers that take none of its
/// special ways; others are left to it.
///
/// Source: FreeBSD's `e_pow.c`. Copyright (C) 2004 by Sun Microsystems, Inc. All rights reserved. Permission to use,
/// copy, modify, and distribute this software is freely granted, provided that this notice is preserved.
#[derive(Clone, Copy, Debug)]
pub struct Powers {
    base: f64,
    /// The base's binary logarithm in two parts; `None` unless the base is between a half and 1.
    log: Option<[f64; 2]>,
}

impl Powers {
    /// Prepares the powers of a base.
    pub fn of(base: f64) -> Powers {
        Powers { base, log: (0.5..1.0).contains(&base).then(|| log2_parts(base)) }
    }

    /// Gives the base.
    pub fn base(&self) -> f64 {
        self.base
    }

    /// Gives `baseʸ`: the bits of [`pow`].
    #[inline]
    pub fn to(&self, y: f64) -> f64 {
        // Exponents of 2 and less have ways of their own, and so have those beyond 2³¹.
        match self.log {
            Some(log) if y > 2.0 && y <= 2_147_483_648.0 => power_of_log(log, y),
            _ => None,
        }
        .unwrap_or_else(|| pow(self.base, y))
    }
}

/// Gives the upper half of the bits as a signed number.
fn high(x: f64) -> i32 {
    (x.to_bits() >> 32) as i32
}

/// Replaces the upper half of the bits.
fn with_high(x: f64, high: i32) -> f64 {
    f64::from_bits((x.to_bits() & 0xffff_ffff) | u64::from(high as u32) << 32)
}

/// Clears the lower half of the bits.
fn rounded(x: f64) -> f64 {
    f64::from_bits(x.to_bits() & 0xffff_ffff_0000_0000)
}

/// Gives `log₂ x` in two parts, the first of few bits, for a number from a half to below 1.
fn log2_parts(x: f64) -> [f64; 2] {
    const L: [f64; 6] = [
        0.599_999_999_999_994_6,
        0.428_571_428_578_550_2,
        3.333_333_298_183_774_3e-1,
        2.727_281_238_085_34e-1,
        2.306_607_457_755_617_5e-1,
        2.069_750_178_003_384_2e-1,
    ];
    const CP: f64 = 9.617_966_939_259_756e-1;
    const CP_HIGH: f64 = 9.617_967_009_544_373e-1;
    const CP_LOW: f64 = -7.028_461_650_952_758e-9;
    const THREE_HALVES_HIGH: f64 = 5.849_624_872_207_642e-1;
    const THREE_HALVES_LOW: f64 = 1.350_039_202_129_749e-8;
    let mut n = (high(x) >> 20) - 0x3ff;
    let fraction = high(x) & 0x000f_ffff;
    let mut upper = fraction | 0x3ff0_0000;
    let (k, near, dp_high, dp_low) = match fraction {
        ..=0x3_988e => (0, 1.0, 0.0, 0.0),
        0x3_988f..0xb_b67a => (1, 1.5, THREE_HALVES_HIGH, THREE_HALVES_LOW),
        _ => {
            n += 1;
            upper -= 0x0010_0000;
            (0, 1.0, 0.0, 0.0)
        }
    };
    let x = with_high(x, upper);
    let u = x - near;
    let v = 1.0 / (x + near);
    let ss = u * v;
    let s_high = rounded(ss);
    let t_high = with_high(0.0, ((upper >> 1) | 0x2000_0000) + 0x0008_0000 + (k << 18));
    let t_low = x - (t_high - near);
    let s_low = v * ((u - s_high * t_high) - s_high * t_low);
    let s2 = ss * ss;
    let tail = L[1] + s2 * (L[2] + s2 * (L[3] + s2 * (L[4] + s2 * L[5])));
    let mut r = s2 * s2 * (L[0] + s2 * tail);
    r += s_low * (s_high + ss);
    let s2 = s_high * s_high;
    let t_high = rounded(3.0 + s2 + r);
    let t_low = r - ((t_high - 3.0) - s2);
    let u = s_high * t_high;
    let v = s_low * t_high + t_low * ss;
    let p_high = rounded(u + v);
    let p_low = v - (p_high - u);
    let z_high = CP_HIGH * p_high;
    let z_low = CP_LOW * p_high + p_low * CP + dp_low;
    let n = f64::from(n);
    let first = rounded(((z_high + z_low) + dp_high) + n);
    [first, z_low - (((first - n) - dp_high) - z_high)]
}

/// Gives `2ʸˡ` for a logarithm below 0 in two parts; `None` near the smallest numbers.
#[inline]
fn power_of_log([first, second]: [f64; 2], y: f64) -> Option<f64> {
    const P: [f64; 5] = [
        1.666_666_666_666_660_2e-1,
        -2.777_777_777_701_559_3e-3,
        6.613_756_321_437_934e-5,
        -1.653_390_220_546_525_2e-6,
        4.138_136_797_057_238_5e-8,
    ];
    const LN_2: f64 = core::f64::consts::LN_2;
    const LN_2_HIGH: f64 = 6.931_471_824_645_996e-1;
    const LN_2_LOW: f64 = -1.904_654_299_957_768e-9;
    let y_high = rounded(y);
    let p_low = (y - y_high) * first + y * second;
    let mut p_high = y_high * first;
    let z = p_low + p_high;
    if z < -1_075.0 {
        return Some(0.0);
    }
    if z < -1_020.0 {
        return None;
    }
    let bits = high(z);
    let size = bits & 0x7fff_ffff;
    let mut n = 0;
    if size > 0x3fe0_0000 {
        n = bits + (0x0010_0000 >> ((size >> 20) - 0x3ff + 1));
        let k = ((n & 0x7fff_ffff) >> 20) - 0x3ff;
        p_high -= with_high(0.0, n & !(0x000f_ffff >> k));
        n = -(((n & 0x000f_ffff) | 0x0010_0000) >> (20 - k));
    }
    let t = rounded(p_low + p_high);
    let u = t * LN_2_HIGH;
    let v = (p_low - (t - p_high)) * LN_2 + t * LN_2_LOW;
    let z = u + v;
    let w = v - (z - u);
    let t = z * z;
    let t = z - t * (P[0] + t * (P[1] + t * (P[2] + t * (P[3] + t * P[4]))));
    let r = (z * t) / (t - 2.0) - (w + z * w);
    let z = 1.0 - (r - z);
    Some(with_high(z, high(z) + (n << 20)))
}

/// `sin x`, within 1 ulp.
#[inline]
pub fn sin(x: f64) -> f64 {
    libm::sin(x)
}

/// `cos x`, within 1 ulp.
#[inline]
pub fn cos(x: f64) -> f64 {
    libm::cos(x)
}

/// `√(x² + y²)`, within 1 ulp.
#[inline]
pub fn hypot(x: f64, y: f64) -> f64 {
    libm::hypot(x, y)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was computed on one machine is so on all.
    #[test]
    fn results_have_the_bits_that_they_always_had() {
        let bits = |x: f64| x.to_bits();
        let found = [exp(0.7), ln(0.7), pow(0.999, 17.0), cos(0.7), cos(1e22), hypot(0.7, 2.0)];
        let expected = [
            0x4000_1c2a_6126_8987,
            0xbfd6_d3c3_24e1_3f50,
            0x3fef_75d8_3524_6a70,
            0x3fe8_7996_529f_9d93,
            0x3fe0_be2c_ef01_c8f4,
            0x4000_f3a2_5ab4_c3b7,
        ];
        assert_eq!(found.map(bits), expected);
        assert_eq!(pow(3.0, 20.0), 3_486_784_401.0);
    }

    #[test]
    fn powers_of_a_base_have_the_bits_of_pow() {
        let betas =
            [0.9, 0.999, 0.95, 0.5, 0.99, 0.75, 0.6123, 0.62, 0.866_025, 0.8661, 0.999_999_9];
        let others = [
            0.0,
            1.0,
            0.1,
            0.499,
            1.5,
            -0.9,
            1e-300,
            f64::NAN,
            f64::INFINITY,
            1.0 - f64::EPSILON / 2.0,
        ];
        let steps = (0..12_000).map(f64::from);
        let further = (0..400).map(|i| f64::from(i) * 1_234_567.0 + 0.5);
        let exponents: Vec<_> =
            steps.chain(further).chain([0.3, 2.5, 1e12, -3.0, f64::NAN, f64::INFINITY]).collect();
        let random = (1..300).map(|i| 0.5 + 0.5 * (f64::from(i) * 0.618_033_988_749).fract());
        for base in betas.into_iter().chain(others).chain(random) {
            let powers = Powers::of(base);
            for &y in &exponents {
                let (found, expected) = (powers.to(y), pow(base, y));
                let is_same =
                    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                assert!(is_same, "{base} to the power of {y}: {found:e} for {expected:e}");
            }
        }
    }
}
