//! Sources compile for all architectures, with few spills; and what is printed, as text.

use neurarch_device::emit::Source;
use neurarch_device::limits::DeviceLimits;
use neurarch_device::plan::Placement;
use neurarch_kernels::device::PRELUDE;

use crate::mlp::{Ready, ready};
use crate::network::{Does, program};
use crate::nvrtc::{compile, is_there};

/// Bytes that a function may spill: the tiny network's step for `sm_100` spills 24.
const SPILLED: usize = 32;

#[test]
fn kernels_compile_for_all_architectures_with_few_spills() {
    if !is_there() {
        return;
    }
    for does in [Does::Trains, Does::Infers] {
        let Ready { plan, device, placement } = ready(program(&[4, 16, 16, 2], 32, does));
        let text = Source::new(&plan.program, &device, &placement, "step");
        for architecture in [80, 90, 100, 120] {
            let log = compile(&text.text, architecture).log;
            let mut before: Vec<_> = log.split(" bytes spill stores").collect();
            before.pop();
            assert!(!before.is_empty(), "sm_{architecture}: {log}");
            for before in before {
                let spilled =
                    before.rsplit(' ').next().and_then(|bytes| bytes.parse::<usize>().ok());
                assert!(spilled.is_some_and(|bytes| bytes <= SPILLED), "sm_{architecture}: {log}");
            }
        }
    }
}

#[test]
fn a_fused_inference_is_printed() {
    let Ready { plan, device, placement } = ready(program(&[2, 3], 1, Does::Infers));
    let text = Source::new(&plan.program, &device, &placement, "infer");
    insta::assert_snapshot!(text.text.strip_prefix(PRELUDE).expect("it begins with the prelude"));
}

#[test]
fn a_plan_says_its_choice_and_why() {
    let Ready { plan, device, placement } = ready(program(&[4, 16, 16, 2], 32, Does::Trains));
    let little = DeviceLimits { architecture: 90, opt_in_shared_bytes: 4096, threads: 256 };
    let batched = Placement::new(&plan.program, &device, &little);
    insta::assert_snapshot!(format!("{placement}\n{batched}"));
}
