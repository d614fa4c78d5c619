//! Random numbers drawn from a stream of words.

use neurarch_components::module::Init;
use neurarch_kernels::arithmetic::elementary;
use neurarch_kernels::ir::dtype::Element;
use rand::Rng;

/// A type that random numbers are drawn in.
pub(super) trait Sample: Element {
    /// Draws a number in `[0, 1)`, each multiple of one rounding step as likely as the others.
    fn unit(stream: &mut impl Rng) -> Self;
    /// Rounds.
    fn from_f64(value: f64) -> Self;
    /// Returns the number exactly.
    fn to_f64(self) -> f64;
}

impl Sample for f32 {
    fn unit(stream: &mut impl Rng) -> f32 {
        (stream.next_u32() >> 8) as f32 * (1.0 / (1u32 << 24) as f32)
    }

    fn from_f64(value: f64) -> f32 {
        value as f32
    }

    fn to_f64(self) -> f64 {
        self.into()
    }
}

impl Sample for f64 {
    fn unit(stream: &mut impl Rng) -> f64 {
        (stream.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    fn from_f64(value: f64) -> f64 {
        value
    }

    fn to_f64(self) -> f64 {
        self
    }
}

/// Fills a row of a parameter of a shape; what is one of matrices takes the axes after the first for columns.
pub(super) fn fill<T: Sample>(row: &mut [T], shape: &[usize], init: &Init, stream: &mut impl Rng) {
    let columns: usize = shape.iter().skip(1).product();
    match *init {
        Init::Zeros => row.fill(T::from_f64(0.0)),
        Init::Ones => row.fill(T::from_f64(1.0)),
        Init::Constant(value) => row.fill(T::from_f64(value)),
        Init::Numbers(ref numbers) => {
            for (element, &number) in row.iter_mut().zip(numbers.iter()) {
                *element = T::from_f64(number);
            }
        }
        Init::Eye => {
            row.fill(T::from_f64(0.0));
            for (line, elements) in row.chunks_mut(columns.max(1)).enumerate() {
                if let Some(diagonal) = elements.get_mut(line) {
                    *diagonal = T::from_f64(1.0);
                }
            }
        }
        Init::Dirac { groups } => dirac(row, shape, groups),
        Init::Uniform { low, high } => {
            for element in row {
                *element = T::from_f64(low + (high - low) * T::unit(stream).to_f64());
            }
        }
        Init::Normal { mean, std } => {
            for element in row {
                *element = T::from_f64(mean + std * normal(stream));
            }
        }
        Init::NormalRows { zero } => {
            row.iter_mut().for_each(|element| *element = T::from_f64(normal(stream)));
            let zeros = row.chunks_mut(columns.max(1)).nth(zero);
            zeros.into_iter().for_each(|row| row.fill(T::from_f64(0.0)));
        }
        Init::TruncatedNormal { mean, std, low, high } => {
            for element in row {
                *element = T::from_f64(truncated_normal(mean, std, low, high, stream));
            }
        }
        Init::Orthogonal { gain } => orthogonal(row, columns, gain, stream),
        Init::Sparse { sparsity, std } => {
            row.iter_mut().for_each(|element| *element = T::from_f64(std * normal(stream)));
            scatter_zeros(row, columns, sparsity, stream);
        }
    }
}

/// Writes the convolution `[C_out, C_in, *K]` that passes its input through, in each of its groups.
fn dirac<T: Sample>(row: &mut [T], shape: &[usize], groups: usize) {
    row.fill(T::from_f64(0.0));
    let [outputs, inputs, ref kernel @ ..] = *shape else { return };
    let middle = kernel.iter().fold(0, |at, &size| at * size + size / 2);
    let size: usize = kernel.iter().product();
    let outputs = outputs / groups.max(1);
    for (group, channel) in (0..groups).flat_map(|g| (0..outputs.min(inputs)).map(move |c| (g, c)))
    {
        let at = ((group * outputs + channel) * inputs + channel) * size + middle;
        if let Some(element) = row.get_mut(at) {
            *element = T::from_f64(1.0);
        }
    }
}

/// What is left of a normal vector beside those before it; less than this is rounding, not direction.
const LEAST_NORM: f64 = 1e-8;

/// Fills a matrix with `gain` times the `Q` of a normal one's QR decomposition whose `R` has a positive
/// diagonal; of the transposed one's if there are fewer rows than columns.
///
/// Gram and Schmidt's method yields that sign by itself. Each vector goes through it twice, after which
/// it is orthogonal to those before within rounding.
fn orthogonal<T: Sample>(row: &mut [T], columns: usize, gain: f64, stream: &mut impl Rng) {
    let columns = columns.max(1);
    let rows = row.len() / columns;
    let is_wide = rows < columns;
    let (length, count) = if is_wide { (columns, rows) } else { (rows, columns) };
    let mut basis: Vec<Vec<f64>> = Vec::new();
    while basis.len() < count.min(length) {
        let mut vector: Vec<f64> = (0..length).map(|_| normal(stream)).collect();
        for other in basis.iter().chain(&basis) {
            let along = dot(other, &vector);
            vector.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
        }
        let norm = dot(&vector, &vector).sqrt();
        if norm > LEAST_NORM {
            vector.iter_mut().for_each(|x| *x /= norm);
            basis.push(vector);
        }
    }
    for (i, vector) in basis.iter().enumerate() {
        for (j, &x) in vector.iter().enumerate() {
            let at = if is_wide { i * columns + j } else { j * columns + i };
            row[at] = T::from_f64(gain * x);
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Sets `⌈sparsity · rows⌉` elements of each column to zero, any choice as likely as another.
fn scatter_zeros<T: Sample>(row: &mut [T], columns: usize, sparsity: f64, stream: &mut impl Rng) {
    let rows = row.len() / columns.max(1);
    let zeros = ((sparsity * rows as f64).ceil() as usize).min(rows);
    let mut order: Vec<usize> = (0..rows).collect();
    for column in 0..columns {
        for drawn in 0..zeros {
            let among = rows - drawn;
            let ahead = (f64::unit(stream) * among as f64) as usize;
            order.swap(drawn, drawn + ahead.min(among - 1));
            row[order[drawn] * columns + column] = T::from_f64(0.0);
        }
    }
}

/// Draws from the standard normal distribution, by Box and Muller's method: two words a number.
fn normal(stream: &mut impl Rng) -> f64 {
    // 1 - u lies in (0, 1], where the logarithm is finite.
    let radius = (-2.0 * elementary::ln(1.0 - f64::unit(stream))).sqrt();
    radius * elementary::cos(std::f64::consts::TAU * f64::unit(stream))
}

/// How many draws outside of the bounds are thrown away before numbers are drawn between the bounds only.
const MAX_DRAWS: usize = 1_000;

fn truncated_normal(mean: f64, std: f64, low: f64, high: f64, stream: &mut impl Rng) -> f64 {
    let mut draw = || mean + std * normal(stream);
    let within = (0..MAX_DRAWS).map(|_| draw()).find(|x| (low..=high).contains(x));
    within.unwrap_or_else(|| {
        let (from, to) = ((low - mean) / std, (high - mean) / std);
        // By symmetry the bounds may be taken to lie on the right.
        let x = if to < 0.0 { -tail(-to, -from, stream) } else { tail(from, to, stream) };
        let x = mean + std * x;
        // Of no deviation there is one number.
        let x = if x.is_nan() { mean } else { x };
        x.max(low).min(high)
    })
}

/// Draws from the standard normal distribution between bounds that are seldom met, `to` not below 0: candidates
/// are uniform between near bounds, else exponential behind the nearer one, and kept as the density asks.
///
/// Source: Robert, "Simulation of truncated normal variables", 1995.
fn tail(from: f64, to: f64, stream: &mut impl Rng) -> f64 {
    let nearest = from.max(0.0);
    let rate = f64::midpoint(nearest, elementary::hypot(nearest, 2.0));
    let is_near = (to - from) * rate < 2.0;
    let mut candidate = || {
        let (u, kept) = (f64::unit(stream), f64::unit(stream));
        let (x, ratio) = if is_near {
            let x = from + u * (to - from);
            (x, (nearest - x) * (nearest + x) / 2.0)
        } else {
            let x = from - elementary::ln(1.0 - u) / rate;
            (x, -(x - rate) * (x - rate) / 2.0)
        };
        (x <= to && kept <= elementary::exp(ratio)).then_some(x)
    };
    (0..MAX_DRAWS).find_map(|_| candidate()).unwrap_or(nearest)
}

#[cfg(test)]
mod tests {
    use neurarch_kernels::cpu::random::Stream;
    use neurarch_kernels::ir::rng_key::RngKey;

    use super::*;

    fn filled(init: Init) -> Vec<f64> {
        let mut row = vec![0.0; 10_000];
        fill(
            &mut row,
            &[100, 100],
            &init,
            &mut Stream::new(RngKey { seed: 7, ..RngKey::default() }, 0),
        );
        row
    }

    fn moments(row: &[f64]) -> (f64, f64) {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        let square = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
        (mean, square.sqrt())
    }

    // 10,000 draws: the mean lies within 4 standard errors.
    #[test]
    fn numbers_have_the_mean_and_deviation_asked_for() {
        let (mean, std) = moments(&filled(Init::Normal { mean: 3.0, std: 2.0 }));
        assert!((mean - 3.0).abs() < 0.08 && (std - 2.0).abs() < 0.06, "{mean} {std}");
        let (mean, std) = moments(&filled(Init::Uniform { low: -1.0, high: 1.0 }));
        assert!(mean.abs() < 0.024 && (std - 1.0 / 3f64.sqrt()).abs() < 0.02, "{mean} {std}");
    }

    #[test]
    fn truncated_numbers_stay_within_their_bounds() {
        let row = filled(Init::TruncatedNormal { mean: 0.0, std: 1.0, low: -0.5, high: 2.0 });
        assert!(row.iter().all(|x| (-0.5..=2.0).contains(x)));
    }

    // The moments of the distribution, to 4 standard errors.
    #[test]
    fn bounds_far_from_the_mean_keep_the_distribution() {
        let of =
            |mean, low, high| moments(&filled(Init::TruncatedNormal { mean, std: 1.0, low, high }));
        for (found, expected) in [
            (of(-4.0, -1.0, f64::INFINITY), (-0.716_902, 0.265_630)),
            (of(5.0, -1.0, 1.0), (0.774_453, 0.215_771)),
            (of(0.0, 7.0, 7.01), (7.004_942, 0.002_886)),
        ] {
            let error = 4.0 * expected.1 / 100.0;
            assert!((found.0 - expected.0).abs() < error, "{found:?}, not {expected:?}");
            assert!((found.1 - expected.1).abs() < error, "{found:?}, not {expected:?}");
        }
        assert_eq!(
            truncated_normal(3.0, 0.0, -1.0, 1.0, &mut Stream::new(RngKey::default(), 0)),
            1.0
        );
    }

    #[test]
    fn eye_is_the_identity() {
        let row = filled(Init::Eye);
        assert_eq!(row.iter().sum::<f64>(), 100.0);
        assert_eq!((row[0], row[101], row[102]), (1.0, 1.0, 0.0));
    }
}
