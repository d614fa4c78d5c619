//! [`Blueprint`]: what models of one structure have in common. It is to models what an archetype is to
//! entities.

use core::any::Any;
use core::ops::Range;
use std::borrow::Cow;

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::column::shared::SharedRow;
use crate::module::mode::{Bits, Checkpoints, Mode};
use crate::module::parametrized::{PARAMETRIZATIONS, Parametrizations, WeightNormed};
use crate::module::{Declare, Declared, DynModule};

/// Index of a blueprint in [`Blueprints`](crate::population::blueprints::Blueprints); one that is free again is given out anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlueprintId(pub u32);

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
    /// Names of parameters and buffers that are not there: torch's `None`.
    pub nones: Vec<String>,
    /// The position of the module that this is, if it is there under another name. It has no children then.
    pub alias: Option<usize>,
    /// Which of its tensors are made of a length and a direction of its own.
    pub weight_normed: WeightNormed,
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
    /// The parameter that this is, by position and place there, if it is tied. It has no column then.
    pub tied: Option<(usize, usize)>,
    /// Where its numbers lie, if the population's models share them. It has no column in a model then.
    pub shared: Option<SharedRow>,
    /// Whether its shape is not known yet. It has no column then.
    pub uninitialized: bool,
    /// Whether it needs a gradient at first. That of a buffer means nothing.
    pub requires_grad: bool,
}

impl Parameter {
    /// Returns whether it has a column of its own.
    pub fn has_column(&self) -> bool {
        self.tied.is_none() && self.shared.is_none() && !self.uninitialized
    }
}

/// What torch says when the numbers of a parameter are asked for before its shape is known.
pub const UNINITIALIZED: &str = "Can't access the shape of an uninitialized parameter or buffer. This \
    error usually happens in `load_state_dict` when trying to load an uninitialized parameter into an \
    initialized one. Call `forward` to initialize the parameters before accessing their attributes.";

/// What torch says, after the name of what was to be done, when that takes numbers of a parameter whose shape is not known
/// yet.
pub const UNINITIALIZED_USE: &str = "This error happens when you are using a `LazyModule` or explicitly manipulating \
    `torch.nn.parameter.UninitializedParameter` objects. When using LazyModules Call `forward` with a dummy batch to \
    initialize the parameters before calling torch functions";

/// Lists the parameters and buffers that a module declares, floating ones in `dtype`, and the names without a
/// value.
fn declared(module: &dyn DynModule, dtype: Dtype) -> (Vec<Parameter>, Vec<Parameter>, Vec<String>) {
    let mut declare = Declare::default();
    module.declare(&mut declare);
    let all = declare.parameters.iter().chain(&declare.buffers);
    let nones = all.filter(|of| of.is_none).map(|of| of.name.clone()).collect();
    let parameter = |declared: Declared| Parameter {
        name: declared.name,
        ty: Type { dtype: declared.dtype.unwrap_or(dtype), shape: declared.shape },
        persistent: declared.persistent,
        tied: None,
        shared: None,
        uninitialized: declared.uninitialized,
        requires_grad: declared.requires_grad,
    };
    let there =
        |of: Vec<Declared>| of.into_iter().filter(|of| !of.is_none).map(parameter).collect();
    (there(declare.parameters), there(declare.buffers), nones)
}

/// Why a tie cannot be: what it names is not there, or has another type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct TieError {
    /// Dotted path of what is to be tied.
    pub path: String,
    /// What was expected and what came.
    pub message: String,
}

impl Blueprint {
    /// The id of no blueprint: the model has yet to be signed.
    pub const UNSIGNED: BlueprintId = BlueprintId(u32::MAX);

    /// Hashes what is cheap to hash: names and parameters. Equal blueprints have equal hashes.
    pub fn shape_hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for position in &self.positions {
            (&position.path, &position.children, &position.parameters, &position.buffers)
                .hash(&mut hasher);
            position.module.type_name().hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Draws the blueprint of a module that is not spawned yet, its floating parameters in `dtype`.
    ///
    /// # Errors
    ///
    /// If it ties what is not there.
    pub fn of(module: &dyn DynModule, dtype: Dtype) -> Result<Self, TieError> {
        let mut blueprint = Blueprint { positions: Vec::new() };
        blueprint.add(module, dtype, String::new(), String::new(), None)?;
        blueprint.drop_parametrized();
        blueprint.check_cycles()?;
        Ok(blueprint)
    }

    /// Checks that no module is below itself by its second names.
    ///
    /// # Errors
    ///
    /// If one is.
    pub fn check_cycles(&self) -> Result<(), TieError> {
        /// Walks down; `done` says of each position whether it is being walked (false) or was (true).
        fn visit(
            blueprint: &Blueprint,
            position: usize,
            done: &mut [Option<bool>],
        ) -> Result<(), TieError> {
            done[position] = Some(false);
            for &child in &blueprint.positions[position].children {
                let at = &blueprint.positions[child];
                let owner = at.alias.unwrap_or(child);
                match done[owner] {
                    Some(true) => {}
                    Some(false) => {
                        let message = "a module cannot be below itself".to_owned();
                        return Err(TieError { path: at.path.clone(), message });
                    }
                    None => visit(blueprint, owner, done)?,
                }
            }
            done[position] = Some(true);
            Ok(())
        }
        if self.positions.iter().all(|at| at.alias.is_none()) {
            return Ok(());
        }
        visit(self, 0, &mut vec![None; self.positions.len()])
    }

    fn add(
        &mut self,
        module: &dyn DynModule,
        dtype: Dtype,
        name: String,
        path: String,
        parent: Option<usize>,
    ) -> Result<usize, TieError> {
        let position = self.push(module, dtype, name, path, parent);
        let mut declared = Declare::default();
        module.declare(&mut declared);
        let mut shared = declared.shared.into_iter().peekable();
        let n_children = declared.children.len();
        let mut children = declared.children.into_iter();
        for place in 0..=n_children {
            while let Some(share) = shared.next_if(|share| share.place == place) {
                let alias = self.below(position, &share.path);
                let alias = alias.map_err(|_| self.no_such(position, &share.name, &share.path))?;
                let path = self.path_below(position, &share.name);
                self.push_alias(alias, share.name, path, position);
            }
            if let Some((name, child)) = children.next() {
                let path = self.path_below(position, &name);
                let child = self.add(&*child, dtype, name, path, Some(position))?;
                self.positions[position].children.push(child);
            }
        }
        for (parameter, owner) in declared.ties {
            let find = |path: &str| self.find_below(position, path);
            let tied = find(&parameter).ok_or_else(|| self.no_such(position, "", &parameter))?;
            let owner = find(&owner).ok_or_else(|| self.no_such(position, &parameter, &owner))?;
            self.tie(tied, owner)?;
        }
        Ok(position)
    }

    /// Adds a second name of the module at `alias`; gives its position.
    pub fn push_alias(&mut self, alias: usize, name: String, path: String, parent: usize) -> usize {
        let position = self.positions.len();
        self.positions.push(Position {
            path,
            name,
            parent: Some(parent),
            children: Vec::new(),
            module: self.positions[alias].module.clone(),
            parameters: Vec::new(),
            buffers: Vec::new(),
            nones: Vec::new(),
            alias: Some(self.positions[alias].alias.unwrap_or(alias)),
            weight_normed: WeightNormed::default(),
        });
        self.positions[parent].children.push(position);
        position
    }

    /// Makes a parameter the same as another; both are given by position and place there. Of the two, the
    /// first in the order of `named_parameters()` is the owner.
    ///
    /// # Errors
    ///
    /// If their types differ.
    pub fn tie(&mut self, one: (usize, usize), other: (usize, usize)) -> Result<(), TieError> {
        let at = |of: (usize, usize)| &self.positions[of.0].parameters[of.1];
        let owner = |of: (usize, usize)| at(of).tied.unwrap_or(of);
        let (owner, tied) = (owner(one).min(owner(other)), owner(one).max(owner(other)));
        if at(owner).ty != at(tied).ty {
            let path = self.path_below(tied.0, &at(tied).name);
            let message =
                format!("expected the type of the tied {}, got {}", at(owner).ty, at(tied).ty);
            return Err(TieError { path, message });
        }
        let all = self.positions.iter_mut().enumerate().flat_map(|(position, at)| {
            at.parameters.iter_mut().enumerate().map(move |(index, of)| ((position, index), of))
        });
        for (place, parameter) in all {
            if owner != tied && (place == tied || parameter.tied == Some(tied)) {
                parameter.tied = Some(owner);
            }
        }
        Ok(())
    }

    /// Finds a parameter by a dotted path from `position`: its position and its place there.
    pub fn find_below(&self, position: usize, path: &str) -> Option<(usize, usize)> {
        let (module, own) = path.rsplit_once('.').unwrap_or(("", path));
        let position = self.below(position, module).ok()?;
        let parameters = &self.positions[position].parameters;
        Some((position, parameters.iter().position(|parameter| parameter.name == own)?))
    }

    fn no_such(&self, position: usize, name: &str, path: &str) -> TieError {
        let module = self.positions[position].module.type_name();
        TieError {
            path: self.path_below(position, name),
            message: format!("'{module}' object has no attribute '{path}'"),
        }
    }

    /// Finds the position of the parametrizations of a module's tensor, if it is parametrized.
    pub fn parametrization(&self, position: usize, name: &str) -> Option<usize> {
        let child = |position: usize, name: &str| {
            let mut children = self.positions[position].children.iter().copied();
            children.find(|&child| self.positions[child].name == name)
        };
        child(self.parametrizations(position)?, name)
    }

    /// Finds the position of the container of a module's parametrizations, if it has any.
    pub fn parametrizations(&self, position: usize) -> Option<usize> {
        let mut children = self.positions[position].children.iter().copied();
        children.find(|&child| {
            let at = &self.positions[child];
            at.name == PARAMETRIZATIONS && (&*at.module as &dyn Any).is::<Parametrizations>()
        })
    }

    /// Takes the tensors that are parametrized out of the modules that declare them: they are computed.
    pub fn drop_parametrized(&mut self) {
        for position in 0..self.positions.len() {
            let Some(container) = self.parametrizations(position) else { continue };
            let lists = self.positions[container].children.iter();
            let names: Vec<_> = lists.map(|&list| self.positions[list].name.clone()).collect();
            let at = &mut self.positions[position];
            at.parameters.retain(|parameter| !names.contains(&parameter.name));
            at.buffers.retain(|buffer| !names.contains(&buffer.name));
        }
    }

    /// Puts a length and a direction in the place of each tensor of a module that is made of them; names that it
    /// has no parameter of are passed over.
    pub fn split_weight_normed(&mut self, position: usize, normed: &WeightNormed) {
        let at = &mut self.positions[position];
        for (name, _) in &normed.0 {
            let place = at.parameters.iter().position(|of| of.name == *name);
            let found = place.zip(normed.find(name));
            let lengths = found.and_then(|(place, how)| {
                Some((place, how.lengths(&at.parameters[place].ty.shape)?))
            });
            let Some((place, lengths)) = lengths else { continue };
            let tensor = at.parameters.remove(place);
            let g = Type { dtype: tensor.ty.dtype, shape: lengths };
            at.parameters.push(Parameter { name: format!("{name}_g"), ty: g, ..tensor.clone() });
            at.parameters.push(Parameter { name: format!("{name}_v"), ..tensor });
        }
        at.weight_normed = normed.clone();
    }

    /// Names the type of a module as torch does: `ParametrizedLinear` where a tensor of it is parametrized.
    ///
    /// Source: `type(module).__name__`.
    pub fn class_name(&self, position: usize) -> Cow<'static, str> {
        let name = self.positions[position].module.type_name();
        match self.parametrizations(position) {
            Some(_) => Cow::Owned(format!("Parametrized{name}")),
            None => Cow::Borrowed(name),
        }
    }

    /// Returns the dotted path of a child of that name.
    pub fn path_below(&self, position: usize, name: &str) -> String {
        match (self.positions[position].path.as_str(), name) {
            ("", name) => name.to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path}.{name}"),
        }
    }

    /// Adds a module without its children; gives its position.
    pub fn push(
        &mut self,
        module: &dyn DynModule,
        dtype: Dtype,
        name: String,
        path: String,
        parent: Option<usize>,
    ) -> usize {
        let (parameters, buffers, nones) = declared(module, dtype);
        let position = self.positions.len();
        self.positions.push(Position {
            path,
            name,
            parent,
            children: Vec::new(),
            module: module.plain().structural(),
            nones,
            parameters,
            buffers,
            alias: None,
            weight_normed: WeightNormed::default(),
        });
        position
    }

    /// Puts another module in the place of the one at `position`, which keeps its name and children, and a list of
    /// parameters and buffers that was edited: what has no shape there gets the one that the module declares.
    pub fn replace(&mut self, position: usize, module: &dyn DynModule, dtype: Dtype) {
        let (parameters, buffers, nones) = declared(module, dtype);
        let at = &mut self.positions[position];
        let is_declared = declared(&*at.module, dtype)
            == (at.parameters.clone(), at.buffers.clone(), at.nones.clone());
        at.module = module.plain().structural();
        if is_declared {
            (at.parameters, at.buffers, at.nones) = (parameters, buffers, nones);
            return;
        }
        for (own, declared) in [(&mut at.parameters, parameters), (&mut at.buffers, buffers)] {
            for of in own.iter_mut().filter(|of| of.uninitialized) {
                if let Some(known) = declared.iter().find(|known| known.name == of.name) {
                    (of.ty.shape, of.uninitialized) = (known.ty.shape.clone(), known.uninitialized);
                }
            }
        }
    }

    /// Returns whether models of the two are of one structure, compared in full.
    pub fn is_like(&self, other: &Blueprint) -> bool {
        // Structures side by side mostly have the same names and shapes, and modules of other settings.
        self.positions.len() == other.positions.len()
            && self
                .positions
                .iter()
                .zip(&other.positions)
                .all(|(a, b)| a.module.is_like(&*b.module))
            && self.positions.iter().zip(&other.positions).all(|(a, b)| {
                a.path == b.path
                    && a.children == b.children
                    && a.parameters == b.parameters
                    && a.buffers == b.buffers
                    && a.nones == b.nones
                    && a.alias == b.alias
                    && a.weight_normed == b.weight_normed
            })
    }

    /// Lists the positions whose modules ask in which mode they are.
    pub fn asking(&self) -> Bits {
        let all = self.positions.iter().enumerate();
        all.filter(|(_, at)| at.module.uses_training()).map(|(position, _)| position).collect()
    }

    /// Returns the positions whose mode decides what models of some modes run: those that ask in which mode they are, and those
    /// that are computed again on the way back in training mode only.
    pub fn asking_in(&self, mode: &Mode) -> Bits {
        let mut asking = self.asking();
        if let Some(checkpoints) = &mode.checkpoints {
            for (position, at) in self.positions.iter().enumerate() {
                if checkpoints.modules.contains(position) {
                    asking.set(position, true);
                }
                let is_in_span = |of: &Checkpoints| {
                    of.begins.contains(position) || of.continues.contains(position)
                };
                if let Some(parent) = at.parent.filter(|_| is_in_span(checkpoints)) {
                    asking.set(parent, true);
                }
            }
        }
        asking
    }

    /// Returns the slot of a parameter: the owner's if it is tied.
    pub fn parameter(&self, position: usize, name: &str) -> Option<Slot> {
        let at = &self.positions[position];
        let index = at.parameters.iter().position(|parameter| parameter.name == name)?;
        let (position, index) = at.parameters[index].tied.unwrap_or((position, index));
        let parameter = &self.positions[position].parameters[index];
        Some(self.slot(position, index, Role::Parameter, parameter))
    }

    /// Returns the slot of a buffer.
    pub fn buffer(&self, position: usize, name: &str) -> Option<Slot> {
        let buffers = &self.positions[position].buffers;
        let index = buffers.iter().position(|buffer| buffer.name == name)?;
        Some(self.slot(position, index, Role::Buffer, &buffers[index]))
    }

    fn slot(&self, position: usize, index: usize, role: Role, of: &Parameter) -> Slot {
        Slot { name: self.path_below(position, &of.name), role, position, index, ty: of.ty.clone() }
    }

    /// Returns whether the shape of a slot is not known yet.
    pub fn is_uninitialized(&self, slot: &Slot) -> bool {
        self.at(slot).uninitialized
    }

    /// Says where the numbers of a slot lie, if the population's models share them.
    pub fn shared(&self, slot: &Slot) -> Option<SharedRow> {
        self.at(slot).shared
    }

    /// Returns whether a slot is a parameter or a buffer of a module, of its type: a `forward` may record any.
    pub fn has(&self, slot: &Slot) -> bool {
        self.find(slot).is_some_and(|known| known.ty == slot.ty)
    }

    fn at(&self, slot: &Slot) -> &Parameter {
        self.find(slot).expect("the slot is one of the blueprint's")
    }

    fn find(&self, slot: &Slot) -> Option<&Parameter> {
        let at = self.positions.get(slot.position)?;
        let among = if slot.role == Role::Buffer { &at.buffers } else { &at.parameters };
        among.get(slot.index)
    }

    /// Makes the parameter or buffer of that name at `position` the one that is shared; of a parameter that is
    /// tied, its owner. What has become another, of other type, is the model's own.
    pub fn share(
        &mut self,
        position: usize,
        name: &str,
        row: SharedRow,
        (role, ty): (Role, &Type),
    ) {
        let slot = match role {
            Role::Buffer => self.buffer(position, name),
            _ => self.parameter(position, name),
        };
        let Some(slot) = slot.filter(|slot| slot.ty == *ty) else { return };
        let at = &mut self.positions[slot.position];
        let among = if role == Role::Buffer { &mut at.buffers } else { &mut at.parameters };
        among[slot.index].shared = Some(row);
    }

    /// Returns the type of the floating parameters and buffers at a position and below: `dtype` if there are some of it, or
    /// none; else that of the first.
    pub fn dtype_below(&self, position: usize, dtype: Dtype) -> Dtype {
        let positions = self.positions[self.subtree(position)].iter();
        let tensors = positions.flat_map(|at| at.parameters.iter().chain(&at.buffers));
        let mut floating = tensors.map(|of| of.ty.dtype).filter(|dtype| dtype.is_float());
        let Some(first) = floating.next() else { return dtype };
        if first == dtype || floating.any(|other| other == dtype) { dtype } else { first }
    }

    /// Returns the positions of the module at `position` and of all below it.
    pub fn subtree(&self, position: usize) -> Range<usize> {
        let mut end = position + 1;
        // Depth first: whoever comes next and has its parent in the subtree belongs to it.
        while self.positions.get(end).is_some_and(|at| at.parent >= Some(position)) {
            end += 1;
        }
        position..end
    }

    /// Returns the parameter's number in the order of `named_parameters()`; tied ones are counted, too.
    pub fn number(&self, position: usize, index: usize) -> usize {
        let before = self.positions[..position].iter();
        before.map(|at| at.parameters.len()).sum::<usize>() + index
    }

    /// Lists the parameters that need no gradient at first, by number: the owners of tied ones decide.
    pub fn frozen(&self) -> Bits {
        let all = self.positions.iter().flat_map(|at| &at.parameters).enumerate();
        all.filter(|(_, of)| !of.requires_grad && of.tied.is_none()).map(|(i, _)| i).collect()
    }

    /// Lists the parameters of a subtree by position and place there: the owners where they, or the module,
    /// are there under another name.
    pub fn parameters_below(&self, position: usize) -> Vec<(usize, usize)> {
        let own = |position: usize| {
            let at = &self.positions[position];
            let parameters = at.parameters.iter().enumerate();
            let own = parameters.map(move |(index, of)| of.tied.unwrap_or((position, index)));
            let shared = at.alias.map(|alias| self.parameters_below(alias));
            own.chain(shared.into_iter().flatten())
        };
        self.subtree(position).flat_map(own).collect()
    }

    /// Returns the numbers, in the order of `named_parameters()`, of the parameters of a subtree.
    pub fn numbers(&self, position: usize) -> Vec<usize> {
        let below = self.parameters_below(position).into_iter();
        below.map(|(position, index)| self.number(position, index)).collect()
    }
}
