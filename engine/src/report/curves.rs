//! [`Curves`]: curves of a population, such as its losses: best, quartiles and median, worst.

use ndarray::{ArrayView2, Axis};
use serde::Serialize;

/// How the numbers of a population's models are distributed, step after step.
///
/// Each curve has a number for each step; the best is the least, as of losses. A number that is NaN counts as the worst.
///
/// # Example
///
/// ```
/// use neurarch::report::curves::Curves;
///
/// let losses = ndarray::array![[4.0, 1.0], [2.0, 2.0], [3.0, f64::NAN], [1.0, 3.0], [5.0, 5.0]]; // [models, steps]
/// let curves = Curves::of(losses.view());
/// assert_eq!((curves.best, curves.median), (vec![1.0, 1.0], vec![3.0, 3.0]));
/// assert_eq!((curves.lower, curves.upper), (vec![2.0, 2.0], vec![4.0, 5.0]));
/// assert!(curves.worst[0] == 5.0 && curves.worst[1].is_nan());
/// ```
///
/// Source: `numpy.quantile`, which interpolates linearly.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Curves {
    /// The least number of each step.
    pub best: Vec<f64>,
    /// The first quartile.
    pub lower: Vec<f64>,
    /// The median.
    pub median: Vec<f64>,
    /// The third quartile.
    pub upper: Vec<f64>,
    /// The greatest number.
    pub worst: Vec<f64>,
}

impl Curves {
    /// Orders the numbers of each step, `[models, steps]`, as [`train_steps`](crate::PopulationMut::train_steps) returns
    /// losses. Without models there are no steps.
    pub fn of<T: Copy + Into<f64>>(numbers: ArrayView2<'_, T>) -> Self {
        let mut curves = Curves::default();
        if numbers.nrows() == 0 {
            return curves;
        }
        for step in numbers.axis_iter(Axis(1)) {
            // A NaN may have a sign, which would put it first.
            let number = |x: &T| -> f64 {
                Some((*x).into()).filter(|x: &f64| !x.is_nan()).unwrap_or(f64::NAN)
            };
            let mut sorted: Vec<_> = step.iter().map(number).collect();
            sorted.sort_unstable_by(f64::total_cmp);
            let Curves { best, lower, median, upper, worst } = &mut curves;
            for (curve, part) in
                [(best, 0.0), (lower, 0.25), (median, 0.5), (upper, 0.75), (worst, 1.0)]
            {
                curve.push(quantile(&sorted, part));
            }
        }
        curves
    }

    /// Counts the steps.
    pub fn steps(&self) -> usize {
        self.median.len()
    }
}

/// Interpolates between the two numbers at a part of a sorted list, which is not empty.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (low, rest) = (place as usize, place.fract());
    match rest == 0.0 {
        true => sorted[low],
        false => sorted[low] + (sorted[low + 1] - sorted[low]) * rest,
    }
}
