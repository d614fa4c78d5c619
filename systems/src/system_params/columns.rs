//! [`parameter_columns`]: parameters of a module, or of all models of a population, name by name, read where they lie.

use core::ops::Range;

use bevy_ecs::prelude::*;
use neurarch_components::column::row;
use neurarch_components::column::shared::{SharedRow, SharedTensors};
use neurarch_components::module::mode::{HasGradient, Mode};
use neurarch_components::population::Population;
use neurarch_components::population::group::Group;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;

use crate::errors::AccessError;
use crate::structure::spot;
use crate::structure::traverse::{Listing, named_slots};
use crate::system_params::settled::settled;

/// A parameter of some models of one structure. It is looked up once for all of them.
#[derive(Clone, Debug)]
pub struct ParameterColumn<'w> {
    world: &'w World,
    group: &'w Group,
    /// The models' places in the group.
    members: Range<usize>,
    /// The dotted name from the module on that was asked for.
    name: String,
    slot: Slot,
    /// The parameter's number in the order of `named_parameters()`.
    number: usize,
    shared: Option<SharedRow>,
    is_uninitialized: bool,
}

impl<'w> ParameterColumn<'w> {
    /// Returns the parameter's dotted name from the module on that was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the element type and shape, `[..]` of one model.
    pub fn ty(&self) -> &Type {
        &self.slot.ty
    }

    /// Returns the indices of the models, as many as there are rows.
    pub fn models(&self) -> &'w [u32] {
        &self.group.members[self.members.clone()]
    }

    /// Returns whether the parameter needs a gradient in the model at `place` of [`models`](Self::models).
    pub fn requires_grad(&self, place: usize) -> bool {
        let mode = self.world.get::<Mode>(self.root(place));
        mode.is_none_or(|mode| !mode.frozen.contains(self.number))
    }

    /// Views the numbers of the model at `place` of [`models`](Self::models).
    ///
    /// # Errors
    ///
    /// If the shape is not known yet.
    pub fn numbers(&self, place: usize) -> Result<&'w [u8], AccessError> {
        match self.is_uninitialized {
            true => Err(AccessError::Uninitialized { name: self.name.clone() }),
            false => self.row(place, Role::Parameter),
        }
    }

    /// Views the gradient of the model at `place` of [`models`](Self::models); `None` if it has none.
    ///
    /// # Errors
    ///
    /// If its column is gone.
    pub fn gradient(&self, place: usize) -> Result<Option<&'w [u8]>, AccessError> {
        let has_gradient = !self.is_uninitialized
            && match self.shared {
                Some(SharedRow { owner, index }) => {
                    let all = self.world.get::<SharedTensors>(owner);
                    all.and_then(|all| all.get(index)).is_some_and(|of| of.has_gradient)
                }
                None => {
                    let bits = self.world.get::<HasGradient>(self.root(place));
                    bits.is_some_and(|bits| bits.0.contains(self.number))
                }
            };
        has_gradient.then(|| self.row(place, Role::Gradient)).transpose()
    }

    fn root(&self, place: usize) -> Entity {
        self.group.modules[0][self.members.start + place]
    }

    fn row(&self, place: usize, role: Role) -> Result<&'w [u8], AccessError> {
        let (home, key) = self.group.home(&self.slot, self.members.start + place);
        let bytes = row(self.world, home, key.companion(role));
        let missing = || AccessError::NoColumn { name: self.name.clone(), role };
        Ok(&bytes.ok_or_else(missing)?[..self.slot.ty.size_bytes()])
    }
}

/// Lists the parameters of a module and of all below it, or those of all models of a population: for each structure those
/// that it has, in the order of `named_parameters()`. Names and places are looked up once for each structure.
///
/// # Errors
///
/// If the entity is neither, or a model is not settled.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # use neurarch_systems::system_params::columns::parameter_columns;
/// # let mut world = World::new();
/// let brains = spawn_population(&mut world, &Linear::new(2, 3), 1_000, 1_000, 7, Dtype::F32)?;
/// let columns = parameter_columns(&world, brains)?;
/// let names: Vec<_> = columns.iter().map(|column| (column.name(), column.models().len())).collect();
/// assert_eq!(names, [("weight", 1_000), ("bias", 1_000)]);
/// assert_eq!(columns[0].numbers(999)?, [0; 24]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn parameter_columns(
    world: &World,
    entity: Entity,
) -> Result<Vec<ParameterColumn<'_>>, AccessError> {
    let mut columns = Vec::new();
    let Some(population) = world.get::<Population>(entity) else {
        let at = settled(world, entity)?;
        let members = at.member..at.member + 1;
        list(world, (at.group(world), members, at.position), &mut columns)?;
        return Ok(columns);
    };
    for &root in population.models() {
        settled(world, root)?;
    }
    for group in population.groups().iter().filter(|group| !group.members.is_empty()) {
        list(world, (group, 0..group.members.len(), 0), &mut columns)?;
    }
    Ok(columns)
}

/// Lists the parameters below a position of some members of a group.
fn list<'w>(
    world: &'w World,
    (group, members, position): (&'w Group, Range<usize>, usize),
    columns: &mut Vec<ParameterColumn<'w>>,
) -> Result<(), AccessError> {
    let (_, _, blueprint) = spot::place(world, group.modules[0][members.start])?;
    for (name, (owner, index)) in
        named_slots(blueprint, position, Listing::default(), Role::Parameter)
    {
        let of = &blueprint.positions[owner].parameters[index];
        let slot = Slot {
            name: blueprint.path_below(owner, &of.name),
            role: Role::Parameter,
            position: owner,
            index,
            ty: of.ty.clone(),
        };
        columns.push(ParameterColumn {
            world,
            group,
            members: members.clone(),
            name,
            number: group.contents[owner].first_parameter + index,
            shared: of.shared,
            is_uninitialized: of.uninitialized,
            slot,
        });
    }
    Ok(())
}
