//! Rows that are added to rows which indices name: which terms each sum has, and the sum.

use crate::cpu::sum::Running;
use crate::ops::elementwise::number::Number;

/// Which items name each row, in their order.
pub(in crate::ops) struct Scatter<'a> {
    /// Where each row's items end in `items`.
    ends: &'a [usize],
    items: &'a [usize],
}

impl<'a> Scatter<'a> {
    /// Sorts items by the row that each names, if it names one. `ends` is as long as there are rows, `items` is as
    /// long as there are items.
    pub(in crate::ops) fn new(
        rows: impl Iterator<Item = Option<usize>> + Clone,
        ends: &'a mut [usize],
        items: &'a mut [usize],
    ) -> Self {
        ends.fill(0);
        rows.clone().flatten().for_each(|row| ends[row] += 1);
        let mut start = 0;
        for end in &mut *ends {
            start += core::mem::replace(end, start);
        }
        for (item, row) in rows.enumerate().filter_map(|(item, row)| Some((item, row?))) {
            items[ends[row]] = item;
            ends[row] += 1;
        }
        Scatter { ends, items }
    }

    /// Lists the items that name a row.
    pub(in crate::ops) fn of(&self, row: usize) -> &[usize] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.items[start..self.ends[row]]
    }
}

/// Columns that are added up together.
const WIDTH: usize = 16;

/// Adds up rows, each times its weight, in the [order of sums](crate::cpu::sum).
#[inline(always)]
pub(in crate::ops) fn sum_rows<'a, T: Number>(
    rows: impl Iterator<Item = (&'a [T], T)> + Clone,
    sum: &mut [T],
) {
    for (place, sum) in sum.chunks_mut(WIDTH).enumerate() {
        let columns = place * WIDTH..place * WIDTH + sum.len();
        let mut running = Running::<[T; WIDTH]>::new();
        for (row, weight) in rows.clone() {
            let row = &row[columns.clone()];
            let mut term = [T::default(); WIDTH];
            match row.first_chunk::<WIDTH>() {
                Some(row) => term = *row,
                None => term[..row.len()].copy_from_slice(row),
            }
            running.add(term.map(|x| x * weight));
        }
        let all = running.finish();
        match sum.first_chunk_mut::<WIDTH>() {
            Some(sum) => *sum = all,
            None => sum.copy_from_slice(&all[..sum.len()]),
        }
    }
}
