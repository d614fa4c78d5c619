//! AVX2 with FMA and F16C: 8 singles or 4 doubles a vector.
//!
//! Every method is one instruction or a few; all are compiled inside [`Instance`], which enables them.
#![expect(unsafe_code, reason = "intrinsics, in functions that the machine was asked about")]
#![expect(
    clippy::undocumented_unsafe_blocks,
    reason = "one argument holds for all: see `Instance`"
)]

use core::arch::x86_64::*;

use super::vector::Vector;
use super::{Float, Lanes, MAX_LANES, Simd, Vectorized};
use crate::arithmetic::Function;

/// The instruction set. Its vectors are used only inside [`Instance`].
#[derive(Clone, Copy)]
pub(super) struct Avx2;

impl Simd for Avx2 {
    type F32 = __m256;
    type F64 = __m256d;
    const GEMM_ROWS: usize = 6;
    const INLINES_FUNCTIONS: bool = true;

    #[inline(always)]
    fn call<T: Float, F: Function>(f: F, x: T::Lanes<Self>) -> T::Lanes<Self> {
        unsafe { call::<T, F>(f, x) }
    }
}

/// Says whether the machine has the instructions.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// A kernel compiled for this instruction set.
///
/// All intrinsics below are reached only through here: the token type is private to [`super`], which names it nowhere
/// else. The methods are those of a trait, not functions of this module, because rustc compiles a method beside the type
/// that it belongs to: so kernels are spread over the compiler's threads.
pub(super) trait Instance: Vectorized {
    /// Runs the kernel with the instructions enabled.
    ///
    /// # Safety
    ///
    /// [`is_available`] says so.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn run_here(self) -> Self::Output {
        self.run::<Avx2>()
    }
}

impl<V: Vectorized> Instance for V {}

/// Calls `f` out of line.
///
/// # Safety
///
/// [`is_available`] says so.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline(never)]
unsafe fn call<T: Float, F: Function>(f: F, x: T::Lanes<Avx2>) -> T::Lanes<Avx2> {
    f.of(Vector::<T, Avx2>(x)).0
}

impl Lanes<f32> for __m256 {
    const N: usize = 8;
    type Mask = __m256;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        unsafe { _mm256_maskload_ps(from, first_ps(n)) }
    }

    #[inline(always)]
    unsafe fn repeat(from: *const f32, n: usize) -> Self {
        unsafe {
            match n {
                4 => _mm256_broadcast_ps(&from.cast::<__m128>().read_unaligned()),
                2 => _mm256_castpd_ps(_mm256_set1_pd(from.cast::<f64>().read_unaligned())),
                _ => _mm256_set1_ps(*from),
            }
        }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        unsafe { _mm256_maskstore_ps(to, first_ps(n), self) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        unsafe { _mm256_add_ps(self, b) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        unsafe { _mm256_sub_ps(self, b) }
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        unsafe { _mm256_mul_ps(self, b) }
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        unsafe { _mm256_div_ps(self, b) }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { _mm256_fmadd_ps(self, b, c) }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { _mm256_sqrt_ps(self) }
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        unsafe { _mm256_max_ps(self, b) }
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        unsafe { _mm256_min_ps(self, b) }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self) }
    }

    #[inline(always)]
    fn lt(self, b: Self) -> Self::Mask {
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(self, b) }
    }

    #[inline(always)]
    fn eq(self, b: Self) -> Self::Mask {
        unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(self, b) }
    }

    #[inline(always)]
    fn select(mask: Self::Mask, then: Self, otherwise: Self) -> Self {
        unsafe { _mm256_blendv_ps(otherwise, then, mask) }
    }

    #[inline(always)]
    fn zero_where(mask: Self::Mask, x: Self) -> Self {
        unsafe { _mm256_andnot_ps(mask, x) }
    }

    #[inline(always)]
    fn any(mask: Self::Mask) -> bool {
        unsafe { _mm256_movemask_ps(mask) != 0 }
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, n: Self) -> Self {
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(self, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
        }
    }

    #[inline(always)]
    fn mantissa_exponent(self) -> (Self, Self) {
        unsafe {
            let bits = _mm256_castps_si256(self);
            let fraction = _mm256_and_si256(bits, _mm256_set1_epi32(0x007f_ffff));
            let mantissa = _mm256_or_si256(fraction, _mm256_set1_epi32(127 << 23));
            let exponent = _mm256_sub_epi32(_mm256_srli_epi32::<23>(bits), _mm256_set1_epi32(127));
            (_mm256_castsi256_ps(mantissa), _mm256_cvtepi32_ps(exponent))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    fn sums(vectors: &[Self; MAX_LANES]) -> Self {
        // Halves, then quarters, then neighbors: each step adds two vectors' parts side by side.
        let [v0, v1, v2, v3, v4, v5, v6, v7, ..] = *vectors;
        let (a, b) = (add_halves(v0, v4), add_halves(v1, v5));
        let (c, d) = (add_halves(v2, v6), add_halves(v3, v7));
        add_neighbors(add_quarters(a, b), add_quarters(c, d))
    }

    #[inline(always)]
    fn group_sums(v: &[Self; MAX_LANES], width: usize) -> Self {
        unsafe {
            match width {
                4 => {
                    // Each half has one sum of each vector.
                    let sums = add_neighbors(add_quarters(v[0], v[1]), add_quarters(v[2], v[3]));
                    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
                    _mm256_permutevar8x32_ps(sums, order)
                }
                2 => {
                    // Each half has two sums of `v[0]`, then two of `v[1]`.
                    let pairs = _mm256_castps_pd(add_neighbors(v[0], v[1]));
                    _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(pairs))
                }
                _ => v[0],
            }
        }
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        let mut lanes = [0.0; 8];
        unsafe {
            self.store(lanes.as_mut_ptr());
            Self::load(lanes.map(f).as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn transpose(
        from: *const f32,
        from_stride: usize,
        to: *mut f32,
        to_stride: usize,
        rows: usize,
        columns: usize,
    ) {
        if rows == 8 && columns == 8 {
            let mut x = [Self::splat(0.0); 8];
            for (i, x) in x.iter_mut().enumerate() {
                *x = unsafe { Self::load(from.add(i * from_stride)) };
            }
            for (j, y) in transposed_ps(x).into_iter().enumerate() {
                unsafe { y.store(to.add(j * to_stride)) };
            }
        } else if rows == 8 && columns == 4 {
            // Rows `i` and `i + 4` are the halves of a vector, so that no number changes halves.
            let mut x = [Self::splat(0.0); 4];
            for (i, x) in x.iter_mut().enumerate() {
                *x = unsafe {
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(from.add(i * from_stride)));
                    let high = _mm_loadu_ps(from.add((i + 4) * from_stride));
                    _mm256_insertf128_ps::<1>(low, high)
                };
            }
            for (j, y) in transposed_in_halves(x).into_iter().enumerate() {
                unsafe { y.store(to.add(j * to_stride)) };
            }
        } else if rows == 4 && columns == 8 {
            let mut x = [Self::splat(0.0); 4];
            for (i, x) in x.iter_mut().enumerate() {
                *x = unsafe { Self::load(from.add(i * from_stride)) };
            }
            for (j, y) in transposed_in_halves(x).into_iter().enumerate() {
                unsafe {
                    _mm_storeu_ps(to.add(j * to_stride), _mm256_castps256_ps128(y));
                    _mm_storeu_ps(to.add((j + 4) * to_stride), _mm256_extractf128_ps::<1>(y));
                }
            }
        } else {
            let mut x = [Self::splat(0.0); 8];
            for (i, x) in x.iter_mut().enumerate().take(rows) {
                *x = unsafe { Self::load_first(from.add(i * from_stride), columns) };
            }
            for (j, y) in transposed_ps(x).into_iter().enumerate().take(columns) {
                unsafe { y.store_first(to.add(j * to_stride), rows) };
            }
        }
    }
}

impl Lanes<f64> for __m256d {
    const N: usize = 4;
    type Mask = __m256d;

    #[inline(always)]
    fn splat(x: f64) -> Self {
        unsafe { _mm256_set1_pd(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f64) -> Self {
        unsafe { _mm256_loadu_pd(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        unsafe { _mm256_storeu_pd(to, self) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f64, n: usize) -> Self {
        unsafe { _mm256_maskload_pd(from, first_pd(n)) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f64, n: usize) {
        unsafe { _mm256_maskstore_pd(to, first_pd(n), self) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        unsafe { _mm256_add_pd(self, b) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        unsafe { _mm256_sub_pd(self, b) }
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        unsafe { _mm256_mul_pd(self, b) }
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        unsafe { _mm256_div_pd(self, b) }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { _mm256_fmadd_pd(self, b, c) }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { _mm256_sqrt_pd(self) }
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        unsafe { _mm256_max_pd(self, b) }
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        unsafe { _mm256_min_pd(self, b) }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        unsafe { _mm256_andnot_pd(_mm256_set1_pd(-0.0), self) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        unsafe { _mm256_round_pd::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self) }
    }

    #[inline(always)]
    fn lt(self, b: Self) -> Self::Mask {
        unsafe { _mm256_cmp_pd::<_CMP_LT_OQ>(self, b) }
    }

    #[inline(always)]
    fn eq(self, b: Self) -> Self::Mask {
        unsafe { _mm256_cmp_pd::<_CMP_EQ_OQ>(self, b) }
    }

    #[inline(always)]
    fn select(mask: Self::Mask, then: Self, otherwise: Self) -> Self {
        unsafe { _mm256_blendv_pd(otherwise, then, mask) }
    }

    #[inline(always)]
    fn zero_where(mask: Self::Mask, x: Self) -> Self {
        unsafe { _mm256_andnot_pd(mask, x) }
    }

    #[inline(always)]
    fn any(mask: Self::Mask) -> bool {
        unsafe { _mm256_movemask_pd(mask) != 0 }
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, n: Self) -> Self {
        unsafe {
            // The lowest bits of a sum with 1.5 · 2⁵² are the whole number that was added.
            let biased = _mm256_castpd_si256(_mm256_add_pd(n, Self::splat(1.5 * TWO_52 + 1_023.0)));
            _mm256_mul_pd(self, _mm256_castsi256_pd(_mm256_slli_epi64::<52>(biased)))
        }
    }

    #[inline(always)]
    fn mantissa_exponent(self) -> (Self, Self) {
        unsafe {
            let bits = _mm256_castpd_si256(self);
            let fraction = _mm256_and_si256(bits, _mm256_set1_epi64x((1 << 52) - 1));
            let mantissa = _mm256_or_si256(fraction, _mm256_set1_epi64x(1_023 << 52));
            // The lowest bits of 2⁵² + n are n.
            let two_52 = _mm256_castpd_si256(Self::splat(TWO_52));
            let biased = _mm256_or_si256(_mm256_srli_epi64::<52>(bits), two_52);
            let exponent = _mm256_castsi256_pd(biased).sub(Self::splat(TWO_52 + 1_023.0));
            (_mm256_castsi256_pd(mantissa), exponent)
        }
    }

    #[inline(always)]
    fn sum(self) -> f64 {
        unsafe {
            let two = _mm_add_pd(_mm256_castpd256_pd128(self), _mm256_extractf128_pd::<1>(self));
            _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
        }
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        let mut lanes = [0.0; 4];
        unsafe {
            self.store(lanes.as_mut_ptr());
            Self::load(lanes.map(f).as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn transpose(
        from: *const f64,
        from_stride: usize,
        to: *mut f64,
        to_stride: usize,
        rows: usize,
        columns: usize,
    ) {
        if rows == 4 && columns == 4 {
            let mut x = [Self::splat(0.0); 4];
            for (i, x) in x.iter_mut().enumerate() {
                *x = unsafe { Self::load(from.add(i * from_stride)) };
            }
            for (j, y) in transposed_pd(x).into_iter().enumerate() {
                unsafe { y.store(to.add(j * to_stride)) };
            }
        } else {
            let mut x = [Self::splat(0.0); 4];
            for (i, x) in x.iter_mut().enumerate().take(rows) {
                *x = unsafe { Self::load_first(from.add(i * from_stride), columns) };
            }
            for (j, y) in transposed_pd(x).into_iter().enumerate().take(columns) {
                unsafe { y.store_first(to.add(j * to_stride), rows) };
            }
        }
    }
}

/// 2⁵²: doubles from here to 2⁵³ are the whole numbers.
const TWO_52: f64 = 4_503_599_627_370_496.0;

/// All bits set in the first `n` lanes.
#[inline(always)]
unsafe fn first_ps(n: usize) -> __m256i {
    const BITS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: `n ≤ 8`, so 8 elements from `8 - n` on are within 16.
    unsafe { _mm256_loadu_si256(BITS.as_ptr().add(8 - n).cast()) }
}

/// All bits set in the first `n` lanes.
#[inline(always)]
unsafe fn first_pd(n: usize) -> __m256i {
    const BITS: [i64; 8] = [-1, -1, -1, -1, 0, 0, 0, 0];
    // SAFETY: `n ≤ 4`, so 4 elements from `4 - n` on are within 8.
    unsafe { _mm256_loadu_si256(BITS.as_ptr().add(4 - n).cast()) }
}

/// Transposes 8 × 8 numbers: pairs, fours, halves.
#[inline(always)]
fn transposed_ps(x: [__m256; 8]) -> [__m256; 8] {
    unsafe {
        let [a, b, c, d, e, f, g, h] = x;
        let upper = transposed_in_halves([a, b, c, d]);
        let lower = transposed_in_halves([e, f, g, h]);
        core::array::from_fn(|j| match j < 4 {
            true => _mm256_permute2f128_ps::<0x20>(upper[j], lower[j]),
            false => _mm256_permute2f128_ps::<0x31>(upper[j - 4], lower[j - 4]),
        })
    }
}

/// Transposes 4 × 4 numbers in each half: pairs, fours.
#[inline(always)]
fn transposed_in_halves([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
    unsafe {
        let (ab, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        [
            _mm256_shuffle_ps::<0x44>(ab, cd),
            _mm256_shuffle_ps::<0xee>(ab, cd),
            _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
            _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
        ]
    }
}

/// Transposes 4 × 4 numbers: pairs, halves.
#[inline(always)]
fn transposed_pd([a, b, c, d]: [__m256d; 4]) -> [__m256d; 4] {
    unsafe {
        let (ab, ab_high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
        let (cd, cd_high) = (_mm256_unpacklo_pd(c, d), _mm256_unpackhi_pd(c, d));
        [
            _mm256_permute2f128_pd::<0x20>(ab, cd),
            _mm256_permute2f128_pd::<0x20>(ab_high, cd_high),
            _mm256_permute2f128_pd::<0x31>(ab, cd),
            _mm256_permute2f128_pd::<0x31>(ab_high, cd_high),
        ]
    }
}

/// Adds the lower half of each vector to the upper: `[a, b]`.
#[inline(always)]
fn add_halves(a: __m256, b: __m256) -> __m256 {
    unsafe {
        _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
    }
}

/// Adds pairs of lanes of each half to the pairs beside them: `[a, b, a, b]`.
#[inline(always)]
fn add_quarters(a: __m256, b: __m256) -> __m256 {
    unsafe { _mm256_add_ps(_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xEE>(a, b)) }
}

/// Adds each lane to its neighbor.
#[inline(always)]
fn add_neighbors(a: __m256, b: __m256) -> __m256 {
    unsafe { _mm256_add_ps(_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xDD>(a, b)) }
}
