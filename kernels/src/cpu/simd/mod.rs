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
mod lanes;
pub mod vector;

pub use lanes::{Float, Lanes, MAX_LANES, Simd, Vectorized, Widened};

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
