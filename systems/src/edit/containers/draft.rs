//! [`Draft`]: a live container in the form of a description, on which the description's own operations work.
//!
//! What is there already is in it by a stand-in that says which entry it was. So each rule of torch's
//! containers is written once, in the description; what comes out says which entries go where.

use bevy_ecs::prelude::*;
use neurarch_components::containers::{ContainerError, LiveModule, Named};
use neurarch_components::layers::{
    ModuleDict, ModuleList, ParameterDict, ParameterList, Sequential,
};
use neurarch_components::module::names::Kind;
use neurarch_components::module::registered::Value;
use neurarch_components::module::{DynModule, Module, NoModule};
use neurarch_kernels::ir::dtype::Dtype;

use super::{EditError, Key};
use crate::edit::registration::RegistrationError;

/// Stands in a draft for the child that was at a place.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing(pub(super) usize);

impl Module for Standing {}

/// A child in a draft.
#[derive(Debug)]
pub(super) enum Planned {
    /// The one that was at this place.
    Standing(usize),
    /// A module that is part of no model yet.
    Live(Entity),
    /// A new one.
    New(Box<dyn DynModule>),
}

impl From<&dyn DynModule> for Planned {
    fn from(module: &dyn DynModule) -> Self {
        if let Some(standing) = module.downcast_ref::<Standing>() {
            Planned::Standing(standing.0)
        } else if let Some(live) = module.downcast_ref::<LiveModule>() {
            Planned::Live(live.0)
        } else {
            Planned::New(module.clone_box())
        }
    }
}

impl Planned {
    /// Returns whether both stand for one child.
    pub(super) fn is(&self, other: &Planned) -> bool {
        matches!((self, other), (Planned::Standing(a), Planned::Standing(b)) if a == b)
    }
}

/// A parameter in a draft.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// The one that was at this place.
    Standing(usize),
    /// A new one.
    New(Value),
}

/// What an operation took out, by name.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Children.
    pub(super) modules: Vec<Planned>,
    /// Parameters.
    pub(super) parameters: Vec<(String, Held)>,
}

/// A live container as a description.
#[derive(Debug)]
pub(super) enum Draft {
    Sequential(Sequential),
    ModuleList(ModuleList),
    ModuleDict(ModuleDict),
    ParameterList(ParameterList<Held>),
    ParameterDict(ParameterDict<Held>),
    /// The children of any other module.
    Other(Box<dyn DynModule>, Named<Box<dyn DynModule>>),
}

use Draft::{ModuleDict as MD, ModuleList as ML, ParameterDict as PD, ParameterList as PL};

type Done = Result<(), EditError>;

/// An operation as an edit of a draft.
impl Draft {
    /// Makes the draft of a live module: of its children, or, where it is a container of parameters, of those.
    pub(super) fn of<'n>(
        module: &dyn DynModule,
        children: impl Iterator<Item = (&'n str, usize)>,
        parameters: impl Iterator<Item = (&'n str, usize)>,
    ) -> Result<Self, EditError> {
        let mut standing = children.map(|(name, place)| (name, Standing(place)));
        let held = parameters.map(|(name, place)| (name, Held::Standing(place)));
        Ok(if module.is::<Sequential>() {
            Draft::Sequential(standing.fold(Sequential::new(), |of, (n, s)| of.push_named(n, s)))
        } else if module.is::<ModuleList>() {
            let mut list = ModuleList::new();
            standing.try_for_each(|(name, child)| list.add_module(name, child).map(drop))?;
            ML(list)
        } else if module.is::<ModuleDict>() {
            MD(standing.fold(ModuleDict::new(), |of, (n, s)| of.push_named(n, s)))
        } else if module.is::<ParameterList>() {
            PL(held.map(|(_, held)| held).collect())
        } else if module.is::<ParameterDict>() {
            PD(ParameterDict::from_named(held)?)
        } else {
            let mut named: Named<Box<dyn DynModule>> = Named::default();
            standing.for_each(|(name, child)| named.set(name.to_owned(), Box::new(child)));
            Draft::Other(module.clone_box(), named)
        })
    }

    fn class(&self) -> &str {
        match self {
            Draft::Sequential(_) => "Sequential",
            ML(_) => "ModuleList",
            MD(_) => "ModuleDict",
            PL(_) => "ParameterList",
            PD(_) => "ParameterDict",
            Draft::Other(module, _) => module.type_name(),
        }
    }

    pub(super) fn no<T>(&self, operation: &'static str) -> Result<T, EditError> {
        Err(EditError::NoOperation { class: self.class().to_owned(), operation })
    }

    /// Returns whether it is a draft of parameters.
    pub(super) fn is_of_parameters(&self) -> bool {
        matches!(self, PL(_) | PD(_))
    }

    /// Lists the children.
    pub(super) fn children(&self) -> Vec<(String, Planned)> {
        fn list<'m>(
            all: impl Iterator<Item = (&'m str, &'m dyn DynModule)>,
        ) -> Vec<(String, Planned)> {
            all.map(|(name, module)| (name.to_owned(), module.into())).collect()
        }
        match self {
            Draft::Sequential(of) => list(of.iter()),
            ML(of) => list(of.iter()),
            MD(of) => list(of.iter()),
            Draft::Other(_, of) => list(of.iter().map(|(name, module)| (name, &**module))),
            PL(_) | PD(_) => Vec::new(),
        }
    }

    /// Lists the parameters.
    pub(super) fn parameters(&self) -> Vec<(String, Held)> {
        match self {
            PL(of) => {
                let numbered = of.iter().enumerate();
                numbered.map(|(number, held)| (number.to_string(), held.clone())).collect()
            }
            PD(of) => of.iter().map(|(name, held)| (name.to_owned(), held.clone())).collect(),
            _ => Vec::new(),
        }
    }

    /// Counts the entries.
    pub(super) fn len(&self) -> Result<usize, EditError> {
        match self {
            Draft::Sequential(of) => Ok(of.len()),
            ML(of) => Ok(of.len()),
            MD(of) => Ok(of.len()),
            PL(of) => Ok(of.len()),
            PD(of) => Ok(of.len()),
            Draft::Other(..) => self.no("__len__"),
        }
    }

    pub(super) fn append(&mut self, value: Value) -> Done {
        match self {
            Draft::Sequential(of) => drop(of.append(module_of(value)?)),
            ML(of) => drop(of.append(module_of(value)?)),
            PL(of) => drop(of.append(held_of(value)?)),
            _ => return self.no("append"),
        }
        Ok(())
    }

    pub(super) fn insert(&mut self, index: isize, value: Value) -> Done {
        match self {
            Draft::Sequential(of) => drop(of.insert(index, module_of(value)?)?),
            ML(of) => drop(of.insert(index, module_of(value)?)?),
            _ => return self.no("insert"),
        }
        Ok(())
    }

    pub(super) fn extend(&mut self, values: Vec<Value>) -> Done {
        match self {
            Draft::Sequential(of) => drop(of.extend(modules_of(values)?)),
            ML(of) => drop(of.extend(modules_of(values)?)),
            PL(of) => drop(of.extend(all_held(values)?)),
            _ => return self.no("extend"),
        }
        Ok(())
    }

    pub(super) fn add_assign(&mut self, values: Vec<Value>) -> Done {
        match self {
            Draft::Sequential(of) => *of += modules_of(values)?.into_iter().collect(),
            ML(of) => *of += modules_of(values)?,
            PL(of) => *of += all_held(values)?,
            _ => return self.no("__iadd__"),
        }
        Ok(())
    }

    pub(super) fn repeat(&mut self, times: isize) -> Done {
        match self {
            Draft::Sequential(of) => drop(of.repeat(times)?),
            _ => return self.no("__imul__"),
        }
        Ok(())
    }

    pub(super) fn add_module(&mut self, name: &str, value: Value) -> Done {
        match self {
            Draft::Sequential(of) => drop(of.add_module(name, module_of(value)?)?),
            ML(of) => drop(of.add_module(name, module_of(value)?)?),
            MD(of) => drop(of.add_module(name, module_of(value)?)?),
            Draft::Other(module, of) => {
                ContainerError::check_name(Kind::Module, module.type_name(), name)?;
                of.set(name.to_owned(), module_of(value)?);
            }
            PL(_) | PD(_) => return self.no("add_module"),
        }
        Ok(())
    }

    pub(super) fn set(&mut self, key: Key, value: Value) -> Done {
        match self {
            Draft::Sequential(of) => of.set(index(key)?, module_of(value)?)?,
            ML(of) => of.set(index(key)?, module_of(value)?)?,
            MD(of) => of.set(name(key)?, module_of(value)?)?,
            PL(of) => of.set(index(key)?, held_of(value)?)?,
            PD(of) => of.set(name(key)?, held_of(value)?)?,
            Draft::Other(..) => return self.no("__setitem__"),
        }
        Ok(())
    }

    pub(super) fn update(&mut self, values: Vec<(String, Value)>) -> Done {
        match self {
            MD(of) => {
                let modules = values.into_iter().map(|(name, value)| Ok((name, module_of(value)?)));
                of.update(modules.collect::<Result<Vec<_>, EditError>>()?)?;
            }
            PD(of) => {
                let held = values.into_iter().map(|(name, value)| Ok((name, held_of(value)?)));
                of.update(held.collect::<Result<Vec<_>, EditError>>()?)?;
            }
            _ => return self.no("update"),
        }
        Ok(())
    }

    pub(super) fn setdefault(&mut self, name: &str, value: Value) -> Done {
        match self {
            PD(of) => drop(of.setdefault(name, held_of(value)?)?),
            _ => return self.no("setdefault"),
        }
        Ok(())
    }

    /// Takes out what `key` names, and gives it.
    pub(super) fn pop(&mut self, key: Key) -> Result<Taken, EditError> {
        let one = |module: Box<dyn DynModule>| vec![Planned::from(&*module)];
        let modules = match (&mut *self, key) {
            (Draft::Sequential(of), Key::Slice(slice)) => {
                of.pop_slice(slice)?.values().map(Planned::from).collect()
            }
            (ML(of), Key::Slice(slice)) => {
                of.pop_slice(slice)?.values().map(Planned::from).collect()
            }
            (Draft::Sequential(of), key) => one(of.pop(index(key)?)?),
            (ML(of), key) => one(of.pop(index(key)?)?),
            (MD(of), key) => one(of.pop(&name(key)?)?),
            (PD(of), key) => {
                let name = name(key)?;
                let held = of.pop(&name)?;
                return Ok(Taken { parameters: vec![(name, held)], ..Taken::default() });
            }
            _ => return self.no("pop"),
        };
        Ok(Taken { modules, ..Taken::default() })
    }

    pub(super) fn popitem(&mut self) -> Result<Taken, EditError> {
        match self {
            PD(of) => Ok(Taken { parameters: vec![of.popitem()?], ..Taken::default() }),
            _ => self.no("popitem"),
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Done {
        match (&mut *self, key) {
            (Draft::Sequential(of), Key::Slice(slice)) => of.remove_slice(slice)?,
            (ML(of), Key::Slice(slice)) => of.remove_slice(slice)?,
            (Draft::Sequential(of), key) => of.remove(index(key)?)?,
            (ML(of), key) => of.remove(index(key)?)?,
            (MD(of), key) => of.remove(&name(key)?)?,
            (PD(of), key) => of.remove(&name(key)?)?,
            _ => return self.no("__delitem__"),
        }
        Ok(())
    }

    pub(super) fn clear(&mut self) -> Done {
        match self {
            MD(of) => of.clear(),
            PD(of) => of.clear(),
            _ => return self.no("clear"),
        }
        Ok(())
    }
}

/// Returns the index that a key of a list is.
pub(super) fn index(key: Key) -> Result<isize, EditError> {
    match key {
        Key::Index(index) => Ok(index),
        Key::Name(_) => Err(EditError::NotAnIndex { given: "str" }),
        Key::Slice(_) => Err(EditError::NotAnIndex { given: "slice" }),
    }
}

/// Returns the name that a key of a dictionary is; no entry is named by anything else.
pub(super) fn name(key: Key) -> Result<String, EditError> {
    match key {
        Key::Name(name) => Ok(name),
        Key::Index(index) => Err(ContainerError::Key(index.to_string()).into()),
        Key::Slice(_) => Err(ContainerError::Key("slice".to_owned()).into()),
    }
}

fn module_of(value: Value) -> Result<Box<dyn DynModule>, EditError> {
    match value {
        Value::Module(module) => Ok(module),
        Value::None => Ok(Box::new(NoModule)),
        other => {
            let given = other.typename(Dtype::F32);
            Err(RegistrationError::NotAModuleType { given }.into())
        }
    }
}

fn modules_of(values: Vec<Value>) -> Result<Vec<Box<dyn DynModule>>, EditError> {
    values.into_iter().map(module_of).collect()
}

/// A tensor becomes a parameter, as in torch.
fn held_of(value: Value) -> Result<Held, EditError> {
    match value {
        Value::Parameter { .. } => Ok(Held::New(value)),
        Value::Tensor(numbers) | Value::Buffer { numbers, .. } => {
            Ok(Held::New(Value::Parameter { numbers, requires_grad: true }))
        }
        Value::None | Value::Module(_) | Value::Other(_) => Err(RegistrationError::Kind {
            what: "parameter",
            name: String::new(),
            given: value.typename(Dtype::F32),
            expected: "torch.nn.Parameter or None",
        }
        .into()),
    }
}

fn all_held(values: Vec<Value>) -> Result<Vec<Held>, EditError> {
    values.into_iter().map(held_of).collect()
}
