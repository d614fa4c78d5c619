//! The work of one large model is split over threads, and gives the same bits as on one.

use neurarch_kernels::ir::dtype::Dtype;
use neurarch_kernels::ir::trace::Var;
use neurarch_kernels::ops::activation::gelu::Approximate;
use neurarch_kernels::ops::spatial::convolution::Convolution;
use neurarch_kernels::ops::spatial::max_pool::Window;
use neurarch_kernels::passes::differentiate::backward;
use neurarch_kernels::testing::{Array, cases, planned, same_bits};
use proptest::prelude::*;

fn numbers(dtype: Dtype, shape: &[usize], seed: u64) -> Array {
    let mut state = seed;
    Array::from_fn(dtype, shape, |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        8.0 * (state >> 40) as f64 / f64::from(1 << 24) - 4.0
    })
}

fn on_threads(
    threads: usize,
    build: &(dyn Fn(&[Var]) -> Vec<Var> + Sync),
    inputs: &[Array],
) -> Vec<Array> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    pool.install(|| planned(build, &[inputs.to_vec()])).remove(0)
}

/// Checks that results and gradients have the same bits on one, two and three threads.
fn check(build: &(dyn Fn(&[Var]) -> Var + Sync), inputs: &[Array]) {
    let with_gradients = |v: &[Var]| {
        let y = build(v);
        // Not the same everywhere, so that no gradient is.
        let dy = y.sin();
        let wrt: Vec<_> = v.iter().filter(|x| x.dtype().is_float()).cloned().collect();
        let gradients = backward(y.trace(), &[(y.clone(), dy)], &wrt);
        [y].into_iter().chain(gradients.into_iter().flatten()).collect::<Vec<_>>()
    };
    let expected = on_threads(1, &with_gradients, inputs);
    for threads in [2, 3] {
        let found = on_threads(threads, &with_gradients, inputs);
        for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(same_bits(&found.elements, &expected.elements), "output {number}");
        }
    }
}

proptest! {
    // Each case takes a second or so.
    #![proptest_config(ProptestConfig::with_cases(cases(3)))]

    #[test]
    fn elementwise_ops_have_the_same_bits_on_any_number_of_threads(
        rows in 40..90_usize, columns in 2_000..4_000_usize, seed: u64, wide: bool,
    ) {
        let dtype = if wide { Dtype::F64 } else { Dtype::F32 };
        let (x, row) = (numbers(dtype, &[rows, columns], seed), numbers(dtype, &[columns], !seed));
        let column = numbers(dtype, &[rows, 1], seed ^ 7);
        check(&|v| v[0].gelu(Approximate::Tanh), std::slice::from_ref(&x));
        check(&|v| &v[0] * &v[1] + &v[2], &[x.clone(), row.clone(), column.clone()]);
        check(&|v| v[0].t() * &v[1].t(), &[x, column]);
    }

    #[test]
    fn reductions_and_softmax_have_the_same_bits_on_any_number_of_threads(
        a in 2..6_usize, b in 60..120_usize, c in 300..700_usize, axis in 0..3_isize, seed: u64,
    ) {
        let x = &[numbers(Dtype::F32, &[a, b, c], seed)];
        check(&|v| v[0].sum(&[axis], false), x);
        check(&|v| v[0].mean(&[], false) + v[0].amax(&[axis], true), x);
        check(&|v| v[0].softmax(axis), x);
        check(&|v| v[0].transpose(0, 1).log_softmax(axis), x);
    }

    #[test]
    fn norms_have_the_same_bits_on_any_number_of_threads(
        a in 2..6_usize, b in 60..120_usize, c in 300..700_usize, axis in 0..3_isize, seed: u64,
    ) {
        let x = &[numbers(Dtype::F32, &[a, b, c], seed)];
        let eps = |x: &Var| x.trace().constant(1e-5, x.dtype(), []);
        check(&|v| v[0].normalize(&[axis], &eps(&v[0])).y, x);
        check(&|v| v[0].rms_normalize(&[1, 2], &eps(&v[0])), x);
        check(&|v| v[0].normalize(&[0, 2], &eps(&v[0])).y, x);
    }

    #[test]
    fn convolutions_have_the_same_bits_on_any_number_of_threads(
        items in 1..4_usize, channels in 1..4_usize, out in 1..7_usize, groups in 1..3_usize,
        size in 40..60_usize, stride in 1..3_usize, seed: u64,
    ) {
        let settings = Convolution {
            stride: vec![stride; 2],
            padding: vec![(1, 1); 2],
            dilation: vec![1; 2],
            groups,
        };
        let x = numbers(Dtype::F32, &[items, channels * groups, size, size], seed);
        let weight = numbers(Dtype::F32, &[out * groups, channels, 3, 3], !seed);
        let bias = numbers(Dtype::F32, &[out * groups], seed ^ 5);
        check(&|v| v[0].convolution(&v[1], Some(&v[2]), &settings), &[x, weight, bias]);
    }

    #[test]
    fn walks_through_time_have_the_same_bits_on_any_number_of_threads(
        steps in 3..9_usize, batch in 9..40_usize, hidden in 30..70_usize, reverse: bool, seed: u64,
    ) {
        let of = |shape: &[usize], number| {
            let x = numbers(Dtype::F32, shape, seed ^ number);
            Array::new(Dtype::F32, shape, x.elements.iter().map(|x| x / 8.0).collect::<Vec<_>>())
        };
        for gates in [3, 4] {
            let inputs = [
                of(&[steps * batch, gates * hidden], 1),
                of(&[gates * hidden, hidden], 2),
                of(&[gates * hidden], 3),
                of(&[batch, hidden], 4),
                of(&[batch, hidden], 5),
            ];
            match gates {
                3 => check(&|v| v[0].gru(&v[1], Some(&v[2]), &v[3], steps, reverse).h, &inputs[..4]),
                _ => check(
                    &|v| v[0].lstm(&v[1], Some(&v[2]), [&v[3], &v[4]], steps, reverse).h,
                    &inputs,
                ),
            }
        }
    }

    #[test]
    fn groups_of_matrices_have_the_same_bits_on_any_number_of_threads(
        m in 50..90_usize, k in 50..90_usize, n in 60..120_usize, end in 0..50_usize, seed: u64,
    ) {
        let offs = Array::new(Dtype::I64, [2], [end as f64, 50.0]);
        let product = |v: &[Var]| v[0].grouped_mm(&v[1], Some(&v[2]));
        let [a, b] = [numbers(Dtype::F32, &[m, k], seed), numbers(Dtype::F32, &[k, n], !seed)];
        let [each_a, each_b] =
            [numbers(Dtype::F32, &[2, m, k], seed), numbers(Dtype::F32, &[2, k, n], !seed)];
        check(&product, &[a.clone(), each_b, offs.clone()]);
        check(&product, &[each_a, b.clone(), offs.clone()]);
        check(&product, &[a, b, offs]);
    }

    #[test]
    fn copies_products_and_pools_have_the_same_bits_on_any_number_of_threads(
        a in 3..7_usize, b in 50..90_usize, c in 300..500_usize, seed: u64,
    ) {
        let x = &[numbers(Dtype::F32, &[a, b, c], seed)];
        check(&|v| v[0].permute(&[1, 2, 0]).reshape([b * c, a]).square(), x);
        check(&|v| Var::cat(&[&v[0].slice(1, 1..b), &v[0]], 1), x);
        check(&|v| v[0].matmul(&v[0].mt()) * 1e-3, x);
        let windows = |size: usize| {
            let window = |i| Window { start: 2 * i, end: 2 * i + 2, step: 1 };
            (0..size / 2).map(window).collect::<Vec<_>>()
        };
        check(&|v| v[0].reshape([a, 1, b, c]).max_windows(vec![windows(b), windows(c)])[0].clone(), x);
    }
}
