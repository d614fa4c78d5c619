//! [`ModuleDict`]: modules under names, for a module of your own to call.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

use crate::containers::{ContainerError, IntoModule, Modules, modules_by_name};
use crate::module::names::Kind;
use crate::module::{Call, Declare, DynModule, Module};

/// Holds modules under names, in order of insertion. It computes nothing by itself: the module above calls
/// them, such as `call.child("heads.left", &x)`.
///
/// Before spawning, the value lists the children. On a spawned entity it is empty: there the children
/// are entities, in the order of bevy's [`Children`], under their names.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// let mut heads = ModuleDict::from_named([("left", Linear::new(4, 2)), ("right", Linear::new(4, 3))])?;
/// heads.set("left", Tanh)?;
/// heads.update([("up", ReLU)])?;
/// assert_eq!(heads.keys().collect::<Vec<_>>(), ["left", "right", "up"]);
/// assert!(heads.contains("up") && heads.get("right")?.is::<Linear>());
/// heads.pop("left")?;
/// assert_eq!(heads.to_string(), "\
/// ModuleDict(
///   (right): Linear(in_features=4, out_features=3, bias=True)
///   (up): ReLU()
/// )");
/// heads.clear();
/// assert!(heads.is_empty());
/// # Ok::<(), ContainerError>(())
/// ```
///
/// Source: `torch.nn.ModuleDict`; its `items` is `iter`.
#[derive(Component, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[component(immutable)]
pub struct ModuleDict {
    #[serde(skip)]
    modules: Modules,
}

modules_by_name!(ModuleDict);

impl ModuleDict {
    /// Lists modules under names.
    ///
    /// # Errors
    ///
    /// As [`set`](ModuleDict::set).
    pub fn from_named<N: Into<String>, M: IntoModule>(
        modules: impl IntoIterator<Item = (N, M)>,
    ) -> Result<Self, ContainerError> {
        let mut dict = ModuleDict::new();
        dict.update(modules)?;
        Ok(dict)
    }

    /// Appends a module under a name. A module that had this name is replaced. The name is checked when the
    /// model is spawned.
    #[must_use]
    pub fn push_named(mut self, name: impl Into<String>, module: impl IntoModule) -> Self {
        self.modules.set(name.into(), module.into_module());
        self
    }

    /// Returns whether a module has this name: `name in dict`.
    pub fn contains(&self, name: &str) -> bool {
        self.named(name).is_some()
    }

    /// Returns the module of that name: `dict[name]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Key`] if there is none.
    pub fn get(&self, name: &str) -> Result<&dyn DynModule, ContainerError> {
        self.named(name).ok_or_else(|| ContainerError::Key(name.to_owned()))
    }

    /// Returns the module of that name, to be changed.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Key`] if there is none.
    pub fn get_mut(&mut self, name: &str) -> Result<&mut dyn DynModule, ContainerError> {
        match self.modules.get_mut(name) {
            Some(module) => Ok(&mut **module),
            None => Err(ContainerError::Key(name.to_owned())),
        }
    }

    /// Appends a module under a name, or replaces the one that has it: `dict[name] = module`.
    ///
    /// # Errors
    ///
    /// As [`add_module`](ModuleDict::add_module).
    pub fn set(
        &mut self,
        name: impl Into<String>,
        module: impl IntoModule,
    ) -> Result<(), ContainerError> {
        self.add_module(name, module).map(drop)
    }

    /// Sets modules under names, in their order.
    ///
    /// # Errors
    ///
    /// As [`set`](ModuleDict::set). Nothing is set then, whereas torch sets those before the wrong name.
    ///
    /// Source: torch's `update`.
    pub fn update<N: Into<String>, M: IntoModule>(
        &mut self,
        modules: impl IntoIterator<Item = (N, M)>,
    ) -> Result<(), ContainerError> {
        let modules: Vec<(String, M)> =
            modules.into_iter().map(|(name, module)| (name.into(), module)).collect();
        modules.iter().try_for_each(|(name, _)| {
            ContainerError::check_name(Kind::Module, "ModuleDict", name)
        })?;
        for (name, module) in modules {
            self.modules.set(name, module.into_module());
        }
        Ok(())
    }

    /// Takes the module of that name out.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Key`] if there is none.
    ///
    /// Source: torch's `pop`.
    pub fn pop(&mut self, name: &str) -> Result<Box<dyn DynModule>, ContainerError> {
        self.modules.remove(name).ok_or_else(|| ContainerError::Key(name.to_owned()))
    }

    /// Removes the module of that name: `del dict[name]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Key`] if there is none.
    pub fn remove(&mut self, name: &str) -> Result<(), ContainerError> {
        self.pop(name).map(drop)
    }

    /// Removes all modules.
    pub fn clear(&mut self) {
        self.modules.clear();
    }
}

/// Gives names and modules in order.
impl IntoIterator for ModuleDict {
    type Item = (String, Box<dyn DynModule>);
    type IntoIter = std::vec::IntoIter<(String, Box<dyn DynModule>)>;

    fn into_iter(self) -> Self::IntoIter {
        self.modules.into_iter()
    }
}

impl Module for ModuleDict {
    fn uses_training(&self) -> bool {
        false
    }

    fn listed(&self) -> Option<Box<dyn Iterator<Item = &dyn DynModule> + '_>> {
        Some(Box::new(self.values()))
    }

    fn declare(&self, declare: &mut Declare) {
        declare.children.extend(self.modules.clone());
    }

    /// Fails: torch's dictionary has no `forward` either.
    fn forward(&self, call: &Call<'_>, _: Var) -> Var {
        call.trace.fail("Module [ModuleDict] is missing the required \"forward\" function")
    }

    /// The blueprint's positions name the children.
    fn structural(&self) -> Self {
        ModuleDict::new()
    }

    fn spawned(&self) -> Self {
        ModuleDict::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Linear, Tanh};

    fn linear(out_features: usize) -> Linear {
        Linear::new(1, out_features)
    }

    fn modules() -> ModuleDict {
        let modules = [("z", linear(1)), ("a", linear(2))];
        ModuleDict::from_named(modules).expect("torch takes these names")
    }

    /// Names and sizes of outputs.
    fn list(dict: &ModuleDict) -> Vec<(&str, usize)> {
        let size = |module: &dyn DynModule| {
            module.downcast_ref::<Linear>().map_or(0, |linear| linear.out_features)
        };
        dict.iter().map(|(name, module)| (name, size(module))).collect()
    }

    /// Does a deed that torch refuses in these words, and compares the dictionary before and after.
    #[track_caller]
    fn refuses<R>(words: &str, deed: impl FnOnce(&mut ModuleDict) -> Result<R, ContainerError>) {
        let mut changed = modules();
        let error = deed(&mut changed).err().expect("torch refuses this");
        assert_eq!(error.to_string(), words);
        assert_eq!(changed, modules());
    }

    #[test]
    fn modules_stay_in_order_of_insertion() {
        let mut dict = modules();
        let pairs = [("y", linear(3)), ("a", linear(4)), ("b", linear(5))];
        assert_eq!(dict.update(pairs), Ok(()));
        assert_eq!(list(&dict), [("z", 1), ("a", 4), ("y", 3), ("b", 5)]);
        assert_eq!(dict.set("z", linear(9)), Ok(()));
        assert!(dict.pop("a").is_ok_and(|of| of.downcast_ref() == Some(&linear(4))));
        assert_eq!(dict.remove("b"), Ok(()));
        assert_eq!(list(&dict), [("z", 9), ("y", 3)]);
        assert_eq!(dict.update(modules()), Ok(()));
        assert_eq!(list(&dict), [("z", 1), ("y", 3), ("a", 2)]);
        let changed = dict.get_mut("y").ok().and_then(|module| module.downcast_mut::<Linear>());
        changed.expect("it is linear").out_features = 7;
        assert_eq!(
            (dict.keys().collect::<Vec<_>>(), dict.values().len()),
            (vec!["z", "y", "a"], 3)
        );
        assert!(dict.contains("y") && !dict.contains("q") && dict.get("y").is_ok());
        dict.clear();
        assert_eq!((dict.len(), dict.is_empty()), (0, true));
    }

    #[test]
    fn names_that_are_not_there() {
        refuses("KeyError: 'q'", |dict| dict.get("q").map(drop));
        refuses("KeyError: 'q'", |dict| dict.get_mut("q").map(drop));
        refuses("KeyError: 'q'", |dict| dict.pop("q"));
        refuses("KeyError: 'q'", |dict| dict.remove("q"));
    }

    #[test]
    fn names_are_checked_as_torch_does() {
        let cases = [
            ("a.b", "module name can't contain \".\", got: a.b"),
            ("", "module name can't be empty string \"\""),
            ("keys", "attribute 'keys' already exists"),
            ("forward", "attribute 'forward' already exists"),
        ];
        for (name, words) in cases {
            refuses(words, |dict| dict.set(name, Tanh));
            refuses(words, |dict| dict.add_module(name, Tanh).map(drop));
            refuses(words, |dict| dict.update([("first", Tanh), (name, Tanh)]));
            refuses(words, |_| ModuleDict::from_named([(name, Tanh)]));
        }
        for name in ["append", "weight", "0", "a b", "get"] {
            assert!(ModuleDict::from_named([(name, Tanh)]).is_ok(), "{name}");
        }
    }
}
