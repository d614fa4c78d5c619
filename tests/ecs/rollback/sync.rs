//! Sync tests, as netcode crates have them: each tick is saved, some ticks are run, taken back and run again.

use super::*;

/// A number that follows from a tick and a salt.
fn drawn(tick: u64, salt: u64, below: u64) -> u64 {
    let mut x = tick.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ salt.wrapping_mul(0xD1B5_4A32_D192_ED03);
    x ^= x >> 29;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x ^ x >> 32) % below
}

/// What happens at a tick: all that a game does to its brains, by the tick's number.
fn run(world: &mut World, population: Entity, tick: u64) {
    let models = world.population(population).unwrap().models().to_vec();
    let n = models.len() as u64;
    match drawn(tick, 0, 8) {
        0 | 1 => learn(world, population, tick),
        2 => {
            let noise =
                |model: usize| Noise::normal(if model.is_multiple_of(3) { 0.1 } else { 0.0 });
            let mut brains = world.population_mut(population).unwrap();
            brains.perturb_with(noise, |name| name.ends_with("weight")).unwrap();
        }
        3 => {
            // The best take the place of others.
            let parent = |model| if model % 4 == 0 { drawn(tick, model, n) } else { model };
            let parents: Vec<_> = (0..n).map(|model| parent(model) as usize).collect();
            let mut brains = world.population_mut(population).unwrap();
            brains.overwrite(&parents).unwrap();
            brains.overwrite_hyperparameters(&parents).unwrap();
        }
        4 => {
            // Turnover: some die, as many are born.
            let dead = [drawn(tick, 1, n), drawn(tick, 2, n)].map(|index| models[index as usize]);
            dead.into_iter().for_each(|root| _ = world.despawn(root));
            let left = world.population(population).unwrap().models().len() as u64;
            let mut brains = world.population_mut(population).unwrap();
            let parents: Vec<_> = (left..n).map(|salt| drawn(tick, salt, left) as usize).collect();
            brains.clone_models(&parents).unwrap();
        }
        5 => {
            let root = models[drawn(tick, 3, n) as usize];
            world.get_mut::<Adam>(root).unwrap().lr *= 0.9;
            let mut model = world.module_mut(root).unwrap();
            model.parameter_mut(tick);
        }
        6 => {
            // Gradients stay from one tick to the next.
            let x = Array3::from_elem((models.len(), 3, 4), tick as f32 % 5.0 - 2.0);
            let y = Array2::<i64>::zeros((models.len(), 3));
            let mut brains = world.population_mut(population).unwrap();
            brains.forward(&x).unwrap();
            brains.loss::<f32, _>(&y, &CrossEntropyLoss::default()).unwrap();
            brains.backward().unwrap();
        }
        _ => {
            let mut brains = world.population_mut(population).unwrap();
            match brains.model(drawn(tick, 4, n) as usize).unwrap() {
                mut model if drawn(tick, 5, 2) == 0 => drop(model.eval().unwrap()),
                mut model => drop(model.train().unwrap()),
            }
        }
    }
}

trait Write {
    /// Writes a number that follows from the tick into a weight.
    fn parameter_mut(&mut self, tick: u64);
}

impl Write for ModuleMut<'_> {
    fn parameter_mut(&mut self, tick: u64) {
        let mut weight = self.parameter::<f32>("0.weight").unwrap();
        weight[[0, 0]] = tick as f32 / 100.0;
        self.set_parameter("0.weight", weight.view()).unwrap();
    }
}

/// Each tick: save, run 8, go back, run again.
fn sync(models: usize, ticks: u64) {
    const AHEAD: u64 = 8;
    let mut world = World::new();
    let population = brains(&mut world, models, 5);
    world.population_mut(population).unwrap().keep_snapshots(AHEAD as usize + 1).unwrap();
    for tick in 0..ticks {
        let ahead = |world: &mut World| -> Vec<_> {
            let step = |tick| {
                save(world, population, tick);
                run(world, population, tick);
                state(world, population)
            };
            (tick..tick + AHEAD).map(step).collect()
        };
        let before = state(&mut world, population);
        let first = ahead(&mut world);
        world.population_mut(population).unwrap().restore_snapshot(tick).unwrap();
        assert_eq!(state(&mut world, population), before, "back at tick {tick}");
        let again = ahead(&mut world);
        for (at, (first, again)) in first.iter().zip(&again).enumerate() {
            assert_eq!(first, again, "tick {} after tick {tick}", tick + at as u64);
        }
        // On by one.
        world.population_mut(population).unwrap().restore_snapshot(tick + 1).unwrap();
        world.clear_trackers();
    }
}

#[test]
fn ticks_that_are_run_again_have_the_same_bits() {
    sync(23, 100);
}

/// `cargo test --release --all-features --test ecs -- --ignored ten_thousand_ticks`
#[test]
#[ignore = "it takes minutes"]
fn ten_thousand_ticks_that_are_run_again_have_the_same_bits() {
    sync(23, 10_000);
}
