//! [`Order`]: which row is copied onto which, one after the other, so that every row gets old numbers.

/// The spare row, in an [`Order`]: none of the column, but one beside it.
pub(crate) const SPARE: u32 = u32::MAX;

/// Copies of rows onto other rows of the same column, to be made one after the other.
///
/// A row is overwritten when nobody needs its old numbers any more. Only where rows are exchanged in a
/// circle is one of them set aside, in the [`SPARE`] row: so each row is written once, and read once for
/// each that gets its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    /// From which row to which.
    copies: Vec<(u32, u32)>,
    rows: usize,
    is_free: bool,
}

impl Order {
    /// Plans copies after which each row `i` has the old numbers of row `sources[i]`.
    ///
    /// # Panics
    ///
    /// If a source is no row, which is a bug of the caller.
    pub(crate) fn new(sources: &[u32]) -> Order {
        let rows = sources.len();
        // How many other rows have yet to get a row's old numbers.
        let mut readers = vec![0_u32; rows];
        let mut pending = 0;
        for (row, &source) in sources.iter().enumerate() {
            if source as usize != row {
                readers[source as usize] += 1;
                pending += 1;
            }
        }
        let is_changed = |row: usize| sources[row] as usize != row;
        let is_free = (0..rows).all(|row| readers[row] == 0 || !is_changed(row));
        let mut order = Order { copies: Vec::with_capacity(pending), rows, is_free };
        let mut is_done: Vec<bool> = (0..rows).map(|row| !is_changed(row)).collect();
        for first in 0..rows {
            let mut row = first;
            // Once its source is read, that row may be free to be overwritten as well.
            while !is_done[row] && readers[row] == 0 {
                let source = sources[row];
                order.copies.push((source, row as u32));
                is_done[row] = true;
                row = source as usize;
                readers[row] -= 1;
            }
        }
        // What is left are circles.
        for first in 0..rows {
            if is_done[first] {
                continue;
            }
            order.copies.push((first as u32, SPARE));
            let mut row = first;
            while sources[row] as usize != first {
                order.copies.push((sources[row], row as u32));
                is_done[row] = true;
                row = sources[row] as usize;
            }
            order.copies.push((SPARE, row as u32));
            is_done[row] = true;
        }
        order
    }

    /// Returns the copies: from which row to which.
    pub(crate) fn copies(&self) -> &[(u32, u32)] {
        &self.copies
    }

    /// Counts the rows of the column; all copies but the spare row's are between rows below.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns whether no row is both read and written: then the copies may be made in any order, or at once.
    pub(crate) fn is_free(&self) -> bool {
        self.is_free
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Makes the copies on rows of one number.
    fn apply(order: &Order, rows: &mut [u32]) {
        let mut spare = None;
        for &(from, to) in order.copies() {
            let number = if from == SPARE { spare.take() } else { Some(rows[from as usize]) };
            match to {
                SPARE => spare = number,
                to => rows[to as usize] = number.expect("something was set aside"),
            }
        }
    }

    proptest! {
        #[test]
        fn each_row_gets_the_old_numbers_of_its_source(
            sources in (1..40_usize).prop_flat_map(|n| prop::collection::vec(0..n as u32, n)),
        ) {
            let mut rows: Vec<u32> = (100..100 + sources.len() as u32).collect();
            let expected: Vec<u32> = sources.iter().map(|&source| 100 + source).collect();
            let order = Order::new(&sources);
            apply(&order, &mut rows);
            prop_assert_eq!(rows, expected);
            let mut written: Vec<_> = order.copies().iter().map(|&(_, to)| to).collect();
            written.retain(|&to| to != SPARE);
            let count = written.len();
            written.sort_unstable();
            written.dedup();
            prop_assert_eq!(written.len(), count, "no row is written twice");
        }
    }

    #[test]
    fn only_circles_need_the_spare_row() {
        assert_eq!(Order::new(&[0, 0, 1]).copies(), [(1, 2), (0, 1)]);
        assert_eq!(Order::new(&[1, 0]).copies(), [(0, SPARE), (1, 0), (SPARE, 1)]);
        assert!(Order::new(&[0, 0, 2, 2]).is_free());
        assert!(!Order::new(&[0, 0, 1]).is_free());
        assert!(Order::new(&[0, 1, 2]).copies().is_empty());
    }
}
