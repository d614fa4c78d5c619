//! [`Named`]: entries under names in order of insertion.

use std::collections::HashSet;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ContainerError, Slice, place};

/// Entries under names, each name once, in order of insertion: the `OrderedDict` that torch's containers
/// keep their entries in.
///
/// The names of a list are numbers, and torch finds its entries by them: what it does where the names and
/// the places of entries differ is done here too.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<(String, T)>", into = "Vec<(String, T)>")]
#[serde(bound = "T: Clone + Serialize + DeserializeOwned")]
pub struct Named<T>(Vec<(String, T)>, Naming);

/// What is known of the names: among names that are numbers in order, none has to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// Each entry is named by its place.
    ByPlace,
    /// Anything.
    Free,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new(), Naming::ByPlace)
    }
}

impl<T> TryFrom<Vec<(String, T)>> for Named<T> {
    type Error = &'static str;

    fn try_from(entries: Vec<(String, T)>) -> Result<Self, &'static str> {
        let mut names = HashSet::new();
        if !entries.iter().all(|(name, _)| names.insert(name.as_str())) {
            return Err("a name is there twice");
        }
        let mut places = entries.iter().enumerate();
        let is_by_place = places.all(|(place, (name, _))| *name == place.to_string());
        let naming = if is_by_place { Naming::ByPlace } else { Naming::Free };
        Ok(Named(entries, naming))
    }
}

impl<T> From<Named<T>> for Vec<(String, T)> {
    fn from(named: Named<T>) -> Self {
        named.0
    }
}

impl<T> Named<T> {
    /// Counts the entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Goes through names and entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &T)> + ExactSizeIterator {
        self.0.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Returns the place of the entry of that name.
    pub fn place_of(&self, name: &str) -> Option<usize> {
        if self.1 == Naming::ByPlace {
            let place = name.parse().ok().filter(|&place: &usize| place < self.len());
            return place.filter(|place| self.0[*place].0 == name);
        }
        self.0.iter().position(|(known, _)| known == name)
    }

    /// Returns the place of the entry that is named by a number: as a rule, this number.
    fn numbered(&self, number: isize) -> Option<usize> {
        let name = number.to_string();
        let expected = usize::try_from(number).ok();
        expected
            .filter(|&place| self.0.get(place).is_some_and(|(known, _)| *known == name))
            .or_else(|| self.place_of(&name))
    }

    /// Returns the entry of that name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.place_of(name).map(|place| &self.0[place].1)
    }

    /// Returns the entry of that name, to be changed.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        self.place_of(name).map(|place| &mut self.0[place].1)
    }

    /// Returns the entry at an index that may count from the end.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is none.
    pub fn at(&self, index: isize) -> Result<&T, ContainerError> {
        Ok(&self.0[place(index, self.len())?].1)
    }

    /// Returns the entry at an index that may count from the end, to be changed.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Index`] if there is none.
    pub fn at_mut(&mut self, index: isize) -> Result<&mut T, ContainerError> {
        let place = place(index, self.len())?;
        Ok(&mut self.0[place].1)
    }

    /// Sets the entry of that name where it is, or appends it.
    pub fn set(&mut self, name: String, entry: T) {
        match self.place_of(&name) {
            Some(place) => self.0[place].1 = entry,
            None => {
                if name != self.len().to_string() {
                    self.1 = Naming::Free;
                }
                self.0.push((name, entry));
            }
        }
    }

    /// Sets the entry that is named by the number of entries: appends it, unless that name is taken.
    pub fn append(&mut self, entry: T) {
        self.set(self.len().to_string(), entry);
    }

    /// Sets the entries that are named by the numbers from the number of entries on.
    pub fn extend(&mut self, entries: impl IntoIterator<Item = T>) {
        let offset = self.len();
        for (number, entry) in entries.into_iter().enumerate() {
            self.set((offset + number).to_string(), entry);
        }
    }

    /// Sets the entry that is named `number`, after what was named by it and by greater numbers moved to the
    /// next greater name.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Key`] if one of those names is missing.
    pub fn insert(&mut self, number: isize, entry: T) -> Result<(), ContainerError> {
        let len = isize::try_from(self.len()).unwrap_or(isize::MAX);
        let moved: Result<Vec<_>, _> = (number..len)
            .rev()
            .map(|number| {
                self.numbered(number).ok_or_else(|| ContainerError::Key(number.to_string()))
            })
            .collect();
        let mut carried = entry;
        for place in moved?.into_iter().rev() {
            core::mem::swap(&mut self.0[place].1, &mut carried);
        }
        self.set(number.max(len).to_string(), carried);
        Ok(())
    }

    /// Takes out the entry of that name.
    pub fn remove(&mut self, name: &str) -> Option<T> {
        let place = self.place_of(name)?;
        if place + 1 < self.len() {
            self.1 = Naming::Free;
        }
        Some(self.0.remove(place).1)
    }

    /// Takes out the last entry.
    pub fn pop(&mut self) -> Option<(String, T)> {
        self.0.pop()
    }

    /// Takes out all entries.
    pub fn clear(&mut self) {
        *self = Named::default();
    }

    /// Takes out the entries at these places, in their order; the others are named by their numbers then.
    pub fn take(&mut self, places: &[usize]) -> Named<T> {
        let mut entries: Vec<_> = self.0.drain(..).map(Some).collect();
        let taken = places.iter().filter_map(|&place| entries.get_mut(place)?.take()).collect();
        self.0 = entries.into_iter().flatten().collect();
        self.renumber();
        Named(taken, Naming::Free)
    }

    /// Names each entry by its number.
    pub fn renumber(&mut self) {
        for (number, (name, _)) in self.0.iter_mut().enumerate() {
            *name = number.to_string();
        }
        self.1 = Naming::ByPlace;
    }

    /// Returns places of the entries that a slice names.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Step`] if its step is 0.
    pub fn places(&self, slice: impl Into<Slice>) -> Result<Vec<usize>, ContainerError> {
        slice.into().places(self.len())
    }

    /// Returns the places of entries that are named by these numbers.
    ///
    /// # Errors
    ///
    /// The first number that no entry is named by, as `missing` puts it.
    pub fn all_numbered(
        &self,
        numbers: impl IntoIterator<Item = usize>,
        missing: impl Fn(String) -> ContainerError,
    ) -> Result<Vec<usize>, ContainerError> {
        let numbered = |number: usize| {
            let place = isize::try_from(number).ok().and_then(|number| self.numbered(number));
            place.ok_or_else(|| missing(number.to_string()))
        };
        numbers.into_iter().map(numbered).collect()
    }
}

impl<T: Clone> Named<T> {
    /// Copies the entries at these places, in their order, with their names.
    #[must_use]
    pub fn copy(&self, places: &[usize]) -> Named<T> {
        let copied = places.iter().filter_map(|&place| self.0.get(place).cloned());
        Named(copied.collect(), Naming::Free)
    }
}

impl<T> IntoIterator for Named<T> {
    type Item = (String, T);
    type IntoIter = std::vec::IntoIter<(String, T)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(entries: &[(&str, u32)]) -> Named<u32> {
        let mut named = Named::default();
        entries.iter().for_each(|&(name, entry)| named.set(name.to_owned(), entry));
        named
    }

    fn list(named: &Named<u32>) -> Vec<(&str, u32)> {
        named.iter().map(|(name, &entry)| (name, entry)).collect()
    }

    #[test]
    fn a_name_that_is_set_again_stays_in_its_place() {
        let mut entries = named(&[("z", 1), ("a", 2)]);
        entries.set("z".to_owned(), 9);
        entries.set("n".to_owned(), 3);
        assert_eq!(list(&entries), [("z", 9), ("a", 2), ("n", 3)]);
        assert_eq!((entries.get("a"), entries.get("q")), (Some(&2), None));
    }

    #[test]
    fn appending_replaces_whatever_has_the_number_for_its_name() {
        let mut entries = named(&[("2", 1), ("x", 2)]);
        entries.append(9);
        assert_eq!(list(&entries), [("2", 9), ("x", 2)]);
        entries.extend([7, 8]);
        assert_eq!(list(&entries), [("2", 7), ("x", 2), ("3", 8)]);
    }

    #[test]
    fn inserting_moves_entries_between_names() {
        let mut entries = named(&[("1", 1), ("0", 0)]);
        assert_eq!(entries.insert(0, 9), Ok(()));
        assert_eq!(list(&entries), [("1", 0), ("0", 9), ("2", 1)]);
    }

    #[test]
    fn a_failed_insertion_changes_nothing() {
        let mut entries = named(&[("0", 0), ("b", 1), ("2", 2)]);
        assert_eq!(entries.insert(0, 9), Err(ContainerError::Key("1".to_owned())));
        assert_eq!(list(&entries), [("0", 0), ("b", 1), ("2", 2)]);
    }

    #[test]
    fn what_is_left_is_numbered() {
        let mut entries = named(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(list(&entries.take(&[2, 0])), [("c", 3), ("a", 1)]);
        assert_eq!(list(&entries), [("0", 2)]);
    }
}
