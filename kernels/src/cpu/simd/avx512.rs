//! AVX-512 (F, DQ, BW, VL): 16 singles or 8 doubles a vector.
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
pub(super) struct Avx512;

impl Simd for Avx512 {
    type F32 = __m512;
    type F64 = __m512d;
    const GEMM_ROWS: usize = 8;
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
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
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
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl")]
    unsafe fn run_here(self) -> Self::Output {
        self.run::<Avx512>()
    }
}

impl<V: Vectorized> Instance for V {}

/// Calls `f` out of line.
///
/// # Safety
///
/// [`is_available`] says so.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512dq,avx512bw,avx512vl")]
#[inline(never)]
unsafe fn call<T: Float, F: Function>(f: F, x: T::Lanes<Avx512>) -> T::Lanes<Avx512> {
    f.of(Vector::<T, Avx512>(x)).0
}

impl Lanes<f32> for __m512 {
    const N: usize = 16;
    type Mask = __mmask16;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        unsafe { _mm512_maskz_loadu_ps(((1_u32 << n) - 1) as __mmask16, from) }
    }

    #[inline(always)]
    unsafe fn repeat(from: *const f32, n: usize) -> Self {
        unsafe {
            match n {
                8 => _mm512_broadcast_f32x8(_mm256_loadu_ps(from)),
                4 => _mm512_broadcast_f32x4(_mm_loadu_ps(from)),
                2 => _mm512_castpd_ps(_mm512_set1_pd(from.cast::<f64>().read_unaligned())),
                _ => _mm512_set1_ps(*from),
            }
        }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        unsafe { _mm512_mask_storeu_ps(to, ((1_u32 << n) - 1) as __mmask16, self) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        unsafe { _mm512_add_ps(self, b) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        unsafe { _mm512_sub_ps(self, b) }
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        unsafe { _mm512_mul_ps(self, b) }
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        unsafe { _mm512_div_ps(self, b) }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { _mm512_fmadd_ps(self, b, c) }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { _mm512_sqrt_ps(self) }
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        unsafe { _mm512_max_ps(self, b) }
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        unsafe { _mm512_min_ps(self, b) }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        unsafe { _mm512_abs_ps(self) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self) }
    }

    #[inline(always)]
    fn lt(self, b: Self) -> Self::Mask {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self, b) }
    }

    #[inline(always)]
    fn eq(self, b: Self) -> Self::Mask {
        unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self, b) }
    }

    #[inline(always)]
    fn select(mask: Self::Mask, then: Self, otherwise: Self) -> Self {
        unsafe { _mm512_mask_blend_ps(mask, otherwise, then) }
    }

    #[inline(always)]
    fn any(mask: Self::Mask) -> bool {
        mask != 0
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, n: Self) -> Self {
        unsafe { _mm512_scalef_ps(self, n) }
    }

    #[inline(always)]
    fn mantissa_exponent(self) -> (Self, Self) {
        unsafe {
            let mantissa = _mm512_getmant_ps::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_SRC>(self);
            (mantissa, _mm512_getexp_ps(self))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        unsafe {
            let lower = _mm512_castps512_ps256(self);
            Lanes::sum(_mm256_add_ps(lower, _mm512_extractf32x8_ps::<1>(self)))
        }
    }

    #[inline(always)]
    fn sums(vectors: &[Self; MAX_LANES]) -> Self {
        // Halves, quarters, eighths, then neighbors: each step adds two vectors' parts side by side.
        let v = vectors;
        let a = add_quarters(add_halves(v[0], v[4]), add_halves(v[8], v[12]));
        let b = add_quarters(add_halves(v[1], v[5]), add_halves(v[9], v[13]));
        let c = add_quarters(add_halves(v[2], v[6]), add_halves(v[10], v[14]));
        let d = add_quarters(add_halves(v[3], v[7]), add_halves(v[11], v[15]));
        add_neighbors(add_eighths(a, b), add_eighths(c, d))
    }

    #[inline(always)]
    fn group_sums(v: &[Self; MAX_LANES], width: usize) -> Self {
        match width {
            8 => {
                let [a, b] = [add_quarters(v[0], v[1]), add_quarters(v[2], v[3])];
                let [c, d] = [add_quarters(v[4], v[5]), add_quarters(v[6], v[7])];
                add_fours(a, b, c, d)
            }
            4 => add_fours(v[0], v[1], v[2], v[3]),
            2 => unsafe {
                // Each quarter has two sums of `v[0]`, then two of `v[1]`.
                let pairs = _mm512_castps_pd(add_neighbors(v[0], v[1]));
                let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
                _mm512_castpd_ps(_mm512_permutexvar_pd(order, pairs))
            },
            _ => v[0],
        }
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        let mut lanes = [0.0; 16];
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
        if rows == 16 && columns.is_multiple_of(4) {
            for j in (0..columns).step_by(4) {
                let (from, to) = (from.wrapping_add(j), to.wrapping_add(j * to_stride));
                unsafe { strip_to_rows(from, from_stride, to, to_stride) };
            }
            return;
        }
        if rows == 4 && columns == 16 {
            return unsafe { rows_to_strip(from, from_stride, to, to_stride) };
        }
        // By quarters, each in the registers of AVX2.
        for i in (0..rows).step_by(8) {
            for j in (0..columns).step_by(8) {
                let (from, to) =
                    (from.wrapping_add(i * from_stride + j), to.wrapping_add(j * to_stride + i));
                let (rows, columns) = ((rows - i).min(8), (columns - j).min(8));
                unsafe { __m256::transpose(from, from_stride, to, to_stride, rows, columns) };
            }
        }
    }
}

/// Transposes 16 rows of 4 numbers. Reading four rows into one register leaves half of the shuffles that
/// 8 × 8 numbers take, and the machine does one of them at a time.
///
/// # Safety
///
/// These numbers can be read, and 4 rows of 16 written.
#[inline(always)]
unsafe fn strip_to_rows(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    unsafe {
        let row = |i: usize| _mm_loadu_ps(from.wrapping_add(i * from_stride));
        let every_fourth = |i: usize| {
            let x = _mm512_castps128_ps512(row(i));
            let x = _mm512_insertf32x4::<1>(x, row(i + 4));
            let x = _mm512_insertf32x4::<2>(x, row(i + 8));
            _mm512_insertf32x4::<3>(x, row(i + 12))
        };
        let x = [every_fourth(0), every_fourth(1), every_fourth(2), every_fourth(3)];
        for (j, row) in transposed_quarters(x).into_iter().enumerate() {
            row.store(to.wrapping_add(j * to_stride));
        }
    }
}

/// Transposes 4 rows of 16 numbers.
///
/// # Safety
///
/// These numbers can be read, and 16 rows of 4 written.
#[inline(always)]
unsafe fn rows_to_strip(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    unsafe {
        let row = |i: usize| <__m512 as Lanes<f32>>::load(from.wrapping_add(i * from_stride));
        let columns = transposed_quarters([row(0), row(1), row(2), row(3)]);
        for (j, x) in columns.into_iter().enumerate() {
            let to = |quarter: usize| to.wrapping_add((4 * quarter + j) * to_stride);
            _mm_storeu_ps(to(0), _mm512_extractf32x4_ps::<0>(x));
            _mm_storeu_ps(to(1), _mm512_extractf32x4_ps::<1>(x));
            _mm_storeu_ps(to(2), _mm512_extractf32x4_ps::<2>(x));
            _mm_storeu_ps(to(3), _mm512_extractf32x4_ps::<3>(x));
        }
    }
}

/// Transposes, in each quarter, the 4 × 4 numbers of four vectors.
#[inline(always)]
fn transposed_quarters([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
    unsafe {
        let ab = [
            _mm512_castps_pd(_mm512_unpacklo_ps(a, b)),
            _mm512_castps_pd(_mm512_unpackhi_ps(a, b)),
        ];
        let cd = [
            _mm512_castps_pd(_mm512_unpacklo_ps(c, d)),
            _mm512_castps_pd(_mm512_unpackhi_ps(c, d)),
        ];
        [
            _mm512_castpd_ps(_mm512_unpacklo_pd(ab[0], cd[0])),
            _mm512_castpd_ps(_mm512_unpackhi_pd(ab[0], cd[0])),
            _mm512_castpd_ps(_mm512_unpacklo_pd(ab[1], cd[1])),
            _mm512_castpd_ps(_mm512_unpackhi_pd(ab[1], cd[1])),
        ]
    }
}

impl Lanes<f64> for __m512d {
    const N: usize = 8;
    type Mask = __mmask8;

    #[inline(always)]
    fn splat(x: f64) -> Self {
        unsafe { _mm512_set1_pd(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f64) -> Self {
        unsafe { _mm512_loadu_pd(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f64) {
        unsafe { _mm512_storeu_pd(to, self) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f64, n: usize) -> Self {
        unsafe { _mm512_maskz_loadu_pd(((1_u32 << n) - 1) as __mmask8, from) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f64, n: usize) {
        unsafe { _mm512_mask_storeu_pd(to, ((1_u32 << n) - 1) as __mmask8, self) }
    }

    #[inline(always)]
    fn add(self, b: Self) -> Self {
        unsafe { _mm512_add_pd(self, b) }
    }

    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        unsafe { _mm512_sub_pd(self, b) }
    }

    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        unsafe { _mm512_mul_pd(self, b) }
    }

    #[inline(always)]
    fn div(self, b: Self) -> Self {
        unsafe { _mm512_div_pd(self, b) }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { _mm512_fmadd_pd(self, b, c) }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        unsafe { _mm512_sqrt_pd(self) }
    }

    #[inline(always)]
    fn max(self, b: Self) -> Self {
        unsafe { _mm512_max_pd(self, b) }
    }

    #[inline(always)]
    fn min(self, b: Self) -> Self {
        unsafe { _mm512_min_pd(self, b) }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        unsafe { _mm512_abs_pd(self) }
    }

    #[inline(always)]
    fn round(self) -> Self {
        unsafe { _mm512_roundscale_pd::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self) }
    }

    #[inline(always)]
    fn lt(self, b: Self) -> Self::Mask {
        unsafe { _mm512_cmp_pd_mask::<_CMP_LT_OQ>(self, b) }
    }

    #[inline(always)]
    fn eq(self, b: Self) -> Self::Mask {
        unsafe { _mm512_cmp_pd_mask::<_CMP_EQ_OQ>(self, b) }
    }

    #[inline(always)]
    fn select(mask: Self::Mask, then: Self, otherwise: Self) -> Self {
        unsafe { _mm512_mask_blend_pd(mask, otherwise, then) }
    }

    #[inline(always)]
    fn any(mask: Self::Mask) -> bool {
        mask != 0
    }

    #[inline(always)]
    fn scale_by_power_of_two(self, n: Self) -> Self {
        unsafe { _mm512_scalef_pd(self, n) }
    }

    #[inline(always)]
    fn mantissa_exponent(self) -> (Self, Self) {
        unsafe {
            let mantissa = _mm512_getmant_pd::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_SRC>(self);
            (mantissa, _mm512_getexp_pd(self))
        }
    }

    #[inline(always)]
    fn sum(self) -> f64 {
        unsafe {
            let lower = _mm512_castpd512_pd256(self);
            Lanes::sum(_mm256_add_pd(lower, _mm512_extractf64x4_pd::<1>(self)))
        }
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        let mut lanes = [0.0; 8];
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
        // By quarters, each in the registers of AVX2.
        for i in (0..rows).step_by(4) {
            for j in (0..columns).step_by(4) {
                let (from, to) =
                    (from.wrapping_add(i * from_stride + j), to.wrapping_add(j * to_stride + i));
                let (rows, columns) = ((rows - i).min(4), (columns - j).min(4));
                unsafe { __m256d::transpose(from, from_stride, to, to_stride, rows, columns) };
            }
        }
    }
}

/// Adds the lower half of each vector to the upper: `[a, b]`.
#[inline(always)]
fn add_halves(a: __m512, b: __m512) -> __m512 {
    unsafe { _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xEE>(a, b)) }
}

/// Adds up groups of four lanes, in the order in which they lie in the four vectors.
#[inline(always)]
fn add_fours(a: __m512, b: __m512, c: __m512, d: __m512) -> __m512 {
    // Each quarter has one sum of each vector.
    let sums = add_neighbors(add_eighths(a, b), add_eighths(c, d));
    unsafe {
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_ps(order, sums)
    }
}

/// Adds neighboring quarters: `[a, a, b, b]` gives a quarter for each of four vectors.
#[inline(always)]
fn add_quarters(a: __m512, b: __m512) -> __m512 {
    unsafe { _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xDD>(a, b)) }
}

/// Adds pairs of lanes of each quarter to the pairs beside them.
#[inline(always)]
fn add_eighths(a: __m512, b: __m512) -> __m512 {
    unsafe { _mm512_add_ps(_mm512_shuffle_ps::<0x44>(a, b), _mm512_shuffle_ps::<0xEE>(a, b)) }
}

/// Adds each lane to its neighbor.
#[inline(always)]
fn add_neighbors(a: __m512, b: __m512) -> __m512 {
    unsafe { _mm512_add_ps(_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xDD>(a, b)) }
}
