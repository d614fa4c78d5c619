//! [`Slice`]: Python's `start:stop:step`, and indices that may count from the end.

use core::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use super::ContainerError;

/// Which entries of a container: Python's `start:stop:step`. Negative numbers count from the end, what is
/// out of range is cut off.
///
/// Rust's ranges of `isize` are slices too: `1..`, `..-1`, `..`. Clippy takes `1..-1` for a mistake: write
/// `Slice::between(1, -1)`.
///
/// # Example
///
/// ```
/// # use neurarch_components::layers::*;
/// let brain = Sequential::from([Linear::new(1, 1), Linear::new(1, 2), Linear::new(1, 3)]);
/// let back = Slice { step: Some(-1), ..Slice::default() };
/// assert_eq!(brain.slice(back)?.keys().collect::<Vec<_>>(), ["2", "1", "0"]);
/// assert_eq!(brain.slice(-2..)?.keys().collect::<Vec<_>>(), ["1", "2"]);
/// assert_eq!(brain.slice(Slice::from(..).step_by(2))?.keys().collect::<Vec<_>>(), ["0", "2"]);
/// # Ok::<(), ContainerError>(())
/// ```
///
/// Source: Python's `slice` and its `indices`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Slice {
    /// The first entry; `None` for the end to start from.
    pub start: Option<isize>,
    /// The entry before which to stop; `None` for the other end.
    pub stop: Option<isize>,
    /// How far to go each time, backward if negative; `None` is 1.
    pub step: Option<isize>,
}

impl Slice {
    /// Goes from `start` to before `stop`, either of which may count from the end.
    pub fn between(start: isize, stop: isize) -> Self {
        Slice { start: Some(start), stop: Some(stop), step: None }
    }

    /// Takes each `step`-th entry only, backward if negative.
    #[must_use]
    pub fn step_by(self, step: isize) -> Self {
        Slice { step: Some(step), ..self }
    }

    /// Lists the places in a container of `len` entries, in the order of the slice.
    ///
    /// # Errors
    ///
    /// [`ContainerError::Step`] if the step is 0.
    pub fn places(self, len: usize) -> Result<Vec<usize>, ContainerError> {
        let len = isize::try_from(len).unwrap_or(isize::MAX);
        let step = self.step.unwrap_or(1);
        if step == 0 {
            return Err(ContainerError::Step);
        }
        // Going backward, one stops before the first entry, at -1.
        let (low, high) = if step < 0 { (-1, len - 1) } else { (0, len) };
        let (first, last) = if step < 0 { (high, low) } else { (low, high) };
        let resolve = |end: isize| {
            if end < 0 { (end + len).max(low) } else { end.min(high) }
        };
        let start = self.start.map_or(first, resolve);
        let stop = self.stop.map_or(last, resolve);
        let is_before = |at: &isize| if step < 0 { *at > stop } else { *at < stop };
        let places = core::iter::successors(Some(start), |at| at.checked_add(step));
        Ok(places.take_while(is_before).map(isize::unsigned_abs).collect())
    }
}

/// Returns the place of an index that may count from the end, among `len`.
///
/// # Errors
///
/// [`ContainerError::Index`] if there is none.
pub fn place(index: isize, len: usize) -> Result<usize, ContainerError> {
    let from_start = if index < 0 { index.checked_add_unsigned(len) } else { Some(index) };
    let place = from_start.and_then(|place| usize::try_from(place).ok());
    place.filter(|&place| place < len).ok_or(ContainerError::Index(index))
}

impl From<Range<isize>> for Slice {
    fn from(range: Range<isize>) -> Self {
        Slice::between(range.start, range.end)
    }
}

impl From<RangeFrom<isize>> for Slice {
    fn from(range: RangeFrom<isize>) -> Self {
        Slice { start: Some(range.start), ..Slice::default() }
    }
}

impl From<RangeTo<isize>> for Slice {
    fn from(range: RangeTo<isize>) -> Self {
        Slice { stop: Some(range.end), ..Slice::default() }
    }
}

impl From<RangeFull> for Slice {
    fn from(_: RangeFull) -> Self {
        Slice::default()
    }
}

impl From<RangeInclusive<isize>> for Slice {
    fn from(range: RangeInclusive<isize>) -> Self {
        Slice { start: Some(*range.start()), stop: after(*range.end()), step: None }
    }
}

impl From<RangeToInclusive<isize>> for Slice {
    fn from(range: RangeToInclusive<isize>) -> Self {
        Slice { stop: after(range.end), ..Slice::default() }
    }
}

/// Returns where a slice stops whose last entry is `end`: behind -1 is the end.
fn after(end: isize) -> Option<isize> {
    end.checked_add(1).filter(|&stop| stop != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(start: Option<isize>, stop: Option<isize>, step: Option<isize>) -> Slice {
        Slice { start, stop, step }
    }

    /// Python: `list(range(3))[slice(...)]`.
    #[test]
    fn places_are_those_of_python() {
        let cases: [(Slice, &[usize]); 12] = [
            (slice(None, None, None), &[0, 1, 2]),
            (slice(Some(1), None, None), &[1, 2]),
            (slice(None, Some(-1), None), &[0, 1]),
            (slice(None, None, Some(2)), &[0, 2]),
            (slice(None, None, Some(-1)), &[2, 1, 0]),
            (slice(Some(5), Some(9), None), &[]),
            (slice(Some(-2), Some(100), None), &[1, 2]),
            (slice(Some(2), Some(0), Some(-1)), &[2, 1]),
            (slice(Some(-9), Some(-1), Some(2)), &[0]),
            (slice(None, None, Some(-2)), &[2, 0]),
            (slice(Some(isize::MIN), Some(isize::MAX), Some(isize::MAX)), &[0]),
            (slice(Some(isize::MAX), Some(isize::MIN), Some(isize::MIN)), &[2]),
        ];
        for (slice, places) in cases {
            assert_eq!(slice.places(3).as_deref(), Ok(places), "{slice:?}");
            assert_eq!(slice.places(0).as_deref(), Ok(&[][..]), "{slice:?} of nothing");
        }
        assert_eq!(slice(None, None, Some(0)).places(3), Err(ContainerError::Step));
        assert_eq!(ContainerError::Step.to_string(), "slice step cannot be zero");
    }

    #[test]
    fn ranges_are_slices() {
        let places = |slice: Slice| slice.places(4);
        assert_eq!(places((1..3).into()), Ok(vec![1, 2]));
        assert_eq!(places(Slice::between(1, -1)), Ok(vec![1, 2]));
        assert_eq!(places((-3..).into()), Ok(vec![1, 2, 3]));
        assert_eq!(places((..-2).into()), Ok(vec![0, 1]));
        assert_eq!(places((..).into()), Ok(vec![0, 1, 2, 3]));
        assert_eq!(places((-3..=-1).into()), Ok(vec![1, 2, 3]));
        assert_eq!(places((..=-2).into()), Ok(vec![0, 1, 2]));
        assert_eq!(places((0..=isize::MAX).into()), Ok(vec![0, 1, 2, 3]));
    }

    #[test]
    fn indices_count_from_both_ends() {
        assert_eq!([0, 2, -1, -3].map(|index| place(index, 3)), [Ok(0), Ok(2), Ok(2), Ok(0)]);
        for index in [3, -4, isize::MAX, isize::MIN] {
            let error = place(index, 3).expect_err("there are 3");
            assert_eq!(error.to_string(), format!("index {index} is out of range"));
        }
        assert_eq!(place(0, 0), Err(ContainerError::Index(0)));
    }
}
