//! [`ParameterDict`]: parameters under names, for a module of your own to use.

use core::ops::{BitOr, BitOrAssign};
use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::trace::Var;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::containers::{ContainerError, Named};
use crate::layers::Parameter;
use crate::module::names::Kind;
use crate::module::{Call, Declare, Init, Module};

/// Holds parameters under names, in order of insertion.
///
/// It computes nothing by itself: the module above reads them, such as `call.parameter("gains.left")`.
/// Unlike a dictionary of modules, the value on a spawned entity is what it was: the parameters' shapes are
/// the module's structure.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// let mut gains = ParameterDict::from_named([("z", Parameter::ones([1])), ("a", Parameter::zeros([2]))])?;
/// gains.set("z", Parameter::ones([9]))?;
/// gains.update([("y", Parameter::ones([3]))])?;
/// assert_eq!(gains.setdefault("a", Parameter::ones([7]))?, &Parameter::zeros([2]));
/// assert_eq!(gains.keys().collect::<Vec<_>>(), ["z", "a", "y"]);
/// assert_eq!(gains.popitem()?.0, "y");
/// assert_eq!(gains.pop("z")?, Parameter::ones([9]));
///
/// let both = gains | ParameterDict::fromkeys(["p", "q"], Parameter::zeros([4]))?;
/// assert!(both.contains("p") && both.get("z").is_none());
/// assert_eq!(both.to_string(), "\
/// ParameterDict(
///     (a): Parameter containing: [torch.FloatTensor of size 2]
///     (p): Parameter containing: [torch.FloatTensor of size 4]
///     (q): Parameter containing: [torch.FloatTensor of size 4]
/// )");
/// # Ok::<(), ContainerError>(())
/// ```
///
/// Source: `torch.nn.ParameterDict`; its `copy` is `clone`. It holds parameters alone, not objects of other
/// types; `update` keeps the order that it is given, whereas torch sorts a plain `dict`; the parameters of
/// `fromkeys` are copies, not one parameter under several names. `P` is what stands for a parameter: in a live
/// dictionary, one that is there.
#[derive(Component, Clone, Debug, Serialize, Deserialize)]
#[component(immutable)]
#[serde(bound = "P: Clone + Serialize + DeserializeOwned")]
pub struct ParameterDict<P: Send + Sync + 'static = Parameter>(
    #[serde(with = "crate::wire")] Arc<Named<P>>,
);

impl<P: Send + Sync + 'static> Default for ParameterDict<P> {
    fn default() -> Self {
        ParameterDict(Arc::default())
    }
}

impl<P: PartialEq + Send + Sync + 'static> PartialEq for ParameterDict<P> {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().eq(other.0.iter())
    }
}

impl ParameterDict {
    /// Creates an empty dictionary.
    pub fn new() -> Self {
        ParameterDict::default()
    }
}

impl<P: Clone + Send + Sync + 'static> ParameterDict<P> {
    /// Lists parameters under names.
    ///
    /// # Errors
    ///
    /// As [`set`](ParameterDict::set).
    pub fn from_named<N: Into<String>>(
        parameters: impl IntoIterator<Item = (N, P)>,
    ) -> Result<Self, ContainerError> {
        let mut dict = ParameterDict::default();
        dict.update(parameters)?;
        Ok(dict)
    }

    /// Lists copies of one parameter under these names.
    ///
    /// # Errors
    ///
    /// As [`set`](ParameterDict::set).
    ///
    /// Source: torch's `fromkeys`.
    pub fn fromkeys<N: Into<String>>(
        names: impl IntoIterator<Item = N>,
        parameter: P,
    ) -> Result<Self, ContainerError> {
        ParameterDict::from_named(names.into_iter().map(|name| (name, parameter.clone())))
    }

    /// Counts the parameters.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Goes through names and parameters in order. Source: torch's `items`.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &P)> + ExactSizeIterator {
        self.0.iter()
    }

    /// Goes through the names in order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.iter().map(|(name, _)| name)
    }

    /// Goes through the parameters in order.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &P> + ExactSizeIterator {
        self.iter().map(|(_, parameter)| parameter)
    }

    /// Returns whether a parameter has this name: `name in dict`.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns the parameter of that name, if there is one. Source: torch's `get`.
    pub fn get(&self, name: &str) -> Option<&P> {
        self.0.get(name)
    }

    /// Returns the parameter of that name: `dict[name]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Attribute`] if there is none.
    pub fn item(&self, name: &str) -> Result<&P, ContainerError> {
        self.get(name).ok_or_else(|| missing(name))
    }

    /// Appends a parameter under a name, or replaces the one that has it: `dict[name] = parameter`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Name`] if the name is empty, contains a dot, or is one of an attribute of torch's
    /// dictionary: such a model could not be loaded there.
    pub fn set(&mut self, name: impl Into<String>, parameter: P) -> Result<(), ContainerError> {
        self.update([(name, parameter)])
    }

    /// Sets parameters under names, in their order.
    ///
    /// # Errors
    ///
    /// As [`set`](ParameterDict::set). Nothing is set then, whereas torch sets those before the wrong name.
    ///
    /// Source: torch's `update`.
    pub fn update<N: Into<String>>(
        &mut self,
        parameters: impl IntoIterator<Item = (N, P)>,
    ) -> Result<(), ContainerError> {
        let parameters: Vec<(String, P)> =
            parameters.into_iter().map(|(name, parameter)| (name.into(), parameter)).collect();
        parameters.iter().try_for_each(|(name, _)| {
            ContainerError::check_name(Kind::Parameter, "ParameterDict", name)
        })?;
        let named = Arc::make_mut(&mut self.0);
        parameters.into_iter().for_each(|(name, parameter)| named.set(name, parameter));
        Ok(())
    }

    /// Returns the parameter of that name, after setting it to `default` if there was none.
    ///
    /// # Errors
    ///
    /// As [`set`](ParameterDict::set).
    ///
    /// Source: torch's `setdefault`.
    pub fn setdefault(&mut self, name: &str, default: P) -> Result<&P, ContainerError> {
        if !self.contains(name) {
            self.set(name, default)?;
        }
        self.item(name)
    }

    /// Takes the parameter of that name out.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Attribute`] if there is none.
    ///
    /// Source: torch's `pop`.
    pub fn pop(&mut self, name: &str) -> Result<P, ContainerError> {
        Arc::make_mut(&mut self.0).remove(name).ok_or_else(|| missing(name))
    }

    /// Takes the last parameter out, with its name.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Empty`] if there is none.
    ///
    /// Source: torch's `popitem`.
    pub fn popitem(&mut self) -> Result<(String, P), ContainerError> {
        Arc::make_mut(&mut self.0).pop().ok_or(ContainerError::Empty)
    }

    /// Removes the parameter of that name: `del dict[name]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Key`] if there is none.
    pub fn remove(&mut self, name: &str) -> Result<(), ContainerError> {
        self.pop(name).map(drop).map_err(|_| ContainerError::Key(name.to_owned()))
    }

    /// Removes all parameters.
    pub fn clear(&mut self) {
        Arc::make_mut(&mut self.0).clear();
    }
}

fn missing(name: &str) -> ContainerError {
    ContainerError::Attribute { container: "ParameterDict", name: name.to_owned() }
}

/// Joins two dictionaries; the right one's parameters replace those of the same names.
impl<P: Clone + Send + Sync + 'static> BitOr for ParameterDict<P> {
    type Output = ParameterDict<P>;

    fn bitor(mut self, other: ParameterDict<P>) -> ParameterDict<P> {
        self |= other;
        self
    }
}

/// Sets the parameters of another dictionary.
impl<P: Clone + Send + Sync + 'static> BitOrAssign for ParameterDict<P> {
    fn bitor_assign(&mut self, other: ParameterDict<P>) {
        let named = Arc::make_mut(&mut self.0);
        other.into_iter().for_each(|(name, parameter)| named.set(name, parameter));
    }
}

/// Gives names and parameters in order.
impl<P: Clone + Send + Sync + 'static> IntoIterator for ParameterDict<P> {
    type Item = (String, P);
    type IntoIter = std::vec::IntoIter<(String, P)>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}

/// torch's printed form ([`repr`](crate::module::repr::repr)).
impl core::fmt::Display for ParameterDict {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&crate::module::repr::repr(self))
    }
}

impl Module for ParameterDict {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        declare.parameters.extend(self.iter().map(|(name, of)| of.declared(name)));
    }

    fn reset(&self, parameter: &str) -> Init {
        self.get(parameter).map_or(Init::Zeros, |parameter| parameter.init.clone())
    }

    /// Fails, as in torch.
    fn forward(&self, call: &Call<'_>, _: Var) -> Var {
        call.trace.fail("ParameterDict should not be called.")
    }

    fn extra_repr(&self) -> String {
        let lines = self.iter().map(|(name, of)| of.line(name, tensor_type));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// torch's older name of a tensor of this dtype, which it prints here.
fn tensor_type(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "FloatTensor",
        Dtype::F64 => "DoubleTensor",
        Dtype::F16 => "HalfTensor",
        Dtype::BF16 => "BFloat16Tensor",
        Dtype::I64 => "LongTensor",
        Dtype::Bool => "BoolTensor",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(size: usize) -> Parameter {
        Parameter::zeros([size])
    }

    fn parameters() -> ParameterDict {
        ParameterDict::from_named([("z", of(1)), ("a", of(2))]).expect("torch takes these names")
    }

    fn list(dict: &ParameterDict) -> Vec<(&str, usize)> {
        dict.iter().map(|(name, parameter)| (name, parameter.shape.numel())).collect()
    }

    /// Does a deed that torch refuses in these words, and compares the dictionary before and after.
    #[track_caller]
    fn refuses<R: core::fmt::Debug>(
        words: &str,
        deed: impl FnOnce(&mut ParameterDict) -> Result<R, ContainerError>,
    ) {
        let mut changed = parameters();
        let error = deed(&mut changed).expect_err("torch refuses this");
        assert_eq!(error.to_string(), words);
        assert_eq!(changed, parameters());
    }

    #[test]
    fn parameters_stay_in_order_of_insertion() {
        let mut dict = parameters();
        assert_eq!(dict.update([("y", of(3)), ("b", of(5))]), Ok(()));
        assert_eq!(dict.set("z", of(9)), Ok(()));
        assert_eq!(list(&dict), [("z", 9), ("a", 2), ("y", 3), ("b", 5)]);
        assert_eq!(dict.pop("a"), Ok(of(2)));
        assert_eq!(dict.remove("y"), Ok(()));
        assert_eq!(dict.popitem(), Ok(("b".to_owned(), of(5))));
        assert_eq!(list(&dict), [("z", 9)]);
        assert_eq!(dict.setdefault("z", of(7)), Ok(&of(9)));
        assert_eq!(dict.setdefault("q", of(7)), Ok(&of(7)));
        assert_eq!(dict.keys().rev().collect::<Vec<_>>(), ["q", "z"]);
        assert_eq!(dict.values().collect::<Vec<_>>(), [&of(9), &of(7)]);
        assert_eq!((dict.get("q"), dict.get("p"), dict.len()), (Some(&of(7)), None, 2));
        assert_eq!(dict.item("q"), Ok(&of(7)));
        dict.clear();
        assert!(dict.is_empty() && !dict.contains("q"));
        let empty = dict.popitem().expect_err("it is empty");
        assert_eq!(empty.to_string(), "popitem(): dictionary is empty");
    }

    #[test]
    fn the_right_dictionary_wins() {
        let other = || ParameterDict::from_named([("y", of(3)), ("z", of(5))]).unwrap_or_default();
        let both = [("z", 5), ("a", 2), ("y", 3)];
        assert_eq!(list(&(parameters() | other())), both);
        let mut dict = parameters();
        dict |= other();
        assert_eq!(list(&dict), both);
        let mut dict = parameters();
        assert_eq!(dict.update(other()), Ok(()));
        assert_eq!(list(&dict), both);
        let keys = ParameterDict::fromkeys(["p", "q", "p"], of(4));
        assert_eq!(keys.as_ref().map(list), Ok(vec![("p", 4), ("q", 4)]));
    }

    #[test]
    fn names_that_are_not_there() {
        let words = "'ParameterDict' object has no attribute 'q'";
        refuses(words, |dict| dict.item("q").cloned());
        refuses(words, |dict| dict.pop("q"));
        refuses("KeyError: 'q'", |dict| dict.remove("q"));
    }

    #[test]
    fn names_are_checked_as_torch_does() {
        let cases = [
            ("a.b", "parameter name can't contain \".\""),
            ("", "parameter name can't be empty string \"\""),
            ("keys", "attribute 'keys' already exists"),
            ("get", "attribute 'get' already exists"),
        ];
        for (name, words) in cases {
            refuses(words, |dict| dict.set(name, of(1)));
            refuses(words, |dict| dict.setdefault(name, of(1)).cloned());
            refuses(words, |dict| dict.update([("first", of(1)), (name, of(1))]));
            refuses(words, |_| ParameterDict::fromkeys([name], of(1)));
        }
        for name in ["append", "training", "weight", "0", "a b"] {
            assert!(ParameterDict::fromkeys([name], of(1)).is_ok(), "{name}");
        }
    }
}
