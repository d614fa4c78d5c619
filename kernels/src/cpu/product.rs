//! A matrix product of a kernel's first two inputs, with its third as the bias.

use core::marker::PhantomData;

use super::dot::Dot;
use super::gemm::{Finish, Gemm, Product, Strides};
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
    /// Dot products of rows.
    Dot,
    /// Register tiles ([`Gemm`]).
    Small,
    /// The `gemm` crate.
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

/// Makes the kernel of a product: inputs `A`, `B`, then the bias if `has_bias`, then the layer's output if
/// the product ends with [`Finish::ReluGradient`].
pub fn product_kernel(dtype: Dtype, product: Product, way: Way, has_bias: bool) -> Box<dyn Kernel> {
    match dtype {
        Dtype::F64 => Box::new(ProductKernel::<f64>::new(product, way, has_bias)),
        _ => Box::new(ProductKernel::<f32>::new(product, way, has_bias)),
    }
}

struct ProductKernel<T> {
    /// Oriented, unless the way is [`Way::Dot`].
    product: Product,
    /// Which inputs are `A` and `B` of the oriented product.
    a: usize,
    b: usize,
    bias: Option<usize>,
    output: Option<usize>,
    way: Way,
    scratch_elements: usize,
    of: PhantomData<T>,
}

impl<T: Float> ProductKernel<T> {
    fn new(product: Product, way: Way, has_bias: bool) -> Self {
        let turned = way != Way::Dot && product.is_turned();
        let has_output = product.finish == Finish::ReluGradient;
        ProductKernel {
            product: if turned { product.oriented() } else { product },
            a: usize::from(turned),
            b: usize::from(!turned),
            bias: has_bias.then_some(2),
            output: has_output.then_some(2 + usize::from(has_bias)),
            way,
            scratch_elements: if way == Way::Small { product.scratch_elements() } else { 0 },
            of: PhantomData,
        }
    }
}

impl<T: Float> Kernel for ProductKernel<T> {
    fn run(&self, tile: &mut Tile<'_>) {
        if self.way == Way::Large {
            let split = tile.split();
            for model in 0..tile.models() {
                let (inputs, mut outputs, _) = tile.model(model).split();
                large::multiply(
                    &self.product,
                    inputs.get::<T>(self.a),
                    inputs.get::<T>(self.b),
                    outputs.take(),
                    split,
                );
            }
        }
        dispatch(Models { kernel: self, tile });
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch_elements * size_of::<T>()
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
        let kernel = self.kernel;
        let product = &kernel.product;
        for model in 0..self.tile.models() {
            let (inputs, mut outputs, scratch) = self.tile.model(model).split();
            let (a, b) = (inputs.get::<T>(kernel.a), inputs.get::<T>(kernel.b));
            let bias = kernel.bias.map(|bias| inputs.get::<T>(bias));
            let output = kernel.output.map(|output| inputs.get::<T>(output));
            let c = outputs.take::<T>();
            match kernel.way {
                Way::Dot => {
                    let Product { m: rows, n: columns, k, finish, .. } = *product;
                    Dot { rows, columns, k, a, b, bias, finish, c }.run::<S>();
                }
                Way::Small => {
                    let scratch = bytemuck::cast_slice_mut(scratch);
                    Gemm { product, a, b, bias, output, c, scratch }.run::<S>();
                }
                Way::Large => large::Epilogue { product, bias, output, c }.run::<S>(),
            }
        }
    }
}
