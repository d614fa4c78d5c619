//! The populations and what is measured of them.

use std::error::Error;
use std::time::Instant;

use ndarray::{Array1, Array2, Array3};
use neurarch::prelude::*;

use super::measure::{
    Measurement, Number, Rule, Times, copy_plainly, read_plainly, resident_bytes,
};

pub type Failure = Box<dyn Error + Send + Sync>;

pub type Outcome = Result<Measurement, Failure>;

/// A world with a population, and room for its losses.
type Hooked = (World, Entity, Vec<f32>);

/// Registers hooks on the model with that root.
type Register = fn(&mut World, Entity) -> Result<(), Failure>;

/// Which hooks are measured.
const HOOKS: [(&str, Register); 5] = [
    ("nobody", |_, _| Ok(())),
    ("forward", |world, root| {
        world.module_mut(root)?.register_forward_hook(|_, _, _| Ok(None))?;
        Ok(())
    }),
    ("back", |world, root| {
        for module in world.module_mut(root)?.modules()? {
            world.module_mut(module)?.register_full_backward_hook(|_, _, _| Ok(None))?;
        }
        Ok(())
    }),
    ("weight", |world, root| {
        let first = world.module_mut(root)?.at("0")?.id();
        world
            .module_mut(first)?
            .register_parameter_hook("weight", |_, _, gradient| Ok(Some(gradient.clone())))?;
        Ok(())
    }),
    ("change", |world, root| {
        world.module_mut(root)?.register_forward_hook(|_, _, y| {
            Ok(y.and_then(Tree::leaf).map(|y| (y * 1.0).into()))
        })?;
        Ok(())
    }),
];

/// Times a step in two worlds in turn.
fn compare(
    rule: Rule,
    job: &'static str,
    mut worlds: [Hooked; 2],
    mut step: impl FnMut(&mut Hooked) -> Result<(), StepError>,
) -> Outcome {
    let [plain, hooked] = rule.compare(&mut worlds, &mut step)?;
    let numbers = vec![
        Number { key: "us_without", words: "µs without", value: plain.median * 1e6 },
        Number { key: "us_with", words: "µs with", value: hooked.median * 1e6 },
        Number { key: "ratio", words: "of the time", value: hooked.median / plain.median },
    ];
    Ok(Measurement { case: "hooks", job, numbers })
}

/// Models of one shape: Linear layers with ReLU between them, trained on a minibatch of their own.
#[derive(Clone, Copy)]
pub struct Population {
    pub name: &'static str,
    pub models: usize,
    /// Features before the first layer and after each.
    pub widths: [usize; 4],
    pub batch: usize,
}

pub const TINY: Population =
    Population { name: "tiny", models: 10_000, widths: [4, 16, 16, 2], batch: 32 };
pub const SMALL: Population =
    Population { name: "small", models: 1_000, widths: [16, 64, 64, 8], batch: 64 };
pub const MEDIUM: Population =
    Population { name: "medium", models: 100, widths: [64, 256, 256, 10], batch: 64 };

impl Population {
    pub fn network(&self) -> Sequential {
        let [a, b, c, d] = self.widths;
        let network = Sequential::new().push(Linear::new(a, b)).push(ReLU);
        network.push(Linear::new(b, c)).push(ReLU).push(Linear::new(c, d))
    }

    /// Multiplications of one model at batch 1.
    fn products(&self) -> usize {
        self.widths.windows(2).map(|pair| pair[0] * pair[1]).sum()
    }

    /// Parameters of one model.
    pub fn parameters(&self) -> usize {
        self.products() + self.widths[1..].iter().sum::<usize>()
    }

    /// Inputs that differ, and are neither large nor zero: `[models, batch, features]`.
    pub fn inputs(&self, batch: usize) -> Array3<f32> {
        let shape = (self.models, batch, self.widths[0]);
        Array3::from_shape_fn(shape, |(model, item, feature)| {
            ((model * 7 + item * 3 + feature * 5) % 11) as f32 / 5.0 - 1.0
        })
    }

    /// Classes: `[models, batch]`.
    pub fn targets(&self) -> Array2<i64> {
        let classes = self.widths[3];
        Array2::from_shape_fn((self.models, self.batch), |(model, item)| {
            ((model + item) % classes) as i64
        })
    }

    pub fn spawned(&self, models: usize) -> Result<(World, Entity), Box<dyn Error + Send + Sync>> {
        let mut world = World::new();
        let settings = PopulationSettings { models, ..PopulationSettings::default() };
        let population = world.spawn_population_with(&self.network(), settings)?.id();
        Ok((world, population))
    }

    /// Times one step of Adam for every model.
    pub fn train(&self, rule: Rule) -> Outcome {
        let (mut world, population) = self.spawned(self.models)?;
        world.population_mut(population)?.insert_with(|_| Adam::default())?;
        let (inputs, targets) = (self.inputs(self.batch), self.targets());
        let loss = CrossEntropyLoss::default();
        let mut losses = vec![0.0; self.models];
        let times = rule.measure(|| {
            world.population_mut(population)?.train_step_into(&inputs, &targets, &loss, &mut losses)
        })?;
        Ok(self.measurement("train", times, 6 * self.products() * self.batch))
    }

    /// Times sixteen steps of Adam for every model in one visit, on minibatches that it picks in an order of its own from
    /// a data set: a step's share of that.
    pub fn visit(&self, rule: Rule) -> Outcome {
        const STEPS: usize = 16;
        let (mut world, population) = self.spawned(self.models)?;
        world.population_mut(population)?.insert_with(|_| Adam::default())?;
        let items = STEPS * self.batch;
        let inputs = Array2::from_shape_fn((items, self.widths[0]), |(item, feature)| {
            ((item * 3 + feature * 5) % 11) as f32 / 5.0 - 1.0
        });
        let targets = Array1::from_shape_fn(items, |item| (item % self.widths[3]) as i64);
        let order = Array2::from_shape_fn((self.models, items), |(model, item)| {
            ((item * 7 + model) % items) as u32
        });
        let data =
            DataSet::shared(inputs.view(), targets.view()).order(order.view()).batch(self.batch);
        let loss = CrossEntropyLoss::default();
        let times = rule
            .measure(|| {
                world.population_mut(population)?.train_steps(data.clone(), &loss).map(drop)
            })?
            .shared_by(STEPS);
        Ok(self.measurement("visit", times, 6 * self.products() * self.batch))
    }

    /// Times one forward pass of every model at batch 1, and a plain read of as many bytes as their
    /// parameters have.
    pub fn infer(&self, rule: Rule) -> Outcome {
        let (mut world, population) = self.spawned(self.models)?;
        world.population_mut(population)?.eval()?;
        world.set_grad_enabled(false);
        let inputs = self.inputs(1);
        let mut outputs = Array3::zeros((self.models, 1, self.widths[3]));
        let times = rule.measure(|| {
            world.population_mut(population)?.forward_into(&inputs, outputs.view_mut())
        })?;
        let read = read_plainly(4 * self.models * self.parameters(), rule);
        let mut measurement = self.measurement("infer", times, 2 * self.products());
        measurement.numbers.extend([
            Number { key: "read_us", words: "µs to read as much", value: read.median * 1e6 },
            Number { key: "read_share", words: "of that speed", value: read.median / times.median },
        ]);
        Ok(measurement)
    }

    /// Times a call with hooks on one model of the population, and without, in turn: a training step with each
    /// kind of hook, the same call by call, then a forward pass at batch 1.
    pub fn hooked(&self, rule: Rule, mut show: impl FnMut(Measurement)) -> Result<(), Failure> {
        let inputs = self.inputs(self.batch);
        let classes = self.widths[3];
        let targets = self.targets();
        let loss = CrossEntropyLoss::default();
        for (job, hook) in HOOKS {
            let mut worlds = self.pair(hook)?;
            for (world, population, _) in &mut worlds {
                world.population_mut(*population)?.insert_with(|_| Adam::default())?;
            }
            let step = |(world, population, losses): &mut Hooked| {
                world.population_mut(*population)?.train_step_into(&inputs, &targets, &loss, losses)
            };
            show(compare(rule, job, worlds, step)?);
        }
        let mut worlds = self.pair(HOOKS[2].1)?;
        for (world, population, _) in &mut worlds {
            world.population_mut(*population)?.insert_with(|_| Adam::default())?;
        }
        let step = |(world, population, _): &mut Hooked| {
            world.module_mut(*population)?.zero_grad()?;
            world.population_mut(*population)?.forward(&inputs)?;
            world.population_mut(*population)?.loss::<f32, i64>(&targets, &loss)?;
            world.population_mut(*population)?.backward()?;
            world.population_mut(*population)?.step()
        };
        show(compare(rule, "calls", worlds, step)?);
        let mut worlds = self.pair(HOOKS[1].1)?;
        let inputs = self.inputs(1);
        for (world, population, _) in &mut worlds {
            world.module_mut(*population)?.eval()?;
            world.set_grad_enabled(false);
        }
        let mut outputs = Array3::zeros((self.models, 1, classes));
        let step = |(world, population, _): &mut Hooked| {
            world.population_mut(*population)?.forward_into(&inputs, outputs.view_mut())
        };
        show(compare(rule, "infer", worlds, step)?);
        Ok(())
    }

    /// Spawns the population twice, the second time with hooks on one model.
    fn pair(&self, hook: Register) -> Result<[Hooked; 2], Failure> {
        let spawned = || -> Result<Hooked, Failure> {
            let (world, population) = self.spawned(self.models)?;
            Ok((world, population, vec![0.0; self.models]))
        };
        let mut pair = [spawned()?, spawned()?];
        let (world, population, _) = &mut pair[1];
        let root = world.population(*population)?.models()[self.models / 2];
        hook(world, root)?;
        Ok(pair)
    }

    fn measurement(&self, job: &'static str, times: Times, flop_per_model: usize) -> Measurement {
        let Times { median, best } = times;
        let models = self.models as f64;
        let numbers = vec![
            Number { key: "us_per_step", words: "µs a step", value: median * 1e6 },
            Number { key: "best_us", words: "µs at best", value: best * 1e6 },
            Number {
                key: "model_steps_per_s",
                words: "model-steps a second",
                value: models / median,
            },
            Number {
                key: "gflops",
                words: "GFLOP/s",
                value: models * flop_per_model as f64 / median / 1e9,
            },
        ];
        Measurement { case: self.name, job, numbers }
    }

    /// Times spawning the whole population into an empty World.
    pub fn spawn(&self, rule: Rule) -> Outcome {
        let times = rule.measure(|| self.spawned(self.models).map(drop))?;
        let per_model = times.median * 1e6 / self.models as f64;
        let numbers = vec![
            Number { key: "us_per_step", words: "µs for all models", value: times.median * 1e6 },
            Number { key: "best_us", words: "µs at best", value: times.best * 1e6 },
            Number { key: "us_per_model", words: "µs a model", value: per_model },
        ];
        Ok(Measurement { case: "spawn", job: self.name, numbers })
    }

    /// Times truncation selection, in which a half of the models, chosen at random, is overwritten by models of the
    /// other half, and a plain copy of as many bytes as their parameters have.
    pub fn overwrite(&self, rule: Rule) -> Outcome {
        let (mut world, population) = self.spawned(self.models)?;
        // Multiplying by a prime puts the models in an order without order.
        let rank = |model: usize| model * 7_919 % self.models;
        let survivors: Vec<_> = (0..self.models).filter(|&m| rank(m) < self.models / 2).collect();
        let parent = |model: usize| match rank(model) {
            rank if rank < self.models / 2 => model,
            rank => survivors[rank * 31 % survivors.len()],
        };
        let parents: Vec<_> = (0..self.models).map(parent).collect();
        let bytes = 4 * self.parameters() * (self.models - survivors.len());
        let times = rule.measure(|| world.population_mut(population)?.overwrite(&parents))?;
        let copy = copy_plainly(bytes, rule);
        let numbers = vec![
            Number { key: "us_per_step", words: "µs", value: times.median * 1e6 },
            Number { key: "best_us", words: "µs at best", value: times.best * 1e6 },
            Number { key: "gb_per_s", words: "GB/s", value: bytes as f64 / times.median / 1e9 },
            Number { key: "copy_us", words: "µs to copy as much", value: copy.median * 1e6 },
            Number { key: "copy_share", words: "of that speed", value: copy.median / times.median },
        ];
        Ok(Measurement { case: "overwrite", job: self.name, numbers })
    }

    /// Times noise on every parameter, and a mixture of two parents for every model.
    pub fn vary(&self, rule: Rule) -> Outcome {
        let (mut world, population) = self.spawned(self.models)?;
        let perturb =
            rule.measure(|| world.population_mut(population)?.perturb(Noise::normal(1e-3)))?;
        let parents: Vec<_> =
            (0..self.models).map(|model| (model, model * 7_919 % self.models)).collect();
        let cross = rule.measure(|| world.population_mut(population)?.crossover(&parents))?;
        let numbers = (self.models * self.parameters()) as f64;
        let numbers = vec![
            Number { key: "perturb_us", words: "µs to perturb all", value: perturb.median * 1e6 },
            Number {
                key: "perturb_ns",
                words: "ns a number",
                value: perturb.median * 1e9 / numbers,
            },
            Number { key: "crossover_us", words: "µs to mix all", value: cross.median * 1e6 },
        ];
        Ok(Measurement { case: "vary", job: self.name, numbers })
    }

    /// Times cloning all models, and spawning as many more into the same population.
    pub fn clone(&self, rule: Rule) -> Outcome {
        let all: Vec<_> = (0..self.models).collect();
        let clone = self.grow(rule, |world, population| {
            Ok(world.population_mut(population)?.clone_models(&all).map(drop)?)
        })?;
        let spawn = self.grow(rule, |world, population| {
            Ok(world.population_mut(population)?.spawn_models(self.models).map(drop)?)
        })?;
        let numbers = vec![
            Number { key: "us_per_step", words: "µs for all models", value: clone.median * 1e6 },
            Number { key: "best_us", words: "µs at best", value: clone.best * 1e6 },
            Number { key: "spawn_us", words: "µs to spawn as many", value: spawn.median * 1e6 },
            Number { key: "of_spawn", words: "of that time", value: clone.median / spawn.median },
        ];
        Ok(Measurement { case: "clone", job: self.name, numbers })
    }

    /// Times what makes a new population grow.
    fn grow(
        &self,
        rule: Rule,
        more: impl Fn(&mut World, Entity) -> Result<(), Box<dyn Error + Send + Sync>>,
    ) -> Result<Times, Box<dyn Error + Send + Sync>> {
        rule.measure_part(|| {
            let (mut world, population) = self.spawned(self.models)?;
            let start = Instant::now();
            more(&mut world, population)?;
            Ok(start.elapsed())
        })
    }

    /// Times the forward pass of a single model at batch 1, a thousand at a time: the clock itself
    /// takes some 30 ns.
    pub fn single(&self, rule: Rule) -> Outcome {
        const TIMES: usize = 1_000;
        let (mut world, population) = self.spawned(1)?;
        world.population_mut(population)?.eval()?;
        world.set_grad_enabled(false);
        let inputs = Array3::from_elem((1, 1, self.widths[0]), 0.5_f32);
        let mut outputs = Array3::zeros((1, 1, self.widths[3]));
        let times = rule.measure(|| {
            let mut forward =
                |_| world.population_mut(population)?.forward_into(&inputs, outputs.view_mut());
            (0..TIMES).try_for_each(&mut forward)
        })?;
        let ns = times.median * 1e9 / TIMES as f64;
        let layers = 5.0; // Three Linear, two ReLU.
        let numbers = vec![
            Number { key: "ns_per_forward", words: "ns a forward pass", value: ns },
            Number { key: "ns_per_layer", words: "ns a layer", value: ns / layers },
        ];
        Ok(Measurement { case: "single", job: self.name, numbers })
    }

    /// Times what is done with all gradients before a step and with all weights after it: norms, clipping, an
    /// average; and a plain read of as many bytes.
    pub fn clip(&self, rule: Rule) -> Outcome {
        let (mut world, population) = self.spawned(self.models)?;
        let averaged = world.spawn_population(&self.network(), self.models, Seed(1))?.id();
        world.entity_mut(averaged).insert(AveragedModel::new(AverageFn::Ema { decay: 0.9 }));
        world.population_mut(population)?.forward(&self.inputs(self.batch))?;
        let targets = self.targets();
        world.population_mut(population)?.loss::<f32, _>(&targets, &CrossEntropyLoss::default())?;
        world.population_mut(population)?.backward()?;
        let norm =
            rule.measure(|| world.population_mut(population)?.get_total_norm(2.0).map(drop))?;
        // Each time all are longer than that.
        let longest =
            world.population_mut(population)?.get_total_norm(2.0)?.into_iter().fold(0.0, f64::max);
        let mut max_norm = longest / 1e3;
        let clip = rule.measure(|| {
            max_norm *= 0.99;
            world.population_mut(population)?.clip_grad_norm_(max_norm).map(drop)
        })?;
        let value = rule.measure(|| world.population_mut(population)?.clip_grad_value_(1e-3))?;
        let average =
            rule.measure(|| world.population_mut(averaged)?.update_parameters(population))?;
        let read = read_plainly(4 * self.models * self.parameters(), rule);
        let numbers = vec![
            Number { key: "norm_us", words: "µs for norms", value: norm.median * 1e6 },
            Number { key: "clip_us", words: "µs to clip norms", value: clip.median * 1e6 },
            Number { key: "value_us", words: "µs to clip values", value: value.median * 1e6 },
            Number { key: "average_us", words: "µs to average", value: average.median * 1e6 },
            Number { key: "read_us", words: "µs to read as much", value: read.median * 1e6 },
        ];
        Ok(Measurement { case: "clip", job: self.name, numbers })
    }

    /// Times a training step with a gradient scaler, and without, in turn.
    pub fn scaled(&self, rule: Rule) -> Outcome {
        let spawned = |is_scaled: bool| -> Result<(World, Entity, bool), Failure> {
            let (mut world, population) = self.spawned(self.models)?;
            world.population_mut(population)?.insert_with(|_| Adam::default())?;
            world.population_mut(population)?.insert(GradScaler::default())?;
            Ok((world, population, is_scaled))
        };
        let (inputs, targets) = (self.inputs(self.batch), self.targets());
        let loss = CrossEntropyLoss::default();
        let mut worlds = [spawned(false)?, spawned(true)?];
        let step = |(world, population, is_scaled): &mut (World, Entity, bool)| match is_scaled {
            true => {
                let losses: Result<ndarray::Array1<f32>, Failure> = world
                    .population_mut(*population)?
                    .train_step_scaled(&inputs, &targets, &loss)
                    .map_err(Into::into);
                losses.map(drop)
            }
            false => {
                let losses: Result<ndarray::Array1<f32>, Failure> = world
                    .population_mut(*population)?
                    .train_step(&inputs, &targets, &loss)
                    .map_err(Into::into);
                losses.map(drop)
            }
        };
        let [plain, scaled] = rule.compare(&mut worlds, step)?;
        let numbers = vec![
            Number { key: "us_without", words: "µs without", value: plain.median * 1e6 },
            Number { key: "us_with", words: "µs with", value: scaled.median * 1e6 },
            Number { key: "ratio", words: "of the time", value: scaled.median / plain.median },
        ];
        Ok(Measurement { case: "scaler", job: self.name, numbers })
    }

    /// Weighs a population: what the process grew by for each model, less the model's numbers.
    pub fn memory(&self) -> Outcome {
        let resident = || resident_bytes().ok_or("this system does not tell a process's memory");
        // What the first spawn registers for all is no model's own.
        let first = self.spawned(1)?;
        let before = resident()?;
        let all = self.spawned(self.models)?;
        let grown = resident()?.saturating_sub(before);
        drop((first, all));
        let numbers = 4 * self.parameters();
        let per_model = grown as f64 / self.models as f64;
        Ok(Measurement {
            case: "memory",
            job: self.name,
            numbers: vec![
                Number { key: "bytes_per_model", words: "bytes a model", value: per_model },
                Number {
                    key: "bytes_of_numbers",
                    words: "bytes of them numbers",
                    value: numbers as f64,
                },
                Number {
                    key: "bytes_beyond",
                    words: "bytes beyond",
                    value: per_model - numbers as f64,
                },
            ],
        })
    }
}
