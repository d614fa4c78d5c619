//! [`PerAxis`]: settings that are one number for all spatial axes, or one for each.

use crate::module::repr::tuple;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// One number for all spatial axes, or one for each: torch's number or tuple, printed as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(bound = "T: Copy + Serialize + DeserializeOwned")]
pub enum PerAxis<T, const N: usize> {
    /// One for all.
    All(T),
    /// One for each, in the order of the axes.
    Each(#[serde(with = "crate::wire")] [T; N]),
}

impl<T: Copy, const N: usize> PerAxis<T, N> {
    /// Returns the number of each axis.
    pub fn each(&self) -> [T; N] {
        match *self {
            PerAxis::All(number) => [number; N],
            PerAxis::Each(numbers) => numbers,
        }
    }

    /// Prints it as Python does; `print` prints one number.
    pub(super) fn repr(&self, print: impl Fn(&T) -> String) -> String {
        match self {
            PerAxis::All(number) => print(number),
            PerAxis::Each(numbers) => tuple(&numbers.iter().map(print).collect::<Vec<_>>()),
        }
    }
}

impl<const N: usize> PerAxis<usize, N> {
    /// Prints sizes as Python does.
    pub(super) fn sizes(&self) -> String {
        self.repr(usize::to_string)
    }
}

impl<T, const N: usize> From<T> for PerAxis<T, N> {
    fn from(number: T) -> Self {
        PerAxis::All(number)
    }
}

impl<T, const N: usize> From<[T; N]> for PerAxis<T, N> {
    fn from(numbers: [T; N]) -> Self {
        PerAxis::Each(numbers)
    }
}

impl<const N: usize> From<usize> for PerAxis<Option<usize>, N> {
    fn from(size: usize) -> Self {
        PerAxis::All(Some(size))
    }
}

impl<const N: usize> From<[usize; N]> for PerAxis<Option<usize>, N> {
    fn from(sizes: [usize; N]) -> Self {
        PerAxis::Each(sizes.map(Some))
    }
}
