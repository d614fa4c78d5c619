//! [`check`]: what an index says is checked before anybody believes it. Checksums find bytes that changed; this finds what
//! was never right.

use bevy_ecs::prelude::*;
use neurarch_components::column::ColumnKey;
use neurarch_components::containers::MAX_DEPTH;
use neurarch_components::population::tree::NOT_A_MEMBER;
use neurarch_kernels::ir::program::Role;

use super::error::CheckpointError;
use super::format::{BLOCK_BYTES, HEADER_BYTES, alignment};
use super::index::{ColumnEntry, ComponentEntry, Entries, Index, Section, dtype_of, role_of};

/// Checks an index whose sections end at `end` in the file: that all ranges are there, each entry belongs to one owner,
/// sections are apart, aligned, and as long as what they hold, and codes mean something.
pub(super) fn check(index: &Index, end: u64) -> Result<(), CheckpointError> {
    let mut check = Check { index, sections: Vec::new(), next: Next::default() };
    for (number, population) in index.populations.iter().enumerate() {
        let at = format!("population {number}");
        let dtype = dtype_of(population.dtype).filter(|dtype| dtype.is_float());
        dtype.ok_or_else(|| wrong(&at, "its element type is none"))?;
        if Entity::try_from_bits(population.entity).is_none() {
            return Err(wrong(&at, "its entity is none"));
        }
        if population.models >= u64::from(NOT_A_MEMBER) {
            return Err(wrong(&at, "it has too many models"));
        }
        if !population.companions.iter().all(|&code| role_of(code).is_some_and(is_companion)) {
            return Err(wrong(&at, "a role of a companion is none"));
        }
        check.columns(population.columns, 1, &at)?;
        check.components(population.components, 1, &at)?;
        Next::take(&mut check.next.groups, population.groups, index.groups.len(), &at)?;
        let mut members = 0;
        for group in population.groups.range() {
            members += check.group(group, population.models, &format!("{at}, group {group}"))?;
        }
        if members != population.models {
            return Err(wrong(&at, "its groups have not as many members as it has models"));
        }
    }
    check.next.all(index)?;
    check.sections(end)?;
    let blocks = (end - HEADER_BYTES as u64).div_ceil(BLOCK_BYTES as u64);
    match index.sums.len() as u64 == blocks {
        true => Ok(()),
        false => Err(CheckpointError::index("expected a checksum of each MiB")),
    }
}

fn is_companion(role: Role) -> bool {
    !matches!(role, Role::Parameter | Role::Buffer)
}

fn wrong(at: &str, what: &str) -> CheckpointError {
    CheckpointError::index(format!("{at}: {what}"))
}

/// The next entry of each list that belongs to nobody yet.
#[derive(Default)]
struct Next {
    groups: u32,
    modules: u32,
    columns: u32,
    components: u32,
}

impl Next {
    /// Takes the entries that follow for one owner.
    fn take(
        next: &mut u32,
        entries: Entries,
        length: usize,
        at: &str,
    ) -> Result<(), CheckpointError> {
        if entries.start != *next || entries.end < entries.start || entries.end as usize > length {
            return Err(wrong(at, "its entries are not those that follow"));
        }
        *next = entries.end;
        Ok(())
    }

    /// Checks that no entry is left.
    fn all(&self, index: &Index) -> Result<(), CheckpointError> {
        let lists = [
            (self.groups, index.groups.len()),
            (self.modules, index.modules.len()),
            (self.columns, index.columns.len()),
            (self.components, index.components.len()),
        ];
        match lists.iter().all(|&(next, length)| next as usize == length) {
            true => Ok(()),
            false => Err(CheckpointError::index("entries belong to nobody")),
        }
    }
}

struct Check<'a> {
    index: &'a Index,
    /// All sections with bytes.
    sections: Vec<Section>,
    next: Next,
}

impl Check<'_> {
    /// Checks a group; gives how many members it has.
    fn group(&mut self, number: usize, models: u64, at: &str) -> Result<u64, CheckpointError> {
        let group = &self.index.groups[number];
        if group.members == 0 || group.members > models {
            return Err(wrong(at, "it has none of the models, or more than there are"));
        }
        self.section(group.indices, Some(group.members * 4), at)?;
        self.section(group.numbers, Some(group.members * 8), at)?;
        Next::take(&mut self.next.modules, group.modules, self.index.modules.len(), at)?;
        let mut depths: Vec<usize> = Vec::new();
        for (place, number) in group.modules.range().enumerate() {
            let module = &self.index.modules[number];
            let at = format!("{at}, module {place}");
            let above = module.parent.map(|parent| depths.get(parent as usize));
            let depth = match above {
                None if place == 0 => 1,
                Some(Some(&above)) if above < MAX_DEPTH => above + 1,
                _ => return Err(wrong(&at, "its parent is none, or too deep")),
            };
            depths.push(depth);
            self.section(module.entities, Some(group.members * 8), &at)?;
            self.columns(module.columns, group.members, &at)?;
            self.components(module.components, group.members, &at)?;
        }
        match group.modules.range().is_empty() {
            true => Err(wrong(at, "it has no module")),
            false => Ok(group.members),
        }
    }

    fn columns(&mut self, entries: Entries, rows: u64, at: &str) -> Result<(), CheckpointError> {
        let index = self.index;
        Next::take(&mut self.next.columns, entries, index.columns.len(), at)?;
        for column in entries.of(&index.columns) {
            let at = format!("{at}, '{}'", column.name);
            let bytes = row_bytes(column).ok_or_else(|| wrong(&at, "its type is none"))?;
            if column.row_bytes != bytes {
                return Err(wrong(&at, "its rows are not as long as its type asks"));
            }
            self.section(column.rows, bytes.checked_mul(rows), &at)?;
        }
        Ok(())
    }

    fn components(&mut self, entries: Entries, of: u64, at: &str) -> Result<(), CheckpointError> {
        let index = self.index;
        Next::take(&mut self.next.components, entries, index.components.len(), at)?;
        for component in entries.of(&index.components) {
            let ComponentEntry { ty, values, ends, which } = component;
            let at = format!("{at}, {ty}");
            self.section(*values, None, &at)?;
            self.section(*ends, None, &at)?;
            self.section(*which, None, &at)?;
            let is_list = which.bytes == 0 || which.bytes == of * 4;
            if !is_list || !ends.bytes.is_multiple_of(8) {
                return Err(wrong(&at, "its lists are not as long as those who have it"));
            }
        }
        Ok(())
    }

    /// Takes a section of so many bytes, or any number.
    fn section(
        &mut self,
        section: Section,
        bytes: Option<u64>,
        at: &str,
    ) -> Result<(), CheckpointError> {
        if bytes.is_some_and(|bytes| bytes != section.bytes) {
            return Err(wrong(at, "a section is not as long as what it holds"));
        }
        if section.bytes > 0 {
            self.sections.push(section);
        }
        Ok(())
    }

    /// Checks that sections are aligned, in the file, and apart.
    fn sections(&mut self, end: u64) -> Result<(), CheckpointError> {
        self.sections.sort_unstable_by_key(|section| section.at);
        let mut last = HEADER_BYTES as u64;
        for &Section { at, bytes } in &self.sections {
            let next = at.checked_add(bytes).filter(|&next| next <= end);
            let next = next.filter(|_| at >= last && at.is_multiple_of(alignment(bytes)));
            let wrong = || CheckpointError::index(format!("the section at {at} is none"));
            last = next.ok_or_else(wrong)?;
        }
        Ok(())
    }
}

/// Returns the bytes of a row of a column; `None` if its type cannot be.
fn row_bytes(column: &ColumnEntry) -> Option<u64> {
    let (role, ty) = (role_of(column.role)?, column.ty()?);
    ty.checked_size_bytes().ok()?;
    Some(ColumnKey::new(role, 0, &ty).row_bytes() as u64)
}
