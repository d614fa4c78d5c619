//! Barriers left out: each one that the fused kernel needs is found by the interpreter.

use neurarch_device::emit::Source;

use crate::mlp::{Ready, ready};
use crate::network::{Does, program};
use crate::nvrtc;
use crate::population::Population;

/// Gives what the interpreter says of a training step whose source `change` has changed.
fn run(change: impl Fn(&str) -> String) -> Result<(), String> {
    let Ready { plan, device, placement } = ready(program(&[4, 16, 16, 2], 8, Does::Trains));
    let mut text = Source::new(&plan.program, &device, &placement, "step");
    text.text = change(&text.text);
    let ptx = nvrtc::compile(&text.text, 90).ptx;
    let mut population = Population::new(&plan.program, 1, 2, 2);
    population.run_ptx(&ptx, &device, &placement, &text).map(drop)
}

#[test]
fn barriers_that_are_left_out_are_found() {
    if !nvrtc::is_there() {
        return;
    }
    assert_eq!(run(str::to_owned), Ok(()));
    let Ready { plan, device, placement } = ready(program(&[4, 16, 16, 2], 8, Does::Trains));
    let text = Source::new(&plan.program, &device, &placement, "step").text;
    let kernel = text.find("extern \"C\"").expect("it has a kernel");
    let barriers: Vec<_> = text[kernel..].match_indices("sync<T>();").map(|(at, _)| at).collect();
    let is_found = |at: usize| {
        let without = |text: &str| {
            let (head, tail) = text.split_at(kernel + at);
            head.to_owned() + tail.strip_prefix("sync<T>();").expect("it is there")
        };
        run(without).is_err()
    };
    let missed: Vec<_> = barriers
        .iter()
        .filter(|&&at| !is_found(at))
        .map(|&at| text[kernel..][..at].rsplit("// ").next().and_then(|op| op.lines().next()))
        .map(Option::unwrap_or_default)
        .collect();
    let found = barriers.len() - missed.len();
    let summary = format!("{found} of {} are found; behind these, none is needed:", barriers.len());
    let lines: Vec<_> = std::iter::once(summary.as_str()).chain(missed).collect();
    insta::assert_snapshot!(lines.join("\n"));
}
