//! Which names modules, parameters and buffers can have.

use core::fmt;

use crate::module::attributes::is_attribute;

/// What a name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A child.
    Module,
    /// A parameter.
    Parameter,
    /// A buffer.
    Buffer,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Module => "module",
            Kind::Parameter => "parameter",
            Kind::Buffer => "buffer",
        })
    }
}

/// Says what is wrong with a name in a module of type `owner`, if anything is; in torch's words.
///
/// Source: torch's `add_module`, `register_parameter` and `register_buffer`.
pub fn wrong_name(
    kind: Kind,
    owner: &str,
    name: &str,
    is_taken: impl FnOnce(&str) -> bool,
) -> Option<String> {
    if name.is_empty() {
        Some(format!("{kind} name can't be empty string \"\""))
    } else if name.contains('.') {
        let got = if kind == Kind::Module { format!(", got: {name}") } else { String::new() };
        Some(format!("{kind} name can't contain \".\"{got}"))
    } else if is_attribute(owner, name) || is_taken(name) {
        Some(format!("attribute '{name}' already exists"))
    } else {
        None
    }
}
