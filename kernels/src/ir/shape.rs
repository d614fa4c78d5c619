//! Shapes, and the layouts in which a value of some shape lies in memory.

use core::fmt;
use core::ops::Deref;

use smallvec::SmallVec;

use crate::ir::dtype::Dtype;
use crate::ir::error::OpError;

/// A number for each axis; values of few axes need no memory of their own.
type Sizes = SmallVec<[usize; 4]>;

/// The sizes of a value's axes, for one model: the population's axis never occurs in it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Shape(Sizes);

impl Shape {
    /// The shape `[]` of a single number.
    pub fn scalar() -> Self {
        Shape::default()
    }

    /// Counts the elements: the product of the sizes, 1 for `[]`; `usize::MAX` if it is greater than that.
    pub fn numel(&self) -> usize {
        self.0.iter().fold(1, |numel: usize, &size| numel.saturating_mul(size))
    }

    /// Counts the axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Gives the shape that `self` and `other` broadcast to, or `None`; torch's rule.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.rank().max(other.rank());
        let size = |shape: &Shape, axis: usize| {
            (axis + shape.rank()).checked_sub(rank).map_or(1, |axis| shape[axis])
        };
        (0..rank)
            .map(|axis| match (size(self, axis), size(other, axis)) {
                (a, b) if a == b => Some(a),
                (1, b) => Some(b),
                (a, 1) => Some(a),
                _ => None,
            })
            .collect()
    }

    /// Resolves an axis that may be negative, counted from the end; `None` if there is no such axis.
    pub fn axis(&self, axis: isize) -> Option<usize> {
        let from_start = if axis < 0 { axis.checked_add_unsigned(self.rank())? } else { axis };
        usize::try_from(from_start).ok().filter(|&axis| axis < self.rank())
    }

    /// Gives the strides, in elements, of the row-major layout.
    pub fn row_major(&self) -> Layout {
        self.ordered(&(0..self.rank()).collect::<Sizes>())
    }

    /// Gives the dense layout whose axes, from slowest to fastest, are `order`.
    ///
    /// # Panics
    ///
    /// If `order` is not a permutation of the axes.
    pub fn ordered(&self, order: &[usize]) -> Layout {
        assert_eq!(order.len(), self.rank(), "an order names each axis once");
        let mut strides = Sizes::from_elem(0, self.rank());
        let mut stride = 1;
        for &axis in order.iter().rev() {
            strides[axis] = stride;
            stride *= self[axis].max(1);
        }
        Layout(strides)
    }

    /// Gives the dense layout in which the last axis is the slowest and the others follow in order:
    /// `[.., features]` lies as `[features, ..]`, so that vectors run along the batch.
    pub fn features_first(&self) -> Layout {
        let last = self.rank().saturating_sub(1);
        let order: Sizes = (0..self.rank()).map(|i| if i == 0 { last } else { i - 1 }).collect();
        self.ordered(&order)
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Self {
        Shape(Sizes::from_slice(&sizes))
    }
}

impl From<&[usize]> for Shape {
    fn from(sizes: &[usize]) -> Self {
        Shape(sizes.into())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(sizes: Vec<usize>) -> Self {
        Shape(sizes.into())
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(sizes: I) -> Self {
        Shape(sizes.into_iter().collect())
    }
}

/// As torch prints a size: `[32, 4]`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Checks in torch's words that settings are numbers that an `int` of C holds: sums and products of two of them can
/// be counted.
pub(crate) fn check_ints<'a>(settings: impl IntoIterator<Item = &'a usize>) -> Result<(), String> {
    match settings.into_iter().all(|&setting| i32::try_from(setting).is_ok()) {
        true => Ok(()),
        false => Err("value cannot be converted to type int without overflow".to_owned()),
    }
}

/// Gives a size as a number that can be subtracted from: `isize::MAX` if it is greater than that.
pub fn signed(size: usize) -> isize {
    isize::try_from(size).unwrap_or(isize::MAX)
}

/// Prints sizes as Python prints a tuple: `(3, 4)`, `(3,)`.
pub fn tuple(sizes: &[impl ToString]) -> String {
    match sizes {
        [size] => format!("({},)", size.to_string()),
        _ => {
            let sizes: Vec<_> = sizes.iter().map(ToString::to_string).collect();
            format!("({})", sizes.join(", "))
        }
    }
}

/// How many elements apart neighbors along each axis lie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout(Sizes);

impl Layout {
    /// Gives the axes from slowest to fastest; axes of size 1 keep their place among equals.
    pub fn order(&self, shape: &Shape) -> Vec<usize> {
        let mut order: Vec<_> = (0..shape.rank()).collect();
        order.sort_by_key(|&axis| {
            (core::cmp::Reverse(if shape[axis] == 1 { usize::MAX } else { self[axis] }), axis)
        });
        order
    }

    /// Says whether elements lie in the order in which `shape` counts them.
    pub fn is_row_major(&self, shape: &Shape) -> bool {
        let mut dense = 1;
        shape.iter().zip(self.iter()).rev().all(|(&n, &stride)| {
            let fits = n <= 1 || stride == dense;
            dense *= n.max(1);
            fits
        })
    }
}

impl Layout {
    /// Says whether each element of `shape` has a place of its own, with no gaps between them. Strides of axes of one
    /// element do not count, but are no larger than those of a value that has more.
    pub fn is_dense(&self, shape: &Shape) -> bool {
        if self.rank() != shape.rank() {
            return false;
        }
        let mut axes: Sizes = (0..shape.rank()).filter(|&axis| shape[axis] > 1).collect();
        axes.sort_unstable_by_key(|&axis| self[axis]);
        let mut dense = 1;
        let lies = |&axis: &usize| {
            let follows = self[axis] == dense;
            dense = dense.saturating_mul(shape[axis]);
            follows
        };
        axes.iter().all(lies) && self.iter().all(|&stride| stride <= dense)
    }

    /// Counts the axes.
    fn rank(&self) -> usize {
        self.0.len()
    }
}

impl From<Vec<usize>> for Layout {
    fn from(strides: Vec<usize>) -> Self {
        Layout(strides.into())
    }
}

impl Deref for Layout {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

/// No value is larger: more than any machine has, and products with small numbers do not overflow.
const MAX_BYTES: usize = 1 << 56;

/// What is known of a value before it is computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape for one model.
    pub shape: Shape,
}

impl Type {
    /// Joins an element type and a shape.
    pub fn new(dtype: Dtype, shape: impl Into<Shape>) -> Self {
        Type { dtype, shape: shape.into() }
    }

    /// Checks that the elements and the strides of every layout can be counted in bytes, and gives the size in
    /// bytes.
    ///
    /// # Errors
    ///
    /// In torch's words, if not.
    pub fn checked_size_bytes(&self) -> Result<usize, OpError> {
        let mut sizes = self.shape.iter().map(|&size| size.max(1));
        let spanned = sizes.try_fold(self.dtype.size_bytes(), usize::checked_mul);
        // Rows are padded, by an eighth at most, and a few of them must be counted together.
        match spanned.filter(|&bytes| bytes <= MAX_BYTES) {
            Some(_) => Ok(self.size_bytes()),
            None => Err(OpError(format!(
                "Storage size calculation overflowed with sizes={}",
                self.shape
            ))),
        }
    }

    /// Gives the size of the elements in bytes, without padding.
    pub fn size_bytes(&self) -> usize {
        self.dtype.size_bytes().saturating_mul(self.shape.numel())
    }
}

/// `f32[32, 4]`.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// A value as a kernel meets it: its type and where its elements lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Element type and shape.
    pub ty: Type,
    /// Strides in elements, one an axis.
    pub layout: Layout,
}

impl Operand {
    /// Describes a value that lies row after row.
    pub fn row_major(ty: Type) -> Self {
        let layout = ty.shape.row_major();
        Operand { ty, layout }
    }

    /// Says whether the elements lie in the order in which the shape counts them.
    pub fn is_row_major(&self) -> bool {
        self.layout.is_row_major(&self.ty.shape)
    }

    /// Asserts that elements can be addressed without overflow, and that each has a place of its own: what a kernel
    /// that works with addresses builds on, whoever asks for it.
    ///
    /// # Panics
    ///
    /// If not.
    pub(crate) fn assert_addressable(&self) {
        let is_countable = self.ty.checked_size_bytes().is_ok();
        assert!(is_countable && self.layout.is_dense(&self.ty.shape), "operands lie without gaps");
    }
}

/// Says in torch's words that a shape has no such axis.
pub(crate) fn no_such_axis(axis: isize, shape: &Shape) -> OpError {
    // torch counts [] as if it had one axis.
    let rank = shape.rank().max(1) as isize;
    OpError(format!(
        "Dimension out of range (expected to be in range of [{}, {}], but got {axis})",
        -rank,
        rank - 1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_as_in_torch() {
        let of = |a: &[usize], b: &[usize]| Shape::from(a).broadcast(&Shape::from(b));
        assert_eq!(of(&[32, 16], &[16]), Some(Shape::from([32, 16])));
        assert_eq!(of(&[5, 1, 4], &[3, 1]), Some(Shape::from([5, 3, 4])));
        assert_eq!(of(&[], &[2]), Some(Shape::from([2])));
        assert_eq!(of(&[3], &[4]), None);
    }

    #[test]
    fn features_first_puts_the_batch_on_the_fastest_axis() {
        let shape = Shape::from([32, 16]);
        assert_eq!(&*shape.features_first(), &[1, 32]);
        assert_eq!(shape.features_first().order(&shape), [1, 0]);
        assert!(shape.row_major().is_row_major(&shape));
        assert!(!shape.features_first().is_row_major(&shape));
        assert_eq!(&*Shape::from([2, 3, 4]).features_first(), &[3, 1, 6]);
    }

    #[test]
    fn a_dense_layout_has_neither_gaps_nor_overlaps() {
        let is_dense = |sizes: &[usize], strides: &[usize]| {
            Layout::from(strides.to_vec()).is_dense(&Shape::from(sizes))
        };
        for shape in [&[2, 3, 4][..], &[], &[1], &[0, 3], &[3, 1, 0], &[1, 5, 1]].map(Shape::from) {
            assert!(shape.row_major().is_dense(&shape) && shape.features_first().is_dense(&shape));
        }
        assert!(is_dense(&[2, 3], &[1, 2]) && is_dense(&[2, 1, 3], &[3, 6, 1]));
        assert!(!is_dense(&[2, 3], &[4, 1]) && !is_dense(&[2, 3], &[1, 1]));
        assert!(!is_dense(&[2, 3], &[3]) && !is_dense(&[2], &[1, 1]));
        assert!(!is_dense(&[2, 1], &[1, 1 << 40]) && !is_dense(&[1 << 40, 1 << 40], &[0, 0]));
    }

    #[test]
    fn negative_axes_count_from_the_end() {
        let shape = Shape::from([2, 3]);
        assert_eq!(shape.axis(-1), Some(1));
        assert_eq!(shape.axis(1), Some(1));
        assert_eq!(shape.axis(2), None);
        assert_eq!(shape.axis(-3), None);
    }
}
