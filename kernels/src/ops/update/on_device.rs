//! The device code of update rules: a loop over the parameter, whose rule comes from a file.

use crate::device::POWER;
use crate::device::code::{Definition, DeviceCode, element};
use crate::ir::shape::Operand;

/// A rule in CUDA C++: a struct `name_rule<number, flags …>`, made of the step, the rates and, if it reads them, the first
/// elements of the states.
pub(super) struct OnDevice<'a> {
    pub(super) name: &'static str,
    /// The file that defines the struct.
    pub(super) text: &'static str,
    pub(super) flags: &'a [(&'static str, bool)],
    pub(super) reads_states: bool,
}

impl OnDevice<'_> {
    /// Returns the device code: parameter, states and counts are changed in the outputs.
    pub(super) fn code(
        &self,
        index: usize,
        (states, rates): (usize, usize),
        outputs: &[Operand],
    ) -> DeviceCode {
        let (number, numel) = (element(&outputs[0]), outputs[0].ty.shape.numel());
        let first = 3 + states + rates;
        let flags: String = self.flags.iter().map(|(_, is_set)| format!(", {is_set}")).collect();
        let rates: String = (0..rates).map(|i| format!(", {{{}}}[0]", 3 + states + i)).collect();
        let own: String = (0..states).map(|i| format!(", {{{}}}", first + 1 + i)).collect();
        let read = match self.reads_states {
            true => (0..states).map(|i| format!(", {{{}}}[0]", first + 1 + i)).collect(),
            false => String::new(),
        };
        let call = format!(
            "update<T, {numel}, {}>(t, {}_rule<{number}{flags}>(next_step<T>(t, {{{}}} + {index}){rates}{read}), {{{first}}}, \
             {{1}}{own});",
            self.reads_states,
            self.name,
            first + 1 + states
        );
        let definitions = vec![
            Definition::file("power", POWER),
            Definition::file("rule", include_str!("device/rule.cu")),
            Definition::file(&format!("rule_{}", self.name), self.text),
        ];
        DeviceCode { definitions, call, scratch_bytes: 0, width: numel }
    }
}
