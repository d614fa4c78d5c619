//! The one call into the executor: arrays, checked, become the rows that [`executor::run`] works on.
#![expect(unsafe_code, reason = "the executor takes addresses")]

use std::marker::PhantomData;

use neurarch_kernels::cpu::executor::{self, Binding, Gather, Sink, Source, Stage};
use neurarch_kernels::cpu::tile::{Key, Rows};
use neurarch_kernels::dtype::Element;
use neurarch_kernels::passes::plan::Plan;

use crate::bind::Bound;

/// Some models of a population: all of them, or a strictly increasing list of indices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    population: usize,
    /// Pairs (0, index), as the executor's listed rows are, if not all are members.
    some: Option<Vec<(u32, u32)>>,
}

impl Members {
    /// Makes the set of `indices`, which increase strictly, in a population of that size.
    pub(crate) fn new(population: usize, indices: Vec<u32>) -> Self {
        assert!(indices.is_sorted_by(|a, b| a < b), "indices increase strictly");
        assert!(indices.last().is_none_or(|&last| (last as usize) < population));
        let all = indices.len() == population;
        let some = (!all).then(|| indices.into_iter().map(|index| (0, index)).collect());
        Members { population, some }
    }

    /// Counts the members.
    pub(crate) fn len(&self) -> usize {
        self.some.as_ref().map_or(self.population, Vec::len)
    }

    /// Gives the members' indices in the population.
    pub(crate) fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        let listed = self.some.as_deref();
        (0..self.len()).map(move |i| listed.map_or(i, |some| some[i].1 as usize))
    }

    /// Gives the members' indices if not all models are members.
    pub(crate) fn listed(&self) -> Option<&[(u32, u32)]> {
        self.some.as_deref()
    }

    fn end(&self) -> usize {
        self.some
            .as_ref()
            .map_or(self.population, |some| some.last().map_or(0, |l| l.1 as usize + 1))
    }
}

/// An array with a row for each model of a population, or one row for all, to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read<'a> {
    bytes: &'a [u8],
    /// Bytes from model to model; 0 if all share a row.
    pub(crate) stride: usize,
    /// Where the first step's numbers start in a row.
    pub(crate) offset: usize,
    /// Bytes from step to step.
    pub(crate) step_bytes: usize,
    picked: Option<Picked<'a>>,
}

/// A data set from which item numbers pick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Picked<'a> {
    bytes: &'a [u8],
    item_bytes: usize,
}

impl<'a> Read<'a> {
    /// Reads the array itself, once.
    pub(crate) fn new(bytes: &'a [u8], stride: usize) -> Self {
        Read { bytes, stride, offset: 0, step_bytes: 0, picked: None }
    }

    /// Reads items of `data`, picked by item numbers: `None` if a number is too large.
    pub(crate) fn picked(
        numbers: &'a [u32],
        stride: usize,
        data: &'a [u8],
        items: usize,
    ) -> Option<Self> {
        let largest = numbers.iter().copied().max();
        if largest.is_some_and(|largest| largest as usize >= items) {
            return None;
        }
        let picked = Some(Picked { bytes: data, item_bytes: data.len() / items.max(1) });
        let bytes = bytemuck::cast_slice(numbers);
        Some(Read { bytes, stride, offset: 0, step_bytes: 0, picked })
    }

    /// Moves the first step.
    pub(crate) fn at(self, offset: usize, step_bytes: usize) -> Self {
        Read { offset, step_bytes, ..self }
    }
}

/// An array with a row for each model of a population, to write.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    base: *mut u8,
    len: usize,
    stride: usize,
    array: PhantomData<&'a mut [u8]>,
}

impl<'a> Write<'a> {
    /// Writes to `elements`, `stride` bytes from model to model.
    pub(crate) fn new<T: Element>(elements: &'a mut [T], stride: usize) -> Self {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(elements);
        Write { base: bytes.as_mut_ptr(), len: bytes.len(), stride, array: PhantomData }
    }
}

/// Where a stage's output goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Which of the arrays to write.
    pub(crate) array: usize,
    /// Where the first step's numbers start in a row.
    pub(crate) offset: usize,
    /// Bytes from step to step.
    pub(crate) step_bytes: usize,
}

/// Some steps of one plan.
pub(crate) struct Job<'a> {
    /// What is run.
    pub(crate) plan: &'a Plan,
    /// How often.
    pub(crate) steps: usize,
    /// The plan's slots, in order.
    pub(crate) slots: &'a Bound<'a>,
    /// The plan's inputs, in order.
    pub(crate) inputs: &'a [Read<'a>],
    /// The plan's outputs, in order; no two of them at one place.
    pub(crate) outputs: &'a [Output],
    /// The plan's scalars: that of scalar `s` for member `m` at `s · members + m`.
    pub(crate) scalars: &'a [f64],
    /// The members' random states; empty if the plan draws no numbers.
    pub(crate) keys: &'a [Key],
}
