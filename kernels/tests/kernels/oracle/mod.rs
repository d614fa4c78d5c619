//! A second back end, in double precision and by another hand, judges the CPU's: recorded programs, their gradients
//! and what the passes make of them.

mod elementwise;
mod interpreter;
mod linalg;
mod losses;
mod networks;
mod products;
mod recurrent;
mod reductions;
mod shapes;
mod tables;
mod updates;

use std::collections::BTreeSet;

use interpreter::{Oracle, TABLES, interpret, key, known};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::op::{Ask, Op, OpError};
use neurarch_kernels::ir::program::Program;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::plan::{Plan, PlanOptions};
use neurarch_kernels::testing::{Array, cases, planned};

use crate::any_input::fitting;
use crate::any_input::functions::{FUNCTIONS, Function};
use crate::any_input::random::Random;
use crate::any_input::record::{numbers, record};

/// The ops that the oracle does not know, of those that the functions of `any_input` lead to. Random ones it cannot know.
const UNKNOWN: &[&str] = &[
    "ctc_loss",
    "ctc_loss_gradient",
    "dropout",
    "embedding_bag",
    "embedding_bag_gradient",
    "embedding_bag_per_sample_weights_gradient",
    "embedding_renorm",
    "geqrf",
    "grid_sample",
    "grid_sample_grid_gradient",
    "grid_sample_input_gradient",
    "max_pool drawn",
    "noise",
    "rand",
];

/// The ops that it knows and these functions do not lead to, as they are recorded: see `networks`. A plan alone copies,
/// and computes a loss with its gradient.
const UNMET: &[&str] = &[
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "contiguous",
    "cos",
    "cross_entropy_scale",
    "cross_entropy_with_gradient",
    "embedding_second_gradient",
    "enter",
    "gru_gradient",
    "leave",
    "rmsprop",
    "rprop",
    "sgd",
    "sin",
];

/// How many ops it knows. Beside [`UNKNOWN`] it lacks those that no function here records: `asgd`, `nadam`, `radam`,
/// `adafactor`, `muon`, `sparse_adam`, `grouped_mm`, and what Householder reflections are made of.
const KNOWN: usize = 131;

/// A drawn case that can be recorded and gives a few numbers.
struct Case {
    types: Vec<Type>,
    random: Random,
    gradients: usize,
    program: Program,
}

impl Case {
    fn draw(function: &Function, seed: u64, dtype: Dtype) -> Option<Case> {
        let mut random = Random(seed, 19);
        let types: Vec<_> = fitting::types(function, &mut random)
            .into_iter()
            .map(|ty| if ty.dtype.is_float() { Type { dtype, ..ty } } else { ty })
            .collect();
        [types.len(), 1, 0].into_iter().find_map(|gradients| {
            let trace = Trace::new();
            let v: Vec<_> = types.iter().map(|ty| trace.input(ty.clone())).collect();
            let outputs = record(function, &v, &random, gradients);
            let program = trace.finish(&outputs).ok().filter(gives_a_few)?;
            let (types, random) = (types.clone(), random.clone());
            Some(Case { types, random, gradients, program })
        })
    }
}

fn gives_a_few(program: &Program) -> bool {
    let span = |ty: &Type| ty.shape.iter().map(|&size| size.max(1) as f64).product::<f64>();
    program.values.iter().all(|value| span(&value.ty) <= 6000.0)
        && program.outputs.iter().any(|&id| program.ty(id).shape.numel() > 0)
}

/// Says where results differ by more than `tolerance` times the largest number.
fn difference(found: &[Array], expected: &[Array], tolerance: f64) -> Option<String> {
    assert_eq!(found.len(), expected.len());
    for (output, (found, expected)) in found.iter().zip(expected).enumerate() {
        let finite = expected.elements.iter().filter(|x| x.is_finite());
        let scale = finite.fold(1.0, |most: f64, x| most.max(x.abs()));
        for (i, (&x, &y)) in found.elements.iter().zip(&expected.elements).enumerate() {
            let same = x == y || x.is_nan() && y.is_nan() || (x - y).abs() <= tolerance * scale;
            if !same {
                return Some(format!("output {output}, element {i}: {x:e}, the oracle {y:e}"));
            }
        }
    }
    None
}

#[test]
fn every_function_agrees_with_the_oracle() {
    let (mut unknown, mut met, mut wrong) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for function in FUNCTIONS {
        let drawn = (0..3000).filter_map(|seed| Case::draw(function, seed, Dtype::F64));
        for case in drawn.take(cases(10) as usize) {
            let keys = case.program.nodes.iter().map(|node| key(&*node.op));
            let (of_known, others): (Vec<_>, Vec<_>) = keys.partition(|key| known(key).is_some());
            met.extend(of_known);
            unknown.extend(others.iter().cloned());
            let inputs: Vec<_> =
                case.types.iter().enumerate().map(|(i, ty)| numbers(ty, i)).collect();
            let Ok(expected) = interpret(&case.program, &inputs, &[], &[]) else {
                assert!(!others.is_empty(), "the oracle knows all of it");
                continue;
            };
            let build = |v: &[Var]| record(function, v, &case.random, case.gradients);
            let found = planned(build, std::slice::from_ref(&inputs)).swap_remove(0);
            if let Some(what) = difference(&found, &expected, 1e-9) {
                wrong.push(format!("{}: {what}\n{}", function.0, case.program));
            }
            // What the passes made of it is the same to the oracle.
            let plan =
                Plan::new(case.program.clone(), &PlanOptions::default()).expect("it is planned");
            let fused = interpret(&plan.program, &inputs, &[], &[]);
            match fused {
                Ok(fused) => {
                    if let Some(what) = difference(&fused, &expected, 1e-9) {
                        wrong.push(format!("{}, planned: {what}\n{}", function.0, plan.program));
                    }
                }
                Err(error) => wrong.push(format!("{}, planned: {error}", function.0)),
            }
        }
    }
    wrong.truncate(12);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let all: BTreeSet<_> =
        TABLES.iter().flat_map(|table| table.iter()).map(|of| of.0.to_owned()).collect();
    let unmet: Vec<_> = all.difference(&met).map(String::as_str).collect();
    let unknown: Vec<_> = unknown.iter().map(String::as_str).collect();
    assert_eq!((unknown, unmet, all.len()), (UNKNOWN.to_vec(), UNMET.to_vec(), KNOWN));
}

/// An op that nobody computes but this back end, if it is told how.
#[derive(Debug)]
struct Foreign {
    is_written: bool,
}

impl Op for Foreign {
    fn name(&self) -> &'static str {
        "foreign"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        Ok(inputs.to_vec())
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        if self.is_written {
            ask.give::<Oracle>(|_, _| {
                Box::new(|call| vec![call.x[0].elements.iter().map(|x| x + 1.0).collect()])
            });
        }
    }
}

#[test]
fn an_op_of_your_own_gives_its_kernel_to_a_back_end_that_the_crate_does_not_know() {
    let x = Array::new(Dtype::F32, [2], [1.0, 2.0]);
    let run = |is_written: bool| {
        let trace = Trace::new();
        let y = trace.apply(Foreign { is_written }, &[&trace.input(x.ty.clone())]).square();
        let program = trace.finish(&[y]).expect("it has types");
        interpret(&program, std::slice::from_ref(&x), &[], &[])
    };
    assert_eq!(run(true).expect("it is written")[0].elements, [4.0, 9.0]);
    let error = run(false).expect_err("it is not").to_string();
    assert_eq!(error, "foreign: not implemented on oracle");
}
