//! Histograms and quantiles: numpy's numbers.

use ndarray::{Array, Array1, Array2, Axis, array};
use neurarch::functions::columns::parameter_columns;
use neurarch::prelude::*;
use neurarch::report::curves::Curves;
use neurarch::report::histogram::{Histogram, Numbers};
use neurarch::report::log::{JsonLinesWriter, Logger};

/// `numpy.histogram(numpy.linspace(-1, 1, 6).astype("f4"), bins=4)` and others.
#[test]
fn bins_are_numpys() {
    let of = |numbers: Vec<f64>, bins| {
        let of = Histogram::new("x", bins, || numbers.iter().copied());
        (of.counts, of.edges)
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

#[test]
fn a_histogram_of_either_kind_is_drawn_and_logged() {
    let mut world = World::new();
    let brains = world.spawn_population(&Linear::new(3, 4), 20, Seed(7)).unwrap();
    let even = brains.as_ref().unwrap().histograms(Numbers::Weights, 8).unwrap().swap_remove(0);
    let widening = Histogram::widening("weight", &[-0.25_f32, 0.5, 0.75, f32::NAN]);
    assert_eq!((widening.num, widening.not_finite), (3, 1));
    let path = std::env::temp_dir().join(format!("neurarch-hist-{}.jsonl", std::process::id()));
    let mut log = JsonLinesWriter::open(&path).unwrap();
    for (step, of) in [&even, &widening].into_iter().enumerate() {
        log.add_histogram(&of.name, of, step as u64).unwrap();
        assert_eq!(of.edges.len(), of.counts.len() + 1);
    }
    log.flush().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let counts = ["\"num\":240.0", "\"num\":3.0"];
    assert!(text.lines().zip(counts).all(|(line, count)| line.contains(count)), "{text}");
}

/// The names of a structure are looked up once, however many models have it.
#[test]
fn parameters_of_a_population_are_read_by_column() {
    let mut world = World::new();
    let net = || Sequential::new().push(Linear::new(2, 3)).push(Linear::new(3, 1));
    let mut brains = world.spawn_population(&net(), 300, Seed(7)).unwrap();
    let id = brains.id();
    brains.model(7).unwrap().container().append(Linear::new(1, 1)).unwrap();
    let settled = world.population_mut(id).unwrap().stack::<f32>("0.bias").unwrap();
    assert_eq!(settled.shape(), [300, 3]);
    let columns = parameter_columns(&world, id).unwrap();
    let of: Vec<_> = columns.iter().map(|of| (of.name(), of.models().len())).collect();
    let names = ["0.weight", "0.bias", "1.weight", "1.bias"];
    let expected = names.map(|name| (name, 299)).into_iter().chain(names.map(|name| (name, 1)));
    let expected: Vec<_> = expected.chain([("2.weight", 1), ("2.bias", 1)]).collect();
    assert_eq!(of, expected);
    for column in columns.iter().filter(|of| of.name() == "0.bias") {
        for (place, &index) in column.models().iter().enumerate() {
            let numbers: Vec<f32> = bytemuck::pod_collect_to_vec(column.numbers(place).unwrap());
            assert_eq!(numbers, settled.index_axis(Axis(0), index as usize).as_slice().unwrap());
        }
    }
    let all = world.population(id).unwrap().histograms(Numbers::Weights, 4).unwrap();
    let counts: Vec<_> = all.iter().map(|of| (of.name.as_str(), of.num)).collect();
    assert_eq!(counts[..4].iter().map(|of| of.1).collect::<Vec<_>>(), [1800, 900, 900, 300]);
    assert_eq!(counts[4..], [("2.weight", 1), ("2.bias", 1)]);
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
