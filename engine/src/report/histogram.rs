//! [`Histogram`]: how the numbers of weights and gradients are distributed.

use bevy_ecs::prelude::*;
use serde::Serialize;

use crate::components::population::Population;
use crate::kernels::ir::dtype::{Dtype, Element, bf16, f16};
use crate::systems::structure::access::AccessError;
use crate::systems::system_params::parameters::Parameters;

/// How many numbers lie in each of some bins of one width, from the least number to the greatest.
///
/// # Example
///
/// ```
/// use neurarch::report::histogram::Histogram;
///
/// let of = Histogram::new("x", 4, || [1.0, 2.0, 2.5, 5.0, f64::NAN].into_iter());
/// assert_eq!((of.edges(), &of.counts[..]), (vec![1.0, 2.0, 3.0, 4.0, 5.0], &[1, 2, 0, 1][..]));
/// assert_eq!(of.not_finite, 1);
/// ```
///
/// Source: `numpy.histogram`, also where all numbers are equal: they lie in the middle of a range of width 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Histogram {
    /// The name of what has the numbers.
    pub name: String,
    /// The first edge.
    pub min: f64,
    /// The last edge.
    pub max: f64,
    /// The number of numbers in each bin, edges left included, that of the last bin right, too.
    pub counts: Vec<u64>,
    /// The number of those that are NaN or infinite: they lie in no bin.
    pub not_finite: u64,
}

impl Histogram {
    /// Counts numbers, which are asked for twice, in at least one bin.
    pub fn new<I: Iterator<Item = f64>>(name: &str, bins: usize, numbers: impl Fn() -> I) -> Self {
        Self::by(name, bins, |count| {
            numbers().for_each(count);
            Ok(())
        })
        .unwrap_or_else(|never: core::convert::Infallible| match never {})
    }

    /// [`new`](Self::new) of numbers that somebody visits, twice.
    fn by<E>(
        name: &str,
        bins: usize,
        visit: impl Fn(&mut dyn FnMut(f64)) -> Result<(), E>,
    ) -> Result<Self, E> {
        let (mut min, mut max, mut not_finite) = (f64::INFINITY, f64::NEG_INFINITY, 0);
        visit(&mut |x| match x.is_finite() {
            true => (min, max) = (min.min(x), max.max(x)),
            false => not_finite += 1,
        })?;
        if min > max {
            (min, max) = (0.0, 1.0);
        } else if min == max {
            (min, max) = (min - 0.5, max + 0.5);
        }
        let bins = bins.max(1);
        let (mut counts, per_number) = (vec![0; bins], bins as f64 / (max - min));
        visit(&mut |x| {
            if x.is_finite() {
                counts[((x - min) * per_number).min((bins - 1) as f64) as usize] += 1;
            }
        })?;
        Ok(Histogram { name: name.to_owned(), min, max, counts, not_finite })
    }

    /// Returns the edges of the bins, one more than there are bins.
    pub fn edges(&self) -> Vec<f64> {
        let width = (self.max - self.min) / self.counts.len() as f64;
        let inner = (0..self.counts.len()).map(|bin| self.min + bin as f64 * width);
        inner.chain([self.max]).collect()
    }
}

/// Which numbers of parameters are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Numbers {
    /// Their values.
    Weights,
    /// Their gradients, where they have one.
    Gradients,
}

/// Makes a histogram of each parameter of a module and of all below it, or of each parameter of a population's models, those
/// of one name together. Parameters of whole numbers are left out, and without a gradient where those are counted.
///
/// # Errors
///
/// If the entity is neither, or a model is not settled.
pub fn histograms(
    world: &World,
    entity: Entity,
    numbers: Numbers,
    bins: usize,
) -> Result<Vec<Histogram>, AccessError> {
    let parameters = Parameters::from(world);
    let population = world.get::<Population>(entity);
    let modules = population.map_or_else(|| vec![entity], |found| found.models().to_vec());
    let mut found: Vec<(String, Vec<(Entity, Dtype)>)> = Vec::new();
    for module in modules {
        for (place, of) in parameters.named_parameters(module)?.into_iter().enumerate() {
            let (name, at) = (of.name, (module, of.ty.dtype));
            // Mostly all models have the same names in the same order.
            let known = match found.get(place) {
                Some((known, _)) if *known == name => Some(place),
                _ => found.iter().position(|(known, _)| *known == name),
            };
            match known {
                Some(place) => found[place].1.push(at),
                None => found.push((name, vec![at])),
            }
        }
    }
    let mut all = Vec::with_capacity(found.len());
    for (name, modules) in found {
        let is_there = core::cell::Cell::new(false);
        let made = Histogram::by(&name, bins, |count| {
            modules.iter().try_for_each(|&(module, dtype)| {
                let visited = visit(parameters, module, (&name, dtype), numbers, count)?;
                is_there.set(is_there.get() | visited);
                Ok::<_, AccessError>(())
            })
        })?;
        all.extend(is_there.get().then_some(made));
    }
    Ok(all)
}

/// Visits the numbers of a parameter; says whether there are any.
fn visit(
    parameters: Parameters<'_>,
    module: Entity,
    (name, dtype): (&str, Dtype),
    numbers: Numbers,
    count: &mut dyn FnMut(f64),
) -> Result<bool, AccessError> {
    fn each<T: Element>(
        parameters: Parameters<'_>,
        (module, name): (Entity, &str),
        numbers: Numbers,
        mut count: impl FnMut(T),
    ) -> Result<bool, AccessError> {
        let view = match numbers {
            Numbers::Weights => Some(parameters.parameter::<T>(module, name)?),
            Numbers::Gradients => parameters.gradient::<T>(module, name)?,
        };
        view.iter().flatten().for_each(|x| count(*x));
        Ok(view.is_some())
    }
    let at = (module, name);
    match dtype {
        Dtype::F32 => each(parameters, at, numbers, |x: f32| count(x.into())),
        Dtype::F64 => each(parameters, at, numbers, count),
        Dtype::F16 => each(parameters, at, numbers, |x: f16| count(x.into())),
        Dtype::BF16 => each(parameters, at, numbers, |x: bf16| count(x.into())),
        Dtype::I64 | Dtype::Bool => Ok(false),
    }
}
