//! A matrix product of a kernel's first two inputs, with its third as the bias.

use core::marker::PhantomData;

use super::dot::Dot;
use super::gemm::{Gemm, Product, Strides};
use super::large;
use super::simd::{Float, Simd, Vectorized, dispatch};
use super::tile::Tile;
use crate::dtype::Dtype;
use crate::op::Kernel;
use crate::shape::Operand;

/// From this many multiply-adds on, the `gemm` crate's blocking for large caches pays.
const LARGE: usize = 1 << 24;

/// How a product is computed: it decides the order of sums, so it follows from the sizes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Dot products ([`Dot`]).
    Dot,
    /// Register tiles ([`Gemm`]).
    Small,
    /// The `gemm` crate ([`large`]).
    Large,
}

impl Way {
    /// Chooses between [`Small`](Way::Small) and [`Large`](Way::Large).
    pub fn of(product: &Product) -> Way {
        if product.m * product.n * product.k < LARGE { Way::Small } else { Way::Large }
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

/// Makes the kernel of a product.
pub fn product_kernel(dtype: Dtype, product: Product, way: Way) -> Box<dyn Kernel> {
    match dtype {
        Dtype::F64 => Box::new(ProductKernel::<f64> { product, way, of: PhantomData }),
        _ => Box::new(ProductKernel::<f32> { product, way, of: PhantomData }),
    }
}

struct ProductKernel<T> {
    product: Product,
    way: Way,
    of: PhantomData<T>,
}

impl<T: Float> Kernel for ProductKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        match self.way {
            Way::Large => large::run::<T>(&self.product, tile),
            Way::Dot | Way::Small => dispatch(Models { kernel: self, tile }),
        }
    }

    fn scratch_bytes(&self) -> usize {
        match self.way {
            Way::Small => self.product.scratch_elements() * size_of::<T>(),
            Way::Dot | Way::Large => 0,
        }
    }
}

/// The product for every model of a tile, inside one instruction set.
struct Models<'a, 'b, T> {
    kernel: &'a ProductKernel<T>,
    tile: &'a mut Tile<'b>,
}

impl<T: Float> Vectorized for Models<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let ProductKernel { product, way, .. } = self.kernel;
        for model in 0..self.tile.models() {
            let (inputs, mut outputs, scratch) = self.tile.model(model).split();
            let (a, b, c) = (inputs.get::<T>(0), inputs.get::<T>(1), outputs.take::<T>());
            let bias = (inputs.len() > 2).then(|| inputs.get::<T>(2));
            match way {
                Way::Dot => Dot {
                    rows: product.m,
                    columns: product.n,
                    k: product.k,
                    a,
                    b,
                    bias,
                    activation: product.activation,
                    c,
                }
                .run::<S>(),
                Way::Small | Way::Large => {
                    let scratch =
                        &mut bytemuck::cast_slice_mut(scratch)[..product.scratch_elements()];
                    Gemm { product: *product, a, b, bias, c, scratch }.run::<S>();
                }
            }
        }
    }
}
