//! The same bits from every instruction set and any number of threads: one scene, one hash.
//!
//! Two thousand models of four structures live, learn, die and multiply for 300 steps. Whatever a change makes of the
//! bits, [`HASH`] says whether it did: a commit that changes it says why in the changelog.

use std::env;
use std::io::Write;
use std::process::Command;

use ndarray::{Array1, ArrayD, IxDyn};
use neurarch::kernels::cpu::simd::InstructionSet;
use neurarch::prelude::*;
use sha2::{Digest, Sha256};

/// SHA-256 of all losses and of all that the models have come to.
const HASH: &str = "9c159f75bfc7353e24471349f45efbf48f5ad938700ef84ef6fb0989601d1c72";

const STEPS: usize = 300;

/// Steps that one call makes.
const AT_A_TIME: usize = 10;

/// Items that a step sees.
const BATCH: usize = 2;

const SCHEDULE: CosineAnnealingLR = CosineAnnealingLR { t_max: STEPS / AT_A_TIME, eta_min: 1e-5 };

/// Every so many steps some models die and others multiply, and every so many all models evolve.
const GENERATION: usize = 60;

#[test]
fn the_scene_has_its_hash_on_any_number_of_threads() {
    for threads in [1, 2, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let found = pool.install(scene);
        assert_eq!(found, HASH, "on {threads} threads, by {:?}", InstructionSet::current());
    }
}

/// The instruction set is chosen once a process, so this test runs the other one in processes of its own.
#[test]
fn the_scene_has_its_hash_in_every_instruction_set() {
    let available = InstructionSet::available();
    for set in [InstructionSet::Generic, InstructionSet::Avx2, InstructionSet::Avx512] {
        let known = if available.contains(&set) { "ran" } else { "not on this machine" };
        writeln!(std::io::stderr(), "{set:?}: {known}").unwrap();
        if !available.contains(&set) || set == InstructionSet::current() {
            continue;
        }
        let output = Command::new(env::current_exe().unwrap())
            .args(["one_hash::the_scene_of_this_process", "--exact", "--ignored", "--nocapture"])
            .env("NEURARCH_SIMD", format!("{set:?}").to_lowercase())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{set:?}: {said}");
    }
}

#[test]
#[ignore = "the test above runs it for each instruction set"]
fn the_scene_of_this_process() {
    assert_eq!(scene(), HASH, "by {:?}", InstructionSet::current());
}

/// Computes the scene's hash.
fn scene() -> String {
    let mut world = World::new();
    let mut populations = [
        Learners::spawn(&mut world, &perceptron(), 1_700, &[4]),
        Learners::spawn(&mut world, &convolution(), 150, &[1, 6, 6]),
        Learners::spawn(&mut world, &Recurrent, 80, &[5, 3]),
        Learners::spawn(&mut world, &attention(), 70, &[4, 8]),
    ];
    let mut hash = Sha256::new();
    for step in (0..STEPS).step_by(AT_A_TIME) {
        for learners in &mut populations {
            for loss in learners.train(&mut world, step) {
                hash.update(loss.to_bits().to_le_bytes());
            }
            if step % GENERATION == GENERATION - AT_A_TIME {
                learners.evolve(&mut world, step / GENERATION);
            }
        }
    }
    for Learners { population, .. } in populations {
        let mut tensors =
            world.population_mut(population).unwrap().stacked_state_dict().unwrap().tensors;
        for root in world.population(population).unwrap().models().to_vec() {
            tensors.extend(world.module_mut(root).unwrap().training_state().unwrap());
        }
        for tensor in tensors {
            hash.update(tensor.name.as_bytes());
            hash.update(tensor.little_endian());
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A population, and the shape of an item that its models see.
struct Learners {
    population: Entity,
    shape: Vec<usize>,
}

impl Learners {
    /// Spawns a population in which every model has rates of its own.
    fn spawn(world: &mut World, module: &impl Module, models: usize, shape: &[usize]) -> Self {
        let population = world.spawn_population(module, models, Seed(models as u64)).unwrap().id();
        let optimizer = |model: usize| {
            let lr = 1e-3 * (1 + model % 13) as f64;
            let beta2 = if model.is_multiple_of(3) { 0.99 } else { 0.999 };
            Adam { lr, betas: (0.9, beta2), weight_decay: 1e-4, ..Adam::default() }
        };
        world.population_mut(population).unwrap().insert_with(optimizer).unwrap();
        world.population_mut(population).unwrap().schedule(SCHEDULE).unwrap();
        Learners { population, shape: shape.to_vec() }
    }

    /// Takes some steps; gives all losses.
    fn train(&mut self, world: &mut World, step: usize) -> Vec<f32> {
        let items = BATCH * AT_A_TIME;
        let shape: Vec<usize> = [items].into_iter().chain(self.shape.iter().copied()).collect();
        let x = numbers(&shape, step);
        let y = Array1::from_shape_fn(items, |i| ((i * i + step) % 3 / 2) as i64);
        let data = DataSet::shared(x.view(), y.view()).batch(BATCH);
        let losses = world
            .population_mut(self.population)
            .unwrap()
            .train_steps(data, &CrossEntropyLoss::default())
            .unwrap();
        world.module_mut(self.population).unwrap().step_schedulers().unwrap();
        losses.iter().copied().collect()
    }

    /// Lets some models die and others multiply, so that as many are left, and changes all of them.
    fn evolve(&mut self, world: &mut World, generation: usize) {
        let roots = world.population(self.population).unwrap().models().to_vec();
        let dying = roots.iter().skip(generation).step_by(50);
        let deaths = dying.map(|&root| world.despawn(root)).filter(|&died| died).count();
        let left = roots.len() - deaths;
        let parents: Vec<usize> = (0..deaths / 2).map(|i| (i * 7 + generation) % left).collect();
        world.population_mut(self.population).unwrap().clone_models(&parents).unwrap();
        for root in world
            .population_mut(self.population)
            .unwrap()
            .spawn_models(deaths - parents.len())
            .unwrap()
        {
            world.entity_mut(root).insert(Adam::default());
            world.module_mut(root).unwrap().schedule(SCHEDULE).unwrap();
        }
        match generation % 3 {
            0 => world
                .population_mut(self.population)
                .unwrap()
                .perturb(Noise { std: 0.01, rate: 0.5 })
                .unwrap(),
            1 => {
                let pairs: Vec<_> =
                    (0..roots.len()).map(|i| (i, (i * 5 + generation) % roots.len())).collect();
                world.population_mut(self.population).unwrap().crossover(&pairs).unwrap();
            }
            _ => {
                let parents: Vec<_> = (0..roots.len()).map(|i| i - i % 2).collect();
                world.population_mut(self.population).unwrap().overwrite(&parents).unwrap();
            }
        }
    }
}

/// Numbers in [-1, 1) that tell elements and steps apart, exactly computed.
fn numbers(shape: &[usize], step: usize) -> ArrayD<f32> {
    let mut at = step as u32 * 7_919;
    ArrayD::from_shape_fn(IxDyn(shape), |_| {
        at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (at >> 8) as f32 / 8_388_608.0 - 1.0
    })
}

fn perceptron() -> Sequential {
    Sequential::new()
        .push(Linear::new(4, 11))
        .push(Tanh)
        .push(Linear::new(11, 7))
        .push(GELU::default())
        .push(Dropout { p: 0.2 })
        .push(Linear::new(7, 2))
}

fn convolution() -> Sequential {
    Sequential::new()
        .push(Conv2d::new(1, 3, 3))
        .push(BatchNorm2d::new(3))
        .push(ReLU)
        .push(MaxPool2d::new(2))
        .push(Flatten::default())
        .push(Linear::new(12, 2))
}

fn attention() -> Sequential {
    let layer = TransformerEncoderLayer {
        dim_feedforward: 10,
        batch_first: true,
        ..TransformerEncoderLayer::new(8, 2)
    };
    Sequential::new().push(layer).push(Flatten::default()).push(Linear::new(32, 2))
}

/// Classifies a sequence by what an LSTM says at its end.
#[derive(Component, Clone, Debug, PartialEq)]
struct Recurrent;

impl Module for Recurrent {
    fn declare(&self, declare: &mut Declare) {
        declare.child("lstm", LSTM { batch_first: true, ..LSTM::new(3, 5) });
        declare.child("head", Linear::new(5, 2));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let Some(y) = call.child_with("lstm", &x).leaves().first().map(|&y| y.clone()) else {
            return x;
        };
        call.child("head", &y.slice(1, 4..5).flatten(1, -1))
    }
}
