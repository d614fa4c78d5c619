//! Recordings that the CPU computes as they are recorded: the kernels of plans, an op at a time.
#![expect(unsafe_code, reason = "tiles are put together from buffers of an eager recording")]

use smallvec::SmallVec;

use crate::cpu::kernel;
use crate::cpu::tile::{Rows, Tile, View};
use crate::ir::eager::{Compute, Draws, Eager, FEW, Memory, Value, stride};
use crate::ir::op::claims::{Claims, Operands};
use crate::ir::op::{Op, OpError, claims};
use crate::ir::rng_key::RngKey;
use crate::ir::shape::Type;
use crate::ops::shape::contiguous::Contiguous;

impl Eager {
    /// Prepares for `models` models, with a random state each (or none at all if no op draws), computed on the CPU.
    pub fn new(models: usize, keys: Vec<RngKey>) -> Self {
        Eager::on(&OnCpu, models, keys)
    }
}

/// Of no models.
impl Default for Eager {
    fn default() -> Self {
        Eager::new(0, Vec::new())
    }
}

struct OnCpu;

impl Compute for OnCpu {
    fn compute(
        &self,
        op: &dyn Op,
        inputs: &[&Value],
        types: &[Type],
        draws: Draws<'_>,
        memory: &mut Memory,
    ) -> Result<SmallVec<[Value; FEW]>, OpError> {
        let Draws { models, keys, draw } = draws;
        let operands: Operands = inputs.iter().map(|value| value.operand.clone()).collect();
        let in_place = match op.in_place() {
            [] => SmallVec::new(),
            _ => {
                let given: Vec<_> = operands.iter().map(|operand| operand.ty.clone()).collect();
                Claims::of(op, &given, types)?.in_place
            }
        };
        let made = claims::outputs(op, &operands, types)?;
        let (kernel, scratch_bytes) = kernel::prepare(op, &operands, &made)?;
        memory.scratch.reserve(scratch_bytes);
        let mut outputs: SmallVec<[Value; FEW]> = SmallVec::new();
        for operand in made {
            let rows = memory.rows(operand.ty.size_bytes(), models)?;
            outputs.push(Value { rows, operand });
        }
        let mut views: SmallVec<[View<'_>; 2 * FEW]> =
            inputs.iter().map(|value| view(value, models)).collect();
        for (input, output) in in_place {
            // Buffers may be longer than their rows.
            let from = inputs[input].rows.bytes();
            let to = outputs[output].rows.bytes_mut();
            let all = from.len().min(to.len());
            to[..all].copy_from_slice(&from[..all]);
            views[input] = View::ELSEWHERE;
        }
        views.extend(outputs.iter_mut().map(|value| {
            let base = value.rows.as_mut_ptr();
            let rows = Rows::Strided { base, stride: stride(&value.operand.ty) };
            View { rows, ..view(value, models) }
        }));
        let ids: SmallVec<[u32; 2 * FEW]> = (0..views.len() as u32).collect();
        let (of_inputs, of_outputs) = ids.split_at(inputs.len());
        // SAFETY: every view is of a buffer with a row of its type for each model, asserted by `view`. Outputs are
        // buffers of their own; an input that one of them was copied from is no view. Scratch memory is zeroed when it
        // is made.
        let mut tile = unsafe {
            Tile::new(models, &views, of_inputs, of_outputs, memory.scratch.bytes_mut())
                .with_keys(keys, draw)
        };
        claims::contained(op, || kernel.run(&mut tile))?;
        Ok(outputs)
    }

    fn row_major(
        &self,
        value: &Value,
        models: usize,
        memory: &mut Memory,
    ) -> Result<Value, OpError> {
        let ty = std::slice::from_ref(&value.operand.ty);
        let draws = Draws { models, keys: &[], draw: 0 };
        Ok(self.compute(&Contiguous, &[value], ty, draws, memory)?.swap_remove(0))
    }
}

fn view(value: &Value, models: usize) -> View<'static> {
    let ty = &value.operand.ty;
    let stride = stride(ty);
    assert!(value.rows.len() >= models * stride, "a value has a row for each model");
    View {
        rows: Rows::Strided { base: value.rows.as_ptr().cast_mut(), stride },
        numel: ty.shape.numel(),
        element_bytes: ty.dtype.size_bytes(),
    }
}
