//! Each pass alone: what it does to a small program, as text, and that the verifier accepts the result.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Program, Role, Slot, VerifyError};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::passes::{clean, fuse, split};
use neurarch_kernels::plan::{Plan, PlanOptions};

fn slot(role: Role, index: usize, shape: &[usize]) -> Slot {
    let name = format!("fc.{}", ["weight", "bias"][index]);
    Slot { name, role, position: 1, index, ty: Type::new(Dtype::F32, shape) }
}

/// A linear layer with ReLU, and a gradient that is kept.
struct Traced {
    trace: Trace,
    y: Var,
    parameters: Vec<Var>,
}

fn layer() -> Traced {
    let trace = Trace::new();
    let x = trace.input(Type::new(Dtype::F32, [32, 4]));
    let weight = trace.slot(slot(Role::Parameter, 0, &[16, 4]));
    let bias = trace.slot(slot(Role::Parameter, 1, &[16]));
    let y = trace.call("fc", "Linear", &x, |x| x.linear(&weight, Some(&bias)));
    let y = trace.call("act", "ReLU", &y, |y| y.relu());
    Traced { trace, y, parameters: vec![weight, bias] }
}

fn with_gradients() -> Program {
    let Traced { trace, y, parameters } = layer();
    let dy = trace.input(y.ty().clone());
    let gradients = backward(&trace, &[(y.clone(), dy)], &parameters);
    for (index, (parameter, gradient)) in parameters.iter().zip(gradients).enumerate() {
        let kept = trace.slot(slot(Role::Gradient, index, parameter.shape()));
        trace.store(&kept, &gradient.expect("the output depends on every parameter"));
    }
    trace.finish(&[y]).expect("shapes that fit")
}

fn classifier() -> Program {
    let Traced { trace, y, parameters } = layer();
    let targets = trace.input(Type::new(Dtype::I64, [32]));
    let smoothing = trace.constant(0.0, Dtype::F32, []);
    let loss = y.cross_entropy(&targets, None, &smoothing, -100, Reduction::Mean);
    let one = trace.constant(1.0, Dtype::F32, []);
    let gradients = backward(&trace, &[(loss.clone(), one)], &parameters);
    let gradients: Vec<_> = gradients.into_iter().map(Option::unwrap).collect();
    trace.finish(&[vec![loss], gradients].concat()).expect("shapes that fit")
}

#[test]
fn a_forward_pass_prints_with_its_module_calls() {
    let Traced { trace, y, .. } = layer();
    let program = trace.finish(&[y]).unwrap();
    program.verify().unwrap();
    insta::assert_snapshot!("forward", program);
}

#[test]
fn differentiation_appends_gradients_only_for_what_needs_them() {
    let program = with_gradients();
    program.verify().unwrap();
    insta::assert_snapshot!("differentiated", program);
    assert!(!program.to_string().contains("linear_input_gradient"), "nobody asks for dx");
}

#[test]
fn boundaries_and_dead_code_go() {
    let Traced { trace, y, parameters } = layer();
    let unused = parameters[0].relu();
    drop(unused);
    let program = clean::drop_boundaries(trace.finish(&[y]).unwrap());
    program.verify().unwrap();
    insta::assert_snapshot!("cleaned", program);
}

#[test]
fn an_activation_is_fused_into_the_layer_before_it() {
    let Traced { trace, y, .. } = layer();
    let program = fuse::fuse_activations(clean::drop_boundaries(trace.finish(&[y]).unwrap()));
    program.verify().unwrap();
    insta::assert_snapshot!("activation_fused", program);
}

#[test]
fn an_activation_whose_input_is_read_elsewhere_stays() {
    let Traced { trace, parameters, .. } = layer();
    let x = trace.input(Type::new(Dtype::F32, [2, 4]));
    let between = x.linear(&parameters[0], None);
    let y = between.relu();
    let program = clean::drop_boundaries(trace.finish(&[between, y]).unwrap());
    let fused = fuse::fuse_activations(program.clone());
    assert_eq!(fused.to_string(), program.to_string());
}

#[test]
fn a_loss_is_fused_with_its_gradient() {
    let program = fuse::fuse(clean::drop_boundaries(classifier()));
    program.verify().unwrap();
    insta::assert_snapshot!("loss_fused", program);
}

#[test]
fn a_split_program_computes_nothing_twice() {
    let whole = clean::drop_boundaries(with_gradients());
    let nodes = whole.nodes.len();
    let split = split::split(whole, 1);
    split.forward.verify().unwrap();
    split.backward.verify().unwrap();
    assert_eq!(split.forward.nodes.len() + split.backward.nodes.len(), nodes);
    insta::assert_snapshot!("split", format!("{}\n{}", split.forward, split.backward));
}

#[test]
fn a_plan_prints_places_and_the_size_of_the_arena() {
    let options = PlanOptions { tile: Some(2), ..PlanOptions::default() };
    insta::assert_snapshot!("plan", Plan::new(classifier(), &options).unwrap());
}

#[test]
fn the_verifier_finds_a_value_that_is_used_before_it_is_made() {
    let mut program = with_gradients();
    let last = program.nodes.last().unwrap().outputs[0];
    program.nodes[0].inputs[0] = last;
    assert!(matches!(program.verify(), Err(VerifyError::NotThereYet { .. })));
}

#[test]
fn the_verifier_finds_a_wrong_type() {
    let mut program = with_gradients();
    let made = program.nodes[1].outputs[0];
    program.values[made].ty = Type::new(Dtype::F32, [32, 5]);
    assert!(matches!(program.verify(), Err(VerifyError::Types { .. })));
}

#[test]
fn the_verifier_finds_a_store_that_does_not_fit() {
    let mut program = with_gradients();
    program.stores[0].1 = program.outputs[0];
    assert!(matches!(program.verify(), Err(VerifyError::Store { .. })));
}

#[test]
fn a_shape_error_names_the_module_and_both_shapes() {
    let trace = Trace::new();
    let x = trace.input(Type::new(Dtype::F32, [32, 5]));
    let weight = trace.slot(slot(Role::Parameter, 0, &[16, 4]));
    let y = trace.call("encoder.fc", "Linear", &x, |x| x.linear(&weight, None));
    let y = y.relu().tanh();
    let error = trace.finish(&[y]).unwrap_err();
    let message = "mat1 and mat2 shapes cannot be multiplied (32x5 and 4x16)";
    assert_eq!(error.to_string(), format!("encoder.fc (Linear): {message}"));
}

#[test]
fn a_loss_fuses_with_its_own_gradient_only() {
    let trace = Trace::new();
    let input = |dtype, shape: &[usize]| trace.input(Type::new(dtype, shape));
    let (x, targets) = (input(Dtype::F32, &[4, 3]), input(Dtype::I64, &[4]));
    let (weight, smoothing) = (input(Dtype::F32, &[3]), trace.constant(0.0, Dtype::F32, []));
    let loss = |weight| x.cross_entropy(&targets, weight, &smoothing, -100, Reduction::Mean);
    let (plain, weighted) = (loss(None), loss(Some(&weight)));
    let one = trace.constant(1.0, Dtype::F32, []);
    let gradients = backward(&trace, &[(weighted.clone(), one)], std::slice::from_ref(&x));
    let outputs: Vec<_> =
        [plain, weighted].into_iter().chain(gradients.into_iter().flatten()).collect();
    let program = fuse::fuse_gradients(trace.finish(&outputs).unwrap());
    program.verify().unwrap();
    let names: Vec<_> = program.nodes.iter().map(|node| node.op.name()).collect();
    assert_eq!(names, ["cross_entropy", "cross_entropy_with_gradient"]);
}

#[test]
fn constants_are_known_by_their_bits() {
    let trace = Trace::new();
    let constant = |number| trace.constant(number, Dtype::F32, [2]).id();
    assert_eq!(constant(1.5), constant(1.5));
    assert_ne!(constant(0.0), constant(-0.0));
    assert_eq!(constant(f64::NAN), constant(f64::NAN));
}
