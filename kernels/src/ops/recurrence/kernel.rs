//! The kernels of walks through time: a product with the weight for each step, then the gates.
//!
//! The weight is packed once, in panels of columns, and then read in every step. Rows of the batch know nothing of
//! each other, so threads take some of them through all of time.
#![expect(unsafe_code, reason = "threads write rows of the same outputs")]

use core::marker::PhantomData;
use core::ops::Range;
use core::slice;

use super::Cell;
use crate::cpu::executor::with_scratch;
use crate::cpu::gemm::{BiasAxis, Finish, Gemm, Product, Strides};
use crate::cpu::simd::{Float, Lanes, Simd, Vectorized, dispatch, math};
use crate::cpu::tile::Tile;
use crate::cpu::transpose::transpose;
use crate::op::Kernel;
use crate::ops::lines::{carve, scratch_bytes};

/// Columns of a panel: two vectors of any instruction set at most.
const PANEL: usize = 32;

/// From this many multiply-adds on, a walk is split over threads.
const WORTH_SPLITTING: usize = 1 << 18;

/// The sizes of a walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) cell: Cell,
    pub(super) steps: usize,
    pub(super) batch: usize,
    pub(super) hidden: usize,
    pub(super) reverse: bool,
}

impl Sizes {
    /// Counts the numbers of all gates of a row.
    fn gates(&self) -> usize {
        self.cell.gates() * self.hidden
    }

    /// Gives the time step that comes after `number` others.
    fn step(&self, number: usize) -> usize {
        if self.reverse { self.steps - 1 - number } else { number }
    }

    /// Gives how many threads share the batch.
    fn threads(&self, tile: &Tile<'_>) -> usize {
        let products = self.steps * self.batch * self.hidden * self.gates();
        match tile.split() && products >= WORTH_SPLITTING {
            true => rayon::current_num_threads().min(self.batch).max(1),
            false => 1,
        }
    }
}

/// Counts the numbers of a packed matrix of so many rows and columns.
fn packed(rows: usize, columns: usize) -> usize {
    rows * columns.next_multiple_of(PANEL)
}

/// Multiplies rows of `a` by a packed matrix of `k` rows and `n` columns.
#[inline(always)]
fn multiply<T: Float, S: Simd>(
    (m, n, k): (usize, usize, usize),
    a: &[T],
    panels: &[T],
    bias: Option<&[T]>,
    c: &mut [T],
) {
    let row = |row| Strides { row, column: 1 };
    for column in (0..n).step_by(PANEL) {
        let width = PANEL.min(n - column);
        let product = Product {
            m,
            n: width,
            k,
            a: row(k),
            b: row(PANEL),
            c: row(n),
            bias: BiasAxis::Columns,
            finish: Finish::Sum,
        };
        let b = &panels[column * k..][..k * PANEL];
        let bias = bias.map(|bias| &bias[column..][..width]);
        let c = &mut c[column..];
        Gemm { product: &product, a, b, bias, output: None, c, scratch: &mut [] }.run::<S>();
    }
}

/// Some rows of a batch on their way through time.
trait Walk<T>: Sync {
    /// Counts the numbers of scratch memory that a row needs.
    fn scratch(&self) -> usize;

    /// Takes some rows along. Implementations are `#[inline(always)]`.
    fn walk<S: Simd>(&self, rows: Range<usize>, scratch: &mut [T]);
}

/// A walk of some rows on one thread.
struct Rows<'a, T, W> {
    walk: &'a W,
    rows: Range<usize>,
    scratch: &'a mut [T],
}

impl<T, W: Walk<T>> Vectorized for Rows<'_, T, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        self.walk.walk::<S>(self.rows, self.scratch);
    }
}

/// Shares rows out over so many threads.
fn share<T: Float, W: Walk<T>>(walk: &W, rows: Range<usize>, threads: usize) {
    if threads < 2 || rows.len() < 2 {
        with_scratch(rows.len() * walk.scratch() * size_of::<T>(), |scratch| {
            let scratch = bytemuck::cast_slice_mut(scratch);
            dispatch(Rows { walk, rows, scratch });
        });
        return;
    }
    let half = rows.len() * (threads / 2) / threads;
    // Whole register tiles, if there are many.
    let unit = if half < 8 { 1 } else { 8 };
    let at = rows.start + half.next_multiple_of(unit).clamp(1, rows.len() - 1);
    let (upper, lower) = (rows.start..at, at..rows.end);
    rayon::join(|| share(walk, upper, threads / 2), || share(walk, lower, threads - threads / 2));
}

/// Reads a vector at `at`, of which `n` lanes are there.
#[inline(always)]
fn load<T: Float, S: Simd>(from: &[T], at: usize, n: usize) -> T::Lanes<S> {
    let from = &from[at..at + n];
    // SAFETY: there are `n` numbers.
    unsafe {
        match n == T::Lanes::<S>::N {
            true => T::Lanes::<S>::load(from.as_ptr()),
            false => T::Lanes::<S>::load_first(from.as_ptr(), n),
        }
    }
}

/// Writes `n` lanes of a vector at `at`.
#[inline(always)]
fn store<T: Float, S: Simd>(x: T::Lanes<S>, to: &mut [T], at: usize, n: usize) {
    let to = &mut to[at..at + n];
    // SAFETY: there is room for `n` numbers.
    unsafe {
        match n == T::Lanes::<S>::N {
            true => x.store(to.as_mut_ptr()),
            false => x.store_first(to.as_mut_ptr(), n),
        }
    }
}

/// An output whose rows belong to one thread each.
struct Shared<T> {
    start: *mut T,
    numel: usize,
}

// SAFETY: `rows` is called for rows that no other thread uses.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new(output: &mut [T]) -> Self {
        Shared { start: output.as_mut_ptr(), numel: output.len() }
    }

    /// Gives some numbers.
    ///
    /// # Safety
    ///
    /// Nobody else uses them while the slice lives.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that nobody else has them")]
    unsafe fn part(&self, numbers: Range<usize>) -> &mut [T] {
        assert!(numbers.start <= numbers.end && numbers.end <= self.numel, "within the output");
        // SAFETY: they are within the output, and the caller's.
        unsafe { slice::from_raw_parts_mut(self.start.add(numbers.start), numbers.len()) }
    }
}

pub(super) struct StepsKernel<T> {
    sizes: Sizes,
    /// Which input is the bias.
    bias: Option<usize>,
    element: PhantomData<T>,
}

impl<T> StepsKernel<T> {
    pub(super) fn new(sizes: Sizes, bias: Option<usize>) -> Self {
        StepsKernel { sizes, bias, element: PhantomData }
    }
}

impl<T: Float> Kernel for StepsKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let Sizes { cell, batch, hidden, .. } = self.sizes;
        let (gates, threads) = (self.sizes.gates(), self.sizes.threads(tile));
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let [panels] = carve::<T, 1>(scratch, [packed(hidden, gates)]);
            let (h, memory, of_gates) =
                (outputs.take::<T>(), outputs.take::<T>(), outputs.take::<T>());
            if h.is_empty() {
                continue;
            }
            dispatch(PackTurned { weight: inputs.get(1), hidden, panels: &mut *panels });
            let steps = Steps {
                sizes: self.sizes,
                x: inputs.get(0),
                panels: &*panels,
                bias: self.bias.map(|bias| inputs.get(bias)),
                first: inputs.get(2),
                first_cell: if cell == Cell::Lstm { inputs.get(3) } else { &[] },
                h: Shared::new(h),
                memory: Shared::new(memory),
                gates: Shared::new(of_gates),
            };
            share(&steps, 0..batch, threads);
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<T>(&[packed(self.sizes.hidden, self.sizes.gates())])
    }
}

/// The packing of the transposed weight.
struct PackTurned<'a, T> {
    weight: &'a [T],
    hidden: usize,
    panels: &'a mut [T],
}

impl<T: Float> Vectorized for PackTurned<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let PackTurned { weight, hidden, panels } = self;
        let blocks = weight.chunks(PANEL * hidden).zip(panels.chunks_mut(PANEL * hidden));
        for (block, panel) in blocks {
            transpose::<T, S>(block, hidden, panel, PANEL, block.len() / hidden, hidden);
        }
    }
}

struct Steps<'a, T> {
    sizes: Sizes,
    x: &'a [T],
    panels: &'a [T],
    bias: Option<&'a [T]>,
    first: &'a [T],
    first_cell: &'a [T],
    h: Shared<T>,
    memory: Shared<T>,
    gates: Shared<T>,
}

impl<T: Float> Walk<T> for Steps<'_, T> {
    fn scratch(&self) -> usize {
        self.sizes.gates()
    }

    #[inline(always)]
    fn walk<S: Simd>(&self, rows: Range<usize>, scratch: &mut [T]) {
        let Sizes { cell, steps, batch, hidden, .. } = self.sizes;
        let (gates, n) = (self.sizes.gates(), rows.len());
        let of_state = &mut scratch[..n * gates];
        for number in 0..steps {
            let at = self.sizes.step(number) * batch + rows.start;
            let of = |width: usize| at * width..(at + n) * width;
            let before = number.checked_sub(1).map(|before| {
                let at = self.sizes.step(before) * batch + rows.start;
                at * hidden..(at + n) * hidden
            });
            let own = rows.start * hidden..rows.end * hidden;
            // SAFETY: these rows are this thread's, and those of other time steps are other numbers.
            let (h, memory, all) = unsafe {
                (self.h.part(of(hidden)), self.memory.part(of(hidden)), self.gates.part(of(gates)))
            };
            // SAFETY: as above.
            let (old, old_cell): (&[T], &[T]) = match (before, cell) {
                (None, Cell::Lstm) => (&self.first[own.clone()], &self.first_cell[own]),
                (None, Cell::Gru) => (&self.first[own], &[]),
                (Some(before), Cell::Lstm) => unsafe {
                    (self.h.part(before.clone()), self.memory.part(before))
                },
                (Some(before), Cell::Gru) => (unsafe { self.h.part(before) }, &[]),
            };
            multiply::<T, S>((n, gates, hidden), old, self.panels, self.bias, of_state);
            let x = &self.x[of(gates)];
            for row in 0..n {
                let (state, gate) = (row * hidden, row * gates);
                for lane in (0..hidden).step_by(T::Lanes::<S>::N) {
                    let lanes = T::Lanes::<S>::N.min(hidden - lane);
                    let x = |block: usize| load::<T, S>(x, gate + block * hidden + lane, lanes);
                    let of = |block: usize| {
                        load::<T, S>(of_state, gate + block * hidden + lane, lanes)
                    };
                    let mut keep = |value: T::Lanes<S>, block: usize| {
                        store::<T, S>(value, all, gate + block * hidden + lane, lanes);
                    };
                    let sigmoid =
                        |block: usize| math::sigmoid::<T, S>(x(block).add(of(block)));
                    let (new, kept) = match cell {
                        Cell::Lstm => {
                            let (i, f, o) = (sigmoid(0), sigmoid(1), sigmoid(3));
                            let g = math::tanh::<T, S>(x(2).add(of(2)));
                            let old = load::<T, S>(old_cell, state + lane, lanes);
                            let c = i.mul_add(g, f.mul(old));
                            [i, f, g, o].into_iter().zip(0..).for_each(|(x, at)| keep(x, at));
                            (o.mul(math::tanh::<T, S>(c)), c)
                        }
                        Cell::Gru => {
                            let (r, z, hn) = (sigmoid(0), sigmoid(1), of(2));
                            let n = math::tanh::<T, S>(r.mul_add(hn, x(2)));
                            let old = load::<T, S>(old, state + lane, lanes);
                            [r, z, n].into_iter().zip(0..).for_each(|(x, at)| keep(x, at));
                            (z.mul_add(old.sub(n), n), hn)
                        }
                    };
                    store::<T, S>(new, h, state + lane, lanes);
                    store::<T, S>(kept, memory, state + lane, lanes);
                }
            }
        }
    }
}

pub(super) struct BackKernel<T> {
    sizes: Sizes,
    element: PhantomData<T>,
}

impl<T> BackKernel<T> {
    pub(super) fn new(sizes: Sizes) -> Self {
        BackKernel { sizes, element: PhantomData }
    }
}

impl<T: Float> Kernel for BackKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let Sizes { batch, hidden, .. } = self.sizes;
        let (gates, threads) = (self.sizes.gates(), self.sizes.threads(tile));
        for model in 0..tile.models() {
            let (inputs, mut outputs, scratch) = tile.model(model).split();
            let [panels] = carve::<T, 1>(scratch, [packed(gates, hidden)]);
            let (of_x, of_first, third) =
                (outputs.take::<T>(), outputs.take::<T>(), outputs.take::<T>());
            if of_x.is_empty() {
                continue;
            }
            let weight = inputs.get::<T>(2);
            for (column, panel) in panels.chunks_mut(PANEL * gates).enumerate() {
                let rows = panel.chunks_mut(PANEL).zip(weight.chunks(hidden));
                for (to, from) in rows {
                    let from = &from[column * PANEL..];
                    let n = from.len().min(PANEL);
                    to[..n].copy_from_slice(&from[..n]);
                }
            }
            let back = Back {
                sizes: self.sizes,
                dh: inputs.get(0),
                gates: inputs.get(1),
                panels: &*panels,
                states: inputs.get(3),
                first: inputs.get(4),
                extra: inputs.get(5),
                of_x: Shared::new(of_x),
                of_first: Shared::new(of_first),
                third: Shared::new(third),
            };
            share(&back, 0..batch, threads);
        }
    }

    fn scratch_bytes(&self) -> usize {
        scratch_bytes::<T>(&[packed(self.sizes.gates(), self.sizes.hidden)])
    }
}

struct Back<'a, T> {
    sizes: Sizes,
    dh: &'a [T],
    gates: &'a [T],
    panels: &'a [T],
    /// The cell states of an LSTM, the states of a GRU.
    states: &'a [T],
    first: &'a [T],
    /// The gradient of the cell states of an LSTM, the memory of a GRU.
    extra: &'a [T],
    of_x: Shared<T>,
    of_first: Shared<T>,
    /// The gradient of the first cell state of an LSTM, for a GRU that of what comes from the state.
    third: Shared<T>,
}

impl<T: Float> Walk<T> for Back<'_, T> {
    fn scratch(&self) -> usize {
        2 * self.sizes.hidden
    }

    #[inline(always)]
    fn walk<S: Simd>(&self, rows: Range<usize>, scratch: &mut [T]) {
        let Sizes { cell, steps, batch, hidden, .. } = self.sizes;
        let (gates, n) = (self.sizes.gates(), rows.len());
        let own = rows.start * hidden..rows.end * hidden;
        // What comes from the step after: of the state, and of an LSTM's cell state or a GRU's state past its gates.
        let (of_state, other) = scratch[..2 * n * hidden].split_at_mut(n * hidden);
        of_state.fill(T::default());
        other.fill(T::default());
        for number in (0..steps).rev() {
            let at = self.sizes.step(number) * batch + rows.start;
            let of = |width: usize| at * width..(at + n) * width;
            let old = match number.checked_sub(1) {
                Some(before) => {
                    let at = self.sizes.step(before) * batch + rows.start;
                    &self.states[at * hidden..(at + n) * hidden]
                }
                None => &self.first[own.clone()],
            };
            let (dh, extra) = (&self.dh[of(hidden)], &self.extra[of(hidden)]);
            let (states, all) = (&self.states[of(hidden)], &self.gates[of(gates)]);
            // SAFETY: these rows are this thread's.
            let of_x = unsafe { self.of_x.part(of(gates)) };
            let of_h: &mut [T] = match cell {
                Cell::Lstm => &mut [],
                // SAFETY: as above; of a GRU it is as long as the gates.
                Cell::Gru => unsafe { self.third.part(of(gates)) },
            };
            let one = T::Lanes::<S>::splat(T::from_f64(1.0));
            for row in 0..n {
                let (state, gate) = (row * hidden, row * gates);
                for lane in (0..hidden).step_by(T::Lanes::<S>::N) {
                    let lanes = T::Lanes::<S>::N.min(hidden - lane);
                    let at = state + lane;
                    let of = |block: usize| load::<T, S>(all, gate + block * hidden + lane, lanes);
                    let read = |x: &[T]| load::<T, S>(x, at, lanes);
                    let dh = read(dh).add(read(of_state));
                    // `x · (1 - x)`: the slope of a sigmoid.
                    let slope = |x: T::Lanes<S>| x.mul(one.sub(x));
                    let put = |value: T::Lanes<S>, to: &mut [T], block: usize| {
                        store::<T, S>(value, to, gate + block * hidden + lane, lanes);
                    };
                    if cell == Cell::Lstm {
                        let (i, f, g, o) = (of(0), of(1), of(2), of(3));
                        let tanh = math::tanh::<T, S>(read(states));
                        let flat = one.sub(tanh.mul(tanh));
                        let dc = dh.mul(o).mul_add(flat, read(extra).add(read(other)));
                        put(dc.mul(g).mul(slope(i)), of_x, 0);
                        put(dc.mul(read(old)).mul(slope(f)), of_x, 1);
                        put(dc.mul(i).mul(one.sub(g.mul(g))), of_x, 2);
                        put(dh.mul(tanh).mul(slope(o)), of_x, 3);
                        store::<T, S>(dc.mul(f), other, at, lanes);
                    } else {
                        let (r, z, n) = (of(0), of(1), of(2));
                        let dn = dh.mul(one.sub(z)).mul(one.sub(n.mul(n)));
                        let dr = dn.mul(read(extra)).mul(slope(r));
                        let dz = dh.mul(read(old).sub(n)).mul(slope(z));
                        for (to, third) in [(&mut *of_x, dn), (&mut *of_h, dn.mul(r))] {
                            put(dr, to, 0);
                            put(dz, to, 1);
                            put(third, to, 2);
                        }
                        store::<T, S>(dh.mul(z), other, at, lanes);
                    }
                }
            }
            let from_gates = if cell == Cell::Lstm { of_x } else { of_h };
            multiply::<T, S>((n, hidden, gates), from_gates, self.panels, None, of_state);
            if cell == Cell::Gru {
                for (sum, &part) in of_state.iter_mut().zip(&*other) {
                    *sum = *sum + part;
                }
            }
        }
        // SAFETY: these rows are this thread's.
        unsafe { self.of_first.part(own.clone()) }.copy_from_slice(of_state);
        if cell == Cell::Lstm {
            // SAFETY: as above.
            unsafe { self.third.part(own) }.copy_from_slice(other);
        }
    }
}
