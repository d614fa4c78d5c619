//! Products of matrices, `linear`, its gradients and `matmul`, against plain loops, the slope of their own
//! forward, and themselves in other layouts, fused and on other instruction sets.

mod order;

use std::process::Command;
use std::sync::Arc;

use neurarch_kernels::cpu::simd::InstructionSet;
use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::op::Op;
use neurarch_kernels::ir::program::Node;
use neurarch_kernels::ir::shape::{Layout, Operand, Shape, Type};
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::ops::activation::gelu::Approximate;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{
    Array, cases, check_gradient, check_gradient_of, check_layouts, evaluate, layouts_of, run_op,
    same_bits,
};
use proptest::prelude::*;

/// Numbers in -1..1, the same for the same `seed`.
fn numbers(dtype: Dtype, shape: &[usize], seed: u64) -> Array {
    let mut state = seed;
    Array::from_fn(dtype, shape, |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

/// A matrix of some elements: where they start, and the strides of rows and columns.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    of: &'a [f64],
    start: usize,
    row: usize,
    column: usize,
}

impl<'a> Matrix<'a> {
    fn new(of: &'a Array) -> Self {
        Matrix { of: &of.elements, start: 0, row: of.ty.shape[1], column: 1 }
    }

    fn transposed(self) -> Self {
        Matrix { row: self.column, column: self.row, ..self }
    }

    fn at(self, row: usize, column: usize) -> f64 {
        self.of[self.start + row * self.row + column * self.column]
    }
}

/// Checks that `y` is `A · B` plus one of `bias` a column, to within as many roundings as there are
/// additions.
fn check_product(
    y: &[f64],
    dtype: Dtype,
    (m, n, k): (usize, usize, usize),
    [a, b]: [Matrix<'_>; 2],
    bias: Option<&Array>,
) {
    assert_eq!(y.len(), m * n);
    let epsilon = if dtype == Dtype::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
    for (i, &found) in y.iter().enumerate() {
        let (row, column) = (i / n, i % n);
        let bias = bias.map_or(0.0, |bias| bias.elements[column]);
        let products = (0..k).map(|k| a.at(row, k) * b.at(k, column));
        let (sum, size) =
            products.fold((bias, bias.abs()), |(sum, size), x| (sum + x, size + x.abs()));
        let error = (found - sum).abs();
        assert!(
            error <= (k + 2) as f64 * epsilon * size,
            "[{row}, {column}] of {m}×{k} · {k}×{n}: {found}, not {sum}"
        );
    }
}

fn linear(v: &[Var]) -> Var {
    v[0].linear(&v[1], v.get(2))
}

/// Checks `linear` and both its gradients in every layout.
fn check_linear(dtype: Dtype, (rows, inputs, outputs): (usize, usize, usize), seed: u64) {
    let x = numbers(dtype, &[rows, inputs], seed);
    let weight = numbers(dtype, &[outputs, inputs], seed ^ 1);
    let bias = numbers(dtype, &[outputs], seed ^ 2);
    let dy = numbers(dtype, &[rows, outputs], seed ^ 3);
    let (of_x, of_weight, of_dy) = (Matrix::new(&x), Matrix::new(&weight), Matrix::new(&dy));

    let sizes = (rows, outputs, inputs);
    let operands = [of_x, of_weight.transposed()];
    let y = check_layouts(linear, &[x.clone(), weight.clone()]);
    check_product(&y.elements, dtype, sizes, operands, None);
    let y = check_layouts(linear, &[x.clone(), weight.clone(), bias.clone()]);
    check_product(&y.elements, dtype, sizes, operands, Some(&bias));

    let all = [x.clone(), weight.clone(), dy.clone()];
    let dx = check_layouts(|v| gradient(&v[0].linear(&v[1], None), &v[2], &v[0]), &all);
    let sizes = (rows, inputs, outputs);
    check_product(&dx.elements, dtype, sizes, [of_dy, of_weight], None);
    let dw = check_layouts(|v| gradient(&v[0].linear(&v[1], None), &v[2], &v[1]), &all);
    let sizes = (outputs, inputs, rows);
    check_product(&dw.elements, dtype, sizes, [of_dy.transposed(), of_x], None);
}

fn gradient(y: &Var, dy: &Var, of: &Var) -> Var {
    let gradients = backward(y.trace(), &[(y.clone(), dy.clone())], std::slice::from_ref(of));
    gradients[0].clone().expect("y depends on it")
}

const ACTIVATIONS: [fn(&Var) -> Var; 6] = [
    Var::relu,
    Var::tanh,
    Var::sigmoid,
    Var::silu,
    |x| x.gelu(Approximate::None),
    |x| x.gelu(Approximate::Tanh),
];

fn node(of: &Var) -> Node {
    of.node().expect("an op makes it")
}

/// Computes an op, with its first input in every layout that it takes and the others where it wants them.
fn in_every_layout(op: &dyn Op, inputs: &[Array]) -> Vec<Array> {
    let layout_of = |input: usize, layout: Layout| {
        let operand = Operand { ty: inputs[input].ty.clone(), layout };
        op.takes_layout(input, &operand).then_some(operand.layout)
    };
    let others: Vec<_> = (1..inputs.len())
        .map(|input| {
            let shape = &inputs[input].ty.shape;
            layout_of(input, shape.row_major()).or_else(|| layout_of(input, shape.features_first()))
        })
        .collect();
    layouts_of(&inputs[0].ty.shape)
        .into_iter()
        .filter_map(|layout| layout_of(0, layout))
        .map(|first| {
            let layouts: Vec<_> = std::iter::once(Some(first)).chain(others.clone()).collect();
            run_op(op, inputs, &layouts).swap_remove(0)
        })
        .collect()
}

/// Sizes around those of vectors and of register tiles.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![1..=9_usize, 14..=18_usize, 22..=34_usize, 47..=50_usize, 62..=70_usize]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn linear_and_its_gradients_are_products_in_every_layout(
        rows in size(), inputs in size(), outputs in size(), seed: u64,
    ) {
        for dtype in [Dtype::F32, Dtype::F64] {
            check_linear(dtype, (rows, inputs, outputs), seed);
        }
    }

    #[test]
    fn a_fused_activation_gives_the_bits_of_its_own_op(
        rows in size(), inputs in size(), outputs in size(), has_bias: bool, seed: u64,
    ) {
        for dtype in [Dtype::F32, Dtype::F64] {
            let mut arrays = vec![
                numbers(dtype, &[rows, inputs], seed),
                numbers(dtype, &[outputs, inputs], seed ^ 1),
            ];
            arrays.extend(has_bias.then(|| numbers(dtype, &[outputs], seed ^ 2)));
            for activation in ACTIVATIONS {
                let apart = evaluate(|v| activation(&linear(v)), &arrays, &[]);
                let trace = Trace::new();
                let v: Vec<_> = arrays.iter().map(|array| trace.input(array.ty.clone())).collect();
                let y = linear(&v);
                let fused = node(&y).op.fuse_activation(&*node(&activation(&y)).op);
                let fused = fused.expect("linear takes every activation");
                for found in in_every_layout(&*fused, &arrays) {
                    prop_assert!(same_bits(&found.elements, &apart.elements), "{:?}", fused);
                }
            }
        }
    }

    #[test]
    fn a_fused_gradient_of_relu_gives_the_bits_of_its_own_op(
        rows in size(), inputs in size(), outputs in size(), seed: u64,
    ) {
        for dtype in [Dtype::F32, Dtype::F64] {
            let dy = numbers(dtype, &[rows, outputs], seed);
            let weight = numbers(dtype, &[outputs, inputs], seed ^ 1);
            let x = numbers(dtype, &[rows, inputs], seed ^ 2);
            let output = evaluate(|v| v[0].relu(), &[x], &[]);
            // Recorded with the output of the ReLU as an input, so that both nodes can be had.
            let trace = Trace::new();
            let [dy_var, weight_var, output_var] =
                [&dy, &weight, &output].map(|array| trace.input(array.ty.clone()));
            let dx = gradient(&output_var.linear(&weight_var, None), &dy_var, &output_var);
            let before = output_var.relu();
            let masked = gradient(&before, &dx, &output_var);
            let fused = node(&dx).op.fuse_activation(&*node(&masked).op);
            let fused: Arc<dyn Op> = fused.expect("the gradient of linear takes that of ReLU");
            let apart = run_op(&*node(&dx).op, &[dy.clone(), weight.clone()], &[]);
            let apart = run_op(&*node(&masked).op, &[apart[0].clone(), output.clone()], &[]);
            for found in in_every_layout(&*fused, &[dy.clone(), weight.clone(), output.clone()]) {
                prop_assert!(same_bits(&found.elements, &apart[0].elements));
            }
        }
    }

    #[test]
    fn gradients_of_linear_are_its_slopes(
        rows in 1..=10_usize, inputs in 1..=5_usize, outputs in 1..=5_usize, seed: u64,
    ) {
        let x = numbers(Dtype::F64, &[rows, inputs], seed);
        let weight = numbers(Dtype::F64, &[outputs, inputs], seed ^ 1);
        let bias = numbers(Dtype::F64, &[outputs], seed ^ 2);
        check_gradient(linear, &[x.clone(), weight.clone()], 1e-9);
        check_gradient(linear, &[x, weight, bias], 1e-9);
    }

    #[test]
    fn second_derivatives_of_linear_are_the_slopes_of_its_gradients(
        rows in prop_oneof![Just(2_usize), Just(9)], inputs in 1..=3_usize, outputs in 1..=3_usize,
        of in 0..3_usize, seed: u64,
    ) {
        let arrays = [
            numbers(Dtype::F64, &[rows, inputs], seed),
            numbers(Dtype::F64, &[outputs, inputs], seed ^ 1),
            numbers(Dtype::F64, &[outputs], seed ^ 2),
            numbers(Dtype::F64, &[rows, outputs], seed ^ 3),
        ];
        let of_tanh = |v: &[Var]| gradient(&linear(&v[..3]).tanh(), &v[3], &v[of]);
        check_gradient(of_tanh, &arrays, 1e-8);
        let alone = |v: &[Var]| gradient(&linear(&v[..3]), &v[3], &v[of]);
        let depends_on: &[usize] = [&[1, 3][..], &[0, 3], &[3]][of];
        check_gradient_of(alone, &arrays, depends_on, 1e-8);
    }

    #[test]
    fn matmul_multiplies_batches_of_matrices_in_every_layout(
        batch in batches(), m in size(), k in size(), n in size(), seed: u64,
    ) {
        let (of_a, of_b) = batch;
        let shape = |leading: &[usize], matrix: [usize; 2]| [leading, &matrix].concat();
        for dtype in [Dtype::F32, Dtype::F64] {
            let a = numbers(dtype, &shape(&of_a, [m, k]), seed);
            let b = numbers(dtype, &shape(&of_b, [k, n]), seed ^ 1);
            let y = check_layouts(|v| v[0].matmul(&v[1]), &[a.clone(), b.clone()]);
            let batch = Shape::from(&of_a[..]).broadcast(&Shape::from(&of_b[..])).unwrap();
            prop_assert_eq!(&*y.ty.shape, shape(&batch, [m, n]));
            for (number, y) in y.elements.chunks(m * n).enumerate() {
                let a_start = own_number(&batch, &of_a, number) * m * k;
                let b_start = own_number(&batch, &of_b, number) * k * n;
                let a = Matrix { of: &a.elements, start: a_start, row: k, column: 1 };
                let b = Matrix { of: &b.elements, start: b_start, row: n, column: 1 };
                check_product(y, dtype, (m, n, k), [a, b], None);
            }
        }
    }

    #[test]
    fn groups_of_matrices_are_multiplied_as_each_would_be_alone(
        m in size(), k in size(), n in size(), parts in prop::array::uniform3(0..=64_usize), seed: u64,
    ) {
        for dtype in [Dtype::F32, Dtype::F64] {
            for (cut, places) in [m, n, k].into_iter().enumerate() {
                let mut ends = parts.map(|part| part * places / 64);
                ends.sort_unstable();
                let group = |own: [usize; 2], is_each: bool| match is_each {
                    true => vec![3, own[0], own[1]],
                    false => own.to_vec(),
                };
                let a = numbers(dtype, &group([m, k], cut == 1), seed);
                let b = numbers(dtype, &group([k, n], cut == 0), seed ^ 1);
                let offs = Array::new(Dtype::I64, [3], ends.map(|end| end as f64));
                let y = check_layouts(
                    |v| v[0].grouped_mm(&v[1], Some(&v[2])),
                    &[a.clone(), b.clone(), offs],
                );
                let alone = |v: &[Var]| by_groups(&v[0], &v[1], cut, ends, [m, n]);
                prop_assert_eq!(y, evaluate(alone, &[a, b], &[]));
            }
        }
    }

    #[test]
    fn matmul_multiplies_vectors(m in size(), k in size(), seed: u64) {
        for dtype in [Dtype::F32, Dtype::F64] {
            let matrix = numbers(dtype, &[m, k], seed);
            let batch = numbers(dtype, &[2, m, k], seed ^ 1);
            let (vector, left) = (numbers(dtype, &[k], seed ^ 2), numbers(dtype, &[m], seed ^ 3));
            let of_vector = Matrix { of: &vector.elements, start: 0, row: 1, column: 0 };
            let of_left = Matrix { of: &left.elements, start: 0, row: 0, column: 1 };
            let product = |a: &Array, b: &Array| {
                check_layouts(|v| v[0].matmul(&v[1]), &[a.clone(), b.clone()])
            };
            let y = product(&matrix, &vector);
            prop_assert_eq!(&*y.ty.shape, &[m]);
            let operands = [Matrix::new(&matrix), of_vector];
            check_product(&y.elements, dtype, (m, 1, k), operands, None);
            let y = product(&left, &matrix);
            prop_assert_eq!(&*y.ty.shape, &[k]);
            check_product(&y.elements, dtype, (1, k, m), [of_left, Matrix::new(&matrix)], None);
            let y = product(&vector, &vector);
            prop_assert_eq!(y.ty.shape.rank(), 0);
            let row = of_vector.transposed();
            check_product(&y.elements, dtype, (1, 1, k), [row, of_vector], None);
            prop_assert_eq!(&*product(&batch, &vector).ty.shape, &[2, m]);
            prop_assert_eq!(&*product(&left, &batch).ty.shape, &[2, k]);
        }
    }

    #[test]
    fn gradients_of_matmul_are_its_slopes_twice(
        (of_a, of_b) in batches(), m in 1..=3_usize, k in 1..=3_usize, n in 1..=3_usize, seed: u64,
    ) {
        let shape = |leading: &[usize], matrix: [usize; 2]| [leading, &matrix].concat();
        let a = numbers(Dtype::F64, &shape(&of_a, [m, k]), seed);
        let b = numbers(Dtype::F64, &shape(&of_b, [k, n]), seed ^ 1);
        let pair = [a, b];
        check_gradient(|v| v[0].matmul(&v[1]), &pair, 1e-9);
        for of in 0..2 {
            let first = |v: &[Var]| {
                let y = v[0].matmul(&v[1]);
                gradient(&y.square().sum(&[], false), &v[0].trace().constant(1.0, Dtype::F64, []), &v[of])
            };
            check_gradient(first, &pair, 1e-7);
        }
        let [vector, left] = [k, m].map(|n| numbers(Dtype::F64, &[n], seed ^ 2));
        check_gradient(|v| v[0].matmul(&v[1]), &[pair[0].clone(), vector.clone()], 1e-9);
        check_gradient(|v| v[0].matmul(&v[1]), &[left, pair[0].clone()], 1e-9);
        check_gradient(|v| v[0].matmul(&v[1]), &[vector.clone(), vector], 1e-9);
    }
}

/// Multiplies three groups one by one, by what is cut: rows of `a`, columns of `b`, or what is summed over.
fn by_groups(a: &Var, b: &Var, cut: usize, ends: [usize; 3], [m, n]: [usize; 2]) -> Var {
    let zeros = |shape: [usize; 2]| a.trace().constant(0.0, a.dtype(), shape);
    let matrix =
        |x: &Var, group: usize| x.slice(0, group..group + 1).reshape(x.shape()[1..].to_vec());
    let starts = [0, ends[0], ends[1]];
    let mut parts: Vec<_> = (0..3)
        .map(|group| {
            let range = starts[group]..ends[group];
            match cut {
                0 => a.slice(0, range).matmul(&matrix(b, group)),
                1 => matrix(a, group).matmul(&b.slice(1, range)),
                _ => a.slice(1, range.clone()).matmul(&b.slice(0, range)),
            }
        })
        .collect();
    match cut {
        0 => parts.push(zeros([m - ends[2], n])),
        1 => parts.push(zeros([m, n - ends[2]])),
        _ => parts.iter_mut().for_each(|part| *part = part.reshape([1, m, n])),
    }
    Var::cat(&parts.iter().collect::<Vec<_>>(), if cut == 1 { 1 } else { 0 })
}

/// The leading axes of two operands, which broadcast.
fn batches() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    let axis = (2..=3_usize, 0..3_u8);
    (prop::collection::vec(axis, 0..=2), 0..=2_usize, any::<bool>()).prop_map(
        |(axes, drop, first)| {
            let pick =
                |one| axes.iter().map(|&(n, which)| if which == one { 1 } else { n }).collect();
            let (a, b): (Vec<_>, Vec<_>) = (pick(1), pick(2));
            let short = b.iter().copied().skip(drop).collect();
            if first { (short, a) } else { (a, short) }
        },
    )
}

/// Gives the number of the matrix with leading axes `own` that matrix `number` of `batch` reads.
fn own_number(batch: &Shape, own: &[usize], number: usize) -> usize {
    let mut rest = number;
    let mut index = vec![0; batch.rank()];
    for axis in (0..batch.rank()).rev() {
        (index[axis], rest) = (rest % batch[axis], rest / batch[axis]);
    }
    let own_index = &index[batch.rank() - own.len()..];
    own.iter().zip(own_index).fold(0, |at, (&n, &i)| at * n + if n == 1 { 0 } else { i })
}

/// Whatever loop a length has, whether a column is one of many or the last alone, and where sums underflow.
#[test]
fn a_dot_product_has_the_same_bits_beside_others_and_alone() {
    for dtype in [Dtype::F32, Dtype::F64] {
        for k in [1, 2, 3, 4, 5, 7, 8, 9, 16, 20, 32, 48, 64, 65] {
            for scale in [1.0, 1e-25, 1e-170] {
                let scaled = |mut array: Array| {
                    array.elements.iter_mut().for_each(|x| *x *= scale);
                    Array::new(dtype, array.ty.shape.clone(), array.elements)
                };
                let x = scaled(numbers(dtype, &[2, k], k as u64));
                let weight = scaled(numbers(dtype, &[37, k], 5));
                let all = evaluate(linear, &[x.clone(), weight.clone()], &[]);
                for column in 0..37 {
                    let row = weight.elements[column * k..][..k].to_vec();
                    let row = Array::new(dtype, [1, k], row);
                    let alone = evaluate(linear, &[x.clone(), row], &[]);
                    let beside = [all.elements[column], all.elements[37 + column]];
                    assert!(same_bits(&alone.elements, &beside), "column {column} of length {k}");
                }
            }
        }
    }
}

#[test]
fn products_of_few_columns_are_products_in_every_layout() {
    for dtype in [Dtype::F32, Dtype::F64] {
        for sizes in [(32, 4, 16), (7, 1, 48), (33, 3, 32)] {
            check_linear(dtype, sizes, 7);
        }
    }
}

#[test]
fn an_empty_sum_is_the_bias() {
    let x = numbers(Dtype::F32, &[9, 0], 1);
    let weight = numbers(Dtype::F32, &[5, 0], 1);
    let bias = numbers(Dtype::F32, &[5], 2);
    let y = evaluate(linear, &[x.clone(), weight.clone(), bias.clone()], &[]);
    assert_eq!(y.elements, bias.elements.repeat(9));
    let y = evaluate(|v| v[0].matmul(&v[1].mt()), &[x.clone(), weight.clone()], &[]);
    assert_eq!(y.elements, [0.0; 45]);
    let y = evaluate(|v| v[0].mt().matmul(&v[0]), &[x], &[]);
    assert_eq!(y.elements, []);
}

#[test]
fn errors_of_matmul_use_the_words_of_torch() {
    let error = |a: &[usize], b: &[usize]| {
        let trace = Trace::new();
        let a = trace.input(Type::new(Dtype::F32, a));
        let b = trace.input(Type::new(Dtype::F32, b));
        let _ = a.matmul(&b).relu();
        trace.error().unwrap().message
    };
    let cases: [(&[usize], &[usize], &str); 7] = [
        (&[], &[2, 3], "both arguments to matmul need to be at least 1D, but they are 0D and 2D"),
        (
            &[3],
            &[4],
            "inconsistent tensor size, expected tensor [3] and src [4] to have the same number of \
             elements, but got 3 and 4 elements respectively",
        ),
        (&[2, 3], &[4], "size mismatch, got input (2), mat (2x3), vec (4)"),
        (&[3], &[4, 5], "mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)"),
        (&[2, 2, 3], &[4, 5], "mat1 and mat2 shapes cannot be multiplied (4x3 and 4x5)"),
        (
            &[10, 3, 4],
            &[10, 5, 6],
            "Expected size for first two dimensions of batch2 tensor to be: [10, 4] but got: \
             [10, 5].",
        ),
        (
            &[2, 3, 4],
            &[3, 4, 5],
            "The size of tensor a (2) must match the size of tensor b (3) at non-singleton \
             dimension 0",
        ),
    ];
    for (a, b, message) in cases {
        assert_eq!(error(a, b), message);
    }
}

#[test]
fn these_tests_pass_on_every_instruction_set() {
    if std::env::var_os("NEURARCH_SIMD").is_some() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    for set in InstructionSet::available() {
        let name = format!("{set:?}").to_lowercase();
        let output = Command::new(&this)
            .arg("ops::products::")
            .env("NEURARCH_SIMD", &name)
            .env("PROPTEST_CASES", "4")
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
