//! [`PositionNumbers`]: the numbers of positions, which keep their archetypes apart.

use std::collections::HashMap;

use crate::column::{ColumnKey, MARKERS};

/// What decides, beside the number, which archetypes the entities of a position are in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ArchetypeKey {
    /// The module's type.
    pub(crate) module: &'static str,
    pub(crate) is_root: bool,
    pub(crate) has_children: bool,
    /// The columns of parameters and buffers.
    pub(crate) columns: Vec<ColumnKey>,
}

/// Gives out numbers, the first of which is 1, and takes them back.
///
/// A number goes to a position that looks like the one that had it, if there is any: bevy frees no archetype, so one
/// that is there already is the better one. After 100,000 operations of the storm there are 8,000 archetypes, not
/// 27,000.
#[derive(Debug, Default)]
pub(crate) struct PositionNumbers {
    /// Numbers that are free again.
    free: HashMap<ArchetypeKey, Vec<u32>>,
    n_free: usize,
    /// The greatest number ever given out.
    last: u32,
}

impl PositionNumbers {
    /// Takes a number for each look; `None` if they have run out.
    pub(crate) fn take(&mut self, looks: &[ArchetypeKey]) -> Option<Vec<u32>> {
        let fresh = looks.len().saturating_sub(self.n_free);
        let are_enough = self.last as usize + fresh < 1 << MARKERS;
        are_enough.then(|| looks.iter().map(|look| self.next(look)).collect())
    }

    fn next(&mut self, look: &ArchetypeKey) -> u32 {
        let own = self.free.get_mut(look).and_then(Vec::pop);
        if own.is_none() && self.last + 1 < 1 << MARKERS {
            self.last += 1;
            return self.last;
        }
        self.n_free -= 1;
        let found = own.or_else(|| self.free.values_mut().find_map(Vec::pop));
        found.expect("there are as many free numbers as were counted")
    }

    /// Takes a number back.
    pub(crate) fn give_back(&mut self, look: ArchetypeKey, number: u32) {
        self.n_free += 1;
        self.free.entry(look).or_default().push(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(module: &'static str) -> ArchetypeKey {
        ArchetypeKey { module, is_root: false, has_children: false, columns: Vec::new() }
    }

    #[test]
    fn a_number_goes_to_what_looks_like_the_one_that_had_it() {
        let mut numbers = PositionNumbers::default();
        let [linear, tanh] = ["Linear", "Tanh"].map(look);
        let taken = numbers.take(&[linear.clone(), tanh.clone()]);
        assert_eq!(taken.as_deref(), Some(&[1, 2][..]));
        numbers.give_back(linear.clone(), 1);
        numbers.give_back(tanh.clone(), 2);
        assert_eq!(numbers.take(&[tanh.clone(), tanh, linear]), Some(vec![2, 3, 1]));
    }

    #[test]
    fn when_there_is_no_other_a_number_goes_to_anyone_and_then_there_are_none() {
        let mut numbers =
            PositionNumbers { last: (1 << MARKERS) - 2, ..PositionNumbers::default() };
        let [linear, tanh] = ["Linear", "Tanh"].map(look);
        numbers.give_back(linear, 5);
        let three = [tanh.clone(), tanh.clone(), tanh.clone()];
        assert_eq!(numbers.take(&three), None);
        assert_eq!(numbers.take(&three[1..]), Some(vec![(1 << MARKERS) - 1, 5]));
        assert_eq!(numbers.take(&[tanh]), None);
    }
}
