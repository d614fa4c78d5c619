//! Modes: of a population, a model, a subtree, a parameter; mixed ones run side by side.

use ndarray::Array3;
use neurarch::prelude::*;

const MODELS: usize = 3;

fn trained() -> (World, Entity, Vec<Entity>) {
    let mut world = World::new();
    let brain = Sequential::new().push(Linear::new(2, 3)).push(Tanh).push(Linear::new(3, 1));
    let brains = world.spawn_population(&brain, MODELS, Seed(1)).unwrap().id();
    let roots = world.population(brains).unwrap().models().to_vec();
    backward(&mut world, brains);
    (world, brains, roots)
}

fn backward(world: &mut World, brains: Entity) {
    world.population_mut(brains).unwrap().forward(&Array3::<f32>::ones((MODELS, 4, 2))).unwrap();
    world
        .population_mut(brains)
        .unwrap()
        .backward_from(&Array3::<f32>::ones((MODELS, 4, 1)))
        .unwrap();
}

fn gradients(world: &mut World, root: Entity) -> Vec<Option<f32>> {
    let names = ["0.weight", "0.bias", "2.weight", "2.bias"];
    let sum = |name| {
        let gradient = world.module_mut(root).unwrap().gradient::<f32>(name).unwrap();
        gradient.map(|gradient| gradient.iter().map(|g| g.abs()).sum())
    };
    names.map(sum).to_vec()
}

#[test]
fn gradients_are_taken_from_a_module_a_model_or_a_population() {
    let (mut world, brains, roots) = trained();
    let module = world.module_mut(roots[1]).unwrap().at("2").unwrap().id();
    world.module_mut(module).unwrap().zero_grad().unwrap();
    let found = gradients(&mut world, roots[1]);
    assert!(found[0].is_some() && found[1].is_some());
    assert_eq!(found[2..], [None, None]);
    world.module_mut(roots[2]).unwrap().zero_grad_with(false).unwrap();
    assert_eq!(gradients(&mut world, roots[2]), [Some(0.0); 4]);
    assert!(gradients(&mut world, roots[0]).iter().all(|sum| sum.is_some_and(|sum| sum > 0.0)));

    // What has none starts anew, what has some adds up.
    let before = gradients(&mut world, roots[0]);
    backward(&mut world, brains);
    let twice: Vec<_> = before.iter().map(|sum| sum.map(|sum| 2.0 * sum)).collect();
    assert_eq!(gradients(&mut world, roots[0]), twice);
    world.population_mut(brains).unwrap().zero_grad().unwrap();
    for &root in &roots {
        assert_eq!(gradients(&mut world, root), [None; 4]);
    }
    let other = world.spawn_empty().id();
    assert!(world.module_mut(other).unwrap().zero_grad().is_err());
}

#[test]
fn one_parameter_can_be_frozen() {
    let (mut world, brains, roots) = trained();
    world.population_mut(brains).unwrap().zero_grad().unwrap();
    world.module_mut(roots[1]).unwrap().set_requires_grad("2.weight", false).unwrap();
    backward(&mut world, brains);
    let has = |sums: Vec<Option<f32>>| sums.iter().map(Option::is_some).collect::<Vec<_>>();
    assert_eq!(has(gradients(&mut world, roots[1])), [true, true, false, true]);
    assert_eq!(has(gradients(&mut world, roots[0])), [true; 4]);
    world.module_mut(roots[1]).unwrap().set_requires_grad("2.weight", true).unwrap();
    backward(&mut world, brains);
    assert_eq!(has(gradients(&mut world, roots[1])), [true; 4]);
    let error =
        world.module_mut(roots[1]).unwrap().set_requires_grad("3.weight", true).unwrap_err();
    assert_eq!(error.to_string(), "Sequential has no parameter or buffer '3.weight'");
}
