//! What a tensor has beside its numbers, on its way from one module to another: gradient, optimizer state,
//! `requires_grad`.

use bevy_ecs::prelude::*;
use neurarch_components::module::mode::{HasGradient, Mode};
use neurarch_components::population::tree::Columned;
use neurarch_kernels::ir::program::{Role, Slot};
use neurarch_kernels::ir::shape::Type;

use super::current::is_buffer;
use super::site::{Member, Site};
use crate::structure::columns::{own_row, own_row_mut};
use crate::structure::root::root_of;

/// What a parameter has beside its numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Companions {
    ty: Option<Type>,
    is_frozen: bool,
    has_gradient: bool,
    rows: Vec<(Role, Vec<u8>)>,
}

/// Bytes of a count of optimizer steps.
const COUNT_BYTES: usize = size_of::<f32>();

impl Companions {
    /// Copies those of a parameter of a module; a buffer has none.
    pub(crate) fn of(world: &World, site: &Site, member: &Member, slot: &Slot) -> Companions {
        let module = member.entity(slot.position);
        let Some(columned) = world.get::<Columned>(module).filter(|_| !is_buffer(slot.role)) else {
            return Companions::default();
        };
        let number = site.blueprint.number(slot.position, slot.index);
        let mut rows = Vec::new();
        for (role, index, ty) in columned.contents().columns() {
            let Some(row) = own_row(world, module, (role, index)) else { continue };
            match role {
                Role::Parameter | Role::Buffer => {}
                Role::Steps => {
                    rows.push((role, row[slot.index * COUNT_BYTES..][..COUNT_BYTES].to_vec()));
                }
                _ if index == slot.index => rows.push((role, row[..ty.size_bytes()].to_vec())),
                _ => {}
            }
        }
        let mode = world.get::<Mode>(member.root);
        let gradients = world.get::<HasGradient>(member.root);
        Companions {
            ty: Some(slot.ty.clone()),
            is_frozen: mode.is_some_and(|mode| mode.frozen.contains(number)),
            has_gradient: gradients.is_some_and(|bits| bits.0.contains(number)),
            rows,
        }
    }

    /// Says only whether a parameter is frozen.
    pub(crate) fn frozen(is_frozen: bool, like: Option<&Slot>) -> Companions {
        Companions { ty: like.map(|slot| slot.ty.clone()), is_frozen, ..Companions::default() }
    }

    /// Gives them to parameters of another module: whether they are frozen to all, the rest to one alone of
    /// the same type.
    pub(crate) fn give(&self, world: &mut World, module: Entity, names: &[&str]) {
        let Some(ty) = &self.ty else { return };
        let Some(contents) =
            world.get::<Columned>(module).map(|columned| columned.contents().clone())
        else {
            return;
        };
        let Some((root, _)) = root_of(world, module) else { return };
        let is_alone = names.len() == 1;
        let named = contents.parameters.iter().enumerate();
        for (index, of) in named.filter(|(_, of)| names.contains(&of.name.as_str())) {
            let number = contents.first_parameter + index;
            if self.is_frozen
                && let Some(mut mode) = world.get_mut::<Mode>(root)
            {
                mode.frozen.set(number, true);
            }
            if !is_alone || of.ty != *ty {
                continue;
            }
            for (role, bytes) in &self.rows {
                let start = if *role == Role::Steps { index * COUNT_BYTES } else { 0 };
                if let Some(row) = own_row_mut(world, module, (*role, index)) {
                    row[start..start + bytes.len()].copy_from_slice(bytes);
                }
            }
            if self.has_gradient
                && let Some(mut gradients) = world.get_mut::<HasGradient>(root)
            {
                gradients.0.set(number, true);
            }
        }
    }
}
