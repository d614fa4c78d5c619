//! The plugin in Bevy apps without a window.

mod brains;
mod budget;
mod free;
mod host;
mod learning;
mod messages;
#[cfg(feature = "reflect")]
mod reflection;
mod rollback;
mod schedules;
mod thinking;
#[cfg(feature = "asset")]
mod weights;

use std::time::Duration;

use bevy_app::prelude::*;
use bevy_time::{TimePlugin, TimeUpdateStrategy};
use ndarray::{Array2, Array3};
use neurarch::bevy_ecs::prelude::*;
use neurarch::plugin::{Learn, Minibatch, NeurarchPlugin, Population, Progress};
use neurarch::prelude::*;

/// A fixed tick of an app takes as long as its frame: 64 Hz.
const TICK: Duration = Duration::from_micros(15_625);

/// An app whose every update is one fixed tick, but for the first, which is none.
fn app(plugin: NeurarchPlugin) -> App {
    let mut app = App::new();
    app.add_plugins((TimePlugin, plugin)).insert_resource(TimeUpdateStrategy::ManualDuration(TICK));
    app.finish();
    app.cleanup();
    app.update();
    app
}

fn brain() -> Sequential {
    Sequential::new().push(Linear::new(4, 8)).push(Tanh).push(Linear::new(8, 2))
}

/// Spawns brains that learn to classify, each at a rate of its own.
fn learners(world: &mut World, models: usize, seed: u64) -> Entity {
    let mut brains = world.spawn_population(&brain(), models, Seed(seed)).unwrap();
    let rate = |model: usize| 0.01 + 0.001 * model as f64;
    brains.insert_with(|model| Adam { lr: rate(model), ..Adam::default() }).unwrap();
    let brains = brains.id();
    world.entity_mut(brains).insert(Learn::new(CrossEntropyLoss::default()));
    brains
}

/// What step `step` learns from.
fn batch(models: usize, step: u64) -> (Array3<f32>, Array2<i64>) {
    let x = Array3::from_shape_fn((models, 6, 4), |(model, item, feature)| {
        let at = (model * 31 + item * 7 + feature * 3) as u64 + step * 11;
        (at % 17) as f32 / 8.0 - 1.0
    });
    let y = Array2::from_shape_fn((models, 6), |(model, item)| {
        ((model + item) as u64 + step) as i64 % 2
    });
    (x, y)
}

/// Clones a model with all of its modules.
fn clone(world: &mut World, root: Entity) -> Entity {
    world.entity_mut(root).clone_and_spawn_with_opt_out(|cloner| {
        cloner.linked_cloning(true);
    })
}

/// Gives each population that wants one the minibatch of its next step.
fn give(learners: Query<(&mut Minibatch, &Progress, &Population)>) {
    give_until(u64::MAX)(learners);
}

/// Gives each population so many minibatches.
fn give_until(most: u64) -> impl Fn(Query<(&mut Minibatch, &Progress, &Population)>) {
    move |mut learners| {
        for (mut minibatch, progress, population) in &mut learners {
            // The one that is being learned is not counted yet.
            let step = progress.steps + u64::from(progress.waiting > 0);
            if minibatch.is_wanted() && step < most {
                let (x, y) = batch(population.len(), step);
                minibatch.put(x, y);
            }
        }
    }
}

/// All weights of a population's models.
fn weights(world: &mut World, population: Entity) -> Vec<Vec<f32>> {
    let names = ["0.weight", "0.bias", "2.weight", "2.bias"];
    let mut brains = world.population_mut(population).unwrap();
    let stacks = names.map(|name| brains.stack::<f32>(name).unwrap());
    stacks.iter().map(|stack| stack.iter().copied().collect()).collect()
}
