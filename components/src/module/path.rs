//! Dotted paths: how a module's `forward` reaches what lies deeper than its own children.

use neurarch_kernels::ir::trace::Var;

use crate::module::Call;
use crate::module::blueprint::Blueprint;
use crate::module::call::Callable;

impl Blueprint {
    /// Finds the module at a dotted path below the one at `position`, that one itself if the path is empty:
    /// the owner where the path gives one of its names.
    ///
    /// # Errors
    ///
    /// How far the path led: the last position, and the name that it has no child of.
    pub fn below<'p>(&self, position: usize, path: &'p str) -> Result<usize, (usize, &'p str)> {
        let mut names = path.split('.').filter(|_| !path.is_empty());
        names.try_fold(position, |at, name| {
            let mut children = self.positions[at].children.iter().copied();
            let child = children.find(|&child| self.positions[child].name == name);
            let child = child.ok_or((at, name))?;
            Ok(self.positions[child].alias.unwrap_or(child))
        })
    }
}

impl<'a> Call<'a> {
    /// Returns the modules of the list at a dotted path, in order, each as a function. An error at this module if there is
    /// no list.
    ///
    /// Source: `for layer in self.layers`.
    pub fn each(&self, path: &str) -> Vec<Callable<'a>> {
        let call = *self;
        let paths = self.children_of(path).into_iter();
        paths
            .map(move |path| Box::new(move |x: &Var| call.child(&path, x)) as Callable<'a>)
            .collect()
    }

    /// Lists the dotted paths of a descendant's children in order: `layers.0`, `layers.1`, … for the path
    /// `layers` of a [`ModuleList`](crate::layers::ModuleList). Each can be called with
    /// [`child`](Call::child). An error at this module if there is no such descendant.
    pub fn children_of(&self, path: &str) -> Vec<String> {
        let found = self.blueprint.below(self.position, path);
        let name = |&child: &usize| self.blueprint.positions[child].name.as_str();
        match found {
            Ok(found) => {
                let children = self.blueprint.positions[found].children.iter().map(name);
                children.map(|name| format!("{path}.{name}")).collect()
            }
            Err((position, name)) => {
                self.missing(position, name);
                Vec::new()
            }
        }
    }

    /// Returns the dotted path of an entry of the list at `path`, a module or a parameter: `layers.2` for the index -1 of a
    /// [`ModuleList`](crate::layers::ModuleList) `layers` of three. An error at this module, in torch's words, if there is
    /// no such entry.
    ///
    /// # Example
    ///
    /// ```
    /// # use bevy_ecs::prelude::Component;
    /// # use neurarch_components::layers::*;
    /// # use neurarch_components::module::*;
    /// # use neurarch_kernels::ir::trace::Var;
    /// /// Calls the last of some layers, times the first of some numbers.
    /// #[derive(Component, Clone, Debug, PartialEq)]
    /// struct Last;
    ///
    /// impl Module for Last {
    ///     fn declare(&self, declare: &mut Declare) {
    ///         declare.child("layers", ModuleList::from([Linear::new(2, 3), Linear::new(2, 4)]));
    ///         declare.child("scales", ParameterList::from([Parameter::ones([4])]));
    ///     }
    ///
    ///     fn forward(&self, call: &Call<'_>, x: Var) -> Var {
    ///         let scale = call.parameter(&call.entry("scales", 0));
    ///         call.child(&call.entry("layers", -1), &x) * scale
    ///     }
    /// }
    /// ```
    ///
    /// Source: `self.layers[-1]`, and its `IndexError`.
    pub fn entry(&self, path: &str, index: isize) -> String {
        let found = match self.blueprint.below(self.position, path) {
            Ok(found) => &self.blueprint.positions[found],
            Err((position, name)) => {
                self.missing(position, name);
                return path.to_owned();
            }
        };
        let children = found.children.iter().map(|&child| &self.blueprint.positions[child].name);
        let parameters = found.parameters.iter().map(|parameter| &parameter.name);
        let names: Vec<_> = children.chain(parameters).collect();
        let place =
            if index < 0 { names.len().checked_add_signed(index) } else { Some(index as usize) };
        match place.and_then(|place| names.get(place)) {
            Some(name) if path.is_empty() => (*name).clone(),
            Some(name) => format!("{path}.{name}"),
            None => {
                self.trace.fail(format!("index {index} is out of range"));
                path.to_owned()
            }
        }
    }
}
