//! The group `init`: what parameters start with, and which elements dropout drops.
//!
//! Random numbers are compared by their distribution: of many models, the share of numbers below some quantiles
//! is as expected within 4.5 standard errors.

use ndarray::{ArrayD, ArrayView2, Axis, Dimension};
use neurarch::components::module::DynModule;
use neurarch::kernels::ir::shape::Shape;
use neurarch::prelude::*;
use neurarch::systems::init::{self, FanMode, InitError, NoFans, Nonlinearity, UnknownName};
use serde_json::{Value, json};

use crate::runner::build::model::{self, Model};
use crate::runner::case::{Case, Checked, Fields, Stop, shape, text};
use crate::runner::compare::{self, Tolerance};
use crate::runner::tensors::array;

/// As many numbers are drawn for a distribution, at least.
const DRAWS: usize = 20_000;
/// Standard errors that a share may be off: one of 150,000 is by chance.
const ERRORS: f64 = 4.5;

/// Runs a case.
pub fn run(case: &Case<'_>) -> Checked {
    match case.json.text("kind")? {
        "gain" => gain(case),
        "fan" => fan(case),
        "distribution" => distribution(case),
        "exact" => exact(case),
        "moments" => moments(case),
        "orthogonal" => orthogonal(case),
        "sparse" => sparse(case),
        "error" => error(case),
        "layer" => layer(case),
        "dropout" => dropout(case),
        other => Err(Stop::Needs(format!("needs kind {other}"))),
    }
}

/// Why a function of `torch.nn.init` did not fill a tensor.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Init(#[from] InitError),
    #[error(transparent)]
    Name(#[from] UnknownName),
    #[error(transparent)]
    Fans(#[from] NoFans),
}

fn gain(case: &Case<'_>) -> Checked {
    let name = case.json.text("nonlinearity")?;
    let param = case.json.field("param")?;
    let expected = case.json.field("expect")?;
    let after = match param {
        Value::Null | Value::Number(_) => nonlinearity(name, param.as_f64()),
        Value::String(words) => Nonlinearity::with_param(name, words),
        other => Nonlinearity::with_param(name, &other.to_string()),
    };
    let gain = after.map(init::calculate_gain);
    match gain {
        Ok(gain) => compare::json("gain", &json!(gain), expected.field("gain")?),
        Err(error) => expect_error(case, &error),
    }
}

/// Reads a nonlinearity; only a leaky one has a slope.
fn nonlinearity(name: &str, slope: Option<f64>) -> Result<Nonlinearity, UnknownName> {
    Ok(match (name.parse()?, slope) {
        (Nonlinearity::LeakyReLU(_), Some(slope)) => Nonlinearity::LeakyReLU(slope),
        (other, _) => other,
    })
}

fn fan(case: &Case<'_>) -> Checked {
    let (fan_in, fan_out) = init::calculate_fan_in_and_fan_out(&shape_of(case)?)?;
    compare::json(
        "fans",
        &json!({"fan_in": fan_in, "fan_out": fan_out}),
        case.json.field("expect")?,
    )
}

fn shape_of(case: &Case<'_>) -> Checked<Shape> {
    Ok(Shape::from(shape(case.json.field("shape")?)?))
}

/// Fills the weight of as many models; `[models, *shape]`.
fn filled(case: &Case<'_>, models: usize) -> Checked<Result<ArrayD<f64>, Refused>> {
    let holder = BareModule::new().parameter("weight", shape_of(case)?, Init::Zeros);
    let (mut world, population) = spawn(&holder, models)?;
    match apply(case, &mut world, population)? {
        Ok(()) => Ok(Ok(world.population_mut(population)?.stack("weight")?)),
        Err(refused) => Ok(Err(refused)),
    }
}

/// Fills the weight of as many models as have [`DRAWS`] numbers.
fn drawn(case: &Case<'_>) -> Checked<ArrayD<f64>> {
    let numbers: usize = shape_of(case)?.iter().product();
    Ok(filled(case, DRAWS.div_ceil(numbers.max(1)))??)
}

fn spawn(module: &dyn DynModule, models: usize) -> Checked<(World, Entity)> {
    let mut world = World::new();
    let settings =
        PopulationSettings { models, seed: 7, dtype: Dtype::F64, ..PopulationSettings::default() };
    let population = world.spawn_population_with(module, settings)?.id();
    Ok((world, population))
}

/// Calls the function of the case on the weights of a population.
fn apply(case: &Case<'_>, world: &mut World, population: Entity) -> Checked<Result<(), Refused>> {
    let args = case.json.field("args")?;
    let number =
        |name: &str, default: f64| args.get(name).and_then(Value::as_f64).unwrap_or(default);
    let word = |name: &str, default: &'static str| {
        args.get(name).and_then(Value::as_str).unwrap_or(default).to_owned()
    };
    let kaiming = || -> Result<(FanMode, Nonlinearity), UnknownName> {
        let mode = word("mode", "fan_in").parse()?;
        let slope = Some(number("a", 0.0));
        Ok((mode, nonlinearity(&word("nonlinearity", "leaky_relu"), slope)?))
    };
    let (world, weight) = (world, "weight");
    let done = match case.json.text("function")? {
        "uniform_" => init::uniform_(world, population, weight, number("a", 0.0), number("b", 1.0)),
        "normal_" => {
            init::normal_(world, population, weight, number("mean", 0.0), number("std", 1.0))
        }
        "trunc_normal_" => {
            let moments = (number("mean", 0.0), number("std", 1.0));
            let bounds = (number("a", -2.0), number("b", 2.0));
            init::trunc_normal_(world, population, weight, moments, bounds)
        }
        "constant_" => init::constant_(world, population, weight, number("val", 0.0)),
        "ones_" => init::ones_(world, population, weight),
        "zeros_" => init::zeros_(world, population, weight),
        "eye_" => init::eye_(world, population, weight),
        "dirac_" => {
            let groups = args.get("groups").and_then(Value::as_u64).unwrap_or(1);
            init::dirac_(world, population, weight, groups as usize)
        }
        "xavier_uniform_" => init::xavier_uniform_(world, population, weight, number("gain", 1.0)),
        "xavier_normal_" => init::xavier_normal_(world, population, weight, number("gain", 1.0)),
        "orthogonal_" => init::orthogonal_(world, population, weight, number("gain", 1.0)),
        "sparse_" => {
            let (sparsity, std) = (number("sparsity", 0.0), number("std", 0.01));
            init::sparse_(world, population, weight, sparsity, std)
        }
        "kaiming_uniform_" => match kaiming() {
            Ok((mode, after)) => init::kaiming_uniform_(world, population, weight, mode, after),
            Err(unknown) => return Ok(Err(unknown.into())),
        },
        "kaiming_normal_" => match kaiming() {
            Ok((mode, after)) => init::kaiming_normal_(world, population, weight, mode, after),
            Err(unknown) => return Ok(Err(unknown.into())),
        },
        "_calculate_fan_in_and_fan_out" => {
            let fans = init::calculate_fan_in_and_fan_out(&shape_of(case)?);
            return Ok(fans.map(drop).map_err(Refused::from));
        }
        other => return Err(Stop::Needs(format!("needs {other}"))),
    };
    Ok(done.map_err(Refused::from))
}

fn distribution(case: &Case<'_>) -> Checked {
    let drawn = drawn(case)?;
    check_distribution("weight", drawn.iter().copied().collect(), case.json.field("expect")?)
}

fn exact(case: &Case<'_>) -> Checked {
    let got = filled(case, 1)??.index_axis_move(Axis(0), 0);
    compare::array("tensor", &got, case.expect("tensor")?, case.tolerance("f64"))
}

fn moments(case: &Case<'_>) -> Checked {
    let drawn = filled(case, 1)??;
    let expected = case.json.field("expect")?;
    let (low, high) = (expected_number(expected, "low")?, expected_number(expected, "high")?);
    if let Some(out) = drawn.iter().find(|x| !(low..=high).contains(*x)) {
        return Err(Stop::Differs(format!("expected numbers in [{low}, {high}], got {out}")));
    }
    let within = Tolerance { rtol: 0.0, atol: 0.02 };
    for (name, got) in
        [("sample_mean", drawn.mean().unwrap_or(f64::NAN)), ("sample_std", drawn.std(0.0))]
    {
        let want = expected_number(expected, name)?;
        if !within.allows(got, want) {
            return Err(Stop::Differs(format!("{name}: expected {want}, got {got}")));
        }
    }
    Ok(())
}

fn expected_number(expected: &Value, name: &str) -> Checked<f64> {
    let value = expected.field(name)?;
    value.as_f64().ok_or_else(|| Stop::Differs(format!("\"{name}\" is no number: {value}")))
}

fn orthogonal(case: &Case<'_>) -> Checked {
    let filled = filled(case, 1)??;
    let rows = filled.shape()[1];
    let flat: Vec<f64> = filled.into_iter().collect();
    let matrix = ArrayView2::from_shape((rows, flat.len() / rows), &flat)?;
    let expected = case.json.field("expect")?;
    let gram = match expected.text("gram")? {
        "W W^T" => matrix.dot(&matrix.t()),
        "W^T W" => matrix.t().dot(&matrix),
        other => return Err(Stop::Needs(format!("needs the Gram matrix {other}"))),
    };
    let diagonal = expected_number(expected, "diagonal")?;
    for ((i, j), &got) in gram.indexed_iter() {
        let want = if i == j { diagonal } else { 0.0 };
        if (got - want).abs() > 1e-8 {
            return Err(Stop::Differs(format!("gram[{i}, {j}]: expected {want}, got {got}")));
        }
    }
    Ok(())
}

fn sparse(case: &Case<'_>) -> Checked {
    let filled = filled(case, 1)??.index_axis_move(Axis(0), 0);
    let allowed = case.json.field("expect")?.list("zeros_per_column")?;
    for (column, numbers) in filled.axis_iter(Axis(1)).enumerate() {
        let zeros = numbers.iter().filter(|&&x| x == 0.0).count();
        if !allowed.contains(&json!(zeros)) {
            let what = format!("column {column}: expected {allowed:?} zeros, got {zeros}");
            return Err(Stop::Differs(what));
        }
    }
    Ok(())
}

fn error(case: &Case<'_>) -> Checked {
    match filled(case, 1)? {
        Ok(_) => Err(Stop::Differs("expected an error, got numbers".into())),
        Err(refused) => expect_error(case, &refused),
    }
}

/// Compares an error with torch's words, which ours may say more than.
fn expect_error(case: &Case<'_>, got: &dyn std::error::Error) -> Checked {
    let expected = case.json.field("expect")?.field("error")?;
    let (want, got) = (text(&expected[1])?, got.to_string());
    match got.contains(want) {
        true => Ok(()),
        false => Err(Stop::Differs(format!("expected the error {want:?}, got {got:?}"))),
    }
}

fn layer(case: &Case<'_>) -> Checked {
    let module = model::build(case.json, case)?;
    let expected = case.json.field("expect")?;
    check_record(expected)?;
    let mut alone = Model::spawn_module(&*module, Dtype::F64)?;
    let Model { world, root, .. } = &mut alone;
    let mut lists = [
        ("params", world.module_mut(*root)?.named_parameters()?),
        ("buffers", world.module_mut(*root)?.named_buffers()?),
    ];
    for (list, found) in &mut lists {
        let want = expected.field(list)?.as_object().into_iter().flatten();
        let want: Vec<(&String, &Value)> = want.collect();
        let names: Vec<_> = found.iter().map(|tensor| tensor.name.as_str()).collect();
        compare::equal(
            list,
            &names[..],
            &want.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>()[..],
        )?;
        for (name, tensor) in want {
            check_start(&*module, world, *root, name, tensor)?;
        }
    }
    Ok(())
}

/// Refuses a record that PyTorch contradicts: the biases of its transformers' norms and of its attention's
/// `out_proj` start with zeros.
fn check_record(expected: &Value) -> Checked {
    let params = expected.field("params")?.as_object().into_iter().flatten();
    let is_wrong = |(name, of): &(&String, &Value)| {
        let mut path = name.rsplit('.');
        let (last, module) = (path.next(), path.next().unwrap_or_default());
        let is_zero = module.starts_with("norm") || module == "out_proj";
        last == Some("bias") && is_zero && of["dist"] == "uniform"
    };
    match params.into_iter().find(is_wrong) {
        Some((name, _)) => Err(Stop::Needs(format!(
            "{name} is recorded as uniform, but starts with zeros in PyTorch 2.15"
        ))),
        None => Ok(()),
    }
}

/// Compares the shape and the first numbers of a parameter or buffer.
fn check_start(
    module: &dyn DynModule,
    world: &mut World,
    root: Entity,
    name: &str,
    expected: &Value,
) -> Checked {
    let state = world.module_mut(root)?.state_dict()?;
    let alone =
        state.get(name).ok_or_else(|| Stop::Differs(format!("{name} is not in the state")))?;
    compare::equal(
        &format!("shape of {name}"),
        alone.shape(),
        &shape(expected.field("shape")?)?[..],
    )?;
    if alone.dtype() != Dtype::F64 {
        let numbers = crate::runner::tensors::numbers(alone)?.into_iter().collect();
        return check_distribution(name, numbers, expected);
    }
    let numbers: usize = alone.shape().iter().product();
    let (mut world, population) = spawn(module, DRAWS.div_ceil(numbers.max(1)))?;
    let all = world.population_mut(population)?.stack::<f64>(name)?;
    let zero_rows = expected.list("zero_rows")?;
    let (zeros, drawn): (Vec<_>, Vec<_>) = all.indexed_iter().partition(|(place, _)| {
        place.slice().get(1).is_some_and(|&row| zero_rows.contains(&json!(row)))
    });
    if zeros.iter().any(|(_, x)| **x != 0.0) {
        return Err(Stop::Differs(format!("{name}: expected zeros in the rows {zero_rows:?}")));
    }
    check_distribution(name, drawn.into_iter().map(|(_, x)| *x).collect(), expected)
}

/// Compares numbers with what a tensor is filled with.
fn check_distribution(name: &str, drawn: Vec<f64>, expected: &Value) -> Checked {
    let number = |field| expected_number(expected, field);
    match expected.text("dist")? {
        "constant" => {
            let value = number("value")?;
            // PyTorch fills in f32 what is read here in f64.
            match drawn.iter().find(|&&x| !Tolerance { rtol: 1e-6, atol: 0.0 }.allows(x, value)) {
                Some(x) => Err(Stop::Differs(format!("{name}: expected {value}, got {x}"))),
                None => Ok(()),
            }
        }
        "uniform" => {
            let (low, high) = (number("low")?, number("high")?);
            let slack = 1e-9 * (high - low);
            if let Some(x) = drawn.iter().find(|&&x| x < low - slack || x > high + slack) {
                let what = format!("{name}: expected numbers in [{low}, {high}], got {x}");
                return Err(Stop::Differs(what));
            }
            let quantiles = [0.05, 0.25, 0.5, 0.75, 0.95].map(|p| (p, low + p * (high - low)));
            check_quantiles(name, &drawn, &quantiles)
        }
        "normal" => {
            let (mean, std) = (number("mean")?, number("std")?);
            // Of the standard normal distribution.
            let standard = [
                (0.022_750_132, -2.0),
                (0.158_655_254, -1.0),
                (0.5, 0.0),
                (0.841_344_746, 1.0),
                (0.977_249_868, 2.0),
            ];
            check_quantiles(name, &drawn, &standard.map(|(p, z)| (p, mean + std * z)))
        }
        other => Err(Stop::Needs(format!("needs the distribution {other}"))),
    }
}

/// Compares the share of numbers below each quantile with its probability.
fn check_quantiles(name: &str, drawn: &[f64], quantiles: &[(f64, f64)]) -> Checked {
    for &(probability, quantile) in quantiles {
        let below = drawn.iter().filter(|&&x| x < quantile).count();
        check_share(&format!("{name} below {quantile}"), below, drawn.len(), probability)?;
    }
    Ok(())
}

/// Compares how often something happened with its probability.
fn check_share(what: &str, times: usize, of: usize, probability: f64) -> Checked {
    let error = (probability * (1.0 - probability) / of as f64).sqrt();
    let share = times as f64 / of as f64;
    match (share - probability).abs() <= ERRORS * error {
        true => Ok(()),
        false => Err(Stop::Differs(format!(
            "{what}: expected {probability} ± {error} of {of}, got {share}"
        ))),
    }
}

fn dropout(case: &Case<'_>) -> Checked {
    const MODELS: usize = 400;
    let module = model::build(case.json, case)?;
    let (mut world, population) = spawn(&*module, MODELS)?;
    let expected = case.json.field("expect")?;
    let number = |name| expected_number(expected, name);
    let (scale, shift, value) =
        (number("kept_scale")?, number("kept_shift")?, number("dropped_value")?);
    let within = Tolerance { rtol: 1e-6, atol: 1e-6 };
    let input = array::<f64>(case.expect("input/0")?)?;
    let output = world.population_mut(population)?.forward(Input::shared(input.view()))?;
    let whole_channels = expected.flag("whole_channels");
    let fates = if whole_channels { input.shape()[..2].iter().product() } else { input.len() };
    let each = input.len() / fates;
    let mut dropped = 0;
    for model in output.outer_iter() {
        let elements: Vec<(f64, f64)> = model.iter().copied().zip(input.iter().copied()).collect();
        for together in elements.chunks(each) {
            let all = |is: &dyn Fn(f64, f64) -> bool| together.iter().all(|&(y, x)| is(y, x));
            if all(&|y, _| within.allows(y, value)) {
                dropped += 1;
            } else if !all(&|y, x| within.allows(y, scale * x + shift)) {
                let what = format!("{together:?} are neither kept nor dropped together");
                return Err(Stop::Differs(what));
            }
        }
    }
    let p = case.json.field("args")?.get("p").and_then(Value::as_f64).unwrap_or(0.5);
    check_share("dropped", dropped, MODELS * fates, p)
}
