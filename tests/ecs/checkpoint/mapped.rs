//! Models run from the file, bit for bit as in a world.

use ndarray::{Array3, Axis};
use neurarch::prelude::*;
use neurarch::state::checkpoint;
use neurarch::state::checkpoint::{Checkpoint, CheckpointError};

use super::{Scratch, batch, net, train};
use crate::known::Known;

#[test]
fn models_give_the_bits_of_a_world_in_evaluation_mode() {
    let scratch = Scratch::new("mapped");
    let mut world = World::new();
    let brains = world.spawn_population(&net(), 9, Seed(5)).unwrap().id();
    world.brains(brains).insert(SGD { lr: 0.05, ..SGD::default() }).unwrap();
    world.brains(brains).share_parameter("4.bias").unwrap();
    train(&mut world, brains, 0..3);
    // Some of another structure, whose settings are scalars that differ.
    let roots = world.population(brains).unwrap().models().to_vec();
    for (number, &root) in roots[2..5].iter().enumerate() {
        let slope = 0.1 + number as f64;
        let module = world.part(root).at("2").unwrap().id();
        world.entity_mut(module).insert(LeakyReLU { negative_slope: slope });
    }
    checkpoint::save(&mut world, &[brains], &scratch).unwrap();
    let (x, _) = batch(9, 1);
    let expected =
        world.brains(brains).eval().unwrap().no_grad(|brains| brains.forward(&x)).unwrap();
    for checkpoint in [Checkpoint::open(&scratch).unwrap(), Checkpoint::read(&scratch).unwrap()] {
        assert_eq!(checkpoint.forward(&x).unwrap(), expected);
        let mut models = checkpoint.mapped().unwrap();
        assert_eq!(models.forward(&x).unwrap(), expected);
        assert_eq!(models.forward(&x).unwrap(), expected);
        let some = [7, 3, 0, 4];
        let of_some = x.select(Axis(0), &some);
        let y = checkpoint.forward_some(0, &some, &of_some).unwrap();
        assert_eq!(y, expected.select(Axis(0), &some));
        let one = x.index_axis(Axis(0), 6);
        let y = checkpoint.forward_some(0, &[6], Input::shared(one)).unwrap();
        assert_eq!(y.index_axis(Axis(0), 0), expected.index_axis(Axis(0), 6));
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let scratch = Scratch::new("mapped_errors");
    let mut world = World::new();
    let brains = world.spawn_population(&net(), 3, Seed(5)).unwrap().id();
    checkpoint::save(&mut world, &[brains], &scratch).unwrap();
    let checkpoint = Checkpoint::open(&scratch).unwrap();
    let x = Array3::<f32>::ones((2, 5, 4));
    let error = |result: Result<_, CheckpointError>| -> String {
        let result: Result<ndarray::ArrayD<f32>, _> = result;
        result.unwrap_err().to_string()
    };
    assert!(error(checkpoint.forward(&x)).contains("expected numbers for 3 models, got 2"));
    assert!(
        error(checkpoint.forward_some(0, &[1, 3], &x)).contains("expected a model below 3, got 3")
    );
    assert!(error(checkpoint.forward_some(0, &[1, 1], &x)).contains("model 1 is listed twice"));
    assert!(error(checkpoint.forward_some(1, &[0, 1], &x)).contains("expected a model below 0"));
    let wide = Array3::<f32>::ones((3, 5, 7));
    assert!(checkpoint.forward(&wide).is_err());
    let double = Array3::<f64>::ones((3, 5, 4));
    assert!(checkpoint.forward(&double).is_err());
    assert!(checkpoint.forward(&Array3::<f32>::ones((3, 5, 4))).is_ok());
}
