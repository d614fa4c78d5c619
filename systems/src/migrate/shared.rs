//! [`convert_shared`]: what the models of a population share is one row, which is converted with them.

use std::collections::BTreeMap;

use bevy_ecs::prelude::*;
use neurarch_components::column::shared::{SharedRow, SharedTensors};
use neurarch_components::column::{Columns, RowBundle, row};
use neurarch_kernels::cpu::convert::convert_in_place;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::memory::AlignedBytes;

/// Converts what is shared: its numbers, its gradient and its optimizer's state.
pub(super) fn convert_shared(world: &mut World, shared: &BTreeMap<SharedRow, Dtype>) {
    for (&of, &dtype) in shared {
        let tensor = world.get::<SharedTensors>(of.owner).and_then(|all| all.get(of.index));
        let Some(tensor) = tensor.filter(|tensor| tensor.ty.dtype != dtype).cloned() else {
            continue;
        };
        let (old, new) = (tensor.ty.clone(), Type { dtype, shape: tensor.ty.shape.clone() });
        let states = (0..u8::MAX).map(Role::State);
        for role in [tensor.role, Role::Gradient].into_iter().chain(states) {
            let (from, to) = (of.key(role, &old), of.key(role, &new));
            let Some(numbers) = row(world, of.owner, from) else { continue };
            let (old_bytes, new_bytes) = (old.size_bytes(), new.size_bytes());
            let mut converted = AlignedBytes::new(old_bytes.max(new_bytes));
            converted.bytes_mut()[..old_bytes].copy_from_slice(&numbers[..old_bytes]);
            convert_in_place(converted.bytes_mut(), old.shape.numel(), old.dtype, dtype);
            let gone = Columns::find(world, from).filter(|_| from != to);
            let mut bundle = RowBundle::new(world, [to], None);
            if let Some(row) = bundle.row_mut(to) {
                row[..new_bytes].copy_from_slice(&converted.bytes()[..new_bytes]);
            }
            let Ok(mut owner) = world.get_entity_mut(of.owner) else { continue };
            bundle.insert(&mut owner);
            if let Some(gone) = gone {
                owner.remove_by_id(gone);
            }
        }
        if let Some(mut all) = world.get_mut::<SharedTensors>(of.owner)
            && let Some(tensor) = all.get_mut(of.index)
        {
            tensor.ty = new;
        }
    }
}
