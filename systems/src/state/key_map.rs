//! [`KeyMap`]: other names for what is in a state dict.

use std::collections::HashMap;

use neurarch_components::state::StateDict;

/// Two tensors would have one name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected names that differ, got '{name}' for both '{first}' and '{second}'")]
pub struct KeyMapError {
    /// The name that both would have.
    pub name: String,
    /// The name that one has.
    pub first: String,
    /// The name that the other has.
    pub second: String,
}

/// Rules by which the names of a state dict become those of a model, one after the other.
///
/// A name that no rule fits stays as it is. Names are those of modules, parameters and buffers, and of the modules in
/// the state dict's metadata.
///
/// # Example
///
/// ```
/// use neurarch_systems::state::{KeyMap, StateDict, Tensor};
///
/// let bias = Tensor::new("module.fc.bias", ndarray::array![1.0_f32].view()); // Of a DistributedDataParallel.
/// let keys = KeyMap::new().strip_prefix("module.").rename("fc", "head");
/// let state = keys.apply(&StateDict::from_iter([bias]))?;
/// assert_eq!(state.keys().collect::<Vec<_>>(), ["head.bias"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.modules.utils.consume_prefix_in_state_dict_if_present` for [`strip_prefix`](KeyMap::strip_prefix).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyMap {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    StripPrefix(String),
    Rename(String, String),
}

impl Rule {
    /// Returns the name that a name becomes, if the rule fits it. Of a module, `prefix.` is stripped of `prefix`, too.
    fn apply(&self, name: &str, is_module: bool) -> Option<String> {
        match self {
            Rule::StripPrefix(prefix) => {
                let below = name.strip_prefix(prefix.as_str());
                let whole = (is_module && prefix.strip_suffix('.') == Some(name)).then_some("");
                below.or(whole).map(str::to_owned)
            }
            Rule::Rename(from, to) => match name.strip_prefix(from.as_str())? {
                "" => Some(to.clone()),
                below => below.starts_with('.').then(|| format!("{to}{below}")),
            },
        }
    }
}

impl KeyMap {
    /// Makes one without rules: all names stay.
    pub fn new() -> Self {
        KeyMap::default()
    }

    /// Takes a prefix off the names that have it; it usually ends with a dot.
    #[must_use]
    pub fn strip_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.rules.push(Rule::StripPrefix(prefix.into()));
        self
    }

    /// Gives a module, parameter or buffer another name, and with it all below.
    #[must_use]
    pub fn rename(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.rules.push(Rule::Rename(from.into(), to.into()));
        self
    }

    fn name(&self, name: &str, is_module: bool) -> String {
        self.rules.iter().fold(name.to_owned(), |name, rule| {
            let new = rule.apply(&name, is_module);
            new.unwrap_or(name)
        })
    }

    /// Returns a state dict with the new names, in the same order; numbers are shared. Where the metadata of two modules get one
    /// path, those of the later stay.
    ///
    /// # Errors
    ///
    /// If two tensors would have one name.
    pub fn apply(&self, state: &StateDict) -> Result<StateDict, KeyMapError> {
        let mut known: HashMap<String, &str> = HashMap::new();
        let mut mapped = StateDict::new();
        for tensor in state {
            let name = self.name(&tensor.name, false);
            if let Some(first) = known.insert(name.clone(), &tensor.name) {
                let (first, second) = (first.to_owned(), tensor.name.clone());
                return Err(KeyMapError { name, first, second });
            }
            let mut tensor = tensor.clone();
            tensor.name = name;
            mapped.tensors.push(tensor);
        }
        for (path, local) in &state.metadata {
            let path = self.name(path, true);
            mapped.metadata.retain(|(known, _)| *known != path);
            mapped.metadata.push((path, local.clone()));
        }
        Ok(mapped)
    }
}

#[cfg(test)]
mod tests {
    use neurarch_components::state::Tensor;

    use super::*;

    fn state(names: &[&str]) -> StateDict {
        let tensor = |name: &&str| Tensor::new(*name, ndarray::arr0(1.0_f32).view());
        names.iter().map(tensor).collect()
    }

    #[test]
    fn rules_follow_each_other_and_fit_whole_names() {
        let mut given = state(&["module.fc.weight", "module.fcn.weight", "fc"]);
        given.metadata = vec![
            (String::new(), 1.into()),
            ("module".into(), 2.into()),
            ("module.fc".into(), 3.into()),
        ];
        let keys =
            KeyMap::new().strip_prefix("module.").rename("fc", "head").rename("head.weight", "w");
        let mapped = keys.apply(&given).unwrap();
        assert_eq!(mapped.keys().collect::<Vec<_>>(), ["w", "fcn.weight", "head"]);
        assert_eq!(mapped.metadata, [(String::new(), 2.into()), ("head".into(), 3.into())]);
        assert_eq!(KeyMap::new().apply(&given).unwrap(), given);
    }

    #[test]
    fn names_that_collide_are_an_error() {
        let error = KeyMap::new().strip_prefix("module.").apply(&state(&["fc", "module.fc"]));
        let expected = "expected names that differ, got 'fc' for both 'fc' and 'module.fc'";
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
}
