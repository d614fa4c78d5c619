//! What torch's containers have in common: [`Named`] lists, indices and slices, errors.

mod limit;
mod live;
mod named;
mod slice;

pub(crate) use limit::{Refusal, limited};
pub use live::LiveModule;
pub use named::Named;
pub use slice::{Slice, place};

pub use crate::module::limits::{MAX_DEPTH, MAX_ENTRIES, too_deep, too_many};

use crate::module::names::{Kind, wrong_name};
use crate::module::{DynModule, Module};

/// Why an operation on a container failed, in torch's words. The container is as it was before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// No entry has this index. torch's `IndexError`.
    #[error("index {0} is out of range")]
    Index(isize),
    /// Nothing can be inserted at this index. torch's `IndexError`.
    #[error("Index out of range: {0}")]
    InsertIndex(isize),
    /// A slice goes nowhere. torch's `ValueError`.
    #[error("slice step cannot be zero")]
    Step,
    /// No entry has this name. torch's `KeyError`.
    #[error("KeyError: '{0}'")]
    Key(String),
    /// No entry has this name, where torch looks for an attribute: its `AttributeError`.
    #[error("'{container}' object has no attribute '{name}'")]
    Attribute {
        /// The container's type.
        container: &'static str,
        /// What was asked for.
        name: String,
    },
    /// A name is empty, contains a dot, or is taken. torch's `KeyError`.
    #[error("{0}")]
    Name(String),
    /// A `Sequential` cannot be repeated so many times. torch's `ValueError`.
    #[error("Non-positive multiplication factor {0} for Sequential")]
    Factor(isize),
    /// A module would have more children than one can have.
    #[error("{}", too_many(*.0))]
    TooMany(usize),
    /// There is no last item. torch's `KeyError`.
    #[error("popitem(): dictionary is empty")]
    Empty,
}

impl ContainerError {
    /// Checks a name as torch's `add_module` and `register_parameter` do.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Name`].
    pub fn check_name(kind: Kind, container: &str, name: &str) -> Result<(), ContainerError> {
        let wrong = wrong_name(kind, container, name, |_| false);
        wrong.map_or(Ok(()), |message| Err(ContainerError::Name(message)))
    }
}

/// What can be put into a container of modules: a module, or one in a box.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// let boxes = vec![Linear::new(4, 2).into_module(), Tanh.into_module()];
/// assert_eq!(Sequential::from_iter(boxes), Sequential::new().push(Linear::new(4, 2)).push(Tanh));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a neurarch module",
    note = "derive `Component`, `Clone`, `Debug` and `PartialEq`, and implement `Module::forward`"
)]
pub trait IntoModule {
    /// Puts the module into a box; one that is in a box stays there. One that is nested deeper than [`MAX_DEPTH`] gives
    /// way to one that cannot be spawned.
    fn into_module(self) -> Box<dyn DynModule>;
}

impl<M: Module> IntoModule for M {
    fn into_module(self) -> Box<dyn DynModule> {
        limited(Box::new(self))
    }
}

impl IntoModule for Box<dyn DynModule> {
    fn into_module(self) -> Box<dyn DynModule> {
        limited(self)
    }
}

/// Modules under names, before they are spawned.
pub(crate) type Modules = Named<Box<dyn DynModule>>;

/// Two lists are equal if they have the same names in the same order and each two modules may share a
/// blueprint.
impl PartialEq for Modules {
    fn eq(&self, other: &Self) -> bool {
        let mut others = other.iter();
        self.len() == other.len()
            && self.iter().all(|(name, module)| {
                let other = others.next();
                other.is_some_and(|(other, like)| name == other && module.is_like(&**like))
            })
    }
}

/// Gives containers of modules, whose one field is `modules`, what all of them have: the operations by name.
macro_rules! modules_by_name {
    ($container:ident) => {
        impl $container {
            /// Makes a container without children.
            pub fn new() -> Self {
                $container::default()
            }

            /// Counts the children listed in this value: none on a spawned entity.
            pub fn len(&self) -> usize {
                self.modules.len()
            }

            /// Returns whether this value lists no children, as that of a spawned entity.
            pub fn is_empty(&self) -> bool {
                self.modules.is_empty()
            }

            /// Goes through names and children in order. Source: torch's `named_children`.
            pub fn iter(
                &self,
            ) -> impl DoubleEndedIterator<Item = (&str, &dyn DynModule)> + ExactSizeIterator {
                self.modules.iter().map(|(name, module)| (name, &**module))
            }

            /// Goes through the names in order.
            pub fn keys(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
                self.modules.iter().map(|(name, _)| name)
            }

            /// Goes through the children in order. Source: torch's `children`.
            pub fn values(
                &self,
            ) -> impl DoubleEndedIterator<Item = &dyn DynModule> + ExactSizeIterator {
                self.modules.iter().map(|(_, module)| &**module)
            }

            /// Returns the child of that name, if there is one: torch's attribute of this name.
            pub fn named(&self, name: &str) -> Option<&dyn DynModule> {
                self.modules.get(name).map(|module| &**module)
            }

            /// Appends a child under a name; one that had this name is replaced in its place.
            ///
            /// # Errors
            ///
            /// [`ContainerError::Name`] if the name is empty, contains a dot, or is one of an
            /// attribute of torch's container: such a model could not be loaded there.
            ///
            /// Source: `torch.nn.Module.add_module`.
            pub fn add_module(
                &mut self,
                name: impl Into<String>,
                module: impl IntoModule,
            ) -> Result<&mut Self, ContainerError> {
                let name = name.into();
                ContainerError::check_name(Kind::Module, stringify!($container), &name)?;
                self.modules.set(name, module.into_module());
                Ok(self)
            }
        }

        /// torch's printed form ([`repr`](crate::module::repr::repr)).
        impl core::fmt::Display for $container {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(&crate::module::repr::repr(self))
            }
        }
    };
}

/// Gives containers of modules what those have whose children are numbered: the operations that are the same
/// in `Sequential` and `ModuleList`.
macro_rules! modules_in_order {
    ($container:ident) => {
        impl $container {
            /// Appends a module, named by its number: `0`, `1`, …
            #[must_use]
            pub fn push(mut self, module: impl IntoModule) -> Self {
                self.append(module);
                self
            }

            /// Appends a module, named by its number. Source: torch's `append`.
            pub fn append(&mut self, module: impl IntoModule) -> &mut Self {
                self.modules.append(module.into_module());
                self
            }

            /// Inserts a module before all others: `insert` at 0.
            ///
            /// # Errors
            ///
            /// As `insert`.
            pub fn prepend(
                &mut self,
                module: impl IntoModule,
            ) -> Result<&mut Self, ContainerError> {
                self.insert(0, module)
            }
        }

        /// Lists modules, named by their numbers.
        impl<M: IntoModule> FromIterator<M> for $container {
            fn from_iter<I: IntoIterator<Item = M>>(modules: I) -> Self {
                modules.into_iter().fold($container::new(), $container::push)
            }
        }

        /// Lists modules, named by their numbers.
        impl<M: IntoModule, const N: usize> From<[M; N]> for $container {
            fn from(modules: [M; N]) -> Self {
                modules.into_iter().collect()
            }
        }

        /// Returns the modules in order, without their names.
        impl IntoIterator for $container {
            type Item = Box<dyn DynModule>;
            type IntoIter = std::vec::IntoIter<Box<dyn DynModule>>;

            fn into_iter(self) -> Self::IntoIter {
                let modules = self.modules.into_iter().map(|(_, module)| module);
                modules.collect::<Vec<_>>().into_iter()
            }
        }
    };
}

pub(crate) use {modules_by_name, modules_in_order};
