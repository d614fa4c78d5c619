//! Sums are as close to the true ones at 2²⁶ numbers as at 2⁴, and their order follows from the length alone.

use ndarray::{Array1, Array2, Array3, ArrayD};
use neurarch::prelude::*;

/// Adds up in the order that `docs/design.md` tells; `add(p, i)` adds term `i` to the partial sum `p`.
fn in_order(n: usize, add: impl Fn(f32, usize) -> f32) -> f32 {
    fn pairwise(blocks: &[f32]) -> f32 {
        match blocks {
            [] => 0.0,
            [one] => *one,
            _ => {
                let (earlier, later) = blocks.split_at(blocks.len().next_power_of_two() / 2);
                pairwise(earlier) + pairwise(later)
            }
        }
    }
    let block = |start: usize| {
        let mut p = [0.0; 16];
        for i in start..n.min(start + 256) {
            p[i % 16] = add(p[i % 16], i);
        }
        for half in [8, 4, 2, 1] {
            (0..half).for_each(|j| p[j] += p[j + half]);
        }
        p[0]
    };
    pairwise(&(0..n).step_by(256).map(block).collect::<Vec<_>>()) + 0.0
}

/// On both sides of all that the order counts in.
const LENGTHS: [usize; 18] =
    [1, 2, 3, 4, 8, 11, 15, 16, 17, 32, 64, 100, 255, 256, 257, 1041, 3600, 70_001];

fn number(i: usize) -> f32 {
    (0.7 * i as f32).sin() + 0.1
}

/// Reduces what it is called with: `[n, columns]` along its axis 0, or all of `[n]`.
#[derive(Component, Clone, Debug, PartialEq)]
enum Reduced {
    Sum,
    Mean,
    Var,
    Norm,
}

impl Module for Reduced {
    fn forward(&self, _: &Call<'_>, x: Var) -> Var {
        match self {
            Reduced::Sum => x.sum(&[0], false),
            Reduced::Mean => x.mean(&[0], false),
            Reduced::Var => x.var(&[0], 1.0, false),
            Reduced::Norm => x.norm(2.0),
        }
    }
}

/// Reduces the numbers of one model.
fn reduced(how: Reduced, x: &ArrayD<f32>) -> Vec<f32> {
    let mut world = World::new();
    let model = world.spawn_population(&how, 1, Seed(0)).unwrap().id();
    let x = x.clone().insert_axis(ndarray::Axis(0));
    let y: ArrayD<f32> = world.no_grad(|world| world.population_mut(model)?.forward(&x)).unwrap();
    y.iter().copied().collect()
}

fn on<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn the_length_alone_gives_the_order_of_a_sum() {
    for n in LENGTHS {
        let line = Array1::from_shape_fn(n, number).into_dyn();
        let expected = in_order(n, |p, i| p + number(i));
        for threads in [1, 3] {
            let found = on(threads, || reduced(Reduced::Sum, &line));
            assert_eq!(found, [expected], "{n} numbers in a row, {threads} threads");
        }
        // Beside each other: the sums of columns.
        let columns = 37.min(1 + 100_000 / n);
        let matrix =
            Array2::from_shape_fn((n, columns), |(i, column)| number(i) * (1 + column) as f32);
        let found = on(3, || reduced(Reduced::Sum, &matrix.clone().into_dyn()));
        for (column, &found) in found.iter().enumerate() {
            assert_eq!(
                found,
                in_order(n, |p, i| p + matrix[[i, column]]),
                "{n} rows, column {column}"
            );
        }
    }
}

/// Gives the products of rows with the rows of the weight of a linear layer.
fn products(x: &Array2<f32>, weight: &Array2<f32>) -> ArrayD<f32> {
    let mut world = World::new();
    let (columns, k) = weight.dim();
    let linear = Linear { bias: false, ..Linear::new(k, columns) };
    let population = world.spawn_population(&linear, 1, Seed(0)).unwrap().id();
    let model = world.population(population).unwrap().models()[0];
    world.module_mut(model).unwrap().set_parameter("weight", weight.view()).unwrap();
    let x = x.clone().insert_axis(ndarray::Axis(0));
    world.no_grad(|world| world.population_mut(population)?.forward(&x)).unwrap()
}

#[test]
fn a_product_with_few_rows_adds_in_the_same_order_with_fused_additions() {
    for k in LENGTHS.into_iter().filter(|&k| k < 10_000) {
        for (rows, columns) in [(1, 3), (1, 19), (7, 8)] {
            let x = Array2::from_shape_fn((rows, k), |(row, i)| number(row + 3 * i));
            let weight =
                Array2::from_shape_fn((columns, k), |(column, i)| number(7 * column + 5 * i));
            let y = products(&x, &weight);
            for row in 0..rows {
                for column in 0..columns {
                    let add = |p, i| x[[row, i]].mul_add(weight[[column, i]], p);
                    let place =
                        format!("{k} numbers, row {row} of {rows}, column {column} of {columns}");
                    assert_eq!(y[[0, row, column]], in_order(k, add), "{place}");
                }
            }
        }
    }
}

/// Asserts that a number is as near to the true one as `roundings` of it.
fn assert_near(found: f32, exact: f64, roundings: f64, what: &str) {
    let error = (f64::from(found) / exact - 1.0).abs();
    assert!(error < roundings * f64::from(f32::EPSILON) / 2.0, "{what}: {found} for {exact}");
}

#[test]
fn reductions_are_as_exact_of_millions_as_of_sixteen() {
    for power in [4, 10, 16, 20, 24] {
        let n = 1_usize << power;
        let noise =
            |i: usize| (i.wrapping_mul(2_654_435_761) >> 7 & 0xffff) as f32 / 65_536.0 + 0.1;
        type Numbers = Box<dyn Fn(usize) -> f32>;
        let numbers: [(&str, Numbers); 3] = [
            ("0.1", Box::new(|_| 0.1)),
            ("waves", Box::new(|i| number(i) + 1.0)),
            ("noise", Box::new(noise)),
        ];
        for (name, number) in numbers {
            let x = Array1::from_shape_fn(n, &*number);
            let exact = |f: &dyn Fn(f64) -> f64| x.iter().map(|&x| f(x.into())).sum::<f64>();
            let (sum, squares) = (exact(&|x| x), exact(&|x| x * x));
            let x = &x.clone().into_dyn();
            let what = format!("2^{power} of {name}");
            assert_near(reduced(Reduced::Sum, x)[0], sum, 4.0, &what);
            assert_near(reduced(Reduced::Mean, x)[0], sum / n as f64, 6.0, &what);
            assert_near(reduced(Reduced::Norm, x)[0], squares.sqrt(), 6.0, &what);
            if name != "0.1" {
                let mean = sum / n as f64;
                let apart = exact(&|x| (x - mean) * (x - mean));
                assert_near(reduced(Reduced::Var, x)[0], apart / (n - 1) as f64, 8.0, &what);
            }
        }
    }
}

#[test]
fn a_bias_has_the_gradient_of_a_million_rows() {
    let mut world = World::new();
    let population = world.spawn_population(&Linear::new(1, 3), 1, Seed(0)).unwrap().id();
    let rows = 1 << 20;
    let x = Array3::<f32>::zeros((1, rows, 1));
    let _: ArrayD<f32> = world.population_mut(population).unwrap().forward(&x).unwrap();
    let dy = Array3::from_shape_fn((1, rows, 3), |(_, row, column)| number(row) + column as f32);
    world.population_mut(population).unwrap().backward_from(&dy).unwrap();
    let model = world.population(population).unwrap().models()[0];
    let gradient = world.module_mut(model).unwrap().gradient::<f32>("bias").unwrap().unwrap();
    for column in 0..3 {
        let exact = (0..rows).map(|row| f64::from(dy[[0, row, column]])).sum::<f64>();
        assert_near(gradient[[column]], exact, 16.0, "bias");
        let expected = in_order(rows, |p, row| p + dy[[0, row, column]]);
        assert_eq!(gradient[[column]], expected, "column {column}");
    }
}

#[test]
fn running_statistics_of_millions_are_right() {
    let mut world = World::new();
    let norm = BatchNorm1d { momentum: Some(1.0), ..BatchNorm1d::new(1) };
    let population = world.spawn_population(&norm, 1, Seed(0)).unwrap().id();
    let rows = 1 << 24;
    let x = Array3::from_shape_fn((1, rows, 1), |(_, row, _)| {
        10.0 + 0.9 * (row % 1_000) as f32 / 999.0
    });
    let _: ArrayD<f32> =
        world.no_grad(|world| world.population_mut(population)?.forward(&x)).unwrap();
    let exact = x.iter().map(|&x| f64::from(x)).sum::<f64>() / rows as f64;
    let mean = world.population_mut(population).unwrap().stack::<f32>("running_mean").unwrap();
    assert_near(mean[[0, 0]], exact, 8.0, "running mean");
}

#[test]
fn losses_of_millions_are_right() {
    let mut world = World::new();
    let population = world.spawn_population(&Identity, 1, Seed(0)).unwrap().id();
    let (rows, columns) = (1 << 16, 40);
    let x = Array3::from_shape_fn((1, rows, columns), |(_, i, j)| number(i * columns + j));
    let y = Array3::from_shape_fn((1, rows, columns), |(_, i, j)| number(3 * i + j));
    let _: ArrayD<f32> =
        world.no_grad(|world| world.population_mut(population)?.forward(&x)).unwrap();
    let found =
        world.population_mut(population).unwrap().loss::<f32, _>(&y, &MSELoss::default()).unwrap()
            [0];
    let apart = x.iter().zip(&y).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2));
    assert_near(found, apart.sum::<f64>() / x.len() as f64, 12.0, "mean square");

    let classes = Array2::from_shape_fn((1, rows), |(_, i)| (i * 7 % columns) as i64);
    let found = world
        .population_mut(population)
        .unwrap()
        .loss::<f32, _>(&classes, &CrossEntropyLoss::default())
        .unwrap()[0];
    let of_row = |i: usize| {
        let line = x.slice(ndarray::s![0, i, ..]);
        let sum: f64 = line.iter().map(|&x| f64::from(x).exp()).sum();
        sum.ln() - f64::from(line[classes[[0, i]] as usize])
    };
    let exact = (0..rows).map(of_row).sum::<f64>() / rows as f64;
    assert_near(found, exact, 12.0, "cross entropy");
}
