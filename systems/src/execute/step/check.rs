//! Compares arrays with what a population expects, before anything runs.

use bevy_ecs::prelude::*;
use ndarray::{Array, Dimension, StrideShape};
use neurarch_components::losses::Targets;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;

use crate::compile::array::Erased;
use crate::errors::StepError;
use crate::structure::population::{Models, population};

/// Returns numbers a shape.
pub(super) fn shaped<T, D: Dimension>(
    shape: impl Into<StrideShape<D>>,
    numbers: Vec<T>,
) -> Array<T, D> {
    Array::from_shape_vec(shape, numbers).expect("the shape was computed with the numbers")
}

/// Counts the models of a population.
pub(super) fn models(world: &World, population: Entity) -> Result<usize, StepError> {
    Ok(self::population(world, population)?.len())
}

/// Checks the number of models, and that floats are of the models' dtype.
pub(super) fn check_array(
    Models { count, dtype }: Models,
    name: &'static str,
    array: Erased<'_>,
) -> Result<(), StepError> {
    if let Some(given) = array.models.filter(|&given| given != count) {
        return Err(StepError::Models { array: name, expected: count, given });
    }
    check_dtype(name, dtype, array.dtype)
}

/// Checks that floats are of the models' dtype.
pub(crate) fn check_dtype(
    name: &'static str,
    expected: Dtype,
    given: Dtype,
) -> Result<(), StepError> {
    if given.is_float() && given != expected {
        return Err(StepError::Dtype { array: name, expected, given });
    }
    Ok(())
}

/// Returns the shape of the array of what all models have.
pub(super) fn with_models(models: usize, ty: &Type) -> Vec<usize> {
    [models].iter().chain(ty.shape.iter()).copied().collect()
}

/// Returns the shape of an array of that dtype for a result of type `ty` of each model.
pub(super) fn result_shape(
    name: &'static str,
    models: usize,
    ty: &Type,
    dtype: Dtype,
) -> Result<Vec<usize>, StepError> {
    let shape = with_models(models, ty);
    check_result(name, models, ty, &shape, dtype)?;
    Ok(shape)
}

/// Checks that a result of type `ty` for each of `models` fits an array of that shape and dtype.
pub(super) fn check_result(
    name: &'static str,
    models: usize,
    ty: &Type,
    shape: &[usize],
    dtype: Dtype,
) -> Result<(), StepError> {
    if shape.split_first() != Some((&models, &*ty.shape)) {
        let expected = with_models(models, ty).into();
        return Err(StepError::Shape { array: name, expected, given: shape.into() });
    }
    if ty.dtype != dtype {
        return Err(StepError::Dtype { array: name, expected: ty.dtype, given: dtype });
    }
    Ok(())
}

/// Checks class indices, of which each model has `per_model`.
pub(crate) fn check_targets(
    targets: Targets,
    given: Erased<'_>,
    per_model: usize,
) -> Result<(), StepError> {
    let Targets::Classes { classes, ignore_index } = targets else { return Ok(()) };
    if given.dtype != Dtype::I64 {
        return Ok(()); // The loss's op says what is wrong.
    }
    let copied: Vec<i64>;
    let indices = match bytemuck::try_cast_slice(given.bytes) {
        Ok(indices) => indices,
        Err(_) => {
            // Bytes that were copied may lie anywhere.
            copied = bytemuck::pod_collect_to_vec(given.bytes);
            &copied
        }
    };
    // The sign bit of `target | !(target - classes)` is clear where 0 ≤ target < classes; a loop without
    // branches, since a sweep has millions of targets.
    let outside = |target: i64| target | !(target.wrapping_sub(classes as i64));
    if indices.iter().fold(0, |any, &target| any | outside(target)) >= 0 {
        return Ok(());
    }
    let wrong = |&(_, &target): &(usize, &i64)| outside(target) < 0 && target != ignore_index;
    match indices.iter().enumerate().find(wrong) {
        None => Ok(()),
        Some((at, &target)) => Err(StepError::Target {
            target,
            model: at / per_model.max(1),
            item: at % per_model.max(1),
            last: classes.saturating_sub(1),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_target_that_is_no_class_is_named() {
        let targets = Targets::Classes { classes: 10, ignore_index: -100 };
        let check = |indices: &[i64]| {
            let given = Erased {
                dtype: Dtype::I64,
                shape: &[2],
                models: Some(indices.len() / 2),
                bytes: bytemuck::cast_slice(indices),
                needs_gradient: false,
            };
            check_targets(targets, given, 2)
        };
        assert_eq!(check(&[0, 9, -100, 5]), Ok(()));
        let wrong = |target| StepError::Target { target, model: 1, item: 0, last: 9 };
        for target in [10, -1, i64::MAX, i64::MIN] {
            assert_eq!(check(&[0, 9, target, 5]), Err(wrong(target)));
        }
        assert_eq!(
            wrong(10).to_string(),
            "Target 10 is out of bounds (model 1, item 0: expected 0 to 9)"
        );
    }
}
