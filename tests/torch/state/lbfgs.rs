//! What `LBFGS` keeps goes on from a training state.

use ndarray::Array3;
use neurarch::prelude::*;

use crate::known::Known;

const MODELS: usize = 3;

#[test]
fn l_bfgs_goes_on_where_it_was_saved() {
    let x =
        Array3::from_shape_fn((MODELS, 5, 4), |(m, i, j)| ((m * 7 + i * 5 + j) % 13) as f32 / 6.0);
    let y = Array3::from_shape_fn((MODELS, 5, 2), |(m, i, j)| ((m + i * 3 + j) % 5) as f32);
    let spawn = || {
        let mut world = World::new();
        let net = Sequential::new().push(Linear::new(4, 3)).push(Tanh).push(Linear::new(3, 2));
        let population = world.spawn_population(&net, MODELS, Seed(2)).unwrap().id();
        let line_search_fn = Some(LineSearch::StrongWolfe);
        world
            .brains(population)
            .insert(LBFGS { max_iter: 3, line_search_fn, ..LBFGS::default() })
            .unwrap();
        (world, population)
    };
    let step = |world: &mut World, population: Entity| {
        world
            .brains(population)
            .step_with_closure(|world| {
                world.population_mut(population)?.zero_grad()?;
                world.population_mut(population)?.forward(&x)?;
                let losses =
                    world.population_mut(population)?.loss::<f32, f32>(&y, &MSELoss::default())?;
                world.population_mut(population)?.backward()?;
                Ok(losses.iter().map(|&loss| f64::from(loss)).collect())
            })
            .unwrap()
    };
    let (mut world, population) = spawn();
    for _ in 0..3 {
        step(&mut world, population);
    }
    let state = world.brains(population).stacked_state_dict().unwrap();
    let roots = world.population(population).unwrap().models().to_vec();
    let saved: Vec<_> =
        roots.iter().map(|&root| world.part(root).training_state().unwrap()).collect();
    let went_on = step(&mut world, population);
    let (mut resumed, other) = spawn();
    resumed.brains(other).load_stacked_state_dict(&state, LoadOptions::default()).unwrap();
    for (root, saved) in
        resumed.population(other).unwrap().models().to_vec().into_iter().zip(&saved)
    {
        resumed.part(root).load_training_state(saved).unwrap();
    }
    assert_eq!(step(&mut resumed, other), went_on);
    let (a, b) =
        (world.brains(population).stacked_state_dict(), resumed.brains(other).stacked_state_dict());
    assert_eq!(a.unwrap().iter().collect::<Vec<_>>(), b.unwrap().iter().collect::<Vec<_>>());
    // A model without that optimizer.
    let plain = resumed.spawn_population(&Linear::new(1, 1), 1, Seed(0)).unwrap().id();
    let root = resumed.population(plain).unwrap().models()[0];
    let error = resumed.part(root).load_training_state(&saved[0]).unwrap_err().to_string();
    assert!(error.contains("has lbfgs.d, for which"), "{error}");
}
