//! Runs one case, for the test and for `examples/conformance.rs`: each has this module at its root.

pub mod amp;
pub mod arguments;
pub mod autocast;
/// Modules, optimizers and schedulers, made from what a case says of them.
pub mod build {
    pub mod attention;
    pub mod layers;
    pub mod losses;
    pub mod model;
    pub mod optimizers;
    pub mod recurrent;
    pub mod schedulers;
    pub mod spatial;
}
pub mod case;
pub mod compare;
pub mod hooks;
pub mod init;
pub mod modules;
pub mod optim;
pub mod parametrized;
pub mod registration;
pub mod state;
pub mod tensors;

use std::panic::{AssertUnwindSafe, catch_unwind};

use case::{Case, Checked, Stop};

/// Runs a case of any group; a panic is a failed case.
pub fn run(case: &Case<'_>) -> Checked {
    let result = catch_unwind(AssertUnwindSafe(|| match case.group.name.as_str() {
        "amp" => amp::run(case),
        "hooks" => hooks::run(case),
        "init" => init::run(case),
        "modules" => modules::run(case),
        "optim" => optim::run(case),
        "state" => state::run(case),
        other => Err(Stop::Needs(format!("group {other}: not supported yet"))),
    }));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Stop::Differs(format!("panicked: {}", text.unwrap_or_default())))
    })
}
