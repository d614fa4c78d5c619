//! [`ParametrizeWorld`]: parametrizations on bevy's [`World`], by one-line callers of
//! [`systems::parametrize`](crate::systems::edit::parametrize).

use bevy_ecs::prelude::*;
use ndarray::{ArrayD, ArrayView, Dimension};

use crate::components::module::Module;
use crate::components::parametrizations::OrthogonalMap;
use crate::kernels::ir::dtype::Element;
use crate::systems::edit::parametrize;
use crate::systems::edit::parametrize::{ParametrizeError, RegisterOptions};
use crate::systems::execute::hooks::Target;

/// Computes parameters of modules from others, which are trained in their place.
///
/// The target says whose: a module's entity for one model, `(population, path)` for that module of all models of
/// a population.
///
/// # Example
///
/// ```
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let brain = Sequential::new().push(Linear::new(2, 3)).push(Tanh);
/// let brains = world.spawn_population(&brain, 100, Seed(1))?;
/// world.weight_norm((brains, "0"), "weight", Some(0))?;
///
/// let first = world.models(brains)?[0];
/// assert_eq!(
///     world.parameter_names(first)?,
///     ["0.bias", "0.parametrizations.weight.original0", "0.parametrizations.weight.original1"]
/// );
/// world.remove_parametrizations((brains, "0"), "weight", true)?;
/// assert_eq!(world.parameter_names(first)?, ["0.bias", "0.weight"]);
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
/// let layers = world.spawn_population(&Linear::new(3, 3), 10, Seed(1))?;
/// world.register_parametrization((layers, ""), "weight", Symmetric, Default::default())?;
/// let first = world.models(layers)?[0];
/// let weight = world.tensor::<f32>(first, "weight")?;
/// assert_eq!(weight, weight.t());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `torch.nn.utils.parametrize` and `torch.nn.utils.parametrizations`.
pub trait ParametrizeWorld {
    /// Computes a tensor by a parametrization: [`parametrize::register_parametrization`].
    ///
    /// # Errors
    ///
    /// If there is no such tensor, or the parametrization does not fit it.
    fn register_parametrization(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        parametrization: impl Module,
        options: RegisterOptions,
    ) -> Result<(), ParametrizeError>;

    /// Makes a tensor a parameter or buffer of its module again: [`parametrize::remove_parametrizations`].
    ///
    /// # Errors
    ///
    /// If it is not parametrized, or has several originals and should become one of them.
    fn remove_parametrizations(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        leave_parametrized: bool,
    ) -> Result<(), ParametrizeError>;

    /// Says whether a tensor of a module is parametrized; any, if no name is given.
    fn is_parametrized(&self, module: Entity, name: Option<&str>) -> bool;

    /// Computes a tensor of a length and a direction: [`parametrize::weight_norm()`].
    ///
    /// # Errors
    ///
    /// As [`register_parametrization`](ParametrizeWorld::register_parametrization).
    fn weight_norm(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        dim: Option<isize>,
    ) -> Result<(), ParametrizeError>;

    /// Divides a tensor by its largest singular value, with torch's defaults:
    /// [`parametrize::spectral_norm`] has them all.
    ///
    /// # Errors
    ///
    /// As [`register_parametrization`](ParametrizeWorld::register_parametrization).
    fn spectral_norm(
        &mut self,
        target: impl Into<Target>,
        name: &str,
    ) -> Result<(), ParametrizeError>;

    /// Makes the matrices of a tensor orthogonal: [`parametrize::orthogonal`], with trivialization.
    ///
    /// # Errors
    ///
    /// As [`register_parametrization`](ParametrizeWorld::register_parametrization).
    fn orthogonal(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        orthogonal_map: Option<OrthogonalMap>,
    ) -> Result<(), ParametrizeError>;

    /// Copies a tensor of a module, computed if it is parametrized: [`parametrize::tensor`].
    ///
    /// # Errors
    ///
    /// If there is no such module or tensor, or its elements are not `T`.
    fn tensor<T: Element>(
        &mut self,
        module: Entity,
        name: &str,
    ) -> Result<ArrayD<T>, ParametrizeError>;

    /// Gives a parametrized tensor of a module new numbers: [`parametrize::assign`].
    ///
    /// # Errors
    ///
    /// If a parametrization cannot be turned around, or the numbers do not fit.
    fn assign<T: Element, D: Dimension>(
        &mut self,
        module: Entity,
        name: &str,
        numbers: ArrayView<'_, T, D>,
    ) -> Result<(), ParametrizeError>;

    /// Runs `run` while parametrized tensors are computed once in a pass: [`parametrize::cached`].
    ///
    /// # Errors
    ///
    /// If `population` is no population.
    fn cached<R>(
        &mut self,
        population: Entity,
        run: impl FnOnce(&mut World) -> R,
    ) -> Result<R, ParametrizeError>;
}

impl ParametrizeWorld for World {
    fn register_parametrization(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        parametrization: impl Module,
        options: RegisterOptions,
    ) -> Result<(), ParametrizeError> {
        parametrize::register_parametrization(self, target, name, parametrization, options)
    }

    fn remove_parametrizations(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        leave_parametrized: bool,
    ) -> Result<(), ParametrizeError> {
        parametrize::remove_parametrizations(self, target, name, leave_parametrized)
    }

    fn is_parametrized(&self, module: Entity, name: Option<&str>) -> bool {
        parametrize::is_parametrized(self, module, name)
    }

    fn weight_norm(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        dim: Option<isize>,
    ) -> Result<(), ParametrizeError> {
        parametrize::weight_norm(self, target, name, dim)
    }

    fn spectral_norm(
        &mut self,
        target: impl Into<Target>,
        name: &str,
    ) -> Result<(), ParametrizeError> {
        parametrize::spectral_norm(self, target, name, 1, 1e-12, 0)
    }

    fn orthogonal(
        &mut self,
        target: impl Into<Target>,
        name: &str,
        orthogonal_map: Option<OrthogonalMap>,
    ) -> Result<(), ParametrizeError> {
        parametrize::orthogonal(self, target, name, orthogonal_map, true)
    }

    fn tensor<T: Element>(
        &mut self,
        module: Entity,
        name: &str,
    ) -> Result<ArrayD<T>, ParametrizeError> {
        parametrize::tensor(self, module, name)
    }

    fn assign<T: Element, D: Dimension>(
        &mut self,
        module: Entity,
        name: &str,
        numbers: ArrayView<'_, T, D>,
    ) -> Result<(), ParametrizeError> {
        parametrize::assign(self, module, name, numbers.into_dyn())
    }

    fn cached<R>(
        &mut self,
        population: Entity,
        run: impl FnOnce(&mut World) -> R,
    ) -> Result<R, ParametrizeError> {
        parametrize::cached(self, population, run)
    }
}
