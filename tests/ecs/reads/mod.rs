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
    let nets = world.spawn_population(&net, MODELS, Seed(5)).unwrap();
    let roots = world.models(nets).unwrap().to_vec();
    for &root in &roots {
        world.tie(root, "1.weight", "0.0.weight").unwrap();
    }
    world.share_parameter(nets, "2.bias").unwrap();
    world.insert(nets, Adam { lr: 0.1, ..Adam::default() }).unwrap();
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
    let models = world.models(nets).unwrap().len();
    world.zero_grad(nets).unwrap();
    world.forward(nets, &x(models)).unwrap();
    world.loss::<f32, _>(nets, &y(models), &CrossEntropyLoss::default()).unwrap();
    world.backward(nets).unwrap();
    world.step(nets).unwrap();
}

fn read(world: &World, module: Entity, name: &str) -> Result<Vec<f32>, AccessError> {
    let read = Parameters::from(world).parameter::<f32>(module, name);
    read.map(|numbers| numbers.iter().copied().collect())
}

/// Checks that what can be read with `&World` is what an exclusive call gives.
fn same(world: &mut World, root: Entity) {
    let names = world.named_parameters(root).unwrap();
    assert_eq!(Parameters::from(&*world).named_parameters(root).unwrap(), names);
    for of in &names {
        let name = of.name.as_str();
        let numbers = world.parameter::<f32>(root, name).unwrap();
        let gradient = world.gradient::<f32>(root, name).unwrap();
        let state = world.optimizer_state(root, name).unwrap();
        let parameters = Parameters::from(&*world);
        assert_eq!(parameters.parameter::<f32>(root, name).unwrap(), numbers, "{name}");
        assert_eq!(
            parameters.gradient::<f32>(root, name).unwrap(),
            gradient.as_ref().map(|g| g.view())
        );
        assert_eq!(parameters.optimizer_state(root, name).unwrap(), state);
    }
    let buffers = world.named_buffers(root).unwrap();
    assert_eq!(Parameters::from(&*world).named_buffers(root).unwrap(), buffers);
    for of in &buffers {
        let dtype = of.ty.dtype;
        if dtype == Dtype::F32 {
            let numbers = world.parameter::<f32>(root, &of.name).unwrap();
            assert_eq!(read(world, root, &of.name).unwrap(), numbers.into_raw_vec_and_offset().0);
        }
    }
    let modules = world.named_modules(root).unwrap();
    assert_eq!(Parameters::from(&*world).named_modules(root).unwrap(), modules);
    let state = world.state_dict(root).unwrap();
    assert_eq!(Parameters::from(&*world).state_dict(root).unwrap(), state);
}
