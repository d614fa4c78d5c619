//! [`Members`]: which models of a population a call is about.

use std::sync::Arc;

use neurarch_kernels::cpu::tile::{RowList, Rows};

use crate::storage::equal::are_equal;

/// Some models of a population: all of them, or a strictly increasing list of indices.
///
/// Clones share the list, so that comparing a set with what was remembered of it takes no time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    population: usize,
    is_all: bool,
    /// Their rows in an array with a row for each model; empty if all are members.
    some: Arc<RowList>,
}

impl PartialEq for Members {
    fn eq(&self, others: &Members) -> bool {
        (self.population, self.is_all) == (others.population, others.is_all)
            && (Arc::ptr_eq(&self.some, &others.some)
                || are_equal(self.some.as_slice(), others.some.as_slice()))
    }
}

impl Members {
    /// Makes the set of one index in a population of that size.
    pub(crate) fn first(population: usize, index: u32) -> Self {
        assert!((index as usize) < population, "an index is below the number of models");
        Members { population, is_all: false, some: Arc::new([(0, index)].into_iter().collect()) }
    }

    /// Makes the set of all indices in a population of that size.
    pub(crate) fn all(population: usize) -> Self {
        Members { population, is_all: true, some: Arc::default() }
    }

    /// Counts the models of the population.
    pub(crate) fn population(&self) -> usize {
        self.population
    }

    /// Returns whether all are members.
    pub(crate) fn is_all(&self) -> bool {
        self.is_all
    }

    /// Adds an index, larger than all before it.
    pub(crate) fn push(&mut self, index: u32) {
        assert!(!self.is_all && (self.end()..self.population).contains(&(index as usize)));
        Arc::make_mut(&mut self.some).push((0, index));
    }

    /// Ends the list.
    pub(crate) fn settle(&mut self) {
        if self.some.as_slice().len() == self.population {
            self.is_all = true;
            self.some = Arc::default();
        }
        Arc::make_mut(&mut self.some).shrink_to_fit();
    }

    /// Counts the members.
    pub(crate) fn len(&self) -> usize {
        if self.is_all { self.population } else { self.some.as_slice().len() }
    }

    /// Returns the members' indices in the population.
    pub(crate) fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        let some = self.some.as_slice();
        (0..self.len()).map(|i| some.get(i).map_or(i, |&(_, index)| index as usize))
    }

    /// Makes the set of some of the members, by their places, which increase.
    pub(crate) fn part(&self, places: &[usize]) -> Self {
        let some = self.some.as_slice();
        let index = |&place: &usize| some.get(place).map_or(place as u32, |&(_, index)| index);
        let indices: Vec<_> = places.iter().map(index).collect();
        listed(self.population, &indices)
    }

    /// Returns one more than the largest index.
    pub(crate) fn end(&self) -> usize {
        match self.is_all {
            true => self.population,
            false => self.some.as_slice().last().map_or(0, |&(_, last)| last as usize + 1),
        }
    }

    /// Returns the members' rows in an array with a row for each model, which begins at `base`.
    pub(crate) fn rows<'a>(&'a self, base: &'a *mut u8, stride: usize) -> Rows<'a> {
        if self.is_all || stride == 0 {
            return Rows::Strided { base: *base, stride };
        }
        self.some.of(core::slice::from_ref(base), stride)
    }
}

/// Makes the set of some indices, which increase, in a population of that size.
pub(crate) fn listed(population: usize, indices: &[u32]) -> Members {
    let Some((&first, others)) = indices.split_first() else { return Members::default() };
    let mut members = Members::first(population, first);
    others.iter().for_each(|&index| members.push(index));
    members.settle();
    members
}
