//! Which files import each other, directly or by others.

use std::collections::{BTreeMap, BTreeSet};

use super::{CRATES, sources};

/// How many files are in each circle of imports: a crate that is not named has none. No other file may join one, and who
/// takes a circle apart takes it out here.
const CIRCLES: [(&str, &[usize]); 2] = [("components", &[15]), ("kernels", &[2, 16])];

/// For each module of a crate, those that its file names.
type Imports = BTreeMap<String, BTreeSet<String>>;

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

/// Lists what a file names of its own crate, in imports and elsewhere.
fn named(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let is_own =
        |path: &str| ["crate", "super", "self"].iter().any(|start| path.trim().starts_with(start));
    let mut others = String::new();
    for statement in code.split_inclusive(';') {
        let import = statement.rfind("use ").filter(|&at| {
            let before = statement[..at].trim_end();
            before.is_empty() || before.ends_with(['}', ')', ']', ';']) || before.ends_with("pub")
        });
        match import.map(|at| statement[at + 4..].trim_end_matches(';')) {
            Some(tree) if is_own(tree) => expand("", tree, &mut paths),
            Some(_) => {}
            None => others += statement,
        }
    }
    let is_of_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let words = others.split(|letter| !is_of_path(letter));
    let inline = words.filter(|word| word.starts_with("crate::") || word.starts_with("super::"));
    paths.extend(inline.map(str::to_owned));
    paths
}

/// Finds the modules that a crate's files name.
fn imports(folder: &str) -> Imports {
    let prefix = format!("{folder}/src/");
    let modules: BTreeMap<String, String> = sources(&prefix)
        .into_iter()
        .map(|(path, text)| {
            let path = path.strip_prefix(&prefix).unwrap().trim_end_matches(".rs");
            let module = path.replace('/', "::");
            let module = module.strip_suffix("::mod").unwrap_or(&module);
            (if module == "lib" { String::new() } else { module.to_owned() }, text)
        })
        .collect();
    let found = modules.iter().map(|(module, text)| {
        let own: Vec<_> = module.split("::").filter(|part| !part.is_empty()).collect();
        let resolve = |path: String| {
            let mut parts = path.split("::").map(str::trim).peekable();
            let mut full = match parts.next() {
                Some("super") => own[..own.len().saturating_sub(1)].to_vec(),
                Some("self") => own.clone(),
                _ => Vec::new(),
            };
            while parts.next_if_eq(&"super").is_some() {
                full.pop();
            }
            full.extend(parts);
            let known = (0..=full.len()).rev().map(|length| full[..length].join("::"));
            known.into_iter().find(|known| modules.contains_key(known))
        };
        let others = named(&code(text)).into_iter().filter_map(resolve);
        (module.clone(), others.filter(|other| other != module).collect())
    });
    found.collect()
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
        let imports = imports(folder);
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

#[test]
fn imports_are_read_as_they_are_written() {
    let mut paths = Vec::new();
    expand("", "crate::a::{self, b::{c, d as e}, f}", &mut paths);
    assert_eq!(paths, ["crate::a::self", "crate::a::b::c", "crate::a::b::d", "crate::a::f"]);
    let text =
        "//! use crate::no;\nuse std::fmt;\npub use crate::a::B;\nfn f() -> super::c::D {}\n";
    assert_eq!(named(&code(text)), ["crate::a::B", "super::c::D"]);
}
