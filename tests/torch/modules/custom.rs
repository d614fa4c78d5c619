//! Modules of a user's own: several inputs and results, keyword arguments, a child called twice.

use ndarray::{Array2, Array3, ArrayD, Axis};
use neurarch::bevy_ecs::prelude::*;
use neurarch::hooks::Target;
use neurarch::prelude::*;

const MODELS: usize = 4;

/// Adds what its layer makes of a value to the value, twice over.
#[derive(Component, Clone, Debug, PartialEq)]
struct Residual;

impl Module for Residual {
    fn declare(&self, declare: &mut Declare) {
        declare.child("fc", Linear::new(3, 3));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let x = &x + call.child("fc", &x).relu();
        &x + call.child("fc", &x).relu()
    }
}

/// One encoder of two inputs, a head for each task.
#[derive(Component, Clone, Debug, PartialEq)]
struct MultiHead {
    tasks: Vec<usize>,
}

impl Module for MultiHead {
    fn declare(&self, declare: &mut Declare) {
        declare.child("left", Linear::new(3, 5)).child("right", Linear::new(2, 5));
        for (task, &classes) in self.tasks.iter().enumerate() {
            declare.child(format!("head{task}"), Linear::new(5, classes));
        }
    }

    fn forward_with(&self, call: &Call<'_>, arguments: Arguments) -> Tree {
        let scale = arguments.number("scale").unwrap_or(1.0);
        let positional = Arguments { keyword: Vec::new(), ..arguments };
        let Some([left, right]) = call.values(positional) else {
            return call.trace.poison().into();
        };
        let encoded = (call.child("left", &left) * scale + call.child("right", &right)).tanh();
        let heads = (0..self.tasks.len()).map(|task| format!("head{task}"));
        let results = heads.map(|head| (head.clone(), call.child(&head, &encoded).into()));
        (&encoded, Tree::Dict(results.collect())).into()
    }
}

fn left() -> Array3<f32> {
    Array3::from_shape_fn((MODELS, 6, 3), |(m, i, f)| ((m * 5 + i * 3 + f) % 7) as f32 / 3.0 - 1.0)
}

fn right() -> Array3<f32> {
    Array3::from_shape_fn((MODELS, 6, 2), |(m, i, f)| ((m * 3 + i * 5 + f) % 5) as f32 / 2.0 - 1.0)
}

#[test]
fn a_residual_block_reads_as_short_as_in_torch_and_trains() {
    let mut world = World::new();
    let brains = world.spawn_population(&Residual, MODELS, Seed(1)).unwrap().id();
    world.population_mut(brains).unwrap().insert(Adam { lr: 0.05, ..Adam::default() }).unwrap();
    let targets = Array2::<i64>::from_shape_fn((MODELS, 6), |(m, i)| ((m + i) % 3) as i64);
    let loss = CrossEntropyLoss::default();
    let first = world.population_mut(brains).unwrap().train_step(&left(), &targets, &loss).unwrap();
    for _ in 0..30 {
        world.population_mut(brains).unwrap().train_step(&left(), &targets, &loss).unwrap();
    }
    let last = world.population_mut(brains).unwrap().train_step(&left(), &targets, &loss).unwrap();
    assert!(last.iter().zip(&first).all(|(last, first)| last < first), "{last} {first}");
}

type Forward = (Tree<ArrayD<f32>>, Vec<Option<ArrayD<f32>>>);

/// Runs forward and backward; gives the results, and the gradients of model 2.
fn run(watched: bool, scale: Option<f64>) -> Forward {
    let mut world = World::new();
    let module = MultiHead { tasks: vec![2, 4] };
    let brains = world.spawn_population(&module, MODELS, Seed(1)).unwrap().id();
    if watched {
        world.target_mut(Target::All).register_forward_hook(|_, _, _| Ok(None)).unwrap();
    }
    let (left, right) = (left(), right());
    let mut arguments = Arguments::each([AnyInput::from(&left), AnyInput::from(&right)]);
    arguments.keyword.extend(scale.map(|scale| ("scale".to_owned(), Tree::Number(scale))));
    let result = world.population_mut(brains).unwrap().forward_with::<f32>(arguments).unwrap();
    let gradient = Array3::<f32>::ones((MODELS, 6, 4));
    world
        .population_mut(brains)
        .unwrap()
        .backward_with(&[None, None, Some((&gradient).into())])
        .unwrap();
    let root = world.population(brains).unwrap().models()[2];
    let names = world.module_mut(root).unwrap().parameter_names().unwrap();
    let gradients =
        names.iter().map(|name| world.module_mut(root).unwrap().gradient(name).unwrap()).collect();
    (result, gradients)
}

#[test]
fn results_keep_the_structure_that_forward_gave_them() {
    let (result, gradients) = run(false, None);
    let Tree::Tuple(items) = &result else { panic!("{result:?}") };
    let Tree::Dict(heads) = &items[1] else { panic!("{result:?}") };
    let shapes: Vec<_> = result.leaves().iter().map(|array| array.shape().to_vec()).collect();
    assert_eq!(shapes, [[MODELS, 6, 5], [MODELS, 6, 2], [MODELS, 6, 4]]);
    assert_eq!(heads.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["head0", "head1"]);
    // The first head had no part in what was differentiated.
    let has = gradients.iter().map(Option::is_some).collect::<Vec<_>>();
    assert_eq!(has, [true, true, true, true, false, false, true, true]);
    assert!(gradients[6].as_ref().is_some_and(|gradient| gradient.iter().any(|&g| g != 0.0)));
}

#[test]
fn planned_and_watched_give_the_same_bits_and_keywords_count() {
    for scale in [None, Some(0.5)] {
        assert_eq!(run(false, scale), run(true, scale));
    }
    assert_ne!(run(false, None).0, run(false, Some(0.5)).0);
    assert_eq!(run(false, None), run(false, Some(1.0)));
}

#[test]
fn each_model_is_the_same_alone() {
    let (left, right) = (left(), right());
    let module = MultiHead { tasks: vec![2, 4] };
    let (together, _) = run(false, None);
    for model in 0..MODELS {
        let mut world = World::new();
        let settings = PopulationSettings {
            seed: 1,
            first_number: model as u64,
            ..PopulationSettings::default()
        };
        let alone = world.spawn_population_with(&module, settings).unwrap().id();
        let (left, right) = (
            left.slice(ndarray::s![model..=model, .., ..]),
            right.slice(ndarray::s![model..=model, .., ..]),
        );
        let arguments = Arguments::each([AnyInput::from(left), AnyInput::from(right)]);
        let result = world.population_mut(alone).unwrap().forward_with::<f32>(arguments).unwrap();
        for (alone, all) in result.leaves().into_iter().zip(together.leaves()) {
            assert_eq!(alone.index_axis(Axis(0), 0), all.index_axis(Axis(0), model));
        }
    }
}

#[test]
fn wrong_arguments_are_errors_in_pythons_words() {
    let mut world = World::new();
    let brains =
        world.spawn_population(&MultiHead { tasks: vec![2] }, MODELS, Seed(1)).unwrap().id();
    let error = world.population_mut(brains).unwrap().forward(&left()).unwrap_err().to_string();
    assert!(error.contains("takes 3 positional arguments but 2 were given"), "{error}");
    let (left, right) = (left(), right());
    let both = || Arguments::each([AnyInput::from(&left), AnyInput::from(&right)]);
    world.population_mut(brains).unwrap().forward_with::<f32>(both()).unwrap();
    let error = world
        .population_mut(brains)
        .unwrap()
        .loss::<f32, i64>(&Array2::<i64>::zeros((MODELS, 6)), &CrossEntropyLoss::default());
    assert_eq!(error.unwrap_err().to_string(), "result: expected 1 values, got 2");
    let error =
        world.population_mut(brains).unwrap().forward_with::<f64>(both()).unwrap_err().to_string();
    assert_eq!(error, "result: expected f32, got f64");
    assert!(world.population_mut(brains).unwrap().backward_with(&[]).is_err());
    let plain = world.spawn_population(&Linear::new(3, 2), MODELS, Seed(1)).unwrap().id();
    let error =
        world.population_mut(plain).unwrap().forward_with::<f32>(both()).unwrap_err().to_string();
    assert_eq!(error, "Linear: Linear.forward() takes 2 positional arguments but 3 were given");
}
