//! Parametrizations.

use crate::components::module::Module;
use crate::components::parametrizations::OrthogonalMap;
use crate::handles::{ModuleMut, PopulationMut, TargetMut};
use crate::kernels::ir::dtype::Element;
use crate::systems::edit::parametrize;
use crate::systems::edit::parametrize::{ParametrizeError, RegisterOptions};
use bevy_ecs::prelude::*;
use ndarray::{ArrayD, ArrayView, Dimension};

/// Computes parameters of modules from others, which are trained in their place.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 3)).push(Tanh);
/// let mut brains = world.spawn_population(&brain, 100, Seed(1))?;
/// brains.at("0").weight_norm("weight", Some(0))?;
///
/// assert_eq!(
///     brains.model(0)?.parameter_names()?,
///     ["0.bias", "0.parametrizations.weight.original0", "0.parametrizations.weight.original1"]
/// );
/// brains.at("0").remove_parametrizations("weight", true)?;
/// assert_eq!(brains.model(0)?.parameter_names()?, ["0.bias", "0.weight"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A parametrization of your own is any module: `forward` takes the original and gives the tensor.
///
/// ```
/// use neurarch::prelude::*;
///
/// /// A matrix that is the same as its transposed.
/// #[derive(Component, Clone, Debug, PartialEq)]
/// struct Symmetric;
///
/// impl Module for Symmetric {
///     fn forward(&self, _: &Call<'_>, x: Var) -> Var {
///         x.tril(0) + x.tril(-1).t()
///     }
/// }
///
/// let mut world = World::new();
/// let mut layers = world.spawn_population(&Linear::new(3, 3), 10, Seed(1))?;
/// layers.register_parametrization("weight", Symmetric, Default::default())?;
/// let weight = layers.model(0)?.tensor::<f32>("weight")?;
/// assert_eq!(weight, weight.t());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.utils.parametrize` and `torch.nn.utils.parametrizations`.
impl TargetMut<'_> {
    /// Computes a tensor by a parametrization: [`parametrize::register_parametrization`].
    ///
    /// # Errors
    ///
    /// If there is no such tensor, or the parametrization does not fit it.
    pub fn register_parametrization(
        &mut self,
        name: &str,
        parametrization: impl Module,
        options: RegisterOptions,
    ) -> Result<(), ParametrizeError> {
        parametrize::register_parametrization(
            self.world,
            self.target.clone(),
            name,
            parametrization,
            options,
        )
    }

    /// Makes a tensor a parameter or buffer of its module again: [`parametrize::remove_parametrizations`].
    ///
    /// # Errors
    ///
    /// If it is not parametrized, or has several originals and should become one of them.
    pub fn remove_parametrizations(
        &mut self,
        name: &str,
        leave_parametrized: bool,
    ) -> Result<(), ParametrizeError> {
        parametrize::remove_parametrizations(
            self.world,
            self.target.clone(),
            name,
            leave_parametrized,
        )
    }

    /// Computes a tensor of a length and a direction: [`parametrize::weight_norm()`].
    ///
    /// # Errors
    ///
    /// As [`register_parametrization`](Self::register_parametrization).
    pub fn weight_norm(&mut self, name: &str, dim: Option<isize>) -> Result<(), ParametrizeError> {
        parametrize::weight_norm(self.world, self.target.clone(), name, dim)
    }

    /// Divides a tensor by its largest singular value, with torch's defaults:
    /// [`parametrize::spectral_norm`] has them all.
    ///
    /// # Errors
    ///
    /// As [`register_parametrization`](Self::register_parametrization).
    pub fn spectral_norm(&mut self, name: &str) -> Result<(), ParametrizeError> {
        parametrize::spectral_norm(self.world, self.target.clone(), name, 1, 1e-12, 0)
    }

    /// Makes the matrices of a tensor orthogonal: [`parametrize::orthogonal`], with trivialization.
    ///
    /// # Errors
    ///
    /// As [`register_parametrization`](Self::register_parametrization).
    pub fn orthogonal(
        &mut self,
        name: &str,
        orthogonal_map: Option<OrthogonalMap>,
    ) -> Result<(), ParametrizeError> {
        parametrize::orthogonal(self.world, self.target.clone(), name, orthogonal_map, true)
    }
}

impl ModuleMut<'_> {
    /// Returns whether a tensor of a module is parametrized; any, if no name is given.
    pub fn is_parametrized(&self, name: Option<&str>) -> bool {
        parametrize::is_parametrized(self.handle.world, self.id, name)
    }

    /// Copies a tensor of a module, computed if it is parametrized: [`parametrize::tensor`].
    ///
    /// # Errors
    ///
    /// If there is no such module or tensor, or its elements are not `T`.
    pub fn tensor<T: Element>(&mut self, name: &str) -> Result<ArrayD<T>, ParametrizeError> {
        parametrize::tensor(self.handle.world, self.id, name)
    }

    /// Gives a parametrized tensor of a module new numbers: [`parametrize::assign`].
    ///
    /// # Errors
    ///
    /// If a parametrization cannot be turned around, or the numbers do not fit.
    pub fn assign<T: Element, D: Dimension>(
        &mut self,
        name: &str,
        numbers: ArrayView<'_, T, D>,
    ) -> Result<(), ParametrizeError> {
        parametrize::assign(self.handle.world, self.id, name, numbers.into_dyn())
    }
}

impl PopulationMut<'_> {
    /// Runs `run` while parametrized tensors are computed once in a pass: [`parametrize::cached`].
    ///
    /// # Errors
    ///
    /// If the population was despawned.
    pub fn cached<R>(&mut self, run: impl FnOnce(&mut World) -> R) -> Result<R, ParametrizeError> {
        parametrize::cached(self.handle.world, self.id, run)
    }
}
