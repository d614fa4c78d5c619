//! Cases of the kind `registration`: what can be registered, assigned and found in a live module.

use ndarray::array;
use neurarch::components::containers::ContainerError;
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::edit::lookup::LookupError;
use neurarch::systems::edit::registration::RegistrationError;
use serde_json::{Value as Json, json};

use crate::runner::build::model::Model;
use crate::runner::case::{Case, Checked, Fields, Stop, text};
use crate::runner::compare;

/// torch's exception and its text; `None` if there is none.
type Raised = Option<(String, String)>;

/// Runs a case.
pub fn run(case: &Case<'_>) -> Checked {
    if case.json.flag("no_init") {
        return Err(Stop::Needs("needs a module whose constructor was never called".into()));
    }
    let Model { mut world, root, .. } = Model::spawn_module(&BareModule::new(), Dtype::F32)?;
    let mut errors = Vec::new();
    for step in case.json.list("steps")? {
        let value = step.get(2).filter(|value| !value.is_null());
        let value = value.map(text).transpose()?;
        let raised = perform(&mut world, root, text(&step[0])?, text(&step[1])?, value)?;
        errors.push(raised.map_or(Json::Null, |(exception, text)| json!([exception, text])));
    }
    let expected = case.json.field("expect")?;
    let want = expected.list("errors")?;
    compare::equal("number of steps", &errors.len(), &want.len())?;
    for (number, (got, want)) in errors.iter().zip(want).enumerate() {
        compare::json(&format!("error of step {number}"), got, want)?;
    }
    let lists = [
        (
            "state_dict",
            world.module_mut(root)?.state_dict()?.keys().map(str::to_owned).collect::<Vec<_>>(),
        ),
        (
            "parameters",
            world.module_mut(root)?.named_parameters()?.into_iter().map(|of| of.name).collect(),
        ),
        (
            "buffers",
            world.module_mut(root)?.named_buffers()?.into_iter().map(|of| of.name).collect(),
        ),
        (
            "children",
            world.module_mut(root)?.named_children()?.into_iter().map(|(name, _)| name).collect(),
        ),
    ];
    lists.into_iter().try_for_each(|(what, got)| compare::json(what, &got.into(), &expected[what]))
}

/// Makes a value as the format names it.
fn value(kind: Option<&str>) -> Checked<Value> {
    let numbers = array![0.5_f32, 1.5];
    Ok(match kind {
        Some("parameter") => Value::parameter(numbers.view()),
        // A product of a parameter is a tensor that is none.
        Some("tensor" | "nonleaf") => Value::tensor(numbers.view()),
        Some("module") => Value::module(Linear::new(2, 2)),
        Some("string") => Value::Other("str".into()),
        Some("number") => Value::Other("int".into()),
        Some("none") | None => Value::None,
        Some(other) => return Err(Stop::Needs(format!("needs the value {other}"))),
    })
}

/// Performs a step.
fn perform(
    world: &mut World,
    module: Entity,
    operation: &str,
    name: &str,
    kind: Option<&str>,
) -> Checked<Raised> {
    let name = match name {
        "~" => "",
        "$none" | "$int" => return Err(Stop::Needs("needs names that are no text".into())),
        name => name,
    };
    let given = value(kind)?;
    Ok(match operation {
        "register_parameter" => refused(world.module_mut(module)?.register_parameter(name, given)),
        "register_buffer" => refused(world.module_mut(module)?.register_buffer(name, given, true)),
        "add_module" => refused(world.module_mut(module)?.add_module(name, given)),
        "register_module" => refused(world.module_mut(module)?.register_module(name, given)),
        "setattr" => refused(world.module_mut(module)?.setattr(name, given)),
        "delattr" => refused(world.module_mut(module)?.delattr(name)),
        "getattr" => refused(world.module_mut(module)?.getattr(name)),
        "get_submodule" => not_found(world.module_mut(module)?.get_submodule(name)),
        "get_parameter" => not_found(world.module_mut(module)?.get_parameter(name)),
        "get_buffer" => not_found(world.module_mut(module)?.get_buffer(name)),
        "ModuleList" | "Sequential" | "ModuleDict" | "ParameterList" => {
            return container(operation, name, kind.map(|_| given));
        }
        other => return Err(Stop::Needs(format!("needs the operation {other}"))),
    })
}

fn refused<T>(result: Result<T, RegistrationError>) -> Raised {
    result.err().map(|error| (error.exception().to_owned(), error.to_string()))
}

fn not_found<T>(result: Result<T, LookupError>) -> Raised {
    result.err().map(|error| ("AttributeError".to_owned(), error.to_string()))
}

fn refused_by_container<T>(result: Result<T, ContainerError>) -> Raised {
    result.err().map(|error| match error {
        ContainerError::Index(_) | ContainerError::InsertIndex(_) => {
            ("IndexError".to_owned(), error.to_string())
        }
        ContainerError::Key(key) => ("KeyError".to_owned(), key),
        ContainerError::Name(text) => ("KeyError".to_owned(), text),
        ContainerError::Attribute { .. } => ("AttributeError".to_owned(), error.to_string()),
        other => ("ValueError".to_owned(), other.to_string()),
    })
}

/// Indexes a new container, or assigns to it.
fn container(class: &str, key: &str, given: Option<Value>) -> Checked<Raised> {
    let index = || {
        let index = key.parse::<isize>();
        index.map_err(|_| Stop::Needs(format!("needs {class} with the index {key}")))
    };
    let child = || Linear::new(2, 2);
    let (found, spawned) = match class {
        "ModuleList" => {
            let list = ModuleList::new().push(child()).push(child());
            (refused_by_container(list.get(index()?)), Model::spawn_module(&list, Dtype::F32)?)
        }
        "Sequential" => {
            let list = Sequential::new().push(child()).push(child());
            (refused_by_container(list.get(index()?)), Model::spawn_module(&list, Dtype::F32)?)
        }
        "ModuleDict" => {
            let dict = ModuleDict::new().push_named("a", child());
            (refused_by_container(dict.get(key)), Model::spawn_module(&dict, Dtype::F32)?)
        }
        _ => {
            let list = ParameterList::new().push(Parameter::zeros([2]));
            let found = refused_by_container(list.get(index()?));
            return match given {
                Some(Value::Parameter { .. } | Value::Tensor(_)) if found.is_none() => {
                    let Model { mut world, root, .. } = Model::spawn_module(&list, Dtype::F32)?;
                    world.module_mut(root)?.container().set(index()?, Parameter::zeros([2]))?;
                    Ok(None)
                }
                Some(_) if found.is_none() => {
                    Err(Stop::Needs("needs a ParameterList of something else".into()))
                }
                _ => Ok(found),
            };
        }
    };
    let Some(given) = given else { return Ok(found) };
    let Model { mut world, root, .. } = spawned;
    if class == "ModuleDict" {
        return Ok(refused(world.module_mut(root)?.add_module(key, given)));
    }
    if found.is_some() {
        return Ok(found);
    }
    let place = index()?.rem_euclid(2).to_string();
    Ok(refused(world.module_mut(root)?.setattr(&place, given)))
}
