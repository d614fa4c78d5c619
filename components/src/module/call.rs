//! [`Call`]: what a module's `forward` sees of its model, and how it calls its children.

use core::cell::RefCell;
use std::collections::HashMap;

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Slot;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ir::tree::{Arguments, Tree};

use crate::module::blueprint::{Blueprint, Position, UNINITIALIZED};
use crate::module::mode::Checkpoints;
use crate::module::{DynModule, NoInverse};

/// What a module's `forward` sees of the model: its own parameters, buffers, children and mode.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The recording.
    pub trace: &'a Trace,
    /// The model's structure.
    pub blueprint: &'a Blueprint,
    /// The module's place in it.
    pub position: usize,
    /// Training mode, one bit for each position.
    pub training: &'a [bool],
    /// Who watches the calls of modules, if somebody does.
    pub watcher: Option<&'a dyn Watcher>,
    /// Tensors that parametrizations made in this pass, if they are made once only.
    pub cache: Option<&'a Cache>,
    /// What is computed again on the way back, if something is.
    pub checkpoints: Option<&'a Checkpoints>,
}

/// What a [`ParametrizationList`](crate::parametrizations::ParametrizationList) made, by its position.
///
/// Source: the cache of `torch.nn.utils.parametrize.cached`.
pub type Cache = RefCell<HashMap<usize, Var>>;

/// A module as a function that calls it with one value, which gives one: see [`Call::each`].
pub type Callable<'a> = Box<dyn Fn(&Var) -> Var + 'a>;

/// Watches the calls of modules, from just before to just after each `forward`: how hooks are called.
pub trait Watcher {
    /// Is called with the arguments of a call, and gives those that go on to `forward`.
    fn before(&self, call: &Call<'_>, arguments: Arguments) -> Arguments;

    /// Is called with the arguments that `forward` got and with its result (`None` after an error), and
    /// gives the result that the caller gets.
    fn after(&self, call: &Call<'_>, arguments: &Arguments, result: Option<Tree>) -> Option<Tree>;

    /// Returns whether a `forward` that sees numbers may leave out modules that these do not need, so that their
    /// parameters get no gradient. In a training step it may not: unwatched, their gradients are zeros.
    fn may_leave_out(&self) -> bool {
        true
    }
}

/// An argument is no list of sizes; which is recorded.
pub(crate) struct NoSizes;

impl<'a> Call<'a> {
    /// Records a call of this module. After an error nothing is called any more; a `forward` that panics is one.
    ///
    /// Source: `torch.nn.Module.__call__`.
    pub fn run(&self, arguments: Arguments) -> Tree {
        let trace = self.trace;
        let Position { path, module, .. } = self.at();
        if trace.error().is_some() {
            return trace.poison().into();
        }
        let is_span = |of: &Checkpoints| self.training() && of.modules.contains(self.position);
        match self.checkpoints.is_some_and(is_span) {
            true => trace.checkpoint(|| self.run_in_scope(path, &**module, arguments)),
            false => self.run_in_scope(path, &**module, arguments),
        }
    }

    fn run_in_scope(&self, path: &str, module: &dyn DynModule, arguments: Arguments) -> Tree {
        let trace = self.trace;
        trace.scope(path, module.type_name(), || {
            let forward = |arguments| {
                let made = trace.contain("forward", || module.forward_with(self, arguments));
                made.unwrap_or_else(|| trace.poison().into())
            };
            let Some(watcher) = self.watcher else {
                return trace.leave(forward(trace.enter(arguments)));
            };
            let arguments = watcher.before(self, arguments);
            let fails = || trace.error().is_some();
            let (arguments, result) = match fails() {
                true => (arguments, None),
                false => {
                    let inside = trace.enter(arguments);
                    let result = forward(inside.clone());
                    (inside, Some(result).filter(|_| !fails()))
                }
            };
            match watcher.after(self, &arguments, result) {
                Some(result) => trace.leave(result),
                None => trace.poison().into(),
            }
        })
    }

    /// Returns this module's place in the blueprint.
    pub fn at(&self) -> &'a Position {
        &self.blueprint.positions[self.position]
    }

    /// Returns whether the module is in training mode.
    pub fn training(&self) -> bool {
        self.training.get(self.position).copied().unwrap_or(true)
    }

    /// Returns a parameter by name, or one of a descendant by its dotted path, computed if it is parametrized; an
    /// error at this module if there is none.
    pub fn parameter(&self, name: &str) -> Var {
        self.read(name, Blueprint::parameter)
    }

    /// Returns a parameter by name; `None` if it is registered without a value, an error at this module if it is
    /// not registered.
    pub fn optional_parameter(&self, name: &str) -> Option<Var> {
        let is_none = self.at().nones.iter().any(|none| none == name);
        (!is_none).then(|| self.parameter(name))
    }

    /// Returns a buffer by name, or one of a descendant by its dotted path, computed if it is parametrized; an
    /// error at this module if there is none.
    pub fn buffer(&self, name: &str) -> Var {
        self.read(name, Blueprint::buffer)
    }

    /// Returns a buffer by name; `None` if it is registered without a value, an error at this module if it is not
    /// registered.
    pub fn optional_buffer(&self, name: &str) -> Option<Var> {
        let is_none = self.at().nones.iter().any(|none| none == name);
        (!is_none).then(|| self.buffer(name))
    }

    fn read(&self, name: &str, find: impl Fn(&Blueprint, usize, &str) -> Option<Slot>) -> Var {
        let (path, own) = name.rsplit_once('.').unwrap_or(("", name));
        let position = match self.blueprint.below(self.position, path) {
            Ok(position) => position,
            Err((position, name)) => return self.missing(position, name),
        };
        match find(self.blueprint, position, own) {
            Some(slot) if self.blueprint.is_uninitialized(&slot) => self.trace.fail(UNINITIALIZED),
            Some(slot) => self.trace.slot(slot),
            None => Call { position, ..*self }.parametrized(own),
        }
    }

    /// Computes a tensor of this module that is parametrized: anew each time, unless there is a cache.
    fn parametrized(&self, name: &str) -> Var {
        if let Some(how) = self.at().weight_normed.find(name) {
            let [g, v] = ["g", "v"].map(|part| self.parameter(&format!("{name}_{part}")));
            return how.join(&g, &v);
        }
        let Some(position) = self.blueprint.parametrization(self.position, name) else {
            return self.missing(self.position, name);
        };
        if let Some(known) = self.cache.and_then(|cache| cache.borrow().get(&position).cloned()) {
            return known;
        }
        let nothing = Arguments { positional: Vec::new(), keyword: Vec::new() };
        let made = match (Call { position, ..*self }).run(nothing) {
            Tree::Leaf(made) => made,
            other => {
                let given = other.type_name();
                self.trace.fail(format!("A parametrization must return a tensor. Got {given}."))
            }
        };
        if let Some(cache) = self.cache {
            cache.borrow_mut().insert(position, made.clone());
        }
        made
    }

    /// Returns a field of this module that each model has of its own, with shape `[]`:
    /// see [`Module::scalar`](crate::module::Module::scalar).
    pub fn scalar(&self, name: &'static str, dtype: Dtype) -> Var {
        self.trace.module_scalar(name, self.position, dtype)
    }

    /// Names the children in order.
    pub fn children(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let blueprint = self.blueprint;
        self.at().children.iter().map(move |&child| blueprint.positions[child].name.as_str())
    }

    /// Computes what `run` records again on the way back, rather than keep it until then, in training mode or not. The bits are
    /// the same, and nothing has a side effect twice: see `enable_activation_checkpointing` of handles.
    ///
    /// # Example
    ///
    /// ```
    /// # use bevy_ecs::prelude::*;
    /// # use neurarch_components::module::{Call, Declare, Forward, Module};
    /// # use neurarch_components::layers::Linear;
    /// # use neurarch_kernels::ir::trace::Var;
    /// #[derive(Component, Clone, Debug, PartialEq)]
    /// struct Wide(usize);
    ///
    /// impl Module for Wide {
    ///     fn declare(&self, declare: &mut Declare) {
    ///         declare.child("up", Linear::new(self.0, 8 * self.0));
    ///         declare.child("down", Linear::new(8 * self.0, self.0));
    ///     }
    ///
    ///     fn forward(&self, call: &Call<'_>, x: Var) -> Var {
    ///         x.clone() + call.checkpoint(|| call.child("down", &call.child("up", &x).relu()))
    ///     }
    /// }
    /// ```
    ///
    /// Source: `torch.utils.checkpoint.checkpoint(function, *args)`.
    pub fn checkpoint<R>(&self, run: impl FnOnce() -> R) -> R {
        self.trace.checkpoint(run)
    }

    /// Calls children one after the other, each with what the one before gave; those that are to be computed again together
    /// as one.
    ///
    /// Source: `torch.utils.checkpoint.checkpoint_sequential`.
    pub fn run_children(&self, children: &[usize], x: Tree) -> Tree {
        let run = |children: &[usize], x: Tree| {
            children.iter().fold(x, |x, &child| {
                let position = self.blueprint.positions[child].alias.unwrap_or(child);
                Call { position, ..*self }.run(Arguments::one(x))
            })
        };
        let Some(checkpoints) = self.checkpoints.filter(|_| self.training()) else {
            return run(children, x);
        };
        let is_in_span = |child: usize| {
            checkpoints.begins.contains(child) || checkpoints.continues.contains(child)
        };
        let goes_on =
            |_: &usize, next: &usize| checkpoints.continues.contains(*next) || !is_in_span(*next);
        let mut x = x;
        for span in children.chunk_by(|a, b| is_in_span(*a) == is_in_span(*b) && goes_on(a, b)) {
            x = match is_in_span(span[0]) {
                true => self.trace.checkpoint(|| run(span, x)),
                false => run(span, x),
            };
        }
        x
    }

    /// Calls a child, or a module further down by its dotted path, with one value, which gives one value;
    /// an error at this module if there is none.
    pub fn child(&self, path: &str, x: &Var) -> Var {
        self.one_value(path, self.child_with(path, x))
    }

    /// Takes the one value that the child at `path` gave, if it did.
    pub fn one_value(&self, path: &str, result: Tree) -> Var {
        match result {
            Tree::Leaf(y) => y,
            other => {
                let found = other.type_name();
                self.trace.fail(format!("'{path}': expected one Tensor as the result, got {found}"))
            }
        }
    }

    /// Calls a child, or a module further down by its dotted path; an error at this module if there is
    /// none.
    pub fn child_with(&self, path: &str, arguments: impl Into<Arguments>) -> Tree {
        match self.blueprint.below(self.position, path) {
            Ok(position) if position != self.position => {
                Call { position, ..*self }.run(arguments.into())
            }
            Ok(position) => self.missing(position, path).into(),
            Err((position, name)) => self.missing(position, name).into(),
        }
    }

    /// Takes the `N` values that the arguments are, if they are; an error in Python's words if not.
    pub fn values<const N: usize>(&self, arguments: Arguments) -> Option<[Var; N]> {
        let module = self.at().module.type_name();
        if let Some((name, _)) = arguments.keyword.first() {
            self.trace
                .fail(format!("{module}.forward() got an unexpected keyword argument '{name}'"));
            return None;
        }
        let given = arguments.positional.len();
        let values = arguments.positional.into_iter().map(|tree| match tree {
            Tree::Leaf(x) => x,
            other => {
                let given = other.type_name();
                self.trace.fail(format!("{module}.forward(): expected a Tensor, got {given}"))
            }
        });
        let values = values.collect::<Vec<_>>().try_into();
        if values.is_err() {
            self.trace.fail(format!(
                "{module}.forward() takes {} positional arguments but {} were given",
                N + 1,
                given + 1
            ));
        }
        values.ok()
    }

    /// Takes the values that the parameters `names` of a `forward` are called with, by place or by name; an
    /// error in Python's words if they do not fit.
    pub fn named_values<const N: usize>(
        &self,
        arguments: Arguments,
        names: [&str; N],
    ) -> Option<[Var; N]> {
        let module = self.at().module.type_name();
        let bound = self.bind_or_none(arguments, names, N)?;
        let values = bound.into_iter().map(|tree| match tree {
            Tree::Leaf(x) => Some(x),
            other => {
                let given = other.type_name();
                self.trace.fail(format!("{module}.forward(): expected a Tensor, got {given}"));
                None
            }
        });
        values.collect::<Option<Vec<_>>>()?.try_into().ok()
    }

    /// Takes the argument `output_size` out, which stands at `place` or has a name: a list of sizes, or `None`.
    ///
    /// # Errors
    ///
    /// `Err` if it is something else; that is recorded at this module.
    ///
    /// Source: the calls of torch's transposed convolutions and `MaxUnpool` layers.
    pub(crate) fn output_size(
        &self,
        arguments: &mut Arguments,
        place: usize,
    ) -> Result<Option<Vec<usize>>, NoSizes> {
        let positional = &mut arguments.positional;
        let at_place = (positional.len() == place + 1).then(|| positional.remove(place));
        let given = match at_place.or_else(|| arguments.take("output_size")) {
            None | Some(Tree::None) => return Ok(None),
            Some(given) => given,
        };
        let of = given.type_name();
        let whole = |size: Tree| match size {
            Tree::Number(size) if size >= 0.0 && size.fract() == 0.0 => Some(size as usize),
            _ => None,
        };
        let sizes = given.into_items().into_iter().map(whole).collect::<Option<Vec<_>>>();
        sizes.map(Some).ok_or_else(|| {
            let module = self.at().module.type_name();
            self.trace.fail(format!("{module}.forward(): expected sizes as output_size, got {of}"));
            NoSizes
        })
    }

    /// Turns a child, or a module further down by its dotted path, around: gives the tensors that it makes
    /// `tensor` of.
    ///
    /// # Errors
    ///
    /// What the module's [`right_inverse`](crate::module::Module::right_inverse) gives.
    pub fn right_inverse(&self, path: &str, tensor: Var) -> Result<Tree, NoInverse> {
        match self.blueprint.below(self.position, path) {
            Ok(position) => Call { position, ..*self }.turn_around(tensor),
            Err((position, name)) => Ok(self.missing(position, name).into()),
        }
    }

    /// [`right_inverse`](Call::right_inverse) of this module itself.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn turn_around(&self, tensor: Var) -> Result<Tree, NoInverse> {
        let Position { path, module, .. } = self.at();
        self.trace.scope(path, module.type_name(), || module.right_inverse(self, tensor))
    }

    /// Takes the one value that the arguments are, if they are; an error in Python's words if not.
    pub fn only_value(&self, arguments: Arguments) -> Option<Var> {
        let module = self.at().module.type_name();
        let Arguments { mut positional, keyword } = arguments;
        let wrong = match (positional.len(), keyword.first()) {
            (_, Some((name, _))) if name != "input" || !positional.is_empty() => {
                format!("{module}.forward() got an unexpected keyword argument '{name}'")
            }
            (0, None) => {
                format!("{module}.forward() missing 1 required positional argument: 'input'")
            }
            (0 | 1, _) => match positional.pop().or(keyword.into_iter().next().map(|(_, x)| x)) {
                Some(Tree::Leaf(x)) => return Some(x),
                other => {
                    let given = other.unwrap_or_default().type_name();
                    format!("{module}.forward(): expected a Tensor, got {given}")
                }
            },
            (given, _) => format!(
                "{module}.forward() takes 2 positional arguments but {} were given",
                given + 1
            ),
        };
        self.trace.fail(wrong);
        None
    }

    /// Records that the module at `position` has no such thing.
    pub(crate) fn missing(&self, position: usize, name: &str) -> Var {
        let module = self.blueprint.class_name(position);
        self.trace.fail(format!("'{module}' object has no attribute '{name}'"))
    }
}
