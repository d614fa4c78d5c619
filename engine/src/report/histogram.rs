//! [`Histogram`]: how numbers are distributed, those of weights and gradients or any others; for pictures and for logs.

use bevy_ecs::prelude::*;
use bytemuck::cast_slice;
use serde::Serialize;

use crate::kernels::ir::dtype::{Dtype, bf16, f16};
use crate::systems::structure::access::AccessError;
use crate::systems::system_params::columns::{ParameterColumn, parameter_columns};

/// How many numbers lie in each of some bins: bins of one width ([`new`](Self::new)), or such that widen away from 0
/// ([`widening`](Self::widening)). Both can be [drawn](crate::report) and
/// [logged](crate::report::log::Logger::add_histogram).
///
/// # Example
///
/// ```
/// use neurarch::report::histogram::Histogram;
///
/// let of = Histogram::new("x", 4, || [1.0, 2.0, 2.5, 5.0, f64::NAN].into_iter());
/// assert_eq!((&of.edges[..], &of.counts[..]), (&[1.0, 2.0, 3.0, 4.0, 5.0][..], &[1, 2, 0, 1][..]));
/// assert_eq!((of.num, of.sum, of.not_finite), (4, 10.5, 1));
///
/// let of = Histogram::widening("w", &ndarray::array![[-1.0_f32, 0.0], [0.5, f32::NAN]]);
/// assert_eq!((of.min, of.max, of.num, of.sum), (-1.0, 0.5, 3, -0.5));
/// assert_eq!(of.counts.iter().sum::<u64>(), 3);
/// ```
///
/// Source: `numpy.histogram`, and `torch.utils.tensorboard.SummaryWriter.add_histogram`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Histogram {
    /// The name of what has the numbers.
    pub name: String,
    /// The least of the numbers that are finite; 0 if there are none.
    pub min: f64,
    /// The greatest of them; 0 if there are none.
    pub max: f64,
    /// The number of those that are finite.
    pub num: u64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub sum_squares: f64,
    /// The edges of the bins, one more than there are bins.
    pub edges: Vec<f64>,
    /// The number of numbers in each bin, edges left included. The last of those of one width has its right edge, too.
    pub counts: Vec<u64>,
    /// The number of those that are NaN or infinite: they lie in no bin, where torch refuses them.
    pub not_finite: u64,
}

impl Histogram {
    /// Counts numbers, which are asked for twice, in at least one bin; all bins have one width, from the least number to the
    /// greatest.
    ///
    /// Source: `numpy.histogram`, also where all numbers are equal: they lie in the middle of a range of width 1.
    pub fn new<I: Iterator<Item = f64>>(name: &str, bins: usize, numbers: impl Fn() -> I) -> Self {
        Self::by(name, bins, |count| {
            numbers().for_each(count);
            Ok(())
        })
        .unwrap_or_else(|never: core::convert::Infallible| match never {})
    }

    /// Counts numbers in bins that widen by a tenth from one to the next, away from 0 to both sides. The first and the last
    /// have some.
    ///
    /// Source: `torch.utils.tensorboard.SummaryWriter.add_histogram` with `bins="tensorflow"`.
    pub fn widening<'a, T: Copy + Into<f64> + 'a>(
        name: &str,
        numbers: impl IntoIterator<Item = &'a T>,
    ) -> Self {
        let limits = limits();
        let mut counts = vec![0; limits.len()];
        let mut all = Histogram::nothing(name);
        for &number in numbers {
            let number = number.into();
            if all.take(number) {
                let above = limits.partition_point(|&limit| limit <= number);
                counts[above.min(limits.len() - 1)] += 1;
            }
        }
        let is_full = |&count: &u64| count > 0;
        let used = counts.iter().position(is_full).zip(counts.iter().rposition(is_full));
        if let Some((first, last)) = used {
            let lowest = first.checked_sub(1).map_or(f64::MIN, |before| limits[before]);
            all.edges =
                core::iter::once(lowest).chain(limits[first..=last].iter().copied()).collect();
            all.counts = counts[first..=last].to_vec();
        }
        all.finished()
    }

    /// [`new`](Self::new) of numbers that somebody visits, twice.
    fn by<E>(
        name: &str,
        bins: usize,
        visit: impl Fn(&mut dyn FnMut(f64)) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut all = Histogram::nothing(name);
        visit(&mut |x| {
            all.take(x);
        })?;
        let (min, max) = match all.num {
            0 => (0.0, 1.0),
            _ if all.min == all.max => (all.min - 0.5, all.max + 0.5),
            _ => (all.min, all.max),
        };
        let bins = bins.max(1);
        let (mut counts, per_number) = (vec![0; bins], bins as f64 / (max - min));
        visit(&mut |x| {
            if x.is_finite() {
                counts[((x - min) * per_number).min((bins - 1) as f64) as usize] += 1;
            }
        })?;
        let width = (max - min) / bins as f64;
        let inner = (0..bins).map(|bin| min + bin as f64 * width);
        all.edges = inner.chain([max]).collect();
        all.counts = counts;
        Ok(all.finished())
    }

    /// Counts nothing yet.
    fn nothing(name: &str) -> Self {
        let (min, max) = (f64::INFINITY, f64::NEG_INFINITY);
        Histogram { name: name.to_owned(), min, max, ..Histogram::default() }
    }

    /// Takes a number into account; says whether it lies in a bin.
    fn take(&mut self, x: f64) -> bool {
        if !x.is_finite() {
            self.not_finite += 1;
            return false;
        }
        (self.min, self.max) = (self.min.min(x), self.max.max(x));
        self.num += 1;
        self.sum += x;
        self.sum_squares += x * x;
        true
    }

    /// Gives a histogram without numbers a least and a greatest one.
    fn finished(mut self) -> Self {
        if self.num == 0 {
            (self.min, self.max) = (0.0, 0.0);
        }
        self
    }
}

/// Lists the upper bounds of all bins that widen.
fn limits() -> Vec<f64> {
    let next = |limit: &f64| (*limit < 1e20).then_some(limit * 1.1);
    let positive: Vec<_> = core::iter::successors(Some(1e-12), next).collect();
    let negative = positive.iter().rev().map(|limit| -limit);
    negative.chain([0.0]).chain(positive.iter().copied()).chain([f64::MAX]).collect()
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
/// A parameter is looked up once for all models of a structure.
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
    let columns = parameter_columns(world, entity)?;
    let mut names: Vec<&str> = Vec::new();
    for column in columns.iter().filter(|column| column.ty().dtype.is_float()) {
        if !names.contains(&column.name()) {
            names.push(column.name());
        }
    }
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        let is_there = core::cell::Cell::new(false);
        let made = Histogram::by(name, bins, |count| {
            columns.iter().filter(|column| column.name() == name).try_for_each(|column| {
                let visited = visit(column, numbers, count)?;
                is_there.set(is_there.get() | visited);
                Ok::<_, AccessError>(())
            })
        })?;
        all.extend(is_there.get().then_some(made));
    }
    Ok(all)
}

/// Visits the numbers of a column; says whether there are any.
fn visit(
    column: &ParameterColumn<'_>,
    numbers: Numbers,
    count: &mut dyn FnMut(f64),
) -> Result<bool, AccessError> {
    let mut is_there = false;
    for place in 0..column.models().len() {
        let row = match numbers {
            Numbers::Weights => Some(column.numbers(place)?),
            Numbers::Gradients => column.gradient(place)?,
        };
        let Some(row) = row else { continue };
        is_there |= column.ty().dtype.is_float();
        match column.ty().dtype {
            Dtype::F32 => cast_slice(row).iter().for_each(|&x: &f32| count(x.into())),
            Dtype::F64 => cast_slice(row).iter().copied().for_each(&mut *count),
            Dtype::F16 => cast_slice(row).iter().for_each(|&x: &f16| count(x.into())),
            Dtype::BF16 => cast_slice(row).iter().for_each(|&x: &bf16| count(x.into())),
            Dtype::I64 | Dtype::Bool => {}
        }
    }
    Ok(is_there)
}
