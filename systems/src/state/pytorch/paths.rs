//! The names of tensors in a pickle.

use std::collections::{HashMap, HashSet};

use super::error::Fault;
use super::objects::TABLES;
use super::value::{Dict, Id, Pickle, Value};

/// Most levels of dictionaries, lists and tuples, or of modules.
const MAX_DEPTH: usize = 200;

/// How often what is in a pickle may be there again by its references, in values and in letters of names.
const REPEATS: u64 = 8;

/// The names of tensors, by the keys on the way to them, as `pytorch_reader` has them.
pub(super) struct Paths<'p> {
    pickle: &'p Pickle,
    first: HashMap<Id, String>,
    known: HashSet<String>,
    values: u64,
    letters: u64,
}

impl<'p> Paths<'p> {
    pub(super) fn new(pickle: &'p Pickle) -> Self {
        let (first, known) = (HashMap::new(), HashSet::new());
        Paths { pickle, first, known, values: 0, letters: 0 }
    }

    /// Finds for each tensor where the file has it first.
    pub(super) fn of(pickle: &'p Pickle) -> Result<HashMap<Id, String>, Fault> {
        let mut paths = Paths::new(pickle);
        paths.walk(pickle.root, &mut String::new(), 0)?;
        Ok(paths.first)
    }

    fn fail<T>(&self, message: &str) -> Result<T, Fault> {
        Err(Fault::Pickle { at: self.pickle.bytes, message: message.to_owned() })
    }

    /// Counts a value that is come to.
    fn enter(&mut self, depth: usize) -> Result<(), Fault> {
        self.values += 1;
        if depth > MAX_DEPTH {
            return self.fail(&format!("expected at most {MAX_DEPTH} levels"));
        }
        if self.values > (self.pickle.values.len() as u64).saturating_mul(REPEATS) {
            return self.fail("values that have several names fill more than the pickle");
        }
        Ok(())
    }

    /// Counts the name of a tensor, which no other may have.
    fn name(&mut self, name: &str) -> Result<(), Fault> {
        self.letters += name.len() as u64;
        if self.letters > self.pickle.bytes.saturating_mul(REPEATS) {
            return self.fail("the names of tensors fill more than the pickle");
        }
        match self.known.insert(name.to_owned()) {
            true => Ok(()),
            false => Err(Fault::Collision { name: name.to_owned() }),
        }
    }

    fn walk(&mut self, id: Id, path: &mut String, depth: usize) -> Result<(), Fault> {
        self.enter(depth)?;
        let pickle = self.pickle;
        match &pickle.values[id] {
            Value::Dict(dict) => {
                dict.iter().try_for_each(|(key, id)| self.below(key, id, path, depth))
            }
            Value::List(items) | Value::Tuple(items) => {
                let mut items = items.iter().enumerate();
                items.try_for_each(|(place, &id)| self.below(&place.to_string(), id, path, depth))
            }
            Value::Tensor(_) => {
                self.name(path)?;
                self.first.entry(id).or_insert_with(|| path.clone());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn below(&mut self, key: &str, id: Id, path: &mut String, depth: usize) -> Result<(), Fault> {
        let length = path.len();
        if depth > 0 {
            path.push('.');
        }
        path.push_str(key);
        self.walk(id, path, depth + 1)?;
        path.truncate(length);
        Ok(())
    }

    /// Lists what the state dict of a module has, in torch's order.
    pub(super) fn module(
        &mut self,
        id: Id,
        prefix: &str,
        depth: usize,
        own: &mut Vec<(String, Id)>,
    ) -> Result<(), Fault> {
        self.enter(depth)?;
        let values = &self.pickle.values;
        let attributes = match values[id] {
            Value::Module(attributes) => values.dict(attributes),
            _ => None,
        };
        let Some(attributes) = attributes else {
            return Err(self.pickle.wrong_type(prefix.trim_end_matches('.'), id, "a module"));
        };
        let transient = match attributes.get("_non_persistent_buffers_set").map(|set| &values[set])
        {
            Some(Value::List(names)) => &names[..],
            _ => &[],
        };
        let is_transient = |name: &str| {
            transient
                .iter()
                .any(|&known| matches!(&values[known], Value::Text(known) if **known == *name))
        };
        for table in TABLES {
            let entries = attributes.get(table).and_then(|table| values.dict(table));
            for (name, id) in entries.into_iter().flat_map(Dict::iter) {
                let is_left_out =
                    matches!(values[id], Value::None) || table == "_buffers" && is_transient(name);
                if is_left_out {
                    continue;
                }
                let name = format!("{prefix}{name}");
                if table == "_modules" {
                    self.module(id, &format!("{name}."), depth + 1, own)?;
                } else {
                    self.name(&name)?;
                    own.push((name, id));
                }
            }
        }
        Ok(())
    }
}
