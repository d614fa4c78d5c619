//! Running normalization has the numbers of gymnasium's `NormalizeObservation`.

use ndarray::{Array2, Array3, array};
use neurarch::prelude::*;

fn close(found: impl IntoIterator<Item = f32>, expected: &[f64]) {
    let found: Vec<f32> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let difference = (f64::from(*found) - expected).abs();
        assert!(difference <= 1e-5 * expected.abs().max(1.0), "{found} {expected}");
    }
}

/// ```text
/// from gymnasium.wrappers.utils import RunningMeanStd    # gymnasium 1.4.0
/// r = RunningMeanStd(shape=(2,), dtype=np.float64)
/// for x in ([1.0, -2.0], [3.0, 0.5], [-1.5, 4.0], [10.0, 4.0]):
///     r.update(np.array([x])); print((np.array(x) - r.mean) / np.sqrt(r.var + 1e-8))
/// print(r.mean, r.var, r.count)
/// r.update(np.array([[0.0, 1.0], [2.0, 3.0], [4.0, -1.0]])); print(r.mean, r.var, r.count)
/// ```
#[test]
fn observations_are_normalized_by_all_that_was_seen() {
    let mut world = World::new();
    let mut norm = world.spawn_population(&NormalizeObservation::new(2), 1, Seed(1)).unwrap();
    let expected = [
        // A variance of 1e-4 is a difference of large numbers: hence the tolerance of the first one.
        [0.007_070_714_25, -0.008_944_093_01],
        [1.000_000_005, 0.999_969_998_7],
        [-1.267_495_916, 1.286_869_109],
        [1.607_279_522, 0.937_221_989],
    ];
    let seen = [[1.0, -2.0], [3.0, 0.5], [-1.5, 4.0], [10.0, 4.0_f32]];
    for (tick, (x, expected)) in seen.into_iter().zip(expected).enumerate() {
        let y = norm.forward(&Array2::from_shape_vec((1, 2), x.to_vec()).unwrap()).unwrap();
        if tick == 0 {
            assert!(y.iter().all(|y| y.abs() < 0.01));
        } else {
            close(y, &expected);
        }
    }
    close(norm.stack::<f32>("running_mean").unwrap(), &[3.124_921_877, 1.624_959_376]);
    close(norm.stack::<f32>("running_var").unwrap(), &[18.296_686_717, 6.421_805_469]);
    let batch = array![[[0.0_f32, 1.0], [2.0, 3.0], [4.0, -1.0]]];
    norm.forward(&batch).unwrap();
    close(norm.stack::<f32>("running_mean").unwrap(), &[2.642_819_388, 1.357_123_470]);
    close(norm.stack::<f32>("running_var").unwrap(), &[11.908_107_215, 4.908_133_746]);
    close(norm.stack::<f32>("count").unwrap(), &[7.000_1]);
    // In evaluation mode nothing is counted.
    let y = norm.eval().unwrap().forward(&array![[1.0_f32, 1.0]]).unwrap();
    close(y, &[(1.0 - 2.642_819_388) / 3.450_812_544, (1.0 - 1.357_123_470) / 2.215_430_820]);
    close(norm.stack::<f32>("count").unwrap(), &[7.000_1]);
}

#[test]
fn each_model_has_statistics_of_its_own_and_gradients_pass_to_the_layers_behind() {
    let mut world = World::new();
    let net = Sequential::new().push(NormalizeObservation::new(3)).push(Linear::new(3, 2));
    let mut brains = world.spawn_population(&net, 4, Seed(1)).unwrap();
    brains.insert(SGD { lr: 0.1, ..SGD::default() }).unwrap();
    let x = Array3::from_shape_fn((4, 5, 3), |(m, b, i)| (m * (b + 1) + i) as f32);
    let y = Array2::<i64>::zeros((4, 5));
    let first = brains.train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
    let second = brains.train_step(&x, &y, &CrossEntropyLoss::default()).unwrap();
    assert!(first.iter().zip(&second).all(|(first, second)| second < first));
    let means = brains.stack::<f32>("0.running_mean").unwrap();
    // Ten observations, and the first one of zeros that counts as 1e-4, as gymnasium has it.
    let mean = |of: f64| of * 10.0 / 10.000_1;
    close(means.outer_iter().map(|row| row[0]), &[0.0, 3.0, 6.0, 9.0].map(mean));
    let wrong = brains.forward(&Array2::<f32>::zeros((4, 2))).unwrap_err().to_string();
    assert!(wrong.contains("expected observations of 3 features, got shape [2]"), "{wrong}");
}
