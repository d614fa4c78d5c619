//! [`GradientHealth`]: whether gradients are there to learn from.

use core::cmp::Ordering;
use core::fmt;

use bevy_ecs::prelude::*;
use ndarray::Array1;
use serde::Serialize;

use crate::components::population::Population;
use crate::systems::structure::access::AccessError;
use crate::systems::structure::sign::SignError;
use crate::systems::system_params::columns::parameter_columns;
use crate::systems::system_params::gradients::{GradientStats, gradient_stats};

/// A gradient all of whose numbers are smaller than this is very small.
const VERY_SMALL: f64 = 1e-7;

/// The gradients of a module and of all below it: their norms, and what is wrong with them.
///
/// # Example
///
/// ```
/// use ndarray::{Array2, Array3};
/// use neurarch::prelude::*;
///
/// let mut world = World::new();
/// let mut brains = world.spawn_population(&Linear::new(2, 1), 3, Seed(7))?;
/// let mut x = Array3::<f32>::ones((3, 4, 2));
/// x[[1, 0, 0]] = f32::NAN; // Bad data for model 1.
/// brains.forward(&x)?;
/// brains.loss::<f32, f32>(&Array3::zeros((3, 4, 1)), &MSELoss::default())?;
/// brains.backward()?;
///
/// let health = brains.as_ref()?.check_gradient_health()?;
/// let worst = &health.models[0];
/// assert_eq!(worst.index, 1);
/// let messages = ["NaN gradient found in weight", "NaN gradient found in bias"];
/// assert_eq!(worst.health.messages(), messages);
/// assert!(health.models[1].health.is_healthy());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: the recipe `check_gradient_health`, which prints what [`messages`](Self::messages) returns.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GradientHealth {
    /// The parameters that have a gradient, in the order of `named_parameters()`.
    pub parameters: Vec<ParameterHealth>,
    /// The Euclidean norm of all gradients together.
    pub total_norm: f64,
    /// `total_norm` divided by the number of parameters that have a gradient; 0 if there are none.
    pub average_norm: f64,
}

/// The gradient of a parameter.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ParameterHealth {
    /// The parameter's dotted name.
    pub name: String,
    /// Whether the parameter needs a gradient now.
    pub requires_grad: bool,
    /// The Euclidean norm.
    pub norm: f64,
    /// The mean of the numbers without their signs.
    pub mean: f64,
    /// The greatest of the numbers without their signs.
    pub max: f64,
    /// Whether a number is NaN.
    pub has_nan: bool,
    /// Whether a number is infinite.
    pub has_inf: bool,
    /// Whether all numbers are smaller than 1e-7, signs aside.
    pub is_very_small: bool,
}

impl From<GradientStats> for ParameterHealth {
    fn from(of: GradientStats) -> Self {
        let GradientStats { name, requires_grad, norm, mean, max, has_inf } = of;
        let (has_nan, is_very_small) = (max.is_nan(), max < VERY_SMALL);
        ParameterHealth { name, requires_grad, norm, mean, max, has_nan, has_inf, is_very_small }
    }
}

impl GradientHealth {
    fn new(stats: Vec<GradientStats>) -> Self {
        let squares: f64 = stats.iter().map(|of| of.norm * of.norm).sum();
        let total_norm = squares.sqrt();
        let average_norm = if stats.is_empty() { 0.0 } else { total_norm / stats.len() as f64 };
        let parameters = stats.into_iter().map(ParameterHealth::from).collect();
        GradientHealth { parameters, total_norm, average_norm }
    }

    /// Says what is wrong, parameter after parameter, in the words of the recipe; nothing if all is well.
    pub fn messages(&self) -> Vec<String> {
        let of_parameter = |of: &ParameterHealth| {
            let nan = of.has_nan.then(|| format!("NaN gradient found in {}", of.name));
            let inf = of.has_inf.then(|| format!("Inf gradient found in {}", of.name));
            let small = of.is_very_small.then(|| format!("Very small gradients in {}", of.name));
            [nan, inf, small].into_iter().flatten()
        };
        self.parameters.iter().flat_map(of_parameter).collect()
    }

    /// Returns whether there is nothing to say.
    pub fn is_healthy(&self) -> bool {
        let is_bad = |of: &ParameterHealth| of.has_nan || of.has_inf || of.is_very_small;
        !self.parameters.iter().any(is_bad)
    }

    fn count(&self, is_so: impl Fn(&ParameterHealth) -> bool) -> usize {
        self.parameters.iter().filter(|of| is_so(of)).count()
    }

    /// Compares how bad gradients are: by the parameters with a NaN, then by those with an infinite number, then by those that
    /// are very small, then by the total norm.
    pub fn compare(&self, other: &Self) -> Ordering {
        let counts = |of: &Self| {
            [of.count(|of| of.has_nan), of.count(|of| of.has_inf), of.count(|of| of.is_very_small)]
        };
        let by_counts = counts(self).cmp(&counts(other));
        by_counts.then(self.total_norm.total_cmp(&other.total_norm))
    }
}

/// What is wrong, the norm of each parameter, total and average.
impl fmt::Display for GradientHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.messages().iter().try_for_each(|message| writeln!(f, "{message}"))?;
        let width = self.parameters.iter().map(|of| of.name.len()).max().unwrap_or(0);
        for ParameterHealth { name, norm, .. } in &self.parameters {
            writeln!(f, "{name:<width$}  norm {norm:.6}")?;
        }
        writeln!(f, "Total gradient norm: {:.6}", self.total_norm)?;
        write!(f, "Average gradient norm: {:.6}", self.average_norm)
    }
}

/// The gradients of each model of a population, the worst first.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PopulationHealth {
    /// The models, in the order of [`GradientHealth::compare`], the worst first; by index where two are equal.
    pub models: Vec<ModelHealth>,
}

/// The gradients of one model of a population.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ModelHealth {
    /// The model's index.
    pub index: usize,
    /// Its gradients.
    pub health: GradientHealth,
}

impl PopulationHealth {
    /// Returns the models with something to say, the worst first.
    pub fn unhealthy(&self) -> impl Iterator<Item = &ModelHealth> {
        self.models.iter().filter(|model| !model.health.is_healthy())
    }

    /// Returns a number of each model as a column, by index: `[models]`.
    pub fn column(&self, number: impl Fn(&GradientHealth) -> f64) -> Array1<f64> {
        let mut column = Array1::zeros(self.models.len());
        for ModelHealth { index, health } in &self.models {
            column[*index] = number(health);
        }
        column
    }
}

/// How many models are unhealthy, and the ten worst of them.
impl fmt::Display for PopulationHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 10;
        let unhealthy = self.unhealthy().count();
        write!(f, "{unhealthy} of {} models have unhealthy gradients", self.models.len())?;
        for ModelHealth { index, health } in self.unhealthy().take(SHOWN) {
            write!(f, "\nmodel {index}: {}", health.messages().join(", "))?;
        }
        match unhealthy.saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more"),
        }
    }
}

/// Measures the gradients of a module and of all below it.
///
/// # Errors
///
/// If the entity is no module of a model, or one that is not settled.
pub fn check_gradient_health(world: &World, module: Entity) -> Result<GradientHealth, AccessError> {
    let columns = parameter_columns(world, module)?;
    let stats = columns.iter().filter_map(|column| gradient_stats(column, 0).transpose());
    Ok(GradientHealth::new(stats.collect::<Result<_, _>>()?))
}

/// Measures the gradients of each model of a population, column by column.
///
/// # Errors
///
/// If there is no such population, or a model of it is not settled.
pub fn check_population(
    world: &World,
    population: Entity,
) -> Result<PopulationHealth, AccessError> {
    let not_there = SignError::NotAPopulation(population);
    let found = world.get::<Population>(population).ok_or(not_there)?;
    let mut stats: Vec<Vec<GradientStats>> = vec![Vec::new(); found.len()];
    for column in parameter_columns(world, population)? {
        for (place, &index) in column.models().iter().enumerate() {
            stats[index as usize].extend(gradient_stats(&column, place)?);
        }
    }
    let all = stats.into_iter().enumerate();
    let mut models: Vec<_> =
        all.map(|(index, of)| ModelHealth { index, health: GradientHealth::new(of) }).collect();
    // A stable sort: equal ones stay in the order of their indices.
    models.sort_by(|a, b| b.health.compare(&a.health));
    Ok(PopulationHealth { models })
}
