//! The group `modules`: forward and backward of modules.

use std::collections::BTreeMap;
use std::ops::Add;

use ndarray::{ArrayD, Axis};
use neurarch::components::module::DynModule;
use neurarch::hooks::Target;
use neurarch::kernels::ir::dtype::Element;
use neurarch::prelude::*;
use neurarch::systems::execute::step::input_gradients;
use serde_json::Value as Json;

use crate::runner::build::model::{Model, build};
use crate::runner::build::recurrent;
use crate::runner::case::{Case, Checked, Fields, Stop};
use crate::runner::compare::{self, Tolerance};
use crate::runner::tensors::array;

/// Runs a case.
pub fn run(case: &Case<'_>) -> Checked {
    match case.json.text("dtype")? {
        "f32" => run_in::<f32>(case),
        "f64" => run_in::<f64>(case),
        other => Err(Stop::Needs(format!("needs modules in {other}"))),
    }
}

/// An input of any element type.
pub enum Numbers {
    F32(ArrayD<f32>),
    F64(ArrayD<f64>),
    I64(ArrayD<i64>),
    Bool(ArrayD<u8>),
}

impl Numbers {
    /// Copies a tensor.
    pub fn of(tensor: &Tensor) -> Checked<Self> {
        Ok(match tensor.dtype() {
            Dtype::F32 => Numbers::F32(array(tensor)?),
            Dtype::F64 => Numbers::F64(array(tensor)?),
            Dtype::I64 => Numbers::I64(array(tensor)?),
            Dtype::Bool => Numbers::Bool(array(tensor)?),
            other => return Err(Stop::Needs(format!("needs inputs of {other}"))),
        })
    }

    fn input(&self, requires_grad: bool) -> AnyInput<'_> {
        fn of<T: Element>(x: &ArrayD<T>, requires_grad: bool) -> AnyInput<'_> {
            let x = Input::shared(x.view());
            if requires_grad { x.requires_grad().into() } else { x.into() }
        }
        match self {
            Numbers::F32(x) => of(x, requires_grad),
            Numbers::F64(x) => of(x, requires_grad),
            Numbers::I64(x) => of(x, requires_grad),
            Numbers::Bool(x) => of(x, requires_grad),
        }
    }
}

fn run_in<T: Element + Add<Output = T>>(case: &Case<'_>) -> Checked {
    let tolerance = case.tolerance(&T::DTYPE.to_string());
    let mut model = Model::spawn_module(&*module(case)?, T::DTYPE)?;
    model.set_state(case, "state")?;
    check_names(case, &mut model)?;
    let Model { world, population, root } = &mut model;
    if case.json.text("mode")? == "eval" {
        world.module_mut(*population)?.eval()?;
    }
    let mut inputs = Vec::new();
    for (index, input) in case.json.list("inputs")?.iter().enumerate() {
        let numbers = Numbers::of(case.expect(&format!("input/{index}"))?)?;
        inputs.push((numbers, input.flag("requires_grad")));
    }
    if inputs.iter().all(|(_, requires_grad)| !requires_grad) {
        // In evaluation mode only a pass that is watched can be gone back from.
        world.target_mut(Target::All).register_forward_hook(|_, _, _| Ok(None))?;
    }
    let mut used = Vec::new();
    let arguments = arguments(case, &mut used)?;
    let arguments = arguments.map(&mut |index: usize| {
        let (numbers, requires_grad) = &inputs[index];
        numbers.input(*requires_grad)
    });
    let output = world.population_mut(*population)?.forward_any(arguments)?;
    let mut leaves = Vec::new();
    check_output(
        case,
        &output,
        case.json.field("expect")?.field("output")?,
        tolerance,
        &mut leaves,
    )?;

    let mut gradients: Vec<Option<ArrayD<T>>> = Vec::new();
    for index in leaves {
        let gradient = case.tensor(&format!("grad_output/{index}"));
        gradients.push(gradient.map(array).transpose()?);
    }
    if gradients.iter().any(Option::is_some) {
        let given = gradients.iter().map(|gradient| {
            gradient.as_ref().map(|gradient| Input::shared(gradient.view()).into())
        });
        world
            .population_mut(*population)?
            .backward_with(&given.collect::<Vec<Option<AnyInput<'_>>>>())?;
        let found = input_gradients::<T>(world, *population)?;
        for (index, gradient) in joined(found, &used) {
            check_gradient(case, &format!("grad_input/{index}"), gradient, tolerance)?;
        }
        for name in world.module_mut(*root)?.parameter_names()? {
            let gradient = world.module_mut(*root)?.gradient::<T>(&name)?;
            check_gradient(case, &format!("grad/{name}"), gradient, tolerance)?;
        }
    }
    for got in &world.module_mut(*root)?.state_dict()? {
        let name = &got.name;
        let after = case.tensor(&format!("state_after/{name}"));
        let want = after.map_or_else(|| case.expect(&format!("state/{name}")), Ok)?;
        compare::tensor(&format!("state_after/{name}"), got, want, tolerance)?;
    }
    Ok(())
}

/// Builds the module of a case.
pub fn module(case: &Case<'_>) -> Checked<Box<dyn DynModule>> {
    let inner = build(case.json, case)?;
    let log_softmax = log_softmaxed(case)?;
    Ok(if log_softmax.is_empty() { inner } else { Box::new(Pre { inner, log_softmax }) })
}

/// Lists the arguments that a module is called with the log-softmax of.
fn log_softmaxed(case: &Case<'_>) -> Checked<Vec<usize>> {
    let pre = case.json.get("pre").and_then(Json::as_object).into_iter().flatten();
    let place = |(place, function): (&String, &Json)| match (place.parse(), function.as_str()) {
        (Ok(place), Some("log_softmax(dim=-1)")) => Ok(place),
        _ => Err(Stop::Needs(format!("needs {function} in front of a module"))),
    };
    pre.map(place).collect()
}

/// A module that is called with the log-softmax of some arguments.
#[derive(Component, Clone, Debug)]
#[component(immutable)]
struct Pre {
    inner: Box<dyn DynModule>,
    log_softmax: Vec<usize>,
}

impl PartialEq for Pre {
    fn eq(&self, other: &Self) -> bool {
        self.log_softmax == other.log_softmax && self.inner.equals(&*other.inner)
    }
}

impl Module for Pre {
    fn declare(&self, declare: &mut Declare) {
        self.inner.declare(declare);
    }

    fn forward_with(
        &self,
        call: &Call<'_>,
        mut arguments: neurarch::kernels::ir::tree::Arguments,
    ) -> Tree {
        for (place, argument) in arguments.positional.iter_mut().enumerate() {
            if let (Tree::Leaf(x), true) = (&argument, self.log_softmax.contains(&place)) {
                *argument = x.log_softmax(-1).into();
            }
        }
        self.inner.forward_with(call, arguments)
    }

    fn structural(&self) -> Self {
        Pre { inner: self.inner.structural(), ..self.clone() }
    }

    fn scalar(&self, name: &str) -> Option<f64> {
        self.inner.scalar(name)
    }
}

/// Adds up the gradients of the arguments that are one input, and gives those of each input.
fn joined<T: Element + Add<Output = T>>(
    found: Vec<Option<ArrayD<T>>>,
    used: &[usize],
) -> BTreeMap<usize, Option<ArrayD<T>>> {
    let mut joined: BTreeMap<usize, Option<ArrayD<T>>> = BTreeMap::new();
    for (gradient, &index) in found.into_iter().zip(used) {
        let gradient = gradient.map(|gradient| gradient.index_axis_move(Axis(0), 0));
        let sum = joined.entry(index).or_default();
        *sum = match (sum.take(), gradient) {
            (Some(sum), Some(gradient)) => Some(sum + gradient),
            (sum, gradient) => sum.or(gradient),
        };
    }
    joined
}

/// Compares the names of what the module has.
fn check_names(case: &Case<'_>, model: &mut Model) -> Checked {
    let Model { world, root, .. } = model;
    let expected = case.json.field("expect")?;
    let state: Vec<_> = world.module_mut(*root)?.state_dict()?.keys().map(str::to_owned).collect();
    let parameters =
        world.module_mut(*root)?.named_parameters()?.into_iter().map(|of| of.name).collect();
    let buffers = world.module_mut(*root)?.named_buffers()?.into_iter().map(|of| of.name).collect();
    let lists: [(&str, Vec<String>); 3] =
        [("state_keys", state), ("params", parameters), ("buffers", buffers)];
    lists
        .into_iter()
        .try_for_each(|(what, got)| compare::json(what, &got.into(), expected.field(what)?))
}

/// Reads what the module is called with; the leaves are the numbers of inputs, listed in
/// `used`; one that occurs several times is passed as several inputs.
pub fn arguments(case: &Case<'_>, used: &mut Vec<usize>) -> Checked<Arguments<usize>> {
    let (forward, batch_first) = (case.json.field("forward")?, recurrent::batch_first(case));
    let mut argument = |tree| argument(tree, batch_first, used);
    let positional = forward.list("args")?.iter().map(&mut argument);
    let positional = positional.collect::<Checked<Vec<_>>>()?;
    let keyword = forward.get("kwargs").and_then(Json::as_object).into_iter().flatten();
    let keyword = keyword.map(|(name, tree)| Ok((name.clone(), argument(tree)?)));
    Ok(Arguments { positional, keyword: keyword.collect::<Checked<_>>()? })
}

fn argument(tree: &Json, batch_first: bool, used: &mut Vec<usize>) -> Checked<Tree<usize>> {
    if let Some(index) = tree.get("tensor").and_then(Json::as_u64) {
        let index = index as usize;
        used.push(index);
        return Ok(Tree::Leaf(index));
    }
    if let Some(items) = tree.get("tuple").and_then(Json::as_array) {
        let items = items.iter().map(|item| argument(item, batch_first, used));
        return Ok(Tree::Tuple(items.collect::<Checked<_>>()?));
    }
    if let Some(padded) = tree.get("packed") {
        let Tree::Leaf(data) = argument(padded, batch_first, used)? else {
            return Err(Stop::Needs(format!("needs the argument {tree}")));
        };
        let lengths = recurrent::lengths(tree)?;
        return Ok(PackedSequence { data, lengths, batch_first, enforce_sorted: false }.into());
    }
    tree.get("value")
        .map_or_else(|| Err(Stop::Needs(format!("needs the argument {tree}"))), literal)
}

/// Reads a literal; an array is a tuple.
fn literal(value: &Json) -> Checked<Tree<usize>> {
    match value {
        Json::Null => Ok(Tree::None),
        Json::Bool(flag) => Ok(Tree::Flag(*flag)),
        Json::Number(number) => Ok(Tree::Number(number.as_f64().unwrap_or(f64::NAN))),
        Json::Array(items) => Ok(Tree::Tuple(items.iter().map(literal).collect::<Checked<_>>()?)),
        other => Err(Stop::Needs(format!("needs the argument {other}"))),
    }
}

/// Compares results as they are nested; lists the numbers of the leaves that have gradients.
fn check_output(
    case: &Case<'_>,
    got: &Tree<AnyArray>,
    want: &Json,
    tolerance: Tolerance,
    leaves: &mut Vec<u64>,
) -> Checked {
    let index = want.get("tensor").and_then(Json::as_u64);
    let items = want.get("tuple").and_then(Json::as_array);
    match (got, index, items) {
        (Tree::Leaf(got), Some(index), _) => {
            if matches!(got, AnyArray::F32(_) | AnyArray::F64(_)) {
                leaves.push(index);
            }
            let key = format!("output/{index}");
            let want = case.expect(&key)?;
            match got {
                AnyArray::F32(y) => compare_first(&key, y, want, tolerance),
                AnyArray::F64(y) => compare_first(&key, y, want, tolerance),
                AnyArray::I64(y) => compare_first(&key, y, want, tolerance),
                AnyArray::F16(y) => compare_first(&key, y, want, tolerance),
                AnyArray::BF16(y) => compare_first(&key, y, want, tolerance),
                AnyArray::Bool(y) => compare_first(&key, y, want, tolerance),
            }
        }
        (Tree::Tuple(got), None, Some(want)) if got.len() == want.len() => got
            .iter()
            .zip(want)
            .try_for_each(|(got, want)| check_output(case, got, want, tolerance, leaves)),
        (Tree::None, None, None) if want.is_null() => Ok(()),
        (Tree::Packed(got), None, None) if want.get("padded").is_some() => {
            let of = (got.batch_first, &got.lengths);
            if of != (recurrent::batch_first(case), &recurrent::lengths(want)?) {
                return Err(Stop::Differs(format!("output: expected {want}, got lengths {of:?}")));
            }
            let padded = Tree::Leaf(got.data.clone());
            check_output(case, &padded, want.field("padded")?, tolerance, leaves)
        }
        _ => Err(Stop::Differs(format!("output: expected {want}, got a {}", got.type_name()))),
    }
}

/// Compares what the first model gives.
fn compare_first<T: Element>(
    key: &str,
    y: &ArrayD<T>,
    want: &Tensor,
    tolerance: Tolerance,
) -> Checked {
    compare::array(key, &y.index_axis(Axis(0), 0).to_owned(), want, tolerance)
}

/// Compares a gradient that torch may have left at None.
fn check_gradient<T: Element>(
    case: &Case<'_>,
    key: &str,
    got: Option<ArrayD<T>>,
    tolerance: Tolerance,
) -> Checked {
    match (got, case.tensor(key)) {
        (Some(got), Some(want)) => compare::array(key, &got, want, tolerance),
        (None, None) => Ok(()),
        (Some(_), None) => Err(Stop::Differs(format!("{key}: expected None, got a gradient"))),
        (None, Some(_)) => Err(Stop::Differs(format!("{key}: expected a gradient, got None"))),
    }
}
