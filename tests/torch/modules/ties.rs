//! Ties: one parameter or module under several names is one, in training, on disk and in copies.

use ndarray::{Array2, Array3, ArrayD};
use neurarch::bevy_ecs::entity::EntityCloner;
use neurarch::bevy_ecs::prelude::*;
use neurarch::prelude::*;

/// An autoencoder whose decoder has the encoder's weight; its second block is the first once more.
#[derive(Component, Clone, Debug, PartialEq)]
#[component(immutable)]
struct Tied;

impl Module for Tied {
    fn declare(&self, declare: &mut Declare) {
        declare.child("encoder", Linear::new(3, 3)).child("block", Linear::new(3, 3));
        declare.child("decoder", Linear::new(3, 3)).share("again", "block");
        declare.tie("decoder.weight", "encoder.weight");
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        ["encoder", "block", "again", "decoder"].iter().fold(x, |x, name| call.child(name, &x))
    }
}

/// The same with parameters of its own in each place.
#[derive(Component, Clone, Debug, PartialEq)]
#[component(immutable)]
struct Untied;

impl Module for Untied {
    fn declare(&self, declare: &mut Declare) {
        for name in ["encoder", "block", "again", "decoder"] {
            declare.child(name, Linear::new(3, 3));
        }
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        call.children().fold(x, |x, name| call.child(name, &x))
    }
}

const MODELS: usize = 4;

fn inputs() -> Array3<f32> {
    Array3::from_shape_fn((MODELS, 5, 3), |(m, i, f)| ((m * 5 + i * 3 + f) % 7) as f32 / 3.0 - 1.0)
}

fn names(world: &mut World, root: Entity) -> Vec<String> {
    world
        .module_mut(root)
        .unwrap()
        .state_dict()
        .unwrap()
        .into_iter()
        .map(|tensor| tensor.name)
        .collect()
}

#[test]
fn a_parameter_may_be_another_one_of_its_own_module() {
    let mut tied = BareModule::new();
    tied = tied.parameter("gate", [2], Init::Ones).parameter("shift", [2], Init::Zeros);
    let mut world = World::new();
    let all = world.spawn_population(&WithinOne(tied), MODELS, Seed(1)).unwrap().id();
    let copy = world.population_mut(all).unwrap().clone_models(&[2]).unwrap()[0];
    for root in [world.population(all).unwrap().models()[0], copy] {
        assert_eq!(world.module_mut(root).unwrap().parameter_names().unwrap(), ["bare.gate"]);
        assert_eq!(names(&mut world, root), ["bare.gate", "bare.shift"]);
        let shift = world.module_mut(root).unwrap().parameter::<f32>("bare.shift").unwrap();
        assert_eq!(shift, ArrayD::<f32>::ones(vec![2]));
    }
}

#[test]
fn what_is_assigned_is_tied_no_more() {
    let mut world = World::new();
    let brains = world.spawn_population(&Tied, MODELS, Seed(1)).unwrap().id();
    let roots = world.population(brains).unwrap().models().to_vec();
    let assign = LoadOptions { assign: true, strict: false };
    let full = |name: &str, value: f32| Tensor::new(name, Array2::from_elem((3, 3), value).view());
    let both = [full("encoder.weight", 1.0), full("decoder.weight", 2.0)];
    let weights = |world: &mut World, root| {
        let weight = |name| world.module_mut(root).unwrap().parameter::<f32>(name).unwrap()[[0, 0]];
        ["encoder.weight", "decoder.weight"].map(weight)
    };
    // One that is not assigned keeps what there was, and so does one whose tensor does not fit.
    let before = weights(&mut world, roots[1]);
    let one = StateDict::from_iter([full("encoder.weight", 3.0)]);
    world.module_mut(roots[1]).unwrap().load_state_dict_with(&one, assign).unwrap();
    assert_eq!(weights(&mut world, roots[1]), [3.0, before[1]]);
    let unfit =
        StateDict::from_iter([Tensor::new("decoder.weight", ndarray::arr1(&[1.0_f32]).view())]);
    world.module_mut(roots[2]).unwrap().load_state_dict_with(&unfit, assign).unwrap_err();
    assert_eq!(world.module_mut(roots[2]).unwrap().parameter_names().unwrap().len(), 5);
    world
        .module_mut(roots[0])
        .unwrap()
        .load_state_dict_with(&StateDict::from_iter(both.clone()), assign)
        .unwrap();
    assert_eq!(weights(&mut world, roots[0]), [1.0, 2.0]);
    assert_eq!(world.module_mut(roots[0]).unwrap().parameter_names().unwrap().len(), 6);
    // The others' are one all the same, until all models get both.
    let copied = StateDict::from_iter(both.clone());
    let keep = LoadOptions { assign: false, ..assign };
    world.module_mut(roots[3]).unwrap().load_state_dict_with(&copied, keep).unwrap();
    assert_eq!(weights(&mut world, roots[3]), [2.0, 2.0]);
    world.population_mut(brains).unwrap().load_state_dict_with(&copied, assign).unwrap();
    for &root in &roots {
        assert_eq!(weights(&mut world, root), [1.0, 2.0]);
    }
    world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
}

/// A module two of whose parameters are one.
#[derive(Component, Clone, Debug, PartialEq)]
#[component(immutable)]
struct WithinOne(BareModule);

impl Module for WithinOne {
    fn declare(&self, declare: &mut Declare) {
        declare.child("bare", self.0.clone()).tie("bare.shift", "bare.gate");
    }
}

#[test]
fn names_are_listed_once_as_parameters_and_each_in_a_state_dict() {
    let mut world = World::new();
    let brains = world.spawn_population(&Tied, MODELS, Seed(1)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    let parameters =
        ["encoder.weight", "encoder.bias", "block.weight", "block.bias", "decoder.bias"];
    assert_eq!(world.module_mut(root).unwrap().parameter_names().unwrap(), parameters);
    let keys = [
        "encoder.weight",
        "encoder.bias",
        "block.weight",
        "block.bias",
        "decoder.weight",
        "decoder.bias",
        "again.weight",
        "again.bias",
    ];
    assert_eq!(names(&mut world, root), keys);
}

#[test]
fn gradients_of_all_uses_add_up() {
    let mut world = World::new();
    let tied = world.spawn_population(&Tied, MODELS, Seed(1)).unwrap().id();
    let plain = world.spawn_population(&Untied, MODELS, Seed(2)).unwrap().id();
    for (own, other) in
        [("encoder", "encoder"), ("block", "block"), ("again", "block"), ("decoder", "decoder")]
    {
        for leaf in ["weight", "bias"] {
            let numbers = world
                .population_mut(tied)
                .unwrap()
                .stack::<f32>(&format!("{other}.{leaf}"))
                .unwrap();
            world
                .population_mut(plain)
                .unwrap()
                .unstack(&format!("{own}.{leaf}"), numbers.view())
                .unwrap();
        }
    }
    let mut gradients = |population, name: &str| -> ArrayD<f32> {
        world.population_mut(population).unwrap().forward(&inputs()).unwrap();
        world
            .population_mut(population)
            .unwrap()
            .backward_from(&Array3::<f32>::ones((MODELS, 5, 3)))
            .unwrap();
        let root = world.population(population).unwrap().models()[2];
        let gradient = world.module_mut(root).unwrap().gradient(name).unwrap().unwrap();
        world.population_mut(population).unwrap().zero_grad().unwrap();
        gradient
    };
    let close =
        |a: &ArrayD<f32>, b: &ArrayD<f32>| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
    let whole = gradients(tied, "encoder.weight");
    let parts = &gradients(plain, "encoder.weight") + &gradients(plain, "decoder.weight");
    assert!(close(&whole, &parts), "{whole} {parts}");
    let whole = gradients(tied, "block.weight");
    let parts = &gradients(plain, "block.weight") + &gradients(plain, "again.weight");
    assert!(close(&whole, &parts), "{whole} {parts}");
}

#[test]
fn a_clone_is_tied_within_itself_and_trains_as_one() {
    let mut world = World::new();
    let brains = world.spawn_population(&Tied, MODELS, Seed(1)).unwrap().id();
    world.population_mut(brains).unwrap().insert(Adam::default()).unwrap();
    let targets = Array2::<i64>::zeros((MODELS, 5));
    world
        .population_mut(brains)
        .unwrap()
        .train_step(&inputs(), &targets, &CrossEntropyLoss::default())
        .unwrap();
    let original = world.population(brains).unwrap().models()[1];
    let copy = world.spawn_empty().id();
    EntityCloner::build_opt_out(&mut world).linked_cloning(true).clone_entity(original, copy);
    let before = world.module_mut(original).unwrap().parameter::<f32>("decoder.weight").unwrap();
    assert_eq!(world.module_mut(copy).unwrap().parameter::<f32>("again.bias").unwrap(), {
        world.module_mut(original).unwrap().parameter::<f32>("block.bias").unwrap()
    });
    let ones = ArrayD::<f32>::ones(before.raw_dim());
    world.module_mut(copy).unwrap().set_parameter("decoder.weight", ones.view()).unwrap();
    assert_eq!(world.module_mut(copy).unwrap().parameter::<f32>("encoder.weight").unwrap(), ones);
    assert_eq!(
        world.module_mut(original).unwrap().parameter::<f32>("encoder.weight").unwrap(),
        before
    );
}

#[test]
fn a_live_model_is_tied_with_the_owners_numbers() {
    let mut world = World::new();
    let brains = world.spawn_population(&Untied, MODELS, Seed(1)).unwrap().id();
    let roots = world.population(brains).unwrap().models().to_vec();
    let before = world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    let owner = world.module_mut(roots[1]).unwrap().parameter::<f32>("decoder.weight").unwrap();
    world.module_mut(roots[1]).unwrap().tie("block.weight", "decoder.weight").unwrap();
    assert_eq!(
        world.module_mut(roots[1]).unwrap().parameter::<f32>("block.weight").unwrap(),
        owner
    );
    assert_eq!(
        world.module_mut(roots[1]).unwrap().parameter::<f32>("decoder.weight").unwrap(),
        owner
    );
    assert_eq!(world.module_mut(roots[1]).unwrap().parameter_names().unwrap().len(), 7);
    let after = world.population_mut(brains).unwrap().forward(&inputs()).unwrap();
    for model in [0, 2, 3] {
        assert_eq!(
            before.index_axis(ndarray::Axis(0), model),
            after.index_axis(ndarray::Axis(0), model)
        );
    }
    assert_ne!(before, after);

    let block = world.module_mut(roots[2]).unwrap().at("block").unwrap().id();
    world.module_mut(roots[2]).unwrap().share("third", block).unwrap();
    assert!(names(&mut world, roots[2]).contains(&"third.weight".to_owned()));
    assert_eq!(world.module_mut(roots[2]).unwrap().parameter_names().unwrap().len(), 8);
}

#[test]
fn what_cannot_be_tied_is_an_error_in_torchs_words() {
    #[derive(Component, Clone, Debug, PartialEq)]
    struct Wrong;
    impl Module for Wrong {
        fn declare(&self, declare: &mut Declare) {
            declare.child("a", Linear::new(3, 3)).tie("a.weight", "b.weight");
        }
    }
    let mut world = World::new();
    let error = world.spawn_population(&Wrong, 1, Seed(1)).unwrap_err();
    assert_eq!(error.to_string(), "a.weight: 'Wrong' object has no attribute 'b.weight'");

    let brains = world.spawn_population(&Untied, 1, Seed(1)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    assert!(world.module_mut(root).unwrap().tie("block.weight", "nobody.weight").is_err());
    let error = world.module_mut(root).unwrap().tie("block.weight", "block.bias").unwrap_err();
    assert!(error.to_string().contains("size mismatch for block.weight"), "{error}");
    let block = world.module_mut(root).unwrap().at("block").unwrap().id();
    let error = world.module_mut(root).unwrap().share("again", block).unwrap_err();
    assert!(error.to_string().contains("attribute 'again' already exists"), "{error}");
    assert_eq!(world.module_mut(root).unwrap().parameter_names().unwrap().len(), 8);
}

#[test]
fn no_module_is_below_itself_by_another_name() {
    #[derive(Component, Clone, Debug, PartialEq)]
    struct Endless;
    impl Module for Endless {
        fn declare(&self, declare: &mut Declare) {
            declare.share("again", "");
        }
    }
    let mut world = World::new();
    let error = world.spawn_population(&Endless, 1, Seed(1)).unwrap_err();
    assert_eq!(error.to_string(), "again: a module cannot be below itself");

    let net = Sequential::new().push(Sequential::new()).push(Sequential::new());
    let nets = world.spawn_population(&net, 1, Seed(1)).unwrap().id();
    let root = world.population(nets).unwrap().models()[0];
    let [a, b] = ["0", "1"].map(|name| world.module_mut(root).unwrap().at(name).unwrap().id());
    world.module_mut(a).unwrap().share("b", b).unwrap();
    let error = world.module_mut(b).unwrap().share("a", a).unwrap_err();
    assert!(error.to_string().contains("a module cannot be below itself"), "{error}");
}
