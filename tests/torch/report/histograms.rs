//! Histograms and quantiles: numpy's numbers.

use ndarray::{Array, Array1, Array2, array};
use neurarch::prelude::*;
use neurarch::report::curves::Curves;
use neurarch::report::histogram::{Histogram, Numbers};

/// `numpy.histogram(numpy.linspace(-1, 1, 6).astype("f4"), bins=4)` and others.
#[test]
fn bins_are_numpys() {
    let of = |numbers: Vec<f64>, bins| {
        let of = Histogram::new("x", bins, || numbers.iter().copied());
        (of.counts.clone(), of.edges())
    };
    let six = Array1::linspace(-1.0, 1.0, 6).to_vec();
    assert_eq!(of(six, 4), (vec![2, 1, 1, 2], vec![-1.0, -0.5, 0.0, 0.5, 1.0]));
    assert_eq!(of(vec![-1.0], 4), (vec![0, 0, 1, 0], vec![-1.5, -1.25, -1.0, -0.75, -0.5]));
    // numpy.histogram([], bins=2), and a number of bins that numpy refuses.
    assert_eq!(of(vec![], 2), (vec![0, 0], vec![0.0, 0.5, 1.0]));
    assert_eq!(of(vec![1.0, 2.0], 0), (vec![2], vec![1.0, 2.0]));
    let rest = Histogram::new("x", 2, || [f64::NAN, f64::INFINITY, 1.0, 3.0].into_iter());
    assert_eq!((rest.counts, rest.not_finite), (vec![1, 1], 2));
}

#[test]
fn parameters_of_one_and_of_all_models_are_counted() {
    let mut world = World::new();
    let mut brains = world.spawn_population(&Linear::new(3, 1), 2, Seed(7)).unwrap();
    let weights = array![[[0.0_f32, 1.0, 2.0]], [[3.0, 4.0, 8.0]]];
    brains.unstack("weight", weights.view()).unwrap();
    let brains = brains.as_ref().unwrap();
    let all = brains.histograms(Numbers::Weights, 4).unwrap();
    assert_eq!((all[0].name.as_str(), &all[0].counts[..]), ("weight", &[2, 2, 1, 1][..]));
    assert_eq!((all.len(), all[1].counts.iter().sum::<u64>()), (2, 2));
    let one = brains.model(1).unwrap().histograms(Numbers::Weights, 5).unwrap();
    assert_eq!((one[0].min, one[0].max, &one[0].counts[..]), (3.0, 8.0, &[1, 1, 0, 0, 1][..]));
    assert!(brains.histograms(Numbers::Gradients, 4).unwrap().is_empty(), "there are none yet");
}

/// `numpy.quantile(x, [0, .25, .5, .75, 1], axis=0)`.
#[test]
fn quantiles_are_numpys() {
    let numbers = Array::from_shape_vec((4, 2), vec![1.0_f32, 8.0, 2.0, 4.0, 4.0, 2.0, 8.0, 1.0]);
    let curves = Curves::of(numbers.unwrap().view());
    assert_eq!((curves.best, curves.worst), (vec![1.0, 1.0], vec![8.0, 8.0]));
    assert_eq!(
        (curves.lower, curves.median, curves.upper),
        (vec![1.75; 2], vec![3.0; 2], vec![5.0; 2])
    );
    assert_eq!(Curves::of(Array2::<f64>::zeros((0, 3)).view()).steps(), 0);
}
