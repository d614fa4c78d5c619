//! [`nearest`]: a fixed number of neighbors with a mask, for observations.

/// Returns the `N` nearest of some candidates, each with its distance, the nearest first; and a mask: 1 where there is one,
/// 0 where there were fewer. Missing ones are `T::default()`.
///
/// Candidates at one distance keep their order: sort them before where that is not the same in every run. A distance that
/// is NaN counts as infinite.
///
/// # Example
///
/// ```
/// use neurarch::plugin::nearest;
///
/// let (others, mask) = nearest::<3, _>([(4.0, [0.0, 4.0]), (1.0, [1.0, 0.0])]);
/// assert_eq!(others, [[1.0, 0.0], [0.0, 4.0], [0.0, 0.0]]);
/// assert_eq!(mask, [1.0, 1.0, 0.0]);
/// ```
pub fn nearest<const N: usize, T: Copy + Default>(
    candidates: impl IntoIterator<Item = (f32, T)>,
) -> ([T; N], [f32; N]) {
    let mut found = [(f32::INFINITY, T::default()); N];
    let mut count = 0;
    for (distance, item) in candidates {
        let distance = if distance.is_nan() { f32::INFINITY } else { distance };
        let farther = |(other, _): &(f32, T)| distance < *other;
        let place = found[..count].iter().position(farther).unwrap_or(count);
        if place < N {
            count = (count + 1).min(N);
            found[place..count].rotate_right(1);
            found[place] = (distance, item);
        }
    }
    (found.map(|(_, item)| item), std::array::from_fn(|i| f32::from(u8::from(i < count))))
}
