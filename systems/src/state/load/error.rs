//! [`LoadStateDictError`]: why a state dict is not loaded, in torch's words.

use std::fmt::Write as _;

use bevy_ecs::prelude::*;
use neurarch_components::module::ExtraStateError;
use neurarch_components::module::blueprint::UNINITIALIZED;
use neurarch_components::state::IncompatibleKeys;

use crate::errors::SignError;
use crate::state::hooks::{StateHookError, StateModuleError};

/// Why a state dict cannot be loaded, or not as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadStateDictError {
    /// The entity is neither a population nor a module of a model.
    #[error("{0} is neither a population nor a module of a model")]
    NotAModule(Entity),
    /// Models of several structures take no stacked tensors.
    #[error("expected models of one blueprint to load stacked tensors into, got {0} blueprints")]
    Blueprints(usize),
    /// Keys are missing or not expected, or tensors do not fit; torch's words. What fits is loaded.
    #[error("{}", incompatible(.module, .keys, .error_msgs, *.strict))]
    Incompatible {
        /// The type of the module.
        module: &'static str,
        /// The keys that did not match.
        keys: IncompatibleKeys,
        /// What is wrong beside them: other sizes.
        error_msgs: Vec<String>,
        /// Whether keys had to match.
        strict: bool,
    },
    /// A parameter whose shape is not known yet cannot be loaded into one that has a shape; torch's words.
    #[error("{}", UNINITIALIZED)]
    Uninitialized,
    /// A module does not take its extra state. All else is loaded.
    #[error("{path}: {error}")]
    ExtraState {
        /// The dotted name.
        path: String,
        /// What the module said.
        error: ExtraStateError,
    },
    /// A hook failed. What came before it is loaded.
    #[error(transparent)]
    Hook(#[from] StateHookError),
    /// A module type's own [`load_from_state_dict`](neurarch_components::module::Module::load_from_state_dict) panicked.
    /// What came before it is loaded.
    #[error(transparent)]
    Module(#[from] StateModuleError),
    /// A model's tree is not a model any more.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// Writes torch's message.
fn incompatible(
    module: &str,
    keys: &IncompatibleKeys,
    error_msgs: &[String],
    strict: bool,
) -> String {
    let mut text = format!("Error(s) in loading state_dict for {module}:");
    let lists = [("Missing", &keys.missing_keys), ("Unexpected", &keys.unexpected_keys)];
    for (what, keys) in lists.into_iter().filter(|(_, keys)| strict && !keys.is_empty()) {
        let keys: Vec<_> = keys.iter().map(|key| format!("\"{key}\"")).collect();
        let _ = write!(text, "\n\t{what} key(s) in state_dict: {}. ", keys.join(", "));
    }
    error_msgs.iter().for_each(|message| {
        let _ = write!(text, "\n\t{message}");
    });
    text
}
