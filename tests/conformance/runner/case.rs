//! Cases: reading the files of a group, and what can become of a case.

use std::fs;
use std::path::{Path, PathBuf};

use neurarch::state::safetensors::SafetensorsError;
use serde_json::Value;

use crate::runner::compare::Tolerance;
use crate::runner::tensors::Tensors;

/// The groups of the format, in the order of its description.
const GROUPS: [&str; 6] = ["modules", "init", "optim", "hooks", "state", "amp"];

/// The folder or a file in it is not as the format says.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", .path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error(transparent)]
    Tensors(#[from] SafetensorsError),
    #[error("{}: {what}", .path.display())]
    Format { path: PathBuf, what: String },
}

/// Why a case did not pass.
#[derive(Debug)]
pub enum Stop {
    /// Something came that was not expected.
    Differs(String),
    /// The case needs what neurarch does not have.
    Needs(String),
}

/// What a step of a case gives.
pub type Checked<T = ()> = Result<T, Stop>;

/// An error where none was expected.
impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Stop::Differs(error.to_string())
    }
}

/// The two files of a group.
pub struct Group {
    pub name: String,
    cases: Vec<Value>,
    tensors: Tensors,
    tolerance: Value,
}

/// A case of a group.
pub struct Case<'a> {
    pub group: &'a Group,
    pub id: &'a str,
    pub json: &'a Value,
}

/// Lists the groups that a folder has.
pub fn groups_in(dir: &Path) -> Result<Vec<String>, Unusable> {
    let failed = |source| Unusable::Io { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        let Some(name) = name.filter(|_| path.extension().is_some_and(|e| e == "json")) else {
            continue;
        };
        // Another list may lie beside the groups; one of the format's groups is missed without its tensors.
        if GROUPS.contains(&name) || path.with_extension("safetensors").exists() {
            names.push(name.to_owned());
        }
    }
    let rank = |name: &String| GROUPS.iter().position(|known| known == name);
    names.sort_by_key(|name| (rank(name).unwrap_or(GROUPS.len()), name.clone()));
    match names.is_empty() {
        true => {
            Err(Unusable::Format { path: dir.to_owned(), what: "expected GROUP.json files".into() })
        }
        false => Ok(names),
    }
}

impl Group {
    /// Reads `NAME.json` and `NAME.safetensors`.
    pub fn read(dir: &Path, name: &str) -> Result<Self, Unusable> {
        let path = dir.join(format!("{name}.json"));
        let text = fs::read(&path);
        let text = text.map_err(|source| Unusable::Io { path: path.clone(), source })?;
        let json: Result<Value, _> = serde_json::from_slice(&text);
        let mut json = json.map_err(|source| Unusable::Json { path: path.clone(), source })?;
        let wrong = |what: &str| Unusable::Format { path: path.clone(), what: what.to_owned() };
        let Some(Value::Array(cases)) = json.get_mut("cases").map(Value::take) else {
            return Err(wrong("expected a list of \"cases\""));
        };
        if let Some(number) = cases.iter().position(|case| case["id"].as_str().is_none()) {
            return Err(wrong(&format!("case {number} has no \"id\"")));
        }
        if json.get("count").is_some_and(|count| count.as_u64() != Some(cases.len() as u64)) {
            return Err(wrong(&format!("\"count\" is not the number of cases, {}", cases.len())));
        }
        let tensors = Tensors::read(&dir.join(format!("{name}.safetensors")))?;
        let tolerance = json["tolerance"].take();
        Ok(Group { name: name.to_owned(), cases, tensors, tolerance })
    }

    /// Lists the cases.
    pub fn cases(&self) -> impl Iterator<Item = Case<'_>> {
        let with_id = self.cases.iter().filter_map(|json| Some((json["id"].as_str()?, json)));
        with_id.map(|(id, json)| Case { group: self, id, json })
    }
}

impl<'a> Case<'a> {
    /// Gives a tensor; the key is without the case's id.
    pub fn tensor(&self, key: &str) -> Option<&'a neurarch::state::safetensors::Tensor> {
        self.group.tensors.get(&format!("{}/{key}", self.id))
    }

    /// Gives a tensor that has to be there.
    pub fn expect(&self, key: &str) -> Checked<&'a neurarch::state::safetensors::Tensor> {
        self.tensor(key).ok_or_else(|| Stop::Differs(format!("the case has no tensor {key}")))
    }

    /// Lists the tensors below a folder of keys, each with the rest of its key.
    pub fn below(&self, folder: &str) -> Vec<(&'a str, &'a neurarch::state::safetensors::Tensor)> {
        self.group.tensors.below(&format!("{}/{folder}/", self.id))
    }

    /// Gives the tolerance for numbers of a dtype.
    pub fn tolerance(&self, dtype: &str) -> Tolerance {
        let own = self.json.get("tolerance");
        let of = own.unwrap_or(&self.group.tolerance);
        Tolerance::of(of.get(dtype).unwrap_or(of), dtype)
    }
}

/// Fields of a JSON object that have to be there.
pub trait Fields {
    /// Gives a field.
    fn field(&self, name: &str) -> Checked<&Value>;
    /// Gives a text.
    fn text(&self, name: &str) -> Checked<&str>;
    /// Gives a list; one that is absent is empty.
    fn list(&self, name: &str) -> Checked<&[Value]>;
    /// Gives a flag; one that is absent is false.
    fn flag(&self, name: &str) -> bool;
}

impl Fields for Value {
    fn field(&self, name: &str) -> Checked<&Value> {
        let missing = || Stop::Differs(format!("the case has no field \"{name}\""));
        self.get(name).ok_or_else(missing)
    }

    fn text(&self, name: &str) -> Checked<&str> {
        text(self.field(name)?)
    }

    fn list(&self, name: &str) -> Checked<&[Value]> {
        match self.get(name) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(Stop::Differs(format!("\"{name}\" is no list: {other}"))),
        }
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name) == Some(&Value::Bool(true))
    }
}

/// Reads a text.
pub fn text(value: &Value) -> Checked<&str> {
    value.as_str().ok_or_else(|| Stop::Differs(format!("expected a text in the case, got {value}")))
}

/// Reads a shape.
pub fn shape(value: &Value) -> Checked<Vec<usize>> {
    let wrong = || Stop::Differs(format!("expected a shape in the case, got {value}"));
    let sizes = value.as_array().ok_or_else(wrong)?.iter();
    sizes.map(|size| Ok(size.as_u64().ok_or_else(wrong)? as usize)).collect()
}
