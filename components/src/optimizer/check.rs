//! [`OptimizerError`]: numbers that an optimizer refuses, in torch's words.

/// Why an optimizer cannot be used: the text that torch's `ValueError` has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptimizerError(pub String);

/// Checks that a number is 0 or more; NaN is not.
pub(super) fn at_least_0(what: &str, number: f64) -> Result<(), OptimizerError> {
    require(number >= 0.0, || format!("Invalid {what}: {number:?}"))
}

/// Checks that each of two decay rates is in `[0, 1)`.
pub(super) fn betas((first, second): (f64, f64)) -> Result<(), OptimizerError> {
    for (index, beta) in [first, second].into_iter().enumerate() {
        require((0.0..1.0).contains(&beta), || {
            format!("Invalid beta parameter at index {index}: {beta:?}")
        })?;
    }
    Ok(())
}

/// Fails with a text unless `holds`.
pub(super) fn require(holds: bool, text: impl FnOnce() -> String) -> Result<(), OptimizerError> {
    if holds { Ok(()) } else { Err(OptimizerError(text())) }
}

/// Checks that the states of a parameter can be told apart, in memory and in a file.
pub(super) fn states(names: &[&str]) -> Result<(), OptimizerError> {
    let count = names.len();
    require(count <= u8::MAX.into(), || {
        format!("expected at most 255 states of an optimizer, got {count}")
    })?;
    for (place, name) in names.iter().enumerate() {
        require(*name != "step" && !names[..place].contains(name), || {
            format!("expected a name of its own for each state of an optimizer, got '{name}' twice")
        })?;
    }
    Ok(())
}

/// Checks what all of Adam's kind have.
pub(super) fn adaptive(
    lr: f64,
    eps: f64,
    of: (f64, f64),
    weight_decay: f64,
) -> Result<(), OptimizerError> {
    at_least_0("learning rate", lr)?;
    at_least_0("epsilon value", eps)?;
    betas(of)?;
    at_least_0("weight_decay value", weight_decay)
}
