//! The group `hooks`: scenarios with logging hooks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::{ArrayD, Axis};
use neurarch::components::hook::{Callback, Gradients, HookError, Loading, StateAt};
use neurarch::hooks::{At, Target};
use neurarch::prelude::*;
use neurarch::systems::execute::step::input_gradients;
use neurarch::systems::state::dict::StateDictError;
use serde_json::{Map, Value, json};

use crate::runner::build::model::Model;
use crate::runner::case::{Case, Checked, Fields, Stop, shape, text};
use crate::runner::compare::{self, Tolerance};
use crate::runner::state;
use crate::runner::tensors::array;

/// Runs a scenario.
pub fn run(case: &Case<'_>) -> Checked {
    let mut scenario = Scenario::new(case)?;
    for action in case.json.list("actions")? {
        scenario.perform(action)?;
    }
    let log = lock(&scenario.shared.log);
    compare::events(&log, case.json.field("expect")?.list("events")?)
}

/// A model, and what has happened to it.
struct Scenario<'a> {
    case: &'a Case<'a>,
    model: Model,
    shared: Shared,
    /// Forward passes that gave outputs.
    forwards: usize,
    backwards: usize,
    tolerance: Tolerance,
}

/// What hooks share with their scenario.
#[derive(Clone, Default)]
struct Shared {
    log: Arc<Mutex<Vec<Value>>>,
    handles: Arc<Mutex<HashMap<String, RemovableHandle>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Scenario<'a> {
    fn new(case: &'a Case<'a>) -> Checked<Self> {
        let mut model = Model::spawn(case.json.field("model")?, case, Dtype::F64)?;
        model.set_state(case, "state")?;
        let tolerance = case.tolerance("f64");
        let shared = Shared::default();
        Ok(Scenario { case, model, shared, forwards: 0, backwards: 0, tolerance })
    }

    fn perform(&mut self, action: &Value) -> Checked {
        match action.text("do")? {
            "register" => self.register(action),
            "remove" => {
                if let Some(handle) = lock(&self.shared.handles).get(action.text("handle")?) {
                    handle.remove();
                }
                Ok(())
            }
            "forward" => self.forward(action.get("requires_grad") != Some(&Value::Bool(false))),
            "backward" => self.backward(),
            "state_dict" => self.state_dict(),
            "load_state_dict" => self.load_state_dict(action),
            other => Err(Stop::Needs(format!("needs {other} with hooks"))),
        }
    }

    fn register(&mut self, action: &Value) -> Checked {
        let name = action.text("handle")?.to_owned();
        let Model { world, root, .. } = &mut self.model;
        let target = match action.text("on")? {
            "*" => Target::All,
            path => Target::Module(world.module_mut(*root)?.at(path)?.id()),
        };
        let options = HookOptions {
            prepend: action.flag("prepend"),
            always_call: action.flag("always_call"),
        };
        let callback = Logging::of(action, self.shared.clone())?.callback()?;
        let handle = world.target_mut(target).register_hook_with(callback, options)?;
        lock(&self.shared.handles).insert(name, handle);
        Ok(())
    }

    fn forward(&mut self, requires_grad: bool) -> Checked {
        let count = self.case.json.get("inputs").and_then(Value::as_u64).unwrap_or(1);
        let inputs = (0..count).map(|input| array(self.case.expect(&format!("input/{input}"))?));
        let inputs: Vec<ArrayD<f64>> = inputs.collect::<Checked<_>>()?;
        let given = inputs.iter().map(|x| match requires_grad {
            true => Input::shared(x.view()).requires_grad(),
            false => Input::shared(x.view()),
        });
        let Model { world, population, .. } = &mut self.model;
        match world
            .population_mut(*population)?
            .forward_any(Arguments::each(given.map(AnyInput::from)))
        {
            Ok(output) => {
                let mut number = 0;
                let folder = format!("output/{}", self.forwards);
                self.forwards += 1;
                self.check_output(&folder, &output, &mut number)
            }
            Err(error) => {
                lock(&self.shared.log).push(json!({ "error": python(&error) }));
                Ok(())
            }
        }
    }

    /// Compares what a forward pass gave, of which `number` tensors have been compared.
    fn check_output(&self, folder: &str, output: &Tree<AnyArray>, number: &mut usize) -> Checked {
        match output {
            Tree::Leaf(AnyArray::F64(y)) => {
                let key = format!("{folder}/{number}");
                *number += 1;
                let y = y.index_axis(Axis(0), 0).to_owned();
                compare::array(&key, &y, self.case.expect(&key)?, self.tolerance)
            }
            Tree::Tuple(items) => {
                items.iter().try_for_each(|item| self.check_output(folder, item, number))
            }
            other => Err(Stop::Differs(format!("output: expected tensors, got {other:?}"))),
        }
    }

    fn backward(&mut self) -> Checked {
        let dy = (0..).map_while(|output| self.case.tensor(&format!("grad_output/{output}")));
        let dy: Vec<ArrayD<f64>> = dy.map(array).collect::<Checked<_>>()?;
        let dy: Vec<_> = dy.iter().map(|dy| Some(Input::shared(dy.view()).into())).collect();
        let Model { world, population, .. } = &mut self.model;
        world.module_mut(*population)?.zero_grad()?;
        if let Err(error) = world.population_mut(*population)?.backward_with(&dy) {
            lock(&self.shared.log).push(json!({ "error": python(&error) }));
            return Ok(());
        }
        let number = self.backwards;
        self.backwards += 1;
        for (input, dx) in input_gradients::<f64>(world, *population)?.into_iter().enumerate() {
            let dx = dx.map(|dx| dx.index_axis_move(Axis(0), 0));
            self.check(&format!("grad_input/{number}/{input}"), dx)?;
        }
        let names = self.model.world.module_mut(self.model.root)?.parameter_names()?;
        let folder = format!("grad/{number}");
        for (name, _) in self.case.below(&folder) {
            if !names.iter().any(|known| known == name) {
                return Err(Stop::Differs(format!("{folder}/{name}: expected a parameter {name}")));
            }
        }
        for name in names {
            let gradient = self.model.world.module_mut(self.model.root)?.gradient::<f64>(&name)?;
            self.check(&format!("{folder}/{name}"), gradient)?;
        }
        Ok(())
    }

    fn state_dict(&mut self) -> Checked {
        let event = match self.model.world.module_mut(self.model.root)?.state_dict() {
            Ok(state) => json!({ "state_dict_keys": state.keys().collect::<Vec<_>>() }),
            Err(StateDictError::Hook(error)) => json!({ "error": ["ValueError", error.message] }),
            Err(error) => return Err(error.into()),
        };
        lock(&self.shared.log).push(event);
        Ok(())
    }

    fn load_state_dict(&mut self, action: &Value) -> Checked {
        let mut given = StateDict::new();
        for entry in action.list("given")? {
            let zeros = ArrayD::<f64>::zeros(shape(&entry[1])?);
            given.insert(Tensor::new(text(&entry[0])?, zeros.view()));
        }
        let options = LoadOptions { strict: action.flag("strict"), ..LoadOptions::default() };
        let event = match self
            .model
            .world
            .module_mut(self.model.root)?
            .load_state_dict_with(&given, options)
        {
            Ok(IncompatibleKeys { missing_keys, unexpected_keys }) => {
                json!({ "missing_keys": missing_keys, "unexpected_keys": unexpected_keys })
            }
            Err(error) => json!({ "error": state::error_of(Some(&error)) }),
        };
        lock(&self.shared.log).push(event);
        Ok(())
    }

    /// Compares a gradient that torch may have left at None.
    fn check(&self, key: &str, got: Option<ArrayD<f64>>) -> Checked {
        match (got, self.case.tensor(key)) {
            (Some(got), Some(want)) => compare::array(key, &got, want, self.tolerance),
            (None, None) => Ok(()),
            (Some(_), None) => Err(Stop::Differs(format!("{key}: expected None, got a gradient"))),
            (None, Some(_)) => Err(Stop::Differs(format!("{key}: expected a gradient, got None"))),
        }
    }
}

/// Says what Python would have raised.
fn python(error: &StepError) -> Value {
    match error {
        StepError::Hook { message, .. } => json!(["ValueError", message]),
        StepError::Trace(error) => json!(["RuntimeError", error.message]),
        other => json!(["RuntimeError", other.to_string()]),
    }
}

/// A hook that logs what it sees, and then has its effect.
struct Logging {
    handle: String,
    kind: String,
    with_kwargs: bool,
    shared: Shared,
    scale: Option<f64>,
    set_kwargs: Vec<(String, f64)>,
    remove: Option<String>,
    raise: Option<String>,
    delete: Option<String>,
    rename: Option<(String, String)>,
    clear: bool,
}

impl Logging {
    fn of(action: &Value, shared: Shared) -> Checked<Self> {
        let mut hook = Logging {
            handle: action.text("handle")?.to_owned(),
            kind: action.text("kind")?.to_owned(),
            with_kwargs: action.flag("with_kwargs"),
            shared,
            scale: None,
            set_kwargs: Vec::new(),
            remove: None,
            raise: None,
            delete: None,
            rename: None,
            clear: false,
        };
        let effects = action.get("effect").and_then(Value::as_object);
        for (effect, value) in effects.into_iter().flatten() {
            let text = || value.as_str().map(str::to_owned);
            let is_known = match effect.as_str() {
                "scale" => {
                    hook.scale = value.as_f64();
                    hook.scale.is_some()
                }
                "set_kwargs" => {
                    let all = value.as_object().into_iter().flatten();
                    let numbers = all.map(|(name, value)| Some((name.clone(), value.as_f64()?)));
                    let numbers: Option<Vec<_>> = numbers.collect();
                    hook.set_kwargs = numbers.unwrap_or_default();
                    !hook.set_kwargs.is_empty()
                }
                "remove" => {
                    hook.remove = text();
                    hook.remove.is_some()
                }
                "raise" => {
                    hook.raise = text();
                    hook.raise.is_some()
                }
                "delete" => {
                    hook.delete = text();
                    hook.delete.is_some()
                }
                "rename" => {
                    let pair = value[0].as_str().zip(value[1].as_str());
                    hook.rename = pair.map(|(old, new)| (old.to_owned(), new.to_owned()));
                    hook.rename.is_some()
                }
                "clear" => {
                    hook.clear = value == &Value::Bool(true);
                    hook.clear
                }
                _ => false,
            };
            if !is_known {
                let what = format!("needs hooks with the effect {effect}: {value}");
                return Err(Stop::Needs(what));
            }
        }
        Ok(hook)
    }

    /// Makes what is registered.
    fn callback(self) -> Checked<Callback> {
        Ok(match self.kind.as_str() {
            "forward_pre" => {
                Callback::ForwardPre(Box::new(move |at, arguments| self.forward_pre(at, arguments)))
            }
            "forward" => Callback::Forward(Box::new(move |at, arguments, output| {
                self.forward(at, arguments, output)
            })),
            "backward_pre" => {
                Callback::BackwardPre(Box::new(move |at, dy| self.backward_pre(at, dy)))
            }
            "backward" => Callback::Backward(Box::new(move |at, dx, dy| self.backward(at, dx, dy))),
            "state_dict_pre" => {
                Callback::StateDictPre(Box::new(move |at| self.log_state(at, Vec::new())))
            }
            "state_dict_post" => {
                Callback::StateDictPost(Box::new(move |at, state| self.state_dict_post(at, state)))
            }
            "load_state_dict_pre" => {
                Callback::LoadStateDictPre(Box::new(move |at, state, loading| {
                    self.load_state_dict_pre(at, state, loading)
                }))
            }
            "load_state_dict_post" => Callback::LoadStateDictPost(Box::new(move |at, keys| {
                self.load_state_dict_post(at, keys)
            })),
            other => return Err(Stop::Needs(format!("needs {other} hooks"))),
        })
    }

    fn log(&self, at: &At<'_>, seen: Vec<(&str, Value)>) -> Result<(), HookError> {
        self.log_at(at.path, at.module, seen)
    }

    fn log_state(&self, at: &StateAt<'_>, mut seen: Vec<(&str, Value)>) -> Result<(), HookError> {
        seen.push(("prefix", at.prefix.into()));
        self.log_at(at.path, at.module, seen)
    }

    /// Logs a call, and has the effects that all kinds have.
    fn log_at(&self, path: &str, class: &str, seen: Vec<(&str, Value)>) -> Result<(), HookError> {
        let mut event = Map::new();
        event.insert("hook".into(), self.handle.as_str().into());
        event.insert("kind".into(), self.kind.as_str().into());
        event.insert("module".into(), path.into());
        event.insert("class".into(), class.into());
        event.extend(seen.into_iter().map(|(name, value)| (name.to_owned(), value)));
        lock(&self.shared.log).push(event.into());
        if let Some(name) = &self.remove
            && let Some(handle) = lock(&self.shared.handles).get(name)
        {
            handle.remove();
        }
        match &self.raise {
            Some(text) => Err(text.as_str().into()),
            None => Ok(()),
        }
    }

    fn log_call(
        &self,
        at: &At<'_>,
        arguments: &Arguments,
        output: Option<Value>,
    ) -> Result<(), HookError> {
        let inputs = arguments.positional.iter().map(|input| tree(at, input));
        let mut seen = vec![("inputs", inputs.collect::<Result<Value, _>>()?)];
        if self.with_kwargs {
            let keyword = arguments.keyword.iter();
            let keyword = keyword.map(|(name, value)| Ok((name.clone(), tree(at, value)?)));
            let keyword = keyword.collect::<Result<Map<_, _>, HookError>>()?;
            seen.push(("kwargs", keyword.into()));
        }
        seen.extend(output.map(|output| ("output", output)));
        self.log(at, seen)
    }

    fn forward_pre(
        &self,
        at: &At<'_>,
        arguments: &Arguments,
    ) -> Result<Option<Arguments>, HookError> {
        self.log_call(at, arguments, None)?;
        if self.scale.is_none() && self.set_kwargs.is_empty() {
            return Ok(None);
        }
        let Arguments { positional, keyword } = arguments.clone();
        let positional = match self.scale {
            Some(by) => positional.into_iter().map(|input| input.map(&mut |x| x * by)).collect(),
            None => positional,
        };
        let given = Arguments { positional, keyword };
        let set = self.set_kwargs.iter();
        Ok(Some(set.fold(given, |all, (name, value)| all.with(name.as_str(), *value))))
    }

    fn forward(
        &self,
        at: &At<'_>,
        arguments: &Arguments,
        output: Option<&Tree>,
    ) -> Result<Option<Tree>, HookError> {
        let seen = match output {
            None => Value::Null,
            Some(output) => {
                let items = output.clone().into_items();
                items.iter().map(|item| tree(at, item)).collect::<Result<Value, _>>()?
            }
        };
        self.log_call(at, arguments, Some(seen))?;
        Ok(self.scale.zip(output).map(|(by, output)| output.clone().map(&mut |x| x * by)))
    }

    fn backward_pre(
        &self,
        at: &At<'_>,
        dy: &[Option<Var>],
    ) -> Result<Option<Gradients>, HookError> {
        self.log(at, vec![("grad_output", tensors(at, dy)?)])?;
        Ok(self.scaled(dy))
    }

    fn backward(
        &self,
        at: &At<'_>,
        dx: &[Option<Var>],
        dy: &[Option<Var>],
    ) -> Result<Option<Gradients>, HookError> {
        self.log(at, vec![("grad_input", tensors(at, dx)?), ("grad_output", tensors(at, dy)?)])?;
        Ok(self.scaled(dx))
    }

    fn state_dict_post(&self, at: &StateAt<'_>, state: &mut StateDict) -> Result<(), HookError> {
        self.log_state(at, vec![("keys", keys(state))])?;
        if let Some(key) = &self.delete {
            state.remove(key);
        }
        Ok(())
    }

    fn load_state_dict_pre(
        &self,
        at: &StateAt<'_>,
        state: &mut StateDict,
        loading: &Loading<'_>,
    ) -> Result<(), HookError> {
        self.log_state(at, vec![("keys", keys(state)), ("strict", loading.strict.into())])?;
        if let Some((old, new)) = &self.rename {
            state.rename(old, new.as_str());
        }
        Ok(())
    }

    fn load_state_dict_post(
        &self,
        at: &StateAt<'_>,
        keys: &mut IncompatibleKeys,
    ) -> Result<(), HookError> {
        let (missing, unexpected) = (keys.missing_keys.clone(), keys.unexpected_keys.clone());
        let seen = vec![("missing_keys", missing.into()), ("unexpected_keys", unexpected.into())];
        self.log_at(at.path, at.module, seen)?;
        if self.clear {
            *keys = IncompatibleKeys::default();
        }
        Ok(())
    }

    fn scaled(&self, gradients: &[Option<Var>]) -> Option<Gradients> {
        let by = self.scale?;
        Some(gradients.iter().map(|gradient| gradient.as_ref().map(|g| g * by)).collect())
    }
}

/// Lists the keys of a state dict.
fn keys(state: &StateDict) -> Value {
    state.keys().map(Value::from).collect()
}

/// Describes a tensor.
fn tensor(at: &At<'_>, x: &Var) -> Result<Value, HookError> {
    let sum = at.array::<f64>(x)?.sum();
    let shape: Vec<usize> = x.shape().iter().copied().collect();
    Ok(json!({ "shape": shape, "sum": sum }))
}

/// Describes gradients.
fn tensors(at: &At<'_>, of: &[Option<Var>]) -> Result<Value, HookError> {
    of.iter().map(|x| x.as_ref().map_or(Ok(Value::Null), |x| tensor(at, x))).collect()
}

/// Describes an argument or output.
fn tree(at: &At<'_>, of: &Tree) -> Result<Value, HookError> {
    Ok(match of {
        Tree::None => Value::Null,
        Tree::Leaf(x) => tensor(at, x)?,
        Tree::Packed(packed) => tensor(at, &packed.data)?,
        Tree::Number(number) => json!(number),
        Tree::Flag(flag) => json!(flag),
        Tree::Tuple(items) => items.iter().map(|item| tree(at, item)).collect::<Result<_, _>>()?,
        Tree::Dict(items) => {
            let items = items.iter().map(|(name, item)| Ok((name.clone(), tree(at, item)?)));
            Value::Object(items.collect::<Result<_, HookError>>()?)
        }
    })
}
