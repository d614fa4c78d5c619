//! Any module can be called: at a path in all models, of one model by its entity, a slice of a container.

use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3, ArrayD, Axis, Ix2, Ix3, s};
use neurarch::hooks::{At, Target};
use neurarch::prelude::*;
use neurarch::systems::compile::plans::Plans;

const MODELS: usize = 5;

fn net() -> Sequential {
    let body = Sequential::new().push(Linear::new(3, 4)).push(BatchNorm1d::new(4));
    let body = body.push(Dropout { p: 0.4 }).push(ReLU);
    Sequential::new().push(body).push(Linear::new(4, 2)).push(Tanh)
}

fn spawn() -> (World, Entity, Vec<Entity>) {
    let mut world = World::new();
    let nets = world.spawn_population(&net(), MODELS, Seed(6)).unwrap().id();
    world.population_mut(nets).unwrap().insert(Adam { lr: 0.05, ..Adam::default() }).unwrap();
    let roots = world.population(nets).unwrap().models().to_vec();
    (world, nets, roots)
}

fn numbers(features: usize) -> Array3<f32> {
    Array3::from_shape_fn((MODELS, 6, features), |(m, i, j)| {
        ((m * 7 + i * 3 + j * 5) % 11) as f32 / 11.0 - 0.4
    })
}

fn statistics(world: &mut World, root: Entity) -> Vec<String> {
    let state = world.module_mut(root).unwrap().state_dict().unwrap();
    state.iter().map(|tensor| format!("{tensor:?}")).collect()
}

#[test]
fn the_parts_of_a_model_make_the_model() {
    let (x, (mut whole, a, in_whole)) = (numbers(3), spawn());
    let (mut parted, b, in_parted) = spawn();
    let y = whole.population_mut(a).unwrap().forward(&x).unwrap();
    let hidden = parted.population_mut(b).unwrap().at("0").forward(&x).unwrap();
    let hidden = parted.population_mut(b).unwrap().at("1").forward(&hidden).unwrap();
    let last = parted.population_mut(b).unwrap().at("2").forward(&hidden).unwrap();
    assert_eq!(last, y);
    for (&one, &other) in in_whole.iter().zip(&in_parted) {
        assert_eq!(statistics(&mut whole, one), statistics(&mut parted, other));
    }
    let (mut sliced, c, _) = spawn();
    let hidden = sliced.population_mut(c).unwrap().container().call(..2, &x).unwrap();
    assert_eq!(sliced.population_mut(c).unwrap().container().call(-1.., &hidden).unwrap(), y);
    let (mut nothing, d, _) = spawn();
    assert_eq!(
        nothing.population_mut(d).unwrap().at("0").container().call(7.., &x).unwrap(),
        x.into_dyn(),
        "of no modules"
    );
}

#[test]
fn each_model_is_called_alone_to_the_same_bits() {
    let (x, (mut all, a, in_all)) = (numbers(3), spawn());
    let (mut one_by_one, _, roots) = spawn();
    for step in 0..2 {
        let y = all.population_mut(a).unwrap().at("0").forward(&x).unwrap();
        for (index, &root) in roots.iter().enumerate() {
            let body = one_by_one.module_mut(root).unwrap().get_submodule("0").unwrap();
            let of_one =
                one_by_one.module_mut(body).unwrap().forward(x.index_axis(Axis(0), index)).unwrap();
            assert_eq!(of_one, y.index_axis(Axis(0), index), "model {index}, step {step}");
        }
    }
    for (&one, &other) in in_all.iter().zip(&roots) {
        assert_eq!(statistics(&mut all, one), statistics(&mut one_by_one, other));
    }
    let head = one_by_one
        .module_mut(roots[1])
        .unwrap()
        .container()
        .call(1.., &Array2::<f32>::ones((6, 4)))
        .unwrap();
    let ones = Array3::<f32>::ones((MODELS, 6, 4));
    assert_eq!(
        head,
        all.population_mut(a).unwrap().container().call(1.., &ones).unwrap().index_axis(Axis(0), 1)
    );
    let ones_of_one = Array2::<f32>::ones((6, 4));
    let arguments = Arguments::each([AnyInput::from(&ones_of_one)]);
    let head = one_by_one.module_mut(roots[1]).unwrap().at("1").unwrap().id();
    let same = one_by_one.module_mut(head).unwrap().forward_with::<f32>(arguments).unwrap();
    let all = all.population_mut(a).unwrap().at("1").forward(&ones).unwrap();
    assert_eq!(same.leaf().unwrap(), &all.index_axis(Axis(0), 1));
}

#[test]
fn a_call_of_one_model_is_of_that_model_alone() {
    let (mut world, nets, roots) = spawn();
    let (x, y) = (numbers(3), numbers(2));
    let before = statistics(&mut world, roots[0]);
    world.population_mut(nets).unwrap().forward(&x).unwrap();
    let made = statistics(&mut world, roots[0]);
    assert_ne!(before, made);
    // What the population keeps for the way back is not touched.
    let body = world.module_mut(roots[3]).unwrap().at("0").unwrap().id();
    world.module_mut(roots[3]).unwrap().eval().unwrap();
    world.module_mut(body).unwrap().forward(&Array2::<f32>::ones((1, 3))).unwrap();
    world.module_mut(roots[3]).unwrap().train().unwrap();
    assert_eq!(statistics(&mut world, roots[0]), made);
    world.population_mut(nets).unwrap().loss::<f32, f32>(&y, &MSELoss::default()).unwrap();
    world.population_mut(nets).unwrap().backward().unwrap();
    assert!(world.module_mut(roots[3]).unwrap().gradient::<f32>("0.0.weight").unwrap().is_some());
}

#[test]
fn what_is_called_in_all_models_can_be_gone_back_from() {
    let (x, y) = (numbers(4), numbers(2));
    let (mut world, nets, roots) = spawn();
    let head = Sequential::new().push(Linear::new(4, 2)).push(Tanh);
    let mut other = World::new();
    let heads = other.spawn_population(&head, MODELS, Seed(1)).unwrap().id();
    other.population_mut(heads).unwrap().insert(Adam { lr: 0.05, ..Adam::default() }).unwrap();
    let in_heads = other.population(heads).unwrap().models().to_vec();
    for (&root, &head) in roots.iter().zip(&in_heads) {
        for name in ["weight", "bias"] {
            let number =
                world.module_mut(root).unwrap().parameter::<f32>(&format!("1.{name}")).unwrap();
            other
                .module_mut(head)
                .unwrap()
                .set_parameter(&format!("0.{name}"), number.view())
                .unwrap();
        }
    }
    for _ in 0..2 {
        world.population_mut(nets).unwrap().container().call(1.., &x).unwrap();
        other.population_mut(heads).unwrap().forward(&x).unwrap();
        let loss = MSELoss::default();
        let losses = world.population_mut(nets).unwrap().loss::<f32, f32>(&y, &loss).unwrap();
        assert_eq!(
            losses,
            other.population_mut(heads).unwrap().loss::<f32, f32>(&y, &loss).unwrap()
        );
        for (world, of) in [(&mut world, nets), (&mut other, heads)] {
            world.population_mut(of).unwrap().backward().unwrap();
            world.population_mut(of).unwrap().step().unwrap();
        }
        for (&root, &head) in roots.iter().zip(&in_heads) {
            let of = world.module_mut(root).unwrap().gradient::<f32>("1.weight").unwrap().unwrap();
            assert_eq!(
                of,
                other.module_mut(head).unwrap().gradient::<f32>("0.weight").unwrap().unwrap()
            );
            let after = world.module_mut(root).unwrap().parameter::<f32>("1.weight").unwrap();
            assert_eq!(
                after,
                other.module_mut(head).unwrap().parameter::<f32>("0.weight").unwrap()
            );
            assert_eq!(
                world.module_mut(root).unwrap().gradient::<f32>("0.0.weight").unwrap(),
                None,
                "nobody called it"
            );
        }
    }
    let gradient = Array3::<f32>::ones((MODELS, 6, 4));
    world.population_mut(nets).unwrap().at("0").forward(&numbers(3)).unwrap();
    world.population_mut(nets).unwrap().backward_from(&gradient).unwrap();
    assert!(world.module_mut(roots[0]).unwrap().gradient::<f32>("0.0.weight").unwrap().is_some());
}

#[test]
fn hooks_are_called_of_what_is_called() {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let (mut world, nets, roots) = spawn();
    let mut watch = |target: Target| {
        let seen = seen.clone();
        let note = move |at: &At<'_>, _: &Arguments, _: Option<&Tree>| {
            seen.lock().unwrap().push(format!("{} of {}", at.path, at.models));
        };
        world.target_mut(target).register_forward_hook(note).unwrap();
    };
    watch((nets, "").into());
    watch((nets, "0").into());
    watch((nets, "1").into());
    let told = || std::mem::take(&mut *seen.lock().unwrap());
    world.population_mut(nets).unwrap().at("0").forward(&numbers(3)).unwrap();
    assert_eq!(told(), ["0 of 5"]);
    world.population_mut(nets).unwrap().container().call(..2, &numbers(3)).unwrap();
    assert_eq!(told(), ["0 of 5", "1 of 5"], "torch's slice is another Sequential, without hooks");
    let layer = world.module_mut(roots[2]).unwrap().at("1").unwrap().id();
    world.module_mut(layer).unwrap().forward(&Array2::<f32>::ones((6, 4))).unwrap();
    assert_eq!(told(), ["1 of 1"]);

    let before = world.module_mut(layer).unwrap().forward(&Array2::<f32>::ones((6, 4))).unwrap();
    let double = |_: &At<'_>, _: &Arguments, y: Option<&Tree>| {
        Ok(y.map(|tree| tree.clone().map(&mut |y| y * 2.0)))
    };
    let handle = world.module_mut(layer).unwrap().register_forward_hook(double).unwrap();
    assert_eq!(
        world.module_mut(layer).unwrap().forward(&Array2::<f32>::ones((6, 4))).unwrap(),
        &before * 2.0
    );
    let of_all = world
        .population_mut(nets)
        .unwrap()
        .at("1")
        .forward(&Array3::<f32>::ones((MODELS, 6, 4)))
        .unwrap();
    assert_eq!(of_all.index_axis(Axis(0), 2), &before * 2.0);
    handle.remove();
    assert_eq!(
        world.module_mut(layer).unwrap().forward(&Array2::<f32>::ones((6, 4))).unwrap(),
        before
    );
}

#[test]
fn a_part_is_planned_once() {
    let (mut world, nets, roots) = spawn();
    let layer = world.module_mut(roots[2]).unwrap().at("1").unwrap().id();
    let x = Array2::<f32>::ones((6, 4));
    let call = |world: &mut World| {
        world
            .no_grad(|world| {
                world.population_mut(nets)?.at("1").forward(&Array3::<f32>::ones((MODELS, 6, 4)))
            })
            .unwrap();
        world.module_mut(layer).unwrap().forward(&x).unwrap();
        world.resource::<Plans>().plans().count()
    };
    assert_eq!((call(&mut world), call(&mut world)), (1, 1));
}

/// Twice what the number that it reads says.
#[derive(Component, Clone, Debug, PartialEq)]
struct Reads;

impl Module for Reads {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        match call.trace.item(&x.sum(&[], false)) {
            Some(sum) => x * sum,
            None => call.trace.poison(),
        }
    }
}

#[test]
fn parts_may_read_numbers_and_be_lazy() {
    let mut world = World::new();
    let net = Sequential::new().push(LazyLinear::new(4)).push(Reads).push(LazyLinear::new(1));
    let nets = world.spawn_population(&net, MODELS, Seed(6)).unwrap().id();
    let roots = world.population(nets).unwrap().models().to_vec();
    let x = Array2::from_shape_fn((MODELS, 2), |(m, i)| (m + i) as f32);
    let y = world
        .population_mut(nets)
        .unwrap()
        .at("1")
        .forward(&x)
        .unwrap()
        .into_dimensionality::<Ix2>()
        .unwrap();
    assert_eq!(y.row(3), ndarray::array![21.0, 28.0]);
    let one = world.module_mut(roots[3]).unwrap().at("1").unwrap().id();
    assert_eq!(world.module_mut(one).unwrap().forward(x.row(3)).unwrap(), y.row(3).into_dyn());

    let first = world.module_mut(roots[3]).unwrap().at("0").unwrap().id();
    world.module_mut(first).unwrap().forward(x.row(3)).unwrap();
    assert_eq!(world.module_mut(first).unwrap().class_name().unwrap(), "Linear");
    let other = world.module_mut(roots[2]).unwrap().at("0").unwrap().id();
    assert_eq!(
        world.module_mut(other).unwrap().class_name().unwrap(),
        "LazyLinear",
        "nobody called it"
    );
    world.population_mut(nets).unwrap().at("0").forward(&x).unwrap();
    assert_eq!(world.module_mut(other).unwrap().class_name().unwrap(), "Linear");
    let last = world.module_mut(roots[2]).unwrap().at("2").unwrap().id();
    assert_eq!(world.module_mut(last).unwrap().class_name().unwrap(), "LazyLinear");
}

#[test]
fn what_is_not_there_is_an_error_in_the_words_of_torch() {
    let (mut world, nets, roots) = spawn();
    let x = numbers(3);
    let message = |made: Result<ArrayD<f32>, StepError>| made.unwrap_err().to_string();
    let error = message(world.population_mut(nets).unwrap().at("0.7").forward(&x));
    assert_eq!(error, "'Sequential' object has no attribute '7'");
    let error = message(world.population_mut(nets).unwrap().at("1.weight").forward(&x));
    assert_eq!(error, "'Linear' object has no attribute 'weight'");
    let error = message(world.population_mut(nets).unwrap().at("1").container().call(.., &x));
    assert_eq!(error, "'Linear' object is not subscriptable");
    let slice = neurarch::components::containers::Slice::from(..).step_by(0);
    assert_eq!(
        message(world.module_mut(roots[0]).unwrap().container().call(slice, &x)),
        "slice step cannot be zero"
    );
    assert!(matches!(world.target_mut(Target::All).forward(&x), Err(StepError::AllModules)));
    assert!(matches!(world.module_mut(nets).unwrap().forward(&x), Err(StepError::Access(_))));
    let layer = world.module_mut(roots[0]).unwrap().at("1").unwrap().id();
    let error = message(world.module_mut(layer).unwrap().forward(&Array2::<f32>::ones((6, 3))));
    assert!(error.starts_with("1 (Linear): "), "{error}");
    world.module_mut(roots[0]).unwrap().set_active(false).unwrap();
    assert!(matches!(
        world.module_mut(layer).unwrap().forward(&Array2::<f32>::ones((6, 4))),
        Err(StepError::Inactive)
    ));
    let list = ModuleList::from_iter([Linear::new(3, 3)]);
    let lists = world.spawn_population(&list, 1, Seed(1)).unwrap().id();
    let error = message(
        world
            .population_mut(lists)
            .unwrap()
            .container()
            .call(.., &x.slice(s![..1, .., ..]).to_owned()),
    );
    assert_eq!(error, "Module [ModuleList] is missing the required \"forward\" function");
    let y = world
        .population_mut(nets)
        .unwrap()
        .forward(&x)
        .unwrap()
        .into_dimensionality::<Ix3>()
        .unwrap();
    assert_eq!(y.dim(), (MODELS, 6, 2), "no path is the root");
}
