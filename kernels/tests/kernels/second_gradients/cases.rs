//! What is differentiated twice: every op, on inputs away from its kinks.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::activation::gelu::Approximate;
use neurarch_kernels::ops::reduction::reduce::Reduction;
use neurarch_kernels::ops::spatial::convolution::Convolution;
use neurarch_kernels::ops::spatial::grid_sample::{GridMode, GridOptions, GridPadding};
use neurarch_kernels::ops::spatial::pad::PadMode;
use neurarch_kernels::ops::spatial::pool::Pooling;
use neurarch_kernels::testing::Array;

/// Something to differentiate twice: its name, what it records and on which inputs.
pub(super) type Case = (&'static str, Box<dyn Fn(&[Var]) -> Var>, Vec<Array>);
/// A function of one number.
pub(super) type One = fn(&Var) -> Var;
/// A function of two numbers.
pub(super) type Two = fn(&Var, &Var) -> Var;

pub(super) fn number(like: &Var, value: f64) -> Var {
    like.trace().constant(value, like.dtype(), [])
}

/// Numbers from -4 to 4, none of them near a whole one: every function below has its kinks there.
pub(super) fn floats(shape: &[usize], seed: u64) -> Array {
    let mut state = seed;
    Array::from_fn(Dtype::F64, shape, |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = 8.0 * (state >> 40) as f64 / f64::from(1 << 24) - 4.0;
        x.floor() + 0.1 + 0.8 * (x - x.floor())
    })
}

fn positive(shape: &[usize], seed: u64) -> Array {
    let x = floats(shape, seed);
    Array::new(Dtype::F64, shape, x.elements.iter().map(|x| x.abs() + 0.3).collect::<Vec<_>>())
}

pub(super) fn whole(shape: &[usize], numbers: &[i64]) -> Array {
    Array::new(Dtype::I64, shape, numbers.iter().map(|&n| n as f64).collect::<Vec<_>>())
}

fn case(name: &'static str, build: impl Fn(&[Var]) -> Var + 'static, inputs: &[Array]) -> Case {
    (name, Box::new(build), inputs.to_vec())
}

fn activations() -> Vec<Case> {
    let of: [(&str, One); 24] = [
        ("celu", |x| x.celu(&number(x, 1.5))),
        ("elu", |x| x.elu(&number(x, 1.5))),
        ("gelu", |x| x.gelu(Approximate::None)),
        ("gelu tanh", |x| x.gelu(Approximate::Tanh)),
        ("glu", |x| x.glu(-1)),
        ("hardshrink", |x| x.hardshrink(&number(x, 1.0))),
        ("hardsigmoid", Var::hardsigmoid),
        ("hardswish", Var::hardswish),
        ("hardtanh", |x| x.hardtanh(&number(x, -1.0), &number(x, 2.0))),
        ("leaky_relu", |x| x.leaky_relu(&number(x, 0.1))),
        ("logsigmoid", Var::logsigmoid),
        ("mish", Var::mish),
        ("relu", Var::relu),
        ("relu6", Var::relu6),
        ("selu", Var::selu),
        ("sigmoid", Var::sigmoid),
        ("silu", Var::silu),
        ("softplus", |x| x.softplus(&number(x, 2.0), &number(x, 4.0))),
        ("softshrink", |x| x.softshrink(&number(x, 1.0))),
        ("softsign", Var::softsign),
        ("tanh", Var::tanh),
        ("tanhshrink", Var::tanhshrink),
        ("threshold", |x| x.threshold(&number(x, 1.0), &number(x, 20.0))),
        ("softmin", |x| x.softmin(0)),
    ];
    let cases =
        of.into_iter().map(|(name, op)| case(name, move |v| op(&v[0]), &[floats(&[3, 4], 7)]));
    let prelu = case("prelu", |v| v[0].prelu(&v[1]), &[floats(&[2, 3, 2], 1), floats(&[3], 2)]);
    cases.chain([prelu]).collect()
}

fn arithmetic() -> Vec<Case> {
    let (x, y) = (floats(&[2, 3], 3), floats(&[3], 4));
    let p = positive(&[2, 3], 5);
    let two = [x.clone(), y.clone()];
    vec![
        case("add", |v| (&v[0] + &v[1]).square(), &two),
        case("sub", |v| (&v[0] - &v[1]).square(), &two),
        case("mul", |v| &v[0] * &v[1], &two),
        case("div", |v| &v[0] / &v[1], &two),
        case("maximum", |v| v[0].maximum(&v[1]).square(), &two),
        case("minimum", |v| v[0].minimum(&v[1]).square(), &two),
        case("neg", |v| (-&v[0]).square(), &two[..1]),
        case("exp", |v| v[0].exp(), &two[..1]),
        case("log", |v| v[0].log(), std::slice::from_ref(&p)),
        case("sqrt", |v| v[0].sqrt(), std::slice::from_ref(&p)),
        case("abs", |v| v[0].abs().square(), &two[..1]),
        case("sign", |v| v[0].sign() * &v[0], &two[..1]),
        case("trunc", |v| v[0].trunc() * &v[0], &two[..1]),
        case("reciprocal", |v| v[0].reciprocal(), std::slice::from_ref(&p)),
        case("sin", |v| v[0].sin(), &two[..1]),
        case("cos", |v| v[0].cos(), &two[..1]),
        case("pow", |v| v[0].pow(2.5), std::slice::from_ref(&p)),
        case("sum", |v| v[0].sum(&[0], false).square(), &two[..1]),
        case("mean", |v| v[0].mean(&[1], true).square(), &two[..1]),
        case("amax", |v| v[0].amax(&[1], false).square(), &two[..1]),
        case("affine", |v| v[0].scale_shift(Some(&v[1]), Some(&v[1])), &two),
        case("dropout", |v| v[0].dropout(&number(&v[0], 0.3)).square(), &two[..1]),
        case("log1p", |v| v[0].log1p(), std::slice::from_ref(&p)),
        case("xlogy", |v| v[0].xlogy(&v[1]), &[p.clone(), positive(&[3], 24)]),
        case("clamp_min", |v| v[0].clamp_min(&number(&v[0], 1.0)).square(), &two[..1]),
        case("where", |v| v[0].lt(&v[1]).where_(&v[0].square(), &(&v[0] * &v[1])), &two),
        case("eq", |v| v[0].eq(&v[1]).where_(&v[0].square(), &(&v[0] * &v[1])), &two),
    ]
}

/// What is differentiated, but not as its differences say: rounding has steps, a constant no slope.
pub(super) fn unlike_differences() -> Vec<Case> {
    let x = &[floats(&[4], 6)];
    vec![
        case("to", |v| v[0].to(Dtype::F32).to(Dtype::F64) * &v[0], x),
        case("detach", |v| v[0].detach() * v[0].square(), x),
        case("with_data", |v| v[0].with_data(&v[0].square()) * &v[0], x),
    ]
}

fn shapes() -> Vec<Case> {
    let x = &[floats(&[2, 3, 3], 6)];
    vec![
        case("reshape", |v| v[0].reshape([6, 3]).square(), x),
        case("permute", |v| v[0].permute(&[2, 0, 1]).square(), x),
        case("slice", |v| v[0].slice(1, 1..3).square(), x),
        case("cat", |v| Var::cat(&[&v[0], &v[0].exp()], 1).square(), x),
        case("expand", |v| v[0].reshape([1, 18]).expand([2, 18]).square(), x),
        case("pad", |v| v[0].pad(&[(0, 0), (0, 0), (1, 2)], PadMode::Reflect).square(), x),
        case("tril", |v| v[0].tril(0).square(), x),
        case("split", |v| v[0].split(1, &[1, 2]).remove(1).square(), x),
        case("select_rows", |v| v[0].select_rows(&[1, 0]).square(), x),
        case("put_rows", |v| v[0].put_rows(&[2, 0], 4, 0.5).square(), x),
        case("max_pool", |v| v[0].max_pool(&pooling())[0].square(), x),
        case("avg_pool", |v| v[0].avg_pool(&pooling(), true, None).square(), x),
        case("safe_softmax", |v| v[0].safe_softmax(1), x),
        case("call", |v| v[0].trace().call("", "Square", &v[0], |x| x.square() * &x), x),
    ]
}

/// Windows of two.
fn pooling() -> Pooling {
    Pooling {
        kernel_size: vec![2],
        stride: vec![1],
        padding: vec![0],
        dilation: vec![1],
        ceil_mode: false,
    }
}

fn grouped(v: &[Var]) -> Var {
    v[0].grouped_mm(&v[1], Some(&v[2])).square()
}

fn layers() -> Vec<Case> {
    let conv = |stride| Convolution {
        stride: vec![stride],
        padding: vec![(1, 0)],
        dilation: vec![1],
        groups: 2,
    };
    let eps = |x: &Var| number(x, 1e-2);
    let (x, w, b) = (floats(&[3, 4], 8), floats(&[2, 4], 9), floats(&[2], 10));
    let planes = [floats(&[2, 4, 5], 11), floats(&[2, 2, 2], 12), floats(&[2], 13)];
    let transposed = [floats(&[2, 4, 3], 11), floats(&[4, 1, 2], 12), floats(&[2], 13)];
    let batches = [floats(&[2, 2, 3], 14), floats(&[2, 3, 2], 15)];
    let mut cases = vec![
        case("linear", |v| v[0].linear(&v[1], Some(&v[2])).square(), &[x.clone(), w, b]),
        case("matmul", |v| v[0].matmul(&v[1]).square(), &batches),
        case(
            "grouped_mm_rows",
            grouped,
            &[floats(&[4, 2], 14), floats(&[2, 2, 3], 15), whole(&[2], &[1, 3])],
        ),
        case(
            "grouped_mm_columns",
            grouped,
            &[floats(&[2, 3, 2], 14), floats(&[2, 4], 15), whole(&[2], &[1, 4])],
        ),
        case(
            "grouped_mm_inner",
            grouped,
            &[floats(&[2, 4], 14), floats(&[4, 3], 15), whole(&[2], &[2, 3])],
        ),
        case("vector", |v| v[0].matmul(&v[1]).square(), &[floats(&[3], 14), floats(&[3, 2], 15)]),
        case("softmax", |v| v[0].softmax(-1).square(), std::slice::from_ref(&x)),
        case("log_softmax", |v| v[0].log_softmax(0).square(), std::slice::from_ref(&x)),
        case("convolution", move |v| v[0].convolution(&v[1], Some(&v[2]), &conv(2)), &planes),
        case(
            "convolution_input",
            move |v| v[0].conv_transpose(&v[1], Some(&v[2]), &conv(1), &[0]),
            &transposed,
        ),
        case(
            "rms_normalize",
            move |v| v[0].rms_normalize(&[1], &eps(&v[0])).square(),
            std::slice::from_ref(&x),
        ),
        case("matrix_exp", |v| v[0].matrix_exp(), &[small(&[2, 2], 16)]),
        case("solve", |v| v[0].solve(&v[1]), &[well_posed(), floats(&[2, 2], 18)]),
    ];
    let normalized: [(&str, Two); 4] = [
        ("normalize", |x, eps| x.normalize(&[1], eps).y.square()),
        ("over two axes", |x, eps| x.reshape([2, 3, 2]).normalize(&[0, 2], eps).y.square()),
        ("variance", |x, eps| x.normalize(&[0], eps).var.square()),
        ("mean", |x, eps| {
            let of = x.normalize(&[1], eps);
            &of.y * (of.mean * of.var).reshape([3, 1])
        }),
    ];
    for (name, op) in normalized {
        cases.push(case(name, move |v| op(&v[0], &eps(&v[0])), std::slice::from_ref(&x)));
    }
    let embedding = |v: &[Var]| v[1].embedding(&v[0], None, false).square();
    cases.push(case("embedding", embedding, &[floats(&[3, 2], 19), whole(&[4], &[2, 0, 2, 1])]));
    cases
}

fn small(shape: &[usize], seed: u64) -> Array {
    let elements: Vec<_> = floats(shape, seed).elements.iter().map(|x| x / 4.0).collect();
    Array::new(Dtype::F64, shape, elements)
}

fn well_posed() -> Array {
    Array::new(Dtype::F64, [2, 2], [3.0, 0.5, -0.7, 2.0])
}

fn losses() -> Vec<Case> {
    let x = floats(&[4, 3], 20);
    let targets = whole(&[4], &[2, 0, -100, 1]);
    let weight = Array::new(Dtype::F64, [3], [0.5, 2.0, 1.25]);
    let mut cases = Vec::new();
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
        for (smoothing, weighted) in [(0.0, false), (0.1, true), (0.3, false)] {
            let loss = move |v: &[Var]| {
                let weight = weighted.then(|| v[2].detach());
                let smoothing = number(&v[0], smoothing);
                v[0].cross_entropy(&v[1], weight.as_ref(), &smoothing, -100, reduction).square()
            };
            let inputs = [x.clone(), targets.clone(), weight.clone()];
            cases.push(case("cross_entropy", loss, &inputs));
        }
        let mse = move |v: &[Var]| v[0].mse_loss(&v[1], reduction).square();
        cases.push(case("mse_loss", mse, &[x.clone(), floats(&[4, 3], 21)]));
    }
    let shares = |seed| {
        let of = floats(&[4, 3], seed).elements.into_iter().map(|x| 0.5 + x / 10.0);
        Array::new(Dtype::F64, [4, 3], of.collect::<Vec<_>>())
    };
    let binary = |v: &[Var]| v[0].binary_cross_entropy(&v[1], None, Reduction::Mean).square();
    cases.push(case("binary_cross_entropy", binary, &[shares(25), shares(26)]));
    let planes = [floats(&[2, 3, 2], 22), whole(&[2, 2], &[0, 1, -100, 2])];
    let of_planes =
        |v: &[Var]| v[0].cross_entropy(&v[1], None, &number(&v[0], 0.2), -100, Reduction::Mean);
    cases.push(case("cross_entropy of planes", of_planes, &planes));
    let one = [floats(&[3], 23), whole(&[], &[1])];
    let of_one =
        |v: &[Var]| v[0].cross_entropy(&v[1], None, &number(&v[0], 0.0), -100, Reduction::None);
    cases.push(case("cross_entropy of one", of_one, &one));
    cases
}

fn recurrences() -> Vec<Case> {
    let (steps, batch, hidden) = (3, 2, 2);
    let inputs = |gates: usize| {
        let (rows, features) = (steps * batch, gates * hidden);
        let weights = [small(&[features, hidden], 31), small(&[features], 32)];
        let states = [small(&[batch, hidden], 33), small(&[batch, hidden], 34)];
        let mut inputs = vec![small(&[rows, features], 30)];
        inputs.extend(weights.into_iter().chain(states));
        inputs
    };
    let lstm = move |v: &[Var]| {
        let y = v[0].lstm(&v[1], Some(&v[2]), [&v[3], &v[4]], steps, false);
        y.h + y.memory.square()
    };
    let gru = move |v: &[Var]| v[0].gru(&v[1], Some(&v[2]), &v[3], steps, true).h.square();
    vec![case("lstm", lstm, &inputs(4)), case("gru", gru, &inputs(3)[..4])]
}

/// Coordinates of a grid within an image, none of them near a pixel.
fn coordinates(shape: &[usize], seed: u64) -> Array {
    let places = floats(shape, seed).elements;
    Array::new(Dtype::F64, shape, places.iter().map(|x| x / 4.5).collect::<Vec<_>>())
}

fn samples() -> Vec<Case> {
    let of = |options: GridOptions| move |v: &[Var]| v[0].grid_sample(&v[1], options).square();
    let mut cases = Vec::new();
    for padding_mode in [GridPadding::Zeros, GridPadding::Border, GridPadding::Reflection] {
        let images = [floats(&[2, 2, 3, 4], 31), coordinates(&[2, 2, 3, 2], 32)];
        for mode in [GridMode::Bilinear, GridMode::Bicubic] {
            let options = GridOptions { mode, padding_mode, align_corners: true };
            cases.push(case("grid_sample", of(options), &images));
        }
    }
    let volumes = [floats(&[1, 2, 2, 3, 3], 33), coordinates(&[1, 2, 1, 2, 3], 34)];
    cases.push(case("grid_sample of volumes", of(GridOptions::default()), &volumes));
    let nearest = GridOptions { mode: GridMode::Nearest, ..GridOptions::default() };
    let images = [floats(&[1, 2, 3, 4], 31), coordinates(&[1, 2, 3, 2], 32)];
    cases.push(case("grid_sample of the nearest", of(nearest), &images));
    cases
}

fn reflections() -> Vec<Case> {
    let of = |v: &[Var]| v[0].householder_product(&v[1]).square();
    let small = |shape: &[usize], seed| {
        let numbers = floats(shape, seed).elements;
        Array::new(Dtype::F64, shape, numbers.iter().map(|x| x / 4.0).collect::<Vec<_>>())
    };
    vec![
        case("householder_product", of, &[small(&[4, 3], 35), small(&[2], 36)]),
        case("householder_product of batches", of, &[small(&[2, 3, 3], 37), small(&[2, 3], 38)]),
    ]
}

pub(super) fn all() -> Vec<Case> {
    let all = [
        activations(),
        arithmetic(),
        shapes(),
        layers(),
        samples(),
        reflections(),
        recurrences(),
        losses(),
    ];
    all.into_iter().flatten().collect()
}
