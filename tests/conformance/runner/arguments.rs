//! Constructors' arguments: keyword arguments of Python in JSON.

use serde_json::Value;

use ndarray::ArrayD;

use crate::runner::case::{Case, Checked, Stop};
use crate::runner::tensors::numbers;

/// The arguments of one constructor. What is absent has the default; what nobody reads is an argument that
/// neurarch does not have.
pub struct Arguments<'a> {
    /// The class.
    pub class: &'a str,
    case: &'a Case<'a>,
    json: Option<&'a Value>,
    read: Vec<&'static str>,
}

impl<'a> Arguments<'a> {
    /// Takes the `args` of a model spec in a case.
    pub fn new(class: &'a str, json: Option<&'a Value>, case: &'a Case<'a>) -> Self {
        Arguments { class, case, json, read: Vec::new() }
    }

    /// Gives an argument as it is; `None` if it is absent.
    pub fn get(&mut self, name: &'static str) -> Option<&'a Value> {
        self.read.push(name);
        self.json?.get(name)
    }

    /// Reads an argument, or gives its default.
    fn or<T>(
        &mut self,
        name: &'static str,
        default: Option<T>,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Checked<T> {
        let class = self.class;
        match (self.get(name), default) {
            (Some(value), _) => {
                read(value).ok_or_else(|| Stop::Needs(format!("needs {class} with {name}={value}")))
            }
            (None, Some(default)) => Ok(default),
            (None, None) => Err(Stop::Differs(format!("the case has no {name} for {class}"))),
        }
    }

    /// Reads a size that has to be there.
    pub fn size(&mut self, name: &'static str) -> Checked<usize> {
        self.or(name, None, |value| value.as_u64().map(|size| size as usize))
    }

    /// Reads an axis.
    pub fn axis(&mut self, name: &'static str, default: Option<isize>) -> Checked<isize> {
        self.or(name, default, |value| value.as_i64().map(|axis| axis as isize))
    }

    /// Reads a number.
    pub fn number(&mut self, name: &'static str, default: f64) -> Checked<f64> {
        self.or(name, Some(default), number)
    }

    /// Reads a flag.
    pub fn flag(&mut self, name: &'static str, default: bool) -> Checked<bool> {
        self.or(name, Some(default), Value::as_bool)
    }

    /// Reads a word.
    pub fn word(&mut self, name: &'static str, default: &str) -> Checked<String> {
        self.or(name, Some(default.to_owned()), |value| value.as_str().map(str::to_owned))
    }

    /// Reads a number that may be `None`.
    pub fn optional_number(&mut self, name: &'static str) -> Checked<Option<f64>> {
        match self.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.number(name, 0.0).map(Some),
        }
    }

    /// Reads a tensor of the case that may be `None`.
    pub fn tensor(&mut self, name: &'static str) -> Checked<Option<ArrayD<f64>>> {
        let Some(value) = self.get(name).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let key = value.get("$tensor").and_then(Value::as_str);
        let key =
            key.ok_or_else(|| Stop::Needs(format!("needs {} with {name}={value}", self.class)))?;
        numbers(self.case.expect(&format!("ctor/{key}"))?).map(Some)
    }

    /// Gives an argument unless it is absent or `None`.
    pub fn given(&mut self, name: &'static str) -> Option<&'a Value> {
        self.get(name).filter(|value| !value.is_null())
    }

    /// Passes over arguments that say how torch computes, not what.
    pub fn pass_over(&mut self, names: &[&'static str]) {
        self.read.extend(names);
    }

    /// Checks that every argument was read.
    pub fn end(&self) -> Checked {
        let all = self.json.and_then(Value::as_object).into_iter().flatten();
        match all.map(|(name, _)| name).find(|name| !self.read.contains(&name.as_str())) {
            Some(name) => Err(Stop::Needs(format!("needs {} with {name}", self.class))),
            None => Ok(()),
        }
    }
}

/// Reads a number, which may be no finite one.
pub fn number(value: &Value) -> Option<f64> {
    match value.get("$float") {
        Some(word) => word.as_str()?.parse().ok(),
        None => value.as_f64(),
    }
}
