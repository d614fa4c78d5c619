//! Random numbers drawn from a stream of words.

use neurarch_components::module::Init;
use neurarch_kernels::dtype::Element;
use rand::Rng;

/// A type that random numbers are drawn in.
pub(super) trait Sample: Element {
    /// Draws a number in `[0, 1)`, each multiple of one rounding step as likely as the others.
    fn unit(stream: &mut impl Rng) -> Self;
    /// Rounds.
    fn from_f64(value: f64) -> Self;
    /// Gives the number exactly.
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

/// Fills a row of a parameter, `columns` elements a line if it is a matrix.
pub(super) fn fill<T: Sample>(row: &mut [T], columns: usize, init: Init, stream: &mut impl Rng) {
    match init {
        Init::Zeros => row.fill(T::from_f64(0.0)),
        Init::Ones => row.fill(T::from_f64(1.0)),
        Init::Constant(value) => row.fill(T::from_f64(value)),
        Init::Eye => {
            row.fill(T::from_f64(0.0));
            for (line, elements) in row.chunks_mut(columns.max(1)).enumerate() {
                if let Some(diagonal) = elements.get_mut(line) {
                    *diagonal = T::from_f64(1.0);
                }
            }
        }
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
        Init::TruncatedNormal { mean, std, low, high } => {
            for element in row {
                *element = T::from_f64(truncated_normal(mean, std, low, high, stream));
            }
        }
    }
}

/// Draws from the standard normal distribution, by Box and Muller's method: two words a number.
fn normal(stream: &mut impl Rng) -> f64 {
    // 1 - u lies in (0, 1], where the logarithm is finite.
    let radius = (-2.0 * (1.0 - f64::unit(stream)).ln()).sqrt();
    radius * (std::f64::consts::TAU * f64::unit(stream)).cos()
}

/// How many draws outside of the bounds are thrown away before the last one is moved to the nearest
/// bound. Bounds that a normal number meets once in a hundred draws are missed so with odds of 1e-5.
const MAX_DRAWS: usize = 1_000;

fn truncated_normal(mean: f64, std: f64, low: f64, high: f64, stream: &mut impl Rng) -> f64 {
    let mut draw = || mean + std * normal(stream);
    let within = (0..MAX_DRAWS).map(|_| draw()).find(|x| (low..=high).contains(x));
    within.unwrap_or_else(|| draw().max(low).min(high))
}

#[cfg(test)]
mod tests {
    use neurarch_kernels::cpu::random::Stream;
    use neurarch_kernels::cpu::tile::Key;

    use super::*;

    fn filled(init: Init) -> Vec<f64> {
        let mut row = vec![0.0; 10_000];
        fill(&mut row, 100, init, &mut Stream::new(Key { seed: 7, ..Key::default() }, 0));
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

    #[test]
    fn eye_is_the_identity() {
        let row = filled(Init::Eye);
        assert_eq!(row.iter().sum::<f64>(), 100.0);
        assert_eq!((row[0], row[101], row[102]), (1.0, 1.0, 0.0));
    }
}
