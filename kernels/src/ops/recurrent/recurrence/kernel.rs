//! The kernels of walks through time: a product with the weight for each step, then the gates.
//!
//! The weight is packed once, in panels of columns, and then read in every step. Rows of the batch know nothing of
//! each other, so threads take some of them through all of time.
#![expect(unsafe_code, reason = "threads write rows of the same outputs")]

use core::marker::PhantomData;
use core::ops::Range;
use core::slice;

use super::cell::Cell;
use crate::arithmetic::Arithmetic;
use crate::cpu::gemm::{BiasAxis, Finish, Gemm, Product, Strides};
use crate::cpu::kernel::Kernel;
use crate::cpu::scratch::with_scratch;
use crate::cpu::share::{Divisible, share_out};
use crate::cpu::simd::vector::Vector;
use crate::cpu::simd::{Float, Lanes, Simd, Vectorized, dispatch};
use crate::cpu::tile::Tile;
use crate::cpu::transpose::transpose;
use crate::ops::reduction::lines::{carve, scratch_bytes};

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
trait Walk: Sync {
    /// What numbers it is of.
    type Element: Float;

    /// Counts the numbers of scratch memory that a row needs.
    fn scratch(&self) -> usize;

    /// Takes some rows along. Implementations are `#[inline(always)]`.
    fn walk<S: Simd>(&self, rows: Range<usize>, scratch: &mut [Self::Element]);
}

/// A walk of some rows on one thread.
struct Rows<'a, W: Walk> {
    walk: &'a W,
    rows: Range<usize>,
    scratch: &'a mut [W::Element],
}

impl<W: Walk> Vectorized for Rows<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        self.walk.walk::<S>(self.rows, self.scratch);
    }
}

/// Rows for so many threads.
struct ForThreads<'a, W> {
    walk: &'a W,
    rows: Range<usize>,
    threads: usize,
}

impl<W: Walk> Divisible for ForThreads<'_, W> {
    fn halves(self) -> Result<[Self; 2], Self> {
        if self.threads < 2 || self.rows.len() < 2 {
            return Err(self);
        }
        let ForThreads { walk, rows, threads } = self;
        let half = rows.len() * (threads / 2) / threads;
        // Whole register tiles, if there are many.
        let unit = if half < 8 { 1 } else { 8 };
        let at = rows.start + half.next_multiple_of(unit).clamp(1, rows.len() - 1);
        let of = |rows, threads| ForThreads { walk, rows, threads };
        Ok([of(rows.start..at, threads / 2), of(at..rows.end, threads - threads / 2)])
    }

    fn compute(self) {
        let ForThreads { walk, rows, .. } = self;
        with_scratch(rows.len() * walk.scratch() * size_of::<W::Element>(), |scratch| {
            let scratch = bytemuck::cast_slice_mut(scratch);
            dispatch(Rows { walk, rows, scratch });
        });
    }
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
            share_out(ForThreads { walk: &steps, rows: 0..batch, threads });
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

impl<T: Float> Walk for Steps<'_, T> {
    type Element = T;

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
            let (old, old_cell): (&[T], &[T]) = match before {
                None => (&self.first[own.clone()], self.first_cell.get(own).unwrap_or_default()),
                // SAFETY: as above.
                Some(before) => unsafe { (self.h.part(before.clone()), self.memory.part(before)) },
            };
            multiply::<T, S>((n, gates, hidden), old, self.panels, self.bias, of_state);
            let x = &self.x[of(gates)];
            let sizes = (n, hidden);
            match cell {
                Cell::Lstm => lstm::<T, S>(sizes, [x, of_state, old_cell], [h, memory, all]),
                Cell::Gru => gru::<T, S>(sizes, [x, of_state, old], [h, memory, all]),
            }
        }
    }
}

/// Computes the gates of an LSTM for `n` rows, from what they get from the input and from the state and the cell
/// states before. Writes states, cell states and gates.
///
/// No closures and no iterators over vectors, here and in [`gru`]: they are not always compiled into the function that
/// enables the instructions.
#[inline(always)]
fn lstm<T: Float, S: Simd>(
    (n, hidden): (usize, usize),
    [x, of_state, old]: [&[T]; 3],
    [h, c, gates]: [&mut [T]; 3],
) {
    for row in 0..n {
        for lane in (0..hidden).step_by(T::Lanes::<S>::N) {
            let lanes = T::Lanes::<S>::N.min(hidden - lane);
            let (at, gate) = (row * hidden + lane, 4 * row * hidden + lane);
            let mut sums = [T::Lanes::<S>::splat(T::default()); 4];
            for (block, sum) in sums.iter_mut().enumerate() {
                let place = gate + block * hidden;
                *sum = load::<T, S>(x, place, lanes).add(load::<T, S>(of_state, place, lanes));
            }
            let i = Vector::<T, S>(sums[0]).sigmoid().0;
            let f = Vector::<T, S>(sums[1]).sigmoid().0;
            let g = Vector::<T, S>(sums[2]).tanh().0;
            let o = Vector::<T, S>(sums[3]).sigmoid().0;
            let new = i.mul_add(g, f.mul(load::<T, S>(old, at, lanes)));
            store::<T, S>(i, gates, gate, lanes);
            store::<T, S>(f, gates, gate + hidden, lanes);
            store::<T, S>(g, gates, gate + 2 * hidden, lanes);
            store::<T, S>(o, gates, gate + 3 * hidden, lanes);
            store::<T, S>(new, c, at, lanes);
            store::<T, S>(o.mul(Vector::<T, S>(new).tanh().0), h, at, lanes);
        }
    }
}

/// Computes the gates of a GRU for `n` rows, from what they get from the input and from the state and the states
/// before. Writes states, what the new numbers get from the state, and gates.
#[inline(always)]
fn gru<T: Float, S: Simd>(
    (n, hidden): (usize, usize),
    [x, of_state, old]: [&[T]; 3],
    [h, memory, gates]: [&mut [T]; 3],
) {
    for row in 0..n {
        for lane in (0..hidden).step_by(T::Lanes::<S>::N) {
            let lanes = T::Lanes::<S>::N.min(hidden - lane);
            let (at, gate) = (row * hidden + lane, 3 * row * hidden + lane);
            let mut own = [T::Lanes::<S>::splat(T::default()); 3];
            let mut given = own;
            for block in 0..3 {
                own[block] = load::<T, S>(of_state, gate + block * hidden, lanes);
                given[block] = load::<T, S>(x, gate + block * hidden, lanes);
            }
            let r = Vector::<T, S>(given[0].add(own[0])).sigmoid().0;
            let z = Vector::<T, S>(given[1].add(own[1])).sigmoid().0;
            let n = Vector::<T, S>(r.mul_add(own[2], given[2])).tanh().0;
            let old = load::<T, S>(old, at, lanes);
            store::<T, S>(r, gates, gate, lanes);
            store::<T, S>(z, gates, gate + hidden, lanes);
            store::<T, S>(n, gates, gate + 2 * hidden, lanes);
            store::<T, S>(own[2], memory, at, lanes);
            store::<T, S>(z.mul_add(old.sub(n), n), h, at, lanes);
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
            share_out(ForThreads { walk: &back, rows: 0..batch, threads });
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

impl<T: Float> Walk for Back<'_, T> {
    type Element = T;

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
            let (sizes, given) = ((n, hidden), [dh, extra, states, old, all]);
            match cell {
                Cell::Lstm => lstm_back::<T, S>(sizes, given, of_state, other, of_x),
                Cell::Gru => gru_back::<T, S>(sizes, given, of_state, other, [of_x, of_h]),
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

/// Returns `x · (1 - x)`: the slope of a sigmoid.
#[inline(always)]
fn slope<T: Float, S: Simd>(x: T::Lanes<S>) -> T::Lanes<S> {
    x.mul(T::Lanes::<S>::splat(T::from_f64(1.0)).sub(x))
}

/// Returns `1 - x²`: the slope of a hyperbolic tangent.
#[inline(always)]
fn flat<T: Float, S: Simd>(x: T::Lanes<S>) -> T::Lanes<S> {
    T::Lanes::<S>::splat(T::from_f64(1.0)).sub(x.mul(x))
}

/// Goes back through the gates of an LSTM. Given are gradients of states and of cell states, cell states, those before,
/// and gates, with what comes from the step after; the cell states' part of that goes on to the step before.
#[inline(always)]
fn lstm_back<T: Float, S: Simd>(
    (n, hidden): (usize, usize),
    [dh, dc, cells, old, gates]: [&[T]; 5],
    of_state: &[T],
    of_cell: &mut [T],
    to: &mut [T],
) {
    for row in 0..n {
        for lane in (0..hidden).step_by(T::Lanes::<S>::N) {
            let lanes = T::Lanes::<S>::N.min(hidden - lane);
            let (at, gate) = (row * hidden + lane, 4 * row * hidden + lane);
            let i = load::<T, S>(gates, gate, lanes);
            let f = load::<T, S>(gates, gate + hidden, lanes);
            let g = load::<T, S>(gates, gate + 2 * hidden, lanes);
            let o = load::<T, S>(gates, gate + 3 * hidden, lanes);
            let dh = load::<T, S>(dh, at, lanes).add(load::<T, S>(of_state, at, lanes));
            let tanh = Vector::<T, S>(load::<T, S>(cells, at, lanes)).tanh().0;
            let later = load::<T, S>(dc, at, lanes).add(load::<T, S>(of_cell, at, lanes));
            let dc = dh.mul(o).mul_add(flat::<T, S>(tanh), later);
            let old = load::<T, S>(old, at, lanes);
            store::<T, S>(dc.mul(g).mul(slope::<T, S>(i)), to, gate, lanes);
            store::<T, S>(dc.mul(old).mul(slope::<T, S>(f)), to, gate + hidden, lanes);
            store::<T, S>(dc.mul(i).mul(flat::<T, S>(g)), to, gate + 2 * hidden, lanes);
            store::<T, S>(dh.mul(tanh).mul(slope::<T, S>(o)), to, gate + 3 * hidden, lanes);
            store::<T, S>(dc.mul(f), of_cell, at, lanes);
        }
    }
}

/// Goes back through the gates of a GRU. Given are gradients of states, what the new numbers got from the state, states,
/// those before, and gates, with what comes from the step after. What goes past the gates to the step before is put
/// into `past`.
#[inline(always)]
fn gru_back<T: Float, S: Simd>(
    (n, hidden): (usize, usize),
    [dh, memory, _, old, gates]: [&[T]; 5],
    of_state: &[T],
    past: &mut [T],
    to: [&mut [T]; 2],
) {
    let [of_x, of_h] = to;
    for row in 0..n {
        for lane in (0..hidden).step_by(T::Lanes::<S>::N) {
            let lanes = T::Lanes::<S>::N.min(hidden - lane);
            let (at, gate) = (row * hidden + lane, 3 * row * hidden + lane);
            let r = load::<T, S>(gates, gate, lanes);
            let z = load::<T, S>(gates, gate + hidden, lanes);
            let n = load::<T, S>(gates, gate + 2 * hidden, lanes);
            let dh = load::<T, S>(dh, at, lanes).add(load::<T, S>(of_state, at, lanes));
            let one = T::Lanes::<S>::splat(T::from_f64(1.0));
            let dn = dh.mul(one.sub(z)).mul(flat::<T, S>(n));
            let dr = dn.mul(load::<T, S>(memory, at, lanes)).mul(slope::<T, S>(r));
            let dz = dh.mul(load::<T, S>(old, at, lanes).sub(n)).mul(slope::<T, S>(z));
            store::<T, S>(dr, of_x, gate, lanes);
            store::<T, S>(dz, of_x, gate + hidden, lanes);
            store::<T, S>(dn, of_x, gate + 2 * hidden, lanes);
            store::<T, S>(dr, of_h, gate, lanes);
            store::<T, S>(dz, of_h, gate + hidden, lanes);
            store::<T, S>(dn.mul(r), of_h, gate + 2 * hidden, lanes);
            store::<T, S>(dh.mul(z), past, at, lanes);
        }
    }
}
