//! Sequences of several lengths: packed, padded, and apart. Written with other ops.
//!
//! Source: `torch.nn.utils.rnn`.

use crate::ir::packed::PackedSequence;
use crate::ir::shape::Shape;
use crate::ir::trace::{Trace, Var};

/// The items of sequences by time steps, in each of them the longest sequence first: what a recurrent layer walks
/// through.
///
/// Source: the fields of `torch.nn.utils.rnn.PackedSequence`.
#[derive(Clone, Debug)]
pub struct Steps {
    /// The items of the first time step, then of the second, …: `[total, ..]`.
    pub data: Var,
    /// How many sequences have each time step: never more than have the one before.
    pub batch_sizes: Vec<usize>,
    /// The number of each sequence before they were sorted.
    pub sorted_indices: Vec<usize>,
}

/// On which side of a sequence the padding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PaddingSide {
    /// Behind it: torch's `right`.
    #[default]
    Right,
    /// Before it: torch's `left`.
    Left,
}

impl Steps {
    /// Counts the sequences.
    pub fn n_sequences(&self) -> usize {
        self.sorted_indices.len()
    }

    /// Says whether all sequences have one length.
    pub fn is_even(&self) -> bool {
        let n = self.n_sequences();
        n > 0 && !self.batch_sizes.is_empty() && self.batch_sizes.iter().all(|&size| size == n)
    }

    /// Gives the place of each sequence behind the longer ones.
    pub fn unsorted_indices(&self) -> Vec<usize> {
        let mut places = vec![0; self.n_sequences()];
        for (place, &sequence) in self.sorted_indices.iter().enumerate() {
            places[sequence] = place;
        }
        places
    }

    /// Gives the numbers of the items in a padded value, whose first two axes count as one.
    fn places(&self, batch_first: bool, total_length: usize) -> Vec<usize> {
        let n = self.n_sequences();
        let steps = self.batch_sizes.iter().enumerate();
        let of_step = |(t, &size): (usize, &usize)| {
            self.sorted_indices[..size].iter().map(move |&sequence| match batch_first {
                true => sequence * total_length + t,
                false => t * n + sequence,
            })
        };
        steps.flat_map(of_step).collect()
    }

    /// Puts the items into a padded value of `total_length` time steps.
    fn pad(&self, batch_first: bool, fill: f64, total_length: usize) -> Var {
        let n = self.n_sequences();
        let places = self.places(batch_first, total_length);
        let padded = self.data.put_rows(&places, n * total_length, fill);
        let axes = if batch_first { [n, total_length] } else { [total_length, n] };
        let rest = self.data.shape().iter().skip(1).copied();
        padded.reshape(axes.into_iter().chain(rest).collect::<Shape>())
    }

    /// Gives sequences of these items, padded with zeros, as they were sorted before.
    pub fn packed(&self, batch_first: bool) -> PackedSequence {
        let mut lengths = vec![0; self.n_sequences()];
        for &size in &self.batch_sizes {
            self.sorted_indices[..size].iter().for_each(|&sequence| lengths[sequence] += 1);
        }
        let data = self.pad(batch_first, 0.0, self.batch_sizes.len());
        PackedSequence { data, lengths, batch_first, enforce_sorted: false }
    }
}

impl PackedSequence {
    /// Sorts the items by time steps; `None` after an error.
    pub fn steps(&self) -> Option<Steps> {
        let trace = self.data.trace();
        if trace.error().is_some() {
            return None;
        }
        let fail = |message: String| {
            trace.fail(message);
            None
        };
        let shape = self.data.shape();
        let &[first, second, ..] = &**shape else {
            let (rank, axis) = (shape.rank() as isize, usize::from(!self.batch_first));
            return fail(format!(
                "Dimension out of range (expected to be in range of [{}, {}], but got {axis})",
                -rank.max(1),
                rank.max(1) - 1
            ));
        };
        let (n, total) = if self.batch_first { (first, second) } else { (second, first) };
        let lengths = &self.lengths;
        if shape.numel() == 0 || (n == 0 && lengths.is_empty()) {
            return fail("Cannot pack empty tensors.".into());
        }
        if lengths.len() != n {
            let given = lengths.len();
            return fail(format!(
                "Expected `len(lengths)` to be equal to batch_size, but got {given} (batch_size={n})"
            ));
        }
        if self.enforce_sorted && !lengths.is_sorted_by(|a, b| a >= b) {
            return fail(
                "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass \
                 `enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement \
                 if you do not need ONNX exportability."
                    .into(),
            );
        }
        if lengths.contains(&0) {
            return fail(
                "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
                    .into(),
            );
        }
        let longest = lengths.iter().copied().max().unwrap_or_default();
        if longest > total {
            return fail(format!("Expected lengths of at most {total}, got {longest}"));
        }
        let mut sorted_indices: Vec<_> = (0..n).collect();
        sorted_indices.sort_by_key(|&sequence| core::cmp::Reverse(lengths[sequence]));
        let has = |t: usize| lengths.iter().filter(|&&length| length > t).count();
        let batch_sizes = (0..longest).map(has).collect();
        let flat = self.data.flatten(0, 1);
        let mut steps = Steps { data: flat, batch_sizes, sorted_indices };
        steps.data = steps.data.select_rows(&steps.places(self.batch_first, total));
        Some(steps)
    }

    /// Gives the sequences in one value, padded with `padding_value`; as long as the longest, or as
    /// `total_length`.
    ///
    /// # Shape
    ///
    /// The result is `[T, N, ..]`, or `[N, T, ..]` if `batch_first`.
    ///
    /// Source: `torch.nn.utils.rnn.pad_packed_sequence`, which gives the `lengths` too: a field here.
    #[must_use]
    pub fn pad_packed_sequence(
        &self,
        batch_first: bool,
        padding_value: f64,
        total_length: Option<usize>,
    ) -> Var {
        let trace = self.data.trace();
        let Some(steps) = self.steps() else { return trace.poison() };
        let longest = steps.batch_sizes.len();
        let total = total_length.unwrap_or(longest);
        if total < longest {
            return trace.fail(format!(
                "Expected total_length to be at least the length of the longest sequence in input, but got \
                 total_length={total} and max sequence length being {longest}"
            ));
        }
        if steps.n_sequences().checked_mul(total).is_none() {
            return trace.fail(format!("total_length={total} is too large"));
        }
        steps.pad(batch_first, padding_value, total)
    }

    /// Gives each sequence as a value of its own.
    ///
    /// # Shape
    ///
    /// Result `i` is `[lengths[i], ..]`.
    ///
    /// Source: `torch.nn.utils.rnn.unpack_sequence`, and `unpad_sequence`.
    #[must_use]
    pub fn unpack_sequence(&self) -> Vec<Var> {
        let padded = self.pad_packed_sequence(true, 0.0, None);
        let of = |(sequence, &length): (usize, &usize)| {
            let one = padded.slice(0, sequence..sequence + 1);
            let rest = one.shape().iter().skip(2).copied();
            let shape = one.shape().iter().skip(1).take(1).copied().chain(rest);
            one.reshape(shape.collect::<Shape>()).slice(0, 0..length)
        };
        match self.data.trace().error() {
            Some(_) => vec![self.data.trace().poison(); self.lengths.len()],
            None => self.lengths.iter().enumerate().map(of).collect(),
        }
    }
}

/// Gives the permutation that undoes another: index `permutation[i]` of the result is `i`; `None` if `permutation` is
/// none.
///
/// # Example
///
/// ```
/// # use neurarch_kernels::ops::recurrent::sequence::invert_permutation;
/// assert_eq!(invert_permutation(&[2, 0, 1]), Some(vec![1, 2, 0]));
/// assert_eq!(invert_permutation(&[2, 2, 1]), None);
/// ```
///
/// Source: `torch.nn.utils.rnn.invert_permutation`.
pub fn invert_permutation(permutation: &[usize]) -> Option<Vec<usize>> {
    let mut inverse = vec![None; permutation.len()];
    for (place, &index) in permutation.iter().enumerate() {
        let of = inverse.get_mut(index).filter(|of| of.is_none())?;
        *of = Some(place);
    }
    inverse.into_iter().collect()
}

impl Var {
    /// Takes padded sequences apart.
    ///
    /// # Shape
    ///
    /// `self` is `[T, N, ..]`, or `[N, T, ..]` if `batch_first`; sequence `i` is `[lengths[i], ..]`.
    ///
    /// Source: `torch.nn.utils.rnn.unpad_sequence`, for lengths that are known while tracing.
    pub fn unpad_sequence(&self, lengths: &[usize], batch_first: bool) -> Vec<Var> {
        let packed = PackedSequence {
            batch_first,
            enforce_sorted: false,
            ..PackedSequence::new(self.clone(), lengths)
        };
        packed.unpack_sequence()
    }
}

impl Trace {
    /// Puts sequences side by side, padded with `padding_value` to the length of the longest.
    ///
    /// # Shape
    ///
    /// Sequence `i` is `[lengths[i], ..]`; the result is `[T, N, ..]`, or `[N, T, ..]` if `batch_first`.
    ///
    /// Source: `torch.nn.utils.rnn.pad_sequence`.
    pub fn pad_sequence(
        &self,
        sequences: &[Var],
        batch_first: bool,
        padding_value: f64,
        padding_side: PaddingSide,
    ) -> Var {
        if sequences.is_empty() {
            return self.fail("received an empty list of sequences");
        }
        if self.error().is_some() {
            return self.poison();
        }
        let lengths: Vec<_> =
            sequences.iter().filter_map(|sequence| sequence.shape().first().copied()).collect();
        if lengths.len() != sequences.len() {
            return self.fail("pad_sequence: expected sequences of at least 1 dimension, got 0");
        }
        let (n, total) = (lengths.len(), lengths.iter().copied().max().unwrap_or_default());
        let place = |(sequence, &length): (usize, &usize)| {
            let start = if padding_side == PaddingSide::Left { total - length } else { 0 };
            (start..start + length).map(move |t| match batch_first {
                true => sequence * total + t,
                false => t * n + sequence,
            })
        };
        let places: Vec<_> = lengths.iter().enumerate().flat_map(place).collect();
        let all = Var::cat(&sequences.iter().collect::<Vec<_>>(), 0);
        let padded = all.put_rows(&places, n * total, padding_value);
        let axes = if batch_first { [n, total] } else { [total, n] };
        let rest = all.shape().iter().skip(1).copied();
        padded.reshape(axes.into_iter().chain(rest).collect::<Shape>())
    }

    /// Packs sequences: [`pad_sequence`](Trace::pad_sequence), then their lengths beside the value.
    ///
    /// Source: `torch.nn.utils.rnn.pack_sequence`.
    pub fn pack_sequence(&self, sequences: &[Var], enforce_sorted: bool) -> PackedSequence {
        let data = self.pad_sequence(sequences, false, 0.0, PaddingSide::Right);
        let length = |sequence: &Var| sequence.shape().first().copied().unwrap_or_default();
        let lengths: Vec<_> = sequences.iter().map(length).collect();
        PackedSequence { enforce_sorted, ..PackedSequence::new(data, lengths) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::dtype::Dtype;
    use crate::ir::shape::Type;
    use crate::testing::{Array, check_gradient, evaluate};

    /// The example of torch's documentation.
    fn packed(x: &Var) -> PackedSequence {
        PackedSequence {
            data: x.clone(),
            lengths: vec![2, 1, 3],
            batch_first: true,
            enforce_sorted: false,
        }
    }

    fn x() -> Array {
        Array::new(Dtype::F64, [3, 3], [1.0, 2.0, 9.0, 3.0, 9.0, 9.0, 4.0, 5.0, 6.0])
    }

    #[test]
    fn items_go_by_time_steps_the_longest_sequence_first() {
        let data = |v: &[Var]| packed(&v[0]).steps().map_or(v[0].clone(), |steps| steps.data);
        assert_eq!(evaluate(data, &[x()], &[]).elements, [4.0, 1.0, 3.0, 5.0, 2.0, 6.0]);
        check_gradient(data, &[x()], 1e-6);
    }

    #[test]
    fn sequences_are_padded_as_torch_does() {
        let pad = |v: &[Var]| packed(&v[0]).pad_packed_sequence(true, -1.0, Some(4));
        let expected = [1.0, 2.0, -1.0, -1.0, 3.0, -1.0, -1.0, -1.0, 4.0, 5.0, 6.0, -1.0];
        assert_eq!(evaluate(pad, &[x()], &[]).elements, expected);
        check_gradient(pad, &[x()], 1e-6);
        let through = |v: &[Var]| {
            let sequences = packed(&v[0]).unpack_sequence();
            v[0].trace().pad_sequence(&sequences, false, 0.5, PaddingSide::Left)
        };
        let expected = [0.5, 0.5, 4.0, 1.0, 0.5, 5.0, 2.0, 3.0, 6.0];
        assert_eq!(evaluate(through, &[x()], &[]).elements, expected);
    }

    #[test]
    fn what_cannot_be_packed_is_refused_in_torchs_words() {
        let error = |lengths: &[usize], enforce_sorted: bool| {
            let trace = Trace::new();
            let x = trace.input(Type::new(Dtype::F32, [5, 2, 3]));
            let _ = PackedSequence { enforce_sorted, ..PackedSequence::new(x, lengths) }.steps();
            trace.error().map(|error| error.message).unwrap_or_default()
        };
        assert_eq!(
            error(&[5], true),
            "Expected `len(lengths)` to be equal to batch_size, but got 1 (batch_size=2)"
        );
        assert!(error(&[3, 5], true).starts_with("`lengths` array must be sorted in decreasing"));
        assert!(error(&[5, 0], false).starts_with("Length of all samples has to be greater than"));
        assert_eq!(error(&[6, 1], true), "Expected lengths of at most 5, got 6");
        assert_eq!(error(&[3, 5], false), "");
        let trace = Trace::new();
        let _ = trace.pack_sequence(&[], true);
        let error = trace.error().map(|error| error.message);
        assert_eq!(error.as_deref(), Some("received an empty list of sequences"));
    }
}
