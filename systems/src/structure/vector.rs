//! All parameters of a model as one vector, and of a population as a matrix.

use bevy_ecs::prelude::*;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use neurarch_components::column::{ColumnKey, row, row_mut};
use neurarch_components::population::Population;
use neurarch_kernels::ir::dtype::{Dtype, Element};
use neurarch_kernels::ir::program::{Role, Slot};

use crate::errors::AccessError;
use crate::errors::SignError;
use crate::structure::sign;
use crate::structure::spot::locate;
use crate::structure::traverse::Listing;
use crate::structure::traverse::named_slots;

/// Why parameters and vectors do not fit. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// The entity is no module of a model, or none any more.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A parameter has elements of another type.
    #[error("'{name}': expected elements of {expected}, got {given}")]
    Dtype {
        /// The parameter's dotted name.
        name: String,
        /// Its element type.
        expected: Dtype,
        /// That of the vector.
        given: Dtype,
    },
    /// The models of a population have different numbers of parameters.
    #[error("expected models of equally many parameters, got {first} and {other}")]
    Mixed {
        /// How many the first model has.
        first: usize,
        /// How many another has.
        other: usize,
    },
    /// The vector has another length, or the matrix another shape.
    #[error("expected a vector of shape {expected:?}, got {given:?}")]
    Shape {
        /// The shape that the parameters need.
        expected: Vec<usize>,
        /// The shape that was given.
        given: Vec<usize>,
    },
}

impl From<SignError> for VectorError {
    fn from(error: SignError) -> Self {
        VectorError::Access(error.into())
    }
}

/// Parameters in order, once each, with their entities.
type Parameters = Vec<(Entity, ColumnKey, Slot)>;

/// Lists the parameters of a module and all below it.
fn parameters<T: Element>(world: &mut World, module: Entity) -> Result<Parameters, VectorError> {
    let at = locate(world, module)?;
    let (blueprint, group) = (at.blueprint(world), at.group(world));
    let all = named_slots(&blueprint, at.position, Listing::default(), Role::Parameter);
    let found = all.into_iter().map(|(name, (position, index))| {
        let of = &blueprint.positions[position].parameters[index];
        if of.uninitialized {
            return Err(AccessError::Uninitialized { name }.into());
        }
        let ty = of.ty.clone();
        let (expected, given) = (ty.dtype, T::DTYPE);
        if expected != given {
            return Err(VectorError::Dtype { name, expected, given });
        }
        let slot = Slot { name, role: Role::Parameter, position, index, ty };
        let (entity, key) = group.home(&slot, at.member);
        Ok((entity, key, slot))
    });
    found.collect()
}

fn numel(parameters: &Parameters) -> usize {
    parameters.iter().map(|(.., slot)| slot.ty.shape.numel()).sum()
}

/// Copies all parameters of a module and all below it into one vector, in the order of `named_parameters()`.
///
/// # Shape
///
/// `[numel]`; each parameter is row-major.
///
/// # Errors
///
/// If `module` is no module of a model, or a parameter has elements of another type.
///
/// Source: `torch.nn.utils.parameters_to_vector(module.parameters())`.
pub fn parameters_to_vector<T: Element>(
    world: &mut World,
    module: Entity,
) -> Result<Array1<T>, VectorError> {
    let parameters = parameters::<T>(world, module)?;
    let mut numbers: Vec<T> = Vec::with_capacity(numel(&parameters));
    copy(world, &parameters, &mut numbers)?;
    Ok(numbers.into())
}

fn copy<T: Element>(
    world: &World,
    parameters: &Parameters,
    to: &mut Vec<T>,
) -> Result<(), AccessError> {
    for (entity, key, slot) in parameters {
        let (name, role) = (slot.name.clone(), slot.role);
        let row = row(world, *entity, *key).ok_or(AccessError::NoColumn { name, role })?;
        let bytes = &row[..slot.ty.size_bytes()];
        to.extend(bytemuck::pod_collect_to_vec::<u8, T>(bytes));
    }
    Ok(())
}

/// Overwrites all parameters of a module and all below it with the numbers of a vector, in the order of
/// `named_parameters()`.
///
/// # Errors
///
/// As [`parameters_to_vector`], and if the vector has another length. Nothing is written then.
///
/// Source: `torch.nn.utils.vector_to_parameters`. torch ignores what a vector has too much.
pub fn vector_to_parameters<T: Element>(
    world: &mut World,
    module: Entity,
    vector: ArrayView1<'_, T>,
) -> Result<(), VectorError> {
    let parameters = parameters::<T>(world, module)?;
    let expected = vec![numel(&parameters)];
    if vector.shape() != expected {
        return Err(VectorError::Shape { expected, given: vector.shape().to_vec() });
    }
    write(world, &parameters, vector);
    Ok(())
}

fn write<T: Element>(world: &mut World, parameters: &Parameters, vector: ArrayView1<'_, T>) {
    let numbers = vector.as_standard_layout();
    let mut rest = numbers.as_slice().unwrap_or_default();
    for (entity, key, slot) in parameters {
        let (own, behind) = rest.split_at(slot.ty.shape.numel());
        rest = behind;
        if let Some(row) = row_mut(world, *entity, *key) {
            row[..slot.ty.size_bytes()].copy_from_slice(bytemuck::cast_slice(own));
        }
    }
}

fn of_all<T: Element>(
    world: &mut World,
    population: Entity,
) -> Result<(usize, Vec<Parameters>), VectorError> {
    sign::refresh(world, population)?;
    let models = world.get::<Population>(population).map(|found| found.models().to_vec());
    let all = models.unwrap_or_default().into_iter().map(|root| parameters::<T>(world, root));
    let all = all.collect::<Result<Vec<_>, _>>()?;
    let first = all.first().map_or(0, numel);
    match all.iter().map(numel).find(|&other| other != first) {
        Some(other) => Err(VectorError::Mixed { first, other }),
        None => Ok((first, all)),
    }
}

/// Copies all parameters of each model of a population into a row of a matrix.
///
/// # Shape
///
/// `[models, numel]`, by index.
///
/// # Errors
///
/// As [`parameters_to_vector`], and if the models do not have equally many parameters.
#[expect(clippy::missing_panics_doc, reason = "there are as many numbers as the shape says")]
pub fn parameters_to_vectors<T: Element>(
    world: &mut World,
    population: Entity,
) -> Result<Array2<T>, VectorError> {
    let (numel, all) = of_all::<T>(world, population)?;
    let mut numbers: Vec<T> = Vec::with_capacity(numel * all.len());
    all.iter().try_for_each(|parameters| copy(world, parameters, &mut numbers))?;
    let shape = (all.len(), numel);
    Ok(Array2::from_shape_vec(shape, numbers).expect("as many as the parameters have"))
}

/// Overwrites all parameters of each model of a population with a row of a matrix, by index. What the population
/// [shares](crate::structure::shared) is what the last row says.
///
/// # Errors
///
/// As [`parameters_to_vectors`], and if the matrix has another shape. Nothing is written then.
pub fn vectors_to_parameters<T: Element>(
    world: &mut World,
    population: Entity,
    vectors: ArrayView2<'_, T>,
) -> Result<(), VectorError> {
    let (numel, all) = of_all::<T>(world, population)?;
    let expected = vec![all.len(), numel];
    if vectors.shape() != expected {
        return Err(VectorError::Shape { expected, given: vectors.shape().to_vec() });
    }
    for (parameters, vector) in all.iter().zip(vectors.axis_iter(Axis(0))) {
        write(world, parameters, vector);
    }
    Ok(())
}
