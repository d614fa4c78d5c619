//! [`update_bn`]: running statistics of averaged models.

use bevy_ecs::prelude::*;
use neurarch_components::batchnorm::with_momentum;
use neurarch_components::module::mode::Mode;
use neurarch_components::module::registry::ModuleTypes;
use neurarch_components::module::{DynModule, Init};
use neurarch_components::population::Population;
use neurarch_kernels::ir::dtype::Element;

use crate::compile::array::Input;
use crate::draw;
use crate::errors::{AccessError, SignError, StepError};
use crate::execute::step;
use crate::structure::spot::locate;
use crate::structure::traverse::modules_of;
use crate::structure::{mode, sign};

/// Why running statistics cannot be computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateBnError {
    /// There is no such population.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Models cannot run on a batch.
    #[error(transparent)]
    Step(#[from] StepError),
}

/// Makes the running statistics of every batch norm of a population the averages over some batches, each `[models, ..]`
/// or [shared](Input::shared): models run on them in training mode, without gradients.
///
/// # Errors
///
/// If `population` is none, or a batch does not fit its models. Statistics are then those of the batches before that
/// one, from which they go on; modes and momenta are as they were.
///
/// # Example
///
/// ```
/// # use bevy_ecs::prelude::*;
/// # use neurarch_components::layers::*;
/// # use neurarch_kernels::ir::dtype::Dtype;
/// # use neurarch_systems::structure::access;
/// # use neurarch_systems::optim::update_bn::update_bn;
/// # use neurarch_systems::structure::spawn::spawn_population;
/// # let mut world = World::new();
/// let averaged = spawn_population(&mut world, &BatchNorm1d::new(1), 2, 2, 0, Dtype::F32)?;
/// let batches = [ndarray::array![[[1.0_f32], [3.0]], [[1.0], [1.0]]], ndarray::array![[[4.0], [8.0]], [[3.0], [3.0]]]];
/// update_bn(&mut world, averaged, &batches)?;
/// let means = access::stack::<f32>(&mut world, averaged, "running_mean", None)?;
/// assert_eq!(means, ndarray::array![[4.0], [2.0]].into_dyn());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.optim.swa_utils.update_bn`.
pub fn update_bn<'a, T: Element, X: Into<Input<'a, T>>>(
    world: &mut World,
    population: Entity,
    loader: impl IntoIterator<Item = X>,
) -> Result<(), UpdateBnError> {
    sign::refresh(world, population).map_err(AccessError::from)?;
    let found = world.get::<Population>(population).map(|found| found.models().to_vec());
    let roots = found.unwrap_or_default();
    let norms = norms(world, population)?;
    if norms.is_empty() {
        return Ok(());
    }
    let modes: Vec<_> = roots.iter().map(|&root| world.get::<Mode>(root).cloned()).collect();
    reset(world, &norms)?;
    insert(world, norms.iter().filter_map(|(at, norm)| Some((*at, with_momentum(&**norm, None)?))));
    let run = |world: &mut World| {
        mode::train(world, population)?;
        loader.into_iter().try_for_each(|x| step::forward(world, population, x).map(|_| ()))
    };
    let restore = |world: &mut World| {
        insert(world, norms.into_iter());
        for (root, before) in roots.into_iter().zip(modes) {
            if let Some((mut mode, before)) = world.get_mut::<Mode>(root).zip(before) {
                *mode = before;
            }
        }
    };
    let done = mode::restoring(world, |world| mode::no_grad(world, run), restore);
    sign::refresh(world, population).map_err(AccessError::from)?;
    Ok(done?)
}

/// A batch norm, as it is.
type Norm = (Entity, Box<dyn DynModule>);

/// Lists the batch norms.
fn norms(world: &mut World, population: Entity) -> Result<Vec<Norm>, AccessError> {
    let all = modules_of(world, population)?;
    let Some(types) = world.get_resource::<ModuleTypes>() else { return Ok(Vec::new()) };
    let norm = |(_, at): (usize, Entity)| {
        let module = types.module(world.get_entity(at).ok()?)?;
        with_momentum(module, None).map(|_| (at, module.clone_box()))
    };
    Ok(all.into_iter().filter_map(norm).collect())
}

/// Source: `reset_running_stats` of torch's batch norms.
fn reset(world: &mut World, norms: &[Norm]) -> Result<(), AccessError> {
    let buffers = [
        ("running_mean", Init::Zeros),
        ("running_var", Init::Ones),
        ("num_batches_tracked", Init::Zeros),
    ];
    for (norm, _) in norms {
        let at = locate(world, *norm)?;
        for (name, init) in &buffers {
            if let Some(slot) = at.blueprint(world).buffer(at.position, name) {
                draw::fill_one(world, at.population, (at.group, at.member), slot, init.clone())
                    .map_err(SignError::from)?;
            }
        }
    }
    Ok(())
}

fn insert(world: &mut World, norms: impl Iterator<Item = Norm>) {
    for (at, norm) in norms {
        if let Ok(mut module) = world.get_entity_mut(at) {
            norm.insert_into(&mut module);
        }
    }
}
