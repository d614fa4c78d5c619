//! [`Weights`]: a file in memory that is put into models any number of times.

use std::path::Path;

use bevy_ecs::prelude::*;
use neurarch_components::population::Population;
use neurarch_components::population::tree::Model;
use neurarch_components::state::StateDict;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::load::{
    LoadOptions, LoadStateDictError, Misfit, load_stacked_state_dict, load_where_fit,
};
use super::safetensors::{self, SafetensorsError};
use crate::structure::sign;

/// What a file has for models: tensors by name, or a checkpoint.
#[derive(Debug)]
pub enum Weights {
    /// Of a file of safetensors.
    Tensors(StateDict),
    /// Of one that neurarch wrote.
    Checkpoint(Box<Checkpoint>),
}

/// How weights are put into models.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightsOptions {
    /// Whether each tensor has a slice for each model of a population: `[models, ..]`.
    pub stacked: bool,
    /// Which model of a checkpoint goes into a model.
    pub model: usize,
}

/// Why weights cannot be read, or put into models. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The bytes cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// They are safetensors, and damaged, or of no known kind.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// They are a checkpoint, and damaged, or of other models.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Tensors do not fit.
    #[error(transparent)]
    Load(#[from] LoadStateDictError),
    /// A checkpoint is for whole models.
    #[error("a checkpoint is for a population or a model: {0} is the root of none")]
    NotAModel(Entity),
}

/// What a checkpoint begins with.
const MAGIC: &[u8] = b"neurarch";

impl Weights {
    /// Reads the bytes of a file: a checkpoint, which begins with the word `neurarch`, or safetensors. `path` is for errors.
    ///
    /// # Errors
    ///
    /// If they are damaged, or of no known kind.
    pub fn from_bytes(bytes: &[u8], path: impl AsRef<Path>) -> Result<Self, WeightsError> {
        if !bytes.starts_with(MAGIC) {
            return Ok(Weights::Tensors(safetensors::from_bytes(bytes, path)?));
        }
        let checkpoint = Checkpoint::from_bytes(bytes, path)?;
        checkpoint.verify()?;
        Ok(Weights::Checkpoint(Box::new(checkpoint)))
    }

    /// Puts weights into a module and all below it, or into all models of a population.
    ///
    /// A checkpoint's first population goes into a population of as many models, each model into the one of its index, as
    /// [`restore_models_over`](Checkpoint::restore_models_over) does: optimizers and their state go with the weights, numbers
    /// stay. Into a model goes one of its models.
    ///
    /// # Errors
    ///
    /// If they do not fit; nothing is put anywhere then.
    ///
    /// # Example
    ///
    /// ```
    /// # use bevy_ecs::prelude::*;
    /// # use neurarch_components::layers::Linear;
    /// # use neurarch_kernels::ir::dtype::Dtype;
    /// # use neurarch_systems::structure::access;
    /// # use neurarch_systems::structure::spawn::spawn_population;
    /// use neurarch_systems::state::{checkpoint, weights::*};
    ///
    /// # let mut world = World::new();
    /// # let path = std::env::temp_dir().join(format!("neurarch-weights-{}", std::process::id()));
    /// let layers = spawn_population(&mut world, &Linear::new(1, 1), 2, 2, 7, Dtype::F32)?;
    /// access::unstack(&mut world, layers, "bias", ndarray::array![[1.0_f32], [2.0]].into_dyn().view())?;
    /// checkpoint::save(&mut world, &[layers], &path)?;
    /// let weights = Weights::from_bytes(&std::fs::read(&path)?, &path)?;
    ///
    /// let others = spawn_population(&mut world, &Linear::new(1, 1), 2, 2, 8, Dtype::F32)?;
    /// weights.put(&mut world, others, WeightsOptions::default())?;
    /// let biases = access::stack::<f32>(&mut world, others, "bias", None)?;
    /// assert_eq!(biases, ndarray::array![[1.0], [2.0]].into_dyn());
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put(
        &self,
        world: &mut World,
        entity: Entity,
        options: WeightsOptions,
    ) -> Result<(), WeightsError> {
        let load = LoadOptions::default();
        match self {
            Weights::Tensors(state) if options.stacked => {
                load_stacked_state_dict(world, entity, state, load)?;
            }
            Weights::Tensors(state) => {
                load_where_fit(world, entity, state, load, Misfit::LoadsNothing)?;
            }
            Weights::Checkpoint(checkpoint) => {
                put_checkpoint(world, entity, checkpoint, options.model)?;
            }
        }
        Ok(())
    }
}

fn put_checkpoint(
    world: &mut World,
    entity: Entity,
    checkpoint: &Checkpoint,
    model: usize,
) -> Result<(), WeightsError> {
    let (population, models) = if let Some(found) = world.get::<Population>(entity) {
        let expected = checkpoint.models(0).unwrap_or(0);
        if found.len() != expected {
            let given = found.len();
            return Err(CheckpointError::Models { expected, given }.into());
        }
        (entity, (0..expected).map(|index| (index, index)).collect())
    } else {
        let root = world.get::<Model>(entity).ok_or(WeightsError::NotAModel(entity))?;
        (root.population, vec![(model, root.index as usize)])
    };
    checkpoint.restore_models_over(world, 0, population, &models)?;
    sign::refresh(world, population).map_err(CheckpointError::from)?;
    Ok(())
}
