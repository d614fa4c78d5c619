//! [`Input`]: arrays on their way to the models of a population.

use core::fmt::Debug;
use core::ops::Range;
use std::sync::Arc;

use ndarray::{Array, ArrayD, ArrayView, ArrayView2, Axis, CowArray, Dimension, Ix2, IxDyn};
use neurarch_kernels::ir::dtype::{Dtype, Element, bf16, f16};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::tree::Arguments;

use crate::compile::entrance::Entrance;
use crate::errors::StepError;

/// Numbers for the models of a population: an array `[models, ..]`, or one array for all of them.
///
/// Every array and view of ndarray converts into the first form. Row-major arrays are read where they
/// are; others are copied first.
///
/// # Example
///
/// ```
/// # use neurarch_systems::compile::array::Input;
/// let each = ndarray::Array3::<f32>::zeros((10_000, 32, 4)); // A minibatch of its own for each model.
/// let input = Input::from(&each);
/// assert_eq!(input.shape(), [32, 4]);
/// let input = Input::shared(each.index_axis(ndarray::Axis(0), 0)); // One minibatch for all.
/// assert_eq!(input.shape(), [32, 4]);
/// ```
#[derive(Clone, Debug)]
pub struct Input<'a, T: Element> {
    array: CowArray<'a, T, IxDyn>,
    shared: bool,
    needs_gradient: bool,
}

impl<'a, T: Element> Input<'a, T> {
    /// Gives each model numbers of its own: `array` is `[models, ..]`.
    pub fn each<D: Dimension>(array: ArrayView<'a, T, D>) -> Self {
        Input { array: row_major(array).into_dyn(), shared: false, needs_gradient: false }
    }

    /// Gives every model the same numbers: `array` has no axis of models.
    pub fn shared<D: Dimension>(array: ArrayView<'a, T, D>) -> Self {
        Input { array: row_major(array).into_dyn(), shared: true, needs_gradient: false }
    }

    /// Asks for the gradient of these numbers: [`input_gradient`](crate::execute::step::input_gradient) has it after
    /// `backward`. The forward pass that gets them runs eagerly, with the same bits; what trains whole steps
    /// has no use for it.
    ///
    /// Source: `torch.Tensor.requires_grad_`.
    #[must_use]
    pub fn requires_grad(self) -> Self {
        Input { needs_gradient: true, ..self }
    }

    /// Returns whether somebody asked for their gradient.
    pub fn needs_gradient(&self) -> bool {
        self.needs_gradient
    }

    /// Returns the sizes of the axes behind that of the models.
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

    /// Takes some items of the batch: a part of the first axis behind that of the models. Others than row-major parts are
    /// copied.
    ///
    /// # Panics
    ///
    /// If there is no such axis, or it is shorter.
    pub(crate) fn items(&self, items: Range<usize>) -> Input<'_, T> {
        let axis = Axis(usize::from(!self.shared));
        let part = self.array.slice_axis(axis, items.into());
        Input { array: row_major(part), shared: self.shared, needs_gradient: false }
    }

    /// Forgets the element type.
    pub(crate) fn erase(&self) -> Erased<'_> {
        let elements = self.array.as_slice().unwrap_or(&[]);
        Erased {
            dtype: T::DTYPE,
            shape: self.shape(),
            models: self.models(),
            bytes: bytemuck::cast_slice(elements),
            needs_gradient: self.needs_gradient,
        }
    }
}

impl<T: Element> Input<'_, T> {
    /// Forgets the element type; all axes are one model's.
    pub(crate) fn erase_of_one(&self) -> Erased<'_> {
        Erased { shape: self.array.shape(), models: None, ..self.erase() }
    }
}

impl<'a, T: Element, D: Dimension> From<ArrayView<'a, T, D>> for Input<'a, T> {
    fn from(array: ArrayView<'a, T, D>) -> Self {
        Input::each(array)
    }
}

impl<'a, T: Element, D: Dimension> From<&'a Array<T, D>> for Input<'a, T> {
    fn from(array: &'a Array<T, D>) -> Self {
        Input::each(array.view())
    }
}

fn row_major<T: Clone, D: Dimension>(array: ArrayView<'_, T, D>) -> CowArray<'_, T, D> {
    match array.is_standard_layout() {
        true => array.into(),
        false => array.as_standard_layout().into_owned().into(),
    }
}

/// An [`Input`] of any element type: what stands at the leaves of the arguments that models are called with.
///
/// # Example
///
/// ```
/// # use neurarch_kernels::ir::tree::{Arguments, Tree};
/// # use neurarch_systems::compile::array::AnyInput;
/// let (image, label) = (ndarray::Array2::<f32>::zeros((10, 4)), ndarray::Array1::<i64>::zeros(10));
/// let arguments = Arguments::each([AnyInput::from(&image), AnyInput::from(&label)]);
/// assert_eq!(arguments.positional.len(), 2);
/// ```
#[derive(Debug)]
pub struct AnyInput<'a>(Box<dyn Erase + 'a>);

impl AnyInput<'_> {
    /// Returns whether somebody asked for the gradient of these numbers.
    pub fn needs_gradient(&self) -> bool {
        self.erase().needs_gradient
    }

    /// Counts the models that there are numbers for; `None` if they are for all.
    pub fn models(&self) -> Option<usize> {
        self.erase().models
    }

    /// Views the same numbers.
    pub fn view(&self) -> AnyInput<'_> {
        AnyInput(self.0.view())
    }

    /// Copies the numbers of some models, by their indices, in that order; zeros where there is none. What all models
    /// share stays as it is.
    #[must_use]
    pub fn select(&self, models: &[Option<usize>]) -> AnyInput<'static> {
        AnyInput(self.0.select(models))
    }

    pub(crate) fn erase(&self) -> Erased<'_> {
        self.0.erase()
    }

    /// Lists the inputs, with their places in the list where they stood.
    pub(crate) fn numbered(arguments: Arguments<Self>) -> (Vec<Self>, Arguments<usize>) {
        let mut inputs = Vec::new();
        let places = arguments.map(&mut |input| {
            inputs.push(input);
            inputs.len() - 1
        });
        (inputs, places)
    }

    /// [`erase`](AnyInput::erase), where all axes are one model's.
    pub(crate) fn erase_of_one(&self) -> Erased<'_> {
        self.0.erase_of_one()
    }
}

/// An array of any element type that is computed: what stands at the leaves of a result of several types.
#[derive(Clone, Debug, PartialEq)]
pub enum AnyArray {
    /// Singles.
    F32(ArrayD<f32>),
    /// Doubles.
    F64(ArrayD<f64>),
    /// Halves.
    F16(ArrayD<f16>),
    /// Halves with the exponents of singles.
    BF16(ArrayD<bf16>),
    /// Whole numbers: indices.
    I64(ArrayD<i64>),
    /// Flags, 0 or 1.
    Bool(ArrayD<u8>),
}

/// An [`Input`] of some element type.
trait Erase: Debug + Send + Sync {
    fn erase(&self) -> Erased<'_>;
    fn erase_of_one(&self) -> Erased<'_>;
    fn view(&self) -> Box<dyn Erase + '_>;
    fn select(&self, models: &[Option<usize>]) -> Box<dyn Erase>;
    fn copy(&self) -> Box<dyn Erase>;
}

impl<T: Element> Erase for Input<'_, T> {
    fn erase(&self) -> Erased<'_> {
        Input::erase(self)
    }

    fn erase_of_one(&self) -> Erased<'_> {
        Input::erase_of_one(self)
    }

    fn view(&self) -> Box<dyn Erase + '_> {
        Box::new(Input { array: self.array.view().into(), ..*self })
    }

    fn select(&self, models: &[Option<usize>]) -> Box<dyn Erase> {
        let Input { shared, needs_gradient, .. } = *self;
        if shared {
            let array = self.array.to_owned().into();
            return Box::new(Input { array, shared, needs_gradient });
        }
        let mut shape = self.array.shape().to_vec();
        shape.splice(..1.min(shape.len()), [models.len()]);
        let mut array = ArrayD::<T>::from_elem(shape, bytemuck::Zeroable::zeroed());
        for (mut row, model) in array.outer_iter_mut().zip(models) {
            if let Some(known) =
                model.filter(|&model| self.array.shape().first().is_some_and(|&n| model < n))
            {
                row.assign(&self.array.index_axis(Axis(0), known));
            }
        }
        Box::new(Input { array: array.into(), shared, needs_gradient })
    }

    fn copy(&self) -> Box<dyn Erase> {
        Box::new(Input { array: self.array.to_owned().into(), ..*self })
    }
}

impl Clone for AnyInput<'static> {
    fn clone(&self) -> Self {
        AnyInput(self.0.copy())
    }
}

impl<'a, T: Element> From<Input<'a, T>> for AnyInput<'a> {
    fn from(input: Input<'a, T>) -> Self {
        AnyInput(Box::new(input))
    }
}

impl<'a, T: Element, D: Dimension> From<&'a Array<T, D>> for AnyInput<'a> {
    fn from(array: &'a Array<T, D>) -> Self {
        Input::from(array).into()
    }
}

impl<T: Element, D: Dimension> From<Array<T, D>> for AnyInput<'static> {
    fn from(array: Array<T, D>) -> Self {
        let array = match array.is_standard_layout() {
            true => array,
            false => array.as_standard_layout().into_owned(),
        };
        Input { array: array.into_dyn().into(), shared: false, needs_gradient: false }.into()
    }
}

impl<'a, T: Element, D: Dimension> From<ArrayView<'a, T, D>> for AnyInput<'a> {
    fn from(array: ArrayView<'a, T, D>) -> Self {
        Input::from(array).into()
    }
}

/// An [`Input`] whose element type is known at run time only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Erased<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    pub(crate) models: Option<usize>,
    pub(crate) bytes: &'a [u8],
    pub(crate) needs_gradient: bool,
}

/// What models are called with: arrays, and how they are nested.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Called<'a> {
    pub(crate) arrays: &'a [Erased<'a>],
    /// At each leaf the place in `arrays`; `None` if they are one value.
    pub(crate) structure: Option<&'a Arguments<usize>>,
    /// The module that is called; `None` for the root.
    pub(crate) entry: Option<&'a Arc<Entrance>>,
}

impl<'a> Erased<'a> {
    /// Returns the type of one model's numbers.
    pub(crate) fn ty(&self) -> TypeRef<'a> {
        TypeRef { dtype: self.dtype, shape: self.shape }
    }

    /// Returns the bytes from model to model, 0 if all have the same numbers.
    pub(crate) fn stride(&self) -> usize {
        match self.models {
            None => 0,
            Some(models) => self.bytes.len() / models.max(1),
        }
    }
}

/// Several minibatches at hand: a training step on each, one after the other.
///
/// # Example
///
/// ```
/// # use neurarch_systems::compile::array::DataSet;
/// let (inputs, targets) = (ndarray::Array2::<f32>::zeros((100, 4)), ndarray::Array1::<i64>::zeros(100));
/// let order = ndarray::Array2::from_shape_fn((10, 100), |(model, i)| ((i + model) % 100) as u32);
/// let data = DataSet::shared(inputs.view(), targets.view()).order(order.view()).batch(32);
/// assert_eq!(data.steps(), 4); // 32, 32, 32 and 4 items.
/// ```
///
/// Source: `torch.utils.data.DataLoader`, its `sampler` given by `order`, `drop_last=False`.
#[derive(Clone, Debug)]
pub struct DataSet<'a, X: Element, Y: Element> {
    pub(crate) inputs: Input<'a, X>,
    pub(crate) targets: Input<'a, Y>,
    pub(crate) order: Option<CowArray<'a, u32, Ix2>>,
    pub(crate) batch: Option<usize>,
    pub(crate) epochs: usize,
}

impl<'a, X: Element, Y: Element> DataSet<'a, X, Y> {
    /// Takes items from which every model picks: inputs `[items, ..]`, targets `[items, ..]`.
    ///
    /// Without [`order`](DataSet::order) all models meet the items in their order; without
    /// [`batch`](DataSet::batch) all items are one minibatch.
    pub fn shared<D: Dimension, E: Dimension>(
        inputs: ArrayView<'a, X, D>,
        targets: ArrayView<'a, Y, E>,
    ) -> Self {
        Self::new(Input::shared(inputs), Input::shared(targets))
    }

    /// Takes minibatches as they are: inputs `[models, steps, batch, ..]`, targets
    /// `[models, steps, batch, ..]`.
    pub fn stacked<D: Dimension, E: Dimension>(
        inputs: ArrayView<'a, X, D>,
        targets: ArrayView<'a, Y, E>,
    ) -> Self {
        Self::new(Input::each(inputs), Input::each(targets))
    }

    fn new(inputs: Input<'a, X>, targets: Input<'a, Y>) -> Self {
        DataSet { inputs, targets, order: None, batch: None, epochs: 1 }
    }

    /// Gives each model the numbers of the items in the order in which it meets them: `[models, total]`.
    #[must_use]
    pub fn order(self, order: ArrayView2<'a, u32>) -> Self {
        DataSet { order: Some(row_major(order)), ..self }
    }

    /// Says how many items a minibatch has. The last one has what is left.
    #[must_use]
    pub fn batch(self, items: usize) -> Self {
        DataSet { batch: Some(items), ..self }
    }

    /// Says that `order` lists that many epochs of one length, each with a last minibatch of its own.
    #[must_use]
    pub fn epochs(self, epochs: usize) -> Self {
        DataSet { epochs, ..self }
    }

    /// Counts the training steps.
    pub fn steps(&self) -> usize {
        if !self.inputs.shared {
            return self.inputs.shape().first().copied().unwrap_or(0);
        }
        let items = self.items();
        self.epochs.saturating_mul(items.div_ceil(self.batch.unwrap_or(items).max(1)))
    }

    /// Counts the items of an epoch.
    fn items(&self) -> usize {
        match &self.order {
            Some(order) => order.ncols() / self.epochs.max(1),
            None => self.inputs.shape().first().copied().unwrap_or(0),
        }
    }

    /// Checks the sizes against each other.
    pub(crate) fn sizes(&self, models: usize) -> Result<Sizes, StepError> {
        let refuse = |reason: String| Err(StepError::DataSet(reason));
        let (inputs, targets) = (self.inputs.shape().first(), self.targets.shape().first());
        let (Some(inputs), Some(targets)) = (inputs, targets) else {
            return refuse("expected inputs and targets with an axis of items, got none".into());
        };
        if inputs != targets {
            return refuse(format!("expected as many targets as inputs ({inputs}), got {targets}"));
        }
        if self.batch == Some(0) {
            return refuse("expected minibatches of at least 1 item, got 0".into());
        }
        if !self.inputs.shared {
            if *inputs == 0 {
                return refuse("expected at least 1 minibatch, got 0".into());
            }
            return match (&self.order, self.batch, self.epochs) {
                (None, None, 1) => Ok(Sizes { items: 0, batch: 1, steps: self.steps() }),
                _ => {
                    refuse("stacked minibatches have no order, batch or epochs of their own".into())
                }
            };
        }
        if let Some(order) = &self.order {
            let (rows, total) = order.dim();
            if rows != models {
                return Err(StepError::Models { array: "order", expected: models, given: rows });
            }
            if self.epochs == 0 || total % self.epochs != 0 {
                let epochs = self.epochs;
                return refuse(format!(
                    "{total} item numbers make no {epochs} epochs of one length"
                ));
            }
        } else if self.epochs != 1 {
            return refuse("several epochs need an order".into());
        }
        let items = self.items();
        if u32::try_from(items).is_err() {
            return refuse(format!("expected fewer than {} items, got {items}", 1_u64 << 32));
        }
        let batch = self.batch.unwrap_or(items).clamp(1, items.max(1));
        Ok(Sizes { items, batch, steps: self.steps() })
    }
}

/// How a [`DataSet`] is cut into minibatches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Items an epoch.
    pub(crate) items: usize,
    /// Items of a full minibatch, at least 1.
    pub(crate) batch: usize,
    /// Steps of all epochs.
    pub(crate) steps: usize,
}

/// A type that is not owned: an element type and sizes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TypeRef<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
}

impl TypeRef<'_> {
    pub(crate) fn to_type(self) -> Type {
        Type::new(self.dtype, self.shape)
    }

    pub(crate) fn is(self, ty: &Type) -> bool {
        self.dtype == ty.dtype && *self.shape == *ty.shape
    }
}

impl<'a> From<&'a Type> for TypeRef<'a> {
    fn from(ty: &'a Type) -> Self {
        TypeRef { dtype: ty.dtype, shape: &ty.shape }
    }
}
