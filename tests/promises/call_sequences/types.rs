//! Results and losses are of the models' type, whatever the inputs are.

use ndarray::{Array1, Array2, Array3, ArrayD, Axis};
use neurarch::hooks::At;
use neurarch::kernels::ir::dtype::bf16;
use neurarch::prelude::*;
use neurarch::systems::execute::step::StepError;

fn reader() -> Sequential {
    Sequential::new().push(Embedding::new(10, 4)).push(Linear::new(4, 10))
}

fn tokens(models: usize) -> Array2<i64> {
    Array2::from_shape_fn((models, 5), |(m, i)| ((m * 3 + i * 7) % 10) as i64)
}

fn spawn(world: &mut World, dtype: Dtype) -> Entity {
    let settings =
        PopulationSettings { models: 2, dtype, seed: 3, ..PopulationSettings::default() };
    let population = world.spawn_population_with(&reader(), settings).unwrap().id();
    world.population_mut(population).unwrap().insert(SGD::default()).unwrap();
    population
}

#[test]
fn a_model_that_reads_tokens_gives_losses_of_its_own_type() {
    let mut world = World::new();
    let loss = CrossEntropyLoss::default();
    let t = tokens(2);
    let p = spawn(&mut world, Dtype::F32);
    let [q, r] = [(); 2].map(|()| spawn(&mut world, Dtype::F32));

    let y: ArrayD<f32> = world.population_mut(p).unwrap().forward(&t).unwrap();
    assert_eq!(y.shape(), [2, 5, 10]);
    let mut into = Array3::zeros((2, 5, 10));
    world.population_mut(p).unwrap().forward_into(&t, into.view_mut()).unwrap();
    assert_eq!(into.into_dyn(), y);
    let expected: ArrayD<f32> = world.population_mut(p).unwrap().loss(&t, &loss).unwrap();
    let found: Array1<f32> = world.population_mut(p).unwrap().train_step(&t, &t, &loss).unwrap();
    assert_eq!(found.into_dyn(), expected);
    let with = world.population_mut(q).unwrap().train_step_with::<f32, _>(
        Arguments::each([AnyInput::from(&t)]),
        &t,
        &loss,
    );
    assert_eq!(with.unwrap().into_dyn(), expected);
    let mut losses = [0.0; 2];
    world.population_mut(r).unwrap().train_step_into(&t, &t, &loss, &mut losses).unwrap();
    assert_eq!(ArrayD::from_shape_vec(vec![2], losses.to_vec()).unwrap(), expected);

    let s = spawn(&mut world, Dtype::F32);
    let steps = t.view().insert_axis(Axis(1));
    let data = DataSet::stacked(steps.view(), steps.view());
    let all: Array2<f32> = world.population_mut(s).unwrap().train_steps(data, &loss).unwrap();
    assert_eq!(all.column(0).to_owned().into_dyn(), expected);
}

#[test]
fn models_of_other_types_are_asked_for_theirs() {
    let mut world = World::new();
    let (loss, t) = (CrossEntropyLoss::default(), tokens(2));
    let wrong = |array, given| StepError::Dtype { array, expected: Dtype::F64, given };
    let p = spawn(&mut world, Dtype::F64);
    assert_eq!(world.population_mut(p).unwrap().forward(&t), Err(wrong("result", Dtype::F32)));
    let y = world
        .population_mut(p)
        .unwrap()
        .forward_with::<f64>(Arguments::each([AnyInput::from(&t)]))
        .unwrap();
    assert_eq!(y.leaves()[0].shape(), [2, 5, 10]);
    assert_eq!(
        world.population_mut(p).unwrap().loss::<f32, _>(&t, &loss),
        Err(wrong("result", Dtype::F32))
    );
    assert_eq!(
        world.population_mut(p).unwrap().loss::<i64, _>(&t, &loss),
        Err(wrong("result", Dtype::I64))
    );
    let expected = world.population_mut(p).unwrap().loss::<f64, _>(&t, &loss).unwrap();
    assert_eq!(
        world.population_mut(p).unwrap().train_step(&t, &t, &loss),
        Err(wrong("losses", Dtype::F32))
    );
    let arguments = || Arguments::each([AnyInput::from(&t)]);
    let refused =
        world.population_mut(p).unwrap().train_step_with::<i64, _>(arguments(), &t, &loss);
    assert_eq!(refused, Err(wrong("losses", Dtype::I64)));
    let steps = t.view().insert_axis(Axis(1));
    let data = DataSet::stacked(steps.view(), steps.view());
    assert_eq!(
        world.population_mut(p).unwrap().train_steps(data.clone(), &loss),
        Err(wrong("losses", Dtype::F32))
    );
    let found =
        world.population_mut(p).unwrap().train_steps_with::<f64, _, _>(data, &loss).unwrap();
    assert_eq!(found.column(0).to_owned().into_dyn(), expected);

    let half = spawn(&mut world, Dtype::BF16);
    let losses = world
        .population_mut(half)
        .unwrap()
        .train_step_with::<bf16, _>(arguments(), &t, &loss)
        .unwrap();
    assert!(losses.iter().all(|loss| loss.to_f32() > 1.0), "{losses:?}");
}

/// Maps bytes by a layer.
#[derive(Component, Clone, Debug, PartialEq)]
struct OfBytes;

impl Module for OfBytes {
    fn declare(&self, declare: &mut Declare) {
        declare.child("fc", Linear::new(3, 2));
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        call.child("fc", &x.to(Dtype::F32))
    }
}

#[test]
fn a_model_that_reads_bytes_gives_losses_of_its_own_type() {
    let mut world = World::new();
    let p = world.spawn_population(&OfBytes, 2, Seed(0)).unwrap().id();
    world.population_mut(p).unwrap().insert(SGD::default()).unwrap();
    let (x, y) = (Array3::<u8>::ones((2, 5, 3)), Array2::<i64>::zeros((2, 5)));
    world.population_mut(p).unwrap().forward(&x).unwrap();
    let expected: ArrayD<f32> =
        world.population_mut(p).unwrap().loss(&y, &CrossEntropyLoss::default()).unwrap();
    let found: Array1<f32> =
        world.population_mut(p).unwrap().train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
    assert_eq!(found.into_dyn(), expected);
}

/// Is of double precision, whatever it is given.
#[derive(Clone, Debug, PartialEq)]
struct Wide;

impl Loss for Wide {
    fn forward_with(&self, _: &LossCall<'_>, result: Tree, target: &Var) -> Var {
        let [y] = result.leaves()[..] else { unreachable!() };
        (y.to(Dtype::F64) - target.to(Dtype::F64)).square().mean(&[], false)
    }
}

#[test]
fn a_loss_of_another_type_is_refused() {
    let mut world = World::new();
    let (x, wrong) = (
        Array3::<f32>::ones((2, 5, 3)),
        StepError::Dtype { array: "loss", expected: Dtype::F32, given: Dtype::F64 },
    );
    for is_hooked in [false, true] {
        let p = world.spawn_population(&Linear::new(3, 3), 2, Seed(0)).unwrap().id();
        world.population_mut(p).unwrap().insert(SGD::default()).unwrap();
        if is_hooked {
            let twice = |_: &At<'_>, _: &Arguments, y: Option<&Tree>| {
                Ok(y.and_then(|y| y.leaf()).map(|y| Tree::Leaf(y * 2.0)))
            };
            world.population_mut(p).unwrap().register_forward_hook(twice).unwrap();
        }
        let before = world.population_mut(p).unwrap().stack::<f32>("weight").unwrap();
        assert_eq!(world.population_mut(p).unwrap().train_step(&x, &x, &Wide), Err(wrong.clone()));
        assert_eq!(world.population_mut(p).unwrap().stack::<f32>("weight").unwrap(), before);
    }
}

#[test]
fn epochs_of_no_items_are_no_steps_and_more_steps_than_memory_are_refused() {
    let mut world = World::new();
    let p = world.spawn_population(&Linear::new(4, 3), 2, Seed(0)).unwrap().id();
    world.population_mut(p).unwrap().insert(SGD::default()).unwrap();
    let (x, y) = (Array2::<f32>::zeros((4, 4)), Array1::<i64>::zeros(4));
    let order = Array2::<u32>::zeros((2, 0));
    let data = DataSet::shared(x.view(), y.view()).order(order.view()).epochs(usize::MAX).batch(2);
    let losses =
        world.population_mut(p).unwrap().train_steps(data, &CrossEntropyLoss::default()).unwrap();
    assert_eq!(losses.dim(), (2, 0));
    let many = 1 << 45;
    let (x, y) = (Array3::<f32>::zeros((many, 0, 4)), Array2::<i64>::zeros((many, 0)));
    let data = DataSet::shared(x.view(), y.view()).batch(1);
    assert!(
        world.population_mut(p).unwrap().train_steps(data, &CrossEntropyLoss::default()).is_err()
    );
    let x = ndarray::Array4::<f32>::zeros((2, many, 0, 4));
    let y = Array3::<i64>::zeros((2, many, 0));
    let data = DataSet::stacked(x.view(), y.view());
    let refused = world
        .population_mut(p)
        .unwrap()
        .train_steps(data, &CrossEntropyLoss::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        refused,
        format!("data set: can't allocate memory: you tried to allocate {} bytes", many * 8)
    );
}
