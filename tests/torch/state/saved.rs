//! Components are written for checkpoints and read back: `SavedTypes`.

use bevy_ecs::prelude::*;
use neurarch::components::layers::*;
use neurarch::components::losses::*;
use neurarch::components::module::mode;
use neurarch::components::module::registered::{Attributes, Value};
use neurarch::components::module::{Call, Forward, Init, Module};
use neurarch::components::optimizer::{Adam, LbfgsState, SGD};
use neurarch::components::population::Population;
use neurarch::components::population::tie::{SharedModule, Tie, Ties};
use neurarch::components::saved::*;
use neurarch::components::scheduler::*;
use neurarch::kernels::ir::trace::Var;
use neurarch::kernels::lbfgs::Lbfgs;
use neurarch::{NeurarchWorld, Seed};
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
    let there = mode::Mode { hooked: true, cached: true, ..mode::Mode::default() };
    let saved = mode::Mode {
        inactive: true,
        frozen: [0, 77].into_iter().collect(),
        ..mode::Mode::default()
    };
    let [old, new, none] =
        [world.spawn(saved.clone()).id(), world.spawn(there).id(), world.spawn_empty().id()];
    let bytes = write(&world, old, "Mode").unwrap();
    read(&mut world, new, "Mode", &bytes, &mut ()).unwrap();
    read(&mut world, none, "Mode", &bytes, &mut ()).unwrap();
    assert_eq!(world.get(new), Some(&mode::Mode { hooked: true, cached: true, ..saved.clone() }));
    assert_eq!(world.get(none), Some(&saved));
}

/// Steps a scheduler and its optimizer, and says what the rates are.
fn go_on(scheduler: &mut Scheduler, optimizer: &mut SGD, metric: f64) -> [u64; 2] {
    match scheduler.takes_metrics() {
        true => scheduler.observe(optimizer, metric).unwrap(),
        false => scheduler.step(optimizer).unwrap(),
    }
    [optimizer.lr.to_bits(), optimizer.momentum.to_bits()]
}

/// Steps a schedule, saves it in the middle, and compares both going on.
#[track_caller]
fn goes_on(rule: impl LRScheduler) {
    let mut world = World::new();
    SavedTypes::init(&mut world);
    let mut optimizer = SGD { lr: 0.3, momentum: 0.7, ..SGD::default() };
    let mut old = Scheduler::attach(&rule, &mut optimizer).unwrap();
    for step in 0..7 {
        go_on(&mut old, &mut optimizer, f64::from(step % 3));
    }
    let [from, to] = [world.spawn(old.clone()).id(), world.spawn_empty().id()];
    let bytes = write(&world, from, "Scheduler").unwrap();
    read(&mut world, to, "Scheduler", &bytes, &mut ()).unwrap();
    assert_eq!(write(&world, to, "Scheduler").unwrap(), bytes);
    let mut new = world.get::<Scheduler>(to).unwrap().clone();
    assert_eq!(new.state_dict(), old.state_dict());
    let mut twin = optimizer;
    for step in 0..20 {
        let metric = f64::from(step % 4);
        let expected = go_on(&mut old, &mut optimizer, metric);
        assert_eq!(go_on(&mut new, &mut twin, metric), expected, "step {step}");
    }
}

#[test]
fn schedulers_go_on_where_they_were() {
    goes_on(StepLR { step_size: 3, gamma: 0.3 });
    goes_on(MultiStepLR { milestones: vec![2, 9, 9], gamma: 0.3 });
    goes_on(ConstantLR { factor: 0.2, total_iters: 9 });
    goes_on(LinearLR { start_factor: 0.1, end_factor: 0.9, total_iters: 13 });
    goes_on(ExponentialLR { gamma: 0.9 });
    goes_on(PolynomialLR { total_iters: 15, power: 1.7 });
    goes_on(CosineAnnealingLR { t_max: 11, eta_min: 0.01 });
    goes_on(CosineAnnealingWarmRestarts::new(5, 2, 0.01));
    goes_on(CyclicLR {
        step_size_up: 5,
        mode: CyclicMode::ExpRange { gamma: 0.9 },
        ..CyclicLR::new(0.1, 1.0)
    });
    goes_on(OneCycleLR { three_phase: true, ..OneCycleLR::new(0.7, 40) });
    goes_on(ReduceLROnPlateau { patience: 1, cooldown: 2, ..ReduceLROnPlateau::default() });
    goes_on(SWALR { anneal_epochs: 9, ..SWALR::new(0.01) });
    goes_on(
        ChainedScheduler::new()
            .push(ExponentialLR { gamma: 0.9 })
            .push(StepLR { step_size: 4, gamma: 0.5 }),
    );
    let inner = SequentialLR::new([4])
        .push(ExponentialLR { gamma: 0.9 })
        .push(StepLR { step_size: 2, gamma: 0.5 });
    goes_on(ChainedScheduler::new().push(inner).push(ConstantLR { factor: 0.5, total_iters: 12 }));
}

#[test]
fn functions_of_schedulers_stay_where_they_are() {
    let mut world = World::new();
    SavedTypes::init(&mut world);
    let rule = |factor: f64| {
        let lambda = LambdaLR::new(move |step| factor.powi(step as i32));
        SequentialLR::new([20]).push(lambda).push(StepLR { step_size: 2, gamma: 0.5 })
    };
    let begin = |factor| {
        let mut optimizer = SGD { lr: 1.0, ..SGD::default() };
        Scheduler::attach(&rule(factor), &mut optimizer).unwrap()
    };
    let mut far = begin(0.5);
    let mut optimizer = SGD { lr: 1.0, ..SGD::default() };
    (0..3).for_each(|_| far.step(&mut optimizer).unwrap());
    let step =
        Scheduler::attach(&StepLR { step_size: 2, gamma: 0.5 }, &mut optimizer.clone()).unwrap();
    let [from, none, other] =
        [world.spawn(far.clone()).id(), world.spawn_empty().id(), world.spawn(step).id()];
    let there = world.spawn(begin(0.25)).id();
    let bytes = write(&world, from, "Scheduler").unwrap();
    for entity in [none, other] {
        let before = world.get::<Scheduler>(entity).map(Scheduler::state_dict);
        let error = read(&mut world, entity, "Scheduler", &bytes, &mut ()).unwrap_err();
        assert_eq!(error, SavedError::Functions { rule: "LambdaLR".into() });
        assert_eq!(world.get::<Scheduler>(entity).map(Scheduler::state_dict), before);
    }
    read(&mut world, there, "Scheduler", &bytes, &mut ()).unwrap();
    let mut restored = world.get::<Scheduler>(there).unwrap().clone();
    assert_eq!(restored.state_dict(), far.state_dict());
    restored.step(&mut optimizer).unwrap();
    assert_eq!(
        optimizer.lr,
        0.25_f64.powi(4),
        "the function that was there, at the step of the file"
    );

    // A cycle whose heights are a function; the same scheduler with another height is none of it.
    let cycle = |mode| {
        let rule = CyclicLR { step_size_up: 2, mode, ..CyclicLR::new(0.1, 1.0) };
        Scheduler::attach(&rule, &mut SGD::default()).unwrap()
    };
    let own = CyclicMode::PerCycle(|cycle| 1.0 / cycle);
    world.entity_mut(from).insert(cycle(own));
    let bytes = write(&world, from, "Scheduler").unwrap();
    world.entity_mut(there).insert(cycle(CyclicMode::Triangular));
    let error = read(&mut world, there, "Scheduler", &bytes, &mut ()).unwrap_err();
    assert_eq!(error, SavedError::Functions { rule: "CyclicLR".into() });
    world.entity_mut(there).insert(cycle(own));
    read(&mut world, there, "Scheduler", &bytes, &mut ()).unwrap();
}

/// A schedule of a user's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Halve {
    every: usize,
}

impl LRScheduler for Halve {
    fn lr(&mut self, at: Progress, group: &mut ParamGroup<'_>) -> Result<f64, SchedulerError> {
        let halves = at.last_epoch > 0.0 && (at.last_epoch as usize).is_multiple_of(self.every);
        Ok(if halves { group.lr() / 2.0 } else { group.lr() })
    }

    fn clone_box(&self) -> Box<dyn LRScheduler> {
        Box::new(self.clone())
    }
}

#[test]
fn a_schedule_of_the_users_own_is_saved_once_it_is_registered() {
    let mut world = World::new();
    SavedTypes::init(&mut world);
    let mut optimizer = SGD { lr: 1.0, ..SGD::default() };
    let mut old = Scheduler::attach(&Halve { every: 2 }, &mut optimizer).unwrap();
    old.step(&mut optimizer).unwrap();
    let entity = world.spawn(old).id();
    assert_eq!(
        write(&world, entity, "Scheduler").unwrap_err().to_string(),
        "the scheduler `Halve` is not registered: `world.register_scheduler::<Halve>()` does so"
    );
    world.register_scheduler::<Halve>().unwrap();
    let bytes = write(&world, entity, "Scheduler").unwrap();
    let new = world.spawn_empty().id();
    read(&mut world, new, "Scheduler", &bytes, &mut ()).unwrap();
    world.get_mut::<Scheduler>(new).unwrap().step(&mut optimizer).unwrap();
    assert_eq!(optimizer.lr, 0.5);

    let mut elsewhere = World::new();
    SavedTypes::init(&mut elsewhere);
    let new = elsewhere.spawn_empty().id();
    let error = read(&mut elsewhere, new, "Scheduler", &bytes, &mut ()).unwrap_err();
    assert_eq!(error, SavedError::UnknownScheduler { name: "Halve".into() });
}

#[test]
fn changed_bytes_of_schedulers_are_another_one_or_an_error() {
    let mut world = World::new();
    SavedTypes::init(&mut world);
    let mut optimizer = SGD::default();
    let rule = SequentialLR::new([4]).push(OneCycleLR::new(0.7, 40)).push(
        ChainedScheduler::new()
            .push(CyclicLR::new(0.1, 1.0))
            .push(StepLR { step_size: 2, gamma: 0.5 }),
    );
    let entity = world.spawn(Scheduler::attach(&rule, &mut optimizer).unwrap()).id();
    let valid = write(&world, entity, "Scheduler").unwrap();
    let mut random = 1_u64;
    let mut below = |n: usize| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % n
    };
    let mut errors = 0;
    for _ in 0..5_000 {
        let mut bytes = valid.clone();
        for _ in 0..=below(2) {
            match below(4) {
                0 => bytes.truncate(below(bytes.len().max(1))),
                1 => bytes.insert(below(bytes.len() + 1), below(256) as u8),
                _ if bytes.is_empty() => {}
                2 => drop(bytes.remove(below(bytes.len()))),
                _ => {
                    let at = below(bytes.len());
                    bytes[at] ^= 1 << below(8);
                }
            }
        }
        if read(&mut world, entity, "Scheduler", &bytes, &mut ()).is_err() {
            errors += 1;
            continue;
        }
        // Whatever it is now, it can be used.
        let mut scheduler = world.get::<Scheduler>(entity).unwrap().clone();
        (0..5).for_each(|_| drop(scheduler.step(&mut SGD::default())));
    }
    assert!(errors > 2_000, "{errors}");
}

#[test]
fn what_lbfgs_knows_survives() {
    let state = Lbfgs::from_state(2, |name| {
        Some(match name {
            "d" => vec![f64::NEG_INFINITY, -0.0],
            "prev_flat_grad" => vec![1.0, 2.0],
            "old_dirs" | "old_stps" => vec![0.5, 1.0, 2.0, 3.0, 4.0, 5.0],
            "ro" => vec![7.0, 8.0, 9.0],
            "n_iter" => vec![3.0],
            _ => vec![0.25],
        })
    });
    round("LbfgsState", LbfgsState(state.unwrap()));
    round("LbfgsState", LbfgsState::default());
}

#[test]
fn kept_values_survive_but_for_modules() {
    let mut world = World::new();
    SavedTypes::init(&mut world);
    let tensor = ndarray::array![[1.5_f32, f32::INFINITY]];
    let kept =
        |value| Attributes(vec![("word".into(), Value::Other("str".into())), ("x".into(), value)]);
    let [old, new] =
        [world.spawn(kept(Value::tensor(tensor.view()))).id(), world.spawn_empty().id()];
    let bytes = write(&world, old, "Attributes").unwrap();
    read(&mut world, new, "Attributes", &bytes, &mut ()).unwrap();
    let [before, after] =
        [old, new].map(|of| format!("{:?}", world.get::<Attributes>(of).unwrap()));
    assert_eq!(after, before);
    let module = world.spawn(kept(Value::module(Linear::new(1, 1)))).id();
    let error = write(&world, module, "Attributes").unwrap_err().to_string();
    assert!(error.starts_with("`Attributes` cannot be written: "), "{error}");
}

/// Lists an entity and all below it.
fn tree(world: &World, root: Entity) -> Vec<Entity> {
    let mut all = vec![root];
    let mut seen = 0;
    while let Some(&entity) = all.get(seen) {
        all.extend(world.get::<Children>(entity).into_iter().flatten());
        seen += 1;
    }
    all
}

/// Puts in the place of each saved component of a model what it is read as; says how many there were.
fn put_back(world: &mut World, root: Entity) -> usize {
    SavedTypes::init(world);
    let mut count = 0;
    for entity in tree(world, root) {
        let types = world.resource::<SavedTypes>();
        let saved =
            world.inspect_entity(entity).unwrap().filter_map(|(id, _)| types.by_component(id));
        let names: Vec<_> = saved.map(|saved| saved.name.clone()).collect();
        for name in names {
            let bytes = write(world, entity, &name).unwrap();
            read(world, entity, &name, &bytes, &mut ()).unwrap();
            assert_eq!(write(world, entity, &name).unwrap(), bytes);
            count += 1;
        }
    }
    count
}

/// Counts the structures that models have.
fn structures(world: &mut World, population: Entity) -> usize {
    world.population_mut(population).unwrap().settle().unwrap();
    world.get::<Population>(population).unwrap().groups().len()
}

#[test]
fn what_is_read_back_is_the_same_structure_and_computes_the_same() {
    let mut world = World::new();
    let layer = TransformerEncoderLayer {
        dim_feedforward: 6,
        dropout: 0.0,
        activation: Activation::module(Tanh),
        ..TransformerEncoderLayer::new(4, 2)
    };
    let net = Sequential::new()
        .push(Linear::new(3, 4))
        .push(layer.clone())
        .push(TransformerEncoder::new(layer, 2).with_norm(LayerNorm::new([4])))
        .push(PReLU::default());
    let id = world.spawn_population(&net, 3, Seed(5)).unwrap().id();
    world.population_mut(id).unwrap().insert(Adam::default()).unwrap();
    let x =
        ndarray::Array4::from_shape_fn([3, 2, 2, 3], |(a, b, c, d)| (a + 2 * b + 3 * c + d) as f32)
            .into_dyn();
    let forward = |world: &mut World| world.population_mut(id).unwrap().forward(&x).unwrap();
    let before = forward(&mut world);
    let model = world.population(id).unwrap().models()[1];
    assert!(put_back(&mut world, model) > 40);
    assert_eq!(forward(&mut world), before);
    assert_eq!(structures(&mut world, id), 1);

    // What cannot be called has a structure as well.
    let list =
        ParameterList::from_iter([Parameter::ones([2]), Parameter::full([3], f64::INFINITY)]);
    let dict =
        ParameterDict::from_named([("a", Parameter::zeros([1])), ("7", Parameter::randn([2]))])
            .unwrap();
    let bare =
        BareModule::new().parameter("p", [2], Init::Eye).buffer("b", [1], false).child("fc", Tanh);
    let net = BareModule::new()
        .child("list", list)
        .child("dict", dict)
        .child("bare", bare)
        .child("lazy", LazyLinear::new(3));
    let id = world.spawn_population(&net, 2, Seed(5)).unwrap().id();
    let model = world.population(id).unwrap().models()[1];
    put_back(&mut world, model);
    let names = |world: &mut World, model: usize| {
        let model = world.population(id).unwrap().models()[model];
        let state = world.module_mut(model).unwrap().state_dict().unwrap();
        state.keys().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&mut world, 1), names(&mut world, 0));
    assert_eq!(structures(&mut world, id), 1);
}
