//! [`DevicePlan`]: a plan's program as device code: the same steps, layouts and places as the CPU's.

use super::{MadeOf, Planner, Step};
use crate::device::code::{Cuda, DeviceCode};
use crate::ir::op::{Op, OpError, ask};
use crate::ir::program::Program;
use crate::ir::shape::Operand;
pub use crate::plan::{Location, PlacedView};

/// The steps of a program on a device, and the memory of one model.
#[derive(Debug)]
pub struct DevicePlan {
    /// What happens, in order.
    pub steps: Vec<DeviceStep>,
    /// Numbers known while tracing.
    pub constants: Vec<u8>,
    /// Bytes of arena that one model needs.
    pub arena_bytes: usize,
    /// Bytes of scratch memory that the neediest step needs.
    pub scratch_bytes: usize,
}

/// One call.
#[derive(Debug)]
pub struct DeviceStep {
    /// The op's name.
    pub op: &'static str,
    /// What is called.
    pub code: DeviceCode,
    /// The inputs, then the outputs.
    pub operands: Vec<PlacedView>,
}

impl DevicePlan {
    /// Lays out `program`, which passes are done with: a [plan's](crate::plan::Plan::program).
    ///
    /// # Errors
    ///
    /// If an op has no device code, naming it and the path of the module that called it, or a model's values need more
    /// memory than there is.
    pub fn new(program: &Program) -> Result<DevicePlan, OpError> {
        let mut planner = Planner::new(program, prepare)?;
        planner.run().map_err(|error| planner.named(error))?;
        let arena_bytes = planner.arena.checked_size()?;
        let Planner { views, steps, constants, scratch_bytes, .. } = planner;
        let steps = steps.into_iter().map(|step| {
            let Step { kernel: (op, code), inputs, outputs, .. } = step;
            let operands =
                inputs.iter().chain(&outputs).map(|&view| views[view as usize]).collect();
            DeviceStep { op, code, operands }
        });
        Ok(DevicePlan { steps: steps.collect(), constants, arena_bytes, scratch_bytes })
    }
}

impl Planner<'_, (&'static str, DeviceCode)> {
    /// Names the module whose op failed: that of the node after the last one that has a step.
    fn named(&self, error: OpError) -> OpError {
        let done = self.steps.iter().rev().find_map(|step| match step.made_of {
            MadeOf::Node(node) => Some(node + 1),
            MadeOf::Copy(_) => None,
        });
        let scope = self.program.nodes.get(done.unwrap_or(0)).map(|node| node.scope);
        let scope = scope.and_then(|scope| self.program.scopes.get(scope));
        match scope.filter(|scope| !scope.module.is_empty()) {
            Some(scope) => OpError(format!("{} ({}): {error}", scope.path, scope.module)),
            None => error,
        }
    }
}

fn prepare(
    op: &dyn Op,
    inputs: &[Operand],
    outputs: &[Operand],
) -> Result<((&'static str, DeviceCode), usize), OpError> {
    // Of no elements there is nothing to compute.
    if outputs.iter().all(|output| output.ty.shape.numel() == 0) {
        return Ok(((op.name(), DeviceCode::default()), 0));
    }
    let code = ask::kernel::<Cuda>(op, inputs, outputs)?;
    let scratch_bytes = code.scratch_bytes;
    Ok(((op.name(), *code), scratch_bytes))
}
