//! Small networks that learn: a whole step in one kernel, and a kernel an op.

use neurarch_device::emit::Source;
use neurarch_device::limits::DeviceLimits;
use neurarch_device::plan::{Placement, Way};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Program, Role, Scalar, ScalarOf, Slot};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::ops::update::adam::{AdamRates, AdamSettings};
use neurarch_kernels::ops::update::sgd::{SgdMomentum, SgdRates, SgdSettings};
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::plan::on_device::DevicePlan;
use neurarch_kernels::plan::{Plan, PlanOptions};

use crate::nvrtc;
use crate::population::Population;

/// What one step of a network does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    Trains,
    /// With ReLU in place of tanh, and SGD with Nesterov's momentum in place of Adam.
    Descends,
    Infers,
}

/// Records a network of linear layers with tanh between them: one step of training with cross entropy and Adam, or a
/// forward pass.
pub(crate) fn program(sizes: &[usize], batch: usize, does: Does) -> Program {
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
            x = if does == Does::Descends { x.relu() } else { x.tanh() };
        }
        parameters.extend([(weight, layer, 0, w), (bias, layer, 1, b)]);
    }
    if does == Does::Infers {
        return trace.finish(&[x]).expect("it can be recorded");
    }
    let target = trace.input(Type::new(Dtype::I64, [batch]));
    let smoothing = trace.constant(0.0, Dtype::F32, []);
    let loss = x.cross_entropy(&target, None, &smoothing, -100, Reduction::Mean);
    let one = trace.constant(1.0, Dtype::F32, []);
    let wrt: Vec<_> = parameters.iter().map(|parameter| parameter.0.clone()).collect();
    let gradients = backward(&trace, &[(loss.clone(), one)], &wrt);
    let rate = |name| {
        trace.scalar(Scalar { name, of: ScalarOf::Optimizer { group: 0 }, position: 0 }, Dtype::F64)
    };
    for ((parameter, layer, index, ty), gradient) in parameters.iter().zip(gradients) {
        let state = |n| slot(format!("{layer}.{index}"), Role::State(n), *layer, *index, ty);
        let counts = f32s(&[1]);
        let steps = slot("steps".to_owned(), Role::Steps, layer * 2 + index, 0, &counts);
        let gradient = gradient.expect("each parameter has a gradient");
        if does == Does::Descends {
            let buffer = state(0);
            let [lr, decay, momentum, dampening] =
                ["lr", "weight_decay", "momentum", "dampening"].map(rate);
            let momentum =
                SgdMomentum { buffer: &buffer, momentum: &momentum, dampening: &dampening };
            let rates = SgdRates { lr: &lr, weight_decay: &decay };
            let settings = SgdSettings { nesterov: true, ..SgdSettings::default() };
            let update = parameter.sgd(&gradient, &steps, &rates, Some(&momentum), settings);
            trace.store(parameter, &update.parameter);
            trace.store(&buffer, &update.buffer.expect("it has momentum"));
            trace.store(&steps, &update.steps);
            continue;
        }
        let (mean, square) = (state(0), state(1));
        let [lr, beta1, beta2, eps, decay] =
            ["lr", "beta1", "beta2", "eps", "weight_decay"].map(rate);
        let rates =
            AdamRates { lr: &lr, beta1: &beta1, beta2: &beta2, eps: &eps, weight_decay: &decay };
        let update =
            parameter.adam(&gradient, (&mean, &square), &steps, &rates, AdamSettings::default());
        trace.store(parameter, &update.parameter);
        trace.store(&mean, &update.exp_avg);
        trace.store(&square, &update.exp_avg_sq);
        trace.store(&steps, &update.steps);
    }
    trace.finish(&[loss]).expect("it can be recorded")
}

/// A program that is ready for both.
pub(crate) struct Ready {
    pub(crate) plan: Plan,
    pub(crate) device: DevicePlan,
    pub(crate) placement: Placement,
}

pub(crate) fn ready(program: Program) -> Ready {
    let plan = Plan::new(program, &PlanOptions::default()).expect("it can be planned");
    let device = DevicePlan::new(&plan.program).unwrap_or_else(|error| panic!("{error}"));
    let limits = DeviceLimits::of(90).expect("it is known");
    let placement = Placement::new(&plan.program, &device, &limits);
    Ready { plan, device, placement }
}

/// Runs both, fused and batched, and compares their bits; gives the warp instructions of a model and step, fused.
pub(crate) fn compare(program: Program, models: usize, steps: usize, classes: usize) -> u64 {
    let Ready { plan, device, placement } = ready(program);
    assert!(matches!(placement.way, Way::Fused(_)), "{placement}");
    let start = Population::new(&plan, models, steps, classes);
    let mut expected = start.clone();
    expected.run_on_cpu(&plan);
    let mut instructions = Vec::new();
    for placement in [placement.clone(), placement.batched()] {
        let text = Source::new(&plan.program, &device, &placement, "step");
        let mut found = start.clone();
        let counts = found.run_on_device(&device, &placement, &text);
        let (differ, all) = found.differences(&expected);
        assert_eq!(differ, 0, "of {all} numbers differ: {placement}");
        instructions.push(counts.warp_instructions / (models * steps) as u64);
    }
    instructions[0]
}

#[test]
fn a_tiny_network_learns_with_the_bits_of_the_cpu() {
    if nvrtc::is_there() {
        let instructions = compare(program(&[4, 16, 16, 2], 32, Does::Trains), 6, 5, 2);
        insta::assert_snapshot!("tiny_training_instructions", instructions);
    }
}

#[test]
fn odd_sizes_learn_with_the_bits_of_the_cpu() {
    if nvrtc::is_there() {
        compare(program(&[5, 7, 3], 9, Does::Trains), 3, 3, 3);
        compare(program(&[3, 20], 300, Does::Trains), 2, 2, 20);
    }
}

#[test]
fn a_small_network_descends_with_the_bits_of_the_cpu() {
    if nvrtc::is_there() {
        compare(program(&[16, 64, 64, 8], 16, Does::Descends), 2, 3, 8);
    }
}

#[test]
fn a_tiny_network_infers_with_the_bits_of_the_cpu() {
    if nvrtc::is_there() {
        let one = compare(program(&[4, 16, 16, 2], 1, Does::Infers), 5, 2, 2);
        compare(program(&[300, 16, 2], 3, Does::Infers), 2, 1, 2);
        compare(program(&[600, 4], 20, Does::Infers), 2, 1, 2);
        insta::assert_snapshot!("tiny_inference_instructions", one);
    }
}
