//! [`Contents`]: what the columns of a module hold in the models of a group.

use std::borrow::Cow;

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;

use crate::column::numbers::ArchetypeKey;
use crate::column::shared::SharedRow;
use crate::column::{ColumnKey, row_bytes};
use crate::module::blueprint::{Parameter, Position};

/// See [`Columned`](super::tree::Columned); shared by the entities of a group's position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The number that the position's archetype is marked with.
    pub number: u32,
    /// The module's place in its model.
    pub position: usize,
    /// The number of its first parameter in the order of `named_parameters()`.
    pub first_parameter: usize,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// Its buffers.
    pub buffers: Vec<Parameter>,
    /// The bytes of a row of each parameter and its companions, padding included: more than its type asks for after it was
    /// converted to a smaller one.
    parameter_rows: Vec<usize>,
    /// The bytes of a row of each buffer, likewise.
    buffer_rows: Vec<usize>,
    /// Companions: a role, and the place of the parameter whose companion it is (0 for
    /// [`Role::Steps`]).
    pub companions: Vec<(Role, usize)>,
}

impl Contents {
    /// Says what the columns of a module hold that has no number yet, without companions; rows are as long as their types
    /// ask.
    pub fn new(
        (position, first_parameter): (usize, usize),
        parameters: Vec<Parameter>,
        buffers: Vec<Parameter>,
    ) -> Self {
        let rows = |of: &[Parameter]| of.iter().map(|of| row_bytes(of.ty.size_bytes())).collect();
        let (parameter_rows, buffer_rows) = (rows(&parameters), rows(&buffers));
        let companions = Vec::new();
        Contents {
            number: 0,
            position,
            first_parameter,
            parameters,
            buffers,
            parameter_rows,
            buffer_rows,
            companions,
        }
    }

    /// Returns the same of parameters and buffers of other types, in the same rows; `None` if one is not long enough.
    pub fn retyped(&self, parameters: Vec<Parameter>, buffers: Vec<Parameter>) -> Option<Self> {
        let fit = |of: &[Parameter], rows: &[usize]| {
            let mut all = of.iter().zip(rows);
            of.len() == rows.len()
                && all.all(|(of, &row)| !of.has_column() || of.ty.size_bytes() <= row)
        };
        (fit(&parameters, &self.parameter_rows) && fit(&buffers, &self.buffer_rows))
            .then(|| Contents { parameters, buffers, ..self.clone() })
    }

    /// Returns the key of the column of a parameter, a buffer or a companion of a parameter, by its place; of
    /// [`Role::Steps`] that of all. What is not there has a key that no column has.
    pub fn key(&self, role: Role, index: usize) -> ColumnKey {
        let rows = match role {
            Role::Steps => {
                return ColumnKey::new(role, 0, &Type::new(Dtype::F32, [self.parameters.len()]));
            }
            Role::Buffer => &self.buffer_rows,
            _ => &self.parameter_rows,
        };
        ColumnKey::with_rows_of(role, index, rows.get(index).copied().unwrap_or_default())
    }

    /// Says what the entities of a position look like that have these columns, beside its number.
    pub(crate) fn look(&self, at: &Position) -> ArchetypeKey {
        let own =
            self.columns().filter(|(role, ..)| matches!(role, Role::Parameter | Role::Buffer));
        ArchetypeKey {
            module: at.module.type_name(),
            is_root: at.parent.is_none(),
            has_children: !at.children.is_empty(),
            columns: own.map(|(role, index, _)| self.key(role, index)).collect(),
        }
    }

    /// Lists the columns: a role, a place in the module, and the type of a row. What is tied, shared or
    /// uninitialized has none.
    pub fn columns(&self) -> impl Iterator<Item = (Role, usize, Cow<'_, Type>)> {
        fn of(
            role: Role,
            among: &[Parameter],
        ) -> impl Iterator<Item = (Role, usize, Cow<'_, Type>)> {
            let own = among.iter().enumerate().filter(|(_, parameter)| parameter.has_column());
            own.map(move |(index, parameter)| (role, index, Cow::Borrowed(&parameter.ty)))
        }
        let companions = self.companions.iter().filter_map(|&(role, index)| {
            let ty = match role {
                Role::Steps => Cow::Owned(Type::new(Dtype::F32, [self.parameters.len()])),
                _ => Cow::Borrowed(&self.parameters.get(index)?.ty),
            };
            Some((role, index, ty))
        });
        of(Role::Parameter, &self.parameters)
            .chain(of(Role::Buffer, &self.buffers))
            .chain(companions)
    }

    /// Lists the columns as slots, by the names that parameters and buffers have in the module.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.columns().map(|(role, index, ty)| {
            let among = if role == Role::Buffer { &self.buffers } else { &self.parameters };
            let name = match role {
                Role::Steps => String::new(),
                _ => among.get(index).map_or_else(String::new, |of| of.name.clone()),
            };
            Slot { name, role, position: self.position, index, ty: ty.into_owned() }
        })
    }

    /// Lists the keys of the columns.
    pub fn keys(&self) -> impl Iterator<Item = ColumnKey> {
        self.columns().map(|(role, index, _)| self.key(role, index))
    }

    /// Says where the numbers of a parameter or buffer, or of a parameter's companion, lie if the
    /// population's models share them.
    pub fn shared(&self, role: Role, index: usize) -> Option<SharedRow> {
        let among = match role {
            Role::Steps => return None,
            Role::Buffer => &self.buffers,
            _ => &self.parameters,
        };
        among.get(index)?.shared
    }

    /// Returns whether the columns hold the same, wherever they lie.
    pub fn holds_the_same(&self, other: &Contents) -> bool {
        self.parameters == other.parameters
            && self.buffers == other.buffers
            && self.companions == other.companions
    }

    /// Adds companions, sorted, that are not there yet; says whether there were any.
    pub fn add_companions(&mut self, companions: impl IntoIterator<Item = (Role, usize)>) -> bool {
        let before = self.companions.len();
        self.companions.extend(companions);
        self.companions.sort_unstable();
        self.companions.dedup();
        self.companions.len() > before
    }

    /// Adds companions of these roles for all parameters.
    pub fn add_roles(&mut self, roles: &[Role]) {
        let parameters = self.parameters.len();
        self.add_companions(roles.iter().flat_map(|&role| {
            let last = if role == Role::Steps { parameters.min(1) } else { parameters };
            (0..last).map(move |index| (role, index))
        }));
        self.companions
            .retain(|&(role, index)| role == Role::Steps || self.parameters[index].has_column());
    }
}
