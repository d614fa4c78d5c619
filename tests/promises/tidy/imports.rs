//! Which files import each other, directly or by others.

use std::collections::{BTreeMap, BTreeSet};

use super::{CRATES, sources};

/// How many files are in each circle of imports: a crate that is not named has none. No other file may join one, and who
/// takes a circle apart takes it out here.
const CIRCLES: [(&str, &[usize]); 1] = [("kernels", &[4])];

/// For each module of a crate, those in whose files stands what its file names.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// The parts of a path from the crate's root on.
type Parts = Vec<String>;

/// Gives a file's code without comments and unit tests.
fn code(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Lists the paths of a tree of imports: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((before, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap().trim();
        paths.push(format!("{prefix}{path}"));
        return;
    };
    let (prefix, body) = (format!("{prefix}{before}"), rest.trim_end().trim_end_matches('}'));
    let (mut depth, mut start) = (0_usize, 0);
    for (at, letter) in body.char_indices().chain([(body.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                if !body[start..at].trim().is_empty() {
                    expand(&prefix, &body[start..at], paths);
                }
                start = (at + 1).min(body.len());
            }
            _ => {}
        }
    }
}

/// What a file names: what it passes on under its own name, and what it uses itself.
#[derive(Default)]
struct Named {
    passed_on: Vec<String>,
    used: Vec<String>,
}

impl Named {
    fn of(code: &str) -> Named {
        let mut named = Named::default();
        let mut rest = code;
        let mut others = String::new();
        while let Some((before, statement, after)) = next_import(rest) {
            let is_passed_on = before.trim_end().ends_with([')', 'b'])
                && before.lines().last().is_some_and(|line| line.trim_start().starts_with("pub"));
            let paths = if is_passed_on { &mut named.passed_on } else { &mut named.used };
            expand("", statement, paths);
            others += before;
            rest = after;
        }
        others += rest;
        let is_of_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
        let words = others.split(|letter| !is_of_path(letter));
        named.used.extend(words.filter(|word| word.contains("::")).map(str::to_owned));
        named
    }
}

/// Finds the next import: what stands before it, its tree, and what follows.
fn next_import(code: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let at = from + code[from..].find("use ")?;
        let line = code[..at].rsplit('\n').next().unwrap().trim();
        if line.is_empty() || line == "pub" || line.starts_with("pub(") && line.ends_with(')') {
            let tree = &code[at + 4..];
            let end = tree.find(';')?;
            return Some((&code[..at], &tree[..end], &tree[end + 1..]));
        }
        from = at + 4;
    }
}

/// The modules of a crate.
struct Crate {
    named: BTreeMap<String, Named>,
    /// What each module passes on, by name: the path that it has it from.
    passed_on: BTreeMap<(String, String), Parts>,
}

impl Crate {
    fn read(folder: &str) -> Crate {
        let prefix = format!("{folder}/src/");
        let files = sources(&prefix).into_iter().map(|(path, text)| {
            let path = path.strip_prefix(&prefix).unwrap().trim_end_matches(".rs");
            let module = path.replace('/', "::");
            let module = module.strip_suffix("::mod").unwrap_or(&module);
            (
                if module == "lib" { String::new() } else { module.to_owned() },
                Named::of(&code(&text)),
            )
        });
        let mut found = Crate { named: files.collect(), passed_on: BTreeMap::new() };
        let mut passed_on = BTreeMap::new();
        for (module, named) in &found.named {
            for parts in named.passed_on.iter().filter_map(|path| found.parts(module, path)) {
                let name = parts.last().cloned().unwrap_or_default();
                passed_on.insert((module.clone(), name), parts);
            }
        }
        found.passed_on = passed_on;
        found
    }

    /// Gives a path from the root on, if it is of this crate.
    fn parts(&self, module: &str, path: &str) -> Option<Parts> {
        let own: Parts =
            module.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut parts = path.split("::").map(|part| part.trim().to_owned()).peekable();
        let mut full = match parts.peek()?.as_str() {
            "crate" => Vec::new(),
            "self" => own,
            "super" => own[..own.len().saturating_sub(1)].to_vec(),
            first => {
                let child = [&own[..], &[first.to_owned()]].concat();
                return self
                    .named
                    .contains_key(&child.join("::"))
                    .then(|| [own, parts.collect()].concat());
            }
        };
        parts.next();
        while parts.next_if(|part| part == "super").is_some() {
            full.pop();
        }
        full.extend(parts.filter(|part| part != "self"));
        Some(full)
    }

    /// Finds the module in whose file stands what a path names.
    fn home(&self, parts: &[String], most: usize) -> Option<String> {
        let known =
            (0..=parts.len()).rev().find(|&n| self.named.contains_key(&parts[..n].join("::")))?;
        let module = parts[..known].join("::");
        let name = parts.get(known).cloned().unwrap_or_default();
        match self.passed_on.get(&(module.clone(), name)) {
            Some(from) if most > 0 => {
                self.home(&[&from[..], &parts[known + 1..]].concat(), most - 1)
            }
            _ => Some(module),
        }
    }

    fn imports(&self) -> Imports {
        let of = |(module, named): (&String, &Named)| {
            let parts = named.used.iter().filter_map(|path| self.parts(module, path));
            let homes = parts.filter_map(|parts| self.home(&parts, 8));
            (module.clone(), homes.filter(|other| other != module).collect())
        };
        self.named.iter().map(of).collect()
    }
}

/// Lists the modules that a module comes to, from one to the next.
fn reached<'a>(imports: &'a Imports, from: &'a str) -> BTreeSet<&'a str> {
    let (mut reached, mut waiting) = (BTreeSet::new(), vec![from]);
    while let Some(module) = waiting.pop() {
        let new = imports[module].iter().filter(|other| reached.insert(other.as_str()));
        waiting.extend(new.map(String::as_str));
    }
    reached
}

#[test]
fn files_import_each_other_in_no_new_circle() {
    for [folder, _] in CRATES {
        let imports = Crate::read(folder).imports();
        let reached: BTreeMap<_, _> =
            imports.keys().map(|module| (module.as_str(), reached(&imports, module))).collect();
        let circle = |module: &&str| -> BTreeSet<&str> {
            let others = reached[module].iter().copied();
            others.filter(|other| reached[other].contains(module)).collect()
        };
        let circles: BTreeSet<_> =
            reached.keys().map(circle).filter(|circle| circle.len() > 1).collect();
        let mut sizes: Vec<_> = circles.iter().map(BTreeSet::len).collect();
        sizes.sort_unstable();
        let expected = CIRCLES.iter().find(|(of, _)| *of == folder).map_or(&[][..], |(_, of)| of);
        assert_eq!(sizes, expected, "{folder}: {circles:#?}");
    }
}

/// The folders below a folder, and what lies in none: each uses those before it alone.
const ROOMS: [(&str, &[&str]); 4] = [
    (
        "components",
        &[
            "reflect",
            "wire",
            "state",
            "scalars",
            "warnings",
            "column",
            "module",
            "population",
            "containers",
            "parametrizations",
            "layers",
            "losses",
            "hook",
            "optimizer",
            "scheduler",
            "amp",
            "builtin",
            "reflected",
            "saved",
        ],
    ),
    (
        "kernels",
        &[
            "memory",
            "arithmetic",
            "ir",
            "text",
            "passes",
            "cpu",
            "device",
            "ops",
            "plan",
            "execute",
            "gradients",
            "lbfgs",
            "testing",
        ],
    ),
    (
        "kernels::ops",
        &[
            "elementwise",
            "activation",
            "reduction",
            "linalg",
            "index",
            "spatial",
            "norm",
            "loss",
            "random",
            "attention",
            "recurrent",
            "shape",
            "update",
            "rounded",
        ],
    ),
    (
        "systems",
        &[
            "errors",
            "storage",
            "draw",
            "structure",
            "migrate",
            "compile",
            "execute",
            "edit",
            "init",
            "optim",
            "amp",
            "evolve",
            "rollback",
            "state",
            "system_params",
        ],
    ),
];

#[test]
fn folders_use_those_before_them() {
    for (folder, rooms) in ROOMS {
        let (source, within) = folder.split_once("::").unwrap_or((folder, ""));
        let room = |module: &str| {
            let below = module.strip_prefix(within)?.trim_start_matches(':');
            let name = below.split("::").next().filter(|name| !name.is_empty())?;
            let place = rooms.iter().position(|room| *room == name);
            Some(place.unwrap_or_else(|| panic!("{folder}::{name} is not in the table")))
        };
        for (module, uses) in Crate::read(source).imports() {
            let Some(place) = room(&module).filter(|_| !module.contains("_tests")) else {
                continue;
            };
            for (used, other) in uses.iter().filter_map(|used| Some((used, room(used)?))) {
                assert!(other <= place, "{module} uses {used}, which lies above it");
            }
        }
    }
}

#[test]
fn imports_are_read_as_they_are_written() {
    let mut paths = Vec::new();
    expand("", "crate::a::{self, b::{c, d as e}, f}", &mut paths);
    assert_eq!(paths, ["crate::a::self", "crate::a::b::c", "crate::a::b::d", "crate::a::f"]);
    let text = "//! use crate::no;\nuse std::fmt;\npub(crate) use crate::a::B;\nmod c;\nuse c::{E, F};\n\
        fn f() -> super::c::D {}\n";
    let Named { passed_on, used } = Named::of(&code(text));
    assert_eq!(passed_on, ["crate::a::B"]);
    assert_eq!(used, ["std::fmt", "c::E", "c::F", "super::c::D"]);
}
