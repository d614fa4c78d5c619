//! [`ModuleList`]: modules in a list, for a module of your own to call.

use core::ops::{Add, AddAssign};

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use crate::containers::{
    ContainerError, IntoModule, Modules, Slice, modules_by_name, modules_in_order, place,
};
use crate::module::names::Kind;
use crate::module::{Call, Declare, DynModule, Module};

/// Holds modules in a list. It computes nothing by itself: the module above calls them.
///
/// Before spawning, the value lists the children. On a spawned entity it is empty: there the children
/// are entities, in the order of bevy's [`Children`], under their names.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::Component;
/// # use neurarch_components::layers::*;
/// # use neurarch_components::module::*;
/// # use neurarch_kernels::ir::trace::Var;
/// /// Adds what each of its layers makes of `x`.
/// #[derive(Component, Clone, Debug, PartialEq)]
/// struct Committee {
///     layers: ModuleList,
/// }
///
/// impl Module for Committee {
///     fn declare(&self, declare: &mut Declare) {
///         declare.child("layers", self.layers.clone());
///     }
///
///     fn forward(&self, call: &Call<'_>, x: Var) -> Var {
///         let layers = call.children_of("layers"); // "layers.0", "layers.1", …
///         layers.iter().skip(1).fold(call.child("layers.0", &x), |y, layer| y + call.child(layer, &x))
///     }
/// }
///
/// let mut layers = ModuleList::from_iter((0..3).map(|_| Linear::new(4, 2)));
/// layers += [Linear::new(4, 2).without_bias()];
/// layers.insert(0, Linear::new(4, 2))?;
/// layers.pop(-2)?;
/// assert_eq!(layers.slice(1..)?.keys().collect::<Vec<_>>(), ["0", "1", "2"]);
/// assert_eq!(layers.to_string(), "\
/// ModuleList(
///   (0-2): 3 x Linear(in_features=4, out_features=2, bias=True)
///   (3): Linear(in_features=4, out_features=2, bias=False)
/// )");
/// let committee = Committee { layers };
/// # Ok::<(), ContainerError>(())
/// ```
///
/// Source: `torch.nn.ModuleList`. As there, an entry is found by its number as its name, which is its place
/// unless it was inserted behind the end.
#[derive(Component, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[component(immutable)]
pub struct ModuleList {
    #[serde(skip)]
    modules: Modules,
}

modules_by_name!(ModuleList);
modules_in_order!(ModuleList);

impl ModuleList {
    /// Returns the number of an index that may count from the end.
    fn number(&self, index: isize) -> Result<String, ContainerError> {
        place(index, self.len()).map(|number| number.to_string())
    }

    /// Returns the module at an index: `list[index]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is none; [`ContainerError::Key`] if none is named so.
    pub fn get(&self, index: isize) -> Result<&dyn DynModule, ContainerError> {
        let number = self.number(index)?;
        self.named(&number).ok_or(ContainerError::Key(number))
    }

    /// Returns the module at an index, to be changed.
    ///
    /// # Errors
    ///
    /// As [`get`](ModuleList::get).
    pub fn get_mut(&mut self, index: isize) -> Result<&mut dyn DynModule, ContainerError> {
        let number = self.number(index)?;
        match self.modules.get_mut(&number) {
            Some(module) => Ok(&mut **module),
            None => Err(ContainerError::Key(number)),
        }
    }

    /// Replaces the module at an index: `list[index] = module`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is none.
    pub fn set(&mut self, index: isize, module: impl IntoModule) -> Result<(), ContainerError> {
        let number = self.number(index)?;
        self.modules.set(number, module.into_module());
        Ok(())
    }

    /// Copies the modules that a slice names, numbered from 0: `list[1:]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Step`] if its step is 0.
    pub fn slice(&self, slice: impl Into<Slice>) -> Result<Self, ContainerError> {
        let places = self.modules.places(slice)?;
        let mut modules = self.modules.copy(&places);
        modules.renumber();
        Ok(ModuleList { modules })
    }

    /// Inserts a module before the one at an index.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Key`] if the index is negative, or a module that must move is not named by its
    /// number.
    ///
    /// Source: torch's `insert`: it takes no negative index, and names a module behind the end by the index.
    pub fn insert(
        &mut self,
        index: isize,
        module: impl IntoModule,
    ) -> Result<&mut Self, ContainerError> {
        self.modules.insert(index, module.into_module())?;
        Ok(self)
    }

    /// Appends modules, named by their numbers. Source: torch's `extend`.
    pub fn extend<M: IntoModule>(&mut self, modules: impl IntoIterator<Item = M>) -> &mut Self {
        self.modules.extend(modules.into_iter().map(IntoModule::into_module));
        self
    }

    /// Takes a module out; the others are named by their numbers then.
    ///
    /// # Errors
    ///
    /// As [`get`](ModuleList::get).
    ///
    /// Source: torch's `pop`.
    pub fn pop(&mut self, index: isize) -> Result<Box<dyn DynModule>, ContainerError> {
        let number = self.number(index)?;
        let module = self.modules.remove(&number).ok_or(ContainerError::Key(number))?;
        self.modules.renumber();
        Ok(module)
    }

    /// Takes out the modules that a slice names; those and the others are numbered from 0 then.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Step`] if its step is 0; [`ContainerError::Attribute`] if a module is not named
    /// by its number.
    ///
    /// Source: torch's `pop` with a slice.
    pub fn pop_slice(&mut self, slice: impl Into<Slice>) -> Result<Self, ContainerError> {
        let slice = slice.into();
        let taken = self.slice(slice)?;
        self.remove_slice(slice)?;
        Ok(taken)
    }

    /// Removes a module; the others are named by their numbers then: `del list[index]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is no such module; [`ContainerError::Attribute`] if none is
    /// named so.
    pub fn remove(&mut self, index: isize) -> Result<(), ContainerError> {
        self.pop(index).map(drop).map_err(|error| match error {
            ContainerError::Key(name) => missing(name),
            error => error,
        })
    }

    /// Removes the modules that a slice names: `del list[1:]`.
    ///
    /// # Errors
    ///
    /// As [`pop_slice`](ModuleList::pop_slice).
    pub fn remove_slice(&mut self, slice: impl Into<Slice>) -> Result<(), ContainerError> {
        let numbers = self.modules.places(slice)?;
        let places = self.modules.all_numbered(numbers, missing)?;
        self.modules.take(&places);
        Ok(())
    }
}

fn missing(name: String) -> ContainerError {
    ContainerError::Attribute { container: "ModuleList", name }
}

/// Joins the modules of two lists, numbered from 0.
impl<M: IntoModule, I: IntoIterator<Item = M>> Add<I> for ModuleList {
    type Output = ModuleList;

    fn add(self, other: I) -> ModuleList {
        self.into_iter().chain(other.into_iter().map(IntoModule::into_module)).collect()
    }
}

/// Appends modules, named by their numbers.
impl<M: IntoModule, I: IntoIterator<Item = M>> AddAssign<I> for ModuleList {
    fn add_assign(&mut self, other: I) {
        self.extend(other);
    }
}

impl Module for ModuleList {
    fn uses_training(&self) -> bool {
        false
    }

    fn listed(&self) -> Option<Box<dyn Iterator<Item = &dyn DynModule> + '_>> {
        Some(Box::new(self.values()))
    }

    fn joins_alike_in_repr(&self) -> bool {
        true
    }

    fn declare(&self, declare: &mut Declare) {
        declare.children.extend(self.modules.clone());
    }

    /// Fails: torch's list has no `forward` either.
    fn forward(&self, call: &Call<'_>, _: Var) -> Var {
        call.trace.fail("Module [ModuleList] is missing the required \"forward\" function")
    }

    /// The blueprint's positions name the children.
    fn structural(&self) -> Self {
        ModuleList::new()
    }

    fn spawned(&self) -> Self {
        ModuleList::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Linear, Sequential, Tanh};

    fn linear(out_features: usize) -> Linear {
        Linear::new(1, out_features)
    }

    fn modules() -> ModuleList {
        ModuleList::from([linear(1), linear(2), linear(3)])
    }

    /// A list whose last module is not named by its place.
    fn with_a_gap() -> ModuleList {
        let mut list = modules();
        list.insert(5, linear(9)).expect("torch takes an index behind the end");
        list
    }

    type Entries = &'static [(&'static str, usize)];

    /// Names and sizes of outputs.
    fn list(list: &ModuleList) -> Vec<(&str, usize)> {
        let size = |module: &dyn DynModule| {
            module.downcast_ref::<Linear>().map_or(0, |linear| linear.out_features)
        };
        list.iter().map(|(name, module)| (name, size(module))).collect()
    }

    /// Does a deed that torch refuses in these words, and compares the list before and after.
    #[track_caller]
    fn refuses<R>(
        words: &str,
        list: ModuleList,
        deed: impl FnOnce(&mut ModuleList) -> Result<R, ContainerError>,
    ) {
        let mut changed = list.clone();
        let error = deed(&mut changed).err().expect("torch refuses this");
        assert_eq!(error.to_string(), words);
        assert_eq!(changed, list);
    }

    #[test]
    fn an_index_may_count_from_the_end() {
        let mut modules = modules();
        assert!(modules.get(-1).is_ok_and(|last| last.downcast_ref() == Some(&linear(3))));
        assert_eq!(modules.set(-1, linear(9)), Ok(()));
        let changed = modules.get_mut(0).ok().and_then(|module| module.downcast_mut::<Linear>());
        changed.expect("it is linear").out_features = 7;
        assert_eq!(list(&modules), [("0", 7), ("1", 2), ("2", 9)]);
        for index in [3, -4] {
            let words = format!("index {index} is out of range");
            refuses(&words, modules.clone(), |list| list.get(index).map(drop));
            refuses(&words, modules.clone(), |list| list.get_mut(index).map(drop));
            refuses(&words, modules.clone(), |list| list.set(index, Tanh));
            refuses(&words, modules.clone(), |list| list.pop(index));
            refuses(&words, modules.clone(), |list| list.remove(index));
        }
    }

    #[test]
    fn a_slice_and_what_is_left_are_numbered() {
        let cases: [(Slice, Entries, Entries); 3] = [
            ((1..).into(), &[("0", 2), ("1", 3)], &[("0", 1)]),
            (Slice::from(..).step_by(-1), &[("0", 3), ("1", 2), ("2", 1)], &[]),
            (Slice::between(-9, -1).step_by(2), &[("0", 1)], &[("0", 2), ("1", 3)]),
        ];
        for (slice, taken, left) in cases {
            let mut modules = modules();
            assert_eq!(modules.slice(slice).as_ref().map(list).as_deref(), Ok(taken));
            assert_eq!(modules.pop_slice(slice).as_ref().map(list).as_deref(), Ok(taken));
            assert_eq!(list(&modules), left);
        }
        let nowhere = Slice::from(..).step_by(0);
        refuses("slice step cannot be zero", modules(), |list| list.slice(nowhere));
        refuses("slice step cannot be zero", modules(), |list| list.pop_slice(nowhere));
        refuses("slice step cannot be zero", modules(), |list| list.remove_slice(nowhere));
    }

    #[test]
    fn removing_names_the_others_by_their_numbers() {
        let mut modules = modules();
        assert!(modules.pop(-2).is_ok_and(|of| of.downcast_ref() == Some(&linear(2))));
        assert_eq!(list(&modules), [("0", 1), ("1", 3)]);
        assert_eq!(modules.remove(0), Ok(()));
        assert_eq!(list(&modules), [("0", 3)]);
    }

    #[test]
    fn inserting_takes_no_negative_index() {
        let insert = |index| {
            let mut list = modules();
            assert!(list.insert(index, linear(9)).is_ok());
            list
        };
        assert_eq!(list(&insert(0)), [("0", 9), ("1", 1), ("2", 2), ("3", 3)]);
        assert_eq!(list(&insert(2)), [("0", 1), ("1", 2), ("2", 9), ("3", 3)]);
        assert_eq!(list(&insert(3)), [("0", 1), ("1", 2), ("2", 3), ("3", 9)]);
        assert_eq!(list(&insert(4)), [("0", 1), ("1", 2), ("2", 3), ("4", 9)]);
        assert!(modules().prepend(linear(9)).is_ok_and(|list| *list == insert(0)));
        for index in [-1, -4] {
            refuses("KeyError: '-1'", modules(), |list| list.insert(index, Tanh).map(drop));
        }
    }

    #[test]
    fn modules_are_found_by_their_numbers_as_names() {
        refuses("KeyError: '3'", with_a_gap(), |list| list.get(3).map(drop));
        refuses("KeyError: '3'", with_a_gap(), |list| list.get_mut(-1).map(drop));
        refuses("KeyError: '3'", with_a_gap(), |list| list.pop(3));
        refuses("KeyError: '3'", with_a_gap(), |list| list.insert(1, Tanh).map(drop));
        refuses("'ModuleList' object has no attribute '3'", with_a_gap(), |list| list.remove(3));
        refuses("'ModuleList' object has no attribute '3'", with_a_gap(), |list| {
            list.remove_slice(2..)
        });
        refuses("'ModuleList' object has no attribute '3'", with_a_gap(), |list| {
            list.pop_slice(2..)
        });
        let mut gap = with_a_gap();
        assert_eq!(gap.slice(2..).as_ref().map(list), Ok(vec![("0", 3), ("1", 9)]));
        assert_eq!(gap.set(3, linear(8)), Ok(()));
        assert_eq!(list(&gap), [("0", 1), ("1", 2), ("2", 3), ("5", 9), ("3", 8)]);
        let mut gap = with_a_gap();
        gap.append(linear(7));
        assert_eq!(list(&gap), [("0", 1), ("1", 2), ("2", 3), ("5", 9), ("4", 7)]);
        let mut gap = with_a_gap();
        assert_eq!(gap.remove(0), Ok(()));
        assert_eq!(list(&gap), [("0", 2), ("1", 3), ("2", 9)]);
    }

    #[test]
    fn anything_that_gives_modules_can_be_added() {
        let all = [("0", 1), ("1", 2), ("2", 3), ("3", 5)];
        assert_eq!(list(&(modules() + Sequential::new().push(linear(5)))), all);
        assert_eq!(list(&(modules() + [linear(5)])), all);
        let mut sum = modules();
        sum += vec![linear(5).into_module()];
        assert_eq!(list(&sum), all);
        assert_eq!(list(&modules().push(linear(5))), all);
        assert_eq!(list(modules().extend([linear(5)])), all);
        let mut sum = modules();
        assert!(sum.add_module("x", linear(5)).is_ok());
        assert_eq!(list(&sum), [("0", 1), ("1", 2), ("2", 3), ("x", 5)]);
        refuses("attribute 'extend' already exists", modules(), |list| {
            list.add_module("extend", Tanh).map(drop)
        });
    }
}
