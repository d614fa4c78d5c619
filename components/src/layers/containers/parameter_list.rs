//! [`ParameterList`]: parameters in a list, for a module of your own to use.

use core::ops::AddAssign;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::trace::Var;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::containers::{ContainerError, Slice, place};
use crate::layers::Parameter;
use crate::module::{Call, Declare, Init, Module};

/// Holds parameters in a list, named by their numbers: `0`, `1`, …
///
/// It computes nothing by itself: the module above reads them, such as `call.parameter("scales.0")`.
/// Unlike a list of modules, the value on a spawned entity is what it was: the parameters' shapes are the
/// module's structure.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// let mut scales = ParameterList::from([Parameter::ones([4]), Parameter::zeros([4])]);
/// scales.append(Parameter::randn([2, 3]));
/// scales += [Parameter::full([], 0.5)];
/// scales.set(-3, Parameter::rand([7]))?;
/// assert_eq!(scales.get(1)?, &Parameter::rand([7]));
/// assert_eq!(scales.slice(2..)?.to_string(), "\
/// ParameterList(
///     (0): Parameter containing: [torch.float32 of size 2x3]
///     (1): Parameter containing: [torch.float32 of size ]
/// )");
/// # Ok::<(), ContainerError>(())
/// ```
///
/// Source: `torch.nn.ParameterList`, which has no `insert`, `pop`, `del` or `+` either. It holds parameters
/// alone, not objects of other types. `P` is what stands for a parameter: in a live list, one that is there.
#[derive(Component, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[component(immutable)]
#[serde(bound = "P: Clone + Serialize + DeserializeOwned")]
pub struct ParameterList<P: Send + Sync + 'static = Parameter>(
    #[serde(with = "crate::wire")] Arc<Vec<P>>,
);

impl<P: Send + Sync + 'static> Default for ParameterList<P> {
    fn default() -> Self {
        ParameterList(Arc::default())
    }
}

impl ParameterList {
    /// Creates an empty list.
    pub fn new() -> Self {
        ParameterList::default()
    }
}

impl<P: Clone + Send + Sync + 'static> ParameterList<P> {
    /// Counts the parameters.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Goes through the parameters in order.
    pub fn iter(&self) -> core::slice::Iter<'_, P> {
        self.0.iter()
    }

    /// Returns the parameter at an index that may count from the end: `list[index]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is none.
    pub fn get(&self, index: isize) -> Result<&P, ContainerError> {
        Ok(&self.0[place(index, self.len())?])
    }

    /// Returns the parameter at an index, to be changed.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is none.
    pub fn get_mut(&mut self, index: isize) -> Result<&mut P, ContainerError> {
        let place = place(index, self.len())?;
        Ok(&mut Arc::make_mut(&mut self.0)[place])
    }

    /// Replaces the parameter at an index: `list[index] = parameter`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is none.
    pub fn set(&mut self, index: isize, parameter: P) -> Result<(), ContainerError> {
        *self.get_mut(index)? = parameter;
        Ok(())
    }

    /// Copies the parameters that a slice names, numbered from 0: `list[1:]`.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Step`] if its step is 0.
    pub fn slice(&self, slice: impl Into<Slice>) -> Result<Self, ContainerError> {
        let places = slice.into().places(self.len())?;
        Ok(places.into_iter().map(|place| self.0[place].clone()).collect())
    }

    /// Appends a parameter.
    #[must_use]
    pub fn push(mut self, parameter: P) -> Self {
        self.append(parameter);
        self
    }

    /// Appends a parameter. Source: torch's `append`.
    pub fn append(&mut self, parameter: P) -> &mut Self {
        self.extend([parameter])
    }

    /// Appends parameters. Source: torch's `extend`.
    pub fn extend(&mut self, parameters: impl IntoIterator<Item = P>) -> &mut Self {
        Arc::make_mut(&mut self.0).extend(parameters);
        self
    }
}

impl<P: Clone + Send + Sync + 'static, I: IntoIterator<Item = P>> AddAssign<I>
    for ParameterList<P>
{
    fn add_assign(&mut self, parameters: I) {
        self.extend(parameters);
    }
}

impl<P: Clone + Send + Sync + 'static> FromIterator<P> for ParameterList<P> {
    fn from_iter<I: IntoIterator<Item = P>>(parameters: I) -> Self {
        ParameterList(Arc::new(parameters.into_iter().collect()))
    }
}

impl<const N: usize> From<[Parameter; N]> for ParameterList {
    fn from(parameters: [Parameter; N]) -> Self {
        parameters.into_iter().collect()
    }
}

impl<P: Clone + Send + Sync + 'static> IntoIterator for ParameterList<P> {
    type Item = P;
    type IntoIter = std::vec::IntoIter<P>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}

impl<'a> IntoIterator for &'a ParameterList {
    type Item = &'a Parameter;
    type IntoIter = core::slice::Iter<'a, Parameter>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// torch's printed form ([`repr`](crate::module::repr::repr)).
impl core::fmt::Display for ParameterList {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&crate::module::repr::repr(self))
    }
}

impl Module for ParameterList {
    fn uses_training(&self) -> bool {
        false
    }

    fn declare(&self, declare: &mut Declare) {
        let parameters = self.iter().enumerate();
        let parameters = parameters.map(|(number, of)| of.declared(&number.to_string()));
        declare.parameters.extend(parameters);
    }

    fn reset(&self, parameter: &str) -> Init {
        let number = parameter.parse::<usize>().ok();
        let parameter = number.and_then(|number| self.0.get(number));
        parameter.map_or(Init::Zeros, |parameter| parameter.init.clone())
    }

    /// Fails, as in torch.
    fn forward(&self, call: &Call<'_>, _: Var) -> Var {
        call.trace.fail("ParameterList should not be called.")
    }

    fn extra_repr(&self) -> String {
        let lines = self.iter().enumerate();
        let lines = lines.map(|(number, of)| of.line(&number.to_string(), name));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// torch's name of a dtype.
fn name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "float32",
        Dtype::F64 => "float64",
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        Dtype::I64 => "int64",
        Dtype::Bool => "bool",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> ParameterList {
        let shapes: [&[usize]; 3] = [&[1], &[2], &[2, 3]];
        shapes.into_iter().map(Parameter::zeros).collect()
    }

    fn sizes(list: &ParameterList) -> Vec<&[usize]> {
        list.into_iter().map(|parameter| &*parameter.shape).collect()
    }

    #[test]
    fn an_index_may_count_from_the_end() {
        let mut list = parameters();
        assert_eq!(list.get(-1), Ok(&Parameter::zeros([2, 3])));
        assert_eq!(list.set(-1, Parameter::zeros([9])), Ok(()));
        list.get_mut(0).expect("there are 3").shape = [7].into();
        assert_eq!(sizes(&list), [[7], [2], [9]]);
        let before = list.clone();
        for index in [3, -4] {
            let error = list.get(index).expect_err("there are 3");
            assert_eq!(error.to_string(), format!("index {index} is out of range"));
            assert_eq!(list.set(index, Parameter::zeros([])), Err(error));
            assert!(list.get_mut(index).is_err());
        }
        assert_eq!(list, before);
    }

    #[test]
    fn slices_are_lists() {
        let list = parameters();
        let of = |slice: Slice| list.slice(slice);
        assert_eq!(of((1..).into()).as_ref().map(sizes), Ok(vec![&[2][..], &[2, 3]]));
        let back = of(Slice::from(..).step_by(-1));
        assert_eq!(back.as_ref().map(sizes), Ok(vec![&[2, 3][..], &[2], &[1]]));
        assert_eq!(of(Slice::from(..).step_by(0)), Err(ContainerError::Step));
    }

    #[test]
    fn what_is_appended_comes_last() {
        let all = [&[1][..], &[2], &[2, 3], &[9], &[8]];
        let more = || [[9], [8]].map(Parameter::zeros);
        let mut list = parameters();
        assert_eq!(sizes(list.extend(more())), all);
        let mut list = parameters();
        list += more();
        assert_eq!(sizes(&list), all);
        let [first, second] = more();
        assert_eq!(sizes(parameters().push(first).append(second)), all);
        assert_eq!((list.len(), list.is_empty()), (5, false));
        assert_eq!(list.clone().into_iter().collect::<ParameterList>(), list);
    }

    #[test]
    fn parameters_are_declared_by_their_numbers() {
        let mut declare = Declare::default();
        let list = ParameterList::new().push(Parameter::randn([3]));
        let list = list.push(Parameter::full([], 0.5).with_dtype(Dtype::F64));
        Module::declare(&list, &mut declare);
        let names: Vec<_> = declare.parameters.iter().map(|of| (&*of.name, of.dtype)).collect();
        assert_eq!(names, [("0", None), ("1", Some(Dtype::F64))]);
        let inits = ["0", "1", "2"].map(|name| Module::reset(&list, name));
        let normal = Init::Normal { mean: 0.0, std: 1.0 };
        assert_eq!(inits, [normal, Init::Constant(0.5), Init::Zeros]);
    }
}
