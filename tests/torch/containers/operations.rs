//! Containers do what torch's do: random operations, each with torch's result, error and entries after it, as
//! `tests/golden/containers.py` wrote them down.

use neurarch::components::module::DynModule;
use neurarch::prelude::*;

/// What an operation gives, as the golden file writes it.
type Outcome = Result<String, ContainerError>;

/// A container that does operations by name.
trait Replay {
    fn entries(&self) -> String;

    fn replay(&mut self, operation: &str, arguments: &[&str]) -> Outcome;
}

fn nothing<R>(_: R) -> String {
    String::new()
}

fn number(text: &str) -> isize {
    text.parse().unwrap()
}

fn linear(size: &str) -> Linear {
    Linear::new(1, size.parse().unwrap())
}

fn parameter(size: &str) -> Parameter {
    Parameter::zeros([size.parse().unwrap()])
}

fn size_of(module: &dyn DynModule) -> String {
    module.downcast_ref::<Linear>().unwrap().out_features.to_string()
}

fn length_of(parameter: &Parameter) -> String {
    parameter.shape[0].to_string()
}

/// Reads `name=size`.
fn pair<T>(text: &str, entry: fn(&str) -> T) -> (&str, T) {
    let (name, size) = text.split_once('=').unwrap();
    (name, entry(size))
}

fn pairs<'t, T>(texts: &[&'t str], entry: fn(&str) -> T) -> Vec<(&'t str, T)> {
    texts.iter().map(|text| pair(text, entry)).collect()
}

/// Reads `start stop step`.
fn cut(bounds: &[&str]) -> Slice {
    let bound = |place: usize| bounds[place].parse().ok();
    Slice { start: bound(0), stop: bound(1), step: bound(2) }
}

fn join<N: std::fmt::Display>(entries: impl Iterator<Item = (N, String)>) -> String {
    entries.map(|(name, size)| format!("{name}={size}")).collect::<Vec<_>>().join(",")
}

fn modules<'m>(entries: impl Iterator<Item = (&'m str, &'m dyn DynModule)>) -> String {
    join(entries.map(|(name, module)| (name, size_of(module))))
}

/// Implements the operations that `Sequential` and `ModuleList` share; `$more` are those of one alone.
macro_rules! replay_list {
    ($container:ident, |$list:ident, $arguments:ident| { $($operation:literal => $more:expr),* }) => {
        impl Replay for $container {
            fn entries(&self) -> String {
                modules(self.iter())
            }

            fn replay(&mut self, operation: &str, $arguments: &[&str]) -> Outcome {
                let $list = self;
                let index = || number($arguments[0]);
                let more = || $arguments.iter().map(|size| linear(size)).collect::<$container>();
                match operation {
                    "get" => $list.get(index()).map(size_of),
                    "set" => $list.set(index(), linear($arguments[1])).map(nothing),
                    "del" => $list.remove(index()).map(nothing),
                    "pop" => $list.pop(index()).map(|module| size_of(&*module)),
                    "slice" => $list.slice(cut($arguments)).map(|list| list.entries()),
                    "del_slice" => $list.remove_slice(cut($arguments)).map(nothing),
                    "pop_slice" => $list.pop_slice(cut($arguments)).map(|list| list.entries()),
                    "append" => Ok(nothing($list.append(linear($arguments[0])))),
                    "insert" => $list.insert(index(), linear($arguments[1])).map(nothing),
                    "extend" => Ok(nothing($list.extend(more()))),
                    "iadd" => {
                        *$list += more();
                        Ok(String::new())
                    }
                    "add" => Ok(($list.clone() + more()).entries()),
                    "add_module" => {
                        let (name, module) = pair($arguments[0], linear);
                        $list.add_module(name, module).map(nothing)
                    }
                    $($operation => $more,)*
                    unknown => panic!("no operation {unknown}"),
                }
            }
        }
    };
}

replay_list!(Sequential, |list, arguments| {
    "mul" => (list.clone() * number(arguments[0])).map(|list| list.entries()),
    "repeat" => list.repeat(number(arguments[0])).map(nothing)
});
replay_list!(ModuleList, |list, arguments| {});

impl Replay for ModuleDict {
    fn entries(&self) -> String {
        modules(self.iter())
    }

    fn replay(&mut self, operation: &str, arguments: &[&str]) -> Outcome {
        let name = arguments.first().copied().unwrap_or_default();
        match operation {
            "item" => self.get(name).map(size_of),
            "put" => {
                let (name, module) = pair(name, linear);
                self.set(name, module).map(nothing)
            }
            "pop_name" => self.pop(name).map(|module| size_of(&*module)),
            "del_name" => self.remove(name).map(nothing),
            "update" => self.update(pairs(arguments, linear)).map(nothing),
            "clear" => {
                self.clear();
                Ok(String::new())
            }
            unknown => panic!("no operation {unknown}"),
        }
    }
}

impl Replay for ParameterList {
    fn entries(&self) -> String {
        join(self.iter().map(length_of).enumerate())
    }

    fn replay(&mut self, operation: &str, arguments: &[&str]) -> Outcome {
        let more = arguments.iter().map(|size| parameter(size));
        match operation {
            "get" => self.get(number(arguments[0])).map(length_of),
            "set" => self.set(number(arguments[0]), parameter(arguments[1])).map(nothing),
            "slice" => self.slice(cut(arguments)).map(|list| list.entries()),
            "append" => Ok(nothing(self.append(parameter(arguments[0])))),
            "extend" => Ok(nothing(self.extend(more))),
            "iadd" => {
                *self += more;
                Ok(String::new())
            }
            unknown => panic!("no operation {unknown}"),
        }
    }
}

impl Replay for ParameterDict {
    fn entries(&self) -> String {
        join(self.iter().map(|(name, parameter)| (name, length_of(parameter))))
    }

    fn replay(&mut self, operation: &str, arguments: &[&str]) -> Outcome {
        let name = arguments.first().copied().unwrap_or_default();
        match operation {
            "item" => self.item(name).map(length_of),
            "find" => Ok(self.get(name).map_or("None".to_owned(), length_of)),
            "put" => {
                let (name, parameter) = pair(name, parameter);
                self.set(name, parameter).map(nothing)
            }
            "setdefault" => {
                let (name, parameter) = pair(name, parameter);
                self.setdefault(name, parameter).map(length_of)
            }
            "pop_name" => self.pop(name).map(|parameter| length_of(&parameter)),
            "del_name" => self.remove(name).map(nothing),
            "popitem" => self.popitem().map(|(name, of)| format!("{name}={}", length_of(&of))),
            "update" => self.update(pairs(arguments, parameter)).map(nothing),
            "or" => {
                let other = ParameterDict::from_named(pairs(arguments, parameter))?;
                Ok((self.clone() | other).entries())
            }
            "clear" => {
                self.clear();
                Ok(String::new())
            }
            unknown => panic!("no operation {unknown}"),
        }
    }
}

fn new(kind: &str, entries: &str) -> Box<dyn Replay> {
    let entries: Vec<_> = entries.split(',').filter(|entry| !entry.is_empty()).collect();
    let (modules, parameters) = (|| pairs(&entries, linear), || pairs(&entries, parameter));
    match kind {
        "Sequential" => Box::new(Sequential::from_named(modules()).unwrap()),
        "ModuleList" => {
            Box::new(modules().into_iter().map(|(_, module)| module).collect::<ModuleList>())
        }
        "ModuleDict" => Box::new(ModuleDict::from_named(modules()).unwrap()),
        "ParameterList" => {
            Box::new(parameters().into_iter().map(|(_, of)| of).collect::<ParameterList>())
        }
        "ParameterDict" => Box::new(ParameterDict::from_named(parameters()).unwrap()),
        unknown => panic!("no container {unknown}"),
    }
}

#[test]
fn containers_do_what_torch_does() {
    let mut lines = include_str!("../../golden/containers.txt").lines().enumerate();
    assert!(lines.next().unwrap().1.starts_with("torch "));
    let mut container = new("Sequential", "");
    for (line, text) in lines {
        if let Some(text) = text.strip_prefix("new ") {
            let (kind, entries) = text.split_once(' ').unwrap();
            container = new(kind, entries);
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
        let outcome = container.replay(operation, &arguments);
        let given = outcome.unwrap_or_else(|error| format!("! {error}"));
        assert_eq!(given, result, "line {}: {text}", line + 1);
        assert_eq!(container.entries(), entries, "line {}: {text}", line + 1);
    }
}
