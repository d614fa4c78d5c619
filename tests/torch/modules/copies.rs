//! Copies: of a module into another model, and by bevy's own cloning of entities; names that nothing can have.

use ndarray::{Array2, Array3};
use neurarch::prelude::*;
use neurarch::systems::edit::deepcopy::deepcopy;

fn population() -> (World, Entity, Vec<Entity>) {
    let mut world = World::new();
    let block = Sequential::new().push(Linear::new(3, 3)).push(Tanh);
    let brain = Sequential::new().push(block).push(Linear::new(3, 3));
    let brains = world.spawn_population(&brain, 3, Seed(1)).unwrap().id();
    let roots = world.population(brains).unwrap().models().to_vec();
    (world, brains, roots)
}

fn weight(world: &mut World, root: Entity, name: &str) -> Vec<f32> {
    world.module_mut(root).unwrap().parameter::<f32>(name).unwrap().iter().copied().collect()
}

#[test]
fn a_submodule_is_copied_into_another_model_and_learns_there_by_itself() {
    let (mut world, brains, roots) = population();
    world.population_mut(brains).unwrap().insert(SGD { lr: 0.5, ..SGD::default() }).unwrap();
    let block = world.module_mut(roots[2]).unwrap().at("0").unwrap().id();
    let own = weight(&mut world, roots[2], "0.0.weight");
    let copy = deepcopy(&mut world, block).unwrap();
    assert_eq!(weight(&mut world, roots[2], "0.0.weight"), own);
    world.module_mut(roots[0]).unwrap().container().append(copy).unwrap();
    assert_eq!(weight(&mut world, roots[0], "2.0.weight"), own);
    assert_eq!(world.population(brains).unwrap().models(), roots);
    let (x, y) = (Array3::<f32>::ones((3, 4, 3)), Array3::<f32>::zeros((3, 4, 3)));
    world.population_mut(brains).unwrap().train_step(&x, &y, &MSELoss::default()).unwrap();
    assert_ne!(weight(&mut world, roots[0], "2.0.weight"), own);
    assert_ne!(
        weight(&mut world, roots[0], "2.0.weight"),
        weight(&mut world, roots[2], "0.0.weight")
    );

    // A whole model as a part of another; what it is copied from stays a model.
    let copy = deepcopy(&mut world, roots[1]).unwrap();
    assert_eq!(world.population(brains).unwrap().models(), roots);
    world.module_mut(roots[0]).unwrap().container().append(copy).unwrap();
    assert_eq!(
        weight(&mut world, roots[0], "3.1.weight"),
        weight(&mut world, roots[1], "1.weight")
    );
    world.population_mut(brains).unwrap().train_step(&x, &y, &MSELoss::default()).unwrap();

    // What is another name of something outside has no numbers of its own.
    world.module_mut(roots[2]).unwrap().tie("1.weight", "0.0.weight").unwrap();
    let tied = world.module_mut(roots[2]).unwrap().at("1").unwrap().id();
    let error = deepcopy(&mut world, tied).unwrap_err().to_string();
    assert_eq!(error, "'1.weight' is in use as '0.0.weight'");
    let stranger = world.spawn_empty().id();
    assert!(deepcopy(&mut world, stranger).is_err());
}

#[test]
fn bevys_own_cloning_gives_a_model_or_an_error_that_says_why() {
    let (mut world, brains, roots) = population();
    let x = |models: usize| Array2::<f32>::ones((models, 3));
    let first = world.population_mut(brains).unwrap().forward(&x(3)).unwrap();
    // With all below it, a root is a model of the population.
    let clone = world.entity_mut(roots[1]).clone_and_spawn_with_opt_out(|builder| {
        builder.linked_cloning(true);
    });
    assert_eq!(world.population(brains).unwrap().models().len(), 4);
    let y = world.population_mut(brains).unwrap().forward(&x(4)).unwrap();
    assert_eq!(y.index_axis(ndarray::Axis(0), 3), first.index_axis(ndarray::Axis(0), 1));
    assert_eq!(weight(&mut world, clone, "1.weight"), weight(&mut world, roots[1], "1.weight"));
    world.despawn(clone);

    // Alone it is a model without children: an empty `Sequential` gives what it is given.
    let alone = world.entity_mut(roots[1]).clone_and_spawn();
    let y = world.population_mut(brains).unwrap().forward(&x(4)).unwrap();
    assert!(y.index_axis(ndarray::Axis(0), 3).iter().all(|&y| y == 1.0));
    assert_eq!(world.module_mut(alone).unwrap().repr().unwrap(), "Sequential()");
    world.despawn(alone);

    // A module beside its original has a name that is taken.
    let module = world.module_mut(roots[1]).unwrap().at("1").unwrap().id();
    let copy = world.entity_mut(module).clone_and_spawn();
    let error = world.population_mut(brains).unwrap().forward(&x(3)).unwrap_err().to_string();
    assert!(error.contains("attribute '1' already exists"), "{error}");
    world.despawn(copy);
    assert_eq!(world.population_mut(brains).unwrap().forward(&x(3)).unwrap(), first);
}

/// Declares something under any name.
#[derive(Component, Clone, Debug, PartialEq)]
struct Named(&'static str, &'static str);

impl Module for Named {
    fn declare(&self, declare: &mut Declare) {
        match self.0 {
            "parameter" => drop(declare.parameter(self.1, [2])),
            "buffer" => drop(declare.buffer(self.1, [2], true)),
            _ => drop(declare.child(self.1, Tanh)),
        }
    }
}

/// The messages of torch 2.15.
#[test]
fn nothing_is_declared_under_the_name_of_a_method() {
    let mut world = World::new();
    for kind in ["parameter", "buffer", "child"] {
        for name in ["forward", "training", "state_dict"] {
            let network = Sequential::new().push(Named(kind, name));
            let error = world.spawn_population(&network, 1, Seed(1)).unwrap_err().to_string();
            assert_eq!(error, format!("0: attribute '{name}' already exists"));
        }
        world.spawn_population(&Named(kind, "weight"), 1, Seed(1)).unwrap().id();
    }
}
