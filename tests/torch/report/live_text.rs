//! Live models print themselves as torch's modules do, read with `&World`.

use neurarch::prelude::*;

fn net() -> Sequential {
    Sequential::new().push(Linear::new(2, 3)).push(Dropout { p: 0.25 }).push(NoModule)
}

#[test]
fn modules_print_as_torch_does() {
    let mut world = World::new();
    let mut models = world.spawn_population(&net(), 2, Seed(7)).unwrap();
    let root = models.model(1).unwrap().id();
    let printed = models.model(1).unwrap().repr().unwrap();
    assert_eq!(
        printed,
        "\
Sequential(
  (0): Linear(in_features=2, out_features=3, bias=True)
  (1): Dropout(p=0.25, inplace=False)
  (2): None
)"
    );
    assert_eq!(models.model(1).unwrap().to_string(), printed);
    assert_eq!(world.module(root).unwrap().to_string(), printed);
}

#[test]
fn populations_print_as_lists_do() {
    let mut world = World::new();
    let mut models = world.spawn_population(&Linear::new(2, 3), 4, Seed(7)).unwrap();
    let id = models.id();
    assert_eq!(
        models.to_string(),
        "Population(\n  (0-3): 4 x Linear(in_features=2, out_features=3, bias=True)\n)"
    );
    // An edit that nothing has settled yet is printed, too.
    let root = models.model(2).unwrap().id();
    world.entity_mut(root).insert(Linear::new(2, 5));
    assert_eq!(
        world.population(id).unwrap().to_string(),
        "\
Population(
  (0-1): 2 x Linear(in_features=2, out_features=3, bias=True)
  (2): Linear(in_features=2, out_features=5, bias=True)
  (3): Linear(in_features=2, out_features=3, bias=True)
)"
    );
    let module = world.module(root).unwrap();
    assert!(module.parameter::<f32>("weight").is_err(), "it is not settled");
    assert_eq!(module.to_string(), "Linear(in_features=2, out_features=5, bias=True)");
}

#[test]
fn an_entity_that_is_no_module_prints_as_none() {
    let mut world = World::new();
    world.spawn_population(&Linear::new(2, 3), 1, Seed(7)).unwrap();
    let stone = world.spawn_empty().id();
    assert_eq!(world.module(stone).unwrap().to_string(), "None");
}
