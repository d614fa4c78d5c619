//! [`BareModule`]: a module of parameters, buffers and children that computes nothing.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::shape::Shape;
use serde::{Deserialize, Serialize};

use crate::containers::IntoModule;
use crate::layers::Parameter;
use crate::module::{Declare, DynModule, Init, Module};

/// Holds parameters, buffers and children, and cannot be called: what a model is built from at run time.
///
/// In errors its type is called `Module`, as in torch; the trait has that name here.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// # use neurarch_components::module::Init;
/// let head = BareModule::new().parameter("scale", [16], Init::Ones).child("fc", Linear::new(16, 2));
/// ```
///
/// Source: `torch.nn.Module` itself.
#[derive(Component, Clone, Debug, Default, Serialize, Deserialize)]
#[component(immutable)]
pub struct BareModule {
    parameters: Vec<(String, Parameter)>,
    buffers: Vec<(String, Parameter, bool)>,
    #[serde(skip)]
    children: Vec<(String, Box<dyn DynModule>)>,
}

impl BareModule {
    /// Creates an empty one.
    pub fn new() -> Self {
        BareModule::default()
    }

    /// Registers a parameter.
    #[must_use]
    pub fn parameter(
        mut self,
        name: impl Into<String>,
        shape: impl Into<Shape>,
        init: Init,
    ) -> Self {
        self.parameters.push((name.into(), Parameter::new(shape, init)));
        self
    }

    /// Registers a buffer of zeros.
    #[must_use]
    pub fn buffer(
        mut self,
        name: impl Into<String>,
        shape: impl Into<Shape>,
        persistent: bool,
    ) -> Self {
        self.buffers.push((name.into(), Parameter::zeros(shape), persistent));
        self
    }

    /// Registers a child.
    #[must_use]
    pub fn child(mut self, name: impl Into<String>, module: impl Module) -> Self {
        self.children.push((name.into(), module.into_module()));
        self
    }
}

impl PartialEq for BareModule {
    fn eq(&self, other: &Self) -> bool {
        let children = self.children.iter().zip(&other.children);
        self.parameters == other.parameters
            && self.buffers == other.buffers
            && self.children.len() == other.children.len()
            && children.into_iter().all(|((a, one), (b, other))| a == b && one.is_like(&**other))
    }
}

impl Module for BareModule {
    fn uses_training(&self) -> bool {
        false
    }

    fn type_name(&self) -> &'static str {
        "Module"
    }

    fn declare(&self, declare: &mut Declare) {
        for (name, parameter) in &self.parameters {
            parameter.declare(name, declare);
        }
        for (name, buffer, persistent) in &self.buffers {
            buffer.declare_buffer(name, *persistent, declare);
        }
        declare.children.extend(self.children.iter().cloned());
    }

    fn reset(&self, parameter: &str) -> Init {
        let known = self.parameters.iter().find(|(name, _)| name == parameter);
        known.map_or(Init::Zeros, |(_, parameter)| parameter.init.clone())
    }

    /// The blueprint's positions list the parameters, the buffers and the children.
    fn structural(&self) -> Self {
        BareModule { parameters: self.parameters.clone(), ..BareModule::new() }
    }

    fn spawned(&self) -> Self {
        BareModule { children: Vec::new(), ..self.clone() }
    }
}
