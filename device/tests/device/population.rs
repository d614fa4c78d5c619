//! A population of models with random numbers, run by the CPU's executor and by the interpreter.
#![expect(unsafe_code, reason = "the executor takes addresses; everything here is owned")]

use neurarch_device::emit::{Parameter, Source as Text};
use neurarch_device::plan::{Placement, Way};
use neurarch_kernels::cpu::tile::Rows;
use neurarch_kernels::execute::executor::{Binding, Sink, Source, Stage};
use neurarch_kernels::execute::queue::{self, Direction, Work};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::Role;
use neurarch_kernels::ir::rng_key::RngKey;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::memory::{AlignedBytes, padded};
use neurarch_kernels::plan::Plan;
use neurarch_kernels::plan::on_device::DevicePlan;
use neurarch_ptx::{Argument, Counts, Launch, Memory, Program};

use crate::nvrtc::compile;

/// A row for each model, with the numbers of some steps.
#[derive(Clone)]
struct Column {
    bytes: Vec<u8>,
    row: usize,
    step: usize,
    ty: Type,
}

/// Numbers of a population, before or after it ran.
#[derive(Clone)]
pub(crate) struct Population {
    slots: Vec<Column>,
    inputs: Vec<Column>,
    outputs: Vec<Column>,
    scalars: Vec<f64>,
    models: usize,
    steps: usize,
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
    fn elements(&self, models: usize, steps: usize) -> Vec<usize> {
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

    /// Counts the elements whose bits differ; NaN is NaN.
    fn differences(&self, other: &Column, models: usize, steps: usize) -> usize {
        let size = self.ty.dtype.size_bytes();
        let is_nan = |bytes: &[u8]| match self.ty.dtype {
            Dtype::F32 => f32::from_ne_bytes(bytes.try_into().expect("4 bytes")).is_nan(),
            Dtype::F64 => f64::from_ne_bytes(bytes.try_into().expect("8 bytes")).is_nan(),
            _ => false,
        };
        let differ = |&at: &usize| {
            let (a, b) = (&self.bytes[at..at + size], &other.bytes[at..at + size]);
            a != b && !(is_nan(a) && is_nan(b))
        };
        self.elements(models, steps).iter().filter(|at| differ(at)).count()
    }
}

impl Population {
    /// Makes models with random parameters and inputs; i64 inputs are below `classes`.
    pub(crate) fn new(plan: &Plan, models: usize, steps: usize, classes: usize) -> Population {
        let program = &plan.program;
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
                (x, true) => (x.abs() * classes as f64).floor(),
                (x, false) => 2.0 * x,
            });
        }
        let outputs = program.outputs.iter().map(|&id| column(program.ty(id), steps)).collect();
        let scalar = |name: &str, model: usize| match name {
            "lr" => 0.01 * (1.0 + model as f64 / 8.0),
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
        Population { slots, inputs, outputs, scalars, models, steps }
    }

    /// Runs it by the CPU's executor.
    pub(crate) fn run_on_cpu(&mut self, plan: &Plan) {
        let aligned = |columns: &[Column]| -> Vec<AlignedBytes> {
            let copy = |column: &Column| {
                let mut bytes = AlignedBytes::new(column.bytes.len());
                bytes.bytes_mut()[..column.bytes.len()].copy_from_slice(&column.bytes);
                bytes
            };
            columns.iter().map(copy).collect()
        };
        let [mut slots, mut inputs, mut outputs] =
            [aligned(&self.slots), aligned(&self.inputs), aligned(&self.outputs)];
        let rows = |bytes: &mut AlignedBytes, column: &Column| Rows::Strided {
            base: bytes.as_mut_ptr(),
            stride: column.row,
        };
        let of_slots: Vec<_> =
            slots.iter_mut().zip(&self.slots).map(|(bytes, column)| rows(bytes, column)).collect();
        let sources: Vec<_> = inputs
            .iter_mut()
            .zip(&self.inputs)
            .map(|(bytes, column)| Source {
                rows: rows(bytes, column),
                step_bytes: column.step,
                gather: None,
            })
            .collect();
        let sinks: Vec<_> = outputs
            .iter_mut()
            .zip(&self.outputs)
            .map(|(bytes, column)| Sink { rows: rows(bytes, column), step_bytes: column.step })
            .collect();
        let keys: Vec<_> =
            (0..self.models as u64).map(|number| RngKey { number, ..RngKey::default() }).collect();
        let binding = Binding {
            models: self.models,
            slots: &of_slots,
            inputs: &sources,
            outputs: &sinks,
            scalars: &self.scalars,
            keys: &keys,
        };
        let stages = [Stage { plan, binding, first_step: 0, steps: self.steps }];
        // SAFETY: all rows are of buffers above, aligned, with a row of the program's type for each model and step.
        unsafe { queue::run(&mut [Work::new(&stages)], Direction::Up) };
        for (columns, bytes) in [(&mut self.slots, slots), (&mut self.outputs, outputs)] {
            for (column, bytes) in columns.iter_mut().zip(bytes) {
                let len = column.bytes.len();
                column.bytes.copy_from_slice(&bytes.bytes()[..len]);
            }
        }
    }

    /// Runs it by the interpreter, and gives the instructions that were counted.
    pub(crate) fn run_on_device(
        &mut self,
        plan: &DevicePlan,
        placement: &Placement,
        text: &Text,
    ) -> Counts {
        let compiled = compile(&text.text, 90);
        self.run_ptx(&compiled.ptx, plan, placement, text)
            .unwrap_or_else(|error| panic!("{error}\n{}", text.text))
    }

    /// As [`run_on_device`](Population::run_on_device), of a text that was compiled; a fault is an error.
    pub(crate) fn run_ptx(
        &mut self,
        ptx: &str,
        plan: &DevicePlan,
        placement: &Placement,
        text: &Text,
    ) -> Result<Counts, String> {
        let program = Program::parse(ptx).map_err(|error| error.to_string())?;
        let mut memory = Memory::new();
        let mut put = |bytes: &[u8]| memory.allocate_from(bytes);
        let of = |columns: &[Column], put: &mut dyn FnMut(&[u8]) -> u64| -> Vec<u64> {
            columns.iter().map(|column| put(&column.bytes)).collect()
        };
        let slots = of(&self.slots, &mut put);
        let inputs = of(&self.inputs, &mut put);
        let outputs = of(&self.outputs, &mut put);
        let scalars: Vec<_> = self.scalars.iter().flat_map(|x| x.to_ne_bytes()).collect();
        let scalars = put(if scalars.is_empty() { &[0; 8] } else { &scalars });
        let arena_row = padded(plan.arena_bytes.max(1));
        let arena = memory.allocate(arena_row * self.models);
        let launch = Launch {
            grid: [self.models.div_ceil(placement.models) as u32, 1, 1],
            block: [(placement.threads * placement.models) as u32, 1, 1],
            shared_bytes: placement.shared_bytes(plan),
        };
        let (launches, of_launch) = match placement.way {
            Way::Fused(_) => (1, self.steps),
            Way::Batched => (self.steps, 1),
        };
        let mut all = Counts::default();
        for first in 0..launches {
            let mut arguments: Vec<Argument> = Vec::new();
            for parameter in &text.parameters {
                let addresses: &[u64] = match *parameter {
                    Parameter::Models => {
                        arguments.push((self.models as i32).into());
                        &[]
                    }
                    Parameter::FirstStep => {
                        arguments.push((first as i32).into());
                        &[]
                    }
                    Parameter::Steps => {
                        arguments.push((of_launch as i32).into());
                        &[]
                    }
                    Parameter::Slot(i) => &[slots[i], self.slots[i].row as u64],
                    Parameter::Input(i) => {
                        let column = &self.inputs[i];
                        &[inputs[i], column.row as u64, column.step as u64]
                    }
                    Parameter::Output(i) => {
                        let column = &self.outputs[i];
                        &[outputs[i], column.row as u64, column.step as u64]
                    }
                    Parameter::Scalars => &[scalars],
                    Parameter::Arena => &[arena, arena_row as u64],
                };
                arguments.extend(addresses.iter().map(|&x| Argument::from(x)));
            }
            for kernel in &text.kernels {
                let counts = program.launch(kernel, launch, &arguments, &mut memory);
                all += &counts.map_err(|error| format!("{kernel}: {error}"))?;
            }
        }
        for (columns, addresses) in [(&mut self.slots, slots), (&mut self.outputs, outputs)] {
            for (column, address) in columns.iter_mut().zip(addresses) {
                memory.read(address, &mut column.bytes).unwrap_or_else(|error| panic!("{error}"));
            }
        }
        Ok(all)
    }

    /// Counts the numbers of slots and outputs that differ from those of another run, and how many there are.
    pub(crate) fn differences(&self, other: &Population) -> (usize, usize) {
        let slots = self.slots.iter().zip(&other.slots).map(|pair| (pair, 1));
        let outputs = self.outputs.iter().zip(&other.outputs).map(|pair| (pair, self.steps));
        slots.chain(outputs).fold((0, 0), |(differ, all), ((a, b), steps)| {
            let n = a.ty.shape.numel() * self.models * steps;
            (differ + a.differences(b, self.models, steps), all + n)
        })
    }
}
