//! Recordings of inputs alone, used again for other numbers.

use std::rc::Rc;

use super::Trace;
use crate::cpu::tile::Key;

impl Trace {
    /// Counts the handles of this recording, its values included: what [`refill`](Trace::refill) compares.
    pub fn handles(&self) -> usize {
        Rc::strong_count(&self.0)
    }

    /// Gives the inputs of an eager recording other numbers, and its models other random states; says whether it did.
    ///
    /// That is as good as a new recording, but allocates nothing. So it is refused where somebody could tell the
    /// difference: where more was recorded than inputs, an error came, or there are not `handles` handles, since
    /// then somebody else holds a value.
    ///
    /// `rows` are rows of bytes: those of the first input, one for each model, then those of the second. If they do not
    /// fit, it is refused as well, and the numbers are any.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_kernels::ir::eager::Eager;
    /// # use neurarch_kernels::ir::trace::Trace;
    /// let trace = Trace::eager(Eager::new(1, Vec::new()));
    /// let x = trace.input_of([2], &[1.0_f32, 2.0]);
    /// let handles = trace.handles();
    /// let rows = [[3.0_f32, 4.0]];
    /// assert!(trace.refill(handles, &[], rows.iter().map(|row| bytemuck::cast_slice(row))));
    /// assert_eq!(x.read::<f32>(), Ok(vec![3.0, 4.0]));
    /// let y = x.exp();
    /// assert!(!trace.refill(handles, &[], rows.iter().map(|row| bytemuck::cast_slice(row))));
    /// # drop(y);
    /// ```
    #[must_use]
    pub fn refill<'a>(
        &self,
        handles: usize,
        keys: &[Key],
        rows: impl Iterator<Item = &'a [u8]>,
    ) -> bool {
        if self.handles() != handles {
            return false;
        }
        let mut recorder = self.0.borrow_mut();
        let program = &mut recorder.program;
        let are_inputs = program.values.len() == program.inputs.len()
            && program.nodes.is_empty()
            && program.slots.is_empty()
            && program.scalars.is_empty();
        if !are_inputs || recorder.error.is_some() || !recorder.open.is_empty() {
            return false;
        }
        recorder.program.scopes.clear();
        recorder.calls.values_mut().for_each(|calls| *calls = 0);
        recorder.eager.as_mut().is_some_and(|eager| eager.refill(keys, rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::eager::Eager;

    fn bytes(rows: &[[f32; 2]]) -> impl Iterator<Item = &[u8]> {
        rows.iter().map(|row| bytemuck::cast_slice(row))
    }

    #[test]
    fn a_recording_of_inputs_alone_takes_other_numbers() {
        let trace = Trace::eager(Eager::new(2, Vec::new()));
        let x = trace.input_of([2], &[0.0_f32; 4]);
        let y = trace.input_of([2], &[0.0_f32; 4]);
        let handles = trace.handles();
        trace.scope("0", "Linear", || ());
        let rows = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]];
        assert!(trace.refill(handles, &[], bytes(&rows)));
        assert!(trace.program().scopes.is_empty());
        assert_eq!(x.read::<f32>(), Ok(vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!(y.read::<f32>(), Ok(vec![5.0, 6.0, 7.0, 8.0]));
        assert_eq!((&x + &y).read::<f32>(), Ok(vec![6.0, 8.0, 10.0, 12.0]));
    }

    #[test]
    fn a_recording_whose_values_somebody_holds_or_that_went_on_is_refused() {
        let new = || {
            let trace = Trace::eager(Eager::new(1, Vec::new()));
            let x = trace.input_of([2], &[0.0_f32; 2]);
            let handles = trace.handles();
            (trace, x, handles)
        };
        let rows = [[1.0, 2.0]];
        let (trace, x, handles) = new();
        let held = x.clone();
        assert!(!trace.refill(handles, &[], bytes(&rows)));
        drop(held);
        assert!(trace.refill(handles, &[], bytes(&rows)));
        assert!(!trace.refill(handles, &[], bytes(&[])), "too few rows");
        assert!(!trace.refill(handles, &[], bytes(&[rows[0]; 2])), "too many");
        drop(trace.input_of([2], &[0.0_f32; 2]));
        assert!(!trace.refill(handles, &[], bytes(&rows)), "another input needs another row");
        let ways: [fn(&Trace); 3] = [
            |trace| drop(trace.rand(crate::ir::dtype::Dtype::F32, [2])),
            |trace| drop(trace.constant(1.0, crate::ir::dtype::Dtype::F32, [2])),
            |trace| drop(trace.fail("no")),
        ];
        for way in ways {
            let (trace, _x, handles) = new();
            way(&trace);
            assert!(!trace.refill(handles, &[], bytes(&rows)));
        }
    }
}
