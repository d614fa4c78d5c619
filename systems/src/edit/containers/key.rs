//! [`Key`]: what stands between the brackets of `container[…]`.

use core::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use neurarch_components::containers::Slice;

/// Which entry of a container, or which of them: an index that may count from the end, a name, or a slice.
///
/// Source: the arguments of `__getitem__`, `__setitem__`, `__delitem__` and `pop` of torch's containers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The entry at a place: of a list.
    Index(isize),
    /// The entry of a name: of a dictionary.
    Name(String),
    /// Several entries of a list.
    Slice(Slice),
}

impl From<isize> for Key {
    fn from(index: isize) -> Self {
        Key::Index(index)
    }
}

impl From<&str> for Key {
    fn from(name: &str) -> Self {
        Key::Name(name.to_owned())
    }
}

impl From<String> for Key {
    fn from(name: String) -> Self {
        Key::Name(name)
    }
}

impl From<Slice> for Key {
    fn from(slice: Slice) -> Self {
        Key::Slice(slice)
    }
}

/// Makes keys of the ranges that are slices.
macro_rules! key_of_ranges {
    ($($range:ty),*) => {
        $(impl From<$range> for Key {
            fn from(range: $range) -> Self {
                Key::Slice(range.into())
            }
        })*
    };
}

key_of_ranges!(
    Range<isize>,
    RangeFrom<isize>,
    RangeTo<isize>,
    RangeFull,
    RangeInclusive<isize>,
    RangeToInclusive<isize>
);
