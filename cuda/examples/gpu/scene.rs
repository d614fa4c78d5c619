//! Small networks, planned for the CPU and for devices, and their numbers on a device.

use std::sync::Arc;

use neurarch_cuda::kernel::Recipe;
use neurarch_cuda::run::{Binding, Stream};
use neurarch_cuda::table::{self, Buffer};
use neurarch_cuda::{CudaError, Device};
use neurarch_device::limits::DeviceLimits;
use neurarch_device::plan::Placement;
use neurarch_kernels::plan::on_device::DevicePlan;
use neurarch_kernels::plan::{Plan, PlanOptions};

#[path = "../../../device/tests/device/network.rs"]
mod network;
#[path = "../../../device/tests/device/population.rs"]
mod population;

use network::{Does, program};
pub(crate) use population::Population;

/// A program, planned for the CPU and for devices.
pub(crate) struct Planned {
    /// The CPU's plan.
    pub(crate) plan: Plan,
    /// The devices' plan.
    pub(crate) on_device: DevicePlan,
}

impl Planned {
    /// Plans a network.
    pub(crate) fn new(sizes: &[usize], batch: usize, trains: bool) -> Planned {
        let does = if trains { Does::Trains } else { Does::Infers };
        let program = program(sizes, batch, does);
        let plan = Plan::new(program, &PlanOptions::default()).expect("it can be planned");
        let on_device = DevicePlan::new(&plan.program).expect("all ops have device code");
        Planned { plan, on_device }
    }

    /// Prints its kernels: those that the limits allow, or one for each op.
    pub(crate) fn recipe(&self, limits: &DeviceLimits, batched: bool) -> Recipe {
        let program = &self.plan.program;
        let placement = Placement::new(program, &self.on_device, limits);
        let placement = if batched { placement.batched() } else { placement };
        Recipe::new(program, &self.on_device, placement, limits, "step")
    }
}

/// A population's numbers on a device.
pub(crate) struct Tables {
    columns: [Vec<(table::Column, usize)>; 3],
    scalars: Buffer,
    models: usize,
}

impl Tables {
    /// Copies numbers to a device.
    pub(crate) fn upload(device: &Arc<Device>, numbers: &Population) -> Result<Tables, CudaError> {
        let mut columns = [Vec::new(), Vec::new(), Vec::new()];
        for (to, from) in columns.iter_mut().zip(&numbers.columns) {
            for host in from {
                let mut column = table::Column::new(device, host.row);
                column.resize(numbers.models)?;
                column.upload(0, &host.bytes)?;
                to.push((column, host.step));
            }
        }
        let bytes: Vec<u8> = numbers.scalars.iter().flat_map(|x| x.to_ne_bytes()).collect();
        let mut scalars = Buffer::new(device);
        scalars.resize(bytes.len())?;
        scalars.upload(0, &bytes)?;
        Ok(Tables { columns, scalars, models: numbers.models })
    }

    /// Returns what kernels are launched on.
    pub(crate) fn binding(&self) -> Binding<'_> {
        let [slots, inputs, outputs] = self.columns.each_ref().map(|columns| columns.iter());
        Binding {
            models: self.models,
            slots: slots.map(|(column, _)| column).collect(),
            inputs: inputs.map(|(column, step)| Stream { column, step_bytes: *step }).collect(),
            outputs: outputs.map(|(column, step)| Stream { column, step_bytes: *step }).collect(),
            scalars: &self.scalars,
        }
    }

    /// Copies slots and outputs back.
    pub(crate) fn download(&self, numbers: &mut Population) -> Result<(), CudaError> {
        for (from, to) in self.columns.iter().zip(&mut numbers.columns) {
            for ((column, _), host) in from.iter().zip(to) {
                column.download(0, &mut host.bytes)?;
            }
        }
        Ok(())
    }
}
