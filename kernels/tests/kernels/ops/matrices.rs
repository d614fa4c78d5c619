//! Linear algebra on matrices: exponentials, solutions, reflections, against plain loops, what they must
//! satisfy, and the slope of their own forward.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::shape::Type;
use neurarch_kernels::ir::trace::{Trace, Var};
use neurarch_kernels::passes::clean::drop_dead_code;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{
    Array, check_gradient, check_gradient_of, check_layouts, evaluate, planned, same_bits,
};

/// Numbers in -1..1, the same for the same `seed`.
fn numbers(dtype: Dtype, shape: &[usize], seed: u64) -> Array {
    let mut state = seed;
    Array::from_fn(dtype, shape, |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

/// The product of the matrices of two batches.
fn product(a: &Array, b: &Array) -> Vec<f64> {
    evaluate(|v| v[0].matmul(&v[1]), &[a.clone(), b.clone()], &[]).elements
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{found}, not {expected}");
    }
}

#[test]
fn tril_keeps_what_is_not_above_the_diagonal() {
    for (rows, columns, diagonal) in [(3, 3, 0), (4, 2, -1), (2, 5, 2), (3, 1, 0), (0, 3, 0)] {
        let x = numbers(Dtype::F32, &[2, rows, columns], 1);
        let y = check_layouts(|v| v[0].tril(diagonal), std::slice::from_ref(&x));
        for (i, (y, x)) in y.elements.iter().zip(&x.elements).enumerate() {
            let (row, column) = (i / columns % rows, i % columns);
            let is_kept = column as isize - row as isize <= diagonal;
            assert_eq!(*y, if is_kept { *x } else { 0.0 });
        }
    }
    check_gradient(|v| v[0].tril(-1), &[numbers(Dtype::F64, &[3, 4], 2)], 1e-9);
}

#[test]
fn trunc_drops_the_fraction() {
    let x = Array::new(Dtype::F64, [5], [1.9, -1.9, 0.0, -0.5, f64::NAN]);
    let y = check_layouts(|v| v[0].trunc(), &[x]);
    assert!(same_bits(&y.elements, &[1.0, -1.0, 0.0, -0.0, f64::NAN]));
}

#[test]
fn nothing_is_differentiated_through_detach() {
    let x = numbers(Dtype::F64, &[3, 2], 1);
    let y = check_layouts(|v| v[0].detach(), std::slice::from_ref(&x));
    assert_eq!(y, x);
    let trace = Trace::new();
    let x = trace.input(Type::new(Dtype::F64, [3]));
    let y = &x.detach() * &x;
    let dy = trace.constant(1.0, Dtype::F64, [3]);
    let dx = backward(&trace, &[(y, dy)], std::slice::from_ref(&x));
    let program = drop_dead_code(trace.finish(&[dx[0].clone().unwrap()]).unwrap());
    let names: Vec<_> = program.nodes.iter().map(|node| node.op.name()).collect();
    assert_eq!(names, ["detach", "mul"], "the gradient is dy times the constant");
}

#[test]
fn matrix_exp_is_that_of_torch() {
    // torch.matrix_exp of [[0.3, -1.2, 0.4], [2.0, 0.1, -0.7], [0.5, 0.6, -3.0]].
    let a = [0.3, -1.2, 0.4, 2.0, 0.1, -0.7, 0.5, 0.6, -3.0];
    let y = check_layouts(|v| v[0].matrix_exp(), &[Array::new(Dtype::F64, [3, 3], a)]);
    assert_close(&y.elements, &MATRIX_EXP, 1e-14);
}

#[test]
fn matrix_exp_of_a_skew_symmetric_matrix_is_orthogonal() {
    for scale in [0.0, 0.1, 3.0, 40.0] {
        let a = |v: &[Var]| (&v[0] - v[0].mt()) * scale;
        let x = numbers(Dtype::F64, &[2, 5, 5], 3);
        let q = evaluate(|v| a(v).matrix_exp(), std::slice::from_ref(&x), &[]);
        let inverse = evaluate(|v| (-a(v)).matrix_exp(), &[x], &[]);
        let eye: Vec<_> = (0..50).map(|i| f64::from(u8::from(i % 25 % 6 == 0))).collect();
        assert_close(&product(&q, &inverse), &eye, 1e-12);
    }
}

#[test]
fn gradients_of_matrix_exp_are_its_slope() {
    check_gradient(|v| v[0].matrix_exp(), &[numbers(Dtype::F64, &[2, 3, 3], 4)], 1e-8);
    check_gradient(|v| v[0].matrix_exp(), &[numbers(Dtype::F64, &[1, 1], 4)], 1e-8);
}

#[test]
fn a_matrix_that_is_not_finite_has_no_exponential() {
    let a = Array::new(Dtype::F32, [2, 2], [1.0, f64::NAN, 0.0, f64::INFINITY]);
    let y = evaluate(|v| v[0].matrix_exp(), &[a], &[]);
    assert!(y.elements.iter().all(|x| x.is_nan()));
}

#[test]
fn solve_gives_what_multiplied_gives_back() {
    for (dtype, tolerance) in [(Dtype::F64, 1e-12), (Dtype::F32, 2e-5)] {
        // A zero at the first pivot: rows must change places.
        let mut a = numbers(dtype, &[2, 4, 4], 5);
        a.elements[0] = 0.0;
        let b = numbers(dtype, &[2, 4, 3], 6);
        let x = check_layouts(|v| v[0].solve(&v[1]), &[a.clone(), b.clone()]);
        assert_close(&product(&a, &x), &b.elements, tolerance);
    }
}

#[test]
fn gradients_of_solve_are_its_slope() {
    let inputs = [numbers(Dtype::F64, &[2, 3, 3], 8), numbers(Dtype::F64, &[2, 3, 2], 9)];
    // Away from singular matrices.
    let eye = |a: &Var| {
        let ones = a.trace().constant(3.0, Dtype::F64, [3, 3]);
        ones.tril(0) - ones.tril(-1)
    };
    check_gradient(|v| (&v[0] + eye(&v[0])).solve(&v[1]), &inputs, 1e-8);
}

#[test]
fn geqrf_and_householder_product_decompose() {
    for shape in [[2, 5, 3], [1, 4, 4], [3, 1, 1]] {
        let a = numbers(Dtype::F64, &shape, 7);
        let q = check_layouts(
            |v| {
                let [packed, tau] = v[0].geqrf();
                packed.householder_product(&tau)
            },
            std::slice::from_ref(&a),
        );
        let [batch, m, n] = shape;
        // Orthonormal columns, and R = QᵀA is zero below its diagonal.
        let gram = evaluate(|v| v[0].mt().matmul(&v[0]), std::slice::from_ref(&q), &[]);
        let eye = (0..batch * n * n).map(|i| f64::from(u8::from(i % (n * n) % (n + 1) == 0)));
        assert_close(&gram.elements, &eye.collect::<Vec<_>>(), 1e-14);
        let r = evaluate(|v| v[0].mt().matmul(&v[1]), &[q, a.clone()], &[]);
        let below = evaluate(|v| v[0].tril(-1), std::slice::from_ref(&r), &[]);
        assert_close(&below.elements, &vec![0.0; batch * n * n], 1e-14);
        let packed = evaluate(|v| v[0].geqrf()[0].clone(), &[a], &[]);
        for (i, (r, packed)) in r.elements.iter().enumerate().filter_map(|(i, r)| {
            let (matrix, row, column) = (i / (n * n), i / n % n, i % n);
            (column >= row).then(|| (i, (r, packed.elements[(matrix * m + row) * n + column])))
        }) {
            assert!((r - packed).abs() < 1e-14, "{i}: {r}, not {packed}");
        }
    }
}

#[test]
fn geqrf_is_that_of_torch() {
    // torch.geqrf of [[1, -2], [0.5, 3], [-1.5, 0.25]].
    let a = Array::new(Dtype::F64, [3, 2], [1.0, -2.0, 0.5, 3.0, -1.5, 0.25]);
    let packed = evaluate(|v| v[0].geqrf()[0].clone(), std::slice::from_ref(&a), &[]);
    let tau = evaluate(|v| v[0].geqrf()[1].clone(), &[a], &[]);
    assert_close(&packed.elements, &GEQRF, 1e-15);
    assert_close(&tau.elements, &TAU, 1e-15);
}

#[test]
fn gradients_of_householder_product_are_its_slope() {
    let inputs = [numbers(Dtype::F64, &[2, 4, 3], 2), numbers(Dtype::F64, &[2, 2], 5)];
    check_gradient(|v| v[0].householder_product(&v[1]), &inputs, 1e-8);
    // As the orthogonal parametrization uses it: τ makes each factor a reflection.
    let build = |v: &[Var]| {
        let a = v[0].tril(-1);
        let tau = 2.0 / ((&a * &a).sum(&[-2], false) + 1.0);
        a.householder_product(&tau)
    };
    check_gradient_of(build, &inputs[..1], &[0], 1e-8);
}

#[test]
fn shapes_that_do_not_fit_are_errors_in_torchs_words() {
    let error = |build: &dyn Fn(&Trace) -> Var| {
        let trace = Trace::new();
        let _ = build(&trace);
        trace.error().expect("it does not fit").to_string()
    };
    let input = |trace: &Trace, shape: &[usize]| trace.input(Type::new(Dtype::F32, shape));
    assert_eq!(
        error(&|trace| input(trace, &[2, 3]).matrix_exp()),
        "linalg.matrix_exp: A must be batches of square matrices, but they are 2 by 3 matrices"
    );
    assert_eq!(
        error(&|trace| input(trace, &[3]).tril(0)),
        "tril: The input tensor A must have at least 2 dimensions, got 1"
    );
    let solve = |trace: &Trace| input(trace, &[3, 3]).solve(&input(trace, &[2, 3]));
    assert!(error(&solve).starts_with("linalg.solve: Incompatible shapes of A and B"));
    let wide = |trace: &Trace| input(trace, &[2, 3]).householder_product(&input(trace, &[2]));
    assert!(error(&wide).contains("must be greater than or equal to"));
}

#[test]
fn plans_give_the_bits_of_eager_passes_for_every_model() {
    let build = |v: &[Var]| {
        let skew = &v[0] - v[0].mt();
        let [packed, tau] = v[0].geqrf();
        vec![
            skew.matrix_exp(),
            (&v[0].tril(0) + 2.0).solve(&v[1]),
            packed.householder_product(&tau),
            v[0].detach().trunc(),
        ]
    };
    let inputs = |seed: u64| {
        vec![numbers(Dtype::F32, &[2, 6, 6], seed), numbers(Dtype::F32, &[2, 6, 4], seed + 1)]
    };
    let models: Vec<_> = (0..5).map(inputs).collect();
    for (inputs, planned) in models.iter().zip(planned(build, &models)) {
        for (number, planned) in planned.iter().enumerate() {
            let alone = evaluate(|v| build(v)[number].clone(), inputs, &[]);
            assert!(same_bits(&alone.elements, &planned.elements), "output {number}");
        }
    }
}

/// By torch 2.15.0.
const MATRIX_EXP: [f64; 9] = [
    0.2394191305579474,
    -0.9072139586966774,
    0.2377581365040804,
    1.5221242826811519,
    -0.04511663595579919,
    0.07079233771628798,
    0.32750072519016876,
    -0.043363115436779294,
    0.07791594526733334,
];

const GEQRF: [f64; 6] = [
    -1.8708286933869707,
    0.46770717334674217,
    0.17416573867739416,
    -3.583817796707863,
    -0.5224972160321825,
    -0.14819336236886427,
];

const TAU: [f64; 2] = [1.5345224838248486, 1.95702132118326];
