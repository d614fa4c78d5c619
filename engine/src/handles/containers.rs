//! [`LiveContainer`]: torch's operations on containers of live models, by one-line callers of
//! [`systems::containers`](crate::systems::edit::containers).

use bevy_ecs::prelude::*;
use ndarray::ArrayD;

use crate::components::containers::Slice;
use crate::components::module::registered::IntoValue;
use crate::kernels::ir::dtype::Element;
use crate::systems::compile::array::Input;
use crate::systems::edit::containers;
use crate::systems::edit::containers::{EditError, Item, Key, Popped};
use crate::systems::execute::hooks::Target;
use crate::systems::execute::step;
use crate::systems::execute::step::StepError;

/// A container of a live model, or those of all models of a population.
///
/// What changes it gives it back, so that operations can follow each other. Each is done in all models, or in
/// none.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 8)).push(Tanh).push(Linear::new(8, 2));
/// let mut brains = world.spawn_population(&brain, 100, Seed(1))?;
/// let head = brains.model(0)?.get_submodule("2")?;
///
/// // One model gets deeper; its layers keep what they have learned, the other models do not notice.
/// brains.model(0)?.container().insert(2, Linear::new(8, 8))?.insert(3, ReLU)?;
/// assert_eq!(brains.model(0)?.container().get(-1)?.module(), Some(head)); // Now "4".
/// assert_eq!(brains.model(1)?.container().len()?, 3);
///
/// // The same in all models at once: all get another activation, then lose their last layer.
/// brains.container().set(1, ReLU)?.remove(-1)?;
/// assert_eq!(brains.model(0)?.container().len()?, 4);
///
/// let error = brains.model(0)?.container().pop(7).unwrap_err();
/// assert_eq!(error.to_string(), "index 7 is out of range");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: the methods of `torch.nn.Sequential`, `ModuleList`, `ModuleDict`, `ParameterList` and `ParameterDict`.
pub struct LiveContainer<'w> {
    pub(super) world: &'w mut World,
    pub(super) target: Target,
}

impl core::fmt::Debug for LiveContainer<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("LiveContainer").field(&self.target).finish()
    }
}

impl LiveContainer<'_> {
    /// Appends a module or parameter to a list: [`containers::append`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn append(self, value: impl IntoValue) -> Result<Self, EditError> {
        containers::append(self.world, self.target.clone(), value)?;
        Ok(self)
    }

    /// Inserts a module before all others of a list.
    ///
    /// # Errors
    ///
    /// As [`insert`](LiveContainer::insert).
    pub fn prepend(self, value: impl IntoValue) -> Result<Self, EditError> {
        self.insert(0, value)
    }

    /// Inserts a module into a list: [`containers::insert`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn insert(self, index: isize, value: impl IntoValue) -> Result<Self, EditError> {
        containers::insert(self.world, self.target.clone(), index, value)?;
        Ok(self)
    }

    /// Appends modules or parameters to a list: [`containers::extend`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn extend<V: IntoValue>(self, new: impl IntoIterator<Item = V>) -> Result<Self, EditError> {
        containers::extend(self.world, self.target.clone(), new)?;
        Ok(self)
    }

    /// Appends modules or parameters to a list, `list += new`: [`containers::add_assign`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn add_assign<V: IntoValue>(
        self,
        new: impl IntoIterator<Item = V>,
    ) -> Result<Self, EditError> {
        containers::add_assign(self.world, self.target.clone(), new)?;
        Ok(self)
    }

    /// Appends the modules of a `Sequential` to it, `sequential *= times`: [`containers::repeat`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn repeat(self, times: isize) -> Result<Self, EditError> {
        containers::repeat(self.world, self.target.clone(), times)?;
        Ok(self)
    }

    /// Registers a child under a name, in any module: [`containers::add_module`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn add_module(self, name: &str, value: impl IntoValue) -> Result<Self, EditError> {
        containers::add_module(self.world, self.target.clone(), name, value)?;
        Ok(self)
    }

    /// Replaces an entry, or adds one to a dictionary, `container[key] = value`: [`containers::set`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn set(self, key: impl Into<Key>, value: impl IntoValue) -> Result<Self, EditError> {
        containers::set(self.world, self.target.clone(), key, value)?;
        Ok(self)
    }

    /// Sets entries of a dictionary: [`containers::update`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn update<N: Into<String>, V: IntoValue>(
        self,
        new: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, EditError> {
        containers::update(self.world, self.target.clone(), new)?;
        Ok(self)
    }

    /// Sets a parameter of a dictionary that has none of that name: [`containers::setdefault`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn setdefault(self, name: &str, value: impl IntoValue) -> Result<Self, EditError> {
        containers::setdefault(self.world, self.target.clone(), name, value)?;
        Ok(self)
    }

    /// Takes out an entry, or those that a slice names: [`containers::pop`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn pop(self, key: impl Into<Key>) -> Result<Popped, EditError> {
        containers::pop(self.world, self.target, key)
    }

    /// Takes out the last parameter of a dictionary: [`containers::popitem`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn popitem(self) -> Result<Popped, EditError> {
        containers::popitem(self.world, self.target)
    }

    /// Removes an entry, or those that a slice names, `del container[key]`: [`containers::remove`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn remove(self, key: impl Into<Key>) -> Result<Self, EditError> {
        containers::remove(self.world, self.target.clone(), key)?;
        Ok(self)
    }

    /// Removes all entries of a dictionary: [`containers::clear`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn clear(self) -> Result<Self, EditError> {
        containers::clear(self.world, self.target.clone())?;
        Ok(self)
    }

    /// Counts the entries: [`containers::len`].
    ///
    /// # Errors
    ///
    /// As there.
    #[expect(clippy::len_without_is_empty, reason = "it can fail")]
    pub fn len(self) -> Result<usize, EditError> {
        containers::len(self.world, self.target)
    }

    /// Returns an entry, `container[key]`: [`containers::get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get(self, key: impl Into<Key>) -> Result<Item, EditError> {
        containers::get(self.world, self.target, key)
    }

    /// Lists the entries of a list that a slice names, `container[1:]`: [`containers::slice`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn slice(self, slice: impl Into<Slice>) -> Result<Vec<(String, Item)>, EditError> {
        containers::slice(self.world, self.target, slice)
    }

    /// Calls the children of a `Sequential` that a slice names, `sequential[1:](x)`: [`step::call_slice`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn call<'a, X: Element>(
        self,
        slice: impl Into<Slice>,
        x: impl Into<Input<'a, X>>,
    ) -> Result<ArrayD<X::Float>, StepError> {
        step::call_slice(self.world, self.target, slice, x)
    }

    /// Lists the entries by name: [`containers::items`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn items(self) -> Result<Vec<(String, Item)>, EditError> {
        containers::items(self.world, self.target)
    }

    /// Lists the names of the entries.
    ///
    /// # Errors
    ///
    /// As [`items`](LiveContainer::items).
    pub fn keys(self) -> Result<Vec<String>, EditError> {
        Ok(self.items()?.into_iter().map(|(name, _)| name).collect())
    }

    /// Lists the entries.
    ///
    /// # Errors
    ///
    /// As [`items`](LiveContainer::items).
    pub fn values(self) -> Result<Vec<Item>, EditError> {
        Ok(self.items()?.into_iter().map(|(_, item)| item).collect())
    }

    /// Returns whether a dictionary has an entry of that name, `name in container`: [`containers::contains`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn contains(self, name: &str) -> Result<bool, EditError> {
        containers::contains(self.world, self.target, name)
    }

    /// Lists the modules of this list and of another one, `a + b`: [`containers::add`].
    ///
    /// # Errors
    ///
    /// As there.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and asks the world")]
    pub fn add(self, other: impl Into<Target>) -> Result<Vec<(String, Item)>, EditError> {
        containers::add(self.world, self.target, other)
    }

    /// Lists the modules of a `Sequential` several times, `sequential * times`: [`containers::mul`].
    ///
    /// # Errors
    ///
    /// As there.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and asks the world")]
    pub fn mul(self, times: isize) -> Result<Vec<(String, Item)>, EditError> {
        containers::mul(self.world, self.target, times)
    }

    /// Lists the parameters of this dictionary and of another one, `a | b`: [`containers::union`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn union(self, other: impl Into<Target>) -> Result<Vec<(String, Item)>, EditError> {
        containers::union(self.world, self.target, other)
    }
}
