//! Evolution: every model becomes what its parents were, to the bit, wherever its rows lie; noise and
//! choices follow from the model alone; and a call that fails changes nothing.

use std::collections::BTreeMap;

use ndarray::{Array2, Array3};
use neurarch::bevy_ecs::prelude::{Commands, Insert, On};
use neurarch::components::column::{ColumnKey, row};
use neurarch::components::module::mode::{Draws, HasGradient, Mode};
use neurarch::components::population::Population;
use neurarch::components::population::tree::{Columned, Model};
use neurarch::kernels::ir::program::Role;
use neurarch::prelude::*;
use neurarch::systems::evolve;
use neurarch::systems::structure::access;
use proptest::prelude::*;

#[derive(Component, Clone, Debug, PartialEq)]
struct Tag(u32);

/// Adds a buffer to its input.
#[derive(Component, Clone, Debug, PartialEq)]
struct Shift;

impl Module for Shift {
    fn declare(&self, declare: &mut Declare) {
        declare.buffer("shift", [9], true);
    }

    fn reset(&self, _: &str) -> Init {
        Init::Uniform { low: 0.0, high: 1.0 }
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        x + call.buffer("shift")
    }
}

fn brain() -> Sequential {
    let inner = Sequential::new().push(Linear::new(9, 5)).push(Dropout { p: 0.2 });
    Sequential::new().push(Linear::new(3, 9)).push(Shift).push(inner).push(Linear::new(5, 2))
}

fn spawn(models: usize, seed: u64) -> (World, Entity) {
    let mut world = World::new();
    let population = world.spawn_population(&brain(), models, Seed(seed)).unwrap().id();
    (world, population)
}

const ROLES: [Option<Role>; 4] =
    [None, Some(Role::Gradient), Some(Role::State(0)), Some(Role::State(1))];

/// All numbers of a model as bits, by name and then by role, the last of which is the count of steps; and
/// which parameters have gradients.
type Numbers = (BTreeMap<String, Vec<Option<Vec<u32>>>>, HasGradient);

fn numbers(world: &mut World, root: Entity) -> Numbers {
    let mut all = BTreeMap::new();
    let mut names = world.module_mut(root).unwrap().parameter_names().unwrap();
    names.extend(
        world
            .module_mut(root)
            .unwrap()
            .at("1")
            .map(|module| module.id())
            .is_ok()
            .then(|| "1.shift".to_owned()),
    );
    for name in names {
        let of = ROLES.into_iter().map(|role| {
            let numbers = access::read::<f32>(world, root, &name, role).ok()?;
            Some(numbers.iter().map(|number| number.to_bits()).collect())
        });
        let mut of: Vec<_> = of.collect();
        let (path, leaf) = name.rsplit_once('.').unwrap_or(("", &name));
        let module = world.module_mut(root).unwrap().at(path).unwrap().id();
        of.push(steps(world, module, leaf).map(|steps| vec![steps]));
        all.insert(name, of);
    }
    let has_gradient = world.get::<HasGradient>(root).unwrap().clone();
    (all, has_gradient)
}

/// How often a parameter of a module was updated, as bits.
fn steps(world: &World, module: Entity, parameter: &str) -> Option<u32> {
    let contents = world.get::<Columned>(module).unwrap().contents().clone();
    let (role, index, ty) = contents.columns().find(|(role, ..)| *role == Role::Steps)?;
    let place = contents.parameters.iter().position(|known| known.name == parameter)?;
    let row = row(world, module, ColumnKey::new(role, index, &ty))?;
    Some(u32::from_ne_bytes(row[4 * place..][..4].try_into().unwrap()))
}

fn all_numbers(world: &mut World, population: Entity) -> Vec<Numbers> {
    let roots = world.population(population).unwrap().models().to_vec();
    roots.into_iter().map(|root| numbers(world, root)).collect()
}

/// Trains for some steps, some models more than others, then leaves most with gradients.
fn train(world: &mut World, population: Entity, steps: usize) {
    let models = world.population(population).unwrap().models().len();
    let x =
        Array3::from_shape_fn((models, 4, 3), |(m, i, f)| (m * 7 + i * 3 + f) as f32 / 9.0 - 1.0);
    let y = Array2::from_shape_fn((models, 4), |(m, i)| ((m + i) % 2) as i64);
    let roots = world.population(population).unwrap().models().to_vec();
    for step in 0..steps {
        world.module_mut(roots[step % models]).unwrap().set_active(false).unwrap();
        world
            .population_mut(population)
            .unwrap()
            .train_step(&x, &y, &CrossEntropyLoss::default())
            .unwrap();
        world.module_mut(roots[step % models]).unwrap().set_active(true).unwrap();
    }
    let frozen = roots[models / 2];
    world.module_mut(frozen).unwrap().requires_grad_(false).unwrap();
    world.population_mut(population).unwrap().forward(&x).unwrap();
    world
        .population_mut(population)
        .unwrap()
        .loss::<f32, i64>(&y, &CrossEntropyLoss::default())
        .unwrap();
    world.population_mut(population).unwrap().backward().unwrap();
    world.module_mut(frozen).unwrap().requires_grad_(true).unwrap();
}

/// A population whose rows lie anywhere: models came and went, and some modules are tagged.
fn scattered(models: usize, choices: &[usize]) -> (World, Entity) {
    let (mut world, population) = spawn(models + choices.len(), 7);
    world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
    for (number, &choice) in choices.iter().enumerate() {
        let roots = world.population(population).unwrap().models().to_vec();
        let root = roots[choice % roots.len()];
        let path = ["", "0", "2", "2.0", "3"][choice % 5];
        let module = world.module_mut(root).unwrap().at(path).unwrap().id();
        world.entity_mut(module).insert(Tag(number as u32));
        if number % 3 == 2 {
            world.entity_mut(module).remove::<Tag>();
        }
        world.despawn(roots[(choice * 5 + 1) % roots.len()]);
    }
    (world, population)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_model_becomes_what_its_parent_was(
        seeds in prop::collection::vec(0..1_000_usize, 2..24),
        choices in prop::collection::vec(0..1_000_usize, 0..8),
        threads in 1..4_usize,
    ) {
        let models = seeds.len();
        let (mut world, population) = scattered(models, &choices);
        train(&mut world, population, 2);
        let parents: Vec<_> = seeds.iter().map(|seed| seed % models).collect();
        let before = all_numbers(&mut world, population);
        let roots = world.population(population).unwrap().models().to_vec();
        let own = |world: &World| -> Vec<_> {
            let of = |&root| (*world.get::<Model>(root).unwrap(), *world.get::<Draws>(root).unwrap(),
                world.get::<Mode>(root).unwrap().clone(), world.get::<Tag>(root).cloned());
            roots.iter().map(of).collect()
        };
        let own_before = own(&world);
        let paths = ["", "0", "1", "2", "2.0", "2.1", "3"];
        let modules: Vec<_> = roots
            .iter()
            .flat_map(|&root| paths.map(|path| (root, path)))
            .map(|(root, path)| world.module_mut(root).unwrap().at(path).unwrap().id())
            .collect();
        let locations = |world: &World| -> Vec<_> {
            modules.iter().map(|&module| world.entity(module).location()).collect()
        };
        let locations_before = locations(&world);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| world.population_mut(population)?.overwrite(&parents)).unwrap();
        let expected: Vec<_> = parents.iter().map(|&parent| before[parent].clone()).collect();
        prop_assert_eq!(all_numbers(&mut world, population), expected);
        prop_assert_eq!(world.population(population).unwrap().models(), &roots[..]);
        prop_assert_eq!(own(&world), own_before);
        prop_assert_eq!(locations(&world), locations_before, "nothing moved");
        train(&mut world, population, 1);
    }

    #[test]
    fn a_mixture_has_each_parameter_whole_from_one_parent(
        seeds in prop::collection::vec((0..1_000_usize, 0..1_000_usize), 2..24),
        choices in prop::collection::vec(0..1_000_usize, 0..8),
    ) {
        let models = seeds.len();
        let (mut world, population) = scattered(models, &choices);
        train(&mut world, population, 2);
        let parents: Vec<_> = seeds.iter().map(|(a, b)| (a % models, b % models)).collect();
        let before = all_numbers(&mut world, population);
        world.population_mut(population).unwrap().crossover(&parents).unwrap();
        let after = all_numbers(&mut world, population);
        for (model, (a, b)) in parents.into_iter().enumerate() {
            for (name, own) in &after[model].0 {
                // Each number is another in each model, so it tells where it came from.
                prop_assert!(*own == before[a].0[name] || *own == before[b].0[name], "{}", name);
            }
        }
    }
}

#[test]
fn parents_of_a_mixture_have_equal_chances_and_are_chosen_anew_each_time() {
    let (mut world, population) = spawn(200, 3);
    let before = all_numbers(&mut world, population);
    let parents: Vec<_> = (0..200).map(|model| (model, (model + 1) % 200)).collect();
    let mut of_first = Vec::new();
    for _ in 0..2 {
        world.population_mut(population).unwrap().crossover(&parents).unwrap();
        let after = all_numbers(&mut world, population);
        let is_first = after.iter().zip(&before).flat_map(|(after, before)| {
            after.0.iter().map(|(name, own)| *own == before.0[name]).collect::<Vec<_>>()
        });
        of_first.push(is_first.collect::<Vec<_>>());
        let draws = |root: &Entity| world.get::<Draws>(*root).unwrap().0;
        assert!(world.population(population).unwrap().models().iter().all(|root| draws(root) > 0));
        let roots = world.population(population).unwrap().models().to_vec();
        for (&root, numbers) in roots.iter().zip(&before) {
            restore(&mut world, root, numbers);
        }
    }
    // 1,400 choices: the mean has a standard deviation of 19.
    for of_first in &of_first {
        let count = of_first.iter().filter(|is_first| **is_first).count();
        assert!((620..780).contains(&count), "{count}");
    }
    assert_ne!(of_first[0], of_first[1]);
}

/// Puts the parameters and buffers of a model back.
fn restore(world: &mut World, root: Entity, numbers: &Numbers) {
    for (name, roles) in &numbers.0 {
        let shape = world.module_mut(root).unwrap().parameter::<f32>(name).unwrap().raw_dim();
        let numbers = roles[0].as_ref().unwrap().iter().map(|&bits| f32::from_bits(bits)).collect();
        let numbers = ndarray::ArrayD::from_shape_vec(shape, numbers).unwrap();
        world.module_mut(root).unwrap().set_parameter(name, numbers.view()).unwrap();
    }
}

/// Evolves for some generations; gives the models from `first` on.
fn evolve(numbers_from: u64, models: usize, threads: usize) -> Vec<Numbers> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut world = World::new();
        let settings = PopulationSettings {
            models,
            seed: 5,
            first_number: numbers_from,
            ..PopulationSettings::default()
        };
        let population = world.spawn_population_with(&brain(), settings).unwrap().id();
        let itself: Vec<_> = (0..models).collect();
        for _ in 0..3 {
            world.population_mut(population).unwrap().overwrite(&itself).unwrap();
            let noise = |model: usize| Noise {
                std: 0.1 * (1 + (numbers_from as usize + model) % 3) as f64,
                rate: [1.0, 0.3][(numbers_from as usize + model) % 2],
            };
            world
                .population_mut(population)
                .unwrap()
                .perturb_with(noise, |name| name != "0.bias")
                .unwrap();
        }
        all_numbers(&mut world, population)
    })
}

#[test]
fn noise_is_the_same_alone_and_among_others_on_any_number_of_threads() {
    let among = evolve(0, 300, 1);
    for threads in [2, 3] {
        assert_eq!(evolve(0, 300, threads), among);
    }
    for number in [0, 1, 157, 299] {
        assert_eq!(evolve(number, 1, 1), among[number as usize..][..1], "model {number}");
    }
}

#[test]
fn noise_changes_what_it_is_told_to_and_never_twice_alike() {
    let (mut world, population) = spawn(6, 1);
    let roots = world.population(population).unwrap().models().to_vec();
    world.entity_mut(roots[4]).insert(Tag(0));
    world.module_mut(roots[2]).unwrap().set_active(false).unwrap();
    let first = all_numbers(&mut world, population);
    let noise = |model| Noise::normal(if model == 3 { 0.0 } else { 0.1 });
    let is_chosen = |name: &str| name.ends_with("weight");
    world.population_mut(population).unwrap().perturb_with(noise, is_chosen).unwrap();
    let second = all_numbers(&mut world, population);
    for (model, (first, second)) in first.iter().zip(&second).enumerate() {
        for (name, numbers) in &first.0 {
            let is_changed = !matches!(model, 2 | 3) && is_chosen(name);
            assert_eq!(*numbers != second.0[name], is_changed, "{model} {name}");
        }
    }
    // The same numbers before, and yet others after; unless the models' draws are counted back.
    for again in [false, true] {
        for (&root, numbers) in roots.iter().zip(&first) {
            restore(&mut world, root, numbers);
            if again {
                world.get_mut::<Draws>(root).unwrap().0 = 0;
            }
        }
        world.population_mut(population).unwrap().perturb_with(noise, is_chosen).unwrap();
        assert_eq!(all_numbers(&mut world, population) == second, again);
    }
    // Children of one parent become different models.
    world.population_mut(population).unwrap().overwrite(&[0; 6]).unwrap();
    world.population_mut(population).unwrap().perturb(Noise::normal(0.1)).unwrap();
    let all = all_numbers(&mut world, population);
    assert!((1..6).filter(|model| *model != 2).all(|model| all[model] != all[0]));
}

/// Gives models 1 and 3 another last layer.
fn mixed() -> (World, Entity) {
    let (mut world, population) = spawn(6, 9);
    for model in [1, 3] {
        let root = world.population(population).unwrap().models()[model];
        let last = world.module_mut(root).unwrap().at("3").unwrap().id();
        world.entity_mut(last).insert(Linear::new(5, 4));
    }
    (world, population)
}

#[test]
fn models_of_several_blueprints_evolve_each_among_their_like() {
    let (mut world, population) = mixed();
    let before = all_numbers(&mut world, population);
    world.population_mut(population).unwrap().overwrite(&[2, 3, 0, 1, 0, 5]).unwrap();
    let expected: Vec<_> = [2, 3, 0, 1, 0, 5].map(|parent| before[parent].clone()).into();
    assert_eq!(all_numbers(&mut world, population), expected);
    world
        .population_mut(population)
        .unwrap()
        .crossover(&[(2, 4), (3, 3), (0, 0), (1, 3), (0, 5), (5, 5)])
        .unwrap();
    world.population_mut(population).unwrap().perturb(Noise::normal(0.1)).unwrap();
    let clones = world.population_mut(population).unwrap().clone_models(&[1, 0]).unwrap();
    let originals = [1, 0].map(|model| world.population(population).unwrap().models()[model]);
    for (clone, original) in clones.into_iter().zip(originals) {
        assert_eq!(numbers(&mut world, clone), numbers(&mut world, original));
    }
}

#[test]
fn a_call_that_fails_leaves_everything_as_it_was() {
    let (mut world, population) = mixed();
    let before = all_numbers(&mut world, population);
    let itself: Vec<_> = (0..6).collect();
    let of_other = EvolveError::Blueprint { model: 4, parent: 3 };
    let wrong = EvolveError::NoSuchModel { index: 6, models: 6 };
    for (parents, error) in [
        (vec![2, 1, 0, 3, 3, 5], of_other.clone()),
        (vec![2, 1, 0, 3, 6, 5], wrong.clone()),
        (itself[..5].to_vec(), EvolveError::Length { expected: 6, given: 5 }),
        (vec![0; 7], EvolveError::Length { expected: 6, given: 7 }),
    ] {
        assert_eq!(
            world.population_mut(population).unwrap().overwrite(&parents),
            Err(error.clone())
        );
        assert_eq!(
            world.population_mut(population).unwrap().overwrite_hyperparameters(&parents),
            Err(error.clone())
        );
        let pairs: Vec<_> = parents.iter().map(|&parent| (parent, parent)).collect();
        assert_eq!(world.population_mut(population).unwrap().crossover(&pairs), Err(error));
    }
    for std in [-0.1, f64::NAN, f64::INFINITY] {
        let noise = |model| Noise::normal(if model == 5 { std } else { 0.1 });
        let error =
            world.population_mut(population).unwrap().perturb_with(noise, |_| true).unwrap_err();
        assert!(matches!(error, EvolveError::Std { model: 5, .. }), "{error}");
    }
    for rate in [-0.1, 1.1, f64::NAN] {
        let error = world
            .population_mut(population)
            .unwrap()
            .perturb(Noise { std: 1.0, rate })
            .unwrap_err();
        assert!(matches!(error, EvolveError::Rate { model: 0, .. }), "{error}");
    }
    assert_eq!(world.population_mut(population).unwrap().clone_models(&[0, 6]), Err(wrong));
    let mut gone = world.spawn_population(&Linear::new(2, 1), 1, Seed(1)).unwrap();
    let id = gone.id();
    gone.world_mut().despawn(id);
    assert!(matches!(gone.overwrite(&[]), Err(EvolveError::Sign(_))));
    assert!(matches!(gone.clone_models(&[]), Err(EvolveError::Sign(_))));
    assert!(matches!(gone.perturb(Noise::normal(1.0)), Err(EvolveError::Sign(_))));
    assert_eq!(world.population(population).unwrap().models().len(), 6);
    assert_eq!(all_numbers(&mut world, population), before);
    assert_eq!(
        of_other.to_string(),
        "model 4 cannot have the numbers of model 3: their blueprints differ"
    );
}

#[test]
fn hyperparameters_are_taken_over_where_asked() {
    let (mut world, population) = spawn(4, 2);
    world
        .population_mut(population)
        .unwrap()
        .insert_with(|model| Adam { lr: 1e-3 * (1 + model) as f64, ..Adam::default() })
        .unwrap();
    world
        .population_mut(population)
        .unwrap()
        .at("2.1")
        .insert_with(|model| Dropout { p: 0.1 * model as f64 })
        .unwrap();
    train(&mut world, population, 2);
    let roots = world.population(population).unwrap().models().to_vec();
    world.population_mut(population).unwrap().overwrite(&[1, 0, 3, 3]).unwrap();
    let rate = |world: &World, model: usize| world.get::<Adam>(roots[model]).unwrap().lr;
    assert_eq!(rate(&world, 0), 1e-3, "numbers come alone");
    world.population_mut(population).unwrap().overwrite_hyperparameters(&[1, 0, 3, 3]).unwrap();
    assert_eq!([0, 1, 2, 3].map(|model| rate(&world, model)), [2e-3, 1e-3, 4e-3, 4e-3]);
    let dropout = roots.iter().map(|&root| {
        let module = world.module_mut(root).unwrap().at("2.1").unwrap().id();
        world.get::<Dropout>(module).unwrap().p
    });
    assert_eq!(dropout.collect::<Vec<_>>(), [1, 0, 3, 3].map(|model| 0.1 * f64::from(model)));
    assert_eq!(world.get::<Population>(population).unwrap().groups().len(), 1);

    // Another optimizer would find state that is not its own.
    world.entity_mut(roots[1]).remove::<Adam>().insert(SGD { momentum: 0.9, ..SGD::default() });
    train(&mut world, population, 1);
    let before = all_numbers(&mut world, population);
    let error = EvolveError::Optimizer { model: 2, parent: 1 };
    assert_eq!(world.population_mut(population).unwrap().overwrite(&[0, 1, 1, 0]), Err(error));
    assert_eq!(all_numbers(&mut world, population), before);
    world.population_mut(population).unwrap().overwrite_hyperparameters(&[0, 1, 1, 0]).unwrap();
    assert!(world.get::<Adam>(roots[2]).is_none());
    assert_eq!(world.get::<SGD>(roots[2]), world.get::<SGD>(roots[1]));
    world.population_mut(population).unwrap().overwrite(&[0, 1, 1, 0]).unwrap();
    assert_eq!(numbers(&mut world, roots[2]), before[1]);
    world.population_mut(population).unwrap().overwrite_hyperparameters(&[2, 1, 0, 3]).unwrap();
    assert!(world.get::<Adam>(roots[2]).is_some() && world.get::<SGD>(roots[0]).is_some());
    train(&mut world, population, 1);
}

#[test]
fn clones_are_models_of_their_own_with_all_that_the_originals_have() {
    let (mut world, population) = spawn(3, 4);
    world
        .population_mut(population)
        .unwrap()
        .insert_with(|model| Adam { lr: model as f64, ..Adam::default() })
        .unwrap();
    train(&mut world, population, 2);
    let originals = world.population(population).unwrap().models().to_vec();
    world.entity_mut(originals[2]).insert(Tag(7));
    world.module_mut(originals[1]).unwrap().eval().unwrap();
    let before = all_numbers(&mut world, population);
    let clones = world.population_mut(population).unwrap().clone_models(&[2, 0, 2, 1]).unwrap();
    assert_eq!(world.population(population).unwrap().models()[3..], clones);
    for (place, (&clone, original)) in clones.iter().zip([2, 0, 2, 1]).enumerate() {
        assert_eq!(numbers(&mut world, clone), before[original]);
        let model = *world.get::<Model>(clone).unwrap();
        let of_original = *world.get::<Model>(originals[original]).unwrap();
        assert_eq!((model.index as usize, model.number), (3 + place, 3 + place as u64));
        assert_eq!(model.blueprint, of_original.blueprint);
        assert_eq!(world.get::<Tag>(clone), world.get::<Tag>(originals[original]));
        assert_eq!(world.get::<Adam>(clone), world.get::<Adam>(originals[original]));
        assert_eq!(world.get::<Mode>(clone), world.get::<Mode>(originals[original]));
    }
    assert_eq!(world.get::<Population>(population).unwrap().groups().len(), 1);
    world.population_mut(population).unwrap().overwrite(&[0, 3, 0, 3, 4, 5, 6]).unwrap();
    world.despawn(clones[1]);
    train(&mut world, population, 1);
    assert!(world.population_mut(population).unwrap().clone_models(&[]).unwrap().is_empty());
}

#[test]
fn clones_that_the_host_changes_at_once_are_looked_at_again() {
    let (mut world, population) = spawn(2, 4);
    let changes = |event: On<'_, '_, Insert<Shift>>, mut commands: Commands<'_, '_>| {
        commands.entity(event.entity).insert(Tanh);
    };
    world.add_observer(changes);
    let clones = world.population_mut(population).unwrap().clone_models(&[0, 1]).unwrap();
    assert_eq!(world.population(population).unwrap().models().len(), 4);
    let names = world.module_mut(clones[0]).unwrap().parameter_names().unwrap();
    assert_eq!(names.len(), 6);
    let module = world.module_mut(clones[0]).unwrap().at("1").unwrap().id();
    assert!(world.get::<Tanh>(module).is_some() && world.get::<Shift>(module).is_none());
    assert_eq!(world.get::<Population>(population).unwrap().groups().len(), 2);
    evolve::overwrite(&mut world, population, &[1, 0, 3, 2]).unwrap();
}
