//! The group `amp`: sequences of gradient scalers, autocast's tables, and the types that it gives.

use ndarray::{Array3, ArrayD, arr1};
use neurarch::components::amp::ScalerState;
use neurarch::kernels::ir::autocast::Autocast;
use neurarch::kernels::ir::device::Device;
use neurarch::prelude::*;
use neurarch::systems::amp::ScalerError;
use serde_json::{Value as Json, json};

use crate::runner::arguments::{Arguments as Args, number};
use crate::runner::autocast::Probe;
use crate::runner::build::model::Model;
use crate::runner::case::{Case, Checked, Fields, Stop, text};
use crate::runner::compare;

/// Runs a case.
pub fn run(case: &Case<'_>) -> Checked {
    match case.json.text("kind")? {
        "scaler" => scaler(case),
        "scaler_misuse" => misuse(case),
        "autocast" => autocast(case),
        "table" => table(case),
        other => Err(Stop::Needs(format!("needs kind {other}"))),
    }
}

fn read_scaler(case: &Case<'_>) -> Checked<GradScaler> {
    let mut args = Args::new("GradScaler", case.json.get("args"), case);
    let default = GradScaler::default();
    let scaler = GradScaler {
        init_scale: args.number("init_scale", default.init_scale)?,
        growth_factor: args.number("growth_factor", default.growth_factor)?,
        backoff_factor: args.number("backoff_factor", default.backoff_factor)?,
        growth_interval: match args.get("growth_interval") {
            Some(interval) => interval.as_u64().unwrap_or(0) as u32,
            None => default.growth_interval,
        },
        enabled: args.flag("enabled", default.enabled)?,
        ..default
    };
    args.end()?;
    Ok(scaler)
}

/// A model of one parameter `[1, 1]` with that scaler.
fn spawn(scaler: GradScaler, lr: f64) -> Checked<Model> {
    let parameter = ParameterList::new().push(Parameter::ones([2]));
    let Model { mut world, population, root } = Model::spawn_module(&parameter, Dtype::F64)?;
    world.population_mut(population)?.insert(SGD { lr, ..SGD::default() })?;
    world.population_mut(population)?.insert(scaler)?;
    Ok(Model { world, population, root })
}

fn scaler(case: &Case<'_>) -> Checked {
    let of = |name: &str| case.json.field(name).map(|value| number(value).unwrap_or(f64::NAN));
    let scaler = read_scaler(case)?;
    let Model { mut world, population, root } = spawn(scaler, of("lr")?)?;
    let unscale_at = case.json.list("unscale_at")?;
    let expected = case.json.field("expect")?;
    for (step, found) in case.json.list("found_inf")?.iter().enumerate() {
        let grad = of("grad")?;
        let other = match found.as_u64() {
            Some(1) => f64::INFINITY,
            Some(2) => f64::NAN,
            Some(3) => f64::NEG_INFINITY,
            _ => grad,
        };
        let scale = world.population(population)?.get_scale()?[0];
        let gradient = arr1(&[grad * scale, other * scale]);
        world.module_mut(root)?.set_gradient("0", Some(gradient.view()))?;
        world.population_mut(population)?.scale(&ArrayD::<f64>::ones(vec![1]))?;
        if unscale_at.iter().any(|at| at.as_u64() == Some(step as u64)) {
            world.population_mut(population)?.unscale_()?;
        }
        world.population_mut(population)?.step_scaled()?;
        let new_scale = case.json.get("set_scale").and_then(|all| all.get(step.to_string()));
        world.population_mut(population)?.update_scale(new_scale.and_then(number))?;
        let first = world.module_mut(root)?.parameter::<f64>("0")?[[0]];
        // What scales nothing counts nothing.
        let tracker = world.get::<GradScaler>(root).map_or(0, |scaler| scaler.growth_tracker);
        let got = json!([world.population(population)?.get_scale()?[0], tracker, first]);
        compare::json(&format!("step {step}"), &got, &expected["steps"][step])?;
    }
    let state = world.module(root)?.scaler_state_dict()?;
    compare::json("state_dict", &state_json(state), &expected["state_dict"])?;
    // A scaler that takes the state goes on from there.
    world.module_mut(root)?.load_scaler_state_dict(state.as_ref())?;
    compare::json(
        "state_dict again",
        &state_json(world.module(root)?.scaler_state_dict()?),
        &expected["state_dict"],
    )
}

fn state_json(state: Option<ScalerState>) -> Json {
    let Some(state) = state else { return json!({}) };
    json!({
        "scale": state.scale,
        "growth_factor": state.growth_factor,
        "backoff_factor": state.backoff_factor,
        "growth_interval": state.growth_interval,
        "_growth_tracker": state.growth_tracker,
    })
}

fn misuse(case: &Case<'_>) -> Checked {
    let Model { mut world, population, root } = spawn(read_scaler(case)?, 0.1)?;
    let mut errors = Vec::new();
    for call in case.json.list("calls")? {
        let result = match text(call)? {
            "scale" => {
                let scaled = world.population_mut(population)?.scale(&ArrayD::<f64>::ones(vec![1]));
                world.module_mut(root)?.set_gradient("0", Some(arr1(&[1.0, 1.0]).view()))?;
                scaled.map(drop)
            }
            "unscale_" => world.population_mut(population)?.unscale_(),
            "step" => world.population_mut(population)?.step_scaled().map(drop),
            "update" => world.population_mut(population)?.update_scale(None),
            other => return Err(Stop::Needs(format!("needs the call {other}"))),
        };
        errors.push(match result {
            Ok(()) => Json::Null,
            Err(error) => json!([exception(&error), error.to_string()]),
        });
    }
    compare::json("errors", &errors.into(), &case.json.field("expect")?["errors"])
}

/// Gives torch's exception for an error.
fn exception(error: &ScalerError) -> &'static str {
    match error {
        ScalerError::NotScaled(_) | ScalerError::NoGradients | ScalerError::NoInfChecks => {
            "AssertionError"
        }
        ScalerError::Fp16Gradients => "ValueError",
        _ => "RuntimeError",
    }
}

fn table(case: &Case<'_>) -> Checked {
    let device = match case.json.text("device")? {
        "cpu" => Device::Cpu,
        "cuda" => Device::Cuda(0),
        other => return Err(Stop::Needs(format!("needs autocast on {other}"))),
    };
    let dtype = dtype(case.json.text("dtype")?)?;
    let autocast = Autocast::new(device, dtype);
    let autocast = autocast.ok_or_else(|| Stop::Needs(format!("needs autocast to {dtype}")))?;
    for (name, want) in case.json.field("table")?.as_object().into_iter().flatten() {
        let got = autocast.policy(name).map(|policy| policy.to_string());
        compare::equal(name, got.as_deref().unwrap_or("none"), text(want)?)?;
    }
    Ok(())
}

/// Reads a floating-point type.
fn dtype(name: &str) -> Checked<Dtype> {
    match name {
        "f16" => Ok(Dtype::F16),
        "bf16" => Ok(Dtype::BF16),
        "f32" => Ok(Dtype::F32),
        "f64" => Ok(Dtype::F64),
        other => Err(Stop::Needs(format!("needs dtype {other}"))),
    }
}

/// Calls each function in a module's `forward`, while a population runs with autocast.
fn autocast(case: &Case<'_>) -> Checked {
    let calls = case.json.field("calls")?;
    for row in case.json.field("expect")?.list("rows")? {
        let [op, to, inputs, want] = row.as_array().map(Vec::as_slice).unwrap_or_default() else {
            return Err(Stop::Differs(format!("expected four entries, got {row}")));
        };
        let (op, to) = (text(op)?, dtype(text(to)?)?);
        let inputs = inputs.as_array().into_iter().flatten();
        let inputs = inputs.map(|name| dtype(text(name)?)).collect::<Checked<Vec<_>>>()?;
        let probe = Probe::new(op, calls.text(op)?, inputs)?;
        let Model { mut world, population, .. } = Model::spawn_module(&probe, Dtype::F32)?;
        let x = Array3::<f32>::zeros((1, 1, 1));
        let result = world.autocast(to, |world| world.population_mut(population)?.forward(&x));
        let got = match (result, probe.dtype()) {
            (Ok(_), Some(dtype)) => Json::from(dtype.to_string()),
            (Ok(_), None) => return Err(Stop::Needs(format!("needs the function {op}"))),
            (Err(StepError::Trace(_)), _) => json!({ "error": "RuntimeError" }),
            (Err(error), _) => return Err(error.into()),
        };
        compare::json(&format!("{op} of {row}"), &got, want)?;
    }
    Ok(())
}
