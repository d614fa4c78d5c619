//! Vectors: one trait, [`Lanes`], and one body a kernel, instantiated for each instruction set.
//!
//! A kernel is a [`Vectorized`] value; [`dispatch`] runs it with the widest instruction set that the
//! machine has. Bodies are `#[inline(always)]`, so that they are compiled inside the function that
//! enables the instructions.
//!
//! A lane's result is the same bits in every instruction set: each method is exactly rounded or moves bits, none is
//! an approximation of the hardware's. It does not depend on length and alignment either, because a tail runs
//! the same code on padded lanes. Only what NaN holds besides being NaN is left open.
#![expect(unsafe_code, reason = "a function with #[target_feature] is called after detection")]

use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod generic;
pub mod halves;
pub mod vector;

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

    /// Gives `f(x)` by a call of a function that is compiled once.
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

/// The instruction sets that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstructionSet {
    /// Plain Rust, on any machine.
    Generic,
    /// AVX2 with FMA and F16C: 8 singles a vector.
    Avx2,
    /// AVX-512 (F, DQ, BW, VL): 16 singles a vector.
    Avx512,
}

impl InstructionSet {
    /// Gives the sets that this machine has, the best one last.
    pub fn available() -> Vec<InstructionSet> {
        let mut sets = vec![InstructionSet::Generic];
        #[cfg(target_arch = "x86_64")]
        {
            sets.extend(avx2::is_available().then_some(InstructionSet::Avx2));
            sets.extend(avx512::is_available().then_some(InstructionSet::Avx512));
        }
        sets
    }

    /// Gives the set that kernels use: the best that the machine has, or the one that the environment
    /// variable `NEURARCH_SIMD` (`generic`, `avx2`, `avx512`) names, if the machine has it.
    pub fn current() -> InstructionSet {
        static CURRENT: OnceLock<InstructionSet> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            let available = InstructionSet::available();
            let wanted = match std::env::var("NEURARCH_SIMD").as_deref() {
                Ok("generic") => Some(InstructionSet::Generic),
                Ok("avx2") => Some(InstructionSet::Avx2),
                Ok("avx512") => Some(InstructionSet::Avx512),
                _ => None,
            };
            wanted
                .filter(|set| available.contains(set))
                .unwrap_or_else(|| available.last().copied().unwrap_or(InstructionSet::Generic))
        })
    }
}

/// Runs `kernel` with the [current](InstructionSet::current) instruction set.
#[inline]
pub fn dispatch<V: Vectorized>(kernel: V) -> V::Output {
    match InstructionSet::current() {
        // SAFETY: `current` gives a set that the machine has. It asks once: a small kernel is
        // done in the time that asking takes.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 => unsafe { avx512::Instance::run_here(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => unsafe { avx2::Instance::run_here(kernel) },
        _ => generic::Instance::run_here(kernel),
    }
}

/// Runs `kernel` with instruction set `set`, or with plain Rust where the machine lacks it.
#[inline]
pub fn dispatch_to<V: Vectorized>(set: InstructionSet, kernel: V) -> V::Output {
    match set {
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 if avx512::is_available() => {
            // SAFETY: the line above asked the machine.
            unsafe { avx512::Instance::run_here(kernel) }
        }
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 if avx2::is_available() => {
            // SAFETY: the line above asked the machine.
            unsafe { avx2::Instance::run_here(kernel) }
        }
        _ => generic::Instance::run_here(kernel),
    }
}

/// Runs `kernel` with every instruction set that the machine has, and in plain Rust with vectors of 4, 8 and 16
/// singles; gives each result with what it comes from.
#[cfg(test)]
pub(crate) fn dispatch_to_all<V: Vectorized + Clone>(kernel: &V) -> Vec<(String, V::Output)> {
    let available = InstructionSet::available().into_iter();
    let mut results: Vec<_> =
        available.map(|set| (format!("{set:?}"), dispatch_to(set, kernel.clone()))).collect();
    results.push(("8 lanes".to_owned(), kernel.clone().run::<generic::Portable<8, 4>>()));
    results.push(("16 lanes".to_owned(), kernel.clone().run::<generic::Portable<16, 8>>()));
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of all kinds.
    const SPECIAL: [f64; 24] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        3.3,
        -7.9,
        1e-40,
        -1e-40,
        1.401_298_464_324_817e-45,
        1.175_494_350_822_287_5e-38,
        3.402_823_466_385_288_6e38,
        -3.402_823_466_385_288_6e38,
        8_388_607.5,
        16_777_216.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        0.1,
        1e-3,
    ];

    /// How many results [`methods`] gives.
    const METHODS: usize = 14;

    /// All methods that give numbers, on all triples of [`SPECIAL`], one behind the other.
    #[derive(Clone)]
    struct Methods<T>(core::marker::PhantomData<T>);

    impl<T: Float> Vectorized for Methods<T> {
        type Output = Vec<f64>;

        #[inline(always)]
        fn run<S: Simd>(self) -> Vec<f64> {
            let numbers: Vec<T> = SPECIAL.iter().map(|&x| T::from_f64(x)).collect();
            let lanes = T::Lanes::<S>::N;
            let mut all = [const { Vec::new() }; METHODS];
            for (&a, &b) in numbers.iter().flat_map(|a| numbers.iter().map(move |b| (a, b))) {
                for c in numbers.chunks(lanes) {
                    let [a, b] = [a, b].map(T::Lanes::<S>::splat);
                    // SAFETY: so many numbers are there.
                    let vector = unsafe { T::Lanes::<S>::load_first(c.as_ptr(), c.len()) };
                    for (all, result) in all.iter_mut().zip(methods::<T, S>([a, b, vector])) {
                        let mut numbers = vec![T::default(); c.len()];
                        // SAFETY: as above.
                        unsafe { result.store_first(numbers.as_mut_ptr(), c.len()) };
                        all.extend(numbers.iter().map(|&x| x.into()));
                    }
                }
            }
            all.concat()
        }
    }

    #[inline(always)]
    fn methods<T: Float, S: Simd>([a, b, c]: [T::Lanes<S>; 3]) -> [T::Lanes<S>; METHODS] {
        let one = T::Lanes::<S>::splat(T::from_f64(1.0));
        let zero = T::Lanes::<S>::splat(T::default());
        let whole = b.round().max(zero.sub(one)).min(one);
        let truth = |mask| T::Lanes::<S>::select(mask, one, zero);
        // Positive normal numbers.
        let normal = c.abs().max(one);
        let normal =
            T::Lanes::<S>::select(normal.lt(T::Lanes::<S>::splat(T::from_f64(1e30))), normal, one);
        let (mantissa, exponent) = normal.mantissa_exponent();
        [
            a.add(c),
            a.sub(c),
            a.mul(c),
            a.div(c),
            a.mul_add(b, c),
            c.sqrt(),
            a.max(c),
            a.min(c),
            c.abs(),
            c.round(),
            truth(a.lt(c)),
            truth(a.eq(c)),
            c.scale_by_power_of_two(whole).add(mantissa),
            exponent,
        ]
    }

    fn check<T: Float>() {
        let mut results = dispatch_to_all(&Methods::<T>(core::marker::PhantomData));
        let (_, expected) = results.swap_remove(0);
        for (set, found) in results {
            assert!(crate::testing::same_bits(&found, &expected), "{set}");
        }
    }

    #[test]
    fn methods_have_the_same_bits_in_every_instruction_set() {
        check::<f32>();
        check::<f64>();
    }
}
