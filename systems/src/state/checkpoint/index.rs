//! [`Index`]: what lies where in a checkpoint, flat. It is archived by rkyv, apart from live types: these are the format.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::ir::shape::{Shape, Type};
use rkyv::{Archive, Deserialize, Serialize};

use super::error::CheckpointError;

/// What a checkpoint has, and where. Lists name parts of the lists behind them by ranges.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    pub(super) populations: Vec<PopulationEntry>,
    pub(super) groups: Vec<GroupEntry>,
    /// The modules of groups, each group's in the order of its positions.
    pub(super) modules: Vec<ModuleEntry>,
    pub(super) columns: Vec<ColumnEntry>,
    pub(super) components: Vec<ComponentEntry>,
    /// The checksum of each MiB of the sections.
    pub(super) sums: Vec<u64>,
}

/// Some bytes of the file.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) at: u64,
    pub(super) bytes: u64,
}

/// Some entries of a list: from one, up to another that is not part of it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Entries {
    pub(super) fn of<T>(self, list: &[T]) -> &[T] {
        &list[self.start as usize..self.end as usize]
    }

    pub(super) fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A population.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub(super) struct PopulationEntry {
    /// The entity that it was, as bits.
    pub(super) entity: u64,
    pub(super) seed: u64,
    pub(super) dtype: u8,
    pub(super) next_number: u64,
    /// How many models it has.
    pub(super) models: u64,
    /// Roles of companions that its parameters have.
    pub(super) companions: Vec<u16>,
    pub(super) groups: Entries,
    /// What its models share: rows of its own entity.
    pub(super) columns: Entries,
    /// Components of its own entity.
    pub(super) components: Entries,
}

/// Models of one structure.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub(super) struct GroupEntry {
    pub(super) modules: Entries,
    /// How many models.
    pub(super) members: u64,
    /// Their indices in the population, ascending, as u32.
    pub(super) indices: Section,
    /// Their numbers, as u64.
    pub(super) numbers: Section,
}

/// A module of a structure.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub(super) struct ModuleEntry {
    /// Its name in its parent.
    pub(super) name: String,
    /// The parent's place among the modules of the structure.
    pub(super) parent: Option<u32>,
    /// The name of its type, for those who read the list.
    pub(super) class: String,
    /// The entities that it was in each model, as bits.
    pub(super) entities: Section,
    pub(super) columns: Entries,
    pub(super) components: Entries,
}

/// The rows of a parameter or buffer, or of what goes with a parameter, one for each model.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub(super) struct ColumnEntry {
    /// The parameter's or buffer's name in its module; of what a population shares, the name that it was shared under.
    pub(super) name: String,
    pub(super) role: u16,
    /// Its place in the module, or among what is shared.
    pub(super) index: u32,
    pub(super) dtype: u8,
    pub(super) shape: Vec<u64>,
    /// Whether a state dict has it.
    pub(super) persistent: bool,
    /// Bytes from row to row.
    pub(super) row_bytes: u64,
    pub(super) rows: Section,
}

/// The components of one type, of each model's module at one position, or of a population's entity.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub(super) struct ComponentEntry {
    /// The type's name.
    pub(super) ty: String,
    /// Its different values, one behind the other.
    pub(super) values: Section,
    /// Where each of them ends in `values`, as u64; empty if there is one.
    pub(super) ends: Section,
    /// Which value each entity has, as u32; [`NO_VALUE`] if it has none. Empty if all have the first.
    pub(super) which: Section,
}

/// See [`ComponentEntry::which`].
pub(super) const NO_VALUE: u32 = u32::MAX;

/// Returns the number that stands for a role in a file.
pub(super) fn role_code(role: Role) -> u16 {
    match role {
        Role::Parameter => 0,
        Role::Buffer => 1,
        Role::Gradient => 2,
        Role::Steps => 3,
        Role::State(number) => 256 + u16::from(number),
    }
}

/// Returns the role that a number stands for.
pub(super) fn role_of(code: u16) -> Option<Role> {
    match code {
        0 => Some(Role::Parameter),
        1 => Some(Role::Buffer),
        2 => Some(Role::Gradient),
        3 => Some(Role::Steps),
        _ => u8::try_from(code.checked_sub(256)?).ok().map(Role::State),
    }
}

const DTYPES: [Dtype; 6] =
    [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::BF16, Dtype::I64, Dtype::Bool];

/// Returns the number that stands for an element type in a file.
pub(super) fn dtype_code(dtype: Dtype) -> u8 {
    DTYPES.iter().position(|&known| known == dtype).unwrap_or_default() as u8
}

/// Returns the element type that a number stands for.
pub(super) fn dtype_of(code: u8) -> Option<Dtype> {
    DTYPES.get(usize::from(code)).copied()
}

/// Archived types are the same on every machine: numbers with the least significant byte first, places relative in 32 bits,
/// nothing aligned.
const _: () = {
    assert!(size_of::<rkyv::Archived<u64>>() == 8 && align_of::<rkyv::Archived<u64>>() == 1);
    assert!(size_of::<rkyv::Archived<usize>>() == 4);
    assert!(size_of::<rkyv::Archived<Vec<u64>>>() == 8);
    assert!(size_of::<rkyv::Archived<Section>>() == 16 && align_of::<ArchivedIndex>() == 1);
};

impl Index {
    /// Archives it.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, CheckpointError> {
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(self);
        bytes.map(|bytes| bytes.to_vec()).map_err(|error| CheckpointError::index(error.to_string()))
    }

    /// Reads an archived one whose checksum was right: what it says has yet to be checked.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        rkyv::from_bytes::<Self, rkyv::rancor::Error>(bytes)
            .map_err(|error| CheckpointError::index(error.to_string()))
    }
}

impl ColumnEntry {
    /// Returns the type of its rows; `None` if that cannot be.
    pub(super) fn ty(&self) -> Option<Type> {
        let shape = self.shape.iter().map(|&size| usize::try_from(size).ok());
        let shape: Option<Shape> = shape.collect();
        Some(Type { dtype: dtype_of(self.dtype)?, shape: shape? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back() {
        let roles = (0..=u8::MAX).map(Role::State);
        let fixed = [Role::Parameter, Role::Buffer, Role::Gradient, Role::Steps];
        for role in roles.chain(fixed) {
            assert_eq!(role_of(role_code(role)), Some(role));
        }
        assert_eq!([role_of(4), role_of(255), role_of(512)], [None; 3]);
        assert!(DTYPES.iter().all(|&dtype| dtype_of(dtype_code(dtype)) == Some(dtype)));
        assert_eq!(dtype_of(6), None);
    }
}
