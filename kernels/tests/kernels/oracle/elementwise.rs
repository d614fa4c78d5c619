//! Formulas of numbers, one element at a time.

use super::interpreter::{Call, Compute, broadcast, coordinates};

/// Applies a formula to broadcast inputs.
fn each(call: &Call<'_>, formula: impl Fn(&[f64]) -> f64) -> Vec<Vec<f64>> {
    let of =
        |at: Vec<usize>| formula(&call.x.iter().map(|x| broadcast(x, &at)).collect::<Vec<_>>());
    vec![coordinates(&call.outputs[0].shape).into_iter().map(of).collect()]
}

macro_rules! formulas {
    ($($name:literal: |$($x:pat_param),*| $y:expr;)*) => {
        pub(crate) const TABLE: &[(&str, Compute)] = &[
            $(($name, |call| each(call, |x| {
                let &[$($x),*] = x else { panic!("{} has {} inputs", $name, x.len()) };
                $y
            })),)*
            ("gelu", |call| {
                let tanh = call.has("approximate=tanh");
                each(call, |x| x[0] * normal(tanh, x[0]))
            }),
            ("gelu_gradient", |call| {
                let tanh = call.has("approximate=tanh");
                each(call, |x| x[0] * (normal(tanh, x[1]) + x[1] * density(tanh, x[1])))
            }),
            ("pow", |call| {
                let exponent: f64 = call.after("exponent=").parse().expect("a number");
                each(call, |x| x[0].powf(exponent))
            }),
        ];
    };
}

formulas! {
    "add": |a, b| a + b;
    "sub": |a, b| a - b;
    "mul": |a, b| a * b;
    "div": |a, b| a / b;
    "divisor_gradient": |dy, y, b| -dy * y / b;
    "maximum": |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) };
    "minimum": |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) };
    "extreme_gradient": |dy, y, a, b| if a == b { dy / 2.0 } else if a == y { dy } else { 0.0 };
    "eq": |a, b| truth(a == b);
    "lt": |a, b| truth(a < b);
    "where": |condition, a, b| if condition == 0.0 { b } else { a };
    "neg": |x| -x;
    "exp": |x| x.exp();
    "log": |x| x.ln();
    "log1p": |x| x.ln_1p();
    "sqrt": |x| x.sqrt();
    "abs": |x| x.abs();
    "reciprocal": |x| 1.0 / x;
    "square": |x| x * x;
    "sin": |x| x.sin();
    "cos": |x| x.cos();
    "sign": |x| if x == 0.0 || x.is_nan() { x } else { x.signum() };
    "trunc": |x| x.trunc();
    "clamp_min": |x, min| if x < min { min } else { x };
    "with_data": |_, data| data;
    "hardshrink": |x, lambd| if x > lambd || x < -lambd || x.is_nan() { x } else { 0.0 };
    "softshrink": |x, lambd| match x {
        x if x > lambd => x - lambd,
        x if x < -lambd => x + lambd,
        x => x * 0.0,
    };
    "shrink_gradient": |dy, x, lambd| if x > lambd || x < -lambd { dy } else { 0.0 };
    "elu": |x, alpha| if x > 0.0 { x } else { alpha * x.exp_m1() };
    "elu_gradient": |dy, x, alpha| if x > 0.0 { dy } else { dy * alpha * x.exp() };
    "celu": |x, alpha| if x > 0.0 { x } else { alpha * (x / alpha).exp_m1() };
    "celu_gradient": |dy, x, alpha, beta| match x > 0.0 {
        true => dy,
        false => dy * (alpha / beta) * (x / beta).exp(),
    };
    "logsigmoid": |x| -softplus(-x);
    "logsigmoid_gradient": |dy, x| dy * sigmoid(-x);
    "binary_cross_entropy": |x, t| {
        let bounded = |log: f64| if log < -100.0 { -100.0 } else { log };
        -(t * bounded(x.ln()) + (1.0 - t) * bounded((-x).ln_1p()))
    };
    "softplus": |x, beta, most| match beta * x > most {
        true => x,
        false => (beta * x).exp().ln_1p() / beta,
    };
    "softplus_gradient": |dy, x, beta, most| match beta * x > most {
        true => dy,
        false => dy * sigmoid(beta * x),
    };
    "mish": |x| x * softplus(x).tanh();
    "mish_gradient": |dy, x| {
        let t = softplus(x).tanh();
        dy * (t + x * sigmoid(x) * (1.0 - t * t))
    };
    "prelu": |x, w| if x > 0.0 { x } else { w * x };
    "prelu_gradient": |dy, x, w| if x > 0.0 { dy } else { w * dy };
    "prelu_weight_gradient": |dy, x| if x > 0.0 { 0.0 } else { x * dy };
    "hardtanh": |x, least, most| {
        let bounded = if x < least { least } else { x };
        if bounded > most { most } else { bounded }
    };
    "hardtanh_gradient": |dy, x, least, most| if x > least && x < most { dy } else { 0.0 };
    "leaky_relu": |x, slope| if x > 0.0 { x } else { slope * x };
    "leaky_relu_gradient": |dy, x, slope| if x > 0.0 { dy } else { slope * dy };
    "affine": |x, scale, shift| x * scale + shift;
    "xlogy": |a, b| if a == 0.0 && !b.is_nan() { 0.0 } else { a * b.ln() };
    "threshold": |x, threshold, value| if x > threshold || x.is_nan() { x } else { value };
    "threshold_gradient": |dy, x, threshold, _| if x > threshold { dy } else { 0.0 };
    "silu": |x| x / (1.0 + (-x).exp());
    "silu_gradient": |dy, x| dy * sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)));
    "hardsigmoid": |x| six(x + 3.0) / 6.0;
    // torch's sixth is a single one in double precision, too.
    "hardsigmoid_gradient": |dy, x| match x > -3.0 && x < 3.0 {
        true => dy * f64::from(1.0_f32 / 6.0),
        false => 0.0,
    };
    "hardswish": |x| x * six(x + 3.0) / 6.0;
    "hardswish_gradient": |dy, x| match x {
        x if x > -3.0 && x < 3.0 => dy * (x / 3.0 + 0.5),
        x if x >= 3.0 => dy,
        _ => 0.0,
    };
    "squared_error": |x, target| (x - target) * (x - target);
    "squared_error_gradient": |dy, x, target| 2.0 * dy * (x - target);
    "relu": |x| if x < 0.0 { 0.0 } else { x };
    "relu_gradient": |dy, y| if y == 0.0 { 0.0 } else { dy };
    "tanh": |x| x.tanh();
    "tanh_gradient": |dy, y| dy * (1.0 - y * y);
    "sigmoid": |x| sigmoid(x);
    "sigmoid_gradient": |dy, y| dy * y * (1.0 - y);
}

fn truth(x: bool) -> f64 {
    if x { 1.0 } else { 0.0 }
}

pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }
}

/// From 0 to 6; NaN stays.
fn six(x: f64) -> f64 {
    if x.is_nan() { x } else { x.clamp(0.0, 6.0) }
}

/// The normal distribution function, or what stands for it.
pub(crate) fn normal(is_tanh: bool, x: f64) -> f64 {
    match is_tanh {
        true => (1.0 + inner(x).tanh()) / 2.0,
        false => (1.0 + erf(x / 2.0_f64.sqrt())) / 2.0,
    }
}

fn inner(x: f64) -> f64 {
    (2.0 / core::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)
}

/// The slope of [`normal`].
fn density(is_tanh: bool, x: f64) -> f64 {
    let scale = (2.0 / core::f64::consts::PI).sqrt();
    match is_tanh {
        true => {
            let t = inner(x).tanh();
            (1.0 - t * t) / 2.0 * scale * (1.0 + 3.0 * 0.044_715 * x * x)
        }
        false => (-x * x / 2.0).exp() * scale / 2.0,
    }
}

/// The error function: its series, and the continued fraction of its complement.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if x.is_nan() {
        return x;
    }
    if a < 2.5 {
        let mut sum = 0.0;
        let mut power = a;
        for n in 0..80 {
            sum += power / f64::from(2 * n + 1);
            power *= -a * a / f64::from(n + 1);
        }
        return (sum * core::f64::consts::FRAC_2_SQRT_PI).copysign(x);
    }
    let fraction = (1..200).rev().fold(a, |below, n| a + f64::from(n) / 2.0 / below);
    let complement = (-a * a).exp() / fraction / core::f64::consts::PI.sqrt();
    (1.0 - complement).copysign(x)
}
