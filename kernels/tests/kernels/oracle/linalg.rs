//! Decompositions of small matrices, by school methods.

use super::interpreter::Compute;

pub(crate) const TABLE: &[(&str, Compute)] = &[
    ("linalg_solve", |call| {
        let [a, b] = call.x else { panic!("two inputs") };
        let [.., n, _] = a.ty.shape[..] else { panic!("matrices") };
        let columns = b.ty.shape[b.ty.shape.rank() - 1];
        let each = a.elements.chunks(n * n).zip(b.elements.chunks(n * columns));
        vec![each.flat_map(|(a, b)| solve(a, b, n, columns)).collect()]
    }),
    ("matrix_exp", |call| {
        let [.., n, _] = call.x[0].ty.shape[..] else { panic!("matrices") };
        vec![call.x[0].elements.chunks(n * n).flat_map(|a| matrix_exp(a, n)).collect()]
    }),
];

/// Solves `A X = B` by elimination with the largest pivots.
fn solve(a: &[f64], b: &[f64], n: usize, columns: usize) -> Vec<f64> {
    let mut a: Vec<Vec<f64>> = a.chunks(n).map(<[f64]>::to_vec).collect();
    let mut b: Vec<Vec<f64>> = b.chunks(columns).map(<[f64]>::to_vec).collect();
    for i in 0..n {
        let largest = (i..n).max_by(|&p, &q| a[p][i].abs().total_cmp(&a[q][i].abs()));
        a.swap(i, largest.expect("there are rows"));
        b.swap(i, largest.expect("there are rows"));
        let (of_a, of_b) = (a[i].clone(), b[i].clone());
        for row in (0..n).filter(|&row| row != i) {
            let factor = a[row][i] / of_a[i];
            a[row].iter_mut().zip(&of_a).for_each(|(a, pivot)| *a -= factor * pivot);
            b[row].iter_mut().zip(&of_b).for_each(|(b, pivot)| *b -= factor * pivot);
        }
    }
    (0..n).flat_map(|i| b[i].iter().map(|b| b / a[i][i]).collect::<Vec<_>>()).collect()
}

/// The series, of the matrix divided by 2²⁰, squared 20 times.
fn matrix_exp(a: &[f64], n: usize) -> Vec<f64> {
    const HALVINGS: i32 = 20;
    let product = |a: &[f64], b: &[f64]| -> Vec<f64> {
        let of = |at: usize| (0..n).map(|k| a[at / n * n + k] * b[k * n + at % n]).sum();
        (0..n * n).map(of).collect()
    };
    let small: Vec<_> = a.iter().map(|a| a / 2.0_f64.powi(HALVINGS)).collect();
    // e^A - 1, so that ones do not swallow what is small.
    let mut power = small.clone();
    let mut result = small.clone();
    for i in 2..12 {
        power = product(&power, &small).iter().map(|x| x / f64::from(i)).collect();
        result.iter_mut().zip(&power).for_each(|(sum, x)| *sum += x);
    }
    for _ in 0..HALVINGS {
        let square = product(&result, &result);
        result.iter_mut().zip(square).for_each(|(x, square)| *x = 2.0 * *x + square);
    }
    (0..n * n).map(|at| result[at] + f64::from(u8::from(at / n == at % n))).collect()
}
