//! Children that are torch's `None`, and entries of lists by index in a `forward`.

use ndarray::Array2;
use neurarch::nn::Value;
use neurarch::prelude::*;
use neurarch::systems::edit::containers::Item;

const PRINTED: &str = "\
Sequential(
  (0): Linear(in_features=2, out_features=2, bias=True)
  (1): None
  (2): Tanh()
)";

fn network() -> Sequential {
    Sequential::new().push(Linear::new(2, 2)).push(NoModule).push(Tanh)
}

/// Python: `nn.Sequential(nn.Linear(2, 2), None, nn.Tanh())`, torch 2.15.
#[test]
fn a_child_that_is_none_is_printed_and_counted_and_nowhere_else() {
    assert_eq!((network().to_string().as_str(), network().len()), (PRINTED, 3));
    let mut world = World::new();
    let brains = world.spawn_population(&network(), 2, Seed(1)).unwrap().id();
    let root = world.population(brains).unwrap().models()[0];
    assert_eq!(world.module_mut(root).unwrap().repr().unwrap(), PRINTED);
    assert_eq!(world.module_mut(root).unwrap().container().len().unwrap(), 3);
    assert_eq!(world.module_mut(root).unwrap().container().get(1).unwrap(), Item::None);
    let items = world.module_mut(root).unwrap().container().items().unwrap();
    let items: Vec<_> = items.iter().map(|(name, item)| (&**name, *item == Item::None)).collect();
    assert_eq!(items, [("0", false), ("1", true), ("2", false)]);
    let names = |world: &mut World| -> Vec<_> {
        let children = world.module_mut(root).unwrap().named_children().unwrap();
        children.into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(names(&mut world), ["0", "2"]);
    assert_eq!(world.module_mut(root).unwrap().modules().unwrap().len(), 3);
    let mut applied = 0;
    world.module_mut(root).unwrap().apply(|_, _| applied += 1).unwrap();
    assert_eq!(applied, 3);
    let state = world.module_mut(root).unwrap().state_dict().unwrap();
    assert_eq!(state.keys().collect::<Vec<_>>(), ["0.weight", "0.bias"]);
    assert_eq!(state.metadata.len(), 3);
    world.module_mut(root).unwrap().load_state_dict(&state).unwrap();

    // It cannot be called, in torch's words.
    let x = Array2::<f32>::ones((2, 2));
    let error = world.population_mut(brains).unwrap().forward(&x).unwrap_err().to_string();
    assert_eq!(error, "1 (NoneType): 'NoneType' object is not callable");
    let error = world.module_mut(root).unwrap().get_submodule("1").unwrap_err().to_string();
    assert!(error.contains("is not an nn.Module"), "{error}");

    // What is edited has it likewise.
    world
        .module_mut(root)
        .unwrap()
        .container()
        .insert(1, ReLU)
        .unwrap()
        .append(Value::None)
        .unwrap();
    let printed = "\
Sequential(
  (0): Linear(in_features=2, out_features=2, bias=True)
  (1): ReLU()
  (2): None
  (3): Tanh()
  (4): None
)";
    assert_eq!(world.module_mut(root).unwrap().repr().unwrap(), printed);
    world.module_mut(root).unwrap().container().pop(-1).unwrap();
    world.module_mut(root).unwrap().setattr("2", Value::module(Identity)).unwrap();
    assert_eq!(names(&mut world), ["0", "1", "2", "3"]);
    world.module_mut(brains).unwrap().setattr("1", Value::None).unwrap_err();
    world.population_mut(brains).unwrap().forward(&x).unwrap_err();
    let other = world.population(brains).unwrap().models()[1];
    world.module_mut(other).unwrap().setattr("1", Value::module(Tanh)).unwrap();
    world.population_mut(brains).unwrap().forward(&x).unwrap();
    world.module_mut(other).unwrap().setattr("1", Value::None).unwrap();
    assert_eq!(world.module_mut(other).unwrap().repr().unwrap(), PRINTED);
}

#[test]
fn lists_and_dictionaries_print_none_as_torch_does() {
    let list = ModuleList::new().push(NoModule).push(NoModule).push(Tanh);
    assert_eq!(list.to_string(), "ModuleList(\n  (0-1): 2 x None\n  (2): Tanh()\n)");
    let dict = ModuleDict::from_named([("a", NoModule)]).unwrap();
    assert_eq!(dict.to_string(), "ModuleDict(\n  (a): None\n)");
    let mut world = World::new();
    let lists = world.spawn_population(&list, 1, Seed(1)).unwrap().id();
    let root = world.population(lists).unwrap().models()[0];
    assert_eq!(world.module_mut(root).unwrap().repr().unwrap(), list.to_string());
    // A module is registered as `None` in any module.
    let module = world.module_mut(root).unwrap().at("2").unwrap().id();
    assert_eq!(world.module_mut(module).unwrap().register_module("b", Value::None).unwrap(), None);
    assert_eq!(world.module_mut(module).unwrap().repr().unwrap(), "Tanh(\n  (b): None\n)");
}

/// Calls an entry of a list, and scales by one of another.
#[derive(Component, Clone, Debug, PartialEq)]
struct Entries(isize);

impl Module for Entries {
    fn declare(&self, declare: &mut Declare) {
        declare.child("layers", ModuleList::from([Linear::new(2, 3), Linear::new(2, 4)]));
        declare.child(
            "scales",
            ParameterList::from([Parameter::ones([1]), Parameter::full([1], 2.0)]),
        );
    }

    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        let scale = call.parameter(&call.entry("scales", self.0));
        call.child(&call.entry("layers", self.0), &x) * scale
    }
}

/// The messages of torch 2.15.
#[test]
fn entries_of_lists_are_found_by_index_in_a_forward() {
    let run = |index: isize| {
        let mut world = World::new();
        let models = world.spawn_population(&Entries(index), 1, Seed(1)).unwrap().id();
        world
            .population_mut(models)
            .map_err(|error| error.to_string())?
            .forward(&Array2::<f32>::ones((1, 2)))
            .map_err(|error| error.to_string())
    };
    assert_eq!(run(0).unwrap().shape(), [1, 3]);
    assert_eq!(run(-1).unwrap(), run(1).unwrap());
    assert_eq!(run(-2).unwrap(), run(0).unwrap());
    assert_eq!(run(2).unwrap_err(), "Entries: index 2 is out of range");
    assert_eq!(run(-3).unwrap_err(), "Entries: index -3 is out of range");
}
