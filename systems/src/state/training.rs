//! What training has come to beside the parameters: all that decides the next numbers, the state of optimizers and
//! schedulers above all. As tensors, which [`safetensors`](super::safetensors) writes and reads, of one model or stacked.
//!
//! | name                                  | what                                                             |
//! |---------------------------------------|------------------------------------------------------------------|
//! | `optimizer.state.INDEX.NAME`          | a state of a parameter, by torch's index and name                |
//! | `optimizer.has_state`                 | which parameters have a state                                    |
//! | `optimizer.param_groups.GROUP.NAME`   | a number of an optimizer, such as `lr`                           |
//! | `lr_scheduler.PLACE.NAME`             | a number of a scheduler: [`Scheduler::state_dict`]               |
//! | `lbfgs.NAME`                          | what `LBFGS` keeps, by torch's names                             |
//! | `grad_scaler.NAME`                    | what a `GradScaler` has                                          |
//! | `number`, `draws`                     | the model's number, and how often it has run a program that draws random numbers |
//! | `modes.NAME`                          | which modules are in training mode, which parameters require gradients, whether the model is active |
//! | `has_gradient`, `gradient.NAME`       | gradients that wait for a step, if there are any                 |
//! | `buffer.NAME`                         | a buffer that no state dict has                                  |
//! | `settings.NAME`                       | a hash of the settings of each module, optimizer and scheduler   |
//! | `seed`                                | the population's seed, beside one model                          |
//! | `population.NAME`                     | beside all models: what the population has; without an axis of models |
//!
//! Groups and places follow the tree. What is structure (flags, a schedule's settings) is checked, not changed: modules,
//! optimizers and schedulers are inserted first, as in torch. So training goes on bit for bit as if it had never ended, or
//! is told what differs. A model that is loaded alone keeps its population's seed, which has to be the same.

mod error;
mod population;
mod settings;
mod source;
mod standing;

use std::collections::HashMap;

use bevy_ecs::prelude::*;
use ndarray::arr0;
use neurarch_components::optimizer::{LBFGS, LbfgsState};
use neurarch_components::population::Population;
use neurarch_components::population::tree::Model;
use neurarch_components::scheduler::Scheduler;
use neurarch_components::state::Tensor;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::lbfgs::Lbfgs;

pub use self::error::TrainingStateError;
use self::settings::Settings;
use self::source::Source;
use self::standing::Standing;
use super::load::slice_of;
use crate::errors::{AccessError, SignError};
use crate::optim::state_dict::{
    self, OptimizerStateDict, Precision, check_optimizer_state_dict, optimizer_state_dict,
};
use crate::structure::traverse::Listing;
use crate::structure::{sign, traverse};

/// Lists what the training of a model, given by its root, or of all models of a population, stacked by their index,
/// has come to.
///
/// # Errors
///
/// If `entity` is neither, or the models of a population do not have the same tensors.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::{layers::Linear, optimizer::Adam};
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::optim::insert::insert_with;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// use neurarch_systems::state::training::{load_training_state, training_state};
///
/// # let mut world = World::new();
/// let brains = spawn_population(&mut world, &Linear::new(4, 2), 3, 3, 7, Dtype::F32)?;
/// insert_with(&mut world, brains, |model| Adam { lr: 0.1 * model as f64, ..Adam::default() })?;
/// let saved = training_state(&mut world, brains)?; // safetensors::save(path, &saved) writes it.
/// insert_with(&mut world, brains, |_| Adam::default())?;
/// load_training_state(&mut world, brains, &saved)?;
/// let rates: Vec<_> = world.query::<&Adam>().iter(&world).map(|adam| adam.lr).collect();
/// assert_eq!(rates, [0.0, 0.1, 0.2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `optimizer.state_dict()` and `scheduler.state_dict()` of a checkpoint.
pub fn training_state(
    world: &mut World,
    entity: Entity,
) -> Result<Vec<Tensor>, TrainingStateError> {
    let Some(roots) = roots(world, entity)? else {
        let mut tensors = of_model(world, entity, standing::has_gradients(world, entity))?;
        tensors.push(Tensor::new("seed", arr0(seed(world, entity)? as i64).view()));
        return Ok(tensors);
    };
    let with_gradients = roots.iter().any(|&root| standing::has_gradients(world, root));
    let all = roots.iter().map(|&root| of_model(world, root, with_gradients));
    let mut tensors = stack(all.collect::<Result<Vec<_>, _>>()?)?;
    tensors.extend(population::list(world, entity)?);
    Ok(tensors)
}

/// Stacks the tensors of models. What a parameter has no state of, as one that is frozen, is zeros.
fn stack(models: Vec<Vec<Tensor>>) -> Result<Vec<Tensor>, TrainingStateError> {
    let mut like: Vec<&Tensor> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for tensor in models.iter().flatten() {
        places.entry(&tensor.name).or_insert_with(|| {
            like.push(tensor);
            like.len() - 1
        });
    }
    let mut stacked = vec![Vec::new(); like.len()];
    for (number, model) in models.iter().enumerate() {
        for tensor in model {
            let place = places[tensor.name.as_str()];
            let first = like[place];
            if (tensor.dtype(), tensor.shape()) != (first.dtype(), first.shape()) {
                return Err(TrainingStateError::Mixed { name: tensor.name.clone() });
            }
            let row = tensor.little_endian();
            stacked[place].resize(number * row.len(), 0);
            stacked[place].extend(row);
        }
    }
    let n_models = models.len();
    let stacked = like.into_iter().zip(stacked).map(|(first, mut bytes)| {
        let is_there = |model: &Vec<Tensor>| model.iter().any(|of| of.name == first.name);
        if !first.name.starts_with(OPTIMIZER_STATE) && !models.iter().all(is_there) {
            return Err(TrainingStateError::Mixed { name: first.name.clone() });
        }
        bytes.resize(n_models * first.little_endian().len(), 0);
        let shape = [n_models].into_iter().chain(first.shape().iter().copied()).collect();
        Ok(Tensor::from_little_endian(first.name.clone(), first.dtype(), shape, bytes))
    });
    stacked.collect()
}

/// Goes on where the training of a model, or of the models of a population, was.
///
/// # Errors
///
/// If `entity` is neither, or anything differs by which training would go on otherwise: it has not the modules,
/// optimizers and schedulers of which `tensors` are, or, beside other models, another seed or a number that one of them
/// has.
///
/// Source: `optimizer.load_state_dict` and `scheduler.load_state_dict`, and `torch.set_rng_state`. Modes are not part of
/// torch's state.
pub fn load_training_state(
    world: &mut World,
    entity: Entity,
    tensors: &[Tensor],
) -> Result<(), TrainingStateError> {
    let (whole, tensors): (Vec<_>, Vec<_>) =
        tensors.iter().cloned().partition(|tensor| tensor.name.starts_with(population::START));
    let mut state = None;
    let loads = match roots(world, entity)? {
        None => {
            let source = Source::new(&tensors);
            let load = Load::new(world, entity, &source)?;
            check_place(world, &load, &source)?;
            source.check_all_read(&whole)?;
            vec![load]
        }
        Some(roots) => {
            let models = roots.len();
            let wrong = tensors.iter().find(|tensor| tensor.shape().first() != Some(&models));
            if let Some(tensor) = wrong {
                let (name, given) = (tensor.name.clone(), tensor.shape().to_vec());
                return Err(TrainingStateError::Models { name, expected: models, given });
            }
            let load = |(model, root): (usize, Entity)| {
                let own: Vec<_> = tensors.iter().map(|tensor| slice_of(tensor, model)).collect();
                let source = Source::new(&own);
                let load = Load::new(world, root, &source)?;
                source.check_all_read(&[])?;
                Ok(load)
            };
            let loads = roots.into_iter().enumerate().map(load);
            let loads = loads.collect::<Result<Vec<_>, TrainingStateError>>()?;
            let source = Source::new(&whole);
            state = Some(population::State::read(world, entity, &source)?);
            source.check_all_read(&[])?;
            loads
        }
    };
    loads.into_iter().try_for_each(|load| load.apply(world))?;
    if let Some(state) = state {
        state.apply(world);
    }
    Ok(())
}

/// Returns the seed of the population that the model at `root` is of.
fn seed(world: &World, root: Entity) -> Result<u64, AccessError> {
    let model = world.get::<Model>(root).ok_or(AccessError::NotAModel(root))?;
    let population = world.get::<Population>(model.population);
    Ok(population.ok_or(AccessError::NotAModel(root))?.seed)
}

/// Checks that a model which is loaded by itself can draw the numbers that the saved one would have drawn.
fn check_place(world: &World, load: &Load, source: &Source<'_>) -> Result<(), TrainingStateError> {
    let (expected, given) = (seed(world, load.root)?, source.array::<i64>("seed", &[])?[0] as u64);
    if expected != given {
        return Err(TrainingStateError::Seed { expected, given });
    }
    let number = load.standing.number;
    let population = world.get::<Model>(load.root).map(|model| model.population);
    let population = population.and_then(|population| world.get::<Population>(population));
    let mut others = population.into_iter().flat_map(Population::models);
    let has_it = |&root: &Entity| {
        root != load.root && world.get::<Model>(root).is_some_and(|model| model.number == number)
    };
    match others.any(has_it) {
        true => Err(TrainingStateError::Number { number }),
        false => Ok(()),
    }
}

/// Lists the models of a population; `None` if the entity is none.
fn roots(world: &mut World, entity: Entity) -> Result<Option<Vec<Entity>>, SignError> {
    if world.get::<Population>(entity).is_none() {
        return Ok(None);
    }
    sign::refresh(world, entity)?;
    Ok(world.get::<Population>(entity).map(|found| found.models().to_vec()))
}

fn renamed(tensor: &Tensor, name: String) -> Tensor {
    let mut tensor = tensor.clone();
    tensor.name = name;
    tensor
}

fn of_model(
    world: &mut World,
    root: Entity,
    with_gradients: bool,
) -> Result<Vec<Tensor>, TrainingStateError> {
    let dict = optimizer_state_dict(world, root)?;
    let number = |name: String, number: f64| Tensor::new(name, arr0(number).view());
    let mut tensors = Vec::new();
    for (index, states) in &dict.state {
        let name = |state: &Tensor| format!("{OPTIMIZER_STATE}{index}.{}", state.name);
        tensors.extend(states.iter().map(|state| renamed(state, name(state))));
    }
    let has_state = indices(&dict).map(|index| u8::from(dict.state.contains_key(&index)));
    let has_state: Vec<_> = has_state.collect();
    if !has_state.is_empty() {
        let shape = vec![has_state.len()];
        tensors.push(Tensor::from_native(HAS_STATE.to_owned(), Dtype::Bool, shape, has_state));
    }
    for (name, value) in numbers(&dict) {
        tensors.push(number(name, value));
    }
    let schedulers = schedulers(world, root)?;
    for (place, (_, scheduler)) in schedulers.iter().enumerate() {
        let state = scheduler.state_dict().into_iter();
        tensors.extend(state.map(|(name, of)| number(format!("lr_scheduler.{place}.{name}"), of)));
    }
    for (name, shape, numbers) in world.get::<LbfgsState>(root).iter().flat_map(|of| of.0.state()) {
        let bytes = bytemuck::cast_slice(&numbers).to_vec();
        tensors.push(Tensor::from_native(format!("{LBFGS_STATE}{name}"), Dtype::F64, shape, bytes));
    }
    tensors.extend(standing::list(world, root, with_gradients)?);
    let settings = Settings::of(world, root, &dict, &schedulers)?;
    tensors.extend(settings.iter().filter_map(Settings::tensor));
    Ok(tensors)
}

/// What the names of the states of optimizers begin with.
const OPTIMIZER_STATE: &str = "optimizer.state.";
/// Which parameters have a state.
const HAS_STATE: &str = "optimizer.has_state";

/// Lists the indices of all parameters that optimizers update.
fn indices(dict: &OptimizerStateDict) -> std::ops::Range<usize> {
    0..dict.param_groups.iter().map(|group| group.params.len()).sum()
}

/// Lists the numbers of the optimizers by their names in the file.
fn numbers(dict: &OptimizerStateDict) -> Vec<(String, f64)> {
    let groups = dict.param_groups.iter().enumerate();
    let of_group = groups.flat_map(|(place, group)| {
        group.optimizer.scalar_names().iter().filter_map(move |name| {
            let number = group.optimizer.scalar(name)?;
            Some((format!("optimizer.param_groups.{place}.{name}"), number))
        })
    });
    of_group.collect()
}

/// Copies the schedulers of a model, those higher in the tree first.
fn schedulers(
    world: &mut World,
    root: Entity,
) -> Result<Vec<(Entity, Scheduler)>, TrainingStateError> {
    let modules = traverse::named_modules(world, root, Listing::default())?.into_iter();
    let of = |(_, module)| Some((module, world.get::<Scheduler>(module)?.clone()));
    Ok(modules.filter_map(of).collect())
}

/// What is written into one model, after it was checked.
struct Load {
    root: Entity,
    optimizers: OptimizerStateDict,
    schedulers: Vec<(Entity, Scheduler)>,
    lbfgs: Option<LbfgsState>,
    standing: Standing,
}

/// What the names of the state of [`LBFGS`] begin with.
const LBFGS_STATE: &str = "lbfgs.";

impl Load {
    fn new(
        world: &mut World,
        root: Entity,
        source: &Source<'_>,
    ) -> Result<Self, TrainingStateError> {
        let tensors = source.tensors;
        let mut optimizers = optimizer_state_dict(world, root)?;
        optimizers.state.clear();
        for (place, group) in optimizers.param_groups.iter_mut().enumerate() {
            for name in group.optimizer.scalar_names() {
                if let Some(scalar) = group.optimizer.scalar_mut(name) {
                    *scalar = source.number(&format!("optimizer.param_groups.{place}.{name}"))?;
                }
            }
        }
        let mut schedulers = schedulers(world, root)?;
        for (place, (_, scheduler)) in schedulers.iter_mut().enumerate() {
            let start = format!("lr_scheduler.{place}.");
            let own = tensors.iter().filter_map(|of| of.name.strip_prefix(&start));
            let number = |name: &str| source.number(&format!("{start}{name}"));
            let state = own.map(|name| Ok((name.to_owned(), number(name)?)));
            let state = state.collect::<Result<Vec<_>, TrainingStateError>>()?;
            let loaded = scheduler.load_state_dict(&state);
            loaded.map_err(|source| TrainingStateError::Scheduler { place, source })?;
        }
        let of_lbfgs = |tensor: &&Tensor| tensor.name.starts_with(LBFGS_STATE);
        let lbfgs = match tensors.iter().find(of_lbfgs) {
            Some(first) => Some(lbfgs(world, root, source, first)?),
            None => None,
        };
        let of_optimizers = tensors.iter().filter_map(|tensor| {
            Some((tensor, tensor.name.strip_prefix(OPTIMIZER_STATE)?.split_once('.')?))
        });
        let has_state = match indices(&optimizers).len() {
            0 => Vec::new(),
            all => source.bytes(HAS_STATE, Dtype::Bool, &[all])?,
        };
        for (tensor, (index, name)) in of_optimizers {
            let unexpected = || TrainingStateError::Unexpected(tensor.name.clone());
            let index: usize = index.parse().map_err(|_| unexpected())?;
            source.tensor(&tensor.name)?;
            let groups = optimizers.param_groups.iter();
            let is_kept = groups.filter(|group| group.params.contains(&index)).any(|group| {
                let states = 0..group.optimizer.states().len();
                // The names of what is kept depend on the number of axes.
                let kept = |state, shape: &[usize]| {
                    group.optimizer.state_entry(state, shape).is_some_and(|kept| kept.name == name)
                };
                let mut ranks = [&[][..], &[1], &[1, 1]].into_iter();
                let has_step = name == "step" && group.optimizer.keeps_step();
                has_step || ranks.any(|shape| states.clone().any(|state| kept(state, shape)))
            });
            if !is_kept {
                return Err(unexpected());
            }
            if has_state.get(index) == Some(&0) {
                continue;
            }
            let state = renamed(tensor, name.to_owned());
            optimizers.state.entry(index).or_default().push(state);
        }
        check_optimizer_state_dict(world, root, &optimizers)?;
        let standing = Standing::read(world, root, source)?;
        for settings in Settings::of(world, root, &optimizers, &schedulers)? {
            settings.check(source)?;
        }
        Ok(Load { root, optimizers, schedulers, lbfgs, standing })
    }

    fn apply(self, world: &mut World) -> Result<(), TrainingStateError> {
        state_dict::load(world, self.root, &self.optimizers, Precision::AsSaved)?;
        for (module, scheduler) in self.schedulers {
            if let Ok(mut module) = world.get_entity_mut(module) {
                module.insert(scheduler);
            }
        }
        if let Ok(mut root) = world.get_entity_mut(self.root) {
            match self.lbfgs {
                Some(state) => drop(root.insert(state)),
                None => drop(root.remove::<LbfgsState>()),
            }
        }
        self.standing.apply(world)
    }
}

/// Reads what [`LBFGS`] keeps; `first` is one of its tensors.
fn lbfgs(
    world: &mut World,
    root: Entity,
    source: &Source<'_>,
    first: &Tensor,
) -> Result<LbfgsState, TrainingStateError> {
    let unexpected = || TrainingStateError::Unexpected(first.name.clone());
    world.get::<LBFGS>(root).ok_or_else(unexpected)?;
    let parameters = traverse::named_parameters(world, root, Listing::default())?;
    let n = parameters.iter().map(|of| of.ty.shape.numel()).sum();
    let numbers = |name: &str| {
        let tensor = source.tensor(&format!("{LBFGS_STATE}{name}")).ok()?;
        Some(tensor.cast(Dtype::F64).to_array::<f64>()?.into_iter().collect())
    };
    Lbfgs::from_state(n, numbers).map(LbfgsState).ok_or_else(unexpected)
}
