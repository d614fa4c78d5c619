//! Components are written for checkpoints and read back: `SavedTypes`.

use bevy_ecs::prelude::*;
use neurarch::NeurarchWorld;
use neurarch::components::layers::*;
use neurarch::components::losses::*;
use neurarch::components::module::mode::Mode;
use neurarch::components::module::{Call, Forward, Module};
use neurarch::components::optimizer::Adam;
use neurarch::components::population::tie::{SharedModule, Tie, Ties};
use neurarch::components::saved::*;
use neurarch::kernels::ir::trace::Var;
use serde::{Deserialize, Serialize};

/// Writes the component of type `name` that an entity has.
fn write(world: &World, entity: Entity, name: &str) -> Result<Vec<u8>, SavedError> {
    let (types, mut bytes) = (world.resource::<SavedTypes>(), Vec::new());
    let saved = types.by_name(name).unwrap();
    assert!(saved.write(types, world.entity(entity), &mut (), &mut bytes)?, "it has a {name}");
    Ok(bytes)
}

/// Reads a component of type `name` and inserts it.
fn read(
    world: &mut World,
    entity: Entity,
    name: &str,
    bytes: &[u8],
    mapper: &mut dyn EntityMapper,
) -> Result<(), SavedError> {
    let types = world.resource::<SavedTypes>();
    let value = types.by_name(name).unwrap().read(types, bytes)?;
    value.check(Some(world.entity(entity)))?;
    value.insert(&mut world.entity_mut(entity), mapper)
}

/// Writes a component and reads it back on another entity.
fn round<T: Component + Clone + std::fmt::Debug + PartialEq>(name: &str, value: T) {
    let mut world = World::new();
    SavedTypes::init(&mut world);
    let [old, new] = [world.spawn(value.clone()).id(), world.spawn_empty().id()];
    let bytes = write(&world, old, name).unwrap();
    read(&mut world, new, name, &bytes, &mut ()).unwrap();
    assert_eq!(world.get::<T>(new), Some(&value));
    assert_eq!(write(&world, new, name).unwrap(), bytes);
}

#[test]
fn settings_survive() {
    round("Linear", Linear { bias: false, ..Linear::new(3, 5) });
    round("Hardtanh", Hardtanh { min_val: f64::NEG_INFINITY, max_val: f64::INFINITY });
    round(
        "Adam",
        Adam { lr: 1e-300, betas: (0.1, f64::INFINITY), maximize: true, ..Adam::default() },
    );
    let weight = Some(ndarray::array![1.0, f64::INFINITY].into_dyn());
    round("BCELoss", BCELoss { weight, reduction: Reduction::Sum });
    round("Conv2d", Conv2d { padding: Padding::Same, ..Conv2d::new(1, 2, [3, 4]) });
}

/// A block of a user's own.
#[derive(Module, Component, Clone, Serialize, Deserialize)]
struct Block {
    fc: Linear,
    extra: ModuleList,
    scale: Parameter,
    #[scalar]
    slope: f64,
    features: usize,
}

impl Forward for Block {
    fn forward(&self, call: &Call<'_>, x: Var) -> Var {
        self.fc(call, &x) * self.scale(call) * self.slope(call, x.dtype())
    }
}

fn block() -> Block {
    let extra = ModuleList::from([Linear::new(2, 2)]);
    Block {
        fc: Linear::new(2, 2),
        extra,
        scale: Parameter::ones([2]),
        slope: f64::NAN,
        features: 7,
    }
}

#[test]
fn a_module_of_the_users_own_is_saved_once_it_is_registered() {
    let mut world = World::new();
    SavedTypes::init(&mut world);
    assert!(world.resource::<SavedTypes>().by_name("Block").is_none());
    world.register_module_type::<Block>().unwrap();
    world.register_module_type::<Block>().unwrap();
    let old = world.spawn(block().spawned()).id();
    let bytes = write(&world, old, "Block").unwrap();
    let types = world.resource::<SavedTypes>();
    let value = types.by_name("Block").unwrap().read(types, &bytes).unwrap();
    let module = value.module().unwrap();
    assert_eq!(module.type_name(), "Block");
    assert!(module.scalar("slope").is_some_and(f64::is_nan));
    assert!(value.value().downcast_ref::<Block>().is_some_and(|block| block.features == 7));
    let id = world.component_id::<Block>().unwrap();
    assert_eq!(&*world.resource::<SavedTypes>().by_component(id).unwrap().name, "Block");
}

mod other {
    use super::{Component, Deserialize, Serialize};

    /// Has the name of a layer.
    #[derive(Component, Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Linear(pub(super) u8);
}

#[test]
fn a_name_belongs_to_one_type() {
    let mut world = World::new();
    let error = world.register_saved::<other::Linear>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "torch::state::saved::other::Linear cannot be registered as `Linear`, since \
         neurarch_components::layers::linear::Linear is: give it a name of its own by `register_as`"
    );
    SavedTypes::register_as::<other::Linear>(&mut world, "game.Linear").unwrap();
    let entity = world.spawn(other::Linear(3)).id();
    let bytes = write(&world, entity, "game.Linear").unwrap();
    let new = world.spawn_empty().id();
    read(&mut world, new, "game.Linear", &bytes, &mut ()).unwrap();
    assert_eq!(world.get(new), Some(&other::Linear(3)));
}

/// Points at another entity.
#[derive(Component, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Follows(#[entities] Entity);

#[test]
fn entities_are_mapped() {
    let mut world = World::new();
    world.register_saved::<Follows>().unwrap();
    let [a, b, c] = [(); 3].map(|()| world.spawn_empty().id());
    let tie = |owner| {
        Ties(vec![Tie { parameter: "weight".into(), owner, owner_parameter: "0.weight".into() }])
    };
    world.entity_mut(a).insert((Follows(b), SharedModule(b), tie(b)));
    for name in ["Follows", "SharedModule", "Ties"] {
        let bytes = write(&world, a, name).unwrap();
        read(&mut world, c, name, &bytes, &mut (b, c)).unwrap();
    }
    assert_eq!(world.get(c), Some(&Follows(c)));
    assert_eq!(world.get(c), Some(&SharedModule(c)));
    assert_eq!(world.get(c), Some(&tie(c)));
}

#[test]
fn what_no_file_holds_stays() {
    let mut world = World::new();
    SavedTypes::init(&mut world);
    let there = Mode { hooked: true, cached: true, ..Mode::default() };
    let saved = Mode { inactive: true, frozen: [0, 77].into_iter().collect(), ..Mode::default() };
    let [old, new, none] =
        [world.spawn(saved.clone()).id(), world.spawn(there).id(), world.spawn_empty().id()];
    let bytes = write(&world, old, "Mode").unwrap();
    read(&mut world, new, "Mode", &bytes, &mut ()).unwrap();
    read(&mut world, none, "Mode", &bytes, &mut ()).unwrap();
    assert_eq!(world.get(new), Some(&Mode { hooked: true, cached: true, ..saved.clone() }));
    assert_eq!(world.get(none), Some(&saved));
}
