//! The group `optim`: trajectories of optimizers, clipping, schedulers.

use ndarray::{ArrayD, Axis, arr0};
use neurarch::components::losses::Loss;
use neurarch::kernels::ir::dtype::Element;
use neurarch::prelude::*;
use neurarch::systems::optim::clip::ClipOptions;
use neurarch::systems::optim::state_dict::OptimizerStateDict;
use serde_json::Value as Json;

use crate::runner::arguments::{Arguments, number};
use crate::runner::build::model::Model;
use crate::runner::build::optimizers::{check_group, optimizer};
use crate::runner::build::schedulers;
use crate::runner::case::{Case, Checked, Fields, Stop, text};
use crate::runner::compare::{self, Tolerance};
use crate::runner::tensors::{array, numbers};

/// Runs a case.
pub fn run(case: &Case<'_>) -> Checked {
    let kind = case.json.text("kind")?;
    if kind == "scheduler" {
        return schedulers::run(case);
    }
    match (kind, case.json.text("dtype")?) {
        ("trajectory", "f32") => trajectory::<f32>(case),
        ("trajectory", "f64") => trajectory::<f64>(case),
        ("clip", "f32") => clip::<f32>(case),
        ("clip", "f64") => clip::<f64>(case),
        (kind, dtype) => Err(Stop::Needs(format!("needs kind {kind} in {dtype}"))),
    }
}

/// A parameter group: an optimizer on a module.
struct Group {
    path: String,
    args: Json,
    added_at: u64,
}

/// Finds the module whose parameters are those of a group.
fn path_of(params: &[Json], all: &[String]) -> Checked<String> {
    let mut names = params.iter().map(text).collect::<Checked<Vec<_>>>()?;
    names.sort_unstable();
    let mut path = names.first().map_or("", |name| name);
    while let Some((above, _)) = path.rsplit_once('.').or((!path.is_empty()).then_some(("", ""))) {
        path = above;
        let is_below = |name: &&str| path.is_empty() || name.starts_with(&format!("{path}."));
        let mut below: Vec<_> = all.iter().map(String::as_str).filter(is_below).collect();
        below.sort_unstable();
        if below == names {
            return Ok(path.to_owned());
        }
    }
    Err(Stop::Needs(format!("needs a group of the parameters {names:?}")))
}

fn groups(case: &Case<'_>, all: &[String]) -> Checked<Vec<Group>> {
    let args = case.json.get("args").cloned().unwrap_or_else(|| Json::Object(Default::default()));
    let given = case.json.list("groups")?;
    if given.is_empty() {
        return Ok(vec![Group { path: String::new(), args, added_at: 0 }]);
    }
    let mut groups = Vec::new();
    for group in given {
        let mut own = args.clone();
        for (name, value) in group.as_object().into_iter().flatten() {
            if name != "params" && name != "added_at" {
                own[name] = value.clone();
            }
        }
        groups.push(Group {
            path: path_of(group.list("params")?, all)?,
            args: own,
            added_at: group.get("added_at").and_then(Json::as_u64).unwrap_or(0),
        });
    }
    Ok(groups)
}

/// Rows of a tensor, one for each step.
fn row<T: Element>(case: &Case<'_>, key: &str, step: usize) -> Checked<ArrayD<T>> {
    Ok(array::<T>(case.expect(key)?)?.index_axis_move(Axis(0), step))
}

/// Compares an array with the row of a step; what the case does not have is not compared.
fn check_row<T: Element>(
    case: &Case<'_>,
    key: &str,
    step: usize,
    got: &ArrayD<T>,
    tolerance: Tolerance,
) -> Checked {
    if case.tensor(key).is_none() {
        return Ok(());
    }
    let want = Tensor::new("", row::<T>(case, key, step)?.view());
    compare::array(&format!("{key} of step {step}"), got, &want, tolerance)
}

fn trajectory<T: Element + Default + Into<f64>>(case: &Case<'_>) -> Checked {
    let tolerance = case.tolerance(&T::DTYPE.to_string());
    let mut model = Model::spawn(case.json.field("model")?, case, T::DTYPE)?;
    model.set_state(case, "state")?;
    let class = case.json.text("optimizer")?;
    if class == "LBFGS" {
        return lbfgs::<T>(case, model, tolerance);
    }
    let Model { mut world, population, root } = model;
    let world = &mut world;
    let names = world.module_mut(root)?.parameter_names()?;
    let groups = groups(case, &names)?;
    let steps = case.json.field("steps")?.as_u64().unwrap_or(0) as usize;
    for step in 0..steps {
        for group in groups.iter().filter(|group| group.added_at == step as u64) {
            let module = world.module_mut(root)?.at(&group.path)?.id();
            optimizer(class, &group.args, case)?.insert(&mut world.entity_mut(module));
        }
        if case.json.get("resume_at").and_then(Json::as_u64) == Some(step as u64) {
            let saved = world.module_mut(root)?.optimizer_state_dict()?;
            let fresh = OptimizerStateDict { state: Default::default(), ..saved.clone() };
            world.module_mut(root)?.load_optimizer_state_dict(&fresh)?;
            world.module_mut(root)?.load_optimizer_state_dict(&saved)?;
        }
        world.population_mut(population)?.zero_grad()?;
        let x = row::<T>(case, "x", step)?;
        world.population_mut(population)?.forward(Input::shared(x.view()))?;
        let loss = loss_at::<T>(case, world, population, step)?;
        check_row(case, "loss", step, &loss, tolerance)?;
        world.population_mut(population)?.backward()?;
        let without = case.json.get("no_grad").and_then(|steps| steps.get(step.to_string()));
        for name in without.and_then(Json::as_array).into_iter().flatten() {
            world.module_mut(root)?.set_gradient::<T, ndarray::IxDyn>(text(name)?, None)?;
        }
        for name in &names {
            let gradient = match world.module_mut(root)?.gradient::<T>(name)? {
                Some(gradient) => gradient,
                None => ArrayD::default(world.module_mut(root)?.parameter::<T>(name)?.raw_dim()),
            };
            check_row(case, &format!("grads/{name}"), step, &gradient, tolerance)?;
        }
        world.population_mut(population)?.step()?;
        for name in &names {
            let parameter = world.module_mut(root)?.parameter::<T>(name)?;
            check_row(case, &format!("params/{name}"), step, &parameter, tolerance)?;
        }
    }
    check_state(case, &world.module_mut(root)?.optimizer_state_dict()?, tolerance)
}

/// Computes the case's loss at a step, after a forward pass.
fn loss_at<T: Element>(
    case: &Case<'_>,
    world: &mut World,
    population: Entity,
    step: usize,
) -> Checked<ArrayD<T>> {
    let given = case.expect("y")?.dtype();
    match case.json.text("loss")? {
        "MSELoss" => {
            let y = row::<T>(case, "y", step)?;
            loss::<T, T>(world, population, &y, &MSELoss::default())
        }
        "CrossEntropyLoss" if given == Dtype::I64 => {
            let y = row::<i64>(case, "y", step)?;
            loss::<T, i64>(world, population, &y, &CrossEntropyLoss::default())
        }
        "CrossEntropyLoss" => {
            let y = row::<T>(case, "y", step)?;
            loss::<T, T>(world, population, &y, &CrossEntropyLoss::default())
        }
        other => Err(Stop::Needs(format!("needs {other}"))),
    }
}

/// Makes the steps of L-BFGS; all rows of `x` and `y` are the same batch.
fn lbfgs<T: Element + Into<f64>>(case: &Case<'_>, model: Model, tolerance: Tolerance) -> Checked {
    let Model { mut world, population, root } = model;
    let given = case.json.get("args").cloned().unwrap_or_default();
    let mut args = Arguments::new("LBFGS", Some(&given), case);
    let whole = |value: &Json| value.as_u64().map(|number| number as usize);
    let optimizer = LBFGS {
        lr: args.number("lr", 1.0)?,
        max_iter: args.get("max_iter").and_then(whole).unwrap_or(20),
        max_eval: args.get("max_eval").and_then(whole),
        tolerance_grad: args.number("tolerance_grad", 1e-7)?,
        tolerance_change: args.number("tolerance_change", 1e-9)?,
        history_size: args.get("history_size").and_then(whole).unwrap_or(100),
        line_search_fn: match args.get("line_search_fn").and_then(Json::as_str) {
            Some("strong_wolfe") => Some(LineSearch::StrongWolfe),
            _ => None,
        },
        maximize: args.flag("maximize", false)?,
    };
    args.end()?;
    world.population_mut(population)?.insert(optimizer)?;
    let names = world.module_mut(root)?.parameter_names()?;
    let steps = case.json.field("steps")?.as_u64().unwrap_or(0) as usize;
    let mut calls = 0;
    for step in 0..steps {
        let mut stop = None;
        let x = row::<T>(case, "x", step)?;
        let losses = world.population_mut(population)?.step_with_closure(|world| {
            calls += 1;
            world.population_mut(population)?.zero_grad()?;
            world.population_mut(population)?.forward(Input::shared(x.view()))?;
            let loss = loss_at::<T>(case, world, population, step);
            let loss = loss.unwrap_or_else(|why| {
                stop = Some(why);
                ArrayD::from_elem(vec![], T::zeroed())
            });
            world.population_mut(population)?.backward()?;
            Ok(loss.iter().map(|&loss| loss.into()).collect())
        });
        if let Some(stop) = stop {
            return Err(stop);
        }
        let loss = row::<T>(case, "loss", step)?;
        for (want, got) in loss.iter().zip(losses?) {
            let want: f64 = (*want).into();
            if !tolerance.allows(got, want) {
                return Err(Stop::Differs(format!("loss {step}: expected {want}, got {got}")));
            }
        }
        for name in &names {
            let parameter = world.module_mut(root)?.parameter::<T>(name)?;
            check_row(case, &format!("params/{name}"), step, &parameter, tolerance)?;
        }
    }
    let expected = case.json.field("expect")?.get("closure_calls").and_then(Json::as_u64);
    compare::equal("closure_calls", &calls, &expected.unwrap_or(calls))
}

fn loss<T: Element, Y: Element>(
    world: &mut World,
    population: Entity,
    y: &ArrayD<Y>,
    loss: &impl Loss,
) -> Checked<ArrayD<T>> {
    let losses = world.population_mut(population)?.loss::<T, Y>(Input::shared(y.view()), loss)?;
    Ok(losses.index_axis_move(Axis(0), 0))
}

/// Compares the optimizer's state, and its numbers, with torch's.
fn check_state(case: &Case<'_>, got: &OptimizerStateDict, tolerance: Tolerance) -> Checked {
    let found = got.state.iter().flat_map(|(index, tensors)| {
        tensors.iter().map(move |tensor| (format!("{index}/{}", tensor.name), tensor))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let want = case.below("optstate");
    let keys = |keys: Vec<&str>| Json::from(keys);
    compare::json(
        "optstate",
        &keys(found.iter().map(|(key, _)| key.as_str()).collect()),
        &keys(want.iter().map(|(key, _)| *key).collect()),
    )?;
    for ((key, got), (_, want)) in found.iter().zip(&want) {
        compare::tensor(&format!("optstate/{key}"), got, want, tolerance)?;
    }
    let groups = case.json.field("expect")?.list("param_groups")?;
    compare::equal("param_groups", &got.param_groups.len(), &groups.len())?;
    got.param_groups
        .iter()
        .zip(groups)
        .try_for_each(|(got, want)| check_group(&*got.optimizer, &got.params, want))
}

/// Clips gradients that are given.
fn clip<T: Element>(case: &Case<'_>) -> Checked {
    let tolerance = case.tolerance(&T::DTYPE.to_string());
    let mut all = ParameterList::new();
    let before = case.below("grad_before");
    for (_, tensor) in &before {
        all = all.push(Parameter::zeros(tensor.shape()));
    }
    let Model { mut world, population, root } = Model::spawn_module(&all, T::DTYPE)?;
    let own = |name: &str| name.trim_start_matches('g').to_owned();
    for (name, tensor) in &before {
        world.module_mut(root)?.set_gradient(&own(name), Some(array::<T>(tensor)?.view()))?;
    }
    let mut args = Arguments::new("clip", case.json.get("args"), case);
    args.pass_over(&["foreach"]);
    let args = &mut args;
    let expected = case.json.field("expect")?;
    let mut error = Json::Null;
    match case.json.text("clip")? {
        "value" => {
            world.population_mut(population)?.clip_grad_value_(args.number("clip_value", 0.0)?)?
        }
        _ => {
            let options = ClipOptions {
                norm_type: args.get("norm_type").and_then(number).unwrap_or(2.0),
                error_if_nonfinite: args.flag("error_if_nonfinite", false)?,
            };
            match world
                .population_mut(population)?
                .clip_grad_norm_with(args.number("max_norm", 0.0)?, options)
            {
                Ok(norms) => {
                    if let Some(want) = case.tensor("norm") {
                        let norm = Tensor::new("", arr0(norms[0]).view());
                        let norm = norm.cast(want.dtype());
                        compare::tensor("norm", &norm, want, tolerance)?;
                    }
                }
                Err(found) => error = serde_json::json!(["RuntimeError", found.to_string()]),
            }
        }
    }
    args.end()?;
    compare::json("error", &error, &expected["error"])?;
    for (name, want) in case.below("grad_after") {
        let got = world.module_mut(root)?.gradient::<T>(&own(name))?;
        let got = got.ok_or_else(|| Stop::Differs(format!("{name} has no gradient")))?;
        compare::equal("gradients", &numbers(want)?.len(), &got.len())?;
        compare::array(name, &got, want, tolerance)?;
    }
    Ok(())
}
