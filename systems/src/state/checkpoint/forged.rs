//! Files that somebody forged: checksums are right, and what they say is not. Nothing panics, and what is refused leaves
//! nothing behind.

use bevy_ecs::prelude::*;
use ndarray::Array2;
use neurarch_components::column::shared::SharedTensors;
use neurarch_components::layers::{BatchNorm1d, Linear, Sequential, Tanh};
use neurarch_components::optimizer::Adam;
use neurarch_components::population::Population;
use neurarch_kernels::ir::dtype::Dtype;

use super::format::{BLOCK_BYTES, HEADER_BYTES, Header, checksum};
use super::index::{Entries, Index, Section};
use super::open::Checkpoint;
use super::save;
use crate::compile::array::Input;
use crate::optim::insert::insert_with;
use crate::structure::shared::share;
use crate::structure::spawn::spawn_population;

/// Draws numbers that follow from the first.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        let number = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = number.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides.max(1)
    }

    /// Draws a number near another, or one at an edge.
    fn number(&mut self, was: u64, others: &[u64]) -> u64 {
        match self.roll(8) {
            0 => was.wrapping_add(1),
            1 => was.wrapping_sub(1),
            2 => 0,
            3 => u64::MAX,
            4 => was.wrapping_mul(2),
            5 => u64::from(u32::MAX),
            6 => 1 << self.roll(64),
            _ => others[self.roll(others.len())],
        }
    }
}

/// A file of two structures and shared parameters.
fn valid() -> Vec<u8> {
    let mut world = World::new();
    let net = Sequential::new().push(Linear::new(3, 4)).push(BatchNorm1d::new(4)).push(Tanh);
    let population = spawn_population(&mut world, &net, 3, 3, 7, Dtype::F32).unwrap();
    let adam = |model: usize| Adam { lr: 0.1 * model as f64, ..Adam::default() };
    insert_with(&mut world, population, adam).unwrap();
    share(&mut world, population, "0.bias").unwrap();
    let root = world.get::<Population>(population).unwrap().models()[1];
    let last = world.get::<Children>(root).unwrap()[2];
    world.entity_mut(last).remove::<Tanh>();
    let path = std::env::temp_dir().join(format!("neurarch-forged-{}", std::process::id()));
    save(&mut world, &[population], &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    bytes
}

/// Puts a file together whose checksums are right.
fn forge(sections: &[u8], index: &mut Index, archive: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let blocks = sections.chunks(BLOCK_BYTES).map(checksum).collect();
    if index.sums.len() == sections.len().div_ceil(BLOCK_BYTES) {
        index.sums = blocks;
    }
    let mut archived = index.to_bytes().unwrap();
    archive(&mut archived);
    let index_at = (HEADER_BYTES + sections.len()) as u64;
    let (index_bytes, index_sum) = (archived.len() as u64, checksum(&archived));
    let header = Header { index_at, index_bytes, index_sum };
    [&header.to_bytes(), sections, &archived].concat()
}

/// Changes something about the index.
fn change(index: &mut Index, dice: &mut Dice) {
    let sections: Vec<u64> = index.columns.iter().map(|of| of.rows.at).collect();
    let section = |of: &mut Section, dice: &mut Dice| match dice.roll(2) {
        0 => of.at = dice.number(of.at, &sections),
        _ => of.bytes = dice.number(of.bytes, &sections),
    };
    let entries = |of: &mut Entries, dice: &mut Dice| match dice.roll(2) {
        0 => of.start = dice.number(of.start.into(), &[1, 2, 3]) as u32,
        _ => of.end = dice.number(of.end.into(), &[1, 2, 3]) as u32,
    };
    let name = |of: &mut String, dice: &mut Dice| {
        *of = ["", "weight", "0", "a.b", "Linear", "Ties", "Population"][dice.roll(7)].to_owned();
    };
    let at = dice.roll(1 << 20);
    match dice.roll(6) {
        0 => {
            let at = at % index.populations.len();
            let of = &mut index.populations[at];
            match dice.roll(9) {
                0 => of.entity = dice.number(of.entity, &sections),
                1 => of.seed = dice.number(of.seed, &sections),
                2 => of.dtype = dice.roll(256) as u8,
                3 => of.next_number = dice.number(of.next_number, &sections),
                4 => of.models = dice.number(of.models, &sections),
                5 => of.companions = (0..dice.roll(3)).map(|_| dice.roll(600) as u16).collect(),
                6 => entries(&mut of.groups, dice),
                7 => entries(&mut of.columns, dice),
                _ => entries(&mut of.components, dice),
            }
        }
        1 => {
            let at = at % index.groups.len();
            let of = &mut index.groups[at];
            match dice.roll(4) {
                0 => entries(&mut of.modules, dice),
                1 => of.members = dice.number(of.members, &sections),
                2 => section(&mut of.indices, dice),
                _ => section(&mut of.numbers, dice),
            }
        }
        2 => {
            let at = at % index.modules.len();
            let of = &mut index.modules[at];
            match dice.roll(5) {
                0 => name(&mut of.name, dice),
                1 => of.parent = [None, Some(0), Some(1), Some(u32::MAX)][dice.roll(4)],
                2 => section(&mut of.entities, dice),
                3 => entries(&mut of.columns, dice),
                _ => entries(&mut of.components, dice),
            }
        }
        3 => {
            let at = at % index.columns.len();
            let of = &mut index.columns[at];
            match dice.roll(8) {
                0 => name(&mut of.name, dice),
                1 => of.role = dice.number(of.role.into(), &[0, 1, 2, 3, 256, 257]) as u16,
                2 => of.index = dice.number(of.index.into(), &[0, 1, 2]) as u32,
                3 => of.dtype = dice.roll(8) as u8,
                4 => of.shape.push(dice.number(1, &[0, 2, 1 << 40])),
                5 => of.shape.iter_mut().for_each(|size| *size = dice.number(*size, &[0, 1])),
                6 => of.row_bytes = dice.number(of.row_bytes, &[0, 64, 128]),
                _ => section(&mut of.rows, dice),
            }
        }
        4 => {
            let at = at % index.components.len();
            let of = &mut index.components[at];
            match dice.roll(4) {
                0 => name(&mut of.ty, dice),
                1 => section(&mut of.values, dice),
                2 => section(&mut of.ends, dice),
                _ => section(&mut of.which, dice),
            }
        }
        _ => match dice.roll(4) {
            0 => drop(index.sums.pop()),
            1 => index.modules.swap(0, at % 4),
            2 => drop(index.columns.pop()),
            _ => index.groups.reverse(),
        },
    }
}

/// Opens a file and does all that can be done with it; says whether that can be.
fn attack(bytes: &[u8]) -> bool {
    let Ok(checkpoint) = Checkpoint::from_bytes(bytes, "memory") else { return false };
    let _ = checkpoint.tensors();
    let x = Array2::<f32>::ones((2, 3));
    let _ = checkpoint.forward(Input::shared(x.view()));
    let mut world = World::new();
    let restored = checkpoint.restore(&mut world);
    let mut left = world.query::<&Population>();
    match restored {
        Ok(restored) => {
            assert_eq!(left.iter(&world).count(), restored.populations.len());
            true
        }
        Err(_) => {
            assert_eq!(left.iter(&world).count(), 0, "nothing is left behind");
            assert_eq!(world.query::<&SharedTensors>().iter(&world).count(), 0);
            false
        }
    }
}

#[test]
fn forged_files_are_refused_or_give_other_numbers() {
    let bytes = valid();
    assert!(attack(&bytes));
    let header = Header::from_bytes(&bytes, bytes.len() as u64).unwrap();
    let sections = &bytes[HEADER_BYTES..header.index_at as usize];
    let index = Index::from_bytes(&bytes[header.index_at as usize..]).unwrap();
    assert!(attack(&forge(sections, &mut index.clone(), |_| {})));
    let count = std::env::var("NEURARCH_CASES").map_or(1_000, |n| n.parse().unwrap());
    let mut dice = Dice(11);
    let mut accepted = [0; 3];
    for number in 0..count {
        let (kind, mut index) = (number % 3, index.clone());
        let forged = match kind {
            0 => {
                (0..=dice.roll(2)).for_each(|_| change(&mut index, &mut dice));
                forge(sections, &mut index, |_| {})
            }
            1 => {
                let mut sections = sections.to_vec();
                for _ in 0..=dice.roll(3) {
                    let at = dice.roll(sections.len());
                    sections[at] = dice.roll(256) as u8;
                }
                forge(&sections, &mut index, |_| {})
            }
            _ => forge(sections, &mut index, |archived| {
                for _ in 0..=dice.roll(3) {
                    let at = dice.roll(archived.len());
                    archived[at] = dice.roll(256) as u8;
                }
            }),
        };
        accepted[kind] += usize::from(attack(&forged));
    }
    // Other weights are other numbers, and most places of the index are looked at.
    assert!(accepted[1] > count / 30, "{accepted:?}");
    assert!(accepted[0] < count / 6 && accepted[2] < count / 4, "{accepted:?}");
}
