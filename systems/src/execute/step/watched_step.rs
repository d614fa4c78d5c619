//! One step of a cohort that is watched, op by op.

use bevy_ecs::prelude::*;
use neurarch_components::losses::DynLoss;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;

use crate::errors::StepError;
use crate::execute::cohort::Cohort;
use crate::execute::eager::{self, Given, Made, Recorded};
use crate::execute::hooks::{Again, OuterHooks};
use crate::execute::loss_arrays::LossArrays;
use crate::execute::step::stretch::Stretch;
use crate::storage::launch::Read;
use crate::structure::population::{Models, population};

/// Reads what a part reads in one of its steps.
pub(super) fn reads_at<'a>(part: &Stretch<'a>, step: usize) -> impl Iterator<Item = Read<'a>> {
    part.reads().map(move |read| read.at(read.offset + step * read.step_bytes, 0))
}

/// Makes one step of a cohort that is watched; nothing is written yet.
pub(super) fn step_eagerly(
    world: &mut World,
    cohort: &mut Cohort,
    hooks: (Option<OuterHooks>, Again),
    loss: (&dyn DynLoss, &LossArrays),
    (part, step): (&Stretch<'_>, usize),
) -> Result<(Made, Recorded), StepError> {
    let types: Vec<_> = part.types.iter().map(|ty| ty.to_type()).collect();
    let batch = |(read, ty): (Read<'_>, &Type)| -> Vec<_> {
        cohort.at.members.indices().map(|index| read.copy(index, step, ty)).collect()
    };
    let target = part.target.to_type();
    let batches: Vec<_> = part.reads().zip(types.iter().chain([&target])).map(batch).collect();
    let given = batches.iter().zip(types.iter().chain([&target])).map(|(rows, ty)| Given {
        ty: ty.clone(),
        rows: rows.iter().map(Vec::as_slice).collect(),
        needs_gradient: false,
    });
    let mut x: Vec<_> = given.collect();
    let target = x.pop().expect("the targets are read last");
    let dtype = Models::of(population(world, cohort.at.population)?).dtype;
    let made = eager::train_step(world, cohort, hooks, loss, (&x, part.structure), &target)?;
    made.0.results.types.iter().try_for_each(|ty| check_loss("loss", dtype, ty.dtype))?;
    Ok(made)
}

/// Checks that losses are of the models' type.
pub(super) fn check_loss(
    array: &'static str,
    expected: Dtype,
    given: Dtype,
) -> Result<(), StepError> {
    match expected == given {
        true => Ok(()),
        false => Err(StepError::Dtype { array, expected, given }),
    }
}
