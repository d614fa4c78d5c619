//! Halves in vectors of singles: widened as they are read, rounded as they are written.
//!
//! A bf16 is the upper half of a single, so it is widened by a shift. f16 has instructions in F16C and AVX-512; elsewhere
//! it is converted in software. Both are rounded to the nearest, ties to even, to the same bits in every instruction set.
#![expect(unsafe_code, reason = "intrinsics, and loads and stores through pointers")]

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use super::generic::Numbers;
use super::{Float, Lanes, MAX_LANES, Simd, Widened};
use crate::ir::dtype::{Element, bf16, f16};

/// Numbers as they lie in memory that are computed with as `T`: numbers of `T` itself, or halves.
pub trait Stored<T: Float>: Element {
    /// Whether they are halves.
    const IS_HALF: bool;

    /// Gives one number as it is computed with.
    fn widen(self) -> T;

    /// Reads a vector.
    ///
    /// # Safety
    ///
    /// `from` points to as many readable numbers as the vector has lanes; any alignment will do.
    unsafe fn load<S: Simd>(from: *const Self) -> T::Lanes<S>;

    /// Reads the first `n` lanes, no more than there are; the others are zero.
    ///
    /// # Safety
    ///
    /// `from` points to `n` readable numbers.
    unsafe fn load_first<S: Simd>(from: *const Self, n: usize) -> T::Lanes<S>;

    /// Rounds a vector and writes it.
    ///
    /// # Safety
    ///
    /// `to` points to as many writable numbers as the vector has lanes; any alignment will do.
    unsafe fn store<S: Simd>(x: T::Lanes<S>, to: *mut Self);

    /// Rounds the first `n` lanes, no more than there are, and writes them.
    ///
    /// # Safety
    ///
    /// `to` points to `n` writable numbers.
    unsafe fn store_first<S: Simd>(x: T::Lanes<S>, to: *mut Self, n: usize);

    /// Rounds a vector to numbers that can be stored.
    fn round<S: Simd>(x: T::Lanes<S>) -> T::Lanes<S>;
}

impl<T: Float> Stored<T> for T {
    const IS_HALF: bool = false;

    #[inline(always)]
    fn widen(self) -> T {
        self
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const T) -> T::Lanes<S> {
        // SAFETY: as the caller promises.
        unsafe { T::Lanes::<S>::load(from) }
    }

    #[inline(always)]
    unsafe fn load_first<S: Simd>(from: *const T, n: usize) -> T::Lanes<S> {
        // SAFETY: as the caller promises.
        unsafe { T::Lanes::<S>::load_first(from, n) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd>(x: T::Lanes<S>, to: *mut T) {
        // SAFETY: as the caller promises.
        unsafe { x.store(to) }
    }

    #[inline(always)]
    unsafe fn store_first<S: Simd>(x: T::Lanes<S>, to: *mut T, n: usize) {
        // SAFETY: as the caller promises.
        unsafe { x.store_first(to, n) }
    }

    #[inline(always)]
    fn round<S: Simd>(x: T::Lanes<S>) -> T::Lanes<S> {
        x
    }
}

macro_rules! stored {
    ($half:ty, $load:ident, $store:ident, $round:ident) => {
        impl Stored<f32> for $half {
            const IS_HALF: bool = true;

            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }

            #[inline(always)]
            unsafe fn load<S: Simd>(from: *const Self) -> S::F32 {
                // SAFETY: as the caller promises.
                unsafe { S::F32::$load(from) }
            }

            #[inline(always)]
            unsafe fn load_first<S: Simd>(from: *const Self, n: usize) -> S::F32 {
                if n == S::F32::N {
                    // SAFETY: as the caller promises.
                    return unsafe { Self::load::<S>(from) };
                }
                let mut lanes = [<$half>::ZERO; MAX_LANES];
                // SAFETY: the caller promises `n` readable numbers, no more than lanes; and no vector has more lanes
                // than are read then.
                unsafe {
                    core::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), n);
                    S::F32::$load(lanes.as_ptr())
                }
            }

            #[inline(always)]
            unsafe fn store<S: Simd>(x: S::F32, to: *mut Self) {
                // SAFETY: as the caller promises.
                unsafe { x.$store(to) }
            }

            #[inline(always)]
            unsafe fn store_first<S: Simd>(x: S::F32, to: *mut Self, n: usize) {
                let mut lanes = [<$half>::ZERO; MAX_LANES];
                // SAFETY: no vector has more lanes than are written first; the caller promises `n` writable numbers,
                // no more than lanes.
                unsafe {
                    x.$store(lanes.as_mut_ptr());
                    core::ptr::copy_nonoverlapping(lanes.as_ptr(), to, n);
                }
            }

            #[inline(always)]
            fn round<S: Simd>(x: S::F32) -> S::F32 {
                x.$round()
            }
        }
    };
}

stored!(bf16, load_bf16, store_bf16, round_bf16);
stored!(f16, load_f16, store_f16, round_f16);

/// Gives the halves in `from` as singles.
///
/// # Panics
///
/// If the slices differ in length.
#[inline(always)]
pub fn widen<H: Stored<f32>, S: Simd>(from: &[H], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "as many numbers as there are halves");
    let lanes = S::F32::N;
    let whole = from.len() - from.len() % lanes;
    for at in (0..whole).step_by(lanes) {
        // SAFETY: both slices have whole vectors up to here.
        unsafe { H::load::<S>(from.as_ptr().add(at)).store(to.as_mut_ptr().add(at)) };
    }
    let rest = from.len() - whole;
    if rest > 0 {
        // SAFETY: both slices have `rest` more numbers, fewer than lanes.
        unsafe {
            let x = H::load_first::<S>(from.as_ptr().add(whole), rest);
            x.store_first(to.as_mut_ptr().add(whole), rest);
        }
    }
}

/// Rounds the singles in `from` to halves.
///
/// # Panics
///
/// If the slices differ in length.
#[inline(always)]
pub fn narrow<H: Stored<f32>, S: Simd>(from: &[f32], to: &mut [H]) {
    assert_eq!(from.len(), to.len(), "as many halves as there are numbers");
    let lanes = S::F32::N;
    let whole = from.len() - from.len() % lanes;
    for at in (0..whole).step_by(lanes) {
        // SAFETY: both slices have whole vectors up to here.
        unsafe { H::store::<S>(S::F32::load(from.as_ptr().add(at)), to.as_mut_ptr().add(at)) };
    }
    let rest = from.len() - whole;
    if rest > 0 {
        // SAFETY: both slices have `rest` more numbers, fewer than lanes.
        unsafe {
            let x = S::F32::load_first(from.as_ptr().add(whole), rest);
            H::store_first::<S>(x, to.as_mut_ptr().add(whole), rest);
        }
    }
}

/// Rounds singles to numbers of `H` in place; then, if `relu`, puts 0 in place of those below it, as the op `relu` does.
#[inline(always)]
pub fn round_in_place<H: Stored<f32>, S: Simd>(x: &mut [f32], relu: bool) {
    let (lanes, numel) = (S::F32::N, x.len());
    let whole = numel - numel % lanes;
    for at in (0..whole).step_by(lanes) {
        let here = x.as_mut_ptr().wrapping_add(at);
        // SAFETY: the slice has whole vectors up to here.
        unsafe { rounded::<H, S>(S::F32::load(here), relu).store(here) };
    }
    let rest = numel - whole;
    if rest > 0 {
        let here = x.as_mut_ptr().wrapping_add(whole);
        // SAFETY: the slice has `rest` more numbers, fewer than lanes.
        unsafe { rounded::<H, S>(S::F32::load_first(here, rest), relu).store_first(here, rest) };
    }
}

/// Rounds a vector, and applies a ReLU to it if `relu`.
#[inline(always)]
fn rounded<H: Stored<f32>, S: Simd>(x: S::F32, relu: bool) -> S::F32 {
    let x = H::round::<S>(x);
    if relu { S::F32::splat(0.0).max(x) } else { x }
}

impl<const N: usize> Widened for Numbers<f32, N> {
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller promises `N` readable numbers.
        Numbers(unsafe { from.cast::<[bf16; N]>().read_unaligned() }.map(bf16::to_f32))
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16) {
        // SAFETY: the caller promises `N` writable numbers.
        unsafe { to.cast::<[bf16; N]>().write_unaligned(self.0.map(bf16::from_f32)) }
    }

    #[inline(always)]
    fn round_bf16(self) -> Self {
        Numbers(self.0.map(|x| bf16::from_f32(x).to_f32()))
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: the caller promises `N` readable numbers.
        Numbers(unsafe { from.cast::<[f16; N]>().read_unaligned() }.map(f16::to_f32))
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16) {
        // SAFETY: the caller promises `N` writable numbers.
        unsafe { to.cast::<[f16; N]>().write_unaligned(self.0.map(f16::from_f32)) }
    }

    #[inline(always)]
    fn round_f16(self) -> Self {
        Numbers(self.0.map(|x| f16::from_f32(x).to_f32()))
    }
}

// SAFETY (all blocks below): the intrinsics are reached only through `Instance` in `avx2.rs` and `avx512.rs`, after the
// machine was asked for AVX2 and F16C or for AVX-512; addresses are those that the caller promises.

#[cfg(target_arch = "x86_64")]
impl Widened for __m256 {
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: see above.
        unsafe {
            let upper = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(upper))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16) {
        // SAFETY: see above.
        unsafe {
            let upper = _mm256_srli_epi32::<16>(bf16_bits_256(self));
            let (low, high) = (_mm256_castsi256_si128(upper), _mm256_extracti128_si256::<1>(upper));
            _mm_storeu_si128(to.cast(), _mm_packus_epi32(low, high));
        }
    }

    #[inline(always)]
    fn round_bf16(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            _mm256_castsi256_ps(_mm256_and_si256(bf16_bits_256(self), upper))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: see above.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16) {
        // SAFETY: see above.
        unsafe {
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self));
        }
    }

    #[inline(always)]
    fn round_f16(self) -> Self {
        // SAFETY: see above.
        unsafe { _mm256_cvtph_ps(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self)) }
    }
}

/// Rounds singles to bf16 in the upper half of each lane; what is in the lower is of no use.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn bf16_bits_256(x: __m256) -> __m256i {
    // SAFETY: see above.
    unsafe {
        let bits = _mm256_castps_si256(x);
        // A half of the last place less a little, and that little more where the last place is odd.
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
        let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
        _mm256_blendv_epi8(rounded, quiet, is_nan)
    }
}

#[cfg(target_arch = "x86_64")]
impl Widened for __m512 {
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: see above.
        unsafe {
            let upper = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(upper))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16) {
        // SAFETY: see above.
        unsafe {
            let upper = _mm512_srli_epi32::<16>(bf16_bits_512(self));
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(upper));
        }
    }

    #[inline(always)]
    fn round_bf16(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            _mm512_castsi512_ps(_mm512_and_si512(bf16_bits_512(self), upper))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_si256(to.cast(), f16_bits_512(self)) }
    }

    #[inline(always)]
    fn round_f16(self) -> Self {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(f16_bits_512(self)) }
    }
}

/// As [`bf16_bits_256`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn bf16_bits_512(x: __m512) -> __m512i {
    // SAFETY: see above.
    unsafe {
        let bits = _mm512_castps_si512(x);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
        let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
        _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(0x0040_0000))
    }
}

/// Rounds singles to f16.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn f16_bits_512(x: __m512) -> __m256i {
    // SAFETY: see above.
    unsafe { _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
}

#[cfg(test)]
mod tests {
    use core::marker::PhantomData;

    use super::*;
    use crate::cpu::simd::{Vectorized, dispatch_to_all};

    /// Bits of singles that lie close to and halfway between halves of all magnitudes, and some of every kind.
    fn singles() -> Vec<f32> {
        let near = |half: u32, step: u32, least: u32| {
            let bits = half * step;
            let close = [0, 1, step / 2 - 1, step / 2, step / 2 + 1, step - 1];
            close.map(|more| f32::from_bits(bits.wrapping_add(least).wrapping_add(more)))
        };
        let of_bf16 = (0..1 << 16).step_by(7).flat_map(|half| near(half, 1 << 16, 0));
        // From below the smallest subnormal number of f16 to above the greatest number, of either sign.
        let of_f16 = (0..46 << 10).step_by(5).flat_map(|half| {
            let [a, b] = [100_u32 << 23, 0x8000_0000 + (100 << 23)];
            near(half, 1 << 13, a).into_iter().chain(near(half, 1 << 13, b))
        });
        of_bf16.chain(of_f16).collect()
    }

    /// Rounds to `H` and back in two ways, and gives the halves too.
    #[derive(Clone)]
    struct Convert<H>(Vec<f32>, PhantomData<H>);

    impl<H: Stored<f32>> Vectorized for Convert<H> {
        type Output = [Vec<u64>; 3];

        #[inline(always)]
        fn run<S: Simd>(self) -> [Vec<u64>; 3] {
            let mut halves = vec![<H as bytemuck::Zeroable>::zeroed(); self.0.len()];
            narrow::<H, S>(&self.0, &mut halves);
            let mut wide = vec![0.0; self.0.len()];
            widen::<H, S>(&halves, &mut wide);
            let mut rounded = self.0;
            round_in_place::<H, S>(&mut rounded, false);
            let of_halves = bytemuck::cast_slice::<H, u16>(&halves).iter();
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits().into()).collect();
            [of_halves.map(|&bits| bits.into()).collect(), bits(&wide), bits(&rounded)]
        }
    }

    fn check<H: Stored<f32>>(bits_of: fn(f32) -> u16, widened: fn(u16) -> f32) {
        let all = singles();
        let halves: Vec<_> = all.iter().map(|&x| bits_of(x)).collect();
        for lengths in [all.len(), 1, 7, 13, 31] {
            let (all, halves) = (&all[..lengths], &halves[..lengths]);
            for (set, [narrow, wide, rounded]) in
                dispatch_to_all(&Convert::<H>(all.to_vec(), PhantomData))
            {
                for (i, &x) in all.iter().enumerate() {
                    let expected = u64::from(widened(halves[i]).to_bits());
                    let found = [narrow[i], wide[i], rounded[i]];
                    if x.is_nan() {
                        let is_nan = |bits: u64| f32::from_bits(bits as u32).is_nan();
                        assert!(widened(narrow[i] as u16).is_nan(), "{set}: {x}");
                        assert!(is_nan(wide[i]) && is_nan(rounded[i]), "{set}: {x}");
                        continue;
                    }
                    assert_eq!(found, [halves[i].into(), expected, expected], "{set}: {x}");
                }
            }
        }
    }

    #[test]
    fn halves_are_converted_to_the_same_bits_in_every_instruction_set() {
        // What the crate `half` computes without instructions for it.
        check::<bf16>(|x| bf16::from_f32(x).to_bits(), |bits| bf16::from_bits(bits).to_f32());
        check::<f16>(
            |x| f16::from_f32_const(x).to_bits(),
            |bits| f16::from_bits(bits).to_f32_const(),
        );
    }
}
