//! What a recording warns of.

use super::Trace;
use crate::ir::program::Warning;

impl Trace {
    /// Warns of something at the open module call. The program has the warning; who records it passes it on.
    ///
    /// # Example
    ///
    /// ```
    /// # use neurarch_kernels::ir::trace::Trace;
    /// let trace = Trace::new();
    /// trace.warn("the input is large");
    /// assert_eq!(trace.finish(&[])?.warnings[0].message, "the input is large");
    /// # Ok::<(), neurarch_kernels::ir::trace::TraceError>(())
    /// ```
    ///
    /// Source: Python's `warnings.warn`.
    pub fn warn(&self, message: impl Into<String>) {
        let mut recorder = self.0.borrow_mut();
        let open = recorder.open.last().and_then(|&scope| recorder.program.scopes.get(scope));
        let warning =
            Warning { module: open.map_or("", |scope| scope.module), message: message.into() };
        recorder.program.warnings.push(warning);
    }
}
