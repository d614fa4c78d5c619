//! The parametrizations that torch comes with: [`weight_norm`], [`spectral_norm`], [`orthogonal`].

use bevy_ecs::prelude::*;
use neurarch_components::module::DynModule;
use neurarch_components::parametrizations::{Orthogonal, OrthogonalMap, SpectralNorm, WeightNorm};

use super::register::{RegisterOptions, Tensor, register};
use super::register_parametrization;
use super::site::modules;
use crate::errors::ParametrizeError;
use crate::execute::hooks::Target;

const UNSAFE: RegisterOptions = RegisterOptions { is_unsafe: true };

/// Computes a tensor of a length and a direction from now on: [`WeightNorm`]; `dim` is the axis along which
/// lengths differ, 0 in torch if none is given.
///
/// # Errors
///
/// [`ParametrizeError`].
///
/// Source: `torch.nn.utils.parametrizations.weight_norm`.
pub fn weight_norm(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    dim: Option<isize>,
) -> Result<(), ParametrizeError> {
    register_parametrization(world, target, name, WeightNorm { dim }, UNSAFE)
}

/// Divides a tensor by its largest singular value from now on: [`SpectralNorm`]. torch's defaults are
/// `n_power_iterations=1`, `eps=1e-12` and, but for transposed convolutions, `dim=0`.
///
/// # Errors
///
/// [`ParametrizeError`]: there is no such axis, or there are no iterations.
///
/// Source: `torch.nn.utils.parametrizations.spectral_norm`.
pub fn spectral_norm(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    n_power_iterations: usize,
    eps: f64,
    dim: isize,
) -> Result<(), ParametrizeError> {
    let make = |tensor: &Tensor<'_>| -> Result<Box<dyn DynModule>, ParametrizeError> {
        let shape = tensor.ty.shape.clone();
        let rank = shape.rank() as isize;
        let Some(dim) = shape.axis(dim) else {
            return Err(ParametrizeError::Invalid(format!(
                "Dimension out of range (expected to be in range of [-{rank}, {}] but got {dim})",
                rank - 1
            )));
        };
        if n_power_iterations == 0 {
            return Err(ParametrizeError::Invalid(
                "Expected n_power_iterations to be positive, but got n_power_iterations=0".into(),
            ));
        }
        Ok(Box::new(SpectralNorm { shape, n_power_iterations, dim, eps }))
    };
    let modules = modules(world, target)?;
    register(world, &modules, name, &make, RegisterOptions::default())
}

/// Makes the matrices of a tensor orthogonal from now on: [`Orthogonal`]. Without a map, square matrices get
/// [`OrthogonalMap::MatrixExp`], others [`OrthogonalMap::Householder`]; torch's default for
/// `use_trivialization` is true.
///
/// # Errors
///
/// [`ParametrizeError`]: the tensor is no matrix or batch of matrices.
///
/// Source: `torch.nn.utils.parametrizations.orthogonal`.
pub fn orthogonal(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    orthogonal_map: Option<OrthogonalMap>,
    use_trivialization: bool,
) -> Result<(), ParametrizeError> {
    let make = |tensor: &Tensor<'_>| -> Result<Box<dyn DynModule>, ParametrizeError> {
        let shape = tensor.ty.shape.clone();
        let [.., rows, columns] = shape[..] else {
            return Err(ParametrizeError::Invalid(format!(
                "Expected a matrix or batch of matrices. Got a tensor of {} dimensions.",
                shape.rank()
            )));
        };
        let orthogonal_map = orthogonal_map.unwrap_or(match rows == columns {
            true => OrthogonalMap::MatrixExp,
            false => OrthogonalMap::Householder,
        });
        Ok(Box::new(Orthogonal { shape, orthogonal_map, use_trivialization }))
    };
    let modules = modules(world, target)?;
    register(world, &modules, name, &make, UNSAFE)
}
