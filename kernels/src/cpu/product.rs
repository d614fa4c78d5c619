//! A matrix product of a kernel's first two inputs, with its third as the bias.
//!
//! A model's product may be split over threads: between elements of the result, never within a sum, so
//! the bits stay.

use core::marker::PhantomData;

use super::dot::{Dot, DotsOfTile, Sizes, for_length};
use super::gemm::{BiasAxis, Finish, Gemm, Product, Strides, WORTH_SPLITTING, pack_rows};
use super::large;
use super::share::{Divisible, share_out};
use super::simd::{Float, Simd, Vectorized, dispatch};
use super::tile::{Input, Output, Tile, VectorKernel, run_vectors};
use super::transpose::transpose;
use crate::cpu::kernel::Kernel;
use crate::execute::executor::with_scratch;
use crate::ir::dtype::Dtype;
use crate::ir::shape::Operand;

/// From this many multiply-adds on, packing both factors in blocks for the caches pays.
const LARGE: usize = 1 << 24;

/// Unless both `m` and `n` are so large, what is packed is read too few times.
const LARGE_SIDE: usize = 17;

/// How a product is computed, which follows from the sizes alone. [`Small`](Way::Small) and [`Large`](Way::Large) give the
/// same bits, [`Dot`](Way::Dot) adds in an order of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Dot products of rows.
    Dot,
    /// Register tiles ([`Gemm`]).
    Small,
    /// Register tiles of packed factors ([`large`]).
    Large,
}

impl Way {
    /// Chooses between [`Small`](Way::Small) and [`Large`](Way::Large).
    pub fn of(product: &Product) -> Way {
        let Product { m, n, k, .. } = *product;
        let is_large = m * n * k >= LARGE && m.min(n) >= LARGE_SIDE;
        if is_large { Way::Large } else { Way::Small }
    }
}

/// A value as a matrix: its last axis are the columns, all others together the rows.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// How many rows.
    pub rows: usize,
    /// How many columns.
    pub columns: usize,
    /// Their strides.
    pub strides: Strides,
}

impl Matrix {
    /// Gives the matrix; `None` if the leading axes do not lie one stride apart, or neither rows nor
    /// columns are contiguous.
    pub fn of(operand: &Operand) -> Option<Matrix> {
        let (shape, layout) = (&operand.ty.shape, &operand.layout);
        let last = shape.rank().checked_sub(1)?;
        if shape.numel() == 0 {
            let (rows, columns) = (shape[..last].iter().product(), shape[last]);
            let strides = Strides { row: columns.max(1), column: 1 };
            return Some(Matrix { rows, columns, strides });
        }
        let mut leading = (0..last).rev().filter(|&axis| shape[axis] != 1);
        let (mut rows, mut row) = (1, shape[last]);
        if let Some(axis) = leading.next() {
            (rows, row) = (shape[axis], layout[axis]);
            for axis in leading {
                if layout[axis] != rows * row {
                    return None;
                }
                rows *= shape[axis];
            }
        }
        let column = if shape[last] == 1 { 1 } else { layout[last] };
        let matrix = Matrix { rows, columns: shape[last], strides: Strides { row, column } };
        (row == 1 || column == 1).then_some(matrix)
    }

    /// Gives the matrix of an operand that [`of`](Matrix::of) takes.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn expect(operand: &Operand) -> Matrix {
        Matrix::of(operand).expect("the op took this layout")
    }
}

/// Makes the kernel of a product: inputs `A`, `B`, then the bias if `has_bias`, then the layer's output if
/// the product ends with [`Finish::ReluGradient`].
pub fn product_kernel(dtype: Dtype, product: Product, way: Way, has_bias: bool) -> Box<dyn Kernel> {
    make(dtype, product, way, has_bias, vec![[0; 3]])
}

/// Makes the kernel of several products of the same sizes: of each, `starts` says where its `A`, `B` and `C`
/// begin. The matrices `C` lie one behind the other.
pub fn batched_kernel(
    dtype: Dtype,
    product: Product,
    way: Way,
    starts: Vec<[usize; 3]>,
) -> Box<dyn Kernel> {
    make(dtype, product, way, false, starts)
}

fn make(
    dtype: Dtype,
    product: Product,
    way: Way,
    has_bias: bool,
    starts: Vec<[usize; 3]>,
) -> Box<dyn Kernel> {
    assert!(product.is_countable(), "the elements of a product can be addressed");
    match dtype {
        Dtype::F64 => Box::new(ProductKernel::<f64>::new(product, way, has_bias, starts)),
        _ => Box::new(ProductKernel::<f32>::new(product, way, has_bias, starts)),
    }
}

/// Computes one product, whose sizes may be known only now, in the [`Way`] that they choose; on the threads of the pool
/// if `split`. It is [oriented](Product::oriented), has no bias and is not finished in any way; `scratch` is as
/// [`Gemm`] wants it.
pub fn multiply<T: Float>(
    product: Product,
    [a, b]: [&[T]; 2],
    c: &mut [T],
    scratch: &mut [T],
    split: bool,
) {
    let Product { m, n, k, .. } = product;
    if Way::of(&product) == Way::Large {
        let product = &product;
        large::multiply(
            Gemm { product, a, b, bias: None, output: None, c, scratch: &mut [] },
            split,
        );
    } else if split && m * n * k >= WORTH_SPLITTING {
        Part { product, a, b, bias: None, output: None, c }.split(scratch);
    } else {
        dispatch(Gemm { product: &product, a, b, bias: None, output: None, c, scratch });
    }
}

struct ProductKernel<T> {
    /// Oriented, unless the way is [`Way::Dot`].
    product: Product,
    /// Whether the product gives `Cᵀ`, in scratch memory ([`Product::thin`]).
    is_thin: bool,
    /// Which inputs are `A` and `B` of the oriented product.
    a: usize,
    b: usize,
    bias: Option<usize>,
    output: Option<usize>,
    way: Way,
    /// Where each product's `A`, `B` and `C` begin.
    starts: Vec<[usize; 3]>,
    scratch_elements: usize,
    of: PhantomData<T>,
}

impl<T: Float> ProductKernel<T> {
    fn new(product: Product, way: Way, has_bias: bool, mut starts: Vec<[usize; 3]>) -> Self {
        // An empty operand has no place where a product could begin, whatever its layout says.
        if product.m == 0 || product.n == 0 {
            starts.clear();
        }
        if product.k == 0 {
            starts.iter_mut().for_each(|start| (start[0], start[1]) = (0, 0));
        }
        let turned = way != Way::Dot && product.is_turned();
        let has_output = product.finish == Finish::ReluGradient;
        let product = if turned { product.oriented() } else { product };
        let is_small =
            way == Way::Small && !has_bias && product.m * product.n * product.k < WORTH_SPLITTING;
        let thin = product.thin().filter(|_| is_small && product.k > 0);
        let swaps = turned != thin.is_some();
        if swaps {
            starts.iter_mut().for_each(|start| start.swap(0, 1));
        }
        let scratch_elements = match thin {
            Some(turned) => turned.m * turned.n,
            None if way == Way::Small => product.scratch_elements(),
            None => 0,
        };
        ProductKernel {
            product: thin.unwrap_or(product),
            is_thin: thin.is_some(),
            a: usize::from(swaps),
            b: usize::from(!swaps),
            bias: has_bias.then_some(2),
            output: has_output.then_some(2 + usize::from(has_bias)),
            way,
            starts,
            scratch_elements,
            of: PhantomData,
        }
    }

    /// Gives the operands of all models, and scratch memory.
    #[inline(always)]
    fn operands<'t>(&self, tile: &'t mut Tile<'_>) -> (TileOperands<'t, T>, &'t mut [T]) {
        let (inputs, mut outputs, scratch) = tile.operands();
        let operands = TileOperands {
            a: inputs.get(self.a),
            b: inputs.get(self.b),
            bias: self.bias.map(|bias| inputs.get(bias)),
            output: self.output.map(|output| inputs.get(output)),
            c: outputs.take(),
        };
        (operands, bytemuck::cast_slice_mut(scratch))
    }
}

/// The operands of all models.
struct TileOperands<'t, T> {
    a: Input<'t, T>,
    b: Input<'t, T>,
    bias: Option<Input<'t, T>>,
    output: Option<Input<'t, T>>,
    c: Output<'t, T>,
}

impl<T: Float> TileOperands<'_, T> {
    #[inline(always)]
    fn at(&mut self, model: usize) -> Operands<'_, T> {
        Operands {
            a: self.a.at(model),
            b: self.b.at(model),
            bias: self.bias.map(|bias| bias.at(model)),
            output: self.output.map(|output| output.at(model)),
            c: self.c.at(model),
        }
    }
}

/// The operands of all products of one model.
struct Operands<'a, T> {
    a: &'a [T],
    b: &'a [T],
    bias: Option<&'a [T]>,
    output: Option<&'a [T]>,
    c: &'a mut [T],
}

impl<T> Operands<'_, T> {
    /// Gives the operands of the product that begins at `start`.
    #[inline(always)]
    fn at(&mut self, [a, b, c]: [usize; 3], product: Product) -> Part<'_, T> {
        let Operands { bias, output, .. } = *self;
        Part { product, a: &self.a[a..], b: &self.b[b..], bias, output, c: &mut self.c[c..] }
    }
}

impl<T: Float> Kernel for ProductKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        let Product { m, n, k, .. } = self.product;
        let split = tile.split() && m * n * k >= WORTH_SPLITTING;
        // Many products are shared out whole.
        let is_shared = tile.split()
            && self.way != Way::Dot
            && self.starts.len() >= rayon::current_num_threads().max(2)
            && self.starts.len() * m * n * k >= WORTH_SPLITTING;
        if self.way != Way::Large && !split && !is_shared {
            match self.way {
                Way::Dot => run_vectors(&Dots(self), tile),
                _ => run_vectors(self, tile),
            }
            return;
        }
        let models = tile.models();
        let (mut operands, scratch) = self.operands(tile);
        for model in 0..models {
            let mut operands = operands.at(model);
            if is_shared {
                let Operands { a, b, bias, output, ref mut c } = operands;
                let starts = &self.starts;
                share_out(Several { kernel: self, starts, a, b, bias, output, c, base: 0 });
                continue;
            }
            for &start in &self.starts {
                let part = operands.at(start, self.product);
                match self.way {
                    Way::Large => part.multiply_large(split),
                    Way::Dot => part.dots().split(),
                    Way::Small => part.split(scratch),
                }
            }
        }
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch_elements * size_of::<T>()
    }

    fn table_bytes(&self) -> usize {
        size_of_val(self.starts.as_slice())
    }
}

impl<T: Float> VectorKernel for ProductKernel<T> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let models = tile.models();
        let (mut operands, scratch) = self.operands(tile);
        for model in 0..models {
            let mut operands = operands.at(model);
            for &start in &self.starts {
                self.compute::<S>(operands.at(start, self.product), scratch);
            }
        }
    }
}

impl<T: Float> ProductKernel<T> {
    /// Computes one product.
    #[inline(always)]
    fn compute<S: Simd>(&self, part: Part<'_, T>, scratch: &mut [T]) {
        if self.is_thin {
            let Part { product: Product { m, n, .. }, c, .. } = part;
            let turned = &mut scratch[..m * n];
            Part { c: turned, ..part }.multiply::<S>(&mut []);
            transpose::<T, S>(turned, n, c, m, m, n);
        } else {
            part.multiply::<S>(scratch);
        }
    }
}

/// Some of the products of one model.
struct Several<'a, T> {
    kernel: &'a ProductKernel<T>,
    starts: &'a [[usize; 3]],
    a: &'a [T],
    b: &'a [T],
    bias: Option<&'a [T]>,
    output: Option<&'a [T]>,
    /// All their results, one behind the other, from element `base` on.
    c: &'a mut [T],
    base: usize,
}

impl<T: Float> Divisible for Several<'_, T> {
    fn halves(self) -> Result<[Self; 2], Self> {
        let Product { m, n, k, .. } = self.kernel.product;
        if self.starts.len() < 2 || self.starts.len() * m * n * k < WORTH_SPLITTING {
            return Err(self);
        }
        let Several { kernel, starts, a, b, bias, output, c, base } = self;
        let (upper, lower) = starts.split_at(starts.len() / 2);
        let (first, second) = c.split_at_mut(lower[0][2] - base);
        let of = |starts, c, base| Several { kernel, starts, a, b, bias, output, c, base };
        Ok([of(upper, first, base), of(lower, second, lower[0][2])])
    }

    fn compute(self) {
        with_scratch(Kernel::scratch_bytes(self.kernel), |scratch| {
            dispatch(OnScratch { several: self, scratch: bytemuck::cast_slice_mut(scratch) });
        });
    }
}

/// Products that one thread computes.
struct OnScratch<'a, 's, T> {
    several: Several<'a, T>,
    scratch: &'s mut [T],
}

impl<T: Float> Vectorized for OnScratch<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let OnScratch { several, scratch } = self;
        let Several { kernel, starts, a, b, bias, output, c, base } = several;
        let mut operands = Operands { a, b, bias, output, c };
        for &[a, b, c] in starts {
            let part = operands.at([a, b, c - base], kernel.product);
            match kernel.way {
                Way::Large => part.multiply_large(false),
                _ => kernel.compute::<S>(part, scratch),
            }
        }
    }
}

/// The kernel of dot products: a function of its own, so that register tiles share their registers with
/// nobody.
struct Dots<'a, T>(&'a ProductKernel<T>);

impl<T: Float> VectorKernel for Dots<'_, T> {
    #[inline(always)]
    fn run<S: Simd>(&self, tile: &mut Tile<'_>) {
        let models = tile.models();
        let (TileOperands { a, b, bias, c, .. }, _) = self.0.operands(tile);
        let (sizes, starts) = (self.0.product.as_dots(), &self.0.starts);
        for_length::<T, T, S>(sizes.k, DotsOfTile { sizes, starts, models, a, b, bias, c });
    }
}

impl Product {
    /// Says whether places of elements are counted without overflow: what the assertions of [`Gemm`] and [`Dot`] build
    /// on, whose sizes come from operands.
    pub(super) fn is_countable(&self) -> bool {
        const MOST: usize = 1 << 58;
        let counts = |rows: usize, columns: usize, strides: Strides| {
            let end = |n: usize, stride: usize| n.saturating_sub(1).saturating_mul(stride);
            let reach = end(rows, strides.row).saturating_add(end(columns, strides.column));
            rows.saturating_mul(columns).max(reach) <= MOST
        };
        let Product { m, n, k, .. } = *self;
        counts(m, k, self.a) && counts(k, n, self.b) && counts(m, n, self.c)
    }

    /// Gives the sizes of the product of dot products.
    pub(super) fn as_dots(&self) -> Sizes {
        Sizes { rows: self.m, columns: self.n, k: self.k, finish: self.finish }
    }
}

/// The operands of one product, or of some of its rows.
struct Part<'a, T> {
    /// With as many rows as there are.
    product: Product,
    a: &'a [T],
    b: &'a [T],
    bias: Option<&'a [T]>,
    output: Option<&'a [T]>,
    c: &'a mut [T],
}

impl<'a, T: Float> Part<'a, T> {
    /// Computes the product, which is a small one.
    #[inline(always)]
    fn multiply<S: Simd>(self, scratch: &mut [T]) {
        let Part { ref product, a, b, bias, output, c } = self;
        Gemm { product, a, b, bias, output, c, scratch }.run::<S>();
    }

    /// Computes a large product; on the threads of the pool if `split`.
    fn multiply_large(self, split: bool) {
        let Part { ref product, a, b, bias, output, c } = self;
        large::multiply(Gemm { product, a, b, bias, output, c, scratch: &mut [] }, split);
    }

    /// Gives the product as dot products.
    #[inline(always)]
    fn dots(self) -> Dot<'a, T> {
        let Part { product, a, b, bias, c, .. } = self;
        let Product { m: rows, n: columns, k, .. } = product;
        let (a, b, c) = (&a[..rows * k], &b[..columns * k], &mut c[..rows * columns]);
        Dot { sizes: product.as_dots(), a, b, bias, c }
    }

    /// Computes the product, which is a small one, on the threads of the pool.
    fn split(self, scratch: &mut [T]) {
        if !self.product.packs() {
            return share_out(self);
        }
        let rest = self.product.k * self.product.packed().b.row;
        share_out(Pack { product: self.product, b: self.b, to: &mut scratch[..rest] });
        share_out(Part { product: self.product.packed(), b: scratch, ..self });
    }

    /// Splits off the first `row` rows.
    fn split_at(self, row: usize) -> [Self; 2] {
        let Part { product, a, b, bias, output, c } = self;
        let (upper_c, lower_c) = c.split_at_mut(row * product.c.row);
        let (upper_bias, lower_bias) = match (bias, product.bias) {
            (Some(bias), BiasAxis::Rows) => (Some(&bias[..row]), Some(&bias[row..])),
            (bias, _) => (bias, bias),
        };
        let lower_output = output.map(|output| &output[row * product.c.row..]);
        let upper = Product { m: row, ..product };
        let lower = Product { m: product.m - row, ..product };
        [
            Part { product: upper, a, b, bias: upper_bias, output, c: upper_c },
            Part {
                product: lower,
                a: &a[row * product.a.row..],
                b,
                bias: lower_bias,
                output: lower_output,
                c: lower_c,
            },
        ]
    }
}

impl<T: Float> Divisible for Part<'_, T> {
    fn halves(self) -> Result<[Self; 2], Self> {
        let Product { m, n, k, .. } = self.product;
        // Whole register tiles of every instruction set, if there are many.
        let unit = if m < 96 { 4 } else { 24 };
        let at = m.div_ceil(2).next_multiple_of(unit);
        let is_small = m * n * k < WORTH_SPLITTING || at >= m;
        if is_small { Err(self) } else { Ok(self.split_at(at)) }
    }

    fn compute(self) {
        dispatch(self);
    }
}

impl<T: Float> Vectorized for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        self.multiply::<S>(&mut []);
    }
}

/// The packing of `product.k` rows of `B`.
struct Pack<'a, T> {
    product: Product,
    b: &'a [T],
    to: &'a mut [T],
}

impl<T: Float> Divisible for Pack<'_, T> {
    fn halves(self) -> Result<[Self; 2], Self> {
        let at = self.product.k / 2;
        if self.product.k * self.product.n < WORTH_SPLITTING || at == 0 {
            return Err(self);
        }
        let Pack { product, b, to } = self;
        let (upper, lower) = to.split_at_mut(at * product.packed().b.row);
        let of = |k, b, to| Pack { product: Product { k, ..product }, b, to };
        Ok([of(at, b, upper), of(product.k - at, &b[at * product.b.row..], lower)])
    }

    fn compute(self) {
        dispatch(self);
    }
}

impl<T: Float> Vectorized for Pack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        pack_rows::<T, S>(&self.product, self.b, self.to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_products_have_large_sides() {
        let way = |m, n, k| {
            let strides = Strides { row: 1, column: 1 };
            let (bias, finish) = (BiasAxis::Columns, Finish::Sum);
            Way::of(&Product { m, n, k, a: strides, b: strides, c: strides, bias, finish })
        };
        assert_eq!(way(256, 256, 256), Way::Large);
        assert_eq!(way(17, 1024, 1024), Way::Large);
        assert_eq!(way(255, 256, 256), Way::Small);
        assert_eq!([way(16, 2048, 1024), way(2048, 1, 8192), way(1, 2048, 8192)], [Way::Small; 3]);
    }
}
