//! The group `modules`: forward and backward of modules.

use crate::case::{Case, Checked, Fields, Stop};
use crate::model::build;

/// Runs a case.
pub fn run(case: &Case<'_>) -> Checked {
    build(case.json, case)?;
    Err(Stop::Needs(format!("module {}: not supported yet", case.json.text("module")?)))
}
