//! Reading numbers in the middle of a `forward`: only a recording that computes each op has them.

use super::{Recorder, Trace, Var};
use crate::ir::dtype::{Dtype, Element, bf16, f16};

/// What a recording without numbers says.
const NOT_COMPUTED: &str = "expected a pass that computes each op at once: while a program is only recorded, a value has no numbers to read";

impl Trace {
    /// Reads the number of a value that has one: a flag as 0 or 1, a whole number rounded to the next `f64`.
    ///
    /// A plan is recorded before there are numbers. So a `forward` that reads one makes its models' passes run op by op,
    /// one model after another, in which it may branch on what it reads. Nobody has to ask for that: the first recording
    /// ends at the value that is read, and the pass is recorded again with numbers. What is read is a number, no value: no
    /// gradient goes through it.
    ///
    /// `None` after an error, and where the recording has no numbers: then `forward` gives any value, such as
    /// [`poison`](Trace::poison). A value that has not one number is an error of the recording, in torch's words.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_kernels::ir::eager::Eager;
    /// # use neurarch_kernels::ir::trace::{Trace, Var};
    /// /// Halves a value until its norm is at most 1.
    /// fn shrink(trace: &Trace, mut x: Var) -> Var {
    ///     loop {
    ///         let Some(norm) = trace.item(&x.square().sum(&[], false)) else { return trace.poison() };
    ///         if norm <= 1.0 {
    ///             return x;
    ///         }
    ///         x = x * 0.5;
    ///     }
    /// }
    ///
    /// let trace = Trace::eager(Eager::new(1, Vec::new()));
    /// let x = trace.input_of([2], &[3.0_f32, 4.0]);
    /// assert_eq!(shrink(&trace, x.clone()).read::<f32>()?, [0.375, 0.5]);
    /// assert_eq!(trace.item(&x), None);
    /// let error = trace.error().unwrap();
    /// assert_eq!(error.message, "a Tensor with 2 elements cannot be converted to Scalar");
    ///
    /// // Without numbers the recording knows that it needs some.
    /// let trace = Trace::new();
    /// shrink(&trace, trace.input(x.ty().clone()));
    /// assert!(trace.error().unwrap().needs_values);
    /// # Ok::<(), neurarch_kernels::ir::eager::ReadError>(())
    /// ```
    ///
    /// Source: `torch.Tensor.item`.
    pub fn item(&self, x: &Var) -> Option<f64> {
        let numel = x.shape().numel();
        if x.id.is_some() && numel != 1 {
            self.fail(format!("a Tensor with {numel} elements cannot be converted to Scalar"));
        }
        self.numbers(x)?.first().copied()
    }

    /// Reads all numbers of a value, row-major, as [`item`](Trace::item) reads one. Elements that are not `T` are an error
    /// of the recording.
    ///
    /// Source: `torch.Tensor.tolist`, which nests.
    pub fn tolist<T: Element>(&self, x: &Var) -> Option<Vec<T>> {
        if x.id.is_some() && x.dtype() != T::DTYPE {
            self.fail(format!("expected elements of {}, found {}", T::DTYPE, x.dtype()));
        }
        Some(bytemuck::pod_collect_to_vec(&self.bytes(x)?))
    }

    /// Reads whether the number of a value that has one is not 0: what `if x:` asks in Python. As
    /// [`item`](Trace::item).
    ///
    /// Source: `torch.is_nonzero`.
    pub fn is_nonzero(&self, x: &Var) -> Option<bool> {
        let ambiguous = match x.shape().numel() {
            0 => Some("no values"),
            1 => None,
            _ => Some("more than one value"),
        };
        if let Some(what) = ambiguous.filter(|_| x.id.is_some()) {
            self.fail(format!("Boolean value of Tensor with {what} is ambiguous"));
        }
        Some(*self.numbers(x)?.first()? != 0.0)
    }

    /// Reads whether two values have the same shape and equal numbers, in `f64`. As [`item`](Trace::item).
    ///
    /// Source: `torch.equal`.
    pub fn equal(&self, a: &Var, b: &Var) -> Option<bool> {
        let (of_a, of_b) = (self.numbers(a)?, self.numbers(b)?);
        Some(a.shape() == b.shape() && of_a == of_b)
    }

    /// Reads the numbers of a value of one model.
    fn numbers(&self, x: &Var) -> Option<Vec<f64>> {
        let bytes = self.bytes(x)?;
        Some(match x.dtype() {
            Dtype::F32 => widened::<f32>(&bytes, f64::from),
            Dtype::F64 => widened::<f64>(&bytes, |x| x),
            Dtype::F16 => widened::<f16>(&bytes, f64::from),
            Dtype::BF16 => widened::<bf16>(&bytes, f64::from),
            Dtype::I64 => widened::<i64>(&bytes, |x| x as f64),
            Dtype::Bool => widened::<u8>(&bytes, f64::from),
        })
    }

    /// Copies the elements of a value of one model.
    fn bytes(&self, x: &Var) -> Option<Vec<u8>> {
        let id = self.own(x.clone()).id?;
        if self.error().is_some() {
            return None;
        }
        let models = self.values().map(|values| values.models());
        let missing = match models {
            Some(1) => {
                let read = self.values()?.read_bytes(id).map(|(_, bytes)| bytes);
                return read.map_err(|error| self.fail(error.to_string())).ok();
            }
            Some(models) => format!(
                "expected to read the numbers of one model, found those of {models} in one recording"
            ),
            None => NOT_COMPUTED.to_owned(),
        };
        self.0.borrow_mut().need_values(missing);
        None
    }
}

impl Recorder {
    /// Keeps the error that numbers are read which the recording does not have.
    fn need_values(&mut self, message: String) {
        self.fail(message);
        self.error.iter_mut().for_each(|error| error.needs_values = true);
    }
}

/// Gives numbers as `f64`.
fn widened<T: Element>(bytes: &[u8], widen: impl Fn(T) -> f64) -> Vec<f64> {
    bytemuck::pod_collect_to_vec::<u8, T>(bytes).into_iter().map(widen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::eager::Eager;
    use crate::ir::shape::Type;

    fn one_model() -> Trace {
        Trace::eager(Eager::new(1, Vec::new()))
    }

    fn message(trace: &Trace) -> String {
        trace.error().unwrap().message
    }

    #[test]
    fn numbers_of_every_type_are_read() {
        let trace = one_model();
        assert_eq!(trace.item(&trace.input_of([], &[1.5_f32])), Some(1.5));
        assert_eq!(trace.item(&trace.input_of([1, 1], &[0.1_f64])), Some(0.1));
        assert_eq!(trace.item(&trace.input_of([], &[-7_i64])), Some(-7.0));
        assert_eq!(trace.item(&trace.input_of([], &[f16::from_f32(0.25)])), Some(0.25));
        assert_eq!(trace.item(&trace.input_of([], &[bf16::from_f32(2.0)])), Some(2.0));
        let x = trace.input_of([2, 2], &[1_i64, 2, 3, 4]);
        assert_eq!(trace.tolist::<i64>(&x), Some(vec![1, 2, 3, 4]));
        assert_eq!(trace.is_nonzero(&trace.input_of([], &[f32::NAN])), Some(true));
        assert_eq!(trace.is_nonzero(&trace.input_of([1], &[-0.0_f32])), Some(false));
        let one = trace.input_of([2], &[1.0_f32, 2.0]);
        assert_eq!(trace.equal(&one, &(&one * 1.0)), Some(true));
        assert_eq!(trace.equal(&one, &(&one * 2.0)), Some(false));
        assert_eq!(trace.equal(&one, &one.reshape([1, 2])), Some(false));
        assert_eq!(trace.error(), None);
    }

    #[test]
    fn what_is_no_single_number_is_an_error_in_the_words_of_torch() {
        type Read = fn(&Trace, &Var) -> bool;
        let cases: [(usize, Read, &str); 4] = [
            (
                3,
                |t, x| t.item(x).is_some(),
                "a Tensor with 3 elements cannot be converted to Scalar",
            ),
            (
                0,
                |t, x| t.item(x).is_some(),
                "a Tensor with 0 elements cannot be converted to Scalar",
            ),
            (
                2,
                |t, x| t.is_nonzero(x).is_some(),
                "Boolean value of Tensor with more than one value is ambiguous",
            ),
            (
                0,
                |t, x| t.is_nonzero(x).is_some(),
                "Boolean value of Tensor with no values is ambiguous",
            ),
        ];
        for (numel, read, expected) in cases {
            for trace in [one_model(), Trace::new()] {
                let x = trace.input(Type::new(Dtype::F32, [numel]));
                assert!(!read(&trace, &x));
                assert_eq!(message(&trace), expected);
                assert!(!trace.error().unwrap().needs_values, "no numbers would help");
            }
        }
        let trace = one_model();
        assert_eq!(trace.tolist::<f64>(&trace.input_of([], &[1.0_f32])), None);
        assert_eq!(message(&trace), "expected elements of f64, found f32");
    }

    #[test]
    fn a_recording_without_the_numbers_of_one_model_says_that_it_needs_them() {
        let trace = Trace::new();
        let x = trace.input(Type::new(Dtype::F32, []));
        trace.scope("gate", "Gate", || assert_eq!(trace.item(&x), None));
        assert_eq!(trace.item(&x), None);
        let error = trace.error().unwrap();
        assert!(
            error.needs_values && error.to_string().starts_with("gate (Gate): expected a pass")
        );

        let trace = Trace::eager(Eager::new(2, Vec::new()));
        let x = trace.input_of([], &[1.0_f32, 2.0]);
        assert_eq!(trace.item(&x), None);
        let error = trace.error().unwrap();
        assert!(error.needs_values && error.message.ends_with("those of 2 in one recording"));

        let trace = one_model();
        let x = trace.input_of([], &[1.0_f32]);
        let _ = trace.fail("no such gate");
        assert_eq!(trace.item(&x), None);
        assert_eq!(
            (message(&trace).as_str(), trace.error().unwrap().needs_values),
            ("no such gate", false)
        );
    }
}
