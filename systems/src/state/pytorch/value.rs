//! What a pickle holds: values in one list, which name each other by their places.

use std::collections::HashSet;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use super::error::Fault;

/// A value's place in its pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(u32);

/// A value. What has several names in the pickle is there once.
#[derive(Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    Tuple(Vec<Id>),
    /// A list, or a set made of one.
    List(Vec<Id>),
    Dict(Dict),
    /// A class or function by its dotted name.
    Global(Arc<str>),
    Storage(Storage),
    Tensor(View),
    /// A module of a whole pickled model, by the dictionary of its attributes.
    Module(Id),
    /// An object of which only the type is known.
    Opaque(Arc<str>),
}

/// A dictionary in the order of its keys; keys that are integers are spelled.
#[derive(Debug, Default)]
pub(super) struct Dict {
    entries: Vec<(Arc<str>, Id)>,
    names: HashSet<Arc<str>>,
    /// The attribute `_metadata`.
    pub metadata: Option<Id>,
    /// What a copy of the entries costs.
    pub weight: u64,
}

impl Dict {
    /// Adds an entry; gives the key back if there is one that is spelled alike.
    pub(super) fn insert(&mut self, key: Arc<str>, value: Id) -> Result<(), Arc<str>> {
        if !self.names.insert(key.clone()) {
            return Err(key);
        }
        self.entries.push((key, value));
        Ok(())
    }

    pub(super) fn get(&self, key: &str) -> Option<Id> {
        self.entries.iter().find(|(known, _)| **known == *key).map(|(_, value)| *value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Id)> {
        self.entries.iter().map(|(key, value)| (&**key, *value))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.iter().map(|(key, _)| key.to_owned()).collect()
    }
}

/// Where the numbers of tensors lie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Storage {
    pub key: Arc<str>,
    /// The class, which says the element type.
    pub class: Arc<str>,
}

/// A tensor: which elements of a storage it has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct View {
    pub storage: Storage,
    /// The element type, if the storage does not say it.
    pub dtype: Option<Arc<str>>,
    pub offset: i64,
    pub shape: Vec<usize>,
    pub stride: Vec<usize>,
}

/// Values, by their places.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<Value>);

impl Values {
    /// Puts a value at the end; `None` if there are more than places.
    pub(super) fn push(&mut self, value: Value) -> Option<Id> {
        let id = Id(self.0.len().try_into().ok()?);
        self.0.push(value);
        Some(id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn dict(&self, id: Id) -> Option<&Dict> {
        match &self[id] {
            Value::Dict(dict) => Some(dict),
            _ => None,
        }
    }
}

impl Index<Id> for Values {
    type Output = Value;

    fn index(&self, id: Id) -> &Value {
        &self.0[id.0 as usize]
    }
}

impl IndexMut<Id> for Values {
    fn index_mut(&mut self, id: Id) -> &mut Value {
        &mut self.0[id.0 as usize]
    }
}

/// What was pickled.
#[derive(Debug)]
pub(super) struct Pickle {
    pub values: Values,
    pub root: Id,
    /// How long the pickle is.
    pub bytes: u64,
}

impl Pickle {
    /// Says that a value under some keys is of another type than expected.
    pub(super) fn wrong_type(&self, name: &str, id: Id, expected: &'static str) -> Fault {
        Fault::Type { name: name.to_owned(), expected, found: self.values[id].type_name() }
    }
}

impl Value {
    /// Spells the value's type.
    pub(super) fn type_name(&self) -> String {
        match self {
            Value::None => "None".to_owned(),
            Value::Bool(_) => "a bool".to_owned(),
            Value::Int(_) => "an int".to_owned(),
            Value::Float(_) => "a float".to_owned(),
            Value::Text(_) => "a str".to_owned(),
            Value::Tuple(_) => "a tuple".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Dict(_) => "a dict".to_owned(),
            Value::Storage(_) => "a storage".to_owned(),
            Value::Tensor(_) => "a tensor".to_owned(),
            Value::Module(_) => "a module".to_owned(),
            Value::Global(name) => format!("the global {name}"),
            Value::Opaque(name) => format!("a {name}"),
        }
    }
}
