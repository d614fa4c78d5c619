//! [`Input`]: arrays on their way to the models of a population.

use ndarray::{ArrayBase, ArrayView, ArrayView2, CowArray, Data, Dimension, IxDyn};
use neurarch_kernels::dtype::{Dtype, Element};

/// Numbers for the models of a population: an array `[models, ..]`, or one array for all of them.
///
/// Every array and view of ndarray converts into the first form. Row-major arrays are read where they
/// are; others are copied first.
///
/// # Example
///
/// ```
/// # use neurarch_systems::array::Input;
/// let each = ndarray::Array3::<f32>::zeros((10_000, 32, 4)); // A minibatch of its own for each model.
/// let input = Input::from(&each);
/// assert_eq!(input.shape(), [32, 4]);
/// let input = Input::shared(&each.index_axis(ndarray::Axis(0), 0)); // One minibatch for all.
/// assert_eq!(input.shape(), [32, 4]);
/// ```
#[derive(Clone, Debug)]
pub struct Input<'a, T: Element> {
    array: CowArray<'a, T, IxDyn>,
    shared: bool,
}

impl<'a, T: Element> Input<'a, T> {
    /// Gives every model the same numbers: `array` has no axis of models.
    pub fn shared<S: Data<Elem = T>, D: Dimension>(array: &'a ArrayBase<S, D>) -> Self {
        Input { array: row_major(array.view()), shared: true }
    }

    /// Gives the sizes of the axes behind that of the models.
    pub fn shape(&self) -> &[usize] {
        match self.shared {
            true => self.array.shape(),
            false => self.array.shape().get(1..).unwrap_or(&[]),
        }
    }

    /// Counts the models that there are numbers for; `None` if they are for all.
    pub fn models(&self) -> Option<usize> {
        // An array without axes is one number, for one model.
        (!self.shared).then(|| self.array.shape().first().copied().unwrap_or(1))
    }

    /// Forgets the element type.
    pub(crate) fn erase(&self) -> Erased<'_> {
        let elements = self.array.as_slice().unwrap_or(&[]);
        Erased {
            dtype: T::DTYPE,
            shape: self.shape(),
            models: self.models(),
            bytes: bytemuck::must_cast_slice(elements),
        }
    }
}

impl<'a, T: Element, D: Dimension> From<ArrayView<'a, T, D>> for Input<'a, T> {
    fn from(array: ArrayView<'a, T, D>) -> Self {
        Input { array: row_major(array), shared: false }
    }
}

impl<'a, T: Element, S: Data<Elem = T>, D: Dimension> From<&'a ArrayBase<S, D>> for Input<'a, T> {
    fn from(array: &'a ArrayBase<S, D>) -> Self {
        array.view().into()
    }
}

fn row_major<T: Element, D: Dimension>(array: ArrayView<'_, T, D>) -> CowArray<'_, T, IxDyn> {
    let array = array.into_dyn();
    match array.is_standard_layout() {
        true => array.into(),
        false => array.as_standard_layout().into_owned().into(),
    }
}

/// An [`Input`] whose element type is known at run time only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Erased<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    pub(crate) models: Option<usize>,
    pub(crate) bytes: &'a [u8],
}

/// A data set that is at hand as a whole, and the order in which each model goes through it.
///
/// Source: `torch.utils.data.DataLoader` over a `TensorDataset`, its `batch_sampler` given by `order`.
#[derive(Clone, Debug)]
pub struct Batches<'a, X: Element, Y: Element> {
    /// The items' inputs, `[items, ..]`.
    pub inputs: Input<'a, X>,
    /// The items' targets, `[items, ..]`.
    pub targets: Input<'a, Y>,
    /// For each model, the numbers of the items in the order in which it meets them: `[models, total]`.
    pub order: ArrayView2<'a, u32>,
    /// Items a minibatch. The last one has what is left.
    pub batch_size: usize,
}

impl<'a, X: Element, Y: Element> Batches<'a, X, Y> {
    /// Joins inputs `[items, ..]`, targets `[items, ..]` and each model's order `[models, total]`.
    pub fn new<D: Dimension, E: Dimension>(
        inputs: ArrayView<'a, X, D>,
        targets: ArrayView<'a, Y, E>,
        order: ArrayView2<'a, u32>,
        batch_size: usize,
    ) -> Self {
        let (inputs, targets) = (row_major(inputs), row_major(targets));
        Batches {
            inputs: Input { array: inputs, shared: true },
            targets: Input { array: targets, shared: true },
            order,
            batch_size,
        }
    }
}
