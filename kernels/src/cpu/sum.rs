//! The order of sums: every sum of numbers and every dot product adds in it, so their bits follow from their
//! length alone.
//!
//! Term `i` of a sum belongs to block `i / 256` ([`BLOCK`]), and within it to partial sum `i mod 16` ([`PARTIALS`]).
//!
//! 1. Each partial sum begins with +0, and its terms are added to it in order. A dot product does that with fused
//!    multiply-adds, which round once; every other sum rounds its terms first.
//! 2. The partial sums of a block are added by halves: `p[j] += p[j + 8]` for `j` below 8, then `p[j] += p[j + 4]`
//!    for `j` below 4, `p[j] += p[j + 2]`, `p[0] += p[1]`.
//! 3. The sums of blocks are added pairwise, as a binary counter carries (`Pairs`): what two runs of 2ⁿ blocks give
//!    is added as soon as the second is complete, the earlier run on the left. In the end the runs that are left are
//!    added from the last, which is the shortest, to the first.
//! 4. A dot product gets +0 added, so that no sum of zeros is -0: other sums never are.
//!
//! Partial sums without terms may be left out: to add +0 changes nothing that step 4 does not change too. 16 partial
//! sums are one vector of AVX-512, two of AVX2, four of NEON, or half a warp; blocks and runs of blocks can be computed
//! in any order, by any thread. The error is that of 16 additions in a row, four by halves and one for each doubling.
#![expect(unsafe_code, reason = "partial sums without terms are left uninitialized")]

use core::mem::MaybeUninit;

use super::simd::vector::Vector;
use super::simd::{Float, Lanes, Simd};

/// Partial sums of a block.
pub const PARTIALS: usize = 16;

/// Terms of a block.
pub const BLOCK: usize = 256;

/// Levels of the binary counter: a sum has fewer blocks than 2⁴⁰.
const LEVELS: usize = 40;

/// What partial results can be joined: two numbers into one, two vectors lane by lane.
pub(crate) trait Join: Copy {
    /// Gives what changes nothing when it is joined.
    fn nothing() -> Self;

    /// Joins this result with that of later terms.
    fn join(self, later: Self) -> Self;
}

impl<T: Float> Join for T {
    #[inline(always)]
    fn nothing() -> Self {
        T::default()
    }

    #[inline(always)]
    fn join(self, later: Self) -> Self {
        self + later
    }
}

/// Numbers side by side.
impl<T: Float, const N: usize> Join for [T; N] {
    #[inline(always)]
    fn nothing() -> Self {
        [T::default(); N]
    }

    #[inline(always)]
    fn join(mut self, later: Self) -> Self {
        for i in 0..N {
            self[i] = self[i] + later[i];
        }
        self
    }
}

/// A vector is added lane by lane.
impl<T: Float, S: Simd> Join for Vector<T, S> {
    #[inline(always)]
    fn nothing() -> Self {
        Vector(T::Lanes::<S>::splat(T::default()))
    }

    #[inline(always)]
    fn join(self, later: Self) -> Self {
        Vector(self.0.add(later.0))
    }
}

/// Joins the partial results of a block by halves.
#[inline(always)]
pub(crate) fn join_halves<V: Join>(mut partials: [V; PARTIALS]) -> V {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            partials[i] = partials[i].join(partials[i + half]);
        }
    }
    partials[0]
}

/// Joins partial results by halves: those of a block that had terms, or vectors of them; at least one.
#[inline(always)]
pub(crate) fn join_few<V: Join>(partials: &mut [V]) -> V {
    let mut half = partials.len().next_power_of_two() / 2;
    while half > 0 {
        for i in 0..half.min(partials.len() - half) {
            partials[i] = partials[i].join(partials[i + half]);
        }
        half /= 2;
    }
    partials[0]
}

/// Joins partial results by halves, of which the first `n` had terms: the others need not be there.
#[inline(always)]
fn join_first<V: Join>(partials: &mut [MaybeUninit<V>; PARTIALS], n: usize) -> V {
    match n {
        0..=2 => join_first_of::<V, 2>(partials, n),
        3..=4 => join_first_of::<V, 4>(partials, n),
        5..=8 => join_first_of::<V, 8>(partials, n),
        _ => join_first_of::<V, PARTIALS>(partials, n),
    }
}

/// Does that for `n` up to `MOST`, a power of two.
#[inline(always)]
fn join_first_of<V: Join, const MOST: usize>(
    partials: &mut [MaybeUninit<V>; PARTIALS],
    n: usize,
) -> V {
    partials[n..MOST].iter_mut().for_each(|partial| *partial = MaybeUninit::new(V::nothing()));
    // SAFETY: the first `n` had terms and were written then, the others above.
    join_few::<V>(&mut core::array::from_fn::<V, MOST, _>(|i| unsafe { partials[i].assume_init() }))
}

/// Joins the first `n` of the vectors that hold the partial results of a block, 1, 2 or 4, by halves.
#[inline(always)]
pub(crate) fn join_vectors<V: Join>(vectors: &[V], n: usize) -> V {
    match n {
        1 => vectors[0],
        2 => vectors[0].join(vectors[1]),
        _ => vectors[0].join(vectors[2]).join(vectors[1].join(vectors[3])),
    }
}

/// The results of blocks, joined pairwise while they come.
pub(crate) struct Pairs<V> {
    blocks: usize,
    /// At `n` the result of 2ⁿ blocks, if that bit of `blocks` is set.
    runs: [MaybeUninit<V>; LEVELS],
}

impl<V: Join> Pairs<V> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Pairs { blocks: 0, runs: [MaybeUninit::uninit(); LEVELS] }
    }

    /// Takes the result of the next block.
    #[inline(always)]
    pub(crate) fn push(&mut self, block: V) {
        self.push_run(0, block);
    }

    /// Takes the results of the next four blocks, where as many times four came before: how often a run is joined is
    /// hard to guess for a CPU.
    #[inline(always)]
    pub(crate) fn push_four(&mut self, [a, b, c, d]: [V; 4]) {
        self.push_run(2, a.join(b).join(c.join(d)));
    }

    /// Takes the result of the next 2ⁿ blocks, where as many times 2ⁿ came before.
    #[inline(always)]
    fn push_run(&mut self, n: usize, mut run: V) {
        let level = n + carries(self.blocks >> n);
        for earlier in &self.runs[n..level] {
            // SAFETY: these bits of `blocks` are set, so the runs were written.
            run = unsafe { earlier.assume_init() }.join(run);
        }
        self.runs[level].write(run);
        self.blocks += 1 << n;
    }

    /// Joins what is left.
    #[inline(always)]
    pub(crate) fn total(&self) -> V {
        let mut left = self.blocks;
        if left == 0 {
            return V::nothing();
        }
        let run = left.trailing_zeros() as usize;
        // SAFETY: this bit of `blocks` is set, so the run was written.
        let mut total = unsafe { self.runs[run].assume_init() };
        left &= left - 1;
        while left != 0 {
            let run = left.trailing_zeros() as usize;
            // SAFETY: as above.
            total = unsafe { self.runs[run].assume_init() }.join(total);
            left &= left - 1;
        }
        total
    }
}

/// Says how many runs of earlier blocks, each twice as long as the one before, are joined with block `number`.
pub(crate) fn carries(number: usize) -> usize {
    number.trailing_ones() as usize
}

/// Lists the runs that so many blocks make up, from the last, which is the shortest, to the first: run `n` is of 2ⁿ
/// blocks.
pub(crate) fn runs_of(blocks: usize) -> impl Iterator<Item = usize> {
    (0..LEVELS).filter(move |run| blocks >> run & 1 == 1)
}

/// Adds up `term(x, y)` over two slices of one length.
#[inline(always)]
pub(crate) fn sum_of_pairs<X: Copy, Y: Copy, T: Float>(
    x: &[X],
    y: &[Y],
    term: impl Fn(X, Y) -> T,
) -> T {
    if x.len() <= BLOCK {
        return block_of_pairs(x, y, &term);
    }
    let mut pairs = Pairs::new();
    for (x, y) in x.chunks(BLOCK).zip(y.chunks(BLOCK)) {
        pairs.push(block_of_pairs(x, y, &term));
    }
    pairs.total()
}

/// Adds up the terms of one block.
#[inline(always)]
fn block_of_pairs<X: Copy, Y: Copy, T: Float>(x: &[X], y: &[Y], term: &impl Fn(X, Y) -> T) -> T {
    let mut partials = [T::default(); PARTIALS];
    let (x, x_rest) = x.as_chunks::<PARTIALS>();
    let (y, y_rest) = y.as_chunks::<PARTIALS>();
    for (x, y) in x.iter().zip(y) {
        for i in 0..PARTIALS {
            partials[i] = partials[i] + term(x[i], y[i]);
        }
    }
    for ((partial, &x), &y) in partials.iter_mut().zip(x_rest).zip(y_rest) {
        *partial = *partial + term(x, y);
    }
    join_halves(partials)
}

/// Adds up `term(x)` over a slice.
#[inline(always)]
pub(crate) fn sum_of<X: Copy, T: Float>(x: &[X], term: impl Fn(X) -> T) -> T {
    sum_of_pairs(x, x, |x, _| term(x))
}

/// What is added up of pairs of numbers, a vector of them at a time.
pub(crate) trait Term<T: Float>: Copy {
    /// Computes it.
    fn of<S: Simd>(self, x: T::Lanes<S>, y: T::Lanes<S>) -> T::Lanes<S>;
}

/// Adds up `term` over two slices of one length, with vectors: what the compiler makes of [`sum_of_pairs`] on
/// slices longer than a block is slower.
#[inline(always)]
pub(crate) fn sum_by_vectors<T: Float, S: Simd>(x: &[T], y: &[T], term: impl Term<T>) -> T {
    assert_eq!(x.len(), y.len(), "slices of one length");
    match PARTIALS / T::Lanes::<S>::N {
        1 => by_vectors::<T, S, 1>(x, y, term),
        2 => by_vectors::<T, S, 2>(x, y, term),
        _ => by_vectors::<T, S, 4>(x, y, term),
    }
}

/// Does that where so many vectors hold the partial sums of a block.
#[inline(always)]
fn by_vectors<T: Float, S: Simd, const VECTORS: usize>(x: &[T], y: &[T], term: impl Term<T>) -> T {
    let mut pairs = Pairs::new();
    let mut start = 0;
    while start + 4 * BLOCK <= x.len() {
        // As many blocks together as registers hold the partial sums of.
        let of = |n: usize| start + n * BLOCK;
        pairs.push_four(if VECTORS == 4 {
            let [a, b] = blocks::<T, S, VECTORS, 2>(&x[of(0)..of(2)], &y[of(0)..of(2)], term);
            let [c, d] = blocks::<T, S, VECTORS, 2>(&x[of(2)..of(4)], &y[of(2)..of(4)], term);
            [a, b, c, d]
        } else {
            blocks::<T, S, VECTORS, 4>(&x[of(0)..of(4)], &y[of(0)..of(4)], term)
        });
        start = of(4);
    }
    for (x, y) in x[start..].chunks(BLOCK).zip(y[start..].chunks(BLOCK)) {
        let [block] = blocks::<T, S, VECTORS, 1>(x, y, term);
        pairs.push(block);
    }
    pairs.total()
}

/// Adds up the terms of each of some blocks that lie side by side: whole ones, or a single one.
#[inline(always)]
fn blocks<T: Float, S: Simd, const VECTORS: usize, const BLOCKS: usize>(
    x: &[T],
    y: &[T],
    term: impl Term<T>,
) -> [T; BLOCKS] {
    let lanes = T::Lanes::<S>::N;
    assert!(x.len() == y.len() && x.len().is_multiple_of(BLOCKS), "blocks of one length");
    let len = x.len() / BLOCKS;
    let whole = len - len % PARTIALS;
    let mut partials = [[Vector::<T, S>::nothing(); VECTORS]; BLOCKS];
    for round in (0..whole).step_by(PARTIALS) {
        for (block, partials) in partials.iter_mut().enumerate() {
            for (vector, partial) in partials.iter_mut().enumerate() {
                let at = block * len + round + vector * lanes;
                // SAFETY: a round is PARTIALS numbers of this block, of which both slices have `len`.
                let (x, y) = unsafe {
                    (
                        T::Lanes::<S>::load(x.as_ptr().add(at)),
                        T::Lanes::<S>::load(y.as_ptr().add(at)),
                    )
                };
                partial.0 = partial.0.add(term.of::<S>(x, y));
            }
        }
    }
    if BLOCKS == 1 && whole < len {
        for (vector, partial) in partials[0].iter_mut().enumerate() {
            let at = whole + vector * lanes;
            let n = len.saturating_sub(at).min(lanes);
            let mut terms = [T::default(); PARTIALS];
            // SAFETY: `n` numbers are left in both slices, no more than lanes, and these than PARTIALS.
            let terms = unsafe {
                let x = T::Lanes::<S>::load_first(x.as_ptr().wrapping_add(at), n);
                let y = T::Lanes::<S>::load_first(y.as_ptr().wrapping_add(at), n);
                term.of::<S>(x, y).store_first(terms.as_mut_ptr(), n);
                T::Lanes::<S>::load(terms.as_ptr())
            };
            partial.0 = partial.0.add(terms);
        }
    }
    let mut sums = [T::default(); BLOCKS];
    for (sum, partials) in sums.iter_mut().zip(&partials) {
        *sum = join_vectors(partials, VECTORS).0.sum();
    }
    sums
}

/// Adds up `n` terms of which each is computed from its number.
#[inline(always)]
pub(crate) fn sum_of_terms<T: Float>(n: usize, term: impl Fn(usize) -> T) -> T {
    let mut sum = Running::new();
    (0..n).for_each(|i| sum.add(term(i)));
    sum.finish()
}

/// A sum whose terms come one after the other, or a vector of sums, each in its lane.
pub(crate) struct Running<V> {
    /// Of the block so far; those without terms are not initialized, for most sums have few terms.
    partials: [MaybeUninit<V>; PARTIALS],
    /// Terms of the block so far.
    terms: usize,
    pairs: Pairs<V>,
}

impl<V: Join> Running<V> {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Running { partials: [MaybeUninit::uninit(); PARTIALS], terms: 0, pairs: Pairs::new() }
    }

    /// Gives the sum of the block so far, which has terms, and begins another one.
    #[inline(always)]
    fn end_block(&mut self) -> V {
        let n = self.terms.min(PARTIALS);
        self.terms = 0;
        join_first(&mut self.partials, n)
    }

    /// Takes in the next term: `first` is the partial sum if it is the first of it, `later` adds it to one.
    #[inline(always)]
    fn take(&mut self, first: impl FnOnce() -> V, later: impl FnOnce(V) -> V) {
        let place = self.terms % PARTIALS;
        // A partial sum may be -0 here that would have begun with +0: what `finish` adds makes them equal.
        let partial = match self.terms < PARTIALS {
            true => first(),
            // SAFETY: it was written when its first term came.
            false => later(unsafe { self.partials[place].assume_init() }),
        };
        self.partials[place].write(partial);
        self.terms += 1;
        if self.terms == BLOCK {
            let block = self.end_block();
            self.pairs.push(block);
        }
    }

    /// Adds the next term.
    #[inline(always)]
    pub(crate) fn add(&mut self, term: V) {
        self.take(|| term, |partial| partial.join(term));
    }

    /// Gives the sum.
    #[inline(always)]
    pub(crate) fn finish(&mut self) -> V {
        if self.terms > 0 {
            let block = self.end_block();
            if self.pairs.blocks == 0 {
                return block.join(V::nothing());
            }
            self.pairs.push(block);
        }
        self.pairs.total().join(V::nothing())
    }
}

impl<T: Float, S: Simd> Running<Vector<T, S>> {
    /// Adds the next term of a dot product, `a · b`.
    #[inline(always)]
    pub(crate) fn add_product(&mut self, a: T::Lanes<S>, b: T::Lanes<S>) {
        self.take(|| Vector(a.mul(b)), |partial| Vector(a.mul_add(b, partial.0)));
    }
}

/// What the order says, in plain words; `add(p, i)` adds term `i` to the partial sum `p`.
#[cfg(test)]
pub(crate) fn in_order<T: Float>(n: usize, add: impl Fn(T, usize) -> T) -> T {
    fn pairwise<T: Float>(blocks: &[T]) -> T {
        match blocks {
            [] => T::default(),
            [one] => *one,
            _ => {
                let (earlier, later) = blocks.split_at(blocks.len().next_power_of_two() / 2);
                pairwise(earlier) + pairwise(later)
            }
        }
    }
    let block = |start: usize| {
        let mut p = [T::default(); 16];
        for i in start..n.min(start + 256) {
            p[i % 16] = add(p[i % 16], i);
        }
        for half in [8, 4, 2, 1] {
            for j in 0..half {
                p[j] = p[j] + p[j + half];
            }
        }
        p[0]
    };
    pairwise(&(0..n).step_by(256).map(block).collect::<Vec<_>>()) + T::default()
}

/// Lengths on both sides of all that the order counts in.
#[cfg(test)]
pub(crate) const LENGTHS: [usize; 27] = [
    0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 64, 100, 255, 256, 257, 511, 512,
    1041, 1793, 9000,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::{InstructionSet, Vectorized, dispatch_to};

    /// Adds up each column of a matrix of 16 columns in a lane, and all of a slice.
    struct Sums<'a>(&'a [f32]);

    #[derive(Clone, Copy)]
    struct First;

    impl Term<f32> for First {
        #[inline(always)]
        fn of<S: Simd>(self, x: S::F32, _: S::F32) -> S::F32 {
            x
        }
    }

    impl Vectorized for Sums<'_> {
        type Output = [f32; 3];

        #[inline(always)]
        fn run<S: Simd>(self) -> [f32; 3] {
            let mut running = Running::<Vector<f32, S>>::new();
            self.0.iter().for_each(|&x| running.add(Vector(S::F32::splat(x))));
            let by_vectors = sum_by_vectors::<f32, S>(self.0, self.0, First);
            [running.finish().0.sum() / S::F32::N as f32, sum_of(self.0, |x| x), by_vectors]
        }
    }

    #[test]
    fn every_way_to_add_keeps_the_order() {
        for n in LENGTHS {
            let x: Vec<f32> = (0..n).map(|i| (0.7 * i as f32).sin() + 0.1).collect();
            let expected = in_order(n, |p, i| p + x[i]);
            for set in InstructionSet::available() {
                assert_eq!(dispatch_to(set, Sums(&x)), [expected; 3], "{n} numbers, {set:?}");
            }
            let mut running = Running::new();
            x.iter().for_each(|&x| running.add(x));
            assert_eq!(running.finish(), expected, "{n} numbers");
        }
    }

    #[test]
    fn a_sum_is_as_exact_at_any_length() {
        for power in [4, 10, 16, 20, 24] {
            let x = vec![0.1_f32; 1 << power];
            let sum: f32 = sum_of(&x, |x| x);
            let exact = f64::from(0.1_f32) * f64::from(1 << power);
            assert!((f64::from(sum) / exact - 1.0).abs() < 1.5e-7, "2^{power}: {sum}");
        }
    }
}
