//! [`Quantiles`]: what ten thousand numbers come to.

use core::iter::once;

use crate::report::log::LogError;

/// Which numbers stand for those of all models: some quantiles, and the best few models.
///
/// Numbers are selected, not sorted: 10,000 of them take some 50 µs. The memory is used again.
///
/// # Example
///
/// ```
/// # use neurarch::report::log::Quantiles;
/// let losses = ndarray::array![0.5_f32, f32::NAN, 0.125, 2.0];
/// let found = Quantiles::default().levels([0.0, 0.5, 1.0])?.top(2).of(&losses);
/// assert_eq!(found.quantiles, [(0.0, 0.125), (0.5, 0.5), (1.0, 2.0)]);
/// assert_eq!(found.top, [(2, 0.125), (0, 0.5)]); // model and loss
/// assert_eq!((found.count, found.nan), (4, 1));
/// # Ok::<(), neurarch::report::log::LogError>(())
/// ```
///
/// Source: `torch.nanquantile` with `interpolation="linear"`, and `torch.topk`, which counts NaN as the largest.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantiles {
    /// In increasing order.
    levels: Vec<f64>,
    top: usize,
    largest: bool,
    numbers: Vec<f64>,
    models: Vec<u32>,
}

/// The quantiles 0, 0.25, 0.5, 0.75 and 1, and the model with the smallest number.
impl Default for Quantiles {
    fn default() -> Self {
        Quantiles {
            levels: vec![0.0, 0.25, 0.5, 0.75, 1.0],
            top: 1,
            largest: false,
            numbers: Vec::new(),
            models: Vec::new(),
        }
    }
}

/// What the numbers of all models come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// How many models there are.
    pub count: usize,
    /// How many of their numbers are NaN: they are left out of what follows.
    pub nan: usize,
    /// Levels and quantiles, in order of the levels; NaN if there is no number.
    pub quantiles: Vec<(f64, f64)>,
    /// Models and their numbers, the best first; among equals the first model.
    pub top: Vec<(usize, f64)>,
}

impl Quantiles {
    /// Chooses the levels: 0 for the least number, 0.5 for the median, 1 for the greatest.
    ///
    /// # Errors
    ///
    /// [`LogError::Level`] if one is not from 0 to 1.
    pub fn levels(self, levels: impl IntoIterator<Item = f64>) -> Result<Self, LogError> {
        let mut levels: Vec<_> = levels.into_iter().collect();
        match levels.iter().find(|level| !(0.0..=1.0).contains(*level)) {
            Some(&given) => Err(LogError::Level { given }),
            None => {
                levels.sort_by(f64::total_cmp);
                Ok(Quantiles { levels, ..self })
            }
        }
    }

    /// Chooses how many of the best models are named.
    #[must_use]
    pub fn top(self, top: usize) -> Self {
        Quantiles { top, ..self }
    }

    /// Chooses whether large numbers are the best, as accuracies are. At first small ones are, as losses are.
    #[must_use]
    pub fn largest(self, largest: bool) -> Self {
        Quantiles { largest, ..self }
    }

    /// Finds the quantiles and the best of the numbers of all models, `[models]` by index.
    pub fn of<'a, T: Copy + Into<f64> + 'a>(
        &mut self,
        numbers: impl IntoIterator<Item = &'a T>,
    ) -> Distribution {
        self.numbers.clear();
        self.numbers.extend(numbers.into_iter().map(|&number| number.into()));
        let count = self.numbers.len();
        let top = self.find_top();
        self.numbers.retain(|number| !number.is_nan());
        let nan = count - self.numbers.len();
        Distribution { count, nan, quantiles: self.find_quantiles(), top }
    }

    /// Names the columns that [`of`](Quantiles::of) fills in a CSV file under a tag.
    pub fn columns(&self, tag: &str) -> Vec<String> {
        let quantiles = self.levels.iter().map(|&level| (level, 0.0)).collect();
        let all = Distribution { quantiles, top: vec![(0, 0.0); self.top], ..Default::default() };
        all.scalars().map(|(name, _)| format!("{tag}/{name}")).collect()
    }

    fn find_top(&mut self) -> Vec<(usize, f64)> {
        let Quantiles { top, largest, numbers, models, .. } = self;
        models.clear();
        let some = if *top > 0 { numbers.as_slice() } else { &[] };
        let are_numbers = some.iter().enumerate().filter(|(_, number)| !number.is_nan());
        models.extend(are_numbers.map(|(model, _)| model as u32));
        let by_rank = |a: &u32, b: &u32| {
            let [x, y] = [a, b].map(|&model| numbers[model as usize]);
            let (x, y) = if *largest { (y, x) } else { (x, y) };
            x.total_cmp(&y).then(a.cmp(b))
        };
        if *top < models.len() {
            models.select_nth_unstable_by(*top, by_rank);
            models.truncate(*top);
        }
        models.sort_unstable_by(by_rank);
        models.iter().map(|&model| (model as usize, numbers[model as usize])).collect()
    }

    fn find_quantiles(&mut self) -> Vec<(f64, f64)> {
        let last = self.numbers.len().saturating_sub(1);
        // The numbers of these ranks and above.
        let (mut from, mut rest) = (0, self.numbers.as_mut_slice());
        let mut found = Vec::with_capacity(self.levels.len());
        for &level in &self.levels {
            if rest.is_empty() {
                found.push((level, f64::NAN));
                continue;
            }
            let rank = level * last as f64;
            let below = (rank as usize).min(last);
            rest.select_nth_unstable_by(below - from, f64::total_cmp);
            (from, rest) = (below, &mut rest[below - from..]);
            let weight = rank - below as f64;
            let next =
                if weight > 0.0 { rest[1..].iter().copied().min_by(f64::total_cmp) } else { None };
            found.push((level, next.map_or(rest[0], |next| lerp(rest[0], next, weight))));
        }
        found
    }
}

/// Source: `torch.lerp`, to the same bits.
fn lerp(start: f64, end: f64, weight: f64) -> f64 {
    match weight < 0.5 {
        true => start + weight * (end - start),
        false => end - (end - start) * (1.0 - weight),
    }
}

impl Distribution {
    /// Lists all numbers with their names: `q50` is the median, `top1` the best number, `top1_model` whose it is, `nan` how many
    /// are none.
    pub fn scalars(&self) -> impl Iterator<Item = (String, f64)> {
        let quantiles =
            self.quantiles.iter().map(|&(level, number)| (quantile_name(level), number));
        let top = self.top.iter().zip(1..).flat_map(|(&(model, number), place)| {
            [(format!("top{place}"), number), (format!("top{place}_model"), model as f64)]
        });
        quantiles.chain(top).chain(once(("nan".to_owned(), self.nan as f64)))
    }
}

/// Names a quantile by its per cent: `q2.5`.
pub(super) fn quantile_name(level: f64) -> String {
    format!("q{}", (level * 1e6).round() / 1e4)
}
