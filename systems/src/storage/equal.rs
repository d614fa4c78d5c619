//! Compares long lists, which every call of every population does.

/// From this many elements on (some microseconds), threads of the pool share a comparison; that also wakes
/// them up for what follows.
const WORTH_SPLITTING: usize = 2048;

/// Compares lists, in blocks that a vector unit compares at once: every call of every population does, and long
/// lists come from memory.
pub(crate) fn are_equal<T: PartialEq + Sync>(a: &[T], b: &[T]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if a.len() >= WORTH_SPLITTING && rayon::current_thread_index().is_some() {
        let ((a, rest_of_a), (b, rest_of_b)) = (a.split_at(a.len() / 2), b.split_at(b.len() / 2));
        let (first, rest) = rayon::join(|| are_equal(a, b), || are_equal(rest_of_a, rest_of_b));
        return first && rest;
    }
    let same = |(a, b): (&T, &T)| a == b;
    let mut blocks = a.chunks(64).zip(b.chunks(64));
    blocks.all(|(a, b)| a.iter().zip(b).map(same).fold(true, |all, same| all & same))
}
