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

    /// Counts values that are come to.
    fn enter(&mut self, values: usize, depth: usize) -> Result<(), Fault> {
        self.values += values as u64;
        if depth > MAX_DEPTH {
            return self.fail(&format!("expected at most {MAX_DEPTH} levels"));
        }
        if self.values > (self.pickle.values.len() as u64).saturating_mul(REPEATS) {
            return self.fail("values that have several names fill more than the pickle");
        }
        Ok(())
    }

    fn count_letters(&mut self, name: &str) -> Result<(), Fault> {
        self.letters += name.len() as u64;
        match self.letters > self.pickle.bytes.saturating_mul(REPEATS) {
            true => self.fail("the names of tensors fill more than the pickle"),
            false => Ok(()),
        }
    }

    /// Counts the name of a tensor, which no other may have.
    fn name(&mut self, name: &str) -> Result<(), Fault> {
        self.count_letters(name)?;
        match self.known.insert(name.to_owned()) {
            true => Ok(()),
            false => Err(Fault::Collision { name: name.to_owned() }),
        }
    }

    fn walk(&mut self, id: Id, path: &mut String, depth: usize) -> Result<(), Fault> {
        self.enter(1, depth)?;
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
        let values = &self.pickle.values;
        let attributes = match values[id] {
            Value::Module(attributes) => values.dict(attributes),
            _ => None,
        };
        let Some(attributes) = attributes else {
            return Err(self.pickle.wrong_type(prefix.trim_end_matches('.'), id, "a module"));
        };
        let transient = match attributes.get(TRANSIENT).map(|set| &values[set]) {
            Some(Value::List(names)) => &names[..],
            _ => &[],
        };
        let tables = TABLES.map(|table| attributes.get(table).and_then(|table| values.dict(table)));
        let entries = tables.iter().flatten().map(|table| table.len()).sum::<usize>();
        self.enter(1 + attributes.len() + transient.len() + entries, depth)?;
        let transient = transient.iter().filter_map(|&name| match &values[name] {
            Value::Text(name) => Some(&**name),
            _ => None,
        });
        let transient: HashSet<&str> = transient.collect();
        for (table, entries) in TABLES.into_iter().zip(tables) {
            for (name, id) in entries.into_iter().flat_map(Dict::iter) {
                let is_transient = table == "_buffers" && transient.contains(name);
                if is_transient || matches!(values[id], Value::None) {
                    continue;
                }
                let name = format!("{prefix}{name}");
                if table == "_modules" {
                    self.count_letters(&name)?;
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

/// Where a module lists its buffers that are not in its state dict.
const TRANSIENT: &str = "_non_persistent_buffers_set";
