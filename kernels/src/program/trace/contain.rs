//! Panics of what users wrote, as errors of a recording.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Trace;

impl Trace {
    /// Runs what a user wrote, named by `who`: a panic becomes an error at the open module call, and there is no
    /// result. What was recorded before it is valid.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_kernels::ir::trace::Trace;
    /// let trace = Trace::new();
    /// let result: Option<u8> = trace.contain("forward", || panic!("no such gate"));
    /// assert_eq!(result, None);
    /// assert_eq!(trace.error().unwrap().to_string(), "forward panicked: no such gate");
    /// ```
    pub fn contain<R>(&self, who: impl Display, run: impl FnOnce() -> R) -> Option<R> {
        let (open, autocast, is_closed) = {
            let recorder = self.0.borrow();
            (recorder.open.len(), recorder.autocast, recorder.is_closed)
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(result) => Some(result),
            Err(panic) => {
                let mut recorder = self.0.borrow_mut();
                recorder.open.truncate(open);
                (recorder.autocast, recorder.is_closed) = (autocast, is_closed);
                recorder.fail(format!("{who} {}", panic_message(&*panic)));
                None
            }
        }
    }
}

/// Says what a panic said.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_default())
}
