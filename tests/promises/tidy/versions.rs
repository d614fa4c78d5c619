//! The tables of versions say what Cargo.toml says.

use super::root;

/// Returns the first two parts of a version: `0.20` of `0.20.1`.
fn minor(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Returns what stands between the first two quotes after `from`.
fn quoted<'a>(text: &'a str, from: &str) -> &'a str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("{from} is in Cargo.toml"));
    rest.split('"').nth(1).unwrap()
}

#[test]
fn the_tables_name_the_versions_of_the_manifest() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, workspace) = manifest.split_once("[workspace.dependencies]").unwrap();
    let own = minor(quoted(&manifest, "[workspace.package]\nversion"));
    let bevy = minor(quoted(workspace, "\nbevy_ecs"));
    for line in workspace.lines().filter(|line| line.starts_with("bevy_")) {
        assert_eq!(minor(quoted(line, "version")), bevy, "{line}");
    }
    for page in ["README.md", "docs/bevy.md"] {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let (_, table) = text.split_once("| neurarch | bevy |\n").expect("a table of versions");
        let newest = table.lines().nth(1).unwrap();
        assert_eq!(newest, format!("| {own} | {bevy} |"), "{page}");
    }
}
