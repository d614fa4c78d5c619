//! Running what `build` records as a plan, for a population.
#![expect(unsafe_code, reason = "the executor takes addresses; everything here is owned")]

use super::{Array, read, record, write};
use crate::cpu::tile::Rows;
use crate::execute::executor::{Binding, Sink, Source, Stage};
use crate::execute::queue;
use crate::execute::queue::{Direction, Work};
use crate::ir::program::Program;
use crate::ir::rng_key::RngKey;
use crate::ir::shape::{Operand, Type};
use crate::ir::trace::Var;
use crate::memory::{AlignedBytes, padded};
use crate::plan::{Plan, PlanOptions};

/// Records `build`, plans it and runs it for a population on the current rayon pool; `models[m]` are the
/// inputs of model `m`. Gives the outputs of each model.
///
/// # Panics
///
/// If it cannot be recorded, or the models' inputs differ in type.
pub fn planned(build: impl Fn(&[Var]) -> Vec<Var>, models: &[Vec<Array>]) -> Vec<Vec<Array>> {
    let (trace, vars) = record(&models[0]);
    let outputs = build(&vars);
    let program = trace.finish(&outputs).unwrap_or_else(|error| panic!("{error}"));
    planned_program(program, models)
}

/// Plans a program of inputs and constants and runs it for a population on the current rayon pool, as [`planned`].
///
/// # Panics
///
/// If it cannot be planned, or the models' inputs differ in type.
pub fn planned_program(program: Program, models: &[Vec<Array>]) -> Vec<Vec<Array>> {
    let plan = Plan::new(program, &PlanOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let inputs: Vec<_> = (0..plan.program.inputs.len())
        .map(|input| Buffer::of(models.iter().map(|arrays| &arrays[input])))
        .collect();
    let mut outputs: Vec<_> = plan
        .program
        .outputs
        .iter()
        .map(|&id| Buffer::new(plan.program.ty(id).clone(), models.len()))
        .collect();
    let sources: Vec<_> = inputs
        .iter()
        .map(|input| Source { rows: input.rows(), step_bytes: 0, gather: None })
        .collect();
    let sinks: Vec<_> =
        outputs.iter_mut().map(|out| Sink { rows: out.rows_mut(), step_bytes: 0 }).collect();
    let keys: Vec<_> =
        (0..models.len() as u64).map(|number| RngKey { number, ..RngKey::default() }).collect();
    let binding = Binding {
        models: models.len(),
        slots: &[],
        inputs: &sources,
        outputs: &sinks,
        scalars: &[],
        keys: &keys,
    };
    let stages = [Stage { plan: &plan, binding, first_step: 0, steps: 1 }];
    // SAFETY: all rows are of buffers above, which have a row of the program's type for each model; there are
    // no slots, and `Work::new` asserts that the program has none.
    unsafe { queue::run(&mut [Work::new(&stages)], Direction::Up) };
    (0..models.len())
        .map(|model| outputs.iter().map(|output| output.array(model)).collect())
        .collect()
}

/// A row-major row for each model.
struct Buffer {
    operand: Operand,
    bytes: AlignedBytes,
    stride: usize,
}

impl Buffer {
    fn new(ty: Type, models: usize) -> Self {
        let stride = padded(ty.size_bytes().max(1));
        let bytes = AlignedBytes::new(stride * models);
        Buffer { operand: Operand::row_major(ty), bytes, stride }
    }

    fn of<'a>(arrays: impl ExactSizeIterator<Item = &'a Array> + Clone) -> Self {
        let first = arrays.clone().next().expect("a population has models");
        let mut buffer = Buffer::new(first.ty.clone(), arrays.len());
        let size = first.ty.size_bytes();
        for (model, array) in arrays.enumerate() {
            assert_eq!(array.ty, first.ty, "models of one population have inputs of one type");
            let row = write(&buffer.operand, &array.elements);
            let start = model * buffer.stride;
            buffer.bytes.bytes_mut()[start..start + size].copy_from_slice(&row.bytes()[..size]);
        }
        buffer
    }

    /// Rows to be read.
    fn rows(&self) -> Rows<'static> {
        Rows::Strided { base: self.bytes.as_ptr().cast_mut(), stride: self.stride }
    }

    fn rows_mut(&mut self) -> Rows<'static> {
        Rows::Strided { base: self.bytes.as_mut_ptr(), stride: self.stride }
    }

    fn array(&self, model: usize) -> Array {
        let row = &self.bytes.bytes()[model * self.stride..];
        Array { ty: self.operand.ty.clone(), elements: read(&self.operand, row) }
    }
}
