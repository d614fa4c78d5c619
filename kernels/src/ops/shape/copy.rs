//! The kernel that shape ops share: elements are copied from one layout to another.
#![expect(unsafe_code, reason = "elements are read and written through pointers into operands")]

use core::marker::PhantomData;

use crate::cpu::kernel::Kernel;
use crate::cpu::share::{Divisible, share_out};
use crate::cpu::simd::{Simd, Vectorized, dispatch};
use crate::cpu::tile::Tile;
use crate::cpu::transpose::transpose;
use crate::cpu::vector_kernel::{VectorKernel, run_vectors};
use crate::ir::dtype::{Element, bf16};
use crate::ir::shape::{Operand, Shape};
use crate::ops::elementwise::pointwise::WORTH_SPLITTING;
use crate::ops::elementwise::walk::Walk;

/// A copy of some elements of one operand to some elements of another.
#[derive(Debug)]
pub(crate) struct Region {
    /// One after the other in the destination: several if there are so many elements that threads may share them.
    pieces: Vec<Piece>,
}

/// A piece of a copy: some indices of the destination's slowest axis.
#[derive(Debug)]
struct Piece {
    /// Visits the elements in the order in which they are written; operand 0 is read, 1 is written.
    walk: Walk<2>,
    /// Offset of the first element that is read.
    from: usize,
    /// Offset of the first element that is written.
    to: usize,
}

/// Pieces of a large copy.
const PIECES: usize = 8;

impl Region {
    /// Copies `from`, beginning at an offset in elements and broadcast to the shape of `to`, to `to`,
    /// beginning at another.
    pub(crate) fn new(from: (&Operand, usize), to: (&Operand, usize)) -> Self {
        let shape = &to.0.ty.shape;
        let order = to.0.layout.order(shape);
        let piece = |from: &Operand, to: &Operand, [from_start, to_start]: [usize; 2]| {
            let layout = to.ty.shape.ordered(&order);
            let walk =
                Walk::new(&[from.clone(), to.clone()], &Operand { ty: to.ty.clone(), layout });
            Piece { walk, from: from_start, to: to_start }
        };
        let whole = || Region { pieces: vec![piece(from.0, to.0, [from.1, to.1])] };
        let Some(&axis) = order.iter().find(|&&axis| shape[axis] != 1) else { return whole() };
        if shape.numel() < WORTH_SPLITTING {
            return whole();
        }
        // The axis may be missing in the source, or broadcast.
        let own = (axis + from.0.ty.shape.rank()).checked_sub(shape.rank());
        let own = own.filter(|&own| from.0.ty.shape[own] != 1);
        let n = PIECES.min(shape[axis]);
        let pieces = (0..n).map(|i| {
            let indices = i * shape[axis] / n..(i + 1) * shape[axis] / n;
            let with = |operand: &Operand, axis: Option<usize>| {
                let mut operand = operand.clone();
                if let Some(axis) = axis {
                    let mut sizes = operand.ty.shape.to_vec();
                    sizes[axis] = indices.len();
                    operand.ty.shape = Shape::from(sizes);
                }
                operand
            };
            let start = own.map_or(0, |own| indices.start * from.0.layout[own]);
            let starts = [from.1 + start, to.1 + indices.start * to.0.layout[axis]];
            piece(&with(from.0, own), &with(to.0, Some(axis)), starts)
        });
        Region { pieces: pieces.collect() }
    }

    /// Copies a value to another place where it lies the same way.
    pub(crate) fn flat(value: &Operand) -> Self {
        let mut flat = value.clone();
        flat.ty.shape = Shape::from([value.ty.shape.numel()]);
        flat.layout = flat.ty.shape.row_major();
        Region::new((&flat, 0), (&flat, 0))
    }

    /// Copies all pieces.
    #[inline(always)]
    fn copy<T: Move, S: Simd>(&self, src: &[T], dst: &mut [T]) {
        for piece in &self.pieces {
            piece.copy::<T, S>(src, dst, 0);
        }
    }

    /// Copies all pieces, on the threads of the pool.
    fn split<T: Move>(&self, src: &[T], dst: &mut [T]) {
        share_out(Pieces { pieces: &self.pieces, src, dst, base: 0 });
    }
}

/// Some pieces of a part.
struct Pieces<'a, T> {
    pieces: &'a [Piece],
    src: &'a [T],
    /// The destination from element `base` on.
    dst: &'a mut [T],
    base: usize,
}

impl<T: Move> Divisible for Pieces<'_, T> {
    fn halves(self) -> Result<[Self; 2], Self> {
        if self.pieces.len() < 2 {
            return Err(self);
        }
        let Pieces { pieces, src, dst, base } = self;
        let (upper, lower) = pieces.split_at(pieces.len() / 2);
        let middle = lower[0].to;
        let (first, second) = dst.split_at_mut(middle - base);
        let of = |pieces, dst, base| Pieces { pieces, src, dst, base };
        Ok([of(upper, first, base), of(lower, second, middle)])
    }

    fn compute(self) {
        dispatch(self);
    }
}

impl<T: Move> Vectorized for Pieces<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        for piece in self.pieces {
            piece.copy::<T, S>(self.src, self.dst, self.base);
        }
    }
}

impl Piece {
    /// Copies the elements to `dst`, the destination from element `base` on.
    #[inline(always)]
    fn copy<T: Move, S: Simd>(&self, src: &[T], dst: &mut [T], base: usize) {
        let start = self.to - base;
        let Walk { outer, inner, steps, numel, reach } = &self.walk;
        if *numel == 0 {
            return;
        }
        let (inner, [src_step, dst_step]) = (*inner, *steps);
        let ends = [self.from.saturating_add(reach[0]), start.saturating_add(reach[1])];
        assert!(ends[0] <= src.len(), "the source is as long as its layout says");
        assert!(ends[1] <= dst.len(), "and so is the destination");
        // If the next axis lies together in the source, and the inner one in the destination, blocks
        // are transposed in registers.
        if let Some(&(columns, [1, dst_stride])) = outer.last()
            && src_step > 1
            && dst_step == 1
        {
            for row in (0..self.walk.n_rows()).step_by(columns) {
                let [from, to] = self.walk.row(row);
                let (src, dst) = (&src[self.from + from..], &mut dst[start + to..]);
                T::transpose::<S>(src, src_step, dst, dst_stride, inner, columns);
            }
            return;
        }
        for row in 0..self.walk.n_rows() {
            let [from, to] = self.walk.row(row);
            let (src, dst) = (&src[self.from + from..], &mut dst[start + to..]);
            if (src_step, dst_step) == (1, 1) {
                dst[..inner].copy_from_slice(&src[..inner]);
                continue;
            }
            for i in 0..inner {
                // SAFETY: all that the walk visits is within both, as asserted above.
                unsafe {
                    *dst.get_unchecked_mut(i * dst_step) = *src.get_unchecked(i * src_step);
                }
            }
        }
    }
}

/// What copies part `i` from input `i`, all to output 0.
#[derive(Debug)]
pub(crate) struct CopyParts {
    /// One part an input.
    pub(crate) parts: Vec<Region>,
    /// Size of one element.
    pub(crate) element_bytes: usize,
    /// Whether the parts leave elements of the output, which become zero.
    pub(crate) has_gaps: bool,
}

impl CopyParts {
    /// Copies one whole input.
    pub(crate) fn one(part: Region, element_bytes: usize) -> Box<dyn Kernel> {
        CopyParts { parts: vec![part], element_bytes, has_gaps: false }.kernel()
    }

    /// Makes the kernel.
    pub(crate) fn kernel(self) -> Box<dyn Kernel> {
        // Copying looks at no number, so any type of the right size will do.
        match self.element_bytes {
            8 => Box::new(Copies { parts: self, zero: 0.0_f64 }),
            4 => Box::new(Copies { parts: self, zero: 0.0_f32 }),
            2 => Box::new(Copies { parts: self, zero: bf16::ZERO }),
            _ => Box::new(Copies { parts: self, zero: 0_u8 }),
        }
    }
}

struct Copies<T> {
    parts: CopyParts,
    zero: T,
}

impl<T: Move> Kernel for Copies<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let CopyParts { parts, has_gaps, .. } = &self.parts;
        if !tile.split() || parts.iter().all(|part| part.pieces.len() < 2) {
            run_vectors(self, tile);
            return;
        }
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let y = outputs.take::<T>();
            if *has_gaps {
                y.fill(self.zero);
            }
            for (i, part) in parts.iter().enumerate() {
                part.split(inputs.get(i), y);
            }
        }
    }
}

impl<T: Move> VectorKernel for Copies<T> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let CopyParts { parts, has_gaps, .. } = &self.parts;
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let y = outputs.take::<T>();
            if *has_gaps {
                y.fill(self.zero);
            }
            for (i, part) in parts.iter().enumerate() {
                part.copy::<T, S>(inputs.get(i), y);
            }
        }
    }
}

/// What copies part `i` of input 0 to all of output `i`.
#[derive(Debug)]
pub(crate) struct CopyApart {
    /// One part an output.
    pub(crate) parts: Vec<Region>,
    /// Size of one element.
    pub(crate) element_bytes: usize,
}

impl CopyApart {
    /// Makes the kernel.
    pub(crate) fn kernel(self) -> Box<dyn Kernel> {
        match self.element_bytes {
            8 => Box::new(Apart { parts: self.parts, element: PhantomData::<f64> }),
            4 => Box::new(Apart { parts: self.parts, element: PhantomData::<f32> }),
            2 => Box::new(Apart { parts: self.parts, element: PhantomData::<bf16> }),
            _ => Box::new(Apart { parts: self.parts, element: PhantomData::<u8> }),
        }
    }
}

struct Apart<T> {
    parts: Vec<Region>,
    element: PhantomData<T>,
}

impl<T: Move> Kernel for Apart<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        if !tile.split() || self.parts.iter().all(|part| part.pieces.len() < 2) {
            run_vectors(self, tile);
            return;
        }
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            for part in &self.parts {
                part.split(inputs.get(0), outputs.take::<T>());
            }
        }
    }
}

impl<T: Move> VectorKernel for Apart<T> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            for part in &self.parts {
                part.copy::<T, S>(inputs.get(0), outputs.take::<T>());
            }
        }
    }
}

/// An element that can be copied.
trait Move: Element {
    /// Transposes a matrix, as [`transpose`] does.
    fn transpose<S: Simd>(
        src: &[Self],
        src_stride: usize,
        dst: &mut [Self],
        dst_stride: usize,
        rows: usize,
        columns: usize,
    );
}

macro_rules! moves_in_vectors {
    ($float:ty) => {
        impl Move for $float {
            #[inline(always)]
            fn transpose<S: Simd>(
                src: &[Self],
                src_stride: usize,
                dst: &mut [Self],
                dst_stride: usize,
                rows: usize,
                columns: usize,
            ) {
                transpose::<Self, S>(src, src_stride, dst, dst_stride, rows, columns);
            }
        }
    };
}

moves_in_vectors!(f32);
moves_in_vectors!(f64);

macro_rules! moves_one_by_one {
    ($element:ty) => {
        impl Move for $element {
            fn transpose<S: Simd>(
                src: &[Self],
                src_stride: usize,
                dst: &mut [Self],
                dst_stride: usize,
                rows: usize,
                columns: usize,
            ) {
                for i in 0..rows {
                    for j in 0..columns {
                        dst[j * dst_stride + i] = src[i * src_stride + j];
                    }
                }
            }
        }
    };
}

moves_one_by_one!(bf16);
moves_one_by_one!(u8);
