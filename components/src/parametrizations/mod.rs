//! Parametrizations: a module's tensor that is computed from others, which are the parameters then.
//!
//! A module whose `weight` is parametrized has a child `parametrizations` ([`Parametrizations`]), in it a child
//! `weight` ([`ParametrizationList`]), which has the parameter `original` (or `original0`, `original1`, …) and
//! the parametrizations as children `0`, `1`, …. They are modules like all others, so names, copies, modes
//! and hooks are as everywhere. The module's own `weight` is gone as long as the list is there, and
//! [`Call::parameter`] computes it: layers and modules of your own need not know.
//!
//! Any module is a parametrization: its `forward` takes the original and gives the tensor, and
//! [`right_inverse`](Module::right_inverse) goes back, if it can.
//!
//! Source: `torch.nn.utils.parametrize`.

mod orthogonal;
mod spectral_norm;
mod weight_norm;

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::shape::Shape;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

pub use orthogonal::{Orthogonal, OrthogonalMap};
pub use spectral_norm::SpectralNorm;

pub use crate::module::parametrized::{
    PARAMETRIZATIONS, Parametrizations, WeightNorm, WeightNormed,
};

use crate::module::registered::Registered;
use crate::module::registry::tell_change;
use crate::module::{Call, Declare, Declared, Init, Module, NoInverse};

impl Module for Parametrizations {
    fn type_name(&self) -> &'static str {
        "ModuleDict"
    }
}

/// Holds the originals of a parametrized tensor, and computes it: its children one after the other, the first
/// of all originals.
///
/// Source: `torch.nn.utils.parametrize.ParametrizationList`.
#[derive(Component, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[component(immutable)]
pub struct ParametrizationList {
    /// The tensor that is computed, as its module declares it.
    pub tensor: Declared,
    /// What it is computed from, in order: `original`, or `original0`, `original1`, ….
    pub originals: Vec<Declared>,
    /// Whether the tensor is a buffer.
    pub is_buffer: bool,
    /// The first numbers of the tensor, which those of the originals follow from.
    pub init: Init,
}

impl ParametrizationList {
    /// Names the originals as torch does: one is `original`, several are numbered.
    pub fn named(mut self, originals: impl IntoIterator<Item = Shape>, is_one: bool) -> Self {
        let declared = originals.into_iter().enumerate().map(|(number, shape)| Declared {
            name: if is_one { "original".into() } else { format!("original{number}") },
            shape,
            ..self.tensor.clone()
        });
        self.originals = declared.collect();
        self
    }

    /// Returns whether there is one original, under the name `original`.
    pub fn is_tensor(&self) -> bool {
        matches!(&self.originals[..], [only] if only.name == "original")
    }
}

impl Module for ParametrizationList {
    fn declare(&self, declare: &mut Declare) {
        let of = if self.is_buffer { &mut declare.buffers } else { &mut declare.parameters };
        of.extend(self.originals.iter().cloned());
    }

    /// Those of a tensor whose parametrization has no inverse; of others the system
    /// `reset_parameters` makes something better.
    fn reset(&self, _: &str) -> Init {
        self.init.clone()
    }

    fn forward_with(&self, call: &Call<'_>, _: Arguments) -> Tree {
        let original = |of: &Declared| match self.is_buffer {
            true => call.buffer(&of.name).into(),
            false => call.parameter(&of.name).into(),
        };
        let positional = self.originals.iter().map(original).collect();
        let originals = Arguments { positional, keyword: Vec::new() };
        let mut children = call.children();
        let Some(first) = children.next() else {
            let message = "ParametrizationList requires one or more modules.";
            return call.trace.fail(message).into();
        };
        let made = call.child_with(first, originals);
        children.fold(made, |made, name| call.child_with(name, Arguments::one(made)))
    }

    /// Goes back through the parametrizations, the last one first.
    fn right_inverse(&self, call: &Call<'_>, tensor: Var) -> Result<Tree, NoInverse> {
        let children: Vec<_> = call.children().collect();
        children.into_iter().rev().try_fold(Tree::from(tensor), |made, name| match made {
            Tree::Leaf(tensor) => call.right_inverse(name, tensor),
            other => {
                let given = other.type_name();
                let message = format!("`right_inverse` should return a tensor. Got {given}");
                Ok(call.trace.fail(message).into())
            }
        })
    }
}

/// Names parameters and buffers of a module that were registered again after it was made: they come after its
/// others, in this order. A component of the module's entity.
///
/// Source: a tensor whose parametrizations were removed, which comes last in a `state_dict`.
#[derive(Component, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[component(immutable, on_insert = tell_change, on_remove = tell_change)]
pub struct RegisteredAgain(pub Vec<String>);

impl RegisteredAgain {
    /// Says that a module's parameter or buffer was registered again, and comes last from now on.
    pub fn push(world: &mut World, module: Entity, name: &str) {
        let known = world.get::<RegisteredAgain>(module).cloned();
        let mut again = known.unwrap_or(RegisteredAgain(Vec::new()));
        again.0.retain(|known| known != name);
        again.0.push(name.to_owned());
        if let Ok(mut module) = world.get_entity_mut(module) {
            module.insert(again);
        }
    }

    /// Puts what is registered in a module in this order.
    pub fn sort(&self, registered: &mut Registered) {
        registered.parameters.sort_by_key(|parameter| self.place(&parameter.name));
        registered.buffers.sort_by_key(|buffer| self.place(&buffer.name));
    }

    /// Returns the place of a name in the order: 0 for those that were not registered again.
    pub fn place(&self, name: &str) -> usize {
        self.0.iter().position(|known| known == name).map_or(0, |place| place + 1)
    }
}

/// Returns the numbers of a tensor whose axis `dim` comes first, the others flattened: `[size, others]`.
fn matrix(tensor: &Var, dim: usize) -> Var {
    let mut axes: Vec<_> = (0..tensor.shape().rank() as isize).collect();
    let first = axes.remove(dim);
    axes.insert(0, first);
    let turned = if dim == 0 { tensor.clone() } else { tensor.permute(&axes) };
    let rows = tensor.shape()[dim];
    let others = tensor.shape().iter().enumerate().filter(|(axis, _)| *axis != dim);
    turned.reshape([rows, others.map(|(_, size)| size).product()])
}

/// Divides by the Euclidean norm of all elements, by `eps` if that is more.
///
/// Source: `torch.nn.functional.normalize`.
fn normalize(x: &Var, eps: f64) -> Var {
    let norm = x.square().sum(&[], false).sqrt();
    let least = x.trace().constant(eps, x.dtype(), []);
    x / norm.maximum(&least)
}

/// Returns ones on the diagonal, zeros elsewhere.
fn eye(like: &Var, rows: usize, columns: usize) -> Var {
    let ones = like.trace().constant(1.0, like.dtype(), [rows, columns]);
    ones.tril(0) - ones.tril(-1)
}
