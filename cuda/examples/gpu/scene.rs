//! Small networks with random numbers: run by the CPU's executor, and by a device.
#![expect(unsafe_code, reason = "the executor takes addresses; everything here is owned")]

use std::sync::Arc;

use neurarch_cuda::kernel::Recipe;
use neurarch_cuda::run::{Binding, Stream};
use neurarch_cuda::table::{Buffer, Column};
use neurarch_cuda::{CudaError, Device};
use neurarch_device::limits::DeviceLimits;
use neurarch_device::plan::Placement;
use neurarch_kernels::cpu::tile::Rows;
use neurarch_kernels::execute::executor::{self, Sink, Source, Stage};
use neurarch_kernels::execute::queue::{self, Direction, Work};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Program, Role, Scalar, ScalarOf, Slot};
use neurarch_kernels::ir::rng_key::RngKey;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::memory::{AlignedBytes, padded};
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::ops::update::adam::{AdamRates, AdamSettings};
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::plan::on_device::DevicePlan;
use neurarch_kernels::plan::{Plan, PlanOptions};

/// Records linear layers with tanh between them: a step of training with cross entropy and Adam, or a forward pass.
pub(crate) fn network(sizes: &[usize], batch: usize, trains: bool) -> Program {
    let trace = Trace::new();
    let f32s = |shape: &[usize]| Type::new(Dtype::F32, shape);
    let slot = |name: String, role, position, index, ty: &Type| {
        trace.slot(Slot { name, role, position, index, ty: ty.clone() })
    };
    let mut x = trace.input(f32s(&[batch, sizes[0]]));
    let mut parameters: Vec<(Var, usize, usize, Type)> = Vec::new();
    for (layer, pair) in sizes.windows(2).enumerate() {
        let (w, b) = (f32s(&[pair[1], pair[0]]), f32s(&[pair[1]]));
        let weight = slot(format!("{layer}.weight"), Role::Parameter, layer, 0, &w);
        let bias = slot(format!("{layer}.bias"), Role::Parameter, layer, 1, &b);
        x = x.linear(&weight, Some(&bias));
        if layer + 2 < sizes.len() {
            x = x.tanh();
        }
        parameters.extend([(weight, layer, 0, w), (bias, layer, 1, b)]);
    }
    if !trains {
        return trace.finish(&[x]).expect("it can be recorded");
    }
    let target = trace.input(Type::new(Dtype::I64, [batch]));
    let smoothing = trace.constant(0.0, Dtype::F32, []);
    let loss = x.cross_entropy(&target, None, &smoothing, -100, Reduction::Mean);
    let one = trace.constant(1.0, Dtype::F32, []);
    let wrt: Vec<_> = parameters.iter().map(|parameter| parameter.0.clone()).collect();
    let gradients = backward(&trace, &[(loss.clone(), one)], &wrt);
    let rate = |name| {
        let of = ScalarOf::Optimizer { group: 0 };
        trace.scalar(Scalar { name, of, position: 0 }, Dtype::F64)
    };
    let [lr, beta1, beta2, eps, decay] = ["lr", "beta1", "beta2", "eps", "weight_decay"].map(rate);
    let rates =
        AdamRates { lr: &lr, beta1: &beta1, beta2: &beta2, eps: &eps, weight_decay: &decay };
    for ((parameter, layer, index, ty), gradient) in parameters.iter().zip(gradients) {
        let state = |n| slot(format!("{layer}.{index}"), Role::State(n), *layer, *index, ty);
        let (mean, square) = (state(0), state(1));
        let steps = slot("steps".to_owned(), Role::Steps, layer * 2 + index, 0, &f32s(&[1]));
        let gradient = gradient.expect("each parameter has a gradient");
        let update =
            parameter.adam(&gradient, (&mean, &square), &steps, &rates, AdamSettings::default());
        trace.store(parameter, &update.parameter);
        trace.store(&mean, &update.exp_avg);
        trace.store(&square, &update.exp_avg_sq);
        trace.store(&steps, &update.steps);
    }
    trace.finish(&[loss]).expect("it can be recorded")
}

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
        let program = network(sizes, batch, trains);
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

/// Rows of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostColumn {
    /// All rows.
    pub(crate) bytes: Vec<u8>,
    /// Bytes of a row.
    pub(crate) row: usize,
    /// Bytes of a step within a row.
    pub(crate) step: usize,
}

/// The numbers of a population.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Numbers {
    /// Slots, inputs, outputs.
    pub(crate) columns: [Vec<HostColumn>; 3],
    /// The value of scalar `s` for model `m` at `s · models + m`.
    pub(crate) scalars: Vec<f64>,
    /// How many models there are.
    pub(crate) models: usize,
    /// How many steps the inputs have.
    pub(crate) steps: usize,
}

impl HostColumn {
    fn new(ty: &Type, models: usize, steps: usize, mut number: impl FnMut() -> f64) -> HostColumn {
        let step = ty.size_bytes().next_multiple_of(16);
        let row = padded((step * steps).max(1));
        let mut bytes = vec![0; row * models];
        let size = ty.dtype.size_bytes();
        for start in (0..models).flat_map(|m| (0..steps).map(move |s| m * row + s * step)) {
            for element in bytes[start..start + ty.size_bytes()].chunks_exact_mut(size) {
                match ty.dtype {
                    Dtype::I64 => element.copy_from_slice(&(number() as i64).to_ne_bytes()),
                    _ => element.copy_from_slice(&(number() as f32).to_ne_bytes()),
                }
            }
        }
        HostColumn { bytes, row, step }
    }
}

impl Numbers {
    /// Makes models with random parameters and inputs; labels are below `classes`.
    pub(crate) fn new(program: &Program, models: usize, steps: usize, classes: usize) -> Numbers {
        let mut state = 7_u64;
        let mut random = move || {
            let factor = 6_364_136_223_846_793_005;
            state = state.wrapping_mul(factor).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1_u64 << 23) as f64 - 1.0
        };
        let slots = program.slots.iter().map(|slot| {
            let scale = if slot.role == Role::Parameter { 0.5 } else { 0.0 };
            HostColumn::new(&slot.ty, models, 1, || scale * random())
        });
        let slots = slots.collect();
        let inputs = program.inputs.iter().map(|ty| {
            let label = ty.dtype == Dtype::I64;
            HostColumn::new(ty, models, steps, || {
                let x = random();
                if label {
                    (x.abs() * classes as f64).floor().min(classes as f64 - 1.0)
                } else {
                    2.0 * x
                }
            })
        });
        let inputs = inputs.collect();
        let outputs = program.outputs.iter();
        let outputs = outputs.map(|&id| HostColumn::new(program.ty(id), models, steps, || 0.0));
        let scalar = |name: &str, model: usize| match name {
            "lr" => 0.01 * (1.0 + (model % 8) as f64 / 8.0),
            "beta1" => 0.9,
            "beta2" => 0.999,
            "eps" => 1e-8,
            _ => 0.01,
        };
        let scalars = program.scalars.iter();
        let scalars = scalars.flat_map(|s| (0..models).map(move |m| scalar(s.name, m))).collect();
        Numbers { columns: [slots, inputs, outputs.collect()], scalars, models, steps }
    }

    /// Runs all steps by the CPU's executor.
    pub(crate) fn run_on_cpu(&mut self, plan: &Plan) {
        let mut aligned = self.columns.each_ref().map(|columns| {
            let copy = |column: &HostColumn| {
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
        let binding = executor::Binding {
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

/// The same numbers on a device.
pub(crate) struct Tables {
    columns: [Vec<(Column, usize)>; 3],
    scalars: Buffer,
    models: usize,
}

impl Tables {
    /// Copies numbers to a device.
    pub(crate) fn upload(device: &Arc<Device>, numbers: &Numbers) -> Result<Tables, CudaError> {
        let mut columns = [Vec::new(), Vec::new(), Vec::new()];
        for (to, from) in columns.iter_mut().zip(&numbers.columns) {
            for host in from {
                let mut column = Column::new(device, host.row);
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
    pub(crate) fn download(&self, numbers: &mut Numbers) -> Result<(), CudaError> {
        for (from, to) in self.columns.iter().zip(&mut numbers.columns) {
            for ((column, _), host) in from.iter().zip(to) {
                column.download(0, &mut host.bytes)?;
            }
        }
        Ok(())
    }
}
