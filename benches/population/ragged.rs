//! Populations that are not of one piece: many structures, models that come and go, hooks on all, calls one by one, halves.

use std::time::Instant;

use ndarray::{Array1, Array2, Array3};
use neurarch::kernels::ir::dtype::{Element, bf16, f16};
use neurarch::prelude::*;

use super::cases::{Failure, MEDIUM, Outcome, Population, SMALL, TINY};
use super::measure::{Measurement, Number, Rule, Times, resident_bytes};

/// ReLU with a number: another structure of equal work.
#[derive(Component, Clone, Debug, PartialEq)]
struct Numbered(usize);

impl Module for Numbered {
    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x.relu()
    }
}

/// Makes a line of what two subjects took.
fn beside(
    (case, job): (&'static str, &'static str),
    of: Option<Number>,
    [(key, words, times), (other_key, other_words, other)]: [(&'static str, &'static str, Times);
        2],
) -> Measurement {
    let ratio = other.median / times.median;
    let mut numbers: Vec<_> = of.into_iter().collect();
    numbers.extend([
        Number { key, words, value: times.median * 1e6 },
        Number { key: other_key, words: other_words, value: other.median * 1e6 },
        Number { key: "ratio", words: "of the time", value: ratio },
    ]);
    Measurement { case, job, numbers }
}

impl Population {
    /// Spawns the population as so many structures of equal work, neighbors of one structure side by side.
    fn of_structures(&self, structures: usize) -> Result<(World, Entity), Failure> {
        let [a, b, c, d] = self.widths;
        let network = Sequential::new().push(Linear::new(a, b)).push(Numbered(0));
        let network = network.push(Linear::new(b, c)).push(ReLU).push(Linear::new(c, d));
        let mut world = World::new();
        let settings = PopulationSettings { models: self.models, ..PopulationSettings::default() };
        let population = world.spawn_population_with(&network, settings)?.id();
        world.population_mut(population)?.insert_with(|_| Adam::default())?;
        for (model, root) in world.population(population)?.models().to_vec().into_iter().enumerate()
        {
            let number = model * structures / self.models;
            if number > 0 {
                let relu = world.module_mut(root)?.at("1")?.id();
                world.entity_mut(relu).insert(Numbered(number));
            }
        }
        Ok((world, population))
    }

    /// Times a training step of all models where they are of so many structures, and where they are of one, in turn.
    pub fn ragged(&self, structures: usize, rule: Rule) -> Outcome {
        let (inputs, targets) = (self.inputs(self.batch), self.targets());
        let (loss, mut losses) = (CrossEntropyLoss::default(), vec![0.0; self.models]);
        let mut step = |(world, population): &mut (World, Entity)| {
            world.population_mut(*population)?.train_step_into(
                &inputs,
                &targets,
                &loss,
                &mut losses,
            )
        };
        let mut one = self.of_structures(1)?;
        step(&mut one)?;
        let resident = || resident_bytes().ok_or("this system does not tell a process's memory");
        let before = resident()?;
        let mut many = self.of_structures(structures)?;
        let begin = Instant::now();
        step(&mut many)?;
        let first = begin.elapsed().as_secs_f64();
        // Parameters, and two moments of each.
        let numbers = 3 * 4 * self.models * self.parameters();
        let beyond = resident()?.saturating_sub(before).saturating_sub(numbers);
        let [one, many] = rule.compare(&mut [one, many], step)?;
        let numbers = vec![
            Number { key: "structures", words: "structures", value: structures as f64 },
            Number { key: "us_per_step", words: "µs a step", value: many.median * 1e6 },
            Number { key: "us_of_one", words: "µs as one structure", value: one.median * 1e6 },
            Number { key: "ratio", words: "of the time", value: many.median / one.median },
            Number {
                key: "mib",
                words: "MiB beyond the numbers",
                value: beyond as f64 / (1 << 20) as f64,
            },
            Number { key: "us_first", words: "µs for the first step", value: first * 1e6 },
        ];
        Ok(Measurement { case: "ragged", job: "train", numbers })
    }

    /// Times a training step of all models where they are of so many populations: called one after the other, and all at
    /// once, in turn; and, likewise, all at once beside all in one population.
    pub fn parted(&self, populations: usize, rule: Rule) -> Outcome {
        let models = self.models / populations;
        let spawn = |populations: usize, models: usize| -> Result<_, Failure> {
            let mut world = World::new();
            let settings = PopulationSettings { models, ..PopulationSettings::default() };
            let mut all = Vec::with_capacity(populations);
            for _ in 0..populations {
                all.push(world.spawn_population_with(&self.network(), settings)?.id());
            }
            for &population in &all {
                world.population_mut(population)?.insert_with(|_| Adam::default())?;
            }
            Ok((world, all))
        };
        let data = |models| {
            let part = Population { models, ..*self };
            (part.inputs(self.batch), part.targets())
        };
        let (whole, parts) = (data(self.models), data(models));
        let loss = CrossEntropyLoss::default();
        let step = |(world, all, (x, y), at_once): &mut (World, Vec<Entity>, &(_, _), bool)| {
            if *at_once {
                let steps: Vec<_> = all.iter().map(|&of| TrainStep::new(of, x, y, &loss)).collect();
                return world.train_step_all::<f32>(&steps).map(drop);
            }
            all.iter()
                .try_for_each(|&of| world.population_mut(of)?.train_step(x, y, &loss).map(drop))
        };
        let parted = |at_once| -> Result<_, Failure> {
            let (world, all) = spawn(populations, models)?;
            Ok((world, all, &parts, at_once))
        };
        let [each, _] = rule.compare(&mut [parted(false)?, parted(true)?], step)?;
        let (world, one) = spawn(1, self.models)?;
        let [one, all] = rule.compare(&mut [(world, one, &whole, true), parted(true)?], step)?;
        let numbers = vec![
            Number { key: "populations", words: "populations", value: populations as f64 },
            Number { key: "us_each", words: "µs one after the other", value: each.median * 1e6 },
            Number { key: "us_all", words: "µs at once", value: all.median * 1e6 },
            Number { key: "us_of_one", words: "µs as one population", value: one.median * 1e6 },
            Number { key: "ratio", words: "of the time", value: all.median / one.median },
        ];
        Ok(Measurement { case: "populations", job: "train", numbers })
    }

    /// Times forward passes at batch 1: of a population at rest, right after one model in a hundred died and as many
    /// were born, and the one after that.
    pub fn churn(&self, rule: Rule) -> Result<(Measurement, Measurement), Failure> {
        let mut world = World::new();
        let (models, turnover) = (self.models, self.models / 100);
        let settings = PopulationSettings {
            models,
            capacity: models + turnover,
            ..PopulationSettings::default()
        };
        let population = world.spawn_population_with(&self.network(), settings)?.id();
        world.population_mut(population)?.eval()?;
        world.set_grad_enabled(false);
        let inputs = self.inputs(1);
        let mut outputs = Array3::zeros((models, 1, self.widths[3]));
        let mut times: [Vec<f64>; 4] = Default::default();
        let begin = Instant::now();
        let mut round = 0;
        while times[0].len() < rule.least
            || (times[0].len() < rule.most && begin.elapsed() < rule.time)
        {
            let mut forward = |world: &mut World| -> Result<f64, Failure> {
                let start = Instant::now();
                world.population_mut(population)?.forward_into(&inputs, outputs.view_mut())?;
                Ok(start.elapsed().as_secs_f64())
            };
            forward(&mut world)?;
            let steady = forward(&mut world)?;
            let start = Instant::now();
            for number in 0..turnover {
                let all = world.population(population)?.models();
                let model = all[(round * 7_919 + number * 104_729) % all.len()];
                world.despawn(model);
            }
            world.population_mut(population)?.spawn_models(turnover)?;
            let turned = start.elapsed().as_secs_f64();
            let (after, next) = (forward(&mut world)?, forward(&mut world)?);
            round += 1;
            if round > rule.warm_ups {
                let taken = [steady, turned, after, next];
                times.iter_mut().zip(taken).for_each(|(times, taken)| times.push(taken));
            }
        }
        let [steady, turned, after, next] = times.map(Times::of);
        let turned = Number {
            key: "us_turnover",
            words: "µs to despawn and spawn",
            value: turned.median * 1e6,
        };
        let at_rest = ("us_forward", "µs at rest", steady);
        let after = ("us_forward_after_churn", "µs after turnover", after);
        let next = ("us_forward_then", "µs the time after", next);
        Ok((
            beside(("churn", "infer"), Some(turned), [at_rest, after]),
            beside(("churn", "then"), None, [at_rest, next]),
        ))
    }

    /// Times a training step with a forward hook that looks on each model, and without any, in turn: one that might change
    /// something, or one that only looks, as its type says.
    pub fn hooked_each(&self, job: &'static str, rule: Rule) -> Outcome {
        let (inputs, targets) = (self.inputs(self.batch), self.targets());
        let loss = CrossEntropyLoss::default();
        let spawned = |is_hooked: bool| -> Result<_, Failure> {
            let (mut world, population) = self.spawned(self.models)?;
            world.population_mut(population)?.insert_with(|_| Adam::default())?;
            let roots = world.population(population)?.models().to_vec();
            for root in roots.into_iter().filter(|_| is_hooked) {
                match job {
                    "each-looks" => world.module_mut(root)?.register_forward_hook(|_, _, _| ())?,
                    _ => world.module_mut(root)?.register_forward_hook(|_, _, _| Ok(None))?,
                };
            }
            Ok((world, population, vec![0.0; self.models]))
        };
        let step = |(world, population, losses): &mut (World, Entity, Vec<f32>)| {
            world.population_mut(*population)?.train_step_into(&inputs, &targets, &loss, losses)
        };
        let [plain, hooked] = rule.compare(&mut [spawned(false)?, spawned(true)?], step)?;
        let call = (hooked.median - plain.median) * 1e6 / self.models as f64;
        let of = Number { key: "us_per_call", words: "µs more a call of a hook", value: call };
        let both = [("us_without", "µs without", plain), ("us_with", "µs with", hooked)];
        Ok(beside(("hooks", job), Some(of), both))
    }

    /// Times a training step in one call, and in a call for each of its parts, in turn.
    pub fn calls(&self, rule: Rule) -> Outcome {
        let (inputs, targets) = (self.inputs(self.batch), self.targets());
        let loss = CrossEntropyLoss::default();
        let spawned = |is_fused: bool| -> Result<_, Failure> {
            let (mut world, population) = self.spawned(self.models)?;
            world.population_mut(population)?.insert_with(|_| Adam::default())?;
            Ok((world, population, is_fused))
        };
        let step = |(world, of, is_fused): &mut (World, Entity, bool)| -> Result<(), StepError> {
            if *is_fused {
                let _: Array1<f32> =
                    world.population_mut(*of)?.train_step(&inputs, &targets, &loss)?;
                return Ok(());
            }
            world.module_mut(*of)?.zero_grad()?;
            world.population_mut(*of)?.forward(&inputs)?;
            world.population_mut(*of)?.loss::<f32, i64>(&targets, &loss)?;
            world.population_mut(*of)?.backward()?;
            world.population_mut(*of)?.step()
        };
        let [fused, calls] = rule.compare(&mut [spawned(true)?, spawned(false)?], step)?;
        let of = Number { key: "models", words: "models", value: self.models as f64 };
        let both = [("us_fused", "µs in one call", fused), ("us_calls", "µs call by call", calls)];
        Ok(beside(("calls", "train"), Some(of), both))
    }

    /// Times a training step, or a forward pass at batch 1, in singles and in halves `T`, in turn.
    fn half<T: Element>(
        &self,
        (dtype, of): (Dtype, fn(f32) -> T),
        is_training: bool,
        rule: Rule,
    ) -> Outcome {
        let spawned = |dtype: Dtype| -> Result<(World, Entity, Dtype), Failure> {
            let mut world = World::new();
            let settings =
                PopulationSettings { models: self.models, dtype, ..PopulationSettings::default() };
            let population = world.spawn_population_with(&self.network(), settings)?.id();
            match is_training {
                true => drop(world.population_mut(population)?.insert_with(|_| Adam::default())?),
                false => {
                    world.population_mut(population)?.eval()?;
                    world.set_grad_enabled(false);
                }
            }
            Ok((world, population, dtype))
        };
        let batch = if is_training { self.batch } else { 1 };
        let (inputs, targets): (_, Array2<i64>) = (self.inputs(batch), self.targets());
        let in_halves = inputs.mapv(of);
        let loss = CrossEntropyLoss::default();
        let step = |(world, of, dtype): &mut (World, Entity, Dtype)| -> Result<(), StepError> {
            match (is_training, *dtype == Dtype::F32) {
                (true, true) => {
                    drop(world.population_mut(*of)?.train_step(&inputs, &targets, &loss)?)
                }
                (true, false) => {
                    drop(world.population_mut(*of)?.train_step(&in_halves, &targets, &loss)?)
                }
                (false, true) => drop(world.population_mut(*of)?.forward(&inputs)?),
                (false, false) => drop(world.population_mut(*of)?.forward(&in_halves)?),
            }
            Ok(())
        };
        let [single, half] = rule.compare(&mut [spawned(Dtype::F32)?, spawned(dtype)?], step)?;
        let job = match (dtype, is_training) {
            (Dtype::BF16, true) => "bf16-train",
            (Dtype::BF16, false) => "bf16-infer",
            (_, true) => "f16-train",
            (_, false) => "f16-infer",
        };
        let of = Number { key: "models", words: "models", value: self.models as f64 };
        let both = [("us_f32", "µs in f32", single), ("us_half", "µs in halves", half)];
        Ok(beside(("halves", job), Some(of), both))
    }
}

/// Measures structures: tiny as 10, 100, 1,000 and 5,000 of them.
pub fn ragged(rule: Rule, mut show: impl FnMut(Measurement)) -> Result<(), Failure> {
    for structures in [10, 100, 1_000, 5_000] {
        show(TINY.ragged(structures, rule)?);
    }
    show(TINY.parted(1_000, rule)?);
    Ok(())
}

/// Measures steps call by call, of 1,000 and of 10,000 tiny models.
pub fn calls(rule: Rule, mut show: impl FnMut(Measurement)) -> Result<(), Failure> {
    for models in [1_000, 10_000] {
        show(Population { models, ..TINY }.calls(rule)?);
    }
    Ok(())
}

/// Measures halves, of small and medium.
pub fn halves(rule: Rule, mut show: impl FnMut(Measurement)) -> Result<(), Failure> {
    for population in [SMALL, MEDIUM] {
        for is_training in [true, false] {
            show(population.half((Dtype::BF16, bf16::from_f32), is_training, rule)?);
            show(population.half((Dtype::F16, f16::from_f32), is_training, rule)?);
        }
    }
    Ok(())
}
