//! [`Versions`]: when the parameters and buffers of a population's models were last written to all at once.

use bevy_ecs::prelude::*;
use neurarch_kernels::ir::program::{Role, Slot};

use crate::module::blueprint::BlueprintId;

/// Counts the calls that wrote to columns of a population's models, and remembers the last one for each parameter and
/// buffer; a component of the population's entity.
///
/// Such calls leave one mark a column, which a row that moves to another table loses. Who writes to a single row
/// marks that row, and is not counted here.
///
/// Source: `torch.Tensor._version`, one for all models of a structure.
#[derive(Component, Debug, Default)]
pub struct Versions {
    count: u64,
    /// Whether each row that is written is marked, whoever writes.
    marks_rows: bool,
    /// For each structure that was ever written to, the last call that wrote to each parameter.
    structures: Vec<(BlueprintId, Vec<Module>)>,
}

/// The last calls that wrote to the parameters and to the buffers of a module, by their places in it.
#[derive(Debug, Default)]
struct Module {
    parameters: Vec<u64>,
    buffers: Vec<u64>,
}

impl Module {
    fn list(&mut self, role: Role) -> Option<&mut Vec<u64>> {
        match role {
            Role::Parameter => Some(&mut self.parameters),
            Role::Buffer => Some(&mut self.buffers),
            _ => None,
        }
    }
}

impl Versions {
    /// Counts the calls so far.
    pub fn now(&self) -> u64 {
        self.count
    }

    /// Returns whether calls that write to columns mark each row that they write.
    pub fn marks_rows(&self) -> bool {
        self.marks_rows
    }

    /// Has calls that write to columns mark each row that they write, or no longer.
    pub fn mark_rows(&mut self, marks_rows: bool) {
        self.marks_rows = marks_rows;
    }

    /// Counts a call that writes to `slots` of models of that structure.
    pub fn write<'s>(&mut self, of: BlueprintId, slots: impl Iterator<Item = &'s Slot>) {
        self.count += 1;
        let known = self.structures.iter().position(|(known, _)| *known == of);
        let known = known.unwrap_or_else(|| {
            self.structures.push((of, Vec::new()));
            self.structures.len() - 1
        });
        let modules = &mut self.structures[known].1;
        for slot in slots {
            if modules.len() <= slot.position {
                modules.resize_with(slot.position + 1, Module::default);
            }
            let Some(list) = modules[slot.position].list(slot.role) else { continue };
            if list.len() <= slot.index {
                list.resize(slot.index + 1, 0);
            }
            list[slot.index] = self.count;
        }
    }

    /// Returns whether a call wrote to a slot of models of that structure after the first `then` calls.
    pub fn is_written_since(&self, then: u64, of: BlueprintId, slot: &Slot) -> bool {
        let known = self.structures.iter().find(|(known, _)| *known == of);
        let module = known.and_then(|(_, modules)| modules.get(slot.position));
        let last = module.and_then(|module| match slot.role {
            Role::Parameter => module.parameters.get(slot.index),
            Role::Buffer => module.buffers.get(slot.index),
            _ => None,
        });
        last.is_some_and(|&last| last > then)
    }
}

#[cfg(test)]
mod tests {
    use neurarch_kernels::ir::dtype::Dtype;
    use neurarch_kernels::ir::shape::Type;

    use super::*;

    #[test]
    fn each_parameter_of_each_structure_has_a_version_of_its_own() {
        let slot = |role, position, index| {
            let (name, ty) = ("weight".to_owned(), Type::new(Dtype::F32, [2]));
            Slot { name, role, position, index, ty }
        };
        let [first, second] = [BlueprintId(0), BlueprintId(7)];
        let weight = slot(Role::Parameter, 2, 1);
        let mut versions = Versions::default();
        versions.write(second, [&weight].into_iter());
        assert_eq!(versions.now(), 1);
        assert!(versions.is_written_since(0, second, &weight));
        assert!(!versions.is_written_since(1, second, &weight));
        assert!(!versions.is_written_since(0, first, &weight));
        for other in
            [slot(Role::Parameter, 2, 0), slot(Role::Buffer, 2, 1), slot(Role::Parameter, 3, 1)]
        {
            assert!(!versions.is_written_since(0, second, &other));
        }
        versions.write(second, [&slot(Role::Gradient, 2, 1)].into_iter());
        assert!(!versions.is_written_since(1, second, &weight));
    }
}
