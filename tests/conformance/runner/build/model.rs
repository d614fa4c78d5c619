//! Models: from a spec to modules, the custom modules of the format, and one model in a world.

use neurarch::components::module::DynModule;
use neurarch::prelude::*;
use neurarch::state::safetensors::Tensor;
use serde_json::Value;

use crate::runner::arguments::{self, Arguments as Args};
use crate::runner::build::attention;
use crate::runner::build::layers;
use crate::runner::case::{Case, Checked, Fields, Stop, shape, text};
use crate::runner::tensors::array;

/// Builds the module of a spec.
pub fn build(spec: &Value, case: &Case<'_>) -> Checked<Box<dyn DynModule>> {
    let class = spec.text("module")?;
    let mut args = Args::new(class, spec.get("args"), case);
    let custom: Box<dyn DynModule> = match class {
        "Sequential" => Box::new(Sequential::from_named(built_children(spec, case)?)?),
        "ModuleList" => {
            let mut list = ModuleList::new();
            for (name, child) in built_children(spec, case)? {
                list.add_module(name, child)?;
            }
            Box::new(list)
        }
        "ModuleDict" => Box::new(ModuleDict::from_named(built_children(spec, case)?)?),
        "Net" => Box::new(Net::of(spec, case)?),
        "Scale" => Box::new(Scale),
        "Pair" => Box::new(Pair),
        "Add" => Box::new(Add),
        "Fail" => Box::new(Fail),
        _ if attention::knows(class) => attention::make(&mut args, case)?,
        _ => return layers::make(&mut args),
    };
    args.end()?;
    Ok(custom)
}

/// Lists the children of a spec.
fn children(spec: &Value) -> Checked<Vec<(&str, &Value)>> {
    let child = |pair: &'_ Value| pair.as_array().is_some_and(|pair| pair.len() == 2);
    let children = spec.list("children")?;
    match children.iter().find(|pair| !child(pair)) {
        Some(other) => Err(Stop::Differs(format!("expected a name and a model, got {other}"))),
        None => children.iter().map(|pair| Ok((text(&pair[0])?, &pair[1]))).collect(),
    }
}

/// Builds the children of a container.
fn built_children<'a>(
    spec: &'a Value,
    case: &Case<'_>,
) -> Checked<Vec<(&'a str, Box<dyn DynModule>)>> {
    let built = |(name, child): (&'a str, &Value)| match child.get("ref") {
        Some(_) => Err(Stop::Needs("needs a shared module in a container".into())),
        None => Ok((name, build(child, case)?)),
    };
    children(spec)?.into_iter().map(built).collect()
}

/// A custom module: it calls its children as it is told.
#[derive(Component, Clone, Debug)]
#[component(immutable)]
struct Net {
    parameters: Vec<(String, Vec<usize>)>,
    buffers: Vec<(String, Vec<usize>, bool)>,
    children: Vec<(String, Child)>,
    /// Parameters that are others, as pairs of paths: tied, and owner.
    ties: Vec<(String, String)>,
    /// `None` calls the children in order.
    calls: Option<Vec<ChildCall>>,
}

/// A child of a [`Net`].
#[derive(Clone, Debug)]
enum Child {
    Own(Box<dyn DynModule>),
    /// The module at that path once more.
    Shared(String),
}

/// A call of a child: its path, and keyword arguments.
#[derive(Clone, Debug, PartialEq)]
struct ChildCall {
    path: String,
    keyword: Vec<(String, f64)>,
}

/// A spawned one has no list of children, since they are entities.
impl PartialEq for Net {
    fn eq(&self, other: &Self) -> bool {
        let alike = |(one, other): (&(String, Child), &(String, Child))| {
            one.0 == other.0
                && match (&one.1, &other.1) {
                    (Child::Own(one), Child::Own(other)) => one.is_like(&**other),
                    (Child::Shared(one), Child::Shared(other)) => one == other,
                    _ => false,
                }
        };
        (&self.parameters, &self.buffers, &self.ties, &self.calls)
            == (&other.parameters, &other.buffers, &other.ties, &other.calls)
            && self.children.len() == other.children.len()
            && self.children.iter().zip(&other.children).all(alike)
    }
}

impl Net {
    fn of(spec: &Value, case: &Case<'_>) -> Checked<Self> {
        // A shape of null registers None, which has no name in any list.
        let tensors = |list: &str| -> Checked<Vec<(String, Vec<usize>, bool)>> {
            let given = spec.list(list)?.iter().filter(|entry| !entry[1].is_null());
            let read = |entry: &Value| {
                Ok((text(&entry[0])?.to_owned(), shape(&entry[1])?, entry[2] != false))
            };
            given.map(read).collect()
        };
        let parameters = tensors("params")?.into_iter().map(|(name, shape, _)| (name, shape));
        let of_child = |(name, child): (&str, &Value)| {
            let child = match child.get("ref") {
                Some(path) => Child::Shared(text(path)?.to_owned()),
                None => Child::Own(build(child, case)?),
            };
            Ok((name.to_owned(), child))
        };
        let tie = |pair: &Value| Ok((text(&pair[0])?.to_owned(), text(&pair[1])?.to_owned()));
        let calls = match spec.get("calls") {
            None => None,
            Some(_) => Some(spec.list("calls")?.iter().map(ChildCall::of).collect::<Checked<_>>()?),
        };
        Ok(Net {
            parameters: parameters.collect(),
            buffers: tensors("buffers")?,
            children: children(spec)?.into_iter().map(of_child).collect::<Checked<_>>()?,
            ties: spec.list("tie")?.iter().map(tie).collect::<Checked<_>>()?,
            calls,
        })
    }
}

impl ChildCall {
    fn of(json: &Value) -> Checked<Self> {
        if let Some(path) = json.as_str() {
            return Ok(ChildCall { path: path.to_owned(), keyword: Vec::new() });
        }
        let wrong = || Stop::Needs(format!("needs calls such as {json}"));
        let keyword = json[1].as_object().ok_or_else(wrong)?.iter();
        let keyword = keyword
            .map(|(name, value)| Ok((name.clone(), arguments::number(value).ok_or_else(wrong)?)));
        Ok(ChildCall {
            path: text(&json[0])?.to_owned(),
            keyword: keyword.collect::<Checked<_>>()?,
        })
    }
}

impl Module for Net {
    fn declare(&self, declare: &mut Declare) {
        for (name, shape) in &self.parameters {
            declare.parameter(name.as_str(), shape.as_slice());
        }
        for (name, shape, persistent) in &self.buffers {
            declare.buffer(name.as_str(), shape.as_slice(), *persistent);
        }
        for (name, child) in &self.children {
            match child {
                Child::Own(child) => declare.children.push((name.clone(), child.clone())),
                Child::Shared(path) => _ = declare.share(name.as_str(), path.as_str()),
            }
        }
        for (tied, owner) in &self.ties {
            declare.tie(tied.as_str(), owner.as_str());
        }
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let mut x = match <[Tree; 1]>::try_from(arguments.positional) {
            Ok([x]) => x,
            Err(several) => Tree::Tuple(several),
        };
        match &self.calls {
            None => {
                for child in call.children() {
                    x = call.child_with(child, Arguments::spread(x));
                }
            }
            Some(calls) => {
                for ChildCall { path, keyword } in calls {
                    let given = keyword.iter().fold(Arguments::spread(x), |all, (name, value)| {
                        all.with(name.as_str(), *value)
                    });
                    x = call.child_with(path, given);
                }
            }
        }
        x
    }

    fn spawned(&self) -> Self {
        Net { children: Vec::new(), ties: Vec::new(), ..self.clone() }
    }
}

/// Gives `x * factor`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(immutable)]
struct Scale;

impl Module for Scale {
    fn forward_with(&self, call: &Call<'_>, mut arguments: Arguments) -> Tree {
        let factor = arguments.number("factor").unwrap_or(1.0);
        arguments.keyword.retain(|(name, _)| name != "factor");
        match call.only_value(arguments) {
            Some(x) => (&x * factor).into(),
            None => call.trace.poison().into(),
        }
    }
}

/// Gives `(2x, x + 1)`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(immutable)]
struct Pair;

impl Module for Pair {
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        match call.only_value(arguments) {
            Some(x) => (&x * 2.0, &x + 1.0).into(),
            None => call.trace.poison().into(),
        }
    }
}

/// Gives `a + b`.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(immutable)]
struct Add;

impl Module for Add {
    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        match arguments.leaves().as_slice() {
            [a, b] => (*a + *b).into(),
            other => call.trace.fail(format!("Add takes 2 tensors, got {}", other.len())).into(),
        }
    }
}

/// Fails.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(immutable)]
struct Fail;

impl Module for Fail {
    fn forward_with(&self, call: &Call<'_>, _: Arguments) -> Tree {
        call.trace.fail("forward failed").into()
    }
}

/// A population of one model.
pub struct Model {
    pub world: World,
    pub population: Entity,
    pub root: Entity,
}

impl Model {
    /// Spawns the model of a spec.
    pub fn spawn(spec: &Value, case: &Case<'_>, dtype: Dtype) -> Checked<Self> {
        Model::spawn_module(&*build(spec, case)?, dtype)
    }

    /// Spawns a module.
    pub fn spawn_module(module: &dyn DynModule, dtype: Dtype) -> Checked<Self> {
        let mut world = World::new();
        let settings = PopulationSettings { dtype, ..PopulationSettings::default() };
        let population = world.spawn_population_with(module, settings)?.id();
        let root = world.population(population)?.models()[0];
        Ok(Model { world, population, root })
    }

    /// Overwrites parameters and buffers by the tensors of the case in a folder of keys.
    pub fn set_state(&mut self, case: &Case<'_>, folder: &str) -> Checked {
        case.below(folder).into_iter().try_for_each(|(name, tensor)| self.set(name, tensor))
    }

    /// Overwrites a parameter or buffer.
    pub fn set(&mut self, name: &str, tensor: &Tensor) -> Checked {
        let Model { world, root, .. } = self;
        match tensor.dtype() {
            Dtype::F64 => {
                world.module_mut(*root)?.set_parameter(name, array::<f64>(tensor)?.view())?
            }
            Dtype::F32 => {
                world.module_mut(*root)?.set_parameter(name, array::<f32>(tensor)?.view())?
            }
            Dtype::I64 => {
                world.module_mut(*root)?.set_parameter(name, array::<i64>(tensor)?.view())?
            }
            _ => world.module_mut(*root)?.set_parameter(name, array::<u8>(tensor)?.view())?,
        }
        Ok(())
    }
}
