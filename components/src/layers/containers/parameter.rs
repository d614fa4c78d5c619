//! [`Parameter`]: what a parameter of a list or dictionary will be.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Shape;
use serde::{Deserialize, Serialize};

use crate::module::registered::{IntoValue, Numbers, Value};
use crate::module::{Declare, Declared, Init};

/// A parameter before its model is spawned: a shape, an element type, and its first numbers.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// # use neurarch_components::module::Init;
/// let scale = Parameter::ones([16]);
/// assert_eq!(scale, Parameter { init: Init::Ones, ..Parameter::zeros([16]) });
/// ```
///
/// Source: `torch.nn.Parameter`. The numbers are drawn anew for each model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its shape.
    #[serde(with = "crate::wire")]
    pub shape: Shape,
    /// Its element type; `None` means the dtype of the whole model.
    #[serde(with = "crate::wire")]
    pub dtype: Option<Dtype>,
    /// Its first numbers.
    pub init: Init,
    /// Whether it needs a gradient at first. One of integers does not.
    pub requires_grad: bool,
}

impl Parameter {
    /// Describes a parameter with the model's dtype.
    pub fn new(shape: impl Into<Shape>, init: Init) -> Self {
        Parameter { shape: shape.into(), dtype: None, init, requires_grad: true }
    }

    /// Has no elements. Source: `torch.nn.Parameter()`.
    pub fn empty() -> Self {
        Parameter::zeros([0])
    }

    /// Needs no gradient at first: torch's `requires_grad=False`.
    #[must_use]
    pub fn frozen(self) -> Self {
        Parameter { requires_grad: false, ..self }
    }

    /// Starts at 0. Source: `torch.zeros`.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        Parameter::new(shape, Init::Zeros)
    }

    /// Starts at 1. Source: `torch.ones`.
    pub fn ones(shape: impl Into<Shape>) -> Self {
        Parameter::new(shape, Init::Ones)
    }

    /// Starts at `value`. Source: `torch.full`.
    pub fn full(shape: impl Into<Shape>, value: f64) -> Self {
        Parameter::new(shape, Init::Constant(value))
    }

    /// Starts uniform in `[0, 1)`. Source: `torch.rand`.
    pub fn rand(shape: impl Into<Shape>) -> Self {
        Parameter::new(shape, Init::Uniform { low: 0.0, high: 1.0 })
    }

    /// Starts normal, with mean 0 and standard deviation 1. Source: `torch.randn`.
    pub fn randn(shape: impl Into<Shape>) -> Self {
        Parameter::new(shape, Init::Normal { mean: 0.0, std: 1.0 })
    }

    /// Gives it an element type of its own.
    #[must_use]
    pub fn with_dtype(self, dtype: Dtype) -> Self {
        Parameter { dtype: Some(dtype), ..self }
    }

    /// Registers it as a parameter.
    pub fn declare(&self, name: &str, declare: &mut Declare) {
        if declare.takes(1) {
            declare.parameters.push(self.declared(name));
        }
    }

    /// Registers it as a buffer.
    ///
    /// Source: `torch.nn.Buffer`.
    pub fn declare_buffer(&self, name: &str, persistent: bool, declare: &mut Declare) {
        if declare.takes(1) {
            declare.buffers.push(Declared { persistent, ..self.declared(name) });
        }
    }

    /// Describes it to a module's `declare`.
    pub(crate) fn declared(&self, name: &str) -> Declared {
        let (name, shape, dtype) = (name.to_owned(), self.shape.clone(), self.dtype);
        let requires_grad = self.requires_grad;
        let (persistent, is_none, uninitialized) = (true, false, false);
        Declared { name, shape, dtype, persistent, is_none, uninitialized, requires_grad }
    }

    /// Returns torch's line for it, its dtype in the words of `dtype`; without one, it is printed as float32.
    pub(crate) fn line(&self, name: &str, dtype: impl Fn(Dtype) -> &'static str) -> String {
        let dtype = dtype(self.dtype.unwrap_or(Dtype::F32));
        let sizes: Vec<_> = self.shape.iter().map(usize::to_string).collect();
        let size = sizes.join("x");
        format!("  ({name}): Parameter containing: [torch.{dtype} of size {size}]")
    }
}

impl IntoValue for Parameter {
    fn into_value(self) -> Value {
        let Parameter { shape, dtype, init, requires_grad } = self;
        Value::Parameter { numbers: Numbers::Drawn { shape, dtype, init }, requires_grad }
    }
}
