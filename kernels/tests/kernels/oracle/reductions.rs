//! Numbers of many: sums, extremes, softmax, norms.

use super::interpreter::{Call, Compute, coordinates, place};

pub(crate) const TABLE: &[(&str, Compute)] = &[
    ("sum", |call| vec![groups(call, &call.list("dim=")).iter().map(|x| x.iter().sum()).collect()]),
    ("mean", |call| {
        let of = |x: &Vec<f64>| x.iter().sum::<f64>() / x.len() as f64;
        vec![groups(call, &call.list("dim=")).iter().map(of).collect()]
    }),
    ("amax", |call| vec![groups(call, &call.list("dim=")).iter().map(|x| largest(x)).collect()]),
    ("argmax", |call| {
        let first = |x: &Vec<f64>| {
            let largest = largest(x);
            let is = |x: &f64| *x == largest || x.is_nan();
            x.iter().position(is).expect("one is the largest") as f64
        };
        vec![groups(call, &[call.number("dim=") as usize]).iter().map(first).collect()]
    }),
    ("softmax", |call| along(call, |x| softmax(&x[0]))),
    ("safe_softmax", |call| {
        along(call, |x| match x[0].iter().all(|&x| x == f64::NEG_INFINITY) {
            true => vec![0.0; x[0].len()],
            false => softmax(&x[0]),
        })
    }),
    ("log_softmax", |call| {
        along(call, |x| {
            let most = largest(&x[0]);
            let sum: f64 = x[0].iter().map(|x| (x - most).exp()).sum();
            x[0].iter().map(|x| x - most - sum.ln()).collect()
        })
    }),
    ("softmax_gradient", |call| {
        along(call, |x| {
            let [dy, y] = x else { panic!("two inputs") };
            let sum: f64 = dy.iter().zip(y).map(|(dy, y)| dy * y).sum();
            dy.iter().zip(y).map(|(dy, y)| y * (dy - sum)).collect()
        })
    }),
    ("log_softmax_gradient", |call| {
        along(call, |x| {
            let [dy, y] = x else { panic!("two inputs") };
            let sum: f64 = dy.iter().sum();
            dy.iter().zip(y).map(|(dy, y)| dy - y.exp() * sum).collect()
        })
    }),
    ("normalize", |call| normalize(call, true)),
    ("rms_normalize", |call| normalize(call, false)),
    ("normalize_gradient", |call| normalize_gradient(call, true)),
    ("rms_normalize_gradient", |call| normalize_gradient(call, false)),
];

/// For each element of the first input, which group over `axes` it belongs to.
fn group_of(call: &Call<'_>, axes: &[usize]) -> (Vec<usize>, usize) {
    let shape = &call.x[0].ty.shape;
    let left: Vec<usize> = (0..shape.rank()).filter(|axis| !axes.contains(axis)).collect();
    let sizes: Vec<_> = left.iter().map(|&axis| shape[axis]).collect();
    let of = |at: Vec<usize>| place(&sizes, &left.iter().map(|&axis| at[axis]).collect::<Vec<_>>());
    (coordinates(shape).into_iter().map(of).collect(), sizes.iter().product())
}

/// The elements of the first input in groups over `axes`.
fn groups(call: &Call<'_>, axes: &[usize]) -> Vec<Vec<f64>> {
    let (of, count) = group_of(call, axes);
    let mut groups = vec![Vec::new(); count];
    of.iter().zip(&call.x[0].elements).for_each(|(&group, &x)| groups[group].push(x));
    groups
}

/// The largest, or NaN.
fn largest(x: &[f64]) -> f64 {
    let larger = |a: f64, &b: &f64| if b > a || b.is_nan() { b } else { a };
    x.iter().fold(f64::NEG_INFINITY, |a, b| if a.is_nan() { a } else { larger(a, b) })
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let most = largest(x);
    let e: Vec<_> = x.iter().map(|x| (x - most).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

/// Computes lines along an axis from those of the inputs, which have one shape.
fn along(call: &Call<'_>, of: impl Fn(&[Vec<f64>]) -> Vec<f64>) -> Vec<Vec<f64>> {
    let (group, count) = group_of(call, &[call.number("dim=") as usize]);
    let mut y = vec![0.0; group.len()];
    for line in 0..count {
        let places: Vec<_> = (0..group.len()).filter(|&i| group[i] == line).collect();
        let x: Vec<Vec<f64>> =
            call.x.iter().map(|x| places.iter().map(|&i| x.elements[i]).collect()).collect();
        places.iter().zip(of(&x)).for_each(|(&i, x)| y[i] = x);
    }
    vec![y]
}

fn normalize(call: &Call<'_>, is_centered: bool) -> Vec<Vec<f64>> {
    let (of, _) = group_of(call, &call.list("dim="));
    let groups = groups(call, &call.list("dim="));
    let eps = call.one(1);
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let means: Vec<_> = groups.iter().map(|x| if is_centered { mean(x) } else { 0.0 }).collect();
    let squares =
        |(x, m): (&Vec<f64>, &f64)| mean(&x.iter().map(|x| (x - m) * (x - m)).collect::<Vec<_>>());
    let vars: Vec<f64> = groups.iter().zip(&means).map(squares).collect();
    let y = call.x[0].elements.iter().zip(&of);
    let y = y.map(|(x, &group)| (x - means[group]) / (vars[group] + eps).sqrt()).collect();
    if is_centered { vec![y, vars, means] } else { vec![y, vars] }
}

fn normalize_gradient(call: &Call<'_>, is_centered: bool) -> Vec<Vec<f64>> {
    let (of, count) = group_of(call, &call.list("dim="));
    let [dy, y, var, _] = call.x else { panic!("four inputs") };
    let (mut sums, mut products) = (vec![0.0; count], vec![0.0; count]);
    for ((&group, dy), y) in of.iter().zip(&dy.elements).zip(&y.elements) {
        sums[group] += dy;
        products[group] += dy * y;
    }
    let n = (of.len() / count.max(1)) as f64;
    let each = |((&group, dy), y): ((&usize, &f64), &f64)| {
        let mean = if is_centered { sums[group] / n } else { 0.0 };
        (dy - mean - y * products[group] / n) / (var.elements[group] + call.one(3)).sqrt()
    };
    vec![of.iter().zip(&dy.elements).zip(&y.elements).map(each).collect()]
}
