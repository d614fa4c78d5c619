//! Populations run by the interpreter of PTX, and compared.

use neurarch_device::emit::{Parameter, Source as Text};
use neurarch_device::plan::{Placement, Way};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::memory::padded;
use neurarch_kernels::plan::on_device::DevicePlan;
use neurarch_ptx::{Argument, Counts, Launch, Memory, Program};

use crate::nvrtc::compile;
use crate::population::{Column, Population};

impl Population {
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
        let slots = of(&self.columns[0], &mut put);
        let inputs = of(&self.columns[1], &mut put);
        let outputs = of(&self.columns[2], &mut put);
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
                    Parameter::Slot(i) => &[slots[i], self.columns[0][i].row as u64],
                    Parameter::Input(i) => {
                        let column = &self.columns[1][i];
                        &[inputs[i], column.row as u64, column.step as u64]
                    }
                    Parameter::Output(i) => {
                        let column = &self.columns[2][i];
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
        let [own_slots, _, own_outputs] = &mut self.columns;
        for (columns, addresses) in [(own_slots, slots), (own_outputs, outputs)] {
            for (column, address) in columns.iter_mut().zip(addresses) {
                memory.read(address, &mut column.bytes).unwrap_or_else(|error| panic!("{error}"));
            }
        }
        Ok(all)
    }

    /// Counts the numbers of slots and outputs that differ from those of another run, and how many there are.
    pub(crate) fn differences(&self, other: &Population) -> (usize, usize) {
        let pairs = |kind: usize| self.columns[kind].iter().zip(&other.columns[kind]);
        let slots = pairs(0).map(|pair| (pair, 1));
        let outputs = pairs(2).map(|pair| (pair, self.steps));
        slots.chain(outputs).fold((0, 0), |(differ, all), ((a, b), steps)| {
            let n = a.ty.shape.numel() * self.models * steps;
            (differ + differences(a, b, self.models, steps), all + n)
        })
    }
}

/// Counts the elements whose bits differ; NaN is NaN.
fn differences(a: &Column, b: &Column, models: usize, steps: usize) -> usize {
    let size = a.ty.dtype.size_bytes();
    let is_nan = |bytes: &[u8]| match a.ty.dtype {
        Dtype::F32 => f32::from_ne_bytes(bytes.try_into().expect("4 bytes")).is_nan(),
        Dtype::F64 => f64::from_ne_bytes(bytes.try_into().expect("8 bytes")).is_nan(),
        _ => false,
    };
    let differ = |&at: &usize| {
        let (x, y) = (&a.bytes[at..at + size], &b.bytes[at..at + size]);
        x != y && !(is_nan(x) && is_nan(y))
    };
    a.elements(models, steps).iter().filter(|at| differ(at)).count()
}
