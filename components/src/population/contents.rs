//! [`Contents`]: what the columns of a module hold in the models of a group.

use std::borrow::Cow;

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;

use crate::column::ColumnKey;
use crate::column::shared::SharedRow;
use crate::module::blueprint::Parameter;

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
    /// Companions: a role, and the place of the parameter whose companion it is (0 for
    /// [`Role::Steps`]).
    pub companions: Vec<(Role, usize)>,
}

impl Contents {
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
        self.columns().map(|(role, index, ty)| ColumnKey::new(role, index, &ty))
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
