//! The functions of `torch.nn.init`, by their names: each gives one parameter new numbers, in one module, one model or
//! all models of a population.
//!
//! The errors are those of [`fill_with`](super::fill_with), and nothing is changed then.
#![expect(clippy::missing_errors_doc, reason = "the module says it for all")]

use core::cell::Cell;
use core::panic::Location;

use bevy_ecs::prelude::*;
use neurarch_components::module::{EMPTY, Init};
use neurarch_components::warnings::Warnings;
use neurarch_kernels::ir::shape::Shape;

use super::{FanMode, InitError, NoFans, Nonlinearity, fill_with, gain};
use crate::structure::target::Target;

/// Draws from `U(low, high)`.
///
/// Source: `torch.nn.init.uniform_`.
pub fn uniform_(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    low: f64,
    high: f64,
) -> Result<(), InitError> {
    fill_with(world, target, name, |_| Ok(Init::Uniform { low, high }))
}

/// Draws from `N(mean, std²)`.
///
/// Source: `torch.nn.init.normal_`.
pub fn normal_(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    mean: f64,
    std: f64,
) -> Result<(), InitError> {
    fill_with(world, target, name, |_| Ok(Init::Normal { mean, std }))
}

/// Draws from `N(mean, std²)` until the number lies in `[low, high]`.
///
/// Source: `torch.nn.init.trunc_normal_`, whose `a` and `b` are the bounds.
#[track_caller]
pub fn trunc_normal_(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    (mean, std): (f64, f64),
    (low, high): (f64, f64),
) -> Result<(), InitError> {
    let init = Init::TruncatedNormal { mean, std, low, high };
    fill_with(world, target, name, |_| Ok(init.clone()))?;
    if mean < low - 2.0 * std || mean > high + 2.0 * std {
        Warnings::of(world).warn(&Location::caller().to_string(), FAR);
    }
    Ok(())
}

/// Writes `value` everywhere.
///
/// Source: `torch.nn.init.constant_`.
pub fn constant_(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    value: f64,
) -> Result<(), InitError> {
    fill_with(world, target, name, |_| Ok(Init::Constant(value)))
}

/// Writes 1 everywhere.
///
/// Source: `torch.nn.init.ones_`.
pub fn ones_(world: &mut World, target: impl Into<Target>, name: &str) -> Result<(), InitError> {
    fill_with(world, target, name, |_| Ok(Init::Ones))
}

/// Writes 0 everywhere.
///
/// Source: `torch.nn.init.zeros_`.
pub fn zeros_(world: &mut World, target: impl Into<Target>, name: &str) -> Result<(), InitError> {
    fill_with(world, target, name, |_| Ok(Init::Zeros))
}

/// Writes the identity matrix: `w[i, j] = 1` where `i = j`, 0 elsewhere.
///
/// Source: `torch.nn.init.eye_`.
pub fn eye_(world: &mut World, target: impl Into<Target>, name: &str) -> Result<(), InitError> {
    fill_with(world, target, name, |_| Ok(Init::Eye))
}

/// Writes 1 in the middle of the kernel of as many channels as have an input of their own, 0 elsewhere:
/// a convolution `[C_out, C_in, *K]` with so many `groups` passes its input through.
///
/// Source: `torch.nn.init.dirac_`.
pub fn dirac_(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    groups: usize,
) -> Result<(), InitError> {
    fill_with(world, target, name, |_| Ok(Init::Dirac { groups }))
}

/// Draws from `U(-k, k)`, `k = gain · √(6 / (fan_in + fan_out))`.
///
/// Source: `torch.nn.init.xavier_uniform_`.
pub fn xavier_uniform_(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    gain: f64,
) -> Result<(), InitError> {
    fill_with(world, target, name, |shape| gain::xavier_uniform(shape, gain))
}

/// Draws from `N(0, std²)`, `std = gain · √(2 / (fan_in + fan_out))`.
///
/// Source: `torch.nn.init.xavier_normal_`.
pub fn xavier_normal_(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    gain: f64,
) -> Result<(), InitError> {
    fill_with(world, target, name, |shape| gain::xavier_normal(shape, gain))
}

/// Draws from `U(-k, k)`, `k = gain · √(3 / fan)`, with the gain of the nonlinearity that follows.
///
/// Source: `torch.nn.init.kaiming_uniform_`, whose `a` is the slope in [`Nonlinearity::LeakyReLU`].
#[track_caller]
pub fn kaiming_uniform_(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    mode: FanMode,
    nonlinearity: Nonlinearity,
) -> Result<(), InitError> {
    let init = |shape: &Shape| gain::kaiming_uniform(shape, mode, nonlinearity);
    fill_unless_empty(world, target.into(), name, init)
}

/// Draws from `N(0, std²)`, `std = gain / √fan`, with the gain of the nonlinearity that follows.
///
/// Source: `torch.nn.init.kaiming_normal_`, whose `a` is the slope in [`Nonlinearity::LeakyReLU`].
#[track_caller]
pub fn kaiming_normal_(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    mode: FanMode,
    nonlinearity: Nonlinearity,
) -> Result<(), InitError> {
    let init = |shape: &Shape| gain::kaiming_normal(shape, mode, nonlinearity);
    fill_unless_empty(world, target.into(), name, init)
}

/// Draws `gain · Q` with `Q · Qᵀ = I`, or `Qᵀ · Q = I` of more rows than columns; the axes after the
/// first count as columns.
///
/// `Q · R` is a normal matrix (or its transpose) and `R` has a positive diagonal, which makes `Q`
/// uniform. Source: `torch.nn.init.orthogonal_`, where `q · sign(diag r)` does so.
pub fn orthogonal_(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    gain: f64,
) -> Result<(), InitError> {
    fill_with(world, target, name, |_| Ok(Init::Orthogonal { gain }))
}

/// Draws from `N(0, std²)` but for `⌈sparsity · rows⌉` zeros in each column.
///
/// Source: `torch.nn.init.sparse_`, which takes a `sparsity` above 1 for 1.
pub fn sparse_(
    world: &mut World,
    target: impl Into<Target>,
    name: &str,
    sparsity: f64,
    std: f64,
) -> Result<(), InitError> {
    fill_with(world, target, name, |_| Ok(Init::Sparse { sparsity, std }))
}

/// torch's warning of bounds far from the mean.
const FAR: &str = "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. The distribution of values may be \
    incorrect.";

/// Fills a parameter; one without elements is left alone, with a warning of torch's.
#[track_caller]
fn fill_unless_empty(
    world: &mut World,
    target: Target,
    name: &str,
    init: impl Fn(&Shape) -> Result<Init, NoFans>,
) -> Result<(), InitError> {
    let is_empty = Cell::new(false);
    fill_with(world, target, name, |shape| match shape.contains(&0) {
        true => {
            is_empty.set(true);
            Ok(Init::Zeros)
        }
        false => init(shape),
    })?;
    if is_empty.get() {
        Warnings::of(world).warn(&Location::caller().to_string(), EMPTY);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use neurarch_components::layers::{Conv1d, Linear};
    use neurarch_kernels::ir::dtype::Dtype;

    use super::super::number_from;
    use super::*;
    use super::{
        FanMode::{FanIn, FanOut},
        Nonlinearity::{ReLU, Sigmoid},
    };
    use crate::structure::access;
    use crate::structure::spawn::spawn_population;

    /// Fills the weight `[80, 60]` of a number of models.
    type Apply = fn(&mut World, Entity) -> Result<(), InitError>;

    fn population(inputs: usize, outputs: usize, models: usize) -> (World, Entity) {
        let mut world = World::new();
        let linear = Linear::new(inputs, outputs);
        let made = spawn_population(&mut world, &linear, models, models, 7, Dtype::F32).unwrap();
        (world, made)
    }

    fn read(world: &mut World, population: Entity) -> Vec<f32> {
        let weights = access::stack::<f32>(world, population, "weight", None).unwrap();
        weights.into_iter().collect()
    }

    fn filled(inputs: usize, outputs: usize, apply: Apply) -> Vec<f32> {
        let (mut world, made) = population(inputs, outputs, 1);
        apply(&mut world, made).unwrap();
        read(&mut world, made)
    }

    /// Fillings with their means, standard deviations and greatest distances from the mean.
    fn distributions() -> [(Apply, f64, f64, f64); 10] {
        let (inf, root) = (f64::INFINITY, 3f64.sqrt());
        let xavier = (2.0 / 140.0f64).sqrt();
        let (fan_in, fan_out) = ((2.0 / 60.0f64).sqrt(), (1.0 / 80.0f64).sqrt());
        [
            (|w, p| uniform_(w, p, "weight", 1.0, 3.0), 2.0, 1.0 / root, 1.0),
            (|w, p| normal_(w, p, "weight", -1.0, 0.5), -1.0, 0.5, inf),
            // A normal number within two standard deviations has a variance of 0.7737.
            (|w, p| trunc_normal_(w, p, "weight", (1.0, 1.0), (-1.0, 3.0)), 1.0, 0.8796, 2.0),
            (|w, p| constant_(w, p, "weight", 0.25), 0.25, 0.0, 0.0),
            (|w, p| ones_(w, p, "weight"), 1.0, 0.0, 0.0),
            (|w, p| zeros_(w, p, "weight"), 0.0, 0.0, 0.0),
            (|w, p| xavier_uniform_(w, p, "weight", 1.0), 0.0, xavier, root * xavier),
            (|w, p| xavier_normal_(w, p, "weight", 2.0), 0.0, 2.0 * xavier, inf),
            (|w, p| kaiming_uniform_(w, p, "weight", FanIn, ReLU), 0.0, fan_in, root * fan_in),
            (|w, p| kaiming_normal_(w, p, "weight", FanOut, Sigmoid), 0.0, fan_out, inf),
        ]
    }

    // 4,800 draws: the mean lies within 4 standard errors of 1/69, the deviation within 5%.
    #[test]
    fn each_has_its_bounds_and_moments() {
        for (index, (apply, mean, std, far)) in distributions().into_iter().enumerate() {
            let row: Vec<f64> = filled(60, 80, apply).into_iter().map(f64::from).collect();
            let found = row.iter().sum::<f64>() / 4_800.0;
            let square = row.iter().map(|x| (x - found).powi(2)).sum::<f64>() / 4_800.0;
            // The bounds are rounded to f32.
            assert!(row.iter().all(|x| (x - mean).abs() <= far + 1e-7), "{index}");
            assert!((found - mean).abs() <= 4.0 * std / 69.0, "{index}: mean {found}");
            assert!((square.sqrt() - std).abs() <= 0.05 * std, "{index}: std {}", square.sqrt());
        }
    }

    #[test]
    fn eye_is_the_identity() {
        assert_eq!(filled(3, 2, |w, p| eye_(w, p, "weight")), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn a_dirac_convolution_passes_its_input_through() {
        let mut world = World::new();
        let conv = Conv1d { groups: 2, bias: false, ..Conv1d::new(4, 6, 3) };
        let made = spawn_population(&mut world, &conv, 1, 1, 7, Dtype::F32).unwrap();
        dirac_(&mut world, made, "weight", 2).unwrap();
        // Three outputs a group, of which two have an input: `[6, 2, 3]`, the middle of each kernel.
        let mut expected = vec![0.0; 36];
        for (output, input) in [(0, 0), (1, 1), (3, 0), (4, 1)] {
            expected[output * 6 + input * 3 + 1] = 1.0;
        }
        assert_eq!(read(&mut world, made), expected);
        let error = dirac_(&mut world, made, "weight", 4).unwrap_err().to_string();
        assert!(error.contains("dim 0 must be divisible by groups"), "{error}");
    }

    #[test]
    fn an_orthogonal_matrix_has_gain_squared_times_the_identity_for_a_gram_matrix() {
        for (rows, columns) in [(40, 40), (40, 25), (25, 40), (1, 3), (3, 1)] {
            let row = filled(columns, rows, |w, p| orthogonal_(w, p, "weight", 1.5));
            let at = |i: usize, j: usize| {
                let at = if rows < columns { i * columns + j } else { j * columns + i };
                f64::from(row[at])
            };
            let (count, length) = (rows.min(columns), rows.max(columns));
            for (a, b) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))) {
                let gram: f64 = (0..length).map(|k| at(a, k) * at(b, k)).sum();
                let expected = if a == b { 2.25 } else { 0.0 };
                assert!((gram - expected).abs() < 1e-5, "{rows}x{columns} {a},{b}: {gram}");
            }
        }
    }

    #[test]
    fn a_sparse_matrix_has_its_fraction_of_zeros_in_each_column() {
        let row = filled(60, 81, |w, p| sparse_(w, p, "weight", 0.3, 0.01));
        let zeros = |column: usize| row.iter().skip(column).step_by(60).filter(|x| **x == 0.0);
        assert!((0..60).all(|column| zeros(column).count() == 25));
        let square = row.iter().map(|x| x * x).sum::<f32>() / (60.0 * 56.0);
        assert!((square.sqrt() - 0.01).abs() < 0.0005);
    }

    #[test]
    fn a_model_has_the_numbers_alone_that_it_has_among_many() {
        let mut all: Vec<Apply> = distributions().into_iter().map(|(apply, ..)| apply).collect();
        all.push(|w, p| orthogonal_(w, p, "weight", 1.0));
        all.push(|w, p| sparse_(w, p, "weight", 0.5, 1.0));
        for apply in all {
            let ((mut many, of_many), (mut one, alone)) =
                (population(5, 4, 9), population(5, 4, 1));
            number_from(&mut one, alone, 6).unwrap();
            apply(&mut many, of_many).unwrap();
            apply(&mut one, alone).unwrap();
            assert_eq!(read(&mut many, of_many)[6 * 20..7 * 20], read(&mut one, alone));
        }
    }

    #[test]
    fn a_second_call_draws_other_numbers_and_a_seed_the_same() {
        let (mut world, made) = population(5, 4, 3);
        let mut draw = |apply: &dyn Fn(&mut World) -> Result<(), InitError>| {
            apply(&mut world).unwrap();
            read(&mut world, made)
        };
        let normal = |world: &mut World| normal_(world, made, "weight", 0.0, 1.0);
        assert_ne!(draw(&normal), draw(&normal));
        let both = |world: &mut World| {
            normal(world)?;
            let first = read(world, made);
            normal(world)?;
            assert_ne!(read(world, made), first);
            Ok(())
        };
        let seeded = |seed: u64| move |world: &mut World| super::super::seeded(world, seed, both);
        let first = draw(&seeded(1));
        assert_ne!(draw(&normal), first);
        assert_eq!(draw(&seeded(1)), first);
        assert_ne!(draw(&seeded(2)), first);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused_and_changes_nothing() {
        let (mut world, made) = population(3, 2, 2);
        let before = read(&mut world, made);
        let w = &mut world;
        for (result, says) in [
            (xavier_normal_(w, made, "bias", 1.0), "fewer than 2 dimensions"),
            (kaiming_uniform_(w, made, "bias", FanIn, ReLU), "fewer than 2 dimensions"),
            (eye_(w, made, "bias"), "Only tensors with 2 dimensions are supported, got shape [2]"),
            (sparse_(w, made, "bias", 0.5, 1.0), "Only tensors with 2 dimensions are supported"),
            (orthogonal_(w, made, "bias", 1.0), "Only tensors with 2 or more dimensions"),
            (dirac_(w, made, "weight", 1), "Only tensors with 3, 4, or 5 dimensions are supported"),
            (sparse_(w, made, "weight", 1.5, 1.0), "sparsity in [0, 1], got 1.5"),
            (normal_(w, made, "weight", 0.0, -1.0), "std >= 0.0, but found std -1"),
            (uniform_(w, made, "weight", 1.0, 0.0), "found from=1 > to=0"),
            (trunc_normal_(w, made, "weight", (0.0, 1.0), (2.0, f64::NAN)), "from=2 > to=NaN"),
            (ones_(w, made, "wieght"), "wieght"),
        ] {
            let error = result.expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(read(&mut world, made), before);
    }
}
