//! Optimizers of the group `optim`, made from their arguments.

use neurarch::components::optimizer::{DynOptimizer, DynParamGroups};
use neurarch::prelude::*;
use serde_json::Value;

use crate::runner::arguments::{Arguments, number};
use crate::runner::case::{Case, Checked, Fields, Stop};
use crate::runner::compare::{self, Tolerance};

/// Says how torch computes, not what.
const HOW: [&str; 4] = ["foreach", "fused", "capturable", "differentiable"];

/// Makes the optimizer of a parameter group; `given` are its arguments.
pub fn optimizer(class: &str, given: &Value, case: &Case<'_>) -> Checked<Box<dyn DynParamGroups>> {
    let mut args = Arguments::new(class, Some(given), case);
    let args = &mut args;
    args.pass_over(&HOW);
    let made: Box<dyn DynParamGroups> = match class {
        "SGD" => Box::new(SGD {
            lr: args.number("lr", 1e-3)?,
            momentum: args.number("momentum", 0.0)?,
            dampening: args.number("dampening", 0.0)?,
            weight_decay: args.number("weight_decay", 0.0)?,
            nesterov: args.flag("nesterov", false)?,
            maximize: args.flag("maximize", false)?,
        }),
        "Adam" => Box::new(Adam {
            lr: args.number("lr", 1e-3)?,
            betas: pair(args, "betas", (0.9, 0.999))?,
            eps: args.number("eps", 1e-8)?,
            weight_decay: args.number("weight_decay", 0.0)?,
            amsgrad: args.flag("amsgrad", false)?,
            decoupled_weight_decay: args.flag("decoupled_weight_decay", false)?,
            maximize: args.flag("maximize", false)?,
        }),
        "AdamW" => Box::new(AdamW {
            lr: args.number("lr", 1e-3)?,
            betas: pair(args, "betas", (0.9, 0.999))?,
            eps: args.number("eps", 1e-8)?,
            weight_decay: args.number("weight_decay", 1e-2)?,
            amsgrad: args.flag("amsgrad", false)?,
            maximize: args.flag("maximize", false)?,
        }),
        "NAdam" => Box::new(NAdam {
            lr: args.number("lr", 2e-3)?,
            betas: pair(args, "betas", (0.9, 0.999))?,
            eps: args.number("eps", 1e-8)?,
            weight_decay: args.number("weight_decay", 0.0)?,
            momentum_decay: args.number("momentum_decay", 4e-3)?,
            decoupled_weight_decay: args.flag("decoupled_weight_decay", false)?,
            maximize: args.flag("maximize", false)?,
        }),
        "RAdam" => Box::new(RAdam {
            lr: args.number("lr", 1e-3)?,
            betas: pair(args, "betas", (0.9, 0.999))?,
            eps: args.number("eps", 1e-8)?,
            weight_decay: args.number("weight_decay", 0.0)?,
            decoupled_weight_decay: args.flag("decoupled_weight_decay", false)?,
            maximize: args.flag("maximize", false)?,
        }),
        "Adamax" => Box::new(Adamax {
            lr: args.number("lr", 2e-3)?,
            betas: pair(args, "betas", (0.9, 0.999))?,
            eps: args.number("eps", 1e-8)?,
            weight_decay: args.number("weight_decay", 0.0)?,
            maximize: args.flag("maximize", false)?,
        }),
        "Adagrad" => Box::new(Adagrad {
            lr: args.number("lr", 1e-2)?,
            lr_decay: args.number("lr_decay", 0.0)?,
            weight_decay: args.number("weight_decay", 0.0)?,
            initial_accumulator_value: args.number("initial_accumulator_value", 0.0)?,
            eps: args.number("eps", 1e-10)?,
            maximize: args.flag("maximize", false)?,
        }),
        "Adadelta" => Box::new(Adadelta {
            lr: args.number("lr", 1.0)?,
            rho: args.number("rho", 0.9)?,
            eps: args.number("eps", 1e-6)?,
            weight_decay: args.number("weight_decay", 0.0)?,
            maximize: args.flag("maximize", false)?,
        }),
        "RMSprop" => Box::new(RMSprop {
            lr: args.number("lr", 1e-2)?,
            alpha: args.number("alpha", 0.99)?,
            eps: args.number("eps", 1e-8)?,
            weight_decay: args.number("weight_decay", 0.0)?,
            momentum: args.number("momentum", 0.0)?,
            centered: args.flag("centered", false)?,
            maximize: args.flag("maximize", false)?,
        }),
        "ASGD" => Box::new(ASGD {
            lr: args.number("lr", 1e-2)?,
            lambd: args.number("lambd", 1e-4)?,
            alpha: args.number("alpha", 0.75)?,
            t0: args.number("t0", 1e6)?,
            weight_decay: args.number("weight_decay", 0.0)?,
            maximize: args.flag("maximize", false)?,
        }),
        "Rprop" => Box::new(Rprop {
            lr: args.number("lr", 1e-2)?,
            etas: pair(args, "etas", (0.5, 1.2))?,
            step_sizes: pair(args, "step_sizes", (1e-6, 50.0))?,
            maximize: args.flag("maximize", false)?,
        }),
        "Adafactor" => {
            let eps = args.get("eps").cloned().unwrap_or_default();
            Box::new(Adafactor {
                lr: args.number("lr", 1e-2)?,
                beta2_decay: args.number("beta2_decay", -0.8)?,
                eps: (eps.get(0).and_then(number), eps.get(1).and_then(number).unwrap_or(1e-3)),
                d: args.number("d", 1.0)?,
                weight_decay: args.number("weight_decay", 0.0)?,
                maximize: args.flag("maximize", false)?,
            })
        }
        other => return Err(Stop::Needs(format!("needs {other}"))),
    };
    args.end()?;
    Ok(made)
}

fn pair(args: &mut Arguments<'_>, name: &'static str, default: (f64, f64)) -> Checked<(f64, f64)> {
    let Some(given) = args.get(name) else { return Ok(default) };
    match (given.get(0).and_then(number), given.get(1).and_then(number)) {
        (Some(first), Some(second)) => Ok((first, second)),
        _ => Err(Stop::Needs(format!("needs {name}={given}"))),
    }
}

/// Compares the numbers of an optimizer, and the indices of its parameters, with torch's parameter group.
pub fn check_group(optimizer: &dyn DynOptimizer, params: &[usize], want: &Value) -> Checked {
    compare::json("params", &params.into(), want.field("params")?)?;
    let tolerance = Tolerance::JSON;
    let check = |name: &str, want: &Value| {
        let Some(want) = number(want) else { return Ok(()) };
        match optimizer.scalar(name) {
            Some(got) if tolerance.allows(got, want) => Ok(()),
            got => {
                Err(Stop::Differs(format!("param_groups: {name}: expected {want}, got {got:?}")))
            }
        }
    };
    for (name, want) in want.as_object().into_iter().flatten() {
        let parts: &[&str] = match name.as_str() {
            "betas" => &["beta1", "beta2"],
            "etas" => &["etaminus", "etaplus"],
            "step_sizes" => &["step_size_min", "step_size_max"],
            "eps" if want.is_array() => &["eps1", "eps2"],
            "params" => continue,
            _ => {
                check(name, want)?;
                continue;
            }
        };
        parts.iter().enumerate().try_for_each(|(index, part)| check(part, &want[index]))?;
    }
    Ok(())
}
