//! [`Blueprint`]: what models of one structure have in common. It is to models what an archetype is to
//! entities.

use core::ops::Range;

use neurarch_kernels::dtype::Dtype;
use neurarch_kernels::program::trace::{Trace, Var};
use neurarch_kernels::program::{Role, Slot};
use neurarch_kernels::shape::Type;

use crate::module::{Call, Declare, Declared, DynModule};

/// The structure of a model: its module tree, the settings that decide shapes or ops, and the shapes
/// and dtypes of its parameters.
///
/// Positions are in torch's order of `named_modules()`: depth first, the root at 0.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The modules.
    pub positions: Vec<Position>,
}

/// One module of a blueprint.
#[derive(Clone, Debug)]
pub struct Position {
    /// Dotted path from the root, empty for the root.
    pub path: String,
    /// Name in its parent.
    pub name: String,
    /// The parent's position; `None` for the root.
    pub parent: Option<usize>,
    /// The children's positions in order.
    pub children: Vec<usize>,
    /// The module's settings, [structural](crate::module::Module::structural) fields only.
    pub module: Box<dyn DynModule>,
    /// Parameters in order of registration.
    pub parameters: Vec<Parameter>,
    /// Buffers in order of registration.
    pub buffers: Vec<Parameter>,
}

/// A parameter or buffer of a position.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parameter {
    /// torch's name: `weight`.
    pub name: String,
    /// Element type and shape.
    pub ty: Type,
    /// Whether a `state_dict` has it.
    pub persistent: bool,
}

impl Blueprint {
    /// Draws the blueprint of a module that is not spawned yet, its floating parameters in `dtype`.
    pub fn of(module: &dyn DynModule, dtype: Dtype) -> Self {
        let mut blueprint = Blueprint { positions: Vec::new() };
        blueprint.add(module, dtype, String::new(), String::new(), None);
        blueprint
    }

    fn add(
        &mut self,
        module: &dyn DynModule,
        dtype: Dtype,
        name: String,
        path: String,
        parent: Option<usize>,
    ) -> usize {
        let mut declared = Declare::default();
        module.declare(&mut declared);
        let parameter = |declared: Declared| Parameter {
            name: declared.name,
            ty: Type { dtype: declared.dtype.unwrap_or(dtype), shape: declared.shape },
            persistent: declared.persistent,
        };
        let position = self.positions.len();
        self.positions.push(Position {
            path: path.clone(),
            name,
            parent,
            children: Vec::new(),
            module: module.structural(),
            parameters: declared.parameters.into_iter().map(parameter).collect(),
            buffers: declared.buffers.into_iter().map(parameter).collect(),
        });
        for (name, child) in declared.children {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let child = self.add(&*child, dtype, name, path, Some(position));
            self.positions[position].children.push(child);
        }
        position
    }

    /// Says whether models of the two are of one structure, compared in full.
    pub fn is_like(&self, other: &Blueprint) -> bool {
        self.positions.len() == other.positions.len()
            && self.positions.iter().zip(&other.positions).all(|(a, b)| {
                a.path == b.path
                    && a.children == b.children
                    && a.parameters == b.parameters
                    && a.buffers == b.buffers
                    && a.module.is_like(&*b.module)
            })
    }

    /// Gives the slot of a parameter.
    pub fn parameter(&self, position: usize, name: &str) -> Option<Slot> {
        self.slot(position, name, Role::Parameter, &self.positions[position].parameters)
    }

    /// Gives the slot of a buffer.
    pub fn buffer(&self, position: usize, name: &str) -> Option<Slot> {
        self.slot(position, name, Role::Buffer, &self.positions[position].buffers)
    }

    fn slot(&self, position: usize, name: &str, role: Role, among: &[Parameter]) -> Option<Slot> {
        let index = among.iter().position(|parameter| parameter.name == name)?;
        let ty = among[index].ty.clone();
        let path = &self.positions[position].path;
        let name = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        Some(Slot { name, role, position, index, ty })
    }

    /// Gives the positions of the module at `position` and of all below it.
    pub fn subtree(&self, position: usize) -> Range<usize> {
        let mut end = position + 1;
        // Depth first: whoever comes next and has its parent in the subtree belongs to it.
        while self.positions.get(end).is_some_and(|at| at.parent >= Some(position)) {
            end += 1;
        }
        position..end
    }

    /// Gives the parameter's number in the order of `named_parameters()`.
    pub fn number(&self, position: usize, index: usize) -> usize {
        let before = self.positions[..position].iter();
        before.map(|at| at.parameters.len()).sum::<usize>() + index
    }

    /// Finds a parameter by its dotted name, `0.weight`: its position and its place there.
    pub fn find(&self, name: &str) -> Option<(usize, usize)> {
        let (path, own) = name.rsplit_once('.').unwrap_or(("", name));
        let position = self.positions.iter().position(|at| at.path == path)?;
        let parameters = &self.positions[position].parameters;
        Some((position, parameters.iter().position(|parameter| parameter.name == own)?))
    }

    /// Records a call of the module at `position`.
    pub fn call(&self, position: usize, trace: &Trace, training: &[bool], x: &Var) -> Var {
        let Position { path, module, .. } = &self.positions[position];
        let call = Call { trace, blueprint: self, position, training };
        trace.call(path, module.type_name(), x, |x| module.forward(&call, x))
    }
}
