//! What training has come to beside the parameters: the state of optimizers and schedulers, and how many random
//! numbers were drawn. As tensors, which [`safetensors`](super::safetensors) writes and reads, of one model or stacked.
//!
//! | name                                  | what                                                             |
//! |---------------------------------------|------------------------------------------------------------------|
//! | `optimizer.state.INDEX.NAME`          | a state of a parameter, by torch's index and name                |
//! | `optimizer.param_groups.GROUP.NAME`   | a number of an optimizer, such as `lr`                           |
//! | `lr_scheduler.PLACE.NAME`             | a number of a scheduler: [`Scheduler::state_dict`]               |
//! | `lbfgs.NAME`                          | what `LBFGS` keeps, by torch's names                             |
//! | `draws`                               | how often the model has run a program that draws random numbers  |
//!
//! Groups and places follow the tree. What is structure (flags, a schedule's settings) is not there: optimizers and
//! schedulers are inserted first, as in torch.

use std::collections::BTreeSet;

use bevy_ecs::prelude::*;
use ndarray::arr0;
use neurarch_components::mode::Draws;
use neurarch_components::optimizer::{LBFGS, LbfgsState};
use neurarch_components::population::Population;
use neurarch_components::scheduler::{Scheduler, SchedulerError};
use neurarch_components::state::Tensor;
use neurarch_kernels::dtype::Dtype;
use neurarch_kernels::lbfgs::Lbfgs;

use super::load::slice_of;
use crate::access::AccessError;
use crate::optim::state_dict::{
    OptimizerStateDict, OptimizerStateError, check_optimizer_state_dict, load_optimizer_state_dict,
    optimizer_state_dict,
};
use crate::sign::{self, SignError};
use crate::traverse::{self, Listing};

/// Why what training has come to cannot be read or loaded. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingStateError {
    /// The entity is neither a population nor the root of a model.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A model's tree is no model.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The state of the optimizers does not fit.
    #[error(transparent)]
    Optimizer(#[from] OptimizerStateError),
    /// The state of a scheduler does not fit.
    #[error("lr_scheduler {place}: {source}")]
    Scheduler {
        /// Its place among the model's schedulers.
        place: usize,
        /// Why.
        source: SchedulerError,
    },
    /// A tensor is not there.
    #[error("the training state has no {0}")]
    Missing(String),
    /// A tensor is of nothing that the model has.
    #[error("the training state has {0}, for which the model has no optimizer or scheduler")]
    Unexpected(String),
    /// Models do not have it alike, so that it cannot be stacked.
    #[error("{name} is not in all models of the population: save each by itself")]
    Mixed {
        /// Its name.
        name: String,
    },
    /// A stacked tensor is for another number of models.
    #[error("{name}: expected numbers for {expected} models, got shape {given:?}")]
    Models {
        /// Its name.
        name: String,
        /// How many models the population has.
        expected: usize,
        /// Its shape.
        given: Vec<usize>,
    },
}

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
/// # use neurarch_kernels::dtype::Dtype;
/// # use neurarch_systems::{insert::insert_with, spawn::spawn_population};
/// use neurarch_systems::state::training::{load_training_state, training_state};
///
/// # let mut world = World::new();
/// let brains = spawn_population(&mut world, &Linear::new(4, 2), 3, 3, 7, Dtype::F32)?;
/// insert_with(&mut world, brains, "", |model| Adam { lr: 0.1 * model as f64, ..Adam::default() })?;
/// let saved = training_state(&mut world, brains)?; // safetensors::save(path, &saved) writes it.
/// insert_with(&mut world, brains, "", |_| Adam::default())?;
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
    let Some(roots) = roots(world, entity)? else { return of_model(world, entity) };
    let mut stacked: Vec<(Tensor, Vec<u8>)> = Vec::new();
    for (number, &root) in roots.iter().enumerate() {
        let tensors = of_model(world, root)?;
        if number == 0 {
            stacked = tensors.into_iter().map(|tensor| (tensor, Vec::new())).collect();
            stacked.iter_mut().for_each(|(first, bytes)| *bytes = first.to_native());
            continue;
        }
        let like = |a: &Tensor, b: &Tensor| {
            (&a.name, a.dtype(), a.shape()) == (&b.name, b.dtype(), b.shape())
        };
        let differing = tensors.iter().zip(&stacked).find(|(own, (first, _))| !like(own, first));
        let longer = tensors.get(stacked.len()).or(stacked.get(tensors.len()).map(|(of, _)| of));
        if let Some(of) = differing.map(|(own, _)| own).or(longer) {
            return Err(TrainingStateError::Mixed { name: of.name.clone() });
        }
        for (own, (_, bytes)) in tensors.iter().zip(&mut stacked) {
            bytes.extend(own.to_native());
        }
    }
    let joined = stacked.into_iter().map(|(first, bytes)| {
        let shape = [roots.len()].into_iter().chain(first.shape().iter().copied()).collect();
        Tensor::from_native(first.name.clone(), first.dtype(), shape, bytes)
    });
    Ok(joined.collect())
}

/// Goes on where the training of a model, or of the models of a population, was.
///
/// # Errors
///
/// If `entity` is neither, or it has not the optimizers and schedulers of which `tensors` are.
///
/// Source: `optimizer.load_state_dict` and `scheduler.load_state_dict`.
pub fn load_training_state(
    world: &mut World,
    entity: Entity,
    tensors: &[Tensor],
) -> Result<(), TrainingStateError> {
    let loads = match roots(world, entity)? {
        None => vec![Load::new(world, entity, tensors)?],
        Some(roots) => {
            let models = roots.len();
            let wrong = tensors.iter().find(|tensor| tensor.shape().first() != Some(&models));
            if let Some(tensor) = wrong {
                let (name, given) = (tensor.name.clone(), tensor.shape().to_vec());
                return Err(TrainingStateError::Models { name, expected: models, given });
            }
            let load = |(model, root): (usize, Entity)| {
                let own: Vec<_> = tensors.iter().map(|tensor| slice_of(tensor, model)).collect();
                Load::new(world, root, &own)
            };
            roots.into_iter().enumerate().map(load).collect::<Result<Vec<_>, _>>()?
        }
    };
    loads.into_iter().try_for_each(|load| load.apply(world))
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

fn of_model(world: &mut World, root: Entity) -> Result<Vec<Tensor>, TrainingStateError> {
    let dict = optimizer_state_dict(world, root)?;
    let number = |name: String, number: f64| Tensor::new(name, arr0(number).view());
    let mut tensors = Vec::new();
    for (index, states) in &dict.state {
        let name = |state: &Tensor| format!("optimizer.state.{index}.{}", state.name);
        tensors.extend(states.iter().map(|state| renamed(state, name(state))));
    }
    for (name, value) in numbers(&dict) {
        tensors.push(number(name, value));
    }
    for (place, (_, scheduler)) in schedulers(world, root)?.into_iter().enumerate() {
        let state = scheduler.state_dict().into_iter();
        tensors.extend(state.map(|(name, of)| number(format!("lr_scheduler.{place}.{name}"), of)));
    }
    for (name, shape, numbers) in world.get::<LbfgsState>(root).iter().flat_map(|of| of.0.state()) {
        let bytes = bytemuck::cast_slice(&numbers).to_vec();
        tensors.push(Tensor::from_native(format!("{LBFGS_STATE}{name}"), Dtype::F64, shape, bytes));
    }
    let draws = world.get::<Draws>(root).map_or(0, |draws| draws.0);
    tensors.push(Tensor::new("draws", arr0(draws as i64).view()));
    Ok(tensors)
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
    draws: u64,
}

/// What the names of the state of [`LBFGS`] begin with.
const LBFGS_STATE: &str = "lbfgs.";

impl Load {
    fn new(
        world: &mut World,
        root: Entity,
        tensors: &[Tensor],
    ) -> Result<Self, TrainingStateError> {
        let mut read = BTreeSet::new();
        let mut number = |name: &str| {
            let tensor = tensors.iter().find(|tensor| tensor.name == name);
            let number =
                tensor.and_then(|of| of.cast(Dtype::F64).to_array::<f64>()?.first().copied());
            read.insert(name.to_owned());
            number.ok_or_else(|| TrainingStateError::Missing(name.to_owned()))
        };
        let mut optimizers = optimizer_state_dict(world, root)?;
        optimizers.state.clear();
        for (place, group) in optimizers.param_groups.iter_mut().enumerate() {
            for name in group.optimizer.scalar_names() {
                if let Some(scalar) = group.optimizer.scalar_mut(name) {
                    *scalar = number(&format!("optimizer.param_groups.{place}.{name}"))?;
                }
            }
        }
        let mut schedulers = schedulers(world, root)?;
        for (place, (_, scheduler)) in schedulers.iter_mut().enumerate() {
            let start = format!("lr_scheduler.{place}.");
            let own = tensors.iter().filter_map(|of| of.name.strip_prefix(&start));
            let state = own.map(|name| Ok((name.to_owned(), number(&format!("{start}{name}"))?)));
            let state = state.collect::<Result<Vec<_>, TrainingStateError>>()?;
            let loaded = scheduler.load_state_dict(&state);
            loaded.map_err(|source| TrainingStateError::Scheduler { place, source })?;
        }
        let draws = number("draws")? as u64;
        let of_lbfgs = |tensor: &&Tensor| tensor.name.starts_with(LBFGS_STATE);
        let lbfgs = match tensors.iter().find(of_lbfgs) {
            Some(first) => Some(lbfgs(world, root, tensors, first)?),
            None => None,
        };
        let others = tensors.iter().filter(|tensor| !of_lbfgs(tensor));
        for tensor in others.filter(|tensor| !read.contains(&tensor.name)) {
            let unexpected = || TrainingStateError::Unexpected(tensor.name.clone());
            let of = tensor.name.strip_prefix("optimizer.state.").and_then(|of| of.split_once('.'));
            let (index, name) = of.ok_or_else(unexpected)?;
            let index: usize = index.parse().map_err(|_| unexpected())?;
            let groups = optimizers.param_groups.iter();
            let is_kept = groups.filter(|group| group.params.contains(&index)).any(|group| {
                let states = 0..group.optimizer.states().len();
                // The names of what is kept depend on the number of axes.
                let kept = |state, shape: &[usize]| {
                    group.optimizer.kept(state, shape).is_some_and(|kept| kept.name == name)
                };
                let mut ranks = [&[][..], &[1], &[1, 1]].into_iter();
                let has_step = name == "step" && group.optimizer.keeps_step();
                has_step || ranks.any(|shape| states.clone().any(|state| kept(state, shape)))
            });
            if !is_kept {
                return Err(unexpected());
            }
            let state = renamed(tensor, name.to_owned());
            optimizers.state.entry(index).or_default().push(state);
        }
        check_optimizer_state_dict(world, root, &optimizers)?;
        Ok(Load { root, optimizers, schedulers, lbfgs, draws })
    }

    fn apply(self, world: &mut World) -> Result<(), TrainingStateError> {
        load_optimizer_state_dict(world, self.root, &self.optimizers)?;
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
        if let Some(mut draws) = world.get_mut::<Draws>(self.root) {
            draws.0 = self.draws;
        }
        Ok(())
    }
}

/// Reads what [`LBFGS`] keeps; `first` is one of its tensors.
fn lbfgs(
    world: &mut World,
    root: Entity,
    tensors: &[Tensor],
    first: &Tensor,
) -> Result<LbfgsState, TrainingStateError> {
    let unexpected = || TrainingStateError::Unexpected(first.name.clone());
    world.get::<LBFGS>(root).ok_or_else(unexpected)?;
    let parameters = traverse::named_parameters(world, root, Listing::default())?;
    let n = parameters.iter().map(|of| of.ty.shape.numel()).sum();
    let numbers = |name: &str| {
        let name = format!("{LBFGS_STATE}{name}");
        let tensor = tensors.iter().find(|tensor| tensor.name == name)?;
        Some(tensor.cast(Dtype::F64).to_array::<f64>()?.into_iter().collect())
    };
    Lbfgs::from_state(n, numbers).map(LbfgsState).ok_or_else(unexpected)
}
