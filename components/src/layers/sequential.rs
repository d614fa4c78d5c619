//! [`Sequential`]: one module after the other.

use bevy_ecs::prelude::*;
use neurarch_kernels::program::tree::{Arguments, Tree};

use crate::module::{Call, Declare, DynModule, Module};

/// Passes its input through its children in order.
///
/// Before spawning, the value lists the children. On a spawned entity it is empty: there the children
/// are entities, in the order of bevy's [`Children`], under their names.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// let brain = Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2));
/// assert_eq!(brain.len(), 3);
/// ```
///
/// Source: `torch.nn.Sequential`; `push_named` is its `OrderedDict` form.
#[derive(Component, Clone, Debug, Default)]
#[component(immutable)]
pub struct Sequential {
    children: Vec<(String, Box<dyn DynModule>)>,
}

impl Sequential {
    /// Makes a container without children, which gives back its input.
    pub fn new() -> Self {
        Sequential::default()
    }

    /// Appends a module, named by its number: `0`, `1`, …
    #[must_use]
    pub fn push(self, module: impl Module) -> Self {
        let name = self.children.len().to_string();
        self.push_named(name, module)
    }

    /// Appends a module under a name. A module that had this name is replaced, as in torch.
    #[must_use]
    pub fn push_named(mut self, name: impl Into<String>, module: impl Module) -> Self {
        let name = name.into();
        let module: Box<dyn DynModule> = Box::new(module);
        match self.children.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = module,
            None => self.children.push((name, module)),
        }
        self
    }

    /// Counts the children listed in this value.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Says whether this value lists no children, as that of a spawned entity.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }
}

impl PartialEq for Sequential {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.children.iter().zip(&other.children).all(
                |((name, child), (other_name, other))| {
                    name == other_name && child.is_like(&**other)
                },
            )
    }
}

impl Module for Sequential {
    fn declare(&self, declare: &mut Declare) {
        declare.children.extend(self.children.iter().cloned());
    }

    fn forward_with(&self, call: &Call<'_>, mut arguments: Arguments) -> Tree {
        match arguments.positional.pop() {
            Some(x) if arguments.positional.is_empty() && arguments.keyword.is_empty() => {
                call.children().fold(x, |x, name| call.child_with(name, Arguments::one(x)))
            }
            x => {
                arguments.positional.extend(x);
                call.only_value(arguments);
                call.trace.poison().into()
            }
        }
    }

    /// The blueprint's positions name the children.
    fn structural(&self) -> Self {
        Sequential::new()
    }

    fn spawned(&self) -> Self {
        Sequential::new()
    }
}

#[cfg(test)]
mod tests {
    use neurarch_kernels::dtype::Dtype;

    use super::*;
    use crate::blueprint::Blueprint;
    use crate::layers::{Dropout, Linear, Tanh};

    #[test]
    fn children_are_named_by_number() {
        let brain = Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2));
        let blueprint = Blueprint::of(&brain, Dtype::F32).unwrap();
        let paths: Vec<_> = blueprint.positions.iter().map(|at| at.path.as_str()).collect();
        assert_eq!(paths, ["", "0", "1", "2"]);
    }

    #[test]
    fn scalar_slots_do_not_change_the_blueprint() {
        let of = |p| {
            let brain = Sequential::new().push(Linear::new(4, 16)).push(Dropout { p });
            Blueprint::of(&brain, Dtype::F32).unwrap()
        };
        assert!(of(0.1).is_like(&of(0.9)));
    }
}
