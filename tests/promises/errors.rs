//! Promise 3: errors are values. Each names the module, what was expected and what was given, in torch's
//! words where torch has some; and a call that fails leaves everything as it was.

use ndarray::{Array1, Array2, Array3, Array4, Axis, Slice, array};
use neurarch::components::module::DynModule;
use neurarch::prelude::*;

use crate::bits::bits;

fn world() -> (World, Entity) {
    let mut world = World::new();
    let brain = Sequential::new().push(Linear::new(4, 16)).push(Dropout::default());
    let brain = brain.push(Linear::new(16, 10));
    let population = world.spawn_population(&brain, 3, Seed(1)).unwrap().id();
    world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
    (world, population)
}

/// Asserts that `deed` fails in these words, and that training goes on as if it had not been tried.
#[track_caller]
fn refuses<R, E: std::fmt::Display>(
    words: &str,
    deed: impl FnOnce(&mut World, Entity) -> Result<R, E>,
) {
    let (mut world, population) = world();
    let (mut untouched, other) = self::world();
    match deed(&mut world, population) {
        Ok(_) => panic!("expected to be refused: {words}"),
        Err(error) => assert_eq!(error.to_string(), words),
    }
    assert_eq!(bits(&mut world, population), bits(&mut untouched, other));
    // Random states and optimizer state show in the next step.
    let x = Array3::<f32>::ones((3, 2, 4));
    let targets = Array2::<i64>::ones((3, 2));
    let loss = CrossEntropyLoss::default();
    let next = world.population_mut(population).unwrap().train_step(&x, &targets, &loss).unwrap();
    assert_eq!(
        next,
        untouched.population_mut(other).unwrap().train_step(&x, &targets, &loss).unwrap()
    );
    assert_eq!(bits(&mut world, population), bits(&mut untouched, other));
}

#[test]
fn inputs_that_do_not_fit_a_module() {
    refuses("0 (Linear): mat1 and mat2 shapes cannot be multiplied (32x5 and 4x16)", |world, p| {
        world.population_mut(p)?.forward(&Array3::<f32>::zeros((3, 32, 5)))
    });
    refuses("0 (Linear): mat1 and mat2 shapes cannot be multiplied (32x5 and 4x16)", |world, p| {
        let targets = Array2::<i64>::zeros((3, 32));
        let x = Array3::<f32>::zeros((3, 32, 5));
        world.population_mut(p)?.train_step(&x, &targets, &CrossEntropyLoss::default())
    });
}

#[test]
fn arrays_for_another_population() {
    refuses("x: expected numbers for 3 models, got 4", |world, p| {
        world.population_mut(p)?.forward(&Array3::<f32>::zeros((4, 32, 4)))
    });
    refuses("targets: expected numbers for 3 models, got 2", |world, p| {
        let x = Array3::<f32>::zeros((3, 2, 4));
        let targets = Array2::<i64>::zeros((2, 2));
        world.population_mut(p)?.train_step(&x, &targets, &CrossEntropyLoss::default())
    });
    refuses("x: expected f32, got f64", |world, p| {
        world.population_mut(p)?.forward(&Array3::<f64>::zeros((3, 32, 4)))
    });
    refuses("y: expected shape [3, 2, 10], got [3, 2, 9]", |world, p| {
        let mut y = Array3::<f32>::zeros((3, 2, 9));
        world.population_mut(p)?.forward_into(&Array3::<f32>::zeros((3, 2, 4)), y.view_mut())
    });
}

#[test]
fn targets_that_are_no_classes() {
    for (target, shown) in [(10, "10"), (-1, "-1")] {
        let words = format!("Target {shown} is out of bounds (model 2, item 1: expected 0 to 9)");
        refuses(&words, |world, p| {
            let mut targets = Array2::<i64>::zeros((3, 2));
            targets[[2, 1]] = target;
            let x = Array3::<f32>::zeros((3, 2, 4));
            world.population_mut(p)?.train_step(&x, &targets, &CrossEntropyLoss::default())
        });
    }
}

#[test]
fn deeds_out_of_order() {
    refuses("expected a forward pass before loss", |world, p| {
        let targets = Array2::<i64>::zeros((3, 2));
        world.population_mut(p)?.loss::<f32, i64>(&targets, &CrossEntropyLoss::default())
    });
    refuses("expected a forward pass before backward", |world, p| {
        world.population_mut(p)?.backward()
    });
}

#[test]
fn a_loss_that_is_an_array_cannot_be_gone_back_from() {
    let reduction = Reduction::None;
    let loss = CrossEntropyLoss { reduction, ..CrossEntropyLoss::default() };
    refuses("grad can be implicitly created only for scalar outputs", |world, p| {
        let x = Array3::<f32>::zeros((3, 2, 4));
        world.population_mut(p)?.train_step(&x, &Array2::<i64>::zeros((3, 2)), &loss)
    });
}

#[test]
fn learning_needs_an_optimizer() {
    let mut world = World::new();
    let population = world.spawn_population(&Linear::new(2, 2), 2, Seed(0)).unwrap().id();
    let x = Array3::<f32>::zeros((2, 1, 2));
    let error = world
        .population_mut(population)
        .unwrap()
        .train_step(&x, &x, &MSELoss::default())
        .unwrap_err();
    let expected = "model 0 has no optimizer: insert one, such as Adam::default(); a type of your own is made known by \
                    Optimizers::register";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn data_sets_that_cannot_be_cut() {
    fn train(
        world: &mut World,
        population: Entity,
        items: [usize; 2],
        order: Array2<u32>,
        batch: usize,
        epochs: usize,
    ) -> Result<Array2<f32>, StepError> {
        let inputs = Array2::<f32>::zeros((items[0], 4));
        let targets = Array1::<i64>::zeros(items[1]);
        let data = DataSet::shared(inputs.view(), targets.view()).order(order.view());
        world
            .population_mut(population)?
            .train_steps(data.batch(batch).epochs(epochs), &CrossEntropyLoss::default())
    }
    refuses("order: expected item numbers below 5, got 5", |world, p| {
        train(world, p, [5, 5], Array2::from_elem((3, 4), 5), 2, 1)
    });
    refuses("order: expected numbers for 3 models, got 2", |world, p| {
        train(world, p, [5, 5], Array2::zeros((2, 4)), 2, 1)
    });
    refuses("data set: expected as many targets as inputs (5), got 4", |world, p| {
        train(world, p, [5, 4], Array2::zeros((3, 4)), 2, 1)
    });
    refuses("data set: expected minibatches of at least 1 item, got 0", |world, p| {
        train(world, p, [5, 5], Array2::zeros((3, 4)), 0, 1)
    });
    refuses("data set: 4 item numbers make no 3 epochs of one length", |world, p| {
        train(world, p, [5, 5], Array2::zeros((3, 4)), 2, 3)
    });
}

#[test]
fn entities_that_are_no_population() {
    let mut world = World::new();
    let stranger = world.spawn_empty().id();
    let x = array![[1.0_f32]];
    let error = world.population_mut(stranger).unwrap_err().to_string();
    assert_eq!(error, format!("{stranger} is not a population"));
    let mut gone = world.spawn_population(&Linear::new(1, 1), 1, Seed(1)).unwrap();
    let id = gone.id();
    gone.world_mut().despawn(id);
    assert!(gone.forward(&x).is_err());
    assert!(gone.backward().is_err());
    assert!(gone.eval().is_err());
    assert!(gone.insert(Adam::default()).is_err());
    assert!(world.get::<Adam>(stranger).is_none());
}

#[test]
fn layers_too_large_for_memory() {
    // 4 × 10¹⁴ bytes a model, more than an address space has; a power of two and some, to count a padded row.
    let words = "weight: f32[100000000, 1000000] for each of 3 models: can't allocate memory: you tried to \
                 allocate 1688849860263936 bytes";
    refuses(words, |world, _| {
        world
            .spawn_population(&Linear::new(1_000_000, 100_000_000), 3, Seed(1))
            .map(|brains| brains.id())
    });
    let huge = Sequential::new().push(Linear::new(4, 4)).push(Linear::new(1 << 40, 1 << 40));
    let words = "1.weight: f32[1099511627776, 1099511627776] for each of 3 models: Storage size calculation \
                 overflowed with sizes=[1099511627776, 1099511627776]";
    refuses(words, |world, _| world.spawn_population(&huge, 3, Seed(1)).map(|brains| brains.id()));
    refuses(&words.replace("3 models", "5 models"), |world, _| {
        world.spawn_population(&huge, 5, Seed(1)).map(|brains| brains.id())
    });
}

#[test]
fn layers_whose_sizes_cannot_be_multiplied() {
    let (half, most) = (usize::MAX / 2 + 1, usize::MAX);
    let mut world = World::new();
    let mut refused = |module: &dyn DynModule| {
        let error = world.spawn_population_with(module, PopulationSettings::default()).unwrap_err();
        assert!(error.to_string().contains("Storage size calculation overflowed"), "{error}");
    };
    // Four times and twice `half` are 0 in as many bits as a `usize` has.
    refused(&LSTM::new(2, half));
    refused(&GRU { bidirectional: true, num_layers: 2, ..GRU::new(2, half) });
    refused(&LSTM { proj_size: half, bidirectional: true, num_layers: 2, ..LSTM::new(2, 3) });
    refused(&LSTMCell::new(2, half));
    refused(&MultiheadAttention::new(most, 1));
    refused(&AdaptiveLogSoftmaxWithLoss::new(2, 4, [most, 3]));
}

#[test]
fn a_data_set_of_no_minibatches() {
    refuses("data set: expected at least 1 minibatch, got 0", |world, p| {
        let (x, targets) = (Array4::<f32>::zeros((3, 0, 2, 4)), Array3::<i64>::zeros((3, 0, 2)));
        let data = DataSet::stacked(x.view(), targets.view());
        world.population_mut(p)?.train_steps(data, &CrossEntropyLoss::default())
    });
    let (x, targets) = (Array2::<f32>::zeros((5, 4)), Array1::<i64>::zeros(5));
    let endless = DataSet::shared(x.view(), targets.view()).epochs(usize::MAX);
    assert_eq!(endless.batch(2).steps(), usize::MAX);
}

#[test]
fn numbers_of_models_go_on_from_0_after_the_last() {
    let (mut world, seed) = (World::new(), 7);
    let module = Linear::new(2, 2);
    let of = |models, first_number| PopulationSettings {
        models,
        seed,
        first_number,
        ..PopulationSettings::default()
    };
    let over_the_end = world.spawn_population_with(&module, of(3, u64::MAX)).unwrap().id();
    let from_0 = world.spawn_population_with(&module, of(2, 0)).unwrap().id();
    let weights = world.population_mut(over_the_end).unwrap().stack::<f32>("weight").unwrap();
    let weights = weights.slice_axis(Axis(0), Slice::from(1..));
    assert_eq!(weights, world.population_mut(from_0).unwrap().stack::<f32>("weight").unwrap());
}
