//! The group `state`: names, loading, registration, parametrizations, fusing, lazy modules.

use neurarch::prelude::*;
use neurarch::systems::execute::lazy::uninitialized_params;
use neurarch::systems::state::load::LoadStateDictError;
use serde_json::{Value, json};

use crate::runner::build::model::Model;
use crate::runner::case::{Case, Checked, Fields, Stop, text};
use crate::runner::compare;
use crate::runner::parametrized;
use crate::runner::registration;
use crate::runner::tensors::array;

/// Runs a case.
pub fn run(case: &Case<'_>) -> Checked {
    match case.json.text("kind")? {
        "listing" => listing(case),
        "load" => load(case),
        "registration" => registration::run(case),
        "vector" => vector(case),
        "lazy" => lazy(case),
        "fuse" => parametrized::fuse(case),
        kind @ ("weight_norm" | "spectral_norm" | "orthogonal") => parametrized::run(case, kind),
        other => Err(Stop::Needs(format!("kind {other}: not supported yet"))),
    }
}

/// Compares what a model has, by name and in order.
fn listing(case: &Case<'_>) -> Checked {
    let Model { mut world, root, .. } = Model::spawn(case.json.field("model")?, case, Dtype::F32)?;
    let expected = case.json.field("expect")?;
    let check = |what: &str, got: Value| compare::json(what, &got, expected.field(what)?);
    check("state_dict", shapes(&world.module_mut(root)?.state_dict()?))?;
    for remove_duplicate in [true, false] {
        let listing = Listing { remove_duplicate, ..Listing::default() };
        let names = |found: Vec<_>| found.into_iter().map(name_of).collect::<Value>();
        let lists = [
            ("named_parameters", names(world.module_mut(root)?.named_parameters_with(listing)?)),
            ("named_buffers", names(world.module_mut(root)?.named_buffers_with(listing)?)),
            ("named_modules", first_of(world.module_mut(root)?.named_modules_with(listing)?)),
        ];
        for (what, got) in lists {
            let key = remove_duplicate.to_string();
            let want = expected.field(what)?.field(&key)?;
            compare::json(&format!("{what}(remove_duplicate={key})"), &got, want)?;
        }
    }
    let modules = world.module_mut(root)?.modules()?;
    let classes = modules.iter().map(|&module| Ok(world.module_mut(module)?.class_name()?.into()));
    check("classes", classes.collect::<Checked<Vec<Value>>>()?.into())?;
    check("named_children", first_of(world.module_mut(root)?.named_children()?))?;
    let own = Listing { recurse: false, ..Listing::default() };
    let own = world.module_mut(root)?.named_parameters_with(own)?;
    check("own_parameters", own.into_iter().map(name_of).collect())?;
    let numel = world
        .module_mut(root)?
        .named_parameters()?
        .iter()
        .map(|of| of.ty.shape.numel())
        .sum::<usize>();
    check("numel", json!(numel))?;
    let names = world.module_mut(root)?.named_modules()?;
    let mut visited = Vec::new();
    world.module_mut(root)?.apply(|_, module| visited.push(module))?;
    let name = |module: &Entity| {
        let known = names.iter().find(|(_, known)| known == module);
        known.map_or(Value::Null, |(name, _)| name.as_str().into())
    };
    check("apply_order", visited.iter().map(name).collect())?;
    check("repr", world.module_mut(root)?.repr()?.into())
}

fn name_of(tensor: neurarch::systems::structure::traverse::NamedTensor) -> Value {
    tensor.name.into()
}

fn first_of(named: Vec<(String, Entity)>) -> Value {
    named.into_iter().map(|(name, _)| Value::from(name)).collect()
}

/// Lists names and shapes.
fn shapes(state: &StateDict) -> Value {
    state.iter().map(|tensor| json!([tensor.name, tensor.shape()])).collect()
}

/// Loads a state dict, and compares what torch said and what it left.
fn load(case: &Case<'_>) -> Checked {
    let mut model = Model::spawn(case.json.field("model")?, case, Dtype::F64)?;
    model.set_state(case, "before")?;
    let mut given = StateDict::new();
    for key in case.json.list("given")? {
        let key = text(key)?;
        let mut tensor = case.expect(&format!("given/{key}"))?.clone();
        key.clone_into(&mut tensor.name);
        given.insert(tensor);
    }
    let options =
        LoadOptions { strict: case.json.flag("strict"), assign: case.json.flag("assign") };
    let result = model.world.module_mut(model.root)?.load_state_dict_with(&given, options);
    let expected = case.json.field("expect")?;
    compare::json("error", &error_of(result.as_ref().err()), &expected["error"])?;
    if let Ok(keys) = result {
        for (what, got) in
            [("missing_keys", keys.missing_keys), ("unexpected_keys", keys.unexpected_keys)]
        {
            compare::json(what, &got.into(), expected.field(what)?)?;
        }
    }
    check_state(case, "after", &mut model)
}

/// Says what Python would have raised.
pub fn error_of(error: Option<&LoadStateDictError>) -> Value {
    match error {
        None => Value::Null,
        Some(LoadStateDictError::Hook(error)) => json!(["ValueError", error.message]),
        Some(error) => json!(["RuntimeError", error.to_string()]),
    }
}

/// Compares the state of a model with the tensors in a folder of keys.
fn check_state(case: &Case<'_>, folder: &str, model: &mut Model) -> Checked {
    let state = model.world.module_mut(model.root)?.state_dict()?;
    for (name, want) in case.below(folder) {
        let what = format!("{folder}/{name}");
        let missing = || Stop::Differs(format!("{what}: expected an entry of the state dict"));
        let got = state.get(name).ok_or_else(missing)?;
        compare::tensor(&what, got, want, case.tolerance("f64"))?;
    }
    match state.keys().find(|key| case.tensor(&format!("{folder}/{key}")).is_none()) {
        Some(key) => Err(Stop::Differs(format!("{folder}: expected no entry {key}"))),
        None => Ok(()),
    }
}

/// Turns parameters into a vector and back.
fn vector(case: &Case<'_>) -> Checked {
    let mut model = Model::spawn(case.json.field("model")?, case, Dtype::F64)?;
    model.set_state(case, "state")?;
    let Model { world, root, .. } = &mut model;
    let names = world.module_mut(*root)?.named_parameters()?.into_iter().map(name_of).collect();
    compare::json("params", &names, case.json.field("expect")?.field("params")?)?;
    let flat = world.module_mut(*root)?.parameters_to_vector::<f64>()?.into_dyn();
    compare::array("flat", &flat, case.expect("flat")?, case.tolerance("f64"))?;
    let vector = array::<f64>(case.expect("vector")?)?;
    world.module_mut(*root)?.vector_to_parameters(vector.into_dimensionality()?.view())?;
    check_state(case, "after", &mut model)
}

/// Compares a lazy module before and after its first call.
fn lazy(case: &Case<'_>) -> Checked {
    let spec = case.json.field("model")?;
    let mut model = Model::spawn(spec, case, Dtype::F32)?;
    let expected = case.json.field("expect")?;
    let before = expected.field("before")?;
    let check = |of: &Value, what: &str, got: Value| compare::json(what, &got, of.field(what)?);
    let Model { world, population, root } = &mut model;
    check(before, "class", world.module_mut(*root)?.class_name()?.into())?;
    check(
        before,
        "state_keys",
        world.module_mut(*root)?.state_dict()?.keys().map(Value::from).collect(),
    )?;
    let names = world.module_mut(*root)?.named_parameters()?.into_iter().map(name_of).collect();
    check(before, "params", names)?;
    let unknown = uninitialized_params(world, *root)?;
    check(before, "repr", world.module_mut(*root)?.repr()?.into())?;
    if let Some(name) = unknown.first() {
        let error = match world.module_mut(*root)?.parameter::<f32>(name) {
            Ok(_) => Value::Null,
            // The name of the parameter stands in front of torch's words.
            Err(error) => {
                let message = error.to_string();
                let words = message.strip_prefix(&format!("'{name}': ")).unwrap_or(&message);
                json!(["RuntimeError", words])
            }
        };
        check(before, "shape_error", error)?;
    }
    check_uninitialized(before, unknown)?;

    let x = array::<f32>(case.expect("input/0")?)?;
    world.population_mut(*population)?.forward(Input::shared(x.view()))?;
    let after = expected.field("after")?;
    check(after, "class", world.module_mut(*root)?.class_name()?.into())?;
    check(after, "state_dict", shapes(&world.module_mut(*root)?.state_dict()?))?;
    check_uninitialized(after, uninitialized_params(world, *root)?)?;
    check(after, "repr", world.module_mut(*root)?.repr()?.into())?;

    // A fresh lazy model takes the shapes of an initialized one's state; the reverse is an error.
    let initialized = world.module_mut(*root)?.state_dict()?;
    let mut fresh = Model::spawn(spec, case, Dtype::F32)?;
    let lazy_state = fresh.world.module_mut(fresh.root)?.state_dict()?;
    let options = LoadOptions::default();
    let keys = fresh.world.module_mut(fresh.root)?.load_state_dict_with(&initialized, options)?;
    let loaded = expected.field("loaded_before_forward")?;
    check(loaded, "missing_keys", keys.missing_keys.into())?;
    check(loaded, "unexpected_keys", keys.unexpected_keys.into())?;
    check(loaded, "state_dict", shapes(&fresh.world.module_mut(fresh.root)?.state_dict()?))?;
    check(loaded, "class", fresh.world.module_mut(fresh.root)?.class_name()?.into())?;
    let error = world.module_mut(*root)?.load_state_dict_with(&lazy_state, options).err();
    check(expected, "lazy_into_initialized", error_of(error.as_ref()))
}

/// Compares which parameters and buffers wait for their shape, in any order: the format names none.
fn check_uninitialized(expected: &Value, mut got: Vec<String>) -> Checked {
    let want = expected.list("uninitialized")?.iter().map(text);
    let mut want = want.collect::<Checked<Vec<_>>>()?;
    got.sort_unstable();
    want.sort_unstable();
    compare::json("uninitialized", &got.into(), &want.into())
}
