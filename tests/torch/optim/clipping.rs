//! Gradients of whole populations, as rows: norms and clips are each model's own, whoever is beside it.

use ndarray::{Array3, ArrayD, IxDyn, array};
use neurarch::prelude::*;

/// Enough for several threads to have a part.
const MANY: usize = 300;

fn net(inner: usize) -> Sequential {
    Sequential::new().push(Linear::new(3, inner)).push(Tanh).push(Linear::new(inner, 2))
}

/// A gradient that is no other model's or parameter's.
fn gradient(shape: &[usize], model: usize, parameter: usize) -> ArrayD<f32> {
    let count = shape.iter().product::<usize>();
    let number = |i: usize| ((model * 31 + parameter * 7 + i) as f32 * 0.7).sin();
    ArrayD::from_shape_vec(IxDyn(shape), (0..count).map(number).collect()).unwrap()
}

/// Gives model `model` gradients of those of its parameters that `has` names.
fn give(world: &mut World, root: Entity, model: usize, has: impl Fn(usize) -> bool) {
    for (number, name) in
        world.module_mut(root).unwrap().parameter_names().unwrap().iter().enumerate()
    {
        if has(number) {
            let shape =
                world.module_mut(root).unwrap().parameter::<f32>(name).unwrap().shape().to_vec();
            let gradient = gradient(&shape, model, number);
            world.module_mut(root).unwrap().set_gradient(name, Some(gradient.view())).unwrap();
        }
    }
}

fn gradients(world: &mut World, root: Entity) -> Vec<Option<Vec<u32>>> {
    let names = world.module_mut(root).unwrap().parameter_names().unwrap();
    let bits = |gradient: ArrayD<f32>| gradient.iter().map(|x| x.to_bits()).collect();
    names
        .iter()
        .map(|name| world.module_mut(root).unwrap().gradient(name).unwrap().map(bits))
        .collect()
}

/// Models of two blueprints by turns.
fn mixed(world: &mut World, models: usize) -> (Entity, Vec<Entity>) {
    let population = world.spawn_population(&net(5), models, Seed(1)).unwrap().id();
    let roots = world.population(population).unwrap().models().to_vec();
    for &root in roots.iter().skip(1).step_by(2) {
        let first = world.module_mut(root).unwrap().at("0").unwrap().id();
        world.entity_mut(first).insert(Linear { bias: false, ..Linear::new(3, 5) });
    }
    (population, roots)
}

/// Every fourth model lacks the gradient of a parameter, every fifth all of them.
fn has(model: usize) -> impl Fn(usize) -> bool {
    move |parameter| !model.is_multiple_of(5) && (!model.is_multiple_of(4) || parameter != 1)
}

#[test]
fn a_model_is_clipped_among_many_as_alone_on_any_number_of_threads() {
    let clipped = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut world = World::new();
            let (population, roots) = mixed(&mut world, MANY);
            for (model, &root) in roots.iter().enumerate() {
                give(&mut world, root, model, has(model));
            }
            // Not the model, but its steps are passed over.
            world.module_mut(roots[7]).unwrap().set_active(false).unwrap();
            let norms = world.population_mut(population).unwrap().clip_grad_norm_(0.5).unwrap();
            let clipped: Vec<_> = roots.iter().map(|&root| gradients(&mut world, root)).collect();
            (norms, clipped)
        })
    };
    let (norms, all) = clipped(2);
    assert_eq!((&norms, &all), (&clipped(1).0, &clipped(1).1));
    for model in [0, 4, 7, 31, 298, 299] {
        let mut world = World::new();
        let (_, roots) = mixed(&mut world, 2);
        let root = roots[model % 2];
        give(&mut world, root, model, has(model));
        // Of one model, by its root.
        assert_eq!(
            world.module_mut(root).unwrap().clip_grad_norm_(0.5).unwrap(),
            [norms[model]],
            "{model}"
        );
        assert_eq!(gradients(&mut world, root), all[model], "{model}");
        assert_eq!(norms[model] == 0.0, model.is_multiple_of(5));
        assert_eq!(gradients(&mut world, root)[0].is_none(), model.is_multiple_of(5));
    }
}

#[test]
fn what_is_below_a_module_is_clipped_alone() {
    let mut world = World::new();
    let population = world.spawn_population(&net(4), 3, Seed(1)).unwrap().id();
    let roots = world.population(population).unwrap().models().to_vec();
    for (model, &root) in roots.iter().enumerate() {
        give(&mut world, root, model, |_| true);
    }
    let before: Vec<_> = roots.iter().map(|&root| gradients(&mut world, root)).collect();
    let last = world.module_mut(roots[1]).unwrap().at("2").unwrap().id();
    world.module_mut(last).unwrap().clip_grad_value_(0.25).unwrap();
    let after: Vec<_> = roots.iter().map(|&root| gradients(&mut world, root)).collect();
    assert_eq!((&before[0], &before[2]), (&after[0], &after[2]));
    assert_eq!(before[1][..2], after[1][..2]);
    let numbers = after[1][2..].iter().flatten().flatten().map(|&bits| f32::from_bits(bits));
    assert!(numbers.clone().all(|x| x.abs() <= 0.25));
    let largest = world.module_mut(last).unwrap().get_total_norm(f64::INFINITY).unwrap();
    assert_eq!(largest, [f64::from(numbers.fold(0.0_f32, |most, x| most.max(x.abs())))]);
}

#[test]
fn a_parameter_of_two_names_counts_once() {
    let mut world = World::new();
    let twice = Sequential::new()
        .push(Linear { bias: false, ..Linear::new(2, 2) })
        .push(Linear { bias: false, ..Linear::new(2, 2) });
    let population = world.spawn_population(&twice, 2, Seed(1)).unwrap().id();
    let roots = world.population(population).unwrap().models().to_vec();
    for &root in &roots {
        world.module_mut(root).unwrap().tie("1.weight", "0.weight").unwrap();
        let gradient = array![[3.0_f32, 0.0], [0.0, 4.0]];
        world.module_mut(root).unwrap().set_gradient("0.weight", Some(gradient.view())).unwrap();
    }
    // torch.nn.utils.clip_grad_norm_ of parameters(), in which it is once.
    assert_eq!(world.population_mut(population).unwrap().clip_grad_norm_(2.5).unwrap(), [5.0, 5.0]);
    for &root in &roots {
        let clipped = world.module_mut(root).unwrap().gradient::<f32>("0.weight").unwrap().unwrap();
        assert!((clipped[[0, 0]] - 1.5).abs() < 1e-6, "{clipped}");
    }
}

#[test]
fn what_the_population_shares_is_no_models_own() {
    let mut world = World::new();
    let population = world.spawn_population(&net(4), 3, Seed(1)).unwrap().id();
    world
        .population_mut(population)
        .unwrap()
        .insert_with(|_| SGD { lr: 0.1, ..SGD::default() })
        .unwrap();
    world.population_mut(population).unwrap().share_parameter("0.weight").unwrap();
    let (x, y) = (Array3::<f32>::ones((3, 4, 3)), Array3::<f32>::zeros((3, 4, 2)));
    world.population_mut(population).unwrap().forward(&x).unwrap();
    world.population_mut(population).unwrap().loss::<f32, _>(&y, &MSELoss::default()).unwrap();
    world.population_mut(population).unwrap().backward().unwrap();
    let root = world.population(population).unwrap().models()[1];
    let before = world.module_mut(root).unwrap().gradient::<f32>("0.weight").unwrap().unwrap();
    let own: f64 = ["0.bias", "2.weight", "2.bias"]
        .iter()
        .map(|name| world.module_mut(root).unwrap().gradient::<f32>(name).unwrap().unwrap())
        .flat_map(|gradient| gradient.iter().map(|&x| f64::from(x).powi(2)).collect::<Vec<_>>())
        .sum();
    let norms = world.population_mut(population).unwrap().clip_grad_norm_(1e-3).unwrap();
    assert!((norms[1] - own.sqrt()).abs() < 1e-6, "{norms:?}");
    assert_eq!(
        world.module_mut(root).unwrap().gradient::<f32>("0.weight").unwrap().unwrap(),
        before
    );
}

#[test]
fn averages_of_several_blueprints_are_each_models_own() {
    let mut world = World::new();
    let (population, roots) = mixed(&mut world, 40);
    let (averaged, means) = mixed(&mut world, 40);
    world.entity_mut(averaged).insert(AveragedModel::new(AverageFn::Ema { decay: 0.75 }));
    world.population_mut(averaged).unwrap().update_parameters(population).unwrap();
    let of = |world: &mut World, roots: &[Entity]| -> Vec<Vec<f32>> {
        roots
            .iter()
            .map(|&root| {
                world.module_mut(root).unwrap().parameters_to_vector::<f32>().unwrap().to_vec()
            })
            .collect()
    };
    let first = of(&mut world, &roots);
    assert_eq!(of(&mut world, &means), first);
    world.population_mut(population).unwrap().perturb(Noise::normal(1.0)).unwrap();
    let second = of(&mut world, &roots);
    world.population_mut(averaged).unwrap().update_parameters(population).unwrap();
    for (model, mean) in of(&mut world, &means).iter().enumerate() {
        for (place, &mean) in mean.iter().enumerate() {
            let (old, new) = (f64::from(first[model][place]), f64::from(second[model][place]));
            assert_eq!(mean, (old + (new - old) * 0.25) as f32);
        }
    }
    // Its own average stays.
    let before = of(&mut world, &means);
    world.population_mut(averaged).unwrap().update_parameters(averaged).unwrap();
    assert_eq!(of(&mut world, &means), before);
    let other = world.spawn_population(&net(5), 40, Seed(1)).unwrap().id();
    let error =
        world.population_mut(averaged).unwrap().update_parameters(other).unwrap_err().to_string();
    assert_eq!(error, "expected models alike in both populations, model 1 differs");
    assert_eq!(of(&mut world, &means), before);
}

#[test]
fn overflows_of_some_models_and_of_all_pass_over_their_steps() {
    let mut world = World::new();
    let population = world.spawn_population(&net(5), 20, Seed(1)).unwrap().id();
    world.population_mut(population).unwrap().insert_with(|_| Adam::default()).unwrap();
    world.population_mut(population).unwrap().insert(GradScaler::default()).unwrap();
    let roots = world.population(population).unwrap().models().to_vec();
    world.module_mut(roots[3]).unwrap().set_active(false).unwrap();
    let y = Array3::<f32>::zeros((20, 4, 2));
    let weights = |world: &mut World| -> Vec<Vec<f32>> {
        roots
            .iter()
            .map(|&root| {
                world.module_mut(root).unwrap().parameters_to_vector::<f32>().unwrap().to_vec()
            })
            .collect()
    };
    let is_bad = |step: usize, model: usize| step == 1 || step == 0 && model.is_multiple_of(3);
    let mut scales = vec![65536.0; 20];
    for step in 0..3 {
        let x = Array3::from_shape_fn(
            (20, 4, 3),
            |(model, _, _)| {
                if is_bad(step, model) { f32::NAN } else { 0.5 }
            },
        );
        let before = weights(&mut world);
        world
            .population_mut(population)
            .unwrap()
            .train_step_scaled::<f32, f32>(&x, &y, &MSELoss::default())
            .unwrap();
        for (model, after) in weights(&mut world).iter().enumerate() {
            let stays = is_bad(step, model) || model == 3;
            assert_eq!(*after == before[model], stays, "step {step} of model {model}");
            if is_bad(step, model) && model != 3 {
                scales[model] /= 2.0;
            }
        }
        assert_eq!(world.population(population).unwrap().get_scale().unwrap().to_vec(), scales);
    }
}
