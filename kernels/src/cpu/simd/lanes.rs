//! [`Lanes`], a vector, and [`Simd`], an instruction set: what kernels are written over.
#![expect(unsafe_code, reason = "vectors are read and written through pointers")]

use crate::arithmetic::Function;
use crate::ir::dtype::{Element, bf16, f16};

/// A floating-point type that vectors hold.
pub trait Float:
    Element + Default + PartialOrd + core::ops::Add<Output = Self> + Into<f64> + 'static
{
    /// The vector of this type in instruction set `S`.
    type Lanes<S: Simd>: Lanes<Self>;

    /// Rounds from double precision.
    fn from_f64(x: f64) -> Self;
}

impl Float for f32 {
    type Lanes<S: Simd> = S::F32;

    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x as f32
    }
}

impl Float for f64 {
    type Lanes<S: Simd> = S::F64;

    #[inline(always)]
    fn from_f64(x: f64) -> Self {
        x
    }
}

/// An instruction set.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Vectors of single precision.
    type F32: Lanes<f32> + Widened;
    /// Vectors of double precision.
    type F64: Lanes<f64>;
    /// Rows of the register tile of a matrix product.
    const GEMM_ROWS: usize;
    /// Whether elementary functions of singles are compiled into the kernels that use them.
    const INLINES_FUNCTIONS: bool;

    /// Returns `f(x)` by a call of a function that is compiled once.
    fn call<T: Float, F: Function>(f: F, x: T::Lanes<Self>) -> T::Lanes<Self>;
}

/// No vector has more lanes.
pub const MAX_LANES: usize = 16;

/// A vector of `N` numbers. Comparisons give masks with which [`select`](Lanes::select) chooses.
pub trait Lanes<T>: Copy + Send + Sync + 'static {
    /// How many numbers it holds.
    const N: usize;
    /// One bit or lane for each number.
    type Mask: Copy;

    /// Puts `x` into all lanes.
    fn splat(x: T) -> Self;

    /// Reads `N` numbers.
    ///
    /// # Safety
    ///
    /// `from` points to `N` readable numbers; any alignment will do.
    unsafe fn load(from: *const T) -> Self;

    /// Writes `N` numbers.
    ///
    /// # Safety
    ///
    /// `to` points to `N` writable numbers; any alignment will do.
    unsafe fn store(self, to: *mut T);

    /// Reads the first `n` lanes, `n ≤ N`; the others are zero.
    ///
    /// # Safety
    ///
    /// `from` points to `n` readable numbers.
    unsafe fn load_first(from: *const T, n: usize) -> Self;

    /// Reads `n` numbers over and over; `n` is a power of two, and `n < N`.
    ///
    /// # Safety
    ///
    /// `from` points to `n` readable numbers.
    #[inline(always)]
    unsafe fn repeat(from: *const T, n: usize) -> Self
    where
        T: Default + Copy,
    {
        let mut lanes = [T::default(); MAX_LANES];
        for (i, lane) in lanes.iter_mut().enumerate() {
            // SAFETY: the caller promises `n` readable numbers.
            *lane = unsafe { from.add(i % n).read() };
        }
        // SAFETY: no vector has more lanes than that.
        unsafe { Self::load(lanes.as_ptr()) }
    }

    /// Writes the first `n` lanes, `n ≤ N`.
    ///
    /// # Safety
    ///
    /// `to` points to `n` writable numbers.
    unsafe fn store_first(self, to: *mut T, n: usize);

    /// `self + b`.
    fn add(self, b: Self) -> Self;
    /// `self - b`.
    fn sub(self, b: Self) -> Self;
    /// `self · b`.
    fn mul(self, b: Self) -> Self;
    /// `self / b`.
    fn div(self, b: Self) -> Self;
    /// `self · b + c`, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `√self`.
    fn sqrt(self) -> Self;
    /// The larger; `b` if either is NaN or both are zeros.
    fn max(self, b: Self) -> Self;
    /// The smaller; `b` if either is NaN or both are zeros.
    fn min(self, b: Self) -> Self;
    /// `|self|`.
    fn abs(self) -> Self;
    /// The nearest whole number, ties to even.
    fn round(self) -> Self;
    /// Where `self < b`.
    fn lt(self, b: Self) -> Self::Mask;
    /// Where `self == b`.
    fn eq(self, b: Self) -> Self::Mask;
    /// `then` where the mask is set, `otherwise` elsewhere.
    fn select(mask: Self::Mask, then: Self, otherwise: Self) -> Self;
    /// 0 where the mask is set, `x` elsewhere.
    #[inline(always)]
    fn zero_where(mask: Self::Mask, x: Self) -> Self
    where
        T: Default,
    {
        Self::select(mask, Self::splat(T::default()), x)
    }
    /// Says whether the mask is set in any lane.
    fn any(mask: Self::Mask) -> bool;
    /// `self · 2ⁿ` for whole numbers `n` for which `2ⁿ` is a normal number.
    fn scale_by_power_of_two(self, n: Self) -> Self;
    /// Splits positive normal numbers into mantissa in `[1, 2)` and exponent.
    fn mantissa_exponent(self) -> (Self, Self);
    /// Adds the lanes up by halves: lane `i` and lane `i + N/2`, then `i` and `i + N/4`, down to two.
    fn sum(self) -> T;
    /// Adds the lanes of `N` vectors up: lane `i` of the result is the sum of the lanes of `vectors[i]`. The
    /// order of the additions is that of [`sum`](Lanes::sum).
    #[inline(always)]
    fn sums(vectors: &[Self; MAX_LANES]) -> Self
    where
        T: Default + Copy,
    {
        let mut sums = [T::default(); MAX_LANES];
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            *sum = vector.sum();
        }
        // SAFETY: no vector has more lanes than that.
        unsafe { Self::load(sums.as_ptr()) }
    }
    /// Adds groups of `width` lanes up, where `width` is a power of two below `N`: lane `i` of the result is the sum
    /// of the `i`-th group, counted through the first `width` vectors one after another. The order of the
    /// additions is that of [`sum`](Lanes::sum).
    #[inline(always)]
    fn group_sums(vectors: &[Self; MAX_LANES], width: usize) -> Self
    where
        T: Default + Copy + core::ops::Add<Output = T>,
    {
        let mut sums = [T::default(); MAX_LANES];
        let in_vector = Self::N / width;
        for (i, vector) in vectors.iter().enumerate().take(width) {
            let mut lanes = [T::default(); MAX_LANES];
            // SAFETY: no vector has more lanes than that.
            unsafe { vector.store(lanes.as_mut_ptr()) };
            for (group, lanes) in lanes.chunks_exact_mut(width).enumerate().take(in_vector) {
                let mut half = width / 2;
                while half > 0 {
                    (0..half).for_each(|lane| lanes[lane] = lanes[lane] + lanes[lane + half]);
                    half /= 2;
                }
                sums[i * in_vector + group] = lanes[0];
            }
        }
        // SAFETY: no vector has more lanes than that.
        unsafe { Self::load(sums.as_ptr()) }
    }
    /// Applies a function to each lane.
    fn map(self, f: impl Fn(T) -> T) -> Self;

    /// Writes the transposed of a matrix of `rows ≤ N` rows and `columns ≤ N` columns: the number at
    /// `i · from_stride + j` goes to `j · to_stride + i`.
    ///
    /// # Safety
    ///
    /// All these numbers can be read from `from` and written to `to`.
    unsafe fn transpose(
        from: *const T,
        from_stride: usize,
        to: *mut T,
        to_stride: usize,
        rows: usize,
        columns: usize,
    );
}

/// Vectors of singles that halves are widened to.
pub trait Widened: Lanes<f32> {
    /// Reads `N` numbers of bf16.
    ///
    /// # Safety
    ///
    /// `from` points to `N` readable numbers; any alignment will do.
    unsafe fn load_bf16(from: *const bf16) -> Self;

    /// Rounds to bf16 and writes `N` numbers.
    ///
    /// # Safety
    ///
    /// `to` points to `N` writable numbers; any alignment will do.
    unsafe fn store_bf16(self, to: *mut bf16);

    /// Rounds to numbers of bf16, and gives them as singles.
    fn round_bf16(self) -> Self;

    /// Reads `N` numbers of f16.
    ///
    /// # Safety
    ///
    /// As for [`load_bf16`](Widened::load_bf16).
    unsafe fn load_f16(from: *const f16) -> Self;

    /// Rounds to f16 and writes `N` numbers.
    ///
    /// # Safety
    ///
    /// As for [`store_bf16`](Widened::store_bf16).
    unsafe fn store_f16(self, to: *mut f16);

    /// Rounds to numbers of f16, and gives them as singles.
    fn round_f16(self) -> Self;
}

/// A kernel body that can be compiled for any instruction set.
pub trait Vectorized: Sized {
    /// What it gives.
    type Output;

    /// Runs it. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self) -> Self::Output;
}
