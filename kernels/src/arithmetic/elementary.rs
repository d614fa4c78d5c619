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
}
