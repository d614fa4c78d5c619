//! What is registered in a module of a live model: [`Registered`], and [`Value`], what can be.

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;
use ndarray::{ArrayView, Dimension};
use neurarch_kernels::ir::dtype::{Dtype, Element};
use neurarch_kernels::ir::shape::{Shape, Type};

use crate::layers;
use crate::module::blueprint::{Parameter, Position};
use crate::module::registry::{Change, ModuleTypes};
use crate::module::{Declare, Declared, DynModule, Init, Module};
use crate::state::Tensor;

/// The parameters and buffers of a module that was edited, in place of those that its type declares.
///
/// Kept by the functions that register and delete; removing it gives the module back what its type
/// declares. Inserting another layer component leaves it.
#[derive(Component, Clone, Debug, Default, PartialEq, Eq)]
#[component(storage = "SparseSet", immutable, on_insert = tell, on_remove = tell)]
pub struct Registered {
    /// Parameters in order of registration.
    pub parameters: Vec<Entry>,
    /// Buffers in order of registration.
    pub buffers: Vec<Entry>,
}

/// A parameter or buffer that is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// torch's name: `weight`.
    pub name: String,
    /// Element type and shape; `None` is torch's `None`: a name without a value.
    pub ty: Option<Type>,
    /// Whether a `state_dict` has it. Parameters are always persistent.
    pub persistent: bool,
    /// Whether its shape is not known yet.
    pub uninitialized: bool,
}

impl Registered {
    /// Lists what a module's type declares, floating parameters in `dtype`.
    pub fn declared(module: &dyn DynModule, dtype: Dtype) -> Self {
        let mut declared = Declare::default();
        module.declare(&mut declared);
        let entry = |declared: Declared| {
            let Declared { name, shape, dtype: own, persistent, is_none, uninitialized } = declared;
            let ty = (!is_none).then(|| Type { dtype: own.unwrap_or(dtype), shape });
            Entry { name, ty, persistent, uninitialized }
        };
        Registered {
            parameters: declared.parameters.into_iter().map(entry).collect(),
            buffers: declared.buffers.into_iter().map(entry).collect(),
        }
    }

    /// Gives what has no shape yet the one that the type of a module declares, which comes in the place of a lazy one.
    pub fn initialize(&mut self, module: &dyn DynModule, dtype: Dtype) {
        let Registered { parameters, buffers } = Registered::declared(module, dtype);
        for (own, declared) in [(&mut self.parameters, parameters), (&mut self.buffers, buffers)] {
            for entry in own.iter_mut().filter(|entry| entry.uninitialized) {
                if let Some(known) = declared.iter().find(|known| known.name == entry.name) {
                    (entry.ty, entry.uninitialized) = (known.ty.clone(), known.uninitialized);
                }
            }
        }
    }

    /// Puts what is registered in the place of what a position's module declares.
    pub fn apply(&self, position: &mut Position) {
        let parameters = |entries: &[Entry]| -> Vec<Parameter> {
            let there = entries.iter().filter_map(|entry| {
                let Entry { name, ty, persistent, uninitialized } = entry.clone();
                Some(Parameter {
                    name,
                    ty: ty?,
                    persistent,
                    tied: None,
                    shared: None,
                    uninitialized,
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

/// Another list is another structure.
fn tell(mut world: DeferredWorld<'_>, context: HookContext) {
    if let Some(mut types) = world.get_resource_mut::<ModuleTypes>() {
        types.tell(Change { entity: context.entity, inserted: None });
    }
}

/// Attributes of a module's entity that are neither parameters nor buffers nor children: values that are
/// only kept.
///
/// Source: what `setattr` does with any other value.
#[derive(Component, Clone, Debug, Default)]
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
#[derive(Clone, Debug)]
pub enum Value {
    /// torch's `None`.
    None,
    /// A `torch.nn.Parameter`.
    Parameter(Numbers),
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
    Module(Box<dyn DynModule>),
    /// Anything else, by its type's name in Python: `str`, `int`.
    Other(&'static str),
}

/// The first numbers of a parameter or buffer.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// These; the name of the tensor means nothing.
    Given(Tensor),
    /// Those that a distribution gives.
    Drawn {
        /// The shape.
        shape: Shape,
        /// The element type; `None` means the dtype of the whole model.
        dtype: Option<Dtype>,
        /// The distribution.
        init: Init,
    },
}

impl Numbers {
    /// Gives element type and shape, in a model of that dtype.
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
        Value::Parameter(Numbers::Given(Tensor::new("", numbers)))
    }

    /// Makes a parameter whose numbers are drawn, in the model's dtype.
    pub fn drawn_parameter(shape: impl Into<Shape>, init: Init) -> Self {
        Value::Parameter(Numbers::Drawn { shape: shape.into(), dtype: None, init })
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

    /// Says whether it is torch's `None`.
    pub fn is_none(&self) -> bool {
        matches!(self, Value::None)
    }

    /// Gives the numbers of a parameter, buffer or tensor.
    pub fn numbers(&self) -> Option<&Numbers> {
        match self {
            Value::Parameter(numbers) | Value::Tensor(numbers) => Some(numbers),
            Value::Buffer { numbers, .. } => Some(numbers),
            Value::None | Value::Module(_) | Value::Other(_) => None,
        }
    }

    /// Gives the type's name as torch spells it in errors, in a model of that dtype:
    /// `torch.FloatTensor`, `torch.nn.modules.linear.Linear`.
    ///
    /// Source: `torch.typename`.
    pub fn typename(&self, dtype: Dtype) -> String {
        let tensor = |numbers: &Numbers| tensor_typename(numbers.ty(dtype).dtype).to_owned();
        match self {
            Value::None => "NoneType".to_owned(),
            Value::Parameter(numbers) | Value::Tensor(numbers) => tensor(numbers),
            Value::Buffer { numbers, .. } => tensor(numbers),
            Value::Module(module) => class(&**module),
            Value::Other(name) => (*name).to_owned(),
        }
    }
}

/// Gives the name of torch's tensors of that element type.
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
    /// Gives the value.
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

impl IntoValue for layers::Parameter {
    fn into_value(self) -> Value {
        let layers::Parameter { shape, dtype, init } = self;
        Value::Parameter(Numbers::Drawn { shape, dtype, init })
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
    let ours = path.strip_prefix(concat!(env!("CARGO_PKG_NAME"), "::layers::"));
    match ours.and_then(|path| path.split("::").next()) {
        Some("bare") => format!("torch.nn.modules.module.{name}"),
        Some(
            "sequential" | "module_list" | "module_dict" | "parameter_list" | "parameter_dict",
        ) => {
            format!("torch.nn.modules.container.{name}")
        }
        Some(file) => format!("torch.nn.modules.{file}.{name}"),
        None => path.replace("::", "."),
    }
}

/// Says whether every module of torch has an attribute of that name.
///
/// Source: `dir(torch.nn.Module())` of torch 2.15.
pub fn is_attribute_of_every_module(name: &str) -> bool {
    MODULE_ATTRIBUTES.contains(&name)
}

#[rustfmt::skip]
const MODULE_ATTRIBUTES: &[&str] = &[
    "T_destination", "__annotations__", "__call__", "__class__", "__delattr__", "__dict__",
    "__dir__", "__doc__", "__eq__", "__format__", "__ge__", "__getattr__", "__getattribute__",
    "__getstate__", "__gt__", "__hash__", "__init__", "__init_subclass__", "__le__", "__lt__",
    "__module__", "__ne__", "__new__", "__reduce__", "__reduce_ex__", "__repr__", "__setattr__",
    "__setstate__", "__sizeof__", "__str__", "__subclasshook__", "__weakref__", "_apply",
    "_backward_hooks", "_backward_pre_hooks", "_buffers", "_call_impl", "_compiled_call_impl",
    "_forward_hooks", "_forward_hooks_always_called", "_forward_hooks_with_kwargs",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_get_backward_hooks",
    "_get_backward_pre_hooks", "_get_name", "_is_full_backward_hook", "_load_from_state_dict",
    "_load_state_dict_post_hooks", "_load_state_dict_pre_hooks",
    "_maybe_warn_non_full_backward_hook", "_modules", "_named_members",
    "_non_persistent_buffers_set", "_parameters", "_register_load_state_dict_pre_hook",
    "_register_state_dict_hook", "_replicate_for_data_parallel", "_save_to_state_dict",
    "_slow_forward", "_state_dict_hooks", "_state_dict_pre_hooks", "_version", "_wrapped_call_impl",
    "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "compile", "cpu",
    "cuda", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer",
    "get_extra_state", "get_parameter", "get_submodule", "half", "ipu", "load_state_dict",
    "modules", "mtia", "named_buffers", "named_children", "named_modules", "named_parameters",
    "parameters", "register_backward_hook", "register_buffer", "register_forward_hook",
    "register_forward_pre_hook", "register_full_backward_hook", "register_full_backward_pre_hook",
    "register_load_state_dict_post_hook", "register_load_state_dict_pre_hook", "register_module",
    "register_parameter", "register_state_dict_post_hook", "register_state_dict_pre_hook",
    "requires_grad_", "set_extra_state", "set_submodule", "share_memory", "state_dict", "to",
    "to_empty", "train", "training", "type", "xpu", "zero_grad",
];
