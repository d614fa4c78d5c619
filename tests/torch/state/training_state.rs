//! Training that goes on from files is bit for bit the training that went on: parameters, optimizers, schedulers and
//! random numbers, of one model and stacked.

use std::path::PathBuf;

use ndarray::{Array2, Array3, Axis};
use neurarch::components::optimizer::Optimizer;
use neurarch::components::scheduler::LRScheduler;
use neurarch::kernels::ir::dtype::Element;
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::state::checkpoint::Checkpoint;
use neurarch::state::{checkpoint, safetensors};

use crate::known::Known;

const MODELS: usize = 3;

fn net() -> Sequential {
    Sequential::new()
        .push(Linear::new(4, 6))
        .push(BatchNorm1d::new(6))
        .push(Tanh)
        .push(Dropout { p: 0.3 })
        .push(Linear::new(6, 2))
}

/// A population of which some models learn.
struct Training<'a, O, S> {
    world: World,
    population: Entity,
    optimizer: &'a dyn Fn(usize) -> O,
    scheduler: &'a dyn Fn(usize) -> S,
}

impl<'a, O: Optimizer, S: LRScheduler> Training<'a, O, S> {
    /// Spawns the models from `first` on, each with an optimizer for all and one for its last layer.
    fn new(
        first: usize,
        models: usize,
        optimizer: &'a dyn Fn(usize) -> O,
        scheduler: &'a dyn Fn(usize) -> S,
    ) -> Self {
        let mut world = World::new();
        let settings = PopulationSettings {
            models,
            seed: 5,
            first_number: first as u64,
            ..PopulationSettings::default()
        };
        let population = world.spawn_population_with(&net(), settings).unwrap().id();
        world.brains(population).insert_with(|model| optimizer(first + model)).unwrap();
        let last =
            |model| SGD { lr: 0.1 / (1 + first + model) as f64, momentum: 0.9, ..SGD::default() };
        world.brains(population).at("4").insert_with(last).unwrap();
        world.brains(population).schedule_with(|model| scheduler(first + model)).unwrap();
        Training { world, population, optimizer, scheduler }
    }

    fn go_on(&mut self, steps: std::ops::Range<usize>, models: std::ops::Range<usize>) {
        for step in steps {
            let x = Array3::from_shape_fn((models.len(), 5, 4), |(m, i, j)| {
                (((m + models.start) * 7 + i * 5 + j * 3 + step * 11) % 13) as f32 / 6.0 - 1.0
            });
            let y = Array2::from_shape_fn((models.len(), 5), |(m, i)| {
                ((m + models.start + i + step) % 2) as i64
            });
            let loss = CrossEntropyLoss::default();
            let losses = self.world.brains(self.population).train_step(&x, &y, &loss).unwrap();
            let losses: Vec<_> = losses.iter().map(|&loss: &f32| f64::from(loss)).collect();
            match self.world.part(self.population).step_schedulers() {
                Ok(()) => {}
                Err(_) => {
                    self.world.part(self.population).step_schedulers_with_metrics(&losses).unwrap();
                }
            }
        }
    }

    /// The bits of everything that a model has.
    fn bits(&mut self, model: usize) -> Vec<Vec<u8>> {
        let root = self.world.population(self.population).unwrap().models()[model];
        let mut all: Vec<Tensor> =
            self.world.part(root).state_dict().unwrap().into_iter().collect();
        all.extend(self.world.part(root).training_state().unwrap());
        all.iter().map(Tensor::to_native).collect()
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("neurarch-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn goes_on<O: Optimizer, S: LRScheduler>(
    name: &str,
    optimizer: impl Fn(usize) -> O,
    scheduler: impl Fn(usize) -> S,
) {
    let folder = folder(name);
    let [model_file, training_file] =
        ["model", "training"].map(|of| folder.join(format!("{of}.safetensors")));
    let mut went_on = Training::new(0, MODELS, &optimizer, &scheduler);
    went_on.go_on(0..4, 0..MODELS);
    let population = went_on.population;
    safetensors::save(&model_file, &went_on.world.brains(population).stacked_state_dict().unwrap())
        .unwrap();
    safetensors::save(&training_file, &went_on.world.brains(population).training_state().unwrap())
        .unwrap();
    // One model by itself.
    let root = went_on.world.population(population).unwrap().models()[1];
    let one = [model_file.with_extension("one"), training_file.with_extension("one")];
    safetensors::save(&one[0], &went_on.world.part(root).state_dict().unwrap()).unwrap();
    safetensors::save(&one[1], &went_on.world.part(root).training_state().unwrap()).unwrap();
    went_on.go_on(4..9, 0..MODELS);

    // As a new process would.
    let Training { optimizer, scheduler, .. } = went_on;
    let mut resumed = Training::new(0, MODELS, optimizer, scheduler);
    let state = safetensors::read(&model_file).unwrap();
    let of = resumed.population;
    resumed.world.brains(of).load_stacked_state_dict(&state, LoadOptions::default()).unwrap();
    resumed
        .world
        .brains(of)
        .load_training_state(&safetensors::read(&training_file).unwrap())
        .unwrap();
    resumed.go_on(4..9, 0..MODELS);
    for model in 0..MODELS {
        assert_eq!(resumed.bits(model), went_on.bits(model), "{name}, model {model}");
    }

    let mut alone = Training::new(1, 1, optimizer, scheduler);
    let root = alone.world.population(alone.population).unwrap().models()[0];
    alone.world.part(root).load_state_dict(&safetensors::read(&one[0]).unwrap()).unwrap();
    alone.world.part(root).load_training_state(&safetensors::read(&one[1]).unwrap()).unwrap();
    alone.go_on(4..9, 1..2);
    assert_eq!(alone.bits(0), went_on.bits(1), "{name}, model 1 alone");
    std::fs::remove_dir_all(&folder).unwrap();
}

fn rate(model: usize) -> f64 {
    [0.02, 0.05, 0.01][model]
}

#[test]
fn training_that_goes_on_from_files_is_that_which_went_on() {
    goes_on(
        "adam",
        |model| Adam { lr: rate(model), amsgrad: true, ..Adam::default() },
        |model| StepLR { step_size: 2 + model, gamma: 0.5 },
    );
    goes_on(
        "nadam",
        |model| NAdam { lr: rate(model), ..NAdam::default() },
        |_| CosineAnnealingWarmRestarts::new(3, 2, 1e-4),
    );
    goes_on(
        "adafactor",
        |model| Adafactor { lr: rate(model), ..Adafactor::default() },
        |model| ReduceLROnPlateau {
            patience: model,
            factor: 0.5,
            cooldown: 1,
            ..ReduceLROnPlateau::default()
        },
    );
    goes_on(
        "sgd",
        |model| SGD { lr: rate(model), momentum: 0.9, ..SGD::default() },
        |_| {
            let warmup = LinearLR { start_factor: 0.1, total_iters: 3, ..LinearLR::default() };
            let after = CosineAnnealingLR { t_max: 10, eta_min: 0.0 };
            SequentialLR::new([3]).push(warmup).push(after)
        },
    );
    goes_on(
        "asgd",
        |model| ASGD { lr: rate(model), t0: 2.0, ..ASGD::default() },
        |_| {
            ChainedScheduler::new()
                .push(ExponentialLR { gamma: 0.9 })
                .push(PolynomialLR { total_iters: 8, power: 2.0 })
        },
    );
    goes_on(
        "rprop",
        |model| Rprop { lr: rate(model), ..Rprop::default() },
        |_| CyclicLR { step_size_up: 3, cycle_momentum: None, ..CyclicLR::new(1e-3, 1e-2) },
    );
    goes_on(
        "adadelta",
        |model| Adadelta { lr: rate(model), ..Adadelta::default() },
        |_| OneCycleLR { cycle_momentum: None, ..OneCycleLR::new(0.1, 20) },
    );
}

#[test]
fn what_does_not_fit_is_an_error_and_changes_nothing() {
    let mut world = World::new();
    let population = world.spawn_population(&Linear::new(3, 2), 2, Seed(1)).unwrap().id();
    world.brains(population).insert(Adam::default()).unwrap();
    let (x, y) = (Array3::<f32>::ones((2, 4, 3)), Array2::<i64>::zeros((2, 4)));
    world.brains(population).train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
    let saved = world.brains(population).training_state().unwrap();
    let refused = |world: &mut World, tensors: &[Tensor], words: &str| {
        let before = world.brains(population).training_state().unwrap();
        let error = world.brains(population).load_training_state(tensors).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(world.brains(population).training_state().unwrap(), before);
    };
    let without = |name: &str| -> Vec<_> {
        saved.iter().filter(|tensor| tensor.name != name).cloned().collect()
    };
    refused(&mut world, &without("draws"), "the training state has no draws");
    let name = "optimizer.param_groups.0.beta1";
    refused(&mut world, &without(name), &format!("the training state has no {name}"));
    let mut strange = saved.clone();
    strange.push(Tensor::new("lr_scheduler.0.last_epoch", ndarray::array![1.0, 1.0].view()));
    refused(&mut world, &strange, "has lr_scheduler.0.last_epoch, for which");
    let mut wide = saved.clone();
    let moment = wide.iter_mut().find(|of| of.name == "optimizer.state.0.exp_avg").unwrap();
    *moment = Tensor::new(moment.name.clone(), Array3::<f32>::zeros((2, 2, 5)).view());
    refused(&mut world, &wide, "state 0.exp_avg: expected shape [2, 3], got [2, 5]");
    let of_models = saved.iter().filter(|of| !of.name.starts_with("population."));
    let one: Vec<_> = of_models
        .map(|of| {
            let array = of.cast(Dtype::F64).to_array::<f64>().unwrap();
            Tensor::new(of.name.clone(), array.slice_axis(Axis(0), (0..1).into()))
        })
        .collect();
    refused(&mut world, &one, "expected numbers for 2 models");
    // A scheduler, of which the file says nothing.
    world.brains(population).schedule(ExponentialLR { gamma: 0.5 }).unwrap();
    refused(&mut world, &saved, "lr_scheduler 0: the state of a scheduler has []");
    let now = world.brains(population).training_state().unwrap();
    world.brains(population).load_training_state(&now).unwrap();
    // Models that do not have it alike.
    let first = world.population(population).unwrap().models()[0];
    world.entity_mut(first).remove::<neurarch::components::scheduler::Scheduler>();
    let error = world.brains(population).training_state().unwrap_err().to_string();
    assert!(error.contains("is not in all models"), "{error}");
    assert!(world.part(first).training_state().is_ok());
}

/// Draws the settings of a case: numbers that follow from its own number alone.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % sides as u64) as usize
    }

    fn odds(&mut self, one_in: usize) -> bool {
        self.roll(one_in) == 0
    }
}

fn insert_one(world: &mut World, of: Entity, which: usize) {
    let lr = |model: usize| 0.01 * (1 + model) as f64;
    let mut brains = world.brains(of);
    let done = match which {
        0 => brains.insert_with(|m| SGD { lr: lr(m), momentum: 0.9, ..SGD::default() }),
        1 => brains.insert_with(|m| SGD {
            lr: lr(m),
            momentum: 0.8,
            nesterov: true,
            ..SGD::default()
        }),
        2 => brains.insert_with(|m| Adam { lr: lr(m), amsgrad: m > 9, ..Adam::default() }),
        3 => brains.insert_with(|m| AdamW { lr: lr(m), amsgrad: true, ..AdamW::default() }),
        4 => brains.insert_with(|m| RAdam { lr: lr(m), ..RAdam::default() }),
        5 => brains.insert_with(|m| NAdam { lr: lr(m), ..NAdam::default() }),
        6 => brains.insert_with(|m| Adamax { lr: lr(m), ..Adamax::default() }),
        7 => brains.insert_with(|m| Adagrad { lr: lr(m), lr_decay: 0.1, ..Adagrad::default() }),
        8 => brains.insert_with(|m| Adadelta { lr: 10.0 * lr(m), ..Adadelta::default() }),
        9 => brains.insert_with(|m| RMSprop {
            lr: lr(m),
            centered: true,
            momentum: 0.5,
            ..RMSprop::default()
        }),
        10 => brains.insert_with(|m| ASGD { lr: lr(m), t0: 2.0, ..ASGD::default() }),
        11 => brains.insert_with(|m| Rprop { lr: lr(m), ..Rprop::default() }),
        _ => brains.insert_with(|m| Adafactor { lr: lr(m), ..Adafactor::default() }),
    };
    done.unwrap();
}

/// A case: how a population is spawned, what it did before it was saved, and what it does afterwards.
struct Case {
    optimizer: usize,
    scheduler: usize,
    is_scaled: bool,
    is_shared: bool,
    is_constrained: bool,
    dtype: Dtype,
    seed: u64,
}

impl Case {
    fn draw(dice: &mut Dice) -> Self {
        let is_shared = dice.odds(3);
        Case {
            optimizer: dice.roll(13),
            scheduler: dice.roll(5),
            is_scaled: !is_shared && dice.odds(3),
            is_shared,
            is_constrained: dice.odds(3),
            dtype: if dice.odds(4) { Dtype::F64 } else { Dtype::F32 },
            seed: dice.roll(1000) as u64,
        }
    }

    /// Spawns the population as a program does before it loads.
    fn spawn(&self, seed: u64, first_number: u64) -> (World, Entity) {
        let mut world = World::new();
        let net = Sequential::new()
            .push(Linear::new(4, 6))
            .push(BatchNorm1d::new(6))
            .push(RReLU::default())
            .push(Dropout { p: 0.3 })
            .push(Linear::new(6, 2));
        let settings = PopulationSettings {
            models: MODELS,
            seed,
            first_number,
            dtype: self.dtype,
            ..PopulationSettings::default()
        };
        let of = world.spawn_population_with(&net, settings).unwrap().id();
        world.brains(of).at("3").insert_with(|m| Dropout { p: 0.2 + 0.1 * m as f64 }).unwrap();
        if self.is_constrained {
            world.brains(of).at("4").spectral_norm("weight").unwrap();
        }
        if self.is_shared {
            world.brains(of).share_parameter("0.weight").unwrap();
            let shared = Adam { lr: 0.05, ..Adam::default() };
            world.entity_mut(of).insert(shared);
        }
        // What no state dict has, and the models write to.
        world
            .brains(of)
            .at("2")
            .register_buffer("seen", Value::tensor(ndarray::arr1(&[0.5_f32]).view()), false)
            .unwrap();
        insert_one(&mut world, of, self.optimizer);
        match self.scheduler {
            0 => {
                world.brains(of).schedule_with(|m| StepLR { step_size: 1 + m, gamma: 0.5 }).unwrap()
            }
            1 => world.brains(of).schedule(CosineAnnealingWarmRestarts::new(3, 2, 1e-4)).unwrap(),
            2 => world
                .brains(of)
                .schedule(OneCycleLR { cycle_momentum: None, ..OneCycleLR::new(0.1, 40) })
                .unwrap(),
            3 => world
                .brains(of)
                .schedule(ReduceLROnPlateau { patience: 0, ..ReduceLROnPlateau::default() })
                .unwrap(),
            _ => {}
        }
        if self.is_scaled {
            let scaler =
                GradScaler { init_scale: 1024.0, growth_interval: 2, ..GradScaler::default() };
            world.brains(of).insert(scaler).unwrap();
        }
        (world, of)
    }

    /// Makes some steps; gives all that was computed.
    fn go_on(&self, world: &mut World, of: Entity, steps: core::ops::Range<usize>) -> Vec<u64> {
        match self.dtype {
            Dtype::F64 => self.go_on_in::<f64>(world, of, steps, |x| x),
            _ => self.go_on_in::<f32>(world, of, steps, |x| x as f32),
        }
    }

    fn go_on_in<T: Into<f64> + Element<Float = T>>(
        &self,
        world: &mut World,
        of: Entity,
        steps: core::ops::Range<usize>,
        element: impl Fn(f64) -> T,
    ) -> Vec<u64> {
        let loss = CrossEntropyLoss::default();
        let mut bits = Vec::new();
        for step in steps {
            let x = Array3::from_shape_fn((MODELS, 5, 4), |(m, i, j)| {
                element(((m * 7 + i * 5 + j * 3 + step * 11) % 13) as f64 / 6.0 - 1.0)
            });
            let y = Array2::from_shape_fn((MODELS, 5), |(m, i)| ((m + i + step) % 2) as i64);
            let losses: Vec<f64> = match (self.is_scaled, step % 3) {
                (true, _) => {
                    world.brains(of).zero_grad().unwrap();
                    world.brains(of).forward(&x).unwrap();
                    let losses = world.brains(of).loss::<T, i64>(&y, &loss).unwrap();
                    world.brains(of).scale_loss().unwrap();
                    world.brains(of).backward().unwrap();
                    world.brains(of).step_scaled().unwrap();
                    world.brains(of).update_scale(None).unwrap();
                    losses.iter().map(|&loss| loss.into()).collect()
                }
                (false, 2) => {
                    // Gradients add up over the steps.
                    world.brains(of).forward(&x).unwrap();
                    let losses = world.brains(of).loss::<T, i64>(&y, &loss).unwrap();
                    world.brains(of).backward().unwrap();
                    world.brains(of).step().unwrap();
                    losses.iter().map(|&loss| loss.into()).collect()
                }
                _ => {
                    let losses = world.brains(of).train_step(&x, &y, &loss).unwrap();
                    losses.iter().map(|&loss| loss.into()).collect()
                }
            };
            match self.scheduler {
                0..=2 => world.brains(of).step_schedulers().unwrap(),
                3 => world.brains(of).step_schedulers_with_metrics(&losses).unwrap(),
                _ => {}
            }
            bits.extend(losses.iter().map(|loss| loss.to_bits()));
        }
        bits
    }
}

fn all_bits(world: &mut World, of: Entity) -> Vec<Tensor> {
    let mut all: Vec<Tensor> = world.brains(of).stacked_state_dict().unwrap().into_iter().collect();
    all.extend(world.brains(of).training_state().unwrap());
    all
}

#[test]
fn populations_drawn_at_random_go_on_bit_for_bit_in_another_world() {
    let n = std::env::var("NEURARCH_CASES").map_or(24, |n| n.parse().unwrap());
    for number in 0..n {
        let mut dice = Dice(number);
        let case = Case::draw(&mut dice);
        let (mut world, of) = case.spawn(case.seed, dice.roll(100) as u64);
        let roots = world.population(of).unwrap().models().to_vec();
        for &root in &roots {
            let (norm, layer) =
                (world.part(root).at("1").unwrap().id(), world.part(root).at("4").unwrap().id());
            if dice.odds(4) {
                world.part(norm).eval().unwrap();
            }
            if dice.odds(4) {
                world.part(layer).requires_grad_(false).unwrap();
            }
        }
        if !case.is_scaled && dice.odds(4) {
            world.part(roots[1]).set_active(false).unwrap();
        }
        case.go_on(&mut world, of, 0..dice.roll(4));
        if dice.odds(2) {
            world.brains(of).perturb(Noise::normal(0.01)).unwrap();
        }
        let seen = Array2::from_shape_fn((MODELS, 1), |(m, _)| m as f32 + 0.25);
        world.brains(of).unstack("2.seen", seen.view()).unwrap();
        let (state, training) = (
            world.brains(of).stacked_state_dict().unwrap(),
            world.brains(of).training_state().unwrap(),
        );
        let checkpoint = folder("case").join(format!("{number}.ckpt"));
        checkpoint::save(&mut world, &[of], &checkpoint).unwrap();
        let went_on = case.go_on(&mut world, of, 4..9);

        // Another seed and other numbers: the file says which.
        let (mut resumed, other) = case.spawn(case.seed + 1, 500);
        let mut restored = World::new();
        let copy = Checkpoint::open(&checkpoint).unwrap().restore(&mut restored).unwrap();
        let copy = copy.populations[0];
        resumed.brains(other).load_stacked_state_dict(&state, LoadOptions::default()).unwrap();
        resumed.brains(other).load_training_state(&training).unwrap();
        assert_eq!(resumed.brains(other).training_state().unwrap(), training, "case {number}");
        assert_eq!(case.go_on(&mut resumed, other, 4..9), went_on, "case {number}");
        assert_eq!(all_bits(&mut resumed, other), all_bits(&mut world, of), "case {number}");
        assert_eq!(restored.brains(copy).training_state().unwrap(), training, "case {number}");
        assert_eq!(case.go_on(&mut restored, copy, 4..9), went_on, "case {number}");
        assert_eq!(all_bits(&mut restored, copy), all_bits(&mut world, of), "case {number}");
        // Models that come later are the same ones, too.
        let newborn =
            [(&mut world, of), (&mut resumed, other), (&mut restored, copy)].map(|(world, of)| {
                let root = world.brains(of).spawn_models(1).unwrap()[0];
                world.part(root).state_dict().unwrap().into_iter().collect::<Vec<_>>()
            });
        assert_eq!(newborn[0], newborn[1], "case {number}");
        assert_eq!(newborn[0], newborn[2], "case {number}");
    }
}
