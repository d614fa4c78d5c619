//! [`Summary`]: the layers of a model with their shapes, parameters, multiply-adds, bytes and times.
//!
//! The columns, their rules and the text are those of torchinfo.

mod options;
mod parameters;
mod rows;
mod text;

use std::collections::HashSet;

use bevy_ecs::prelude::*;
use serde::Serialize;

use crate::components::module::blueprint::Parameter;
use crate::systems::execute::hooks::Target;
use crate::systems::execute::step::StepError;
use crate::systems::execute::step::calls::{ModuleCalls, module_calls};

pub use crate::systems::execute::step::calls::InputSize;
pub use options::{Column, SummaryOptions};
use parameters::{Numbered, elements, sum};
pub use rows::{KernelSize, Row, Trainable};

/// What a model is made of: one row for each call of a module in a forward pass, and totals.
///
/// As text it is torchinfo's table; as a value it can be tested, and printed as JSON by serde.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
/// use neurarch::report::summary::SummaryOptions;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(4, 16)).push(Tanh).push(Linear::new(16, 2));
/// let mut brains = world.spawn_population(&brain, 1_000, Seed(7))?;
/// let summary = brains.model(0)?.summary(SummaryOptions::new([32, 4]))?;
/// assert_eq!((summary.total_params, summary.total_mult_adds), (114, 3_648));
/// assert_eq!(summary.rows[1].output_size, [32, 16]);
/// assert!(summary.to_string().contains("├─Linear: 1-1                            [32, 16]                  80"));
/// assert_eq!(brains.summary(SummaryOptions::new([32, 4]))?.total_params, 114_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torchinfo.summary` 1.8.0, which returns a `ModelStatistics`. Other than there, a parameter that several modules
/// share by a tie is counted once, as in `model.parameters()`; bytes of parameters that are not a leaf's own are counted, too;
/// and an input has the bytes of its numbers alone.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// How many models have this structure and these frozen parameters.
    pub models: usize,
    /// The calls, in the order in which they begin, each container that is not called before the first call below it.
    pub rows: Vec<Row>,
    /// The number of elements of all parameters below the module that was called, each once.
    pub total_params: u64,
    /// Those of them that need a gradient.
    pub trainable_params: u64,
    /// Multiply-adds of one forward pass: the sum over calls of modules without children.
    pub total_mult_adds: u64,
    /// Bytes of the arrays that the module is called with.
    pub input_bytes: u64,
    /// Bytes of the results of modules that have parameters and no children, twice: for their gradients.
    pub output_bytes: u64,
    /// Bytes of all parameters.
    pub param_bytes: u64,
    /// How text shows it.
    #[serde(skip)]
    shown: Shown,
}

/// How text shows a summary.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    depth: usize,
    columns: Vec<Column>,
}

impl Summary {
    /// Returns the number of elements of parameters that need no gradient.
    pub fn non_trainable_params(&self) -> u64 {
        self.total_params - self.trainable_params
    }

    fn new(calls: &ModuleCalls, options: &SummaryOptions) -> Self {
        let ModuleCalls { blueprint, position, frozen, models, inputs, .. } = calls;
        let rows = rows::of(calls);
        let leaves = || rows.iter().filter(|row| row.is_leaf);
        let with_params = leaves().filter(|row| row.num_params > 0);
        let all = Numbered::new(blueprint).below(*position);
        let total = |of: &dyn Fn(usize, &Parameter) -> u64| -> u64 {
            all.iter().map(|&(number, parameter)| of(number, parameter)).sum()
        };
        let trainable = |number: usize, of: &Parameter| match frozen.contains(number) {
            false => elements(of),
            true => 0,
        };
        let (depth, columns) = (options.depth, options.shown_columns());
        Summary {
            models: *models,
            total_params: total(&|_, of| elements(of)),
            trainable_params: total(&trainable),
            total_mult_adds: sum(leaves().map(|row| row.mult_adds)),
            input_bytes: sum(inputs.iter().map(|ty| ty.size_bytes() as u64)),
            output_bytes: sum(with_params.map(|row| row.output_bytes.saturating_mul(2))),
            param_bytes: total(&|_, of| of.ty.size_bytes() as u64),
            rows,
            shown: Shown { depth, columns },
        }
    }
}

/// What the models of a population are made of: a summary of each structure, and the totals over all models.
///
/// Models that differ in what is frozen have summaries of their own.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PopulationSummary {
    /// The structures, each with the number of models that have it.
    pub structures: Vec<Summary>,
    /// How many models there are.
    pub models: usize,
    /// The number of elements of all parameters of all models; one that they share is counted once.
    pub total_params: u64,
    /// Those of them that need a gradient.
    pub trainable_params: u64,
    /// Multiply-adds of one forward pass of all models.
    pub total_mult_adds: u64,
    /// Bytes of all parameters.
    pub param_bytes: u64,
}

impl PopulationSummary {
    /// Returns the number of elements of parameters that need no gradient.
    pub fn non_trainable_params(&self) -> u64 {
        self.total_params - self.trainable_params
    }
}

/// Summarizes a module of one model, without running it unless times are asked for.
///
/// # Errors
///
/// If there is no such module, or it cannot take arrays of these sizes.
pub fn summary(
    world: &mut World,
    module: Entity,
    options: &SummaryOptions,
) -> Result<Summary, StepError> {
    let calls = module_calls(world, Target::Module(module), &options.inputs, options.timed)?;
    let first = calls.first().ok_or(StepError::Inactive)?;
    Ok(Summary::new(first, options))
}

/// Summarizes the modules that a target names, each structure on its own, and adds up all models. A module of one model is
/// all models then.
///
/// # Errors
///
/// As [`summary`].
pub fn summary_of_all(
    world: &mut World,
    target: impl Into<Target>,
    options: &SummaryOptions,
) -> Result<PopulationSummary, StepError> {
    let all = module_calls(world, target.into(), &options.inputs, options.timed)?;
    let mut found = PopulationSummary {
        structures: all.iter().map(|calls| Summary::new(calls, options)).collect(),
        models: 0,
        total_params: 0,
        trainable_params: 0,
        total_mult_adds: 0,
        param_bytes: 0,
    };
    let (mut known, mut trained) = (HashSet::new(), HashSet::new());
    for (calls, summary) in all.iter().zip(&found.structures) {
        let models = calls.models as u64;
        found.models += calls.models;
        let mult_adds = models.saturating_mul(summary.total_mult_adds);
        found.total_mult_adds = found.total_mult_adds.saturating_add(mult_adds);
        for (number, of) in Numbered::new(&calls.blueprint).below(calls.position) {
            let row = of.shared.map(|row| row.index);
            let times = row.map_or(models, |row| u64::from(known.insert(row)));
            found.total_params += times * elements(of);
            found.param_bytes += times * of.ty.size_bytes() as u64;
            if !calls.frozen.contains(number) {
                let times = row.map_or(models, |row| u64::from(trained.insert(row)));
                found.trainable_params += times * elements(of);
            }
        }
    }
    Ok(found)
}
