//! [`Buckets`]: the histogram of a log, how many numbers lie where.

/// Counts of numbers in buckets that widen by a tenth from one to the next, away from 0 to both sides.
///
/// # Example
///
/// ```
/// # use neurarch::report::log::Buckets;
/// let weights = ndarray::array![[-1.0_f32, 0.0], [0.5, f32::NAN]];
/// let histogram = Buckets::of(&weights);
/// assert_eq!((histogram.min, histogram.max, histogram.num, histogram.sum), (-1.0, 0.5, 3.0, -0.5));
/// assert_eq!(histogram.buckets.iter().sum::<f64>(), 3.0);
/// ```
///
/// Source: `torch.utils.tensorboard.SummaryWriter.add_histogram` with `bins="tensorflow"`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// The least number.
    pub min: f64,
    /// The greatest number.
    pub max: f64,
    /// How many there are. What is not finite is left out of everything, where torch refuses it.
    pub num: f64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub sum_squares: f64,
    /// The upper bound of each bucket, which is not in it.
    pub bucket_limits: Vec<f64>,
    /// How many numbers are in each bucket. The first and the last have some.
    pub buckets: Vec<f64>,
}

impl Buckets {
    /// Counts numbers, of weights or of models.
    pub fn of<'a, T: Copy + Into<f64> + 'a>(numbers: impl IntoIterator<Item = &'a T>) -> Self {
        let limits = limits();
        let mut counts = vec![0.0; limits.len()];
        let mut all = Buckets { min: f64::INFINITY, max: f64::NEG_INFINITY, ..Self::default() };
        let numbers = numbers.into_iter().map(|&number| number.into());
        for number in numbers.filter(|number: &f64| number.is_finite()) {
            all.min = all.min.min(number);
            all.max = all.max.max(number);
            all.num += 1.0;
            all.sum += number;
            all.sum_squares += number * number;
            let above = limits.partition_point(|&limit| limit <= number);
            counts[above.min(limits.len() - 1)] += 1.0;
        }
        let is_full = |&count: &f64| count > 0.0;
        let used = counts.iter().position(is_full).zip(counts.iter().rposition(is_full));
        match used {
            None => Self::default(),
            Some((first, last)) => Buckets {
                bucket_limits: limits[first..=last].to_vec(),
                buckets: counts[first..=last].to_vec(),
                ..all
            },
        }
    }
}

/// Lists the upper bounds of all buckets.
fn limits() -> Vec<f64> {
    let next = |limit: &f64| (*limit < 1e20).then_some(limit * 1.1);
    let positive: Vec<_> = core::iter::successors(Some(1e-12), next).collect();
    let negative = positive.iter().rev().map(|limit| -limit);
    negative.chain([0.0]).chain(positive.iter().copied()).chain([f64::MAX]).collect()
}
