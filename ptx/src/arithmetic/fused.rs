//! Fused multiplication and addition of all lanes, by the CPU's own instruction where it has one.
#![expect(
    unsafe_code,
    reason = "calls what was compiled for the instruction set that the CPU was asked for"
)]

/// Computes `a · b + c` of each lane, rounded once.
pub(super) fn singles(a: &[f32; 32], b: &[f32; 32], c: &[f32; 32]) -> [f32; 32] {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn with_fma(a: &[f32; 32], b: &[f32; 32], c: &[f32; 32]) -> [f32; 32] {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has both, which the line above asked.
            return unsafe { with_fma(a, b, c) };
        }
    }
    std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
}

/// Computes `a · b + c` of each lane, rounded once.
pub(super) fn doubles(a: &[f64; 32], b: &[f64; 32], c: &[f64; 32]) -> [f64; 32] {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn with_fma(a: &[f64; 32], b: &[f64; 32], c: &[f64; 32]) -> [f64; 32] {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has both, which the line above asked.
            return unsafe { with_fma(a, b, c) };
        }
    }
    std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
}
