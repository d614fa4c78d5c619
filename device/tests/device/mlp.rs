//! Small networks that learn: a whole step in one kernel, and a kernel an op.

use neurarch_device::emit::Source;
use neurarch_device::limits::DeviceLimits;
use neurarch_device::plan::{Placement, Way};
use neurarch_kernels::ir::program::Program;
use neurarch_kernels::plan::on_device::DevicePlan;
use neurarch_kernels::plan::{Plan, PlanOptions};

use crate::network::{Does, program};
use crate::nvrtc;
use crate::population::Population;

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
    let start = Population::new(&plan.program, models, steps, classes);
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
