//! The models, and what is measured of them.

use std::error::Error;
use std::fmt::Write;

use ndarray::{Array2, ArrayD};
use neurarch::components::containers::IntoModule;
use neurarch::components::module::DynModule;
use neurarch::prelude::*;
use neurarch::report::profile::{GroupBy, SortBy, profile};

use super::measure::{Measurement, Number, Rule};

type Failure = Box<dyn Error + Send + Sync>;

/// A network, how many models of it there are, and what they are given.
pub struct Subject {
    name: &'static str,
    network: Box<dyn DynModule>,
    models: usize,
    /// Of a minibatch; the batch comes first.
    input: Vec<usize>,
    classes: usize,
}

impl Subject {
    fn new(name: &'static str, network: impl IntoModule, input: &[usize], classes: usize) -> Self {
        Subject { name, network: network.into_module(), models: 1, input: input.to_vec(), classes }
    }

    fn spawned(&self) -> Result<(World, Entity), Failure> {
        let mut world = World::new();
        let settings = PopulationSettings { models: self.models, ..PopulationSettings::default() };
        let population = world.spawn_population_with(&*self.network, settings)?.id();
        world.population_mut(population)?.insert_with(|_| Adam::default())?;
        Ok((world, population))
    }

    /// Inputs that differ, and are neither large nor zero, and targets.
    fn data(&self) -> (ArrayD<f32>, Array2<i64>) {
        let shape: Vec<_> = [self.models].into_iter().chain(self.input.iter().copied()).collect();
        let mut inputs = ArrayD::zeros(shape);
        for (i, x) in inputs.iter_mut().enumerate() {
            *x = (i * 7_919 % 1_013) as f32 / 300.0 - 1.7;
        }
        let targets = Array2::from_shape_fn((self.models, self.input[0]), |(model, item)| {
            ((model + item * item) % self.classes) as i64
        });
        (inputs, targets)
    }

    /// Times a step of Adam in training mode, then a forward pass in evaluation mode.
    pub fn measure(&self, rule: Rule) -> Result<Measurement, Failure> {
        let (mut world, population) = self.spawned()?;
        let (inputs, targets) = self.data();
        let loss = CrossEntropyLoss::default();
        let mut losses = vec![0.0; self.models];
        let train = rule.measure(|| {
            world.population_mut(population)?.train_step_into(&inputs, &targets, &loss, &mut losses)
        })?;
        world.population_mut(population)?.eval()?;
        world.set_grad_enabled(false);
        let mut outputs = world.population_mut(population)?.forward(&inputs)?;
        let infer = rule.measure(|| {
            world.population_mut(population)?.forward_into(&inputs, outputs.view_mut())
        })?;
        let numbers = vec![
            Number { key: "train_us", words: "µs a training step", value: train.median * 1e6 },
            Number { key: "train_best_us", words: "at best", value: train.best * 1e6 },
            Number { key: "infer_us", words: "µs a forward pass", value: infer.median * 1e6 },
            Number { key: "infer_best_us", words: "at best", value: infer.best * 1e6 },
        ];
        Ok(Measurement { case: self.name, job: "both", numbers })
    }

    /// Tells how long each step of the plans takes, over some runs.
    pub fn profile(&self) -> Result<String, Failure> {
        const RUNS: usize = 50;
        let (mut world, population) = self.spawned()?;
        let (inputs, targets) = self.data();
        let loss = CrossEntropyLoss::default();
        // Plans are made, and memory is there.
        world.population_mut(population)?.train_step(&inputs, &targets, &loss)?;
        let (trained, of_training) = profile(&mut world, |world| {
            let mut brains = world.population_mut(population)?;
            (0..RUNS).try_for_each(|_| brains.train_step(&inputs, &targets, &loss).map(drop))
        });
        trained?;
        world.population_mut(population)?.eval()?;
        world.set_grad_enabled(false);
        let (inferred, of_inference) = profile(&mut world, |world| {
            let mut brains = world.population_mut(population)?;
            (0..RUNS).try_for_each(|_| brains.forward(&inputs).map(drop))
        });
        inferred?;
        let mut text = String::new();
        for (name, profile) in [("training", of_training), ("inference", of_inference)] {
            let table = profile.key_averages(GroupBy::OpAndModule);
            let table = table.table(SortBy::SelfCpuTimeTotal, 40);
            writeln!(text, "{}, {RUNS} times {name}\n{table}", self.name)?;
        }
        Ok(text)
    }
}

/// What a Transformer makes of a sequence; the mean over its places decides.
#[derive(Module, Component, Clone)]
struct Encoder {
    enc: TransformerEncoder,
    head: Linear,
}

impl Forward for Encoder {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        self.head(call, self.enc(call, x).mean(&[1], false))
    }
}

/// What a recurrent layer makes of a sequence; its last place decides.
#[derive(Module, Component, Clone)]
struct Recurrent<M: Module> {
    rnn: M,
    head: Linear,
}

impl<M: Module> Forward for Recurrent<M> {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let results = self.rnn_with(call, x).into_items();
        let Some(Tree::Leaf(y)) = results.into_iter().next() else { return call.trace.poison() };
        let &[batch, places, features] = &**y.shape() else { return call.trace.poison() };
        let last = y.slice(1, places - 1..places).reshape([batch, features]);
        self.head(call, last)
    }
}

pub fn mlp() -> Subject {
    let network = Sequential::new().push(Linear::new(784, 1024)).push(ReLU);
    let network = network.push(Linear::new(1024, 1024)).push(ReLU).push(Linear::new(1024, 10));
    Subject::new("mlp", network, &[128, 784], 10)
}

pub fn tiny() -> Subject {
    let network = Sequential::new().push(Linear::new(4, 16)).push(ReLU);
    let network = network.push(Linear::new(16, 16)).push(ReLU).push(Linear::new(16, 2));
    Subject::new("tiny", network, &[32, 4], 2)
}

pub fn cnn() -> Subject {
    let convolve = |from, to| Conv2d::new(from, to, 3).with_padding(1);
    let network = Sequential::new().push(convolve(1, 32)).push(BatchNorm2d::new(32)).push(ReLU);
    let network = network.push(MaxPool2d::new(2));
    let network = network.push(convolve(32, 64)).push(BatchNorm2d::new(64)).push(ReLU);
    let network = network.push(MaxPool2d::new(2)).push(Flatten::default());
    Subject::new("cnn", network.push(Linear::new(64 * 49, 10)), &[64, 1, 28, 28], 10)
}

pub fn transformer() -> Subject {
    let layer = TransformerEncoderLayer {
        dim_feedforward: 1024,
        dropout: 0.0,
        batch_first: true,
        ..TransformerEncoderLayer::new(256, 8)
    };
    let encoder = Encoder { enc: TransformerEncoder::new(layer, 2), head: Linear::new(256, 10) };
    Subject::new("transformer", encoder, &[8, 128, 256], 10)
}

pub fn lstm() -> Subject {
    let layer = LSTM { batch_first: true, ..LSTM::new(64, 128) };
    Subject::new("lstm", Recurrent { rnn: layer, head: Linear::new(128, 10) }, &[32, 64, 64], 10)
}

pub fn cnns() -> Subject {
    let convolve = |from, to| Conv2d::new(from, to, 3).with_padding(1);
    let network = Sequential::new().push(convolve(1, 8)).push(ReLU).push(MaxPool2d::new(2));
    let network = network.push(convolve(8, 8)).push(ReLU).push(MaxPool2d::new(2));
    let network = network.push(Flatten::default()).push(Linear::new(8 * 9, 10));
    Subject { models: 64, ..Subject::new("cnns", network, &[32, 1, 12, 12], 10) }
}

pub fn grus() -> Subject {
    let layer = GRU { batch_first: true, ..GRU::new(8, 16) };
    let network = Recurrent { rnn: layer, head: Linear::new(16, 10) };
    Subject { models: 256, ..Subject::new("grus", network, &[32, 16, 8], 10) }
}
