//! Spawning: a description becomes entity trees, one a model, with their rows in columns.

use std::collections::HashSet;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use neurarch_components::builtin;
use neurarch_components::column::shared::{SharedRow, SharedTensors};
use neurarch_components::column::{Columns, RowBundle};
use neurarch_components::containers::{MAX_DEPTH, too_deep};
use neurarch_components::module::attributes::is_method;
use neurarch_components::module::blueprint::{Blueprint, BlueprintId, Position, TieError};
use neurarch_components::module::dtypes::Dtypes;
use neurarch_components::module::mode::Mode;
use neurarch_components::module::names::{Kind, wrong_name};
use neurarch_components::module::registered::Registered;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::module::{Declare, DynModule};
use neurarch_components::parametrizations::{RegisteredAgain, WeightNormed};
use neurarch_components::population::Population;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_components::population::contents::Contents;
use neurarch_components::population::group::Group;
use neurarch_components::population::tie::{SharedModule, Tie, Ties};
use neurarch_components::population::tree::{Columned, Model, ModuleName, NOT_A_MEMBER};
use neurarch_components::warnings::Warnings;
use neurarch_kernels::ir::device::Device;
use neurarch_kernels::ir::dtype::Dtype;

use crate::errors::room::RoomError;
use crate::errors::{SignError, room};
use crate::storage::bind::KEEPER;
use crate::structure::sign;
use crate::structure::sign::Signed;

/// Why models cannot be spawned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// A child's name is empty, contains a dot, or is taken; torch's words.
    #[error("{path}: {message}")]
    Name {
        /// Dotted path of the parent.
        path: String,
        /// What is wrong with the name.
        message: String,
    },
    /// A module has more levels below it, or more parameters, buffers and children, than there may be.
    #[error("{path}: {message}")]
    Limit {
        /// Its dotted path.
        path: String,
        /// What there may be, and how many there are.
        message: String,
    },
    /// A model has too many modules.
    #[error("expected at most {MAX_MODULES} modules in a model, got more")]
    TooWide,
    /// A parameter or module is tied to one that is not there.
    #[error(transparent)]
    Tie(#[from] TieError),
    /// A layer is to lie on a device that is not there.
    #[error("{path}: {device} is not there: Torch not compiled with CUDA enabled")]
    NoDevice {
        /// Dotted path of the module; the type's name for a root.
        path: String,
        /// The device.
        device: Device,
    },
    /// A model's parameters have elements of a floating-point type, but for those that say another one.
    #[error("expected parameters of a floating-point type, got {0}")]
    Dtype(Dtype),
    /// A parameter of integers needs no gradient; torch's words.
    #[error("{path}.{name}: {REQUIRES_GRAD}")]
    RequiresGrad {
        /// Dotted path of the module; the type's name for a root.
        path: String,
        /// The parameter's name.
        name: String,
    },
    /// The world's entities were cleared, its resources with them, and bevy takes no resource of the same type again.
    #[error("expected a world that takes resources, got one that was cleared")]
    Cleared,
    /// The entity is no population.
    #[error("{0} is not a population")]
    NotAPopulation(Entity),
    /// There is no model to copy the structure from.
    #[error("population {0} has no model whose structure new ones could have")]
    Empty(Entity),
    /// A population has fewer than 2³² models.
    #[error("expected fewer than {max} models, got {given}", max = NOT_A_MEMBER)]
    TooMany {
        /// How many were asked for.
        given: usize,
    },
    /// All blueprints in use have more than 2²⁴ modules together.
    #[error("expected fewer than 16777216 modules in all blueprints together")]
    TooManyModules,
    /// A parameter or buffer is too large for memory.
    #[error(transparent)]
    Room(#[from] RoomError),
    /// The population has a model whose tree is no model.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// What torch says of a parameter that is to have a gradient of integers.
pub(crate) const REQUIRES_GRAD: &str =
    "Only Tensors of floating point and complex dtype can require gradients";

/// How many modules a model has at most: some times what the largest mixtures of experts have.
pub const MAX_MODULES: usize = 1 << 18;

/// Spawns a population of `models` models of `module`, their parameters zero; gives its entity.
///
/// Columns have room for `capacity` models: spawning within it moves nothing.
///
/// # Errors
///
/// [`SpawnError`]; nothing is spawned then.
pub fn spawn_population(
    world: &mut World,
    module: &dyn DynModule,
    models: usize,
    capacity: usize,
    seed: u64,
    dtype: Dtype,
) -> Result<Entity, SpawnError> {
    let capacity = capacity.max(models);
    check_dtype(dtype)?;
    check_count(capacity)?;
    check_declared(module, "")?;
    check_resources(world)?;
    builtin::register(world);
    world.init_resource::<Warnings>();
    register_types(world, module);
    Columns::init(world);
    let blueprint = Blueprint::of(module, dtype)?;
    room::check(&blueprint, capacity)?;
    let mut blueprints = world.get_resource_or_init::<Blueprints>();
    let group = blueprints.open_group(blueprint, &[], KEEPER);
    let mut group = group.ok_or(SpawnError::TooManyModules)?;
    group.reserve(capacity);
    let mut modules = Vec::with_capacity(group.contents.len());
    list_modules(module, &mut modules);
    let mut population = Population::new(seed, dtype, capacity);
    population.groups_mut(KEEPER).push(group);
    let population = world.spawn((population, Signed::default())).id();
    let mut spawner = Spawner::new(world, population, 0, modules);
    let trees = spawner.spawn_all(world, models);
    spawner.reserve(world, capacity - models);
    spawner.enroll(world, &trees);
    spawner.settle(world);
    Ok(population)
}

/// Spawns `count` more models of the structure of the population's first model, their parameters zero and
/// the settings of their modules those of that model; gives their roots.
///
/// # Errors
///
/// [`SpawnError`]; nothing is spawned then.
pub fn spawn_models(
    world: &mut World,
    population: Entity,
    count: usize,
) -> Result<Vec<Entity>, SpawnError> {
    let found = world.get::<Population>(population);
    let found = found.ok_or(SpawnError::NotAPopulation(population))?;
    let models = found.len().saturating_add(count);
    check_count(models)?;
    sign::refresh(world, population)?;
    check_room(world, population, models)?;
    let mut spawner = like_first(world, population)?;
    let trees = spawner.spawn_all(world, count);
    spawner.enroll(world, &trees);
    spawner.settle(world);
    let roots = trees.iter().map(Tree::root);
    Ok(roots.filter(|&root| world.get::<Model>(root).is_some()).collect())
}

/// Checks that there is room for so many models of the structures that a population has.
pub(crate) fn check_room(
    world: &World,
    population: Entity,
    models: usize,
) -> Result<(), SpawnError> {
    let groups = world.get::<Population>(population).into_iter().flat_map(Population::groups);
    let Some(blueprints) = world.get_resource::<Blueprints>() else { return Ok(()) };
    let mut of = groups.filter_map(|group| blueprints.get(group.blueprint));
    of.try_for_each(|blueprint| Ok(room::check(blueprint, models)?))
}

/// Makes room for as many models of a group as its population's capacity says, after its columns became
/// others. Does nothing if the population has models of other groups too.
pub(crate) fn reserve(world: &mut World, population: Entity) {
    let Some(found) = world.get::<Population>(population) else { return };
    let spare = found.capacity().saturating_sub(found.len());
    if spare > 0
        && found.groups().len() == 1
        && let Ok(mut spawner) = like_first(world, population)
    {
        spawner.reserve(world, spare);
        spawner.settle(world);
    }
}

/// Prepares to spawn models like the first of a population, or like its last one had been.
fn like_first(world: &World, population: Entity) -> Result<Spawner, SpawnError> {
    let empty = SpawnError::Empty(population);
    let found = world.get::<Population>(population).ok_or(empty.clone())?;
    let of = |group: &Group| found.is_empty() || group.members.first() == Some(&0);
    let group = found.groups().iter().position(of).ok_or(empty.clone())?;
    let of = &found.groups()[group];
    let blueprint = world.resource::<Blueprints>().get(of.blueprint).ok_or(empty)?;
    let types = world.resource::<ModuleTypes>();
    let modules = blueprint.positions.iter().zip(&of.modules).map(|(at, entities)| {
        if at.alias.is_some() {
            return None;
        }
        let live = entities.first().and_then(|&entity| world.get_entity(entity).ok());
        let live = live.and_then(|entity| types.module(entity));
        Some(live.unwrap_or(&*at.module).clone_box())
    });
    Ok(Spawner::new(world, population, group, modules.collect()))
}

pub(crate) fn check_count(given: usize) -> Result<(), SpawnError> {
    if given < NOT_A_MEMBER as usize { Ok(()) } else { Err(SpawnError::TooMany { given }) }
}

/// Checks that resources can be inserted: bevy finds one by an entity that it remembers, and panics if that is gone.
fn check_resources(world: &World) -> Result<(), SpawnError> {
    let id = world.component_id::<ModuleTypes>();
    let entity = id.and_then(|id| world.resource_entities().get(id));
    match entity.is_none_or(|entity| world.get_entity(entity).is_ok()) {
        true => Ok(()),
        false => Err(SpawnError::Cleared),
    }
}

fn check_dtype(given: Dtype) -> Result<(), SpawnError> {
    if given.is_float() { Ok(()) } else { Err(SpawnError::Dtype(given)) }
}

/// Checks names as torch's `add_module` does, the parameters' dtypes, and that a model may be so deep and so large.
pub(crate) fn check_declared(module: &dyn DynModule, path: &str) -> Result<(), SpawnError> {
    check_below(module, path, 1, &mut 0)
}

fn check_below(
    module: &dyn DynModule,
    path: &str,
    depth: usize,
    modules: &mut usize,
) -> Result<(), SpawnError> {
    let owner = module.type_name();
    let own_path = || if path.is_empty() { owner.to_owned() } else { path.to_owned() };
    if depth > MAX_DEPTH {
        return Err(SpawnError::Limit { path: own_path(), message: too_deep() });
    }
    *modules += 1;
    if *modules > MAX_MODULES {
        return Err(SpawnError::TooWide);
    }
    let mut declared = Declare::default();
    module.declare(&mut declared);
    declared.takes(0);
    if let Some(message) = declared.refused() {
        return Err(SpawnError::Limit { path: own_path(), message: message.to_owned() });
    }
    if let Some(device @ Device::Cuda(_)) = module.device() {
        return Err(SpawnError::NoDevice { path: own_path(), device });
    }
    let mut learned = declared.parameters.iter().filter(|at| at.requires_grad);
    if let Some(at) = learned.find(|at| at.dtype.is_some_and(|dtype| !dtype.is_float())) {
        return Err(SpawnError::RequiresGrad { path: own_path(), name: at.name.clone() });
    }
    let parameters = declared.parameters.iter().map(|at| (Kind::Parameter, &at.name));
    let buffers = declared.buffers.iter().map(|at| (Kind::Buffer, &at.name));
    let children = declared.children.iter().map(|(name, _)| (Kind::Module, name));
    let shared = declared.shared.iter().map(|share| (Kind::Module, &share.name));
    let mut taken: HashSet<&str> = HashSet::new();
    for (kind, name) in parameters.chain(buffers).chain(children).chain(shared) {
        let is_taken = |name: &str| taken.contains(name) || is_method(owner, name);
        if let Some(message) = wrong_name(kind, owner, name, is_taken) {
            return Err(SpawnError::Name { path: own_path(), message });
        }
        taken.insert(name);
    }
    declared.children.iter().try_for_each(|(name, child)| {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        check_below(&**child, &path, depth + 1, modules)
    })
}

/// Makes the types of a module and of all below it known, and tells what their constructors warn of.
pub(crate) fn register_types(world: &mut World, module: &dyn DynModule) {
    module.plain().register(world);
    let mut declared = Declare::default();
    module.declare(&mut declared);
    let warnings = Warnings::of(world);
    declared.warnings().for_each(|message| warnings.warn(module.type_name(), message));
    declared.children.iter().for_each(|(_, child)| register_types(world, &**child));
}

/// Lists a module and its descendants in the order of positions; `None` for a second name.
pub(crate) fn list_modules(module: &dyn DynModule, list: &mut Vec<Option<Box<dyn DynModule>>>) {
    list.push(Some(module.plain().clone_box()));
    let mut declared = Declare::default();
    module.declare(&mut declared);
    let shared = |place: usize| declared.shared.iter().filter(move |share| share.place == place);
    for (place, (_, child)) in declared.children.iter().enumerate() {
        list.extend(shared(place).map(|_| None));
        list_modules(&**child, list);
    }
    list.extend(shared(declared.children.len()).map(|_| None));
}

/// The entities of one model, by position.
struct Tree(Vec<Entity>);

impl Tree {
    fn root(&self) -> Entity {
        self.0[0]
    }
}

/// Spawns models of one group, one like the other.
struct Spawner {
    population: Entity,
    group: usize,
    blueprint: BlueprintId,
    positions: Vec<Prepared>,
    /// The mode of a new model.
    mode: Mode,
    /// How many changes were on the list before the first model.
    changed_before: usize,
    /// How many changes what was spawned and despawned is told by.
    changes: usize,
}

/// All that the entities of a position have in common.
struct Prepared {
    parent: Option<usize>,
    name: ModuleName,
    /// Its layer component; a second name of another module has none.
    module: Option<Box<dyn DynModule>>,
    /// The position of the module that this is a second name of.
    alias: Option<usize>,
    /// Its tied parameters: a name, the owner's position, and the name there.
    ties: Vec<(String, usize, String)>,
    /// Those of its parameters and buffers that the population shares.
    shared: Vec<Tie>,
    /// Its parameters and buffers, if they are in another order than it declares them in.
    again: Option<RegisteredAgain>,
    /// Its tensors that are made of a length and a direction.
    normed: WeightNormed,
    /// What is registered in it, if it was edited.
    registered: Option<Registered>,
    /// The types of its tensors, where they are not those that its type declares.
    dtypes: Option<Dtypes>,
    contents: Arc<Contents>,
    children: usize,
    /// Made at the first model, since it may register columns.
    columns: Option<RowBundle>,
}

/// Lists the tied parameters of a position; a parameter whose owner is in the same module included.
pub(crate) fn ties(blueprint: &Blueprint, at: &Position) -> Vec<(String, usize, String)> {
    let tied = at.parameters.iter().filter_map(|parameter| {
        let (owner, index) = parameter.tied?;
        let owner_parameter = blueprint.positions[owner].parameters[index].name.clone();
        Some((parameter.name.clone(), owner, owner_parameter))
    });
    tied.collect()
}

/// Lists the parameters and buffers of a position that the population shares, as ties.
pub(crate) fn shared(world: &World, at: &Position) -> Vec<Tie> {
    let of = at.parameters.iter().chain(&at.buffers);
    let ties = of.filter_map(|of| {
        let SharedRow { owner, index } = of.shared?;
        let owner_parameter = world.get::<SharedTensors>(owner)?.get(index)?.name.clone();
        Some(Tie { parameter: of.name.clone(), owner, owner_parameter })
    });
    ties.collect()
}

/// Names the parameters and buffers of a position if the module declares them in another order.
fn registered_again(at: &Position) -> Option<RegisteredAgain> {
    let mut declared = Declare::default();
    at.module.declare(&mut declared);
    let declared: Vec<_> =
        declared.parameters.iter().chain(&declared.buffers).map(|of| &of.name).collect();
    let all = || at.parameters.iter().chain(&at.buffers).map(|of| &of.name);
    let own: Vec<_> = all().filter(|name| declared.contains(name)).collect();
    let is_kept = declared.iter().filter(|name| own.contains(name)).eq(own.iter());
    // What no type declares has a place among the others, too.
    (!is_kept).then(|| RegisteredAgain(all().cloned().collect()))
}

/// Inserts components, unless an observer of the host's has despawned the entity.
fn put(entity: &mut EntityWorldMut<'_>, components: impl Bundle) {
    if !entity.is_despawned() {
        entity.insert(components);
    }
}

impl Prepared {
    fn is_tied(&self) -> bool {
        !(self.ties.is_empty() && self.shared.is_empty())
    }
}

impl Spawner {
    /// Prepares for a group; `modules` are in the order of its positions.
    fn new(
        world: &World,
        population: Entity,
        group: usize,
        modules: Vec<Option<Box<dyn DynModule>>>,
    ) -> Spawner {
        let found = world.get::<Population>(population).expect("the caller found the population");
        let of = &found.groups()[group];
        let blueprint = world.resource::<Blueprints>().get(of.blueprint);
        let blueprint = blueprint.expect("a group holds its blueprint");
        let registered = |modules: &Vec<Entity>| {
            let &first = modules.first()?;
            let mut registered = world.get::<Registered>(first).cloned()?;
            let again = world.get::<RegisteredAgain>(first);
            again.into_iter().for_each(|again| again.sort(&mut registered));
            Some(registered)
        };
        let positions = blueprint.positions.iter().zip(&of.contents).zip(&of.modules).zip(modules);
        let positions = positions.map(|(((at, contents), live), module)| Prepared {
            parent: at.parent,
            name: ModuleName(at.name.as_str().into()),
            module,
            alias: at.alias,
            ties: ties(blueprint, at),
            shared: shared(world, at),
            again: registered_again(at),
            normed: at.weight_normed.clone(),
            registered: registered(live),
            dtypes: match live.first() {
                Some(&first) => world.get::<Dtypes>(first).cloned(),
                None => Dtypes::of(at, found.dtype(), None),
            },
            contents: contents.clone(),
            children: at.children.len(),
            columns: None,
        });
        let changed_before =
            world.get_resource::<ModuleTypes>().map_or(0, |types| types.changed().len());
        Spawner {
            population,
            group,
            blueprint: of.blueprint,
            positions: positions.collect(),
            mode: Mode { frozen: blueprint.frozen(), ..Mode::default() },
            changed_before,
            changes: 0,
        }
    }

    /// Spawns one model that is in no population yet.
    fn spawn(&mut self, world: &mut World) -> Tree {
        let mut entities: Vec<Entity> = Vec::with_capacity(self.positions.len());
        for at in &mut self.positions {
            let is_gone = |&parent: &usize| world.get_entity(entities[parent]).is_err();
            if at.parent.as_ref().is_some_and(is_gone) {
                // An observer of the host's despawned it: so goes the model.
                for entity in entities.iter().rev() {
                    let _ = world.try_despawn(*entity);
                }
                break;
            }
            let columned = Columned::new(at.contents.clone(), KEEPER);
            // Room for children from the start: the first one would move the row of its parent.
            let room = (at.children > 0).then(|| Children::with_capacity(at.children));
            let mut entity = match at.parent {
                None => {
                    let model = Model {
                        population: self.population,
                        number: u64::MAX,
                        index: NOT_A_MEMBER,
                        blueprint: self.blueprint,
                    };
                    let mode = self.mode.clone();
                    match room {
                        Some(room) => world.spawn((columned, model, mode, room)),
                        None => world.spawn((columned, model, mode)),
                    }
                }
                Some(parent) => {
                    let below = (columned, at.name.clone(), ChildOf(entities[parent]));
                    match room {
                        Some(room) => world.spawn((below, room)),
                        None => world.spawn(below),
                    }
                }
            };
            // Before the ties: the owner of a parameter may be in the same module.
            entities.push(entity.id());
            let columns = at.columns.get_or_insert_with(|| {
                let number = Some(at.contents.number);
                entity.world_scope(|world| RowBundle::new(world, at.contents.keys(), number))
            });
            match &at.module {
                Some(module) => module.insert_with(columns, &mut entity),
                None => columns.insert(&mut entity),
            }
            if let Some(alias) = at.alias {
                put(&mut entity, SharedModule(entities[alias]));
            }
            if let Some(again) = &at.again {
                put(&mut entity, again.clone());
            }
            if !at.normed.0.is_empty() {
                put(&mut entity, at.normed.clone());
            }
            if at.is_tied() {
                let tie = |(parameter, owner, owner_parameter): &(String, usize, String)| Tie {
                    parameter: parameter.clone(),
                    owner: entities[*owner],
                    owner_parameter: owner_parameter.clone(),
                };
                let ties = at.ties.iter().map(tie).chain(at.shared.iter().cloned());
                put(&mut entity, Ties(ties.collect()));
            }
            if let Some(registered) = &at.registered {
                put(&mut entity, registered.clone());
            }
            if let Some(dtypes) = &at.dtypes {
                put(&mut entity, dtypes.clone());
            }
            if let Some(module) = at.module.as_ref().filter(|_| !entity.is_despawned()) {
                module.constructed(&mut entity);
            }
        }
        Tree(entities)
    }

    /// Counts what the modules of a model have beside their layers and names, and are told of by.
    fn extras(&self) -> usize {
        let of = |at: &Prepared| {
            let (registered, dtypes) = (at.registered.is_some(), at.dtypes.is_some());
            [at.is_tied(), at.again.is_some(), !at.normed.0.is_empty(), registered, dtypes]
        };
        self.positions.iter().flat_map(of).filter(|is_there| *is_there).count()
    }

    fn spawn_all(&mut self, world: &mut World, count: usize) -> Vec<Tree> {
        // Each module is told of by its component, all but the root by their names, some by extras.
        self.changes += count * (2 * self.positions.len() - 1 + self.extras());
        (0..count).map(|_| self.spawn(world)).collect()
    }

    /// Makes room in the tables for `spare` more models.
    fn reserve(&mut self, world: &mut World, spare: usize) {
        let trees = self.spawn_all(world, spare);
        self.changes += spare * (self.positions.len() + self.extras());
        for tree in trees.iter().rev() {
            let _ = world.try_despawn(tree.root());
        }
    }

    /// Returns whether the population still has the group that was prepared for: observers may have changed it.
    fn has_group(&self, world: &World) -> bool {
        let groups = world.get::<Population>(self.population).map(Population::groups);
        groups.and_then(|groups| groups.get(self.group)).is_some_and(|group| {
            let mut contents = group.contents.iter().zip(&self.positions);
            group.blueprint == self.blueprint
                && contents.all(|(own, at)| Arc::ptr_eq(own, &at.contents))
        })
    }

    /// Makes spawned models members of the population; of its group, or else they have yet to be signed.
    fn enroll(&self, world: &mut World, trees: &[Tree]) {
        let has_group = self.has_group(world);
        for tree in trees {
            let root = tree.root();
            if world.get::<Model>(root).is_none() {
                // An observer of the host's despawned it.
                continue;
            }
            let Some(mut population) = world.get_mut::<Population>(self.population) else {
                return;
            };
            let (index, number) = population.enroll(root, KEEPER);
            if has_group {
                population.add_member(self.group, index, &tree.0, KEEPER);
            } else {
                population.defer(root, KEEPER);
            }
            if let Some(mut model) = world.get_mut::<Model>(root) {
                (model.index, model.number) = (index, number);
                model.blueprint = if has_group { self.blueprint } else { Blueprint::UNSIGNED };
            }
        }
    }

    /// Forgets what was told of modules since this was made, for they are signed by construction: unless
    /// observers of the host's did more, for then everything is looked at again.
    fn settle(&self, world: &mut World) {
        let Some(mut types) = world.get_resource_mut::<ModuleTypes>() else { return };
        if types.changed().len() == self.changed_before + self.changes {
            types.changed_mut(KEEPER).truncate(self.changed_before);
            sign::look_away(world, self.population);
        }
    }
}
