//! Reading a live container: what it has, by index, name or slice.

use bevy_ecs::prelude::*;
use neurarch_components::containers::Slice;
use neurarch_components::layers::ParameterDict;
use neurarch_kernels::ir::program::Role;

use super::draft::{Draft, Held, Planned, index, name};
use super::site::{Site, children, sites};
use super::{EditError, Key};
use crate::edit::lookup::tensor_at;
use crate::errors::LookupError;
use crate::execute::hooks::Target;
use crate::structure::spot::owner;
use crate::structure::traverse::NamedTensor;

/// An entry of a live container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A child.
    Module(Entity),
    /// A parameter.
    Parameter(NamedTensor),
    /// A child that is torch's `None`.
    None,
}

impl Item {
    /// Returns the child's entity, if it is one.
    pub fn module(&self) -> Option<Entity> {
        match self {
            Item::Module(module) => Some(*module),
            Item::Parameter(_) | Item::None => None,
        }
    }
}

/// A live container as a draft, and what its stand-ins stand for.
struct Open {
    site: Site,
    draft: Draft,
    entities: Vec<Entity>,
}

fn open(world: &mut World, container: impl Into<Target>) -> Result<Open, EditError> {
    let target = container.into();
    if let Target::Population(population, _) = target {
        return Err(EditError::ManyModels(population));
    }
    let site = sites(world, target)?.pop().ok_or(EditError::AllModules)?;
    let draft = site.draft(world)?;
    let (_, entities) = children(world, site.members[0].module);
    Ok(Open { site, draft, entities })
}

impl Open {
    /// Lists children by name.
    fn modules(&self, world: &World, listed: Vec<(String, Planned)>) -> Vec<(String, Item)> {
        let item = |(name, child)| match child {
            Planned::Standing(place) if self.site.entries[place].is_there => {
                Some((name, Item::Module(owner(world, self.entities[place]))))
            }
            Planned::Standing(_) => Some((name, Item::None)),
            _ => None,
        };
        listed.into_iter().filter_map(item).collect()
    }

    /// Lists parameters by name.
    fn parameters(&self, world: &World, listed: Vec<(String, Held)>) -> Vec<(String, Item)> {
        let entries = &self.site.names.registered.parameters;
        let item = |(name, held)| match held {
            Held::Standing(place) => {
                let (own, role) = (&entries[place].name, Role::Parameter);
                let found = tensor_at(world, &self.site.spot, role, own)?;
                Some((name, Item::Parameter(found)))
            }
            Held::New(_) => None,
        };
        listed.into_iter().filter_map(item).collect()
    }

    fn items(&self, world: &World) -> Vec<(String, Item)> {
        match self.draft.is_of_parameters() {
            true => self.parameters(world, self.draft.parameters()),
            false => self.modules(world, self.draft.children()),
        }
    }
}

/// Counts the entries of a live container.
///
/// # Errors
///
/// [`EditError`] if it is none, or not one.
///
/// Source: `len(container)`.
pub fn len(world: &mut World, container: impl Into<Target>) -> Result<usize, EditError> {
    open(world, container)?.draft.len()
}

/// Lists the entries of a live container in order, by name: the modules' entities, second names resolved.
///
/// # Errors
///
/// As [`len`].
///
/// Source: `container.items()`, `iter(container)`.
pub fn items(
    world: &mut World,
    container: impl Into<Target>,
) -> Result<Vec<(String, Item)>, EditError> {
    let open = open(world, container)?;
    open.draft.len()?;
    Ok(open.items(world))
}

/// Returns whether a live dictionary has an entry of that name.
///
/// # Errors
///
/// As [`len`].
///
/// Source: `name in container`.
pub fn contains(
    world: &mut World,
    container: impl Into<Target>,
    name: &str,
) -> Result<bool, EditError> {
    match &open(world, container)?.draft {
        Draft::ModuleDict(of) => Ok(of.contains(name)),
        Draft::ParameterDict(of) => Ok(of.contains(name)),
        other => other.no("__contains__"),
    }
}

/// Returns the entry of a live container that `key` names: a list's by an index that may count from the end, a
/// dictionary's by its name.
///
/// # Errors
///
/// [`EditError`] if there is none.
///
/// Source: `container[key]`.
pub fn get(
    world: &mut World,
    container: impl Into<Target>,
    key: impl Into<Key>,
) -> Result<Item, EditError> {
    let (open, key) = (open(world, container)?, key.into());
    let child = match &open.draft {
        Draft::Sequential(of) => of.get(index(key)?)?.into(),
        Draft::ModuleList(of) => of.get(index(key)?)?.into(),
        Draft::ModuleDict(of) => of.get(&name(key)?)?.into(),
        Draft::ParameterList(of) => {
            let found = vec![(String::new(), of.get(index(key)?)?.clone())];
            return first(open.parameters(world, found), String::new());
        }
        Draft::ParameterDict(of) => {
            let name = name(key)?;
            let found = vec![(name.clone(), of.item(&name)?.clone())];
            return first(open.parameters(world, found), name);
        }
        other => return other.no("__getitem__"),
    };
    let found = open.draft.children().into_iter().find(|(_, known)| known.is(&child));
    let known = found.map(|(name, _)| name).unwrap_or_default();
    first(open.modules(world, vec![(known.clone(), child)]), known)
}

fn first(items: Vec<(String, Item)>, name: String) -> Result<Item, EditError> {
    let item = items.into_iter().next().map(|(_, item)| item);
    item.ok_or_else(|| LookupError::NotAModule { name }.into())
}

/// Lists the entries of a live list that a slice names, with the names that they would have in torch's copy.
/// They stay where they are.
///
/// # Errors
///
/// [`EditError`] if it is no list, or the slice's step is 0.
///
/// Source: `container[1:]`, whose modules are those of the container, too.
pub fn slice(
    world: &mut World,
    container: impl Into<Target>,
    slice: impl Into<Slice>,
) -> Result<Vec<(String, Item)>, EditError> {
    let (open, slice) = (open(world, container)?, slice.into());
    let part = match &open.draft {
        Draft::Sequential(of) => Draft::Sequential(of.slice(slice)?),
        Draft::ModuleList(of) => Draft::ModuleList(of.slice(slice)?),
        Draft::ParameterList(of) => Draft::ParameterList(of.slice(slice)?),
        other => return other.no("__getitem__"),
    };
    Ok(match part.is_of_parameters() {
        true => open.parameters(world, part.parameters()),
        false => open.modules(world, part.children()),
    })
}

/// Lists the modules of two live lists one after the other, with the names that they would have in torch's
/// sum. They stay where they are.
///
/// # Errors
///
/// [`EditError`] if one of the two is no list of modules.
///
/// Source: `a + b`, whose modules are those of `a` and `b`, too.
pub fn add(
    world: &mut World,
    one: impl Into<Target>,
    other: impl Into<Target>,
) -> Result<Vec<(String, Item)>, EditError> {
    let (one, other) = (open(world, one)?, open(world, other)?);
    for draft in [&one.draft, &other.draft] {
        if !matches!(draft, Draft::Sequential(_) | Draft::ModuleList(_)) {
            return draft.no("__add__");
        }
    }
    let both = one.items(world).into_iter().chain(other.items(world)).enumerate();
    Ok(both.map(|(number, (_, item))| (number.to_string(), item)).collect())
}

/// Lists the modules of a live [`Sequential`](neurarch_components::layers::Sequential) `times` times. They stay
/// where they are.
///
/// # Errors
///
/// [`EditError`] if it is no `Sequential`, or `times` is not positive.
///
/// Source: `sequential * times`, whose modules are those of the `Sequential`, too.
pub fn mul(
    world: &mut World,
    container: impl Into<Target>,
    times: isize,
) -> Result<Vec<(String, Item)>, EditError> {
    let open = open(world, container)?;
    let Draft::Sequential(of) = &open.draft else { return open.draft.no("__mul__") };
    let product = Draft::Sequential((of.clone() * times)?);
    Ok(open.modules(world, product.children()))
}

/// Lists the parameters of two live dictionaries, those of `other` in the place of those of the same names.
/// They stay where they are.
///
/// # Errors
///
/// [`EditError`] if one of the two is no dictionary of parameters.
///
/// Source: `a | b` of `torch.nn.ParameterDict`, whose parameters are those of `a` and `b`, too.
pub fn union(
    world: &mut World,
    one: impl Into<Target>,
    other: impl Into<Target>,
) -> Result<Vec<(String, Item)>, EditError> {
    let (one, other) = (open(world, one)?, open(world, other)?);
    let (Draft::ParameterDict(left), Draft::ParameterDict(right)) = (&one.draft, &other.draft)
    else {
        let is_left = matches!(one.draft, Draft::ParameterDict(_));
        return if is_left { other.draft.no("__or__") } else { one.draft.no("__or__") };
    };
    // The places of the right one come behind those of the left one.
    let offset = one.site.names.registered.parameters.len();
    let behind = right.iter().map(|(name, held)| match held {
        Held::Standing(place) => (name, Held::Standing(place + offset)),
        Held::New(_) => (name, held.clone()),
    });
    let both = left.clone() | ParameterDict::from_named(behind)?;
    let items = both.into_iter().flat_map(|(name, held)| match held {
        Held::Standing(place) if place >= offset => {
            other.parameters(world, vec![(name, Held::Standing(place - offset))])
        }
        held => one.parameters(world, vec![(name, held)]),
    });
    Ok(items.collect())
}
