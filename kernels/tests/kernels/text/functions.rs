//! The elementwise functions of traced values.

use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::activation::gelu::Approximate;
use neurarch_kernels::ops::reduction::reduce::Reduction;

/// A function of some values of one shape.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) inputs: usize,
    /// How many inputs, from the first on, have a gradient.
    pub(crate) learns: usize,
    pub(crate) compute: fn(&[Var]) -> Var,
}

/// The sine of a larger number is the C library's.
fn not_huge(x: &Var) -> Var {
    let most = |number: f64| x.trace().constant(number, x.dtype(), []);
    x.maximum(&most(-65_536.0)).minimum(&most(65_536.0))
}

const fn of(
    name: &'static str,
    inputs: usize,
    learns: usize,
    compute: fn(&[Var]) -> Var,
) -> Function {
    Function { name, inputs, learns, compute }
}

pub(crate) const ALL: &[Function] = &[
    of("neg", 1, 1, |x| -&x[0]),
    of("exp", 1, 1, |x| x[0].exp()),
    of("log", 1, 1, |x| x[0].log()),
    of("log1p", 1, 1, |x| x[0].log1p()),
    of("sqrt", 1, 1, |x| x[0].sqrt()),
    of("abs", 1, 1, |x| x[0].abs()),
    of("reciprocal", 1, 1, |x| x[0].reciprocal()),
    of("square", 1, 1, |x| x[0].square()),
    of("sin", 1, 1, |x| not_huge(&x[0]).sin()),
    of("cos", 1, 1, |x| not_huge(&x[0]).cos()),
    of("sign", 1, 1, |x| x[0].sign()),
    of("trunc", 1, 1, |x| x[0].trunc()),
    of("pow", 1, 1, |x| x[0].pow(1.7)),
    of("pow", 1, 1, |x| x[0].pow(3.0)),
    of("pow", 1, 1, |x| x[0].pow(2.0)),
    of("pow", 1, 1, |x| x[0].pow(0.5)),
    of("pow", 1, 1, |x| x[0].pow(0.0)),
    of("pow", 1, 1, |x| x[0].pow(-1.0)),
    of("pow", 1, 1, |x| x[0].pow(-1.5)),
    of("pow", 1, 1, |x| x[0].pow(5.0)),
    of("pow", 1, 1, |x| x[0].pow(-7.0)),
    of("pow", 1, 0, |x| x[0].pow(1e31)),
    of("pow", 1, 0, |x| x[0].pow(f64::NEG_INFINITY)),
    of("pow", 1, 0, |x| x[0].pow(f64::NAN)),
    of("relu", 1, 1, |x| x[0].relu()),
    of("tanh", 1, 1, |x| x[0].tanh()),
    of("sigmoid", 1, 1, |x| x[0].sigmoid()),
    of("silu", 1, 1, |x| x[0].silu()),
    of("gelu", 1, 1, |x| x[0].gelu(Approximate::None)),
    of("gelu_tanh", 1, 1, |x| x[0].gelu(Approximate::Tanh)),
    of("mish", 1, 1, |x| x[0].mish()),
    of("logsigmoid", 1, 1, |x| x[0].logsigmoid()),
    of("hardsigmoid", 1, 1, |x| x[0].hardsigmoid()),
    of("hardswish", 1, 1, |x| x[0].hardswish()),
    of("add", 2, 2, |x| &x[0] + &x[1]),
    of("sub", 2, 2, |x| &x[0] - &x[1]),
    of("mul", 2, 2, |x| &x[0] * &x[1]),
    of("div", 2, 2, |x| &x[0] / &x[1]),
    of("maximum", 2, 2, |x| x[0].maximum(&x[1])),
    of("minimum", 2, 2, |x| x[0].minimum(&x[1])),
    of("eq", 2, 2, |x| x[0].eq(&x[1])),
    of("lt", 2, 2, |x| x[0].lt(&x[1])),
    of("clamp_min", 2, 1, |x| x[0].clamp_min(&x[1])),
    of("hardshrink", 2, 1, |x| x[0].hardshrink(&x[1])),
    of("softshrink", 2, 1, |x| x[0].softshrink(&x[1])),
    of("elu", 2, 1, |x| x[0].elu(&x[1])),
    of("celu", 2, 1, |x| x[0].celu(&x[1])),
    of("leaky_relu", 2, 1, |x| x[0].leaky_relu(&x[1])),
    of("xlogy", 2, 2, |x| x[0].xlogy(&x[1])),
    of("mse_loss", 2, 2, |x| x[0].mse_loss(&x[1], Reduction::None)),
    of("bce", 2, 2, |x| x[0].binary_cross_entropy(&x[1], None, Reduction::None)),
    of("softplus", 3, 1, |x| x[0].softplus(&x[1], &x[2])),
    of("hardtanh", 3, 1, |x| x[0].hardtanh(&x[1], &x[2])),
    of("threshold", 3, 1, |x| x[0].threshold(&x[1], &x[2])),
    of("affine", 3, 3, |x| x[0].scale_shift(Some(&x[1]), Some(&x[2]))),
    of("where", 3, 3, |x| x[0].where_(&x[1], &x[2])),
];
