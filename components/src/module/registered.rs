//! What is registered in a module of a live model: [`Registered`], and [`Value`], what can be.

use std::borrow::Cow;

use bevy_ecs::prelude::*;
use ndarray::{ArrayView, Dimension};
use neurarch_kernels::ir::dtype::{Dtype, Element};
use neurarch_kernels::ir::shape::{Shape, Type};
use serde::{Deserialize, Serialize};

use crate::module::blueprint::{Parameter, Position};
use crate::module::dtypes::Dtypes;
use crate::module::registry::tell_change;
use crate::module::{Declare, Declared, DynModule, Init, Module};
use crate::state::Tensor;

/// The parameters and buffers of a module that was edited, in place of those that its type declares.
///
/// Kept by the functions that register and delete; removing it gives the module back what its type
/// declares. Inserting another layer component leaves it.
#[derive(Component, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[component(storage = "SparseSet", immutable, on_insert = tell_change, on_remove = tell_change)]
pub struct Registered {
    /// Parameters in order of registration.
    pub parameters: Vec<Entry>,
    /// Buffers in order of registration.
    pub buffers: Vec<Entry>,
}

/// A parameter or buffer that is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// torch's name: `weight`.
    pub name: String,
    /// Element type and shape; `None` is torch's `None`: a name without a value.
    #[serde(with = "crate::wire")]
    pub ty: Option<Type>,
    /// Whether a `state_dict` has it. Parameters are always persistent.
    pub persistent: bool,
    /// Whether its shape is not known yet.
    pub uninitialized: bool,
    /// Whether it needs a gradient at first. That of a buffer means nothing.
    pub requires_grad: bool,
}

impl Registered {
    /// Lists what a module's type declares, floating parameters in `dtype`.
    pub fn declared(module: &dyn DynModule, dtype: Dtype) -> Self {
        let mut declared = Declare::default();
        module.declare(&mut declared);
        let entry = |declared: Declared| {
            let Declared { name, shape, dtype: own, persistent, .. } = declared;
            let Declared { is_none, uninitialized, requires_grad, .. } = declared;
            let ty = (!is_none).then(|| Type { dtype: own.unwrap_or(dtype), shape });
            Entry { name, ty, persistent, uninitialized, requires_grad }
        };
        Registered {
            parameters: declared.parameters.into_iter().map(entry).collect(),
            buffers: declared.buffers.into_iter().map(entry).collect(),
        }
    }

    /// Lists what the module of an entity has: what is registered, or what its type declares, in the types that it was
    /// converted to.
    pub fn of(entity: EntityRef<'_>, module: &dyn DynModule, dtype: Dtype) -> Self {
        entity.get::<Registered>().cloned().unwrap_or_else(|| {
            let mut declared = Registered::declared(module, dtype);
            let Registered { parameters, buffers } = &mut declared;
            for entry in parameters.iter_mut().chain(buffers) {
                if let (Some(ty), Some(dtypes)) = (&mut entry.ty, entity.get::<Dtypes>()) {
                    dtypes.convert(&entry.name, ty);
                }
            }
            declared
        })
    }

    /// Gives what has no shape yet the one that the type of a module declares, which comes in the place of a lazy one.
    pub fn initialize(&mut self, module: &dyn DynModule, dtype: Dtype) {
        let Registered { parameters, buffers } = Registered::declared(module, dtype);
        for (own, declared) in [(&mut self.parameters, parameters), (&mut self.buffers, buffers)] {
            for entry in own.iter_mut().filter(|entry| entry.uninitialized) {
                if let Some(known) = declared.iter().find(|known| known.name == entry.name) {
                    let dtype = entry.ty.as_ref().map(|ty| ty.dtype);
                    (entry.ty, entry.uninitialized) = (known.ty.clone(), known.uninitialized);
                    if let (Some(ty), Some(dtype)) = (&mut entry.ty, dtype) {
                        ty.dtype = dtype;
                    }
                }
            }
        }
    }

    /// Puts what is registered in the place of what a position's module declares.
    pub fn apply(&self, position: &mut Position) {
        let parameters = |entries: &[Entry]| -> Vec<Parameter> {
            let there = entries.iter().filter_map(|entry| {
                let Entry { name, ty, persistent, uninitialized, requires_grad } = entry.clone();
                Some(Parameter {
                    name,
                    ty: ty?,
                    persistent,
                    tied: None,
                    shared: None,
                    uninitialized,
                    requires_grad,
                })
            });
            there.collect()
        };
        position.parameters = parameters(&self.parameters);
        position.buffers = parameters(&self.buffers);
        let all = self.parameters.iter().chain(&self.buffers);
        let nones = all.filter(|entry| entry.ty.is_none()).map(|entry| entry.name.clone());
        position.nones = nones.collect();
    }
}

/// Attributes of a module's entity that are neither parameters nor buffers nor children: values that are
/// only kept.
///
/// Source: what `setattr` does with any other value.
#[derive(Component, Clone, Debug, Default, Serialize, Deserialize)]
#[component(storage = "SparseSet")]
pub struct Attributes(pub Vec<(String, Value)>);

/// What can be registered or assigned.
///
/// # Example
///
/// ```
/// # use neurarch_components::module::registered::Value;
/// # use neurarch_components::{layers::Linear, module::Init};
/// let values = [
///     Value::parameter(ndarray::array![1.0_f32, 2.0].view()),
///     Value::drawn_parameter([3, 4], Init::Ones),
///     Value::buffer(ndarray::array![1_i64].view(), true),
///     Value::module(Linear::new(2, 2)),
///     Value::None,
/// ];
/// # let _ = values;
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Value {
    /// torch's `None`.
    None,
    /// A `torch.nn.Parameter`.
    Parameter {
        /// Its first numbers.
        numbers: Numbers,
        /// Whether it needs a gradient at first. One of integers does not.
        requires_grad: bool,
    },
    /// A `torch.nn.Buffer`: assigned, it is registered.
    Buffer {
        /// Its first numbers.
        numbers: Numbers,
        /// Whether a `state_dict` has it.
        persistent: bool,
    },
    /// A `torch.Tensor`: what a buffer is registered with.
    Tensor(Numbers),
    /// A child.
    #[serde(skip)]
    Module(Box<dyn DynModule>),
    /// Anything else, by its type's name in Python: `str`, `int`.
    Other(Cow<'static, str>),
}

/// The first numbers of a parameter or buffer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Numbers {
    /// These; the name of the tensor means nothing.
    Given(Tensor),
    /// Those that a distribution gives.
    Drawn {
        /// The shape.
        #[serde(with = "crate::wire")]
        shape: Shape,
        /// The element type; `None` means the dtype of the whole model.
        #[serde(with = "crate::wire")]
        dtype: Option<Dtype>,
        /// The distribution.
        init: Init,
    },
}

impl Numbers {
    /// Returns element type and shape, in a model of that dtype.
    pub fn ty(&self, dtype: Dtype) -> Type {
        match self {
            Numbers::Given(tensor) => {
                Type { dtype: tensor.dtype(), shape: Shape::from(tensor.shape()) }
            }
            Numbers::Drawn { shape, dtype: own, .. } => {
                Type { dtype: own.unwrap_or(dtype), shape: shape.clone() }
            }
        }
    }
}

impl Value {
    /// Makes a parameter of these numbers.
    pub fn parameter<T: Element, D: Dimension>(numbers: ArrayView<'_, T, D>) -> Self {
        let numbers = Numbers::Given(Tensor::new("", numbers));
        Value::Parameter { numbers, requires_grad: true }
    }

    /// Says that a parameter needs no gradient at first: `Parameter(data, requires_grad=False)`. Any other value stays as
    /// it is.
    #[must_use]
    pub fn frozen(self) -> Self {
        match self {
            Value::Parameter { numbers, .. } => Value::Parameter { numbers, requires_grad: false },
            other => other,
        }
    }

    /// Makes a parameter whose numbers are drawn, in the model's dtype.
    pub fn drawn_parameter(shape: impl Into<Shape>, init: Init) -> Self {
        let numbers = Numbers::Drawn { shape: shape.into(), dtype: None, init };
        Value::Parameter { numbers, requires_grad: true }
    }

    /// Makes a buffer that registers itself when it is assigned.
    pub fn buffer<T: Element, D: Dimension>(
        numbers: ArrayView<'_, T, D>,
        persistent: bool,
    ) -> Self {
        Value::Buffer { numbers: Numbers::Given(Tensor::new("", numbers)), persistent }
    }

    /// Makes a plain tensor.
    pub fn tensor<T: Element, D: Dimension>(numbers: ArrayView<'_, T, D>) -> Self {
        Value::Tensor(Numbers::Given(Tensor::new("", numbers)))
    }

    /// Makes a child.
    pub fn module(module: impl Module) -> Self {
        Value::Module(Box::new(module))
    }

    /// Returns whether it is torch's `None`.
    pub fn is_none(&self) -> bool {
        matches!(self, Value::None)
    }

    /// Returns the numbers of a parameter, buffer or tensor.
    pub fn numbers(&self) -> Option<&Numbers> {
        match self {
            Value::Tensor(numbers)
            | Value::Parameter { numbers, .. }
            | Value::Buffer { numbers, .. } => Some(numbers),
            Value::None | Value::Module(_) | Value::Other(_) => None,
        }
    }

    /// Returns the type's name as torch spells it in errors, in a model of that dtype:
    /// `torch.FloatTensor`, `torch.nn.modules.linear.Linear`.
    ///
    /// Source: `torch.typename`.
    pub fn typename(&self, dtype: Dtype) -> String {
        let tensor = |numbers: &Numbers| tensor_typename(numbers.ty(dtype).dtype).to_owned();
        match self {
            Value::None => "NoneType".to_owned(),
            Value::Tensor(numbers)
            | Value::Parameter { numbers, .. }
            | Value::Buffer { numbers, .. } => tensor(numbers),
            Value::Module(module) => class(&**module),
            Value::Other(name) => name.clone().into_owned(),
        }
    }
}

/// Returns the name of torch's tensors of that element type.
///
/// Source: `torch.Tensor.type`.
pub fn tensor_typename(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "torch.FloatTensor",
        Dtype::F64 => "torch.DoubleTensor",
        Dtype::F16 => "torch.HalfTensor",
        Dtype::BF16 => "torch.BFloat16Tensor",
        Dtype::I64 => "torch.LongTensor",
        Dtype::Bool => "torch.BoolTensor",
    }
}

/// What can be put into a live container: a module, one in a box, a parameter, or any [`Value`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a neurarch module nor a parameter",
    note = "derive `Component`, `Clone`, `Debug` and `PartialEq`, and implement `Module::forward`"
)]
pub trait IntoValue {
    /// Returns the value.
    fn into_value(self) -> Value;
}

impl<M: Module> IntoValue for M {
    fn into_value(self) -> Value {
        Value::module(self)
    }
}

impl IntoValue for Box<dyn DynModule> {
    fn into_value(self) -> Value {
        Value::Module(self)
    }
}

impl IntoValue for Value {
    fn into_value(self) -> Value {
        self
    }
}

/// Spells the class of a module as torch does: its file and its name.
fn class(module: &dyn DynModule) -> String {
    let (path, name) = (module.rust_name(), module.type_name());
    let Some(ours) = path.strip_prefix(concat!(env!("CARGO_PKG_NAME"), "::")) else {
        return path.replace("::", ".");
    };
    let families: Vec<_> = ours.split("::").collect();
    let file = match families[..] {
        ["layers", .., "bare", _] => "module",
        ["layers", "containers", ..] => "container",
        ["layers", "norm", "batchnorm", _] => "batchnorm",
        ["layers", "norm", "instancenorm", _] => "instancenorm",
        ["layers", "norm", ..] => "normalization",
        ["layers", "recurrent", ..] => "rnn",
        ["layers", "transformer", ..] => "transformer",
        ["layers", "spatial", "pooling" | "adaptive" | "unpool", _] => "pooling",
        ["layers", "spatial", "conv" | "conv_transpose", _] => "conv",
        ["layers", "spatial", "upsample", _] => "upsampling",
        ["layers", "spatial", "shuffle", _] if name == "ChannelShuffle" => "channelshuffle",
        ["layers", "spatial", "shuffle", _] => "pixelshuffle",
        ["layers", ..] if name.starts_with("LazyConv") => "conv",
        ["layers", ..] if name.starts_with("LazyBatchNorm") => "batchnorm",
        ["layers", ..] if name.starts_with("LazyInstanceNorm") => "instancenorm",
        ["layers", "bilinear", _] => "linear",
        ["layers", ..] if matches!(name, "Identity" | "LazyLinear") => "linear",
        ["layers", "activations" | "attention", ..] => "activation",
        ["layers", .., file, _] => file,
        ["losses", "adaptive", _] => "adaptive",
        ["losses", ..] => "loss",
        _ => return path.replace("::", "."),
    };
    format!("torch.nn.modules.{file}.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::*;
    use crate::losses::MSELoss;

    /// `type(module).__module__` and `__qualname__` of torch 2.15.
    #[test]
    fn classes_are_spelled_as_in_torch() {
        let modules: [(Box<dyn DynModule>, &str); 12] = [
            (Box::new(Linear::new(1, 1)), "linear.Linear"),
            (Box::new(Identity), "linear.Identity"),
            (Box::new(LazyLinear::new(1)), "linear.LazyLinear"),
            (Box::new(Softplus::default()), "activation.Softplus"),
            (Box::new(MultiheadAttention::new(2, 1)), "activation.MultiheadAttention"),
            (Box::new(Sequential::new()), "container.Sequential"),
            (Box::new(ParameterList::new()), "container.ParameterList"),
            (Box::new(LSTM::new(1, 1)), "rnn.LSTM"),
            (Box::new(BatchNorm1d::new(1)), "batchnorm.BatchNorm1d"),
            (Box::new(LocalResponseNorm::new(2)), "normalization.LocalResponseNorm"),
            (Box::new(ChannelShuffle { groups: 1 }), "channelshuffle.ChannelShuffle"),
            (Box::new(MSELoss::default()), "loss.MSELoss"),
        ];
        for (module, expected) in modules {
            assert_eq!(class(&*module), format!("torch.nn.modules.{expected}"));
        }
    }
}
