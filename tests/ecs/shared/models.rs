//! Models that share a parameter: they come and go, are saved, loaded and copied; it has one row throughout.

use ndarray::{Array3, ArrayD, Axis, IxDyn};
use neurarch::bevy_ecs::entity::EntityCloner;
use neurarch::components::column::Columns;
use neurarch::components::column::shared::SharedTensors;
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::evolve;
use neurarch::systems::state::safetensors;
use neurarch::systems::structure::traverse;

use super::{WEIGHT, backward, bits, inputs, loss, net, shared};

#[test]
fn sharing_keeps_what_is_frozen() {
    let mut world = World::new();
    let population = world.spawn_population(&net(), 3, Seed(3)).unwrap().id();
    world.population_mut(population).unwrap().insert(SGD::default()).unwrap();
    world.population_mut(population).unwrap().requires_grad_(false).unwrap();
    for share in [true, false] {
        match share {
            true => world.population_mut(population).unwrap().share_parameter(WEIGHT).unwrap(),
            false => world.population_mut(population).unwrap().unshare_parameter(WEIGHT).unwrap(),
        }
        let (x, classes) = inputs(3);
        let before = bits(&mut world, population);
        world.population_mut(population).unwrap().train_step(&x, &classes, &loss()).unwrap();
        assert_eq!(bits(&mut world, population), before);
    }
}

#[test]
fn memory_does_not_grow_with_the_number_of_models() {
    /// Counts the bytes of columns of all tables.
    fn column_bytes(world: &World) -> usize {
        let columns = Columns::all(world);
        let tables = world.storages().tables.iter();
        let bytes = tables.map(|table| {
            let own = world
                .components()
                .iter_registered()
                .filter(|&(id, _)| columns.contains(&id) && table.has_column(id));
            table.entity_count() as usize * own.map(|(_, of)| of.layout().size()).sum::<usize>()
        });
        bytes.sum()
    }
    let sizes = [1, 10, 100].map(|models| {
        let mut world = World::new();
        let net = Linear { bias: false, ..Linear::new(64, 64) };
        let population = world.spawn_population(&net, models, Seed(1)).unwrap().id();
        world.population_mut(population).unwrap().share_parameter("weight").unwrap();
        world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
        let (x, y) = (Array3::<f32>::ones((models, 2, 64)), Array3::<f32>::zeros((models, 2, 64)));
        world.population_mut(population).unwrap().train_step(&x, &y, &MSELoss::default()).unwrap();
        world.population_mut(population).unwrap().forward(&x).unwrap();
        world.population_mut(population).unwrap().backward_from(&y).unwrap();
        column_bytes(&world)
    });
    // The weight, its gradient, two moments and the count of steps.
    assert_eq!(sizes, [4 * 64 * 64 * 4 + 64; 3]);
}

#[test]
fn models_come_and_go_and_the_owner_is_none_of_them() {
    let (mut world, population) = shared(3);
    let numbers = world
        .population_mut(population)
        .unwrap()
        .stack::<f32>(WEIGHT)
        .unwrap()
        .index_axis(Axis(0), 0)
        .to_owned();
    for root in world.population(population).unwrap().models().to_vec() {
        world.despawn(root);
    }
    world.population_mut(population).unwrap().spawn_models(2).unwrap();
    let roots = world.population(population).unwrap().models().to_vec();
    assert_eq!(world.module_mut(roots[1]).unwrap().parameter::<f32>(WEIGHT).unwrap(), numbers);
    let copy = world.spawn_empty().id();
    EntityCloner::build_opt_out(&mut world).linked_cloning(true).clone_entity(roots[0], copy);
    evolve::clone_models(&mut world, population, &[0, 1]).unwrap();
    let ones = ArrayD::<f32>::ones(numbers.raw_dim());
    world.module_mut(copy).unwrap().set_parameter(WEIGHT, ones.view()).unwrap();
    let all = world.population_mut(population).unwrap().stack::<f32>(WEIGHT).unwrap();
    assert_eq!(all, ArrayD::<f32>::ones(IxDyn(&[5, 5, 3])));
    backward(&mut world, population);
    world.population_mut(population).unwrap().unshare_parameter(WEIGHT).unwrap();
    assert_eq!(world.population_mut(population).unwrap().stack::<f32>(WEIGHT).unwrap(), all);
    world.module_mut(copy).unwrap().set_parameter(WEIGHT, numbers.view()).unwrap();
    assert_eq!(world.module_mut(roots[0]).unwrap().parameter::<f32>(WEIGHT).unwrap(), ones);
    assert_eq!(world.module_mut(roots[0]).unwrap().gradient::<f32>(WEIGHT).unwrap(), None);
    assert!(world.get::<SharedTensors>(population).unwrap().is_empty());
}

#[test]
fn a_model_may_get_one_of_its_own() {
    let (mut world, population) = shared(4);
    world.population_mut(population).unwrap().share_parameter("2.bias").unwrap();
    let roots = world.population(population).unwrap().models().to_vec();
    let layer = world.module_mut(roots[1]).unwrap().at("0").unwrap().id();
    let twos = ArrayD::<f32>::from_elem(IxDyn(&[5, 3]), 2.0);
    world.module_mut(layer).unwrap().setattr("weight", Value::parameter(twos.view())).unwrap();
    let first = world.module_mut(roots[0]).unwrap().parameter::<f32>(WEIGHT).unwrap();
    assert_eq!(world.module_mut(roots[1]).unwrap().parameter::<f32>(WEIGHT).unwrap(), twos);
    assert_ne!(first, twos);
    // The others go on together; the second model still has the bias in common with them.
    world.population_mut(population).unwrap().insert(Adam::default()).unwrap();
    let (x, classes) = inputs(4);
    world.population_mut(population).unwrap().train_step(&x, &classes, &loss()).unwrap();
    let second = world.module_mut(roots[2]).unwrap().parameter::<f32>(WEIGHT).unwrap();
    assert_ne!(second, first);
    assert_eq!(world.module_mut(roots[3]).unwrap().parameter::<f32>(WEIGHT).unwrap(), second);
    assert_ne!(world.module_mut(roots[1]).unwrap().parameter::<f32>(WEIGHT).unwrap(), second);
    let biases = world.population_mut(population).unwrap().stack::<f32>("2.bias").unwrap();
    assert!(biases.outer_iter().all(|own| own == biases.index_axis(Axis(0), 0)));
    // And joins them again.
    world.population_mut(population).unwrap().share_parameter(WEIGHT).unwrap();
    assert_eq!(world.module_mut(roots[1]).unwrap().parameter::<f32>(WEIGHT).unwrap(), second);
    assert_eq!(world.module_mut(roots[1]).unwrap().parameter_names().unwrap().len(), 4);
}

#[test]
fn evolution_leaves_what_is_shared() {
    let (mut world, population) = shared(4);
    let before = world.population_mut(population).unwrap().stack::<f32>(WEIGHT).unwrap();
    evolve::perturb(&mut world, population, |_| Noise::normal(1.0), |_| true).unwrap();
    evolve::overwrite(&mut world, population, &[1, 2, 3, 0]).unwrap();
    evolve::crossover(&mut world, population, &[(0, 1), (1, 2), (2, 3), (3, 0)]).unwrap();
    assert_eq!(world.population_mut(population).unwrap().stack::<f32>(WEIGHT).unwrap(), before);
}

#[test]
fn state_dicts_have_it_under_each_name_and_loading_changes_it_for_all() {
    let (mut world, population) = shared(3);
    let roots = world.population(population).unwrap().models().to_vec();
    let mut state = world.module_mut(roots[1]).unwrap().state_dict().unwrap();
    assert_eq!(state.tensors[0].name, WEIGHT);
    let ones = ArrayD::<f32>::ones(IxDyn(&[5, 3]));
    state.tensors[0] = Tensor::new(WEIGHT, ones.view());
    world.module_mut(roots[2]).unwrap().load_state_dict(&state).unwrap();
    assert_eq!(world.module_mut(roots[0]).unwrap().parameter::<f32>(WEIGHT).unwrap(), ones);
    let stacked = world.population_mut(population).unwrap().stacked_state_dict().unwrap();
    assert_eq!(stacked.tensors[0].shape(), [3, 5, 3]);
    world
        .population_mut(population)
        .unwrap()
        .load_stacked_state_dict(&stacked, LoadOptions::default())
        .unwrap();
    let mut other = stacked.clone();
    let numbers = ArrayD::<f32>::from_shape_fn(IxDyn(&[3, 5, 3]), |i| i[0] as f32);
    other.tensors[0] = Tensor::new(WEIGHT, numbers.view());
    let error = world
        .population_mut(population)
        .unwrap()
        .load_stacked_state_dict(&other, LoadOptions::default())
        .unwrap_err();
    assert!(error.to_string().contains("same numbers for all models"), "{error}");
    assert!(world.population_mut(population).unwrap().unstack(WEIGHT, numbers.view()).is_err());
    assert_eq!(world.module_mut(roots[0]).unwrap().parameter::<f32>(WEIGHT).unwrap(), ones);
    let names = traverse::named_parameters(&mut world, roots[0], Default::default()).unwrap();
    assert_eq!(names.len(), 4);
    world
        .population_mut(population)
        .unwrap()
        .fill_with(WEIGHT, |_| Ok(Init::Normal { mean: 0.0, std: 1.0 }))
        .unwrap();
    let all = world.population_mut(population).unwrap().stack::<f32>(WEIGHT).unwrap();
    assert!(all.outer_iter().all(|own| own == all.index_axis(Axis(0), 0)));
    assert_ne!(world.module_mut(roots[0]).unwrap().parameter::<f32>(WEIGHT).unwrap(), ones);
}

#[test]
fn files_have_it_as_any_other() {
    let (mut world, population) = shared(3);
    let root = world.population(population).unwrap().models()[1];
    let folder = std::env::temp_dir().join(format!("neurarch-shared-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("one.safetensors");
    safetensors::save(&path, &world.module_mut(root).unwrap().state_dict().unwrap()).unwrap();
    let before = bits(&mut world, population);
    world.population_mut(population).unwrap().fill_with(WEIGHT, |_| Ok(Init::Zeros)).unwrap();
    assert_ne!(bits(&mut world, population), before);
    let state = StateDict::from_iter(safetensors::read(&path).unwrap());
    world.module_mut(root).unwrap().load_state_dict(&state).unwrap();
    assert_eq!(bits(&mut world, population), before);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_cannot_be_shared_is_an_error() {
    let (mut world, population) = shared(3);
    assert!(world.population_mut(population).unwrap().share_parameter("9.weight").is_err());
    world.population_mut(population).unwrap().share_parameter(WEIGHT).unwrap();
    let error = world.population_mut(population).unwrap().unshare_parameter("0.bias").unwrap_err();
    assert_eq!(error.to_string(), "'0.bias' is not shared by the population");
    world
        .population_mut(population)
        .unwrap()
        .insert_with(|model| SGD { lr: model as f64, ..SGD::default() })
        .unwrap();
    let (x, classes) = inputs(3);
    let before = bits(&mut world, population);
    let error =
        world.population_mut(population).unwrap().train_step(&x, &classes, &loss()).unwrap_err();
    assert!(matches!(error, StepError::SharedOptimizer { first: 0, other: 1, .. }), "{error}");
    assert_eq!(bits(&mut world, population), before);
    world.population_mut(population).unwrap().insert_shared_optimizer(SGD::default()).unwrap();
    world.population_mut(population).unwrap().train_step(&x, &classes, &loss()).unwrap();

    let norms = world.spawn_population(&BatchNorm1d::new(3), 2, Seed(1)).unwrap().id();
    world.population_mut(norms).unwrap().share_parameter("running_mean").unwrap();
    let x = Array3::<f32>::ones((2, 4, 3));
    let error = world.population_mut(norms).unwrap().forward(&x).unwrap_err();
    assert!(matches!(error, StepError::SharedWritten { .. }), "{error}");
    world.population_mut(norms).unwrap().eval().unwrap();
    world.population_mut(norms).unwrap().forward(&x).unwrap();
}
