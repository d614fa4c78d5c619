//! [`Sequential`]: one module after the other.

use core::ops::{Add, AddAssign, Mul};

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::tree::{Arguments, Tree};
use serde::{Deserialize, Serialize};

use crate::containers::{
    ContainerError, IntoModule, MAX_ENTRIES, Modules, Slice, modules_by_name, modules_in_order,
    place,
};
use crate::module::names::Kind;
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
/// let mut brain = Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2));
/// assert_eq!(brain.len(), 3);
///
/// // An index may count from the end; operations that change the list number its children anew.
/// let last: &Linear = brain.get(-1)?.downcast_ref().expect("the last one is linear");
/// assert_eq!(last.out_features, 2);
/// brain.set(1, ReLU)?;
/// brain.insert(2, Dropout { p: 0.1 })?;
/// brain.remove(-2)?;
/// let head = brain.pop_slice(2..)?;
/// assert_eq!((brain.len(), head.keys().next()), (2, Some("2")));
///
/// // Joined and repeated lists are numbered from 0.
/// let both = brain.clone() + head;
/// assert_eq!(both.keys().collect::<Vec<_>>(), ["0", "1", "2"]);
/// assert_eq!((brain * 3)?.len(), 6);
///
/// let named = Sequential::from_named([("fc", Linear::new(4, 2).into_module()), ("act", Tanh.into_module())])?;
/// assert_eq!(named.to_string(), "\
/// Sequential(
///   (fc): Linear(in_features=4, out_features=2, bias=True)
///   (act): Tanh()
/// )");
/// # Ok::<(), ContainerError>(())
/// ```
///
/// Source: `torch.nn.Sequential`; `from_named` and `push_named` are its `OrderedDict` form. A module that is
/// repeated (`*`, `repeat`) is copied, whereas torch shares its weights.
#[derive(Component, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[component(immutable)]
pub struct Sequential {
    #[serde(skip)]
    modules: Modules,
}

modules_by_name!(Sequential);
modules_in_order!(Sequential);

impl Sequential {
    /// Lists modules under names.
    ///
    /// # Errors
    ///
    /// As [`add_module`](Sequential::add_module).
    pub fn from_named<N: Into<String>, M: IntoModule>(
        modules: impl IntoIterator<Item = (N, M)>,
    ) -> Result<Self, ContainerError> {
        let mut named = Sequential::new();
        for (name, module) in modules {
            named.add_module(name, module)?;
        }
        Ok(named)
    }

    /// Appends a module under a name. A module that had this name is replaced, as in torch. The name is
    /// checked when the model is spawned.
    #[must_use]
    pub fn push_named(mut self, name: impl Into<String>, module: impl IntoModule) -> Self {
        self.modules.set(name.into(), module.into_module());
        self
    }

    /// Returns the module at an index: `sequential[index]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is none.
    pub fn get(&self, index: isize) -> Result<&dyn DynModule, ContainerError> {
        self.modules.at(index).map(|module| &**module)
    }

    /// Returns the module at an index, to be changed.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is none.
    pub fn get_mut(&mut self, index: isize) -> Result<&mut dyn DynModule, ContainerError> {
        self.modules.at_mut(index).map(|module| &mut **module)
    }

    /// Replaces the module at an index, which keeps its name: `sequential[index] = module`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is none.
    pub fn set(&mut self, index: isize, module: impl IntoModule) -> Result<(), ContainerError> {
        *self.modules.at_mut(index)? = module.into_module();
        Ok(())
    }

    /// Copies the modules that a slice names, under their names: `sequential[1:]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Step`] if its step is 0.
    pub fn slice(&self, slice: impl Into<Slice>) -> Result<Self, ContainerError> {
        let places = self.modules.places(slice)?;
        Ok(Sequential { modules: self.modules.copy(&places) })
    }

    /// Inserts a module before the one at an index; an index of `len` appends.
    ///
    /// # Errors
    ///
    /// [`ContainerError::InsertIndex`] if there is no such index. [`ContainerError::Key`] if a module that
    /// must move is not named by its number.
    ///
    /// Source: torch's `insert`.
    pub fn insert(
        &mut self,
        index: isize,
        module: impl IntoModule,
    ) -> Result<&mut Self, ContainerError> {
        let number = match isize::try_from(self.len()) {
            Ok(len) if index == len => index,
            _ => {
                let place = place(index, self.len());
                let place = place.map_err(|_| ContainerError::InsertIndex(index))?;
                isize::try_from(place).map_err(|_| ContainerError::InsertIndex(index))?
            }
        };
        self.modules.insert(number, module.into_module())?;
        Ok(self)
    }

    /// Appends the modules of another container, named by their numbers. Source: torch's `extend`.
    pub fn extend<M: IntoModule>(&mut self, modules: impl IntoIterator<Item = M>) -> &mut Self {
        modules.into_iter().for_each(|module| {
            self.append(module);
        });
        self
    }

    /// Takes a module out; the others are named by their numbers then.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is no such module.
    ///
    /// Source: torch's `pop`.
    pub fn pop(&mut self, index: isize) -> Result<Box<dyn DynModule>, ContainerError> {
        let taken = self.modules.take(&[place(index, self.len())?]);
        let (_, module) = taken.into_iter().next().ok_or(ContainerError::Index(index))?;
        Ok(module)
    }

    /// Takes out the modules that a slice names, under their names; the others are named by their numbers
    /// then.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Step`] if its step is 0.
    ///
    /// Source: torch's `pop` with a slice.
    pub fn pop_slice(&mut self, slice: impl Into<Slice>) -> Result<Self, ContainerError> {
        let places = self.modules.places(slice)?;
        Ok(Sequential { modules: self.modules.take(&places) })
    }

    /// Removes a module; the others are named by their numbers then: `del sequential[index]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is no such module.
    pub fn remove(&mut self, index: isize) -> Result<(), ContainerError> {
        self.pop(index).map(drop)
    }

    /// Removes the modules that a slice names: `del sequential[1:]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Step`] if its step is 0.
    pub fn remove_slice(&mut self, slice: impl Into<Slice>) -> Result<(), ContainerError> {
        self.pop_slice(slice).map(drop)
    }

    /// Appends copies of the modules until each is there `times` times: `sequential *= times`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Factor`] if `times` is not positive. [`ContainerError::Key`] if `times` is
    /// greater than 1 and a module is not named by its number.
    pub fn repeat(&mut self, times: isize) -> Result<&mut Self, ContainerError> {
        let copies = copies(times, self.len())? - 1;
        let numbers = if copies == 0 { 0..0 } else { 0..self.len() };
        let places = self.modules.all_numbered(numbers, ContainerError::Key)?;
        let once = self.modules.copy(&places);
        for offset in (1..=copies).map(|copy| copy * places.len()) {
            for (number, (_, module)) in once.iter().enumerate() {
                self.modules.set((offset + number).to_string(), module.clone());
            }
        }
        Ok(self)
    }
}

/// Checks how often a `Sequential` of that many modules is to be repeated.
fn copies(times: isize, modules: usize) -> Result<usize, ContainerError> {
    let copies = usize::try_from(times).ok().filter(|&copies| copies > 0);
    let copies = copies.ok_or(ContainerError::Factor(times))?;
    match copies.saturating_mul(modules.max(1)) {
        given if given > MAX_ENTRIES => Err(ContainerError::TooMany(given)),
        _ => Ok(copies),
    }
}

/// Joins the modules of two containers, numbered from 0.
impl Add for Sequential {
    type Output = Sequential;

    fn add(self, other: Sequential) -> Sequential {
        self.into_iter().chain(other).collect()
    }
}

/// Appends the modules of another container, named by their numbers.
impl AddAssign for Sequential {
    fn add_assign(&mut self, other: Sequential) {
        self.modules.extend(other);
    }
}

/// Lists copies of the modules, `times` times, numbered from 0; an error if `times` is not positive.
impl Mul<isize> for Sequential {
    type Output = Result<Sequential, ContainerError>;

    fn mul(self, times: isize) -> Self::Output {
        let copies = copies(times, self.len())?;
        let modules = (0..copies).flat_map(|_| self.modules.iter());
        Ok(modules.map(|(_, module)| module.clone()).collect())
    }
}

/// As `sequential * times`.
impl Mul<Sequential> for isize {
    type Output = Result<Sequential, ContainerError>;

    fn mul(self, sequential: Sequential) -> Self::Output {
        sequential * self
    }
}

impl Module for Sequential {
    fn uses_training(&self) -> bool {
        false
    }

    fn listed(&self) -> Option<Box<dyn Iterator<Item = &dyn DynModule> + '_>> {
        Some(Box::new(self.values()))
    }

    fn declare(&self, declare: &mut Declare) {
        declare.children.extend(self.modules.clone());
    }

    fn forward_with(&self, call: &Call<'_>, mut arguments: Arguments) -> Tree {
        match arguments.positional.pop() {
            Some(x) if arguments.positional.is_empty() && arguments.keyword.is_empty() => {
                call.run_children(&call.at().children, x)
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
    use neurarch_kernels::ir::dtype::Dtype;

    use super::*;
    use crate::layers::{Dropout, Linear, Tanh};
    use crate::module::blueprint::Blueprint;

    fn linear(out_features: usize) -> Linear {
        Linear::new(1, out_features)
    }

    fn numbered() -> Sequential {
        Sequential::from([linear(1), linear(2), linear(3)])
    }

    fn named() -> Sequential {
        let modules = [("a", linear(1)), ("b", linear(2)), ("c", linear(3))];
        Sequential::from_named(modules).expect("torch takes these names")
    }

    type Entries = &'static [(&'static str, usize)];

    /// Names and sizes of outputs.
    fn list(sequential: &Sequential) -> Vec<(&str, usize)> {
        let size = |module: &dyn DynModule| {
            module.downcast_ref::<Linear>().map_or(0, |linear| linear.out_features)
        };
        sequential.iter().map(|(name, module)| (name, size(module))).collect()
    }

    /// Does a deed that torch refuses in these words, and compares the container before and after.
    #[track_caller]
    fn refuses<R>(
        words: &str,
        sequential: Sequential,
        deed: impl FnOnce(&mut Sequential) -> Result<R, ContainerError>,
    ) {
        let mut changed = sequential.clone();
        let error = deed(&mut changed).err().expect("torch refuses this");
        assert_eq!(error.to_string(), words);
        assert_eq!(changed, sequential);
    }

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

    #[test]
    fn an_index_may_count_from_the_end() {
        for sequential in [numbered(), named()] {
            let size = |index| {
                let module = sequential.get(index).ok();
                module.and_then(|module| module.downcast_ref()).map(|of: &Linear| of.out_features)
            };
            assert_eq!(
                [size(0), size(2), size(-1), size(-3)],
                [Some(1), Some(3), Some(3), Some(1)]
            );
            for index in [3, -4] {
                let words = format!("index {index} is out of range");
                refuses(&words, sequential.clone(), |sequential| sequential.get(index).map(drop));
                refuses(&words, sequential.clone(), |sequential| sequential.set(index, Tanh));
                refuses(&words, sequential.clone(), |sequential| sequential.pop(index));
                refuses(&words, sequential.clone(), |sequential| sequential.remove(index));
                refuses(&words, sequential.clone(), |s| s.get_mut(index).map(drop));
            }
        }
    }

    #[test]
    fn a_replaced_module_keeps_its_name() {
        let mut sequential = named();
        assert_eq!(sequential.set(-2, linear(9)), Ok(()));
        assert_eq!(list(&sequential), [("a", 1), ("b", 9), ("c", 3)]);
        let changed = sequential.get_mut(0).ok().and_then(|module| module.downcast_mut::<Linear>());
        changed.expect("it is linear").out_features = 7;
        assert_eq!(list(&sequential), [("a", 7), ("b", 9), ("c", 3)]);
    }

    #[test]
    fn a_slice_keeps_names_and_what_is_left_is_numbered() {
        let back = Slice::from(..).step_by(-1);
        let cases: [(Slice, Entries, Entries); 6] = [
            ((1..).into(), &[("b", 2), ("c", 3)], &[("0", 1)]),
            ((..-1).into(), &[("a", 1), ("b", 2)], &[("0", 3)]),
            ((5..9).into(), &[], &[("0", 1), ("1", 2), ("2", 3)]),
            (Slice::from(..).step_by(2), &[("a", 1), ("c", 3)], &[("0", 2)]),
            (back, &[("c", 3), ("b", 2), ("a", 1)], &[]),
            (Slice::between(2, 0).step_by(-1), &[("c", 3), ("b", 2)], &[("0", 1)]),
        ];
        for (slice, taken, left) in cases {
            let mut sequential = named();
            assert_eq!(sequential.slice(slice).as_ref().map(list).as_deref(), Ok(taken));
            assert_eq!(sequential.pop_slice(slice).as_ref().map(list).as_deref(), Ok(taken));
            assert_eq!(list(&sequential), left);
            let mut sequential = named();
            assert_eq!(sequential.remove_slice(slice), Ok(()));
            assert_eq!(list(&sequential), left);
        }
        let nowhere = Slice::from(..).step_by(0);
        refuses("slice step cannot be zero", named(), |s| s.slice(nowhere));
        refuses("slice step cannot be zero", named(), |s| s.pop_slice(nowhere));
        refuses("slice step cannot be zero", named(), |s| s.remove_slice(nowhere));
    }

    #[test]
    fn removing_names_the_others_by_their_numbers() {
        let mut sequential = named();
        assert_eq!(sequential.remove(0), Ok(()));
        assert_eq!(list(&sequential), [("0", 2), ("1", 3)]);
        let last = sequential.pop(-1).ok();
        assert!(last.is_some_and(|last| last.downcast_ref() == Some(&linear(3))));
        assert_eq!(list(&sequential), [("0", 2)]);
    }

    #[test]
    fn inserting_moves_numbers() {
        let insert = |index| {
            let mut sequential = numbered();
            assert!(sequential.insert(index, linear(9)).is_ok());
            list(&sequential).into_iter().map(|(_, size)| size).collect::<Vec<_>>()
        };
        assert_eq!(insert(0), [9, 1, 2, 3]);
        assert_eq!(insert(3), [1, 2, 3, 9]);
        assert_eq!(insert(-1), [1, 2, 9, 3]);
        assert_eq!(insert(-3), [9, 1, 2, 3]);
        for index in [4, -4] {
            let words = format!("Index out of range: {index}");
            refuses(&words, numbered(), |s| s.insert(index, Tanh).map(drop));
        }
        refuses("KeyError: '2'", named(), |s| s.insert(1, Tanh).map(drop));
        refuses("KeyError: '2'", named(), |s| s.prepend(Tanh).map(drop));
        let mut sequential = named();
        assert!(sequential.insert(3, linear(9)).is_ok());
        assert_eq!(list(&sequential), [("a", 1), ("b", 2), ("c", 3), ("3", 9)]);
    }

    #[test]
    fn what_is_appended_is_named_by_its_number() {
        let all = [("a", 1), ("b", 2), ("c", 3), ("3", 1), ("4", 2), ("5", 3)];
        let mut sequential = named();
        sequential.extend(named());
        assert_eq!(list(&sequential), all);
        let mut sequential = named();
        sequential += named();
        assert_eq!(list(&sequential), all);
        let mut sequential = named();
        sequential.append(linear(1)).append(linear(2)).append(linear(3));
        assert_eq!(list(&sequential), all);
        let renumbered = [("0", 1), ("1", 2), ("2", 3), ("3", 1), ("4", 2), ("5", 3)];
        assert_eq!(list(&(named() + named())), renumbered);
    }

    #[test]
    fn repetition_numbers_anew_or_goes_on() {
        let twice = [("0", 1), ("1", 2), ("2", 3), ("3", 1), ("4", 2), ("5", 3)];
        assert_eq!((named() * 2).as_ref().map(list), Ok(twice.to_vec()));
        assert_eq!((2 * named()).as_ref().map(list), Ok(twice.to_vec()));
        let mut sequential = numbered();
        assert!(sequential.repeat(2).is_ok());
        assert_eq!(list(&sequential), twice);
        assert!(named().repeat(1).is_ok_and(|same| *same == named()));
        refuses("KeyError: '0'", named(), |s| s.repeat(2).map(drop));
        for factor in [0, -1] {
            let words = format!("Non-positive multiplication factor {factor} for Sequential");
            refuses(&words, named(), |s| s.repeat(factor).map(drop));
            refuses(&words, named(), |s| s.clone() * factor);
        }
    }

    #[test]
    fn names_are_checked_as_torch_does() {
        let cases = [
            ("a.b", "module name can't contain \".\", got: a.b"),
            ("", "module name can't be empty string \"\""),
            ("training", "attribute 'training' already exists"),
            ("append", "attribute 'append' already exists"),
        ];
        for (name, words) in cases {
            refuses(words, named(), |s| s.add_module(name, Tanh).map(drop));
            refuses(words, named(), |_| Sequential::from_named([(name, Tanh)]));
        }
        for name in ["keys", "weight", "0", "a b"] {
            assert!(Sequential::from_named([(name, Tanh)]).is_ok(), "{name}");
        }
        assert!(named().add_module("b", Tanh).is_ok_and(|s| s.len() == 3));
    }

    #[test]
    fn iteration_goes_both_ways() {
        let sequential = named();
        assert_eq!(sequential.keys().rev().collect::<Vec<_>>(), ["c", "b", "a"]);
        assert_eq!(sequential.values().len(), 3);
        assert!(sequential.named("b").is_some() && sequential.named("q").is_none());
        let modules: Vec<Box<dyn DynModule>> = sequential.into_iter().collect();
        assert_eq!(Sequential::from_iter(modules), numbered());
        assert!(Sequential::new().is_empty());
    }
}
