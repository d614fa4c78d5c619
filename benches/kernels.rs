//! The kernels one by one, planned as programs of their own, on one thread.
//!
//! ```text
//! cargo bench --bench kernels
//! cargo bench --bench kernels -- linear
//! ```
//!
//! A tile of models stays in the L2 cache, as it does within a larger program, so this is what a kernel costs
//! there. Items are floating-point operations, counted by each op itself: "Gitem/s" reads GFLOP/s.
#![expect(unsafe_code, reason = "the executor takes addresses")]

use divan::Bencher;
use divan::counter::ItemsCount;
use neurarch_kernels::cpu::tile::Rows;
use neurarch_kernels::execute::executor::{Binding, Sink, Source, Stage};
use neurarch_kernels::execute::queue::{Direction, Work, run};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Node, Role, Slot};
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::memory::{AlignedBytes, padded};
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::ops::update::adam::{AdamRates, AdamSettings};
use neurarch_kernels::passes::clean::drop_dead_code;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::plan::{Plan, PlanOptions};

/// Models run at a time: the rows of small ones fit the L2 cache together.
const MODELS: usize = 8;

/// `[batch, in_features, out_features]`: the layers of the populations in benches/population.
const LAYERS: [[usize; 3]; 6] =
    [[1, 16, 16], [32, 4, 16], [32, 16, 16], [32, 64, 32], [64, 64, 64], [64, 256, 256]];

fn main() {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1);
    one_thread.build_global().expect("nobody used rayon before");
    divan::main();
}

#[divan::bench(args = LAYERS)]
fn linear_forward(bencher: Bencher<'_, '_>, [batch, features, out]: [usize; 3]) {
    bench(bencher, |trace| {
        let [x, weight, bias] = layer(trace, batch, features, out);
        vec![x.linear(&weight, Some(&bias))]
    });
}

#[divan::bench(args = LAYERS)]
fn linear_backward(bencher: Bencher<'_, '_>, [batch, features, out]: [usize; 3]) {
    bench(bencher, |trace| {
        let wrt = layer(trace, batch, features, out);
        let y = wrt[0].linear(&wrt[1], Some(&wrt[2]));
        gradients(trace, &y, &wrt)
    });
}

#[divan::bench(args = [256, 4096])]
fn relu_forward(bencher: Bencher<'_, '_>, elements: usize) {
    bench(bencher, |trace| vec![input(trace, [elements]).relu()]);
}

#[divan::bench(args = [256, 4096])]
fn tanh_forward(bencher: Bencher<'_, '_>, elements: usize) {
    bench(bencher, |trace| vec![input(trace, [elements]).tanh()]);
}

#[divan::bench(args = [[1, 2], [32, 2], [32, 10]])]
fn cross_entropy_backward(bencher: Bencher<'_, '_>, [batch, classes]: [usize; 2]) {
    bench(bencher, |trace| {
        let logits = input(trace, [batch, classes]);
        let target = trace.input(Type::new(Dtype::I64, [batch]));
        let smoothing = trace.constant(0.0, Dtype::F32, []);
        let loss = logits.cross_entropy(&target, None, &smoothing, -100, Reduction::Mean);
        gradients(trace, &loss, &[logits])
    });
}

#[divan::bench(args = [64, 2048, 65_536])]
fn adam(bencher: Bencher<'_, '_>, elements: usize) {
    bench(bencher, |trace| {
        let slot = |role, ty: Type| {
            trace.slot(Slot { name: format!("{role:?}"), role, position: 0, index: 0, ty })
        };
        let ty = Type::new(Dtype::F32, [elements]);
        let states = [Role::State(0), Role::State(1)].map(|role| slot(role, ty.clone()));
        let steps = slot(Role::Steps, Type::new(Dtype::F32, [1]));
        let parameter = slot(Role::Parameter, ty);
        let gradient = input(trace, [elements]);
        let number = |value| trace.constant(value, Dtype::F64, []);
        let rates = [1e-3, 0.9, 0.999, 1e-8, 0.0].map(number);
        let [lr, beta1, beta2, eps, weight_decay] = rates.each_ref();
        let rates = AdamRates { lr, beta1, beta2, eps, weight_decay };
        let [m, v] = &states;
        let update = parameter.adam(&gradient, (m, v), &steps, &rates, AdamSettings::default());
        trace.store(&parameter, &update.parameter);
        trace.store(m, &update.exp_avg);
        trace.store(v, &update.exp_avg_sq);
        trace.store(&steps, &update.steps);
        Vec::new()
    });
}

fn layer(trace: &Trace, batch: usize, features: usize, out: usize) -> [Var; 3] {
    [input(trace, [batch, features]), input(trace, [out, features]), input(trace, [out])]
}

fn input<const N: usize>(trace: &Trace, shape: [usize; N]) -> Var {
    trace.input(Type::new(Dtype::F32, shape))
}

/// Records the gradients of `y`, with respect to some inputs, that a gradient of `y` gives.
fn gradients(trace: &Trace, y: &Var, wrt: &[Var]) -> Vec<Var> {
    let dy = trace.input(y.ty().clone());
    backward(trace, &[(y.clone(), dy)], wrt).into_iter().flatten().collect()
}

/// Times a program whose operands are inputs, for [`MODELS`] models.
fn bench(bencher: Bencher<'_, '_>, record: impl FnOnce(&Trace) -> Vec<Var>) {
    let trace = Trace::new();
    let outputs = record(&trace);
    // Of a backward pass only the gradients count, not the values that they do not need.
    let program = drop_dead_code(trace.finish(&outputs).expect("shapes that fit"));
    let type_of = |&value: &usize| program.ty(value).clone();
    let cost = |node: &Node| {
        let types = |values: &[usize]| values.iter().map(type_of).collect::<Vec<_>>();
        node.op.cost(&types(&node.inputs), &types(&node.outputs))
    };
    let flop = MODELS * program.nodes.iter().map(cost).sum::<usize>();
    let outputs: Vec<_> = program.outputs.iter().map(type_of).collect();
    let plan = Plan::new(program, &PlanOptions::default()).expect("a program just recorded");

    let slots = plan.program.slots.iter().map(|slot| slot.ty.clone()).collect();
    let (mut slots, mut inputs) =
        (Operands::new(slots), Operands::new(plan.program.inputs.clone()));
    let mut outputs = Operands::new(outputs);
    let source = |rows| Source { rows, step_bytes: 0, gather: None };
    let sink = |rows| Sink { rows, step_bytes: 0 };
    let slots: Vec<_> = slots.rows().collect();
    let inputs: Vec<_> = inputs.rows().map(source).collect();
    let outputs: Vec<_> = outputs.rows().map(sink).collect();
    let binding = Binding {
        models: MODELS,
        slots: &slots,
        inputs: &inputs,
        outputs: &outputs,
        scalars: &[],
        keys: &[],
    };
    let stages = [Stage { plan: &plan, binding, first_step: 0, steps: 1 }];
    bencher.counter(ItemsCount::new(flop)).bench_local(|| {
        // SAFETY: each operand has an aligned row for every model, of as many initialized elements as the
        // program says; indices in them are 0; the operands outlive the run, and nobody else has them.
        unsafe { run(&mut [Work::new(&stages)], Direction::Up) };
    });
}

/// Arrays of [`MODELS`] rows each.
struct Operands {
    types: Vec<Type>,
    bytes: Vec<AlignedBytes>,
}

impl Operands {
    fn new(types: Vec<Type>) -> Self {
        let array = |ty: &Type| {
            let mut bytes = AlignedBytes::new(MODELS * padded(ty.size_bytes()));
            fill(bytes.bytes_mut(), ty.dtype);
            bytes
        };
        Operands { bytes: types.iter().map(array).collect(), types }
    }

    fn rows(&mut self) -> impl Iterator<Item = Rows<'static>> {
        self.bytes.iter_mut().zip(&self.types).map(|(bytes, ty)| Rows::Strided {
            base: bytes.as_mut_ptr(),
            stride: padded(ty.size_bytes()),
        })
    }
}

/// Writes numbers that are neither large nor alike; indices are all 0.
fn fill(bytes: &mut [u8], dtype: Dtype) {
    if dtype == Dtype::F32 {
        for (i, element) in bytes.chunks_exact_mut(size_of::<f32>()).enumerate() {
            element.copy_from_slice(&((i % 17) as f32 / 8.0 - 1.0).to_ne_bytes());
        }
    }
}
