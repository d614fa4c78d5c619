//! Copies rows of columns onto other rows of the same columns, in parallel.
#![expect(unsafe_code, reason = "rows are copied within columns, by address")]

use std::ops::Range;

use neurarch_kernels::cpu::tile::Rows;
use rayon::prelude::*;

use crate::storage::bind::Bound;
use crate::storage::order::{Order, SPARE};

/// Copies within one column.
pub(crate) struct Copies<'a> {
    /// The slot, in the order in which slots were bound.
    pub(crate) slot: usize,
    /// Which bytes of each row.
    pub(crate) bytes: Range<usize>,
    /// Which rows: places of members.
    pub(crate) order: &'a Order,
}

/// Some copies of one column: what a thread does at a time.
struct Share<'a> {
    rows: Rows<'a>,
    copies: &'a [(u32, u32)],
    bytes: Range<usize>,
}

/// Bytes that are worth a thread's while, and how wide a strip of a row is at least.
const LEAST_PART: usize = 1 << 16;
const LEAST_STRIP: usize = 1 << 12;

/// Copies rows of slots that were bound for writing.
///
/// Each column is independent of the others. Within one, copies that depend on each other are made in order,
/// strip by strip of long rows; others are dealt out.
///
/// # Panics
///
/// If an order is not of as many rows as there are members, or bytes are not in their rows or occur twice,
/// which is a bug of the caller.
pub(crate) fn copy_rows(bound: &Bound<'_>, copies: &[Copies<'_>]) {
    if bound.members() == 0 {
        return;
    }
    check(bound, copies);
    let total: usize = copies.iter().map(|c| c.order.copies().len() * c.bytes.len()).sum();
    let part_bytes = (total / (4 * rayon::current_num_threads())).max(LEAST_PART);
    let parts: Vec<_> = copies.iter().flat_map(|c| c.parts(bound, part_bytes)).collect();
    match parts.as_slice() {
        [part] => part.copy(),
        parts => parts.par_iter().for_each(Share::copy),
    }
}

fn check(bound: &Bound<'_>, copies: &[Copies<'_>]) {
    let place = |c: &Copies<'_>| (bound.rows(c.slot).at(0).addr(), c.bytes.start, c.bytes.end);
    let mut places: Vec<_> = copies.iter().map(place).collect();
    places.sort_unstable();
    let apart = |pair: &[(usize, usize, usize)]| pair[0].0 != pair[1].0 || pair[0].2 <= pair[1].1;
    assert!(places.windows(2).all(apart), "no byte is copied twice");
    for Copies { slot, bytes, order } in copies {
        assert!(bytes.start <= bytes.end && bytes.end <= bound.row_bytes(*slot), "bytes of a row");
        assert_eq!(order.rows(), bound.members(), "an order of all members");
    }
}

impl<'a> Copies<'a> {
    /// Divides the copies into parts of about `part_bytes` that may be made at once.
    fn parts(&self, bound: &'a Bound<'_>, part_bytes: usize) -> Vec<Share<'a>> {
        let Copies { slot, bytes, order } = self;
        let (rows, copies) = (bound.rows(*slot), order.copies());
        let width = bytes.len();
        if copies.is_empty() || width == 0 {
            return Vec::new();
        }
        if order.is_free() {
            let count = (part_bytes / width).max(1);
            let parts = copies.chunks(count);
            return parts.map(|copies| Share { rows, copies, bytes: bytes.clone() }).collect();
        }
        let strip = (part_bytes / copies.len()).max(LEAST_STRIP).next_multiple_of(64);
        let starts = bytes.clone().step_by(strip);
        let strips = starts.map(|start| start..bytes.end.min(start + strip));
        strips.map(|bytes| Share { rows, copies, bytes }).collect()
    }
}

impl Share<'_> {
    fn copy(&self) {
        let Share { rows, copies, bytes } = self;
        let width = bytes.len();
        let mut spare = Vec::new();
        if copies.iter().any(|&(_, to)| to == SPARE) {
            spare.resize(width, 0_u8);
        }
        let spare = spare.as_mut_ptr();
        let at = |row| match row {
            SPARE => spare,
            row => rows.at(row as usize).wrapping_add(bytes.start),
        };
        for &(from, to) in *copies {
            // SAFETY: both are addresses of `width` initialized bytes. Those of rows lie in rows of members,
            // by the assertions of `check`; `Binder::bind` took them from columns of a world that it
            // borrows exclusively. The spare row is as long, if any copy names it. No other part writes
            // there: parts of one order are apart in the bytes of rows, or else no row is both read
            // and written and each is written once; different orders are apart by `check`. An order
            // never copies a row onto itself.
            unsafe { std::ptr::copy_nonoverlapping(at(from), at(to), width) };
        }
    }
}
