//! `FusedLinearReLU`: its child `linear`, and one of many that is not fused any more.

use ndarray::Array3;
use neurarch::prelude::*;
use neurarch::systems::edit::fuse::{fuse_linear_relu, unfuse, unfuse_linear_relu};

const MODELS: usize = 3;

fn inputs() -> Array3<f32> {
    Array3::from_shape_fn((MODELS, 6, 3), |(m, i, f)| ((m * 5 + i * 3 + f) % 7) as f32 / 3.0 - 1.0)
}

#[test]
fn its_parameters_are_those_of_its_child() {
    let mut world = World::new();
    let network = Sequential::new().push(FusedLinearReLU::new(3, 5)).push(Linear::new(5, 2));
    let brains = world.spawn_population(&network, MODELS, Seed(1)).unwrap().id();
    let plain = Sequential::new().push(Linear::new(3, 5)).push(ReLU).push(Linear::new(5, 2));
    let plain = world.spawn_population(&plain, MODELS, Seed(1)).unwrap().id();
    let roots = world.population(brains).unwrap().models().to_vec();
    let names = ["0.linear.weight", "0.linear.bias", "1.weight", "1.bias"];
    assert_eq!(world.module_mut(roots[0]).unwrap().parameter_names().unwrap(), names);
    let printed = "\
Sequential(
  (0): FusedLinearReLU(
    is_fused=True
    (linear): Linear(in_features=3, out_features=5, bias=True)
  )
  (1): Linear(in_features=5, out_features=2, bias=True)
)";
    assert_eq!(world.module_mut(roots[0]).unwrap().repr().unwrap(), printed);
    for (fused, name) in names.iter().zip(["0.weight", "0.bias", "2.weight", "2.bias"]) {
        let numbers = world.population_mut(brains).unwrap().stack::<f32>(fused).unwrap();
        world.population_mut(plain).unwrap().unstack(name, numbers.view()).unwrap();
    }
    let expected = world.population_mut(plain).unwrap().forward(&inputs()).unwrap();
    assert_eq!(world.population_mut(brains).unwrap().forward(&inputs()).unwrap(), expected);

    // One alone: it computes the same bits, and the others are fused still.
    let module = world.module_mut(roots[1]).unwrap().at("0").unwrap().id();
    unfuse(&mut world, module).unwrap();
    let fused = |world: &mut World, root: Entity| {
        let module = world.module_mut(root).unwrap().at("0").unwrap().id();
        world.get::<FusedLinearReLU>(module).unwrap().is_fused
    };
    assert_eq!([0, 1, 2].map(|model| fused(&mut world, roots[model])), [true, false, true]);
    assert!(world.module_mut(roots[1]).unwrap().repr().unwrap().contains("is_fused=False"));
    assert_eq!(world.population_mut(brains).unwrap().forward(&inputs()).unwrap(), expected);
    unfuse(&mut world, (brains, "0")).unwrap();
    assert!(!fused(&mut world, roots[2]));
    let error = unfuse(&mut world, (brains, "1")).unwrap_err().to_string();
    assert_eq!(error, "'1': expected a FusedLinearReLU");
}

#[test]
fn a_layer_goes_into_a_fused_one_with_all_that_it_has_and_comes_back() {
    let mut world = World::new();
    let network = Sequential::new().push(Linear::new(3, 5)).push(ReLU).push(Linear::new(5, 2));
    let brains = world.spawn_population(&network, MODELS, Seed(1)).unwrap().id();
    let root = world.population(brains).unwrap().models()[1];
    let layer = world.module_mut(root).unwrap().at("0").unwrap().id();
    world.module_mut(layer).unwrap().set_training(false).unwrap();
    world.module_mut(layer).unwrap().set_requires_grad("bias", false).unwrap();
    fuse_linear_relu(&mut world, brains, "0", "1").unwrap();
    assert_eq!(world.module_mut(root).unwrap().at("0.linear").unwrap().id(), layer);
    let fused = world.module_mut(root).unwrap().at("0").unwrap().id();
    assert!(
        !world.module_mut(fused).unwrap().is_training().unwrap()
            && !world.module_mut(layer).unwrap().is_training().unwrap()
    );
    assert!(!world.module_mut(root).unwrap().requires_grad("0.linear.bias").unwrap());
    let other = world.population(brains).unwrap().models()[0];
    let other = world.module_mut(other).unwrap().at("0").unwrap().id();
    assert!(world.module_mut(other).unwrap().is_training().unwrap());
    unfuse_linear_relu(&mut world, brains, "0", "1").unwrap();
    assert_eq!(world.module_mut(root).unwrap().at("0").unwrap().id(), layer);
    assert!(
        !world.module_mut(layer).unwrap().is_training().unwrap()
            && !world.module_mut(root).unwrap().requires_grad("0.bias").unwrap()
    );
    assert!(world.get_entity(fused).is_err());
}
