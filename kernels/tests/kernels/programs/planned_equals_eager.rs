//! A plan gives the bits that op-by-op execution gives, for every tile size, number of models and number of
//! threads: the first promise, at the level of programs.
#![expect(
    unsafe_code,
    reason = "the executor takes addresses; everything here is owned by the test"
)]

use neurarch_kernels::cpu::tile::Rows;
use neurarch_kernels::execute::executor::{Binding, Sink, Source, Stage};
use neurarch_kernels::execute::queue;
use neurarch_kernels::execute::queue::{Direction, Work};
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::eager::Eager;
use neurarch_kernels::ir::program::{Program, Role, Scalar, ScalarOf, Slot};
use neurarch_kernels::ir::rng_key::RngKey;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::memory::{AlignedBytes, padded};
use neurarch_kernels::ops::activation::gelu::Approximate;
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::ops::update::adam::{AdamRates, AdamSettings};
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::plan::{Plan, PlanOptions};
use neurarch_kernels::testing::cases;
use proptest::prelude::*;

/// The numbers of some models for one program.
#[derive(Clone)]
struct Models {
    count: usize,
    slots: Vec<Vec<f32>>,
    inputs: Vec<Vec<f32>>,
    targets: Vec<i64>,
    scalars: Vec<f64>,
    keys: Vec<RngKey>,
}

/// What a program gave: its outputs and the slots afterwards.
#[derive(Debug, PartialEq)]
struct Results {
    outputs: Vec<Vec<u32>>,
    slots: Vec<Vec<u32>>,
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// Numbers in [-1, 1) that follow from `seed` and their place.
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    (0..count as u64)
        .map(|i| {
            let x =
                (seed ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            ((x >> 40) as f32) / (1 << 23) as f32 - 1.0
        })
        .collect()
}

impl Models {
    fn new(program: &Program, count: usize, seed: u64) -> Models {
        let many = |n: usize, seed: u64| {
            (0..count as u64).flat_map(|model| numbers(seed + 1000 * model, n)).collect::<Vec<_>>()
        };
        let slot = |slot: &Slot| {
            let mut numbers =
                many(slot.ty.shape.numel(), seed + slot.position as u64 * 7 + slot.index as u64);
            match slot.role {
                Role::State(_) => numbers.iter_mut().for_each(|x| *x = x.abs()),
                Role::Steps => numbers.iter_mut().for_each(|x| *x = 3.0),
                _ => {}
            }
            numbers
        };
        let rows = program.inputs[0].shape[0];
        let class = |x: &f32| ((x + 1.0) * 1.5) as i64 % CLASSES as i64;
        let targets = many(rows, seed + 5).iter().map(class).collect();
        let scalar = |scalar: &Scalar| match scalar.name {
            "p" => 0.3,
            "lr" => 1e-2,
            "beta1" => 0.9,
            "beta2" => 0.999,
            "eps" => 1e-8,
            _ => 0.01,
        };
        Models {
            count,
            slots: program.slots.iter().map(slot).collect(),
            inputs: vec![many(program.inputs[0].shape.numel(), seed + 3)],
            targets,
            scalars: program.scalars.iter().flat_map(|s| vec![scalar(s); count]).collect(),
            keys: (0..count as u64).map(|number| RngKey { seed: 7, number, step: 11 }).collect(),
        }
    }

    /// Model `i` alone.
    fn only(&self, i: usize) -> Models {
        let of = |numbers: &Vec<f32>| {
            let n = numbers.len() / self.count;
            numbers[i * n..][..n].to_vec()
        };
        let rows = self.targets.len() / self.count;
        Models {
            count: 1,
            slots: self.slots.iter().map(of).collect(),
            inputs: self.inputs.iter().map(of).collect(),
            targets: self.targets[i * rows..][..rows].to_vec(),
            scalars: self.scalars.chunks(self.count).map(|of| of[i]).collect(),
            keys: vec![self.keys[i]],
        }
    }

    /// Runs one step, in both directions: the bits must not tell which.
    fn run_plan(&self, plan: &Plan) -> Results {
        let up = self.run_steps(plan, 1, Direction::Up);
        assert_eq!(up, self.run_steps(plan, 1, Direction::Down), "the other direction");
        up
    }

    /// Runs several steps on the same inputs, in one visit of each tile.
    fn run_steps(&self, plan: &Plan, steps: usize, direction: Direction) -> Results {
        let mut slots: Vec<_> =
            self.slots.iter().map(|slot| Column::new(slot, self.count)).collect();
        let types = plan.program.outputs.iter().map(|&id| plan.program.ty(id));
        let mut outputs: Vec<_> = types
            .map(|ty| Column::new(&vec![0.0; ty.shape.numel() * self.count], self.count))
            .collect();
        let stride = |ty: &Type| ty.size_bytes();
        let sources: Vec<_> = plan
            .program
            .inputs
            .iter()
            .enumerate()
            .map(|(input, ty)| {
                let base = if ty.dtype == Dtype::I64 {
                    self.targets.as_ptr().cast_mut().cast()
                } else {
                    self.inputs[input].as_ptr().cast_mut().cast()
                };
                Source {
                    rows: Rows::Strided { base, stride: stride(ty) },
                    step_bytes: 0,
                    gather: None,
                }
            })
            .collect();
        let sinks: Vec<_> =
            outputs.iter_mut().map(|out| Sink { rows: out.rows(), step_bytes: 0 }).collect();
        let slot_rows: Vec<_> = slots.iter_mut().map(Column::rows).collect();
        let binding = Binding {
            models: self.count,
            slots: &slot_rows,
            inputs: &sources,
            outputs: &sinks,
            scalars: &self.scalars,
            keys: &self.keys,
        };
        // SAFETY: all rows are of buffers above, which have a row of the program's type for each model.
        unsafe {
            queue::run(
                &mut [Work::new(&[Stage { plan, binding, first_step: 0, steps }])],
                direction,
            )
        };
        Results {
            outputs: outputs.iter().map(Column::bits).collect(),
            slots: slots.iter().map(Column::bits).collect(),
        }
    }

    fn run_eagerly(&self, program: &Program) -> Results {
        let mut eager = Eager::new(self.count, self.keys.clone());
        for (input, ty) in program.inputs.iter().enumerate() {
            eager = if ty.dtype == Dtype::I64 {
                eager.with_input(input, &self.targets)
            } else {
                eager.with_input(input, &self.inputs[input])
            };
        }
        for (slot, numbers) in program.slots.iter().zip(&self.slots) {
            eager = eager.with_slot((slot.role, slot.position, slot.index), numbers);
        }
        for (scalar, numbers) in program.scalars.iter().zip(self.scalars.chunks(self.count)) {
            eager = eager.with_scalar(scalar.clone(), numbers.to_vec());
        }
        let eager = eager.run(program);
        let read = |id| bits(&eager.read::<f32>(id).expect("a value of the program, of f32"));
        let mut slots: Vec<_> = self.slots.iter().map(|slot| bits(slot)).collect();
        for &(slot, id) in &program.stores {
            slots[slot] = read(id);
        }
        Results { outputs: program.outputs.iter().map(|&id| read(id)).collect(), slots }
    }
}

/// Rows padded to 64 bytes, as in a table.
struct Column {
    bytes: AlignedBytes,
    stride: usize,
    row_bytes: usize,
    count: usize,
}

impl Column {
    fn new(numbers: &[f32], count: usize) -> Column {
        let row_bytes = size_of_val(numbers) / count;
        let stride = padded(row_bytes.max(1));
        let mut bytes = AlignedBytes::new(stride * count);
        for (model, row) in bytemuck::cast_slice::<f32, u8>(numbers).chunks(row_bytes).enumerate() {
            bytes.bytes_mut()[model * stride..][..row_bytes].copy_from_slice(row);
        }
        Column { bytes, stride, row_bytes, count }
    }

    fn rows(&mut self) -> Rows<'static> {
        Rows::Strided { base: self.bytes.as_mut_ptr(), stride: self.stride }
    }

    fn bits(&self) -> Vec<u32> {
        (0..self.count)
            .flat_map(|m| {
                bytemuck::pod_collect_to_vec(
                    &self.bytes.bytes()[m * self.stride..][..self.row_bytes],
                )
            })
            .collect()
    }
}

#[derive(Clone, Debug)]
struct Net {
    batch: usize,
    widths: Vec<usize>,
    activations: [u8; 4],
    dropout: bool,
    adam: bool,
}

fn nets() -> impl Strategy<Value = Net> {
    let widths = prop::collection::vec(1..40_usize, 1..4);
    (1..40_usize, widths, any::<[u8; 4]>(), any::<bool>(), any::<bool>()).prop_map(
        |(batch, mut widths, activations, dropout, adam)| {
            widths.push(CLASSES);
            Net { batch, widths, activations, dropout, adam }
        },
    )
}

const CLASSES: usize = 3;

fn slot(role: Role, layer: usize, index: usize, shape: &[usize]) -> Slot {
    let name = format!("{layer}.{}", ["weight", "bias"][index]);
    Slot { name, role, position: layer, index, ty: Type::new(Dtype::F32, shape) }
}

/// Forward pass, loss, backward pass and update of a small classifier, as a user's program would be.
fn training_step(net: &Net) -> Program {
    let trace = Trace::new();
    let mut x = trace.input(Type::new(Dtype::F32, [net.batch, net.widths[0]]));
    let targets = trace.input(Type::new(Dtype::I64, [net.batch]));
    let mut slots = Vec::new();
    for (layer, sizes) in net.widths.windows(2).enumerate() {
        let weight = slot(Role::Parameter, layer, 0, &[sizes[1], sizes[0]]);
        let bias = slot(Role::Parameter, layer, 1, &[sizes[1]]);
        let (w, b) = (trace.slot(weight.clone()), trace.slot(bias.clone()));
        x = trace.call(&layer.to_string(), "Layer", &x, |x| {
            let y = x.linear(&w, Some(&b));
            match net.activations[layer] % 6 {
                0 => y.relu(),
                1 => y.tanh(),
                2 => y.sigmoid(),
                3 => y.silu(),
                4 => y.gelu(Approximate::None),
                _ => y,
            }
        });
        if net.dropout {
            x = x.dropout(&trace.module_scalar("p", layer, Dtype::F32));
        }
        slots.extend([weight, bias]);
    }
    let smoothing = trace.constant(0.1, Dtype::F32, []);
    let loss = x.cross_entropy(&targets, None, &smoothing, -100, Reduction::Mean);
    let one = trace.constant(1.0, Dtype::F32, []);
    let parameters: Vec<_> = slots.iter().map(|slot| trace.slot(slot.clone())).collect();
    let gradients = backward(&trace, &[(loss.clone(), one)], &parameters);
    for (slot, gradient) in slots.iter().zip(&gradients) {
        update(&trace, net, slot, gradient.as_ref().expect("the loss depends on every parameter"));
    }
    trace.finish(&[loss, x]).expect("shapes that fit")
}

fn update(trace: &Trace, net: &Net, slot: &Slot, gradient: &Var) {
    let parameter = trace.slot(slot.clone());
    if !net.adam {
        let rate = trace.constant(1e-2, Dtype::F32, []);
        trace.store(&parameter, &(&parameter - &(gradient * &rate)));
        return;
    }
    let rate = |name| {
        let (of, position) = (ScalarOf::Optimizer { group: 0 }, slot.position);
        trace.scalar(Scalar { name, of, position }, Dtype::F64)
    };
    let rates = AdamRates {
        lr: &rate("lr"),
        beta1: &rate("beta1"),
        beta2: &rate("beta2"),
        eps: &rate("eps"),
        weight_decay: &rate("weight_decay"),
    };
    let state = |state| trace.slot(Slot { role: Role::State(state), ..slot.clone() });
    let (mean, square) = (state(0), state(1));
    let steps = Slot { role: Role::Steps, ty: Type::new(Dtype::F32, [1]), ..slot.clone() };
    let steps = trace.slot(steps);
    let settings = AdamSettings::default();
    let new = parameter.adam(gradient, (&mean, &square), &steps, &rates, settings);
    trace.store(&parameter, &new.parameter);
    trace.store(&mean, &new.exp_avg);
    trace.store(&square, &new.exp_avg_sq);
    trace.store(&steps, &new.steps);
}

fn plan(program: &Program, tile: usize) -> Plan {
    Plan::new(program.clone(), &PlanOptions { tile: Some(tile), ..PlanOptions::default() })
        .expect("a program")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(40), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_gives_the_bits_of_eager_execution(net in nets(), models in 1..6_usize, tile in 1..4_usize) {
        let program = training_step(&net);
        program.verify().unwrap();
        let plan = plan(&program, tile);
        // Fusion drops slots that nobody reads and numbers the others anew.
        prop_assert_eq!(&plan.program.slots, &program.slots);
        let of_plan = Models::new(&plan.program, models, 1);
        let of_program = Models::new(&program, models, 1);
        prop_assert_eq!(of_plan.run_plan(&plan), of_program.run_eagerly(&program));
    }

    #[test]
    fn a_model_does_not_feel_its_neighbors(net in nets(), models in 2..9_usize, tile in 1..5_usize) {
        let plan = plan(&training_step(&net), tile);
        let all = Models::new(&plan.program, models, 2);
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let together = pool(2).install(|| all.run_plan(&plan));
        for model in 0..models {
            let alone = pool(1).install(|| all.only(model).run_plan(&plan));
            for (together, alone) in together.slots.iter().zip(&alone.slots) {
                prop_assert_eq!(&together[model * alone.len()..][..alone.len()], &alone[..]);
            }
            for (together, alone) in together.outputs.iter().zip(&alone.outputs) {
                prop_assert_eq!(&together[model * alone.len()..][..alone.len()], &alone[..]);
            }
        }
    }
}

#[test]
fn several_steps_in_one_visit_are_several_visits() {
    let net = Net {
        batch: 9,
        widths: vec![5, 17, CLASSES],
        activations: [0; 4],
        dropout: true,
        adam: true,
    };
    let plan = plan(&training_step(&net), 2);
    let mut models = Models::new(&plan.program, 5, 3);
    let at_once = models.run_steps(&plan, 3, Direction::Up);
    let mut last = None;
    for _ in 0..3 {
        let results = models.run_plan(&plan);
        for (slot, bits) in models.slots.iter_mut().zip(&results.slots) {
            *slot = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
        }
        models.keys.iter_mut().for_each(|key| key.step += 1);
        last = Some(results);
    }
    assert_eq!(Some(at_once), last);
}

#[test]
fn one_large_model_is_the_same_on_one_thread_and_on_several() {
    for widths in [vec![128, 1, CLASSES], vec![1, 300, CLASSES], vec![90, 257, 64, CLASSES]] {
        let net = Net { batch: 1024, widths, activations: [0; 4], dropout: true, adam: true };
        let plan = plan(&training_step(&net), 1);
        let model = Models::new(&plan.program, 1, 4);
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let on = |threads| pool(threads).expect("threads").install(|| model.run_plan(&plan));
        assert_eq!(on(1), on(2), "{net:?}");
        assert_eq!(on(1), on(3), "{net:?}");
    }
}
