//! [`ParamGroups`]: an optimizer with several groups of parameters.

use core::any::{Any, TypeId};
use core::fmt::{self, Debug};
use core::ops::{Deref, DerefMut};
use std::sync::Arc;

use bevy_ecs::component::Mutable;
use bevy_ecs::prelude::*;
use neurarch_kernels::ir::shape::Shape;

use super::{DynOptimizer, Optimizer};

/// An optimizer whose parameters are in groups, each with hyperparameters of its own.
///
/// It is inserted where an `O` would be, and derefs to the slice of its groups. A parameter is in the first group, from group
/// 1 on, whose predicate holds for it; the others are in group 0. Predicates are asked again when a model's structure
/// changes, so that the bias of a new layer is in the group of biases. Models run together if their groups have the same
/// predicates: clones of one `ParamGroups`, or closures that capture nothing. A predicate that captures something is
/// made once and cloned.
///
/// # Example
///
/// ```
/// use neurarch_components::optimizer::{AdamW, ParamGroups};
///
/// // No decay of biases and of norms' weights.
/// let mut adam = ParamGroups::new(AdamW { lr: 1e-3, ..AdamW::default() })
///     .group(|p| p.shape.rank() == 1 || p.name.ends_with("bias"), |group| group.weight_decay = 0.0);
/// adam.iter_mut().for_each(|group| group.lr *= 0.5);
/// assert_eq!((adam[0].weight_decay, adam[1].weight_decay), (1e-2, 0.0));
/// assert_eq!((adam.len(), adam[1].lr), (2, 5e-4));
/// ```
///
/// Source: the list of `dict`s that `torch.optim.Optimizer` takes. There a group lists its parameters.
#[derive(Component, Clone, PartialEq)]
#[component(summary_tick)]
pub struct ParamGroups<O: Optimizer> {
    /// At least one.
    groups: Vec<O>,
    /// Which parameters are in group 1, 2 and so on.
    predicates: Vec<Predicate>,
}

/// A parameter as the predicate of a group sees it.
#[derive(Clone, Copy, Debug)]
pub struct NamedParameter<'a> {
    /// Its dotted name below the module that has the optimizer: as that module's `named_parameters()` has it.
    pub name: &'a str,
    /// Its shape in one model.
    pub shape: &'a Shape,
}

impl<O: Optimizer> ParamGroups<O> {
    /// Puts all parameters into group 0.
    pub fn new(optimizer: O) -> Self {
        ParamGroups { groups: vec![optimizer], predicates: Vec::new() }
    }

    /// Adds a group of the parameters of group 0 for which `predicate` holds. Its hyperparameters are those of group 0 but
    /// for what `edit` changes.
    #[must_use]
    pub fn group(
        mut self,
        predicate: impl Fn(&NamedParameter<'_>) -> bool + Send + Sync + 'static,
        edit: impl FnOnce(&mut O),
    ) -> Self {
        let mut optimizer = self.groups[0].clone();
        edit(&mut optimizer);
        self.add_param_group(predicate, optimizer);
        self
    }

    /// Adds a group of the parameters of group 0 for which `predicate` holds. They keep the state that they have.
    ///
    /// Source: `torch.optim.Optimizer.add_param_group`, which takes parameters that are in no group yet.
    pub fn add_param_group(
        &mut self,
        predicate: impl Fn(&NamedParameter<'_>) -> bool + Send + Sync + 'static,
        optimizer: O,
    ) {
        self.groups.push(optimizer);
        self.predicates.push(Predicate::new(predicate));
    }
}

impl<O: Optimizer> ParamGroups<O> {
    /// Makes groups whose predicates are yet to be [taken](ParamGroups::take_predicates).
    pub(crate) fn without_predicates(groups: Vec<O>) -> Self {
        ParamGroups { groups, predicates: Vec::new() }
    }

    /// Takes the predicates of another one; says whether it has as many groups.
    pub(crate) fn take_predicates(&mut self, from: Option<&Self>) -> bool {
        let from = from.filter(|from| from.groups.len() == self.groups.len());
        if let Some(from) = from {
            self.predicates.clone_from(&from.predicates);
        }
        from.is_some() || self.groups.len() == 1
    }
}

impl<O: Optimizer> Deref for ParamGroups<O> {
    type Target = [O];

    fn deref(&self) -> &[O] {
        &self.groups
    }
}

impl<O: Optimizer> DerefMut for ParamGroups<O> {
    fn deref_mut(&mut self) -> &mut [O] {
        &mut self.groups
    }
}

impl<O: Optimizer> Debug for ParamGroups<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ParamGroups").field(&self.groups).finish()
    }
}

/// Decides whether a parameter is in a group.
#[derive(Clone)]
struct Predicate {
    holds: Arc<dyn Fn(&NamedParameter<'_>) -> bool + Send + Sync>,
    /// The function's type, if it captures nothing: another value of that type decides alike.
    ty: Option<TypeId>,
}

impl Predicate {
    fn new<F: Fn(&NamedParameter<'_>) -> bool + Send + Sync + 'static>(holds: F) -> Self {
        let ty = (size_of::<F>() == 0).then(TypeId::of::<F>);
        Predicate { holds: Arc::new(holds), ty }
    }
}

impl PartialEq for Predicate {
    fn eq(&self, other: &Self) -> bool {
        self.ty.is_some() && self.ty == other.ty || Arc::ptr_eq(&self.holds, &other.holds)
    }
}

/// A component that updates the parameters of a module and all below it: an [`Optimizer`], whose parameters are one group,
/// or [`ParamGroups`] of one.
pub trait OptimizerComponent: Component<Mutability = Mutable> + Clone + Debug + PartialEq {
    /// The optimizer.
    type Of: Optimizer;

    /// Lists the groups; there is at least one.
    fn groups(&self) -> &[Self::Of];

    /// Lists the groups, to be changed.
    fn groups_mut(&mut self) -> &mut [Self::Of];

    /// Returns the number of the group that a parameter is in.
    fn group_of(&self, _parameter: &NamedParameter<'_>) -> usize {
        0
    }

    /// Returns whether both put any parameter into the same group.
    fn groups_alike(&self, _other: &Self) -> bool {
        true
    }
}

impl<O: Optimizer> OptimizerComponent for O {
    type Of = O;

    fn groups(&self) -> &[O] {
        core::slice::from_ref(self)
    }

    fn groups_mut(&mut self) -> &mut [O] {
        core::slice::from_mut(self)
    }
}

impl<O: Optimizer> OptimizerComponent for ParamGroups<O> {
    type Of = O;

    fn groups(&self) -> &[O] {
        &self.groups
    }

    fn groups_mut(&mut self) -> &mut [O] {
        &mut self.groups
    }

    fn group_of(&self, parameter: &NamedParameter<'_>) -> usize {
        let of = self.predicates.iter().position(|predicate| (predicate.holds)(parameter));
        of.map_or(0, |place| place + 1)
    }

    fn groups_alike(&self, other: &Self) -> bool {
        self.predicates == other.predicates
    }
}

/// [`OptimizerComponent`] behind a pointer; each is one.
pub trait DynParamGroups: Any + Debug + Send + Sync {
    /// Counts the groups.
    fn n_groups(&self) -> usize;
    /// See [`OptimizerComponent::group_of`].
    fn group_of(&self, parameter: &NamedParameter<'_>) -> usize;
    /// Returns a group by its number.
    fn group(&self, group: usize) -> Option<&dyn DynOptimizer>;
    /// Returns a group by its number, to be changed.
    fn group_mut(&mut self, group: usize) -> Option<&mut dyn DynOptimizer>;
    /// Copies what decides the program: every scalar slot has a fixed value.
    fn structural(&self) -> Box<dyn DynParamGroups>;
    /// Returns whether the two record the same updates: one type, equal structural fields, equal groups.
    fn is_like(&self, other: &dyn DynParamGroups) -> bool;
    /// Returns whether the two are of one type.
    fn is_of_one_type(&self, other: &dyn DynParamGroups) -> bool;
    /// Returns whether the two are equal, scalar slots included.
    fn equals(&self, other: &dyn DynParamGroups) -> bool;
    /// Copies.
    fn clone_box(&self) -> Box<dyn DynParamGroups>;
    /// Adds the component to an entity.
    fn insert(&self, entity: &mut EntityWorldMut<'_>);
}

impl<C: OptimizerComponent> DynParamGroups for C {
    fn n_groups(&self) -> usize {
        self.groups().len()
    }

    fn group_of(&self, parameter: &NamedParameter<'_>) -> usize {
        OptimizerComponent::group_of(self, parameter)
    }

    fn group(&self, group: usize) -> Option<&dyn DynOptimizer> {
        self.groups().get(group).map(|of| of as &dyn DynOptimizer)
    }

    fn group_mut(&mut self, group: usize) -> Option<&mut dyn DynOptimizer> {
        self.groups_mut().get_mut(group).map(|of| of as &mut dyn DynOptimizer)
    }

    fn structural(&self) -> Box<dyn DynParamGroups> {
        let mut copy = self.clone();
        copy.groups_mut().iter_mut().for_each(|group| *group = Optimizer::structural(group));
        Box::new(copy)
    }

    fn is_like(&self, other: &dyn DynParamGroups) -> bool {
        let Some(other) = (other as &dyn Any).downcast_ref::<C>() else { return false };
        let mut groups = self.groups().iter().zip(other.groups());
        self.groups().len() == other.groups().len()
            && groups.all(|(own, other)| DynOptimizer::is_like(own, other))
            && self.groups_alike(other)
    }

    fn is_of_one_type(&self, other: &dyn DynParamGroups) -> bool {
        (other as &dyn Any).is::<C>()
    }

    fn equals(&self, other: &dyn DynParamGroups) -> bool {
        (other as &dyn Any).downcast_ref::<C>() == Some(self)
    }

    fn clone_box(&self) -> Box<dyn DynParamGroups> {
        Box::new(self.clone())
    }

    fn insert(&self, entity: &mut EntityWorldMut<'_>) {
        entity.insert(self.clone());
    }
}
