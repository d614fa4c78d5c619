//! Backward hooks that are not full, and hooks that a module's constructor registers.

use std::sync::{Arc, Mutex};

use ndarray::{Array2, Array3};
use neurarch::bevy_ecs::prelude::EntityWorldMut;
use neurarch::components::hook::{Callback, Hooks};
use neurarch::hooks::{At, Target};
use neurarch::prelude::*;

const MODELS: usize = 3;

fn population() -> (World, Entity) {
    let mut world = World::new();
    let network = Sequential::new().push(Linear::new(3, 4)).push(Tanh).push(Linear::new(4, 2));
    let population = world.spawn_population(&network, MODELS, Seed(3)).unwrap().id();
    (world, population)
}

fn back(world: &mut World, brains: Entity) {
    let x = Array3::from_shape_fn((MODELS, 5, 3), |(m, i, f)| (m + i + f) as f32 / 3.0 - 1.0);
    world.population_mut(brains).unwrap().forward(&x).unwrap();
    world
        .population_mut(brains)
        .unwrap()
        .backward_from(&Array3::<f32>::ones((MODELS, 5, 2)))
        .unwrap();
}

/// What hooks see: shapes of the gradients of inputs and outputs.
type Seen = Arc<Mutex<Vec<[Vec<Option<Vec<usize>>>; 2]>>>;

fn shapes(gradients: &[Option<Var>]) -> Vec<Option<Vec<usize>>> {
    gradients.iter().map(|of| of.as_ref().map(|var| var.shape().to_vec())).collect()
}

#[test]
fn a_hook_that_is_not_full_sees_and_replaces_gradients() {
    let gradient = |factor: f64| {
        let (mut world, brains) = population();
        let seen = Seen::default();
        let told = seen.clone();
        let hook = move |_: &At<'_>, inputs: &[Option<Var>], outputs: &[Option<Var>]| {
            told.lock().unwrap().push([shapes(inputs), shapes(outputs)]);
            let scaled = |of: &Option<Var>| of.as_ref().map(|gradient| gradient * factor);
            Ok((factor != 1.0).then(|| inputs.iter().map(scaled).collect()))
        };
        let handle =
            world.population_mut(brains).unwrap().at("1").register_backward_hook(hook).unwrap();
        back(&mut world, brains);
        let of = vec![Some(vec![5, 4])];
        assert_eq!(*seen.lock().unwrap(), [[of.clone(), of]]);
        let root = world.population(brains).unwrap().models()[1];
        let found = world.module_mut(root).unwrap().gradient::<f32>("0.weight").unwrap().unwrap();
        assert!(handle.remove());
        back(&mut world, brains);
        assert_eq!(seen.lock().unwrap().len(), 1);
        found
    };
    assert_eq!(gradient(2.0), gradient(1.0) * 2.0);
}

#[test]
fn a_hook_that_returns_nothing_is_called_in_planned_passes_and_steps() {
    let (mut world, brains) = population();
    world.population_mut(brains).unwrap().insert(SGD::default()).unwrap();
    let calls = Arc::new(Mutex::new(0));
    for target in
        [Target::All, (brains, "2").into(), world.population(brains).unwrap().models()[0].into()]
    {
        let calls = calls.clone();
        world
            .target_mut(target)
            .register_backward_hook(move |_, _, _| *calls.lock().unwrap() += 1)
            .unwrap();
    }
    let (x, y) = (Array3::<f32>::ones((MODELS, 5, 3)), Array2::<i64>::zeros((MODELS, 5)));
    world.population_mut(brains).unwrap().train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
    // Four modules by the first, one by the second, in two groups of models; one root by the third.
    assert_eq!(*calls.lock().unwrap(), 2 * (4 + 1) + 1);
}

/// The messages of torch 2.15.
#[test]
fn a_module_has_hooks_of_one_kind() {
    let (mut world, brains) = population();
    let root = world.population(brains).unwrap().models()[0];
    let module = world.module_mut(root).unwrap().at("1").unwrap().id();
    let other = world.module_mut(root).unwrap().at("2").unwrap().id();
    let mixed = "Cannot use both regular backward hooks and full backward hooks on a single Module. Please use only one of \
                 them.";
    let full = |world: &mut World, target: Target| {
        world
            .target_mut(target)
            .register_full_backward_hook(|_, _, _| {})
            .map_err(|error| error.to_string())
    };
    let plain = |world: &mut World, target: Target| {
        world
            .target_mut(target)
            .register_backward_hook(|_, _, _| {})
            .map_err(|error| error.to_string())
    };
    let handle = full(&mut world, module.into()).unwrap();
    assert_eq!(plain(&mut world, module.into()).unwrap_err(), mixed);
    assert_eq!(plain(&mut world, (brains, "1").into()).unwrap_err(), mixed);
    // What was registered once counts, as in torch.
    assert!(handle.remove());
    assert_eq!(plain(&mut world, module.into()).unwrap_err(), mixed);
    plain(&mut world, (brains, "2").into()).unwrap();
    assert_eq!(full(&mut world, other.into()).unwrap_err(), mixed);
    assert_eq!(full(&mut world, (brains, "2").into()).unwrap_err(), mixed);
    // Pre-hooks go with both.
    world.module_mut(other).unwrap().register_full_backward_pre_hook(|_, _| {}).unwrap();

    full(&mut world, Target::All).unwrap();
    let global = "Cannot use both regular backward hooks and full backward hooks as a global Module hook. Please use only \
                  one of them.";
    assert_eq!(plain(&mut world, Target::All).unwrap_err(), global);
    back(&mut world, brains);
}

/// Counts its calls by a hook that its constructor registers.
#[derive(Component, Clone, Debug)]
struct Counted(Arc<Mutex<Vec<Option<Entity>>>>);

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Module for Counted {
    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        x
    }

    fn constructed(&self, module: &mut EntityWorldMut<'_>) {
        let calls = self.0.clone();
        let mut hooks = Hooks::default();
        let count = Callback::forward(move |at, _, _| calls.lock().unwrap().push(at.entity));
        hooks.register(count, HookOptions::default());
        module.insert(hooks);
    }
}

#[test]
fn a_constructor_registers_hooks_of_its_module() {
    let mut world = World::new();
    let counted = Counted(Arc::default());
    let network = Sequential::new().push(Linear::new(3, 2)).push(counted.clone());
    let brains = world.spawn_population(&network, MODELS, Seed(3)).unwrap().id();
    let calls = |world: &mut World| {
        let models = world.population(brains).unwrap().models().len();
        world.population_mut(brains).unwrap().forward(&Array2::<f32>::ones((models, 3))).unwrap();
        std::mem::take(&mut *counted.0.lock().unwrap())
    };
    let roots = world.population(brains).unwrap().models().to_vec();
    let modules: Vec<_> = roots
        .iter()
        .map(|&root| Some(world.module_mut(root).unwrap().at("1").unwrap().id()))
        .collect();
    assert_eq!(calls(&mut world), modules);
    // Of new models, and of what comes into a live one.
    world.population_mut(brains).unwrap().spawn_models(1).unwrap();
    assert_eq!(calls(&mut world).len(), MODELS + 1);
    world.module_mut(roots[0]).unwrap().container().append(counted.clone()).unwrap();
    assert_eq!(calls(&mut world).len(), MODELS + 2);
}
