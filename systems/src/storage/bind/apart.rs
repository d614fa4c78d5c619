//! Checks that the rows of bindings are apart: no two members, positions or cohorts have one.

use std::sync::atomic::{AtomicU64, Ordering};

use bevy_ecs::prelude::*;
use neurarch_kernels::cpu::tile::RowList;
use neurarch_kernels::ir::program::Slot;

use super::placement::{Placement, entity_at, listed_twice, overlap};
use super::{Binder, Bound};
use crate::errors::BindError;
use crate::storage::members::Members;

/// Bindings of several cohorts, side by side. The world stays borrowed while any of them lives.
pub(crate) struct Together<'w> {
    world: &'w mut World,
    /// A slot of one row for all members that is written.
    written: Option<String>,
}

impl<'w> Together<'w> {
    /// Begins with none.
    pub(crate) fn new(world: &'w mut World) -> Self {
        Together { world, written: None }
    }

    /// [Binds](Binder::bind) slots for the members of a group; `of` are the population, the group and the members.
    ///
    /// # Errors
    ///
    /// As [`Binder::bind`].
    pub(crate) fn bind<'b>(
        &mut self,
        binder: &'b mut Binder,
        of: (Entity, usize, &Members),
        slots: &[Slot],
        written: &[bool],
    ) -> Result<Bound<'b>, BindError>
    where
        'w: 'b,
    {
        let (population, group, members) = of;
        let (bound, of) = binder.take(self.world, population, group, members, slots, written)?;
        bound.binder.count_write(self.world, (population, of), slots, written);
        let mut all = slots.iter().zip(written).zip(&bound.binder.bound);
        let shared = all.find(|((_, written), at)| **written && at.position.is_none());
        if let Some(((slot, _), _)) = shared {
            self.written = Some(slot.name.clone());
        }
        Ok(bound)
    }

    /// Checks that no row is of two of these bindings, if any of them is another than before.
    ///
    /// # Errors
    ///
    /// If there is such a row, or one that all share is written.
    pub(crate) fn check_apart<'a>(
        &self,
        all: impl Iterator<Item = &'a Bound<'a>> + Clone,
    ) -> Result<(), BindError> {
        static COMPARISONS: AtomicU64 = AtomicU64::new(0);
        if all.clone().nth(1).is_none() {
            return Ok(());
        }
        if let Some(slot) = &self.written {
            return Err(BindError::SharedWritten { slot: slot.clone() });
        }
        let placements = || all.clone().flat_map(|bound| bound.binder.checked());
        let compared = |(at, _): (&Placement, _)| at.compared.load(Ordering::Relaxed);
        let first = placements().next().map_or(0, compared);
        if first > 0 && placements().map(compared).all(|other| other == first) {
            return Ok(());
        }
        if let Some(at) = listed_twice(placements()) {
            return Err(BindError::NotApart(entity_at(self.world, at)));
        }
        let number = COMPARISONS.fetch_add(1, Ordering::Relaxed) + 1;
        placements().for_each(|(at, _)| at.compared.store(number, Ordering::Relaxed));
        Ok(())
    }
}

impl Binder {
    /// Lists the placements that are bound, with the rows of the members.
    fn checked(&self) -> impl Iterator<Item = (&Placement, &RowList)> {
        let checked = self.positions.iter().filter(|at| at.is_checked);
        checked.map(|at| (at, if self.is_part { &at.part } else { &at.rows }))
    }

    /// Checks that no two of the rows that are bound are one, if any of them is another than before.
    pub(super) fn check_apart(&mut self, world: &World) -> Result<(), BindError> {
        if self.positions.iter().all(|at| at.is_apart || !at.is_checked) {
            return Ok(());
        }
        // What is not bound now may have moved since it was listed.
        let is_listed = |at: &&Placement| at.is_checked || at.is_apart;
        if overlap(self.positions.iter().filter(is_listed)).is_some() {
            self.positions.iter_mut().for_each(|at| at.is_apart &= at.is_checked);
            if let Some(at) = overlap(self.positions.iter().filter(|at| at.is_checked)) {
                self.positions.iter_mut().for_each(|at| at.is_apart = false);
                return Err(BindError::NotApart(entity_at(world, at)));
            }
        }
        self.positions.iter_mut().for_each(|at| at.is_apart |= at.is_checked);
        Ok(())
    }
}
