//! [`PackedSequence`]: sequences of several lengths side by side.

use super::trace::Var;

/// Sequences of several lengths in one padded value; the lengths are known while tracing.
///
/// A recurrent layer takes one in the place of a value and gives one: what lies beyond the end of a sequence is not
/// looked at and gets no gradient, and is zero in the result. Outside of a trace, `data` is an array
/// (`AnyInput`), so that a population is called with one as with any other argument.
///
/// # Shape
///
/// `data` is `[T, N, ..]`, or `[N, T, ..]` if `batch_first`: `N` sequences of at most `T` items.
///
/// # Example
///
/// ```
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_kernels::ir::packed::PackedSequence;
/// # use neurarch_kernels::ir::trace::Trace;
/// # use neurarch_kernels::ir::shape::Type;
/// # let trace = Trace::new();
/// let x = trace.input(Type::new(Dtype::F32, [5, 3, 2]));
/// let packed = PackedSequence { enforce_sorted: false, ..PackedSequence::new(x, [2, 4, 1]) };
/// let padded = packed.pad_packed_sequence(true, 0.0, None);
/// assert_eq!(**padded.shape(), [3, 4, 2]);
/// # assert!(trace.error().is_none());
/// ```
///
/// Source: `torch.nn.utils.rnn.pack_padded_sequence`, of which this has the arguments. torch's `PackedSequence` holds
/// the items one time step after the other; that form is [`Steps`](crate::ops::recurrent::sequence::Steps).
#[derive(Clone, Debug, PartialEq)]
pub struct PackedSequence<V = Var> {
    /// The sequences, padded.
    pub data: V,
    /// The length of each.
    pub lengths: Vec<usize>,
    /// Whether the sequences are counted by the first axis and not by the second.
    pub batch_first: bool,
    /// Whether it is an error if a sequence is longer than the one before it.
    pub enforce_sorted: bool,
}

impl<V> PackedSequence<V> {
    /// Packs sequences with torch's defaults: not `batch_first`, and sorted.
    pub fn new(data: V, lengths: impl Into<Vec<usize>>) -> Self {
        PackedSequence { data, lengths: lengths.into(), batch_first: false, enforce_sorted: true }
    }

    /// Replaces the data.
    pub fn map<U>(self, f: &mut impl FnMut(V) -> U) -> PackedSequence<U> {
        let PackedSequence { data, lengths, batch_first, enforce_sorted } = self;
        PackedSequence { data: f(data), lengths, batch_first, enforce_sorted }
    }
}
