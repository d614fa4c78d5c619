//! The tree is as docs/architecture.md says: layers, imports, unsafe, first lines, lengths.

mod imports;
mod public_api;
mod saved;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates from top to bottom, by folder and by name.
const CRATES: [[&str; 2]; 5] = [
    ["engine", "neurarch"],
    ["systems", "neurarch_systems"],
    ["components", "neurarch_components"],
    ["kernels", "neurarch_kernels"],
    ["derive", "neurarch_derive"],
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder, by their paths from the root.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn visit(path: PathBuf, files: &mut Vec<PathBuf>) {
        // A package outside the workspace builds into a folder of its own.
        if path.ends_with("target") {
        } else if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| visit(entry.unwrap().path(), files));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    let mut files = Vec::new();
    visit(root().join(folder), &mut files);
    files.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        (path, text)
    };
    files.into_iter().map(read).collect()
}

/// The files of all crates, of benchmarks, examples and tests.
fn all() -> impl Iterator<Item = (String, String)> {
    let folders = CRATES.map(|[folder, _]| folder).into_iter();
    folders.chain(["benches", "cuda", "device", "examples", "ptx", "tests"]).flat_map(sources)
}

/// Counts the lines of code before the unit tests: neither empty nor comments.
fn lines_of_code(text: &str) -> usize {
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

#[test]
fn no_crate_names_one_above_it() {
    for (place, [folder, _]) in CRATES.iter().enumerate() {
        let manifest = match *folder {
            "engine" => continue, // Nothing is above.
            folder => fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap(),
        };
        for [_, above] in &CRATES[..place] {
            let depends = |line: &str| {
                line.split(['.', ' ', '=']).next().is_some_and(|dependency| dependency == *above)
            };
            assert!(!manifest.lines().any(depends), "{folder}/Cargo.toml depends on {above}");
            // What is derived is written for crates above, and names them.
            for (path, text) in sources(folder).into_iter().filter(|_| *folder != "derive") {
                let named = |word: &str| word == *above;
                let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
                // The package's name is also the project's, which comments may say.
                let uses = match *above {
                    "neurarch" => text.contains("neurarch::"),
                    _ => words.any(named),
                };
                assert!(!uses, "{path} names {above}");
            }
        }
    }
}

#[test]
fn kernels_do_not_know_the_ecs() {
    let manifest = fs::read_to_string(root().join("kernels/Cargo.toml")).unwrap();
    assert!(!manifest.contains("bevy"));
    for (path, text) in sources("kernels") {
        assert!(!text.to_lowercase().contains("bevy"), "{path} says bevy");
    }
}

#[test]
fn unsafe_is_only_where_the_architecture_says() {
    let uses = |text: &str| {
        let text: String = text.split_whitespace().collect();
        text.contains("expect(unsafe_code") || text.contains("allow(unsafe_code")
    };
    let expecting: BTreeSet<_> = all()
        .filter(|(path, text)| uses(text) && !path.starts_with("tests/promises/tidy/"))
        .map(|(path, _)| path)
        .collect();
    let architecture = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let (_, section) = architecture.split_once("## Where unsafe is allowed").unwrap();
    let named = section.lines().filter_map(|line| line.strip_prefix("* `")?.split('`').next());
    let listed: BTreeSet<_> = named.map(str::to_owned).collect();
    let unlisted: Vec<_> = expecting.difference(&listed).collect();
    assert!(unlisted.is_empty(), "not in docs/architecture.md: {unlisted:?}");
    let safe: Vec<_> = listed.difference(&expecting).collect();
    assert!(safe.is_empty(), "in docs/architecture.md, but safe or gone: {safe:?}");
}

#[test]
fn every_file_says_first_what_it_is_for() {
    for (path, text) in all() {
        assert!(text.starts_with("//! "), "{path} does not start with a line of //!");
    }
}

#[test]
fn no_file_is_long() {
    for (path, text) in all() {
        let lines = lines_of_code(&text);
        assert!(lines <= 500, "{path} has {lines} lines of code: split it by idea");
    }
}

#[test]
fn no_folder_is_full() {
    let mut entries: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, _) in all() {
        let mut path = path.as_str();
        while let Some((above, name)) = path.rsplit_once('/') {
            let name = name.trim_end_matches(".rs").to_owned();
            entries.entry(above.to_owned()).or_default().insert(name);
            path = above;
        }
    }
    for (folder, names) in entries {
        assert!(names.len() <= 20, "{folder} has {} entries, at most 20", names.len());
    }
}

/// A program is linked for each file of a folder `tests/` and each `main.rs` one folder below; the unit tests of three
/// crates are three more, and those of `derive` a small one without the engine. A test goes into the program that it belongs
/// to, as a module.
#[test]
fn there_are_eight_test_programs() {
    let mut programs = BTreeSet::new();
    for folder in [""].into_iter().chain(CRATES.map(|[folder, _]| folder)) {
        let tests = Path::new(folder).join("tests");
        let Ok(entries) = fs::read_dir(root().join(&tests)) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let is_file = path.extension().is_some_and(|extension| extension == "rs");
            if is_file || path.join("main.rs").exists() {
                programs.insert(tests.join(path.file_stem().unwrap()));
            }
        }
    }
    let expected = [
        "kernels/tests/kernels",
        "tests/conformance",
        "tests/ecs",
        "tests/promises",
        "tests/torch",
    ];
    assert_eq!(programs, expected.into_iter().map(PathBuf::from).collect());
}

/// Results of the standard library's `exp`, `powf` and so on differ between machines; clippy refuses what `clippy.toml`
/// lists.
#[test]
fn elementary_functions_are_those_of_one_place() {
    let refused = fs::read_to_string(root().join("clippy.toml")).unwrap();
    for method in ["f32::exp", "f64::exp", "f64::ln", "f64::powf", "f64::powi", "f64::tanh"] {
        assert!(refused.contains(&format!("\"{method}\"")), "clippy.toml does not list {method}");
    }
    for [folder, _] in CRATES {
        let text = fs::read_to_string(root().join(folder).join("src/lib.rs")).unwrap();
        let line = "#![cfg_attr(not(test), deny(clippy::disallowed_methods";
        assert!(text.contains(line), "{folder}/src/lib.rs does not deny them");
        for (path, text) in sources(folder) {
            let is_place = ["kernels/src/arithmetic/elementary.rs", "kernels/src/arithmetic.rs"];
            let is_place = is_place.contains(&path.as_str());
            assert!(is_place || !text.contains("libm::"), "{path} calls crate libm itself");
        }
    }
}

#[test]
fn every_op_is_listed_once() {
    let list = fs::read_to_string(root().join("kernels/src/ops/mod.rs")).unwrap();
    let listed: Vec<_> = list
        .lines()
        .filter_map(|line| line.split_once("mod ")?.1.strip_suffix(';').map(str::to_owned))
        .collect();
    let mut sorted = listed.clone();
    sorted.sort();
    assert_eq!(listed, sorted, "the list is alphabetical");
    let folder = fs::read_dir(root().join("kernels/src/ops")).unwrap();
    let names =
        folder.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    let files: BTreeSet<_> = names.filter(|name| name != "mod").collect();
    assert_eq!(files, listed.into_iter().collect());
}
