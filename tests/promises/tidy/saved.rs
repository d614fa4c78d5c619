//! What a checkpoint does with each component type is decided: none is forgotten.

use std::collections::BTreeSet;

use bevy_ecs::prelude::*;
use neurarch::components::saved::SavedTypes;

use super::{root, sources};

/// Exported by the families of modules, losses, optimizers and schedulers, and no component and no rule of schedulers.
const OTHERS: [&str; 35] = [
    // Settings.
    "Activation",
    "AdjustLr",
    "Anneal",
    "Approximate",
    "AverageFn",
    "BagMode",
    "CyclicMode",
    "ForAxes",
    "InterpolateMode",
    "KLDivReduction",
    "LineSearch",
    "Mode",
    "Nonlinearity",
    "OrthogonalMap",
    "OutputSize",
    "Padding",
    "PaddingMode",
    "Parameter",
    "PerAxis",
    "Reduction",
    "Sides",
    "Sizes",
    "ThresholdMode",
    // What goes with containers and optimizers.
    "ContainerError",
    "DynParamGroups",
    "GroupSchedulers",
    "IntoModule",
    "LiveModule",
    "NamedParameter",
    "OptimizerComponent",
    "OptimizerError",
    "PARAMETRIZATIONS",
    "Slice",
    // Rules that are functions alone.
    "LambdaLR",
    "MultiplicativeLR",
];

/// The names that a file passes on.
fn exported(path: &str) -> BTreeSet<String> {
    let (_, text) = sources(path).remove(0);
    let statements = text.split("\npub use ").skip(1).map(|rest| rest.split(';').next().unwrap());
    let leaves = statements.flat_map(|of| of.rsplit('{').next().unwrap().split(','));
    let names = leaves.map(|leaf| leaf.rsplit("::").next().unwrap().trim_matches([' ', '\n', '}']));
    let is_type = |name: &&str| name.starts_with(|first: char| first.is_ascii_uppercase());
    names.filter(is_type).map(str::to_owned).collect()
}

/// The component types that a file declares, but for those of macros.
fn declared(text: &str) -> Vec<String> {
    let lines = text.split("\n#[cfg(test)]").next().unwrap().lines();
    let code: String = lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let derives = code.split("#[derive(").skip(1).filter(|rest| {
        let derived = rest.split(')').next().unwrap();
        derived.split(',').any(|of| of.trim() == "Component")
    });
    let names = derives.filter_map(|rest| {
        let (_, rest) = rest.split_once("struct ")?;
        let end = rest.find(|letter: char| letter != '$' && !letter.is_alphanumeric())?;
        Some(rest[..end].to_owned())
    });
    names.filter(|name| !name.starts_with('$')).collect()
}

#[test]
fn every_component_is_saved_or_is_said_not_to_be() {
    let mut world = World::new();
    SavedTypes::init(&mut world);
    let types = world.resource::<SavedTypes>();
    let rules = types.schedulers().map(str::to_owned);
    let names = types.iter().map(|saved| saved.name.to_string()).chain(rules);
    let saved: BTreeSet<String> =
        names.map(|name| name.split('<').next().unwrap().to_owned()).collect();

    let families = ["layers", "losses", "parametrizations", "optimizer", "scheduler"];
    for family in families {
        let names = exported(&format!("components/src/{family}/mod.rs"));
        assert!(names.len() > 3, "{family}");
        let missing: Vec<_> = names
            .iter()
            .filter(|name| !saved.contains(*name) && !OTHERS.contains(&name.as_str()))
            .collect();
        assert!(missing.is_empty(), "{family}: {missing:?} is in no list of components/src/saved");
    }

    let document = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let section = document.split("\n## ").find(|of| of.starts_with("Components in a checkpoint"));
    let section = section.expect("docs/architecture.md says what becomes of components");
    let table = section.split("A live component").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let said: BTreeSet<&str> =
        rows.flat_map(|row| row.split(", ")).map(|of| of.trim_matches('`')).collect();
    for (path, text) in ["components/src", "systems/src"].into_iter().flat_map(sources) {
        for name in declared(&text).into_iter().filter(|_| !path.contains("_tests")) {
            let is_known = saved.contains(&name) != said.contains(name.as_str());
            assert!(
                is_known,
                "{path}: {name} is either saved or in the table of docs/architecture.md"
            );
        }
    }
}
