//! What users see is written down: a change of it is seen in `tests/golden/public_api.txt`.

use std::fs;

use super::{root, sources};

/// Lists the names that the package `neurarch` makes public, by file: modules, types, functions, methods, and what is
/// exported from other crates.
fn names() -> String {
    let mut listed = String::new();
    for (path, text) in sources("engine/src") {
        let code = text.split("\n#[cfg(test)]").next().unwrap();
        let mut names = Vec::new();
        let mut rest = code;
        while let Some(at) = rest.find("pub use ") {
            let (exported, after) = rest[at + 8..].split_once(';').unwrap();
            let (from, leaves) = match exported.split_once('{') {
                Some((from, leaves)) => (from, leaves.trim_end_matches('}')),
                None => exported.rsplit_once("::").map_or(("", exported), |(_, leaf)| ("", leaf)),
            };
            let leaves = leaves.split(',').map(str::trim).filter(|leaf| !leaf.is_empty());
            names.extend(leaves.map(|leaf| match leaf {
                "self" => from.trim_end_matches("::").rsplit("::").next().unwrap().to_owned(),
                "*" => format!("all of {}", exported.trim_end_matches("::*")),
                leaf => leaf.to_owned(),
            }));
            rest = after;
        }
        let is_trait = code.contains("\npub trait ");
        for line in code.lines() {
            let line = line.trim_start();
            let kinds = ["pub fn ", "pub struct ", "pub trait ", "pub enum ", "pub mod "];
            let declared = kinds.iter().find_map(|kind| line.strip_prefix(kind));
            let method = line.strip_prefix("fn ").filter(|_| is_trait);
            let name = declared.or(method).map(|rest| {
                let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric());
                rest[..end.unwrap_or(rest.len())].to_owned()
            });
            names.extend(name);
        }
        names.sort();
        names.dedup();
        listed += &format!("{path}\n");
        names.iter().for_each(|name| listed += &format!("    {name}\n"));
    }
    listed
}

#[test]
fn public_names_are_those_of_the_golden_file() {
    let path = root().join("tests/golden/public_api.txt");
    let names = names();
    if std::env::var_os("NEURARCH_BLESS").is_some() {
        fs::write(&path, &names).unwrap();
    }
    let known = fs::read_to_string(&path).unwrap();
    let is_missing = |line: &&str| !names.lines().any(|other| other == *line);
    let is_new = |line: &&str| !known.lines().any(|other| other == *line);
    let (gone, new): (Vec<_>, Vec<_>) =
        (known.lines().filter(is_missing).collect(), names.lines().filter(is_new).collect());
    assert_eq!(known, names, "gone: {gone:?}, new: {new:?}; NEURARCH_BLESS=1 writes them down");
}

#[test]
fn the_prelude_is_short_and_leaves_games_their_words() {
    let (_, text) = sources("engine/src/prelude.rs").remove(0);
    let torch = ["layers::", "losses::", "optim::", "lr_scheduler::"];
    let others =
        text.split("pub use ").skip(1).filter(|of| !torch.iter().any(|name| of.contains(name)));
    let others: Vec<_> = others
        .flat_map(|of| {
            let leaves = of.split(';').next().unwrap();
            let leaves = leaves.split_once('{').map_or(leaves, |(_, leaves)| leaves);
            leaves
                .split(',')
                .map(|leaf| leaf.rsplit("::").next().unwrap().trim_matches([' ', '\n', '}']))
        })
        .filter(|name| !name.is_empty())
        .collect();
    assert!(!others.is_empty() && others.len() <= 60, "{}: {others:?}", others.len());
    for word in ["At", "Value", "Target", "Slice", "Item", "Key", "Shape"] {
        assert!(!others.contains(&word), "{word} is a word of games");
    }
}
