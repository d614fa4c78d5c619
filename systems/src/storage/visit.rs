//! Visits the members of a binding one by one, each with its rows, on the threads of the pool.
#![expect(unsafe_code, reason = "threads write rows of one binding, each of other members")]

use std::marker::PhantomData;
use std::ops::Range;

use neurarch_kernels::cpu::tile::Rows;
use rayon::prelude::*;

use crate::storage::bind::Bound;

/// The rows of one member. There is one of each member at a time.
pub(crate) struct Member<'a> {
    slots: &'a [(Rows<'a>, usize)],
    member: usize,
    rows: PhantomData<&'a mut [u8]>,
}

impl Member<'_> {
    /// Views the first `bytes` of the row of a slot.
    ///
    /// # Panics
    ///
    /// If there is no such slot, or the row is shorter.
    pub(crate) fn row(&self, slot: usize, bytes: usize) -> &[u8] {
        let row = self.address(slot, bytes);
        // SAFETY: the row is that long, and its bytes were initialized when the column was. Whoever bound it
        // borrows the world exclusively; no other `Member` is of this member, so nobody writes there.
        unsafe { std::slice::from_raw_parts(row, bytes) }
    }

    /// Views the first `bytes` of the row of a slot, which was bound to be written.
    ///
    /// # Panics
    ///
    /// As [`row`](Member::row).
    pub(crate) fn row_mut(&mut self, slot: usize, bytes: usize) -> &mut [u8] {
        let row = self.address(slot, bytes);
        // SAFETY: as in `row`; members share no row by the assertion of `rows`, and this one is borrowed
        // exclusively, so there is no other view of the row.
        unsafe { std::slice::from_raw_parts_mut(row, bytes) }
    }

    fn address(&self, slot: usize, bytes: usize) -> *mut u8 {
        let (rows, row_bytes) = &self.slots[slot];
        assert!(bytes <= *row_bytes, "a part of a row");
        rows.at(self.member)
    }
}

/// Bytes that are worth a thread's while.
const LEAST_PART: usize = 1 << 16;

/// Visits every member with its own element of `of`.
///
/// # Panics
///
/// If there are not as many elements as members, or several members share a row, which are bugs of the caller.
pub(crate) fn visit<T: Send>(
    bound: Bound<'_>,
    of: &mut [T],
    work: impl Fn(&mut Member<'_>, &mut T) + Sync,
) {
    assert_eq!(of.len(), bound.members(), "an element for each member");
    let (slots, least) = rows(&bound);
    let visit = |start: usize, of: &mut [T]| {
        for (member, of) in (start..).zip(of) {
            work(&mut Member { slots: &slots, member, rows: PhantomData }, of);
        }
    };
    match of.len() <= least {
        true => visit(0, of),
        false => {
            let parts = of.par_chunks_mut(least).enumerate();
            parts.for_each(|(part, of)| visit(part * least, of));
        }
    }
}

/// Visits every member with its rows of two bindings, of which the first was bound to be written.
///
/// # Panics
///
/// If they are not of as many members, or several members share a row, which are bugs of the caller.
pub(crate) fn visit_pairs(
    [to, from]: [Bound<'_>; 2],
    work: impl Fn(&mut Member<'_>, &Member<'_>) + Sync,
) {
    let members = to.members();
    assert_eq!(members, from.members(), "as many members");
    let ((to, least), (from, _)) = (rows(&to), rows(&from));
    let visit = |members: Range<usize>| {
        for member in members {
            let mut to = Member { slots: &to, member, rows: PhantomData };
            work(&mut to, &Member { slots: &from, member, rows: PhantomData });
        }
    };
    match members <= least {
        true => visit(0..members),
        false => {
            let parts = (0..members.div_ceil(least)).into_par_iter();
            parts.for_each(|part| visit(part * least..members.min((part + 1) * least)));
        }
    }
}

/// Returns the rows of each slot with their bytes, and how many members are worth a thread's while.
fn rows<'a>(bound: &'a Bound<'_>) -> (Vec<(Rows<'a>, usize)>, usize) {
    let all = 0..bound.len();
    let is_alone = bound.members() <= 1;
    assert!(is_alone || all.clone().all(|slot| !bound.is_shared(slot)), "rows of their own");
    let rows: Vec<_> = all.map(|slot| (bound.rows(slot), bound.row_bytes(slot))).collect();
    let bytes: usize = rows.iter().map(|(_, bytes)| bytes).sum();
    (rows, (LEAST_PART / bytes.max(1)).max(1))
}
