//! Perturbation: normal noise on parameters.

use bevy_ecs::prelude::*;
use neurarch_components::module::blueprint::Blueprint;
use neurarch_components::module::mode::Mode;
use neurarch_components::population::blueprints::Blueprints;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::program::{Scalar, ScalarOf};
use neurarch_kernels::ir::trace::Trace;
use neurarch_kernels::plan::{Plan, PlanOptions};

use super::EvolveError;
use super::family::{advance, group, keys, signed};
use crate::errors::SignError;
use crate::storage::bind::Located;
use crate::storage::launch::{Job, launch_alone};
use crate::storage::members::listed;

/// How a model's parameters are changed at random.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// The standard deviation of the normal numbers that are added; 0 leaves the model as it is.
    pub std: f64,
    /// The probability with which an element changes: the mutation rate.
    pub rate: f64,
}

impl Noise {
    /// Changes every element, by normal numbers of that standard deviation.
    pub fn normal(std: f64) -> Noise {
        Noise { std, rate: 1.0 }
    }

    /// Checks that it can be drawn, for the model of that index.
    pub(super) fn check(self, model: usize) -> Result<(), EvolveError> {
        let Noise { std, rate } = self;
        if !(std.is_finite() && std >= 0.0) {
            return Err(EvolveError::Std { model, std });
        }
        match (0.0..=1.0).contains(&rate) {
            true => Ok(()),
            false => Err(EvolveError::Rate { model, rate }),
        }
    }
}

/// Adds normal noise to the parameters of all models: `p + std · n`, with `n` from the standard normal
/// distribution, where an element is chosen.
///
/// `noise` gives each model's, by its index; `is_chosen` says by their dotted names which parameters
/// change. Buffers, gradients and optimizer state stay, what the population shares, and inactive models. Whether a parameter requires a
/// gradient does not matter.
///
/// The numbers follow from the population's seed, the model's number, the parameter, and how often the model
/// has drawn random numbers, which every call counts: so two calls draw different numbers, and a model draws
/// the same alone or among others, on any number of threads. To repeat a call, put the models'
/// [`Draws`](neurarch_components::module::mode::Draws) back.
///
/// # Errors
///
/// [`EvolveError`], for a standard deviation that is negative or not finite, a rate outside `[0, 1]`, or a parameter
/// that changes and whose shape is not known yet.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::Linear;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::access;
/// # use neurarch_systems::evolve;
/// # use neurarch_systems::evolve::Noise;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let layers = spawn_population(&mut world, &Linear::new(8, 8), 3, 3, 7, Dtype::F32)?;
/// let noise = |model| Noise::normal(if model == 0 { 0.0 } else { 0.1 });
/// evolve::perturb(&mut world, layers, noise, |name| name == "weight")?;
/// let weights = access::stack::<f32>(&mut world, layers, "weight", None)?;
/// assert!(weights.outer_iter().next().unwrap().iter().all(|&x| x == 0.0));
/// assert!(weights.outer_iter().skip(1).flatten().all(|&x| x != 0.0 && x.abs() < 0.7));
/// let biases = access::stack::<f32>(&mut world, layers, "bias", None)?;
/// assert!(biases.iter().all(|&x| x == 0.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: the mutation of evolution strategies, in torch `p.add_(torch.randn_like(p) * std)`; the random
/// numbers are others.
pub fn perturb(
    world: &mut World,
    population: Entity,
    noise: impl Fn(usize) -> Noise,
    is_chosen: impl Fn(&str) -> bool,
) -> Result<(), EvolveError> {
    let found = signed(world, population)?;
    let models = found.len();
    let groups = found.groups().len();
    let noises: Vec<Noise> = (0..models).map(noise).collect();
    noises.iter().enumerate().try_for_each(|(model, noise)| noise.check(model))?;
    let mut plans = Vec::with_capacity(groups);
    for number in 0..groups {
        let of = group(world, population, number).filter(|of| !of.members.is_empty());
        let blueprint = of.and_then(|of| world.resource::<Blueprints>().get(of.blueprint));
        plans.push(blueprint.map_or(Ok(None), |blueprint| plan(blueprint, &is_chosen))?);
    }
    for (number, plan) in plans.iter().enumerate() {
        if let Some(plan) = plan {
            run(world, population, number, plan, &noises)?;
        }
    }
    Ok(())
}

/// Adds noise to the models of a group; `noises` are by index.
fn run(
    world: &mut World,
    population: Entity,
    number: usize,
    plan: &Plan,
    noises: &[Noise],
) -> Result<(), SignError> {
    let Some(of) = group(world, population, number) else { return Ok(()) };
    let changes = |&place: &usize| {
        let Noise { std, rate } = noises[of.members[place] as usize];
        let is_inactive = |root| world.get::<Mode>(root).is_some_and(|mode| mode.inactive);
        std > 0.0 && rate > 0.0 && !is_inactive(of.modules[0][place])
    };
    let places: Vec<_> = (0..of.members.len()).filter(changes).collect();
    let indices: Vec<_> = places.iter().map(|&place| of.members[place]).collect();
    if indices.is_empty() {
        return Ok(());
    }
    let members = listed(noises.len(), &indices);
    let own = || indices.iter().map(|&index| noises[index as usize]);
    let scalars: Vec<_> =
        own().map(|noise| noise.std).chain(own().map(|noise| noise.rate)).collect();
    let all = keys(world, population, number);
    let keys: Vec<_> = places.iter().map(|&place| all[place]).collect();
    let job = Job {
        plan,
        steps: 1,
        first_step: 0,
        inputs: &[],
        outputs: &[],
        first_array: 0,
        scalars: &scalars,
        written: &vec![true; plan.program.slots.len()],
        keys: &keys,
    };
    let mut at = Located::new(population, number, members);
    launch_alone(world, &mut at, job)?;
    advance(world, population, number, places);
    Ok(())
}

/// Plans the noise on the parameters that are chosen; `None` if none is.
fn plan(
    blueprint: &Blueprint,
    is_chosen: impl Fn(&str) -> bool,
) -> Result<Option<Plan>, EvolveError> {
    let trace = Trace::new();
    let setting = |name| {
        let scalar = Scalar { name, of: ScalarOf::Module, position: 0 };
        trace.scalar(scalar, Dtype::F64)
    };
    let (std, rate) = (setting("std"), setting("rate"));
    let mut number = 0;
    let mut is_empty = true;
    for (position, at) in blueprint.positions.iter().enumerate() {
        for parameter in &at.parameters {
            let Some(slot) = blueprint.parameter(position, &parameter.name) else { continue };
            let is_shared = blueprint.shared(&slot).is_some();
            if !is_shared && is_chosen(&slot.name) && slot.ty.dtype.is_float() {
                if blueprint.is_uninitialized(&slot) {
                    return Err(EvolveError::Uninitialized { name: slot.name });
                }
                let slot = trace.slot(slot);
                let single =
                    if slot.dtype().is_half() { slot.to(Dtype::F32) } else { slot.clone() };
                trace.store(&slot, &single.noise(&std, &rate, number));
                is_empty = false;
            }
            number += 1;
        }
    }
    if is_empty {
        return Ok(None);
    }
    let program = trace.finish(&[]).expect("noise takes any parameter of these types");
    Ok(Some(Plan::new(program, &PlanOptions::default()).expect("noise is a program")))
}
