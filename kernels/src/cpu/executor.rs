//! Runs plans: tiles of models through whole programs, tiles in parallel on the caller's rayon pool.
//!
//! See [`run`].

use crate::cpu::tile::{Key, Rows};
use crate::passes::plan::Plan;

/// Where a plan's operands lie, for one cohort of models. Row `m` of everything belongs to model `m`.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// How many models there are.
    pub models: usize,
    /// For each slot of the program, its rows. Slots that are stored to are written.
    pub slots: &'a [Rows<'a>],
    /// For each input of the program, where it is read.
    pub inputs: &'a [Source<'a>],
    /// For each output of the program, where it is written.
    pub outputs: &'a [Sink<'a>],
    /// The scalars: the value of scalar `s` for model `m` at `s · models + m`.
    pub scalars: &'a [f64],
    /// The random state of each model at the first step; a step adds 1 to `step`. May be empty if
    /// the program draws no random numbers.
    pub keys: &'a [Key],
}

/// Where an input is read.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The input's elements (row-major), or the item numbers if `gather` is set.
    pub rows: Rows<'a>,
    /// Bytes from one step's elements, or item numbers, to the next step's.
    pub step_bytes: usize,
    /// If set, axis 0 of the input is picked from a data set.
    pub gather: Option<Gather>,
}

/// A data set from which each model picks its minibatch: `rows` of the [`Source`] hold `u32` item
/// numbers, one for each index of axis 0.
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    /// Address of item 0.
    pub data: *const u8,
    /// How many items there are; a larger item number is a bug of the caller.
    pub items: usize,
    /// Bytes of one item.
    pub item_bytes: usize,
}

/// Where an output is written, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Sink<'a> {
    /// The output's elements at the first step.
    pub rows: Rows<'a>,
    /// Bytes from one step's elements to the next step's.
    pub step_bytes: usize,
}

/// Some steps of one plan: a part of what happens to a tile in one visit.
#[derive(Clone, Copy, Debug)]
pub struct Stage<'a> {
    /// What is run.
    pub plan: &'a Plan,
    /// On what.
    pub binding: Binding<'a>,
    /// How often.
    pub steps: usize,
}
