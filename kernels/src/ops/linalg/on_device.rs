//! The device code of products of two matrices.

use crate::arithmetic::activation::ActivationKind;
use crate::cpu::gemm::{Finish, Product, Strides};
use crate::device::code::{Definition, DeviceCode, type_of};
use crate::device::{formula, offset};
use crate::ir::dtype::Dtype;

/// Returns the code of a product whose factors are inputs 0 and 1, of `inputs` inputs: the third is a bias along the
/// columns, or what the gradient of ReLU looks at. With `is_dot`, sums are dot products.
pub(super) fn product(dtype: Dtype, of: &Product, is_dot: bool, inputs: usize) -> DeviceCode {
    let number = type_of(dtype);
    let mut definitions = vec![Definition::file("product", include_str!("product.cu"))];
    let strides = |Strides { row, column }| format!("Strides<{row}, {column}>");
    let [a, b, c] = [strides(of.a), strides(of.b), strides(of.c)];
    let mut value = "sum".to_owned();
    if inputs > 2 && of.finish != Finish::ReluGradient {
        value = format!("add_rn({value}, {{2}}[n])");
    }
    match of.finish {
        Finish::Sum => {}
        Finish::Activation(kind) => {
            let (activation, name) = formula::unary(
                name_of(kind),
                dtype == Dtype::F64,
                |x| kind.apply(x),
                |x| kind.apply(x),
            );
            definitions.extend(activation);
            value = format!("{name}({value})");
        }
        Finish::ReluGradient => {
            let Strides { row, column } = of.c;
            let gate = format!("{{2}}[m * {row} + n * {column}]");
            value = format!("({gate} > {number}(0) ? {value} : {number}(0))");
        }
    }
    let finish = format!("[&](int m, int n, {number} sum) {{ return {value}; }}");
    let (m, n, k) = (of.m, of.n, of.k);
    let sizes = format!("T, {number}, {m}, {n}, {k}, {a}, {b}, {c}");
    let call = match is_dot {
        true => format!("dots<{sizes}>(t, {{0}}, {{1}}, {{{inputs}}}, {finish});"),
        false => {
            let [tm, tn] = tile(m, n);
            format!("product<{sizes}, {tm}, {tn}>(t, {{0}}, {{1}}, {{{inputs}}}, {finish});")
        }
    };
    let width = if is_dot { m * n } else { m * n / 4 };
    DeviceCode { definitions, call, scratch_bytes: 0, width: width.max(1) }
}

/// Returns the code of several products of two factors: `code` is that of one, `batch` the axes over which they lie, with the
/// strides of both factors and of the result.
pub(super) fn batched(code: DeviceCode, batch: &[(usize, [usize; 3])]) -> DeviceCode {
    let products: usize = batch.iter().map(|(size, _)| size).product();
    let mut call = code.call;
    for operand in 0..3 {
        let axes: Vec<_> = batch.iter().map(|(size, by)| (*size, by[operand])).collect();
        let start = format!("({{{operand}}} + {})", offset::of("number", &axes));
        call = call.replace(&format!("{{{operand}}}"), &start);
    }
    let call = format!("for (int number = 0; number < {products}; ++number) {call}");
    DeviceCode { call, ..code }
}

fn name_of(kind: ActivationKind) -> &'static str {
    match kind {
        ActivationKind::Relu => "relu",
        ActivationKind::Tanh => "tanh",
        ActivationKind::Sigmoid => "sigmoid",
        ActivationKind::Silu => "silu",
        ActivationKind::Gelu(_) => "gelu",
    }
}

/// Returns how many sums a thread holds, down and across: as many as leave work for the 32 threads of a warp.
fn tile(m: usize, n: usize) -> [usize; 2] {
    let sides = [1, 2, 4, 8];
    let all = sides.iter().flat_map(|&tm| sides.map(|tn| [tm, tn]));
    let fits = all.filter(|&[tm, tn]| tm <= m.max(1) && tn <= n.max(1) && tm * tn <= 32);
    let cost = |&[tm, tn]: &[usize; 2]| {
        let rounds = (m.div_ceil(tm) * n.div_ceil(tn)).div_ceil(32);
        // Loads and products of a round.
        (rounds * (tm + tn + tm * tn), tm)
    };
    fits.min_by_key(cost).unwrap_or([1, 1])
}
