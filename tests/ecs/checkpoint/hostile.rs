//! Files that were changed: every byte is noticed, and nothing is spawned.

use std::fs;

use neurarch::components::population::Population;
use neurarch::prelude::*;
use neurarch::state::checkpoint;
use neurarch::state::checkpoint::{Checkpoint, CheckpointError};

use super::{Scratch, batch, net, train};
use crate::known::Known;

/// Draws numbers that follow from the first.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let scratch = Scratch::new("hostile");
    let mut world = World::new();
    let brains = world.spawn_population(&net(), 3, Seed(5)).unwrap().id();
    world.brains(brains).insert(Adam::default()).unwrap();
    train(&mut world, brains, 0..1);
    checkpoint::save(&mut world, &[brains], &scratch).unwrap();
    let bytes = fs::read(&scratch).unwrap();
    let mut other = World::new();
    Checkpoint::read(&scratch).unwrap().restore(&mut other).unwrap();
    let (x, _) = batch(3, 0);
    Checkpoint::read(&scratch).unwrap().forward(&x).unwrap();

    let noticed = |bytes: &[u8]| -> CheckpointError {
        fs::write(&scratch, bytes).unwrap();
        match Checkpoint::read(&scratch) {
            Err(error) => error,
            Ok(checkpoint) => {
                let error = checkpoint.verify().unwrap_err();
                let mut world = World::new();
                assert!(checkpoint.restore(&mut world).is_err());
                assert_eq!(world.query::<&Population>().iter(&world).count(), 0);
                error
            }
        }
    };
    let mut dice = Dice(7);
    let count = std::env::var("NEURARCH_CASES").map_or(20_000, |n| n.parse().unwrap());
    for number in 0..count {
        let mut changed = bytes.clone();
        match number % 8 {
            0 => changed.truncate(dice.roll(bytes.len())),
            1 => changed.extend((0..=dice.roll(100)).map(|byte| byte as u8)),
            2 => {
                let (from, to, length) =
                    (dice.roll(bytes.len() - 64), dice.roll(bytes.len() - 64), 1 + dice.roll(63));
                changed.copy_within(from..from + length, to);
            }
            _ => {
                let at = dice.roll(bytes.len());
                changed[at] ^= 1 << dice.roll(8);
            }
        }
        if changed != bytes {
            noticed(&changed);
        }
    }
    assert!(matches!(noticed(&[]), CheckpointError::Header(_)));
    assert!(matches!(noticed(b"neurarch"), CheckpointError::Header(_)));
}
