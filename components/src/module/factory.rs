//! [`Factory`]: a layer with the `dtype` and `device` that its constructor is given.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::device::Device;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::tree::{Arguments, Tree};

use crate::module::call::Call;
use crate::module::{Declare, Declared, DynModule, Init, Module};

/// The arguments `dtype` and `device` of layers, lazy ones included.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// # use neurarch_components::module::blueprint::Blueprint;
/// # use neurarch_components::module::factory::FactoryArguments;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// let head = Linear::new(4, 1).with_dtype(Dtype::F64);
/// let brain = Sequential::new().push(Linear::new(2, 4)).push(Tanh).push(head);
/// let blueprint = Blueprint::of(&brain, Dtype::F32)?;
/// assert_eq!(blueprint.parameter(1, "weight").unwrap().ty.dtype, Dtype::F32);
/// assert_eq!(blueprint.parameter(3, "weight").unwrap().ty.dtype, Dtype::F64);
/// # Ok::<(), neurarch_components::module::blueprint::TieError>(())
/// ```
///
/// Source: the arguments of torch's constructors, which pass them on as `factory_kwargs`. Here all modules have them:
/// containers pass them on to what is below them. Arrays that a model is called with, targets and losses have the
/// population's type as long as one of the model's tensors has it.
pub trait FactoryArguments: Module + Sized {
    /// Gives the floating parameters and buffers of the module, and of all below it, an element type other than the
    /// population's. What says its own type keeps it.
    #[must_use]
    fn with_dtype(self, dtype: Dtype) -> Factory {
        Factory { module: Box::new(self), dtype: Some(dtype), device: None }
    }

    /// Says where the module's numbers are to lie. A device that is not there is an error when the module is spawned.
    #[must_use]
    fn with_device(self, device: Device) -> Factory {
        Factory { module: Box::new(self), dtype: None, device: Some(device) }
    }
}

impl<M: Module> FactoryArguments for M {}

/// A module and the arguments that its constructor is given; made by [`FactoryArguments`].
///
/// It is part of descriptions alone: what is spawned is the module itself. The types that differ from its
/// population's stand beside it, in [`Dtypes`](crate::module::dtypes::Dtypes).
#[derive(Component, Clone, Debug)]
pub struct Factory {
    module: Box<dyn DynModule>,
    dtype: Option<Dtype>,
    device: Option<Device>,
}

impl Factory {
    /// See [`FactoryArguments::with_dtype`]. The last one counts.
    #[must_use]
    pub fn with_dtype(self, dtype: Dtype) -> Self {
        Factory { dtype: Some(dtype), ..self }
    }

    /// See [`FactoryArguments::with_device`]. The last one counts.
    #[must_use]
    pub fn with_device(self, device: Device) -> Self {
        Factory { device: Some(device), ..self }
    }

    /// Returns a child with the element type of its parent, unless it has one of its own.
    fn child(&self, child: Box<dyn DynModule>) -> Box<dyn DynModule> {
        let Some(dtype) = self.dtype else { return child };
        Box::new(match (&*child as &dyn core::any::Any).downcast_ref::<Factory>() {
            Some(own) => Factory { dtype: own.dtype.or(self.dtype), ..own.clone() },
            None => Factory { module: child, dtype: Some(dtype), device: None },
        })
    }
}

impl PartialEq for Factory {
    fn eq(&self, other: &Self) -> bool {
        self.module.equals(&*other.module)
            && (self.dtype, self.device) == (other.dtype, other.device)
    }
}

/// All but the types of parameters is the module's own.
impl Module for Factory {
    fn type_name(&self) -> &'static str {
        self.module.type_name()
    }

    fn declare(&self, declare: &mut Declare) {
        self.module.declare(declare);
        let retype = |of: &mut Declared| of.dtype = of.dtype.or(self.dtype);
        declare.parameters.iter_mut().chain(&mut declare.buffers).for_each(retype);
        let children = core::mem::take(&mut declare.children);
        declare.children =
            children.into_iter().map(|(name, child)| (name, self.child(child))).collect();
    }

    fn reset(&self, parameter: &str) -> Init {
        self.module.reset(parameter)
    }

    fn reset_below(&self, path: &str, shape: &Shape) -> Option<Init> {
        self.module.reset_below(path, shape)
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        self.module.forward_with(call, arguments)
    }

    fn uses_training(&self) -> bool {
        self.module.uses_training()
    }

    fn is_lazy(&self) -> bool {
        self.module.is_lazy()
    }

    fn joins_alike_in_repr(&self) -> bool {
        self.module.joins_alike_in_repr()
    }

    fn attributes(&self) -> &'static [&'static str] {
        self.module.attributes()
    }

    fn extra_repr(&self) -> String {
        self.module.extra_repr()
    }
}

impl dyn DynModule {
    /// Returns the module that is spawned: without the arguments of its constructor.
    pub fn plain(&self) -> &dyn DynModule {
        let mut module = self;
        while let Some(factory) = (module as &dyn core::any::Any).downcast_ref::<Factory>() {
            module = &*factory.module;
        }
        module
    }

    /// Returns the device that the constructor was given.
    pub fn device(&self) -> Option<Device> {
        (self as &dyn core::any::Any).downcast_ref::<Factory>()?.device
    }
}
