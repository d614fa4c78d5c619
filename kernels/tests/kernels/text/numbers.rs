//! Numbers of all kinds.

use neurarch_kernels::ir::dtype::Dtype;

/// Numbers where a function may have a case of its own.
const SPECIAL: [f64; 46] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3.0,
    -3.0,
    20.0,
    1e-40,
    -1e-40,
    1.401_298_464_324_817e-45,
    1.175_494_350_822_287_5e-38,
    3.402_823_466_385_288_6e38,
    -3.402_823_466_385_288_6e38,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    f64::MIN_POSITIVE,
    5e-324,
    f64::MAX,
    88.722_83,
    88.722_84,
    -87.4,
    -103.9,
    -104.1,
    709.782_712_893_384,
    -708.4,
    -745.13,
    -745.2,
    0.625,
    0.843_75,
    1.25,
    5.99,
    -40.1,
    65_536.0,
    -65_536.01,
    1_647_099.5,
    1e9,
    -1e10,
    1e22,
    core::f64::consts::PI,
    1_048_576.0 * core::f64::consts::FRAC_PI_2,
];

/// Numbers of a seed, of all magnitudes and spread evenly.
const RANDOM: usize = 600;

/// How many numbers [`numbers`] gives.
pub(crate) fn count() -> usize {
    SPECIAL.len() * SPECIAL.len() + 2 * RANDOM
}

/// Numbers for an input: the first two meet in all pairs of special numbers, then there are random ones.
pub(crate) fn numbers(dtype: Dtype, input: usize) -> Vec<f64> {
    let n = SPECIAL.len();
    let special = (0..n * n).map(|i| match input {
        0 => SPECIAL[i % n],
        1 => SPECIAL[i / n],
        other => SPECIAL[(i % n * (2 * other + 1) + i / n) % n],
    });
    let word = |i: usize| {
        let x = (i as u64 + 1_000_003 * (input as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (x ^ (x >> 29)).wrapping_mul(0xd6e8_feb8_6659_fd93)
    };
    let magnitudes = (0..RANDOM).map(|i| match dtype {
        Dtype::F64 => f64::from_bits(word(i)),
        _ => f32::from_bits((word(i) >> 32) as u32).into(),
    });
    let even = (RANDOM..2 * RANDOM).map(|i| (word(i) >> 11) as f64 / (1_u64 << 48) as f64 - 16.0);
    special.chain(magnitudes).chain(even).collect()
}
