//! How deep and how wide a description may be: what is more is refused before it fills the memory or the stack.

use bevy_ecs::prelude::*;

use crate::layers::{ModuleDict, ModuleList, Sequential};
use crate::module::{Declare, DynModule, Module};

/// How many levels of modules a model has at most.
///
/// A forward pass goes down some frames of the stack for each, and so does what clones, compares, prints and drops a
/// description: 7 KiB a level without optimization, of the 2 MiB that a thread has. torch's own limit of 1,000 Python
/// frames, three for each call of a module, is reached after some 330.
pub const MAX_DEPTH: usize = 200;

/// How many parameters, buffers and children a module registers at most.
pub const MAX_ENTRIES: usize = 1 << 16;

/// Says that a module would register too much.
pub fn too_many(given: usize) -> String {
    format!("expected at most {MAX_ENTRIES} parameters, buffers and children, got {given}")
}

/// Says that modules are nested too deep.
pub fn too_deep() -> String {
    format!("expected modules nested at most {MAX_DEPTH} levels deep")
}

/// Stands where a description would have more levels or children than a model may have. Nothing that it stands in
/// can be spawned.
#[derive(Component, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) String);

impl Module for Refusal {
    fn declare(&self, declare: &mut Declare) {
        declare.refuse(self.0.clone());
    }
}

/// Gives a module that may become a child of another; a refusal if it has more levels than a model may have.
pub(crate) fn limited(module: Box<dyn DynModule>) -> Box<dyn DynModule> {
    match is_deeper(&*module, MAX_DEPTH) {
        true => Box::new(Refusal(too_deep())),
        false => module,
    }
}

/// Says whether a module and those below it form more levels than that.
fn is_deeper(module: &dyn DynModule, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return true };
    let any = |mut children: Box<dyn Iterator<Item = &dyn DynModule> + '_>| {
        children.any(|child| is_deeper(child, below))
    };
    // The lists of containers are looked at in place: to declare them is to copy all that is below.
    if let Some(container) = module.downcast_ref::<Sequential>() {
        any(Box::new(container.values()))
    } else if let Some(container) = module.downcast_ref::<ModuleList>() {
        any(Box::new(container.values()))
    } else if let Some(container) = module.downcast_ref::<ModuleDict>() {
        any(Box::new(container.values()))
    } else {
        let mut declared = Declare::default();
        module.declare(&mut declared);
        any(Box::new(declared.children.iter().map(|(_, child)| &**child)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{BareModule, Linear, Tanh};

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
