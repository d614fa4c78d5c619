//! [`Entrance`]: where a call enters models, if it is not at their roots.

use std::sync::Arc;

use neurarch_components::containers::Slice;
use neurarch_components::module::blueprint::{Blueprint, Position};
use neurarch_components::module::call::Call;
use neurarch_kernels::ir::tree::{Arguments, Tree};

/// The module that is called: that at a dotted path, or a slice of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entrance {
    path: String,
    /// The children that are called one after the other, in place of the module itself.
    slice: Option<Slice>,
}

impl Entrance {
    /// Enters at a dotted path; `None` at the root.
    pub(crate) fn of(path: &str, slice: Option<Slice>) -> Option<Arc<Self>> {
        let is_root = path.is_empty() && slice.is_none();
        (!is_root).then(|| Arc::new(Entrance { path: path.to_owned(), slice }))
    }

    /// Returns the place of the module that is entered, if there is one.
    pub(crate) fn position(&self, blueprint: &Blueprint) -> Option<usize> {
        blueprint.below(0, &self.path).ok()
    }

    /// Records the call below that of the root, which is not made itself. What is not there is an error in torch's words.
    pub(crate) fn call(&self, root: &Call<'_>, arguments: Arguments) -> Tree {
        let blueprint = root.blueprint;
        let position = match blueprint.below(root.position, &self.path) {
            Ok(position) => position,
            Err((at, name)) => {
                let class = blueprint.class_name(at);
                let message = format!("'{class}' object has no attribute '{name}'");
                return root.trace.fail(message).into();
            }
        };
        let call = Call { position, ..*root };
        match self.slice {
            Some(slice) => call_slice(&call, slice, arguments),
            None => call.run(arguments),
        }
    }
}

/// Calls some children of a `Sequential`, as the `Sequential` of those would.
fn call_slice(call: &Call<'_>, slice: Slice, mut arguments: Arguments) -> Tree {
    let Position { module, children, .. } = call.at();
    let children = match module.type_name() {
        "Sequential" => slice.places(children.len()).map_err(|error| error.to_string()),
        "ModuleList" => {
            Err("Module [ModuleList] is missing the required \"forward\" function".into())
        }
        class => Err(format!("'{class}' object is not subscriptable")),
    }
    .map(|places| places.into_iter().map(|place| children[place]));
    let children = match children {
        Ok(children) => children,
        Err(message) => return call.trace.fail(message).into(),
    };
    match arguments.positional.pop() {
        Some(x) if arguments.positional.is_empty() && arguments.keyword.is_empty() => {
            call.run_children(&children.collect::<Vec<_>>(), x)
        }
        x => {
            arguments.positional.extend(x);
            call.only_value(arguments);
            call.trace.poison().into()
        }
    }
}
