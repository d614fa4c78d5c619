//! Schedulers of the group `optim`: the learning rates that they give.

use neurarch::components::scheduler::{Anneal, CyclicMode, LRScheduler, Mode, ThresholdMode};
use neurarch::prelude::*;
use serde_json::Value;

use crate::runner::arguments::{Arguments, number};
use crate::runner::case::{Case, Checked, Fields, Stop};
use crate::runner::compare::Tolerance;

/// Schedules the parameter groups of one optimizer.
pub fn run(case: &Case<'_>) -> Checked {
    let rates: Vec<_> = case.json.list("lr")?.iter().filter_map(Value::as_f64).collect();
    let momentum = case.json.get("momentum").and_then(Value::as_f64).unwrap_or(0.0);
    let mut world = World::new();
    let mut of_group = rates.iter().map(|&lr| SGD { lr, momentum, ..SGD::default() });
    let mut groups = ParamGroups::new(of_group.next().unwrap_or_default());
    of_group.for_each(|sgd| groups.add_param_group(|_| false, sgd));
    let schedulers = (0..rates.len()).map(|group| scheduler(case.json, group, case));
    let schedulers = schedulers.collect::<Checked<Vec<_>>>()?;
    let mut layer = world.spawn_population(&Linear::new(1, 1), 1, Seed(0))?;
    layer.insert(groups)?.schedule(schedulers)?;
    let expected = case.json.field("expect")?;
    for step in 0..=case.json.field("steps")?.as_u64().unwrap_or(0) as usize {
        if step > 0 {
            let argument = |list: &str| {
                case.json.get(list).and_then(|list| list.get(step - 1)).and_then(number)
            };
            match (argument("metrics"), argument("epochs")) {
                (Some(metric), _) => layer.step_schedulers_with_metrics(&[metric])?,
                (None, Some(epoch)) => layer.step_schedulers_to(epoch)?,
                (None, None) => layer.step_schedulers()?,
            }
        }
        let root = layer.models()?[0];
        let groups = layer.world().get::<ParamGroups<SGD>>(root);
        let groups = groups.ok_or(Stop::Differs("no optimizer".into()))?;
        for (index, sgd) in groups.iter().enumerate() {
            check(expected, "lr", step, index, sgd.lr)?;
            if expected.get("momentum").is_some() {
                check(expected, "momentum", step, index, sgd.momentum)?;
            }
        }
    }
    Ok(())
}

/// Compares a rate of a group after some steps.
fn check(expected: &Value, name: &str, step: usize, group: usize, got: f64) -> Checked {
    let Some(want) = expected.field(name)?[step][group].as_f64() else { return Ok(()) };
    match (Tolerance { rtol: 1e-7, atol: 1e-12 }).allows(got, want) {
        true => Ok(()),
        false => Err(Stop::Differs(format!(
            "{name} of group {group} after {step} steps: expected {want}, got {got}"
        ))),
    }
}

/// Makes the scheduler of a parameter group.
fn scheduler(json: &Value, group: usize, case: &Case<'_>) -> Checked<Box<dyn LRScheduler>> {
    let mut args = Arguments::new(json.text("scheduler")?, json.get("args"), case);
    let args = &mut args;
    if args.axis("last_epoch", Some(-1))? != -1 {
        return Err(Stop::Needs(format!("needs {} with last_epoch", args.class)));
    }
    let made: Box<dyn LRScheduler> = match args.class {
        "StepLR" => Box::new(StepLR {
            step_size: args.size("step_size")?,
            gamma: args.number("gamma", 0.1)?,
        }),
        "MultiStepLR" => {
            let gamma = args.number("gamma", 0.1)?;
            Box::new(MultiStepLR { milestones: steps(args, "milestones"), gamma })
        }
        "ConstantLR" => {
            let factor = args.number("factor", 1.0 / 3.0)?;
            Box::new(ConstantLR {
                factor,
                total_iters: args.axis("total_iters", Some(5))? as usize,
            })
        }
        "LinearLR" => Box::new(LinearLR {
            start_factor: args.number("start_factor", 1.0 / 3.0)?,
            end_factor: args.number("end_factor", 1.0)?,
            total_iters: args.axis("total_iters", Some(5))? as usize,
        }),
        "ExponentialLR" => Box::new(ExponentialLR { gamma: args.number("gamma", 1.0)? }),
        "PolynomialLR" => Box::new(PolynomialLR {
            total_iters: args.axis("total_iters", Some(5))? as usize,
            power: args.number("power", 1.0)?,
        }),
        "CosineAnnealingLR" => Box::new(CosineAnnealingLR {
            t_max: args.size("T_max")?,
            eta_min: args.number("eta_min", 0.0)?,
        }),
        "CosineAnnealingWarmRestarts" => Box::new(CosineAnnealingWarmRestarts::new(
            args.size("T_0")?,
            args.axis("T_mult", Some(1))? as usize,
            args.number("eta_min", 0.0)?,
        )),
        "LambdaLR" => Box::new(LambdaLR::new(lambda(args, group)?)),
        "MultiplicativeLR" => Box::new(MultiplicativeLR::new(lambda(args, group)?)),
        "CyclicLR" => Box::new(cyclic(args, group)?),
        "OneCycleLR" => Box::new(one_cycle(args, group)?),
        "ReduceLROnPlateau" => Box::new(plateau(args, group)?),
        "SequentialLR" => {
            let mut all = SequentialLR::new(steps(args, "milestones"));
            for part in args.get("schedulers").and_then(Value::as_array).into_iter().flatten() {
                all = all.push(scheduler(part, group, case)?);
            }
            Box::new(all)
        }
        "ChainedScheduler" => {
            let mut all = ChainedScheduler::new();
            for part in args.get("schedulers").and_then(Value::as_array).into_iter().flatten() {
                all = all.push(scheduler(part, group, case)?);
            }
            Box::new(all)
        }
        other => return Err(Stop::Needs(format!("needs {other}"))),
    };
    args.end()?;
    Ok(made)
}

/// Reads a number of a parameter group: one for all, or a list.
fn of_group(
    args: &mut Arguments<'_>,
    name: &'static str,
    default: f64,
    group: usize,
) -> Checked<f64> {
    match args.get(name).and_then(|value| value.get(group)).and_then(Value::as_f64) {
        Some(own) => Ok(own),
        None => args.number(name, default),
    }
}

fn steps(args: &mut Arguments<'_>, name: &'static str) -> Vec<usize> {
    let steps = args.get(name).and_then(Value::as_array).into_iter().flatten();
    steps.filter_map(Value::as_u64).map(|step| step as usize).collect()
}

/// Reads a function of the number of steps.
fn lambda(
    args: &mut Arguments<'_>,
    group: usize,
) -> Checked<Box<dyn Fn(usize) -> f64 + Send + Sync>> {
    let given = args.get("lr_lambda").cloned().unwrap_or_default();
    let given = given.get(group).cloned().unwrap_or(given);
    let number = |name: &str| given.get(name).and_then(Value::as_f64).unwrap_or(1.0);
    match given.text("$lambda")? {
        "power" => {
            let base = number("base");
            Ok(Box::new(move |step| base.powi(step as i32)))
        }
        "inverse" => {
            let scale = number("scale");
            Ok(Box::new(move |step| 1.0 / (1.0 + scale * step as f64)))
        }
        "table" => {
            let values: Vec<f64> = given.list("values")?.iter().filter_map(Value::as_f64).collect();
            Ok(Box::new(move |step| values[step.min(values.len() - 1)]))
        }
        other => Err(Stop::Needs(format!("needs the function {other}"))),
    }
}

/// Reads the momenta that a cycle goes between.
fn cycle_momentum(
    args: &mut Arguments<'_>,
    (base, max): (f64, f64),
    group: usize,
) -> Checked<Option<(f64, f64)>> {
    let momenta = (
        of_group(args, "base_momentum", base, group)?,
        of_group(args, "max_momentum", max, group)?,
    );
    Ok(args.flag("cycle_momentum", true)?.then_some(momenta))
}

fn cyclic(args: &mut Arguments<'_>, group: usize) -> Checked<CyclicLR> {
    let gamma = args.number("gamma", 1.0)?;
    let down = args.get("step_size_down").and_then(Value::as_u64);
    // Without a function of one's own the mode decides.
    args.pass_over(&["scale_mode"]);
    Ok(CyclicLR {
        base_lr: of_group(args, "base_lr", 0.0, group)?,
        max_lr: of_group(args, "max_lr", 0.0, group)?,
        step_size_up: args.axis("step_size_up", Some(2000))? as usize,
        step_size_down: down.map(|steps| steps as usize),
        mode: match args.word("mode", "triangular")?.as_str() {
            "triangular" => CyclicMode::Triangular,
            "triangular2" => CyclicMode::Triangular2,
            "exp_range" => CyclicMode::ExpRange { gamma },
            other => return Err(Stop::Needs(format!("needs CyclicLR with mode={other}"))),
        },
        cycle_momentum: cycle_momentum(args, (0.8, 0.9), group)?,
    })
}

fn one_cycle(args: &mut Arguments<'_>, group: usize) -> Checked<OneCycleLR> {
    let epochs = args.axis("epochs", Some(0))? * args.axis("steps_per_epoch", Some(0))?;
    Ok(OneCycleLR {
        max_lr: of_group(args, "max_lr", 0.0, group)?,
        total_steps: args.axis("total_steps", Some(epochs))? as usize,
        pct_start: args.number("pct_start", 0.3)?,
        anneal_strategy: match args.word("anneal_strategy", "cos")?.as_str() {
            "linear" => Anneal::Linear,
            _ => Anneal::Cos,
        },
        cycle_momentum: cycle_momentum(args, (0.85, 0.95), group)?,
        div_factor: args.number("div_factor", 25.0)?,
        final_div_factor: args.number("final_div_factor", 1e4)?,
        three_phase: args.flag("three_phase", false)?,
    })
}

fn plateau(args: &mut Arguments<'_>, group: usize) -> Checked<ReduceLROnPlateau> {
    Ok(ReduceLROnPlateau {
        mode: if args.word("mode", "min")? == "max" { Mode::Max } else { Mode::Min },
        factor: args.number("factor", 0.1)?,
        patience: args.axis("patience", Some(10))? as usize,
        threshold: args.number("threshold", 1e-4)?,
        threshold_mode: match args.word("threshold_mode", "rel")?.as_str() {
            "abs" => ThresholdMode::Abs,
            _ => ThresholdMode::Rel,
        },
        cooldown: args.axis("cooldown", Some(0))? as usize,
        min_lr: of_group(args, "min_lr", 0.0, group)?,
        eps: args.number("eps", 1e-8)?,
        ..ReduceLROnPlateau::default()
    })
}
