//! Descriptions that are too deep or too wide are refused before they fill the memory or the stack.

use bevy_ecs::prelude::*;

use crate::module::limits::{MAX_DEPTH, too_deep};
use crate::module::{Declare, DynModule, Module};

/// Stands where a description would have more levels or children than a model may have. Nothing that it stands in
/// can be spawned.
#[derive(Component, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) String);

impl Module for Refusal {
    fn declare(&self, declare: &mut Declare) {
        declare.refuse(self.0.clone());
    }
}

/// Returns a module that may become a child of another; a refusal if it has more levels than a model may have.
pub(crate) fn limited(module: Box<dyn DynModule>) -> Box<dyn DynModule> {
    match is_deeper(&*module, MAX_DEPTH) {
        true => Box::new(Refusal(too_deep())),
        false => module,
    }
}

/// Returns whether a module and those below it form more levels than that.
fn is_deeper(module: &dyn DynModule, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return true };
    let is_deeper_below = |child: &dyn DynModule| is_deeper(child, below);
    // To declare the lists of containers is to copy all that is below.
    match module.listed() {
        Some(mut children) => children.any(is_deeper_below),
        None => {
            let mut declared = Declare::default();
            module.declare(&mut declared);
            declared.children.iter().any(|(_, child)| is_deeper_below(&**child))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{BareModule, Linear, ModuleDict, ModuleList, Sequential, Tanh};

    fn refuses(module: &dyn DynModule) -> bool {
        let mut declared = Declare::default();
        module.declare(&mut declared);
        declared.refused().is_some() || declared.children.iter().any(|(_, child)| refuses(&**child))
    }

    #[test]
    fn what_is_nested_too_deep_is_refused_and_takes_no_stack() {
        let nest = |levels: usize| {
            let mut module: Box<dyn DynModule> = Box::new(Tanh);
            for level in 1..levels {
                module = match level % 3 {
                    0 => Box::new(ModuleList::new().push(module)),
                    1 => Box::new(Sequential::new().push(module)),
                    _ => Box::new(ModuleDict::new().push_named("a", module)),
                };
            }
            module
        };
        assert!(!refuses(&*nest(MAX_DEPTH)));
        assert!(refuses(&*nest(MAX_DEPTH + 2)));
        let deep = nest(2_000);
        assert_eq!(format!("{:?}", deep.clone()), format!("{deep:?}"));
        drop(deep);
        let bare =
            (0..2_000).fold(BareModule::new(), |inner, _| BareModule::new().child("a", inner));
        drop(bare);
    }

    #[test]
    fn what_is_too_wide_is_refused_before_it_is_made() {
        let many = 1_usize << 40;
        assert!(refuses(&crate::layers::LSTM {
            num_layers: many,
            ..crate::layers::LSTM::new(2, 2)
        }));
        let layer = crate::layers::TransformerEncoderLayer::new(4, 2);
        assert!(refuses(&crate::layers::TransformerEncoder::new(layer, many)));
        let mut linear = Sequential::new().push(Linear::new(2, 2));
        assert!(linear.repeat(1 << 40).is_err() && (linear.clone() * (1 << 40)).is_err());
        assert_eq!(linear.len(), 1);
    }
}
