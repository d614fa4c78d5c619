//! Rows in another order.

/// Copies rows into another order.
pub(crate) fn gathered(bytes: &[u8], row_bytes: usize, rows: &[usize]) -> Vec<u8> {
    let row = |&row: &usize| &bytes[row * row_bytes..][..row_bytes];
    rows.iter().flat_map(row).copied().collect()
}
