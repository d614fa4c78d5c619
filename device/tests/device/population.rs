//! A population of models with random numbers, run by the CPU's executor.
#![expect(unsafe_code, reason = "the executor takes addresses; everything here is owned")]

use neurarch_kernels::cpu::tile::Rows;
use neurarch_kernels::execute::executor::{Binding, Sink, Source, Stage};
use neurarch_kernels::execute::queue::{self, Direction, Work};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Program, Role};
use neurarch_kernels::ir::rng_key::RngKey;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::memory::{AlignedBytes, padded};
use neurarch_kernels::plan::Plan;

/// A row for each model, with the numbers of some steps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column {
    pub(crate) bytes: Vec<u8>,
    /// Bytes of a row.
    pub(crate) row: usize,
    /// Bytes of a step within a row.
    pub(crate) step: usize,
    pub(crate) ty: Type,
}

/// Numbers of a population, before or after it ran.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Population {
    /// Slots, inputs, outputs.
    pub(crate) columns: [Vec<Column>; 3],
    /// The value of scalar `s` for model `m` at `s · models + m`.
    pub(crate) scalars: Vec<f64>,
    pub(crate) models: usize,
    /// How many steps the inputs have.
    pub(crate) steps: usize,
}

/// A generator of numbers that is the same on all machines.
struct Random(u64);

impl Random {
    /// In `-1..1`.
    fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f64 / (1_u64 << 23) as f64 - 1.0
    }
}

impl Column {
    fn new(ty: &Type, models: usize, steps: usize) -> Column {
        let step = ty.size_bytes().next_multiple_of(16);
        let row = padded((step * steps).max(1));
        Column { bytes: vec![0; row * models], row, step, ty: ty.clone() }
    }

    /// Where the elements of all models and steps begin.
    pub(crate) fn elements(&self, models: usize, steps: usize) -> Vec<usize> {
        let size = self.ty.dtype.size_bytes();
        let starts = (0..models).flat_map(|m| (0..steps).map(move |s| (m, s)));
        starts
            .flat_map(|(m, s)| {
                (0..self.ty.shape.numel()).map(move |i| m * self.row + s * self.step + i * size)
            })
            .collect()
    }

    fn fill(&mut self, models: usize, steps: usize, mut number: impl FnMut() -> f64) {
        for at in self.elements(models, steps) {
            let (x, to) = (number(), &mut self.bytes[at..]);
            match self.ty.dtype {
                Dtype::F32 => to[..4].copy_from_slice(&(x as f32).to_ne_bytes()),
                Dtype::F64 => to[..8].copy_from_slice(&x.to_ne_bytes()),
                Dtype::I64 => to[..8].copy_from_slice(&(x as i64).to_ne_bytes()),
                _ => to[0] = u8::from(x > 0.0),
            }
        }
    }
}

impl Population {
    /// Makes models with random parameters and inputs; i64 inputs are below `classes`.
    pub(crate) fn new(
        program: &Program,
        models: usize,
        steps: usize,
        classes: usize,
    ) -> Population {
        let mut random = Random(7);
        let column = |ty: &Type, steps| Column::new(ty, models, steps);
        let mut slots: Vec<_> = program.slots.iter().map(|slot| column(&slot.ty, 1)).collect();
        for (slot, of) in slots.iter_mut().zip(&program.slots) {
            if of.role == Role::Parameter {
                slot.fill(models, 1, || random.next() / 2.0);
            }
        }
        let mut inputs: Vec<_> = program.inputs.iter().map(|ty| column(ty, steps)).collect();
        for input in &mut inputs {
            let whole = input.ty.dtype == Dtype::I64;
            input.fill(models, steps, || match (random.next(), whole) {
                (x, true) => (x.abs() * classes as f64).floor().min(classes as f64 - 1.0),
                (x, false) => 2.0 * x,
            });
        }
        let outputs = program.outputs.iter().map(|&id| column(program.ty(id), steps)).collect();
        let scalar = |name: &str, model: usize| match name {
            "lr" => 0.01 * (1.0 + (model % 8) as f64 / 8.0),
            "beta1" => 0.9,
            "beta2" => 0.999,
            "eps" => 1e-8,
            "momentum" | "alpha" | "rho" => 0.9,
            "etaminus" => 0.5,
            "etaplus" => 1.2,
            "step_size_min" => 1e-6,
            "step_size_max" => 50.0,
            _ => 0.01,
        };
        let scalars = program.scalars.iter();
        let scalars =
            scalars.flat_map(|s| (0..models).map(move |model| scalar(s.name, model))).collect();
        Population { columns: [slots, inputs, outputs], scalars, models, steps }
    }

    /// Runs all steps by the CPU's executor.
    pub(crate) fn run_on_cpu(&mut self, plan: &Plan) {
        let mut aligned = self.columns.each_ref().map(|columns| {
            let copy = |column: &Column| {
                let mut bytes = AlignedBytes::new(column.bytes.len());
                bytes.bytes_mut()[..column.bytes.len()].copy_from_slice(&column.bytes);
                bytes
            };
            columns.iter().map(copy).collect::<Vec<_>>()
        });
        let mut rows = [Vec::new(), Vec::new(), Vec::new()];
        for ((rows, bytes), columns) in rows.iter_mut().zip(&mut aligned).zip(&self.columns) {
            rows.extend(bytes.iter_mut().zip(columns).map(|(bytes, column)| {
                (Rows::Strided { base: bytes.as_mut_ptr(), stride: column.row }, column.step)
            }));
        }
        let [slots, inputs, outputs] = rows;
        let slots: Vec<_> = slots.into_iter().map(|(rows, _)| rows).collect();
        let source = |(rows, step_bytes)| Source { rows, step_bytes, gather: None };
        let inputs: Vec<_> = inputs.into_iter().map(source).collect();
        let outputs: Vec<_> =
            outputs.into_iter().map(|(rows, step_bytes)| Sink { rows, step_bytes }).collect();
        let keys: Vec<_> =
            (0..self.models as u64).map(|number| RngKey { number, ..RngKey::default() }).collect();
        let binding = Binding {
            models: self.models,
            slots: &slots,
            inputs: &inputs,
            outputs: &outputs,
            scalars: &self.scalars,
            keys: &keys,
        };
        let stages = [Stage { plan, binding, first_step: 0, steps: self.steps }];
        // SAFETY: all rows are of buffers above, aligned, with a row of the program's type for each model and step.
        unsafe { queue::run(&mut [Work::new(&stages)], Direction::Up) };
        for (columns, bytes) in self.columns.iter_mut().zip(&aligned) {
            for (column, bytes) in columns.iter_mut().zip(bytes) {
                let len = column.bytes.len();
                column.bytes.copy_from_slice(&bytes.bytes()[..len]);
            }
        }
    }
}
