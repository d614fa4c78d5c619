//! Systems read what models have now, beside other systems, and write by commands; what was edited is an error, never an
//! old number.

mod edited;
mod numbers;
mod writing;

use ndarray::{Array2, Array3};
use neurarch::prelude::*;
use neurarch::systems::structure::access::AccessError;

const MODELS: usize = 4;

/// Four models with a tied parameter, buffers, and a bias that all of them share; their optimizers keep state.
fn spawn() -> (World, Entity, Vec<Entity>) {
    let mut world = World::new();
    let body = Sequential::new().push(Linear::new(3, 3)).push(BatchNorm1d::new(3));
    let net = Sequential::new().push(body).push(Linear::new(3, 3)).push(Linear::new(3, 2));
    let nets = world.spawn_population(&net, MODELS, Seed(5)).unwrap().id();
    let roots = world.population(nets).unwrap().models().to_vec();
    for &root in &roots {
        world.module_mut(root).unwrap().tie("1.weight", "0.0.weight").unwrap();
    }
    world.population_mut(nets).unwrap().share_parameter("2.bias").unwrap();
    world.population_mut(nets).unwrap().insert(Adam { lr: 0.1, ..Adam::default() }).unwrap();
    (world, nets, roots)
}

fn x(models: usize) -> Array3<f32> {
    Array3::from_shape_fn((models, 5, 3), |(m, i, j)| {
        ((m * 7 + i * 3 + j * 5) % 11) as f32 / 11.0 - 0.4
    })
}

fn y(models: usize) -> Array2<i64> {
    Array2::from_shape_fn((models, 5), |(m, i)| ((m + i) % 2) as i64)
}

/// A forward pass and the way back from it, and a step.
fn train(world: &mut World, nets: Entity) {
    let models = world.population(nets).unwrap().models().len();
    world.population_mut(nets).unwrap().zero_grad().unwrap();
    world.population_mut(nets).unwrap().forward(&x(models)).unwrap();
    world
        .population_mut(nets)
        .unwrap()
        .loss::<f32, _>(&y(models), &CrossEntropyLoss::default())
        .unwrap();
    world.population_mut(nets).unwrap().backward().unwrap();
    world.population_mut(nets).unwrap().step().unwrap();
}

fn read(world: &World, module: Entity, name: &str) -> Result<Vec<f32>, AccessError> {
    let read = Parameters::from(world).parameter::<f32>(module, name);
    read.map(|numbers| numbers.iter().copied().collect())
}

/// Checks that what can be read with `&World` is what an exclusive call gives.
fn same(world: &mut World, root: Entity) {
    let names = world.module_mut(root).unwrap().named_parameters().unwrap();
    assert_eq!(Parameters::from(&*world).named_parameters(root).unwrap(), names);
    for of in &names {
        let name = of.name.as_str();
        let numbers = world.module_mut(root).unwrap().parameter::<f32>(name).unwrap();
        let gradient = world.module_mut(root).unwrap().gradient::<f32>(name).unwrap();
        let state = world.module_mut(root).unwrap().optimizer_state(name).unwrap();
        let parameters = Parameters::from(&*world);
        assert_eq!(parameters.parameter::<f32>(root, name).unwrap(), numbers, "{name}");
        assert_eq!(
            parameters.gradient::<f32>(root, name).unwrap(),
            gradient.as_ref().map(|g| g.view())
        );
        assert_eq!(parameters.optimizer_state(root, name).unwrap(), state);
    }
    let buffers = world.module_mut(root).unwrap().named_buffers().unwrap();
    assert_eq!(Parameters::from(&*world).named_buffers(root).unwrap(), buffers);
    for of in &buffers {
        let dtype = of.ty.dtype;
        if dtype == Dtype::F32 {
            let numbers = world.module_mut(root).unwrap().parameter::<f32>(&of.name).unwrap();
            assert_eq!(read(world, root, &of.name).unwrap(), numbers.into_raw_vec_and_offset().0);
        }
    }
    let modules = world.module_mut(root).unwrap().named_modules().unwrap();
    assert_eq!(Parameters::from(&*world).named_modules(root).unwrap(), modules);
    let state = world.module_mut(root).unwrap().state_dict().unwrap();
    assert_eq!(Parameters::from(&*world).state_dict(root).unwrap(), state);
}
