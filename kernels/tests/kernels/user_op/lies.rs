//! Ops that say of themselves what is not so: an error, planned and eagerly, and never a number out of place.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use neurarch_kernels::cpu::kernel::{Cpu, Kernel};
use neurarch_kernels::cpu::tile::Tile;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::eager::Eager;
use neurarch_kernels::ir::op::{Ask, Boundary, GradientAt, Op, OpError, ask};
use neurarch_kernels::ir::program::{Origin, Program, Role, Slot};
use neurarch_kernels::ir::shape::{Layout, Operand, Shape, Type};
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::plan::{Plan, PlanOptions};
use neurarch_kernels::testing::{Array, planned};

/// More elements than any buffer of these tests has.
const BIG: usize = 1 << 22;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    None,
    InPlaceBig,
    InPlaceNowhere,
    InPlaceTwice,
    ReadsInPlace,
    CopiesBig,
    CopiesTwo,
    FarLayout,
    Overlapping,
    NoLayout,
    OtherRank,
    Edge,
    Scratch,
    KernelOfOthers,
    KernelPanics,
    Gradient,
}

#[derive(Debug)]
struct Evil(Lie);

/// Copies its first input as far as it goes.
fn copy() -> Box<dyn Kernel> {
    Box::new(|tile: &mut Tile<'_>| {
        for model in 0..tile.models() {
            let (inputs, mut outputs, _) = tile.model(model).split();
            let (x, y) = (inputs.get::<f32>(0), outputs.take::<f32>());
            let n = x.len().min(y.len());
            y[..n].copy_from_slice(&x[..n]);
        }
    })
}

struct Greedy;

impl Kernel for Greedy {
    fn run(&self, _: &mut Tile<'_>) {}

    fn scratch_bytes(&self) -> usize {
        1 << 62
    }
}

/// The kernel of an op of the crate, for operands that somebody else has.
fn of_others(from: Layout, ty: Type) -> Box<dyn Kernel> {
    let trace = Trace::new();
    let y = trace.input(ty.clone()).tanh();
    let program = trace.finish(&[y]).unwrap();
    let far = Operand { ty: ty.clone(), layout: from };
    ask::kernel::<Cpu>(&*program.nodes[0].op, &[far], &[Operand::row_major(ty)]).unwrap()
}

impl Op for Evil {
    fn name(&self) -> &'static str {
        "evil"
    }

    fn attributes(&self) -> String {
        format!("{:?}", self.0)
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        let big = Type::new(Dtype::F32, [BIG]);
        Ok(match self.0 {
            Lie::InPlaceBig | Lie::CopiesBig | Lie::Edge => vec![big],
            Lie::InPlaceTwice | Lie::CopiesTwo => vec![inputs[0].clone(), inputs[0].clone()],
            _ => vec![inputs[0].clone()],
        })
    }

    fn in_place(&self) -> &[(usize, usize)] {
        match self.0 {
            Lie::InPlaceBig | Lie::ReadsInPlace => &[(0, 0)],
            Lie::InPlaceNowhere => &[(0, 7)],
            Lie::InPlaceTwice => &[(0, 0), (0, 1)],
            _ => &[],
        }
    }

    fn copies_as_is(&self) -> bool {
        matches!(self.0, Lie::CopiesBig | Lie::CopiesTwo)
    }

    fn boundary(&self) -> Option<Boundary> {
        (self.0 == Lie::Edge).then_some(Boundary::Enter)
    }

    fn layouts(&self, _: &[Operand], outputs: &[Type]) -> Vec<Layout> {
        let all = |stride: usize| -> Vec<Layout> {
            outputs.iter().map(|ty| Layout::from(vec![stride; ty.shape.rank()])).collect()
        };
        match self.0 {
            Lie::FarLayout => all(BIG),
            Lie::Overlapping => all(0),
            Lie::NoLayout => Vec::new(),
            Lie::OtherRank => vec![Layout::from(vec![1, 1, 1])],
            _ => outputs.iter().map(|ty| ty.shape.row_major()).collect(),
        }
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|_, _| match self.0 {
            Lie::Scratch => Box::new(Greedy),
            Lie::KernelOfOthers => {
                let ty = Type::new(Dtype::F32, [BIG]);
                of_others(ty.shape.row_major(), ty)
            }
            Lie::KernelPanics => Box::new(|_: &mut Tile<'_>| panic!("no numbers today")),
            _ => copy(),
        });
    }

    fn gradient(&self, at: &GradientAt<'_>) -> Vec<Option<Var>> {
        // What is stated of an input that is not there changes nothing.
        assert!(at.zero(17).is_none());
        vec![at.gradients[0].as_ref().map(|dy| dy.expand([3, 4]))]
    }
}

fn input(trace: &Trace) -> Var {
    trace.input_of::<f32>([4], &[1.0, 2.0, 3.0, 4.0])
}

fn eager() -> Trace {
    Trace::eager(Eager::new(1, Vec::new()))
}

/// What eager and planned passes say of an op, behind and before others.
fn errors_of(lie: Lie) -> [Option<String>; 2] {
    let n = if matches!(lie, Lie::InPlaceTwice | Lie::CopiesTwo) { 2 } else { 1 };
    let record = |trace: &Trace, x: &Var| -> Var {
        let y = trace.apply_all(Arc::new(Evil(lie)), &[&x.tanh()], n).swap_remove(0);
        trace.call("1", "Next", &y, |y| y.exp().softmax(-1))
    };
    let trace = eager();
    let y = record(&trace, &input(&trace));
    let found = trace.error().map(|error| error.to_string());
    let is_read = y.read::<f32>().is_ok();
    assert_eq!(is_read, found.is_none(), "{lie:?} gives numbers or an error");
    let trace = Trace::new();
    let y = record(&trace, &trace.input(Type::new(Dtype::F32, [4])));
    let program = trace.finish(&[y]).unwrap();
    let plan = Plan::new(program, &PlanOptions::default());
    [found, plan.err().map(|error| error.to_string())]
}

#[test]
fn what_cannot_be_is_an_error() {
    let says = |lie: Lie, expected: &str| {
        for found in errors_of(lie) {
            let found = found.unwrap_or_else(|| panic!("{lie:?} is an error"));
            assert!(found.contains(expected), "{lie:?}: {found}");
        }
    };
    assert_eq!(errors_of(Lie::None), [None, None]);
    says(Lie::InPlaceBig, "evil: f32[4] and f32[4194304] cannot share memory");
    says(Lie::InPlaceNowhere, "evil: no input 0 or output 7 to share memory");
    says(Lie::InPlaceTwice, "evil: input 0 or output 1 shares memory twice");
    says(Lie::FarLayout, "evil: expected f32[4] without gaps, got strides [4194304]");
    says(Lie::Overlapping, "evil: expected f32[4] without gaps, got strides [0]");
    says(Lie::NoLayout, "evil: expected the layouts of 1 outputs, got 0");
    says(Lie::OtherRank, "evil: expected f32[4] without gaps, got strides [1, 1, 1]");
    says(Lie::Scratch, "evil: can't allocate memory: you tried to allocate 4611686018427387904");
}

#[test]
fn only_a_plan_leaves_ops_out() {
    for (lie, expected) in [
        (Lie::CopiesBig, "evil: expected one input and one output of its size to copy"),
        (Lie::CopiesTwo, "evil: expected one input and one output of its size to copy"),
        (Lie::Edge, "evil: expected to pass the inputs of a call on as they are"),
    ] {
        let [_, planned] = errors_of(lie);
        assert_eq!(planned.as_deref(), Some(expected), "{lie:?}");
    }
}

#[test]
fn a_kernel_that_meets_other_operands_says_so() {
    let met = "evil panicked: a kernel meets the operands that it was made for";
    assert_eq!(errors_of(Lie::KernelOfOthers)[0].as_deref(), Some(met));
    assert_eq!(errors_of(Lie::KernelPanics)[0].as_deref(), Some("evil panicked: no numbers today"));
    let in_place = &errors_of(Lie::ReadsInPlace)[0];
    assert!(in_place.as_ref().is_some_and(|e| e.contains("in place through the output")));
    // The same, planned.
    for lie in [Lie::KernelOfOthers, Lie::KernelPanics, Lie::ReadsInPlace] {
        let x = Array::from_fn(Dtype::F32, [4], |i| i as f64);
        let run = || {
            planned(|v| vec![v[0].trace().apply(Evil(lie), &[&v[0].tanh()])], &[vec![x.clone()]]);
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err(), "{lie:?}");
    }
}

/// Every kind of kernel that works with addresses refuses operands with gaps, huge strides and huge sizes.
#[test]
fn kernels_are_made_for_operands_that_can_be() {
    let f32 = |shape: &[usize]| Type::new(Dtype::F32, shape);
    type Record = fn(&Var) -> Var;
    let records: [(&str, Record); 8] = [
        ("elementwise", |x| x * x),
        ("sum", |x| x.sum(&[-1], false)),
        ("softmax", |x| x.softmax(-1)),
        ("linear", |x| x.linear(x, None)),
        ("matmul", |x| x.matmul(&x.mt())),
        ("cross entropy", |x| {
            let target = x.trace().constant(1.0, Dtype::I64, [x.shape()[0]]);
            let zero = x.trace().constant(0.0, Dtype::F32, []);
            x.cross_entropy(&target, None, &zero, -100, Default::default())
        }),
        ("flip and copy", |x| x.t().reshape([16])),
        ("dropout", |x| x.dropout(&x.trace().constant(0.5, Dtype::F32, []))),
    ];
    for (what, record) in records {
        let trace = Trace::new();
        let x = trace.input(f32(&[4, 4]));
        let y = record(&x);
        let program = trace.finish(&[y]).unwrap_or_else(|error| panic!("{what}: {error}"));
        let node = program.nodes.last().unwrap();
        let operands = |ids: &[usize]| -> Vec<Operand> {
            ids.iter().map(|&id| Operand::row_major(program.ty(id).clone())).collect()
        };
        let (inputs, outputs) = (operands(&node.inputs), operands(&node.outputs));
        let far = [vec![BIG, 1], vec![usize::MAX, 1], vec![1, usize::MAX / 2], vec![0, 0], vec![]];
        for layout in far {
            let mut lying = inputs.clone();
            lying[0].layout = Layout::from(layout.clone());
            let run = || {
                let kernel = ask::kernel::<Cpu>(&*node.op, &lying, &outputs).unwrap();
                run_in_place_of(kernel, &inputs, &outputs)
            };
            // An error where it is made or where it runs, or numbers of its own.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        }
        for sizes in [vec![BIG, 4], vec![1 << 40, 1 << 40], vec![usize::MAX, usize::MAX], vec![2]] {
            let mut lying = inputs.clone();
            lying[0] =
                Operand::row_major(Type { dtype: Dtype::F32, shape: Shape::from(vec![4, 4]) });
            lying[0].ty.shape = Shape::from(sizes);
            let run = || {
                let kernel = ask::kernel::<Cpu>(&*node.op, &lying, &outputs).unwrap();
                run_in_place_of(kernel, &inputs, &outputs)
            };
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        }
    }
}

/// Runs a kernel as that of an op with these operands.
fn run_in_place_of(kernel: Box<dyn Kernel>, inputs: &[Operand], outputs: &[Operand]) {
    struct Given(std::sync::Mutex<Option<Box<dyn Kernel>>>, Vec<Type>);
    impl std::fmt::Debug for Given {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("given")
        }
    }
    impl Op for Given {
        fn name(&self) -> &'static str {
            "given"
        }
        fn outputs(&self, _: &[Type]) -> Result<Vec<Type>, OpError> {
            Ok(self.1.clone())
        }
        fn kernels(&self, ask: &mut Ask<'_>) {
            ask.give::<Cpu>(|_, _| self.0.lock().unwrap().take().unwrap());
        }
    }
    let trace = eager();
    let vars: Vec<_> = inputs
        .iter()
        .map(|operand| match operand.ty.dtype {
            Dtype::I64 => {
                trace.input_of(operand.ty.shape.clone(), &vec![1_i64; operand.ty.shape.numel()])
            }
            _ => trace.input_of(operand.ty.shape.clone(), &vec![1_f32; operand.ty.shape.numel()]),
        })
        .collect();
    let types: Vec<_> = outputs.iter().map(|operand| operand.ty.clone()).collect();
    let n = types.len();
    let op = Given(std::sync::Mutex::new(Some(kernel)), types);
    let _ = trace.apply_all(Arc::new(op), &vars.iter().collect::<Vec<_>>(), n);
}

#[test]
fn a_gradient_of_another_shape_is_an_error_in_torchs_words() {
    let trace = Trace::new();
    let x = trace.input(Type::new(Dtype::F32, [4]));
    let y = trace.apply(Evil(Lie::Gradient), &[&x.softmax(-1)]);
    let one = trace.constant(1.0, Dtype::F32, [4]);
    backward(&trace, &[(y, one)], &[x]);
    assert_eq!(
        trace.error().unwrap().message,
        "Function evil returned an invalid gradient at index 0 - got [3, 4] but expected shape compatible with [4]"
    );
}

/// Says `f32[4]` while it is recorded, and more every time it is asked afterwards.
#[derive(Debug, Default)]
struct Fickle(AtomicUsize);

impl Op for Fickle {
    fn name(&self) -> &'static str {
        "fickle"
    }

    fn outputs(&self, _: &[Type]) -> Result<Vec<Type>, OpError> {
        let asked = self.0.fetch_add(1, Ordering::Relaxed);
        Ok(vec![Type::new(Dtype::F32, [4 + asked * BIG])])
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|_, _| copy());
    }
}

#[test]
fn an_op_that_changes_its_mind_is_an_error() {
    let trace = Trace::new();
    let x = trace.input(Type::new(Dtype::F32, [4]));
    let y = trace.apply(Fickle::default(), &[&x]).exp();
    let program = trace.finish(&[y]).unwrap();
    let error = Plan::new(program, &PlanOptions::default()).err().unwrap().to_string();
    assert_eq!(error, "fickle: expected f32[4194308], found f32[4]");
}

/// Adds its second input to its first, in place.
#[derive(Debug)]
struct AddInto;

impl Op for AddInto {
    fn name(&self) -> &'static str {
        "add_into"
    }

    fn outputs(&self, inputs: &[Type]) -> Result<Vec<Type>, OpError> {
        Ok(vec![inputs[0].clone()])
    }

    fn in_place(&self) -> &[(usize, usize)] {
        &[(0, 0)]
    }

    fn kernels(&self, ask: &mut Ask<'_>) {
        ask.give::<Cpu>(|_, _| {
            Box::new(|tile: &mut Tile<'_>| {
                for model in 0..tile.models() {
                    let (inputs, mut outputs, _) = tile.model(model).split();
                    for (y, x) in outputs.take::<f32>().iter_mut().zip(inputs.get::<f32>(1)) {
                        *y += x;
                    }
                }
            })
        });
    }
}

#[test]
fn what_is_changed_in_place_is_read_elsewhere_as_it_was() {
    let x = Array::new(Dtype::F32, [3], [1.0, 2.0, 3.0]);
    let twice = |v: &[Var]| {
        let x = v[0].exp();
        let doubled = v[0].trace().apply(AddInto, &[&x, &x]);
        vec![&doubled + &x, doubled]
    };
    let found = planned(twice, &[vec![x.clone()], vec![x.clone()]]);
    for (i, x) in x.elements.iter().enumerate() {
        let expected = [3.0 * x.exp(), 2.0 * x.exp()];
        for (output, expected) in found[1].iter().zip(expected) {
            assert!((output.elements[i] - expected).abs() < 1e-4 * expected, "{found:?}");
        }
    }
}

#[test]
fn a_program_that_breaks_the_grammar_runs_nowhere() {
    let trace = Trace::new();
    let y = trace.input(Type::new(Dtype::F32, [4])).tanh();
    let op = trace.finish(&[y]).unwrap().nodes[0].op.clone();
    let small = Type::new(Dtype::F32, [4]);
    let mut bad = Program::default();
    bad.inputs.push(small.clone());
    let x = bad.push_value(small.clone(), Origin::Input(0));
    let out = bad.push(op, [x].into_iter().collect(), [Type::new(Dtype::F32, [BIG])], 0);
    bad.outputs.push(out[0]);
    let error = "tanh: expected f32[4], found f32[4194304]";
    assert_eq!(bad.verify().unwrap_err().to_string(), error);
    assert_eq!(Plan::new(bad.clone(), &PlanOptions::default()).err().unwrap().to_string(), error);
    let eager = Eager::new(1, Vec::new()).with_input(0, &[1_f32; 4]).run(&bad);
    assert_eq!(eager.read::<f32>(out[0]).unwrap_err().to_string(), error);
    assert_eq!(Trace::resume(bad).error().unwrap().message, error);

    let slot = Slot { name: "w".into(), role: Role::Buffer, position: 0, index: 0, ty: small };
    let twice = Program { slots: vec![slot.clone(), slot], ..Program::default() };
    assert_eq!(twice.verify().unwrap_err().to_string(), "w is a slot twice");
    let nowhere = Program { stores: vec![(3, 0)], ..Program::default() };
    assert!(nowhere.verify().is_err());
    let huge = Program { inputs: vec![Type::new(Dtype::F32, [1 << 63])], ..Program::default() };
    assert!(huge.verify().unwrap_err().to_string().contains("Storage size calculation overflowed"));
}
