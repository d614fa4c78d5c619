//! [`Module`]: the one trait that a module type implements. torch's `nn.Module`.

pub mod attributes;
pub mod blueprint;
pub mod call;
pub(crate) mod downcast;
pub mod dtypes;
pub(crate) mod dynamic;
pub mod factory;
pub mod forward;
pub(crate) mod limits;
pub mod mode;
pub mod names;
pub(crate) mod none;
pub(crate) mod parametrized;
pub(crate) mod path;
pub mod registered;
pub mod registry;
pub mod repr;
pub mod signature;

use core::any::Any;
use core::fmt::Debug;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use crate::column::RowBundle;
pub use crate::module::call::{Call, Watcher};
pub use crate::module::forward::Forward;
use crate::module::limits::{MAX_ENTRIES, too_many};
pub use crate::module::none::NoModule;
use crate::state::{Loading, LocalMetadata, StateDict, Tensor};

/// A module type: a layer, a container, or a network of your own.
///
/// A module is a Component; its value holds the settings (`in_features`), its parameters and buffers lie
/// in columns, its children are entities. Settings decide shapes and which ops run, unless
/// [`structural`](Module::structural) and [`scalar`](Module::scalar) say that a field is a scalar slot:
/// models that differ in those alone share a blueprint. [`#[scalars]`](macro@crate::scalars) writes these two by the fields
/// that have `#[scalar]`; for a struct whose fields are its children, [`#[derive(Module)]`](derive@Module) writes all but
/// `forward`.
///
/// Source: `torch.nn.Module`: `declare` is `__init__`, `reset` is `reset_parameters`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a neurarch module",
    note = "derive `Module`, `Component` and `Clone`, and implement `Forward::forward`",
    note = "of a type that derives `Module`, a field that is no child has `#[setting]`"
)]
pub trait Module: Component + Clone + Debug + PartialEq {
    /// Names the type as torch does, in errors and printed programs.
    fn type_name(&self) -> &'static str {
        let name = core::any::type_name::<Self>();
        name.rsplit("::").next().unwrap_or(name)
    }

    /// Registers parameters, buffers and children, in torch's order.
    fn declare(&self, declare: &mut Declare) {
        let _ = declare;
    }

    /// Returns the parameter its first numbers; the default is zeros. Called for each parameter and buffer.
    fn reset(&self, parameter: &str) -> Init {
        let _ = parameter;
        Init::Zeros
    }

    /// Returns a parameter or buffer of a module below other first numbers than that module does; `path` is its
    /// dotted name from here. Of several modules above one, the outermost decides.
    ///
    /// Source: what a constructor does to the parameters of its children, as `torch.nn.Transformer`'s.
    fn reset_below(&self, path: &str, shape: &Shape) -> Option<Init> {
        let _ = (path, shape);
        None
    }

    /// Writes down what the module computes from one value.
    ///
    /// It may read numbers in the middle, and go on as they say: see [`Trace::item`](neurarch_kernels::ir::trace::Trace::item).
    ///
    /// A module without it cannot be called, as torch's `ModuleList` cannot.
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let _ = x;
        let module = self.type_name();
        call.trace.fail(format!("Module [{module}] is missing the required \"forward\" function"))
    }

    /// Writes down what the module computes from any arguments: several inputs, keyword arguments, a
    /// nested result. The default takes one value and calls [`forward`](Module::forward).
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        match call.only_value(arguments) {
            Some(x) => self.forward(call, x).into(),
            None => call.trace.poison().into(),
        }
    }

    /// Writes down the tensors that [`forward`](Module::forward) makes `tensor` of, where this module is a
    /// parametrization ([`crate::parametrizations`]): one, or a tuple of several.
    ///
    /// # Errors
    ///
    /// [`NoInverse`] if there are none to be found, as by default.
    ///
    /// Source: `right_inverse` of `torch.nn.utils.parametrize.register_parametrization`.
    fn right_inverse(&self, call: &Call<'_>, tensor: Var) -> Result<Tree, NoInverse> {
        let _ = (call, tensor);
        let name = self.type_name();
        Err(NoInverse(format!("parametrization {name} does not implement right_inverse.")))
    }

    /// Returns whether [`forward`](Module::forward) asks for [`Call::training`]. Models of which only modules that do not ask
    /// are in other modes run together; a module that asks all the same is told that it is in training mode.
    fn uses_training(&self) -> bool {
        true
    }

    /// Returns the element type that a parameter or buffer, by its own name, gets when the module is to be converted to
    /// `dtype`: a module that needs single precision for some of them stays there.
    ///
    /// Source: a `torch.nn.Module._apply` that is overridden.
    fn converted_dtype(&self, name: &str, dtype: Dtype) -> Dtype {
        let _ = name;
        dtype
    }

    /// Returns whether this becomes another module when it is first called: see
    /// [`initialize_parameters`](Module::initialize_parameters).
    fn is_lazy(&self) -> bool {
        false
    }

    /// Returns what a lazy module becomes when it is first called with these arguments: shapes are known
    /// then. `None` if the arguments do not say; an error in torch's words is recorded on the trace.
    ///
    /// Source: `initialize_parameters` and `cls_to_become` of `torch.nn.modules.lazy.LazyModuleMixin`.
    fn initialize_parameters(
        &self,
        call: &Call<'_>,
        arguments: &Arguments,
    ) -> Option<Box<dyn DynModule>> {
        let _ = (call, arguments);
        None
    }

    /// Returns what a lazy module becomes when a parameter or buffer gets its shape from a `state_dict`.
    ///
    /// Source: `torch.nn.parameter.UninitializedParameter.materialize`.
    fn materialize(&self, name: &str, shape: &Shape) -> Option<Box<dyn DynModule>> {
        let _ = (name, shape);
        None
    }

    /// Lists the modules that it describes as its children where they lie, if it keeps a list of them; `None` if
    /// [`declare`](Module::declare) has to be asked, which copies them and all below.
    fn listed(&self) -> Option<Box<dyn Iterator<Item = &dyn DynModule> + '_>> {
        None
    }

    /// Returns whether children that look the same are printed as one: `(0-2): 3 x Linear(...)`.
    ///
    /// Source: `torch.nn.ModuleList.__repr__`.
    fn joins_alike_in_repr(&self) -> bool {
        false
    }

    /// Returns a copy in which every scalar slot has a fixed value: what decides the blueprint.
    fn structural(&self) -> Self {
        self.clone()
    }

    /// Reads a scalar slot; `None` if there is none of that name.
    fn scalar(&self, name: &str) -> Option<f64> {
        let _ = name;
        None
    }

    /// Returns the version of what its state dict holds, to be raised when names or meanings change.
    ///
    /// Source: `torch.nn.Module._version`.
    fn version(&self) -> u32 {
        1
    }

    /// Returns whether a state dict that this type saved in that version, or one of unknown version, may lack a
    /// parameter or buffer: then it keeps its numbers and is not missing.
    ///
    /// Source: what overrides of `torch.nn.Module._load_from_state_dict` do for older versions.
    fn may_lack(&self, name: &str, version: Option<u32>) -> bool {
        let _ = (name, version);
        false
    }

    /// Returns what a state dict keeps of the module beside parameters and buffers, under the name
    /// `_extra_state`; the tensor's own name means nothing. A type that has this has
    /// [`set_extra_state`](Module::set_extra_state), too.
    ///
    /// # Example
    ///
    /// ```
    /// # use bevy_ecs::prelude::Component;
    /// # use neurarch_components::module::*;
    /// # use neurarch_components::state::Tensor;
    /// # use neurarch_kernels::ir::trace::Var;
    /// /// Passes its input through, and knows how often it was shown to somebody.
    /// #[derive(Component, Clone, Debug, PartialEq)]
    /// struct Shown {
    ///     times: i64,
    /// }
    ///
    /// impl Module for Shown {
    ///     fn forward(&self, _: &Call<'_>, x: Var) -> Var {
    ///         x
    ///     }
    ///
    ///     /// Models that were shown unequally often share a blueprint.
    ///     fn structural(&self) -> Self {
    ///         Shown { times: 0 }
    ///     }
    ///
    ///     fn get_extra_state(&self) -> Option<Tensor> {
    ///         Some(Tensor::new("", ndarray::arr0(self.times).view()))
    ///     }
    ///
    ///     fn set_extra_state(&mut self, state: &Tensor) -> Result<(), ExtraStateError> {
    ///         let times = state.to_array::<i64>().filter(|times| times.ndim() == 0);
    ///         let times = times.ok_or(ExtraStateError("expected one i64".into()))?;
    ///         self.times = times[[]];
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// Source: `torch.nn.Module.get_extra_state`. It is a tensor here, since safetensors has nothing else.
    fn get_extra_state(&self) -> Option<Tensor> {
        None
    }

    /// Takes what [`get_extra_state`](Module::get_extra_state) gave: `load_state_dict` calls it with the tensor
    /// of the name `_extra_state`.
    ///
    /// # Errors
    ///
    /// [`ExtraStateError`] if the tensor is not one that it can take, as all are by default.
    ///
    /// Source: `torch.nn.Module.set_extra_state`.
    fn set_extra_state(&mut self, state: &Tensor) -> Result<(), ExtraStateError> {
        let _ = state;
        Err(ExtraStateError(format!("{} has no set_extra_state", self.type_name())))
    }

    /// Changes what a state dict gets of the module itself: `saved` has its own parameters, persistent buffers and extra
    /// state, each name behind `prefix`, and `metadata` the version. In a stacked state dict tensors have the models in
    /// front.
    ///
    /// Source: an override of `torch.nn.Module._save_to_state_dict`.
    fn save_to_state_dict(
        &self,
        saved: &mut StateDict,
        prefix: &str,
        metadata: &mut LocalMetadata,
    ) {
        let _ = (saved, prefix, metadata);
    }

    /// Changes what the module is loaded from, which has the tensors of it and of all below it, each name behind `prefix`:
    /// renames keys of older versions, splits and joins tensors.
    ///
    /// # Example
    ///
    /// ```
    /// # use bevy_ecs::prelude::Component;
    /// # use neurarch_components::module::*;
    /// # use neurarch_components::state::*;
    /// /// Called its `scale` `gain` in its first version.
    /// #[derive(Component, Clone, Debug, PartialEq)]
    /// struct Scale;
    ///
    /// impl Module for Scale {
    ///     fn declare(&self, declare: &mut Declare) {
    ///         declare.parameter("scale", [3]);
    ///     }
    ///
    ///     fn version(&self) -> u32 {
    ///         2
    ///     }
    ///
    ///     fn load_from_state_dict(
    ///         &self,
    ///         state: &mut StateDict,
    ///         prefix: &str,
    ///         metadata: &LocalMetadata,
    ///         _: &mut Loading<'_>,
    ///     ) {
    ///         if metadata.version.is_none_or(|version| version < 2) {
    ///             state.rename(&format!("{prefix}gain"), format!("{prefix}scale"));
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// Source: what an override of `torch.nn.Module._load_from_state_dict` does before it calls that of its parent. Hooks
    /// registered by `register_load_state_dict_pre_hook` are called before it.
    fn load_from_state_dict(
        &self,
        state: &mut StateDict,
        prefix: &str,
        metadata: &LocalMetadata,
        loading: &mut Loading<'_>,
    ) {
        let _ = (state, prefix, metadata, loading);
    }

    /// Lists the attributes that the type has beside those of every module, so that nothing can be
    /// registered under their names.
    fn attributes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns what torch prints between the parentheses behind the type's name: `in_features=4, bias=True`.
    fn extra_repr(&self) -> String {
        String::new()
    }

    /// Returns the component that a spawned module has: a container leaves the list of its children to
    /// bevy's `Children`.
    fn spawned(&self) -> Self {
        self.clone()
    }

    /// Is called with each entity that a module of the type is spawned as: what a constructor does beside declaring, such as
    /// registering hooks of the module itself.
    ///
    /// # Example
    ///
    /// ```
    /// # use bevy_ecs::prelude::*;
    /// # use neurarch_components::hook::{Callback, HookOptions, Hooks};
    /// # use neurarch_components::module::*;
    /// # use neurarch_kernels::ir::trace::Var;
    /// /// Doubles what it is given, by a hook of its own.
    /// #[derive(Component, Clone, Debug, PartialEq)]
    /// struct Doubled;
    ///
    /// impl Module for Doubled {
    ///     fn forward(&self, _: &Call<'_>, x: Var) -> Var {
    ///         x
    ///     }
    ///
    ///     fn constructed(&self, module: &mut EntityWorldMut<'_>) {
    ///         let mut hooks = Hooks::default();
    ///         let double = Callback::forward(|_, _, y| {
    ///             Ok(y.and_then(|y| y.leaf()).map(|y| (y * 2.0).into()))
    ///         });
    ///         hooks.register(double, HookOptions::default());
    ///         module.insert(hooks);
    ///     }
    /// }
    /// ```
    ///
    /// Source: `self.register_forward_hook(…)` in a constructor of torch.
    fn constructed(&self, module: &mut EntityWorldMut<'_>) {
        let _ = module;
    }
}

/// Implements the trait [`Module`](trait@Module), `PartialEq` and `Debug` for a struct whose fields are what
/// `__init__` of a PyTorch module sets; the user writes [`Forward`].
///
/// | field                                        | what it is         | what `forward` calls                          |
/// |----------------------------------------------|--------------------|-----------------------------------------------|
/// | `fc: Linear`                                 | a child            | `self.fc(call, &x)`, `self.fc_with(call, arguments)` |
/// | `norm: Option<LayerNorm>`                    | a child, or none   | `self.norm(call, &x)`: an `Option`            |
/// | `layers: Vec<Linear>`, `layers: ModuleList`  | a `ModuleList`     | `for layer in self.layers(call) { x = layer(&x) }` |
/// | `scale: Parameter`, `bias: Option<Parameter>`| a parameter        | `self.scale(call)`, `self.bias(call)`: an `Option` |
/// | `#[buffer] mean: Parameter`                  | a buffer; `#[buffer(persistent = false)]` | `self.mean(call)`      |
/// | `#[scalar] slope: f64`                       | a scalar slot, as with [`Scalars`](derive@crate::Scalars) | `self.slope(call, x.dtype())` |
/// | `features: usize`, `#[setting] mode: Mode`   | a setting          | `self.features`                               |
///
/// A field whose type is made of numbers, flags and texts is a setting without `#[setting]`. A child that is misspelt
/// does not compile. `#[module(name = "ResidualBlock")]` before the struct gives the type another name in torch's words.
///
/// Children as fields are a description: once a model is spawned, its children are entities, which may be replaced.
/// So they are left out of equality and of `{:?}`, and `forward` calls what is there under the name of the field.
///
/// # Example
///
/// ```
/// use bevy_ecs::prelude::Component;
/// use neurarch_components::layers::{LayerNorm, Linear};
/// use neurarch_components::module::repr::repr;
/// use neurarch_components::module::{Call, Forward, Module};
/// use neurarch_kernels::ir::trace::Var;
///
/// #[derive(Module, Component, Clone)]
/// struct Residual {
///     norm: LayerNorm,
///     fc1: Linear,
///     fc2: Linear,
/// }
///
/// impl Forward for Residual {
///     fn forward(&self, call: &Call<'_>, x: Var) -> Var {
///         let h = self.fc1(call, self.norm(call, &x)).relu();
///         x + self.fc2(call, h)
///     }
/// }
///
/// let block = Residual { norm: LayerNorm::new([4]), fc1: Linear::new(4, 8), fc2: Linear::new(8, 4) };
/// assert_eq!(repr(&block), "\
/// Residual(
///   (norm): LayerNorm((4,), eps=1e-05, elementwise_affine=True, bias=True)
///   (fc1): Linear(in_features=4, out_features=8, bias=True)
///   (fc2): Linear(in_features=8, out_features=4, bias=True)
/// )");
/// ```
///
/// A child that is not there:
///
/// ```compile_fail,E0599
/// # use bevy_ecs::prelude::Component;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_components::module::{Call, Forward, Module};
/// # use neurarch_kernels::ir::trace::Var;
/// #[derive(Module, Component, Clone)]
/// struct Head {
///     fc: Linear,
/// }
///
/// impl Forward for Head {
///     fn forward(&self, call: &Call<'_>, x: Var) -> Var {
///         self.cf(call, x)
///     }
/// }
/// ```
///
/// Source: `torch.nn.Module.__init__` and `__setattr__`.
pub use neurarch_derive::Module;

/// Why a parametrization cannot be turned around.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoInverse(pub String);

/// Why a module does not take an extra state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExtraStateError(pub String);

/// The first numbers of a parameter or buffer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// All the same.
    Constant(f64),
    /// These, row-major.
    Numbers(#[serde(with = "crate::wire")] Arc<[f64]>),
    /// Uniform in `[low, high)`.
    Uniform {
        /// The least number.
        low: f64,
        /// The bound above.
        high: f64,
    },
    /// Normal.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Normal with mean 0 and standard deviation 1, but for one row of a matrix, which is zero.
    NormalRows {
        /// The row that is zero.
        zero: usize,
    },
    /// Normal, drawn anew until it lies in `[low, high]`.
    TruncatedNormal {
        /// Mean before truncation.
        mean: f64,
        /// Standard deviation before truncation.
        std: f64,
        /// The least number.
        low: f64,
        /// The greatest number.
        high: f64,
    },
    /// One on the diagonal of a matrix, zero elsewhere.
    Eye,
    /// One in the middle of a convolution's kernel where a channel meets its own, zero elsewhere.
    Dirac {
        /// How many groups the channels form.
        groups: usize,
    },
    /// `gain` times a matrix with orthonormal rows or columns, whichever are fewer, uniform among such;
    /// axes after the first count as columns.
    Orthogonal {
        /// The length of each row or column.
        gain: f64,
    },
    /// Normal with mean 0, but for the same number of zeros in each column of a matrix.
    Sparse {
        /// The fraction of each column, in `[0, 1]`, that is zero; rounded up to whole elements.
        sparsity: f64,
        /// Standard deviation of the others.
        std: f64,
    },
}

impl Init {
    /// Returns whether the numbers are drawn.
    pub fn is_random(&self) -> bool {
        match self {
            Init::Zeros
            | Init::Ones
            | Init::Constant(_)
            | Init::Numbers(_)
            | Init::Eye
            | Init::Dirac { .. } => false,
            Init::Uniform { .. }
            | Init::Normal { .. }
            | Init::NormalRows { .. }
            | Init::TruncatedNormal { .. }
            | Init::Orthogonal { .. }
            | Init::Sparse { .. } => true,
        }
    }
}

/// torch's warning of first numbers for a parameter without elements.
pub const EMPTY: &str = "Initializing zero-element tensors is a no-op";

/// Collects what a module registers.
#[derive(Debug, Default)]
pub struct Declare {
    /// Parameters in order of registration.
    pub parameters: Vec<Declared>,
    /// Buffers in order of registration.
    pub buffers: Vec<Declared>,
    /// Children in order of registration.
    pub children: Vec<(String, Box<dyn DynModule>)>,
    /// Modules that are children under a second name.
    pub shared: Vec<Share>,
    /// Parameters that are others', as pairs of dotted paths from this module: tied, and owner.
    pub ties: Vec<(String, String)>,
    /// Why the module cannot be.
    refused: Option<String>,
    /// What its constructor warns of.
    warnings: Vec<String>,
    /// Parameters whose first numbers torch draws by `kaiming_uniform_`.
    kaiming: Vec<String>,
}

/// A module that is a child under a second name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// How many children come before it.
    pub place: usize,
    /// The second name.
    pub name: String,
    /// The dotted path of the module, from the one that declares.
    pub path: String,
}

/// A parameter or buffer that a module registers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Declared {
    /// torch's name: `weight`.
    pub name: String,
    /// Its shape.
    #[serde(with = "crate::wire")]
    pub shape: Shape,
    /// Its element type; `None` means the dtype of the whole model.
    #[serde(with = "crate::wire")]
    pub dtype: Option<Dtype>,
    /// Whether a `state_dict` has it. Parameters are always persistent.
    pub persistent: bool,
    /// Whether it is a name without a value: torch's `None`. It has neither shape nor numbers.
    pub is_none: bool,
    /// Whether its shape is not known yet; `shape` means nothing then.
    pub uninitialized: bool,
    /// Whether it needs a gradient at first. That of a buffer means nothing.
    pub requires_grad: bool,
}

impl Declare {
    /// Says that the module cannot be, and why: what it is part of is not spawned. Of several reasons the first
    /// counts.
    pub fn refuse(&mut self, why: impl Into<String>) -> &mut Self {
        self.refused.get_or_insert_with(|| why.into());
        self
    }

    /// Says why the module cannot be, if it cannot.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Warns of something when a module of the type is spawned or comes into a live model.
    ///
    /// Source: Python's `warnings.warn` in a constructor.
    pub fn warn(&mut self, message: impl Into<String>) -> &mut Self {
        self.warnings.push(message.into());
        self
    }

    /// Lists what the module warns of.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        let is_empty = |of: &&Declared| {
            self.kaiming.contains(&of.name) && of.shape.contains(&0) && !of.uninitialized
        };
        let empty = self.parameters.iter().filter(is_empty).map(|_| EMPTY);
        self.warnings.iter().map(String::as_str).chain(empty)
    }

    /// Returns whether so many parameters, buffers and children may come to those that there are, and refuses the module
    /// if not: to be asked before a loop over a number that users give.
    pub fn takes(&mut self, more: usize) -> bool {
        let there = [self.parameters.len(), self.buffers.len(), self.children.len()];
        let given = there.into_iter().sum::<usize>().saturating_add(more);
        if given > MAX_ENTRIES {
            self.refuse(too_many(given));
        }
        given <= MAX_ENTRIES
    }

    /// Registers a parameter that torch initializes by `kaiming_uniform_`, which warns if it has no elements.
    pub(crate) fn kaiming_parameter(&mut self, name: &str, shape: impl Into<Shape>) -> &mut Self {
        self.kaiming.push(name.to_owned());
        self.parameter(name, shape)
    }

    /// Registers a parameter: `register_parameter`.
    pub fn parameter(&mut self, name: impl Into<String>, shape: impl Into<Shape>) -> &mut Self {
        let (name, shape) = (name.into(), shape.into());
        if !self.takes(1) {
            return self;
        }
        self.parameters.push(Declared {
            name,
            shape,
            dtype: None,
            persistent: true,
            is_none: false,
            uninitialized: false,
            requires_grad: true,
        });
        self
    }

    /// Registers a buffer: `register_buffer`.
    pub fn buffer(
        &mut self,
        name: impl Into<String>,
        shape: impl Into<Shape>,
        persistent: bool,
    ) -> &mut Self {
        let (name, shape) = (name.into(), shape.into());
        if !self.takes(1) {
            return self;
        }
        self.buffers.push(Declared {
            name,
            shape,
            dtype: None,
            persistent,
            is_none: false,
            uninitialized: false,
            requires_grad: true,
        });
        self
    }

    /// Registers the name of a parameter that is not there: `register_parameter(name, None)`.
    pub fn no_parameter(&mut self, name: impl Into<String>) -> &mut Self {
        self.parameter(name, Shape::scalar());
        self.parameters.iter_mut().next_back().into_iter().for_each(|last| last.is_none = true);
        self
    }

    /// Registers a parameter, or its name alone if there is no shape: a bias that is switched off.
    pub fn optional_parameter(
        &mut self,
        name: impl Into<String>,
        shape: Option<impl Into<Shape>>,
    ) -> &mut Self {
        match shape {
            Some(shape) => self.parameter(name, shape),
            None => self.no_parameter(name),
        }
    }

    /// Registers the name of a buffer that is not there: `register_buffer(name, None)`.
    pub fn no_buffer(&mut self, name: impl Into<String>) -> &mut Self {
        self.buffer(name, Shape::scalar(), true);
        self.buffers.iter_mut().next_back().into_iter().for_each(|last| last.is_none = true);
        self
    }

    /// Registers a buffer whose element type is not the model's: a count in i64.
    pub fn buffer_of(
        &mut self,
        name: impl Into<String>,
        shape: impl Into<Shape>,
        dtype: Dtype,
        persistent: bool,
    ) -> &mut Self {
        self.buffer(name, shape, persistent);
        if let Some(buffer) = self.buffers.last_mut() {
            buffer.dtype = Some(dtype);
        }
        self
    }

    /// Registers a parameter whose element type is not the model's. One of integers needs no gradient:
    /// [`frozen`](Declare::frozen).
    pub fn parameter_of(
        &mut self,
        name: impl Into<String>,
        shape: impl Into<Shape>,
        dtype: Dtype,
    ) -> &mut Self {
        self.parameter(name, shape);
        if let Some(parameter) = self.parameters.last_mut() {
            parameter.dtype = Some(dtype);
        }
        self
    }

    /// Says that a parameter declared before needs no gradient at first: `Parameter(data, requires_grad=False)`.
    pub fn frozen(&mut self, name: &str) -> &mut Self {
        let of_name = self.parameters.iter_mut().filter(|of| of.name == name);
        of_name.for_each(|of| of.requires_grad = false);
        self
    }

    /// Says that the shape of a parameter or buffer declared before is not known yet:
    /// `UninitializedParameter`, `UninitializedBuffer`.
    pub fn uninitialized(&mut self, name: &str) -> &mut Self {
        let all = self.parameters.iter_mut().chain(&mut self.buffers);
        all.filter(|of| of.name == name).for_each(|of| of.uninitialized = true);
        self
    }

    /// Registers a child: `add_module`.
    pub fn child(&mut self, name: impl Into<String>, module: impl Module) -> &mut Self {
        if self.takes(1) {
            self.children.push((name.into(), Box::new(module)));
        }
        self
    }

    /// Registers the module at a dotted path from this one, declared before, under a second name:
    /// `self.again = self.block`.
    pub fn share(&mut self, name: impl Into<String>, path: impl Into<String>) -> &mut Self {
        let (name, path, place) = (name.into(), path.into(), self.children.len());
        self.shared.push(Share { place, name, path });
        self
    }

    /// Makes a parameter the same as another, both by dotted paths from this module:
    /// `self.decoder.weight = self.encoder.weight`. Its own first numbers are not drawn.
    pub fn tie(&mut self, parameter: impl Into<String>, owner: impl Into<String>) -> &mut Self {
        self.ties.push((parameter.into(), owner.into()));
        self
    }
}

/// [`Module`] behind a pointer; every module is one.
pub trait DynModule: Any + Debug + Send + Sync {
    /// See [`Module::type_name`].
    fn type_name(&self) -> &'static str;
    /// Returns the type's path in Rust: `neurarch_components::layers::linear::Linear`.
    fn rust_name(&self) -> &'static str;
    /// See [`Module::version`].
    fn version(&self) -> u32;
    /// See [`Module::may_lack`].
    fn may_lack(&self, name: &str, version: Option<u32>) -> bool;
    /// See [`Module::get_extra_state`].
    fn get_extra_state(&self) -> Option<Tensor>;
    /// Returns a copy that took the state: see [`Module::set_extra_state`].
    ///
    /// # Errors
    ///
    /// See there.
    fn with_extra_state(&self, state: &Tensor) -> Result<Box<dyn DynModule>, ExtraStateError>;
    /// See [`Module::save_to_state_dict`].
    fn save_to_state_dict(&self, saved: &mut StateDict, prefix: &str, metadata: &mut LocalMetadata);
    /// See [`Module::load_from_state_dict`].
    fn load_from_state_dict(
        &self,
        state: &mut StateDict,
        prefix: &str,
        metadata: &LocalMetadata,
        loading: &mut Loading<'_>,
    );
    /// See [`Module::attributes`].
    fn attributes(&self) -> &'static [&'static str];
    /// See [`Module::declare`].
    fn declare(&self, declare: &mut Declare);
    /// See [`Module::reset`].
    fn reset(&self, parameter: &str) -> Init;
    /// See [`Module::reset_below`].
    fn reset_below(&self, path: &str, shape: &Shape) -> Option<Init>;
    /// See [`Module::forward_with`].
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree;
    /// See [`Module::right_inverse`].
    ///
    /// # Errors
    ///
    /// See there.
    fn right_inverse(&self, call: &Call<'_>, tensor: Var) -> Result<Tree, NoInverse>;
    /// See [`Module::uses_training`].
    fn uses_training(&self) -> bool;
    /// See [`Module::converted_dtype`].
    fn converted_dtype(&self, name: &str, dtype: Dtype) -> Dtype;
    /// See [`Module::is_lazy`].
    fn is_lazy(&self) -> bool;
    /// See [`Module::initialize_parameters`].
    fn initialize_parameters(
        &self,
        call: &Call<'_>,
        arguments: &Arguments,
    ) -> Option<Box<dyn DynModule>>;
    /// See [`Module::materialize`].
    fn materialize(&self, name: &str, shape: &Shape) -> Option<Box<dyn DynModule>>;
    /// See [`Module::listed`].
    fn listed(&self) -> Option<Box<dyn Iterator<Item = &dyn DynModule> + '_>>;
    /// See [`Module::joins_alike_in_repr`].
    fn joins_alike_in_repr(&self) -> bool;
    /// See [`Module::structural`].
    fn structural(&self) -> Box<dyn DynModule>;
    /// See [`Module::scalar`].
    fn scalar(&self, name: &str) -> Option<f64>;
    /// See [`Module::extra_repr`].
    fn extra_repr(&self) -> String;
    /// Returns whether the two may share a blueprint: one type, equal structural fields.
    fn is_like(&self, other: &dyn DynModule) -> bool;
    /// Returns whether the two are equal, scalar slots included.
    fn equals(&self, other: &dyn DynModule) -> bool;
    /// Copies.
    fn clone_box(&self) -> Box<dyn DynModule>;
    /// Makes the type known to the world ([`ModuleTypes::register`](registry::ModuleTypes::register)).
    fn register(&self, world: &mut World);
    /// See [`Module::constructed`].
    fn constructed(&self, module: &mut EntityWorldMut<'_>);
    /// Adds [`Module::spawned`] as a component.
    fn insert_into(&self, entity: &mut EntityWorldMut<'_>);
    /// Adds [`Module::spawned`] as a component, and the columns with it.
    fn insert_with(&self, columns: &mut RowBundle, entity: &mut EntityWorldMut<'_>);
}

impl Clone for Box<dyn DynModule> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}
