//! From a module of any type back to one of a known type.

use core::any::Any;

use crate::module::{DynModule, Module};

impl dyn DynModule {
    /// Returns whether the module is of type `M`.
    pub fn is<M: Module>(&self) -> bool {
        self.downcast_ref::<M>().is_some()
    }

    /// Returns the module if it is of type `M`, with or without [arguments](crate::module::factory::Factory) beside it.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_components::layers::*;
    /// let brain = Sequential::new().push(Linear::new(4, 2)).push(Tanh);
    /// let sizes = brain.values().filter_map(|layer| layer.downcast_ref::<Linear>());
    /// assert_eq!(sizes.map(|linear| linear.out_features).sum::<usize>(), 2);
    /// ```
    pub fn downcast_ref<M: Module>(&self) -> Option<&M> {
        (self as &dyn Any).downcast_ref().or_else(|| (self.plain() as &dyn Any).downcast_ref())
    }

    /// Returns the module, to be changed, if it is of type `M`.
    pub fn downcast_mut<M: Module>(&mut self) -> Option<&mut M> {
        (self as &mut dyn Any).downcast_mut()
    }

    /// Prints the module and all below it as torch does; see [`repr`](crate::module::repr::repr).
    pub fn repr(&self) -> String {
        crate::module::repr::repr(self)
    }
}
