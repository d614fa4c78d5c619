//! State dicts of torch's optimizers.

use std::collections::{BTreeMap, HashMap};

use ndarray::arr0;
use neurarch_components::optimizer::DynOptimizer;
use neurarch_components::state::Tensor;
use neurarch_kernels::ir::dtype::Dtype;

use super::error::Fault;
use super::value::{Id, Value};
use super::{PytorchError, PytorchFile, tensors};
use crate::optim::state_dict::{OptimizerStateDict, OptimizerStateError, ParamGroup};

/// What torch has as one tuple and an optimizer here as scalar slots.
const TUPLES: [(&str, &[&str]); 5] = [
    ("betas", &["beta1", "beta2"]),
    ("etas", &["etaminus", "etaplus"]),
    ("step_sizes", &["step_size_min", "step_size_max"]),
    ("eps", &["eps1", "eps2"]),
    ("ns_coefficients", &["a", "b", "c"]),
];

impl PytorchFile {
    /// Reads what `optimizer.state_dict()` gave, under a key, for a model whose own state is `like`.
    ///
    /// The file does not say of which type an optimizer is, so those of `like` are taken, with their flags; their numbers
    /// (`lr`, `betas`, …) and all states are the file's.
    ///
    /// # Errors
    ///
    /// If there is no such key, what is there is no state of an optimizer, there are more or fewer groups than in `like`,
    /// an optimizer of `like` keeps no state of a name, such as `max_exp_avg_sq` without `amsgrad`, or as
    /// [`state_dict`](PytorchFile::state_dict).
    ///
    /// # Example
    ///
    /// ```no_run
    /// # use bevy_ecs::prelude::*;
    /// use neurarch_systems::optim::state_dict::{load_optimizer_state_dict, optimizer_state_dict};
    /// # use neurarch_systems::state::pytorch::PytorchFile;
    ///
    /// # fn load(world: &mut World, model: Entity) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = PytorchFile::open("checkpoint.pt")?;
    /// let own = optimizer_state_dict(world, model)?;
    /// load_optimizer_state_dict(world, model, &file.optimizer_state_dict("optimizer", &own)?)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Source: `optimizer.load_state_dict(torch.load(path)["optimizer"])`. There the flags come from the file.
    pub fn optimizer_state_dict(
        &self,
        key: &str,
        like: &OptimizerStateDict,
    ) -> Result<OptimizerStateDict, PytorchError> {
        self.read_optimizer(key, like).map_err(|fault| self.failed(fault))
    }

    fn read_optimizer(
        &self,
        key: &str,
        like: &OptimizerStateDict,
    ) -> Result<OptimizerStateDict, Fault> {
        let dict = self.under(key)?;
        let groups = self.entry(dict, key, "param_groups")?;
        let Value::List(groups) = &self.pickle.values[groups] else {
            return Err(self.pickle.wrong_type("param_groups", groups, "a list"));
        };
        if groups.len() != like.param_groups.len() {
            return Err(Fault::Optimizer(OptimizerStateError::Groups));
        }
        let groups = groups.iter().zip(&like.param_groups);
        let param_groups = groups.map(|(&group, like)| self.group(group, like));
        let param_groups = param_groups.collect::<Result<Vec<_>, _>>()?;
        let state = self.states(self.entry(dict, key, "state")?, &param_groups)?;
        Ok(OptimizerStateDict { state, param_groups })
    }

    /// Returns what a dictionary has under a key.
    fn entry(&self, dict: Id, name: &str, key: &str) -> Result<Id, Fault> {
        let found = self.pickle.values.dict(dict);
        let found = found.ok_or_else(|| self.pickle.wrong_type(name, dict, "a dict"))?;
        found.get(key).ok_or_else(|| Fault::Key { key: key.to_owned(), keys: found.keys() })
    }

    /// Reads a group: the indices of its parameters, and the numbers of its optimizer.
    fn group(&self, group: Id, like: &ParamGroup) -> Result<ParamGroup, Fault> {
        let values = &self.pickle.values;
        let listed = self.entry(group, "param_groups", "params")?;
        let index = |id: &Id| match values[*id] {
            Value::Int(index) => usize::try_from(index).ok(),
            _ => None,
        };
        let params = match &values[listed] {
            Value::List(params) => params.iter().map(index).collect(),
            _ => None,
        };
        let params =
            params.ok_or_else(|| self.pickle.wrong_type("params", listed, "a list of indices"))?;
        let mut optimizer = like.optimizer.clone_box();
        for (name, id) in values.dict(group).into_iter().flat_map(|dict| dict.iter()) {
            let slots =
                TUPLES.iter().find(|(tuple, _)| *tuple == name).map_or(&[][..], |(_, of)| of);
            let numbers = match &values[id] {
                Value::Tuple(items) | Value::List(items) => {
                    slots.iter().copied().zip(items.iter().copied()).collect()
                }
                _ => vec![(name, id)],
            };
            for (slot, id) in numbers {
                if let Some(slot) = optimizer.scalar_mut(slot)
                    && let Some(number) = self.number(name, id)?
                {
                    *slot = number;
                }
            }
        }
        let (number, param_names) = (like.number, like.param_names.clone());
        Ok(ParamGroup { number, optimizer, params, param_names })
    }

    /// Reads a number, which may be a tensor; `None` for torch's `None`.
    fn number(&self, name: &str, id: Id) -> Result<Option<f64>, Fault> {
        Ok(Some(match self.pickle.values[id] {
            Value::None => return Ok(None),
            Value::Bool(truth) => f64::from(u8::from(truth)),
            Value::Int(number) => number as f64,
            Value::Float(number) => number,
            Value::Tensor(_) => {
                let read = self.tensors(vec![(name.to_owned(), id)])?;
                let number = read[0].cast(Dtype::F64).to_array::<f64>();
                let number = number.filter(|numbers| numbers.len() == 1);
                let wrong = || self.pickle.wrong_type(name, id, "a number");
                *number.as_ref().and_then(|numbers| numbers.first()).ok_or_else(wrong)?
            }
            _ => return Err(self.pickle.wrong_type(name, id, "a number")),
        }))
    }

    fn tensors(&self, of: Vec<(String, Id)>) -> Result<Vec<Tensor>, Fault> {
        let wanted = of.into_iter().map(|(name, id)| self.wanted(name, id));
        tensors::read(&self.reader, wanted.collect::<Result<Vec<_>, _>>()?, self.file_bytes)
    }

    /// Reads the states of all parameters, by their indices.
    fn states(
        &self,
        state: Id,
        groups: &[ParamGroup],
    ) -> Result<BTreeMap<usize, Vec<Tensor>>, Fault> {
        let values = &self.pickle.values;
        let of_all =
            values.dict(state).ok_or_else(|| self.pickle.wrong_type("state", state, "a dict"))?;
        let (mut read, mut later) = (BTreeMap::<usize, Vec<Tensor>>::new(), Vec::new());
        let mut owners = Vec::new();
        let by_index =
            groups.iter().flat_map(|group| group.params.iter().map(move |&index| (index, group)));
        let by_index: HashMap<usize, &ParamGroup> = by_index.collect();
        for (spelled, of) in of_all.iter() {
            let index = spelled.parse::<usize>().ok();
            let owner = index.and_then(|index| Some((index, &*by_index.get(&index)?.optimizer)));
            // torch lets a parameter that no group has keep its state.
            let Some((index, optimizer)) = owner else { continue };
            let own =
                values.dict(of).ok_or_else(|| self.pickle.wrong_type(spelled, of, "a dict"))?;
            let states = read.entry(index).or_default();
            for (name, id) in own.iter() {
                match values[id] {
                    // As of an SGD without momentum.
                    Value::None => continue,
                    _ => check_name(index, name, optimizer)?,
                }
                match values[id] {
                    Value::Tensor(_) => {
                        later.push((name.to_owned(), id));
                        owners.push(index);
                    }
                    _ => {
                        let number = self.number(name, id)?.unwrap_or_default() as f32;
                        states.push(Tensor::new(name, arr0(number).view()));
                    }
                }
            }
        }
        for (index, tensor) in owners.into_iter().zip(self.tensors(later)?) {
            read.entry(index).or_default().push(tensor);
        }
        read.retain(|_, states| !states.is_empty());
        Ok(read)
    }
}

/// Checks that an optimizer keeps a state of that name.
fn check_name(index: usize, name: &str, optimizer: &dyn DynOptimizer) -> Result<(), Fault> {
    // Some states have other names where a parameter has several axes.
    let entries = [&[1][..], &[1, 1]].into_iter().flat_map(|shape| {
        let own = 0..optimizer.states().len();
        own.filter_map(move |state| Some(optimizer.state_entry(state, shape)?.name))
    });
    let mut names: Vec<_> = entries.chain(["step"]).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    match names.iter().any(|known| known == name) {
        true => Ok(()),
        false => Err(Fault::State { index, name: name.to_owned(), names }),
    }
}
