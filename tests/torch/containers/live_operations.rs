//! Containers of live models do what torch's do: what `tests/golden/containers.py` wrote down happens to one model
//! among others and to whole populations; numbers move with their modules, neighbors keep theirs.

use std::collections::BTreeMap;

use neurarch::components::module::registered::IntoValue;
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::edit::containers::{EditError, Item, Key, Popped};
use neurarch::systems::execute::hooks::Target;

/// How many models a population of the recorded cases has.
const MODELS: usize = 3;

fn number(text: &str) -> isize {
    text.parse().unwrap()
}

fn linear(size: &str) -> Linear {
    Linear::new(1, size.parse().unwrap())
}

fn randn(size: &str) -> Parameter {
    Parameter::randn([size.parse().unwrap()])
}

/// Reads `start stop step`.
fn cut(bounds: &[&str]) -> Slice {
    let bound = |place: usize| bounds[place].parse().ok();
    Slice { start: bound(0), stop: bound(1), step: bound(2) }
}

/// A container of live models, which is the root of each.
struct Live {
    world: World,
    kind: String,
    population: Entity,
    /// The model that is read.
    root: Entity,
    /// What is edited: the one model, or all.
    target: Target,
}

impl Live {
    fn new(kind: &str, entries: &str, edits_all: bool) -> Self {
        let mut world = World::new();
        let population = spawn(&mut world, kind, &entries.split(',').collect::<Vec<_>>());
        let root = world.population(population).unwrap().models()[1];
        let target = if edits_all { (population, "").into() } else { root.into() };
        Live { world, kind: kind.to_owned(), population, root, target }
    }

    fn is_of_parameters(&self) -> bool {
        self.kind.starts_with("Parameter")
    }

    /// Reads the size that an entry has like no other.
    fn size(&self, item: &Item) -> String {
        match item {
            Item::Module(module) => {
                self.world.get::<Linear>(*module).unwrap().out_features.to_string()
            }
            Item::Parameter(of) => of.ty.shape[0].to_string(),
            Item::None => "None".to_owned(),
        }
    }

    fn join(&self, items: &[(String, Item)]) -> String {
        let entries = items.iter().map(|(name, item)| format!("{name}={}", self.size(item)));
        entries.collect::<Vec<_>>().join(",")
    }

    fn entries(&mut self) -> String {
        let items = self.world.module_mut(self.root).unwrap().container().items().unwrap();
        self.join(&items)
    }

    /// Reads the numbers of all entries of a model as bytes, by size.
    fn numbers(&mut self, model: usize) -> BTreeMap<String, Vec<u8>> {
        let root = self.world.population(self.population).unwrap().models()[model];
        let items = self.world.module_mut(root).unwrap().container().items().unwrap();
        let state = self.world.module_mut(root).unwrap().state_dict().unwrap();
        let of = |name: String| {
            let tensor = state.iter().find(|tensor| tensor.name == name);
            tensor.map(Tensor::little_endian).unwrap_or_default()
        };
        let is_of_parameters = self.is_of_parameters();
        let read = |(name, item): &(String, Item)| {
            let numbers = match is_of_parameters {
                true => of(name.clone()).to_vec(),
                false => [of(format!("{name}.weight")), of(format!("{name}.bias"))].concat(),
            };
            (self.size(item), numbers)
        };
        items.iter().map(read).collect()
    }

    fn values(&self, sizes: &[&str]) -> Vec<Value> {
        sizes.iter().map(|size| self.value(size)).collect()
    }

    fn value(&self, size: &str) -> Value {
        if self.is_of_parameters() { randn(size).into_value() } else { linear(size).into_value() }
    }

    fn pairs<'t>(&self, texts: &[&'t str]) -> Vec<(&'t str, Value)> {
        let pair = |text: &&'t str| {
            let (name, size) = text.split_once('=').unwrap();
            (name, self.value(size))
        };
        texts.iter().map(pair).collect()
    }

    /// Says what was popped of the model that is read.
    fn popped(&self, popped: &Popped) -> String {
        let all = matches!(self.target, Target::Population(..));
        let own = |list: usize| {
            let each = list / if all { MODELS } else { 1 };
            if all { each..2 * each } else { 0..each }
        };
        let modules = popped.modules[own(popped.modules.len())].iter();
        let modules = modules.map(|&module| self.size(&Item::Module(module)));
        let parameters = popped.parameters[own(popped.parameters.len())].iter();
        modules.chain(parameters.map(|of| of.shape()[0].to_string())).collect::<Vec<_>>().join(",")
    }

    /// Does an operation; gives its result as the golden file writes it.
    fn replay(&mut self, operation: &str, arguments: &[&str]) -> Result<String, EditError> {
        let name = arguments.first().copied().unwrap_or_default();
        let (root, target) = (self.root, self.target.clone());
        let done = String::new();
        macro_rules! change {
            ($operation:ident($($argument:expr),*)) => {{
                let arguments = ($($argument,)*);
                change!(@call $operation, arguments, $($argument),*)
            }};
            (@call $operation:ident, $arguments:ident, $a:expr) => {
                self.world.target_mut(target).container().$operation($arguments.0).map(|_| done)
            };
            (@call $operation:ident, $arguments:ident, $a:expr, $b:expr) => {
                self.world.target_mut(target).container().$operation($arguments.0, $arguments.1).map(|_| done)
            };
        }
        let item = |live: &mut Self, key: Key| {
            let item = live.world.module_mut(root)?.container().get(key)?;
            Ok(live.size(&item))
        };
        match operation {
            "get" => item(self, number(name).into()),
            "item" => item(self, name.into()),
            "find" => match self.world.module_mut(root)?.container().contains(name)? {
                true => item(self, name.into()),
                false => Ok("None".to_owned()),
            },
            "slice" => {
                let items = self.world.module_mut(root)?.container().slice(cut(arguments))?;
                Ok(self.join(&items))
            }
            "mul" => {
                let items = self.world.module_mut(root)?.container().mul(number(name))?;
                Ok(self.join(&items))
            }
            "add" => {
                let sizes = arguments.iter().enumerate();
                let entries: Vec<_> = sizes.map(|(i, size)| format!("{i}={size}")).collect();
                let other = self.other(&entries.iter().map(String::as_str).collect::<Vec<_>>());
                let items = self.world.module_mut(root)?.container().add(other)?;
                Ok(self.join(&items))
            }
            "or" => {
                let other = self.other(arguments);
                let items = self.world.module_mut(root)?.container().union(other)?;
                Ok(self.join(&items))
            }
            "set" => change!(set(number(name), self.value(arguments[1]))),
            "put" => {
                let (name, value) = self.pairs(arguments).remove(0);
                change!(set(name, value))
            }
            "del" => change!(remove(number(name))),
            "del_name" => change!(remove(name)),
            "del_slice" => change!(remove(cut(arguments))),
            "append" => change!(append(self.value(name))),
            "insert" => change!(insert(number(name), self.value(arguments[1]))),
            "extend" => change!(extend(self.values(arguments))),
            "iadd" => change!(add_assign(self.values(arguments))),
            "repeat" => change!(repeat(number(name))),
            "update" => change!(update(self.pairs(arguments))),
            "clear" => self.world.target_mut(target).container().clear().map(|_| done),
            "add_module" => {
                let (name, value) = self.pairs(arguments).remove(0);
                change!(add_module(name, value))
            }
            "setdefault" => {
                let (name, value) = self.pairs(arguments).remove(0);
                self.world.target_mut(target).container().setdefault(name, value)?;
                item(self, name.into())
            }
            "pop" | "pop_name" | "pop_slice" | "popitem" => {
                let names = match operation {
                    "pop_slice" => {
                        self.world.module_mut(root)?.container().slice(cut(arguments))?
                    }
                    _ => Vec::new(),
                };
                let last = self.world.module_mut(root)?.container().keys()?.pop();
                let listed = self.join(&names);
                let mut held = self.world.target_mut(target);
                let container = held.container();
                let popped = match operation {
                    "pop" => container.pop(number(name)),
                    "pop_name" => container.pop(name),
                    "pop_slice" => container.pop(cut(arguments)),
                    _ => container.popitem(),
                }?;
                let sizes = self.popped(&popped);
                match operation {
                    "pop_slice" => {
                        let of = |entry: &str| entry.split_once('=').unwrap().1.to_owned();
                        let listed_sizes: Vec<_> =
                            listed.split(',').filter(|of| !of.is_empty()).map(of).collect();
                        assert_eq!(sizes, listed_sizes.join(","));
                        Ok(listed)
                    }
                    "popitem" => Ok(format!("{}={sizes}", last.unwrap())),
                    _ => Ok(sizes),
                }
            }
            unknown => panic!("no operation {unknown}"),
        }
    }

    /// Spawns another model of this kind.
    fn other(&mut self, entries: &[&str]) -> Entity {
        let population = spawn(&mut self.world, &self.kind, entries);
        self.world.population(population).unwrap().models()[1]
    }
}

fn spawn(world: &mut World, kind: &str, entries: &[&str]) -> Entity {
    let entries = entries.iter().filter(|entry| !entry.is_empty());
    let pairs: Vec<_> = entries.map(|entry| entry.split_once('=').unwrap()).collect();
    let modules = || pairs.iter().map(|&(name, size)| (name, linear(size)));
    let parameters = || pairs.iter().map(|&(name, size)| (name, randn(size)));
    macro_rules! of {
        ($module:expr) => {
            world.spawn_population(&$module, MODELS, Seed(5)).unwrap().id()
        };
    }
    match kind {
        "Sequential" => of!(Sequential::from_named(modules()).unwrap()),
        "ModuleList" => of!(modules().map(|(_, module)| module).collect::<ModuleList>()),
        "ModuleDict" => of!(ModuleDict::from_named(modules()).unwrap()),
        "ParameterList" => of!(parameters().map(|(_, of)| of).collect::<ParameterList>()),
        "ParameterDict" => of!(ParameterDict::from_named(parameters()).unwrap()),
        unknown => panic!("no container {unknown}"),
    }
}

/// Replays the recorded operations on live models.
fn replay_all(edits_all: bool) {
    let mut lines = include_str!("../../golden/containers.txt").lines().enumerate();
    assert!(lines.next().unwrap().1.starts_with("torch "));
    let mut live = Live::new("Sequential", "", edits_all);
    let mut neighbor = live.numbers(0);
    let mut own = live.numbers(1);
    for (line, text) in lines {
        if let Some(text) = text.strip_prefix("new ") {
            let (kind, entries) = text.split_once(' ').unwrap();
            live = Live::new(kind, entries, edits_all);
            (neighbor, own) = (live.numbers(0), live.numbers(1));
            continue;
        }
        let [operation, result, entries] = text.split('\t').collect::<Vec<_>>()[..] else {
            panic!("line {} has no three parts: {text}", line + 1)
        };
        let (operation, arguments) = operation.split_once(' ').unwrap();
        let arguments: Vec<_> = match (operation, arguments) {
            ("item" | "find" | "pop_name" | "del_name", name) => vec![name],
            (_, arguments) => arguments.split_whitespace().collect(),
        };
        let outcome = live.replay(operation, &arguments);
        let given = outcome.unwrap_or_else(|error| format!("! {error}"));
        assert_eq!(given, result, "line {}: {text}", line + 1);
        assert_eq!(live.entries(), entries, "line {}: {text}", line + 1);

        // What was there has its numbers still, what is new has some, no two alike.
        let now = live.numbers(1);
        for (size, numbers) in &now {
            assert_eq!(own.get(size).unwrap_or(numbers), numbers, "line {}: {text}", line + 1);
            let draws = |other: &str| other != size && now[other][..4] == numbers[..4];
            assert!(!now.keys().any(|other| draws(other)), "line {}: {text}", line + 1);
        }
        own = now;
        if edits_all {
            let of = |numbers: BTreeMap<String, _>| numbers.into_keys().collect::<Vec<_>>();
            assert_eq!(of(live.numbers(2)), of(own.clone()), "line {}: {text}", line + 1);
        } else {
            assert_eq!(live.numbers(0), neighbor, "line {}: {text}", line + 1);
        }
    }
}

#[test]
fn containers_of_one_live_model_do_what_torch_does() {
    replay_all(false);
}

#[test]
fn containers_of_a_whole_population_do_what_torch_does() {
    replay_all(true);
}
