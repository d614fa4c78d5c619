//! Kinds `weight_norm`, `spectral_norm`, `orthogonal` and `fuse` of the group `state`: layers that are computed,
//! and layers that are joined.

use ndarray::{ArrayD, Axis};
use neurarch::prelude::*;
use neurarch::systems::edit::fuse::{fuse_conv_bn_eval, fuse_linear_bn_eval};
use neurarch::systems::edit::parametrize;
use serde_json::Value;

use crate::runner::arguments::Arguments as Args;
use crate::runner::build::model::{Model, build};
use crate::runner::case::{Case, Checked, Fields, Stop};
use crate::runner::compare;
use crate::runner::tensors::array;

/// Runs a case of a parametrization.
pub fn run(case: &Case<'_>, kind: &str) -> Checked {
    let mut model = Model::spawn(case.json.field("model")?, case, Dtype::F64)?;
    model.set_state(case, "plain")?;
    let name = case.json.text("name")?;
    apply(
        &mut model,
        name,
        kind,
        &mut Args::new("the parametrization", case.json.get("args"), case),
    )?;
    let expected = case.json.field("expect")?;
    check_names(&mut model, expected)?;
    check_state(case, &mut model, "registered")?;
    model.set_state(case, "raw")?;
    let before = model.world.module_mut(model.root)?.state_dict()?;

    let Model { world, population, root } = &mut model;
    match case.json.text("mode")? {
        "eval" => world.population_mut(*population)?.eval()?,
        _ => world.population_mut(*population)?.train()?,
    };
    let one = |key: &str| Ok::<_, Stop>(array::<f64>(case.expect(key)?)?.insert_axis(Axis(0)));
    let (x, dy) = (one("input/0")?, one("grad_output/0")?);
    let y = world.population_mut(*population)?.forward(Input::from(&x).requires_grad())?;
    check(case, "output/0", y.index_axis(Axis(0), 0).to_owned())?;
    world.population_mut(*population)?.backward_from(&dy)?;
    let dx = world.population(*population)?.input_gradient::<f64>()?;
    let dx = dx.ok_or_else(|| Stop::Differs("the input has no gradient".into()))?;
    check(case, "grad_input/0", dx.index_axis(Axis(0), 0).to_owned())?;
    for (parameter, _) in case.below("grad") {
        let gradient = world.module_mut(*root)?.gradient::<f64>(parameter)?;
        let missing = || Stop::Differs(format!("{parameter} has no gradient"));
        check(case, &format!("grad/{parameter}"), gradient.ok_or_else(missing)?)?;
    }
    let after = world.module_mut(*root)?.state_dict()?;
    for tensor in before.iter() {
        let changed = case.tensor(&format!("after/{}", tensor.name));
        let got = after.get(&tensor.name).unwrap_or(tensor);
        let what = format!("after/{}", tensor.name);
        compare::tensor(&what, got, changed.unwrap_or(tensor), case.tolerance("f64"))?;
    }
    world.module_mut(*population)?.eval()?;
    let weight = world.module_mut(*root)?.tensor::<f64>(name)?;
    check(case, "weight", weight)?;
    remove(case, &mut model, name)
}

/// Parametrizes a tensor as the arguments say.
fn apply(model: &mut Model, name: &str, kind: &str, args: &mut Args<'_>) -> Checked {
    let Model { world, root, .. } = model;
    match kind {
        "weight_norm" => {
            let dim = match args.get("dim") {
                Some(Value::Null) => None,
                _ => Some(args.axis("dim", Some(0))?),
            };
            args.end()?;
            world.module_mut(*root)?.weight_norm(name, dim)?;
        }
        "spectral_norm" => {
            let iterations = args.axis("n_power_iterations", Some(1))? as usize;
            let eps = args.number("eps", 1e-12)?;
            let is_turned = world.module_mut(*root)?.class_name()?.starts_with("ConvTranspose");
            let dim = match args.get("dim") {
                None | Some(Value::Null) => isize::from(is_turned),
                _ => args.axis("dim", Some(0))?,
            };
            args.end()?;
            parametrize::spectral_norm(world, *root, name, iterations, eps, dim)?;
        }
        _ => {
            let map = match args.get("orthogonal_map") {
                None | Some(Value::Null) => None,
                _ => Some(match args.word("orthogonal_map", "")?.as_str() {
                    "matrix_exp" => OrthogonalMap::MatrixExp,
                    "cayley" => OrthogonalMap::Cayley,
                    "householder" => OrthogonalMap::Householder,
                    other => return Err(Stop::Needs(format!("needs orthogonal_map={other}"))),
                }),
            };
            let trivialization = args.flag("use_trivialization", true)?;
            args.end()?;
            parametrize::orthogonal(world, *root, name, map, trivialization)?;
        }
    }
    Ok(())
}

/// Compares class, keys and parameters.
fn check_names(model: &mut Model, expected: &Value) -> Checked {
    let Model { world, root, .. } = model;
    compare::json(
        "class",
        &world.module_mut(*root)?.class_name()?.into(),
        expected.field("class")?,
    )?;
    let keys: Value = world.module_mut(*root)?.state_dict()?.keys().map(Value::from).collect();
    compare::json("state_keys", &keys, expected.field("state_keys")?)?;
    let names =
        world.module_mut(*root)?.named_parameters()?.into_iter().map(|of| Value::from(of.name));
    compare::json("params", &names.collect(), expected.field("params")?)
}

/// Compares what is recorded below a folder of keys with the state.
fn check_state(case: &Case<'_>, model: &mut Model, folder: &str) -> Checked {
    let state = model.world.module_mut(model.root)?.state_dict()?;
    for (name, want) in case.below(folder) {
        let what = format!("{folder}/{name}");
        let missing = || Stop::Differs(format!("{what}: expected an entry of the state dict"));
        let got = state.get(name).ok_or_else(missing)?;
        compare::tensor(&what, got, want, case.tolerance("f64"))?;
    }
    Ok(())
}

fn check(case: &Case<'_>, key: &str, got: ArrayD<f64>) -> Checked {
    compare::array(key, &got, case.expect(key)?, case.tolerance("f64"))
}

/// Makes the tensor a parameter again, in both ways, each in a copy.
fn remove(case: &Case<'_>, model: &mut Model, name: &str) -> Checked {
    let expected = case.json.field("expect")?;
    for (what, leave_parametrized) in [("removed_keep", true), ("removed_original", false)] {
        let expected = expected.field(what)?;
        let copies = model.world.population_mut(model.population)?.clone_models(&[0])?;
        let root = copies.first().copied().unwrap_or(model.root);
        let removed =
            model.world.module_mut(root)?.remove_parametrizations(name, leave_parametrized);
        let error = match &removed {
            Ok(()) => Value::Null,
            Err(error) => serde_json::json!(["ValueError", error.to_string()]),
        };
        compare::json(what, &error, &expected["error"])?;
        if removed.is_ok() {
            let mut copy = Model { world: std::mem::take(&mut model.world), root, ..*model };
            check_names(&mut copy, expected)?;
            let weight = copy.world.module_mut(root)?.parameter::<f64>(name)?;
            check(case, &format!("{what}/{name}"), weight)?;
            model.world = copy.world;
        }
    }
    Ok(())
}

/// Runs a case of fusing.
pub fn fuse(case: &Case<'_>) -> Checked {
    let (first, bn) = (case.json.field("first")?, case.json.field("bn")?);
    let both = Sequential::new().push(build(first, case)?).push(build(bn, case)?);
    let mut world = World::new();
    let settings = PopulationSettings { dtype: Dtype::F64, ..PopulationSettings::default() };
    let population = world.spawn_population_with(&both, settings)?.id();
    let root = world.population(population)?.models()[0];
    let mut model = Model { world, population, root };
    for (folder, path) in [("first", "0"), ("bn", "1")] {
        for (name, tensor) in case.below(folder) {
            model.set(&format!("{path}.{name}"), tensor)?;
        }
    }
    let Model { world, population, root } = &mut model;
    world.module_mut(*population)?.eval()?;
    match first.text("module")? {
        "Linear" => fuse_linear_bn_eval(world, *population, "0", "1")?,
        other => {
            let transpose = other.starts_with("ConvTranspose");
            fuse_conv_bn_eval(world, *population, "0", "1", transpose)?;
        }
    }
    let layer = world.module_mut(*root)?.at("0")?.id();
    let expected = case.json.field("expect")?;
    compare::json(
        "class",
        &world.module_mut(layer)?.class_name()?.into(),
        expected.field("class")?,
    )?;
    let state = world.module_mut(layer)?.state_dict()?;
    let keys: Value = state.keys().map(Value::from).collect();
    compare::json("state_keys", &keys, expected.field("state_keys")?)?;
    for (name, want) in case.below("fused") {
        let missing = || Stop::Differs(format!("fused/{name} is not there"));
        let got = state.get(name).ok_or_else(missing)?;
        compare::tensor(&format!("fused/{name}"), got, want, case.tolerance("f64"))?;
    }
    let x = array::<f64>(case.expect("input/0")?)?;
    let y = world.population_mut(*population)?.forward(Input::shared(x.view()))?;
    check(case, "output/0", y.index_axis(Axis(0), 0).to_owned())
}
