//! What logging costs a run.

use std::fs;
use std::time::Instant;

use neurarch::prelude::*;
use neurarch::report::log::{CsvWriter, JsonLinesWriter, Logger, Quantiles, SummaryWriter};

use super::cases::{Outcome, TINY};
use super::measure::{Measurement, Number, Rule, Times};

/// Training steps between two logs.
const EVERY: u64 = 50;

/// How many numbers of each model are logged.
const TAGS: u64 = 20;

/// A world with a population, its steps so far and where they are logged.
type Subject = (World, Entity, u64, Vec<Box<dyn Logger>>);

/// Times fifty steps of Adam for every model, and the same with twenty numbers of each model logged to three writers.
pub fn log(rule: Rule) -> Outcome {
    let folder = std::env::temp_dir().join(format!("neurarch-log-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let writers: Vec<Box<dyn Logger>> = vec![
        Box::new(SummaryWriter::new(&folder)?),
        Box::new(JsonLinesWriter::open(folder.join("log.jsonl"))?),
        Box::new(CsvWriter::create(folder.join("log.csv"))?),
    ];
    let spawned = |writers| {
        let (mut world, population) = TINY.spawned(TINY.models)?;
        world.population_mut(population)?.insert_with(|_| Adam::default())?;
        Ok::<Subject, super::cases::Failure>((world, population, 0, writers))
    };
    let mut subjects = [spawned(Vec::new())?, spawned(writers)?];
    let (inputs, targets) = (TINY.inputs(TINY.batch), TINY.targets());
    let loss = CrossEntropyLoss::default();
    let mut losses = vec![0.0_f32; TINY.models];
    let mut quantiles = Quantiles::default().top(3);
    let tags: Vec<_> = (0..TAGS).map(|tag| format!("number/{tag}")).collect();
    let rule = Rule { warm_ups: 1, ..rule };
    let mut own = Vec::new();
    let [without, with] = rule.compare(&mut subjects, |(world, population, steps, log)| {
        for _ in 0..EVERY {
            let mut brains = world.population_mut(*population)?;
            brains.train_step_into(&inputs, &targets, &loss, &mut losses)?;
        }
        *steps += EVERY;
        if !log.is_empty() {
            let start = Instant::now();
            for tag in &tags {
                log.add_models(tag, &quantiles.of(&losses), *steps)?;
            }
            log.flush()?;
            own.push(start.elapsed().as_secs_f64());
        }
        Ok::<_, super::cases::Failure>(())
    })?;
    drop(subjects);
    fs::remove_dir_all(folder)?;
    let numbers = vec![
        Number { key: "ms_without", words: "ms without", value: without.median * 1e3 },
        Number { key: "ms_with", words: "ms with", value: with.median * 1e3 },
        Number { key: "ratio", words: "of the time", value: with.median / without.median },
        Number { key: "ms_log", words: "ms of it to log", value: Times::of(own).median * 1e3 },
    ];
    Ok(Measurement { case: "log", job: "train", numbers })
}
