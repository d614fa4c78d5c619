//! [`ReadOnly`]: rows of a column that is nobody's component.

use neurarch_kernels::cpu::tile::{RowList, Rows};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::memory::ALIGN_BYTES;

/// Rows of one column in memory that nobody writes to, of the members of a launch in their order.
pub(crate) struct ReadOnly<'a> {
    /// Where the column begins, which `bytes` keeps in place.
    base: [*mut u8; 1],
    bytes: &'a [u8],
    stride: usize,
    /// Pairs (0, row); one row for all if there is none.
    rows: Option<&'a RowList>,
}

impl<'a> ReadOnly<'a> {
    /// Reads some rows of a column.
    pub(crate) fn rows_of(bytes: &'a [u8], stride: usize, rows: &'a RowList) -> Self {
        ReadOnly { base: [bytes.as_ptr().cast_mut()], bytes, stride, rows: Some(rows) }
    }

    /// Reads one row for all members.
    pub(crate) fn shared(bytes: &'a [u8]) -> Self {
        ReadOnly { base: [bytes.as_ptr().cast_mut()], bytes, stride: 0, rows: None }
    }

    pub(super) fn rows(&self) -> Rows<'_> {
        match self.rows {
            Some(rows) => rows.of(&self.base, self.stride),
            None => Rows::Strided { base: self.base[0], stride: 0 },
        }
    }

    /// Asserts that it has a row of some type for each of so many members, where kernels can read it.
    pub(super) fn check(&self, members: usize, ty: &Type) {
        let rows = self.rows.map(RowList::as_slice);
        let last = rows.and_then(|rows| rows.iter().map(|&(_, row)| row as usize).max());
        let end = last.unwrap_or(0) * self.stride + ty.size_bytes();
        assert!(rows.is_none_or(|rows| rows.len() == members), "a row for each member");
        assert!(
            rows.is_none_or(|rows| rows.iter().all(|&(segment, _)| segment == 0)),
            "one segment"
        );
        assert!(end <= self.bytes.len(), "rows lie in their column");
        let places = [self.bytes.as_ptr().addr(), self.stride];
        assert!(places.iter().all(|place| place.is_multiple_of(ALIGN_BYTES)), "rows are aligned");
    }
}
