//! Rows in another order.

/// Copies rows into another order.
pub(crate) fn gathered(bytes: &[u8], row_bytes: usize, rows: &[usize]) -> Vec<u8> {
    let mut gathered = Vec::with_capacity(row_bytes * rows.len());
    rows.iter().for_each(|&row| gathered.extend_from_slice(&bytes[row * row_bytes..][..row_bytes]));
    gathered
}
